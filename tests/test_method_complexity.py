"""`complexity_rate`: the learning rate falls by the size of the child that trains, and moves nothing else."""

import pytest
import torch
from tiny.trainings import TinyBatches, make_arguments, make_supernet, make_trainer, train_log

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS
from hf_nasbert.space import Architecture, SearchSpace


def make(space=None, cost=None, **settings):
    config = make_supernet().config
    kind = METHODS["complexity_rate"]
    return kind(
        config.space if space is None else space,
        kind.Settings(**settings),
        cost=(lambda child: num_parameters(config, child)) if cost is None else cost,
        seed=0,
        max_steps=10,
    )


def test_gamma_is_linear_in_log_parameters_between_the_ends():
    space = SearchSpace.chain(2, ("attention", "ffn"))
    sizes = {"attention-attention": 100.0, "attention-ffn": 1000.0, "ffn-attention": 1000.0, "ffn-ffn": 10000.0}
    children = [Architecture.parse(text) for text in ("attention-attention", "attention-ffn", "ffn-ffn")]

    def exponents(**settings):
        method = make(space, lambda child: sizes["-".join(child)], **settings)
        return [method.decay_exponent((child,)) for child in children]

    assert exponents() == pytest.approx([4, 2.125, 0.25])
    assert exponents(smallest_exponent=0.5, largest_exponent=2.5) == pytest.approx([0.5, 1.5, 2.5])  # the other sign


def test_the_rate_is_the_decay_to_the_power_of_gamma(tmp_path):
    arguments = make_arguments(tmp_path, max_steps=110, learning_rate=2.0, warmup_steps=10)
    assert arguments.learning_rate_at(4, 4.0) == pytest.approx(1.0), "the warm-up is that of all"
    assert arguments.learning_rate_at(60, 4.0) == pytest.approx(2.0 * 0.5**4)
    assert arguments.learning_rate_at(60, 0.25) == pytest.approx(2.0 * 0.5**0.25)
    floored = make_arguments(tmp_path, max_steps=110, learning_rate=2.0, warmup_steps=10, min_lr_ratio=0.1)
    assert floored.learning_rate_at(60, 4.0) == pytest.approx(0.2)


def test_each_step_is_made_at_its_childs_rate_which_the_log_tells(tmp_path):
    """A bias has no decay, and AdamW moves it by the rate in its first step."""
    trainer = make_trainer(tmp_path, method="complexity_rate", max_steps=8, warmup_ratio=0.0, num_eval_children=0)
    biases = {name: p for name, p in trainer.supernet.named_parameters() if name.endswith("bias")}
    take_step, moves, seen = trainer._take_step, [], set()

    def step(batch):
        before = {name: parameter.detach().clone() for name, parameter in trainer.supernet.named_parameters()}
        (child,) = take_step(batch)
        used = {id(parameter) for parameter in trainer.supernet.parameters_of(child)}
        for name, parameter in trainer.supernet.named_parameters():
            assert id(parameter) in used or torch.equal(parameter, before[name]), f"{name} moved, and was not trained"
        new = [name for name, bias in biases.items() if id(bias) in used - seen and ".operators." in name]
        moves.append(max((float((biases[name].detach() - before[name]).abs().max()) for name in new), default=None))
        seen.update(used)
        return (child,)

    trainer._take_step = step
    trainer.train()
    method, rates = trainer.method, []
    for number, line in enumerate(train_log(tmp_path)):
        gamma = method.decay_exponent((Architecture.parse(line["architecture"]),))
        rates.append(1e-2 * ((8 - number) / 8) ** gamma)
        assert line["learning_rate"] == pytest.approx(rates[-1])
    told = [(move, rate) for move, rate in zip(moves, rates, strict=True) if move is not None]
    assert len(told) >= 3
    assert all(move == pytest.approx(rate, rel=1e-2) for move, rate in told)


def test_what_it_cannot_do_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"complexity_rate decides how fast .* does not fall: choose linear or cosine"
    ):
        make_trainer(tmp_path, method="complexity_rate", lr_scheduler_type="constant_with_warmup")
    make_trainer(tmp_path, method="uniform", lr_scheduler_type="constant_with_warmup", batches=TinyBatches(4))
    with pytest.raises(ValueError, match="all children of this space have one: take uniform"):
        make(cost=lambda child: 7.0)
    with pytest.raises(ValueError, match="smallest_exponent"):
        make(smallest_exponent=-1.0)
