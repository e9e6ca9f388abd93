"""Measures on this device what children cost: latency tables, and how far tables and estimates are from real children.

What is measured is what a fine-tuned child runs: `NasBertModel` at all positions with its pooler, in evaluation mode,
without gradients, on full sequences given with their `attention_mask`. On a CPU with one thread the clock may count
this thread's own time: on a quiet machine that is the wall clock's, and on a busy one neighbours do not count. Runs
on a GPU are timed by events in its stream; that path has run on an H200, in `tests/test_gpu.py`.

One file, for all of it is one measurement: a `Device`, the clock that fits it, what runs under that clock, and what
the times are compared with. No part is used elsewhere.
"""

import copy
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Literal, Self, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from hf_nasbert import metrics, records
from hf_nasbert.costs import (
    LATENCY_SIZES,
    LatencyTable,
    latency_sizes,
    operator_key,
    peak_activation_bytes,
)
from hf_nasbert.modeling import NasBertConfig, NasBertModel, SupernetConfig, SupernetModel
from hf_nasbert.modeling.geometry_nasbert import geometry_of
from hf_nasbert.records import Record
from hf_nasbert.space import Architecture, SearchSpace

Clock = Literal["cpu", "wall"]

_NUM_DRAWS = 16  # children drawn for each that is run: that one is taken whose operators have been run least
_NUM_WARM_UPS = 1  # forwards of a child before those that count: a deployed child finds its weights in the cache
_NUM_TIMED = 2

_Time = TypeVar("_Time")


class Device:
    """Where and how children are run: device, precision, threads, batch, and the clock.

    Args:
        batch_size: Sequences in the batch.
        sequence_length: Tokens of each.
        device: Such as `"cpu"` or `"cuda"`.
        dtype: Precision of weights and activations, such as `"float32"` or `"bfloat16"`.
        num_threads: Torch's threads on a CPU.
        clock: `"cpu"` counts the time of the running thread, `"wall"` all that passes. By default the former where it
            means something: on a CPU with one thread.

    Raises:
        ValueError: If the thread's time is asked for where it is not the latency, a number lies outside its range, or
            there is no such GPU.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        sequence_length: int,
        device: str = "cpu",
        dtype: str = "float32",
        num_threads: int = 1,
        clock: Clock | None = None,
    ) -> None:
        if min(batch_size, sequence_length, num_threads) < 1:
            raise ValueError("batch_size, sequence_length and num_threads must all be at least 1")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"dtype {dtype!r} is none of torch's: expected float32, bfloat16 or float16")
        self.batch_size, self.sequence_length, self.num_threads = batch_size, sequence_length, num_threads
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        is_one_thread = self.device.type == "cpu" and num_threads == 1
        if clock == "cpu" and not is_one_thread:
            raise ValueError("clock='cpu' counts one thread's time: with several, or on a GPU, use clock='wall'")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {device}: this torch sees no GPU: measure on cpu, or where there is one")
        self.clock: Clock = clock or ("cpu" if is_one_thread else "wall")
        self.now: Callable[[], float] = time.thread_time if self.clock == "cpu" else time.perf_counter
        """Seconds; on a GPU not used."""

    @classmethod
    def of(cls, setting: Mapping[str, Any]) -> Self | None:
        """The device of a `setting`, or None where this machine is another one."""
        names = ("batch_size", "sequence_length", "dtype", "num_threads", "clock")
        if not setting.keys() >= {"device_type", *names}:
            return None
        if setting["device_type"] == "cuda" and not torch.cuda.is_available():
            return None
        device = cls(device=setting["device_type"], **{name: setting[name] for name in names})
        return device if device.setting == dict(setting) else None

    @property
    def setting(self) -> dict[str, Any]:
        """What a measurement depends on beside the model, as plain JSON."""
        is_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if is_gpu else str(records.versions()["cpu"]),
            "device_type": self.device.type,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "dtype": str(self.dtype).removeprefix("torch."),
            "num_threads": self.num_threads,
            "clock": self.clock,
        }

    def place(self, model: nn.Module) -> Any:
        """A model made ready to be run here."""
        return model.eval().to(self.device, self.dtype)

    def inputs(self, config: Any) -> dict[str, torch.Tensor]:
        """A batch of full sequences of random tokens.

        Raises:
            ValueError: If the sequences are longer than the model's positions.
        """
        if self.sequence_length > config.max_position_embeddings:
            raise ValueError(
                f"sequence_length={self.sequence_length}, but the model has {config.max_position_embeddings} positions"
            )
        shape, generator = (self.batch_size, self.sequence_length), torch.Generator().manual_seed(0)
        input_ids = torch.randint(config.vocab_size, shape, generator=generator)
        return {"input_ids": input_ids.to(self.device), "attention_mask": torch.ones_like(input_ids).to(self.device)}

    @contextmanager
    def running(self) -> Iterator[None]:
        """No gradients, and the threads that were asked for; both come back."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.num_threads)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(threads)


