"""`compress` on bases of every family and head: the child loads, keeps head and labels, and is what was judged."""

import dataclasses
import json
import string

import pytest
import torch
import transformers
from tiny.bases import documents
from tiny.compressing import quiet_clock
from tiny.families import CONFIGS, at_tokens, batch_for
from tiny.models import assert_close, randomise_
from tiny.texts import WORDS, save_tokenizer_with_padding_at_one, tiny_tokenizer

import hf_nasbert
from hf_nasbert.cards import check_card
from hf_nasbert.compression import materials
from hf_nasbert.compression.head_predictions import head_predictions
from hf_nasbert.compression.proof import Judge
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.modeling import NasBertForMaskedLM, NasBertForQuestionAnswering, NasBertModel
from hf_nasbert.modeling.elastic import load_full_child

assert quiet_clock  # a fixture
NAMES = {0: "bad", 1: "good", 2: "long"}
LABELS = {"id2label": NAMES, "label2id": {name: place for place, name in NAMES.items()}}
SETTINGS = {
    "max_parameters": "0.6x", "recovery_steps": 8, "learning_rate": 1e-4, "num_sentences": 48, "batch_size": 16,
    "max_seq_length": 12, "latency_shape": "1x8", "scorer": "additive", "handmade": False, "heads": [2], "ffn": [20],
}  # fmt: skip


def save_base_of(name, folder, **fields):
    """A random stock model of a family and a head, and a tokenizer that its positions fit."""
    family = next(family for family in CONFIGS if name.startswith(family))
    letters = [letter for letter in string.ascii_lowercase if letter not in WORDS]
    if family == "Roberta":
        save_tokenizer_with_padding_at_one(folder)
    else:
        tiny_tokenizer([*WORDS, *letters, *(f"##{one}" for one in string.ascii_lowercase)]).save_pretrained(folder)
    tokenizer = open_tokenizer(folder)
    config = CONFIGS[family]()
    for field, value in {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **fields}.items():
        setattr(config, field, value)
    randomise_(getattr(transformers, name)(config)).eval().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "auto_class", "task", "fields"),
    [
        ("BertForMaskedLM", "AutoModelForMaskedLM", "fill-mask", {}),
        ("RobertaForMaskedLM", "AutoModelForMaskedLM", "fill-mask", {}),
        ("DistilBertForMaskedLM", "AutoModelForMaskedLM", "fill-mask", {}),
        ("ElectraForPreTraining", "AutoModel", "feature-extraction", {}),
        ("ElectraForSequenceClassification", "AutoModelForSequenceClassification", "text-classification", LABELS),
        (
            "BertForSequenceClassification",
            "AutoModelForSequenceClassification",
            "text-classification",
            LABELS | {"problem_type": "multi_label_classification"},
        ),
        ("BertForTokenClassification", "AutoModelForTokenClassification", "token-classification", LABELS),
        ("BertForQuestionAnswering", "AutoModelForQuestionAnswering", "question-answering", {}),
    ],
)
def test_a_child_keeps_its_head_and_is_the_model_that_the_table_judges(
    name, auto_class, task, fields, tmp_path, monkeypatch
):
    for setting, number in (("_NUM_CHOOSING", 16), ("_NUM_JUDGING", 32), ("_CALIBRATION_TOKENS", 500)):
        monkeypatch.setattr(materials, setting, number)
    seen, judge = [], Judge.__call__
    monkeypatch.setattr(Judge, "__call__", lambda self, model: seen.append((judge(self, model), model)) or seen[-1][0])
    base = save_base_of(name, tmp_path / "base", **fields)
    result = hf_nasbert.compress(base, documents(120), output_dir=tmp_path / "small", **SETTINGS)
    judged = dataclasses.replace(result.best.row.judged[0])
    ours = next(model for found, model in seen if found == judged)
    loaded = getattr(transformers, auto_class).from_pretrained(tmp_path / "small", trust_remote_code=True)
    batch = batch_for(loaded)
    with torch.no_grad():
        found, expected = (at_tokens(model.eval()(**batch), batch) for model in (loaded, ours))
    assert found.keys() >= expected.keys()  # without a head transformers draws a pooler
    for output in expected:
        assert_close(found[output], expected[output], 1e-5)
    for field, value in fields.items():
        assert getattr(loaded.config, field) == value
    assert check_card((tmp_path / "small" / "README.md").read_text()).pipeline_tag == task
    has_head = auto_class != "AutoModel"
    assert result.rows[0].judged[0].agreement == (1 if has_head else None)
    assert ("predictions kept" in str(result)) is has_head
    if has_head:
        assert 0 <= judged.agreement <= 1
        assert json.loads((tmp_path / "small" / "summary.json").read_text())["rows"][1]["judged"][0]["agreement"] >= 0


@pytest.mark.parametrize(
    ("name", "child_class"),
    [("BertForMaskedLM", NasBertForMaskedLM), ("BertForQuestionAnswering", NasBertForQuestionAnswering)],
)
def test_words_and_answers_are_predicted_as_by_the_stock_model_itself(name, child_class, tmp_path):
    base = save_base_of(name, tmp_path)
    stock, tokenizer = getattr(transformers, name).from_pretrained(base), open_tokenizer(base)
    batch = dict(tokenizer(documents(5), padding=True, truncation=True, max_length=20, return_tensors="pt"))
    found = head_predictions(load_full_child(base, child_class), [batch, batch], tokenizer)
    ids, special = batch["input_ids"].clone(), set(tokenizer.all_special_ids)
    with torch.no_grad():
        if child_class is NasBertForQuestionAnswering:
            said = stock(**batch)
            places = [
                [int(logits[row, : int(batch["attention_mask"][row].sum())].argmax()) for row in range(5)]
                for logits in (said.start_logits, said.end_logits)
            ]
            expected = [place for both in zip(*places, strict=True) for place in both]
        else:
            words = [place for place, one in enumerate(ids.flatten().tolist()) if one not in special]
            chosen = words[6::7]
            ids.view(-1)[chosen] = tokenizer.mask_token_id
            expected = stock(**batch | {"input_ids": ids}).logits.flatten(0, 1)[chosen].argmax(-1).tolist()
            assert len(chosen) > 3
    assert found.tolist() == expected * 2


def test_of_other_heads_and_without_a_mask_nothing_is_predicted(tmp_path):
    base = save_base_of("BertForMaskedLM", tmp_path)
    tokenizer = open_tokenizer(base)
    batch = dict(tokenizer(documents(2), padding=True, return_tensors="pt"))
    assert head_predictions(load_full_child(base, NasBertModel), [batch], tokenizer) is None
    tokenizer.mask_token = None
    assert head_predictions(load_full_child(base, NasBertForMaskedLM), [batch], tokenizer) is None
