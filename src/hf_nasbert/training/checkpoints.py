"""Checkpoints that are whole or not there: written beside, flushed, renamed, and checked by size and checksum.

A checkpoint is a folder `checkpoint-{step}` whose `manifest.json` names every file of it. It holds no pickle: tensors
lie in safetensors files, the rest in JSON.
"""

import hashlib
import json
import logging
import reprlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.writing import flush

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "training_state.json"
OPTIMIZER = "optimizer.safetensors"
MODEL = "model.safetensors"
_FORMAT = 2
_STATE_ENTRIES = {
    "step": int, "num_skipped": int, "identity": dict, "arguments": dict, "sampler": dict, "update_counter": dict,
    "window": dict,
}  # fmt: skip


class DamagedCheckpointError(ValueError):
    """A checkpoint that is not what was written: names the folder, the file and what is wrong with it."""


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first, damaged ones included."""
    found = {}
    for folder in Path(output_dir).glob("checkpoint-*"):
        step = folder.name.removeprefix("checkpoint-")
        if step.isdecimal() and folder.is_dir():
            found[int(step)] = folder
    return [found[step] for step in sorted(found)]


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
    if which != "latest":
        folder = Path(which)
        if not folder.is_dir():
            raise FileNotFoundError(f"resume_from_checkpoint={which}: no such folder")
        verify_checkpoint(folder)
        read_state(folder)
        return folder
    damages = []
    for folder in reversed(list_checkpoints(output_dir)):
        try:
            verify_checkpoint(folder)
            read_state(folder)
        except DamagedCheckpointError as error:
            logger.warning("%s; trying the one before", error)
            damages.append(str(error))
            continue
        return folder
    if damages:
        raise DamagedCheckpointError(f"no whole checkpoint is left to resume from: {'; '.join(damages)}")
    return None


def verify_checkpoint(folder: Path) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        DamagedCheckpointError: If a file is missing, or of another size or content than was written, or the manifest
            does not name what every checkpoint holds.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        raise DamagedCheckpointError(f"checkpoint {folder} is incomplete: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {MANIFEST} cannot be read ({error})") from None
    if manifest.get("format") != _FORMAT:
        found = reprlib.repr(manifest.get("format"))
        raise DamagedCheckpointError(f"checkpoint {folder} has format {found}, this version reads {_FORMAT}")
    for name, (size, digest) in files.items():
        damage = _damage(folder, name, size, digest)
        if damage is not None:
            raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {damage}")
    unnamed = [name for name in (MODEL, OPTIMIZER, STATE) if name not in files]
    if unnamed:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {MANIFEST} does not name {', '.join(unnamed)}")


def _damage(folder: Path, name: str, size: int, digest: str) -> str | None:
    """What is wrong with a file that a manifest names, or `None`."""
    file = folder / name
    shown = name if len(name) < 80 and name.isprintable() else reprlib.repr(name)
    try:
        if Path(name).name != name or not file.is_file():
            return f"{shown} is missing"
        if file.stat().st_size != size:
            return f"{shown} has {file.stat().st_size} bytes, {size} were written"
        return None if _digest(file) == digest else f"the content of {shown} has changed"
    except OSError as error:  # a name may be too long for the file system
        return f"{shown} cannot be read ({error.strerror})"


def write_checkpoint(output_dir: str | Path, step: int, write: Callable[[Path], None], limit: int = 0) -> Path:
    """Write a checkpoint so that at any moment, and after any interruption, the one before or this one is whole.

    Args:
        output_dir: The folder of the run.
        step: Optimizer steps that the checkpoint has behind it.
        write: Writes the files into the folder it is given.
        limit: Checkpoints to keep, this one included; 0 keeps all.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: If it cannot be written, as on a full disk; what was there before is there still.
    """
    output_dir = Path(output_dir)
    partial, folder = output_dir / f".checkpoint-{step}.partial", output_dir / f"checkpoint-{step}"
    try:
        _write_whole(partial, write)
        if folder.exists():  # a damaged one that was passed over, say: its number is needed, its content may be too
            set_aside(folder)
        partial.rename(folder)
        flush(output_dir)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise _unwritten(str(folder), output_dir, error) from error
    if limit:
        for old in [other for other in list_checkpoints(output_dir) if other != folder][: -(limit - 1) or None]:
            try:
                delete_checkpoint(old)
            except OSError as error:  # the new one is safe: no reason to end the run
                logger.warning("%s could not be deleted: %s", old, error)
    return folder


def _unwritten(what: str, output_dir: Path, error: BaseException) -> OSError:
    kept = [folder.name for folder in list_checkpoints(output_dir)] or ["none yet"]
    return OSError(
        f"{what} could not be written ({error}): the last whole checkpoint is {kept[-1]}. "
        "Make room, or mend the folder, and go on with resume_from_checkpoint=latest"
    )


def _write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a new folder, name its files in a manifest, and wait until all of it lies on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    files = sorted(folder.iterdir())
    manifest = {file.name: {"size": file.stat().st_size, "sha256": _digest(file)} for file in files}
    write_json(folder / MANIFEST, {"format": _FORMAT, "files": manifest})
    for file in [*files, folder / MANIFEST, folder]:
        flush(file)


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Write files into the folder of a run, each whole or as it was before.

    Args:
        folder: The folder.
        write: Writes the files into another one, out of which they are moved.

    Raises:
        OSError: If one cannot be written, as on a full disk; the checkpoints are there still.
    """
    partial = folder / ".final.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        for file in sorted(partial.iterdir()):
            flush(file)
            file.replace(folder / file.name)
        partial.rmdir()
        flush(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise _unwritten(f"the final super-net in {folder}", folder, error) from error


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint so that nothing resumes from it, and nothing of it is lost; returns its new place."""
    return folder.rename(_free_name(folder.with_name(f"{folder.name}.replaced")))


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint; one that is half deleted is no longer called a checkpoint."""
    doomed = _free_name(folder.with_name(f".{folder.name}.deleted"))
    folder.rename(doomed)
    shutil.rmtree(doomed)


def delete_leftovers(output_dir: str | Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for pattern in (".checkpoint-*.partial", ".checkpoint-*.deleted*", ".final.partial"):
        for folder in Path(output_dir).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain JSON types; floats come back to the last bit."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


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
    for name, kind in _STATE_ENTRIES.items():
        if not isinstance(state.get(name), kind):
            raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {STATE} holds no {name} ({kind.__name__})")
    return state


def first_difference(saved: Any, current: Any, name: str = "") -> str | None:
    """Words for the first place where two pieces of plain JSON differ, or `None`."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in [*saved, *(key for key in current if key not in saved)]:
            found = first_difference(saved.get(key), current.get(key), f"{name}.{key}" if name else str(key))
            if found is not None:
                return found
        return None
    if isinstance(saved, list | tuple) and isinstance(current, list | tuple) and len(saved) == len(current):
        for index, (one, other) in enumerate(zip(saved, current, strict=True)):
            found = first_difference(one, other, f"{name}[{index}]")
            if found is not None:
                return found
        return None
    return None if saved == current else f"{name} was {saved}, and is {current} here"


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
    for key, tensor in _load_tensors(folder / OPTIMIZER).items():
        name, _, entry = key.rpartition("/")
        if name not in parameters or (tensor.dim() and tensor.shape != parameters[name].shape):
            raise DamagedCheckpointError(f"checkpoint {folder}: {OPTIMIZER} does not fit this super-net at {key}")
        # The step count, a scalar, lies where fused AdamW wants it; the others keep it on the CPU.
        device = parameters[name].device if tensor.dim() or optimizer.defaults.get("fused") else "cpu"
        # A copy: what was loaded is a view of the file, which may be deleted later.
        optimizer.state[parameters[name]][entry] = tensor.to(device, copy=True)


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
    tensors = _load_tensors(folder / MODEL)
    expected = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if name not in expected or expected[name].shape != tensor.shape]
    if wrong:
        raise DamagedCheckpointError(f"checkpoint {folder} does not hold this super-net: {', '.join(wrong[:3])}")
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    untied = [name for name in missing if name not in model.all_tied_weights_keys]
    if untied:
        raise DamagedCheckpointError(f"checkpoint {folder} does not hold this super-net: no {', '.join(untied[:3])}")


def _load_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(f"checkpoint {file.parent} is damaged: {file.name} ({error})") from None
    return tensors


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free_name(path: Path) -> Path:
    """`path`, or the first of `path.1`, `path.2`, ... that does not exist."""
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
