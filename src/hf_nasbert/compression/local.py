"""Where a closed form is not enough: variants distilled block by block, each from the states in front of its block.

No gradient goes from block to block, and the base model runs once: a block's variants learn side by side what the base
model makes of its own states there, and its output is what the next block's variants are given. What variants share
with the base model (the maps into heads and neurons) is never moved: only what ends them is.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from hf_nasbert.compression.sentences import Batch, digest_of
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, mask_of, running
from hf_nasbert.elastic.refit import Errors, Fitted, Variant, fit_blocks, variants_of_blocks
from hf_nasbert.kept import weights_digest
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel

_CHECKED = 8  # every so many-th batch checks what the others teach
_LOWEST_RATE = 0.02


def distil_blocks(
    supernet: SupernetPreTrainedModel,
    batches: Sequence[Batch],
    *,
    num_steps: int = 200,
    learning_rate: float = 1e-3,
    seed: int = 0,
    kept_in: str | Path | None = None,
    processes: PartialState | None = None,
) -> Errors:
    """Train what ends every variant, alone, on the base model's states; a variant that does not gain stays as it was.

    The loss is the squared error of the block's output over its variance, at the real tokens.

    Args:
        supernet: Refitted first (`refit`).
        batches: Some 20,000 real tokens; every eighth batch is not trained on and decides.
        num_steps: Steps of every block's variants, a batch each.
        learning_rate: The first one; it falls in a straight line.
        seed: Of the batches' order.
        kept_in: Folder of the blocks that are done, one file each: a killed call goes on after them.
        processes: Those that share out the blocks, in a folder `kept_in` that all of them see; each has to call with
            the same arguments, and each gets all variants, which do not depend on their number.

    Returns:
        The error that each variant is left with on the batches that decide, by `block operator`.

    Raises:
        ValueError: If there are fewer than two batches, or `kept_in` is of another call.
    """
    if len(batches) < 2:
        raise ValueError(f"{len(batches)} batches: one to train on and one to check by are needed at least")
    asked = {
        "weights": weights_digest(supernet), "batches": digest_of(batches), "num_steps": num_steps,
        "learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    encoder, device = encoder_of(supernet), next(supernet.parameters()).device
    full = supernet.largest_architecture
    variants = variants_of_blocks(supernet)

    def fit(blocks: Sequence[int]) -> Iterator[tuple[int, Fitted]]:
        masks = [mask_of(batch, device) for batch in batches]
        embedded = [encoder.embed(**inputs_of(batch, device)) for batch in batches]
        states, padding = [one for one, _ in embedded], [both for _, both in embedded]
        for block, name in enumerate(full[: max(blocks) + 1]):
            wanted = [encoder.run_block(block, name, *given) for given in zip(states, padding, strict=True)]
            if block in blocks:
                places = _Places(encoder, block, states, padding, masks, wanted)
                yield block, _distil(places, variants[block], num_steps, learning_rate, seed)
            states = wanted

    with running(supernet):
        return fit_blocks(variants, fit, asked, kept_in, processes)


class _Places:
    """One block of the base model: what every batch looks like in front of it and after it."""

    def __init__(
        self,
        encoder: Any,
        block: int,
        states: Sequence[torch.Tensor],
        padding: Sequence[Any],
        masks: Sequence[torch.Tensor],
        wanted: Sequence[torch.Tensor],
    ) -> None:
        self._encoder, self._block, self._states, self._padding = encoder, block, states, padding
        self._masks, self._wanted = masks, wanted
        checked = list(range(0, len(states), _CHECKED))
        self.checked, self.taught = checked, [index for index in range(len(states)) if index not in checked]

    def error(self, variant: Variant, index: int) -> torch.Tensor:
        """A variant's squared error on a batch, over the variance there."""
        mask = self._masks[index]
        found = self._encoder.run_block(self._block, variant.name, self._states[index], self._padding[index])[mask]
        wanted = self._wanted[index][mask]
        error: torch.Tensor = (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
        return error

    def checked_error(self, variant: Variant) -> float:
        """A variant's mean error on the batches that decide."""
        with torch.no_grad():
            return sum(float(self.error(variant, index)) for index in self.checked) / len(self.checked)

    def order(self, num_steps: int, seed: int) -> Iterator[int]:
        """The batches to learn from, round after round."""
        for step in range(num_steps):
            number, place = divmod(step, len(self.taught))
            if place == 0:
                own = list(self.taught)
                random.Random(f"{seed} {number}").shuffle(own)
            yield own[place]


def _distil(places: _Places, variants: Sequence[Variant], num_steps: int, learning_rate: float, seed: int) -> Fitted:
    before = {str(variant): (places.checked_error(variant), _copy(variant)) for variant in variants}
    own = {str(variant): list(variant.end.parameters()) for variant in variants}
    flags = [(parameter, parameter.requires_grad) for part in own.values() for parameter in part]
    optimizer = torch.optim.AdamW([p for part in own.values() for p in part], lr=learning_rate, weight_decay=0.0)
    try:
        with torch.enable_grad():
            for parameter, _ in flags:
                parameter.requires_grad_(True)
            for step, index in enumerate(places.order(num_steps, seed)):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * max(_LOWEST_RATE, 1 - step / num_steps)
                for variant in variants:
                    parameters = own[str(variant)]
                    gradients = torch.autograd.grad(places.error(variant, index), parameters)
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        parameter.grad = gradient
                    nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
    finally:
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)
    fitted: dict[str, torch.Tensor] = {}
    errors: Errors = {}
    for variant in variants:
        error, kept = before[str(variant)]
        errors[str(variant)] = places.checked_error(variant)
        if errors[str(variant)] < error:
            kept = _copy(variant)
        else:
            errors[str(variant)] = error
        fitted |= {f"{variant}/{part}": tensor for part, tensor in kept.items()}
    return fitted, errors


def _copy(variant: Variant) -> dict[str, torch.Tensor]:
    return {part: parameter.detach().clone() for part, parameter in variant.end.named_parameters()}
