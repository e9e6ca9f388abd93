"""The farm: each child once, whatever is killed when; the same seed, the same record; strange records refused."""

import dataclasses
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny.farm import JOBS, RECIPE, SPACE, FakeTrainer, record_of, without_timing
from tiny.processes import forked, with_a_fork_server_of_its_own
from tiny.texts import save_tokenizer_with_padding_at_one, text_arguments

from hf_nasbert import records
from hf_nasbert.costs import num_parameters
from hf_nasbert.data import load_corpus
from hf_nasbert.records import Record
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.stopping import STOP_SIGNALS
from hf_nasbert.training.farm import (
    FarmArguments,
    compress_table,
    plan_jobs,
    read_table,
    restore_table,
    run_farm,
    train_children,
)
from hf_nasbert.training.standalone import StandaloneArguments, StandaloneTrainer, _child_config


def keys(path: Path) -> Counter:
    return Counter((record["architecture"], record["seed"]) for record in records.read(path))


ALL_ONCE = Counter((str(job.architecture), job.seed) for job in JOBS)


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class TestFarm:
    @pytest.mark.slow
    def test_trains_every_child_once_and_goes_on_where_it_stopped(self, tmp_path):
        path = tmp_path / "table.jsonl"
        run_farm(FakeTrainer(), JOBS[:4], path, num_workers=2)
        first = path.read_bytes()
        # Repeated jobs count once, those that are done not at all.
        table = run_farm(FakeTrainer(), [*JOBS[5:], *JOBS], path, num_workers=2)
        assert path.read_bytes().startswith(first)
        assert keys(path) == ALL_ONCE
        assert set(table) == set(JOBS)
        assert table[JOBS[3]]["dev_loss"] == 5.0 + JOBS[3].seed

    @pytest.mark.slow
    def test_keeps_the_order_of_the_jobs(self, tmp_path):
        path = tmp_path / "table.jsonl"
        jobs = random.Random(0).sample(JOBS, 8)
        run_farm(FakeTrainer(0), jobs, path)
        assert [(record["architecture"], record["seed"]) for record in records.read(path)] == [
            (str(child), seed) for child, seed in jobs
        ]

    @pytest.mark.slow
    def test_a_killed_worker_loses_no_other_child_and_doubles_none(self, tmp_path):
        path = tmp_path / "table.jsonl"
        farm = threading.Thread(target=run_farm, args=(FakeTrainer(0.03), JOBS, path), kwargs={"num_workers": 2})
        farm.start()
        rng = random.Random(0)
        for num_done in (1, 5, 9, 13):
            wait_until(lambda number=num_done: path.exists() and len(path.read_bytes().splitlines()) >= number)
            time.sleep(rng.random() * 0.1)
            workers = multiprocessing.active_children()
            if workers:
                os.kill(rng.choice(workers).pid, signal.SIGKILL)
        farm.join(timeout=60)
        assert not farm.is_alive()
        assert keys(path) == ALL_ONCE

    @pytest.mark.slow
    def test_two_farms_share_a_file(self, tmp_path):
        path = tmp_path / "table.jsonl"
        farms = [
            threading.Thread(target=run_farm, args=(FakeTrainer(), jobs, path), kwargs={"num_workers": 2})
            for jobs in (JOBS, JOBS[::-1])
        ]
        for farm in farms:
            farm.start()
        for farm in farms:
            farm.join(timeout=60)
            assert not farm.is_alive()
        assert keys(path) == ALL_ONCE

    def test_ranks_share_the_jobs_without_overlap(self, tmp_path):
        shares = []
        for rank in range(3):
            path = tmp_path / f"rank{rank}.jsonl"  # as on machines without a common file system
            run_farm(FakeTrainer(0), JOBS, path, rank=rank, num_ranks=3)
            shares.append(keys(path))
        assert sum(shares, Counter()) == ALL_ONCE
        assert min(len(share) for share in shares) == len(JOBS) // 3

    def test_a_child_that_cannot_be_trained_ends_the_farm_by_name(self, tmp_path):
        path = tmp_path / "table.jsonl"
        with pytest.raises(ChildProcessError, match="3 workers died in a row"):
            run_farm(FakeTrainer(0, fail_on=str(JOBS[4].architecture)), JOBS, path)
        assert len(records.read(path)) == 4

    def test_refuses_a_job_of_another_space(self, tmp_path):
        with pytest.raises(ValueError, match="conv7"):
            run_farm(FakeTrainer(), [(("conv7", "ffn", "ffn"), 0)], tmp_path / "table.jsonl")


