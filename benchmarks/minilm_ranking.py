"""Super-nets of MiniLM-L6 at equal compute: how well each ranks the children of the table `minilm` (part B).

    python benchmarks/minilm_ranking.py plan        CPU-hours of every command below; runs nothing
    python benchmarks/minilm_ranking.py untrained   inherited weights, sums of lone replacements, block-wise training
    python benchmarks/minilm_ranking.py run         the study's super-nets, on the screened and on the whole space
    python benchmarks/minilm_ranking.py sweep       other methods and settings, on seeds of their own
    python benchmarks/minilm_ranking.py confirm     what won the sweep, on fresh seeds
    python benchmarks/minilm_ranking.py adapt       a sample of children, each trained on for some steps
    python benchmarks/minilm_ranking.py bar         what was tried when `confirm` had missed the bar
    python benchmarks/evidence.py                   makes the tables of all of it anew, from the records

No command needs a child to be trained: all score the children of the design, which the table trains alone (`prepare`
of minilm_table.py takes ten minutes first). Killed at any moment, the same command goes on: a super-net in hand is
lost, none is doubled. Two commands may run side by side with `--share 0/2` and `--share 1/2`. Seeds come in turn, so
that a study cut short has compared all methods on the seeds it has.

What was settled before any of it was run:

- Compute is counted in forwards of a child over a batch of 32 sentences, a backward counting two: 600 for a
  super-net, which are 200 steps of `uniform`, what `compress --scorer supernet` takes. Anchors and comparisons count.
  Where the base model is the anchor its forward counts too; its last states, which all super-nets learn from, were
  computed once, and are counted once for every batch that is seen.
- Nothing is tuned but in `sweep`: rate 4e-4, warm-up and fall are those of `compress`; lambda is 0.5, for all
  blocks and all sequences. Seeds 100 to 105 report, 200 to 202 tune, 300 to 305 confirm.
- Screened is the space without variants whose lone replacement costs more than 0.3. A super-net of it ranks its own
  children only, one of the whole space all.
- Of the sweep, on the screened space, the two with the best mean tau within bands of the screened children go on,
  beside `uniform`; of settings that take more compute than 600 only one may.
- A child's score is its distance from the base model on the text that chooses, with inherited weights.
- `adapt` trains super-nets of `run` again, to the same weights, and from these 45 children of the screened space, the
  same ones for all, each alone by the table's steps and rate but a quarter as many; an additive model of their losses
  ranks the others.
- `bar` was settled when `confirm` was known: its best, on seeds 400 to 405, its children scored on 18 batches of the
  text to train on beside the 6 that choose.
- Interference is the mean cosine of the gradients of an operator that two children share, on a batch of that text; the
  same pairs of the screened space for all super-nets.
"""

import argparse
import copy
import dataclasses
import math
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from minilm_children import DESIGN, Prepared, begin, begun, parse_share, rows_of

from hf_nasbert import records
from hf_nasbert.compression.recover import batch_of_step, recover
from hf_nasbert.compression.replace_one import replace_one, sum_of
from hf_nasbert.compression.sentences import digest_of
from hf_nasbert.compression.states import TeacherStates
from hf_nasbert.elastic.batches import Batch
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, mask_of, running
from hf_nasbert.elastic.scores import score_model
from hf_nasbert.extraction import extract_child
from hf_nasbert.foreign import read_object
from hf_nasbert.interference import draw_pairs, gradient_similarity
from hf_nasbert.modeling.elastic import elastic_supernet
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.records import Record, versions
from hf_nasbert.space import SKIP, Architecture, SearchSpace, hamming
from hf_nasbert.stopping import leave
from hf_nasbert.teachers import BaseModelTeacher, Taught
from hf_nasbert.training import SupernetTrainingArguments
from hf_nasbert.training.farm import compress_table
from hf_nasbert.training.loop import train_supernet
from hf_nasbert.training.suitable import make_method

FILE = "minilm-supernets.jsonl"
PASSES = 600
SPACES = ("screened", "whole")
SEEDS = {"run": range(100, 106), "sweep": range(200, 203), "confirm": range(300, 306), "adapt": range(100, 103),
         "bar": range(400, 406)}  # fmt: skip
UNTRAINED = ("inherited weights", "replace-one sums", "block-wise distillation")
_BLOCKWISE_STEPS = 100  # of every block's variants
_ANCHOR = "anchored to the base model"
_PAIRED, _PAIR_SEED = 4, 0  # children whose gradients are held against those of another one at every distance
_IGNORED = -100


