"""The settings that a folder of the whole pipeline was made with: the same ones, or none of its stages go on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_nasbert.costs import parse_cap
from hf_nasbert.costs.budget import LARGEST_CHILD
from hf_nasbert.locking import locked
from hf_nasbert.old_names import old_names_of
from hf_nasbert.training import SupernetTrainingArguments
from hf_nasbert.writing import write_text

# What may differ between the calls for one folder: it decides where things lie, what is shown or how often a run is
# saved, not what comes out. Two of the training are the pipeline's own (output_dir, resume_from_checkpoint).
_INCIDENTAL: dict[str, frozenset[str]] = {
    "supernet": frozenset(),
    "data": frozenset({"cache_dir", "preprocessing_num_workers"}),
    "training": SupernetTrainingArguments.incidental,
    "pipeline": frozenset({"control", "output_dir"}),  # a control is a stage of its own, and changes no other
}
_CAPS = ("max_parameters", "max_flops", "max_latency")


def claim(folder: Path, given: Mapping[str, Any]) -> None:
    """Write down what a folder is made with, or hold it to what it was made with before.

    The stages of a folder belong together: changed settings would mix two runs under one roof.

    Args:
        folder: The pipeline's.
        given: The dataclasses "supernet", "data", "training" and "pipeline".

    Raises:
        ValueError: If the folder was made with other settings, naming the first that differs.
    """
    file = folder / "settings.json"
    settings = json.loads(json.dumps({group: _settings(one) for group, one in given.items()}))
    if not file.exists():
        with locked(folder):  # of two processes that begin a folder one finds the other's settings
            if not file.exists():
                write_text(file, json.dumps(settings, indent=2) + "\n")
                return
    earlier = json.loads(file.read_text(encoding="utf-8"))
    for group, values in settings.items():
        # A setting that the folder's version did not have yet: it did what the default does now.
        new_of = old_names_of([type(given[group])])
        said = {new_of.get(name, name): value for name, value in earlier.get(group, {}).items()}
        before_of = _defaults(given[group]) | said
        if group == "training":
            own = given[group].method_settings
            before_of, values = own.as_now(before_of), {**values, **dict.fromkeys(own.retired)}
        if "language" not in earlier.get(group, {}):
            before_of.pop("language", None)  # but for this one, which cards alone say: any may be named now
        for name, value in values.items():
            if name in _INCIDENTAL[group] or name not in before_of:
                continue
            before = before_of[name]
            if _as_cap(name, before) != _as_cap(name, value):
                raise ValueError(
                    f"{folder} was made with {group} setting {name}={before!r}, now it is {value!r}: "
                    "choose another output_dir, or delete that folder to begin anew"
                )


def _settings(given: Any) -> dict[str, Any]:
    """What a dataclass says, by the names of settings: those of a training method stand beside the others."""
    return given.to_dict() if isinstance(given, SupernetTrainingArguments) else dataclasses.asdict(given)


def _defaults(given: Any) -> dict[str, Any]:
    """The defaults of a dataclass, as they come out of JSON; a required field has none."""
    found = {}
    for one in dataclasses.fields(given):
        if one.default_factory is not dataclasses.MISSING:
            found[one.name] = one.default_factory()
        elif one.default is not dataclasses.MISSING:
            found[one.name] = one.default
    return dict(json.loads(json.dumps(found)))


def _as_cap(name: str, value: Any) -> Any:
    """A cap as its number, so that 2M and 2000000 are one; any other setting as it is."""
    if name not in _CAPS or value is None:
        return value
    return parse_cap(name, value, is_latency=name == "max_latency", share_of=LARGEST_CHILD)
