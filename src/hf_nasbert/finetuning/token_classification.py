"""Fine-tune any token classifier on tagged words (parts of speech, named entities), over several seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from hf_nasbert.finetuning.arguments import FinetuneTokensArguments
from hf_nasbert.finetuning.tagging_metric import TaggingMetric
from hf_nasbert.finetuning.tasks import FinetuneResult, Task, check_finite, run_seeds, sample_splits
from hf_nasbert.finetuning.token_classification_data import TaggedWords, load_tagged_dataset, load_tagged_files

_IGNORED = -100  # the label that cross-entropy skips


def finetune_tokens(
    arguments: FinetuneTokensArguments, *, callbacks: Sequence[TrainerCallback] = ()
) -> FinetuneResult:
    """Fine-tune a model on tagged words once per seed and append one record per seed; see `run_seeds`.

    A word is labelled and predicted at its first piece; sentences longer than the model go through it in several
    parts, so that every word counts. Entities (BIO, BIOES, BILOU) are judged by their F1, other tags by accuracy.

    Raises:
        FileNotFoundError: If the model or a file is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
    """
    return run_seeds(arguments, TokenTask(load_words(arguments), arguments.max_seq_length), callbacks)


def load_words(arguments: FinetuneTokensArguments) -> TaggedWords:
    """The tagged words that the arguments name, cut to the sizes they ask for."""
    columns: dict[str, Any] = {"tokens": arguments.tokens_column, "tags": arguments.tags_column}
    columns["cache_dir"] = arguments.cache_dir
    if arguments.dataset_name:
        words = load_tagged_dataset(arguments.dataset_name, arguments.dataset_config, **columns)
    else:
        columns |= {"validation_fraction": arguments.validation_fraction, "data_seed": arguments.data_seed}
        files = (str(arguments.train_file), arguments.validation_file, arguments.test_file)
        words = load_tagged_files(*files, **columns)
    return replace(words, splits=sample_splits(arguments, words.splits))


class TokenTask(Task):
    """Words to tags."""

    auto_class = AutoModelForTokenClassification
    hub_task = "token-classification"
    text_columns = ("tokens",)
    tokenizer_options: ClassVar[dict[str, Any]] = {"add_prefix_space": True}  # byte-level BPE asks for it

    def __init__(self, data: TaggedWords, max_seq_length: int) -> None:
        self.data, self.max_seq_length = data, max_seq_length
        self.name, self.splits = data.name, data.splits
        self._sentence_of: dict[str, list[int]] = {}  # of every part of a split

    def digest(self) -> str:
        """A hash of all words and tags."""
        return self.data.digest()

    def configure(self, config: PreTrainedConfig) -> None:
        """Name the tags."""
        config.id2label = dict(enumerate(self.data.label_names))
        config.label2id = {name: index for index, name in enumerate(self.data.label_names)}

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Token ids of the sentences' parts, and the tag of every word at its first piece."""
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} does not say which word a piece belongs to")
        inputs = self.splits[split].map(
            lambda rows, numbers: encode_words(rows, numbers, tokenizer, self.max_seq_length),
            with_indices=True,
            batched=True,
            remove_columns=self.splits[split].column_names,
            desc=f"Tokenizing {split}",
        )
        self._sentence_of[split] = inputs["sentence"][:]
        return inputs.remove_columns("sentence")

    def texts(self, split: str, most: int) -> list[tuple[str, ...]]:
        """The words of the first rows, with spaces between them."""
        return [(" ".join(words),) for words in self.splits[split][:most]["tokens"]]

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Pads each batch to its own longest part, labels too."""
        return DataCollatorForTokenClassification(tokenizer)

    def compute_metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """F1 of entities or accuracy of tags as the score, over the split's whole sentences."""
        metric = TaggingMetric("entities" if self.data.has_entities else "tags", keep_in_memory=True)

        def compute(prediction: EvalPrediction) -> dict[str, float]:
            logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
            check_finite(self.name, logits)
            found, right = self._sentences(split, logits.argmax(axis=-1), prediction.label_ids)
            metrics: dict[str, float] = metric.compute(predictions=found, references=right)
            return {**metrics, "score": metrics["f1" if self.data.has_entities else "accuracy"]}

        return compute

    def _sentences(self, split: str, chosen: Any, labels: Any) -> tuple[list[list[str]], list[list[str]]]:
        """Predicted and right tags of whole sentences, put together from their parts."""
        names = np.array(self.data.label_names, dtype=object)
        found: list[list[str]] = [[] for _ in range(len(self.splits[split]))]
        right: list[list[str]] = [[] for _ in found]
        for part, sentence in enumerate(self._sentence_of[split]):
            is_word = labels[part] != _IGNORED
            found[sentence] += list(names[chosen[part][is_word]])
            right[sentence] += list(names[labels[part][is_word]])
        return found, right


def encode_words(
    rows: dict[str, list[Any]], numbers: Sequence[int], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, list[Any]]:
    """Cut sentences of words into parts of at most `max_seq_length` tokens; every word has its tag in one of them.

    Args:
        rows: `tokens` and `tags` of some sentences.
        numbers: The sentences' own numbers, which every part of them carries as `sentence`.
        tokenizer: A fast one.
        max_seq_length: Tokens of a part, special ones included.
    """
    encoded = _tokenize(rows["tokens"], tokenizer, max_seq_length)
    known = {
        (row, word)
        for part, row in enumerate(encoded["overflow_to_sample_mapping"])
        for word in encoded.word_ids(part)
    }
    if any((row, word) not in known for row, words in enumerate(rows["tokens"]) for word in range(len(words))):
        # A word of which the tokenizer's normaliser leaves nothing, such as a lone control sign.
        heard = [
            [text if (row, word) in known else tokenizer.unk_token for word, text in enumerate(words)]
            for row, words in enumerate(rows["tokens"])
        ]
        encoded = _tokenize(heard, tokenizer, max_seq_length)
    labels: list[list[int]] = []
    sentences: list[int] = []
    last = (-1, -1)  # the word that was labelled last: its further pieces may begin the next part
    for part, row in enumerate(encoded.pop("overflow_to_sample_mapping")):
        labels.append([])
        sentences.append(numbers[row])
        for word in encoded.word_ids(part):
            is_first = word is not None and (row, word) != last
            labels[-1].append(rows["tags"][row][word] if is_first else _IGNORED)
            last = (row, word) if is_first else last
    return {**encoded, "labels": labels, "sentence": sentences}


def _tokenize(sentences: list[list[str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> Any:
    return tokenizer(
        sentences,
        is_split_into_words=True,
        truncation=True,
        max_length=max_seq_length,
        return_overflowing_tokens=True,
    )
