"""docs/search.md is what its records say, and the records are what the searches do."""

import runpy
from pathlib import Path

import pytest
from helpers import assert_published

from hf_nasbert import records
from hf_nasbert.plots import plot_regret, save_figure

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(ROOT / "benchmarks" / "search.py"))


@pytest.fixture(scope="module", params=["chain", "staged"])
def space(request):
    return request.param


@pytest.fixture(scope="module")
def landscape(benchmark, space):
    return benchmark["read_landscape"](space)


@pytest.fixture(scope="module")
def searched(benchmark, space):
    return records.read(benchmark["committed"](benchmark["Files"].of(space).runs))


def test_the_page_is_what_its_records_say(benchmark, space, landscape, searched):
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    for name, table in benchmark["tables"](space, searched, landscape).items():
        assert f"<!-- table: {name} -->\n{table}\n<!-- end -->" in page, name


@pytest.mark.slow
def test_the_figure_is_that_of_its_records(benchmark, space, searched, tmp_path):
    save_figure(plot_regret(searched), tmp_path / benchmark["figure_name"](space))
    assert_published(tmp_path, number=1)


def test_the_page_prints_the_latency_record(benchmark):
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    found = records.read(ROOT / "benchmarks" / "records" / "latency.jsonl.gz")
    assert f"<!-- table: latency -->\n{benchmark['latency_table'](found)}\n<!-- end -->" in page
    for check in found[1::3]:
        pairs = [(child["expected_latency_ms"], child["measured_latency_ms"]) for child in check["children"]]
        assert len(pairs) == 30
        assert check["mape_percent"] == pytest.approx(100 * sum(abs(a - b) / b for a, b in pairs) / 30)


def test_every_child_of_the_space_was_scored_and_every_search_ran_on_every_budget_and_seed(
    benchmark, space, landscape, searched
):
    assert set(landscape.truth) == set(landscape.space.enumerate())
    runs = [(record["budget"], record["search"], record["seed"]) for record in searched]
    assert len(runs) == len(set(runs))
    assert set(runs) == {
        (budget, name, seed)
        for budget in benchmark["SPACES"][space]
        for name in benchmark["SEARCHES"]
        for seed in benchmark["SEEDS"]
    }
    assert len(benchmark["SEEDS"]) >= 20
    assert len(benchmark["SPACES"][space]) >= 3
    assert max(record["num_evaluations"] for record in searched) <= benchmark["NUM_EVALUATIONS"]
    for record in searched:
        assert record["optimum"] == min(landscape.truth[child] for child in landscape.within(record["cap"]))


@pytest.mark.parametrize(
    "name",
    ["random", "size_matched", "evolution", "halving", "shrinking", "learned", "pnas"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("gbdt", "nsga2", "linas", "knapsack")],
)
def test_a_recorded_search_is_found_again(name, benchmark, space, landscape, searched):
    record = next(r for r in searched if (r["search"], r["budget"], r["seed"]) == (name, "no cap", 100))
    search = benchmark["make"](name, landscape, record["cap"], 100)
    assert benchmark["traced"](search, landscape.score) == record["trace"]


def test_the_area_of_a_front():
    area = runpy.run_path(str(ROOT / "benchmarks" / "search.py"))["area"]
    assert area([(1.0, 3), (2.0, 1), (2.5, 2)], (4.0, 5)) == 3 * 2 + 2 * 2
    assert area([(1.0, 3)], (4.0, 5)) == 6
