"""Token classification: entities by hand, every word counted once, whatever a sentence's length."""

import json
import random
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from helpers import run_recipe
from tiny.finetuning import save_models
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hf_nasbert.finetuning import (
    FinetuneTokensArguments,
    TaggedWords,
    TaggingMetric,
    finetune_tokens,
    load_tagged_dataset,
    tagging_metric,
)
from hf_nasbert.finetuning.token_classification import TokenTask, encode_words, load_words
from hf_nasbert.records import read as read_records

pytestmark = pytest.mark.usefixtures("quiet_trainer")

WORDS = {"ada": "B-PER", "alan": "B-PER", "lovelace": "I-PER", "turing": "I-PER", "london": "B-LOC", "paris": "B-LOC"}
WORDS |= dict.fromkeys(["went", "to", "and", "saw", "in"], "O")


def sentences(num: int, seed: int) -> list[dict[str, list[str]]]:
    """Words whose tags are their own."""
    rng = random.Random(seed)
    drawn = [rng.choices(list(WORDS), k=rng.randint(1, 12)) for _ in range(num)]
    return [{"tokens": tokens, "tags": [WORDS[word] for word in tokens]} for tokens in drawn]


def write(file: Path, rows) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("tokens")
    save_models(home, " ".join(WORDS))
    for seed, (name, num) in enumerate({"train": 120, "validation": 40, "test": 20}.items()):
        write(home / f"{name}.jsonl", sentences(num, seed))
    return home


@pytest.fixture
def arguments(home, tmp_path):
    def make(**changes) -> FinetuneTokensArguments:
        files = {f"{split}_file": str(home / f"{split}.jsonl") for split in ("train", "validation", "test")}
        settings = {
            "model": str(home / "child"), "output_dir": str(tmp_path / "out"), "max_seq_length": 16,
            "learning_rate": 1e-2, "num_train_epochs": 6, "batch_size": 8, "disable_tqdm": True,
            "cache_dir": str(home / "cache"),
        }  # fmt: skip
        return FinetuneTokensArguments(**({} if "dataset_name" in changes else files) | settings | changes)

    return make


class TestEntities:
    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
            ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
            ("I-PER I-PER I-LOC", {("PER", 0, 2), ("LOC", 2, 3)}),  # begins without a B, as CoNLL's script reads it
            ("O O", set()),
            ("B-PER I-LOC I-LOC O I-LOC", {("PER", 0, 1), ("LOC", 1, 3), ("LOC", 4, 5)}),
            ("S-PER I-PER E-PER B-LOC", {("PER", 0, 1), ("PER", 1, 3), ("LOC", 3, 4)}),
            ("B-LOC L-LOC U-LOC I-LOC", {("LOC", 0, 2), ("LOC", 2, 3), ("LOC", 3, 4)}),
            ("B-a-b I-a-b", {("a-b", 0, 2)}),
        ],
    )
    def test_by_hand(self, tags, expected):
        assert tagging_metric.entities(tags.split()) == expected

    def test_f1_by_hand(self):
        right = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "B-LOC"]]
        found = [["B-PER", "O", "O"], ["B-LOC", "O", "B-PER"]]
        # 3 right entities, 3 found, of which one: half an entity and one of another type count for nothing.
        assert TaggingMetric("entities").compute(predictions=found, references=right) == {
            "precision": pytest.approx(1 / 3), "recall": pytest.approx(1 / 3), "f1": pytest.approx(1 / 3),
            "accuracy": pytest.approx(4 / 6),
        }  # fmt: skip
        # The same places in other sentences are other entities.
        assert TaggingMetric("entities").compute(predictions=right[::-1], references=right)["f1"] == 0.0

    def test_macro_f1_is_scikit_learns(self):
        from sklearn.metrics import accuracy_score, f1_score

        rng = random.Random(0)
        right, found = ([[rng.choice("abc") for _ in range(7)] for _ in range(9)] for _ in range(2))
        found[0][0] = "d"  # found and never right
        flat = [[tag for row in rows for tag in row] for rows in (right, found)]
        scores = TaggingMetric("tags").compute(predictions=found, references=right)
        assert scores["macro_f1"] == pytest.approx(f1_score(*flat, average="macro"))
        assert scores["accuracy"] == pytest.approx(accuracy_score(*flat))

    def test_nothing_found_and_nothing_to_find(self):
        scores = TaggingMetric("entities").compute(predictions=[["O"]], references=[["O"]])
        assert scores == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}
        with pytest.raises(ValueError, match="entities or tags"):
            TaggingMetric("spans")

    @pytest.mark.parametrize(
        ("names", "expected"),
        [(("B-A", "I-A", "O"), True), (("S-A", "O"), True), (("NN", "VB"), False), (("B", "I"), False)],
    )
    def test_which_tags_are_entities(self, names, expected):
        assert TaggedWords("x", names, {}).has_entities is expected


