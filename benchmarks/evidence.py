"""Makes docs/evidence.md and its figures anew, from the committed records alone: one command, some CPU-minutes.

python benchmarks/evidence.py
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from minilm_children import RECORDS, ROOT, rows_of, table_of
from minilm_orders import (
    ALL,
    DRAWN,
    SCREENED,
    Evidence,
    cosine_of,
    interference_lines,
    lines_of,
    mean_of,
    measured,
    paired_lines,
    rank_correlation,
    rivals,
    table_lines,
    trainings_of,
    tried,
    ways,
)
from minilm_ranking import STUDY, UNTRAINED, jobs_of, known
from minilm_recovery import BUDGETS, STSB, all_jobs, done, gains, recovery_lines
from minilm_recovery import FILE as RECOVERY
from minilm_table import FACTORS, pilot_lines, read_object
from ranking_study import CALIBRATED, FRESH_SEEDS
from regret import (
    SCORED_BATCHES,
    Replay,
    at_compute,
    draw_regret,
    imdb_cases,
    is_untrained,
    minilm_cases,
    noise_of,
    regret_lines,
    replays_of,
    ties,
    winners,
)

from hf_nasbert.cards import fill_page
from hf_nasbert.ranking import GroundTruth, load_table, read_scores, report

PAGE, FIGURES = ROOT / "docs" / "evidence.md", ROOT / "docs" / "figures"
ASKED = (1, 3, 10, 100)
"""Child-trainings of compute for which the page says what to do."""
_BAR, _BAR_FRESH = (0.96, 0.88), 0.45  # tau overall and within bands; on `imdb`
_COMPUTE_FRESH = 5  # child-trainings, at which that of `imdb` holds
_LEAST = 30  # children of a band, from which on replays say something
REPLAYS = 60
_RESAMPLES = 20  # of intervals that are not shown
FRESH = "ranking_study.py fresh"
WITHOUT_NEAR = "minilm, drawn children"
DEFAULTS = (
    ("minilm", "compress", "first few by sums, 20 of them by inherited weights"),
    ("imdb", "search", "first few by super-net, uniform at half time"),
)
"""What the two commands do if nothing else is asked for, as a policy of a table."""
Replays = Mapping[str, Sequence[Sequence[Replay]]]


def evidence_of(folder: Path) -> Evidence:
    """Held against the table with the most children; at a tie against that with the most tokens."""
    numbers = {factor: len({row["architecture"] for row in rows_of(table_of(factor, folder))}) for factor in FACTORS}
    return Evidence(folder, max(FACTORS, key=lambda factor: (numbers[factor], factor)))


def not_run(what: str, command: str) -> str:
    """A section without records."""
    return f"*{what} has not been run yet: `python benchmarks/{command}`.*"


def replays(evidence: Evidence, number: int = REPLAYS) -> dict[str, Replays]:
    """Those of both tables, and of one without children near the best sums; none of one that has too few children."""
    found: dict[str, Replays] = {}
    bands = evidence.truth.bands
    if len(bands) and min((bands == band).sum() for band in set(bands)) >= _LEAST:
        found["minilm"] = replays_of(minilm_cases(evidence), number)
        found[WITHOUT_NEAR] = replays_of(minilm_cases(evidence, with_near=False), number, is_untrained)
    found["imdb"] = replays_of(imdb_cases(evidence.folder), number)
    return found


def sections(evidence: Evidence, replayed: Mapping[str, Replays]) -> dict[str, str]:
    """The blocks of the page, by name."""
    return sections_of_records(evidence) | sections_of_replays(evidence, replayed)


def sections_of_records(evidence: Evidence) -> dict[str, str]:
    """Those that no replay is needed for."""
    folder, made = evidence.folder, {}
    try:
        made["evidence pilot"] = "\n".join(pilot_lines(read_object(folder / "minilm-design.json"), folder))
    except ValueError:
        made["evidence pilot"] = not_run("The pilot at 1, 4 and 16 times the tokens", "minilm_table.py train --pilot")
    has = {study: any(row["study"] == study for row in evidence.supernets) for study in ("run", "sweep", "confirm")}
    missing = not_run("The study of super-nets", "minilm_ranking.py run")
    for name, children in (("ranking", SCREENED), ("ranking, drawn children", DRAWN), ("ranking, all children", ALL)):
        made[f"evidence {name}"] = "\n".join(table_lines(evidence, children)) if has["run"] else missing
    made["evidence tests"] = "\n".join(paired_lines(evidence, SCREENED)) if has["run"] else missing
    made["evidence interference"] = "\n".join(interference_lines(evidence)) if has["run"] else missing
    for study, what in (("sweep", "The sweep"), ("confirm", "What the sweep proposes")):
        text = not_run(what, f"minilm_ranking.py {study}")
        made[f"evidence {study}"] = "\n".join(table_lines(evidence, SCREENED, study)) if has[study] else text
    if has["confirm"]:
        made["evidence confirm"] += "\n\n" + "\n".join(paired_lines(evidence, SCREENED, "confirm"))
    tries = tried(evidence)
    text = not_run("What was tried at the bar", "minilm_ranking.py bar")
    made["evidence tried"] = "\n".join(lines_of(tries, evidence.truth_of(SCREENED))) if tries else text
    made["evidence fresh"] = fresh_text(fresh_rows(folder))
    recovered = rows_of(folder / RECOVERY)
    text = not_run("The comparison at more tokens", "minilm_recovery.py run")
    made["evidence recovery"] = "\n".join(recovery_lines(folder)) if recovered else text
    return made


def sections_of_replays(evidence: Evidence, replayed: Mapping[str, Replays]) -> dict[str, str]:
    """Those that tell of regret, and what a person reads first."""
    made = {
        "evidence lines": "\n".join(f"- {line}" for line in lines(evidence, replayed, fresh_rows(evidence.folder)))
    }
    made["evidence answer"] = "\n".join(answer_lines(evidence, replayed))
    made["evidence defaults"] = "\n".join(default_lines(evidence, replayed))
    for table in ("minilm", WITHOUT_NEAR, "imdb"):
        if table in replayed:
            told = [*regret_lines(replayed[table]), *floor_lines(evidence, table)]
            made[f"evidence regret {table}"] = "\n".join(told)
        else:
            made[f"evidence regret {table}"] = not_run("The table `minilm`", "minilm_table.py train --factor F")
    return made


class Fresh(NamedTuple):
    """How one method of the fresh seeds ranks: tau and tau within size buckets, with their cells in a table.

    `price` is what it takes, in child-trainings.
    """

    name: str
    when: str
    num_rankings: int
    is_calibrated: bool
    tau: float
    cells: tuple[str, str]
    price: float

    def told(self) -> str:
        """In words."""
        where = "" if self.name.endswith(" trained, additive") else f", of super-nets at {self.when}"
        return f"{self.name}{where}: tau {self.cells[0]} for {self.price:.1f}"


def fresh_rows(folder: Path) -> list[Fresh]:
    """Every method at half time and at the end, by its scores alone and calibrated; none without records."""
    file = folder / "ranking-fresh.jsonl.xz"
    if not file.exists():
        return []
    truth = GroundTruth(load_table("imdb"), containing="conv3")
    scored = read_scores(file, truth)
    found = []
    for when, share in (("half time", 0.5), ("the end", 1.0)):
        own = [row for row in scored if row["step"] == share * row["max_steps"]]
        steps = {row["method"]: row.get("adapted") for row in own}
        prices = {name: fresh_price(truth, share, adapted) for name, adapted in steps.items()}
        rows = [(one, 0) for one in report(truth, own, num_resamples=_RESAMPLES).methods] if own else []
        for number in CALIBRATED if own else ():
            made = report(truth, own, num_resamples=_RESAMPLES, calibrate=number)
            rows += [(one, number) for one in made.calibrated]
        for one, number in rows:
            taus = [one.measured[name] for name in ("kendall_tau", "bucketed_tau")]
            cells = [f"{tau.mean:.3f} ± {tau.seed_deviation or 0:.3f}" for tau in taus]
            of_supernet = one.name.removesuffix(f", calibrated by {number}").removesuffix(f", at {100 * share:.0f} %")
            price = number + (0.0 if of_supernet == f"{number} trained, additive" else prices[of_supernet])
            name = one.name.replace(f", at {100 * share:.0f} %", "")
            found.append(Fresh(name, when, one.num_rankings, number > 0, taus[0].mean, (cells[0], cells[1]), price))
    return found


def fresh_price(truth: GroundTruth, share: float, adapted: Mapping[str, Any] | None) -> float:
    """What a super-net trained for some share of the time takes with its ranking, in trainings of a child."""
    recipe = truth.recipe
    per_batch = recipe["dev_batch_size"] / recipe["train_batch_size"]
    training, scoring = 3 * recipe["max_steps"] + recipe["num_dev_batches"] * per_batch, SCORED_BATCHES * per_batch
    supernet = share * 3 * 2 * recipe["max_steps"]
    if adapted is None:
        return float((supernet + len(truth.architectures) * scoring) / training)
    return float((supernet + adapted["children"] * (3 * adapted["steps"] + scoring)) / training)


def fresh_text(fresh: Sequence[Fresh]) -> str:
    """The table of the fresh seeds."""
    if not fresh:
        return not_run("What addresses position-blind super-nets, with adapted ranking, on fresh seeds", FRESH)
    told = [
        "| ranked by | super-net at | seeds, or draws | takes, in child-trainings | tau | within size buckets |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    told += [
        f"| {one.name} | {one.when} | {one.num_rankings} | {one.price:.1f} | {' | '.join(one.cells)} |"
        for one in fresh
    ]
    return "\n".join(told)


def lines(evidence: Evidence, replayed: Mapping[str, Replays], fresh: Sequence[Fresh]) -> Iterator[str]:
    """What a person reads first: what to do, and what it stands on."""
    truth, noises = evidence.truth, noises_of(evidence)
    told = [f"on `{table}` {_what_to_do(replayed[table], noises[table])}" for table in noises if table in replayed]
    if told:
        yield f"**What to do with compute, in child-trainings:** {'; '.join(told)}."
    if "minilm" not in replayed:
        yield f"On `minilm` nothing can be said yet of what to do with compute: it has {len(truth.names)} children."
    yield (
        f"`minilm` has {len(truth.names)} children, each distilled alone with {evidence.factor} times the pilot's "
        f"tokens, {len(evidence.again)} of them twice, which moves a loss by {noises['minilm']:.1f} %; `imdb` has "
        f"243, trained from scratch, where a second seed moves a loss by {noises['imdb']:.1f} %."
    )
    found = ways(evidence, SCREENED)
    trained = [name for name in found if name.endswith(f"({SCREENED})")]
    if not trained:
        yield not_run("Whether a trained super-net ranks better than untrained inheritance", "minilm_ranking.py run")
    else:
        yield from _of_ranking(evidence, found, trained)
    yield advantage_line(evidence.folder) or not_run(
        "Whether the searched child's advantage lasts with more tokens", "minilm_recovery.py run"
    )
    if not fresh:
        yield not_run("Of `imdb`, what addresses position-blind super-nets, with adapted ranking,", FRESH)
        return
    within = [one for one in fresh if one.price <= _COMPUTE_FRESH]
    if within:
        best, most = (max(found, key=lambda one: one.tau) for found in (within, fresh))
        alone = [one for one in fresh if one.name.endswith(" trained, additive")]
        yield (
            f"Of `imdb`, on {len(FRESH_SEEDS)} fresh seeds, the best of {len(within)} rankings at no more than "
            f"{_COMPUTE_FRESH} child-trainings is {best.told()}. The bar of {_BAR_FRESH:g} is "
            f"{_said(best.tau >= _BAR_FRESH)}. With any compute it is {most.told()}"
            + "".join(f"; {one.told()}" for one in sorted(alone, key=lambda one: one.price)[:1])
            + "."
        )


def noises_of(evidence: Evidence) -> dict[str, float]:
    """By how many percent a second seed moves a child's loss, of both tables."""
    return {
        "minilm": noise_of(rows_of(table_of(evidence.factor, evidence.folder))),
        "imdb": noise_of(load_table("imdb")),
    }


