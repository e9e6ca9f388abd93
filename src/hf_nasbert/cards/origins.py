"""What a card says of where a model comes from: its title, the data sets on the Hub, a sentence to try it on."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nasbert.cards.fields import is_hub_id

_MOST_WORDS = 16


def datasets_of(text: Mapping[str, Any]) -> tuple[str, ...]:
    """The names on the Hub of the text that a model was trained on; none of what lies on this machine.

    Args:
        text: The settings of the text, by their names (`DataArguments`).
    """
    name = text.get("dataset_name")
    is_on_hub = isinstance(name, str) and is_hub_id(name) and not Path(name).exists()
    return (str(name),) if is_on_hub else ()


def title_of(num_parameters: int, text: Mapping[str, Any]) -> str:
    """A title that says what a model is: its size, and the text it knows, where that has a name."""
    size = f"{num_parameters / 1e6:.1f} M" if num_parameters >= 1e5 else f"{num_parameters:,}"
    known = next(iter(datasets_of(text)), None) or text.get("packaged")
    return f"A small encoder of {size} parameters" + (f" for text like {known}" if known else "")


def sentence_of(sentences: Sequence[str], fits: Callable[[str], bool] = lambda _: True) -> str | None:
    """A sentence to try a model on: the first short one, or the first words of the first; None of no words that fit.

    What it is taken from goes to whoever reads the card: only text that everybody may read is given here.

    Args:
        sentences: What it is taken from.
        fits: Whether a text is short enough for the model.
    """
    texts = [" ".join(sentence.split()) for sentence in sentences]
    texts = [text for text in texts if re.search(r"\w", text)]
    if not texts:
        return None
    short = next((text for text in texts if 3 <= len(text.split()) <= _MOST_WORDS and fits(text)), None)
    words = texts[0].split()[:_MOST_WORDS]
    starts = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return short or next((start for start in starts if fits(start)), None)
