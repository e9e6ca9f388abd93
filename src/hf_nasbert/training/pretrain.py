"""From text to a trained super-net: data, model and loop put together."""

from typing import Any

import torch

from hf_nasbert.data import DataArguments, MaskedBatches, fixed_masked_batches, load_corpus
from hf_nasbert.data.vocabulary import padding_id, vocabulary_size
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.processes import leave_world
from hf_nasbert.training.arguments import SupernetArguments, SupernetTrainingArguments
from hf_nasbert.training.loop import TrainingOutput, train_supernet
from hf_nasbert.training.machine import make_accelerator


def pretrain_supernet(
    supernet_arguments: SupernetArguments, data_arguments: DataArguments, arguments: SupernetTrainingArguments
) -> TrainingOutput:
    """Train a super-net on text; `arguments.output_dir` then loads with `SupernetForMaskedLM.from_pretrained`.

    Raises:
        ValueError: If anything asked for does not fit, or text or checkpoint are no good; the message names it.
    """
    accelerator = make_accelerator(arguments)
    with accelerator.main_process_first():  # the others find tokenizer and packed text in the cache
        corpus = load_corpus(data_arguments)
    config = supernet_arguments.build_config(
        vocab_size=vocabulary_size(corpus.tokenizer), pad_token_id=padding_id(corpus.tokenizer)
    )
    if config.max_position_embeddings < data_arguments.max_seq_length:
        raise ValueError(
            f"max_seq_length={data_arguments.max_seq_length} exceeds the super-net's max_position_embeddings="
            f"{config.max_position_embeddings}"
        )
    supernet = initial_supernet(config, arguments.seed)
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
        seed=data_arguments.data_seed,  # runs of several seeds are scored alike
        **masking,
    )
    output = train_supernet(
        supernet,
        arguments,
        batches,
        dev_batches,
        tokenizer=corpus.tokenizer,
        accelerator=accelerator,
        text=data_arguments.describe(),
    )
    leave_world()
    return output


def initial_supernet(config: SupernetConfig, seed: int) -> SupernetForMaskedLM:
    """The super-net that `pretrain_supernet` starts from; the same torch gives the same weights to the bit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SupernetForMaskedLM(config)
