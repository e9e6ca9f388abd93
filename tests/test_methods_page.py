"""The page that tells all training methods says what they are, and every one of them has a test of its own."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def methods():
    """The script that makes the table."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "methods.py")))


def test_the_table_is_what_the_methods_say(methods):
    assert methods.as_table() in methods.PAGE.read_text(encoding="utf-8"), "python benchmarks/methods.py --write"


def test_every_method_says_what_was_read_for_it(methods):
    for name, kind in methods.METHODS.items():
        assert kind.source, name
        assert "|" not in kind.source + kind.unverified + kind.summary, name
