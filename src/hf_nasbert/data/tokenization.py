"""Tokenizers: loaded by name, or a WordPiece trained on the corpus, the same one from the same text every time."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest, read_sealed, write_sealed_bytes
from hf_nasbert.data.foreign_tokenizers import open_tokenizer

_SPECIAL_TOKENS = {  # the padding is 0, a config's default
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
_USUAL_ALPHABET = 1000  # letters, as BERT's
# The share of a text's letters that the usual alphabet, or BERT's rules, may lose before others are taken. So a few
# words of other scripts in an English text change nothing.
_UNCOVERED = 2e-4
_SMALLEST_VOCABULARY = 16
_TRAINING = "3"  # part of the cache's key: to be raised whenever training changes what comes out
_PIECE_CHARACTERS = 1 << 20

# Scripts that put no space between words, as far as the tokenizers library knows their names.
_UNSPACED = "".join(
    rf"\p{{{script}}}"
    for script in (
        "Han Hiragana Katakana Bopomofo Yi Tangut Nushu Khitan_Small_Script Thai Lao Khmer Myanmar Tibetan Tai_Le "
        "New_Tai_Lue Tai_Tham Tai_Viet Ahom Javanese Balinese Batak Buginese Makasar Cham Rejang Brahmi Kawi "
        "Egyptian_Hieroglyphs Anatolian_Hieroglyphs Cuneiform Linear_A Linear_B Cypriot Cypro_Minoan Phags_Pa"
    ).split()
)
_LONGEST_WORD = 100  # letters; WordPiece takes what is longer for unknown
_SUSPICIOUS_WORD = _LONGEST_WORD // 4  # no letter becomes more than four where its accents are taken apart
# A letter of these scripts with its marks is a word, as a Chinese character is BERT's; what is too long is cut.
_PIECE = rf"[{_UNSPACED}]\p{{M}}*|[^{_UNSPACED}]{{1,{_LONGEST_WORD}}}"
# Unicode's blocks of accents that belong to no script of their own. Indic vowels, Arabic and Hebrew points, Thai tones
# and the kana's voicing lie in others: without them it is another word.
_ACCENTS = (
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20dc\u20e1\u20e5-\u20f0\ufe20-\ufe2f"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]"  # and the marks that choose between two shapes of a sign
)
# Of Cyrillic, stress alone is an accent: й is another letter than и.
_STRIPPED = rf"(?<!\p{{Cyrillic}}){_ACCENTS}|(?<=\p{{Cyrillic}})[\u0300\u0301]"


def load_tokenizer(arguments: DataArguments, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `arguments` names, or train one on `texts` (once: it is found again by their content).

    Raises:
        ValueError: If it lacks a token that masked language modelling on packed text needs (padding is what the model
            wants), or if there is neither a name nor text. `ForeignFileError` if its files are no good.
        FileNotFoundError: If the name is a path and nothing is there.
    """
    name = arguments.tokenizer_name
    if name is None:
        if texts is None:
            raise ValueError("a tokenizer needs a name (tokenizer_name) or texts to be trained on")
        return _train_once(list(texts) if isinstance(texts, Iterator) else texts, arguments)
    tokenizer = open_tokenizer(name, revision=arguments.tokenizer_revision or "main")
    needed = ("mask_token", "cls_token", "sep_token", "pad_token")
    missing = [token for token in needed if getattr(tokenizer, token) is None]
    if missing:
        raise ValueError(f"the tokenizer {name} has no {', '.join(missing)}: give one of a masked language model")
    return tokenizer


class _Rules(NamedTuple):
    """How a trained tokenizer cuts text: by BERT's rules (`is_plain`), or by those that lose nothing of any script."""

    do_lower_case: bool
    strip_accents: bool | None
    is_plain: bool = True


