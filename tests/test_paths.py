"""Paths in settings: `~` and `$NAME` are expanded in every one of them, from YAML, flags and Python."""

import dataclasses
import importlib
import os
import pkgutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import hf_nasbert
from hf_nasbert import cli
from hf_nasbert.data import DataArguments
from hf_nasbert.finetuning import FinetuneArguments
from hf_nasbert.methods import METHODS
from hf_nasbert.paths import PATHS, expanded
from hf_nasbert.pipeline import SearchChildrenArguments
from hf_nasbert.recipe_arguments import parse_recipe_arguments, read_config
from hf_nasbert.searching import SETTINGS

# Settings of text that are never a path. A new setting is entered here, or in `paths.PATHS`.
NO_PATHS = {
    "anchor", "architecture", "architectures", "base_model_id", "base_model_revision", "baseline", "blocks", "budgets",
    "containing", "dataset_config", "dataset_revision", "dataset_split", "distillation", "finetune_packaged",
    "compute_budget", "dev_files", "hidden_act", "label", "split",
    "label_column", "language", "latency_shape", "license",
    "lr_scheduler_type", "mask_examples", "max_time", "max_flops", "max_latency", "max_memory",
    "max_parameters", "message", "method", "name",
    "objectives", "operators", "packaged", "preset", "repo_id", "report_to", "revision", "size", "tags_column", "task",
    "teacher_revision", "text_column", "text_columns", "tokenizer_revision", "tokens_column",
    "torch_compile_backend", "weight_layout",
}  # fmt: skip
REQUIRED = {
    "train_files": ["a.txt"], "architectures": ["ffn"], "train_file": "a.csv", "validation_file": "b.csv",
    "preset": "quickstart", "table": "t.jsonl", "repo_id": "me/x", "max_parameters": "2M",
}  # fmt: skip


def settings_classes():
    """All dataclasses of settings in the package, those of commands and of recipes."""
    for module in pkgutil.walk_packages(hf_nasbert.__path__, "hf_nasbert."):
        if module.name != "hf_nasbert.__main__":
            importlib.import_module(module.name)
    found = {cli.find(name) for command in cli.COMMANDS.values() for name in command.arguments}
    found |= {method.Settings for method in METHODS.values()} | set(SETTINGS.values())
    for name, module in list(sys.modules.items()):
        if name.startswith("hf_nasbert."):
            found |= {
                kind
                for kind in vars(module).values()
                if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__name__.endswith("Arguments")
                if kind.__module__.startswith("hf_nasbert.")
            }
    return sorted(found, key=lambda kind: kind.__qualname__)


def text_fields(kind):
    hints = typing.get_type_hints(kind)
    return {field.name for field in dataclasses.fields(kind) if field.init and "str" in str(hints[field.name])}


def make(kind, name, value):
    settings = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            settings[field.name] = ["x"] if "list" in str(field.type) else "x"
        if field.name in REQUIRED:
            settings[field.name] = REQUIRED[field.name]
    alternatives = getattr(kind, "alternatives", ())
    if name in alternatives:
        settings = {key: item for key, item in settings.items() if key not in alternatives}
    if name in ("dataset_name", "train_files"):
        settings = {key: item for key, item in settings.items() if key not in ("train_file", "validation_file")}
    if name == "base_model":  # which brings its own space
        settings.pop("preset", None)
    if {"train_file", "train_files"} <= settings.keys():  # two sources
        del settings["train_files"]
    is_list = "list" in str(typing.get_type_hints(kind)[name])
    if kind.__name__ == "ExtractionArguments":
        settings |= {"best": True, "search": "found"}
    if kind.__name__ == "SearchChildrenArguments":
        settings["search"] = "nsga2"
    if name == "table":
        value += ".jsonl"
    made = getattr(kind(**settings | {name: [value] if is_list else value}), name)
    return (made[0] if is_list else made).removesuffix(".jsonl")