def _what_to_do(replayed: Replays, noise: float) -> str:
    """At every compute that is asked for, of the policies within the noise of a training of the best the cheapest."""
    best = dict(zip(ASKED, (name for name, _ in winners(replayed, ASKED, noise)), strict=True))
    told = []
    for name, computes in itertools.groupby(ASKED, key=best.get):
        *most, last = map(str, computes)
        told.append(f"with {' and '.join([', '.join(most), last] if most else [last])} *{name}*")
    return ", ".join(told)


def answer_lines(evidence: Evidence, replayed: Mapping[str, Replays]) -> Iterator[str]:
    """What the first sentence says, with what it leaves, what does as well, and the other measure."""
    yield f"| table | {' | '.join(f'with {compute}' for compute in ASKED)} |"
    yield "| --- |" + " --- |" * len(ASKED)
    noises = noises_of(evidence)
    for table, own in replayed.items():
        noise = noises["imdb" if table == "imdb" else "minilm"]
        cells, by_quality = [], []
        for compute, (name, at) in zip(ASKED, winners(own, ASKED, noise), strict=True):
            equal = len(ties(own, compute, noise)) - 1
            cells.append(f"{name}, {at.mean:.1f} %" + (f" ({equal} more)" if equal else ""))
            if table == "minilm":
                found = {other: one.quality for other, parts in own.items() if (one := at_compute(parts, compute))}
                best = max(found, key=lambda other: (found[other], other))
                by_quality.append(
                    f"{best}, {found[best]:.3f}" + ("" if best == name else f" (above: {at.quality:.3f})")
                )
        title = "`minilm`, of drawn children, without training" if table == WITHOUT_NEAR else f"`{table}`"
        yield f"| {title}: regret | {' | '.join(cells)} |"
        if by_quality:
            yield f"| `{table}`: best by STS-B | {' | '.join(by_quality)} |"


