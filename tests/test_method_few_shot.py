"""Few-shot super-nets: copies are exact at the split, each trains its own operators' children, runs go on."""

import pytest
import torch
from tiny.distilling import make_taught_trainer
from tiny.models import logits_of
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer, train_log
from transformers import BertForMaskedLM

from hf_nasbert.extraction import load_supernet
from hf_nasbert.interference import gradients
from hf_nasbert.methods import METHODS
from hf_nasbert.methods.rows import operators_of
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import copying, sharding

SPACE = SPACES["chain"]
CHILDREN = [child for number, child in enumerate(SPACE.enumerate()) if number % 11 == 0]
BATCH = {name: TinyBatches(4, seed=5).batch(0)[name] for name in ("input_ids", "attention_mask")}


def make_method(space=SPACE, max_steps=10, **settings):
    kind = METHODS["few_shot"]
    return kind(space, kind.Settings(**settings), cost=len, seed=0, max_steps=max_steps)


def outputs(supernet):
    supernet.eval()
    found = torch.stack([logits_of(supernet, BATCH, architecture=child) for child in CHILDREN])
    supernet.train()
    return found


def weights(supernet):
    return {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [{"split": "block:1"}, pytest.param({"split": "gradients", "split_settings": 2}, marks=pytest.mark.slow)],
)
def test_copies_are_exact_and_then_each_trains_its_own_children(tmp_path, settings):
    trainer = make_trainer(tmp_path, method="few_shot", max_steps=10, split_at=0.4, save_steps=100, **settings)
    seen, backward, before_step = {}, trainer.step.backward, trainer.method.before_step

    def look_before(step, find_split):
        if step == 4:
            seen["before"] = outputs(trainer.supernet)
            assert set(trainer.supernet.config.copies["owners"]) == {0}
        return before_step(step, find_split)

    def look_behind(step, children, batch, **options):
        if step == 4:
            seen["behind"], seen["weights"] = outputs(trainer.supernet), weights(trainer.supernet)
            seen["moments"] = [
                [trainer.optimizer.optimizer.state.get(p, {}) for p in blocks.parameters()]
                for blocks in (encoder.blocks, *encoder.copies)
            ]
            seen["moments"] = [[one and one["exp_avg"].clone() for one in copy] for copy in seen["moments"]]
        if step >= 4:
            seen.setdefault("owners", set()).update(map(encoder.owner_of, children))
        return backward(step, children, batch, **options)

    encoder = trainer.supernet.nasbert.encoder
    trainer.method.before_step, trainer.step.backward = look_before, look_behind
    trainer.train()
    assert torch.equal(seen["before"], seen["behind"]), "no child has another loss for the copying"
    first, *others = seen["moments"]
    assert sum(isinstance(one, torch.Tensor) for one in first) > 10
    for other in others:
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, other, strict=True)
        )
    now = trainer.supernet.state_dict()
    moved = set()
    for name, old in seen["weights"].items():
        if ".encoder." in name and not torch.equal(now[name], old):
            moved.add(1 + int(name.split(".copies.")[1].split(".")[0]) if ".copies." in name else 0)
    assert moved == seen["owners"], "the copies of the children that were trained, and no other"
    assert len(moved) > 1
    (event,) = train_log(tmp_path, "split")
    assert event["step"] == 5
    again = load_supernet(tmp_path)
    parts = event["parts"]
    for child in CHILDREN:
        owner = again.nasbert.encoder.owner_of(child)
        assert child[event["block"]] in parts[owner]
    assert event["block"] == {"block:1": 1}.get(settings["split"], event["block"])
    sizes = [len(part) for part in parts]
    if "split_settings" in settings:
        assert len(sizes) == 2
        assert max(sizes) - min(sizes) <= 1
    else:
        assert sizes == [1, 1, 1, 1]