class Variant(NamedTuple):
    """A way to train a super-net: a method, its settings and the training's, and how many times the compute.

    Its children are scored on the text that chooses, and on so many batches of the text to train on.
    """

    method: str
    settings: Mapping[str, Any] = {}
    training: Mapping[str, Any] = {}
    factor: float = 1.0
    more_batches: int = 0


_ALL_ROWS = {"alignment_rows": 1.0}  # as the paper; half of them, the default, came later
_TO_BASE = {"anchor": "base_model", **_ALL_ROWS}
STUDY: dict[str, Variant] = {
    "uniform": Variant("uniform"),
    "fair": Variant("fair"),
    "magic_t": Variant("magic_t"),
    "magic_a": Variant("magic_a", _ALL_ROWS),
    f"magic_a, {_ANCHOR}": Variant("magic_a", _TO_BASE),
    "magic_at": Variant("magic_at", _ALL_ROWS),
    f"magic_at, {_ANCHOR}": Variant("magic_at", _TO_BASE),
    "sandwich": Variant("sandwich"),
}
_HELD = {"lr_scheduler_type": "constant_with_warmup"}
SWEEP: dict[str, Variant] = {
    "uniform": Variant("uniform"),
    "attentive": Variant("attentive"),
    "conflict_projection": Variant("conflict_projection"),
    "complexity_rate": Variant("complexity_rate"),
    "size_shifted": Variant("size_shifted"),
    "importance": Variant("importance"),
    "assembled": Variant("assembled"),
    "few_shot": Variant("few_shot"),
    "magic_at_guarded": Variant("magic_at_guarded", _ALL_ROWS),
    "uniform, learning rate 2e-4": Variant("uniform", {}, {"learning_rate": 2e-4}),
    "uniform, learning rate 1e-3": Variant("uniform", {}, {"learning_rate": 1e-3}),
    "uniform, learning rate held": Variant("uniform", {}, _HELD),
    f"magic_at, {_ANCHOR}, lambda 2": Variant("magic_at", {**_TO_BASE, "alignment_weight": 2.0}),
    "uniform, half the compute": Variant("uniform", factor=0.5),
    "uniform, twice the compute": Variant("uniform", factor=2),
    "uniform, four times the compute": Variant("uniform", factor=4),
}
CONFIRM: dict[str, Variant] = {
    name: SWEEP[name] for name in ("uniform", "uniform, learning rate 1e-3", "uniform, four times the compute")
}
"""Filled in when the sweep was done, by the rule above, and committed before it is run."""
BAR: dict[str, Variant] = {
    "uniform, four times the compute, scored on 24 batches": Variant("uniform", factor=4, more_batches=18)
}
ADAPTED: dict[str, Variant] = {name: STUDY[name] for name in ("uniform", "magic_t")}
ADAPT_STEPS, NUM_ADAPTED, _ADAPT_SEED = 15, 45, 0
STUDIES = {"run": STUDY, "sweep": SWEEP, "confirm": CONFIRM, "adapt": ADAPTED, "bar": BAR}


class Job(NamedTuple):
    """A super-net to train, or what needs none."""

    study: str
    variant: str
    space: str
    seed: int


def jobs_of(study: str) -> list[Job]:
    """What a command makes, in its order."""
    if study == "untrained":
        return [Job(study, name, "whole", 0) for name in UNTRAINED]
    spaces = SPACES if study == "run" else SPACES[:1]
    return [Job(study, name, space, seed) for seed in SEEDS[study] for space in spaces for name in STUDIES[study]]


class TableBatches:
    """The text that children are trained on, as training loops take it: a batch a step, drawn as `recover` does."""

    def __init__(self, batches: Sequence[Batch], seed: int, batch_size: int) -> None:
        self._batches, self._seed, self.batch_size = batches, seed, batch_size

    def describe(self) -> dict[str, Any]:
        """The text and the order."""
        return {"content": digest_of(self._batches), "seed": self._seed}

    def loader(self, start_step: int, num_steps: int, *, rows: slice, num_workers: int) -> Iterator[Batch]:
        """The batches of some steps."""
        for step in range(start_step, start_step + num_steps):
            batch = labelled(self._batches[batch_of_step(len(self._batches), self._seed, step)])
            yield {name: tensor[rows] for name, tensor in batch.items()}

    def sample_ids(self, step: int) -> Sequence[int]:
        """The number of a step's batch."""
        return [batch_of_step(len(self._batches), self._seed, step)]


