"""Operators one by one: shapes, sizes, independent references, padding, and the rows asked for by `positions`."""

import pytest
import torch
from tiny.models import KINDS, REAL_KINDS, SIZES, assert_close, chain_config, gradients, randomise_
from torch import nn
from torch.nn import functional
from transformers.masking_utils import create_bidirectional_mask

from hf_nasbert.modeling.geometry_nasbert import geometry
from hf_nasbert.modeling.modeling_nasbert import NasBertBlock
from hf_nasbert.modeling.operators_nasbert import build_operator, take_rows

NUM_TOKENS = 12
LENGTHS = (12, 9, 5)
LEFT = [range(NUM_TOKENS - length, NUM_TOKENS) for length in LENGTHS]
RIGHT = [range(length) for length in LENGTHS]
CONV_KINDS = ("conv3", "conv5", "conv7")

every_kind = pytest.mark.parametrize("kind", KINDS)
both_implementations = pytest.mark.parametrize("implementation", ["eager", "sdpa"])
every_side = pytest.mark.parametrize("real", [RIGHT, LEFT, None], ids=["right", "left", "unpadded"])


def make(name, implementation="sdpa", seed=0, **fields):
    config = chain_config(**fields)
    config._attn_implementation = implementation
    return randomise_(build_operator(config, name), seed).eval()


def make_states(width=SIZES["hidden_size"], seed=0):
    return torch.randn(len(LENGTHS), NUM_TOKENS, width, generator=torch.Generator().manual_seed(seed))


def make_masks(real, implementation="sdpa"):
    """(attention mask as the attention interface wants it, padding mask) of sequences whose real tokens are given."""
    if real is None:
        return None, None
    mask = torch.zeros(len(LENGTHS), NUM_TOKENS, dtype=torch.long)
    for row, tokens in enumerate(real):
        mask[row, list(tokens)] = 1
    config = chain_config()
    config._attn_implementation = implementation
    attention = create_bidirectional_mask(config=config, inputs_embeds=make_states(), attention_mask=mask)
    return attention, mask.bool()[..., None]


# Shapes and sizes


@pytest.mark.parametrize("width", [32, 64, 96])
@every_kind
def test_shapes_and_sizes(kind, width):
    num_parameters = {
        "attention": 4 * (width * width + width) + 2 * width,
        "ffn": (width * 4 * width + 4 * width) + (4 * width * width + width) + 2 * width,
        "norm": 3 * width,
        "skip": 0,
        # Two layers of depth-wise, point-wise, normalisation.
        **{f"conv{k}": 2 * ((k * width + width) + (width * width + width) + 2 * width) for k in (3, 5, 7)},
    }
    assert num_parameters.keys() <= set(KINDS)
    operator = make(kind if kind == "skip" else f"{kind}@{width}")
    states = make_states(width)
    assert operator(states).shape == states.shape
    assert operator(states[:1, :1]).shape == (1, 1, width)
    assert operator(states, positions=torch.tensor([0, 3, 30])).shape == (3, width)
    number = sum(parameter.numel() for parameter in operator.parameters())
    assert number == num_parameters.get(kind, number)  # of one's own nobody has said it


