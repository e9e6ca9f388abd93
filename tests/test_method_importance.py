"""`importance`: operators and sequences of large gradients are drawn more, and weighed so that nothing is biased."""

import itertools
import math
from collections import Counter

import pytest
import torch
from tiny.models import randomise_
from tiny.trainings import TinyBatches, make_supernet, make_trainer, train_log

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, ChildRun, Counts, StepContext
from hf_nasbert.space import Architecture, SearchSpace

PLAIN = SearchSpace.chain(2, ("attention", "ffn", "conv3"))


def make(space=PLAIN, **settings):
    config = make_supernet().config
    kind = METHODS["importance"]
    cost = lambda child: num_parameters(config, child)  # noqa: E731
    return kind(space, kind.Settings(**settings), cost=cost, seed=0, max_steps=10)


def test_probabilities_by_hand_and_draws_that_follow_them():
    method = make()
    assert method.probabilities(0, "ffn") == pytest.approx(dict.fromkeys(("attention", "ffn", "conv3"), 1 / 3))
    method.memory["norms"][0] = {"attention": 3.0, "ffn": 1.0}  # conv3 was not seen: 2
    expected = {"attention": 1 / 6 + 0.25, "ffn": 1 / 6 + 1 / 12, "conv3": 1 / 3}
    assert method.probabilities(0, "ffn") == pytest.approx(expected)
    drawn = Counter(method.children()[0][0] for _ in range(1500))
    assert {name: count / 1500 for name, count in drawn.items()} == pytest.approx(expected, abs=0.04)
    method.memory["norms"][0] = {"attention": 1e9, "ffn": 0.0, "conv3": 0.0}
    assert method.probabilities(0, "ffn")["ffn"] == pytest.approx(0.5 / 3), "the floor"


def test_weights_make_the_mean_over_children_that_of_uniform_draws():
    method = make()
    method.memory["norms"] = [{"attention": 3.0, "ffn": 1.0, "conv3": 0.5}, {"attention": 0.1, "ffn": 9.0}]
    for names in itertools.product(*PLAIN.blocks):
        chance = math.prod(method.probabilities(block, name)[name] for block, name in enumerate(names))
        assert chance * method.weight(0, [Architecture(names)]) == pytest.approx(1 / 9)
    biased = make(importance_unbiased=False)
    biased.memory["norms"] = method.memory["norms"]
    assert biased.weight(0, [Architecture(["attention", "ffn"])]) == 1.0


def test_skips_and_widths_stay_uniform():
    space = SearchSpace.staged(1, 3, ("attention", "ffn", "skip"), widths=(32, 64))
    method, uniform = (
        make(space),
        METHODS["uniform"](space, METHODS["uniform"].Settings(), cost=lambda child: 1.0, seed=0, max_steps=10),
    )
    method.memory["norms"] = [{"attention@32": 1e6, "ffn@64": 1.0} for _ in range(3)]
    for _ in range(100):
        (child,), (plain,) = method.children(), uniform.children()
        assert [name.partition("@")[2] for name in child] == [name.partition("@")[2] for name in plain]
        assert space.why_not(child) is None


def test_norms_are_those_of_the_childs_own_gradient(tmp_path):
    """Summed over micro-batches, not clipped, and without the weight of the step."""
    settings = {"sequence_importance": False, "max_grad_norm": 1e-3, "gradient_accumulation_steps": 2}
    trainer = make_trainer(tmp_path, method="importance", norm_decay=0.75, max_steps=1, **settings)
    method, supernet = trainer.method, trainer.supernet
    child = Architecture(["attention", "ffn", "conv3", "skip"])
    method.children = lambda: (child,)
    method.memory["norms"] = [{"attention": 8.0, "ffn": 1.0, "conv3": 2.0} for _ in range(4)]
    del method.memory["norms"][2]["conv3"]
    assert method.weight(0, [child]) != 1.0
    batch = trainer.batches.batch(0)
    supernet.train()(**batch, architecture=child).loss.backward()
    own = [
        math.sqrt(sum(float(p.grad.square().sum()) for p in module.operators.parameters_of(block.name)))
        for module, block in supernet.nasbert.encoder.parts_of(child)
    ]
    supernet.zero_grad(set_to_none=True)
    trainer.train()
    norms = method.memory["norms"]
    for block, (name, before) in enumerate((("attention", 8.0), ("ffn", 1.0), ("conv3", own[2]))):
        assert norms[block][name] == pytest.approx(0.75 * before + 0.25 * own[block], rel=1e-4)
    assert norms[3] == {"attention": 8.0, "ffn": 1.0, "conv3": 2.0}, "a skip has no gradient"
    assert norms[0]["ffn"] == 1.0
    assert norms[2]["conv3"] == pytest.approx(own[2], rel=1e-4), "the first norm is taken whole"


