"""A searched child of MiniLM-L6 beside what people choose by hand, at more and more tokens (part D).

    python benchmarks/minilm_recovery.py plan                 CPU-hours of what is left; runs nothing
    python benchmarks/minilm_recovery.py run [--limit N]      recovers, judges and fine-tunes what the records lack;
                                                              `--share 0/2` and `--share 1/2` may run side by side
    python benchmarks/minilm_recovery.py latency              milliseconds of the six children in single precision and
                                                              in int8, on a quiet machine
    python benchmarks/evidence.py                             makes the tables of it anew, from the records

Killed at any moment, the same command goes on: a recovery from its last checkpoint, a fine-tuning anew. Stands on what
`design` of minilm_table.py makes.

Settled before it was run: half and a quarter of the encoder's parameters; searched is the best by inherited weights of
the 24 best sums of lone replacements, `compress`'s default; by hand are the best subset of whole layers and the best
uniform width, both by inherited weights too, as `compress` has them. Recovery is that of `compress` for 200 steps of
32 sentences, and 4 and 16 times as many, over the same 16,000 sentences again and again; seeds 0 to 2 are of the
batches' order. Judged on text that chose nothing, and on the test split of STS-B. Then every child is fine-tuned on
rotten_tomatoes and brown at a rate of 1e-4, two epochs, under the seed of its recovery. Products are taken in bfloat16
where `compress` does so by default, on processors with such units; this was settled when one child had been recovered
and fine-tuned in single precision, and that one was run anew. Latency needs no trained
weights: torch runs all children by turns, then onnxruntime those in single precision and in int8, by turns as well.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from downstream import TASKS
from minilm_children import Prepared, begin, begun, parse_share, rows_of

from hf_nasbert import records
from hf_nasbert.child_folders import save_child
from hf_nasbert.compression.choosing import ranked_choices
from hf_nasbert.compression.handmade import best_layers, best_uniform, most_layers, with_slack
from hf_nasbert.compression.onnx_files import INT8, ONNX, TORCH, by_turns, full_batch, onnx_run
from hf_nasbert.compression.proof import Judge, measure_side_by_side, read_pairs
from hf_nasbert.compression.recover import RecoverySettings, recover
from hf_nasbert.elastic.encoders import does_bf16_pay
from hf_nasbert.export.int8 import quantise
from hf_nasbert.export.onnx import write_graph
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling.families import native_form
from hf_nasbert.records import Record, versions
from hf_nasbert.space import Architecture
from hf_nasbert.training.farm import compress_table

FILE = "minilm-recovery.jsonl"
BUDGETS, FACTORS, SEEDS = (0.5, 0.25), (1, 4, 16), (0, 1, 2)
WAYS = ("searched", "best layers", "uniform width")
NUM_STEPS, NUM_CHOICES = 200, 24
TUNED = ("rotten_tomatoes", "brown")
FINETUNING: dict[str, Any] = {"learning_rate": 1e-4}
SHAPES = ((1, 128), (32, 128))
STSB = "STS-B"


class Job(NamedTuple):
    """One child under one seed: recovered, or fine-tuned on a task behind that."""

    way: str
    budget: float
    factor: int
    seed: int
    task: str = ""

    @property
    def model(self) -> str:
        """The name of its folder, by which records of fine-tuning know it."""
        return f"{self.way.replace(' ', '-')}-{self.budget:g}-x{self.factor}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Study:
    """Where everything lies, and how much of it is done; tests do less.

    Args:
        prepared: Base model, variants and text.
        pairs: Pairs of sentences that judge, a file or `packaged:stsb`; None: none.
        records: Folder of the records.
        num_steps: Of a recovery at factor 1.
        factors: Times the tokens.
        budgets: Shares of the encoder's parameters.
        seeds: Of the batches' order.
        tuned: Tasks.
        finetuning: Settings of all of them.
    """

    prepared: Prepared
    pairs: str | None
    records: Path
    num_steps: int = NUM_STEPS
    factors: Sequence[int] = FACTORS
    budgets: Sequence[float] = BUDGETS
    seeds: Sequence[int] = SEEDS
    tuned: Sequence[str] = TUNED
    finetuning: dict[str, Any] = dataclasses.field(default_factory=lambda: FINETUNING)

    @property
    def file(self) -> Path:
        """Of the records."""
        return self.records / FILE

    @property
    def folder(self) -> Path:
        """Of the models, from where the command is called: records of fine-tuning name it."""
        return Path(os.path.relpath(self.prepared.trainer.work / "recovery"))

    @cached_property
    def children(self) -> dict[tuple[str, float], Architecture]:
        """Who is compared: by way and budget."""
        made = self.prepared.materials
        full, whole = made.supernet.largest_architecture, made.cost(made.supernet.largest_architecture)
        found = {}
        for budget in self.budgets:
            caps = {"num_parameters": budget * whole["num_parameters"]}
            searched = ranked_choices(
                made.table, full, made.cost, caps, lambda c, b=budget: made.worths(c, f"searched-{b:g}"), NUM_CHOICES
            )
            by_hand = with_slack(caps)
            found["searched", budget] = searched[0].architecture
            layers = best_layers(made.scorer, most_layers(full, made.cost, by_hand))
            found["best layers", budget] = layers.architecture
            found["uniform width", budget] = best_uniform(made.scorer, made.cost, by_hand).architecture
        return found

    @cached_property
    def judge(self) -> Judge:
        """Judges on text that chose nothing, and on pairs that nothing here has seen."""
        made, trainer = self.prepared.materials, self.prepared.trainer
        pairs = None if self.pairs is None else read_pairs(self.pairs, trainer.work / "test-pairs")
        return Judge(
            made.text.judging, made.states["judging"], made.distance, made.modules, made.base.tokenizer, pairs,
            trainer.max_length,
        )  # fmt: skip

    def jobs(self) -> list[Job]:
        """All of it, seed by seed."""
        return all_jobs(self.factors, self.budgets, self.seeds, self.tuned)

    def work(self, limit: int | None = None, share: tuple[int, int] = (0, 1)) -> int:
        """Do what the records lack of a share, at most so many jobs; returns how many were done.

        A recovered child and what is fine-tuned of it are of one share.
        """
        begun(self.file)
        (number, of), num_done = share, 0
        own = list(dict.fromkeys(job.model for job in self.jobs()))[number::of]
        for job in self.jobs():
            if job.model not in own:
                continue
            if num_done == limit:
                break
            if job in done(rows_of(self.file)):
                continue
            print(f"{job.model} {job.task}".strip(), flush=True)
            if job.task:
                self.fine_tune(job)
            else:
                self.recover(job)
            compress_table(self.file)
            num_done += 1
        return num_done

    def recover(self, job: Job, *, is_recorded: bool = True) -> None:
        """Recover a child, judge it, and keep its folder."""
        made, trainer, start = self.prepared.materials, self.prepared.trainer, time.process_time()
        architecture = self.children[job.way, job.budget]
        settings = RecoverySettings(
            num_steps=job.factor * self.num_steps, learning_rate=made.arguments.learning_rate, seed=job.seed,
            inner_weight=trainer.settings.inner_weight if trainer.inner_blocks else 0.0, bf16=does_bf16_pay(),
        )  # fmt: skip
        child, checkpoints = extract_child(made.supernet, architecture), self.folder / f"{job.model}-checkpoints"
        train, states = made.text.train, made.states["train"]
        done = recover(child, train, states, made.distance, settings, output_dir=checkpoints, progress=True)
        seconds = time.process_time() - start
        save_child(child, made.base.tokenizer, self.folder / job.model, sentence_modules=made.modules, overwrite=True)
        if is_recorded:
            whole = made.cost(made.supernet.largest_architecture)["num_parameters"]
            record = {
                "kind": "recovery", **job._asdict(), "architecture": str(architecture),
                "share": round(made.cost(architecture)["num_parameters"] / whole, 4), "num_steps": settings.num_steps,
                "num_tokens": done.num_tokens, "bf16": settings.bf16, "judged": dataclasses.asdict(self.judge(child)),
                "base_model": dataclasses.asdict(self._of_base_model), "cpu_seconds": round(seconds, 1),
                "versions": versions(),
            }  # fmt: skip
            records.append(self.file, record)
        shutil.rmtree(checkpoints, ignore_errors=True)

    @cached_property
    def _of_base_model(self) -> Any:
        return self.judge(self.prepared.materials.base.full_child)

    def fine_tune(self, job: Job) -> None:
        """Fine-tune a recovered child; one whose folder is gone is recovered again, to the same bits."""
        if not (self.folder / job.model / "config.json").exists():
            self.recover(job._replace(task=""), is_recorded=False)
        task = TASKS[job.task]
        task.run(
            task.arguments_of(
                model=str(self.folder / job.model), output_dir=str(self.folder / "finetuned" / job.model),
                records=str(self.file), seeds=[job.seed], save_models=False, disable_tqdm=True, bf16=does_bf16_pay(),
                **{**task.arguments, **task.files(self.folder), **self.finetuning},
            )
        )  # fmt: skip

    def time_children(self) -> None:
        """Measure all children and the base model side by side, and write that down; measured anew at every call."""
        made = self.prepared.materials
        full = made.supernet.largest_architecture
        children = {("base model", 1.0): full, **self.children}
        distinct = list(children.values())
        found = {
            _column(TORCH, shape): measure_side_by_side(made.supernet.config, distinct, *shape) for shape in SHAPES
        } | self._by_onnxruntime(distinct)
        told = [
            {"way": way, "budget": budget, "milliseconds": {name: round(ms[number], 3) for name, ms in found.items()}}
            for number, (way, budget) in enumerate(children)
        ]
        made_by = versions() | {"onnxruntime": importlib.metadata.version("onnxruntime")}
        has_vnni = torch.cpu._is_vnni_supported()
        begun(self.file)
        records.append(
            self.file, {"kind": "latency", "model": "", "children": told, "has_vnni": has_vnni, "versions": made_by}
        )
        compress_table(self.file)

    def _by_onnxruntime(self, children: Sequence[Architecture]) -> dict[str, list[float]]:
        """Milliseconds of every child, by the column that they belong to; the files are gone afterwards."""
        supernet = self.prepared.materials.supernet
        with tempfile.TemporaryDirectory() as folder:
            files: dict[str, list[Path]] = {ONNX: [], INT8: []}
            for number, child in enumerate(children):
                exact, rounded = (Path(folder) / f"{number}-{name}.onnx" for name in ("exact", "int8"))
                write_graph(native_form(extract_child(supernet, child).eval())[0], exact)
                quantise(exact, rounded)
                files[ONNX].append(exact)
                files[INT8].append(rounded)
            runs = [(how, onnx_run(file)) for how, own in files.items() for file in own]
            found = {}
            for shape in SHAPES:
                batch = full_batch(supernet.config.vocab_size, *shape)
                times = by_turns([partial(run, batch) for _, run in runs])
                for how in files:
                    own = [ms for (its, _), ms in zip(runs, times, strict=True) if its == how]
                    found[_column(how, shape)] = own
        return found


def _column(how: str, shape: tuple[int, int]) -> str:
    return f"{how}, {shape[0]}x{shape[1]}"


def all_jobs(
    factors: Sequence[int] = FACTORS,
    budgets: Sequence[float] = BUDGETS,
    seeds: Sequence[int] = SEEDS,
    tuned: Sequence[str] = TUNED,
) -> list[Job]:
    """All jobs in their order: seed by seed, the fewest tokens first; one that is cut short compares all ways."""
    return [
        Job(way, budget, factor, seed, task)
        for seed in seeds for factor in factors for budget in budgets for way in WAYS for task in ("", *tuned)
    ]  # fmt: skip


def done(found: Sequence[Record]) -> set[Job]:
    """The jobs that are on record."""
    known = {Job(*(one[name] for name in Job._fields)) for one in found if one["kind"] == "recovery"}
    by_model = {job.model: job for job in known}
    tuned = {(Path(one["model"]).name, one["task"]) for one in found if one["kind"] == "finetune"}
    return known | {by_model[name]._replace(task=task) for name, task in tuned if name in by_model}


# What came out


def recovery_lines(folder: Path) -> Iterator[str]:
    """Every child at every number of tokens: STS-B's correlation, of the base model's, and accuracies; by seeds."""
    found = rows_of(folder / FILE)
    recovered = [one for one in found if one["kind"] == "recovery"]
    yield f"| budget | child | tokens | seeds | STS-B test, of the base model's | distance | {' | '.join(TUNED)} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(TUNED)
    for budget in BUDGETS:
        for factor in FACTORS:
            for way in WAYS:
                own = [one for one in recovered if (one["budget"], one["factor"], one["way"]) == (budget, factor, way)]
                if not own:
                    continue
                kept = [one["judged"]["spearman"] / one["base_model"]["spearman"] for one in own]
                cells = [f"{_told(kept, 100)} %", _told([one["judged"]["loss"] for one in own])]
                for task in TUNED:
                    names = {Job(*(one[name] for name in Job._fields)).model for one in own}
                    values = [
                        one["metrics"]["test"][TASKS[task].metric]
                        for one in found
                        if one["kind"] == "finetune" and one["task"] == task and Path(one["model"]).name in names
                    ]
                    cells.append(_told(values, 100) if values else "")
                tokens = statistics.fmean(one["num_tokens"] for one in own)
                yield f"| {budget:.0%} | {way} | {tokens:,.0f} | {len(own)} | {' | '.join(cells)} |"
    yield from _gain_lines(found)
    for one in [one for one in found if one["kind"] == "latency"][-1:]:
        yield ""
        yield "| child | budget | " + " | ".join(f"ms {how}" for how in one["children"][0]["milliseconds"]) + " |"
        yield "| --- | ---: |" + " ---: |" * len(one["children"][0]["milliseconds"])
        for row in one["children"]:
            cells = [f"{ms:.1f}" for ms in row["milliseconds"].values()]
            yield f"| {row['way']} | {row['budget']:.0%} | {' | '.join(cells)} |"


class Gain(NamedTuple):
    """What the searched child is ahead of the better one by hand, in points of 100; by seeds that have both."""

    budget: float
    factor: int
    measure: str
    rival: str
    points: list[float]

    def told(self) -> str:
        """Mean ± standard deviation."""
        spread = f" ± {statistics.stdev(self.points):.1f}" if len(self.points) > 1 else ""
        return f"{statistics.fmean(self.points):+.1f}{spread}"


def gains(found: Sequence[Record]) -> Iterator[Gain]:
    """Of every budget, number of tokens and measure that all ways have a seed of."""
    values: dict[str, dict[Job, float]] = {measure: {} for measure in (STSB, *TUNED)}
    jobs = {}
    for one in found:
        if one["kind"] == "recovery":
            job = Job(*(one[name] for name in Job._fields))
            jobs[job.model] = job
            values[STSB][job] = 100 * one["judged"]["spearman"] / one["base_model"]["spearman"]
        elif one["kind"] == "finetune" and Path(one["model"]).name in jobs and one["task"] in values:
            metric = one["metrics"]["test"][TASKS[one["task"]].metric]
            values[one["task"]][jobs[Path(one["model"]).name]] = 100 * metric
    for budget in BUDGETS:
        for factor in FACTORS:
            for measure, own in values.items():
                by_way = {
                    way: {j.seed: value for j, value in own.items() if j[:3] == (way, budget, factor)} for way in WAYS
                }
                seeds = sorted(set.intersection(*map(set, by_way.values())))
                if seeds:
                    mine, *others = WAYS
                    rival = max(others, key=lambda way: statistics.fmean(by_way[way][seed] for seed in seeds))
                    points = [by_way[mine][seed] - by_way[rival][seed] for seed in seeds]
                    yield Gain(budget, factor, measure, rival, points)


def _gain_lines(found: Sequence[Record]) -> Iterator[str]:
    measures = (STSB, *TUNED)
    yield ""
    yield f"| searched against the better one by hand, points | times the tokens | seeds | {' | '.join(measures)} |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(measures)
    made = list(gains(found))
    for budget, factor in dict.fromkeys((one.budget, one.factor) for one in made):
        own = {one.measure: one for one in made if (one.budget, one.factor) == (budget, factor)}
        cells = [f"{own[name].told()} ({own[name].rival})" if name in own else "" for name in measures]
        yield f"| {budget:.0%} | {factor} | {len(own[STSB].points)} | {' | '.join(cells)} |"


def _told(values: Sequence[float], scale: float = 1.0) -> str:
    digits = 1 if scale > 1 else 3
    spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.fmean(values):.{digits}f}{spread}"


CPU_SECONDS_OF_STEP, CPU_SECONDS_TUNED = 0.23, 200.0
"""Of a step of recovery, as the table's trainings take, and of a fine-tuning, by a guess from the number of steps."""


def plan_lines(folder: Path) -> Iterator[str]:
    """CPU-hours of what is left."""
    left = [job for job in all_jobs() if job not in done(rows_of(folder / FILE))]
    for factor in FACTORS:
        own = [job for job in left if job.factor == factor]
        steps = sum(factor * NUM_STEPS for job in own if not job.task)
        tuned = sum(bool(job.task) for job in own)
        hours = [steps * CPU_SECONDS_OF_STEP / 3600, tuned * CPU_SECONDS_TUNED / 3600]
        yield (
            f"{factor} times the tokens: {len(own) - tuned} recoveries {hours[0]:.1f} CPU-hours, {tuned} fine-tunings "
            f"{hours[1]:.1f}"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "run", "latency"])
    parser.add_argument("--limit", type=int, help="Stop after so many jobs.")
    parser.add_argument("--share", type=parse_share, default=(0, 1), help="Which part of the work, as 0/2 and 1/2.")
    arguments, prepared = begin(parser, plan_lines)
    study = Study(prepared, "packaged:stsb", arguments.records)
    if arguments.command == "latency":
        study.time_children()
    else:
        print(f"{study.work(arguments.limit, arguments.share)} jobs done")


if __name__ == "__main__":
    main()
