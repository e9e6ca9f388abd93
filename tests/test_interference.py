"""Interference: every cosine is that of a direct autograd computation."""

import math
import random
from itertools import combinations

import numpy as np
import pytest
import torch
from helpers import mostly_slow
from tiny.models import BATCHES, tiny_supernet
from tiny.records import measurement

from hf_nasbert.interference import (
    best_split,
    block_splits,
    draw_pairs,
    gradient_similarity,
    measure_blocks,
    measure_pairs,
    operator_gradients,
    state_similarity,
)
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.space import Architecture, SearchSpace, hamming

SPACES = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "conv5")),
    "skip": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "conv3", "ffn", "skip"), widths=(32, 64)),
    "stem": SearchSpace.of_blocks(["conv3", "attention,ffn,conv3", "attention,ffn,conv3"]),
}
every_space = pytest.mark.parametrize("name", SPACES)


def make_supernet(name="chain", *, dropout=0.0, **overrides):
    return tiny_supernet(SPACES[name], dropout=dropout, hidden_size=32, **overrides)


def backward(supernet, batch, architecture):
    """The direct way: the model's own loss, and every parameter's gradient, by name."""
    supernet.zero_grad()
    supernet(**batch, architecture=architecture).loss.backward()
    found = {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}
    supernet.zero_grad()
    return found


def of_operator(gradients, block, operator):
    prefix = f"nasbert.encoder.blocks.{block}.operators.{operator}."
    return torch.cat([g.flatten() for name, g in gradients.items() if name.startswith(prefix)])


def cosine(a, b):
    return math.fsum((a.double() * b.double()).tolist()) / math.sqrt(
        math.fsum((a.double() ** 2).tolist()) * math.fsum((b.double() ** 2).tolist())
    )


class TestOperatorGradients:
    @every_space
    @pytest.mark.parametrize("sparse", [False, True])
    def test_are_those_of_the_models_own_loss(self, name, sparse):
        supernet = make_supernet(name, sparse_prediction=sparse)
        for seed in range(4):
            child = supernet.space.sample(random.Random(seed))
            found = operator_gradients(supernet, BATCHES[0], child)
            expected = backward(supernet, BATCHES[0], child)
            assert found.loss == pytest.approx(supernet(**BATCHES[0], architecture=child).loss.item(), rel=1e-6)
            for block, operator in enumerate(child):
                if operator == "skip":
                    assert found.gradients[block].numel() == 0
                    continue
                direct = of_operator(expected, block, operator)
                assert found.gradients[block].shape == direct.shape
                assert torch.allclose(found.gradients[block], direct, rtol=1e-4, atol=1e-6)
                assert direct.norm() > 1e-4  # or the comparison shows nothing

    def test_states_are_the_models_at_all_tokens(self):
        supernet = make_supernet("skip", sparse_prediction=True)
        child = Architecture(("attention", "conv3", "ffn", "skip"))
        found = operator_gradients(supernet, BATCHES[0], child).states
        supernet.config.sparse_prediction = False
        expected = supernet(**BATCHES[0], architecture=child, output_hidden_states=True).hidden_states
        assert len(found) == len(expected) == 5
        for mine, models in zip(found, expected, strict=True):
            assert torch.equal(mine, models)
            assert not mine.requires_grad

    def test_dropout_is_off_and_everything_is_left_as_found(self):
        supernet = make_supernet(dropout=0.5)
        child = supernet.space.sample(random.Random(0))
        expected = operator_gradients(supernet, BATCHES[0], child)
        supernet.train()
        supernet.lm_head.eval()  # parts of a model may differ
        held = torch.full_like(supernet.lm_head.dense.weight, 7.0)
        supernet.lm_head.dense.weight.grad = held
        before = {key: value.clone() for key, value in supernet.state_dict().items()}
        modes = [module.training for module in supernet.modules()]
        torch.manual_seed(5)
        state, python_state = torch.get_rng_state(), random.getstate()
        found = operator_gradients(supernet, BATCHES[0], child)
        with torch.no_grad():
            measure_pairs(supernet, BATCHES[:1], num_children=1, seed=0, max_distance=1)
            measure_blocks(supernet, BATCHES[:1], num_settings=1, seed=0)
        assert all(map(torch.equal, found.gradients, expected.gradients))
        assert torch.equal(torch.get_rng_state(), state)
        assert random.getstate() == python_state
        assert [module.training for module in supernet.modules()] == modes
        assert supernet.lm_head.dense.weight.grad is held
        assert bool((held == 7).all())
        others = [name for name, p in supernet.named_parameters() if p.grad is not None]
        assert others == ["lm_head.dense.weight"]
        assert all(torch.equal(value, before[key]) for key, value in supernet.state_dict().items())

    def test_modes_come_back_after_an_error_too(self):
        supernet = make_supernet().train()
        batch = {**BATCHES[0], "labels": torch.full_like(BATCHES[0]["labels"], -100)}
        with pytest.raises(ValueError, match="no labelled token"):
            operator_gradients(supernet, batch, supernet.largest_architecture)
        assert supernet.training

    def test_refuses_other_precisions_and_children(self):
        supernet = make_supernet()
        with pytest.raises(ValueError, match="'conv9'"):
            operator_gradients(supernet, BATCHES[0], ("conv9", "ffn", "ffn", "ffn"))
        with pytest.raises(ValueError, match="float32, but the super-net is in torch"):
            operator_gradients(supernet.bfloat16(), BATCHES[0], ("ffn",) * 4)


