"""What any tokenizer says of itself: how many ids it has, what continues a word, what is unknown, how it is saved."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hf_nasbert.foreign import printable

logger = logging.getLogger(__name__)

_MARKS = ("Ġ", "▁")  # byte-level BPE's and SentencePiece's: a token that begins a word begins with it
_MARKED_SHARE = 0.05  # of the tokens of a tokenizer that does not say how it works
_UNKNOWN_WARNED, _UNKNOWN_REFUSED = 0.05, 0.5
_SAMPLE = 4096  # sequences


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of embeddings that a model of this tokenizer needs: its largest id + 1, for ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The padding's id, or `None` where another special token stands for it, which is read where it is not padding."""
    others = ("unk", "bos", "eos", "sep", "cls", "mask")
    pad_id: int | None = tokenizer.pad_token_id
    return None if pad_id in [getattr(tokenizer, f"{role}_token_id") for role in others] else pad_id


def continues_word(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.bool_]:
    """Say of every id whether its token continues the word before it.

    The tokenizer's own model, pre-tokenizer and decoder tell how words are marked; where there are none, as in
    tokenizers written in Python, the marks of its tokens do. Tokens that were added begin words.

    Returns:
        One boolean an id, (V,), V being `vocabulary_size`; ids without a token begin a word.

    Raises:
        ValueError: If the tokenizer marks no beginnings of words.
    """
    vocabulary, added = tokenizer.get_vocab(), set(tokenizer.get_added_vocab())
    tokens = {token: number for token, number in vocabulary.items() if token not in added}
    content = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None
    prefix, mark = _marks(tokens) if content is None else _marks_of(content, tokens)
    if prefix is None and mark is None:
        raise ValueError(
            "whole_word_mask and a teacher with another vocabulary need a tokenizer that marks where words begin or "
            f"go on (## of WordPiece, Ġ of BPE or ▁ of SentencePiece), and none of the {len(vocabulary)} tokens of "
            f"{type(tokenizer).__name__} {tokenizer.name_or_path!r} carries such a mark: do without"
        )
    found = np.zeros(vocabulary_size(tokenizer), dtype=np.bool_)
    for token, number in tokens.items():
        found[number] = token.startswith(prefix) if prefix is not None else not token.startswith(str(mark))
    found[[number for number in tokenizer.all_special_ids if number < len(found)]] = False
    return found


def _marks_of(content: dict[str, Any], tokens: Iterable[str]) -> tuple[str | None, str | None]:
    """How a tokenizer of the tokenizers library marks that a word goes on, and that one begins: one or neither."""
    model = content["model"]
    if model["type"] == "WordLevel":
        return _marks(tokens)
    prefix = model.get("continuing_subword_prefix")
    if prefix or model["type"] == "WordPiece" or model.get("end_of_word_suffix"):
        return prefix if prefix and any(token.startswith(prefix) for token in tokens) else None, None
    mark = next((mark for part in ("pre_tokenizer", "normalizer", "decoder") for mark in _named(content[part])), None)
    return None, mark if mark and any(token.startswith(mark) for token in tokens) else None


def _named(part: dict[str, Any] | None) -> Iterator[str]:
    """The marks that a part of a tokenizer, or a part of it, puts in place of a space."""
    if part is None:
        return
    for inner in ("pretokenizers", "normalizers", "decoders"):
        for one in part.get(inner, ()):
            yield from _named(one)
    if part["type"] == "ByteLevel":
        yield _MARKS[0]
    elif part["type"] == "Metaspace":
        yield part["replacement"]
    elif part["type"] == "Replace" and part["pattern"] == {"String": " "} and part["content"].strip():
        yield part["content"]
    elif part["type"] == "Replace" and part["content"] == " " and part["pattern"].get("String", "").strip():
        yield part["pattern"]["String"]


