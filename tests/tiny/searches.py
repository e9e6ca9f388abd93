"""Searches of a space of 120 children under made-up losses: how they are made, and run to their end."""

import functools
import itertools
import random
from types import SimpleNamespace

from hf_nasbert.costs import LatencyTable, cost_function
from hf_nasbert.searching import SearchTask
from hf_nasbert.space import SearchSpace

OPERATORS = ("attention", "ffn", "conv3", "skip")
CHAIN = SearchSpace.chain(num_choice_blocks=4, operators=OPERATORS)  # 120 children
STAGED = SearchSpace.staged(num_stages=2, blocks_per_stage=2, operators=OPERATORS, widths=(32, 64))


@functools.cache
def cost_of(space, hidden_size=64, latency=False):
    """The real arithmetic on a stand-in for a config; latencies of a made-up table, where ffn is large but fast."""
    config = SimpleNamespace(
        search_space=space.to_dict(), hidden_size=hidden_size, embedding_size=16, vocab_size=50, ffn_ratio=4,
        num_conv_layers=2, max_position_embeddings=32, type_vocab_size=2, tie_word_embeddings=True,
    )  # fmt: skip
    times = {"attention": 5.0, "ffn": 1.0, "conv3": 3.0}
    operators_ms = {f"{kind}@{width}": ms * width / 64 for kind, ms in times.items() for width in (32, 64)}
    table = LatencyTable(operators_ms | {"skip": 0.0}, {"64->32": 0.5, "32->64": 0.25}, 2.0, setting={}, sizes={})
    return functools.cache(cost_function(config, sequence_length=32, latency=table if latency else None))


@functools.cache
def draw(key):
    return random.Random(key).random()


def score(children, num_batches=None):
    """A fixed made-up loss with interactions between neighbouring blocks, the same on any part of the dev batches."""
    return [
        sum(draw(f"{i}{name}") for i, name in enumerate(child))
        + sum(draw(f"{i}{a}{b}") for i, (a, b) in enumerate(itertools.pairwise(child)))
        for child in children
    ]


TASK = {"seed", "cost", "budget", "batch_size"}


def new(kind, space, **keywords):
    """A search of some kind: what belongs to its task, and its own options."""
    task = SearchTask(space, **{name: value for name, value in keywords.items() if name in TASK})
    return kind(task, **{name: value for name, value in keywords.items() if name not in TASK})


def drain(search, num_batches=10_000, score=score):
    """Ask and tell until nothing is left; every child asked, in order, with the dev batches it was asked on."""
    asked = []
    for _ in range(num_batches):
        children = search.ask()
        if not children:
            break
        asked += [(child, search.num_batches) for child in children]
        part = {} if search.num_batches is None else {"num_batches": search.num_batches}
        search.tell(children, score(children, **part), **part)
    return asked