class TestSimilarities:
    def test_of_gradients_is_the_cosine(self):
        a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        assert gradient_similarity(a, b) == pytest.approx(cosine(a, b), abs=1e-12)
        assert gradient_similarity(a, a) == gradient_similarity(a, 3 * a) == pytest.approx(1)
        assert gradient_similarity(a, -a) == pytest.approx(-1)
        # In float32 these squares vanish.
        assert gradient_similarity(a * 1e-30, b * 1e-30) == pytest.approx(cosine(a, b), abs=1e-6)
        assert -1 <= gradient_similarity(a, -a) <= gradient_similarity(a, a) <= 1

    @pytest.mark.parametrize("number", [0.0, float("nan"), float("inf")])
    def test_of_gradients_without_direction_is_nan(self, number):
        assert math.isnan(gradient_similarity(torch.full((3,), number), torch.ones(3)))
        assert math.isnan(gradient_similarity(torch.ones(3), torch.full((3,), number)))

    def test_of_gradients_refuses_other_parameters(self):
        with pytest.raises(ValueError, match="do not compare"):
            gradient_similarity(torch.ones(3), torch.ones(4))

    def test_of_states_is_the_mean_over_real_tokens(self):
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 3, 12, 8, generator=generator)
        mask = BATCHES[0]["attention_mask"]
        expected = [cosine(a[row, token], b[row, token]) for row, token in mask.nonzero().tolist()]
        assert state_similarity(a, b, mask) == pytest.approx(np.mean(expected), abs=1e-12)
        assert abs(state_similarity(a, b) - np.mean(expected)) > 1e-3  # padding would count
        assert state_similarity(a, a, mask) == pytest.approx(1)


class TestDrawnPairs:
    @every_space
    def test_distances_are_exact_and_children_valid(self, name):
        space = SPACES[name]
        pairs = draw_pairs(space, num_children=40, seed=0)
        assert len(pairs) == 40
        seen = set()
        for base, others in pairs:
            distances = [hamming(base, other) for other in others]
            assert distances == sorted(set(distances))
            assert max([0, *distances]) <= space.max_changes(base)
            for other in others:
                assert base in space
                assert other in space
                assert any(x == y != "skip" for x, y in zip(base, other, strict=True))
            seen |= set(distances)
        assert seen >= {1, 2}

    def test_depend_on_their_seed_alone(self):
        make = lambda seed: draw_pairs(SPACES["skip"], num_children=6, seed=seed)  # noqa: E731
        assert make(0) == make(0) != make(1)

    def test_every_distance_is_there(self):
        for _, others in draw_pairs(SPACES["chain"], num_children=5, seed=0):
            assert len(others) == 3  # at 4 nothing is shared
        for _, others in draw_pairs(SPACES["chain"], num_children=5, seed=0, max_distance=2):
            assert len(others) == 2

    def test_refuses_what_has_no_pair(self):
        with pytest.raises(ValueError, match="shares an operator"):
            draw_pairs(SearchSpace.chain(1, ("ffn", "conv3")), num_children=3, seed=0)
        with pytest.raises(ValueError, match="num_children=0"):
            draw_pairs(SPACES["chain"], num_children=0, seed=0)


