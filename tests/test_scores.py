"""Scoring and searching from the command line: costs of a table, one leader and its helpers, a report at the end."""

import os
import random
import signal
from dataclasses import replace

import pytest
from accelerate import PartialState
from tiny.processes import launch
from tiny.scores import CONFIG, DATA, SPACE, stub_files

from hf_nasbert import costs, records
from hf_nasbert.modeling import SupernetConfig, SupernetForSequenceClassification, SupernetModel
from hf_nasbert.pipeline import ScoreChildrenArguments, SearchChildrenArguments, score_children, search_children, team
from hf_nasbert.pipeline import scores as scores_room
from hf_nasbert.pipeline.inputs import supernet_digest
from hf_nasbert.pipeline.scores import as_table, choose_children
from hf_nasbert.space import SearchSpace


@pytest.fixture
def stubs(monkeypatch):
    stub_files(monkeypatch)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "latency.jsonl"
    setting = {"device": "a clock", "batch_size": 8, "sequence_length": 128, "dtype": "float32", "num_threads": 1}
    records.append(
        path,
        {
            "record": "latency_table",
            "operators_ms": {"attention@32": 3.0, "ffn@32": 4.0, "conv3@32": 1.0},
            "adapters_ms": {},
            "outside_ms": 0.5,
            "setting": setting,
            "sizes": costs.latency_sizes(CONFIG),
        },
    )
    return path


def test_children_are_sorted_before_they_are_cut_into_chunks(stubs, monkeypatch, tmp_path):
    """A chunk of 9 shares its first operator; one walk over all 27 would take 3 + 9 + 27 operators too."""
    calls = []
    run_block = SupernetModel.run_block

    def counted(model, index, *arguments, **options):
        calls.append(index)
        return run_block(model, index, *arguments, **options)

    monkeypatch.setattr(SupernetModel, "run_block", counted)
    monkeypatch.setattr(scores_room, "CHUNK", 9)
    names = [str(child) for child in SPACE.enumerate()]
    random.Random(0).shuffle(names)
    settings = {"supernet": "x", "num_dev_batches": 1, "dev_batch_size": 2}
    arguments = ScoreChildrenArguments(output=str(tmp_path / "a.jsonl"), architectures=[*names, names[0]], **settings)
    assert sorted(str(child.architecture) for child in score_children(arguments, DATA)) == sorted(names)
    assert len(calls) == 3 + 9 + 27


def test_freed_memory_is_kept_for_the_next_child(stubs, monkeypatch, tmp_path):
    tuned = []
    monkeypatch.setattr(scores_room, "tune_allocator", lambda: tuned.append(True))
    settings = {"supernet": "x", "num_dev_batches": 1, "dev_batch_size": 2, "all_children": True}
    score_children(ScoreChildrenArguments(output=str(tmp_path / "a.jsonl"), **settings), DATA)
    assert tuned


def test_drawn_children_come_in_an_order_in_which_neighbours_share_long_prefixes():
    space = SearchSpace.chain(12, ("attention", "ffn", "conv3", "conv5"))
    drawn = choose_children(ScoreChildrenArguments(supernet="x", output="y", num_random=1000), space)
    assert drawn == sorted(drawn, key=space.index_of)


@pytest.mark.parametrize("cap", [7.5, "7.5", "0.6x"])  # the largest child, ffn-ffn-ffn, takes 12.5
def test_a_search_keeps_to_latency_and_memory(stubs, table, tmp_path, cap):
    settings = {"supernet": "x", "num_dev_batches": 1, "dev_batch_size": 2, "num_evaluations": 27, "search": "random"}
    arguments = SearchChildrenArguments(
        output=str(tmp_path / "a.jsonl"), latency_table=str(table), max_latency=cap, **settings
    )
    scored = search_children(arguments, DATA)
    latency = {"attention": 3.0, "ffn": 4.0, "conv3": 1.0}
    expected = {str(c) for c in SPACE.enumerate() if 0.5 + sum(latency[name] for name in c) <= 7.5}
    assert {str(child.architecture) for child in scored} == expected
    assert 0 < len(expected) < 27
    for child in scored:
        assert child.cost["latency_ms"] == 0.5 + sum(latency[name] for name in child.architecture)
    assert "8x128 tokens" in records.read(arguments.output)[0]["settings"]["about"]["latency_table"]
    assert f"{scored[0].cost['latency_ms']:.2f} ms" in as_table(scored)
    memory = costs.peak_activation_bytes(CONFIG, ("attention", "conv3", "attention"), sequence_length=8)
    lean = SearchChildrenArguments(output=str(tmp_path / "b.jsonl"), max_memory=str(int(memory)), **settings)
    scored = search_children(lean, DATA)
    expected = {str(c) for c in SPACE.enumerate() if costs.peak_activation_bytes(CONFIG, c, 1, 8) <= memory}
    assert {str(child.architecture) for child in scored} == expected
    assert 0 < len(expected) < 27
    assert f"{scored[0].cost['peak_activation_bytes'] / 1e6:.2f} MB" in as_table(scored)
    assert "latency_ms" not in scored[0].cost


