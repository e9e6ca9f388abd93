"""Masked-LM pre-training of one stand-alone model, alone or by a teacher, on the batches a super-net is trained on."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from hf_nasbert.data import DataArguments, MaskedBatches, fixed_masked_batches, load_corpus
from hf_nasbert.data.batches import IGNORED, NothingToPredictError
from hf_nasbert.data.packaged import model_folder
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.data.trained_on import write_text_files, write_trained_on
from hf_nasbert.finetuning import runs
from hf_nasbert.finetuning.arguments import PretrainChildArguments, RunArguments
from hf_nasbert.finetuning.checkpoints import SealingTrainer
from hf_nasbert.finetuning.distillation import DistillationTrainer, Guide
from hf_nasbert.processes import on_main_process
from hf_nasbert.records import Record, versions
from hf_nasbert.records import append as append_record
from hf_nasbert.records import read as read_records
from hf_nasbert.teachers import read

Batch = dict[str, torch.Tensor]


def load_teacher(arguments: PretrainChildArguments, tokenizer: PreTrainedTokenizerBase) -> Guide | None:
    """The teacher that the arguments name, if they do, of a student with this tokenizer."""
    if arguments.teacher is None:
        return None
    where = RunArguments(
        model=arguments.teacher,
        output_dir=arguments.output_dir,
        revision=arguments.teacher_revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    return Guide(
        where,
        arguments.distillation,
        tokenizer,
        temperature=arguments.temperature,
        num_heads=arguments.num_relation_heads,
    )


def pretrain_child(
    arguments: PretrainChildArguments, data: DataArguments, *, callbacks: Sequence[TrainerCallback] = ()
) -> Record:
    """Train a masked-LM model on, save it to `output_dir`, and record its dev loss before and after.

    The batches are functions of (`data.data_seed`, step) alone: every model given the same data and batch size, with
    inherited weights or from scratch, sees the same sequences under the same masks. Called again with the same
    arguments, a finished run is read from its record and an interrupted one continues from its last checkpoint.

    With a teacher, the loss is shared by its term (see `Guide`), computed on the same masked text: token by token,
    or word by word where its vocabulary is another (see `WordReader`).

    Args:
        arguments: Model, optimization and teacher. With `from_scratch` only the folder's configuration is used.
        data: Text and masking. Without `tokenizer_name` the model's own tokenizer is taken.
        callbacks: Further callbacks for `Trainer`.

    Returns:
        The run's record.

    Raises:
        FileNotFoundError: If the model or a file of the text is missing.
        ValueError: If model, tokenizer, text, teacher and settings do not fit each other, or `output_dir` holds
            something else.
    """
    started = time.perf_counter()
    commit, identity = runs.identify_model(arguments)
    config = runs.load_config(arguments, commit)
    if not data.tokenizer_name:
        data = replace(data, tokenizer_name=model_folder(arguments.model), tokenizer_revision=commit)
    corpus = load_corpus(data)
    runs.check_vocabulary(corpus.tokenizer, config, arguments.model)
    runs.check_length(data.max_seq_length, config, arguments.model)
    masking: dict[str, Any] = {"mlm_probability": data.mlm_probability, "whole_word_mask": data.whole_word_mask}
    batches = MaskedBatches(
        corpus.train, corpus.tokenizer, batch_size=arguments.batch_size, seed=data.data_seed, **masking
    )
    dev_batches = fixed_masked_batches(
        corpus.dev,
        corpus.tokenizer,
        arguments.num_dev_batches,
        arguments.dev_batch_size,
        data.data_seed,
        is_at_most=True,
        **masking,
    )
    teacher = load_teacher(arguments, corpus.tokenizer)
    settings = {
        **arguments.settings(),
        **({} if teacher is None else {"teacher": teacher.identity, "distillation": teacher.kind}),
        **(
            {}
            if teacher is None or teacher.words is None
            else {"teacher_tokenizer": tokenizer_digest(teacher.tokenizer)}
        ),
        "model": identity,
        "tokenizer": tokenizer_digest(corpus.tokenizer),
        "batches": batches.describe(),
    }
    digest = runs.digest_of(settings)
    done = _finished(arguments, digest)
    if done is not None:
        return done
    runs.check_records(arguments)
    folder = Path(arguments.output_dir)
    set_seed(arguments.seed)
    model = runs.load_model(AutoModelForMaskedLM, arguments, commit, config)
    runs.check_length(data.max_seq_length, model, arguments.model)
    if teacher is not None:
        teacher.check(model, data.max_seq_length)
    runs.check_folder(folder, settings)
    if teacher is not None:
        teacher.prepare(model)
    trainer = _make_trainer(
        arguments,
        teacher,
        model=model,
        args=runs.trainer_arguments(
            arguments,
            folder,
            arguments.seed,
            max_steps=arguments.max_steps,
            save_strategy="steps",
            save_steps=arguments.save_steps,
            train_sampling_strategy="sequential",  # the order is MaskedBatches' own
            remove_unused_columns=False,
        ),
        train_dataset=_MaskedExamples(batches, arguments.max_steps),
        data_collator=_as_it_is,
        processing_class=corpus.tokenizer,
        callbacks=list(callbacks),
    )
    # Claimed only now: a setting that is refused must not stand in the way of the corrected one.
    with runs.opened(trainer, folder, settings) as checkpoint:
        # Another process may have brought it to its end while this one was loading.
        done = on_main_process(trainer.accelerator, lambda: _finished(arguments, digest))
        if done is not None:
            return done
        loss_before = dev_loss(model, dev_batches)
        runs.train(trainer, checkpoint)
        loss_after = dev_loss(model, dev_batches)
        if teacher is not None:
            teacher.leave(model)
        record = {
            "kind": "pretrain_child",
            "model": arguments.model,
            "revision": commit,
            "dev_loss_before": loss_before,
            "dev_loss_after": loss_after,
            "losses": runs.learning_curve(trainer, "loss"),
            **({} if teacher is None else _distilled(arguments, teacher, trainer)),
            "num_steps": trainer.state.global_step,
            "num_tokens": trainer.state.global_step * arguments.batch_size * batches.sequence_length,
            "num_sequences": {"train": len(corpus.train), "dev": sum(len(one["labels"]) for one in dev_batches)},
            "num_parameters": model.num_parameters(),
            "seconds": round(time.perf_counter() - started, 3),
            "resumed_from": None if checkpoint is None else checkpoint.name,
            "settings": settings,
            "run": digest,
            "versions": versions(),
        }
        if trainer.is_world_process_zero():
            runs.save_model(model, corpus.tokenizer, folder)
            write_trained_on(folder, data.describe(), batches.describe())
            write_text_files(folder, data.train_files)
            append_record(arguments.records_file, record)
            runs.close_run(folder)
    return record


def _finished(arguments: PretrainChildArguments, digest: str) -> Record | None:
    """The record of a run that an earlier call brought to its end.

    A file of records may be shared; the model must lie in this run's own folder.
    """
    if arguments.records_file.exists() and (Path(arguments.output_dir) / "config.json").is_file():
        for record in read_records(arguments.records_file):
            if record.get("run") == digest:
                return record
    return None


def _make_trainer(arguments: PretrainChildArguments, teacher: Guide | None, **options: Any) -> SealingTrainer:
    if teacher is None:
        return MaskedLMTrainer(**options)
    return DistillationTrainer(guide=teacher, weight=arguments.distillation_weight, **options)


def _distilled(arguments: PretrainChildArguments, teacher: Guide, trainer: Trainer) -> Record:
    return {
        "teacher": {
            "model": arguments.teacher,
            "distillation": teacher.kind,
            "compared": "tokens" if teacher.words is None else "words",
            "weight": arguments.distillation_weight,
            "num_parameters": teacher.model.num_parameters(),
        },
        "masked_lm_losses": runs.learning_curve(trainer, "masked_lm_loss"),
        "distillation_losses": runs.learning_curve(trainer, "distillation_loss"),
    }


class MaskedLMTrainer(SealingTrainer):
    """A trainer whose loss needs no logits of the unmasked positions, which nobody reads."""

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean masked-LM loss per labelled token."""
        assert not return_outputs
        total, num_labels = _sum_of_losses(model, self.accelerator.unwrap_model(model), inputs)
        if num_labels == 0:
            raise NothingToPredictError("a batch")
        return total / num_labels


