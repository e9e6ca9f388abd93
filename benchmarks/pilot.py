"""The pilot of the ranking study: which space and recipe separate children, and leave a super-net room to be wrong?

    python benchmarks/pilot.py run [SETTING ...]     adds what the records lack
    python benchmarks/pilot.py table                 prints what they say, and puts it into docs/appendix/ranking.md

For every candidate setting some random children are trained alone under two seeds, and one super-net by uniform
single-path sampling for four times the steps of a child.
"""

import argparse
import functools
import gzip
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.metrics import kendall_tau, mean_bucketed_tau, size_buckets
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.records import Record
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import Architecture
from hf_nasbert.training.farm import run_farm
from hf_nasbert.training.machine import tune_allocator
from hf_nasbert.training.standalone import (
    StandaloneArguments,
    StandaloneTrainer,
    descend,
    make_optimizer,
    set_learning_rate,
)
from hf_nasbert.writing import write_bytes

RECORDS = Path(__file__).parent / "records"
PACKED = RECORDS / "pilot.jsonl.gz"
PAGE = Path(__file__).parents[1] / "docs" / "appendix" / "ranking.md"
SEEDS = (0, 1)
FACTOR = 4  # steps of the super-net, in a child's

STEM = ["conv3"]  # one shared convolution, so that attention need not find out by itself where it is
RECIPE: dict[str, Any] = {
    "hidden_size": 64, "max_steps": 1200, "train_batch_size": 16, "learning_rate": 2e-3, "num_dev_batches": 120,
    "eval_steps": 200,
}  # fmt: skip
EQUAL: dict[str, Any] = {"ffn_ratio": 2, "num_conv_layers": 4}  # every operator has about 4 D^2 parameters
THREE, TWO, SKIP = "attention,ffn,conv3", "attention,conv3", "attention,ffn,conv3,skip"

# name: the arguments of the recipe
# fmt: off
SETTINGS: dict[str, dict[str, Any]] = {
    "stem5": {"blocks": STEM + [THREE] * 5, **RECIPE},
    "stem5-fast": {"blocks": STEM + [THREE] * 5, **RECIPE, "learning_rate": 5e-3},
    "stem5-quick": {"blocks": STEM + [THREE] * 5, **RECIPE, "learning_rate": 3.5e-3, "warmup_ratio": 0.25},
    "stem5-quicker": {"blocks": STEM + [THREE] * 5, **RECIPE, "learning_rate": 6e-3, "warmup_ratio": 0.3},
    "stem5-quickest": {"blocks": STEM + [THREE] * 5, **RECIPE, "learning_rate": 1e-2, "warmup_ratio": 0.3},
    "stem5-long": {
        "blocks": STEM + [THREE] * 5, **RECIPE, "max_steps": 2400, "learning_rate": 6e-3, "warmup_ratio": 0.2,
        "eval_steps": 400,
    },
    "stem5-wide": {
        "blocks": STEM + [THREE] * 5, **RECIPE, "hidden_size": 128, "max_steps": 800, "learning_rate": 3e-3,
        "eval_steps": 100,
    },
    "stem5-steps": {
        "blocks": STEM + [THREE] * 5, **RECIPE, "max_steps": 2400, "train_batch_size": 8, "learning_rate": 4e-3,
        "warmup_ratio": 0.3, "eval_steps": 400,
    },
    "stem5-equal": {"blocks": STEM + [THREE] * 5, **RECIPE, **EQUAL, "learning_rate": 6e-3, "warmup_ratio": 0.3},
    "stem6-skip": {"blocks": STEM + [SKIP] * 6, **RECIPE, "learning_rate": 6e-3, "warmup_ratio": 0.3},
    "stem8-two": {"blocks": STEM + [TWO] * 8, **RECIPE, "learning_rate": 6e-3, "warmup_ratio": 0.3},
    "plain6-skip": {"blocks": [SKIP] * 6, **RECIPE, "learning_rate": 6e-3, "warmup_ratio": 0.3},
    "plain5": {"blocks": [THREE] * 5, **RECIPE, "learning_rate": 6e-3, "warmup_ratio": 0.3},
}
# fmt: on


