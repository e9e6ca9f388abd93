"""What a card says of where a model comes from: its title, the data sets on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_nasbert.cards.fields import is_hub_id


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
