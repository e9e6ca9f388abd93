"""A winner under a latency cap is run before it is returned: with a clock that operators themselves advance."""

import functools

import pytest
import torch
from tiny.clock import OUTSIDE, fake_time, seconds_of
from tiny.scores import CONFIG, DATA, stub_files

from hf_nasbert import costs, measuring, records
from hf_nasbert.measuring import Device, measure_children
from hf_nasbert.pipeline import SearchChildrenArguments, confirm, search_children
from hf_nasbert.pipeline.scores import as_search_report
from hf_nasbert.report import read_findings, render_search_report
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import Architecture

assert fake_time  # a fixture


@pytest.fixture
def search(monkeypatch, tmp_path, fake_time):
    """Search all 27 children under a cap by a table that may say anything of conv3."""
    stub_files(monkeypatch)
    monkeypatch.setattr(confirm, "measure_children", functools.partial(measure_children, num_rounds=3))
    monkeypatch.setattr(Device, "of", lambda setting: fake_time if setting == fake_time.setting else None)
    operators = {f"{kind}@32": 1000 * seconds_of(kind, 32) for kind in ("attention", "ffn", "conv3")}

    def run(conv3_ms=operators["conv3@32"], cap=21_000.0, setting=fake_time.setting, name="a", **settings):
        record = {
            "record": "latency_table", "operators_ms": {**operators, "conv3@32": conv3_ms}, "adapters_ms": {},
            "outside_ms": 1000 * OUTSIDE, "setting": setting, "sizes": costs.latency_sizes(CONFIG),
        }  # fmt: skip
        table = tmp_path / f"{name}.latency.jsonl"
        records.append(table, record)
        arguments = SearchChildrenArguments(
            supernet="x", output=str(tmp_path / f"{name}.jsonl"), num_dev_batches=1, dev_batch_size=2, search="random",
            num_evaluations=27, latency_table=str(table), max_latency=cap, **settings,
        )  # fmt: skip
        return arguments, search_children(arguments, DATA)

    return run


def real_ms(child):
    return 1000 * (OUTSIDE + sum(seconds_of(name, 32) for name in child))


def test_the_winner_and_the_front_are_measured(search):
    arguments, scored = search()
    assert 5 < len(scored) < 27
    measured = [child for child in scored if child.measured_latency_ms is not None]
    assert measured[0] == scored[0]
    assert 1 < len(measured) < len(scored), "the front, not everything"
    assert all(c.measured_latency_ms == real_ms(c.architecture) == c.cost["latency_ms"] for c in measured)
    report = as_search_report(scored, arguments)
    front = report.split("the front of")[1].splitlines()[1:]
    assert len(front) == len(measured)
    assert all("measured)" in line for line in front)
    told = [record for record in records.read(arguments.output) if record["record"] == "measured"]
    assert {record["architecture"]: record["latency_ms"] for record in told} == {
        str(child.architecture): child.measured_latency_ms for child in measured
    }


def test_what_is_slower_than_the_table_says_is_passed_over_for_the_next(search, capsys):
    _, honest = search(cap=20_000.0, name="honest")
    arguments, scored = search(conv3_ms=100.0, cap=20_000.0)  # by the table, conv3 is almost free
    assert scored[0].measured_latency_ms == real_ms(scored[0].architecture) <= 20_000.0
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("passed over")]
    assert shown
    refused = {line.split()[2].rstrip(":") for line in shown}
    assert not refused & {str(child.architecture) for child in scored}
    assert all(real_ms(Architecture.parse(name)) > 20_000.0 for name in refused)
    assert scored[0].proxy_loss == honest[0].proxy_loss, "the best of those that really keep to the cap"
    # The report of the history says the same.
    history = records.read(arguments.output)
    findings = read_findings(history)
    assert {str(child) for child in findings.passed_over} == refused
    winner = findings.children[findings.ranking()[0]]
    assert winner.architecture == scored[0].architecture
    page = render_search_report(history, supernet="x")
    assert f"{scored[0].measured_latency_ms:,.2f} ms measured" in page
    assert all(f"{name}: " in page for name in refused)
    # And the search goes on from such a history, scoring nothing twice.
    assert search_children(arguments, DATA) == scored
    assert sum(record["record"] == "child" for record in records.read(arguments.output)) == len(scored) + len(refused)


