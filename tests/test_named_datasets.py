"""Data sets by name: folders, the Hub, and whatever the library says of them; cases found from outside."""

import contextlib
import io
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from tiny.files import COMMANDS, TEXT, lines, parquet, put

from hf_nasbert.data import DataArguments, load_text
from hf_nasbert.finetuning import FinetuneArguments, FinetuneSquadArguments, FinetuneTokensArguments
from hf_nasbert.finetuning.question_answering import load_questions
from hf_nasbert.finetuning.sequence_classification import load_task
from hf_nasbert.finetuning.sequence_classification_data import load_named
from hf_nasbert.finetuning.token_classification import load_words

pytestmark = pytest.mark.usefixtures("own_cache")


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
    @pytest.mark.parametrize("name", ["train.jsonl", "train.ndjson", "train.jsonl.xz", "train.zip"])
    def test_what_pyarrow_dies_of_ends_in_one_line(self, tmp_path, name):
        content = b'null\n{"text": "a"}\n'
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("train.jsonl", content)
        pack = {".xz": lzma.compress, ".zip": lambda _: packed.getvalue()}
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
