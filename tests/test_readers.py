"""One reader for data files of every kind, data sets by name, and what labels are: cases found from outside."""

import bz2
import contextlib
import gzip
import io
import json
import logging
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_nasbert.data import DataArguments, load_text, read_rows
from hf_nasbert.data.files import find_files
from hf_nasbert.data.formats import stream_rows
from hf_nasbert.finetuning import FinetuneArguments, FinetuneSquadArguments, FinetuneTokensArguments
from hf_nasbert.finetuning.labelled import load_files, load_named, make_task, names_of_labels
from hf_nasbert.finetuning.questions import load_questions
from hf_nasbert.finetuning.sentences import load_task
from hf_nasbert.finetuning.squad import load_squad_files
from hf_nasbert.finetuning.tagged import load_tagged_files
from hf_nasbert.finetuning.tokens import load_words
from hf_nasbert.recipe_arguments import read_config

TEXT = [{"text": f"text number {number}", "label": "ab"[number % 2]} for number in range(4)]
TAGGED = [{"tokens": ["a", "b"], "tags": ["X", "O"]}, {"tokens": ["c"], "tags": ["O"]}]
ASKED = [
    {"id": str(n), "context": "in Rome", "question": "where?", "answers": {"text": ["Rome"], "answer_start": [3]}}
    for n in range(2)
]
NESTED = [{"title": "x", "paragraphs": [{"context": "in Rome", "qas": [
    {"id": str(n), "question": "where?", "answers": [{"text": "Rome", "answer_start": 3}]} for n in range(2)
]}]}]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return path


def lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows: list) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def separated(rows: list, delimiter: str) -> str:
    return "".join(delimiter.join(map(str, row)) + "\n" for row in [rows[0].keys(), *(row.values() for row in rows)])


def words_of(file: object) -> list:
    words = load_tagged_files(str(file), str(file), tokens="tokens", tags="tags")
    return [
        {"tokens": row["tokens"], "tags": [words.label_names[tag] for tag in row["tags"]]}
        for row in words.splits["train"]
    ]


def questions_of(file: object) -> list:
    return list(load_squad_files(str(file), str(file)).splits["train"])


def texts_of(*files: object) -> list[str]:
    return load_text(DataArguments(train_files=[str(file) for file in files]))["text"][:]


def labels_of(file: object) -> list[tuple[str, str]]:
    task = load_files(str(file), str(file))
    return [(row["text"], task.label_names[row["label"]]) for row in task.train]


COMMANDS: dict[str, tuple[Callable, list, list]] = {
    "pretrain": (texts_of, TEXT, [row["text"] for row in TEXT]),
    "finetune": (labels_of, TEXT, [(row["text"], row["label"]) for row in TEXT]),
    "finetune-tokens": (words_of, TAGGED, TAGGED),
    "finetune-squad": (questions_of, ASKED, ASKED),
}
CONTAINERS: dict[str, Callable[[list], bytes | str]] = {
    "a.jsonl": lines,
    "a.JSONL": lines,
    "a.json": json.dumps,
    "bom.jsonl": lambda rows: "\ufeff" + lines(rows),
    "crlf.jsonl": lambda rows: lines(rows).replace("\n", "\r\n"),
    "indented.json": lambda rows: json.dumps(rows, indent=2),
    "data.json": lambda rows: json.dumps({"version": "1.1", "data": rows}, indent=2),
    "line.json": lambda rows: json.dumps({"version": "1.1", "data": rows}),
    "a.parquet": parquet,
    "A.Parquet": parquet,
    "a.jsonl.gz": lines,
    "a.json.GZ": lambda rows: json.dumps({"data": rows}, indent=1),
    "a.parquet.gz": parquet,
    "run[1]/a*b?.jsonl": lines,
}
FLAT = {
    "a.csv": lambda rows: separated(rows, ","),
    "a.tsv": lambda rows: separated(rows, "\t"),
    "a.TSV.gz": lambda rows: "\ufeff" + separated(rows, "\t"),
}


