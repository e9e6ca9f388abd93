"""The farm: many children trained alone on worker processes, one record each; killed at any moment, it goes on."""

import fcntl
import gzip
import hashlib
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.processes import join, leave_world
from hf_nasbert.records import Record, is_finite_number
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.stopping import StopRequest, interrupts_held, leave
from hf_nasbert.training.arguments import FarmArguments, StandaloneArguments
from hf_nasbert.training.machine import tune_allocator
from hf_nasbert.training.standalone import StandaloneTrainer
from hf_nasbert.writing import WriteError, check_unless_there, check_writable, write_bytes

logger = logging.getLogger(__name__)

_PATIENCE = 3  # workers that may die in a row without any child being finished
_POLL_SECONDS = 0.5
_MOST_CHILDREN = 1_000_000  # more would take years to train, and their list more memory than there is
_NO_ROOM = 74  # exit code of a worker that cannot write its record, as other programs' EX_IOERR


class Job(NamedTuple):
    """One child to train: an architecture under a seed."""

    architecture: Architecture
    seed: int


def plan_jobs(space: SearchSpace, arguments: FarmArguments) -> list[Job]:
    """The children to train, in an order in which a table that is not finished is of use already.

    Children come in random order: first, under seed 0, twice as many as are to be repeated; then the repeated ones
    under their other seeds, which gives the seed noise; then all others.

    Raises:
        ValueError: If more children are asked for than the space has.
    """
    number = arguments.num_children or space.num_children
    if number > space.num_children:
        raise ValueError(f"num_children={number}: the space has {space.num_children} children")
    for name, count in {
        "num_children": number,
        "num_repeated x num_seeds": arguments.num_repeated * arguments.num_seeds,
    }.items():
        if count > _MOST_CHILDREN:
            raise ValueError(f"{name} is {count:,}: a table has at most {_MOST_CHILDREN:,} children")
    rng = random.Random(arguments.order_seed)
    if number == space.num_children:
        children = list(space.enumerate())
        rng.shuffle(children)
    else:
        indices: dict[int, None] = {}
        while len(indices) < number:
            indices[rng.randrange(space.num_children)] = None
        children = [space.child_at(index) for index in indices]
    repeated, first = children[: arguments.num_repeated], 2 * arguments.num_repeated
    return [
        *(Job(child, 0) for child in children[:first]),
        *(Job(child, seed) for seed in range(1, arguments.num_seeds) for child in repeated),
        *(Job(child, 0) for child in children[first:]),
    ]


class Trainer(Protocol):
    """What the farm needs of `StandaloneTrainer`: it travels to the workers by pickle."""

    @property
    def device(self) -> str:
        """`"cpu"` or `"cuda"`."""

    @property
    def space(self) -> SearchSpace:
        """The space of the children."""

    @property
    def recipe_hash(self) -> str:
        """Name of the recipe; part of a record's key."""

    def train(self, architecture: Sequence[str], seed: int, on_step: "OnStep") -> Record:
        """Train one child; `on_step` raises where the farm is no longer there."""


class OnStep(Protocol):
    """Called before every training step."""

    def __call__(self, step: int) -> None:
        """Raise to end the training."""


def read_table(path: str | Path, recipe_hash: str, space: SearchSpace) -> dict[Job, Record]:
    """The children of one recipe that a file holds, by architecture and seed; none if there is no file.

    A half-written last line, the trace of a killed worker, is no record yet.

    Raises:
        ValueError: If the file holds a child of another recipe or space, the same child twice, a record without the
            entries of a child, or a line cut in its middle. Each is named by its place in the file.
    """
    path = Path(path)
    table: dict[Job, Record] = {}
    if not path.exists():
        return table
    for number, record in enumerate(records.read(path), start=1):
        where = f"{path}, record {number}"
        missing = [name for name in ("architecture", "seed", "dev_loss", "recipe_hash") if name not in record]
        if missing:
            raise ValueError(f"{where} is no trained child: it lacks {', '.join(missing)}; name another file")
        if type(record["seed"]) is not int or not is_finite_number(record["dev_loss"]):
            raise ValueError(f"{where} is no trained child: its seed or dev_loss is no number; name another file")
        try:
            architecture = Architecture.parse(record["architecture"])
        except ValueError as error:
            raise ValueError(f"{where} is no trained child: {error}") from None
        reason = space.why_not(architecture)
        if reason is not None:
            raise ValueError(f"{where} is a child of another space, {architecture}: {reason}; name another file")
        if record["recipe_hash"] != recipe_hash:
            raise ValueError(
                f"{where} was trained by the recipe {str(record['recipe_hash'])[:40]}, not by {recipe_hash}: "
                "children of two recipes cannot be ranked together; name another file, or go back to that recipe"
            )
        job = Job(architecture, record["seed"])
        if job in table:
            raise ValueError(f"{where} doubles an earlier one, {architecture} at seed {record['seed']}: remove one")
        table[job] = record
    return table


