"""Other names of settings: old ones, accepted with a warning for one release, and those that they have elsewhere."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

OLD_NAMES = {
    "PipelineArguments": {"num_scored": "num_evaluations"},
    "TaskArguments": {"eval_batch_size": "per_device_eval_batch_size"},
    "LatencyArguments": {"sequence_length": "max_seq_length"},
    "RankChildrenArguments": {"num_score_batches": "num_dev_batches"},
    "SearchChildrenArguments": {"max_latency_ms": "max_latency"},
}
"""Old and new names, by the dataclass that has the new one. To be emptied with the next release."""

CALLED_ELSEWHERE = {
    "per_device_train_batch_size": ("batch_size", "train_batch_size"),
    "train_batch_size": ("batch_size", "per_device_train_batch_size"),
    "batch_size": ("per_device_train_batch_size", "train_batch_size", "dev_batch_size"),
    "eval_batch_size": ("per_device_eval_batch_size", "dev_batch_size"),
    "per_device_eval_batch_size": ("dev_batch_size",),
    "model_name_or_path": ("base_model", "model", "supernet"),
    "model": ("base_model", "supernet"),
    "base_model": ("model", "supernet"),
    "dataset": ("dataset_name",),
    "seed": ("seeds",),
    "seeds": ("seed",),
    "epochs": ("num_train_epochs",),
    "max_steps": ("recovery_steps", "child_steps"),
    "max_length": ("max_seq_length",),
    "lr": ("learning_rate",),
    "output": ("output_dir",),
    "output_dir": ("output",),
    "fp16": ("mixed_precision",),
    "bf16": ("mixed_precision",),
    "mixed_precision": ("bf16",),
    "max_latency_ms": ("max_latency",),
}
"""What transformers, or another command of this package, calls a setting; and its names here, one for each command."""


def old_names_of(kinds: Sequence[type]) -> dict[str, str]:
    """The old names of the settings of dataclasses, with the new ones."""
    return {
        old: new for kind in kinds for base in kind.__mro__ for old, new in OLD_NAMES.get(base.__name__, {}).items()
    }


def with_new_flags(argv: Sequence[str], kinds: Sequence[type]) -> list[str]:
    """A command line with the new names of its flags; says which were old."""
    names = old_names_of(kinds)
    words = []
    for word in argv:
        flag, separator, value = word.partition("=")
        new = names.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        if new is not None:
            _warn(flag, f"--{new}")
            word = f"--{new}{separator}{value}"
        words.append(word)
    return words


def with_new_keys(source: str, settings: dict[str, object], kinds: Sequence[type]) -> dict[str, object]:
    """The settings of a file under their new names; says which were old.

    Raises:
        ValueError: If one is there under both names; begins with `source`.
    """
    names = old_names_of(kinds)
    for old in settings.keys() & names.keys():
        if names[old] in settings:
            raise ValueError(f"{source}: {old} is the old name of {names[old]}, which is given too: leave one out")
        _warn(f"{source}: {old}", names[old])
    return {names.get(key, key): value for key, value in settings.items()}


def _warn(old: str, new: str) -> None:
    logger.warning("%s is now called %s; the old name goes with the next release", old, new)
