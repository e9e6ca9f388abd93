"""The page that tells all training methods, layouts and searches says what they are."""

import json
import runpy
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def methods():
    """The script that makes the table."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "methods.py")))


def test_the_tables_are_what_methods_layouts_and_searches_say(methods):
    tables = methods.as_tables()
    for name in (*methods.METHODS, *methods.LAYOUTS, *methods.SEARCHES):
        assert f"\n| `{name}` | " in tables, name
    assert "|  |" not in tables.split("## What operators")[1], "an empty cell"
    assert tables in methods.PAGE.read_text(encoding="utf-8"), "python benchmarks/methods.py --write"


def test_every_method_says_what_was_read_for_it(methods):
    for name, kind in methods.METHODS.items():
        assert kind.source, name
        assert "|" not in kind.source + kind.unverified + kind.summary, name


def test_the_page_tells_what_a_step_takes_before_and_after_the_methods_came(methods):
    found = json.loads((ROOT / "benchmarks" / "records" / "step-versions.json").read_text(encoding="utf-8"))
    page = " ".join(methods.PAGE.read_text(encoding="utf-8").split())
    assert f"medians of {len(found['rounds'])} rounds" in page
    load = "{:.0f} to {:.0f}".format(min(found["load"]), max(found["load"]))
    assert f"under a load of {load}" in page
    for name, times in found["methods"].items():
        ratios = [one["after"][name] / one["before"][name] for one in found["rounds"]]
        told = [times[key] for key in ("ratio", "least_ratio", "largest_ratio")]
        assert told == [round(ratio, 3) for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
        assert "`{}` {:.2f} ({:.2f} to {:.2f})".format(name, *told) in page
