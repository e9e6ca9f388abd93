"""Folders of checkpoints: whole or not there, written beside, flushed, renamed, and checked by size and checksum.

A checkpoint is a folder `checkpoint-{step}` whose `manifest.json` names every file of it with its size and sum. The
sum, 128 bits of XXH3, finds damage. It stops nobody who can write the folder, and no more did SHA-256, which took
longer than all the rest of saving.
What the files hold is the business of `training.checkpoints` (super-nets) and `finetuning.runs` (one model).
"""

import hashlib
import json
import logging
import os
import reprlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError

from hf_nasbert import writing
from hf_nasbert.foreign import printable, read_object

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 3
_SUMS: dict[int, tuple[str, Callable[[], Any]]] = {
    2: ("sha256", hashlib.sha256),  # of earlier versions
    FORMAT: ("xxh3_128", xxhash.xxh3_128),
}
"""What the sum of a file is called and how it is computed, in every format that is read."""
_PREFIX = "checkpoint-"


class DamagedCheckpointError(ValueError):
    """A checkpoint that is not what was written: names the folder, the file and what is wrong with it."""


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first, damaged ones included."""
    folders = [folder for folder in Path(output_dir).glob(f"{_PREFIX}*") if folder.is_dir()]
    return sorted((folder for folder in folders if _step_of(folder) is not None), key=lambda path: _step_of(path) or 0)


def _step_of(folder: Path) -> int | None:
    """The step in a checkpoint's name; None for `checkpoint-notes` and `checkpoint-007`, which no run wrote."""
    step = folder.name.removeprefix(_PREFIX)
    return int(step) if step.isdecimal() and str(int(step)) == step else None


def find_latest(output_dir: str | Path, check: Callable[[Path], object]) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are named in a warning and passed over.

    Args:
        output_dir: The folder of the run.
        check: Raises `DamagedCheckpointError` for a checkpoint that nothing can go on from.

    Returns:
        The folder, or `None` if the run has no checkpoint yet.

    Raises:
        DamagedCheckpointError: If all are damaged: starting anew would throw away what they still hold.
    """
    damages = []
    for folder in reversed(list_checkpoints(output_dir)):
        try:
            check(folder)
        except DamagedCheckpointError as error:
            logger.warning("%s; trying the one before", error)
            damages.append(str(error))
            continue
        return folder
    if damages:
        raise DamagedCheckpointError(f"no whole checkpoint is left to resume from: {'; '.join(damages)}")
    return None


def verify(folder: Path, required: Sequence[str] = ()) -> set[str]:
    """Compare a checkpoint with its manifest.

    Args:
        folder: The checkpoint.
        required: Files that the manifest must name.

    Returns:
        The names of all files that the manifest names.

    Raises:
        DamagedCheckpointError: If a file is missing, or of another size or content than was written, or the manifest
            does not name what every checkpoint holds.
    """
    try:
        manifest = read_object(folder / MANIFEST, MANIFEST)
        known = manifest.get("format") if type(manifest.get("format")) is int else None
        if known not in _SUMS:
            found, formats = reprlib.repr(manifest.get("format")), " and ".join(map(str, _SUMS))
            raise DamagedCheckpointError(f"checkpoint {folder} has format {found}, this version reads {formats}")
        key, new = _SUMS[known]
        files = {str(name): (int(entry["size"]), str(entry[key])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        raise DamagedCheckpointError(f"checkpoint {folder} is incomplete: it has no {MANIFEST}") from None
    except DamagedCheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: {MANIFEST} cannot be read ({printable(error, 200)})"
        ) from None
    for name, (size, digest) in files.items():
        damage = _damage(folder, name, size, digest, new)
        if damage is not None:
            raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {damage}")
    unnamed = [name for name in required if name not in files]
    if unnamed:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {MANIFEST} does not name {', '.join(unnamed)}")
    return set(files)


def files_in(folder: Path) -> list[str]:
    """The names of all files in a folder and those below it, as a manifest gives them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _damage(folder: Path, name: str, size: int, digest: str, new: Callable[[], Any]) -> str | None:
    """What is wrong with a file that a manifest names, or `None`."""
    file = folder / name
    shown = name if len(name) < 80 and name.isprintable() else reprlib.repr(name)
    try:
        if ".." in file.parts or Path(name).is_absolute() or not file.is_file():
            return f"{shown} is missing"
        if file.stat().st_size != size:
            return f"{shown} has {file.stat().st_size} bytes, {size} were written"
        return None if _digest(file, new) == digest else f"the content of {shown} has changed"
    except OSError as error:  # a name may be too long for the file system
        return f"{shown} cannot be read ({error.strerror})"


