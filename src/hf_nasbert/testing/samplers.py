"""What any sampler promises: draws of the space alone, that follow from its seed and its state and nothing else."""

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hf_nasbert.samplers import Sampler, UpdateCounter
from hf_nasbert.space import Architecture, SearchSpace, Stage
from hf_nasbert.testing.promises import require, resume, through_json

Make = Callable[..., Sampler]
"""Makes a sampler as its class does: `make(space, seed=0)`."""

SPACES: Mapping[str, SearchSpace] = {
    "chain": SearchSpace.chain(5, ("attention", "ffn", "conv3")),
    "chain-with-skip": SearchSpace.chain(4, ("attention", "skip", "ffn", "conv3")),
    "staged": SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), widths=(32, 64)),
    "skip-anywhere": SearchSpace.chain(4, ("attention", "skip", "ffn", "conv3"), skip="anywhere"),
    "uneven": SearchSpace((Stage((("attention",), ("ffn", "conv3", "skip"))), Stage((("ffn", "conv5"),), (32, 64)))),
}
"""Small spaces of every kind: of one width and of several, with and without `skip`, with blocks of unequal choice."""

_BALANCE = 0.5  # of the rarest and the most frequent operator of a block, after 3,000 steps


def check_sampler(make: Make, space: SearchSpace | None = None) -> None:
    """Hold a sampler against all that training relies on.

    Args:
        make: The sampler's class, or a function that makes one: `make(space, seed=0)`.
        space: The space to try it in; by default each of `SPACES`.

    Raises:
        AssertionError: With what the sampler does and should not.
    """
    for one in SPACES.values() if space is None else (space,):
        for check in (_stays_in_the_space, _follows_from_its_seed, _is_alone, _resumes, _refuses_what_is_not_its_own):
            check(make, one)
        _trains_every_operator(make, one)


def take(sampler: Sampler, count: int) -> list[Architecture]:
    """The next `count` children."""
    return [sampler.next_architecture() for _ in range(count)]


def take_steps(sampler: Sampler, count: int) -> list[tuple[Architecture, ...]]:
    """The next `count` steps."""
    return [sampler.next_step() for _ in range(count)]


def _stays_in_the_space(make: Make, space: SearchSpace) -> None:
    steps = take_steps(make(space, seed=1), 100)
    are_tuples = all(isinstance(step, tuple) and step and not isinstance(step, Architecture) for step in steps)
    require(are_tuples, "a step is not a tuple of one or more children")
    drawn = [*take(make(space, seed=0), 300), *(child for step in steps for child in step)]
    require(all(type(child) is Architecture for child in drawn), "a child is no Architecture")
    members = set(space.enumerate())
    stray = next((child for child in drawn if child not in members), None)
    require(stray is None, f"the child {stray} is not in the space")


def _follows_from_its_seed(make: Make, space: SearchSpace) -> None:
    drawn = take(make(space, seed=3), 50)
    require(take(make(space, seed=3), 50) == drawn, "two samplers of one seed draw different children")
    require(take(make(space, seed=4), 50) != drawn, "two samplers of different seeds draw the same children")
    require(len(set(drawn)) > 5, "of 50 children at most five differ")
    for seed in (-1, 1.0, "0", None, True):
        # random.Random(-1) equals random.Random(1): two seeds of a study would be one.
        _must_refuse(f"the seed {seed!r} is accepted", make, space, seed=seed)


def _is_alone(make: Make, space: SearchSpace) -> None:
    """No global generator moves it or is moved, and no other sampler of the class."""
    states = random.getstate(), np.random.get_state()
    try:
        drawn = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            before = random.getstate(), str(np.random.get_state())
            sampler = make(space, seed=0)
            resume(sampler, sampler.state_dict(), "the sampler")
            drawn.append(take(sampler, 40))
            require(
                (random.getstate(), str(np.random.get_state())) == before, "drawing moves a global random generator"
            )
        require(drawn[0] == drawn[1], "a global random generator decides what is drawn: draw from self._rng alone")
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    first, second = make(space, seed=0), make(space, seed=0)
    together = [(first.next_architecture(), second.next_architecture()) for _ in range(40)]
    require(together == list(zip(drawn[0], drawn[0], strict=True)), "two samplers share what they draw from")


def _resumes(make: Make, space: SearchSpace) -> None:
    """A run that was killed goes on as if it never had been, between children and between steps."""
    draws: list[tuple[Callable[[Sampler, int], list[Any]], tuple[int, ...]]] = [
        (take, (0, 1, 2, 17)),
        (take_steps, (0, 1, 7)),
    ]
    for draw, stops in draws:
        whole = draw(make(space, seed=0), 30)
        for stop in stops:
            first, second = make(space, seed=0), make(space, seed=99)
            draw(second, 3)
            head = draw(first, stop)
            resume(second, through_json(first.state_dict(), "the sampler"), "the sampler")
            require(second.seed == 0, "a sampler that loaded a state keeps its own seed")
            require(
                head + draw(second, 30 - stop) == whole,
                f"a sampler that is resumed after {stop} draws others than one that never stopped",
            )
            require(draw(first, 30 - stop) == whole[stop:], "saving a state changes what is drawn next")
    sampler, other = make(space, seed=0), make(space, seed=1)
    take(sampler, 5)
    state = sampler.state_dict()
    before = copy.deepcopy(state)
    straight = take(sampler, 20)
    require(state == before, "drawing changes a state that was handed out before")
    other.load_state_dict(state)
    state["rng"][1][:] = [0] * len(state["rng"][1])
    require(take(other, 20) == straight, "a sampler still reads the state that it loaded")


def _refuses_what_is_not_its_own(make: Make, space: SearchSpace) -> None:
    sampler = make(space, seed=0)
    take(sampler, 5)
    good = sampler.state_dict()
    version, internal, gauss_next = good["rng"]
    strange: dict[str, Any] = {
        "of another space": good | {"space": SearchSpace.chain(3, ("attention", "ffn")).to_dict()},
        "of another sampler": good | {"sampler": "nobody"},
        "without a generator": {key: value for key, value in good.items() if key != "rng"},
        "with an unknown key": good | {"rgn": 1},
        "with an odd seed": good | {"seed": -1},
        "of other options": good | {"options": {"temperature": 2}},
        "that is empty": {},
        "of half a generator": good | {"rng": [version, internal]},
        "of a short generator": good | {"rng": [version, internal[:-1], gauss_next]},
        "of a generator of words": good | {"rng": [version, ["x"] * 625, gauss_next]},
    }
    for what, state in strange.items():
        _must_refuse(f"a state {what} is accepted", sampler.load_state_dict, state)
        require(sampler.state_dict() == good, f"a state {what} is refused, but has changed the sampler")


def _trains_every_operator(make: Make, space: SearchSpace) -> None:
    counter = UpdateCounter(space)
    for step in take_steps(make(space, seed=0), 3000):
        counter.update(step)
    never = counter.never_trained()
    require(not never, f"no child of 3,000 steps has {never[:1]}")
    # Not by a hair: every operator well above the few visits of a sampler that favours others without end.
    balance = counter.statistics()["balance"]
    require(balance > _BALANCE, f"the rarest operator is trained {balance:.2f} times as often as the commonest")


def _must_refuse(otherwise: str, call: Callable[..., object], *arguments: object, **options: object) -> None:
    try:
        call(*arguments, **options)
    except ValueError:
        return
    raise AssertionError(otherwise)
