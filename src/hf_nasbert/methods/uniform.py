"""Uniform single-path sampling: one child a step, drawn afresh."""

from dataclasses import dataclass, field
from typing import Literal

from hf_nasbert.methods.base import MethodSettings, Paper, TrainingMethod
from hf_nasbert.samplers import UniformSampler


@dataclass(kw_only=True)
class UniformSettings(MethodSettings):
    """Over what children are drawn uniformly.

    Raises:
        ValueError: If it is neither of the two.
    """

    uniform_over: Literal["operators", "children"] = field(
        default="operators",
        metadata={
            "help": "Draw every block's operator uniformly, or every child: with skip, children are mostly deep ones."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.uniform_over not in ("operators", "children"):
            raise ValueError(f"uniform_over={self.uniform_over!r}: expected operators or children")


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
