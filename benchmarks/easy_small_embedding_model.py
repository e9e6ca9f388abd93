"""What EasySmallEmbeddingModel makes of a base model and sentences; `compress.py peers` runs it in its environment.

    python benchmarks/easy_small_embedding_model.py asked.json made.json

Nothing of ours is imported here: the environment holds that package and what it was published for. Its own functions
choose, cut and distil, with their own defaults but for what `asked.json` says: the sentences in place of its data sets
on the Hub, one round through them, learning rate and seed. One thread; times are CPU-seconds of this process.
"""

import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("EasySmallEmbeddingModel", "sentence-transformers", "transformers", "torch")
UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of what the system calls the most memory


def make(asked: dict[str, Any]) -> dict[str, Any]:
    """Choose, cut and distil.

    Args:
        asked: `base_model` (a SentenceTransformer's folder), `output_dir`, `way`, `num_kept_layers`, `max_parameters`,
            `corpus` (the vocabulary's sentences), `training` (the sentences of every step), `batch_size`,
            `learning_rate`, `seed`.
    """
    import torch
    from safetensors.torch import load_file
    from smallmodel import SmallModel, register_teacher
    from smallmodel.distill import distill
    from smallmodel.sizing import make_uniform_indices

    torch.set_num_threads(1)
    base = asked["base_model"]
    config = json.loads(Path(base, "config.json").read_text(encoding="utf-8"))
    register_teacher(
        "base", model_id=base, hidden_dim=config["hidden_size"], num_layers=config["num_hidden_layers"],
        intermediate_size=config["intermediate_size"], vocab_size=config["vocab_size"],
    )  # fmt: skip
    small = SmallModel.from_teacher("base", output_dir=asked["output_dir"])
    small._corpus_texts = asked["corpus"]  # else it loads data sets from the Hub
    start = time.process_time()
    if asked["way"] == "layers":
        small.layer_indices = make_uniform_indices(config["num_hidden_layers"], asked["num_kept_layers"])
        student = small.create(no_prune=True)
    else:
        most = asked["max_parameters"]
        student = small.compress(max_params=most, max_fp32_mb=4 * most / 2**20, min_layers=asked["num_kept_layers"])
    chosen = time.process_time()
    torch.manual_seed(asked["seed"])  # of its order of the sentences, and of its dropout
    folder = distill(
        base, student, texts=asked["training"], epochs=1, batch_size=asked["batch_size"], lr=asked["learning_rate"],
        device="cpu",
    )  # fmt: skip
    done = time.process_time()
    before, after = (load_file(Path(one, "model.safetensors")) for one in (student, folder))
    # It passes over batches that raise an error: where all did, it gives out what it began with.
    if all(torch.equal(tensor, before[name]) for name, tensor in after.items()):
        raise RuntimeError(f"{folder}: distillation changed no weight")
    return {
        "folder": str(folder),
        "layers": list(small.layer_indices),
        "hidden_size": small.hidden_dim,
        "choosing_cpu_seconds": round(chosen - start, 1),
        "distilling_cpu_seconds": round(done - chosen, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT >> 20,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    """Read what is asked, make it, and write down what came out."""
    asked, made = map(Path, sys.argv[1:])
    made.write_text(json.dumps(make(json.loads(asked.read_text(encoding="utf-8")))), encoding="utf-8")


if __name__ == "__main__":
    main()
