"""What a head of words or of answers says of text: words at masked places, and where an answer begins and ends."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.elastic.batches import Batch
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, mask_of, running

_EVERY = 7  # of the words, about as many as in training


def states_of(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The last states of a batch (B, T, D), and where its real tokens are."""
    encoder, device = encoder_of(model), next(model.parameters()).device
    hidden_states, masks = encoder.embed(**inputs_of(batch, device))
    return encoder.encoder(hidden_states, masks).float(), mask_of(batch, device)


def head_predictions(
    model: PreTrainedModel, batches: Sequence[Batch], tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor | None:
    """What a model's head predicts, one number each: of a masked-LM head the word, of answers the place.

    Every seventh token that is no special one is masked; the places are the same for every model. Answers begin and
    end at real tokens.

    Args:
        model: A child or a base model.
        batches: Text.
        tokenizer: That cut it.

    Returns:
        Numbers (N,); None of other heads, of none, and where there is no token for masked words, or no word.
    """
    head: Any = model
    if not hasattr(model, "qa_outputs") and (not hasattr(model, "lm_head") or tokenizer.mask_token_id is None):
        return None
    found: list[torch.Tensor] = []
    with running(model):
        for batch in batches:
            if hasattr(model, "qa_outputs"):
                states, real = states_of(model, batch)
                ends = head.qa_outputs(states).masked_fill(~real[..., None], float("-inf"))  # (B, T, 2)
                found.append(ends.argmax(1).flatten())
                continue
            ids = batch["input_ids"]
            words = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
            chosen = words & (words.flatten().cumsum(0).reshape(ids.shape) % _EVERY == 0)
            states, _ = states_of(model, {**batch, "input_ids": ids.masked_fill(chosen, tokenizer.mask_token_id)})
            found.append(head.lm_head(states[chosen.to(states.device)]).argmax(-1))
    predictions = torch.cat(found)
    return predictions if len(predictions) else None
