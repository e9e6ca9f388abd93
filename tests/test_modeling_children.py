"""Children: what only they promise, beyond what any model does (`model_contract.py`)."""

import copy
import inspect
import json

import pytest
import torch
from model_contract import load
from tiny.models import (
    CHECKPOINTING,
    CHILD_CONFIGS,
    HEADS,
    KINDS,
    MODELS,
    SIZES,
    VOCAB_SIZE,
    assert_close,
    assert_equal_states,
    chain_config,
    chain_supernet_config,
    every_head,
    gradients,
    inputs_for,
    mlm_labels,
    random_model,
    staged_config,
    tiny_batch,
    with_labels,
)
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DynamicCache,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.utils import output_capturing

from hf_nasbert import modeling
from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    SupernetForMaskedLM,
)

every_shape = pytest.mark.parametrize("make_config", CHILD_CONFIGS.values(), ids=CHILD_CONFIGS.keys())
CHAINS = {
    **{kind: (kind,) for kind in KINDS},
    "attention-conv5-ffn-conv3": ("attention", "conv5", "ffn", "conv3"),
    "conv7-conv7-attention-skip": ("conv7", "conv7", "attention", "skip"),
    "ffn-attention-attention": ("ffn", "attention", "attention"),
}
every_chain = pytest.mark.parametrize("operators", CHAINS.values(), ids=CHAINS.keys())


# Saving and loading


def test_save_and_load_in_shards(tmp_path):
    model = random_model(NasBertForMaskedLM, chain_config())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equal_states(load(NasBertForMaskedLM, tmp_path), model)


@every_head
def test_silent_corruption_2_from_base_to_head(head, tmp_path, poisoned_memory):
    base = random_model(NasBertModel, chain_config())
    base.save_pretrained(tmp_path)
    model, info = head.from_pretrained(tmp_path, output_loading_info=True)
    encoder = model if head is NasBertModel else model.nasbert
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, base.state_dict()[name]), name
    new = {name for name, _ in model.named_parameters() if not name.startswith("nasbert.")}
    tied = {"lm_head.decoder.bias"} if head is NasBertForMaskedLM else set()
    assert info["missing_keys"] == (set() if head is NasBertModel else new | tied)
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name
        if name in info["missing_keys"] and name.endswith("bias"):
            assert (tensor == 0).all(), name
    if head is NasBertForMaskedLM:
        assert "lm_head.bias" in new
        assert model.lm_head.decoder.weight is model.nasbert.embeddings.word_embeddings.weight


@every_shape
def test_silent_corruption_3_loaded_weights_beside_a_missing_one(make_config, poisoned_memory):
    """`_init_weights` sees a module when one of its parameters is missing, and must leave the loaded ones alone."""
    state = random_model(NasBertForMaskedLM, make_config()).state_dict()
    tied = {"lm_head.decoder.weight", "lm_head.decoder.bias"}
    state = {name: tensor for name, tensor in state.items() if name not in tied}
    for missing in [name for name in state if make_config is chain_config or "project" in name]:
        rest = {name: tensor for name, tensor in state.items() if name != missing}
        loaded = NasBertForMaskedLM.from_pretrained(None, config=make_config(), state_dict=rest).state_dict()
        for name, tensor in rest.items():
            assert torch.equal(loaded[name], tensor), f"{name} was lost because {missing} was missing"
        assert loaded[missing].isfinite().all(), missing
        assert not torch.equal(loaded[missing], state[missing]), missing


@pytest.mark.parametrize("kind", ["child", "supernet"])
def test_initial_weights(kind):
    """The same in both: a child trained alone must not start from other weights than the super-net does."""
    if kind == "child":
        model = NasBertForMaskedLM(chain_config(KINDS, hidden_size=64, hidden_dropout_prob=0.1))
    else:
        model = SupernetForMaskedLM(chain_supernet_config(hidden_size=64, hidden_dropout_prob=0.1))
    for name, parameter in model.named_parameters():
        if name.endswith("LayerNorm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif ".layers." in name:  # a convolution: 0.9 is kept by dropout
            fan_in = 64 * (parameter.shape[-1] if "depthwise" in name else 1)
            assert parameter.std().item() == pytest.approx((4 * 0.9 / fan_in) ** 0.5, rel=0.2), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
    assert (model.nasbert.embeddings.word_embeddings.weight[0] == 0).all()


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path):
    NasBertForSequenceClassification(chain_config()).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        NasBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    model = NasBertForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert model(**tiny_batch()).logits.shape == (3, 5)


