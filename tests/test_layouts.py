"""Weight layouts: old files load; another layout than today's passes through everything that asks for weights."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny.models import SPACES, logits_of, padded_batch, randomise_, tiny_supernet
from torch import nn

from hf_nasbert.costs import num_parameters
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.interference import operator_gradients
from hf_nasbert.modeling.geometry_nasbert import parse_operator
from hf_nasbert.modeling.layout_names import LAYOUT_NAMES, known_layouts
from hf_nasbert.modeling.layouts import LAYOUTS, WeightLayout
from hf_nasbert.modeling.operators_nasbert import build_operator
from hf_nasbert.scoring import score_architectures
from hf_nasbert.training.step import compile_operators

OLD = Path(__file__).parent / "data" / "supernet-0.1"


def test_a_super_net_of_version_0_1_loads_with_equal_logits():
    """The folder was written before operators had layouts and names had sizes."""
    supernet = load_supernet(OLD).eval()
    for name, expected in load_file(OLD / "logits.safetensors").items():
        architecture = None if name == "largest" else name.split("-")
        found = logits_of(supernet, padded_batch(16), architecture=architecture)
        assert torch.allclose(found, expected, atol=1e-6, rtol=0), name


class NestedWeights(WeightLayout):
    """Operators of one kind are nested slices of one: the smallest is the first part of all others.

    What makes an operator longer than the next smaller one is a parameter of its own.
    """

    def __init__(self, config, candidates):
        super().__init__()
        self.candidates = tuple(candidates)
        self.built = {name: build_operator(config, name) for name in candidates}  # in a dictionary: no submodules
        self.parts = nn.ParameterDict()
        self.chains: dict[str, list[str]] = {}
        for name in sorted(candidates, key=lambda name: sum(p.numel() for p in self.built[name].parameters())):
            operator = parse_operator(name)
            self.chains.setdefault(f"{operator.kind}@{operator.width}", []).append(name)
        for names in self.chains.values():
            for place, name in enumerate(names):
                for weight, tensor in self.built[name].named_parameters():
                    done = self.length(names[place - 1], weight) if place else 0
                    along = self.axis(weight)
                    missing = tensor.narrow(along, done, tensor.shape[along] - done)
                    if missing.numel():
                        self.parts[f"{name} {weight}".replace(".", ":")] = nn.Parameter(missing.detach().clone())

    @staticmethod
    def axis(weight):
        """The axis along which sizes differ: what an output projection reads, what all others write."""
        return 1 if weight == "output.dense.weight" else 0

    def length(self, name, weight):
        return self.built[name].get_parameter(weight).shape[self.axis(weight)]

    def chain(self, name):
        names = next(names for names in self.chains.values() if name in names)
        return names[: names.index(name) + 1]

    def weights(self, name):
        found = {}
        for weight, _ in self.built[name].named_parameters():
            keys = [f"{part} {weight}".replace(".", ":") for part in self.chain(name)]
            found[weight] = torch.cat([self.parts[key] for key in keys if key in self.parts], self.axis(weight))
        return found

    def forward(self, name, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        self.built[name].train(self.training)
        arguments = (hidden_states, attention_mask, padding_mask, positions)
        return torch.func.functional_call(self.built[name], self.weights(name), arguments, kwargs)

    def state_of(self, name):
        return {weight: tensor.detach() for weight, tensor in self.weights(name).items()}

    def parameters_of(self, name):
        keys = (tuple(f"{part} " for part in self.chain(name)),)
        return [parameter for key, parameter in self.parts.items() if key.startswith(*keys)]

    def modules_of(self, name):
        return [self, self.built[name]]

    def units(self):
        return []


@pytest.fixture
def nested(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "nested", NestedWeights)
    return randomise_(tiny_supernet("sized", weight_layout="nested"), 1).eval()


def children(count):
    rng = random.Random(0)
    return [SPACES["sized"].sample(rng) for _ in range(count)]


@pytest.mark.parametrize("layout", ["separate", "nested"])
def test_a_layout_tells_what_an_operator_is_made_of(layout, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "nested", NestedWeights)
    supernet = randomise_(tiny_supernet("sized", weight_layout=layout), 1).eval()
    operators = supernet.nasbert.encoder.blocks[1].operators
    assert operators.candidates == SPACES["sized"].blocks[1]
    ran = []
    for module in operators.modules():
        module.register_forward_hook(lambda module, *_: ran.append(module))
    positions = torch.tensor([1, 4, 6])
    for name in operators.candidates:
        states = torch.randn(2, 5, parse_operator(name).width or 64, generator=torch.Generator().manual_seed(0))
        built = build_operator(supernet.config, name).eval()
        built.load_state_dict(operators.state_of(name), strict=True)
        ran.clear()
        operators.zero_grad()
        found = operators(name, states, positions=positions)
        assert torch.equal(found, built(states, positions=positions))
        assert {id(unit) for unit in operators.units()} & {id(module) for module in ran} <= {
            id(module) for module in operators.modules_of(name)
        }
        assert layout == "nested" or [unit for unit in operators.units() if unit in ran] == operators.modules_of(name)
        if operators.parameters_of(name):
            found.square().sum().backward()
        used = {id(parameter) for parameter in operators.parameters() if parameter.grad is not None}
        assert used == {id(parameter) for parameter in operators.parameters_of(name)}
        assert operators.size_of(name) == sum(parameter.numel() for parameter in built.parameters())


class TestAnotherLayout:
    def test_shares_weights(self, nested):
        separate = tiny_supernet("sized")
        assert nested.num_parameters() < separate.num_parameters()
        assert nested.largest_architecture == separate.largest_architecture

    def test_is_extracted_with_equal_logits(self, nested):
        for architecture in children(8):
            child = extract_child(nested, architecture)
            assert prove_equal_logits(nested, architecture, child) == 0
            assert child.num_parameters() == num_parameters(nested.config, architecture)

    def test_is_scored_as_its_children_are_alone(self, nested):
        batch = padded_batch() | {"labels": torch.full((3, 11), -100)}
        batch["labels"][:, 5] = 3
        found = score_architectures(nested, children(8), [batch])
        for architecture, loss in zip(children(8), found, strict=True):
            with torch.no_grad():
                alone = extract_child(nested, architecture)(**batch).loss
            assert loss == pytest.approx(float(alone), rel=1e-5)

    def test_a_step_moves_the_slice_in_use_and_nothing_else(self, nested):
        architecture = ("attention1@64", "ffn40@64", "ffn@96", "skip")
        nested(**padded_batch(), architecture=architecture).logits.square().mean().backward()
        moved = {id(parameter) for parameter in nested.parameters() if parameter.grad is not None}
        assert moved == {id(parameter) for parameter in nested.parameters_of(architecture)}
        parts = nested.nasbert.encoder.blocks[0].operators.parts
        assert all((part.grad is None) == ("attention1@64" not in key) for key, part in parts.items())

    def test_has_gradients_per_operator(self, nested):
        batch = padded_batch() | {"labels": torch.full((3, 11), 3)}
        architecture = ("attention@64", "ffn40@64", "ffn@96", "skip")
        gradients = operator_gradients(nested, batch, architecture).gradients
        sizes = [nested.nasbert.encoder.blocks[i].operators.size_of(name) for i, name in enumerate(architecture)]
        assert [len(gradient) for gradient in gradients] == sizes

    def test_is_saved_and_loaded(self, nested, tmp_path):
        nested.save_pretrained(tmp_path)
        again = load_supernet(tmp_path).eval()
        for architecture in children(3):
            found, expected = (logits_of(net, padded_batch(), architecture=architecture) for net in (again, nested))
            assert torch.equal(found, expected)

    def test_that_nobody_knows_is_refused(self):
        with pytest.raises(ValueError, match="weight_layout is 'woven'; expected one of separate"):
            tiny_supernet("sized", weight_layout="woven")

    def test_the_usual_one_is_not_written_down(self):
        assert "weight_layout" not in tiny_supernet("sized").config.to_dict()
        compile_operators(tiny_supernet("sized"), "eager")


def test_the_names_that_a_command_line_knows_are_those_of_the_layouts(monkeypatch):
    assert LAYOUT_NAMES == known_layouts() == tuple(LAYOUTS)
    monkeypatch.setitem(LAYOUTS, "mine", LAYOUTS["separate"])
    assert known_layouts() == (*LAYOUT_NAMES, "mine")
