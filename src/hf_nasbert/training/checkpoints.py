"""What a super-net's checkpoint holds: weights and moments in safetensors files, the rest in JSON; no pickle.

`checkpoint_folders` says how such a folder is written, sealed by a manifest, found again and deleted.
"""

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert import checkpoint_folders
from hf_nasbert.checkpoint_folders import MANIFEST as MANIFEST
from hf_nasbert.checkpoint_folders import DamagedCheckpointError as DamagedCheckpointError
from hf_nasbert.checkpoint_folders import delete_checkpoint as delete_checkpoint
from hf_nasbert.checkpoint_folders import delete_leftovers as delete_leftovers
from hf_nasbert.checkpoint_folders import list_checkpoints as list_checkpoints
from hf_nasbert.checkpoint_folders import set_aside as set_aside
from hf_nasbert.checkpoint_folders import set_later_aside as set_later_aside
from hf_nasbert.foreign import printable
from hf_nasbert.kept import first_difference as first_difference
from hf_nasbert.kept import write_json as write_json
from hf_nasbert.records import is_finite_number

STATE = "training_state.json"
OPTIMIZER = "optimizer.safetensors"
MODEL = "model.safetensors"
TENSORS = "method.safetensors"
"""The tensors of the method's own; only where it has any."""
_STATE_ENTRIES = {
    "step": int, "num_skipped": int, "identity": dict, "arguments": dict, "method": dict, "update_counter": dict,
    "window": dict,
}  # fmt: skip
_MOST_STEPS = 10**12  # more than any run makes
_ADVICE = "go on with resume_from_checkpoint=latest"


def find_checkpoint(output_dir: str | Path, which: str) -> Path | None:
    """The checkpoint to resume from.

    Args:
        output_dir: The folder of the run.
        which: `latest`, the newest whole one (damaged ones are named in a warning and passed over), or a folder.

    Returns:
        The folder, or `None` if `latest` was asked for and the run has no checkpoint yet.

    Raises:
        FileNotFoundError: If there is no such folder.
        DamagedCheckpointError: If the folder that was asked for is damaged, or all are: starting anew would throw
            away what they still hold.
    """

    def check(folder: Path) -> None:
        verify_checkpoint(folder)
        read_state(folder)

    if which == "latest":
        return checkpoint_folders.find_latest(output_dir, check)
    folder = Path(which)
    if not folder.is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint={which}: no such folder")
    check(folder)
    return folder


