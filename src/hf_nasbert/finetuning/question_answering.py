"""Fine-tune any extractive question answerer on SQuAD-like questions, over several seeds."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from hf_nasbert.finetuning.arguments import FinetuneSquadArguments
from hf_nasbert.finetuning.question_answering_data import Questions, load_squad_dataset, load_squad_files
from hf_nasbert.finetuning.squad_metric import SquadMetric
from hf_nasbert.finetuning.tasks import FinetuneResult, Task, check_finite, run_seeds, sample_splits
from hf_nasbert.writing import write_text


def finetune_squad(arguments: FinetuneSquadArguments, *, callbacks: Sequence[TrainerCallback] = ()) -> FinetuneResult:
    """Fine-tune a model on questions once per seed and append one record per seed; see `run_seeds`.

    Long passages go through the model in windows that overlap by `doc_stride` tokens (Devlin et al., 2019, appendix
    A.5, and their code). Answers of all windows compete by the sum of their start and end logits. Where training
    questions lack an answer (SQuAD v2), the first position stands for none, and `no_answer_threshold` decides.
    `predictions-SPLIT.json` and `nbest-SPLIT.json` lie in every seed's folder, in the official format.

    Raises:
        FileNotFoundError: If the model or a file is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
    """
    return run_seeds(arguments, SquadTask(load_questions(arguments), arguments), callbacks)


def load_questions(arguments: FinetuneSquadArguments) -> Questions:
    """The questions that the arguments name, cut to the sizes they ask for."""
    if arguments.dataset_name:
        questions = load_squad_dataset(
            arguments.dataset_name,
            arguments.dataset_config,
            drop_misaligned=arguments.drop_misaligned,
            cache_dir=arguments.cache_dir,
        )
    else:
        questions = load_squad_files(
            str(arguments.train_file),
            arguments.validation_file,
            arguments.test_file,
            drop_misaligned=arguments.drop_misaligned,
            validation_fraction=arguments.validation_fraction,
            data_seed=arguments.data_seed,
        )
    return replace(questions, splits=sample_splits(arguments, questions.splits))


class Answer(NamedTuple):
    """A span of a passage, and how much the model is for it."""

    score: float
    text: str
    start_logit: float
    end_logit: float


class SquadTask(Task):
    """A question and a passage to a span of the passage."""

    auto_class = AutoModelForQuestionAnswering
    hub_task = "question-answering"
    text_columns = ("question", "context")

    def __init__(self, data: Questions, arguments: FinetuneSquadArguments) -> None:
        self.data, self.arguments = data, arguments
        self.name, self.splits = data.name, data.splits
        self.version = "v2" if data.has_unanswerable else "v1"
        self._windows: dict[str, Dataset] = {}
        self._found: dict[str, tuple[dict[str, str], dict[str, list[Answer]]]] = {}

    def digest(self) -> str:
        """A hash of all questions, passages and answers."""
        return self.data.digest()

    def configure(self, config: PreTrainedConfig) -> None:
        """Two outputs for every token: is it the start, is it the end?"""
        config.num_labels = 2

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Windows over the passages, with the positions of the first right answer or 0 where there is none."""
        if not tokenizer.is_fast or tokenizer.padding_side != "right":
            raise ValueError(f"{type(tokenizer).__name__} must be a fast tokenizer that pads on the right")
        windows = self.splits[split].map(
            lambda rows, numbers: encode_questions(rows, numbers, tokenizer, self.arguments),
            with_indices=True,
            batched=True,
            batch_size=200,
            remove_columns=self.splits[split].column_names,
            desc=f"Tokenizing {split}",
        )
        self._windows[split] = windows.select_columns(["number", "offsets"])
        return windows.remove_columns(["number", "offsets"])

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Pads each batch to its own longest window."""
        return DataCollatorWithPadding(tokenizer)

    def compute_metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """Exact match and F1 over the split's questions; F1 is the score."""
        metric = SquadMetric(self.version, keep_in_memory=True)
        rows, arguments = self.splits[split], self.arguments

        def compute(prediction: EvalPrediction) -> dict[str, float]:
            logits: Any = prediction.predictions  # of starts and of ends, in a tuple
            start_logits, end_logits = logits[:2]
            check_finite(self.name, start_logits, end_logits)
            best, absent = find_answers(start_logits, end_logits, self._windows[split], rows["context"][:], arguments)
            found = [
                {"id": name, "prediction_text": answers[0].text if answers else "", "no_answer_probability": none}
                for name, answers, none in zip(rows["id"][:], best, absent, strict=True)
            ]
            options = {}
            if self.version == "v2":
                options["no_answer_threshold"] = arguments.no_answer_threshold
            else:
                for one in found:
                    del one["no_answer_probability"]
            references = [{"id": row["id"], "answers": row["answers"]} for row in rows]
            metrics: dict[str, float] = metric.compute(predictions=found, references=references, **options)
            is_withheld = [self.version == "v2" and none > arguments.no_answer_threshold for none in absent]
            texts = {
                one["id"]: "" if no else one["prediction_text"] for one, no in zip(found, is_withheld, strict=True)
            }
            self._found[split] = texts, dict(zip(texts, best, strict=True))
            return {**metrics, "score": metrics["f1"]}

        return compute

    def write_predictions(self, split: str, folder: Path) -> None:
        """The answers as SQuAD's own scripts read them, and the best ones with their logits."""
        texts, best = self._found[split]
        write_text(folder / f"predictions-{split}.json", json.dumps(texts, indent=1, ensure_ascii=False))
        nbest = {name: [answer._asdict() for answer in answers] for name, answers in best.items()}
        write_text(folder / f"nbest-{split}.json", json.dumps(nbest, indent=1, ensure_ascii=False))


