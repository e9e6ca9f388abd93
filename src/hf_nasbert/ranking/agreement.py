"""How well a ranking agrees with a table of truth: every measure with its spread, dull baselines, paired tests."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert import metrics
from hf_nasbert.metrics import PairedDifference, Redraws, draw
from hf_nasbert.ranking.table import Array, GroundTruth
from hf_nasbert.space import Architecture

_NUM_FITTED = 30  # children that the linear baseline learns from
_NUM_DRAWS = 100  # random rankings, or draws of the children that the linear baseline learns from


Measure = Callable[[Redraws, NDArray[np.int64]], Array]


def measures(truth: GroundTruth) -> dict[str, Measure]:
    """Everything that is said of one ranking: functions of its redraws and of the places of its children.

    Places are those in `truth.architectures`. `sparse_tau`, at the noise of the truth, is there where the table knows
    its seed noise; `ceiling_tau` and `ceiling_bucketed_tau`, among the children that the ceiling is measured on, where
    those are not all.
    """

    def among_ceiling(measure: Measure) -> Measure:
        def measured(redraws: Redraws, places: NDArray[np.int64]) -> Array:
            inside = truth.in_ceiling[places]
            part = redraws.among(inside)
            return redraws.nothing() if part is None else measure(part, places[inside])

        return measured

    def at_fraction(fraction: float) -> Measure:
        return lambda redraws, _: redraws.precision_at_top(fraction)

    def best_at(k: int) -> Measure:
        return lambda redraws, _: redraws.best_rank_at(k)

    def worst_at(k: int) -> Measure:
        return lambda redraws, _: redraws.worst_rank_at(k)

    found: dict[str, Measure] = {
        "kendall_tau": lambda redraws, _: redraws.kendall_tau(),
        "bucketed_tau": lambda redraws, places: redraws.mean_bucketed_tau(truth.bucket_of[places]),
        "spearman": lambda redraws, _: redraws.spearman(),
        "pearson": lambda redraws, _: redraws.pearson(),
    }
    if truth.in_ceiling.any() and not truth.in_ceiling.all():
        found["ceiling_tau"] = among_ceiling(found["kendall_tau"])
        found["ceiling_bucketed_tau"] = among_ceiling(found["bucketed_tau"])
    if truth.noise > 0:  # not where it is NaN
        found["sparse_tau"] = lambda redraws, _: redraws.sparse_kendall_tau(truth.noise)
    for percent in (5, 10, 20):
        found[f"precision_at_{percent}%"] = at_fraction(percent / 100)
    for k in (1, 5, 10):
        if k <= len(truth.loss):
            found[f"best_rank_at_{k}"] = best_at(k)
            found[f"worst_rank_at_{k}"] = worst_at(k)
    found["relative_improvement"] = lambda redraws, _: redraws.relative_improvement()
    return found


class Measured(NamedTuple):
    """One measure of a method: the mean over its super-nets, an interval over children, the deviation over seeds."""

    mean: float
    low: float
    high: float
    seed_deviation: float | None
    """None for a single super-net, or a baseline that is not random."""


@dataclass(frozen=True)
class Ranked:
    """How well one method, or baseline, ranks the children of a table."""

    name: str
    num_rankings: int
    """Super-nets, or draws of a random baseline; some may rank nobody (`taus`)."""
    num_children: int
    measured: dict[str, Measured]
    taus: list[float]
    """Kendall's tau of every super-net, by seed; NaN where it gives all children the same loss."""
    bucketed_taus: list[float]
    """The same within size buckets."""
    seeds: list[int] | None = None
    """The seeds of the super-nets, if all are known."""


