"""The pages on compress say what the records of their benchmarks say, and these records have the shape they should."""

import importlib
import inspect
import json
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_nasbert import records
from hf_nasbert.export.int8 import quantise

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PAGE = (ROOT / "docs" / "appendix" / "compress.md").read_text(encoding="utf-8")


def script(name):
    return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


@pytest.fixture(scope="module")
def benchmark():
    return script("compress")


@pytest.fixture(scope="module")
def ours():
    return records.read(RECORDS / "compress.jsonl.gz")


def test_the_table_of_the_page_is_that_of_the_records(benchmark, ours):
    table = benchmark["as_table"](ours)
    assert table.count("\n") > 10
    assert table in PAGE


def test_the_short_page_says_what_the_tables_of_the_appendix_say(benchmark, ours):
    page = (ROOT / "docs" / "compress.md").read_text(encoding="utf-8")
    words = " ".join(page.split())
    short = benchmark["short_table"](ours)
    assert short in page
    kept = [line.split(" | ")[1].replace("%", " %") for line in short.splitlines()[2:]]
    made = records.read(RECORDS / "compress-files.jsonl.gz")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in benchmark["trimmed_table"](made).splitlines()
    ]
    (_, _, _, before, *_, own), (_, _, _, after, *_, trimmed) = cells[-2:]
    task = script("compress_task")["as_table"](records.read(RECORDS / "compress-task.jsonl.gz"))
    lines = [line for line in task.splitlines() if "| searched |" in line]
    shares = [line.split(" | ")[3].split(", ")[1].replace("%", " %") for line in lines]
    ratios = [float(one) for one in _int8_of_torch(benchmark["files_table"](made), next(iter(benchmark["WAYS"])))]
    for told in (
        f"MiniLM-L6 keeps {kept[0]} of its rank correlation on STS-B",
        f"At half of the latency it keeps {kept[1]} (aim: 98.5 %), and with a quarter of the parameters {kept[2]}",
        f"keeps {shares[0]} of its accuracy at half (aim: 99.3 %) and {shares[1]} at a quarter (aim: 98 %)",
        f"loses another {float(before) - float(after):.0f} MB of {float(before):.0f}",
        f"and {float(own) - float(trimmed):.4f} of the rank correlation",
        f"a quarter of the bytes and {100 * min(ratios):.0f} to {100 * max(ratios):.0f} % of torch's time",
    ):
        assert told in words


def _int8_of_torch(table, default):
    """The times of the command's int8 file, each as a share of torch's for the same model."""
    times = {}
    for line in table.splitlines()[2:]:
        model, way, *_, one, batch = (cell.strip() for cell in line.strip("|").split("|"))
        if way == "torch":
            times[model] = (float(one), float(batch))
        elif way in (default, "onnxruntime, int8"):
            yield from (float(own) / of_torch for own, of_torch in zip((one, batch), times[model], strict=True))


def test_the_page_shows_the_peers_once_they_are_recorded(benchmark, ours):
    made = RECORDS / "compress-peers.jsonl.gz"
    if made.exists():
        assert benchmark["peers_table"](ours, records.read(made)) in PAGE
    else:
        assert "No other package has been run beside it yet: `python benchmarks/compress.py peers`" in PAGE


def test_the_page_shows_what_int8_and_a_trimmed_vocabulary_keep(benchmark):
    made = records.read(RECORDS / "compress-files.jsonl.gz")
    trimmed, files, told = (benchmark[name](made) for name in ("trimmed_table", "files_table", "files_told"))
    assert [line.split("|")[1].strip() for line in trimmed.splitlines()[2:]] == [
        "base model", "half", "half, trimmed vocabulary"
    ]  # fmt: skip
    ways = [line.split("|")[2].strip() for line in files.splitlines()[2:]]
    assert ways == ["torch", "onnxruntime", *benchmark["WAYS"], "torch", "onnxruntime", "onnxruntime, int8"]
    assert all(one in PAGE for one in (trimmed, files, told))


def test_the_first_way_of_quantising_is_that_of_the_command(benchmark):
    way = next(iter(benchmark["WAYS"].values()))
    assert way == {name: inspect.signature(quantise).parameters[name].default for name in way}


