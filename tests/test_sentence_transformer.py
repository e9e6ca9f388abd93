"""SentenceTransformers: what stands around the encoder is read, computed and written as its own library does."""

import dataclasses
import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny.families import stock
from tiny.models import assert_close
from tiny.texts import tiny_tokenizer

from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling import SupernetModel
from hf_nasbert.modeling.sentence_transformer import POOLINGS, SentenceModules, read_sentence_modules

TEXTS = ["the film was good", "a plot very very long and bad , not short", "good"]
FIRST = {"type": "a.Transformer", "path": ""}
FULL = SentenceModules(("cls", "mean"), True, 9, False, {"query": "a film"}, "query", "dot")


@pytest.fixture(scope="module")
def child():
    model = stock("BertModel")
    supernet = SupernetModel.from_base_model(model)
    return extract_child(supernet, ("attention2", "ffn10", "skip", "ffn40"))


def save(child, folder, modules):
    return save_child(child, tiny_tokenizer(), folder, sentence_modules=modules)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", [(name,) for name in POOLINGS] + [("cls", "mean")])
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
    theirs.save(str(tmp_path / "again"))
    again = read_sentence_modules(tmp_path / "again")
    assert (again.pooling, again.normalize) == (pooling, normalize)


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


def test_vectors_of_texts_with_padding_on_the_left():
    states, mask = torch.randn(2, 4, 3), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    first, mean = SentenceModules(("cls", "mean")).pool(states, mask).chunk(2, -1)
    assert torch.equal(first, torch.stack([states[0, 2], states[1, 0]]))
    assert_close(mean[0], states[0, 2:].mean(0), 1e-6)


def test_a_folder_that_is_none(tmp_path):
    stock("BertModel").save_pretrained(tmp_path)
    assert read_sentence_modules(tmp_path) is None


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [FIRST, {"type": "b.Dense", "path": "1"}], "Transformer, Dense"),
        ("modules.json", [{"type": "a.Transformer", "path": "0"}, {"type": "b.Pooling", "path": "1"}], "own folder"),
        ("modules.json", [{"type": "a.Transformer", "path": "../x"}], "is no list of modules"),
        ("modules.json", {"a": 1}, "is no list of modules"),
        ("modules.json", [3], "is no list of modules"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pools by lasttoken; expected cls, max, mean"),
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "pools by pooling_mode_weightedm"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False}, "pools by None"),
        ("1_Pooling/config.json", [], "expected a JSON object"),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "max_seq_length of .* is 9; expected a number"),
        ("config_sentence_transformers.json", {"prompts": {"a": 3}}, "prompts of .* are no texts"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(child, file, content, message, tmp_path):
    FULL.write(tmp_path, 32)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_sentence_modules(tmp_path)
    assert "\n" not in str(caught.value)
