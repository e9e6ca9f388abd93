"""Super-nets' folders and a table of truth in, rank agreement out: a record per super-net, then tables and figures."""

import hashlib
import time
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.cards import fill_page, marked_tables
from hf_nasbert.costs import latency_sizes
from hf_nasbert.data import DataArguments, load_tokenizer
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.extraction import load_supernet
from hf_nasbert.lazy import check_extra
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.native import ListedChildren
from hf_nasbert.pipeline.arguments import RankChildrenArguments, RankingReportArguments
from hf_nasbert.pipeline.inputs import load_dev_batches, supernet_digest
from hf_nasbert.pipeline.interference import describe_run, settings_digest
from hf_nasbert.pipeline.text_settings import check_against_training, find_tokenizer
from hf_nasbert.pipeline.trainings import ChildTrainings
from hf_nasbert.plots import plot_proxy_against_truth, plot_tau_by_method, plot_tau_over_steps, save_figure
from hf_nasbert.processes import be_alone
from hf_nasbert.ranking import (
    GroundTruth,
    RankingReport,
    check_baseline,
    check_calibration,
    last_steps,
    load_table,
    read_scores,
    refuse_duplicates,
    report,
)
from hf_nasbert.records import Record
from hf_nasbert.scoring import score_architectures
from hf_nasbert.searching import SearchTask, random_children, shared_ridge
from hf_nasbert.space import Architecture, SearchSpace, operator_kind
from hf_nasbert.writing import check_apart, check_folder, check_unless_there, check_writable

_DIGITS = 6  # of a loss in fp32 no more can be trusted from one machine to the next
_MAX_ENUMERATED = 5000  # children of a space that are all scored: a table may still grow
# What of a recipe says how a super-net is built and its children are scored; `train-children` writes all of it.
_SIZES = ("hidden_size", "ffn_ratio", "attention_head_size", "num_conv_layers", "vocab_size")
_SCORING = (
    "source", "tokenizer", "sequence_length", "mlm_probability", "whole_word_mask", "dev", "num_dev_batches",
    "dev_batch_size",
)  # fmt: skip


def rank_children(arguments: RankChildrenArguments, data: DataArguments) -> RankingReport:
    """Score the super-nets that the records lack, and report all that they hold then.

    Args:
        arguments: Table, super-nets and outputs.
        data: The text that the table was made of.

    Raises:
        FileNotFoundError: If the table, a super-net or a file of the text is missing.
        ValueError: If the table's children were not trained by masked-LM loss, as those of `minilm` were not, a
            super-net has another space, other sizes or another tokenizer than they, the text is another one than
            theirs, two super-nets would pass for one (`ranking.refuse_duplicates`), no super-net ranks as
            `baseline`, `calibrate` leaves too few children, or a record is none. Nothing is scored then.
        WriteError: If an output cannot be written.
    """
    be_alone("ranking children")
    check_unless_there(arguments.scores)
    check_apart(table=arguments.table, scores=arguments.scores, page=arguments.page)
    _check_outputs(arguments)
    table = load_table(arguments.table)
    # Refused now, not when all is scored.
    _check_recipe(arguments.table, GroundTruth(table))
    check_calibration(GroundTruth(table, containing=arguments.containing), arguments.calibrate)
    if arguments.page is not None:
        name = arguments.table_name
        if name not in marked_tables(Path(arguments.page).read_text(encoding="utf-8")):
            raise ValueError(f"{arguments.page} has no place for the table: expected <!-- table: {name} -->")
    score_supernets(arguments, GroundTruth(table), data)
    return report_ranking(arguments)


def report_ranking(arguments: RankingReportArguments) -> RankingReport:
    """Make tables and figures from records, without any super-net.

    Raises:
        FileNotFoundError: If table, records or page are missing.
        ValueError: If a record is none, or belongs to another table, or no super-net ranks as `baseline`.
        WriteError: If page or figures cannot be written.
    """
    _check_outputs(arguments)
    truth = GroundTruth(load_table(arguments.table), containing=arguments.containing)
    scored = read_scores(arguments.scores, truth)
    outcome = report(
        truth,
        scored,
        baseline=arguments.baseline,
        calibrate=arguments.calibrate,
        num_resamples=arguments.num_resamples,
        seed=arguments.resampling_seed,
    )
    if arguments.page is not None:
        fill_page(arguments.page, {arguments.table_name: outcome.as_markdown()})
    if arguments.figures is not None:
        figures = {
            "tau": plot_tau_by_method(outcome),
            "scatter": plot_proxy_against_truth(truth, scored),
        }
        if outcome.is_over_training:
            figures["steps"] = plot_tau_over_steps(outcome)
        suffix = "" if arguments.containing is None else f"-{arguments.containing}"
        for name, figure in figures.items():
            save_figure(figure, Path(arguments.figures) / f"{arguments.name}-{name}{suffix}")
    return outcome