class _Peer:
    """Stands for the package: writes one weight, and another one when it distils."""

    def __init__(self, output_dir):
        self.folder, self.layer_indices, self.hidden_dim, self.asked = Path(output_dir), None, 8, {}

    @classmethod
    def from_teacher(cls, key, *, output_dir):
        assert key == "base"
        return cls(output_dir)

    def create(self, *, no_prune):
        assert no_prune
        return self.write("student", 0.0)

    def compress(self, **asked):
        self.layer_indices = [0, 5]
        Path(self.folder, "compressed.json").write_text(json.dumps(asked))
        return self.write("student", 0.0)

    def write(self, name, value):
        (self.folder / name).mkdir(parents=True)
        save_file({"weight": torch.full((2,), value)}, self.folder / name / "model.safetensors")
        return str(self.folder / name)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """What runs in the peer's environment, beside a stand-in for the package."""
    made = script("easy_small_embedding_model")
    package, distilling, sizing = (types.ModuleType(f"smallmodel{name}") for name in ("", ".distill", ".sizing"))
    package.SmallModel, package.register_teacher = _Peer, lambda key, **told: None
    sizing.make_uniform_indices = lambda number, kept: [round(i * (number - 1) / (kept - 1)) for i in range(kept)]

    def distill(teacher, student, *, texts, epochs, batch_size, lr, device):
        assert (teacher, epochs, len(texts), device) == (str(tmp_path / "base"), 1, 4, "cpu")
        return _Peer(tmp_path).write("distilled", lr)

    distilling.distill = distill
    for module in (package, distilling, sizing):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1")
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    (tmp_path / "base").mkdir()
    sizes = {"hidden_size": 8, "num_hidden_layers": 6, "intermediate_size": 16, "vocab_size": 9}
    (tmp_path / "base" / "config.json").write_text(json.dumps(sizes))
    return made["make"]


def _asked(folder, way="layers", rate=0.5):
    return {
        "base_model": str(folder / "base"), "output_dir": str(folder), "way": way, "num_kept_layers": 3,
        "max_parameters": 1 << 20, "corpus": ["a"], "training": ["a", "b", "a", "b"], "batch_size": 2,
        "learning_rate": rate, "seed": 7,
    }  # fmt: skip


def test_a_peers_record_says_what_was_made_and_who_is_ahead(benchmark, ours, worker, tmp_path):
    asked = _asked(tmp_path)
    made = worker(asked)
    assert made["layers"] == [0, 2, 5]
    judged = {
        "num_encoder_parameters": 5323392, "num_parameters": 17389824, "judged": {"spearman": 0.7, "cosine": 0.8}
    }  # fmt: skip
    record = benchmark["peer_record"](asked, made, judged, 99)
    assert record["stage"] == "layers, learning rate 0.5, seed 7"
    content = record["content"]
    assert (content["num_steps"], content["num_tokens"], content["judged"]["spearman"]) == (2, 99, 0.7)
    assert content["package"] == "EasySmallEmbeddingModel==0.1.0"
    assert str(tmp_path) not in json.dumps(record)
    records.append(tmp_path / "peers.jsonl", record)  # plain JSON
    searched, peer = benchmark["peers_table"](ours, records.read(tmp_path / "peers.jsonl")).splitlines()[2:]
    assert "| 0.8111 0.8115 0.8119 | 0.8115, 98.9% |" in searched
    assert "layers 0 2 5, rate 0.5 | 0.7000 | 0.7000, 85.3% | 0.800 | 50.0% | 17.4 M |" in peer
    assert peer.endswith("| +0.1115 |")


def test_a_peer_chooses_within_our_size_by_itself(worker, tmp_path):
    assert worker(_asked(tmp_path, "compress"))["layers"] == [0, 5]
    asked = json.loads((tmp_path / "compressed.json").read_text())
    assert asked == {"max_params": 1 << 20, "max_fp32_mb": 4.0, "min_layers": 3}


def test_a_peer_that_trained_nothing_is_no_result(worker, tmp_path):
    with pytest.raises(RuntimeError, match="changed no weight"):
        worker(_asked(tmp_path, rate=0.0))


