"""Weight layouts: old files load; another layout than today's passes through everything that asks for weights."""

import random
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny.models import SPACES, logits_of, padded_batch, randomise_, tiny_supernet
from torch.func import functional_call

from hf_nasbert import records
from hf_nasbert.costs import num_parameters
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.interference import operator_gradients
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.modeling.geometry_nasbert import parse_operator
from hf_nasbert.modeling.layout_names import LAYOUT_NAMES, known_layouts
from hf_nasbert.modeling.layouts import LAYOUTS, SeparateWeights, WeightLayout
from hf_nasbert.modeling.operators_nasbert import build_operator
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.step import compile_operators

BLOCKS = "nasbert.encoder.blocks."
KINDS = ("weight", "bias")
ENDS = SearchSpace.chain(1, ("attention", "ffn40", "conv3", "norm", "skip"))
OLD = Path(__file__).parent / "data" / "supernet-0.1"


def test_a_super_net_of_version_0_1_loads_with_equal_logits():
    """The folder was written before operators had layouts and names had sizes."""
    supernet = load_supernet(OLD).eval()
    for name, expected in load_file(OLD / "logits.safetensors").items():
        architecture = None if name == "largest" else name.split("-")
        found = logits_of(supernet, padded_batch(16), architecture=architecture)
        # Another processor's sums differ by 2e-6 where the weights are the same.
        assert torch.allclose(found, expected, atol=5e-6, rtol=0), name


@pytest.fixture
def nested():
    return randomise_(tiny_supernet("sized", weight_layout="nested"), 1).eval()


