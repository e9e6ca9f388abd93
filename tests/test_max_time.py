"""`--max_time`: a command stops when its time is up, keeps what is done, and goes on to the same bits."""

import hashlib
import shutil
from pathlib import Path

import pytest
from tiny.texts import TEXT

from hf_nasbert import cli, stopping

_SPACE = ["--operators", "attention", "ffn", "--num_choice_blocks", "2", "--hidden_size", "32"]
_SPACE += ["--attention_head_size", "16", "--max_position_embeddings", "16", "--max_seq_length", "16"]
PRETRAIN = ["pretrain", *_SPACE, "--train_files", str(TEXT), "--sample_by", "paragraph", "--vocab_size", "300"]
PRETRAIN += ["--validation_fraction", "0.3", "--max_steps", "6", "--per_device_train_batch_size", "4"]
PRETRAIN += ["--report_to", "none", "--cache_dir", "cache", "--disable_tqdm"]


def weights(folder: str) -> str:
    return hashlib.sha256(Path(folder, "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def only(monkeypatch):
    """Have the time be up at the so many-th look at the clock, whatever the machine is busy with."""

    def looks(number: int) -> None:
        seen = iter(range(10**9))
        monkeypatch.setattr(stopping, "is_time_up", lambda: stopping._deadline is not None and next(seen) >= number)

    return looks


@pytest.mark.slow
def test_trainings_stop_in_time_and_go_on_to_the_same_bits(tmp_path, monkeypatch, capsys, only):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert cli.main([*PRETRAIN, "--output_dir", "whole"]) == 0
    only(2)  # behind the third step
    assert cli.main([*PRETRAIN, "--output_dir", "cut", "--max_time", "1h"]) == 0
    told = capsys.readouterr().out
    assert "stopped at step 3" in told
    assert not Path("cut/model.safetensors").exists()
    again = [*PRETRAIN, "--output_dir", "cut", "--resume_from_checkpoint", "latest"]
    assert cli.main(again) == 0
    assert weights("whole") == weights("cut")

    child = ["extract", "--supernet", "whole", "--architecture", "attention-ffn", "--output_dir", "child"]
    assert cli.main(child) == 0
    train = ["pretrain-child", "--model", "child", "--max_steps", "4", "--batch_size", "4", "--cache_dir", "cache"]
    assert cli.main([*train, "--output_dir", "trained"]) == 0
    only(1)
    with pytest.raises(SystemExit) as left:
        cli.main([*train, "--output_dir", "cut-trained", "--max_time", "1h"])
    assert left.value.code == 0
    assert "stopped after step 2, as asked; the same command goes on" in capsys.readouterr().err
    assert cli.main([*train, "--output_dir", "cut-trained"]) == 0
    assert weights("trained") == weights("cut-trained")

    search = ["search", "--supernet", "whole", "--num_evaluations", "4", "--search", "random", "--cache_dir", "cache"]
    assert cli.main([*search, "--output", "whole.jsonl"]) == 0
    only(0)
    with pytest.raises(SystemExit) as left:
        cli.main([*search, "--output", "cut.jsonl", "--max_time", "1h"])
    assert left.value.code == 0
    assert cli.main([*search, "--output", "cut.jsonl"]) == 0
    assert Path("whole.jsonl").read_text() == Path("cut.jsonl").read_text()
    shutil.rmtree("cache")


def test_a_time_that_is_none_is_refused_before_anything_is_done(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "--output_dir", "x", *_SPACE, "--train_files", "x", "--max_time", "soon"])
    assert ended.value.code == 2
    assert "max_time='soon': expected a time above 0" in capsys.readouterr().err


def test_a_command_that_is_over_at_once_has_no_time_limit(capsys):
    with pytest.raises(SystemExit):
        cli.main(["report", "--records", "a", "--output", "b", "--supernet", "c", "--max_time", "1m"])
    assert "unknown flag --max_time" in capsys.readouterr().err
