"""Gradient similarities summarised: means by distance, block, kind and input; which blocks to split.

A *measurement* is one super-net's record: what it is (`method`, `seed`, `step`, `max_steps`), its settings, and the
rows of `measure_pairs` and `measure_blocks` as columns. Rows of several batches are averaged first. Intervals are 90 %
bootstrap intervals over **base children**, each redrawn with all its rows, the same in all super-nets: rows of one
child are not independent, nor are super-nets that were compared on the same pairs. They say nothing of other training
seeds; the range over seeds stands beside them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.methods import METHODS
from hf_nasbert.metrics import Interval, Redraws, cluster_interval, cluster_mean_interval
from hf_nasbert.records import Record, refuse_duplicate_runs
from hf_nasbert.space import operator_kind

Rows = dict[str, NDArray[Any]]

NUM_BINS = 5
BASELINE = "uniform"
UNKNOWN, UNTRAINED = "unknown", "untrained"

_SIMILARITIES = ("gradient_similarity", "input_similarity", "output_similarity")
_PAIR_COLUMNS = ("child", "other", "distance", "block", "operator", "num_before", *_SIMILARITIES)
_BLOCK_COLUMNS = ("setting", "block", "first", "second", "gradient_similarity")
_SEED = 0  # of the bootstrap: the same records give the same digits


class Group(NamedTuple):
    """Measurements of one method at one stage of training, one per seed.

    Args:
        stage: The share of training that is done, from 0 to 1; None where it is not known.
        method: How the super-nets were trained; `untrained` before the first step, where methods do not differ.
        records: The measurements.
    """

    stage: float | None
    method: str
    records: list[Record]

    @property
    def when(self) -> str:
        """The stage in words."""
        return _when(self.stage)


class Bin(NamedTuple):
    """Rows of neighbouring similarity: the mean of that similarity, and the gradient similarity there."""

    centre: float
    similarity: Interval
    num_rows: int


class Split(NamedTuple):
    """A choice block's candidates in two groups, and how far the two are apart.

    Args:
        groups: The candidates of either half.
        score: The mean distance (1 - gradient similarity) between candidates of different halves.
        within: The mean distance within halves; NaN where both have one candidate.
    """

    groups: tuple[tuple[str, ...], tuple[str, ...]]
    score: float
    within: float


def measurements(records: Iterable[Record]) -> list[Group]:
    """Group measurements by stage and method, in the order of tables and figures.

    Raises:
        ValueError: If a record is no measurement, one super-net was measured twice, or two would pass for one.
    """
    records = list(records)
    groups: dict[tuple[float | None, str], list[Record]] = {}
    seen = set()
    for number, record in enumerate(records, start=1):
        missing = [name for name in ("supernet", "step", "method", "seed", "pairs", "blocks") if name not in record]
        if missing:
            raise ValueError(f"record {number} is no measurement of interference: it has no {', '.join(missing)}")
        for part, columns in (("pairs", _PAIR_COLUMNS), ("blocks", _BLOCK_COLUMNS)):
            if not isinstance(record[part], Mapping):
                raise ValueError(f"record {number} is no measurement of interference: its {part} are no columns")
            lengths = {name: len(record[part].get(name, ())) for name in columns}
            if len(set(lengths.values())) != 1 or not lengths[columns[0]]:
                raise ValueError(f"record {number}: its {part} are cut, columns have the lengths {lengths}")
        if record["supernet"] in seen:
            raise ValueError(f"record {number}: super-net {record['supernet']} was measured twice")
        seen.add(record["supernet"])
        groups.setdefault(_place(record), []).append(record)
    refuse_duplicates(records)
    order = {method: number for number, method in enumerate(METHODS)}
    keys = sorted(groups, key=lambda key: (-1.0 if key[0] is None else key[0], order.get(key[1], len(order)), key[1]))
    return [Group(stage, method, groups[stage, method]) for stage, method in keys]


def refuse_duplicates(found: Iterable[Record]) -> None:
    """Refuse super-nets of two runs that would pass for one.

    Raises:
        ValueError: See `records.refuse_duplicate_runs`.
    """

    def told(record: Record) -> tuple[str, str]:
        stage, method = _place(record)
        return method, _when(stage)

    refuse_duplicate_runs(found, told)


def _when(stage: float | None) -> str:
    words = {None: "at an unknown step", 0.0: "before training", 1.0: "after training"}
    return words[stage] if stage in words else f"at {stage:.0%} of training"


def _place(record: Mapping[str, Any]) -> tuple[float | None, str]:
    """The stage and the method that a measurement is reported under."""
    step, whole = record["step"], record.get("max_steps")
    stage = 0.0 if step == 0 else round(step / whole, 2) if step is not None and whole else None
    return stage, UNTRAINED if step == 0 else record["method"] or UNKNOWN


def pair_rows(records: Sequence[Record]) -> Rows:
    """The rows of several measurements as columns, averaged over batches.

    One row per measurement, pair and shared block. `gradient_similarity` is the mean over the batches that have one,
    NaN if none has; `measurement` is the record's number, `seed` its training seed.
    """
    parts = [_averaged(record["pairs"]) for record in records]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return rows | {"measurement": np.repeat(np.arange(len(parts)), [len(part["block"]) for part in parts])}


def _averaged(columns: Mapping[str, Sequence[Any]]) -> Rows:
    keys = list(zip(columns["child"], columns["other"], columns["block"], strict=True))
    number_of: dict[tuple[Any, ...], int] = {}
    inverse = np.array([number_of.setdefault(key, len(number_of)) for key in keys])
    _, first = np.unique(inverse, return_index=True)
    rows: Rows = {
        name: np.asarray(columns[name])[first] for name in ("child", "other", "distance", "block", "operator")
    }
    rows["num_before"] = np.asarray(columns["num_before"])[first]
    for name in _SIMILARITIES:
        values = np.array(columns[name], dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(values)
        counts = np.bincount(inverse[finite], minlength=len(first))
        sums = np.bincount(inverse[finite], weights=values[finite], minlength=len(first))
        rows[name] = np.divide(sums, counts, out=np.full(len(first), np.nan), where=counts > 0)
    rows["kind"] = np.array([operator_kind(name) for name in rows["operator"]])
    return rows


def mean_similarity(rows: Rows, where: NDArray[np.bool_] | None = None) -> Interval | None:
    """The mean gradient similarity of rows, with its interval over base children; None where there is no row."""
    return _mean(rows["child"], rows["gradient_similarity"], where)


def _mean(
    clusters: NDArray[Any], values: NDArray[np.float64], where: NDArray[np.bool_] | None = None
) -> Interval | None:
    usable = np.isfinite(values) if where is None else np.isfinite(values) & where
    if usable.sum() < 2:
        return Interval(float(values[usable][0]), float("nan"), float("nan")) if usable.any() else None
    return cluster_mean_interval(clusters[usable], values[usable], seed=_SEED)


def associations(rows: Rows) -> dict[str, Interval | None]:
    """Spearman's correlation of gradient similarity with distance, input and output similarity.

    With inputs and outputs among rows with different inputs only: where all blocks in front are the same, so are
    inputs and outputs. `within` a block and operator, the means of each (block, operator) are taken off both sides
    first: deeper blocks have other gradients and less similar inputs for whatever reason.
    """
    differing = rows["num_before"] > 0
    found: dict[str, Interval | None] = {}
    for name, where in (("distance", None), ("input_similarity", differing), ("output_similarity", differing)):
        usable = np.isfinite(rows["gradient_similarity"]) & np.isfinite(rows[name])
        usable = usable if where is None else usable & where
        sides = [rows["gradient_similarity"], rows[name].astype(np.float64)]
        for suffix, (similarity, other) in (
            ("", sides),
            (" within", [_centred(rows, side, usable) for side in sides]),
        ):
            found[name + suffix] = (
                cluster_interval(
                    Redraws.spearman, rows["child"][usable], similarity[usable], other[usable], seed=_SEED
                )
                if usable.sum() > 1
                else None
            )
    return found


def _centred(rows: Rows, values: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values less their mean over each measurement's usable rows of one block and operator."""
    keys = list(zip(rows["measurement"], rows["block"], rows["operator"], strict=True))
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    group = np.array([number_of[key] for key in keys])
    counts = np.bincount(group[usable], minlength=len(number_of))
    sums = np.bincount(group[usable], weights=values[usable], minlength=len(number_of))
    # Rounded: what is left of equal numbers after their mean are a few last bits, and ranks would tell them apart.
    centred: NDArray[np.float64] = np.round(values - (sums / np.maximum(counts, 1))[group], 12)
    return centred