def farm_that_says(path, writer):
    """A farm in a fork: whatever it and its workers say goes into a pipe."""
    os.dup2(writer, 2)
    os.close(writer)
    with_a_fork_server_of_its_own(run_farm, FakeTrainer(0.1), JOBS, path, num_workers=2)


@pytest.mark.slow
def test_a_killed_farm_leaves_no_worker_and_goes_on(tmp_path):
    """Kill the parent at random moments: its fork server takes some seconds to start each time."""
    path = tmp_path / "table.jsonl"
    rng = random.Random(0)
    for num_done in (2, 8):
        reader, writer = os.pipe()
        farm = forked(farm_that_says, path, writer)
        os.close(writer)
        wait_until(lambda number=num_done: path.exists() and len(path.read_bytes().splitlines()) >= number, 120)
        time.sleep(rng.random())
        farm.kill()
        farm.join()
        # The workers hold the pipe too: it ends when the last of them is gone.
        with os.fdopen(reader) as pipe, ThreadPoolExecutor(1) as reading:
            assert "farm is gone" in reading.submit(pipe.read).result(timeout=20)
        done = keys(path)
        assert len(done) < len(JOBS)
        assert max(done.values()) == 1
    run_farm(FakeTrainer(0), JOBS, path, num_workers=2)
    assert keys(path) == ALL_ONCE


@pytest.mark.slow
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_farm_that_is_asked_to_stop_leaves_no_worker_and_goes_on(tmp_path, number, capsys):
    path = tmp_path / "table.jsonl"

    def ask():
        wait_until(lambda: path.exists() and len(path.read_bytes().splitlines()) >= 3)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(SystemExit) as stopped:
        run_farm(FakeTrainer(0.2), JOBS, path, num_workers=2, progress=True)
    assert stopped.value.code == 0
    assert not multiprocessing.active_children()
    shown = capsys.readouterr().err
    assert re.search(r"stopped: .*table\.jsonl has \d or more of 20 children; the same command trains", shown)
    assert re.search(r"/20 \[\d\d:\d\d<\d\d:\d\d, ", shown), "the bar tells the time left"
    assert len(keys(path)) < len(JOBS)
    run_farm(FakeTrainer(0), JOBS, path, num_workers=2)
    assert keys(path) == ALL_ONCE


class TestReadTable:
    def read(self, path):
        return read_table(path, FakeTrainer.recipe_hash, SPACE)

    def write(self, path, *lines: Record) -> Path:
        for line in lines:
            records.append(path, line)
        return path

    def test_a_missing_file_is_an_empty_table(self, tmp_path):
        assert self.read(tmp_path / "none.jsonl") == {}

    def test_a_half_written_last_line_is_trained_again(self, tmp_path):
        path = self.write(tmp_path / "table.jsonl", *(record_of(*job) for job in JOBS[:3]))
        path.write_bytes(path.read_bytes()[:-20])
        assert set(self.read(path)) == set(JOBS[:2])
        run_farm(FakeTrainer(0), JOBS, path)
        assert keys(path) == ALL_ONCE

    def test_refuses_a_line_cut_in_the_middle(self, tmp_path):
        path = self.write(tmp_path / "table.jsonl", *(record_of(*job) for job in JOBS[:3]))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + lines[1][:30] + b"\n" + lines[2])
        with pytest.raises(ValueError, match=r"table\.jsonl, line 2 is not a record"):
            run_farm(FakeTrainer(), JOBS, path)

    def test_refuses_children_of_another_recipe(self, tmp_path):
        other = record_of(*JOBS[1], recipe_hash="ba9876543210")
        path = self.write(tmp_path / "table.jsonl", record_of(*JOBS[0]), other)
        with pytest.raises(ValueError, match="record 2 was trained by the recipe ba9876543210, not by 0123456789ab"):
            run_farm(FakeTrainer(), JOBS, path)
        assert len(records.read(path)) == 2

    def test_refuses_children_of_another_space(self, tmp_path):
        path = self.write(tmp_path / "table.jsonl", record_of("attention-conv5-ffn"))
        with pytest.raises(ValueError, match=r"record 1 is a child of another space, .*no operator 'conv5'"):
            run_farm(FakeTrainer(), JOBS, path)

    def test_refuses_a_child_recorded_twice(self, tmp_path):
        path = self.write(tmp_path / "table.jsonl", record_of(*JOBS[0]), record_of(*JOBS[0]))
        with pytest.raises(ValueError, match="record 2 doubles"):
            self.read(path)

    def test_refuses_records_of_something_else(self, tmp_path):
        path = self.write(tmp_path / "table.jsonl", {"step": 3, "loss": 2.0})
        with pytest.raises(ValueError, match="no trained child: it lacks architecture, seed, dev_loss, recipe_hash"):
            self.read(path)


