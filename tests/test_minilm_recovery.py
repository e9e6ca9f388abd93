"""A searched child beside what is chosen by hand, at more tokens: on a tiny base model, called again, from records."""

import dataclasses
import shutil

import pytest
from tiny.bases import documents
from tiny.minilm import benchmark, prepare_tiny
from tiny.processes import kill_behind

from hf_nasbert import records
from hf_nasbert.elastic.encoders import does_bf16_pay


@pytest.fixture(scope="module")
def bench():
    with benchmark("minilm_recovery") as module:
        yield module


def test_jobs_of_one_model_follow_each_other_and_the_plan_counts_them(bench, tmp_path):
    jobs = bench.all_jobs()
    assert len(jobs) == len(set(jobs)) == 3 * 3 * 2 * 3 * 3
    assert [job.task for job in jobs[:3]] == ["", "rotten_tomatoes", "brown"]
    assert [(job.seed, job.factor) for job in jobs] == sorted((job.seed, job.factor) for job in jobs)
    assert len({job.model for job in jobs}) == len(jobs) / 3
    assert next(iter(bench.plan_lines(tmp_path))).startswith(
        "1 times the tokens: 18 recoveries 0.2 CPU-hours, 36 fine-"
    )


def test_the_command_plan_prints_the_cost_and_prepares_nothing(bench, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    monkeypatch.setattr("sys.argv", ["minilm_recovery.py", "plan", "--records", str(tmp_path), "--work", str(work)])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert not ended.value.code
    assert capsys.readouterr().out.splitlines() == list(bench.plan_lines(tmp_path))
    assert not work.exists()


def test_shares_have_every_job_once_and_keep_a_model_together(bench, tmp_path, monkeypatch):
    seen = []
    for name in ("recover", "fine_tune"):
        monkeypatch.setattr(bench.Study, name, lambda self, job: seen.append(job))
    monkeypatch.setattr(bench, "compress_table", lambda path: None)
    shares = []
    for share in ((0, 2), (1, 2)):
        bench.Study(None, None, tmp_path).work(share=share)
        shares.append({job.model for job in seen} - {model for other in shares for model in other})
    assert sorted(seen) == sorted(bench.all_jobs())
    assert [len(models) for models in shares] == [27, 27]


def told(file):
    """What every run of the same job tells, in order."""
    return [
        (row["kind"], row["model"].split("/")[-1], row["metrics"])
        if row["kind"] == "finetune"
        else (row["kind"], row["way"], row["factor"], row["judged"], row["num_tokens"])
        for row in records.read(file)
    ]


@pytest.mark.slow
def test_a_small_study_goes_on_and_tells_what_came_out(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = documents(60)
    for name in ("train", "validation", "test"):
        rows = [f"{text},{'good' if number % 2 else 'bad'}" for number, text in enumerate(lines[:24])]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    pairs = [
        f"{one},{other},{number % 5}" for number, (one, other) in enumerate(zip(lines[:20], lines[20:], strict=False))
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(["sentence1,sentence2,score", *pairs]))
    files = {f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    own = {**files, "max_seq_length": 16, "max_steps": 2, "cache_dir": str(tmp_path / "cache")}
    task = tmp_path.name
    monkeypatch.setitem(bench.TASKS, task, bench.TASKS["rotten_tomatoes"].__class__("accuracy", own))
    for name, value in {"TUNED": (task,), "BUDGETS": (0.6,), "FACTORS": (1, 4), "NUM_CHOICES": 12}.items():
        monkeypatch.setattr(bench, name, value)
    study = bench.Study(
        prepare_tiny(tmp_path, num_documents=700), str(tmp_path / "pairs.csv"), tmp_path / "records",
        num_steps=6, factors=(1, 4), budgets=(0.6,), seeds=(0,), tuned=(task,),
    )  # fmt: skip
    assert study.work(limit=2) == 2
    shutil.rmtree(study.folder)  # what is fine-tuned is recovered again
    first = study.file.read_bytes()
    assert study.work() == 2 * 3 * 2 - 2
    assert study.file.read_bytes().startswith(first)
    assert study.work() == 0
    found = records.read(study.file)
    assert not any(str(tmp_path) in str(one["model"]) for one in found if one["kind"] == "finetune")
    recovered = [one for one in found if one["kind"] == "recovery"]
    assert len(recovered) == 6
    bf16 = [one.get("bf16", one.get("settings", {}).get("bf16")) for one in found]
    assert bf16 == [does_bf16_pay()] * len(found)
    assert all(one["share"] <= 0.61 for one in recovered)
    loss = {(one["way"], one["factor"]): one["judged"]["loss"] for one in recovered}
    assert all(loss[way, 4] < loss[way, 1] for way in bench.WAYS)
    shutil.rmtree(study.folder)
    again = dataclasses.replace(study, records=tmp_path / "killed", factors=(1,))
    for number in (0, 1, 2):  # killed while a child is recovered, and while one is fine-tuned
        kill_behind(again.work, (), lambda: len(bench.rows_of(again.file)), number, 0.2 * (1 + number))
    again.work()
    assert told(again.file) == told(study.file)[: 2 * len(bench.WAYS)]
    monkeypatch.setattr(bench, "SHAPES", ((1, 8),))
    study.time_children()
    text = "\n".join(bench.recovery_lines(tmp_path / "records"))
    assert "| 60% | searched | " in text
    gained = next(line for line in text.splitlines() if line.startswith("| 60% | 4 | 1 | "))
    assert gained.count("(best layers)") + gained.count("(uniform width)") == 2
    assert "| child | budget | ms torch, 1x8 | ms onnxruntime, 1x8 | ms onnxruntime, int8, 1x8 |" in text
    timed = [one for one in records.read(study.file) if one["kind"] == "latency"][-1]["children"]
    assert len(timed) == 1 + len(bench.WAYS)
    assert all(len(row["milliseconds"]) == 3 and min(row["milliseconds"].values()) > 0 for row in timed)
    assert "| base model | 100% | " in text
