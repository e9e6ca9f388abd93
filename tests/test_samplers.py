"""Samplers: fairness, the walk, counting, states; and the bugs of a public walk, one test each.

What all of them promise is in `hf_nasbert.testing`, and tested by test_testing.py.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise, permutations

import pytest

from hf_nasbert.samplers import FairSampler, GradualSampler, UniformSampler, UpdateCounter
from hf_nasbert.space import SKIP, SearchSpace, Stage, hamming, operator_width
from hf_nasbert.testing.samplers import SPACES, take, take_steps

CHAIN = SPACES["chain"]
WITH_SKIP = SPACES["chain-with-skip"]
STAGED = SPACES["staged"]
NASBERT = SearchSpace.staged(
    4, 6, ("attention", "ffn", "conv3", "conv5", "conv7", SKIP), widths=(128, 192, 256, 384, 512)
)


class TestUniformSampler:
    def test_every_operator_equally_often(self):
        counter = UpdateCounter(CHAIN)
        counter.update(take(UniformSampler(CHAIN, seed=0), 30_000))
        assert counter.statistics()["balance"] > 0.95

    def test_over_children_every_child_equally_often(self):
        visits = Counter(take(UniformSampler(WITH_SKIP, seed=0, uniform_over="children"), 30_000))
        assert len(visits) == WITH_SKIP.num_children
        assert max(visits.values()) / min(visits.values()) < 1.9  # 250 visits each, give or take 16
        # Over operators, the shallow children are far more frequent: the option does something.
        shallow = {
            uniform_over: sum(child.count(SKIP) > 1 for child in take(sampler, 3000))
            for uniform_over in ("operators", "children")
            for sampler in [UniformSampler(WITH_SKIP, seed=0, uniform_over=uniform_over)]
        }
        assert shallow["operators"] > 2 * shallow["children"]

    def test_options_belong_to_the_state(self):
        state = UniformSampler(CHAIN, seed=0, uniform_over="children").state_dict()
        with pytest.raises(ValueError, match=r"saved under .*children.*operators"):
            UniformSampler(CHAIN, seed=0).load_state_dict(state)

    def test_refuses_an_unknown_option(self):
        with pytest.raises(ValueError, match="'operators' or 'children'"):
            UniformSampler(CHAIN, seed=0, uniform_over="kids")


class TestFairSampler:
    def test_every_step_uses_every_operator_exactly_once(self):
        for step in take_steps(FairSampler(CHAIN, seed=0), 200):
            assert [sorted(column) for column in zip(*step, strict=True)] == [sorted(block) for block in CHAIN.blocks]

    @pytest.mark.parametrize("space", [WITH_SKIP, STAGED, NASBERT], ids=["chain", "staged", "nasbert"])
    def test_with_skip_a_step_uses_every_real_operator_once_or_none(self, space):
        depths = Counter()
        for step in take_steps(FairSampler(space, seed=0), 200):
            for block, column in enumerate(zip(*step, strict=True)):
                real = sorted(name for name in space.blocks[block] if name != SKIP)
                assert sorted(column) == real or set(column) == {SKIP}
            depths.update(len(step[0][where]) - step[0][where].count(SKIP) for where in space.stage_slices)
            for child in step:
                space.validate(child)
        assert len(depths) > 1

    def test_depths_come_as_often_as_among_children(self):
        # 3 + 9 + 27 + 81 children of depth 1 to 4.
        sampler = FairSampler(WITH_SKIP, seed=0)
        depths = Counter(4 - step[0].count(SKIP) for step in take_steps(sampler, 12_000))
        for depth in range(1, 5):
            expected = 12_000 * 3**depth / 120
            assert abs(depths[depth] - expected) < 4 * expected**0.5

    def test_each_stage_draws_its_own_depth_and_order(self):
        steps = take_steps(FairSampler(STAGED, seed=0), 300)
        depths = {tuple(step[0][where].count(SKIP) for where in STAGED.stage_slices) for step in steps}
        assert depths == {(0, 0), (0, 1), (1, 0), (1, 1)}
        widths = {(operator_width(child[0]), operator_width(child[2])) for step in steps for child in step}
        assert widths == {(32, 32), (32, 64), (64, 32), (64, 64)}

    def test_smaller_blocks_differ_by_at_most_one_within_a_step(self):
        space = SearchSpace(
            (
                Stage((("attention", "ffn", "conv3", "conv5", "conv7"), ("attention", "ffn"), ("ffn", "conv3", SKIP))),
                Stage((("attention",), ("ffn", "conv3", "conv5", SKIP)), widths=(32, 64)),
            )
        )
        sampler = FairSampler(space, seed=0)
        assert sampler.children_per_step == 6
        uneven = 0
        for step in take_steps(sampler, 300):
            assert len(step) == 6
            for candidates, column in zip(space.blocks, zip(*step, strict=True), strict=True):
                counts = [column.count(name) for name in candidates if name != SKIP]
                assert max(counts) - min(counts) <= 1
                uneven += max(counts) != min(counts)
        assert uneven > 0
        # Which operator comes once more is drawn afresh: over many steps it evens out.
        counter = UpdateCounter(space)
        for step in take_steps(sampler, 3000):
            counter.update(step)
        assert counter.statistics()["balance"] > 0.95

    def test_permutations_are_fresh_in_every_step(self):
        """A public FairNAS baseline appends to its list and reads the front: an epoch trains the same few children."""
        steps = take_steps(FairSampler(CHAIN, seed=0), 300)
        children = Counter(child for step in steps for child in step)
        assert len(children) > 0.9 * CHAIN.num_children  # 900 draws of 243 children
        assert max(children.values()) < 20
        assert len({frozenset(step) for step in steps}) > 240  # of 1,296; about 268 expected

    def test_blocks_are_permuted_independently(self):
        # Else an operator would always train in the same company: fair, and no random child.
        pairs = Counter(
            (child[0], child[1]) for step in take_steps(FairSampler(CHAIN, seed=0), 3000) for child in step
        )
        assert len(pairs) == 9
        assert max(pairs.values()) / min(pairs.values()) < 1.35

    def test_one_by_one_are_the_children_of_steps(self):
        one_by_one = take(FairSampler(CHAIN, seed=0), 30)
        assert [tuple(one_by_one[i : i + 3]) for i in range(0, 30, 3)] == take_steps(FairSampler(CHAIN, seed=0), 10)

    def test_a_begun_step_is_not_dropped(self):
        sampler = FairSampler(CHAIN, seed=0)
        take(sampler, 1)
        with pytest.raises(ValueError, match="2 of them are still to come"):
            sampler.next_step()
        take(sampler, 2)
        assert len(sampler.next_step()) == 3

    @pytest.mark.parametrize("pending", [None, "attention", ["attention"], [1], ["a-b-c-d-e"]])
    def test_refuses_a_damaged_begun_step(self, pending):
        sampler, saved = FairSampler(CHAIN, seed=0), FairSampler(CHAIN, seed=1).state_dict()
        before = sampler.state_dict()
        with pytest.raises(ValueError, match=r"children still to come|search space|architecture"):
            sampler.load_state_dict(saved | {"pending": pending})
        assert sampler.state_dict() == before


class TestGradualSampler:
    @pytest.mark.parametrize("space", [*SPACES.values(), NASBERT], ids=[*SPACES, "nasbert"])
    def test_adjacent_children_differ_in_one_block(self, space):
        walk = take(GradualSampler(space, seed=0), 500)
        assert {hamming(a, b) for a, b in pairwise(walk)} == {1}

    @pytest.mark.parametrize("num_changes", [2, 3, 5])
    def test_adjacent_children_differ_in_num_changes_blocks(self, num_changes):
        walk = take(GradualSampler(CHAIN, seed=0, num_changes=num_changes), 300)
        assert {hamming(a, b) for a, b in pairwise(walk)} == {num_changes}

    def test_without_skip_every_child_is_visited_equally_often(self):
        space = SearchSpace.chain(3, ("attention", "ffn", "conv3"))
        visits = Counter(take(GradualSampler(space, seed=0), 30_000))
        assert len(visits) == 27
        assert max(visits.values()) / min(visits.values()) < 1.3  # 1,111 visits each; 1.10 to 1.16 over seeds

    @pytest.mark.parametrize(
        "space",
        [WITH_SKIP, SearchSpace.staged(1, 3, ("attention", "ffn", SKIP), widths=(32, 64))],
        ids=["chain", "staged"],
    )
    def test_with_skip_visits_follow_the_number_of_blocks_that_can_change(self, space):
        visits = Counter(take(GradualSampler(space, seed=0), 30_000))
        blocks = range(space.num_choice_blocks)
        weights = {child: sum(bool(space.alternatives(child, i)) for i in blocks) for child in space.enumerate()}
        by_weight = {
            weight: sum(visits[child] for child in weights if weights[child] == weight)
            / (weight * sum(w == weight for w in weights.values()))
            for weight in set(weights.values())
        }
        # Were all children visited equally often, these would differ by the ratio of the weights: 2 and 3/2.
        assert len(by_weight) > 1
        assert max(by_weight.values()) / min(by_weight.values()) < 1.35
        assert min(visits[child] / weights[child] for child in weights) > 0.5 * 30_000 / sum(weights.values())

    def test_starts_at_any_child(self):
        starts = Counter(GradualSampler(STAGED, seed=seed).next_architecture() for seed in range(3000))
        assert len(starts) == STAGED.num_children

    def test_starts_at_every_child_equally_often(self):
        starts = [GradualSampler(WITH_SKIP, seed=seed).next_architecture() for seed in range(600)]
        children = list(WITH_SKIP.enumerate())
        # Uniform over operators, children of few blocks would be several times as frequent.
        found, expected = (sum(child.count(SKIP) > 1 for child in all_) / len(all_) for all_ in (starts, children))
        assert found == pytest.approx(expected, abs=0.05)

    def test_docstring_figure_for_nasbert_widths(self):
        # Visits are in proportion to the blocks that can change, so a step changes a width with probability
        # (children of depth 1) * (24 others, 20 of another width) / (sum over children of such blocks), per stage.
        (stage, *_) = NASBERT.stages
        changeable = sum(stage.num_children_of_depth(depth) * min(depth + 1, 6) for depth in stage.depths)
        assert round(changeable / (stage.num_children_of_depth(1) * 20 / 24), -3) == 28_000

    # The four bugs of a public MAGIC-like sampler.

    def test_bug_a_the_walk_goes_on_from_where_it_stands(self):
        """There, the previous architecture was reset at every call: it never walked."""
        walk = take(GradualSampler(CHAIN, seed=0), 100)
        assert max(hamming(walk[0], architecture) for architecture in walk) == 5
        # Epochs and restarts are no fresh start either.
        sampler, resumed = GradualSampler(CHAIN, seed=0), GradualSampler(CHAIN, seed=1)
        last = take(sampler, 30)[-1]
        resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
        assert hamming(last, resumed.next_architecture()) == 1

    def test_bug_b_what_was_handed_out_does_not_change(self):
        """There, the new choice was assigned into the wrong object."""
        sampler = GradualSampler(CHAIN, seed=0)
        handed_out, printed = [], []
        for _ in range(50):
            handed_out.append(sampler.next_architecture())
            printed.append(str(handed_out[-1]))
        assert [str(architecture) for architecture in handed_out] == printed
        assert len(set(printed)) > 20
        assert sampler.state_dict()["architecture"] == printed[-1]
        with pytest.raises(TypeError):
            handed_out[-1][0] = "ffn"

    def test_bug_c_every_block_changes_and_equally_often(self):
        """There, the number of layers was the length of another list: only block 0 ever changed."""
        changed = Counter()
        for a, b in pairwise(take(GradualSampler(CHAIN, seed=0), 30_000)):
            changed.update(block for block in range(5) if a[block] != b[block])
        assert set(changed) == set(range(5))
        assert max(changed.values()) / min(changed.values()) < 1.1

    def test_bug_d_does_not_seed_or_share_global_generators(self):
        """There, Python's generator was seeded anew at each call while the mask used numpy's: ranks drift apart."""
        state = random.getstate()
        random.seed(123)
        expected = [random.random() for _ in range(3)]
        random.seed(123)
        sampler = GradualSampler(CHAIN, seed=0)
        between = []
        for _ in range(3):
            take(sampler, 3)
            between.append(random.random())
        random.setstate(state)
        assert between == expected
        # A generator seeded anew at each call would repeat its move.
        moves = {
            next((block, b[block]) for block in range(5) if a[block] != b[block])
            for a, b in pairwise(take(GradualSampler(CHAIN, seed=0), 100))
        }
        assert len(moves) == 15

    def test_refuses_more_changes_than_some_child_allows(self):
        with pytest.raises(ValueError, match=r"cannot change 6 choice blocks per step.*only 5"):
            GradualSampler(CHAIN, seed=0, num_changes=6)
        with pytest.raises(ValueError, match="only 0 can change"):
            GradualSampler(SearchSpace.chain(3, ("attention",)), seed=0)
        # From depth 2 one can grow twice or shrink once; from depth 1 and 4, three times: 2 always, 3 not.
        narrow = SearchSpace.chain(4, ("attention", SKIP))
        assert {hamming(a, b) for a, b in pairwise(take(GradualSampler(narrow, seed=0, num_changes=2), 50))} == {2}
        with pytest.raises(ValueError, match="only 2 can change"):
            GradualSampler(narrow, seed=0, num_changes=3)

    @pytest.mark.parametrize("num_changes", [0, -1, 1.0, True, "1"])
    def test_refuses_odd_num_changes(self, num_changes):
        with pytest.raises(ValueError, match="positive integer"):
            GradualSampler(CHAIN, seed=0, num_changes=num_changes)

    def test_refuses_a_width_it_could_never_change(self):
        with pytest.raises(ValueError, match="never change the width of stage 0"):
            GradualSampler(SearchSpace.staged(2, 2, ("attention", "ffn"), widths=(32, 64)), seed=0)
        GradualSampler(SearchSpace.staged(2, 2, ("attention", "ffn"), widths=(32,)), seed=0)
        GradualSampler(SearchSpace.staged(3, 1, ("attention", "ffn"), widths=(32, 64)), seed=0)

    def test_options_and_place_belong_to_the_state(self):
        sampler = GradualSampler(CHAIN, seed=0)
        with pytest.raises(ValueError, match=r"saved under .*2.*make it with the saved options"):
            sampler.load_state_dict(GradualSampler(CHAIN, seed=0, num_changes=2).state_dict())
        before, saved = sampler.state_dict(), GradualSampler(CHAIN, seed=1).state_dict()
        for architecture in ("attention", "attention-ffn-ffn-ffn-skip", 3, ""):
            with pytest.raises(ValueError, match="architecture"):
                sampler.load_state_dict(saved | {"architecture": architecture})
            assert sampler.state_dict() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": SearchSpace.chain(3, ("attention", "ffn")).to_dict()}, "another search space"),
        ({"sampler": "nobody"}, "cannot load the state of a 'nobody' sampler"),
        ({"rgn": 1}, r"unknown \['rgn'\]"),
        ({"seed": -1}, "seed"),
        ({"options": {"temperature": 2}}, "was saved under"),
        ({"rng": None}, "damaged"),
    ],
)
def test_a_state_is_refused_by_what_is_wrong_with_it(change, words):
    sampler = UniformSampler(CHAIN, seed=0)
    with pytest.raises(ValueError, match=words):
        sampler.load_state_dict(sampler.state_dict() | change)
    with pytest.raises(ValueError, match=r"missing \['rng'\]"):
        sampler.load_state_dict({key: value for key, value in sampler.state_dict().items() if key != "rng"})


def test_streams_of_equal_seeds_are_independent():
    # Children drawn to be evaluated with random.Random(0) must not be the first ones that the sampler trains.
    rng = random.Random(0)
    elsewhere = [CHAIN.sample(rng) for _ in range(20)]
    assert sum(a == b for a, b in zip(elsewhere, take(UniformSampler(CHAIN, seed=0), 20), strict=True)) < 5


DRAW = """
import json, sys
from hf_nasbert import samplers
from hf_nasbert.space import SearchSpace
names, spaces = map(json.loads, sys.argv[1:])
for name in names:
    for space in spaces:
        sampler = getattr(samplers, name)(SearchSpace.from_dict(space), seed=5)
        print([str(sampler.next_architecture()) for _ in range(40)])
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_every_rank_draws_the_same():
    kinds = [UniformSampler, FairSampler, GradualSampler]
    spaces = json.dumps([space.to_dict() for space in SPACES.values()])
    drawn = [
        subprocess.run(
            [sys.executable, "-c", DRAW, json.dumps([kind.__name__ for kind in kinds]), spaces],
            env=os.environ | {"PYTHONHASHSEED": rank, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for rank in ("0", "1")
    ]
    here = [list(map(str, take(kind(space, seed=5), 40))) for kind in kinds for space in SPACES.values()]
    assert drawn[0] == drawn[1] == "".join(f"{children}\n" for children in here)


def test_states_of_one_sampler_do_not_fit_another():
    for saved, loaded in permutations((UniformSampler, FairSampler, GradualSampler), 2):
        with pytest.raises(ValueError, match=f"state of a '{saved.name}' sampler into a '{loaded.name}'"):
            loaded(CHAIN, seed=0).load_state_dict(saved(CHAIN, seed=0).state_dict())


def test_a_sampler_needs_a_name():
    class Nameless(UniformSampler):
        name = None

    with pytest.raises(ValueError, match="Nameless has no name"):
        Nameless(CHAIN, seed=0)


def test_names_where_another_space_differs():
    def refused(there, here):
        with pytest.raises(ValueError, match="belongs to another search space") as caught:
            UniformSampler(here, seed=0).load_state_dict(UniformSampler(there, seed=0).state_dict())
        return str(caught.value)

    kinds = ("attention", "ffn")
    assert "choice block 1 are ('ffn', 'conv3') there and ('ffn',)" in refused(
        SearchSpace((Stage((("ffn",), ("ffn", "conv3"))),)), SearchSpace.chain(2, ("ffn",))
    )
    assert "choice block 2 are ('attention', 'ffn') there and None" in refused(
        SearchSpace.chain(3, kinds), SearchSpace.chain(2, kinds)
    )
    two_stages = SearchSpace(SearchSpace.chain(2, kinds).stages * 2)
    assert "are [4] there and [2, 2] here" in refused(SearchSpace.chain(4, kinds), two_stages)
    with pytest.raises(ValueError, match="state of the uniform sampler is damaged: a search space is a mapping"):
        UniformSampler(CHAIN, seed=0).load_state_dict(UniformSampler(CHAIN, seed=0).state_dict() | {"space": 3})


class TestUpdateCounter:
    def test_counts_every_operator_of_every_block(self):
        counter = UpdateCounter(WITH_SKIP)
        step = take(UniformSampler(WITH_SKIP, seed=0), 200)
        counter.update(step[:150])
        counter.update(step[150:])
        for block, counts in enumerate(counter.counts):
            assert counts == {name: sum(child[block] == name for child in step) for name in WITH_SKIP.blocks[block]}
        assert counter.num_children == 200

    def test_statistics(self):
        counter = UpdateCounter(WITH_SKIP)
        empty = {"num_children": 0, "min_updates": 0, "max_updates": 0, "coverage": 0.0, "balance": 1.0}
        assert counter.statistics() == empty
        assert len(counter.never_trained()) == 12
        counter.update([["attention", "ffn", SKIP, SKIP], ["ffn", "ffn", SKIP, SKIP], ["conv3", SKIP, SKIP, SKIP]])
        # Block 0 is balanced, block 1 is not, blocks 2 and 3 have not been trained; nobody misses a skip.
        assert counter.statistics() == {
            "num_children": 3,
            "min_updates": 0,
            "max_updates": 2,
            "coverage": 4 / 12,
            "balance": 0.0,
        }
        assert counter.never_trained() == [
            (1, "attention"),
            (1, "conv3"),
            *((block, name) for block in (2, 3) for name in ("attention", "ffn", "conv3")),
        ]
        counter.update([["attention", name, SKIP, SKIP] for name in ("attention", "conv3")])
        assert counter.statistics()["balance"] == 1 / 3  # block 0: 3, 1, 1; block 1: 1, 2, 1

    def test_handed_out_counts_are_copies(self):
        counter = UpdateCounter(CHAIN)
        counter.counts[0]["ffn"] = 9
        assert counter.counts[0]["ffn"] == 0

    def test_counts_nothing_of_a_step_with_a_stranger(self):
        counter = UpdateCounter(CHAIN)
        with pytest.raises(ValueError, match="choice block 4 has no operator 'conv9'"):
            counter.update([["ffn"] * 5, ["ffn"] * 4 + ["conv9"]])
        assert counter.statistics()["max_updates"] == counter.num_children == 0

    def test_state_goes_through_json(self):
        counter, other = UpdateCounter(WITH_SKIP), UpdateCounter(WITH_SKIP)
        counter.update(take(UniformSampler(WITH_SKIP, seed=0), 100))
        other.load_state_dict(json.loads(json.dumps(counter.state_dict())))
        assert other.counts == counter.counts
        assert other.num_children == 100
        other.update([WITH_SKIP.child_at(0)])
        assert counter.num_children == 100

    def test_refuses_a_state_that_is_not_its_own(self):
        counter = UpdateCounter(WITH_SKIP)
        counter.update(take(UniformSampler(WITH_SKIP, seed=0), 10))
        good = counter.state_dict()
        doubled = [[2 * count for count in row] for row in good["counts"]]
        for reason, state in [
            ("another search space", UpdateCounter(CHAIN).state_dict()),
            ("expected the state_dict", {"counts": good["counts"]}),
            ("expected the state_dict", None),
            ("damaged", good | {"counts": doubled}),
            ("damaged", good | {"counts": good["counts"][:-1]}),
            ("damaged", good | {"counts": None}),
            ("damaged", good | {"counts": [5] * 4}),
            ("damaged", good | {"num_children": 11}),
            ("damaged", good | {"counts": [[-1, 5, 6, 0]] * 4}),
        ]:
            with pytest.raises(ValueError, match=reason):
                counter.load_state_dict(state)
            assert counter.state_dict() == good
