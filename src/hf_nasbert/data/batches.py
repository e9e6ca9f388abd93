"""Packed sequences → masked batches, the batch of a step being a pure function of (seed, step)."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from hf_nasbert.data.vocabulary import continues_word, padding_id, vocabulary_size

logger = logging.getLogger(__name__)

IGNORED = -100  # the label that cross-entropy skips
_DIGESTED_ROWS = 4096  # sequences that are hashed in one go

# Top word of Philox's 256-bit counter: keeps the draws of one seed apart that serve different ends.
_ORDER, _MASKS, _FIXED_ORDER, _FIXED_MASKS = range(4)


def _raw(seed: int, number: int, stream: int, size: int) -> npt.NDArray[np.uint64]:
    """Draw 64 random bits `size` times, as a pure function of the other arguments.

    A bit generator's raw stream is the one thing numpy promises never to change (NEP 19); the methods of `Generator`
    may change between versions, and with them every resumed run.
    """
    key = np.array([seed, number], dtype=np.uint64)
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    draws: npt.NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(size)
    return draws


class NothingToPredictError(ValueError):
    """Text in which every token is special or unknown, so that none can be predicted."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} has no token to predict: all are special or unknown. Give a tokenizer that can cut this text "
            "(tokenizer_name), or train a larger one (vocab_size)"
        )


class _Masker:
    """Choose and hide the tokens to predict: BERT's 15 % with 80/10/10 (Devlin et al., 2019, section 3.1)."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, probability: float, whole_word_mask: bool, seed: int, stream: int
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no mask token: masked language modelling needs one"
            )
        if not 0 < probability <= 1:
            raise ValueError(f"mlm_probability={probability} must lie in (0, 1]")
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        self.probability, self.seed, self.stream = probability, seed, stream
        self.mask_id = tokenizer.mask_token_id
        self.is_special = np.zeros(vocabulary_size(tokenizer), dtype=np.bool_)
        self.is_special[tokenizer.all_special_ids] = True
        self.ordinary_ids = np.setdiff1d(list(tokenizer.get_vocab().values()), tokenizer.all_special_ids)
        if not self.ordinary_ids.size:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no tokens but special ones: it cuts no text"
            )
        self.continues_word = continues_word(tokenizer) & ~self.is_special if whole_word_mask else None

    def __call__(
        self, input_ids: npt.NDArray[np.int64], ordinals: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Mask every row by its own draw.

        Args:
            input_ids: Tokens, (B, T).
            ordinals: The number of every row's draw, (B,): a row's mask depends on nothing else.

        Returns:
            The tokens with some of them hidden, and the labels, both (B, T).
        """
        num_rows, length = input_ids.shape
        draws = np.empty((num_rows, 2, length), dtype=np.uint64)
        for row, ordinal in enumerate(ordinals):
            draws[row] = _raw(self.seed, int(ordinal), self.stream, 2 * length).reshape(2, length)
        score = (draws[:, 0] >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
        action = (draws[:, 1] >> np.uint64(32)) * 2.0**-32
        choice = draws[:, 1] & np.uint64(0xFFFFFFFF)

        is_special = self.is_special[input_ids]
        if self.continues_word is not None:
            # Every piece takes the score of its word's first piece. Pieces cut off from their word (the sequence began
            # in mid-word) take that of the special token before them, which is drawn but not used otherwise.
            starts = ~self.continues_word[input_ids]
            first = np.maximum.accumulate(np.where(starts, np.arange(length), 0), axis=1)
            score = np.take_along_axis(score, first, axis=1)
        score[is_special] = 2.0
        # The lowest score is taken whatever it is: a row without labels would teach nothing.
        is_chosen = (score < self.probability) | (score == score.min(axis=1, keepdims=True))
        is_chosen &= ~is_special

        labels = np.where(is_chosen, input_ids, IGNORED)
        hidden = np.where(is_chosen & (action < 0.8), self.mask_id, input_ids)
        random_ids = self.ordinary_ids[(choice * np.uint64(len(self.ordinary_ids))) >> np.uint64(32)]
        hidden = np.where(is_chosen & (action >= 0.9), random_ids, hidden)
        return hidden, labels


class _Rows:
    """Packed sequences of one length, read by number."""

    def __init__(self, dataset: Dataset, vocab_size: int) -> None:
        if len(dataset) == 0:
            raise ValueError("the packed dataset holds no sequence")
        if "input_ids" not in dataset.column_names:
            raise ValueError(
                f"the packed dataset needs a column 'input_ids', it has {dataset.column_names}: pack_texts"
            )
        self._table = dataset.select_columns(["input_ids"]).with_format("arrow")
        self.length = len(dataset[0]["input_ids"])
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        column = self._table[ids]["input_ids"].combine_chunks()
        tokens = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        if tokens.size != len(ids) * self.length:
            raise ValueError(
                f"the packed dataset needs sequences of one length ({self.length}): pack_texts makes them"
            )
        if tokens.max() >= self.vocab_size or tokens.min() < 0:
            raise ValueError(
                f"the packed dataset holds token {tokens.max()}, the tokenizer's ids end at {self.vocab_size - 1}: "
                "it was packed with another tokenizer"
            )
        rows: npt.NDArray[np.int64] = tokens.reshape(len(ids), self.length)
        return rows

    @cached_property
    def digest(self) -> str:
        """A fingerprint of all sequences in their order, wherever they lie; read once, as a stream."""
        digest = hashlib.sha256(f"{len(self)} {self.length} ".encode())
        for table in self._table.iter(batch_size=_DIGESTED_ROWS):
            for chunk in table["input_ids"].chunks:
                tokens = chunk.flatten().to_numpy(zero_copy_only=False)
                digest.update(tokens.astype("<i4", copy=False).tobytes())
        return digest.hexdigest()[:32]

    def sampled_digest(self) -> str:
        """A fingerprint of up to 64 sequences spread over the dataset, and of their number.

        The committed tables and old checkpoints know their text by it.
        """
        ids = np.unique(np.linspace(0, len(self) - 1, 64).astype(np.int64))
        return hashlib.sha256(self[ids].tobytes() + str(len(self)).encode()).hexdigest()[:16]


def _as_batch(
    input_ids: npt.NDArray[np.int64], hidden: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], pad_id: int | None
) -> dict[str, torch.Tensor]:
    tokens = torch.from_numpy(hidden)
    attention_mask = (
        torch.ones_like(tokens) if pad_id is None else torch.from_numpy((input_ids != pad_id).astype(np.int64))
    )
    return {"input_ids": tokens, "attention_mask": attention_mask, "labels": torch.from_numpy(labels)}


