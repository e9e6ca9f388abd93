"""What several test files share: contracts to subclass, and small tools."""

import copy
import json
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hf_nasbert.samplers import Sampler, UpdateCounter
from hf_nasbert.space import Architecture, SearchSpace, Stage

RECIPES = Path(__file__).parents[1] / "recipes"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

SAMPLER_SPACES = {
    "chain": SearchSpace.chain(5, ("attention", "ffn", "conv3")),
    "chain-with-skip": SearchSpace.chain(4, ("attention", "skip", "ffn", "conv3")),
    "staged": SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), widths=(32, 64)),
    "skip-anywhere": SearchSpace.chain(4, ("attention", "skip", "ffn", "conv3"), skip="anywhere"),
    "uneven": SearchSpace((Stage((("attention",), ("ffn", "conv3", "skip"))), Stage((("ffn", "conv5"),), (32, 64)))),
}


def assert_published(drawn: Path, *, number: int) -> None:
    """Every figure of a folder, so many, is pixel for pixel the one of its name in docs/figures."""
    from matplotlib.image import imread

    figures = sorted(drawn.glob("*.png"))
    assert len(figures) == number
    for figure in figures:
        assert np.array_equal(imread(figure), imread(FIGURES / figure.name)), f"{figure.name} is not of its records"


def run_recipe(name: str, *argv: object) -> None:
    """Run a recipe as its user does, but in this process.

    Raises:
        SystemExit: If it ends with another status than 0.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    if ended.value.code:
        raise ended.value


def take(sampler: Sampler, count: int) -> list[Architecture]:
    """The next `count` children."""
    return [sampler.next_architecture() for _ in range(count)]


def take_steps(sampler: Sampler, count: int) -> list[tuple[Architecture, ...]]:
    """The next `count` steps."""
    return [sampler.next_step() for _ in range(count)]


class SamplerContract:
    """What any sampler promises. Subclass it and give `sampler`; override `make` for other options."""

    sampler: type[Sampler]

    @pytest.fixture(params=SAMPLER_SPACES.values(), ids=SAMPLER_SPACES.keys())
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        return request.param

    @pytest.fixture
    def make(self, space: SearchSpace) -> Callable[[int], Sampler]:
        return lambda seed: self.sampler(space, seed=seed)

    def test_no_draw_lies_outside_the_space(self, make, space):
        members = set(space.enumerate())
        drawn = [*take(make(0), 300), *(child for step in take_steps(make(1), 100) for child in step)]
        assert all(type(architecture) is Architecture for architecture in drawn)
        assert set(drawn) <= members

    def test_every_operator_is_trained(self, make, space):
        counter = UpdateCounter(space)
        for step in take_steps(make(0), 3000):
            assert step
            counter.update(step)
        assert counter.never_trained() == []
        # Not by a hair: every operator well above the few visits of a sampler that favours others without end.
        assert counter.statistics()["balance"] > 0.5

    def test_same_seed_same_children(self, make):
        assert take(make(3), 50) == take(make(3), 50)
        # Sanity check: a sampler that ignores its seed would pass the line above.
        assert take(make(3), 50) != take(make(4), 50)

    def test_draws_differ(self, make):
        assert len(set(take(make(0), 50))) > 5

    def test_leaves_the_global_generators_alone(self, make):
        before = random.getstate(), np.random.get_state()
        sampler = make(0)
        take(sampler, 50)
        sampler.load_state_dict(sampler.state_dict())
        take(sampler, 50)
        assert random.getstate() == before[0]
        np.testing.assert_equal(np.random.get_state(), before[1])

    def test_is_not_moved_by_the_global_generators(self, make):
        drawn = []
        state = random.getstate()
        for seed in (1, 2):
            random.seed(seed)
            drawn.append(take(make(0), 30))
        random.setstate(state)
        assert drawn[0] == drawn[1]

    def test_samplers_do_not_share_anything(self, make):
        alone = take(make(0), 40)
        first, second = make(0), make(0)
        interleaved = [(first.next_architecture(), second.next_architecture()) for _ in range(40)]
        assert interleaved == list(zip(alone, alone, strict=True))

    @pytest.mark.parametrize("stop", [0, 1, 2, 17])
    def test_resumes_as_if_it_had_never_stopped(self, make, stop):
        straight = take(make(0), 50)
        first, second = make(0), make(99)
        take(second, 3)
        head = take(first, stop)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.seed == 0
        assert head + take(second, 50 - stop) == straight
        # Saving disturbs nothing either.
        assert take(first, 50 - stop) == straight[stop:]

    @pytest.mark.parametrize("stop", [0, 1, 7])
    def test_resumes_between_steps(self, make, stop):
        straight = take_steps(make(0), 20)
        first, second = make(0), make(99)
        head = take_steps(first, stop)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert head + take_steps(second, 20 - stop) == straight

    def test_a_state_is_a_copy(self, make):
        sampler = make(0)
        take(sampler, 5)
        state = sampler.state_dict()
        before = copy.deepcopy(state)
        straight = take(sampler, 20)
        assert state == before, "drawing changed a state handed out before"
        other = make(1)
        other.load_state_dict(state)
        state["rng"][1][:] = [0] * len(state["rng"][1])
        assert take(other, 20) == straight, "the sampler still reads the state it was loaded from"

    def test_refuses_a_state_that_is_not_its_own(self, make, space):
        sampler = make(0)
        take(sampler, 5)
        good = sampler.state_dict()
        other_space = SearchSpace.chain(3, ("attention", "ffn"))
        bad_states = {
            "another search space": good | {"space": other_space.to_dict()},
            "cannot load the state of a 'nobody' sampler": good | {"sampler": "nobody"},
            "missing \\['rng'\\]": {key: value for key, value in good.items() if key != "rng"},
            "unknown \\['rgn'\\]": good | {"rgn": 1},
            "seed": good | {"seed": -1},
            "was saved under": good | {"options": {"temperature": 2}},
            "expected the state_dict": {},
        }
        version, internal, gauss_next = good["rng"]
        damaged = [None, [version, internal], [version, internal[:-1], gauss_next], [version, ["x"] * 625, gauss_next]]
        for reason, state in [*bad_states.items(), *(("damaged", good | {"rng": rng}) for rng in damaged)]:
            with pytest.raises(ValueError, match=reason):
                sampler.load_state_dict(state)
            assert sampler.state_dict() == good, "a refused state changed the sampler"

    @pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
    def test_refuses_an_odd_seed(self, make, seed):
        # random.Random(-1) equals random.Random(1): two seeds of a study would be one.
        with pytest.raises(ValueError, match="non-negative integer"):
            make(seed)
