"""Checkpoints whose sums are right and whose state is not: one error that names file and entry, never a late one."""

import copy
import json
import math
import time

import pytest
from tiny.trainings import make_trainer

from hf_nasbert.training import DamagedCheckpointError, checkpoints, read_log

SETTINGS = {"max_steps": 6, "save_steps": 3, "save_total_limit": 0, "logging_steps": 2}
ODD = [None, 2**70, -0.5, "x", [None], {"a": 1}]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the checkpoints of steps 3 and 6, in the middle of a window of the log at step 3."""
    folder = tmp_path_factory.mktemp("run")
    make_trainer(folder, **SETTINGS).train()
    return folder


def sealed(run, output_dir, change):
    """A copy of the checkpoint of step 3 with another state, and with the sums of that."""
    before = run / "checkpoint-3"
    state = json.loads((before / checkpoints.STATE).read_text())
    state = change(state) or state

    def write(folder):
        for file in before.iterdir():
            if file.name != checkpoints.MANIFEST:
                (folder / file.name).write_bytes(file.read_bytes())
        (folder / checkpoints.STATE).write_text(json.dumps(state))

    return checkpoints.write_checkpoint(output_dir, 3, write)


def put(name, value):
    *path, last = name.split(".")

    def change(state):
        for key in path:
            state = state[key]
        state[last] = value

    return change


WRONG = [
    *(("step", value) for value in (2**70, -1, True, 3.0, "3", None, 10**13, 7)),
    *(("num_skipped", value) for value in (2**70, -1, True, 0.0, "0", 4)),
    *(("num_processes", value) for value in (-1, True, "1", 1.5, {})),
    *(("window.num_steps", value) for value in (2**70, -1, True, 1.0, "1", None, 4)),
    *((f"window.{name}", value) for name in ("loss", "learning_rate") for value in ("x", None, {}, True, math.nan)),
    ("window.loss", 10**400),
    *(("window.grad_norm", value) for value in ("x", {}, [], True, math.inf)),
    *(("window.terms.alignment", value) for value in ("x", {}, [], True, None, math.inf)),
    *(("window.terms", value) for value in ("x", [], None)),
    *(("update_counter.num_children", value) for value in (True, 3.0, "3", -1, 2**70, None)),
    *(("method", value) for value in ("x", 1, [], None)),
    *(("scaler", value) for value in ("x", 1, [], {"scale": "x"}, {"scale": None})),
    ("arguments.max_steps", 2),
    ("arguments.max_steps", "6"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={str(value)[:20]}" for name, value in WRONG])
def test_a_state_that_training_could_not_go_on_from_is_damaged(run, tmp_path, name, value):
    folder = sealed(run, tmp_path, put(name, value))
    checkpoints.verify_checkpoint(folder)
    with pytest.raises(DamagedCheckpointError) as raised:
        checkpoints.find_checkpoint(tmp_path, str(folder))
    message = str(raised.value)
    assert message.startswith(f"checkpoint {folder} is damaged: training_state.json holds ")
    assert name.split(".")[0] in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))


def test_a_step_that_no_run_reaches_is_damaged_also_under_as_many_steps(run, tmp_path):
    def change(state):
        state["step"] = state["arguments"]["max_steps"] = 2**70

    with pytest.raises(DamagedCheckpointError, match="step 1180591620717411303424, expected a whole number"):
        checkpoints.find_checkpoint(tmp_path, str(sealed(run, tmp_path, change)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("method.anchor", value) for value in (1, [], {}, "ffn", "\x1b")),
        *(("method.history", value) for value in ("x", {}, None, [1], ["x"])),
        *(("method.sampler", value) for value in ("x", {}, None)),
        ("method", {}),
        ("window.terms", {"distillation": 0.5}),
    ],
)
def test_what_a_method_saved_is_checked_by_the_method(run, tmp_path, name, value):
    folder = sealed(run, tmp_path, put(name, value))
    with pytest.raises(DamagedCheckpointError) as raised:
        make_trainer(tmp_path, **SETTINGS, resume_from_checkpoint=str(folder)).train()
    message = str(raised.value)
    assert message.startswith(f"checkpoint {folder} is damaged: training_state.json (")
    assert "\n" not in message
    assert len(message) < 600 + len(str(folder))


def as_an_earlier_version_wrote_it(state):
    """Before methods had a state of their own: sampler and anchor in the open, one term in the window."""
    method = state.pop("method")
    state["sampler"] = method["sampler"]
    state["anchor"] = {"architecture": method["anchor"], "history": method["history"]}
    state["window"]["alignment"] = state["window"].pop("terms").get("alignment")
    state["identity"] |= {"alignment_layers": "all", "alignment_normalize": False, "alignment_detach": True}
    del state["identity"]["num_changes"]  # it was 1 and no setting


def test_a_checkpoint_of_an_earlier_version_goes_on_to_the_same_bits(run, tmp_path):
    folder = sealed(run, tmp_path, as_an_earlier_version_wrote_it)
    assert "sampler" in checkpoints.read_json(folder / checkpoints.STATE)
    make_trainer(tmp_path, **SETTINGS, resume_from_checkpoint="latest").train()
    whole, again = (checkpoints.read_state(place / "checkpoint-6") for place in (run, tmp_path))
    for name in ("method", "update_counter", "window", "identity"):
        assert whole[name] == again[name], name
    for name in (checkpoints.MODEL, checkpoints.OPTIMIZER):
        assert (run / "checkpoint-6" / name).read_bytes() == (tmp_path / "checkpoint-6" / name).read_bytes()


def test_a_checkpoint_made_with_what_is_no_setting_any_more_is_of_another_run(run, tmp_path):
    def change(state):
        as_an_earlier_version_wrote_it(state)
        state["identity"]["alignment_layers"] = "0,2"

    sealed(run, tmp_path, change)
    with pytest.raises(ValueError, match="belongs to another run: alignment_layers was 0,2, and is None here"):
        make_trainer(tmp_path, **SETTINGS, resume_from_checkpoint="latest").train()


def test_the_state_as_it_was_written_is_whole(run, tmp_path):
    folder = sealed(run, tmp_path, lambda state: None)
    assert checkpoints.find_checkpoint(tmp_path, "latest") == folder


def leaves(value, path=()):
    """The places of a state, but for the inner of long lists."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            yield from leaves(value[index], (*path, index))


