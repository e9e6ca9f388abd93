"""The machine under a run: its accelerator and its memory."""

import ctypes
import importlib.util
import platform

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hf_nasbert.lazy import check_extra
from hf_nasbert.processes import join, on_main_process
from hf_nasbert.training import sharding
from hf_nasbert.training.arguments import SupernetTrainingArguments


def make_accelerator(arguments: SupernetTrainingArguments) -> Accelerator:
    """Build the `Accelerator` of a training run.

    Raises:
        ValueError: If the world is not the one that was asked for (see `processes.join`), if there is no such tracker,
            fp16 is wanted on a CPU, or the launcher was told of an engine that cannot train super-nets.
    """
    sharding.check_launch(arguments)
    state = join(use_cpu=arguments.use_cpu)
    is_on_cpu = state.device.type == "cpu"
    # One answer for all processes, whatever machines they are on.
    precision = on_main_process(state, lambda: chosen_precision(arguments.mixed_precision, is_on_cpu=is_on_cpu))
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        # Another training of this process had another precision: as transformers' `TrainingArguments` do.
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=is_on_cpu,
        mixed_precision=precision,
        log_with=_tracker(arguments.report_to),
        project_dir=arguments.output_dir,
    )
    if accelerator.device.type == "cpu":
        if arguments.mixed_precision == "fp16":
            raise ValueError("mixed_precision=fp16 needs a GPU; train on a CPU with mixed_precision=no")
        tune_allocator()
    return accelerator


def chosen_precision(mixed_precision: str, *, is_on_cpu: bool) -> str:
    """What `mixed_precision` comes to: `auto` is bf16 on a CPU that is faster in it, and nothing elsewhere."""
    if mixed_precision != "auto":
        return mixed_precision
    return "bf16" if is_on_cpu and has_bf16_units() else "no"


def has_bf16_units() -> bool:
    """Whether this CPU multiplies matrices in bf16 faster than in fp32: by AVX512_BF16 or AMX, through oneDNN.

    What oneDNN takes for support (`torch.ops.mkldnn._is_mkldnn_bf16_supported`) is AVX512 alone, which emulates it.
    """
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has_units and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


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

    known = [str(kind) for kind in LOGGER_TYPE_TO_CLASS]
    if name not in known:
        raise ValueError(f"report_to={name!r}: expected auto, none, {', '.join(known)}")
    if name not in map(str, get_available_trackers()):
        if name == "tensorboard":
            check_extra(f"report_to={name}", "tracking", name)
        raise ValueError(f"report_to={name!r} needs a package that is not installed: pip install {name}")
    return name
