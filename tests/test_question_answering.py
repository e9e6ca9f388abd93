"""Questions about passages: SQuAD's metrics by hand, windows that lose no answer, answers by brute force."""

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from helpers import run_recipe
from tiny.finetuning import save_models
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from hf_nasbert.cards import ChildRecord, render_child_card
from hf_nasbert.finetuning import FinetuneSquadArguments, SquadMetric, finetune_squad, squad_metric
from hf_nasbert.finetuning.question_answering import SquadTask, encode_questions, find_answers, load_questions
from hf_nasbert.finetuning.question_answering_data import FEATURES, make_questions
from hf_nasbert.pipeline.child_card import evaluations

pytestmark = pytest.mark.usefixtures("quiet_trainer")

PLACES, OTHERS = ["london", "paris", "rome"], ["ada", "went", "to", "and", "saw", "in"]


def paragraphs(num: int, seed: int, *, unanswerable: bool = False) -> list[dict]:
    """Passages that name one place, asked for it; or, if there may be none, sometimes none."""
    rng, made = random.Random(seed), []
    for number in range(num):
        words = rng.choices(OTHERS, k=rng.randint(6, 30))
        answers = []
        if not unanswerable or number % 3:
            place = rng.randrange(len(words))
            words[place] = rng.choice(PLACES)
            answers = [{"text": words[place], "answer_start": len(" ".join(words[:place])) + (place > 0)}]
        asked = {"id": f"{seed}-{number}", "question": "where to", "answers": answers, "is_impossible": not answers}
        made.append({"context": " ".join(words), "qas": [asked]})
    return made


def write(file: Path, found: list[dict]) -> str:
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "x", "paragraphs": found}]}))
    return str(file)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("squad")
    save_models(home, " ".join([*PLACES, *OTHERS, "where"]))
    for seed, (name, num) in enumerate({"train": 96, "validation": 32, "test": 16}.items()):
        write(home / f"{name}.json", paragraphs(num, seed))
        write(home / f"{name}-v2.json", paragraphs(num, seed, unanswerable=True))
    return home


@pytest.fixture
def arguments(home, tmp_path):
    def make(version: str = "", **changes) -> FinetuneSquadArguments:
        files = {f"{split}_file": str(home / f"{split}{version}.json") for split in ("train", "validation", "test")}
        settings = {
            "model": str(home / "child"), "output_dir": str(tmp_path / "out"), "max_seq_length": 24,
            "max_question_length": 6, "doc_stride": 4, "max_answer_length": 3, "n_best_size": 5, "batch_size": 8,
            "learning_rate": 1e-2, "num_train_epochs": 4, "disable_tqdm": True,
        }  # fmt: skip
        return FinetuneSquadArguments(**({} if "dataset_name" in changes else files) | settings | changes)

    return make


def answers(*texts: str) -> dict[str, list]:
    return {"text": list(texts), "answer_start": [0] * len(texts)}