class TestMeasuredPairs:
    @pytest.mark.parametrize("name", mostly_slow(SPACES, 3))
    def test_every_row_is_a_direct_autograd_computation(self, name):
        supernet = make_supernet(name, sparse_prediction=True)
        rows = measure_pairs(supernet, BATCHES[:2], num_children=2, seed=1)
        direct = {}
        for row in rows:
            base, other, block = (
                Architecture.parse(row["architecture"]),
                Architecture.parse(row["other"]),
                row["block"],
            )
            for child in (base, other):
                key = child, row["batch"]
                if key not in direct:
                    direct[key] = backward(supernet, BATCHES[row["batch"]], child)
            assert row["operator"] == base[block] == other[block] != "skip"
            sides = [of_operator(direct[child, row["batch"]], block, row["operator"]) for child in (base, other)]
            assert row["gradient_similarity"] == pytest.approx(cosine(*sides), abs=1e-5)
            assert row["distance"] == hamming(base, other)
            assert row["num_before"] == hamming(base[:block], other[:block])
        # All of them, each once.
        expected = [
            (number, batch, str(other), block)
            for number, (base, others) in enumerate(draw_pairs(supernet.space, num_children=2, seed=1))
            for batch in range(2)
            for other in others
            for block in range(len(base))
            if base[block] == other[block] != "skip"
        ]
        assert [(row["child"], row["batch"], row["other"], row["block"]) for row in rows] == expected
        assert len({row["gradient_similarity"] for row in rows}) > len(rows) / 2

    def test_similarities_of_states_are_the_blocks_own(self):
        supernet = make_supernet(sparse_prediction=False)
        rows = measure_pairs(supernet, BATCHES[:1], num_children=2, seed=0)
        mask = BATCHES[0]["attention_mask"].bool()
        for row in rows:
            children = [Architecture.parse(row[name]) for name in ("architecture", "other")]
            states = [
                supernet(**BATCHES[0], architecture=child, output_hidden_states=True).hidden_states
                for child in children
            ]
            for name, index in (("input_similarity", row["block"]), ("output_similarity", row["block"] + 1)):
                tokens = zip(states[0][index][mask], states[1][index][mask], strict=True)
                assert row[name] == pytest.approx(np.mean([cosine(a, b) for a, b in tokens]), abs=1e-6)
            is_same = row["input_similarity"] == pytest.approx(1, abs=1e-9)
            assert is_same == (row["num_before"] == 0)
        assert {row["num_before"] == 0 for row in rows} == {True, False}

    def test_same_seed_same_rows(self):
        measure = lambda seed: measure_pairs(make_supernet(), BATCHES[:1], num_children=2, seed=seed)  # noqa: E731
        first = measure(0)
        torch.manual_seed(99)
        random.seed(99)
        assert measure(0) == first != measure(1)

    def test_padding_changes_nothing(self):
        supernet, batch = make_supernet(), BATCHES[0]
        padded = {
            name: torch.nn.functional.pad(tensor, (2, 3), value=-100 if name == "labels" else 0)
            for name, tensor in batch.items()
        }
        padded["input_ids"][padded["attention_mask"] == 0] = 17  # whatever stands there
        positions = torch.arange(padded["input_ids"].shape[1]).expand_as(padded["input_ids"])
        padded["position_ids"] = (positions - 2).clamp(min=0)
        rows, again = (measure_pairs(supernet, [b], num_children=2, seed=0) for b in (batch, padded))
        for row, other in zip(rows, again, strict=True):
            for name in ("gradient_similarity", "input_similarity", "output_similarity"):
                assert row[name] == pytest.approx(other[name], abs=1e-5)

    def test_a_gradient_without_direction_has_none(self):
        supernet = make_supernet("stem")
        with torch.no_grad():
            supernet.lm_head.LayerNorm.weight.zero_()  # no loss depends on any operator
        rows = measure_pairs(supernet, BATCHES[:1], num_children=1, seed=0)
        assert {row["gradient_similarity"] for row in rows} == {None}

    def test_operators_of_one_function_do_not_interfere_and_others_do(self):
        """Planted: conv5 computes what conv3 computes, so to swap them changes nothing for whoever is shared."""
        supernet = twins()
        batch = BATCHES[0]
        base, twin, other = (("ffn", name, "attention", "ffn") for name in ("conv3", "conv5", "attention"))
        first, second, third = (operator_gradients(supernet, batch, child).gradients for child in (base, twin, other))
        for block in (0, 2, 3):
            assert gradient_similarity(first[block], second[block]) == pytest.approx(1, abs=1e-6)
            assert gradient_similarity(first[block], third[block]) < 0.99

    def test_refuses_no_batch(self):
        with pytest.raises(ValueError, match="no batch"):
            measure_pairs(make_supernet(), [], num_children=1, seed=0)


