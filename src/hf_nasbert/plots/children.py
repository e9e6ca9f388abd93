"""Figures of one super-net and its children: an architecture, a Pareto front, a training run, the best operators."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hf_nasbert.modeling.geometry_nasbert import Block, geometry
from hf_nasbert.plots.style import (
    FRONT_COLOUR,
    INK,
    OPERATOR_COLOURS,
    QUIET_COLOUR,
    WINNER_COLOUR,
    count_of,
    figure_style,
    legend_below,
    new_figure,
    operator_colours,
)
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import SKIP, Architecture, operator_kind, operator_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Cost name in a record -> (axis label, what one unit of the axis is).
_COST_AXES = {
    "num_parameters": ("parameters (millions)", 1e6),
    "flops": ("FLOPs (billions)", 1e9),
    "latency_ms": ("latency (ms)", 1.0),
}


def plot_architecture(
    architecture: Sequence[str] | str, *, stage_lengths: Sequence[int] | None = None, title: str | None = None
) -> "Figure":
    """Draw an architecture as a chain of coloured blocks, read like text: left to right, then the next row.

    The height of a block grows with its hidden size where the architecture has several.

    Args:
        architecture: Operator names, or their text form.
        stage_lengths: Choice blocks per stage. Without it a new stage is drawn wherever the width changes.
        title: Above the chain; the number of blocks and operators if absent.
    """
    names = _parse(architecture)
    stages = _stages(names, stage_lengths)
    blocks = geometry(names, 0, [stop - start for start, stop in stages])  # a width of 0: the model's, whatever it is
    row_length = _row_length(len(names), [stop - start for start, stop in stages])
    num_rows = math.ceil(len(names) / row_length)
    widest = max(block.width for block in blocks)
    staged = len(stages) > 1 or widest > 0
    num_real = sum(block.kind != SKIP for block in blocks)
    with figure_style():
        # In units of the data, of which one is 0.72 inches: then a block holds the word "attention" in small print.
        step, row_step = 1.3, 2.0 if staged else 1.6
        left, right = -0.6, (row_length + 1) * step + 0.6  # the network's two ends stand beside the blocks
        bottom, top = -(num_rows - 1) * row_step - (1.2 if staged else 0.75), 0.5
        figure = new_figure((right - left) * 0.72, (top - bottom) * 0.72 + 0.35)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title(title or f"{count_of(num_real, 'operator')} in {count_of(len(names), 'choice block')}", pad=4)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.set_aspect("equal")

        centres = [((i % row_length + 1) * step, -(i // row_length) * row_step) for i in range(len(names))]
        first, last = (0.0, 0.0), (centres[-1][0] + step, centres[-1][1])
        _draw_block(axes, first, 0.62, "embed-\ndings", "#FFFFFF", outline=QUIET_COLOUR)
        _draw_block(axes, last, 0.62, "masked-\nLM head", "#FFFFFF", outline=QUIET_COLOUR)
        _draw_arrows(axes, [first, *centres, last])
        colours = operator_colours(names)
        for block, centre in zip(blocks, centres, strict=True):
            # Half the height at least: a narrow stage must stay legible.
            height = 0.78 * (0.5 + 0.5 * block.width / widest if widest else 1.0)
            label = block.kind if block.size is None else f"{block.kind}\n{block.size}"
            _draw_block(axes, centre, height, label, colours[block.kind], dashed=block.kind == SKIP)
            axes.text(
                centre[0], centre[1] - 0.5, str(block.index), ha="center", va="top", fontsize=6.5, color="#777777"
            )
        if staged:
            _draw_stages(axes, blocks, stages, centres)
    return figure


def plot_pareto_front(
    children: Sequence[ScoredChild],
    *,
    cost: str = "num_parameters",
    winner: Sequence[str] | str | None = None,
    max_cost: float | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw proxy loss over cost: every scored child, the front of those nothing beats, the winner and the budget.

    Args:
        children: The scored children. Those without a finite loss are left out, and the title says how many.
        cost: The cost on the horizontal axis.
        winner: The architecture to mark; must be one of `children`.
        max_cost: The budget, drawn as a line.
        title: Above the figure; the number of children if absent.

    Raises:
        ValueError: If there is no child with a finite loss, or the winner is not among them.
    """
    finite = [
        (float(child.cost[cost]), child.loss, str(child.architecture))
        for child in children
        if _is_finite(child.cost[cost]) and math.isfinite(child.loss)
    ]
    if not finite:
        raise ValueError(
            f"cannot draw a front: none of the {len(children)} children has a finite {cost} and proxy_loss"
        )
    label, unit = _COST_AXES.get(cost, (cost, 1.0))
    front = _pareto_front([(x, y) for x, y, _ in finite])
    with figure_style():
        figure = new_figure(6.4, 4.2)
        axes = figure.add_subplot()
        axes.scatter(
            [x / unit for x, _, _ in finite],
            [y for _, y, _ in finite],
            s=max(3.0, min(18.0, 6000 / len(finite))),
            color=QUIET_COLOUR,
            alpha=0.6,
            linewidths=0,
            label=count_of(len(finite), "scored child", "scored children"),
            rasterized=len(finite) > 2000,  # a point each would make the SVG megabytes
        )
        axes.step(
            [x / unit for x, _ in front],
            [y for _, y in front],
            where="post",  # between two members the cheaper one is the best there is
            color=FRONT_COLOUR,
            marker="o",
            markersize=4,
            linewidth=1.4,
            label=f"Pareto front ({len(front)})",
        )
        if max_cost is not None:
            axes.axvline(max_cost / unit, color=INK, linestyle="--", linewidth=1, label="budget")
        if winner is not None:
            text = _text(winner)
            marked = [point for point in finite if point[2] == text]
            if not marked:
                raise ValueError(f"cannot mark the winner {text}: it is not among the {len(finite)} scored children")
            x, y, _ = marked[-1]  # scored twice: the later record counts
            axes.plot(
                [x / unit],
                [y],
                marker="*",
                markersize=15,
                color=WINNER_COLOUR,
                markeredgecolor="white",
                linestyle="none",
                label=f"winner: {x / unit:,.3g}, loss {y:.3f}",
                zorder=5,
            )
        num_lost = len(children) - len(finite)
        lost = f" ({num_lost:,} without a finite score not shown)" if num_lost else ""
        axes.set_title(title or f"Proxy loss against cost, {count_of(len(finite), 'child', 'children')}{lost}")
        axes.set_xlabel(label)
        axes.set_ylabel("proxy loss (nats per masked token)")
        axes.margins(0.06)
        legend_below(figure)
    return figure


