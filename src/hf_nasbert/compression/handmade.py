"""What people choose by hand, to hold a searched child against: whole layers, every other layer, one uniform width.

The best subset of layers is found without training, among all of them where they are few, else by leaving out one
layer after the other from the best few.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hf_nasbert.compression.choosing import LATENCY
from hf_nasbert.costs import Cost, in_digits
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.elastic.scores import Scorer
from hf_nasbert.space import SKIP, Architecture, SearchSpace, operator_kind

# What is made by hand hits no budget exactly: of a width biases and norms stay whole, and of six layers three take 51
# percent of the time, embeddings included. It may be above a cap by so much, and the table says where it is.
_SLACK, _SLACK_OF_LATENCY = 1.01, 1.05
_LAYER = 2  # blocks
_MOST_SUBSETS = 256
_BEAM = 8

CostOf = Callable[[Architecture], Cost]


@dataclass(frozen=True)
class Handmade:
    """A child that somebody could have chosen by hand.

    Args:
        how: `layers 0 4 5`, `every other layer`, `uniform attention6 ffn768`.
        architecture: The child.
        loss: Its distance from the base model without training.
        num_scored: Among how many it is the best.
    """

    how: str
    architecture: Architecture
    loss: float
    num_scored: int


def with_slack(caps: Mapping[str, float]) -> dict[str, float]:
    """The caps that hold for what is made by hand: a percent above those of a budget, of a latency five."""
    return {name: (_SLACK_OF_LATENCY if name == LATENCY else _SLACK) * cap for name, cap in caps.items()}


def with_layers(full: Architecture, layers: Sequence[int]) -> Architecture:
    """The base model with these layers only; all others are skipped whole."""
    return Architecture(name if block // _LAYER in set(layers) else SKIP for block, name in enumerate(full))


def every_other(num_layers: int, num_kept: int) -> list[int]:
    """Layers spread evenly from the first one on: 0, 2, 4 of six.

    >>> every_other(6, 3), every_other(12, 4), every_other(6, 4)
    ([0, 2, 4], [0, 3, 6, 9], [0, 1, 3, 4])
    """
    return [number * num_layers // num_kept for number in range(num_kept)]


def most_layers(full: Architecture, cost: CostOf, caps: Mapping[str, float]) -> int:
    """How many whole layers fit within the caps; all layers cost the same.

    Raises:
        ValueError: If not even one does.
    """
    num_layers = len(full) // _LAYER
    for number in range(num_layers, 0, -1):
        found = cost(with_layers(full, range(number)))
        if all(found[name] <= cap for name, cap in caps.items()):
            return number
    raise ValueError(f"not even one whole layer is within {_told(caps)}")


def _told(caps: Mapping[str, float]) -> str:
    return ", ".join(f"a {name} of {in_digits(cap)}" for name, cap in caps.items())


def best_layers(scorer: Scorer, num_kept: int) -> Handmade:
    """The subset of layers that is nearest to the base model without training.

    Raises:
        ValueError: If a layer cannot be skipped in the super-net's space, or there are not that many layers.
    """
    full = encoder_of(scorer.supernet).encoder.largest_architecture
    num_layers = len(full) // _LAYER
    if not 0 < num_kept <= num_layers:
        raise ValueError(f"cannot keep {num_kept} of {num_layers} layers")
    if math.comb(num_layers, num_kept) <= _MOST_SUBSETS:
        subsets = list(itertools.combinations(range(num_layers), num_kept))
        losses = scorer([with_layers(full, subset) for subset in subsets], kept_as=f"layers-{num_kept}")
        num_scored = len(subsets)
    else:
        subsets, losses, num_scored = [tuple(range(num_layers))], [0.0], 0
        for size in range(num_layers - 1, num_kept - 1, -1):
            ranked = [subset for _, subset in sorted(zip(losses, subsets, strict=True))][:_BEAM]
            subsets = sorted({part for subset in ranked for part in itertools.combinations(subset, size)})
            losses = scorer([with_layers(full, subset) for subset in subsets], kept_as=f"layers-{num_kept}-of-{size}")
            num_scored += len(subsets)
    loss, subset = min(zip(losses, subsets, strict=True))
    return Handmade(f"layers {' '.join(map(str, subset))}", with_layers(full, subset), loss, num_scored)


def every_other_layer(scorer: Scorer, num_kept: int) -> Handmade:
    """Evenly spaced layers, as most tools keep them."""
    full = encoder_of(scorer.supernet).encoder.largest_architecture
    child = with_layers(full, every_other(len(full) // _LAYER, num_kept))
    return Handmade("every other layer", child, scorer([child], kept_as=f"every-other-{num_kept}")[0], 1)


def uniform_widths(
    space: SearchSpace, full: Architecture, cost: CostOf, caps: Mapping[str, float]
) -> list[Architecture]:
    """Children of one attention and one ffn throughout that are within the caps, the largest ones only.

    A pair is left out where another that fits has both as costly and one costlier (by parameters).
    """
    pairs = []
    for names in itertools.product(*map(_real, (space.blocks[0], space.blocks[1]))):
        child = Architecture(names * (len(full) // _LAYER))
        if child in space:
            found = cost(child)
            if all(found[name] <= cap for name, cap in caps.items()):
                parts = [cost(with_one)["num_parameters"] for with_one in _each_alone(full, names)]
                pairs.append((parts, child))
    return [
        child
        for parts, child in pairs
        if not any(
            others != parts and all(other >= own for other, own in zip(others, parts, strict=True))
            for others, _ in pairs
        )
    ]


def _real(candidates: Sequence[str]) -> list[str]:
    return [name for name in candidates if operator_kind(name) in ("attention", "ffn")]


def _each_alone(full: Architecture, names: Sequence[str]) -> list[Architecture]:
    return [Architecture([*full[:block], name, *full[block + 1 :]]) for block, name in enumerate(names)]


def best_uniform(scorer: Scorer, cost: CostOf, caps: Mapping[str, float]) -> Handmade:
    """The best child of one width throughout within the caps, by its loss without training.

    Raises:
        ValueError: If none is within them.
    """
    encoder = encoder_of(scorer.supernet).encoder
    children = uniform_widths(encoder.space, encoder.largest_architecture, cost, caps)
    if not children:
        raise ValueError(f"no uniform width of the space is within {_told(caps)}")
    named = "-".join(f"{name}-{float(cap)!r}" for name, cap in sorted(caps.items()))  # no two budgets share a file
    losses = scorer(children, kept_as=f"uniform-{named}")
    loss, child = min(zip(losses, children, strict=True))
    return Handmade(f"uniform {' '.join(child[:_LAYER])}", child, loss, len(children))
