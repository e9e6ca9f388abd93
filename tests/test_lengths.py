"""Batches of like length: less padding, every input once an epoch, predictions in the split's own order."""

import random

import numpy as np
import pytest
from datasets import Dataset
from transformers import EvalPrediction

from hf_nasbert.finetuning.lengths import BatchesOfLikeLength, SortedSplit, lengths_of

LENGTHS = [random.Random(seed).randint(3, 60) for seed in range(1000)]


def order_of(epoch: int, lengths=LENGTHS, batch_size=8, seed=0) -> list[int]:
    return list(BatchesOfLikeLength(lengths, batch_size, seed, lambda: epoch))


def share_of_padding(order: list[int], batch_size: int = 8) -> float:
    batches = [[LENGTHS[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return 1 - sum(LENGTHS) / sum(len(batch) * max(batch) for batch in batches)


def test_batches_of_like_length_hold_little_padding():
    shuffled = random.Random(0).sample(range(1000), 1000)
    assert share_of_padding(shuffled) > 0.4
    assert share_of_padding(order_of(0)) < 0.05


@pytest.mark.parametrize("num_inputs", [1, 7, 8, 9, 400, 401, 1000])
def test_every_input_comes_once_an_epoch(num_inputs):
    assert sorted(order_of(0, LENGTHS[:num_inputs])) == list(range(num_inputs))


def test_the_order_follows_from_seed_and_epoch_alone():
    assert order_of(1) == order_of(1)
    assert len({tuple(order_of(epoch, seed=seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_short_and_long_batches_are_mixed_over_an_epoch():
    """Sorted pools in a row would rise from the shortest to the longest, again and again."""
    means = [np.mean([LENGTHS[i] for i in order_of(0)[start : start + 8]]) for start in range(0, 1000, 8)]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


def test_predictions_come_back_in_the_order_of_the_split():
    lengths = [3, 9, 5, 9, 1]
    split = Dataset.from_dict({"input_ids": [[0] * length for length in lengths], "row": list(range(5))})
    sorted_split = SortedSplit(split)
    assert lengths_of(sorted_split.inputs) == [9, 9, 5, 3, 1]
    rows = np.array(sorted_split.inputs["row"][:])
    seen = []
    compute = sorted_split.unsorted(lambda found: seen.append(found) or {"score": 1.0})
    assert compute(EvalPrediction(predictions=rows[:, None], label_ids=rows)) == {"score": 1.0}
    compute(EvalPrediction(predictions=(rows, rows * 2), label_ids=(rows, rows)))
    assert seen[0].predictions[:, 0].tolist() == seen[0].label_ids.tolist() == [0, 1, 2, 3, 4]
    assert [found.tolist() for found in seen[1].predictions] == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]
    assert [found.tolist() for found in seen[1].label_ids] == [[0, 1, 2, 3, 4]] * 2
