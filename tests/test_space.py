"""Search spaces against brute force: every rule is written a second time here, over all combinations of candidates."""

import copy
import functools
import itertools
import json
import math
import pickle
import random
import re
import time
from collections import Counter
from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nasbert.modeling.geometry_nasbert import geometry, parse_operator
from hf_nasbert.space import (
    SKIP,
    Architecture,
    FreeStage,
    SearchSpace,
    Stage,
    hamming,
    operator_kind,
    operator_width,
)

KINDS = ("attention", "ffn", "conv3", "conv5", "conv7", SKIP)
NASBERT = SearchSpace.staged(4, 6, KINDS, widths=(128, 192, 256, 384, 512))

# Small enough to look at every combination of candidates, odd enough to hold every special case.
SPACES = {
    "chain": SearchSpace.chain(3, ("attention", "ffn", "conv3")),
    "chain-with-skip": SearchSpace.chain(4, ("attention", SKIP, "ffn")),
    "staged": SearchSpace.staged(2, 2, ("attention", "ffn", SKIP), widths=(32, 64)),
    "staged-without-skip": SearchSpace.staged(2, 2, ("attention", "ffn"), widths=(32, 64)),
    "single-kind": SearchSpace.chain(4, ("attention", SKIP)),
    "single-kind-widths": SearchSpace((Stage((("ffn", SKIP),) * 3, widths=(32, 64)), Stage((("ffn",),)))),
    "alternating": SearchSpace((Stage((("attention",), ("ffn",), ("attention", SKIP), ("ffn", SKIP))),)),
    "uneven": SearchSpace(
        (
            Stage((("attention", "ffn"), ("conv3", "ffn", SKIP), ("ffn", "conv5", SKIP))),
            Stage((("ffn", "attention"), ("ffn", SKIP)), widths=(64, 32)),
        )
    ),
    "useless-skip": SearchSpace((Stage((("ffn", "conv3", SKIP), ("ffn", SKIP), ("conv3",))),)),
    "one-child": SearchSpace.chain(2, ("ffn",)),
    "two-unreachable": SearchSpace((Stage((("ffn",), ("ffn",)), widths=(32, 64)),)),
}


def is_child(space, names):
    """The three rules, in the most obvious words."""
    start = 0
    for stage in space.stages:
        part = names[start : start + len(stage.blocks)]
        real = [name for name in part if name != SKIP]
        if not real or list(part) != real + [SKIP] * (len(part) - len(real)):
            return False
        if len({name.partition("@")[2] for name in real}) > 1:
            return False
        start += len(stage.blocks)
    return True


def candidates(space):
    """Every block's full candidates, in the promised order."""
    return [
        [f"{kind}@{width}" if width else kind for width in stage.widths or [0] for kind in kinds if kind != SKIP]
        + [SKIP for kind in kinds if kind == SKIP]
        for stage in space.stages
        for kinds in stage.blocks
    ]


@pytest.fixture(params=SPACES.values(), ids=SPACES.keys())
def space(request):
    return request.param


@pytest.fixture
def children(space):
    """By brute force, in lexicographic order of the candidates."""
    return [names for names in itertools.product(*candidates(space)) if is_child(space, names)]


