"""Whatever happens to the bytes of a checkpoint, it is whole or known to be damaged."""

import errno
import re
import shutil

import pytest
from interruption_helpers import tiny_trainer
from tiny.trainings import STATE

from hf_nasbert import checkpoint_folders, writing
from hf_nasbert.training import DamagedCheckpointError, checkpoints, find_checkpoint


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
        "change",
        [
            {"window": {"odd": 1}},
            {"method": {}},
            {"update_counter": {"counts": 3}},
            {"method": {"sampler": {}, "anchor": [], "history": []}},
        ],
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
        digest = checkpoint_folders._digest

        def failing(file, new):
            if file.parent.name == "checkpoint-6" and file.suffix == ".safetensors":
                raise OSError(errno.EIO, "Input/output error")
            return digest(file, new)

        monkeypatch.setattr(checkpoint_folders, "_digest", failing)
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
        flush, rename, rmtree = writing.flush, type(root).rename, shutil.rmtree

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

        patched.setattr(writing, "flush", flushing)
        patched.setattr(type(root), "rename", renaming)
        patched.setattr(checkpoint_folders.shutil, "rmtree", deleting)

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
