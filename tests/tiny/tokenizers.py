"""Tokenizers of every kind, trained on a text in a moment, with all that real ones carry around their pieces."""

import json
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer, XLMRobertaTokenizer

_BERT = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_ROLES = dict(zip(("pad", "unk", "cls", "sep", "mask"), [_BERT[0], *_BERT[2:]], strict=True))
_NUM_PIECES = 420


def _trained(model, trainer, texts, pre_tokenizer, **parts) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _model_of(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())["model"]


def _whole(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """With what stands around texts, padding, a longest input and a word that was added later."""
    tokenizer.add_special_tokens(_BERT[3:])  # behind all pieces: they get other ids when some of these go
    numbers = [(role, tokenizer.token_to_id(role)) for role in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=numbers),
        ]
    )
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{role}_token": token for role, token in _ROLES.items()}
    )
    made.add_tokens(["harbourmaster"])
    return made


def wordpiece(texts: Sequence[str]) -> BertTokenizer:
    """BERT's, ELECTRA's and DistilBERT's."""
    trained = _trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=_NUM_PIECES, special_tokens=_BERT, show_progress=False),
        texts,
        pre_tokenizers.BertPreTokenizer(),
        normalizer=normalizers.BertNormalizer(),
    )
    return BertTokenizer(vocab=_model_of(trained)["vocab"])


def byte_level_bpe(texts: Sequence[str]) -> RobertaTokenizer:
    """RoBERTa's."""
    trained = _trained(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=256 + _NUM_PIECES,
            special_tokens=_ROBERTA,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
        texts,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    model = _model_of(trained)
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def unigram(texts: Sequence[str]) -> XLMRobertaTokenizer:
    """XLM-RoBERTa's."""
    trained = _trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=_NUM_PIECES, special_tokens=_ROBERTA[:4], unk_token="<unk>", show_progress=False
        ),
        texts,
        pre_tokenizers.Metaspace(),
    )
    vocabulary = [(piece, score) for piece, score in _model_of(trained)["vocab"]]
    return XLMRobertaTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)])


def byte_fallback_unigram(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """SentencePiece's with pieces for single bytes, which stand for a letter without one."""
    trained = _trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=_NUM_PIECES, special_tokens=_BERT[:3], unk_token="[UNK]", show_progress=False
        ),
        texts,
        pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    )
    vocabulary = [(piece, score) for piece, score in _model_of(trained)["vocab"]]
    vocabulary += [(f"<0x{number:02X}>", -20.0) for number in range(256)]
    trained.model = models.Unigram(vocabulary, unk_id=_BERT.index("[UNK]"), byte_fallback=True)
    return _whole(trained)


def bpe_with_ends(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """HerBERT's: a piece that ends a word says so."""
    trained = _trained(
        models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"),
        trainers.BpeTrainer(
            vocab_size=_NUM_PIECES, special_tokens=_BERT[:3], end_of_word_suffix="</w>", show_progress=False
        ),
        texts,
        pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.BPEDecoder(suffix="</w>"),
    )
    return _whole(trained)


def bpe_with_prefix(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """BPE that marks pieces within words as WordPiece does."""
    trained = _trained(
        models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"),
        trainers.BpeTrainer(
            vocab_size=_NUM_PIECES, special_tokens=_BERT[:3], continuing_subword_prefix="##", show_progress=False
        ),
        texts,
        pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )
    return _whole(trained)


KINDS: dict[str, Callable[[Sequence[str]], PreTrainedTokenizerFast]] = {
    "WordPiece": wordpiece,
    "byte-level BPE": byte_level_bpe,
    "BPE with ends": bpe_with_ends,
    "BPE with a prefix": bpe_with_prefix,
    "Unigram": unigram,
    "Unigram with bytes": byte_fallback_unigram,
}
