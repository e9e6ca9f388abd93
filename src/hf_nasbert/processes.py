"""The processes of a run: how they join and find out that all came, do things once, add up, and end together."""

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

_Result = TypeVar("_Result")

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LAUNCH = (
    "On CPUs this starts two: accelerate launch --config_file recipes/configs/accelerate/multi_cpu.yaml RECIPE, or: "
    "torchrun --nproc_per_node 2 RECIPE"
)
_LARGE = 1 << 18  # numbers of a tensor that is worth a message of its own
# What one process does alone, while the others wait for its result, may take long: a large corpus to cut into tokens.
_PATIENCE = timedelta(days=1)


class Processes(Protocol):
    """What knows of all processes and of this one: Accelerate's `PartialState` or an `Accelerator`."""

    num_processes: int
    is_main_process: bool
    device: torch.device


def join(*, use_cpu: bool = False) -> PartialState:
    """Take part in the world of processes that a launcher started, or be the only one.

    Args:
        use_cpu: Compute on the CPU though there is an accelerator.

    Raises:
        ValueError: If the world is not the one that was asked for (see `check_world`).
    """
    # Without cpu=True, torchrun on a machine without accelerator gives as many worlds of one process.
    state = PartialState(cpu=use_cpu or not torch.accelerator.is_available(), timeout=_PATIENCE)
    check_world(state.num_processes)
    return state


def be_alone(what: str) -> None:
    """Refuse to do in several processes what one does.

    Raises:
        ValueError: If a launcher started several.
    """
    names = [name for name in (*_WORLD_SIZES, "SLURM_STEP_NUM_TASKS") if int(os.environ.get(name, 1)) > 1]
    if names:
        raise ValueError(
            f"{what} is work of one process, and {names[0]}={os.environ[names[0]]} says that a launcher started "
            "several: start it without one"
        )
    check_world(1)


def check_world(num_processes: int) -> None:
    """Refuse to run in another world than the one that the launcher was asked for.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing; SLURM's srun starts several that
    know nothing of each other, and they would all write one folder.

    Raises:
        ValueError: If the launcher announced another number of processes than take part.
    """
    announced = [name for name in _WORLD_SIZES if name in os.environ]
    for name in announced:
        if int(os.environ[name]) != num_processes:
            raise ValueError(
                f"{name}={os.environ[name]}, but {num_processes} process(es) take part: nothing would synchronise the "
                f"others. {_LAUNCH}"
            )
    if announced or num_processes > 1:
        return
    # What accelerate's simple launcher leaves behind when it was asked for several processes and started one.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise ValueError(f"accelerate launch was asked for several processes and started one. {_LAUNCH}")
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        raise ValueError(
            f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} tasks, and each would be a run of its own: let it "
            "start one task per node, `srun --ntasks-per-node=1 torchrun --nnodes ... RECIPE`"
        )


def on_main_process(processes: Processes, work: Callable[[], _Result]) -> _Result:
    """Do something once: every process gets its result, or fails if it failed, so that none waits for ever.

    Raises:
        RuntimeError: On the other processes, if the main one failed.
    """
    if processes.num_processes == 1:
        return work()
    box: list[Any] = [None, None]
    error: BaseException | None = None
    if processes.is_main_process:
        try:
            box[0] = work()
        except BaseException as caught:  # raised again as soon as the others know
            error, box[1] = caught, f"{type(caught).__name__}: {caught}"
    broadcast_object_list(box)
    if error is not None:
        raise error
    if box[1] is not None:
        raise RuntimeError(f"the main process failed: {box[1]}")
    result: _Result = box[0]
    return result


def share_out(processes: PartialState, jobs: Sequence[Callable[[], object]]) -> None:
    """Deal jobs to the processes, and wait until all are done; whatever fails, the other jobs are finished first.

    Raises:
        RuntimeError: On the processes whose own jobs were done, if one of another failed.
    """
    if processes.num_processes == 1:
        for job in jobs:
            job()
        return
    error: Exception | None = None
    try:
        for job in jobs[processes.process_index :: processes.num_processes]:
            job()
    except Exception as caught:  # raised again as soon as the others know
        error = caught
    said = gather_object([None if error is None else f"{type(error).__name__}: {error}"])
    if error is not None:
        raise error
    failed = next((one for one in said if one is not None), None)
    if failed is not None:
        raise RuntimeError(f"another process failed: {failed}")


class StepGroup:
    """The processes as they meet within training steps, where nobody is long in coming.

    Whoever is not there after `patience` seconds has stalled or died, which ends the run: a launcher reports a
    process that has died, but nothing reports one that hangs.

    Args:
        processes: All processes.
        patience: Seconds to wait for the others.
    """

    def __init__(self, processes: Processes, patience: float) -> None:
        self.processes, self.patience = processes, patience
        self._group = None
        if processes.num_processes > 1:
            self._group = torch.distributed.new_group(timeout=timedelta(seconds=patience))

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of every process' values, on the CPU.

        Raises:
            ConnectionError: If a process died or did not come in time.
        """
        if self.processes.num_processes == 1:
            return values
        total = values.to(self.processes.device)
        self._reduce([total])
        return total.cpu()

    @torch.no_grad()
    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Replace every tensor by its sum over all processes, which have to give tensors of the same shapes.

        Large tensors are reduced where they lie, small ones in one common message. Every process ends with the same
        bits: each number is added up on one process and told to the others.

        Raises:
            ConnectionError: If a process died or did not come in time.
        """
        if self.processes.num_processes == 1:
            return
        large = [tensor for tensor in tensors if tensor.numel() >= _LARGE and tensor.is_contiguous()]
        small = [tensor for tensor in tensors if tensor.numel() < _LARGE or not tensor.is_contiguous()]
        packed = torch.cat([tensor.flatten() for tensor in small]) if small else None
        self._reduce([*large, *([] if packed is None else [packed])])
        if packed is not None:
            sizes = [tensor.numel() for tensor in small]
            for tensor, total in zip(small, torch.split(packed, sizes), strict=True):
                tensor.copy_(total.view_as(tensor))

    def _reduce(self, messages: list[torch.Tensor]) -> None:
        try:
            for work in [torch.distributed.all_reduce(m, group=self._group, async_op=True) for m in messages]:
                work.wait()
        except RuntimeError as error:
            raise ConnectionError(
                f"another process died, or did not come within {self.patience:g} seconds (step_timeout): its own "
                f"message says why ({str(error).splitlines()[0]})"
            ) from error


@torch.no_grad()
def broadcast_weights(processes: Processes, model: torch.nn.Module) -> None:
    """Give every process the main one's parameters and buffers."""
    if processes.num_processes == 1:
        return
    for tensor in dict.fromkeys((*model.parameters(), *model.buffers())):
        whole = tensor.data.contiguous()
        torch.distributed.broadcast(whole, src=0)
        tensor.data.copy_(whole)


def leave_world() -> None:
    """End the process group, if there is one, when all is done and saved.

    gloo's (CPUs) cannot be ended safely (torch 2.13). A thread of it may still hold a tensor of the last message,
    which takes Python's lock to free; ending the group holds that lock and waits for the thread: two of ten runs hung.
    Left to the interpreter's exit, one was seen to abort with all its work done. So that exit skips the teardown.
    """
    if not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() == "gloo":
        atexit.register(_exit_without_teardown)
    else:
        PartialState().destroy_process_group()


def _exit_without_teardown() -> None:
    if not hasattr(sys, "last_value"):  # an uncaught exception came after all: its exit status must not be hidden
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