class _Stopwatch:
    """Marks points of a forward, and reports the milliseconds between each and the next."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self, *_: Any) -> None:
        """Mark this point; may be a hook."""
        if self._device.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(self._device.now())

    def milliseconds(self) -> list[float]:
        """The time between each mark and the next; begins anew."""
        marks, self._marks = self._marks, []
        if self._device.device.type == "cuda":
            torch.cuda.synchronize(self._device.device)
            return [before.elapsed_time(after) for before, after in pairwise(marks)]
        return [1000 * (after - before) for before, after in pairwise(marks)]


def measure_latencies(
    config: SupernetConfig,
    device: Device,
    *,
    num_visits: int = 100,
    num_children: int = 30,
    num_rounds: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Record, Record]:
    """Measure every operator of a space, and all around them; and how far the sums are from real children.

    Uniformly drawn children are run on the super-net's modules, each a few times, and the time is taken at the
    borders of the blocks. So an operator is measured among the neighbours and in the state of the cache in which it
    will run. Each entry of the table is a median. Other random children are built, each as its own `NasBertModel`, and
    timed as a whole, without any hook. All goes in turn, visit by visit, after each has been run once without being
    counted: a machine that slows down or speeds up favours no operator and neither side. Weights are random: time does
    not depend on them.

    Args:
        config: The super-net whose operators are measured.
        device: Where, and on which batch.
        num_visits: In how many forwards each operator is met at least.
        num_children: Children to compare with the table, drawn uniformly; fewer where the space has fewer.
        num_rounds: How often each of these children is visited: run three times, of which two are timed.
        seed: Seed of the draws.
        progress: Whether to show a bar.

    Returns:
        A record that `LatencyTable.from_record` reads, and one with the two times of every child, `mape_percent` (the
        table's mean absolute error) and `spearman`; and the same two between two halves of the measurements of these
        children, `repeat_mape_percent` and `repeat_spearman`: much better than that no table can be.

    Raises:
        ValueError: If the sequences are longer than the model's positions, or a number is below 1.
    """
    if min(num_visits, num_children, num_rounds) < 1:
        raise ValueError("num_visits, num_children and num_rounds must all be at least 1")
    operators = _Operators(config, device, seed)
    children = _Children(config, device, draw_children(config, num_children, seed))
    order = list(range(len(children))) * num_rounds
    with device.running():
        operators.visit(1)
        for child in range(len(children)):
            children.visit(child)
        operators.forget()
        children.forget()
        for number, child in enumerate(tqdm(order, unit="visit", disable=not progress, leave=False), start=1):
            operators.visit(num_visits * number / len(order))
            children.visit(child)
    table = operators.record()
    return table, children.record(LatencyTable.from_record(table))


def measure_children(
    config: SupernetConfig,
    device: Device,
    children: Sequence[Sequence[str]],
    *,
    num_rounds: int | Callable[[float], int] = 10,
) -> list[float]:
    """Build children and time each as a whole, in turn, as `measure_latencies` does: their medians.

    Args:
        config: The super-net they are of; their weights are random.
        device: Where, and on which batch.
        children: The children.
        num_rounds: How often each is visited: run three times, of which two are timed. Or a function that makes it of
            the seconds that one run of each takes together, by the first visit, which is not counted.

    Returns:
        Milliseconds, in the order given.
    """
    timed = _Children(config, device, [config.space.validate(child) for child in children])
    timed.visit_all(device, num_rounds)
    return timed.medians()


def check_memory(
    config: SupernetConfig,
    device: Device,
    *,
    num_children: int = 30,
    seed: int = 1,
    measure: Callable[[nn.Module, dict[str, torch.Tensor]], int] | None = None,
) -> Record:
    """Build random children and compare the real peak of their activations' memory with the estimate.

    Args:
        config: The super-net whose children are drawn, uniformly.
        device: Where, and on which batch.
        num_children: How many; fewer where the space has fewer.
        seed: Seed of the draw.
        measure: The real peak of one forward, in bytes; by default `peak_of_forward`.

    Returns:
        A record: both numbers of every child, `mape_percent` and `spearman` (None where all children need the same).
    """
    children, inputs = draw_children(config, num_children, seed), device.inputs(config)
    with device.running():
        measured = [(measure or peak_of_forward)(device.place(_child(config, child)), inputs) for child in children]
    shape = (device.batch_size, device.sequence_length, device.dtype.itemsize)
    estimated = [int(peak_activation_bytes(config, child, *shape)) for child in children]
    check = compared("peak_activation_bytes", children, estimated, measured)
    return {"record": "memory_check", "setting": device.setting, **check, "versions": records.versions()}


def peak_of_forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """The most bytes that one forward holds at a time beyond what was there before: torch's own count of them."""
    model(**inputs)  # what is made once stays
    if inputs["input_ids"].device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(**inputs)
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        model(**inputs)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)


