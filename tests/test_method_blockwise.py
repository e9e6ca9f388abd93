"""`blockwise`: a stage learns from the teacher's state in front of it; stages' errors add up and are chosen by."""

import re
from pathlib import Path

import pytest
import torch
from tiny.distilling import make_taught_trainer
from tiny.models import gradients, randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer, train_log

from hf_nasbert.costs import Budget, cost_function, num_parameters
from hf_nasbert.methods import METHODS
from hf_nasbert.methods.blockwise import best_by_stages, stages_of
from hf_nasbert.objectives import relative_error
from hf_nasbert.searching import SearchTask
from hf_nasbert.searching.shrinking import ProgressiveShrinking
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.teachers import ChildTeacher, StageErrors
from hf_nasbert.training import sharding

FULL = Architecture.parse("attention-ffn-attention-ffn-attention-ffn")
CHILD = Architecture.parse("attention-ffn-conv3-ffn")


def make_method(space="chain", **settings):
    kind, config = METHODS["blockwise"], make_supernet(space).config
    cost = lambda child: num_parameters(config, child)  # noqa: E731
    return kind(SPACES[space], kind.Settings(**settings), cost=cost, seed=0, max_steps=9)


def backward(trainer, children=(CHILD,)):
    """A step of the trainer's method; the losses and the gradients."""
    trainer.supernet.zero_grad()
    trainer.method._paths = tuple(child for child in children if child != trainer.method.largest)
    losses = trainer.step.backward(0, children, trainer.batches.batch(0), is_stopping=False)
    return losses, gradients(trainer.supernet)


@pytest.fixture
def trainer(tmp_path):
    """From scratch: the averages stay where they were while the super-net moved."""
    made = make_trainer(tmp_path, method="blockwise", blockwise_stages=2, mixed_precision="no")
    made.method.begin(lambda: randomise_(made.supernet, seed=5), {})
    randomise_(made.supernet, seed=6)
    return made


def states_of(model, batch, child):
    with torch.no_grad():
        found = model.eval()(batch["input_ids"], architecture=child, output_hidden_states=True).hidden_states
    model.train()
    return found


class TestFromScratch:
    def test_a_stage_reads_the_teachers_state_and_learns_the_next_one(self, trainer):
        """The mean of the stages' errors, each input and target of the averaged largest child."""
        losses, _ = backward(trainer)
        batch, method = trainer.batches.batch(0), trainer.method
        taught = states_of(method.teacher.average, batch, method.largest)
        errors, mask = [], torch.ones_like(batch["input_ids"]).bool()
        for start, stop in ((0, 2), (2, 4)):
            states = taught[start]
            with torch.no_grad():
                for block in range(start, stop):
                    states = trainer.supernet.nasbert.encoder.blocks[block](states, operator=CHILD[block])
            errors.append(float(relative_error(states, taught[stop], mask, mask.numel())))
        assert losses.of_children == [pytest.approx(sum(errors) / 2, rel=1e-4)]
        assert losses.terms["stage_error"] == pytest.approx(losses.of_children[0])

    def test_no_gradient_passes_between_stages_nor_to_the_embeddings(self, trainer):
        """What the first stage is does not matter to the second one."""
        _, before = backward(trainer)
        assert not any("embeddings" in name or "lm_head" in name for name in before)
        with torch.no_grad():
            for parameter in trainer.supernet.nasbert.encoder.blocks[:2].parameters():
                parameter.add_(0.1)
        _, after = backward(trainer)
        changed = {name for name, one in before.items() if not torch.equal(one, after[name])}
        assert changed
        assert {int(name.split("blocks.")[1][0]) for name in changed} == {0, 1}
        assert any("blocks.3." in name for name in before)

    def test_the_largest_child_learns_from_labels_and_is_averaged(self, trainer):
        method, supernet = trainer.method, trainer.supernet
        losses, found = backward(trainer, (method.largest,))
        batch = trainer.batches.batch(0)
        own = supernet(batch["input_ids"], labels=batch["labels"], architecture=method.largest).loss
        assert losses.of_children == [pytest.approx(float(own.detach()), rel=1e-4)]
        assert losses.terms["stage_error"] == 0
        assert any("embeddings" in name for name in found)
        method.after_step(1, method.children(), (1.0,) * 3, None, lambda: supernet)
        assert "nasbert.embeddings.word_embeddings.weight" in method.tensors()

    def test_several_paths_a_step(self):
        method = make_method(blockwise_paths=3)
        largest, *drawn = method.children()
        assert largest == method.largest
        assert len(set(drawn)) > 1
        assert method.passes_per_step == 3 * 4 + 1

    @pytest.mark.slow
    def test_paths_come_nearer_to_the_teacher(self, tmp_path):
        trainer = make_trainer(
            tmp_path, method="blockwise", max_steps=30, save_steps=100, logging_steps=5, num_eval_children=0
        )
        trainer.train()
        rows = [line for line in train_log(tmp_path) if line["stage_error"]]
        assert rows[-1]["stage_error"] < 0.6 * rows[0]["stage_error"]


