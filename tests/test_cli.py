"""The command line: help is instant, unknown commands and settings are refused, commands reach their call."""

import dataclasses
import subprocess
import sys
from importlib import metadata

import pytest

import hf_nasbert
from hf_nasbert import cli


def test_help_lists_the_commands_and_loads_no_torch():
    program = "import sys; from hf_nasbert.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert name in done.stdout
    assert done.stdout.rstrip().endswith("False")


def test_an_unknown_command_is_refused(capsys):
    assert cli.main(["pretain"]) == 2
    assert "pretain" in capsys.readouterr().err


# Every command: its help; flags that are misspelt, lack a value or have a wrong one; a file that has a wrong one; and
# where all that is required is given, a value that the settings themselves refuse. None of it needs a model.
LIGHT = """
import contextlib, dataclasses, io, sys, typing
from pathlib import Path
from hf_nasbert import cli

def is_wanted(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING

folder = Path(sys.argv[1])

def ended(name, argv, status):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main([name, *argv])
        except SystemExit as error:
            assert error.code == status, (name, argv, error.code, said.getvalue()[-500:])
        else:
            raise AssertionError((name, argv))
    loaded = [module for module in ("torch", "transformers", "accelerate", "datasets") if module in sys.modules]
    assert not loaded, f"{name} {argv} loads {loaded}"
    return said.getvalue()

for name, command in cli.COMMANDS.items():
    assert "--config" in ended(name, ["--help"], 0)
    kinds = [cli.find(kind) for kind in command.arguments]
    fields = [(kind, f) for kind in kinds for f in dataclasses.fields(kind) if f.init]
    hints = {f.name: typing.get_type_hints(kind)[f.name] for kind, f in fields}
    wanted = [f for kind in kinds for f in dataclasses.fields(kind) if is_wanted(f)]
    required = [word for f in wanted for word in (f"--{f.name}", "user/x" if f.name == "repo_id" else "x.jsonl")]
    assert wanted and "required" in ended(name, [], 2)
    first = wanted[0].name
    assert f"did you mean --{first}" in ended(name, [*required, f"--{first}z", "x"], 2)
    assert "expected" in ended(name, [*required, f"--{first}"], 2)
    for text, config in ((f"{first}: {{}}", first), ("nonsense_: 1", "nonsense_"), ("[1]", "list"), ("a: [", "YAML")):
        (folder / "c.yaml").write_text(text)
        assert config in ended(name, [*required, "--config", str(folder / "c.yaml")], 2)
    number = next((key for key, hint in hints.items() if hint in (int, float, int | None)), None)
    if number:
        assert "invalid" in ended(name, [*required, f"--{number}", "many"], 2)
    refused = {"push": ["--repo_id", "x"], "pull": ["--repo_id", "x"]}
    for flag, value in (
        ("num_evaluations", "-1"), ("num_dev_batches", "-1"), ("num_rounds", "-1"), ("batch_size", "-1"),
        ("num_resamples", "-1"), ("max_steps", "-1"), ("max_seq_length", "-1"),
    ):
        if flag in hints and name not in refused:
            refused[name] = [f"--{flag}", value]
    if "packaged" in hints:
        refused[name] += ["--packaged", "stsb"]
    if name in refused:
        assert "error" in ended(name, [*required, *refused[name]], 2)
print("light")
"""


def test_what_a_command_says_before_it_works_needs_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("light\n", "")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_calls_what_exists(name):
    command = cli.COMMANDS[name]
    assert callable(cli.find(command.function))
    for arguments in command.arguments:
        assert dataclasses.is_dataclass(cli.find(arguments))


def test_a_misspelt_setting_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["finetune", "--model", "x", "--output_dir", "y", "--packaged", "stsb", "--lerning_rate", "1"])
    assert ended.value.code == 2
    assert "lerning_rate" in capsys.readouterr().err


def test_a_users_mistake_is_one_line_without_traceback(tmp_path):
    arguments = ["--model", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out"), "--packaged", "stsb"]
    with pytest.raises(SystemExit, match=r"^hf-nasbert finetune: .*nowhere"):
        cli.main(["finetune", *arguments])


def test_the_packages_names_load_on_first_use():
    for name in hf_nasbert.__all__:
        assert getattr(hf_nasbert, name).__name__ == name
    assert set(hf_nasbert.__all__) <= set(dir(hf_nasbert))
    with pytest.raises(AttributeError, match="SuperNet"):
        hf_nasbert.SuperNet  # noqa: B018


def test_the_package_knows_its_version():
    assert hf_nasbert.__version__ == metadata.version("hf_nasbert")
    assert "__version__" in dir(hf_nasbert)


def test_importing_the_package_reads_no_metadata_and_loads_no_torch():
    heavy = "'importlib.metadata', 'torch', 'transformers'"
    program = f"import hf_nasbert, sys; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["pretain"], 2)])
def test_the_package_runs_as_a_module(arguments, status):
    done = subprocess.run(
        [sys.executable, "-m", "hf_nasbert", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert (done.stdout.strip() == f"hf_nasbert {hf_nasbert.__version__}") == (status == 0)


# What either package brings along when it is imported, in every order: each in a fork of a process that has imported
# neither, but torch.
ORDERS = '''
import os, sys

def alone(imports, found):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        exec(imports + chr(10) + found)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, imports

for imports in ("import hf_nasbert, transformers", "import transformers, hf_nasbert"):
    alone(imports, "print('torch' in sys.modules)")
import torch
assert not {'transformers', 'hf_nasbert'} & set(sys.modules)
made = """
from transformers import AutoConfig, AutoModelForMaskedLM
config = AutoConfig.for_model('nasbert', vocab_size=50, hidden_size=32)
print(type(AutoModelForMaskedLM.from_config(config)).__name__)
"""
for imports in (
    "import hf_nasbert.modeling.auto_classes, transformers",
    "import hf_nasbert, transformers; hf_nasbert.NasBertModel",
):
    alone(imports, made)
'''


@pytest.mark.slow
@pytest.mark.timeout(900)  # transformers is loaded four times
def test_our_models_come_and_register_with_the_auto_classes_when_they_are_imported():
    done = subprocess.run([sys.executable, "-c", ORDERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"] * 2 + ["NasBertForMaskedLM"] * 2


def test_a_missing_setting_is_named_in_the_one_spelling_of_the_pages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compress", "--base_model", "x"])
    assert capsys.readouterr().err.endswith("the following arguments are required: --output_dir\n")


def test_a_super_net_that_is_not_there_is_named_before_its_text_is_asked_for(tmp_path):
    with pytest.raises(SystemExit, match=r"hf-nasbert search: super-net .*nowhere: no such folder"):
        cli.main(["search", "--supernet", str(tmp_path / "nowhere"), "--output", str(tmp_path / "found.jsonl")])