class TestAgainstBruteForce:
    def test_candidates(self, space):
        assert [list(block) for block in space.blocks] == candidates(space)
        assert space.num_choice_blocks == len(candidates(space))

    def test_counting_and_enumeration(self, space, children):
        assert list(space.enumerate()) == children
        assert space.num_children == len(children)
        assert all(type(child) is Architecture for child in space.enumerate())

    def test_common_prefixes_follow_each_other(self, space, children):
        for length in range(1, space.num_choice_blocks):
            prefixes = [prefix for prefix, _ in itertools.groupby(child[:length] for child in space.enumerate())]
            assert len(prefixes) == len(set(prefixes))

    def test_index(self, space, children):
        assert [space.child_at(index) for index in range(len(children))] == children
        assert [space.index_of(child) for child in children] == list(range(len(children)))

    def test_children_by_depth(self, space):
        for stage in space.stages:
            depths = Counter(len(child) - child.count(SKIP) for child in stage.children())
            assert depths == {depth: stage.num_children_of_depth(depth) for depth in stage.depths}
            assert stage.num_children == depths.total()
            assert stage.num_children_of_depth(0) == stage.num_children_of_depth(99) == 0

    def test_membership(self, space, children):
        members = set(children)
        for names in itertools.product(*candidates(space)):
            assert (names in space) == (names in members)
            assert (space.why_not(names) is None) == (names in members)
            if names in members:
                assert space.validate(names) == names
            else:
                with pytest.raises(ValueError, match="is not in the search space: choice block"):
                    space.validate(list(names))

    def test_canonical_form(self, space, children):
        members = set(children)
        for names in itertools.product(*candidates(space)):
            moved = []
            for where in space.stage_slices:
                real = [name for name in names[where] if name != SKIP]
                moved += real + [SKIP] * (len(names[where]) - len(real))
            if tuple(moved) in members:
                assert space.canonicalize(names) == tuple(moved)
            else:
                with pytest.raises(ValueError, match="choice block"):
                    space.canonicalize(names)

    def test_neighbours(self, space, children):
        for child in children:
            expected = [other for other in children if hamming(child, other) == 1]
            found = space.neighbours(child)
            assert sorted(found) == sorted(expected)
            assert len(set(found)) == len(found)
            for block in range(space.num_choice_blocks):
                there = [other[block] for other in expected if other[block] != child[block]]
                assert sorted(space.alternatives(child, block)) == sorted(there)

    def test_max_changes(self, space, children):
        blocks = range(space.num_choice_blocks)
        moves = {
            child: [
                (block, other)
                for block in blocks
                for name in candidates(space)[block]
                for other in [(*child[:block], name, *child[block + 1 :])]
                if name != child[block] and is_child(space, other)
            ]
            for child in children
        }

        @functools.cache
        def longest(child, free):
            return max(
                (1 + longest(other, free - {block}) for block, other in moves[child] if block in free), default=0
            )

        for child in random.Random(0).sample(children, min(len(children), 12)):
            assert space.max_changes(child) == longest(tuple(child), frozenset(blocks))

    def test_mutation_changes_exactly_so_many_blocks(self, space, children):
        members, rng = set(children), random.Random(0)
        for child in rng.sample(children, min(len(children), 12)):
            most = space.max_changes(child)
            for num_changes in range(1, most + 1):
                for _ in range(5):
                    other = space.mutate(child, rng, num_changes)
                    assert other in members
                    assert hamming(child, other) == num_changes
            with pytest.raises(ValueError, match=f"cannot change {most + 1} choice blocks .* at most {most} can"):
                space.mutate(child, rng, most + 1)

    def test_mutation_draws_the_block_then_the_operator(self, space, children):
        child = max(children, key=lambda child: len(space.neighbours(child)))
        others = [set(space.alternatives(child, block)) for block in range(space.num_choice_blocks)]
        free = [block for block, names in enumerate(others) if names]
        rng, draws = random.Random(0), 3000
        found = Counter(space.mutate(child, rng) for _ in range(draws)) if free else {}
        assert set(found) == set(space.neighbours(child))
        for other, count in found.items():
            (block,) = (block for block in free if other[block] != child[block])
            expected = draws / len(free) / len(others[block])
            assert abs(count - expected) < 4.5 * expected**0.5

    def test_crossover(self, space, children):
        members, rng = set(children), random.Random(0)
        stages = list(zip(space.stages, space.stage_slices, strict=True))
        for _ in range(200):
            a, b = rng.choice(children), rng.choice(children)
            offspring = space.crossover(a, list(b), rng)
            assert offspring in members
            assert space.crossover(a, a, rng) == a
            for _, where in stages:
                parts = a[where], b[where]
                mine = offspring[where]
                assert operator_width(mine[0]) in {operator_width(part[0]) for part in parts}
                assert mine.count(SKIP) in {part.count(SKIP) for part in parts}
                for i, name in enumerate(mine):
                    assert operator_kind(name) in {operator_kind(part[i]) for part in parts}

    def test_crossover_mixes_every_trait(self):
        space, rng = SPACES["staged"], random.Random(0)
        a = Architecture.parse("attention@32-attention@32-ffn@32-skip")
        b = Architecture.parse("ffn@64-skip-ffn@32-ffn@32")
        found = Counter(space.crossover(a, b, rng) for _ in range(4000))
        first = [
            (f"{kind}@{width}", rest)
            for width in (32, 64)
            for kind in ("attention", "ffn")
            for rest in (f"attention@{width}", SKIP)
        ]
        assert set(found) == {(*pair, "ffn@32", rest) for pair in first for rest in ("ffn@32", SKIP)}
        assert max(found.values()) / min(found.values()) < 1.6  # 250 each

    def test_sampling_operators_is_single_path_sampling(self, space, children):
        """The exact law: every block drawn alone, then the canonical name; draws without one are drawn again."""
        law = Counter()
        for stages in itertools.product(*(stage.widths or (0,) for stage in space.stages)):
            widths = [width for stage, width in zip(space.stages, stages, strict=True) for _ in stage.blocks]
            names = [
                [name for name in block if name == SKIP or not width or name.endswith(f"@{width}")]
                for block, width in zip(candidates(space), widths, strict=True)
            ]
            for drawn in itertools.product(*names):
                try:
                    law[space.canonicalize(drawn)] += Fraction(1, math.prod(len(block) for block in names))
                except ValueError:
                    continue
        assert set(law) == set(children)
        self.assert_drawn_by(law, lambda rng: space.sample(rng))

    def test_sampling_children_is_uniform(self, space, children):
        self.assert_drawn_by(dict.fromkeys(children, 1), lambda rng: space.sample(rng, "children"))

    @staticmethod
    def assert_drawn_by(law, draw):
        rng, draws = random.Random(0), 4000
        found = Counter(draw(rng) for _ in range(draws))
        assert set(found) <= set(law)
        total = sum(law.values())
        expected = {child: float(draws * weight / total) for child, weight in law.items()}
        chi_square = sum((found[child] - count) ** 2 / count for child, count in expected.items())
        assert chi_square < len(law) + 5 * math.sqrt(2 * len(law))


