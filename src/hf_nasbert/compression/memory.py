"""The most memory that this process takes within a stage, by the system's own count."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _SWITCH = "/proc/self/status", "/proc/self/clear_refs"
_FORGET_PEAK = b"5"  # see proc(5)


def forget_peak() -> None:
    """Begin to count anew where the system can (Linux); elsewhere peaks are those since the start."""
    with suppress(OSError):
        descriptor = os.open(_SWITCH, os.O_WRONLY)
        try:
            os.write(descriptor, _FORGET_PEAK)
        finally:
            os.close(descriptor)


def peak_memory() -> int:
    """The most memory that lay in RAM since `forget_peak`, files that are mapped included, in MiB."""
    with suppress(OSError, StopIteration):
        lines = Path(_STATUS).read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) >> 10
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20
