"""The signals that ask a run to stop: it ends what it is at, keeps it, and leaves with status 0."""

import signal
import sys
import threading
from typing import Any, NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""`kill`, `scancel` and pre-emption send SIGTERM; `sbatch --signal=USR1@120` sends SIGUSR1 ahead of it."""


class StopRequest:
    """Whether this process was asked to stop. Entered as a context it hears signals, which then do not end it.

    Signals reach the main thread only; in another one only `set` asks.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[signal.Signals, Any] = {}

    def set(self, *_: object) -> None:
        """Ask for it."""
        self.is_set = True

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self.set) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def leave(message: str) -> NoReturn:
    """End the program with status 0, as it was asked to, after a word on how to go on.

    Raises:
        SystemExit: Always.
    """
    sys.stderr.write(f"\n{message}\n")
    raise SystemExit(0)
