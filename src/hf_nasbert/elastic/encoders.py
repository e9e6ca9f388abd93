"""A full child, a super-net or any other child as what they have in common: embeddings, blocks one by one, a head."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.elastic.batches import INPUTS, Batch


def encoder_of(model: PreTrainedModel) -> Any:
    """The encoder of a child or of a super-net, with any head or none."""
    return model.base_model


def inputs_of(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """What an encoder embeds of a batch, on its device."""
    return {name: batch[name].to(device) for name in INPUTS if name in batch}


def mask_of(batch: Batch, device: torch.device) -> torch.Tensor:
    """True at the real tokens of a batch, (B, T)."""
    return batch["attention_mask"].to(device).bool()


def logits_of(model: PreTrainedModel, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
    """What a classifier makes of the last states (B, T, D).

    Returns:
        Logits (B, C) of a sequence classifier, (N, C) at the real tokens of a token classifier; None of an encoder
        alone, and of heads that say nothing about sequences or tokens as classes (masked LM, questions).
    """
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Module):
        return None
    pooler = encoder_of(model).pooler
    logits: torch.Tensor = classifier(hidden_states[mask] if pooler is None else pooler(hidden_states))
    return logits


def does_bf16_pay(device: torch.device | str = "cpu") -> bool:
    """Whether products in bfloat16 are faster than in single precision here, by the clock.

    Some CPUs take several times as long for them. Ask once, and keep the answer with what is computed by it: results
    of the two differ in their last digits.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        states = torch.ones(256, 256, dtype=dtype, device=device)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            total = nn.functional.linear(states, states)[0, 0].item()  # waits for an accelerator
            times.append(time.perf_counter() - start)
        assert total
        seconds[dtype] = min(times[1:])
    return seconds[torch.bfloat16] < seconds[torch.float32]


@contextmanager
def watched(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """Within it, what each of some modules gave last."""
    outputs: dict[nn.Module, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda called, _, output: outputs.__setitem__(called, output))
        for module in modules
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def running(model: nn.Module, *, bf16: bool = False, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode for a while, so no dropout; with `bf16` products are taken in that precision.

    Every module's own mode comes back, also after an error. Without `gradients` none are kept. Weights must not change
    within it where `bf16` is asked for: each is cast once.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    model.eval()
    try:
        # No autocast around one that is switched off: the inner ones would then keep what they cast.
        cast = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
        with torch.set_grad_enabled(gradients), cast:
            yield
    finally:
        for module, mode in modes:
            module.training = mode