def _check_outputs(arguments: RankingReportArguments) -> None:
    """Refuse places of page and figures that cannot be written, before anything is computed."""
    if arguments.page is not None:
        check_writable(arguments.page)
    if arguments.figures is not None:
        check_extra("a figure", "plots", "matplotlib")
        check_folder(arguments.figures)


def score_supernets(arguments: RankChildrenArguments, truth: GroundTruth, data: DataArguments) -> list[Record]:
    """Score the table's children, or all of a small space, by every super-net that the records lack; returns all.

    Raises:
        FileNotFoundError, ValueError: See `rank_children`.
    """
    path = Path(arguments.scores)
    scored = read_scores(path, truth) if path.exists() else []
    sample = _sample(arguments, truth)
    adapted = _adaptation(arguments, len(sample))
    done = {record.get("supernet"): record for record in scored if record.get("adapted") == adapted}
    num_batches = min(arguments.num_dev_batches, truth.recipe["num_dev_batches"])
    for record in scored:
        if record.get("num_score_batches", num_batches) != num_batches:
            raise ValueError(
                f"{path} holds scores on {record['num_score_batches']} dev batches, now it would be {num_batches}: "
                "the two do not compare; give the same num_dev_batches, or another file"
            )
    missing: dict[str, tuple[str, SupernetForMaskedLM]] = {}
    about: dict[str, dict[str, Any]] = {}
    for folder in arguments.supernets:
        supernet = load_supernet(folder)
        _check_fit(folder, supernet, truth)
        _check_tokenizer(folder, truth, data)
        check_against_training(folder, _of_table(data, truth))
        digest = supernet_digest(folder)
        if digest not in done:
            missing[digest] = (folder, supernet)
            run = describe_run(folder)
            # A super-net of unknown origin ranks under its own name.
            method = arguments.label or run["method"] or Path(folder).name
            if adapted is not None and arguments.label is None:
                method = f"{method}, {adapted['children']} children adapted for {adapted['steps']} steps"
            about[digest] = {"supernet": digest, **run, "settings": settings_digest(folder), "method": method}
            if adapted is not None:
                about[digest]["adapted"] = adapted
        elif arguments.label not in (None, done[digest]["method"]):
            raise ValueError(
                f"{path} holds {folder} as {done[digest]['method']}, now it would be {arguments.label}: give no "
                "label, or score it into another file"
            )
    known = [*scored, *about.values()]
    check_baseline(arguments.baseline, last_steps(known))
    if not missing:
        return scored
    refuse_duplicates(known)
    if path.suffix in (".gz", ".xz"):
        raise ValueError(f"{path} is compressed, and {len(missing)} super-nets are to be added: uncompress it")
    check_writable(path, is_appended=True)
    batches = _dev_batches(truth, data, *next(iter(missing.values())))
    is_small = truth.space.num_children <= _MAX_ENUMERATED
    children = list(truth.space.enumerate()) if is_small else truth.architectures
    for digest, (folder, supernet) in tqdm(missing.items(), desc="super-nets", unit="supernet"):
        start = time.process_time()
        supernet.to(PartialState().device)
        if adapted is None:
            losses = score_architectures(supernet, children, batches[:num_batches])
        else:
            trainings = ChildTrainings(
                arguments, supernet, folder, digest, _of_table(data, truth), batches[:num_batches],
                f"{arguments.scores.removesuffix('.jsonl')}.{digest}",
            )  # fmt: skip
            losses = trainings.fit(shared_ridge(truth.space.blocks), sample).predict_left_out(children)
        record = {
            **about[digest],
            "recipe_hash": truth.recipe_hash,
            "num_score_batches": num_batches,
            "proxy_losses": {str(child): round(loss, _DIGITS) for child, loss in zip(children, losses, strict=True)},
            "versions": records.versions(),
            "timing": {"cpu_seconds": round(time.process_time() - start, 2)},
        }
        scored = records.update(path, partial(_unless_there, record))
    return scored


def _unless_there(record: Record, written: list[Record]) -> list[Record]:
    """A scored super-net, if no other process has written it since.

    Raises:
        ValueError: If another run has, which would pass for this one.
    """
    refuse_duplicates([*written, record])
    is_there = any(all(other.get(name) == record.get(name) for name in ("supernet", "adapted")) for other in written)
    return [] if is_there else [record]


def _sample(arguments: RankChildrenArguments, truth: GroundTruth) -> list[Architecture]:
    """The children of the table that are adapted, if any are."""
    if not arguments.adapt_steps:
        return []
    holding = [child for child in truth.architectures if arguments.containing in (None, *child)]
    listed = ListedChildren(truth.space, tuple(holding))
    return random_children(SearchTask(listed, seed=arguments.resampling_seed), arguments.num_adapted)