class TestSize:
    def test_nasbert_has_the_published_number_of_children(self):
        assert NASBERT.stages[0].num_children == 97_650
        assert NASBERT.num_children == 97_650**4
        assert NASBERT.num_choice_blocks == 24
        assert {len(block) for block in NASBERT.blocks} == {26}
        assert sum(1 for _ in SearchSpace(NASBERT.stages[:1]).enumerate()) == 97_650

    def test_big_spaces_take_no_time(self):
        started = time.perf_counter()
        space = SearchSpace.chain(200, KINDS)
        assert space.num_children == sum(5**depth for depth in range(1, 201))
        rng = random.Random(0)
        for uniform_over in ("operators", "children"):
            child = space.sample(rng, uniform_over)
            assert space.child_at(space.index_of(child)) == child
        assert next(iter(space.enumerate())) == ("attention",) * 200
        assert space.child_at(space.num_children - 1) == ("conv7",) + (SKIP,) * 199
        assert time.perf_counter() - started < 2

    def test_no_rejection(self):
        # Of 2^40 free draws 40 have a canonical name here: drawing again until one does would never end.
        kinds = [f"kind{block}" for block in range(40)]
        space = SearchSpace((Stage(tuple((kind, SKIP) for kind in kinds)),))
        assert space.num_children == 40
        depths = {40 - space.sample(random.Random(seed)).count(SKIP) for seed in range(500)}
        assert depths == set(range(1, 41))

    def test_index_beyond_the_end(self):
        for index in (-1, NASBERT.num_children, 1.0, "0", None):
            with pytest.raises(ValueError, match="there is no child"):
                NASBERT.child_at(index)