def test_loading_onto_several_devices(tmp_path):
    """What `device_map="auto"` does to a model that does not fit: blocks stay on disk until they run."""
    model = random_model(NasBertForMaskedLM, chain_config())
    model.save_pretrained(tmp_path)
    places = {
        "nasbert.embeddings": "cpu",
        "lm_head": "cpu",
        **{f"nasbert.encoder.blocks.{block}": "disk" if block % 2 else "cpu" for block in range(4)},
    }
    split = NasBertForMaskedLM.from_pretrained(tmp_path, device_map=places, offload_folder=tmp_path / "offload")
    assert split.nasbert.encoder.blocks[1].operator.output.dense.weight.device.type == "meta"
    assert torch.equal(split(**tiny_batch()).logits, model(**tiny_batch()).logits)


@every_head
def test_no_split_modules_exist(head):
    names = {type(module).__name__ for module in head(chain_config()).modules()}
    assert set(head._no_split_modules) <= names


# Tied weights and vocabularies


def assert_tied(model: NasBertForMaskedLM) -> None:
    embeddings = model.nasbert.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.weight is embeddings
    assert model.lm_head.decoder.bias is model.lm_head.bias
    assert model.lm_head.bias.shape == embeddings.shape[:1] == (model.config.vocab_size,)
    assert model.lm_head.decoder.out_features == model.config.vocab_size


@every_shape
def test_weights_are_tied_and_stay_so(make_config, tmp_path):
    model = random_model(NasBertForMaskedLM, make_config())
    assert_tied(model)
    assert_tied(copy.deepcopy(model))
    model.save_pretrained(tmp_path / "first")
    loaded = load(NasBertForMaskedLM, tmp_path / "first")
    assert_tied(loaded)
    before = loaded(**tiny_batch()).logits
    loaded.resize_token_embeddings(VOCAB_SIZE + 7)
    assert loaded.config.vocab_size == VOCAB_SIZE + 7
    assert_tied(loaded)
    assert_close(loaded(**tiny_batch()).logits[..., :VOCAB_SIZE], before)
    loaded.save_pretrained(tmp_path / "second")
    larger = load(NasBertForMaskedLM, tmp_path / "second")
    assert_tied(larger)
    assert_equal_states(larger, loaded)
    larger.resize_token_embeddings(VOCAB_SIZE)
    assert_tied(larger)
    assert_equal_states(larger, model)


def test_gradients_reach_the_embeddings_from_both_ends():
    model, batch = random_model(NasBertForMaskedLM, chain_config()), tiny_batch()
    model(**batch, labels=mlm_labels(batch)).loss.backward()
    used = model.nasbert.embeddings.word_embeddings.weight.grad.abs().sum(1) > 0
    # As inputs, only the batch's tokens; as outputs, all but (by torch's rule) nothing.
    assert used.all()


@every_shape
def test_untied_weights(make_config, tmp_path):
    model = random_model(NasBertForMaskedLM, make_config(tie_word_embeddings=False))
    assert model.lm_head.decoder.weight is not model.nasbert.embeddings.word_embeddings.weight
    batch = tiny_batch()
    model(**batch, labels=mlm_labels(batch)).loss.backward()
    assert set(gradients(model)) == {name for name, _ in model.named_parameters()}, "a parameter without use"
    model.save_pretrained(tmp_path / "first")
    loaded = load(NasBertForMaskedLM, tmp_path / "first")
    assert_equal_states(loaded, model)
    loaded.resize_token_embeddings(VOCAB_SIZE + 7)
    assert loaded(**batch).logits.shape[-1] == VOCAB_SIZE + 7
    assert loaded.lm_head.decoder.weight is not loaded.nasbert.embeddings.word_embeddings.weight
    loaded.save_pretrained(tmp_path / "second")
    assert_equal_states(load(NasBertForMaskedLM, tmp_path / "second"), loaded)


# What goes in


