"""Searches compared at equal numbers of scored children, in a space whose every child was scored beforehand.

    python benchmarks/search.py landscape --supernet runs/supernet   scores all children of a super-net, once
    python benchmarks/search.py run                                  searches, on the scores alone; no model is needed
    python benchmarks/search.py report                               makes docs/search.md and its figures anew

`--space staged` does the first two for the space of several widths (`--config staged-small`). Killed at any
moment, the same command goes on. Records lie in benchmarks/records.
"""

import argparse
import bisect
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_nasbert import records
from hf_nasbert import searching as room
from hf_nasbert.cards import fill_page
from hf_nasbert.costs import Budget, Cost
from hf_nasbert.searching import GradientBoostedSearch, Search, SearchTask, pareto_front, run_search
from hf_nasbert.space import Architecture, SearchSpace

_LEARN = ("trained_halving", "gradient_mixture")  # of the super-net itself, and not of scores
SEARCHES = {name: search for name, search in room.SEARCHES.items() if name not in _LEARN}
ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
BATCHES = (1, 4)  # dev batches that every child is scored on
SHARES = {"the smallest 10 %": 0.1, "the smallest 25 %": 0.25, "the smallest 50 %": 0.5, "no cap": 1.0}
SPACES = {"chain": list(SHARES), "staged": list(SHARES)[1:]}  # a tenth of the staged one is looked through in no time
SEEDS = range(100, 120)
NUM_EVALUATIONS, BATCH_SIZE = 192, 16
MOMENTS = (48, 96, 192)  # children scored, at which regrets are printed


class Files(NamedTuple):
    """Where the records of a space lie; committed are their compressed copies."""

    landscape: Path
    runs: Path

    @classmethod
    def of(cls, space: str) -> "Files":
        """Those of a space of `SPACES`."""
        suffix = "" if space == "chain" else f"-{space}"
        return cls(RECORDS / f"search-landscape{suffix}.jsonl", RECORDS / f"search{suffix}.jsonl")


def committed(file: Path) -> Path:
    """The compressed copy of a file of records."""
    return file.with_name(file.name + ".gz")


class Landscape(NamedTuple):
    """Every child of a space with its losses and costs."""

    about: dict[str, Any]
    space: SearchSpace
    losses: dict[int, dict[Architecture, float]]
    costs: dict[Architecture, Cost]

    @property
    def truth(self) -> dict[Architecture, float]:
        """The losses on all dev batches."""
        return self.losses[max(self.losses)]

    def score(self, children: Sequence[Architecture], num_batches: int | None = None) -> list[float]:
        """What a search sees."""
        losses = self.losses[num_batches or max(self.losses)]
        return [losses[child] for child in children]

    def cap(self, share: float) -> float:
        """The parameters that a share of all children does not exceed."""
        sizes = sorted(cost["num_parameters"] for cost in self.costs.values())
        return sizes[round(share * len(sizes)) - 1]

    def within(self, cap: float) -> list[Architecture]:
        """The children of at most so many parameters."""
        return [child for child, cost in self.costs.items() if cost["num_parameters"] <= cap]


def score_all(space: str, supernet: str, data_name: str) -> None:
    """Score every child of a super-net on growing numbers of dev batches."""
    from hf_nasbert.data import DataArguments
    from hf_nasbert.pipeline import ProxyScorer
    from hf_nasbert.pipeline.interference import describe_run
    from hf_nasbert.pipeline.scores import ScoringArguments

    arguments = ScoringArguments(supernet=supernet, output="", num_dev_batches=max(BATCHES), dev_batch_size=16)
    scorer = ProxyScorer(arguments, DataArguments(packaged=data_name, max_seq_length=64))
    children = list(scorer.space.enumerate())
    losses = {num: scorer(children, num_batches=num, progress=True) for num in BATCHES}
    about = {"space": scorer.space.to_dict(), "training": describe_run(supernet), **scorer.settings}
    write_landscape(Files.of(space).landscape, about, children, losses, [scorer.cost(child) for child in children])


def write_landscape(
    file: Path,
    about: dict[str, Any],
    children: Sequence[Architecture],
    losses: dict[int, Sequence[float]],
    costs: Sequence[Cost],
) -> None:
    """Write what was scored: a record of what it depends on, then one per child."""
    from hf_nasbert.training.farm import compress_table

    file.unlink(missing_ok=True)
    records.append(file, {"record": "landscape", **about, "versions": records.versions()})
    per_child = zip(children, zip(*losses.values(), strict=True), costs, strict=True)
    records.extend(
        file,
        (
            {
                "architecture": str(child),
                "losses": [round(loss, 5) for loss in on_batches],
                "num_parameters": cost["num_parameters"],
                "flops": cost["flops"],
            }
            for child, on_batches, cost in per_child
        ),
    )
    compress_table(file)


