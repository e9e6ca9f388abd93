"""Super-nets: an architecture is an argument and never state; a child's forward is a walk through its operators."""

import copy
import difflib
import inspect
import itertools
import random
import re

import pytest
import torch
from helpers import mostly_slow
from tiny.models import (
    CHECKPOINTING,
    KINDS,
    SIZES,
    SUPERNET_CONFIGS,
    VOCAB_SIZE,
    assert_close,
    assert_equal_states,
    chain_supernet_config,
    gradients,
    mlm_labels,
    random_model,
    randomise_,
    staged_supernet_config,
    tiny_batch,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    Trainer,
    TrainingArguments,
    default_data_collator,
)
from transformers.utils.generic import find_labels

from hf_nasbert.modeling import (
    TOKENWISE_KINDS,
    NasBertConfig,
    NasBertForMaskedLM,
    NasBertModel,
    SupernetConfig,
    SupernetForMaskedLM,
    SupernetModel,
    last_mixing_block,
    modeling_supernet,
)
from hf_nasbert.space import SKIP, Architecture, SearchSpace, Stage

every_shape = pytest.mark.parametrize("make_config", SUPERNET_CONFIGS.values(), ids=SUPERNET_CONFIGS.keys())
mostly_chains = pytest.mark.parametrize(
    "make_config", mostly_slow(SUPERNET_CONFIGS.values(), len(SUPERNET_CONFIGS)), ids=SUPERNET_CONFIGS.keys()
)


def children_of(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.sample(rng, "children") for _ in range(count)]


def make_supernet(make_config=chain_supernet_config, seed=0, **fields) -> SupernetForMaskedLM:
    return random_model(SupernetForMaskedLM, make_config(**fields), seed)


def owned_names(supernet: SupernetForMaskedLM, architecture) -> set[str]:
    """The names of the parameters a child should own, read off the names alone."""
    config = supernet.config
    names = set()
    for name, _ in supernet.named_parameters():
        block = re.match(r"nasbert\.encoder\.blocks\.(\d+)\.(\w+)\.([\w@]+)\.", name)
        if block is None:  # embeddings and head belong to every child
            names.add(name)
            continue
        index, what, key = int(block[1]), block[2], block[3]
        stage = config.space.stage_slices[config.space.stage_of(index)]
        width = architecture[stage.start].partition("@")[2]
        if key == (architecture[index] if what == "operators" else width):
            names.add(name)
    return names


def train_step(supernet, optimizer, architecture, batch):
    optimizer.zero_grad(set_to_none=True)
    supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
    optimizer.step()


# Which child runs


@every_shape
def test_children_are_different_networks(make_config):
    supernet, batch = make_supernet(make_config), tiny_batch()
    children = list(supernet.space.enumerate())[:: 40 if make_config is chain_supernet_config else 13]
    logits = [supernet(**batch, architecture=child).logits for child in children]
    assert len(children) > 3
    for index, result in enumerate(logits):
        for other in logits[:index]:
            assert (result - other).abs().max() > 1e-2


@every_shape
def test_the_architecture_is_never_state(make_config):
    supernet, batch = make_supernet(make_config), tiny_batch()
    largest, default = supernet.largest_architecture, supernet(**batch).logits
    first, second = children_of(supernet.space, 2)
    results = [supernet(**batch, architecture=child).logits for child in (first, second, first, second)]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])
    # Nor does the default remember what ran before it.
    assert supernet.largest_architecture == largest
    assert torch.equal(supernet(**batch).logits, default)
    assert torch.equal(supernet(**batch, architecture=largest).logits, default)


@pytest.mark.parametrize("as_type", [tuple, list, Architecture])
def test_any_sequence_of_names_is_an_architecture(as_type):
    supernet, batch = make_supernet(), tiny_batch()
    architecture = ("conv3", "attention", "skip")
    expected = supernet(**batch, architecture=Architecture(architecture)).logits
    assert torch.equal(supernet(**batch, architecture=as_type(architecture)).logits, expected)