def make_trainer(name: str) -> StandaloneTrainer:
    """The trainer of a setting."""
    corpus = load_corpus(DataArguments(packaged="imdb", vocab_size=2048, max_seq_length=64))
    return StandaloneTrainer(StandaloneArguments(**SETTINGS[name]), corpus, source="imdb")


def draw_children(trainer: StandaloneTrainer, number: int) -> list[Architecture]:
    """Distinct children, all equally likely."""
    rng = random.Random(0)
    children: dict[Architecture, None] = {}
    while len(children) < number:
        children[trainer.space.sample(rng, uniform_over="children")] = None
    return list(children)


def train_supernet(trainer: StandaloneTrainer, children: list[Architecture], seed: int) -> Record:
    """Train a super-net by uniform single-path sampling (Guo et al., 2020), and score the children on the way."""
    child_steps = trainer.arguments.max_steps
    arguments = StandaloneArguments(**{**vars(trainer.arguments), "max_steps": FACTOR * child_steps})
    rng, batches, scores = random.Random(seed), trainer.train_batches(seed), []
    start = time.process_time()
    torch.manual_seed(seed)
    supernet = SupernetForMaskedLM(trainer.config).train()
    optimizer = make_optimizer(supernet, arguments)
    for step in range(arguments.max_steps):
        batch = batches.batch(step)
        inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
        loss = supernet(**inputs, architecture=trainer.space.sample(rng)).loss
        set_learning_rate(optimizer, arguments.learning_rate_at(step))
        descend(loss, supernet, optimizer, arguments.max_grad_norm)
        if (step + 1) % child_steps == 0:
            scores.append([step + 1, score_architectures(supernet, children, trainer.dev_batches)])
    return {
        "seed": seed,
        "children": [str(child) for child in children],
        "scores": scores,
        "recipe_hash": trainer.recipe_hash,
        "versions": records.versions(),
        "timing": {"cpu_seconds": round(time.process_time() - start, 2)},
    }


def run(names: list[str], num_children: int, num_workers: int, nice: int) -> None:
    """Add the missing records of some settings; training runs at the priority `nice`."""
    torch.set_num_threads(1)
    tune_allocator()
    trainers = {name: make_trainer(name) for name in names}
    os.nice(nice)
    for name, trainer in trainers.items():
        children = draw_children(trainer, num_children)
        jobs = [(child, seed) for seed in SEEDS for child in children]
        table, supernets = begun(f"pilot-{name}"), begun(f"pilot-{name}-supernet")
        run_farm(trainer, jobs, table, num_workers=num_workers)
        if all(record["recipe_hash"] != trainer.recipe_hash for record in read(supernets.stem)):
            records.append(supernets, train_supernet(trainer, children, seed=0))
        pack()


def begun(name: str) -> Path:
    """The file that a setting's records are added to, with those that are committed, as after a checkout."""
    path = RECORDS / f"{name}.jsonl"
    if not path.exists():
        records.extend(path, read(name))
    return path


def read(name: str) -> list[Record]:
    """The records of a setting, or of its super-net: of the file that is added to, or else those committed."""
    path = RECORDS / f"{name}.jsonl"
    if path.exists():
        return records.read(path)
    return [{key: record[key] for key in record if key != "of"} for record in packed() if record["of"] == name]


@functools.cache
def packed() -> list[Record]:
    """All that is committed, in one file; each record says whose it is."""
    return records.read(PACKED)


def pack() -> None:
    """Commit what was added: the same bytes for the same records."""
    names = [name for setting in SETTINGS for name in (f"pilot-{setting}", f"pilot-{setting}-supernet")]
    lines = [
        json.dumps({"of": name, **record}, ensure_ascii=False) + "\n"
        for name in sorted(names)
        for record in read(name)
    ]
    write_bytes(PACKED, gzip.compress("".join(lines).encode(), mtime=0))
    packed.cache_clear()


