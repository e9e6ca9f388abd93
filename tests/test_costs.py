"""Costs, against the built child for every operator, width and space shape; budgets, against enumeration."""

import math
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from helpers import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny.models import KINDS

from hf_nasbert import costs, records
from hf_nasbert.costs import (
    Budget,
    LatencyTable,
    Share,
    affordable,
    built,
    cheapest,
    counts,
    flops,
    num_parameters,
    parse_cap,
    parse_quantity,
    peak_activation_bytes,
)
from hf_nasbert.modeling.geometry_nasbert import geometry
from hf_nasbert.space import FreeStage, SearchSpace, Stage

CHAIN = SearchSpace.chain(num_choice_blocks=3, operators=KINDS)
STAGED = SearchSpace.staged(num_stages=2, blocks_per_stage=2, operators=KINDS, widths=(32, 64, 96))
UNEVEN = SearchSpace(
    (
        Stage(blocks=(("ffn", "attention", "conv7"), ("conv3", "skip"), ("ffn", "skip")), widths=(96, 32)),
        Stage(blocks=(("attention", "conv5"),)),
        Stage(blocks=(("conv3", "conv5"), ("attention", "skip")), widths=(128, 64)),
    )
)
FREE = SearchSpace.chain(3, ("attention", "ffn", "conv5", "skip"), skip="anywhere")
SIZED = SearchSpace.staged(2, 2, ("attention", "attention1", "ffn", "ffn40", "ffn999", "skip"), widths=(64, 96))
SHAPES = {
    "sized": (SIZED, {}),
    "free": (FREE, {}),
    "chain": (CHAIN, {}),
    "staged": (STAGED, {}),
    "uneven": (UNEVEN, {}),
    "narrow embeddings": (STAGED, {"embedding_size": 24}),
    "untied": (CHAIN, {"tie_word_embeddings": False, "embedding_size": 32}),
    "other sizes": (STAGED, {"ffn_ratio": 3, "num_conv_layers": 1, "attention_head_size": 16, "type_vocab_size": 1}),
}


def supernet_config(space, **overrides):
    from hf_nasbert.modeling import SupernetConfig

    sizes = {"vocab_size": 101, "hidden_size": 64, "max_position_embeddings": 40}
    return SupernetConfig(search_space=space, **{**sizes, **overrides})


def child_config(config, architecture):
    from hf_nasbert.modeling import NasBertConfig

    shape = (
        "vocab_size hidden_size embedding_size ffn_ratio attention_head_size num_conv_layers max_position_embeddings "
        "type_vocab_size tie_word_embeddings"
    ).split()
    return NasBertConfig(
        operators=list(architecture),
        stage_lengths=[stage.num_blocks for stage in config.space.stages],
        attn_implementation="eager",
        **{name: getattr(config, name) for name in shape},
    )


def children_with_every_operator(space):
    """Random children, plus more until every candidate of every block has been met."""
    rng = random.Random(0)
    missing = {(block, name) for block, names in enumerate(space.blocks) for name in names}
    missing -= {(stage.start, "skip") for stage in space.stage_slices}  # a stage holds at least one real operator
    while missing:
        child = space.sample(rng)
        if missing & set(enumerate(child)):
            missing -= set(enumerate(child))
            yield child


@pytest.mark.parametrize("shape", mostly_slow(SHAPES, 3))
def test_costs_equal_those_of_the_built_child(shape):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hf_nasbert.modeling import NasBertForMaskedLM

    space, overrides = SHAPES[shape]
    config = supernet_config(space, **overrides)
    for architecture in children_with_every_operator(space):
        its_config = child_config(config, architecture)
        child = NasBertForMaskedLM(its_config).eval()
        expected = sum(parameter.numel() for parameter in child.parameters())
        assert num_parameters(config, architecture) == num_parameters(its_config, architecture) == expected
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            child(torch.ones(2, 9, dtype=torch.long))
        counted = counter.get_total_flops()
        assert flops(config, architecture, 2, 9) == flops(its_config, architecture, 2, 9) == counted


