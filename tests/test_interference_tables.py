"""Interference: every summary, table and figure is that of its rows."""

import math

import numpy as np
import pytest
from helpers import assert_published
from tiny.records import STUDY, measurement
from tiny.texts import TESTS

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.interference import (
    as_markdown,
    associations,
    gain_over,
    mean_similarity,
    measurements,
    pair_rows,
    similarity_bins,
)
from hf_nasbert.metrics import cluster_mean_interval
from hf_nasbert.plots import plot_gradient_similarity, plot_similarity_by_block, save_figure


class TestSummaries:
    def test_means_are_over_batches_first_and_pass_over_what_has_no_direction(self):
        record = measurement()
        values = record["pairs"]["gradient_similarity"]
        values[0], values[2], values[3] = None, None, None  # one batch of the first row, both of the second
        rows = pair_rows([record])
        assert len(rows["block"]) == 72
        assert rows["gradient_similarity"][0] == values[1]
        assert math.isnan(rows["gradient_similarity"][1])
        expected = [np.mean(values[i : i + 2]) for i in range(4, len(values), 2)]
        assert mean_similarity(rows).estimate == pytest.approx(np.mean([values[1], *expected]))
        at_two = [np.mean(values[i : i + 2]) for i in range(6, len(values), 2) if record["pairs"]["distance"][i] == 2]
        assert mean_similarity(rows, rows["distance"] == 2).estimate == pytest.approx(np.mean(at_two))
        assert mean_similarity(rows, rows["distance"] == 9) is None

    def test_intervals_are_over_children_in_all_super_nets_alike(self):
        one, two = pair_rows(STUDY[2:3]), pair_rows([STUDY[2], STUDY[2] | {"supernet": "copy"}])
        single, double = mean_similarity(one), mean_similarity(two)
        # The same rows once more are no new evidence.
        assert double == pytest.approx(single)
        by_row = cluster_mean_interval(np.arange(len(one["block"])), one["gradient_similarity"], seed=0)
        assert single.high - single.low > 1.5 * (by_row.high - by_row.low)

    def test_associations_find_what_was_planted_and_only_that(self):
        rows = pair_rows(STUDY[2:3])
        found = associations(rows)
        assert found["distance"].high < -0.3
        assert found["input_similarity"].low > 0.1
        assert found["input_similarity within"].low > 0.1
        # By block alone: the blocks' means are all there is, so nothing is left within them.
        flat = {**rows, "gradient_similarity": 0.1 * rows["block"], "input_similarity": 0.9 - 0.1 * rows["block"]}
        confounded = associations(flat)
        assert confounded["input_similarity"].estimate == pytest.approx(-1)
        assert math.isnan(confounded["input_similarity within"].estimate)

    def test_intervals_of_associations_are_over_children_too(self):
        rows = pair_rows(STUDY[2:3])
        found, thrice = associations(rows), associations({name: np.tile(column, 3) for name, column in rows.items()})
        assert thrice["distance"] == pytest.approx(found["distance"])  # the same rows again are no new evidence
        by_row = associations({**rows, "child": np.arange(len(rows["block"]))})["distance"]
        assert by_row[1:] != pytest.approx(found["distance"][1:], rel=0.01)

    def test_bins_part_the_rows_with_different_inputs(self):
        rows = pair_rows(STUDY[2:3])
        bins = similarity_bins(rows, "input_similarity")
        assert sum(part.num_rows for part in bins) == int((rows["num_before"] > 0).sum())
        centres = [part.centre for part in bins]
        assert centres == sorted(centres)
        assert centres[-1] < 1
        assert bins[-1].similarity.estimate > bins[0].similarity.estimate + 0.1

    def test_gains_are_of_the_same_seeds_whatever_their_order(self):
        turned = sorted(STUDY, key=lambda record: -record["seed"] if record["method"] == "uniform" else 0)
        assert [record["supernet"] for record in turned] != [record["supernet"] for record in STUDY]
        assert as_markdown(turned, ["gains"]) == as_markdown(STUDY, ["gains"])

    def test_gains_are_of_the_same_pairs(self):
        uniform, magic = pair_rows([STUDY[2], STUDY[6]]), pair_rows([STUDY[3], STUDY[7]])
        gain = gain_over(magic, uniform)
        assert gain.estimate == pytest.approx(0.03)
        assert gain.high - gain.low < 1e-9  # what the children have in common is gone
        assert gain_over(uniform, uniform) == pytest.approx((0, 0, 0))
        with pytest.raises(ValueError, match="other pairs: they differ in child"):
            gain_over(magic, {**uniform, "child": uniform["child"][::-1]})

    def test_groups_come_in_the_order_of_training(self):
        groups = measurements(STUDY)
        assert [(group.when, group.method, len(group.records)) for group in groups] == [
            ("before training", "untrained", 2),
            ("at 50% of training", "uniform", 2),
            ("after training", "uniform", 2),
            ("after training", "magic_t", 2),
        ]
        unknown = measurement() | {"method": None, "step": None, "max_steps": None}
        assert [(group.when, group.method) for group in measurements([unknown])] == [("at an unknown step", "unknown")]

    def test_refuses_what_is_no_measurement_by_name(self):
        with pytest.raises(ValueError, match="record 2 is no measurement of interference: it has no pairs"):
            measurements([STUDY[0], {name: value for name, value in STUDY[1].items() if name != "pairs"}])
        cut = {**STUDY[0]["pairs"], "block": STUDY[0]["pairs"]["block"][:-1]}
        with pytest.raises(ValueError, match="record 1: its pairs are cut"):
            measurements([STUDY[0] | {"pairs": cut}])
        with pytest.raises(ValueError, match="record 2: super-net uniform-0-0 was measured twice"):
            measurements([STUDY[0], STUDY[0]])
        with pytest.raises(ValueError, match="record 1 is no measurement of interference: its pairs are no columns"):
            measurements([STUDY[0] | {"pairs": None}])

    def test_refuses_two_runs_that_would_pass_for_one(self):
        """Of the gains only one of them would be told, and the overview would count two as one seed."""
        twin = measurement(method="magic_t") | {"supernet": "another"}
        words = "super-nets of two runs are both magic_t, seed 0, after training and would pass for one"
        with pytest.raises(ValueError, match=words):
            measurements([measurement(method="magic_t"), twin])
        assert len(measurements([measurement(method="magic_t"), twin | {"method": "magic_t, another rate"}])) == 2
        stages = [measurement(step=5) | {"settings": "slow"}, measurement() | {"settings": "fast"}]
        with pytest.raises(
            ValueError, match=r"two runs are both uniform, seed 0, .*would pass for one \(they differ in settings"
        ):
            measurements(stages)
        assert len(measurements([stages[0], stages[1] | {"settings": "slow"}])) == 2
        unknown = {"method": None, "seed": None}
        assert len(measurements([measurement() | unknown, twin | unknown])[0].records) == 2


