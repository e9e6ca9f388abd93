"""Whether other programs compute on the same cores: threads that wait for each other are then many times slower."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

_STAT = Path("/proc/stat")
_SHORTEST = 0.5  # seconds; the kernel counts in hundredths


class Neighbours:
    """What other programs take of all cores, from now on until `advice` is asked for."""

    def __init__(self) -> None:
        self._busy, self._since, self._own = _busy_seconds(), time.monotonic(), time.process_time()

    def advice(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """One line, where others keep a quarter of the cores busy, or one, and threads here would wait for each other.

        None on a quiet machine, with one thread, with threads that sleep while they wait (docs/processes.md measures
        them), and where the system has no /proc/stat.
        """
        busy, cores = _busy_seconds(), os.cpu_count() or 1
        seconds = time.monotonic() - self._since
        if busy is None or self._busy is None or seconds < _SHORTEST:
            return None
        others = (busy - self._busy - (time.process_time() - self._own)) / seconds
        if others < max(0.75, cores / 4):
            return None
        if environment.get("OMP_NUM_THREADS") == "1" or environment.get("OMP_WAIT_POLICY", "").lower() == "passive":
            return None
        return (
            f"other programs keep {others:.1f} of {cores} cores busy, where threads that wait for each other are many "
            "times slower: if this is slow, stop it and run it again with OMP_NUM_THREADS=1 in front"
        )


def _busy_seconds() -> float | None:
    """CPU-seconds that all programs of this machine have used so far; None where nobody says."""
    try:
        with _STAT.open(encoding="ascii") as file:
            user, nice, system = file.readline().split()[1:4]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
