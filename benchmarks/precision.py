"""Train the same super-nets in fp32 and in bf16 and compare their dev losses, three seeds each.

    python benchmarks/precision.py     does what the record lacks; may be killed and started again at any time

The super-net is that of the ranking study (recipes/configs/study.yaml), for fewer steps. A CPU without units for bf16
emulates it: the losses count then, the times do not, and the record says which it was.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from hf_nasbert import records
from hf_nasbert.data import DataArguments
from hf_nasbert.recipe_arguments import read_config
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet, read_log
from hf_nasbert.training.machine import has_bf16_units

ROOT = Path(__file__).parents[1]
CONFIG, RECORD = ROOT / "recipes" / "configs" / "study.yaml", ROOT / "benchmarks" / "records" / "precision.jsonl"
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
    """Train what is missing, and print the last dev losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "precision")
    arguments = parser.parse_args()
    found = records.read(RECORD) if RECORD.is_file() else []
    for seed in SEEDS:
        for precision in PRECISIONS:
            if not any((one["precision"], one["seed"]) == (precision, seed) for one in found):
                found.append(train(precision, seed, arguments.steps, arguments.runs))
                records.append(RECORD, found[-1])
        last = [one["dev_losses"][-1][1] for one in found if one["seed"] == seed]
        print(f"seed {seed}: dev loss {last[0]} in fp32, {last[1]} in bf16", flush=True)


if __name__ == "__main__":
    main()
