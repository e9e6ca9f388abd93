"""A child's folder where nobody has this package: every head, the pipeline, the card's snippet, saved once more."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from tiny.models import logits_of, padded_batch, tiny_supernet
from tiny.texts import WORDS, tiny_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from hf_nasbert.cards import render_child_card
from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling import configuration_nasbert
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP, NEEDED_VERSIONS
from hf_nasbert.native import CODE_FILES, CODE_NEEDS

CHILDREN = {
    "sized": "attention1@64-ffn40@64-ffn@96-skip",
    "chain-with-skip": "conv5-attention-conv7-ffn-skip",
    "staged": "attention@96-conv3@96-skip-ffn@32-conv3@32-attention@32",
}
HEADS = [name for name in AUTO_MAP if name != "AutoConfig"]

# Runs with nothing but the standard library and what a stranger has; prints a line of JSON.
ABROAD = r"""
import importlib.abc, json, re, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nasbert":
            raise ImportError("there is no hf_nasbert here")

sys.meta_path.insert(0, Blocker())
folder, batch_file, again = sys.argv[1:4]
report = {}
try:
    import hf_nasbert
except ImportError as error:
    report["blocked"] = str(error)

import torch, transformers
from pathlib import Path
torch.set_num_threads(1)
batch, expected = torch.load(batch_file)

def load(head, place, **kwargs):
    model, loading = getattr(transformers, head).from_pretrained(
        place, trust_remote_code=True, output_loading_info=True, **kwargs
    )
    return model, sorted(loading["missing_keys"])

for place, logits in expected.items():
    model, missing = load("AutoModelForMaskedLM", f"{folder}/{place}")
    with torch.no_grad():
        difference = float((model(**batch).logits - logits).abs().max())
    report[place] = {"missing": missing, "difference": difference, "module": type(model).__module__}

child = f"{folder}/{place}"
report["heads"] = {}
for head in json.loads(Path(child, "config.json").read_text())["auto_map"]:
    if head != "AutoConfig":
        model, missing = load(head, child)
        report["heads"][head] = [type(model).__name__, sorted({name.split(".")[0] for name in missing})]

card = Path(child, "README.md").read_text()
snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
assert "path/to/this/folder" in snippet
names = {"print": lambda found: report.update(filled=[one["token_str"] for one in found])}
exec(snippet.replace("path/to/this/folder", child), names)

model, _ = load("AutoModelForSequenceClassification", child, num_labels=3)
model.train()
before = model.nasbert.embeddings.word_embeddings.weight.detach().clone()
model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
torch.optim.SGD(model.parameters(), lr=1.0).step()
report["trained"] = not torch.equal(before, model.nasbert.embeddings.word_embeddings.weight)
model.eval().save_pretrained(again)
reloaded, report["missing again"] = load("AutoModelForSequenceClassification", again)
with torch.no_grad():
    report["equal again"] = torch.equal(reloaded(**batch).logits, model(**batch).logits)
report["other head again"] = type(load("AutoModelForTokenClassification", again)[0]).__name__
report["ours"] = sorted(name for name in sys.modules if name.startswith("hf_nasbert"))
"""

# A later transformers, or a tool, writes a field that nobody here has heard of.
TRAINED_ABROAD = r"""
folder, batch_file = sys.argv[4:]
batch, expected = torch.load(batch_file)

def load_trained():
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits, expected, rtol=0, atol=1e-6)
    return model.config

