"""The batches of a run as they come: data that stalls and workers that die are errors, not hangs."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hf_nasbert.training.step import Batch

_DONE = object()
_SECONDS_TO_DIE = 1.0


class _StalledError(TimeoutError):
    """Told apart from a time-out of the file system, say."""


def fetched(batches: Iterable[Batch], *, timeout_seconds: float = 60) -> Iterator[Batch]:
    """Fetch every batch when it is asked for, on a thread: that can be given up where the process itself would hang.

    A `DataLoader` with workers has a timeout of its own and needs no thread.

    Raises:
        TimeoutError: If a batch does not come in time.
    """
    asked: queue.Queue[object] = queue.Queue()
    answers: queue.Queue[Any] = queue.Queue()

    def fetch() -> None:
        source = iter(batches)
        while asked.get() is not _DONE:
            try:
                answers.put((next(source, _DONE), None))
            except BaseException as error:  # raised again where the batch is wanted
                answers.put((_DONE, error))

    threading.Thread(target=fetch, name="batches", daemon=True).start()
    try:
        while True:
            asked.put(None)
            batch, error = _wait_for(answers, timeout_seconds)
            if error is not None:
                raise error
            if batch is _DONE:
                return
            yield batch
    finally:
        asked.put(_DONE)


def _wait_for(answers: "queue.Queue[Any]", timeout_seconds: float) -> Any:
    # In slices: a job that was suspended for an hour and goes on has not waited for an hour.
    num_slices = 60
    for _ in range(num_slices):
        try:
            return answers.get(timeout=timeout_seconds / num_slices)
        except queue.Empty:
            continue
    raise _StalledError(f"no batch in {timeout_seconds:g} seconds")


def from_workers(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a `DataLoader` with workers; one that dies while it sends a batch is reported like any other.

    Raises:
        RuntimeError: If a worker died, as torch says it.
    """
    try:
        yield from loader
    except (ConnectionError, EOFError) as error:
        if "DataLoader worker" in str(error):  # the data's own, which torch has brought here
            raise
        # The connection broke before the system reported the death. Torch raises its own error when that happens,
        # wherever the program is then: wait for it here, where it is understood.
        time.sleep(_SECONDS_TO_DIE)
        raise RuntimeError(f"DataLoader worker closed the connection while it sent a batch: {error}") from error


@contextmanager
def naming_data_faults(step: Callable[[], int]) -> Iterator[None]:
    """Say of data that stalls or dies which step it left without its batch, and how to go on.

    Args:
        step: Steps done so far.

    Raises:
        TimeoutError: If a batch did not come in time.
        ChildProcessError: If a worker died.
    """
    try:
        yield
    except (RuntimeError, _StalledError) as error:
        is_late = isinstance(error, _StalledError) or "timed out" in str(error)
        # torch has no types for these: a dead worker is a RuntimeError, raised wherever the training is at.
        if not isinstance(error, _StalledError) and not str(error).startswith("DataLoader "):
            raise
        kind = TimeoutError if is_late else ChildProcessError
        raise kind(
            f"step {step() + 1} has no batch: the data {'stalls' if is_late else 'worker died'} ({error}). The last "
            "checkpoint is whole: see to the data, and go on with resume_from_checkpoint=latest"
        ) from error