def read_landscape(space: str = "chain") -> Landscape:
    """The landscape as committed."""
    about, *scored = records.read(committed(Files.of(space).landscape))
    children = [Architecture.parse(record["architecture"]) for record in scored]
    pairs = list(zip(children, scored, strict=True))
    return Landscape(
        about,
        SearchSpace.from_dict(about["space"]),
        {num: {child: r["losses"][i] for child, r in pairs} for i, num in enumerate(BATCHES)},
        {child: {"num_parameters": r["num_parameters"], "flops": r["flops"]} for child, r in pairs},
    )


def make(name: str, landscape: Landscape, cap: float, seed: int) -> Search:
    """A search with its defaults, but for the batch: about a twelfth of all evaluations."""
    further: dict[str, Any] = {"total_batches": max(BATCHES)} if name == "halving" else {}
    task = SearchTask(
        landscape.space,
        seed=seed,
        cost=landscape.costs.__getitem__,
        budget=Budget(max_parameters=cap),
        batch_size=BATCH_SIZE,
    )
    return SEARCHES[name](task, **further)


def traced(search: Search, score: Callable[..., list[float]]) -> list[list[float]]:
    """Run a search; every improvement as (children scored until then, loss)."""
    trace: list[list[float]] = []

    def watched(children: Sequence[Architecture], num_batches: int | None = None) -> list[float]:
        losses = score(children, num_batches)
        for place, loss in enumerate(losses, start=1):
            if num_batches is None and (not trace or loss < trace[-1][1]):
                trace.append([search.num_evaluations + place, loss])
        return losses

    run_search(search, watched, num_evaluations=NUM_EVALUATIONS)
    return trace


def area(points: Sequence[tuple[float, float]], corner: tuple[float, float]) -> float:
    """The area between a front of (loss, size) and a corner that is worse than all of it."""
    total, edge = 0.0, corner[1]
    for loss, size in sorted(points[place] for place in pareto_front(points)):
        total += max(0.0, edge - size) * max(0.0, corner[0] - loss)
        edge = min(edge, size)
    return total


def run(space: str, names: Sequence[str]) -> None:
    """Search with every search, budget and seed that the records lack."""
    import optuna

    from hf_nasbert.training.farm import compress_table

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    landscape, file = read_landscape(space), Files.of(space).runs
    found = records.read(file) if file.exists() else []
    done = {(record["budget"], record["search"], record["seed"]) for record in found}
    for budget in SPACES[space]:
        cap = landscape.cap(SHARES[budget])
        points = {
            child: (landscape.truth[child], landscape.costs[child]["num_parameters"])
            for child in landscape.within(cap)
        }
        corner = (max(loss for loss, _ in points.values()), max(size for _, size in points.values()) + 1)
        ranked = sorted(loss for loss, _ in points.values())
        whole = area(list(points.values()), corner)
        for name in names:
            for seed in SEEDS:
                if (budget, name, seed) in done:
                    continue
                search = make(name, landscape, cap, seed)
                trace = traced(search, landscape.score)
                seen = [points[scored.architecture] for scored in search.history]
                records.append(
                    file,
                    {
                        "budget": budget,
                        "cap": cap,
                        "num_affordable": len(points),
                        "search": name,
                        "seed": seed,
                        "num_evaluations": round(search.num_evaluations, 4),
                        "optimum": ranked[0],
                        "trace": trace,
                        "rank": bisect.bisect_left(ranked, trace[-1][1]) + 1,
                        "front_share": round(area(seen, corner) / whole, 5),
                        "settings": {k: v for k, v in search.settings.items() if k not in ("space", "seed", "budget")},
                    },
                )
            print(budget, name, flush=True)
    compress_table(file)


def tables(space: str, searched: Sequence[records.Record], landscape: Landscape) -> dict[str, str]:
    """The page's tables of a space, from the records."""
    suffix = "" if space == "chain" else f" {space}"
    found = {
        f"landscape{suffix}": "\n".join(_landscape_rows(landscape)),
        f"regret{suffix}": "\n".join(_regret_rows(searched)),
    }
    return found | {"operators": _operator_report(landscape)} if space == "chain" else found


