"""Runs of six steps with a checkpoint every two, and what makes two of them the same."""

from tiny.trainings import make_trainer, train_log

from hf_nasbert.training import checkpoints


def tiny_trainer(folder, **settings):
    return make_trainer(folder, **{"max_steps": 6, "save_steps": 2, "anchor_interval": 2, **settings})


def assert_same_run(folder, straight):
    expected, _ = straight
    for event in ("train", "anchor", "eval"):
        assert train_log(folder, event) == train_log(expected, event), event
    for name in ("model.safetensors", "checkpoint-6/model.safetensors", "checkpoint-6/optimizer.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    states = [checkpoints.read_json(place / "checkpoint-6" / checkpoints.STATE) for place in (folder, expected)]
    for key in ("step", "method", "update_counter", "window"):
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
