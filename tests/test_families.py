"""Stock encoders to children and back: BERT, RoBERTa, ELECTRA, DistilBERT, by transformers' own classes."""

import logging

import pytest
import torch
import transformers
from tiny.families import CONFIGS, at_tokens, batch_for, stock
from tiny.models import assert_close, chain_config, random_model, randomise_

from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForSequenceClassification,
    NasBertModel,
)
from hf_nasbert.modeling.families import FAMILIES, from_bert, from_stock, to_bert

HEADS = ["Model", "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering"]
BOTH_WAYS = [f"{family}{head}" for family in CONFIGS for head in HEADS]
BOTH_WAYS += [f"{family}ForSequenceClassification" for family in CONFIGS]


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_computes_the_same_both_ways(name, caplog):
    model = stock(name)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        child = from_stock(model)
        assert caplog.text == ""
        batch = batch_for(model)
        expected = at_tokens(model(**batch), batch)
        found = at_tokens(child(**batch), batch)
        assert expected
        assert found.keys() >= expected.keys()
        assert_close({key: found[key] for key in expected}, expected, 1e-5)
        back = FAMILIES[model.config.model_type].to_stock(child)
        assert type(back) is type(model)
        assert_close(at_tokens(back(**batch), batch), expected, 1e-5)
    theirs, ours = model.config.to_dict(), back.config.to_dict()
    assert {key: theirs[key] for key in theirs if theirs[key] != ours.get(key)} == {}
    # Sanity check: weights in other places would show.
    randomise_(child, seed=1)
    with torch.no_grad():
        assert (child(**batch)[0] - model(**batch)[0]).abs().max() > 1e-2


def test_the_one_segment_of_a_child_goes_into_distilberts_positions():
    child = randomise_(from_stock(stock("DistilBertModel")), seed=1)
    assert child.embeddings.token_type_embeddings.weight.abs().max() > 0
    back = FAMILIES["distilbert"].to_stock(child)
    batch = batch_for(back)
    with torch.no_grad():
        assert_close(at_tokens(back(**batch), batch), at_tokens(child(**batch), batch), 1e-5)


def test_robertas_positions_begin_behind_its_padding_token_whichever_that_is():
    config = CONFIGS["Roberta"]()
    config.pad_token_id, config.max_position_embeddings = 3, 40
    model = randomise_(transformers.RobertaModel(config, add_pooling_layer=False)).eval()
    child, batch = from_stock(model), batch_for(model)
    assert child.config.max_position_embeddings == 36
    with torch.no_grad():
        assert_close(at_tokens(child(**batch), batch), at_tokens(model(**batch), batch), 1e-5)


@pytest.mark.parametrize(
    ("name", "made", "left"),
    [
        ("ElectraForPreTraining", NasBertModel, "discriminator_predictions.dense"),
        ("ElectraForMultipleChoice", NasBertModel, "classifier, sequence_summary.summary"),
        ("BertForPreTraining", NasBertForMaskedLM, "cls.seq_relationship, pooler.dense"),
    ],
)
def test_says_which_head_it_leaves_out(name, made, left, caplog):
    model = stock(name)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        child = from_stock(model)
        assert type(child) is made
        assert f"left out of the child: the {left}" in caplog.text
        batch = batch_for(model)
        states = model.base_model(**batch).last_hidden_state
        assert_close(child.base_model(**batch).last_hidden_state, states, 1e-5)


@pytest.mark.parametrize("name", ["BertModel", "ElectraModel", "RobertaForMaskedLM", "DistilBertModel"])
def test_says_what_it_makes_new(name, caplog):
    model = stock(name)
    with caplog.at_level(logging.WARNING):
        child = from_stock(model, NasBertForSequenceClassification)
    new = "classifier" if name == "BertModel" else "classifier, pooler"
    assert f"the child's {new} is new, with random weights: {name} has none" in caplog.text
    batch = batch_for(model)
    with torch.no_grad():
        states = model.base_model(**batch).last_hidden_state
        assert_close(child.nasbert(**batch).last_hidden_state[0], states[0], 1e-5)


def test_positions_beyond_the_end_are_no_childs():
    """RoBERTa has a row more for padding, and none of its rows below."""
    child = from_stock(stock("RobertaModel"))
    assert child.config.max_position_embeddings == 22


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("roberta", {"hidden_act": "relu"}, "this child is no RoBERTa: its hidden_act is 'relu'"),
        ("roberta", {"pad_token_id": None}, "no padding token"),
        ("distilbert", {}, "this child is no DistilBERT: its type_vocab_size is 2"),
        ("distilbert", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}, "its layer_norm_eps is 1e-05"),
        ("electra", {"operators": ("attention", "conv3")}, r"block 1 \(conv3\): ELECTRA has no conv3"),
        ("roberta", {"embedding_size": 16}, "RoBERTa's embeddings are as wide as its layers"),
    ],
)
def test_a_child_of_no_family_is_refused(family, config, message):
    child = random_model(NasBertForMaskedLM, chain_config(**{"operators": ("attention", "ffn"), **config}))
    with pytest.raises(ValueError, match=message):
        FAMILIES[family].to_stock(child)


@pytest.mark.parametrize(("family", "own"), [("bert", "tanh"), ("distilbert", "relu"), ("electra", "gelu")])
def test_a_classifier_with_another_pooler_is_refused(family, own):
    """What a sequence is classified by has another activation in every family."""
    fields = {"type_vocab_size": 1} if family == "distilbert" else {}
    for pooler_act in ("tanh", "relu", "gelu"):
        config = chain_config(("attention", "ffn"), pooler_act=pooler_act, **fields)
        child = random_model(NasBertForSequenceClassification, config)
        if pooler_act == own:
            FAMILIES[family].to_stock(child)
        else:
            with pytest.raises(ValueError, match=f"its pooler_act is '{pooler_act}', and .* '{own}'"):
                FAMILIES[family].to_stock(child)
    # Without a pooler it says nothing.
    masked = random_model(NasBertForMaskedLM, chain_config(("attention", "ffn"), pooler_act="silu", **fields))
    FAMILIES[family].to_stock(masked)


def test_a_head_that_the_family_lacks_is_refused():
    child = random_model(NasBertForMultipleChoice, chain_config(("attention", "ffn")))
    with pytest.raises(ValueError, match="ELECTRA has no head that computes what NasBertForMultipleChoice"):
        FAMILIES["electra"].to_stock(child)


def test_narrow_layers_are_a_bert_where_all_are():
    child = random_model(NasBertForMaskedLM, chain_config(("attention", "ffn24", "attention", "ffn24")))
    bert = to_bert(child)
    assert bert.config.intermediate_size == 24
    assert from_bert(bert).config.operators == child.config.operators


def test_an_unknown_family_is_refused():
    model = transformers.GPT2Model(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10))
    with pytest.raises(ValueError, match="cannot turn a 'gpt2' into a child: known are bert, roberta"):
        from_stock(model)