def twins():
    """A super-net whose conv5 has conv3's weights, its kernel in the middle, in every block."""
    supernet = make_supernet()
    with torch.no_grad():
        for block in supernet.nasbert.encoder.blocks:
            small, large = dict(block.operators["conv3"].named_parameters()), block.operators["conv5"]
            for name, parameter in large.named_parameters():
                if name.endswith("depthwise.weight"):
                    parameter.zero_()
                    parameter[..., 1:-1] = small[name]
                else:
                    parameter.copy_(small[name])
    return supernet


class TestBlocks:
    @pytest.mark.parametrize("name", mostly_slow(SPACES, 3))
    def test_every_row_is_a_direct_autograd_computation(self, name):
        supernet = make_supernet(name)
        rows = measure_blocks(supernet, BATCHES[:2], num_settings=2, seed=2)
        direct = {}
        for row in rows:
            setting = Architecture.parse(row["architecture"])
            assert row["batch"] == row["setting"] % 2
            sides = []
            for operator in (row["first"], row["second"]):
                child = (*setting[: row["block"]], operator, *setting[row["block"] + 1 :])
                assert child in supernet.space
                key = child, row["batch"]
                if key not in direct:
                    direct[key] = backward(supernet, BATCHES[row["batch"]], child)
                sides.append(direct[key])
            inside = f"nasbert.encoder.blocks.{row['block']}."
            shared = [key for key in sides[0] if key in sides[1] and not key.startswith(inside)]
            assert any("word_embeddings" in key for key in shared)
            flat = [torch.cat([side[key].flatten() for key in shared]) for side in sides]
            assert row["gradient_similarity"] == pytest.approx(cosine(*flat), abs=1e-5)
        assert len({row["gradient_similarity"] for row in rows}) > 0.9 * len(rows)

    def test_every_pair_of_candidates_is_compared(self):
        rows = measure_blocks(make_supernet("stem"), BATCHES, num_settings=2, seed=0)
        assert [(row["setting"], row["block"], row["first"], row["second"]) for row in rows] == [
            (setting, block, *pair)
            for setting in range(2)
            for block in (1, 2)  # the stem has one candidate
            for pair in combinations(("attention", "ffn", "conv3"), 2)
        ]

    def test_finds_the_planted_split(self):
        rows = measure_blocks(twins(), BATCHES, num_settings=3, seed=0)
        splits = block_splits([measurement(blocks=rows)])
        assert splits.keys() == {0, 1, 2, 3}
        for similarity, split in splits.values():
            assert similarity["conv3", "conv5"].estimate == pytest.approx(1, abs=1e-6)
            assert split.groups == (("attention", "ffn"), ("conv3", "conv5"))

    def test_the_best_split_is_that_of_all_ways(self):
        names = ("a", "b", "c", "d", "e")
        rng = random.Random(0)
        for _ in range(20):
            similarity = {pair: rng.uniform(-1, 1) for pair in combinations(names, 2)}
            split = best_split(names, similarity)
            assert sorted(map(len, split.groups)) == [2, 3]
            sums = []
            for half in combinations(names, 2):
                groups = [half, tuple(name for name in names if name not in half)]
                sums.append(sum(1 - similarity[pair] for group in groups for pair in combinations(group, 2)) / 4)
            assert split.within == pytest.approx(min(sums))
            across = [1 - value for pair, value in similarity.items() if len(set(pair) & set(split.groups[0])) == 1]
            assert split.score == pytest.approx(np.mean(across))

    def test_small_blocks(self):
        split = best_split(("a", "b"), {("b", "a"): 0.25})
        assert split.groups == (("a",), ("b",))
        assert split.score == 0.75
        assert math.isnan(split.within)
        assert best_split(("a",), {}) is None
        assert best_split(("a", "b", "c"), {("a", "b"): 0.5, ("a", "c"): 0.5}) is None  # a pair was never measured
        with pytest.raises(ValueError, match="may hold another operator"):
            measure_blocks(
                SupernetForMaskedLM(SupernetConfig(search_space=SearchSpace.chain(2, ("ffn",)), vocab_size=61)),
                BATCHES,
                num_settings=2,
                seed=0,
            )