@every_chain
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padding_never_changes_a_result(operators, side, implementation):
    """A row of a padded batch is what it is alone, in every hidden state, whatever stands at its padding."""
    model = random_model(NasBertModel, chain_config(operators))
    model.set_attn_implementation(implementation)
    batch = tiny_batch(padding_side=side)
    mask = batch["attention_mask"].bool()
    padded = model(**batch, output_hidden_states=True).hidden_states
    garbage = batch | {
        "input_ids": torch.where(mask, batch["input_ids"], 17),
        "token_type_ids": torch.where(mask, batch["token_type_ids"], 1),
        "position_ids": torch.where(mask, batch.get("position_ids", torch.arange(12)), 20),
    }
    dirty = model(**garbage, output_hidden_states=True).hidden_states
    for row in range(3):
        real = mask[row]
        ids, segments = batch["input_ids"][row, real], batch["token_type_ids"][row, real]
        alone = model(ids[None], token_type_ids=segments[None], output_hidden_states=True).hidden_states
        for block in range(len(operators) + 1):
            assert_close(padded[block][row, real], alone[block][0], 1e-5)
            assert torch.equal(dirty[block][row, real], padded[block][row, real])


@every_head
@every_shape
def test_padding_never_changes_a_heads_result(head, make_config):
    model, batch = random_model(head, make_config()), tiny_batch()
    inputs = inputs_for(head, batch)
    wider = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in inputs.items()}
    wider["input_ids"][..., -5:] = 9
    result, wide = model(**inputs)[0], model(**wider)[0]
    if result.shape[1] == 12:  # per token
        mask = batch["attention_mask"].bool()
        result, wide = result[mask], wide[:, :12][mask]
    assert_close(wide, result, 1e-5)


@every_chain
def test_the_attention_mask_is_looked_at(operators):
    """The sanity check of the tests above: a model that ignored the mask would be found out."""
    model, batch = random_model(NasBertModel, chain_config(operators)), tiny_batch()
    with_mask = model(**batch).last_hidden_state[2, :5]
    without = model(batch["input_ids"], token_type_ids=batch["token_type_ids"]).last_hidden_state[2, :5]
    is_blind = not {"attention", "conv3", "conv5", "conv7"} & set(operators)
    assert torch.equal(with_mask, without) == is_blind


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_ready_4d_mask_rules_attention(implementation, sparse):
    """A mask per query: here every token sees itself and those before it; changing a later one changes nothing."""
    model = random_model(NasBertForMaskedLM, chain_config(("attention", "ffn", "attention"), sparse_prediction=sparse))
    model.set_attn_implementation(implementation)
    ids = tiny_batch((12,))["input_ids"]
    labels = torch.where(torch.arange(12) % 3 == 0, ids, -100)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    if implementation == "eager":
        causal = torch.where(causal, 0.0, torch.finfo(torch.float).min)
    changed = ids.clone()
    changed[0, 10:] = 11
    first, second = [model(x, attention_mask=causal, labels=labels).logits for x in (ids, changed)]
    early = 4 if sparse else 10
    assert first.shape[-2] == (4 if sparse else 12)
    assert torch.equal(first.reshape(-1, VOCAB_SIZE)[:early], second.reshape(-1, VOCAB_SIZE)[:early])
    dense = model(ids, attention_mask=causal).logits
    assert_close(first, dense[labels != -100] if sparse else dense, 1e-6)
    assert not torch.equal(model(ids).logits[0, 0], model(changed).logits[0, 0])


@pytest.mark.parametrize("both", [True, False])
def test_tokens_are_given_once(both):
    model, ids = NasBertModel(chain_config()), tiny_batch()["input_ids"]
    inputs = {"input_ids": ids, "inputs_embeds": model.get_input_embeddings()(ids)} if both else {}
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(**inputs)


def test_defaults_of_positions_and_segments():
    model, ids = random_model(NasBertModel, chain_config()), tiny_batch()["input_ids"]
    positions, zeros = torch.arange(12).expand(3, 12), torch.zeros_like(ids)
    expected = model(ids).last_hidden_state
    assert torch.equal(model(ids, token_type_ids=zeros, position_ids=positions).last_hidden_state, expected)
    assert torch.equal(model(ids, position_ids=positions[:1]).last_hidden_state, expected)
    assert not torch.equal(model(ids, position_ids=positions + 1).last_hidden_state, expected)
    assert not torch.equal(model(ids, token_type_ids=zeros + 1).last_hidden_state, expected)


# What comes out


