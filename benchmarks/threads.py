"""Measure training on a machine that others use: tokens per second of two threads, by how OpenMP's threads wait.

    python benchmarks/threads.py --json

Every way is a process of its own, in which a super-net of the quickstart's space trains for some seconds when told to;
the ways take turns, alone and beside a process that does nothing but count. `by_turns` is the median over rounds of
what a way does as a share of `default` in the same round, so what else runs on the machine disturbs all alike; the
load averages are in the record.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# By name: threads of one process, processes, what the environment says.
WAYS: dict[str, tuple[int, int, dict[str, str]]] = {
    "default": (2, 1, {}),
    "passive": (2, 1, {"OMP_WAIT_POLICY": "passive"}),
    "spin_10000": (2, 1, {"GOMP_SPINCOUNT": "10000"}),
    "one_thread": (1, 1, {}),
    "two_processes": (1, 2, {}),
}
BATCH, LENGTH = 16, 128
BUSY = "while True: pass"


def work(num_threads: int) -> None:
    """Train for as many seconds as each line of standard input says, and answer with the tokens per second."""
    import torch

    from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
    from hf_nasbert.training import tune_allocator

    torch.set_num_threads(num_threads)
    tune_allocator()
    supernet = SupernetForMaskedLM(SupernetConfig.preset("quickstart")).train()
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-4, fused=True)
    input_ids = torch.randint(5, 8192, (BATCH, LENGTH))
    labels = input_ids.masked_fill(torch.rand(input_ids.shape) < 0.85, -100)
    rng = random.Random(0)

    def step() -> None:
        supernet(input_ids, labels=labels, architecture=supernet.space.sample(rng)).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start, num_steps = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            step()
            num_steps += 1
        print(num_steps * BATCH * LENGTH / (time.perf_counter() - start), flush=True)


@contextmanager
def workers() -> Iterator[dict[str, list[subprocess.Popen[str]]]]:
    """The processes of every way, ready."""
    found: dict[str, list[subprocess.Popen[str]]] = {}
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    try:
        for name, (num_threads, num_processes, environment) in WAYS.items():
            command = [sys.executable, __file__, "--work", str(num_threads)]
            found[name] = [
                subprocess.Popen(
                    command, env=clean | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                for _ in range(num_processes)
            ]
        for processes in found.values():
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
        yield found
    finally:
        for processes in found.values():
            for process in processes:
                process.kill()


def tokens_per_second(processes: list[subprocess.Popen[str]], seconds: float) -> float:
    """What a way's processes do at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return sum(float(process.stdout.readline()) for process in processes if process.stdout is not None)


def measure(rounds: int, seconds: float, num_busy: int) -> dict[str, object]:
    """Tokens per second of every way in every round, alone and beside busy processes."""
    measured: dict[str, dict[str, list[float]]] = {
        when: {name: [] for name in WAYS} for when in ("alone", "busy")[: 1 + bool(num_busy)]
    }
    loads = []
    with workers() as found:
        for round_ in range(rounds):
            for when, number in zip(measured, (0, num_busy), strict=False):
                busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
                try:
                    names = list(WAYS)
                    for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
                        measured[when][name].append(tokens_per_second(found[name], seconds))
                        loads.append(os.getloadavg()[0])
                        print(f"{when}, {name}: {measured[when][name][-1]:.0f} tokens/s", file=sys.stderr, flush=True)
                finally:
                    for process in busy:
                        process.kill()
    result: dict[str, object] = {
        when: {name: round(statistics.median(values)) for name, values in of_ways.items()}
        for when, of_ways in measured.items()
    }
    for when, of_ways in measured.items():
        result[f"{when}_by_turns"] = {
            name: round(statistics.median(a / b for a, b in zip(values, of_ways["default"], strict=True)), 3)
            for name, values in of_ways.items()
        }
    return result | {
        "busy_processes": num_busy,
        "rounds": rounds,
        "seconds": seconds,
        "load_average": [round(min(loads), 1), round(max(loads), 1)],
    }


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside; 0: alone only")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work)
        return
    from hf_nasbert import records

    result = measure(arguments.rounds, arguments.seconds, arguments.busy) | {"versions": records.versions()}
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
