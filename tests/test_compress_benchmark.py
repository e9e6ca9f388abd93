"""The page on compress says what its records say."""

import runpy
from pathlib import Path

from hf_nasbert import records

ROOT = Path(__file__).parents[1]


def test_the_table_of_the_page_is_that_of_the_records():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "compress.py"))
    table = benchmark["as_table"](records.read(ROOT / "benchmarks" / "records" / "compress.jsonl.gz"))
    assert table.count("\n") > 10
    assert table in (ROOT / "docs" / "compress.md").read_text(encoding="utf-8")