class TestReasons:
    """Every refusal names the choice block, the operator and the candidates, or the rule."""

    CHAIN = SearchSpace.chain(3, ("attention", "ffn", SKIP))
    STAGED = SPACES["staged"]

    @pytest.mark.parametrize(
        ("space", "text", "reason"),
        [
            (CHAIN, "ffn-conv9-ffn", "choice block 1 has no operator 'conv9' (candidates: attention, ffn, skip)"),
            (CHAIN, "ffn-ffn@32-ffn", "choice block 1 has no operator 'ffn@32' (candidates: attention, ffn, skip)"),
            (CHAIN, "ffn-ffn", "it names 2 operators, the space has 3 choice blocks"),
            (CHAIN, "ffn-ffn-ffn-ffn", "it names 4 operators, the space has 3 choice blocks"),
            (
                CHAIN,
                "ffn-skip-attention",
                "choice block 1 holds 'skip' before 'attention' in block 2 (candidates: attention, ffn, skip): "
                "skip stands at the end of its stage only",
            ),
            (CHAIN, "skip-ffn-ffn", "choice block 0 holds 'skip' before 'ffn' in block 1"),
            (
                CHAIN,
                "skip-skip-skip",
                "choice blocks 0 to 2 hold 'skip' only (candidates of block 0: attention, ffn, skip): "
                "stage 0 needs a real operator",
            ),
            (STAGED, "ffn@32-ffn@32-skip-skip", "choice blocks 2 to 3 hold 'skip' only"),
            (STAGED, "ffn@32-skip-skip-ffn@32", "choice block 2 holds 'skip' before 'ffn@32' in block 3"),
            (STAGED, "ffn-ffn-ffn-ffn", "choice block 0 has no operator 'ffn' (candidates: attention@32, ffn@32, "),
            (
                STAGED,
                "ffn@32-ffn@32-ffn@64-attention@32",
                "choice block 3 holds 'attention@32' though block 2 of stage 1 holds 'ffn@64' (candidates: "
                "attention@32, ffn@32, attention@64, ffn@64, skip): the operators of a stage share one width",
            ),
        ],
    )
    def test_reason(self, space, text, reason):
        architecture = Architecture.parse(text)
        assert reason in space.why_not(architecture)
        assert architecture not in space
        for refuse in (
            space.validate,
            space.neighbours,
            space.index_of,
            space.max_changes,
            lambda architecture: space.mutate(architecture, random.Random(0)),
            lambda architecture: space.crossover(architecture, space.child_at(0), random.Random(0)),
            lambda architecture: space.crossover(space.child_at(0), architecture, random.Random(0)),
            lambda architecture: space.alternatives(architecture, 0),
        ):
            with pytest.raises(ValueError, match="is not in the search space") as caught:
                refuse(architecture)
            assert reason in str(caught.value)
            assert text in str(caught.value)

    @pytest.mark.parametrize("thing", ["ffn--ffn", "", None, 3, b"ffn", ["ffn", None, "ffn"], [], ["ffn", ["ffn"]]])
    def test_what_is_no_architecture(self, thing):
        assert thing not in self.CHAIN
        with pytest.raises(ValueError, match=r"architecture|operator name") as caught:
            self.CHAIN.validate(thing)
        assert self.CHAIN.why_not(thing) == str(caught.value)

    def test_canonical_form_is_of_known_operators_only(self):
        with pytest.raises(ValueError, match="no canonical form: choice block 1 has no operator 'conv9'"):
            self.CHAIN.canonicalize(["skip", "conv9", "ffn"])
        # An operator that would move to a block that lacks it.
        with pytest.raises(ValueError, match="choice block 2 has no operator 'ffn'"):
            SPACES["alternating"].canonicalize(["attention", "ffn", "skip", "ffn"])

    def test_odd_requests(self):
        child, rng = self.CHAIN.child_at(0), random.Random(0)
        for num_changes in (0, -1, 1.0, True, "1"):
            with pytest.raises(ValueError, match="num_changes is a positive integer"):
                self.CHAIN.mutate(child, rng, num_changes)
        for block in (-1, 3):
            with pytest.raises(ValueError, match=f"no choice block {block}: the space has blocks 0 to 2"):
                self.CHAIN.alternatives(child, block)
        with pytest.raises(ValueError, match="'operators' or 'children', got 'kids'"):
            self.CHAIN.sample(rng, "kids")

    def test_validate_is_fast(self):
        # Called in every training step.
        child = NASBERT.sample(random.Random(0))
        started = time.perf_counter()
        for _ in range(1000):
            NASBERT.validate(child)
        assert time.perf_counter() - started < 0.5


