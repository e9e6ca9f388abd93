"""Several processes, one of which leads: it searches and writes, and all of them score what it asks for."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

_Result = TypeVar("_Result")


def announce(task: Any) -> None:
    """Tell the others, on the main process, what all are to do next; alone, nobody needs to be told."""
    processes = PartialState()
    if processes.num_processes > 1 and processes.is_main_process:
        broadcast_object_list([("do", task)])


def lead(work: Callable[[], _Result], follow: Callable[[Any], object]) -> _Result:
    """Do `work` on the main process; the others do what it announces until it is done. All return its result.

    So only one process reads and writes files, keeps a search's state and decides, whatever the search.

    Args:
        work: What the main process does. Whenever it needs the others it calls `announce` and takes its own part.
        follow: Takes a process' part in a task that was announced.

    Raises:
        RuntimeError: On the other processes, if the main one failed.
        SystemExit: On all of them, if the main one was asked to stop.
    """
    processes = PartialState()
    if processes.num_processes == 1:
        return work()
    if processes.is_main_process:
        try:
            result = work()
        except SystemExit as stopped:
            broadcast_object_list([("stopped", stopped.code)])
            raise
        except BaseException as error:
            broadcast_object_list([("failed", f"{type(error).__name__}: {error}")])
            raise
        broadcast_object_list([("done", result)])
        return result
    while True:
        box: list[Any] = [None]
        broadcast_object_list(box)
        what, value = box[0]
        if what == "failed":
            raise RuntimeError(f"the main process failed: {value}")
        if what == "stopped":
            raise SystemExit(value)
        if what == "done":
            done: _Result = value
            return done
        follow(value)