class MaskedBatches:
    """The training batches of a run, each computed from its step alone.

    Draw number `ordinal = step * batch_size + row` takes one sequence, in an order drawn anew for every epoch, and one
    mask drawn from (seed, ordinal). So no sequence is lost or doubled within an epoch, batches run across the ends of
    epochs, two processes with half a batch each see what one process sees, and a run resumes from its step without
    replaying anything. No global generator is read or written.

    Args:
        dataset: Packed sequences of one length, as `pack_texts` makes them.
        tokenizer: The tokenizer they were packed with.
        batch_size: Sequences of one optimizer step, over all processes and micro-batches.
        seed: Seed of order and masks.
        mlm_probability: Share of the tokens to predict. Special tokens never are; every sequence gets at least one.
        whole_word_mask: Mask all pieces of a word or none (BERT's own later variant).

    Raises:
        ValueError: If the dataset is empty or of another tokenizer, or the tokenizer has no mask token.

    Example:
        >>> batches = MaskedBatches(train, tokenizer, batch_size=32, seed=0)  # doctest: +SKIP
        >>> batches.batch(step=7, rows=slice(16, 32))["input_ids"].shape  # the second of two ranks  # doctest: +SKIP
        torch.Size([16, 128])
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        seed: int,
        mlm_probability: float = 0.15,
        whole_word_mask: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.batch_size, self.seed = batch_size, seed
        self._rows = _Rows(dataset, vocabulary_size(tokenizer))
        self._masker = _Masker(
            tokenizer, probability=mlm_probability, whole_word_mask=whole_word_mask, seed=seed, stream=_MASKS
        )
        self._pad_id = padding_id(tokenizer)
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    @property
    def num_sequences(self) -> int:
        """Sequences in one epoch."""
        return len(self._rows)

    @property
    def sequence_length(self) -> int:
        """Tokens of every sequence."""
        return self._rows.length

    def describe(self) -> dict[str, Any]:
        """Return all that the batches depend on, to be kept in a checkpoint and compared on resuming."""
        return {
            "dataset": self._rows.sampled_digest(),
            "content": self._rows.digest,
            "num_sequences": self.num_sequences,
            "sequence_length": self.sequence_length,
            "vocab_size": self._rows.vocab_size,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "mlm_probability": self._masker.probability,
            "whole_word_mask": self._masker.continues_word is not None,
        }

    def sample_ids(self, step: int, rows: slice = slice(None)) -> npt.NDArray[np.int64]:
        """Return the numbers of the sequences that a step's rows hold, (B,)."""
        return self._draw(self._ordinals(step, rows))

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
        """Return the batch of a step.

        Args:
            step: Number of the optimizer step, from 0.
            rows: The rows wanted of the global batch: the share of a process or of a micro-batch.

        Returns:
            `input_ids`, `attention_mask` and `labels` (-100 where there is nothing to predict), int64, (B, T).
        """
        ordinals = self._ordinals(step, rows)
        input_ids = self._rows[self._draw(ordinals)]
        hidden, labels = self._masker(input_ids, ordinals)
        return _as_batch(input_ids, hidden, labels, self._pad_id)

    def loader(
        self,
        start_step: int,
        num_steps: int,
        *,
        rows: slice = slice(None),
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout_seconds: float = 60,
    ) -> "DataLoader[dict[str, torch.Tensor]]":
        """Return the batches of `num_steps` steps from `start_step` on, made ahead by `num_workers` processes.

        A worker that dies or stalls for `timeout_seconds` is an error, not a hang.
        """
        return DataLoader(
            _Steps(self, start_step, num_steps, rows),
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            timeout=timeout_seconds if num_workers else 0,
            # Without a generator of its own a DataLoader draws the seed of its workers from torch's global one.
            generator=torch.Generator().manual_seed(self.seed % 2**63),
        )

    def _ordinals(self, step: int, rows: slice) -> npt.NDArray[np.int64]:
        if step < 0:
            raise ValueError(f"step={step} must not be negative")
        chosen = range(self.batch_size)[rows]
        if len(chosen) == 0:
            raise ValueError(f"{rows} is no row of a batch of {self.batch_size}")
        return step * self.batch_size + np.array(chosen, dtype=np.int64)

    def _draw(self, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        epochs, places = np.divmod(ordinals, self.num_sequences)
        ids = np.empty_like(ordinals)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ids[here] = self._order(int(epoch))[places[here]]
        return ids

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            for old in [other for other in self._orders if other != epoch - 1]:
                del self._orders[old]  # a batch spans two epochs at most, unless the dataset is smaller than a batch
            self._orders[epoch] = np.argsort(_raw(self.seed, epoch, _ORDER, self.num_sequences), kind="stable")
        return self._orders[epoch]


class _Steps(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """A run of steps as a map-style dataset, so that a `DataLoader` can prefetch them."""

    def __init__(self, batches: MaskedBatches, start_step: int, num_steps: int, rows: slice) -> None:
        self.batches, self.start_step, self.num_steps, self.rows = batches, start_step, num_steps, rows

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.batches.batch(self.start_step + index, self.rows)


def fixed_masked_batches(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    num_batches: int,
    batch_size: int,
    seed: int,
    *,
    mlm_probability: float = 0.15,
    whole_word_mask: bool = False,
    is_at_most: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Return the fixed dev set: sequences and masks chosen once by `seed`, so that scores are comparable.

    The masks do not depend on `batch_size`: 8 batches of 4 hold what 4 batches of 8 hold. With `is_at_most`, a dataset
    that holds fewer than `num_batches * batch_size` sequences gives the largest dev set that it can, and a warning.

    Raises:
        ValueError: If it holds fewer without that, or none.
    """
    if num_batches < 1 or batch_size < 1:
        raise ValueError(f"num_batches={num_batches} and batch_size={batch_size} must both be at least 1")
    rows = _Rows(dataset, vocabulary_size(tokenizer))
    if len(rows) < num_batches * batch_size:
        lack = (
            f"{num_batches} dev batches of {batch_size} need {num_batches * batch_size} sequences, the dev set has "
            f"{len(rows)}"
        )
        if not is_at_most or not len(rows):
            raise ValueError(f"{lack}: ask for fewer or hold out more text (--validation_fraction)")
        num_batches = -(-len(rows) // batch_size)
        batch_size = len(rows) // num_batches
        logger.warning("%s: taken are %d of %d (more: --validation_fraction)", lack, num_batches, batch_size)
    wanted = num_batches * batch_size
    masker = _Masker(
        tokenizer, probability=mlm_probability, whole_word_mask=whole_word_mask, seed=seed, stream=_FIXED_MASKS
    )
    ids = np.argsort(_raw(seed, 0, _FIXED_ORDER, len(rows)), kind="stable")[:wanted]
    batches = []
    for ordinals in np.arange(wanted).reshape(num_batches, batch_size):
        input_ids = rows[ids[ordinals]]
        batches.append(_as_batch(input_ids, *masker(input_ids, ordinals), padding_id(tokenizer)))
    if all((batch["labels"] == IGNORED).all() for batch in batches):
        raise NothingToPredictError(f"the dev set of {wanted} sequences")
    return batches


def unmasked_batches(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, num_tokens: int, batch_size: int = 32
) -> list[dict[str, torch.Tensor]]:
    """Return some of the text as it is, from places spread evenly over it: what a pretrained model is measured on.

    Args:
        dataset: Packed sequences of one length.
        tokenizer: The tokenizer they were packed with.
        num_tokens: Tokens at least, if there are so many.
        batch_size: Sequences of a batch.

    Returns:
        Batches of `input_ids` and `attention_mask`, (B, T).
    """
    rows, pad_id = _Rows(dataset, vocabulary_size(tokenizer)), padding_id(tokenizer)
    wanted = min(len(rows), -(-num_tokens // rows.length))
    ids = np.linspace(0, len(rows) - 1, wanted).astype(np.int64)
    batches = []
    for start in range(0, wanted, batch_size):
        input_ids = rows[ids[start : start + batch_size]]
        batch = _as_batch(input_ids, input_ids, input_ids, pad_id)
        batches.append({"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    return batches


def digest_of(batches: Sequence[Mapping[str, torch.Tensor]]) -> str:
    """Return a fingerprint of batches: losses on other tokens or other masks do not compare."""
    content = hashlib.sha256()
    for batch in batches:
        for tensor in (batch["input_ids"], batch["labels"]):
            content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]
