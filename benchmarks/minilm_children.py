"""What the studies on `minilm` stand on: MiniLM-L6 made elastic, its text in three parts, and children alone."""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save
from transformers import PreTrainedTokenizerBase

from hf_nasbert import records
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.proof import Judge
from hf_nasbert.compression.recover import RecoverySettings, recover
from hf_nasbert.compression.replace_one import replace_one
from hf_nasbert.compression.sentences import PARTS, Batch, digest_of
from hf_nasbert.compression.stages import Variants
from hf_nasbert.compression.states import TeacherStates
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import CostFunction, cost_function
from hf_nasbert.data import load_labelled
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.importance import importance
from hf_nasbert.elastic.scores import score_model
from hf_nasbert.extraction import extract_child, load_supernet
from hf_nasbert.kept import Kept
from hf_nasbert.locking import locked
from hf_nasbert.metrics import Array, Interval, Redraws, cluster_interval
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules
from hf_nasbert.records import Record, versions
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.writing import whole_folder, write_bytes

ROOT = Path(__file__).parents[1]
RECORDS, WORK = ROOT / "benchmarks" / "records", ROOT / "runs" / "minilm"
DESIGN = "minilm-design.json"
SOURCE = "BoolQ's passages of Wikipedia and film reviews, about three to two"
_QUARTERS = 4  # looks of a learning curve behind its start
_CURVE_BATCHES = 3

Parts = Mapping[str, list[Batch]]


@dataclass(frozen=True)
class Settings:
    """All that is decided about the table; kept in its design.

    Args:
        base_model: The encoder.
        heads: Heads that an attention may keep; `norm` and `skip` are offered too.
        ffn: Neurons that a feed-forward may keep.
        kernels: Sizes of convolutions in an attention's place.
        bands: Shares of the encoder's parameters.
        tolerance: How far a child's share may be from its band.
        limits: What a lone replacement may cost in a screened space: where a band has too few children of the first
            one, as that of a quarter has, others follow.
        num_children: Of a band, a third of each of `KINDS`.
        num_pilot: Of a band, the first of them.
        num_repeated: Of a band, those with a second seed.
        num_steps: Of a training at factor 1, one batch each.
        batch_size: Sentences of a batch.
        max_length: Tokens of a sentence.
        num_sentences: To train on, again and again where there are more steps.
        learning_rate: The highest one.
        inner_weight: Weight of the base model's inner states, as `compress` has it.
        num_pairs: Of STS-B's validation split, drawn once.
    """

    base_model: str = "packaged:all-MiniLM-L6-v2"
    heads: tuple[int, ...] = (6, 3)
    ffn: tuple[int, ...] = (768, 384)
    kernels: tuple[int, ...] = (7,)
    bands: tuple[float, ...] = (0.25, 0.375, 0.5)
    tolerance: float = 0.015
    limits: tuple[float, ...] = (0.3, 0.6, 1.2)
    num_children: int = 100
    num_pilot: int = 10
    num_repeated: int = 20
    num_steps: int = 60
    batch_size: int = 32
    max_length: int = 20
    num_sentences: int = 16_000
    learning_rate: float = 5e-4
    inner_weight: float = 10.0
    num_pairs: int = 500
    seed: int = 0


