"""`magic_at_guarded`: where MAGIC-AT pays for equal states of all tokens, each of its guards makes them cost."""

import pytest
import torch
from tiny.distilling import make_taught_trainer
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, ChildRun, Counts, StepContext
from hf_nasbert.objectives import at_all_tokens, relative_error, token_variances, variance_hinge

OFF = {"relative_alignment": False, "variance_weight": 0.0, "average_decay": 0.0}


def make_method(**settings):
    kind, config = METHODS["magic_at_guarded"], make_supernet().config
    return kind(
        SPACES["chain"],
        kind.Settings(**settings),
        cost=lambda child: num_parameters(config, child),
        seed=0,
        max_steps=9,
    )


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(method, squeezed, monkeypatch):
    """The loss where the states of child and anchor lie so near to each other."""

    def states(seed):
        return [squeezed * random(4, 10, 32, seed=seed + block) for block in range(4)]

    batch, (child,) = TinyBatches(4).batch(0), method.children()
    monkeypatch.setattr(method, "_taught", lambda context: states(0))
    own = states(100)
    labels = batch["labels"]
    own[-1] = own[-1].flatten(0, 1)[labels.flatten() != -100]  # the last block's exist at labelled tokens
    number = int((labels != -100).sum())
    context = StepContext(None, 0, batch["input_ids"], None, labels, None, Counts(number, 40, number, 40), False)
    run = ChildRun(child, torch.zeros(()), torch.zeros(0, 0), [own[0], *own])
    loss, (alignment, hinge) = method.loss(run, (), context)
    expected = method.settings.alignment_weight * alignment + method.settings.variance_weight * hinge
    assert float(loss) == pytest.approx(float(expected))
    return float(loss)


class TestEqualStates:
    SQUEEZED = (1.0, 0.3, 0.1, 0.03)

    def test_they_cost(self, monkeypatch):
        found = [loss_of(make_method(), squeezed, monkeypatch) for squeezed in self.SQUEEZED]
        assert found == sorted(found), found
        assert found[-1] > 1.2 * found[0]

    def test_without_the_guards_they_pay(self, monkeypatch):
        found = [loss_of(make_method(**OFF), squeezed, monkeypatch) for squeezed in self.SQUEEZED]
        assert found[-1] < 0.1 * found[0], found

    def test_a_relative_error_is_that_of_any_scale(self, monkeypatch):
        method = make_method(**OFF | {"relative_alignment": True})
        found = [loss_of(method, squeezed, monkeypatch) for squeezed in self.SQUEEZED]
        assert found == pytest.approx([found[0]] * 4, rel=0.2)

    def test_the_hinge_alone_costs(self, monkeypatch):
        method = make_method(**OFF | {"variance_weight": 10.0})
        found = [loss_of(method, squeezed, monkeypatch) for squeezed in self.SQUEEZED]
        assert found[-1] > 1.2 * found[0], found


def test_both_terms_are_means_over_the_blocks_and_over_the_tokens_that_there_are(monkeypatch):
    """Real tokens of three blocks, tokens to predict of the last one; each by how many the whole step has."""
    method, batch = make_method(variance_floor=2.0), TinyBatches(4, padding=True).batch(0)
    (child,), real, labelled = method.children(), batch["attention_mask"].bool(), batch["labels"] != -100
    own, taught = ([random(4, 10, 32, seed=seed + block) for block in range(4)] for seed in (0, 50))
    monkeypatch.setattr(method, "_taught", lambda context: taught)
    counts = Counts(17, 90, 13, 70)
    context = StepContext(None, 0, batch["input_ids"], batch["attention_mask"], batch["labels"], None, counts, False)
    states = [own[0], *own[:3], own[3][labelled]]
    _, terms = method.loss(ChildRun(child, torch.zeros(()), torch.zeros(0, 0), states), (), context)
    parts = [(*pair, real, 70) for pair in zip(own[:3], taught[:3], strict=True)]
    parts.append((at_all_tokens(own[3][labelled], labelled), taught[3], labelled, 13))
    expected = (
        sum(relative_error(one, target, mask, number) for one, target, mask, number in parts) / 4,
        sum(variance_hinge(one, mask, floor=2.0, num_tokens=number) for one, _, mask, number in parts) / 4,
    )
    assert [float(term) for term in terms] == pytest.approx([float(one) for one in expected], rel=1e-5)
    assert min(map(float, terms)) > 0.1