@pytest.mark.parametrize(
    "name",
    [f"{kind}@{width}" for kind in KINDS[:-1] for width in (32, 128)] + ["conv9", "skip", "attention1@96", "ffn7"],
)
def test_costs_of_one_operator_equal_those_of_its_module(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hf_nasbert.modeling.operators_nasbert import NasBertConvolution, build_operator

    config = supernet_config(CHAIN, attn_implementation="eager")
    width = int(name.partition("@")[2] or 64)
    module = NasBertConvolution(config, width, 9) if name == "conv9" else build_operator(config, name)
    assert costs.operator_parameters(config, name) == sum(parameter.numel() for parameter in module.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(3, 7, width))
    assert costs.operator_flops(config, name, 3, 7) == counter.get_total_flops()


@pytest.mark.parametrize("name", [*KINDS, "attention@128", "conv5@32", "ffn7@96"])
def test_what_a_built_operator_costs_is_what_the_formulas_say(name):
    """What has no formula is counted so: hold the counting against all that have one."""
    config = supernet_config(CHAIN)
    (block,) = geometry([name], 64)
    assert built.built_parameters(config, name) == costs.operator_parameters(config, name)
    assert built.built_flops(config, name, 3, 7) == costs.operator_flops(config, name, 3, 7)
    if block.kind == "attention":  # its scores are a matrix of tokens by tokens here, fused elsewhere
        return
    statistics = built.built_peak(config, name) - counts._operator_peak(config, block)
    assert statistics in (0, 2)  # mean and deviation, which LayerNorm returns beside its result


def test_an_operator_of_ones_own_needs_no_formula(monkeypatch):
    """`glu` is what `ffn` is, under a name that no formula knows."""
    from hf_nasbert.modeling import configuration_nasbert, operators_nasbert

    build = operators_nasbert.build_operator
    monkeypatch.setattr(configuration_nasbert, "OPERATOR_KINDS", (*KINDS, "glu"))
    monkeypatch.setattr(
        operators_nasbert, "build_operator", lambda config, name: build(config, name.replace("glu", "ffn"))
    )
    config = supernet_config(CHAIN)
    own, ours = ("glu", "conv3", "glu"), ("ffn", "conv3", "ffn")
    assert num_parameters(config, own) == num_parameters(config, ours)
    assert flops(config, own, 2, 9) == flops(config, ours, 2, 9)
    statistics = peak_activation_bytes(config, own, 2, 9) - peak_activation_bytes(config, ours, 2, 9)
    assert 0 <= statistics <= 2 * 4 * 2 * 9  # two numbers of LayerNorm for each token


def test_flops_of_the_head_follow_the_number_of_predictions():
    config = supernet_config(CHAIN)
    architecture = ("attention", "ffn", "conv3")
    whole, none, one = (flops(config, architecture, 2, 9, num) for num in (None, 0, 1))
    assert (whole - none) == 18 * (one - none) == 18 * 2 * 64 * (64 + 101)
    assert flops(config, architecture, 2, 9, num_predictions=18) == whole
    for bad in (-1, 19):
        with pytest.raises(ValueError, match="num_predictions"):
            flops(config, architecture, 2, 9, num_predictions=bad)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (("attention", "ffn"), "2 operators"),
        (("attention", "magic", "ffn"), "magic"),
        (("attention@32", "ffn@64", "skip"), r"\[32, 64\]"),
    ],
)
def test_architectures_that_do_not_fit_are_refused_by_name(architecture, message):
    config = supernet_config(CHAIN)
    for cost in (num_parameters, flops):
        with pytest.raises(ValueError, match=message):
            cost(config, architecture)
    with pytest.raises(ValueError, match="sequence_length 0"):
        flops(config, ("ffn", "ffn", "ffn"), 1, 0)


def plain_config(config, operators):
    from hf_nasbert.modeling import NasBertConfig

    names = (*costs.LATENCY_SIZES, "type_vocab_size", "tie_word_embeddings")
    return NasBertConfig(operators=list(operators), **{name: getattr(config, name) for name in names})


def make_table(config, **setting):
    """A table in which every operator and adapter has a time of its own."""
    widths = {width for stage in config.space.stages for width in stage.widths or (64,)}
    return LatencyTable(
        operators_ms={
            f"{kind}@{width}": (9 - i) * width / 100 for i, kind in enumerate(KINDS[:-1]) for width in widths
        }
        | {"skip": 0.25},
        adapters_ms={name: 1 + width / 64 for width in widths for name in (f"64->{width}", f"{width}->64")},
        outside_ms=2.5,
        setting={"device": "a clock", "batch_size": 8, "sequence_length": 16, "dtype": "float32", "num_threads": 1}
        | setting,
        sizes=costs.latency_sizes(config),
    )


