"""How a check says that a promise is broken."""

import json
from typing import Any, Protocol


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
        return json.loads(json.dumps(state, allow_nan=False))  # as a checkpoint is written
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the state of {whose} is not of plain JSON types: {error}") from error


class Resumable(Protocol):
    """What goes on from a state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""


def resume(one: Resumable, state: Any, whose: str) -> None:
    """Load a state that the same class has given.

    Raises:
        AssertionError: If it is no mapping, or is refused.
    """
    require(isinstance(state, dict), f"the state of {whose} is {state!r}, expected a mapping")
    try:
        one.load_state_dict(state)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AssertionError(
            f"the state of {whose} cannot be loaded again ({type(error).__name__}: {error}): begin state_dict with "
            "super().state_dict(), and take from it what it has"
        ) from error
