"""Measure a checkpoint: CPU-seconds of saving and checking it, and what resuming holds beside what it restores.

    python benchmarks/checkpoint.py compare OTHER     this source tree and another one in turns; writes the record
    python benchmarks/checkpoint.py save FOLDER       one measurement of this tree, as a line of JSON
    python benchmarks/checkpoint.py resume FOLDER     likewise, of the checkpoint that was saved there

Every measurement is a process of its own: a super-net with moments for all its operators is saved; in a second
process the same super-net without moments takes it back. Reads Linux's counts of memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hf_nasbert import records
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.training import SupernetTrainingArguments, checkpoints
from hf_nasbert.training.step import make_optimizer
from hf_nasbert.writing import write_text

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "records" / "checkpoint.json"
MEBI = 2**20


def build(folder: Path, hidden_size: int) -> tuple[SupernetForMaskedLM, torch.optim.AdamW]:
    """A super-net of MAGIC's space, and its optimizer, which has no state yet."""
    torch.set_num_threads(1)
    supernet = SupernetForMaskedLM(SupernetConfig.preset("magic-base", vocab_size=8192, hidden_size=hidden_size))
    return supernet, make_optimizer(supernet, SupernetTrainingArguments(output_dir=str(folder)))


def save(folder: Path, hidden_size: int) -> dict[str, float]:
    """Save a checkpoint and check it, as `latest` does before it resumes."""
    supernet, optimizer = build(folder, hidden_size)
    for parameter in supernet.parameters():
        moments = {name: torch.randn_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}

    def write(partial: Path) -> None:
        checkpoints.save_model(supernet, partial)
        checkpoints.save_optimizer(optimizer, supernet, partial)
        checkpoints.write_json(partial / checkpoints.STATE, {})

    start, system = time.process_time(), os.times().system
    checkpoint = checkpoints.write_checkpoint(folder, 1, write)
    saved, system_seconds = time.process_time(), os.times().system - system
    checkpoints.verify_checkpoint(checkpoint)
    return {
        "mebibytes": sum(file.stat().st_size for file in checkpoint.iterdir()) / MEBI,
        "save_cpu_seconds": saved - start,
        "save_system_cpu_seconds": system_seconds,
        "check_cpu_seconds": time.process_time() - saved,
    }


def resume(folder: Path, hidden_size: int) -> dict[str, float]:
    """Load the checkpoint; in MiB, what was held at most beyond the super-net and the optimizer's state."""
    supernet, optimizer = build(folder, hidden_size)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    start = time.process_time()
    checkpoints.load_model(supernet, folder / "checkpoint-1")
    checkpoints.load_optimizer(optimizer, supernet, folder / "checkpoint-1")
    seconds, peak = time.process_time() - start, resident("VmHWM")
    state = sum(tensor.nbytes for moments in optimizer.state.values() for tensor in moments.values()) / MEBI
    return {
        "optimizer_mebibytes": state,
        "largest_tensor_mebibytes": max(tensor.nbytes for tensor in supernet.parameters()) / MEBI,
        "held_beside_mebibytes": peak - before - state,
        "load_cpu_seconds": seconds,
    }


def resident(kind: str) -> float:
    """A count of this process' memory in MiB: VmRSS, or VmHWM, the peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


def compare(other: Path, rounds: int) -> dict[str, object]:
    """Medians of both trees, whose measurements take turns."""
    found: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    for _ in range(rounds):
        for name, tree in (("before", other), ("now", ROOT)):
            with tempfile.TemporaryDirectory(dir=other) as folder:
                measured: dict[str, float] = {}
                for part in ("save", "resume"):
                    output = subprocess.run(
                        [sys.executable, __file__, part, folder],
                        env={**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"},
                        capture_output=True, text=True, check=True,
                    ).stdout  # fmt: skip
                    measured |= json.loads(output.splitlines()[-1])
                found[name].append(measured)
    medians = {
        name: {key: round(statistics.median(one[key] for one in measured), 3) for key in measured[0]}
        for name, measured in found.items()
    }
    return {**medians, "rounds": rounds, "versions": records.versions()}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["save", "resume", "compare"])
    parser.add_argument("folder", type=Path, help="of the checkpoint; for compare the other source tree")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden_size", type=int, default=256, help="of save and resume")
    arguments = parser.parse_args()
    if arguments.part == "compare":
        text = json.dumps(compare(arguments.folder, arguments.rounds), indent=1)
        write_text(RECORD, text + "\n")
    else:
        text = json.dumps({"save": save, "resume": resume}[arguments.part](arguments.folder, arguments.hidden_size))
    print(text)


if __name__ == "__main__":
    main()