class TestArchitecture:
    def test_text_form_parses_back(self):
        rng = random.Random(0)
        for space in (*SPACES.values(), NASBERT):
            for _ in range(20):
                architecture = space.sample(rng)
                again = Architecture.parse(str(architecture))
                assert again == architecture == space.validate(str(architecture))
                assert space.why_not(str(architecture)) is None
                assert type(again) is Architecture
        assert str(Architecture(["attention@192", "conv5@192", "skip"])) == "attention@192-conv5@192-skip"
        assert f"{Architecture(['ffn', 'skip'])}" == "ffn-skip"

    def test_is_the_tuple_of_its_names(self):
        architecture = Architecture(["ffn", "skip"])
        assert architecture == ("ffn", "skip")
        assert {architecture: 1}["ffn", "skip"] == 1
        assert json.loads(json.dumps(architecture)) == ["ffn", "skip"]
        assert Architecture(architecture) is architecture
        for again in (pickle.loads(pickle.dumps(architecture)), copy.deepcopy(architecture)):
            assert again == architecture
            assert type(again) is Architecture

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "-",
            "ffn-",
            "-ffn",
            "ffn--ffn",
            "ffn ffn",
            " ffn",
            "ffn\n",
            "ffn-conv 3",
            "../ffn",
            "ffn/..",
            "ffn.weight",
            "ffn@",
            "@32",
            "ffn@0",
            "ffn@032",
            "ffn@-1",
            "ffn@1.5",
            "ffn@32@32",
            "ffn@9999999",
            "ffn@٣٢",
            "ffn@1_0",
            "skip@32",
            "3ffn",
            "_ffn",
            "fën",
            "ffn\x00",
            "ffn,skip",
            "f" * 65,
            "\\ffn",
            "~",
            "con:",
            "{ffn}",
            "<b>",
        ],
    )
    def test_refuses_odd_text(self, text):
        with pytest.raises(ValueError, match=r"is not an operator name|expected an architecture"):
            Architecture.parse(text)

    @pytest.mark.parametrize("thing", [None, 3, b"ffn", ["ffn"], ("ffn",)])
    def test_parses_text_only(self, thing):
        with pytest.raises(ValueError, match="expected an architecture such as"):
            Architecture.parse(thing)

    @pytest.mark.parametrize("thing", ["ffn", b"ffn", None, 3, [], ["ffn", 3], ["ffn", None], [["ffn"]], ["ffn-ffn"]])
    def test_refuses_what_is_no_sequence_of_names(self, thing):
        with pytest.raises(ValueError, match=r"architecture (is|names)|is not an operator name"):
            Architecture(thing)

    def test_messages_stay_short(self):
        for refuse in (
            lambda: Architecture.parse("a" * 10**6),
            lambda: Architecture.parse("a-" * 10**5 + "."),
            lambda: Architecture([["x" * 1000] * 1000]),
            lambda: SearchSpace.chain(2, ("ffn",)).validate(["ffn"] * 10**5),
            lambda: SearchSpace.from_dict({"stages": [{"blocks": [["x" * 10**6]]}]}),
        ):
            with pytest.raises(ValueError, match=r"name|operator|stage") as caught:
                refuse()
            assert len(str(caught.value)) < 1500

    def test_kind_and_width(self):
        assert (operator_kind("conv5@192"), operator_width("conv5@192")) == ("conv5", 192)
        assert (operator_kind("ffn_512"), operator_width("ffn_512")) == ("ffn_512", None)
        for odd in ("conv5@", "a-b", "", None, 5):
            for read in (operator_kind, operator_width):
                with pytest.raises(ValueError, match="is not an operator name"):
                    read(odd)

    def test_hamming(self):
        assert hamming(["ffn", "conv3", "skip"], Architecture(["ffn", "attention", "ffn"])) == 2
        assert hamming(["ffn@32"], ["ffn@64"]) == 1
        assert hamming(["ffn"], ["ffn"]) == 0
        with pytest.raises(ValueError, match="of 1 choice blocks with one of 2"):
            hamming(["ffn"], ["ffn", "ffn"])

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(st.text(max_size=40) | st.text("ab1@-_ ./\nskip", max_size=20))
    def test_any_text_parses_back_or_is_refused(self, text):
        try:
            architecture = Architecture.parse(text)
        except ValueError:
            return
        assert str(architecture) == text
        assert all(name == SKIP or operator_kind(name).isascii() for name in architecture)


