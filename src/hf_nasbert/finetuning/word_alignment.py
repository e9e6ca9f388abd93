"""A teacher with a vocabulary of its own: it reads the student's words, and both are compared word by word."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.data.batches import IGNORED
from hf_nasbert.data.vocabulary import continues_word, vocabulary_size
from hf_nasbert.finetuning import runs

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class Reading(NamedTuple):
    """A batch as the teacher reads it, and which tokens of either side make up a word.

    Attributes:
        batch: The teacher's own inputs, (B, U).
        own: Whether a token of the student's belongs to a word, (B, W, T).
        other: Whether a token of the teacher's does, (B, W, U).
        common: Which words have tokens on both sides, (B, W).
    """

    batch: dict[str, torch.Tensor]
    own: torch.Tensor
    other: torch.Tensor
    common: torch.Tensor


class WordReader:
    """Turns a student's masked batch into words for a teacher with another tokenizer.

    A word is a run of tokens that the student's vocabulary marks as one, as whole-word masking takes it: with
    WordPiece, a punctuation mark is a word. The teacher reads each as the student's decoder writes it (in lower case
    where the student's tokenizer folds it), with a space before it.

    A word of which the student sees any token hidden or exchanged, and one unknown to its vocabulary, is one mask
    token to the teacher. So both read the same masked text, as they do where they share a vocabulary and as DistilBERT
    and its teacher do (Sanh et al., 2019, https://arxiv.org/abs/1910.01108, by its code): no student is asked for what
    only the unmasked text can tell. Separators are read as the teacher's. Special tokens, words after the teacher's
    greatest length, and fragments that are no text (bytes of a letter, at a row's edge) are not compared.

    Args:
        tokenizer: The student's.
        teacher: The teacher's model, whose number of positions bounds what it reads.
        teacher_tokenizer: The teacher's; made with `add_prefix_space` if it is a byte-level BPE.

    Raises:
        ValueError: If the student's tokenizer marks no words, or the teacher's does not say where words lie (only fast
            ones do) or has no mask token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        teacher: PreTrainedModel,
        teacher_tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        if not teacher_tokenizer.is_fast or teacher_tokenizer.mask_token is None:
            raise ValueError(
                f"the teacher {teacher_tokenizer.name_or_path} has another vocabulary than the student, and its "
                f"{type(teacher_tokenizer).__name__} cannot read word by word: this needs a fast tokenizer with a "
                "mask token"
            )
        self._tokenizer, self._teacher_tokenizer = tokenizer, teacher_tokenizer
        self._max_length = min(teacher_tokenizer.model_max_length, runs.num_positions(teacher))
        self._is_special = np.zeros(vocabulary_size(tokenizer), dtype=np.bool_)
        self._is_special[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = True
        self._is_unknown = np.arange(vocabulary_size(tokenizer)) == tokenizer.unk_token_id
        self._starts = ~continues_word(tokenizer) | self._is_special

    def read(self, batch: dict[str, Any]) -> Reading:
        """Give the teacher its text, and number the words of both; `batch` is one of `MaskedBatches`."""
        seen, labels = (batch[name].cpu().numpy() for name in ("input_ids", "labels"))
        ids = np.where(labels == IGNORED, seen, labels)
        is_special = self._is_special[ids]
        starts = self._starts[ids]
        starts[:, 1:] |= is_special[:, :-1]  # in mid-word, or a byte-level BPE's first word, which has no space before
        words = np.where(is_special, -1, starts.cumsum(axis=1) - 1)
        is_hidden = (ids != seen) | self._is_unknown[ids]
        texts = []
        for row, hidden, begins in zip(ids.tolist(), is_hidden.tolist(), starts, strict=True):
            bounds = pairwise([*np.flatnonzero(begins).tolist(), len(row)])
            texts.append([self._text(row[start:end], is_hidden=any(hidden[start:end])) for start, end in bounds])
        encoded = self._teacher_tokenizer(
            texts,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=self._max_length,
            return_token_type_ids=False,  # all of one segment, and not every model knows them
            return_tensors="pt",
        )
        found = [[-1 if word is None else word for word in encoded.word_ids(row)] for row in range(len(ids))]
        device, numbers = batch["input_ids"].device, torch.arange(max(map(len, texts)))[:, None]
        own, other = ((torch.as_tensor(of)[:, None] == numbers).to(device) for of in (words, found))
        return Reading(
            {name: tensor.to(device) for name, tensor in encoded.items()}, own, other, own.any(-1) & other.any(-1)
        )

    def _text(self, ids: list[int], *, is_hidden: bool) -> str:
        """What the teacher reads in place of one word."""
        if self._is_special[ids[0]]:
            return self._teacher_tokenizer.sep_token or "" if ids[0] == self._tokenizer.sep_token_id else ""
        if is_hidden:
            return str(self._teacher_tokenizer.mask_token)
        # A decoder leaves the mark of a first token that continues a word ("##ing"), hence the letter before it.
        tokens = ["x", *self._tokenizer.convert_ids_to_tokens(ids)]
        return self._tokenizer.convert_tokens_to_string(tokens)[1:].replace(_UNDECODABLE, "").strip()


def average_words(vectors: torch.Tensor, pieces: torch.Tensor) -> torch.Tensor:
    """The mean vector of every word's tokens: (B, T, D) by (B, W, T) to (B, W, D), zero for a word without tokens.

    As Hewitt and Manning (2019, https://aclanthology.org/N19-1419) align word pieces with words.
    """
    # A product and no scattered sum, whose order, and with it the last bits, would differ from run to run on a GPU.
    total = pieces.to(vectors.dtype) @ vectors
    return total / pieces.sum(-1, keepdim=True).clamp(min=1)
