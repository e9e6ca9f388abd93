"""Two runs never write into one folder."""

import errno
import fcntl
import logging
import os
import shutil
import signal
import threading

import pytest
from interruption_helpers import assert_same_run, tiny_trainer

from hf_nasbert.locking import locked


class TestLock:
    def test_the_second_run_is_refused_by_the_name_of_the_first(self, tmp_path):
        with locked(tmp_path / "run"):
            words = rf"another run is at work in .*run \(process {os.getpid()} on .+\): choose another"
            with pytest.raises(ValueError, match=words), locked(tmp_path / "run"):
                pass
            with locked(tmp_path / "other"):
                pass
        with locked(tmp_path / "run"):
            pass
        assert list((tmp_path / "run").iterdir()) == []

    def test_one_that_waits_comes_in_when_the_first_has_ended(self, tmp_path):
        order = []

        def second():
            with locked(tmp_path, wait=True):
                order.append("second")

        with locked(tmp_path):
            waiting = threading.Thread(target=second)
            waiting.start()
            waiting.join(0.3)
            order.append("first")
        waiting.join(20)
        assert order == ["first", "second"]
        assert list(tmp_path.iterdir()) == []

    def test_what_a_dead_process_left_is_no_obstacle(self, tmp_path):
        (tmp_path / ".lock").write_text("process 1 on elsewhere")
        with locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()

    def test_one_that_cannot_name_its_holder_keeps_nobody_out(self, tmp_path, monkeypatch):
        def full(descriptor, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"), locked(tmp_path / "run"):
                pass
        assert list((tmp_path / "run").iterdir()) == []
        with locked(tmp_path / "run"):
            pass

    @pytest.mark.parametrize("kind", ["file", "hard link"])
    def test_a_file_of_somebody_else_s_is_left_alone(self, tmp_path, kind):
        (tmp_path / "run").mkdir()
        (tmp_path / "precious").write_text("mine")
        if kind == "file":
            (tmp_path / "run" / ".lock").write_text("mine")
        else:
            (tmp_path / "run" / ".lock").hardlink_to(tmp_path / "precious")
        with (
            pytest.raises(OSError, match=r"cannot write in .*run \(\.lock is there, and no lock\)"),
            locked(tmp_path / "run"),
        ):
            pass
        assert [path.read_text() for path in (tmp_path / "precious", tmp_path / "run" / ".lock")] == ["mine", "mine"]

    def test_a_pipe_in_its_place_is_told(self, tmp_path):
        os.mkfifo(tmp_path / ".lock")
        with pytest.raises(OSError, match=r"\.lock is there, and no lock"), locked(tmp_path):
            pass

    def test_a_process_forked_from_a_killed_run_does_not_hold_its_lock(self, tmp_path):
        """As data workers are, which outlive a killed run by seconds."""
        ready, end = os.pipe(), os.pipe()
        run = os.fork()
        if not run:
            lock = locked(tmp_path)
            lock.__enter__()
            if not os.fork():
                os.write(ready[1], b"x")
                os.read(end[0], 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(run, 0)
        os.read(ready[0], 1)
        try:
            assert (tmp_path / ".lock").exists()
            with locked(tmp_path):
                pass
        finally:
            os.write(end[1], b"x")

    def test_a_folder_deleted_under_a_run_may_belong_to_another_one_then(self, tmp_path):
        with locked(tmp_path / "run"):
            shutil.rmtree(tmp_path / "run")
            with locked(tmp_path / "run"):
                pass
            (tmp_path / "run" / ".lock").write_text("of the other")
        assert (tmp_path / "run" / ".lock").exists()

    def test_without_locks_on_the_file_system_a_warning_does(self, tmp_path, monkeypatch, caplog):
        def unknown(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unknown)
        with caplog.at_level(logging.WARNING), locked(tmp_path):
            pass
        assert "cannot be locked (No locks available)" in caplog.text

    def test_a_whole_run_without_locks_is_the_same(self, tmp_path, straight, monkeypatch, caplog):
        def unknown(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unknown)
        with caplog.at_level(logging.WARNING):
            assert tiny_trainer(tmp_path).train().is_finished
        assert caplog.text.count("cannot be locked") == 2, "one for the folder, one for the log"
        assert_same_run(tmp_path, straight)

    def test_what_fails_inside_is_not_mistaken_for_it(self, tmp_path):
        with pytest.raises(BlockingIOError, match="busy"), locked(tmp_path):
            raise BlockingIOError("busy")