assert load_trained().bos_token_id == 2
file = Path(folder, "config.json")
file.write_text(file.read_text().replace("{", '{"field_of_2030": [1],', 1))
assert load_trained().field_of_2030 == [1]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with one child's folder per space shape, and every child's logits on one batch."""
    root, batch, expected = tmp_path_factory.mktemp("children"), padded_batch(), {}
    for shape, architecture in CHILDREN.items():
        child = extract_child(tiny_supernet(shape), architecture)
        card = render_child_card({"name": shape, "architecture": architecture})
        save_child(child, tiny_tokenizer(), root / shape, card)
        expected[shape] = logits_of(child, batch)
    return root, batch, expected


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A child that `Trainer` trained with a tokenizer that has bos and eos: its folder, a batch, its logits."""
    tokenizer = BertTokenizer(
        vocab={word: index for index, word in enumerate(WORDS)}, bos_token="[CLS]", eos_token="[SEP]"
    )
    child = extract_child(tiny_supernet("chain"), "conv5-attention-conv7-ffn-ffn")
    folder = tmp_path_factory.mktemp("trained")
    trainer = Trainer(
        child,
        TrainingArguments(folder / "run", max_steps=1, use_cpu=True, report_to="none", save_strategy="no"),
        data_collator=DataCollatorForLanguageModeling(tokenizer),
        train_dataset=[tokenizer("the film was good and long .")] * 8,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(folder / "child")
    batch = padded_batch()
    return folder / "child", batch, logits_of(child.eval(), batch)


@pytest.fixture(scope="module")
def abroad(folders, trained, tmp_path_factory):
    """What a process without this package, which loads all of these folders, said; and the folder that it saved."""
    place = tmp_path_factory.mktemp("abroad")
    (root, *of_children), (folder, *of_trained) = folders, trained
    torch.save(of_children, place / "children.pt")
    torch.save(of_trained, place / "trained.pt")
    shutil.copytree(folder, place / "child")
    (place / "abroad.py").write_text(ABROAD + TRAINED_ABROAD)
    done = subprocess.run(
        [sys.executable, "-I", place / "abroad.py", root, place / "children.pt", place / "again",
         place / "child", place / "trained.pt"],
        env=os.environ | {"HF_HOME": str(place / "hf_home"), "HF_HUB_OFFLINE": "1"},
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, place / "again"


@pytest.mark.slow
def test_a_child_lives_where_nobody_has_this_package(abroad):
    done, again = abroad
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["blocked"] == "there is no hf_nasbert here"
    assert report["ours"] == []
    for shape in CHILDREN:
        assert report[shape]["difference"] == 0
        assert report[shape]["missing"] == []
        assert report[shape]["module"].startswith("transformers_modules.")
    # Whichever head was saved, every head loads, and draws only its own new weights.
    assert report["heads"] == {
        "AutoModel": ["NasBertModel", ["pooler"]],
        "AutoModelForMaskedLM": ["NasBertForMaskedLM", []],
        "AutoModelForSequenceClassification": ["NasBertForSequenceClassification", ["classifier", "nasbert"]],
        "AutoModelForTokenClassification": ["NasBertForTokenClassification", ["classifier"]],
        "AutoModelForQuestionAnswering": ["NasBertForQuestionAnswering", ["qa_outputs"]],
        "AutoModelForMultipleChoice": ["NasBertForMultipleChoice", ["classifier", "nasbert"]],
    }
    assert len(report["filled"]) == 5
    # Trained and saved from there, the folder is complete again: https://github.com/huggingface/transformers/issues/29714
    assert report["trained"]
    assert set(CODE_FILES) <= {path.name for path in again.iterdir()}
    assert json.loads((again / "config.json").read_text())["auto_map"] == AUTO_MAP
    assert report["missing again"] == []
    assert report["equal again"]
    assert report["other head again"] == "NasBertForTokenClassification"


def test_what_trainer_writes_into_a_config_does_not_keep_a_child_from_loading(trained, caplog):
    folder, batch, expected = trained
    saved = json.loads((folder / "config.json").read_text())
    assert (saved["bos_token_id"], saved["eos_token_id"]) == (WORDS.index("[CLS]"), WORDS.index("[SEP]"))
    assert torch.equal(logits_of(AutoModelForMaskedLM.from_pretrained(folder), batch), expected)
    assert "has no field" not in caplog.text


@pytest.mark.slow
def test_what_trainer_saved_lives_where_nobody_has_this_package(abroad):
    """The process ended well, so its logits were these; a field that it does not know is told once."""
    done, _ = abroad
    assert done.stderr.count("has no field 'field_of_2030'") == 1


@pytest.mark.parametrize("head", HEADS)
def test_with_the_package_no_flag_is_needed(folders, head):
    root, batch, expected = folders
    for shape in CHILDREN:
        model = getattr(transformers, head).from_pretrained(root / shape)
        assert type(model).__module__ == "hf_nasbert.modeling.modeling_nasbert"
    if head == "AutoModelForMaskedLM":
        assert torch.equal(logits_of(model, batch), expected[shape])
    assert type(AutoConfig.from_pretrained(root / shape)).__module__ == "hf_nasbert.modeling.configuration_nasbert"


# Of what the code needs


def test_the_versions_that_the_code_needs_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for library, version in NEEDED_VERSIONS.items():
        (wanted,) = [one for one in project["dependencies"] if re.match(f"{library}>=".replace("_", "[-_]"), one)]
        assert re.search(r">=([\d.]+)", wanted)[1] == version
        assert f"{library} {version} " in CODE_NEEDS


# All but the one in plain Python, which no library is too old for.
@pytest.mark.parametrize("name", [Path(file).stem for file in CODE_FILES if file != "geometry_nasbert.py"])
@pytest.mark.parametrize(
    ("transformers_version", "hub_version"), [("4.57.1", "0.36.0"), ("5.19.3", "2.0.0"), ("5.20.0", "1.30.9")]
)
def test_older_libraries_are_told_which_versions_are_needed(name, transformers_version, hub_version, tmp_path):
    """By whichever file is imported first, before it imports anything that an older library lacks."""
    for library, version in (("transformers", transformers_version), ("huggingface_hub", hub_version)):
        (tmp_path / library).mkdir()
        (tmp_path / library / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch is not needed to say so')\n")
    shutil.copytree(Path(configuration_nasbert.__file__).parent, tmp_path / "child")
    (tmp_path / "child" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", f"import child.{name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    old = (
        f"huggingface_hub {hub_version}"
        if transformers_version == "5.20.0"
        else f"transformers {transformers_version}"
    )
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: the code of this model needs {CODE_NEEDS}; here is {old}: pip install --upgrade "
        "transformers huggingface_hub"
    )


@pytest.mark.parametrize("version", ["5.20.0", "5.20.0.dev0", "5.100", "6.0.0rc1", "5.23.0+local"])
def test_later_versions_are_taken(version, monkeypatch):
    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.setattr(huggingface_hub, "__version__", version.replace("5.", "2.", 1))
    source = Path(configuration_nasbert.__file__).read_text(encoding="utf-8").partition("# isort: split")[0]
    assert "raise ImportError" in source
    exec(source, {})
