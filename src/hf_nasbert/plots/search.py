"""Figures of searches, compared by their regret."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_nasbert.plots.style import QUIET_COLOUR, figure_style, legend_below, new_figure
from hf_nasbert.records import Record
from hf_nasbert.searching import SEARCHES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# One for each search, in all figures: those of another set of searches are the same.
_COLOURS = dict(
    zip(
        SEARCHES,
        (
            "#F0A800", "#5E3C99", "#0072B2", "#333333", "#009E73", "#E06C00", "#8C510A", "#56B4E9", "#999933",
            "#8C8C8C", "#A50F15", "#CC79A7", "#44AA99",
        ),
        strict=False,
    )
)  # fmt: skip


def regret_at(record: Record, num_evaluations: float) -> float:
    """By how much the best child after so many scored children is worse than the best there is; infinite before any.

    Args:
        record: One search: `trace`, pairs of children scored and loss where a better one was found, and `optimum`.
        num_evaluations: Children scored.
    """
    found = [loss for spent, loss in record["trace"] if spent <= num_evaluations]
    return float(min(found, default=math.inf) - record["optimum"])


def plot_regret(searched: Sequence[Record]) -> "Figure":
    """Draw regret against children scored, a panel per budget: of each search the mean over seeds.

    Bars on the right are the middle half of the seeds at the end.

    Args:
        searched: One record per search, budget and seed, with `search`, `budget`, `trace`, `optimum` and
            `num_evaluations`.

    Raises:
        ValueError: If there is no record.
    """
    if not searched:
        raise ValueError("no search was run: nothing to draw")
    budgets = list(dict.fromkeys(record["budget"] for record in searched))
    searches = sorted({record["search"] for record in searched})
    columns = min(2, len(budgets))
    with figure_style():
        figure = new_figure(4.1 * columns, 2.9 * math.ceil(len(budgets) / columns) + 0.6)
        grid = figure.subplots(math.ceil(len(budgets) / columns), columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(budgets):
                axes.set_visible(False)
                continue
            of_budget = [record for record in searched if record["budget"] == budgets[place]]
            for number, search in enumerate(searches):
                own = [record for record in of_budget if record["search"] == search]
                _draw_regret(axes, _COLOURS.get(search, QUIET_COLOUR), own, number)
            axes.set_title(budgets[place])
            axes.set_xlabel("children scored")
            axes.set_ylabel("regret (thousandths of a nat)")
            axes.set_ylim(bottom=0)
        legend_below(figure)
    return figure


def _draw_regret(axes: "Axes", colour: str, records: Sequence[Record], number: int) -> None:
    if not records:
        return
    most = int(max(record["num_evaluations"] for record in records))
    places, means, halves = [], [], (0.0, 0.0)
    for place in range(8, most + 1, max(1, most // 48)):
        regrets = sorted(1000 * regret_at(record, place) for record in records)
        if regrets[-1] == math.inf:  # halving has no child on all dev batches for a while
            continue
        places.append(place)
        means.append(sum(regrets) / len(regrets))
        halves = regrets[len(regrets) // 4], regrets[(3 * len(regrets)) // 4]
    axes.plot(places, means, color=colour, linewidth=1.3, label=records[0]["search"])
    # The middle half of the seeds at the end, beside each other: bands would hide each other.
    axes.plot([most * (1.02 + 0.012 * number)] * 2, halves, color=colour, linewidth=2, solid_capstyle="butt")
