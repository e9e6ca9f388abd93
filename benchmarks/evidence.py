"""Makes docs/evidence.md and its figures anew, from the committed records alone: one command, some CPU-minutes.

python benchmarks/evidence.py
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm_children import RECORDS, ROOT, rows_of, table_of
from minilm_orders import (
    ALL,
    BOTH,
    SCREENED,
    Evidence,
    interference_lines,
    mean_of,
    paired_lines,
    rivals,
    table_lines,
    ways,
)
from minilm_ranking import CONFIRM, STUDY, UNTRAINED, jobs_of, known
from minilm_recovery import FILE as RECOVERY
from minilm_recovery import recovery_lines
from minilm_table import FACTORS, pilot_lines, read_object
from ranking_study import CALIBRATED
from regret import Replay, draw_regret, imdb_cases, minilm_cases, regret_lines, replays_of, winners

from hf_nasbert.cards import fill_page
from hf_nasbert.ranking import GroundTruth, load_table, read_scores, report

PAGE, FIGURES = ROOT / "docs" / "evidence.md", ROOT / "docs" / "figures"
ASKED = (1, 3, 10, 100)
"""Child-trainings of compute for which the page says what to do."""
_LEAST = 30  # children of a band, from which on replays say something
REPLAYS = 60
_RESAMPLES = 20  # of intervals that are not shown
FRESH = "ranking_study.py fresh"
Replays = Mapping[str, Sequence[Sequence[Replay]]]


def evidence_of(folder: Path) -> Evidence:
    """Held against the table with the most children; at a tie against that with the most tokens."""
    numbers = {factor: len({row["architecture"] for row in rows_of(table_of(factor, folder))}) for factor in FACTORS}
    return Evidence(folder, max(FACTORS, key=lambda factor: (numbers[factor], factor)))


def not_run(what: str, command: str) -> str:
    """A section without records."""
    return f"*{what} has not been run yet: `python benchmarks/{command}`.*"


def replays(evidence: Evidence, number: int = REPLAYS) -> dict[str, Replays]:
    """Those of both tables; none of one that has too few children."""
    found: dict[str, Replays] = {}
    bands = evidence.truth.bands
    if len(bands) and min((bands == band).sum() for band in set(bands)) >= _LEAST:
        found["minilm"] = replays_of(minilm_cases(evidence), number)
    found["imdb"] = replays_of(imdb_cases(evidence.folder), number)
    return found


def sections(evidence: Evidence, replayed: Mapping[str, Replays]) -> dict[str, str]:
    """The blocks of the page, by name."""
    folder = evidence.folder
    made = {"evidence lines": "\n".join(f"- {line}" for line in lines(evidence, replayed))}
    try:
        made["evidence pilot"] = "\n".join(pilot_lines(read_object(folder / "minilm-design.json"), folder))
    except ValueError:
        made["evidence pilot"] = not_run("The pilot at 1, 4 and 16 times the tokens", "minilm_table.py train --pilot")
    has = {study: any(job in known(evidence.supernets) for job in jobs_of(study)) for study in ("run", "sweep")}
    has["confirm"] = any(job in known(evidence.supernets) for job in jobs_of("confirm"))
    missing = not_run("The study of super-nets", "minilm_ranking.py run")
    for name, children in (("ranking", SCREENED), ("ranking, all children", ALL)):
        made[f"evidence {name}"] = "\n".join(table_lines(evidence, children)) if has["run"] else missing
    made["evidence tests"] = "\n".join(paired_lines(evidence, SCREENED)) if has["run"] else missing
    made["evidence interference"] = "\n".join(interference_lines(evidence)) if has["run"] else missing
    for study, what in (("sweep", "The sweep"), ("confirm", "What the sweep proposes")):
        text = not_run(what, f"minilm_ranking.py {study}")
        made[f"evidence {study}"] = "\n".join(table_lines(evidence, SCREENED, study)) if has[study] else text
    for table in ("minilm", "imdb"):
        if table in replayed:
            made[f"evidence regret {table}"] = "\n".join(regret_lines(replayed[table]))
        else:
            made[f"evidence regret {table}"] = not_run(f"The table `{table}`", "minilm_table.py train --factor F")
    made["evidence fresh"] = fresh_text(folder)
    recovered = rows_of(folder / RECOVERY)
    text = not_run("The comparison at more tokens", "minilm_recovery.py run")
    made["evidence recovery"] = "\n".join(recovery_lines(folder)) if recovered else text
    return made


def fresh_text(folder: Path) -> str:
    """How the methods of the fresh seeds rank the children of `imdb` that hold a convolution, calibrated too."""
    file = folder / "ranking-fresh.jsonl.xz"
    if not file.exists():
        return not_run("What addresses position-blind super-nets, with adapted ranking, on fresh seeds", FRESH)
    truth = GroundTruth(load_table("imdb"), containing="conv3")
    scored = read_scores(file, truth)
    told = ["| ranked by | seeds, or draws | tau | within size buckets |", "| --- | ---: | ---: | ---: |"]
    for share in (0.5, 1.0):
        own = [row for row in scored if row["step"] == share * row["max_steps"]]
        rows = list(report(truth, own, num_resamples=_RESAMPLES).methods)
        for number in CALIBRATED:
            rows += report(truth, own, num_resamples=_RESAMPLES, calibrate=number).calibrated
        for one in rows:
            cells = [
                f"{measured.mean:.3f} ± {measured.seed_deviation or 0:.3f}"
                for measured in (one.measured["kendall_tau"], one.measured["bucketed_tau"])
            ]
            told.append(f"| {one.name} | {one.num_rankings} | {' | '.join(cells)} |")
    return "\n".join(told)


def lines(evidence: Evidence, replayed: Mapping[str, Replays]) -> Iterator[str]:
    """What a person reads first: what to do, and what it stands on."""
    for table in ("minilm", "imdb"):
        if table not in replayed:
            yield (
                f"On the table `{table}` nothing can be said yet of what to do with compute: it has "
                f"{len(evidence.truth.names)} children."
            )
            continue
        best = [
            f"with {compute} {'child-training' if compute == 1 else 'child-trainings'}, {name} "
            f"(regret {at.mean:.1f} %)"
            for compute, (name, at) in zip(ASKED, winners(replayed[table], ASKED), strict=True)
        ]
        yield f"**What to do on `{table}`:** {'; '.join(best)}."
    truth = evidence.truth
    twice = len(evidence.again)
    yield (
        f"`minilm` has {len(truth.names)} children, each distilled alone with {evidence.factor} times the pilot's "
        f"tokens, {twice} of them twice; `imdb` has 243, trained from scratch."
    )
    found = ways(evidence, SCREENED)
    trained = [name for name in found if name.endswith(f"({SCREENED})")]
    if not trained:
        yield not_run("Whether a trained super-net ranks better than untrained inheritance", "minilm_ranking.py run")
    else:
        yield from _of_ranking(evidence, found, trained)
    if not rows_of(evidence.folder / RECOVERY):
        yield not_run("Whether the searched child's advantage lasts with more tokens", "minilm_recovery.py run")
    if not (evidence.folder / "ranking-fresh.jsonl.xz").exists():
        yield not_run("Of `imdb`, what addresses position-blind super-nets, with adapted ranking,", FRESH)


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
    reached = [mean_of(evidence, best, measure) for measure in ("tau", "within bands")]
    bar = "reached" if reached[0] >= 0.96 and reached[1] >= 0.88 else "not reached"
    dull = rivals(found, evidence.truth.of(evidence.screened))["best dull baseline"]
    yield (
        f"Among screened children the best super-net, {best.removesuffix(f' ({SCREENED})')}, ranks with a tau of "
        f"{tau(best)} over {seeds} seeds; uniform with {tau(f'uniform ({SCREENED})')}, {UNTRAINED[0]} with "
        f"{tau(UNTRAINED[0])}, {UNTRAINED[1]} with {tau(UNTRAINED[1])}, {dull} with {tau(dull)}. The bar of 0.96 and "
        f"0.88 is {bar}."
    )
    if BOTH in found:
        yield f"The mean of uniform's scores and of those of inherited weights ranks with {tau(BOTH)}."
    order = ["uniform", "magic_t", "magic_a", "magic_at", *(name for name in STUDY if "anchored" in name)]
    told = [f"{name} {mean_of(evidence, f'{name} ({SCREENED})', 'within bands'):.3f}" for name in order
            if f"{name} ({SCREENED})" in found]  # fmt: skip
    yield f"MAGIC's order, by tau within bands: {', '.join(told)}."
    whole = mean_of(evidence, f"uniform ({ALL})", "within bands")
    if not math.isnan(whole):
        yield (f"Screening first: uniform of the whole space ranks the same children with {tau(f'uniform ({ALL})')}.")
    if not CONFIRM.keys() - {"uniform"}:
        yield not_run("The sweep's two best on fresh seeds", "minilm_ranking.py confirm")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    evidence = evidence_of(arguments.records)
    replayed = replays(evidence)
    fill_page(PAGE, sections(evidence, replayed))
    for table, own in replayed.items():
        draw_regret(own, FIGURES / f"regret-{table}", f"Regret of the chosen child, table {table}")


if __name__ == "__main__":
    main()
