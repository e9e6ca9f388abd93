"""The public API, name by name with signatures, is what docs/api.md says: whoever changes one says so (`make api`)."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """\
# Public API

What can be relied upon in hf_nasbert {version}: the names below, all in `hf_nasbert` itself, with the names, order and
defaults of their parameters; the commands and settings of `hf-nasbert`; the files that it writes. What is gone or
renamed keeps its old name, with a `FutureWarning`, for one release at least. All other modules may change with any
release. What a class inherits from transformers is transformers' own and is not listed.

This page is written by `make api` and held by a test: a changed signature fails until the page is written again.
"""


def is_ours(thing):
    return str(getattr(thing, "__module__", "")).startswith("hf_nasbert")


def parameters_of(function):
    """Names, order and defaults: annotations are told by the docstrings, and written otherwise by every Python."""
    signature = inspect.signature(function)
    told = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=told, return_annotation=signature.empty))
    return re.sub(r"<(\w+) [^>]*>", r"<\1>", text)  # no addresses in memory


def fields_of(kind):
    """Those fields of a dataclass that classes of ours declare, with their defaults."""
    ours = {name for base in kind.__mro__ if is_ours(base) for name in inspect.get_annotations(base)}
    told = []
    for field in dataclasses.fields(kind):
        if field.name in ours and field.init and not field.name.startswith("_"):
            if field.default is not dataclasses.MISSING:
                told.append(f"{field.name}={field.default!r}")
            else:
                made = field.default_factory is not dataclasses.MISSING
                told.append(f"{field.name}=..." if made else field.name)
    return f"({', '.join(told)})"


def members_of(kind):
    """Public methods and properties that classes of ours define, in alphabetical order."""
    found = {}
    for base in reversed([base for base in kind.__mro__ if is_ours(base)]):
        found |= {name: thing for name, thing in vars(base).items() if not name.startswith("_")}
    for name, thing in sorted(found.items()):
        if isinstance(thing, property) or type(thing).__name__ == "cached_property":
            yield f".{name}"
        elif isinstance(thing, staticmethod | classmethod) or inspect.isfunction(thing):
            yield f".{name}{parameters_of(getattr(kind, name))}"


def lines_of(name, thing):
    if inspect.isclass(thing):
        is_fields = dataclasses.is_dataclass(thing)
        yield f"class {name}{fields_of(thing) if is_fields else parameters_of(thing)}"
        yield from (f"    {line}" for line in members_of(thing))
    elif callable(thing):
        yield f"{name}{parameters_of(thing)}"
    else:
        yield f"{name}: {type(thing).__name__}"


def page():
    package = importlib.import_module("hf_nasbert")
    parts = [HEAD.format(version=package.__version__)]
    for name in dir(package):
        thing = getattr(package, name)
        first = (inspect.getdoc(thing) or "").partition("\n")[0] if callable(thing) else "The version of the package."
        parts.append(f"## `{name}`\n\n{first}\n\n```text\n" + "\n".join(lines_of(name, thing)) + "\n```\n")
    return "\n".join(parts)


def test_the_public_api_is_the_one_that_is_written_down():
    assert page() == PAGE.read_text(encoding="utf-8"), "if the change is meant: make api, and a line in CHANGELOG.md"


def test_a_changed_signature_is_seen():
    def before(text, *, seed=0): ...

    def after(text, seed=0): ...

    class Before:
        def run(self, steps): ...

    class After:
        def run(self, num_steps): ...

    Before.__module__ = After.__module__ = "hf_nasbert.here"
    assert list(lines_of("f", before)) == ["f(text, *, seed=0)"] != list(lines_of("f", after))
    assert list(members_of(Before)) == [".run(self, steps)"] != list(members_of(After))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