def plot_training(history: Sequence[Mapping[str, Any]], *, title: str | None = None) -> "Figure":
    """Draw a super-net's training loss over steps, its evaluations, and every change of the anchor.

    Args:
        history: Records of a training log, each with a `step` and an `event`: "train" and "eval" with a `loss`,
            "anchor" where the anchor was replaced. Records of other events are passed over.
        title: Above the figure; the number of steps if absent.

    Raises:
        ValueError: If no "train" record has a loss.
    """
    trained, evaluated = _losses(history, "train"), _losses(history, "eval")
    changes = sorted(int(record["step"]) for record in history if record["event"] == "anchor")
    if not trained:
        raise ValueError(
            f"cannot draw a training curve: none of the {len(history)} records is a 'train' event with a loss"
        )
    steps, losses = [step for step, _ in trained], [loss for _, loss in trained]
    window = max(1, len(losses) // 40)
    with figure_style():
        figure = new_figure(6.4, 3.6)
        axes = figure.add_subplot()
        if window > 1:
            axes.plot(steps, losses, color=QUIET_COLOUR, linewidth=0.6, label="training loss")
        axes.plot(
            steps,
            _running_mean(losses, window),
            color=FRONT_COLOUR,
            linewidth=1.6,
            marker="o" if len(steps) == 1 else "",
            label=f"mean of {window} records" if window > 1 else "training loss",
        )
        if evaluated:
            axes.plot(
                [step for step, _ in evaluated],
                [loss for _, loss in evaluated],
                color=OPERATOR_COLOURS["ffn"],
                marker="s",
                markersize=4,
                linestyle=":",
                label="dev loss, mean of children",
            )
        if changes:
            # Short ticks from the top: dozens of full-height lines would hide the curve.
            label = f"anchor replaced {count_of(len(changes), 'time')}"
            axes.vlines(
                changes,
                0.94,
                1.0,
                color=WINNER_COLOUR,
                linewidth=1,
                transform=axes.get_xaxis_transform(),
                label=label,
            )
            axes.margins(y=0.1)  # the ticks' share of the height stays free of the curve
        axes.set_title(title or f"Super-net training, {count_of(max(steps), 'step')}")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats per masked token)")
        axes.margins(x=0.02)
        legend_below(figure)
    return figure


