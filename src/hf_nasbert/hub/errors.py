"""What goes wrong between here and the Hub, as one line that says what to do; never with a token in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from hf_nasbert.foreign import ForeignFileError, printable

HTTP_ERROR: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
"""What the HTTP client raises, with an answer or without; it is httpx or httpx2, by huggingface_hub's version."""
# Of uploads to the Hub's storage hf_xet raises RuntimeError and OSError; answers that are no JSON are a ValueError.
_FAILURES = (HTTP_ERROR, OSError, RuntimeError, ValueError)
_REPEAT = "run the same command again: what has arrived is not sent twice"


@contextmanager
def hub_errors(api: HfApi, repo_id: str) -> Iterator[None]:
    """Turn what huggingface_hub raises inside into built-in errors.

    Raises:
        PermissionError: The token was refused, is missing, or may not do this.
        FileNotFoundError: The repository, or its branch, tag or commit, is not there (any more).
        ConnectionError: The Hub could not be reached, the connection broke, or it failed on its own side.
        FileExistsError: Somebody else changed the repository meanwhile.
        OSError: The Hub refused for another reason, which is told.
        ValueError: The Hub refused what was sent, such as the metadata of a card.
    """
    try:
        yield
    except _FAILURES as error:
        translated = _translate(error, api, repo_id)
        if translated is None:
            raise
        # Not `from error`: its traceback would show requests and answers that may hold the token.
        raise translated from None


def was_lost(error: Exception) -> bool:
    """Whether a request failed on its way or on the Hub's own side: it was not refused, and may have been obeyed."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, OfflineModeIsEnabled) or _is_transport(error)


def _translate(error: BaseException, api: HfApi, repo_id: str) -> Exception | None:
    chain: list[BaseException] = []
    while error not in chain:  # uploads and downloads wrap what really happened
        chain.append(error)
        error = error.__cause__ or error.__context__ or error
    first = chain[0]
    if isinstance(first, ForeignFileError):
        return None
    if type(first) is ValueError:  # it speaks for itself, such as of a card's metadata
        return ValueError(_scrub(str(first), api))
    for cause in chain:
        if isinstance(cause, OfflineModeIsEnabled):
            return ConnectionError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it and run again")
        if isinstance(cause, HfHubHTTPError):
            return _of_status(cause, api, repo_id)
        if _is_transport(cause):
            what = _scrub(str(cause), api) or type(cause).__name__
            return ConnectionError(f"no connection to {api.endpoint} ({what}): check the network, then {_REPEAT}")
    if isinstance(first, LocalEntryNotFoundError):
        return ConnectionError(f"{repo_id} is not wholly in the cache, and {api.endpoint} cannot be reached")
    if isinstance(first, json.JSONDecodeError | RecursionError):
        return ConnectionError(
            f"{api.endpoint} answers in no way that the Hub does: check HF_ENDPOINT, then {_REPEAT}"
        )
    if isinstance(first, RuntimeError) or type(first).__module__.startswith("hf_xet"):  # uploads to the Hub's storage
        return ConnectionError(f"the transfer failed ({_scrub(str(first), api)}): {_REPEAT}")
    return None


def _of_status(error: HfHubHTTPError, api: HfApi, repo_id: str) -> Exception:
    status = error.response.status_code
    said = f" ({_scrub(error.server_message, api)})" if error.server_message else ""
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"{repo_id} has no such branch, tag or commit: look at its list of branches")
    if status in (401, 403):
        if not (api.token or get_token()):
            return PermissionError(f"{api.endpoint} asks who you are: log in with `hf auth login`, or set HF_TOKEN")
        return PermissionError(
            f"the token was refused for {repo_id} ({status}){said}: it must be valid and may need the right to write "
            "there; make one in the Hub's settings, then `hf auth login`"
        )
    if status == 404:
        return FileNotFoundError(
            f"{repo_id} is not on {api.endpoint}, or your token may not see it{said}: check the name; if it vanished "
            "meanwhile, a push makes it anew"
        )
    if status == 409:
        return FileExistsError(
            f"{repo_id} conflicts with what is there{said}: it was made or changed meanwhile, or is hidden from your "
            "token; look at it, then run again"
        )
    if status == 412:
        return FileExistsError(
            f"{repo_id} was changed by somebody else meanwhile, so nothing was pushed: look at it, then run again"
        )
    if status == 429:
        return ConnectionError(f"{api.endpoint} asks for patience (429){said}: wait some minutes, then {_REPEAT}")
    if status >= 500:
        return ConnectionError(f"{api.endpoint} fails on its side ({status}){said}: wait a little, then {_REPEAT}")
    return OSError(f"{api.endpoint} refused ({status}){said}")


def _is_transport(error: BaseException) -> bool:
    """Whether it comes from the HTTP client, httpx or httpx2, and is no answer."""
    return any(kind.__name__ == "RequestError" and kind.__module__.startswith("httpx") for kind in type(error).__mro__)


def _scrub(text: str, api: HfApi) -> str:
    """One line of it, without any token or control sign: a server may say anything."""
    for token in (api.token, get_token()):
        if isinstance(token, str) and token:
            text = text.replace(token, "<token>")
    return printable(" ".join(text.split()))
