"""Fine-tuning: a damaged, half-written or contested folder is named; what goes on ends in the same bits."""

import errno
import json
import logging
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny.disks import mount, remount, unmount, with_mounts
from tiny.finetuning import Home
from tiny.processes import forked
from transformers import TrainerCallback

from hf_nasbert import checkpoint_folders
from hf_nasbert.checkpoint_folders import DamagedCheckpointError, list_checkpoints, seal
from hf_nasbert.finetuning import runs
from hf_nasbert.locking import locked

pytestmark = pytest.mark.usefixtures("quiet_trainer")


class Kill(TrainerCallback):
    """The power fails behind a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class NoStep(TrainerCallback):
    """No training may begin."""

    def on_train_begin(self, args, state, control, **kwargs):
        raise AssertionError("training began")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def straight(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    home.pretrain(folder)
    return folder


@pytest.fixture(scope="module")
def killed(home, tmp_path_factory):
    """Checkpoints of steps 4 and 6, killed behind step 7."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KeyboardInterrupt):
        home.pretrain(folder, [Kill(7)])
    return folder


@pytest.fixture
def interrupted(killed, tmp_path):
    return Path(shutil.copytree(killed, tmp_path / "run"))


def cut(name):
    def damage(checkpoint):
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])

    return damage


def flip(name):
    def damage(checkpoint):
        content = bytearray((checkpoint / name).read_bytes())
        content[len(content) // 2] ^= 1
        (checkpoint / name).write_bytes(bytes(content))

    return damage


def put(name, content):
    return lambda checkpoint: (checkpoint / name).write_text(content)


def odd_state(**changes):
    def damage(checkpoint):
        file = checkpoint / "trainer_state.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        seal(checkpoint)  # even if the sums are right

    return damage


CONTROL = {"args": {f"should_{what}": False for what in ("training_stop", "epoch_stop", "save", "evaluate", "log")}}
PATIENCE = {"early_stopping_patience": 3, "early_stopping_threshold": 0.0}


def odd_control(**changes):
    return odd_state(stateful_callbacks={"TrainerControl": {"args": CONTROL["args"] | changes, "attributes": {}}})


def odd_patience(args, attributes=None):
    early = {"args": args, "attributes": {"early_stopping_patience_counter": 0} if attributes is None else attributes}
    return odd_state(
        stateful_callbacks={"TrainerControl": {**CONTROL, "attributes": {}}, "EarlyStoppingCallback": early}
    )


def remove(name):
    return lambda checkpoint: (checkpoint / name).unlink()


STATE, WEIGHTS = "trainer_state.json", "model.safetensors"
DAMAGES = {
    **{f"{name} cut": cut(name) for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", WEIGHTS, STATE)},
    **{f"{name} flipped": flip(name) for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", WEIGHTS, STATE)},
    **{f"{name} missing": remove(name) for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", WEIGHTS, STATE)},
    **{f"state {content}": put(STATE, content) for content in ("{}", "[]", "", "null")},
    "state of another step": odd_state(global_step=4),
    "state of a text": odd_state(global_step="6"),
    "log is no list": odd_state(log_history=5),
    "log holds no steps": odd_state(log_history=[1]),
    "no control": odd_state(stateful_callbacks={}),
    "control is odd": odd_state(stateful_callbacks={"TrainerControl": [{"args": {}}]}),
    "control holds a text": odd_control(should_save="no"),
    "control holds what is none of its own": odd_control(on_step_end=True),
    "control has attributes": odd_state(stateful_callbacks={"TrainerControl": {**CONTROL, "attributes": {"args": 1}}}),
    **{
        f"{name} is {value!r}": odd_state(**{name: value})
        for name, values in {
            "eval_steps": ("x", None, 0, [1], True), "save_steps": ("x", -1), "logging_steps": (0, 1.5),
            "max_steps": (2**70, "8"), "train_batch_size": ("4", -1), "num_train_epochs": ([], 2**70),
            "num_input_tokens_seen": ("x", -1), "total_flos": ("x", float("nan"), [1]),
            "epoch": ("x", -1, float("inf")),
            "best_metric": ("x", [], {}, True), "best_model_checkpoint": ("/elsewhere", 1.5, []),
            "is_world_process_zero": (0, None), "stateful_callbacks": ([], 5, None),
        }.items()
        for value in values
    },
    "a best metric of no step": odd_state(best_metric=0.5),
    "patience is a text": odd_patience({"early_stopping_patience": "x", "early_stopping_threshold": 0.0}),
    "patience without its name": odd_patience({"patience": 1}),
    "patience is a list": odd_patience([]),
    "patience has a method": odd_patience(PATIENCE, {"early_stopping_patience_counter": 0, "on_evaluate": 1}),
    "patience counts in texts": odd_patience(PATIENCE, {"early_stopping_patience_counter": "0"}),
    "unknown entry": odd_state(odd=1),
    "best is odd": odd_state(best_global_step="../checkpoint-4"),
    "best is not there": odd_state(best_global_step=1),
    "manifest missing": remove("manifest.json"),
    "manifest empty": put("manifest.json", ""),
    "manifest of nothing": put("manifest.json", '{"format": 2, "files": {}}'),
    "manifest of other format": put("manifest.json", '{"format": 1, "files": {}}'),
    "a file that nobody wrote": put("scaler.pt", "x"),
}  # fmt: skip


class TestDamagedCheckpoints:
    @pytest.mark.parametrize("name", DAMAGES)
    def test_is_named_and_passed_over(self, interrupted, caplog, name):
        newest = interrupted / "run" / "checkpoint-6"
        DAMAGES[name](newest)
        settings = json.loads((interrupted / "run" / "run.json").read_text())
        with caplog.at_level(logging.WARNING):
            assert runs.open_run(interrupted, settings) == newest.with_name("checkpoint-4")
        (warning,) = [text for text in caplog.messages if "trying the one before" in text]
        assert re.search(
            r"checkpoint-6 .*(manifest\.json|\.pt|\.pth|\.safetensors|trainer_state\.json|best|has format 1)", warning
        )
        assert newest.with_name("checkpoint-6.replaced").is_dir(), "what it still holds is kept"

    @pytest.mark.parametrize("name", ["optimizer.pt cut", "model.safetensors flipped", "manifest missing", "state {}"])
    def test_if_none_is_whole_training_does_not_begin_anew(self, interrupted, name):
        for checkpoint in list_checkpoints(interrupted / "run"):
            DAMAGES[name](checkpoint)
        settings = json.loads((interrupted / "run" / "run.json").read_text())
        words = r"no whole checkpoint is left.*checkpoint-6.*checkpoint-4.*delete .*run to train anew"
        with pytest.raises(DamagedCheckpointError, match=words):
            runs.open_run(interrupted, settings)
        assert len(list_checkpoints(interrupted / "run")) == 2

    @pytest.mark.slow
    def test_runs_that_pass_them_over_end_in_the_same_bits(self, home, killed, straight, tmp_path):
        for number, (name, damage) in enumerate(list(DAMAGES.items())[::3]):  # each begins at the checkpoint before
            folder = Path(shutil.copytree(killed, tmp_path / str(number)))
            damage(folder / "run" / "checkpoint-6")
            record = home.pretrain(folder)
            assert record["resumed_from"] == "checkpoint-4", name
            assert (folder / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes(), name
            assert [path.name for path in (folder / "run").iterdir()] == ["run.json"], name

    @pytest.mark.parametrize("name", ["checkpoint-abc", "checkpoint-", "checkpoint-007", "checkpoint-9.old"])
    def test_other_folders_are_none_of_its_business(self, interrupted, name):
        (interrupted / "run" / name).mkdir()
        settings = json.loads((interrupted / "run" / "run.json").read_text())
        assert runs.open_run(interrupted, settings).name == "checkpoint-6"
        assert (interrupted / "run" / name).is_dir()

    def test_a_copy_under_another_number_is_not_taken_for_a_later_one(self, interrupted):
        shutil.copytree(interrupted / "run" / "checkpoint-4", interrupted / "run" / "checkpoint-99")
        settings = json.loads((interrupted / "run" / "run.json").read_text())
        assert runs.open_run(interrupted, settings).name == "checkpoint-6"

    def test_sealed_and_without_pickled_arguments(self, killed):
        assert [folder.name for folder in list_checkpoints(killed / "run")] == ["checkpoint-4", "checkpoint-6"]
        for folder in list_checkpoints(killed / "run"):
            named = checkpoint_folders.verify(folder)
            assert named == set(checkpoint_folders.files_in(folder)) - {"manifest.json"}
            assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE} <= named
            assert "training_args.bin" not in named


class TestTheClaim:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is not JSON"),
            ("[]", "holds a list"),
            ('"x"', "holds a str"),
            ('{"a"', "is not JSON"),
        ],
    )
    def test_a_damaged_one_is_named(self, interrupted, content, words):
        (interrupted / "run" / "run.json").write_text(content)
        with pytest.raises(ValueError, match=rf"run\.json {words}.*delete .*run to train anew"):
            runs.open_run(interrupted, {})
        assert len(list_checkpoints(interrupted / "run")) == 2

    def test_without_one_checkpoints_are_not_overwritten(self, interrupted):
        (interrupted / "run" / "run.json").unlink()
        with pytest.raises(ValueError, match=r"there is no .*run\.json that says which run checkpoint-6 belongs to"):
            runs.open_run(interrupted, {})

    def test_an_odd_one_is_told_in_a_line(self, interrupted):
        odd = {f"a\x1b[31m{number}": "x" * 10_000 for number in range(90)}
        (interrupted / "run" / "run.json").write_text(json.dumps(odd))
        with pytest.raises(ValueError, match=r"another .* and 85 more; choose another output_dir") as error:
            runs.open_run(interrupted, {})
        assert "\x1b" not in str(error.value)
        assert len(str(error.value)) < 1500

    def test_it_is_flushed(self, tmp_path, monkeypatch):
        flushed = []
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), fsync(descriptor)))
        assert runs.open_run(tmp_path, {"a": (1,)}) is None
        assert len(flushed) == 2, "the content and the name"
        assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"a": [1]}


