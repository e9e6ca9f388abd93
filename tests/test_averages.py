"""A method with tensors of its own, the mean teacher of docs/extending.md: they go on with a run, to the bit."""

import os
import shutil

import pytest
import torch
from helpers import mostly_slow
from safetensors.torch import load_file, save_file
from tiny.pages import python_of
from tiny.processes import launch, make_trainer_of_many
from tiny.trainings import KilledBatches, make_supernet, make_trainer, train_log

from hf_nasbert.methods import METHODS
from hf_nasbert.testing import check_method
from hf_nasbert.training import DamagedCheckpointError, checkpoints

SETTINGS = {"method": "mean_teacher", "max_steps": 8, "save_steps": 4, "save_total_limit": 0, "learning_rate": 3e-2}


def register_mean_teacher():
    """Run the page's code."""
    exec(compile(python_of("MeanTeacher"), "docs/extending.md", "exec"), {})


@pytest.fixture(autouse=True)
def _mean_teacher():
    before = dict(METHODS)
    register_mean_teacher()
    yield
    METHODS.clear()
    METHODS.update(before)


def trainer_in(folder, *, seed=0, **settings):
    return make_trainer(folder, supernet=make_supernet(dropout=0.1, seed=seed), **(SETTINGS | settings))


@pytest.fixture
def killed(tmp_path):
    """A run that trained to its end, and one that died two steps behind its first checkpoint."""
    trainer_in(tmp_path / "straight").train()
    with pytest.raises(KeyboardInterrupt):
        trainer_in(tmp_path / "killed", batches=KilledBatches(4, kill_at=6)).train()
    return tmp_path / "straight", tmp_path / "killed"


def bits_of(folder):
    """The last checkpoint's weights, moments and tensors of the method's own."""
    names = (checkpoints.MODEL, checkpoints.OPTIMIZER, checkpoints.TENSORS)
    return {name: (folder / "checkpoint-8" / name).read_bytes() for name in names}


def sealed_again(folder, change):
    """Rewrite a run's first checkpoint with other tensors of the method's own, under sums that are right."""
    old = folder / "checkpoint-4"
    tensors = change(load_file(old / checkpoints.TENSORS))
    kept = shutil.move(old, folder / "old")

    def write(new):
        shutil.copytree(kept, new, dirs_exist_ok=True)
        (new / checkpoints.TENSORS).unlink()
        if tensors:
            save_file(tensors, new / checkpoints.TENSORS)

    checkpoints.write_checkpoint(folder, 4, write)


@pytest.mark.slow
def test_it_keeps_the_promises_of_methods():
    check_method("mean_teacher")


def test_a_killed_run_goes_on_with_its_averages_to_the_bit(killed):
    straight, folder = killed
    trainer_in(folder, seed=77, resume_from_checkpoint="latest").train()
    assert train_log(folder) == train_log(straight)
    assert bits_of(folder) == bits_of(straight)
    assert all(record["distillation"] > 0 for record in train_log(straight))
    saved = load_file(folder / "checkpoint-8" / checkpoints.TENSORS)
    weights = load_file(folder / "checkpoint-8" / checkpoints.MODEL)
    assert any(not torch.equal(mean, weights[name]) for name, mean in saved.items())


@pytest.mark.slow
def test_without_the_saved_tensors_it_goes_elsewhere(killed):
    straight, folder = killed
    sealed_again(folder, lambda tensors: {})
    trainer_in(folder, resume_from_checkpoint="latest").train()
    for name, bits in bits_of(folder).items():
        assert bits != bits_of(straight)[name], name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {name: tensor[..., :-1].contiguous() for name, tensor in t.items()}, r"of shape .*, expected "),
        (lambda t: t | {"nobody": torch.zeros(1)}, "has 'nobody', which this super-net has not"),
    ],
)
def test_tensors_that_do_not_fit_are_damage(killed, change, words):
    _, folder = killed
    sealed_again(folder, change)
    with pytest.raises(DamagedCheckpointError, match=rf"checkpoint-4 is damaged: method\.safetensors \(.*{words}"):
        trainer_in(folder, resume_from_checkpoint="latest").train()


@pytest.mark.parametrize("damage", mostly_slow(["gone", "cut", "changed"], 3))
def test_the_file_is_sealed_with_the_others(killed, damage):
    _, folder = killed
    file = folder / "checkpoint-4" / checkpoints.TENSORS
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[:-4])
    elif damage == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedCheckpointError, match=r"method\.safetensors"):
        checkpoints.find_checkpoint(folder, "latest")


def test_a_method_without_tensors_has_no_such_file(tmp_path):
    trainer_in(tmp_path, method="uniform", max_steps=4).train()
    assert not (tmp_path / "checkpoint-4" / checkpoints.TENSORS).exists()


@pytest.mark.slow
def test_in_bf16_too(tmp_path):
    """Where the super-net's forward is wrapped, and its copy's with it."""
    trainer_in(tmp_path / "straight", mixed_precision="bf16").train()
    with pytest.raises(KeyboardInterrupt):
        trainer_in(tmp_path / "killed", mixed_precision="bf16", batches=KilledBatches(4, kill_at=6)).train()
    trainer_in(tmp_path / "killed", mixed_precision="bf16", resume_from_checkpoint="latest").train()
    assert bits_of(tmp_path / "killed") == bits_of(tmp_path / "straight")


def train_twice(folder, in_parts):
    """In this world: a run to its end, and one that stops behind its fourth step and is resumed."""
    if in_parts:
        os.environ.update({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    register_mean_teacher()
    make_trainer_of_many(folder / "straight", **SETTINGS).train()
    trainer = make_trainer_of_many(folder / "stopped", **SETTINGS)
    take_step = trainer._take_step

    def take_step_and_ask(batch):
        if trainer.global_step == 3:
            trainer.request_stop()
        return take_step(batch)

    trainer._take_step = take_step_and_ask
    stopped = trainer.train().global_step
    return stopped, make_trainer_of_many(
        folder / "stopped", resume_from_checkpoint="latest", **SETTINGS
    ).train().global_step


@pytest.mark.slow
def test_any_number_of_processes_keeps_the_averages(tmp_path):
    """1, 2 and 4 processes, and two with the super-net in parts: resumed the same bits; alike, but for rounding."""
    worlds = {"1": (1, False), "2": (2, False), "4": (4, False), "parts": (2, True)}
    METHODS.pop("mean_teacher")  # each process registers it
    for name, (number, in_parts) in worlds.items():
        (tmp_path / name).mkdir()
        assert launch(train_twice, number, tmp_path / name, in_parts, timeout=120) == [(4, 8)] * number, name
        assert bits_of(tmp_path / name / "straight") == bits_of(tmp_path / name / "stopped"), name
        one, other = (load_file(tmp_path / n / "straight/checkpoint-8" / checkpoints.TENSORS) for n in ("1", name))
        assert one.keys() == other.keys()
        for key, mean in one.items():
            torch.testing.assert_close(other[key], mean, rtol=0, atol=1e-4, msg=f"{name}: {key}")
