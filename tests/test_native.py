"""Children that are a stock BERT: the rule, the space of them alone, and searches that never leave it."""

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from tiny.searches import cost_of, drain, score

from hf_nasbert import native
from hf_nasbert.costs import Budget
from hf_nasbert.modeling.families.bert import BERT
from hf_nasbert.native import CODE_DIGESTS, CODE_FILES, ListedChildren, is_our_code, native_children
from hf_nasbert.searching import SEARCHES, SearchTask, run_search
from hf_nasbert.space import Architecture, SearchSpace, Stage

KINDS = ("conv3", "ffn", "attention", "skip")
FIXED = Stage((("attention", "conv3"), ("ffn", "attention"), ("skip", "ffn", "attention")))  # the first two stay
SPACES = {
    "chain": SearchSpace.chain(6, KINDS),
    "sized": SearchSpace.chain(4, ("attention", "ffn", "ffn24", "skip")),
    "free": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip"), skip="anywhere"),
    "without-skip": SearchSpace.chain(4, ("attention", "ffn", "conv5")),
    "staged": SearchSpace.staged(2, 3, KINDS, widths=(32, 64)),
    "three-stages": SearchSpace((FIXED, Stage((("ffn", "attention"),), (64, 32)), Stage((("ffn", "skip"),) * 2))),
    "large": SearchSpace.staged(4, 6, KINDS, widths=(32, 64, 128)),
}


def natives(space: SearchSpace) -> ListedChildren:
    return native_children(space, hidden_size=64, embedding_size=64)


def is_bert(child) -> bool:
    try:
        return bool(BERT.blocks_of(child, 64))
    except ValueError:
        return False


@pytest.fixture(params=SPACES, ids=SPACES.keys())
def space(request):
    return natives(SPACES[request.param])


class TestTheSpaceOfBerts:
    @pytest.mark.parametrize("name", [name for name in SPACES if name != "large"])
    def test_holds_every_stock_bert_and_nothing_else(self, name):
        """Against the rule that extraction obeys, child by child, in the order of the whole space."""
        whole = SPACES[name]
        expected = [child for child in whole.enumerate() if is_bert(child)]
        found = natives(whole)
        assert list(found.enumerate()) == expected
        assert 0 < found.num_children == len(expected) < whole.num_children

    def test_is_counted_by_depths(self):
        assert natives(SPACES["chain"]).num_children == 3  # two, four or six operators
        assert natives(SPACES["without-skip"]).num_children == 1
        assert natives(SPACES["large"]).num_children == 6**4 / 2  # any depth per stage, an even sum
        assert natives(SearchSpace.chain(24, KINDS)).num_children == 12

    @pytest.mark.parametrize(
        ("whole", "embedding_size", "message"),
        [
            (SPACES["chain"], 32, "its embeddings are 32 wide and its states 64"),
            (SearchSpace.staged(2, 2, KINDS, widths=(32, 48)), 64, "the widths 32, 48 and not the hidden size 64"),
            (SearchSpace.chain(4, ("attention", "conv3")), 64, "do not offer attention, ffn"),
            (SearchSpace.chain(3, ("attention", "ffn")), 64, "up to an ffn"),
            (SearchSpace.of_blocks(["conv3", "attention,ffn", "ffn"]), 64, "do not offer attention, ffn"),
        ],
        ids=["embeddings", "widths", "no-ffn", "odd", "stem"],
    )
    def test_without_any_is_refused_with_the_reason(self, whole, embedding_size, message):
        with pytest.raises(ValueError, match=f"no child of this .* is a plain BERT: .*{message}"):
            native_children(whole, hidden_size=64, embedding_size=embedding_size)

    def test_with_too_many_to_list_is_refused_and_not_waited_for(self):
        with pytest.raises(ValueError, match="too many to list"):
            natives(SearchSpace((Stage((("attention", "ffn"), ("ffn", "attention", "skip"))),) * 20))


