"""How well every way ranks the children of `minilm`: tables from the records alone (part B).

A truth is the loss of a child trained alone on the text that judges, at so many times the tokens; a score is the lower
the better. Children are compared over all bands (tau), within bands, and within the best third of each band; of a band
the ten predicted best say how many of them are among the ten best (P@10), the rank of the best among them, and the
regret of taking the first: by how many percent its loss is above that of the band's best child.

A band that has less than a tenth of the children of the largest one, or less than five, counts over all bands only.
That was settled when the table had been trained: three of its screened children have a quarter of the parameters, and
three say nothing.

What learns from children trained alone learns from their losses on the text that chooses, at the end of their learning
curves, never from those that judge. Whatever is about the screened space pays for the lone replacements by which it is
screened; the base model's states and the variants, which all ways need, are not counted.

A third of the table's children are near the best sums of lone replacements. What follows the sums is at its best
there, so that all is also told of the screened children that were drawn at random. That was settled later still, when
a part of the super-nets had been trained.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from minilm_children import DESIGN, by_counts, rows_of, table_of
from minilm_ranking import BAR, FILE, STUDIES, UNTRAINED
from numpy.typing import NDArray

from hf_nasbert.foreign import read_object
from hf_nasbert.metrics import Array, Redraws, draw, means_of_known, paired_difference, percentile_interval, spearman
from hf_nasbert.records import Record
from hf_nasbert.searching import calibrated, shared_ridge
from hf_nasbert.space import SKIP, Architecture, SearchSpace

_TOP = 10
_FEWEST, _LEAST_SHARE = 5, 0.1  # children in a band that is looked into, and their share of the largest one's
_THIRD = 3
_FITTED, _DRAWS = 30, 50  # children that a fitted way learns from, and how often they are drawn
_RESAMPLES = 300
MEASURES = ("tau", "within bands", "best third", "P@10", "best of 10", "regret, %")
_COMPARED = MEASURES[:2]
SCREENED, ALL, DRAWN = "screened", "whole", "drawn"
"""Of which children: those of the screened space, all of the table, or of the screened ones those drawn at random."""
BOTH = "uniform + inherited weights"
TRIED = [("confirm", "uniform"), ("confirm", "uniform, four times the compute"), *(("bar", name) for name in BAR)]
"""Super-nets that what else was tried at the bar stands on; all that follows of them needs no other training."""
_CALIBRATED = (8, 15, 30)
DULL = ("parameters", "FLOPs", "kept layers")

Scores = Mapping[str, float]


class Truth(NamedTuple):
    """Children of a table in the order of their design: names, bands, losses, and what is known of them untrained."""

    names: list[str]
    bands: Array
    losses: Array
    rows: list[Record]

    @property
    def seen(self) -> Array:
        """What who trains a child sees of it: its loss at the end on a part of the text that chooses."""
        return np.array([row["curve"][-1][1] for row in self.rows])

    def of(self, names: set[str]) -> "Truth":
        """Those of some names alone."""
        kept = [place for place, name in enumerate(self.names) if name in names]
        return Truth(
            [self.names[place] for place in kept], self.bands[kept], self.losses[kept], [self.rows[p] for p in kept]
        )


@dataclass(frozen=True)
class Evidence:
    """All records of part B, and the truth that they are held against.

    Args:
        folder: Of the records.
        factor: How many times the tokens the truth was trained with.
    """

    folder: Path
    factor: int

    @cached_property
    def supernets(self) -> list[Record]:
        """The records of super-nets and untrained ways."""
        return [row for row in rows_of(self.folder / FILE) if row["study"] != "about"]

    @cached_property
    def about(self) -> Record:
        """Which children they score, in their order."""
        return rows_of(self.folder / FILE)[0]

    @cached_property
    def design(self) -> Record:
        """The children of the table, and the screened space."""
        found: Record = read_object(self.folder / DESIGN)
        return found

    @cached_property
    def truth(self) -> Truth:
        """All children of the design that were trained alone."""
        rows = {row["architecture"]: row for row in rows_of(table_of(self.factor, self.folder)) if row["seed"] == 0}
        known = [one for one in self.design["children"] if one["architecture"] in rows]
        names = [one["architecture"] for one in known]
        own = [rows[name] for name in names]
        return Truth(names, np.array([one["band"] for one in known]), np.array([r["dev_loss"] for r in own]), own)

    @cached_property
    def again(self) -> Scores:
        """The losses of children that were trained with a second seed."""
        rows = rows_of(table_of(self.factor, self.folder))
        return {row["architecture"]: row["dev_loss"] for row in rows if row["seed"] == 1}

    @cached_property
    def screened(self) -> set[str]:
        """Children of the screened space."""
        blocks = [",".join(names) for names in self.design["screened"]]
        space = SearchSpace.of_blocks(blocks, skip="anywhere")
        return {name for name in self.truth.names if space.why_not(name) is None}

    @cached_property
    def ways(self) -> dict[tuple[str, str], dict[str, "Way"]]:
        """What `ways` has found so far, by children and study."""
        return {}

    @cached_property
    def near(self) -> set[str]:
        """Children that were chosen as solutions by the sums of lone replacements, or as neighbours of these."""
        return {one["architecture"] for one in self.design["children"] if one["kind"] == "near"}

    def truth_of(self, children: str) -> Truth:
        """The children that are asked for: `SCREENED`, `ALL` or `DRAWN`."""
        if children == ALL:
            return self.truth
        return self.truth.of(self.screened - self.near if children == DRAWN else self.screened)

    def scores_of(self, row: Record) -> Scores:
        """What a record says of children, by name."""
        pairs = zip(self.about["children"], row["scores"], strict=True)
        return {name: score for name, score in pairs if score is not None}

    def supernets_of(self, study: str, space: str) -> dict[str, dict[int, Record]]:
        """The records of a study's super-nets of a space: by variant, by seed."""
        found: dict[str, dict[int, Record]] = {name: {} for name in STUDIES[study]}
        for row in self.supernets:
            if (row["study"], row["space"]) == (study, space):
                found.setdefault(row["variant"], {})[row["seed"]] = row
        return {name: own for name, own in found.items() if own}

    def untrained(self, name: str) -> Record | None:
        """The record of a way that trains nothing, if it is there."""
        return next((row for row in self.supernets if (row["study"], row["variant"]) == ("untrained", name)), None)


