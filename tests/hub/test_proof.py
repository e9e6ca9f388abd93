"""What was pushed lives where nobody has this package; what could not is not pushed."""

import json
import os
import re
import subprocess
import sys

import huggingface_hub.constants
import pytest
import torch
import transformers
from hub_helpers import MODEL, files_of
from hub_server import TOKEN
from safetensors.torch import load_file, save_file
from tiny.models import logits_of, padded_batch, randomise_
from tiny.processes import run_without_our_package
from tiny.texts import WORDS, tiny_tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_nasbert import cli
from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child
from hf_nasbert.hub import check_leaves_home, gather
from hf_nasbert.modeling import NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.modeling.families import to_bert
from hf_nasbert.native import CODE_FILES
from hf_nasbert.ranking import load_table
from hf_nasbert.space import SearchSpace

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Runs where nobody has this package, against the server of HF_ENDPOINT or, where that is gone, from the cache.
ABROAD = r"""
import importlib.abc, json, os, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nasbert":
            raise ImportError("there is no hf_nasbert here")

sys.meta_path.insert(0, Absent())
import torch, transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
stage, first, inputs, expected, finetuned = sys.argv[1:]
batch, expected = load_file(inputs), load_file(expected)
report = {}

def compare(name, tensor, key):
    report[name] = float((tensor - expected[key]).abs().max())

with torch.no_grad():
    if stage != "finetuned":
        model = AutoModelForMaskedLM.from_pretrained("user/child", trust_remote_code=True)
        compare("newest", model(**batch).logits, "retrained")
        pinned = AutoModelForMaskedLM.from_pretrained(
            "user/child", revision=first, code_revision=first, trust_remote_code=True
        )
        compare("pinned", pinned(**batch).logits, "child")
        compare("base", AutoModel.from_pretrained("user/child", trust_remote_code=True)(**batch)[0], "states")
        native = AutoModelForMaskedLM.from_pretrained("user/native")
        compare("native", native(**batch).logits, "native")
        tokenizer = AutoTokenizer.from_pretrained("user/child", trust_remote_code=True)
        report["tokens"] = tokenizer("the film was good")["input_ids"]
        report["class"] = type(model).__module__.split(".")[0]
    if stage != "online":
        classifier = AutoModelForSequenceClassification.from_pretrained("user/finetuned", trust_remote_code=True)
        compare("classifier", classifier(**batch).logits, "classifier")

if stage == "online":
    from datasets import load_dataset
    from safetensors.torch import load_file, save_file

    table = load_dataset("user/table", split="train")
    report["table"] = [len(table), table[0]["architecture"], table[0]["dev_loss"]]
    classifier = AutoModelForSequenceClassification.from_pretrained("user/child", trust_remote_code=True, num_labels=3)
    classifier(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    torch.optim.SGD(classifier.parameters(), lr=0.1).step()
    classifier.eval().save_pretrained(finetuned)
    tokenizer.save_pretrained(finetuned)
    with torch.no_grad():
        save_file({**expected, "classifier": classifier(**batch).logits}, sys.argv[4])
print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes that load transformers
def test_what_was_pushed_lives_where_nobody_has_this_package(hub, send, made, tmp_path, monkeypatch, capsys):
    """Push, load in a fresh process with an empty cache, fine-tune, push again, load again, and offline at the end."""
    native = "attention-ffn-attention-ffn-attention-ffn"
    config = SupernetConfig(
        search_space=SearchSpace.chain(6, ("attention", "ffn")), vocab_size=len(WORDS), hidden_size=64
    )
    bert = to_bert(extract_child(randomise_(SupernetForMaskedLM(config)), native))
    save_child(bert, tiny_tokenizer(), tmp_path / "native")
    batch = padded_batch()
    models = {name: NasBertForMaskedLM.from_pretrained(made[name]) for name in ("child", "retrained")}
    expected = {name: logits_of(model, batch) for name, model in models.items()} | {"native": logits_of(bert, batch)}
    with torch.no_grad():
        expected["states"] = models["retrained"].nasbert(**batch).last_hidden_state
    save_file(batch, tmp_path / "batch")
    save_file(expected, tmp_path / "expected")
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    environment = os.environ | settings | {"HF_HOME": str(tmp_path / "home")}
    outputs = []

    def run(*command: object, **changed: str) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment | changed,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        outputs.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def abroad(stage: str, **changed: str) -> dict:
        command = ("-I", "-c", ABROAD, stage, first, tmp_path / "batch", tmp_path / "expected", tmp_path / "finetuned")
        return json.loads(run(*command, **changed).splitlines()[-1])

    first = send(made["child"]).commit
    outputs += [str(send(made["retrained"])), str(send("imdb", "user/table"))]
    monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)
    with monkeypatch.context() as patch:  # in a fork; the one that is fine-tuned below, in a process of its own
        patch.setattr("hf_nasbert.hub.proof.subprocess.run", run_without_our_package)
        outputs += [str(send(tmp_path / "native", "user/native"))]
    assert b'datasets.load_dataset("user/table")' in files_of(hub, "datasets/user/table")["README.md"]

    online = abroad("online")
    assert {name: online[name] for name in ("newest", "pinned", "base", "native")} == dict.fromkeys(
        ("newest", "pinned", "base", "native"), 0
    )
    assert online["class"] == "transformers_modules"
    assert online["tokens"] == tiny_tokenizer()("the film was good")["input_ids"]
    table = load_table("imdb")
    # datasets reads some JSON through pandas, which keeps ten digits after the point.
    loss = pytest.approx(table[0]["dev_loss"], abs=1e-9)
    assert online["table"] == [len(table), table[0]["architecture"], loss]

    command = ["push", "--source", tmp_path / "finetuned", "--repo_id", "user/finetuned", "--private"]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    assert cli.main([*map(str, command)]) == 0
    outputs += capsys.readouterr()
    assert 'AutoModelForSequenceClassification.from_pretrained("user/finetuned"' in outputs[-2]
    there = files_of(hub, "models/user/finetuned")
    assert {*CODE_FILES} <= there.keys()
    assert json.loads(there["config.json"])["auto_map"] == AUTO_MAP
    hub.repos.pop(MODEL)
    assert abroad("finetuned") == {"classifier": 0}

    hub.shutdown()
    hub.server_close()
    offline = abroad("offline", HF_HUB_OFFLINE="1")
    assert all(offline[name] == 0 for name in ("newest", "pinned", "base", "native", "classifier"))
    for text in (*outputs, *map(str, hub.requests)):
        assert TOKEN not in text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    for repo in hub.repos.values():
        assert not any(TOKEN.encode() in data for data in repo.files.values())


class TestProof:
    """Of a child's folder, before it is pushed."""

    @pytest.fixture
    def is_trusted(self):
        """Whether the folder's own code is loaded, or the package's."""
        return False

    @pytest.fixture
    def here(self, monkeypatch, is_trusted):
        """In place of a fresh process, this one: quick, and enough for what does not depend on the package."""

        def load_here(command, **_):
            folder, auto_class, inputs, results = command[4:]
            with monkeypatch.context() as patched:
                if is_trusted:  # else our own classes are taken
                    patched.setattr(CONFIG_MAPPING, "_extra_content", {})
                model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=is_trusted).eval()
            assert type(model).__module__.startswith("transformers_modules.") == is_trusted
            with torch.no_grad():
                outputs = model(**load_file(inputs))
            save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, results)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr("hf_nasbert.hub.proof.subprocess.run", load_here)

    @pytest.mark.parametrize("name", [name for name in AUTO_MAP if name != "AutoConfig"])
    def test_every_head_is_loaded_by_its_own_name(self, here, made, child, name):
        model = randomise_(getattr(transformers, name).from_pretrained(made["child"]))
        model.save_pretrained(child)
        assert check_leaves_home(gather(child, "user/child").files) == 0

    def test_the_other_process_has_no_token_no_network_and_no_cache(self, here, child, monkeypatch):
        load_here, given = subprocess.run, {}

        def spy(command, **options):
            given.update(options["env"])
            return load_here(command, **options)

        monkeypatch.setattr("hf_nasbert.hub.proof.subprocess.run", spy)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MY_CLIENT_SECRET", "of mine")
        check_leaves_home(gather(child, "user/child").files)
        assert not {TOKEN, "of mine"} & {*given.values()}
        assert given["HF_HUB_OFFLINE"] == "1"
        assert all(given[cache] != os.environ.get(cache) for cache in ("HF_HOME", "HF_MODULES_CACHE"))

    @pytest.mark.parametrize("damage", ["missing", "unexpected", "other sizes"])
    def test_weights_that_do_not_belong_are_refused(self, here, child, damage):
        weights = load_file(child / "model.safetensors")
        name = "nasbert.encoder.blocks.1.operator.self.query.bias"
        if damage == "missing":
            del weights[name]
        elif damage == "unexpected":
            weights["spare"] = torch.zeros(3)
        else:
            weights[name] = torch.zeros(3)
        save_file(weights, child / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"the child's weights do not belong|the child does not load"):
            check_leaves_home(gather(child, "user/child").files)

    def test_a_class_that_nobody_knows_is_refused(self, child):
        config = json.loads((child / "config.json").read_text())
        (child / "config.json").write_text(json.dumps({**config, "architectures": ["NasBertForPoetry"]}))
        with pytest.raises(ValueError, match="names the class 'NasBertForPoetry'"):
            check_leaves_home(gather(child, "user/child").files)

    def test_numbers_that_are_none_are_refused(self, here, child):
        weights = load_file(child / "model.safetensors")
        weights["lm_head.bias"][3] = float("nan")
        save_file(weights, child / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="compute other logits"):
            check_leaves_home(gather(child, "user/child").files)

    def push_changed(self, send, child, monkeypatch, file, old, new):
        monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)
        code = (child / file).read_text()
        assert old in code
        (child / file).write_text(code.replace(old, new))
        with pytest.raises(ValueError, match="the child") as raised:
            send(child, trust_remote_code=True)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    @pytest.mark.slow
    def test_code_that_needs_this_package_is_not_pushed(self, hub, send, child, monkeypatch):
        change = ("modeling_nasbert.py", "import torch\n", "import torch, hf_nasbert\n")
        assert re.search("not installed: .* hf_nasbert", self.push_changed(send, child, monkeypatch, *change))
        assert hub.writes == []

    @pytest.mark.parametrize("is_trusted", [True])
    def test_code_that_computes_something_else_is_not_pushed(self, hub, send, child, monkeypatch, here):
        change = ("operators_nasbert.py", " + residual)", " + 1.001 * residual)")
        assert "compute other logits" in self.push_changed(send, child, monkeypatch, *change)
        assert hub.writes == []
