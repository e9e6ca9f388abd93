"""Train the same super-nets in fp32 and in bf16 and compare their dev losses, three seeds each.

    python benchmarks/precision.py     does what the record lacks; may be killed and started again at any time

The super-net is that of the ranking study (`--config study`), for fewer steps. A CPU without units for bf16
emulates it: the losses count then, the times do not, and the record says which it was.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from hf_nasbert import records
from hf_nasbert.data import DataArguments
from hf_nasbert.recipe_arguments import read_config
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet, read_log
from hf_nasbert.training.machine import has_bf16_units
from hf_nasbert.writing import write_bytes

ROOT = Path(__file__).parents[1]
CONFIG, RECORD = "study", ROOT / "benchmarks" / "records" / "precision.jsonl.gz"
SEEDS, PRECISIONS = (0, 1, 2), ("no", "bf16")
KINDS = (SupernetArguments, DataArguments, SupernetTrainingArguments)


def train(precision: str, seed: int, num_steps: int, runs: Path) -> dict[str, object]:
    """Train one super-net, or what a killed process left to train of it; returns its record."""
    folder = runs / f"{precision}-{seed}"
    settings = read_config(CONFIG, list(KINDS)) | {
        "output_dir": str(folder), "mixed_precision": precision, "seed": seed, "max_steps": num_steps,
        "eval_steps": max(num_steps // 8, 1), "save_steps": max(num_steps // 8, 1), "save_total_limit": 1,
        "resume_from_checkpoint": "latest", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    start = time.process_time()
    pretrain_supernet(
        *(kind(**{name: settings[name] for name in kind.__dataclass_fields__ if name in settings}) for kind in KINDS)
    )
    curve = [[record["step"], round(record["loss"], 5)] for record in read_log(folder) if record["event"] == "eval"]
    return {
        "precision": precision, "seed": seed, "steps": num_steps, "dev_losses": curve,
        "cpu_seconds": round(time.process_time() - start, 1), "has_bf16_units": has_bf16_units(),
        "versions": records.versions(),
    }  # fmt: skip


def main() -> None:
    """Train what is missing, each super-net in a process of its own, and print the last dev losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "precision")
    parser.add_argument("--one", nargs=2, metavar=("PRECISION", "SEED"), help="train one and print its record")
    arguments = parser.parse_args()
    if arguments.one is not None:
        precision, seed = arguments.one
        print(json.dumps(train(precision, int(seed), arguments.steps, arguments.runs)))
        return
    found = records.read(RECORD) if RECORD.is_file() else []
    for seed in SEEDS:
        for precision in PRECISIONS:
            if any((one["precision"], one["seed"]) == (precision, seed) for one in found):
                continue
            command = [sys.executable, __file__, "--steps", str(arguments.steps), "--runs", str(arguments.runs)]
            command += ["--one", precision, str(seed)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(output.splitlines()[-1]))
            write_bytes(RECORD, gzip.compress("".join(json.dumps(one) + "\n" for one in found).encode(), mtime=0))
        last = [one["dev_losses"][-1][1] for one in found if one["seed"] == seed]
        print(f"seed {seed}: dev loss {last[0]} in fp32, {last[1]} in bf16", flush=True)


if __name__ == "__main__":
    main()
