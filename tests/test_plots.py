"""Plots: they show exactly what the records say, legibly, the same bytes each time, and touch nobody's settings."""

import ast
import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from helpers import mostly_slow
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from hf_nasbert import plots
from hf_nasbert.plots import (
    OPERATOR_COLOURS,
    plot_architecture,
    plot_operator_frequency,
    plot_pareto_front,
    plot_training,
    save_figure,
)
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import Architecture

KINDS = ("attention", "ffn", "conv3", "conv5", "conv7")


def scored(architecture, loss, **cost):
    return ScoredChild(architecture=Architecture.parse(architecture), proxy_loss=loss, cost=cost)


def scored_children(count=200, num_blocks=6, seed=0):
    rng = random.Random(seed)
    return [
        scored(
            "-".join(rng.choices(KINDS, k=num_blocks)),
            rng.uniform(4, 6),
            num_parameters=rng.randrange(3_000_000, 4_000_000, 50_000),  # with ties
        )
        for _ in range(count)
    ]


def training_history(num_records=100):
    rng = random.Random(0)
    history = [{"event": "start", "step": 0}]
    for index in range(num_records):
        step = 10 * (index + 1)
        history.append({"event": "train", "step": step, "loss": 9 - index / 30 + rng.gauss(0, 0.1)})
        if index % 25 == 24:
            history.append({"event": "eval", "step": step, "loss": 9 - index / 30, "children": []})
            history.append({"event": "anchor", "step": step - 3, "architecture": "ffn", "loss": 1.0})
    return history


FIGURES = {
    "architecture-6": lambda: plot_architecture("conv3-attention-ffn-conv5-attention-ffn"),
    "architecture-1": lambda: plot_architecture("ffn"),
    "architecture-13": lambda: plot_architecture("-".join(["attention"] * 11 + ["skip"] * 2)),
    "architecture-24": lambda: plot_architecture(
        "-".join("-".join(f"{kind}@{width}" for kind in KINDS) + "-skip" for width in (128, 192, 256, 512))
    ),
    "architecture-own": lambda: plot_architecture("ffn-my_long_operator_name-skip", stage_lengths=[1, 2]),
    "front": lambda: plot_pareto_front(
        scored_children(), winner=scored_children()[0].architecture, max_cost=3_500_000
    ),
    "front-of-one": lambda: plot_pareto_front(scored_children(1)),
    "training": lambda: plot_training(training_history()),
    "training-of-one": lambda: plot_training(training_history(1)),
    "frequency": lambda: plot_operator_frequency(scored_children()),
    "frequency-own": lambda: plot_operator_frequency(
        [scored("-".join(f"operator_of_ones_own_{i}" for i in range(7)), 1.0)]
    ),
    "frequency-24": lambda: plot_operator_frequency(scored_children(num_blocks=24)),
}


class TestEveryFigure:
    @pytest.mark.parametrize("name", mostly_slow(["architecture-6", "front", "training", "frequency"], 4))
    def test_is_written_the_same_each_time_whatever_the_users_settings(self, name, tmp_path):
        before = dict(matplotlib.rcParams)
        png, svg = save_figure(FIGURES[name](), tmp_path / "made" / "figure.v1")
        assert (png.name, svg.name) == ("figure.v1.png", "figure.v1.svg")
        assert png.read_bytes().startswith(b"\x89PNG")
        assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "svg.hashsalt": "x"}):
            again = save_figure(FIGURES[name](), tmp_path / "again")
        assert [png.read_bytes(), svg.read_bytes()] == [path.read_bytes() for path in again]
        assert dict(matplotlib.rcParams) == before

    @pytest.mark.parametrize("name", FIGURES)
    def test_is_legible(self, name):
        """No text runs out of the figure, and no two texts overlap."""
        figure = FIGURES[name]()
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        legend = [text for legend in figure.legends for text in legend.get_texts()]
        texts = [text for text in [*figure.axes[0].texts, *legend] if text.get_text()]
        axes = figure.axes[0]
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
        inside = figure.bbox.padded(1)
        for text, box in boxes:
            assert inside.contains(box.x0, box.y0), text
            assert inside.contains(box.x1, box.y1), text
        for (one, box), (other, other_box) in combinations(boxes, 2):
            assert not box.overlaps(other_box), (one, other)


