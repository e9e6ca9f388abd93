"""MAGIC-A on half of the rows: page and default follow the record by its rule, and the runs compare what they say."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny.bases import documents, save_base

from hf_nasbert.methods import METHODS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    try:
        yield importlib.import_module("alignment_rows")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:
            if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.fixture(scope="module")
def ranks(bench):
    record, design = (
        json.loads((bench.RECORDS / name).read_text(encoding="utf-8")) for name in (bench.RECORD, "minilm-design.json")
    )
    truth = bench.known_children(record["asked"]["screened"], bench.RECORDS)
    return record, bench.ranks_of(record, design, truth)


def test_the_page_says_what_the_record_says(bench, ranks):
    table = "\n".join(bench.table_lines(*ranks))
    assert f"<!-- table: alignment rows -->\n{table}\n<!-- end -->" in bench.PAGE.read_text(encoding="utf-8")


def test_the_page_tells_what_a_step_costs(bench):
    names = ("step", "step-alignment")
    step, aligned = (json.loads((bench.RECORDS / f"{name}.json").read_text(encoding="utf-8")) for name in names)
    page = bench.PAGE.read_text(encoding="utf-8")
    rows = {
        "half of the rows (the default) / uniform, 12 blocks, 50 random pairs, sum of times": "half_",
        "all rows / uniform": "",
        "a quarter of the rows / uniform": "quarter_",
    }
    for row, name in rows.items():
        assert f"| MAGIC-A, {row} | {aligned[f'magic_a_{name}over_plain']['of_sums']:.2f} | |" in page
    assert f"all rows take {aligned['magic_a_forward_over_plain']['of_sums']:.2f} without" in " ".join(page.split())
    half = [aligned["magic_a_half_over_plain"][key] for key in ("median", "quartile_1", "quartile_3")]
    assert "median of half of the rows {:.2f}, quartiles {:.2f} and {:.2f}".format(*half) in " ".join(page.split())
    beside = f"half of the rows took {step['magic_a_half_over_plain']['of_sums']:.2f} (step.json)"
    assert beside in " ".join(page.split())
    rows = {
        "8 candidates per block / 2": "candidates_8_over_2",
        "30 candidates per block / 2": "candidates_30_over_2",
        "the same, steps of 4 times 32 tokens": "candidates_30_over_2_tiny",
    }
    for row, name in rows.items():
        told = [step[name][key] for key in ("median", "quartile_1", "quartile_3")]
        assert "| {} | {:.2f} ({:.2f} to {:.2f}) | |".format(row, *told) in page


def test_the_default_is_what_follows_by_the_rule(bench, ranks):
    expected = 0.5 if bench.is_as_good(ranks[1]) else 1.0
    for method in bench.FIRST:
        assert METHODS[method].Settings().alignment_rows == expected


def ranks_with(bench, differences):
    """Ranks of super-nets whose taus differ so, seed by seed."""
    taus = {
        bench.Run(variant, share, seed): 0.8 + (share == 0.5) * by
        for variant, of_seeds in differences.items()
        for seed, by in zip(bench.SEEDS, of_seeds, strict=False)
        for share in bench.SHARES
    }
    return bench.Ranks(taus, taus, (0.8, 0.8))


@pytest.mark.parametrize(
    ("magic_a", "magic_at", "heavy", "is_as_good"),
    [
        ([0.01, -0.01, 0.0, 0.02, -0.02], [0.0, 0.01, -0.01, 0.0, 0.0], [0.0] * 5, True),
        ([-0.01, -0.03, -0.02, 0.0, -0.04], [-0.01, -0.03, -0.03, -0.02, -0.05], [0.0] * 5, False),
        ([-0.035] * 5, [0.02] * 5, [0.0] * 5, False),  # one method suffers
        ([0.2, -0.2, 0.2, -0.2, 0.0], [0.2, -0.2, 0.1, -0.1, 0.0], [0.0] * 5, False),  # nothing is told
        ([0.0] * 5, [0.0] * 5, [-0.02, -0.02, -0.05, 0.01, 0.0], False),  # where alignment weighs much
    ],
)
def test_the_rule(bench, magic_a, magic_at, heavy, is_as_good):
    made = ranks_with(bench, {"magic_a": magic_a, "magic_at": magic_at, bench.HEAVY: heavy})
    assert bench.is_as_good(made) is is_as_good
    assert ("not shown" in bench.verdict(made)) is not is_as_good


def test_the_rule_counts_whole_seeds_alone(bench):
    three = [0.0, 0.0, 0.0]
    made = ranks_with(bench, {"magic_a": [*three, -0.3], "magic_at": three, bench.HEAVY: three})
    assert bench.differences(made.over_all, "magic_a") == three
    assert bench.is_as_good(made)
    fewer = ranks_with(bench, {"magic_a": three, "magic_at": [0.0, 0.0], bench.HEAVY: three})
    with pytest.raises(ValueError, match="magic_a has 2 whole seeds, and the rule wants 3: call run"):
        bench.is_as_good(fewer)
    assert bench.verdict(fewer).startswith("No verdict yet")


def test_halves_are_those_of_the_batches_and_all_come_once(bench):
    batches = [
        {"input_ids": torch.full((32, 3), number), "attention_mask": torch.ones(32, 3, dtype=torch.int64)}
        for number in range(4)
    ]
    for number, batch in enumerate(batches):
        batch["input_ids"][:, 0] = 100 * number + torch.arange(32)
    halves = bench.HalfBatches(batches, seed=1)
    read = torch.cat([batch["input_ids"][:, 0] for batch in halves.loader(0, 8, rows=slice(None), num_workers=0)])
    assert sorted(read.tolist()) == [100 * number + row for number in range(4) for row in range(32)]
    (late,) = halves.loader(5, 1, rows=slice(None), num_workers=0)
    assert late["input_ids"][:, 0].tolist() == read[5 * 16 : 6 * 16].tolist()


@pytest.fixture(scope="module")
def prepared(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    settings = bench.Settings(
        base_model=str(save_base(folder / "base")), heads=(1,), ffn=(32,), kernels=(3,), batch_size=32, max_length=12,
        num_sentences=128,
    )  # fmt: skip
    return bench.prepare(settings, folder / "work", Dataset.from_dict({"text": documents(1500)}), None, "words", 1)


def test_super_nets_differ_by_their_rows_alone(bench, prepared, monkeypatch):
    monkeypatch.setattr(bench, "NUM_STEPS", 4)
    space = prepared.materials.screened_space
    children = [space.child_at(0), space.child_at(space.num_children - 1)]
    made = {}
    for share in (1.0, 0.5, 1.0):
        teacher = bench.RememberingTeacher(prepared)
        again = bench.train(prepared, teacher, bench.Run("magic_a", share, 3), children)
        assert made.setdefault(share, again)["scores"] == again["scores"]
    assert made[1.0]["scores"] != made[0.5]["scores"]
    assert made[1.0]["scores"].keys() == set(map(str, children))
    assert all(0 < one["alignment"] < 1 for one in made.values())
    heavy = bench.train(prepared, bench.RememberingTeacher(prepared), bench.Run(bench.HEAVY, 1.0, 3), children)
    assert heavy["alignment"] < made[1.0]["alignment"]
    plain = bench.train(prepared, bench.RememberingTeacher(prepared), bench.Run("uniform", None, 3), children)
    assert plain["alignment"] is None
    assert plain["scores"] != made[1.0]["scores"]


def test_what_the_base_model_makes_is_remembered(bench, prepared):
    teacher = bench.RememberingTeacher(prepared)
    batch = prepared.materials.text.train[0]
    made = teacher.teach(batch, hidden_states=True)
    assert teacher.teach(batch, hidden_states=True) is made
    expected = bench.BaseModelTeacher.teach(teacher, batch, hidden_states=True).hidden_states
    assert torch.equal(made.hidden_states[-1], expected[-1])
