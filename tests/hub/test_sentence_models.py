"""What `hf-nasbert compress` writes goes to the Hub and comes back whole: SentenceTransformers, heads, encoders."""

import json
import re
import shutil

import pytest
import torch
import transformers
from hub_helpers import contents_of, files_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from tiny.families import stock
from tiny.models import assert_close, padded_batch
from tiny.processes import run_without_our_package
from tiny.texts import tiny_tokenizer

import hf_nasbert
from hf_nasbert.cards import check_card
from hf_nasbert.child_folders import save_child
from hf_nasbert.data import packaged_model
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.extraction import extract_child
from hf_nasbert.hub import PullArguments, check_leaves_home, gather, pull
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.families import from_stock, native_form
from hf_nasbert.modeling.sentence_transformer import SentenceModules, read_sentence_modules

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TEXTS = ["the film was good", "a plot very very long and bad , not short", "good"]
MODULES = SentenceModules(
    ("mean", "cls"), True, 9, prompts={"query": "a film"}, default_prompt_name="query", similarity="dot"
)
TRAVELLING, STOCK = ("attention2", "ffn10", "skip", "ffn40"), ("skip", "skip", "attention", "ffn40")


def make(folder, head="BertModel", operators=TRAVELLING, modules=None, **config):
    """A child of a stock model as `compress` writes it, and its class."""
    full = from_stock(stock(head))
    full.config.update(config)
    child = extract_child(elastic_supernet(full, elastic_space(full)), operators)
    model, _ = native_form(child)
    save_child(model, tiny_tokenizer(), folder, sentence_modules=modules)
    return model


@pytest.fixture
def back(send, api, tmp_path):
    """There and back again; the folder, and what the push and the pull said."""

    def go(folder, **settings):
        pushed = send(folder, "user/small", **settings)
        pulled = pull(PullArguments("user/small", str(tmp_path / "back")), api=api)
        return tmp_path / "back", str(pushed), str(pulled)

    return go


def vectors(folder):
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu").encode(TEXTS, convert_to_tensor=True)


@pytest.mark.parametrize("operators", [TRAVELLING, pytest.param(STOCK, marks=pytest.mark.slow)], ids=["code", "stock"])
def test_a_sentence_transformer_goes_and_comes_back_whole(hub, back, tmp_path, operators):
    make(tmp_path / "small", operators=operators, modules=MODULES)
    folder, pushed, pulled = back(tmp_path / "small")
    assert files_of(hub, "models/user/small").keys() >= contents_of(tmp_path / "small").keys()
    assert contents_of(folder).keys() >= {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"}
    assert "left out" not in pushed
    assert_close(vectors(folder), vectors(tmp_path / "small"), 1e-6)
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert (theirs.default_prompt_name, theirs.similarity_fn_name, theirs.max_seq_length) == ("query", "dot", 9)
    trust = "" if operators == STOCK else ", trust_remote_code=True"
    assert pulled.endswith(f'to load it: SentenceTransformer("{folder}"{trust})')
    assert f'SentenceTransformer("user/small", revision="{pulled.split("commit ")[1][:40]}"{trust})' in pushed


@pytest.mark.parametrize("operators", [TRAVELLING, pytest.param(STOCK, marks=pytest.mark.slow)], ids=["code", "stock"])
@pytest.mark.parametrize("head", ["BertModel", "BertForSequenceClassification", "BertForTokenClassification"])
def test_encoders_and_classifiers_go_and_come_back(back, tmp_path, head, operators):
    labels = {} if head == "BertModel" else {"id2label": {0: "bad", 1: "good"}}
    model = make(tmp_path / "small", head, operators, **labels)
    folder, _, pulled = back(tmp_path / "small")
    auto_class = "AutoModel" + head.removeprefix("Bert").removeprefix("Model")
    assert f"to load it: {auto_class}.from_pretrained(" in pulled
    loaded = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=operators == TRAVELLING)
    with torch.no_grad():
        assert_close(loaded(**padded_batch())[0], model.eval()(**padded_batch())[0], 1e-6)
    assert loaded.config.id2label == model.config.id2label
    assert not labels or loaded.config.id2label == labels["id2label"]


