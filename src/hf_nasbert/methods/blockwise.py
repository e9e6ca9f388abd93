"""Block-wise distillation: each stage learns alone, from the teacher's state before it to the one after it."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.averaged import Averaged, AveragedSettings
from hf_nasbert.methods.base import ChildRun, Paper, StepContext
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.searching.knapsack import Choice, Item, best_choices
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, FreeStage, SearchSpace

if TYPE_CHECKING:
    import torch

    from hf_nasbert.teachers import StageErrors


@dataclass(kw_only=True)
class BlockwiseSettings(AveragedSettings, UniformSettings):
    """The stages, and what they learn.

    Raises:
        ValueError: If a number is below 1, the target neither of the two, or an ensemble one of a single path.
    """

    blockwise_stages: int = setting(
        4, "Stages that the blocks are cut into; a space of several stages, or of widths, keeps its own.", at_least=1
    )
    blockwise_paths: int = setting(
        2, "Random children of a step, beside the largest one; their gradients add up.", at_least=1
    )
    blockwise_target: Literal["teacher", "ensemble"] = setting(
        "teacher", "What stages learn: the teacher's state, or the mean of the averaged twins of the step's paths."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blockwise_target == "ensemble" and self.blockwise_paths < 2:
            raise ValueError("blockwise_target=ensemble is a mean of several paths: blockwise_paths is at least 2")


class Blockwise(Averaged, Uniform):
    """Every stage of every child learns by itself what the teacher makes of the teacher's own states (DNA).

    A stage's input is the teacher's state before it, its target the teacher's state after it, its loss their
    relative, centred error; no gradient passes from stage to stage. A step trains the largest child and some random
    ones, whose gradients add up. The base model of a super-net is its teacher, whatever the training's `teacher` and
    `distillation` say; the largest child then learns as all do, and embeddings and head stay the base model's. From
    scratch there is none: the teacher is the moving average of the largest child, which itself runs whole, learns
    from labels, and trains embeddings and head.

    With the target `ensemble` random paths learn no teacher's state but a mean of directions: of what the averaged
    twins of all of them make of the same input (BossNAS, without its two views of an image and its projections).

    Stages are trained side by side, where DNA and BossNAS train one after the other. `teachers.StageErrors` scores a
    stage's path alone, and `best_by_stages` picks the best combination under a cap.
    """

    name = "blockwise"
    summary = "each stage learns alone, from the teacher's state in front of it (DNA, NAS-BERT; BossNAS's ensemble)"
    paper = Paper(
        "Li et al. (2020), Blockwisely Supervised Neural Architecture Search with Knowledge Distillation, CVPR 2020",
        "https://arxiv.org/abs/1911.13053",
    )
    source = "code of DNA and BossNAS (nothing taken), sources that quote NAS-BERT's body"
    unverified = "the relative error, stages side by side, the largest child's average as the teacher: ours"
    look = ("#009E73", "p")
    Settings = BlockwiseSettings
    settings: BlockwiseSettings
    terms = ("stage_error",)
    can_be_sharded = False

    def _prepare(self) -> None:
        self.largest = cheapest(self.space, lambda child: -self.cost(child))
        self.stages = stages_of(self.space, self.settings.blockwise_stages)
        self.is_ensemble = self.settings.blockwise_target == "ensemble"
        self._paths: tuple[Architecture, ...] = ()
        self._lesson: Any = None
        self._has_base_model = False

    @property
    def is_averaging(self) -> bool:
        """Where a teacher or twins are made of averages."""
        return self.is_ensemble or not self._has_base_model

    @property
    def passes_per_step(self) -> float:
        """Three for each child, one for the teacher, one for each twin of an ensemble."""
        paths = self.settings.blockwise_paths
        return 3.0 * (1 + paths) + 1.0 + paths * self.is_ensemble

    def children(self) -> tuple[Architecture, ...]:
        """The largest child and the random ones."""
        number = self.settings.blockwise_paths
        self._paths = tuple(self.space.validate(self.sampler.next_architecture()) for _ in range(number))
        return (self.largest, *self._paths)

    def run(self, child: Architecture, context: StepContext) -> ChildRun | None:
        """A child stage by stage: its loss is the mean of their errors. From scratch the largest one runs whole."""
        from hf_nasbert.objectives import relative_error
        from hf_nasbert.teachers import mask_of, masks_of, run_stage

        self._has_base_model = context.base_model is not None
        if context.base_model is None and child == self.largest:
            return None
        if self._lesson is None or self._lesson[0] is not context.input_ids:  # once for all children
            self._lesson = context.input_ids, self._learn(context)
        borders, targets = self._lesson[1]
        masks, real = masks_of(context.supernet, context.batch), mask_of(context.batch, borders[0])
        loss = borders[0].new_zeros(())
        for number, stage in enumerate(self.stages):
            made, target = (
                run_stage(context.supernet, stage, child[stage], borders[number], masks, child),
                borders[number + 1],
            )
            if targets and child != self.largest:
                made, target = _directions(made), targets[number]
            loss = loss + relative_error(made, target, real, context.counts.tokens) / len(self.stages)
        return ChildRun(child, loss, loss.new_zeros(0, 0))

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The error of its stages; the masked-LM loss of the largest child from scratch."""
        is_whole = context.base_model is None and run.architecture == self.largest
        return run.loss, (run.loss * (not is_whole),)

    def _learn(self, context: StepContext) -> "tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]":
        """The teacher's states at the stages' borders, and an ensemble's targets: the same for all children."""
        import torch

        from hf_nasbert.teachers import masks_of, read_child, run_stage

        average, batch = self.teacher.average, context.batch
        with torch.no_grad():
            if context.base_model is None:
                states = read_child(average, batch, self.largest, logits=False).hidden_states or ()
            else:
                states = context.base_model.states()
            borders = [states[0], *(states[stage.stop] for stage in self.stages)]
            if not self.is_ensemble:
                return borders, ()
            masks, parts = masks_of(average, batch), zip(self.stages, borders[:-1], strict=True)
            twins = [
                [run_stage(average, part, child[part], state, masks, child) for child in self._paths]
                for part, state in parts
            ]
            return borders, [torch.stack([_directions(one) for one in made]).mean(0) for made in twins]