def _train_once(texts: Iterable[str], arguments: DataArguments) -> PreTrainedTokenizerFast:
    settings = (arguments.do_lower_case, arguments.strip_accents)
    key = content_digest(texts, arguments.vocab_size, *settings, tokenizers.__version__, _TRAINING)
    path = cache_folder(arguments.cache_dir, "vocabularies") / f"{key}.json"
    if (content := read_sealed(path)) is not None:
        made = json.loads(content)
    else:
        vocabulary, rules = _train(texts, arguments.vocab_size, *settings)
        made = {"vocabulary": vocabulary, "rules": rules._asdict()}
        write_sealed_bytes(path, json.dumps(made, sort_keys=True).encode())
    return _as_tokenizer(made["vocabulary"], _Rules(**made["rules"]), arguments.max_seq_length)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 8192,
    *,
    model_max_length: int = 512,
    do_lower_case: bool = True,
    strip_accents: bool | None = None,
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer that depends on the texts alone: neither on their order nor on the run.

    It cuts as BERT's does, with three exceptions for what BERT's would lose: in scripts without spaces (Thai, kana,
    Khmer, ...) every letter with its marks is a word; a word of more than 100 letters is cut after every hundredth;
    and of the combining marks only accents are stripped, never the vowels, tones and points that a script writes by
    them. Texts in which BERT's rules lose no more than two letters in ten thousand are cut by BERT's rules alone.

    Args:
        texts: Documents.
        vocab_size: Most tokens it may have; a small corpus gives fewer.
        model_max_length: Longest input the tokenizer lets pass without a warning.
        do_lower_case: Fold case, as bert-base-uncased does.
        strip_accents: Take accents off Latin and Greek letters, and stress off Cyrillic ones; by default where case is
            folded.

    Returns:
        A `BertTokenizer` where BERT's rules are enough, else a `PreTrainedTokenizerFast`: both load with
        `AutoTokenizer` where this package is not installed.

    Raises:
        ValueError: If the texts hold no word, or `vocab_size` is too small.
    """
    return _as_tokenizer(*_train(texts, vocab_size, do_lower_case, strip_accents), model_max_length)


def _train(
    texts: Iterable[str], vocab_size: int, do_lower_case: bool, strip_accents: bool | None
) -> tuple[dict[str, int], _Rules]:
    """Train a vocabulary, by the simplest rules that the texts allow."""
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ValueError(f"vocab_size={vocab_size} is too small, {_SMALLEST_VOCABULARY} is the least")
    if isinstance(texts, Iterator):  # it could be read once only
        texts = list(texts)
    rules = _Rules(do_lower_case, strip_accents)
    wordpiece = _backend({"[UNK]": 1}, rules)
    raw_letters: Counter[str] = Counter()
    num_lost = 0
    for text in texts:
        raw_letters.update(text)
        num_lost += _letters_of_long_words(text, wordpiece)
    own_rules = rules._replace(is_plain=False)
    own = _backend({"[UNK]": 1}, own_rules)
    num_lost += sum(raw_letters[letter] for letter in _strange_letters(raw_letters, wordpiece, own))
    if num_lost > _UNCOVERED * sum(count for letter, count in raw_letters.items() if not letter.isspace()):
        wordpiece, rules = own, own_rules
    letters: Counter[str] = Counter()
    for raw_letter, count in raw_letters.items():  # by themselves letters are few, and a whole corpus is long
        for letter in wordpiece.normalizer.normalize_str(raw_letter):
            letters[letter] += count
    alphabet, continuing = _alphabet(letters, vocab_size)
    if not alphabet:
        raise ValueError("the texts hold no word to train a tokenizer on")
    # tokenizers numbers the "##x" pieces in the order of a randomised hash map, and breaks ties between merges by
    # these numbers, so that every training gives another vocabulary. Handed over in order, they are always the same.
    continuations = [f"##{letter}" for letter in continuing]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_SPECIAL_TOKENS.values(), *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    wordpiece.train_from_iterator(_pieces(texts), trainer)
    return wordpiece.get_vocab(), rules


def _backend(vocabulary: dict[str, int], rules: _Rules) -> Tokenizer:
    """A WordPiece tokenizer of the tokenizers library."""
    wordpiece = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD))
    wordpiece.decoder = decoders.WordPiece(prefix="##")
    words = pre_tokenizers.BertPreTokenizer()
    if rules.is_plain:
        wordpiece.normalizer = normalizers.BertNormalizer(
            lowercase=rules.do_lower_case, strip_accents=rules.strip_accents
        )
        wordpiece.pre_tokenizer = words
        return wordpiece
    steps: list[normalizers.Normalizer] = [
        normalizers.BertNormalizer(handle_chinese_chars=False, strip_accents=False, lowercase=False)
    ]
    if rules.do_lower_case if rules.strip_accents is None else rules.strip_accents:
        steps += [normalizers.NFD(), normalizers.Replace(Regex(_STRIPPED), "")]
    if rules.do_lower_case:
        steps.append(normalizers.Lowercase())
    wordpiece.normalizer = normalizers.Sequence(steps)
    wordpiece.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(Regex(_PIECE), "isolated")])
    return wordpiece


def _as_tokenizer(vocabulary: dict[str, int], rules: _Rules, model_max_length: int) -> PreTrainedTokenizerFast:
    """A trained vocabulary as transformers' tokenizer, which says in its files how it was made."""
    settings: dict[str, Any] = {
        "do_lower_case": rules.do_lower_case,
        "strip_accents": rules.strip_accents,
        "model_max_length": model_max_length,
    }
    if rules.is_plain:
        return BertTokenizer(vocab=vocabulary, **settings)
    backend = _backend(vocabulary, rules)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    settings |= {"tokenizer_object": backend, **_SPECIAL_TOKENS}
    return PreTrainedTokenizerFast(**settings)  # type: ignore[no-untyped-call]