class TestBestWeights:
    @pytest.fixture
    def stopped(self, home, tmp_path, monkeypatch):
        """Killed behind step 7 with the best score at step 2; and the weights of the same run left alone."""

        def plan():
            planned = iter([0.9, 0.5, 0.4, 0.3])
            monkeypatch.setattr(
                "hf_nasbert.finetuning.sequence_classification.glue_score", lambda metrics: next(planned, 0.0)
            )

        plan()
        home.finetune(tmp_path / "straight")
        plan()
        with pytest.raises(KeyboardInterrupt):
            home.finetune(tmp_path / "killed", [Kill(7)])
        (run,) = (tmp_path / "killed").rglob("run")
        assert [folder.name for folder in list_checkpoints(run)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
        (weights,) = (tmp_path / "straight").rglob(WEIGHTS)
        return run, weights.read_bytes()

    def test_are_found_where_the_folder_was_moved(self, home, stopped, tmp_path):
        (tmp_path / "killed").rename(tmp_path / "moved")
        assert home.finetune(tmp_path / "moved")["best_step"] == 2
        (weights,) = (tmp_path / "moved").rglob(WEIGHTS)
        assert weights.read_bytes() == stopped[1]

    def test_nothing_goes_on_without_them(self, home, stopped, tmp_path):
        flip(WEIGHTS)(stopped[0] / "checkpoint-2")
        words = r"checkpoint-6 lacks its best weights so far: .*checkpoint-2 is damaged: .*model\.safetensors"
        with pytest.raises(DamagedCheckpointError, match=words):
            home.finetune(tmp_path / "killed")

    def test_damaged_under_a_run_they_are_named(self, home, tmp_path):
        class Damage(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                self.is_done = False

            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 8:
                    cut(WEIGHTS)(Path(args.output_dir) / f"checkpoint-{state.best_global_step}")

        with pytest.raises(DamagedCheckpointError, match=r"checkpoint-\d is damaged: model\.safetensors has"):
            home.finetune(tmp_path / "out", [Damage()])


class TestRecords:
    @pytest.mark.parametrize("kind", ["finetune", "pretrain"])
    def test_a_place_where_nothing_can_be_added_is_told_before_any_step(self, home, tmp_path, kind):
        (tmp_path / "file").touch()
        for place, words in (
            ("a.jsonl.gz", "compressed"),
            ("file/a.jsonl", "Not a directory"),
            (".", "it is a folder"),
        ):
            with pytest.raises(OSError, match=rf"cannot write {tmp_path}.*{words}|no records at .*{words}"):
                getattr(home, kind)(tmp_path / "out", [NoStep()], records=str(tmp_path / place))
        assert not (tmp_path / "out").exists()

    def test_rows_of_the_data_get_no_record(self, home, tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n' * 8)
        with pytest.raises(ValueError, match="records and train_file are one file"):
            home.finetune(
                tmp_path / "out", [NoStep()],
                train_file=str(tmp_path / "rows.jsonl"), records=str(tmp_path / "rows.jsonl"),
            )  # fmt: skip
        assert (tmp_path / "rows.jsonl").read_text().count("\n") == 16
        assert not (tmp_path / "out").exists()


class TestLock:
    def test_a_second_run_is_refused_by_the_name_of_the_first(self, home, tmp_path):
        class Second(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 5:
                    words = rf"another run is at work in .*out \(process {os.getpid()} on .+\): choose another"
                    with pytest.raises(ValueError, match=words):
                        home.pretrain(tmp_path / "out")

        home.pretrain(tmp_path / "out", [Second()])
        assert not (tmp_path / "out" / ".lock").exists()

    def test_of_finetune_too_and_other_seeds_are_free(self, home, tmp_path):
        class Second(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 5:
                    with pytest.raises(ValueError, match=r"another run is at work in .*seed-0"):
                        home.finetune(tmp_path / "out")
                    assert home.finetune(tmp_path / "out", max_steps=2, seeds=[1])["seed"] == 1

        home.finetune(tmp_path / "out", [Second()])
        assert not list(tmp_path.rglob(".lock"))

    def test_a_run_that_another_one_has_ended_meanwhile_is_read(self, home, tmp_path, monkeypatch):
        opened = runs.opened

        def late(*args):
            monkeypatch.setattr(runs, "opened", opened)
            home.pretrain(tmp_path / "out")
            return opened(*args)

        monkeypatch.setattr(runs, "opened", late)
        home.pretrain(tmp_path / "out")
        assert (tmp_path / "out" / "records.jsonl").read_text().count("\n") == 1

    def test_a_link_in_its_place_is_not_followed(self, tmp_path):
        (tmp_path / "precious").write_text("mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
        with pytest.raises(OSError, match="cannot write in"), locked(tmp_path / "run"):
            pass
        assert (tmp_path / "precious").read_text() == "mine"

    @pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, OSError])
    def test_whatever_ends_a_run_no_lock_and_no_half_file_is_left(self, home, tmp_path, monkeypatch, ending):
        save = torch.save

        def interrupted(content, file):
            if "checkpoint-4" in str(file) and "optimizer" in str(file):
                raise ending
            save(content, file)

        monkeypatch.setattr(torch, "save", interrupted)
        with pytest.raises(ending):
            home.pretrain(tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run"]
        assert sorted(path.name for path in (tmp_path / "out" / "run").iterdir()) == ["checkpoint-2", "run.json"]


def fill(home, disk, weights):
    """What a run says of disks of several sizes; given room, each goes on to these weights."""
    said = []
    for size in (60_000, 200_000, 450_000, 700_000, 1_000_000):
        mount(disk, size=str(size))
        try:
            home.pretrain(disk / "out")
        except OSError as error:
            said.append(str(error))
        assert not list(disk.rglob(".*"))
        remount(disk, "size=100m")
        home.pretrain(disk / "out")
        assert (disk / "out" / WEIGHTS).read_bytes() == weights
        unmount(disk)
    return said


class TestDisk:
    @pytest.mark.slow
    def test_a_checkpoint_that_cannot_grow_at_any_byte(self, home, straight, tmp_path):
        """Real failures of the writes of torch, safetensors and Python: none may be longer than so many bytes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        class Full(TrainerCallback):
            def __init__(self, limit):
                self.limit = limit

            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 4:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, hard))

        for limit in (0, 700, 3_000, 30_000, 60_000):
            folder = tmp_path / str(limit)
            try:
                with pytest.raises(
                    OSError, match=r"checkpoint-4 could not be written.*checkpoint-2\. Make room"
                ) as raised:
                    home.pretrain(folder, [Full(limit)])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "\n" not in str(raised.value)
            assert "run the same command again" in str(raised.value)
            assert sorted(path.name for path in (folder / "run").iterdir()) == ["checkpoint-2", "run.json"]
        home.pretrain(folder)
        assert (folder / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()

    @pytest.mark.parametrize(
        "words",
        [
            "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nmore",
            "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0",
            "Parent directory x does not exist.",
        ],
    )
    def test_what_torch_says_of_a_full_disk_is_one_line(self, home, tmp_path, monkeypatch, words):
        def failing(content, file):
            if "optimizer" in str(file):
                raise RuntimeError(words)

        monkeypatch.setattr(torch, "save", failing)
        with pytest.raises(OSError, match=r"checkpoint-2 could not be written.*as on a full disk.*none yet") as raised:
            home.pretrain(tmp_path / "out")
        assert "\n" not in str(raised.value)

    def test_other_errors_of_torch_are_left_alone(self, home, tmp_path, monkeypatch):
        def failing(content, file):
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr(torch, "save", failing)
        with pytest.raises(RuntimeError, match="a fault of ours"):
            home.pretrain(tmp_path / "out")

    @pytest.mark.slow
    def test_a_disk_that_is_really_full(self, home, straight, tmp_path):
        """File systems of several sizes: one line, nothing half written; given room, the run goes on to the bit."""
        said = with_mounts(fill, home, tmp_path, (straight / WEIGHTS).read_bytes())
        assert len(said) == 5
        assert all("could not be written" in line and "Make room" in line for line in said)

    def test_the_final_model_is_whole_or_not_there(self, home, straight, tmp_path, monkeypatch):
        save = runs.PreTrainedModel.save_pretrained

        def failing(model, folder, **options):
            save(model, folder, **options)
            if ".final.partial" in str(folder):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(runs.PreTrainedModel, "save_pretrained", failing)
        with pytest.raises(OSError, match=r"the final model in .*out could not be written.*checkpoint-8\. Make room"):
            home.pretrain(tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run"]
        monkeypatch.undo()
        home.pretrain(tmp_path / "out")
        assert (tmp_path / "out" / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()


@pytest.mark.slow
class TestKills:
    def test_killed_while_a_checkpoint_is_written(self, home, straight, tmp_path):
        """SIGKILL as soon as a hidden folder is seen, again and again: it ends in the same bits."""
        num_kills = 0
        for _ in range(3):
            process = forked(home.pretrain, tmp_path / "out")
            end = time.monotonic() + 60
            while process.is_alive() and not list((tmp_path / "out").glob("run/.checkpoint-*.partial")):
                assert time.monotonic() < end
                time.sleep(0.001)
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            num_kills += process.exitcode != 0
        assert num_kills
        home.pretrain(tmp_path / "out")
        assert (tmp_path / "out" / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()
        assert not list((tmp_path / "out").rglob(".*"))
