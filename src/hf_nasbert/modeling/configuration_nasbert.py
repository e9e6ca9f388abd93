# SPDX-License-Identifier: Apache-2.0
"""Configuration of a NasBert child: an ordinary BERT-like encoder whose every block is one chosen operator."""

import difflib
import re
from collections.abc import Iterator

from huggingface_hub import __version__ as huggingface_hub_version
from transformers import __version__ as transformers_version

# Every file of this code imports this one first, and this one looks at the versions before anything else: under older
# libraries the imports below end in "cannot import name", which says nothing of versions.
NEEDED_VERSIONS = {"transformers": "5.20", "huggingface_hub": "1.31"}
for library, found in (("transformers", transformers_version), ("huggingface_hub", huggingface_hub_version)):
    if [int(number) for number in re.findall(r"\d+", found)[:2]] < [*map(int, NEEDED_VERSIONS[library].split("."))]:
        raise ImportError(
            f"the code of this model needs {' and '.join(map(' '.join, NEEDED_VERSIONS.items()))} or later; here is "
            f"{library} {found}: pip install --upgrade {' '.join(NEEDED_VERSIONS)}"
        )
# isort: split

import torch
from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging

from .geometry_nasbert import OPERATOR_KINDS, Block, geometry_of, head_size, inner_width, operator_kind, parse_operator

logger = logging.get_logger(__name__)

_COUNTS = ("vocab_size", "hidden_size", "ffn_ratio", "num_conv_layers", "max_position_embeddings", "type_vocab_size")

# What transformers itself, its tools and its older releases put into a config.json beyond the declared fields.
_FOREIGN_FIELDS = {
    "add_cross_attention", "attn_implementation", "auto_map", "bos_token_id", "cls_token_id", "custom_pipelines",
    "eos_token_id", "experts_implementation", "finetuning_task", "is_decoder", "mask_token_id", "model_max_length",
    "model_type", "name_or_path", "num_labels", "output_attentions", "position_embedding_type", "pruned_heads",
    "quantization_config", "sentence_transformers", "sep_token_id", "task_specific_params",
    "tokenizer_class", "torch_dtype", "torchscript", "transformers.js_config", "unk_token_id", "use_cache",
    *GenerationConfig().to_dict(),  # of old files; transformers drops them
}  # fmt: skip

# Of these, what would make a BERT another network: fields that say what a child is in any case.
_ONLY_VALUES = {"add_cross_attention": False, "is_decoder": False, "position_embedding_type": "absolute"}

_LABELS = {"LABEL_0": 0, "LABEL_1": 1}  # transformers' own, where nobody said anything else

# What tools read from any config of transformers and from its `to_dict`, and what sets it here. No file holds it.
_COMPUTED = {
    "num_attention_heads": "attention_head_size",
    "intermediate_size": "ffn_ratio",
    "num_hidden_layers": "the operators",
}

# Marks the fields of a file on their way through the constructor; it is no field.
_FROM_FILE = "_is_from_file"