def default_lines(evidence: Evidence, replayed: Mapping[str, Replays]) -> Iterator[str]:
    """How far what `compress` and `search` do is behind the best policy."""
    noises = noises_of(evidence)
    for table, command, policy in DEFAULTS:
        told = []
        for compute in ASKED if table in replayed else ():
            at = at_compute(replayed[table].get(policy, ()), compute)
            (_, best), *_ = winners(replayed[table], (compute,))
            if at is not None:
                behind = at.mean - best.mean
                noise = "" if behind > noises[table] else ", within the noise"
                told.append(f"with {compute} {at.mean:.1f} % ({behind:.1f} above the best{noise})")
        if told:
            yield f"- `{command}`, on `{table}` *{policy}*: regret {', '.join(told)}."


def _of_ranking(evidence: Evidence, found: Mapping[str, Any], trained: Sequence[str]) -> Iterator[str]:
    """The lines on super-nets of the screened space."""

    def tau(name: str) -> str:
        overall, within = (mean_of(evidence, name, measure) for measure in ("tau", "within bands"))
        return f"{overall:.3f} ({within:.3f} within bands)"

    asked = set(jobs_of("run"))
    num_made = len(known(evidence.supernets) & asked)
    if num_made < len(asked):
        yield (
            f"*The study of super-nets is not finished: {num_made} of {len(asked)} are trained, and what follows is "
            "of these: `python benchmarks/minilm_ranking.py run` goes on.*"
        )
    best = max(trained, key=lambda name: mean_of(evidence, name, "within bands"))
    seeds = len(found[best].rankings)
    uniform = f"uniform ({SCREENED})"
    beside = "" if best == uniform else f"uniform with {tau(uniform)}, "
    dull = rivals(found, evidence.truth_of(SCREENED))["best dull baseline"]
    others = ", ".join(f"{name} with {tau(name)}" for name in (*UNTRAINED[:2], dull))
    yield (
        f"Among screened children the best super-net, {best.removesuffix(f' ({SCREENED})')}, ranks with a tau of "
        f"{tau(best)} over {seeds} seeds; {beside}{others}. " + bar_of(evidence, best, "run")
    )
    order = ["uniform", "magic_t", "magic_a", "magic_at", *(name for name in STUDY if "anchored" in name)]
    told = [f"{name} {mean_of(evidence, f'{name} ({SCREENED})', 'within bands'):.3f}" for name in order
            if f"{name} ({SCREENED})" in found]  # fmt: skip
    is_seen = all(
        mean_of(evidence, f"{worse} ({SCREENED})", "within bands")
        < mean_of(evidence, f"{better} ({SCREENED})", "within bands")
        for worse, better in (("uniform", "magic_t"), ("magic_t", "magic_at"))
    )
    yield (
        f"MAGIC's order, uniform below magic_t below magic_at, is {'seen' if is_seen else 'not seen'}; by tau within "
        f"bands: {', '.join(told)}."
    )
    yield from _of_interference(evidence)
    whole = mean_of(evidence, f"uniform ({ALL})", "within bands")
    if not math.isnan(whole):
        yield (f"Screening first: uniform of the whole space ranks the same children with {tau(f'uniform ({ALL})')}.")
    confirmed = [name for name in ways(evidence, SCREENED, "confirm") if name.endswith(f"({SCREENED})")]
    if not confirmed:
        yield not_run("The sweep's two best on fresh seeds", "minilm_ranking.py confirm")
        return
    best = max(confirmed, key=lambda name: mean_of(evidence, name, "within bands", study="confirm"))
    told = ", ".join(f"{name.removesuffix(f' ({SCREENED})')} {mean_of(evidence, name, 'tau', study='confirm'):.3f} "
                     f"({mean_of(evidence, name, 'within bands', study='confirm'):.3f} within bands)"
                     for name in confirmed)  # fmt: skip
    yield f"The sweep's two best beside uniform, on fresh seeds: {told}. {bar_of(evidence, best, 'confirm')}"
    yield _of_tries(evidence)