class TestConstruction:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda: SearchSpace(()), "non-empty list of stages"),
            (lambda: SearchSpace((("attention",),)), "stage 0 is not a Stage"),
            (lambda: Stage(()), "non-empty list of choice blocks"),
            (lambda: Stage("ffn"), "non-empty list of choice blocks"),
            (lambda: Stage(((),)), "non-empty list of operator kinds"),
            (lambda: Stage(("ffn",)), "non-empty list of operator kinds, got 'ffn'"),
            (lambda: Stage((("ffn", "conv3", "ffn"),)), "duplicate candidates"),
            (lambda: Stage(((SKIP, "ffn", SKIP),)), "duplicate candidates"),
            (lambda: Stage((("ffn",), (SKIP,))), "needs a candidate other than 'skip'"),
            (lambda: SearchSpace.chain(3, (SKIP,)), "needs a candidate other than 'skip'"),
            (lambda: SearchSpace.chain(3, "ffn"), "non-empty list of operator kinds, got 'ffn'"),
            (lambda: SearchSpace.chain(3, ()), "non-empty list of operator kinds"),
            (lambda: SearchSpace.chain(3, ("ffn", ["conv3"])), "is not an operator kind"),
            (lambda: SearchSpace.staged(2, 2, ("ffn",), widths=(32, 32)), "duplicate widths"),
            (lambda: SearchSpace.staged(2, 2, ("ffn",), widths="32"), "list of positive integers"),
            (lambda: SearchSpace.staged(2, 2, ("ffn",), widths=32), "list of positive integers, got 32"),
        ],
    )
    def test_refuses(self, make, reason):
        with pytest.raises(ValueError, match=reason):
            make()

    @pytest.mark.parametrize("width", [0, -32, 32.0, "32", None, True, 1_000_000])
    def test_refuses_an_odd_width(self, width):
        with pytest.raises(ValueError, match="a width is an integer from 1 to 999999, got"):
            Stage((("ffn",),), widths=(64, width))

    @pytest.mark.parametrize("count", [0, -1, 2.0, "2", None, True])
    def test_refuses_an_odd_count(self, count):
        for make in (
            lambda: SearchSpace.chain(count, ("ffn",)),
            lambda: SearchSpace.staged(count, 2, ("ffn",), (32,)),
            lambda: SearchSpace.staged(2, count, ("ffn",), (32,)),
        ):
            with pytest.raises(ValueError, match="is a positive integer, got"):
                make()

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "a-b",
            "a.b",
            "a/b",
            "..",
            "../../etc/passwd",
            "a b",
            "a\n",
            "a@32",
            "ffn@",
            "3a",
            "é",
            "a" * 65,
            None,
            3,
            b"ffn",
            ("ffn",),
            "C:\\a",
            "\x00",
            "skip ",
            "__class__",
        ],
    )
    def test_refuses_an_odd_kind(self, kind):
        with pytest.raises(ValueError, match="is not an operator kind"):
            Stage((("ffn", kind),))

    def test_frozen_hashable_and_equal_by_value(self):
        space, same = (SearchSpace.chain(2, ["ffn", SKIP, "conv3"]) for _ in range(2))
        assert list(space.enumerate())  # caches filled in one of them
        assert space == same
        assert hash(space) == hash(same)
        # Where skip stands among the candidates means nothing.
        assert space == SearchSpace.chain(2, ("ffn", "conv3", SKIP))
        assert space != SearchSpace.chain(2, ("conv3", "ffn", SKIP))
        assert pickle.loads(pickle.dumps(space)) == space
        with pytest.raises(FrozenInstanceError):
            space.stages = ()

    def test_lists_are_not_shared(self):
        kinds, widths = ["ffn", "conv3"], [32, 64]
        space = SearchSpace([Stage([kinds], widths)])
        kinds.append("attention")
        widths.append(0)
        assert space.blocks == (("ffn@32", "conv3@32", "ffn@64", "conv3@64"),)

    def test_stages(self, space):
        flat = range(space.num_choice_blocks)
        assert [block for where in space.stage_slices for block in flat[where]] == list(flat)
        assert [space.stage_of(block) for block in flat] == [
            number for number, stage in enumerate(space.stages) for _ in stage.blocks
        ]
        assert space.num_stages == len(space.stages)

    def test_dict_goes_through_json(self, space):
        data = json.loads(json.dumps(space.to_dict()))
        assert data == space.to_dict()
        assert SearchSpace.from_dict(data) == space
        space.to_dict()["stages"][0]["blocks"][0].append("gone")
        assert SearchSpace.from_dict(space.to_dict()) == space

    def test_dict_is_the_documented_one(self):
        assert SearchSpace.staged(1, 2, ("ffn", SKIP), widths=(32,)).to_dict() == {
            "stages": [{"blocks": [["ffn", "skip"], ["ffn", "skip"]], "widths": [32]}]
        }
        assert SearchSpace.from_dict({"stages": [{"blocks": [["ffn"]]}]}) == SearchSpace.chain(1, ("ffn",))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (None, "a search space is a mapping with stages, got None"),
            ([], "a search space is a mapping"),
            ({}, r"missing \['stages'\]"),
            ({"stages": [], "stage": 1}, r"unknown \['stage'\]"),
            ({"stages": []}, "non-empty list of stages"),
            ({"stages": "ffn"}, "stages of a search space are a list"),
            ({"stages": [{"blocks": [["ffn"]]}, 3]}, "stage 1 of the search space: a stage is a mapping"),
            ({"stages": [{"blocks": [["ffn"]], "width": [3]}]}, r"stage 0 .* unknown \['width'\]"),
            ({"stages": [{"widths": [3]}]}, r"stage 0 .* missing \['blocks'\]"),
            ({"stages": [{"blocks": [["ffn"]], "widths": [3.0]}]}, "stage 0 .* a width is an integer"),
            ({"stages": [{"blocks": [["ffn"]], "widths": None}]}, "stage 0 .* widths are a list"),
            ({"stages": [{"blocks": {"0": ["ffn"]}}]}, "stage 0 .* list of choice blocks"),
        ],
    )
    def test_refuses_an_odd_dict(self, data, reason):
        with pytest.raises(ValueError, match=reason):
            SearchSpace.from_dict(data)

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*KINDS, "a-b", "x@3"]),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["stages", "blocks", "widths", "x"]), inner)
            ),
            max_leaves=12,
        )
    )
    def test_any_json_makes_a_space_or_is_refused(self, data):
        for description in (data, {"stages": data}, {"stages": [{"blocks": data}]}):
            try:
                space = SearchSpace.from_dict(description)
            except ValueError:
                continue
            assert SearchSpace.from_dict(space.to_dict()) == space
            assert space.sample(random.Random(0)) in space