@strict
class NasBertShapeConfig(PreTrainedConfig):
    """What a child and a super-net have in common: the sizes of everything that is not the choice of operators.

    Unlike other transformers configs this one refuses fields that it does not know, so that a misspelt field is an
    error and not a silently ignored wish. Fields of a file are another matter (`from_dict`, `from_pretrained`): it may
    have been written by a later transformers or by somebody's tool, so that unknown ones are kept, with a warning.

    Args:
        vocab_size: Number of tokens of the vocabulary.
        hidden_size: Width of the embeddings' output, of the blocks of a space without widths, and of the states
            between the stages of a space with widths.
        embedding_size: Width of the embedding tables; `None` means `hidden_size`. A smaller one is projected up (and
            down again before the vocabulary), as in ELECTRA: small children cannot afford a wide vocabulary.
        ffn_ratio: Inner width of a feed-forward operator, in multiples of the operator's width.
        attention_head_size: Width of an attention head; `None` means 64 where the operator's width is a multiple of
            64 and at least 128, and 32 elsewhere.
        num_conv_layers: Stacked convolution sub-layers in one `conv` operator. 2 as in the public NAS-BERT port
            (dotnet/machinelearning, `Microsoft.ML.TorchSharp/NasBert`); 1 as in the paper's description.
        max_position_embeddings: Longest sequence.
        type_vocab_size: Number of segment embeddings.
        chunk_size_feed_forward: transformers' own field. Feed-forward operators run over so many tokens at a time, the
            last chunk may be shorter: the same result for less memory. 0 means all at once.
        hidden_act: Activation of feed-forward and convolution operators and of the masked-LM head.
        pooler_act: Activation of the pooler, by which sequences are classified: BERT's tanh, DistilBERT's relu.
        hidden_dropout_prob: Dropout behind every operator and the embeddings.
        attention_probs_dropout_prob: Dropout of attention probabilities.
        classifier_dropout: Dropout before a classification head; `None` means `hidden_dropout_prob`.
        layer_norm_eps: Epsilon of every layer normalisation, above 0.
        initializer_range: Standard deviation of initial linear and embedding weights.
        pad_token_id: Id of the padding token.
        tie_word_embeddings: Whether the vocabulary projection shares the word embeddings' weights.
        sparse_prediction: With `labels`, compute vocabulary logits at the labelled positions only, and the last block
            only where it is read: the same loss for a fraction of the time. `logits` then has shape
            (num_labelled, vocab_size).

    Raises:
        ValueError: For an unknown field that is no file's, naming its nearest known one; for a transformers-wide field
            with a value that no child can have; and for sizes that do not fit each other. Fields may be set later:
            building a model and saving check them again, so that what is saved can be loaded.
    """

    vocab_size: int = 30522
    hidden_size: int = 256
    embedding_size: int | None = None
    ffn_ratio: int = 4
    attention_head_size: int | None = None
    num_conv_layers: int = 2
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    pooler_act: str = "tanh"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    classifier_dropout: float | int | None = None
    layer_norm_eps: float | int = 1e-12
    initializer_range: float | int = 0.02
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    sparse_prediction: bool = False

    def __post_init__(self, **kwargs):
        is_from_file = kwargs.pop(_FROM_FILE, False)
        computed = {name: kwargs.pop(name) for name in _COMPUTED if name in kwargs}  # of a `to_dict`
        odd = [name for name in kwargs if not self._is_known(name)]
        odd += [name for name, only in _ONLY_VALUES.items() if kwargs.get(name, only) != only]
        if odd:
            problems = [self._problem_with(name) for name in odd[:5]]
            if not is_from_file:
                raise ValueError(problems[0])
            more = f"; {len(odd) - 5} more such fields" if len(odd) > 5 else ""
            logger.warning(f"in a config.json: {'; '.join(problems)}{more} (such fields have no effect)")
        if self.dtype is None:
            self.dtype = kwargs.pop("torch_dtype", None)  # its older name
        self._normalize()
        # Names of properties and methods are taken.
        super().__post_init__(
            **{name: kwargs[name] for name in kwargs if self._is_known(name) or not hasattr(type(self), name)}
        )
        self.check()
        for name in [name for name, value in computed.items() if value != getattr(self, name)]:
            if not is_from_file:
                raise ValueError(self._problem_with(name))
            logger.warning(f"in a config.json: {self._problem_with(name)}")

    def _normalize(self) -> None:
        """Give fields that may be given in several forms the one that a file gives back."""
        if isinstance(self.dtype, str):
            dtype = getattr(torch, self.dtype, None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"dtype is {self.dtype!r}; expected one of torch's, such as 'float32'")
            self.dtype = dtype
        if self.id2label is not None:
            try:
                self.id2label = {int(label): name for label, name in self.id2label.items()}
            except ValueError:
                raise ValueError(f"id2label has the keys {list(self.id2label)[:5]}; expected whole numbers") from None

    def check(self) -> None:
        """Check every field, as they are now.

        Raises:
            ValueError: For a field from which no model can be built, or that could not be loaded again.
        """
        if getattr(self, "is_heterogeneous", False):  # by transformers' `per_layer_config`; operators say it here
            raise ValueError(f"per_layer_config can only be None in a {type(self).__name__}")
        self._normalize()
        if self.id2label is None:
            self.num_labels = 2  # transformers' default, which a file without labels means
        if self.label2id in (None, _LABELS):  # no file holds the default, whatever the labels are
            self.label2id = {name: int(label) for label, name in (self.id2label or {}).items()}
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if type(self.chunk_size_feed_forward) is not int or self.chunk_size_feed_forward < 0:
            raise ValueError(
                f"chunk_size_feed_forward is {self.chunk_size_feed_forward!r}; expected a number of tokens, 0 for all"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id is {self.pad_token_id}; expected None or an id below {self.vocab_size}")
        for name in ("hidden_act", "pooler_act"):
            activation = getattr(self, name)
            if activation not in ACT2FN:
                near = difflib.get_close_matches(activation, ACT2FN, n=1)
                raise ValueError(
                    f"{name} is {activation!r}; expected an activation of transformers, such as "
                    f"{near[0] if near else 'gelu'!r}"
                )
        for name in ("embedding_size", "attention_head_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1, or None for the default")
        if not 0 < self.layer_norm_eps < 1e6:  # so written, NaN fails
            raise ValueError(f"layer_norm_eps is {self.layer_norm_eps}; expected a finite number above 0")
        if not 0 <= self.initializer_range < 1e6:
            raise ValueError(f"initializer_range is {self.initializer_range}; expected a finite number, 0 or more")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability of at least 0 and below 1")

    def to_dict(self):
        fields = super().to_dict()
        try:
            return fields | {name: getattr(self, name) for name in _COMPUTED}
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ):  # of fields that `check` refuses: to look at them
            return fields

    def to_diff_dict(self):
        return {name: value for name, value in super().to_diff_dict().items() if name not in _COMPUTED}

    def save_pretrained(self, *args, **kwargs):
        self.check()  # before transformers reads or writes anything
        super().save_pretrained(*args, **kwargs)

    def to_json_file(self, json_file_path, use_diff=True):
        self.check()
        if self.problem_type == "single_label_classification" and self.num_labels == 1:  # refused when it is loaded
            raise ValueError(f"problem_type is {self.problem_type!r} with one label; expected at least two")
        named = {name: label for label, name in (self.id2label or {}).items()}
        if named == _LABELS and self.label2id != named:  # a file holds no default labels, and none of their ids
            raise ValueError(f"label2id is {self.label2id} and id2label the default: set id2label too")
        super().to_json_file(json_file_path, use_diff)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Make the config that a file holds, by transformers' `from_pretrained` and its Auto classes too.

        Fields that are unknown here are kept, and named in one warning with their nearest known ones. Those whose
        names are taken, such as the computed `num_hidden_layers`, are named and left out.

        Args:
            config_dict: The fields.
            **kwargs: Fields of the caller's that replace those of the file, and options of transformers.

        Raises:
            ValueError: If the file is of another `model_type`, if a known field has a bad value, or if the caller
                misspelt a field. (Options that resemble none are ignored, as transformers does: it passes on those
                that were meant for the tokenizer.)
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"{cls.__name__} is of model_type {cls.model_type!r}, this config of {model_type!r}: "
                "load it by an Auto class"
            )
        for name in kwargs.keys() & _COMPUTED.keys():
            raise ValueError(cls._problem_with(name))
        if not kwargs.get("return_unused_kwargs"):  # whoever asks for them looks at them
            for name in kwargs:
                is_unused = not (cls._is_known(name) or hasattr(cls, name) or name in config_dict)
                if is_unused and difflib.get_close_matches(name, cls.__dataclass_fields__, cutoff=0.9):
                    raise ValueError(cls._problem_with(name))
        return super().from_dict({**config_dict, _FROM_FILE: True}, **kwargs)

    @classmethod
    def from_json_file(cls, json_file):
        return cls.from_dict(cls._dict_from_json_file(json_file))

    @classmethod
    def _is_known(cls, name: str) -> bool:
        """Whether a field is one of this config, of transformers or of its friends."""
        return name.startswith("_") or name in cls.__dataclass_fields__ or name in _FOREIGN_FIELDS

    @classmethod
    def _problem_with(cls, name: str) -> str:
        """What is wrong with a field that is not known, or has a value that makes no child."""
        if name in _ONLY_VALUES:
            return f"{name} can only be {_ONLY_VALUES[name]!r} in a {cls.__name__}"
        if hasattr(cls, name):
            how = f" (computed: set {_COMPUTED[name]})" if name in _COMPUTED else ""
            return f"{cls.__name__} has no field {name!r}: that name is taken{how}"
        near = difflib.get_close_matches(name, cls.__dataclass_fields__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{cls.__name__} has no field {name[:80]!r}{hint}"

    @property
    def word_embedding_size(self) -> int:
        """Width of the embedding tables."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    def operator_names(self) -> Iterator[str]:
        """The names of all operators, block by block; of a super-net, of all candidates."""
        raise NotImplementedError

    @property
    def num_attention_heads(self) -> int:
        """Heads of the first attention operator; 1 where nothing attends. Others may have other widths."""
        for name in self.operator_names():
            if operator_kind(name) == "attention":
                width = parse_operator(name).width or self.hidden_size
                return inner_width(self, name) // self.head_size(width)
        return 1

    @property
    def intermediate_size(self) -> int:
        """Inner width of the first feed-forward operator; where there is none, of a full one of `hidden_size`."""
        for name in self.operator_names():
            if operator_kind(name) == "ffn":
                return inner_width(self, name)
        return self.ffn_ratio * self.hidden_size

    def head_size(self, width: int) -> int:
        """Width of one attention head in an operator of `width`.

        Raises:
            ValueError: If heads of that size do not fill the width.
        """
        return head_size(width, self.attention_head_size)

    def check_operator(self, name: str) -> None:
        """Refuse a name that no operator can be built from.

        Raises:
            ValueError: For a name that is none, an unknown kind, an attention width that does not divide into heads,
                or a size that is the full one, whose name is bare.
        """
        operator = parse_operator(name)
        if operator.kind not in OPERATOR_KINDS:
            raise ValueError(f"unknown operator {name!r}: expected one of {', '.join(OPERATOR_KINDS)}")
        width = operator.width or self.hidden_size
        if operator.kind == "attention":
            self.head_size(width)
        full = operator.candidate.removesuffix(str(operator.size))
        if operator.size is not None and inner_width(self, name) == inner_width(self, f"{full}@{width}"):
            raise ValueError(f"operator {name!r} is of the full size, whose name is {full!r}")


@strict
class NasBertConfig(NasBertShapeConfig):
    """Configuration of a child: a chain of operators, one per choice block of the super-net it came from.

    `operators` is the child's architecture; transformers keeps the name `architectures` for model classes.

    Args:
        operators: One operator name per block, such as `("attention", "ffn", "conv3", "skip")`; in a staged space
            with widths `("conv5@192", "skip")`. A size may follow the kind: `"attention6"`, `"ffn768"`.
        stage_lengths: Number of blocks of each stage; `None` means one stage. Between stages of another width than
            `hidden_size` the states pass through linear projections.

    Raises:
        ValueError: For an unknown operator, an empty chain, stages that do not add up, or two widths in one stage.

    Example:
        >>> config = NasBertConfig(operators=["attention", "ffn"] * 3, hidden_size=128, vocab_size=8192)
        >>> config.num_hidden_layers
        6
    """

    model_type = "nasbert"

    operators: list[str] | tuple[str, ...] = ("attention", "ffn") * 6
    stage_lengths: list[int] | tuple[int, ...] | None = None

    def __post_init__(self, **kwargs):
        # All heads, whichever is being saved: a masked-LM child is loaded as a classifier in the next line of code.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    def _normalize(self):
        super()._normalize()
        self.operators = list(self.operators)
        self.stage_lengths = None if self.stage_lengths is None else list(self.stage_lengths)

    def check(self):
        super().check()
        if not self.operators:
            raise ValueError("operators is empty; expected one operator name per block")
        for block, name in enumerate(self.operators):
            try:
                self.check_operator(name)
            except ValueError as error:
                raise ValueError(f"block {block}: {error}") from None
        self.geometry()

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks, skips included."""
        return len(self.operators)

    def operator_names(self) -> Iterator[str]:
        yield from self.operators

    def geometry(self) -> list[Block]:
        """The blocks one by one: kinds, sizes, widths.

        Raises:
            ValueError: If the stages do not add up, or a stage holds two widths.
        """
        return geometry_of(self, self.operators)


AUTO_MAP = {
    "AutoConfig": "configuration_nasbert.NasBertConfig",
    "AutoModel": "modeling_nasbert.NasBertModel",
    "AutoModelForMaskedLM": "modeling_nasbert.NasBertForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_nasbert.NasBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_nasbert.NasBertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_nasbert.NasBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_nasbert.NasBertForMultipleChoice",
}
"""Where transformers finds every class of a child in the child's own folder."""

__all__ = ["NasBertConfig"]