class TestSizes:
    """A size in the name: heads of attention, inner width of ffn."""

    def test_a_narrow_attention_is_the_full_one_whose_other_heads_say_nothing(self):
        full, narrow = make("attention", attention_head_size=8), make("attention3", attention_head_size=8)
        state = full.state_dict()
        for name, tensor in narrow.state_dict().items():
            narrow.state_dict()[name].copy_(state[name][tuple(slice(size) for size in tensor.shape)])
        state["output.dense.weight"][:, 24:] = 0  # what the fourth head writes
        attention, padding = make_masks(RIGHT)
        for rows in (None, torch.tensor([0, 3, 30])):
            asked = (make_states(), attention, padding, rows)
            assert_close(narrow(*asked), full(*asked))

    def test_a_narrow_ffn_is_the_full_one_whose_other_neurons_say_nothing(self):
        full, narrow = make("ffn"), make("ffn9")
        state = full.state_dict()
        for name, tensor in narrow.state_dict().items():
            narrow.state_dict()[name].copy_(state[name][tuple(slice(size) for size in tensor.shape)])
        state["output.dense.weight"][:, 9:] = 0
        assert_close(narrow(make_states()), full(make_states()))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("attention4", "operator 'attention4' is of the full size, whose name is 'attention'"),
            ("ffn128", "operator 'ffn128' is of the full size, whose name is 'ffn'"),
            ("ffn192@48", "operator 'ffn192@48' is of the full size"),
            ("attention0", "unknown operator 'attention0'"),
            ("conv35", "unknown operator 'conv35'"),
            ("skip3", "unknown operator 'skip3'"),
        ],
    )
    def test_one_network_has_one_name(self, name, message):
        with pytest.raises(ValueError, match=message):
            chain_config([name], attention_head_size=8)

    def test_are_what_a_config_counts(self):
        config = chain_config(["attention3", "ffn9"], attention_head_size=8)
        assert (config.num_attention_heads, config.intermediate_size) == (3, 9)


def test_every_kind_is_another_function():
    results = [make(kind)(make_states()) for kind in KINDS]
    for index, result in enumerate(results):
        for other in results[:index]:
            assert (result - other).abs().max() > 0.1


def test_sizes_follow_the_config():
    assert make("ffn", ffn_ratio=3).intermediate.dense.out_features == 3 * 32
    assert len(make("conv5", num_conv_layers=3).layers) == 3
    assert make("attention", attention_head_size=8).self.head_size == 8
    assert make("attention@64").self.head_size == 32
    assert isinstance(make("ffn", hidden_act="relu").intermediate.activation, nn.ReLU)
    assert isinstance(make("conv3", hidden_act="relu").layers[0].activation, nn.ReLU)


@pytest.mark.parametrize("name", ["conv4", "skip@", "attention@33"])
def test_what_cannot_be_built_is_refused(name):
    with pytest.raises(ValueError, match=r"unknown operator|is not an operator name|does not divide"):
        build_operator(chain_config(), name)


# Independent references: what the papers say, written with other code


