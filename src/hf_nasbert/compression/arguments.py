"""What a user may say about an encoder that is to be made smaller: one dataclass, without torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.costs import Budget, Share, parse_cap
from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.settings import Settings, setting

_SHAPE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_CAPS = {
    "max_latency": "max_latency_ms",
    "max_parameters": "max_parameters",
    "max_flops": "max_flops",
    "max_memory": "max_memory",
}
_CAP_OF = {"latency_ms": "max_latency_ms", "num_parameters": "max_parameters", "flops": "max_flops"}


@dataclass(kw_only=True)
class CompressDataArguments(DataArguments):
    """Text, or labelled examples, like what the smaller model will read: exactly one source is given.

    What `DataArguments` say of a tokenizer that is trained, of masks and of packing is no setting here.

    Raises:
        ValueError: If no source or more than one is given, or a setting goes with another source.
    """

    alternatives: ClassVar[tuple[str, ...]] = (*DataArguments.alternatives, "train_file", "task")

    packaged: str | None = setting(
        None,
        "Data inside an installed PyPI wheel, needing no network: the texts imdb, boolq-wikipedia; "
        "labelled stsb, rotten_tomatoes, boolq.",
    )
    train_file: str | None = setting(
        None,
        "Labelled examples of the task that the base model is fine-tuned on, as `finetune` reads them: "
        ".csv, .tsv, .json, .jsonl, .parquet, a folder or a pattern.",
    )
    validation_file: str | None = setting(
        None, "The same, to choose by; without test_file one half of it judges. By default held out."
    )
    test_file: str | None = setting(None, "The same, to judge by; it chooses nothing.")
    task: str | None = setting(None, "A GLUE task from the Hub as labelled examples, such as sst2 or stsb.")
    label_column: str = setting("label", "Column of the labels in these files.")
    text_columns: list[str] | None = setting(None, "One or two text columns of them; found if not given.")
    tokenizer_name: str | None = setting(
        None, "Hub name or folder of a tokenizer in place of the base model's own, with its vocabulary."
    )
    validation_fraction: float = setting(
        0.05, "Share of the documents, or examples, that choose, and as large a share that judge.", above=0, below=1
    )
    data_seed: int = setting(0, "Seed of these shares, and of the sentences that are drawn.", at_least=0)
    vocab_size: int = field(default=8192, init=False, repr=False)
    do_lower_case: bool = field(default=True, init=False, repr=False)
    strip_accents: bool | None = field(default=None, init=False, repr=False)
    mlm_probability: float = field(default=0.15, init=False, repr=False)
    whole_word_mask: bool = field(default=False, init=False, repr=False)
    preprocessing_num_workers: int | None = field(default=None, init=False, repr=False)
    language: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_seq_length is None:  # the command fills it with the other dataclass's
            self.max_seq_length = 128
        super().__post_init__()
        for name in ("validation_file", "test_file"):
            if getattr(self, name) and not self.train_file:
                raise ValueError(f"{name} goes with train_file, the labelled examples to train on")

    def describe_labelled(self) -> dict[str, Any]:
        """What a folder's settings say of labelled examples: never where they lie."""
        files = {name: getattr(self, name) for name in ("train_file", "validation_file", "test_file")}
        return {
            "source": str(self.task or self.packaged or Path(str(self.train_file)).name),
            **{name: Path(file).name for name, file in files.items() if file},
            **{name: getattr(self, name) for name in ("label_column", "text_columns", "validation_fraction")},
            "data_seed": self.data_seed,
        }


