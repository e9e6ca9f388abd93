"""`recipe_arguments`: one YAML file plus flags, and nothing misspelt gets through."""

import re
from dataclasses import dataclass, field
from typing import Literal

import pytest

from hf_nasbert import cli
from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline import PipelineArguments, SearchChildrenArguments
from hf_nasbert.recipe_arguments import parse_recipe_arguments, read_config, user_mistakes


@dataclass
class Shape:
    name: str = field(metadata={"help": "A required one."})
    width: int = field(default=4, metadata={"help": "50%% of it."})
    rate: float = 0.5
    seed: int = 0
    kind: Literal["no", "bf16"] = "no"
    blocks: list[str] = field(default_factory=list)
    limit: int | None = None
    loud: bool = False
    quick: bool = True

    def __post_init__(self):
        if self.width < 0:
            raise ValueError(f"width={self.width} is negative")


@dataclass
class Run:
    learning_rate: float = 1e-3
    seed: int = 0


@pytest.fixture
def config(tmp_path):
    def write(text):
        (tmp_path / "config.yaml").write_text(text)
        return str(tmp_path / "config.yaml")

    return write


def parse(*argv):
    return parse_recipe_arguments([Shape, Run], list(argv))


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_flags_override_the_file(config):
    path = config("name: a\nwidth: 8\nlearning_rate: 0.1\nblocks: [x, y]\nlimit: 3\nquick: false\n")
    shape, run = parse("--config", path, "--width", "16", "--loud", "--no_quick", "--blocks", "z")
    assert shape == Shape("a", width=16, blocks=["z"], limit=3, loud=True, quick=False)
    assert run == Run(learning_rate=0.1)
    shape, _ = parse("--config", path, "--quick", "true")
    assert (shape.quick, shape.blocks) == (True, ["x", "y"])


def test_a_flag_takes_the_place_of_an_alternative(config):
    (data,) = parse_recipe_arguments(
        [DataArguments], ["--config", config("packaged: imdb\n"), "--train_files", "my.txt"]
    )
    assert (data.packaged, data.train_files) == (None, ["my.txt"])
    (data,) = parse_recipe_arguments([DataArguments], ["--config", config("train_files: [a.txt]"), "--packaged=imdb"])
    assert (data.packaged, data.train_files) == ("imdb", None)


def test_two_alternatives_of_one_kind_are_refused(config, capsys):
    for argv in (
        ["--packaged", "imdb", "--train_files", "my.txt"],
        ["--config", config("packaged: imdb\ndataset_name: x\n")],
    ):
        with pytest.raises(SystemExit):
            parse_recipe_arguments([DataArguments], argv)
        assert "exactly one text source is needed, got" in capsys.readouterr().err


def test_defaults_and_required(config, capsys):
    assert parse("--name", "a") == (Shape("a"), Run())
    assert parse("--config", config("name: b\n")) == (Shape("b"), Run())
    assert "--name" in refused(capsys)


def test_a_shared_field_fills_both(config):
    shape, run = parse("--name", "a", "--seed", "7")
    assert (shape.seed, run.seed) == (7, 7)
    shape, run = parse("--config", config("name: a\nseed: 5\n"))
    assert (shape.seed, run.seed) == (5, 5)


@pytest.mark.parametrize(("text", "cap"), [("2000000", 2_000_000), ("2M", 2_000_000), ("1.5M", 1_500_000), ("'3'", 3)])
@pytest.mark.parametrize("name", ["max_parameters", "max_flops", "max_memory"])
def test_a_cap_is_a_whole_number_or_a_quantity(config, name, text, cap):
    required = ["--supernet", "x", "--output", "y"]
    of_a_file = parse_recipe_arguments([SearchChildrenArguments], ["--config", config(f"{name}: {text}"), *required])
    of_a_flag = parse_recipe_arguments([SearchChildrenArguments], [f"--{name}", text.strip("'"), *required])
    for (arguments,) in (of_a_file, of_a_flag):
        assert list(arguments.budget().caps.values()) == [cap]


