"""Kill a training run at a hundred random moments, resume it each time, and hold it against one that was left alone.

    python benchmarks/faults.py run       kills, and writes benchmarks/records/faults.jsonl.gz (some minutes)
    python benchmarks/faults.py page      makes the tables of docs/reliability.md anew from the records

The run is what `recipes/pretrain_supernet.py` calls, with an anchor (MAGIC-AT), on real text and a tiny super-net;
every life is a process of its own that ends by SIGKILL or at the last step. So that every part of a run is hit often
enough, each kill chooses a part first (a step, a save, judging the anchor, ...), lets some steps go by, waits until
the process says that it is there, and strikes at a random moment of the part's usual duration. What counts is the part
in which the process died. When a run has come to its end, everything it leaves is compared with the one left alone.
"""

import argparse
import gzip
import json
import mmap
import multiprocessing
import os
import random
import shutil
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
# The locks of killed processes are what this is about, and no leak.
os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"

import torch

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.data import DataArguments
from hf_nasbert.records import Record
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet, read_log
from hf_nasbert.training.checkpoints import OPTIMIZER, STATE, list_checkpoints, read_json
from hf_nasbert.training.loop import SupernetLoop

ROOT = Path(__file__).parents[1]
RECORDS, PAGE = ROOT / "benchmarks" / "records" / "faults.jsonl.gz", ROOT / "docs" / "reliability.md"
STEPS, NUM_DOCUMENTS = 60, 400
PARTS = {  # what a process is at, and how often a kill is meant for it
    "start or resume": 1,
    "training step": 5,
    "judging the anchor": 4,
    "evaluation": 4,
    "checkpoint": 5,
    "final super-net": 1,
}
METHODS = {
    "_take_step": "training step",
    "_score": "judging the anchor",
    "evaluate": "evaluation",
    "save_checkpoint": "checkpoint",
    "save_model": "final super-net",
}


class Marker:
    """Where a process is, in memory that outlives it: number of the part, steps done, parts entered, time of entry."""

    layout = struct.Struct("iiid")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self.layout.size))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def read(self) -> tuple[str, int, int, float]:
        """Part, steps done, parts entered, when the present one was."""
        number, step, entered, since = self.layout.unpack(self.memory[:])
        return list(PARTS)[number], step, entered, since

    def write(self, part: str, step: int, entered: int) -> None:
        """Say where this process is."""
        self.memory[:] = self.layout.pack(list(PARTS).index(part), step, entered, time.monotonic())


def live(folder: Path, text: Path, seed: int, steps: int, marker_file: Path, durations: Path | None) -> None:
    """One life of the run, in a process of its own."""
    torch.set_num_threads(1)
    marker = Marker(marker_file)
    marker.write("start or resume", 0, 0)
    for name, part in METHODS.items():
        setattr(SupernetLoop, name, marking(getattr(SupernetLoop, name), part, marker, durations))
    pretrain_supernet(
        SupernetArguments(operators=["attention", "ffn", "conv3", "conv5"], num_choice_blocks=4, hidden_size=64),
        DataArguments(
            train_files=[str(text)], vocab_size=2000, max_seq_length=64, cache_dir=str(text.parent / "cache")
        ),
        SupernetTrainingArguments(
            output_dir=str(folder), method="magic_at", max_steps=steps, per_device_train_batch_size=8, seed=seed,
            method_settings={"anchor_interval": 2, "alignment_rows": 1.0}, eval_steps=5, num_eval_batches=2,
            num_eval_children=4,
            logging_steps=1, save_steps=3, resume_from_checkpoint="latest", report_to="none", disable_tqdm=True,
            use_cpu=True,
        ),
    )  # fmt: skip


def marking(method: Callable[..., Any], part: str, marker: Marker, durations: Path | None) -> Callable[..., Any]:
    """The method, which says that it is at work, and, if that is wanted, how long it took."""

    def marked(trainer: SupernetLoop, *arguments: Any) -> Any:
        around, _, entered, _ = marker.read()
        marker.write(part, trainer.global_step, entered + 1)
        start = time.monotonic()
        try:
            return method(trainer, *arguments)
        finally:
            if durations is not None:
                records.append(durations, {"part": part, "seconds": time.monotonic() - start})
            marker.write("training step" if around == "start or resume" else around, trainer.global_step, entered + 1)

    return marked


