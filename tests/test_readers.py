"""One reader for data files of every kind: cases found from outside."""

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tiny.files import (
    ASKED,
    COMMANDS,
    CONTAINERS,
    FLAT,
    NESTED,
    TEXT,
    labels_of,
    lines,
    parquet,
    put,
    questions_of,
    texts_of,
    words_of,
)

from hf_nasbert.data import DataArguments, read_rows
from hf_nasbert.data.files import find_files
from hf_nasbert.data.formats import stream_rows
from hf_nasbert.finetuning import FinetuneArguments, FinetuneSquadArguments, FinetuneTokensArguments
from hf_nasbert.finetuning.token_classification_data import load_tagged_files
from hf_nasbert.recipe_arguments import read_config

pytestmark = pytest.mark.usefixtures("own_cache")


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
