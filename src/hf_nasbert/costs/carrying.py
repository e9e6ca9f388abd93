"""A latency table carried to another device by the latencies of a few children there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.costs.latency import LatencyTable, operator_key
from hf_nasbert.modeling.geometry_nasbert import geometry_of, operator_kind

_PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
_ELSE, _ADAPTERS = "all else", "adapters"


class CarriedTable(NamedTuple):
    """A table for another device."""

    table: LatencyTable
    factors: dict[str, float]
    """By how much slower each kind of operator is there."""
    left_out_ms: list[float]
    """The latency of every measured child as the map says that the others make: what its error is stated by."""


def carry_table(
    table: LatencyTable, config: Any, children: Sequence[Sequence[str]], measured_ms: Sequence[float], **setting: Any
) -> CarriedTable:
    """Fit one factor per kind of operator, held to a common one by a ridge, to the latencies of a few children.

    So few measurements cannot time every operator, but a kind's operators slow down by one factor. Errors are
    relative, the penalty is that of the least leave-one-out error. (The purpose of HELP: Lee et al., 2021,
    https://arxiv.org/abs/2106.08630, which learns to adapt a regressor by ten measurements [public code]; the map is
    ours.)

    Args:
        table: Of the device that was measured in full.
        config: The super-net's; its sizes are the table's.
        children: Three of them at least.
        measured_ms: The latency of each on the other device.
        **setting: What is another there: entries of the table's setting.

    Raises:
        ValueError: If there are fewer than three children, or the table does not hold for them.
    """
    if len(children) < 3 or len(children) != len(measured_ms):
        raise ValueError(f"a table is carried by the latencies of three children at least, not {len(children)}")
    table.check_sizes(config)
    parts = [_parts(table, config, child) for child in children]
    kinds = sorted({kind for part in parts for kind in part} | {operator_kind(name) for name in table.operators_ms})
    rows = np.array([[part.get(kind, 0.0) for kind in kinds] for part in parts])
    measured = np.asarray(measured_ms, dtype=np.float64)
    places = range(len(children))
    best: tuple[float, float, list[float]] | None = None
    for penalty in _PENALTIES:
        left_out = [
            float(rows[out] @ _factors(np.delete(rows, out, axis=0), np.delete(measured, out), penalty))
            for out in places
        ]
        error = float(np.mean(np.abs(np.array(left_out) / measured - 1)))
        if best is None or error < best[0]:
            best = (error, penalty, left_out)
    assert best is not None
    factor = dict(zip(kinds, map(float, _factors(rows, measured, best[1])), strict=True))
    carried = replace(
        table,
        operators_ms={name: ms * factor[operator_kind(name)] for name, ms in table.operators_ms.items()},
        adapters_ms={name: ms * factor.get(_ADAPTERS, factor[_ELSE]) for name, ms in table.adapters_ms.items()},
        outside_ms=table.outside_ms * factor[_ELSE],
        setting={**table.setting, **setting},
    )
    return CarriedTable(carried, factor, best[2])


def _parts(table: LatencyTable, config: Any, child: Sequence[str]) -> dict[str, float]:
    """The table's milliseconds of a child by kind of operator."""
    found = defaultdict[str, float](float, {_ELSE: table.outside_ms})
    for block in geometry_of(config, child):
        operator, *adapters = table.block_ms(block)
        found[operator_kind(operator_key(block.name, block.width))] += operator
        if adapters:
            found[_ADAPTERS] += sum(adapters)
    return found


def _factors(rows: NDArray[np.float64], measured: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Ridge regression of relative latencies towards one factor for all; no factor is below a tenth of that."""
    common = float(np.exp(np.mean(np.log(measured / rows.sum(axis=1)))))
    relative = rows / measured[:, None]
    square = relative.T @ relative + penalty * len(rows) / rows.shape[1] ** 2 * np.eye(rows.shape[1]) / common**2
    shifted = np.linalg.solve(square, relative.T @ (1 - common * relative.sum(axis=1)))
    found: NDArray[np.float64] = np.maximum(common + shifted, 0.1 * common)
    return found