def children(count):
    rng = random.Random(0)
    return [SPACES["sized"].sample(rng) for _ in range(count)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_tells_what_an_operator_is_made_of(layout):
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
        given = {"child": ("skip", name, "skip", "skip")} if operators.reads_child(name) else {}
        built.load_state_dict(operators.state_of(name, **given), strict=True)
        ran.clear()
        operators.zero_grad()
        found = operators(name, states, positions=positions, **given)
        assert torch.equal(found, built(states, positions=positions))
        assert {id(unit) for unit in operators.units()} & {id(module) for module in ran} <= {
            id(module) for module in operators.modules_of(name)
        }
        assert layout != "separate" or [unit for unit in operators.units() if unit in ran] == operators.modules_of(
            name
        )
        if operators.parameters_of(name):
            found.square().sum().backward()
        in_units = {id(parameter) for unit in operators.units() for parameter in unit.parameters()}
        assert {id(parameter) for parameter in operators.parameters_of(name)} <= in_units, "whoever shards cuts units"
        used = {id(parameter) for parameter in operators.parameters() if parameter.grad is not None}
        assert used == {id(parameter) for parameter in operators.parameters_of(name)}
        assert operators.size_of(name) == sum(parameter.numel() for parameter in built.parameters())


@pytest.fixture
def experts():
    return randomise_(tiny_supernet("sized", weight_layout="experts"), 1).eval()


class TestExperts:
    def test_a_child_keeps_one_mixed_matrix(self, experts):
        """In weight space: the child's matrix is the mean of the experts' by what the router makes of the child."""
        batch = padded_batch() | {"labels": torch.where(torch.arange(33).view(3, 11) % 4 == 0, 3, -100)}
        drawn, alone = children(8), []
        for architecture in drawn:
            child = extract_child(experts, architecture)
            assert prove_equal_logits(experts, architecture, child) == 0
            assert child.num_parameters() == num_parameters(experts.config, architecture)
            with torch.no_grad():
                alone.append(float(child(**batch).loss))
            for block, name in enumerate(architecture):
                if "ffn" in name:
                    layout = experts.nasbert.encoder.blocks[block].operators
                    one, other = layout.operators[name], layout.experts[name][0]
                    share, rest = layout.shares_of(name, architecture).tolist()
                    assert share + rest == pytest.approx(1)
                    mixed = share * one.output.dense.weight + rest * other.output.dense.weight
                    found = child.nasbert.encoder.blocks[block].operator.output.dense.weight
                    assert torch.allclose(found, mixed, atol=1e-6)
        assert score_architectures(experts, drawn, [batch]) == pytest.approx(alone, rel=1e-5)

    def test_children_that_differ_elsewhere_have_other_matrices(self, experts):
        """That is the idea: an ffn that two children share is not the same one in both."""
        one, other = ("ffn@64", "skip", "ffn@96", "skip"), ("ffn@64", "skip", "attention@96", "ffn@96")
        name = "nasbert.encoder.blocks.0.operator.intermediate.dense.weight"
        states = [experts.state_of(child)[name] for child in (one, other)]
        assert not torch.allclose(*states, atol=1e-4)
        encoder = experts.nasbert.encoder
        assert encoder.num_shared(one, other) == 0
        assert encoder.num_shared(one, one) == 4
        after = ("attention@64", "ffn@64", "ffn@96", "skip"), ("attention@64", "ffn@64", "ffn40@96", "skip")
        assert encoder.num_shared(*after) == 1
        with pytest.raises(ValueError, match="the weights of 'ffn@64' in block 0 depend on the child"):
            experts.run_block(0, "ffn@64", torch.zeros(1, 1, 32), None)

    def test_a_step_trains_experts_and_router(self, experts):
        architecture = ("attention1@64", "ffn40@64", "ffn@96", "skip")
        batch = padded_batch() | {"labels": torch.full((3, 11), 3)}
        experts(**batch, architecture=architecture).loss.backward()
        moved = {id(parameter) for parameter in experts.parameters() if parameter.grad is not None}
        assert moved == {id(parameter) for parameter in experts.parameters_of(architecture)}
        layout = experts.nasbert.encoder.blocks[1].operators
        trained = [layout.routers["ffn40@64"][0].weight, *layout.experts["ffn40@64"].parameters()]
        assert all(bool(parameter.grad.any()) for parameter in trained)
        gradients = operator_gradients(experts, batch, architecture).gradients
        assert len(gradients[1]) == sum(parameter.numel() for parameter in layout.parameters_of("ffn40@64"))

    def test_is_saved_loaded_and_given_weights(self, experts, tmp_path):
        experts.save_pretrained(tmp_path)
        again = load_supernet(tmp_path).eval()
        for architecture in children(3):
            found, expected = (logits_of(net, padded_batch(), architecture=architecture) for net in (again, experts))
            assert torch.equal(found, expected)
        operators = experts.nasbert.encoder.blocks[1].operators
        for name in operators.candidates:
            given = randomise_(build_operator(experts.config, name), 7).state_dict()
            operators.load_state_of(name, given)
            found = operators.state_of(name, ("skip", name, "skip", "skip"))
            assert found.keys() == given.keys()
            assert all(torch.allclose(found[key], given[key], atol=1e-6) for key in given)


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
        optimizer = torch.optim.AdamW(nested.parameters(), lr=0.1)
        before = {name: parameter.detach().clone() for name, parameter in nested.named_parameters()}
        optimizer.step()
        changed = {name for name, p in nested.named_parameters() if not torch.equal(p, before[name])}
        inside = {name.removeprefix(f"{BLOCKS}0.operators.") for name in changed if name.startswith(f"{BLOCKS}0.")}
        query = {f"chunks.attention@64.{part}.0.{kind}" for part in ("query", "key", "value") for kind in KINDS}
        assert query - {"chunks.attention@64.key.0.bias"} <= inside  # no softmax sees what all keys have in common
        assert inside <= query | {name for name in inside if name.startswith("operators.attention1@64.output.")}
        old = before[f"{BLOCKS}0.operators.chunks.attention@64.query.1.weight"]
        assert torch.equal(nested.get_parameter(f"{BLOCKS}0.operators.chunks.attention@64.query.1.weight"), old)

    def test_is_given_an_operators_weights(self, nested):
        operators = nested.nasbert.encoder.blocks[1].operators
        for name in operators.candidates:
            given = randomise_(build_operator(nested.config, name), 7).state_dict()
            operators.load_state_of(name, given)
            found = operators.state_of(name)
            assert found.keys() == given.keys()
            assert all(torch.equal(found[key], given[key]) for key in given)
        small, large = operators.state_of("ffn40@96"), operators.state_of("ffn@96")
        assert torch.equal(small["intermediate.dense.weight"], large["intermediate.dense.weight"][:40])
        assert not torch.equal(small["output.dense.weight"], large["output.dense.weight"][:, :40])

    @pytest.mark.parametrize("wrong", ["intermediate.dense.weight", "output.dense.bias"])
    def test_refuses_weights_of_another(self, nested, wrong):
        operators = nested.nasbert.encoder.blocks[1].operators
        for other in (torch.zeros(3), None):
            state = {**operators.state_of("ffn40@96"), wrong: other}
            if other is None:
                del state[wrong]
            with pytest.raises(RuntimeError, match=wrong):
                operators.load_state_of("ffn40@96", state)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_names_what_ends_an_operator(self, layout):
        supernet = SupernetForMaskedLM(SupernetConfig(search_space=ENDS, hidden_size=64, weight_layout=layout))
        operators = supernet.nasbert.encoder.blocks[0].operators
        ends = {name: operators.output_of(name) for name in operators.candidates}
        assert ends["skip"] is None
        assert {name: type(end).__name__ for name, end in ends.items() if end is not None} == {
            "attention": "NasBertOutput",
            "ffn40": "NasBertOutput",
            "conv3": "NasBertConvLayer",
            "norm": "NasBertNorm",
        }
        for name, end in ends.items():
            others = {id(p) for other in operators.candidates if other != name for p in operators.parameters_of(other)}
            assert end is None or not others & {id(parameter) for parameter in end.parameters()}

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


class TwoCopies(WeightLayout):
    """Every operator has the mean of two sets of weights: none of its tensors is a parameter."""

    def __init__(self, config, candidates):
        super().__init__()
        self.candidates = tuple(candidates)
        self.copies = torch.nn.ModuleList(SeparateWeights(config, candidates) for _ in range(2))

    def _means(self, name):
        one, other = (dict(copy[name].named_parameters()) for copy in self.copies)
        return {key: (one[key] + other[key]) / 2 for key in one}

    def forward(self, name, *states, **options):
        return functional_call(self.copies[0][name], self._means(name), states, options)

    def state_of(self, name):
        return {key: mean.detach() for key, mean in self._means(name).items()}

    def load_state_of(self, name, state):
        for copy in self.copies:
            copy.load_state_of(name, state)

    def output_of(self, name):
        return self.copies[0].output_of(name)

    def parameters_of(self, name):
        return [parameter for copy in self.copies for parameter in copy.parameters_of(name)]

    def modules_of(self, name):
        return [self, self.copies[0][name]]

    def units(self):
        return [self]


@pytest.mark.slow
def test_a_layout_of_ones_own_needs_no_other_change(monkeypatch, tmp_path):
    """Made under a name of its own, scored, extracted, trained, held against its gradients, saved and loaded."""
    monkeypatch.setitem(LAYOUTS, "copies", TwoCopies)
    supernet = randomise_(tiny_supernet("sized", weight_layout="copies"), 1).eval()
    batch = padded_batch() | {"labels": torch.full((3, 11), 3)}
    supernet.save_pretrained(tmp_path)
    again = load_supernet(tmp_path).eval()
    for architecture in children(4):
        child = extract_child(supernet, architecture)
        assert prove_equal_logits(again, architecture, child) == 0
        assert child.num_parameters() == num_parameters(supernet.config, architecture)
        with torch.no_grad():
            alone = float(child(**batch).loss)
        assert score_architectures(supernet, [architecture], [batch]) == pytest.approx([alone], rel=1e-5)
        supernet.zero_grad()
        supernet(**batch, architecture=architecture).loss.backward()
        moved = {id(parameter) for parameter in supernet.parameters() if parameter.grad is not None}
        assert moved == {id(parameter) for parameter in supernet.parameters_of(architecture)}
    assert len(operator_gradients(supernet, batch, architecture).gradients) == len(architecture)


def test_the_names_that_a_command_line_knows_are_those_of_the_layouts(monkeypatch):
    assert LAYOUT_NAMES == known_layouts() == tuple(LAYOUTS)
    monkeypatch.setitem(LAYOUTS, "mine", LAYOUTS["separate"])
    assert known_layouts() == (*LAYOUT_NAMES, "mine")


KERNELS = SearchSpace.chain(2, ("conv3", "conv7", "conv5", "ffn40", "ffn"))


@pytest.fixture
def entangled():
    config = SupernetConfig(search_space=KERNELS, hidden_size=64, vocab_size=50, weight_layout="entangled")
    return randomise_(SupernetForMaskedLM(config), 1).eval()


class TestOneKernelForAllSizes:
    def test_a_small_kernel_is_the_middle_of_a_large_one(self, entangled):
        operators = entangled.nasbert.encoder.blocks[0].operators
        for layer in range(entangled.config.num_conv_layers):
            key = f"layers.{layer}.depthwise."
            three, five, seven = (operators.state_of(name) for name in ("conv3", "conv5", "conv7"))
            assert seven[key + "weight"].shape == (64, 1, 1, 7)
            assert torch.equal(three[key + "weight"], seven[key + "weight"][..., 2:5])
            assert torch.equal(five[key + "weight"], seven[key + "weight"][..., 1:6])
            assert torch.equal(three[key + "bias"], seven[key + "bias"])
        assert not torch.equal(three["layers.0.dense.weight"], seven["layers.0.dense.weight"])

    def test_a_step_moves_the_middle_and_not_what_is_around_it(self, entangled):
        operators = entangled.nasbert.encoder.blocks[0].operators
        before = {name: operators.state_of(name)["layers.0.depthwise.weight"].clone() for name in ("conv3", "conv7")}
        entangled(**padded_batch(), architecture=("conv3", "ffn")).logits.square().mean().backward()
        torch.optim.AdamW(entangled.parameters(), lr=0.1).step()
        after = {name: operators.state_of(name)["layers.0.depthwise.weight"] for name in before}
        assert not torch.equal(after["conv3"], before["conv3"])
        assert torch.equal(after["conv7"][..., 2:5], after["conv3"])
        for side in (slice(0, 2), slice(5, 7)):
            assert torch.equal(after["conv7"][..., side], before["conv7"][..., side])

    def test_is_given_a_kernel_and_refuses_another_size(self, entangled):
        operators = entangled.nasbert.encoder.blocks[1].operators
        given = randomise_(build_operator(entangled.config, "conv7"), 7).state_dict()
        operators.load_state_of("conv7", given)
        assert all(torch.equal(operators.state_of("conv7")[key], given[key]) for key in given)
        assert torch.equal(
            operators.state_of("conv3")["layers.1.depthwise.weight"], given["layers.1.depthwise.weight"][..., 2:5]
        )
        with pytest.raises(RuntimeError, match=r"depthwise\.weight is "):
            operators.load_state_of("conv3", given)

    def test_is_extracted_saved_and_loaded(self, entangled, tmp_path):
        entangled.save_pretrained(tmp_path)
        again = load_supernet(tmp_path).eval()
        for architecture in (("conv5", "conv7"), ("conv3", "ffn40")):
            assert prove_equal_logits(again, architecture, extract_child(entangled, architecture)) == 0

    def test_its_first_weights_are_those_of_the_widest_kernel(self):
        config = SupernetConfig(search_space=KERNELS, hidden_size=512, vocab_size=50, weight_layout="entangled")
        operators = SupernetForMaskedLM(config).nasbert.encoder.blocks[0].operators
        separate = build_operator(config, "conv7")
        for name in ("conv3", "conv7"):
            weight = operators.state_of(name)["layers.0.depthwise.weight"]
            assert float(weight.std()) == pytest.approx(separate.layers[0].depthwise.initial_std, rel=0.05)


SLICED = SearchSpace.staged(1, 3, ("attention", "attention1", "ffn", "ffn40", "conv3", "conv7"), widths=(64, 96, 128))
SHARED = {  # what of an operator's weights is a slice
    "attention": [f"self.{part}" for part in ("query", "key", "value")],
    "ffn": ["intermediate.dense"],
    "conv": ["layers.0.depthwise"],
}


@pytest.fixture
def sliced():
    config = SupernetConfig(search_space=SLICED, hidden_size=96, vocab_size=50, weight_layout="entangled")
    return randomise_(SupernetForMaskedLM(config), 1).eval()


def corner(small, large):
    """The slice of a weight that is another one's: the first rows and columns, or channels, and the middle taps."""
    found = large[tuple(slice(0, size) for size in small.shape[:2])]
    outside = (large.shape[-1] - small.shape[-1]) // 2 if small.dim() == 4 else 0
    return found[..., outside : outside + small.shape[-1]]


class TestOneMatrixForAllWidths:
    def test_a_narrow_operator_is_a_slice_of_a_wide_one(self, sliced):
        operators = sliced.nasbert.encoder.blocks[1].operators
        pairs = [
            ("attention1@64", "attention@128"),
            ("attention@64", "attention@96"),
            ("ffn40@64", "ffn@128"),
            ("ffn@64", "ffn@96"),
            ("conv3@64", "conv7@128"),
            ("conv7@96", "conv7@128"),
        ]
        for small, large in pairs:
            one, other = operators.state_of(small), operators.state_of(large)
            for path in SHARED[parse_operator(small).kind.rstrip("37")]:
                for kind in KINDS:
                    part = one[f"{path}.{kind}"]
                    assert torch.equal(part, corner(part, other[f"{path}.{kind}"])), (small, large, path, kind)
                    assert part.shape != other[f"{path}.{kind}"].shape or (kind, part.dim()) == ("bias", 1)
        ends = [operators.output_of(name) for name in ("ffn@64", "ffn@128")]
        assert ends[0].dense.weight.shape == (64, 256)
        assert not torch.equal(ends[0].dense.weight, ends[1].dense.weight[:64, :256]), "what writes is its own"
        separate = SupernetForMaskedLM(SupernetConfig(search_space=SLICED, hidden_size=96, vocab_size=50))
        assert sliced.num_parameters() < 0.8 * separate.num_parameters()

    @pytest.mark.parametrize("child", ["attention1@64-ffn40@64-conv3@64", "conv7@96-attention@96-ffn@96"])
    def test_a_step_moves_the_slice_in_use_and_nothing_else(self, sliced, child):
        child = child.split("-")
        blocks = sliced.nasbert.encoder.blocks
        wide = {"attention": "attention@128", "ffn": "ffn@128", "conv": "conv7@128"}
        kinds = [parse_operator(name).kind.rstrip("37") for name in child]
        places = list(zip(blocks, child, kinds, strict=True))

        def weights():
            states = [(block.operators.state_of(wide[kind]), kind) for block, _, kind in places]
            return [{path: state[f"{path}.weight"].clone() for path in SHARED[kind]} for state, kind in states]

        before = weights()
        sliced(**padded_batch(), architecture=child).logits.square().mean().backward()
        moved = {id(parameter) for parameter in sliced.parameters() if parameter.grad is not None}
        assert moved == {id(parameter) for parameter in sliced.parameters_of(child)}
        torch.optim.AdamW(sliced.parameters(), lr=0.1).step()
        for (block, name, _), old, new in zip(places, before, weights(), strict=True):
            for path, weight in old.items():
                inside = torch.zeros_like(weight, dtype=torch.bool)
                corner(block.operators.state_of(name)[f"{path}.weight"], inside).fill_(True)  # a view of it
                changed = new[path] != weight
                assert not changed[~inside].any(), (name, path)
                assert changed[inside].float().mean() > 0.9, (name, path)

    def test_a_child_is_extracted_scored_and_saved_as_it_is(self, sliced, tmp_path):
        sliced.save_pretrained(tmp_path)
        again, batch = load_supernet(tmp_path).eval(), padded_batch() | {"labels": torch.full((3, 11), 3)}
        for child in (SLICED.child_at(number) for number in (0, 77, 300, 647)):
            alone = extract_child(sliced, child)
            assert prove_equal_logits(again, child, alone) < 1e-6
            with torch.no_grad():
                assert score_architectures(sliced, [child], [batch]) == pytest.approx([float(alone(**batch).loss)])

    def test_an_operator_is_given_weights(self, sliced):
        operators = sliced.nasbert.encoder.blocks[0].operators
        for name in operators.candidates:
            given = randomise_(build_operator(sliced.config, name), 7).state_dict()
            operators.load_state_of(name, given)
            assert all(torch.equal(operators.state_of(name)[key], given[key]) for key in given)
        with pytest.raises(RuntimeError, match=r"ffn@128: intermediate\.dense\.weight is \(256, 64\), expected"):
            operators.load_state_of("ffn@128", operators.state_of("ffn@64"))


class TestScaled:
    @pytest.mark.parametrize(
        "space", [SPACES["sized"], KERNELS, SearchSpace.chain(3, ("attention1", "ffn", "skip"), "anywhere")]
    )
    def test_is_the_same_choices_in_another_size(self, space):
        small = SupernetConfig(
            search_space=space, hidden_size=64, embedding_size=32, vocab_size=50, weight_layout="nested"
        )
        large = small.scaled(128)
        assert (large.hidden_size, large.embedding_size, large.weight_layout) == (128, 64, "nested")
        assert large.space.num_children == small.space.num_children
        assert [type(stage) for stage in large.space.stages] == [type(stage) for stage in small.space.stages]
        for index in range(0, small.space.num_children, 37):
            child, grown = small.space.child_at(index), large.space.child_at(index)
            for before, after in zip(map(parse_operator, child), map(parse_operator, grown), strict=True):
                assert after.kind == before.kind
                assert (after.size or 0) == 2 * (before.size or 0)
                assert (after.width or 0) == 2 * (before.width or 0)
        assert small.scaled(64).to_dict() == small.to_dict() | {"attention_head_size": large.attention_head_size}
        SupernetForMaskedLM(large)

    def test_heads_keep_their_width(self):
        space = SearchSpace.chain(2, ("attention", "attention1"))
        large = SupernetConfig(search_space=space, hidden_size=64).scaled(256)
        assert large.attention_head_size == 32
        assert large.space.blocks[0] == ("attention", "attention4")

    def test_copies_of_a_search_are_no_part_of_what_is_built(self):
        space = SearchSpace.staged(1, 2, ("attention", "ffn"), widths=(32, 64))
        by_operator = {"block": 0, "operators": space.blocks[0], "owners": (0, 0, 1, 1)}
        by_size = {"reference": "ffn@32-ffn@32", "bounds": (5000,), "owners": (0, 1)}
        for rows in (by_operator, by_size):
            copies = Copies(number=2, **rows).to_dict()
            large = SupernetConfig(search_space=space, hidden_size=64, copies=copies).scaled(128)
            assert large.copies is None
            assert large.space.blocks[0][0] == "attention@64"

    @pytest.mark.parametrize(("width", "said"), [(100, "ffn40 cannot grow"), (0, "width=0"), (1.5, "width=1.5")])
    def test_a_size_that_is_no_whole_number_is_refused(self, width, said):
        with pytest.raises(ValueError, match=said):
            SupernetConfig(search_space=KERNELS, hidden_size=64).scaled(width)

    def test_the_page_tells_whether_the_order_survived(self):
        root = Path(__file__).parents[1]
        summary = runpy.run_path(str(root / "benchmarks" / "scaled_order.py"))["summary"]
        found = records.read(root / "benchmarks" / "records" / "scaled-order.jsonl.gz")
        page = " ".join((root / "docs" / "search.md").read_text(encoding="utf-8").split())
        *taus, best = summary(found)
        assert len(taus) == 2
        for told in taus:
            assert "| {} | {} |".format(*told.split(": tau ")) in page
        assert f"{len(found)} children of the table `imdb`" in page
        child, rank = best.split(": ")
        assert f"{child[0].upper()}{child[1:]} has {rank}" in page
