"""What `--help` shows of a command: an example, what is required, the usual settings; the others on request."""

import argparse
import dataclasses
import difflib
import itertools
import re
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

_TITLES = {
    "SupernetArguments": "super-net", "DataArguments": "text", "SupernetTrainingArguments": "training",
    "PipelineArguments": "after the super-net", "CompressDataArguments": "text or examples",
    "CompressArguments": "compression", "AdaptationArguments": "children trained on alone",
    "ScoringArguments": "super-net and dev set", "ScoreChildrenArguments": "which children",
    "SearchChildrenArguments": "search and budget", "RunArguments": "model and optimisation",
    "TaskArguments": "fine-tuning", "DataTaskArguments": "files", "FinetuneArguments": "task",
    "FinetuneSquadArguments": "questions", "FinetuneTokensArguments": "tagged words",
    "PretrainChildArguments": "pre-training", "TimeArguments": "time", "FarmArguments": "which children",
    "StandaloneArguments": "children and their training", "RankingReportArguments": "ranking",
    "RankChildrenArguments": "super-nets",
}  # fmt: skip
_NAME_WIDTH = 34
_SENTENCE = re.compile(r"(?<!e\.g)\. (?=[A-Z])")


class Guide(NamedTuple):
    """What the short page of a command shows: an example to copy, and the settings that most users set."""

    example: str
    shown: tuple[str, ...]


class Entry(NamedTuple):
    """A setting as a page shows it."""

    name: str
    value: str
    text: str
    is_required: bool
    is_switch_off: bool
    """Whether it is on by default, so that --no_name turns it off."""

    @property
    def flags(self) -> str:
        """How it is given, in the one spelling that pages use."""
        off = f", --no_{self.name}" if self.is_switch_off else ""
        return f"--{self.name}{off} {self.value}".rstrip()


class Parser(argparse.ArgumentParser):
    """One whose messages name a flag in one spelling, though it takes two."""

    def error(self, message: str) -> NoReturn:
        """End the program as argparse does."""
        super().error(re.sub(r"(--\w+)/--[\w-]+", r"\1", message))


def page_of(
    program: str,
    description: str | None,
    groups: Mapping[str, Sequence[Entry]],
    guide: Guide | None = None,
    topic: str | None = None,
    hints: Mapping[str, str] | None = None,
) -> str:
    """The page of a command.

    Args:
        program: What the command is called.
        description: What it does.
        groups: Its settings, by the titles that they stand under.
        guide: What the short page shows; without it, all.
        topic: `all` for every setting with all that is said of it, or the name of one.
        hints: What to do about a topic that is no setting of this page, such as the name of a method.

    Raises:
        ValueError: If there is no setting of that name; suggests the closest one, or gives the hint.
    """
    entries = [entry for group in groups.values() for entry in group]
    if topic not in (None, "all"):
        found = [entry for entry in entries if entry.name == _setting_name(str(topic))]
        if not found:
            raise ValueError(_describe_unknown(program, str(topic), [entry.name for entry in entries], hints or {}))
        return "\n".join(_told(found[0]))
    required = [entry for entry in entries if entry.is_required]
    usage = " ".join(entry.flags for entry in required)
    lines = [*_wrapped(f"usage: {program} {usage} [--config NAME|FILE.yaml] [--setting VALUE ...]", "       ")]
    lines += ["", *_wrapped(description)] if description else []
    lines += ["", "example:", f"  {guide.example}"] if guide else []
    is_short = guide is not None and topic is None
    told = _line if is_short else _told
    lines += ["", "required:", *(line for entry in required for line in told(entry))] if required else []
    if guide is not None and is_short:  # first what is explained: a group of bare names says little
        groups = dict(sorted(groups.items(), key=lambda group: not _is_shown(group[1], guide)))
    for title, group in groups.items():
        shown: list[Entry] = []
        others: list[Entry] = []
        for entry in group:
            if not entry.is_required:
                (shown if guide is None or not is_short or entry.name in guide.shown else others).append(entry)
        if shown or others:
            lines += ["", f"{title}:"]
            lines += [line for entry in shown for line in told(entry)]
            lines += _wrapped("  and: " + " ".join(f"--{entry.name}" for entry in others), "       ") if others else []
    closing = "Settings can also come from a YAML file or a packaged config (--config quickstart)."
    if is_short:
        closing = f"{program} --help all explains every setting, --help NAME one of them. {closing}"
    lines += ["", *_wrapped(closing)]
    return "\n".join(lines)


def _is_shown(group: Sequence[Entry], guide: Guide) -> bool:
    return any(entry.name in guide.shown for entry in group)


