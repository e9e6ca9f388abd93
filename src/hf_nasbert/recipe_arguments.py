"""Settings of a recipe: dataclasses filled from one YAML file and from command-line flags, which win."""

import argparse
import dataclasses
import difflib
import math
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from hf_nasbert.foreign import printable
from hf_nasbert.help_pages import Guide, Parser, entries_of, help_among, hints_of_choices, page_of
from hf_nasbert.old_names import CALLED_ELSEWHERE, with_new_flags, with_new_keys
from hf_nasbert.paths import LOCALE_ADVICE, expanded
from hf_nasbert.terminal import user_mistakes
from hf_nasbert.yaml_files import load_yaml, one_line, shown

__all__ = ["check_settings", "command_of", "parse_recipe_arguments", "read_config", "user_mistakes"]

_CONFIGS = Path(__file__).parent / "recipe_configs"

Look = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Given the settings of a command line and its file, the defaults of others: what a model's folder says of them."""


class Choice(NamedTuple):
    """Settings of their own that come with a choice, such as those of a training method.

    A dataclass with a class variable `choices`, a mapping of the names of arguments to a `Choice` each, gets an
    instance of the chosen dataclass as that argument; its fields are settings beside the others.

    Attributes:
        by: The field that chooses.
        options: Returns the dataclass of every choice.
    """

    by: str
    options: Callable[[], Mapping[str, type]]

    def settings_of(self, made: str, given: Any) -> Any:
        """The settings of the choice that was made: what was given, if it is these, or made of a mapping of some.

        Raises:
            ValueError: If they are another choice's.
        """
        kind: Any = self.options()[made]
        if given is not None and not isinstance(given, Mapping):
            if type(given) is not kind:
                raise ValueError(f"{self.by}={made} has settings of {kind.__name__}, got {type(given).__name__}")
            return given
        for name in given or {}:
            owners = self.owners().get(name, [])
            if made not in owners:
                whose = f"a setting of {' and '.join(owners)}" if owners else f"no setting of any {self.by}"
                raise ValueError(f"{name} is {whose}, and {self.by}={made}")
        return kind(**(given or {}))

    def owners(self) -> dict[str, list[str]]:
        """Which choices have a setting, by its name."""
        found: dict[str, list[str]] = {}
        for name, option in self.options().items():
            for field in dataclasses.fields(option):
                found.setdefault(field.name, []).append(name)
        return found