@pytest.mark.parametrize("head", ["BertModel", "BertForSequenceClassification"])
def test_an_elastic_super_net_goes_with_what_makes_sentence_transformers_of_its_children(back, tmp_path, head):
    full = from_stock(stock(head))
    supernet = elastic_supernet(full, elastic_space(full))
    supernet.save_pretrained(tmp_path / "net")
    tiny_tokenizer().save_pretrained(tmp_path / "net")
    if head == "BertModel":
        with_modules = tmp_path / "net" / "sentence_transformer"
        with_modules.mkdir()
        MODULES.write(with_modules, full.config.hidden_size)
    folder, pushed, pulled = back(tmp_path / "net")
    assert contents_of(folder).keys() >= contents_of(tmp_path / "net").keys()
    if head == "BertModel":
        assert read_sentence_modules(folder / "sentence_transformer") == MODULES
    name = type(supernet).__name__
    for said in (pushed, pulled):
        assert f"to load it: {name}.from_pretrained(" in said
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names = {}
    snippet = snippet.replace('"user/small"', repr(str(folder))).replace('"my-child"', repr(str(tmp_path / "child")))
    exec(snippet, names)
    assert type(names["supernet"]) is type(supernet)


def test_code_of_somebody_else_in_a_super_nets_modules_is_refused(tmp_path):
    full = from_stock(stock("BertModel"))
    elastic_supernet(full, elastic_space(full)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    place = tmp_path / "sentence_transformer"
    place.mkdir()
    MODULES.write(place, full.config.hidden_size)
    modules = (place / "modules.json").read_text()
    (place / "modules.json").write_text(modules.replace("sentence_transformers.models.Pooling", "mine.Pooling"))
    with pytest.raises(ValueError, match=r"code that is not hf_nasbert's .*mine\.Pooling"):
        gather(tmp_path, "user/net")
    (place / "modules.json").write_text(modules)
    (place / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"sentence_transformer/modules\.json names a module in 1_Pooling"):
        gather(tmp_path, "user/net")


def test_what_that_library_saved_anew_goes_too(hub, api, back, tmp_path):
    """As after a training with it: its own names and files, and a module of its own on top."""
    make(tmp_path / "small", modules=SentenceModules(max_seq_length=9))
    theirs = SentenceTransformer(str(tmp_path / "small"), trust_remote_code=True, device="cpu")
    theirs.append(Dense(theirs.get_embedding_dimension(), 7))
    theirs.save(str(tmp_path / "tuned"), create_model_card=False)
    folder, pushed, _ = back(tmp_path / "tuned")
    assert "2_Dense/model.safetensors" in pushed
    assert vectors(folder).shape == (3, 7)
    assert_close(vectors(folder), theirs.encode(TEXTS, convert_to_tensor=True), 1e-6)
    there = files_of(hub, "models/user/small")
    there["2_Dense/pytorch_model.bin"] = there.pop("2_Dense/model.safetensors")
    hub.repos["models/user/small"].commit("main", there)
    with pytest.raises(ValueError, match=r"user/small/modules\.json names a module in 2_Dense, where"):
        pull(PullArguments("user/small", str(tmp_path / "half")), api=api)
    assert not (tmp_path / "half").exists()


def test_files_of_a_sentence_transformer_that_it_is_no_longer_are_removed(hub, send, tmp_path):
    make(tmp_path / "small", modules=MODULES)
    send(tmp_path / "small", "user/small")
    make(tmp_path / "plain")
    send(tmp_path / "plain", "user/small")
    assert not {"modules.json", "1_Pooling/config.json"} & files_of(hub, "models/user/small").keys()


def test_of_several_budgets_one_goes_and_the_folder_above_says_which_there_are(hub, back, tmp_path):
    for name in ("0.5x", "0.25x"):
        make(tmp_path / "family" / name, modules=MODULES)
    (tmp_path / "family" / "stages.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"no config\.json; name one of the models in it: 0\.25x, 0\.5x$") as raised:
        gather(tmp_path / "family", "user/small")
    assert "\n" not in str(raised.value)
    folder, _, _ = back(tmp_path / "family" / "0.5x")
    assert_close(vectors(folder), vectors(tmp_path / "family" / "0.5x"), 1e-6)


def change(folder, file, fields):
    path = folder / file
    path.write_text(json.dumps(fields(json.loads(path.read_text()))))


FOREIGN = {
    "a module": ("modules.json", lambda one: [*one, {"type": "mine.Module", "path": ""}], "the module mine.Module"),
    "a setting": ("sentence_bert_config.json", lambda one: one | {"model_args": {"code_revision": "x"}}, "model_args"),
    "Router": (
        "modules.json",
        lambda one: [*one, {"type": "sentence_transformers.models.Router", "path": ""}],
        "Router",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_code_of_others_is_refused_and_told(hub, send, api, tmp_path, case):
    file, fields, said = FOREIGN[case]
    make(tmp_path / "small", modules=MODULES)
    change(tmp_path / "small", file, fields)
    with pytest.raises(ValueError, match=rf"code that is not hf_nasbert's \(.*{said}.*say --trust_remote_code"):
        send(tmp_path / "small", "user/small")
    assert hub.writes == []
    with pytest.raises(ValueError, match=rf"{said}.*so it is not run"):
        check_leaves_home(gather(tmp_path / "small", "user/small", trust_remote_code=True).files)
    send(tmp_path / "small", "user/small", trust_remote_code=True)
    pulled = str(pull(PullArguments("user/small", str(tmp_path / "back")), api=api))
    assert said in pulled
    assert "to be read first" in pulled


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda one: shutil.rmtree(one / "1_Pooling"), "names a module in 1_Pooling, where there is none"),
        (
            lambda one: (one / "1_Pooling" / "pytorch_model.bin").write_bytes(b"cos"),
            "pytorch_model.bin may be a pickle",
        ),
        (lambda one: (one / "modules.json").write_text("{}"), "no list of modules"),
        (
            lambda one: change(one, "modules.json", lambda old: [old[0], {**old[1], "path": "pooling"}]),
            "names a module in pooling, where there is none that could go along",
        ),
        (
            lambda one: (
                (one / "2_Dense").mkdir(),
                (one / "model.safetensors").rename(one / "2_Dense" / "model.safetensors"),
            ),
            "no safetensors weights",
        ),
    ],
)
def test_half_a_sentence_transformer_is_refused(hub, send, tmp_path, spoil, said):
    make(tmp_path / "small", modules=MODULES)
    spoil(tmp_path / "small")
    with pytest.raises(ValueError, match=said) as raised:
        send(tmp_path / "small", "user/small")
    assert "\n" not in str(raised.value)
    assert hub.requests == []


@pytest.mark.slow
def test_the_proof_compares_the_vectors(tmp_path, monkeypatch):
    """In forks; a process that has to import the libraries proves the smaller MiniLM below."""
    monkeypatch.setattr("hf_nasbert.hub.proof.subprocess.run", run_without_our_package)
    for name, operators in (("code", TRAVELLING), ("stock", STOCK)):
        make(tmp_path / name, operators=operators, modules=MODULES)
        assert check_leaves_home(gather(tmp_path / name, "user/small").files) < 1e-6
    theirs = SentenceTransformer(str(tmp_path / "code"), trust_remote_code=True, device="cpu")
    theirs.append(Dense(theirs.get_embedding_dimension(), 7))
    theirs.save(str(tmp_path / "dense"), create_model_card=False)
    assert check_leaves_home(gather(tmp_path / "dense", "user/small").files) < 1e-6
    change(
        tmp_path / "code", "1_Pooling/config.json", lambda one: one | {"embedding_dimension": "wide", "nonsense": 1}
    )
    with pytest.raises(ValueError, match="does not load where hf_nasbert is not installed"):
        check_leaves_home(gather(tmp_path / "code", "user/small").files)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a real compression, and a process that loads sentence_transformers
def test_a_smaller_minilm_goes_and_comes_back_with_the_same_vectors(hub, back, tmp_path, monkeypatch):
    """Two budgets in one run, one of which is pushed, proved where nobody has this package, and pulled."""
    monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)
    monkeypatch.setattr("hf_nasbert.compression.materials._NUM_CHOOSING", 32)
    monkeypatch.setattr("hf_nasbert.compression.materials._NUM_JUDGING", 64)
    monkeypatch.setattr("hf_nasbert.compression.materials._CALIBRATION_TOKENS", 2000)
    monkeypatch.setattr("hf_nasbert.compression.proof._MOST_ROUNDS", 1)  # no test times
    result = hf_nasbert.compress(
        packaged_model("all-MiniLM-L6-v2"), packaged_text("boolq-wikipedia").select(range(1500)),
        output_dir=tmp_path / "family", budgets=["0.75x", "0.5x"], heads=[6], ffn=[768], num_sentences=128,
        recovery_steps=2, batch_size=16, learning_rate=1e-4, scorer="additive", handmade=False, latency_shape="2x16",
        bf16="no", base_model_id="sentence-transformers/all-MiniLM-L6-v2",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"name one of the models in it: 0\.5x, 0\.75x"):
        gather(result.folder, "user/small")
    half = tmp_path / "family" / "0.5x"
    folder, pushed, pulled = back(half)
    assert "left out" not in pushed
    assert f'to load it: SentenceTransformer("{folder}", trust_remote_code=True)' in pulled
    assert_close(vectors(folder), vectors(half), 1e-6)
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert (theirs.max_seq_length, theirs[2].__class__.__name__) == (256, "Normalize")
    sizes = [row.file_bytes for row in (result.rows[0], *(one.row for one in result.front))]
    assert sizes == [90_868_376, *((one.folder / "model.safetensors").stat().st_size for one in result.front)]
    data = check_card((folder / "README.md").read_text())
    assert (data.base_model, data.base_model_relation) == ("sentence-transformers/all-MiniLM-L6-v2", "finetune")
    assert data.eval_results[0].metric_value > 0.5