@pytest.mark.parametrize(
    ("make_config", "architecture", "message"),
    [
        (
            chain_supernet_config,
            ("ffn", "lstm", "ffn"),
            "choice block 1 has no operator 'lstm' .*attention, ffn, conv3",
        ),
        (
            chain_supernet_config,
            ("ffn", "skip", "ffn"),
            "choice block 1 holds 'skip' before 'ffn' .*skip stands at the end",
        ),
        (chain_supernet_config, ("skip", "skip", "skip"), "blocks 0 to 2 hold 'skip' only .*needs a real operator"),
        (chain_supernet_config, ("ffn", "ffn"), "names 2 operators, the space has 3 choice blocks"),
        (staged_supernet_config, ("ffn@32", "ffn@64", "ffn@32", "skip"), "block 1 holds 'ffn@64' .*share one width"),
        (staged_supernet_config, ("ffn", "ffn", "ffn", "ffn"), "block 0 has no operator 'ffn' .*ffn@32"),
        (chain_supernet_config, "ffn-ffn", "names 2 operators, the space has 3 choice blocks"),
    ],
)
def test_an_impossible_architecture_is_refused(make_config, architecture, message):
    supernet, batch = make_supernet(make_config), tiny_batch()
    with pytest.raises(ValueError, match=message):
        supernet(**batch, architecture=architecture)
    with pytest.raises(ValueError, match=message):
        supernet.parameters_of(architecture)


def test_an_architecture_may_be_text():
    supernet, batch = make_supernet(chain_supernet_config).eval(), tiny_batch()
    expected = supernet(**batch, architecture=("ffn", "attention", "skip")).logits
    assert torch.equal(supernet(**batch, architecture="ffn-attention-skip").logits, expected)


def test_the_default_is_documented():
    assert re.search(r"without one the largest child runs", inspect.getdoc(SupernetForMaskedLM))


@mostly_chains
def test_the_default_is_the_largest_child(make_config):
    supernet = make_supernet(make_config)

    def size(architecture):
        return sum(parameter.numel() for parameter in supernet.parameters_of(architecture))

    assert size(supernet.largest_architecture) == max(map(size, supernet.space.enumerate()))
    assert supernet.largest_architecture in supernet.space


def test_the_largest_child_counts_projections_and_takes_the_first_of_equals():
    # Width 32 needs no projections to the hidden size of 32; conv7 at 48 is larger than at 32, with and without them.
    stages = (Stage((("conv3", "conv7"), ("conv7", SKIP)), (32, 48)), Stage((("ffn", "skip"),)))
    supernet = SupernetForMaskedLM(SupernetConfig(search_space=SearchSpace(stages), **SIZES))
    assert supernet.largest_architecture == ("conv7@48", "conv7@48", "ffn")
    twins = SearchSpace((Stage((("attention", "conv3"),), (32,)), Stage((("conv5",), ("skip", "conv3", "ffn")))))
    assert SupernetModel(SupernetConfig(search_space=twins, **SIZES)).encoder.largest_architecture == (
        "attention@32",
        "conv5",
        "ffn",
    )


def test_blocks_may_hold_different_candidates():
    space = SearchSpace((Stage((("attention", "ffn"), ("conv3",), ("conv5", "skip"))),))
    supernet = random_model(SupernetForMaskedLM, SupernetConfig(search_space=space, **SIZES))
    assert [block.operators.candidates for block in supernet.nasbert.encoder.blocks] == list(space.blocks)
    for architecture in space.enumerate():
        assert supernet(**tiny_batch(), architecture=architecture).logits.isfinite().all()


# What a child owns, and what it leaves alone


@every_shape
def test_off_path_operators_get_no_gradient(make_config):
    supernet, batch = make_supernet(make_config).train(), tiny_batch()
    for architecture in children_of(supernet.space, 10):
        supernet.zero_grad(set_to_none=True)
        supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
        found = gradients(supernet)
        assert found.keys() == owned_names(supernet, architecture)
        assert {id(p) for p in supernet.parameters_of(architecture)} == {
            id(parameter) for parameter in supernet.parameters() if parameter.grad is not None
        }
        # Only the bias of keys has none by mathematics: softmax does not see what shifts all of a query's scores.
        for name, gradient in found.items():
            assert name.endswith("key.bias") or gradient.abs().max() > 0, name


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
@every_shape
def test_parameters_of_names_each_once(make_config, tied):
    supernet, batch = make_supernet(make_config, tie_word_embeddings=tied), tiny_batch()
    for architecture in children_of(supernet.space, 5):
        parameters = supernet.parameters_of(architecture)
        assert len({id(parameter) for parameter in parameters}) == len(parameters)
        names = {id(parameter): name for name, parameter in supernet.named_parameters()}
        assert {names[id(parameter)] for parameter in parameters} == owned_names(supernet, architecture)
        supernet.zero_grad(set_to_none=True)
        supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
        assert gradients(supernet).keys() == owned_names(supernet, architecture)
    everything = {id(p) for child in supernet.space.enumerate() for p in supernet.parameters_of(child)}
    assert everything == {id(parameter) for parameter in supernet.parameters()}


