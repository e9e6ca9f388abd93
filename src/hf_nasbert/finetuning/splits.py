"""Splits of a task's data: train, validation and maybe test; which there are, what they are called, their digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

LIST_KINDS = (".json", ".jsonl", ".parquet")  # the files whose rows can hold lists


def split_files(train: str, validation: str | None, test: str | None) -> dict[str, str]:
    """The file of every split that there is."""
    files = {"train": train, "validation": validation, "test": test}
    return {split: file for split, file in files.items() if file is not None}


def name_of(train: str) -> str:
    """What results on a file are called: by its name, or by its folder's if it is called train."""
    path = Path(train).resolve()
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return path.parent.name if path.stem == "train" else path.stem


def take_splits(
    name: str, splits: Mapping[str, Dataset], validation_splits: Sequence[str] = ("validation",)
) -> dict[str, Dataset]:
    """The splits that are of use: `train`, those of validation and, where there is one, `test`.

    Args:
        name: Names the data in errors.
        splits: All that were found.
        validation_splits: Names of those that must be there beside `train`.

    Raises:
        ValueError: If one is missing or empty.
    """
    for split in ("train", *validation_splits):
        if split not in splits:
            raise ValueError(f"{name}: there is no {split!r} split, only {', '.join(splits)}")
    used = {split: splits[split] for split in ("train", *validation_splits, "test") if split in splits}
    for split, rows in used.items():
        if len(rows) == 0:
            raise ValueError(f"{name}: the {split} split is empty")
    return used


def digest_splits(splits: Mapping[str, Dataset], *about: Any) -> str:
    """A hash of all rows and of what is told about them, to tell whether a finished run saw this very data."""
    hashed = hashlib.sha256("".join(map(json.dumps, about)).encode())
    for name, rows in splits.items():
        hashed.update(name.encode())
        for batch in rows.iter(batch_size=1000):
            hashed.update(json.dumps(batch).encode())
    return hashed.hexdigest()
