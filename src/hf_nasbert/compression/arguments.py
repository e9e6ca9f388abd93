"""What a user may say about an encoder that is to be made smaller: one dataclass, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.costs import Budget, parse_cap
from hf_nasbert.costs.budget import BASE_MODEL
from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.settings import Settings, parse_shape, setting

_CAPS = ("max_latency", "max_parameters", "max_flops", "max_memory")
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
        "Data from an installed PyPI package, without a network: the texts imdb and boolq-wikipedia; the labelled "
        "sets stsb, rotten_tomatoes and boolq.",
    )
    train_file: str | None = setting(
        None,
        "Labelled examples of the task that the base model is fine-tuned on. The same files as for `finetune`: .csv, "
        ".tsv, .json, .jsonl, .parquet, a folder or a pattern.",
    )
    validation_file: str | None = setting(
        None,
        "Labelled examples for validation: without test_file, half of them are the test set. By default, a part of "
        "train_file is held out.",
    )
    test_file: str | None = setting(None, "Labelled examples for the test: no decision is made on them.")
    task: str | None = setting(None, "A GLUE task from the Hub as labelled examples, such as sst2 or stsb.")
    label_column: str = setting("label", "Column of the labels in these files.")
    text_columns: list[str] | None = setting(None, "One or two text columns of these files. Found if not given.")
    tokenizer_name: str | None = setting(
        None,
        "Hub name or folder of a tokenizer to use in place of the base model's own. Its vocabulary must be the same.",
    )
    validation_fraction: float = setting(
        0.05,
        "Share of the documents, or examples, held out for validation. The test takes as large a share.",
        above=0,
        below=1,
    )
    data_seed: int = setting(0, "Seed of this split and of the draw of sentences.", at_least=0)
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
    the same timing run.

    Raises:
        ValueError: If there is no budget or two kinds of it, or a number lies outside its range.
    """

    base_model: str = field(
        metadata={
            "help": "The encoder to make smaller: a folder, a name on the Hub, or packaged:all-MiniLM-L6-v2, which "
            "needs no network. Transformers and SentenceTransformer models both work; the model is only read."
        }
    )
    output_dir: str = field(
        metadata={"help": "Folder for the smaller model. With several budgets, each gets a folder inside."}
    )
    max_latency: float | str | None = setting(
        None,
        "Budget: milliseconds for a batch of latency_shape, such as 12.5ms, or a share of the base model's, such as "
        "0.5x.",
    )
    max_parameters: int | str | None = setting(
        None, "Budget: parameters of the encoder without its embeddings, such as 5M, or a share such as 0.5x."
    )
    max_flops: int | str | None = setting(
        None, "Budget: FLOPs of one sequence, such as 2.5G, or a share such as 0.5x."
    )
    max_memory: int | str | None = setting(
        None, "Budget: peak bytes of activations of one sequence, such as 64M, or a share such as 0.5x."
    )
    budgets: list[str] | None = setting(
        None, "Several budgets at once, such as 0.75x 0.5x 0.25x: one smaller model for each."
    )
    cost: Literal["num_parameters", "latency_ms", "flops"] = setting("num_parameters", "The cost that budgets limit.")
    heads: list[int] | None = setting(
        None, "Numbers of heads to try for an attention. By default three quarters, a half and a quarter of them."
    )
    ffn: list[int] | None = setting(
        None, "Widths to try for a feed-forward. By default six, from three quarters to an eighth of it."
    )
    kernels: list[int] = setting(list, "Kernel sizes of convolutions to try in place of an attention: 3, 5, 7.")
    skip: bool = setting(True, "Try leaving out blocks and whole layers too.")
    warmup_steps: int = setting(
        0,
        "Steps to train every variant of a block on the base model's states, after it was fitted by least squares. "
        "Useful for convolutions and deep cuts. 0: none.",
        at_least=0,
    )
    max_replace_one_loss: float = setting(
        0.3, "Drop a variant from the search if replacing one block by it alone costs more distance than this."
    )
    additivity: int = setting(
        0,
        "Random children to measure, to see how well the sum of single-block losses predicts a child's distance. "
        "0: none.",
        at_least=0,
    )
    scorer: Literal["additive", "inherited", "supernet"] = setting(
        "inherited",
        "How the best candidates are scored: by the sum of single-block losses (additive), by the child's loss with "
        "inherited weights (inherited), or by its loss in a super-net that is trained first (supernet).",
    )
    num_rescored: int = setting(24, "How many of the best candidates are scored so.", at_least=1)
    rank_by: Literal["metric", "distance"] = setting(
        "metric",
        "With labelled examples: rank children by the task's metric on the validation set (ties by distance from the "
        "base model), or by that distance alone.",
    )
    label_weight: float = setting(
        0.5, "With labelled examples: weight of the labels' cross-entropy beside distillation. 0: none.", at_least=0
    )
    supernet_method: Literal["uniform", "magic_t"] = setting(
        "uniform",
        "How the super-net of scorer=supernet is trained: each step on another random child (uniform), or on one that "
        "differs from the last in one operator (magic_t).",
    )
    supernet_steps: int = setting(200, "Steps of that super-net's training.", at_least=1)
    recovery_steps: int = setting(400, "Distillation steps for each chosen child.", at_least=1)
    learning_rate: float = setting(4e-4, "Peak learning rate of distillation.", above=0)
    patience: int = setting(
        0,
        "Stop distillation after so many validations in a row without progress; there is one every 25 steps, and the "
        "best weights are kept. 0: run all steps.",
        at_least=0,
    )
    batch_size: int = setting(32, "Sentences of a batch.", at_least=1)
    max_seq_length: int | None = setting(
        None,
        "Most tokens of a sentence or example; longer ones are cut. By default 20 for text, as short sentences teach "
        "most in the same time, and 128 for labelled examples.",
        at_least=4,
    )
    num_sentences: int = setting(8000, "Train on at most this many sentences or examples.", at_least=1)
    varied_sentences: bool = setting(
        True, "Draw six times as many sentences, and train on those that together hold the most of the vocabulary."
    )
    pairs_file: str | None = setting(
        None,
        "Sentence pairs to evaluate on by Spearman's correlation. A file with columns sentence1, sentence2 and score, "
        "or packaged:stsb (its test split).",
    )
    latency_shape: str = setting("32x128", "Batch for measuring latency: sequences x tokens.")
    seeds: list[int] = setting(lambda: [0], "Distillation seeds: each child is distilled once per seed.")
    handmade: bool = setting(True, "Also distil hand-chosen halves to compare with. This takes most of the time.")
    bf16: Literal["auto", "yes", "no"] = setting(
        "auto", "Compute in bfloat16. auto: if that is faster on this machine."
    )
    trim_vocabulary: bool = setting(
        False,
        "Keep only the tokens that occur in your text, and single letters. Tokenizer and embeddings shrink together.",
    )
    min_piece_count: int = setting(1, "With trim_vocabulary: keep tokens that occur at least this often.", at_least=1)
    onnx: bool = setting(False, "Also write onnx/model.onnx, if its outputs equal the model's.")
    int8: bool = setting(False, "Also write an int8 ONNX file, if it keeps the model's vectors or predictions.")
    trust_remote_code: bool = setting(False, "Run code that comes with the base model or its tokenizer.")
    revision: str | None = setting(None, "Branch, tag or commit of the base model.")
    base_model_id: str | None = setting(
        None, "The base model's name on the Hub, for the card, if base_model is a folder."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_replace_one_loss >= 0:
            raise ValueError(f"max_replace_one_loss={self.max_replace_one_loss} must not be negative")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds={self.seeds} must be one or more different numbers, none below 0")
        _ = self.shape
        self.onnx = self.onnx or self.int8
        _ = self.wanted
        self._check_used()

    def _check_used(self) -> None:
        """Refuse settings that change nothing beside the others: whoever gave one expects what it would do."""
        for name, other in (("cost", "budgets"), ("min_piece_count", "trim_vocabulary")):
            if not getattr(self, other) and getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"{name}={getattr(self, name)} changes nothing without {other}: give both, or leave {name} out"
                )

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
                f"({', '.join(f'--{name}' for name in _CAPS)}), or several budgets of one cost "
                "(--budgets 0.75x 0.5x --cost num_parameters)"
            )
        if given:
            return {" ".join(f"{name}={cap}" for name, cap in given.items()): Budget.parse(**given)}
        budgets = [budget.strip() for budget in self.budgets or ()]
        is_latency = self.cost == "latency_ms"
        caps = [parse_cap("budgets", one, is_latency=is_latency, share_of=BASE_MODEL) for one in budgets]
        parsed = [Budget(**{_CAP_OF[self.cost]: cap}) for cap in caps]
        twice = [name for number, name in enumerate(budgets) if parsed[number] in parsed[:number]]
        if twice:
            raise ValueError(f"budgets has {twice[0]} twice: name each once")
        return dict(zip(budgets, parsed, strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences and tokens of the batch that latency is measured on."""
        return parse_shape("latency_shape", self.latency_shape)
