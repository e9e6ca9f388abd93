"""Elastic super-nets: the full child is the base model, every other one the base model with parts of it cut."""

import json

import pytest
import torch
import transformers
from helpers import mostly_slow
from tiny.families import at_tokens, batch_for, stock
from tiny.models import assert_close, chain_config, padded_batch, random_model, randomise_, staged_config
from torch.utils.flop_counter import FlopCounterMode

from hf_nasbert.costs import Budget, LatencyTable, cost_function, flops
from hf_nasbert.data import packaged_model
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.measuring import Device, measure_latencies
from hf_nasbert.modeling import (
    NasBertModel,
    SupernetForMaskedLM,
    SupernetForQuestionAnswering,
    SupernetForSequenceClassification,
    SupernetForTokenClassification,
    SupernetModel,
)
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.modeling.families import from_stock, native_form
from hf_nasbert.modeling.sentence_transformer import SentenceModules, read_sentence_modules
from hf_nasbert.native import native_children
from hf_nasbert.space import FreeStage, SearchSpace

FULL = ("attention", "ffn40") * 2
HEADS = {
    "Model": SupernetModel,
    "ForMaskedLM": SupernetForMaskedLM,
    "ForTokenClassification": SupernetForTokenClassification,
    "ForQuestionAnswering": SupernetForQuestionAnswering,
    "ForSequenceClassification": SupernetForSequenceClassification,
}
MODELS = [f"{family}{head}" for family in ("Bert", "Roberta", "Electra", "DistilBert") for head in HEADS]