def similarity_bins(rows: Rows, column: str, num_bins: int = NUM_BINS) -> list[Bin]:
    """Gradient similarity by input or output similarity, in bins with equally many rows, of rows with other inputs."""
    usable = (rows["num_before"] > 0) & np.isfinite(rows["gradient_similarity"]) & np.isfinite(rows[column])
    if not usable.any():
        return []
    edges = np.quantile(rows[column][usable], np.arange(1, num_bins) / num_bins)
    bin_of = np.searchsorted(edges, rows[column], side="left")
    bins = []
    for number in range(num_bins):
        inside = usable & (bin_of == number)
        similarity = mean_similarity(rows, inside)
        if similarity is not None:
            bins.append(Bin(float(rows[column][inside].mean()), similarity, int(inside.sum())))
    return bins


def gain_over(rows: Rows, baseline: Rows, where: Callable[[Rows], NDArray[np.bool_]] | None = None) -> Interval | None:
    """How much more similar gradients are than in the baseline: the mean difference over the same pairs and blocks.

    Args:
        rows: Measurements of one method.
        baseline: As many of the baseline, super-net by super-net of the same seed.
        where: Which rows count.

    Raises:
        ValueError: If the two were not measured on the same pairs.
    """
    for name in ("child", "other", "block", "operator", "measurement"):
        if not np.array_equal(rows[name], baseline[name]):
            raise ValueError(f"measured on other pairs: they differ in {name}")
    difference = rows["gradient_similarity"] - baseline["gradient_similarity"]
    return _mean(rows["child"], difference, None if where is None else where(rows))