class TestPlan:
    def plan(self, space=SPACE, **settings):
        return plan_jobs(space, FarmArguments(table="table.jsonl", **settings))

    def test_holds_every_child_once_and_some_under_every_seed(self):
        jobs = self.plan(num_repeated=5, num_seeds=3)
        assert {job.architecture for job in jobs if job.seed == 0} == set(SPACE.enumerate())
        assert len(jobs) == len(set(jobs)) == 27 + 2 * 5
        repeated = {job.architecture for job in jobs[:5]}
        for seed in (1, 2):
            assert {job.architecture for job in jobs if job.seed == seed} == repeated

    def test_comes_in_random_order_with_the_repeated_ones_early(self):
        jobs = self.plan(num_repeated=5, num_seeds=3)
        assert [job.seed for job in jobs] == [0] * 10 + [1] * 5 + [2] * 5 + [0] * 17
        assert jobs == self.plan(num_repeated=5, num_seeds=3)
        assert jobs != self.plan(num_repeated=5, num_seeds=3, order_seed=1)
        assert [job.architecture for job in jobs[:10]] != list(SPACE.enumerate())[:10]

    def test_draws_children_of_a_space_too_large_to_enumerate(self):
        space = SearchSpace.chain(num_choice_blocks=40, operators=("attention", "ffn", "conv3", "skip"))
        jobs = self.plan(space, num_children=50, num_repeated=0)
        assert len(set(jobs)) == 50
        assert all(job.architecture in space for job in jobs)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_children": 28}, "num_children=28: the space has 27"),
            ({"num_seeds": 0}, "num_seeds=0: expected at least 1"),
            ({"table": "table.csv"}, "table=table.csv: expected the name of a .jsonl file"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValueError, match=message):
            plan_jobs(SPACE, FarmArguments(**{"table": "table.jsonl", **settings}))


