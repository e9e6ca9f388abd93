"""Regret against compute: strategies replayed on tables whose children were all trained alone (part C).

    python benchmarks/regret.py           prints the tables; nothing is trained, some CPU-minutes of replays
    python benchmarks/regret.py --figures docs/figures

A policy spends compute and ends with one child, trained alone, of a band. Compute is counted in trainings of a child:
forwards of a child over a batch, a backward counting two, with scores, and the base model's forwards, once for every
batch that is seen. A child's own training counts too: a choice without any costs one. What common prefixes of children
save is left out. A policy's regret is by how many percent the loss of its child is above that of the best of the
table's children in the band. On `minilm` it sees losses on the text that chooses, at the end of the learning curves,
and is judged by those on the text that judges, mean over the seeds there are; on `imdb` one seed's losses, and is
judged by the mean over all seeds on the same text.

Settled before the replays: 60 of each policy, bands averaged, intervals of 90 % over the replays. Random children are
those of the whole space, or of the screened one, none near a knapsack solution; what predicts chooses among all.
A child that is drawn for a model counts as trained. Halving stops children at quarters of one and the same training,
or at the looks behind them where the learning curves have no other, which makes it exact.

Settled when the first replays had been seen: what is of the screened space pays for the lone replacements that screen
it; what a policy sees is not what judges it; no child near a knapsack solution is drawn for any model; parameters,
FLOPs and kept layers rank as well, ties by chance.
"""

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from minilm_children import RECORDS, rows_of
from minilm_orders import ALL, BOTH, DULL, SCREENED, Evidence, passes_of, screening, ways
from minilm_ranking import ADAPT_STEPS, UNTRAINED

from hf_nasbert.native import ListedChildren
from hf_nasbert.ranking import load_table
from hf_nasbert.searching import GradientBoostedSearch, OperatorRidge, SearchTask, calibrated, shared_ridge
from hf_nasbert.space import SKIP, Architecture, SearchSpace

REPLAYS = 60
COMPUTE = (1, 3, 10, 30, 100)
"""Child-trainings at which regret is told."""
_MOST = 100  # children that are trained at most
_TOPS = (1, 2, 3, 5, 10)  # of a ranking, trained
_DESIGNS = (5, 10, 20, 40)  # children drawn for a model
_TOP_OF_MODEL = 3
_BRACKETS = (4, 8, 16, 32)  # children that halving begins with
_ADAPTED = (15, 30)
_FIRST, _BATCH = 10, 5  # of trees: random children, and those predicted best between two fits
RESCORED = 20
SCORED_BATCHES = 16  # of the table `imdb`, on which super-nets score children
_COLORS = [f"C{number}" for number in range(6)]
_STYLES = ["-"] * len(_COLORS) + ["--"] * len(_COLORS)

Scores = Mapping[Architecture, float]
Step = tuple[float, Architecture]
"""Compute spent so far, in child-trainings, and the child that would be taken."""
Policy = Callable[["Case", random.Random], Iterator[Step]]


class Ranking(NamedTuple):
    """Scores of children by seed, and what they take in child-trainings: all together, and each that is asked for.

    `among` are the children of a case that it ranks, where others are scored.
    """

    scores: list[Scores]
    price: float
    of_each: float = 0.0
    among: Sequence[Architecture] | None = None