@dataclass(frozen=True)
class AloneTrainer:
    """Distils children of a base model alone, each from its inherited weights, by the steps of `compress`.

    The seed decides the order of the batches. The same child and seed give the same record on the same machine, the
    `timing` aside.

    Args:
        work: Folder that `prepare` filled.
        settings: Of the table.
        factor: How many times the tokens.
        inner_blocks: Of the base model, whose states are held to.
        distance: From the base model.
        modules: What makes sentence vectors.
        tokenizer: Cuts the pairs.
        pairs: Rows of `sentence1`, `sentence2`, `score`; None measures no correlation.
        max_length: Tokens of a sentence of a pair.
        source: What the text is called.
        space: Of the children.
        device: Where they are trained.
    """

    work: Path
    settings: Settings
    factor: int
    inner_blocks: tuple[int, ...]
    distance: Distance
    modules: SentenceModules
    tokenizer: PreTrainedTokenizerBase
    pairs: datasets.Dataset | None
    max_length: int
    source: str
    space: SearchSpace
    device: str = "cpu"

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a worker without what it loads itself."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def supernet(self) -> SupernetPreTrainedModel:
        """The base model's super-net, its variants refitted."""
        return load_supernet(self.work / "supernet", None).eval()

    @cached_property
    def batches(self) -> Parts:
        """The text."""
        return read_batches(self.work / "batches.safetensors")

    @cached_property
    def states(self) -> dict[str, TeacherStates]:
        """What the base model makes of it."""
        inner = {part: self.inner_blocks if part == "train" else () for part in PARTS}
        folder = self.work / "materials" / "states"
        return {part: TeacherStates(folder / part, len(self.batches[part]), inner[part]) for part in PARTS}

    @cached_property
    def judge(self) -> Judge:
        """Judges children on text that chose nothing, and on the pairs."""
        return Judge(
            self.batches["judging"], self.states["judging"], self.distance, self.modules, self.tokenizer,
            self.pairs, self.max_length,
        )  # fmt: skip

    def recovery(self, seed: int) -> RecoverySettings:
        """How children are distilled."""
        settings = self.settings
        return RecoverySettings(
            num_steps=self.factor * settings.num_steps, learning_rate=settings.learning_rate, seed=seed,
            inner_weight=settings.inner_weight if self.inner_blocks else 0.0,
        )  # fmt: skip

    @cached_property
    def recipe(self) -> Record:
        """Everything but architecture and seed that a child's loss depends on, in plain JSON types."""
        recovery = dataclasses.asdict(self.recovery(0))
        told = ("warmup", "max_grad_norm", "bf16", "inner_weight")
        return {
            "space": self.space.to_dict(),
            "base_model": self.settings.base_model,
            "source": self.source,
            "text": digest_of(self.batches["train"]),
            "dev": digest_of(self.batches["judging"]),
            "choosing": digest_of(self.batches["choosing"]),
            "max_steps": recovery["num_steps"],
            "train_batch_size": self.settings.batch_size,
            "sequence_length": self.settings.max_length,
            "learning_rate": self.settings.learning_rate,
            "distance": self.distance.describe(),
            "inner_blocks": list(self.inner_blocks),
            "num_pairs": 0 if self.pairs is None else len(self.pairs),
            **{name: recovery[name] for name in told},
        }

    @property
    def recipe_hash(self) -> str:
        """A short name for the recipe: equal recipes have equal hashes."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:12]

    def train(
        self, architecture: Sequence[str], seed: int, on_step: Callable[[int], None] = lambda step: None
    ) -> Record:
        """Distil a child and describe what came of it.

        `passes` are forwards over a training batch, of which a backward counts two, with those that judge; the base
        model's own, once for each batch that is seen, are `teacher_passes`.
        """
        architecture, recovery = self.space.validate(architecture), self.recovery(seed)
        start, cpu_start = time.perf_counter(), time.process_time()
        child = extract_child(self.supernet, architecture)
        looks = {recovery.num_steps * quarter // _QUARTERS for quarter in range(_QUARTERS)}
        curve: list[list[float]] = []
        few = [self.states["choosing"][place] for place in range(min(_CURVE_BATCHES, len(self.states["choosing"])))]

        def look(step: int) -> None:
            curve.append([step, score_model(child, self.batches["choosing"][: len(few)], few, self.distance).loss])

        def before(step: int) -> None:
            on_step(step)
            if step in looks:
                look(step)

        train = self.batches["train"]
        done = recover(child, train, self.states["train"], self.distance, recovery, on_step=before)
        look(recovery.num_steps)
        trained = time.process_time()
        judged = self.judge(child)
        judging = sum(len(batch["input_ids"]) for batch in self.batches["judging"]) / self.settings.batch_size
        whole = self._costs(architecture)
        return {
            "architecture": str(architecture),
            "seed": seed,
            "dev_loss": judged.loss,
            "cosine": judged.cosine,
            "stsb_validation": judged.spearman,
            "curve": curve,
            "num_parameters": sum(parameter.numel() for parameter in child.parameters()),
            "num_encoder_parameters": sum(self.sizes[block][name] for block, name in enumerate(architecture)),
            "flops": whole["flops"],
            "num_tokens": done.num_tokens,
            "passes": 3 * recovery.num_steps + judging,
            "teacher_passes": min(recovery.num_steps, len(train)),
            "recipe_hash": self.recipe_hash,
            "recipe": self.recipe,
            "versions": versions(),
            "timing": {
                "cpu_seconds": round(time.process_time() - cpu_start, 2),
                "training_cpu_seconds": round(trained - cpu_start, 2),
                "seconds": round(time.perf_counter() - start, 2),
            },
        }

    @cached_property
    def _costs(self) -> CostFunction:
        supernet = self.supernet
        return cost_function(supernet.config, 1, self.settings.max_length, None, supernet.head_parameters or 0)

    @cached_property
    def sizes(self) -> list[dict[str, int]]:
        """Parameters of every operator, block by block."""
        nothing = Architecture(("skip",) * self.space.num_choice_blocks)
        outside = self._costs(nothing)["num_parameters"]
        return [
            {
                name: int(self._costs(Architecture([*nothing[:block], name, *nothing[block + 1 :]]))["num_parameters"])
                - int(outside)
                for name in names
            }
            for block, names in enumerate(self.space.blocks)
        ]


def write_batches(path: Path, batches: Parts) -> None:
    """Write the text: one file, for a worker that is sent tensors needs an open file for each."""
    tensors = {
        f"{part} {number:06} {name}": tensor
        for part, own in batches.items()
        for number, batch in enumerate(own)
        for name, tensor in batch.items()
    }
    write_bytes(path, save(tensors))


def read_batches(path: Path) -> Parts:
    """The text that `write_batches` wrote."""
    found: dict[str, dict[str, dict[str, torch.Tensor]]] = {part: {} for part in PARTS}
    for key, tensor in sorted(load_file(path).items()):
        part, number, name = key.split()
        found[part].setdefault(number, {})[name] = tensor
    return {part: list(own.values()) for part, own in found.items()}


@dataclass(frozen=True)
class Prepared:
    """What trainings and designs stand on."""

    materials: Materials
    trainer: AloneTrainer


def prepare(
    settings: Settings, work: Path, texts: datasets.Dataset, pairs: datasets.Dataset | None, source: str, factor: int
) -> Prepared:
    """Text, the base model's states, sorted and refitted variants and lone replacements; what is there is read."""
    arguments = CompressArguments(
        base_model=settings.base_model, output_dir=str(work / "small"), max_parameters="0.5x",
        heads=list(settings.heads), ffn=list(settings.ffn), kernels=list(settings.kernels), bf16="no",
        batch_size=settings.batch_size, max_seq_length=settings.max_length, num_sentences=settings.num_sentences,
        latency_shape=f"1x{settings.max_length}", varied_sentences=False,  # as drawn: its design is older than that
    )  # fmt: skip
    with locked(work, wait=True):  # of two commands begun at once the second reads what the first makes
        made = Materials(arguments, TextSource.of(texts), work / "materials")
        made.bf16 = False
        states, asked = made.states, {"text": digest_of(made.text.train), "base_model": settings.base_model}
        kept = Kept(work / "importance.json", asked)
        scores = kept.get("importance", lambda: importance(made.base.full_child, made.calibration))
        made.variants = Variants(scores, {})
        made.table = replace_one(
            made.supernet, *made.replacing, made.distance, kept=work / "replace-one.json", progress=True
        )
        if not (work / "supernet").exists():
            with whole_folder(work / "supernet") as folder:
                made.supernet.save_pretrained(folder)
        if not (work / "batches.safetensors").exists():
            write_batches(work / "batches.safetensors", {part: getattr(made.text, part) for part in PARTS})
    longest = made.base.full_child.config.max_position_embeddings
    trainer = AloneTrainer(
        work, settings, factor, tuple(states["train"].inner_blocks), made.distance, made.modules, made.base.tokenizer,
        pairs, min(longest, made.modules.max_seq_length or longest), source, made.space,
    )  # fmt: skip
    return Prepared(made, trainer)


