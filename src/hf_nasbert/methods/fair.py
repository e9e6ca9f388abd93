"""FairNAS: the children of a step use every operator of a block exactly once."""

from hf_nasbert.methods.base import Paper, TrainingMethod
from hf_nasbert.samplers import FairSampler


class Fair(TrainingMethod):
    """As many children a step as a block has operators, each operator in one of them (Chu et al., 2021)."""

    name = "fair"
    summary = "every operator of a block once per step"
    paper = Paper(
        "Chu et al. (2021), FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search, "
        "ICCV 2021",
        "https://arxiv.org/abs/1907.01845",
    )
    source = "a caption that quotes its algorithm, two re-implementations"
    look = ("#E69F00", "s")
    sampler_class = FairSampler
    sampler: FairSampler

    @property
    def passes_per_step(self) -> float:
        """Three for each child."""
        return 3.0 * self.sampler.children_per_step