class TestEnsemble:
    def test_the_target_is_the_mean_of_the_paths_twins(self, tmp_path):
        trainer = make_trainer(tmp_path, method="blockwise", blockwise_stages=1, blockwise_target="ensemble")
        method, supernet = trainer.method, trainer.supernet
        method.begin(lambda: randomise_(supernet, seed=5), {})
        randomise_(supernet, seed=6)
        pair = (CHILD, Architecture.parse("ffn-conv3-attention-ffn"))
        losses, _ = backward(trainer, pair)
        batch, average = trainer.batches.batch(0), method.teacher.average
        mask = torch.ones_like(batch["input_ids"]).bool()

        def direction(states):
            return torch.nn.functional.normalize(states, dim=-1)

        mean = sum(direction(states_of(average, batch, child)[-1]) for child in pair) / 2
        for child, loss in zip(pair, losses.of_children, strict=True):
            states = states_of(average, batch, method.largest)[0]
            with torch.no_grad():
                for block, name in enumerate(child):
                    states = supernet.nasbert.encoder.blocks[block](states, operator=name)
            expected = float(relative_error(direction(states) * 32**0.5, mean * 32**0.5, mask, mask.numel()))
            assert loss == pytest.approx(expected, rel=1e-3)

    def test_it_needs_several_paths(self):
        with pytest.raises(ValueError, match="blockwise_target=ensemble is a mean of several paths"):
            make_method(blockwise_target="ensemble", blockwise_paths=1)
        assert make_method(blockwise_target="ensemble").passes_per_step == 3 * 3 + 1 + 2


class TestOfABaseModel:
    @pytest.mark.parametrize("target", ["teacher", "ensemble"])
    def test_it_teaches_all(self, tmp_path, target):
        trainer = make_taught_trainer(tmp_path, method="blockwise", blockwise_target=target, max_steps=2)
        child = Architecture.parse("attention1-ffn-norm-ffn16-attention-skip")
        trainer.method.begin(lambda: trainer.supernet, {})
        losses, found = backward(trainer, (FULL, child, Architecture.parse("norm-ffn-attention-ffn26-skip-ffn")))
        assert losses.of_children[0] == pytest.approx(0, abs=1e-6)  # it is the base model
        assert losses.of_children[1] > 0.01
        assert not any("embeddings" in name for name in found)
        trainer.train()
        assert bool(trainer.method.tensors()) == (target == "ensemble")


@pytest.fixture(scope="module")
def errors():
    supernet = randomise_(make_supernet().eval())
    batches = [TinyBatches(2, seed=number, padding=True).batch(0) for number in range(2)]
    return StageErrors(supernet, batches, stages_of(supernet.space, 2))


