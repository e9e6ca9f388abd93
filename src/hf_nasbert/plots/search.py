"""Figures of searches, compared by their regret."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_nasbert.plots.style import INK, figure_style, legend_below, new_figure
from hf_nasbert.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The style's colours, ink and four more: there are eleven searches.
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", INK, "#8C8C8C", "#F0E442", "#8C510A", "#5E3C99",
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
    """Draw regret against children scored, a panel per budget: of each search the mean and the middle half of seeds.

    Args:
        searched: One record per search, budget and seed, with `search`, `budget`, `trace`, `optimum` and
            `num_evaluations`.

    Raises:
        ValueError: If there is no record.
    """
    if not searched:
        raise ValueError("no search was run: nothing to draw")
    budgets = list(dict.fromkeys(record["budget"] for record in searched))
    searches = sorted({record["search"] for record in searched})  # of one colour in all figures
    columns = min(2, len(budgets))
    with figure_style():
        figure = new_figure(4.1 * columns, 2.9 * math.ceil(len(budgets) / columns) + 0.6)
        grid = figure.subplots(math.ceil(len(budgets) / columns), columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(budgets):
                axes.set_visible(False)
                continue
            of_budget = [record for record in searched if record["budget"] == budgets[place]]
            for search, colour in zip(searches, itertools.cycle(_COLOURS), strict=False):
                _draw_regret(axes, colour, [record for record in of_budget if record["search"] == search])
            axes.set_title(budgets[place])
            axes.set_xlabel("children scored")
            axes.set_ylabel("regret (thousandths of a nat)")
            axes.set_ylim(bottom=0)
        legend_below(figure)
    return figure


def _draw_regret(axes: "Axes", colour: str, records: Sequence[Record]) -> None:
    if not records:
        return
    most = int(max(record["num_evaluations"] for record in records))
    places, means, lows, highs = [], [], [], []
    for place in range(8, most + 1, max(1, most // 48)):
        regrets = sorted(1000 * regret_at(record, place) for record in records)
        if regrets[-1] == math.inf:  # halving has no child on all dev batches for a while
            continue
        places.append(place)
        means.append(sum(regrets) / len(regrets))
        lows.append(regrets[len(regrets) // 4])
        highs.append(regrets[(3 * len(regrets)) // 4])
    axes.plot(places, means, color=colour, label=records[0]["search"])
    axes.fill_between(places, lows, highs, color=colour, alpha=0.12, linewidth=0)
