"""A learned distribution over children: a categorical for every choice block, moved towards the better children."""

import math
import random
from collections.abc import Sequence

from hf_nasbert.space.architecture import Architecture
from hf_nasbert.space.candidates import Candidates
from hf_nasbert.space.search_space import SearchSpace


class Distribution:
    """Draws block after block, each from a softmax over what it may hold after the blocks before it.

    So every draw is a child. In PARSEC (Casale et al., 2019) nothing restricts what may follow.

    Args:
        space: The children.
        logits: Of every block, by the operators' names; by default all alike.
    """

    def __init__(self, space: Candidates, logits: list[dict[str, float]] | None = None) -> None:
        self.space = space
        self.logits = [dict.fromkeys(names, 0.0) for names in space.blocks] if logits is None else logits
        self._known: dict[tuple[int, tuple[str, ...]], dict[str, float]] = {}  # until the next step

    def probabilities(self, before: Sequence[str]) -> dict[str, float]:
        """Of the operators of the block after these."""
        block, space = len(before), self.space
        if isinstance(space, SearchSpace):
            number = space.stage_of(block)
            names = space.stages[number].continuations(before[space.stage_slices[number].start :])
        else:  # few children, listed
            names = tuple(dict.fromkeys(c[block] for c in space.enumerate() if c[:block] == tuple(before)))
        if (block, names) not in self._known:
            shares = softmax([self.logits[block][name] for name in names])
            self._known[block, names] = dict(zip(names, shares, strict=True))
        return self._known[block, names]

    def draw(self, rng: random.Random | None = None) -> Architecture:
        """One child; without a generator that of the likeliest operators, block after block."""
        names: list[str] = []
        while len(names) < len(self.logits):
            of = self.probabilities(names)
            names += [max(of, key=of.__getitem__)] if rng is None else rng.choices([*of], [*of.values()])
        return Architecture(names)

    def entropy_share(self) -> float:
        """The entropy of the blocks' own categoricals, added up, as a share of the largest that it can be."""
        entropy = -sum(p * math.log(p) for logits in self.logits for p in softmax([*logits.values()]) if p)
        return entropy / (sum(math.log(len(logits)) for logits in self.logits) or 1.0)

    def learn(
        self, children: Sequence[Architecture], losses: Sequence[float], temperature: float, rate: float
    ) -> None:
        """Move towards those of K drawn children that do better than the others, by their losses.

        The logits climb by `rate` times sum_k (omega_k - 1/K) grad log p(child_k), omega = softmax(-loss /
        temperature): PARSEC's step less the weights' mean, which changes no expectation; equal losses move nothing.
        """
        weights = softmax([-loss / temperature for loss in losses])
        gradients = [
            (block, self.probabilities(child[:block]), name, weights[place] - 1 / len(children))
            for place, child in enumerate(children)
            for block, name in enumerate(child)
        ]
        for block, of, chosen, weight in gradients:
            for name, probability in of.items():
                self.logits[block][name] += rate * weight * ((name == chosen) - probability)
        self._known.clear()


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities that are proportional to the exponentials of numbers."""
    most = max(logits)
    powers = [math.exp(logit - most) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]
