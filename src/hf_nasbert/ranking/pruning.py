"""Which operators a space can do without: those that scored children do worse with, by worth and by trees."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hf_nasbert.metrics import Interval
from hf_nasbert.ranking.worth import operator_worth
from hf_nasbert.searching import GradientBoostedSearch, SearchTask
from hf_nasbert.space import SKIP, Architecture, FreeStage, SearchSpace


class Verdict(NamedTuple):
    """What children say of an operator in a choice block, in nats, negative is good; and whether it is dropped."""

    block: int
    operator: str
    worth: Interval
    """How far its children lie from the average, all other blocks held equal (`worth.Worth.effects`)."""
    shap: float
    """The block's share of what trees predict for its children (`GradientBoostedSearch.operator_effects`)."""
    is_dropped: bool


def judge_operators(
    space: SearchSpace,
    children: Sequence[Architecture],
    losses: Sequence[float],
    *,
    min_candidates: int = 2,
    max_dropped: int | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[Verdict]:
    """Judge every operator of every choice block, the worst first.

    Dropped is what both say is bad: the whole 90 % interval of its worth lies above 0, and so does its SHAP value. Of
    operators that make no difference that may be one in twenty. A choice block keeps `min_candidates` operators, and a
    skip at the end of a stage stays: depth is the budget's matter. (AutoSpace, Zhou et al., 2021,
    https://arxiv.org/abs/2103.11833, evolves its space by what operators are worth [recalled]; GBDT-NAS,
    https://arxiv.org/abs/2007.04785, drops those of bad SHAP values [public code]. Both at once: ours.)

    Args:
        space: Where the children are from.
        children: Scored children; each block's operators should each be in several.
        losses: One for each of them.
        min_candidates: So many operators stay in a choice block that has them.
        max_dropped: Drop no more, over all blocks.
        num_resamples: Redraws of children behind the intervals.
        seed: Of these redraws.

    Raises:
        ImportError: If LightGBM is not installed.
        ValueError: If the children do not tell operators apart.
    """
    effects = operator_worth("", [losses], children, num_resamples=num_resamples, seed=seed).effects
    trees = GradientBoostedSearch(SearchTask(space, seed=seed))
    trees.tell(children, losses)
    shap = {(one.block, one.operator): one.effect for one in trees.operator_effects()}
    found = [
        Verdict(block, name, effects[name][block], shap[block, name], is_dropped=False)
        for block, names in enumerate(space.blocks)
        for name in names
        if (block, name) in shap
    ]
    if not any(one.worth.low == one.worth.low for one in found):
        raise ValueError(
            f"{len(children)} children are too few, or too similar, to tell the operators apart: score more"
        )
    left = Counter(block for block, names in enumerate(space.blocks) for _ in names)
    num_real = Counter(block for block, names in enumerate(space.blocks) for name in names if name != SKIP)
    verdicts, num_dropped = [], 0
    for one in sorted(found, key=lambda one: (-one.worth.estimate, one.block)):
        is_free = one.operator != SKIP or isinstance(space.stages[space.stage_of(one.block)], FreeStage)
        is_bad = is_free and one.worth.low > 0 and one.shap > 0
        has_others = left[one.block] > min_candidates and (one.operator == SKIP or num_real[one.block] > 1)
        is_dropped = is_bad and has_others and num_dropped != max_dropped
        left[one.block] -= is_dropped
        num_real[one.block] -= is_dropped and one.operator != SKIP
        num_dropped += is_dropped
        verdicts.append(one._replace(is_dropped=is_dropped))
    return verdicts


def smaller_space(space: SearchSpace, verdicts: Sequence[Verdict]) -> SearchSpace:
    """The space of one stage without what is dropped.

    Raises:
        ValueError: If the space has several stages, or widths to choose from.
    """
    if space.num_stages > 1 or space.stages[0].widths:
        raise ValueError(
            "only a space of one stage without widths is made smaller: blocks of others share their widths, which no "
            "`blocks` of a recipe can say"
        )
    dropped = {(one.block, one.operator) for one in verdicts if one.is_dropped}
    blocks = tuple(
        tuple(name for name in names if (block, name) not in dropped) for block, names in enumerate(space.blocks)
    )
    return SearchSpace((type(space.stages[0])(blocks),))
