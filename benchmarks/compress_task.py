"""Compress a fine-tuned classifier on its labelled examples: MiniLM-L6 on rotten_tomatoes, half and a quarter of it.

    python benchmarks/compress_task.py run --seeds 0 --budgets 0.5x    fine-tunes, compresses; goes on where it stopped
    python benchmarks/compress_task.py collect                         records the stages that are finished so far
    python benchmarks/compress_task.py show                            prints means over the seeds that are recorded

Base model and sentences come out of pinned packages (data/data-requirements.txt). A seed is that of fine-tuning
and of recovery: every seed has a base model of its own. The validation split chooses and the test split judges. One
thread; times are CPU-seconds of the process. One record per stage goes to benchmarks/records/compress-task.jsonl;
`show` reads what is committed of it (compress-task.jsonl.gz) where that file is not there.
"""

import argparse
import os
import re
import statistics
from collections.abc import Sequence
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
MAKING = ("costs", "text", "base model", "variants", "lone replacements", "super-net", "search")
"""Stages that make a child, beside its recovery; the others compare and prove it."""


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
    """Append the records of finished stages that are not there yet, less predictions and importances."""
    there = {(one["run"], one["stage"]) for one in records.read(output)} if output.exists() else set()
    for file in sorted(folder.glob("base/records.jsonl")):
        for record in records.read(file):
            if ("base", f"seed {record['seed']}") not in there:
                kept = {name: record[name] for name in ("metrics", "num_samples", "seconds", "settings", "versions")}
                records.append(output, {"run": "base", "stage": f"seed {record['seed']}", **kept})
    for file in sorted(folder.glob("*/stages.jsonl")):
        for record in records.read(file):
            if (file.parent.name, record["stage"]) not in there:
                content = {name: value for name, value in record["content"].items() if name != "importance"}
                if "judged" in content:
                    content = content | {"judged": content["judged"] | {"predictions": None}}
                records.append(output, {"run": file.parent.name, **record, "content": content})


def as_table(made: Sequence[records.Record]) -> str:
    """What is recorded, as Markdown: every budget, and every way to choose a child, means over seeds.

    The standard error is that of drawing other test sentences. All seeds are judged by the same ones, so that more
    seeds make it no smaller: it is the mean of theirs. CPU-seconds of the searched child are those to choose it and
    those of its recovery, of the others those of recovery alone.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for proof in (one for one in made if one["stage"] == "proof"):
        own = [one for one in made if one["run"] == proof["run"]]
        base, *rows = proof["content"]["rows"]
        whole = base["judged"][0]["metrics"]["accuracy"]
        making = sum(one["cpu_seconds"] for one in own if one["stage"].startswith(MAKING))
        budget, _, seed, *told = proof["run"].split()  # 0.5x seed 0, and settings
        for row in (base, *rows):
            how = re.sub("^layers .*", "best layers", re.sub("^uniform .*", "uniform width", row["how"]))
            accuracy = row["judged"][0]["metrics"]["accuracy"]
            recovery = f"recovery {row['architecture']} seed {seed}"
            values = {
                "accuracy": accuracy,
                "kept": accuracy / whole,
                "blocks": row["num_encoder_parameters"] / base["num_encoder_parameters"],
                "recovery": sum(one["cpu_seconds"] for one in own if one["stage"] == recovery),
                "making": making if how == "searched" else 0.0,
                "seed": int(seed),
            }
            if row is not base:
                values["difference"], values["standard_error"] = row["against_base"]
            found.setdefault((" ".join([budget, *told]), how), []).append(values)
    lines = [
        "| budget | child | accuracy on test by seed | mean, of the base model's | difference (standard error) "
        "| parameters of blocks | CPU-s to choose · recover |",
        "|---|---|---|---|---|---|---|",
    ]
    for (budget, how), of_seeds in found.items():
        of_seeds.sort(key=lambda values: values["seed"])
        mean = {name: statistics.fmean(values[name] for values in of_seeds) for name in of_seeds[0]}
        seconds = [f"{mean['making']:.0f}"] * bool(mean["making"]) + [f"{mean['recovery']:.0f}"]
        is_base = "difference" not in mean
        cells = (
            budget, how, " ".join(f"{values['accuracy']:.4f}" for values in of_seeds),
            f"{mean['accuracy']:.4f}, {mean['kept']:.1%}",
            "" if is_base else f"{mean['difference']:+.4f} ({mean['standard_error']:.4f})",
            f"{mean['blocks']:.1%}", "" if is_base else " · ".join(seconds),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def show(output: Path) -> None:
    """Print the table of what is recorded."""
    print(as_table(records.read(output if output.exists() else output.with_suffix(".jsonl.gz"))), end="")


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
