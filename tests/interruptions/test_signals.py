"""A signal stops a run behind its step, with a checkpoint to go on from."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interruption_helpers import assert_same_run, at_step, resume, tiny_trainer
from tiny.processes import launch, make_trainer_of_many

from hf_nasbert.stopping import STOP_SIGNALS
from hf_nasbert.training import list_checkpoints, read_log

HERE = Path(__file__).parents[1]


def train_until_one_hears(folder):
    trainer = make_trainer_of_many(folder, method="magic_at")
    if not trainer.accelerator.is_main_process:
        at_step(trainer, 4, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    output = trainer.train()
    return output.global_step, output.is_finished


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
        assert launch(train_until_one_hears, 2, tmp_path / "run") == [(5, False)] * 2
        assert list_checkpoints(tmp_path / "run")[-1].name == "checkpoint-5"
