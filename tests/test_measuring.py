"""Measuring: with a clock that operators themselves advance the table is exact; estimated memory is the real one."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from tiny.clock import ADAPTERS, OUTSIDE, fake_time, seconds_of

from hf_nasbert import measuring, records
from hf_nasbert.costs import LatencyTable, cheapest, cost_function, peak_activation_bytes
from hf_nasbert.measuring import Device, check_memory, measure_latencies, peak_of_forward
from hf_nasbert.modeling import NasBertModel, SupernetConfig
from hf_nasbert.space import Architecture, SearchSpace, Stage

assert fake_time  # a fixture

KINDS = ("attention", "ffn", "conv3", "conv5", "skip")
SIZES = {"vocab_size": 50, "hidden_size": 32, "max_position_embeddings": 64}
CHAIN = SupernetConfig(search_space=SearchSpace.chain(3, KINDS), **SIZES)
STAGED = SupernetConfig(search_space=SearchSpace.staged(2, 2, KINDS, widths=(32, 64)), **SIZES)
CONFIGS = {"chain": CHAIN, "staged": STAGED}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_holds_what_the_clock_was_told_and_children_are_its_sums(fake_time, name):
    config = CONFIGS[name]
    table, check = measure_latencies(config, fake_time, num_visits=8, num_children=6, num_rounds=5)
    widths = (32,) if name == "chain" else (32, 64)
    assert table["operators_ms"] == {
        **{f"{kind}@{width}": 1000 * seconds_of(kind, width) for kind in KINDS[:-1] for width in widths},
        "skip": 1000 * seconds_of("skip", 32),
    }
    adapters = {f"{a}->{b}": 1000 * seconds for (a, b), seconds in ADAPTERS.items()}
    assert table["adapters_ms"] == ({} if name == "chain" else adapters)
    assert table["outside_ms"] == 1000 * OUTSIDE
    assert min(table["num_measured"].values()) >= 8
    assert table["setting"] == fake_time.setting
    assert len({child["architecture"] for child in check["children"]}) == 6
    assert check["mape_percent"] == check["repeat_mape_percent"] == 0
    assert check["spearman"] == check["repeat_spearman"] == pytest.approx(1)
    assert check["num_measured"] == 10  # five visits, two timed runs in each
    read = LatencyTable.from_record(table)
    for child in check["children"]:
        architecture = Architecture.parse(child["architecture"])
        assert child["measured_latency_ms"] == read.latency_ms(config, architecture)


def test_both_sides_are_measured_by_turns(monkeypatch, fake_time):
    """A machine that slows down must hit operators and whole children alike."""
    log = []
    for owner, letter in ((measuring._Chain, "o"), (measuring._LoneBlock, "l")):
        run = owner.run
        monkeypatch.setattr(owner, "run", lambda *args, run=run, letter=letter: (log.append(letter), run(*args))[1])
    run = measuring._Children._run
    monkeypatch.setattr(measuring._Children, "_run", lambda *args: (log.append("c"), run(*args))[1])
    measure_latencies(CHAIN, fake_time, num_visits=20, num_children=4, num_rounds=4)
    halves = [log[: len(log) // 2], log[len(log) // 2 :]]
    for letter in "olc":
        first, second = (half.count(letter) for half in halves)
        assert 0.6 < first / second < 1.7, letter
    changes = sum(a != b for a, b in itertools.pairwise(log))
    assert changes > len(log) / 6
    assert log.count("o") == log.count("l")


def test_the_first_run_of_a_visit_does_not_count():
    runs = iter(["cold", "warm", "warm too"])
    assert measuring._timed(lambda: [next(runs)]) == ["warm", "warm too"]


def test_children_are_drawn_so_that_every_operator_comes_up():
    rare = SearchSpace.staged(4, 1, ("attention", "ffn", "conv3", "conv5"), widths=(32, 64, 96, 128))
    config = SupernetConfig(search_space=rare, **SIZES)
    device = Device(batch_size=1, sequence_length=4)
    table, _ = measure_latencies(config, device, num_visits=2, num_children=2, num_rounds=1)
    assert len(table["operators_ms"]) == 16
    assert len(table["adapters_ms"]) == 6
    # Drawn blindly, the rarest of so many would come up last by far.
    counts = [table["num_measured"][key] for key in table["operators_ms"]]
    assert max(counts) <= 5 * min(counts)


def test_measuring_leaves_threads_and_gradients_alone():
    before = torch.get_num_threads()
    device = Device(batch_size=1, sequence_length=4, num_threads=2)
    with device.running():
        assert torch.get_num_threads() == 2
        assert not torch.is_grad_enabled()
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_the_clock_follows_device_and_threads():
    assert Device(batch_size=1, sequence_length=4).setting["clock"] == "cpu"
    assert Device(batch_size=1, sequence_length=4, num_threads=2).setting["clock"] == "wall"
    assert Device(batch_size=1, sequence_length=4, clock="wall").setting["clock"] == "wall"
    with pytest.raises(ValueError, match="clock='wall'"):
        Device(batch_size=1, sequence_length=4, num_threads=2, clock="cpu")
    with pytest.raises(ValueError, match="clock='wall'"):
        Device(batch_size=1, sequence_length=4, device="cuda", clock="cpu")
    with pytest.raises(ValueError, match="at least 1"):
        Device(batch_size=0, sequence_length=4)
    with pytest.raises(ValueError, match="float31"):
        Device(batch_size=1, sequence_length=4, dtype="float31")


def test_requests_that_cannot_be_measured_are_refused():
    device = Device(batch_size=1, sequence_length=65)
    with pytest.raises(ValueError, match="64 positions"):
        measure_latencies(CHAIN, device)
    with pytest.raises(ValueError, match="num_visits"):
        measure_latencies(CHAIN, Device(batch_size=1, sequence_length=4), num_visits=0)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^device cuda: this torch sees no GPU"):
        Device(batch_size=1, sequence_length=4, device="cuda", clock="wall")


def test_runs_on_a_gpu_are_timed_by_events_of_its_stream(monkeypatch):
    """What is asked of torch.cuda; `test_gpu.py` runs it on one."""
    events = itertools.count()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.number = next(events)

        def elapsed_time(self, other):
            assert synchronised
            return 10.0 * (other.number - self.number)

    synchronised = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronised.append)
    stopwatch = measuring._Stopwatch(SimpleNamespace(device=torch.device("cuda")))
    for _ in range(3):
        stopwatch.mark()
    assert stopwatch.milliseconds() == [10.0, 10.0]
    stopwatch.mark()
    assert stopwatch.milliseconds() == []


MEMORY_SIZES = {"vocab_size": 50, "hidden_size": 64, "max_position_embeddings": 64}
UNEVEN = SearchSpace(
    (
        Stage(blocks=(("conv3",), ("attention", "skip")), widths=(192,)),
        Stage(blocks=(("attention", "conv5"), ("conv3", "skip")), widths=(32,)),
        Stage(blocks=(("attention", "conv5", "ffn"), ("conv3", "skip"))),
    )
)
MEMORY = {
    **{name: (SearchSpace.chain(1, (name,)), {}) for name in ("attention", "ffn", "conv3")},
    "two": (SearchSpace.chain(2, ("attention", "ffn", "conv3")), {}),
    "staged": (SearchSpace.staged(2, 2, ("attention", "ffn", "conv5", "skip"), widths=(32, 128)), {}),
    "uneven": (UNEVEN, {}),
    "one sub-layer": (SearchSpace.chain(2, ("attention", "conv3")), {"num_conv_layers": 1}),
    "three sub-layers": (SearchSpace.chain(1, ("conv3",)), {"num_conv_layers": 3}),
    "narrow ffn": (SearchSpace.chain(2, ("ffn",)), {"ffn_ratio": 1}),
    "wide embeddings": (SearchSpace.chain(1, ("conv3", "attention")), {"embedding_size": 256}),
    "narrow embeddings": (SearchSpace.chain(1, ("conv3", "attention")), {"embedding_size": 16}),
}


@pytest.mark.parametrize("name", MEMORY)
def test_estimated_memory_is_the_real_peak(name):
    space, overrides = MEMORY[name]
    config = SupernetConfig(search_space=space, **{**MEMORY_SIZES, **overrides})
    device = Device(batch_size=16, sequence_length=64)
    check = check_memory(config, device, num_children=6)
    for child in check["children"]:
        estimate, real = child["expected_peak_activation_bytes"], child["measured_peak_activation_bytes"]
        assert real == pytest.approx(estimate, rel=0.03, abs=20_000), child["architecture"]
        assert real >= estimate


def test_the_check_of_memory_compares_what_was_measured():
    device = Device(batch_size=2, sequence_length=8, dtype="bfloat16")
    numbers = itertools.count(1)
    check = check_memory(CHAIN, device, num_children=5, measure=lambda model, inputs: next(numbers))
    assert [child["measured_peak_activation_bytes"] for child in check["children"]] == [1, 2, 3, 4, 5]
    for child in check["children"]:
        architecture = Architecture.parse(child["architecture"])
        assert child["expected_peak_activation_bytes"] == peak_activation_bytes(CHAIN, architecture, 2, 8, 2)
    constant = check_memory(CHAIN, device, num_children=3, measure=lambda model, inputs: 7)
    assert constant["spearman"] is None
    ffn = measuring._child(CHAIN, ["ffn", "ffn", "ffn"]).eval()
    assert isinstance(ffn, NasBertModel)
    with torch.no_grad():
        assert peak_of_forward(ffn, device.inputs(CHAIN)) > 0


def test_a_measured_table_serves_a_search(tmp_path, fake_time):
    table, _ = measure_latencies(CHAIN, fake_time, num_visits=3, num_children=2, num_rounds=1)
    records.append(tmp_path / "latency.jsonl", table)
    latency = LatencyTable.read(tmp_path / "latency.jsonl", batch_size=2)
    cost = cost_function(CHAIN, latency=latency)
    fastest = cheapest(CHAIN.space, lambda child: cost(child)["latency_ms"])
    assert str(fastest) == "conv3-skip-skip"
