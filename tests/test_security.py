"""What SECURITY.md promises: no code out of files, no way out of folders, no token in what is written."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny.texts import TEXT

from hf_nasbert.checkpoint_folders import FORMAT, DamagedCheckpointError, seal, verify

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("src", "recipes", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
TRAVELLERS = ["geometry_nasbert", "operators_nasbert", "configuration_nasbert", "modeling_nasbert"]
TOKEN = "hf_PlantedTokenThatNobodyMayEverSee0123"

CODE_FROM_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "os.system", "os.popen", "os.execv", "os.execvp", "pty.spawn", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "numpy.load", "torch.load",
}  # fmt: skip


def full_names(tree: ast.AST) -> dict[str, str]:
    """What the imported names of a program stand for: `np` for numpy, `load` for torch.load."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def offences(source: str) -> list[str]:
    """Every place of a program that runs what data say, or might."""
    found = []
    tree = ast.parse(source)
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in CODE_FROM_DATA]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in CODE_FROM_DATA:
            # The error of torch's own restricted reader is a pickle error; nothing else of that module is touched.
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name != "UnpicklingError"]
        elif isinstance(node, ast.Call):
            options = {option.arg: option.value for option in node.keywords}
            first, *rest = ast.unparse(node.func).split(".")
            name = ".".join([names.get(first, first), *rest]).removeprefix("builtins.")
            if name in CALLS | METHODS:
                found.append(name)
            if name == "yaml.load" and ast.unparse(options.get("Loader", ast.Constant(0))) != "_Yaml12Loader":
                found.append(name)
            shell = options.get("shell")
            if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
                found.append("shell")
            trusts = options.get("trust_remote_code")
            if isinstance(trusts, ast.Constant) and trusts.value is True:
                found.append("trust_remote_code")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_data_say(path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from dill import loads", "from pickle import loads, UnpicklingError", "eval('1')",
        "torch.load('x', weights_only=False)", "torch.load('x')", "yaml.load(text)", "yaml.load(text, Loader=Loader)",
        "os.system('x')", "subprocess.run('x', shell=True)", "f(trust_remote_code=True)",
        "import numpy as np; np.load('x')", "import torch as t; t.load('x')", "from torch import load; load('x')",
        "from os import system as run; run('x')", "import builtins as b; b.eval('1')",
    ],
)  # fmt: skip
def test_an_offence_is_seen(line):
    """Sanity check of the walker."""
    assert offences(line)


def test_yaml_is_read_by_a_safe_loader():
    import yaml

    from hf_nasbert.yaml_files import _Yaml12Loader

    assert issubclass(_Yaml12Loader, yaml.SafeLoader)
    assert not [tag for tag in _Yaml12Loader.yaml_constructors if tag is not None and "python" in tag]


@pytest.mark.parametrize("name", TRAVELLERS)
def test_travelling_code_computes_and_nothing_else(name):
    tree = ast.parse((ROOT / "src" / "hf_nasbert" / "modeling" / f"{name}.py").read_text())
    allowed = {"torch", "transformers", "huggingface_hub", "collections", "dataclasses", "difflib", "functools"}
    allowed |= {"math", "re", "reprlib", "typing"}
    forbidden = {
        "open", "exec", "eval", "compile", "__import__", "input", "getattr_static", "system", "popen", "read_text",
        "write_text", "read_bytes", "write_bytes", "urlopen", "hf_hub_download", "snapshot_download", "unlink", "save",
        "load", "hub", "import_module",
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] in allowed
            if node.module.split(".")[0] == "huggingface_hub":
                taken = {alias.name for alias in node.names}
                assert taken <= {"strict", "__version__"}, "the strict configs, a number, and no way to the Hub"
        elif isinstance(node, ast.Name | ast.Attribute):  # even uncalled: another name could call it
            used = node.id if isinstance(node, ast.Name) else node.attr
            assert used not in forbidden, f"{name}.py uses {used}, line {node.lineno}"


