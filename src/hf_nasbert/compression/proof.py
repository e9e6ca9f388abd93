"""The proof of what a smaller encoder is worth: it, its base model and what people choose by hand, in one table."""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert import metrics, records
from hf_nasbert.compression.sentences import Batch, tokenised
from hf_nasbert.data import load_labelled, read_rows
from hf_nasbert.data.packaged import PREFIX
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.measuring import Device, measure_children
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.modeling.sentence_transformer import SentenceModules

SEARCHED = "searched"
_PAIRS = ("sentence1", "sentence2", "score")
_PAIR_BATCH = 64
_SECONDS_OF_A_SITTING = 30.0
_MOST_ROUNDS = 10
_LEAST_TIMED = 3  # forwards of a visit


@dataclass(frozen=True)
class Judged:
    """What one model is worth on text that chose nothing.

    Args:
        loss: Its distance from the base model.
        cosine: Of its sentence vectors with the base model's, mean over sentences.
        agreement: Share of the base model's predictions that it gives too; None without a classifier.
        spearman: Rank correlation of its cosines with the scores of the pairs; None without pairs.
    """

    loss: float
    cosine: float
    agreement: float | None
    spearman: float | None


@dataclass(frozen=True)
class Row:
    """One line of the table: a model, or one recovered under each of several seeds.

    Args:
        budget: The budget it is for; None of the base model.
        how: `searched`, or how somebody would have chosen it by hand.
        architecture: Its operators.
        num_encoder_parameters: Those of its blocks.
        num_parameters: All, embeddings and head included.
        latency_one_ms: Measured, of one sequence.
        latency_batch_ms: Measured, of a batch.
        judged: One entry per seed.
        is_within: Whether it is within the budget.
        chosen_by: Its distance from the base model on the text that chooses, mean over seeds; None of the base model.
        is_given: Whether it is what is given out.
    """

    budget: str | None
    how: str
    architecture: str
    num_encoder_parameters: int
    num_parameters: int
    latency_one_ms: float
    latency_batch_ms: float
    judged: tuple[Judged, ...]
    is_within: bool
    chosen_by: float | None
    is_given: bool = False

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Row":
        """The row that a record holds."""
        return cls(**{**row, "judged": tuple(Judged(**one) for one in row["judged"])})

    def values(self, name: str) -> list[float]:
        """One of the numbers of `Judged`, of every seed; none where it was not measured."""
        found = [getattr(one, name) for one in self.judged]
        return [value for value in found if value is not None]

    def mean(self, name: str) -> float | None:
        """The mean over seeds."""
        values = self.values(name)
        return statistics.fmean(values) if values else None