class _Operators:
    """The times of a space's operators within random children, and of what is around the blocks."""

    def __init__(self, config: SupernetConfig, device: Device, seed: int) -> None:
        self._config, self._device = config, device
        self._supernet, self._lone = _Chain(config, device), _LoneBlock(config, device)
        self._rng = random.Random(seed)
        self._keys = {
            operator_key(kind, width)
            for stage in config.space.stages
            for kinds in stage.blocks
            for kind in kinds
            for width in stage.widths or (int(config.hidden_size),)
        }
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._times = defaultdict[str, list[float]](list)
        self._outside: list[float] = []

    def visit(self, num_visits: float) -> None:
        """Run children until every operator has been met so often since the beginning."""
        while min(len(self._times[key]) for key in self._keys) < num_visits:
            child = self._next_child()
            for key, milliseconds in _timed(partial(self._supernet.run, child)):
                self._times[key].append(milliseconds)
            self._outside += _timed(lambda: [self._lone.run()])

    def record(self) -> Record:
        """The table."""
        medians = {key: statistics.median(self._times[key]) for key in sorted(self._times)}
        return {
            "record": "latency_table",
            "setting": self._device.setting,
            "sizes": latency_sizes(self._config),
            "outside_ms": statistics.median(self._outside),
            "operators_ms": {key: value for key, value in medians.items() if "->" not in key},
            "adapters_ms": {key: value for key, value in medians.items() if "->" in key},
            "num_measured": {key: len(self._times[key]) for key in medians},
            "versions": records.versions(),
        }

    def _next_child(self) -> Architecture:
        """A random child, of several that one whose operators have been met least."""

        def need(child: Architecture) -> float:
            keys = {operator_key(block.name, block.width) for block in geometry_of(self._config, child)}
            return sum(1 / (1 + len(self._times[key])) for key in keys)

        space: SearchSpace = self._config.space
        return max((space.sample(self._rng, "children") for _ in range(_NUM_DRAWS)), key=need)


class _Children:
    """The times of whole children."""

    def __init__(self, config: SupernetConfig, device: Device, children: Sequence[Architecture]) -> None:
        self._device, self._inputs = device, device.inputs(config)
        self._stopwatch = _Stopwatch(device)
        self._children = children
        self._config = config
        self._models = [device.place(_child(config, child)) for child in self._children]
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._times: list[list[float]] = [[] for _ in self._children]

    def __len__(self) -> int:
        return len(self._children)

    def visit(self, child: int) -> None:
        """Run the child of this number."""
        self._times[child] += _timed(partial(self._run, self._models[child]))

    def visit_all(self, device: Device, num_rounds: int | Callable[[float], int]) -> None:
        """Run all so often, in turn, after each has been visited once without being counted."""
        with device.running():
            for child in range(len(self)):
                self.visit(child)
            if callable(num_rounds):
                num_rounds = num_rounds(sum(self.medians()) / 1000)
            self.forget()
            for child in list(range(len(self))) * num_rounds:
                self.visit(child)

    def medians(self) -> list[float]:
        """Milliseconds of every child."""
        return [statistics.median(times) for times in self._times]

    def record(self, table: LatencyTable) -> Record:
        """What was measured beside what a table says."""
        measured = self.medians()
        halves = [[statistics.median(times[half::2]) for times in self._times] for half in (0, 1)]
        expected = [table.latency_ms(self._config, child) for child in self._children]
        return {
            "record": "latency_check",
            "setting": self._device.setting,
            **compared("latency_ms", self._children, expected, measured),
            "repeat_mape_percent": _mape_percent(*halves),
            "repeat_spearman": _spearman(*halves),
            "num_measured": len(self._times[0]),
            "versions": records.versions(),
        }

    def _run(self, model: nn.Module) -> list[float]:
        self._stopwatch.mark()
        model(**self._inputs)
        self._stopwatch.mark()
        return self._stopwatch.milliseconds()


