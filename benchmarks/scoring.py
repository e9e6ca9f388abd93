"""Scoring many children: the prefix tree against one child at a time. `--json` prints one line with the ratios.

    python benchmarks/scoring.py --json

Against two ways to score one by one, in one process of one thread, by turns, group by group:

- `ratio_plain`: `supernet(input_ids, architecture=child)` under `no_grad`: vocabulary logits at all positions,
  cross-entropy at the labelled ones. What anybody would write first.
- `ratio_masked`: `supernet(input_ids, labels=labels, architecture=child)`, whose head computes logits at the labelled
  positions only, as ours does. What sharing, and the head's own arithmetic, gain.

Whole spaces are scored a third way as well, `hf-nasbert score --exact_share 0.1`: a filter of likely words orders all
children, and the best tenth is scored exactly. `ratio_filtered_plain` and `ratio_filtered_masked` are what that gains
over one by one, all of it counted.

Seconds are CPU seconds of this process, so that neighbours on the machine count little; ratios are medians of rounds.
The allocator is tuned for all sides (`training.machine.tune_allocator`): by default glibc maps logits of 32 MiB afresh
for every child of the plain way. Hidden 128, vocabulary 8,192, 8 sequences of 128 tokens, 15 % labelled. One by one, a
random sample of each group is timed and scaled: the output says on how many.

`ratio_of_operator_calls` is what sharing prefixes alone would allow if time were operator calls, without a head.
`head_milliseconds` is the matrix product of one child's labelled positions with the vocabulary, which no exact way can
go without: the time of one child, one by one, over that bounds every ratio.

`--calls` counts the operator calls of scoring 30,000 random children of 4^8 as `hf-nasbert score --num_random` does,
in the pieces that it writes; the count is the same on every machine, for any width.
"""

import argparse
import json
import random
import statistics
import time

import torch

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline.scores import CHUNK, choose_children
from hf_nasbert.pipeline.scoring_arguments import ScoreChildrenArguments
from hf_nasbert.records import versions
from hf_nasbert.scoring import LikelyWords, score_with_report
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.training.machine import tune_allocator

OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
WHOLE = ("3^6", "4^6")
RANDOM_OF_4_8 = 30_000
CASES = ("3^6", "4^6", "random 1000 of 5^12", "generations of 50, 5^12")


def make_groups(name: str) -> tuple[SearchSpace, list[list[Architecture]]]:
    """The space of a case and the groups of children that are scored together."""
    rng = random.Random(0)
    if name == "3^6":
        space = SearchSpace.chain(num_choice_blocks=6, operators=("attention", "ffn", "conv3"))
        return space, [list(space.enumerate())]
    if name == "4^6":
        space = SearchSpace.chain(num_choice_blocks=6, operators=OPERATORS[:4])
        return space, [list(space.enumerate())]
    space = SearchSpace.chain(num_choice_blocks=12, operators=OPERATORS)
    if name.startswith("random"):
        return space, [[space.sample(rng) for _ in range(1000)]]
    # Each generation: offspring one or two changes away from 25 parents, which the next one draws from it.
    parents, generations = [space.sample(rng) for _ in range(25)], []
    for _ in range(4):
        offspring = [space.mutate(rng.choice(parents), rng, num_changes=rng.choice((1, 2))) for _ in range(50)]
        generations.append(offspring)
        parents = rng.sample(offspring, 25)
    return space, generations


