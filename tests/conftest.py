"""What every test shares: one torch thread, no network, caches of its own."""

import gc
import os
import tempfile
import threading
from pathlib import Path

gc.disable()  # imports and collection make next to no garbage, and looking for it takes two seconds

# Read when huggingface_hub, datasets and evaluate are imported, hence before any import of theirs: no test reads or
# fills the caches of whoever runs it.
_HF_HOME = tempfile.TemporaryDirectory(prefix="hf_home_")
os.environ.update(
    HF_HOME=_HF_HOME.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
)

# No power is cut in a test, and what a killed process wrote is in memory: nothing waits for the disk that holds the
# temporary files, some ten thousand times. Small disks that tests mount are waited for.
_fsync, _OWN_DISK = os.fsync, Path(tempfile.gettempdir()).stat().st_dev


def _fsync_of_others(descriptor):
    if os.fstat(descriptor).st_dev != _OWN_DISK:
        _fsync(descriptor)


os.fsync = _fsync_of_others

import pytest
from helpers import same_on_all_machines
from hypothesis import settings
from tqdm import tqdm

# Forks are killed in tests. They share tqdm's own lock: held by one that is killed, it would stop all bars here.
tqdm.set_lock(threading.RLock())

settings.register_profile("the same each time", derandomize=True, database=None)
settings.load_profile("the same each time")


def pytest_collection_finish():
    """Garbage is looked for among what tests make, not among all that was imported: half a second each time."""
    gc.collect()
    gc.freeze()
    gc.enable()
    same_on_all_machines()


@pytest.fixture(autouse=True)
def one_thread():
    """One torch thread where torch is used: tests are small, and one thread is bit-deterministic."""
    same_on_all_machines()


@pytest.fixture
def poisoned_memory():
    """Memory that nobody initialises is NaN, or the largest integer, and not zero by luck."""
    import torch

    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of data sets for one test alone."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def quiet_trainer():
    """No progress bars, and no long search for garbage whenever a Trainer begins."""
    import datasets

    datasets.disable_progress_bars()
    gc.freeze()
    yield
    datasets.enable_progress_bars()