def test_hidden_states_have_their_stages_width():
    model = random_model(NasBertModel, staged_config())
    states = model(**tiny_batch(), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [32, 64, 32, 32, 32, 96, 32]


@every_shape
@pytest.mark.skipif(not hasattr(output_capturing, "selected_hidden_states"), reason="transformers takes none here")
def test_selected_hidden_states(make_config):
    model, batch = random_model(NasBertForMaskedLM, make_config()), tiny_batch()
    states = model(**batch, output_hidden_states=True).hidden_states
    for selection, kept in ((2, {2}), (-1, {len(states) - 1}), ([0, 3], {0, 3})):
        found = model(**batch, output_hidden_states=selection).hidden_states
        assert {index for index, state in enumerate(found) if state is not None} == kept
        assert all(torch.equal(found[index], states[index]) for index in kept)


@pytest.mark.parametrize("from_config", [True, False])
def test_attentions_are_whole_beside_sparse_prediction(from_config):
    """Attention weights are asked for, so the last block cannot leave out queries."""
    config = chain_config(("ffn", "attention", "skip"), sparse_prediction=True, attn_implementation="eager")
    model, batch = random_model(NasBertForMaskedLM, config), tiny_batch()
    labels = mlm_labels(batch)
    expected = model(**batch, labels=labels)
    model.config.output_attentions = from_config
    output = model(**batch, labels=labels, **({} if from_config else {"output_attentions": True}))
    assert [weights.shape for weights in output.attentions] == [(3, 1, 12, 12)]
    assert_close(output.logits, expected.logits, 1e-6)


def test_an_unknown_attention_implementation_is_refused():
    with pytest.raises(ValueError, match="attn_implementation"):
        NasBertModel._from_config(chain_config(), attn_implementation="textbook")


# Pooler


def test_pooler():
    model, batch = random_model(NasBertModel, chain_config()), tiny_batch()
    output = model(**batch)
    dense = model.pooler.dense
    expected = torch.tanh(output.last_hidden_state[:, 0] @ dense.weight.T + dense.bias)
    assert_close(output.pooler_output, expected, 1e-6)
    without = NasBertModel(chain_config(), add_pooling_layer=False)
    assert without(**batch).pooler_output is None
    assert len(without(**batch, return_dict=False)) == 1


def test_heads_have_a_pooler_only_where_it_is_read():
    for head in HEADS.values():
        model = head(chain_config())
        is_read = head in (NasBertModel, NasBertForSequenceClassification, NasBertForMultipleChoice)
        assert any("pooler" in name for name, _ in model.named_parameters()) == is_read
        inputs = with_labels(head, tiny_batch())
        output = model(**inputs)
        scalar = output.pooler_output.sum() if head is NasBertModel else output.loss
        scalar.backward()
        assert gradients(model).keys() == dict(model.named_parameters()).keys(), "a parameter without use"


# Losses against computation by hand


def test_masked_lm_loss():
    model, batch = random_model(NasBertForMaskedLM, chain_config()), tiny_batch()
    labels = mlm_labels(batch)
    output = model(**batch, labels=labels)
    log_probabilities = output.logits.log_softmax(-1)
    terms = [-log_probabilities[b, t, labels[b, t]] for b, t in (labels != -100).nonzero().tolist()]
    assert_close(output.loss, torch.stack(terms).mean(), 1e-6)
    total = model(**batch, labels=labels, num_items_in_batch=torch.tensor(7)).loss
    assert_close(total, torch.stack(terms).sum() / 7, 1e-6)
    assert model(**batch).loss is None


@every_shape
@pytest.mark.parametrize("last", ["attention", "ffn", "conv5", "skip"])
def test_sparse_prediction_changes_nothing_but_the_shape(make_config, last):
    """Same loss, same gradients, and the dense logits' rows at the labelled positions, in order."""
    operators = ("attention", "conv3", last) if make_config is chain_config else None
    fields = {"operators": operators} if operators else {}
    batch, found = tiny_batch(), []
    labels = mlm_labels(batch)
    for sparse in (False, True):
        model = random_model(NasBertForMaskedLM, make_config(**fields, sparse_prediction=sparse)).train()
        output = model(**batch, labels=labels, output_hidden_states=True)
        output.loss.backward()
        found.append((output, gradients(model)))
    (dense, dense_gradients), (sparse, sparse_gradients) = found
    assert sparse.logits.shape == ((labels != -100).sum(), VOCAB_SIZE)
    assert_close(sparse.logits, dense.logits[labels != -100], 1e-6)
    assert_close(sparse.hidden_states[-1], dense.hidden_states[-1][labels != -100], 1e-6)
    assert_close(sparse.loss, dense.loss, 1e-6)
    assert_close(sparse_gradients, dense_gradients, 1e-5)
    # Without labels there is nothing to be sparse about.
    assert model(**batch).logits.shape == (3, 12, VOCAB_SIZE)


@pytest.mark.parametrize("operators", [("attention",), ("ffn", "attention", "skip"), ("conv3",), ("skip",)])
def test_sparse_prediction_without_labelled_positions(operators):
    """A short batch may have no masked token: no logits, and no crash in an attention kernel."""
    model, batch = random_model(NasBertForMaskedLM, chain_config(operators, sparse_prediction=True)), tiny_batch()
    output = model(**batch, labels=torch.full((3, 12), -100))
    assert output.logits.shape == (0, VOCAB_SIZE)
    assert model(**batch, labels=torch.full((3, 12), -100), num_items_in_batch=3).loss == 0


def test_sparse_prediction_saves_the_vocabulary_projection():
    model, batch = random_model(NasBertForMaskedLM, chain_config(sparse_prediction=True)), tiny_batch()
    rows = []
    model.lm_head.register_forward_hook(lambda module, args, output: rows.append(args[0].shape))
    labels = mlm_labels(batch)
    model(**batch, labels=labels)
    assert rows == [((labels != -100).sum(), 32)]


def pooled_logits(model, batch):
    dense = model.nasbert.pooler.dense
    pooled = torch.tanh(dense(model.nasbert(**batch).last_hidden_state[:, 0]))
    return pooled @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("problem_type", [None, "named"])
@pytest.mark.parametrize("task", ["regression", "single_label_classification", "multi_label_classification"])
def test_sequence_classification_losses(task, problem_type):
    config = chain_config(num_labels=1 if task == "regression" else 4, problem_type=task if problem_type else None)
    model, batch = random_model(NasBertForSequenceClassification, config), tiny_batch()
    logits = pooled_logits(model, batch)
    if task == "regression":
        labels = torch.tensor([0.5, -1.0, 2.0])
        expected = ((logits[:, 0] - labels) ** 2).mean()
    elif task == "single_label_classification":
        labels = torch.tensor([3, 0, 2])
        expected = -logits.log_softmax(-1)[range(3), labels].mean()
    else:
        labels = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
        probabilities = logits.sigmoid()
        expected = -(labels * probabilities.log() + (1 - labels) * (1 - probabilities).log()).mean()
    output = model(**batch, labels=labels)
    assert_close(output.logits, logits, 1e-6)
    assert_close(output.loss, expected, 1e-5)
    assert model.config.problem_type == task


def test_token_classification_loss():
    model, batch = random_model(NasBertForTokenClassification, chain_config(num_labels=3)), tiny_batch()
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 3, -100)
    output = model(**batch, labels=labels)
    logits = model.nasbert(**batch).last_hidden_state @ model.classifier.weight.T + model.classifier.bias
    assert_close(output.logits, logits, 1e-6)
    terms = [-logits[b, t].log_softmax(-1)[labels[b, t]] for b, t in (labels != -100).nonzero().tolist()]
    assert_close(output.loss, torch.stack(terms).mean(), 1e-5)


