"""What no push may publish without being asked: tokens of the Hub, and texts of the user's own."""

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import get_token

from hf_nasbert.cards import quoted_texts, read_card, without_quotes
from hf_nasbert.cards.quotes import MARK
from hf_nasbert.foreign import ForeignFileError, read_object

Content = Path | bytes

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")


def bytes_of(content: Content) -> bytes:
    """Its bytes."""
    return content if isinstance(content, bytes) else content.read_bytes()


def without_texts(files: Mapping[str, Content], source: str) -> dict[str, Content]:
    """The same files without the user's own texts that the card, and the record that it was made from, quote.

    Args:
        files: What a push would send, by name.
        source: What messages call the folder.

    Raises:
        ForeignFileError: If card.json is damaged.
        ValueError: If the card quotes a text in a line that somebody changed.
    """
    files = dict(files)
    if "README.md" in files:
        card = read_card(files["README.md"], f"{source}: README.md")
        if quoted_texts(card):
            card = without_quotes(card)
            files["README.md"] = card.encode()
        if MARK in card:
            raise ValueError(
                f"{source}/README.md quotes your own text in a line that was changed by hand, so it cannot be "
                f"replaced: delete the line that ends with {MARK!r}, or publish it (--quote_text)"
            )
    if "card.json" in files:
        record = read_object(files["card.json"], f"{source}/card.json")
        if record.get("is_example_private"):
            record |= {"example": [], "is_example_private": False}
            files["card.json"] = (json.dumps(record, indent=2) + "\n").encode()
    return files


def refuse_tokens(files: Mapping[str, Content]) -> None:
    """What is published is read by strangers: no file may hold a token, neither the present one nor any other."""
    token = get_token()
    for name, content in files.items():
        if name.endswith((".safetensors", ".png", ".jpg")):
            continue
        data = bytes_of(content)
        if name.endswith(".gz"):
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error) as error:
                raise ForeignFileError(f"{name} is no whole gzip file ({error})") from None
        if _TOKEN.search(data) or (token and token.encode() in data):
            raise ValueError(f"{name} holds a token of the Hub: remove it there, and revoke that token")
