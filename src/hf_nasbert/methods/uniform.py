"""Uniform single-path sampling: one child a step, drawn afresh."""

import copy
import random
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_nasbert.methods.base import MethodSettings, Paper, TrainingMethod
from hf_nasbert.samplers import UniformSampler
from hf_nasbert.settings import setting


@dataclass(kw_only=True)
class UniformSettings(MethodSettings):
    """Over what children are drawn uniformly."""

    uniform_over: Literal["operators", "children"] = setting(
        "operators", "Draw every block's operator uniformly, or every child: with skip, children are mostly deep ones."
    )


class Uniform(TrainingMethod):
    """Every step trains one child, every operator of a block equally likely (SPOS: Guo et al., 2020)."""

    name = "uniform"
    summary = "one child a step, drawn uniformly"
    paper = Paper(
        "Guo et al. (2020), Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020",
        "https://arxiv.org/abs/1904.00420",
    )
    source = "paper's abstract, the authors' code (`LICENSE` of its own, nothing taken)"
    look = ("#000000", "o")
    sampler_class = UniformSampler
    Settings = UniformSettings
    settings: UniformSettings

    def make_sampler(self, seed: int) -> UniformSampler:
        """Uniform over operators or over children."""
        return UniformSampler(self.space, seed=seed, uniform_over=self.settings.uniform_over)


class Remembering(Uniform):
    """A uniform method that draws more than its sampler does, and remembers what it saw; for others to build on."""

    settings: Any  # those of the method that builds on it
    memory: dict[str, Any]
    """All of it, in plain JSON types: set by the constructor, saved and loaded here."""
    _num_rngs = 0

    def next_rng(self) -> random.Random:
        """A new generator, the same on every process and in a run that goes on."""
        self._num_rngs += 1
        return random.Random(f"{self.name}, seed {self.sampler.seed}, {self._num_rngs}")

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state, the number of generators made, and the memory."""
        return super().state_dict() | {"num_rngs": self._num_rngs, "memory": copy.deepcopy(self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` described."""
        if _form_of(state["memory"]) != _form_of(self.memory) or type(state["num_rngs"]) is not int:
            raise ValueError(f"the memory of method {self.name} is of another one: {reprlib.repr(state['memory'])}")
        super().load_state_dict(state)
        self._num_rngs, self.memory = state["num_rngs"], copy.deepcopy(state["memory"])


def _form_of(memory: Any) -> Any:
    """The keys of a memory, and how long its lists are."""
    return {name: len(value) if isinstance(value, list) else 0 for name, value in memory.items()}