class TestStages:
    def test_blocks_are_cut_evenly_and_at_the_borders_of_widths(self):
        def ends(space, number):
            return [(part.start, part.stop) for part in stages_of(space, number)]

        assert ends(SearchSpace.chain(5, ("ffn", "conv3")), 2) == [(0, 2), (2, 5)]
        assert ends(SearchSpace.chain(2, ("ffn", "conv3")), 4) == [(0, 1), (1, 2)]
        assert ends(SPACES["staged"], 4) == [(0, 2), (2, 4)]
        assert ends(SearchSpace.staged(1, 3, ("ffn",), (32, 64)), 3) == [(0, 3)]

    def test_errors_add_up_and_are_none_of_the_teacher_itself(self, errors):
        largest = errors.supernet.largest_architecture
        mixed = Architecture((*largest[:2], "conv3", "ffn"))
        assert errors([largest, mixed]) == pytest.approx([0, errors.error(1, ("conv3", "ffn"))], abs=1e-6)
        assert errors.error(1, ("conv3", "ffn")) > 0.01

    def test_another_teacher_may_be_named(self, errors):
        supernet, batches = errors.supernet, [TinyBatches(2, seed=0, padding=True).batch(0)]
        child = Architecture(("conv3", "ffn", *supernet.largest_architecture[2:]))
        of = [StageErrors(supernet, batches, errors.stages, ChildTeacher(supernet, one)) for one in
              (child, supernet.largest_architecture)]  # fmt: skip
        assert of[0]([child]) == pytest.approx([0], abs=1e-6)
        assert of[1]([child]) == pytest.approx(StageErrors(supernet, batches, errors.stages)([child]))
        assert of[1]([child])[0] > 0.01

    def test_the_best_under_a_cap_is_that_of_all_children(self, errors):
        space, cost = errors.supernet.space, cost_function(errors.supernet.config)
        sizes = sorted(cost(child)["num_parameters"] for child in space.enumerate())
        cap = sizes[len(sizes) // 3]
        (found,) = best_by_stages(errors, space, cost, {"num_parameters": cap})
        assert found.costs["num_parameters"] == cost(found.architecture)["num_parameters"] <= cap
        fits = [
            child for child in space.enumerate() if cost(child)["num_parameters"] <= cap and "skip" not in child[:2]
        ]
        assert found.loss == pytest.approx(min(errors(fits)), rel=1e-6)

    def test_the_page_says_how(self, errors):
        page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
        (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
        names = {"supernet": errors.supernet, "dev_batches": [TinyBatches(4).batch(0)]}
        exec(snippet, names)
        assert names["best"][0].architecture == errors.supernet.largest_architecture

    def test_drawn_paths_are_some_of_them(self, errors):
        space, cost = errors.supernet.space, cost_function(errors.supernet.config)
        found = best_by_stages(errors, space, cost, {}, num_paths=3, num_choices=20)
        assert len(found) == 3 * 4  # the last stage may skip as a whole
        assert all(choice.architecture in space for choice in found)

    def test_shrinking_takes_them_as_scores(self, errors):
        """NAS-BERT's ten bins."""
        cost = cost_function(errors.supernet.config)
        task = SearchTask(errors.supernet.space, seed=0, cost=cost, budget=Budget(), batch_size=10)
        search = ProgressiveShrinking(task, num_bins=10, round_size=10)
        for _ in range(6):
            children = search.ask()
            search.tell(children, errors(children))
        assert min(line.score for line in search.history) < 0.5 * max(line.score for line in search.history)


@pytest.mark.parametrize("target", ["teacher", "ensemble"])
def test_operators_whose_weights_depend_on_the_child_are_told_it(tmp_path, target):
    supernet = make_supernet(weight_layout="experts")
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters() if "router" in name}
    settings = {"max_steps": 2, "save_steps": 100, "warmup_ratio": 0.0, "blockwise_target": target}
    make_trainer(tmp_path, supernet=supernet, method="blockwise", **settings).train()
    assert any(not torch.equal(supernet.get_parameter(name), old) for name, old in before.items())


def test_a_super_net_in_parts_is_refused(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, method="blockwise")
    monkeypatch.setattr(sharding, "is_wanted", lambda: True)
    with pytest.raises(ValueError, match="method=blockwise needs whole operators: launch with DDP"):
        trainer._check(trainer.dev_batches)


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"blockwise_stages": 0}, "blockwise_stages=0"), ({"blockwise_target": "x"}, "expected teacher or ensemble")],
)
def test_refusals(setting, words):
    with pytest.raises(ValueError, match=words):
        make_method(**setting)