@pytest.mark.parametrize("command", ["score", "search"])
def test_a_table_measured_again_is_another_file_of_scores(command, stubs, table, tmp_path):
    settings = {"supernet": "x", "output": str(tmp_path / "a.jsonl"), "num_dev_batches": 1, "dev_batch_size": 2}
    settings |= {"latency_table": str(table)}

    def run():
        if command == "score":
            return score_children(ScoreChildrenArguments(num_random=3, **settings), DATA)
        return search_children(SearchChildrenArguments(search="random", num_evaluations=3, **settings), DATA)

    assert run() == run()
    (record,) = records.read(table)
    for name in ("operators_ms", "adapters_ms", "outside_ms"):
        again = 0.75 if name == "outside_ms" else {**record[name], "attention@32": 3.5}
        records.append(table, {**record, name: again})
        with pytest.raises(ValueError, match=r"latency_table"):
            run()


def test_latencies_without_a_table_that_fits_are_refused(stubs, table, tmp_path):
    settings = {"supernet": "x", "output": str(tmp_path / "a.jsonl")}
    with pytest.raises(ValueError, match="latency_table"):
        SearchChildrenArguments(max_latency=8.0, **settings)
    wrong = SearchChildrenArguments(latency_table=str(table), latency_batch_size=4, **settings)
    with pytest.raises(ValueError, match="none is interpolated"):
        search_children(wrong, DATA)
    impossible = SearchChildrenArguments(latency_table=str(table), max_latency=3.0, **settings)
    with pytest.raises(ValueError, match=r"latency_ms may be at most 3.*smallest child, conv3-conv3-conv3, is 3.5"):
        search_children(impossible, DATA)


def test_the_history_of_a_search_is_no_file_of_scored_children(stubs, tmp_path):
    settings = {"supernet": "x", "output": str(tmp_path / "h.jsonl"), "num_dev_batches": 1, "dev_batch_size": 2}
    search_children(SearchChildrenArguments(search="random", num_evaluations=3, **settings), DATA)
    with pytest.raises(ValueError, match=r"h\.jsonl is not a file of scored children: record 1 "):
        score_children(ScoreChildrenArguments(all_children=True, **settings), DATA)


def test_asked_to_stop_scoring_keeps_what_it_has_and_goes_on(stubs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scores_room, "CHUNK", 10)
    settings = {"supernet": "x", "all_children": True, "num_dev_batches": 1, "dev_batch_size": 2}
    straight = score_children(ScoreChildrenArguments(output=str(tmp_path / "a.jsonl"), **settings), DATA)
    interrupted = ScoreChildrenArguments(output=str(tmp_path / "b.jsonl"), **settings)
    score = scores_room.score_with_report

    def asked(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*args, **kwargs)

    for num_left in (17, 7):
        monkeypatch.setattr(scores_room, "score_with_report", asked)
        with pytest.raises(SystemExit) as stopped:
            score_children(interrupted, DATA)
        assert stopped.value.code == 0
        assert f"lacks {num_left} children; the same command scores them" in capsys.readouterr().err
        assert len(records.read(interrupted.output)) == 1 + 27 - num_left
    # Asked for it with the last child, it has nothing left to stop.
    assert score_children(interrupted, DATA) == straight


FILTERED = {"supernet": "x", "all_children": True, "num_dev_batches": 1, "dev_batch_size": 2}


