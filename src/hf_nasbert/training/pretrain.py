"""From text to a trained super-net: data, model and loop put together."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_nasbert.data import DataArguments, MaskedBatches, fixed_masked_batches, load_corpus
from hf_nasbert.data.batches import unmasked_batches
from hf_nasbert.data.trained_on import write_text_files
from hf_nasbert.data.vocabulary import padding_id, vocabulary_size
from hf_nasbert.elastic.base_models import BaseModel, open_base_model
from hf_nasbert.elastic.batches import Batch
from hf_nasbert.elastic.importance import importance, sort_by_importance
from hf_nasbert.elastic.refit import refit
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SUPERNET_FOLDER, SentenceModules
from hf_nasbert.processes import leave_world, on_main_process
from hf_nasbert.space import SearchSpace
from hf_nasbert.teachers import BaseModelTeacher
from hf_nasbert.training.arguments import SupernetArguments, SupernetTrainingArguments
from hf_nasbert.training.checkpoints import find_checkpoint
from hf_nasbert.training.distillation import with_teacher
from hf_nasbert.training.loop import TrainingOutput, train_supernet
from hf_nasbert.training.machine import make_accelerator
from hf_nasbert.training.suitable import check_combination, make_method
from hf_nasbert.writing import whole_folder

_CALIBRATION_TOKENS = 20_000  # for importance, variants, and the spread of the base model's states


@dataclass(frozen=True)
class Pretraining:
    """All that a `SupernetLoop` takes to train a super-net on text, and what is kept beside the super-net.

    Args:
        supernet: The super-net, as training starts from it.
        arguments: How to train.
        batches: The training text, masked.
        dev_batches: The held-out text, masked once for all.
        options: The loop's other arguments, by name: tokenizer, accelerator, text, what a teacher needs.
        base: The base model that it was made of, if any.
    """

    supernet: SupernetPreTrainedModel
    arguments: SupernetTrainingArguments
    batches: MaskedBatches
    dev_batches: list[dict[str, torch.Tensor]]
    options: dict[str, Any]
    base: BaseModel | None = None

    def keep_modules(self) -> None:
        """Write beside the super-net of a SentenceTransformer what makes one of its children."""
        if self.base is not None and self.base.modules is not None:
            modules, width = self.base.modules, self.base.full_child.config.hidden_size
            place = Path(self.arguments.output_dir) / SUPERNET_FOLDER
            on_main_process(self.options["accelerator"], lambda: _keep(modules, place, width))


Origin = SupernetArguments | SupernetConfig | SearchSpace | SupernetPreTrainedModel
"""What a super-net is made by: settings; a config, a space; or the super-net itself."""


def pretrain_supernet(
    supernet_arguments: SupernetArguments, data_arguments: DataArguments, arguments: SupernetTrainingArguments
) -> TrainingOutput:
    """Train a super-net on text; `arguments.output_dir` then loads with `SupernetForMaskedLM.from_pretrained`.

    Raises:
        ValueError: If anything asked for does not fit, or text or checkpoint are no good; the message names it.
    """
    made = prepare_pretraining(supernet_arguments, data_arguments, arguments)
    output = train_supernet(made.supernet, made.arguments, made.batches, made.dev_batches, **made.options)
    on_main_process(
        made.options["accelerator"], lambda: write_text_files(arguments.output_dir, data_arguments.train_files)
    )
    made.keep_modules()
    leave_world()
    return output


def prepare_pretraining(
    origin: Origin, data_arguments: DataArguments, arguments: SupernetTrainingArguments
) -> Pretraining:
    """Load text and tokenizer, and make the super-net.

    Args:
        origin: What the super-net is made by. The vocabulary of a config or a space is the tokenizer's.
        data_arguments: The text.
        arguments: How to train.

    Raises:
        ValueError: If anything asked for does not fit, or the text is no good; the message names it.
    """
    base_model = origin.base_model if isinstance(origin, SupernetArguments) else None
    arguments = with_teacher(arguments, has_base_model=base_model is not None)
    accelerator = make_accelerator(arguments)
    base = None
    if isinstance(origin, SupernetArguments) and base_model is not None:
        base = open_base_model(
            base_model,
            revision=origin.base_model_revision,
            trust_remote_code=origin.trust_remote_code,
            tokenizer_name=data_arguments.tokenizer_name,
            tokenizer_revision=data_arguments.tokenizer_revision,
            lengths={"max_seq_length": data_arguments.max_seq_length},
        )
        if data_arguments.tokenizer_name is None:
            data_arguments = replace(data_arguments, tokenizer_name=base.place, tokenizer_revision=base.revision)
    with accelerator.main_process_first():  # the others find tokenizer and packed text in the cache
        corpus = load_corpus(data_arguments)
    given: dict[str, Any] = {}
    if base is None:
        supernet = _supernet_of(origin, corpus.tokenizer, arguments.seed)
        longest = supernet.config.max_position_embeddings
        if longest < data_arguments.max_seq_length:
            raise ValueError(
                f"max_seq_length={data_arguments.max_seq_length} exceeds the super-net's max_position_embeddings="
                f"{longest}"
            )
    else:
        assert isinstance(origin, SupernetArguments)
        calibration = unmasked_batches(corpus.train, corpus.tokenizer, num_tokens=_CALIBRATION_TOKENS)
        nn.Module.to(base.full_child, accelerator.device)
        supernet = elastic_start(base, origin, arguments, calibration, accelerator)
        is_first_token = base.modules is not None and base.modules.pooling == ("cls",)
        given = {
            "base_model": BaseModelTeacher(base.full_child, calibration),
            "pooling": "cls" if is_first_token else "mean",
        }
    masking: dict[str, Any] = {
        "mlm_probability": data_arguments.mlm_probability,
        "whole_word_mask": data_arguments.whole_word_mask,
    }
    batches = MaskedBatches(
        corpus.train,
        corpus.tokenizer,
        batch_size=arguments.train_batch_size(accelerator.num_processes),
        seed=arguments.seed,
        **masking,
    )
    dev_batches = fixed_masked_batches(
        corpus.dev,
        corpus.tokenizer,
        num_batches=arguments.num_eval_batches,
        batch_size=arguments.per_device_train_batch_size,
        seed=data_arguments.data_seed,  # runs of several seeds are scored the same way
        is_at_most=True,
        **masking,
    )
    given |= {"tokenizer": corpus.tokenizer, "accelerator": accelerator, "text": data_arguments.describe()}
    return Pretraining(supernet, arguments, batches, dev_batches, given, base)


def _supernet_of(origin: Origin, tokenizer: PreTrainedTokenizerBase, seed: int) -> SupernetPreTrainedModel:
    """The super-net that training on words of this tokenizer starts from."""
    words: dict[str, Any] = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": padding_id(tokenizer)}
    if isinstance(origin, SupernetPreTrainedModel):
        if words["vocab_size"] > origin.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {words['vocab_size']} tokens, the super-net {origin.config.vocab_size} "
                "embeddings: give the tokenizer that belongs to it"
            )
        return origin
    if isinstance(origin, SupernetArguments):
        config = origin.build_config(**words)
    elif isinstance(origin, SearchSpace):
        config = SupernetConfig(search_space=origin, **words)
    else:
        config = copy.deepcopy(origin)
        config.update(words)
    return initial_supernet(config, seed)


def _keep(modules: SentenceModules, place: Path, hidden_size: int) -> None:
    """Write beside a super-net what makes a SentenceTransformer of its children; a run that goes on has it."""
    if not place.exists():
        with whole_folder(place) as staging:
            modules.write(staging, hidden_size)


def elastic_start(
    base: BaseModel,
    asked: SupernetArguments,
    arguments: SupernetTrainingArguments,
    calibration: Sequence[Batch],
    accelerator: Accelerator,
) -> SupernetPreTrainedModel:
    """The super-net of a base model that training starts from: its parts sorted and refitted, if that was asked for.

    Only the main process computes that; the others get its weights when training begins. A run that goes on has them
    in its checkpoint.

    Raises:
        ValueError: If the space is none of the base model's, or method, teacher and launch do not fit each other.
    """
    output_dir, which = arguments.output_dir, arguments.resume_from_checkpoint
    goes_on = on_main_process(
        accelerator, lambda: which is not None and find_checkpoint(output_dir, which) is not None
    )
    full_child = copy.deepcopy(base.full_child)  # the base model itself teaches
    is_prepared = asked.refit and not goes_on
    if is_prepared:
        on_main_process(accelerator, lambda: sort_by_importance(full_child, importance(full_child, calibration)))
    if asked.blocks is not None:
        space = SearchSpace.of_blocks(asked.blocks, "anywhere")
    else:
        space = elastic_space(
            full_child, heads=asked.heads, ffn=asked.ffn, kernels=asked.kernels, skip=asked.drop_blocks
        )
    supernet = elastic_supernet(full_child, space)
    if is_prepared:
        check_combination(make_method(supernet, arguments), supernet, arguments, has_base_model=True)
        on_main_process(accelerator, lambda: refit(supernet, calibration))
    return supernet


def initial_supernet(config: SupernetConfig, seed: int) -> SupernetForMaskedLM:
    """The super-net that `pretrain_supernet` starts from; the same torch gives the same weights to the bit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SupernetForMaskedLM(config)
