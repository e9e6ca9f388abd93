"""The folder of a run: nothing of an earlier run in its way or overwritten by it."""

from pathlib import Path

from hf_nasbert.training import checkpoints
from hf_nasbert.training.arguments import SupernetTrainingArguments
from hf_nasbert.training.journal import LOG

_FINAL_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def clear(arguments: SupernetTrainingArguments) -> None:
    """Make room for a run that starts anew, if nothing of an earlier one is lost by it or that was asked for.

    Raises:
        ValueError: If the folder holds an earlier run or another model.
    """
    output_dir = Path(arguments.output_dir)
    log = output_dir / LOG
    earlier = [folder.name for folder in checkpoints.list_checkpoints(output_dir)]
    earlier += [file.name for name in _FINAL_FILES for file in output_dir.glob(name)]
    # A run that was killed before its first checkpoint leaves only a log; asked to resume, it starts again.
    if log.exists() and arguments.resume_from_checkpoint != "latest":
        earlier.append(LOG)
    if earlier and not arguments.overwrite_output_dir:
        raise ValueError(
            f"{output_dir} holds an earlier run or another model ({earlier[-1]}): go on with "
            "resume_from_checkpoint=latest, choose another output_dir, or have it deleted by overwrite_output_dir"
        )
    checkpoints.delete_leftovers(output_dir)
    for folder in checkpoints.list_checkpoints(output_dir):
        checkpoints.delete_checkpoint(folder)
    if arguments.overwrite_output_dir:
        log.unlink(missing_ok=True)


def leave_behind(output_dir: Path, resumed: Path) -> None:
    """Set later checkpoints than the one resumed from aside: they belong to a past that is left."""
    checkpoints.delete_leftovers(output_dir)
    # Its name may be another one: what was set aside, or a copy.
    checkpoints.set_later_aside(output_dir, checkpoints.read_state(resumed)["step"])
