"""A balanced mixture of super-nets: which of several copies serves which children is learned."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_nasbert.methods.base import FindSplit, Paper, Score, Whole
from hf_nasbert.methods.rows import SizeClasses, by_operator, first_choice, operators_of
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture
from hf_nasbert.space.distribution import softmax

Table = list[list[float]]
_MOST_ROUNDS = 1000  # of the balance, which comes near much sooner


@dataclass(kw_only=True)
class MixtureSettings(UniformSettings):
    """How many super-nets there are, what children they tell apart, and how they are drawn."""

    num_supernets: int = setting(2, "Copies of the choice blocks.", at_least=2)
    mixture_rows: Literal["first_block", "sizes"] = setting(
        "first_block", "What tells children apart: the operator of the first block with a choice, or their size."
    )
    num_size_rows: int = setting(4, "Classes of size, where that tells them apart.", at_least=2)
    mixture_temperature: float = setting(
        10.0, "What the qualities, in nats, are multiplied by before the softmax.", at_least=0
    )
    mixture_balance: float = setting(
        0.01, "The divergence from equal shares, in nats, that super-nets may have.", at_least=1e-6
    )
    mixture_decay: float = setting(0.9, "What of a quality a new one leaves.", at_least=0, below=1)
    mixture_interval: int = setting(10, "Steps between two children that are scored.", at_least=1)


class Mixture(Uniform):
    """Every step draws a child, and one of the super-nets to train it in: with P(m | row) = softmax(T W[row, m]).

    W is a moving average of the quality of the row's children in that super-net: minus the loss on one dev batch, of
    the child that was trained last. An entry that was never scored is as good as the row's mean. P is balanced, so
    that no super-net is left out (`balanced`). In the end, and for whoever scores or saves in between, a row has its
    most probable one. A super-net is a copy of all choice blocks, and has its own moments; embeddings and head are
    shared, and all copies begin alike.
    """

    name = "mixture"
    summary = "uniform, in one of several super-nets: which one is drawn by its quality for such children, balanced"
    paper = Paper(
        "Javan et al. (2023), Balanced Mixture of SuperNets for Learning the CNN Pooling Architecture, AutoML 2023",
        "https://arxiv.org/abs/2306.11982",
    )
    source = "the paper's abstract, a description of its code (nothing taken)"
    unverified = "a row per operator or size; temperature, decay, balance, interval; minus the loss for an accuracy"
    look = ("#F0E442", "h")
    can_be_sharded = False
    Settings = MixtureSettings
    settings: MixtureSettings

    def _prepare(self) -> None:
        space, settings = self.space, self.settings
        self._block = first_choice(space)
        self._operators = operators_of(space, self._block)
        is_by_size = settings.mixture_rows == "sizes"
        self._sizes = SizeClasses(space, self.cost, settings.num_size_rows) if is_by_size else None
        num_rows = settings.num_size_rows if is_by_size else len(self._operators)
        if settings.num_supernets > num_rows:
            raise ValueError(f"num_supernets={settings.num_supernets}: there are {num_rows} rows of children for them")
        self.qualities: list[list[float | None]] = [[None] * settings.num_supernets for _ in range(num_rows)]
        self._drawn = [0] * num_rows
        self._balanced: Table | None = None  # of the qualities of now

    @property
    def passes_per_step(self) -> float:
        """A child's, and the scores."""
        return 3.0 + 1 / self.settings.mixture_interval

    @property
    def num_dev_batches(self) -> int:
        """One."""
        return 1

    @property
    def probabilities(self) -> Table:
        """P(m | row), balanced."""
        if self._balanced is None:
            temperature = self.settings.mixture_temperature
            rows = [softmax([temperature * one for one in _filled(row)]) for row in self.qualities]
            self._balanced = balanced(rows, self.settings.mixture_balance)
        return self._balanced

    def copies(self, *, is_training: bool) -> Copies:
        """The super-nets that were drawn for the rows, or the most probable ones."""
        best = [row.index(max(row)) for row in self.probabilities]
        owners, number = self._drawn if is_training else best, self.settings.num_supernets
        if self._sizes is not None:
            return self._sizes.copies(owners, number)
        return by_operator(self.space, self._block, owners, number)

    def before_step(self, step: int, find_split: FindSplit) -> bool:
        """Draw a super-net for every row."""
        rng = random.Random(f"mixture {self.sampler.seed} {step}")
        self._drawn = [rng.choices(range(len(row)), row)[0] for row in self.probabilities]
        return False

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Score the child in the super-net that trained it."""
        super().after_step(step, children, losses, score, supernet)
        if step % self.settings.mixture_interval == 0:
            child = children[-1]
            row = self._row_of(child)
            number = self._drawn[row]
            quality, known, kept = -score([child], 1)[0], self.qualities[row][number], self.settings.mixture_decay
            self.qualities[row][number] = quality if known is None else kept * known + (1 - kept) * quality
            self._balanced = None
        return None

    def _row_of(self, child: Architecture) -> int:
        if self._sizes is not None:
            return self._sizes.class_of(child)
        return self._operators.index(child[self._block])

    def state_dict(self) -> dict[str, Any]:
        """The sampler's, and the qualities."""
        return super().state_dict() | {"qualities": [list(row) for row in self.qualities]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with these qualities."""
        rows = [[None if one is None else float(one) for one in row] for row in state["qualities"]]
        if list(map(len, rows)) != list(map(len, self.qualities)):
            raise ValueError(f"the qualities are of {len(rows)} rows, expected {len(self.qualities)}")
        super().load_state_dict(state)
        self.qualities, self._balanced = rows, None


def _filled(row: Sequence[float | None]) -> list[float]:
    """A row in which what is not known is the mean of what is."""
    known = [one for one in row if one is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [mean if one is None else one for one in row]


def balanced(rows: Sequence[Sequence[float]], tolerance: float) -> Table:
    """Probabilities whose columns have like means: divided by them, row by row made to sum to one, and again.

    Args:
        rows: Positive numbers.
        tolerance: The divergence of the columns' means from equal ones, in nats, at which it ends.
    """
    found, number = [list(row) for row in rows], len(rows[0])
    for _ in range(_MOST_ROUNDS):
        means = [sum(column) / len(found) for column in zip(*found, strict=True)]
        if sum(mean * math.log(mean * number) for mean in means if mean > 0) <= tolerance:
            break
        scaled = [[one / max(mean, 1e-300) for one, mean in zip(row, means, strict=True)] for row in found]
        found = [[one / sum(row) for one in row] for row in scaled]
    return found
