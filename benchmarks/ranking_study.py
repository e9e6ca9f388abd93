"""The ranking study: super-nets of five methods at equal compute and several seeds, held against the table.

    python benchmarks/ranking_study.py train      trains what is not trained yet, into runs/ranking
    python benchmarks/ranking_study.py score      scores every run at each quarter, and measures interference
    python benchmarks/ranking_study.py sweep      trains and scores variants of the methods, on other seeds
    python benchmarks/ranking_study.py confirm    holds what the sweep hints at to six seeds that are used nowhere else
    python benchmarks/ranking_study.py fresh      methods against what was found here, adapted too, on five fresh seeds
    python benchmarks/ranking_study.py card       writes the table's dataset card
    python benchmarks/ranking_study.py report     makes tables (docs/appendix) and figures anew from the records

Killed at any moment, the same command goes on. What is held equal is the work of all forward and backward passes, in
forward passes of one batch: a child's training is 3 (a backward pass is two), an anchor's forward is 1, and judging an
anchor is 2 for each of its dev batches every `anchor_interval` steps.
"""

import argparse
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hf_nasbert.cards import read_table_facts, render_table_card
from hf_nasbert.costs import num_parameters
from hf_nasbert.data import DataArguments
from hf_nasbert.methods import METHODS, methods_with
from hf_nasbert.ranking import GroundTruth, find_table, load_table
from hf_nasbert.recipe_arguments import read_config
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments
from hf_nasbert.writing import write_bytes

ROOT = Path(__file__).parents[1]
RECIPES, RUNS = ROOT / "recipes", ROOT / "runs" / "ranking"
RECORDS, DOCS = ROOT / "benchmarks" / "records", ROOT / "docs"
CONFIG = "study"
QUARTERS = 4
TEXT = ("--packaged", "imdb", "--max_seq_length", 64)

# What the study's outcome may hang on, one change at a time: (method, changed settings, times the compute); those
# without a change are the study's own settings, on the sweep's seeds.
STUDIED = ["uniform", "fair", "magic_t", "magic_a", "magic_at"]
SWEEP_SEEDS = (200, 201, 202)
SWEEP: dict[str, tuple[str, dict[str, object], float]] = {
    "uniform": ("uniform", {}, 1),
    "magic_at": ("magic_at", {}, 1),
    "uniform, learning rate 3e-3": ("uniform", {"learning_rate": 3e-3}, 1),
    "magic_at, learning rate 3e-3": ("magic_at", {"learning_rate": 3e-3}, 1),
    "magic_at, aligned after the warm-up": ("magic_at", {"alignment_start": 0.3}, 1),
    "magic_at, lambda 0.1": ("magic_at", {"alignment_weight": 0.1}, 1),
    "uniform, half the compute": ("uniform", {}, 0.5),
    "magic_at, anchor judged every 100 steps": ("magic_at", {"anchor_interval": 100}, 1),
    "uniform, batch 32": ("uniform", {"per_device_train_batch_size": 32}, 0.5),
    "magic_t": ("magic_t", {}, 1),
    "magic_t, learning rate 3e-3": ("magic_t", {"learning_rate": 3e-3}, 1),
    "uniform, learning rate 1.2e-2": ("uniform", {"learning_rate": 1.2e-2}, 1),
    "uniform, twice the compute": ("uniform", {}, 2),
    "magic_at, twice the compute": ("magic_at", {}, 2),
    "magic_at, lambda 2": ("magic_at", {"alignment_weight": 2.0}, 1),
    "uniform, learning rate held": ("uniform", {"lr_scheduler_type": "constant_with_warmup"}, 1),
    "magic_at, learning rate held": ("magic_at", {"lr_scheduler_type": "constant_with_warmup"}, 1),
    "magic_t, learning rate held": ("magic_t", {"lr_scheduler_type": "constant_with_warmup"}, 1),
    "fair, learning rate held": ("fair", {"lr_scheduler_type": "constant_with_warmup"}, 1),
    "magic_a, learning rate held": ("magic_a", {"lr_scheduler_type": "constant_with_warmup"}, 1),
}

