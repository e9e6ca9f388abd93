"""What several test files share: small tools."""

import importlib.metadata
import re
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def same_on_all_machines() -> None:
    """One torch thread, and no precision that the CPU decides; nothing where torch is not used."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
        # The CPU does not decide the precision: units for bf16 are seen only where a test says so.
        torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False


def skip_unless_drawn_alike() -> None:
    """Skip a comparison of pixels under another matplotlib than the tested one, which drew what is published."""
    tested = re.search(r"^matplotlib==(\S+)$", (RECIPES.parent / "constraints.txt").read_text(), re.MULTILINE)
    found = importlib.metadata.version("matplotlib")
    if tested is None or found != tested[1]:
        pytest.skip(f"published figures are drawn by the matplotlib of constraints.txt, and here is {found}")


def assert_published(drawn: Path, *, number: int) -> None:
    """Those figures of a folder that are published, so many, are pixel for pixel what their records say."""
    from matplotlib.image import imread

    figures = [figure for figure in sorted(drawn.glob("*.png")) if (FIGURES / figure.name).exists()]
    assert len(figures) == number
    skip_unless_drawn_alike()
    for figure in figures:
        assert np.array_equal(imread(figure), imread(FIGURES / figure.name)), f"{figure.name} is not of its records"


def mostly_slow(values: Iterable[Any], every: int) -> list[Any]:
    """Parameters, or tuples of them, of which every so many-th is fast and the others are of the slow set.

    For long lists whose entries take the same way: some of them stand for all where minutes count.
    """
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=[pytest.mark.slow] * bool(number % every)
        )
        for number, value in enumerate(values)
    ]


def run_recipe(name: str, *argv: object) -> None:
    """Run a recipe as its user does, but in this process.

    Raises:
        SystemExit: If it ends with another status than 0.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    if ended.value.code:
        raise ended.value
