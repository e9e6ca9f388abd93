"""Text that is there in Python already: the settings of text, and the documents themselves."""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_nasbert.data.arguments import DataArguments


@dataclass(kw_only=True)
class GivenTexts(DataArguments):
    """Documents in a column "text", which no file holds; `train_files` is what records call them.

    Args:
        documents: To train on, and to hold a share out of, if `held_out` is not given; or else none.
        held_out: To hold out, all of them.
        given_as: What records call them.
    """

    documents: Dataset | None
    held_out: Dataset | None = None
    given_as: str = "texts given in Python"

    @property
    def is_given(self) -> bool:
        """Whether it is still these documents that are asked for, not those of another source put in their place."""
        return self.train_files == [self.given_as]

    def describe_split(self) -> dict[str, Any]:
        """As of other text; of documents of which none is held out, the share is zero."""
        said = super().describe_split()
        return said if self.held_out is None else {**said, "validation_fraction": 0.0}
