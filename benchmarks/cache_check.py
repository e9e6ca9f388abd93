"""What it costs to check cached files of text when they are opened. `--json FILE` writes the record.

    python benchmarks/cache_check.py --json benchmarks/records/cache-check.json --page docs/inputs.md

A corpus (that of `corpus_memory.py`) is prepared once, then found in the cache: the time of that, how much of it goes
into reading and hashing the cached files, and what other checksums would take. Each is the least of five.
"""

import argparse
import hashlib
import json
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from datasets import disable_progress_bars

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.data import DataArguments, MaskedBatches, cache, load_corpus, load_text, train_tokenizer

NUM_TIMES = 5


def seconds(work: Callable[[], object]) -> float:
    """The least time of several."""
    times = []
    for _ in range(NUM_TIMES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(megabytes: float) -> dict[str, Any]:
    """Prepare a corpus, then open it again and again."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runpy.run_path(str(Path(__file__).with_name("corpus_memory.py")))["write_corpus"](folder / "a.txt", megabytes)
        text = {"train_files": [str(folder / "a.txt")], "sample_by": "line", "cache_dir": str(folder / "cache")}
        tokenizer = train_tokenizer(load_text(DataArguments(**text))["text"][:1000])
        tokenizer.save_pretrained(folder / "tokenizer")
        data = DataArguments(**text, tokenizer_name=str(folder / "tokenizer"))
        corpus = load_corpus(data)
        files = [path for path in (folder / "cache" / "hf_nasbert").rglob("*.*") if path.is_file()]

        def read(new: Callable[[], Any]) -> None:
            for path in files:
                with path.open("rb") as file:
                    hashlib.file_digest(file, new)

        return {
            "text_bytes": (folder / "a.txt").stat().st_size,
            "cached_bytes": sum(path.stat().st_size for path in files),
            "num_files": len(files),
            "num_sequences": len(corpus.train),
            "seconds": {
                "open": seconds(lambda: load_corpus(data)),
                "check": seconds(lambda: [cache.find_sealed(path) for path in files]),
                "sha256": seconds(lambda: read(hashlib.sha256)),
                "xxh3_128": seconds(lambda: read(xxhash.xxh3_128)),
                "describe": seconds(
                    lambda: MaskedBatches(corpus.train, corpus.tokenizer, batch_size=32, seed=0).describe()
                ),
            },
        }


def as_table(record: dict[str, Any]) -> str:
    """The times as Markdown."""
    taken = record["seconds"]
    rows = [f"| {record['cached_bytes'] / 1e6:.0f} MB of cached files | seconds |", "| --- | ---: |"]
    for words, name in (
        ("open a corpus that is cached", "open"),
        ("of these: check the files (SHA-256)", "check"),
        ("with XXH3 it would be", "xxh3_128"),
        ("digest of all sequences, once a run", "describe"),
    ):
        rows.append(f"| {words} | {taken[name]:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--json", help="file to write the record to")
    parser.add_argument("--page", help="page whose table is made anew")
    arguments = parser.parse_args()
    disable_progress_bars()
    record = measure(arguments.megabytes)
    print(as_table(record))
    if arguments.json:
        record["versions"] = records.versions()
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        fill_page(arguments.page, {"cache check": as_table(record)})


if __name__ == "__main__":
    main()
