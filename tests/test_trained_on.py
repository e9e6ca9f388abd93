"""Commands take text settings, lengths and tokenizer from the model's folder unless they are told otherwise."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from tiny.texts import TEXT

from hf_nasbert import cli, records
from hf_nasbert.data import DataArguments
from hf_nasbert.data.trained_on import write_text_files
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline import trained_on
from hf_nasbert.pipeline.inputs import load_dev_batches
from hf_nasbert.pipeline.text_settings import (
    check_against_training,
    length_of_model,
    settings_of_model,
    text_files_of,
)
from hf_nasbert.scored import is_beside

EARLIER = Path(__file__).parent / "data" / "written-earlier"
SUPERNET = str(EARLIER / "supernet")
SPLIT = {
    "sample_by": "line",
    "text_column": "text",
    "dataset_split": "train",
    "validation_fraction": 0.3,
    "data_seed": 7,
}
CUT = {"max_seq_length": 16, "mlm_probability": 0.2, "whole_word_mask": False}


def log_of(folder: Path, **text: object) -> Path:
    """A super-net's folder whose log says so of its text."""
    folder.mkdir()
    (begun, *rest) = records.read(EARLIER / "supernet" / "train_log.jsonl")
    lines = [{**begun, "text": {**begun["text"], **text}}, *rest]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_an_earlier_log_says_all_but_the_place_of_its_text():
    assert trained_on(SUPERNET) == SPLIT | CUT


@pytest.mark.parametrize("command", ["score", "search"])
def test_a_command_without_text_settings_takes_those_of_the_training(command, tmp_path, capsys):
    """So the file that the earlier version wrote with all of them goes on, and nothing is scored again."""
    kind = {"score": "scores", "search": "evolution"}[command]
    output = tmp_path / f"{kind}.jsonl"
    shutil.copyfile(EARLIER / output.name, output)
    before = output.read_bytes()
    own = {"score": ["--all_children"], "search": ["--num_evaluations", "6", "--max_parameters", "20K"]}[command]
    flags = ["--supernet", SUPERNET, "--train_files", str(TEXT), "--cache_dir", str(tmp_path / "cache")]
    flags += ["--num_dev_batches", "2", "--dev_batch_size", "4", "--output", str(output), *own]
    assert cli.main([command, *flags]) == 0
    after = output.read_bytes()
    assert after.startswith(before)
    further = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert all(is_beside(record) for record in further), "what children are held against, but no child"
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("taken from ")]
    assert len(lines) == 1
    for word in (SUPERNET, "max_seq_length=16", "mlm_probability=0.2", "data_seed=7", "the tokenizer"):
        assert word in lines[0]
    assert "attention-skip-skip" in shown.out
    # What is given wins over what the folder says, as a flag and in a file.
    (tmp_path / "length.yaml").write_text("max_seq_length: 8\n")
    for given in (["--max_seq_length", "8"], ["--config", str(tmp_path / "length.yaml")]):
        with pytest.raises(SystemExit, match="max_seq_length"):
            cli.main([command, *flags, *given])
        assert "max_seq_length=16," not in capsys.readouterr().err


def test_the_text_itself_is_taken_where_its_name_finds_it(tmp_path, capsys):
    folder = log_of(tmp_path / "a", source="imdb", packaged="imdb")
    taken = settings_of_model({"supernet": str(folder), "tokenizer_name": "x"})
    assert taken == SPLIT | CUT | {"packaged": "imdb"}
    assert f"taken from {folder}: packaged=imdb, " in capsys.readouterr().err
    same = {"supernet": str(folder), "packaged": "imdb", "data_seed": 3}
    assert settings_of_model(same) == {name: value for name, value in (SPLIT | CUT).items() if name != "data_seed"}


