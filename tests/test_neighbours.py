"""Other programs on the same cores: a long command says what to do about them, and nothing on a quiet machine."""

import os
import time

import pytest

from hf_nasbert import cli, neighbours
from hf_nasbert.neighbours import Neighbours


@pytest.fixture
def stat(tmp_path, monkeypatch):
    """Give the next readings of /proc/stat, in hundredths of a second; five seconds pass between two."""
    readings, clock = [], iter(range(0, 1000, 5))
    monkeypatch.setattr(neighbours, "_busy_seconds", lambda: readings.pop(0))
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(neighbours.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return readings


@pytest.mark.parametrize(("busy", "is_told"), [(0.0, False), (3.0, False), (4.0, True), (10.0, True)])
def test_others_that_compute_are_told(stat, busy, is_told):
    stat += [100.0, 100.0 + busy]
    said = Neighbours().advice({})
    assert (said is not None) == is_told
    if is_told:
        assert f"other programs keep {busy / 5:.1f} of 2 cores busy" in said
        assert "OMP_NUM_THREADS=1" in said
        assert "\n" not in said


@pytest.mark.parametrize("settings", [{"OMP_NUM_THREADS": "1"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_whose_threads_do_not_spin_is_told_nothing(stat, settings):
    stat += [100.0, 110.0]
    assert Neighbours().advice(settings) is None


def test_what_this_process_computes_is_no_neighbour(stat, monkeypatch):
    own = iter([0.0, 9.0])
    monkeypatch.setattr(neighbours.time, "process_time", lambda: next(own))
    stat += [100.0, 110.0]
    assert Neighbours().advice({}) is None


def test_nothing_is_said_where_no_file_tells(stat):
    stat += [None, None]
    assert Neighbours().advice({}) is None


def test_the_kernel_is_read_as_it_writes(tmp_path, monkeypatch):
    file = tmp_path / "stat"
    monkeypatch.setattr(neighbours, "_STAT", file)
    assert neighbours._busy_seconds() is None
    file.write_text("cpu  200 100 50 99999 3 0 1 0 0 0\ncpu0 1 2 3 4\n")
    assert neighbours._busy_seconds() == 350 / os.sysconf("SC_CLK_TCK")
    file.write_text("nothing of this kind\n")
    assert neighbours._busy_seconds() is None


def test_a_long_command_says_it_before_it_works(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Neighbours, "advice", lambda self: "others compute here")
    monkeypatch.chdir(tmp_path)
    asked = ["score", "--supernet", "no such", "--packaged", "imdb", "--architectures", "ffn", "--output", "o.jsonl"]
    with pytest.raises(SystemExit, match="no such"):
        cli.main(asked)
    assert capsys.readouterr().err.splitlines()[0] == "others compute here"
    with pytest.raises((SystemExit, FileNotFoundError)):
        cli.main(["report", "--scored", "missing.jsonl", "--output", "page.html"])
    assert "others" not in capsys.readouterr().err


def test_real_neighbours_are_not_this_process():
    here = Neighbours()
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass
    here.advice({})  # whatever this machine does: no error