def blocks_of(figure):
    """(colour, label) of the drawn blocks, without the two ends of the network."""
    axes = figure.axes[0]
    patches = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    labels = {text.get_position(): text.get_text() for text in axes.texts}
    found = []
    for patch in patches[2:]:
        centre = patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2
        label = next(
            text for place, text in labels.items() if abs(place[0] - centre[0]) + abs(place[1] - centre[1]) < 1e-6
        )
        found.append((to_hex(patch.get_facecolor()).upper(), label, patch.get_height(), centre))
    return found


class TestArchitecture:
    @pytest.mark.parametrize(
        "architecture", ["conv3-attention-ffn-conv5-conv7-skip", "-".join(["attention", "ffn"] * 12)]
    )
    def test_every_block_has_its_operators_name_and_colour_in_reading_order(self, architecture):
        blocks = blocks_of(plot_architecture(architecture))
        names = architecture.split("-")
        assert [label for _, label, _, _ in blocks] == names
        assert [colour for colour, _, _, _ in blocks] == [OPERATOR_COLOURS[name] for name in names]
        places = [(-y, x) for *_, (x, y) in blocks]
        assert places == sorted(places)

    def test_wider_stages_are_taller_and_named(self):
        figure = plot_architecture("ffn@64-skip-ffn@128-skip")
        heights = [height for _, _, height, _ in blocks_of(figure)]
        assert heights[0] == heights[1] < heights[2] == heights[3]
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert {"stage 0: 64 wide", "stage 1: 128 wide"} <= set(texts)

    def test_stages_of_one_width_need_their_lengths(self):
        texts = [text.get_text() for text in plot_architecture("ffn-ffn-ffn", stage_lengths=[2, 1]).axes[0].texts]
        assert {"stage 0", "stage 1"} <= set(texts)
        with pytest.raises(ValueError, match=r"\[2, 2\] do not add up to the 3 blocks"):
            plot_architecture("ffn-ffn-ffn", stage_lengths=[2, 2])

    def test_operators_of_ones_own_get_colours_of_their_own(self):
        colours = [colour for colour, *_ in blocks_of(plot_architecture("zeta-alpha-ffn"))]
        assert len(set(colours)) == 3
        assert set(colours[:2]).isdisjoint(OPERATOR_COLOURS.values())

    def test_a_name_is_no_formula(self):
        plot_architecture("ffn", title=r"costs $\frac$ of it").canvas.draw()  # as a formula, an error


class TestParetoFront:
    def test_is_the_children_that_none_beats(self):
        children = scored_children()
        # Equal losses for more parameters are beaten, too.
        children += [replace(c, cost={"num_parameters": c.cost["num_parameters"] + 1}) for c in children]
        points = [(child.cost["num_parameters"], child.loss) for child in children]
        unbeaten = [
            (cost, loss)
            for cost, loss in points
            if not any(c <= cost and ell <= loss and (c, ell) != (cost, loss) for c, ell in points)
        ]
        axes = plot_pareto_front(children).axes[0]
        drawn = next(line for line in axes.lines if line.get_label().startswith("Pareto"))
        assert list(drawn.get_xdata() * 1e6) == pytest.approx([cost for cost, _ in sorted(unbeaten)])
        assert list(drawn.get_ydata()) == [loss for _, loss in sorted(unbeaten)]
        assert 1 < len(unbeaten) < len(points)
        background = axes.collections[0].get_offsets()
        assert sorted(map(tuple, background)) == sorted((cost / 1e6, loss) for cost, loss in points)

    def test_marks_winner_and_budget(self):
        children = scored_children()
        winner = children[17]
        axes = plot_pareto_front(children, winner=winner.architecture, max_cost=3_210_000).axes[0]
        lines = {line.get_label().split(":")[0]: line for line in axes.lines}
        assert lines["winner"].get_xdata()[0] == winner.cost["num_parameters"] / 1e6
        assert lines["winner"].get_ydata()[0] == winner.loss
        assert list(lines["budget"].get_xdata()) == [3.21, 3.21]
        assert "budget" not in [line.get_label() for line in plot_pareto_front(children).axes[0].lines]

    def test_children_without_a_finite_loss_are_counted_not_drawn(self):
        children = [*scored_children(5), *(replace(child, proxy_loss=None) for child in scored_children(2, seed=1))]
        children.append(replace(children[0], proxy_loss=float("nan")))
        axes = plot_pareto_front(children).axes[0]
        assert len(axes.collections[0].get_offsets()) == 5
        assert "5 children (3 without a finite score not shown)" in axes.get_title(loc="left")
        with pytest.raises(ValueError, match="none of the 1 children"):
            plot_pareto_front(children[-1:])
        with pytest.raises(ValueError, match="not among the 5 scored"):
            plot_pareto_front(children, winner="ffn")

    @pytest.mark.parametrize(
        ("cost", "label", "place"),
        [("flops", "FLOPs (billions)", 2.5), ("latency_ms", "latency (ms)", 2.5e9), ("joules", "joules", 2.5e9)],
    )
    def test_axes_have_units(self, cost, label, place):
        axes = plot_pareto_front([scored("ffn", 4.0, **{cost: 2.5e9})], cost=cost).axes[0]
        assert axes.get_xlabel() == label
        assert axes.collections[0].get_offsets()[0][0] == place
        assert "nats" in axes.get_ylabel()

    def test_thousands_of_children_stay_small(self, tmp_path):
        _, svg = save_figure(plot_pareto_front(scored_children(5000)), tmp_path / "front")
        assert svg.stat().st_size < 400_000


