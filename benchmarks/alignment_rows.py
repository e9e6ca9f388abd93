"""Does MAGIC-A rank as well when half of the rows are aligned? Super-nets of MiniLM-L6 against children trained alone.

    python benchmarks/alignment_rows.py run       trains what the record lacks, then does what report does
    python benchmarks/alignment_rows.py report    the table of docs/speed.md and the verdict, from the record alone
    python benchmarks/alignment_rows.py plan      CPU-minutes of run; runs nothing

Killed at any moment, `run` goes on: a super-net in hand is lost, none is doubled. Text, refitted super-net and
screened space are those of the table `minilm` (minilm_table.py, whose work is made or taken up, 3 CPU-minutes); its
children of that space, each distilled alone with the fewest tokens, are the truth. All super-nets start from the same
weights; those of one seed read the same batches, and of one method train the same children. Steps are equal, not
compute: half of the rows make a step cheaper. All other settings of the methods are their defaults.

The rule, written down before any of these super-nets was trained: d is the tau of a super-net with alignment_rows 0.5
less that of the one with 1.0 of the same method and seed. 0.5 becomes the default of `magic_a` and `magic_at` if the
90 % interval (Student's) of the mean of all d, both methods together, lies above -0.03, and no method's own mean below
it. `uniform` stands beside them and decides nothing. Changed before any tau was looked at, since the machine was
shared by a dozen processes: the clock may stop `run` before its five seeds, but not before three whole ones, and seeds
of which a super-net is missing do not count.

Added when these had been seen: all d were 0, to the last child, for the alignment is 2 % of the loss here, and without
it (`uniform`) the order is nearly the same. So this could not have told. Whether it is told where alignment weighs
about as much as what is learned (`magic_a` with lambda 20, five seeds) decides too, by a rule written down before it
was run: the 90 % interval of the mean of its d has to lie above -0.03 as well, else 1.0 stays the default.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from minilm_children import DESIGN, RECORDS, SOURCE, WORK, Prepared, Settings, losses_of, prepare, table_of, texts
from minilm_ranking import cut

from hf_nasbert.cards import fill_page
from hf_nasbert.compression.recover import batch_of_step
from hf_nasbert.compression.sentences import Batch, digest_of
from hf_nasbert.foreign import read_object
from hf_nasbert.kept import Kept
from hf_nasbert.metrics import kendall_tau, mean_bucketed_tau, paired_difference
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.records import Record, versions
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.teachers import BaseModelTeacher, Taught
from hf_nasbert.training import SupernetTrainingArguments, read_log
from hf_nasbert.training.loop import train_supernet

ROOT = Path(__file__).parents[1]
RECORD, PAGE = "alignment-rows.json", ROOT / "docs" / "speed.md"
VARIANTS: dict[str, tuple[str, dict[str, float]]] = {
    "magic_a": ("magic_a", {}),
    "magic_at": ("magic_at", {}),
    "magic_a, lambda 20": ("magic_a", {"alignment_weight": 20.0}),
}
"""Methods and their settings; the last one was added, and counts by itself."""
FIRST, HEAVY = ("magic_a", "magic_at"), "magic_a, lambda 20"
SHARES, SEEDS = (1.0, 0.5), range(400, 405)
BEFORE = "not trained"
NUM_STEPS, NUM_ROWS, LEARNING_RATE = 100, 16, 5e-4
FEWEST_SEEDS = 3
LOWEST = -0.03  # that the interval of the difference may reach
_CPU_SECONDS = 30.0  # of a super-net, foretold


class Run(NamedTuple):
    """A super-net to train: by which variant, or `uniform`, on what share of the rows."""

    variant: str
    share: float | None
    seed: int

    def __str__(self) -> str:
        rows = "" if self.share is None else f", alignment_rows {self.share}"
        return f"{self.variant}{rows}, seed {self.seed}"


def runs() -> list[Run]:
    """All of them, seed by seed, so that what is cut short has compared what it has."""
    first = [Run(variant, share, seed) for seed in SEEDS for variant in FIRST for share in SHARES]
    heavy = [Run(HEAVY, share, seed) for seed in SEEDS for share in SHARES]
    return [*first, *(Run("uniform", None, seed) for seed in SEEDS), *heavy]


class HalfBatches:
    """The table's batches in halves, as a training loop takes them: one a step, in the order that `recover` draws."""

    batch_size = NUM_ROWS

    def __init__(self, batches: Sequence[Batch], seed: int) -> None:
        self._batches, self._seed = batches, seed

    def describe(self) -> dict[str, Any]:
        """The text and the order."""
        return {"content": digest_of(self._batches), "seed": self._seed}

    def loader(self, start_step: int, num_steps: int, *, rows: slice, num_workers: int) -> Iterator[Batch]:
        """The rows of some steps' batches."""
        for step in range(start_step, start_step + num_steps):
            (place,) = self.sample_ids(step)
            number, half = divmod(place, 2)
            whole = self._batches[number]
            own = {name: tensor[half * NUM_ROWS :][:NUM_ROWS][rows] for name, tensor in whole.items()}
            yield labelled(own)

    def sample_ids(self, step: int) -> Sequence[int]:
        """The number of a step's half."""
        return [batch_of_step(2 * len(self._batches), self._seed, step)]


