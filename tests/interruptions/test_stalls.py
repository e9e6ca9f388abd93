"""Text that stalls, dies or fails ends a run by name, at the step that waited for it."""

import errno
import os
import signal
import threading
import time
from functools import partial

import pytest
from interruption_helpers import resume, tiny_trainer
from tiny.trainings import TinyBatches
from torch.utils.data import DataLoader, Dataset

from hf_nasbert.training import loop
from hf_nasbert.training.feeding import fetched, from_workers, naming_data_faults


class StallingBatches(TinyBatches):
    def batch(self, step, rows=slice(None)):
        if step == 3:
            time.sleep(60)
        return super().batch(step, rows)


class DyingSteps(Dataset):
    """Batches for a `DataLoader`, whose worker comes to its end at some step."""

    def __init__(self, end):
        self.end = end

    def __len__(self):
        return 6

    def __getitem__(self, step):
        if step == 3:
            self.end()
        return TinyBatches(4).batch(step)


class WorkerBatches(TinyBatches):
    def __init__(self, end):
        super().__init__(4)
        self.end = end

    def loader(self, start_step, num_steps, *, rows=slice(None), num_workers=0):
        return DataLoader(DyingSteps(self.end), batch_size=None, num_workers=num_workers, timeout=2)


class TestData:
    def test_data_that_stalls_is_an_error_that_names_the_step(self, tmp_path, straight, monkeypatch):
        monkeypatch.setattr(loop, "fetched", partial(fetched, timeout_seconds=0.5))
        start = time.monotonic()
        words = r"step 4 has no batch: the data stalls \(no batch in 0\.5 seconds\).*=latest"
        with pytest.raises(TimeoutError, match=words):
            tiny_trainer(tmp_path, batches=StallingBatches(4)).train()
        assert time.monotonic() - start < 20
        monkeypatch.undo()
        resume(tmp_path, straight)

    def test_it_waits_a_minute(self):
        assert fetched.__kwdefaults__ == {"timeout_seconds": 60}

    @pytest.mark.parametrize(
        ("end", "kind", "words"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), ChildProcessError, "the data worker died"),
            (lambda: time.sleep(60), TimeoutError, "the data stalls"),
        ],
        ids=["killed", "stalled"],
    )
    def test_a_worker_that_dies_or_stalls(self, tmp_path, end, kind, words, monkeypatch):
        # torch gives a worker that sleeps five seconds to end before it ends it.
        monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        with pytest.raises(kind, match=rf"step \d has no batch: {words}.*=latest"):
            tiny_trainer(tmp_path, batches=WorkerBatches(end), dataloader_num_workers=1).train()

    @pytest.mark.parametrize("is_told", [True, False])
    def test_a_worker_that_dies_while_it_sends_a_batch(self, is_told, monkeypatch):
        """The broken link comes first, and the death is told later: by torch, which raises wherever that happens."""

        def tell(*_):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

        def batches():
            yield {"x": 1}
            if is_told:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2)).start()
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

        monkeypatch.setattr("hf_nasbert.training.feeding._SECONDS_TO_DIE", 20 if is_told else 0)
        before = signal.signal(signal.SIGUSR2, tell)
        words = "step 2 has no batch: the data worker died .*" + ("pid 7" if is_told else "reset by peer")
        try:
            with pytest.raises(ChildProcessError, match=words), naming_data_faults(lambda: 1):
                list(from_workers(batches()))
        finally:
            signal.signal(signal.SIGUSR2, before)

    def test_a_link_of_the_data_itself_that_breaks_is_no_death(self):
        def batches():
            raise ConnectionResetError("Caught ConnectionResetError in DataLoader worker process 0.")
            yield

        with pytest.raises(ConnectionResetError, match="Caught"), naming_data_faults(lambda: 1):
            list(from_workers(batches()))

    def test_batches_come_in_order_and_errors_as_they_are(self):
        assert list(fetched([{"x": 1}, {"x": 2}])) == [{"x": 1}, {"x": 2}]

        def failing():
            yield {"x": 1}
            raise KeyError("column")

        batches = fetched(failing())
        assert next(batches) == {"x": 1}
        with pytest.raises(KeyError, match="column"):
            next(batches)

    @pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(errno.ETIMEDOUT, "the disk")])
    def test_other_errors_are_left_alone(self, error):
        with pytest.raises(type(error)) as raised, naming_data_faults(lambda: 3):
            raise error
        assert raised.value is error
