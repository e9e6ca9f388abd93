"""Copies of a super-net's blocks: a child runs, is scored, extracted and trained in its owner, nowhere else."""

import itertools
import random

import pytest
import torch
from helpers import mostly_slow
from tiny.distilling import supernet_and_teacher
from tiny.models import SPACES, logits_of, padded_batch, randomise_, tiny_supernet
from transformers import BertForMaskedLM

from hf_nasbert.costs import cheapest, num_parameters
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.scores import score_children
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.interference import measure_pairs, operator_gradients
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.scoring import score_with_report
from hf_nasbert.teachers import mask_of, read_child
from hf_nasbert.teachers.children import aligned_states

SPACE = SPACES["sized"]
FIRST = {"number": 3, "block": 0, "operators": list(SPACE.blocks[0])}
BY_BLOCK = Copies(owners=tuple(number % 3 for number in range(len(SPACE.blocks[0]))), **FIRST)
LAST = Copies(number=2, block=3, operators=SPACE.blocks[3], owners=tuple("skip" in n for n in SPACE.blocks[3]))


def by_size(config):
    sizes = sorted(num_parameters(config, child) for child in SPACE.enumerate())
    smallest = cheapest(SPACE, lambda child: num_parameters(config, child))
    middle = sizes[len(sizes) // 2] - sizes[0]
    return Copies(number=2, owners=(1, 0), reference=str(smallest), bounds=(middle,))


RULES = {"first block": lambda config: BY_BLOCK, "last block": lambda config: LAST, "size": by_size}


@pytest.fixture(params=mostly_slow(RULES, 3))
def supernet(request):
    found = tiny_supernet("sized")
    found.nasbert.encoder.set_copies(RULES[request.param](found.config))
    return randomise_(found, 1).eval()


def children(count):
    rng = random.Random(0)
    return [SPACE.sample(rng) for _ in range(count)]


def labelled_batch():
    return padded_batch() | {"labels": torch.where(torch.arange(33).view(3, 11) % 4 == 0, 3, -100)}


def test_a_child_is_run_scored_and_extracted_from_its_owner(supernet, tmp_path):
    encoder = supernet.nasbert.encoder
    drawn, batch = children(9), labelled_batch()
    # Some begin alike and have another owner, if the last block or the size tells it.
    drawn += [SPACE.validate((*child[:3], name)) for child in drawn[:3] for name in SPACE.alternatives(child, 3)]
    assert {encoder.owner_of(child) for child in drawn} == set(range(encoder.owning.number))
    supernet.save_pretrained(tmp_path)
    again = load_supernet(tmp_path).eval()
    report = score_with_report(supernet, drawn, [batch])
    alone = []
    for architecture in drawn:
        child = extract_child(supernet, architecture)
        assert prove_equal_logits(again, architecture, child) == 0
        assert child.num_parameters() == num_parameters(supernet.config, architecture)
        with torch.no_grad():
            alone.append(float(child(**batch).loss))
        # Whatever the other copies hold.
        own = encoder.owner_of(architecture)
        others = [blocks for number, blocks in enumerate((encoder.blocks, *encoder.copies)) if number != own]
        state = [parameter for blocks in others for parameter in blocks.parameters()]
        assert not {id(p) for p in state} & {id(p) for p in supernet.parameters_of(architecture)}
    assert report.losses == pytest.approx(alone, rel=1e-5)
    assert report.num_operator_calls < report.num_naive_operator_calls
    loss_of = dict(zip(drawn, alone, strict=True))
    for one, other in itertools.combinations(drawn, 2):
        if one[:3] == other[:3] and encoder.owner_of(one) != encoder.owner_of(other):
            found = score_with_report(supernet, [one, other], [batch]).losses
            assert found == pytest.approx([loss_of[one], loss_of[other]], rel=1e-5)
    assert len({round(loss, 4) for loss in alone}) > 3


def test_a_step_moves_the_owner_alone(supernet):
    for architecture in children(4):
        supernet.zero_grad()
        supernet(**labelled_batch(), architecture=architecture).loss.backward()
        moved = {id(parameter) for parameter in supernet.parameters() if parameter.grad is not None}
        assert moved == {id(parameter) for parameter in supernet.parameters_of(architecture)}
        gradients = operator_gradients(supernet, labelled_batch(), architecture).gradients
        blocks = supernet.nasbert.encoder.blocks_of(architecture)
        for block, name, gradient in zip(blocks, architecture, gradients, strict=True):
            own = [parameter.grad.flatten() for parameter in block.operators.parameters_of(name)]
            assert torch.allclose(torch.cat([*own, torch.zeros(0)]), gradient, atol=1e-5)


def test_size_is_counted_as_costs_count_it():
    found = tiny_supernet("sized")
    found.nasbert.encoder.set_copies(by_size(found.config))
    reference = num_parameters(found.config, found.nasbert.encoder.owning.reference.split("-"))
    bound = found.nasbert.encoder.owning.bounds[0]
    for child in children(50):
        is_large = num_parameters(found.config, child) - reference > bound
        assert found.nasbert.encoder.owner_of(child) == (0 if is_large else 1)


def test_other_walks_and_teachers_know_the_owner():
    supernet, _ = supernet_and_teacher(BertForMaskedLM)
    encoder, names = supernet.nasbert.encoder, supernet.space.blocks[1]
    encoder.set_copies(Copies(number=2, block=1, operators=names, owners=tuple(n % 2 for n in range(len(names)))))
    randomise_(supernet, 3).eval()
    rng = random.Random(0)
    drawn = [supernet.space.sample(rng) for _ in range(8)]
    one = ("attention", names[0], *drawn[0][2:])
    other = ("attention", names[1], *drawn[0][2:])  # of the other copy, though it begins alike
    batch = {"input_ids": torch.arange(5, 17).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    batch["labels"] = batch["input_ids"]
    with torch.no_grad():
        states = {child: read_child(supernet, batch, child).hidden_states for child in (*drawn, one, other)}
        for child in drawn:
            expected = extract_child(supernet, child).nasbert(batch["input_ids"]).last_hidden_state
            assert torch.allclose(states[child][-1], expected, atol=1e-5)
    mask = mask_of(batch, states[drawn[0]][-1])
    targets = [Target(states[drawn[0]][-1][mask], None)]
    distance = Distance.of(supernet, torch.zeros(supernet.config.hidden_size))
    together = score_children(supernet, drawn, [batch], targets, distance)
    assert [one.loss for one in together] == pytest.approx(
        [score_children(supernet, [child], [batch], targets, distance)[0].loss for child in drawn], rel=1e-5
    )
    found = aligned_states(supernet, one, other, states[one], batch["input_ids"], None, batch["labels"])
    assert torch.allclose(found.teacher[0], states[other][1], atol=1e-5)
    assert not torch.allclose(found.teacher[0], states[one][1], atol=1e-3)


def test_children_of_two_copies_share_no_operator():
    supernet = randomise_(tiny_supernet("sized"), 1)
    whole = measure_pairs(supernet, [labelled_batch()], num_children=3, seed=0)
    supernet.nasbert.encoder.set_copies(BY_BLOCK)
    rows = measure_pairs(supernet, [labelled_batch()], num_children=3, seed=0)
    owner_of = supernet.nasbert.encoder.owner_of
    kept = [row for row in whole if owner_of(row["architecture"].split("-")) == owner_of(row["other"].split("-"))]
    assert 0 < len(kept) < len(whole)
    assert [(row["architecture"], row["other"], row["block"]) for row in rows] == [
        (row["architecture"], row["other"], row["block"]) for row in kept
    ]


def test_further_copies_begin_as_the_first_one():
    supernet = randomise_(tiny_supernet("sized"), 1).eval()
    before = [logits_of(supernet, padded_batch(), architecture=child) for child in children(6)]
    supernet.nasbert.encoder.set_copies(BY_BLOCK)
    after = [logits_of(supernet, padded_batch(), architecture=child) for child in children(6)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with pytest.raises(ValueError, match="has 3 copies, which cannot become 2"):
        supernet.nasbert.encoder.set_copies(LAST)
    with pytest.raises(ValueError, match="the weights of 'skip' in block 0 depend on the child: say which one runs"):
        supernet.run_block(0, "skip", torch.zeros(1, 1, 32), None)


def test_a_config_without_copies_is_as_it_was():
    assert "copies" not in tiny_supernet("sized").config.to_dict()


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ({**FIRST, "owners": [0]}, "copies have 1 owners and"),
        ({**FIRST, "operators": ["ffn"], "owners": [0]}, "copies serve children by ffn of choice block 0"),
        ({**FIRST, "owners": [3] * len(SPACE.blocks[0])}, "copies are 3, and the owners"),
        ({**FIRST, "owners": [-1] * len(SPACE.blocks[0])}, "copies are 3, and the owners"),
        ({**FIRST, "block": 9, "owners": BY_BLOCK.owners}, "of choice block 9"),
        ({**LAST.to_dict(), "block": -1}, "of choice block -1"),
        ({**FIRST, "operators": [*SPACE.blocks[0], "conv3"], "owners": [*BY_BLOCK.owners, 0]}, "of choice block 0"),
        ({"number": 1, "owners": [0]}, "give one of both"),
        ({"number": 2, "reference": "ffn-ffn", "bounds": [3], "owners": [0, 1]}, "architecture"),
        ({"number": 2, "reference": "ffn-ffn", "bounds": [3, 3], "owners": [0, 1, 0]}, "whose bounds must rise"),
        ({"count": 2}, "copies cannot be read"),
    ],
)
def test_a_rule_that_is_none_is_refused(copies, words):
    with pytest.raises(ValueError, match=words):
        tiny_supernet("sized", copies=copies)