def cut(model, architecture, head_size=8):
    """The base model, what every narrow operator lacks silenced: by transformers' names, and no code of ours."""
    base = model.base_model
    layers = base.transformer.layer if hasattr(base, "transformer") else base.encoder.layer
    for block, name in enumerate(architecture):
        layer = layers[block // 2]
        if hasattr(layer, "ffn"):
            dense = layer.ffn.lin2 if block % 2 else layer.attention.out_lin
        else:
            dense = layer.output.dense if block % 2 else layer.attention.output.dense
        if name not in (*FULL, "ffn"):
            kept = int(name.removeprefix("attention").removeprefix("ffn")) if name != "norm" else 0
            dense.weight.data[:, kept * (1 if block % 2 else head_size) :] = 0
    return model


def supernet_of(model, **sizes):
    supernet_class = next(HEADS[head] for head in reversed(HEADS) if type(model).__name__.endswith(head))
    return supernet_class.from_base_model(model, **sizes)


@pytest.mark.parametrize("name", mostly_slow(MODELS, 3))
@pytest.mark.parametrize("architecture", [
    pytest.param(FULL, marks=pytest.mark.slow), ("attention2", "ffn20", "attention1", "ffn10"),
    pytest.param(("attention", "norm", "norm", "ffn10"), marks=pytest.mark.slow),
], ids=["full", "narrow", "norm"])  # fmt: skip
def test_every_child_is_the_base_model_with_parts_cut(name, architecture):
    model = stock(name)
    supernet = supernet_of(model)
    batch = batch_for(model)
    with torch.no_grad():
        found = at_tokens(supernet(**batch, architecture=architecture), batch)
        expected = at_tokens(cut(model, architecture)(**batch), batch)
        assert expected
        assert_close({key: found[key] for key in expected}, expected, 1e-6)
        child = extract_child(supernet, architecture)
        assert type(child) is supernet.child_class
        assert prove_equal_logits(supernet, architecture, child) == 0
        assert_close(at_tokens(child(**batch), batch), found, 1e-6)
        # Sanity check: that another child is another function.
        other = at_tokens(supernet(**batch, architecture=("attention1", "ffn40", "attention", "ffn20")), batch)
        assert any((other[key] - expected[key]).abs().max() > 1e-3 for key in expected)


def test_the_largest_child_is_the_full_one_and_runs_where_none_is_named():
    model = stock("BertModel")
    supernet = supernet_of(model, kernels=(3, 7))
    assert supernet.largest_architecture == FULL
    batch = batch_for(model)
    with torch.no_grad():
        assert_close(supernet(**batch).last_hidden_state, model(**batch).last_hidden_state, 1e-6)


def test_skipped_layers_are_left_out():
    model = stock("BertModel")
    supernet = supernet_of(model)
    batch = batch_for(model)
    del model.encoder.layer[0]
    with torch.no_grad():
        found = supernet(**batch, architecture=("skip", "skip", "attention", "ffn40")).last_hidden_state
        assert_close(found, model(**batch).last_hidden_state, 1e-6)


def test_a_convolution_begins_as_nothing_added():
    model = stock("BertModel")
    supernet = supernet_of(model, kernels=(3,))
    full = supernet.state_dict()
    ours, theirs = "encoder.blocks.0.operators.operators.conv3.layers.0", "encoder.layer.0.attention.output"
    assert torch.equal(full[f"{ours}.LayerNorm.weight"], model.state_dict()[f"{theirs}.LayerNorm.weight"])
    states = torch.randn(2, 5, 32)
    operators = supernet.encoder.blocks[0].operators
    norm = model.encoder.layer[0].attention.output.LayerNorm
    assert_close(operators("conv3", states), norm(states), 1e-6)
    assert supernet.config.num_conv_layers == 1


class TestSpace:
    def space(self, **sizes):
        return elastic_space(from_stock(stock("BertModel")), **sizes)

    def test_by_default_three_numbers_of_heads_and_six_widths(self):
        attention = ("attention", "attention3", "attention2", "attention1")
        ffn = ("ffn40", "ffn30", "ffn23", "ffn20", "ffn16", "ffn10", "ffn5")
        assert self.space().blocks == ((*attention, "norm", "skip"), (*ffn, "norm", "skip")) * 2
        assert self.space(skip=False).blocks == (attention, ffn) * 2
        assert self.space().stages[0].__class__ is FreeStage

    def test_of_sizes_that_are_asked_for(self):
        found = self.space(heads=(1, 3, 4), ffn=[39], kernels=(5,), skip=False)
        assert found.blocks == (("attention", "attention3", "attention1", "conv5"), ("ffn40", "ffn39")) * 2
        assert self.space(heads=(), ffn=(), skip=False).num_children == 1

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"heads": (5,)}, "heads has 5: expected numbers from 1 to 4, the heads of the base model"),
            ({"heads": (0,)}, "heads has 0: expected numbers from 1 to 4"),
            ({"ffn": (41,)}, "ffn has 41: expected numbers from 1 to 40, the neurons of the base model"),
            ({"ffn": (2.5,)}, "ffn has 2.5"),
            ({"kernels": (4,)}, "kernels has 4: expected 3, 5, 7"),
        ],
    )
    def test_sizes_that_are_none_of_the_base_models_are_refused(self, sizes, message):
        with pytest.raises(ValueError, match=message):
            self.space(**sizes)

    def test_of_a_child_that_was_made_smaller_before(self):
        operators = ("attention2", "ffn20", "skip", "norm", "conv3", "ffn")
        child = random_model(NasBertModel, chain_config(operators, attention_head_size=8))
        space = elastic_space(child, heads=(2, 1), ffn=(64, 20, 16))
        assert space.blocks == (
            ("attention2", "attention1", "norm", "skip"),
            ("ffn20", "ffn16", "norm", "skip"),
            ("norm", "skip"),
            ("conv3", "norm", "skip"),
            ("ffn", "ffn64", "ffn20", "ffn16", "norm", "skip"),
        )
        supernet = elastic_supernet(child, space)
        assert supernet.config.num_conv_layers == child.config.num_conv_layers
        with torch.no_grad():
            found, expected = (
                model(**padded_batch(16), **more).last_hidden_state
                for model, more in (
                    (supernet, {"architecture": [name for name in operators if name != "skip"]}),
                    (child, {}),
                )
            )
            assert torch.equal(found, expected)

    def test_a_convolution_larger_than_the_attention_does_not_take_the_base_models_place(self):
        child = random_model(NasBertModel, chain_config(("attention1", "ffn20") * 2, attention_head_size=8))
        space = elastic_space(child, kernels=(3,))
        assert space.blocks[0] == ("attention1", "norm", "skip")
        assert elastic_supernet(child, space).largest_architecture == ("attention1", "ffn20") * 2
        space = SearchSpace((FreeStage((("attention1", "conv3"), ("ffn20",)) * 2),))
        with pytest.raises(ValueError, match="'conv3' has more weights than the base model's 'attention1'"):
            elastic_supernet(child, space)

    @pytest.mark.parametrize(
        ("blocks", "message"),
        [
            (
                [("attention",), ("ffn40", "attention2")] * 2,
                "choice block 1: 'attention2' cannot be cut from .*'ffn40'",
            ),
            ([("attention",), ("ffn40", "ffn99")] * 2, "choice block 1: 'ffn99' cannot be cut from .* 'ffn40'"),
            ([("attention",)], "the space has 1 blocks, the base model 4"),
        ],
    )
    def test_a_space_that_cannot_be_cut_is_refused(self, blocks, message):
        child = from_stock(stock("BertModel"))
        with pytest.raises(ValueError, match=message):
            elastic_supernet(child, SearchSpace((FreeStage(tuple(blocks)),)))

    def test_a_screened_space_need_not_hold_the_base_model(self):
        model = stock("BertModel")
        child = from_stock(model)
        space = SearchSpace(
            (FreeStage((("attention2", "attention1"), ("ffn20",), ("norm", "skip"), ("ffn40", "norm"))),)
        )
        supernet = elastic_supernet(child, space)
        assert supernet.largest_architecture == ("attention2", "ffn20", "norm", "ffn40")
        whole = supernet_of(model)
        batch = batch_for(model)
        with torch.no_grad():
            for architecture in (("attention1", "ffn20", "skip", "norm"), ("attention2", "ffn20", "norm", "ffn40")):
                found, expected = (
                    one(**batch, architecture=architecture).last_hidden_state for one in (supernet, whole)
                )
                assert_close(found, expected, 1e-6)