def _of_tries(evidence: Evidence) -> str:
    """What of all that was tried at the bar since comes nearest to it."""
    truth = evidence.truth_of(SCREENED)
    found = {
        name: {measure: fmean(measured(scores, truth)[measure] for scores in way.rankings.values())
               for measure in ("tau", "within bands")}
        for name, way in tried(evidence).items()
    }  # fmt: skip
    best = max(found, key=lambda name: found[name]["tau"])
    overall, within = found[best].values()
    return (
        f"Nearest to the bar of what was tried since: {best}, {overall:.3f} ({within:.3f} within bands) for "
        f"{trainings_of(tried(evidence)[best], truth):.0f} child-trainings."
    )


def floor_lines(evidence: Evidence, table: str) -> Iterator[str]:
    """What of the regret of super-nets is due to bands of which the screened space has few children."""
    if table == "imdb":
        return
    cases = minilm_cases(evidence, with_near=table != WITHOUT_NEAR)
    for name, case in cases.items():
        known = [child for child in case.reached if str(child) in evidence.screened]
        least = min((case.regret(child) for child in known), default=0.0)
        if least:
            yield ""
            yield (
                f"Super-nets of the screened space rank {len(known)} of the {len(case.reached)} children with {name}, "
                f"the best of which is {least:.1f} % above the best of all: {least / len(cases):.1f} of their regret, "
                "which is a mean over bands, is due to that."
            )