class Experiment:
    """One run, lived straight through and killed again and again.

    Args:
        folder: For everything; emptied first.
        text: The text to train on.
        seed: Of the run and of the kills.
        steps: Of the run.
    """

    def __init__(self, folder: Path, text: Path, seed: int, steps: int) -> None:
        self.folder, self.text, self.seed, self.steps = folder, text, seed, steps
        self.straight, self.killed = folder / "straight", folder / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.marker = Marker(folder / "marker")
        self.rng = random.Random(f"faults {seed}")
        # What a life needs is imported once, not once per life (Python 3.11 does not do it for "__main__").
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["hf_nasbert.training", "hf_nasbert.data", "hf_nasbert.cards"])

    def start(self, folder: Path, durations: Path | None = None) -> multiprocessing.process.BaseProcess:
        """Begin a life."""
        self.marker.write("start or resume", 0, 0)
        life = self.context.Process(
            target=live,
            args=(folder, self.text, self.seed, self.steps, self.folder / "marker", durations),
            daemon=True,
        )
        life.start()
        return life

    def run(self, most_kills: int) -> list[Record]:
        """Live straight through, then with kills; returns a record of every kill, and one of the run."""
        durations = self.folder / "durations.jsonl"
        life = self.start(self.straight, durations)
        life.join()
        assert life.exitcode == 0
        usual: dict[str, float] = {"start or resume": 0.3}
        for part in METHODS.values():
            usual[part] = statistics.median(
                record["seconds"] for record in records.read(durations) if record["part"] == part
            )
        kills: list[Record] = []
        while True:
            life = self.start(self.killed)
            kill = self.strike(life, usual) if len(kills) < most_kills else None
            life.join()
            self.tell_resumption(kills)
            if kill is None:
                assert life.exitcode == 0, f"a resumed life ended with {life.exitcode}"
                break
            kills.append({"record": "kill", "seed": self.seed, "number": len(kills) + 1, **kill})
        mismatches = differences(self.straight, self.killed)
        return [
            *kills,
            {
                "record": "run", "seed": self.seed, "kills": len(kills), "steps": self.steps, "mismatches": mismatches,
                "compared": COMPARED, "usual_seconds": {part: round(value, 4) for part, value in usual.items()},
                "versions": records.versions(),
            },
        ]  # fmt: skip

    def strike(self, life: multiprocessing.process.BaseProcess, usual: dict[str, float]) -> Record | None:
        """Kill a life somewhere; None if it came to its end before."""
        part = self.rng.choices(list(PARTS), weights=list(PARTS.values()))[0]
        num_steps, share = self.rng.randrange(7), self.rng.random()
        first_step, is_there = None, False
        while life.exitcode is None and not is_there:
            at, step, entered, _ = self.marker.read()
            if entered and first_step is None:
                first_step = step
            is_long_enough = first_step is not None and step >= min(first_step + num_steps, self.steps - 1)
            is_there = at == part and (is_long_enough or part == "start or resume")
            time.sleep(0.0003)
        time.sleep(share * usual[part])
        life.kill()
        life.join()
        if life.exitcode == 0:
            return None
        assert life.exitcode == -9, f"a life ended with {life.exitcode}"
        at, step, _, _ = self.marker.read()
        left = sorted(file.name for file in self.killed.glob(".*")) if self.killed.exists() else []
        return {"meant": part, "part": at, "step": step, "left": left, "num_begun": len(self.begins())}

    def tell_resumption(self, kills: list[Record]) -> None:
        """Complete the records of kills by where a life after them went on."""
        begins = self.begins()
        for kill in kills:
            if "resumed_at" not in kill and len(begins) > kill["num_begun"]:
                kill["resumed_at"] = begins[kill["num_begun"]]
                is_early = kill["part"] == "start or resume"  # nothing was trained in that life
                kill["lost"] = 0 if is_early else kill["step"] - kill["resumed_at"]

    def begins(self) -> list[int]:
        """The steps at which the lives that came to train began, in their order."""
        log = self.killed / "train_log.jsonl"
        found = records.read(log) if log.exists() else []
        return [record["step"] for record in found if record["event"] in ("start", "resume")]


COMPARED = ["final super-net", "weights", "optimizer", "state", "log of steps", "log of evaluations", "log of anchors"]