def make_batch(config: SupernetConfig, num_sequences: int, num_tokens: int) -> dict[str, torch.Tensor]:
    """Random tokens, 15 % of them labelled."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_sequences, num_tokens)
    input_ids = torch.randint(config.vocab_size, shape, generator=generator)
    labels = input_ids.where(torch.rand(shape, generator=generator) < 0.15, -100)
    return {"input_ids": input_ids, "labels": labels}


@torch.no_grad()
def score_plainly(supernet: SupernetForMaskedLM, child: Architecture, batch: dict[str, torch.Tensor]) -> float:
    """The loss of one child, from the logits of all positions."""
    logits = supernet(batch["input_ids"], architecture=child).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).item()


@torch.no_grad()
def score_masked(supernet: SupernetForMaskedLM, child: Architecture, batch: dict[str, torch.Tensor]) -> float:
    """The loss of one child, from the logits of the labelled positions."""
    return supernet(**batch, architecture=child).loss.item()


def score_filtered(
    supernet: SupernetForMaskedLM, children: list[Architecture], batch: dict[str, torch.Tensor]
) -> None:
    """Order children by the filter, and score the best tenth exactly."""
    losses = score_with_report(supernet, children, [batch], head=LikelyWords(supernet, [batch])).losses
    order = sorted(range(len(children)), key=losses.__getitem__)
    score_with_report(supernet, [children[place] for place in order[: len(children) // 10]], [batch])


def count_calls() -> dict[str, int]:
    """Operator calls of scoring random children of 4^8 on one batch, and those of one by one."""
    space = SearchSpace.chain(num_choice_blocks=8, operators=OPERATORS[:4])
    config = SupernetConfig(search_space=space, vocab_size=64, hidden_size=32, max_position_embeddings=8)
    supernet, batch = SupernetForMaskedLM(config).eval(), make_batch(config, num_sequences=2, num_tokens=8)
    arguments = ScoreChildrenArguments(supernet="unused", output="unused.jsonl", num_random=RANDOM_OF_4_8)
    children = choose_children(arguments, space)
    pieces = [children[start : start + CHUNK] for start in range(0, len(children), CHUNK)]
    reports = [score_with_report(supernet, piece, [batch]) for piece in pieces]
    return {
        "num_children": len(children),
        "num_operator_calls": sum(report.num_operator_calls for report in reports),
        "num_naive_operator_calls": sum(report.num_naive_operator_calls for report in reports),
    }


def time_head(supernet: SupernetForMaskedLM, num_rows: int) -> float:
    """Least CPU seconds of the product of so many states with the vocabulary."""
    states, weight = torch.randn(num_rows, supernet.config.hidden_size), supernet.lm_head.decoder.weight.detach()
    logits, seconds = torch.empty(len(weight), num_rows), []
    for _ in range(20):
        start = time.process_time()
        torch.mm(weight, states.T, out=logits)
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(name: str, num_rounds: int, num_single: int) -> dict[str, object]:
    """One case: the ratios, the rates, and how far any loss is from that of its child alone."""
    space, groups = make_groups(name)
    torch.manual_seed(0)
    supernet = SupernetForMaskedLM(
        SupernetConfig(search_space=space, vocab_size=8192, hidden_size=128, max_position_embeddings=128)
    ).eval()
    batch = make_batch(supernet.config, num_sequences=8, num_tokens=128)
    children = [child for group in groups for child in group]
    rng = random.Random(1)
    ways = {"plain": score_plainly, "masked": score_masked}
    for score in ways.values():
        score(supernet, children[0], batch)
    score_with_report(supernet, children[:8], [batch])
    ours = ("tree", "filtered") if name in WHOLE else ("tree",)
    milliseconds: dict[str, list[float]] = {way: [] for way in (*ours, *ways)}  # of one child, round by round
    worst = 0.0
    for _ in range(num_rounds):
        seconds = dict.fromkeys(milliseconds, 0.0)
        num_calls = num_naive_calls = num_timed = 0
        for group in groups:
            start = time.process_time()
            report = score_with_report(supernet, group, [batch])
            seconds["tree"] += time.process_time() - start
            if "filtered" in ours:
                start = time.process_time()
                score_filtered(supernet, group, batch)
                seconds["filtered"] += time.process_time() - start
            num_calls += report.num_operator_calls
            num_naive_calls += report.num_naive_operator_calls
            sample = rng.sample(range(len(group)), min(len(group), max(1, num_single // len(groups))))
            num_timed += len(sample)
            for way, score in ways.items():
                start = time.process_time()
                alone = [score(supernet, group[index], batch) for index in sample]
                seconds[way] += time.process_time() - start
                gaps = (abs(report.losses[i] - loss) / loss for i, loss in zip(sample, alone, strict=True))
                worst = max(worst, *gaps)
        for way, found in milliseconds.items():
            found.append(1000 * seconds[way] / (len(children) if way in ours else num_timed))
    ratios = {
        way if our == "tree" else f"{our}_{way}": [
            single / together for single, together in zip(milliseconds[way], milliseconds[our], strict=True)
        ]
        for our in ours
        for way in ways
    }
    return {
        **{f"ratio_{way}": round(statistics.median(found), 2) for way, found in ratios.items()},
        **{f"ratio_{way}_spread": [round(min(found), 2), round(max(found), 2)] for way, found in ratios.items()},
        "milliseconds_a_child": {way: round(statistics.median(found), 2) for way, found in milliseconds.items()},
        "head_milliseconds": round(1000 * time_head(supernet, int((batch["labels"] != -100).sum())), 2),
        "num_children": len(children),
        "num_children_timed_alone": num_timed,
        "operator_calls_saved": round(1 - num_calls / num_naive_calls, 3),
        "ratio_of_operator_calls": round(num_naive_calls / num_calls, 2),
        "largest_relative_difference": worst,
    }


def main() -> None:
    """Measure every case, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--calls", action="store_true", help="only count operator calls, and print them as JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--single", type=int, default=100, help="children timed one by one in each round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    if arguments.calls:
        print(json.dumps(count_calls()))
        return
    found = {}
    for name in arguments.cases:
        found[name] = measure(name, arguments.rounds, arguments.single)
        if not arguments.json:
            print(f"{name}: {found[name]}")
    if arguments.json:
        print(json.dumps({"benchmark": "scoring", "cases": found, "versions": versions()}))


if __name__ == "__main__":
    main()