@both_implementations
@every_side
@pytest.mark.parametrize("head_size", [8, 32])
def test_attention_is_torchs_own(implementation, real, head_size):
    operator, states = make("attention", implementation, attention_head_size=head_size), make_states()
    attention_mask, padding_mask = make_masks(real, implementation)
    inner, output = operator.self, operator.output
    mixed, _ = functional.multi_head_attention_forward(
        *[states.transpose(0, 1)] * 3,
        embed_dim_to_check=32,
        num_heads=32 // head_size,
        in_proj_weight=None,
        q_proj_weight=inner.query.weight,
        k_proj_weight=inner.key.weight,
        v_proj_weight=inner.value.weight,
        use_separate_proj_weight=True,
        in_proj_bias=torch.cat([inner.query.bias, inner.key.bias, inner.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=output.dense.weight,
        out_proj_bias=output.dense.bias,
        training=False,
        key_padding_mask=None if real is None else ~padding_mask[..., 0],
    )
    norm = output.LayerNorm
    expected = functional.layer_norm(states + mixed.transpose(0, 1), (32,), norm.weight, norm.bias, 1e-12)
    assert_close(operator(states, attention_mask, padding_mask), expected, 1e-6)


def test_ffn_is_two_linear_maps():
    operator, states = make("ffn"), make_states()
    first, last, norm = operator.intermediate.dense, operator.output.dense, operator.output.LayerNorm
    inner = states @ first.weight.T + first.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    expected = states + inner @ last.weight.T + last.bias
    expected = (expected - expected.mean(-1, keepdim=True)) / expected.var(-1, unbiased=False, keepdim=True).sqrt()
    assert_close(operator(states), expected * norm.weight + norm.bias, 1e-6)


@pytest.mark.parametrize("num_conv_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", CONV_KINDS)
def test_conv_is_conv1d_over_every_sequence_alone(kind, num_conv_layers):
    """The reference knows neither padding nor channels-last: each sequence is cut to its length first."""
    operator, states = make(kind, num_conv_layers=num_conv_layers), make_states()
    result = operator(states, *make_masks(RIGHT))
    for row, length in enumerate(LENGTHS):
        expected = states[row : row + 1, :length]
        for layer in operator.layers:
            depthwise = nn.Conv1d(32, 32, int(kind[-1]), padding="same", groups=32)
            depthwise.weight = nn.Parameter(layer.depthwise.weight.squeeze(2))
            depthwise.bias = layer.depthwise.bias
            mixed = layer.dense(depthwise(expected.transpose(1, 2)).transpose(1, 2))
            expected = layer.LayerNorm(expected + functional.gelu(mixed))
        assert_close(result[row : row + 1, :length], expected, 1e-6)


@pytest.mark.parametrize("num_conv_layers", [1, 2])
@pytest.mark.parametrize("kind", CONV_KINDS)
def test_conv_sees_exactly_its_neighbourhood(kind, num_conv_layers):
    operator, states = make(kind, num_conv_layers=num_conv_layers), make_states()[:1].requires_grad_()
    token, reach = 6, num_conv_layers * (int(kind[-1]) // 2)
    operator(states)[0, token].square().sum().backward()
    seen = states.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen == [other for other in range(NUM_TOKENS) if abs(other - token) <= reach]


def test_skip_is_the_identity():
    states = make_states()
    assert torch.equal(make("skip")(states, *make_masks(RIGHT)), states)


# Padding


@both_implementations
@pytest.mark.parametrize("real", [RIGHT, LEFT], ids=["right", "left"])
@every_kind
def test_padding_never_changes_a_result(kind, real, implementation):
    operator, states = make(kind, implementation), make_states()
    garbage = states.clone()
    for row, tokens in enumerate(real):
        padding = [token for token in range(NUM_TOKENS) if token not in tokens]
        garbage[row, padding] = 1e3 * make_states(seed=1)[row, padding]
    masks = make_masks(real, implementation)
    padded, dirty = operator(states, *masks), operator(garbage, *masks)
    for row, tokens in enumerate(real):
        alone = operator(states[row : row + 1, list(tokens)])
        assert_close(padded[row : row + 1, list(tokens)], alone, 1e-6)
        assert torch.equal(dirty[row, list(tokens)], padded[row, list(tokens)])


@pytest.mark.parametrize("kind", ["attention", *CONV_KINDS])
def test_padding_that_no_mask_tells_of_does_change_the_result(kind):
    """The sanity check of the test above: these operators do look at their neighbours."""
    operator, states = make(kind), make_states()
    assert (operator(states)[2, :5] - operator(states[2:, :5])[0]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_padding_gets_no_gradient_from_tokens(kind):
    operator, states = make(kind), make_states().requires_grad_()
    attention_mask, padding_mask = make_masks(RIGHT)
    operator(states, attention_mask, padding_mask).square().masked_select(padding_mask).sum().backward()
    assert states.grad.masked_select(~padding_mask).abs().max() == 0
    assert states.grad.masked_select(padding_mask).abs().max() > 0


# `positions`: the same rows for less work


UNEVEN = {
    "uneven": [0, 1, 2, 5, 11, 13, 24, 28],
    "none in the first two": [25, 27, 28],
    "none in the middle": [4, 30],
    "one": [17],
    "all": list(range(3 * NUM_TOKENS)),
}


@both_implementations
@every_side
@pytest.mark.parametrize("positions", UNEVEN.values(), ids=UNEVEN.keys())
@every_kind
def test_rows_are_those_of_the_full_computation(kind, positions, real, implementation):
    operator, positions = make(kind, implementation), torch.tensor(positions)
    masks = make_masks(real, implementation)
    weight = torch.randn(len(positions), 32, generator=torch.Generator().manual_seed(7))
    found = []
    for is_restricted in (True, False):
        states = make_states().requires_grad_()
        if is_restricted:
            rows = operator(states, *masks, positions)
        else:
            rows = operator(states, *masks).flatten(0, 1)[positions]
        operator.zero_grad()
        (rows * weight).sum().backward()
        found.append({"rows": rows, "states": states.grad, **gradients(operator)})
    assert found[0]["rows"].shape == (len(positions), 32)
    assert len(found[0]) == 2 + len(list(operator.parameters()))
    assert_close(found[0]["rows"], found[1]["rows"], 1e-6)
    assert_close(found[0], found[1], 3e-6)


@both_implementations
@every_kind
def test_no_rows(kind, implementation):
    states = make_states()
    none = make(kind, implementation)(states, *make_masks(RIGHT, implementation), torch.tensor([], dtype=torch.long))
    assert none.shape == (0, 32)


@pytest.mark.parametrize("kind", ["attention", "ffn", "conv5"])
def test_rows_that_are_not_asked_for_are_not_computed(kind):
    """The saving: the last linear map sees the asked rows only."""
    operator, seen = make(kind), []
    last = operator.layers[-1].dense if kind == "conv5" else operator.output.dense
    last.register_forward_hook(lambda module, args, output: seen.append(args[0].numel() // args[0].shape[-1]))
    operator(make_states(), positions=torch.tensor([3, 17]))
    assert seen == [2]


def test_attention_scores_only_the_asked_queries():
    operator = make("attention", "eager")
    attention = {}
    operator.self.register_forward_hook(lambda module, args, output: attention.update(weights=output[1]))
    operator(make_states(), positions=torch.tensor([3, 4, 17]))
    assert attention["weights"].shape == (3, 1, 2, NUM_TOKENS)


def test_take_rows():
    states = make_states()
    assert take_rows(states, None) is states
    assert torch.equal(take_rows(states, torch.tensor([1, 14])), torch.stack([states[0, 1], states[1, 2]]))


def test_a_block_between_two_widths_brings_the_same_rows():
    config = chain_config()
    config._attn_implementation = "sdpa"
    block = randomise_(NasBertBlock(config, geometry(["conv3@64"], 32)[0])).eval()
    states, positions = make_states(), torch.tensor(UNEVEN["uneven"])
    masks = make_masks(RIGHT)
    assert_close(block(states, *masks, positions), take_rows(block(states, *masks), positions), 1e-6)


def test_norm_is_all_that_is_left_of_a_sub_layer_whose_output_is_constant():
    norm, ffn = make("norm"), make("ffn")
    ffn.output.dense.weight.data.zero_()
    norm.LayerNorm.load_state_dict(ffn.output.LayerNorm.state_dict())
    norm.bias.data.copy_(ffn.output.dense.bias)
    assert_close(norm(make_states()), ffn(make_states()), 1e-6)


# Training


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_dropout_acts_in_training_only(kind):
    operator = make(kind, hidden_dropout_prob=0.5)
    states = make_states()
    assert torch.equal(operator(states), operator(states))
    operator.train()
    # A constant has nothing to drop.
    assert torch.equal(operator(states), operator(states)) == (kind == "norm")


@both_implementations
def test_attention_dropout_acts_in_training_only(implementation):
    operator = make("attention", implementation, attention_probs_dropout_prob=0.5)
    states = make_states()
    assert torch.equal(operator(states), operator(states))
    operator.train()
    assert not torch.equal(operator(states), operator(states))


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_autocast_is_close_to_full_precision(kind):
    operator, states = make(kind), make_states()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = operator(states, *make_masks(RIGHT))
        rows = operator(states, *make_masks(RIGHT), torch.tensor([0, 3, 14]))
    assert_close(result.float(), operator(states, *make_masks(RIGHT)), 0.05)
    assert_close(rows.float(), result.flatten(0, 1)[[0, 3, 14]].float(), 0.05)


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_every_parameter_matters(kind):
    """Each one, moved alone, changes the result; only the bias of keys shifts all scores of a query alike."""
    operator, states = make(kind), make_states()
    before = operator(states)
    for name, parameter in operator.named_parameters():
        saved = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.linspace(-0.5, 0.5, parameter.numel()).reshape(parameter.shape))
            difference = (operator(states) - before).abs().max()
            parameter.copy_(saved)
        assert (difference < 1e-5) == (name == "self.key.bias"), name