def _cut(text: str, wordpiece: Tokenizer) -> list[str]:
    """The words of a text, as a tokenizer takes them."""
    normal = wordpiece.normalizer.normalize_str(text)
    return [piece for piece, _ in wordpiece.pre_tokenizer.pre_tokenize_str(normal)]


def _letters_of_long_words(text: str, plain: Tokenizer) -> int:
    """How many letters stand in words that BERT's WordPiece takes for unknown, long as they are."""
    suspects = (word for word in text.split() if len(word) > _SUSPICIOUS_WORD)
    lengths = (len(piece) for word in suspects for piece in _cut(word, plain))
    return sum(length for length in lengths if length > _LONGEST_WORD)


def _strange_letters(letters: Iterable[str], plain: Tokenizer, own: Tokenizer) -> Iterator[str]:
    """The letters that BERT's rules change or join, and ours leave or separate."""
    # What a mark is depends on the letter before it, where that is Cyrillic.
    cyrillic = min((letter for letter in letters if "\u0400" <= letter <= "\u052f"), default="")
    for letter in letters:
        text = cyrillic + letter if unicodedata.combining(letter) else letter
        if _cut(text + text, plain) != _cut(text + text, own):
            yield letter


def _alphabet(letters: Counter[str], vocab_size: int) -> tuple[list[str], list[str]]:
    """The letters of a vocabulary, and those among them that may continue a word, which take a second place.

    Half of the vocabulary at least is for words and pieces. Letters that are words themselves are given no second
    place where the usual number of letters is too few, as for Chinese.
    """
    ranked = sorted((letter for letter in letters if not letter.isspace()), key=lambda one: (-letters[one], one))
    usual = ranked[: min(_USUAL_ALPHABET, vocab_size // 4)]
    missed = sum(letters[letter] for letter in ranked[len(usual) :])
    if missed <= _UNCOVERED * sum(letters[letter] for letter in ranked):
        alphabet, alone = usual, set()
    else:
        cut = pre_tokenizers.Split(Regex(_PIECE), "isolated").pre_tokenize_str
        alone = {letter for letter in ranked if len(cut(letter + letter)) > 1}
        places = accumulate(1 if letter in alone else 2 for letter in ranked)
        alphabet = [letter for letter, upto in zip(ranked, places, strict=True) if upto <= vocab_size // 2]
    alphabet = sorted(alphabet)
    return alphabet, [letter for letter in alphabet if letter not in alone and not _is_punctuation(letter)]


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
