"""How a program ends at a terminal: one line for a mistake, for Ctrl-C, for want of memory, and never a traceback."""

import dataclasses
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hf_nasbert.foreign import printable

KEPT = "what was written whole is kept; the same command goes on from it, or begins again"
_INTERRUPTED = 128 + signal.SIGINT
_NOBODY_READS = 128 + signal.SIGPIPE
_MISTAKES = (ValueError, OSError, ArithmeticError, ImportError)
# What torch, oneDNN, CUDA and the system say when there is no memory left, as RuntimeError or OSError.
_NO_MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory|could not (create|execute) a (primitive|memory)|bad_alloc|ALLOC_FAILED|"
    r"can't start new thread|enforce fail at alloc_cpu",
    re.IGNORECASE,
)
_is_command = False


@contextmanager
def user_mistakes(program: str, settings: Iterable[Any] = (), kept: str = KEPT) -> Iterator[None]:
    """End the program in one line where what it was asked for cannot be done, in place of a traceback.

    What is printed is safe for a terminal, whatever its encoding: control signs in messages, also of loggers, and
    letters that it does not know are shown as escapes. Processes that are forked leave Ctrl-C to this one.

    Args:
        program: How the line begins.
        settings: The dataclasses that the program was called with: their batch sizes are named where memory is short.
        kept: What is left after Ctrl-C, and how to go on.

    Raises:
        SystemExit: With the message of a `ValueError`, `OSError`, `ArithmeticError`, `ImportError` or of missing
            memory (status 1); with status 130 after Ctrl-C, and 141 if nobody reads the output any more (`| head`).
    """
    global _is_command
    before, _is_command = (logging.getLogRecordFactory(), _is_command), True
    logging.setLogRecordFactory(_PrintableRecord)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # one that is no file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # at the exit it would be too late to say why it fails
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            raise SystemExit(_NOBODY_READS) from None
        if _has_interrupt(error):
            _leave_interrupted(program, kept)
        if _is_want_of_memory(error):
            raise SystemExit(f"{program}: {_one_line(_advice(error, settings))}") from error
        if not isinstance(error, _MISTAKES):
            raise
        raise SystemExit(f"{program}: {_one_line(str(error) or type(error).__name__)}") from error
    except KeyboardInterrupt:
        _leave_interrupted(program, kept)
    finally:
        logging.setLogRecordFactory(before[0])
        _is_command = before[1]


def say(text: object) -> None:
    """Print what may name things of files of somebody else, and have it shown now."""
    sys.stdout.write(printable(text, sys.maxsize) + "\n")
    sys.stdout.flush()


class _PrintableRecord(logging.LogRecord):
    """A message of a logger, which may name what stands in a file of somebody else."""

    def getMessage(self) -> str:
        return printable(super().getMessage(), 20_000)


def _leave_interrupted(program: str, kept: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"\n{program}: interrupted; {kept}\n")
    raise SystemExit(_INTERRUPTED) from None


def _one_line(text: str) -> str:
    return printable(" ".join(line.strip() for line in text.splitlines() if line.strip()), 4000)


def _has_interrupt(error: BaseException | None) -> bool:
    """Whether an error came of Ctrl-C: those who tidy up then may raise another."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_want_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_NO_MEMORY.search(str(error)))


def _advice(error: Exception, settings: Iterable[Any]) -> str:
    fields = [
        field.name for given in settings if dataclasses.is_dataclass(given) for field in dataclasses.fields(given)
    ]
    sizes = [f"--{name}" for name in dict.fromkeys(fields) if name.endswith("batch_size")]
    sizes += ["--max_seq_length"] if "max_seq_length" in fields else []
    wanted = f"lower {' or '.join(sizes)}" if sizes else "ask for less at a time"
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"there is not enough memory ({said[:300]}): {wanted}, or free some"


def _is_output_closed() -> bool:
    """Whether the reader of the output has gone, as `head` does; what is still to be written is then dropped."""
    try:
        output = sys.stdout.fileno()
        pipe = select.poll()
        pipe.register(output, 0)
        is_closed = any(event & select.POLLERR for _, event in pipe.poll(0))
    except (AttributeError, OSError, ValueError):  # no pipe, or nothing that can be polled
        return False
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return is_closed


def _ignore_interrupts() -> None:
    if _is_command:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


# Ctrl-C reaches all processes of a terminal: forked ones, each with a traceback, although this one ends them.
os.register_at_fork(after_in_child=_ignore_interrupts)


@contextmanager
def quiet(logger: str = "") -> Iterator[None]:
    """Nothing but errors of a logger, by its name, or of the root; its level comes back."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(level)