def differences(straight: Path, killed: Path) -> list[str]:
    """What the two runs left that is not the same to the bit."""
    last = [list_checkpoints(folder)[-1] for folder in (straight, killed)]
    state_keys = ("step", "identity", "method", "update_counter", "num_skipped", "window")

    def log(folder: Path, event: str) -> list[Record]:
        found = [dict(record) for record in read_log(folder) if record["event"] == event]
        for record in found:
            record.pop("tokens_per_second", None)  # the clock is not repeated
        return found

    def same(compare: Callable[[Path], Any], folders: list[Path]) -> bool:
        one, other = map(compare, folders)
        return bool(one == other)

    runs = [straight, killed]
    is_same = {
        "final super-net": same(lambda folder: (folder / "model.safetensors").read_bytes(), runs),
        "weights": same(lambda folder: (folder / "model.safetensors").read_bytes(), last),
        "optimizer": same(lambda folder: (folder / OPTIMIZER).read_bytes(), last),
        "state": same(lambda folder: [read_json(folder / STATE)[key] for key in state_keys], last),
        "log of steps": same(lambda folder: log(folder, "train"), runs),
        "log of evaluations": same(lambda folder: log(folder, "eval"), runs),
        "log of anchors": same(lambda folder: log(folder, "anchor"), runs),
    }
    assert list(is_same) == COMPARED
    return [name for name, is_equal in is_same.items() if not is_equal]


def make_text(file: Path, source: Path | None) -> Path:
    """A file of lines: a copy of one, or some hundred reviews of the packaged imdb."""
    from hf_nasbert.data.packaged import packaged_text

    file.parent.mkdir(parents=True, exist_ok=True)
    if source is not None:
        shutil.copy(source, file)
        return file
    documents = packaged_text("imdb")["text"][:NUM_DOCUMENTS]
    file.write_text("\n".join(" ".join(document.split()) for document in documents) + "\n", encoding="utf-8")
    return file


def run(num_kills: int, steps: int, folder: Path, text: Path, output: Path) -> list[Record]:
    """Experiment with one seed after the other until there were enough kills; writes all records."""
    found: list[Record] = []
    seed = 0
    while (missing := num_kills - sum(record["record"] == "kill" for record in found)) > 0:
        found += Experiment(folder / f"seed-{seed}", text, seed, steps).run(missing)
        print(f"seed {seed}: {found[-1]['kills']} kills, mismatches: {found[-1]['mismatches'] or 'none'}", flush=True)
        seed += 1
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in found)
    output.write_bytes(gzip.compress(lines.encode(), mtime=0))
    return found


def tables(found: list[Record]) -> dict[str, str]:
    """The tables of the page."""
    kills = [record for record in found if record["record"] == "kill"]
    runs = [record for record in found if record["record"] == "run"]
    lines = ["| killed during | kills | resumed | steps lost, mean | most |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in [*PARTS, "all"]:
        here = [kill for kill in kills if name in (kill["part"], "all")]
        lost = [kill["lost"] for kill in here if "lost" in kill]
        numbers = f"{statistics.mean(lost):.1f} | {max(lost)}" if lost else "- | -"
        lines.append(f"| {name} | {len(here)} | {len(lost)} | {numbers} |")
    num_partial = sum(any(".partial" in name for name in kill["left"]) for kill in kills)
    mismatches = sum(len(run["mismatches"]) for run in runs)
    summary = [
        "| | |", "| --- | ---: |",
        f"| runs, each beside one left alone | {len(runs)} |",
        f"| steps of a run; a checkpoint every 3 | {runs[0]['steps']} |",
        f"| kills | {len(kills)} |",
        f"| kills that left a half-written checkpoint or super-net behind | {num_partial} |",
        f"| comparisons: {', '.join(COMPARED)} | {len(runs) * len(COMPARED)} |",
        f"| mismatches | {mismatches} |",
    ]  # fmt: skip
    return {"kills": "\n".join(lines), "runs": "\n".join(summary)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--num_kills", type=int, default=100)
    running.add_argument("--steps", type=int, default=STEPS, help="Of every run.")
    running.add_argument("--folder", type=Path, default=ROOT / "runs" / "faults", help="For the runs; emptied first.")
    running.add_argument("--text", type=Path, help="A text file; by default reviews of the packaged imdb.")
    running.add_argument("--records", type=Path, default=RECORDS)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "page":
        fill_page(PAGE, tables(records.read(RECORDS)))
        return
    text = make_text(arguments.folder / "text.txt", arguments.text)
    print(tables(run(arguments.num_kills, arguments.steps, arguments.folder, text, arguments.records))["kills"])


if __name__ == "__main__":
    main()
