"""Packages whose names load on first use, so that their light modules are there without torch."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def load_on_first_use(
    package: str, names_of: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: Its `__name__`.
        names_of: Its names, by the module that each is imported from.
    """
    home_of = {name: module for module, names in names_of.items() for name in names}

    def find(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    def known() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *home_of})

    return find, known, sorted(home_of)
