"""`training.checkpoints`: whole or not there, exact, and found again."""

import hashlib
import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny.trainings import STATE
from torch import nn
from transformers import BertConfig

from hf_nasbert import checkpoint_folders, writing
from hf_nasbert.training import checkpoints
from hf_nasbert.training.checkpoints import DamagedCheckpointError


def write(output_dir, step, *, content="weights", limit=0):
    def fill(folder):
        (folder / "model.safetensors").write_text(f"{content} of {step}")
        (folder / "optimizer.safetensors").write_text("moments")
        (folder / "training_state.json").write_text(json.dumps(STATE))

    return checkpoints.write_checkpoint(output_dir, step, fill, limit=limit)


def names(output_dir):
    return sorted(path.name for path in output_dir.iterdir())


class TestWriting:
    def test_is_whole_and_names_every_file(self, tmp_path):
        folder = write(tmp_path / "new" / "run", 7)
        assert folder.name == "checkpoint-7"
        files = ["model.safetensors", "optimizer.safetensors", "training_state.json"]
        assert names(folder) == ["manifest.json", *files]
        assert list(json.loads((folder / "manifest.json").read_text())["files"]) == files
        checkpoints.verify_checkpoint(folder)
        assert names(folder.parent) == ["checkpoint-7"]

    def test_a_failure_leaves_nothing_behind_and_the_one_before(self, tmp_path):
        write(tmp_path, 1)

        def fill(folder):
            (folder / "model.safetensors").write_text("half")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            checkpoints.write_checkpoint(tmp_path, 2, fill, limit=1)
        assert names(tmp_path) == ["checkpoint-1"]
        checkpoints.verify_checkpoint(tmp_path / "checkpoint-1")

    @pytest.mark.parametrize("kill_at", range(22))
    def test_killed_anywhere_there_is_a_whole_one(self, tmp_path, monkeypatch, kill_at):
        """Every call that changes the disk is a place to die; what is then on the disk must do."""
        write(tmp_path, 1)
        calls = 0

        class Killed(BaseException):
            pass

        def dying(call):
            def wrapped(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > kill_at:
                    raise Killed
                return call(*args, **kwargs)

            return wrapped

        path = type(tmp_path)
        for name in ("mkdir", "rename", "write_text"):
            monkeypatch.setattr(path, name, dying(getattr(path, name)))
        monkeypatch.setattr(writing, "flush", dying(writing.flush))
        # A killed process cleans nothing up.
        monkeypatch.setattr(checkpoint_folders.shutil, "rmtree", dying(lambda *args, **kwargs: None))
        try:
            write(tmp_path, 2, limit=1)
        except Killed:
            pass
        else:
            assert kill_at > 12
        monkeypatch.undo()
        found = checkpoints.find_checkpoint(tmp_path, "latest")
        assert (found / "model.safetensors").read_text() == f"weights of {found.name.removeprefix('checkpoint-')}"
        checkpoints.delete_leftovers(tmp_path)
        write(tmp_path, 2, limit=1)
        assert checkpoints.find_checkpoint(tmp_path, "latest").name == "checkpoint-2"
        assert not [name for name in names(tmp_path) if name.startswith(".")]

    def test_keeps_the_newest(self, tmp_path):
        for step in (1, 2, 10, 9):
            write(tmp_path, step, limit=2)
        assert [folder.name for folder in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
        write(tmp_path, 11, limit=1)
        assert names(tmp_path) == ["checkpoint-11"]
        for step in (12, 13, 14):
            write(tmp_path, step, limit=0)
        assert len(names(tmp_path)) == 4

    def test_what_was_there_is_moved_and_not_destroyed(self, tmp_path):
        write(tmp_path, 1, content="old")
        write(tmp_path, 1, content="new")
        write(tmp_path, 1, content="newest")
        contents = {folder.name: (folder / "model.safetensors").read_text() for folder in tmp_path.iterdir()}
        assert contents == {
            "checkpoint-1": "newest of 1",
            "checkpoint-1.replaced": "old of 1",
            "checkpoint-1.replaced.1": "new of 1",
        }
        assert len(checkpoints.list_checkpoints(tmp_path)) == 1

    def test_other_files_are_none_of_its_business(self, tmp_path):
        for name in ("checkpoint-notes", "checkpoint-x5", "final"):
            (tmp_path / name).mkdir()
        (tmp_path / "checkpoint-3").write_text("a file")
        for step in (1, 2, 4):
            write(tmp_path, step, limit=1)
        checkpoints.delete_leftovers(tmp_path)
        assert names(tmp_path) == ["checkpoint-3", "checkpoint-4", "checkpoint-notes", "checkpoint-x5", "final"]


def truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])


