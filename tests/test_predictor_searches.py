"""Searches on a linear model: the model by hand, pairs where sums fail, programs, beams and the inner front."""

import itertools
import math
import random
import tracemalloc

import numpy as np
import pytest
from tiny.searches import OPERATORS, cost_of, new

from hf_nasbert.costs import Budget
from hf_nasbert.searching import (
    InnerFrontSearch,
    KnapsackSearch,
    PrefixBeamSearch,
    RandomSearch,
    inner,
    pareto_front,
    programming,
)
from hf_nasbert.searching.knapsack import Item, best_choices
from hf_nasbert.searching.predictors import PENALTIES, OperatorRidge, better_ridge, columns_of, one_hot
from hf_nasbert.space import Architecture, SearchSpace

WIDE = SearchSpace.chain(6, ("attention", "ffn", "conv3", "conv5"))  # 4,096 children, none skips
LARGE = SearchSpace.chain(8, (*OPERATORS, "conv5"))  # 87,380
STAGED = SearchSpace.staged(3, 3, OPERATORS, widths=(32, 64))  # 78³, so that a program is solved
DRAW = {
    key: random.Random(str(key)).random()
    for block in range(9)
    for name in (*OPERATORS, "conv5", *(f"{name}@{width}" for name in OPERATORS for width in (32, 64)))
    for key in ((block, name), *((block, name, behind) for behind in (*OPERATORS, "conv5")))
}


def additive(children):
    return [sum(DRAW[place] for place in enumerate(child)) for child in children]


def with_pairs(children):
    pairs = [itertools.pairwise(child) for child in children]
    told = zip(additive(children), pairs, strict=True)
    return [loss + 2 * sum(DRAW[i, a, b] for i, (a, b) in enumerate(of_child)) for loss, of_child in told]


def draw(space, count, seed=0):
    rng = random.Random(seed)
    return list(dict.fromkeys(space.child_at(rng.randrange(space.num_children)) for _ in range(count)))


def run(search, score, num_children):
    asked = []
    while len(asked) < num_children:
        children = search.ask()
        asked += children
        search.tell(children, score(children))
    return asked[:num_children]


def rows_of(children, has_pairs):
    return one_hot(children, columns_of(WIDE.blocks, has_pairs=has_pairs), has_pairs=has_pairs)


@pytest.mark.parametrize("count", [40, 400], ids=["fewer children than features", "more"])
def test_the_ridge_is_the_one_of_the_normal_equations_and_its_error_that_of_leaving_out(count):
    children = draw(WIDE, count)
    scores = with_pairs(children)
    for has_pairs in (False, True):
        model = OperatorRidge(WIDE.blocks, has_pairs=has_pairs).fit(children, scores)

        def fitted(children, scores, has_pairs=has_pairs):
            rows = rows_of(children, has_pairs)
            centre, mean = rows.mean(axis=0), np.mean(scores)
            square = (rows - centre).T @ (rows - centre) + np.eye(rows.shape[1])
            weights = np.linalg.solve(square, (rows - centre).T @ (np.array(scores) - mean))
            return lambda rows: (rows - centre) @ weights + mean

        others = draw(WIDE, 50, seed=1)
        assert model.predict(others) == pytest.approx(fitted(children, scores)(rows_of(others, has_pairs)), abs=1e-8)
        if count == 40:
            left = [
                fitted(children[:i] + children[i + 1 :], scores[:i] + scores[i + 1 :])(
                    rows_of([children[i]], has_pairs)
                )[0]
                for i in range(len(children))
            ]
            # The mean is left out too only nearly: by a term of the order of 1 / n².
            assert model.error == pytest.approx(np.mean((np.array(left) - scores) ** 2), rel=0.02)


def test_a_prediction_is_its_mean_its_effects_and_its_pairs():
    children = draw(WIDE, 60)
    model = OperatorRidge(WIDE.blocks, has_pairs=True, penalties=PENALTIES).fit(children, with_pairs(children))
    child = WIDE.child_at(1234)
    pairs = [model.effects[place] for place in enumerate(itertools.pairwise(child))]
    total = model.mean + sum(model.effects[place] for place in enumerate(zip(child, strict=True))) + sum(pairs)
    assert model.predict([child])[0] == pytest.approx(total)
    assert any(pairs)