def parse_recipe_arguments(
    dataclass_types: Sequence[type],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    look: Look | None = None,
    guide: Guide | None = None,
) -> tuple[Any, ...]:
    """Fill one instance of each dataclass from `--config FILE.yaml` and flags; a flag overrides the file.

    A field that two dataclasses share (a seed, say) is one setting and fills both. Settings that a dataclass calls
    `alternatives` stand for each other: a flag for one takes the place of the file's other one. Settings that belong
    to a choice (see `Choice`) exist where that choice was made. Whatever does not fit
    ends the program with exit status 2 and one message that names it, as argparse does.

    Args:
        dataclass_types: The dataclasses; their fields are the settings.
        argv: Arguments of the command line; by default those of this process.
        description: What `--help` says of the program.
        look: Looks up the defaults of settings that neither a flag nor the file gives. What it raises is let through.
        guide: What `--help` shows, where that is not all; `--help all` shows that.

    Returns:
        One instance per dataclass, in their order.

    Raises:
        SystemExit: For an unknown or misspelt key or flag (the closest known one is suggested), a value of the wrong
            type, a missing required setting, an unreadable file, or a value that a dataclass refuses.
    """
    argv = with_new_flags(sys.argv[1:] if argv is None else argv, dataclass_types)
    chosen, refused = _chosen_settings(_settings_of_config(argv), dataclass_types, argv)
    parser = Parser(
        add_help=False,
        allow_abbrev=False,
        conflict_handler="resolve",  # a setting that two dataclasses share is defined by the last one
        usage="%(prog)s [--config NAME|FILE.yaml] [--setting VALUE ...]",
    )
    for kind in (*dataclass_types, *chosen.values()):
        for field, hint in _settings_of(kind):
            _add_flags(parser, field, hint)
    parser.add_argument("--config", metavar="NAME|FILE.yaml")
    with _refused_by(parser):
        if (asked := help_among(argv)) is not None:
            groups = entries_of(dataclass_types, chosen, _settings_of)
            if guide is not None:
                own = (field.name for kind in chosen.values() for field, _ in _settings_of(kind))
                guide = guide._replace(shown=(*guide.shown, *own))
            hints = hints_of_choices(parser.prog, dataclass_types)
            sys.stdout.write(page_of(parser.prog, description, groups, guide, asked or None, hints) + "\n")
            raise SystemExit(0)
        for word in argv:
            _check_locale(word)
        settings = _read_config_of(argv, dataclass_types)
        _set_defaults(parser, settings)
        # Before argparse asks for what is required: a misspelt flag is why it is missing.
        strange = [word for word in argv if word.startswith("--") and not _is_known(word, parser)]
        if strange:
            raise ValueError(_describe_unknown(strange, parser, refused))
        given = settings | _flags_of(parser, argv, refused)
    if look is not None:
        found = {name: value for name, value in look(given).items() if name not in given}
        _set_defaults(parser, found)
    with _refused_by(parser):
        values = vars(parser.parse_args(argv))

        def make(kind: Any) -> Any:
            nested = {name: make(chosen[name]) for name in getattr(kind, "choices", {}) if name in chosen}
            return kind(**{field.name: values[field.name] for field, _ in _settings_of(kind)}, **nested)

        return tuple(make(kind) for kind in dataclass_types)


def command_of(program: str, *arguments: Any) -> str:
    """The command line that fills these dataclasses, as a shell reads it; what has its default is left out.

    A setting that two of them share is the last one's. Settings that belong to a choice (see `Choice`) follow.
    """
    chosen = [getattr(one, name) for one in arguments for name in getattr(one, "choices", {})]
    given = {
        field.name: (field, getattr(one, field.name))
        for one in [*arguments, *chosen]
        for field, _ in _settings_of(type(one))
    }
    words: list[str] = []
    for name, (field, value) in given.items():
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value is None or value == default:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return f"{program} {shlex.join(words)}"