def test_it_can_be_turned_off_and_is_left_where_the_device_is_another(search, fake_time, capsys):
    _, scored = search(conv3_ms=100.0, cap=20_000.0, name="off", measure_winner=False)
    assert all(child.measured_latency_ms is None for child in scored)
    assert any(real_ms(child.architecture) > 20_000.0 for child in scored[:3])
    _, scored = search(conv3_ms=100.0, name="elsewhere", setting={**fake_time.setting, "device": "Another CPU"})
    assert all(child.measured_latency_ms is None for child in scored)
    assert "not measured again: it is of another device" in capsys.readouterr().err


def test_a_table_that_does_not_hold_at_all_is_said(search, monkeypatch):
    with pytest.raises(ValueError, match=r"1 of 1 children.*below 8,000.0 ms are slower here: measure a new table"):
        search(conv3_ms=10.0, cap=8_000.0, name="wrong")
    monkeypatch.setattr(confirm, "MOST_MEASURED", 1)
    with pytest.raises(ValueError, match=r"children that the latency table puts below"):
        search(conv3_ms=10.0, cap=20_000.0, name="many")


def test_without_a_scored_child_there_is_nothing_to_measure(tmp_path):
    history = str(tmp_path / "h.jsonl")
    assert confirm.confirm_latency([], cap=1.0, objectives=[], measure=pytest.fail, history=history) == []


def test_only_slow_children_speak_against_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(confirm, "MOST_MEASURED", 2)
    values = {"ffn": (1.0, 40), "attention": (1.5, 40), "conv3": (2.0, 30), "conv5": (3.0, 20), "conv7": (4.0, 10)}
    scored = [
        ScoredChild(
            architecture=Architecture([name]), proxy_loss=loss, cost={"num_parameters": size, "latency_ms": 1.0}
        )
        for name, (loss, size) in values.items()
    ]
    times = {"ffn": 9.0}
    found = confirm.confirm_latency(
        scored, cap=2.0, objectives=["num_parameters"], history=str(tmp_path / "h.jsonl"),
        measure=lambda children: [times.get(str(child), 1.0) for child in children],
    )  # fmt: skip
    assert [str(child.architecture) for child in found] == ["attention", "conv3", "conv5", "conv7"]
    assert all(child.measured_latency_ms is not None for child in found)


def test_a_device_is_that_of_its_setting_or_none():
    here = Device(batch_size=2, sequence_length=8)
    again = Device.of(here.setting)
    assert again is not None
    assert again.setting == here.setting
    assert Device.of({**here.setting, "device": "Another CPU"}) is None
    if not torch.cuda.is_available():
        table = costs.LatencyTable({}, {}, 0.0, {**here.setting, "device_type": "cuda", "clock": "wall"}, {})
        assert confirm.measure_here(table, CONFIG) is None


def test_children_are_timed_one_by_one(fake_time):
    children = [Architecture(names) for names in (("ffn",) * 3, ("conv3", "attention", "conv3"))]
    assert measure_children(CONFIG, fake_time, children, num_rounds=4) == [real_ms(child) for child in children]


def test_how_often_they_are_timed_may_follow_from_their_first_visit(fake_time, monkeypatch):
    children = [Architecture(names) for names in (("ffn",) * 3, ("conv3", "attention", "conv3"))]
    asked, visits = [], []
    visit = measuring._Children.visit
    monkeypatch.setattr(measuring._Children, "visit", lambda self, child: (visits.append(child), visit(self, child)))

    def rounds_of(seconds: float) -> int:
        asked.append(seconds)
        return 3

    found = measure_children(CONFIG, fake_time, children, num_rounds=rounds_of)
    assert found == [real_ms(child) for child in children]
    assert asked == [pytest.approx(sum(found) / 1000)]
    assert visits == [0, 1] * (1 + 3), "the first visits are not done again"


def test_the_first_visit_of_a_child_does_not_count(fake_time, monkeypatch):
    children, visits = [Architecture(("ffn",) * 3)], []
    visit = measuring._Children.visit

    def slow_at_first(self, child):
        visit(self, child)
        visits.append(child)
        if len(visits) == 1:
            self._times[child] = [1e6] * 99

    monkeypatch.setattr(measuring._Children, "visit", slow_at_first)
    assert measure_children(CONFIG, fake_time, children, num_rounds=2) == [real_ms(children[0])]
    assert len(visits) == 1 + 2
