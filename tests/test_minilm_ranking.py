"""Super-nets that rank the children of the table, on a tiny base model: methods, records, a command called again."""

import dataclasses
import json
import random

import pytest
import torch
from tiny.minilm import benchmark, prepare_tiny
from tiny.processes import kill_behind

from hf_nasbert import records
from hf_nasbert.elastic.scores import score_children
from hf_nasbert.space import Architecture


@pytest.fixture(scope="module")
def bench():
    with benchmark("minilm_ranking") as module:
        module.PASSES = 18
        module._PAIRED = 2
        yield module


@pytest.fixture(scope="module")
def drawn(bench, tmp_path_factory):
    """What the studies stand on, and a design; then convolutions leave the screened space, all else stays."""
    made = prepare_tiny(tmp_path_factory.mktemp("minilm"), num_documents=700)
    with benchmark("minilm_table") as table:
        design = {"children": table.draw_children(made)}
    materials = made.materials
    losses = [1.0 if "conv3" in one.operators else 0.05 for one in materials.table]
    materials.table = [dataclasses.replace(one, loss=loss) for one, loss in zip(materials.table, losses, strict=True)]
    return made, design


@pytest.fixture(scope="module")
def prepared(drawn):
    return drawn[0]


@pytest.fixture(scope="module")
def design(drawn):
    return drawn[1]


def children_of(design):
    return [Architecture.parse(one["architecture"]) for one in design["children"]]


def test_a_super_net_of_the_screened_space_has_the_weights_of_the_whole_one(bench, prepared):
    made = prepared.materials
    small = bench.cut(prepared, made.screened_space)
    assert small.space.num_children < made.supernet.space.num_children
    children = [made.screened_space.sample(random.Random(seed)) for seed in range(4)]
    batches, targets = made.replacing
    first, second = (
        [one.loss for one in score_children(net, children, batches, targets, made.distance)]
        for net in (small, made.supernet)
    )
    assert first == pytest.approx(second, rel=1e-6)


def test_stored_states_teach_what_the_base_model_teaches(bench, prepared):
    made = prepared.materials
    stored = bench.StoredTeacher(made.base.full_child, made.calibration, made.text.train, made.states["train"])
    batch = made.text.train[0]
    mask = batch["attention_mask"].bool()
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    last = stored.teach(asked, hidden_states=True).hidden_states
    assert len(last) == 1
    real = super(type(stored), stored).teach(asked, hidden_states=True).hidden_states
    torch.testing.assert_close(last[0][mask], real[-1][mask], rtol=2e-2, atol=2e-2)
    other = {"input_ids": asked["input_ids"].flip(0), "attention_mask": asked["attention_mask"].flip(0)}
    assert len(stored.teach(other, hidden_states=True).hidden_states) == len(real)


def test_stored_states_are_what_super_nets_learn_from(bench, prepared, design, monkeypatch):
    monkeypatch.setattr(bench.BaseModelTeacher, "teach", None)
    supernet, told = bench.train(prepared, prepared.materials.screened_space, bench.Variant("uniform"), 1)
    assert told["steps"] == bench.PASSES / 3
    assert supernet.space == prepared.materials.screened_space


@pytest.mark.parametrize("study", ["run", pytest.param("sweep", marks=pytest.mark.slow)])
def test_every_variant_trains_at_the_same_compute_and_scores_its_children(bench, prepared, design, study):
    children = children_of(design)
    for name, variant in bench.STUDIES[study].items():
        record = bench.make(prepared, bench.Job(study, name, "screened", 7), children)
        passes = bench.PASSES * variant.factor
        assert passes / 2 <= record["passes"] <= 1.5 * passes, name
        scored = [child for child, score in zip(children, record["scores"], strict=True) if score is not None]
        assert scored == [child for child in children if "conv3" not in child]
        assert all(-1 <= cosine <= 1 for _, cosine, _ in record["cosines"])
        json.dumps(record, allow_nan=False)


