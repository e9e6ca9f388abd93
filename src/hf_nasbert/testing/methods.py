"""What any training method promises the loop that runs it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, TrainingMethod, Wants
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.testing.promises import require, resume, through_json

SPACES: Mapping[str, SearchSpace] = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), widths=(32, 64)),
}
"""A space of one width and one of several."""

_NUM_STEPS = 40


def check_method(name: str, space: SearchSpace | None = None, **settings: Any) -> None:
    """Hold a registered training method against all that training relies on, without training anything.

    Args:
        name: Its name in `METHODS`.
        space: The space to try it in; by default each of `SPACES`.
        **settings: Settings of its own.

    Raises:
        AssertionError: With what the method does and should not.
    """
    kind = METHODS[name]
    _says_what_it_is(kind)
    for one in SPACES.values() if space is None else (space,):
        _follows_from_seed_and_state(kind, one, settings)
        _tells_its_sampler(kind, one, settings)


def make_method(kind: type[TrainingMethod], space: SearchSpace, settings: Mapping[str, Any]) -> TrainingMethod:
    """A method for a run of `_NUM_STEPS` steps, as training makes it."""
    config = SupernetConfig(search_space=space, hidden_size=32, vocab_size=50)
    return kind(
        space,
        kind.Settings(**settings),
        cost=lambda child: num_parameters(config, child),
        seed=0,
        max_steps=_NUM_STEPS,
    )


def _says_what_it_is(kind: type[TrainingMethod]) -> None:
    require(bool(getattr(kind, "summary", "")), "the method has no summary for --help, tables and docs")
    named = isinstance(kind.terms, tuple) and all(isinstance(term, str) for term in kind.terms)
    require(named, f"its terms are {kind.terms!r}, not a tuple of names")
    for setting in fields(kind.Settings):
        require(bool(setting.metadata.get("help")), f"the setting {setting.name} has no help")


def _follows_from_seed_and_state(kind: type[TrainingMethod], space: SearchSpace, settings: Mapping[str, Any]) -> None:
    one, other, straight = (make_method(kind, space, settings) for _ in range(3))
    whole = _run(straight, range(1, _NUM_STEPS + 1))
    begun = _run(one, range(1, _NUM_STEPS - 9))
    require(begun == whole[: len(begun)], "two methods of one seed differ: a process would not do as the others do")
    state = through_json(one.state_dict(), "the method")
    resume(other, state, "the method")
    require(other.shown() == one.shown(), "a method that loaded a state shows another one")
    numbers = range(_NUM_STEPS - 9, _NUM_STEPS + 1)
    require(
        _run(other, numbers) == whole[len(begun) :],
        "a method that is resumed makes other steps than one that never stopped",
    )
    require(_run(one, numbers) == whole[len(begun) :], "saving a state changes the next steps")


def _run(method: TrainingMethod, numbers: Sequence[int]) -> list[Any]:
    """Some steps, as far as they are decided here: children, weights, what is computed, the event, what is shown.

    The scores that it is given fall with the step, so that whatever compares children has something to do.
    """
    found = []
    for number in numbers:
        children = method.children()
        is_tuple = isinstance(children, tuple) and bool(children)
        require(is_tuple, f"step {number} is not a tuple of one or more children")
        require(
            all(type(child) is Architecture and child in method.space for child in children),
            f"step {number} trains a child that is not in the space",
        )
        require(
            method.passes_per_step >= 3 * len(children),
            f"a step is said to cost {method.passes_per_step} passes, but trains {len(children)} children: a forward "
            "and a backward pass of each are 3",
        )
        weights = [method.weight(place, children) for place in range(len(children))]
        finite = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights)
        require(finite, f"the children of step {number} weigh {weights}: expected finite numbers")
        wants = method.wants(number - 1)
        require(isinstance(wants, Wants), f"step {number} wants {wants!r}: expected a Wants")
        event = method.after_step(number, children, [1.0] * len(children), partial(_fall, 1000 - number))
        require(
            event is None or "event" in event, f"the record of step {number} has no key 'event' and could not be told"
        )
        found.append((children, weights, wants, through_json(event, "the method's log"), method.shown()))
    return found


def _fall(first: int, children: Sequence[Architecture], num_dev_batches: int) -> list[float]:
    """Losses of children, each lower than the one before."""
    return [float(first - place) for place in range(len(children))]


def _tells_its_sampler(kind: type[TrainingMethod], space: SearchSpace, settings: Mapping[str, Any]) -> None:
    method = make_method(kind, space, settings)
    heard: list[Any] = []
    method.sampler.observe = lambda *what: heard.append(what)  # type: ignore[method-assign]
    children = method.children()
    losses = [float(place) for place in range(len(children))]
    method.after_step(1, children, losses, partial(_fall, 1000))
    require(
        [(tuple(seen), list(their)) for seen, their in heard] == [(children, losses)],
        "after_step does not give children and losses to the sampler: call super().after_step, or sampler.observe",
    )
