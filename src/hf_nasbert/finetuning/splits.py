"""Splits of a task's data: train, validation and maybe test; which there are, what they are called, their digest."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

logger = logging.getLogger(__name__)

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


def keys_of(rows: Dataset, columns: Sequence[str]) -> list[bytes]:
    """What examples of equal texts have in common, case and spaces aside; lists count as their texts joined."""
    values = [rows[column][:] for column in columns]
    texts = ([" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in column] for column in values)
    folded = ("\n".join(" ".join(text.lower().split()) for text in example) for example in zip(*texts, strict=True))
    return [example.encode() for example in folded]


def hold_out(
    name: str, rows: Dataset, keys: Sequence[bytes], share: float, seed: int, fewest: int = 1
) -> tuple[Dataset, Dataset]:
    """The rest, and the share of the different examples that is held out.

    The seed puts the different examples into an order, and the first ones are held out: a smaller share of one seed
    lies within a larger one.

    Args:
        name: Names the data in errors.
        rows: The examples.
        keys: What each is about: those of one key stay together.
        share: Of the different keys.
        seed: Another one holds others out.
        fewest: Different examples to hold out at least.

    Raises:
        ValueError: If no different example is left beside the fewest.
    """
    place_of = {key: hashlib.blake2b(key, digest_size=8, key=str(seed).encode()).digest() for key in keys}
    if len(place_of) <= fewest:
        raise ValueError(
            f"{name}: {len(rows)} example(s) with {len(place_of)} different text(s) are too few to hold any out: "
            "give more"
        )
    last = sorted(place_of.values())[min(max(fewest, round(share * len(place_of))), len(place_of) - 1) - 1]
    held = [place_of[key] <= last for key in keys]
    return (
        rows.select([row for row, is_held in enumerate(held) if not is_held]),
        rows.select([row for row, is_held in enumerate(held) if is_held]),
    )


def with_validation(
    name: str, splits: Mapping[str, Dataset], columns: Sequence[str], share: float, seed: int
) -> dict[str, Dataset]:
    """The splits, and a part of `train` held out for validation where there is none, reported in one line.

    Args:
        name: Names the data.
        splits: Those that there are.
        columns: What examples are told apart by; where `train` lacks one, nothing is held out.
        share: Of the different examples.
        seed: Another one holds others out.

    Raises:
        ValueError: If there are too few examples.
    """
    if "validation" in splits or not set(columns) <= set(splits["train"].column_names):
        return dict(splits)
    rows = splits["train"]
    rest, held = hold_out(name, rows, keys_of(rows, columns), share, seed)
    logger.warning(
        "%s: no validation_file, so %d of %d examples are held out (validation_fraction=%g)",
        name, len(held), len(rows), share,
    )  # fmt: skip
    return {**splits, "train": rest, "validation": held}


def digest_splits(splits: Mapping[str, Dataset], *about: Any) -> str:
    """A hash of all rows and of what is stated about them, to tell whether a finished run saw this very data."""
    hashed = hashlib.sha256("".join(map(json.dumps, about)).encode())
    for name, rows in splits.items():
        hashed.update(name.encode())
        for batch in rows.iter(batch_size=1000):
            hashed.update(json.dumps(batch).encode())
    return hashed.hexdigest()
