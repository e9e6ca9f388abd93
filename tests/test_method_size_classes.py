"""Super-nets of size classes: whom a step trains, in which copy, and from whom they learn."""

from functools import partial

import pytest
import torch
from tiny.distilling import make_taught_trainer
from tiny.trainings import SPACES, make_supernet, make_trainer
from transformers import BertForMaskedLM

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS
from hf_nasbert.space import SearchSpace

SPACE = SPACES["chain"]
COST = partial(num_parameters, make_supernet().config)


def make_method(space=SPACE, **settings):
    kind = METHODS["size_classes"]
    return kind(space, kind.Settings(**settings), cost=COST, seed=0, max_steps=10)


def test_a_step_has_the_largest_the_smallest_and_random_children_of_one_class():
    method = make_method(num_random_of_class=3)
    supernet = make_supernet()
    supernet.nasbert.encoder.set_copies(method.copies(is_training=True))
    ends = []
    for step in range(9):
        largest, smallest, *drawn = children = method.children()
        assert {method.classes.class_of(child) for child in children} == {step % 3}
        assert {supernet.nasbert.encoder.owner_of(child) for child in children} == {step % 3}
        assert COST(smallest) <= min(map(COST, drawn))
        assert COST(largest) >= max(map(COST, drawn))
        ends += [COST(smallest), COST(largest)] if step < 3 else []
    assert len(children) == 5
    assert method.passes_per_step == 15
    assert ends == sorted(ends)
    assert len(set(ends)) == 6, "classes lie beside each other"
    sizes = sorted(map(COST, SPACE.enumerate()))
    assert (ends[0], ends[-1]) == (sizes[0], sizes[-1])


def test_classes_have_like_numbers_of_drawn_children():
    shares = [len(children) for children in make_method().classes.children]
    assert max(shares) - min(shares) < 30


def test_each_class_trains_its_copy_from_labels(tmp_path):
    """All children learn from the labels, none from the largest one; and what is shared is embeddings and head."""
    trainer = make_trainer(tmp_path, method="size_classes", max_steps=3, save_steps=100)
    encoder, backward = trainer.supernet.nasbert.encoder, trainer.step.backward

    def look(step, children, batch, **options):
        found = backward(step, children, batch, **options)
        for number, blocks in enumerate((encoder.blocks, *encoder.copies)):
            has = any(parameter.grad is not None for parameter in blocks.parameters())
            assert has == (number == step % 3)
        before = {name: p.grad.clone() for name, p in trainer.supernet.named_parameters() if p.grad is not None}
        trainer.supernet.zero_grad()
        count = int((batch["labels"] != -100).sum())
        given = {name: batch[name] for name in ("input_ids", "labels")}
        for child in children:
            trainer.supernet(**given, architecture=child, num_items_in_batch=count).loss.backward()
        for name, parameter in trainer.supernet.named_parameters():
            assert (parameter.grad is None) == (name not in before)
            assert parameter.grad is None or torch.allclose(parameter.grad, before[name], atol=1e-6)
        return found

    trainer.step.backward = look
    trainer.train()


def test_the_base_model_teaches_relations_to_all_classes(tmp_path):
    trainer = make_taught_trainer(
        tmp_path, head=BertForMaskedLM, method="size_classes", max_steps=3, save_steps=9, distillation=["relations"],
    )  # fmt: skip
    start = [parameter.detach().clone() for parameter in trainer.supernet.parameters()]
    trainer.train()
    encoder = trainer.supernet.nasbert.encoder
    assert len(encoder.copies) == 2
    before = dict(zip(map(id, trainer.supernet.parameters()), start, strict=True))
    for blocks in (encoder.blocks, *encoder.copies):
        assert any(not torch.equal(before[id(p)], p) for p in blocks.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_size_classes": 1}, "num_size_classes=1"),
        ({"num_random_of_class": 0}, "num_random_of_class=0"),
        ({"space": SearchSpace.of_blocks(["ffn,conv3"] + ["ffn"] * 3)}, "too few sizes for 3 classes: ask for fewer"),
    ],
)
def test_what_is_none_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_method(**settings)


def test_a_run_goes_on_with_the_class_whose_turn_it_is():
    method, other = make_method(), make_method()
    method.children()
    other.load_state_dict(method.state_dict())
    assert other.children() == method.children()


def test_a_turn_of_no_class_is_refused():
    method = make_method()
    with pytest.raises(ValueError, match="turn 3 is none of 3 classes"):
        method.load_state_dict(method.state_dict() | {"turn": 3})