# Variants of the sweep whose settings are no more, since none came near uniform; their records stay.
RETIRED = {
    "magic_at, states normalised": "alignment_normalize",
    "magic_at, last block aligned only": "alignment_layers",
    "magic_at, anchor moved too": "alignment_detach",
}

# Settled before it was run, from what the sweep hints at: the learning rate is held, and alignment starts after the
# warm-up. The first one is what the others are compared with.
CONFIRM_SEEDS = (300, 301, 302, 303, 304, 305)
_HELD: dict[str, object] = {"lr_scheduler_type": "constant_with_warmup"}
CONFIRM: dict[str, tuple[str, dict[str, object], float]] = {
    "uniform, learning rate held": ("uniform", _HELD, 1),
    "uniform": ("uniform", {}, 1),
    "magic_t, learning rate held": ("magic_t", _HELD, 1),
    "magic_a, learning rate held, aligned after the warm-up": ("magic_a", {**_HELD, "alignment_start": 0.3}, 1),
    "magic_at, learning rate held, aligned after the warm-up": ("magic_at", {**_HELD, "alignment_start": 0.3}, 1),
    # Added when the five above had been seen: which of the two changes does what to MAGIC-AT?
    "magic_at": ("magic_at", {}, 1),
    "magic_at, learning rate held": ("magic_at", _HELD, 1),
}

# Settled before it was run: what addresses super-nets that do not know a block from another, and ranking by children
# that are trained on for a few steps; calibrated when it is reported, with `CALIBRATED` children.
FRESH_SEEDS = (600, 601, 602, 603, 604)
FRESH: dict[str, tuple[str, dict[str, object], float]] = {
    "uniform": ("uniform", {}, 1),
    "uniform, learning rate held": ("uniform", _HELD, 1),
    "magic_t": ("magic_t", {}, 1),
    "magic_at_guarded": ("magic_at_guarded", {}, 1),
    "split on the first block": ("few_shot", {"split": "first_block"}, 1),
    "complexity_rate": ("complexity_rate", {}, 1),
}
ADAPTED, ADAPT_STEPS, NUM_ADAPTED = ("uniform", "magic_t", "magic_at_guarded"), (25, 100), 30
CALIBRATED = (8, 15, 30)
CPU_SECONDS_TRAINED, CPU_SECONDS_SCORED, CPU_SECONDS_ADAPTED = 100.0, 32.0, 2.5
"""Foretold of a super-net, of its scores (as recorded), and of a child that is adapted."""


def fresh_hours() -> float:
    """CPU-hours of `fresh`, foretold."""
    supernets, quarters = len(FRESH) * len(FRESH_SEEDS), 2
    adapted = len(ADAPTED) * len(FRESH_SEEDS) * quarters * len(ADAPT_STEPS) * NUM_ADAPTED
    return (supernets * (CPU_SECONDS_TRAINED + quarters * CPU_SECONDS_SCORED) + adapted * CPU_SECONDS_ADAPTED) / 3600


