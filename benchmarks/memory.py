"""Measure whether a long run's memory grows: resident memory over 20,000 steps, the architecture changing at each.

    python benchmarks/memory.py run       trains, and writes benchmarks/records/memory.jsonl.gz (some minutes)
    python benchmarks/memory.py page      makes the table of docs/reliability.md anew from the records

The run is the whole training loop (MAGIC-AT: sampler, anchor, judging, log, evaluation, checkpoints) on a super-net
and batches that are as small as can be, so that it is steps that count and not tensors. Asked to stop (SIGTERM), it
measures what it has. The slope is that of a straight line through the second half of the measurements, when every
operator has moments and caches are full.
"""

import argparse
import gzip
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.records import Record
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import SupernetLoop, SupernetTrainingArguments

ROOT = Path(__file__).parents[1]
RECORDS, PAGE = ROOT / "benchmarks" / "records" / "memory.jsonl.gz", ROOT / "docs" / "reliability.md"
VOCAB_SIZE, NUM_ROWS, NUM_TOKENS = 64, 2, 8


class RandomBatches:
    """Batches of random tokens, each a function of its step."""

    batch_size = NUM_ROWS

    def describe(self) -> dict[str, Any]:
        """What they depend on."""
        return {"tokens": "random"}

    def sample_ids(self, step: int) -> list[int]:
        """The rows of a step are its own."""
        return list(range(step * NUM_ROWS, (step + 1) * NUM_ROWS))

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of a step."""
        rng = random.Random(step)
        input_ids = torch.tensor([[rng.randrange(5, VOCAB_SIZE) for _ in range(NUM_TOKENS)] for _ in range(NUM_ROWS)])
        labels = torch.full_like(input_ids, -100)
        labels[:, :2] = input_ids[:, :2]
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}

    def loader(self, start_step: int, num_steps: int, **_: Any) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of some steps."""
        return (self.batch(start_step + number) for number in range(num_steps))


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(num_steps: int, folder: Path, output: Path) -> list[Record]:
    """Train and measure; writes and returns one record of the run."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = SearchSpace.chain(4, ("attention", "ffn", "conv3", "conv5"))
    supernet = SupernetForMaskedLM(
        SupernetConfig(search_space=space, vocab_size=VOCAB_SIZE, hidden_size=32, max_position_embeddings=NUM_TOKENS)
    )
    every = max(num_steps // 100, 1)
    arguments = SupernetTrainingArguments(
        output_dir=str(folder), method="magic_at", max_steps=num_steps, per_device_train_batch_size=NUM_ROWS,
        method_settings={"anchor_interval": 25, "anchor_dev_batches": 1, "alignment_rows": 1.0},
        eval_steps=10 * every, num_eval_children=4,
        logging_steps=every, save_steps=10 * every, report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = SupernetLoop(supernet, arguments, RandomBatches(), [RandomBatches().batch(-1)])
    measured, take_step = [], trainer._take_step

    def watched(batch: dict[str, torch.Tensor]) -> Any:
        if trainer.global_step % every == 0:
            measured.append([trainer.global_step, resident_bytes(), (folder / "train_log.jsonl").stat().st_size])
        return take_step(batch)

    trainer._take_step = watched  # type: ignore[method-assign]
    num_done = trainer.train().global_step
    record = {
        "steps": num_done, "children": space.num_children, "log_every": every, "measured": measured,
        "columns": ["step", "resident_bytes", "log_bytes"],
        "checkpoint_bytes": [
            sum(file.stat().st_size for file in checkpoint.iterdir()) for checkpoint in folder.glob("checkpoint-*")
        ],
        "versions": records.versions(),
    }  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(gzip.compress((json.dumps(record) + "\n").encode(), mtime=0))
    return [record]


def slope(measured: list[list[int]], column: int) -> float:
    """Growth per step over the second half of the run, by least squares."""
    half = np.array(measured[len(measured) // 2 :], dtype=float)
    return float(np.polyfit(half[:, 0], half[:, column], 1)[0])


def tables(found: list[Record]) -> dict[str, str]:
    """The table of the page."""
    (record,) = found
    measured = record["measured"]
    middle, last = measured[len(measured) // 2], measured[-1]
    lines = [
        "| | |", "| --- | ---: |",
        f"| steps, each of another architecture | {record['steps']:,} |",
        f"| resident memory at step {middle[0]:,} | {middle[1] / 2**20:.1f} MiB |",
        f"| at step {last[0]:,} | {last[1] / 2**20:.1f} MiB |",
        f"| growth over the second half, per 1,000 steps | {1000 * slope(measured, 1) / 2**10:+.1f} KiB |",
        f"| growth of the log per line (a line every {record['log_every']} steps; anchors, evaluations) "
        f"| {record['log_every'] * slope(measured, 2):,.0f} bytes |",
    ]  # fmt: skip
    return {"memory": "\n".join(lines)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--num_steps", type=int, default=20_000)
    running.add_argument("--folder", type=Path, default=ROOT / "runs" / "memory", help="For the run; emptied first.")
    running.add_argument("--records", type=Path, default=RECORDS)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "page":
        fill_page(PAGE, tables(records.read(RECORDS)))
        return
    print(tables(run(arguments.num_steps, arguments.folder, arguments.records))["memory"])


if __name__ == "__main__":
    main()