def test_adapted_children_come_nearer_to_the_base_model(bench, prepared, design, monkeypatch):
    monkeypatch.setattr(bench, "NUM_ADAPTED", 3)
    children = children_of(design)
    trained, adapted = (bench.make(prepared, bench.Job(study, "uniform", "screened", 100), children)["scores"]
                        for study in ("run", "adapt"))  # fmt: skip
    pairs = [(before, after) for before, after in zip(trained, adapted, strict=True) if after is not None]
    assert len(pairs) == 3
    assert sum(after for _, after in pairs) < sum(before for before, _ in pairs)
    again = bench.make(prepared, bench.Job("adapt", "magic_t", "screened", 101), children)
    assert [one is None for one in again["scores"]] == [one is None for one in adapted], "the same children for all"
    assert again["passes_of_each"] == 3 * bench.ADAPT_STEPS + len(prepared.trainer.batches["choosing"])


def test_children_are_scored_on_more_text_where_a_variant_asks_for_it(bench, prepared, design, monkeypatch):
    name, asked = next(iter(bench.BAR.items()))
    assert asked.more_batches == 18
    children = [child for child in children_of(design) if "conv3" not in child][:3]
    scored = {}
    for number in (0, 2):
        monkeypatch.setitem(bench.BAR, name, bench.Variant("uniform", more_batches=number))
        record = bench.make(prepared, bench.Job("bar", name, "screened", 400), children)
        made, trained = prepared.materials, bench.train(prepared, prepared.materials.screened_space, asked._replace(
            factor=1.0), 400)[0]  # fmt: skip
        parts = [("choosing", place) for place in range(len(made.text.choosing))]
        parts += [("train", place) for place in range(number)]
        batches = [getattr(made.text, part)[place] for part, place in parts]
        targets = [made.states[part][place] for part, place in parts]
        wanted = score_children(trained, children, batches, targets, made.distance)
        assert record["scores"] == pytest.approx([one.loss for one in wanted], rel=1e-5)
        assert record["scored_batches"] == len(parts)
        scored[number] = record["scores"]
    assert scored[0] != scored[2]


def test_a_command_called_again_goes_on_and_doubles_nothing(bench, prepared, design, tmp_path, monkeypatch):
    path = tmp_path / bench.FILE
    jobs = [*bench.jobs_of("untrained"), *bench.jobs_of("run")[:1]]
    bench.work(prepared, design, jobs[:2], path)
    first = path.read_bytes()
    path.unlink()  # a fresh checkout has the compressed copy alone
    bench.work(prepared, design, jobs, path)
    assert path.read_bytes().startswith(first)
    rows = records.read(path)
    assert [one["variant"] for one in rows[1:]] == [*bench.UNTRAINED, "uniform"]
    monkeypatch.setattr(bench, "make", None)
    bench.work(prepared, design, jobs, path)
    assert records.read(path) == rows
    inherited, sums, blockwise, trained = (one["scores"] for one in rows[1:])
    children = children_of(design)
    assert inherited == pytest.approx(prepared.materials.scorer(children), rel=1e-5)
    assert all(one is not None for one in (*sums, *blockwise))
    assert blockwise != inherited
    assert trained != inherited
    with pytest.raises(ValueError, match="of another design"):
        bench.work(prepared, {"children": design["children"][:2]}, jobs, path)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_records(bench, prepared, design, tmp_path):
    """SIGKILL behind every record, some moments later each time."""
    jobs = [*bench.jobs_of("untrained")[:1], *bench.jobs_of("run")[:2]]
    straight, killed = (tmp_path / name / bench.FILE for name in ("straight", "killed"))
    bench.work(prepared, design, jobs, straight)
    for number in range(1 + len(jobs)):
        kill_behind(
            bench.work, (prepared, design, jobs, killed), lambda: len(bench.rows_of(killed)), number, 0.2 * number
        )
    bench.work(prepared, design, jobs, killed)
    assert records_of(killed) == records_of(straight)
    assert len(records_of(killed)) == 1 + len(jobs)


def records_of(path):
    """Without what every run of the same job has of its own."""
    return [
        {name: row[name] for name in row.keys() - {"cpu_seconds", "training_cpu_seconds", "versions"}}
        for row in records.read(path)
    ]


def test_the_plan_counts_what_is_left(bench, tmp_path):
    lines = list(bench.plan_lines(tmp_path))
    assert lines[1].startswith("run: 96 of 96")
    records.append(tmp_path / bench.FILE, {**bench.jobs_of("run")[0]._asdict(), "cpu_seconds": 3600.0})
    assert list(bench.plan_lines(tmp_path))[1] == "run: 95 of 96 to make, 95.0 CPU-hours"
