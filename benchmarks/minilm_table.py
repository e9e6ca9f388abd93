"""The ground-truth table `minilm`: children of MiniLM-L6, each distilled alone from inherited weights, on the farm.

    python benchmarks/minilm_table.py plan                          CPU-hours of every command below; runs nothing
    python benchmarks/minilm_table.py design                        base model's states, variants, and the children
    python benchmarks/minilm_table.py train --factor 1 --pilot      30 children; likewise with --factor 4 and 16
    python benchmarks/minilm_table.py pilot                         how the order changes with the tokens
    python benchmarks/minilm_table.py train --factor F              all children with F times the tokens
    python benchmarks/minilm_table.py rank --factor F               scores them by what `compress` ranks children by
    python benchmarks/minilm_table.py report --factor F             how well that ranks them, from the records alone
    python benchmarks/minilm_table.py card --factor F               makes it the package's `minilm`, with its card

Killed at any moment, the same command goes on: a child in hand is lost, none is doubled. The design, and in it which
children have a second seed or are the pilot's, is a file of the records, written before any child is trained. Text and
pairs come out of pinned packages (data/data-requirements.txt).

The rule of the choice, written down before the pilot was run: the fewest tokens by which the pilot's children stand in
an order that agrees with that at 16 times the tokens to a tau of 0.9 over all of them and 0.8 within bands (mean over
bands); if there are none, 16 times.

Three parts of the text, of different documents: children are trained on `train`; lone replacements, which the design
heeds, inherited weights and learning curves are judged on `choosing`; the table's losses are those on `judging`, which
chooses nothing.
"""

import argparse
import dataclasses
import json
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from minilm_children import (
    DESIGN,
    RECORDS,
    ROOT,
    SOURCE,
    WORK,
    Prepared,
    Settings,
    by_counts,
    losses_of,
    pairs_of,
    prepare,
    rows_of,
    table_of,
    taus,
    texts,
)

from hf_nasbert.cards import TableFacts, render_table_card
from hf_nasbert.compression.replace_one import as_items, replace_one, screened, sum_of
from hf_nasbert.compression.results import additivity_lines
from hf_nasbert.compression.stages import Additive
from hf_nasbert.data.packaged import PACKAGED_MODELS, PACKAGED_SOURCES
from hf_nasbert.elastic.batches import num_tokens
from hf_nasbert.foreign import read_object
from hf_nasbert.kept import Kept, write_json
from hf_nasbert.metrics import Interval
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.ranking import GroundTruth, load_table
from hf_nasbert.records import Record, versions
from hf_nasbert.searching import OperatorRidge
from hf_nasbert.searching.knapsack import best_choices
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.training.farm import Job, compress_table, read_table, restore_table, run_farm
from hf_nasbert.writing import write_bytes, write_text

NAME = "minilm"  # in the package
TABLES, CARDS = ROOT / "src" / "hf_nasbert" / "tables", ROOT / "model_cards"
FACTORS = (1, 4, 16)
SOURCES = (*(PACKAGED_SOURCES[name] for name in ("boolq-wikipedia", "imdb", "stsb")), *PACKAGED_MODELS.values())
"""What the table is made of."""
KINDS = ("near", "screened", "whole")
"""Where children come from: near knapsack solutions, the screened space, the whole space."""
_AGREES, _AGREES_WITHIN = 0.9, 0.8  # with the order at most tokens
_MOST_TRIES = 50_000
_SOLUTIONS = 8  # of a knapsack, of which neighbours are taken
_FITTED = 30  # children that a fitted scorer may see
_DRAWN = 100  # children of each space that say how well lone replacements add up
_ADDITIVITY = "additivity"
SUPERNETS = (("uniform", 0), ("uniform", 1), ("magic_t", 0))
"""Methods and seeds of the super-nets that rank; the first is what `compress --scorer supernet` trains."""


