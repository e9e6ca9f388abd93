"""The balanced mixture of super-nets: its formulas by hand, whom it trains where, and what it learns."""

import math

import pytest
import torch
from tiny.trainings import SPACES, make_trainer

from hf_nasbert.extraction import load_supernet
from hf_nasbert.methods import METHODS
from hf_nasbert.methods.mixture import balanced
from hf_nasbert.space import SearchSpace

SPACE = SPACES["chain"]


def make_method(space=SPACE, **settings):
    kind = METHODS["mixture"]
    return kind(space, kind.Settings(**settings), cost=lambda child: sum(map(len, child)), seed=0, max_steps=10)


def test_balance_by_hand():
    rows = [[0.8, 0.2], [0.6, 0.4]]
    # Columns have the means 0.7 and 0.3: divided by them and summed to one, the rows are these.
    once = [[0.8 / 0.7, 0.2 / 0.3], [0.6 / 0.7, 0.4 / 0.3]]
    once = [[one / sum(row) for one in row] for row in once]
    off = 0.7 * math.log(1.4) + 0.3 * math.log(0.6)
    for found, expected in ((balanced(rows, off + 1e-9), rows), (balanced(rows, off - 1e-9), once)):
        assert [x for row in found for x in row] == pytest.approx([x for row in expected for x in row])
    found = balanced([[1 - 1e-9, 1e-9], [1 - 1e-6, 1e-6], [0.5, 0.5]], 1e-4)
    assert sum(row[0] for row in found) == pytest.approx(1.5, abs=0.05)
    assert found[0][0] > found[1][0] > found[2][0]


def test_probabilities_are_a_softmax_of_qualities():
    method = make_method(mixture_temperature=2.0, mixture_balance=10.0)
    method.qualities = [[-1.0, -1.5], [None, -2.0], [None, None]]
    powers = math.exp(-2), math.exp(-3)
    assert method.probabilities[0] == pytest.approx([power / sum(powers) for power in powers])
    assert method.probabilities[1:] == [[0.5, 0.5]] * 2, "what was not scored is as good as the row's mean"


def test_super_nets_are_drawn_by_their_probabilities():
    method = make_method(mixture_temperature=2.0, mixture_balance=10.0)
    method.qualities = [[-1.0, -2.0], [-2.0, -1.0], [None, None]]
    drawn = []
    for step in range(400):
        method.before_step(step, None)
        drawn.append(method.copies(is_training=True).owners)
    shares = [sum(column) / 400 for column in zip(*drawn, strict=True)]
    assert shares == pytest.approx([row[1] for row in method.probabilities], abs=0.06)
    assert shares[0] < 0.25 < 0.75 < shares[1]


def test_super_nets_are_drawn_anew_every_step_and_for_every_seed():
    def drawn(seed):
        kind = METHODS["mixture"]
        method = kind(SPACE, kind.Settings(), cost=lambda child: sum(map(len, child)), seed=seed, max_steps=10)
        owners = []
        for step in range(20):
            method.before_step(step, None)
            owners.append(method.copies(is_training=True).owners)
        return owners

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) > 1


def test_a_score_counts_as_compute():
    assert make_method(mixture_interval=4).passes_per_step == 3 + 1 / 4


def test_a_quality_is_a_moving_average():
    method = make_method(mixture_interval=1, mixture_decay=0.75)
    (child,) = method.children()
    row = SPACE.blocks[0].index(child[0])
    for step, loss in enumerate((4.0, 2.0)):
        method.after_step(step + 1, (child,), [9.0], lambda children, number, loss=loss: [loss], None)
    assert method.qualities[row] == [-0.75 * 4 - 0.25 * 2, None]