@pytest.mark.parametrize("value", ["~/a b/c", "$THERE/c", "x/${THERE}/c"])
def test_every_path_of_every_settings_class_is_expanded(value, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("THERE", "over/there")
    monkeypatch.chdir(tmp_path)
    expected = value.replace("~", str(tmp_path)).replace("$THERE", "over/there").replace("${THERE}", "over/there")
    classes, seen = settings_classes(), set()
    assert len(classes) > 15
    for kind in classes:
        names = text_fields(kind)
        assert names <= PATHS | NO_PATHS | {"worker"} | literals(kind), (kind, names - PATHS - NO_PATHS)
        for name in sorted(names & PATHS):
            assert make(kind, name, value) == expected, f"{kind.__name__}.{name} is not expanded"
            seen.add(name)
    assert seen == PATHS, "a name that no setting has"


def literals(kind):
    hints = typing.get_type_hints(kind)
    return {name for name in hints if "Literal" in str(hints[name])}


def test_a_path_from_yaml_a_flag_and_python_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("train_files: [~/a.txt, ./b.txt]\ncache_dir: $HOME/cache\n")
    by_file, by_flag = (
        parse_recipe_arguments([DataArguments], argv)[0]
        for argv in (["--config=~/c.yaml"], ["--train_files", "~/a.txt", "./b.txt", "--cache_dir", "${HOME}/cache"])
    )
    by_hand = DataArguments(train_files=["~/a.txt", "./b.txt"], cache_dir=f"{tmp_path}/cache")
    assert by_file == by_flag == by_hand
    assert by_hand.train_files == [f"{tmp_path}/a.txt", "./b.txt"]
    assert dataclasses.replace(by_hand, vocab_size=9).train_files == by_hand.train_files
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/c\.yaml: there is no home folder of ~nobody"):
        read_config("~nobody-of-this-name/c.yaml", [DataArguments])


def test_a_user_s_home_is_found(tmp_path):
    import pwd

    me = pwd.getpwuid(os.getuid())
    assert expanded(f"~{me.pw_name}/x") == f"{me.pw_dir}/x"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("~no-such-user/x", "model=~no-such-user/x: there is no home folder of ~no-such-user; write the path out"),
        ("$NO_SUCH_THING/x", "model=$NO_SUCH_THING/x: there is no variable NO_SUCH_THING in the environment"),
        ("x/${NO_SUCH_THING}", "model=x/${NO_SUCH_THING}: there is no variable NO_SUCH_THING"),
        ("x/${}", "there is no variable  in"),
        ("x\udcff", "its letters cannot be used as utf-8: rename it, or"),
    ],
)
def test_what_cannot_be_expanded_is_refused_by_the_setting_s_name(value, words):
    with pytest.raises(ValueError, match="model=") as raised:
        FinetuneArguments(model=value, output_dir="o", packaged="stsb")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["prices$us.txt", "~lock", "a~", "$HOME", "100%", "x$"])
def test_what_is_there_as_it_is_written_is_meant(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert expanded(name) == name
    assert expanded(Path(name)) == Path(name)
    assert expanded(f"./{name}") == f"./{name}"


def test_names_and_urls_are_left_alone(monkeypatch):
    monkeypatch.setenv("x", "y")
    for value in (
        "google-bert/bert-base-uncased",
        "postgresql://u:$x@h/d",
        "postgresql:u:$x@h",
        "hf://d/$x",
        "latest",
        None,
        3,
    ):
        assert expanded(value) is value
    assert (
        SearchChildrenArguments(supernet="s", output="o", search="nsga2", storage="mysql://u:$x@h/d").study
        == "mysql://u:$x@h/d"
    )


PROGRAM = """
import sys
from hf_nasbert.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["flag", "file"])
def test_a_locale_that_knows_no_such_letters_is_named_before_any_work(way, tmp_path):
    """What a container without a UTF-8 locale gives, when Python's own remedies are switched off."""
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "c.yaml").write_text("output_dir: größe\n", encoding="utf-8")
    given = ["--output_dir", "größe"] if way == "flag" else ["--config", "c.yaml"]
    command = ["finetune", "--model", "m", "--packaged", "stsb", *given]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        capture_output=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    said = done.stderr.decode().splitlines()
    assert "Traceback" not in done.stderr.decode()
    assert "set a locale of UTF-8 (LC_ALL=C.UTF-8) or PYTHONUTF8=1" in said[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
