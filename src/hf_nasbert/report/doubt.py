"""How sure a difference is: the 95 % interval of the difference of two children, by dev batches or by seeds."""

import math
import statistics
from collections.abc import Sequence

T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, both tails 5 % together, of 1, 2, ... degrees of freedom; `_quantile` says how it goes on."""


def half_width(ours: Sequence[float], theirs: Sequence[float], *, are_paired: bool) -> float | None:
    """Half the 95 % interval of a difference of means; None where the samples are too few to say.

    Args:
        ours: What was measured of one child: a number for each dev batch, or for each seed.
        theirs: Likewise of the other one.
        are_paired: Whether the numbers belong together one by one, as those of the same dev batches do.
    """
    if min(len(ours), len(theirs)) < 2 or (are_paired and len(ours) != len(theirs)):
        return None
    if are_paired:
        differences = [one - other for one, other in zip(ours, theirs, strict=True)]
        return _quantile(len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (ours, theirs)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / own for part, own in parts)  # Welch's
    return _quantile(freedom) * math.sqrt(variance)


def _quantile(freedom: float) -> float:
    """Student's t of so many degrees of freedom, rounded down."""
    return T95[int(freedom) - 1] if freedom < len(T95) + 1 else 1.96 + 2.5 / freedom
