"""What a stage has made so far, in a JSON file beside what it was asked: a later call goes on where one was killed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from hf_nasbert.foreign import printable, read_object
from hf_nasbert.writing import write_text

_Made = TypeVar("_Made")


class Kept:
    """Results by name, plain JSON, each written as soon as it is made.

    Args:
        path: The file; None keeps nothing.
        asked: All that the results depend on, plain JSON.

    Raises:
        ValueError: If the file holds what something else was asked for: names the first difference.
    """

    def __init__(self, path: str | Path | None, asked: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self._asked = json.loads(json.dumps(asked))
        self._made: dict[str, Any] = {}
        if self.path is None or not self.path.exists():
            return
        found = read_object(self.path)
        difference = first_difference(found.get("asked"), self._asked)
        if difference is not None or not isinstance(found.get("made"), dict):
            raise ValueError(
                f"{self.path} holds the results of another call ({difference or 'no results'}): name another folder, "
                "or delete that file"
            )
        self._made = found["made"]

    def get(self, name: str, make: Callable[[], _Made]) -> _Made:
        """A result: taken up where it is there, else made and written."""
        if name not in self._made:
            made = make()
            self._made[name] = json.loads(json.dumps(made, allow_nan=False))  # as a later call will read it
            if self.path is not None:
                write_json(self.path, {"asked": self._asked, "made": self._made})
        found: _Made = self._made[name]
        return found


def weights_digest(weights: nn.Module | Mapping[str, torch.Tensor]) -> str:
    """A fingerprint of weights, a model's or by name, and of their names."""
    content = hashlib.sha256()
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    for name, tensor in sorted(state.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())  # not copied
    return content.hexdigest()[:16]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain JSON types; floats come back to the last bit."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def first_difference(saved: Any, current: Any, name: str = "") -> str | None:
    """Words for the first place where two pieces of plain JSON differ, or `None`."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in [*saved, *(key for key in current if key not in saved)]:
            found = first_difference(saved.get(key), current.get(key), f"{name}.{key}" if name else str(key))
            if found is not None:
                return found
        return None
    if isinstance(saved, list | tuple) and isinstance(current, list | tuple) and len(saved) == len(current):
        for index, (one, other) in enumerate(zip(saved, current, strict=True)):
            found = first_difference(one, other, f"{name}[{index}]")
            if found is not None:
                return found
        return None
    return None if saved == current else f"{name} was {printable(saved, 200)}, and is {printable(current, 200)} here"
