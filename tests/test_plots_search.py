"""Figures of searches show what their records say."""

import math

import pytest

from hf_nasbert.methods import METHODS
from hf_nasbert.plots import plot_regret, save_figure
from hf_nasbert.plots.ranking import _looks_of
from hf_nasbert.plots.search import regret_at
from hf_nasbert.plots.style import break_axis, look_of
from hf_nasbert.searching import SEARCHES


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
    gbdt, gbdts_half, random, randoms_half = small.lines
    assert gbdts_half.get_ydata() == pytest.approx((0, 0))
    assert randoms_half.get_ydata() == pytest.approx((100, 500)), "the middle half of the seeds, at the end"
    assert randoms_half.get_color() == random.get_color() != gbdt.get_color()
    assert randoms_half.get_xdata()[0] > gbdts_half.get_xdata()[0] > 96, "beside each other"
    assert [gbdt.get_label(), random.get_label()] == ["gbdt", "random"]
    places, means = random.get_xdata(), random.get_ydata()
    assert dict(zip(places, means, strict=True))[8] == pytest.approx(1000 * (0.5 + 0.3) / 2)
    assert means[-1] == pytest.approx(1000 * (0.5 + 0.1) / 2)
    assert whole.lines[0].get_color() == random.get_color()
    assert min(whole.lines[0].get_xdata()) >= 30  # before, there is no best child
    save_figure(figure, tmp_path / "regret")
    with pytest.raises(ValueError, match="no search was run"):
        plot_regret([])


def test_every_search_has_a_colour_of_its_own_in_all_figures():
    def colours(names):
        records = [record for name in names for record in searched(name, "no cap", [[[1, 1.5]]])]
        lines = plot_regret(records).axes[0].lines
        return {line.get_label(): line.get_color() for line in lines if not line.get_label().startswith("_")}

    whole = colours(SEARCHES)
    assert len(set(whole.values())) == len(SEARCHES)
    assert colours(list(SEARCHES)[3:5]).items() <= whole.items()


def test_an_axis_with_two_clusters_far_apart_is_broken_between_them():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    near = [4.6, 4.65, 4.7, 4.75, 4.8]
    assert not break_axis(axes, near, "x")
    assert not break_axis(axes, [], "x")
    assert not axes.lines
    axes.plot([*near, 6.0], [0] * 6, "o")
    assert break_axis(axes, [*near, 6.0], "x")
    low, high = axes.get_xlim()
    assert low < 4.6 < 6.0 < high
    place = [axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0] for x in (*near, 6.0)]
    assert place == sorted(place)
    assert place[4] - place[0] > 0.4, "the cluster has room"
    assert place[5] - place[4] < 0.4
    ticks = axes.get_xticks()
    assert all(low <= tick <= 4.9 or tick >= 5.9 for tick in ticks), "no number in what is left out"
    assert len(axes.lines) == 2, "a mark shows where"
    assert break_axis(axes, [1.0, 1.1, 9.0], "y")


def test_a_method_has_one_look_in_all_figures():
    for name, method in METHODS.items():
        assert look_of(name) == method.look
    looks = _looks_of(["uniform", "mine", "yours", "magic_t"])
    assert looks["uniform"] == METHODS["uniform"].look
    assert looks["magic_t"] == METHODS["magic_t"].look
    assert len(set(looks.values())) == 4, "those without a look of their own differ too"


def test_a_figure_of_three_budgets_has_no_empty_panel():
    records = [record for budget in "abc" for record in searched("random", budget, [[[1, 1.5]]])]
    assert [axes.get_visible() for axes in plot_regret(records).axes] == [True, True, True, False]