def _timed(run: Callable[[], list[_Time]]) -> list[_Time]:
    """What the timed ones of some runs tell."""
    runs = [run() for _ in range(_NUM_WARM_UPS + _NUM_TIMED)]
    return [told for times in runs[_NUM_WARM_UPS:] for told in times]


class _Chain:
    """A super-net that reports how long each part of a child took.

    Every mark costs a little itself, some microseconds. So there is one per block, and one more only where a block has
    adapters, to tell them from its operator.
    """

    def __init__(self, config: SupernetConfig, device: Device) -> None:
        self._config, self._inputs, self._stopwatch = config, device.inputs(config), _Stopwatch(device)
        separate = copy.deepcopy(config)
        separate.weight_layout = "separate"  # a child's weights are its own: it need not put them together
        separate.copies = None
        self._model = device.place(SupernetModel(separate, add_pooling_layer=False))
        self._model.encoder.register_forward_hook(self._stopwatch.mark)
        for block in self._model.encoder.blocks:
            block.register_forward_pre_hook(self._stopwatch.mark)
            if block.input_projections:
                block.operators.register_forward_pre_hook(self._stopwatch.mark)
            if block.output_projections:
                block.operators.register_forward_hook(self._stopwatch.mark)

    def run(self, child: Architecture) -> list[tuple[str, float]]:
        """Run a child: operators and adapters by name, with their milliseconds."""
        self._model(**self._inputs, architecture=child)
        times, parts = iter(self._stopwatch.milliseconds()), []
        for block, module in zip(geometry_of(self._config, child), self._model.encoder.blocks, strict=True):
            before = next(times) if module.input_projections else 0.0
            inside = next(times)
            after = next(times) if module.output_projections else 0.0
            if block.input_width != block.width:
                parts.append((f"{block.input_width}->{block.width}", before))
                before = 0.0
            if block.output_width != block.width:
                parts.append((f"{block.width}->{block.output_width}", after))
                after = 0.0
            parts.append((operator_key(block.name, block.width), before + inside + after))
        return parts


class _LoneBlock:
    """A child of a single block, which reports how long everything but the block takes."""

    def __init__(self, config: SupernetConfig, device: Device) -> None:
        self._inputs, self._stopwatch = device.inputs(config), _Stopwatch(device)
        self._model = device.place(NasBertModel(_child_config(config, ["ffn"], None)))
        self._model.encoder.blocks[0].register_forward_pre_hook(self._stopwatch.mark)
        self._model.encoder.register_forward_hook(self._stopwatch.mark)

    def run(self) -> float:
        """Run it; the milliseconds outside of the block."""
        self._stopwatch.mark()
        self._model(**self._inputs)
        self._stopwatch.mark()
        before, _, after = self._stopwatch.milliseconds()
        return before + after


def draw_children(config: SupernetConfig, num_children: int, seed: int) -> list[Architecture]:
    """Different random children, or all there are.

    Raises:
        ValueError: If none is asked for.
    """
    if num_children < 1:
        raise ValueError(f"num_children must be at least 1, not {num_children}")
    rng, children = random.Random(seed), dict[Architecture, None]()
    while len(children) < min(num_children, config.space.num_children):
        children[config.space.sample(rng, "children")] = None
    return list(children)


def _child(config: SupernetConfig, child: Sequence[str]) -> NasBertModel:
    return NasBertModel(_child_config(config, child, [stage.num_blocks for stage in config.space.stages]))


def _child_config(config: SupernetConfig, operators: Sequence[str], stage_lengths: list[int] | None) -> NasBertConfig:
    sizes = {name: getattr(config, name) for name in LATENCY_SIZES}
    return NasBertConfig(operators=list(operators), stage_lengths=stage_lengths, **sizes)


def compared(
    name: str, children: Sequence[Architecture], expected: Sequence[float], measured: Sequence[float]
) -> Record:
    """What children need by an estimate and in truth: both numbers of each, `mape_percent` and `spearman`."""
    return {
        "children": [
            {"architecture": str(child), f"expected_{name}": estimate, f"measured_{name}": real}
            for child, estimate, real in zip(children, expected, measured, strict=True)
        ],
        "mape_percent": _mape_percent(expected, measured),
        "spearman": _spearman(expected, measured),
    }


def _spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The agreement of two orders; None where one of them is none."""
    return metrics.spearman(a, b) if min(len(set(a)), len(set(b))) > 1 else None


def _mape_percent(expected: Sequence[float], measured: Sequence[float]) -> float:
    """The mean absolute error in per cent of what was measured."""
    return 100 * statistics.mean(abs(a - b) / b for a, b in zip(expected, measured, strict=True))