def as_record(table):
    return {"record": "latency_table", **vars(table), "versions": {}}


def test_a_childs_latency_is_the_sum_of_its_parts():
    config = supernet_config(STAGED)
    table = make_table(config)
    ms = table.operators_ms
    outside, into, out_of = 2.5, table.adapters_ms["64->96"], table.adapters_ms["96->64"]
    assert table.latency_ms(config, ("ffn@64", "conv3@64", "conv3@64", "skip")) == pytest.approx(
        outside + ms["ffn@64"] + 2 * ms["conv3@64"] + 0.25
    )
    assert table.latency_ms(config, ("ffn@96", "skip", "attention@64", "ffn@64")) == pytest.approx(
        outside + into + ms["ffn@96"] + 0.25 + out_of + ms["attention@64"] + ms["ffn@64"]
    )
    assert table.latency_ms(supernet_config(CHAIN), ("ffn", "skip", "skip")) == pytest.approx(
        outside + ms["ffn@64"] + 0.5
    )
    child = ("ffn@96", "skip", "attention@64", "ffn@64")
    assert costs.cost_function(config, latency=table)(child)["latency_ms"] == table.latency_ms(config, child)
    assert "latency_ms" not in costs.cost_function(config)(child)


@pytest.mark.parametrize("shape", ["chain", "staged", "narrow embeddings", "untied", "other sizes"])
def test_the_bert_beside_a_child_is_the_nearest_in_size(shape):
    """Against every other number of layers, counted on built models."""
    from hf_nasbert.modeling import NasBertForMaskedLM

    space, overrides = SHAPES[shape]
    config = supernet_config(space, **overrides)
    berts = {
        n: NasBertForMaskedLM(plain_config(config, ["attention", "ffn"] * n)).num_parameters() for n in range(1, 7)
    }
    rng = random.Random(0)
    children = [space.sample(rng) for _ in range(20)]
    wanted = [costs.num_parameters(config, child) for child in children] + [1, *(berts[4] + d for d in (-9, 9))]
    for size in wanted:
        bert, cost = costs.bert_beside(config, size, sequence_length=16)
        nearest = min(berts, key=lambda n: abs(berts[n] - size))
        assert bert == ("attention", "ffn") * nearest
        assert cost["num_parameters"] == berts[nearest]
        plain = plain_config(config, bert)
        assert cost == costs.cost_function(plain, sequence_length=16)(bert)


def test_the_bert_beside_a_child_has_a_latency_where_its_operators_were_measured():
    config = supernet_config(CHAIN)
    table = make_table(config)
    bert, cost = costs.bert_beside(config, 10**6, latency=table)
    layers = len(bert) / 2
    expected = 2.5 + layers * (table.operators_ms["attention@64"] + table.operators_ms["ffn@64"])
    assert cost["latency_ms"] == pytest.approx(expected)
    del table.operators_ms["ffn@64"]
    assert "latency_ms" not in costs.bert_beside(config, 10**6, latency=table)[1]
    with pytest.raises(ValueError, match="measured with vocab_size=101"):
        costs.bert_beside(supernet_config(CHAIN, vocab_size=102), 10**6, latency=make_table(config))


def test_what_a_table_does_not_hold_is_refused_by_name():
    config = supernet_config(STAGED)
    table = make_table(config)
    lacking = LatencyTable(**{**vars(table), "operators_ms": {"ffn@64": 1.0}, "adapters_ms": {"64->96": 1.0}})
    with pytest.raises(ValueError, match=r"8x16 tokens, float32, 1 thread.*lacks conv3@64: it has ffn@64"):
        lacking.latency_ms(config, ("ffn@64", "conv3@64", "ffn@64", "ffn@64"))
    with pytest.raises(ValueError, match="lacks ffn@32"):
        lacking.latency_ms(config, ("ffn@32", "ffn@32", "ffn@64", "ffn@64"))
    for name, other in {"ffn_ratio": 3, "embedding_size": 16, "vocab_size": 102, "num_conv_layers": 1}.items():
        with pytest.raises(ValueError, match=f"measured with {name}="):
            costs.cost_function(supernet_config(STAGED, **{name: other}), latency=table)
    costs.cost_function(supernet_config(STAGED, embedding_size=64), latency=table)  # the same, said otherwise


