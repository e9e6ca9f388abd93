"""`push_to_hub` of super-nets and children, over HTTP: what lands is whole."""

import json

import pytest
from hub_helpers import ARCHITECTURE, MODEL, files_of
from hub_server import TOKEN
from tiny.models import tiny_supernet
from tiny.texts import tiny_tokenizer
from transformers import AutoTokenizer

from hf_nasbert import NasBertForMaskedLM, NasBertForSequenceClassification, extract_child, load_supernet
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.modeling.sentence_transformer import SUPERNET_FOLDER
from hf_nasbert.native import CODE_FILES

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(autouse=True)
def at_home(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_child_lands_whole_with_a_tokenizer_that_is_given(hub):
    child = extract_child(tiny_supernet("chain"), ARCHITECTURE)
    pushed = child.push_to_hub("user/child", tokenizer=tiny_tokenizer(), commit_message="mine", private=True)
    there = files_of(hub)
    assert {*CODE_FILES, *TOKENIZER, "config.json", "model.safetensors", "README.md"} <= there.keys()
    assert json.loads(there["config.json"])["auto_map"] == AUTO_MAP
    assert ARCHITECTURE in there["README.md"].decode()
    assert "user/child" in there["README.md"].decode()
    assert hub.repos[MODEL].private
    assert pushed.commit == hub.repos[MODEL].branches["main"]
    assert len(hub.repos[MODEL].commits) == 2


def test_a_child_knows_the_tokenizer_of_the_folder_it_is_from(hub, made):
    child = NasBertForMaskedLM.from_pretrained(made["child"])
    child.push_to_hub("user/child")
    assert AutoTokenizer.from_pretrained(made["child"]).get_vocab() == tiny_tokenizer().get_vocab()
    assert {*CODE_FILES, *TOKENIZER, "README.md"} <= files_of(hub).keys()


def test_an_extracted_child_knows_that_of_its_super_net(hub, made):
    child = extract_child(load_supernet(made["supernet"]), ARCHITECTURE)
    child.push_to_hub("user/child")
    assert {*CODE_FILES, *TOKENIZER, "README.md"} <= files_of(hub).keys()


def test_a_super_net_lands_whole(hub, made, tmp_path):
    supernet = load_supernet(made["supernet"])
    supernet.push_to_hub("user/child")
    there = files_of(hub)
    assert {*TOKENIZER, "config.json", "model.safetensors", "README.md"} <= there.keys()
    assert not [name for name in there if name.endswith(".py")]  # its users have this package
    assert "search" in there["README.md"].decode()
    assert not [name for name in there if name.startswith(SUPERNET_FOLDER)]


def test_a_fine_tuned_child_lands_whole(hub, made):
    child = NasBertForSequenceClassification(NasBertForMaskedLM.from_pretrained(made["child"]).config)
    child.push_to_hub("user/child", tokenizer=tiny_tokenizer())
    assert {*CODE_FILES, *TOKENIZER} <= files_of(hub).keys()


def test_without_a_tokenizer_nothing_is_sent(hub):
    child = extract_child(tiny_supernet("chain"), ARCHITECTURE)
    with pytest.raises(ValueError, match=r"does not know its tokenizer, .*: push_to_hub\(\.\.\., tokenizer=\.\.\.\)$"):
        child.push_to_hub("user/child")
    with pytest.raises(ValueError, match="repo_id='child' is no name of a repository"):
        child.push_to_hub("child", tokenizer=tiny_tokenizer())
    with pytest.raises(TypeError, match="privat"):
        child.push_to_hub("user/child", tokenizer=tiny_tokenizer(), privat=True)
    assert hub.writes == []


def test_with_a_token_of_its_own(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    child = extract_child(tiny_supernet("chain"), ARCHITECTURE)
    with pytest.raises(OSError, match="HF_TOKEN"):
        child.push_to_hub("user/child", tokenizer=tiny_tokenizer())
    child.push_to_hub("user/child", tokenizer=tiny_tokenizer(), token=TOKEN)
    assert "model.safetensors" in files_of(hub)


@pytest.mark.slow
def test_the_trainers_super_net_lands_with_a_card_of_its_training(hub, tmp_path):
    from accelerate.state import AcceleratorState

    from hf_nasbert import SearchSpace, SupernetTrainer, SupernetTrainingArguments

    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {
        "max_steps": 1, "per_device_train_batch_size": 2, "num_eval_batches": 1, "num_eval_children": 1,
        "report_to": "none", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    words = "the film was good bad long short and not very a plot"
    trainer = SupernetTrainer(
        SearchSpace.chain(2, ("ffn", "conv3")),
        SupernetTrainingArguments(output_dir=str(tmp_path / "run"), **settings),
        [f"{words} {number}" for number in range(60)],
        processing_class=tiny_tokenizer(),
        max_seq_length=8,
        cache_dir=str(tmp_path / "cache"),
    )
    trainer.train()
    trainer.push_to_hub("user/child")
    AcceleratorState._reset_state(reset_partial_state=True)  # as TrainingArguments of transformers do
    card = files_of(hub)["README.md"].decode()
    (tmp_path / "run" / "card.json").unlink()
    (tmp_path / "run" / "README.md").write_text("# mine\n")
    trainer.push_to_hub("user/child")
    assert files_of(hub)["README.md"] == b"# mine\n"
    assert "uniform" in card
    assert "SupernetForMaskedLM" in card
    assert {*TOKENIZER, "model.safetensors", "train_log.jsonl"} <= files_of(hub).keys()
