"""Figures of searches show what their records say."""

import math

import pytest

from hf_nasbert.plots import plot_regret, save_figure
from hf_nasbert.plots.search import regret_at


def searched(search, budget, traces):
    return [
        {"search": search, "budget": budget, "seed": seed, "trace": trace, "optimum": 1.0, "num_evaluations": 96}
        for seed, trace in enumerate(traces)
    ]


def test_regret_is_what_the_best_so_far_lacks():
    (record,) = searched("a", "b", [[[1, 4.0], [5, 2.5], [7.25, 1.0]]])
    assert [regret_at(record, spent) for spent in (0.5, 1, 4.9, 5, 7.3, 99)] == [math.inf, 3.0, 3.0, 1.5, 0.0, 0.0]


def test_regret_is_drawn_as_the_mean_over_seeds_in_a_panel_per_budget(tmp_path):
    records = [
        *searched("random", "small", [[[1, 1.5]], [[1, 1.3], [50, 1.1]]]),
        *searched("gbdt", "small", [[[1, 1.2], [40, 1.0]]] * 2),
        *searched("random", "no cap", [[[30, 1.4]]] * 2),
    ]
    figure = plot_regret(records)
    small, whole = figure.axes
    assert [small._left_title.get_text(), whole._left_title.get_text()] == ["small", "no cap"]
    gbdt, random = small.lines
    assert [gbdt.get_label(), random.get_label()] == ["gbdt", "random"]
    places, means = random.get_xdata(), random.get_ydata()
    assert dict(zip(places, means, strict=True))[8] == pytest.approx(1000 * (0.5 + 0.3) / 2)
    assert means[-1] == pytest.approx(1000 * (0.5 + 0.1) / 2)
    assert whole.lines[0].get_color() == random.get_color()
    assert min(whole.lines[0].get_xdata()) >= 30  # before, there is no best child
    save_figure(figure, tmp_path / "regret")
    with pytest.raises(ValueError, match="no search was run"):
        plot_regret([])


def test_eight_searches_have_eight_colours():
    records = [record for name in "abcdefgh" for record in searched(name, "no cap", [[[1, 1.5]]])]
    colours = [
        {line.get_label(): line.get_color() for line in plot_regret(ordered).axes[0].lines}
        for ordered in (records, records[::-1])
    ]
    assert len(set(colours[0].values())) == 8
    assert colours[0] == colours[1]  # in whatever order they were run: a page shows several figures


def test_a_figure_of_three_budgets_has_no_empty_panel():
    records = [record for budget in "abc" for record in searched("random", budget, [[[1, 1.5]]])]
    assert [axes.get_visible() for axes in plot_regret(records).axes] == [True, True, True, False]
