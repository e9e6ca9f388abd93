"""Caps on what a child may cost, and quantities as people write them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Self

from hf_nasbert import records

_LONGEST_QUANTITY = 300  # characters; more digits than that are no wish


@dataclass(frozen=True)
class Budget:
    """Caps on what a child may cost; None caps nothing. All caps hold at once.

    Args:
        max_parameters: Cap on `num_parameters`, embeddings and head included.
        max_flops: Cap on `flops`.
        max_latency_ms: Cap on `latency_ms`.
        max_memory: Cap on `peak_activation_bytes`, in bytes.

    Raises:
        ValueError: If a cap is not a positive number.
    """

    max_parameters: float | None = None
    max_flops: float | None = None
    max_latency_ms: float | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        for name, cap in vars(self).items():
            if cap is None:
                continue
            if not records.is_finite_number(cap) or cap <= 0:
                raise ValueError(f"{name} must be a positive number, not {cap!r}")

    @classmethod
    def parse(cls, **caps: str | float | None) -> Self:
        """A budget of caps as people write them: `Budget.parse(max_parameters="15M", max_flops="2.5G")`.

        Raises:
            ValueError: If a text is not a number, or a cap is not positive.
            TypeError: If there is no cap of that name.
        """
        numbers: dict[str, float | None] = {}
        for name, cap in caps.items():
            try:
                numbers[name] = parse_quantity(cap) if isinstance(cap, str) else cap
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(**numbers)

    @cached_property
    def caps(self) -> dict[str, float]:
        """The caps that are set, by the name of the cost that each one caps."""
        caps = {
            "num_parameters": self.max_parameters,
            "flops": self.max_flops,
            "latency_ms": self.max_latency_ms,
            "peak_activation_bytes": self.max_memory,
        }
        return {name: cap for name, cap in caps.items() if cap is not None}

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
