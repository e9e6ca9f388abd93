"""Caps on what a child may cost, as numbers or as shares of a base model's own cost, as people write them."""

import re
from collections.abc import Mapping
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
_LARGE = 1e5  # from here on whole numbers say enough
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
                f"{self.factor}x is not a share: expected more than 0x and less than 1x, which is the base model"
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
    def parse(cls, **caps: str | float | Share | None) -> Self:
        """A budget of caps as people write them: `Budget.parse(max_parameters="15M", max_latency_ms="0.5x")`.

        Raises:
            ValueError: If a text is not a number, or a cap is not positive.
            TypeError: If there is no cap of that name.
        """
        numbers: dict[str, float | Share | None] = {}
        for name, cap in caps.items():
            try:
                numbers[name] = parse_cap(cap) if isinstance(cap, str) else cap
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
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


def parse_cap(text: str) -> int | float | Share:
    """The cap that a text means: a share such as `"0.5x"`, or a quantity.

    Raises:
        ValueError: If it means none.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})\s*x\s*", text, flags=re.IGNORECASE)
    return parse_quantity(text) if match is None else Share(float(match[1]))


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