def test_nothing_of_the_base_model_or_the_random_state_is_touched():
    model = stock("BertForMaskedLM")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    supernet = supernet_of(model, kernels=(3,))
    assert torch.equal(torch.get_rng_state(), state)
    randomise_(supernet, 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("is_child", [False, True])
def test_a_full_child_of_a_model_at_hand_is_a_copy_in_single_precision(is_child):
    model = stock("BertModel").bfloat16().train()
    model = from_stock(model).train() if is_child else model
    child = load_full_child(model, NasBertModel)
    assert child is not model
    assert not child.training
    assert child.dtype == torch.float32
    assert model.training
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        child.encoder.blocks[0].operator.output.dense.weight.zero_()
    assert all(parameter.any() for name, parameter in model.named_parameters() if name.endswith("dense.weight"))


def test_only_what_runs_has_gradients_and_moves():
    supernet = supernet_of(stock("BertForSequenceClassification")).train()
    architecture = ("attention1", "ffn20", "norm", "skip")
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=0.1)
    supernet(**batch_for(supernet), labels=torch.tensor([0, 1, 1]), architecture=architecture).loss.backward()
    with_gradient = {id(parameter) for parameter in supernet.parameters() if parameter.grad is not None}
    assert with_gradient == {id(parameter) for parameter in supernet.parameters_of(architecture)}
    optimizer.step()
    for name, parameter in supernet.named_parameters():
        if id(parameter) not in with_gradient:
            assert torch.equal(parameter, before[name]), name


class TestFolders:
    @pytest.mark.parametrize("name", ["BertForMaskedLM", "DistilBertModel", "RobertaForSequenceClassification"])
    def test_a_base_model_in_a_folder(self, name, tmp_path):
        model = stock(name)
        model.save_pretrained(tmp_path / "base")
        before = {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}
        head = next(head for head in reversed(HEADS) if name.endswith(head))
        supernet = HEADS[head].from_base_model(tmp_path / "base")
        batch = batch_for(model)
        with torch.no_grad():
            found, expected = (at_tokens(one(**batch), batch) for one in (supernet, model))
            assert_close({key: found[key] for key in expected}, expected, 1e-6)
        supernet.save_pretrained(tmp_path / "supernet")
        again = load_supernet(tmp_path / "supernet", model_class=None)
        assert type(again) is type(supernet)
        assert again.state_dict().keys() == supernet.state_dict().keys()
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in supernet.state_dict().items())
        assert {file: file.read_bytes() for file in (tmp_path / "base").iterdir()} == before

    def test_a_head_that_the_base_model_lacks_is_new(self, tmp_path):
        model = stock("BertModel")
        model.save_pretrained(tmp_path)
        supernet = SupernetForSequenceClassification.from_base_model(tmp_path)
        batch = batch_for(model)
        with torch.no_grad():
            expected = supernet.classifier(model(**batch).pooler_output)
            assert_close(supernet(**batch).logits, expected, 1e-6)

    def test_a_pooler_that_it_lacks_is_left_out(self, tmp_path):
        transformers.BertModel(stock("BertModel").config, add_pooling_layer=False).save_pretrained(tmp_path)
        supernet = SupernetModel.from_base_model(tmp_path)
        assert supernet.pooler is None
        assert extract_child(supernet, supernet.largest_architecture).pooler is None

    def test_a_base_model_that_lacks_weights_is_refused(self, tmp_path):
        model = stock("BertModel")
        del model.encoder.layer[1]
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 2}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"lacks 16 weights, such as encoder\.layer\.1"):
            SupernetModel.from_base_model(tmp_path)


