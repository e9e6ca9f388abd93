"""Fine-tuning in batches of like length against mixed batches. `--json` writes one record.

    python benchmarks/lengths.py --model runs/quickstart-scratch/pretrained --json benchmarks/records/lengths.json

Fine-tuning on rotten_tomatoes as the quickstart does (batches of 32, at most 64 tokens), in one process of one thread,
both by turns, seed by seed. Seconds are CPU seconds of training and evaluation together; padding is its share of all
tokens that the model is given.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorWithPadding

from hf_nasbert.finetuning import FinetuneArguments, finetune
from hf_nasbert.records import versions
from hf_nasbert.writing import write_text


class Counting:
    """Counts the tokens of all batches, and those of them that are padding."""

    def __init__(self) -> None:
        self.num_tokens = self.num_padding = 0
        self._collate = DataCollatorWithPadding.__call__

    def install(self) -> None:
        """Count in every collator from now on."""

        def collate(collator: DataCollatorWithPadding, features: list[dict[str, Any]]) -> Any:
            batch = self._collate(collator, features)
            self.num_tokens += batch["attention_mask"].numel()
            self.num_padding += int((batch["attention_mask"] == 0).sum())
            return batch

        DataCollatorWithPadding.__call__ = collate  # type: ignore[method-assign]


def main() -> None:
    """Fine-tune under every seed in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the model to fine-tune")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--samples", type=int, help="training texts; by default all")
    parser.add_argument("--json", help="file of the record; by default it is printed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as home:
        for seed in options.seeds:
            for is_grouped in (False, True):
                counting = Counting()
                counting.install()
                arguments = FinetuneArguments(
                    model=options.model,
                    output_dir=f"{home}/{is_grouped}",
                    packaged="rotten_tomatoes",
                    learning_rate=3e-4,
                    num_train_epochs=options.epochs,
                    max_seq_length=64,
                    max_train_samples=options.samples,
                    seeds=[seed],
                    save_models=False,
                    disable_tqdm=True,
                    group_by_length=is_grouped,
                )
                start = time.process_time()
                metrics = finetune(arguments).records[0]["metrics"]
                DataCollatorWithPadding.__call__ = counting._collate  # type: ignore[method-assign]
                values = {
                    "cpu_seconds": time.process_time() - start,
                    "padding": counting.num_padding / counting.num_tokens,
                    "validation_accuracy": metrics["validation"]["accuracy"],
                    "test_accuracy": metrics["test"]["accuracy"],
                }
                for name, value in values.items():
                    found.setdefault("by length" if is_grouped else "mixed", {}).setdefault(name, []).append(
                        round(value, 4)
                    )
                print(is_grouped, seed, values, flush=True)
    pairs = zip(found["by length"]["cpu_seconds"], found["mixed"]["cpu_seconds"], strict=True)
    record = {
        "benchmark": "lengths",
        "epochs": options.epochs,
        "samples": options.samples,
        "batches": found,
        "ratio_of_cpu_seconds": round(statistics.median(one / other for one, other in pairs), 3),
        "versions": versions(),
    }
    if options.json:
        write_text(Path(options.json), json.dumps(record, indent=1) + "\n")
    else:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
