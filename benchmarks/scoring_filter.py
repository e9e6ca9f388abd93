"""A cheap ranking before exact scoring: does the exact best lie in a filter's best tenth? `--json` writes a record.

    python benchmarks/scoring_filter.py --supernet runs/quickstart-scratch/supernet --json scoring-filter.json

All children of each super-net's space, or as many as `--children` says, are scored exactly and by
`scoring.LikelyWords`, on two batches of film reviews: Kendall's tau of the two; how many of the exact best 10 and best
100, and which share of the exact best tenth, lie in the filter's best tenth; the place of the exact best child in its
order (0 is the first); CPU seconds of exact scoring, and of the filter with the best tenth scored exactly. The reviews
are text that was trained on. Super-nets: two that are trained here, uniformly, for minutes, and the one that is given.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch

from hf_nasbert.data import DataArguments, MaskedBatches, load_corpus
from hf_nasbert.extraction import load_supernet
from hf_nasbert.metrics import kendall_tau
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.records import versions
from hf_nasbert.scoring import LikelyWords, score_with_report
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.machine import tune_allocator
from hf_nasbert.writing import write_text


def train(corpus, space: SearchSpace, seed: int, num_steps: int) -> SupernetForMaskedLM:
    """A small super-net, uniformly trained."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    config = SupernetConfig(
        search_space=space,
        vocab_size=len(corpus.tokenizer),
        hidden_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    supernet = SupernetForMaskedLM(config)
    batches = MaskedBatches(corpus.train, corpus.tokenizer, batch_size=16, seed=seed)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1.5e-3, fused=True)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 30) * (1 - step / num_steps)
        loss = supernet(**batches.batch(step), architecture=space.sample(rng)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in supernet.parameters() if p.grad is not None], 1.0)
        optimizer.step()
    return supernet.eval()


def study(
    supernet: SupernetForMaskedLM, batches: list[dict[str, torch.Tensor]], num_children: int
) -> dict[str, object]:
    """How the filter ranks children of one super-net, and what it takes."""
    children = list(supernet.space.enumerate())
    children = random.Random(5).sample(children, min(num_children, len(children)))
    start = time.process_time()
    report = score_with_report(supernet, children, batches)
    exact_seconds, exact = time.process_time() - start, report.losses
    start = time.process_time()
    about = score_with_report(supernet, children, batches, head=LikelyWords(supernet, batches)).losses
    ranked = sorted(range(len(children)), key=about.__getitem__)
    tenth = ranked[: len(children) // 10]
    score_with_report(supernet, [children[place] for place in tenth], batches)
    filtered_seconds = time.process_time() - start
    order = sorted(range(len(children)), key=exact.__getitem__)
    return {
        "num_children": len(children),
        "num_labels": report.num_labels,
        "losses": [min(exact), max(exact)],
        "tau": round(kendall_tau(about, exact), 3),
        "best_10_kept": len(set(tenth) & set(order[:10])),
        "best_100_kept": len(set(tenth) & set(order[:100])),
        "best_tenth_kept": round(len(set(tenth) & set(order[: len(tenth)])) / len(tenth), 2),
        "place_of_the_best": ranked.index(order[0]),
        "seconds": {"exact": round(exact_seconds, 1), "filter and best tenth": round(filtered_seconds, 1)},
        "ratio": round(exact_seconds / filtered_seconds, 2),
    }


def main() -> None:
    """Study three super-nets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", required=True, help="folder of a trained super-net, with its tokenizer")
    parser.add_argument("--children", type=int, default=10_000, help="most children of each super-net")
    parser.add_argument("--json", help="file of the record; what is found is printed as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    corpus = load_corpus(DataArguments(packaged="imdb", max_seq_length=64, tokenizer_name=arguments.supernet))
    held = MaskedBatches(corpus.train, corpus.tokenizer, batch_size=16, seed=99)
    batches = [held.batch(100_000 + number) for number in range(2)]
    operators = ("attention", "ffn", "conv3", "conv5")
    supernets = {
        "5^4, 600 steps": lambda: train(corpus, SearchSpace.chain(4, (*operators, "conv7")), 2, 600),
        "given": lambda: load_supernet(arguments.supernet),
        "4^6, 300 steps": lambda: train(corpus, SearchSpace.chain(6, operators), 1, 300),
    }
    found = {}
    for name, make in supernets.items():
        found[name] = study(make(), batches, arguments.children)
        print(f"{name}: {found[name]}", flush=True)
    if arguments.json:
        record = {"benchmark": "scoring_filter", "supernets": found, "versions": versions()}
        write_text(Path(arguments.json), json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
