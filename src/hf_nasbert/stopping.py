"""What asks a run to stop, a signal or its time: it ends what it is at, keeps it, and leaves with status 0."""

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from hf_nasbert.settings import Settings, setting

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""`kill`, `scancel` and pre-emption send SIGTERM; `sbatch --signal=USR1@120` sends SIGUSR1 ahead of it."""


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|h|)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "": 60}
_deadline: float | None = None


@dataclass(kw_only=True)
class TimeArguments(Settings):
    """How long a command may take.

    Raises:
        ValueError: If that is no time.
    """

    max_time: str | None = setting(
        None,
        "Stop after this time, such as 90s, 15m or 2h (a number alone: minutes), as soon as what is done can be kept; "
        "the same command continues from there, with bit-identical results.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.seconds

    @property
    def seconds(self) -> float | None:
        """The time in seconds, if there is a limit."""
        return None if self.max_time is None else seconds_of(self.max_time, "max_time")


def seconds_of(text: str, name: str) -> float:
    """The seconds of a time such as 90s, 15m or 2h; a number alone counts minutes.

    Raises:
        ValueError: If it is none, or no time at all; names the setting.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{name}={text[:40]!r}: expected a time above 0, such as 90s, 15m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Have every `StopRequest` of this process ask, once that time is up; None asks for nothing."""
    global _deadline
    before = _deadline
    _deadline = before if seconds is None else time.monotonic() + seconds
    try:
        yield
    finally:
        _deadline = before


def is_time_up() -> bool:
    """Whether the time that this process may take is up."""
    return _deadline is not None and time.monotonic() >= _deadline


class StopRequest:
    """Whether this process was asked to stop, or its time is up. As a context it hears signals: they do not end it.

    Signals reach the main thread only; in another one only `set` and the time ask.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._is_asked or is_time_up()

    def set(self, *_: object) -> None:
        """Ask for it."""
        self._is_asked = True

    def clear(self) -> None:
        """Forget that somebody asked."""
        self._is_asked = False

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self.set) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits a moment here, and never reaches what is started, which inherits that: this process ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(message: str) -> NoReturn:
    """End the program with status 0, as it was asked to, after a word on how to go on.

    Raises:
        SystemExit: Always.
    """
    sys.stderr.write(f"\n{message}\n")
    raise SystemExit(0)
