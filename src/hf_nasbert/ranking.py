"""Does a super-net rank its children as training each of them alone would? Tables of truth, measures and baselines.

The protocol is that of Yu et al. (2020, https://arxiv.org/abs/2003.04276) and Ning et al. (2021,
https://arxiv.org/abs/2008.03064): never one correlation alone, agreement among children of similar size, the noise of
the truth itself beside every figure, and the dull baselines in the same table. The figures of MAGIC (Xu et al., 2022,
https://arxiv.org/abs/2108.12821) that such a table is held against are 0.36, 0.49 and 0.57 for uniform sampling,
MAGIC-T and (read as) MAGIC-AT on 60 children [secondary source; the metric is not named there].
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert import metrics, records
from hf_nasbert.metrics import Interval, PairedDifference
from hf_nasbert.records import Record, is_finite_number
from hf_nasbert.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from datasets import Dataset

Array = NDArray[np.float64]

NUM_BUCKETS = 3
_NUM_FITTED = 30  # children that the linear baseline learns from
_NUM_DRAWS = 100  # random rankings, or draws of the children that the linear baseline learns from
_TABLES = Path(__file__).parent / "tables"  # links to benchmarks/records, which a built package holds as files
_COLUMNS = ("architecture", "seed", "dev_loss", "num_parameters", "flops", "recipe_hash", "recipe")


def load_table(name: str) -> "Dataset":
    """A ground-truth table: children trained alone, one row each.

    Args:
        name: The name of a table that comes with the package, such as `imdb`; or a file that
            `recipes/train_children.py` wrote, `.jsonl` or `.jsonl.gz`.

    Returns:
        Columns `architecture` (text), `seed`, `dev_loss` (nats per masked token), `curve` (pairs of step and dev
        loss), `num_parameters`, `flops` (of one sequence), `recipe_hash`, `recipe`, `versions`, `timing`.

    Raises:
        FileNotFoundError: If there is no table of that name; names those there are.
        ValueError: If the file holds something else than trained children, or a damaged record.
    """
    from datasets import Dataset
    from pyarrow import ArrowException

    path = find_table(name)
    children = records.read(path)
    for number, child in enumerate(children, start=1):
        _check_child(child, f"{path}, record {number}")
    if not children:
        raise ValueError(f"{path} holds no trained child")
    try:
        return Dataset.from_list(children)
    except (ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{path}: its records do not make one table ({reason})") from None


def _check_child(child: Record, where: str) -> None:
    """Refuse a record that is no trained child."""
    missing = [column for column in _COLUMNS if column not in child]
    if missing:
        raise ValueError(f"{where} is no trained child: it lacks {', '.join(missing)}")
    for name in ("dev_loss", "num_parameters", "flops"):
        if not is_finite_number(child[name]):
            raise ValueError(f"{where} is no trained child: its {name} is no finite number")
    if type(child["seed"]) is not int or not isinstance(child["recipe_hash"], str):
        raise ValueError(f"{where} is no trained child: seeds are whole numbers, a recipe_hash is text")
    recipe = child["recipe"]
    try:
        SearchSpace.from_dict(recipe["space"] if isinstance(recipe, Mapping) and "space" in recipe else {})
        Architecture.parse(child["architecture"])
    except ValueError as error:
        raise ValueError(f"{where} is no trained child: {error}") from None


def find_table(name: str) -> Path:
    """The file of a table, named as `load_table` takes it.

    Raises:
        FileNotFoundError: If there is none; names those that come with the package.
    """
    if name.endswith((".jsonl", ".jsonl.gz")):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no table at {name}")
        return Path(name)
    path = _TABLES / f"table-{name}.jsonl.gz"
    if re.fullmatch(r"[A-Za-z0-9_-]+", name) and path.is_file():  # a name, and no way out of that folder
        return path
    known = sorted(
        path.name.removeprefix("table-").removesuffix(".jsonl.gz") for path in _TABLES.glob("table-*.jsonl.gz")
    )
    raise FileNotFoundError(f"no table {name!r}: expected a .jsonl or .jsonl.gz file, or one of {', '.join(known)}")


class GroundTruth:
    """What training alone says of the children of one space.

    The truth of a child is its mean loss over the seeds that *all* children of the table were trained under: a mean
    over seeds that only some children have would be less noisy for them than for the others.

    Args:
        table: A table as `load_table` gives it.
        containing: Keep only the children that hold this operator. Where some operator decides all, such as the only
            one that looks at other tokens, a ranking is of interest among the children that have it.

    Raises:
        ValueError: If the rows come from several recipes, a child stands in it twice, an architecture lies outside the
            table's space, there are fewer than 3 children, or no seed is common to all.
    """

    def __init__(self, table: "Dataset", *, containing: str | None = None) -> None:
        hashes = sorted(set(table["recipe_hash"]))
        if len(hashes) != 1:
            raise ValueError(f"the children of a table share one recipe, but here are {', '.join(hashes)}")
        first: Record = table[0]
        self.recipe: Record = first["recipe"]
        self.recipe_hash: str = hashes[0]
        self.space = SearchSpace.from_dict(self.recipe["space"])
        self.containing = containing
        losses: dict[Architecture, dict[int, float]] = {}
        costs: dict[Architecture, tuple[int, int]] = {}
        columns = ("architecture", "seed", "dev_loss", "num_parameters", "flops")
        for text, seed, loss, size, flops in zip(*(table[column] for column in columns), strict=True):
            child = self.space.validate(text)
            if seed in losses.setdefault(child, {}):
                raise ValueError(f"the table holds {child} at seed {seed} twice")
            losses[child][seed] = loss
            costs[child] = (size, flops)
        self.architectures = sorted((child for child in losses if containing in (None, *child)), key=str)
        """The children, in the order of all arrays here."""
        if len(self.architectures) < 3:
            holding = "" if containing is None else f" that hold {containing!r}"
            raise ValueError(f"the table has {len(self.architectures)} children{holding}: at least 3 are needed")
        self.losses = [losses[child] for child in self.architectures]
        """The dev losses of every child, by seed."""
        self.seeds = sorted(set.intersection(*(set(by_seed) for by_seed in self.losses)))
        """The seeds that all children were trained under."""
        if not self.seeds:
            raise ValueError("no seed is common to all children of the table: train what is missing first")
        self.loss: Array = np.array([np.mean([by_seed[seed] for seed in self.seeds]) for by_seed in self.losses])
        """The truth: one dev loss per child."""
        self.num_parameters: Array = np.array([costs[child][0] for child in self.architectures], dtype=np.float64)
        self.flops: Array = np.array([costs[child][1] for child in self.architectures], dtype=np.float64)

    @cached_property
    def num_buckets(self) -> int:
        """Buckets of similar size: one where no child is a tenth larger than another."""
        return NUM_BUCKETS if self.num_parameters.max() > 1.1 * self.num_parameters.min() else 1

    @cached_property
    def bucket_of(self) -> NDArray[np.int64]:
        """The size bucket of every child, as `metrics.bucketed_tau` cuts them."""
        edges = np.quantile(self.num_parameters, np.arange(1, self.num_buckets) / self.num_buckets)
        return np.searchsorted(edges, self.num_parameters, side="left")

    def repeats(self, num_seeds: int) -> tuple[NDArray[np.int64], Array]:
        """The children trained under the most common `num_seeds` seeds: their places, and losses (seeds, children)."""
        counts = Counter(seed for by_seed in self.losses for seed in by_seed)
        seeds = sorted(counts, key=lambda seed: (-counts[seed], seed))[:num_seeds]
        places = [place for place, by_seed in enumerate(self.losses) if all(seed in by_seed for seed in seeds)]
        if len(seeds) < num_seeds:
            places = []
        losses = [[self.losses[place][seed] for place in places] for seed in seeds]
        return np.array(places, dtype=np.int64), np.array(losses).reshape(len(seeds), len(places))

    @cached_property
    def best_repeats(self) -> Array:
        """The losses (seeds, children) that say most of the seed noise: many children, or many seeds."""
        most = max(len(by_seed) for by_seed in self.losses)
        blocks = [self.repeats(num_seeds)[1] for num_seeds in range(2, most + 1)]
        return max(blocks, key=lambda block: (block.shape[0] - 1) * (block.shape[1] - 1), default=np.zeros((1, 0)))

    @cached_property
    def seed_noise(self) -> float:
        """Standard deviation of one training around its child's mean, in nats; NaN without repeated children.

        A shift that all children of a seed share ranks nobody, and does not count.
        """
        num_seeds, num_children = self.best_repeats.shape
        if num_seeds < 2 or num_children < 2:
            return float("nan")
        losses = self.best_repeats
        residual = losses - losses.mean(axis=0) - losses.mean(axis=1, keepdims=True) + losses.mean()
        return float(np.sqrt((residual**2).sum() / ((num_seeds - 1) * (num_children - 1))))

    @property
    def noise(self) -> float:
        """Standard deviation of the truth around what infinitely many seeds would say, in nats."""
        return self.seed_noise / math.sqrt(len(self.seeds))

    @cached_property
    def spread(self) -> float:
        """Standard deviation between the children, in nats; the seed noise is part of it."""
        return float(self.loss.std(ddof=1))

    @cached_property
    def spread_within_buckets(self) -> float:
        """Standard deviation of the children around the mean of their size bucket, in nats."""
        parts = [self.loss[self.bucket_of == bucket] for bucket in np.unique(self.bucket_of)]
        squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        return float(np.sqrt(squares / max(len(self.loss) - len(parts), 1)))

    def ceiling(self, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """How well one more training of every child would rank them: what a proxy as noisy as a training could reach.

        It is no bound: a predictor of what a child reaches on average over seeds, without any noise of its own, would
        do better.

        Each training of the children that have one seed more than the truth is held against the mean of their others.
        Where there are none, each training that the truth is made of is held against the rest of it, which is noisier.

        Returns:
            The mean over all choices of the one training, with an interval over children: `kendall_tau`,
            `bucketed_tau`, `spearman`. Empty without repeated children.
        """
        for num_seeds in (len(self.seeds) + 1, len(self.seeds)):
            places, repeats = self.repeats(num_seeds)
            if num_seeds > 1 and len(places) >= 3:
                break
        else:
            return {}
        means = (repeats.sum(axis=0) - repeats) / (num_seeds - 1)

        def over_choices(measure: Callable[[Array, Array, Array], float]) -> Interval:
            def statistic(sizes: Array, *losses: Array) -> float:
                pairs = zip(losses[:num_seeds], losses[num_seeds:], strict=True)
                return float(np.mean([measure(one, others, sizes) for one, others in pairs]))

            sizes = self.num_parameters[places]
            return metrics.bootstrap_interval(
                statistic, sizes, *repeats, *means, num_resamples=num_resamples, seed=seed
            )

        return {
            "kendall_tau": over_choices(lambda a, b, _: metrics.kendall_tau(a, b)),
            "bucketed_tau": over_choices(lambda a, b, sizes: metrics.mean_bucketed_tau(a, b, sizes, self.num_buckets)),
            "spearman": over_choices(lambda a, b, _: metrics.spearman(a, b)),
        }


def measures(truth: GroundTruth) -> dict[str, Callable[[Array, Array, Array], float]]:
    """Everything that is said of one ranking: functions of (score, true loss, sizes), lower scores being better.

    `sparse_tau`, at the noise of the truth, is there where the table knows its seed noise.
    """

    def at_top(measure: Callable[..., float], k: float) -> Callable[[Array, Array, Array], float]:
        return lambda score, loss, _: measure(score, loss, k)

    found: dict[str, Callable[[Array, Array, Array], float]] = {
        "kendall_tau": lambda score, loss, _: metrics.kendall_tau(score, loss),
        "bucketed_tau": lambda score, loss, sizes: metrics.mean_bucketed_tau(score, loss, sizes, truth.num_buckets),
        "spearman": lambda score, loss, _: metrics.spearman(score, loss),
        "pearson": lambda score, loss, _: metrics.pearson(score, loss),
    }
    if truth.noise > 0:  # not where it is NaN
        found["sparse_tau"] = lambda score, loss, _: metrics.sparse_kendall_tau(score, loss, truth.noise)
    for percent in (5, 10, 20):
        found[f"precision_at_{percent}%"] = at_top(metrics.precision_at_top, percent / 100)
    for k in (1, 5, 10):
        if k <= len(truth.loss):
            found[f"best_rank_at_{k}"] = at_top(metrics.best_rank_at, k)
            found[f"worst_rank_at_{k}"] = at_top(metrics.worst_rank_at, k)
    found["relative_improvement"] = lambda score, loss, _: metrics.relative_improvement(score, loss)
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
    """Super-nets, or draws of a random baseline."""
    num_children: int
    measured: dict[str, Measured]
    taus: list[float]
    """Kendall's tau of every super-net, by seed."""
    bucketed_taus: list[float]
    """The same within size buckets."""
    seeds: list[int] | None = None
    """The seeds of the super-nets, if all are known."""