def test_tables_are_found_by_their_setting_and_never_interpolated(tmp_path):
    path = tmp_path / "latency.jsonl"
    config = supernet_config(CHAIN)
    records.append(path, {"record": "latency_check"})
    with pytest.raises(ValueError, match="no latency table"):
        LatencyTable.read(path)
    for batch_size, outside in ((1, 1.0), (8, 2.0), (8, 3.0)):
        table = make_table(config, batch_size=batch_size)
        records.append(path, as_record(table) | {"outside_ms": outside})
    assert LatencyTable.read(path, batch_size=8).outside_ms == 3.0  # the last that was measured so
    assert LatencyTable.read(path, batch_size=1, sequence_length=16, dtype=None).outside_ms == 1.0
    with pytest.raises(ValueError, match=r"several settings.*1x16 tokens.*8x16 tokens"):
        LatencyTable.read(path)
    with pytest.raises(ValueError, match=r"no table for \{'batch_size': 4\}.*interpolated.*1x16.*8x16"):
        LatencyTable.read(path, batch_size=4)
    with pytest.raises(FileNotFoundError):
        LatencyTable.read(tmp_path / "none.jsonl")


def test_peak_memory_by_hand():
    config = supernet_config(CHAIN)  # 64 wide
    unit = 64 * 2 * 16 * 4  # one hidden state of 2 sequences of 16 tokens

    def peak(*names, **changes):
        return peak_activation_bytes(supernet_config(CHAIN, **changes), names, 2, 16)

    # The first block's input is the embeddings' output; behind it both are held.
    assert peak("ffn", "skip", "skip") == 9 * unit
    assert peak("attention", "ffn", "skip") == peak("attention", "attention", "ffn") == 10 * unit
    assert peak("attention", "skip", "skip") == 5 * unit
    assert peak("attention", "conv3", "skip") == peak("attention", "attention", "conv7") == 6 * unit
    assert peak("conv3", "skip", "skip", num_conv_layers=1) == 4 * unit
    assert peak("ffn", "ffn", "skip", ffn_ratio=1) == 5 * unit
    assert peak("conv3", "skip", "skip", embedding_size=256) == 16 * unit
    assert peak_activation_bytes(config, ("ffn", "ffn", "ffn"), 2, 16, bytes_per_number=2) == 5 * unit
    assert peak_activation_bytes(config, ("ffn", "ffn", "ffn"), 6, 16) == 30 * unit
    wide = peak_activation_bytes(supernet_config(STAGED), ("ffn@96", "skip", "ffn@32", "skip"), 2, 16)
    assert wide == (1 + 1.5 * 9) * unit
    with pytest.raises(ValueError, match="sequence_length 0"):
        peak_activation_bytes(config, ("ffn", "ffn", "ffn"), 1, 0)


def test_of_equal_peaks_that_with_the_smaller_next_ones_orders_first():
    cost = costs.cost_function(supernet_config(CHAIN), sequence_length=16)
    order = costs.order_of(cost, "peak_activation_bytes")
    children = [("conv3", "ffn", "conv3"), ("ffn", "ffn", "conv3"), ("ffn", "ffn", "ffn")]
    assert len({cost(child)["peak_activation_bytes"] for child in children}) == 1
    assert all(order(child) < order(other) for child, other in pairwise(children))
    assert [order(child)[0] for child in children] == [cost(child)["peak_activation_bytes"] for child in children]
    assert type(cost(children[0])["peak_activation_bytes"]) is int, "a number like any other"
    assert costs.order_of(cost, "flops")(children[0]) == cost(children[0])["flops"]


