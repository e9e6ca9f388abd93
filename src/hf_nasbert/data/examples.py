"""A short input to show: the first of some texts that a model can be tried on."""

import re
from collections.abc import Callable, Sequence

_FEWEST_WORDS, _MOST_WORDS = 3, 20


def sentence_of(sentences: Sequence[str], fits: Callable[[str], bool] = lambda _: True) -> str | None:
    """A sentence to try a model on: the first short one, or the first words of the first; None of no words that fit.

    It may be shown to others: whoever takes it from private text says so (`cards.quotes`).

    Args:
        sentences: What it is taken from.
        fits: Whether a text is short enough for the model.
    """
    return next(iter(example_of([(sentence,) for sentence in sentences], lambda texts: fits(*texts))), None)


def example_of(inputs: Sequence[tuple[str, ...]], fits: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
    """An input to try a model on: as `sentence_of`, of one text or of several that belong together; empty of none.

    Args:
        inputs: What it is taken from.
        fits: Whether texts are short enough for the model.
    """
    texts = [tuple(" ".join(text.split()) for text in given) for given in inputs]
    texts = [given for given in texts if all(re.search(r"\w", text) for text in given)]
    if not texts:
        return ()

    def is_short(given: tuple[str, ...]) -> bool:
        return all(_FEWEST_WORDS <= len(text.split()) <= _MOST_WORDS for text in given) and fits(given)

    short = next((given for given in texts if is_short(given)), None)
    words = [text.split() for text in texts[0]]
    starts = (tuple(" ".join(own[:count]) for own in words) for count in range(_MOST_WORDS, 0, -1))
    return short or next((start for start in starts if fits(start)), ())
