"""Fine-tuning and its cards: every model that is kept gets one, made from the records of its seeds."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from hf_nasbert import records
from hf_nasbert.cards import Evaluation, FinetunedRecord, render_finetuned_card
from hf_nasbert.data.packaged import PACKAGED_MODELS, PREFIX, SPLIT_HERE
from hf_nasbert.finetuning import (
    FinetuneArguments,
    FinetuneResult,
    FinetuneSquadArguments,
    FinetuneTokensArguments,
    finetune,
    finetune_squad,
    finetune_tokens,
)
from hf_nasbert.paths import telling_name
from hf_nasbert.processes import join
from hf_nasbert.records import Record
from hf_nasbert.writing import write_text

# `score` is the mean of some of the others; the best thresholds of SQuAD v2 have seen the answers.
_NO_RESULTS = {"loss", "score", "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}

AnyFinetuneArguments = FinetuneArguments | FinetuneSquadArguments | FinetuneTokensArguments


def finetune_with_cards(
    arguments: AnyFinetuneArguments, *, callbacks: Sequence[TrainerCallback] = ()
) -> FinetuneResult:
    """Fine-tune once per seed, as the arguments' own function does, and write a card beside every model that is kept.

    The card covers all seeds of this run in the file of records. One that was made here before is made again, so
    that it covers seeds that came later; one that somebody wrote or changed stays as it is.

    Raises:
        FileNotFoundError: If the model or a file is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
    """
    match arguments:
        case FinetuneArguments():
            result = finetune(arguments, callbacks=callbacks)
        case FinetuneSquadArguments():
            result = finetune_squad(arguments, callbacks=callbacks)
        case FinetuneTokensArguments():
            result = finetune_tokens(arguments, callbacks=callbacks)
    if arguments.save_models and join().is_main_process:
        run = result.records[0]["run"]
        found = [record for record in records.read(arguments.records_file) if record.get("run") == run]
        latest = {record["seed"]: record for record in found}
        for seed in arguments.seeds:
            folder = arguments.model_folder(result.task, seed)
            about = describe_finetuned(
                folder,
                latest[seed],
                list(latest.values()),
                _data_of(arguments),
                split_by(arguments),
                result.example,
                is_public=_are_public(arguments),
            )
            _write_card(folder, about)
    return result


def split_by(arguments: AnyFinetuneArguments) -> str | None:
    """Who split the data, where it was this package."""
    packaged = arguments.packaged if isinstance(arguments, FinetuneArguments) else None
    return "hf_nasbert" if arguments.is_held_out or packaged in SPLIT_HERE else None


def describe_finetuned(
    folder: Path,
    record: Record,
    of_all_seeds: Sequence[Record],
    data: tuple[str, str | None] | None = None,
    split_by: str | None = None,
    example: tuple[str, ...] = (),
    *,
    is_public: bool = False,
) -> FinetunedRecord:
    """The record of a fine-tuned model's card.

    Args:
        folder: The model's.
        record: What its fine-tuning wrote down.
        of_all_seeds: The same of every seed of the run, this one among them.
        data: Name and configuration of the data set on the Hub, if it came from there.
        split_by: Who split it, where the splits are not the published ones.
        example: The texts of a held-out input.
        is_public: Whether anybody may read these texts.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings, model = record["settings"], record["model"]
    on_hub = model if record["revision"] is not None else None
    if model.startswith(PREFIX):
        on_hub = PACKAGED_MODELS[model.removeprefix(PREFIX)].hub_id
    start = on_hub or telling_name(model)
    training = {
        "num_steps": record["num_steps"],
        "best step": record["best_step"] if record["selected_on"] else None,
        "patience of early stopping (evaluations)": settings["early_stopping_patience"],
        "training examples": record["num_samples"]["train"],
        "examples of a step": settings["batch_size"],
        "learning_rate": settings["learning_rate"],
        "longest input (tokens)": settings["max_seq_length"],
        "commit of the model it began as": record["revision"],
    }
    return FinetunedRecord(
        name=f"{start.rpartition('/')[2]} fine-tuned on {record['task']}, seed {record['seed']}",
        task=record["task"],
        hub_task=record["hub_task"],
        seed=record["seed"],
        start=start,
        from_scratch=settings["from_scratch"],
        base_model=None if settings["from_scratch"] else on_hub,
        datasets=(data[0],) if data else (),
        model_type=config["model_type"],
        num_texts=len(record["text_columns"]),
        example=example,
        is_example_private=bool(example) and not is_public,
        has_entities=all("precision" in metrics for metrics in record["metrics"].values()),  # other tags have none
        selected_on=record["selected_on"],
        model={"num_parameters": record["num_parameters"]},
        training={name: value for name, value in training.items() if value is not None},
        evaluations=tuple(_evaluations(record, of_all_seeds, data, split_by)),
        versions=record["versions"],
    )


def _evaluations(
    record: Record, of_all_seeds: Sequence[Record], data: tuple[str, str | None] | None, split_by: str | None
) -> list[Evaluation]:
    """The task's own metrics on every split, of every seed for which they are defined."""
    found = []
    for split, metrics in record["metrics"].items():
        for metric in sorted(metrics.keys() - _NO_RESULTS):
            values = {one["seed"]: one["metrics"][split][metric] for one in of_all_seeds}
            defined = {seed: value for seed, value in values.items() if value is not None}
            if defined:
                found.append(
                    Evaluation(
                        task=record["hub_task"],
                        dataset=record["task"],
                        dataset_id=data[0] if data else None,
                        dataset_config=data[1] if data else None,
                        split=split,
                        split_by=split_by,
                        num_examples=record["num_samples"][split],
                        metric=metric,
                        values=tuple(defined.values()),
                        seeds=tuple(defined),
                    )
                )
    return found


def _data_of(arguments: AnyFinetuneArguments) -> tuple[str, str | None] | None:
    """Name and configuration of the data set on the Hub; nothing for files, folders and packaged sets."""
    name, config = arguments.dataset_name, arguments.dataset_config
    if isinstance(arguments, FinetuneArguments) and arguments.task:
        name, config = arguments.glue_source, arguments.task
    return None if name is None or Path(name).exists() else (name, config)


def _are_public(arguments: AnyFinetuneArguments) -> bool:
    """Whether the data are known to be public: GLUE and packaged sets; another data set on the Hub may be private."""
    if not isinstance(arguments, FinetuneArguments):
        return False
    return bool(arguments.packaged) or (
        arguments.task is not None and arguments.glue_source == FinetuneArguments.glue_source
    )


def _write_card(folder: Path, record: FinetunedRecord) -> None:
    """Write README.md and the record that it was made from (card.json), unless somebody else wrote a README.md."""
    readme, record_file = folder / "README.md", folder / "card.json"
    card = render_finetuned_card(record)
    if readme.exists() and readme.read_text(encoding="utf-8") not in (card, _made_before(record_file)):
        return
    # In this order, so that a kill between them leaves a card that is known as ours when it is made again.
    write_text(readme, card)
    write_text(record_file, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def _made_before(record_file: Path) -> str | None:
    """The card that was made from a record, if there is one of this version."""
    try:
        facts: dict[str, Any] = json.loads(record_file.read_text(encoding="utf-8"))
        return render_finetuned_card(facts)
    except (FileNotFoundError, ValueError):
        return None