def flip(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[0] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def alter(**changes):
    """Change entries of the manifest, and leave the files as they are."""

    def altering(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return altering


def with_size(size):
    def altering(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["model.safetensors"]["size"] = size
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return altering


def unnamed(name):
    def forgetting(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["files"][name]
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return forgetting


def escape(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../model.safetensors"] = manifest["files"]["model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = {
    "truncated": (truncate, r"model\.safetensors has \d+ bytes, \d+ were written"),
    "flipped": (flip, r"content of model\.safetensors"),
    "missing": (lambda folder: (folder / "training_state.json").unlink(), r"training_state\.json is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "incomplete"),
    "empty manifest": (lambda folder: (folder / "manifest.json").write_text(""), r"manifest\.json cannot be read"),
    "odd manifest": (lambda folder: (folder / "manifest.json").write_text("[]"), r"manifest\.json cannot be read"),
    "deep manifest": (
        lambda folder: (folder / "manifest.json").write_text("[" * 20_000),
        r"manifest\.json cannot be read",
    ),
    "format": (alter(format=99), "format 99,"),
    "long format": (alter(format="9" * 9_000), "format '999.{,40}, this"),
    "endless size": (with_size(float("inf")), r"manifest\.json cannot be read"),
    "long name": (alter(files={"x" * 9_000: {"size": 1, "xxh3_128": ""}}), "'xxx.{,40} cannot be read"),
    "no files": (alter(files={}), r"does not name model\.safetensors, optimizer\.safetensors, training_state\.json"),
    "no model": (unnamed("model.safetensors"), r"does not name model\.safetensors$"),
    "no optimizer": (unnamed("optimizer.safetensors"), r"does not name optimizer\.safetensors$"),
    "no state": (unnamed("training_state.json"), r"does not name training_state\.json$"),
    "path outside": (escape, r"\.\./model\.safetensors is missing"),
}


BAD_STATES = {
    "{}": "holds no step",
    "[]": "holds no object",
    "[" * 20_000: "cannot be read",
    "": "cannot be read",
    json.dumps(STATE | {"step": "1"}): r"holds no step \(int\)",
    json.dumps(STATE | {"window": None}): r"holds no window \(dict\)",
}


class TestFinding:
    @pytest.mark.parametrize(("content", "words"), BAD_STATES.items(), ids=range(len(BAD_STATES)))
    def test_a_state_that_was_written_odd_is_passed_over(self, tmp_path, monkeypatch, content, words):
        good = write(tmp_path, 1)
        monkeypatch.setattr(json, "dumps", lambda *args, dumps=json.dumps, **options: (
            content if args[0] is STATE else dumps(*args, **options)
        ))  # fmt: skip
        bad = write(tmp_path, 2)
        checkpoints.verify_checkpoint(bad)
        assert checkpoints.find_checkpoint(tmp_path, "latest") == good
        with pytest.raises(DamagedCheckpointError, match=rf"checkpoint-2 is damaged: training_state\.json {words}"):
            checkpoints.find_checkpoint(tmp_path, str(bad))

    @pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
    def test_a_damaged_one_is_named_and_passed_over(self, tmp_path, caplog, damage, words):
        good, bad = write(tmp_path, 1), write(tmp_path, 2)
        (tmp_path / "model.safetensors").write_text("weights of 2")
        damage(bad)
        with caplog.at_level(logging.WARNING):
            assert checkpoints.find_checkpoint(tmp_path, "latest") == good
        assert "checkpoint-2" in caplog.text
        with pytest.raises(DamagedCheckpointError, match=words):
            checkpoints.find_checkpoint(tmp_path, str(bad))
        assert bad.is_dir(), "looking at it destroyed it"

    def test_those_of_earlier_versions_are_compared_by_sha256(self, tmp_path):
        folder = write(tmp_path, 1)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["format"] == 3
        for name, entry in manifest["files"].items():
            del entry["xxh3_128"]
            entry["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
        assert checkpoints.find_checkpoint(tmp_path, "latest") == folder
        flip(folder)
        with pytest.raises(DamagedCheckpointError, match=r"content of model\.safetensors"):
            checkpoints.find_checkpoint(tmp_path, str(folder))

    def test_the_newest_by_number(self, tmp_path):
        for step in (9, 10, 100):
            write(tmp_path, step)
        assert checkpoints.find_checkpoint(tmp_path, "latest").name == "checkpoint-100"

    def test_none_yet(self, tmp_path):
        assert checkpoints.find_checkpoint(tmp_path, "latest") is None
        assert checkpoints.find_checkpoint(tmp_path / "missing", "latest") is None

    def test_all_damaged_is_no_fresh_start(self, tmp_path):
        truncate(write(tmp_path, 1))
        truncate(write(tmp_path, 2))
        with pytest.raises(DamagedCheckpointError, match=r"no whole checkpoint.*checkpoint-2.*checkpoint-1"):
            checkpoints.find_checkpoint(tmp_path, "latest")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            checkpoints.find_checkpoint(tmp_path, str(tmp_path / "nowhere"))


def make_model(seed=0):
    torch.manual_seed(seed)
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    model.all_tied_weights_keys = {}
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def train(model, optimizer, steps):
    for _ in range(steps):
        model["used"](torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def resident_mib(kind):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


class TestTensors:
    def test_the_optimizer_comes_back_to_the_bit(self, tmp_path):
        model, optimizer = make_model()
        train(model, optimizer, 3)
        checkpoints.save_optimizer(optimizer, model, tmp_path)
        again, fresh = make_model()
        again.load_state_dict(model.state_dict())
        train(again, fresh, 1)
        again.load_state_dict(model.state_dict())
        checkpoints.load_optimizer(fresh, again, tmp_path)
        assert len(fresh.state) == len(optimizer.state) == 2, "parameters that were never updated have no state"
        train(model, optimizer, 3)
        train(again, fresh, 3)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, again.get_parameter(name))
        for name, parameter in model["used"].named_parameters():
            one, other = optimizer.state[parameter], fresh.state[again["used"].get_parameter(name)]
            assert one["step"] == other["step"] == 6
            assert torch.equal(one["exp_avg"], other["exp_avg"])
            assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])

    def test_what_was_loaded_does_not_depend_on_the_file(self, tmp_path):
        model, optimizer = make_model()
        train(model, optimizer, 1)
        checkpoints.save_optimizer(optimizer, model, tmp_path)
        checkpoints.load_optimizer(optimizer, model, tmp_path)
        expected = {name: optimizer.state[p]["exp_avg"].clone() for name, p in model["used"].named_parameters()}
        (tmp_path / checkpoints.OPTIMIZER).write_bytes(b"\0" * (tmp_path / checkpoints.OPTIMIZER).stat().st_size)
        for name, parameter in model["used"].named_parameters():
            assert torch.equal(optimizer.state[parameter]["exp_avg"], expected[name])

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's count of memory")
    def test_loading_holds_nothing_twice(self, tmp_path):
        model = nn.ModuleDict({str(number): nn.Linear(1024, 1024) for number in range(16)})  # 64 MiB
        model.all_tied_weights_keys = {}
        model.config = BertConfig()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        checkpoints.save_model(model, tmp_path)
        checkpoints.save_optimizer(optimizer, model, tmp_path)
        expected = {name: optimizer.state[parameter]["exp_avg"] for name, parameter in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for load, size in (
            (partial(checkpoints.load_model, model), 0),  # into the weights that are there
            (partial(checkpoints.load_optimizer, optimizer, model), 128),
        ):
            before = resident_mib("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            load(tmp_path)
            assert resident_mib("VmHWM") - before < size + 32
        for name, parameter in model.named_parameters():
            assert torch.equal(optimizer.state[parameter]["exp_avg"], expected[name])

    def test_refuses_another_optimizer_and_a_truncated_file(self, tmp_path):
        model, optimizer = make_model()
        train(model, optimizer, 1)
        checkpoints.save_optimizer(optimizer, model, tmp_path)
        other = nn.ModuleDict({"used": nn.Linear(4, 2)})
        with pytest.raises(DamagedCheckpointError, match=r"does not fit.*used\.weight"):
            checkpoints.load_optimizer(torch.optim.AdamW(other.parameters()), other, tmp_path)
        content = (tmp_path / checkpoints.OPTIMIZER).read_bytes()
        (tmp_path / checkpoints.OPTIMIZER).write_bytes(content[: len(content) // 2])
        with pytest.raises(DamagedCheckpointError, match=r"optimizer\.safetensors"):
            checkpoints.load_optimizer(optimizer, model, tmp_path)

    def test_refuses_another_model(self, tmp_path):
        model, _ = make_model()
        save_file({"used.weight": torch.zeros(2, 3)}, tmp_path / "model.safetensors")
        with pytest.raises(DamagedCheckpointError, match=r"no used\.bias"):
            checkpoints.load_model(model, tmp_path)
        save_file({"used.weight": torch.zeros(2, 4)}, tmp_path / "model.safetensors")
        with pytest.raises(DamagedCheckpointError, match=r"used\.weight"):
            checkpoints.load_model(model, tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors"):
            checkpoints.load_model(model, tmp_path)


def test_floats_in_json_come_back_to_the_bit(tmp_path):
    values = [*torch.rand(100, dtype=torch.float64).tolist(), 1e-300, 0.1 + 0.2]
    checkpoints.write_json(tmp_path / "x.json", {"values": values})
    assert checkpoints.read_json(tmp_path / "x.json") == {"values": values}


@pytest.mark.parametrize(
    ("saved", "current", "words"),
    [
        ({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 2]}, None),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, "a.b[1].c was 2, and is 3 here"),
        ({"a": [1]}, {"a": [1, 2]}, "a was [1], and is [1, 2] here"),
        ({"a": 1}, {}, "a was 1, and is None here"),
        ({}, {"a": 1}, "a was None, and is 1 here"),
        ({"a": 1}, {"a": {"b": 1}}, "a was 1, and is {'b': 1} here"),
    ],
)
def test_first_difference(saved, current, words):
    assert checkpoints.first_difference(saved, current) == words


def test_tensors_of_a_methods_own_come_back_however_they_lie_in_memory(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "whole": whole,
        "tied": whole,
        "turned": whole.T,
        "row": whole[1],
        "trained": torch.ones(2).requires_grad_(),
    }
    checkpoints.save_tensors(tensors, tmp_path)
    found = checkpoints.load_tensors(tmp_path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    checkpoints.save_tensors({}, tmp_path / "none")
    assert checkpoints.load_tensors(tmp_path / "none") == {}
