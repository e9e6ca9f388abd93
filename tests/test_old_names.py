"""Settings under the names that they had before: accepted with a warning, as flags and in files."""

import dataclasses

import pytest

from hf_nasbert import cli
from hf_nasbert.old_names import OLD_NAMES
from hf_nasbert.recipe_arguments import parse_recipe_arguments, read_config

RENAMED = [(kind, old, new) for kind, names in OLD_NAMES.items() for old, new in names.items()]
REQUIRED = {
    "PipelineArguments": ["--output_dir", "x"],
    "TaskArguments": ["--model", "x", "--output_dir", "x"],
    "LatencyArguments": ["--supernet", "x", "--output", "x"],
    "RankChildrenArguments": ["--supernets", "x", "--table", "x", "--scores", "x"],
    "SearchChildrenArguments": ["--supernet", "x", "--output", "x", "--latency_table", "x"],
}


def kind_of(name):
    kinds = {cli.find(kind) for command in cli.COMMANDS.values() for kind in command.arguments}
    return next(base for kind in kinds for base in kind.__mro__ if base.__name__ == name)


@pytest.mark.parametrize(("name", "old", "new"), RENAMED)
def test_both_names_are_one_setting(name, old, new, tmp_path, caplog):
    kind, required = kind_of(name), REQUIRED[name]
    assert new in {field.name for field in dataclasses.fields(kind)}
    assert old not in {field.name for field in dataclasses.fields(kind)}

    def parse(*argv):
        caplog.clear()
        (made,) = parse_recipe_arguments([kind], [*required, *argv])
        return made, caplog.text

    expected, told = parse(f"--{new}", "7")
    assert told == ""
    for spelling in ([f"--{old}", "7"], [f"--{old}=7"], [f"--{old.replace('_', '-')}", "7"]):
        made, told = parse(*spelling)
        assert made == expected
        assert f"is now called --{new}; the old name goes with the next release" in told
    config = tmp_path / "old.yaml"
    config.write_text(f"{old}: 7\n")
    made, told = parse("--config", str(config))
    assert float(getattr(made, new)) == float(getattr(expected, new))
    assert f"{config}: {old} is now called {new}" in told
    config.write_text(f"{old}: 7\n{new}: 7\n")
    with pytest.raises(ValueError, match=f"{old} is the old name of {new}, which is given too"):
        read_config(config, [kind])


def test_a_name_that_is_old_elsewhere_stays_unknown(capsys):
    with pytest.raises(SystemExit):
        parse_recipe_arguments([kind_of("LatencyArguments")], [*REQUIRED["LatencyArguments"], "--num_scored", "7"])
    assert "unknown flag --num_scored" in capsys.readouterr().err