@dataclass(frozen=True)
class Case:
    """One choice: the children of a band, all trained alone.

    Args:
        space: Of the children.
        reached: What each reaches, by which a choice is judged.
        seen: What a policy sees of a training.
        curves: Losses at some shares of a training.
        pools: Where random children are drawn from, by name.
        rankings: What ranks them without training them, by name.
        quality: Another measure of each, the higher the better; empty where there is none.
        one_more: What a further training takes beside the first, the base model's forwards being there.
        adapted: Losses behind a few steps from inherited weights, by seed.
        shares: Of a training, at which the curves look.
        screening: What finding the screened space takes.
        near: Children near a knapsack solution, which are never drawn at random.
    """

    space: SearchSpace
    reached: Scores
    seen: Scores
    curves: Mapping[Architecture, Sequence[float]]
    pools: Mapping[str, Sequence[Architecture]]
    rankings: Mapping[str, Ranking]
    quality: Scores = field(default_factory=dict)
    one_more: float = 1.0
    adapted: Mapping[str, Ranking] = field(default_factory=dict)
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0)
    screening: float = 0.0
    near: frozenset[Architecture] = frozenset()

    def price_of_pool(self, pool: str) -> float:
        """What is to be paid before children are drawn from a pool."""
        return self.screening if pool == SCREENED else 0.0

    def drawable(self, children: Iterable[Architecture]) -> list[Architecture]:
        """Those that may be drawn at random."""
        return [child for child in children if child not in self.near]

    def price(self, number: int) -> float:
        """What training so many children takes."""
        return 1.0 + (number - 1) * self.one_more if number else 0.0

    def best(self, children: Sequence[Architecture]) -> Architecture:
        """Of trained children."""
        return min(children, key=self.seen.__getitem__)

    def regret(self, child: Architecture) -> float:
        """In percent."""
        return 100 * (self.reached[child] / min(self.reached.values()) - 1)


# Policies


def at_random(pool: str) -> Policy:
    """Train one random child after the other, and take the best."""

    def policy(case: Case, rng: random.Random) -> Iterator[Step]:
        drawn = rng.sample(list(case.pools[pool]), min(_MOST, len(case.pools[pool])))
        for number in range(1, len(drawn) + 1):
            yield case.price_of_pool(pool) + case.price(number), case.best(drawn[:number])

    return policy