@pytest.mark.parametrize("rows", ["first_block", "sizes"])
def test_a_row_goes_where_its_children_do_better_and_none_is_left_out(rows):
    """Super-net 0 is better for all, and most of all for the first row or two; so the others get super-net 1."""
    method = make_method(mixture_interval=1, mixture_rows=rows, mixture_temperature=40.0)
    most = 2 if rows == "sizes" else 1
    for step in range(400):
        method.before_step(step, None)
        (child,) = method.children()
        copies = method.copies(is_training=True)

        def score(children, num_batches, copies=copies):
            assert num_batches == 1
            size = sum(map(len, children[0])) - sum(map(len, (copies.reference or "").split("-")))
            row = copies.row_of(children[0], size)
            return [5.0 - (0.1 + 0.3 * (row < most)) * (copies.owners[row] == 0)]

        method.after_step(step + 1, (child,), [5.0], score, None)
    assert method.copies(is_training=False).owners == ((0, 0, 1, 1) if most == 2 else (0, 1, 1))
    other = make_method(mixture_rows=rows)
    other.load_state_dict(method.state_dict())
    assert other.copies(is_training=False) == method.copies(is_training=False)


def test_a_child_is_trained_where_it_was_drawn_and_served_by_the_most_probable(tmp_path):
    trainer = make_trainer(tmp_path, method="mixture", max_steps=12, save_steps=100, mixture_interval=2)
    encoder, backward, owners = trainer.supernet.nasbert.encoder, trainer.step.backward, []

    def look(step, children, batch, **options):
        drawn = trainer.method._drawn[SPACE.blocks[0].index(children[0][0])]
        found = backward(step, children, batch, **options)
        trained = {id(p) for p in trainer.supernet.parameters() if p.grad is not None}
        own = (encoder.blocks, *encoder.copies)[drawn]
        assert {id(p) for p in trainer.supernet.parameters_of(children[0])} == trained
        inside = {id(p) for p in own.parameters()}
        assert trained & inside
        owners.append(drawn)
        return found

    def score(children, number, score=trainer._score):
        scored.append((len(owners), encoder.owner_of(children[0]), owners[-1]))
        return score(children, number)

    trainer.step.backward, trainer._score, scored = look, score, []
    trainer.train()
    assert set(owners) == {0, 1}
    assert [step for step, _, _ in scored] == [2, 4, 6, 8, 10, 12]
    assert all(found == drawn for _, found, drawn in scored), "it is scored where it was trained"
    assert [one for row in trainer.method.qualities for one in row if one is not None]
    final = load_supernet(tmp_path).config.copies["owners"]
    assert final == [row.index(max(row)) for row in trainer.method.probabilities]


def test_loaded_qualities_are_those_by_which_it_draws():
    """Whoever lays a super-net out has asked for the probabilities before a state is loaded."""
    method, other = make_method(), make_method()
    method.qualities = [[-1.0, -1.5], [None, -2.0], [-3.0, None]]
    assert other.probabilities != method.probabilities
    other.load_state_dict(method.state_dict())
    assert other.probabilities == method.probabilities


def test_a_run_goes_on(tmp_path):
    settings = {"method": "mixture", "max_steps": 9, "save_steps": 5, "mixture_interval": 2}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-5"
    rest = make_trainer(tmp_path / "rest", resume_from_checkpoint=str(folder), **settings)
    rest.train()
    assert rest.supernet.config.copies == whole.supernet.config.copies
    both = zip(rest.supernet.parameters(), whole.supernet.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in both)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_supernets": 1}, "num_supernets=1"),
        ({"num_supernets": 5}, "num_supernets=5: there are 3 rows of children"),
        ({"mixture_rows": "blocks"}, "mixture_rows='blocks'"),
        ({"mixture_decay": 2.0}, "mixture_decay=2.0"),
        ({"mixture_decay": 1.0}, "mixture_decay=1.0: expected below 1"),
        ({"mixture_balance": 0.0}, "mixture_balance=0.0"),
        (
            {"space": SearchSpace.of_blocks(["ffn,conv3"]), "mixture_rows": "sizes"},
            "too few sizes for 4 classes: ask for fewer",
        ),
    ],
)
def test_what_is_none_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_method(**settings)


def test_a_state_of_other_rows_is_refused():
    method = make_method()
    with pytest.raises(ValueError, match="the qualities are of 1 rows, expected 3"):
        method.load_state_dict(method.state_dict() | {"qualities": [[None, None]]})
