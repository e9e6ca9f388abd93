# SPDX-License-Identifier: Apache-2.0
"""What operator names say: kind, size, width of one operator, and the geometry of a chain of them. Plain Python.

A name is a kind, for some kinds followed by a size, and by `@` and a width where the stage has widths of its own:
`"attention"`, `"attention6"` (six heads), `"ffn768@192"` (an inner width of 768 between states of 192), `"conv5"`.
A bare name means the full size: as many heads as fill the width, `ffn_ratio` times the width. This file travels with
every child, beside those that build the operators; spaces, costs, cards and drawings read the same names by it.
"""

import functools
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

SKIP = "skip"
"""The operator without weights: its block passes on what it is given."""

OPERATOR_KINDS = ("attention", "ffn", "conv3", "conv5", "conv7", "norm", SKIP)
"""Kinds of candidate operators."""

TOKENWISE_KINDS = ("ffn", "norm", SKIP)
"""Kinds whose output at a token depends on that token alone; all others mix tokens."""

SIZED_KINDS = {"attention": "heads", "ffn": "inner width"}
"""Kinds whose name may say a size, and what it counts."""

# Names become module names, file names and table cells; nothing that a path or the text form could misread gets in.
_WORD = r"[A-Za-z][A-Za-z0-9_]{0,63}"
_SIZED = rf"({'|'.join(SIZED_KINDS)})([1-9][0-9]{{0,5}})"
_NAME = rf"({_WORD})(?:@([1-9][0-9]{{0,5}}))?"

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 400


def shown(thing: object) -> str:
    """`repr`, cut short: a message about hostile input must not be as long, or as deep, as that input."""
    text = _REPR.repr(thing)
    return text if len(text) <= 400 else f"{text[:400]}..."


class OperatorName(NamedTuple):
    """What an operator's name says.

    Args:
        candidate: The name without the width: `"ffn768"` of `"ffn768@192"`.
        kind: The kind: `"ffn"`, `"conv5"`.
        size: Heads of an attention, inner width of an ffn; `None` where the name says none: the full size.
        width: The width behind the `@`; `None` where there is none: the model's hidden size.
    """

    candidate: str
    kind: str
    size: int | None
    width: int | None


@functools.lru_cache(maxsize=4096)
def _parse(name: str) -> OperatorName | None:
    match = re.fullmatch(_NAME, name)
    if match is None or (match[1] == SKIP and match[2]):
        return None
    width = int(match[2]) if match[2] else None
    sized = re.fullmatch(_SIZED, match[1])
    kind, size = (sized[1], int(sized[2])) if sized else (match[1], None)
    return OperatorName(match[1], kind, size, width)


def parse_operator(name: object) -> OperatorName:
    """Read an operator's name.

    Raises:
        ValueError: If it is none.
    """
    found = _parse(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(
            f"{shown(name)} is not an operator name: expected a kind of ASCII letters, digits and underscores, "
            f"followed by '@' and a width where the stage has widths, as in 'conv5' or 'conv5@192' ('skip' has none)"
        )
    return found


def operator_kind(name: str) -> str:
    """The kind of an operator: `"conv5"` of `"conv5@192"`, `"attention"` of `"attention6"`."""
    return parse_operator(name).kind


def operator_width(name: str) -> int | None:
    """The width of an operator: 192 of `"conv5@192"`, None of a name without one."""
    return parse_operator(name).width


def is_candidate(text: object) -> bool:
    """Whether a text may be a candidate of a stage: a kind and perhaps a size, without a width."""
    return isinstance(text, str) and re.fullmatch(_WORD, text) is not None


def last_mixing_block(operators: Sequence[str]) -> int:
    """Index of the last block that mixes tokens, 0 if none does.

    It and all blocks behind it need to run only at those tokens whose last state is read.
    """
    return max(
        (block for block, name in enumerate(operators) if operator_kind(name) not in TOKENWISE_KINDS), default=0
    )


class Block(NamedTuple):
    """One block of a child.

    Args:
        index: Its number in the chain.
        stage: The number of its stage.
        name: The operator's name.
        kind: The operator's kind.
        size: The operator's size; `None` means full.
        input_width: Width of the states that the block is given.
        width: Width of its operator; of a skip, that of its stage.
        output_width: Width of the states that leave it. Between stages all states are as wide as the model.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of that name
    stage: int
    name: str
    kind: str
    size: int | None
    input_width: int
    width: int
    output_width: int


def geometry(operators: Sequence[str], hidden_size: int, stage_lengths: Sequence[int] | None = None) -> list[Block]:
    """The blocks of an architecture, one by one.

    Args:
        operators: One name per block.
        hidden_size: Width of the states between stages, and of operators whose names have no width; 0 where nobody
            knows it, as in a drawing.
        stage_lengths: Blocks of each stage; `None` means one stage.

    Raises:
        ValueError: If a name is none, the stages do not add up, or a stage holds two widths.
    """
    lengths = [len(operators)] if stage_lengths is None else list(stage_lengths)
    if sum(lengths) != len(operators) or min(lengths, default=0) < 1:
        raise ValueError(
            f"stage_lengths {lengths} sum to {sum(lengths)}, but there are {len(operators)} operators; "
            "expected positive lengths with exactly that sum"
        )
    blocks: list[Block] = []
    for stage, length in enumerate(lengths):
        names = [parse_operator(name) for name in operators[len(blocks) : len(blocks) + length]]
        widths = sorted({name.width or hidden_size for name in names if name.kind != SKIP})
        if len(widths) > 1:
            raise ValueError(f"stage {stage} holds operators of widths {widths}; expected one width in a stage")
        width = widths[0] if widths else hidden_size
        for place, name in enumerate(names):
            index = len(blocks)
            enters, leaves = place == 0, place == length - 1
            blocks.append(
                Block(
                    index,
                    stage,
                    operators[index],
                    name.kind,
                    name.size,
                    hidden_size if enters else width,
                    width,
                    hidden_size if leaves else width,
                )
            )
    return blocks


def geometry_of(config: Any, operators: Sequence[str]) -> list[Block]:
    """The blocks of an architecture in the stages of a config, a child's or a super-net's.

    Raises:
        ValueError: As `geometry`.
    """
    if hasattr(config, "search_space"):
        lengths = [len(stage["blocks"]) for stage in config.search_space["stages"]]
    else:
        lengths = config.stage_lengths
    return geometry(operators, int(config.hidden_size), lengths)


def stages(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """The blocks of every stage."""
    for stage in range(blocks[-1].stage + 1):
        yield [block for block in blocks if block.stage == stage]


def head_size(width: int, attention_head_size: int | None) -> int:
    """Width of one attention head in an operator of `width`.

    Raises:
        ValueError: If heads of that size do not fill the width.
    """
    size = attention_head_size
    if size is None:
        size = 64 if width % 64 == 0 and width >= 128 else 32
    if width % size:
        raise ValueError(f"attention of width {width} does not divide into heads of {size}: set attention_head_size")
    return size


def inner_width(config: Any, name: str) -> int:
    """Width inside of an operator: of all its heads together, of the widened states of an ffn; else its own width.

    Raises:
        ValueError: If the name is none, or heads do not fill the width.
    """
    operator = parse_operator(name)
    width = operator.width or int(config.hidden_size)
    if operator.kind == "attention" and operator.size is not None:
        return operator.size * head_size(width, config.attention_head_size)
    if operator.kind == "ffn":
        return operator.size or int(config.ffn_ratio) * width
    return width
