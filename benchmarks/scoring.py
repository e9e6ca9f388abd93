"""Scoring many children: the prefix tree against one child at a time. `--json` prints one line with the ratios.

    python benchmarks/scoring.py --json

Against the plain way (`supernet(input_ids, architecture=child)` under `no_grad`: vocabulary logits at all positions,
cross-entropy at the labelled ones), in one process of one thread, the two by turns, group by group. Seconds are CPU
seconds of this process, so that neighbours on the machine do not count; ratios are medians over rounds. Hidden 128,
vocabulary 8,192, 8 sequences of 128 tokens, 15 % labelled. The plain way is timed on a random sample of each group and
scaled: the output says on how many.

`ratio_of_operator_calls` is what sharing prefixes alone would allow if time were operator calls. The rest of a ratio
comes from the plain way's vocabulary head at all positions, against one at the labelled positions for several children
at once, and from last blocks that run there only.
"""

import argparse
import json
import random
import statistics
import time

import torch

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.records import versions
from hf_nasbert.scoring import score_with_report
from hf_nasbert.space import Architecture, SearchSpace

OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
TARGETS = {"3^6": 7.0, "4^6": 9.0, "random 1000 of 5^12": 3.5, "generations of 50, 5^12": 3.0}


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


def measure(name: str, num_rounds: int, num_plain: int) -> dict[str, float | int | bool]:
    """One case: the ratio, the rates, and how far any loss is from the plain one."""
    space, groups = make_groups(name)
    torch.manual_seed(0)
    supernet = SupernetForMaskedLM(
        SupernetConfig(search_space=space, vocab_size=8192, hidden_size=128, max_position_embeddings=128)
    ).eval()
    batch = make_batch(supernet.config, num_sequences=8, num_tokens=128)
    children = [child for group in groups for child in group]
    rng = random.Random(1)
    score_plainly(supernet, children[0], batch)
    score_with_report(supernet, children[:8], [batch])
    ratios, tree_rates, plain_rates, worst = [], [], [], 0.0
    for _ in range(num_rounds):
        tree_seconds = plain_seconds = 0.0
        num_calls = num_naive_calls = num_timed = 0
        for group in groups:
            start = time.process_time()
            report = score_with_report(supernet, group, [batch])
            tree_seconds += time.process_time() - start
            num_calls += report.num_operator_calls
            num_naive_calls += report.num_naive_operator_calls
            sample = rng.sample(range(len(group)), min(len(group), max(1, num_plain // len(groups))))
            start = time.process_time()
            plain = [score_plainly(supernet, group[index], batch) for index in sample]
            plain_seconds += time.process_time() - start
            num_timed += len(sample)
            gaps = (abs(report.losses[i] - loss) / loss for i, loss in zip(sample, plain, strict=True))
            worst = max(worst, *gaps)
        tree_rates.append(len(children) / tree_seconds)
        plain_rates.append(num_timed / plain_seconds)
        ratios.append(tree_rates[-1] / plain_rates[-1])
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratio_spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "target": TARGETS[name],
        "num_children": len(children),
        "num_children_timed_plainly": num_timed,
        "children_per_second": round(statistics.median(tree_rates), 1),
        "children_per_second_plainly": round(statistics.median(plain_rates), 1),
        "operator_calls_saved": round(1 - num_calls / num_naive_calls, 3),
        "ratio_of_operator_calls": round(num_naive_calls / num_calls, 2),
        "largest_relative_difference": worst,
    }


def main() -> None:
    """Measure every case, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    parser.add_argument("--cases", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", type=int, default=100, help="children timed the plain way in each round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in arguments.cases:
        found[name] = measure(name, arguments.rounds, arguments.plain)
        if not arguments.json:
            print(f"{name}: {found[name]}")
    if arguments.json:
        print(json.dumps({"benchmark": "scoring", "cases": found, "versions": versions()}))


if __name__ == "__main__":
    main()