def test_the_least_peak_is_found_where_a_stage_of_a_smaller_sum_hides_it():
    stages = (
        Stage(blocks=(("conv3",),), widths=(128,)),
        Stage(blocks=(("conv3",),) * 6, widths=(120, 128)),
        Stage(blocks=(("ffn", "conv3"),) * 2, widths=(128,)),
    )
    space = SearchSpace(stages)
    config = supernet_config(space, hidden_size=128, num_conv_layers=1)
    children = [*space.enumerate()]
    least = min(peak_activation_bytes(config, child) for child in children)
    found = cheapest(space, lambda child: costs.block_peaks(config, child))
    assert peak_activation_bytes(config, found) == least == 327_680


@pytest.mark.parametrize("space", [CHAIN, FREE, STAGED, UNEVEN], ids=["chain", "free", "staged", "uneven"])
@pytest.mark.parametrize("key", ["num_parameters", "flops", "peak_activation_bytes", "latency_ms"])
def test_the_cheapest_child_is_the_cheapest_of_all(space, key):
    config = supernet_config(space)
    cost = costs.cost_function(config, sequence_length=16, latency=make_table(config))
    least = min(cost(child)[key] for child in space.enumerate())
    assert cost(cheapest(space, costs.order_of(cost, key)))[key] == least


@pytest.mark.parametrize("space", [CHAIN, FREE, STAGED, UNEVEN], ids=["chain", "free", "staged", "uneven"])
def test_the_cheapest_child_under_any_additive_cost(space):
    # Odd tables, where deep can be cheaper than shallow and each block has its own favourite.
    for seed in range(6):
        rng = random.Random(seed)
        table = {(i, name): rng.uniform(-1, 1) for i, names in enumerate(space.blocks) for name in names}

        def cost(child, table=table):
            return sum(table[place] for place in enumerate(child))

        found = cheapest(space, cost)
        assert found in space
        assert cost(found) == pytest.approx(min(map(cost, space.enumerate())))


def test_the_cheapest_child_of_a_space_too_large_to_enumerate():
    operators = tuple(kind for kind in KINDS if kind != "norm")
    space = SearchSpace.staged(num_stages=4, blocks_per_stage=6, operators=operators, widths=(128, 192, 256, 384, 512))
    calls = []

    def cost(child):
        calls.append(child)
        return num_parameters(supernet_config_like(space), child)

    found = cheapest(space, cost)
    assert found == ("conv3@128", *["skip"] * 5) * 4
    assert len(calls) < 10_000


CAPS = {
    "num_parameters": "max_parameters",
    "flops": "max_flops",
    "latency_ms": "max_latency_ms",
    "peak_activation_bytes": "max_memory",
}


@st.composite
def small_spaces(draw):
    kinds = st.lists(st.sampled_from(("attention", "ffn", "conv3")), min_size=1, max_size=3, unique=True)

    def stage():
        blocks = [tuple(draw(kinds)) + ("skip",) * draw(st.integers(0, 1)) for _ in range(draw(st.integers(1, 3)))]
        widths = draw(st.sampled_from([(), (), (32,), (64, 32)]))
        return (Stage if widths or draw(st.booleans()) else FreeStage)(tuple(blocks), widths)

    return SearchSpace(tuple(stage() for _ in range(draw(st.integers(1, 2)))))


@settings(max_examples=200, deadline=None)
@given(small_spaces(), st.sets(st.sampled_from([*CAPS]), min_size=1), st.randoms(use_true_random=False))
def test_a_child_within_all_caps_is_found_wherever_there_is_one(space, capped, rng):
    # Made-up costs, small whole numbers and quarters, so that children tie; a stage's width costs something too.
    tables = {
        name: {(i, each): rng.randrange(1, 6) for i, names in enumerate(space.blocks) for each in names}
        for name in CAPS
    }
    of_width = {"": 0, "32": rng.randrange(9), "64": rng.randrange(9)}

    def cost(child):
        each = {name: [table[place] for place in enumerate(child)] for name, table in tables.items()}
        at_borders = sum(of_width[child[where.start].partition("@")[2]] for where in space.stage_slices)
        return {
            "num_parameters": sum(each["num_parameters"]) + at_borders,
            "flops": sum(each["flops"]) + 100,
            "latency_ms": sum(each["latency_ms"]) / 4,
            "peak_activation_bytes": max(3, *each["peak_activation_bytes"]),
        }

    table = tables["peak_activation_bytes"]
    cost.peaks = lambda child: sorted([3, *(table[place] for place in enumerate(child))], reverse=True)

    children = [*space.enumerate()]
    measured = [cost(child) for child in children]
    # Each cap is what some child costs, hence met; all of them at once, often by few children or by none.
    budget = Budget(**{CAPS[name]: rng.choice(measured)[name] for name in sorted(capped)})
    found = affordable(space, cost, budget)
    assert (found is not None) == any(map(budget.admits, measured))
    if found is not None:
        assert found in children
        assert budget.admits(cost(found))