def test_question_answering_loss():
    model, batch = random_model(NasBertForQuestionAnswering, chain_config()), tiny_batch()
    # The third answer lies outside of its window: it is not counted.
    starts, ends = torch.tensor([2, 4, 99]), torch.tensor([5, 4, 99])
    output = model(**batch, start_positions=starts, end_positions=ends)
    logits = model.nasbert(**batch).last_hidden_state @ model.qa_outputs.weight.T + model.qa_outputs.bias
    assert_close(output.start_logits, logits[..., 0], 1e-6)
    assert_close(output.end_logits, logits[..., 1], 1e-6)
    terms = [
        -logits[row, :, end].log_softmax(-1)[where[row]] for end, where in enumerate((starts, ends)) for row in (0, 1)
    ]
    assert_close(output.loss, torch.stack(terms).mean(), 1e-5)
    assert model(**batch, start_positions=starts).loss is None


def test_multiple_choice_loss():
    model = random_model(NasBertForMultipleChoice, chain_config(num_labels=5)).eval()
    inputs = inputs_for(NasBertForMultipleChoice, tiny_batch())
    labels = torch.tensor([0, 1, 1])
    output = model(**inputs, labels=labels)
    choices = [{name: tensor[:, choice] for name, tensor in inputs.items()} for choice in range(2)]
    logits = torch.cat([pooled_logits(model, choice) for choice in choices], dim=1)
    assert_close(output.logits, logits, 1e-5)
    assert_close(output.loss, -logits.log_softmax(-1)[range(3), labels].mean(), 1e-5)


