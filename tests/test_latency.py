"""The latency recipe: from a super-net's folder to a table on file that a search can read."""

import pytest
import torch

from hf_nasbert import records
from hf_nasbert.costs import Budget, LatencyTable, cost_function
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline import LatencyArguments, measure_latency
from hf_nasbert.pipeline.latency import as_text
from hf_nasbert.space import SearchSpace


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    space = SearchSpace.staged(2, 1, ("attention", "conv3"), widths=(32, 64))
    config = SupernetConfig(search_space=space, vocab_size=50, hidden_size=32, max_position_embeddings=16)
    SupernetForMaskedLM(config).save_pretrained(tmp_path / "supernet")
    return tmp_path / "supernet"


def test_a_table_is_measured_checked_written_and_read(folder, tmp_path, capfd):
    output = tmp_path / "latency.jsonl"
    arguments = LatencyArguments(
        supernet=str(folder),
        output=str(output),
        batch_size=2,
        max_seq_length=8,
        num_visits=2,
        num_children=4,
        num_rounds=2,
    )
    measured = measure_latency(arguments)
    assert records.read(output) == measured
    assert [record["record"] for record in measured] == ["latency_table", "latency_check", "memory_check"]
    config = SupernetConfig.from_pretrained(folder)
    latency = LatencyTable.read(output, batch_size=2, sequence_length=8, num_threads=1)
    costs = cost_function(config, latency=latency)(config.space.child_at(0))
    assert costs["latency_ms"] > 0
    assert Budget(max_latency_ms=costs["latency_ms"]).admits(costs)
    text = as_text(measured)
    for word in ("attention@64", "32->64", "all else", "2 x 8 tokens, float32, 1 thread(s), cpu clock", "MAPE"):
        assert word in text
    assert f"MAPE {measured[1]['mape_percent']:.1f} %, Spearman {measured[1]['spearman']:.3f}" in text
    repeated = f"halves of their own measurements: MAPE {measured[1]['repeat_mape_percent']:.1f} %, Spearman "
    assert f"{repeated}{measured[1]['repeat_spearman']:.3f}" in text
    constant = {**measured[2], "spearman": None}
    assert "all children alike" in as_text([*measured[:2], constant])
    # Another batch is another table in the same file: which one, has to be said.
    records.append(output, {**measured[0], "setting": {**measured[0]["setting"], "batch_size": 1}})
    with pytest.raises(ValueError, match="several settings"):
        LatencyTable.read(output)


def test_bad_requests_are_refused_by_name(folder, tmp_path):
    output = str(tmp_path / "latency.jsonl")
    for name in ("num_visits", "num_rounds", "num_children"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            LatencyArguments(supernet=str(folder), output=output, **{name: 0})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        measure_latency(LatencyArguments(supernet=str(tmp_path / "none"), output=output))
    with pytest.raises(ValueError, match="not a super-net"):
        measure_latency(LatencyArguments(supernet=str(tmp_path), output=output))
    with pytest.raises(ValueError, match="16 positions"):
        measure_latency(LatencyArguments(supernet=str(folder), output=output))
