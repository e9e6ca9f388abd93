"""The exact knapsack: against brute force, several caps, the next best, items over two blocks, what is refused."""

import itertools
import random

import pytest

from hf_nasbert.searching.knapsack import Item, best_choices

pytest.importorskip("scipy")


def random_items(rng, num_blocks, num_variants, costs=("size", "time")):
    items = []
    for block in range(num_blocks):
        for number in range(num_variants):
            items.append(
                Item(block, (f"ffn{number + 1}",), round(rng.random(), 3), {c: rng.randrange(1, 30) for c in costs})
            )
    for first in range(0, num_blocks - 1, 2):
        items.append(Item(first, ("skip", "skip"), round(rng.random(), 3), dict.fromkeys(costs, 0)))
        items += [Item(first + place, ("skip",), round(rng.random(), 3), dict.fromkeys(costs, 0)) for place in (0, 1)]
    return items


def brute_force(items, num_blocks, caps):
    """Every choice within the caps, by enumeration: (loss, architecture), best first."""
    pairs = {(item.first_block, item.operators) for item in items if len(item.operators) == 2}

    def cover(block):
        if block == num_blocks:
            yield ()
        for item in items:
            if item.first_block == block:
                yield from ((item, *rest) for rest in cover(item.blocks.stop))

    found = []
    for chosen in cover(0):
        single = {(a.first_block, a.operators + b.operators) for a, b in itertools.pairwise(chosen)
                  if len(a.operators) == len(b.operators) == 1}  # fmt: skip
        if not single & pairs and all(sum(i.costs[name] for i in chosen) <= cap for name, cap in caps.items()):
            found.append((sum(item.loss for item in chosen), tuple(n for item in chosen for n in item.operators)))
    return sorted(found)


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_enumeration_finds(seed):
    rng = random.Random(seed)
    num_blocks = rng.choice((2, 3, 4))
    items = random_items(rng, num_blocks, 3)
    caps = {"size": rng.randrange(10, 60), "time": rng.randrange(20, 80)}
    expected = brute_force(items, num_blocks, caps)
    found = best_choices(items, num_blocks, caps, num_choices=10)
    assert [choice.loss for choice in found] == pytest.approx([loss for loss, _ in expected[:10]], abs=1e-9)
    assert len({choice.architecture for choice in found}) == len(found)
    for choice in found:
        assert (pytest.approx(choice.loss), tuple(choice.architecture)) in [(loss, arch) for loss, arch in expected]
        assert all(choice.costs[name] <= cap for name, cap in caps.items())
        assert choice.costs == {name: sum(item.costs[name] for item in choice.items) for name in caps}


def test_savings_are_taken_from_what_is_fixed():
    items = [Item(0, ("ffn",), 0.0, {"size": 0}), Item(0, ("ffn8",), 1.0, {"size": -40})]
    items += [Item(1, ("ffn",), 0.0, {"size": 0}), Item(1, ("ffn8",), 0.5, {"size": -30})]
    (choice,) = best_choices(items, 2, {"size": 70}, fixed={"size": 100})
    assert choice.architecture == ("ffn", "ffn8")
    assert choice.costs == {"size": 70}


def test_a_cap_is_kept_to_the_last_unit():
    """Parameters count in millions, the solver's tolerance is relative to that."""
    items = [Item(0, ("ffn9",), 0.0, {"size": 22_713_217}), Item(0, ("ffn8",), 1.0, {"size": 22_713_216})]
    (choice,) = best_choices(items, 1, {"size": 22_713_216})
    assert choice.architecture == ("ffn8",)


def test_losses_that_are_nearly_equal_are_told_apart():
    items = [Item(0, ("ffn1",), 6.7 + 1e-8, {"size": 1}), Item(0, ("ffn2",), 6.7, {"size": 1})]
    assert best_choices(items, 1, {"size": 1})[0].architecture == ("ffn2",)


def test_nothing_within_the_caps_names_the_smallest_cost():
    items = [
        Item(0, ("ffn",), 0.0, {"size": 9}),
        Item(1, ("ffn",), 0.0, {"size": 7}),
        Item(0, ("skip", "skip"), 1, {"size": 3}),
    ]
    with pytest.raises(ValueError, match=r"cap on size of 12 \(the smallest there is: 13\)"):
        best_choices(items, 2, {"size": 12}, fixed={"size": 10})
    with pytest.raises(ValueError, match=r"size of 5,323,392 \(the smallest there is: 10,646,787\)"):
        best_choices(items, 2, {"size": 5323392.0}, fixed={"size": 10646784.0})


def test_caps_that_exclude_each_other_are_named_together():
    items = [Item(0, ("ffn1",), 0.0, {"size": 1, "time": 9}), Item(0, ("ffn2",), 0.0, {"size": 9, "time": 1})]
    with pytest.raises(ValueError, match=r"all caps at once: size of 2 \(smallest: 1\), time of 2 \(smallest: 1\)"):
        best_choices(items, 1, {"size": 2, "time": 2})


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([Item(0, ("ffn",), 0.0, {"size": 1})], "block 1 has no item"),
        ([Item(0, ("ffn", "ffn", "ffn"), 0.0, {"size": 1})], "lies outside of the 2 blocks"),
        ([Item(0, ("ffn", "ffn"), 0.0, {"time": 1})], "has no size, which is capped"),
        ([Item(0, ("ffn", "ffn"), float("nan"), {"size": 1})], "is not finite"),
    ],
)
def test_items_that_fit_nothing_are_refused(items, said):
    with pytest.raises(ValueError, match=said):
        best_choices(items, 2, {"size": 5})
