"""The texts that a card's snippet is tried on: where they are a user's own they are marked, found, and taken out."""

import json
import re
from collections.abc import Sequence

from hf_nasbert.cards.markdown import Markdown, python_string

PLAIN_TEXTS = ("Paris is the capital of France.", "France has a capital.")
"""What a model is tried on where no text like its own may be shown; two of them make a pair."""
_NAMES = ("text", "text_pair")
MARK = "# quoted from the held-out texts"
"""What stands behind a user's own text in a card."""
_LITERAL = r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
_QUOTE = re.compile(rf"^({'|'.join(_NAMES)}) = ({_LITERAL})[ \t]*{re.escape(MARK)}[ \t]*\r?$", re.MULTILINE)


def example_lines(texts: Sequence[str], num_texts: int = 1, *, is_private: bool = False) -> Markdown:
    """The lines of Python that name a snippet's `text`, and its `text_pair` where an input is two texts.

    Args:
        texts: What stands there; with fewer of them than an input has, `PLAIN_TEXTS` do.
        num_texts: Of an input.
        is_private: Whether they are a user's own, which the lines then say.
    """
    known = len(texts) >= num_texts
    mark = f"  {MARK}" if known and is_private else ""
    shown = zip(_NAMES[:num_texts], texts if known else PLAIN_TEXTS, strict=False)
    return Markdown("\n".join(f"{name} = {python_string(text)}{mark}" for name, text in shown))


def quoted_texts(card: str) -> list[str]:
    """The texts of a user's own that a card quotes."""
    return [json.loads(literal) for _, literal in _QUOTE.findall(card)]


def without_quotes(card: str) -> str:
    """A card with plain sentences in place of a user's own texts: as if it had been made without them."""
    return _QUOTE.sub(lambda quote: example_lines(PLAIN_TEXTS, 2).splitlines()[_NAMES.index(quote[1])], card)