class TestPage:
    def test_cells_are_the_summaries(self):
        tables = as_markdown(STUDY, ["overview", "distance", "inputs", "outputs", "blocks", "gains", "splits"])
        tables |= as_markdown(STUDY[2:3], ["associations"])
        mean = mean_similarity(pair_rows([STUDY[2], STUDY[6]]))
        cell = f"{mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        assert f"| after training | uniform | 0, 1 | 8 | 144 | {cell} |" in tables["overview"]
        assert "| after training | magic_t | 0.030 [0.030, 0.030] | +0.030, +0.030 |" in tables["gains"]
        assert "| after training | magic_t | 1 | attention / ffn | 0.470 | - |" in tables["splits"]
        for table in tables.values():
            lines = table.splitlines()
            assert len({line.count("|") for line in lines}) == 1
            assert "nan" not in table

    @pytest.mark.slow
    def test_the_appendix_on_interference_is_what_its_records_say(self, tmp_path):
        from hf_nasbert.pipeline.interference import draw_interference

        text = (TESTS.parent / "docs/appendix/interference.md").read_text(encoding="utf-8")
        found = records.read(TESTS.parent / "benchmarks/records/interference.jsonl.xz")
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        fill_page(page, as_markdown(found))
        assert page.read_text(encoding="utf-8") == text
        draw_interference(found, tmp_path)
        assert_published(tmp_path, number=4)


class TestFigures:
    def test_measurements_without_any_direction_are_refused_and_one_of_them_is_an_empty_panel(self):
        def blind(record):
            number = len(record["pairs"]["block"])
            return record | {"pairs": {**record["pairs"], "gradient_similarity": [None] * number}}

        with pytest.raises(ValueError, match="no gradient of these measurements has a direction"):
            plot_similarity_by_block([blind(record) for record in STUDY])
        assert plot_similarity_by_block([*STUDY[:3], *map(blind, STUDY[3:])]).axes

    def test_lines_are_the_means(self):
        figure = plot_gradient_similarity(STUDY)
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "before training",
            "at 50% of training",
            "after training",
        ]
        drawn = figure.axes[2].get_lines()
        assert len(drawn) == 2
        rows = pair_rows([STUDY[2], STUDY[6]])
        expected = [mean_similarity(rows, rows["distance"] == distance).estimate for distance in (1, 2, 3)]
        assert drawn[0].get_xdata().tolist() == [1, 2, 3]
        assert drawn[0].get_ydata().tolist() == expected
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["untrained", "uniform", "magic_t"]

    def test_cells_are_the_means(self):
        figure = plot_similarity_by_block(STUDY)
        rows = pair_rows([STUDY[2], STUDY[6]])
        inside = (rows["block"] == 2) & (rows["kind"] == "ffn")
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts[-1] == f"{rows['gradient_similarity'][inside].mean():.2f}"
        assert len(texts) == 6

    @pytest.mark.slow
    def test_the_same_records_give_the_same_bytes(self, tmp_path):
        made = [
            save_figure(plot_gradient_similarity(STUDY[2:3], against="output_similarity"), tmp_path / name)[1]
            for name in ("one", "two")
        ]
        assert made[0].read_bytes() == made[1].read_bytes()

    def test_refuses_nothing_to_draw(self):
        with pytest.raises(ValueError, match="no measurement"):
            plot_gradient_similarity([])
        with pytest.raises(ValueError, match="against='blocks'"):
            plot_gradient_similarity(STUDY, against="blocks")