def test_a_run_goes_on_from_both_sides_of_the_split(tmp_path):
    settings = {"method": "few_shot", "max_steps": 6, "save_steps": 2, "split": "gradients", "split_settings": 1}
    whole = make_trainer(tmp_path / "whole", save_total_limit=0, **settings)
    whole.train()
    for step in (2, 4):
        folder = tmp_path / "whole" / f"checkpoint-{step}"
        rest = make_trainer(tmp_path / f"from-{step}", resume_from_checkpoint=str(folder), **settings)
        rest.train()
        assert rest.supernet.config.copies == whole.supernet.config.copies
        both = zip(rest.supernet.parameters(), whole.supernet.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in both)


def test_the_block_that_is_split_is_that_whose_halves_differ_most(monkeypatch):
    """The criterion of GM-NAS, by hand: two groups within which gradients are alike, and across which they are not."""
    alike = {("attention", "ffn"), ("conv3", "skip")}

    def measured(supernet, batches, *, num_settings, seed):
        assert (num_settings, seed) == (7, 3)
        for block, across in ((0, 0.8), (1, 0.3), (2, 0.5)):
            names = SPACE.blocks[block]
            for place, first in enumerate(names):
                for second in names[place + 1 :]:
                    mean = 0.9 if (first, second) in alike else across
                    for value in (mean - 0.1, mean + 0.1, None):
                        yield {"block": block, "first": first, "second": second, "gradient_similarity": value}

    monkeypatch.setattr(copying, "measure_blocks", measured)
    assert copying.find_split(make_supernet(), [], 7, 3) == (1, (("attention", "ffn"), ("conv3", "skip")))
    monkeypatch.setattr(copying, "measure_blocks", lambda *_, **__: [])
    with pytest.raises(ValueError, match="raise split_settings"):
        copying.find_split(make_supernet(), [], 7, 3)


def test_parts_are_neighbours_and_the_first_block_is_one_with_a_choice():
    space = SearchSpace.of_blocks(["conv3", "attention,ffn,conv5", "attention,ffn"])
    method = make_method(space, split_parts=2, split_at=0)
    assert method.before_step(0, None)
    assert (method.block, method.parts) == (1, (("attention",), ("ffn", "conv5")))
    assert not method.before_step(1, None)
    assert method.copies(is_training=True).owners == (0, 1, 1)
    other = make_method(space, split_parts=2)
    other.load_state_dict(method.state_dict())
    assert other.parts == method.parts
    assert operators_of(SearchSpace.of_blocks(["ffn,skip", "ffn,skip"]), 0) == ("ffn",)
    assert operators_of(SearchSpace.of_blocks(["ffn,skip", "ffn,skip"]), 1) == ("ffn", "skip")
    assert operators_of(SearchSpace.of_blocks(["ffn,skip", "ffn,skip"], skip="anywhere"), 0) == ("ffn", "skip")
    assert operators_of(SearchSpace.of_blocks(["ffn", "ffn,skip", "ffn"], skip="anywhere"), 1) == ("ffn", "skip")
    for parts in ([["attention"], ["ffn"]], [["attention", "ffn", "conv5"]]):
        with pytest.raises(ValueError, match="is none of 2 parts"):
            other.load_state_dict(method.state_dict() | {"parts": parts})


def test_the_log_says_the_split_wherever_it_comes():
    """The first step behind it may be skipped, and a run made shorter splits where it goes on."""
    method = make_method(split_at=0.2)  # of 10 steps
    told = []
    for step in (1, 2, 3, 4, 5):
        method.before_step(step, None)
        if step != 2:
            told.append(method.after_step(step + 1, method.children(), [1.0], None, None))
    assert [event and event["event"] for event in told] == [None, "split", None, None]
    early, later = make_method(max_steps=100), make_method()
    later.load_state_dict(early.state_dict())
    assert later.before_step(7, None)
    assert later.after_step(8, later.children(), [1.0], None, None)["block"] == 0


