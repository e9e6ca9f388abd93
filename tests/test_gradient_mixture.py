"""The gradient mixture: one pass of all operators, whose parameters find an operator that was planted."""

import pytest
import torch
from tiny.models import padded_batch, randomise_
from tiny.trainings import TinyBatches

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.modeling_supernet import SupernetModel
from hf_nasbert.pipeline.mixture import Mixture
from hf_nasbert.scoring import score_architectures
from hf_nasbert.searching import GradientMixtureSearch, SearchTask
from hf_nasbert.space import Architecture, SearchSpace

SPACE = SearchSpace.chain(4, ("ffn", "attention", "conv3", "conv7"))
PLANTED = Architecture.parse("conv7-attention-conv3-attention")
DEV = [TinyBatches(8, seed=99).batch(number) for number in range(4)]


def make(space=SPACE, layout="separate", kind=SupernetForMaskedLM, **sizes):
    torch.manual_seed(0)
    config = SupernetConfig(
        search_space=space, hidden_size=32, vocab_size=60, max_position_embeddings=24, weight_layout=layout,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes,
    )  # fmt: skip
    return kind(config)


def weights_of(space, child):
    return [
        torch.tensor([float(name == own) for name in names]) for names, own in zip(space.blocks, child, strict=True)
    ]


@pytest.fixture(scope="module")
def planted():
    """A super-net that was trained on one child alone: all other operators are as they were drawn."""
    supernet = make()
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=5e-3)
    for step in range(40):
        optimizer.zero_grad()
        supernet(**TinyBatches(8).batch(step), architecture=PLANTED).loss.backward()
        optimizer.step()
    return supernet


def found_by(supernet, seed, **settings):
    """The first five children that a search asks for."""
    mixture_steps = settings.get("mixture_steps", 30)
    logits = Mixture(supernet, SPACE).learn(DEV, mixture_steps, 0.1)
    task = SearchTask(SPACE, seed=seed, batch_size=5)
    return GradientMixtureSearch(task, mixture_steps=mixture_steps, logits=logits).ask()


@pytest.mark.slow
def test_a_planted_operator_is_found_by_gradient_and_not_without(planted):
    before = {name: tensor.clone() for name, tensor in planted.state_dict().items()}
    planted.zero_grad(set_to_none=True)
    assert found_by(planted, seed=0)[0] == PLANTED
    for seed in range(5):
        assert PLANTED not in found_by(planted, seed=seed, mixture_steps=0)
    losses = score_architectures(planted, [PLANTED, Architecture.parse("ffn-ffn-ffn-ffn")], DEV)
    assert losses[0] < losses[1] - 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in planted.state_dict().items())
    assert planted.training
    assert all(parameter.grad is None for parameter in planted.parameters())
    first, second = (Mixture(planted, SPACE).learn(DEV, 3, 0.1) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("layout", ["separate", "nested", "entangled"])
def test_all_the_weight_on_one_child_is_that_child(layout):
    space = SearchSpace.chain(
        3, ("attention", "attention1", "ffn40", "ffn", "conv3", "conv7", "norm", "skip"), "anywhere"
    )
    supernet = randomise_(make(space, layout, attention_head_size=16), 1).eval()
    batch = padded_batch() | {"labels": torch.full((3, 11), 3)}
    mixture = Mixture(supernet, space)
    for text in ("attention1-ffn40-conv3", "conv7-skip-attention", "norm-conv3-ffn"):
        child = Architecture.parse(text)
        with torch.no_grad():
            found = mixture.loss(batch, weights_of(space, child))
            assert float(found) == pytest.approx(float(supernet(**batch, architecture=child).loss), rel=1e-5)
    per_block = {"separate": 8, "nested": 6, "entangled": 5}[layout]  # heads, neurons, taps run as one
    assert mixture.passes == 3 * per_block


def test_slices_are_mixed_in_weight_space():
    """W = sum_i w_i pad(W_i): one convolution, whose outer taps have the share of the larger kernel alone."""
    space = SearchSpace.chain(1, ("conv3", "conv7"))
    supernet = randomise_(make(space, "entangled"), 1).eval()
    mixture, shares = Mixture(supernet, space), torch.tensor([0.75, 0.25])
    layout = supernet.nasbert.encoder.blocks[0].operators
    small, large = layout.state_of("conv3"), layout.state_of("conv7")
    by_hand = {
        path: 0.75 * small[path] + 0.25 * large[path] for path in large if small[path].shape == large[path].shape
    }
    for depth in range(supernet.config.num_conv_layers):
        kernel = 0.25 * large[f"layers.{depth}.depthwise.weight"]
        kernel[..., 2:5] += 0.75 * small[f"layers.{depth}.depthwise.weight"]
        by_hand[f"layers.{depth}.depthwise.weight"] = kernel
    batch = padded_batch() | {"labels": torch.full((3, 11), 3)}
    with torch.no_grad():
        found = float(mixture.loss(batch, [shares]))
        layout.load_state_of("conv7", by_hand)
        assert found == pytest.approx(float(supernet(**batch, architecture=("conv7",)).loss), rel=1e-5)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"kind": SupernetModel}, "needs a super-net with a head that predicts words"),
        ({"space": SearchSpace.staged(1, 2, ("ffn", "conv3"), widths=(32,))}, "here stages have widths"),
        ({"layout": "experts"}, "not so with copies of the super-net, or weight_layout=experts"),
    ],
)
def test_what_cannot_be_mixed_is_refused(made, words):
    supernet = make(**made)
    with pytest.raises(ValueError, match=words):
        Mixture(supernet, supernet.space)


def test_parameters_of_another_space_are_refused():
    logits = [dict.fromkeys(names, 0.5) for names in SPACE.blocks]
    with pytest.raises(ValueError, match="not those of the operators of this space"):
        GradientMixtureSearch(SearchTask(SPACE, seed=0), logits=logits[1:])
