"""Interference: every cosine is that of a direct autograd computation, and every summary that of its rows."""

import json
import math
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_published
from modelling_helpers import randomise_

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.data import DataArguments
from hf_nasbert.interference import (
    FIGURES,
    as_markdown,
    associations,
    best_split,
    block_splits,
    draw_pairs,
    gain_over,
    gradient_similarity,
    mean_similarity,
    measure_blocks,
    measure_pairs,
    measurements,
    operator_gradients,
    pair_rows,
    similarity_bins,
    state_similarity,
)
from hf_nasbert.metrics import cluster_bootstrap_interval
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.plots import plot_gradient_similarity, plot_similarity_by_block, save_figure
from hf_nasbert.space import Architecture, SearchSpace, hamming

ROOT = Path(__file__).parents[1]
TEXT = ROOT / "tests" / "data" / "tiny.txt"
SPACES = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "conv5")),
    "skip": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "conv3", "ffn", "skip"), widths=(32, 64)),
    "stem": SearchSpace.of_blocks(["conv3", "attention,ffn,conv3", "attention,ffn,conv3"]),
}
every_space = pytest.mark.parametrize("name", SPACES)


def make_supernet(name="chain", *, dropout=0.0, **overrides):
    sizes = {"vocab_size": 61, "hidden_size": 32, "max_position_embeddings": 24, **overrides}
    config = SupernetConfig(
        search_space=SPACES[name], hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **sizes
    )
    return randomise_(SupernetForMaskedLM(config)).eval()