def adapt(scores: Path, table: str, workers: int) -> None:
    """Rank by adapted children of the fresh super-nets, at half time and at the end; a worker has super-nets alone."""

    def of_super_nets(name: str, quarter: int) -> None:
        step = steps_of(*FRESH[name]) * quarter // QUARTERS
        folders = [RUNS / f"{name}-{seed}" / f"checkpoint-{step}" for seed in FRESH_SEEDS]
        for adapt_steps in ADAPT_STEPS:
            recipe(
                "rank_children", "--table", table, "--scores", scores, "--supernets", *folders, *TEXT,
                "--num_resamples", 20, "--adapt_steps", adapt_steps, "--num_adapted", NUM_ADAPTED,
                "--containing", "conv3",  # children without a convolution are never ranked here
            )  # fmt: skip

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(of_super_nets, name, part) for name in ADAPTED for part in (QUARTERS // 2, QUARTERS)]
    for job in jobs:
        job.result()
    pack(scores)


def settings_of(method: str, changes: Mapping[str, object] | None = None) -> dict[str, object]:
    """A method's settings that are not its defaults: all rows are aligned, as the paper does it, in every study."""
    return ({"alignment_rows": 1.0} if method in methods_with("alignment_rows") else {}) | dict(changes or {})


def steps_of(method: str, changes: Mapping[str, object] | None = None, factor: float = 1) -> int:
    """Optimizer steps of a method for the compute that `max_steps` of the config costs without anchor."""
    settings = read_config(CONFIG, [SupernetArguments, DataArguments, SupernetTrainingArguments])
    config = SupernetArguments(blocks=settings["blocks"], hidden_size=settings["hidden_size"]).build_config()
    kind = METHODS[method]
    own = {name: value for name, value in settings_of(method, changes).items() if method in methods_with(name)}
    per_step = kind(
        config.space,
        kind.Settings(**own),
        cost=lambda child: num_parameters(config, child),
        seed=0,
        max_steps=settings["max_steps"],
    ).passes_per_step
    return round(3 * factor * settings["max_steps"] / per_step / QUARTERS) * QUARTERS


def runs(methods: list[str], seeds: int, first_seed: int) -> Iterator[tuple[str, int]]:
    """Every run of the study, seed by seed, so that a study cut short has compared the methods on the seeds it has."""
    for seed in range(first_seed, first_seed + seeds):
        for method in methods:
            yield method, seed


def train(output_dir: Path, method: str, seed: int, steps: int, changes: Mapping[str, object] | None = None) -> None:
    """Train one super-net in a process of its own, from its last checkpoint if there is one."""
    if (output_dir / "model.safetensors").exists():
        return
    command = [
        sys.executable, RECIPES / "pretrain_supernet.py", "--config", CONFIG, "--output_dir", output_dir,
        "--method", method, "--seed", seed, "--max_steps", steps, "--save_steps", steps // QUARTERS,
        "--resume_from_checkpoint", "latest", "--disable_tqdm", "true",
        *(word for name, value in settings_of(method, changes).items() for word in (f"--{name}", value)),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in command], check=True, env=environment, stdout=subprocess.DEVNULL)
    print(f"{output_dir.name}: {steps} steps", flush=True)


BASELINES = {"sweep": next(iter(SWEEP)), "confirm": next(iter(CONFIRM))}


def pack(path: Path) -> None:
    """Write the records of a file beside it, as `.jsonl.xz`: two thirds of gzip's bytes."""
    packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    write_bytes(path.with_name(f"{path.name}.xz"), packed)


def begun(name: str) -> Path:
    """The file of some records, with those of its compressed copy where there is no other, as after a checkout."""
    path = RECORDS / f"{name}.jsonl"
    for compressed in RECORDS.glob(f"{name}.jsonl.[gx]z") if not path.exists() else ():
        path.write_bytes((lzma if compressed.suffix == ".xz" else gzip).decompress(compressed.read_bytes()))
    return path


def train_and_score(
    variants: Mapping[str, tuple[str, dict[str, object], float]],
    seeds: Sequence[int],
    quarters: Sequence[int],
    scores: Path,
    table: str,
    workers: int,
) -> None:
    """Train every variant, seed by seed, and score it after some quarters of its training."""
    with ThreadPoolExecutor(workers) as pool:
        trainings: dict[str, dict[Path, Future[None]]] = {name: {} for name in variants}
        for seed in seeds:
            for name, (method, changes, factor) in variants.items():
                folder = RUNS / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
                steps = steps_of(method, changes, factor)
                trainings[name][folder] = pool.submit(train, folder, method, seed, steps, changes)
        for name, jobs in trainings.items():
            for training in jobs.values():
                training.result()
            steps = steps_of(*variants[name])
            folders = [folder / f"checkpoint-{steps * quarter // QUARTERS}" for folder in jobs for quarter in quarters]
            recipe(
                "rank_children", "--table", table, "--scores", scores, "--label", name, "--supernets", *folders,
                *TEXT, "--num_resamples", 20,  # of what it prints; the report makes its own
            )  # fmt: skip
            pack(scores)