@pytest.mark.parametrize("name", ["max_latency", "max_parameters", "max_flops", "max_memory"])
def test_every_command_reads_caps_alike(name, capsys):
    """Of those that take such a cap: what one understands, all do, and what is wrong they say in the same words."""
    required = {
        "compress": ["--base_model", "x", "--output_dir", "y", "--train_files", "x"],
        "plan-compress": ["--base_model", "x", "--output_dir", "y", "--train_files", "x"],
        "search": ["--supernet", "x", "--output", "y", "--train_files", "x", "--latency_table", "z"],
        "run": ["--operators", "ffn", "--num_choice_blocks", "2", "--train_files", "x", "--output_dir", "y"],
        "plan": [],
    }
    kinds = {command: [cli.find(kind) for kind in cli.COMMANDS[command].arguments] for command in cli.COMMANDS}
    takers = {
        command
        for command, own in kinds.items()
        if any(name in vars(kind).get("__dataclass_fields__", {}) for kind in own)
    }
    assert takers <= required.keys()
    assert {"compress", "plan-compress", "search"} <= takers
    said = set()
    for command in takers:

        def parse(text, command=command):
            return parse_recipe_arguments(kinds[command], [*required[command], f"--{name}", text])

        for text in ("12.5", "12.5ms" if name == "max_latency" else "5M", *(["0.5x"] if command != "plan" else [])):
            parse(text)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            parse("much")
        message = capsys.readouterr().err.splitlines()[-1].partition(": error: ")[2]
        said.add(re.sub(r" or a share of the (base model|largest child)'s \(--\w+ 0\.5x\)", "", message))
    (message,) = said
    assert message.startswith(f"{name}='much': expected ")
    assert f"(--{name} 1" in message


@pytest.mark.parametrize("text", ["true", "1.5", "[1]", "-5", "2 apples"])
@pytest.mark.parametrize(
    ("kinds", "required"),
    [
        ([SearchChildrenArguments], ["--supernet", "x", "--output", "y"]),
        ([PipelineArguments], ["--output_dir", "x"]),
    ],
)
def test_what_is_no_cap_is_refused(config, capsys, text, kinds, required):
    with pytest.raises(SystemExit):
        parse_recipe_arguments(kinds, ["--config", config(f"max_parameters: {text}"), *required])
    assert "max_parameters" in capsys.readouterr().err


def test_numbers_and_words_of_yaml_1_2(config):
    path = config("name: on\nkind: no\nlearning_rate: 1e-4\nrate: 1\nlimit: null\n")
    shape, run = parse("--config", path)
    assert (shape.name, shape.kind, shape.rate, shape.limit, run.learning_rate) == ("on", "no", 1.0, None, 1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nlerning_rate: 1\n", ["lerning_rate", "did you mean learning_rate?"]),
        ("name: a\nwidth: 4.5\n", ["width", "4.5", "int"]),
        ("name: a\nwidth: '4'\n", ["width", "'4'", "int"]),
        ("name: a\nwidth: true\n", ["width", "True", "int"]),
        ("name: a\nwidth: -1\n", ["width=-1 is negative"]),
        ("name: a\nloud: 1\n", ["loud", "bool"]),
        ("name: 3\n", ["name", "3", "str"]),
        ("name: a\nkind: fp8\n", ["kind", "fp8", "'no', 'bf16'"]),
        ("name: a\nblocks: 3\n", ["blocks", "3", "list"]),
        ("name: a\nblocks: [x, 3]\n", ["blocks[1]", "3"]),
        ("name: a\nwidth: 4\nwidth: 5\n", ["'width' is given twice"]),
        ("- name\n", ["list", "setting: value"]),
        ("name: [a\n", ["no YAML"]),
        ("name: !!python/object/apply:os.getcwd []\n", ["no YAML"]),
    ],
)
def test_what_does_not_fit_is_named(config, capsys, text, words):
    message = refused(capsys, "--config", config(text))
    for word in words:
        assert word in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--lerning_rate", "1"], ["--lerning_rate", "did you mean --learning_rate?"]),
        (["--lr", "1"], ["unknown flag --lr; it is called --learning_rate here"]),  # as elsewhere
        (["--widt", "5"], ["--widt", "did you mean --width?"]),  # an abbreviation is no name
        (["--width", "wide"], ["--width", "wide"]),
        (["--kind", "fp8"], ["--kind", "fp8"]),
        (["stray"], ["stray"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "no such file"]),
        (["--config"], ["--config"]),
    ],
)
def test_misspelt_flags_are_named(capsys, argv, words):
    message = refused(capsys, "--name", "a", *argv)
    for word in words:
        assert word in message


def test_a_folder_or_binary_file_is_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_config(tmp_path, [Shape])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.yaml"):
        read_config(tmp_path / "binary.yaml", [Shape])
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "empty.yaml", [Shape]) == {}


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("name", "width", "learning_rate", "config"))
    assert "50%" in shown


def test_a_message_holds_no_control_sequence_of_a_foreign_file():
    with pytest.raises(SystemExit, match=r"^program: no operator \\x1b\[2J$"), user_mistakes("program"):
        raise ValueError("no operator \x1b[2J")
