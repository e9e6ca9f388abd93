"""Caps on what a child may cost, as numbers or as shares of a base model's own cost, as people write them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property
from typing import Self

from hf_nasbert import records

_COST_OF = {
    "max_parameters": "num_parameters",
    "max_flops": "flops",
    "max_latency_ms": "latency_ms",
    "max_memory": "peak_activation_bytes",
}
BASE_MODEL, LARGEST_CHILD = "the base model", "the largest child"
"""What the shares of a budget are of: of an encoder that is made smaller, and of a space that is searched."""

_FIELD_OF = {"max_latency": "max_latency_ms"}  # a setting's name, where a budget calls it otherwise
_SHARE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})\s*x\s*", re.IGNORECASE)
_UNIT_OF_LATENCY = re.compile(r"\s*ms\s*$", re.IGNORECASE)
_LARGE = 1e5  # from here on whole numbers say enough
_LONGEST_SHOWN = 30  # characters of a text in a message
_LONGEST_QUANTITY = 300  # characters; more digits than that are no wish


@dataclass(frozen=True)
class Share:
    """A share of what a base model itself costs, written `0.5x`.

    Args:
        factor: Above 0 and below 1: the base model itself is within any other.

    Raises:
        ValueError: If it is not.
    """

    factor: float

    def __post_init__(self) -> None:
        if not records.is_finite_number(self.factor) or not 0 < self.factor < 1:
            raise ValueError(
                f"{self.factor}x is not a share: expected more than 0x and less than 1x, which is all of it"
            )

    def __str__(self) -> str:
        return f"{self.factor}x"


@dataclass(frozen=True)
class Budget:
    """Caps on what a child may cost; None caps nothing. All caps hold at once.

    A cap may be a `Share` of a base model's cost: then the budget says nothing until `of` has made a number of it.

    Args:
        max_parameters: Cap on `num_parameters`, embeddings and head included.
        max_flops: Cap on `flops`.
        max_latency_ms: Cap on `latency_ms`.
        max_memory: Cap on `peak_activation_bytes`, in bytes.

    Raises:
        ValueError: If a cap is not a positive number.
    """

    max_parameters: float | Share | None = None
    max_flops: float | Share | None = None
    max_latency_ms: float | Share | None = None
    max_memory: float | Share | None = None

    def __post_init__(self) -> None:
        for name, cap in vars(self).items():
            if cap is None or isinstance(cap, Share):
                continue
            if not records.is_finite_number(cap) or cap <= 0:
                raise ValueError(f"{name} must be a positive number, not {cap!r}")

    @classmethod
    def parse(cls, *, share_of: str | None = BASE_MODEL, **caps: str | float | Share | None) -> Self:
        """A budget of caps as people write them: `Budget.parse(max_parameters="15M", max_latency="0.5x")`.

        Args:
            share_of: What shares are of, in words; None where there is nothing, and shares are refused.
            **caps: Caps by the names of this class or of settings (`max_latency`); see `parse_cap`.

        Raises:
            ValueError: If a text is no cap, or a cap is not positive.
            TypeError: If there is no cap of that name.
        """
        numbers: dict[str, float | Share | None] = {}
        for name, cap in caps.items():
            field = _FIELD_OF.get(name, name)
            is_latency = field == "max_latency_ms"
            parsed = None if cap is None else parse_cap(name, cap, is_latency=is_latency, share_of=share_of)
            numbers[field] = parsed
        return cls(**numbers)

    @property
    def _set(self) -> dict[str, float | Share]:
        """The caps that are set, by their own names."""
        caps = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: cap for name, cap in caps.items() if cap is not None}

    def of(self, base_model: Mapping[str, float]) -> Self:
        """The budget in numbers: shares are of the costs of this base model, measured as its children's.

        Raises:
            ValueError: If a cost that a share is of was not measured.
        """
        numbers: dict[str, float | Share | None] = {}
        for name, cap in self._set.items():
            if isinstance(cap, Share) and _COST_OF[name] not in base_model:
                raise ValueError(f"{name} is {cap}, but the base model's {_COST_OF[name]} was not measured")
            numbers[name] = cap.factor * base_model[_COST_OF[name]] if isinstance(cap, Share) else cap
        return type(self)(**numbers)

    @cached_property
    def caps(self) -> dict[str, float]:
        """The caps that are set, by the name of the cost that each one caps.

        Raises:
            ValueError: If one is a share still.
        """
        caps: dict[str, float] = {}
        for name, cap in self._set.items():
            if isinstance(cap, Share):
                raise ValueError(f"{name} is {cap}, a share of a base model's cost, and there is no base model here")
            caps[_COST_OF[name]] = cap
        return caps

    def admits(self, cost: Mapping[str, float]) -> bool:
        """Whether a child of this cost is within every cap."""
        return self.why_not(cost) is None

    def why_not(self, cost: Mapping[str, float]) -> str | None:
        """Which cap a child of this cost exceeds, in words, or None.

        Raises:
            ValueError: If a capped cost was not measured.
        """
        for name, cap in self.caps.items():
            if name not in cost:
                raise ValueError(f"the budget caps {name}, but the child's cost holds {sorted(cost)}: measure it too")
            if not cost[name] <= cap:  # so written, NaN exceeds every cap
                return f"{name} is {cost[name]:,} and may be at most {cap:,}"
        return None


def in_digits(cost: float) -> str:
    """A cost or a cap as people read it: no power of ten, however large.

    >>> in_digits(10646784.0), in_digits(12.3456789)
    ('10,646,784', '12.3457')
    """
    return f"{cost:,.0f}" if abs(cost) >= _LARGE else f"{cost:,.6g}"


def parse_cap(
    name: str, given: str | float | Share, *, is_latency: bool = False, share_of: str | None = None
) -> int | float | Share:
    """The cap that a setting means: a share such as `"0.5x"`, a quantity such as `"15M"`, milliseconds as `"12.5ms"`.

    Args:
        name: Of the setting, for messages.
        given: What a user gave.
        is_latency: Whether it caps milliseconds, which take the unit `ms` and no suffix.
        share_of: What shares are of, in words, such as "the base model"; None refuses them.

    Raises:
        ValueError: If it means none; says what is expected, as it is written on a command line.
    """
    text = str(given)
    shown = f"{name}={text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '...'!r}"
    number = f"milliseconds above 0 (--{name} 12.5ms)" if is_latency else f"a number above 0 (--{name} 15M)"
    share = _SHARE.fullmatch(text)
    factor = given.factor if isinstance(given, Share) else None if share is None else float(share[1])
    if factor is not None:
        if share_of is None:
            raise ValueError(f"{shown} is a share, and there is no model yet that it could be of: expected {number}")
        if not 0 < factor < 1:
            raise ValueError(f"{shown}: expected a share above 0x and below 1x, which is all of {share_of}'s")
        return Share(factor)
    expected = number if share_of is None else f"{number} or a share of {share_of}'s (--{name} 0.5x)"
    value = given
    if isinstance(given, str):
        text = _UNIT_OF_LATENCY.sub("", given) if is_latency else given
        if not (is_latency and text.strip()[-1:].isalpha()):  # 12M milliseconds would cap nothing
            with suppress(ValueError):
                value = parse_quantity(text)
    if hasattr(value, "item"):  # a number of numpy's
        value = value.item()
    if isinstance(value, str | Share) or not records.is_finite_number(value) or value <= 0:
        raise ValueError(f"{shown}: expected {expected}")
    if not is_latency and value < 1:
        meant = "" if share_of is None else f"; for a share of {share_of}'s write --{name} {value:g}x"
        raise ValueError(f"{shown} is less than one{meant}")
    return value


def parse_quantity(text: str) -> int | float:
    """The number that a text such as `"15M"`, `"2.5G"` or `"800_000"` means; suffixes K, M, G or B, and T.

    Raises:
        ValueError: If it means none.
    """
    if len(text) > _LONGEST_QUANTITY:
        raise ValueError(f"{text[:20]!r}... is not a quantity: its number is too long")
    match = re.fullmatch(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([KMGBT]?)\s*", text, flags=re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write a number such as 15M, 2.5G or 800000")
    factor = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}[match[2].upper()]
    value = Decimal(match[1]) * factor  # decimal, so that 2.3G is a whole number
    return int(value) if value == value.to_integral_value() else float(value)
