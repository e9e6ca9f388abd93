"""The folders of the smaller models: weights, tokenizer, what makes a SentenceTransformer of them, and the card."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_nasbert import checkpoint_folders, records
from hf_nasbert.cards import (
    CompressedRecord,
    Evaluation,
    datasets_of,
    render_compressed_card,
)
from hf_nasbert.child_folders import fill_child_folder
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import hub_name
from hf_nasbert.compression.choosing import Worth
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.onnx_files import Runtime, runtime_cells
from hf_nasbert.compression.proof import SEARCHED, Row, table_cells, verdicts
from hf_nasbert.compression.stages import Recovered, Written
from hf_nasbert.compression.vocabulary import trim_model
from hf_nasbert.data.examples import sentence_of
from hf_nasbert.modeling.families import native_form
from hf_nasbert.space import Architecture


def write_folders(
    materials: Materials, folder: Path, rows: Sequence[Row], recovered: Mapping[tuple[Architecture, int], Recovered]
) -> Written:
    """Write every given child with its tokenizer, its modules and its card, whole or not at all.

    Args:
        materials: Of the compression.
        folder: The output folder; of several budgets each gets a folder in it.
        rows: The table.
        recovered: What recovery made of every child and seed.

    Raises:
        WriteError: If a file cannot be written.
    """
    models = []
    given = [row for row in rows if row.is_given]
    for row in given:
        child = Architecture.parse(row.architecture)
        made = {seed: recovered[child, seed] for seed in materials.arguments.seeds}
        seed = min(made, key=lambda seed: Worth(made[seed].after, made[seed].metric).rank)
        model, _ = materials.recover(child, seed)
        tokenizer = materials.base.tokenizer
        if row.trimmed is not None:
            model, tokenizer = trim_model(model, materials.vocabulary.kept), materials.vocabulary.tokenizer
        nn.Module.to(model, "cpu")
        stock, reason = native_form(model)
        where = "." if len(given) == 1 else str(row.budget)
        card = card_of(materials, row, rows, recovered[child, seed], seed, is_native=reason is None)
        write = partial(
            fill_child_folder, child=stock, tokenizer=tokenizer, card=card,
            sentence_modules=materials.base.modules,
        )  # fmt: skip
        checkpoint_folders.replace_files(
            folder / where, write, what="the smaller model", checkpoints=materials.work,
            advice="run the same command again",
        )  # fmt: skip
        size = sum(file.stat().st_size for file in (folder / where).glob("*.safetensors"))
        models.append(
            {"budget": row.budget, "folder": where, "class": type(stock).__name__, "bytes": size, "seed": seed}
        )
    return Written(models)


def card_of(
    materials: Materials,
    row: Row,
    rows: Sequence[Row],
    recovered: Recovered,
    seed: int,
    *,
    is_native: bool,
    runtimes: Sequence[Runtime] = (),
) -> str:
    """The card of a smaller model.

    Args:
        materials: Of the compression.
        row: The model's line of the table.
        rows: The table.
        recovered: What its recovery made.
        seed: Of its recovery.
        is_native: Whether it is a stock BERT.
        runtimes: What runs it beside torch, as measured.
    """
    own = [one for one in rows if one.budget in (None, row.budget)]
    arguments = materials.arguments
    told = materials.source.told
    is_labelled_file, is_labelled = "train_file" in told, "label_column" in told
    # A data set on the Hub may be private: of the sources only what is packaged, and GLUE, are known to be public.
    is_public = bool(told.get("packaged") or (is_labelled and not is_labelled_file))
    tokenizer = materials.base.tokenizer if row.trimmed is None else materials.vocabulary.tokenizer
    prompt = materials.modules.default_prompt

    def fits(text: str) -> bool:
        return len(tokenizer(prompt + text, verbose=False)["input_ids"]) <= materials.max_length

    record = CompressedRecord(
        name=f"A smaller {(hub_name(arguments) or 'encoder').rpartition('/')[2]}",
        base_model=hub_name(arguments),
        language=told.get("language"),
        datasets=datasets_of(told),
        example=sentence_of(materials.judging, fits),
        is_example_private=not is_public,
        architecture=row.architecture,
        how=row.how,
        is_searched=row.how == SEARCHED,
        budget=str(row.budget),
        hub_task=materials.base.hub_task,
        auto_class=materials.base.auto_class.__name__,
        proof=tuple(tuple(line) for line in table_cells(own, arguments.shape)),
        verdicts=tuple(verdicts(own)),
        native=is_native,
        is_sentence_transformer=materials.base.modules is not None,
        runtimes=tuple(map(tuple, runtime_cells(runtimes, arguments.shape))) if runtimes else (),
        evaluations=tuple(_evaluations(materials, row)),
        training={
            "text": materials.source.told["source"],
            "num_steps": recovered.num_steps,
            "num_tokens": recovered.num_tokens,
            "learning rate": arguments.learning_rate,
            "seed": seed,
            "chosen by": arguments.scorer,
            **({} if materials.examples is None else _of_labels(arguments)),
            "latency measured on": f"{records.versions()['cpu']}, {torch.get_num_threads()} thread(s)",
        },
        versions=records.versions(),
    )
    return render_compressed_card(record)


def _of_labels(arguments: CompressArguments) -> dict[str, Any]:
    return {"ranked by": arguments.rank_by, "weight of labels": arguments.label_weight}


def _evaluations(materials: Materials, row: Row) -> Iterator[Evaluation]:
    """What the Hub lists of the proof: the given child's numbers."""
    text, pairs = str(materials.source.told["source"]), materials.arguments.pairs_file
    similarity = materials.modules.similarity or "cosine"
    measured = [("agreement", "agreement_with_base_model", text)]
    measured += [(name, name, text) for name in row.metrics]
    if materials.base.modules is not None:
        measured.append(("cosine", "cosine_with_base_model", text))
    if pairs is not None:
        measured.append(("spearman", f"spearman_{similarity}", Path(pairs).name))
    for name, metric, dataset in measured:
        values = tuple(row.values(name))
        if values:
            yield Evaluation(
                task=materials.base.hub_task, dataset=dataset, metric=metric, values=values,
                seeds=tuple(materials.arguments.seeds),
            )  # fmt: skip
