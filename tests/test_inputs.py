"""Bad input: what was found once, as examples; everything that reads, on thousands of generated inputs."""

import json
import math
import os
import runpy
import sys
from pathlib import Path

import pytest
from tiny.processes import exit_code_of

from hf_nasbert import cli, records
from hf_nasbert.cards import render_child_card
from hf_nasbert.costs import Budget, LatencyTable, parse_quantity
from hf_nasbert.data import DataArguments, load_text, read_rows
from hf_nasbert.modeling import NasBertConfig
from hf_nasbert.pipeline.extraction import read_facts
from hf_nasbert.ranking import load_table
from hf_nasbert.recipe_arguments import parse_recipe_arguments, read_config
from hf_nasbert.training import SupernetTrainingArguments

ROOT = Path(__file__).parents[1]
LEAST = 2000
DEEP = b"[" * 20_000
KINDS = (DataArguments, SupernetTrainingArguments)


@pytest.fixture(scope="module")
def inputs():
    """The generator: `benchmarks/inputs.py`."""
    return runpy.run_path(str(ROOT / "benchmarks" / "inputs.py"))


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestRecords:
    @pytest.mark.parametrize(
        "line", [b'{"a": ' + DEEP, b'{"a": 1, "a": 2}', b'{"a": ' + b"1" * 5000 + b"}", b'{"a":\xff}']
    )
    def test_odd_lines_are_named(self, tmp_path, line):
        path = put(tmp_path / "a.jsonl", b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is not a record") as error:
            records.read(path)
        assert len(str(error.value)) < 500

    def test_integers_of_any_length_are_no_finite_numbers(self):
        assert [records.is_finite_number(x) for x in (1, -2.5, 10**300)] == [True] * 3
        assert not any(map(records.is_finite_number, (10**400, float("nan"), float("-inf"), True, "1", None)))


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("seed: &a 1\nmax_steps: *a\n", "aliases"),
            ("train_files: &a [x]\nx: {<<: *a}\n", "aliases"),
            ("seed: !!int x\n", "no YAML file: invalid literal"),
            ("seed: !!bool x\n", "no YAML file"),
            ("seed: !!timestamp x\n", "no YAML file"),
            ("seed: !!python/object/apply:os.system [id]\n", "no YAML file.*python/object"),
            ("seed: " + "[" * 20_000, "no YAML file.*nested more than 20 deep"),
            ("seed: " + "9" * 5_000 + "\n", "no YAML file.*4300 digits"),
            ("learning_rate: .inf\n", "learning_rate is inf; expected a finite number"),
            ("learning_rate: .nan\n", "learning_rate is nan; expected a finite number"),
            ("learning_rate: " + "9" * 400 + "\n", "learning_rate is inf"),
            ("text_column: " + "x" * 9_000 + "\ntext_column: y\n", "given twice"),
            ("x" * 900 + ": 1\n", "unknown setting"),
            ("seed: {" + ", ".join(f"k{n}: {n}" for n in range(2_000)) + "}\n", "seed is .*expected int"),
        ],
    )
    def test_what_pyyaml_lets_through_is_one_line(self, tmp_path, text, message):
        path = put(tmp_path / "c.yaml", text)
        with pytest.raises(ValueError, match=message) as error:
            read_config(path, KINDS)
        assert "c.yaml" in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700

    def test_whole_numbers_are_decimal(self, tmp_path):
        assert read_config(put(tmp_path / "c.yaml", "seed: 010\nmax_steps: 0\n"), KINDS) == {
            "seed": 10,
            "max_steps": 0,
        }

    def test_flags_are_finite_too(self, capsys):
        with pytest.raises(SystemExit):
            parse_recipe_arguments([SupernetTrainingArguments], ["--output_dir", "x", "--learning_rate", "1e999"])
        assert "--learning_rate is inf; expected a finite number" in capsys.readouterr().err