def halving(pool: str) -> Policy:
    """Train children to the first look, the better half of them to the next, and so on; a run for each number."""

    def policy(case: Case, rng: random.Random) -> Iterator[Step]:
        for first in _BRACKETS:
            if first > len(case.pools[pool]):
                return
            alive, spent = rng.sample(list(case.pools[pool]), first), case.price_of_pool(pool) + 1 - case.one_more
            for look, (before, share) in enumerate(itertools.pairwise((0.0, *case.shares))):
                spent += len(alive) * case.one_more * (share - before)
                alive = sorted(alive, key=lambda child: case.curves[child][look])[: max(1, len(alive) // 2)]
            yield spent, alive[0]

    return policy


def ranked(name: str) -> Policy:
    """Train the first of a ranking, or the first few."""

    def policy(case: Case, rng: random.Random) -> Iterator[Step]:
        scores, price = rng.choice(case.rankings[name].scores), case.rankings[name].price
        order = sorted(rng.sample(list(scores), len(scores)), key=scores.__getitem__)
        for number in _TOPS:
            yield price + case.price(min(number, len(order))), case.best(order[:number])

    return policy


def modelled(pool: str, calibrates: str | None = None, *, has_shared: bool = False) -> Policy:
    """Train a random design, fit an additive model, with a ranking beside if named, and train its first three.

    The model has a shared part where that is asked for, and always beside a ranking.
    """
    make = shared_ridge if has_shared else OperatorRidge

    def policy(case: Case, rng: random.Random) -> Iterator[Step]:
        scores, price = None, case.price_of_pool(pool)
        if calibrates is not None:
            scores, price = rng.choice(case.rankings[calibrates].scores), case.rankings[calibrates].price
        known = list(case.seen if scores is None else scores)
        for number in _DESIGNS:
            if number >= len(known):  # the screened children of a small band
                yield price + case.price(len(known)), case.best(known)
                return
            drawn = [child for child in case.pools[pool] if scores is None or child in scores]
            drawn = rng.sample(drawn, min(number, len(drawn)))
            trained = {child: case.seen[child] for child in drawn}
            others = [child for child in known if child not in trained]
            if scores is None:
                told = make(case.space.blocks).fit(drawn, list(trained.values())).predict(others)
            else:
                told = list(
                    calibrated(case.space.blocks, trained, lambda c, s=scores: [s[one] for one in c], known)(others)
                )
            order = [others[place] for place in np.argsort(told, kind="stable")[:_TOP_OF_MODEL]]
            yield price + case.price(len(drawn) + len(order)), case.best([*drawn, *order])

    return policy


def active(case: Case, rng: random.Random) -> Iterator[Step]:
    """Train five random children, then always the one that an additive model of all trained ones predicts best."""
    children = list(case.seen)
    first = case.drawable(children)
    trained = rng.sample(first, min(5, len(first)))
    yield case.price(len(trained)), case.best(trained)
    while len(trained) < min(_DESIGNS[-1], len(children)):
        model = OperatorRidge(case.space.blocks).fit(trained, [case.seen[child] for child in trained])
        others = [child for child in children if child not in trained]
        trained.append(others[int(np.argmin(model.predict(others)))])
        yield case.price(len(trained)), case.best(trained)


def trees(case: Case, rng: random.Random) -> Iterator[Step]:
    """Boosted trees on the children trained so far say which to train next (`GradientBoostedSearch`)."""
    listed = ListedChildren(case.space, tuple(case.seen))
    task = SearchTask(listed, seed=rng.randrange(2**31), batch_size=_BATCH)
    search = GradientBoostedSearch(task, num_initial=_FIRST)
    trained: list[Architecture] = []
    first = case.drawable(case.seen)
    while len(trained) < min(_DESIGNS[-1], len(case.seen)):
        asked = search.ask() if trained else rng.sample(first, min(_FIRST, len(first)))
        if not asked:
            return
        search.tell(asked, [case.seen[child] for child in asked])
        trained += asked
        yield case.price(len(trained)), case.best(trained)


def adapting(name: str, number: int) -> Policy:
    """Train random children for a few steps from what they inherit, fit an additive model, train its first few."""

    def policy(case: Case, rng: random.Random) -> Iterator[Step]:
        ranking = case.adapted[name]
        scores, children = rng.choice(ranking.scores), list(ranking.among or case.seen)
        known = case.drawable(scores)
        drawn = rng.sample(known, min(number, len(known)))
        model = OperatorRidge(case.space.blocks).fit(drawn, [scores[child] for child in drawn])
        order = [children[place] for place in np.argsort(model.predict(children), kind="stable")]
        spent = ranking.price + len(drawn) * ranking.of_each
        for top in _TOPS:
            yield spent + case.price(min(top, len(order))), case.best(order[:top])

    return policy


def policies_of(case: Case) -> dict[str, Policy]:
    """Every policy that the records of a case allow."""
    found: dict[str, Policy] = {}
    for pool in case.pools:
        found[f"random choice from the {pool} space"] = at_random(pool)
        found[f"halving, {pool} space"] = halving(pool)
        found[f"additive model, {pool} space"] = modelled(pool)
        found[f"additive model with a shared part, {pool} space"] = modelled(pool, has_shared=True)
    found |= {"additive model, active": active, "boosted trees": trees}
    found |= {f"first few by {name}": ranked(name) for name in case.rankings}
    found |= {
        f"{name}, calibrated": modelled(next(iter(case.pools)), name)
        for name, ranking in case.rankings.items()
        if "super-net" in name
    }
    found |= {
        f"{number} children, {name}, additive model": adapting(name, number)
        for name in case.adapted
        for number in _ADAPTED
    }
    return found


# Cases


def minilm_cases(evidence: Evidence, *, with_near: bool = True) -> dict[str, Case]:
    """A case for every band of the table `minilm`, at the tokens of the truth; children near the best sums or none."""
    truth, found = evidence.truth, {}
    if not with_near:
        truth = truth.of({*truth.names} - evidence.near)
    kinds = {one["architecture"]: one["kind"] for one in evidence.design["children"]}
    again = evidence.again
    rankings = {
        name: way
        for name, way in ways(evidence, SCREENED).items()
        if name in UNTRAINED or name == BOTH or name.endswith(f"({SCREENED})")
    }
    dull = {name: way.rankings[0] for name, way in ways(evidence, ALL).items() if name in DULL}
    near = frozenset(map(Architecture.parse, evidence.near))
    for band in np.unique(truth.bands):
        own = truth.of({name for name, one in zip(truth.names, truth.bands, strict=True) if one == band})
        children = [Architecture.parse(name) for name in own.names]
        seen, judged = (dict(zip(children, losses.tolist(), strict=True)) for losses in (own.seen, own.losses))
        rows = dict(zip(children, own.rows, strict=True))
        whole = float(np.mean([passes_of(row) for row in own.rows]))
        alone = float(np.mean([row["passes"] for row in own.rows]))
        steps = own.rows[0]["recipe"]["max_steps"]
        kept = {
            name: Ranking([{child: scores[str(child)] for child in children}], 0.0) for name, scores in dull.items()
        }
        for name, way in rankings.items():
            scores = [
                {child: scores[str(child)] for child in children if str(child) in scores}
                for scores in way.rankings.values()
            ]
            if all(scores):
                title = f"super-net, {name.removesuffix(f' ({SCREENED})')}" if name not in UNTRAINED else name
                # Of its scores only those of this band's children are asked for.
                scored = (
                    0.0 if name == "replace-one sums" else len(scores[0]) * _batches(evidence) * (1 + (name == BOTH))
                )
                total = evidence_price(evidence, way.passes, len(evidence.truth_of(SCREENED).names), name)
                kept[title] = Ranking(scores, (total + scored) / whole)
        if UNTRAINED[0] in kept and UNTRAINED[1] in kept:
            kept[f"sums, {RESCORED} of them by inherited weights"] = _rescored(evidence, kept, whole)
        first = {child: row["curve"][1][1] for child, row in rows.items()}
        share = 3 * steps / 4 / whole + _batches(evidence) / whole
        pools = {
            "screened": [child for child in children if kinds[str(child)] == "screened"],
            "whole": [child for child in children if kinds[str(child)] == "whole"],
        }
        found[f"{100 * band:g} %"] = Case(
            SearchSpace.from_dict(own.rows[0]["recipe"]["space"]),
            {child: (loss + again.get(str(child), loss)) / 2 for child, loss in judged.items()},
            seen, {child: [loss for _, loss in row["curve"][1:]] for child, row in rows.items()},
            {name: pool for name, pool in pools.items() if len(pool) > 1}, kept,
            {child: row["stsb_validation"] for child, row in rows.items()}, alone / whole,
            {"a quarter of a training": Ranking([first], 0.0, share), **_adapted(evidence, children, whole)},
            screening=screening(evidence) / whole, near=near,
        )  # fmt: skip
    return found


def _adapted(evidence: Evidence, children: Sequence[Architecture], whole: float) -> dict[str, Ranking]:
    """What children reach behind some steps from a super-net's weights: of all bands, for one model ranks them all."""
    screened, found = evidence.screened, {}
    among = [child for child in children if str(child) in screened]
    for name, own in evidence.supernets_of("adapt", SCREENED).items():
        rows = list(own.values())
        scores = [{Architecture.parse(child): loss for child, loss in evidence.scores_of(row).items()} for row in rows]
        price, each = rows[0]["passes"] + rows[0]["teacher_passes"] + screening(evidence), rows[0]["passes_of_each"]
        title = f"{ADAPT_STEPS} steps from a super-net, {name}"
        found[title] = Ranking(scores, price / whole, each / whole, among)
    return found


def evidence_price(evidence: Evidence, passes: float, num_children: int, name: str) -> float:
    """Passes of a way without its scores of all children."""
    return passes - (0.0 if name == "replace-one sums" else num_children * _batches(evidence) * (1 + (name == BOTH)))


def _rescored(evidence: Evidence, kept: Mapping[str, Ranking], whole: float) -> Ranking:
    """The first of the sums, in the order of inherited weights."""
    inherited, sums = (kept[name] for name in UNTRAINED[:2])
    few = sorted(sums.scores[0], key=sums.scores[0].__getitem__)[:RESCORED]
    scores = {child: inherited.scores[0][child] for child in few}
    return Ranking([scores], sums.price + len(few) * _batches(evidence) / whole)


def _batches(evidence: Evidence) -> int:
    return int(evidence.supernets[0]["scored_batches"]) if evidence.supernets else 6


def imdb_cases(folder: Path = RECORDS) -> dict[str, Case]:
    """The table `imdb`, whose children are trained from scratch: one case, without bands."""
    seen: dict[Architecture, float] = {}
    sums: dict[Architecture, list[float]] = {}
    curves: dict[Architecture, list[float]] = {}
    rows = load_table("imdb")
    recipe = rows[0]["recipe"]
    shares = [step / recipe["max_steps"] for step, _ in rows[0]["curve"]]
    looks = [min(place for place, share in enumerate(shares) if share >= quarter / 4) for quarter in (1, 2, 3, 4)]
    dull: dict[str, dict[Architecture, float]] = {name: {} for name in DULL}
    for row in rows:
        child = Architecture.parse(row["architecture"])
        sums.setdefault(child, []).append(row["dev_loss"])
        if row["seed"] == 0:
            seen[child] = row["dev_loss"]
            curves[child] = [row["curve"][look][1] for look in looks]
            kept = sum(name != SKIP for name in child)
            for name, size in zip(DULL, (row["num_parameters"], row["flops"], kept), strict=True):
                dull[name][child] = -float(size)
    per_batch = recipe["dev_batch_size"] / recipe["train_batch_size"]
    training = 3 * recipe["max_steps"] + recipe["num_dev_batches"] * per_batch
    scoring = SCORED_BATCHES * per_batch
    found = {name: Ranking([scores], 0.0) for name, scores in dull.items()}
    supernets = rows_of(folder / "ranking.jsonl")
    for method, (part, title) in {
        "uniform": (2, "at half time"), "magic_t": (2, "at half time"), "magic_at": (2, "at half time"),
    }.items():  # fmt: skip
        own = [r for r in supernets if r["method"] == method and part * r["step"] == r["max_steps"]]
        scores = [{Architecture.parse(name): loss for name, loss in r["proxy_losses"].items()} for r in own]
        scores = [{child: loss for child, loss in one.items() if child in seen} for one in scores]
        if scores:
            price = (3 * 2 * recipe["max_steps"] / part + len(scores[0]) * scoring) / training
            found[f"super-net, {method} {title}"] = Ranking(scores, price)
    adapted: dict[str, Ranking] = {}
    runs = [r for r in rows_of(folder / "ranking-adapted.jsonl") if r["step"] == r["max_steps"]]
    for steps in (25, 100):
        scores = [
            {Architecture.parse(name): losses[r["steps"].index(steps)] for name, losses in r["dev_losses"].items()}
            for r in runs
        ]
        if scores:
            supernet, each = 3 * 2 * recipe["max_steps"] / training, (3 * steps + scoring) / training
            adapted[f"{steps} steps from a super-net"] = Ranking(scores, supernet, each)
    space = SearchSpace.from_dict(recipe["space"])
    reached = {child: float(np.mean(losses)) for child, losses in sums.items() if child in seen}
    case = Case(
        space, reached, seen, curves, {"whole": list(seen)}, found, {}, 1.0, adapted,
        [shares[look] for look in looks],
    )  # fmt: skip
    return {"all": case}


# Replays


class Replay(NamedTuple):
    """What a policy did in one replay: its steps, with regrets and qualities in their place."""

    spent: list[float]
    regrets: list[float]
    qualities: list[float]

    def at(self, compute: float) -> tuple[float, float] | None:
        """Regret and quality after so much compute, None where it pays for nothing."""
        places = [place for place, spent in enumerate(self.spent) if spent <= compute * (1 + 1e-9)]
        if not places:
            return None
        last = max(places, key=lambda place: self.spent[place])
        return self.regrets[last], self.qualities[last]


def replays_of(
    cases: Mapping[str, Case], number: int = REPLAYS, asked: Callable[[str], bool] = lambda name: True
) -> dict[str, list[list[Replay]]]:
    """Every policy that is asked for in every case: by policy, replay by replay, one of each case."""
    found: dict[str, list[list[Replay]]] = {}
    common = [policies_of(case) for case in cases.values()]
    names = [name for name in common[0] if asked(name) and all(name in own for own in common)]
    for name in names:
        for seed in range(number):
            parts = []
            for policies, case in zip(common, cases.values(), strict=True):
                steps = list(policies[name](case, random.Random(f"{name} {seed}")))
                quality = [case.quality.get(child, float("nan")) for _, child in steps]
                parts.append(Replay([s for s, _ in steps], [case.regret(child) for _, child in steps], quality))
            found.setdefault(name, []).append(parts)
    return found


class At(NamedTuple):
    """A policy at a compute: the mean over cases and replays with the 90 % band of replays, of regret and quality."""

    mean: float
    low: float
    high: float
    quality: float
    quality_low: float
    quality_high: float

    def told(self) -> str:
        """A cell of a table."""
        cell = f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"
        return cell if math.isnan(self.quality) else f"{cell}; {self.quality:.4f}"


def at_compute(replays: Sequence[Sequence[Replay]], compute: float) -> At | None:
    """Where it pays for a child in every case of every replay; else None."""
    found = [[part.at(compute) for part in parts] for parts in replays]
    known = [[one for one in parts if one is not None] for parts in found]
    if any(len(some) < len(parts) for some, parts in zip(known, found, strict=True)):
        return None
    told: list[float] = []
    for place in (0, 1):
        values = [float(np.mean([one[place] for one in parts])) for parts in known]
        told += [float(np.mean(values)), *map(float, np.quantile(values, [0.05, 0.95]))]
    return At(*told)


def regret_lines(
    replays: Mapping[str, Sequence[Sequence[Replay]]], compute: Sequence[float] = COMPUTE
) -> Iterator[str]:
    """Mean regret [90 % band] and quality of every policy at some amounts of compute, best first by the middle one.

    The last column is what a policy spends at most: behind it, it keeps what it has.
    """
    table = {name: [at_compute(own, one) for one in compute] for name, own in replays.items()}
    order = sorted(
        table,
        key=lambda name: [1e9 if one is None else round(one.mean, 9) for one in (*table[name][2:], *table[name])],
    )
    yield f"| policy | {' | '.join(f'{one:g}' for one in compute)} | spends at most |"
    yield "| --- |" + " ---: |" * (1 + len(compute))
    for name in order:
        cells = ["" if one is None else one.told() for one in table[name]]
        most = max((spent for parts in replays[name] for part in parts for spent in part.spent), default=0.0)
        yield f"| {name} | {' | '.join(cells)} | {most:.0f} |"


def is_untrained(policy: str) -> bool:
    """Whether a policy trains no child before it has chosen; or draws at random, which the others are held against."""
    return policy.startswith(("random", "first few by"))


def noise_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """By how many percent a second seed moves a child's loss, mean over the children of a table that have one."""
    losses: dict[str, dict[int, float]] = {}
    for row in rows:
        losses.setdefault(row["architecture"], {})[row["seed"]] = row["dev_loss"]
    moved = [abs(own[1] / own[0] - 1) for own in losses.values() if {0, 1} <= own.keys()]
    return 100 * float(np.mean(moved)) if moved else 0.0


def ties(replays: Mapping[str, Sequence[Sequence[Replay]]], compute: float, noise: float) -> list[str]:
    """Policies whose mean regret is no more than some percent above the least one, the best of them first."""
    found = {name: at.mean for name, own in replays.items() if (at := at_compute(own, compute)) is not None}
    return sorted((name for name in found if found[name] <= min(found.values()) + noise), key=lambda n: (found[n], n))


def winners(
    replays: Mapping[str, Sequence[Sequence[Replay]]], compute: Sequence[float], noise: float = 0.0
) -> Iterator[tuple[str, At]]:
    """The policy of least mean regret at every amount of compute; of those within some percent the cheapest one."""
    for one in compute:
        found = {name: at for name, own in replays.items() if (at := at_compute(own, one)) is not None}
        least = min(round(at.mean, 9) for at in found.values())
        equal = [name for name, at in found.items() if round(at.mean, 9) <= least + noise]
        name = min(equal, key=lambda name: (_price_of(replays[name], one, least + noise), name))
        yield name, found[name]


def _price_of(replays: Sequence[Sequence[Replay]], compute: float, regret: float) -> float:
    """The least compute, of no more than some, at which a policy's mean regret is no more than it may be."""
    costs = sorted({spent for parts in replays for part in parts for spent in part.spent if spent < compute})
    means = ((cost, at_compute(replays, cost)) for cost in costs)
    return next((cost for cost, at in means if at is not None and round(at.mean, 9) <= regret), compute)


def draw_regret(replays: Mapping[str, Sequence[Sequence[Replay]]], path: Path, title: str, num_shown: int = 7) -> None:
    """The figure: mean regret and its band against compute, of the policies that are best somewhere, and of random."""
    from hf_nasbert.plots.style import figure_style, legend_below, new_figure, save_figure

    grid = np.geomspace(1, _MOST, 41)
    lines = {name: [at_compute(own, one) for one in grid] for name, own in replays.items()}
    best = [name for name, _ in winners(replays, grid.tolist())]
    supernets = {
        name: own[-1]
        for name, own in lines.items()
        if "super-net" in name and is_untrained(name) and own[-1] is not None
    }
    always = [name for name in lines if name.startswith("random")]
    always += [min(supernets, key=lambda name: supernets[name].mean)] if supernets else []
    shown = list(dict.fromkeys([*always, *best]))[:num_shown]
    has_quality = any(at is not None and at.quality == at.quality for own in lines.values() for at in own)
    with figure_style():
        figure = new_figure(9.0 if has_quality else 7.2, 4.4)
        panels = figure.subplots(1, 2 if has_quality else 1, squeeze=False)[0]
        for name, color, style in zip(shown, itertools.cycle(_COLORS), itertools.cycle(_STYLES), strict=False):
            known = [(x, at) for x, at in zip(grid, lines[name], strict=True) if at is not None]
            xs = [x for x, _ in known]
            panels[0].plot(xs, [at.mean for _, at in known], color=color, linestyle=style, label=name)
            band = ([at.low for _, at in known], [at.high for _, at in known])
            panels[0].fill_between(xs, *band, color=color, alpha=0.12, linewidth=0)
            if has_quality:
                panels[1].plot(xs, [at.quality for _, at in known], color=color, linestyle=style)
                band = ([at.quality_low for _, at in known], [at.quality_high for _, at in known])
                panels[1].fill_between(xs, *band, color=color, alpha=0.12, linewidth=0)
        panels[0].set(ylabel="regret, %", title=title)
        panels[0].set_yscale("symlog", linthresh=1.0)  # linear below 1 %, where the winners are
        ticks = (0, 0.5, 1, 3, 10, 30, 100)
        panels[0].set_yticks(ticks, [f"{one:g}" for one in ticks])
        panels[0].set_ylim(bottom=0)
        if has_quality:
            panels[1].set(ylabel="Spearman correlation on STS-B, validation")
        for axes in panels:
            axes.set(xscale="log", xlabel="compute, in trainings of a child", xticks=COMPUTE)
            axes.set_xticklabels([f"{one:g}" for one in COMPUTE])
            axes.minorticks_off()
        legend_below(figure)
        save_figure(figure, path)[1].unlink()  # the page shows the other


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--factor", type=int, default=1, help="Of the table `minilm`: times the tokens.")
    parser.add_argument("--replays", type=int, default=REPLAYS)
    parser.add_argument("--figures", type=Path, help="Folder that a figure for each table is written into.")
    arguments = parser.parse_args()
    tables = {"minilm": minilm_cases(Evidence(arguments.records, arguments.factor)), "imdb": imdb_cases()}
    for name, cases in tables.items():
        replays = replays_of(cases, arguments.replays)
        print(f"\n{name}: regret in percent at so many child-trainings\n")
        print("\n".join(regret_lines(replays)))
        if arguments.figures:
            draw_regret(replays, arguments.figures / f"regret-{name}", f"Regret on the table {name}")


if __name__ == "__main__":
    main()
