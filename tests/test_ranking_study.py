"""The ranking study: every super-net that was scored was trained for the compute that all methods share."""

import runpy
import shutil
from pathlib import Path

import pytest

from hf_nasbert import records
from hf_nasbert.methods import METHODS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(ROOT / "benchmarks" / "ranking_study.py"))


def read(name):
    return records.read(ROOT / "benchmarks" / "records" / f"{name}.jsonl.xz")


def test_super_nets_made_the_steps_of_equal_compute(study):
    found = {(record["method"], record["max_steps"]) for record in read("ranking")}
    assert found == {(method, study["steps_of"](method)) for method in study["STUDIED"]}
    assert dict(found) == {"uniform": 2400, "magic_t": 2400, "fair": 800, "magic_a": 1732, "magic_at": 1732}
    # 1,732 steps: three forward passes of a child, one of the anchor, and two dev batches twice every 25 steps.
    passes = 3 + 1 + 2 * 2 / 25
    assert 1732 * passes == pytest.approx(3 * 2400, rel=2e-3)


def test_super_nets_are_trained_again_on_all_rows(study, tmp_path, monkeypatch):
    """As they were recorded, whatever the default of MAGIC-A is by now."""
    commands = []
    monkeypatch.setattr(study["subprocess"], "run", lambda command, **_: commands.append(" ".join(command)))
    study["train"](tmp_path / "a", "magic_at", 100, 1732)
    study["train"](tmp_path / "b", "magic_a", 300, 1864, {"alignment_start": 0.3})
    study["train"](tmp_path / "c", "uniform", 100, 2400)
    assert "--alignment_rows 1.0" in commands[0]
    assert "--alignment_rows 1.0 --alignment_start 0.3" in commands[1]
    assert "alignment" not in commands[2]


def test_equal_compute_is_told_for_any_method(study):
    found = {method: study["steps_of"](method) for method in METHODS}
    assert found["complexity_rate"] == found["size_shifted"] == 2400
    assert found["size_classes"] == 800
    assert 1600 < study["steps_of"]("few_shot", {"split": "gradients"}) < 2400


@pytest.mark.parametrize(
    ("variants", "seeds", "shares"),
    [
        ("SWEEP", [200, 201, 202], [1.0]),
        ("CONFIRM", [300, 301, 302, 303, 304, 305], [0.5, 1.0]),
        ("FRESH", [600, 601, 602, 603, 604], [0.5, 1.0]),
    ],
)
def test_variants_made_the_steps_of_theirs(study, variants, seeds, shares):
    found = [r for r in read(f"ranking-{variants.lower()}") if r["method"] not in study["RETIRED"]]
    scored = [r for r in found if r.get("adapted") is None]
    assert {name: {r["max_steps"] for r in scored if r["method"] == name} for name in study[variants]} == {
        name: {study["steps_of"](*settings)} for name, settings in study[variants].items()
    }
    for name in study[variants]:
        made = sorted((r["seed"], r["step"] / r["max_steps"]) for r in scored if r["method"] == name)
        assert made == [(seed, share) for seed in seeds for share in shares]
    assert len(scored) == len(seeds) * len(shares) * len(study[variants])
    assert list(study[f"{variants}_SEEDS"]) == seeds


def test_workers_adapt_children_of_super_nets_that_no_other_worker_has(study, tmp_path, monkeypatch):
    """`rank_children` keeps what it trains beside the records, under a super-net's digest."""
    inside, commands = study["adapt"].__globals__, []
    monkeypatch.setitem(inside, "recipe", lambda name, *arguments: commands.append([*map(str, arguments)]))
    monkeypatch.setitem(inside, "pack", lambda path: commands.append(path))
    study["adapt"](tmp_path / "scores.jsonl", "imdb", 2)
    assert commands.pop() == tmp_path / "scores.jsonl"
    assert not any("--label" in command for command in commands), "the name that says how many steps is given to them"
    assert all(command[command.index("--containing") + 1] == "conv3" for command in commands)
    groups = {}
    for command in commands:
        folders = tuple(word for word in command if "checkpoint-" in word)
        groups.setdefault(folders, []).append(command[command.index("--adapt_steps") + 1])
    assert all(steps == ["25", "100"] for steps in groups.values()), "one after the other"
    adapted = [folder for folders in groups for folder in folders]
    assert len(adapted) == len(set(adapted)) == 3 * 5 * 2
    assert {Path(folder).parent.name for folder in adapted} == {
        f"{name}-{seed}" for name in study["ADAPTED"] for seed in study["FRESH_SEEDS"]
    }


def test_children_of_every_fresh_super_net_that_is_asked_for_were_adapted(study):
    found = [record for record in read("ranking-fresh") if record.get("adapted") is not None]
    made = sorted((r["method"], r["adapted"]["steps"], r["seed"], r["step"] / r["max_steps"]) for r in found)
    number = study["NUM_ADAPTED"]
    assert made == sorted(
        (f"{name}, {number} children adapted for {steps} steps", steps, seed, share)
        for name in study["ADAPTED"] for steps in study["ADAPT_STEPS"] for seed in study["FRESH_SEEDS"]
        for share in (0.5, 1.0)
    )  # fmt: skip
    assert {(r["adapted"]["children"], r["adapted"]["containing"]) for r in found} == {(number, "conv3")}


def test_the_records_of_retired_variants_stay(study):
    assert set(study["RETIRED"]) <= {record["method"] for record in read("ranking-sweep")}


def test_scoring_goes_on_from_committed_records(study, tmp_path, monkeypatch):
    begun, records_of = study["begun"], ROOT / "benchmarks" / "records"
    monkeypatch.setitem(begun.__globals__, "RECORDS", tmp_path)
    assert not begun("ranking-confirm").exists()  # nothing to go on from
    shutil.copy(records_of / "ranking-confirm.jsonl.xz", tmp_path)
    assert records.read(begun("ranking-confirm")) == read("ranking-confirm")
    (tmp_path / "ranking-confirm.jsonl").write_text("")
    assert begun("ranking-confirm").read_text() == ""  # what is there is not replaced


def test_what_is_confirmed_was_trained_on_seeds_of_its_own(study):
    used = {seed for name in ("ranking", "ranking-sweep") for seed in (r["seed"] for r in read(name))}
    assert not used & set(study["CONFIRM_SEEDS"])