@pytest.mark.slow
def test_minilm_and_its_narrow_children():
    """A real encoder."""
    folder = packaged_model("all-MiniLM-L6-v2")
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    assert read_sentence_modules(folder) == SentenceModules(("mean",), normalize=True, max_seq_length=256)
    supernet = SupernetModel.from_base_model(folder, kernels=(5,))
    assert supernet.space.blocks[0] == ("attention", "attention9", "attention6", "attention3", "conv5", "norm", "skip")
    widths = ("ffn1152", "ffn896", "ffn768", "ffn640", "ffn384", "ffn192")
    assert supernet.space.blocks[1] == ("ffn", *widths, "norm", "skip")
    batch = padded_batch(model.config.vocab_size)
    real = batch["attention_mask"].bool()
    for architecture in (("attention", "ffn") * 6, ("attention3", "ffn768", "attention6", "ffn384") * 3):
        with torch.no_grad():
            expected = cut(model, architecture, head_size=32)(**batch).last_hidden_state
            states = supernet(**batch, architecture=architecture).last_hidden_state
        assert_close(states[real], expected[real], 1e-6)


class TestRefusals:
    """Every mistake is one line that names the model."""

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (transformers.GPT2Config(), "a 'gpt2', a decoder: its tokens see only those before them; supported are"),
            (transformers.T5Config(), "a 't5', an encoder with a decoder; supported are the encoders bert, distil"),
            (transformers.BertConfig(is_decoder=True), "is a 'bert', a decoder"),
            (transformers.ModernBertConfig(), "a 'modernbert', whose layers are not known to be BERT's"),
            (supernet_of(stock("BertModel")).config, "is a super-net: give the encoder"),
        ],
        ids=lambda value: value.model_type if isinstance(value, transformers.PreTrainedConfig) else "",
    )
    def test_architectures(self, config, message, tmp_path):
        config.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message) as caught:
            SupernetForMaskedLM.from_base_model(tmp_path)
        assert str(caught.value).startswith(f"base model {tmp_path} ")
        assert "\n" not in str(caught.value)

    def test_code_of_its_own(self, tmp_path):
        fields = {"model_type": "own_bert", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        (tmp_path / "own.py").write_text("raise SystemExit('ran')")
        with pytest.raises(
            ValueError, match=r"'own_bert' that comes with code of its own.*trust_remote_code"
        ) as caught:
            SupernetModel.from_base_model(tmp_path)
        assert "\n" not in str(caught.value)
        with pytest.raises(SystemExit, match="ran"):
            SupernetModel.from_base_model(tmp_path, trust_remote_code=True)

    def test_architectures_that_nobody_knows(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
        with pytest.raises(ValueError, match=f"{tmp_path} does not load.*unheard_of") as caught:
            SupernetModel.from_base_model(tmp_path)
        assert "\n" not in str(caught.value)

    def test_folders_without_a_model(self, tmp_path):
        with pytest.raises(OSError, match=str(tmp_path)):
            SupernetModel.from_base_model(tmp_path)

    @pytest.mark.parametrize("name", ["ElectraForMultipleChoice", "ElectraForPreTraining"])
    def test_heads_that_no_child_has(self, name):
        with pytest.raises(ValueError, match=f"the head of a {name} is none that a child has"):
            SupernetForSequenceClassification.from_base_model(stock(name))

    def test_a_child_with_another_head(self):
        child = from_stock(stock("BertForMaskedLM"))
        with pytest.raises(ValueError, match="this base model is a NasBertForMaskedLM, expected a NasBertModel"):
            SupernetModel.from_base_model(child)

    def test_a_child_without_a_super_net(self):
        child = from_stock(stock("BertForMultipleChoice"))
        with pytest.raises(ValueError, match="no super-net with the head of a NasBertForMultipleChoice"):
            elastic_supernet(child, elastic_space(child))

    def test_stages_of_other_widths(self):
        with pytest.raises(ValueError, match="'attention@64' of the base model has a width of its own"):
            elastic_space(random_model(NasBertModel, staged_config()))

    def test_the_super_net_of_another_head(self, tmp_path):
        supernet_of(stock("BertModel")).save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match=f"super-net {tmp_path} is a SupernetModel, expected a SupernetForMaskedLM"
        ):
            load_supernet(tmp_path)


class TestCosts:
    @pytest.mark.parametrize(
        "name", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification", "DistilBertModel"]
    )
    def test_are_those_of_the_child_alone(self, name):
        supernet = supernet_of(stock(name), kernels=(3,))
        cost = cost_function(supernet.config, sequence_length=16, head_parameters=supernet.head_parameters)
        inputs = {"input_ids": torch.zeros(1, 16, dtype=torch.long)}
        for architecture in (FULL, ("attention2", "ffn10", "conv3", "norm"), ("skip", "ffn20", "norm", "skip")):
            child = extract_child(supernet, architecture)
            child.set_attn_implementation("eager")  # of the fused one torch counts nothing here
            found = cost(architecture)
            assert found["num_parameters"] == child.num_parameters()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                child.base_model(**inputs)
            of_the_encoder = flops(supernet.config, architecture, 1, 16, num_predictions=0)
            has_pooler = getattr(child.base_model, "pooler", None) is not None
            assert counter.get_total_flops() == of_the_encoder + 2 * 32 * 32 * has_pooler
            if supernet.head_parameters is not None:
                assert found["flops"] == of_the_encoder

    def test_latency_is_measured_of_every_variant_with_weights_of_its_own(self):
        supernet = supernet_of(stock("BertModel"), kernels=(3,))
        device = Device(batch_size=1, sequence_length=8)
        record, _ = measure_latencies(supernet.config, device, num_visits=2, num_children=2, num_rounds=1)
        table = LatencyTable.from_record(record)
        names = {name for block in supernet.space.blocks for name in block}
        assert set(table.operators_ms) == {name if name == "skip" else f"{name}@32" for name in names}
        base = cost_function(supernet.config, 1, 8, table, supernet.head_parameters)(supernet.largest_architecture)
        budget = Budget.parse(max_latency_ms="0.5x", max_parameters="0.9x").of(base)
        assert budget.caps == {"num_parameters": 0.9 * base["num_parameters"], "latency_ms": 0.5 * base["latency_ms"]}
        assert not budget.admits(base)
        assert supernet.config.weight_layout == "nested"


class TestStockForm:
    """A child of whole layers, with all heads and one inner width, needs no code of ours."""

    @pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
    @pytest.mark.parametrize(
        "architecture", [FULL, ("attention", "ffn10") * 2, ("skip", "skip", "attention", "ffn20")], ids=str
    )
    def test_whole_layers_of_one_width_are_a_stock_bert(self, name, architecture):
        supernet = supernet_of(stock(name))
        child = extract_child(supernet, architecture)
        bert, reason = native_form(child)
        assert reason is None
        assert type(bert).__name__ == name
        assert bert.config.num_hidden_layers == 2 - ("skip" in architecture)
        assert bert.config.intermediate_size == int(architecture[-1].removeprefix("ffn"))
        batch = batch_for(bert)
        with torch.no_grad():
            assert_close(at_tokens(bert(**batch), batch), at_tokens(child(**batch), batch), 1e-6)

    @pytest.mark.parametrize(
        ("architecture", "message"),
        [
            (
                ("attention2", "ffn40") * 2,
                "block 0 (attention2): BERT's attention has as many heads as fill",
            ),
            (("attention", "ffn40", "attention", "ffn10"), "block 3 (ffn10): BERT's layers all have one inner width"),
            (("attention", "ffn40", "skip", "ffn40"), "block 3 (ffn40): BERT alternates attention and ffn"),
            (("attention", "ffn40", "attention", "norm"), "block 3 (norm): BERT has no norm"),
            (("skip",) * 4, "all its blocks are skips"),
        ],
    )
    def test_any_other_is_none_and_says_why(self, architecture, message):
        child = extract_child(supernet_of(stock("BertModel")), architecture)
        assert message in native_form(child)[1]

    def test_all_of_them_are_listed(self):
        supernet = supernet_of(stock("BertModel"), kernels=(3,))
        space = native_children(supernet.space, hidden_size=32, embedding_size=32)
        # Seven widths, and which of the two layers stay; a layer of the first attention and the last ffn is one too.
        assert len(space.children) == 7 * 4
        for child in space.children:
            assert native_form(extract_child(supernet, child))[1] is None