def table_of(factor: int, folder: Path) -> Path:
    """The file of the children that were given so many times the tokens."""
    return folder / f"table-minilm-x{factor}.jsonl"


def taus(design: Record, scores: Mapping[str, float], truth: Mapping[str, float]) -> tuple[Interval, Interval]:
    """Kendall's tau of the children that both know, with 90 % bootstrap intervals over them: of all, and within bands.

    Within bands is the mean over bands, each weighted by its pairs of children; NaN where there is no pair.
    """
    known = [one for one in design["children"] if one["architecture"] in scores and one["architecture"] in truth]
    if len(known) < 2:
        return (Interval(math.nan, math.nan, math.nan),) * 2
    names, bands = [one["architecture"] for one in known], np.array([one["band"] for one in known])
    each, real = [scores[name] for name in names], [truth[name] for name in names]

    def interval(measure: Callable[[Redraws], Array]) -> Interval:
        return cluster_interval(measure, range(len(names)), each, real, seed=0)

    return interval(Redraws.kendall_tau), interval(lambda redraws: redraws.mean_bucketed_tau(bands))


def rows_of(path: Path) -> list[Record]:
    """The records of a table's children; none where there is no such file."""
    for file in (path, *(path.with_name(path.name + packed) for packed in (".gz", ".xz"))):
        if file.exists():
            return records.read(file)
    return []