def test_a_cap_met_to_the_last_digit_is_met_whatever_the_rounding():
    space = SearchSpace(tuple(Stage((("attention", "ffn"), ("conv3", "skip"))) for _ in range(4)))
    for seed in range(20):
        rng = random.Random(seed)
        times = {place: rng.random() for i, names in enumerate(space.blocks) for place in ((i, n) for n in names)}

        def cost(child, times=times):
            return {"latency_ms": sum(times[place] for place in enumerate(child))}

        least = min(cost(child)["latency_ms"] for child in space.enumerate())
        found = affordable(space, cost, Budget(max_latency_ms=least))
        assert found is not None, seed
        assert cost(found)["latency_ms"] == least


def test_an_operator_is_within_a_cap_on_memory_also_where_another_ones_peak_is_as_high():
    space = SearchSpace.chain(2, ("attention", "conv3", "ffn"))
    peaks = {"attention": (5, 1), "conv3": (3, 6), "ffn": (5, 3)}
    times = {"attention": (1, 4), "conv3": (1, 1), "ffn": (1, 1)}

    def cost(child):
        return {
            "latency_ms": sum(times[name][block] for block, name in enumerate(child)),
            "peak_activation_bytes": cost.peaks(child)[0],
        }

    cost.peaks = lambda child: sorted((peaks[name][block] for block, name in enumerate(child)), reverse=True)

    assert affordable(space, cost, Budget(max_latency_ms=2, max_memory=3)) == ("conv3", "ffn")


def supernet_config_like(space, cache={}):  # noqa: B006 one config for many calls
    if "config" not in cache:
        cache["config"] = supernet_config(space, hidden_size=512)
    return cache["config"]


def test_a_budget_admits_what_is_within_every_cap():
    budget = Budget(max_parameters=100, max_flops=2e9)
    assert budget.caps == {"num_parameters": 100, "flops": 2e9}
    assert budget.admits({"num_parameters": 100, "flops": 2e9, "latency_ms": 1e9})
    assert budget.why_not({"num_parameters": 100, "flops": 2e9}) is None
    assert not budget.admits({"num_parameters": 101, "flops": 1})
    assert "num_parameters is 1,234,567 and may be at most 100" in budget.why_not({"num_parameters": 1234567})
    assert "flops" in budget.why_not({"num_parameters": 1, "flops": math.nan})
    assert Budget(max_latency_ms=0.5).admits({"latency_ms": 0.5})
    assert not Budget(max_latency_ms=0.5).admits({"latency_ms": 0.51})
    assert Budget().admits({})
    with pytest.raises(ValueError, match=r"caps flops.*\['num_parameters'\]"):
        budget.admits({"num_parameters": 1})


@pytest.mark.parametrize("name", ["max_parameters", "max_flops", "max_latency_ms", "max_memory"])
@pytest.mark.parametrize("cap", [0, -1, math.nan, math.inf, "15M", True])
def test_nonsense_budgets_are_refused_by_name(name, cap):
    with pytest.raises(ValueError, match=name):
        Budget(**{name: cap})


def test_budgets_as_people_write_them():
    budget = Budget.parse(max_parameters="15M", max_flops="2.3G", max_latency="8", max_memory="64M")
    assert budget == Budget(15_000_000, 2_300_000_000, 8, 64_000_000)
    assert budget.caps["peak_activation_bytes"] == 64_000_000
    assert Budget.parse(max_parameters=None) == Budget()
    with pytest.raises(ValueError, match="max_flops"):
        Budget.parse(max_flops="0")
    with pytest.raises(TypeError, match="max_money"):
        Budget.parse(max_money="1G")


