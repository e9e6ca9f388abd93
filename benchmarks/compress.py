"""Compress MiniLM-L6 without training and recover children of half its encoder: figures, beside those of our pilot.

    python benchmarks/compress.py run      every stage once; a later call goes on where one stopped
    python benchmarks/compress.py show     prints what is recorded

Text, base model and sentence pairs come out of pinned packages (recipes/data-requirements.txt). One thread; times are
CPU-seconds of the process. One record per stage goes to benchmarks/records/compress.jsonl; a stage that has one is not
run again. The pilot's figures are from the same base model and text, but other sentences, held out by sentence; ours
are held out by document.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr
from torch import nn

from hf_nasbert import records
from hf_nasbert.compression.handmade import best_layers, best_uniform, every_other_layer
from hf_nasbert.compression.local import distil_blocks
from hf_nasbert.compression.recover import RecoverySettings, recover
from hf_nasbert.compression.replace_one import as_items, as_record, replace_one, screened, sum_of
from hf_nasbert.compression.sentences import load_sentences, num_tokens
from hf_nasbert.compression.states import teacher_states
from hf_nasbert.costs import cost_function, num_parameters
from hf_nasbert.data import load_labelled
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import packaged_model, packaged_text
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.encoders import running
from hf_nasbert.elastic.importance import importance, sort_by_importance
from hf_nasbert.elastic.refit import refit
from hf_nasbert.elastic.scores import Scorer, score_children, score_model
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling import NasBertModel
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.search.knapsack import best_choices
from hf_nasbert.space import Architecture

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records" / "compress.jsonl"
NUM_CALIBRATION = 24  # batches that importance and variants are measured on: some 20,000 tokens
SCREEN = 0.3
NUM_DRAWN, NUM_CHOICES = 40, 4


class Bench:
    """What stages share; each is made when it is first needed."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder, self.output = folder, output
        self.done = {record["stage"]: record for record in records.read(output)} if output.exists() else {}

    def stage(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a stage, made and written where there is none."""
        if name not in self.done:
            start = time.process_time()
            made = make()
            self.done[name] = {"stage": name, "cpu_seconds": round(time.process_time() - start, 1), **made}
            records.append(self.output, self.done[name])
            print(name, {key: value for key, value in self.done[name].items() if key != "stage"}, flush=True)
        return self.done[name]


def texts() -> datasets.Dataset:
    """Paragraphs of Wikipedia and reviews, about three to two."""
    wiki, imdb = packaged_text("boolq-wikipedia"), packaged_text("imdb")
    return datasets.concatenate_datasets([wiki, imdb.select(range(2 * len(wiki) // 3))])


class SentencePairs:
    """Spearman correlation of cosines of mean-pooled vectors with the scores of STS-B's pairs."""

    def __init__(self, tokenizer: Any) -> None:
        self.splits = load_labelled("stsb")
        self.tokenizer = tokenizer

    def __call__(self, model: nn.Module, split: str) -> float:
        """The correlation on a split."""
        pairs = self.splits[split]
        sentences = list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
        order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        vectors: dict[str, torch.Tensor] = {}
        with running(model):
            for start in range(0, len(order), 64):
                own = [sentences[index] for index in order[start : start + 64]]
                inputs = self.tokenizer(own, truncation=True, max_length=128, padding=True, return_tensors="pt")
                mask = inputs["attention_mask"][..., None].float()
                states = model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
                pooled = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
                vectors |= dict(zip(own, pooled, strict=True))
        cosines = [float(vectors[a] @ vectors[b]) for a, b in zip(pairs["sentence1"], pairs["sentence2"], strict=True)]
        return round(float(spearmanr(cosines, pairs["label"]).statistic), 4)


def run(folder: Path, output: Path, steps: list[int], only: str) -> None:
    """All stages, in order."""
    torch.set_num_threads(1)
    bench = Bench(folder, output)
    name = str(packaged_model("all-MiniLM-L6-v2"))
    tokenizer = open_tokenizer(name)
    bench.stage("versions", records.versions)
    text = load_sentences(
        texts(), tokenizer, num_train=8320, num_choosing=192, num_judging=512, cache_dir=folder / "text"
    )
    parts = {"train": text.train, "choosing": text.choosing, "judging": text.judging}
    bench.stage("text", lambda: {part: [len(own), num_tokens(own)] for part, own in parts.items()})
    full = load_full_child(name, NasBertModel)
    states: dict[str, Any] = {}

    num_there = len(list((folder / "states").rglob("*.safetensors")))

    def teach() -> dict[str, Any]:
        for part, own in parts.items():
            states[part] = teacher_states(full, own, folder / "states" / part)
        return {"tokens": sum(one.num_tokens for one in states.values()), "taken_up_batches": num_there * 32}

    bench.stage("states", teach)
    teach()
    distance = Distance(states["train"].mean)
    calibration = text.train[:NUM_CALIBRATION]
    importances: dict[str, Any] = {}

    def measure_importance() -> dict[str, Any]:
        importances["scores"] = importance(full, calibration)
        return {"tokens": num_tokens(calibration), "scores": importances["scores"]}

    found = bench.stage("importance", measure_importance)
    sort_by_importance(full, found["scores"])
    supernet = elastic_supernet(full, elastic_space(full, heads=(6, 3), ffn=(768, 384)))
    variants = folder / "variants"
    bench.stage("refit", lambda: {"errors": refit(supernet, calibration, kept=variants)})
    refit(supernet, calibration, kept=variants)
    base = supernet.largest_architecture
    chosen_by = text.choosing, states["choosing"]
    table: list[Any] = []

    def score_replacements() -> dict[str, Any]:
        table[:] = replace_one(supernet, *chosen_by, distance, kept=folder / "replace-one.json")
        return {"table": as_record(table)}

    bench.stage("replace-one", score_replacements)
    score_replacements()

    cost = cost_function(supernet.config)
    outside = num_parameters(supernet.config, ("skip",) * len(base))
    encoder = num_parameters(supernet.config, base) - outside
    # A layer has a little less than two halves of each of its parts, whose biases and norms stay whole.
    uniform_half = num_parameters(supernet.config, ("attention6", "ffn768") * (len(base) // 2)) - outside
    # By biases the pilot's half (an ffn384 for a whole attention) is some hundred parameters larger than that.
    sizes = {0.5: uniform_half, 0.502: 0.502 * encoder, 0.25: 0.26 * encoder}
    caps = {share: {"num_parameters": outside + size} for share, size in sizes.items()}
    scorer = Scorer(supernet, *chosen_by, distance, kept_in=folder / "scores")

    def choose(share: float) -> dict[str, Any]:
        items, fixed = as_items(table, base, cost, caps[share])
        choices = best_choices(items, len(base), caps[share], fixed=fixed, num_choices=NUM_CHOICES)
        scores = score_children(supernet, [one.architecture for one in choices], *chosen_by, distance)
        return {
            "cap": caps[share]["num_parameters"], "encoder": encoder, "outside": outside,
            "choices": [
                {"architecture": str(one.architecture), "sum": one.loss, "loss": score.loss, **one.costs}
                for one, score in zip(choices, scores, strict=True)
            ],
        }  # fmt: skip

    pairs = SentencePairs(tokenizer)

    def distil(what: str, architecture: Architecture) -> None:
        for count in steps if only in what else ():
            bench.stage(
                f"recovery {count} {what}",
                lambda n=count: recovered(extract_child(supernet, architecture), text, states, distance, pairs, n),
            )

    searched = {share: choice(bench.stage(f"knapsack {share}", lambda s=share: choose(s))) for share in caps}
    distil("searched 0.5", searched[0.5])

    def by_hand() -> dict[str, Any]:
        found = [best_layers(scorer, 3), every_other_layer(scorer, 3), best_uniform(scorer, cost, caps[0.5])]
        return {one.how.split()[0]: [one.how, str(one.architecture), one.loss, one.num_scored] for one in found}

    hand = bench.stage("handmade 0.5", by_hand)
    for kind in ("layers", "uniform"):
        distil(hand[kind][0], Architecture.parse(hand[kind][1]))
    distil("searched 0.502", searched[0.502])
    distil("searched 0.25", searched[0.25])
    bench.stage("base model", lambda: {split: pairs(full, split) for split in ("validation", "test")})

    def additivity() -> dict[str, Any]:
        rng, space = random.Random(0), supernet.space
        small = screened(space, table, base, SCREEN)
        result = {}
        for which, of in (("whole space", space), ("screened space", small)):
            drawn = [of.sample(rng) for _ in range(NUM_DRAWN)]
            sums = [sum_of(table, child) for child in drawn]
            losses = [score.loss for score in score_children(supernet, drawn, *chosen_by, distance)]
            result[which] = {
                "children": of.num_children,
                "tau": round(float(kendalltau(sums, losses).statistic), 3),
                "median_ratio": round(float(np.median(np.array(losses) / np.array(sums))), 3),
                "losses": [round(loss, 4) for loss in losses], "sums": [round(one, 4) for one in sums],
            }  # fmt: skip
        return result

    bench.stage("additivity", additivity)

    def convolutions() -> dict[str, Any]:
        space = elastic_space(full, heads=(), ffn=(), kernels=(5,), skip=False)
        others, result = elastic_supernet(full, space), {}
        children = [Architecture([*base[:block], "conv5", *base[block + 1 :]]) for block in range(0, len(base), 2)]
        for how, fit in (("refitted", refit), ("distilled", lambda *given: distil_blocks(*given, num_rounds=4))):
            start = time.process_time()
            errors = fit(others, calibration)
            seconds = time.process_time() - start
            scores = score_children(others, children, *chosen_by, distance)
            result[how] = {
                "losses": [round(score.loss, 4) for score in scores], "errors": errors, "seconds": round(seconds, 1)
            }  # fmt: skip
        return result

    bench.stage("convolutions", convolutions)


def choice(record: dict[str, Any]) -> Architecture:
    """The best choice by its real loss."""
    return Architecture.parse(min(record["choices"], key=lambda one: one["loss"])["architecture"])


def recovered(
    child: nn.Module, text: Any, states: Any, distance: Any, pairs: SentencePairs, steps: int
) -> dict[str, Any]:
    """What a child is worth after some steps of recovery."""
    start = time.process_time()
    done = recover(
        child, text.train, states["train"], distance, RecoverySettings(num_steps=steps),
        held_out=(text.choosing, states["choosing"]),
    )  # fmt: skip
    seconds = time.process_time() - start
    score = score_model(child, text.judging, states["judging"], distance)
    return {
        "architecture": "-".join(child.config.operators), "recovery_cpu_seconds": round(seconds, 1),
        "tokens": done.num_tokens, "before": done.before, "after": done.after, "judged": score,
        "validation": pairs(child, "validation"), "test": pairs(child, "test"),
    }  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running_ = commands.add_parser("run")
    running_.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress", help="Of what stages keep.")
    running_.add_argument("--records", type=Path, default=RECORDS)
    running_.add_argument("--steps", type=int, nargs="*", default=[40], help="Lengths of recovery.")
    running_.add_argument("--only", default="", help="Of recovery: only children whose name holds this.")
    commands.add_parser("show")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.folder, arguments.records, arguments.steps, arguments.only)
        return
    for record in records.read(RECORDS):
        print(record)


if __name__ == "__main__":
    main()