class TestTraining:
    def test_draws_losses_evaluations_and_anchor_changes(self):
        history = training_history()
        axes = plot_training(random.Random(1).sample(history, len(history))).axes[0]
        lines = {line.get_label(): line for line in axes.lines}
        trained = [record for record in history if record["event"] == "train"]
        assert list(lines["training loss"].get_xdata()) == [record["step"] for record in trained]
        assert list(lines["training loss"].get_ydata()) == [record["loss"] for record in trained]
        smooth = lines["mean of 2 records"].get_ydata()
        assert smooth[0] == trained[0]["loss"]
        assert smooth[50] == pytest.approx((trained[49]["loss"] + trained[50]["loss"]) / 2)
        assert list(lines["dev loss, mean of children"].get_xdata()) == [250, 500, 750, 1000]
        (changes,) = axes.collections
        assert [segment[0][0] for segment in changes.get_segments()] == [247, 497, 747, 997]
        assert changes.get_label() == "anchor replaced 4 times"

    def test_a_plain_run_has_no_anchor(self):
        history = [record for record in training_history(20) if record["event"] != "anchor"]
        assert len(plot_training(history).axes[0].collections) == 0
        with pytest.raises(ValueError, match="none of the 1 records"):
            plot_training([{"event": "start", "step": 0}])


class TestOperatorFrequency:
    def test_bars_are_the_shares_of_the_best_and_of_all(self):
        children = [
            scored("attention-ffn", 1.0),
            scored("attention-conv3", 2.0),
            scored("ffn-conv3", 3.0),
            scored("ffn-skip", 4.0),
            scored("conv3-skip", None),
        ]
        axes = plot_operator_frequency(children[::-1], share=0.5).axes[0]
        colours = {colour: kind for kind, colour in OPERATOR_COLOURS.items()}
        shares = {}
        for bar in axes.patches:
            block, is_wide = round(bar.get_x() + bar.get_width() / 2), bar.get_width() > 0.3
            shares[block, is_wide, colours[to_hex(bar.get_facecolor()).upper()]] = (bar.get_y(), bar.get_height())
        assert shares == {
            (0, True, "attention"): (0, 100),
            (1, True, "ffn"): (0, 50),
            (1, True, "conv3"): (50, 50),
            (0, False, "attention"): (0, 50),
            (0, False, "ffn"): (50, 50),
            (1, False, "ffn"): (0, 25),
            (1, False, "conv3"): (25, 50),
            (1, False, "skip"): (75, 25),
        }
        assert axes.get_title(loc="left") == "Operators of the best 2 of 4 children"

    def test_there_is_always_a_best_child(self):
        axes = plot_operator_frequency(scored_children(3)).axes[0]
        assert "best 1 of 3" in axes.get_title(loc="left")

    @pytest.mark.parametrize(
        ("children", "share", "message"),
        [
            ([], 0.05, "found 0 such children"),
            ([scored("ffn", None)], 0.05, "found 0 such children"),
            ([scored(text, 1.0) for text in ("ffn", "ffn-ffn")], 0.05, r"\[1, 2\] blocks"),
            (scored_children(2), 0.0, "share must lie"),
        ],
    )
    def test_refuses_what_it_cannot_count(self, children, share, message):
        with pytest.raises(ValueError, match=message):
            plot_operator_frequency(children, share=share)


@pytest.mark.parametrize("file", sorted(Path(plots.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_matplotlib_is_needed_by_those_who_draw_only(file):
    tree = ast.parse(file.read_text())
    modules = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("matplotlib" in module for module in modules)
    assert "pyplot" not in file.read_text().replace("no pyplot state", "").replace("pyplot knows nothing", "")