def plot_operator_frequency(
    children: Sequence[ScoredChild], *, share: float = 0.05, title: str | None = None
) -> "Figure":
    """Draw which operators the best children choose in every block, beside what all scored children choose.

    Where the wide bar (the best) looks like the narrow one (all), the block does not matter to the score.

    Args:
        children: The scored children.
        share: The best share of the children, at least one child.
        title: Above the figure; what is shown if absent.

    Raises:
        ValueError: If there is no child with a finite loss, or they do not have the same number of blocks.
    """
    finite = sorted((child.loss, child.architecture) for child in children if math.isfinite(child.loss))
    lengths = sorted({len(names) for _, names in finite})
    if not finite or len(lengths) != 1:
        raise ValueError(
            "cannot count operators per block: expected children with a finite proxy_loss and one number of choice "
            f"blocks, found {len(finite)} such children with {lengths} blocks"
        )
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    everyone = [names for _, names in finite]
    best = everyone[: max(1, round(share * len(everyone)))]
    colours = operator_colours([name for names in everyone for name in names])
    with figure_style():
        figure = new_figure(max(5.0, 0.55 * lengths[0] + 1.6), 3.4)
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="x")
        _draw_shares(axes, everyone, colours, offset=-0.33, width=0.14, alpha=0.45)
        _draw_shares(axes, best, colours, offset=0.08, width=0.6, alpha=1.0)
        population = count_of(len(everyone), "child", "children")
        axes.set_title(title or f"Operators of the best {len(best):,} of {population}")
        axes.set_xticks(range(lengths[0]))
        axes.set_xlabel(f"choice block (wide bar: the best {share:.0%}, narrow bar: all)")
        axes.set_ylabel("share of children (%)")
        axes.set_ylim(0, 100)
        axes.set_xlim(-0.6, lengths[0] - 0.4)
        legend_below(figure)
    return figure


def _parse(architecture: Sequence[str] | str) -> Architecture:
    return Architecture.parse(architecture) if isinstance(architecture, str) else Architecture(architecture)


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)  # a record has None where there was NaN


def _text(architecture: Sequence[str] | str) -> str:
    return str(_parse(architecture))


def _stages(names: Architecture, stage_lengths: Sequence[int] | None) -> list[tuple[int, int]]:
    """(first block, block after the last) of every stage."""
    if stage_lengths is not None:
        if sum(stage_lengths) != len(names) or min(stage_lengths) < 1:
            raise ValueError(
                f"stage_lengths {list(stage_lengths)} do not add up to the {len(names)} blocks of {names}"
            )
        stops = [sum(stage_lengths[: i + 1]) for i in range(len(stage_lengths))]
    else:
        # A skip has no width and ends its stage, so it belongs to what stands before it.
        stops, width = [], operator_width(names[0])
        for index, name in enumerate(names):
            if operator_kind(name) != SKIP and operator_width(name) != width:
                stops.append(index)
                width = operator_width(name)
        stops.append(len(names))
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _row_length(num_blocks: int, stage_lengths: Sequence[int]) -> int:
    """Blocks per row: one stage per row where that reads well, else rows of nearly equal length, eight at most."""
    if len(stage_lengths) > 1 and len(set(stage_lengths)) == 1 and 4 <= stage_lengths[0] <= 8:
        return stage_lengths[0]
    return math.ceil(num_blocks / math.ceil(num_blocks / 8))