class TestEncoding:
    def test_every_word_is_labelled_once_at_its_first_piece(self, home):
        tokenizer = AutoTokenizer.from_pretrained(home / "child")
        rows = {"tokens": [["londonparis"] * 5, ["ada"], ["saw", "\u200b", "paris"]]}
        rows["tags"] = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]
        assert tokenizer.tokenize("\u200b") == []
        pieces = tokenizer.tokenize("londonparis")
        assert len(pieces) > 2
        encoded = encode_words(rows, [10, 11, 12], tokenizer, max_seq_length=6)
        assert all(len(ids) <= 6 for ids in encoded["input_ids"])
        labelled: dict[int, list[tuple[int, str]]] = {10: [], 11: [], 12: []}
        for ids, labels, sentence in zip(encoded["input_ids"], encoded["labels"], encoded["sentence"], strict=True):
            tokens = tokenizer.convert_ids_to_tokens(ids)
            labelled[sentence] += [pair for pair in zip(labels, tokens, strict=True) if pair[0] != -100]
        assert labelled[10] == [(tag, pieces[0]) for tag in (1, 2, 3, 4, 5)]
        assert [tag for tag, _ in labelled[12]] == [7, 8, 9]
        assert labelled[12][1] == (8, "[UNK]"), "a word of which nothing is left is still asked for"

    def test_a_short_window_changes_what_is_seen_and_not_what_counts(self, arguments):
        task = TokenTask(load_words(arguments()), max_seq_length=5)
        tokenizer = AutoTokenizer.from_pretrained(arguments().model)
        inputs = task.encode("validation", tokenizer)
        assert len(inputs) > len(task.splits["validation"])
        labels = [label for row in inputs["labels"] for label in row if label != -100]
        assert labels == [tag for row in task.splits["validation"]["tags"] for tag in row]