def test_classifier_dropout():
    for fields, expected in (({"classifier_dropout": 0.4}, 0.4), ({"hidden_dropout_prob": 0.3}, 0.3)):
        assert NasBertForSequenceClassification(chain_config(**fields)).dropout.p == expected
    model, batch = random_model(NasBertForTokenClassification, chain_config(classifier_dropout=0.5)), tiny_batch()
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    model.train()
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("head", "labels"),
    [
        (NasBertForSequenceClassification, [0.5, -1.0, 2.0, 0.25]),
        (NasBertForMultipleChoice, [0, 1, 1, 0]),
        (NasBertForMaskedLM, None),
    ],
    ids=["regression", "choice", "masked-lm"],
)
def test_trainer_accumulates_to_the_same_step(head, labels, tmp_path):
    """Four examples at once or two by two: one and the same SGD step, whatever the loss is a mean of."""
    batch = inputs_for(head, tiny_batch((12, 12, 12, 12)))
    labels = torch.tensor(labels) if labels else mlm_labels(batch)
    examples = [{name: tensor[row] for name, tensor in (batch | {"labels": labels}).items()} for row in range(4)]
    weights = []
    for batch_size, accumulated in ((4, 1), (2, 2)):
        model = random_model(head, chain_config(num_labels=1 if labels.is_floating_point() else 2))
        arguments = TrainingArguments(
            output_dir=tmp_path,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        Trainer(model, arguments, train_dataset=examples).train()
        weights.append(dict(model.named_parameters()))
    assert_close(weights[1], weights[0], 1e-5)


# Activation checkpointing


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_recomputes_the_blocks(use_reentrant):
    model, batch = random_model(NasBertForMaskedLM, chain_config(sparse_prediction=True)).train(), tiny_batch()
    calls = []
    for block in model.nasbert.encoder.blocks:
        block.operator.register_forward_pre_hook(lambda module, args: calls.append(type(module).__name__))
    getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": use_reentrant})
    model(**batch, labels=mlm_labels(batch)).loss.backward()
    assert len(calls) >= 2 * 4 - 1  # torch knows that nothing of a skip needs to be computed again
    calls.clear()
    getattr(model, f"{CHECKPOINTING}_disable")()
    model(**batch, labels=mlm_labels(batch)).loss.backward()
    assert len(calls) == 4


# Compilers

EVERY_OPERATOR = {"chain": lambda: chain_config(KINDS), "staged": staged_config}
every_operator = pytest.mark.parametrize("make_config", EVERY_OPERATOR.values(), ids=EVERY_OPERATOR.keys())


@pytest.mark.slow
@every_operator
def test_compiles_without_graph_breaks(make_config):
    """Forward and backward, with a loss; the same compiled model at other shapes."""
    compiles_to_the_same(make_config(), [tiny_batch(), tiny_batch((17, 3, 9, 16))], backend="eager", dynamic=True)


@pytest.mark.slow
def test_compiles_with_its_backward_graph():
    compiles_to_the_same(chain_config(("attention", "conv3", "ffn")), [tiny_batch()], backend="aot_eager")


def compiles_to_the_same(config, batches, **options):
    model = random_model(NasBertForMaskedLM, config).train()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, **options)
    for inputs in batches:
        labels = mlm_labels(inputs)
        found = []
        for one in (model, compiled):
            model.zero_grad()
            output = one(**inputs, labels=labels)
            output.loss.backward()
            found.append({"loss": output.loss.detach(), "logits": output.logits.detach(), **gradients(model)})
        assert_close(found[1], found[0], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head", [NasBertForSequenceClassification, NasBertForQuestionAnswering, NasBertForMultipleChoice]
)
def test_heads_compile_without_graph_breaks(head):
    model, inputs = random_model(head, chain_config(("conv3", "attention"))), with_labels(head, tiny_batch())
    expected = model(**inputs)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for name, tensor in compiled(**inputs).items():
        assert_close(tensor, expected[name], 1e-6)


