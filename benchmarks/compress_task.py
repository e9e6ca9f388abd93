"""Compress a fine-tuned classifier on its labelled examples: MiniLM-L6 on rotten_tomatoes, half and a quarter of it.

    python benchmarks/compress_task.py run --seeds 0 --budgets 0.5x    fine-tunes, compresses; goes on where it stopped
    python benchmarks/compress_task.py collect                         records the stages that are finished so far
    python benchmarks/compress_task.py show                            prints means over the seeds that are recorded

Base model and sentences come out of pinned packages (recipes/data-requirements.txt). A seed is that of fine-tuning
and of recovery: every seed has a base model of its own. The validation split chooses and the test split judges. One
thread; times are CPU-seconds of the process. One record per stage goes to benchmarks/records/compress-task.jsonl.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from hf_nasbert import compress, records
from hf_nasbert.compression import CompressDataArguments
from hf_nasbert.data.packaged import packaged_model
from hf_nasbert.finetuning import FinetuneArguments, finetune

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records" / "compress-task.jsonl"
DATA = "rotten_tomatoes"
LENGTH = 64  # tokens: one sentence in a thousand is longer


def base_of(folder: Path, seed: int) -> Path:
    """The fine-tuned base model of a seed; made where there is none."""
    arguments = FinetuneArguments(
        model=str(packaged_model("all-MiniLM-L6-v2")), packaged=DATA, output_dir=str(folder / "base"), seeds=[seed],
        learning_rate=1e-4, num_train_epochs=2, max_seq_length=LENGTH,
    )  # fmt: skip
    finetune(arguments)
    return arguments.model_folder(DATA, seed)


def run(folder: Path, output: Path, seeds: list[int], budgets: list[str], options: dict[str, Any]) -> None:
    """Fine-tune and compress, seed by seed and budget by budget."""
    torch.set_num_threads(1)
    for seed in seeds:
        base = base_of(folder, seed)
        for budget in budgets:
            told = "".join(f" {name}={value}" for name, value in options.items())
            result = compress(
                base, CompressDataArguments(packaged=DATA), output_dir=folder / f"{budget} seed {seed}{told}",
                max_parameters=budget, max_seq_length=LENGTH, seeds=[seed], base_model_id=None, **options,
            )  # fmt: skip
            print(f"{budget}, seed {seed}{told}\n{result}\n", flush=True)
            collect(folder, output)


def collect(folder: Path, output: Path) -> None:
    """Append the records of finished stages that are not there yet, without what every example was called."""
    there = {(one["run"], one["stage"]) for one in records.read(output)} if output.exists() else set()
    for file in sorted(folder.glob("base/records.jsonl")):
        for record in records.read(file):
            if ("base", f"seed {record['seed']}") not in there:
                kept = {name: record[name] for name in ("metrics", "num_samples", "seconds", "settings", "versions")}
                records.append(output, {"run": "base", "stage": f"seed {record['seed']}", **kept})
    for file in sorted(folder.glob("*/stages.jsonl")):
        for record in records.read(file):
            if (file.parent.name, record["stage"]) not in there:
                content = record["content"]
                if "judged" in content:
                    content = content | {"judged": content["judged"] | {"predictions": None}}
                records.append(output, {"run": file.parent.name, **record, "content": content})


def show(output: Path) -> None:
    """Means over seeds: accuracy on the test split, its share of the base model's, and CPU-seconds of all stages."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    seconds: dict[str, list[float]] = {}
    all_records = list(records.read(output))
    for record in all_records:
        if record["stage"] != "proof":
            continue
        what = " ".join(word for word in record["run"].split() if not word.isdigit() and word != "seed")
        own = [one["cpu_seconds"] for one in all_records if one["run"] == record["run"] and "cpu_seconds" in one]
        seconds.setdefault(what, []).append(sum(own))
        whole = record["content"]["rows"][0]["judged"][0]["metrics"]["accuracy"]
        for row in record["content"]["rows"]:
            how = "layers" if row["how"].startswith("layers") else row["how"].split()[0]
            accuracy = row["judged"][0]["metrics"]["accuracy"]
            found.setdefault((what, how), []).append({"accuracy": accuracy, "kept": accuracy / whole, **row})
    for (what, how), rows in found.items():
        accuracy, kept = (statistics.fmean(row[name] for row in rows) for name in ("accuracy", "kept"))
        print(f"{what:28} {how:12} {len(rows)} seed(s)  accuracy {accuracy:.4f}  kept {kept:.2%}")
    for what, all_seconds in seconds.items():
        print(f"{what:28} {statistics.fmean(all_seconds):.0f} CPU-seconds a run, what people choose by hand included")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "collect", "show"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress-task", help="Of what stages keep.")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", default=["0.5x", "0.25x"], help="Of the encoder's parameters.")
    parser.add_argument("--label_weight", type=float, help="Another one than the command's own.")
    parser.add_argument("--rank_by", choices=("metric", "distance"), help="Likewise.")
    parser.add_argument("--scorer", choices=("additive", "inherited", "supernet"), help="Likewise.")
    parser.add_argument("--num_rescored", type=int, help="Likewise.")
    parser.add_argument("--recovery_steps", type=int, help="Likewise.")
    arguments = parser.parse_args()
    names = ("label_weight", "rank_by", "scorer", "num_rescored", "recovery_steps")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.command == "run":
        run(arguments.folder, arguments.records, arguments.seeds, arguments.budgets, options)
    elif arguments.command == "collect":
        collect(arguments.folder, arguments.records)
    else:
        show(arguments.records)


if __name__ == "__main__":
    main()