class TestNumbers:
    STATES = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]]])
    MASK = torch.tensor([[True, True, False]])

    def test_variances_are_those_over_real_tokens(self):
        assert token_variances(self.STATES, self.MASK).tolist() == [[2.0, 0.0]]
        assert token_variances(self.STATES, self.MASK & False).tolist() == [[0.0, 0.0]]

    def test_the_error_is_relative_to_the_targets_variance(self):
        off = self.STATES + torch.tensor([1.0, 1.0])
        assert float(relative_error(off, self.STATES, self.MASK, 2)) == pytest.approx(1.0, rel=1e-3)
        assert float(relative_error(10 * off, 10 * self.STATES, self.MASK, 2)) == pytest.approx(1.0, rel=1e-3)
        assert float(relative_error(off, self.STATES, self.MASK, 4)) == pytest.approx(0.5, rel=1e-3)
        lone = torch.tensor([[True, False, False]])
        assert float(relative_error(off, self.STATES, lone, 1)) == 0

    def test_the_hinge_is_what_deviations_lack(self):
        found = variance_hinge(self.STATES, self.MASK, floor=1.0, num_tokens=2)
        assert float(found) == pytest.approx((0 + 1.0 - 0.01) / 2)  # deviations of sqrt(2) and (nearly) 0

    def test_states_go_back_to_their_places(self):
        where = torch.tensor([[False, True], [True, False]])
        found = at_all_tokens(torch.tensor([[1.0], [2.0], [3.0]]), where)
        assert found.squeeze(-1).tolist() == [[0.0, 1.0], [2.0, 0.0]]


def test_the_anchor_runs_with_averages_which_a_step_does_not_drag_along():
    supernet, method = make_supernet().eval(), make_method()
    method.begin(lambda: supernet, {})
    (child,) = method.children()
    batch = TinyBatches(2).batch(0)
    context = StepContext(supernet, 0, batch["input_ids"], None, batch["labels"], None, Counts(1, 1, 1, 1), False)
    before = method._taught(context)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(random(*parameter.shape))
    assert all(torch.equal(one, other) for one, other in zip(before, method._taught(context), strict=True))
    old = {name: mean.clone() for name, mean in method.teacher.average.named_parameters()}
    method.after_step(10**6, (child,), (1.0,), lambda *_: [1.0, 2.0], lambda: supernet)
    parameter = dict(supernet.named_parameters())
    for name, mean in method.tensors().items():
        torch.testing.assert_close(mean, 0.999 * old[name] + 0.001 * parameter[name])
    assert not torch.equal(before[0], method._taught(context)[0])


@pytest.mark.slow
def test_trained_it_keeps_the_spread_that_the_unguarded_one_loses(tmp_path):
    """Under an alignment that is far too strong."""
    spread = {}
    for name, settings in (("guarded", {}), ("unguarded", OFF)):
        trainer = make_trainer(
            tmp_path / name, method="magic_at_guarded", max_steps=40, save_steps=100, logging_steps=40,
            num_eval_children=0, alignment_weight=30.0, **settings,
        )  # fmt: skip
        trainer.train()
        batch = TinyBatches(4).batch(0)
        with torch.no_grad():
            states = trainer.supernet.eval()(
                batch["input_ids"], architecture=trainer.method.anchor, output_hidden_states=True
            ).hidden_states
        spread[name] = min(
            float(token_variances(one, torch.ones(one.shape[:2])).mean()) for one in states[1:] if one.dim() == 3
        )
    assert spread["guarded"] > 2 * spread["unguarded"], spread


def test_the_base_model_as_the_anchor_is_no_average(tmp_path):
    trainer = make_taught_trainer(tmp_path, method="magic_at_guarded", anchor="base_model", max_steps=2)
    trainer.train()
    assert trainer.method.tensors() == {}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"average_decay": 1.0}, "average_decay=1.0: expected below 1"),
        ({"variance_weight": -1.0}, "variance_weight=-1"),
    ],
)
def test_refusals(setting, words):
    with pytest.raises(ValueError, match=words):
        make_method(**setting)
