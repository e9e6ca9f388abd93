"""Numbers that settings may have: what lies outside is refused by name."""

import math


def check_range(name: str, value: float, at_least: float = -math.inf, at_most: float = math.inf) -> None:
    """Refuse a number outside a range.

    Raises:
        ValueError: If it is smaller or larger, or is no finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name}={value}: expected a finite number")
    if not at_least <= value <= at_most:
        bound = f"at most {at_most}" if value > at_most else f"at least {at_least}"
        raise ValueError(f"{name}={value}: expected {bound}")
