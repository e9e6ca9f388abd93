"""Model classes that each break one promise, by which the contracts show that they find it."""

import torch
from torch import nn

from hf_nasbert.modeling import NasBertForMaskedLM, NasBertModel, SupernetForMaskedLM


class LooseForMaskedLM(NasBertForMaskedLM):
    """Says nothing of tied weights."""

    _tied_weights_keys = {}


class BlindModel(NasBertModel):
    """Ignores `attention_mask`."""

    def embed(self, input_ids=None, attention_mask=None, *rest, **kwargs):
        return super().embed(input_ids, None, *rest, **kwargs)


class HalfBlindModel(NasBertModel):
    """Hides padding from attention, and not from convolutions."""

    def embed(self, *args, **kwargs):
        hidden_states, masks = super().embed(*args, **kwargs)
        return hidden_states, masks._replace(padding=None)


class BlindForMaskedLM(SupernetForMaskedLM):
    """A super-net that ignores `attention_mask`."""

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return super().forward(input_ids, **kwargs)


class TornForMaskedLM(NasBertForMaskedLM):
    """Is tied, and loses the tie where somebody gives the decoder new weights of its own."""

    def tie_weights(self, *args, **kwargs):
        super().tie_weights(*args, **kwargs)
        self.lm_head.decoder.weight = nn.Parameter(self.lm_head.decoder.weight.detach().clone())


class TornSupernetForMaskedLM(SupernetForMaskedLM):
    """A super-net whose tie is lost on loading alone."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        found = super().from_pretrained(*args, **kwargs)
        if kwargs.get("output_loading_info"):
            found[0].lm_head.decoder.weight = nn.Parameter(found[0].lm_head.decoder.weight.detach().clone())
        return found


class ForgetfulModel(NasBertModel):
    """Draws no initial weights for what a checkpoint lacks."""

    def _init_weights(self, module):
        pass


class UnsavedModel(NasBertModel):
    """Has a buffer that is not saved, and that nothing fills on loading."""

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.scale = nn.Buffer(torch.ones(1), persistent=False)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state * self.scale
        return output


class DroppingForMaskedLM(NasBertForMaskedLM):
    """Drops out outside of training."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = nn.functional.dropout(output.logits, 0.5)
        return output


class DoublingForMaskedLM(NasBertForMaskedLM):
    """Reads embedded tokens as others than they are."""

    def forward(self, input_ids=None, *args, inputs_embeds=None, **kwargs):
        inputs_embeds = None if inputs_embeds is None else inputs_embeds * 2
        return super().forward(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states):
        return states.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class BackwardsForMaskedLM(NasBertForMaskedLM):
    """Computes gradients of the wrong sign."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = _Backwards.apply(output.logits)
        return output
