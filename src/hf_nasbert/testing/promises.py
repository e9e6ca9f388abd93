"""How a check says that a promise is broken."""

import json
from typing import Any


def require(is_kept: bool, otherwise: str) -> None:
    """Go on where a promise is kept.

    Raises:
        AssertionError: With the sentence `otherwise`, where it is not.
    """
    if not is_kept:
        raise AssertionError(otherwise)


def through_json(state: Any, whose: str) -> Any:
    """A state as a checkpoint gives it back.

    Raises:
        AssertionError: If it does not go through JSON.
    """
    try:
        return json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the state of {whose} is not of plain JSON types: {error}") from error