def _sum_of_losses(model: nn.Module, inner: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, int]:
    """Sum of the masked-LM losses at the labelled tokens, and their number; `inner` is the model that `model` runs."""
    labels = batch["labels"].flatten()
    positions = (labels != IGNORED).nonzero().squeeze(-1)
    logits = read(inner, batch, runner=model).logits
    return nn.functional.cross_entropy(logits.float(), labels[positions], reduction="sum"), len(positions)


@torch.no_grad()
def dev_loss(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Mean masked-LM loss per labelled token over all batches, without dropout; the model's mode is left as it was."""
    was_training = model.training
    model.train(False)
    total, num_labels = 0.0, 0
    for batch in batches:
        here = {name: tensor.to(model.device) for name, tensor in batch.items()}
        loss, num_here = _sum_of_losses(model, model, here)
        total, num_labels = total + float(loss), num_labels + num_here
    model.train(was_training)
    return total / num_labels


class _MaskedExamples(torch.utils.data.Dataset[Batch]):
    """The rows of all steps in a row: `Trainer` can share them among devices, and skip on resuming."""

    def __init__(self, batches: MaskedBatches, num_steps: int) -> None:
        self.batches, self.num_steps = batches, num_steps

    def __len__(self) -> int:
        return self.num_steps * self.batches.batch_size

    def __getitems__(self, indices: list[int]) -> Batch:
        """The rows of one micro-batch, which are neighbours within one step, stacked."""
        step, first = divmod(indices[0], self.batches.batch_size)
        return self.batches.batch(step, slice(first, first + len(indices)))


def _as_it_is(batch: Any) -> Any:
    return batch
