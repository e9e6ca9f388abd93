"""A latency table carried to another device by ten children."""

import random
import statistics
from dataclasses import replace

import pytest
from tiny.models import tiny_supernet

from hf_nasbert import cli, records
from hf_nasbert.costs import LatencyTable, carry_table
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.space import SearchSpace

SPACE = SearchSpace.chain(8, ("attention", "ffn", "conv3", "conv5", "skip"))
CONFIG = SupernetConfig(search_space=SPACE, hidden_size=64, vocab_size=50)
OPERATORS = {"attention@64": 5.0, "ffn@64": 2.0, "conv3@64": 3.0, "conv5@64": 4.0, "skip": 0.0}
SETTING = {"device": "theirs", "batch_size": 8, "sequence_length": 32, "dtype": "float32", "num_threads": 1}
THEIRS = LatencyTable(OPERATORS, {}, 6.0, setting=SETTING, sizes={"hidden_size": 64})
FACTORS = {"attention": 0.2, "ffn": 1.5, "conv3": 1.0, "conv5": 1.0, "skip": 1.0}


def here(child, noise=0.0, seed=0):
    rng = random.Random(f"{child}{seed}")
    total = 0.7 * 6 + sum(FACTORS[name] * OPERATORS[name if name == "skip" else f"{name}@64"] for name in child)
    return total * (1 + noise * rng.gauss(0, 1))


def drawn(count, seed=0):
    rng = random.Random(seed)
    return [SPACE.sample(rng, "children") for _ in range(count)]


def error_percent(table, children):
    return 100 * statistics.mean(abs(table.latency_ms(CONFIG, child) / here(child) - 1) for child in children)


def test_ten_children_say_by_how_much_each_kind_is_slower_here():
    children, others = drawn(10), drawn(60, seed=1)
    carried = carry_table(THEIRS, CONFIG, children, [here(child, 0.01) for child in children], device="ours")
    common = statistics.mean(here(child) / THEIRS.latency_ms(CONFIG, child) for child in children)
    scaled = LatencyTable({k: common * v for k, v in OPERATORS.items()}, {}, common * 6, setting={}, sizes={})
    assert carried.table.setting == {**SETTING, "device": "ours"}
    assert error_percent(carried.table, others) < 2
    assert error_percent(scaled, others) > 5
    assert carried.factors["attention"] < 0.5 < 1.2 < carried.factors["ffn"]


def test_its_error_is_that_of_children_that_were_left_out():
    children, others = drawn(10), drawn(60, seed=1)
    told = [here(child, 0.02) for child in children]
    carried = carry_table(THEIRS, CONFIG, children, told)
    left_out = 100 * statistics.mean(abs(a / b - 1) for a, b in zip(carried.left_out_ms, told, strict=True))
    inside = 100 * statistics.mean(
        abs(carried.table.latency_ms(CONFIG, child) / ms - 1) for child, ms in zip(children, told, strict=True)
    )
    assert inside < left_out
    assert left_out == pytest.approx(error_percent(carried.table, others), abs=2.5)
    # A child that was left out has no say in what is foretold of it.
    wrong = carry_table(THEIRS, CONFIG, children, [10 * told[0], *told[1:]])
    assert wrong.left_out_ms[0] < 2 * told[0]


def test_the_same_device_stays_as_it_is():
    children = drawn(10)
    carried = carry_table(THEIRS, CONFIG, children, [THEIRS.latency_ms(CONFIG, child) for child in children])
    assert carried.factors == {kind: pytest.approx(1.0, abs=1e-6) for kind in carried.factors}


def test_a_kind_that_no_measured_child_has_is_slower_by_as_much_as_all_others():
    children = [child for child in drawn(40) if "conv5" not in child][:6]
    carried = carry_table(THEIRS, CONFIG, children, [2 * THEIRS.latency_ms(CONFIG, child) for child in children])
    assert carried.factors == {kind: pytest.approx(2.0, rel=1e-6) for kind in (*FACTORS, "all else")}
    assert carried.table.operators_ms == pytest.approx({name: 2 * ms for name, ms in OPERATORS.items()}, rel=1e-6)


def test_no_kind_is_faster_than_a_tenth_of_what_is_common():
    """Whatever a ridge on ten children says: attention for nothing would be taken for all blocks."""
    children, free = drawn(10), replace(THEIRS, operators_ms={**OPERATORS, "attention@64": -0.5})
    carried = carry_table(THEIRS, CONFIG, children, [free.latency_ms(CONFIG, child) for child in children])
    assert 0.05 < carried.factors["attention"] < 0.1


def test_adapters_between_widths_are_a_kind_of_their_own():
    space = SearchSpace.staged(3, 2, ("attention", "ffn", "skip"), widths=(32, 64))
    config = SupernetConfig(search_space=space, hidden_size=64, vocab_size=50)
    operators = {f"{kind}@{width}": ms for kind, ms in (("attention", 5.0), ("ffn", 2.0)) for width in (32, 64)}
    theirs = LatencyTable(operators | {"skip": 0.0}, {"64->32": 3.0, "32->64": 4.0}, 6.0, setting={}, sizes={})
    ours = replace(theirs, adapters_ms={name: 3 * ms for name, ms in theirs.adapters_ms.items()})
    rng = random.Random(0)
    children = [space.sample(rng) for _ in range(12)]
    carried = carry_table(theirs, config, children, [ours.latency_ms(config, child) for child in children])
    assert carried.factors["adapters"] == pytest.approx(3, rel=0.05)
    assert carried.table.adapters_ms == pytest.approx(ours.adapters_ms, rel=0.05)
    assert carried.table.operators_ms == pytest.approx(ours.operators_ms, rel=0.05)


def test_what_cannot_be_carried_is_refused():
    with pytest.raises(ValueError, match="three children at least, not 2"):
        carry_table(THEIRS, CONFIG, drawn(2), [1.0, 2.0])
    with pytest.raises(ValueError, match="hidden_size=64, not 128"):
        carry_table(THEIRS, SupernetConfig(search_space=SPACE, hidden_size=128), drawn(3), [1.0, 2.0, 3.0])


def test_the_command_adds_the_carried_table_and_its_error(tmp_path, capsys):
    tiny_supernet().save_pretrained(tmp_path / "net")
    argv = ["latency", "--supernet", str(tmp_path / "net"), "--batch_size", "1", "--max_seq_length", "8"]
    few = ["--num_visits", "1", "--num_rounds", "1", "--num_children"]
    theirs, ours = str(tmp_path / "theirs.jsonl"), str(tmp_path / "ours.jsonl")
    assert cli.main([*argv, "--output", theirs, *few, "2"]) == 0
    capsys.readouterr()
    assert cli.main([*argv, "--output", ours, "--from_table", theirs, *few, "4"]) == 0
    printed = capsys.readouterr().out
    assert "carried from 1x8 tokens" in printed
    assert "each of 4 random children as the others say: MAPE" in printed
    table, check = records.read(ours)
    assert LatencyTable.read(ours, batch_size=1).operators_ms == table["operators_ms"]
    assert len(check["children"]) == 4
    with pytest.raises(SystemExit, match="output and from_table are one file"):
        cli.main([*argv, "--output", theirs, "--from_table", theirs, *few, "4"])
    assert LatencyTable.read(theirs, batch_size=1).operators_ms != table["operators_ms"]
    with pytest.raises(SystemExit):
        cli.main([*argv, "--output", ours, "--from_table", theirs, *few, "2"])
    assert "num_children=2: a table is carried by at least 3" in capsys.readouterr().err
