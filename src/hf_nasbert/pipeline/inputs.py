"""What measuring a super-net starts with: its weights, its tokenizer, and held-out text that fits both."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hf_nasbert.data import DataArguments, digest_of, fixed_masked_batches, load_held_out, load_tokenizer
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline.text_settings import check_against_training, find_tokenizer

logger = logging.getLogger(__name__)


_NOT_IN_TENSORS = ("copies", "hidden_act", "pooler_act", "layer_norm_eps", "pad_token_id")


def supernet_digest(folder: str | Path) -> str:
    """A fingerprint of a super-net, the same in a run's folder and its last checkpoint.

    It is that of the weights and of what else decides what a child computes: which copy serves it, activations. A
    config's defaults leave no trace, nor does what names and shapes of weights tell, so most super-nets keep the
    fingerprint that earlier records have; for their sake the width of heads is left out.

    Raises:
        ValueError: If its config.json is damaged, or none of a super-net.
    """
    folder = Path(folder)
    content = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("model*.safetensors"))))
    if (folder / "config.json").is_file():
        config, plain = load_supernet_config(folder), SupernetConfig()
        told = {name: value for name in _NOT_IN_TENSORS if (value := getattr(config, name)) != getattr(plain, name)}
        if config.weight_layout == "experts":  # its routers read the operators by their order
            told["search_space"] = config.search_space
        if told:
            content.update(json.dumps(told, sort_keys=True).encode())
    return content.hexdigest()[:16]


def load_dev_batches(
    config: SupernetConfig, folder: str | Path, data: DataArguments, *, num_batches: int, batch_size: int
) -> tuple[list[dict[str, torch.Tensor]], dict[str, Any]]:
    """The fixed dev batches for a super-net, and the settings that they depend on.

    Args:
        config: The super-net's.
        folder: Its folder, in which its own tokenizer is looked for if `data` names none.
        data: The text.
        num_batches: Batches of held-out text; of one that has fewer, as many as there are.
        batch_size: Sequences in each of them.

    Returns:
        The batches, and plain JSON types that tell them from others.

    Raises:
        FileNotFoundError: If a file of the text is missing.
        ValueError: If super-net, tokenizer and text do not fit each other, or part of the text that would be held out
            was trained on.
    """
    check_against_training(folder, data)
    longest = config.max_position_embeddings
    if data.max_seq_length > longest:
        raise ValueError(f"max_seq_length={data.max_seq_length}, but the super-net was built for {longest} tokens")
    own = find_tokenizer(folder)
    name = data.tokenizer_name or own
    if name is None:
        raise ValueError(f"{folder} holds no tokenizer: name the one it was trained with (tokenizer_name)")
    dev, tokenizer = load_held_out(replace(data, tokenizer_name=str(name)))
    size = vocabulary_size(tokenizer)
    # A base model may have more embeddings than its tokenizer has tokens.
    if size > config.vocab_size or (size < config.vocab_size and config.weight_layout != "nested"):
        raise ValueError(
            f"the tokenizer has {size} tokens, the super-net {config.vocab_size} "
            "embeddings: name the one it was trained with (tokenizer_name)"
        )
    if data.tokenizer_name and own is not None:
        digest = tokenizer_digest(load_tokenizer(replace(data, tokenizer_name=str(own), tokenizer_revision=None)))
        if digest != tokenizer_digest(tokenizer):
            logger.warning("%s was trained with its own tokenizer, now it is %s", folder, data.tokenizer_name)
    batches = fixed_masked_batches(
        dev,
        tokenizer,
        num_batches,
        batch_size,
        data.data_seed,
        mlm_probability=data.mlm_probability,
        whole_word_mask=data.whole_word_mask,
        is_at_most=True,
    )
    if not any(bool((batch["labels"] != -100).any()) for batch in batches):
        raise ValueError(
            f"no token of the {len(batches)} dev batches is masked, so that there is nothing to predict: raise "
            "mlm_probability, or the number or size of the dev batches"
        )
    settings = {
        "text": data.packaged or data.dataset_name or [Path(file).name for file in data.train_files or []],
        "data_seed": data.data_seed,
        "max_seq_length": data.max_seq_length,
        "num_dev_batches": len(batches),
        "dev_batch_size": len(batches[0]["labels"]),
        "dev_data": digest_of(batches),
    }
    return batches, settings
