"""Adding up the gradients of two processes: DistributedDataParallel against the active parameters alone.

    OMP_NUM_THREADS=1 python benchmarks/synchronization.py --json

Starts two CPU processes (gloo) that train one super-net both ways in turns, the same children on the same batches:

- `ddp`: wrapped in `DistributedDataParallel(find_unused_parameters=True)`, which a super-net needs, since each step
  trains another child; the gradients of all candidates are sent, and the graph is searched for those that are missing;
- `active`: `StepGroup.add_up` after the backward pass, over the parameters that have a gradient (the product's way).

A ratio is the median over rounds of the time of a whole step (forward, backward, adding up) by `ddp` over that by
`active`, with quartiles; against `alone`, a step that is not added up at all, it says what adding up costs. There are
two clocks: the CPU time of the process with gloo's threads, on which neighbours on the machine have little influence,
and the wall's, on which they have much. `numbers_sent` counts what each process gives to be added up.
"""

import argparse
import copy
import json
import multiprocessing
import os
import random
import socket
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.processes import StepGroup, join
from hf_nasbert.records import versions
from hf_nasbert.space import Architecture, SearchSpace

KINDS = ("attention", "ffn", "conv3", "conv5")
SPACES = {  # candidates per choice block, of twelve
    "2_candidates": SearchSpace.chain(12, KINDS[:2]),
    "4_candidates": SearchSpace.chain(12, KINDS),
    "8_candidates": SearchSpace.staged(1, 12, KINDS, (128, 256)),
}
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
BATCH_SIZE, NUM_TOKENS, VOCAB_SIZE, HIDDEN_SIZE = 8, 64, 8192, 256


def measure(space: SearchSpace, num_rounds: int) -> dict[str, Any]:
    """One super-net: seconds of every way in every round, and the numbers that are sent."""
    torch.manual_seed(0)
    config = SupernetConfig(
        search_space=space,
        hidden_size=HIDDEN_SIZE,
        vocab_size=VOCAB_SIZE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    supernet = SupernetForMaskedLM(config).train()
    parameters = list(supernet.parameters())
    state = join(use_cpu=True)
    group = StepGroup(state, 60)
    # A copy: what has been wrapped once cannot be trained without the wrapping any more.
    wrapped = DistributedDataParallel(copy.deepcopy(supernet), find_unused_parameters=True)
    generator = torch.Generator().manual_seed(state.process_index)
    input_ids = torch.randint(5, VOCAB_SIZE, (BATCH_SIZE, NUM_TOKENS), generator=generator)
    labels = input_ids.masked_fill(torch.rand(input_ids.shape, generator=generator) > 0.15, -100)
    rng = random.Random(0)  # the same children on both

    def step(model: torch.nn.Module, child: Architecture, add_up: Callable[[], None]) -> list[float]:
        torch.distributed.barrier()
        starts = [clock() for clock in CLOCKS.values()]
        model(input_ids=input_ids, labels=labels, architecture=child).loss.backward()
        add_up()
        return [clock() - start for clock, start in zip(CLOCKS.values(), starts, strict=True)]

    def add_up_active() -> None:
        active = [p.grad for p in parameters if p.grad is not None]
        for gradient in active:
            gradient /= state.num_processes  # DistributedDataParallel's is a mean too
        group.add_up(active)

    ways = {
        "ddp": lambda child: step(wrapped, child, lambda: None),
        "active": lambda child: step(supernet, child, add_up_active),
        "alone": lambda child: step(supernet, child, lambda: None),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    numbers, worst = [], 0.0
    for round_ in range(num_rounds + 2):
        child = space.sample(rng, "children")
        found = {}
        for name in list(ways)[round_ % 3 :] + list(ways)[: round_ % 3]:
            taken = ways[name](child)
            if round_ >= 2:  # the first two warm up
                seconds[name].append(taken)
            model = wrapped if name == "ddp" else supernet
            found[name] = {i: p.grad.clone() for i, p in enumerate(model.parameters()) if p.grad is not None}
            model.zero_grad(set_to_none=True)
        assert found["ddp"].keys() == found["active"].keys()
        gaps = [(found["ddp"][i] - gradient).abs().max().item() for i, gradient in found["active"].items()]
        worst = max(worst, *gaps)
        numbers.append(sum(gradient.numel() for gradient in found["active"].values()))
    return {
        "num_parameters": sum(p.numel() for p in parameters),
        "numbers_sent": {"ddp": sum(p.numel() for p in parameters), "active": round(statistics.mean(numbers))},
        "largest_difference_of_gradients": worst,
        **{
            clock: summary({name: [row[number] for row in rows] for name, rows in seconds.items()})
            for number, clock in enumerate(CLOCKS)
        },
    }


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ratios on one clock."""
    return {
        "milliseconds": {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()},
        "ddp_over_active": ratio(seconds["ddp"], seconds["active"]),
        "ddp_over_alone": ratio(seconds["ddp"], seconds["alone"]),
        "active_over_alone": ratio(seconds["active"], seconds["alone"]),
    }


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Median and quartiles of paired ratios."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return {"median": round(median, 3), "quartile_1": round(low, 3), "quartile_3": round(high, 3)}


def table(record: dict[str, Any]) -> str:
    """The record as docs/processes.md shows it."""
    lines = [
        "| candidates per block | parameters | sent by DDP | sent, active | DDP / active, CPU time "
        "| DDP / active, wall | DDP / alone, CPU time | active / alone, CPU time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = [("cpu", "ddp_over_active"), ("wall", "ddp_over_active")]
    columns += [("cpu", "ddp_over_alone"), ("cpu", "active_over_alone")]
    for name, found in record["spaces"].items():
        ratios = [found[clock][column] for clock, column in columns]
        cells = [f"{r['median']:.2f} ({r['quartile_1']:.2f} to {r['quartile_3']:.2f})" for r in ratios]
        sizes = [found["num_parameters"], found["numbers_sent"]["ddp"], found["numbers_sent"]["active"]]
        cells = [name.partition("_")[0], *(f"{size / 1e6:.1f}M" for size in sizes), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def work(pipe: Connection, rank: int, port: int, names: list[str], num_rounds: int) -> None:
    """One process: measures every super-net, and the first tells what it found."""
    torch.set_num_threads(1)
    # Of depth-wise convolutions, (W, 1, 1, k): the strides of axes of length one decide nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"})
    pipe.send({name: measure(SPACES[name], num_rounds) for name in names})
    os._exit(0)  # gloo is not torn down safely


def main() -> None:
    """Measure every space, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = []
    for rank in range(2):
        receiver, sender = context.Pipe(duplex=False)
        given = (sender, rank, port, arguments.spaces, arguments.rounds)
        context.Process(target=work, args=given, daemon=True).start()
        pipes.append(receiver)
    found, _ = (pipe.recv() for pipe in pipes)
    about = {"processes": 2, "backend": "gloo", "threads": 1, "rounds": arguments.rounds, "hidden_size": HIDDEN_SIZE}
    about |= {"vocab_size": VOCAB_SIZE, "batch_size": BATCH_SIZE, "num_tokens": NUM_TOKENS}
    if arguments.json:
        print(json.dumps({"benchmark": "synchronization", "setting": about, "spaces": found, "versions": versions()}))
        return
    for name, result in found.items():
        print(f"{name}: {json.dumps(result, indent=1)}")


if __name__ == "__main__":
    main()