def write_checkpoint(
    output_dir: str | Path,
    step: int,
    write: Callable[[Path], None],
    *,
    limit: int = 0,
    keep: int | None = None,
    advice: str,
) -> Path:
    """Write a checkpoint so that at any moment, and after any interruption, the one before or this one is whole.

    Args:
        output_dir: The folder of the run.
        step: Optimizer steps that the checkpoint has behind it.
        write: Writes the files into the folder it is given.
        limit: Checkpoints to keep, this one included; 0 keeps all.
        keep: Step of a further one that is kept, whatever its age.
        advice: How to go on after a failure, for its message.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: If it cannot be written, as on a full disk; what was there before is there still.
    """
    output_dir = Path(output_dir)
    partial, folder = output_dir / f".{_PREFIX}{step}.partial", output_dir / f"{_PREFIX}{step}"
    try:
        _write_whole(partial, write)
        if os.path.lexists(folder):  # a damaged one that was passed over, say: its content may be needed
            set_aside(folder)
        partial.rename(folder)
        writing.flush(output_dir)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise _unwritten(str(folder), output_dir, error, advice) from error
    if limit:
        for old in [other for other in list_checkpoints(output_dir) if other != folder][: -(limit - 1) or None]:
            if _step_of(old) == keep:
                continue
            try:
                delete_checkpoint(old)
            except OSError as error:  # the new one is safe: no reason to end the run
                logger.warning("%s could not be deleted: %s", old, error)
    return folder


def _unwritten(what: str, output_dir: Path, error: BaseException, advice: str) -> OSError:
    kept = [folder.name for folder in list_checkpoints(output_dir)] or ["none yet"]
    return OSError(
        f"{what} could not be written ({error}): the last whole checkpoint is {kept[-1]}. "
        f"Make room, or mend the folder, and {advice}"
    )


def _write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a new folder, name its files in a manifest, and wait until all of it lies on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    seal(folder)
    writing.flush_all(folder)


def seal(folder: Path) -> None:
    """Name every file of a folder in its manifest."""
    key, new = _SUMS[FORMAT]
    files = {
        name: {"size": (folder / name).stat().st_size, key: _digest(folder / name, new)}
        for name in files_in(folder)
        if name != MANIFEST
    }
    writing.write_text(folder / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")


def replace_files(folder: Path, write: Callable[[Path], None], *, what: str, checkpoints: Path, advice: str) -> None:
    """Write files into the folder of a run, each whole or as it was before.

    Args:
        folder: The folder.
        write: Writes the files into another one, out of which they are moved.
        what: What the files are, for the message of a failure.
        checkpoints: Where the checkpoints lie.
        advice: How to go on after a failure, likewise.

    Raises:
        OSError: If one cannot be written, as on a full disk; the checkpoints are there still.
    """
    partial = folder / ".final.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        writing.flush_all(partial)
        for name in files_in(partial):
            (folder / name).parent.mkdir(exist_ok=True)
            (partial / name).replace(folder / name)
        shutil.rmtree(partial)
        writing.flush(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise _unwritten(f"{what} in {folder}", checkpoints, error, advice) from error


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint so that nothing resumes from it, and nothing of it is lost; returns its new place."""
    return folder.rename(_free_name(folder.with_name(f"{folder.name}.replaced")))


def set_later_aside(output_dir: str | Path, step: int) -> None:
    """Set checkpoints of later steps aside, when a run goes on from an earlier one."""
    for later in list_checkpoints(output_dir):
        if (_step_of(later) or 0) > step:
            aside = set_aside(later)
            logger.warning("resuming at step %d: %s is now %s", step, later.name, aside.name)


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint; one that is half deleted is no longer called a checkpoint."""
    doomed = _free_name(folder.with_name(f".{folder.name}.deleted"))
    folder.rename(doomed)
    if doomed.is_symlink():
        doomed.unlink()
    else:
        shutil.rmtree(doomed)


def delete_leftovers(output_dir: str | Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for pattern in (f".{_PREFIX}*.partial", f".{_PREFIX}*.deleted*", ".final.partial"):
        for folder in Path(output_dir).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def _digest(file: Path, new: Callable[[], Any]) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, new).hexdigest()


def _free_name(path: Path) -> Path:
    """`path`, or the first of `path.1`, `path.2`, ... that does not exist."""
    candidate, number = path, 0
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