def verify_checkpoint(folder: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        DamagedCheckpointError: If a file is missing, or of another size or content than was written, or the manifest
            does not name what every checkpoint holds.
    """
    checkpoint_folders.verify(folder, (MODEL, OPTIMIZER, STATE))


def write_checkpoint(output_dir: str | Path, step: int, write: Callable[[Path], None], limit: int = 0) -> Path:
    """Write a whole checkpoint of a super-net; see `checkpoint_folders.write_checkpoint`."""
    return checkpoint_folders.write_checkpoint(output_dir, step, write, limit=limit, advice=_ADVICE)


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Write the final super-net into the folder of its run; see `checkpoint_folders.replace_files`."""
    checkpoint_folders.replace_files(folder, write, what="the final super-net", checkpoints=folder, advice=_ADVICE)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state of a run out of its checkpoint.

    Raises:
        DamagedCheckpointError: If it is none.
    """
    try:
        state: Any = read_json(folder / STATE)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {STATE} cannot be read ({error})") from None
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {STATE} holds no object")
    found: dict[str, Any] = _of_an_earlier_version(state) if "sampler" in state else state
    fault = _fault(found)
    if fault is not None:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {STATE} {fault}")
    return found


def _of_an_earlier_version(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a version in which the loop itself held sampler and anchor, as it is written now."""
    anchor, window = state.get("anchor"), state.get("window")
    method = {"sampler": state["sampler"]}
    if isinstance(anchor, dict):
        method |= {"anchor": anchor.get("architecture"), "history": anchor.get("history")}
    found = {**state, "method": method}
    if isinstance(window, dict) and "terms" not in window:
        alignment = window.get("alignment")
        kept = {name: value for name, value in window.items() if name != "alignment"}
        found["window"] = {**kept, "terms": {} if alignment is None else {"alignment": alignment}}
    return found


def _fault(state: Mapping[str, Any]) -> str | None:
    """What the rest of a run could not work with in a state, in words, or `None`.

    What depends on the super-net (what the method saved, update counts) is checked in full where it is loaded.
    """
    for name, kind in _STATE_ENTRIES.items():
        if type(state.get(name)) is not kind:
            return f"holds no {name} ({kind.__name__})"
    if not isinstance(state.get("scaler"), dict | None):
        return "holds no scaler (dict or null)"
    inner = ("arguments", "window", "update_counter", "scaler")
    found = dict(state) | {f"{name}.{key}": value for name in inner for key, value in (state.get(name) or {}).items()}
    step = state["step"]
    least = {"arguments.max_steps": step}
    for name, most in {
        "step": _MOST_STEPS,
        "num_skipped": step,
        "num_processes": _MOST_STEPS,
        "arguments.max_steps": _MOST_STEPS,
        "window.num_steps": step,
        "update_counter.num_children": 2**63,
    }.items():
        value, lowest = found.get(name, step), least.get(name, 0)
        if not (type(value) is int and lowest <= value <= most):
            return f"holds {name} {reprlib.repr(value)}, expected a whole number from {lowest} to {most}"
    terms = found.pop("window.terms", {})
    if not isinstance(terms, dict):
        return f"holds window.terms {reprlib.repr(terms)}, expected an object"
    found |= {f"window.terms.{key}": value for key, value in terms.items()}
    for name, value in found.items():
        is_number = name.startswith(("window.", "scaler.")) and not (name == "window.grad_norm" and value is None)
        if is_number and not is_finite_number(value):
            return f"holds {printable(name, 80)} {reprlib.repr(value)}, expected a finite number"
    return None


def save_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path) -> None:
    """Write moments and step count of every parameter that has any, under the parameter's name.

    Each parameter has a step count of its own: an operator is updated only when a sampled child uses it.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = torch.as_tensor(value).contiguous()
    save_file(tensors, folder / OPTIMIZER)


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path) -> None:
    """Put back what `save_optimizer` wrote; parameters that had no state have none.

    Raises:
        DamagedCheckpointError: If the file cannot be read or does not fit the model.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    with _tensors_in(folder / OPTIMIZER) as file:
        for key in file.keys():
            tensor = file.get_tensor(key)
            name, _, entry = key.rpartition("/")
            if name not in parameters or (tensor.dim() and tensor.shape != parameters[name].shape):
                raise DamagedCheckpointError(f"checkpoint {folder}: {OPTIMIZER} does not fit this super-net at {key}")
            # The step count, a scalar, lies where fused AdamW wants it; the others keep it on the CPU.
            device = parameters[name].device if tensor.dim() or optimizer.defaults.get("fused") else "cpu"
            optimizer.state[parameters[name]][entry] = tensor.to(device)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write configuration and weights as `save_pretrained` does, without its progress bar."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tied = model.all_tied_weights_keys
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, folder / MODEL, metadata={"format": "pt"})


def load_model(model: PreTrainedModel, folder: Path) -> None:
    """Put back the weights that `save_model` wrote.

    Raises:
        DamagedCheckpointError: If the file cannot be read or does not fit the model.
    """
    expected = model.state_dict()
    with _tensors_in(folder / MODEL) as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        wrong = [name for name, shape in shapes.items() if name not in expected or [*expected[name].shape] != shape]
        if wrong:
            raise DamagedCheckpointError(f"checkpoint {folder} does not hold this super-net: {', '.join(wrong[:3])}")
        untied = [name for name in expected if name not in shapes and name not in model.all_tied_weights_keys]
        if untied:
            raise DamagedCheckpointError(
                f"checkpoint {folder} does not hold this super-net: no {', '.join(untied[:3])}"
            )
        for name in shapes:
            expected[name].copy_(file.get_tensor(name))


def save_tensors(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the tensors of a method's own, if it has any."""
    if tensors:
        save_file(apart(tensors), folder / TENSORS)


def apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as a safetensors file takes them: no two on one memory, as tied weights are in a `state_dict`."""
    found: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        one = tensor.detach().contiguous()
        place = one.untyped_storage().data_ptr()
        found[name] = one.clone() if place in taken else one
        taken.add(place)
    return found


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read what `save_tensors` wrote, on the CPU.

    Raises:
        DamagedCheckpointError: If the file cannot be read.
    """
    if not (folder / TENSORS).exists():
        return {}
    with _tensors_in(folder / TENSORS) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


@contextmanager
def _tensors_in(path: Path) -> Iterator[Any]:
    """A file of tensors to read one by one, each into memory of its own, whatever becomes of the file."""
    try:
        with safe_open(path, "pt", backend="pread") as file:  # mapped, all that was read would stay in memory
            yield file
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(f"checkpoint {path.parent} is damaged: {path.name} ({error})") from None
