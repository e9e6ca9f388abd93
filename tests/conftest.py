"""What every test shares: one torch thread, no network, tiny spaces and models."""

import os
import sys

# Read when huggingface_hub and datasets are imported, hence before any import of theirs.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
)

import pytest


@pytest.fixture(scope="session", autouse=True)
def hub_cache(tmp_path_factory):
    """A cache folder of our own: no test reads or fills the user's."""
    folder = tmp_path_factory.mktemp("hf_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_thread():
    """One torch thread where torch is used: tests are small, and one thread is bit-deterministic."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