def draw_children(prepared: Prepared) -> list[Record]:
    """The children of the table, band by band in turn, kinds in turn: a record each, with its share and its kind."""
    made, trainer = prepared.materials, prepared.trainer
    settings, full = trainer.settings, made.supernet.largest_architecture
    sizes, rng = trainer.sizes, random.Random(settings.seed)

    def share(child: Sequence[str]) -> float:
        return sum(sizes[block][name] for block, name in enumerate(child)) / whole

    whole = sum(sizes[block][name] for block, name in enumerate(full))
    fewest = -(-settings.num_children // len(KINDS))
    items, fixed = as_items(made.table, full, made.cost, {})
    by_band: list[list[Record]] = []
    for band in settings.bands:
        cap = {"num_parameters": (band + settings.tolerance) * whole}
        solutions = [
            one.architecture for one in best_choices(items, len(full), cap, fixed=fixed, num_choices=_SOLUTIONS)
        ]
        found: dict[Architecture, tuple[str, float | None]] = {}
        of_kind: dict[str, list[Architecture]] = {}
        for kind in KINDS:
            own = of_kind.setdefault(kind, [])
            for limit in (None,) if kind == "whole" else settings.limits:
                space = made.space if limit is None else screened(made.space, made.table, full, limit)
                for tries in range(_MOST_TRIES):
                    if len(own) == fewest:
                        break
                    if kind == "near":
                        child = solutions[tries] if tries < len(solutions) else _neighbour(solutions, space, rng)
                    else:
                        child = space.sample(rng)
                    if child not in found and abs(share(child) - band) <= settings.tolerance:
                        found[child] = kind, limit
                        own.append(child)
        turns = [own[place] for place in range(fewest) for own in of_kind.values() if place < len(own)]
        if len(turns) < settings.num_children:
            raise ValueError(f"the band {band} has {len(turns)} of {settings.num_children} children: widen tolerance")
        by_band.append(
            [
                dict(zip(("architecture", "band", "kind", "limit", "share"), row, strict=True))
                for child in turns[: settings.num_children]
                for row in [(str(child), band, *found[child], round(share(child), 4))]
            ]
        )
    return [one for ones in zip(*by_band, strict=True) for one in ones]


def _neighbour(known: Sequence[Architecture], space: SearchSpace, rng: random.Random) -> Architecture:
    """A solution with one to three of its blocks changed, within a space."""
    child = list(rng.choice(known))
    for block in rng.sample(range(len(child)), rng.choice((1, 2, 2, 3))):
        child[block] = rng.choice(list(space.blocks[block]))
    return Architecture(child)


def make_design(prepared: Prepared, path: Path) -> Record:
    """Write down which children are trained how often, or read it: what is written is never drawn anew.

    Raises:
        ValueError: If the file is of other settings.
    """
    asked = json.loads(json.dumps(dataclasses.asdict(prepared.trainer.settings)))
    if not path.exists():
        settings, made = prepared.trainer.settings, prepared.materials
        children, bands = draw_children(prepared), len(settings.bands)
        for place, child in enumerate(children):
            child["is_pilot"] = place < bands * settings.num_pilot
            child["num_seeds"] = 2 if place < bands * settings.num_repeated else 1
        blocks = [list(names) for names in made.screened_space.blocks]
        write_json(path, {"settings": asked, "screened": blocks, "factors": list(FACTORS), "children": children})
    design = read_object(path)
    if design["settings"] != asked:
        raise ValueError(f"{path} is of other settings: name another file, or go back to them")
    return design


def jobs_of(design: Record, *, is_pilot: bool = False) -> list[Job]:
    """What to train: the pilot, second seeds, the rest, so that a table that is not finished is of use."""
    children = [(Architecture.parse(one["architecture"]), one) for one in design["children"]]
    if is_pilot:
        return [Job(child, 0) for child, one in children if one["is_pilot"]]
    repeated = [(child, one) for child, one in children if one["num_seeds"] > 1]
    return [
        *(Job(child, 0) for child, _ in repeated),
        *(Job(child, seed) for child, one in repeated for seed in range(1, one["num_seeds"])),
        *(Job(child, 0) for child, one in children if one["num_seeds"] == 1),
    ]


def train(prepared: Prepared, design: Record, folder: Path, *, is_pilot: bool, num_workers: int) -> dict[Job, Record]:
    """Train what the records lack, with a bar; compressed beside themselves at the end."""
    trainer = prepared.trainer
    path = table_of(trainer.factor, folder)
    restore_table(path, trainer.recipe_hash, trainer.space)
    table = run_farm(trainer, jobs_of(design, is_pilot=is_pilot), path, num_workers=num_workers, progress=True)
    compress_table(path)
    return table


# Orders


def pilot_taus(design: Record, folder: Path) -> dict[int, tuple[float, float]]:
    """How the order of the pilot's children agrees with that at most tokens, over all and within bands, by factor.

    Raises:
        ValueError: If the pilot's children are not all trained.
    """
    names = {one["architecture"] for one in design["children"] if one["is_pilot"]}
    found = {factor: losses_of(table_of(factor, folder)) for factor in FACTORS}
    missing = [factor for factor, own in found.items() if not names <= own.keys()]
    if missing:
        raise ValueError(f"the pilot's children are not all trained with {missing} times the tokens: train them first")
    last = {name: found[FACTORS[-1]][name] for name in names}

    def agreement(factor: int) -> tuple[float, float]:
        overall, within = taus(design, found[factor], last)
        return overall.estimate, within.estimate

    return {factor: agreement(factor) for factor in FACTORS}


def chosen_factor(design: Record, folder: Path) -> int:
    """How many times the tokens, by the rule.

    Raises:
        ValueError: See `pilot_taus`.
    """
    agree = pilot_taus(design, folder).items()
    kept = [factor for factor, (overall, within) in agree if overall >= _AGREES and within >= _AGREES_WITHIN]
    return min(kept, default=FACTORS[-1])


def pilot_lines(design: Record, folder: Path) -> Iterator[str]:
    """How the order of the pilot's children changes with the tokens, and what follows by the rule."""
    agree = pilot_taus(design, folder)
    yield f"| tokens | tau with {FACTORS[-1]} times | within bands | second seed, tau |"
    yield "|---|---|---|---|"
    for factor, (overall, within) in reversed(agree.items()):
        own, again = (losses_of(table_of(factor, folder), seed=seed) for seed in range(2))
        twice = f"{taus(design, again, own)[0].estimate:.3f}" if len(again) > 2 else ""
        yield f"| {factor} | {overall:.3f} | {within:.3f} | {twice} |"
    yield f"By the rule: {chosen_factor(design, folder)} times the tokens."


# The package's table


def facts_of(design: Record, folder: Path) -> TableFacts:
    """What the card of the packaged table says that its rows do not: from the design, the pilot and the sources.

    Raises:
        ValueError: If the pilot's children, or none of the chosen table, are trained.
    """
    settings, factor = design["settings"], chosen_factor(design, folder)
    rows = rows_of(table_of(factor, folder))
    if not rows:
        raise ValueError(f"there are no records at {table_of(factor, folder)}: train the children first")
    kinds, bands = (
        Counter(one["kind"] for one in design["children"]),
        [f"{100 * share:g} %" for share in settings["bands"]],
    )
    num_pilot = sum(one["is_pilot"] for one in design["children"])
    overall, within = pilot_taus(design, folder)[factor]
    first = rows[0]
    judged = first["passes"] - 3 * first["recipe"]["max_steps"]  # in training batches
    seconds = statistics.fmean(row["timing"]["cpu_seconds"] for row in rows)
    return TableFacts(
        license="apache-2.0",  # of the numbers: no text is among them
        language="en",
        text=(
            *(f"{source.licence.partition('; ')[2]};" for source in SOURCES),  # of the contents, not of their package
            "the table holds numbers and names of operators, no text of theirs",
        ),
        num_dev_sequences=round(judged * settings["batch_size"]),
        drawn=f"The children have around {', '.join(bands)} of the parameters of the base model's choice blocks, "
        f"within {100 * settings['tolerance']:g} points, {settings['num_children']} each. Of all, {kinds['near']} are "
        "near the best sums of lone replacements (the base model with one block replaced) that a knapsack finds for "
        f"the size; {kinds['screened']} are random ones without the replacements that cost most alone; "
        f"{kinds['whole']} are random ones of the whole space. They were drawn before any was trained. Each begins "
        "with weights of the base model, cut to size and refitted in closed form.",
        limits=(
            f"A training is short: {seconds:.0f} CPU-seconds on average. The order of {num_pilot} children, a pilot, "
            f"agrees with their order after {FACTORS[-1] // factor} times the steps to a Kendall's tau of "
            f"{overall:.2f} over all, and of {within:.2f} within the {len(bands)} sizes.",
            f"{kinds['near']} of {len(design['children'])} children are near the best sums of lone replacements. That "
            "favours such sums, and what follows them, where the best child is looked for; a better one far from "
            f"these may be missing. Other sizes than the {len(bands)} are not covered.",
        ),
    )


def package(design: Record, factor: int, folder: Path, *, tables: Path = TABLES, cards: Path = CARDS) -> None:
    """Make the children of the records the package's table `minilm`: its rows, what is known beside them, its card.

    Raises:
        ValueError: If the pilot's rule chose another factor, or see `facts_of`.
    """
    chosen = chosen_factor(design, folder)
    if factor != chosen:
        raise ValueError(f"by the pilot's rule the table has {chosen} times the tokens: give --factor {chosen}")
    facts = facts_of(design, folder)
    rows = table_of(factor, folder)
    table = tables / f"table-{NAME}.jsonl.gz"
    write_bytes(table, rows.with_name(f"{rows.name}.gz").read_bytes())
    said = {name: value for name, value in dataclasses.asdict(facts).items() if value}
    write_json(table.with_name(f"table-{NAME}.json"), said)
    card = render_table_card(NAME, GroundTruth(load_table(str(table))), facts=facts, is_packaged=True)
    write_text(cards / f"table-{NAME}.md", card)


# Scores


def ranks_of(factor: int, folder: Path) -> Path:
    """The file of what scores the children that were given so many times the tokens."""
    return folder / f"ranks-minilm-x{factor}.json"


def score(prepared: Prepared, design: Record, folder: Path, *, num_drawn: int = _DRAWN) -> None:
    """Score the table's children by each way of `compress`, and write that down with its CPU-seconds, one by one.

    What all ways stand on, the base model's states and the refitted variants, is not counted. A super-net ranks the
    children of the screened space alone, which it was trained with. The sums of lone replacements are held against
    the distances of `num_drawn` random children as well.

    Raises:
        ValueError: If no children are trained, or the file is of others: delete it to score anew.
    """
    made, trainer = prepared.materials, prepared.trainer
    path = table_of(trainer.factor, folder)
    restore_table(path, trainer.recipe_hash, trainer.space)
    trained = {job.architecture for job in read_table(path, trainer.recipe_hash, trainer.space) if job.seed == 0}
    children = [child for one in design["children"] if (child := Architecture.parse(one["architecture"])) in trained]
    if len(children) < 2:
        raise ValueError(f"{path} has {len(children)} children: train those of the pilot at least")
    screened_space = made.screened_space
    asked = {
        "children": list(map(str, children)),
        "recipe_hash": trainer.recipe_hash,
        "screened": [list(names) for names in screened_space.blocks],
    }
    kept = Kept(ranks_of(trainer.factor, folder), asked)

    def keep(name: str, make: Callable[[], Record]) -> None:
        def timed() -> Record:
            start = time.process_time()
            found = make()
            return {"cpu_seconds": round(time.process_time() - start, 1)} | found | {"versions": versions()}

        kept.get(name, timed)

    def by_sums() -> Record:
        table = replace_one(made.supernet, *made.replacing, made.distance, progress=True)  # anew, for its time
        return {"scores": {str(child): sum_of(table, child) for child in children}}

    def by_weights(supernet: SupernetPreTrainedModel, of: Sequence[Architecture]) -> Record:
        return {"scores": dict(zip(map(str, of), made.scorer_of(supernet)(of), strict=True))}

    def by_supernet(method: str, seed: int) -> Record:
        supernet, done = made.distilled(method, seed)
        settings = {"method": method, "seed": seed, "num_steps": made.arguments.supernet_steps}
        within = [child for child in children if screened_space.why_not(child) is None]
        return by_weights(supernet, within) | {"supernet": settings | dataclasses.asdict(done)}

    keep("replace-one sums", by_sums)
    keep("inherited weights", lambda: by_weights(made.supernet, children))
    for method, seed in SUPERNETS:
        keep(f"super-net, {method}, seed {seed}", partial(by_supernet, method, seed))
    if num_drawn:
        keep(_ADDITIVITY, lambda: dataclasses.asdict(made.additive(num_drawn)))


def report_lines(design: Record, factor: int, folder: Path) -> Iterator[str]:
    """How well each way ranks a table's children, from the records alone."""
    ranked = read_object(ranks_of(factor, folder))
    made, scored = ranked["made"], set(ranked["asked"]["children"])  # the table may have grown since
    trained = [row for row in rows_of(table_of(factor, folder)) if row["architecture"] in scored]
    rows = [row for row in trained if row["seed"] == 0]
    truth = {row["architecture"]: row["dev_loss"] for row in rows}
    seconds = {row["architecture"]: row["timing"]["cpu_seconds"] for row in rows}
    ways: dict[str, tuple[float, dict[str, float]]] = {
        "parameters": (0.0, {row["architecture"]: -row["num_encoder_parameters"] for row in rows})
    }
    ways |= {name: (one["cpu_seconds"], one["scores"]) for name, one in made.items() if name != _ADDITIVITY}
    # In the order of the design: those of the pilot, of all bands and kinds alike, are what is fitted to.
    children = [Architecture.parse(one["architecture"]) for one in design["children"] if one["architecture"] in truth]
    fitted = children[: min(_FITTED, len(children) // 2)]
    others, losses = children[len(fitted) :], [truth[str(child)] for child in fitted]
    taken, space = sum(seconds[str(child)] for child in fitted), SearchSpace.from_dict(rows[0]["recipe"]["space"])
    additive = OperatorRidge(space.blocks).fit(fitted, losses).predict(others)
    ways[f"additive, fitted on {len(fitted)}"] = taken, dict(zip(map(str, others), additive, strict=True))
    ways[f"operator counts, fitted on {len(fitted)}"] = taken, by_counts(fitted, losses, others)
    again = {row["architecture"]: row for row in trained if row["seed"] == 1}
    if len(again) > 2:
        taken = sum(row["timing"]["cpu_seconds"] for row in again.values())
        ways["another training (second seed)"] = taken, {name: row["dev_loss"] for name, row in again.items()}
    blocks = [",".join(names) for names in ranked["asked"]["screened"]]
    space_of_supernets = SearchSpace.of_blocks(blocks, skip="anywhere")
    within = {name: loss for name, loss in truth.items() if space_of_supernets.why_not(name) is None}
    yield "| ranked by | CPU-s | children | tau | within bands | of the screened space | tau | within bands |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, (taken, own) in ways.items():
        is_of_screened = "supernet" in made.get(name, {})
        cells = [name, f"{taken:.0f}", *(("", "", "") if is_of_screened else _tau_cells(design, own, truth))]
        yield f"| {' | '.join([*cells, *_tau_cells(design, own, within)])} |"
    if _ADDITIVITY in made:
        yield ""
        yield from (f"- {line}" for line in additivity_lines(Additive(made[_ADDITIVITY]["spaces"])))


def _tau_cells(design: Record, scores: Mapping[str, float], truth: Mapping[str, float]) -> list[str]:
    """How many children both know, their tau and that within bands."""

    def cell(one: Interval) -> str:
        return "" if math.isnan(one.estimate) else f"{one.estimate:.2f} ({one.low:.2f} to {one.high:.2f})"

    return [str(len(scores.keys() & truth.keys())), *map(cell, taus(design, scores, truth))]


# Costs


CPU_SECONDS_PREPARED = 600.0
CPU_SECONDS_OF_STEP, CPU_SECONDS_JUDGED = 0.23, 4.5
"""Means of three children, one of a band, on one thread without bfloat16; records say better once there are some."""
CPU_SECONDS_OF_WAYS, CPU_SECONDS_SCORED = 450.0, 0.35
"""What `rank` takes: super-nets, sums and random children, and a child's score by each set of weights."""


def plan_lines(settings: Settings, folder: Path) -> Iterator[str]:
    """CPU-hours of every part: by the records where there are some, else by what was measured before."""
    bands = len(settings.bands)
    numbers = {
        "the pilot": bands * settings.num_pilot,
        "all children and second seeds": bands * (settings.num_children + settings.num_repeated),
    }
    yield f"design: {CPU_SECONDS_PREPARED / 3600:.1f} CPU-hours, once"
    for factor in FACTORS:
        known = [one["timing"]["cpu_seconds"] for one in rows_of(table_of(factor, folder))]
        seconds = factor * settings.num_steps * CPU_SECONDS_OF_STEP + CPU_SECONDS_JUDGED
        how = "foretold"
        if known:
            seconds, how = statistics.fmean(known), f"by {len(known)} children on record"
        parts = ", ".join(f"{what} ({number}) {number * seconds / 3600:.1f}" for what, number in numbers.items())
        yield f"factor {factor}: {seconds:.0f} CPU-s a child ({how}); CPU-hours: {parts}"
    for what, number in (("the pilot", settings.num_pilot), ("all children", settings.num_children)):
        scored = bands * number * (1 + len(SUPERNETS)) * CPU_SECONDS_SCORED
        yield f"rank, {what}: {(CPU_SECONDS_OF_WAYS + scored) / 3600:.1f} CPU-hours, for each factor"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "design", "train", "pilot", "rank", "report", "card"])
    parser.add_argument("--plan", action="store_true", help="Print the cost only.")
    parser.add_argument("--factor", type=int, default=1, choices=FACTORS, help="Times the tokens.")
    parser.add_argument("--pilot", action="store_true", help="Of train: the pilot's children only.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    settings, design_file = Settings(), arguments.records / DESIGN
    torch.set_num_threads(1)
    if arguments.command == "report":
        print("\n".join(report_lines(read_object(design_file), arguments.factor, arguments.records)))
        return
    if arguments.command == "card":
        package(read_object(design_file), arguments.factor, arguments.records)
        return
    for line in plan_lines(settings, arguments.records):
        print(line, flush=True)
    if arguments.plan or arguments.command == "plan":
        return
    if arguments.command == "pilot":
        print("\n".join(pilot_lines(read_object(design_file), arguments.records)))
        return
    prepared = prepare(settings, arguments.work, texts(), pairs_of(settings), SOURCE, arguments.factor)
    if arguments.command == "design":
        design = make_design(prepared, design_file)
        kinds = Counter((one["band"], one["kind"]) for one in design["children"])
        tokens = num_tokens(prepared.materials.text.train)
        print(f"{design_file}: {len(design['children'])} children {dict(kinds)}; {tokens:,} tokens to train on")
        return
    if not design_file.exists():
        parser.error(f"there is no {design_file}: call design first, and commit what it writes")
    design = make_design(prepared, design_file)
    if arguments.command == "train":
        train(prepared, design, arguments.records, is_pilot=arguments.pilot, num_workers=arguments.workers)
    else:
        score(prepared, design, arguments.records)
        print("\n".join(report_lines(design, arguments.factor, arguments.records)))


if __name__ == "__main__":
    main()
