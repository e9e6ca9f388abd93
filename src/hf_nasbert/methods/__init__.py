"""The ways to train a super-net, one file each; `METHODS` is the only list of them."""

import importlib
import inspect
import reprlib
from dataclasses import fields
from typing import Any

from hf_nasbert.methods.assembled import Assembled
from hf_nasbert.methods.attentive import Attentive
from hf_nasbert.methods.base import LOGGED, names_of_settings
from hf_nasbert.methods.base import BatchLosses as BatchLosses
from hf_nasbert.methods.base import ChildRun as ChildRun
from hf_nasbert.methods.base import Counts as Counts
from hf_nasbert.methods.base import Merge as Merge
from hf_nasbert.methods.base import MethodSettings as MethodSettings
from hf_nasbert.methods.base import Paper as Paper
from hf_nasbert.methods.base import StepContext as StepContext
from hf_nasbert.methods.base import TrainingMethod as TrainingMethod
from hf_nasbert.methods.base import Wants as Wants
from hf_nasbert.methods.base import Whole as Whole
from hf_nasbert.methods.blockwise import Blockwise
from hf_nasbert.methods.board import Board
from hf_nasbert.methods.complexity import ComplexityRate
from hf_nasbert.methods.conflict_projection import ConflictProjection
from hf_nasbert.methods.cross_path import CrossPath
from hf_nasbert.methods.fair import Fair
from hf_nasbert.methods.few_shot import FewShot
from hf_nasbert.methods.importance import Importance
from hf_nasbert.methods.learned import LearnedDistribution
from hf_nasbert.methods.magic import MagicA, MagicAT, MagicT
from hf_nasbert.methods.magic_guarded import MagicATGuarded
from hf_nasbert.methods.mixture import Mixture
from hf_nasbert.methods.sandwich import Sandwich
from hf_nasbert.methods.shifted import SizeShifted
from hf_nasbert.methods.size_classes import SizeClassesMethod
from hf_nasbert.methods.uniform import Uniform
from hf_nasbert.samplers import Sampler

METHODS: dict[str, type[TrainingMethod]] = {
    method.name: method
    for method in (
        Uniform,
        Fair,
        MagicT,
        MagicA,
        MagicAT,
        MagicATGuarded,
        Sandwich,
        Attentive,
        ConflictProjection,
        ComplexityRate,
        SizeShifted,
        Importance,
        LearnedDistribution,
        CrossPath,
        Board,
        Blockwise,
        Assembled,
        FewShot,
        Mixture,
        SizeClassesMethod,
    )
}
"""Every method by its name, in the order of tables, figures and help."""

_BESIDE = {
    "hf_nasbert.data.arguments": ("DataArguments",),
    "hf_nasbert.training.arguments": ("SupernetArguments", "SupernetTrainingArguments"),
    "hf_nasbert.pipeline.arguments": ("PipelineArguments",),
}
"""Dataclasses whose settings stand beside a method's on a command line, by name: these rooms know this one."""


def register(method: type[TrainingMethod]) -> type[TrainingMethod]:
    """Add a method of one's own; usable as a decorator.

    Raises:
        ValueError: If it is no class of a method with a name, a summary and a sampler, or its name, or the name of
            one of its settings or terms, is taken.
    """
    if not _is_a(method, TrainingMethod) or not _is_a(getattr(method, "sampler_class", None), Sampler):
        shown = method.__name__ if inspect.isclass(method) else reprlib.repr(method)
        raise ValueError(f"{shown} is no method: expected a subclass of TrainingMethod with a sampler_class")
    name = getattr(method, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{method.__name__} needs a name of letters, digits and underscores, got {name!r}")
    if name in METHODS:
        raise ValueError(f"the name {name} is taken by {METHODS[name].__name__}: choose another one")
    if not _is_a(method.Settings, MethodSettings) or "__dataclass_params__" not in vars(method.Settings):
        raise ValueError(f"the Settings of method {name} are no @dataclass below MethodSettings")
    owners = _settings_beside()
    for setting in names_of_settings(method):
        if setting in owners:
            raise ValueError(
                f"method {name} has a setting {setting}, which every training has ({owners[setting]}): rename it"
            )
    for term in method.terms:
        if term in LOGGED or method.terms.count(term) > 1:
            raise ValueError(f"method {name} has a term {term}, a name that the log has already: rename it")
    if not getattr(method, "summary", ""):
        raise ValueError(f"method {name} needs a summary, which --help, tables and docs show")
    METHODS[name] = method
    return method


def _is_a(kind: Any, base: type) -> bool:
    """Whether something is a class of a kind, and no object of it."""
    return inspect.isclass(kind) and issubclass(kind, base)


def _settings_beside() -> dict[str, str]:
    """What any command with a method, and its checkpoints, have beside the method's settings, each with its place."""
    kinds = [getattr(importlib.import_module(room), name) for room, names in _BESIDE.items() for name in names]
    flags = dict.fromkeys(("config", "help"), "a flag of its own")
    kept = dict.fromkeys(("search_space", "data", "dev_data"), "checkpoints compare it")
    return kept | flags | {field.name: kind.__name__ for kind in kinds for field in fields(kind)}


def settings_by_method() -> dict[str, type[MethodSettings]]:
    """The class of every method's settings, by the method's name."""
    return {name: method.Settings for name, method in METHODS.items()}


def methods_with(setting: str) -> list[str]:
    """The names of the methods that have a setting of that name."""
    return [name for name, kind in settings_by_method().items() if setting in {field.name for field in fields(kind)}]