@dataclass(kw_only=True)
class CompressArguments(Settings):
    """Which encoder to make smaller, how much, from which variants, and how long to train what is chosen.

    The budget is one or more caps, or a list of budgets of one cost. Parameters are those of the encoder's blocks:
    embeddings and head stay as they are. A cap such as `0.5x` is a share of the base model's own cost, measured in
    the same sitting.

    Raises:
        ValueError: If there is no budget or two kinds of it, or a number lies outside its range.
    """

    base_model: str = field(
        metadata={
            "help": "The encoder, only read: a folder or a name on the Hub, a SentenceTransformer too; or "
            "packaged:all-MiniLM-L6-v2."
        }
    )
    output_dir: str = field(
        metadata={"help": "Folder of the smaller model; of several budgets, one folder in it each."}
    )
    max_latency: float | str | None = setting(
        None, "Budget: milliseconds of a batch of latency_shape, or a share such as 0.5x."
    )
    max_parameters: int | str | None = setting(
        None, "Budget of the blocks' parameters, embeddings not counted: 5M, or 0.5x."
    )
    max_flops: int | str | None = setting(None, "Budget of FLOPs for one sequence, or 0.5x.")
    max_memory: int | str | None = setting(None, "Budget of bytes that activations take at most, or 0.5x.")
    budgets: list[str] | None = setting(
        None, "Several budgets of one cost, such as 0.75x 0.5x 0.25x: a family in one run."
    )
    cost: Literal["num_parameters", "latency_ms", "flops"] = setting("num_parameters", "The cost that budgets are of.")
    heads: list[int] | None = setting(
        None, "Numbers of heads that an attention may keep; by default three quarters, a half and a quarter."
    )
    ffn: list[int] | None = setting(
        None, "Neurons that a feed-forward may keep; by default six widths from three quarters to an eighth."
    )
    kernels: list[int] = setting(list, "Sizes of convolutions that may stand for an attention: 3, 5, 7.")
    skip: bool = setting(True, "Whether blocks, and whole layers, may be left out.")
    warmup_steps: int = setting(
        0,
        "Steps that all variants of a block are trained for behind the least squares, each alone and side "
        "by side, on the base model's states there; for convolutions and deep cuts. 0: none.",
        at_least=0,
    )
    max_replace_one_loss: float = setting(
        0.3, "Variants whose lone replacement costs more leave the space before a super-net is trained."
    )
    additivity: int = setting(
        0,
        "Random children, of the whole space and of the screened one, that say how well sums of lone "
        "replacements foretell real distances; 0: none.",
        at_least=0,
    )
    scorer: Literal["additive", "inherited", "supernet"] = setting(
        "inherited",
        "What chooses among the best sums of lone replacements: the sums (additive), the loss with "
        "inherited weights, or that in a super-net distilled first (supernet).",
    )
    num_rescored: int = setting(24, "How many of the best sums are scored again.", at_least=1)
    rank_by: Literal["metric", "distance"] = setting(
        "metric",
        "Of labelled examples: whether the task's metric ranks children on the part that chooses, ties "
        "broken by their distance from the base model, or that distance alone.",
    )
    label_weight: float = setting(
        0.5, "Of labelled examples: weight of the labels' cross-entropy beside distillation; 0: none.", at_least=0
    )
    supernet_method: Literal["uniform", "magic_t"] = setting(
        "uniform",
        "How that super-net is trained: each step on another random child, or on one that differs from "
        "the last in one operator (magic_t).",
    )
    supernet_steps: int = setting(200, "Steps of that super-net's training.", at_least=1)
    recovery_steps: int = setting(400, "Steps that each chosen child is distilled for.", at_least=1)
    learning_rate: float = setting(4e-4, "The highest one of recovery.", above=0)
    patience: int = setting(
        0,
        "Recovery looks at the text that chooses every 25 steps, and stops after so many looks in a row "
        "that brought nothing; the best weights are kept. 0: all steps.",
        at_least=0,
    )
    batch_size: int = setting(32, "Sentences of a batch.", at_least=1)
    max_seq_length: int | None = setting(
        None,
        "Tokens of a sentence, by default 20, since short ones teach most in the same time; of an example "
        "128. Longer ones come last, and are cut.",
        at_least=4,
    )
    num_sentences: int = setting(8000, "Most sentences, or examples, to train on.", at_least=1)
    varied_sentences: bool = setting(
        True, "Draw six times as many sentences, and train on those with the most different pieces."
    )
    pairs_file: str | None = setting(
        None,
        "Pairs to prove by: a file with columns sentence1, sentence2 and score, or packaged:stsb (its "
        "test split); Spearman's correlation is told.",
    )
    latency_shape: str = setting(
        "32x128", "Batch that latency is measured on: sequences x tokens; and of one sequence."
    )
    seeds: list[int] = setting(lambda: [0], "Seeds of recovery: each child is distilled once under each.")
    handmade: bool = setting(
        True, "Whether to recover what people choose by hand beside it: the proof, and most of the time."
    )
    bf16: Literal["auto", "yes", "no"] = setting(
        "auto", "Products in bfloat16; auto: where they are faster here, by the clock."
    )
    trim_vocabulary: bool = setting(
        False,
        "Keep only those pieces of the vocabulary that occur in the text, and letters; tokenizer and "
        "embeddings shrink together.",
    )
    min_piece_count: int = setting(
        1, "With trim_vocabulary: how often a piece must occur in the text to stay.", at_least=1
    )
    onnx: bool = setting(False, "Write onnx/model.onnx beside the model as well, where its outputs are the model's.")
    int8: bool = setting(False, "Write that and its int8 version, where it keeps the model's vectors or predictions.")
    trust_remote_code: bool = setting(False, "Run code that the base model or its tokenizer brings.")
    revision: str | None = setting(None, "Branch, tag or commit of the base model.")
    base_model_id: str | None = setting(
        None, "The base model's name on the Hub, for the card, where base_model is a folder."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_replace_one_loss >= 0:
            raise ValueError(f"max_replace_one_loss={self.max_replace_one_loss} must not be negative")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds={self.seeds} must be one or more different numbers, none below 0")
        if _SHAPE.fullmatch(self.latency_shape) is None:
            raise ValueError(f"latency_shape={self.latency_shape!r}: expected sequences x tokens, such as 32x128")
        self.onnx = self.onnx or self.int8
        _ = self.wanted

    @property
    def wanted(self) -> dict[str, Budget]:
        """The budgets by their names, in the order given: `0.5x`, or `max_latency=0.5x` of caps.

        Raises:
            ValueError: If there is none, a cap is no quantity, or one is given twice.
        """
        given = {name: getattr(self, name) for name in _CAPS if getattr(self, name) is not None}
        if bool(given) == bool(self.budgets):
            raise ValueError(
                f"one kind of budget is needed, got {', '.join([*given, 'budgets']) if given else 'none'}: give caps "
                f"({', '.join(_CAPS)}), or budgets of one cost"
            )
        if given:
            caps = {_CAPS[name]: _cap(name, cap) for name, cap in given.items()}
            return {" ".join(f"{name}={cap}" for name, cap in given.items()): Budget(**caps)}
        budgets = [budget.strip() for budget in self.budgets or ()]
        parsed = [Budget(**{_CAP_OF[self.cost]: _cap("budgets", budget)}) for budget in budgets]
        twice = [name for number, name in enumerate(budgets) if parsed[number] in parsed[:number]]
        if twice:
            raise ValueError(f"budgets has {twice[0]} twice: name each once")
        return dict(zip(budgets, parsed, strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences and tokens of the batch that latency is measured on."""
        found = _SHAPE.fullmatch(self.latency_shape)
        assert found is not None
        return int(found[1]), int(found[2])


def _cap(setting: str, cap: float | str) -> float | Share:
    """What a user wrote as a cap.

    Raises:
        ValueError: If it is none; names the setting.
    """
    try:
        value = parse_cap(str(cap))
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None
    if value == 0:
        raise ValueError(f"{setting}={cap} must be above 0")
    return value