class TestEveryCommandReadsEveryContainer:
    @pytest.mark.parametrize("container", [*CONTAINERS, *FLAT])
    @pytest.mark.parametrize("command", COMMANDS)
    def test_with_the_same_rows(self, tmp_path, command, container):
        read, rows, expected = COMMANDS[command]
        if container in FLAT and read in (words_of, questions_of):
            file = put(tmp_path / container, b"x,y\n1,2\n")
            with pytest.raises(ValueError, match=r"is of no known kind: its name must end in one of \.json, "):
                read(file)
            return
        content = {**CONTAINERS, **FLAT}[container](rows)
        assert read(put(tmp_path / container, content)) == expected

    @pytest.mark.parametrize("command", COMMANDS)
    def test_folders_and_patterns(self, tmp_path, command, caplog):
        read, rows, expected = COMMANDS[command]
        (tmp_path / "d" / "sub.jsonl").mkdir(parents=True)
        put(tmp_path / "d" / "2.jsonl", lines(rows[1:]))
        put(tmp_path / "d" / "1.jsonl.gz", lines(rows[:1]))
        put(tmp_path / "d" / "README.md", "# no data")
        put(tmp_path / "d" / ".hidden.jsonl", "broken")
        with caplog.at_level(logging.WARNING, "hf_nasbert"):
            assert read(tmp_path / "d") == expected
            assert read(f"{tmp_path}/d/*.jsonl*") == expected
            assert read(f"{tmp_path}/**/?.jsonl*") == expected
        assert "1.jsonl.gz" in caplog.messages[0], "what was read is said"
        put(tmp_path / "d" / "3.json", "[]")
        with pytest.raises(ValueError, match=r"d is a folder of several kinds .*1\.jsonl\.gz.*3\.json"):
            read(tmp_path / "d")
        with pytest.raises(FileNotFoundError, match="none that matches"):
            read(f"{tmp_path}/d/*.parquet")

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("b.jsonl", b"null\n", "line 1: an object of columns is needed, this is a NoneType"),  # pyarrow dies of it
            ("b.jsonl", b"null\n{}\n", "line 1: .*NoneType"),
            ("b.json", b'{"data": [null, {}]}', "object 1: .*NoneType"),
            ("b.jsonl", b"{}\n\nnull\n", "b.jsonl, line (1|3)"),
            ("b.json", b'{\n "text": "a",\n', "b.json, line 3: broken JSON"),
            ("b.json", b'{"text": {"0": "a"}, "label": {"0": 1}}', "one JSON object of columns .*'text', 'label'"),
            ("b.jsonl", b'{"a": 1, "a": 2}\n', "line 1: broken JSON .*twice"),
            ("b.jsonl", b"\xff\n", "not UTF-8"),
            ("b.jsonl", "{}".encode("utf-16"), "not UTF-8|binary"),
            ("b.jsonl", b"[" * 100_000, "broken JSON"),
            ("b.parquet", b"PAR1 but no parquet", "broken Parquet"),
            ("b.jsonl", b"", "is empty"),
            ("b.jsonl.gz", b"", "is empty"),
            ("b.zip", b"x", "of no known kind"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, command, name, content, message):
        file = put(tmp_path / name, content)
        with pytest.raises(ValueError, match=message) as error:
            COMMANDS[command][0](file)
        assert name in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("name", ["b.jsonl.gz", "b.parquet.gz"])
    def test_damaged_gzip_is_one_error(self, tmp_path, command, name):
        whole = gzip.compress(
            parquet(COMMANDS[command][1]) if "parquet" in name else lines(COMMANDS[command][1]).encode()
        )
        bad = bytearray(whole)
        bad[len(bad) // 2] ^= 255
        for content in (whole[:-12], whole[: len(whole) // 2], b"no gzip", bytes(bad), whole + b"garbage"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name}.* is damaged, or no gzip file"):
                COMMANDS[command][0](tmp_path / name)


class TestPaths:
    """The file that was named is the one that is read."""

    @pytest.mark.parametrize("command", COMMANDS)
    def test_brackets_are_letters(self, tmp_path, command):
        read, rows, expected = COMMANDS[command]
        put(tmp_path / "run1" / "train.jsonl", lines(rows[:1]))
        for name in ("run[1]/train.jsonl", "run[1]/*.jsonl"):
            with pytest.raises(FileNotFoundError, match=r"no .* file .*run\[1\]"):
                read(tmp_path / name)
        put(tmp_path / "run[1]" / "train.jsonl", lines(rows))
        for name in ("run[1]/train.jsonl", "run[1]/*.jsonl", "run[1]"):
            assert read(tmp_path / name) == expected

    def test_a_folder_that_is_called_like_a_pattern_is_that_folder(self, tmp_path):
        for folder in ("NER*", "NERold", "NERo?d"):
            put(tmp_path / folder / "train.txt", folder)
        for name in ("NER*/train.txt", "NER*/t*.txt", "NER*"):
            assert [str(file) for file in find_files(tmp_path / name, [".txt"])] == [f"{tmp_path}/NER*/train.txt"]
        assert texts_of(tmp_path / "NERo?d" / "train.txt") == ["NERo?d"]

    def test_relative_patterns(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        put(tmp_path / "b" / "x.txt", "one")
        put(tmp_path / "a.txt", "two")
        assert texts_of("*.txt") == ["two"]
        assert texts_of("**/*.txt") == ["two", "one"]
        with pytest.raises(ValueError, match="empty"):
            find_files("", [".txt"])

    def test_what_save_to_disk_wrote_is_no_folder_of_files(self, tmp_path):
        DatasetDict({"train": Dataset.from_list(TEXT)}).save_to_disk(tmp_path / "d")
        for folder in (tmp_path / "d", tmp_path / "d" / "train"):
            with pytest.raises(ValueError, match="give it by dataset_name"):
                texts_of(folder)

    def test_the_same_text_packed_and_not(self, tmp_path):
        put(tmp_path / "d" / "a.txt", "one")
        put(tmp_path / "d" / "a.txt.gz", "one")
        with pytest.raises(ValueError, match=r"a\.txt\.gz beside a\.txt"):
            texts_of(tmp_path / "d")


class TestYaml:
    def test_one_name_is_a_list_of_one(self, tmp_path):
        path = put(tmp_path / "c.yaml", "train_files: my.txt\n")
        assert read_config(path, [DataArguments]) == {"train_files": ["my.txt"]}
        path = put(tmp_path / "c.yaml", "text_columns: body\nseeds: [1]\n")
        assert read_config(path, [FinetuneArguments]) == {"text_columns": ["body"], "seeds": [1]}
        with pytest.raises(ValueError, match="train_files"):
            read_config(put(tmp_path / "c.yaml", "train_files: 3\n"), [DataArguments])


class TestLines:
    """Which rows a text file has, and which it seems to have."""

    def quoted(self, delimiter: str, labels: tuple = ("1", "0")) -> str:
        """32 rows, of which the marks at row 3 and row 9 hang together."""
        texts = [f"text number {number}" for number in range(32)]
        texts[3], texts[9] = '"i loved every minute of it ', 'said the critic "'
        rows = [f"{text}{delimiter}{labels[number % len(labels)]}" for number, text in enumerate(texts)]
        return "\n".join([f"sentence{delimiter}label", *rows, ""])

    def test_a_tsv_is_not_quoted(self, tmp_path):
        rows = read_rows(put(tmp_path / "a.tsv", self.quoted("\t")))
        assert len(rows) == 32
        assert rows[3] == {"sentence": '"i loved every minute of it ', "label": 0}
        marks = ['"', 'a "b" c', '"a" b', 'a"', '""', "'", '"a']
        content = "text\tlabel\n" + "".join(f"{text}\tx\n" for text in marks)
        assert read_rows(put(tmp_path / "b.tsv", content))["text"][:] == marks
        assert texts_of(tmp_path / "b.tsv") == marks

    def test_a_tsv_that_was_written_quoted_is_said(self, tmp_path, caplog):
        put(tmp_path / "a.tsv", 'text\tlabel\nx\ta\n"say ""hi"""\tb\n')
        with caplog.at_level(logging.WARNING, "hf_nasbert"):
            read_rows(tmp_path / "a.tsv")
        assert "a.tsv, line 3: a field looks quoted" in caplog.text
        put(tmp_path / "a.tsv", 'text\tlabel\n"two\nlines"\tb\n')
        with pytest.raises(ValueError, match=r"line 2: 1 fields, the header has 2 \(a tsv file is not quoted\)"):
            read_rows(tmp_path / "a.tsv")

    @pytest.mark.parametrize(
        "labels",
        [
            ("1", "0"),
            ("pos", "neg"),
            tuple(f"{n}.{n}5" for n in range(9)),
            tuple(f"{n}.5E-03" if n % 2 else f"{n}e-05" for n in range(32)),  # each stands once
        ],
    )
    @pytest.mark.parametrize("read", [read_rows, texts_of])
    def test_a_stray_mark_that_swallows_rows_of_a_csv_is_refused(self, tmp_path, labels, read):
        content = self.quoted(",", labels).replace("sentence", "text")
        with pytest.raises(ValueError, match=r"a\.csv, line 5: a quotation mark .* ends in line 11"):
            read(put(tmp_path / "a.csv", content))

    def test_also_where_the_label_stands_first(self, tmp_path):
        rows = [f"{n % 2},text {n}" for n in range(9)]
        rows[2], rows[4] = '0,"so good', '0,he said"'
        with pytest.raises(ValueError, match=r"line 4: a quotation mark .* ends in line 6"):
            read_rows(put(tmp_path / "a.csv", "\n".join(["label,text", *rows])))

    def test_fields_that_span_lines_stay_right_in_a_csv(self, tmp_path):
        texts = [
            "Hello, world\nfoo",
            "foo\nbar, baz",
            "a\n\nb",
            'say ""hi"", then\r\ngo, on',
            "He paid 1,200\nfoo",
            "x",
        ]
        content = "text,label\n" + "".join(f'"{text}",{number % 2}\n' for number, text in enumerate(texts))
        rows = read_rows(put(tmp_path / "a.csv", content))
        assert rows["text"][:] == [text.replace('""', '"') for text in texts]
        assert rows["label"][:] == [0, 1] * 3

    @pytest.mark.parametrize("content", ['text,n\n"a" b,1\n', 'text,n\nx,1\n"a,1\nb,2\n', 'text,n\n"a",1\n"b"c,2\n'])
    def test_marks_in_other_places_are_refused_by_line(self, tmp_path, content):
        for read in (read_rows, texts_of):
            with pytest.raises(ValueError, match=r"a\.csv: broken CSV in the row after line \d"):
                read(put(tmp_path / "a.csv", content))

    def test_marks_within_a_field_are_letters(self, tmp_path):
        assert read_rows(put(tmp_path / "a.csv", 'text,n\nsay "hi",1\n5" disk,2\n'))["text"][:] == [
            'say "hi"',
            '5" disk',
        ]

    @pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
    def test_only_line_ends_end_a_line(self, tmp_path, sign):
        text = f"one{sign}two"
        assert texts_of(put(tmp_path / "a.txt", f"{text}\nthree\n")) == [text, "three"]
        for kind, delimiter in ((".csv", ","), (".tsv", "\t")):
            file = put(tmp_path / f"a{kind}", f"text{delimiter}label\n{text}{delimiter}x\n{text}{delimiter}y\n")
            assert read_rows(file)["text"][:] == [text, text]
        file = put(tmp_path / "a.jsonl", json.dumps({"text": "one\u2028two"}, ensure_ascii=False) + "\n")
        assert texts_of(file) == ["one\u2028two"]

    @pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
    def test_every_line_end_ends_a_line(self, tmp_path, end):
        assert texts_of(put(tmp_path / "a.txt", end.join(["one", "two", "", "three"]))) == ["one", "two", "three"]
        for name, row in (("a.csv", "{},{}"), ("a.tsv", "{}\t{}")):
            content = end.join(row.format(*pair) for pair in (("text", "label"), ("one", "x"), ("two", "y")))
            assert read_rows(put(tmp_path / name, content))["text"][:] == ["one", "two"]
        assert texts_of(put(tmp_path / "a.jsonl", end.join(['{"text": "one"}', '{"text": "two"}']))) == ["one", "two"]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.tsv", "text\tlabel\none\rtwo\tx\n", "line 2: 1 fields, the header has 2"),
            ("a.csv", "text,label\none,x,\n", "line 2: 3 fields, the header has 2"),
            ("a.tsv", "text\tlabel\none\tx\t\n", "line 2: 3 fields, the header has 2"),
            ("a.csv", "text,label\none\0,x\n", "zero byte"),
            ("a.csv.gz", "text,label\none\0,x\n", "zero byte"),
            ("a.csv", "text,label,,\none,x,,\n", "two columns are called ''"),
        ],
    )
    def test_cut_rows_are_refused_by_line(self, tmp_path, name, content, message):
        with pytest.raises(ValueError, match=message) as error:
            read_rows(put(tmp_path / name, content))
        assert name in str(error.value)


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


class TestParquet:
    def test_names_of_classes_are_kept(self, tmp_path):
        features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-X"]))})
        Dataset.from_dict({"tokens": [["a", "b"]], "tags": [[1, 0]]}, features=features).to_parquet(
            tmp_path / "a.parquet"
        )
        file = str(tmp_path / "a.parquet")
        assert load_tagged_files(file, file, tokens="tokens", tags="tags").label_names == ("O", "B-X")

    def test_categories_are_what_they_stand_for(self, tmp_path):
        table = pa.table({"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()})
        pa.parquet.write_table(table, tmp_path / "a.parquet")
        assert labels_of(tmp_path / "a.parquet") == [("a", "x"), ("b", "y")]

    def test_odd_ones_are_named(self, tmp_path):
        pa.parquet.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
        odd = pa.table({"text": ["a"]}).replace_schema_metadata({"huggingface": '{"info": {"features": {"text": 3}}}'})
        pa.parquet.write_table(odd, tmp_path / "b.parquet")
        pa.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
        for name, message in (("a", "two columns are called"), ("b", "cannot be read"), ("c", "holds no rows")):
            with pytest.raises(ValueError, match=rf"{name}\.parquet.*{message}"):
                read_rows(tmp_path / f"{name}.parquet")

    def test_parts_must_have_the_same_columns(self, tmp_path):
        put(tmp_path / "d" / "a.parquet", parquet([{"text": "a", "label": 1}]))
        put(tmp_path / "d" / "b.parquet", parquet([{"text": "a", "label": "x"}]))
        with pytest.raises(ValueError, match=r"b\.parquet has other columns than .*a\.parquet"):
            read_rows(tmp_path / "d")


class TestParts:
    def test_numbers_in_one_part_and_names_in_another_are_names(self, tmp_path):
        put(tmp_path / "d" / "1.csv", "text,label\na,1\nb,2\n")
        put(tmp_path / "d" / "2.csv", "text,label\nc,x\n")
        assert read_rows(tmp_path / "d")["label"][:] == ["1", "2", "x"]

    def test_one_name_of_several_kinds(self, tmp_path):
        put(tmp_path / "d" / "1.csv", "text,label\na,1\n")
        put(tmp_path / "d" / "2.jsonl", lines(TEXT))
        with pytest.raises(ValueError, match=r"are of several kinds \(\.csv, \.jsonl\)"):
            read_rows(tmp_path / "d" / "*")


class TestQuestions:
    @pytest.mark.parametrize("content", ["\n", "[]", '{"data": []}', '[{"paragraphs": []}]'])
    def test_none_at_all(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"a\.json holds no questions"):
            questions_of(put(tmp_path / "a.json", content))

    @pytest.mark.parametrize(
        "rows",
        [
            NESTED,
            NESTED[0]["paragraphs"],
            [row | {"id": int(row["id"])} for row in ASKED],
            [row | {"answers": [{"text": "Rome", "answer_start": 3}]} for row in ASKED],
            [row | {"title": None, "paragraphs": None} for row in ASKED],
        ],
    )
    @pytest.mark.parametrize("container", ["a.jsonl", "data.json", "line.json", "indented.json"])
    def test_all_forms_are_the_same_questions(self, tmp_path, rows, container):
        assert questions_of(put(tmp_path / container, CONTAINERS[container](rows))) == ASKED

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"id": None}, "'id' is missing"),
            ({"id": True}, "the column 'id' holds a bool"),
            ({"context": 3}, "the column 'context' holds a int"),
            ({"question": "\ud800"}, "half a character"),
            ({"answers": "Rome"}, "answers must be a list of objects"),
            ({"answers": {"text": "Rome", "answer_start": [3]}}, "text of the answers is a str"),
            ({"answers": {"text": ["Rome"], "answer_start": ["3"]}}, "starts at '3'"),
            ({"answers": {"text": ["Rome"], "answer_start": [2**70]}}, "starts at '1180591620717411303424'"),
            ({"answers": [{"text": "Rome"}]}, "'answer_start' is missing"),
            ({"paragraphs": 3}, "paragraphs must be a list"),
            ({"qas": [3]}, "qas must be a list of objects"),
            ({"is_impossible": "false"}, "is_impossible is 'false', expected true or false"),
        ],
    )
    def test_what_does_not_fit_is_named_by_its_line(self, tmp_path, change, message):
        file = put(tmp_path / "a.jsonl", lines([ASKED[0], ASKED[1] | change]))
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 2.*{message}"):
            questions_of(file)