class TestMetric:
    @pytest.mark.parametrize(
        ("found", "right", "exact", "f1"),
        [
            ("The Denver-Broncos!", ["denverbroncos"], 1.0, 1.0),  # punctuation vanishes, it is no space
            ("an  apple", ["Apple"], 1.0, 1.0),
            ("Denver", ["Denver Broncos"], 0.0, 2 / 3),  # precision 1, recall 1/2
            ("the cat sat", ["cat", "a cat sat down"], 0.0, 4 / 5),  # 2 of 2 and 2 of 3 words; the better one counts
            ("b b", ["b b c"], 0.0, 4 / 5),  # words count as often as they occur
            ("theatre", ["atre"], 0.0, 0.0),  # an article is a word
            ("", ["x"], 0.0, 0.0),
            ("x", [], 0.0, 0.0),
            ("", [], 1.0, 1.0),
            ("the", [], 1.0, 1.0),
        ],
    )
    def test_a_question_by_hand(self, found, right, exact, f1):
        assert squad_metric._exact_and_f1(found, right) == (exact, pytest.approx(f1))

    def test_v1_is_the_mean_in_percent(self):
        found = [{"id": "1", "prediction_text": "Denver"}, {"id": "2", "prediction_text": "a Rome"}]
        right = [{"id": "2", "answers": answers("Rome")}, {"id": "1", "answers": answers("Denver Broncos", "x")}]
        scores = SquadMetric("v1").compute(predictions=found, references=right)
        assert scores == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}
        with pytest.raises(ValueError, match="'v3'; choose v1 or v2"):
            SquadMetric("v3")

    def test_v2_by_hand(self):
        texts = {"1": ("Rome", 0.9), "2": ("Rome", 0.2), "3": ("Oslo", 0.8), "4": ("Bonn", 0.1)}
        found = [{"id": n, "prediction_text": t, "no_answer_probability": p} for n, (t, p) in texts.items()]
        right = {"1": ["Rome"], "2": ["in Rome"], "3": [], "4": []}
        right = [{"id": name, "answers": answers(*own)} for name, own in right.items()]
        scores = SquadMetric("v2").compute(predictions=found, references=right, no_answer_threshold=0.5)
        # Question 1 is withheld although right, 2 half right, 3 rightly withheld, 4 wrongly answered.
        assert scores["exact"] == 100 / 4
        assert scores["f1"] == pytest.approx(100 * (0 + 2 / 3 + 1 + 0) / 4)
        assert (scores["HasAns_exact"], scores["NoAns_exact"], scores["NoAns_f1"]) == (0.0, 50.0, 50.0)
        assert scores["HasAns_f1"] == pytest.approx(100 / 3)
        # All withheld: the two without answer. All answered: 1 and two thirds. 2 and 4 answered: 2/3 and 1.
        assert (scores["best_exact"], scores["best_exact_thresh"]) == (50.0, 0.0)
        assert (scores["best_f1"], scores["best_f1_thresh"]) == (50.0, 0.0)
        # By default nothing is withheld, as in `evaluate`: what is to be withheld is given as empty.
        assert SquadMetric("v2").compute(predictions=found, references=right)["exact"] == 25.0

    def test_the_best_threshold_by_brute_force(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            withheld = rng.integers(0, 2, 9).astype(float)
            answered, absent = rng.random(9) * (1 - withheld), rng.integers(1, 5, 9) / 5  # with ties
            best, threshold = squad_metric._best_threshold(answered, withheld, absent)
            tried = [np.where(absent > t, withheld, answered).mean() for t in (0, *absent)]
            assert best == pytest.approx(max(tried))
            assert np.where(absent > threshold, withheld, answered).mean() == pytest.approx(best)

    def test_a_forgotten_question_is_an_error(self):
        right = [{"id": "1", "answers": answers("x")}]
        found = [{"id": "2", "prediction_text": "x"}]
        with pytest.raises(ValueError, match="1 questions have no prediction, the first is '1'"):
            SquadMetric("v1").compute(predictions=found, references=right)


class TestWindows:
    def test_every_answer_is_whole_in_some_window_and_marked_there(self, arguments):
        task = SquadTask(load_questions(arguments()), arguments())
        tokenizer = AutoTokenizer.from_pretrained(arguments().model)
        inputs = task.encode("train", tokenizer)
        windows, rows = task._windows["train"], task.splits["train"]
        assert len(inputs) > len(rows)
        found = set()
        for window, place in zip(inputs, windows, strict=True):
            ids, row = window["input_ids"], rows[place["number"]]
            assert len(ids) <= 24
            start, end = window["start_positions"], window["end_positions"]
            if end == 0:
                assert not set(tokenizer.convert_ids_to_tokens(ids)) & set(PLACES)
                continue
            found.add(place["number"])
            assert tokenizer.decode(ids[start : end + 1]) == row["answers"]["text"][0]
            assert row["context"][place["offsets"][start][0] : place["offsets"][end][1]] == row["answers"]["text"][0]
        assert found == set(range(len(rows)))

    def test_neighbours_share_the_stride_and_the_question_is_cut(self, arguments):
        tokenizer = AutoTokenizer.from_pretrained(arguments().model)
        rows = {"question": ["where " * 50], "context": ["ada saw rome and went to london in paris " * 4]}
        rows["answers"] = [{"text": ["rome and went"], "answer_start": [8]}]
        asked = arguments()
        encoded = encode_questions(rows, [7], tokenizer, asked)
        assert set(encoded["number"]) == {7}
        assert all(tokenizer.decode(ids).count("where") == 6 for ids in encoded["input_ids"])
        spans = [[tuple(pair) for pair in offsets if pair[0] >= 0] for offsets in encoded["offsets"]]
        for one, other in itertools.pairwise(spans):
            assert one[-4:] == other[:4]
        assert sorted(set(sum(spans, []))) == [  # noqa: RUF017 - a handful
            (word.start(), word.end()) for word in __import__("re").finditer(r"\w+", rows["context"][0])
        ]
        first = encoded["input_ids"][0][encoded["start_positions"][0] : encoded["end_positions"][0] + 1]
        assert tokenizer.decode(first) == "rome and went"
        assert encoded["start_positions"][1:] == [0] * (len(spans) - 1), "not at all"
        # Two words of which the first window ends between, and two between which the second one begins.
        edge = len(spans[0])
        words = spans[0] + spans[1][4:]
        for first_word, where in ((edge - 1, 1), (edge - 5, 0)):
            start, end = words[first_word][0], words[first_word + 1][1]
            rows["answers"] = [{"text": [rows["context"][0][start:end]], "answer_start": [start]}]
            encoded = encode_questions(rows, [7], tokenizer, asked)
            marked = [window for window, end in enumerate(encoded["end_positions"]) if end]
            assert marked == [where], "a window that holds a part of an answer does not hold it"

    def test_an_answer_in_two_windows_counts_where_the_model_is_surer(self, arguments):
        windows = {"number": [0, 0], "offsets": [[[-1, -1], [0, 3]]] * 2}
        for logits in ([[0.0, 1.0], [0.0, 5.0]], [[0.0, 5.0], [0.0, 1.0]]):
            best, _ = find_answers(np.array(logits), np.array(logits), windows, ["ada"], arguments())
            assert [(answer.text, answer.score) for answer in best[0]] == [("ada", 10.0)]

    def test_answers_by_brute_force(self):
        rng = np.random.default_rng(1)
        context = "abcdefghijkl"
        offsets = [[[-1, -1], [-1, -1], *([n, n + 1] for n in range(lo, hi))] for lo, hi in ((0, 7), (5, 12), (0, 4))]
        windows = Dataset.from_dict({"number": [0, 0, 1], "offsets": offsets})
        starts, ends = rng.normal(size=(2, 3, 9))
        starts[2, 6:], ends[2, 6:] = 99, 99  # padding
        starts[0, 0] = -5  # the first of two windows is the one that is surest of an answer
        asked = SimpleNamespace(n_best_size=9, max_answer_length=3)
        found, absent = find_answers(starts, ends, windows, [context, context], asked)
        for number in range(2):
            spans: dict[str, float] = {}
            null = min(starts[w, 0] + ends[w, 0] for w in range(3) if windows[w]["number"] == number)
            for w, own in enumerate(offsets):
                if windows[w]["number"] == number:
                    for a, b in itertools.product(range(2, len(own)), repeat=2):
                        if a <= b < a + 3:
                            text, score = context[own[a][0] : own[b][1]], starts[w, a] + ends[w, b]
                            spans[text] = max(score, spans.get(text, -np.inf))
            expected = sorted(spans.items(), key=lambda item: -item[1])[:9]
            assert [answer.text for answer in found[number]] == [text for text, _ in expected]
            assert [answer.score for answer in found[number]] == pytest.approx([score for _, score in expected])
            assert absent[number] == pytest.approx(1 / (1 + np.exp(expected[0][1] - null)))

    def test_a_passage_without_a_candidate_has_no_answer(self):
        windows = Dataset.from_dict({"number": [0], "offsets": [[[-1, -1], [0, 1]]]})
        logits = np.zeros((1, 2))
        found, absent = find_answers(
            logits, logits, windows, ["x"], SimpleNamespace(n_best_size=1, max_answer_length=0)
        )
        assert (found, absent) == ([[]], [1.0])


class TestFinetuneSquad:
    @pytest.mark.parametrize("model", ["child", pytest.param("bert", marks=pytest.mark.slow)])
    def test_learns_to_point(self, model, home, arguments):
        asked = arguments(model=str(home / model), max_steps=10, eval_steps=1, early_stopping_patience=9)
        (record,) = finetune_squad(asked).records
        assert set(record["metrics"]["test"]) == {"exact_match", "f1", "score", "loss"}
        assert record["metrics"]["validation"]["exact_match"] > 90
        assert record["metrics"]["test"]["score"] == record["metrics"]["test"]["f1"] > 90
        assert record["scores"][0][1] < 80, "not from the start"
        assert record["num_inputs"]["train"] > record["num_samples"]["train"] == 96
        (folder,) = [file.parent for file in Path(asked.output_dir).rglob("model.safetensors")]
        texts = json.loads((folder / "predictions-test.json").read_text())
        right = load_questions(asked).splits["test"]
        num_right = sum(texts[row["id"]] in row["answers"]["text"] for row in right)
        assert 100 * num_right / 16 == record["metrics"]["test"]["exact_match"]
        nbest = json.loads((folder / "nbest-test.json").read_text())
        assert all(nbest[name][0]["text"] == text and len(nbest[name]) <= 5 for name, text in texts.items())
        card = ChildRecord(name="x", architecture="ffn", evaluations=tuple(evaluations([record], [record])))
        assert f"| {home.name} | " in render_child_card(card).replace("`", "")
        assert "After fine-tuning" in render_child_card(card), "of other weights than the child's"
        assert AutoModelForQuestionAnswering.from_pretrained(folder).num_parameters() == record["num_parameters"]

    @pytest.mark.slow
    def test_learns_to_withhold(self, arguments):
        asked = arguments("-v2", max_steps=40, save_models=False)
        (record,) = finetune_squad(asked).records
        found = record["metrics"]["test"]
        assert min(found["HasAns_exact"], found["NoAns_exact"]) > 80
        assert found["best_f1"] >= found["f1"] == found["score"]
        texts = json.loads(next(Path(asked.output_dir).rglob("predictions-test.json")).read_text())
        assert 3 <= sum(not text for text in texts.values()) <= 8

    def test_the_threshold_decides(self, arguments):
        asked = arguments("-v2", max_steps=1, save_models=False, no_answer_threshold=0.0)
        found = finetune_squad(asked).records[0]["metrics"]["test"]
        assert (found["NoAns_exact"], found["HasAns_exact"]) == (100.0, 0.0), "nothing is answered"

    def test_a_dataset_with_the_hubs_columns(self, tmp_path, monkeypatch, arguments):
        rows = {"id": ["1"], "question": ["where"], "context": ["in rome"], "answers": [answers("in")], "title": ["x"]}
        splits = DatasetDict({name: Dataset.from_dict(rows) for name in ("train", "validation")})
        monkeypatch.setattr("hf_nasbert.data.named._load", lambda *_: splits)
        found = load_questions(arguments(dataset_name="rajpurkar/squad"))
        assert (found.name, found.has_unanswerable) == ("squad", False)
        splits["validation"] = splits["validation"].remove_columns("answers")
        with pytest.raises(ValueError, match="the validation split has no column answers"):
            load_questions(arguments(dataset_name="rajpurkar/squad"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"question": " "}, "question 'q' of the train split has no question"),
            ({"context": ""}, "question 'q' of the train split has no context"),
            ({"answers": {"text": ["Rome"], "answer_start": []}}, "has 1 answers and 0 starts"),
            ({"answers": {"text": [""], "answer_start": [0]}}, "has an answer without text"),
            ({"answers": {"text": ["Rome"], "answer_start": [1]}}, "1 training questions .* the first is 'q'"),
            ({"answers": {"text": ["Rome"], "answer_start": [-7]}}, "1 training questions .* the first is 'q'"),
        ],
    )
    def test_bad_questions_are_named(self, changes, message):
        good = {"id": "a", "question": "where?", "context": "in Rome", "answers": answers("in")}
        rows = Dataset.from_list([good, good | {"id": "q"} | changes], features=FEATURES)
        with pytest.raises(ValueError, match=message):
            make_questions("x", {"train": rows, "validation": rows.select([0])})

    def test_misaligned_ones_can_be_left_out_of_training(self):
        rows = [{"id": "a", "question": "w", "context": "in Rome", "answers": answers("in")}]
        rows.append(rows[0] | {"id": "b", "answers": answers("Rome")})
        both = Dataset.from_list(rows, features=FEATURES)
        found = make_questions("x", {"train": both, "validation": both}, drop_misaligned=True)
        assert {split: rows["id"][:] for split, rows in found.splits.items()} == {
            "train": ["a"],
            "validation": ["a", "b"],
        }
        with pytest.raises(ValueError, match="no training question has an answer that stands"):
            make_questions("x", {"train": both.select([1]), "validation": both}, drop_misaligned=True)

    def test_other_misfits(self, home, arguments, tmp_path):
        found = paragraphs(2, 0)
        found[1]["qas"][0]["id"] = found[0]["qas"][0]["id"]
        with pytest.raises(ValueError, match="2 questions of the train split have the id '0-0'"):
            load_questions(arguments(train_file=write(tmp_path / "a.json", found)))
        with pytest.raises(
            ValueError, match=r"question '1-0' of the validation split has no answer, but every training"
        ):
            load_questions(arguments(validation_file=str(home / "validation-v2.json")))
        (tmp_path / "b.json").write_text('{"data": [{"paragraphs": [{"context": "x"}]}]}')
        with pytest.raises(
            ValueError, match=r"b\.json, object 1, paragraph 1 is not in SQuAD's format: 'qas' is missing"
        ):
            load_questions(arguments(train_file=str(tmp_path / "b.json")))
        (tmp_path / "c.json").write_text("{")
        with pytest.raises(ValueError, match=r"c\.json, line 1: broken JSON"):
            load_questions(arguments(train_file=str(tmp_path / "c.json")))
        with pytest.raises(FileNotFoundError, match=r"no SQuAD file .*d\.json"):
            load_questions(arguments(train_file=str(tmp_path / "d.json")))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_file": None}, "exactly one of"),
            ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
            ({"doc_stride": 14}, "doc_stride=14 must lie below 14"),
            ({"n_best_size": 0}, "n_best_size=0"),
            ({"no_answer_threshold": 1.5}, "no_answer_threshold=1.5"),
        ],
    )
    def test_settings_that_make_no_sense(self, arguments, changes, message):
        with pytest.raises(ValueError, match=message):
            arguments(**changes)


def test_recipe(home, tmp_path, capsys):
    argv = f"--model {home / 'bert'} --train_file {home / 'train.json'} --max_steps 1 --max_seq_length 24"
    argv += f" --max_question_length 6 --doc_stride 4 --output_dir {tmp_path} --disable_tqdm --max_train_samples 8"
    run_recipe("finetune_squad", *f"{argv} --validation_file {home / 'validation.json'}".split())
    assert "| validation | exact_match | " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="hf-nasbert finetune-squad: there is no SQuAD file nowhere"):
        run_recipe("finetune_squad", *f"{argv} --validation_file nowhere".split())


def test_of_one_file_the_questions_about_some_passages_are_held_out(arguments):
    questions = load_questions(arguments(validation_file=None, test_file=None, validation_fraction=0.2))
    passages = [set(questions.splits[name]["context"]) for name in ("train", "validation")]
    assert all(passages)
    assert not passages[0] & passages[1]