def describe(name: str) -> list[str] | None:
    """One row of the table: what the records of a setting say; None if there are none yet."""
    children = read(f"pilot-{name}")
    by_seed = [{r["architecture"]: r["dev_loss"] for r in children if r["seed"] == seed} for seed in SEEDS]
    common = [child for child in by_seed[0] if child in by_seed[1]]
    if len(common) < 3:
        return None
    losses = np.array([[losses[child] for child in common] for losses in by_seed])  # (seeds, children)
    truth = losses.mean(axis=0)
    sizes = np.array([next(r["num_parameters"] for r in children if r["architecture"] == child) for child in common])
    num_buckets = 3 if sizes.max() > 1.1 * sizes.min() else 1
    # A shift that all children of a seed share ranks nobody, so it is no noise.
    noise = float((losses[0] - losses[1]).std(ddof=1) / np.sqrt(2))
    spread = float(truth.std(ddof=1))
    row = [
        f"`{name}`",
        f"{len(common)} x {len(SEEDS)}",
        f"{np.mean([r['timing']['cpu_seconds'] for r in children]):.0f}",
        f"{truth.min():.3f} to {truth.max():.3f}",
        f"{spread:.4f}",
        f"{_spread_within(truth, sizes, num_buckets):.4f}",
        f"{noise:.4f}",
        f"{spread / noise:.1f}",
        f"{_spread_within(truth, sizes, num_buckets) / noise:.1f}",
        _taus(losses[0], losses[1], sizes, num_buckets),
        _taus(sizes, truth, sizes, num_buckets),
    ]
    for supernet in read(f"pilot-{name}-supernet")[-1:]:
        for _, scores in supernet["scores"]:
            known = dict(zip(supernet["children"], scores, strict=True))
            scored = [index for index, child in enumerate(common) if child in known]
            row.append(_taus([known[common[index]] for index in scored], truth[scored], sizes[scored], num_buckets))
    return row


def _spread_within(truth: Any, sizes: Any, num_buckets: int) -> float:
    """The standard deviation of children around the mean of their parameter bucket."""
    edges = np.quantile(sizes, np.arange(1, num_buckets) / num_buckets)
    bucket_of = np.searchsorted(edges, sizes, side="left")
    parts = [truth[bucket_of == bucket] for bucket in np.unique(bucket_of)]
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    return float(np.sqrt(squares / max(len(truth) - len(parts), 1)))


def _taus(score: Any, truth: Any, sizes: Any, num_buckets: int) -> str:
    return f"{kendall_tau(score, truth):.2f} / {mean_bucketed_tau(score, truth, size_buckets(sizes, num_buckets)):.2f}"


def table() -> str:
    """The table of all settings that have records, in Markdown."""
    head = [
        "setting", "children x seeds", "CPU s per child", "dev loss", "spread", "spread within buckets", "seed noise",
        "spread / noise", "within / noise", "tau of two seeds", "tau of size",
        *(f"tau of super-net, {factor} x" for factor in range(1, FACTOR + 1)),
    ]  # fmt: skip
    rows = [row + [""] * (len(head) - len(row)) for name in SETTINGS if (row := describe(name)) is not None]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("settings", nargs="*", default=list(SETTINGS), metavar="SETTING")
    running.add_argument("--num_children", type=int, default=8)
    running.add_argument("--num_workers", type=int, default=2)
    running.add_argument("--nice", type=int, default=0, help="Lower the priority by this much.")
    commands.add_parser("table")
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(table())
        fill_page(PAGE, {"pilot": table()})
    else:
        run(arguments.settings, arguments.num_children, arguments.num_workers, arguments.nice)


if __name__ == "__main__":
    main()