class TestLabelFiles:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.json", b"null", "line 1: an object of columns is needed, this is a NoneType"),  # pyarrow dies of it
            ("a.json", b"[1, 2]", "object 1: an object of columns"),
            ("a.jsonl", DEEP, "broken JSON"),
            ("a.jsonl", b'{"text": "a", "text": "b"}\n', "line 1: broken JSON .*twice"),
            ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
            ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: .*half a character"),
            ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "line 2: the column 'text' holds a int, above a str"),
            ("a.jsonl", b'{"label": 18446744073709551616}\n', "line 1: .*more than 64 bits"),
            ("a.csv", b"text,label\n\0,a\n", "binary"),
            ("a.csv", b"text,text\nx,y\n", "two columns are called 'text'"),
            ("a.csv", b"text,label\nx,y\nz\n", "line 3: 1 fields, the header has 2"),
            ("a.csv", b'text,label\n"x,a\ny,b\n', "broken CSV"),
            ("a.csv", b"x" * 300 + b"\ny\n", "in 300 characters"),
            ("a.tsv", b"text\tlabel\n", "holds no rows"),
            ("a.xml", b"<a/>", "of no known kind"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path, name, content, message):
        with pytest.raises(ValueError, match=message) as error:
            read_rows(put(tmp_path / name, content), tmp_path / "cache")
        assert name in str(error.value)
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()], "a partial file"

    def test_columns_have_the_types_that_they_show(self, tmp_path):
        content = "text,n,x,id,empty,odd\r\nNA,1,0.5,007,,1\r\nnull,-2,3,1,,x\r\n\r\n,30,nan,2,,\r\n"
        rows = read_rows(put(tmp_path / "a.csv", "\ufeff" + content), tmp_path / "cache")
        assert {name: feature.dtype for name, feature in rows.features.items()} == {
            "text": "string", "n": "int64", "x": "float64", "id": "string", "empty": "string", "odd": "string",
        }  # fmt: skip
        assert rows["text"][:] == ["NA", "null", None]
        assert rows["n"][:] == [1, -2, 30]
        assert rows["id"][:] == ["007", "1", "2"]
        assert rows["odd"][:] == ["1", "x", None]

    def test_json_columns_may_miss_and_nest(self, tmp_path):
        content = '{"text": "a", "label": 1, "more": [1], "deep": {"x": 1}}\n\n'
        content += '{"text": "b", "label": 2.5, "yes": true}\n'
        rows = read_rows(put(tmp_path / "a.jsonl", content), tmp_path / "cache")
        assert rows[:] == {"text": ["a", "b"], "label": [1.0, 2.5], "more": [[1], None], "yes": [None, True]}
        assert rows.cache_files, "memory-mapped"


class TestTables:
    def test_no_name_leads_out_of_the_folder(self, tmp_path):
        for name in ("../x", "../data/data-requirements", "a/b", "imdb\0", "", ".", "~"):
            with pytest.raises(FileNotFoundError, match="no table"):
                load_table(name)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dev_loss": float("nan")}, "dev_loss is no finite number"),
            ({"flops": 10**400}, "flops is no finite number"),
            ({"seed": [0]}, "seeds are whole numbers"),
            ({"recipe": {}}, "missing"),
            ({"recipe": None}, "missing"),
            ({"architecture": 3}, "expected an architecture"),
            ({"curve": {"a": 1}}, "do not make one table"),
        ],
    )
    def test_odd_records_are_named(self, inputs, tmp_path, change, message):
        rows = [*inputs["TABLE"][:1], {**inputs["TABLE"][1], **change}]
        path = put(tmp_path / "t.jsonl", inputs["lines"](rows))
        with pytest.raises(ValueError, match=rf"t\.jsonl.*{message}"):
            load_table(str(path))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"operators_ms": None}, "no operators_ms"),
            ({"outside_ms": "1"}, "'1', where milliseconds"),
            ({"operators_ms": {"ffn@8": float("nan")}}, "'nan', where milliseconds"),
            ({"setting": {}}, "does not say its device"),
        ],
    )
    def test_odd_latency_tables_are_named(self, inputs, tmp_path, change, message):
        path = put(tmp_path / "l.jsonl", inputs["lines"]([{**inputs["LATENCY"][0], **change}]))
        with pytest.raises(ValueError, match=rf"l\.jsonl: .*{message}"):
            LatencyTable.read(path)


class TestConfigs:
    @pytest.mark.parametrize(
        "change",
        [
            {"layer_norm_eps": float("nan")},
            {"layer_norm_eps": -1.0},
            {"initializer_range": float("inf")},
            {"initializer_range": float("nan")},
            {"operators": ["ffn@\u0661\u0669\u0662"]},  # 192 in Arabic digits: one width would have two names
            {"operators": ["ffn@064"]},
            {"operators": ["ffn@" + "9" * 5000]},
        ],
    )
    def test_numbers_that_are_none_are_refused(self, change):
        with pytest.raises(ValueError, match=f"{next(iter(change))} is|operator"):
            NasBertConfig(**{"operators": ["ffn"], **change})

    def test_training_is_by_finite_numbers(self):
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            with pytest.raises(ValueError, match=name):
                SupernetTrainingArguments(output_dir="x", **{name: float("inf")})
        with pytest.raises(ValueError, match="alignment_weight"):
            SupernetTrainingArguments(output_dir="x", method="magic_a", method_settings={"alignment_weight": math.inf})

    def test_a_quantity_is_short(self):
        for text in ("9" * 5000, "1" + "0" * 310):
            with pytest.raises(ValueError, match="too long"):
                parse_quantity(text)
            with pytest.raises(ValueError, match="expected a number"):
                Budget.parse(max_parameters=text)
        with pytest.raises(ValueError, match="positive number"):
            Budget(max_parameters=10**400)


