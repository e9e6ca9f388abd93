"""Runs that do not depend on each other, side by side on the cores of one machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

import torch

from hf_nasbert.stopping import StopRequest, interrupts_held, leave
from hf_nasbert.training.machine import tune_allocator

_Asked = TypeVar("_Asked")
_Result = TypeVar("_Result")

_POLL_SECONDS = 0.5


class _Told(NamedTuple):
    """What a process ended with: a result or an error."""

    result: Any = None
    error: BaseException | None = None


def side_by_side(work: Callable[[_Asked], _Result], asked: Sequence[_Asked]) -> list[_Result]:
    """Call a function for each of some arguments, in a process each where there are threads enough.

    Two threads of one run wait for each other after every operation of a small model: on two cores two processes of
    one thread do 1.4 times the work (docs/processes.md). Where there is an accelerator, or fewer threads than calls,
    they are made here, one after the other. Asked to stop, this process asks the others to, and waits for them; they
    end when it is gone.

    Args:
        work: A function of a module.
        asked: What it is called with, one by one; these and the results can be pickled.

    Raises:
        ChildProcessError: If a process ended without a word, as one whose memory ran out.
        SystemExit: With status 0, if this process was asked to stop.
        Exception: The first that the work raised; the other calls are then ended.
    """
    threads = torch.get_num_threads() // len(asked)
    if threads == 0 or torch.accelerator.is_available():
        return [work(one) for one in asked]
    # Forking this process, which may have used torch, could hang; the fork server has only imported it, and once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", work.__module__])
    workers: list[multiprocessing.process.BaseProcess] = []
    pipes: list[Connection] = []
    told: dict[int, _Told] = {}
    is_asked = False
    try:
        with StopRequest() as stop:
            for one in asked:
                pipe, end = context.Pipe(duplex=False)
                pipes.append(pipe)
                workers.append(context.Process(target=_call, args=(end, threads, work, one), daemon=True))
                with interrupts_held():
                    workers[-1].start()
                end.close()
            while at_work := [worker.sentinel for worker in workers if worker.exitcode is None]:
                wait([*(pipe for place, pipe in enumerate(pipes) if place not in told), *at_work], _POLL_SECONDS)
                _hear(pipes, told)
                if any(worker.exitcode for worker in workers):
                    break
                if stop.is_set and not is_asked:
                    is_asked = True
                    for worker in workers:
                        worker.terminate()
            _hear(pipes, told)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for worker in workers:
            if worker.pid is not None:  # else Ctrl-C came before it was started
                worker.join()
    for one_told in told.values():  # the first comes first
        if one_told.error is not None:
            raise one_told.error
    silent = [worker.exitcode for place, worker in enumerate(workers) if place not in told]
    if silent and is_asked:
        leave("stopped: the same command goes on from there")
    if silent:
        code = next((code for code in silent if code != -signal.SIGTERM), silent[0])
        raise ChildProcessError(
            f"a process ended with exit code {code} and no word; -9 may mean that memory ran out. The same command "
            "goes on"
        )
    return [told[place].result for place in range(len(asked))]


def _hear(pipes: Sequence[Connection], told: dict[int, _Told]) -> None:
    """Take what processes have sent."""
    for place, pipe in enumerate(pipes):
        if place not in told and pipe.poll():
            try:
                told[place] = pipe.recv()
            except EOFError:  # it is gone without a word
                pass


def _call(end: Connection, num_threads: int, work: Callable[[Any], Any], asked: object) -> None:
    """One process: the result or the error goes to the pipe."""
    torch.set_num_threads(num_threads)
    tune_allocator()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = work(asked)
    except SystemExit as left:
        if left.code:
            raise
        end.send(_Told(error=left))
    except Exception as error:
        end.send(_Told(error=_sendable(error)))
        raise SystemExit(1) from None
    else:
        end.send(_Told(result))


def _sendable(error: Exception) -> Exception:
    """An error as another process can make it again: Python's own, in place of one of a package that builds on it."""
    own = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return error if own is type(error) else own(str(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
