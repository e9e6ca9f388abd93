"""Attentive sampling: candidates of one size, and the best or worst of them on the step's own batch."""

from collections import Counter
from functools import partial

import pytest
import torch
from tiny.models import randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, attentive
from hf_nasbert.methods.attentive import SizedSampler
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import SearchSpace
from hf_nasbert.testing import check_sampler
from hf_nasbert.testing.samplers import SPACES as SAMPLED

PAIRS = SearchSpace.chain(2, ("attention", "ffn"))


def num_ffn(child):
    return 10 + 2 * sum(name.startswith("ffn") for name in child)


def make_method(space="chain", **settings):
    kind, config = METHODS["attentive"], make_supernet(space).config
    cost = partial(num_parameters, config)
    return kind(SPACES[space], kind.Settings(**settings), cost=cost, seed=0, max_steps=10)


class TestSizes:
    def sampler(self, space=PAIRS, **options):
        return SizedSampler(space, **{"seed": 0, "cost": num_ffn, "num_bins": 3, **options})

    @pytest.mark.slow
    @pytest.mark.parametrize("space", ["staged", "skip-anywhere", "uneven"])
    def test_it_is_a_sampler(self, space):
        check_sampler(partial(SizedSampler, cost=num_ffn, num_bins=3), SAMPLED[space])

    def test_groups_have_the_sizes_of_uniform_draws(self):
        """Of two blocks without, with one and with two ffn: a quarter, a half and a quarter."""
        groups = draws(self.sampler(), 800)
        assert all(len({num_ffn(child) for child in group}) == 1 for group in groups)
        shares = Counter(num_ffn(group[0]) for group in groups)
        for size, share in ((10, 0.25), (12, 0.5), (14, 0.25)):
            assert shares[size] / len(groups) == pytest.approx(share, abs=0.05)
        assert {str(child) for group in groups for child in group} == set(map(str, PAIRS.enumerate()))

    def test_operators_are_drawn_by_their_shares_at_the_size(self):
        """A space whose small children all begin with attention: drawing freely would begin with ffn half the time."""
        space = SearchSpace.chain(4, ("attention", "ffn"))
        sampler = self.sampler(space, cost=lambda child: child[0] == "ffn", num_bins=2)
        tried = []
        draw = sampler._draw
        sampler._draw = lambda size: tried.append(draw(size)) or tried[-1]
        groups = draws(sampler, 50)
        assert len(tried) == 150, "none had to be drawn twice"
        assert {len({child[0] for child in group}) for group in groups} == {1}

    def test_shares_are_of_draws_and_not_of_children(self):
        """Drawn beforehand, attention-skip-skip comes three times as often as any other child of its size."""
        space = SearchSpace.chain(3, ("attention", "ffn", "skip"))
        sampler = self.sampler(space, cost=lambda child: (child[0] == "attention") == (child[1] == "skip"), num_bins=2)
        size = sampler.size_of(("attention", "skip", "skip"))
        drawn = [group for group in draws(sampler, 900) if sampler.size_of(group[0]) == size]
        first = [child[0] == "attention" for group in drawn for child in group]
        # A third of the draws of this size are shallow, a third begin with attention: 1/9 of shallow ones that do
        # are kept, and 4/9 of deep ones that do not.
        assert sum(first) / len(first) == pytest.approx(0.2, abs=0.05)

    def test_after_a_hundred_draws_the_last_one_is_taken(self):
        sampler = self.sampler()
        tried = []
        others = {10: "ffn-ffn", 12: "ffn-ffn", 14: "attention-attention"}
        size = sampler.size_of(("attention", "attention"))
        sampler._draw = lambda _: tried.append(None) or sampler.space.validate(others[10])
        assert str(sampler._of_size(size)) == "ffn-ffn"
        assert len(tried) == 100

    def test_children_of_one_size_alone_are_all_alike(self):
        sampler = self.sampler(cost=lambda _: 7)
        assert {sampler.size_of(child) for child in PAIRS.enumerate()} == {0}
        assert len(set(draws(sampler, 50))) > 10

    def test_the_other_sizes_are_the_nearest(self, monkeypatch):
        monkeypatch.setattr(attentive, "_NUM_PRESAMPLED", 1)
        sampler = self.sampler()
        (drawn,) = sampler._presampled
        assert {sampler.size_of(child) for child in PAIRS.enumerate()} == {0}
        assert {str(child) for group in draws(sampler, 9) for child in group} == {str(drawn)}


