"""The proof of what a smaller encoder is worth: it, its base model and what people choose by hand, in one table.

One file, for what is judged, its row and its column are changed together.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert import metrics, records
from hf_nasbert.compression.choosing import Worth
from hf_nasbert.compression.head_predictions import head_predictions, states_of
from hf_nasbert.compression.sentences import Batch, tokenised
from hf_nasbert.compression.stages import Vocabulary
from hf_nasbert.compression.task_metric import Difference, TaskMetric, labels_of, means_of, ranking_names, score_of
from hf_nasbert.data import load_labelled, read_rows
from hf_nasbert.data.files import digest_files
from hf_nasbert.data.formats import ROW_KINDS
from hf_nasbert.data.packaged import PREFIX
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import encoder_of, logits_of, running
from hf_nasbert.elastic.scores import predictions_of
from hf_nasbert.measuring import Device, measure_children
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.modeling.sentence_transformer import SentenceModules

SEARCHED = "searched"
_PAIRS = ("sentence1", "sentence2", "score")
_PAIR_BATCH = 64
_SECONDS_OF_A_TIMING_RUN = 30.0
SECONDS_TO_CORRECT = 10.0  # of a timing run after which children are measured again
_MOST_ROUNDS = 10
_LEAST_TIMED = 3  # forwards of a visit
_SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Judged:
    """What one model is worth on text that chose nothing.

    Args:
        loss: Its distance from the base model; None where it cuts text into other tokens.
        cosine: Of its sentence vectors with the base model's, mean over sentences.
        agreement: Share of the base model's predictions that it gives too: classes, masked words, beginnings and ends
            of answers. None without a head, and where words or answers are cut into other tokens.
        spearman: Rank correlation of its cosines with the scores of the pairs; None without pairs.
        metrics: Those of the task on labelled examples, by name; None without labels.
        predictions: What it says of each of these examples; None without labels, and in a table.
        is_one_class: Whether it gives all of these examples one class, though they have several.
    """

    loss: float | None
    cosine: float
    agreement: float | None
    spearman: float | None
    metrics: Mapping[str, float] | None = None
    predictions: tuple[float, ...] | None = None
    is_one_class: bool = False

    @classmethod
    def from_dict(cls, judged: Mapping[str, Any]) -> "Judged":
        """What a record holds."""
        predictions = judged.get("predictions")
        return cls(**{**judged, "predictions": None if predictions is None else tuple(predictions)})


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
        chosen_metric: The task's metric on the examples that choose, mean over seeds; None where it chooses nothing.
        against_base: How much better it is than the base model by the task's metric; None without labels.
        against_given: Likewise than what is given out for its budget.
        file_bytes: Of its weights on disk, the whole file; None of a base model whose file is not found.
        trimmed: Of a model with a trimmed vocabulary, which is judged with its own tokenizer.
        is_as_it_began: Whether recovery made it no better on the text that chooses, under any seed.
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
    chosen_metric: float | None = None
    against_base: Difference | None = None
    against_given: Difference | None = None
    file_bytes: int | None = None
    trimmed: Vocabulary | None = None
    is_as_it_began: bool = False

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Row":
        """The row that a record holds."""
        names = ("against_base", "against_given")
        differences = {name: None if row[name] is None else Difference(*row[name]) for name in names}
        trimmed = row["trimmed"] and Vocabulary(**row["trimmed"])
        judged = tuple(Judged.from_dict(one) for one in row["judged"])
        return cls(**{**row, **differences, "judged": judged, "trimmed": trimmed})

    @property
    def metrics(self) -> dict[str, float]:
        """The task's metrics, means over seeds; none without labels."""
        return means_of([one.metrics for one in self.judged if one.metrics is not None])

    @property
    def score(self) -> float | None:
        """The mean of those of them that rank; None without labels."""
        return score_of(self.metrics) if self.metrics else None

    def values(self, name: str) -> list[float]:
        """One of the numbers of `Judged` or of its metrics, of every seed; none where it was not measured."""
        found = [getattr(one, name) if hasattr(one, name) else (one.metrics or {}).get(name) for one in self.judged]
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
        metric: The task's, where the batches have labels.
        base_model: Whose predictions of words or answers are the wanted ones; None compares none.
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
        metric: TaskMetric | None = None,
        base_model: PreTrainedModel | None = None,
    ) -> None:
        self._metric, self._base_model = metric, base_model
        self._batches, self._targets, self._distance, self._modules = batches, targets, distance, modules
        self._tokenizer, self._pairs, self._max_length = tokenizer, pairs, max_length
        self._num_prompt_tokens = modules.num_prompt_tokens(tokenizer)

    def __call__(self, model: PreTrainedModel) -> Judged:
        """What a model is worth."""
        losses, cosines, agreements = [], [], []
        predictions: list[float] = []
        with running(model):
            for batch, target in zip(self._batches, self._targets, strict=True):
                states, mask = states_of(model, batch)
                logits = None if target.logits is None else logits_of(model, states, mask)
                parts = self._distance.parts(states, mask, target, logits)
                losses.append(float(self._distance.total(parts)))
                wanted = torch.zeros_like(states)
                wanted[mask] = target.states.to(states)
                own, theirs = (self._vectors(one, mask) for one in (states, wanted))
                cosines += nn.functional.cosine_similarity(own, theirs).tolist()
                if logits is not None and self._metric is not None:
                    predictions += self._metric.predictions(logits)
                if logits is not None and target.logits is not None and logits.shape[-1] > 1:
                    agreements += self._agreement(logits, target.logits.to(logits))
        return Judged(
            statistics.fmean(losses),
            statistics.fmean(cosines),
            statistics.fmean(agreements) if agreements else self._agreement_of_head(model),
            None if self._pairs is None else self._spearman(model, self._tokenizer),
            None if self._metric is None else self._metric(predictions, labels_of(self._batches)),
            None if self._metric is None else tuple(predictions),
        )

    def _vectors(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The vectors (B, D) of sentences that begin with the default prompt."""
        return pooled(self._modules, self._num_prompt_tokens, states, mask)

    def with_tokenizer(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        base_model: PreTrainedModel,
        sentences: Sequence[str],
        max_length: int,
        examples: Sequence[Batch] | None = None,
    ) -> Judged:
        """What a model is worth with a tokenizer of its own: by sentence vectors, and by classes of whole sentences.

        Args:
            model: The model.
            tokenizer: Its tokenizer.
            base_model: The model that it is compared with, which reads by the base model's tokenizer.
            sentences: Text that chose nothing.
            max_length: Tokens of a sentence at most.
            examples: Labelled ones that chose nothing, as its tokenizer cuts them, for the task's metric.
        """
        cosines, agreements = [], []
        ordered = sorted(sentences, key=len)
        with running(model), running(base_model):
            for start in range(0, len(ordered), _PAIR_BATCH):
                texts = [self._modules.default_prompt + text for text in ordered[start : start + _PAIR_BATCH]]
                (own_vectors, own), (their_vectors, theirs) = (
                    self._said(one, tokenised(texts, cuts, max_length))
                    for one, cuts in ((model, tokenizer), (base_model, self._tokenizer))
                )
                cosines += nn.functional.cosine_similarity(own_vectors, their_vectors).tolist()
                if own is not None and theirs is not None and own.shape[-1] > 1:
                    agreements += self._agreement(own, theirs)
        return Judged(
            None,
            statistics.fmean(cosines),
            statistics.fmean(agreements) if agreements else None,
            None if self._pairs is None else self._spearman(model, tokenizer),
            None if examples is None else self._metrics_of(model, examples),
        )

    def _metrics_of(self, model: PreTrainedModel, examples: Sequence[Batch]) -> dict[str, float]:
        assert self._metric is not None
        return self._metric(predictions_of(model, examples, self._metric.predictions), labels_of(examples))

    def _said(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sentence vectors of a batch, and what a classifier of whole sentences makes of it."""
        states, mask = states_of(model, batch)
        logits = None if encoder_of(model).pooler is None else logits_of(model, states, mask)
        return self._vectors(states, mask), logits

    def _agreement(self, logits: torch.Tensor, wanted: torch.Tensor) -> list[float]:
        if self._distance.is_multi_label:
            return ((logits > 0) == (wanted > 0)).float().flatten().tolist()
        return (logits.argmax(-1) == wanted.argmax(-1)).float().tolist()

    @cached_property
    def _wanted_of_head(self) -> torch.Tensor | None:
        if self._base_model is None:
            return None
        return head_predictions(self._base_model, self._batches, self._tokenizer)

    def _agreement_of_head(self, model: PreTrainedModel) -> float | None:
        """The share of predicted words or answers that are the base model's; None of other heads."""
        if self._wanted_of_head is None:
            return None
        found = head_predictions(model, self._batches, self._tokenizer)
        assert found is not None
        return float((found == self._wanted_of_head).float().mean())

    def _spearman(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
        assert self._pairs is not None
        with running(model):
            return spearman_on_pairs(
                lambda batch: self._vectors(*states_of(model, batch)), self._pairs, tokenizer, self._max_length,
                self._modules,
            )  # fmt: skip


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


def digest_of_pairs(path: str | None) -> str | None:
    """A digest of a file of pairs; of none, and of packaged ones, which do not change, None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    return None if path is None or path.startswith(PREFIX) else digest_files([path], ROW_KINDS, "pairs")


def pooled(modules: SentenceModules, num_prompt_tokens: int, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The vectors (B, D) of sentences, from states (B, T, D) whose first tokens may be a prompt's, and their mask."""
    counted = mask.long()
    counted[:, :num_prompt_tokens] = 0
    return modules.pool(states, counted)


def spearman_on_pairs(
    vectors_of: Callable[[Batch], torch.Tensor],
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    modules: SentenceModules,
) -> float:
    """Rank correlation of the likeness of sentence vectors with the scores of pairs.

    Args:
        vectors_of: Makes the sentence vectors of a batch.
        pairs: Rows of `read_pairs`.
        tokenizer: Of the model that makes them.
        max_length: Tokens of a sentence.
        modules: What stands before a sentence, and how two vectors are compared.
    """
    columns = [pairs[name] for name in _PAIRS]
    firsts, seconds, scores = (list(column) for column in columns)
    if modules.do_lower_case:  # its default prompt is so already
        firsts, seconds = ([text.lower() for text in texts] for texts in (firsts, seconds))
    sentences = sorted(dict.fromkeys([*firsts, *seconds]), key=len)
    vectors: dict[str, torch.Tensor] = {}
    for start in range(0, len(sentences), _PAIR_BATCH):
        own = sentences[start : start + _PAIR_BATCH]
        batch = tokenised([modules.default_prompt + text for text in own], tokenizer, max_length)
        vectors |= dict(zip(own, vectors_of(batch), strict=True))
    compared = (torch.stack([vectors[text] for text in texts]) for texts in (firsts, seconds))
    return metrics.spearman(modules.similarities(*compared).tolist(), scores)


def measure_side_by_side(
    config: SupernetConfig,
    children: Sequence[Sequence[str]],
    batch_size: int,
    sequence_length: int,
    seconds: float | None = None,
) -> list[float]:
    """Milliseconds of children by this machine's clock, in turn, so that what slows the machine slows all.

    Args:
        config: Of the super-net that they are children of.
        children: The children.
        batch_size: Sequences of the batch.
        sequence_length: Tokens of each.
        seconds: How long the timing run takes, about, 30 by default; each child is run at least three times.
    """
    device = Device(batch_size=batch_size, sequence_length=sequence_length, num_threads=torch.get_num_threads())
    return measure_children(config, device, children, num_rounds=partial(rounds_of_a_timing_run, seconds=seconds))


def rounds_of_a_timing_run(once: float, seconds: float | None = None) -> int:
    """How often children are visited that take `once` seconds together, run once each."""
    rounds = int((seconds or _SECONDS_OF_A_TIMING_RUN) / max(_LEAST_TIMED * once, 1e-9))
    return min(max(rounds, 1), _MOST_ROUNDS)


def choose_given(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the one of every budget marked that is given out: within it, and the best there.

    The searched child was within it by the clock when it was chosen: where the clock says otherwise now, it is not
    passed over for that.

    Text that chooses decides, not that which judges: by the task's metric where that ranks, else and at a tie by the
    distance from the base model.
    """
    given = {}
    for budget in dict.fromkeys(row.budget for row in rows if row.budget is not None):
        own = [row for row in rows if row.budget == budget and (row.is_within or row.how == SEARCHED)]
        given[budget] = min(own, key=lambda row: Worth(row.chosen_by or 0.0, row.chosen_metric).rank)
    return [dataclasses.replace(row, is_given=row.budget is not None and row is given[row.budget]) for row in rows]


def compare(rows: Sequence[Row], metric: TaskMetric, labels: Sequence[float]) -> list[Row]:
    """The rows with their differences from the base model and from what is given out, by the task's metric.

    Predictions are left out of them: what stands in a table is read by people.

    Args:
        rows: As `choose_given` gives them, with predictions.
        metric: The task's.
        labels: What is right of each example that judges.
    """

    def over(row: Row, other: Row) -> Difference:
        ours, theirs = ([one.predictions for one in own.judged if one.predictions] for own in (row, other))
        return metric.difference(ours, theirs, labels)

    base = next(row for row in rows if row.budget is None)
    given = {row.budget: row for row in rows if row.is_given}
    made = []
    for row in rows:
        judged = tuple(
            dataclasses.replace(one, predictions=None, is_one_class=metric.is_one_class(one.predictions or (), labels))
            for one in row.judged
        )
        made.append(
            dataclasses.replace(
                row,
                judged=judged,
                against_base=None if row is base else over(row, base),
                against_given=None if row is base or row.is_given else over(row, given[row.budget]),
            )
        )
    return made


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the table says, one plain sentence or two for each budget."""
    base = next(row for row in rows if row.budget is None)
    told = []
    is_base_one_class = any(one.is_one_class for one in base.judged)
    if is_base_one_class:
        told.append(
            "The base model predicts one class for every example of the test set, which has several: it has not "
            "learnt the task, and a smaller one cannot either. Fine-tune it longer (hf-nasbert finetune "
            "--num_train_epochs), with another --learning_rate or on more examples, and compress it again."
        )
    for given in (row for row in rows if row.is_given):
        whole_vocabulary = next((row for row in rows if given.trimmed and _is_twin(row, given)), given)
        others = [
            row for row in rows if row.budget == given.budget and row is not given and row is not whole_vocabulary
        ]
        name = "the searched child" if given.how == SEARCHED else f"the child chosen by hand ({given.how})"
        kept = [f"{(given.num_encoder_parameters) / base.num_encoder_parameters:.1%} of the encoder's parameters"]
        if given.file_bytes and base.file_bytes:
            kept.append(f"{given.file_bytes / base.file_bytes:.1%} of the file's bytes")
        kept.append(f"{base.latency_batch_ms / given.latency_batch_ms:.2f} times as fast as the base model on a batch")
        kept.append(f"vectors with a cosine of {given.mean('cosine'):.4f}")
        spearman, whole = given.mean("spearman"), base.mean("spearman")
        if spearman is not None and whole is not None:
            kept.append(
                f"{spearman / whole:.1%} of its correlation on the pairs"
                if whole > 0  # of nothing, and of the wrong sign, there is no share
                else f"a correlation on the pairs of {spearman:.4f} (the base model {whole:.4f})"
            )
        agreement = given.mean("agreement")
        if agreement is not None:
            kept.append(f"{agreement:.1%} of its predictions")
        told.append(f"{given.budget}: {name} was saved: {', '.join(kept)}.")
        if given.is_as_it_began:
            told.append(
                f"{given.budget}: distillation did not improve it on the validation set, so its weights are those "
                "before: try another --learning_rate, more --recovery_steps or more text."
            )
        if not given.is_within:
            told.append(
                f"{given.budget}: timed again for this table, it is above the budget "
                f"({given.latency_batch_ms:.1f} ms, the base model {base.latency_batch_ms:.1f}): "
                "run it on an idle machine, or give a smaller budget."
            )
        if any(one.is_one_class for one in whole_vocabulary.judged) and not is_base_one_class:
            told.append(
                f"{given.budget}: it predicts one class for every example of the test set, which has several: try "
                "more --recovery_steps, another --learning_rate or a larger budget."
            )
        told += _of_task(whole_vocabulary, others, base)
        if given.trimmed is not None:
            told.append(
                f"{given.budget}: its vocabulary is trimmed to {given.trimmed.num_pieces:,} of "
                f"{given.trimmed.num_before:,} pieces; {given.trimmed.cut_otherwise:.1%} of held-out sentences are "
                f"cut into other pieces than before{_of_trimmed(given, whole_vocabulary)}."
            )
        searched = next((row for row in others if row.how == SEARCHED), None)
        if searched is not None and given.how != SEARCHED:
            told.append(
                f"{given.budget}: a hand-made choice is better here than what the search found "
                f"({_what_chose(given)} against {_what_chose(searched)} on the validation set)."
            )
        ahead = [row for row in others if _judged(row) < _judged(whole_vocabulary)]
        for row in ahead:
            within = "" if row.is_within else ", which is above the budget,"
            told.append(
                f"{given.budget}: on the test set, {row.how}{within} is closer to the base model "
                f"(distance {_judged(row):.4g} against {_judged(whole_vocabulary):.4g})."
            )
        if others and not ahead:
            told.append(
                f"{given.budget}: on the test set it is closer to the base model than every other model of the table; "
                "all were trained on the same tokens."
            )
    return told


def _is_twin(row: Row, given: Row) -> bool:
    """Whether a row is the same child with the whole vocabulary."""
    return (row.budget, row.how, row.trimmed) == (given.budget, given.how, None)


def _of_trimmed(given: Row, whole_vocabulary: Row) -> str:
    if given.score is None or whole_vocabulary.score is None:
        return ""
    scores = f"{given.score:.4f} with it, {whole_vocabulary.score:.4f} with the whole one"
    return f", and by {_names_of(given)} it has {scores}"


def _names_of(row: Row) -> str:
    """What `Row.score` is, in words."""
    names = ranking_names(row.metrics)
    return f"the mean of {' and '.join(names)}" if len(names) > 1 else names[0]


def _of_task(given: Row, others: Sequence[Row], base: Row) -> list[str]:
    """What the labels of the examples that judge say of a budget: nothing where there are none."""
    if given.score is None or base.score is None or given.against_base is None:
        return []
    has = f"keeps {given.score / base.score:.1%} of" if base.score > 0 else f"has {given.score:.4f} in place of"
    told = [
        f"{given.budget}: by {_names_of(base)} it {has} the base model's {base.score:.4f}: the difference is "
        f"{_with_error(given.against_base)}."
    ]
    for row in others:
        if row.against_given is not None:
            told.append(
                f"{given.budget}: it is {_beside(row, -row.against_given.mean, row.against_given.standard_error)}."
            )
    return told


def _beside(other: Row, ahead: float, standard_error: float) -> str:
    if not ahead:
        return f"level with {other.how}"
    doubt = "" if abs(ahead) > _SURE * standard_error else ", which these examples are too few to be sure of"
    word = "ahead of" if ahead > 0 else "behind"
    return f"{word} {other.how} by {abs(ahead):.4f} (standard error {standard_error:.4f}){doubt}"


def _with_error(difference: Difference) -> str:
    return f"{difference.mean:+.4f} (standard error {difference.standard_error:.4f})"


def _what_chose(row: Row) -> str:
    by_metric = "" if row.chosen_metric is None else f"metric {row.chosen_metric:.4f}, "
    return f"{by_metric}distance {row.chosen_by:.4f}"


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
                f"{row.how}{', trimmed vocabulary' if row.trimmed else ''}{' (saved)' if row.is_given else ''}"
                f"{'' if row.is_within else ' (above the budget)'}"
            ),
        ),
        ("encoder's parameters", lambda row: f"{row.num_encoder_parameters:,}"),
        ("all parameters", lambda row: f"{row.num_parameters:,}"),
        ("MB on disk", lambda row: "" if row.file_bytes is None else f"{row.file_bytes / 1e6:.1f}"),
        ("distance", lambda row: _told(row, "loss", 4)),
        ("vector cosine", lambda row: _told(row, "cosine", 4)),
        ("predictions kept", lambda row: _told(row, "agreement", 4)),
        *((name.replace("_", " "), partial(_told, name=name, digits=4)) for name in metric_names(rows)),
        ("Spearman on pairs", lambda row: _told(row, "spearman", 4)),
        (f"ms 1x{shape[1]}", lambda row: f"{row.latency_one_ms:.2f}"),
        (f"ms {shape[0]}x{shape[1]}", lambda row: f"{row.latency_batch_ms:.1f}"),
    ]
    filled = [(head, cell) for head, cell in columns if any(cell(row) for row in rows)]
    yield [head for head, _ in filled]
    for row in rows:
        yield [cell(row) for _, cell in filled]


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Names of the task's metrics; none without labels."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def _told(row: Row, name: str, digits: int) -> str:
    values = row.values(name)
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def as_text(rows: Sequence[Row], shape: tuple[int, int]) -> str:
    """The table for a terminal, and what it says."""
    return f"{lines_as_text(list(table_cells(rows, shape)))}\n\n" + "\n".join(verdicts(rows))


def lines_as_text(lines: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first line is its head, the first column stands on the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        "  ".join(
            cell.ljust(width) if column < 1 or cell == "" else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([padded[0], "-" * max(map(len, padded)), *padded[1:]])