class RememberingTeacher(BaseModelTeacher):
    """The base model, which reads every batch once for all super-nets; it gives its last states alone."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(copy.deepcopy(prepared.materials.base.full_child), prepared.materials.calibration)
        self._known: dict[bytes, Taught] = {}

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """The last states; nothing else is asked for here."""
        key = batch["input_ids"].numpy().tobytes()
        if key not in self._known:
            made = super().teach(batch, hidden_states=True)
            assert made.hidden_states is not None
            self._known[key] = made._replace(hidden_states=made.hidden_states[-1:])
        return self._known[key]


def labelled(batch: Batch) -> Batch:
    """A batch with the labels that a training step counts by: all real tokens, none of which is masked."""
    labels = batch["input_ids"].masked_fill(~batch["attention_mask"].bool(), -100)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def train(prepared: Prepared, teacher: BaseModelTeacher, run: Run, children: Sequence[Architecture]) -> Record:
    """Train a super-net and score children by it: their distances from the base model on the text that chooses."""
    made, start = prepared.materials, time.process_time()
    supernet = cut(prepared, made.screened_space)
    method, settings = VARIANTS.get(run.variant, (run.variant, {}))
    with tempfile.TemporaryDirectory(dir=made.work) as folder:
        arguments = SupernetTrainingArguments(
            output_dir=folder, method=method, seed=run.seed, max_steps=NUM_STEPS,
            method_settings=None if run.share is None else {**settings, "alignment_rows": run.share},
            per_device_train_batch_size=NUM_ROWS, learning_rate=LEARNING_RATE, weight_decay=0.0,
            num_eval_children=0, logging_steps=NUM_STEPS // 4, save_steps=NUM_STEPS, save_total_limit=1,
            mixed_precision="no", use_cpu=True, report_to="none",
        )  # fmt: skip
        done = train_supernet(
            supernet, arguments, HalfBatches(made.text.train, run.seed),
            [labelled(batch) for batch in made.text.choosing], base_model=teacher, pooling=made.distance.pooling,
        )  # fmt: skip
        if not done.is_finished:
            raise SystemExit("stopped: the super-net in hand is given up; the same command trains it and the others")
        last = [one for one in read_log(folder) if one["event"] == "train"][-1]
        num_anchors = sum(one["event"] == "anchor" for one in read_log(folder))
    trained = time.process_time() - start
    return {
        "cpu_seconds": round(trained, 1),
        "loss": round(last["loss"], 5),
        "alignment": None if run.share is None else round(last["alignment"], 6),
        "num_anchors": num_anchors,
        "scores": scores(prepared, supernet.eval(), children),
        "versions": versions(),
    }


def scores(
    prepared: Prepared, supernet: SupernetPreTrainedModel, children: Sequence[Architecture]
) -> dict[str, float]:
    """The distance of every child from the base model."""
    return dict(zip(map(str, children), prepared.materials.scorer_of(supernet)(children), strict=True))


def known_children(screened: Sequence[Sequence[str]], folder: Path) -> dict[Architecture, float]:
    """The table's children of the screened space, and their losses when trained alone."""
    space = SearchSpace.of_blocks([",".join(names) for names in screened], skip="anywhere")
    losses = losses_of(table_of(1, folder))
    return {Architecture.parse(name): loss for name, loss in losses.items() if space.why_not(name) is None}


