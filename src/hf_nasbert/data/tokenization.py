"""Tokenizers: loaded by name, or a WordPiece trained on the corpus, the same one from the same text every time."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest, read_sealed, write_sealed_bytes

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # the padding is 0, a config's default
_LARGEST_ALPHABET = 1000  # BERT's; rarer letters become [UNK]
_SMALLEST_VOCABULARY = 16
_TRAINING = "2"  # part of the cache's key: to be raised whenever training changes what comes out
_PIECE_CHARACTERS = 1 << 20


def load_tokenizer(arguments: DataArguments, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `arguments` names, or train one on `texts` (once: it is found again by their content).

    Raises:
        ValueError: If it lacks a token that masked language modelling on packed text needs (padding is what the model
            wants), or if there is neither a name nor text.
        FileNotFoundError: If the name is a path and nothing is there.
    """
    name = arguments.tokenizer_name
    if name is None:
        if texts is None:
            raise ValueError("a tokenizer needs a name (tokenizer_name) or texts to be trained on")
        return _train_once(list(texts) if isinstance(texts, Iterator) else texts, arguments)
    looks_like_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if looks_like_path and not Path(name).exists():
        raise FileNotFoundError(f"there is no tokenizer folder {name}")
    tokenizer = AutoTokenizer.from_pretrained(name, revision=arguments.tokenizer_revision or "main")
    needed = ("mask_token", "cls_token", "sep_token", "pad_token")
    missing = [token for token in needed if getattr(tokenizer, token) is None]
    if missing:
        raise ValueError(f"the tokenizer {name} has no {', '.join(missing)}: give one of a masked language model")
    return tokenizer


def _train_once(texts: Iterable[str], arguments: DataArguments) -> BertTokenizer:
    key = content_digest(texts, arguments.vocab_size, tokenizers.__version__, _TRAINING)
    path = cache_folder(arguments.cache_dir, "vocabularies") / f"{key}.json"
    if (content := read_sealed(path)) is not None:
        return BertTokenizer(vocab=json.loads(content), model_max_length=arguments.max_seq_length)
    tokenizer = train_tokenizer(texts, arguments.vocab_size, model_max_length=arguments.max_seq_length)
    write_sealed_bytes(path, json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    return tokenizer


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 8192, *, model_max_length: int = 512, do_lower_case: bool = True
) -> BertTokenizer:
    """Train a WordPiece tokenizer that depends on the texts alone: neither on their order nor on the run.

    Args:
        texts: Documents.
        vocab_size: Most tokens it may have; a small corpus gives fewer.
        model_max_length: Longest input the tokenizer lets pass without a warning.
        do_lower_case: Fold case and accents, as bert-base-uncased does.

    Raises:
        ValueError: If the texts hold no word, or `vocab_size` is too small.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ValueError(f"vocab_size={vocab_size} is too small, {_SMALLEST_VOCABULARY} is the least")
    if isinstance(texts, Iterator):  # it could be read once only
        texts = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=do_lower_case)
    raw_letters: Counter[str] = Counter()
    for text in texts:
        raw_letters.update(text)
    letters: Counter[str] = Counter()
    for raw_letter, count in raw_letters.items():  # normalising is context-free, and slow on a whole corpus
        for letter in normalizer.normalize_str(raw_letter):
            letters[letter] += count
    alphabet = [letter for letter in letters if not letter.isspace()]
    if not alphabet:
        raise ValueError("the texts hold no word to train a tokenizer on")
    # A letter takes two places, one as "##x": half of the vocabulary at least is for words and pieces.
    num_letters = min(_LARGEST_ALPHABET, vocab_size // 4)
    alphabet = sorted(sorted(alphabet, key=lambda letter: (-letters[letter], letter))[:num_letters])
    # tokenizers numbers the "##x" pieces in the order of a randomised hash map, and breaks ties between merges by
    # these numbers, so that every training gives another vocabulary. Handed over in order, they are always the same.
    continuations = [f"##{letter}" for letter in alphabet if not _is_punctuation(letter)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL_TOKENS + continuations,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizer
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.train_from_iterator(_pieces(texts), trainer)
    return BertTokenizer(vocab=wordpiece.get_vocab(), do_lower_case=do_lower_case, model_max_length=model_max_length)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a fingerprint of how a tokenizer cuts text: equal wherever and however it was loaded."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        # Left behind by earlier calls, or not used in packing.
        for state in ("truncation", "padding", "post_processor"):
            content.pop(state, None)
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    content["special"] = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split_gigantic(text: str) -> Iterator[str]:
    """Cut a text of many megabytes at spaces: a tokenizer needs some hundred bytes of memory per character."""
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = text.rfind(" ", start + 1, start + _PIECE_CHARACTERS)
        end = end if end > start else start + _PIECE_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from split_gigantic(text)


def _is_punctuation(letter: str) -> bool:
    """Tell whether BERT's pre-tokenizer makes a character a word of its own, so that it continues none."""
    is_ascii_symbol = letter.isascii() and not letter.isalnum()
    return is_ascii_symbol or unicodedata.category(letter).startswith("P")
