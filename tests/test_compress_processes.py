"""`hf-nasbert compress` in several processes: the results of one, also where one of them dies."""

import hashlib
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from tiny.bases import documents, save_base
from tiny.compress import batches, elastic, full_child, targets
from tiny.processes import launch

import hf_nasbert
from hf_nasbert import processes, records
from hf_nasbert.compression import materials, run
from hf_nasbert.compression.local import distil_blocks
from hf_nasbert.compression.recover import (
    RecoverySettings,
    _loss_of,
    _own_share,
    _Run,
    _Share,
    distil_supernet,
)
from hf_nasbert.elastic import refit
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.importance import importance
from hf_nasbert.processes import share_out

SETTINGS = {
    "recovery_steps": 12, "learning_rate": 1e-4, "batch_size": 16, "num_sentences": 320, "max_seq_length": 16,
    "latency_shape": "2x16", "num_rescored": 3, "max_parameters": "0.5x", "warmup_steps": 4,
}  # fmt: skip


def one_of(count, index):
    return SimpleNamespace(num_processes=count, process_index=index, is_main_process=index == 0)


def distance_from(wanted, **settings):
    return Distance(torch.cat([target.states for target in wanted]).mean(0), **settings)


@pytest.mark.parametrize("num_rows", [None, "sequences", "tokens"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_shares_of_a_batch_add_up_to_its_distance(count, num_rows, monkeypatch):
    """Where there are more processes than sequences too."""
    child, (batch, other) = elastic(), batches()
    wanted = targets(full_child(), [batch, other])
    distance = distance_from(wanted, logit_weight=0.0 if num_rows is None else 1.0)
    target, mask = wanted[0], batch["attention_mask"].bool()
    if num_rows is not None:
        rows = len(mask) if num_rows == "sequences" else int(mask.sum())
        target = Target(target.states, torch.randn(rows, 3))

        def logits_of(model, states, mask):
            return (states[:, 0] if num_rows == "sequences" else states[mask])[:, :3]

        monkeypatch.setattr("hf_nasbert.compression.recover.logits_of", logits_of)
    options = RecoverySettings(), 0.0, {"architecture": ("attention1", "ffn32", "attention", "ffn", "skip", "ffn16")}
    whole = _loss_of(child, _Share(batch, target), distance, *options)
    parts = [
        _loss_of(child, _own_share(batch, target, distance, one_of(count, index)), distance, *options)
        for index in range(count)
    ]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_a_job_that_fails_ends_all_processes_behind_their_own_jobs(monkeypatch):
    done, told = [], []

    def fail():
        raise ValueError("no room")

    def gather(said):
        told.extend(said)
        return [None, "ValueError: no room"]

    monkeypatch.setattr(processes, "gather_object", gather)
    jobs = [lambda: done.append(0), fail, lambda: done.append(2)]
    with pytest.raises(ValueError, match="no room"):
        share_out(one_of(2, 1), jobs)
    with pytest.raises(RuntimeError, match="another process failed: ValueError: no room"):
        share_out(one_of(2, 0), jobs)
    assert done == [0, 2]
    assert told == ["ValueError: no room", None]


def distil_and_measure(folder):
    """One of several processes: a super-net distilled, importances, and variants warmed up; which blocks it did."""
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    supernet, own = elastic(), batches(lengths=[(20, 19, 18, 20, 7)] * 3)
    wanted = targets(full_child(), own)
    settings = RecoverySettings(num_steps=6, learning_rate=1e-3, save_steps=2)
    done = distil_supernet(
        supernet, supernet.space, own, wanted, distance_from(wanted), settings, held_out=(own, wanted),
        output_dir=folder, processes=state,
    )  # fmt: skip
    weights = torch.cat([parameter.detach().flatten() for parameter in supernet.parameters()])
    scores, made, write = importance(full_child(), own, processes=state), [], refit.write_fitted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refit, "write_fitted", lambda path, *given: (made.append(path.name), write(path, *given)))
        start = elastic()
        errors = distil_blocks(start, own, num_steps=4, kept_in=folder / "warm-up", processes=state)
    warm = torch.cat([parameter.detach().flatten() for parameter in start.parameters()])
    return done.losses, done.before, done.after, weights.tolist(), scores, errors, warm.tolist(), made


@pytest.mark.slow
def test_processes_distil_one_super_net_and_share_out_importances_and_the_warm_up(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    [one] = launch(distil_and_measure, 1, tmp_path / "1", timeout=300)
    two = launch(distil_and_measure, 2, tmp_path / "2", timeout=300)
    assert not any(isinstance(seen, str | int) for seen in (one, *two)), (one, two)
    assert two[0][3] == two[1][3]  # to the bit, among each other
    for number in (4, 5, 6):
        assert one[number] == two[0][number] == two[1][number]
    assert sorted(two[0][7] + two[1][7]) == one[7]
    assert len(two[0][7]) == len(two[1][7]) == 3
    for number in range(3):
        assert two[0][number] == pytest.approx(one[number], rel=1e-5)
    assert torch.allclose(torch.tensor(one[3]), torch.tensor(two[0][3]), atol=1e-4)


def distil_until_one_hears(folder):
    """One of several processes; the second is asked to stop in its third step."""
    state, supernet, own = PartialState(cpu=True), elastic(), batches()
    wanted = targets(full_child(), own)
    step, steps = _Run.step, []

    def asked(self, loss, **options):
        steps.append(None)
        if state.process_index == 1 and len(steps) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        step(self, loss, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "step", asked)
        try:
            distil_supernet(
                supernet, supernet.space, own, wanted, distance_from(wanted),
                RecoverySettings(num_steps=6, learning_rate=1e-3, save_steps=100), held_out=(own, wanted),
                output_dir=folder, processes=state,
            )  # fmt: skip
        except SystemExit as left:
            return left.code, len(steps)


@pytest.mark.slow
def test_any_process_that_is_asked_to_stop_stops_all_behind_the_same_step(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert launch(distil_until_one_hears, 2, tmp_path / "run", timeout=200) == [(0, 3)] * 2
    assert [folder.name for folder in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]


def compress_as_one_of_many(base, folder, dies):
    """One of several processes; with `dies` the second one does, in its first recovery."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_side_by_side", lambda config, children, *_: [float(len(set(c))) for c in children])
        patch.setattr(run, "does_bf16_pay", lambda device: False)
        if dies and os.environ["RANK"] == "1":
            patch.setattr(materials.Materials, "recover", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        result = hf_nasbert.compress(base, documents(), output_dir=folder, **SETTINGS)
    return [(stage["stage"], stage["content"]) for stage in result.stages]


@pytest.mark.slow
def test_processes_make_the_bits_of_one_and_go_on_where_one_died(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    base = save_base(tmp_path / "base")
    [one] = launch(compress_as_one_of_many, 1, base, tmp_path / "one", False, timeout=600)
    two = launch(compress_as_one_of_many, 2, base, tmp_path / "two", False, timeout=600)
    assert [type(seen) for seen in (one, *two)] == [list] * 3, (one, two)
    assert two[0] == two[1] == one
    start = time.monotonic()
    first, second = launch(compress_as_one_of_many, 2, base, tmp_path / "died", True, timeout=600)
    assert second == -signal.SIGKILL
    assert isinstance(first, str)
    assert first != "hung", f"it waits after {time.monotonic() - start:.0f} s"
    stages = [record["stage"] for record in records.read(tmp_path / "died" / "stages.jsonl")]
    assert any(name.startswith("recovery") for name in stages), "the other's own recoveries are kept"
    [again] = launch(compress_as_one_of_many, 1, base, tmp_path / "died", False, timeout=600)
    assert again == one
    digests = {
        hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("one", "two", "died")
    }
    assert len(digests) == 1