def _describe_unknown(program: str, topic: str, names: Sequence[str], hints: Mapping[str, str]) -> str:
    name = _setting_name(topic)
    if name in hints:
        return f"--help {topic}: {hints[name]}"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean --help {close[0]}?" if close else f"{program} --help all lists them all"
    return f"--help {topic}: there is no setting of that name; {hint}"


def _setting_name(topic: str) -> str:
    return topic.lstrip("-").replace("-", "_")


def help_among(argv: Sequence[str]) -> str | None:
    """What `--help` among the arguments asks for: "" for the page of the command; None where it is not there."""
    for word, follower in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag, _, topic = word.partition("=")
        if flag in ("-h", "--help"):
            return topic or ("" if follower.startswith("-") else follower)
    return None


def hints_of_choices(program: str, dataclass_types: Sequence[type]) -> dict[str, str]:
    """Where `--help` explains a method, a search, and each of their settings."""
    found: dict[str, str] = {}
    for kind in dataclass_types:
        for choice in getattr(kind, "choices", {}).values():
            for setting, names in choice.owners().items():
                found[setting] = (
                    f"it is a setting of --{choice.by} {' and '.join(names)}; "
                    f"{program} --{choice.by} {names[0]} --help {setting} explains it"
                )
            for name in choice.options():
                found[name] = f"it is a --{choice.by}; {program} --{choice.by} {name} --help shows its settings"
    return found


def entries_of(kinds: Sequence[Any], chosen: Mapping[str, Any], fields_of: Any) -> dict[str, list[Entry]]:
    """The settings of dataclasses, by the title of the class that first declares each; of one shared, the last's.

    Args:
        kinds: The dataclasses.
        chosen: Further ones, of choices that were made, by the name of their argument.
        fields_of: Gives the fields of a dataclass that are settings, with their types.
    """
    where: dict[str, str] = {}
    found: dict[str, Entry] = {}
    for kind in kinds:
        for field, hint in fields_of(kind):
            first = next(
                base for base in reversed(kind.__mro__) if field.name in vars(base).get("__annotations__", {})
            )
            where.setdefault(field.name, _TITLES.get(first.__name__, "settings"))
            found[field.name] = _entry(field, hint)
    for name, kind in chosen.items():
        for field, hint in fields_of(kind):
            where[field.name], found[field.name] = name.replace("_", " "), _entry(field, hint)
    groups: dict[str, list[Entry]] = {}
    for name, entry in found.items():
        groups.setdefault(where[name], []).append(entry)
    return groups


def _entry(field: dataclasses.Field[Any], hint: Any) -> Entry:
    told = field.metadata.get("help")
    text = str(told() if callable(told) else told or "").replace("%%", "%")
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    is_required = default is dataclasses.MISSING
    if not is_required and default not in (None, False, True, []):
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        text = f"{text} [{shown}]"
    return Entry(field.name, _value(hint), text, is_required, default is True)


def _value(hint: Any) -> str:
    options = [kind for kind in _options_of(hint) if kind is not types.NoneType]
    kind = str if str in options else options[0]
    if get_origin(kind) is list:
        return "A B ..." if get_args(kind)[0] is str else "N N ..."
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return {bool: "", int: "N", float: "X"}.get(kind, "VALUE")


def _options_of(hint: Any) -> tuple[Any, ...]:
    is_union = get_origin(hint) in (Union, types.UnionType)
    return get_args(hint) if is_union else (hint,)


def _line(entry: Entry) -> Iterator[str]:
    """A setting and its first sentence: beside the flags, or below them where they are long."""
    flags, width = entry.flags, _width() - _NAME_WIDTH
    flags = flags if len(flags) < _NAME_WIDTH - 2 else f"--{entry.name} VALUE"
    sentence, *_ = _SENTENCE.split(entry.text)
    lines = textwrap.wrap(sentence.removesuffix("."), width, break_on_hyphens=False, break_long_words=False)
    if len(flags) < _NAME_WIDTH - 2:
        yield f"  {flags.ljust(_NAME_WIDTH - 2)}{''.join(lines[:1])}"
        lines = lines[1:]
    else:
        yield f"  {flags}"
    yield from (" " * _NAME_WIDTH + line for line in lines)


def _told(entry: Entry) -> list[str]:
    """A setting and all that is said of it."""
    return [f"  {entry.flags}", *_wrapped(f"      {entry.text}{' Required.' * entry.is_required}", "      ")]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _width(), subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _width() -> int:
    return min(100, max(60, shutil.get_terminal_size((100, 24)).columns))
