"""The downstream study: resumable, equal treatment of all models, a page that its records say."""

import runpy
import shutil
from pathlib import Path

import datasets
import pytest
import torch

from hf_nasbert import records

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def module():
    return runpy.run_path(str(ROOT / "benchmarks" / "downstream.py"))


def test_the_page_is_what_the_records_say(module):
    page = (ROOT / "docs" / "appendix" / "downstream.md").read_text(encoding="utf-8")
    for name, table in module["tables"](module["read"](module["RECORDS"]), module["TASKS"]).items():
        assert f"<!-- table: {name} -->\n{table}\n<!-- end -->" in page


def test_all_models_of_a_comparison_were_treated_alike(module):
    """Of the committed records: the same batches, steps and settings for all, whatever else changed meanwhile."""
    found = module["read"](module["RECORDS"])
    for kind in ("pretrain_child", "finetune"):
        for task in {record.get("task") for record in found if record["kind"] == kind}:
            settings = [r["settings"] | {"model": None} for r in found if r["kind"] == kind and r.get("task") == task]
            assert all(one == settings[0] for one in settings), (kind, task)


@pytest.mark.slow
def test_a_small_study_is_killed_goes_on_and_makes_its_tables(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    words = "the film was good and we liked it bad story no plot at all".split()
    lines = [
        " ".join(words[(row * 7 + place * (row % 5 + 1)) % len(words)] for place in range(40)) for row in range(400)
    ]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    for name in ("train", "validation"):
        rows = [f"{lines[row][:60]},{'good' if row % 2 else 'bad'}" for row in range(24)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    files = {f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    task = module["Task"]("accuracy", {**files, "max_seq_length": 16, "max_steps": 2})
    study = module["Study"](
        folder=tmp_path / "runs",
        records=tmp_path / "downstream.jsonl",
        text={"train_files": [str(tmp_path / "text.txt")], "vocab_size": 120, "validation_fraction": 0.2},
        supernet={"max_steps": 3, "per_device_train_batch_size": 4, "num_eval_batches": 1},
        search={"num_evaluations": 8, "num_dev_batches": 1, "dev_batch_size": 4},
        share=0.5,
        pretraining={"max_steps": 2, "batch_size": 4, "num_dev_batches": 1, "dev_batch_size": 4},
        sequence_length=32,
        finetuning={"learning_rate": 1e-3, "cache_dir": str(tmp_path / "cache")},
        tasks={tmp_path.name: task},
        seeds=(0, 1),
    )
    run, tables = module["run"], module["tables"]
    assert run(study, limit=3) == 3
    # A fresh checkout has the compressed records and no weights: what is needed is made again, and no super-net.
    study.records.unlink()
    shutil.rmtree(study.folder)
    assert run(study) == 2 + 2 + 2 * 4
    assert not (study.folder / "supernet").exists()
    shutil.rmtree(study.folder)
    assert run(study) == 0, "nothing is missing, so nothing is made again"
    found = records.read(study.records)
    kinds = [record["kind"] for record in found]
    assert kinds == ["choice"] * 2 + ["pretrain_child"] * 2 + ["pretrain_child"] * 4 + ["finetune"] * 8
    assert [record["dev_loss_after"] for record in found[2:4]] == [record["dev_loss_after"] for record in found[4:6]]
    del found[2:4]
    for record in found[:2]:
        assert record["num_parameters"] <= record["bert_parameters"]
    sizes = {Path(record["model"]).name: record["num_parameters"] for record in found[2:6]}
    assert sizes["bert-small"] < sizes["bert-large"]
    assert sizes["child-small"] <= sizes["bert-small"]
    assert all(r["settings"] | {"model": 0} == found[2]["settings"] | {"model": 0} for r in found[2:6])
    made = tables(found, study.tasks)
    assert made["models"].count("\n") == 1 + 4
    (row,) = made["results"].splitlines()[2:]
    accuracies = [r["metrics"]["validation"]["accuracy"] for r in found[6:] if Path(r["model"]).name == "child-small"]
    assert len(accuracies) == 2
    assert f"| {sum(accuracies) / 2:.3f} ± " in row
