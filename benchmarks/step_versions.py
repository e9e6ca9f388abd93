"""Whether a training step became slower between two checkouts: the whole loop, processes of both in turns.

    python benchmarks/step_versions.py --before ../older --after . --json

Trains the tiny super-net of the tests by each method, so that the part of a step that is not arithmetic is as large as
it gets. Each checkout has one process, the two take turns: a round trains by every method in both, and tells
milliseconds of CPU a step. Medians of the rounds' ratios and differences are printed, with their range.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from hf_nasbert import records

METHODS = ("uniform", "magic_t", "magic_at", "sandwich")
PROBE = """
import json, sys, tempfile, time
import hf_nasbert
from tiny.processes import make_trainer_of_many

tree, steps = sys.argv[1:]
assert hf_nasbert.__file__.startswith(tree), hf_nasbert.__file__
for method in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"alignment_rows": 1.0}  # whatever the default of a checkout
        trainer = make_trainer_of_many(
            folder, method=method.strip(), max_steps=int(steps), logging_steps=1000, **settings
        )
        start = time.process_time()
        trainer.train()
        print(json.dumps(1000 * (time.process_time() - start) / int(steps)), flush=True)
"""


class Worker:
    """A process of a checkout, which trains by the methods that it is told."""

    def __init__(self, tree: Path, steps: int) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{tree}/src:{tree}/tests", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROBE, f"{tree}/", str(steps)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def milliseconds(self, method: str) -> float:
        """CPU-milliseconds of a step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(method, file=self.process.stdin, flush=True)
        while not (line := self.process.stdout.readline()).strip().replace(".", "").isdigit():
            if not line:
                raise ChildProcessError(f"the process of {method} ended with {self.process.wait()}")
        return round(float(line), 3)


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of every method the medians, and the least and the largest of the rounds."""
    found = {}
    for method in METHODS:
        pairs = [(one["before"][method], one["after"][method]) for one in rounds]
        ratios, extra = [after / before for before, after in pairs], [after - before for before, after in pairs]
        found[method] = {
            "before_ms": round(statistics.median(before for before, _ in pairs), 2),
            "after_ms": round(statistics.median(after for _, after in pairs), 2),
            "ratio": round(statistics.median(ratios), 3),
            "least_ratio": round(min(ratios), 3),
            "largest_ratio": round(max(ratios), 3),
            "difference_ms": round(statistics.median(extra), 2),
        }
    return found


def commit_of(tree: Path) -> str:
    """The commit that is checked out."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the older checkout")
    parser.add_argument("--after", type=Path, default=Path(), help="the newer one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    workers = {name: Worker(tree, arguments.steps) for name, tree in trees.items()}
    rounds, loads = [], []
    for number in range(-1, arguments.rounds):
        found: dict[str, dict[str, float]] = {name: {} for name in trees}
        for method in METHODS:
            for name in list(trees) if number % 2 else list(reversed(trees)):
                found[name][method] = workers[name].milliseconds(method)
        if number >= 0:  # the first one warms up
            rounds.append(found)
            loads.append(round(os.getloadavg()[0], 1))
            print(json.dumps(found), loads[-1], file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "benchmark": "step_versions",
        "commits": {name: commit_of(tree) for name, tree in trees.items()},
        "methods": summary(rounds),
        "rounds": rounds,
        "load": loads,
        "versions": records.versions(),
    }
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