@pytest.mark.slow
@every_operator
def test_exports_with_dynamic_shapes(make_config):
    model = random_model(NasBertForMaskedLM, make_config())
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=8, max=24)
    example = tiny_batch()
    program = torch.export.export(
        model, (), example, dynamic_shapes={name: {0: batch, 1: length} for name in example}, strict=False
    )
    other = tiny_batch((17, 3, 9, 16))
    assert_close(program.module()(**other).logits, model(**other).logits, 1e-6)


# Auto classes


AUTO_CLASSES = {
    AutoModel: NasBertModel,
    AutoModelForMaskedLM: NasBertForMaskedLM,
    AutoModelForSequenceClassification: NasBertForSequenceClassification,
    AutoModelForTokenClassification: NasBertForTokenClassification,
    AutoModelForQuestionAnswering: NasBertForQuestionAnswering,
    AutoModelForMultipleChoice: NasBertForMultipleChoice,
}


@every_shape
def test_a_masked_lm_child_loads_as_every_auto_class(make_config, tmp_path, poisoned_memory):
    child = random_model(NasBertForMaskedLM, make_config())
    child.save_pretrained(tmp_path)
    for auto_class, model_class in AUTO_CLASSES.items():
        model = auto_class.from_pretrained(tmp_path)  # no trust_remote_code: our own classes are registered
        assert type(model) is model_class
        encoder = model if model_class is NasBertModel else model.nasbert
        for name, tensor in child.nasbert.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], tensor), name
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert auto_class.from_config(make_config()).config.operators == child.config.operators


def test_heads_are_saved_under_their_own_auto_class(tmp_path):
    for auto_class, model_class in AUTO_CLASSES.items():
        assert model_class._auto_class == auto_class.__name__
        assert auto_class._model_mapping[type(chain_config())] is model_class


# A child that alternates attention and ffn is a BERT


def bert_to_nasbert(name: str) -> str:
    """Where a child keeps what stock BERT keeps under `name`."""
    if ".layer." in name:
        before, after = name.split(".layer.")
        layer, part = after.split(".", 1)
        block = 2 * int(layer) + (not part.startswith("attention."))
        return f"{before}.blocks.{block}.operator.{part.removeprefix('attention.')}".replace("bert.", "nasbert.", 1)
    name = name.replace("cls.predictions.transform.", "lm_head.").replace("cls.predictions.", "lm_head.")
    return name.replace("bert.", "nasbert.", 1)


def bert_config(**fields) -> BertConfig:
    sizes = SIZES | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 256}
    return BertConfig(**sizes, **fields)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("stock_class", "own_class"), [(BertForMaskedLM, NasBertForMaskedLM), (BertModel, NasBertModel)]
)
def test_alternating_children_are_stock_bert(stock_class, own_class, implementation):
    bert = random_model(stock_class, bert_config(attn_implementation=implementation))
    config = chain_config(("attention", "ffn") * 3, hidden_size=64, attn_implementation=implementation)
    child = own_class(config).eval()
    prefix = "" if stock_class is BertForMaskedLM else "bert."
    renamed = {bert_to_nasbert(prefix + name): tensor for name, tensor in bert.state_dict().items()}
    child.load_state_dict({name.removeprefix("nas" + prefix if prefix else ""): t for name, t in renamed.items()})
    for batch in (tiny_batch(), tiny_batch(padding_side="left")):
        expected, actual = bert(**batch, output_hidden_states=True), child(**batch, output_hidden_states=True)
        for mine, theirs in zip(actual.hidden_states[::2], expected.hidden_states, strict=True):
            assert_close(mine, theirs, 1e-6)
        assert_close(actual[0], expected[0], 1e-6)
        if stock_class is BertModel:
            assert_close(actual.pooler_output, expected.pooler_output, 1e-6)