def best_split(candidates: Sequence[str], similarity: Mapping[tuple[str, str], float]) -> Split | None:
    """Part candidates into two halves (sizes differ by one at most) with the least mean distance within halves.

    Brute force, as GM-NAS (its public code) does for five operators; distance is 1 - gradient similarity, and the
    score is the distance across, here as a mean, so that blocks with unequally many candidates compare.

    Args:
        candidates: The operators of one choice block.
        similarity: The mean gradient similarity of every pair, its names in either order.

    Returns:
        The split, the first found of equals; None if there are fewer than two candidates, or a pair has no number.
    """
    distance = {frozenset(pair): 1 - value for pair, value in similarity.items() if np.isfinite(value)}
    pairs = [frozenset(pair) for pair in combinations(candidates, 2)]
    if not pairs or not all(pair in distance for pair in pairs):
        return None
    splits = []
    for half in combinations(candidates, len(candidates) // 2):
        rest = tuple(name for name in candidates if name not in half)
        is_across = [len(pair & set(half)) == 1 for pair in pairs]
        across = [distance[pair] for pair, crosses in zip(pairs, is_across, strict=True) if crosses]
        within = [distance[pair] for pair, crosses in zip(pairs, is_across, strict=True) if not crosses]
        inside = float(np.mean(within)) if within else float("nan")
        first, second = sorted((half, rest), key=lambda group: candidates.index(group[0]))
        splits.append(Split((first, second), float(np.mean(across)), inside))
    return min(splits, key=lambda split: (0.0 if np.isnan(split.within) else split.within, -split.score))


def block_splits(records: Sequence[Record]) -> dict[int, tuple[dict[tuple[str, str], Interval], Split | None]]:
    """Per choice block the mean gradient similarity of every pair of candidates, and the best split of them.

    Over all settings of all measurements; intervals are over settings, each redrawn in all measurements the same way.
    """
    found: dict[int, dict[tuple[str, str], tuple[list[int], list[float]]]] = {}
    for record in records:
        names = ("block", "first", "second", "setting", "gradient_similarity")
        for block, first, second, setting, value in zip(*(record["blocks"][name] for name in names), strict=True):
            settings, values = found.setdefault(block, {}).setdefault((first, second), ([], []))
            if value is not None:
                settings.append(setting)
                values.append(value)
    splits = {}
    for block in sorted(found):
        known: dict[tuple[str, str], Interval] = {}
        for pair, (settings, values) in found[block].items():
            interval = _mean(np.array(settings), np.array(values))
            if interval is not None:
                known[pair] = interval
        candidates = list(dict.fromkeys(name for names in zip(*found[block], strict=True) for name in names))
        splits[block] = (known, best_split(candidates, {pair: known[pair].estimate for pair in known}))
    return splits
