"""The page's comparison of the gradient mixture is what its record says, and the record is what the searches do."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_nasbert.space import SearchSpace

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "mixture.py")))


@pytest.fixture(scope="module")
def recorded(benchmark):
    return json.loads(benchmark.RUNS.read_text(encoding="utf-8"))


def test_the_page_is_what_its_record_says(benchmark, recorded):
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    table = "\n".join(benchmark.rows(recorded["runs"]))
    assert f"<!-- table: mixture -->\n{table}\n<!-- end -->" in page
    found = recorded["mixture"]
    assert f"Kendall's tau of its probabilities with the losses is {found['tau']:.2f}" in " ".join(page.split())
    assert f"its likeliest child has rank {found['rank_of_the_likeliest']:,} of {found['children']:,}" in " ".join(
        page.split()
    )


def test_all_searches_took_as_many_passes(benchmark, recorded):
    about, losses, _ = benchmark.read_landscape()
    assert set(losses) == set(SearchSpace.from_dict(about["space"]).enumerate())
    assert recorded["mixture"] == benchmark.agreement()
    for budget in benchmark.SHARES:
        runs = [(one["search"], one["seed"]) for one in recorded["runs"][budget]]
        assert runs == [(name, seed) for name in benchmark.NAMES for seed in benchmark.SEEDS]
        for one in recorded["runs"][budget]:
            spent = about["mixture"]["passes"] if one["search"] == "gradient_mixture" else 0
            assert one["children_scored"] * about["num_dev_batches"] + spent == 400 * about["num_dev_batches"]


@pytest.mark.parametrize("name", ["random", "evolution", "gradient_mixture"])
def test_a_recorded_search_is_found_again(benchmark, recorded, name):
    for budget, share in benchmark.SHARES.items():
        (expected,) = [one for one in recorded["runs"][budget] if (one["search"], one["seed"]) == (name, 3)]
        assert benchmark.search_once(name, share, 3) == expected
