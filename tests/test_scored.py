"""One record of a scored child: what scoring and searches write alike, and files of version 0.1.0 that still read."""

import json
import math
import shutil
from pathlib import Path

import pytest
from tiny.texts import TEXT

from hf_nasbert import cli, records
from hf_nasbert.report import read_findings, render_search_report
from hf_nasbert.scored import (
    ScoredChild,
    begin_scores,
    filtered_record,
    is_beside,
    read_filtered,
    read_scores,
    scored_children,
)
from hf_nasbert.space import Architecture

EARLIER = Path(__file__).parent / "data" / "written-earlier"
ABOUT = {
    "supernet": "fa918d2a4f2adb84",
    "text": ["tiny.txt"],
    "data_seed": 7,
    "max_seq_length": 16,
    "num_dev_batches": 2,
    "dev_batch_size": 4,
    "dev_data": "57864ecf9a5d804c",
}
CHILD = ScoredChild(
    architecture=Architecture.parse("attention-skip-skip"),
    proxy_loss=4.778199911117554,
    cost={"num_parameters": 3912, "flops": 118784, "peak_activation_bytes": 5120},
)


def earlier(name):
    return records.read(EARLIER / f"{name}.jsonl")


def run(command, output, *flags):
    text = ["--train_files", str(TEXT), "--cache_dir", str(output.parent / "cache")]
    batches = ["--num_dev_batches", "2", "--dev_batch_size", "4"]
    supernet = ["--supernet", str(EARLIER / "supernet")]
    assert cli.main([command, *supernet, "--output", str(output), *text, *batches, *flags]) == 0


@pytest.mark.parametrize("loss", [4.5, None])
def test_a_child_comes_back_from_its_record(loss):
    for part in ({}, {"num_batches": 1}):
        child = ScoredChild(architecture=CHILD.architecture, proxy_loss=loss, cost=CHILD.cost, **part)
        record = json.loads(json.dumps(child.to_record()))
        assert ScoredChild.from_record(record, "x") == child
        assert child.loss == (math.inf if loss is None else loss)


def test_a_child_reads_the_same_from_every_earlier_file():
    """A search's record had a score and costs of their own, others had a proxy loss and costs beside it."""
    for name in ("scores", "evolution", "measured"):
        (found,) = (c for c in scored_children(earlier(name), name) if c.architecture == CHILD.architecture)
        assert found.proxy_loss == CHILD.proxy_loss
        assert {cost: found.cost[cost] for cost in CHILD.cost} == CHILD.cost
    assert len(scored_children(earlier("scores"), "")) == 14
    assert scored_children(earlier("halving"), "") != []
    assert all(child.num_batches is None for child in scored_children(earlier("halving"), ""))


@pytest.mark.parametrize("name", ["scores", "evolution", "halving", "native", "measured"])
def test_an_earlier_file_is_reported_as_before(name):
    found = earlier(name)
    findings = read_findings(found)
    assert findings.settings.items() >= ABOUT.items()
    assert [child.architecture for child in findings.children] == [
        child.architecture for child in scored_children(found, name)
    ]
    assert bool(findings.search) == (name != "scores")
    assert len(findings.measured_ms) == (name == "measured")
    assert findings.num_partial == sum("num_batches" in record for record in found)
    assert str(findings.children[0].architecture) in render_search_report(found, supernet="s")


def test_a_file_of_scores_that_an_earlier_version_began_goes_on(tmp_path):
    whole = scored_children(earlier("scores"), "")
    output = tmp_path / "scores.jsonl"
    output.write_text("".join((EARLIER / "scores.jsonl").read_text().splitlines(keepends=True)[:5]))
    run("score", output, "--all_children")
    found = records.read(output)
    assert found[:5] == earlier("scores")[:5]
    again = scored_children(found, "")
    assert [child.architecture for child in again] == [child.architecture for child in whole]
    assert [child.cost for child in again] == [child.cost for child in whole]
    assert [child.loss for child in again] == pytest.approx([child.loss for child in whole], abs=1e-5)
    assert read_findings(found).settings == ABOUT, "although the new records do not repeat it"
    with pytest.raises(SystemExit, match="give the same data_seed"):
        run("score", output, "--all_children", "--data_seed", "8")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("evolution", ["--num_evaluations", "6", "--max_parameters", "20K"]),
        ("halving", ["--search", "halving", "--num_evaluations", "6"]),
    ],
)
def test_a_search_that_an_earlier_version_began_goes_on(tmp_path, name, flags):
    output = tmp_path / f"{name}.jsonl"
    output.write_text("".join((EARLIER / f"{name}.jsonl").read_text().splitlines(keepends=True)[:4]))
    run("search", output, *flags)
    found = [record for record in records.read(output) if not is_beside(record)]
    assert found[:4] == earlier(name)[:4]
    for new, old in zip(found[4:], earlier(name)[4:], strict=True):
        assert new["proxy_loss"] == pytest.approx(old["score"], abs=1e-5)
        assert {key: value for key, value in new.items() if key not in ("proxy_loss", "batch_losses")} == {
            key: value for key, value in old.items() if key != "score"
        }


