"""The ways to train a super-net, one file each; `METHODS` is the only list of them."""

from dataclasses import fields

from hf_nasbert.methods.base import (
    ChildRun,
    Counts,
    MethodSettings,
    Paper,
    StepContext,
    TrainingMethod,
    Wants,
    Whole,
)
from hf_nasbert.methods.fair import Fair
from hf_nasbert.methods.magic import MagicA, MagicAT, MagicT
from hf_nasbert.methods.sandwich import Sandwich
from hf_nasbert.methods.uniform import Uniform

METHODS: dict[str, type[TrainingMethod]] = {}
"""Every method by its name, in the order of tables, figures and help."""


def register(method: type[TrainingMethod]) -> type[TrainingMethod]:
    """Add a method of one's own; usable as a decorator.

    Raises:
        ValueError: If the class is no method with a name and a sampler, or its name is taken.
    """
    name = getattr(method, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{method.__name__} needs a name of letters, digits and underscores, got {name!r}")
    if not issubclass(method, TrainingMethod) or not hasattr(method, "sampler_class"):
        raise ValueError(f"{method.__name__} is no TrainingMethod with a sampler_class")
    if name in METHODS:
        raise ValueError(f"the name {name} is taken by {METHODS[name].__name__}: choose another one")
    METHODS[name] = method
    return method


for _method in (Uniform, Fair, MagicT, MagicA, MagicAT, Sandwich):
    register(_method)


def settings_by_method() -> dict[str, type[MethodSettings]]:
    """The class of every method's settings, by the method's name."""
    return {name: method.Settings for name, method in METHODS.items()}


def methods_with(setting: str) -> list[str]:
    """The names of the methods that have a setting of that name."""
    return [name for name, kind in settings_by_method().items() if setting in {field.name for field in fields(kind)}]


__all__ = [
    "METHODS",
    "ChildRun",
    "Counts",
    "MethodSettings",
    "Paper",
    "StepContext",
    "TrainingMethod",
    "Wants",
    "Whole",
    "methods_with",
    "register",
    "settings_by_method",
]
