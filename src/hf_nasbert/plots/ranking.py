"""Figures of the ranking study: tau by method, proxy against stand-alone loss, tau while the super-nets train."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_nasbert import metrics
from hf_nasbert.plots.style import (
    FRONT_COLOUR,
    INK,
    QUIET_COLOUR,
    break_axis,
    count_of,
    figure_style,
    legend_below,
    look_of,
    new_figure,
)
from hf_nasbert.ranking import GroundTruth, Ranked, RankingReport, last_steps, proxy_losses
from hf_nasbert.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LEAST_RANGE = 0.01  # nats
_BESIDE = 0.7  # per cent of the training, from one method to the next
_SPARE = ("#8C8C8C", "#8C510A", "#5E3C99", "#44AA99", "#882255")  # of methods that have no look of their own


def plot_tau_by_method(report: RankingReport) -> "Figure":
    """Kendall's tau of every super-net as a dot, methods beside each other, over all children and within size buckets.

    A bar is the mean; baselines are hollow, with the 90 % interval of their mean or draws; the grey band is the
    agreement of one more training with the ground truth (`GroundTruth.ceiling`).
    """
    panels = {"kendall_tau": "all children", "bucketed_tau": "within size buckets"}
    rows = [*report.methods, *report.baselines]
    with figure_style():
        figure = new_figure(8.2, 0.36 * len(rows) + 1.6)
        axes_of = figure.subplots(1, 2, sharey=True)
        for axes, (measure, title) in zip(axes_of, panels.items(), strict=True):
            if measure in report.ceiling:
                ceiling = report.ceiling[measure]
                axes.axvspan(ceiling.low, ceiling.high, color=QUIET_COLOUR, alpha=0.25, linewidth=0)
                label = f"two trainings of the same children (90 %; {report.truth.in_ceiling.sum()} of them)"
                axes.axvline(ceiling.estimate, color=QUIET_COLOUR, label=label)
            axes.axvline(0, color=INK, linewidth=0.8)
            for place, row in enumerate(rows):
                _draw_row(axes, place, row, measure, is_method=place < len(report.methods))
            axes.set_title(title)
            axes.set_xlabel("Kendall's tau-b with stand-alone loss")
            axes.set_yticks(range(len(rows)), [row.name for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
        legend_below(figure)
    return figure


def _draw_row(axes: "Axes", place: int, row: Ranked, measure: str, *, is_method: bool) -> None:
    taus = row.taus if measure == "kendall_tau" else row.bucketed_taus
    measured = row.measured[measure]
    if is_method:
        axes.plot(taus, [place] * len(taus), "o", color=FRONT_COLOUR, alpha=0.6, ms=5, mew=0, label="a super-net")
        axes.plot([measured.mean] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=2, label="their mean")
    elif not math.isnan(measured.mean):
        low, high = measured.mean - measured.low, measured.high - measured.mean
        errors = [[max(low, 0.0)], [max(high, 0.0)]]
        axes.errorbar(
            measured.mean,
            place,
            xerr=errors,
            fmt="o",
            color=INK,
            mfc="white",
            ms=5,
            elinewidth=1,
            label="a baseline (90 %)",
        )


def plot_proxy_against_truth(truth: GroundTruth, scored: Sequence[Record]) -> "Figure":
    """Proxy loss against stand-alone loss, a dot per child, a panel per method: of each its first seed, at its end."""
    methods = last_steps(scored)
    if not methods:
        raise ValueError("no super-net has been scored: nothing to draw")
    num_columns = min(len(methods), 3)
    num_rows = math.ceil(len(methods) / num_columns)
    with figure_style():
        figure = new_figure(2.9 * num_columns, 2.7 * num_rows + 0.4)
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        largest = truth.bucket_of.max()
        for index, axes in enumerate(grid.flat):
            if index >= len(methods):
                axes.set_visible(False)
                continue
            method, records = list(methods.items())[index]
            proxy = proxy_losses(records[0], truth)
            for bucket in range(largest + 1):
                inside = truth.bucket_of == bucket
                sizes = truth.num_parameters[inside] / 1e3
                axes.plot(
                    truth.loss[inside], proxy[inside], "o", ms=3.2, mew=0, alpha=0.8,
                    label=f"{sizes.min():,.0f} to {sizes.max():,.0f} thousand parameters",
                )  # fmt: skip
            break_axis(axes, truth.loss.tolist(), "x")
            if not break_axis(axes, proxy.tolist(), "y"):
                _widen(axes, proxy.min(), proxy.max())
            tau = metrics.kendall_tau(proxy, truth.loss)
            seed = "" if records[0]["seed"] is None else f"seed {records[0]['seed']}, "
            name = "\n".join(textwrap.wrap(method, 28))  # a title wider than its panel would lie on the next one's
            axes.set_title(f"{name}\n{seed}tau {tau:.2f}")
            axes.set_xlabel("stand-alone loss")
            axes.set_ylabel("proxy loss")
        legend_below(figure)
    return figure


def _widen(axes: "Axes", low: float, high: float) -> None:
    """Show no rounding as if it were data: the axis covers a hundredth of a nat at least, with its numbers in full."""
    if high - low < _LEAST_RANGE:
        middle = (low + high) / 2
        axes.set_ylim(middle - _LEAST_RANGE, middle + _LEAST_RANGE)
    axes.ticklabel_format(axis="y", useOffset=False)


def plot_tau_over_steps(report: RankingReport) -> "Figure":
    """Kendall's tau against the share of training that is done: a line per method, the mean and range of its seeds."""
    if not report.over_training:
        raise ValueError("no super-net has been scored: nothing to draw")
    names = list(report.over_training)
    with figure_style():
        figure = new_figure(6.4, 3.8)
        axes = figure.add_subplot()
        numbers, places = [], dict[float, None]()
        looks = _looks_of(names)
        for method, shares in report.over_training.items():
            numbers.append(max(ranked.num_rankings for ranked in shares.values()))
            percent = [100 * share for share in shares]
            taus = [ranked.taus for ranked in shares.values()]
            means = [sum(found) / len(found) for found in taus]
            colour, marker = looks[method]
            axes.plot(percent, means, f"{marker}-", color=colour, ms=4, label=method)
            # Ranges stand beside each other: bands would hide each other.
            beside = _BESIDE * (names.index(method) - (len(names) - 1) / 2)
            ranges = [min(found) for found in taus], [max(found) for found in taus]
            axes.vlines([place + beside for place in percent], *ranges, color=colour, linewidth=1.2)
            places |= dict.fromkeys(percent)
        axes.set_xticks(list(places), [f"{place:.3g}" for place in places])
        least, most = min(numbers), max(numbers)
        seeds = count_of(most, "seed") if least == most else f"{least} to {most} seeds"
        axes.set_title(f"Rank agreement while super-nets train (mean and range of {seeds})")
        axes.set_xlabel("share of the training (%)")
        axes.set_ylabel("Kendall's tau-b")
        legend_below(figure)
    return figure


def _looks_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colours and markers: a method's own, the same in every figure, and of others spare ones that differ."""
    others = [name for name in names if look_of(name) == look_of("")]
    spare = {name: (_SPARE[at % len(_SPARE)], "hX*pd"[(at // len(_SPARE)) % 5]) for at, name in enumerate(others)}
    return {name: spare.get(name) or look_of(name) for name in names}