def rank(
    name: str,
    scores: Sequence[ArrayLike],
    truth: GroundTruth,
    *,
    losses: Sequence[ArrayLike] | None = None,
    is_proxy_loss: bool = False,
    chosen: Sequence[NDArray[np.bool_]] | None = None,
    is_random: bool = False,
    seeds: Sequence[int | None] | None = None,
    only: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Ranked:
    """Compare rankings of one kind with the truth.

    Args:
        name: What ranked.
        scores: One ranking each: a score per child, in the order of `truth.architectures`, the lowest being the best.
        truth: The table.
        losses: For every ranking the stand-alone losses that it is judged by; by default the truth.
        is_proxy_loss: Whether scores are losses, so that the gap to the stand-alone loss means something.
        chosen: For every ranking of a random baseline the children that it is judged on; by default all.
        is_random: Whether the rankings are draws of a random baseline: the interval then is their own 90 % range, and
            not one over children.
        seeds: The seeds of the super-nets behind the rankings, as far as they are known.
        only: Names of the measures to take, `kendall_tau` and `bucketed_tau` among them; by default all.
        num_resamples: Redraws of children behind an interval.
        seed: Seed of the redraws.

    Returns:
        Its measures; means and deviations are over the rankings on which a measure is defined.

    Raises:
        ValueError: If there is no ranking, one has another number of children, a score is not finite, or `chosen` is
            given for rankings whose children are redrawn.
    """
    if not len(scores):
        raise ValueError(f"{name}: there is no ranking")
    if chosen is not None and not is_random:
        raise ValueError(
            f"{name}: chosen goes with rankings whose children are redrawn (is_random), and these are of all children"
        )
    judges = [truth.loss] * len(scores) if losses is None else [np.asarray(loss, dtype=np.float64) for loss in losses]
    functions = measures(truth)
    if is_proxy_loss:
        functions["supernet_gap"] = lambda redraws, _: redraws.supernet_gap()
    if only is not None:
        functions = {measure: functions[measure] for measure in only}
    rankings = [np.asarray(score, dtype=np.float64) for score in scores]
    for given in (*rankings, *judges):
        if given.shape != truth.loss.shape:
            raise ValueError(f"{name}: {given.shape} scores for the {len(truth.loss)} children of the table")
    everyone = np.ones(len(truth.loss), dtype=bool)
    masks = [everyone] * len(rankings) if chosen is None else list(chosen)
    # Each child once, and then the redraws, the same ones for all rankings.
    counts = None if is_random else draw(len(truth.loss), num_resamples, seed)
    parts = [
        (Redraws(score[mask], loss[mask], counts), np.flatnonzero(mask))
        for score, loss, mask in zip(rankings, judges, masks, strict=True)
    ]
    single, measured = {}, {}
    for measure, function in functions.items():
        values = np.array([function(*part) for part in parts])  # (rankings, 1 + redraws)
        single[measure] = values[:, 0].tolist()
        spread = values[:, 0] if is_random else metrics.means_of_known(values[:, 1:])
        interval = metrics.percentile_interval(metrics.mean_of_known(single[measure]), spread)
        measured[measure] = Measured(*interval, _deviation(single[measure]))
    known_seeds = [number for number in seeds or () if number is not None]
    return Ranked(
        name,
        len(rankings),
        int(masks[0].sum()),
        measured,
        single["kendall_tau"],
        single["bucketed_tau"],
        known_seeds if len(known_seeds) == len(rankings) else None,
    )


def _deviation(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def baselines(
    truth: GroundTruth, proxies: Sequence[ArrayLike] = (), *, num_resamples: int = 1000, seed: int = 0
) -> list[Ranked]:
    """The dull rankings that a super-net has to beat.

    - `random`: any order; mean and 90 % range over draws.
    - `size-matched random`: proxy losses of super-nets (`proxies`) dealt anew among the children of a size bucket, so
      that what they know of sizes stays, and nothing else; mean and 90 % range over draws.
    - `number of parameters`, `FLOPs`: larger is better.
    - `operator counts`: least squares on how often each operator occurs, from 30 random children trained alone, judged
      on all others; mean and 90 % range over draws of the thirty.
    """
    rng = np.random.default_rng(seed)
    number = len(truth.loss)
    settings: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    orders = [rng.permutation(number) for _ in range(_NUM_DRAWS)]
    found = [rank("random", orders, truth, is_random=True)]
    if len(proxies):
        dealt = []
        for draw in range(_NUM_DRAWS):
            score = np.array(proxies[draw % len(proxies)], dtype=np.float64)
            for bucket in np.unique(truth.bucket_of):
                inside = np.flatnonzero(truth.bucket_of == bucket)
                score[inside] = score[rng.permutation(inside)]
            dealt.append(score)
        found.append(rank("size-matched random", dealt, truth, is_random=True))
    if np.ptp(truth.num_parameters) > 0:
        found.append(rank("number of parameters", [-truth.num_parameters], truth, **settings))
        found.append(rank("FLOPs", [-truth.flops], truth, **settings))
    if number >= 2 * _NUM_FITTED:
        counts = operator_counts(truth.architectures)
        predictions, others = [], []
        for _ in range(_NUM_DRAWS):
            fitted = rng.permutation(number)[:_NUM_FITTED]
            mask = np.ones(number, dtype=bool)
            mask[fitted] = False
            predictions.append(counts @ np.linalg.lstsq(counts[fitted], truth.loss[fitted], rcond=None)[0])
            others.append(mask)
        found.append(rank("operator counts", predictions, truth, chosen=others, is_random=True))
    return found


def one_training_by_another(truth: GroundTruth, *, num_resamples: int = 1000, seed: int = 0) -> Ranked | None:
    """Every seed of the truth, ranked by every other: the ceiling on all children, by a truth of one training only.

    So it is lower than `GroundTruth.ceiling`, but of the same children as the methods, and of every measure but the
    sparse tau, whose resolution is that of the truth.

    Returns:
        None where the truth has one seed.
    """
    trainings = [np.array([by_seed[number] for by_seed in truth.losses]) for number in truth.seeds]
    pairs = list(itertools.permutations(trainings, 2))
    if not pairs:
        return None
    names = [name for name in measures(truth) if name != "sparse_tau"]
    scores, losses = ([pair[side] for pair in pairs] for side in (0, 1))
    return rank(
        "one training by another", scores, truth, losses=losses, only=names, num_resamples=num_resamples, seed=seed
    )


def operator_counts(architectures: Sequence[Architecture]) -> Array:
    """How often every operator occurs in every child: (children, operators), the operators in alphabetical order."""
    names = sorted({name for child in architectures for name in child})
    return np.array([[child.count(name) for name in names] for child in architectures], dtype=np.float64)


class Comparison(NamedTuple):
    """One method against another, seed by seed; see `metrics.paired_difference`."""

    method: str
    baseline: str
    num_seeds: int
    difference: PairedDifference
    """Of Kendall's tau; positive where the method ranks better."""


def compare(method: Ranked, baseline: Ranked, *, within_buckets: bool = False) -> Comparison:
    """A paired test over common seeds: super-nets of one seed share initial weights and the order of the text.

    Seeds under which one of the two ranks nobody (a tau of NaN) do not count.

    Raises:
        ValueError: If the seeds of one are unknown, or they have fewer than 2 in common.
    """
    by_seed = []
    for ranked in (method, baseline):
        taus = ranked.bucketed_taus if within_buckets else ranked.taus
        pairs = zip(ranked.seeds or (), taus, strict=ranked.seeds is not None)
        by_seed.append({number: tau for number, tau in pairs if not math.isnan(tau)})
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(common) < 2:
        raise ValueError(
            f"{method.name} ranks under the seeds {_listed(method.seeds)} and {baseline.name} under "
            f"{_listed(baseline.seeds)}: a paired test needs 2 common ones under which both have a tau"
        )
    differences = [by_seed[0][number] - by_seed[1][number] for number in common]
    return Comparison(method.name, baseline.name, len(common), metrics.paired_difference(differences))


def _listed(seeds: Sequence[int] | None) -> str:
    return "unknown" if seeds is None else ", ".join(map(str, seeds))