class Bomb:
    """An object that, when a careless reader unpickles it, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """Bytes that would make `tmp_path / "boom"`, which is looked for at the end."""
    import torch

    boom = tmp_path / "boom"
    path = tmp_path / "bomb.pt"
    torch.save({"state": Bomb(boom)}, path)
    pickle.loads(pickle.dumps(Bomb(boom)))
    assert boom.exists(), "sanity check: it does go off"
    boom.unlink()
    yield path.read_bytes()
    assert not boom.exists(), "code out of a file was run"


@pytest.fixture
def child(tmp_path):
    """The folder of a tiny child, with its code."""
    import torch

    from hf_nasbert.child_folders import save_child
    from hf_nasbert.data import train_tokenizer
    from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM

    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXT.read_text(encoding="utf-8").split("\n\n"), 100, model_max_length=16)
    sizes = {"hidden_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "ffn_ratio": 1}
    model = NasBertForMaskedLM(NasBertConfig(operators=["attention", "ffn"], **sizes))
    return save_child(model, tokenizer, tmp_path / "child")


class TestHostileModels:
    def test_weights_that_are_pickle_run_nothing(self, child, bomb, tmp_path):
        from transformers import AutoModelForMaskedLM

        from hf_nasbert.extraction import load_supernet
        from hf_nasbert.modeling import SupernetConfig

        (child / "model.safetensors").unlink()
        (child / "pytorch_model.bin").write_bytes(bomb)
        with pytest.raises(Exception, match=r"weights_only|safe|WeightsUnpickler|Unsupported"):
            AutoModelForMaskedLM.from_pretrained(child)
        SupernetConfig().save_pretrained(tmp_path / "supernet")
        (tmp_path / "supernet" / "pytorch_model.bin").write_bytes(bomb)
        with pytest.raises(OSError, match="safetensors"):
            load_supernet(tmp_path / "supernet")

    @pytest.mark.parametrize("trust", [False, True])
    def test_where_the_package_is_installed_a_childs_own_code_is_not_run(self, child, tmp_path, trust):
        from transformers import AutoModelForMaskedLM

        from hf_nasbert.modeling import NasBertForMaskedLM

        for name in TRAVELLERS:
            (child / f"{name}.py").write_text(f"open({str(tmp_path / 'boom')!r}, 'w')\n")
        model = AutoModelForMaskedLM.from_pretrained(child, trust_remote_code=trust)
        assert type(model) is NasBertForMaskedLM
        assert not (tmp_path / "boom").exists()

    def test_code_of_a_foreign_model_is_run_only_where_that_was_said(self, tmp_path):
        from hf_nasbert.finetuning import PretrainChildArguments
        from hf_nasbert.finetuning.runs import load_config

        folder = tmp_path / "foreign"
        folder.mkdir()
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'boom')!r}, 'w')\n")
        config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        arguments = PretrainChildArguments(model=str(folder), output_dir=str(tmp_path / "out"))
        with pytest.raises(ValueError, match="trust_remote_code"):
            load_config(arguments, None)
        assert not (tmp_path / "boom").exists()

    def test_a_manifest_names_no_file_outside_its_folder(self, tmp_path):
        (tmp_path / "secret").write_text("{}")
        checkpoint = tmp_path / "checkpoint-1"
        checkpoint.mkdir()
        for name in ("../secret", str(tmp_path / "secret"), "a/../../secret"):
            entry = {"size": 2, "xxh3_128": "dc7048f8f8747f561349cde127705c16"}
            (checkpoint / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": {name: entry}}))
            with pytest.raises(DamagedCheckpointError, match="is missing"):
                verify(checkpoint)

    @pytest.mark.parametrize(
        "name", ["../ffn", "ffn/../..", "ffn\0", "__import__('os')", "ffn;", "ffn\n", "/etc/passwd"]
    )
    def test_no_operator_is_a_path_or_a_program(self, name):
        from hf_nasbert.modeling import NasBertConfig
        from hf_nasbert.space import Architecture, SearchSpace

        for make in (
            lambda: Architecture.parse(f"attention-{name}"),
            lambda: SearchSpace.chain(2, ("attention", name)),
            lambda: NasBertConfig(operators=["attention", name]),
        ):
            with pytest.raises(ValueError, match="operator"):
                make()


@pytest.mark.slow
class TestTrainersCheckpoints:
    """Trainer writes torch's own format; what matters is how it is read."""

    @pytest.fixture
    def interrupted(self, child, tmp_path):
        from transformers import TrainerCallback

        from hf_nasbert.data import DataArguments
        from hf_nasbert.finetuning import PretrainChildArguments, pretrain_child

        class PowerCut(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 3:
                    raise KeyboardInterrupt

        data = DataArguments(
            train_files=[str(TEXT)], sample_by="paragraph", max_seq_length=16, validation_fraction=0.3,
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        arguments = PretrainChildArguments(
            model=str(child), output_dir=str(tmp_path / "out"), max_steps=4, save_steps=2, batch_size=2,
            num_dev_batches=1, dev_batch_size=2, disable_tqdm=True,
        )  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            pretrain_child(arguments, data, callbacks=[PowerCut()])
        return tmp_path / "out" / "run" / "checkpoint-2", lambda: pretrain_child(arguments, data)

    @pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
    def test_a_hostile_one_is_refused(self, interrupted, bomb, name):
        checkpoint, resume = interrupted
        (checkpoint / name).write_bytes(bomb)
        with pytest.raises(DamagedCheckpointError, match=rf"checkpoint-2 is damaged: {name} has \d+ bytes"):
            resume()
        seal(checkpoint)  # whoever can write the folder can write the sums too
        with pytest.raises(DamagedCheckpointError, match="checkpoint-2 holds more than tensors"):
            resume()

    def test_pickled_arguments_are_never_read_nor_published(self, interrupted, bomb, tmp_path):
        checkpoint, resume = interrupted
        assert not (checkpoint / "training_args.bin").exists()
        (checkpoint / "training_args.bin").write_bytes(bomb)
        seal(checkpoint)
        assert resume()["resumed_from"] == "checkpoint-2"
        suffixes = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert not suffixes & {".bin", ".pt", ".pth", ".pkl"}, "a finished run leaves no pickle behind"


COMMANDS = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from hf_nasbert.cli import main
text = ["--train_files", sys.argv[1], "--sample_by", "paragraph", "--max_seq_length", "16"]
text += ["--validation_fraction", "0.3"]
for command in (
    ["pretrain", "--output_dir", "supernet", "--operators", "attention", "ffn", "--num_choice_blocks", "2",
     "--hidden_size", "32", "--max_steps", "4",
     "--per_device_train_batch_size", "2", "--num_eval_batches", "1", "--method", "uniform", "--vocab_size", "200",
     "--save_steps", "2", "--logging_steps", "1", "--report_to", "none", *text],
    ["score", "--supernet", "supernet", "--output", "scores.jsonl", "--all_children", "true", "--num_dev_batches", "1",
     "--dev_batch_size", "2", *text],
    ["report", "--records", "scores.jsonl", "--output", "report.html", "--supernet", "supernet"],
    ["extract", "--supernet", "supernet", "--architecture", "attention-ffn", "--output_dir", "child"],
    ["pretrain-child", "--model", "child", "--output_dir", "trained", "--max_steps", "2", "--batch_size", "2",
     "--num_dev_batches", "1", "--dev_batch_size", "2", *text],
):
    assert main(command) == 0, command
glue = ["finetune", "--task", "mrpc", "--model", "me/secret", "--output_dir", "glue"]
for command in (glue, ["score", "--supernet", "x"]):
    try:
        main(command)
    except SystemExit as error:
        print(error)
"""


@pytest.mark.slow
def test_no_token_is_written_or_said(tmp_path):
    """A token lies where people keep theirs, in the environment and in its file; nothing else ever holds it."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / "token").write_text(TOKEN)
    (home / "stored_tokens").write_text(f"[mine]\nhf_token = {TOKEN}\n")
    environment = {**os.environ, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(TEXT)], cwd=work, env=environment, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"report.html", "scores.jsonl", "README.md", "train_log.jsonl", "records.jsonl"} <= {
        p.name for p in written
    }
    holders = {path.relative_to(tmp_path).as_posix() for path in written if TOKEN.encode() in path.read_bytes()}
    assert holders == {"home/token", "home/stored_tokens"}
    assert TOKEN not in done.stdout + done.stderr
    assert TOKEN[:12] not in done.stdout + done.stderr, "not in part either"


def test_a_table_card_holds_no_markup_of_its_table():
    from hf_nasbert.cards import render_table_card
    from hf_nasbert.ranking import GroundTruth, load_table

    evil = "x | `y` </script><script>alert(1)</script> [a](javascript:alert(1))\n# owned"
    table = load_table("imdb")
    rows = [{**row, "recipe": {**row["recipe"], "source": evil, "text": evil}} for row in table]
    card = render_table_card(evil, GroundTruth(table.from_list(rows)))
    assert "\n# owned" not in card
    body = card.split("\n---\n", 1)[1]
    assert body.count("<script>") >= 3, "it is there to read, in spans of code"
    outside = re.sub(r"```.*?```|(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", body, flags=re.DOTALL)
    assert not re.search(r"<script|\]\(javascript", outside)
