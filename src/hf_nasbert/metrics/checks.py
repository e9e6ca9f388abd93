"""What every measure asks of its arguments: one finite number per child, and as many of each."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def paired(**arrays: ArrayLike) -> list[Array]:
    """The arguments as arrays of one length.

    Raises:
        ValueError: If one is not fit, by its name.
    """
    checked: dict[str, Array] = {}
    for name, array in arrays.items():
        values = np.asarray(array, dtype=np.float64)
        if values.ndim != 1:
            raise ValueError(f"{name} must be one number per child, but has the shape {values.shape}")
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name}[{index}] is {values[index]}: leave out children without a finite value")
        checked[name] = values
    lengths = {name: len(values) for name, values in checked.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one value per child is needed, but the lengths differ: {lengths}")
    if min(lengths.values()) < 2:
        raise ValueError(f"at least 2 children are needed, not {min(lengths.values())}")
    return list(checked.values())


def check_confidence(confidence: float) -> None:
    """Refuse what is no share of redraws that an interval could cover.

    Raises:
        ValueError: If it does not lie between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}")
