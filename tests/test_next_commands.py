"""Every command ends with what it made and the next command, and that command runs as it was printed."""

import ast
import csv
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny.texts import TEXT

from hf_nasbert import cli, next_commands
from hf_nasbert.compression.arguments import CompressArguments, CompressDataArguments
from hf_nasbert.finetuning.arguments import FinetuneArguments
from hf_nasbert.hub import PushArguments
from hf_nasbert.hub.contents import gather
from hf_nasbert.pipeline.text_settings import settings_of_model
from hf_nasbert.recipe_arguments import parse_recipe_arguments


def test_every_command_has_an_ending():
    assert next_commands.ENDINGS.keys() == cli.COMMANDS.keys()


def next_of(told: str) -> list[str]:
    """The next command of a command's output, without the program."""
    lines = told.splitlines()
    place = max(number for number, line in enumerate(lines) if line.startswith("next: "))
    assert [line for line in lines if line.startswith("made: ")]
    program, *argv = shlex.split(lines[place + 1])
    assert program == "hf-nasbert"
    return argv


def test_the_printed_lines_lead_from_a_text_to_a_model_that_can_be_pushed(tmp_path, capsys, monkeypatch):
    """No word of a printed command is changed; a few flags are added that make it quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    Path("my text.txt").write_text(TEXT.read_text())
    with Path("mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((f"the {word} sea {n}", word) for n in range(12) for word in ("good", "bad"))]
        )
    argv = ["pretrain", "--train_files", "my text.txt", "--sample_by", "paragraph", "--validation_fraction", "0.3"]
    argv += ["--operators", "attention", "ffn", "conv3", "--num_choice_blocks", "2", "--hidden_size", "32"]
    argv += ["--attention_head_size", "16", "--max_position_embeddings", "16", "--max_seq_length", "16"]
    argv += ["--vocab_size", "300", "--max_steps", "2", "--per_device_train_batch_size", "4"]
    argv += ["--output_dir", "my supernet", "--cache_dir", "cache", "--report_to", "none"]
    quick = {
        "search": ["--cache_dir", "cache"],
        "extract": [],
        "pretrain-child": ["--max_steps", "2", "--batch_size", "4", "--cache_dir", "cache"],
        "finetune": ["--max_steps", "2", "--batch_size", "4"],
    }
    assert cli.main(argv) == 0
    for name, flags in quick.items():
        told = capsys.readouterr()
        argv = ["mine.csv" if word == next_commands.LABELS else word for word in next_of(told.out)]
        assert argv[0] == name
        assert cli.main([*argv, *flags]) == 0
    told = capsys.readouterr()
    assert "max_seq_length=16" in told.err
    push = next_of(told.out)
    assert push[0] == "push"
    (asked,) = parse_recipe_arguments([PushArguments], push[1:])
    assert asked.dry_run
    sent = gather(asked.source, asked.repo_id)
    assert sent.kind == "child"
    # Where the text lies is noted for the next command, and leaves the machine with nothing.
    for folder in ("my supernet", "my supernet-search-best", "my supernet-search-best-trained"):
        noted = json.loads(Path(folder, "text_files.json").read_text())
        assert noted["train_files"] == [str(tmp_path / "my text.txt")]
        assert "text_files.json" not in gather(folder, "me/mine").files
    Path("my text.txt").rename("moved.txt")
    assert "train_files" not in settings_of_model({"supernet": "my supernet"})


@pytest.mark.parametrize("name", ["a family/0.5x", "été", "x--y..z", "...", "a b"])
def test_a_folder_of_any_name_gets_a_name_that_the_hub_takes(name, tmp_path):
    result = SimpleNamespace(task="t")
    arguments = SimpleNamespace(
        model=name, save_models=True, seeds=[0], records_file="r", model_folder=lambda task, seed: tmp_path / name
    )
    argv = next_of(next_commands.ending_of("finetune", result, arguments))
    parse_recipe_arguments([PushArguments], argv[1:])


@pytest.mark.parametrize(("head", "fed"), [("ForMaskedLM", "array([ids])"), ("ForMultipleChoice", "array([[ids]])")])
def test_an_onnx_file_is_followed_by_python_that_runs_it(head, fed, tmp_path):
    """How it is run for a model of choices too, which takes one more axis; test_export.py runs a printed one."""
    folder = tmp_path / "a 'quoted' \"folder\""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "nasbert", "architectures": [f"NasBert{head}"]}))
    (folder / "tokenizer.json").touch()
    told = next_commands.ending_of("export", SimpleNamespace(file=folder / "model.onnx"), None).splitlines()
    assert told[-2].startswith("next: ")
    python, flag, code = shlex.split(told[-1])
    assert (python, flag) == ("python", "-c")
    assert fed in code
    texts = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert {str(folder / "tokenizer.json"), str(folder / "model.onnx")} <= set(texts)


@pytest.mark.parametrize(
    ("asked", "following"),
    [
        ({}, ""),
        ({"data_seed": 3}, "--data_seed 3 "),
        ({"validation_fraction": 0.3}, ""),
        ({"validation_fraction": 0.06}, "--validation_fraction 0.03 "),
        ({"validation_fraction": 0.04, "test_file": "test.csv"}, "--validation_fraction 0.04 "),
        ({"validation_fraction": 0.04, "data_seed": 2, "validation_file": "validation.csv"}, ""),
    ],
)
def test_compress_holds_out_of_the_rows_that_finetune_held_out(asked, following, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    arguments = FinetuneArguments(model="m", train_file="rows.csv", output_dir="out", **asked)
    ((_, compress),) = next_commands._to_compress(tmp_path, arguments)
    told = re.sub(r"--(base_model|\w+_file|max_latency|output_dir) \S+ ?", "", compress)
    assert told == f"hf-nasbert compress {following}"


@pytest.mark.parametrize(
    ("model", "repo_id"),
    [
        ("packaged:MiniLM-L6", "MiniLM-L6-my-reviews"), ("owner/bert.base", "bert.base-my-reviews"),
        ("runs/mine/child", "mine-child-my-reviews"), ("child", "child-my-reviews"),
    ],
)  # fmt: skip
def test_the_repository_of_a_fine_tuned_model_is_named_by_base_model_and_task(model, repo_id, tmp_path):
    arguments = FinetuneArguments(model=model, dataset_name="x", output_dir=str(tmp_path))
    arguments.dataset_name = "a set without a compress command"
    ending = next_commands.after_finetune(SimpleNamespace(task="my reviews"), arguments)
    assert f"--repo_id YOUR_NAME/{repo_id} " in ending.following[-1][1]


def test_a_push_that_was_only_listed_is_followed_by_the_push():
    given = PushArguments(source="my child", repo_id="me/child", private=True, dry_run=True)
    argv = next_of(next_commands.ending_of("push", SimpleNamespace(is_dry_run=True), given))
    assert argv == ["push", "--source", "my child", "--repo_id", "me/child", "--private"]


def test_a_training_that_was_stopped_goes_on_with_the_settings_of_its_method():
    kinds = [cli.find(kind) for kind in cli.COMMANDS["pretrain"].arguments]
    argv = ["--operators", "attention", "ffn", "--num_choice_blocks", "2", "--train_files", "a b.txt"]
    argv += ["--output_dir", "x", "--method", "magic_at", "--alignment_start", "0.2"]
    given = parse_recipe_arguments(kinds, argv)
    again = next_of(next_commands.ending_of("pretrain", SimpleNamespace(is_finished=False), *given))
    assert again[0] == "pretrain"
    expected = parse_recipe_arguments(kinds, [*argv, "--resume_from_checkpoint", "latest"])
    assert parse_recipe_arguments(kinds, again[1:]) == expected
    assert given[2].method_settings != type(given[2].method_settings)()


def test_a_stock_classifier_is_made_smaller_by_the_same_examples(tmp_path):
    def commands(model_type, **source):
        given = FinetuneArguments(model="base", output_dir=str(tmp_path / "a b"), max_seq_length=48, **source)
        result = SimpleNamespace(task="mine")
        folder = given.model_folder("mine", 0)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        lines = next_commands.ending_of("finetune", result, given).splitlines()
        return [shlex.split(line)[1:] for line in lines if line.startswith("  ")]

    files = {"train_file": "my labels.csv", "test_file": "test.csv", "label_column": "verdict"}
    compress, push = commands("bert", **files)
    assert (compress[0], push[0]) == ("compress", "push")
    settings, data = parse_recipe_arguments([CompressArguments, CompressDataArguments], compress[1:])
    assert parse_recipe_arguments([PushArguments], push[1:])[0].repo_id == "YOUR_NAME/base-mine"
    assert (settings.base_model, settings.max_latency) == (str(tmp_path / "a b" / "mine" / "seed-0"), "0.5x")
    assert settings.output_dir == str(tmp_path / "a b-half")
    assert {name: getattr(data, name) for name in files} == files
    assert (data.validation_file, data.max_seq_length) == (None, 48)
    compress, _ = commands("distilbert", packaged="rotten_tomatoes")
    parse_recipe_arguments([CompressArguments, CompressDataArguments], compress[1:])
    for model_type, source in (("nasbert", files), ("gpt2", files), ("bert", {"dataset_name": "somebody/set"})):
        assert [one[0] for one in commands(model_type, **source)] == ["push"]


def test_a_smaller_model_and_a_pipelines_child_are_followed_by_a_dry_push(tmp_path):
    best = SimpleNamespace(folder=tmp_path / "small", row=SimpleNamespace(budget="0.5x"))
    compressed = SimpleNamespace(front=[best], best=best, folder=tmp_path / "small")
    piped = SimpleNamespace(output_dir=str(tmp_path / "runs"))
    for name, result, arguments, source in (
        ("compress", compressed, (), tmp_path / "small"),
        ("run", None, (piped,), tmp_path / "runs" / "child"),
    ):
        told = next_commands.ending_of(name, result, *arguments)
        assert str(source) in told.partition("next: ")[0]
        assert next_of(told)[:1] == ["push"]
        (asked,) = parse_recipe_arguments([PushArguments], next_of(told)[1:])
        assert (asked.source, asked.dry_run) == (str(source), True)