class Judge:
    """Judges models of one base model.

    Args:
        batches: Text that chose nothing.
        targets: What the base model makes of it.
        distance: How far a model is from the base model.
        modules: What makes sentence vectors of its states.
        tokenizer: For the pairs.
        pairs: Rows of `read_pairs`; None measures no correlation.
        max_length: Tokens of a sentence of a pair.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        targets: Sequence[Target],
        distance: Distance,
        modules: SentenceModules,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Dataset | None,
        max_length: int,
    ) -> None:
        self._batches, self._targets, self._distance, self._modules = batches, targets, distance, modules
        self._tokenizer, self._pairs, self._max_length = tokenizer, pairs, max_length

    def __call__(self, model: PreTrainedModel) -> Judged:
        """What a model is worth."""
        losses, cosines, agreements = [], [], []
        with running(model):
            for batch, target in zip(self._batches, self._targets, strict=True):
                states, mask = _run(model, batch)
                logits = None if target.logits is None else logits_of(model, states, mask)
                parts = self._distance.parts(states, mask, target, logits)
                losses.append(float(self._distance.total(parts)))
                wanted = torch.zeros_like(states)
                wanted[mask] = target.states.to(states)
                own, theirs = (self._modules.pool(one, mask.long()) for one in (states, wanted))
                cosines += nn.functional.cosine_similarity(own, theirs).tolist()
                if logits is not None and target.logits is not None and logits.shape[-1] > 1:
                    agreements += self._agreement(logits, target.logits.to(logits))
        return Judged(
            statistics.fmean(losses),
            statistics.fmean(cosines),
            statistics.fmean(agreements) if agreements else None,
            None if self._pairs is None else self._spearman(model),
        )

    def _agreement(self, logits: torch.Tensor, wanted: torch.Tensor) -> list[float]:
        if self._distance.is_multi_label:
            return ((logits > 0) == (wanted > 0)).float().flatten().tolist()
        return (logits.argmax(-1) == wanted.argmax(-1)).float().tolist()

    def _spearman(self, model: PreTrainedModel) -> float:
        assert self._pairs is not None
        columns = [self._pairs[name] for name in _PAIRS]
        firsts, seconds, scores = (list(column) for column in columns)
        if self._modules.do_lower_case:
            firsts, seconds = ([text.lower() for text in texts] for texts in (firsts, seconds))
        sentences = sorted(dict.fromkeys([*firsts, *seconds]), key=len)
        vectors: dict[str, torch.Tensor] = {}
        with running(model):
            for start in range(0, len(sentences), _PAIR_BATCH):
                own = sentences[start : start + _PAIR_BATCH]
                states, mask = _run(model, tokenised(own, self._tokenizer, self._max_length))
                vectors |= dict(zip(own, self._modules.pool(states, mask.long()), strict=True))
        cosine = nn.functional.cosine_similarity
        found = [float(cosine(vectors[a], vectors[b], dim=0)) for a, b in zip(firsts, seconds, strict=True)]
        return metrics.spearman(found, scores)


def _run(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The last states of a batch (B, T, D), and where its real tokens are."""
    encoder, device = encoder_of(model), next(model.parameters()).device
    hidden_states, masks = encoder.embed(**inputs_of(batch, device))
    return encoder.encoder(hidden_states, masks).float(), mask_of(batch, device)


def read_pairs(path: str | Path, cache_dir: str | Path | None = None) -> Dataset:
    """Pairs of sentences and their scores, from a csv, tsv, json, jsonl or parquet file, or a packaged test split.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing or holds something else, or all scores are one.
    """
    if str(path).startswith(PREFIX):
        rows = load_labelled(str(path).removeprefix(PREFIX))["test"]
        rows = rows.rename_column("label", "score") if "label" in rows.column_names else rows
    else:
        rows = read_rows(path, cache_dir, needed=[], what="pairs")
    missing = [name for name in _PAIRS if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"the pairs {path} have no column {missing[0]!r} (they have {', '.join(rows.column_names)}): expected "
            "sentence1, sentence2 and score"
        )
    for name in _PAIRS:
        kind = rows.features[name].dtype
        values = rows[name]
        is_right = (
            all(records.is_finite_number(value) for value in values)
            if name == "score"
            else all(isinstance(value, str) for value in values)
        )
        if not is_right:
            expected = "numbers" if name == "score" else "sentences"
            raise ValueError(
                f"the column {name!r} of the pairs {path} holds {kind}, some of it missing or wrong: expected "
                f"{expected} in every row"
            )
    if len(set(rows["score"])) < 2:
        raise ValueError(f"the pairs {path} all have one score: there is no order to compare with")
    return rows.select_columns(list(_PAIRS))


def measure_side_by_side(
    config: SupernetConfig, children: Sequence[Sequence[str]], batch_size: int, sequence_length: int
) -> list[float]:
    """Milliseconds of children by this machine's clock, by turns, so that what slows the machine slows all.

    Args:
        config: Of the super-net that they are children of.
        children: The children.
        batch_size: Sequences of the batch.
        sequence_length: Tokens of each.
    """
    device = Device(batch_size=batch_size, sequence_length=sequence_length, num_threads=torch.get_num_threads())
    once = sum(measure_children(config, device, children, num_rounds=1)) / 1000
    rounds = int(_SECONDS_OF_A_SITTING / max(_LEAST_TIMED * once, 1e-9))
    return measure_children(config, device, children, num_rounds=min(max(rounds, 1), _MOST_ROUNDS))


