"""One command from a super-net to a drawn front, timed: 1,000 children of the quickstart's space, caches empty.

    python benchmarks/search_time.py --supernet runs/quickstart/supernet --json

It runs `hf-nasbert search --num_evaluations 1000 --report ...` as a process of its own, with the quickstart's text and
budget and an empty cache, as in a fresh clone after the installation; prints what passed on the clock and what the
process spent on the processors. Without `--supernet` it makes an untrained one first, which is not timed: what a child
takes does not depend on weights. The target is two minutes on two cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hf_nasbert import records
from hf_nasbert.report import read_findings

NUM_EVALUATIONS, TARGET_SECONDS = 1000, 120
COMMAND = [sys.executable, "-c", "from hf_nasbert.cli import main; raise SystemExit(main())", "search"]


def make_supernet(folder: str) -> None:
    """An untrained super-net of the quickstart's space, with a tokenizer made from the quickstart's text."""
    from hf_nasbert.data import DataArguments, load_corpus
    from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM

    tokenizer = load_corpus(DataArguments(packaged="imdb", vocab_size=8192, max_seq_length=64)).tokenizer
    tokenizer.save_pretrained(folder)
    SupernetForMaskedLM(SupernetConfig.preset("quickstart", vocab_size=len(tokenizer))).save_pretrained(folder)


def measure(supernet: str, num_threads: int) -> dict[str, Any]:
    """Search once, with nothing cached; the times, and what was found."""
    with tempfile.TemporaryDirectory() as folder:
        output, page = Path(folder) / "search.jsonl", Path(folder) / "search.html"
        settings = {
            "supernet": supernet, "packaged": "imdb", "max_seq_length": "64", "output": str(output),
            "report": str(page), "num_evaluations": str(NUM_EVALUATIONS), "max_parameters": "1685248",
        }  # fmt: skip
        environment = {**os.environ, "HF_HOME": f"{folder}/cache", "OMP_NUM_THREADS": str(num_threads)}
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [*COMMAND, *(word for name, value in settings.items() for word in (f"--{name}", value))],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        findings = read_findings(records.read(output))
        return {
            "num_scored": findings.num_scored,
            "num_on_front": len(findings.front("num_parameters")),
            "page_bytes": page.stat().st_size,
            "wall_seconds": round(seconds, 1),
            "cpu_seconds": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1),
            "target_wall_seconds": TARGET_SECONDS,
            "num_threads": num_threads,
        }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", help="folder of a super-net of the quickstart's space")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.supernet is None:
            make_supernet(folder)
        found = measure(arguments.supernet or folder, arguments.threads)
    if arguments.json:
        trained = arguments.supernet is not None
        print(json.dumps({"benchmark": "search_time", "trained": trained, **found, "versions": records.versions()}))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