def test_pairs_are_taken_where_additivity_fails_and_nowhere_else():
    children = draw(WIDE, 150)
    assert better_ridge(WIDE.blocks, children, with_pairs(children)).has_pairs
    assert not better_ridge(WIDE.blocks, children, additive(children)).has_pairs


def test_pairs_of_items_find_what_a_sum_of_items_misses():
    """Two blocks that are bad together: fitted to all four children, a sum names one child, pairs the right one."""
    blocks = (("ffn", "conv3"), ("ffn", "conv3"))
    losses = {("ffn", "ffn"): 1.0, ("ffn", "conv3"): 0.1, ("conv3", "ffn"): 0.2, ("conv3", "conv3"): 0.9}
    children = [Architecture(child) for child in losses]
    weights = [9, 1, 9, 9]  # the best child was seen once, the others often
    seen = [child for child, count in zip(children, weights, strict=True) for _ in range(count)]

    def chosen(has_pairs):
        model = OperatorRidge(blocks, has_pairs=has_pairs, penalties=(1e-6,))
        effects = model.fit(seen, [losses[child] for child in seen]).effects
        items = [Item(b, (name,), effects[b, (name,)], {}) for b, names in enumerate(blocks) for name in names]
        both = itertools.product((0, 1), (2, 3)) if has_pairs else ()
        pairs = {(i, j): effects[0, items[i].operators + items[j].operators] for i, j in both}
        (choice,) = best_choices(items, 2, {}, pairs=pairs)
        return choice.architecture

    assert losses[chosen(has_pairs=False)] > min(losses.values())
    assert losses[chosen(has_pairs=True)] == min(losses.values())


@pytest.mark.parametrize("seed", range(6))
def test_pairs_rules_and_forbidden_ones_against_enumeration(seed):
    rng = random.Random(seed)
    items = [Item(b, (f"ffn{v}",), rng.random(), {"size": rng.randrange(9)}) for b in range(4) for v in (1, 2, 3)]
    items.append(Item(1, ("conv3", "conv3"), rng.random(), {"size": 3}))
    single = [i for i, item in enumerate(items) if len(item.operators) == 1]
    pairs = {
        (i, j): rng.uniform(-1, 1)
        for i, j in itertools.product(single, repeat=2)
        if items[j].first_block == items[i].first_block + 1 and rng.random() < 0.7
    }
    rules = [({0: 1.0, 4: 1.0}, 1.0)]  # not both
    found = {}
    ways = [[(a, b, c, d) for a in range(3) for b in range(3, 6) for c in range(6, 9) for d in range(9, 12)]]
    ways.append([(a, 12, d) for a in range(3) for d in range(9, 12)])
    for way in itertools.chain(*ways):
        if sum(items[i].costs["size"] for i in way) <= 14 and not {0, 4} <= set(way):
            loss = sum(items[i].loss for i in way) + sum(pairs.get(pair, 0) for pair in itertools.combinations(way, 2))
            found[tuple(name for i in way for name in items[i].operators)] = loss
    best = min(found, key=found.get)
    forbidden = [Architecture(best)] if "conv3" not in best else []
    for child in forbidden:
        del found[child]
    choices = best_choices(items, 4, {"size": 14}, num_choices=5, pairs=pairs, rules=rules, forbidden=forbidden)
    assert [choice.loss for choice in choices] == pytest.approx(sorted(found.values())[:5])
    assert all(found[choice.architecture] == pytest.approx(choice.loss) for choice in choices)


def test_pairs_of_other_items_are_refused():
    items = [Item(0, ("ffn",), 0.0), Item(1, ("ffn",), 0.0), Item(0, ("skip", "skip"), 0.0)]
    for pair in ((1, 0), (0, 2), (0, 0)):
        with pytest.raises(ValueError, match="are no pair: expected items for one block each"):
            best_choices(items, 2, {}, pairs={pair: 1.0})
    with pytest.raises(ValueError, match="is not finite"):
        best_choices(items, 2, {}, pairs={(0, 1): float("nan")})


@pytest.mark.parametrize("space", [LARGE, STAGED], ids=["chain", "stages of widths"])
def test_a_program_finds_the_child_that_is_predicted_best_under_the_cap(space):
    cost = cost_of(space)
    cap = sorted(cost(child)["num_parameters"] for child in draw(space, 99))[40]
    search = new(
        KnapsackSearch, space, seed=0, cost=cost, budget=Budget(max_parameters=cap), num_solved=1, batch_size=1
    )
    told = [child for child in draw(space, 150, seed=2) if cost(child)["num_parameters"] <= cap]
    search.tell(told, additive(told))
    (asked,) = search.ask()
    others = [child for child in draw(space, 4000, seed=3) if cost(child)["num_parameters"] <= cap]
    model = better_ridge(space.blocks, told, additive(told))
    assert space.why_not(asked) is None
    assert asked not in told
    assert model.predict([asked])[0] <= min(model.predict(others)) + 1e-6