def data(step, **more):
    """Two sequences of three masked tokens each, the first of which is predicted well."""
    labels = torch.tensor([[1, 2, 3], [1, 2, 3]])
    logits = torch.zeros(6, 5, dtype=torch.float64)
    logits[range(3), [1, 2, 3]] = 6.0
    logits.requires_grad_()
    context = StepContext(None, step, labels, None, labels, None, Counts(6, 6, 6, 6), False, **more)
    each = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="none")
    return context, ChildRun(Architecture(["ffn", "ffn"]), each.sum() / 6, logits), each.detach()


def score(logits, label):
    guesses = torch.softmax(logits.detach(), -1).clone()
    guesses[label] -= 1
    return float(guesses.norm())


def test_sequences_by_hand():
    method = make(importance_unbiased=False)
    context, run, each = data(0)
    scores = [score(run.logits[0], 1), score(run.logits[3], 1)]
    method.memory["mean_score"] = sum(scores) / 2
    expected = [0.5 + 0.5 * one / method.memory["mean_score"] for one in scores]
    assert expected[0] < 0.6 < 1.4 < expected[1]
    counts = []
    for step in range(400):
        loss, (term,) = method.loss(run, (), context._replace(step=step))
        assert float(term) == pytest.approx(sum(scores) / 2)
        easy, hard = float(each[0]) / 2, float(each[3]) / 2
        fits = [
            (a, b) for a in range(3) for b in range(3) if float(loss.detach()) == pytest.approx(a * easy + b * hard)
        ]
        assert len(fits) == 1, "a sequence counts some whole times"
        counts += fits
    means = [sum(count) / 400 for count in zip(*counts, strict=True)]
    assert means == pytest.approx(expected, abs=0.08), "and on average N p times"
    assert {count for count, _ in counts} == {0, 1}


def test_parts_of_a_step_draw_what_the_whole_of_it_does(tmp_path):
    method = make(importance_unbiased=False)
    context, run, _ = data(0)
    for step in range(30):
        whole, _ = method.loss(run, (), context._replace(step=step))
        parts = 0.0
        for row in range(2):
            part = context._replace(step=step, labels=context.labels[row : row + 1], first_row=row)
            parts += float(method.loss(run._replace(logits=run.logits[3 * row : 3 * row + 3]), (), part)[0].detach())
        assert parts == pytest.approx(float(whole.detach()))
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_eval_children": 0}
    trainer = make_trainer(tmp_path, method="importance", max_steps=1, **settings)
    loss, seen = trainer.method.loss, []
    trainer.method.loss = lambda run, peers, context: (seen.append(context.first_row), loss(run, peers, context))[1]
    trainer.train()
    assert seen == [0, 2]


def test_weighed_sequences_have_the_gradient_of_all_of_them():
    method, (context, run, _) = make(), data(0)
    method.memory["mean_score"] = 0.45
    total = torch.zeros_like(run.logits)
    for step in range(400):
        loss, _ = method.loss(run, (), context._replace(step=step))
        total += torch.autograd.grad(loss, run.logits)[0] / 400
    plain = torch.autograd.grad(run.loss, run.logits)[0]
    assert float((total - plain).norm()) < 0.08 * float(plain.norm())
    taught, (nothing,) = method.loss(run, (), context._replace(is_taught=True))
    assert taught is run.loss
    assert nothing == 0


def test_the_mean_score_follows_the_steps(tmp_path):
    supernet = make_supernet()
    randomise_(supernet, seed=3)
    trainer = make_trainer(tmp_path, supernet=supernet, method="importance", norm_decay=0.5, max_steps=3)
    trainer.train()
    mean = 1.0
    for line in train_log(tmp_path):
        mean += 0.5 * (line["row_score"] - mean)
    assert trainer.method.memory["mean_score"] == pytest.approx(mean)
    assert mean != 1.0


def test_gradients_in_parts_or_scaled_are_refused(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, method="importance", batches=TinyBatches(4))
    trainer.arguments.mixed_precision = "fp16"
    with pytest.raises(ValueError, match="importance reads gradients, which FSDP cuts into parts and fp16 scales"):
        trainer._check(trainer.dev_batches)
    trainer.arguments.mixed_precision = "no"
    trainer._check(trainer.dev_batches)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="importance reads gradients"):
        trainer._check(trainer.dev_batches)


@pytest.mark.parametrize(("setting", "value"), [("importance_floor", 0), ("importance_floor", 2), ("norm_decay", 1)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        make(**{setting: value})