def _directions(states: "torch.Tensor") -> "torch.Tensor":
    """States (B, T, D), each scaled so that the mean square of its numbers is 1."""
    return states * (states.square().mean(-1, keepdim=True) + 1e-12).rsqrt()


def stages_of(space: SearchSpace, number: int) -> tuple[slice, ...]:
    """The choice blocks of the stages that learn by themselves, in `number` runs of nearly equal length.

    A space of several stages, or of widths, is cut where its stages end: only there all states have one width.
    """
    if space.num_stages > 1 or space.stages[0].widths:
        return space.stage_slices
    length = space.num_choice_blocks
    ends = {length * end // number for end in range(number + 1)}  # fewer where there are fewer blocks
    return tuple(itertools.starmap(slice, itertools.pairwise(sorted(ends))))


def best_by_stages(
    errors: "StageErrors",
    space: SearchSpace,
    cost: Callable[[Architecture], Mapping[str, float]],
    caps: Mapping[str, float],
    *,
    num_paths: int = 500,
    num_choices: int = 1,
) -> list[Choice]:
    """The combinations of stages' paths of least summed error within caps, best first: a knapsack over stages.

    Args:
        errors: The errors of a stage's path, of a child of the space.
        space: The space.
        cost: The costs of a child, each a sum over its blocks (`costs.cost_function`).
        caps: Largest costs, by name; ValueError if nothing is within them.
        num_paths: Paths of a stage to score: all, or so many drawn ones.
        num_choices: How many combinations to give.
    """
    rng, first = random.Random("paths of stages"), next(space.enumerate())
    fixed, items = cost(first), []
    for number, where in enumerate(errors.stages):
        for path in _paths(space, where, num_paths, rng):
            costs = cost(Architecture((*first[: where.start], *path, *first[where.stop :])))
            more = {name: costs[name] - fixed[name] for name in caps}
            items.append(Item(where.start, path, errors.error(number, path), more))
    kept = {name: fixed[name] for name in caps}
    return best_choices(items, space.num_choice_blocks, caps, fixed=kept, num_choices=num_choices)


def _paths(space: SearchSpace, where: slice, most: int, rng: random.Random) -> list[tuple[str, ...]]:
    """Paths of a stage that go with any of another: where skip stands at the end, only the last part skips."""
    number = space.stage_of(where.start)
    stage, whole = space.stages[number], space.stage_slices[number]
    blocks, is_free = stage.blocks[where.start - whole.start : where.stop - whole.start], isinstance(stage, FreeStage)
    if where.stop < whole.stop and not is_free:
        blocks = tuple(tuple(kind for kind in kinds if kind != SKIP) for kinds in blocks)
    part = type(stage)(blocks, stage.widths)
    chosen = range(part.num_children)
    paths = [tuple(part.child_at(i)) for i in (chosen if len(chosen) <= most else sorted(rng.sample(chosen, most)))]
    skips = where.start > whole.start and not is_free and all(SKIP in kinds for kinds in blocks)
    return [*paths, (SKIP,) * len(blocks)] if skips else paths