def choose_given(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the one of every budget marked that is given out: within it, and nearest to the base model.

    Text that chooses decides, not that which judges.
    """
    given = {}
    for budget in dict.fromkeys(row.budget for row in rows if row.budget is not None):
        own = [row for row in rows if row.budget == budget and row.is_within]
        given[budget] = min(own, key=lambda row: row.chosen_by if row.chosen_by is not None else 0.0)
    return [dataclasses.replace(row, is_given=row.budget is not None and row is given[row.budget]) for row in rows]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the table says, one plain sentence or two for each budget."""
    base = next(row for row in rows if row.budget is None)
    told = []
    for given in (row for row in rows if row.is_given):
        others = [row for row in rows if row.budget == given.budget and row is not given]
        name = "the searched child" if given.how == SEARCHED else f"the child chosen by hand ({given.how})"
        kept = [f"{(given.num_encoder_parameters) / base.num_encoder_parameters:.1%} of the blocks' parameters"]
        kept.append(f"{base.latency_batch_ms / given.latency_batch_ms:.2f} times as fast as the base model on a batch")
        kept.append(f"vectors with a cosine of {given.mean('cosine'):.4f}")
        spearman, whole = given.mean("spearman"), base.mean("spearman")
        if spearman is not None and whole:
            kept.append(f"{spearman / whole:.1%} of its correlation on the pairs")
        agreement = given.mean("agreement")
        if agreement is not None:
            kept.append(f"{agreement:.1%} of its predictions")
        told.append(f"{given.budget}: {name} is given: {', '.join(kept)}.")
        searched = next((row for row in others if row.how == SEARCHED), None)
        if searched is not None and given.how != SEARCHED:
            told.append(
                f"{given.budget}: what somebody chooses by hand is better here than what the search found "
                f"(distance {given.chosen_by:.4f} against {searched.chosen_by:.4f} on the text that chooses)."
            )
        ahead = [row for row in others if _judged(row) < _judged(given)]
        for row in ahead:
            within = "" if row.is_within else ", which is above the budget,"
            told.append(
                f"{given.budget}: on the text that judges, {row.how}{within} is nearer to the base model "
                f"({_judged(row):.4f} against {_judged(given):.4f})."
            )
        if others and not ahead:
            told.append(
                f"{given.budget}: it is nearer to the base model than all others of the table, which had the same "
                "tokens."
            )
    return told


def _judged(row: Row) -> float:
    loss = row.mean("loss")
    assert loss is not None
    return loss


def table_cells(rows: Sequence[Row], shape: tuple[int, int]) -> Iterator[list[str]]:
    """The table's head and its lines, as texts; a column that nothing was measured for is left out."""
    several = len({row.budget for row in rows if row.budget is not None}) > 1
    columns: list[tuple[str, Any]] = [("budget", lambda row: row.budget or "")] if several else []
    columns += [
        (
            "model",
            lambda row: (
                f"{row.how}{' (given)' if row.is_given else ''}{'' if row.is_within else ' (above the budget)'}"
            ),
        ),
        ("encoder's parameters", lambda row: f"{row.num_encoder_parameters:,}"),
        ("all parameters", lambda row: f"{row.num_parameters:,}"),
        ("distance", lambda row: _told(row, "loss", 4)),
        ("vector cosine", lambda row: _told(row, "cosine", 4)),
        ("predictions kept", lambda row: _told(row, "agreement", 4)),
        ("Spearman on pairs", lambda row: _told(row, "spearman", 4)),
        (f"ms 1x{shape[1]}", lambda row: f"{row.latency_one_ms:.2f}"),
        (f"ms {shape[0]}x{shape[1]}", lambda row: f"{row.latency_batch_ms:.1f}"),
    ]
    filled = [(head, cell) for head, cell in columns if any(cell(row) for row in rows)]
    yield [head for head, _ in filled]
    for row in rows:
        yield [cell(row) for _, cell in filled]


def _told(row: Row, name: str, digits: int) -> str:
    values = row.values(name)
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def as_text(rows: Sequence[Row], shape: tuple[int, int]) -> str:
    """The table for a terminal, and what it says."""
    lines = list(table_cells(rows, shape))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        "  ".join(
            cell.ljust(width) if column < 1 or cell == "" else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([padded[0], "-" * max(map(len, padded)), *padded[1:], "", *verdicts(rows)])