def run_farm(
    trainer: Trainer,
    jobs: Iterable[tuple[Sequence[str], int]],
    path: str | Path,
    *,
    num_workers: int = 1,
    rank: int = 0,
    num_ranks: int = 1,
    progress: bool = False,
) -> dict[Job, Record]:
    """Train all children that the file does not hold yet, in the order given, each appended as soon as it is done.

    Workers are processes of one torch thread: on two cores, two of them do 1.3 to 1.6 times the work of one with two
    threads. They agree by locks on the children, which a killed process releases, so several farms may share one file
    and no child is ever recorded twice. A killed worker is replaced; the workers of a killed farm stop by themselves.

    Args:
        trainer: Trains one child.
        jobs: Architectures and seeds; repeated ones count once.
        path: File of the records, `.jsonl`, beside which a `.lock` file lies.
        num_workers: Processes of this rank.
        rank: Number of this process among `num_ranks`; every rank takes its share of the jobs.
        num_ranks: Processes over all machines, by Accelerate's count. Without a common file system each machine
            fills a file of its own.
        progress: Whether to show a bar of this rank's children.

    Returns:
        All children of the file.

    Raises:
        ValueError: If the file holds records of another space or recipe (see `read_table`), or a job is not in the
            space.
        ChildProcessError: If children cannot be trained: workers fail one after the other.
        WriteError: If a record cannot be written, as on a full disk; the file is then as it was.
        SystemExit: With status 0, if the process was asked to stop (`stopping.STOP_SIGNALS`): the children in hand
            are given up, all others are in the file.
    """
    path = Path(path)
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers}: expected at least 1")
    if not 0 <= rank < num_ranks:
        raise ValueError(f"rank={rank} of num_ranks={num_ranks}: ranks count from 0")
    everything = dict.fromkeys(Job(trainer.space.validate(architecture), seed) for architecture, seed in jobs)
    share = list(everything)[rank::num_ranks]
    table = read_table(path, trainer.recipe_hash, trainer.space)
    if any(job not in table for job in share):
        check_writable(path, is_appended=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Claim(path, "start"):  # refused now, not by one worker after the other
            pass
    # Forking this process, which may have used torch, could hang; the fork server has only imported it, and once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    workers: list[multiprocessing.process.BaseProcess] = []
    deaths, num_started, size = 0, 0, _size(path)
    try:
        with StopRequest() as stop, tqdm(total=len(share), unit=" children", disable=not progress) as bar:
            while num_open := sum(job not in table for job in share):
                if num_new := len(share) - num_open - bar.n:  # else a log without terminal gets a line every poll
                    bar.update(num_new)
                while len(workers) < min(num_workers, num_open):
                    place = rank * num_workers + num_started
                    workers.append(context.Process(target=_work, args=(trainer, share, path, place), daemon=True))
                    with interrupts_held():
                        workers[-1].start()
                    num_started += 1
                wait([worker.sentinel for worker in workers], timeout=_POLL_SECONDS)
                if stop.is_set:
                    leave(
                        f"stopped: {path} has {len(share) - num_open} or more of {len(share)} children; the same "
                        "command trains the others"
                    )
                codes = [worker.exitcode for worker in workers if worker.exitcode is not None]
                workers = [worker for worker in workers if worker.exitcode is None]
                num_before, size_before, size = len(table), size, _size(path)
                if codes or size != size_before:
                    table = read_table(path, trainer.recipe_hash, trainer.space)
                deaths = sum(code != 0 for code in codes) + (deaths if len(table) == num_before else 0)
                if _NO_ROOM in codes:  # another worker would train a child for nothing
                    raise WriteError(path, "a worker could not, see its message above")
                for code in codes:
                    if code:
                        logger.warning("a worker died with exit code %d; another one takes its place", code)
                if deaths >= _PATIENCE:
                    raise ChildProcessError(
                        f"{deaths} workers died in a row without finishing a child (exit code {codes[-1]}): see their "
                        "messages above; -9 without any may mean that memory ran out"
                    )
            bar.update(len(share) - bar.n)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for worker in workers:
            if worker.pid is not None:  # else Ctrl-C came before it was started
                worker.join()
    return table


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def compress_table(path: str | Path) -> Path:
    """Write the complete records of a file beside it, as `.jsonl.gz`: the same bytes for the same records.

    Raises:
        WriteError: If it cannot be written; what was there is there still.
    """
    path = Path(path)
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    compressed = _compressed(path)
    write_bytes(compressed, gzip.compress(b"".join(lines), mtime=0))
    return compressed


def restore_table(path: str | Path, recipe_hash: str, space: SearchSpace) -> int:
    """Add to a file the children that only its compressed copy holds, as after a fresh checkout; returns how many.

    Raises:
        ValueError: If either file holds something else than children of this space and recipe.
    """
    path = Path(path)
    kept = read_table(_compressed(path), recipe_hash, space)
    if not kept:
        return 0
    with _Claim(path, "restore", wait=True):
        have = read_table(path, recipe_hash, space)
        missing = [record for job, record in kept.items() if job not in have]
        for record in missing:
            records.append(path, record)
    return len(missing)


def train_children(farm: FarmArguments, recipe: StandaloneArguments, data: DataArguments) -> dict[Job, Record]:
    """Do what `hf-nasbert train-children` is asked: go on with a table on all processes, on GPUs where there are any.

    Under torchrun or accelerate every process takes its share of the children.

    Raises:
        ValueError, OSError, SystemExit: See `load_corpus`, `restore_table` and `run_farm`.
    """
    state = join(use_cpu=farm.use_cpu or not torch.cuda.is_available())
    _check_outputs(Path(farm.table))
    with state.local_main_process_first():
        trainer = StandaloneTrainer(
            recipe, load_corpus(data), data_seed=data.data_seed, source=data.source, device=state.device.type
        )
        restore_table(farm.table, trainer.recipe_hash, trainer.space)
    jobs = plan_jobs(trainer.space, farm)
    table = run_farm(
        trainer,
        jobs,
        farm.table,
        num_workers=farm.num_workers,
        rank=state.process_index,
        num_ranks=state.num_processes,
        progress=state.is_main_process,
    )
    compress_table(farm.table)
    leave_world()
    return table


def as_text(table: Mapping[Job, Record], farm: FarmArguments) -> str:
    """A table in one line: how many children, and how far apart they are."""
    losses = [record["dev_loss"] for record in table.values()]
    return f"{farm.table}: {len(losses)} children, dev loss {min(losses):.4f} to {max(losses):.4f}"


def _check_outputs(table: Path) -> None:
    """Refuse places that cannot be written before any text is packed; a table that is there may be complete."""
    check_unless_there(table)
    check_writable(_compressed(table))


def _compressed(table: Path) -> Path:
    return table.with_name(table.name + ".gz")


def _work(trainer: Trainer, jobs: Sequence[Job], path: Path, place: int) -> None:
    """One worker: claim a child that nobody has, train it, append its record; until there is none."""
    torch.set_num_threads(1)  # bit-deterministic
    tune_allocator()
    if trainer.device == "cuda":
        torch.cuda.set_device(place % torch.cuda.device_count())
        torch.backends.cudnn.allow_tf32 = False  # fp32 as on a CPU: one table may be filled on both

    farm = multiprocessing.parent_process()
    assert farm is not None

    def stop_without_farm(step: int) -> None:
        if not farm.is_alive():
            raise SystemExit(f"the farm is gone: a child is left at step {step}")

    def read() -> dict[Job, Record]:
        return read_table(path, trainer.recipe_hash, trainer.space)

    def unless_there(job: Job, record: Record, _: list[Record]) -> list[Record]:
        """The record, unless another farm has written one, or has begun the file by another recipe (an error)."""
        return [] if job in read() else [record]

    while open_jobs := set(jobs) - set(read()):
        is_idle = True
        for job in (job for job in jobs if job in open_jobs):  # in the order that was asked for
            stop_without_farm(0)
            with _Claim(path, f"{trainer.recipe_hash} {job.architecture} {job.seed}") as is_mine:
                # Read after claiming: whoever held the claim before may have finished the child.
                if is_mine and job not in read():
                    record = trainer.train(job.architecture, job.seed, on_step=stop_without_farm)
                    try:
                        records.update(path, partial(unless_there, job, record))
                    except WriteError as error:
                        logger.error("%s", error)
                        raise SystemExit(_NO_ROOM) from None
                    is_idle = False
        if is_idle:  # the last children are in other hands, which may still drop them
            time.sleep(_POLL_SECONDS)


class _Claim:
    """A lock on one child: one byte of the lock file, released by the system when its holder dies."""

    def __init__(self, path: Path, name: str, wait: bool = False) -> None:
        self.path = path.with_name(path.name + ".lock")
        self.flags = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        # Any offset below 2**63 can be locked, whatever the file's size.
        self.place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])

    def __enter__(self) -> bool:
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise WriteError(self.path, error) from error
        try:
            fcntl.lockf(self.descriptor, self.flags, 1, self.place)
        except OSError:
            return False
        return True

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)  # frees all locks that this process has on the file, of which there is one at a time