def test_alternating_children_train_as_stock_bert():
    bert = random_model(BertForMaskedLM, bert_config()).train()
    child = NasBertForMaskedLM(chain_config(("attention", "ffn") * 3, hidden_size=64, sparse_prediction=True)).train()
    child.load_state_dict({bert_to_nasbert(name): tensor for name, tensor in bert.state_dict().items()})
    batch = tiny_batch()
    for model in (bert, child):
        model(**batch, labels=mlm_labels(batch)).loss.backward()
    expected = {bert_to_nasbert(name): gradient for name, gradient in gradients(bert).items()}
    assert_close(gradients(child), expected, 1e-5)


def prefix_of(num_blocks, heads, head_size, length=3, batch_size=3, seed=0) -> DynamicCache:
    """What prefix tuning hands to a model: keys and values of every block."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randn(num_blocks, 2, batch_size, heads, length, head_size, generator=generator)
    return DynamicCache([(keys, values) for keys, values in pairs])


def with_prefix(batch, length=3) -> dict[str, torch.Tensor]:
    mask = batch["attention_mask"]
    return batch | {"attention_mask": torch.cat([mask.new_ones(len(mask), length), mask], dim=1)}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_prefix_is_that_of_stock_bert(implementation):
    """Positions begin behind it; only attention reads it."""
    bert = random_model(BertModel, bert_config(attn_implementation=implementation))
    child = NasBertModel(chain_config(("attention", "ffn") * 3, hidden_size=64, attn_implementation=implementation))
    child.load_state_dict(
        {bert_to_nasbert(f"bert.{name}").removeprefix("nasbert."): value for name, value in bert.state_dict().items()}
    )
    stock, own = prefix_of(3, 2, 32), prefix_of(6, 2, 32, seed=1)
    for layer, theirs in zip(own.layers[::2], stock.layers, strict=True):
        layer.keys, layer.values = theirs.keys, theirs.values
    batch = with_prefix(tiny_batch())
    actual = child.eval()(**batch, past_key_values=own).last_hidden_state
    # transformers 5.24 calls it `cache`.
    name = "cache" if "cache" in inspect.signature(BertModel.forward).parameters else "past_key_values"
    assert_close(actual, bert(**batch, **{name: stock}).last_hidden_state, 1e-6)
    assert own.get_seq_length() == 3  # it is read only
    assert not torch.allclose(actual, child(**tiny_batch()).last_hidden_state, atol=1e-2)


@pytest.mark.parametrize("operators", [("conv3", "attention", "ffn"), ("attention", "conv3"), ("ffn", "attention")])
def test_a_prefix_beside_convolutions_and_sparse_prediction(operators):
    batch, labels = with_prefix(tiny_batch()), mlm_labels(tiny_batch())
    sparse = random_model(NasBertForMaskedLM, chain_config(operators, sparse_prediction=True))
    dense = random_model(NasBertForMaskedLM, chain_config(operators))
    prefix = prefix_of(len(operators), 1, 32)
    rows = dense(**batch, labels=labels, past_key_values=prefix)
    assert_close(sparse(**batch, labels=labels, past_key_values=prefix).logits, rows.logits[labels != -100], 1e-5)
    hidden = batch | {"input_ids": torch.where(tiny_batch()["attention_mask"].bool(), batch["input_ids"], 17)}
    real = tiny_batch()["attention_mask"].bool()
    assert torch.equal(dense(**hidden, past_key_values=prefix).logits[real], rows.logits[real])


@pytest.mark.parametrize(
    ("num_blocks", "heads", "head_size", "message"),
    [
        (3, 1, 32, "past_key_values are of 3 blocks; expected 4"),
        (4, 2, 16, "past_key_values of block 0 are of 2 heads of 16, its attention has 1 of 32"),
    ],
)
def test_a_prefix_of_another_shape_is_refused(num_blocks, heads, head_size, message):
    with pytest.raises(ValueError, match=message):
        NasBertModel(chain_config())(
            **with_prefix(tiny_batch()), past_key_values=prefix_of(num_blocks, heads, head_size)
        )


def test_the_models_of_these_tests_are_all_there_are():
    assert {model_class for model_class, _ in MODELS.values()} == set(modeling_classes())
    assert set(AUTO_CLASSES.values()) == set(HEADS.values())
    assert json.loads(chain_config().to_json_string())["model_type"] == "nasbert"


def modeling_classes():
    exported = [getattr(modeling, name) for name in modeling.__all__]
    return [item for item in exported if isinstance(item, type) and issubclass(item, PreTrainedModel)]