def test_shares_are_of_a_base_models_own_costs():
    budget = Budget.parse(max_latency_ms="0.5x", max_parameters=" .25 X", max_memory="64M", max_flops=Share(0.75))
    assert (budget.max_latency_ms, budget.max_parameters, budget.max_memory) == (Share(0.5), Share(0.25), 64_000_000)
    assert str(budget.max_latency_ms) == "0.5x"
    found = budget.of({"latency_ms": 30.0, "num_parameters": 1000, "flops": 8.0})
    assert found == Budget(max_latency_ms=15.0, max_parameters=250, max_memory=64_000_000, max_flops=6.0)
    assert found.of({}) == found
    with pytest.raises(ValueError, match=r"max_parameters is 0\.25x, but .* num_parameters was not measured"):
        budget.of({"latency_ms": 1.0})
    with pytest.raises(ValueError, match=r"max_parameters is 0\.25x, a share of a base model's cost, and there is no"):
        budget.admits({"latency_ms": 1.0})


@pytest.mark.parametrize("text", ["0x", "1x", "1.5x", "x", "-0.5x", "0.5xx", "50%x", "0.5 x x"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match=r"^max_latency='.*': expected ") as caught:
        Budget.parse(max_latency=text)
    assert "\n" not in str(caught.value)


def test_a_count_below_one_is_taken_for_a_share_that_lacks_its_x():
    with pytest.raises(ValueError, match=r"'0.5' is less than one; for a share of the base model's write .* 0.5x$"):
        Budget.parse(max_parameters="0.5")
    with pytest.raises(ValueError, match=r"max_flops=0.5 is less than one$|max_flops='0.5' is less than one$"):
        Budget.parse(max_flops=0.5, share_of=None)
    assert Budget.parse(max_latency=0.5).max_latency_ms == 0.5
    assert Budget.parse(max_parameters=np.int64(5)).max_parameters == 5


@pytest.mark.parametrize("text", ["12.5", "12.5ms", " 12.5 MS ", 12.5])
def test_a_latency_is_in_milliseconds(text):
    assert Budget.parse(max_latency=text) == Budget.parse(max_latency_ms=text) == Budget(max_latency_ms=12.5)
    assert parse_cap("budgets", text, is_latency=True) == 12.5


@pytest.mark.parametrize("text", ["12.5s", "12M", "ms", "12 m s", "0ms", "-1ms"])
def test_a_latency_has_no_other_unit(text):
    with pytest.raises(
        ValueError, match=r"expected milliseconds above 0 \(--max_latency 12\.5ms\) or a share of the base"
    ):
        Budget.parse(max_latency=text)


@pytest.mark.parametrize("given", ["12.5ms", "1e6", True, math.nan, -1, "9" * 5000])
def test_what_is_no_cap_is_told_with_what_is(given):
    with pytest.raises(ValueError, match=r"^max_flops='.*': expected a number above 0 \(--max_flops 15M\)$") as caught:
        Budget.parse(share_of=None, max_flops=given)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("share", ["0.5x", "1x", Share(0.00001)])
def test_a_share_of_nothing_is_refused_with_what_is_accepted(share):
    said = r"^max_parameters='.*x' is a share, and there is no model yet .*: expected a number above 0 \(--max_param"
    with pytest.raises(ValueError, match=said):
        Budget.parse(share_of=None, max_parameters=share)
    if share != "1x":
        assert Budget.parse(max_parameters=share).max_parameters in (Share(0.5), share)


@pytest.mark.parametrize("factor", [0, 1, 2.0, -1, math.nan, math.inf, "0.5", True, None])
def test_a_share_lies_between_nothing_and_all(factor):
    with pytest.raises(ValueError, match="is not a share"):
        Share(factor)


@pytest.mark.parametrize(
    ("text", "value"),
    [("15M", 15_000_000), ("2.5G", 2_500_000_000), ("1b", 10**9), (" 3 k ", 3000), ("7.5", 7.5), ("800_000", 800_000)],
)
def test_quantities(text, value):
    assert parse_quantity(text) == value
    assert type(parse_quantity(text)) is type(value)


@pytest.mark.parametrize("text", ["", "M", "15MB", "-3M", "nan", "inf", "1e6", "1,5", "15 M M", "0x10"])
def test_quantities_that_mean_nothing_are_refused(text):
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


def test_costs_need_neither_torch_nor_transformers():
    program = "import sys, hf_nasbert.costs; raise SystemExit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
