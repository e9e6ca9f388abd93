"""Files beside a model that say which text it was trained on: one that travels with it, one that stays here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nasbert.foreign import read_object
from hf_nasbert.writing import write_text

TRAINED_ON = "trained_on.json"
TEXT_FILES = "text_files.json"
"""Where the files of the text lie on this machine: never pushed, and no part of a card."""
MASKING = ("mlm_probability", "whole_word_mask")


def write_trained_on(folder: str | Path, text: Mapping[str, Any], batches: Mapping[str, Any]) -> Path:
    """Write what is to be known of a model's text.

    Args:
        folder: The model's folder.
        text: What `DataArguments.describe` says.
        batches: What `MaskedBatches.describe` says; the length of sequences and the masking are kept of it.

    Returns:
        The file.
    """
    kept = {name: batches[name] for name in ("sequence_length", *MASKING) if name in batches}
    file = Path(folder) / TRAINED_ON
    write_text(file, json.dumps({"text": dict(text), "data": kept}, indent=2) + "\n")
    return file


def write_text_files(folder: str | Path, train_files: Sequence[str] | None) -> None:
    """Note where a model's text lies on this machine, if it is files, so that the next command finds it."""
    if train_files:
        note = {
            "folder": str(Path(folder).resolve()),
            "train_files": [str(Path(file).absolute()) for file in train_files],
        }
        write_text(Path(folder) / TEXT_FILES, json.dumps(note, indent=2) + "\n")


def read_text_files(folder: str | Path) -> list[str] | None:
    """The files, folders or patterns of a model's text, as far as they are noted; None if they are not.

    A note that was written for another place is passed over: a folder from elsewhere must not choose what is read.

    Raises:
        ValueError: If the note is damaged.
    """
    file = Path(folder) / TEXT_FILES
    if not file.is_file():
        return None
    note = read_object(file)
    if note.get("folder") != str(Path(folder).resolve()):
        return None
    places = note.get("train_files")
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise ValueError(f"{file}: expected a list of files as train_files; delete it, and name them (--train_files)")
    return places or None
