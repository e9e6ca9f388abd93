"""`cross_path`: pairs without a common operator, each child taught by the other one's averaged twin."""

import pytest
import torch
from tiny.models import SPACES as MANY
from tiny.models import randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, ChildRun, Counts, StepContext
from hf_nasbert.objectives import distillation_loss
from hf_nasbert.space import SearchSpace


def make_method(space=SPACES["chain"], **settings):
    kind, config = METHODS["cross_path"], make_supernet().config
    cost = lambda child: num_parameters(config, child)  # noqa: E731
    return kind(space, kind.Settings(**settings), cost=cost, seed=0, max_steps=9)


@pytest.mark.parametrize("name", MANY)
def test_the_two_share_no_operator(name):
    method = make_method(MANY[name])
    for _ in range(20):
        first, second = method.children()
        assert all(one != other or one == "skip" for one, other in zip(first, second, strict=True))
    assert method.passes_per_step == 2 * 3 + 2, "each has a twin, which runs forward"


@torch.no_grad()
def step(method, supernet, pair):
    """Losses and terms of both children on one batch."""
    batch = TinyBatches(4).batch(0)
    number = int((batch["labels"] != -100).sum())
    context = StepContext(
        supernet, 0, batch["input_ids"], None, batch["labels"], None, Counts(number, 40, number, 40), False
    )
    runs = []
    for child in pair:
        made = supernet(batch["input_ids"], labels=batch["labels"], architecture=child, output_hidden_states=True)
        runs.append(ChildRun(child, made.loss, made.logits, made.hidden_states))
    return runs, [method.loss(run, (), context) for run in runs], context


class TestEachLearnsFromTheOthersTwin:
    @pytest.fixture
    def made(self):
        supernet, method = randomise_(make_supernet().eval(), seed=5), make_method(consistency_weight=2.0)
        method.begin(lambda: supernet, {})
        pair = method.children()
        randomise_(supernet, seed=3)  # the twins stay where they were
        return method, supernet, pair

    def test_its_loss_is_labels_and_the_divergence_from_it(self, made):
        method, supernet, pair = made
        runs, found, context = step(method, supernet, pair)
        average = method.teacher.average
        with torch.no_grad():
            twins = [average(context.input_ids, labels=context.labels, architecture=child).logits for child in pair]
        for run, twin, (loss, (divergence, _)) in zip(runs, reversed(twins), found, strict=True):
            expected = distillation_loss(run.logits, context.at_labels(twin))
            assert float(expected) > 0.01
            assert float(divergence) == pytest.approx(float(expected), rel=1e-4)
            assert float(loss) == pytest.approx(float(run.loss + 2 * expected), rel=1e-4)

    def test_twins_follow_in_what_the_step_trained_alone(self, made):
        method, supernet, pair = made
        old = {name: mean.clone() for name, mean in method.teacher.average.named_parameters()}
        method.after_step(1, pair, (1.0, 1.0), None, lambda: supernet)
        trained = {id(one) for child in pair for one in supernet.parameters_of(child)}
        for name, parameter in supernet.named_parameters():
            mean = method.teacher.average.get_parameter(name)
            share = 9 / 11 if id(parameter) in trained else 0.0  # 1 - (1 + 1) / (10 + 1)
            torch.testing.assert_close(mean, old[name].lerp(parameter, share))

    def test_the_log_tells_a_collapse(self, made):
        method, supernet, pair = made
        assert all(float(variance) > 0.01 for _, (_, variance) in step(method, supernet, pair)[1])
        with torch.no_grad():
            for parameter in supernet.nasbert.parameters():
                parameter.zero_()
        assert [float(variance) for _, (_, variance) in step(method, supernet, pair)[1]] == [0, 0]


def test_a_space_without_a_choice_is_refused():
    with pytest.raises(ValueError, match="no block of this space has two operators"):
        make_method(SearchSpace.of_blocks(["conv3", "ffn"]))
    with pytest.raises(ValueError, match=r"average_decay=1\.0: expected below 1"):
        make_method(average_decay=1.0)
    first, second = make_method(SearchSpace.of_blocks(["conv3", "ffn,attention"])).children()
    assert (first[0], second[0]) == ("conv3", "conv3")