@pytest.mark.slow
def test_whatever_stands_in_a_state_a_run_goes_on_or_names_it(run, tmp_path):
    """Every entry of a real state by every odd value: refused by the folder's name, or trained on to the end."""
    state = json.loads((run / "checkpoint-3" / checkpoints.STATE).read_text())
    outcomes = {"trained": 0, "refused": 0}
    number = 0
    without = ("identity", "versions", "arguments", "num_processes")  # compared, or read by nobody
    for path in leaves({key: value for key, value in state.items() if key not in without}):
        if "space" in path and path[-1] != "space":  # compared too
            continue
        for odd in ODD:
            number += 1

            def change(state, path=path, odd=odd):
                state = copy.deepcopy(state)
                place = state
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = odd
                return state

            folder = sealed(run, tmp_path / str(number), change)
            start = time.monotonic()
            try:
                checkpoints.read_state(folder)
                trainer = make_trainer(folder.parent, **SETTINGS, resume_from_checkpoint=str(folder))
                trainer.train()
            except ValueError as error:
                message = str(error)
                outcomes["refused"] += 1
            else:
                message = "checkpoint-3"
                assert [record["step"] for record in read_log(folder.parent) if record["event"] == "train"] == [4, 6]
                outcomes["trained"] += 1
            assert time.monotonic() - start < 5, (path, odd)
            assert "checkpoint-3" in message, (path, odd)
            assert "\n" not in message, (path, odd)
    assert min(outcomes.values()) > 20, outcomes
