"""Runs side by side: each has a process and its share of threads, fails with words, stops when asked, and ends with
the process that asked for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import side_by_side as tiny
from tiny.finetuning import WORDS, save_models

from hf_nasbert.finetuning import FinetuneArguments
from hf_nasbert.pipeline import finetune_with_cards
from hf_nasbert.pipeline.side_by_side import side_by_side


@pytest.fixture
def two_threads(monkeypatch):
    """A machine of two cores without an accelerator."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def test_every_call_has_a_process_and_its_share_of_the_threads(two_threads):
    (first, one, threads), (second, other, others_threads) = side_by_side(tiny.introduce, ["a", "b"])
    assert (first, second) == ("a!", "b!")
    assert len({one, other, os.getpid()}) == 3
    assert threads == others_threads == 1


@pytest.mark.parametrize(("threads", "has_accelerator"), [(1, False), (2, True)])
def test_calls_are_made_here_without_threads_for_all_or_with_an_accelerator(monkeypatch, threads, has_accelerator):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_accelerator)
    assert side_by_side(tiny.introduce, ["a", "b"]) == [("a!", os.getpid(), threads), ("b!", os.getpid(), threads)]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("words", FileNotFoundError, "^there is no file of mine$"),
        ("unsendable", ValueError, "^1 and 2$"),
        ("killed", ChildProcessError, "exit code -9 .* memory ran out"),
    ],
)
def test_the_error_of_one_ends_all(two_threads, how, error, words):
    start = time.monotonic()
    with pytest.raises(error, match=words):
        side_by_side(tiny.fail, ["never", how])
    assert time.monotonic() - start < 300


@pytest.mark.slow
def test_models_fine_tuned_side_by_side_are_those_of_one_after_the_other(two_threads, tmp_path):
    save_models(tmp_path, WORDS)
    rows = [{"text": f"{word} film", "label": int(word in "good well")} for word in WORDS.split()]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows[:6])))

    def asked(name, output):
        return FinetuneArguments(
            model=str(tmp_path / name), output_dir=str(tmp_path / output / name), disable_tqdm=True, max_steps=3,
            train_file=str(tmp_path / "train.jsonl"), validation_file=str(tmp_path / "test.jsonl"),
            batch_size=4, max_seq_length=32,
            cache_dir=str(tmp_path / "cache"), learning_rate=1e-2,
        )  # fmt: skip

    together = side_by_side(finetune_with_cards, [asked(name, "together") for name in ("child", "bert")])
    alone = [finetune_with_cards(asked(name, "alone")) for name in ("child", "bert")]
    assert [one.records[0]["metrics"] for one in together] == [one.records[0]["metrics"] for one in alone]
    for one in ("child", "bert"):
        files = [next((tmp_path / output / one).rglob("model.safetensors")) for output in ("together", "alone")]
        assert len({file.read_bytes() for file in files}) == 1


@pytest.fixture
def going_on(tmp_path):
    """A program with two runs side by side."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    program = subprocess.Popen(
        [sys.executable, "-m", "tiny.side_by_side", str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: all((tmp_path / f"{name}.begun").exists() for name in "ab"))
        yield program
    finally:
        program.kill()
        program.communicate()


def wait_for(what):
    """Wait until something is so, two minutes at most."""
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_asked_to_stop_it_asks_all_and_leaves_when_they_have(going_on, tmp_path):
    going_on.send_signal(signal.SIGTERM)
    _, said = going_on.communicate(timeout=120)
    assert going_on.returncode == 0
    assert "left in good order" in said
    assert "Traceback" not in said
    assert all((tmp_path / f"{name}.left").exists() for name in "ab")


@pytest.mark.slow
def test_they_end_when_it_is_killed(going_on, tmp_path):
    going_on.kill()
    wait_for(lambda: all((tmp_path / f"{name}.left").exists() for name in "ab"))
