"""What a user may say about text, tokenizer and masking: one dataclass, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.paths import expand_paths


@dataclass
class DataArguments:
    """Which text to train on, how to cut it into tokens and sequences, and how to mask it.

    Exactly one source is given: `dataset_name`, `train_files` or `packaged`.

    Raises:
        ValueError: If no source or more than one is given, or a number lies outside its range.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("dataset_name", "train_files", "packaged")

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A dataset of the Hub, e.g. Salesforce/wikitext, or a folder that `save_to_disk` wrote."},
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of that dataset, e.g. wikitext-103-raw-v1."}
    )
    dataset_split: str = field(
        default="train", metadata={"help": "Split of that dataset, slices such as train[:1%%] too."}
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "Commit or tag that pins that dataset."})
    train_files: list[str] | None = field(
        default=None,
        metadata={
            "help": "Local text files, folders of such files or patterns: .txt, .csv, .tsv, .json, .jsonl, .parquet, "
            "each also with .gz."
        },
    )
    packaged: str | None = field(
        default=None,
        metadata={"help": "Text inside an installed PyPI wheel, needing no network: imdb, boolq-wikipedia."},
    )
    language: str | None = field(
        default=None,
        metadata={"help": "Language code of the text, such as en: what cards of `run` say, nothing else."},
    )
    text_column: str = field(default="text", metadata={"help": "The column that holds the text."})
    sample_by: Literal["line", "paragraph", "document"] = field(
        default="line", metadata={"help": "What one document of a .txt file is; paragraphs end at an empty line."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub name or folder of a tokenizer; without it the model's own, or where there is none yet, one "
            "trained on the text."
        },
    )
    tokenizer_revision: str | None = field(default=None, metadata={"help": "Commit or tag that pins that tokenizer."})
    vocab_size: int = field(default=8192, metadata={"help": "Most tokens of a tokenizer trained here."})
    do_lower_case: bool = field(default=True, metadata={"help": "Fold case in a tokenizer trained here."})
    strip_accents: bool | None = field(
        default=None,
        metadata={
            "help": "Strip accents of Latin and Greek letters in a tokenizer trained here; by default with case."
        },
    )
    max_seq_length: int = field(default=128, metadata={"help": "Tokens of every packed sequence, [CLS] included."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of the tokens to predict."})
    whole_word_mask: bool = field(default=False, metadata={"help": "Mask all pieces of a word or none."})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "Share of the distinct documents held out as the dev set."}
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise the text."})
    data_seed: int = field(
        default=0,
        metadata={"help": "Seed of the dev split and its masks; of order and masks too where training has no seed."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of the Arrow files; by default the cache of the datasets library."}
    )

    def __post_init__(self) -> None:
        expand_paths(self)
        sources = {name: getattr(self, name) for name in self.alternatives}
        given = [f"{name}={value!r}" for name, value in sources.items() if value]
        if len(given) != 1:
            raise ValueError(
                f"exactly one text source is needed, got {' and '.join(given) or 'none'}: "
                f"give one of {', '.join(sources)}"
            )
        if isinstance(self.train_files, str):  # a single name, in Python
            self.train_files = [self.train_files]
        if not 0 < self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability={self.mlm_probability} must lie in (0, 1]")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} must lie in (0, 1)")
        if self.max_seq_length < 4:
            raise ValueError(f"max_seq_length={self.max_seq_length} leaves no room for text: 4 is the least")
        if self.data_seed < 0:
            raise ValueError(f"data_seed={self.data_seed} must not be negative")

    @property
    def source(self) -> str:
        """How records name the text: never by a folder of this machine."""
        if self.train_files:
            return ", ".join(Path(file).name for file in self.train_files)
        return str(self.packaged or self.dataset_name)

    def describe(self) -> dict[str, Any]:
        """What a model's folder says of the text it was trained on: where it is from, and what was held out of it."""
        names = ("packaged", "dataset_name", "dataset_config", "dataset_revision", "language")
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**self.describe_split(), **said}

    def describe_split(self) -> dict[str, Any]:
        """What decides which part of the text is held out from training."""
        names = ("sample_by", "text_column", "dataset_split", "validation_fraction", "data_seed")
        return {"source": self.source, **{name: getattr(self, name) for name in names}}