def encode_questions(
    rows: Mapping[str, list[Any]],
    numbers: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    arguments: FinetuneSquadArguments,
) -> dict[str, list[Any]]:
    """Windows over the passages of some questions.

    Returns:
        Beside the model's inputs: `start_positions` and `end_positions` of the first right answer, 0 (the first token)
        in windows that do not hold all of it; `number`, the question's own; `offsets`, for every token the first sign
        of its piece of the passage and the one after its last, or (-1, -1) for all other tokens.
    """
    questions = _cut(rows["question"], tokenizer, arguments.max_question_length)
    encoded = tokenizer(
        questions,
        rows["context"],
        truncation="only_second",
        max_length=arguments.max_seq_length,
        stride=arguments.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows: dict[str, list[Any]] = {"start_positions": [], "end_positions": [], "number": [], "offsets": []}
    places = encoded.pop("offset_mapping")
    for window, row in enumerate(encoded.pop("overflow_to_sample_mapping")):
        is_text = [part == 1 for part in encoded.sequence_ids(window)]
        offsets = [list(place) if text else [-1, -1] for place, text in zip(places[window], is_text, strict=True)]
        start, end = _positions(offsets, rows["answers"][row])
        for name, value in zip(windows, (start, end, numbers[row], offsets), strict=True):
            windows[name].append(value)
    return {**encoded, **windows}


def _cut(questions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Questions of at most so many tokens; a tokenizer cannot cut two texts each to its own length."""
    encoded = tokenizer(
        questions, add_special_tokens=False, truncation=True, max_length=max_length, return_offsets_mapping=True
    )
    ends = [places[-1][1] if len(places) == max_length else None for places in encoded["offset_mapping"]]
    return [question[:end] for question, end in zip(questions, ends, strict=True)]


def _positions(offsets: list[list[int]], answers: Mapping[str, list[Any]]) -> tuple[int, int]:
    """First and last token of the first answer, (0, 0) if there is none or the window does not hold it all."""
    if not answers["text"]:
        return 0, 0
    first, last = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
    inside = [token for token, (start, end) in enumerate(offsets) if start < last and end > first and start >= 0]
    if not inside or offsets[inside[0]][0] > first or offsets[inside[-1]][1] < last:
        return 0, 0
    return inside[0], inside[-1]


def find_answers(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    windows: Dataset,
    contexts: Sequence[str],
    arguments: FinetuneSquadArguments,
) -> tuple[list[list[Answer]], list[float]]:
    """The best answers to every question over all its windows.

    Args:
        start_logits: (windows, T).
        end_logits: (windows, T).
        windows: `number` and `offsets` of every window, see `encode_questions`.
        contexts: The questions' passages.
        arguments: For `n_best_size` and `max_answer_length`.

    Returns:
        For every question its answers, best first and each text span once; and the probability that none is right,
        of that and the best answer alone: the lowest score of a window's first token against the best answer's.
    """
    spans: list[dict[tuple[int, int], Answer]] = [{} for _ in contexts]
    none = np.full(len(contexts), np.inf)
    for window, (number, offsets) in enumerate(zip(windows["number"][:], windows["offsets"][:], strict=True)):
        starts, ends = (logits[window, : len(offsets)] for logits in (start_logits, end_logits))
        none[number] = min(none[number], starts[0] + ends[0])
        for first, last in _candidates(starts, ends, np.array(offsets), arguments):
            span = offsets[first][0], offsets[last][1]
            score = float(starts[first] + ends[last])
            if span not in spans[number] or spans[number][span].score < score:
                text = contexts[number][slice(*span)]
                spans[number][span] = Answer(score, text, float(starts[first]), float(ends[last]))
    best = [sorted(found.values(), reverse=True)[: arguments.n_best_size] for found in spans]
    margins = np.array([none[number] - found[0].score if found else np.inf for number, found in enumerate(best)])
    return best, [float(probability) for probability in 1 / (1 + np.exp(-np.clip(margins, -500, 500)))]


def _candidates(
    starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray, arguments: FinetuneSquadArguments
) -> Iterator[tuple[int, int]]:
    """Spans of a window between its best starts and its best ends, if they are none too long."""
    tokens = np.flatnonzero(offsets[:, 0] >= 0)
    firsts, lasts = (tokens[np.argsort(-logits[tokens])][: arguments.n_best_size] for logits in (starts, ends))
    lengths = lasts[None, :] - firsts[:, None] + 1
    for first, last in np.argwhere((lengths >= 1) & (lengths <= arguments.max_answer_length)):
        yield int(firsts[first]), int(lasts[last])
