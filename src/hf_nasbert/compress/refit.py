"""Variants that work before any training: each output projection refitted in closed form to the base model's output.

Of an attention with fewer heads or an ffn with fewer neurons, what is left is a linear map from the kept ones, h, to
the sub-layer's output. The map that comes nearest to the whole sub-layer's output y on real text is a ridge regression
of y on h; its matrices are sums over tokens. Since narrow operators are the first parts of the wide one, one pass of
the base model over some 20,000 tokens gives the sums of all of them. A `norm` adds the mean of y.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from hf_nasbert.compress.encoders import encoder_of, inputs_of, mask_of, running
from hf_nasbert.compress.kept import weights_digest
from hf_nasbert.compress.sentences import Batch, digest_of
from hf_nasbert.modeling.geometry_nasbert import SIZED_KINDS, inner_width, operator_kind
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.training.checkpoints import first_difference
from hf_nasbert.writing import write_bytes

_NORM = "norm"
Errors = dict[str, float]
"""What a refitted variant misses of the sub-layer's output: squared error over variance, by `block operator`."""


class Moments:
    """Sums over tokens of what goes into an output projection and of what comes out: all that a regression needs.

    Products are taken in the states' precision batch by batch and added up in double precision.

    Args:
        num_inputs: How many of the first inputs count.
        num_outputs: Width of the output.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        self.num_tokens = 0
        self.inputs = torch.zeros(num_inputs, dtype=torch.float64)
        self.outputs = torch.zeros(num_outputs, dtype=torch.float64)
        self.gram = torch.zeros(num_inputs, num_inputs, dtype=torch.float64)
        self.cross = torch.zeros(num_inputs, num_outputs, dtype=torch.float64)
        self.squares = 0.0

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Count some tokens: inputs (N, F), of which the first count, and outputs (N, D)."""
        kept = inputs[:, : len(self.inputs)]
        self.num_tokens += len(kept)
        self.inputs += kept.double().sum(0).cpu()
        self.outputs += outputs.double().sum(0).cpu()
        self.gram += (kept.T @ kept).double().cpu()
        self.cross += (kept.T @ outputs).double().cpu()
        self.squares += float(outputs.double().square().sum())

    def fit(self, size: int, ridge: float) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The linear map from the first `size` inputs that comes nearest to the outputs.

        Args:
            size: How many inputs it reads.
            ridge: Added to the inputs' variances, in multiples of their mean: large weights cost.

        Returns:
            Its weight (D, size) and bias (D,), and the squared error over the outputs' variance.
        """
        mean, mean_output = self.inputs[:size] / self.num_tokens, self.outputs / self.num_tokens
        gram = self.gram[:size, :size] / self.num_tokens - torch.outer(mean, mean)
        cross = self.cross[:size] / self.num_tokens - torch.outer(mean, mean_output)
        variance = self.squares / self.num_tokens - float(mean_output.square().sum())
        damped = gram + ridge * gram.diagonal().mean() * torch.eye(size, dtype=gram.dtype)
        weight = torch.linalg.solve(damped, cross).T  # (D, size)
        left = variance - 2 * float((weight.T * cross).sum()) + float(((weight @ gram) * weight).sum())
        return weight, mean_output - weight @ mean, max(left, 0.0) / variance if variance > 0 else 0.0


def refit(
    supernet: SupernetPreTrainedModel,
    batches: Sequence[Batch],
    *,
    ridge: float = 1e-3,
    kept: str | Path | None = None,
) -> Errors:
    """Refit every narrow variant of an elastic super-net to its largest child, the base model, in place.

    Sort heads and neurons by importance before the super-net is made. Operators that are neither slices of the base
    model's nor a `norm` (convolutions, skips) stay as they are.

    Args:
        supernet: As `elastic_supernet` made it: what it has learned since is overwritten.
        batches: Some 20,000 real tokens.
        ridge: See `Moments.fit`.
        kept: File (.safetensors) of the refitted weights: taken up again where it is there.

    Returns:
        The error that each variant is left with.

    Raises:
        ValueError: If there is no batch, or `kept` is of another call.
    """
    if not batches:
        raise ValueError("variants are refitted on text, and there is no batch")
    asked = {"weights": weights_digest(supernet), "batches": digest_of(batches), "ridge": ridge}
    found = None if kept is None else _read(Path(kept), asked)
    if found is None:
        found = _fit(supernet, _moments(supernet, batches), ridge)
        if kept is not None:
            fitted, errors = found
            content = {"asked": json.dumps(asked), "errors": json.dumps(errors)}
            write_bytes(kept, save(fitted, metadata=content))
    fitted, errors = found
    own = dict(_variants(supernet))
    with torch.no_grad():
        for name, tensor in fitted.items():
            variant, _, part = name.rpartition("/")
            output = own[variant]
            (output if part == "norm" else output.dense).get_parameter("bias" if part == "norm" else part).copy_(
                tensor
            )
    return errors


def _variants(supernet: SupernetPreTrainedModel) -> Iterator[tuple[str, Any]]:
    """The names of what can be refitted, `block operator`, and the modules that end them."""
    full = supernet.largest_architecture
    for index, block in enumerate(encoder_of(supernet).encoder.blocks):
        kind = operator_kind(full[index])
        for name in block.operators.candidates:
            is_slice = operator_kind(name) == kind and kind in SIZED_KINDS and name != full[index]
            if is_slice or (operator_kind(name) == _NORM and kind in SIZED_KINDS):
                yield f"{index} {name}", block.operators.output_of(name)


@torch.no_grad()
def _moments(supernet: SupernetPreTrainedModel, batches: Sequence[Batch]) -> dict[int, Moments]:
    """The sums of every block of the base model, of as many inputs as its widest variant reads."""
    sizes: dict[int, int] = {}
    for variant, _ in _variants(supernet):
        block, _, name = variant.partition(" ")
        size = 0 if operator_kind(name) == _NORM else inner_width(supernet.config, name)
        sizes[int(block)] = max(size, sizes.get(int(block), 0))
    encoder, device = encoder_of(supernet), next(supernet.parameters()).device
    full = supernet.largest_architecture
    ends = {block: encoder.encoder.blocks[block].operators.output_of(full[block]) for block in sizes}
    moments = {block: Moments(size, ends[block].dense.out_features) for block, size in sizes.items()}
    masks: list[torch.Tensor] = []

    def hook_of(own: Moments) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            own.add(inputs[0][masks[-1]], output[masks[-1]])

        return hook

    hooks = [ends[block].dense.register_forward_hook(hook_of(own)) for block, own in moments.items()]
    try:
        with running(supernet):
            for batch in batches:
                masks.append(mask_of(batch, device))
                hidden_states, both = encoder.embed(**inputs_of(batch, device))
                encoder.encoder(hidden_states, both, architecture=full)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _fit(
    supernet: SupernetPreTrainedModel, moments: Mapping[int, Moments], ridge: float
) -> tuple[dict[str, torch.Tensor], Errors]:
    fitted: dict[str, torch.Tensor] = {}
    errors: Errors = {}
    for variant, _ in _variants(supernet):
        block, _, name = variant.partition(" ")
        own = moments[int(block)]
        if operator_kind(name) == _NORM:
            fitted[f"{variant}/norm"] = (own.outputs / own.num_tokens).float()
            errors[variant] = 1.0
            continue
        weight, bias, errors[variant] = own.fit(inner_width(supernet.config, name), ridge)
        fitted |= {f"{variant}/weight": weight.float().contiguous(), f"{variant}/bias": bias.float()}
    return fitted, errors


def _read(path: Path, asked: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], Errors] | None:
    if not path.exists():
        return None
    try:
        file: Any = safe_open(str(path), framework="pt")
        content = file.metadata() or {}
        difference = first_difference(json.loads(content.get("asked", "{}")), asked)
        if difference is None:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, json.loads(content["errors"])
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it") from None
    raise ValueError(
        f"{path} holds variants of another model or text ({difference}): name another folder, or delete it"
    )
