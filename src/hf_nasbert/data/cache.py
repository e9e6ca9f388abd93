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


class ContentDigest:
    """A fingerprint of settings and texts, one after the other; no two lists of them share the bytes that are hashed.

    Every piece is preceded by its length, in eight bytes, little-endian: a separator could be part of a text.
    """

    def __init__(self, *settings: object) -> None:
        self._digest = hashlib.sha256()
        for setting in settings:
            self.add(str(setting))

    def add(self, text: str) -> None:
        """One more text."""
        content = text.encode()
        self._digest.update(len(content).to_bytes(8, "little"))
        self._digest.update(content)

    def key(self) -> str:
        """What names the file that is made from all this."""
        return self._digest.hexdigest()[:32]


def content_digest(texts: Iterable[str], *settings: object) -> str:
    """Return a fingerprint of texts and of whatever else, always as many things, decides what is made from them."""
    digest = ContentDigest(*settings)
    for text in texts:
        digest.add(text)
    return digest.key()


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
