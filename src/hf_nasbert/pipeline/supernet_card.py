"""A super-net's folder in, its card out: what its config, its weights, its run's log and its scores say."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hf_nasbert import records
from hf_nasbert.cards import SupernetRecord, render_supernet_card
from hf_nasbert.costs import cheapest, num_parameters
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.hub.contents import name_of_supernet
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline.interference import describe_run
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import Architecture
from hf_nasbert.writing import write_bytes, write_text


def describe_supernet(folder: str | Path, scored: Sequence[ScoredChild] = (), **facts: Any) -> SupernetRecord:
    """The record of a super-net's card.

    Args:
        folder: The super-net's.
        scored: Its children, if they were scored.
        **facts: Further fields of `SupernetRecord`; what `training` says is added to what the run's log says.

    Raises:
        FileNotFoundError: If there is no super-net in the folder.
        ValueError: If a record or a field is no good, or the run's log is damaged.
    """
    folder = Path(folder)
    files = sorted(folder.glob("model*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no super-net: expected config.json and model.safetensors")
    config = load_supernet_config(folder)
    run = describe_run(folder)
    training = {"method": run["method"], "num_steps": run["step"], "seed": run["seed"]}
    said: dict[str, Any] = {
        "name": f"NasBert super-net of {config.space.num_choice_blocks} choice blocks",
        "model": {
            "vocabulary": config.vocab_size,
            "hidden size": config.hidden_size,
            "longest sequence": config.max_position_embeddings,
        },
        "cost": _sizes(config, files),
        "search": _best_of(scored),
        "versions": records.versions(),
        "supernet_class": name_of_supernet({"architectures": config.architectures}),
        **facts,
    }
    said["training"] = {name: value for name, value in training.items() if value is not None} | said.get(
        "training", {}
    )
    if said["search"] and "example" not in said:
        said["example"] = said["search"]["best child"]
    return SupernetRecord.from_dict({**said, "search_space": config.space.to_dict()})


def write_supernet_card(folder: str | Path, record: SupernetRecord, figures: Sequence[Path] = ()) -> Path:
    """Write README.md, the record that it was made from (card.json) and its figures into a super-net's folder.

    Raises:
        WriteError: If one cannot be written.
    """
    folder = Path(folder)
    for figure in figures:
        write_bytes(folder / figure.name, figure.read_bytes())
    write_text(folder / "card.json", json.dumps(dataclasses.asdict(record), indent=2) + "\n")
    card = folder / "README.md"
    write_text(card, render_supernet_card(record))
    return card


def _sizes(config: SupernetConfig, files: Sequence[Path]) -> dict[str, Any]:
    """Parameters of all operators together, counted in the files, and of the smallest and the largest child."""
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())

    def parameters(architecture: Architecture) -> int:
        return num_parameters(config, architecture)

    smallest = cheapest(config.space, parameters)
    largest = cheapest(config.space, lambda child: -parameters(child))
    return {
        "parameters of the super-net": total,
        "parameters of the smallest child": parameters(smallest),
        "parameters of the largest child": parameters(largest),
    }


def _best_of(scored: Sequence[ScoredChild]) -> dict[str, Any]:
    finite = [child for child in scored if child.proxy_loss is not None]
    if not finite:
        return {}
    best = min(finite, key=lambda child: child.loss)
    return {
        "num_scored": len(finite),
        "best child": str(best.architecture),
        "its proxy loss (nats per masked token)": best.proxy_loss,
    }