def _of_interference(evidence: Evidence) -> Iterator[str]:
    """Whether gradients of shared operators agree more after MAGIC, and whether that goes with ranking well."""
    found = evidence.supernets_of("run", SCREENED)
    shown = [name for name in ("uniform", "magic_t", "magic_at") if name in found]
    cosines = [f"{fmean(map(cosine_of, found[name].values())):.3f} after {name}" for name in shown]
    number, correlation = rank_correlation(evidence, SCREENED, "run")
    if correlation is not None:
        yield (
            f"The gradients of shared operators have a cosine of {', '.join(cosines)}; over {number} super-nets it "
            f"has a rank correlation of {correlation:+.2f} with tau within bands. The higher, the less interference: "
            f"it is least after {max(shown, key=lambda name: fmean(map(cosine_of, found[name].values())))}."
        )


def bar_of(evidence: Evidence, name: str, study: str) -> str:
    """Whether a way reaches the bar that was set before any super-net was trained."""
    overall, within = (mean_of(evidence, name, measure, study=study) for measure in ("tau", "within bands"))
    return f"The bar of {_BAR[0]:g} and {_BAR[1]:g} is {_said(overall >= _BAR[0] and within >= _BAR[1])}."


def _said(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def advantage_line(folder: Path) -> str | None:
    """By how much the searched child is ahead of the better one by hand, and where it is not."""
    found = rows_of(folder / RECOVERY)
    asked, made, told = all_jobs(), list(gains(found)), []
    for budget in BUDGETS:
        own = [one for one in made if one.budget == budget]
        parts = [f"{one.told()} points at {one.factor} times the tokens" for one in own if one.measure == STSB]
        last = max((one.factor for one in own), default=0)
        tuned = [f"{one.told()} on {one.measure}" for one in own if one.measure != STSB and one.factor == last]
        fine = f" (fine-tuned at {last}: {', '.join(tuned)})" if tuned else ""
        told += [f"with {budget:.0%} of the parameters {', '.join(parts)}{fine}"] if parts else []
    if not told:
        return None
    num_made = len(done(found) & set(asked))
    unfinished = (
        f" *{num_made} of {len(asked)} jobs are done: `python benchmarks/minilm_recovery.py run` goes on.*"
        if num_made < len(asked)
        else ""
    )
    return (
        f"The searched child is ahead of the better one by hand, by STS-B's test split: {'; '.join(told)}.{unfinished}"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    evidence = evidence_of(arguments.records)
    replayed = replays(evidence)
    fill_page(PAGE, sections(evidence, replayed))
    for table in replayed.keys() - {WITHOUT_NEAR}:
        draw_regret(replayed[table], FIGURES / f"regret-{table}", f"Regret of the chosen child, table {table}")


if __name__ == "__main__":
    main()
