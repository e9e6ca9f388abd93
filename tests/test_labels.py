"""What labels are, whichever file they come from: cases found from outside."""

import json
import logging

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from tiny.files import TEXT, labels_of, lines, put

from hf_nasbert.finetuning.labels import names_of_labels
from hf_nasbert.finetuning.sequence_classification_data import load_files, make_task
from hf_nasbert.finetuning.token_classification_data import load_tagged_files

pytestmark = pytest.mark.usefixtures("own_cache")


class TestLabels:
    """What labels are does not hang on how they are written."""

    @staticmethod
    def task(tmp_path, train: list, validation: list | None = None, **options):
        files = []
        for name, labels in (("train", train), ("dev", train if validation is None else validation)):
            content = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
            files.append(str(put(tmp_path / f"{name}.jsonl", lines(content))))
        return load_files(*files, **options)

    @pytest.mark.parametrize("content", ["{},0.0\n{},1.0\n{},1.0\n", "{},0.\n{},1.00\n{},1e0\n"])
    def test_whole_floats_are_classes_and_it_is_said(self, tmp_path, content, caplog):
        file = str(put(tmp_path / "a.csv", "text,label\n" + content.format("x", "y", "z")))
        with caplog.at_level(logging.WARNING, "hf_nasbert"):
            task = load_files(file, file)
        assert (task.label_names, task.metric, task.train["label"][:]) == (("0", "1"), "sst2", [0, 1, 1])
        assert len(caplog.messages) == 1
        assert "2 different whole numbers, taken for classes" in caplog.text
        assert "problem_type=regression" in caplog.text
        assert load_files(file, file, problem_type="regression").train["label"][:] == [0.0, 1.0, 1.0]

    def test_scores_stay_scores(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "hf_nasbert"):
            assert self.task(tmp_path, [0.0, 0.5, 1.0]).label_names == ()
            assert self.task(tmp_path, [0.0, 1.0], [0.5]).label_names == ()
            assert self.task(tmp_path, [0, 1, 0]).label_names == ("0", "1")
        assert not caplog.messages

    def test_many_whole_numbers_are_said(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "hf_nasbert"):
            assert len(self.task(tmp_path, list(range(21))).label_names) == 21
            assert "21 different whole numbers" in caplog.text
            caplog.clear()
            self.task(tmp_path, list(range(20)))
            assert not caplog.messages

    @pytest.mark.parametrize(
        ("train", "validation", "names"),
        [
            ([0.0, 1.0], [0, 1], ("0", "1")),
            ([0, 1], [0.0, 1.0], ("0", "1")),
            (["0", "1"], [0, 1], ("0", "1")),
            ([0, 1], ["0", "1.0"], ("0", "1")),
            ([False, True], ["False", "True"], ("False", "True")),
            ([False, True], ["false", "TRUE"], ("False", "True")),
            (["false", "true"], [False, True], ("false", "true")),
        ],
    )
    @pytest.mark.parametrize("problem_type", [None, "classification"])
    def test_one_label_in_two_writings_is_one(self, tmp_path, train, validation, names, problem_type):
        task = self.task(tmp_path, train, validation, problem_type=problem_type)
        assert task.label_names == names
        assert task.validation["validation"]["label"][:] == task.train["label"][:] == [0, 1]
        tagged = []
        for name, tags in (("t", train), ("v", validation)):
            tagged.append(str(put(tmp_path / f"{name}.jsonl", lines([{"tokens": ["a", "b"], "tags": tags}]))))
        words = load_tagged_files(*tagged, tokens="tokens", tags="tags")
        assert words.label_names == names
        assert words.splits["validation"]["tags"][:] == [[0, 1]]

    @pytest.mark.parametrize("write", [int, float, str])
    def test_numbers_are_sorted_as_numbers(self, tmp_path, write):
        labels = [write(number) for number in range(11, -1, -1)]
        assert self.task(tmp_path, labels).label_names == tuple(map(str, range(12)))
        file = str(put(tmp_path / "a.jsonl", lines([{"tokens": ["a"] * 12, "tags": labels}])))
        words = load_tagged_files(file, file, tokens="tokens", tags="tags")
        assert words.label_names == tuple(map(str, range(12)))
        assert words.splits["train"]["tags"][0] == list(range(11, -1, -1))

    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            (["10", "9", "-1"], ["-1", "9", "10"]),
            (["b", "10", "9"], ["10", "9", "b"]),
            (["007", "7"], ["007", "7"]),
            ([2.5, 10.0, 0.5], ["0.5", "2.5", "10"]),
            (["x", "B-X", "O"], ["B-X", "O", "x"]),
            ([True, False], ["False", "True"]),
            (["9" * 5000, "1"], ["1", "9" * 5000]),
        ],
    )
    def test_order(self, labels, names):
        assert names_of_labels(labels) == names

    def test_declared_names_that_look_alike_stay_apart(self):
        features = Features({"text": Value("string"), "label": ClassLabel(names=["1.0", "1", "true", "True"])})
        rows = Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 2, 3]}, features=features)
        assert make_task("x", {"train": rows, "validation": rows}).train["label"][:] == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ([0, 1], "the label of row 0 is a list: one label a text is expected"),
            (["x"], "the label of row 0 is a list"),
            ({"a": 1}, "line 1: the column 'label' holds an object"),
            ([{"a": 1}], "the label of row 0 is a list"),
            ([1, "a"], "line 1: the list in the column 'label' cannot be read"),
        ],
    )
    def test_several_labels_a_text(self, tmp_path, label, message):
        with pytest.raises(ValueError, match=message):
            self.task(tmp_path, [label, label])

    def test_one_object_of_splits(self, tmp_path):
        file = put(tmp_path / "a.json", json.dumps({"train": TEXT, "validation": TEXT}))
        with pytest.raises(ValueError, match=r"a\.json, line 1 holds nothing but lists .*'train', 'validation'"):
            labels_of(file)

    def test_several_labels_in_some_rows(self, tmp_path):
        with pytest.raises(ValueError, match=r"train\.jsonl, line 2: the column 'label' holds a list, above a int"):
            self.task(tmp_path, [0, [0, 1]])
        with pytest.raises(
            ValueError, match="the column 'label' holds a list<item: string>, above a list<item: int64>"
        ):
            self.task(tmp_path, [[0], ["x"]])

    def test_no_number_is_no_tag(self, tmp_path):
        file = str(put(tmp_path / "a.jsonl", '{"tokens": ["a", "b"], "tags": [1.0, NaN]}\n'))
        with pytest.raises(ValueError, match="a: row 0 of the train split has the tag nan at 'b'"):
            load_tagged_files(file, file, tokens="tokens", tags="tags")
