"""Modules trained apart: one block's operator learns in a model that stays, and children are assembled of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.base import FindSplit, Paper, RunKind
from hf_nasbert.methods.uniform import Remembering, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, operator_width

if TYPE_CHECKING:
    from torch import nn

    from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel


@dataclass(kw_only=True)
class AssembledSettings(UniformSettings):
    """How long the meta model is trained before its modules are."""

    meta_share: float = setting(
        0.25,
        "The share of max_steps that trains the meta model; none where a base model is that.",
        at_least=0,
        at_most=1,
    )


class Assembled(Remembering):
    """A step trains one block's operator alone, in the place of the meta model's, which links it to all others.

    Deep Model Assembling (Ni et al., 2022): a meta model is trained first, then each module of the target apart, with
    the rest of the meta model around it and fixed; what was trained apart is assembled. The meta model is the base
    model, and from scratch a child that has every block's widest operators in turn, trained first. Behind that its
    operators, embeddings and head never move, nor do weights that another operator shares with them. A module is the
    operator of one block; one of another width is its whole stage, for a stage has one width. Every child of the
    super-net is then an assembly, scored as any. In our toy language (100 steps of modules) children of one or two
    modules gain by it, those of four do not.
    """

    name = "assembled"
    summary = "one child first; then each operator alone in its place there (Deep Model Assembling)"
    paper = Paper("Ni et al. (2022), Deep Model Assembling", "https://arxiv.org/abs/2212.04129")
    source = "paper's abstract"
    unverified = (
        "how modules are trained is recalled; the meta model of a child's depth, where the paper's is a shallow one, "
        "an operator as a module, and one drawn a step: ours; what is assembled is not trained on"
    )
    look = ("#0072B2", "P")
    can_be_sharded = False
    Settings = AssembledSettings
    settings: AssembledSettings

    def _prepare(self) -> None:
        self.memory = {}
        self.largest = cheapest(self.space, lambda child: -self.cost(child))
        wide = [
            [name for name in names if name != SKIP and operator_width(name) == operator_width(widest)]
            for names, widest in zip(self.space.blocks, self.largest, strict=True)
        ]
        self.meta = Architecture(names[block % len(names)] for block, names in enumerate(wide))
        self.meta_steps = round(self.settings.meta_share * self.max_steps)
        self.is_meta = True
        """Whether the next step trains the meta model."""
        if all({*names} <= {SKIP, own} for names, own in zip(self.space.blocks, self.meta, strict=True)):
            raise ValueError(f"method={self.name} replaces operators of one child, and this space has no others")
        if self.meta_steps >= self.max_steps:
            share = self.settings.meta_share
            raise ValueError(f"meta_share={share} leaves no step of {self.max_steps} for the modules")

    def check_run(self, run: RunKind) -> None:
        """A base model, the largest child of its super-net, is a meta model that is trained."""
        super().check_run(run)
        if run.has_base_model:
            self.meta, self.meta_steps = self.largest, 0

    def before_step(self, step: int, find_split: FindSplit) -> bool:
        """See whether the meta model is done: after the first module it stays, in a run that is made longer too."""
        self.is_meta = step < self.meta_steps and not self._num_rngs
        return False

    def children(self) -> tuple[Architecture, ...]:
        """The meta model, or that with a module of a uniform child in its place."""
        if self.is_meta:
            return (self.meta,)
        rng = self.next_rng()
        while True:
            (child,) = super().children()
            block = rng.randrange(len(child))
            where = slice(block, block + 1)
            if operator_width(child[block]) != operator_width(self.meta[block]):
                where = self.space.stage_slices[self.space.stage_of(block)]
            if child[block] not in (SKIP, self.meta[block]):
                return (Architecture((*self.meta[: where.start], *child[where], *self.meta[where.stop :])),)

    def learning(
        self, children: Sequence[Architecture], supernet: "SupernetPreTrainedModel"
    ) -> "Collection[nn.Parameter] | None":
        """What the meta model does not use; all, as long as that is trained."""
        if self.is_meta:
            return None
        return set(supernet.parameters_of(children[0])) - set(supernet.parameters_of(self.meta))
