"""Files made from text, found again by the content they were made from, and whole whenever they are there."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import datasets

_PATIENCE_SECONDS = 86_400  # a file that is still being written is younger


def cache_folder(cache_dir: str | Path | None, name: str) -> Path:
    """Return (and make) a folder of ours, by default within the cache of the datasets library."""
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "hf_nasbert" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def content_digest(texts: Iterable[str], *settings: object) -> str:
    """Return a fingerprint of texts and of whatever else decides what is made from them."""
    digest = hashlib.sha256(" ".join(map(str, settings)).encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:32]


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears at `path` when it is whole, or not at all if the block raises.

    What a killed process left half written in that folder is deleted after a day.
    """
    for left in path.parent.glob("*.unfinished"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - left.stat().st_mtime > _PATIENCE_SECONDS:
                left.unlink()
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
