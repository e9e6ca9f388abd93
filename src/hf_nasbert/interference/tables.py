"""Summaries of gradient similarities as Markdown: the tables of a page."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.interference.summaries import (
    BASELINE,
    NUM_BINS,
    Group,
    Rows,
    associations,
    block_splits,
    gain_over,
    mean_similarity,
    measurements,
    pair_rows,
    similarity_bins,
)
from hf_nasbert.metrics import Interval
from hf_nasbert.records import Record

_NO_RECORDS = "*No records yet.*"


def as_markdown(records: Sequence[Record], names: Iterable[str] | None = None) -> dict[str, str]:
    """The tables of `docs/appendix/interference.md` from measurements: all, or those of these names.

    Raises:
        ValueError: If there is no table of such a name, or a record is no measurement.
    """
    names = list(_TABLES if names is None else names)
    unknown = [name for name in names if name not in _TABLES]
    if unknown:
        raise ValueError(f"there is no table {unknown[0]!r} of interference, only {', '.join(_TABLES)}")
    groups = measurements(records)
    if not groups:
        return dict.fromkeys(names, _NO_RECORDS)
    rows = [pair_rows(group.records) for group in groups]
    return {name: _TABLES[name](groups, rows) for name in names}


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def _cell(interval: Interval | None) -> str:
    if interval is None or np.isnan(interval.estimate):
        return "-"
    bounds = "" if np.isnan(interval.low) else f" [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{interval.estimate:.3f}{bounds}"


def _names(group: Group) -> list[str]:
    return [group.when, group.method]


def _overview(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    lines = []
    for group, columns in zip(groups, rows, strict=True):
        values = columns["gradient_similarity"]
        finite = np.isfinite(values)
        per_seed = [
            float(values[finite & (columns["measurement"] == number)].mean())
            for number in range(len(group.records))
            if (finite & (columns["measurement"] == number)).any()
        ]
        seeds = ", ".join(sorted({str(record["seed"]) for record in group.records}))
        spread = f"{min(per_seed):.3f} to {max(per_seed):.3f}" if len(per_seed) > 1 else "-"
        same = columns["num_before"] == 0
        lines.append(
            [
                *_names(group),
                seeds,
                f"{len(np.unique(columns['child']))}",
                f"{finite.sum():,}" + (f" ({(~finite).sum():,} without a direction)" if not finite.all() else ""),
                _cell(mean_similarity(columns)),
                spread,
                _cell(mean_similarity(columns, same)),
                _cell(mean_similarity(columns, ~same)),
            ]
        )
    header = ["stage", "method", "seeds", "base children", "rows", "all rows", "range over seeds"]
    return _table([*header, "same inputs", "different inputs"], lines)


def _by_distance(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    distances = sorted({int(distance) for columns in rows for distance in columns["distance"]})
    lines = [
        [*_names(group), *(_cell(mean_similarity(columns, columns["distance"] == distance)) for distance in distances)]
        for group, columns in zip(groups, rows, strict=True)
    ]
    return _table(["stage", "method", *map(str, distances)], lines)


def _associations(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    lines = []
    for group, columns in zip(groups, rows, strict=True):
        found = associations(columns)
        lines.append([*_names(group), *(_cell(interval) for interval in found.values())])
    header = ["distance", "distance, within", "inputs", "inputs, within", "outputs", "outputs, within"]
    return _table(["stage", "method", *header], lines)


def _by_similarity(column: str, groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    lines = []
    for group, columns in zip(groups, rows, strict=True):
        bins = similarity_bins(columns, column)
        cells = [f"at {part.centre:.3f}: {_cell(part.similarity)}" for part in bins]
        lines.append([*_names(group), *cells, *["-"] * (NUM_BINS - len(cells))])
    return _table(["stage", "method", *(f"fifth {number + 1}" for number in range(NUM_BINS))], lines)


def _by_block(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    kinds = sorted({str(kind) for columns in rows for kind in columns["kind"]})
    lines = []
    for group, columns in zip(groups, rows, strict=True):
        places: list[tuple[str, NDArray[np.bool_]]] = [
            (str(block), columns["block"] == block) for block in sorted(set(columns["block"].tolist()))
        ]
        for name, here in [*places, ("all", np.ones(len(columns["block"]), dtype=np.bool_))]:
            cells = [_cell(mean_similarity(columns, here & (columns["kind"] == kind))) for kind in kinds]
            lines.append([*_names(group), name, *cells, _cell(mean_similarity(columns, here))])
    return _table(["stage", "method", "block", *kinds, "all"], lines)


def _gains(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    """The differences from the baseline at the same stage, on the seeds that both have."""
    baselines = {group.stage: group for group in groups if group.method == BASELINE}
    lines = []
    for group in groups:
        if group.stage not in baselines or group.method == BASELINE:
            continue
        own, theirs = ({record["seed"]: record for record in side.records} for side in (group, baselines[group.stage]))
        seeds = [seed for seed in own if seed in theirs]
        if not seeds:
            continue
        pair = pair_rows([own[seed] for seed in seeds]), pair_rows([theirs[seed] for seed in seeds])
        per_seed = [gain_over(pair_rows([own[seed]]), pair_rows([theirs[seed]])) for seed in seeds]
        gains = [f"{gain.estimate:+.3f}" for gain in per_seed if gain is not None]
        lines.append(
            [
                *_names(group),
                _cell(gain_over(*pair)),
                ", ".join(gains),
                _cell(gain_over(*pair, where=lambda columns: columns["distance"] == 1)),
                _cell(gain_over(*pair, where=lambda columns: columns["num_before"] == 0)),
                _cell(gain_over(*pair, where=lambda columns: columns["num_before"] > 0)),
            ]
        )
    if not lines:
        return f"*No stage has both {BASELINE} and another method.*"
    header = ["all rows", "seed by seed", "one differing operator", "same inputs", "different inputs"]
    return _table(["stage", "method", *header], lines)


def _splits(groups: Sequence[Group], rows: Sequence[Rows]) -> str:
    lines = []
    for group in groups:
        for block, (similarity, split) in block_splits(group.records).items():
            pairs = "; ".join(f"{first}, {second}: {_cell(value)}" for (first, second), value in similarity.items())
            halves = " / ".join(", ".join(half) for half in split.groups) if split else "-"
            score = "-" if split is None else f"{split.score:.3f}"
            within = "-" if split is None or np.isnan(split.within) else f"{split.within:.3f}"
            lines.append([*_names(group), str(block), halves, score, within, pairs])
    return _table(["stage", "method", "block", "split", "distance across", "within", "similarity of pairs"], lines)


_TABLES: dict[str, Callable[[Sequence[Group], Sequence[Rows]], str]] = {
    "overview": _overview,
    "distance": _by_distance,
    "associations": _associations,
    "inputs": partial(_by_similarity, "input_similarity"),
    "outputs": partial(_by_similarity, "output_similarity"),
    "blocks": _by_block,
    "gains": _gains,
    "splits": _splits,
}