class TestListedChildren:
    def test_every_move_ends_at_a_listed_child(self, space):
        rng, members = random.Random(0), set(space.children)
        for _ in range(60):
            a, b = rng.choices(space.children, k=2)
            moves = [a, b, *space.neighbours(a), space.crossover(a, b, rng)]
            if space.num_children > 1:
                moves += [space.mutate(a, rng, num_changes) for num_changes in (1, space.max_changes(a))]
                assert a not in moves[-2:]
                assert a not in space.neighbours(a)
            assert members.issuperset(moves)

    def test_mutations_reach_every_child(self):
        space, rng = natives(SPACES["chain"]), random.Random(0)
        first = space.child_at(0)
        assert {space.mutate(first, rng, space.max_changes(first)) for _ in range(50)} == set(space.children[1:])
        # One change at a time leads to the nearest: the depths next to this one, two operators away.
        middle = Architecture.parse("attention-ffn-attention-ffn-skip-skip")
        assert sorted(space.neighbours(middle)) == sorted(set(space.children) - {middle})
        assert space.neighbours(first) == [middle]

    def test_parents_that_agree_have_a_child_that_agrees(self):
        space, rng = natives(SPACES["large"]), random.Random(0)
        child = rng.choice(space.children)
        assert space.crossover(child, child, rng) == child

    def test_the_only_child_has_nowhere_to_go(self):
        space = natives(SPACES["without-skip"])
        (child,) = space.children
        assert space.neighbours(child) == []
        assert space.max_changes(child) == 0
        assert space.crossover(child, child, random.Random(0)) == child
        with pytest.raises(ValueError, match="only child"):
            space.mutate(child, random.Random(0))

    def test_every_child_has_a_place(self, space):
        places = range(space.num_children)
        assert [space.child_at(place) for place in places] == list(space.enumerate()) == list(space.children)
        assert [space.index_of(child) for child in space.children] == list(places)
        for place in (-1, space.num_children):
            with pytest.raises(ValueError, match="counted from 0"):
                space.child_at(place)

    def test_other_children_are_refused_by_name(self):
        space = natives(SPACES["chain"])
        with pytest.raises(ValueError, match="is none of the 3 children that the search is restricted to"):
            space.validate("conv3-ffn-attention-ffn-skip-skip")
        with pytest.raises(ValueError, match="no operator 'conv9'"):
            space.validate("conv9-ffn-attention-ffn-skip-skip")
        assert space.why_not("attention-ffn-skip-skip-skip-skip") is None

    def test_bad_lists_are_refused(self):
        whole, child = SPACES["chain"], natives(SPACES["chain"]).child_at(0)
        for children, message in [((), "at least one"), ((child, child), "twice"), ((child[:3],), "3 operators")]:
            with pytest.raises(ValueError, match=message):
                ListedChildren(whole, children)

    def test_comes_back_from_json(self, space):
        data = json.loads(json.dumps(space.to_dict()))
        assert ListedChildren.from_dict(data) == space
        with pytest.raises(ValueError, match="children"):
            ListedChildren.from_dict({"stages": data["stages"]})
        with pytest.raises(ValueError, match="unknown"):  # it is not taken for the whole space
            SearchSpace.from_dict(data)

    def test_a_search_starts_at_the_cheapest_listed_child(self, space):
        cost = cost_of(space.space)
        sizes = [cost(child)["num_parameters"] for child in space.children]
        task = SearchTask(space, seed=0, cost=cost, budget=Budget(max_parameters=min(sizes)))
        assert cost(task.start)["num_parameters"] == min(sizes)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    "which", ["chain", "without-skip", "three-stages", pytest.param("large", marks=pytest.mark.slow)]
)
class TestSearchingBertsOnly:
    """What any search promises in a space of listed children; none has code of its own for it but shrinking."""

    def test_asks_for_every_bert_and_for_no_other_child(self, name, which):
        whole = SPACES[which]
        space, cost = natives(whole), cost_of(whole)
        search = SEARCHES[name](SearchTask(space, seed=0, cost=cost, batch_size=25))
        asked = [child for child, _ in drain(search, num_batches=40 if name == "pnas" else 4)]
        assert all(map(is_bert, asked))
        if which == "large":
            assert len(set(asked)) > 50
        else:
            assert set(asked) == set(space.children)
            assert search.best().score == min(score(space.children))

    def test_within_a_budget(self, name, which):
        whole = SPACES[which]
        space, cost = natives(whole), cost_of(whole)
        sizes = sorted(cost(child)["num_parameters"] for child in space.children)
        cap = sizes[len(sizes) // 3]
        search = SEARCHES[name](SearchTask(space, seed=0, cost=cost, budget=Budget(max_parameters=cap), batch_size=10))
        found = run_search(search, score, num_evaluations=30)
        assert found
        assert all(is_bert(child) and cost(child)["num_parameters"] <= cap for child, _ in found)
        with pytest.raises(ValueError, match=f"smallest child, attention.* is {sizes[0]:,}"):
            SEARCHES[name](SearchTask(space, seed=0, cost=cost, budget=Budget(max_parameters=sizes[0] - 1)))

    def test_does_not_go_on_from_a_search_of_all_children(self, name, which):
        whole = SPACES[which]
        restricted, free = (
            SEARCHES[name](SearchTask(space, seed=0, cost=cost_of(whole))) for space in (natives(whole), whole)
        )
        if name == "nsga2":
            assert restricted.settings != free.settings
            return
        with pytest.raises(ValueError, match="differs in space"):
            restricted.load_state_dict(free.state_dict())


class TestOurCode:
    """What a push may run: see `hub.contents`."""

    PACKAGE = Path(native.__file__).parent

    def told(self, files: Iterable[tuple[str, bytes]]) -> str:
        """How the lines that are missing are added."""
        missing = [
            f"{hashlib.sha256(content).hexdigest()}  {name}"
            for name, content in files
            if not is_our_code(name, content)
        ]
        return "\n".join(["", f"append to {CODE_DIGESTS.relative_to(self.PACKAGE)}:", *missing]) if missing else ""

    def test_the_present_files_are_listed(self):
        """Whoever changes a travelling file adds its line: else nobody can push a child that this version makes."""
        assert not self.told((name, (self.PACKAGE / "modeling" / name).read_bytes()) for name in CODE_FILES)

    def test_so_is_every_earlier_version(self):
        """Children that an earlier version made are ours too."""
        if shutil.which("git") is None:
            pytest.skip("there is no git")
        git = ["git", "-C", str(self.PACKAGE)]
        found = subprocess.run(
            [*git, "rev-list", "--objects", "HEAD", "--", "modeling"], capture_output=True, text=True, check=False
        )
        if found.returncode:
            pytest.skip("there is no git history")
        versions = []
        for line in found.stdout.splitlines():
            blob, _, path = line.partition(" ")
            if Path(path).name in CODE_FILES:
                content = subprocess.run([*git, "cat-file", "blob", blob], capture_output=True, check=True).stdout
                versions.append((Path(path).name, content))
        assert versions
        assert not self.told(versions)

    def test_a_byte_more_or_another_name_is_not_ours(self):
        content = (self.PACKAGE / "modeling" / CODE_FILES[0]).read_bytes()
        assert is_our_code(CODE_FILES[0], content)
        assert not is_our_code(CODE_FILES[0], content + b"\n")
        assert not is_our_code(CODE_FILES[1], content)
        assert not is_our_code("evil.py", content)
