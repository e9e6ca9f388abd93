"""What every variant costs alone: the base model with one block, or one whole layer, replaced; and sums of that."""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel

from hf_nasbert import metrics
from hf_nasbert.compression.sentences import Batch
from hf_nasbert.costs import Cost
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.elastic.scores import score_children
from hf_nasbert.searching.knapsack import Item
from hf_nasbert.space import SKIP, Architecture, SearchSpace

_LAYER = 2  # blocks: an attention and an ffn


@dataclass(frozen=True)
class Replacement:
    """Operators in place of some of the base model's.

    Args:
        first_block: The first block that is replaced.
        operators: What stands there and in the blocks after it.
        loss: The distance of the model so made from the base model; 0 for what is its own.
    """

    first_block: int
    operators: tuple[str, ...]
    loss: float

    def put_into(self, architecture: Sequence[str]) -> Architecture:
        """An architecture with these operators in their place."""
        end = self.first_block + len(self.operators)
        return Architecture([*architecture[: self.first_block], *self.operators, *architecture[end:]])


def places(space: SearchSpace, full: Architecture) -> list[tuple[int, tuple[str, ...]]]:
    """All that can be replaced alone: every candidate of every block, and every whole layer skipped.

    Args:
        space: The elastic space.
        full: The base model in it: attention and ffn in turn.

    Returns:
        First blocks and operators; those of the base model are among them.
    """
    found: list[tuple[int, tuple[str, ...]]] = []
    for block, candidates in enumerate(space.blocks):
        found += [(block, (full[block],)), *((block, (name,)) for name in candidates if name != full[block])]
    for first in range(0, len(full) - 1, _LAYER):
        if all(SKIP in space.blocks[block] for block in range(first, first + _LAYER)):
            found.append((first, (SKIP,) * _LAYER))
    return found


def replace_one(
    supernet: PreTrainedModel,
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    *,
    bf16: bool = False,
    kept: str | Path | None = None,
    progress: bool = False,
    processes: PartialState | None = None,
) -> list[Replacement]:
    """Score the base model with each of its parts replaced alone; arguments are those of `score_children`.

    The loss of the unchanged model, which is rounding, is subtracted.
    """
    encoder = encoder_of(supernet).encoder
    full = encoder.largest_architecture
    asked = [Replacement(first, operators, 0.0) for first, operators in places(encoder.space, full)]
    children = [full, *(one.put_into(full) for one in asked)]
    scores = score_children(
        supernet, children, batches, targets, distance, bf16=bf16, kept=kept, progress=progress, processes=processes
    )
    base = scores[0].loss
    return [
        Replacement(one.first_block, one.operators, score.loss - base)
        for one, score in zip(asked, scores[1:], strict=True)
    ]


def screened(space: SearchSpace, replacements: Sequence[Replacement], full: Architecture, most: float) -> SearchSpace:
    """The space without the variants whose lone replacement costs more than `most`; the base model's own stay.

    A skip stays where the whole layer around it may be skipped for that.
    """
    kept: list[set[str]] = [{name} for name in full]
    for one in replacements:
        if one.loss <= most:
            for block, name in enumerate(one.operators, one.first_block):
                kept[block].add(name)
    blocks = [",".join(name for name in names if name in kept[block]) for block, names in enumerate(space.blocks)]
    return SearchSpace.of_blocks(blocks, skip="anywhere")


def sum_of(replacements: Sequence[Replacement], architecture: Sequence[str]) -> float:
    """What a child costs if replacements add up: the least sum of replacements that make it.

    Raises:
        ValueError: If a block holds what no replacement puts there.
    """
    least = [0.0] + [math.inf] * len(architecture)
    for end in range(1, len(architecture) + 1):
        for one in replacements:
            first = end - len(one.operators)
            if first == one.first_block and tuple(architecture[first:end]) == one.operators:
                least[end] = min(least[end], least[first] + one.loss)
        if math.isinf(least[end]):
            raise ValueError(f"no replacement puts {architecture[end - 1]!r} into block {end - 1}")
    return least[-1]


@dataclass(frozen=True)
class Additivity:
    """How well sums of lone replacements predict what random children of a space are worth.

    Args:
        num_children: Of the space.
        tau: Kendall's rank correlation of sums and real distances; None where all of one of them are equal.
        ratio: The median of real distance over sum.
        error: The median relative error of the sums.
        sums: The sums of the children that were drawn.
        losses: Their real distances.
    """

    num_children: int
    tau: float | None
    ratio: float
    error: float
    sums: list[float]
    losses: list[float]


def additivity(
    space: SearchSpace, replacements: Sequence[Replacement], score: Callable[..., list[float]], num_drawn: int
) -> Additivity:
    """Hold the sums of lone replacements against the real distances of random children.

    Args:
        space: Whose children are drawn.
        replacements: As `replace_one` gives them.
        score: Distances of children (`Scorer`), on the text that the replacements were scored on.
        num_drawn: How many children are drawn.

    Raises:
        ValueError: If the space has a variant that no replacement is of.
    """
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(num_drawn)]
    sums = [sum_of(replacements, child) for child in drawn]
    losses = score(drawn)
    compared = [(real, told) for real, told in zip(losses, sums, strict=True) if real > 0 and told > 0]
    return Additivity(
        space.num_children, metrics.kendall_tau(sums, losses) if min(len(set(sums)), len(set(losses))) > 1 else None,
        statistics.median(real / told for real, told in compared) if compared else 1.0,
        statistics.median(abs(told - real) / real for real, told in compared) if compared else 0.0,
        sums, losses,
    )  # fmt: skip


def as_items(
    replacements: Sequence[Replacement],
    full: Sequence[str],
    cost: Callable[[Architecture], Cost],
    caps: Mapping[str, float],
) -> tuple[list[Item], dict[str, float]]:
    """Replacements as a knapsack's items, with what each saves of the base model's costs.

    The peak of memory is no sum: a replacement whose own block is above that cap is left out instead.

    Args:
        replacements: As `replace_one` gives them.
        full: The base model's architecture.
        cost: Costs of a child.
        caps: The caps, of which a peak's is heeded here.

    Returns:
        Items for `best_choices`, and what it takes as `fixed`: the base model's own costs.
    """
    whole = cost(Architecture(full))
    peak = "peak_activation_bytes"
    items = []
    for one in replacements:
        if peak in caps:
            alone = one.put_into((SKIP,) * len(full))
            if cost(alone)[peak] > caps[peak]:
                continue
        costs = cost(one.put_into(full))
        saved = {name: costs[name] - whole[name] for name in costs if name != peak}
        items.append(Item(one.first_block, one.operators, one.loss, saved))
    return items, {name: value for name, value in whole.items() if name != peak}


def as_record(replacements: Sequence[Replacement]) -> list[dict[str, Any]]:
    """Replacements as plain JSON."""
    return [
        {"first_block": one.first_block, "operators": list(one.operators), "loss": one.loss} for one in replacements
    ]
