"""What each stage of `hf-nasbert compress` costs for a base-size encoder, and what `plan-compress` foretells of it.

    python benchmarks/compress_base_size.py run      all stages once; a later call goes on where one stopped
    python benchmarks/compress_base_size.py plan     the forecast, by a short measurement
    python benchmarks/compress_base_size.py show     prints what is recorded

The encoder has 12 layers of 768, 12 heads, and 30,522 pieces: random weights serve, with MiniLM's tokenizer. Text is
Wikipedia's, out of a pinned package. One thread; figures are CPU-seconds of the process and the most memory taken
in a stage. What grows with steps and sentences is scaled down, which the record says: peaks do not depend on it.
"""

import argparse
import importlib
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import BertConfig, BertModel

import hf_nasbert
from hf_nasbert import records
from hf_nasbert.compression import plan_compression
from hf_nasbert.data import packaged_model
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.writing import write_text

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "records" / "compress-base-size.json"
SETTINGS = {
    "max_parameters": "0.5x", "scorer": "supernet", "max_replace_one_loss": 10.0, "num_rescored": 4,
    "supernet_steps": 4, "recovery_steps": 4, "learning_rate": 1e-5, "batch_size": 8, "num_sentences": 64,
    "max_seq_length": 32, "latency_shape": "1x32", "bf16": "no",
}  # fmt: skip
SCALED = {
    "materials": {"_NUM_CHOOSING": 8, "_NUM_JUDGING": 8, "_CALIBRATION_TOKENS": 1000},
    "handmade": {"_BEAM": 1},
    "proof": {"_SECONDS_OF_A_SITTING": 3.0},
}


def save_base_model(folder: Path) -> Path:
    """A base-size BERT of random weights with a real tokenizer."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=30522)).save_pretrained(folder)
        open_tokenizer(str(packaged_model("all-MiniLM-L6-v2"))).save_pretrained(folder)
    return folder


def write(part: str, found: Any) -> None:
    """Put a part into the record."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record |= {"settings": SETTINGS, "scaled": SCALED, "versions": records.versions(), part: found}
    write_text(RECORD, json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "plan", "show"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress-base-size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for module, values in SCALED.items():
        for name, value in values.items():
            setattr(importlib.import_module(f"hf_nasbert.compression.{module}"), name, value)
    # Random weights learn nothing in four steps, and only costs are of interest.
    importlib.import_module("hf_nasbert.compression.recover")._check_gain = lambda *_: None
    if arguments.command != "show":
        base = save_base_model(arguments.folder / "base")
        text = packaged_text("boolq-wikipedia").select(range(400))
        if arguments.command == "run":
            result = hf_nasbert.compress(base, text, output_dir=arguments.folder / "small", **SETTINGS)
            names = ("stage", "seconds", "cpu_seconds", "peak_memory_mib")
            write("stages", [{name: stage[name] for name in names} for stage in result.stages])
        else:
            write("plan", plan_compression(base, text, **SETTINGS).to_dict())
    print(RECORD.read_text())


if __name__ == "__main__":
    main()