def saved(folder: Path, rows: list) -> str:
    DatasetDict(dict.fromkeys(("train", "validation"), Dataset.from_list(rows))).save_to_disk(folder)
    return str(folder)


@contextlib.contextmanager
def suppress_named(*names: str) -> Iterator[None]:
    """A result, or one line that holds one of the names."""
    try:
        yield
    except (ValueError, OSError) as error:
        said = str(error)
    else:
        return
    assert any(name in said for name in names), said
    assert "\n" not in said


def load_by_name(command: str, name: str, **options):
    """What a command loads of `dataset_name`."""
    if command == "pretrain":
        return load_text(DataArguments(dataset_name=name, **options))["text"][:]
    kind, load = {
        "finetune": (FinetuneArguments, load_task),
        "finetune-tokens": (FinetuneTokensArguments, load_words),
        "finetune-squad": (FinetuneSquadArguments, load_questions),
    }[command]
    return load(kind(model="m", output_dir="o", dataset_name=name, **options))


class TestNamedDatasets:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_folder_of_save_to_disk(self, tmp_path, command):
        rows = COMMANDS[command][1]
        found = load_by_name(command, saved(tmp_path / "d", rows))
        if command == "pretrain":
            assert found == [row["text"] for row in rows]
        else:
            assert len(found.splits["train"]) == len(rows)
            assert found.name == "d"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_loading_script(self, tmp_path, command):
        put(tmp_path / "d" / "d.py", "# a loading script")
        with pytest.raises(ValueError, match=r"the data set .*/d has a loading script, which .* no longer runs"):
            load_by_name(command, str(tmp_path / "d"))

    @pytest.mark.parametrize("command", COMMANDS)
    def test_no_hub(self, tmp_path, command, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        with pytest.raises(ConnectionError, match=r"the data set me/there-is-none-x cannot be reached on the Hub"):
            load_by_name(command, "me/there-is-none-x")

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("x"), KeyError("x"), TypeError("x"), AttributeError("a\nb"), NotImplementedError("x"),
            datasets.exceptions.DatasetGenerationError("x"),
            datasets.exceptions.NonMatchingSplitsSizesError([{"a": 1}]),
            datasets.exceptions.DatasetNotFoundError("no such"), TimeoutError("x"), OSError(28, "No space left"),
            pa.ArrowInvalid("x"), RecursionError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        ],
    )  # fmt: skip
    def test_whatever_the_library_raises_is_one_line(self, command, error, monkeypatch):
        def load(*_, **__):
            raise error

        monkeypatch.setattr(datasets, "load_dataset_builder", load)
        with pytest.raises((ValueError, OSError), match="the data set me/x ") as raised:
            load_by_name(command, "me/x")
        assert "\n" not in str(raised.value)

    def test_causes_are_told_apart(self, monkeypatch):
        def load(*_, **__):
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from pa.ArrowInvalid("column 3")

        monkeypatch.setattr(datasets, "load_dataset_builder", load)
        with pytest.raises(ValueError, match=r"me/x \(big\) does not load \(ArrowInvalid: column 3\)"):
            load_named("me/x", "big")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_splits_and_configurations_that_are_not_there(self, tmp_path, command):
        put(tmp_path / "d" / "train.parquet", parquet(COMMANDS[command][1]))
        name = str(tmp_path / "d")
        with pytest.raises(ValueError, match="validation"):
            load_by_name(command, name, **({"dataset_split": "validation"} if command == "pretrain" else {}))
        with pytest.raises(ValueError, match=r"the data set .*/d \(big\) does not load .*big"):
            load_by_name(command, name, dataset_config="big")
        with pytest.raises(FileNotFoundError, match=r"the data set .*nowhere is not there"):
            load_by_name(command, f"{tmp_path}/x/nowhere")

    def test_a_split_that_save_to_disk_did_not_write(self, tmp_path):
        name = saved(tmp_path / "d", TEXT)
        with pytest.raises(ValueError, match=r"/d has no split 'test', only train, validation"):
            load_by_name("pretrain", name, dataset_split="test")
        assert len(load_by_name("pretrain", f"{name}/train")) == 4

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"splits": 3}', '{"splits": ["../../x"]}', "null"])
    def test_broken_folders_of_save_to_disk(self, tmp_path, command, content):
        name = saved(tmp_path / "d", COMMANDS[command][1])
        for file in ("dataset_dict.json", "train/dataset_info.json", "train/state.json"):
            whole = (tmp_path / "d" / file).read_text()
            (tmp_path / "d" / file).write_text(content)
            with suppress_named(str(tmp_path / "d"), "d: there is no"):
                load_by_name(command, name)
            (tmp_path / "d" / file).write_text(whole)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["train.jsonl", "train.ndjson", "train.jsonl.xz", "train.jsonl.bz2", "train.zip"])
    def test_what_pyarrow_dies_of_ends_in_one_line(self, tmp_path, name):
        content = b'null\n{"text": "a"}\n'
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("train.jsonl", content)
        pack = {".xz": lzma.compress, ".bz2": bz2.compress, ".zip": lambda _: packed.getvalue()}
        put(tmp_path / "d" / name, pack.get(Path(name).suffix, bytes)(content))
        reason = "train.jsonl, line 1: an object of columns is needed" if name == "train.jsonl" else "by signal"
        with pytest.raises(ValueError, match=rf"the data set .*/d does not load .*{reason}"):
            load_by_name("pretrain", str(tmp_path / "d"))

    @pytest.mark.slow
    def test_json_that_is_no_rows_may_lie_beside_them(self, tmp_path):
        put(tmp_path / "d" / "train.jsonl", lines(TEXT))
        put(tmp_path / "d" / "README.md", "---\nconfigs:\n- config_name: default\n  data_files: train.jsonl\n---\n")
        put(tmp_path / "d" / "labels.json", '["a", "b"]')
        assert load_by_name("pretrain", str(tmp_path / "d")) == [row["text"] for row in TEXT]

    def test_every_way_in_is_this_one(self):
        source = Path(__file__).parents[1] / "src" / "hf_nasbert"
        named = {
            str(file.relative_to(source))
            for file in source.rglob("*.py")
            if "datasets.load_" in (text := file.read_text()) or "import load_dataset" in text
        }
        assert named == {"data/named.py"}