def test_scoring_and_searching_write_one_record(tmp_path):
    run("score", tmp_path / "scores.jsonl", "--architectures", "ffn-skip-skip")
    begun, scored = records.read(tmp_path / "scores.jsonl")
    assert begun == {"record": "scores", "settings": {"about": ABOUT}}
    shutil.copyfile(tmp_path / "scores.jsonl", tmp_path / "before.jsonl")
    run("search", tmp_path / "search.jsonl", "--num_evaluations", "14")
    searched = {record["architecture"]: record for record in records.read(tmp_path / "search.jsonl")[1:]}
    assert searched[scored["architecture"]].keys() == scored.keys()
    assert searched[scored["architecture"]]["cost"] == scored["cost"]
    for command, other, flags, message in (
        ("score", "search.jsonl", ["--all_children"], "not a file of scored children"),
        ("search", "scores.jsonl", [], "not the history of a search"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(command, tmp_path / other, *flags)
    assert (tmp_path / "before.jsonl").read_bytes() == (tmp_path / "scores.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"architecture": "ffn"}, "x is no scored child: it has no architecture or no proxy_loss"),
        ({"proxy_loss": 1.0}, "x is no scored child"),
        ({"architecture": 3, "proxy_loss": 1.0}, "x: "),
        ({"architecture": "ffn", "proxy_loss": True}, "x: proxy_loss is 'True', which is no number"),
        ({"architecture": "ffn", "score": "low"}, "x: score is 'low', which is no number"),
        ({"architecture": "ffn", "proxy_loss": 1.0, "cost": [3]}, "x: cost: expected names and values"),
        ({"architecture": "ffn", "proxy_loss": 1.0, "cost": {"flops": math.nan}}, "x: cost flops is nan"),
        ({"architecture": "ffn", "proxy_loss": 1.0, "num_batches": "2"}, "x is no scored child: its num_batches"),
    ],
)
def test_what_is_no_scored_child_is_refused_by_its_place(record, message):
    with pytest.raises(ValueError, match="^" + message):
        ScoredChild.from_record(record, "x")


def test_a_first_record_without_settings_is_of_other_settings():
    for settings in ({}, {"settings": 3}, {"settings": {"about": [1]}}):
        with pytest.raises(ValueError, match="s holds scores of another supernet"):
            read_scores([{"record": "scores", **settings}], ABOUT, "s")


def test_nobody_takes_an_estimate_for_a_loss():
    """The filter's number is lower than any loss: who took it for one would put that child first."""
    passed_over = Architecture.parse("ffn-skip-skip")
    estimates = [filtered_record(CHILD.architecture, 1.5, "f"), filtered_record(passed_over, 1.0, "f")]
    found = [begin_scores(ABOUT), *estimates, CHILD.to_record()]
    assert scored_children(found, "s") == [CHILD]
    assert read_scores(found, ABOUT, "s") == {CHILD.architecture: CHILD}
    findings = read_findings(found)
    assert (findings.children, findings.num_scored, findings.num_filtered) == ((CHILD,), 1, 1)
    page = render_search_report(found, supernet="s")
    assert "passed over by a filter" in page
    assert str(passed_over) not in page
    with pytest.raises(ValueError, match="x is no scored child"):
        ScoredChild.from_record(estimates[0], "x")
    with pytest.raises(ValueError, match="none of 0 scored children"):
        read_findings(found[:3])
    assert read_filtered(found, "f", "s") == {CHILD.architecture: 1.5, passed_over: 1.0}


def test_an_estimate_that_is_not_finite_comes_last():
    record = json.loads(json.dumps(filtered_record(CHILD.architecture, math.nan, "f")))
    assert record["filter_loss"] is None
    assert read_filtered([record], "f", "s") == {CHILD.architecture: math.inf}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": "another"}, "s, record 1 is another filter's: losses of two kinds do not compare"),
        ({"filter_loss": "low"}, "s, record 1: filter_loss is 'low', which is no number"),
        ({"architecture": 3}, "s, record 1 is no filtered child"),
    ],
)
def test_what_is_no_filtered_child_is_refused_by_its_place(change, message):
    with pytest.raises(ValueError, match="^" + message):
        read_filtered([filtered_record(CHILD.architecture, 1.5, "f") | change], "f", "s")
