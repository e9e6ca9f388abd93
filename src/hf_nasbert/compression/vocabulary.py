"""The vocabulary that a text needs: the pieces that occur in it, and the tokenizer and embeddings of these alone.

A sentence is cut as before where all its pieces are kept. So it is by construction: what is left out was no piece of
it, and each kind of tokenizer chooses among what is there. WordPiece takes the longest piece that fits. BPE makes a
piece out of smaller ones, which are kept too, with the merges among them. Unigram takes the likeliest pieces, and its
rarest piece, by which it reckons what is unknown, stays. Single letters stay, so that other words are cut into
smaller pieces and do not become unknown.
"""

import copy
import json
import string
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from tokenizers import pre_tokenizers
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.compression.sentences import cut_sentences
from hf_nasbert.data.foreign_tokenizers import naming_panics, open_tokenizer
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.foreign import printable
from hf_nasbert.writing import scratch_folder, write_text

_DOCUMENTS = 256  # that are cut at a time
_SHOWN = 100  # characters of a sentence
_LETTERS = {*string.ascii_letters, *string.digits, *string.punctuation, "▁"}  # the last is SentencePiece's space
_BYTES = [f"<0x{number:02X}>" for number in range(256)]  # pieces that stand for a letter without a piece


@dataclass(frozen=True)
class TrimmedVocabulary:
    """What is left of a vocabulary.

    Args:
        tokenizer: The tokenizer of the kept pieces.
        kept: Their ids in the base model's tokenizer, in the order of the new ones.
        cut_otherwise: Share of the held-out sentences that are cut into other pieces than before.
    """

    tokenizer: PreTrainedTokenizerBase
    kept: Sequence[int]
    cut_otherwise: float


def check_trimmable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose vocabulary cannot be read.

    Raises:
        ValueError: If it is none of the tokenizers library.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"trim_vocabulary needs a tokenizer of the tokenizers library (tokenizer.json), and "
            f"{printable(tokenizer.name_or_path, 200)} is a {type(tokenizer).__name__}, which is written in Python: "
            "leave trim_vocabulary out"
        )


def count_pieces(
    documents: Dataset, tokenizer: PreTrainedTokenizerBase, *, progress: bool = False
) -> npt.NDArray[Any]:
    """How often every piece occurs in documents: in the whole ones or in their sentences, where it does so more often.

    Some tokenizers have other pieces for a text's first word, and pieces for breaks between sentences.

    Args:
        documents: In a column "text".
        tokenizer: Cuts them.
        progress: Whether to show a bar.

    Returns:
        (V,), V being `vocabulary_size`.
    """
    counts = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    starts = range(0, len(documents), _DOCUMENTS)
    for start in tqdm(starts, desc="pieces of the text", disable=not progress, leave=False):
        texts: list[str] = documents[start : start + _DOCUMENTS]["text"]
        sentences = [sentence for text in texts for sentence in cut_sentences(text)]
        found = [
            np.bincount(
                [number for row in _ids(part, tokenizer, special=False) for number in row], minlength=len(counts)
            )
            for part in (texts, sentences)
        ]
        counts += np.maximum(*found)
    return counts


def _ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool) -> list[list[int]]:
    if not texts:
        return []
    with naming_panics(tokenizer):
        found: list[list[int]] = tokenizer(
            list(texts), add_special_tokens=special, truncation=False, padding=False, verbose=False
        )["input_ids"]
    return found


