"""Uniform single-path sampling: one child a step, drawn afresh."""

from hf_nasbert.methods.base import Paper, TrainingMethod
from hf_nasbert.samplers import UniformSampler


class Uniform(TrainingMethod):
    """Every step trains one child, every operator of a block equally likely (SPOS: Guo et al., 2020)."""

    name = "uniform"
    summary = "one child a step, drawn uniformly"
    paper = Paper(
        "Guo et al. (2020), Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020",
        "https://arxiv.org/abs/1904.00420",
    )
    look = ("#000000", "o")
    sampler_class = UniformSampler
