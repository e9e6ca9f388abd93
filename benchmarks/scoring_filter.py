"""A cheap ranking before exact scoring: does the exact best lie in a filter's best tenth? `--json` writes a record.

    python benchmarks/scoring_filter.py --supernet runs/quickstart-scratch/supernet --json scoring-filter.json

The filter takes the words that eight reference children find likely exactly (a share of the vocabulary), and the
others' part of the normaliser from mean and covariance of their embeddings, as if logits were normal. Of 240 draws of
each super-net's children, on two batches of film reviews: Kendall's tau with exact losses; the share of the exact best
twentieth and tenth that lies in the filter's best tenth; the place of the exact best child in its order (0 is the
first); CPU milliseconds of one child and batch (`walk` and `head` of exact scoring, and the filter's). The reviews are
text that was trained on. Super-nets: the one that is given, and two that are trained here, uniformly, for minutes.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch

from hf_nasbert import scoring
from hf_nasbert.data import DataArguments, MaskedBatches, load_corpus
from hf_nasbert.extraction import load_supernet
from hf_nasbert.metrics import kendall_tau
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.records import versions
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.machine import tune_allocator
from hf_nasbert.writing import write_text

SHARES = (1 / 16, 1 / 8, 1 / 4)


class Filter:
    """The head with the likely words alone, and a normal distribution for the others."""

    def __init__(self, head: scoring._Head, references: list[torch.Tensor], share: float) -> None:
        self.weight, self.bias = head._weight, head._bias
        likely = [torch.softmax(states @ self.weight.T + self.bias, -1).mean(0) for states in references]
        words = torch.stack(likely).amax(0).topk(int(len(self.weight) * share)).indices
        rest = torch.ones(len(self.weight), dtype=torch.bool)
        rest[words] = False
        self.likely, self.likely_exp_bias = self.weight[words].contiguous(), self.bias[words].exp()
        mass, others = self.bias[rest].double().exp(), self.weight[rest].double()
        mean = (mass[:, None] * others).sum(0) / mass.sum()
        self.mass, self.mean = float(mass.sum()), mean.float()
        self.covariance = (((others - mean) * mass[:, None]).T @ (others - mean) / mass.sum()).float()

    def losses(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The cross-entropy at every row, about."""
        normaliser = self.likely_exp_bias @ torch.exp2(self.likely @ (states * scoring._LOG2_E).T)
        spread = ((states @ self.covariance) * states).sum(1)
        normaliser = normaliser + self.mass * torch.exp(states @ self.mean + spread / 2)
        return normaliser.log() - ((states * self.weight[labels]).sum(1) + self.bias[labels])


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


@torch.inference_mode()
def study(supernet: SupernetForMaskedLM, batches: list[dict[str, torch.Tensor]]) -> dict[str, object]:
    """How the filter ranks random children of one super-net."""
    rng, head = random.Random(5), scoring._Head(supernet)
    children = sorted({supernet.space.sample(rng) for _ in range(240)})
    lm_head = supernet.lm_head

    def states_of(rows: torch.Tensor) -> torch.Tensor:
        return lm_head.LayerNorm(lm_head.activation(lm_head.dense(rows)))

    walks = [scoring._Walk(supernet, batch) for batch in batches]
    references = []
    for child in [supernet.space.sample(rng) for _ in range(8)]:
        references.append(states_of(torch.cat([scoring._Walk(supernet, batch).leaf(child) for batch in batches])))
    filters = {share: Filter(head, references, share) for share in SHARES}
    num_labels = sum(len(walk.labels) for walk in walks)
    exact, about = [0.0] * len(children), {share: [0.0] * len(children) for share in SHARES}
    seconds = dict.fromkeys(["walk", "head", *SHARES], 0.0)
    for walk in walks:
        for index, child in enumerate(children):
            start = time.process_time()
            rows = walk.leaf(child)
            walked = time.process_time()
            exact[index] += float(head.losses(rows, walk.labels).double().sum()) / num_labels
            seconds["walk"] += walked - start
            seconds["head"] += time.process_time() - walked
            states = states_of(rows)
            for share, cheap in filters.items():
                start = time.process_time()
                about[share][index] += float(cheap.losses(states, walk.labels).double().sum()) / num_labels
                seconds[share] += time.process_time() - start
    number = len(children)
    order = sorted(range(number), key=exact.__getitem__)
    found: dict[str, object] = {"num_children": number, "num_labels": num_labels, "losses": [min(exact), max(exact)]}
    for share, losses in about.items():
        ranked = sorted(range(number), key=losses.__getitem__)
        tenth = set(ranked[: number // 10])
        found[f"{share} of the words"] = {
            "tau": round(kendall_tau(losses, exact), 3),
            "best_twentieth": round(len(tenth & set(order[: number // 20])) / (number // 20), 2),
            "best_tenth": round(len(tenth & set(order[: number // 10])) / (number // 10), 2),
            "place_of_the_best": ranked.index(order[0]),
        }
    found["milliseconds"] = {str(what): round(1000 * s / number / len(batches), 2) for what, s in seconds.items()}
    return found


def main() -> None:
    """Study three super-nets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", required=True, help="folder of a trained super-net, with its tokenizer")
    parser.add_argument("--json", help="file of the record; by default it is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    corpus = load_corpus(DataArguments(packaged="imdb", max_seq_length=64, tokenizer_name=arguments.supernet))
    held = MaskedBatches(corpus.train, corpus.tokenizer, batch_size=16, seed=99)
    batches = [held.batch(100_000 + number) for number in range(2)]
    operators = ("attention", "ffn", "conv3", "conv5")
    found = {
        "given": study(load_supernet(arguments.supernet), batches),
        "4^6, 300 steps": study(train(corpus, SearchSpace.chain(6, operators), 1, 300), batches),
        "5^4, 600 steps": study(train(corpus, SearchSpace.chain(4, (*operators, "conv7")), 2, 600), batches),
    }
    record = {"benchmark": "scoring_filter", "supernets": found, "versions": versions()}
    if arguments.json:
        write_text(Path(arguments.json), json.dumps(record, indent=1) + "\n")
    else:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