def test_of_another_text_only_lengths_and_masking_are_taken(tmp_path):
    folder = log_of(tmp_path / "a", source="org/text", dataset_name="org/text", dataset_config="b")
    assert settings_of_model({"supernet": str(folder)})["dataset_config"] == "b"
    assert settings_of_model({"supernet": str(folder), "train_files": [str(TEXT)]}) == CUT
    assert settings_of_model({"model": str(folder), "packaged": "imdb"}) == CUT


def test_a_checkpoint_was_trained_as_its_run_was(tmp_path):
    folder = log_of(tmp_path / "a")
    (folder / "checkpoint-4").mkdir()
    assert trained_on(folder / "checkpoint-4") == SPLIT | CUT


@pytest.mark.parametrize(("longest", "expected"), [(64, {"max_seq_length": 64}), (512, {}), ("many", {})])
def test_where_no_log_is_a_model_says_at_least_how_long_it_reads(tmp_path, longest, expected):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": longest}))
    assert trained_on(tmp_path) == settings_of_model({"model": str(tmp_path)}) == expected


def test_what_is_no_folder_says_nothing():
    assert settings_of_model({"model": "google-bert/bert-base-uncased"}) == settings_of_model({}) == {}


@pytest.mark.parametrize(
    "line",
    [
        {"text": {"data_seed": "\x1b[2J"}},
        {"text": {"packaged": ["imdb"]}},
        {"text": 3},
        {"data": {"sequence_length": "16"}},
        {"data": {"mlm_probability": float("nan")}},
    ],
)
def test_a_log_that_says_nonsense_is_refused_in_one_line(tmp_path, line, capsys):
    record = {"event": "start", "step": 0, "data": {}, "text": {}, **line}
    (tmp_path / "train_log.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["score", "--supernet", str(tmp_path), "--all_children", "--output", str(tmp_path / "o.jsonl")])
    assert str(tmp_path) in str(ended.value.code)
    assert len(str(ended.value.code).splitlines()) == 1
    assert "\x1b" not in str(ended.value.code)


def test_what_contradicts_the_training_is_warned_of(caplog):
    data = {"train_files": [str(TEXT)], **SPLIT, **CUT}
    with caplog.at_level(logging.WARNING):
        check_against_training(SUPERNET, DataArguments(**data))
        assert caplog.messages == []
        other = {"max_seq_length": 8, "mlm_probability": 0.15, "whole_word_mask": True}
        check_against_training(SUPERNET, DataArguments(**{**data, **other}))
    assert [message.removeprefix(f"{SUPERNET} was trained with ") for message in caplog.messages] == [
        "mlm_probability=0.2, now it is 0.15",
        "whole_word_mask=False, now it is True",
        "max_seq_length=16, now it is 8",
    ]


def test_an_extracted_child_knows_its_super_nets_text_and_is_trained_on_on_it(tmp_path, capsys):
    child = tmp_path / "child"
    cli.main(["extract", "--supernet", SUPERNET, "--architecture", "attention-skip-skip", "--output_dir", str(child)])
    assert f"as {SUPERNET} was trained" in capsys.readouterr().err
    assert trained_on(child) == trained_on(SUPERNET)
    card = " ".join((child / "README.md").read_text().split())
    assert "one sequence of 16 tokens" in card
    assert "tiny.txt" in card
    flags = [
        "--train_files",
        str(TEXT),
        "--cache_dir",
        str(tmp_path / "cache"),
        "--max_steps",
        "1",
        "--save_steps",
        "1",
    ]
    flags += ["--batch_size", "4", "--num_dev_batches", "1", "--dev_batch_size", "4", "--disable_tqdm", "true"]
    cli.main(["pretrain-child", "--model", str(child), "--output_dir", str(tmp_path / "on"), *flags])  # it reads 24
    assert f"taken from {child}: " in capsys.readouterr().err
    assert trained_on(tmp_path / "on") == trained_on(SUPERNET)
    again = ["--supernet", SUPERNET, "--architecture", "attention-skip-skip", "--output_dir", str(tmp_path / "other")]
    cli.main(["extract", *again, "--max_seq_length", "20"])
    assert "one sequence of 20 tokens" in " ".join((tmp_path / "other" / "README.md").read_text().split())


def test_further_dev_files_are_read_whole_from_a_command_line(tmp_path, capsys):
    """Text of another kind has a front of its own; the text that was trained on is refused."""
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    (tmp_path / "short.txt").write_text("\n".join(line[::-1] for line in lines) + "\n", encoding="utf-8")
    flags = ["--supernet", SUPERNET, "--train_files", str(TEXT), "--cache_dir", str(tmp_path / "cache")]
    flags += ["--num_dev_batches", "1", "--dev_batch_size", "4", "--search", "random", "--num_evaluations", "6"]
    output = str(tmp_path / "h.jsonl")
    assert cli.main(["search", *flags, "--output", output, "--dev_files", f"back={tmp_path / 'short.txt'}"]) == 0
    assert "the front of loss on back against num_parameters" in capsys.readouterr().out
    (_, *found) = records.read(output)
    children = [record for record in found if not is_beside(record)]
    assert len(children) > 1
    assert all(child["dev_losses"].keys() == {"back"} for child in children)
    assert all(child["dev_losses"]["back"] != child["proxy_loss"] for child in children)
    with pytest.raises(SystemExit, match="would pass for held-out text"):
        cli.main(["search", *flags, "--output", f"{output}.2", "--dev_files", f"same={TEXT}"])


def test_another_tokenizer_of_as_many_tokens_is_used_with_a_warning(tmp_path, caplog):
    other = json.loads((EARLIER / "supernet" / "tokenizer.json").read_text())
    words = other["model"]["vocab"]
    (*_, first, last) = words
    words[first], words[last] = words[last], words[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    shutil.copyfile(EARLIER / "supernet" / "tokenizer_config.json", tmp_path / "tokenizer_config.json")
    data = {"train_files": [str(TEXT)], "cache_dir": str(tmp_path / "cache"), **SPLIT, **CUT}
    config = SupernetConfig.from_pretrained(SUPERNET)

    def warned(**given):
        caplog.clear()
        load_dev_batches(config, SUPERNET, DataArguments(**data, **given), num_batches=1, batch_size=2)
        return [message for message in caplog.messages if "its own tokenizer" in message]

    assert warned() == warned(tokenizer_name=SUPERNET) == []
    assert len(warned(tokenizer_name=str(tmp_path))) == 1


@pytest.mark.parametrize(
    ("config", "taken"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, {"max_seq_length": 64}),
        ({"model_type": "bert", "max_position_embeddings": 512}, {}),
        ({"model_type": "roberta", "max_position_embeddings": 66}, {}),
        ({"model_type": "bert", "max_position_embeddings": "64"}, {}),
    ],
)
def test_fine_tuning_takes_inputs_no_longer_than_its_model(config, taken, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert length_of_model({"model": str(tmp_path)}) == taken
    assert length_of_model({"model": str(tmp_path), "max_seq_length": 32}) == {}
    assert length_of_model({"model": "org/name"}) == {}


def test_a_note_of_another_place_chooses_no_file(tmp_path):
    """A folder that comes from elsewhere, or was moved, does not say what is read here."""
    (tmp_path / "secret.txt").write_text("mine")
    write_text_files(tmp_path, [str(tmp_path / "secret.txt")])
    assert text_files_of(tmp_path) == [str(tmp_path / "secret.txt")]
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert text_files_of(tmp_path / "copy") is None


@pytest.mark.parametrize("noted", ['{"train_files": "a"}', "{}", '{"train_files": [1]}'])
def test_a_damaged_note_of_text_files_is_named(noted, tmp_path):
    note = {"folder": str(tmp_path), **json.loads(noted)}
    (tmp_path / "text_files.json").write_text(json.dumps(note))
    with pytest.raises(ValueError, match=r"text_files\.json: expected a list of files"):
        text_files_of(tmp_path)