def rank(
    name: str,
    scores: Sequence[ArrayLike],
    truth: GroundTruth,
    *,
    is_proxy_loss: bool = False,
    chosen: Sequence[NDArray[np.bool_]] | None = None,
    is_random: bool = False,
    seeds: Sequence[int | None] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Ranked:
    """Compare rankings of one kind with the truth.

    Args:
        name: What ranked.
        scores: One ranking each: a score per child, in the order of `truth.architectures`, the lowest being the best.
        truth: The table.
        is_proxy_loss: Whether scores are losses, so that the gap to the stand-alone loss means something.
        chosen: For every ranking the children that it is judged on; by default all.
        is_random: Whether the rankings are draws of a random baseline: the interval then is their own 90 % range, and
            not one over children.
        seeds: The seeds of the super-nets behind the rankings, as far as they are known.
        num_resamples: Redraws of children behind an interval.
        seed: Seed of the redraws.

    Raises:
        ValueError: If a ranking has another number of children, or a score is not finite.
    """
    functions = measures(truth)
    if is_proxy_loss:
        functions["supernet_gap"] = lambda score, loss, _: metrics.supernet_gap(score, loss)
    rankings = [np.asarray(score, dtype=np.float64) for score in scores]
    for score in rankings:
        if score.shape != truth.loss.shape:
            raise ValueError(f"{name}: {score.shape} scores for the {len(truth.loss)} children of the table")
    everyone = np.ones(len(truth.loss), dtype=bool)
    masks = [everyone] * len(rankings) if chosen is None else list(chosen)
    parts = [
        (score[mask], truth.loss[mask], truth.num_parameters[mask])
        for score, mask in zip(rankings, masks, strict=True)
    ]
    single = {measure: [function(*part) for part in parts] for measure, function in functions.items()}
    spread = single
    if not is_random:
        # Children are redrawn, the same ones for all super-nets of a method.
        spread = {measure: [] for measure in functions}
        rng = np.random.default_rng(seed)
        for _ in range(num_resamples):
            drawn = rng.integers(int(masks[0].sum()), size=int(masks[0].sum()))
            some = [[values[drawn] for values in part] for part in parts]
            for measure, function in functions.items():
                spread[measure].append(float(np.mean([function(*part) for part in some])))
    measured = {}
    for measure, values in single.items():
        known = [value for value in spread[measure] if not math.isnan(value)]
        low, high = np.quantile(known, [0.05, 0.95]) if known else (math.nan, math.nan)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        measured[measure] = Measured(float(np.mean(values)), float(low), float(high), deviation)
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
    """A paired test over seeds: super-nets of one seed share initial weights and the order of the text.

    Raises:
        ValueError: If the two were not trained under the same seeds, or those are unknown or fewer than 2.
    """
    if method.seeds is None or method.seeds != baseline.seeds or len(method.seeds) < 2:
        raise ValueError(
            f"{method.name} has the seeds {_listed(method.seeds)} and {baseline.name} {_listed(baseline.seeds)}: a "
            "paired test needs the same ones, and at least 2"
        )
    first, second = (
        np.array(ranked.bucketed_taus if within_buckets else ranked.taus) for ranked in (method, baseline)
    )
    return Comparison(method.name, baseline.name, len(first), metrics.paired_difference(first - second))


def _listed(seeds: Sequence[int] | None) -> str:
    return "unknown" if seeds is None else ", ".join(map(str, seeds))


class Worth(NamedTuple):
    """What some losses of the same children say of each operator, and whether they say the same."""

    name: str
    num_rankings: int
    agreement: float
    """Mean Kendall's tau between two of them; NaN for a single one."""
    effects: dict[str, list[float]]
    """By operator, block after block: how far its children's mean loss lies from the average, in nats, all other
    blocks held equal; NaN where the block has no such operator. Negative is good."""
    explained: float
    """The share of the variance that these effects explain; NaN where all losses are equal."""


def operator_worth(name: str, losses: Sequence[ArrayLike], architectures: Sequence[Architecture]) -> Worth:
    """Least squares on which operator stands in which block, for the mean of some losses of these children.

    Agreement between the losses tells a bias that all of them share from noise: super-nets of several seeds that agree
    with each other, but not with the truth, are wrong in the same way, and a mean over more of them is too.
    """
    rankings = [np.asarray(each, dtype=np.float64) for each in losses]
    mean = np.mean(rankings, axis=0)
    names = sorted({name for child in architectures for name in child})
    stands = np.array([[[at == name for name in names] for at in child] for child in architectures])
    design = stands.reshape(len(architectures), -1).astype(np.float64)
    weights = np.linalg.lstsq(design, mean - mean.mean(), rcond=None)[0]
    residual = mean - mean.mean() - design @ weights
    effects = weights.reshape(stands.shape[1:])
    shares = stands.mean(axis=0)
    # Only differences within a block are determined: here against the block's average child.
    effects = np.where(shares > 0, effects - (shares * effects).sum(axis=1, keepdims=True), math.nan)
    taus = [metrics.kendall_tau(first, second) for first, second in itertools.combinations(rankings, 2)]
    return Worth(
        name,
        len(rankings),
        float(np.mean(taus)) if taus else math.nan,
        {operator: effects[:, place].tolist() for place, operator in enumerate(names)},
        1 - float(residual.var() / mean.var()) if mean.var() > 0 else math.nan,
    )


def read_scores(path: str | Path, truth: GroundTruth) -> list[Record]:
    """The scored super-nets of a file, checked against a table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a record is no scored super-net, one of another table, or lacks a child.
    """
    found = records.read(path)
    for number, record in enumerate(found, start=1):
        where = f"{path}, record {number}"
        missing = [name for name in ("method", "seed", "step", "recipe_hash", "proxy_losses") if name not in record]
        if missing:
            raise ValueError(f"{where} is no scored super-net: it lacks {', '.join(missing)}")
        losses = record["proxy_losses"]
        if not isinstance(record["method"], str) or not isinstance(losses, Mapping):
            raise ValueError(f"{where} is no scored super-net: its method is no text or its proxy_losses no mapping")
        for name in ("seed", "step"):
            if not (record[name] is None or type(record[name]) is int):
                raise ValueError(f"{where} is no scored super-net: its {name} is neither a whole number nor null")
        if record["recipe_hash"] != truth.recipe_hash:
            raise ValueError(
                f"{where} was scored for the table {str(record['recipe_hash'])[:40]}, not for "
                f"{truth.recipe_hash}: score the super-net again"
            )
        unscored = [str(child) for child in truth.architectures if not is_finite_number(losses.get(str(child)))]
        if unscored:
            raise ValueError(
                f"{where} lacks a finite loss of {len(unscored)} children of the table, such as {unscored[0]}"
            )
    try:
        refuse_twins(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found


def refuse_twins(scored: Sequence[Mapping[str, Any]]) -> None:
    """Refuse super-nets of two runs that would pass for one: by method and seed they are told apart.

    Raises:
        ValueError: If two have the same method, seed and step, or the same method and seed but trained for other
            numbers of steps.
    """
    known: dict[tuple[Any, ...], Any] = {}
    for record in scored:
        method, seed, step = record["method"], record["seed"], record["step"]
        identity = {(method, seed, step): record.get("supernet"), (method, seed): record.get("max_steps")}
        for key, value in identity.items():
            if seed is not None and known.setdefault(key, value) != value:
                raise ValueError(
                    f"super-nets of two runs are both {method}, seed {seed}, step {step} and would pass for one: "
                    "score one of them under a label of its own, or into another file"
                )


def proxy_losses(record: Mapping[str, Any], truth: GroundTruth) -> Array:
    """The proxy losses of a scored super-net, in the order of the table's children."""
    return np.array([record["proxy_losses"][str(child)] for child in truth.architectures], dtype=np.float64)


def last_steps(scored: Sequence[Record]) -> dict[str, list[Record]]:
    """The scored super-nets at the end of their training, by method, seeds in order.

    Super-nets that do not say their seed are all taken as runs of their own, those that do not say their step as ends.
    """
    last: dict[tuple[str, Any], Record] = {}
    for record in scored:
        key = (record["method"], record.get("supernet") if record["seed"] is None else record["seed"])
        if key not in last or _step(record) > _step(last[key]):
            last[key] = record
    methods = {method for method, _ in last}
    order = [name for name in _METHOD_ORDER if name in methods] + sorted(methods - set(_METHOD_ORDER))
    # A seed that is unknown has a name instead, behind the numbers.
    runs = sorted(last.items(), key=lambda item: (isinstance(item[0][1], str), item[0][1]))
    return {name: [record for (method, _), record in runs if method == name] for name in order}


def _step(record: Record) -> float:
    return math.inf if record["step"] is None else record["step"]


@dataclass(frozen=True)
class RankingReport:
    """Everything that the ranking study says of some super-nets and one table."""

    truth: GroundTruth
    methods: list[Ranked]
    baselines: list[Ranked]
    ceiling: dict[str, Interval]
    comparisons: list[tuple[Comparison, Comparison]]
    """Every other method against the first one: over all children, and inside size buckets."""
    worth: list[Worth]
    """What the truth and every method's super-nets say of each operator."""

    def as_markdown(self) -> str:
        """The tables, in Markdown."""
        rows = [*self.methods, *self.baselines]
        parts = [self.describe_table(), _as_table(_AGREEMENT, rows, self.ceiling), _as_table(_TOP, rows)]
        if self.comparisons:
            parts.append(self._comparison_table())
        return "\n\n".join([*parts, self._worth_table()])

    def describe_table(self) -> str:
        """What the truth is, in a few sentences."""
        truth = self.truth
        holding = "" if truth.containing is None else f" that hold `{truth.containing}`"
        num_seeds, num_repeated = truth.best_repeats.shape
        return (
            f"{len(truth.loss)} children{holding}, trained alone (seeds {', '.join(map(str, truth.seeds))}; recipe "
            f"`{truth.recipe_hash}`): dev loss {truth.loss.min():.3f} to {truth.loss.max():.3f}, standard deviation "
            f"{truth.spread:.4f} between children and {truth.spread_within_buckets:.4f} within {truth.num_buckets} "
            f"buckets of similar size. Seed noise of one training {truth.seed_noise:.4f} ({num_repeated} children, "
            f"{num_seeds} seeds), of the truth {truth.noise:.4f}."
        )

    def _comparison_table(self) -> str:
        lines = [
            "| method | against | seeds | difference of tau | p | difference within buckets | p |",
            "| --- " * 7 + "|",
        ]
        for overall, within in self.comparisons:
            cells = [overall.method, overall.baseline, str(overall.num_seeds)]
            for part in (overall.difference, within.difference):
                cells += [f"{part.mean:+.3f} [{part.low:+.3f}, {part.high:+.3f}]", f"{part.p_value:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _worth_table(self) -> str:
        operators = list(self.worth[0].effects)
        lines = [
            "| losses of | n | tau between two of them | variance explained | " + " | ".join(operators) + " |",
            "| --- " * (len(operators) + 4) + "|",
        ]
        for row in self.worth:
            agreement = "" if math.isnan(row.agreement) else f"{row.agreement:.3f}"
            cells = [row.name, str(row.num_rankings), agreement, f"{100 * row.explained:.0f} %"]
            for operator in operators:
                cells.append(" ".join("-" if math.isnan(x) else f"{1000 * x:+.0f}" for x in row.effects[operator]))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


_AGREEMENT = {
    "kendall_tau": "Kendall tau-b",
    "bucketed_tau": "tau within size buckets",
    "sparse_tau": "sparse tau",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "supernet_gap": "super-net gap",
}
_TOP = {
    "precision_at_5%": "P@5 %",
    "precision_at_10%": "P@10 %",
    "precision_at_20%": "P@20 %",
    "best_rank_at_1": "rank of the top 1",
    "best_rank_at_5": "best, top 5",
    "worst_rank_at_5": "worst, top 5",
    "best_rank_at_10": "best, top 10",
    "worst_rank_at_10": "worst, top 10",
    "relative_improvement": "improvement, %",
}


def _as_table(
    columns: Mapping[str, str], rows: Sequence[Ranked], ceiling: Mapping[str, Interval] | None = None
) -> str:
    shown = {key: head for key, head in columns.items() if any(key in row.measured for row in rows)}
    lines = [
        "| ranked by | n | " + " | ".join(shown.values()) + " |",
        "| --- " * (len(shown) + 2) + "|",
    ]
    for row in rows:
        cells = [_cell(key, row.measured.get(key)) for key in shown]
        lines.append(f"| {row.name} | {row.num_rankings} | " + " | ".join(cells) + " |")
    if ceiling:
        cells = [
            f"{ceiling[key].estimate:.3f} [{ceiling[key].low:.2f}, {ceiling[key].high:.2f}]" if key in ceiling else ""
            for key in shown
        ]
        lines.append("| *training them again (ceiling)* | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, measured: Measured | None) -> str:
    if measured is None or math.isnan(measured.mean):
        return ""
    digits = 1 if "rank" in key else 2
    deviation = "" if measured.seed_deviation is None else f" ± {measured.seed_deviation:.{digits}f}"
    interval = f"[{measured.low:.{digits}f}, {measured.high:.{digits}f}]"
    return f"{measured.mean:.{digits + 1 if digits == 2 else 1}f}{deviation} {interval}"


def report(truth: GroundTruth, scored: Sequence[Record], *, num_resamples: int = 1000, seed: int = 0) -> RankingReport:
    """The whole study: every method of the scored super-nets, the baselines, the ceiling and the paired tests.

    Args:
        truth: The table.
        scored: Records of scored super-nets (`read_scores`); of each the last step counts.
        num_resamples: Redraws of children behind an interval.
        seed: Seed of the redraws and of random baselines.
    """
    last = last_steps(scored)
    proxies = {method: [proxy_losses(record, truth) for record in found] for method, found in last.items()}
    settings: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    methods = [
        rank(name, losses, truth, is_proxy_loss=True, seeds=[record["seed"] for record in last[name]], **settings)
        for name, losses in proxies.items()
    ]
    comparisons = [
        (compare(method, methods[0]), compare(method, methods[0], within_buckets=True))
        for method in methods[1:]
        if method.seeds is not None and method.seeds == methods[0].seeds and len(method.seeds) > 1
    ]
    dull = baselines(truth, next(iter(proxies.values()), ()), **settings)
    alone: list[ArrayLike] = [[by_seed[number] for by_seed in truth.losses] for number in truth.seeds]
    worth = [operator_worth("children trained alone", alone, truth.architectures)]
    worth += [operator_worth(name, losses, truth.architectures) for name, losses in proxies.items()]
    ceiling = truth.ceiling(num_resamples=num_resamples, seed=seed)
    return RankingReport(truth, methods, dull, ceiling, comparisons, worth)


_METHOD_ORDER = ("uniform", "fair", "magic_t", "magic_a", "magic_at")