class TestCards:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"datasets": 5}, "datasets is '5'"),
            ({"hub_id": 5}, "hub_id is '5'"),
            ({"figures": {"front": 3}}, "figures is"),
            ({"model": []}, "model is"),
            ({"native": "no"}, "native is 'no'"),
            ({"evaluations": [3]}, "evaluations is"),
            ({"max_logit_difference": 10**400}, "max_logit_difference: .*not a finite number"),
            ({"cost": {"flops": 10**400}}, "not a finite number"),
        ],
    )
    def test_wrong_types_are_named(self, inputs, change, message):
        with pytest.raises(ValueError, match=message):
            render_child_card({**inputs["CARD"], **change})

    def test_card_files(self, tmp_path):
        for content in (b"\xff", DEEP, b"[]", b""):
            with pytest.raises(ValueError, match=r"card\.json"):
                read_facts(put(tmp_path / "card.json", content))
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_facts(tmp_path)


class TestOddPlaces:
    """A folder, a link to nothing, a pipe, an unreadable file, where a file was meant."""

    READERS = {
        "text": lambda path: load_text(DataArguments(train_files=[str(path)])),
        "labels": read_rows,
        "records": records.read,
        "append": lambda path: records.append(path, {}),
        "config": lambda path: read_config(path, KINDS),
        "table": lambda path: load_table(str(path)),
        "latency": LatencyTable.read,
        "card": read_facts,
    }
    SUFFIX = {"text": ".txt", "labels": ".csv", "config": ".yaml", "card": ".json"}

    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("place", ["folder", "link", "loop", "pipe", "missing", "unreadable", "name"])
    def test_is_one_error_that_names_it(self, tmp_path, reader, place, monkeypatch):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        path = tmp_path / f"odd{self.SUFFIX.get(reader, '.jsonl')}"
        match place:
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to(tmp_path / "nowhere" / "file")
            case "loop":
                path.symlink_to(path)
            case "pipe":
                os.mkfifo(path)  # to open one waits for its writer
                if reader == "append":
                    pytest.skip("records are appended to a pipe as to a file")
            case "unreadable":
                if os.geteuid() == 0:
                    pytest.skip("root reads everything")
                put(path, "x").chmod(0)
            case "name":
                path = tmp_path / ("x" * 300 + path.suffix)
            case _ if reader == "append":
                pytest.skip("makes the file")
        with pytest.raises((ValueError, OSError)) as error:
            self.READERS[reader](path)
        assert path.name in str(error.value)


def test_a_null_label_file_ends_in_one_line(tmp_path):
    """Sanity check in a process of its own, which such a file used to kill: exit status 1 and one line."""
    put(tmp_path / "a.json", b"null")
    model = tmp_path / "model"
    NasBertConfig(operators=["ffn"], hidden_size=32).save_pretrained(model)

    def finetune():
        os.chdir(tmp_path)
        files = ["--train_file", "a.json", "--validation_file", "a.json"]
        try:
            cli.main(["finetune", "--model", str(model), "--output_dir", "out", *files])
        except SystemExit as end:
            sys.stderr.write(f"{end}\n")
            os._exit(1 if isinstance(end.code, str) else end.code or 0)

    with (tmp_path / "said").open("w+") as output:
        status = exit_code_of(finetune, output)
    said = (tmp_path / "said").read_text()
    assert status == 1, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("hf-nasbert finetune: a.json, line 1: an object of columns")


def test_the_page_is_what_its_record_says(inputs):
    record = json.loads((ROOT / "benchmarks" / "records" / "inputs.json").read_text())
    assert inputs["as_table"](record["kinds"]) in (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert record["kinds"].keys() == inputs["KINDS"].keys()


def test_memory_on_the_page_is_that_of_its_record():
    record = json.loads((ROOT / "benchmarks" / "records" / "corpus-memory.json").read_text())
    as_table = runpy.run_path(str(ROOT / "benchmarks" / "corpus_memory.py"))["as_table"]
    assert as_table(record["runs"]) in (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_generated_inputs_give_results_or_one_error(inputs):
    """One test, since a second one that uses these counts may run in another process."""
    counted = {}
    for kind in inputs["KINDS"]:
        counted[kind] = inputs["run"](kind)
        assert counted[kind].total() >= 0.8 * inputs["KINDS"][kind].num_inputs, kind
        assert counted[kind]["result"], f"{kind}: nothing is read, so what is refused shows nothing"
    record = json.loads((ROOT / "benchmarks" / "records" / "inputs.json").read_text())
    assert {kind: dict(found) for kind, found in counted.items()} == record["kinds"], (
        "a refusal was added or taken away: if that was meant, count anew with "
        "`python benchmarks/inputs.py --json benchmarks/records/inputs.json --page docs/inputs.md`"
    )
    refused = {kind: found.total() - found["result"] for kind, found in counted.items()}
    assert all(number >= 50 or kind in inputs["MADE_AGAIN"] for kind, number in refused.items()), refused
    assert sum(refused.values()) >= LEAST, "fewer bad inputs than were promised"
