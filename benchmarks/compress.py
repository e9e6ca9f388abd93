"""Half and a quarter of MiniLM-L6 by `hf_nasbert.compress` itself, beside what people choose by hand: the bars.

    python benchmarks/compress.py run half quarter     each run to its end, or on from where it was killed
    python benchmarks/compress.py collect              writes down the stages that are done so far
    python benchmarks/compress.py show                 prints the table of docs/compress.md, of what is recorded

The base model, text (Wikipedia and film reviews, three to two) and the pairs of STS-B's test split come out of pinned
packages (recipes/data-requirements.txt). One thread; times are CPU-seconds of the process. Every stage of a run leaves
its record, as the command writes it, in benchmarks/records/compress.jsonl, with the name of the run; `show` reads what
is committed of it (compress.jsonl.gz) where that file is not there.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch

from hf_nasbert import records
from hf_nasbert.compression import compress
from hf_nasbert.data.packaged import packaged_text

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records" / "compress.jsonl"
RUNS: dict[str, dict[str, Any]] = {
    "half": {"max_parameters": "0.5x"},
    "quarter": {"max_parameters": "0.25x", "recovery_steps": 1200},
    "half-latency": {"max_latency": "0.5x"},
    # Other sentences of the same text, to see how far quality depends on which ones were drawn.
    "half-text-1": {"max_parameters": "0.5x", "seeds": [0], "handmade": False, "text_seed": 1},
    "half-text-2": {"max_parameters": "0.5x", "seeds": [0], "handmade": False, "text_seed": 2},
}
MAKING = ("costs", "text", "base model", "variants", "lone replacements", "search")
"""Stages that make a child, beside its recovery; the others compare and prove it."""


def texts(seed: int = 0) -> datasets.Dataset:
    """Paragraphs of Wikipedia and reviews, about three to two; in another order for another seed than 0."""
    wiki, imdb = packaged_text("boolq-wikipedia"), packaged_text("imdb")
    mixed = datasets.concatenate_datasets([wiki, imdb.select(range(2 * len(wiki) // 3))])
    return mixed.shuffle(seed=seed) if seed else mixed


def run(name: str, folder: Path, output: Path) -> None:
    """One run, or the rest of it."""
    torch.set_num_threads(1)
    settings = {"seeds": [0, 1, 2], **RUNS[name]}
    text = texts(settings.pop("text_seed", 0))
    result = compress(
        "packaged:all-MiniLM-L6-v2", text, output_dir=folder / name, pairs_file="packaged:stsb", **settings
    )
    print(result)
    collect(folder, output)


def collect(folder: Path, output: Path) -> None:
    """Write down the stages that are done and have no record yet."""
    known = {(one["run"], one["stage"]) for one in records.read(output)} if output.exists() else set()
    for name in RUNS:
        stages = folder / name / "stages.jsonl"
        for record in records.read(stages) if stages.exists() else ():
            if (name, record["stage"]) not in known:
                records.append(output, {"run": name, **record})


def as_table(made: list[dict[str, Any]]) -> str:
    """What is recorded, as Markdown: every run, and every child of it that was recovered."""
    lines = [
        "| run | child | STS-B test by seed | mean, of the base model's | cosine | parameters of blocks | ms 1 x 128 "
        "· 32 x 128, of the base model's | CPU-s to choose · recover |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(one["run"] for one in made):
        stages = {one["stage"]: one for one in made if one["run"] == name}
        if "proof" not in stages:
            continue
        base, *rows = stages["proof"]["content"]["rows"]
        whole = base["judged"][0]["spearman"]
        making = sum(one["cpu_seconds"] for stage, one in stages.items() if stage.startswith(MAKING))
        for row in rows:
            child, how = row["architecture"], "searched" if row["how"] == "searched" else row["how"]
            own = [one for stage, one in stages.items() if stage.startswith(f"recovery {child} seed")]
            found = [judged["spearman"] for judged in row["judged"]]
            mean, cosine = statistics.fmean(found), statistics.fmean(judged["cosine"] for judged in row["judged"])
            times = (row[key] / base[key] for key in ("latency_one_ms", "latency_batch_ms"))
            seconds = statistics.fmean(one["cpu_seconds"] for one in own)
            cells = (
                name, how, " ".join(f"{value:.4f}" for value in found), f"{mean:.4f}, {mean / whole:.1%}",
                f"{cosine:.3f}", f"{row['num_encoder_parameters'] / base['num_encoder_parameters']:.1%}",
                " · ".join(f"{time:.0%}" for time in times),
                f"{making:.0f} · {seconds:.0f}" if how == "searched" else f"{seconds:.0f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def show(output: Path) -> None:
    """Print every run: its children and what they are worth, and the CPU-seconds that they took."""
    print(as_table(records.read(output)), end="")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress", help="Of the runs.")
    parser.add_argument("--records", type=Path, default=RECORDS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("names", nargs="+", choices=RUNS)
    commands.add_parser("collect")
    commands.add_parser("show")
    arguments = parser.parse_args()
    if arguments.command == "run":
        for name in arguments.names:
            run(name, arguments.folder, arguments.records)
    elif arguments.command == "collect":
        collect(arguments.folder, arguments.records)
    else:
        show(arguments.records if arguments.records.exists() else arguments.records.with_suffix(".jsonl.gz"))


if __name__ == "__main__":
    main()
