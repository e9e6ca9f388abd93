"""Training-free scores: released records in their format, and scores of untrained children."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.pretrain import initial_supernet

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "training_free.py"))
HEAD = "ID,GLUE Score,Synaptic Saliency,Number of Parameters"


def write(folder, models):
    """Made-up models in the released format: (GLUE, layers, hidden size, parameters)."""
    layer = {"operation_type": "SA", "operation_parameter": "SDP", "num_operation_heads": 2}
    entries = [
        {
            "id": number,
            "completed": True,
            "scores": {"cola": 1.0, "glue": glue},
            "hparams": {
                "model_hparam_overrides": {"hidden_size": size, "nas_config": {"encoder_layers": [layer] * depth}}
            },
        }
        for number, (glue, depth, size, _) in enumerate(models)
    ]
    (folder / "b.json").write_text(json.dumps(entries), encoding="utf-8")
    rows = [f"{number},{glue},{-number}.5,{count}" for number, (glue, _, _, count) in enumerate(models)]
    (folder / "r.csv").write_text("\n".join([HEAD, *rows]), encoding="utf-8")
    return folder / "b.json", folder / "r.csv"


def test_released_models_are_ranked_by_their_shape_and_by_released_scores(tmp_path):
    models = [(60.0, 2, 128, 5), (62.0, 2, 256, 6), (66.0, 4, 128, 9), (70.0, 4, 256, 8), (71.0, 4, 256, 7)]
    read = SCRIPT["read_nas_bench_bert"](*write(tmp_path, models))
    assert [(one.num_layers, one.hidden_size) for one in read] == [model[1:3] for model in models]
    lines = SCRIPT["table_of"](read).splitlines()[2:]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines)}
    # By hand: of 10 pairs 4 are tied in depth, 1 in depth and width, tau-b = 6 / sqrt(6 * 10) and 9 / sqrt(9 * 10).
    assert rows["number of layers"][0] == f"{6 / 60**0.5:.4f}"
    assert rows["layers, then hidden size"][0] == f"{9 / 90**0.5:.4f}"
    assert rows["Number of Parameters"] == ["0.4000", "0.6000", "-1.00"]
    assert rows["Synaptic Saliency"][0] == "-1.0000"
    assert "Synaptic" not in SCRIPT["table_of"](SCRIPT["read_nas_bench_bert"](tmp_path / "b.json"))


def test_depth_then_width_ranks_nas_bench_bert_and_parameters_do_not():
    """The shortened copy, which the page prints; 0.4544 is what the released files give, so that it is a true one."""
    models = SCRIPT["read_shortened"]()
    assert [one.number for one in models] == list(range(500))
    assert {(one.num_layers, one.hidden_size) for one in models} == {(2, 128), (2, 256), (4, 128), (4, 256)}
    table = SCRIPT["table_of"](models)
    assert "| Number of Parameters | 0.4544 |" in table
    assert "| layers, then hidden size | 0.8007 |" in table
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    assert f"<!-- table: nas-bench-bert -->\n{table}\n<!-- end -->" in page
    assert "CC BY 4.0" in SCRIPT["SHORTENED"].read_text(encoding="utf-8").splitlines()[0]


def test_other_files_are_refused(tmp_path):
    benchmark, results = write(tmp_path, [(60.0, 2, 128, 5), (62.0, 2, 256, 6)])
    results.write_text(results.read_text().replace("62.0", "63.0"))
    with pytest.raises(ValueError, match="is of other models than"):
        SCRIPT["read_nas_bench_bert"](benchmark, results)
    benchmark.write_text('[{"id": 1}]')
    with pytest.raises(ValueError, match="an entry lacks 'hparams'"):
        SCRIPT["read_nas_bench_bert"](benchmark)


def test_scores_of_an_untrained_child_are_what_their_words_say():
    space = SearchSpace.chain(2, ("attention", "ffn", "conv3"))
    supernet = initial_supernet(SupernetConfig(search_space=space, hidden_size=32, vocab_size=50), 0).eval()
    tokens = torch.arange(24).reshape(2, 12) + 5
    batch = {"input_ids": tokens, "labels": tokens}
    with_heads = SCRIPT["scores_of"](supernet, ("attention", "ffn"), batch, 1000.0)
    without = SCRIPT["scores_of"](supernet, ("conv3", "ffn"), batch, 1000.0)
    assert with_heads["head confidence"] > 0 == without["head confidence"]
    assert with_heads["W-PCA"] % 1000 == 0
    assert 2 * 1000 <= with_heads["W-PCA"] <= 2 * 23 * 1000  # 24 tokens have at most 23 directions around their mean
    blocks = supernet.nasbert.encoder.blocks
    supernet.zero_grad()
    supernet(**batch, architecture=("conv3", "ffn")).loss.backward()
    used = [
        p for b, n in zip(blocks, ("conv3", "ffn"), strict=True) for p in b.operators.parameters_of(n) if p.dim() > 1
    ]
    assert without["synaptic saliency"] == pytest.approx(sum(float((p * p.grad).detach().abs().sum()) for p in used))
    assert not supernet.nasbert.encoder.blocks[0]._forward_hooks
