"""What all figures share: their look, the colours of operators, legends, and how they are written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_nasbert.lazy import check_extra
from hf_nasbert.methods import METHODS
from hf_nasbert.space import SKIP, operator_kind
from hf_nasbert.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision: https://jfly.uni-koeln.de/color/
OPERATOR_COLOURS = {
    "attention": "#0072B2",
    "ffn": "#E69F00",
    "conv3": "#56B4E9",
    "conv5": "#009E73",
    "conv7": "#CC79A7",
    "norm": "#B0B0B0",
    SKIP: "#F2F2F2",
}
_SPARE_COLOURS = ("#F0E442", "#D55E00", "#8C8C8C", "#000000")  # for operators a user adds
WINNER_COLOUR = "#D55E00"
FRONT_COLOUR = "#0072B2"
QUIET_COLOUR = "#B0B0B0"
INK = "#333333"
_NUM_COLOURS = 256

_UNTRAINED_LOOK = ("#8C8C8C", "x")
_OTHER_LOOK = ("#CC79A7", "P")
_WIDE_GAP = 0.4  # of the whole range: two clusters further apart than this hide all else
_GAP, _LEAST = 0.08, 0.15  # of a broken axis: what stands for the gap, and what a cluster gets at least

_STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": "cycler('color', ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "figure.dpi": 160,
    "font.size": 9,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.hashsalt": "hf_nasbert",  # matplotlib's ids are random without it
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "xtick.color": INK,
    "ytick.color": INK,
}


def save_figure(figure: "Figure", path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG beside each other; the same figure gives the same bytes.

    Args:
        figure: One of this module's.
        path: Where to write, without a suffix; folders are made.

    Returns:
        The two files.

    Raises:
        WriteError: If one cannot be written.
    """
    path = Path(path)
    png, svg = path.with_name(path.name + ".png"), path.with_name(path.name + ".svg")
    with figure_style():
        # The software's version and the date would change the bytes of an unchanged figure.
        for file, metadata in ((png, {"Software": None}), (svg, {"Date": None, "Creator": None})):
            drawn = BytesIO()
            figure.savefig(drawn, format=file.suffix[1:], metadata=metadata)
            write_bytes(file, drawn.getvalue() if file == svg else _with_palette(drawn))
    return png, svg


def _with_palette(drawn: BytesIO) -> bytes:
    """A PNG of a palette, which looks the same at a third of the bytes."""
    from PIL import Image  # matplotlib needs it

    written = BytesIO()
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(_NUM_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(written, "PNG", optimize=True)
    return written.getvalue()


@contextmanager
def figure_style() -> Iterator[None]:
    """Our look and nobody else's settings, inside a `with`."""
    check_extra("a figure", "plots", "matplotlib")
    from matplotlib import style

    # "default" first: a user's matplotlibrc would change the figures.
    with style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches that pyplot knows nothing of."""
    check_extra("a figure", "plots", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_below(figure: "Figure") -> None:
    """Under the figure, where it cannot hide a point: in one row if that fits, else in more; every label once."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    inches = [0.07 * len(label) + 0.45 for label in entries]  # of 8.5 point letters and the sign before them
    fitting = len(entries) if sum(inches) < figure.get_figwidth() else int(figure.get_figwidth() / max(inches))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=max(1, fitting),
        fontsize=8.5,
        columnspacing=1.4,
        handlelength=1.5,
        handletextpad=0.5,
    )


def operator_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every kind of operator; kinds we do not know share out the spare ones in alphabetical order."""
    unknown = sorted({operator_kind(name) for name in names} - OPERATOR_COLOURS.keys())
    spare = {kind: _SPARE_COLOURS[i % len(_SPARE_COLOURS)] for i, kind in enumerate(unknown)}
    return {**OPERATOR_COLOURS, **spare}


def count_of(number: int, thing: str, things: str | None = None) -> str:
    """A number with its noun: 1 child, 1,000 children."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def look_of(method: str) -> tuple[str, str]:
    """Colour and marker of a training method, the same in every figure; one look for all that have none."""
    if method == "untrained":
        return _UNTRAINED_LOOK
    return METHODS[method].look if method in METHODS else _OTHER_LOOK


def break_axis(axes: "Axes", values: Sequence[float], which: Literal["x", "y"]) -> bool:
    """Leave out of an axis the gap between two clusters far apart, and mark where; returns whether there was one.

    Args:
        axes: With all points drawn.
        values: The points' numbers along the axis.
        which: The axis.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, MaxNLocator

    ordered = sorted(set(values))
    gap, place = max(((b - a, at) for at, (a, b) in enumerate(pairwise(ordered))), default=(0.0, 0))
    if not ordered or gap <= _WIDE_GAP * (ordered[-1] - ordered[0]):
        return False
    groups = [ordered[: place + 1], ordered[place + 1 :]]
    rooms = [0.15 * (group[-1] - group[0]) or 0.02 * gap for group in groups]
    ends = [(group[0] - room, group[-1] + room) for group, room in zip(groups, rooms, strict=True)]
    widths = [high - low for low, high in ends]
    first = min(max(widths[0] / sum(widths) * (1 - _GAP), _LEAST), 1 - _GAP - _LEAST)
    numbers = [*ends[0], *ends[1]]
    shares = [0.0, first, first + _GAP, 1.0]
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    {"x": axes.set_xscale, "y": axes.set_yscale}[which](
        "function",
        functions=(lambda value: np.interp(value, numbers, shares), lambda share: np.interp(share, shares, numbers)),
    )
    (axes.set_xlim if which == "x" else axes.set_ylim)(numbers[0], numbers[-1])
    ticks: list[float] = []
    for (low, high), share in zip(ends, (first, 1 - _GAP - first), strict=True):
        found = [tick for tick in MaxNLocator(4 if share > 0.4 else 1).tick_values(low, high) if low <= tick <= high]
        ticks += found if share > 0.4 else found[len(found) // 2 :][:1]  # there is no room for two beside each other
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    transform, middle = axes.transAxes, first + _GAP / 2
    at = [(middle - 0.012, 0.0), (middle + 0.012, 0.0)]
    points = at if which == "x" else [(y, x) for x, y in at]
    marker = [(-0.6, -1), (0.6, 1)] if which == "x" else [(-1, -0.6), (1, 0.6)]
    axes.plot(
        *zip(*points, strict=True), transform=transform, marker=marker, ms=8, mec=INK, mew=1, ls="", clip_on=False,
        label="_nolegend_", zorder=5,
    )  # fmt: skip
    return True
