"""Text of YAML 1.2 in, plain types out: no aliases, no tags, nothing deep, no key twice."""

import re
import reprlib
from typing import Any

import yaml

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


def shown(value: object) -> str:
    """`repr`, cut short: a message about a strange value must not be as long as that value."""
    return _REPR.repr(value)


def one_line(error: Exception) -> str:
    """The message of an error in one line, cut short."""
    return " ".join(str(error).split())[:400] or type(error).__name__


def load_yaml(text: str) -> Any:
    """What a text of YAML 1.2 says, in plain types.

    Raises:
        ValueError: If it is no YAML, or uses what has no use here: aliases, tags, deep nesting, a key twice.
    """
    try:
        return yaml.load(text, Loader=_Yaml12Loader)
    # Beside its own errors PyYAML lets those of its constructors out: `!!int x`, `!!bool x`, ten thousand brackets.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(one_line(error)) from None


_DEEPEST = 20


class _Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars, and without silently dropped duplicate keys."""

    yaml_implicit_resolvers = {}  # of its own: PyYAML's are shared by all loaders
    depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{shown(key.value)} is given twice", node.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; what has no use among settings is refused.

        Of aliases a few lines make gigabytes; on deep nesting PyYAML spends time with the square of the depth.
        """
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
            raise yaml.composer.ComposerError(None, None, "aliases (*) are refused", mark)
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {_DEEPEST} deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """Construct a whole number: 010 is ten."""
        return int(self.construct_scalar(node))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _Yaml12Loader.construct_decimal)