def _landscape_rows(landscape: Landscape) -> Iterator[str]:
    truth = landscape.truth
    children = list(truth)
    losses = [truth[child] for child in children]
    sizes = [landscape.costs[child]["num_parameters"] for child in children]
    best = min(children, key=truth.__getitem__)
    yield "| | |"
    yield "| --- | --- |"
    yield f"| children | {len(children):,} |"
    yield f"| super-net | {landscape.about['training']['method']}, {landscape.about['training']['step']:,} steps |"
    yield f"| losses | {min(losses):.4f} to {max(losses):.4f}, standard deviation {statistics.pstdev(losses):.4f} |"
    yield f"| parameters | {min(sizes):,} to {max(sizes):,} |"
    yield f"| correlation of loss with parameters | {statistics.correlation(losses, sizes):+.2f} |"
    for num in BATCHES[:-1]:
        few = [landscape.losses[num][child] for child in children]
        name = f"{num} of {max(BATCHES)} dev batches"
        yield f"| correlation of losses on {name} with those on all | {statistics.correlation(few, losses):.3f} |"
    yield f"| best child | `{best}` |"


def _regret_rows(searched: Sequence[records.Record]) -> Iterator[str]:
    from hf_nasbert.plots.search import regret_at

    moments = " | ".join(f"regret at {moment}" for moment in MOMENTS)
    yield f"| budget | search | {moments} | rank at {MOMENTS[-1]} | optimum found | share of the front |"
    yield "| --- | --- |" + " ---: |" * (len(MOMENTS) + 3)
    for budget in dict.fromkeys(record["budget"] for record in searched):
        of_budget = [record for record in searched if record["budget"] == budget]
        first = of_budget[0]
        title = f"{budget}: {first['num_affordable']:,} children"
        rows = {name: [r for r in of_budget if r["search"] == name] for name in SEARCHES}
        rows = {name: runs for name, runs in rows.items() if runs}
        regrets = {name: [[1000 * regret_at(r, m) for r in runs] for m in MOMENTS] for name, runs in rows.items()}
        for name in sorted(rows, key=lambda name: [statistics.fmean(at) for at in reversed(regrets[name])]):
            runs = rows[name]
            cells = " | ".join(f"{statistics.fmean(at):.2f} ± {statistics.stdev(at):.2f}" for at in regrets[name])
            num_found = sum(run["rank"] == 1 for run in runs)
            rank, front = (statistics.fmean(run[key] for run in runs) for key in ("rank", "front_share"))
            yield f"| {title} | {name} | {cells} | {rank:.1f} | {num_found} of {len(runs)} | {100 * front:.1f} % |"


def _operator_report(landscape: Landscape) -> str:
    """What trees fitted to every child's loss say of the operators."""
    search = GradientBoostedSearch(SearchTask(landscape.space, seed=0))
    search.tell(list(landscape.truth), list(landscape.truth.values()))
    return search.operator_report()


def report() -> None:
    """Make the page and its figures anew."""
    from hf_nasbert.plots import plot_regret, save_figure

    made: dict[str, str] = {}
    for space in SPACES:
        files = Files.of(space)
        searched = records.read(committed(files.runs))
        made |= tables(space, searched, read_landscape(space))
        _, svg = save_figure(plot_regret(searched), ROOT / "docs" / "figures" / figure_name(space))
        svg.unlink()  # thousands of lines, which the page does not need
    made["latency"] = latency_table(records.read(RECORDS / "latency.jsonl.gz"))
    fill_page(ROOT / "docs" / "search.md", made)


def figure_name(space: str) -> str:
    """What the regret of a space is drawn into, without a suffix."""
    return Files.of(space).runs.stem.replace("search", "search-regret")


def latency_table(found: Sequence[records.Record]) -> str:
    """How far latency tables and memory estimates are from real children."""
    lines = [
        "| space | latency: error | Spearman | halves of the measurements: error | Spearman | peak memory: error |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for start in range(0, len(found), 3):
        _, latency, memory = found[start : start + 3]
        lines.append(
            f"| {latency['space']} | {latency['mape_percent']:.1f} % | {latency['spearman']:.3f} "
            f"| {latency['repeat_mape_percent']:.1f} % | {latency['repeat_spearman']:.3f} "
            f"| {memory['mape_percent']:.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["landscape", "run", "report"])
    parser.add_argument("--space", choices=list(SPACES), default="chain")
    parser.add_argument("--supernet", help="Folder of the super-net whose children are scored.")
    parser.add_argument("--packaged", default="imdb", help="The text that it was trained on.")
    parser.add_argument("--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    arguments = parser.parse_args()
    if arguments.command == "landscape":
        if arguments.supernet is None:
            parser.error("name the super-net (--supernet)")
        score_all(arguments.space, arguments.supernet, arguments.packaged)
    elif arguments.command == "run":
        run(arguments.space, arguments.searches)
    else:
        report()


if __name__ == "__main__":
    main()