def test_a_filter_orders_all_children_and_its_best_are_scored_exactly(stubs, tmp_path, capsys):
    exact = score_children(ScoreChildrenArguments(output=str(tmp_path / "a.jsonl"), **FILTERED), DATA)
    arguments = ScoreChildrenArguments(output=str(tmp_path / "b.jsonl"), exact_share=0.2, **FILTERED)
    scored = score_children(arguments, DATA)
    assert "the best 5 of 27 children, as a filter orders them, are scored exactly" in capsys.readouterr().err
    begun, *written = records.read(arguments.output)
    kinds = [record["record"] for record in written]
    assert kinds == ["filtered"] * 27 + ["child"] * 5
    estimates = {record["architecture"]: record["filter_loss"] for record in written[:27]}
    losses = {str(child.architecture): child.loss for child in exact}
    assert not set(estimates.values()) & set(losses.values())
    assert {str(child.architecture): child.loss for child in scored} == pytest.approx(
        {name: losses[name] for name in sorted(estimates, key=estimates.__getitem__)[:5]}, rel=1e-6
    )
    assert [child.loss for child in scored] == sorted(child.loss for child in scored)
    assert scored[0] == replace(exact[0], proxy_loss=scored[0].loss)
    assert score_children(arguments, DATA) == scored
    assert records.read(arguments.output) == [begun, *written]
    # Without a filter the same file takes the others' losses.
    whole = score_children(replace(arguments, exact_share=None), DATA)
    assert [child.architecture for child in whole] == [child.architecture for child in exact]
    assert len(records.read(arguments.output)) == 1 + 27 + 27


def test_asked_to_stop_a_filter_keeps_what_it_has_and_goes_on(stubs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scores_room, "CHUNK", 10)
    straight = ScoreChildrenArguments(output=str(tmp_path / "a.jsonl"), exact_share=0.2, **FILTERED)
    scored = score_children(straight, DATA)
    interrupted = replace(straight, output=str(tmp_path / "b.jsonl"))
    score = scores_room.score_with_report

    def asked(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*args, **kwargs)

    monkeypatch.setattr(scores_room, "score_with_report", asked)
    for num_left in (22, 12, 5):
        with pytest.raises(SystemExit):
            score_children(interrupted, DATA)
        assert f"lacks {num_left} children; the same command scores them" in capsys.readouterr().err
    assert score_children(interrupted, DATA) == scored
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_where_no_filter_can_be_is_said(stubs, monkeypatch, tmp_path):
    output = str(tmp_path / "a.jsonl")
    for share in (0, 1):
        with pytest.raises(ValueError, match=f"exact_share={share}: expected"):
            ScoreChildrenArguments(output=output, exact_share=share, **FILTERED)
    with pytest.raises(ValueError, match=r"exact_share=0\.1: an additive model"):
        ScoreChildrenArguments(output=output, exact_share=0.1, adapt_steps=3, **FILTERED)
    arguments = ScoreChildrenArguments(output=output, exact_share=0.1, **FILTERED)
    score_children(arguments, DATA)
    written = records.read(output)
    monkeypatch.setattr(scores_room, "_FILTER", "another")
    with pytest.raises(ValueError, match="is another filter's"):
        score_children(arguments, DATA)
    assert records.read(output) == written
    monkeypatch.setattr(scores_room, "load_supernet", lambda *_: SupernetForSequenceClassification(CONFIG))
    monkeypatch.setattr(scores_room, "LargestChild", lambda *_: object())
    with pytest.raises(
        ValueError, match=r"exact_share=0\.1: the filter saves words of a vocabulary, and x predicts none"
    ):
        score_children(replace(arguments, output=str(tmp_path / "b.jsonl")), DATA)


def test_two_that_begin_one_file_of_scores_at_the_same_moment_do_not_mix(stubs, tmp_path, monkeypatch):
    """Another process begins the file while this one scores: with other settings this one's scores stay out of it."""
    update = records.update

    def score(name, seed_of_the_other):
        arguments = ScoreChildrenArguments(supernet="", output=str(tmp_path / name), all_children=True)
        other = tmp_path / f"other-{name}"
        monkeypatch.setattr(scores_room, "supernet_digest", lambda _: seed_of_the_other)
        half = replace(arguments, output=str(other), all_children=False, num_random=9)
        monkeypatch.setattr(records, "update", update)
        score_children(half, DATA)
        monkeypatch.setattr(scores_room, "supernet_digest", lambda _: "this")

        def late(path, choose):
            path.write_bytes(other.read_bytes())
            return update(path, choose)

        monkeypatch.setattr(records, "update", late)
        return score_children(arguments, DATA)

    assert len(score("same.jsonl", "this")) == 27
    begun, *written = records.read(tmp_path / "same.jsonl")
    assert begun["settings"]["about"]["supernet"] == "this"
    assert len(written) == len({record["architecture"] for record in written}) == 27
    with pytest.raises(ValueError, match=r"holds scores of another supernet"):
        score("mixed.jsonl", "another")
    begun, *written = records.read(tmp_path / "mixed.jsonl")
    assert begun["settings"]["about"]["supernet"] == "another"
    assert len(written) == 9


