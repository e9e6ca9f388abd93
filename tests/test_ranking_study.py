"""The ranking study: every super-net that was scored was trained for the compute that all methods share."""

import runpy
from pathlib import Path

import pytest

from hf_nasbert import records

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(ROOT / "benchmarks" / "ranking_study.py"))


def read(name):
    return records.read(ROOT / "benchmarks" / "records" / f"{name}.jsonl.gz")


def test_super_nets_made_the_steps_of_equal_compute(study):
    found = {(record["method"], record["max_steps"]) for record in read("ranking")}
    assert found == {(method, study["steps_of"](method)) for method in study["METHODS"]}
    assert dict(found) == {"uniform": 2400, "magic_t": 2400, "fair": 800, "magic_a": 1732, "magic_at": 1732}
    # 1,732 steps: three forward passes of a child, one of the anchor, and two dev batches twice every 25 steps.
    passes = 3 + 1 + 2 * 2 / 25
    assert 1732 * passes == pytest.approx(3 * 2400, rel=2e-3)


def test_variants_made_the_steps_of_theirs(study):
    scored = read("ranking-sweep")
    found = {name: {r["max_steps"] for r in scored if r["method"] == name} for name in study["SWEEP"]}
    assert found == {name: {study["steps_of"](*settings)} for name, settings in study["SWEEP"].items()}
    for name in study["SWEEP"]:
        assert sorted(r["seed"] for r in scored if r["method"] == name) == [200, 201, 202]
    assert len(scored) == 3 * len(study["SWEEP"])