def make_batch(seed=0, shape=(3, 9)):
    """Padding on either side, labels unevenly spread: none in the second sequence."""
    generator = torch.Generator().manual_seed(seed)
    attention_mask = torch.ones(shape, dtype=torch.long)
    attention_mask[0, 6:] = 0
    attention_mask[-1, :2] = 0
    chosen = (torch.rand(shape, generator=generator) < 0.4) & attention_mask.bool()
    chosen[0, 0], chosen[1] = True, False
    labels = torch.randint(1, 61, shape, generator=generator).where(chosen, -100)
    input_ids = torch.randint(1, 61, shape, generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


BATCHES = [make_batch(0), make_batch(1, (2, 12))]


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
        a, b = torch.randn(2, 3, 9, 8, generator=generator)
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
    @every_space
    def test_every_row_is_a_direct_autograd_computation(self, name):
        supernet = make_supernet(name, sparse_prediction=True)
        rows = measure_pairs(supernet, BATCHES, num_children=2, seed=1)
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
            for batch in range(len(BATCHES))
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
    @every_space
    def test_every_row_is_a_direct_autograd_computation(self, name):
        supernet = make_supernet(name)
        rows = measure_blocks(supernet, BATCHES, num_settings=2, seed=2)
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


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def measurement(*, method="uniform", seed=0, step=10, pairs=None, blocks=None, gain=0.0):
    """A record of made-up pairs: gradient similarity falls with distance and rises with that of the inputs."""
    rng = random.Random(seed)
    made = []
    for child in range(8):
        level = random.Random(child).gauss(0, 0.1)  # rows of a child have something in common
        for distance in (1, 2, 3):
            for block in range(3):
                for batch in range(2):
                    inputs = 1.0 if block == 0 else 0.9 - 0.1 * distance + rng.gauss(0, 0.03)
                    value = 0.9 - 0.15 * distance + 0.5 * (inputs - 0.7) + level + gain + rng.gauss(0, 0.01)
                    made.append(
                        {
                            "child": child,
                            "architecture": "a",
                            "other": f"b{distance}",
                            "distance": distance,
                            "block": block,
                            "operator": ("ffn", "attention")[(block + child) % 2],
                            "num_before": min(block, distance),
                            "batch": batch,
                            "gradient_similarity": value,
                            "input_similarity": inputs,
                            "output_similarity": inputs,
                        }
                    )
    compared = [
        {"setting": number, "block": block, "first": "attention", "second": "ffn", "gradient_similarity": 0.5 + gain}
        for number in range(3)
        for block in range(2)
    ]
    return {
        "supernet": f"{method}-{seed}-{step}",
        "method": method,
        "seed": seed,
        "step": step,
        "max_steps": 10,
        "pairs": columns(pairs or made),
        "blocks": columns(blocks or compared),
    }


STUDY = [
    measurement(method=method, seed=seed, step=step, gain=gain)
    for seed in (0, 1)
    for method, step, gain in (("uniform", 0, 0.1), ("uniform", 5, -0.05), ("uniform", 10, 0), ("magic_t", 10, 0.03))
]


class TestSummaries:
    def test_means_are_over_batches_first_and_pass_over_what_has_no_direction(self):
        record = measurement()
        values = record["pairs"]["gradient_similarity"]
        values[0], values[2], values[3] = None, None, None  # one batch of the first row, both of the second
        rows = pair_rows([record])
        assert len(rows["block"]) == 72
        assert rows["gradient_similarity"][0] == values[1]
        assert math.isnan(rows["gradient_similarity"][1])
        expected = [np.mean(values[i : i + 2]) for i in range(4, len(values), 2)]
        assert mean_similarity(rows).estimate == pytest.approx(np.mean([values[1], *expected]))
        at_two = [np.mean(values[i : i + 2]) for i in range(6, len(values), 2) if record["pairs"]["distance"][i] == 2]
        assert mean_similarity(rows, rows["distance"] == 2).estimate == pytest.approx(np.mean(at_two))
        assert mean_similarity(rows, rows["distance"] == 9) is None

    def test_intervals_are_over_children_in_all_super_nets_alike(self):
        one, two = pair_rows(STUDY[2:3]), pair_rows([STUDY[2], STUDY[2] | {"supernet": "copy"}])
        single, double = mean_similarity(one), mean_similarity(two)
        # The same rows once more are no new evidence.
        assert double == pytest.approx(single)
        by_row = cluster_bootstrap_interval(np.mean, np.arange(len(one["block"])), one["gradient_similarity"], seed=0)
        assert single.high - single.low > 1.5 * (by_row.high - by_row.low)

    def test_associations_find_what_was_planted_and_only_that(self):
        rows = pair_rows(STUDY[2:3])
        found = associations(rows)
        assert found["distance"].high < -0.3
        assert found["input_similarity"].low > 0.1
        assert found["input_similarity within"].low > 0.1
        # By block alone: the blocks' means are all there is, so nothing is left within them.
        flat = {**rows, "gradient_similarity": 0.1 * rows["block"], "input_similarity": 0.9 - 0.1 * rows["block"]}
        confounded = associations(flat)
        assert confounded["input_similarity"].estimate == pytest.approx(-1)
        assert math.isnan(confounded["input_similarity within"].estimate)

    def test_bins_part_the_rows_with_different_inputs(self):
        rows = pair_rows(STUDY[2:3])
        bins = similarity_bins(rows, "input_similarity")
        assert sum(part.num_rows for part in bins) == int((rows["num_before"] > 0).sum())
        centres = [part.centre for part in bins]
        assert centres == sorted(centres)
        assert centres[-1] < 1
        assert bins[-1].similarity.estimate > bins[0].similarity.estimate + 0.1

    def test_gains_are_of_the_same_pairs(self):
        uniform, magic = pair_rows([STUDY[2], STUDY[6]]), pair_rows([STUDY[3], STUDY[7]])
        gain = gain_over(magic, uniform)
        assert gain.estimate == pytest.approx(0.03)
        assert gain.high - gain.low < 1e-9  # what the children have in common is gone
        assert gain_over(uniform, uniform) == pytest.approx((0, 0, 0))
        with pytest.raises(ValueError, match="other pairs: they differ in child"):
            gain_over(magic, {**uniform, "child": uniform["child"][::-1]})

    def test_groups_come_in_the_order_of_training(self):
        groups = measurements(STUDY)
        assert [(group.when, group.method, len(group.records)) for group in groups] == [
            ("before training", "untrained", 2),
            ("at 50% of training", "uniform", 2),
            ("after training", "uniform", 2),
            ("after training", "magic_t", 2),
        ]
        unknown = measurement() | {"method": None, "step": None, "max_steps": None}
        assert [(group.when, group.method) for group in measurements([unknown])] == [("at an unknown step", "unknown")]

    def test_refuses_what_is_no_measurement_by_name(self):
        with pytest.raises(ValueError, match="record 1 is no measurement of interference: it has no pairs"):
            measurements([STUDY[0], {name: value for name, value in STUDY[1].items() if name != "pairs"}])
        cut = {**STUDY[0]["pairs"], "block": STUDY[0]["pairs"]["block"][:-1]}
        with pytest.raises(ValueError, match="record 0: its pairs are cut"):
            measurements([STUDY[0] | {"pairs": cut}])
        with pytest.raises(ValueError, match="uniform-0-0 was measured twice"):
            measurements([STUDY[0], STUDY[0]])


class TestPage:
    def test_cells_are_the_summaries(self):
        tables = as_markdown(STUDY, ["overview", "distance", "inputs", "outputs", "blocks", "gains", "splits"])
        tables |= as_markdown(STUDY[2:3], ["associations"])
        mean = mean_similarity(pair_rows([STUDY[2], STUDY[6]]))
        cell = f"{mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        assert f"| after training | uniform | 0, 1 | 8 | 144 | {cell} |" in tables["overview"]
        assert "| after training | magic_t | 0.030 [0.030, 0.030] | +0.030, +0.030 |" in tables["gains"]
        assert "| after training | magic_t | 1 | attention / ffn | 0.470 | - |" in tables["splits"]
        assert as_markdown(STUDY, ["interference-blocks"])["interference-blocks"].endswith(
            "(figures/interference-blocks.png)"
        )
        for table in tables.values():
            lines = table.splitlines()
            assert len({line.count("|") for line in lines}) == 1
            assert "nan" not in table

    @pytest.mark.slow
    def test_docs_interference_is_what_its_records_say(self, tmp_path):
        from hf_nasbert.pipeline.interference import draw_interference

        text = (ROOT / "docs/interference.md").read_text(encoding="utf-8")
        found = records.read(ROOT / "benchmarks/records/interference.jsonl.gz")
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        fill_page(page, as_markdown(found))
        assert page.read_text(encoding="utf-8") == text
        draw_interference(found, tmp_path)
        assert_published(tmp_path, number=4)


class TestFigures:
    def test_lines_are_the_means(self):
        figure = plot_gradient_similarity(STUDY)
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "before training",
            "at 50% of training",
            "after training",
        ]
        drawn = figure.axes[2].get_lines()
        assert len(drawn) == 2
        rows = pair_rows([STUDY[2], STUDY[6]])
        expected = [mean_similarity(rows, rows["distance"] == distance).estimate for distance in (1, 2, 3)]
        assert drawn[0].get_xdata().tolist() == [1, 2, 3]
        assert drawn[0].get_ydata().tolist() == expected
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["untrained", "uniform", "magic_t"]

    def test_cells_are_the_means(self):
        figure = plot_similarity_by_block(STUDY)
        rows = pair_rows([STUDY[2], STUDY[6]])
        inside = (rows["block"] == 2) & (rows["kind"] == "ffn")
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts[-1] == f"{rows['gradient_similarity'][inside].mean():.2f}"
        assert len(texts) == 6

    def test_the_same_records_give_the_same_bytes(self, tmp_path):
        made = [
            save_figure(plot_gradient_similarity(STUDY[2:3], against="output_similarity"), tmp_path / name)[1]
            for name in ("one", "two")
        ]
        assert made[0].read_bytes() == made[1].read_bytes()

    def test_refuses_nothing_to_draw(self):
        with pytest.raises(ValueError, match="no measurement"):
            plot_gradient_similarity([])
        with pytest.raises(ValueError, match="against='blocks'"):
            plot_gradient_similarity(STUDY, against="blocks")


