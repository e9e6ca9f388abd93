"""Files made from text, found again by the content they were made from, and whole whenever they are there."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import datasets


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
