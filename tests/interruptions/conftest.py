"""What all tests of interruptions start from: a run that nothing interrupts."""

import pytest
from accelerate.state import AcceleratorState
from interruption_helpers import tiny_trainer


@pytest.fixture(autouse=True)
def _a_world_of_its_own():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """A run that nothing interrupts: 6 steps, a checkpoint every 2."""
    folder = tmp_path_factory.mktemp("straight")
    trainer = tiny_trainer(folder)
    trainer.train()
    return folder, trainer
