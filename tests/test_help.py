"""`--help`: short, with an example that parses, one spelling of a flag, what is required marked; all on request."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys

import pytest

from hf_nasbert import cli
from hf_nasbert.guides import GUIDES
from hf_nasbert.old_names import CALLED_ELSEWHERE
from hf_nasbert.recipe_arguments import parse_recipe_arguments

_LONGEST = 88


def kinds_of(name):
    command = cli.COMMANDS[name]
    return [cli.find(kind) for kind in (*command.arguments, *([cli._TIME] if command.is_long else []))]


def settings_of(name):
    """Every setting, and whether it is required."""
    found = {}
    for kind in kinds_of(name):
        for field in dataclasses.fields(kind):
            if field.init and field.name not in getattr(kind, "choices", {}):
                has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
                found[field.name] = not has_default
    return found


def page(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_command_has_a_guide():
    assert GUIDES.keys() == cli.COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_short_page(name, capsys):
    told, settings = page(capsys, name, "--help"), settings_of(name)
    assert len(told.splitlines()) <= _LONGEST
    assert max(map(len, told.splitlines())) <= 120
    for setting in settings:
        assert re.search(rf"--{setting}\b", told), setting
    assert "-".join(["--max", "seq"]) not in told, "one spelling"
    for flag in GUIDES[name].shown:
        assert flag in settings, flag
        assert re.search(rf"^  --{flag}[ ,]", told, re.MULTILINE), flag
    required = told.partition("required:\n")[2].partition("\n\n")[0]
    expected = {setting for setting, is_required in settings.items() if is_required}
    assert set(re.findall(r"^  --(\w+)", required, re.MULTILINE)) == expected


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_groups_of_bare_names_come_last_on_the_short_page(name, capsys):
    *groups, _ = page(capsys, name, "--help").split("\n\n")
    is_bare = [bool(re.match(r"[^\n]+:\n  and: ", group)) for group in groups]
    assert is_bare == sorted(is_bare)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_example_is_a_command_that_parses(name):
    program, command, *argv = shlex.split(GUIDES[name].example)
    assert (program, command) == ("hf-nasbert", name)
    taken = ["--packaged", "imdb"] if cli.COMMANDS[name].look == cli._TRAINED_ON else []  # from the model's folder
    parse_recipe_arguments(kinds_of(name), [*argv, *taken])


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_whole_page_tells_of_every_setting(name, capsys):
    told = page(capsys, name, "--help", "all")
    for setting in settings_of(name):
        assert re.search(rf"^  --{setting}\b.*\n      \w", told, re.MULTILINE), setting


def test_one_setting_is_told_of_whole(capsys):
    told = page(capsys, "pretrain", "--help", "min_lr_ratio")
    assert told.startswith("  --min_lr_ratio X\n      Floor under the falling learning rate")
    assert "as in BigNAS" in " ".join(told.split())
    assert page(capsys, "pretrain", "--help", "--min-lr-ratio".lstrip("-")) == told
    assert page(capsys, "pretrain", "--help=min_lr_ratio") == told


@pytest.mark.parametrize(
    ("topic", "hint"),
    [
        ("nonsense", "there is no setting of that name; hf-nasbert pretrain --help all lists them all"),
        ("min_lr", "there is no setting of that name; did you mean --help min_lr_ratio?"),
        (
            "magic_at_guarded",
            "it is a --method; hf-nasbert pretrain --method magic_at_guarded --help shows its settings",
        ),
        ("anchor_interval", "it is a setting of --method "),
    ],
)
def test_help_of_what_is_no_setting_says_where_to_look(topic, hint, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "--help", topic])
    assert ended.value.code == 2
    assert f"--help {topic}: {hint}" in capsys.readouterr().err
    if hint.startswith("it is a"):  # the command that it names works
        *_, command = hint.split("; ") if "; " in hint else ("", f"pretrain --method magic_at --help {topic}")
        assert page(capsys, *re.findall(r"pretrain .*?--help(?: \w+)?", command)[0].removesuffix(" shows").split())


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_no_sentence_of_the_short_page_is_cut(name, capsys):
    told = " ".join(page(capsys, name, "--help").split())
    assert "..." not in re.sub(r"(VALUE|A B|N N) \.\.\.", "", told)


def test_a_misspelt_command_is_answered_in_one_line(capsys):
    assert cli.main(["comprss"]) == 2
    assert capsys.readouterr().err == "hf-nasbert: there is no command 'comprss'; did you mean compress?\n"
    assert cli.main(["zzz"]) == 2
    assert "hf-nasbert --help lists them all" in capsys.readouterr().err


def test_settings_of_a_choice_stand_in_the_short_page_of_that_choice(capsys):
    told = page(capsys, "search", "--search", "evolution", "--help")
    assert re.search(r"^search settings:\n  --\w", told, re.MULTILINE)
    assert "--population_size N" in told
    assert "--population_size" not in page(capsys, "search", "--search", "random", "--help")


@pytest.mark.parametrize(
    ("command", "given", "here"),
    [
        ("finetune", "per_device_train_batch_size", "batch_size"),
        ("compress", "per_device_train_batch_size", "batch_size"),
        ("pretrain", "batch_size", "per_device_train_batch_size"),
        ("compress", "model_name_or_path", "base_model"),
        ("finetune", "model_name_or_path", "model"),
        ("compress", "max_steps", "recovery_steps"),
        ("compress", "seed", "seeds"),
        ("pretrain", "bf16", "mixed_precision"),
        ("search", "output_dir", "output"),
    ],
)
def test_a_name_of_transformers_or_of_another_command_is_translated(command, given, here, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, f"--{given}", "8"])
    assert f"unknown flag --{given}; it is called --{here} here" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "others"), CALLED_ELSEWHERE.items())
def test_every_translation_is_a_setting_of_some_command(given, others):
    known = {setting for name in cli.COMMANDS for setting in settings_of(name)}
    assert set(others) <= known


def test_weights_are_loaded_without_bars_and_downloads_keep_theirs():
    """In a process of its own, for it is the process that the bars are switched off in."""
    script = (
        "import transformers\nfrom hf_nasbert import cli\ncli._hide_foreign_bars()\n"
        "from transformers.utils.logging import is_progress_bar_enabled\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "print(is_progress_bar_enabled(), are_progress_bars_disabled())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout == "False False\n"
