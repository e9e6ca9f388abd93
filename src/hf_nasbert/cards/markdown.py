"""Text from records as Markdown in which nothing is markup, and the templates that it goes into.

Whatever a template prints is escaped, unless it was built here as `Markdown`: safe by default.
"""

import functools
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from hf_nasbert.records import is_finite_number

if TYPE_CHECKING:
    import jinja2

_LABELS = {
    "flops": "FLOPs",
    "latency_ms": "latency (ms)",
    "num_parameters": "parameters",
    "peak_activation_bytes": "most memory of activations (bytes)",
    "num_children": "children in the space",
    "num_scored": "children scored",
    "hf_nasbert": "`hf_nasbert`",
    "num_steps": "optimizer steps",
    "num_tokens": "tokens seen",
    "proxy_loss": "proxy loss of this child (nats per masked token)",
}
_AT_MOST = "at most "


class Markdown(str):
    """Text that is Markdown already, and safe: never escaped again."""


def render(template: str, /, **values: Any) -> str:
    """A template of this folder with its values filled in; never more than one blank line in a row."""
    return re.sub(r"\n{3,}", "\n\n", _template(template).render(**values))


@functools.cache
def _template(name: str) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        finalize=lambda value: value if isinstance(value, Markdown) else escape(str(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # that one is for HTML
    )
    environment.filters.update(
        code=code, number=number, file=Markdown, python=lambda text: Markdown(python_string(text))
    )
    environment.globals.update(values_table=values_table)
    return environment.from_string((resources.files("hf_nasbert.cards") / name).read_text(encoding="utf-8"))


def values_table(header: Sequence[str], values: Mapping[str, Any]) -> Markdown:
    """A table of names and their values, in their order."""
    return table(header, [(label(key), cell(value)) for key, value in values.items()])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """A table of cells that are Markdown already; pipes in them would end a cell, even in code."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(one.replace("|", r"\|") for one in line) + " |" for line in lines))


def label(key: str) -> str:
    """A name in words."""
    if key.startswith(_AT_MOST):
        return f"{_AT_MOST}{label(key.removeprefix(_AT_MOST))}"
    return _LABELS.get(key) or escape(key.replace("_", " "))


def cell(value: Any) -> str:
    """A table cell: numbers as numbers, names as code, groups item by item."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{label(str(key))}: {cell(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(cell, value))
    return code(str(value))


def text_cell(text: str) -> str:
    """A table cell of text that was made for people already; what is a number stays as it is."""
    return text if re.fullmatch(r"[\d.,± ]*", text) else escape(text)


def number(value: int | float) -> Markdown:
    """Whole numbers in full, others to four significant digits.

    Raises:
        ValueError: If it is not a finite number.
    """
    check_number(value, "the record")
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1e4):
        return Markdown(f"{int(value):,}")
    return Markdown(f"{value:.4g}")


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, and the sample standard deviation where there are several values."""
    mean = statistics.fmean(values)
    return f"{mean:.4f}" if len(values) == 1 else f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def escape(text: str) -> Markdown:
    """Text in which nothing is Markdown or HTML: one line, every sign that could mean something escaped."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#!|~$@]|:(?! |$))", r"\\\1", text)  # a colon before a space begins nothing
    text = re.sub(r"(?i)\b(www)\.", r"\1\\.", text)  # GitHub's dialect makes a link of it
    text = re.sub(r"^([-+=])", r"\\\1", text)  # at a line's start: a list, a heading's underline
    return Markdown(re.sub(r"^(\d+)([.)])", r"\1\\\2", text))


def code(text: str) -> Markdown:
    """A code span, in which nothing is Markdown or HTML; its fence is longer than any run of backticks in the text."""
    text = one_line(text)
    if not text:
        return Markdown("")  # two backticks would open a span
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def python_string(text: str) -> str:
    """The text as a Python literal."""
    return json.dumps(text)  # a JSON string of ASCII is a Python string: no line break, no quote gets out


def one_line(text: str) -> str:
    """The text with every run of white space and unprintable signs as one space."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def check_number(value: Any, where: str) -> None:
    """Refuse what is not a finite number.

    Raises:
        ValueError: If it is not; says where.
    """
    if not is_finite_number(value):
        raise ValueError(f"{where}: {str(value)[:80]!r} is not a finite number; leave it out of the record")
