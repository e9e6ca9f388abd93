"""What a super-net's losses and a few children really trained say together, judged on all other children."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hf_nasbert.ranking.agreement import Ranked, rank
from hf_nasbert.ranking.table import GroundTruth
from hf_nasbert.searching import Predict, calibrated, shared_ridge
from hf_nasbert.space import Architecture

_NUM_DRAWS = 100  # of the children that are trained


def check_calibration(truth: GroundTruth, num_trained: int) -> None:
    """Refuse to take so many children as trained that none, or hardly any, is left to rank; 0 is none.

    Raises:
        ValueError: If fewer than 3 children are left to rank.
    """
    number = len(truth.loss)
    if num_trained and number < num_trained + 3:
        left = max(number - num_trained, 0)
        raise ValueError(f"calibrate={num_trained}: of {number} children in the table, {left} would be left to rank")


def calibrations(
    truth: GroundTruth, num_trained: int, proxies: Mapping[str, Sequence[ArrayLike]], *, seed: int = 0
) -> list[Ranked]:
    """How well a few children that were really trained rank all others: alone, and with the losses of super-nets.

    Mean and 90 % range over draws of the few, the same draws for all; every draw takes another super-net of a method.

    Args:
        truth: The table.
        num_trained: How many children are taken as trained.
        proxies: Losses by super-nets of every method, in the order of the table's children.
        seed: Seed of the draws.

    Raises:
        ValueError: If fewer than 3 children are left to rank.
    """
    check_calibration(truth, num_trained)
    number = len(truth.loss)
    rng, children = np.random.default_rng(seed), list(truth.architectures)
    draws = [np.sort(rng.permutation(number)[:num_trained]) for _ in range(_NUM_DRAWS)]
    masks = [np.isin(np.arange(number), drawn, invert=True) for drawn in draws]
    blocks = truth.space.blocks
    trained = [{children[place]: float(truth.loss[place]) for place in drawn} for drawn in draws]
    alone = [shared_ridge(blocks).fit(list(few), list(few.values())).predict(children) for few in trained]
    found = [rank(f"{num_trained} trained, additive", alone, truth, chosen=masks, is_random=True)]
    for method, losses in proxies.items():
        tables = [dict(zip(children, np.asarray(given, dtype=np.float64).tolist(), strict=True)) for given in losses]
        scores = []
        for draw, few in enumerate(trained):
            look_up = _look_up(tables[draw % len(tables)])
            scores.append(list(calibrated(blocks, few, look_up, children)(children)))
        name = f"{method}, calibrated by {num_trained}"
        found.append(rank(name, scores, truth, chosen=masks, is_random=True))
    return found


def _look_up(losses: Mapping[Architecture, float]) -> Predict:
    return lambda children: [losses[child] for child in children]