def test_scoring_reports_speed_and_what_was_saved(stubs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scores_room, "CHUNK", 10)
    arguments = ScoreChildrenArguments(
        supernet="x", output=str(tmp_path / "s.jsonl"), all_children=True, num_dev_batches=2, dev_batch_size=2
    )
    scored = score_children(arguments, DATA)
    shown = capsys.readouterr().err
    assert "27 children on 2 batches in" in shown
    assert "children/s, " in shown
    assert "% of the operator calls saved" in shown
    assert "/27" in shown  # the bar over all chunks, for the time left
    assert score_children(arguments, DATA) == scored
    assert "children/s" not in capsys.readouterr().err  # nothing was left to score


def test_alone_nobody_is_told_anything(monkeypatch):
    monkeypatch.setattr(team, "broadcast_object_list", None)
    team.announce("task")
    assert team.lead(lambda: 7, lambda task: pytest.fail("nobody follows")) == 7


def score_and_search(folder):
    """What one of several processes does."""
    state = PartialState(cpu=True)
    with pytest.MonkeyPatch.context() as patch:
        stub_files(patch)
        settings = {"supernet": "x", "num_dev_batches": 3, "dev_batch_size": 2}
        scores = ScoreChildrenArguments(output=str(folder / "scores.jsonl"), all_children=True, **settings)
        search = SearchChildrenArguments(output=str(folder / "search.jsonl"), num_evaluations=12, **settings)
        filtered = replace(scores, output=str(folder / "filtered.jsonl"), exact_share=0.2)
        assert len(score_children(filtered, DATA)) == 5
        numbers = len(score_children(scores, DATA)), len(search_children(search, DATA))
        impossible = SearchChildrenArguments(output=str(folder / "no.jsonl"), max_parameters="1K", **settings)
        with pytest.raises((ValueError, RuntimeError), match="no child is within the budget") as refused:
            search_children(impossible, DATA)
    return *numbers, state.is_main_process, isinstance(refused.value, ValueError)


@pytest.mark.slow
def test_processes_write_one_file_the_same_as_one_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    written = []
    for num_processes in (1, 2):
        folder = tmp_path / str(num_processes)
        folder.mkdir()
        for number, seen in enumerate(launch(score_and_search, num_processes, folder)):
            assert not isinstance(seen, str), seen
            num_scored, num_found, is_main, is_told_what_was_wrong = seen
            assert num_scored == 27
            assert num_found >= 12
            assert is_main == is_told_what_was_wrong == (number == 0)
        histories = [records.read(folder / name) for name in ("scores.jsonl", "search.jsonl", "filtered.jsonl")]
        for history in histories:
            for record in history:
                record.pop("versions", None)
        written.append(histories)
    assert written[0] == written[1]


def test_what_decides_a_childs_loss_beside_the_weights_is_in_the_digest(tmp_path):
    """Equal tensors and another owner table, activation or order of operators are another super-net."""
    plain = SupernetConfig(search_space=SPACE, hidden_size=32, vocab_size=60, max_position_embeddings=16)
    owned = {"number": 2, "block": 0, "operators": ["attention", "ffn", "conv3"]}
    turned = SearchSpace.chain(3, ("ffn", "attention", "conv3"))
    configs = [
        plain,
        *(replace_config(plain, hidden_act=act) for act in ("gelu", "relu")),
        *(replace_config(plain, copies={**owned, "owners": owners}) for owners in ([0, 1, 1], [1, 0, 0])),
        *(replace_config(plain, weight_layout="experts", search_space=space) for space in (SPACE, turned)),
    ]
    digests = []
    for number, config in enumerate(configs):
        folder = tmp_path / str(number)
        config.save_pretrained(folder)
        (folder / "model.safetensors").write_bytes(b"the same weights")
        digests.append(supernet_digest(folder))
    (tmp_path / "model.safetensors").write_bytes(b"the same weights")
    assert digests[0] == digests[1] == supernet_digest(tmp_path), "defaults leave no trace: earlier records go on"
    assert len(set(digests[1:])) == len(digests) - 1


def replace_config(config, **fields):
    return SupernetConfig(**{**config.to_diff_dict(), **fields})