def test_a_program_keeps_to_the_cap_itself(monkeypatch):
    """What is best without a cap, the largest child, is far over this one, and so are all of its neighbours."""
    monkeypatch.setattr(programming, "_MAX_ENUMERATED", 1)
    size = {child: cost_of(WIDE)(child)["num_parameters"] for child in WIDE.enumerate()}
    by_size = sorted(size, key=size.__getitem__)
    cap, unit = size[by_size[400]], (size[by_size[-1]] - size[by_size[0]]) / 20
    fits = [child for child in by_size if size[child] <= cap]
    told = fits[::7]
    losses = [loss - size[child] / unit for child, loss in zip(told, additive(told), strict=True)]
    search = new(
        KnapsackSearch, WIDE, seed=0, cost=cost_of(WIDE), budget=Budget(max_parameters=cap), num_solved=1, batch_size=1
    )
    search.tell(told, losses)
    left = [child for child in fits if child not in told]
    predicted = better_ridge(WIDE.blocks, told, losses).predict(left)
    assert search.ask() == [left[int(np.argmin(predicted))]]


def test_programs_over_a_fitted_model_need_fewer_children_than_random_ones():
    best = min(WIDE.enumerate(), key=lambda child: additive([child])[0])
    for seed in range(3):
        assert best in run(new(KnapsackSearch, WIDE, seed=seed, batch_size=8, num_initial=40), additive, 64)
        assert best not in run(new(RandomSearch, WIDE, seed=seed, batch_size=8), additive, 64)


def test_a_beam_scores_the_shallow_children_first_and_grows_those_that_are_best():
    space = SearchSpace.chain(4, OPERATORS)
    search = new(PrefixBeamSearch, space, seed=0, batch_size=50, beam_size=2)
    first = search.ask()
    assert len(first) == 2
    assert {child.count("skip") for child in first} == {3}
    search.tell(first, additive(first))
    second = search.ask()
    assert {child.count("skip") for child in second} == {2}
    assert {child[:1] for child in second} <= {child[:1] for child in first}
    search.tell(second, additive(second))
    assert {child[:2] for child in search.ask()} <= {child[:2] for child in second}


def test_after_the_first_pass_prefixes_go_on_as_the_best_child():
    search = new(PrefixBeamSearch, SearchSpace.chain(6, OPERATORS), seed=0, batch_size=50, beam_size=2)
    for _ in range(6):  # one for each block
        children = search.ask()
        losses = zip(additive(children), children, strict=True)
        search.tell(children, [loss + child.count("skip") for loss, child in losses])  # deep ones are better
    best = search.best().architecture
    assert best.count("skip") == 0
    assert {child[1:] for child in search.ask()} == {best[1:]}


def test_a_beam_is_chosen_by_what_the_model_predicts():
    """With a model that knows nothing it is a random beam, which needs more children."""
    best = min(map(float, additive(list(WIDE.enumerate()))))

    def regret(seed, score=additive):
        search = new(PrefixBeamSearch, WIDE, seed=seed, batch_size=8, beam_size=8)
        return min(score(run(search, score, 60))) - best

    found = [regret(seed) for seed in range(5)]
    original = OperatorRidge.predict
    try:
        OperatorRidge.predict = lambda self, children: [0.0] * len(children)
        blind = [regret(seed) for seed in range(5)]
    finally:
        OperatorRidge.predict = original
    assert np.mean(found) < 0.5 * np.mean(blind)


def hypervolume(space, children):
    cost = cost_of(space)
    points = [(loss, cost(c)["num_parameters"] / 1e4) for c, loss in zip(children, additive(children), strict=True)]
    total, edge = 0.0, 12.0
    for loss, size in sorted(points[place] for place in pareto_front(points)):
        total += max(0.0, edge - size) * max(0.0, 9 - loss)
        edge = min(edge, size)
    return total


