"""What a command takes before it does anything: CPU-seconds of whole processes, user and system, medians of five.

    python benchmarks/startup.py          prints them
    python benchmarks/startup.py --json   prints one line of JSON

`search` takes 100 children of a super-net so small, on so little text, that scoring them is next to nothing: what is
left is the command's own. Beside it stand an empty Python, torch, and torch with transformers' base class of models,
which no command that runs a model can do without. One round warms the files' cache and is not counted; rounds run
through all commands in turn.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hf_nasbert import records

NUM_ROUNDS, NUM_EVALUATIONS, TOKENS = 5, 100, 16
COMMAND = [sys.executable, "-m", "hf_nasbert"]
MODELS = "import torch; from transformers import PreTrainedModel"
WORDS = "the a film was good bad not very long short and it but so i liked hated this that plot end".split()


def make_supernet(folder: Path) -> Path:
    """A tiny super-net of 4^6 children with its tokenizer, and a file of text beside it; returns the file."""
    from transformers import BertTokenizer

    from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
    from hf_nasbert.space import SearchSpace

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    config = SupernetConfig(
        search_space=SearchSpace.chain(6, ("attention", "ffn", "conv3", "conv5")),
        vocab_size=len(vocabulary), hidden_size=32, max_position_embeddings=TOKENS,
    )  # fmt: skip
    SupernetForMaskedLM(config).save_pretrained(folder)
    text = folder / "text.txt"
    lines = (" ".join(WORDS[(start * step) % len(WORDS)] for step in range(1, 20)) for start in range(1, 200))
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return text


def cpu_seconds(command: list[str], status: int = 0) -> float:
    """User and system time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(folder: Path, num_rounds: int) -> dict[str, float]:
    """The median of every command."""
    text = make_supernet(folder)
    required = ["--supernet", str(folder), "--train_files", str(text), "--max_seq_length", str(TOKENS)]
    search = ["search", *required, "--num_evaluations", str(NUM_EVALUATIONS)]
    search += ["--num_dev_batches", "1", "--dev_batch_size", "2"]
    seconds: dict[str, list[float]] = {}
    for number in range(num_rounds + 1):
        output = ["--output", str(folder / f"scored-{number}.jsonl"), "--cache_dir", str(folder / f"cache-{number}")]
        for name, command, status in (
            ("python -c pass", [sys.executable, "-c", "pass"], 0),
            ("import torch", [sys.executable, "-c", "import torch"], 0),
            ("import transformers' base class of models", [sys.executable, "-c", MODELS], 0),
            ("import hf_nasbert", [sys.executable, "-c", "import hf_nasbert"], 0),
            ("search --help", [*COMMAND, "search", "--help"], 0),
            ("search, a misspelt flag", [*COMMAND, *search, *output, "--num_evaluation", "9"], 2),
            ("pretrain, no number", [*COMMAND, "pretrain", "--preset", "quickstart", "--max_steps", "many"], 2),
            (f"search, {NUM_EVALUATIONS} children", [*COMMAND, *search, *output], 0),
        ):
            taken = cpu_seconds(command, status)
            if number:
                seconds.setdefault(name, []).append(taken)
    return {name: round(statistics.median(taken), 2) for name, taken in seconds.items()}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.rounds)
    if arguments.json:
        print(json.dumps({"cpu_seconds": found, "rounds": arguments.rounds, "versions": records.versions()}))
    else:
        print("\n".join(f"{seconds:6.2f} CPU-s  {name}" for name, seconds in found.items()))


if __name__ == "__main__":
    main()
