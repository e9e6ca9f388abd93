"""`make study-smoke`: table, ranking and interference study on a dozen children over real text, and their effects.

Not collected with the other tests: it takes some minutes and the packaged text (`make .venv/.data-ready`).
"""

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from helpers import run_recipe

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