def test_gradients_are_compared_in_so_many_settings_of_the_runs_seed():
    kind, asked = METHODS["few_shot"], []
    method = kind(SPACE, kind.Settings(split="gradients", split_settings=7), cost=len, seed=3, max_steps=10)
    assert method.num_dev_batches == 1, "which a run without dev batches is refused by"
    assert method.before_step(5, lambda *given: asked.append(given) or (1, (("attention", "ffn"), ("conv3", "skip"))))
    assert asked == [(7, 3)]
    other = make_method(split="gradients")
    other.load_state_dict(method.state_dict())
    assert other.copies(is_training=True) == method.copies(is_training=True)
    assert other.shown() == method.shown() == {"split": "block 1: attention,ffn | conv3,skip"}


def test_what_is_compared_counts_as_compute(monkeypatch):
    """As many backward passes as the measurement makes, in a space where only a last block may become a skip."""
    assert make_method().passes_per_step == 3
    passes = []

    def counted(supernet, batch, architecture):
        passes.append(architecture)
        return {}

    monkeypatch.setattr(gradients, "shared_gradients", counted)
    monkeypatch.setattr(gradients, "_outside_similarity", lambda *_: 0.5)
    gradients.measure_blocks(make_supernet(), [{}], num_settings=5, seed=0)
    method = make_method(split="gradients", split_settings=5, max_steps=100)
    assert method.passes_per_step == pytest.approx(3 + 3 * len(passes) / 100)
    two = SearchSpace.chain(2, ("attention", "ffn", "skip"))
    # Behind any first operator the second block has two more to try; the first one has one more, or none but itself.
    by_hand = 50 * (1 + 2 + 1)
    method = make_method(two, split="gradients", split_settings=50, max_steps=100)
    assert method.passes_per_step == pytest.approx(3 + 3 * by_hand / 100)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "last"}, "split='last': expected first_block, gradients, or block:N"),
        ({"split": "block:4"}, "split=block:4: the space has no such block with a choice"),
        ({"split_parts": 5}, "split_parts=5: block 0 has 3 operators"),
        ({"split_parts": 1}, "expected at least 2 parts, or 0"),
        ({"split": "gradients", "split_parts": 3}, "expected two parts by gradients, or 0"),
        ({"split_at": 1.5}, "split_at=1.5"),
        ({"split_at": 1.0}, "split_at=1.0 leaves no step of 10 after the split"),
        ({"split": "gradients", "split_at": 0.04}, "split_at=0.04 leaves no step of 10 before the split"),
        ({"split_at": 0.96}, "split_at=0.96 leaves no step of 10 after the split"),
        ({"split": "gradients", "space": SPACES["staged"]}, "every block has several"),
        ({"space": SearchSpace.of_blocks(["conv3", "ffn"])}, "this one has a single child"),
    ],
)
def test_what_cannot_be_split_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_method(**settings)


@pytest.mark.parametrize("method", ["few_shot", "mixture", "size_classes"])
def test_copies_are_not_sharded(tmp_path, monkeypatch, method):
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setattr(sharding, "is_wanted", lambda: True)
    with pytest.raises(ValueError, match=f"method={method} needs whole operators: launch with DDP"):
        make_trainer(tmp_path, method=method)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_of_a_base_model_it_splits_by_blocks_and_not_by_gradients(tmp_path):
    with pytest.raises(ValueError, match="gradients of the loss by masked words, and here a teacher teaches"):
        make_taught_trainer(tmp_path, head=BertForMaskedLM, method="few_shot", split="gradients")
    trainer = make_taught_trainer(tmp_path, method="few_shot", max_steps=4, save_steps=100)
    evaluation = trainer.train().evaluation
    assert len(trainer.supernet.encoder.copies) == len(trainer.space.blocks[0]) - 1
    assert isinstance(trainer.supernet.config, SupernetConfig)
    assert trainer.supernet.config.weight_layout == "nested"
    assert all(loss < 100 for _, loss in evaluation)