def data_arguments(**changes):
    settings = {"train_files": [str(TEXT)], "vocab_size": 300, "max_seq_length": 16, "validation_fraction": 0.3}
    return DataArguments(**{**settings, "sample_by": "paragraph", **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run of six steps with its checkpoints, and the weights that it started from."""
    from accelerate.state import AcceleratorState

    from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain, pretrain_supernet

    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("runs") / "uniform"
    start = {}

    def train(supernet, *args, **kwargs):
        start.update({name: tensor.clone() for name, tensor in supernet.state_dict().items()})
        return original(supernet, *args, **kwargs)

    original = pretrain.train_supernet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "train_supernet", train)
        pretrain_supernet(
            SupernetArguments(
                operators=["attention", "ffn"], num_choice_blocks=3, hidden_size=32, max_position_embeddings=16
            ),
            data_arguments(),
            SupernetTrainingArguments(
                output_dir=str(folder),
                method="uniform",
                seed=3,
                max_steps=6,
                save_steps=3,
                per_device_train_batch_size=4,
                num_eval_batches=1,
                num_eval_children=1,
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
        )
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, start


def interference_arguments(output, *supernets, **changes):
    from hf_nasbert.pipeline import InterferenceArguments

    settings = {"num_children": 2, "num_settings": 2, "num_dev_batches": 1, "dev_batch_size": 4, **changes}
    return InterferenceArguments(supernets=[str(folder) for folder in supernets], output=str(output), **settings)


class TestPipeline:
    def test_measures_checkpoints_ends_and_beginnings_once(self, run, tmp_path, monkeypatch):
        from hf_nasbert.pipeline import interference

        folder, _ = run
        output = tmp_path / "interference.jsonl"
        arguments = interference_arguments(output, folder / "checkpoint-3", folder, untrained=True)
        measured = interference.measure_interference(arguments, data_arguments())
        assert [(r["method"], r["seed"], r["step"], r["max_steps"]) for r in measured] == [
            ("uniform", 3, 3, 6),
            (None, 3, 0, 6),
            ("uniform", 3, 6, 6),
        ]
        assert [group.when for group in measurements(measured)] == [
            "before training",
            "at 50% of training",
            "after training",
        ]
        assert records.read(output) == measured
        # A killed process leaves half a line: what was whole is kept, the rest measured again, to the same digits.
        whole = output.read_bytes()
        output.write_bytes(whole[: len(whole) - 500])
        with pytest.MonkeyPatch.context() as patch:
            calls = []
            patch.setattr(
                interference, "measure_pairs", lambda *args, **kw: calls.append(1) or measure_pairs(*args, **kw)
            )
            again = interference.measure_interference(arguments, data_arguments())
        assert len(calls) == 1
        assert again == measured
        assert output.read_bytes() == whole
        monkeypatch.setattr(interference, "measure_pairs", None)
        assert interference.measure_interference(arguments, data_arguments()) == measured
        # The last checkpoint and the run's end are the same weights.
        same = interference_arguments(output, folder / "checkpoint-6", untrained=True)
        assert interference.measure_interference(same, data_arguments()) == measured
        with pytest.raises(ValueError, match="another num_children"):
            interference.measure_interference(interference_arguments(output, folder, num_children=3), data_arguments())

    def test_an_untrained_super_net_is_the_runs_own_beginning(self, run):
        from hf_nasbert.extraction import load_supernet
        from hf_nasbert.pipeline.interference import initial_supernet

        folder, start = run
        torch.manual_seed(7)
        before = torch.get_rng_state()
        made = initial_supernet(load_supernet(folder).config, 3).state_dict()
        assert made.keys() == start.keys()
        assert all(torch.equal(made[name], tensor) for name, tensor in start.items())
        assert torch.equal(torch.get_rng_state(), before)
        other = initial_supernet(load_supernet(folder).config, 4).state_dict()
        assert any(not torch.equal(other[name], tensor) for name, tensor in start.items())

    def test_refuses_what_does_not_fit_by_name(self, run, tmp_path):
        import shutil

        from hf_nasbert.pipeline.interference import measure_interference

        folder, _ = run
        output = tmp_path / "interference.jsonl"

        def refused(message, *supernets, data=None, **changes):
            with pytest.raises((ValueError, OSError), match=message):
                measure_interference(interference_arguments(output, *supernets, **changes), data or data_arguments())
            assert not output.exists()

        refused("no such folder", tmp_path / "nobody")
        refused(
            "max_seq_length=32, but the super-net was built for 16", folder, data=data_arguments(max_seq_length=32)
        )
        # Another tokenizer of the same size: nothing but the words tells.
        other = tmp_path / "other"
        shutil.copytree(folder, other, ignore=shutil.ignore_patterns("checkpoint-*"))
        file = other / "tokenizer.json"
        content = json.loads(file.read_text())
        words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
        words[-1], words[-2] = words[-2], words[-1]
        content["model"]["vocab"] = {word: number for number, word in enumerate(words)}
        file.write_text(json.dumps(content))
        refused("other has another tokenizer than", folder, other)
        refused("has another tokenizer than tokenizer_name", other, data=data_arguments(tokenizer_name=str(folder)))
        # A damaged checkpoint.
        damaged = tmp_path / "checkpoint-3"
        shutil.copytree(folder / "checkpoint-3", damaged)
        refused("holds no tokenizer", damaged)
        state = damaged / "training_state.json"
        state.write_text(state.read_text().replace('"step": 3', '"step": 4'))
        refused("training_state.json", folder, damaged)
        # A super-net that nobody trained here has no seed to begin from.
        (other / "train_log.jsonl").unlink()
        refused("does not say by which seed", other, untrained=True)
        # A file of something else.
        output.write_text('{"architecture": "ffn-ffn-ffn", "proxy_loss": 1.0}\n')
        with pytest.raises(ValueError, match="record 0 is no measurement"):
            measure_interference(interference_arguments(output, folder), data_arguments())

    @pytest.mark.parametrize("name", ["num_children", "num_settings", "max_distance"])
    def test_refuses_odd_numbers(self, name):
        with pytest.raises(ValueError, match=f"{name}=0"):
            interference_arguments("records.jsonl", "somewhere", **{name: 0})

    def test_report_fills_the_page(self, tmp_path):
        from hf_nasbert.pipeline import InterferenceReportArguments, report_interference

        records.extend(tmp_path / "study.jsonl", STUDY[2:3])
        page = tmp_path / "page.md"
        page.write_text("# Title\n<!-- table: gains -->\nold | text\n<!-- end -->\nwords\n")
        figures = tmp_path / "figures"
        text = report_interference(
            InterferenceReportArguments(measured=str(tmp_path / "study.jsonl"), page=str(page), figures=str(figures))
        )
        assert as_markdown(STUDY[2:3])["gains"] in text
        gains = as_markdown(STUDY[2:3])["gains"]
        assert page.read_text() == f"# Title\n<!-- table: gains -->\n{gains}\n<!-- end -->\nwords\n"
        assert {file.stem for file in figures.iterdir()} == set(FIGURES)
        assert "(figures/" not in text
        page.write_text("<!-- table: gain -->\n<!-- end -->\n")
        with pytest.raises(ValueError, match="no table 'gain'"):
            report_interference(InterferenceReportArguments(measured=str(tmp_path / "study.jsonl"), page=str(page)))