def labelled(batch: Batch) -> Batch:
    """A batch with the labels that a training step counts by: the first tokens, none of which is masked."""
    labels = torch.full_like(batch["input_ids"], _IGNORED)
    labels[:, 0] = batch["input_ids"][:, 0]
    return {name: batch[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}


class StoredTeacher(BaseModelTeacher):
    """The base model, whose last states of the text to train on were stored: that forward is not made again."""

    def __init__(
        self, full_child: Any, calibration: Sequence[Batch], batches: Sequence[Batch], states: TeacherStates
    ) -> None:
        super().__init__(full_child, calibration)
        self._states = states
        self._place = {_key(batch): place for place, batch in enumerate(batches)}

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """The last states alone, where they are stored; else all of them."""
        place = self._place.get(_key(batch))
        if place is None or vectors:
            return super().teach(batch, hidden_states=hidden_states, vectors=vectors)
        stored = self._states[place].states.float()
        whole = stored.new_zeros(*batch["input_ids"].shape, stored.shape[-1])
        whole[mask_of({"attention_mask": torch.ones_like(batch["input_ids"]), **batch}, whole.device)] = stored
        return Taught(stored.new_zeros(0, 0), [whole])


def _key(batch: Mapping[str, torch.Tensor]) -> bytes:
    return batch["input_ids"].numpy().tobytes()


def cut(prepared: Prepared, space: SearchSpace) -> SupernetPreTrainedModel:
    """The refitted super-net with the operators of a space alone."""
    made = prepared.materials
    whole = made.supernet
    supernet = elastic_supernet(copy.deepcopy(made.base.full_child), space)
    for own, block in zip(encoder_of(supernet).encoder.blocks, encoder_of(whole).encoder.blocks, strict=True):
        for name in own.operators.candidates:
            own.operators.load_state_of(name, block.operators.state_of(name))
    return supernet


def training_arguments(prepared: Prepared, variant: Variant, seed: int, folder: str) -> SupernetTrainingArguments:
    """How a super-net is trained, its steps aside."""
    compress = prepared.materials.arguments
    own: dict[str, Any] = {"learning_rate": compress.learning_rate} | dict(variant.training)
    return SupernetTrainingArguments(
        output_dir=folder, method=variant.method, method_settings=dict(variant.settings), seed=seed,
        per_device_train_batch_size=compress.batch_size, weight_decay=0.0, warmup_ratio=0.1, min_lr_ratio=0.02,
        num_eval_children=0, save_steps=10**9, save_total_limit=1, disable_tqdm=True, report_to="none", use_cpu=True,
        mixed_precision="no", **own,
    )  # fmt: skip


def train(
    prepared: Prepared, space: SearchSpace, variant: Variant, seed: int
) -> tuple[SupernetPreTrainedModel, Record]:
    """Train a super-net of a space, and say what it took."""
    made, start = prepared.materials, time.process_time()
    batches, states, choosing = made.text.train, made.states["train"], made.text.choosing
    supernet, full_child = cut(prepared, space), copy.deepcopy(made.base.full_child)
    if variant.settings.get("anchor") == "base_model":  # it has to give the states behind all blocks
        teacher = BaseModelTeacher(full_child, made.calibration)
    else:
        teacher = StoredTeacher(full_child, made.calibration, batches, states)
    with tempfile.TemporaryDirectory(dir=made.work) as folder:
        arguments = training_arguments(prepared, variant, seed, folder)
        per_step = make_method(supernet, arguments).passes_per_step
        steps = max(1, round(variant.factor * PASSES / per_step))
        arguments = dataclasses.replace(arguments, max_steps=steps)
        done = train_supernet(
            supernet, arguments, TableBatches(batches, seed, arguments.per_device_train_batch_size),
            [labelled(batch) for batch in choosing], base_model=teacher, pooling=made.distance.pooling,
        )  # fmt: skip
    if not done.is_finished:
        leave("stopped: the super-net in hand is given up; the same command trains it and the others")
    return supernet.eval(), {
        "method": variant.method,
        "settings": dict(variant.settings),
        "training": dict(variant.training),
        "steps": steps,
        "passes": round(steps * per_step, 1),
        "teacher_passes": min(steps, len(batches)),
        "training_cpu_seconds": round(time.process_time() - start, 1),
    }


def scores(
    prepared: Prepared, supernet: SupernetPreTrainedModel, children: Sequence[Architecture], more_batches: int = 0
) -> list[Any]:
    """The distance of every child from the base model, None of those that the super-net has not."""
    made = prepared.materials
    own = [child for child in children if supernet.space.why_not(child) is None]
    targets = [made.states["choosing"][place] for place in range(len(made.text.choosing))]
    targets += [made.states["train"][place] for place in range(more_batches)]
    batches = [*made.text.choosing, *made.text.train[:more_batches]]
    scorer = dataclasses.replace(made.scorer_of(supernet), batches=batches, targets=targets)
    losses = dict(zip(own, scorer(own), strict=True))
    return [float(f"{losses[child]:.7g}") if child in losses else None for child in children]


def interference(prepared: Prepared, supernet: SupernetPreTrainedModel) -> list[list[float]]:
    """The mean cosine of gradients of what two children share, by the number of blocks in which they differ.

    Returns:
        Rows of distance, mean cosine, and number of operators compared.
    """
    made = prepared.materials
    batch, target = made.text.choosing[0], made.states["choosing"][0]
    encoder = encoder_of(supernet)

    def gradients(child: Architecture) -> list[torch.Tensor]:
        owned = [
            block.operators.parameters_of(name)
            for block, name in zip(encoder.encoder.blocks_of(child), child, strict=True)
        ]
        hidden_states, masks = encoder.embed(**inputs_of(batch, supernet.device))
        for block, name in enumerate(child):
            hidden_states = encoder.run_block(block, name, hidden_states, masks, child=child)
        parts = made.distance.parts(hidden_states, mask_of(batch, supernet.device), target, None)
        flat = [parameter for parameters in owned for parameter in parameters]
        found = iter(torch.autograd.grad(made.distance.total(parts), flat, allow_unused=True, materialize_grads=True))
        return [
            torch.cat([next(found).flatten() for _ in parameters]) if parameters else torch.zeros(0)
            for parameters in owned
        ]

    cosines: dict[int, list[float]] = {}
    with running(supernet, gradients=True):
        for base, others in draw_pairs(made.screened_space, num_children=_PAIRED, seed=_PAIR_SEED):
            first = gradients(base)
            for other in others:
                second = gradients(other)
                shared = [block for block, name in enumerate(base) if name == other[block] != SKIP]
                values = [gradient_similarity(first[block], second[block]) for block in shared]
                cosines.setdefault(hamming(base, other), []).extend(one for one in values if not math.isnan(one))
    return [[distance, round(sum(own) / len(own), 5), len(own)] for distance, own in sorted(cosines.items()) if own]


def adapted(
    prepared: Prepared, supernet: SupernetPreTrainedModel, children: Sequence[Architecture], seed: int
) -> Record:
    """What some children reach when each is trained on alone, from what it inherits; None of the others."""
    trainer, own = prepared.trainer, [child for child in children if supernet.space.why_not(child) is None]
    settings = dataclasses.replace(trainer.recovery(seed), num_steps=ADAPT_STEPS)
    losses: dict[Architecture, float] = {}
    for child in random.Random(_ADAPT_SEED).sample(own, min(NUM_ADAPTED, len(own))):
        alone = extract_child(supernet, child)
        recover(alone, trainer.batches["train"], trainer.states["train"], trainer.distance, settings)
        score = score_model(alone, trainer.batches["choosing"], trainer.states["choosing"], trainer.distance)
        losses[child] = float(f"{score.loss:.7g}")
    return {
        "scores": [losses.get(child) for child in children],
        "passes_of_each": 3 * settings.num_steps + len(trainer.batches["choosing"]),
    }


def make(prepared: Prepared, job: Job, children: Sequence[Architecture]) -> Record:
    """The record of a job."""
    made, start, more_batches = prepared.materials, time.process_time(), 0
    told: Record = {}
    if job.study != "untrained":
        space = made.screened_space if job.space == "screened" else made.space
        variant = STUDIES[job.study][job.variant]
        (supernet, told), more_batches = train(prepared, space, variant, job.seed), variant.more_batches
        if job.study == "adapt":
            told |= adapted(prepared, supernet, children, job.seed)
        else:
            told |= {"scores": scores(prepared, supernet, children, more_batches)}
            told |= {"cosines": interference(prepared, supernet)}
    elif job.variant == "replace-one sums":
        batches, targets = made.replacing
        table = replace_one(made.supernet, batches, targets, made.distance)
        per_batch = [len(batch["input_ids"]) / made.arguments.batch_size for batch in batches]
        told = {
            "passes": round(len(table) * sum(per_batch), 1),
            "scores": [float(f"{sum_of(table, child):.7g}") for child in children],
        }
    else:
        supernet = made.supernet
        if job.variant == "block-wise distillation":
            from hf_nasbert.compression.local import distil_blocks

            supernet = copy.deepcopy(supernet)
            distil_blocks(supernet, made.calibration, num_steps=_BLOCKWISE_STEPS, learning_rate=1e-3)
            # A step trains every variant of a block: on average as much as a child each, of all operators of a block.
            told = {"passes": 3.0 * _BLOCKWISE_STEPS * max(map(len, made.space.blocks))}
        told |= {"scores": scores(prepared, supernet, children), "cosines": interference(prepared, supernet)}
    batches = len(made.text.choosing) + more_batches
    return {
        **job._asdict(), **told, "scored_batches": batches, "cpu_seconds": round(time.process_time() - start, 1),
        "versions": versions(),
    }  # fmt: skip


def known(found: Sequence[Record]) -> set[Job]:
    """The jobs of some records."""
    return {Job(*(one[name] for name in Job._fields)) for one in found if one["study"] != "about"}


def work(prepared: Prepared, design: Record, jobs: Sequence[Job], path: Path) -> None:
    """Make what the records lack, one by one; compressed beside themselves at the end.

    Raises:
        ValueError: If the records are of another design or text.
    """
    children = [Architecture.parse(one["architecture"]) for one in design["children"]]
    about: Record = {
        "study": "about",
        "children": list(map(str, children)),
        "screened": [list(names) for names in prepared.materials.screened_space.blocks],
        "text": digest_of(prepared.materials.text.train),
        "choosing": digest_of(prepared.materials.text.choosing),
    }

    def unless_there(job: Job, record: Record) -> Any:
        return lambda found: [] if job in known(found) else [record]

    begun(path)
    (first, *_) = records.update(path, lambda found: [] if found else [about])
    if first != about:
        raise ValueError(f"{path} is of another design or text: name another folder of records")
    for job in jobs:
        if job not in known(records.read(path)):
            record = make(prepared, job, children)
            records.update(path, unless_there(job, record))
            print(f"{', '.join(map(str, job))}: {record['cpu_seconds']:.0f} CPU-s", flush=True)
    compress_table(path)


# Costs

CPU_SECONDS_OF_PASS, CPU_SECONDS_SCORED, CPU_SECONDS_OF_GRADIENTS = 0.1, 0.26, 26.0
"""Of a forward pass over a batch where a backward counts two, of a child's score, and of all pairs of gradients."""


def plan_lines(folder: Path, num_children: int = 300) -> Iterator[str]:
    """CPU-hours of every command: by the records where there are some, else by what was measured before."""
    rows = rows_of(folder / FILE)
    for study in ("untrained", *STUDIES):
        jobs, total, num_left = jobs_of(study), 0.0, 0
        of_study = [row["cpu_seconds"] for row in rows if row["study"] == study]
        for job in jobs:
            if job in known(rows):
                continue
            num_left += 1
            factor = 1.0 if study == "untrained" else STUDIES[study][job.variant].factor
            foretold = factor * PASSES * CPU_SECONDS_OF_PASS
            if study == "adapt":
                foretold += NUM_ADAPTED * (3 * ADAPT_STEPS * CPU_SECONDS_OF_PASS + CPU_SECONDS_SCORED)
            else:
                foretold += num_children * CPU_SECONDS_SCORED + CPU_SECONDS_OF_GRADIENTS
            total += sum(of_study) / len(of_study) if of_study else foretold
        yield f"{study}: {num_left} of {len(jobs)} to make, {total / 3600:.1f} CPU-hours"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "untrained", *STUDIES])
    parser.add_argument("--share", type=parse_share, default=(0, 1), help="Which part of the work, as 0/2 and 1/2.")
    arguments, prepared = begin(parser, plan_lines)
    number, of = arguments.share
    design = read_object(arguments.records / DESIGN)
    work(prepared, design, jobs_of(arguments.command)[number::of], arguments.records / FILE)


if __name__ == "__main__":
    main()