def losses_of(path: Path, seed: int = 0) -> dict[str, float]:
    """The losses of a table's children under a seed."""
    return {one["architecture"]: one["dev_loss"] for one in rows_of(path) if one["seed"] == seed}


def texts() -> datasets.Dataset:
    """Paragraphs of Wikipedia and reviews, about three to two."""
    wiki, imdb = packaged_text("boolq-wikipedia"), packaged_text("imdb")
    return datasets.concatenate_datasets([wiki, imdb.select(range(2 * len(wiki) // 3))])


def pairs_of(settings: Settings) -> datasets.Dataset:
    """Some pairs of STS-B's validation split."""
    rows = load_labelled("stsb")["validation"].rename_column("label", "score")
    drawn = random.Random(settings.seed).sample(range(len(rows)), min(settings.num_pairs, len(rows)))
    return rows.select(sorted(drawn)).select_columns(["sentence1", "sentence2", "score"])


def begin(
    parser: argparse.ArgumentParser, plan_lines: Callable[[Path], Iterable[str]]
) -> tuple[argparse.Namespace, Prepared]:
    """Read a study's command line and print what it costs; after the command `plan` the program ends, else prepare."""
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    for line in plan_lines(arguments.records):
        print(line, flush=True)
    if arguments.command == "plan":
        parser.exit()
    torch.set_num_threads(1)
    settings = Settings()
    return arguments, prepare(settings, arguments.work, texts(), pairs_of(settings), SOURCE, 1)


def parse_share(text: str) -> tuple[int, int]:
    """`0/2` as (0, 2)."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number below another, such as 0/2")
    return int(number), int(of)


def by_counts(
    fitted: Sequence[Architecture], losses: Sequence[float], others: Sequence[Architecture]
) -> dict[str, float]:
    """Predictions of a ridge on how often a child has each operator."""
    names = sorted({name for child in [*fitted, *others] for name in child})

    def counts(children: Sequence[Architecture]) -> Any:
        return np.array([[Counter(child)[name] for name in names] for child in children], dtype=np.float64)

    known, values = counts(fitted), np.array(losses)
    centred = known - known.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(len(names)), centred.T @ (values - values.mean()))
    predicted = values.mean() + (counts(others) - known.mean(0)) @ weights
    # Children of equal counts tie, whatever the processor makes of the last bits.
    return {str(child): float(f"{value:.9g}") for child, value in zip(others, predicted.tolist(), strict=True)}


def begun(path: Path) -> None:
    """Have a file go on from its compressed copy, as after a fresh checkout."""
    if not path.exists():
        records.extend(path, rows_of(path))
