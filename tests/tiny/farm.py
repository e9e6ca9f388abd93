"""A farm: its jobs, a trainer that only sleeps, and the smallest recipe of a real one."""

import time

from hf_nasbert.records import Record
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.farm import Job

SPACE = SearchSpace.chain(num_choice_blocks=3, operators=("attention", "ffn", "conv3"))
RECIPE = {"blocks": ["conv3", "attention,ffn,conv3"], "hidden_size": 32, "max_steps": 6, "train_batch_size": 4}
JOBS = [Job(child, seed) for child in SPACE.enumerate() for seed in (0, 1)][:20]


class FakeTrainer:
    """Stands in for `StandaloneTrainer`: a "training" of steps that only sleep."""

    recipe_hash = "0123456789ab"
    space = SPACE
    device = "cpu"

    def __init__(self, step_seconds: float = 0.01, fail_on: str = "") -> None:
        self.step_seconds, self.fail_on = step_seconds, fail_on

    def train(self, architecture, seed, on_step) -> Record:
        for step in range(5):
            on_step(step)
            time.sleep(self.step_seconds)
        if str(architecture) == self.fail_on:
            raise ValueError(f"{architecture} diverged")
        return record_of(architecture, seed)


def record_of(architecture, seed=0, recipe_hash=FakeTrainer.recipe_hash) -> Record:
    return {"architecture": str(architecture), "seed": seed, "dev_loss": 5.0 + seed, "recipe_hash": recipe_hash}


def without_timing(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "timing"}
