"""Where the text of a compression comes from, and how it is held out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_nasbert.data import DataArguments, load_text
from hf_nasbert.data.files import no_column


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Where text comes from, and how it is held out.

    Args:
        load: Documents in a column "text".
        told: What a folder's settings say of it.
        held_out: Share of the documents to choose by, and to judge by.
        seed: Of that share.
        tokenizer_name: A tokenizer in place of the base model's own.
        tokenizer_revision: Its commit or tag.
    """

    load: Callable[[], Dataset]
    told: Mapping[str, Any]
    held_out: float = 0.05
    seed: int = 0
    tokenizer_name: str | None = None
    tokenizer_revision: str | None = None

    @classmethod
    def of(cls, texts: Dataset | Iterable[str] | DataArguments | str | Path) -> "TextSource":
        """The source of what a user gives as text.

        Raises:
            ValueError: If a data set has no column "text", or there is no text.
        """
        if isinstance(texts, str | Path):
            texts = DataArguments(train_files=[str(texts)])
        if isinstance(texts, DataArguments):
            return cls(
                partial(load_text, texts),
                texts.describe() | {"tokenizer_name": texts.tokenizer_name},
                texts.validation_fraction,
                texts.data_seed,
                texts.tokenizer_name,
                texts.tokenizer_revision,
            )
        if not isinstance(texts, Dataset):
            texts = Dataset.from_dict({"text": [text for text in texts if text and not text.isspace()]})
        if "text" not in texts.column_names:
            raise no_column("the data set", "text", texts.column_names)
        if len(texts) == 0:
            raise ValueError("there is no text: give documents like those that the smaller model will read")
        return cls(lambda: texts, {"source": "given in Python", "num_documents": len(texts)})
