"""Batches of inputs of like length: a batch is padded to its longest input, and padding costs what text costs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import EvalPrediction

from hf_nasbert.finetuning.checkpoints import SealingTrainer

_POOL = 50  # batches that are sorted together, as in transformers' `group_by_length`


def lengths_of(inputs: Dataset) -> list[int]:
    """Tokens of every input of a split."""
    return [len(ids) for ids in inputs["input_ids"][:]]


class BatchesOfLikeLength(Sampler[int]):
    """The order of an epoch: shuffled, sorted by length within pools of batches, and the batches shuffled again.

    Drawn from seed and epoch alone, so a run that is resumed within an epoch goes on in its order. Transformers' own
    `group_by_length` would not: it draws from wherever the global generator stands.

    Args:
        lengths: Tokens of every input.
        batch_size: Inputs of one optimizer step, over all processes and accumulated parts.
        seed: Of the run.
        epoch: Tells the epoch that begins.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = np.asarray(lengths), batch_size, seed, epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch()])
        order = rng.permutation(len(self._lengths))
        num_whole = len(order) // self._batch_size
        whole, rest = np.split(order, [num_whole * self._batch_size])  # what fills no batch stays last
        pools = [
            whole[first : first + _POOL * self._batch_size] for first in range(0, len(whole), _POOL * self._batch_size)
        ]
        alike = [pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools]
        batches = rng.permutation(np.concatenate([*alike, rest[:0]]).reshape(num_whole, self._batch_size))
        yield from np.concatenate([batches.reshape(-1), rest]).tolist()


class LengthGroupingTrainer(SealingTrainer):
    """A trainer whose training batches hold inputs of like length."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        inputs = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        # Trainer's own state has the epoch: not every wrapper of a sampler passes on `set_epoch`.
        return BatchesOfLikeLength(lengths_of(inputs), size, self.args.seed, lambda: int(self.state.epoch or 0))


class SortedSplit:
    """A split to evaluate, sorted by length, longest first, so that what does not fit into memory fails at once.

    Args:
        inputs: The split.
    """

    def __init__(self, inputs: Dataset) -> None:
        order = np.argsort([-length for length in lengths_of(inputs)], kind="stable")
        self.inputs = inputs.select(order)
        self._places = np.argsort(order)

    def unsorted(
        self, compute: Callable[[EvalPrediction], dict[str, float]]
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """A metric function that sees the predictions in the split's own order."""

        def restore(found: Any) -> Any:
            return tuple(map(restore, found)) if isinstance(found, tuple) else found[self._places]

        return lambda found: compute(
            EvalPrediction(predictions=restore(found.predictions), label_ids=restore(found.label_ids))
        )