def test_leaves_the_global_generator_alone():
    state, rng = random.getstate(), random.Random(0)
    for space in SPACES.values():
        child = space.sample(rng)
        space.crossover(space.sample(rng, "children"), child, rng)
        if space.neighbours(child):
            space.mutate(child, rng)
    assert random.getstate() == state


class TestNames:
    """One grammar, for spaces, children, costs, cards and drawings."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("attention", ("attention", "attention", None, None)),
            ("attention6", ("attention6", "attention", 6, None)),
            ("ffn768@192", ("ffn768", "ffn", 768, 192)),
            ("conv5@192", ("conv5", "conv5", None, 192)),
            ("skip", ("skip", "skip", None, None)),
            ("attention06", ("attention06", "attention06", None, None)),
            ("glu12x", ("glu12x", "glu12x", None, None)),
        ],
    )
    def test_are_read_in_one_way(self, name, expected):
        assert parse_operator(name) == expected

    @pytest.mark.parametrize(
        "name", ["", "6", "ffn@", "ffn@0", "ffn@1x", "skip@8", "ffn-2", "ffn@8@9", 3, None, ["ffn"]]
    )
    def test_that_are_none_are_shown(self, name):
        with pytest.raises(ValueError, match=f"^{re.escape(repr(name))} is not an operator name"):
            parse_operator(name)

    def test_tell_the_geometry_of_a_chain(self):
        blocks = geometry(["attention6@32", "skip", "conv3", "ffn96"], hidden_size=64, stage_lengths=[2, 2])
        assert [tuple(block) for block in blocks] == [
            (0, 0, "attention6@32", "attention", 6, 64, 32, 32),
            (1, 0, "skip", "skip", None, 32, 32, 64),
            (2, 1, "conv3", "conv3", None, 64, 64, 64),
            (3, 1, "ffn96", "ffn", 96, 64, 64, 64),
        ]

    @pytest.mark.parametrize(
        ("names", "lengths", "message"),
        [
            (["ffn", "ffn"], [1], "stage_lengths .1. sum to 1, but there are 2 operators"),
            (["ffn", "ffn"], [2, 0], "expected positive lengths"),
            (["ffn@8", "ffn@9"], None, "stage 0 holds operators of widths .8, 9."),
        ],
    )
    def test_of_no_chain_are_refused(self, names, lengths, message):
        with pytest.raises(ValueError, match=message):
            geometry(names, 64, lengths)

    def test_with_sizes_make_a_space_as_all_others_do(self):
        space = SearchSpace.staged(2, 2, ("attention", "attention2", "ffn", "ffn24", "skip"), widths=(32, 64))
        assert space.num_children == (2 * (4 + 16)) ** 2
        child = space.validate("attention2@32-ffn24@32-ffn@64-skip")
        assert space.child_at(space.index_of(child)) == child
        rng = random.Random(0)
        for _ in range(50):
            other = space.mutate(child, rng)
            assert space.crossover(child, other, rng) in space


class TestSkipAnywhere:
    """A stage of blocks that choose freely, against the plain product of their candidates."""

    SPACES = {
        "chain": SearchSpace.chain(4, ("attention", SKIP, "ffn"), skip="anywhere"),
        "uneven": SearchSpace.of_blocks(["conv3", "attention,skip", "ffn,skip,ffn24", "ffn"], skip="anywhere"),
        "mixed": SearchSpace((FreeStage((("ffn", SKIP),) * 2), Stage((("ffn", "conv3"), ("ffn", SKIP))))),
    }

    @pytest.fixture(params=SPACES.values(), ids=SPACES.keys())
    def space(self, request):
        return request.param

    @pytest.fixture
    def children(self, space):
        """All choices of candidates; in a stage that is not free, those that do not go on behind a skip."""
        found = itertools.product(*space.blocks)
        return [c for c in found if not (space.num_stages == 2 and c[2] == SKIP)]

    def test_holds_every_choice_in_order(self, space, children):
        assert list(space.enumerate()) == children
        assert space.num_children == len(children)
        assert [space.child_at(index) for index in range(len(children))] == children
        assert [space.index_of(child) for child in children] == list(range(len(children)))
        assert all(space.why_not(child) is None and space.canonicalize(child) == child for child in children)

    def test_counts_children_of_a_depth(self, space):
        stage = space.stages[0]
        depths = Counter(len(names) - names.count(SKIP) for names in stage.children())
        for depth in range(-1, stage.num_blocks + 2):
            assert stage.num_children_of_depth(depth) == depths[depth]

    def test_draws_every_child_of_a_free_stage_alike(self):
        space, rng = self.SPACES["chain"], random.Random(0)
        drawn = Counter(space.sample(rng) for _ in range(81 * 60))
        assert len(drawn) == 81
        assert max(drawn.values()) < 2 * 60
        assert min(drawn.values()) > 60 / 2

    def test_neighbours_differ_in_one_block(self, space, children):
        for child in children:
            expected = [other for other in children if hamming(child, other) == 1]
            assert sorted(space.neighbours(child)) == sorted(expected)

    def test_changes_as_many_blocks_as_asked(self, space, children):
        rng = random.Random(0)
        for child in children:
            for changes in range(1, space.max_changes(child) + 1):
                assert hamming(space.mutate(child, rng, changes), child) == changes
            with pytest.raises(ValueError, match="cannot change"):
                space.mutate(child, rng, space.max_changes(child) + 1)

    def test_so_many_of_some_blocks_can_change(self, space):
        stage = space.stages[0]
        for count in range(stage.num_blocks + 1):
            for free in itertools.combinations(range(stage.num_blocks), count):
                with_choice = [block for block in free if len(stage.blocks[block]) > 1]
                assert stage.max_changes(stage.num_blocks, set(free)) == len(with_choice)

    def test_offspring_have_every_block_of_a_parent(self, space, children):
        rng = random.Random(0)
        for first, second in zip(children, reversed(children), strict=True):
            offspring = space.crossover(first, second, rng)
            assert offspring in space
            free = space.stage_slices[0]
            assert all(name in pair for name, *pair in zip(offspring[free], first[free], second[free], strict=True))

    def test_is_written_and_read(self, space):
        again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
        assert again == space
        assert isinstance(again.stages[0], FreeStage)
        assert "skip" not in SearchSpace.chain(2, ("ffn", SKIP)).to_dict()["stages"][0]
        assert again != SearchSpace(tuple(Stage(stage.blocks, stage.widths) for stage in space.stages))

    def test_refuses_what_has_no_meaning(self):
        with pytest.raises(ValueError, match=r"a stage where skip may stand anywhere has no widths, got \[32\]"):
            FreeStage((("ffn", SKIP),), (32,))
        with pytest.raises(ValueError, match="'end' of a stage or 'anywhere', got 'middle'"):
            SearchSpace.chain(2, ("ffn", SKIP), skip="middle")
        with pytest.raises(ValueError, match=r"stage 0 of the search space: skip stands at .*, got 3"):
            SearchSpace.from_dict({"stages": [{"blocks": [["ffn"]], "skip": 3}]})
        with pytest.raises(ValueError, match="choice block 0 has no operator 'conv3'"):
            self.SPACES["chain"].validate("conv3-ffn-ffn-ffn")
