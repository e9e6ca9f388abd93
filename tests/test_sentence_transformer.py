"""SentenceTransformers: what stands around the encoder is read, computed and written as its own library does."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save as save_tensors
from sentence_transformers import SentenceTransformer, SimilarityFunction
from tiny.families import stock
from tiny.models import assert_close
from tiny.texts import tiny_tokenizer

from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling import SupernetModel, sentence_transformer
from hf_nasbert.modeling.sentence_dense import Dense
from hf_nasbert.modeling.sentence_transformer import (
    POOLINGS,
    SentenceModules,
    encoder_place,
    foreign_modules,
    read_sentence_modules,
)

TEXTS = ["the film was good", "a plot very very long and bad , not short", "good"]
OWN = "sentence_transformers.models"
FIRST = {"type": f"{OWN}.Transformer", "path": ""}
POOLING = {"type": f"{OWN}.Pooling", "path": "1_Pooling"}
FULL = SentenceModules(("cls", "mean"), True, 9, False, {"query": "a film"}, "query", "dot")


@pytest.fixture(scope="module")
def child():
    model = stock("BertModel")
    supernet = SupernetModel.from_base_model(model)
    return extract_child(supernet, ("attention2", "ffn10", "skip", "ffn40"))


def save(child, folder, modules):
    return save_child(child, tiny_tokenizer(), folder, sentence_modules=modules)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", [(name,) for name in POOLINGS] + [("cls", "mean"), ("mean", "cls", "lasttoken")])
def test_a_childs_folder_is_a_sentence_transformer_with_the_same_vectors(child, pooling, normalize, tmp_path):
    modules = SentenceModules(pooling, normalize, max_seq_length=7)
    folder = save(child, tmp_path / "child", modules)
    assert read_sentence_modules(folder) == modules
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert theirs.max_seq_length == 7
    found = theirs.encode(TEXTS, convert_to_tensor=True)
    batch = tiny_tokenizer()(TEXTS, padding=True, truncation=True, max_length=7, return_tensors="pt")
    with torch.no_grad():
        expected = modules.pool(child(**batch).last_hidden_state, batch["attention_mask"])
    assert_close(found, expected, 1e-5)
    theirs.save(str(tmp_path / "again"))  # in the form and with the names of the version that is installed
    again = read_sentence_modules(tmp_path / "again")
    assert (again.pooling, again.normalize) == (pooling, normalize)
    assert "sentence_transformers.models" not in (tmp_path / "again" / "modules.json").read_text()


def test_prompts_and_similarity_are_kept(child, tmp_path):
    folder = save(child, tmp_path / "child", FULL)
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert theirs.prompts["query"] == "a film"
    assert theirs.default_prompt_name == "query"
    assert theirs.similarity_fn_name == "dot"
    assert read_sentence_modules(folder) == FULL
    overwritten = save_child(child, tiny_tokenizer(), folder, overwrite=True)
    assert read_sentence_modules(overwritten) is None
    assert not (overwritten / "1_Pooling").exists()


def test_prompts_that_are_not_pooled_are_kept_out(child, tmp_path):
    modules = dataclasses.replace(FULL, include_prompt=False)
    folder = save(child, tmp_path / "child", modules)
    assert read_sentence_modules(folder) == modules
    assert not SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")[1].include_prompt


def test_the_longest_text_of_old_folders(child, tmp_path):
    FULL.write(tmp_path, 32)
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / "sentence_roberta_config.json")
    assert read_sentence_modules(tmp_path) == FULL


def test_vectors_that_are_cut_are_cut_by_their_library_too(child, tmp_path):
    modules = dataclasses.replace(FULL, truncate_dim=5, default_prompt_name=None)
    folder = save(child, tmp_path / "child", modules)
    assert read_sentence_modules(folder) == modules
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    batch = tiny_tokenizer()(TEXTS, padding=True, truncation=True, max_length=9, return_tensors="pt")
    with torch.no_grad():
        expected = modules.pool(child(**batch).last_hidden_state, batch["attention_mask"])
    assert expected.shape == (3, 5)
    assert_close(theirs.encode(TEXTS, convert_to_tensor=True), expected, 1e-5)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan", None])
def test_vectors_are_compared_as_their_library_does(name):
    first, second = torch.randn(2, 5, 7)
    expected = SimilarityFunction.to_similarity_pairwise_fn(name or "cosine")(first, second)
    assert_close(SentenceModules(similarity=name).similarities(first, second), expected, 1e-5)


def test_vectors_of_texts_with_padding_on_the_left():
    states, mask = torch.randn(2, 4, 3), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    found = SentenceModules(("cls", "mean", "weightedmean", "lasttoken")).pool(states, mask)
    first, mean, weighted, last = found.chunk(4, -1)
    assert torch.equal(first, torch.stack([states[0, 2], states[1, 0]]))
    assert_close(mean[0], states[0, 2:].mean(0), 1e-6)
    assert_close(weighted[0], (states[0, 2] + 2 * states[0, 3]) / 3, 1e-6)
    assert torch.equal(last, states[:, 3])


def test_a_prompt_that_is_null_is_none(tmp_path):
    FULL.write(tmp_path, 32)
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"query": null, "a": "b"}}')
    assert read_sentence_modules(tmp_path).prompts == {"a": "b"}


def test_only_the_librarys_own_modules_are_no_code_of_others(tmp_path):
    FULL.write(tmp_path, 32)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.json")}
    assert foreign_modules({"config.json": b"{}"}, "x") == foreign_modules(files, "x") == []
    modules = json.loads(files["modules.json"].read_text())
    for kind in ("mine.Pooling", "os.system", "sentence_transformers_x.Dense", f"{OWN}.Router", f"{OWN}.Asym"):
        changed = files | {"modules.json": json.dumps([*modules, {"type": kind, "path": ""}]).encode()}
        assert foreign_modules(changed, "x") == [f"the module {kind} of modules.json"]
    texts = {"model_args": {"attn_implementation": "owner/kernel"}, "max_seq_length": 9}
    changed = files | {"sentence_bert_config.json": json.dumps(texts).encode()}
    assert foreign_modules(changed, "x") == ["what sentence_bert_config.json hands on in model_args"]
    dense = [*modules, {"type": f"{OWN}.Dense", "path": "3_Dense"}]
    for activation, found in (("torch.nn.modules.activation.Tanh", 0), ("mine.Tanh", 1), (3, 1)):
        changed = files | {
            "modules.json": json.dumps(dense).encode(),
            "3_Dense/config.json": json.dumps({"activation_function": activation}).encode(),
        }
        assert foreign_modules(changed, "x") == ["the activation_function of 3_Dense/config.json"] * found


def dense_layer(in_features, out_features, activation="torch.nn.modules.activation.Tanh", bias=True):
    torch.manual_seed(3)
    linear = torch.nn.Linear(in_features, out_features, bias)
    weights = {f"linear.{name}": tensor.detach() for name, tensor in linear.named_parameters()}
    return Dense(in_features, out_features, bias, activation, save_tensors(weights))


@pytest.mark.parametrize("activation", ["linear.Identity", "activation.Tanh", "activation.GELU"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_layer_behind_the_pooling_is_kept_and_gives_what_its_library_gives(child, activation, normalize, tmp_path):
    width = child.config.hidden_size
    dense = dense_layer(2 * width, 5, f"torch.nn.modules.{activation}", bias=normalize)
    modules = dataclasses.replace(FULL, normalize=normalize, default_prompt_name=None, dense=dense)
    folder = save(child, tmp_path / "child", modules)
    assert read_sentence_modules(folder) == modules
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    batch = tiny_tokenizer()(TEXTS, padding=True, truncation=True, max_length=9, return_tensors="pt")
    with torch.no_grad():
        expected = modules.pool(child(**batch).last_hidden_state, batch["attention_mask"])
    assert expected.shape == (3, 5)
    assert_close(theirs.encode(TEXTS, convert_to_tensor=True), expected, 1e-5)
    theirs.save(str(tmp_path / "again"))
    again = read_sentence_modules(tmp_path / "again").dense
    assert again.config() == dense.config()
    vectors = torch.randn(2, 2 * width)
    assert torch.equal(again(vectors), dense(vectors))
    modules.check_width(width)
    with pytest.raises(ValueError, match=f"takes vectors of {2 * width} numbers .* makes {2 * width + 2}$"):
        modules.check_width(width + 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation_function": "os.system"}, "has the activation os.system"),
        ({"activation_function": "torch.nn.modules.activation.MultiheadAttention"}, "expected a plain one, with GELU"),
        ({"use_residual": True}, "a residual, or other input"),
        ({"module_input_name": "token_embeddings"}, "other input than the pooled vectors"),
        ({"in_features": "8"}, "has in_features, out_features or bias that are none"),
        ({"in_features": 9}, "model.safetensors and its config.json do not fit .*size mismatch"),
        ({"bias": False}, "do not fit"),
    ],
)
def test_a_layer_of_another_kind_is_refused(fields, message, tmp_path):
    dataclasses.replace(FULL, dense=dense_layer(8, 5)).write(tmp_path, 4)
    file = tmp_path / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(ValueError, match=message) as caught:
        read_sentence_modules(tmp_path)
    assert "\n" not in str(caught.value)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"in_features": 8, "bias": True}))
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="Dense layer of") as caught:
        read_sentence_modules(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_encoder_of_an_old_folder_lies_in_a_folder_of_its_own(tmp_path, monkeypatch):
    FULL.write(tmp_path, 32)
    assert encoder_place(tmp_path) == (str(tmp_path), None)
    modules = [{**FIRST, "path": "0_Transformer"}, POOLING]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / "0_Transformer" / "sentence_bert_config.json")
    assert encoder_place(tmp_path) == (str(tmp_path / "0_Transformer"), None)
    assert read_sentence_modules(tmp_path) == dataclasses.replace(FULL, normalize=False)
    asked = []

    def fetched(model, name, *, revision, **options):
        asked.append((model, name, revision))
        return tmp_path / name if (tmp_path / name).is_file() else None

    monkeypatch.setattr(sentence_transformer, "cached_file", fetched)
    for name in ("config.json", "vocab.txt", "pytorch_model.bin"):
        with pytest.raises(
            ValueError, match=r"owner/old has no 0_Transformer/config\.json, or no model\.safetensors or"
        ):
            encoder_place("owner/old", revision="v2")
        (tmp_path / "0_Transformer" / name).touch()
    asked.clear()
    assert encoder_place("owner/old", revision="v2") == (str(tmp_path / "0_Transformer"), None)
    assert {(model, revision) for model, _, revision in asked} == {("owner/old", "v2")}
    assert {"modules.json", "0_Transformer/vocab.txt", "0_Transformer/model.safetensors"} <= {
        one for _, one, _ in asked
    }


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_weights_of_an_old_folder_on_the_hub_may_lie_in_parts(name, tmp_path, monkeypatch):
    """All parts are fetched: transformers reads them out of the folder that is named."""
    inside = tmp_path / "0_Transformer"
    inside.mkdir()
    (tmp_path / "modules.json").write_text(json.dumps([{**FIRST, "path": "0_Transformer"}, POOLING]))
    (inside / "config.json").touch()
    index = inside / f"{name}.index.json"
    parts = {"a": "part-1-of-2.safetensors", "b": "part-2-of-2.safetensors", "c": "part-1-of-2.safetensors"}
    asked = []

    def fetched(model, file, *, revision, **options):
        asked.append((file, revision))
        return tmp_path / file if (tmp_path / file).is_file() else None

    def refused(message):
        with pytest.raises(ValueError, match=message) as caught:
            encoder_place("owner/old", revision="v2")
        assert "\n" not in str(caught.value)

    monkeypatch.setattr(sentence_transformer, "cached_file", fetched)
    refused("beside it, whole or in parts")
    for content in ({}, {"weight_map": {}}, {"weight_map": {"a": 3}}, {"weight_map": {"a": "../../x"}}):
        index.write_text(json.dumps(content))
        refused(rf"{name}\.index\.json of owner/old names no files of weights that lie beside it")
    assert not any(".." in file for file, _ in asked)
    index.write_text(json.dumps({"weight_map": parts}))
    (inside / "part-1-of-2.safetensors").touch()
    refused(r"names the file part-2-of-2\.safetensors, which is not there")
    (inside / "part-2-of-2.safetensors").touch()
    asked.clear()
    assert encoder_place("owner/old", revision="v2") == (str(inside), None)
    assert {(f"0_Transformer/{part}", "v2") for part in parts.values()} <= set(asked)


def test_a_folder_that_is_none(tmp_path):
    stock("BertModel").save_pretrained(tmp_path)
    assert read_sentence_modules(tmp_path) is None


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [FIRST, POOLING, {"type": f"{OWN}.LayerNorm", "path": "2"}], "LayerNorm; .*: give a mod"),
        ("modules.json", [FIRST, {"type": "mine.Pooling", "path": "1"}], "of Transformer, mine.Pooling; expected"),
        ("modules.json", [FIRST, POOLING, {"type": f"{OWN}.Dense", "path": "2"}], "no model.safetensors: load and"),
        ("modules.json", [], "is no list of modules"),
        ("modules.json", [{"type": "a.Transformer", "path": "../x"}], "is no list of modules"),
        ("modules.json", {"a": 1}, "is no list of modules"),
        ("modules.json", [3], "is no list of modules"),
        ("1_Pooling/config.json", {"pooling_mode": "middle"}, "pools by middle; expected cls, max, mean"),
        ("1_Pooling/config.json", {"pooling_mode": {"a": 1}}, "pools by {'a': 1}; expected"),
        ("1_Pooling/config.json", {"pooling_mode_middle": True}, "pools by pooling_mode_middle"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False}, "pools by None"),
        ("1_Pooling/config.json", [], "expected a JSON object"),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "max_seq_length of .* is 9; expected a number"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task fill-mask; expected feat"),
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "x"}}}, "has text .*'x'.*; expected"),
        ("sentence_bert_config.json", {"config_args": {"hidden_act": "relu"}}, r"hands hidden_act on .*config_args"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "normalises something else"),
        ("config_sentence_transformers.json", {"prompts": {"a": 3}}, "prompts of .* are no texts"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "is a CrossEncoder of"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim of .* is 0; expected a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(child, file, content, message, tmp_path):
    FULL.write(tmp_path, 32)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_sentence_modules(tmp_path)
    assert "\n" not in str(caught.value)