def _adaptation(arguments: RankChildrenArguments, num_children: int) -> dict[str, Any] | None:
    """What the records say of an adapted ranking, and what tells it from others of the same super-net."""
    if not arguments.adapt_steps:
        return None
    return {
        "steps": arguments.adapt_steps, "children": num_children,
        "learning_rate": arguments.adapt_learning_rate, "batch_size": arguments.adapt_batch_size,
        "containing": arguments.containing, "seed": arguments.resampling_seed,
    }  # fmt: skip


def _check_recipe(table: str, truth: GroundTruth) -> None:
    """Refuse a table whose recipe does not say how its children's masked-LM losses are measured."""
    missing = [name for name in (*_SIZES, *_SCORING) if name not in truth.recipe]
    if missing:
        base_model = truth.recipe.get("base_model")
        how = f"distilled from {base_model}" if base_model else "trained by another recipe"
        raise ValueError(
            f"the children of --table {table} were {how}, not by train-children: the recipe lacks "
            f"{', '.join(missing)}, so super-nets cannot be scored on what they were; give a table of train-children, "
            "or scores made elsewhere to report-ranking"
        )


def _check_fit(folder: str, supernet: SupernetForMaskedLM, truth: GroundTruth) -> None:
    """Refuse a super-net whose children are not the table's."""
    if supernet.space != truth.space:
        raise ValueError(
            f"{folder} has another search space than the table: {_difference(supernet.space, truth.space)}"
        )
    length = truth.recipe["sequence_length"]
    sizes = {name: truth.recipe[name] for name in _SIZES}
    config = SupernetConfig(search_space=truth.space, max_position_embeddings=length, **sizes)
    ours, theirs = _shape(supernet.config), _shape(config)
    for name, size in theirs.items():
        if ours[name] != size:
            raise ValueError(
                f"{folder} has {name}={ours[name]}, the children of the table {size}: they do not compare"
            )
    if supernet.config.max_position_embeddings < length:
        raise ValueError(
            f"{folder} was built for {supernet.config.max_position_embeddings} tokens, the children of the table were "
            f"scored on {length}: they do not compare"
        )


def _shape(config: SupernetConfig) -> dict[str, Any]:
    """What the children of a super-net are built by, defaults written out, but for how long a text they read."""
    shape = latency_sizes(config)
    del shape["max_position_embeddings"]
    if any(operator_kind(name) == "attention" for names in config.space.blocks for name in names):
        shape["attention_head_size"] = config.head_size(config.hidden_size)
    return shape


def _difference(ours: SearchSpace, theirs: SearchSpace) -> str:
    """The first thing in which a super-net's space differs from the table's."""
    for block, names in enumerate(zip_longest(ours.blocks, theirs.blocks, fillvalue=("nothing",))):
        if names[0] != names[1]:
            return f"choice block {block} offers {', '.join(names[0])}, the table's {', '.join(names[1])}"
    return "its choice blocks are cut into other stages"


def _check_tokenizer(folder: str, truth: GroundTruth, data: DataArguments) -> None:
    place = find_tokenizer(folder)
    if place is None:
        return  # `data` named one, which was checked with the text
    digest = tokenizer_digest(load_tokenizer(replace(data, tokenizer_name=str(place))))[:16]
    if digest != truth.recipe["tokenizer"]:
        raise ValueError(f"{folder} was trained with another tokenizer than the children of the table")


def _of_table(data: DataArguments, truth: GroundTruth) -> DataArguments:
    """The text, cut and masked as for the table's children."""
    recipe = truth.recipe
    settings = {"max_seq_length": recipe["sequence_length"], "vocab_size": recipe["vocab_size"]}
    return replace(data, **settings, **{name: recipe[name] for name in ("mlm_probability", "whole_word_mask")})


def _dev_batches(truth: GroundTruth, data: DataArguments, folder: str, supernet: SupernetForMaskedLM) -> list[Any]:
    """The dev batches that the table's children were scored on."""
    recipe = truth.recipe
    batches, _ = load_dev_batches(
        supernet.config,
        folder,
        _of_table(data, truth),
        num_batches=recipe["num_dev_batches"],
        batch_size=recipe["dev_batch_size"],
    )
    digest = hashlib.sha256(b"".join(batch["input_ids"].numpy().tobytes() for batch in batches)).hexdigest()[:16]
    if digest != recipe["dev"]:
        raise ValueError(
            f"the dev set of {data.source} is not the one that the table's "
            f"children were scored on (text {recipe['source']!r}): give the same text, split and data_seed"
        )
    return batches
