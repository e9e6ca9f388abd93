"""The tables of all training methods, layouts and searches in docs/methods.md, made from these themselves.

    python benchmarks/methods.py             prints them
    python benchmarks/methods.py --write     puts them into docs/methods.md, between its two marks

What a step costs is that of a method's default settings on the space of the quickstart, in forward passes of one child
over the step's batch; a backward pass counts two. Two methods are compared at equal compute where steps times this
number are equal.
"""

import argparse
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, TrainingMethod
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.modeling.layouts import LAYOUTS
from hf_nasbert.searching import SEARCHES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- methods: made by benchmarks/methods.py -->\n", "<!-- end of methods -->\n"


def passes(kind: type[TrainingMethod]) -> float:
    """What a step costs, in forward passes."""
    config = SupernetConfig.preset("quickstart")
    method = kind(
        config.space, kind.Settings(), cost=lambda child: num_parameters(config, child), seed=0, max_steps=1000
    )
    return method.passes_per_step


def tested_in(module: str) -> str:
    """The test file of a module of `methods/`."""
    own = f"test_method_{module}.py"
    return own if (ROOT / "tests" / own).exists() else "test_methods.py"


def as_table() -> str:
    """Every method in a line of Markdown."""
    lines = [
        "| `--method` | idea | passes a step | what was read, and its licence | unverified, or ours | code | tests |",
        "|---|---|--:|---|---|---|---|",
    ]
    for name, kind in METHODS.items():
        module = Path(inspect.getfile(kind)).stem
        paper = kind.paper and f"[{kind.paper.reference.split(',')[0]}]({kind.paper.url}): "
        code = f"[{module}.py](../src/hf_nasbert/methods/{module}.py)"
        tests = f"[{tested_in(module)}](../tests/{tested_in(module)})"
        cells = (
            f"`{name}`",
            kind.summary,
            f"{passes(kind):.3g}",
            f"{paper or ''}{kind.source}",
            kind.unverified,
            code,
        )
        lines.append(f"| {' | '.join((*cells, tests))} |")
    return "\n".join(lines) + "\n"


def as_class_table(flag: str, classes: Mapping[str, type]) -> str:
    """Classes in a line of Markdown each: what their docstring says first, and the papers that it names."""
    lines = [f"| `{flag}` | idea | papers | code |", "|---|---|---|---|"]
    for name, kind in classes.items():
        told = inspect.getdoc(kind) or ""
        urls = dict.fromkeys(re.findall(r"https://[^\s\]);,]+[^\s\]);,.]", told))
        file = Path(inspect.getfile(kind)).relative_to(ROOT)
        cells = (
            f"`{name}`",
            " ".join(told.split("\n\n")[0].split()),
            ", ".join(f"[{url.rpartition('/')[2]}]({url})" for url in urls) or "none is named",
            f"[{file.name}](../{file.as_posix()})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_tables() -> str:
    """All that stands between the marks."""
    layouts = as_class_table("--weight_layout", LAYOUTS)
    searches = as_class_table("--search", SEARCHES)
    tests = "[test_{0}.py](../tests/test_{0}.py)".format
    return (
        f"{as_table()}\n## What operators of a block share\n\nTested in {tests('layouts')}.\n\n{layouts}\n"
        "## Ways to search\n\nWhat they find is compared in [search.md](search.md). Each is tested in "
        f"{tests('search')}, {tests('predictor_searches')}, {tests('gradient_mixture')} or {tests('compute_search')}, "
        f"and all in {tests('search_contract')}.\n\n{searches}"
    )


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="Put them into docs/methods.md.")
    if not parser.parse_args().write:
        print(as_tables(), end="")
        return
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + as_tables() + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
