"""The machine under a run: its processes and its memory."""

import atexit
import ctypes
import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from hf_nasbert.training.arguments import SupernetTrainingArguments

_Result = TypeVar("_Result")

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make_accelerator(arguments: SupernetTrainingArguments) -> Accelerator:
    """Build the `Accelerator` of a training run.

    Raises:
        ValueError: If the world is not the one that was asked for (see `check_world`), if there is no such tracker, or
            fp16 is wanted on a CPU.
    """
    accelerator = Accelerator(
        # Without cpu=True, torchrun on a machine without GPU gives as many worlds of one process.
        cpu=arguments.use_cpu or not torch.accelerator.is_available(),
        mixed_precision=arguments.mixed_precision,
        log_with=_tracker(arguments.report_to),
        project_dir=arguments.output_dir,
        # Every step trains one child, and all others' operators stay without gradient on every rank alike.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    check_world(accelerator.num_processes)
    # Of a depth-wise convolution's weight, (W, 1, 1, k): the strides of axes of length one decide nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    if accelerator.device.type == "cpu":
        if arguments.mixed_precision == "fp16":
            raise ValueError("mixed_precision=fp16 needs a GPU; train on a CPU with mixed_precision=no")
        tune_allocator()
    return accelerator


def check_world(num_processes: int) -> None:
    """Refuse to run in another world than the one that the launcher was asked for.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing; torchrun without a GPU can make
    every process a world of its own, and two of them would write one folder.

    Raises:
        ValueError: If the launcher announced another number of processes than take part.
    """
    for name in _WORLD_SIZES:
        if name in os.environ and int(os.environ[name]) != num_processes:
            raise ValueError(
                f"{name}={os.environ[name]}, but {num_processes} process(es) take part: nothing would synchronise the "
                "others. On CPUs set ACCELERATE_USE_CPU=true."
            )
    # What accelerate's simple launcher leaves behind when it was asked for several processes and started one.
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if launched and num_processes == 1 and not any(name in os.environ for name in _WORLD_SIZES):
        raise ValueError(
            "accelerate launch was asked for several processes and started one. On CPUs this starts two: "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 "
            "--mixed_precision no --dynamo_backend no RECIPE, or: torchrun --nproc_per_node 2 RECIPE"
        )


def on_main_process(accelerator: Accelerator, work: Callable[[], _Result]) -> _Result:
    """Do something once: every process gets its result, or fails if it failed, so that none waits for ever.

    Raises:
        RuntimeError: On the other processes, if the main one failed.
    """
    if accelerator.num_processes == 1:
        return work()
    box: list[Any] = [None, None]
    error: BaseException | None = None
    if accelerator.is_main_process:
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


def sum_over_processes(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor:
    """The sum of every process' values, on the CPU."""
    if accelerator.num_processes == 1:
        return values
    total: torch.Tensor = accelerator.reduce(values.to(accelerator.device), reduction="sum")
    return total.cpu()


def leave_world(accelerator: Accelerator) -> None:
    """End the process group when all is done and saved.

    gloo's (CPUs) cannot be ended safely (torch 2.13). A thread of it may still hold a tensor of the last message,
    which takes Python's lock to free; ending the group holds that lock and waits for the thread: two of ten runs hung.
    Left to the interpreter's exit, one was seen to abort with all its work done. So that exit skips the teardown.
    """
    if not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() == "gloo":
        atexit.register(_exit_without_teardown)
    else:
        accelerator.state.destroy_process_group()


def _exit_without_teardown() -> None:
    if not hasattr(sys, "last_value"):  # an uncaught exception came after all: its exit status must not be hidden
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def tune_allocator() -> bool:
    """Let glibc keep freed memory instead of returning it to the kernel after every large tensor.

    By default every tensor of 32 MB and more is mapped, faulted in page by page, and unmapped, step after step: 4 to
    25 % of a step's time. Costs up to a quarter more resident memory. Nothing is done (and False returned) where the
    C library is not glibc.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # malloc.h: M_MMAP_THRESHOLD -3, M_TRIM_THRESHOLD -1, M_TOP_PAD -2. 32 MiB is the highest threshold glibc takes.
    return all([mallopt(-3, 32 << 20), mallopt(-1, 2**31 - 1), mallopt(-2, 64 << 20)])


def _tracker(name: str) -> str | None:
    """The tracker to report to, if any."""
    if name == "none":
        return None
    if name == "auto":
        return "tensorboard" if importlib.util.find_spec("tensorboard") is not None else None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = {str(kind): kind for kind in LOGGER_TYPE_TO_CLASS}
    if name not in known:
        raise ValueError(f"report_to={name!r}: expected auto, none, {', '.join(known)}")
    if known[name] not in get_available_trackers():
        raise ValueError(f"report_to={name!r}: its package is not installed")
    return name
