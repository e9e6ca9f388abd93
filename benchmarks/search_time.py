"""What searches take: one command from a super-net to a drawn front, and one suggestion of each search.

    python benchmarks/search_time.py --supernet runs/quickstart-scratch/supernet --json
    python benchmarks/search_time.py --suggestions --json

It runs `hf-nasbert search --num_evaluations 1000 --report ...` as a process of its own, with the quickstart's text and
budget and an empty cache, as in a fresh clone after the installation; prints what passed on the clock and what the
process spent on the processors. Without `--supernet` it makes an untrained one first, which is not timed: what a child
takes does not depend on weights. The target is two minutes on two cores.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hf_nasbert import records
from hf_nasbert.costs import Budget, cost_function
from hf_nasbert.report import read_findings
from hf_nasbert.searching import SEARCHES, SearchTask
from hf_nasbert.space import Architecture, SearchSpace

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


def suggestions(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """CPU milliseconds of a suggestion of each search, after so many children."""
    return {name: {str(num_told): suggestion(name, num_told) for num_told in (1_000, 10_000)} for name in names}


def suggestion(name: str, num_told: int) -> float:
    """CPU milliseconds of asking for a child and telling its score, after so many children."""
    space = SearchSpace.chain(8, ("attention", "ffn", "conv3", "conv5", "skip"))
    config = SimpleNamespace(
        hidden_size=128, embedding_size=None, vocab_size=8192, max_position_embeddings=64, type_vocab_size=2,
        tie_word_embeddings=True, num_conv_layers=2, ffn_ratio=4, attention_head_size=None, stage_lengths=[8],
    )  # fmt: skip
    cost, rng = cost_function(config, sequence_length=64), random.Random(1)  # not the search's own draws
    drawn = [space.child_at(rng.randrange(space.num_children)) for _ in range(2 * num_told)]
    cap = sorted(cost(child)["num_parameters"] for child in drawn)[round(0.75 * len(drawn))]
    task = SearchTask(space, seed=0, cost=cost, budget=Budget(max_parameters=cap))
    children = list(dict.fromkeys(child for child in drawn if task.why_not(child) is None))[:num_told]

    def score(children: Sequence[Architecture]) -> list[float]:
        return [child.count("ffn") + (cost(child)["flops"] % 9973) / 9973 for child in children]

    search = SEARCHES[name](task)
    search.tell(children, score(children))
    milliseconds = []
    for _ in range(4):
        start = time.process_time()
        asked = search.ask()
        seconds = time.process_time() - start
        scores = score(asked)
        start = time.process_time()
        search.tell(asked, scores)
        milliseconds.append(1000 * (seconds + time.process_time() - start) / len(asked))
    return round(statistics.median(milliseconds[1:]), 2)  # the first takes in what was told


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", help="folder of a super-net of the quickstart's space")
    parser.add_argument("--threads", type=int, default=2)
    # Successive halving asks for the same children on growing numbers of dev batches.
    parser.add_argument(
        "--suggestions", nargs="*", choices=sorted(SEARCHES.keys() - {"halving", "trained_halving"}),
        help="time suggestions of these searches, by default of all, and not the command",
    )  # fmt: skip
    parser.add_argument("--before", help="a record of suggestions whose figures are kept")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    arguments = parser.parse_args()
    if arguments.suggestions is not None:
        names = arguments.suggestions or [name for name in SEARCHES if "halving" not in name]
        found = {"benchmark": "search_suggestions", "milliseconds": suggestions(names), "versions": records.versions()}
        if arguments.before:
            found["before"] = json.loads(Path(arguments.before).read_text(encoding="utf-8"))["milliseconds"]
        print(json.dumps(found, indent=None if arguments.json else 2))
        return
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