@contextmanager
def _refused_by(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the program as argparse does where a setting is no good."""
    try:
        yield
    except (ValueError, OSError) as error:
        parser.error(printable(error))


def _set_defaults(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    for action in parser._actions:
        if action.dest in defaults:
            action.required, action.default = False, defaults[action.dest]


_NOT_GIVEN = object()


def _flags_of(parser: argparse.ArgumentParser, argv: list[str], refused: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the command line itself gives."""
    empty = argparse.Namespace(**{action.dest: _NOT_GIVEN for action in parser._actions})
    namespace, strange = parser.parse_known_args(argv, empty)
    if strange:
        raise ValueError(_describe_unknown(strange, parser, refused))
    given = {name: value for name, value in vars(namespace).items() if value is not _NOT_GIVEN}
    for name, value in given.items():
        _check_finite(f"--{name}", value)
    return given


def read_config(path: str | Path, dataclass_types: Sequence[type], argv: Sequence[str] = ()) -> dict[str, Any]:
    """Read the settings of a YAML file, checked against the fields of the dataclasses.

    YAML 1.2's words are understood: `no` and `on` are words, not booleans, and `1e-3` is a number.

    Args:
        path: The file, or the name of a config of the package (see `find_config`).
        dataclass_types: The dataclasses.
        argv: Flags that override the file; one of them may make a choice (see `Choice`).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: For a file that is not a YAML mapping, a key given twice, an unknown key (the closest known one is
            suggested) or a value of the wrong type.
    """
    path = find_config(path)
    return check_settings(f"config {path}", _load_yaml(path), dataclass_types, argv)


def find_config(config: str | Path) -> Path:
    """The file of a config: a path, or the name of a config that comes with the package, such as `quickstart`.

    A file of that name in the working folder comes first.

    Raises:
        FileNotFoundError: If there is neither; names the configs that there are.
    """
    path = Path(expanded(config))
    if path.is_file():
        return path
    packaged = {file.stem: file for file in _CONFIGS.glob("*.yaml")}
    if str(config) in packaged:
        return packaged[str(config)]
    raise FileNotFoundError(f"config {path}: no such file, nor one of the configs {', '.join(sorted(packaged))}")


def _load_yaml(path: Path) -> dict[Any, Any]:
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config {path} is no YAML file: {one_line(error)}") from None
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise ValueError(f"config {path} holds a {type(settings).__name__}; expected lines of `setting: value`")
    return settings


def check_settings(
    source: str, settings: Mapping[str, Any], dataclass_types: Sequence[type], argv: Sequence[str] = ()
) -> dict[str, Any]:
    """Settings of a file, as the types that the fields of the dataclasses declare.

    Raises:
        ValueError: For a setting that none of them has, or a value of the wrong type; begins with `source`.
    """
    settings = with_new_keys(source, dict(settings), dataclass_types)
    chosen, refused = _chosen_settings(settings, dataclass_types, argv)
    kinds = (*dataclass_types, *chosen.values())
    types_of = {field.name: hint for kind in kinds for field, hint in _settings_of(kind)}
    for key in settings:
        if key not in types_of:
            if key in refused:
                raise ValueError(f"{source}: {key} {refused[key]}")
            raise ValueError(f"{source}: unknown setting {shown(key)}{_closest(str(key)[:99], types_of)}")
    return {key: _checked(f"{source}: {key}", value, types_of[key]) for key, value in settings.items()}


def _check_locale(word: str) -> None:
    """Refuse letters that Python could not read: no file can be written with them, when the work is done."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{shown(ascii(word))} cannot be read as {sys.getfilesystemencoding()}: {LOCALE_ADVICE}"
        ) from None


def _check_finite(name: str, value: Any) -> None:
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name} is {number}; expected a finite number")


def _find(argv: Sequence[str], name: str) -> str | None:
    """The value of one flag among the arguments, `None` if it is not there."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(f"--{name}", nargs="?")
    found: str | None = getattr(finder.parse_known_args(argv)[0], name)
    return found


def _settings_of(kind: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a dataclass that are settings, with their types; not those made of settings of their own."""
    hints, choices = typing.get_type_hints(kind), getattr(kind, "choices", {})
    for field in dataclasses.fields(kind):
        if field.init and field.name not in choices:
            yield field, hints[field.name]


def _add_flags(parser: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any) -> None:
    """Add the flags of a setting, named and read as transformers' `HfArgumentParser` does, which needs torch.

    `--a_b` and `--a-b` are one. A list takes one value or more. A boolean stands alone or takes a word; one that is on
    by default has a `--no_a_b` beside it.
    """
    options: dict[str, Any] = {}
    if field.default_factory is not dataclasses.MISSING:
        options["default"] = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        options["default"] = field.default
    else:
        options["required"] = True
    kinds = [kind for kind in _options_of(hint) if kind is not types.NoneType]
    kind = str if str in kinds else kinds[0]  # of a number or a text, such as 2M: the text
    origin = typing.get_origin(kind)
    if origin is Literal:
        named = {str(choice): choice for choice in typing.get_args(kind)}
        options |= {"choices": typing.get_args(kind), "type": lambda text: named.get(text, text)}
    elif kind is bool:
        options["type"] = _as_boolean
        if options.get("default") is not None:
            options |= {"nargs": "?", "const": True}
    elif origin is list:
        options |= {"nargs": "+", "type": typing.get_args(kind)[0]}
    else:
        options["type"] = kind
    parser.add_argument(*_spellings(field.name), **options)
    if kind is bool and field.default is True:
        spellings = _spellings(f"no_{field.name}")
        parser.add_argument(*spellings, action="store_false", dest=field.name, default=False)


def _options_of(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _spellings(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _as_boolean(text: str) -> bool:
    word = text.lower()
    if word in ("yes", "true", "t", "y", "1"):
        return True
    if word in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{shown(text)} is neither true nor false (yes, t, y, 1; no, f, n, 0)")


def _settings_of_config(argv: Sequence[str]) -> dict[str, Any]:
    """The settings in the `--config` among the arguments, unchecked; none of a file that cannot be read."""
    path = _find(argv, "config")
    try:
        return {} if path is None else _load_yaml(find_config(path))
    except (ValueError, OSError):
        return {}


def _chosen_settings(
    settings: Mapping[str, Any], dataclass_types: Iterable[type], argv: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The dataclasses that belong to the choices made, by argument, and why settings of other choices are refused."""
    chosen: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for kind in dataclass_types:
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        for argument, choice in getattr(kind, "choices", {}).items():
            made = _find(argv, choice.by) or settings.get(choice.by, defaults[choice.by])
            options = choice.options()
            if isinstance(made, str) and made in options:
                chosen[argument] = options[made]
            for setting, names in choice.owners().items():
                if made not in names:
                    owned = f"belongs to {choice.by} {' or '.join(names)}, and {choice.by} is {shown(made)}"
                    refused[setting] = f"{owned}: leave it out, or choose one of these"
    return chosen, refused


def _read_config_of(argv: list[str], dataclass_types: Sequence[type]) -> dict[str, Any]:
    """The settings of the `--config` among the arguments, without those that a flag is an alternative to."""
    path = _find(argv, "config")
    settings = {} if path is None else read_config(path, dataclass_types, argv)
    flags = {word.removeprefix("--").partition("=")[0] for word in argv if word.startswith("--")}
    for kind in dataclass_types:
        alternatives = set(getattr(kind, "alternatives", ()))
        if alternatives & flags:
            settings = {name: value for name, value in settings.items() if name not in alternatives}
    return settings


def _checked(name: str, value: Any, expected: Any) -> Any:
    """`value` as the type that a field declares; a whole number may stand for a float."""
    origin = typing.get_origin(expected)
    if len(_options_of(expected)) > 1:
        for option in _options_of(expected):
            try:
                return _checked(name, value, option)
            except ValueError:
                continue
    elif origin is Literal:
        if value in typing.get_args(expected):
            return value
        known = ", ".join(map(repr, typing.get_args(expected)))
        raise ValueError(f"{name} is {shown(value)}; expected one of {known}")
    elif origin is list and isinstance(value, list):
        (item,) = typing.get_args(expected)
        return [_checked(f"{name}[{index}]", element, item) for index, element in enumerate(value)]
    elif expected == list[str] and isinstance(value, str):
        return [value]
    elif expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        _check_finite(name, number)
        return number
    elif origin is None and isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
        return value
    expected_name = expected.__name__ if isinstance(expected, type) and origin is None else str(expected)
    raise ValueError(f"{name} is {shown(value)} ({type(value).__name__}); expected {expected_name}")


def _is_known(word: str, parser: argparse.ArgumentParser) -> bool:
    return word.partition("=")[0] in parser._option_string_actions


def _describe_unknown(strange: list[str], parser: argparse.ArgumentParser, refused: Mapping[str, str]) -> str:
    """One sentence about arguments that no setting has."""
    flags = [argument.partition("=")[0] for argument in strange if argument.startswith("-")]
    if not flags:
        return f"unexpected argument {strange[0]!r}: settings are given as `--setting value`"
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    return "; ".join(
        f"{flag} {refused[name]}"
        if (name := flag.removeprefix("--").replace("-", "_")) in refused
        else f"unknown flag {flag}{_closest(flag, known)}"
        for flag in flags
    )


def _closest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    prefix = "--" * name.startswith("--")
    setting = name.removeprefix("--").replace("-", "_")
    for other in CALLED_ELSEWHERE.get(setting, ()):
        if f"{prefix}{other}" in known:
            return f"; it is called {prefix}{other} here"
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; --help lists all that there are"