@every_shape
def test_off_path_operators_are_not_moved(make_config):
    """AdamW with weight decay and momentum: neither weights nor moments nor step counts of what did not run."""
    supernet, batch = make_supernet(make_config).train(), tiny_batch()
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=0.01, weight_decay=0.1)
    names = {parameter: name for name, parameter in supernet.named_parameters()}
    last = {}
    for architecture in children_of(supernet.space, 6, seed=3):
        before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
        train_step(supernet, optimizer, architecture, batch)
        owned = owned_names(supernet, architecture)
        for name, parameter in supernet.named_parameters():
            if not name.endswith("key.bias"):
                assert torch.equal(parameter, before[name]) == (name not in owned), name
        state = {names[parameter]: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
        assert state.keys() == last.keys() | owned
        for name in last.keys() - owned:
            assert all(torch.equal(state[name][key], value) for key, value in last[name].items()), name
        last = state
    assert len({int(state["step"]) for state in last.values()}) > 1, "the children above were all the same"


def test_off_path_operators_cost_no_time():
    supernet, batch, called = make_supernet(), tiny_batch(), []
    for name, module in supernet.named_modules():
        if re.search(r"operators\.\w+$", name):
            module.register_forward_hook(lambda module, args, output, name=name: called.append(name.split(".", 3)[-1]))
    supernet(**batch, architecture=("conv5", "attention", "skip"))
    assert called == ["0.operators.conv5", "1.operators.attention", "2.operators.skip"]


# Walking by hand


@every_shape
@pytest.mark.parametrize("labelled", [False, True])
def test_forward_is_a_walk_by_hand(make_config, labelled):
    supernet, batch = make_supernet(make_config), tiny_batch()
    labels = mlm_labels(batch) if labelled else None
    positions = (labels.flatten() != -100).nonzero().squeeze(-1) if labelled else None
    encoder = supernet.nasbert
    for architecture in children_of(supernet.space, 8):
        hidden_states, masks = encoder.embed(**batch)
        last, states = last_mixing_block(architecture), [hidden_states]
        for index, operator in enumerate(architecture):
            rows = positions if index == last else None
            states.append(encoder.run_block(index, operator, states[-1], masks, positions=rows))
        output = supernet(**batch, labels=labels, architecture=architecture, output_hidden_states=True)
        assert torch.equal(output.logits, supernet.lm_head(states[-1]))
        assert all(map(torch.equal, output.hidden_states, states))
        assert len(output.hidden_states) == len(states) == len(architecture) + 1


@every_shape
def test_the_last_blocks_compute_only_what_is_read(make_config):
    supernet, batch = make_supernet(make_config), tiny_batch()
    labels = mlm_labels(batch)
    mask = labels != -100
    for architecture in children_of(supernet.space, 12):
        sparse = supernet(**batch, labels=labels, architecture=architecture, output_hidden_states=True)
        dense = supernet(**batch, architecture=architecture, output_hidden_states=True)
        last = last_mixing_block(architecture)
        assert {name.partition("@")[0] for name in architecture[last + 1 :]} <= set(TOKENWISE_KINDS)
        for block, (few, all_) in enumerate(zip(sparse.hidden_states, dense.hidden_states, strict=True)):
            assert_close(few, all_[mask] if block > last else all_, 1e-6)
            assert few.dim() == (2 if block > last else 3)
        assert sparse.logits.shape == (mask.sum(), VOCAB_SIZE)
        assert_close(sparse.logits, dense.logits[mask], 1e-6)
        assert_close(sparse.loss, torch.nn.functional.cross_entropy(dense.logits[mask], labels[mask]), 1e-6)


@mostly_chains
def test_sparse_prediction_has_the_same_gradients(make_config):
    batch = tiny_batch()
    for architecture in children_of(make_config().space, 6):
        found = []
        for sparse in (True, False):
            supernet = make_supernet(make_config, sparse_prediction=sparse).train()
            loss = supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss
            loss.backward()
            found.append({"loss": loss.detach(), **gradients(supernet)})
        assert_close(found[0], found[1], 1e-5)


def test_the_decoder_takes_any_leading_axes():
    supernet = make_supernet(staged_supernet_config)
    states = torch.randn(2, 3, 5, 32)
    assert supernet.lm_head(states).shape == (2, 3, 5, VOCAB_SIZE)
    assert_close(supernet.lm_head(states)[1, 2], supernet.lm_head(states[1, 2]), 1e-6)


# Stages and widths


def test_hidden_states_have_their_stages_width():
    supernet = make_supernet(staged_supernet_config)
    architecture = ("conv3@64", "skip", "ffn@32", "attention@32")
    states = supernet(**tiny_batch(), architecture=architecture, output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [32, 64, 32, 32, 32]
    architecture = ("conv3@64", "attention@64", "ffn@64", "skip")
    states = supernet(**tiny_batch(), architecture=architecture, output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [32, 64, 32, 64, 32]


def test_projections_stand_at_the_borders_of_other_widths_only():
    blocks = make_supernet(staged_supernet_config).nasbert.encoder.blocks
    assert [list(block.input_projections) for block in blocks] == [["64"], [], ["64"], []]
    assert [list(block.output_projections) for block in blocks] == [[], ["64"], [], ["64"]]
    assert (blocks[0].input_projections["64"].in_features, blocks[0].input_projections["64"].out_features) == (32, 64)
    assert (blocks[1].output_projections["64"].in_features, blocks[1].output_projections["64"].out_features) == (
        64,
        32,
    )
    for block in make_supernet().nasbert.encoder.blocks:
        assert not block.input_projections
        assert not block.output_projections


def test_projections_are_applied():
    supernet = make_supernet(staged_supernet_config)
    encoder, batch = supernet.nasbert, tiny_batch()
    hidden_states, masks = encoder.embed(**batch)
    first, second = encoder.encoder.blocks[:2]
    inner = first.operators["ffn@64"](first.input_projections["64"](hidden_states), *masks)
    assert torch.equal(encoder.run_block(0, "ffn@64", hidden_states, masks), inner)
    assert torch.equal(encoder.run_block(1, "skip", inner, masks), second.output_projections["64"](inner))
    outer = second.output_projections["64"](second.operators["conv3@64"](inner, *masks))
    assert torch.equal(encoder.run_block(1, "conv3@64", inner, masks), outer)


# Super-net and child are made of the same modules


@every_shape
def test_a_child_of_the_same_operators_has_the_same_parameters(make_config):
    """One definition of every operator: by shape and in order, a child owns what `parameters_of` says."""
    supernet = make_supernet(make_config)
    space = supernet.space
    for architecture in children_of(space, 10):
        lengths = [stage.num_blocks for stage in space.stages]
        fields = {name: getattr(supernet.config, name) for name in (*SIZES, "embedding_size")}
        child = NasBertForMaskedLM(NasBertConfig(operators=architecture, stage_lengths=lengths, **fields))
        mine = sorted(tuple(parameter.shape) for parameter in child.parameters())
        assert mine == sorted(tuple(parameter.shape) for parameter in supernet.parameters_of(architecture))


@every_shape
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_changes_a_result(make_config, side):
    supernet, batch = make_supernet(make_config), tiny_batch(padding_side=side)
    mask = batch["attention_mask"].bool()
    for architecture in children_of(supernet.space, 8):
        padded = supernet(**batch, architecture=architecture).logits
        for row in range(3):
            real = mask[row]
            ids, segments = batch["input_ids"][row, real], batch["token_type_ids"][row, real]
            alone = supernet(ids[None], token_type_ids=segments[None], architecture=architecture).logits
            assert_close(padded[row, real], alone[0], 1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_scoring_rows_of_padded_batches(implementation):
    """What scoring does: the last block at the labelled positions, under each attention implementation."""
    supernet, batch = make_supernet(), tiny_batch()
    supernet.set_attn_implementation(implementation)
    hidden_states, masks = supernet.nasbert.embed(**batch)
    positions = torch.tensor([0, 4, 11, 25])
    for kind in KINDS:
        rows = supernet.nasbert.run_block(2, kind, hidden_states, masks, positions=positions)
        full = supernet.nasbert.run_block(2, kind, hidden_states, masks)
        assert_close(rows, full.flatten(0, 1)[positions], 1e-6)


# Training


@pytest.mark.parametrize("use_reentrant", [False, True])
@every_shape
def test_activation_checkpointing_of_sampled_children(make_config, use_reentrant):
    batch, found = tiny_batch(), []
    for is_checkpointing in (False, True):
        supernet = make_supernet(make_config).train()
        if is_checkpointing:
            getattr(supernet, f"{CHECKPOINTING}_enable")({"use_reentrant": use_reentrant})
        states = []
        for architecture in children_of(supernet.space, 4):
            supernet.zero_grad(set_to_none=True)
            supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
            states.append(gradients(supernet))
        found.append(states)
    for plain, checkpointed in zip(*found, strict=True):
        assert plain.keys() == checkpointed.keys()
        assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_children_accumulate_into_one_step():
    """Several children per step, as fair sampling has them: gradients add up over the operators they share."""
    supernet, batch = make_supernet().train(), tiny_batch()
    children = [("ffn", "conv3", "attention"), ("ffn", "attention", "skip")]
    alone = []
    for architecture in children:
        supernet.zero_grad(set_to_none=True)
        supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
        alone.append(gradients(supernet))
    supernet.zero_grad(set_to_none=True)
    for architecture in children:
        supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.backward()
    together = gradients(supernet)
    assert together.keys() == alone[0].keys() | alone[1].keys()
    for name, gradient in together.items():
        assert_close(gradient, sum(found[name] for found in alone if name in found), 1e-6)


@pytest.mark.slow
def test_a_supernet_learns():
    torch.manual_seed(0)
    supernet, batch = SupernetForMaskedLM(chain_supernet_config()), tiny_batch()
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=3e-3)
    losses = []
    for architecture in children_of(supernet.space, 60):
        train_step(supernet, optimizer, architecture, batch)
        losses.append(supernet(**batch, labels=mlm_labels(batch), architecture=architecture).loss.item())
    assert losses[-1] < 0.2 * losses[0]


# Loading


@every_shape
def test_a_loaded_supernet_has_every_child(make_config, tmp_path):
    supernet, batch = make_supernet(make_config), tiny_batch()
    supernet.save_pretrained(tmp_path)
    loaded, info = SupernetForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_equal_states(loaded, supernet)
    assert loaded.space == supernet.space
    assert loaded.largest_architecture == supernet.largest_architecture
    for architecture in children_of(supernet.space, 10):
        expected = supernet(**batch, architecture=architecture).logits
        assert torch.equal(loaded(**batch, architecture=architecture).logits, expected)


def test_auto_classes_know_supernets(tmp_path):
    make_supernet().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is SupernetConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is SupernetModel
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path)) is SupernetForMaskedLM
    assert SupernetForMaskedLM._auto_class is SupernetModel._auto_class is None


def test_a_supernet_is_no_child(tmp_path):
    make_supernet().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="NasBertConfig is of model_type 'nasbert', this config of 'nasbert_supernet'"
    ):
        NasBertForMaskedLM.from_pretrained(tmp_path)