def _task_records(budget, seed, base, searched, layers):
    """The records of one run of benchmarks/compress_task.py, as `collect` writes them, in short."""
    run = f"{budget} seed {seed}"

    def row(how, architecture, accuracy, parameters, against_base):
        metrics = {"accuracy": accuracy, "macro_f1": 0.1}
        return {
            "how": how, "architecture": architecture, "num_encoder_parameters": parameters,
            "judged": [{"metrics": metrics}], "against_base": against_base,
        }  # fmt: skip

    rows = [
        row("base model", "f", base, 100, None),
        row("searched", "s", searched, 49, [searched - base, 0.006]),
        row(f"layers 0 {seed}", f"l{seed}", layers, 50, [layers - base, 0.008 + seed / 1000]),
    ]
    seconds = {"costs": 1.0, "variants": 9.0, "by hand": 99.0, f"recovery s seed {seed}": 20.0 + seed}
    seconds |= {f"recovery l{seed} seed {seed}": 15.0, "proof": 70.0}
    content = {"proof": {"rows": rows}}
    return [
        {"run": run, "stage": stage, "cpu_seconds": own, "content": content.get(stage, {})}
        for stage, own in seconds.items()
    ]


def test_the_table_of_a_task_tells_means_differences_and_seconds():
    made = [*_task_records("0.5x", 2, 0.82, 0.82, 0.78), *_task_records("0.5x", 0, 0.84, 0.82, 0.80)]
    made.insert(0, {"run": "base", "stage": "seed 0", "seconds": 3.0, "metrics": {"accuracy": 0.84}})
    *_, base, searched, layers = script("compress_task")["as_table"](made).splitlines()
    assert base == "| 0.5x | base model | 0.8400 0.8200 | 0.8300, 100.0% |  | 100.0% |  |"
    assert searched == "| 0.5x | searched | 0.8200 0.8200 | 0.8200, 98.8% | -0.0100 (0.0060) | 49.0% | 10 · 21 |"
    assert layers == "| 0.5x | best layers | 0.8000 0.7800 | 0.7900, 95.2% | -0.0400 (0.0090) | 50.0% | 15 |"


def test_the_page_shows_the_task_once_it_is_recorded():
    made = RECORDS / "compress-task.jsonl.gz"
    if made.exists():
        assert script("compress_task")["as_table"](records.read(made)) in PAGE
    else:
        assert "The classifier has not been run to its end yet: `python benchmarks/compress_task.py run`" in PAGE


def _stage(name, cpu_seconds, peak_memory_mib):
    return {"stage": name, "cpu_seconds": cpu_seconds, "peak_memory_mib": peak_memory_mib}


def test_a_forecast_is_held_against_the_run_stage_by_stage():
    base_size = script("compress_base_size")
    made = [
        _stage("text", 0.1, 100),
        _stage("recovery a-b seed 0", 30.0, 900),
        _stage("recovery c seed 0", 60.0, 1000),
    ]
    foretold = [_stage("text", 9.0, 140), _stage("recovery (of 3)", 117.0, 720), _stage("folder", 1.0, 5000)]
    record = {"stages": made, "plan": {"stages": foretold}, "gates": "on"}
    *_, text, recovery, in_all = base_size["as_table"](record).splitlines()
    assert text == "| text | 0.00 | 0.15 |  |  | 100 | 140 | 1.40 | no |"
    assert recovery == "| recovery (of 2, estimated 3) | 1.50 | 1.95 | 1.30 | yes | 1,000 | 720 | 0.72 | yes |"
    assert in_all == "| in all | 1.50 | 2.10 | 1.40 | no | 1,000 | 720 | 0.72 | yes |"
    assert base_size["told"](record) == "Stages up to `recovery c seed 0`, with all checks on.\n"
    record = {"stages": [*made, _stage("folder", 1.0, 1)], "gates": "off"}
    assert "All stages" in base_size["told"](record)
    assert "switched off" in base_size["told"](record)


def test_what_the_base_size_benchmark_scales_down_is_still_there():
    base_size = script("compress_base_size")
    for module, values in base_size["SCALED"].items():
        found = importlib.import_module(f"hf_nasbert.compression.{module}")
        assert all(hasattr(found, name) for name in values), module


def test_the_page_shows_the_base_size_encoder_once_all_its_stages_are_recorded():
    base_size = script("compress_base_size")
    record = json.loads((RECORDS / "compress-base-size.json").read_text(encoding="utf-8"))
    if "plan" in record and record["stages"][-1]["stage"] == base_size["LAST"]:
        assert base_size["as_table"](record) in PAGE
        assert base_size["told"](record) in PAGE
    else:
        assert 'A base-size encoder (12 layers of 768) went through the stages up to "by hand"' in PAGE