def measured(scores: Scores, truth: Truth) -> dict[str, float]:
    """Every measure of one ranking, of the children that both know; NaN where there is none."""
    part = truth.of({*scores})
    if len(part.names) < 2:
        return dict.fromkeys(MEASURES, math.nan)
    each = np.array([scores[name] for name in part.names])
    best = np.zeros(len(each), dtype=bool)
    precisions, ranks, regrets = [], [], []
    is_counted = in_large_bands(part.bands)
    for band in np.unique(part.bands[is_counted]):
        inside = np.flatnonzero(part.bands == band)
        losses, own = part.losses[inside], each[inside]
        best[inside[np.argsort(losses, kind="stable")[: max(2, len(inside) // _THIRD)]]] = True
        top, redraws = min(_TOP, len(inside)), Redraws(own, losses)
        precisions.append(redraws.precision_at_top(top / len(inside))[0])
        ranks.append(redraws.best_rank_at(top)[0])
        first = losses[own == own.min()].mean()  # of equal scores any may be taken
        regrets.append(100 * (first / losses.min() - 1))
    whole = Redraws(each, part.losses)
    counted, good = whole.among(is_counted), whole.among(best)
    if not precisions or counted is None:
        return dict.fromkeys(MEASURES, math.nan) | {"tau": float(whole.kendall_tau()[0])}
    return dict(
        zip(
            MEASURES,
            (
                float(whole.kendall_tau()[0]), float(counted.mean_bucketed_tau(part.bands[is_counted])[0]),
                math.nan if good is None else float(good.mean_bucketed_tau(part.bands[best])[0]),
                float(np.mean(precisions)), float(np.mean(ranks)), float(np.mean(regrets)),
            ),
            strict=True,
        )
    )  # fmt: skip


def in_large_bands(bands: Array) -> NDArray[np.bool_]:
    """Which children are in a band that has enough of them to be looked into; the largest one has, if it has two."""
    names, numbers = np.unique(bands, return_counts=True)
    most = int(numbers.max())
    return np.isin(bands, names[numbers >= max(2, min(_FEWEST, most), _LEAST_SHARE * most)])


def intervals(rankings: Sequence[Scores], truth: Truth) -> list[str]:
    """90 % bootstrap intervals over children of the mean tau of some rankings, and of that within bands."""
    part = truth.of(set.intersection(*({*scores} for scores in rankings)))
    if len(part.names) < 3:
        return ["", ""]
    counts = draw(len(part.names), _RESAMPLES, 0)
    redraws = [Redraws([scores[name] for name in part.names], part.losses, counts) for scores in rankings]
    is_counted, told = in_large_bands(part.bands), []
    counted = [own for one in redraws if (own := one.among(is_counted)) is not None]
    taus = [one.kendall_tau() for one in redraws], [one.mean_bucketed_tau(part.bands[is_counted]) for one in counted]
    for values in (means_of_known(np.array(own)) for own in taus if own):
        _, low, high = percentile_interval(float(values[0]), values[1:])
        told.append(f" [{low:.2f}, {high:.2f}]")
    return [*told, "", ""][:2]


class Way(NamedTuple):
    """A way to rank: its rankings by seed, or draw, and what one takes in passes, the base model's included."""

    rankings: dict[int, Scores]
    passes: float
    is_random: bool = False
    """Whether rankings are draws of the children that it learns from, and no seeds."""


def ways(evidence: Evidence, children: str, study: str = "run") -> dict[str, Way]:
    """Every way on record to rank some children: dull ones first, super-nets last."""
    if (children, study) not in evidence.ways:
        evidence.ways[children, study] = _ways(evidence, children, study)
    return evidence.ways[children, study]


def _ways(evidence: Evidence, children: str, study: str) -> dict[str, Way]:
    truth = evidence.truth_of(children)
    if not truth.names:
        return {}
    trees = [Architecture.parse(name) for name in truth.names]
    kept = [-sum(name not in (SKIP, "norm") for name in child) for child in trees]
    dull = ([-row["num_encoder_parameters"] for row in truth.rows], [-row["flops"] for row in truth.rows], kept)
    found = {
        name: Way({0: dict(zip(truth.names, scores, strict=True))}, 0.0)
        for name, scores in zip(DULL, dull, strict=True)
    }
    if len(trees) > 2 * _FITTED:
        found |= _fitted(truth, trees, 0.0 if children == ALL else screening(evidence))
    for name in UNTRAINED:
        row = evidence.untrained(name)
        if row is not None:
            found[name] = Way({0: evidence.scores_of(row)}, row.get("passes", 0.0) + _scoring(row, len(trees)))
    for space in (ALL,) if children == ALL else (SCREENED, ALL):
        for name, by_seed in evidence.supernets_of(study, space).items():
            row = next(iter(by_seed.values()))
            passes = row["passes"] + row["teacher_passes"] + _scoring(row, len(trees))
            passes += screening(evidence) if space == SCREENED else 0.0
            found[_title(name, space)] = Way({s: evidence.scores_of(one) for s, one in by_seed.items()}, passes)
    inherited, trained = found.get(UNTRAINED[0]), found.get(_title("uniform", ALL if children == ALL else SCREENED))
    if inherited and trained:
        both = {seed: _mean(inherited.rankings[0], scores) for seed, scores in trained.rankings.items()}
        found[BOTH] = Way(both, trained.passes + inherited.passes)
    if len(evidence.again) > 2:
        found["another training (second seed)"] = Way({0: evidence.again}, math.nan)
    return found


def screening(evidence: Evidence) -> float:
    """Passes of the lone replacements, by which a space is screened."""
    row = evidence.untrained("replace-one sums")
    return 0.0 if row is None else float(row["passes"])


def _title(variant: str, space: str) -> str:
    return f"{variant} ({space})"


def _scoring(row: Record, num_children: int) -> float:
    """Passes of scoring children, each over all batches that choose; sums of lone replacements score no child."""
    return 0.0 if row["variant"] == "replace-one sums" else float(num_children * row["scored_batches"])


def _mean(one: Scores, other: Scores) -> Scores:
    """The mean of two scores, each in its standard deviations, of the children that both know."""
    names = [name for name in one if name in other]
    sides = [np.array([side[name] for name in names]) for side in (one, other)]
    total = sum((side - side.mean()) / (side.std() or 1.0) for side in sides)
    return dict(zip(names, np.asarray(total).tolist(), strict=True))


def _fitted(truth: Truth, children: Sequence[Architecture], screened: float) -> dict[str, Way]:
    """Models on thirty children trained alone, each draw ranking all others; `screened` are passes of screening."""
    space = SearchSpace.from_dict(truth.rows[0]["recipe"]["space"])
    additive: dict[int, Scores] = {}
    counts: dict[int, Scores] = {}
    for number in range(_DRAWS):
        order = np.random.default_rng(number).permutation(len(children))
        known, others = ([children[place] for place in part] for part in (order[:_FITTED], order[_FITTED:]))
        losses = truth.seen[order[:_FITTED]].tolist()
        predicted = shared_ridge(space.blocks).fit(known, losses).predict(others)
        additive[number] = dict(zip(map(str, others), predicted, strict=True))
        counts[number] = by_counts(known, losses, others)
    alone = float(np.mean([row["passes"] for row in truth.rows]))
    passes = screened + _FITTED * alone + truth.rows[0]["teacher_passes"]  # all see the same batches
    return {
        f"operator counts, fitted on {_FITTED}": Way(counts, passes, True),
        f"additive, fitted on {_FITTED}": Way(additive, passes, True),
    }


def tried(evidence: Evidence) -> dict[str, Way]:
    """What was tried at the bar: super-nets, means over their seeds, both calibrated by children trained alone too."""
    truth, found = evidence.truth_of(SCREENED), dict[str, Way]()
    if not truth.names:
        return found
    alone = float(np.mean([row["passes"] for row in truth.rows]))
    for study, variant in TRIED:
        rows = list(evidence.supernets_of(study, SCREENED).get(variant, {}).values())
        if not rows:
            continue
        known = {*truth.names}
        each = [{name: s for name, s in evidence.scores_of(row).items() if name in known} for row in rows]
        mean = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
        price = rows[0]["passes"] + _scoring(rows[0], len(truth.names))
        groups = {variant: each, f"{variant}, mean of {len(rows)}": [mean]}
        for title, own in groups.items():
            passes = price * (1 if own is each else len(rows))
            passes += rows[0]["teacher_passes"] + screening(evidence)  # all see the same batches
            found[title] = Way(dict(enumerate(own)), passes)
            for number in _CALIBRATED:
                if len(truth.names) > 2 * number:
                    draws = {draw: _by_few(truth, own[draw % len(own)], number, draw) for draw in range(_DRAWS)}
                    found[f"{title}, calibrated by {number}"] = Way(draws, passes + number * alone, True)
    return found


def _by_few(truth: Truth, scores: Scores, number: int, draw: int) -> Scores:
    """How a ranking that some children trained alone calibrate ranks all others."""
    children = {name: Architecture.parse(name) for name in truth.names}
    by_child = {child: scores[name] for name, child in children.items()}
    places = np.random.default_rng(draw).permutation(len(children))[:number]
    few = {children[truth.names[place]]: float(truth.seen[place]) for place in places}
    blocks = SearchSpace.from_dict(truth.rows[0]["recipe"]["space"]).blocks
    predict = calibrated(blocks, few, lambda asked: [by_child[child] for child in asked], list(by_child))
    others = [name for name, child in children.items() if child not in few]
    return dict(zip(others, predict([children[name] for name in others]), strict=True))


def passes_of(row: Record) -> float:
    """What a training alone took, the base model's forwards included."""
    return float(row["passes"] + row["teacher_passes"])


def trainings_of(way: Way, truth: Truth) -> float:
    """What a way takes, in trainings of a child alone."""
    return way.passes / float(np.mean([passes_of(row) for row in truth.rows]))


def table_lines(evidence: Evidence, children: str, study: str = "run") -> Iterator[str]:
    """Every way with every measure: mean ± standard deviation over seeds or draws, intervals over children."""
    yield from lines_of(ways(evidence, children, study), evidence.truth_of(children))


def lines_of(found: Mapping[str, Way], truth: Truth) -> Iterator[str]:
    """The table of some ways."""
    yield f"| {len(truth.names)} children ranked by | seeds | takes, in child-trainings | {' | '.join(MEASURES)} |"
    yield "| --- |" + " ---: |" * (2 + len(MEASURES))
    for name, way in found.items():
        each = [measured(scores, truth) for scores in way.rankings.values()]
        told = ["", ""] if way.is_random else intervals(list(way.rankings.values()), truth)
        cells = []
        for place, measure in enumerate(MEASURES):
            values = [one[measure] for one in each]
            cell = "" if math.isnan(values[0]) else f"{np.mean(values):.2f}"
            cell += f" ± {np.std(values, ddof=1):.2f}" if cell and len(values) > 1 else ""
            cells.append(cell + (told[place] if cell and place < len(told) else ""))
        seeds = f"{len(each)} draws" if way.is_random else str(len(each))
        takes = "" if math.isnan(way.passes) else f"{trainings_of(way, truth):.1f}"
        yield f"| {name} | {seeds} | {takes} | {' | '.join(cells)} |"


def rivals(found: Mapping[str, Way], truth: Truth) -> dict[str, str]:
    """What trained super-nets are held against, and under which name: `best dull baseline` is chosen by its tau."""
    dull = [name for name in found if name in DULL or name.startswith(("operator counts", "additive"))]
    best = max(dull, key=lambda name: np.mean([measured(s, truth)["tau"] for s in found[name].rankings.values()]))
    return {"inherited weights": UNTRAINED[0], "best dull baseline": best}


def paired_lines(evidence: Evidence, children: str = SCREENED, study: str = "run") -> Iterator[str]:
    """Paired tests over seeds: every super-net against uniform of its space, inherited weights, the best dull way."""
    truth = evidence.truth_of(children)
    found = ways(evidence, children, study)
    against = rivals(found, truth)
    yield "| ranked by | against | seeds | difference of tau | p | difference within bands | p |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, way in found.items():
        if not name.endswith((f"({SCREENED})", f"({ALL})")) and name != BOTH:
            continue
        space = name[name.rindex("(") :] if name != BOTH else f"({SCREENED})"
        for title, rival in {"uniform": f"uniform {space}", **against}.items():
            if rival == name or rival not in found:
                continue
            other = found[rival]
            is_paired = not other.is_random and len(other.rankings) > 1
            seeds = sorted(way.rankings.keys() & other.rankings.keys()) if is_paired else sorted(way.rankings)
            if len(seeds) < 2:
                continue
            fixed = [measured(scores, truth) for scores in other.rankings.values()]
            cells = []
            for measure in _COMPARED:
                mean = float(np.mean([one[measure] for one in fixed]))
                differences = [
                    measured(way.rankings[seed], truth)[measure]
                    - (measured(other.rankings[seed], truth)[measure] if is_paired else mean)
                    for seed in seeds
                ]
                test = paired_difference(differences)
                cells += [f"{test.mean:+.3f} [{test.low:+.3f}, {test.high:+.3f}]", f"{test.p_value:.3f}"]
            shown = title if title == "uniform" or title == rival else f"{title}: {rival}"
            yield f"| {name} | {shown} | {len(seeds)} | {' | '.join(cells)} |"


def interference_lines(evidence: Evidence, study: str = "run") -> Iterator[str]:
    """The mean cosine of gradients of shared operators, and whether it goes with ranking well."""
    yield "| super-net | seeds | cosine of gradients | of pairs that differ in one block | in half of them and more |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    row = evidence.untrained(UNTRAINED[0])
    groups: list[tuple[str, list[Record]]] = [] if row is None else [("inherited weights, untrained", [row])]
    for space in (SCREENED, ALL):
        groups += [(_title(n, space), list(one.values())) for n, one in evidence.supernets_of(study, space).items()]
    half = len(evidence.design["screened"]) // 2
    parts: list[Callable[[int], bool]] = [lambda d: True, lambda d: d == 1, lambda d: d >= half]
    for name, rows in groups:
        cells = []
        for part in parts:
            values = [cosine_of(one, part) for one in rows]
            deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{deviation}")
        yield f"| {name} | {len(rows)} | {' | '.join(cells)} |"
    for space in (SCREENED, ALL):
        number, found = rank_correlation(evidence, space, study)
        if found is not None:
            yield ""
            yield (
                f"Of {number} super-nets of the {space} space, cosine and tau within bands have a rank correlation of "
                f"{found:+.2f}."
            )


def rank_correlation(evidence: Evidence, space: str, study: str) -> tuple[int, float | None]:
    """How many super-nets of a space there are, and the rank correlation of their cosines and taus within bands."""
    truth = evidence.truth_of(SCREENED)
    rows = [row for one in evidence.supernets_of(study, space).values() for row in one.values()]
    taus = [measured(evidence.scores_of(row), truth)["within bands"] for row in rows]
    if len(rows) < 3 or any(map(math.isnan, taus)):
        return len(rows), None
    return len(rows), float(spearman([cosine_of(row) for row in rows], taus))


def cosine_of(row: Record, part: Callable[[int], bool] = lambda distance: True) -> float:
    """The mean over operators shared by children at some distances."""
    known = [(mean, number) for distance, mean, number in row["cosines"] if part(distance)]
    return sum(m * n for m, n in known) / sum(n for _, n in known) if known else math.nan


def mean_of(evidence: Evidence, name: str, measure: str, children: str = SCREENED, study: str = "run") -> float:
    """A measure's mean over the rankings of a way; NaN where it is not on record."""
    truth = evidence.truth_of(children)
    way = ways(evidence, children, study).get(name)
    values: list[Any] = [] if way is None else [measured(scores, truth)[measure] for scores in way.rankings.values()]
    return float(np.mean(values)) if values else math.nan
