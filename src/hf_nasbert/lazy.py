"""What is imported late: packages whose names load on first use, and those that only an extra of ours brings."""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any


def load_on_first_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package: its names are those that it imports for type checkers.

    Args:
        package: Its `__name__`. The imports in its `if TYPE_CHECKING` are read, and a name's is done when it is asked
            for.
    """
    body = ast.parse(inspect.getsource(sys.modules[package])).body
    block = next(node for node in body if isinstance(node, ast.If))
    home_of = {
        alias.name: importlib.util.resolve_name("." * node.level + str(node.module), package)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def find(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return find, known, sorted(home_of)


def check_extra(what: str, extra: str, *packages: str) -> None:
    """Refuse to go on without packages that only `pip install "hf_nasbert[EXTRA]"` brings; none is imported.

    Args:
        what: What needs them, as the message begins.
        extra: One of the extras of pyproject.toml.
        *packages: Their names for `import`.

    Raises:
        ImportError: Naming the first that is missing, and how to install it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f'{what} needs {package}, which is not installed: pip install "hf_nasbert[{extra}]"', name=package
            )
