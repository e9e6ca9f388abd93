"""A run killed at any moment, its end included, goes on to the same bits."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from interruption_helpers import resume, tiny_trainer
from tiny.trainings import make_supernet, train_log

from hf_nasbert.training import loop

HERE = Path(__file__).parents[1]


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
        assert len(lines) <= 10 + 20 / trainer.method.settings.anchor_interval + 2
        assert max(map(len, of_steps)) < 400


@pytest.mark.slow
def test_the_benchmark_of_kills_finds_no_mismatch(tmp_path):
    text, rng = tmp_path / "words.txt", random.Random(0)
    words = ["the", "film", "was", "good", "bad", "and", "long", "actors", "play", "well", "why", "not"]
    text.write_text("\n".join(" ".join(rng.choices(words, k=60)) for _ in range(600)))
    command = [
        sys.executable, HERE.parent / "benchmarks/faults.py", "run", "--num_kills", "2", "--steps", "18",
        "--folder", tmp_path / "runs", "--text", text, "--records", tmp_path / "faults.jsonl.gz",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = loop.records.read(tmp_path / "faults.jsonl.gz")
    kills = [record for record in found if record["record"] == "kill"]
    assert len(kills) == 2
    assert all(0 <= kill["lost"] <= 3 for kill in kills)
    assert [record["mismatches"] for record in found if record["record"] == "run"] == [[]] * (len(found) - 2)


def test_a_run_that_strays_is_found_by_the_benchmark(tmp_path, straight):
    """Sanity check of what `benchmarks/faults.py` compares: other weights, another log."""
    import runpy

    benchmark = runpy.run_path(str(HERE.parent / "benchmarks/faults.py"))
    assert benchmark["differences"](straight[0], straight[0]) == []
    tiny_trainer(tmp_path, supernet=make_supernet(seed=5)).train()
    found = benchmark["differences"](straight[0], tmp_path)
    assert {"final super-net", "weights", "optimizer", "state", "log of steps", "log of evaluations"} <= set(found)