def choose_pieces(
    tokenizer: PreTrainedTokenizerBase, counts: npt.NDArray[Any], *, min_count: int = 1, also: Iterable[int] = ()
) -> list[int]:
    """The pieces to keep, by their present ids, in the order of the new ones.

    They are those that occur, what these are made from, the letters of the text, ASCII's letters, digits and signs,
    and every special or added token.

    Args:
        tokenizer: The tokenizer.
        counts: What `count_pieces` gives.
        min_count: What occurs less often is left out; letters are not.
        also: Ids that stay in any case; those of no token are passed over.

    Raises:
        ValueError: If the tokenizer cannot be trimmed, saying why.
    """
    content = _content(tokenizer)
    model = content["model"]
    ids = _ids_of(model)
    added = [one["id"] for one in content["added_tokens"]]
    tokens = {number: token for token, number in ids.items()}
    occurring = [tokens[number] for number in np.flatnonzero(counts).tolist() if number in tokens]
    kept = {token for token in occurring if counts[ids[token]] >= min_count}
    kept |= {tokens[number] for number in also if number in tokens}  # with all that they are made from
    letters = {letter for token in {*occurring, *kept} for letter in token} | _LETTERS
    if model["type"] == "BPE":
        letters |= set(pre_tokenizers.ByteLevel.alphabet())
        kept |= _made_from(kept, model)
    if model["type"] == "Unigram":
        kept.add(min(model["vocab"], key=lambda piece: piece[1])[0])
    before, behind = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    kept |= {front + letter + end for letter in letters for front in {"", before} for end in {"", behind}}
    if model.get("byte_fallback"):
        kept |= set(_BYTES)
    needed = {*added, *tokenizer.all_special_ids, *_ids_around(content)}
    needed |= {ids[token] for token in [*kept, model.get("unk_token")] if token in ids}
    unknown = model.get("unk_id")
    needed |= set() if unknown is None else {unknown}
    # Tokens outside the tokenizer's own model get the ids after it, whatever their file says.
    return sorted(needed & tokens.keys()) + sorted(needed & set(added) - tokens.keys())


def _content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    check_trimmable(tokenizer)
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return content | {"truncation": None, "padding": None}  # what the last call asked for


