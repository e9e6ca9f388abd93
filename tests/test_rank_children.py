"""From super-nets' folders and a table to tables and figures: what is scored, what is not again, what is refused."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from helpers import assert_published, run_recipe
from tiny.texts import text_arguments

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline.ranking import RankChildrenArguments, RankingReportArguments, rank_children, report_ranking
from hf_nasbert.ranking import GroundTruth, agreement, load_table, proxy_losses
from hf_nasbert.scoring import score_architectures
from hf_nasbert.training.standalone import StandaloneArguments, StandaloneTrainer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return text_arguments(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trainer(data):
    arguments = StandaloneArguments(
        blocks=["conv3", "attention,ffn,conv3", "ffn,conv3"], hidden_size=32, max_steps=4, train_batch_size=4,
        num_dev_batches=4,
        dev_batch_size=4, eval_steps=4,
    )  # fmt: skip
    return StandaloneTrainer(arguments, load_corpus(data), source="tiny.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trainer):
    """A table of four of six children, and two super-nets that have not learned anything."""
    folder = tmp_path_factory.mktemp("study")
    for child in list(trainer.space.enumerate())[:4]:
        records.append(folder / "table.jsonl", trainer.train(child, 0))
    for seed in range(2):
        save_supernet(folder / f"supernet-{seed}", trainer.config, trainer.corpus.tokenizer, seed)
    return folder


def save_supernet(folder, config, tokenizer, seed=0):
    torch.manual_seed(seed)
    SupernetForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def arguments(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "_NUM_DRAWS", 10)  # of the random baselines, which take most of a report's time

    def make(*supernets, **others):
        settings = {
            "table": str(folder / "table.jsonl"),
            "scores": str(tmp_path / "scores.jsonl"),
            "num_dev_batches": 2,
            "num_resamples": 10,
        }
        return RankChildrenArguments(supernets=[str(folder / name) for name in supernets], **settings | others)

    return make


def test_scores_are_those_of_the_supernet_on_the_tables_first_dev_batches(arguments, folder, data, trainer):
    rank_children(arguments("supernet-1"), data)
    (record,) = records.read(arguments("supernet-1").scores)
    truth = GroundTruth(load_table(str(folder / "table.jsonl")))
    supernet = SupernetForMaskedLM.from_pretrained(folder / "supernet-1")
    expected = score_architectures(supernet, truth.architectures, trainer.dev_batches[:2])
    assert proxy_losses(record, truth).tolist() == pytest.approx(expected, abs=1e-6)
    assert record["recipe_hash"] == trainer.recipe_hash


def test_what_the_records_hold_is_not_scored_again(arguments, data, monkeypatch):
    rank_children(arguments("supernet-0"), data)
    whole = Path(arguments("supernet-0").scores).read_bytes()
    rank_children(arguments("supernet-0", "supernet-1"), data)
    assert len(records.read(arguments("supernet-0").scores)) == 2
    assert Path(arguments("supernet-0").scores).read_bytes().startswith(whole)
    monkeypatch.setattr("hf_nasbert.pipeline.ranking.score_architectures", None)
    rank_children(arguments("supernet-0", "supernet-1"), data)


def test_a_small_space_is_scored_whole_so_that_the_table_may_grow(arguments, data, trainer):
    rank_children(arguments("supernet-0"), data)
    (record,) = records.read(arguments("supernet-0").scores)
    assert set(record["proxy_losses"]) == {str(child) for child in trainer.space.enumerate()}


def test_supernets_of_unknown_origin_rank_under_their_own_names(arguments, data):
    report = rank_children(arguments("supernet-0", "supernet-1"), data)
    assert [(row.name, row.num_rankings) for row in report.methods] == [("supernet-0", 1), ("supernet-1", 1)]


@pytest.mark.slow
def test_variants_rank_under_the_name_they_are_given(arguments, data, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: sweep -->\n<!-- end -->\n<!-- table: sweep, conv3 -->\n<!-- end -->\n")
    rank_children(arguments("supernet-0", label="magic_at, lambda 2"), data)
    report = rank_children(
        arguments("supernet-0", "supernet-1", name="sweep", page=str(page), figures=str(tmp_path / "figures")), data
    )
    assert {row.name for row in report.methods} == {"magic_at, lambda 2", "supernet-1"}
    assert page.read_text().count("| magic_at, lambda 2 | 1 |") == 3
    rank_children(arguments("supernet-0", name="sweep", page=str(page), containing="conv3"), data)
    assert page.read_text().count("| magic_at, lambda 2 | 1 |") == 6
    assert (tmp_path / "figures" / "sweep-tau.png").exists()


def test_the_report_needs_neither_text_nor_supernet(arguments, data, folder, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- table: ranking -->\nold\n<!-- end -->\nafter\n")
    report = rank_children(arguments("supernet-0", "supernet-1", page=str(page)), data)
    first = page.read_text()
    assert "old" not in first
    assert first.startswith("# Page\n")
    assert first.endswith("<!-- end -->\nafter\n")
    records_of = ["--table", folder / "table.jsonl", "--scores", tmp_path / "scores.jsonl"]
    run_recipe("report_ranking", *records_of, "--page", page, "--num_resamples", 10)
    assert page.read_text() == first
    shown, made, ending = capsys.readouterr().out.partition("\nmade: ")
    assert shown == report.as_markdown() + "\n"
    assert made
    assert f"made: page: {page}\n" in ending


_PAGE = ROOT / "docs" / "appendix" / "ranking.md"
_BASELINES = runpy.run_path(str(ROOT / "benchmarks" / "ranking_study.py"))["BASELINES"]
# What the page's tables are named by: their records, and the baseline of their tests.
_SCORES = {"ranking": ("ranking", None)} | {name: (f"ranking-{name}", base) for name, base in _BASELINES.items()}
_PUBLISHED = [name for name in re.findall(r"<!-- table: (.*?) -->", _PAGE.read_text()) if name != "pilot"]


def test_the_page_has_a_table_of_all_children_and_one_of_those_that_count():
    assert {"ranking", "ranking, conv3"} <= set(_PUBLISHED)


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute of computing, many times that where cores are shared
@pytest.mark.parametrize("table", _PUBLISHED)
def test_a_published_table_and_its_figures_are_those_of_their_records(tmp_path, table):
    published, copy = _PAGE.read_text(), tmp_path / "ranking.md"
    before, inside, after = re.split(rf"(?<=<!-- table: {table} -->\n)(.*?)(?=<!-- end -->)", published, flags=re.S)
    assert "| uniform |" in inside
    copy.write_text(before + "gone\n" + after)
    name, _, containing = table.partition(", ")
    scores, baseline = _SCORES[name]
    scores = ROOT / "benchmarks" / "records" / f"{scores}.jsonl.xz"
    settings = {"table": "imdb", "scores": str(scores), "page": str(copy), "name": name, "baseline": baseline}
    figures = tmp_path / "figures"
    if name == "ranking":
        settings["figures"] = str(figures)
    report_ranking(RankingReportArguments(**settings, containing=containing or None))
    assert copy.read_text() == published
    assert_published(figures, number=0 if name != "ranking" else 3 if containing else 1)


def test_a_page_without_a_place_is_refused(tmp_path):
    (tmp_path / "page.md").write_text("# Page\n<!-- table: other -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match=r"no place for the table: expected <!-- table: ranking -->"):
        fill_page(tmp_path / "page.md", {"ranking": "x"})


class TestRefused:
    """Before anything is scored, and by name."""

    @pytest.fixture(autouse=True)
    def nothing_is_scored(self, tmp_path):
        yield
        assert not (tmp_path / "scores.jsonl").exists()

    def test_a_supernet_of_another_space(self, arguments, data, trainer, tmp_path):
        other = StandaloneArguments(**{**vars(trainer.arguments), "blocks": ["conv3", "attention,ffn", "ffn,conv3"]})
        supernet = tmp_path / "narrow"
        save_supernet(supernet, StandaloneTrainer(other, trainer.corpus).config, trainer.corpus.tokenizer)
        words = "narrow has another search space than the table: choice block 1 offers attention, ffn, the table's "
        with pytest.raises(ValueError, match=f"{words}attention, ffn, conv3$"):
            rank_children(arguments("supernet-0", str(supernet)), data)
        longer = StandaloneArguments(**{**vars(trainer.arguments), "blocks": [*trainer.arguments.blocks, "ffn"]})
        save_supernet(supernet, StandaloneTrainer(longer, trainer.corpus).config, trainer.corpus.tokenizer)
        with pytest.raises(ValueError, match=r"choice block 3 offers ffn, the table's nothing$"):
            rank_children(arguments(str(supernet)), data)

    def test_a_table_of_distilled_children(self, arguments, data):
        words = (
            "--table minilm were distilled from packaged:all-MiniLM-L6-v2, not by train-children: the recipe lacks h"
        )
        with pytest.raises(ValueError, match=words):
            rank_children(arguments("supernet-0", table="minilm"), data)

    def test_a_supernet_of_another_size(self, arguments, data, trainer, tmp_path):
        other = StandaloneArguments(**{**vars(trainer.arguments), "ffn_ratio": 2})
        save_supernet(tmp_path / "thin", StandaloneTrainer(other, trainer.corpus).config, trainer.corpus.tokenizer)
        with pytest.raises(ValueError, match=r"thin has ffn_ratio=2, the children of the table 4"):
            rank_children(arguments(str(tmp_path / "thin")), data)

    def test_a_supernet_of_another_tokenizer(self, arguments, data, trainer, tmp_path):
        vocabulary = trainer.corpus.tokenizer.get_vocab()
        tokenizer = type(trainer.corpus.tokenizer)
        words = sorted(vocabulary, key=vocabulary.get)
        words[-1], words[-2] = words[-2], words[-1]
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        save_supernet(tmp_path / "foreign", trainer.config, tokenizer(vocab=str(tmp_path / "vocab.txt")))
        with pytest.raises(ValueError, match=r"foreign was trained with another tokenizer"):
            rank_children(arguments("supernet-0", str(tmp_path / "foreign")), data)

    def test_a_baseline_that_will_not_be_there(self, arguments, data):
        with pytest.raises(ValueError, match=r"no super-net ranks as the baseline 'fair': there are supernet-0$"):
            rank_children(arguments("supernet-0", baseline="fair"), data)

    def test_another_text(self, arguments, data):
        other = DataArguments(**{**vars(data), "data_seed": 1})
        with pytest.raises(ValueError, match=r"not the one that the table's children were scored on"):
            rank_children(arguments("supernet-0"), other)

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("embedding_size", 16, "embedding_size=16, the children of the table 32"),
            ("hidden_act", "relu", "hidden_act=relu, the children of the table gelu"),
            ("attention_head_size", 16, "attention_head_size=16, the children of the table 32"),
            ("num_conv_layers", 1, "num_conv_layers=1, the children of the table 2"),
            ("max_position_embeddings", 8, "was built for 8 tokens, the children of the table were scored on 16"),
        ],
    )
    def test_other_children_be_they_of_the_last_supernet(
        self, arguments, data, trainer, tmp_path, name, change, words
    ):
        fields = trainer.config.to_dict()
        del fields["num_attention_heads"]  # computed from the size of a head
        config = SupernetConfig(**{**fields, name: change})
        save_supernet(tmp_path / "other", config, trainer.corpus.tokenizer)
        with pytest.raises(ValueError, match=rf"other .*{words}"):
            rank_children(arguments("supernet-0", str(tmp_path / "other")), data)

    def test_a_head_size_written_out_is_no_other_one(self, arguments, data, trainer, tmp_path):
        config = SupernetConfig(**{**trainer.config.to_dict(), "attention_head_size": 32})
        save_supernet(tmp_path / "same", config, trainer.corpus.tokenizer, seed=5)
        rank_children(arguments(str(tmp_path / "same"), scores=str(tmp_path / "same.jsonl")), data)

    def test_a_supernet_trained_on_what_is_held_out_be_it_the_last(self, arguments, data, trainer, tmp_path):
        save_supernet(tmp_path / "leaky", trainer.config, trainer.corpus.tokenizer, seed=5)
        text = {**data.describe_split(), "data_seed": 7}
        begun = {"event": "start", "step": 0, "arguments": {}, "data": {"sequence_length": 16}, "text": text}
        (tmp_path / "leaky" / "train_log.jsonl").write_text(json.dumps(begun) + "\n")
        with pytest.raises(ValueError, match=r"leaky was trained on tiny\.txt with data_seed=7, now it is 0"):
            rank_children(arguments("supernet-0", str(tmp_path / "leaky")), data)

    def test_what_the_report_could_not_be_made_of(self, arguments, data, tmp_path):
        with pytest.raises(ValueError, match="0 children that hold 'conv9'"):
            rank_children(arguments("supernet-0", containing="conv9"), data)
        with pytest.raises(FileNotFoundError, match=r"no\.md"):
            rank_children(arguments("supernet-0", page=str(tmp_path / "no.md")), data)
        (tmp_path / "page.md").write_text("# Page\n")
        with pytest.raises(ValueError, match="no place for the table: expected <!-- table: ranking -->"):
            rank_children(arguments("supernet-0", page=str(tmp_path / "page.md")), data)

    def test_two_runs_that_would_pass_for_one(self, arguments, data, monkeypatch):
        run = {"method": "uniform", "seed": 0, "step": 4, "max_steps": 4}
        monkeypatch.setattr("hf_nasbert.pipeline.ranking.describe_run", lambda folder: run)
        with pytest.raises(ValueError, match=r"two runs are both uniform, seed 0, step 4 and would pass for one"):
            rank_children(arguments("supernet-0", "supernet-1"), data)

    def test_a_folder_without_supernet(self, arguments, data, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
            rank_children(arguments("supernet-0", str(tmp_path / "nowhere")), data)


def test_other_names_and_batches_than_the_records_are_refused(arguments, data, tmp_path):
    rank_children(arguments("supernet-0"), data)
    scores = (tmp_path / "scores.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"supernet-0 as supernet-0, now it would be mine"):
        rank_children(arguments("supernet-0", label="mine"), data)
    with pytest.raises(ValueError, match=r"holds scores on 2 dev batches, now it would be 3: the two do not compare"):
        rank_children(arguments("supernet-0", "supernet-1", num_dev_batches=3), data)
    assert (tmp_path / "scores.jsonl").read_bytes() == scores
    rank_children(arguments("supernet-0", "supernet-1"), data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_steps": "forty"}, "its max_steps is neither a whole number nor null"),
        ({"step": 0, "max_steps": 0}, "step 0 of 0 there is not"),
        ({"step": 50, "max_steps": 40}, "step 50 of 40 there is not"),
        ({"max_steps": None}, None),
    ],
)
def test_records_that_are_none_are_refused_by_name(arguments, data, tmp_path, change, words):
    rank_children(arguments("supernet-0"), data)
    (record,) = records.read(tmp_path / "scores.jsonl")
    (tmp_path / "scores.jsonl").unlink()
    records.append(tmp_path / "scores.jsonl", record | change)
    if words is None:
        assert rank_children(arguments("supernet-0"), data).methods[0].num_rankings == 1
    else:
        with pytest.raises(ValueError, match=rf"scores\.jsonl, record 1 is no scored super-net: {words}"):
            rank_children(arguments("supernet-0"), data)
    (tmp_path / "scores.jsonl").unlink()
    records.append(tmp_path / "scores.jsonl", {name: value for name, value in record.items() if name != "max_steps"})
    with pytest.raises(ValueError, match="it lacks max_steps"):
        rank_children(arguments("supernet-0"), data)


def test_a_twin_of_a_recorded_run_is_refused_before_it_is_scored(arguments, data, monkeypatch, tmp_path):
    run = {"method": "uniform", "seed": 0, "step": 4, "max_steps": 4}
    monkeypatch.setattr("hf_nasbert.pipeline.ranking.describe_run", lambda folder: run)
    rank_children(arguments("supernet-0"), data)
    scores = (tmp_path / "scores.jsonl").read_bytes()
    with pytest.raises(ValueError, match="two runs are both uniform, seed 0, step 4"):
        rank_children(arguments("supernet-1"), data)
    assert (tmp_path / "scores.jsonl").read_bytes() == scores


def test_checkpoints_of_two_runs_are_not_one_training(arguments, data, monkeypatch, tmp_path):
    """As many steps, the same method and seed, another learning rate: drawn as one line they would be a lie."""
    steps, rates = iter((2, 4)), iter(("slow", "fast"))
    monkeypatch.setattr(
        "hf_nasbert.pipeline.ranking.describe_run",
        lambda folder: {"method": "uniform", "seed": 0, "step": next(steps), "max_steps": 4},
    )
    monkeypatch.setattr("hf_nasbert.pipeline.ranking.settings_digest", lambda folder: next(rates))
    with pytest.raises(ValueError, match="two runs are both uniform, seed 0"):
        rank_children(arguments("supernet-0", "supernet-1"), data)
    assert not (tmp_path / "scores.jsonl").exists()


def test_scores_of_another_table_are_refused(arguments, data, folder, tmp_path):
    rank_children(arguments("supernet-0"), data)
    text = (folder / "table.jsonl").read_text()
    (tmp_path / "other.jsonl").write_text(text.replace(records.read(folder / "table.jsonl")[0]["recipe_hash"], "abc"))
    with pytest.raises(ValueError, match=r"record 1 was scored for the table .*, not for abc"):
        rank_children(arguments("supernet-0", table=str(tmp_path / "other.jsonl")), data)