def test_the_inner_search_finds_a_front_that_random_children_do_not(monkeypatch):
    def volumes(kind, **settings):
        make = [new(kind, LARGE, seed=seed, cost=cost_of(LARGE), batch_size=16, **settings) for seed in range(3)]
        return np.array([hypervolume(LARGE, run(search, additive, 80)) for search in make])

    settings = {"population_size": 24, "num_generations": 8}
    found = volumes(InnerFrontSearch, **settings)
    assert (found > volumes(RandomSearch)).all()
    monkeypatch.setattr(InnerFrontSearch, "_evolved", lambda self, *_: [self._sample() for _ in range(40)])
    assert (found > volumes(InnerFrontSearch, **settings)).all()


def test_parents_in_the_inner_search_are_the_better_of_two(monkeypatch):
    told, parents, crossover = draw(WIDE, 250)[:200], [], SearchSpace.crossover
    monkeypatch.setattr(
        SearchSpace, "crossover", lambda self, *both: parents.extend(both[:2]) or crossover(self, *both)
    )
    search = new(InnerFrontSearch, WIDE, seed=0, batch_size=8, population_size=200, num_generations=1)
    search.tell(told, additive(told))
    search.ask()
    assert len(parents) == 400
    rank = {child: place for place, child in enumerate(sorted(told, key=lambda child: additive([child])[0]))}
    # Of two random ones the better one has a mean rank of a third of their number.
    assert np.mean([rank[child] for child in parents]) == pytest.approx(len(told) / 3, rel=0.15)


def test_points_stand_front_by_front_with_the_ends_first():
    values = np.array([[0, 9], [1, 5], [2, 4.5], [9, 0], [1, 9], [9, 9]], dtype=float)
    order = inner.crowded_order(values)
    assert set(order[:2]) == {0, 3}
    assert order[2:4] == [1, 2] or order[2:4] == [2, 1]
    assert order[4:] == [4, 5]


def crowded_order_by_pairs(values):
    """As it was: all points against all."""
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    beats = no_worse & ~no_worse.T
    left, order = np.ones(len(values), dtype=bool), []
    while left.any():
        front = np.flatnonzero(left & ~(beats & left[:, None]).any(axis=0))
        room = np.zeros(len(front))
        for column in values[front].T:
            by_value = np.argsort(column, kind="stable")
            span = column[by_value[-1]] - column[by_value[0]] or 1.0
            room[by_value[[0, -1]]] = math.inf
            room[by_value[1:-1]] += (column[by_value[2:]] - column[by_value[:-2]]) / span
        order += front[np.argsort(-room, kind="stable")].tolist()
        left[front] = False
    return order


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
@pytest.mark.parametrize("num_values", [3, 10, 10**6])
def test_fronts_found_by_sorting_are_those_of_all_pairs(num_objectives, num_values):
    """Equal points, equal values and single points too."""
    rng = np.random.default_rng(num_values + num_objectives)
    for num_points in (0, 1, 2, 7, 60):
        values = rng.integers(num_values, size=(num_points, num_objectives)).astype(float)
        assert inner.crowded_order(values) == crowded_order_by_pairs(values)


def test_many_points_of_two_objectives_need_no_table_of_pairs():
    """Of 4,000 points that were 32 MB."""
    rising = np.arange(4_000, dtype=float)
    tracemalloc.start()
    try:
        assert sorted(inner.crowded_order(np.stack([rising, rising[::-1]], 1))) == list(range(4_000))
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_a_program_with_nothing_left_gives_none_and_other_mistakes_are_told(monkeypatch):
    space = SearchSpace.chain(3, ("attention", "ffn"))
    monkeypatch.setattr(programming, "_MAX_ENUMERATED", 1)
    search = new(KnapsackSearch, space, seed=0, num_initial=4, num_solved=3)
    children = list(space.enumerate())
    search.tell(children, [float(place) for place in range(len(children))])
    assert search.ask() == []
    search = new(KnapsackSearch, space, seed=0, num_initial=4, num_solved=3)
    search.tell(children[:5], [float(place) for place in range(5)])

    def broken(*_, **__):
        raise ValueError("the solver found no choice (out of time)")

    monkeypatch.setattr(programming, "best_choices", broken)
    with pytest.raises(ValueError, match="out of time"):
        search.ask()


def test_an_objective_that_is_no_cost_is_refused():
    with pytest.raises(ValueError, match="objective weight is none of the costs"):
        new(InnerFrontSearch, WIDE, seed=0, cost=cost_of(WIDE), objectives=("weight",))