def draws(sampler, number):
    return [sampler.next_group(3) for _ in range(number)]


class TestChoosing:
    @pytest.mark.parametrize(("rule", "places"), [("best", (1, 0)), ("worst", (2, 1))])
    def test_one_of_each_group(self, rule, places):
        method = make_method(attentive_to=rule)
        children = method.children()
        groups, asked = method._groups, []
        losses = (2.0, 1.0, 3.0, 4.0, 5.0, 5.0)  # of equals the first one
        chosen = method.chosen_on(children, lambda candidates: asked.append(candidates) or losses)
        assert asked == [[*groups[0], *groups[1]]]
        assert chosen == (*children[:2], *(group[place] for group, place in zip(groups, places, strict=True)))
        assert children == (method.largest, method.smallest, groups[0][0], groups[1][0])

    def test_the_candidates_cost_a_pass_each(self):
        assert make_method().passes_per_step == 3 * 4 + 6
        assert make_method(num_random_children=3, num_candidates=5).passes_per_step == 3 * 5 + 15

    def test_the_children_of_a_step_are_best_on_its_batch(self, tmp_path):
        """The effect: by losses that are computed here, of candidates whose losses differ, over micro-batches."""
        batches = TinyBatches(8, padding=True)
        trainer = make_trainer(
            tmp_path, method="attentive", num_candidates=4, batches=batches,
            supernet=make_supernet(dropout=0.3), per_device_train_batch_size=4, gradient_accumulation_steps=2,
            max_steps=2, save_steps=100, num_eval_children=0,
        )  # fmt: skip
        randomise_(trainer.supernet)
        trainer.step.losses = lambda step, candidates, batch, losses=trainer.step.losses: (
            told.append(
                (
                    candidates,
                    score_architectures(trainer.supernet, candidates, [batch]),
                    losses(step, candidates, batch),
                )
            )
            or told[-1][2]
        )
        told, backward = [], trainer.step.backward
        trainer.step.backward = lambda step, children, *given, **named: (
            told.append(children) or backward(step, children, *given, **named)
        )
        trainer.train()
        assert len(told) == 2 * 2
        num_told = 0
        for (candidates, expected, losses), children in zip(told[::2], told[1::2], strict=True):
            assert losses == pytest.approx(expected, rel=1e-5)
            assert children[:2] == (trainer.method.largest, trainer.method.smallest)
            for child, start in ((children[2], 0), (children[3], 4)):
                group = dict(zip(candidates[start : start + 4], expected[start : start + 4], strict=True))
                assert group[child] == pytest.approx(min(group.values()), rel=1e-5)
                num_told += max(group.values()) > 1.01 * min(group.values())
        assert num_told >= 2

    def test_candidates_are_scored_without_a_trace(self, tmp_path):
        """No dropout, no gradient, nothing drawn, and the mode of every module comes back."""
        trainer = make_trainer(tmp_path, method="attentive", supernet=make_supernet(dropout=0.5))
        trainer.model.train()
        children, batch = trainer.method._groups or trainer.method.children(), trainer.batches.batch(0)
        state = torch.get_rng_state()
        one, other = (trainer.step.losses(0, children, batch) for _ in range(2))
        assert one == other == pytest.approx(score_architectures(trainer.supernet, children, [batch]), rel=1e-5)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(p.grad is None for p in trainer.supernet.parameters())
        assert all(module.training for module in trainer.supernet.modules())


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"attentive_to": "x"}, "attentive_to='x': expected best or worst"),
            ({"num_candidates": 1}, "num_candidates=1: expected at least 2"),
            ({"num_size_bins": 0}, "num_size_bins=0: expected at least 1"),
        ],
    )
    def test_settings(self, settings, words):
        with pytest.raises(ValueError, match=words):
            make_method(**settings)

    def test_no_cost(self):
        kind = METHODS["attentive"]
        with pytest.raises(ValueError, match="method=attentive draws children by their size: it needs a cost"):
            kind(PAIRS, kind.Settings(), cost=None, seed=0, max_steps=1)
