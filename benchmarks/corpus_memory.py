"""Memory of preparing a corpus and training on it, at two sizes. `--json FILE` writes the record.

    python benchmarks/corpus_memory.py --megabytes 100 400 --json benchmarks/records/corpus-memory.json

For each size, documents of 200 to 2,000 characters are written to a text file (words drawn by Zipf's law from 50,000
made-up ones, seed 0), and a fresh process prepares them: read, hold out, train a tokenizer, pack, then draw masked
batches. Its memory is read every 10 ms. `anonymous` is what a process needs (heap and stacks); `mapped` are pages of
the Arrow files that it has read, which the system takes back whenever it needs them, so they may be as large as the
files where memory is free. A second process finds everything cached.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

NUM_BATCHES = 200


def write_corpus(path: Path, megabytes: float) -> int:
    """Write documents, one a line; returns their number."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(50_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    size = num_documents = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            document = " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(40, 400)))
            size += file.write(document + ".\n")
            num_documents += 1
    return num_documents


class Watch(threading.Thread):
    """The peaks of this process's memory, in bytes, by stage."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stage = "import"
        self.peaks: dict[str, dict[str, int]] = {}
        self.start()

    def run(self) -> None:
        """Look, and look again."""
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            here = self.peaks.setdefault(self.stage, {"anonymous": 0, "mapped": 0})
            for name, key in (("anonymous", "RssAnon"), ("mapped", "RssFile")):
                here[name] = max(here[name], int(status[key].split()[0]) * 1024)
            time.sleep(0.01)


def measure(text: str, cache: str) -> dict[str, Any]:
    """Prepare a corpus in this process."""
    import hf_nasbert.training  # noqa: F401 - what a training process holds anyway
    from hf_nasbert.data import DataArguments, MaskedBatches, corpus, load_text, load_tokenizer, pack_texts, split_dev

    watch, seconds = Watch(), {}
    arguments = DataArguments(train_files=[text], cache_dir=cache)

    def stage(name: str) -> None:
        seconds[name] = time.perf_counter()
        watch.stage = name

    stage("read")
    dataset = load_text(arguments)
    stage("split")
    train, dev = split_dev(dataset, cache_dir=cache)
    stage("tokenizer")
    tokenizer = load_tokenizer(arguments, corpus._Texts(train))  # as load_corpus does
    stage("pack")
    packed = [pack_texts(part, tokenizer, 128, cache_dir=cache) for part in (train, dev)]
    stage("batches")
    batches = MaskedBatches(packed[0], tokenizer, batch_size=32, seed=0)
    for step in range(NUM_BATCHES):
        batches.batch(step * 7)
    stage("end")
    times = list(seconds.items())
    return {
        "num_documents": len(dataset),
        "num_sequences": len(packed[0]),
        "num_shards": len(packed[0].cache_files),
        "seconds": {name: round(end - start, 2) for (name, start), (_, end) in itertools.pairwise(times)},
        "peak_bytes": {name: watch.peaks[name] for name in watch.peaks if name != "end"},
    }


def as_table(runs: list[dict[str, Any]]) -> str:
    """The peaks of every stage, megabytes, as Markdown."""
    stages = list(runs[0]["peak_bytes"])
    heads = [f"{run['megabytes']:g} MB of text{', cached' if run['cached'] else ''}" for run in runs]
    rows = ["| peak of anonymous memory, MB | " + " | ".join(heads) + " |", "| --- " * (len(runs) + 1) + "|"]
    for stage in stages:
        peaks = [run["peak_bytes"].get(stage) for run in runs]
        rows.append(
            f"| {stage} | " + " | ".join(f"{peak['anonymous'] / 1e6:.0f}" if peak else "" for peak in peaks) + " |"
        )
    rows.append("| shards | " + " | ".join(str(run["num_shards"]) for run in runs) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run every size in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 400])
    parser.add_argument("--json", help="file to write the record to")
    parser.add_argument("--page", help="page whose table is made anew")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    from hf_nasbert.cards import fill_page
    from hf_nasbert.records import versions

    runs = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "text.txt"
            write_corpus(text, megabytes)
            for cached in (False, True):
                command = [sys.executable, __file__, "--measure", str(text), f"{folder}/cache"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs.append({"megabytes": megabytes, "cached": cached, **json.loads(done.stdout.splitlines()[-1])})
                print(json.dumps(runs[-1]), flush=True)
    print(as_table(runs))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"runs": runs, "versions": versions()}, indent=1) + "\n")
    if arguments.page:
        fill_page(arguments.page, {"corpus memory": as_table(runs)})


if __name__ == "__main__":
    main()
