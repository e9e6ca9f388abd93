"""MAGIC: neighbouring steps that differ in one operator (T), children aligned to an anchor (A), or both (AT).

Xu et al., Analyzing and Mitigating Interference in Neural Architecture Search, ICML 2022.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_nasbert.methods.base import (
    ChildRun,
    MethodSettings,
    Paper,
    RunKind,
    Score,
    StepContext,
    TrainingMethod,
    Wants,
    Whole,
)
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.samplers import GradualSampler
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import torch

_PAPER = Paper(
    "Xu et al. (2022), Analyzing and Mitigating Interference in Neural Architecture Search, ICML 2022",
    "https://arxiv.org/abs/2108.12821",
)
_BASE_MODEL = "base_model"
_SMALLEST = 1e-6  # variance of a state's number
_HISTORY = 1000  # replacements kept in memory and checkpoints; the log has them all


@dataclass(kw_only=True)
class GradualSettings(MethodSettings):
    """How far a child is from the one before."""

    num_changes: int = setting(1, "Choice blocks that change between two steps; the paper's is 1.", at_least=1)


class MagicT(TrainingMethod):
    """One child a step, which differs from the one before in one operator (MAGIC-T)."""

    name = "magic_t"
    summary = "one child a step, one operator changes between steps (MAGIC-T)"
    paper = _PAPER
    source = "paper's abstract, sources that quote its body; no official code is known"
    unverified = "which block changes, and to what: drawn uniformly"
    look = ("#0072B2", "^")
    sampler_class = GradualSampler
    Settings: ClassVar[type[MethodSettings]] = GradualSettings

    def make_sampler(self, seed: int) -> GradualSampler:
        """A walk of `num_changes` a step."""
        return GradualSampler(self.space, seed=seed, num_changes=self.settings.num_changes)


@dataclass(kw_only=True)
class AlignmentSettings(MethodSettings):
    """How children are aligned to the anchor, and when the anchor is replaced.

    Raises:
        ValueError: If a number lies outside its range.
    """

    retired = {"alignment_layers": "all", "alignment_normalize": False, "alignment_detach": True}

    alignment_weight: float = setting(
        0.5, "Lambda of MAGIC-A. 0.5 is ours: the paper's value could not be verified.", at_least=0
    )
    alignment_rows: float = setting(
        0.5,
        "Share of the sequences that are aligned, evenly spread: the same mean for less time. 1.0 is the paper's way, "
        "and ranked children no better (docs/speed.md).",
        above=0,
        at_most=1,
    )
    alignment_start: float = setting(
        0.0,
        "Share of max_steps before alignment begins. Early alignment can collapse all token states; if it does, "
        "start after the warm-up.",
        at_least=0,
        below=1,
    )
    anchor: str | None = setting(
        None,
        "First anchor, such as attention-ffn-conv3; by default the first child drawn. base_model: always the encoder "
        "that the super-net was made of.",
    )
    anchor_interval: int = setting(
        25,
        "Steps between two comparisons of anchor and child on dev batches. The paper compares after every step; a "
        "comparison costs about a step, so they are spread out.",
        at_least=1,
    )
    anchor_dev_batches: int = setting(2, "Dev batches that a comparison uses, always the first ones.", at_least=1)


@dataclass(kw_only=True)
class MagicASettings(AlignmentSettings, UniformSettings):
    """Settings of MAGIC-A on uniformly drawn children."""


@dataclass(kw_only=True)
class MagicATSettings(AlignmentSettings, GradualSettings):
    """Settings of MAGIC-A on a walk."""


class Aligned(TrainingMethod):
    """One child a step, every block's output pulled to those of the anchor, the best child so far.

    After a child was trained it takes the anchor's place if it is better on the dev set; both are scored with the
    weights of that moment, as the anchor's move too. The paper compares dev accuracy after every step; here masked-LM
    loss (finer on few batches) every `anchor_interval` steps. The first anchor, which the paper leaves open, is the
    first child drawn.

    The anchor may be the base model of the super-net instead: it does well from the first step on, which is what the
    paper presumes. It is never replaced. States are then compared relatively to their variance under it, block by
    block, so that a super-net whose states all become equal pays for it; that is ours.
    """

    terms: ClassVar[tuple[str, ...]] = ("alignment",)

    def _prepare(self) -> None:
        first = self.settings.anchor
        self.anchor = None if first in (None, _BASE_MODEL) else self.space.validate(Architecture.parse(first))
        self.history: list[dict[str, Any]] = []

    @property
    def passes_per_step(self) -> float:
        """The child's three, the anchor's one where it is aligned, and the comparisons on dev batches."""
        aligned: float = self.settings.alignment_rows * (1 - self.settings.alignment_start)
        return 3.0 + aligned + 2 * self.num_dev_batches / int(self.settings.anchor_interval)

    def check_run(self, run: RunKind) -> None:
        """An anchor that is the base model has to be there."""
        super().check_run(run)
        if self.needs_base_model and not run.has_base_model:
            raise ValueError(
                f"method={self.name} aligns children to the base model that the super-net was made of, and "
                "there is none: give base_model, or another anchor"
            )

    @property
    def needs_base_model(self) -> bool:
        """Whether it is the anchor."""
        return bool(self.settings.anchor == _BASE_MODEL)

    @property
    def num_dev_batches(self) -> int:
        """Dev batches on which anchor and child are compared; the base model stays the anchor."""
        return 0 if self.needs_base_model else int(self.settings.anchor_dev_batches)

    def children(self) -> tuple[Architecture, ...]:
        """The next child; the first one is the first anchor, if none was given."""
        children = super().children()
        if self.anchor is None and not self.needs_base_model:
            self.anchor = children[0]
        return children

    def wants(self, step: int) -> Wants:
        """The block outputs, as soon as alignment has begun."""
        return Wants(hidden_states=step >= self.settings.alignment_start * self.max_steps)

    def chosen_rows(self, num_rows: int) -> "torch.Tensor | None":
        """The rows to align: evenly spread, at least one.

        The data is shuffled, so fixed places are a fair sample, and the same rows whatever the number of processes.
        """
        import torch

        if self.settings.alignment_rows == 1:
            return None
        upto = torch.arange(num_rows + 1, dtype=torch.float64).mul(self.settings.alignment_rows).ceil()
        return upto.diff() > 0

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The masked-LM loss and `alignment_weight` times the distance of the block outputs from the anchor's."""
        from hf_nasbert.objectives import alignment_loss
        from hf_nasbert.teachers import aligned_states

        nothing = run.loss.new_zeros(())
        if self.needs_base_model and run.hidden_states is not None:
            return self._aligned_to_base_model(run, run.hidden_states, context)
        # Aligned to itself a child has loss zero.
        if run.hidden_states is None or self.anchor is None or self.anchor == run.architecture:
            return run.loss, (nothing,)
        num_rows = context.num_chosen
        if num_rows == 0:
            if not context.is_sharded:
                return run.loss, (nothing,)
            num_rows = 1  # all processes gather the anchor's operators together; nothing is added up of it
        states = aligned_states(
            context.supernet,
            run.architecture,
            self.anchor,
            run.hidden_states,
            context.input_ids,
            context.attention_mask,
            context.labels,
            num_rows=num_rows,
        )
        alignment = alignment_loss(
            states.child,
            states.teacher,
            states.padding_mask,
            positions=states.positions,
            num_tokens=context.counts.chosen_tokens,
            num_positions=context.counts.chosen_labelled,
        )
        if context.num_chosen == 0:
            alignment = alignment * 0
        return run.loss + self.settings.alignment_weight * alignment, (alignment,)

    def _aligned_to_base_model(
        self, run: ChildRun, hidden_states: "Sequence[torch.Tensor]", context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The loss, and the relative error of the block outputs against the base model's after the same blocks."""
        from hf_nasbert.objectives import alignment_loss

        lesson, num_rows = context.base_model, context.num_chosen
        if lesson is None:
            raise ValueError(f"anchor={_BASE_MODEL} needs the base model that the super-net was made of")
        if num_rows == 0:
            return run.loss, (run.loss.new_zeros(()),)
        labels = context.labels[:num_rows]
        positions = (labels.flatten() != -100).nonzero().squeeze(-1)  # (N,)
        child = [one[: num_rows if one.dim() == 3 else len(positions)] for one in hidden_states[1:]]
        mask, variances = context.attention_mask, lesson.spread.variances[1:]
        alignment = alignment_loss(
            child,
            lesson.states(num_rows)[1:],
            None if mask is None else mask[:num_rows],
            positions=positions,
            scales=[variance / child[0].shape[-1] + _SMALLEST for variance in variances],
            num_tokens=context.counts.chosen_tokens,
            num_positions=context.counts.chosen_labelled,
        )
        return run.loss + self.settings.alignment_weight * alignment, (alignment,)

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Let the last child take the anchor's place if it is better, when a comparison is due."""
        super().after_step(step, children, losses, score, supernet)
        child, anchor = children[-1], self.anchor
        if step % self.settings.anchor_interval or child == anchor or anchor is None:
            return None
        child_loss, anchor_loss = score([child, anchor], self.settings.anchor_dev_batches)
        if not child_loss < anchor_loss:
            return None
        event = {
            "step": step,
            "architecture": str(child),
            "loss": child_loss,
            "previous": str(anchor),
            "previous_loss": anchor_loss,
        }
        self.anchor = child
        self.history = [*self.history, event][-_HISTORY:]
        return {"event": "anchor", **event}

    def shown(self) -> dict[str, str]:
        """The anchor."""
        if self.needs_base_model:
            return {"anchor": _BASE_MODEL}
        return {} if self.anchor is None else {"anchor": str(self.anchor)}

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state, the anchor and how it came about."""
        anchor = None if self.anchor is None else str(self.anchor)
        return super().state_dict() | {"anchor": anchor, "history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` described."""
        text, history = state["anchor"], state["history"]
        if not isinstance(text, str | None):
            raise ValueError(f"the anchor is {reprlib.repr(text)}, expected text")
        if not isinstance(history, list) or not all(isinstance(event, dict) for event in history):
            raise ValueError(f"the anchor's history is {reprlib.repr(history)}, expected a list of objects")
        anchor = None if text is None else self.space.validate(Architecture.parse(text))
        super().load_state_dict(state)
        self.anchor, self.history = anchor, list(history)


class MagicA(Aligned, Uniform):
    """Uniformly drawn children, aligned to an anchor (MAGIC-A)."""

    name = "magic_a"
    summary = "one child a step, aligned to an anchor (MAGIC-A)"
    paper = _PAPER
    source = "paper's abstract, sources that quote its body; no official code is known"
    unverified = (
        "the alignment's weight; how often and on how much the anchor is scored; the first anchor; that half of the "
        "sequences are aligned is ours"
    )
    look = ("#009E73", "v")
    Settings = MagicASettings


class MagicAT(Aligned, MagicT):
    """MAGIC-A on the children of MAGIC-T."""

    name = "magic_at"
    summary = "magic_t's children, aligned as in magic_a (MAGIC-AT)"
    unverified = "as magic_t and magic_a"
    look = ("#D55E00", "D")
    Settings = MagicATSettings