class TestFinetuneTokens:
    @pytest.mark.parametrize("model", ["child", pytest.param("bert", marks=pytest.mark.slow)])
    def test_learns_entities(self, model, home, arguments):
        asked = arguments(model=str(home / model), eval_steps=3, early_stopping_patience=3, num_train_epochs=3)
        (record,) = finetune_tokens(asked).records
        assert record["metrics"]["validation"]["f1"] > 0.95
        assert record["metrics"]["test"]["f1"] > 0.95
        assert record["scores"][0][1] < 0.9, "not from the start"
        assert set(record["metrics"]["test"]) == {"precision", "recall", "f1", "accuracy", "score", "loss"}
        assert record["metrics"]["test"]["score"] == record["metrics"]["test"]["f1"]
        assert record["selected_on"] == "validation"
        assert read_records(asked.records_file) == [record]
        (weights,) = Path(asked.output_dir).rglob("model.safetensors")
        saved = AutoModelForTokenClassification.from_pretrained(weights.parent)
        assert saved.config.id2label == dict(enumerate(["B-LOC", "B-PER", "I-PER", "O"]))
        inputs = AutoTokenizer.from_pretrained(weights.parent)(["ada", "saw", "paris"], is_split_into_words=True)
        logits = saved(torch.tensor([inputs["input_ids"]])).logits[0]
        first = {word: place for place, word in reversed(list(enumerate(inputs.word_ids()))) if word is not None}
        tags = [saved.config.id2label[int(logits[first[word]].argmax())] for word in range(3)]
        assert tags == ["B-PER", "O", "B-LOC"]

    def test_long_sentences_in_parts_reach_the_same_words(self, arguments):
        record = finetune_tokens(arguments(max_seq_length=6, max_steps=2, save_models=False)).records[0]
        assert record["num_inputs"]["validation"] > record["num_samples"]["validation"] == 40

    def test_other_tags_have_accuracy(self, arguments, tmp_path):
        rows = [{"words": ["ada", "saw"], "pos": ["NN", "VB"]}, {"words": ["paris"], "pos": ["NN"]}]
        files = {f"{name}_file": write(tmp_path / f"{name}.jsonl", rows) for name in ("train", "validation")}
        asked = arguments(
            **files, test_file=None, tokens_column="words", tags_column="pos", max_steps=1,
            save_models=False,
        )  # fmt: skip
        result = finetune_tokens(asked)
        assert set(result.summary()["validation"]) == {"accuracy", "macro_f1", "score", "loss"}
        assert "| validation | macro_f1 | " in result.table()

    def test_a_folder_of_a_dataset_names_its_tags(self, tmp_path):
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-X"]))})
        rows = Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [[1, 0]]}, features=features)
        DatasetDict({"train": rows, "validation": rows}).save_to_disk(tmp_path / "set")
        words = load_tagged_dataset(str(tmp_path / "set"), tokens="tokens", tags="ner_tags")
        assert (words.name, words.label_names, words.has_entities) == ("set", ("O", "B-X"), True)
        assert words.splits["train"][0] == {"tokens": ["a", "b"], "tags": [1, 0]}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"tokens": ["a", "b"], "tags": ["X"]}], "row 0 of the train split has 2 words and 1 tags"),
            ([{"tokens": ["a"], "tags": ["X"]}, {"tokens": [], "tags": []}], "row 1 of the train split has no words"),
            ([{"tokens": ["a", " "], "tags": ["X", "Y"]}], "row 0 of the train split has ' ' among its words"),
            ([{"tokens": ["a", "b"], "tags": ["X", None]}], "has the tag None at 'b'"),
            ([{"tokens": ["a", "b"], "tags": ["X", "X"]}], "every training tag is 'X'"),
            ([{"tokens": "a b", "tags": ["X", "Y"]}], "must be lists, found 'a b'"),
            ([{"words": ["a"], "tags": ["X"]}], "no column 'tokens', only words, tags"),
            (
                [{"tokens": ["a", "b"], "tags": ["X", "O"]}],
                "validation split has tags that training never sees: B-LOC",
            ),
        ],
    )
    def test_bad_data_are_named_before_training(self, rows, message, arguments, tmp_path):
        with pytest.raises(ValueError, match=message):
            finetune_tokens(arguments(train_file=write(tmp_path / "bad.jsonl", rows), model="nowhere-needed"))

    def test_what_else_is_refused(self, arguments, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no tagged file .*none\.jsonl"):
            load_words(arguments(validation_file=str(tmp_path / "none.jsonl")))
        (tmp_path / "a.conll").write_text("x")
        with pytest.raises(ValueError, match=r"a\.conll is of no known kind: .* \.json, \.jsonl, \.parquet"):
            load_words(arguments(validation_file=str(tmp_path / "a.conll")))
        for changes in ({"train_file": None}, {"dataset_name": "x", "train_file": "y"}):
            with pytest.raises(ValueError, match="exactly one of dataset_name and train_file"):
                arguments(**changes)


def test_recipe(home, tmp_path, capsys):
    argv = f"--model {home / 'child'} --train_file {home / 'train.jsonl'} --max_steps 1 --max_seq_length 16"
    argv = f"{argv} --output_dir {tmp_path} --validation_file"
    run_recipe("finetune_tokens", *f"{argv} {home / 'validation.jsonl'} --disable_tqdm".split())
    assert "| validation | f1 | " in capsys.readouterr().out
    bad = write(tmp_path / "bad.jsonl", [{"tokens": ["a"], "tags": []}])
    with pytest.raises(SystemExit, match=r"hf-nasbert finetune-tokens: .*has 1 words and 0 tags"):
        run_recipe("finetune_tokens", *f"{argv} {bad}".split())


def test_of_one_file_a_part_is_held_out(arguments):
    words = load_words(arguments(validation_file=None, test_file=None, validation_fraction=0.2))
    whole = load_words(arguments()).splits["train"]
    parts = [{" ".join(tokens) for tokens in words.splits[name]["tokens"]} for name in ("train", "validation")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {" ".join(tokens) for tokens in whole["tokens"]}
