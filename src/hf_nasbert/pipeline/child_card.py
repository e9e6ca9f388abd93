"""What the whole pipeline's stages say of the child that they made, as the record of its card, and its figures."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hf_nasbert import records
from hf_nasbert.cards import ChildRecord, Evaluation, datasets_of, title_of
from hf_nasbert.costs import cost_function
from hf_nasbert.data import DataArguments
from hf_nasbert.modeling import NasBertConfig
from hf_nasbert.pipeline.extraction import cost_of_bert_beside
from hf_nasbert.pipeline.stages import Extraction, Finetuning, PackedText, Pretraining, Scores, TrainedSupernet
from hf_nasbert.records import Record
from hf_nasbert.scored import ScoredChild
from hf_nasbert.training import SupernetTrainingArguments


class Made(NamedTuple):
    """What the stages before the card say."""

    text: PackedText
    supernet: TrainedSupernet
    scores: Scores
    extraction: Extraction
    pretraining: Pretraining
    finetuning: Finetuning


def describe_child(
    config: NasBertConfig,
    made: Made,
    data: DataArguments,
    training: SupernetTrainingArguments,
    *,
    stage_lengths: Sequence[int] | None,
    is_native: bool,
    mask_token: str,
    example: str,
    split_by: str | None,
    figures: Sequence[Path],
) -> ChildRecord:
    """The record of the child's card.

    Args:
        config: The child's.
        made: What the stages say.
        data: The text.
        training: The super-net's.
        stage_lengths: Choice blocks of every stage of the space; `None` of a chain.
        is_native: Whether the child is a stock BERT.
        mask_token: The tokenizer's.
        example: A sentence with one mask, which the card completes.
        split_by: Who split the data that it was fine-tuned on, where the splits are not the published ones.
        figures: Their files.
    """
    scores, pretraining, text = made.scores, made.pretraining, name_of_text(data)
    cost = cost_function(config, sequence_length=data.max_seq_length)(config.operators)
    return ChildRecord(
        name=title_of(int(cost["num_parameters"]), asdict(data)),
        architecture=scores.winner,
        stage_lengths=None if stage_lengths is None else tuple(stage_lengths),
        native=is_native,
        mask_token=mask_token,
        example=example,
        language=data.language,
        datasets=datasets_of(asdict(data)),
        model={
            "vocabulary": config.vocab_size,
            "hidden size": config.hidden_size,
            "longest sequence": config.max_position_embeddings,
        },
        cost=cost,
        bert_cost=cost_of_bert_beside(config, config.operators, data.max_seq_length),
        cost_conditions=f"FLOPs and memory of one sequence of {data.max_seq_length} tokens, with the head.",
        supernet={
            "method": training.method,
            "num_children": made.supernet.num_children,
            "num_steps": made.supernet.num_steps,
            "num_tokens": made.supernet.num_tokens,
            "text": text,
            "seed": training.seed,
        },
        search={
            "how": scores.how,
            "num_scored": scores.num_scored,
            "children within the budget": scores.num_within_budget,
            **{f"at most {name}": cap for name, cap in scores.caps.items()},
            "proxy_loss": scores.proxy_loss,
            **({} if scores.latency_ms is None else {"latency of this child, timed (ms)": scores.latency_ms}),
        },
        training={
            "num_steps": pretraining.num_steps,
            "num_tokens": pretraining.num_tokens,
            "dev loss with inherited weights": pretraining.dev_loss_before,
            "dev loss after": pretraining.dev_loss_after,
        },
        max_logit_difference=made.extraction.max_logit_difference,
        evaluations=tuple(evaluations(made.finetuning.child, made.finetuning.from_scratch, split_by)),
        figures={figure.stem: figure.name for figure in figures if figure.suffix == ".png"},
        limits=(
            "It knows one kind of text: pre-trained on "
            f"{made.text.num_sequences * made.text.sequence_length:,} tokens of {text}.",
        ),
        versions=records.versions(),
    )


def name_of_text(data: DataArguments) -> str:
    """How cards name the text; files have names on this machine only."""
    return data.packaged or data.dataset_name or "local files"


def draw_figures(
    scores: Scores,
    scored: Sequence[ScoredChild],
    stage_lengths: Sequence[int] | None,
    history: Sequence[Record],
    folder: Path,
) -> list[Path]:
    """Draw what matplotlib (the extra "plots") can, if it is installed; returns the files.

    Args:
        scores: What the stage of the scores says.
        scored: The scored children.
        stage_lengths: Choice blocks of every stage of the space; `None` of a chain.
        history: The log of the super-net's training.
        folder: Where the figures go.
    """
    if find_spec("matplotlib") is None:
        return []
    from hf_nasbert import plots

    figures = {
        "architecture": plots.plot_architecture(scores.winner, stage_lengths=stage_lengths),
        "front": plots.plot_pareto_front(scored, winner=scores.winner, max_cost=scores.caps.get("num_parameters")),
        "training": plots.plot_training(history),
        "operators": plots.plot_operator_frequency(scored),
    }
    return [path for name, figure in figures.items() for path in plots.save_figure(figure, folder / name)]


def evaluations(child: Sequence[Record], baseline: Sequence[Record], split_by: str | None = None) -> list[Evaluation]:
    """The card's evaluation table from the records of fine-tuning: every metric of every split, one value per seed."""
    found = []
    for split, metrics in child[0]["metrics"].items():
        for metric in sorted(metrics.keys() - {"loss", "score"}):  # the task's own metrics; `score` is their mean
            values, baseline_values = (
                tuple(record["metrics"][split][metric] for record in runs) for runs in (child, baseline)
            )
            if None in values + baseline_values:
                continue  # a constant prediction has no correlation: nothing to print
            found.append(
                Evaluation(
                    task=child[0].get("hub_task", "text-classification"),
                    dataset=child[0]["task"],
                    metric=metric,
                    values=values,
                    seeds=tuple(record["seed"] for record in child),
                    split=split,
                    split_by=split_by,
                    baseline="same architecture from scratch",
                    baseline_values=baseline_values,
                )
            )
    return found
