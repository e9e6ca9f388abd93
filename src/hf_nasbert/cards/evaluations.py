"""Results on data sets: as a table of the card, and as the Hub's `model-index`."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_nasbert.cards.markdown import (
    Markdown,
    check_number,
    code,
    escape,
    mean_and_spread,
    number,
    one_line,
    table,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One metric on one data set, with one value per seed, and the same of a baseline if there is one.

    `dataset` is a name to read, `dataset_id` the data set's name on the Hub, if it is there, and `task` one of the
    Hub's task names ("text-classification"). `split_by` says who made the split, where it is not the published one.

    Raises:
        ValueError: If there is no value, one that is not finite, or not one per seed.
    """

    task: str
    dataset: str
    metric: str
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    dataset_id: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    split_by: str | None = None
    num_examples: int | None = None
    baseline: str | None = None
    baseline_values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        where = f"evaluation of {self.metric!r} on {self.dataset!r}"
        if not self.values:
            raise ValueError(f"{where}: no value; leave the evaluation out of the record")
        for value in (*self.values, *self.baseline_values):
            check_number(value, where)
        if self.seeds and len(self.seeds) != len(self.values):
            raise ValueError(f"{where}: {len(self.values)} values for {len(self.seeds)} seeds")
        if (self.baseline is None) != (not self.baseline_values):
            raise ValueError(f"{where}: `baseline` names what `baseline_values` belong to; give both or neither")


def evaluation_table(evaluations: Sequence[Evaluation], head: str = "This model") -> Markdown:
    """One row per metric, its value under `head`; a column that no evaluation fills is left out."""
    columns: list[tuple[str, Callable[[Evaluation], str]]] = [
        ("Data", lambda one: code(one.dataset)),
        ("Split", lambda one: code(one.split) if one.split else ""),
        ("Examples", lambda one: number(one.num_examples) if one.num_examples is not None else ""),
        ("Metric", lambda one: code(one.metric)),
        (head, lambda one: mean_and_spread(one.values)),
        ("Baseline", lambda one: mean_and_spread(one.baseline_values) if one.baseline_values else ""),
        ("Baseline model", lambda one: escape(one.baseline) if one.baseline else ""),
        ("Seeds", lambda one: number(len(one.values))),
    ]
    filled = [(title, cell) for title, cell in columns if any(cell(one) for one in evaluations)]
    return table([title for title, _ in filled], [[cell(one) for _, cell in filled] for one in evaluations])


def evaluation_note(evaluations: Sequence[Evaluation]) -> Markdown:
    """How the numbers of the table are to be read."""
    several = any(len(values) > 1 for one in evaluations for values in (one.values, one.baseline_values))
    single = any(len(one.values) == 1 for one in evaluations)
    parts = ["Mean ± sample standard deviation over seeds."] if several else []
    parts += ["A value of one seed has no spread: small differences from it mean nothing."] if single else []
    own = dict.fromkeys((one.dataset, one.split_by) for one in evaluations if one.split_by)
    parts += [
        f"The splits of {code(dataset)} were made by {code(split_by or '')}: they are not the published ones, and "
        "results on those do not compare."
        for dataset, split_by in own
    ]
    return Markdown(" ".join(parts))


def as_eval_result(evaluation: Evaluation) -> "EvalResult":
    """The mean over seeds as an entry of the Hub's `model-index`."""
    from huggingface_hub import EvalResult

    num_seeds = len(evaluation.values)
    metric = one_line(evaluation.metric)
    return EvalResult(
        task_type=one_line(evaluation.task),
        dataset_type=one_line(evaluation.dataset_id or evaluation.dataset),
        dataset_name=one_line(
            evaluation.dataset
            if evaluation.split_by is None
            else f"{evaluation.dataset}, split by {evaluation.split_by}"
        ),
        dataset_config=one_line(evaluation.dataset_config) if evaluation.dataset_config else None,
        dataset_split=one_line(evaluation.split) if evaluation.split else None,
        metric_type=metric,
        metric_name=f"{metric} (mean of {num_seeds} seeds)" if num_seeds > 1 else None,
        metric_value=round(statistics.fmean(evaluation.values), 6),
    )