def make(folder: Path, work: Path) -> None:
    """Train what the record lacks."""
    torch.set_num_threads(1)
    design, settings = read_object(folder / DESIGN), Settings()
    prepared = prepare(settings, work, texts(), None, SOURCE, 1)
    found = [list(names) for names in prepared.materials.screened_space.blocks]
    if found != design["screened"]:
        raise SystemExit(f"the screened space here is {found}, in the design it is {design['screened']}")
    children = list(known_children(found, folder))
    asked = {
        "children": list(map(str, children)), "screened": found, "num_steps": NUM_STEPS, "num_rows": NUM_ROWS,
        "learning_rate": LEARNING_RATE, "text": digest_of(prepared.materials.text.train),
    }  # fmt: skip
    kept = Kept(folder / RECORD, asked)

    def score_untrained() -> Record:
        return {"scores": scores(prepared, prepared.materials.supernet, children), "versions": versions()}

    kept.get(BEFORE, score_untrained)
    teacher = RememberingTeacher(prepared)
    for number, run in enumerate(runs(), start=1):
        made = kept.get(str(run), partial(train, prepared, teacher, run, children))
        print(f"{number} of {len(runs())}: {run}: {made['cpu_seconds']:.0f} CPU-s", flush=True)


class Ranks(NamedTuple):
    """How super-nets rank the children: tau of each run, over all children and within bands of like size."""

    over_all: dict[Run, float]
    within: dict[Run, float]
    before: tuple[float, float]


def ranks_of(record: Mapping[str, Any], design: Mapping[str, Any], truth: Mapping[Architecture, float]) -> Ranks:
    """Taus of the runs that the record has."""
    band_of = {one["architecture"]: one["band"] for one in design["children"]}
    names = record["asked"]["children"]  # the table may have grown since
    loss_of = {str(child): loss for child, loss in truth.items()}
    if not set(names) <= set(loss_of):
        raise ValueError(f"the record {RECORD} is of children that the table has not: move it away and run anew")
    losses, bands = [loss_of[name] for name in names], [band_of[name] for name in names]

    def taus(name: str) -> tuple[float, float]:
        own = [record["made"][name]["scores"][child] for child in names]
        return kendall_tau(own, losses), mean_bucketed_tau(own, losses, bands)

    there = {run: taus(str(run)) for run in runs() if str(run) in record["made"]}
    over_all, within = ({run: both[place] for run, both in there.items()} for place in (0, 1))
    return Ranks(over_all, within, taus(BEFORE))


def differences(taus: Mapping[Run, float], variant: str) -> list[float]:
    """Of each seed that has all its super-nets, the tau with half of the rows less that with all."""
    beside = FIRST if variant in FIRST else (variant,)
    return [
        taus[Run(variant, 0.5, seed)] - taus[Run(variant, 1.0, seed)]
        for seed in SEEDS
        if all(Run(other, share, seed) in taus for other in beside for share in SHARES)
    ]