def _marks(tokens: Iterable[str]) -> tuple[str | None, str | None]:
    """The same of a tokenizer that does not say: a mark is what many tokens carry."""
    tokens = list(tokens)

    def is_common(mark: str) -> bool:
        return sum(len(token) > len(mark) and token.startswith(mark) for token in tokens) > _MARKED_SHARE * len(tokens)

    if is_common("##"):
        return "##", None
    return None, next(filter(is_common, _MARKS), None)


def tell_unknown(
    parts: Iterable[Dataset],
    tokenizer: PreTrainedTokenizerBase,
    name: str | None,
    *,
    is_labelled: bool = False,
    belongs_to_model: bool = False,
) -> float:
    """Print the share of unknown tokens in a text, and warn, or refuse, where it is large.

    It is counted in up to 4,096 sequences of each part, evenly spread. Of a tokenizer without a token for what is
    unknown, or whose token for it has another use too, nothing is unknown.

    Args:
        parts: Tokenised text, each with a column "input_ids".
        tokenizer: The tokenizer it was cut with.
        name: What the user calls it, or `None` if it was trained on the text.
        is_labelled: Whether a model is fine-tuned on it, whose tokenizer is given: nothing is refused.
        belongs_to_model: Whether the tokenizer is that of a base model: then only other text can be given.

    Returns:
        The share, of all tokens but those that begin, separate and pad texts.

    Raises:
        ValueError: From 50 % on, if the text is not labelled.
    """
    others = [getattr(tokenizer, f"{role}_token_id") for role in ("cls", "sep", "pad", "mask")]
    unknown = None if tokenizer.unk_token_id in others else tokenizer.unk_token_id
    num_unknown = num_tokens = 0
    for part in parts:
        rows = np.unique(np.linspace(0, len(part) - 1, _SAMPLE).astype(np.int64))
        column = part.with_format("arrow")[rows]["input_ids"].combine_chunks()
        ids = column.flatten().to_numpy(zero_copy_only=False)
        num_unknown += int((ids == unknown).sum()) if unknown is not None else 0
        num_tokens += int((~np.isin(ids, [number for number in others if number is not None])).sum())
    share = num_unknown / max(num_tokens, 1)
    own = "the tokenizer trained on this text" if name is None else f"the tokenizer {name}"
    said = printable(f"{share:.2%} of the tokens are unknown ({tokenizer.unk_token}) to {own}")
    if share >= _UNKNOWN_REFUSED and not is_labelled:
        advice = "raise vocab_size, or give one that knows its letters by" if name is None else "give another one by"
        advice += " tokenizer_name, or none to have one trained"
        if belongs_to_model:
            advice = "give text in the base model's language"
        raise ValueError(f"{said}, which cannot cut it: {advice}")
    if os.environ.get("RANK", "0") == "0":  # of several processes, one
        tqdm.write(said, file=sys.stderr)
        if share >= _UNKNOWN_WARNED:
            advice = "a larger vocab_size" if name is None else "another tokenizer_name, or none to have one trained,"
            advice = "a model of another tokenizer" if is_labelled or belongs_to_model else advice
            logger.warning("%s: %s may keep more of the text", said, advice)
    return share


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | Path, positions: int | None) -> None:
    """Save a tokenizer beside a model; it lets no longer input pass than the model has positions for.

    Of how the last call cut and padded nothing is left in its files, which other libraries would do to every text.

    Args:
        tokenizer: It is left as it is.
        folder: The model's.
        positions: Tokens that the model takes at most, `None` where there is no such limit.
    """
    before = tokenizer.model_max_length
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    truncation, padding = (None, None) if backend is None else (backend.truncation, backend.padding)
    try:
        if positions is not None:
            tokenizer.model_max_length = min(before, positions)
        if backend is not None:
            backend.no_truncation()
            backend.no_padding()
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length = before
        if backend is not None and truncation is not None:
            backend.enable_truncation(**truncation)
        if backend is not None and padding is not None:
            backend.enable_padding(**padding)