def _draw_block(
    axes: "Axes",
    centre: tuple[float, float],
    height: float,
    label: str,
    colour: str,
    *,
    outline: str | None = None,
    dashed: bool = False,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = centre
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.46, y - height / 2),
            0.92,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=colour,
            edgecolor=outline or ("#999999" if dashed else colour),
            linestyle="--" if dashed else "-",
            linewidth=1,
            zorder=2,
        )
    )
    fontsize = min(8.0, 70 / max(len(line) for line in label.split("\n")))
    axes.text(x, y, label, ha="center", va="center", fontsize=fontsize, color=_text_colour(colour), zorder=3)


def _draw_arrows(axes: "Axes", centres: Sequence[tuple[float, float]]) -> None:
    """Arrows from block to block; between two rows the line runs back through the gap between them."""
    arrow = {"arrowstyle": "-|>", "color": "#777777", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    for (x, y), (next_x, next_y) in pairwise(centres):
        start = x + 0.46
        if next_y != y:
            right, left, gap = x + 0.62, next_x - 0.62, next_y + 0.6
            axes.plot([start, right, right, left, left], [y, y, gap, gap, next_y], color="#777777", lw=0.9, zorder=1)
            start, y = left, next_y
        axes.annotate("", (next_x - 0.46, next_y), (start, y), arrowprops={**arrow, "mutation_scale": 7}, zorder=1)


def _draw_stages(
    axes: "Axes", blocks: Sequence[Block], stages: Sequence[tuple[int, int]], centres: Sequence[tuple[float, float]]
) -> None:
    """A bracket under the blocks of every stage, one per row it runs over."""
    for number, (start, stop) in enumerate(stages):
        width = blocks[start].width
        label = f"stage {number}" + (f": {width} wide" if width else "")
        for y in sorted({centres[i][1] for i in range(start, stop)}, reverse=True):
            xs = [centres[i][0] for i in range(start, stop) if centres[i][1] == y]
            level = y - 0.82
            axes.plot([xs[0] - 0.46, xs[-1] + 0.46], [level, level], color=INK, linewidth=1)
            axes.text((xs[0] + xs[-1]) / 2, level - 0.08, label, ha="center", va="top", fontsize=7.5)


def _draw_shares(
    axes: "Axes",
    architectures: Sequence[Architecture],
    colours: Mapping[str, str],
    *,
    offset: float,
    width: float,
    alpha: float,
) -> None:
    """A stacked bar per block: how often every kind of operator was chosen, in per cent, always in the same order."""
    counts = [Counter(map(operator_kind, names)) for names in zip(*architectures, strict=True)]
    bottoms = [0.0] * len(counts)
    for kind, colour in colours.items():
        blocks = [block for block, count in enumerate(counts) if count[kind]]
        heights = [100 * counts[block][kind] / len(architectures) for block in blocks]
        if blocks:
            axes.bar(
                [block + offset for block in blocks],
                heights,
                width,
                [bottoms[block] for block in blocks],
                color=colour,
                alpha=alpha,
                edgecolor="#999999" if kind == SKIP else "white",
                linewidth=0.5,
                label=kind,
            )
        for block, height in zip(blocks, heights, strict=True):
            bottoms[block] += height


def _text_colour(background: str) -> str:
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "black"


def _pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points no other beats in one of (cost, loss) without losing in the other, by rising cost."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _losses(history: Sequence[Mapping[str, Any]], event: str) -> list[tuple[int, float]]:
    """(step, loss) of the records of one kind, in the order of steps."""
    return sorted(
        (int(record["step"]), float(record["loss"]))
        for record in history
        if record["event"] == event and _is_finite(record.get("loss"))
    )


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at every place, of as many as there are at the start."""
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(window, i + 1) for i in range(len(values))]