def test_no_split_modules_exist():
    names = {type(module).__name__ for module in make_supernet().modules()}
    assert set(SupernetForMaskedLM._no_split_modules) <= names
    assert "ChoiceBlock" in SupernetForMaskedLM._no_split_modules


def test_deepcopy_runs_alone():
    supernet, batch = make_supernet(), tiny_batch()
    duplicate = copy.deepcopy(supernet)
    before = supernet(**batch).logits
    randomise_(duplicate, seed=5)
    assert torch.equal(supernet(**batch).logits, before)
    assert duplicate.space == supernet.space


@pytest.mark.parametrize(
    ("model_class", "child_class"), [(SupernetModel, NasBertModel), (SupernetForMaskedLM, NasBertForMaskedLM)]
)
def test_forward_names_the_architecture_behind_the_arguments_of_a_child(model_class, child_class):
    """For editors and `help`; what `Trainer` reads there is what it reads of a child."""
    names = [*inspect.signature(model_class.forward).parameters]
    of_child = [*inspect.signature(child_class.forward).parameters]
    assert names == [*of_child[:-1], "architecture", of_child[-1]]
    assert find_labels(model_class) == find_labels(child_class)


@pytest.mark.parametrize("keyword", ["arch", "architectur", "architectures", "Architecture", "child", "labels"])
def test_a_misspelt_keyword_does_not_silently_run_the_largest_child(keyword):
    supernet = make_supernet()
    for model in (supernet.nasbert,) if keyword == "labels" else (supernet, supernet.nasbert):
        with pytest.raises(TypeError, match=f"no argument {keyword}; the child is `architecture`"):
            model(tiny_batch()["input_ids"], **{keyword: supernet.largest_architecture})


