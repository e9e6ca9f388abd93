"""`gradient_mixture` against random search and evolution at equal forward passes, where every child was scored.

    hf-nasbert run --config quickstart-scratch --output_dir runs/quickstart-scratch
    python benchmarks/mixture.py learn --run runs/quickstart-scratch   # the mixture, on that super-net as it is
    python benchmarks/mixture.py run                                   # searches, on the recorded losses alone
    python benchmarks/mixture.py report                                # makes the table of docs/search.md anew

A pass is that of one child over one dev batch, a backward counting two. What the mixture's steps take is off the
children that `gradient_mixture` may score. Records lie in benchmarks/records.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hf_nasbert import metrics, records
from hf_nasbert.cards import fill_page
from hf_nasbert.costs import Budget
from hf_nasbert.searching import SEARCHES, SearchTask, run_search
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.writing import write_text

ROOT = Path(__file__).parents[1]
LANDSCAPE = ROOT / "benchmarks" / "records" / "mixture-landscape.jsonl"
RUNS = ROOT / "benchmarks" / "records" / "mixture.json"
NAMES = ("random", "evolution", "gradient_mixture")
SHARES = {"the smallest 25 %": 0.25, "no cap": 1.0}
SEEDS = range(20)
NUM_EVALUATIONS = 400  # children's worth of passes


def learn(run: Path) -> None:
    """Let the mixture of a run's super-net learn, and record it with the losses of all its children."""
    from hf_nasbert.data import DataArguments
    from hf_nasbert.pipeline import ProxyScorer
    from hf_nasbert.pipeline.interference import describe_run
    from hf_nasbert.pipeline.mixture import Mixture
    from hf_nasbert.pipeline.scores import ScoringArguments
    from hf_nasbert.training.farm import compress_table

    head, *scored = records.read(run / "scores.jsonl")
    about = head["settings"]["about"]
    sizes = {name: about[name] for name in ("num_dev_batches", "dev_batch_size")}
    supernet = str(run / "supernet")
    data = DataArguments(packaged=about["text"], max_seq_length=about["max_seq_length"])
    scorer = ProxyScorer(ScoringArguments(supernet=supernet, output="", **sizes), data)
    if scorer.settings != about:
        raise ValueError(f"the scores of {run} are of {about}, and its super-net has {scorer.settings}")
    mixture, search = Mixture(scorer.supernet, scorer.space), SEARCHES["gradient_mixture"]
    steps, rate = search.mixture_steps, search.mixture_rate
    learnt = {
        "logits": mixture.learn(scorer._batches, steps, rate),
        "passes": steps * mixture.passes,
        "mixture_steps": steps,
        "mixture_rate": rate,
    }
    LANDSCAPE.unlink(missing_ok=True)
    training = {"space": scorer.space.to_dict(), "training": describe_run(supernet)}
    records.append(LANDSCAPE, {**training, **about, "mixture": learnt, "versions": records.versions()})
    records.extend(
        LANDSCAPE,
        (
            {
                "architecture": child["architecture"],
                "loss": round(child["proxy_loss"], 5),
                "num_parameters": child["cost"]["num_parameters"],
            }
            for child in scored
        ),
    )
    compress_table(LANDSCAPE)


@cache
def read_landscape() -> tuple[dict[str, Any], dict[Architecture, float], dict[Architecture, dict[str, float]]]:
    """What the committed losses are of; of every child the loss, and its cost."""
    about, *scored = records.read(LANDSCAPE.with_name(LANDSCAPE.name + ".gz"))
    children = [Architecture.parse(one["architecture"]) for one in scored]
    costs = [{"num_parameters": one["num_parameters"]} for one in scored]
    return (
        about,
        dict(zip(children, (one["loss"] for one in scored), strict=True)),
        dict(zip(children, costs, strict=True)),
    )


def search_once(name: str, share: float, seed: int) -> dict[str, Any]:
    """One search under a budget: how many children it scored, and the rank and regret of the best."""
    about, losses, costs = read_landscape()
    sizes = sorted(cost["num_parameters"] for cost in costs.values())
    cap = sizes[round(share * len(sizes)) - 1]
    task = SearchTask(
        SearchSpace.from_dict(about["space"]),
        seed=seed,
        cost=costs.__getitem__,
        budget=Budget(max_parameters=cap),
        batch_size=16,
    )
    learnt = about["mixture"]
    is_mixture = name == "gradient_mixture"
    search = SEARCHES[name](task, **({"logits": learnt["logits"]} if is_mixture else {}))
    spent = round(learnt["passes"] / about["num_dev_batches"]) if is_mixture else 0
    number = NUM_EVALUATIONS - spent
    best = run_search(search, lambda children: [losses[child] for child in children], num_evaluations=number)[0].score
    affordable = sorted(loss for child, loss in losses.items() if costs[child]["num_parameters"] <= cap)
    return {
        "search": name,
        "seed": seed,
        "children_scored": number,
        "affordable": len(affordable),
        "rank": affordable.index(best) + 1,
        "regret": round(best - affordable[0], 5),
    }


def agreement() -> dict[str, float]:
    """How the mixture's probabilities order all children, and where its likeliest one stands."""
    about, losses, _ = read_landscape()
    logits = about["mixture"]["logits"]
    likely = [sum(of[name] for of, name in zip(logits, child, strict=True)) for child in losses]
    values = list(losses.values())
    first = values[likely.index(max(likely))]
    return {
        "tau": round(metrics.kendall_tau([-one for one in likely], values), 3),
        "rank_of_the_likeliest": sorted(values).index(first) + 1,
        "children": len(values),
    }


def run() -> None:
    """Every search under every budget and seed."""
    found = {
        budget: [search_once(name, share, seed) for name in NAMES for seed in SEEDS]
        for budget, share in SHARES.items()
    }
    write_text(RUNS, json.dumps({"mixture": agreement(), "runs": found}) + "\n")


def rows(runs: dict[str, Sequence[dict[str, Any]]]) -> Iterator[str]:
    """The table of the page."""
    yield "| budget | search | children scored | regret | rank | optimum found |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for budget, of_budget in runs.items():
        for name in NAMES:
            of_name = [one for one in of_budget if one["search"] == name]
            regrets = [1000 * one["regret"] for one in of_name]
            ranks = statistics.fmean(one["rank"] for one in of_name)
            title = f"{budget}: {of_name[0]['affordable']:,} children"
            yield (
                f"| {title} | {name} | {of_name[0]['children_scored']} "
                f"| {statistics.fmean(regrets):.2f} ± {statistics.stdev(regrets):.2f} | {ranks:.1f} "
                f"| {sum(one['rank'] == 1 for one in of_name)} of {len(of_name)} |"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["learn", "run", "report"])
    parser.add_argument("--run", type=Path, help="folder of the quickstart from scratch")
    arguments = parser.parse_args()
    if arguments.command == "learn":
        if arguments.run is None:
            parser.error("name the run (--run)")
        learn(arguments.run)
    elif arguments.command == "run":
        run()
    else:
        found = json.loads(RUNS.read_text(encoding="utf-8"))
        fill_page(ROOT / "docs" / "search.md", {"mixture": "\n".join(rows(found["runs"]))})


if __name__ == "__main__":
    main()