def table_lines(record: Mapping[str, Any], ranks: Ranks) -> Iterator[str]:
    """The table of the page, and below it the verdict."""

    def spread(values: Sequence[float]) -> str:
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.3f}{deviation}"

    yield "| method | `alignment_rows` | seeds | tau | tau within bands | children's mean distance |"
    yield "|---|---|--:|---|---|---|"
    over_all, within = ranks.before
    untrained = statistics.fmean(record["made"][BEFORE]["scores"].values())
    yield f"| {BEFORE} | | | {over_all:.3f} | {within:.3f} | {untrained:.3f} |"
    for variant, share in [("uniform", None), *((variant, share) for variant in VARIANTS for share in SHARES)]:
        own = [run for run in ranks.over_all if (run.variant, run.share) == (variant, share)]
        if not own:
            continue
        made = [record["made"][str(run)] for run in own]
        cells = (
            variant, "" if share is None else share, len(own), spread([ranks.over_all[run] for run in own]),
            spread([ranks.within[run] for run in own]),
            spread([statistics.fmean(one["scores"].values()) for one in made]),
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield "| 0.5 less 1.0 | pairs | tau, mean difference (90 %) | within bands |"
    yield "|---|--:|---|---|"
    both = {
        place: [one for variant in FIRST for one in differences(taus, variant)] for place, taus in enumerate(ranks[:2])
    }
    for variant in FIRST:
        yield _difference_row(variant, differences(ranks.over_all, variant), differences(ranks.within, variant))
    yield _difference_row(" and ".join(FIRST), both[0], both[1])
    yield _difference_row(HEAVY, differences(ranks.over_all, HEAVY), differences(ranks.within, HEAVY))
    yield ""
    yield verdict(ranks)


def _difference_row(name: str, *of_both: Sequence[float]) -> str:
    cells = []
    for values in of_both:
        found = paired_difference(values)[:3] if len(values) > 1 else ()
        # Rounded, and added to zero: what processors make of the last bits of nothing is to read alike on all.
        cells.append("{} ({} to {})".format(*(f"{round(one, 3) + 0.0:+.3f}" for one in found)) if found else "")
    return f"| {name} | {len(of_both[0])} | {' | '.join(cells)} |"


def is_as_good(ranks: Ranks) -> bool:
    """Whether the rule lets half of the rows be the default.

    Raises:
        ValueError: If fewer seeds are whole than the rule wants.
    """
    found = {variant: differences(ranks.over_all, variant) for variant in VARIANTS}
    for variant, values in found.items():
        if len(values) < FEWEST_SEEDS:
            raise ValueError(f"{variant} has {len(values)} whole seeds, and the rule wants {FEWEST_SEEDS}: call run")
    both = [value for variant in FIRST for value in found[variant]]
    return (
        paired_difference(both).low > LOWEST
        and all(statistics.fmean(found[variant]) >= LOWEST for variant in FIRST)
        and paired_difference(found[HEAVY]).low > LOWEST
    )


def verdict(ranks: Ranks) -> str:
    """What follows by the rule."""
    try:
        what = (
            "half of the rows rank as well" if is_as_good(ranks) else "half of the rows are not shown to rank as well"
        )
    except ValueError as error:
        return f"No verdict yet: {error}."
    return f"By the rule, intervals above {LOWEST}: {what}."


def plan_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """CPU-minutes of what is left to do: by the record where it has some, else by what was measured before."""
    made = record.get("made", {})
    known = [one["cpu_seconds"] for name, one in made.items() if name != BEFORE]
    left = [run for run in runs() if str(run) not in made]
    seconds = statistics.fmean(known) if known else _CPU_SECONDS
    yield f"{len(left)} of {len(runs())} super-nets to train, {len(left) * seconds / 60:.0f} CPU-minutes"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "run", "report"])
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    path = arguments.records / RECORD
    if arguments.command != "report":
        print("\n".join(plan_lines(read_object(path) if path.exists() else {})), flush=True)
    if arguments.command == "plan":
        return
    if arguments.command == "run":
        make(arguments.records, arguments.work)
    record, design = read_object(path), read_object(arguments.records / DESIGN)
    truth = known_children(record["asked"]["screened"], arguments.records)
    table = "\n".join(table_lines(record, ranks_of(record, design, truth)))
    print(table)
    if arguments.records == RECORDS:
        fill_page(PAGE, {"alignment rows": table})


if __name__ == "__main__":
    main()