class TestArguments:
    @pytest.mark.parametrize("kind", [FinetuneArguments, FinetuneTokensArguments, FinetuneSquadArguments])
    def test_sources_are_the_same_flags(self, kind):
        for name in ("dataset_name", "dataset_config", "train_file", "validation_file", "test_file"):
            assert kind.__dataclass_fields__[name] == FinetuneTokensArguments.__dataclass_fields__[name]
            assert name in kind.incidental, "records of earlier runs are found again"
        with pytest.raises(ValueError, match=r"exactly one of .*dataset_name and train_file is needed, got none"):
            kind(model="m", output_dir="o")
        with pytest.raises(ValueError, match="got dataset_name and train_file"):
            kind(model="m", output_dir="o", dataset_name="x", train_file="y", validation_file="z")
        with pytest.raises(ValueError, match="go with train_file, not with dataset_name"):
            kind(model="m", output_dir="o", dataset_name="x", validation_file="z")
        with pytest.raises(ValueError, match="dataset_config goes with dataset_name, not with train_file"):
            kind(model="m", output_dir="o", dataset_config="x", train_file="y", validation_file="z")


def test_rows_are_streamed(tmp_path):
    """Sanity check: the first row is there before a broken one is met."""
    rows = stream_rows(put(tmp_path / "a.jsonl.gz", '{"text": "a"}\n{"text": "b"}\nbroken\n'))
    assert next(rows) == (f"{tmp_path}/a.jsonl.gz, line 1", {"text": "a"})
    assert next(rows)[1] == {"text": "b"}
    with pytest.raises(ValueError, match="line 3"):
        next(rows)
