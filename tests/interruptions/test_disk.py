"""A disk that is full, read-only or emptied under a run costs no checkpoint, and the error is clear."""

import errno
import logging
import os
import re
import resource
import shutil
from functools import partial

import pytest
from interruption_helpers import assert_same_run, at_step, resume, tiny_trainer
from safetensors import SafetensorError
from tiny.disks import mount, remount, with_mounts

from hf_nasbert import checkpoint_folders, locking
from hf_nasbert.training import checkpoints, find_checkpoint, list_checkpoints, loop


class TestDisk:
    def test_a_failed_save_ends_the_run_by_name_and_costs_no_checkpoint(self, tmp_path, straight, monkeypatch):
        write_json = checkpoints.write_json

        def failing(path, content):
            if "checkpoint-4" in path.parent.name:
                raise OSError(errno.ENOSPC, "No space left on device")
            write_json(path, content)

        monkeypatch.setattr(checkpoints, "write_json", failing)
        words = r"checkpoint-4 could not be written.*No space left.*last whole checkpoint is checkpoint-2.*=latest"
        with pytest.raises(OSError, match=words):
            tiny_trainer(tmp_path).train()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "train_log.jsonl"]
        monkeypatch.undo()
        resume(tmp_path, straight)

    @pytest.mark.parametrize("kind", [OSError, SafetensorError])
    def test_a_failed_save_of_the_final_supernet_does_too(self, tmp_path, straight, monkeypatch, kind):
        save_model = checkpoints.save_model

        def failing(model, folder):
            save_model(model, folder)
            if folder.name == ".final.partial":
                raise kind("No space left on device")

        monkeypatch.setattr(checkpoints, "save_model", failing)
        words = r"final super-net in .* could not be written.*No space left.*whole checkpoint is checkpoint-6.*=latest"
        with pytest.raises(OSError, match=words):
            tiny_trainer(tmp_path).train()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6", "train_log.jsonl"]
        monkeypatch.undo()
        resume(tmp_path, straight)

    def test_a_file_that_cannot_grow_at_any_byte(self, tmp_path, straight):
        """Real failures of real writes, in Python's files and in those of safetensors: none may be longer than k."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        checkpoints.write_checkpoint(tmp_path, 1, partial(self.fill, straight))
        sizes = sorted(file.stat().st_size for file in (tmp_path / "checkpoint-1").iterdir())
        longest = sizes[-1]
        places = {0, 1, 7, 8, 9, *(size + delta for size in sizes for delta in (-1, 0)), *range(0, longest, 9973)}
        for limit in sorted(place for place in places if place < longest):
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                with pytest.raises(OSError, match=r"checkpoint-2 could not be written.*checkpoint-1\."):
                    checkpoints.write_checkpoint(tmp_path, 2, partial(self.fill, straight), limit=1)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-1"]
        checkpoints.verify_checkpoint(tmp_path / "checkpoint-1")
        checkpoints.write_checkpoint(tmp_path, 2, partial(self.fill, straight), limit=1)
        assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-2"]

    @staticmethod
    def fill(straight, folder):
        path, trainer = straight
        checkpoints.save_model(trainer.supernet, folder)
        checkpoints.save_optimizer(trainer.optimizer.optimizer, trainer.supernet, folder)
        checkpoints.write_json(
            folder / checkpoints.STATE, checkpoints.read_json(path / "checkpoint-6" / checkpoints.STATE)
        )

    @pytest.mark.parametrize("event", ["train", "finish"])
    def test_a_log_that_cannot_be_written_ends_the_run_too(self, tmp_path, straight, monkeypatch, event):
        append = loop.records.append

        def failing(path, record):
            if record["event"] == event and record.get("step", 9) in (0, 3, 4, 6):
                raise OSError(errno.ENOSPC, "No space left on device")
            append(path, record)

        monkeypatch.setattr(loop.records, "append", failing)
        with pytest.raises(OSError, match="No space left"):
            tiny_trainer(tmp_path).train()
        monkeypatch.undo()
        resume(tmp_path, straight)

    def test_a_folder_that_cannot_be_written_is_refused_at_once(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"cannot write in .*file.*choose another output_dir"):
            tiny_trainer(tmp_path / "file" / "run").train()
        os_open = os.open

        def read_only(path, flags, *mode):
            if flags & os.O_CREAT:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return os_open(path, flags, *mode)

        monkeypatch.setattr(locking.os, "open", read_only)
        with pytest.raises(OSError, match=r"cannot write in .*run \(Read-only file system\)"):
            tiny_trainer(tmp_path / "run").train()

    def test_the_folder_deleted_under_a_run(self, tmp_path, straight):
        trainer = tiny_trainer(tmp_path / "run")
        at_step(trainer, 3, lambda: shutil.rmtree(tmp_path / "run"))
        assert trainer.train().is_finished
        assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["checkpoint-4", "checkpoint-6"]
        expected, _ = straight
        name = "checkpoint-6/model.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (expected / name).read_bytes()

    def test_a_checkpoint_deleted_under_a_run(self, tmp_path, straight):
        trainer = tiny_trainer(tmp_path)
        at_step(trainer, 3, lambda: shutil.rmtree(tmp_path / "checkpoint-2"))
        trainer.train()
        assert_same_run(tmp_path, straight)

    def test_an_old_checkpoint_that_cannot_be_deleted_is_only_a_warning(self, tmp_path, monkeypatch, caplog):
        def failing(folder):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(checkpoint_folders, "delete_checkpoint", failing)
        with caplog.at_level(logging.WARNING):
            tiny_trainer(tmp_path, save_total_limit=1).train()
        assert "checkpoint-2 could not be deleted" in caplog.text
        assert len(list_checkpoints(tmp_path)) == 3

    @pytest.mark.slow
    def test_a_disk_that_is_really_full_and_one_that_is_read_only(self, tmp_path, straight):
        """A file system of a megabyte: what can be saved is whole; given room, the run goes on to the bit."""
        size = (straight[0] / "checkpoint-6").stat().st_size + _size(straight[0] / "checkpoint-6")
        full, kept, read_only, finished = with_mounts(train_on, tmp_path / "disk", int(2.5 * size), tmp_path / "copy")
        assert re.search(r"checkpoint-6 could not be written.*No space left.*checkpoint-4\.", full)
        assert kept == "checkpoint-4"
        assert re.search(r"cannot write in .*Read-only file system", read_only)
        assert finished == "super-net of 6 steps"
        assert_same_run(tmp_path / "copy", straight)


def train_on(disk, size, copy):
    """What a run says of a full disk, what it kept, and what it says of a read-only one and of one with room."""

    def attempt(**settings):
        try:
            return str(tiny_trainer(disk / "run", **settings).train())
        except OSError as error:
            return str(error)

    disk.mkdir()
    mount(disk, size=str(size))
    said = [attempt(save_total_limit=0), find_checkpoint(disk / "run", "latest").name]
    remount(disk, "ro")
    said.append(attempt(resume_from_checkpoint="latest"))
    remount(disk, "rw,size=100m")
    said.append(attempt(resume_from_checkpoint="latest", save_total_limit=0))
    shutil.copytree(disk / "run", copy)
    return said


def _size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())
