"""The farm's workers: two processes of one thread against one process of two. `--json` prints one line.

    python benchmarks/farm.py --json

Children of the table `imdb` with a tenth of its steps, on two cores, the two ways by turns; workers are started anew
each time, and all that precedes their first child is left out. The ratio is children per second.
"""

import argparse
import json
import multiprocessing
import statistics
import time

import torch

from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.recipe_arguments import read_config
from hf_nasbert.records import versions
from hf_nasbert.training.farm import FarmArguments
from hf_nasbert.training.standalone import StandaloneArguments, StandaloneTrainer

CONFIG = "table-imdb"


def make_trainer() -> StandaloneTrainer:
    """The table's trainer, with few steps and a small dev set."""
    settings = read_config(CONFIG, [FarmArguments, StandaloneArguments, DataArguments])
    settings |= {"max_steps": settings["max_steps"] // 10, "num_dev_batches": 8}
    recipe, data = (
        kind(**{name: settings[name] for name in kind.__dataclass_fields__ if name in settings})
        for kind in (StandaloneArguments, DataArguments)
    )
    return StandaloneTrainer(recipe, load_corpus(data))


def work(trainer: StandaloneTrainer, num_threads: int, num_children: int, barrier: object, seconds: object) -> None:
    """Train some children with some threads, all workers at the same time."""
    torch.set_num_threads(num_threads)
    children = list(trainer.space.enumerate())[:: trainer.space.num_children // num_children][:num_children]
    trainer.train(children[0], 0)  # whatever is made at a first call is made here
    barrier.wait()
    start = time.perf_counter()
    for child in children:
        trainer.train(child, 0)
    seconds.put(time.perf_counter() - start)


def children_per_second(trainer: StandaloneTrainer, num_workers: int, num_threads: int, num_children: int) -> float:
    """Children that all workers finish per second of the slowest."""
    context = multiprocessing.get_context("forkserver")
    barrier, seconds = context.Barrier(num_workers), context.Queue()
    share = num_children // num_workers
    arguments = (trainer, num_threads, share, barrier, seconds)
    workers = [context.Process(target=work, args=arguments) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    slowest = max(seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    return num_workers * share / slowest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--children", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    trainer = make_trainer()
    ratios = []
    for _ in range(arguments.rounds):
        many = children_per_second(trainer, 2, 1, arguments.children)
        one = children_per_second(trainer, 1, 2, arguments.children)
        ratios.append(many / one)
    found = {
        "two_workers_of_one_thread_against_one_of_two": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "num_rounds": arguments.rounds,
        "num_children": arguments.children,
        "versions": versions(),
    }
    print(json.dumps(found) if arguments.json else f"{found}")


if __name__ == "__main__":
    main()
