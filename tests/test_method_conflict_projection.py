"""Conflict projection: gradients of the largest child and of the others, kept apart and merged tensor by tensor."""

import pytest
import torch
from tiny.models import gradients, randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer

from hf_nasbert.methods import METHODS
from hf_nasbert.methods.conflict_projection import ConflictProjectionSettings, projected
from hf_nasbert.training import sharding


class TestTwoTensors:
    """g = (1 + a) g_sub + g_max, a = - <g_sub, g_max> / <g_sub, g_sub>, between 0 and 2."""

    @pytest.mark.parametrize(
        ("g_max", "g_sub", "expected"),
        [
            ((1.0, 1.0), (2.0, 0.0), (3.0, 1.0)),  # they agree: the sum
            ((-1.0, 1.0), (2.0, 0.0), (2.0, 1.0)),  # a = 1/2: what goes against g_sub is gone, the rest stays
            ((0.0, 1.0), (2.0, 0.0), (2.0, 1.0)),  # across
            ((-4.0, 1.0), (1.0, 0.0), (-1.0, 1.0)),  # a = 4 is 2: (1 + 2) - 4
            ((-1.0, 1.0), (0.0, 0.0), (-1.0, 1.0)),  # nothing goes against nothing
        ],
    )
    def test_by_hand(self, g_max, g_sub, expected):
        one, other = torch.tensor([g_max]), torch.tensor([g_sub])
        assert projected(one, other).tolist() == [pytest.approx(expected)]
        assert (one.tolist(), other.tolist()) == ([list(g_max)], [list(g_sub)]), "neither was changed"

    def test_numbers_that_are_none_are_seen(self):
        """So that training tells a divergence, and fp16 skips the step."""
        assert not projected(torch.tensor([torch.inf, 1.0]), torch.ones(2)).isfinite().all()


def step_of(folder, method, children=None, number=0, **settings):
    """The gradients of a step on eight sequences, by name, and its losses."""
    trainer = make_trainer(
        folder,
        method=method,
        batches=TinyBatches(8, padding=True),
        max_steps=10,
        supernet=make_supernet().double(),
        **settings,
    )
    randomise_(trainer.supernet)
    drawn = trainer.method.children()
    losses = trainer.step.backward(
        number, drawn if children is None else children(drawn), trainer.batches.batch(0), is_stopping=False
    )
    grads = gradients(trainer.supernet)
    assert [id(p) for p in losses.trained] == [id(p) for p in trainer.supernet.parameters() if p.grad is not None]
    return grads, losses


WHOLE = {"per_device_train_batch_size": 8}
PARTS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """The largest child's gradients, and those of all others together: the sandwich's without them."""
    folder = tmp_path_factory.mktemp("apart")
    largest = step_of(folder / "largest", "sandwich", lambda drawn: drawn[:1], **WHOLE)[0]
    both = step_of(folder / "both", "sandwich", **WHOLE)[0]
    return largest, {name: grad - largest[name] if name in largest else grad for name, grad in both.items()}


class TestAStep:
    @pytest.mark.parametrize(("yields", "sizes"), [("largest", WHOLE), ("largest", PARTS), ("others", PARTS)])
    def test_what_goes_against_the_other_gradient_is_gone(self, tmp_path, apart, yields, sizes):
        """The effect, in every tensor that both have; whatever the number of micro-batches."""
        found, _ = step_of(tmp_path, "conflict_projection", number=5, conflict_yields=yields, **sizes)
        num_conflicts = 0
        assert found.keys() == apart[0].keys() | apart[1].keys()
        for name, grad in found.items():
            yielding, kept = (
                part.get(name, torch.zeros_like(grad)) for part in apart[:: 1 if yields == "largest" else -1]
            )
            conflict = -float((yielding * kept).sum()) / max(float((kept * kept).sum()), 1e-38)
            if name not in apart[0] or kept.abs().max() < 1e-12:  # nothing but rounding
                conflict = 0
            expected = yielding + (1 + min(max(conflict, 0.0), 2.0)) * kept
            torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-12, msg=name)
            if 0.01 < conflict < 2:
                num_conflicts += 1
                assert float((grad * kept).sum()) == pytest.approx(float((kept * kept).sum())), "the kept one is whole"
        assert num_conflicts >= 3

    def test_before_it_begins_a_step_is_a_sandwich_to_the_bit(self, tmp_path):
        plain, expected = step_of(tmp_path / "sandwich", "sandwich", number=2, **WHOLE)
        found, losses = step_of(tmp_path / "conflict", "conflict_projection", number=2, **WHOLE)
        assert losses[:-1] == expected[:-1]
        assert all(torch.equal(found[name], grad) for name, grad in plain.items())

    @pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.3, 3)])
    def test_it_begins_with_the_step_of_its_share(self, start, first):
        method = METHODS["conflict_projection"](
            SPACES["chain"], ConflictProjectionSettings(conflict_start=start), cost=len, seed=0, max_steps=10
        )
        assert [method.merge(step) is not None for step in range(10)] == [step >= first for step in range(10)]

    def test_a_child_that_runs_first_alone_keeps_its_gradient(self, tmp_path):
        one, other = (
            step_of(tmp_path / name, name, lambda drawn: drawn[:1], number=5, **WHOLE)[0]
            for name in ("sandwich", "conflict_projection")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conflict_start": 1}, "conflict_start=1 projects nothing; choose method=sandwich"),
        ({"conflict_start": -0.1}, "conflict_start=-0.1"),
        ({"conflict_yields": "both"}, "conflict_yields='both': expected largest or others"),
        ({"num_random_children": 0}, "num_random_children=0: expected at least 1"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        ConflictProjectionSettings(**settings)


def test_a_super_net_in_parts_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "is_wanted", lambda: True)
    monkeypatch.setenv("FSDP_VERSION", "2")
    words = r"^method=conflict_projection needs whole operators: launch with DDP \(multi_gpu\.yaml\)$"
    with pytest.raises(ValueError, match=words):
        make_trainer(tmp_path, supernet=make_supernet(), method="conflict_projection")