def test_a_compressed_table_restores_what_is_missing(tmp_path):
    path = tmp_path / "table.jsonl"
    for job in JOBS[:6]:
        records.append(path, record_of(*job))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half": ')
    compressed = compress_table(path)
    assert compressed.name == "table.jsonl.gz"
    assert [record["seed"] for record in records.read(compressed)] == [job.seed for job in JOBS[:6]]
    first = compressed.read_bytes()
    assert compress_table(path).read_bytes() == first
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert restore_table(path, FakeTrainer.recipe_hash, SPACE) == 4
    assert path.read_bytes() == whole
    assert restore_table(path, FakeTrainer.recipe_hash, SPACE) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return text_arguments(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def recipe():
    return StandaloneArguments(**RECIPE, num_dev_batches=3, dev_batch_size=4, eval_steps=4, num_curve_batches=2)


@pytest.fixture(scope="module")
def trainer(data, recipe):
    return StandaloneTrainer(recipe, load_corpus(data), source="tiny.txt")


class TestStandaloneTrainer:
    def test_the_padding_row_is_that_of_the_tokenizers_padding(self, data, recipe, trainer, tmp_path):
        assert trainer.config.pad_token_id == 0
        folder = save_tokenizer_with_padding_at_one(tmp_path / "tokenizer")
        other = StandaloneTrainer(recipe, load_corpus(dataclasses.replace(data, tokenizer_name=folder)))
        assert other.config.pad_token_id == 1
        assert _child_config(other.config, Architecture(("conv3", "ffn")), sparse_prediction=True).pad_token_id == 1

    def test_same_seed_same_record(self, trainer):
        first, again = (without_timing(trainer.train(("conv3", "attention"), 1)) for _ in range(2))
        assert first == again
        assert first["dev_loss"] != trainer.train(("conv3", "attention"), 2)["dev_loss"]
        assert first["dev_loss"] != trainer.train(("conv3", "ffn"), 1)["dev_loss"]

    def test_the_seed_decides_the_order_of_the_text_too(self, trainer, monkeypatch):
        seen = []

        def spy(child, arguments, batches, *rest, **options):
            seen.append(batches.batch(0)["input_ids"])
            return [[1, 1.0]]

        monkeypatch.setattr("hf_nasbert.training.standalone.fit", spy)
        for seed in (1, 1, 2):
            trainer.train(("conv3", "ffn"), seed)
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])

    def test_neither_reads_nor_writes_the_global_generator(self, trainer):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = trainer.train(("conv3", "ffn"), 0)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(6)
        assert trainer.train(("conv3", "ffn"), 0)["dev_loss"] == first["dev_loss"]

    def test_the_record_says_what_was_trained(self, trainer):
        record = trainer.train(("conv3", "ffn"), 3)
        assert (record["architecture"], record["seed"]) == ("conv3-ffn", 3)
        assert [step for step, _ in record["curve"]] == [4, 6]
        whole = StandaloneArguments(**{**vars(trainer.arguments), "num_curve_batches": 3})
        again = StandaloneTrainer(whole, trainer.corpus).train(("conv3", "ffn"), 3)
        assert again["dev_loss"] == again["curve"][-1][1] == record["dev_loss"] != record["curve"][-1][1]
        assert record["num_parameters"] == num_parameters(trainer.config, ("conv3", "ffn"))
        assert record["flops"] > trainer.train(("conv3", "conv3"), 3)["flops"]
        assert SearchSpace.from_dict(record["recipe"]["space"]) == trainer.space
        assert record["recipe"]["source"] == "tiny.txt"
        assert record["versions"]["torch"]

    def test_learns(self, trainer, recipe):
        longer = StandaloneArguments(**{**vars(recipe), "max_steps": 60, "eval_steps": 60, "learning_rate": 1e-2})
        after = StandaloneTrainer(longer, trainer.corpus).train(("conv3", "attention"), 0)["dev_loss"]
        assert after < trainer.train(("conv3", "attention"), 0)["dev_loss"] - 0.3

    def test_recipe_hash_follows_every_setting_that_changes_losses(self, trainer, recipe):
        def hash_with(**settings):
            arguments = StandaloneArguments(**{**vars(recipe), **settings})
            return StandaloneTrainer(arguments, trainer.corpus, source="tiny.txt").recipe_hash

        assert hash_with() == trainer.recipe_hash
        assert hash_with(eval_steps=5, num_curve_batches=1) == trainer.recipe_hash
        changed = [
            hash_with(learning_rate=1e-3),
            hash_with(max_steps=7),
            hash_with(hidden_size=64),
            hash_with(blocks=["conv3", "attention,ffn"]),
            hash_with(train_batch_size=5),
            hash_with(hidden_dropout_prob=0.1),
        ]
        assert len({trainer.recipe_hash, *changed}) == 7
        other_dev = StandaloneTrainer(recipe, trainer.corpus, data_seed=1, source="tiny.txt")
        assert other_dev.recipe_hash != trainer.recipe_hash

    def test_refuses_a_child_of_another_space(self, trainer):
        with pytest.raises(ValueError, match="conv5"):
            trainer.train(("conv3", "conv5"), 0)

    def test_names_a_training_that_diverged(self, trainer, recipe):
        wild = StandaloneArguments(**{**vars(recipe), "learning_rate": 1e30})
        with pytest.raises(ValueError, match=r"dev loss is .* after 4 steps: lower the learning_rate"):
            StandaloneTrainer(wild, trainer.corpus).train(("conv3", "ffn"), 0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_steps": 0}, "max_steps=0"),
            ({"learning_rate": 0.0}, "learning_rate=0.0"),
            ({"warmup_ratio": 2.0}, "warmup_ratio=2.0"),
            ({"adam_beta2": 1.0}, r"adam_beta2=1\.0: expected below 1"),
            ({"blocks": ["attention,attention"]}, "duplicate candidates"),
            ({"blocks": []}, "non-empty list"),
        ],
    )
    def test_refuses_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            StandaloneArguments(**{**RECIPE, **settings})

    def test_refuses_children_that_cannot_be_built_before_any_worker_starts(self, trainer, recipe):
        odd = StandaloneArguments(**{**vars(recipe), "attention_head_size": 5})
        with pytest.raises(ValueError, match="does not divide into heads of 5: set attention_head_size"):
            StandaloneTrainer(odd, trainer.corpus)


def test_workers_train_the_very_records_that_one_process_trains(data, recipe, trainer, tmp_path):
    farm = FarmArguments(table=str(tmp_path / "table.jsonl"), num_repeated=1, num_seeds=2)
    table = train_children(farm, recipe, data)
    assert {(str(child), seed) for child, seed in table} == {
        (str(child), seed) for child, seed in plan_jobs(trainer.space, farm)
    }
    for (child, seed), record in table.items():
        assert record["curve"] == trainer.train(child, seed)["curve"]
    # A fresh checkout holds the compressed copy alone: nothing is trained again.
    Path(farm.table).unlink()
    before = {job: record["timing"] for job, record in table.items()}
    assert {job: record["timing"] for job, record in train_children(farm, recipe, data).items()} == before
