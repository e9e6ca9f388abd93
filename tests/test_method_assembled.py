"""Assembled: modules learn alone in a model that stays, and children made of them are better for it."""

import pytest
import torch
from tiny.distilling import make_taught_trainer
from tiny.trainings import SPACES, TinyBatches, make_trainer
from transformers import BertForMaskedLM

from hf_nasbert.methods import METHODS
from hf_nasbert.methods.base import RunKind
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import SKIP, Architecture, SearchSpace, hamming

SPACE = SPACES["chain"]
DEV = [TinyBatches(16, seed=99).batch(number) for number in range(2)]


def make(space=SPACES["chain"], max_steps=8, **settings):
    kind = METHODS["assembled"]
    sizes = {"attention": 3, "ffn": 4, "conv3": 2, "skip": 0}
    return kind(
        space,
        kind.Settings(**settings),
        cost=lambda child: sum(sizes[name.split("@")[0]] * int((name + "@1").split("@")[1]) for name in child),
        seed=0,
        max_steps=max_steps,
    )


def watch(trainer):
    """What every step moves: its number, its child, the names of the parameters that it changed."""
    seen, backward, update = [], trainer.step.backward, trainer.optimizer.step
    named = dict(trainer.supernet.named_parameters())

    def look(step, children, batch, **options):
        seen.append([step, *children, {name: tensor.detach().clone() for name, tensor in named.items()}])
        return backward(step, children, batch, **options)

    def step(*args, **options):
        update(*args, **options)
        seen[-1][2] = {name for name, old in seen[-1][2].items() if not torch.equal(old, named[name])}

    trainer.step.backward, trainer.optimizer.step = look, step
    return seen


@pytest.mark.parametrize("layout", ["separate", "entangled"])
def test_only_the_drawn_blocks_operator_moves(tmp_path, layout):
    """Taken out (`learning` gives all), the meta model moves with every module, and this fails."""
    space = SearchSpace.chain(3, ("attention", "attention1", "ffn", "conv3", "skip"))
    config = SupernetConfig(
        search_space=space, hidden_size=64, vocab_size=60, max_position_embeddings=16, weight_layout=layout
    )
    torch.manual_seed(0)
    supernet = SupernetForMaskedLM(config)
    trainer = make_trainer(tmp_path, supernet=supernet, method="assembled", max_steps=16, save_steps=100)
    meta = trainer.method.meta
    assert meta == ("attention", "attention1", "ffn")
    seen = watch(trainer)
    trainer.train()
    its_own = {id(parameter) for parameter in supernet.parameters_of(meta)}
    fixed = {name for name, parameter in supernet.named_parameters() if id(parameter) in its_own}
    modules = set()
    for step, child, moved in seen:
        if step < 4:  # a quarter of 16
            assert child == meta
            assert moved <= fixed
            assert any("embeddings" in name for name in moved)
            continue
        assert hamming(child, meta) == 1
        (block,) = (place for place, name in enumerate(child) if name != meta[place])
        assert child[block] != SKIP
        assert moved
        assert all(name.startswith(f"nasbert.encoder.blocks.{block}.operators.") for name in moved)
        used = {id(parameter) for parameter in supernet.parameters_of(child)}
        assert {id(supernet.get_parameter(name)) for name in moved} <= used - its_own
        modules.add((block, child[block]))
    assert len(modules) > 3


@pytest.mark.slow
def test_what_is_trained_apart_is_better_assembled(tmp_path):
    """A module in its place, and two that never met; the meta model stays as good as it was."""
    trainer = make_trainer(
        tmp_path, method="assembled", max_steps=140, meta_share=80 / 140, save_steps=1000, logging_steps=100,
        lr_scheduler_type="constant_with_warmup", warmup_steps=2,
    )  # fmt: skip
    seen, losses, backward, meta = watch(trainer), [], trainer.step.backward, trainer.method.meta
    others = [
        [name for name in names if name not in (SKIP, own)] for names, own in zip(SPACE.blocks, meta, strict=True)
    ]
    single = [replaced(meta, block, name) for block, names in enumerate(others) for name in names]
    pairs = [
        replaced(one, block, name)
        for one in single
        for block, names in enumerate(others)
        for name in names
        if all(own == own_of_meta for own, own_of_meta in zip(one[block:], meta[block:], strict=True))
    ]
    assert {hamming(child, meta) for child in pairs} == {2}

    def score():
        found = [score_architectures(trainer.supernet, part, DEV) for part in ([meta], single, pairs)]
        losses.append([sum(part) / len(part) for part in found])

    def look(step, *args, **options):
        if step == 80:
            score()
        return backward(step, *args, **options)

    trainer.step.backward = look
    trainer.train()
    score()
    assert not {child for _, child, _ in seen} & set(pairs)
    before, after = losses
    assert after[0] == pytest.approx(before[0], abs=1e-6), "the meta model has stayed"
    assert after[1] < before[1] - 0.1
    assert after[2] < before[2]


def replaced(child, block, name):
    return Architecture([*child[:block], name, *child[block + 1 :]])


def test_a_base_model_is_the_meta_model(tmp_path):
    trainer = make_taught_trainer(tmp_path, head=BertForMaskedLM, method="assembled", max_steps=3, save_steps=100)
    seen = watch(trainer)
    trainer.train()
    assert all(hamming(child, trainer.method.meta) == 1 for _, child, _ in seen)
    its_own = {id(parameter) for parameter in trainer.supernet.parameters_of(trainer.method.meta)}
    moved = {id(trainer.supernet.get_parameter(name)) for _, _, names in seen for name in names}
    assert moved
    assert not moved & its_own


def test_a_module_of_another_width_is_its_whole_stage():
    method = make(SPACES["staged"], max_steps=100, meta_share=0)
    assert method.meta == Architecture.parse("attention@64-conv3@64-attention@64-conv3@64")
    found = set()
    for step in range(100):
        method.before_step(step, None)
        (child,) = method.children()
        changed = [place for place, name in enumerate(child) if name != method.meta[place]]
        assert child in SPACES["staged"]
        assert len({place // 2 for place in changed}) == 1
        assert len(changed) == 1 or all("@32" in child[place] or child[place] == SKIP for place in changed)
        found |= {(place, child[place]) for place in changed if child[place] != SKIP}
    every = {(block, name) for block, names in enumerate(SPACES["staged"].blocks) for name in names if name != SKIP}
    assert found == every - set(enumerate(method.meta))


def test_a_run_that_is_made_longer_does_not_go_back_to_the_meta_model():
    """More `max_steps`, and so a larger share of them: the modules were trained in the meta model as it was."""
    for steps, is_meta in ((2, True), (3, False)):  # two of eight are the meta model's
        short, longer = make(), make(max_steps=80)
        for step in range(steps):
            short.before_step(step, None)
            short.children()
        longer.load_state_dict(short.state_dict())
        longer.before_step(steps, None)
        assert longer.is_meta == is_meta


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="meta_share=2"):
        make(meta_share=2)
    with pytest.raises(ValueError, match="meta_share=1 leaves no step of 8 for the modules"):
        make(meta_share=1)
    with pytest.raises(ValueError, match="this space has no others"):
        make(SearchSpace.chain(2, ("attention", "skip")))
    with pytest.raises(ValueError, match=r"launch with DDP"):
        make().check_run(RunKind(True, False, False, False, False))
    assert make().passes_per_step == 3
