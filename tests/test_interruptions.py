"""Whatever interrupts a run: the last checkpoint is whole, the error is clear, and resuming changes no bit."""

import errno
import fcntl
import json
import logging
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from test_checkpoints import STATE
from test_training import TinyBatches, make_supernet, make_trainer, train_log
from torch.utils.data import DataLoader, Dataset

from hf_nasbert.stopping import STOP_SIGNALS
from hf_nasbert.training import (
    DamagedCheckpointError,
    DivergenceError,
    checkpoints,
    find_checkpoint,
    folders,
    list_checkpoints,
    loop,
    read_log,
)
from hf_nasbert.training.feeding import fetched, naming_data_faults
from hf_nasbert.training.journal import Window

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _a_world_of_its_own():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing interrupts: 6 steps, a checkpoint every 2."""
    folder = tmp_path_factory.mktemp("straight")
    trainer = tiny_trainer(folder)
    trainer.train()
    return folder, trainer


def tiny_trainer(folder, **settings):
    return make_trainer(folder, **{"max_steps": 6, "save_steps": 2, "anchor_interval": 2, **settings})


def assert_same_run(folder, straight):
    expected, _ = straight
    for event in ("train", "anchor", "eval"):
        assert train_log(folder, event) == train_log(expected, event), event
    for name in ("model.safetensors", "checkpoint-6/model.safetensors", "checkpoint-6/optimizer.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    states = [checkpoints.read_json(place / "checkpoint-6" / checkpoints.STATE) for place in (folder, expected)]
    for key in ("step", "sampler", "anchor", "update_counter", "window"):
        assert states[0][key] == states[1][key], key


def resume(folder, straight, **settings):
    assert tiny_trainer(folder, resume_from_checkpoint="latest", **settings).train().is_finished
    assert_same_run(folder, straight)


def at_step(trainer, step, do):
    """Do something at the begin of a step, counted from 0."""
    take_step = trainer._take_step

    def taking(batch):
        if trainer.global_step == step:
            do()
        return take_step(batch)

    trainer._take_step = taking


class TestSignals:
    @pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
    def test_stops_behind_the_step_saves_and_says_how_to_go_on(self, tmp_path, straight, number):
        trainer = tiny_trainer(tmp_path)
        at_step(trainer, 2, lambda: os.kill(os.getpid(), number))
        output = trainer.train()
        assert (output.is_finished, output.global_step) == (False, 3)
        assert re.search(r"stopped at step 3.*--resume_from_checkpoint latest", str(output))
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
        resume(tmp_path, straight)

    def test_during_the_last_evaluation_the_run_is_finished(self, tmp_path, straight):
        trainer = tiny_trainer(tmp_path)
        evaluate = trainer.evaluate

        def evaluating():
            os.kill(os.getpid(), signal.SIGTERM)
            return evaluate()

        trainer.evaluate = evaluating
        assert trainer.train().is_finished
        assert_same_run(tmp_path, straight)

    @pytest.mark.slow
    def test_the_recipe_leaves_with_status_0(self, tmp_path):
        text = tmp_path / "text.txt"
        text.write_text("\n".join(f"the film number {number} was long and good" for number in range(400)))
        settings = {
            "output_dir": tmp_path / "run", "train_files": text, "cache_dir": tmp_path / "cache", "vocab_size": 60,
            "max_seq_length": 16, "operators": "ffn", "num_choice_blocks": 2, "hidden_size": 32, "method": "uniform",
            "max_steps": 100_000, "per_device_train_batch_size": 2, "num_eval_batches": 2, "logging_steps": 1,
            "save_steps": 100_000, "use_cpu": "true", "report_to": "none",
        }  # fmt: skip
        flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        command = [sys.executable, HERE.parent / "recipes/pretrain_supernet.py", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        log = tmp_path / "run" / "train_log.jsonl"
        end = time.monotonic() + 200
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 5):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        shown, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "--resume_from_checkpoint latest goes on from there" in shown
        (last,) = list_checkpoints(tmp_path / "run")
        assert read_log(tmp_path / "run")[-1]["step"] == int(last.name.split("-")[1])
        # A bar with the time left, in few lines where it is no terminal that shows it.
        assert re.search(r"\d/100000 \[\d\d:\d\d<(\?|[\d:]+)", errors)
        assert errors.count("/100000 [") <= 4

    @pytest.mark.slow
    def test_any_process_that_hears_one_stops_all_behind_the_same_step(self, tmp_path):
        (tmp_path / "run.py").write_text(
            textwrap.dedent(f"""
            import os, signal, sys
            sys.path[:0] = [{str(HERE)!r}]
            from test_interruptions import at_step
            from world import make_trainer_of_many
            from hf_nasbert.processes import leave_world
            folder = {str(tmp_path / "run")!r}
            trainer = make_trainer_of_many(folder, method="magic_at")
            if not trainer.accelerator.is_main_process:
                at_step(trainer, 4, lambda: os.kill(os.getpid(), signal.SIGUSR1))
            output = trainer.train()
            sys.stdout.write(f"rank {{os.environ['RANK']}}: {{output.global_step}} {{output.is_finished}}\\n")
            leave_world()
            """)
        )
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [*torchrun, tmp_path / "run.py"], env=environment, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert sorted(re.findall(r"rank \d: \d+ \w+", done.stdout)) == ["rank 0: 5 False", "rank 1: 5 False"]
        assert list_checkpoints(tmp_path / "run")[-1].name == "checkpoint-5"


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

        monkeypatch.setattr(folders.os, "open", read_only)
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

        monkeypatch.setattr(checkpoints, "delete_checkpoint", failing)
        with caplog.at_level(logging.WARNING):
            tiny_trainer(tmp_path, save_total_limit=1).train()
        assert "checkpoint-2 could not be deleted" in caplog.text
        assert len(list_checkpoints(tmp_path)) == 3

    @pytest.mark.slow
    def test_a_disk_that_is_really_full_and_one_that_is_read_only(self, tmp_path, straight):
        """A file system of a megabyte: what can be saved is whole; given room, the run goes on to the bit."""
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
        if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
            pytest.skip("mounting needs user namespaces")
        (tmp_path / "run.py").write_text(
            textwrap.dedent(f"""
            import subprocess, sys
            from pathlib import Path
            sys.path[:0] = [{str(HERE)!r}]
            from test_interruptions import tiny_trainer
            from hf_nasbert.training import find_checkpoint
            disk = Path({str(tmp_path / "disk")!r})
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "tmpfs", disk]
            def attempt(**settings):
                try:
                    print(tiny_trainer(disk / "run", **settings).train(), flush=True)
                except OSError as error:
                    print(error, flush=True)
            size = {(straight[0] / "checkpoint-6").stat().st_size} + {_size(straight[0] / "checkpoint-6")}
            subprocess.run([*mount, "-o", f"size={{int(2.5 * size)}}"], check=True)
            attempt(save_total_limit=0)
            print("kept", find_checkpoint(disk / "run", "latest").name, flush=True)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            attempt(resume_from_checkpoint="latest")
            subprocess.run(["mount", "-o", "remount,rw,size=100m", disk], check=True)
            attempt(resume_from_checkpoint="latest", save_total_limit=0)
            subprocess.run(["cp", "-r", disk / "run", {str(tmp_path / "copy")!r}], check=True)
            """)
        )
        done = subprocess.run(
            [*namespace, sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stderr[-3000:]
        full, kept, read_only, finished = done.stdout.splitlines()
        assert re.search(r"checkpoint-6 could not be written.*No space left.*checkpoint-4\.", full)
        assert kept == "kept checkpoint-4"
        assert re.search(r"cannot write in .*Read-only file system", read_only)
        assert finished == "super-net of 6 steps"
        assert_same_run(tmp_path / "copy", straight)


def _size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


class TestDamage:
    def test_every_flipped_bit_and_every_cut_is_found(self, tmp_path, straight):
        """Every byte of the manifest, and bytes all over the other files; what is damaged is passed over by name."""
        folder, _ = straight
        copy = tmp_path / "checkpoint-6"
        shutil.copytree(folder / "checkpoint-6", copy)
        shutil.copytree(folder / "checkpoint-4", tmp_path / "checkpoint-4")
        num_damages = 0
        for file in sorted(copy.iterdir()):
            content = file.read_bytes()
            is_manifest = file.name == checkpoints.MANIFEST
            places = range(len(content) - 1) if is_manifest else range(0, len(content), max(len(content) // 20, 1))
            damaged = [content[:place] for place in places]
            for place in places:
                changed = bytearray(content)
                changed[place] ^= 1 << (place % 8)
                damaged.append(bytes(changed))
            for number, what in enumerate(damaged):
                file.write_bytes(what)
                with pytest.raises(DamagedCheckpointError, match=None if is_manifest else re.escape(file.name)):
                    checkpoints.verify_checkpoint(copy)
                if number % 100 == 0:
                    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-4"
            num_damages += len(damaged)
            file.write_bytes(content)
        checkpoints.verify_checkpoint(copy)
        assert num_damages > 1000

    @pytest.mark.parametrize(
        "change", [{"window": {"odd": 1}}, {"sampler": {}}, {"update_counter": {"counts": 3}}, {"anchor": []}]
    )
    def test_a_state_of_the_wrong_shape_is_damage(self, tmp_path, straight, change):
        folder = tmp_path / "checkpoint-4"

        def fill(partial):
            for name in (checkpoints.MODEL, checkpoints.OPTIMIZER):
                shutil.copy(straight[0] / "checkpoint-4" / name, partial)
            state = checkpoints.read_json(straight[0] / "checkpoint-4" / checkpoints.STATE)
            checkpoints.write_json(partial / checkpoints.STATE, state | change)

        checkpoints.write_checkpoint(tmp_path, 4, fill)
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint-4 is damaged: training_state\.json"):
            tiny_trainer(tmp_path, resume_from_checkpoint="latest").train()
        assert folder.is_dir()

    def test_a_file_that_cannot_be_read_is_damage(self, tmp_path, straight, monkeypatch):
        for name in ("checkpoint-4", "checkpoint-6"):
            shutil.copytree(straight[0] / name, tmp_path / name)
        digest = checkpoints._digest

        def failing(file):
            if file.parent.name == "checkpoint-6" and file.suffix == ".safetensors":
                raise OSError(errno.EIO, "Input/output error")
            return digest(file)

        monkeypatch.setattr(checkpoints, "_digest", failing)
        assert find_checkpoint(tmp_path, "latest").name == "checkpoint-4"

    def test_power_lost_at_any_call_leaves_a_whole_one(self, tmp_path, monkeypatch):
        """What was not flushed is gone: files are empty, folders have no names, renamed ones have their old name."""
        for num_calls in range(100):
            root = tmp_path / str(num_calls)
            with monkeypatch.context() as patched:
                disk = Disk(root, num_calls, patched)
                try:
                    for step in (1, 2):
                        checkpoints.write_checkpoint(root, step, fill_with_weights, limit=1)
                except PowerLost:
                    is_over = False
                else:
                    is_over = True
            disk.lose()
            found = find_checkpoint(root, "latest")
            if disk.holds_one:  # until then the first save was not over
                assert found is not None, f"nothing is left when the power fails at call {num_calls}"
                assert (found / checkpoints.MODEL).read_text() == "weights" * 1000
            if is_over:
                break
        assert found.name == "checkpoint-2"
        assert 10 < num_calls < 99


def fill_with_weights(folder):
    for name in (checkpoints.MODEL, checkpoints.OPTIMIZER):
        (folder / name).write_text("weights" * 1000)
    checkpoints.write_json(folder / checkpoints.STATE, STATE)


class PowerLost(BaseException):
    pass


class Disk:
    """Knows what lies on the disk for sure. After some calls the power fails, and the rest can be taken away."""

    def __init__(self, root, num_calls, patched):
        self.root, self.num_calls, self.holds_one = root, num_calls, False
        self.flushed, self.renamed = set(), []
        flush, rename, rmtree = checkpoints.flush, type(root).rename, shutil.rmtree

        def flushing(path):
            self.call()
            flush(path)
            self.flushed.add(path.stat().st_ino)
            if path == root:
                self.holds_one, self.renamed = True, []

        def renaming(path, target):
            self.call()
            self.renamed.append((path, target))
            return rename(path, target)

        def deleting(path, ignore_errors=False):
            if path.exists():
                self.call()
                rmtree(path)

        patched.setattr(checkpoints, "flush", flushing)
        patched.setattr(type(root), "rename", renaming)
        patched.setattr(checkpoints.shutil, "rmtree", deleting)

    def call(self):
        self.num_calls -= 1
        if self.num_calls < 0:
            raise PowerLost

    def lose(self):
        for old, new in reversed(self.renamed):
            if new.exists():
                new.rename(old)
        for path in list(self.root.rglob("*")):
            if not path.exists() or path.stat().st_ino in self.flushed:
                continue
            if path.is_dir():
                shutil.rmtree(path)
                path.mkdir()
            else:
                path.write_bytes(b"")


class TestLock:
    def test_the_second_run_is_refused_by_the_name_of_the_first(self, tmp_path):
        with folders.locked(tmp_path / "run"):
            words = rf"another run is at work in .*run \(process {os.getpid()} on .+\): choose another"
            with pytest.raises(ValueError, match=words), folders.locked(tmp_path / "run"):
                pass
            with folders.locked(tmp_path / "other"):
                pass
        with folders.locked(tmp_path / "run"):
            pass
        assert list((tmp_path / "run").iterdir()) == []

    def test_what_a_dead_process_left_is_no_obstacle(self, tmp_path):
        (tmp_path / ".lock").write_text("process 1 on elsewhere")
        with folders.locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()

    def test_a_process_forked_from_a_killed_run_does_not_hold_its_lock(self, tmp_path):
        """As data workers are, which outlive a killed run by seconds."""
        ready, end = os.pipe(), os.pipe()
        run = os.fork()
        if not run:
            lock = folders.locked(tmp_path)
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
            with folders.locked(tmp_path):
                pass
        finally:
            os.write(end[1], b"x")

    def test_a_folder_deleted_under_a_run_may_belong_to_another_one_then(self, tmp_path):
        with folders.locked(tmp_path / "run"):
            shutil.rmtree(tmp_path / "run")
            with folders.locked(tmp_path / "run"):
                pass
            (tmp_path / "run" / ".lock").write_text("of the other")
        assert (tmp_path / "run" / ".lock").exists()

    def test_without_locks_on_the_file_system_a_warning_does(self, tmp_path, monkeypatch, caplog):
        def unknown(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unknown)
        with caplog.at_level(logging.WARNING), folders.locked(tmp_path):
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
        with pytest.raises(BlockingIOError, match="busy"), folders.locked(tmp_path):
            raise BlockingIOError("busy")


def poison_loss(trainer, steps):
    """Make the loss of some steps, counted from 0, no number."""
    micro_step = trainer.step._micro_step

    def poisoned(*args):
        losses = micro_step(*args)
        return losses * float("nan") if trainer.global_step in steps else losses

    trainer.step._micro_step = poisoned


def poison_gradient(trainer, steps):
    bias = trainer.supernet.lm_head.bias
    bias.register_hook(lambda grad: grad + float("inf") if trainer.global_step in steps else grad)


class TestDivergence:
    @pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
    def test_names_step_architecture_and_batch(self, tmp_path, poison):
        trainer = tiny_trainer(tmp_path)
        poison(trainer, {3})
        with pytest.raises(DivergenceError, match=r"of step 4 is .*on the sequences 12, 13, 14, 15\. Nothing of this"):
            trainer.train()
        (last,) = (record for record in read_log(tmp_path) if record["event"] == "divergence")
        assert (last["step"], last["samples"]) == (4, [12, 13, 14, 15])
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]

    @pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
    def test_skipped_steps_have_no_effect_are_counted_and_capped(self, tmp_path, poison, caplog):
        bad, options = {1, 3}, {"max_skipped_steps": 2}
        trainer = tiny_trainer(tmp_path / "straight", **options)
        poison(trainer, bad)
        weights = {}

        def watch(step):
            weights[step] = [parameter.detach().clone() for parameter in trainer.supernet.parameters()]

        for step in (1, 2, 3, 4):
            at_step(trainer, step, partial(watch, step))
        with caplog.at_level(logging.WARNING):
            assert trainer.train().is_finished
        assert "skipped, 2 of at most 2" in caplog.text
        for step in (1, 3):
            assert all(map(torch.equal, weights[step], weights[step + 1])), "a skipped step moved weights"
        assert not all(map(torch.equal, weights[2], weights[3]))
        assert [record["step"] for record in train_log(tmp_path / "straight")] == [1, 3, 5, 6]
        skips = train_log(tmp_path / "straight", "skip")
        assert [(skip["step"], skip["samples"][0]) for skip in skips] == [(2, 4), (4, 12)]
        assert [sum(counts.values()) for counts in trainer.counter.counts] == [4, 4, 4, 4]

        # Resumed between the two, the count goes on: the same run, and the same cap.
        killed = tiny_trainer(tmp_path / "killed", **options)
        poison(killed, bad)
        at_step(killed, 3, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            killed.train()
        resumed = tiny_trainer(tmp_path / "killed", resume_from_checkpoint="latest", **options)
        poison(resumed, bad)
        resumed.train()
        assert train_log(tmp_path / "killed") == train_log(tmp_path / "straight")
        assert train_log(tmp_path / "killed", "skip") == skips
        for name in ("straight", "killed"):
            state = checkpoints.read_json(tmp_path / name / "checkpoint-6" / checkpoints.STATE)
            assert state["num_skipped"] == 2
        final = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "killed")]
        assert final[0] == final[1]

        one_too_many = tiny_trainer(tmp_path / "capped", max_skipped_steps=1)
        poison(one_too_many, bad)
        with pytest.raises(DivergenceError, match=r"of step 4 is .*more than 1 such steps"):
            one_too_many.train()
        assert [folder.name for folder in list_checkpoints(tmp_path / "capped")] == ["checkpoint-2"]

    def test_poisoned_weights_are_not_saved(self, tmp_path):
        """On an operator that no child of these steps uses, no loss and no gradient shows it."""
        trainer = tiny_trainer(tmp_path, method="uniform")
        trainer.sampler.next_step = lambda: (trainer.space.child_at(0),)
        used = {id(parameter) for parameter in trainer.supernet.parameters_of(trainer.space.child_at(0))}
        name, unused = next((name, p) for name, p in trainer.supernet.named_parameters() if id(p) not in used)

        def poison():
            with torch.no_grad():
                unused.view(-1)[0] = float("nan")

        at_step(trainer, 3, poison)
        with pytest.raises(DivergenceError, match=rf"{re.escape(name)} after step 4 is nan.*checkpoint-2\."):
            trainer.train()
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]

    def test_the_log_can_hold_what_fp16_passes_over(self):
        window = Window()
        window.add(2.0, None, 1.0, 0.1)
        window.add(4.0, None, float("inf"), 0.1)
        assert window.means() == {"loss": 3.0, "grad_norm": 0.5, "learning_rate": 0.1}

    def test_a_dev_loss_that_is_no_number_ends_the_run(self, tmp_path, monkeypatch):
        trainer = tiny_trainer(tmp_path, eval_steps=3)
        score = loop.score_architectures
        monkeypatch.setattr(
            loop, "score_architectures", lambda *args, **options: [loss * math.nan for loss in score(*args, **options)]
        )
        with pytest.raises(DivergenceError, match=r"dev loss of .* after step 3 is nan"):
            trainer.train()


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
    def test_a_worker_that_dies_or_stalls(self, tmp_path, end, kind, words):
        with pytest.raises(kind, match=rf"step \d has no batch: {words}.*=latest"):
            tiny_trainer(tmp_path, batches=WorkerBatches(end), dataloader_num_workers=1).train()

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


class TestTheEnd:
    @pytest.mark.parametrize("method", ["save_model", "evaluate"])
    def test_killed_behind_the_last_step_nothing_is_told_twice(self, tmp_path, straight, method):
        trainer = tiny_trainer(tmp_path)
        original = getattr(trainer, method)

        def killed():
            original()
            raise KeyboardInterrupt

        setattr(trainer, method, killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        resume(tmp_path, straight)
        resume(tmp_path, straight)
        assert len(train_log(tmp_path, "finish")) == 1
        evaluation = tiny_trainer(tmp_path, resume_from_checkpoint="latest").train().evaluation
        (logged,) = train_log(tmp_path, "eval")
        assert [(str(child), loss) for child, loss in evaluation] == [
            (child["architecture"], child["loss"]) for child in logged["children"]
        ]

    def test_the_log_grows_by_lines_of_one_size(self, tmp_path):
        trainer = tiny_trainer(tmp_path, max_steps=20, save_steps=20, logging_steps=2, num_eval_children=0)
        trainer.train()
        lines = (tmp_path / "train_log.jsonl").read_bytes().splitlines()
        of_steps = [line for line in lines if json.loads(line)["event"] == "train"]
        assert len(of_steps) == 10
        assert len(lines) <= 10 + 20 / trainer.arguments.anchor_interval + 2
        assert max(map(len, of_steps)) < 400


@pytest.mark.slow
def test_the_benchmark_of_kills_finds_no_mismatch(tmp_path):
    text, rng = tmp_path / "words.txt", random.Random(0)
    words = ["the", "film", "was", "good", "bad", "and", "long", "actors", "play", "well", "why", "not"]
    text.write_text("\n".join(" ".join(rng.choices(words, k=60)) for _ in range(600)))
    command = [
        sys.executable, HERE.parent / "benchmarks/faults.py", "run", "--num_kills", "4", "--folder", tmp_path / "runs",
        "--text", text, "--records", tmp_path / "faults.jsonl.gz",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = loop.records.read(tmp_path / "faults.jsonl.gz")
    kills = [record for record in found if record["record"] == "kill"]
    assert len(kills) == 4
    assert all(0 <= kill["lost"] <= 3 for kill in kills)
    assert [record["mismatches"] for record in found if record["record"] == "run"] == [[]] * (len(found) - 4)


def test_a_run_that_strays_is_found_by_the_benchmark(tmp_path, straight):
    """Sanity check of what `benchmarks/faults.py` compares: other weights, another log."""
    import runpy

    benchmark = runpy.run_path(str(HERE.parent / "benchmarks/faults.py"))
    assert benchmark["differences"](straight[0], straight[0]) == []
    tiny_trainer(tmp_path, supernet=make_supernet(seed=5)).train()
    found = benchmark["differences"](straight[0], tmp_path)
    assert {"final super-net", "weights", "optimizer", "state", "log of steps", "log of evaluations"} <= set(found)