def _ids_of(model: dict[str, Any]) -> dict[str, int]:
    """The ids of the pieces of a tokenizer's model."""
    if model["type"] == "Unigram":
        return {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _merges(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What BPE merges, in its order, and what becomes of it."""
    num_left_out = len(model.get("continuing_subword_prefix") or "")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(first, second, first + second[num_left_out:]) for first, second in pairs]


def _made_from(pieces: Collection[str], model: dict[str, Any]) -> set[str]:
    """All that BPE may pass through on its way to pieces."""
    halves: dict[str, list[str]] = {}
    for first, second, merged in _merges(model):
        halves.setdefault(merged, []).extend((first, second))
    found, waiting = set(pieces), list(pieces)
    while waiting:
        for half in halves.get(waiting.pop(), ()):
            if half not in found:
                found.add(half)
                waiting.append(half)
    return found


def _ids_around(content: dict[str, Any]) -> list[int]:
    """The ids that a tokenizer puts around texts."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _renumbered(content, note)
    return found


def _renumbered(content: dict[str, Any], new_of: Callable[[int], int]) -> dict[str, Any]:
    """What puts ids around texts, with other ids."""

    def processor(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "Sequence":
            return part | {"processors": [processor(one) for one in part["processors"]]}
        if part["type"] == "TemplateProcessing":
            special = part["special_tokens"].items()
            return part | {
                "special_tokens": {name: one | {"ids": [new_of(n) for n in one["ids"]]} for name, one in special}
            }
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            return part | {role: [part[role][0], new_of(part[role][1])] for role in ("sep", "cls")}
        return part

    around = content["post_processor"]
    return {"post_processor": around and processor(around)}


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, kept: Sequence[int], *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of the kept pieces, as it will be read from its files.

    Args:
        tokenizer: It is left as it is.
        kept: What `choose_pieces` gives.
        trust_remote_code: Run the code that comes with it.

    Raises:
        ValueError: If it cannot be trimmed, saying why.
    """
    content = _content(tokenizer)
    name = printable(tokenizer.name_or_path, 200)
    new_ids = {old: new for new, old in enumerate(kept)}
    model = content["model"]
    old_ids = _ids_of(model)
    vocabulary = {token: new_ids[number] for token, number in old_ids.items() if number in new_ids}
    if model["type"] == "Unigram":
        rows = sorted((new_ids[number], row) for number, row in enumerate(model["vocab"]) if number in new_ids)
        model |= {"vocab": [row for _, row in rows], "unk_id": new_ids.get(model["unk_id"])}
    else:
        model["vocab"] = vocabulary
    if model["type"] == "BPE":
        merges = zip(_merges(model), model["merges"], strict=True)
        model["merges"] = [merge for parts, merge in merges if vocabulary.keys() >= set(parts)]
    try:
        content |= _renumbered(content, new_ids.__getitem__)
        content["added_tokens"] = [one | {"id": new_ids[one["id"]]} for one in content["added_tokens"]]
    except KeyError as error:
        raise ValueError(
            f"the tokenizer {name} has the id {error} in its files, which is no token's: its vocabulary cannot be "
            "trimmed, leave trim_vocabulary out"
        ) from error
    with scratch_folder() as folder:
        tokenizer.save_pretrained(folder)
        write_text(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False))
        trimmed = open_tokenizer(folder, trust_remote_code=trust_remote_code)
    trimmed.name_or_path = tokenizer.name_or_path
    expected = {token: new_ids[number] for token, number in tokenizer.get_vocab().items() if number in new_ids}
    if trimmed.get_vocab() != expected:
        raise ValueError(
            f"the tokenizer {name} is another one when its trimmed files are read: its vocabulary cannot be trimmed, "
            "leave trim_vocabulary out"
        )
    return trimmed


def cut_otherwise(
    sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, trimmed: PreTrainedTokenizerBase, kept: Sequence[int]
) -> float:
    """The share of sentences that a trimmed tokenizer cuts into other pieces than before.

    Args:
        sentences: One or more.
        tokenizer: Before.
        trimmed: What `trim_tokenizer` gives.
        kept: The pieces that it has.

    Raises:
        ValueError: If it does so to a sentence whose pieces are all kept.
    """
    new_ids = {old: new for new, old in enumerate(kept)}
    num_others = 0
    both = (_ids(sentences, one, special=True) for one in (tokenizer, trimmed))
    for sentence, before, after in zip(sentences, *both, strict=True):
        expected = [new_ids.get(number) for number in before]
        if expected != after:
            num_others += 1
            # Of a word that is unknown as a whole nobody knows which pieces were tried.
            if None not in expected and tokenizer.unk_token_id not in before:
                raise ValueError(
                    f"the tokenizer {printable(tokenizer.name_or_path, 200)} cuts {printable(sentence, _SHOWN)} into "
                    "other pieces without those that do not occur: its vocabulary cannot be trimmed, leave "
                    "trim_vocabulary out"
                )
    return num_others / len(sentences)


def ids_of_config(config: PreTrainedConfig) -> list[int]:
    """The ids of tokens that a model's config names."""
    values = [value if isinstance(value, list) else [value] for value in _named_ids(config).values()]
    return [number for numbers in values for number in numbers]


def _named_ids(config: PreTrainedConfig) -> dict[str, Any]:
    return {
        name: value for name, value in config.to_dict().items() if name.endswith("_token_id") and value is not None
    }


def trim_model(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A copy of a child with the embeddings of the kept pieces alone, and their rows of a masked-LM head.

    Args:
        model: A child with any head; it is left as it is.
        kept: Present ids, in the order of the new ones.

    Returns:
        The same outputs for the same pieces.
    """
    new_ids = {old: new for new, old in enumerate(kept)}
    trimmed = copy.deepcopy(model)
    config = trimmed.config
    config.vocab_size = len(kept)
    for name, value in _named_ids(config).items():
        is_list = isinstance(value, list)
        setattr(config, name, [new_ids[n] for n in value if n in new_ids] if is_list else new_ids.get(value))
    rows = torch.tensor(kept, device=model.device)
    embeddings: Any = trimmed.get_input_embeddings()
    embeddings.weight = nn.Parameter(embeddings.weight.detach()[rows])
    embeddings.num_embeddings, embeddings.padding_idx = len(kept), config.pad_token_id
    head: Any = getattr(trimmed, "lm_head", None)
    if head is not None:
        decoder = head.decoder
        decoder.weight = nn.Parameter(decoder.weight.detach()[rows])
        decoder.bias = nn.Parameter(decoder.bias.detach()[rows])
        decoder.out_features = len(kept)
        if head.bias is not None:
            head.bias = decoder.bias
    trimmed.tie_weights()
    return trimmed
