"""Few-shot super-nets: from one step on copies of the super-net, each with a part of one block's operators."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_nasbert.methods.base import FindSplit, Paper, RunKind, Score, Whole
from hf_nasbert.methods.rows import by_operator, first_choice, operators_of
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.modeling.geometry_nasbert import operator_width
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, settings_of_blocks

_SPLIT = re.compile(r"first_block|gradients|block:([0-9]{1,4})")
_GRADIENTS = "gradients"


@dataclass(kw_only=True)
class FewShotSettings(UniformSettings):
    """Which block is split, when, and into how many parts.

    Raises:
        ValueError: If the block is not named so, or a number lies outside its range.
    """

    split: str = setting(
        "first_block",
        "Whose operators the copies share out: first_block, the first one with a choice; block:N, from 0; gradients: "
        "the block and the two halves whose gradients differ most (GM-NAS).",
    )
    split_at: float = setting(0.5, "The share of max_steps that comes before the split.", at_least=0, at_most=1)
    split_parts: int = setting(
        0,
        "Copies. 0: one for each operator of the block; by gradients two. Fewer: neighbours in the list of "
        "candidates are together.",
        at_least=0,
    )
    split_settings: int = setting(
        20, "By gradients: random children in which all candidates of all blocks are tried.", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.split, str) or _SPLIT.fullmatch(self.split) is None:
            raise ValueError(f"split={self.split!r}: expected first_block, gradients, or block:N")
        if self.split_parts == 1 or (self.split == _GRADIENTS and self.split_parts not in (0, 2)):
            few = "two parts by gradients" if self.split == _GRADIENTS else "at least 2 parts"
            raise ValueError(f"split_parts={self.split_parts}: expected {few}, or 0")


class FewShot(Uniform):
    """Trains as uniform does; from a step on a child is trained in, and scored by, the copy that owns its operator.

    At that step all copies are the super-net that there is, with its moments. A copy is one of all choice blocks;
    embeddings and head stay shared. Children are drawn uniformly before and after, so copies share out the steps that
    are left, where Few-Shot NAS gives each of them a training of its own: runs are compared at equal compute. By
    gradients (Hu et al., 2022, GM-NAS, https://arxiv.org/abs/2203.15207) the block is that whose two halves of
    candidates differ most in what they do to all other weights; it is measured on the dev batches, and there is one
    split.
    """

    name = "few_shot"
    summary = "uniform; half-way copies of the super-net, each with a part of one block's operators (Few-Shot, GM-NAS)"
    paper = Paper(
        "Zhao et al. (2021), Few-Shot Neural Architecture Search, ICML 2021", "https://arxiv.org/abs/2006.06863"
    )
    source = "the authors' README (no licence, nothing taken); the split in the code of GM-NAS (MIT, nothing taken)"
    unverified = "embeddings and head stay shared; moments are copied; the remaining steps are shared out; one split"
    look = ("#D55E00", "d")
    can_be_sharded = False
    Settings = FewShotSettings
    settings: FewShotSettings

    def _prepare(self) -> None:
        space, settings, max_steps = self.space, self.settings, self.max_steps
        self.split_step = round(settings.split_at * max_steps)
        if self.split_step >= max_steps:
            raise ValueError(
                f"split_at={settings.split_at} leaves no step of {max_steps} after the split: expected less, or "
                "method=uniform"
            )
        if self.split_step == 0 and settings.split == _GRADIENTS:
            raise ValueError(
                f"split_at={settings.split_at} leaves no step of {max_steps} before the split: expected more, for "
                "gradients of random weights say nothing"
            )
        self.block = first_choice(space)
        self.parts: tuple[tuple[str, ...], ...] = ()
        """The operators of each copy; empty before the split."""
        self._is_told = True
        number = _SPLIT.fullmatch(settings.split)[1]  # type: ignore[index]  # its settings were checked
        if number is not None:
            self.block = int(number)
            if self.block >= space.num_choice_blocks or len(operators_of(space, self.block)) < 2:
                raise ValueError(f"split={settings.split}: the space has no such block with a choice")
        names = operators_of(space, self.block)
        self.num_copies = settings.split_parts or len(names)
        if settings.split == _GRADIENTS:
            self.num_copies = 2
            widths = [{operator_width(name) for name in of_block if name != SKIP} for of_block in space.blocks]
            if all(len(of_block) > 1 for of_block in widths):
                raise ValueError("split=gradients compares operators of one width: every block has several")
        elif self.num_copies > len(names):
            raise ValueError(f"split_parts={self.num_copies}: block {self.block} has {len(names)} operators")

    @property
    def passes_per_step(self) -> float:
        """A child's; by gradients, all that are compared beside."""
        if self.settings.split != _GRADIENTS:
            return 3.0
        settings = settings_of_blocks(self.space, self.settings.split_settings, self.sampler.seed)
        number = sum(1 + sum(len(names) - 1 for names in choices) for _, choices in settings)
        return 3.0 * (1 + number / self.max_steps)

    @property
    def num_dev_batches(self) -> int:
        """One at least, where gradients are compared on them."""
        return int(self.settings.split == _GRADIENTS)

    def check_run(self, run: RunKind) -> None:
        """Refuse gradients of a loss that is not the one of the training."""
        super().check_run(run)
        if run.is_taught and self.settings.split == _GRADIENTS:
            raise ValueError(
                "split=gradients compares gradients of the loss by masked words, and here a teacher teaches: give "
                "teacher=none, or another split"
            )

    def copies(self, *, is_training: bool) -> Copies:
        """All children's is the first copy before the split, and then that with their operator in the block."""
        names = operators_of(self.space, self.block)
        owners = [next((place for place, part in enumerate(self.parts) if name in part), 0) for name in names]
        return by_operator(self.space, self.block, owners, self.num_copies)

    def before_step(self, step: int, find_split: FindSplit) -> bool:
        """Split at the step."""
        if step < self.split_step or self.parts:
            return False
        if self.settings.split == _GRADIENTS:
            self.block, self.parts = find_split(self.settings.split_settings, self.sampler.seed)
        else:
            names, number = operators_of(self.space, self.block), self.num_copies
            borders = [len(names) * place // number for place in range(number + 1)]
            self.parts = tuple(names[borders[place] : borders[place + 1]] for place in range(number))
        self._is_told = False
        return True

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """The first step after the split says what it was."""
        super().after_step(step, children, losses, score, supernet)
        if self._is_told:
            return None
        self._is_told = True
        return {"event": "split", "block": self.block, "parts": [list(part) for part in self.parts]}

    def shown(self) -> dict[str, str]:
        """The parts, once they are there."""
        return {"split": f"block {self.block}: {' | '.join(map(','.join, self.parts))}"} if self.parts else {}

    def state_dict(self) -> dict[str, Any]:
        """The sampler's, and the split."""
        return super().state_dict() | {"block": self.block, "parts": [list(part) for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the split that was made."""
        block, parts = state["block"], tuple(map(tuple, state["parts"]))
        given = sorted(name for part in parts for name in part)
        if parts and (len(parts) != self.num_copies or given != sorted(operators_of(self.space, block))):
            raise ValueError(f"a split of block {block} into {parts!r:.200} is none of {self.num_copies} parts")
        super().load_state_dict(state)
        self.block, self.parts = block, parts