def test_no_keyword_that_is_taken_looks_like_architecture():
    assert not difflib.get_close_matches("architecture", modeling_supernet._KEYWORDS)


@pytest.mark.parametrize(
    "keywords",
    [
        {"use_cache": False},
        {"use_cache": True, "past_key_values": None, "cache_position": torch.arange(12)},
        {"output_hidden_states": False, "output_attentions": None, "output_router_logits": False},
        {"num_items_in_batch": torch.tensor(3), "is_causal": False, "seq_idx": None},
        {"encoder_hidden_states": None, "encoder_attention_mask": None, "logits_to_keep": 0},
        {"return_dict": True, "output_scores": False},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_keywords_of_transformers_change_nothing(keywords):
    supernet, batch = make_supernet(), tiny_batch()
    assert torch.equal(supernet(**batch, **keywords).logits, supernet(**batch).logits)
    encoder = supernet.nasbert
    assert torch.equal(encoder(**batch, **keywords).last_hidden_state, encoder(**batch).last_hidden_state)


@pytest.mark.parametrize("value", [False, True])
def test_what_a_config_tells_a_forward_changes_nothing(value):
    """transformers' decorators hand on what a config holds, and its Trainer sets `use_cache` there."""
    supernet, batch = make_supernet(), tiny_batch()
    before = supernet(**batch).logits
    supernet.config.use_cache = value
    supernet.config.vision_feature_layer = 1
    assert torch.equal(supernet(**batch).logits, before)


class OneChildABatch:
    """Collates rows, and names the child of the batch, the next one each time."""

    def __init__(self, children):
        self.children = itertools.cycle(children)

    def __call__(self, rows):
        batch = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
        return batch | {"architecture": list(next(self.children))}


@pytest.mark.usefixtures("quiet_trainer")
@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "gradient-checkpointing"]
)
@pytest.mark.parametrize("children", [None, (("attention", "conv3", "skip"), ("conv3", "attention", "ffn"))])
def test_trainer_trains_a_supernet(children, checkpointing, tmp_path):
    """The child named in the batch, or the largest; nothing else moves; evaluated, saved, resumed."""
    tokens = tiny_batch((12, 12, 12))["input_ids"]
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in (*tokens, *tokens, *tokens)]

    def trainer(folder, num_steps, **changes):
        settings = TrainingArguments(
            tmp_path / folder, max_steps=num_steps, per_device_train_batch_size=3, learning_rate=5e-3,
            weight_decay=0.1,
            lr_scheduler_type="constant", logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
            **{CHECKPOINTING: checkpointing}, **changes,
        )  # fmt: skip
        collator = default_data_collator if children is None else OneChildABatch(children)
        return Trainer(make_supernet(), settings, collator, rows, rows)

    whole = trainer("whole", 8, save_steps=4)
    supernet, before = whole.model, copy.deepcopy(whole.model.state_dict())
    owned = set().union(*(owned_names(supernet, child) for child in children or [supernet.largest_architecture]))
    first = whole.evaluate()["eval_loss"]
    whole.train()
    assert whole.evaluate()["eval_loss"] < 0.8 * first  # 4 steps of either child
    moved = {name for name, value in supernet.named_parameters() if not torch.equal(value, before[name])}
    assert moved == owned - {name for name in owned if name.endswith("key.bias") and name not in moved}
    assert {name for name, _ in supernet.named_parameters()} > owned

    resumed = trainer("resumed", 8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    whole.save_model(tmp_path / "saved")
    assert_equal_states(resumed.model, supernet)
    assert_equal_states(SupernetForMaskedLM.from_pretrained(tmp_path / "saved"), supernet)
