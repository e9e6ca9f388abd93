"""Figures of interference: gradient similarity of shared operators, by distance, by input and output, by block."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.interference import mean_similarity, measurements, pair_rows, similarity_bins
from hf_nasbert.interference.summaries import Group, Rows
from hf_nasbert.metrics import Interval
from hf_nasbert.plots.style import figure_style, legend_below, look_of, new_figure
from hf_nasbert.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Against = Literal["distance", "input_similarity", "output_similarity"]

_AXES = {
    "distance": "differing choice blocks",
    "input_similarity": "similarity of the inputs",
    "output_similarity": "similarity of the outputs",
}
_PANELS_PER_ROW = 3


def plot_gradient_similarity(
    records: Sequence[Record], *, against: Against = "distance", title: str | None = None
) -> "Figure":
    """Draw how similar a shared operator's gradients are under two children: a panel per stage, a line per method.

    Lines are means over all pairs and seeds, bands 90 % bootstrap intervals over base children. Against similarities
    the points are fifths of the rows (with different inputs only), at their mean.

    Args:
        records: Measurements, as `measure_interference` writes them.
        against: What to draw along: the children's distance, or how similar the operator's inputs or outputs are.
        title: Above the figure; what is shown if absent.

    Raises:
        ValueError: If there is no measurement, or `against` is no such thing.
    """
    if against not in _AXES:
        raise ValueError(f"against={against!r}: expected one of {', '.join(_AXES)}")
    groups = _groups(records)
    stages = list(dict.fromkeys(group.stage for group in groups))
    methods = list(dict.fromkeys(group.method for group in groups))
    with figure_style():
        figure = new_figure(max(4.6, 2.9 * len(stages) + 0.6), 3.4)
        panels = figure.subplots(1, len(stages), sharex=True, sharey=True, squeeze=False)[0]
        for method in methods:  # the legend is made from the first panel, which may not have them all
            colour, marker = look_of(method)
            panels[0].plot([], [], color=colour, marker=marker, markersize=4, label=method)
        for axes, stage in zip(panels, stages, strict=True):
            here = [group for group in groups if group.stage == stage]
            for group in here:
                _draw_line(axes, group.method, _points(pair_rows(group.records), against))
            axes.set_title(here[0].when, fontsize=9.5)
            axes.set_xlabel(_AXES[against])
            if against == "distance":
                axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("gradient similarity (cosine)")
        figure.suptitle(
            title or "How alike an operator's gradients are under two children", fontsize=11, x=0.02, ha="left"
        )
        legend_below(figure)
    return figure


def plot_similarity_by_block(records: Sequence[Record], *, title: str | None = None) -> "Figure":
    """Draw the mean gradient similarity of every choice block and operator kind, a panel per method at its last stage.

    Args:
        records: Measurements, as `measure_interference` writes them.
        title: Above the figure; what is shown if absent.

    Raises:
        ValueError: If there is no measurement, or in none of them a gradient has a direction.
    """
    last = {group.method: group for group in _groups(records)}  # the stages come in their order
    shown = [group for method, group in last.items() if method != "untrained"] or list(last.values())
    rows = [pair_rows(group.records) for group in shown]
    kinds = sorted({str(kind) for columns in rows for kind in columns["kind"]})
    blocks = sorted({int(block) for columns in rows for block in columns["block"]})
    values = [_matrix(columns, blocks, kinds) for columns in rows]
    known = [float(np.nanmin(matrix)) for matrix in values if not np.isnan(matrix).all()]
    if not known:
        raise ValueError("no gradient of these measurements has a direction: there is nothing to draw")
    lowest = math.floor(10 * min(known)) / 10
    with figure_style():
        num_columns = min(len(shown), _PANELS_PER_ROW)
        num_lines = math.ceil(len(shown) / num_columns)
        size = (0.62 * len(kinds) + 0.35) * num_columns + 1.5, (0.32 * len(blocks) + 0.95) * num_lines + 0.5
        figure = new_figure(max(4.0, size[0]), max(2.2, size[1]))
        grid = figure.subplots(num_lines, num_columns, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes, group, matrix in zip(panels, shown, values, strict=False):
            axes.grid(visible=False)
            mesh = axes.pcolormesh(matrix, cmap="viridis", vmin=lowest, vmax=1.0, edgecolors="white", linewidth=1)
            for (row, column), value in np.ndenumerate(matrix):
                text = "-" if np.isnan(value) else f"{value:.2f}"
                is_dark = not np.isnan(value) and (value - lowest) / (1.0 - lowest) < 0.6
                colour = "white" if is_dark else "black"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color=colour)
            axes.set_xticks([number + 0.5 for number in range(len(kinds))], kinds, rotation=35, ha="right")
            axes.set_yticks([number + 0.5 for number in range(len(blocks))], [str(block) for block in blocks])
            axes.tick_params(length=0)
            axes.set_title(group.method, fontsize=9.5)
        for axes in grid[:, 0]:
            axes.set_ylabel("choice block")
        panels[0].invert_yaxis()  # shared by all
        figure.colorbar(mesh, ax=panels, label="gradient similarity (cosine)", pad=0.02)
        when = ", ".join(dict.fromkeys(group.when for group in shown))
        figure.suptitle(title or f"By block and operator, {when}", fontsize=11, x=0.02, ha="left")
    return figure


def _groups(records: Sequence[Record]) -> list[Group]:
    groups = measurements(records)
    if not groups:
        raise ValueError("cannot draw interference: there is no measurement")
    return groups


def _points(rows: Rows, against: Against) -> list[tuple[float, Interval]]:
    if against != "distance":
        return [(part.centre, part.similarity) for part in similarity_bins(rows, against)]
    points = []
    for distance in sorted({int(distance) for distance in rows["distance"]}):
        similarity = mean_similarity(rows, rows["distance"] == distance)
        if similarity is not None:
            points.append((float(distance), similarity))
    return points


def _draw_line(axes: "Axes", method: str, points: Sequence[tuple[float, Interval]]) -> None:
    colour, marker = look_of(method)
    places = [place for place, _ in points]
    axes.plot(places, [part.estimate for _, part in points], color=colour, marker=marker, markersize=4, linewidth=1.3)
    low, high = [part.low for _, part in points], [part.high for _, part in points]
    axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)


def _matrix(rows: Rows, blocks: Sequence[int], kinds: Sequence[str]) -> NDArray[np.float64]:
    """The mean gradient similarity by block and kind, NaN where no row has both."""
    matrix = np.full((len(blocks), len(kinds)), np.nan)
    finite = np.isfinite(rows["gradient_similarity"])
    for row, block in enumerate(blocks):
        for column, kind in enumerate(kinds):
            inside = finite & (rows["block"] == block) & (rows["kind"] == kind)
            if inside.any():
                matrix[row, column] = rows["gradient_similarity"][inside].mean()
    return matrix