def checkpoints(methods: list[str], seeds: int, first_seed: int, quarters: list[int]) -> list[Path]:
    """The folders of trained super-nets at some quarters of their training."""
    found = []
    for method, seed in runs(methods, seeds, first_seed):
        steps = steps_of(method)
        for quarter in quarters:
            found.append(RUNS / f"{method}-{seed}" / f"checkpoint-{steps * quarter // QUARTERS}")
    return [folder for folder in found if folder.exists()]


def recipe(name: str, *arguments: object) -> None:
    """Run a recipe in a process of its own."""
    command = [sys.executable, RECIPES / f"{name}.py", *arguments]
    subprocess.run([str(word) for word in command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "score", "sweep", "confirm", "fresh", "card", "report"])
    parser.add_argument("--table", default="imdb")
    parser.add_argument("--methods", nargs="+", default=STUDIED, choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=100, help="Not one of the table's.")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    chosen = (arguments.methods, arguments.seeds, arguments.first_seed)
    if arguments.command == "train":
        with ThreadPoolExecutor(arguments.workers) as pool:
            jobs = [
                pool.submit(train, RUNS / f"{method}-{seed}", method, seed, steps_of(method))
                for method, seed in runs(*chosen)
            ]
        for job in jobs:
            job.result()
    elif arguments.command == "score":
        ranking, interference = begun("ranking"), begun("interference")
        folders = checkpoints(*chosen, list(range(1, QUARTERS + 1)))
        recipe("rank_children", "--table", arguments.table, "--scores", ranking, "--supernets", *folders, *TEXT)
        pack(ranking)
        folders = checkpoints(*chosen, [2, 4])
        recipe("measure_interference", "--output", interference, "--untrained", "true", "--supernets", *folders, *TEXT)
        pack(interference)
    elif arguments.command == "sweep":
        where = (begun("ranking-sweep"), arguments.table, arguments.workers)
        train_and_score(SWEEP, SWEEP_SEEDS, [QUARTERS], *where)
    elif arguments.command == "confirm":
        where = (begun("ranking-confirm"), arguments.table, arguments.workers)
        train_and_score(CONFIRM, CONFIRM_SEEDS, [QUARTERS // 2, QUARTERS], *where)
    elif arguments.command == "fresh":
        print(f"{fresh_hours():.1f} CPU-hours, foretold, if none of it is done", flush=True)
        where = (begun("ranking-fresh"), arguments.table, arguments.workers)
        train_and_score(FRESH, FRESH_SEEDS, [QUARTERS // 2, QUARTERS], *where)
        adapt(*where)
    elif arguments.command == "card":
        facts = read_table_facts(find_table(arguments.table))
        truth = GroundTruth(load_table(arguments.table))
        card = render_table_card(arguments.table, truth, facts=facts, is_packaged=True)
        (ROOT / "model_cards" / f"table-{arguments.table}.md").write_text(card, encoding="utf-8")
    else:
        compressed = [RECORDS / "ranking.jsonl.xz", RECORDS / "interference.jsonl.xz"]
        common = ("report_ranking", "--table", arguments.table, "--page", DOCS / "appendix" / "ranking.md")
        for containing in ((), ("--containing", "conv3")):
            recipe(*common, "--scores", compressed[0], "--figures", DOCS / "figures", *containing)
        for name, baseline in BASELINES.items():
            scores = RECORDS / f"ranking-{name}.jsonl.xz"
            if scores.exists():
                where = ("--scores", scores, "--name", name, "--containing", "conv3")
                recipe(*common, *where, "--baseline", baseline)
        page = DOCS / "appendix" / "interference.md"
        recipe("report_interference", "--measured", compressed[1], "--page", page, "--figures", DOCS / "figures")


if __name__ == "__main__":
    main()
