"""Variants that work before any training: each output projection refitted in closed form to the base model's output.

Of an attention with fewer heads or an ffn with fewer neurons, what is left is a linear map from the kept ones, h, to
the sub-layer's output. The map that comes nearest to the whole sub-layer's output y on real text is a ridge regression
of y on h; its matrices are sums over tokens. Since narrow operators are the first parts of the wide one, one pass of
the base model over some 20,000 tokens gives the sums of all of them, block by block: no more than the matrices of one
block are held at a time. A `norm` adds the mean of y. A convolution reads averages over fixed windows.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from hf_nasbert.elastic.batches import Batch, digest_of
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, mask_of, running
from hf_nasbert.kept import first_difference, weights_digest
from hf_nasbert.modeling.geometry_nasbert import SIZED_KINDS, inner_width, operator_kind
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.operators_nasbert import NasBertConvLayer
from hf_nasbert.writing import write_bytes

_NORM = "norm"
_GOLDEN = (5**0.5 - 1) / 2
_LINEAR_FROM = 3.0  # from here on GELU, SiLU and ReLU pass on what they are given, to about a hundredth
Errors = dict[str, float]
"""What a refitted variant misses of the sub-layer's output: squared error over variance, by `block operator`."""


Fitted = tuple[Mapping[str, torch.Tensor], Errors]
"""Weights by `block operator/parameter`, and the error that each variant is left with."""


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
        spread = gram.diagonal().mean()
        # Of inputs that never change nothing can be learned, and their matrix has no inverse.
        damped = gram + (ridge * spread if spread > 0 else 1.0) * torch.eye(size, dtype=gram.dtype)
        weight = torch.linalg.solve(damped, cross).T  # (D, size)
        left = variance - 2 * float((weight.T * cross).sum()) + float(((weight @ gram) * weight).sum())
        return weight, mean_output - weight @ mean, max(left, 0.0) / variance if variance > 0 else 0.0


def refit(
    supernet: SupernetPreTrainedModel,
    batches: Sequence[Batch],
    *,
    ridge: float = 1e-3,
    kept: str | Path | None = None,
    processes: PartialState | None = None,
) -> Errors:
    """Refit every narrow variant of an elastic super-net to its largest child, the base model, in place.

    Sort heads and neurons by importance before the super-net is made. Convolutions of one layer get fixed windows of
    many widths and a refitted point-wise map; deeper ones, and skips, stay as they are.

    Args:
        supernet: As `elastic_supernet` made it: what it has learned since is overwritten.
        batches: Some 20,000 real tokens.
        ridge: See `Moments.fit`.
        kept: Folder of the blocks that are done, one file each: a killed call goes on after them.
        processes: Those that share out the blocks, in a folder `kept` that all of them see; each has to call with the
            same arguments, and each gets all variants, which do not depend on their number.

    Returns:
        The error that each variant is left with.

    Raises:
        ValueError: If there is no batch, or `kept` is of another call.
    """
    if not batches:
        raise ValueError("variants are refitted on text, and there is no batch")
    # The base model's: what variants were before, or how often they were refitted, does not matter.
    weights = weights_digest(supernet.state_of(supernet.largest_architecture))
    variants = variants_of_blocks(supernet)
    names = [str(variant) for own in variants.values() for variant in own]
    asked = {"weights": weights, "variants": names, "batches": digest_of(batches), "ridge": ridge}

    def fit(blocks: Sequence[int]) -> Iterator[tuple[int, Fitted]]:
        for block, moments in moments_of_blocks(supernet, batches, {block: variants[block] for block in blocks}):
            yield block, fit_block(supernet, moments, variants[block], ridge)

    return fit_blocks(variants, fit, asked, kept, processes)


def fit_blocks(
    variants: Mapping[int, Sequence["Variant"]],
    fit: Callable[[Sequence[int]], Iterable[tuple[int, Fitted]]],
    asked: Mapping[str, Any],
    kept: str | Path | None,
    processes: PartialState | None,
) -> Errors:
    """Give variants what `fit` makes for the blocks that it is asked for, or what an earlier call of the same made.

    Args:
        variants: By block.
        fit: Given blocks in order, each with what is made for it; a block does not depend on which others are asked.
        asked: What decides the result.
        kept: Folder of the blocks that are done, one file each.
        processes: Those that share out the blocks, in a folder `kept` that all of them see.

    Raises:
        ValueError: If `kept` is of another call.
    """
    files = {block: None if kept is None else Path(kept) / f"block-{block:03}.safetensors" for block in variants}
    found = {block: None if file is None else read_fitted(file, asked) for block, file in files.items()}
    to_do = [block for block in variants if found[block] is None]
    if kept is not None and processes is not None and processes.num_processes > 1:
        processes.wait_for_everyone()  # all have seen the same files
        to_do = to_do[processes.process_index :: processes.num_processes]
    for block, fitted in fit(to_do) if to_do else ():
        file = files[block]
        if file is None:
            found[block] = fitted
        else:  # read again below: until then no weights lie in memory twice
            write_fitted(file, asked, fitted)
    if processes is not None:
        processes.wait_for_everyone()
    errors: Errors = {}
    for block, own in variants.items():
        file, made = files[block], found[block]
        if made is None and file is not None:
            made = read_fitted(file, asked)
        assert made is not None
        ends = {str(variant): variant.end for variant in own}
        with torch.no_grad():
            for name, tensor in made[0].items():
                variant_name, _, part = name.rpartition("/")
                ends[variant_name].get_parameter(part).copy_(tensor)
        errors |= made[1]
    return errors


class Variant(NamedTuple):
    """An operator that can be refitted, and the module that ends it."""

    block: int
    name: str
    end: Any

    def __str__(self) -> str:
        return f"{self.block} {self.name}"

    @property
    def is_convolution(self) -> bool:
        """Whether it reads averages over windows, and no heads or neurons."""
        return isinstance(self.end, NasBertConvLayer)


def variants_of(supernet: SupernetPreTrainedModel) -> Iterator[Variant]:
    """All variants of an elastic super-net that have weights of their own beside the base model's."""
    full = supernet.largest_architecture
    for index, block in enumerate(encoder_of(supernet).encoder.blocks):
        kind = operator_kind(full[index])
        for name in block.operators.candidates if kind in SIZED_KINDS else ():
            end = block.operators.output_of(name)
            is_slice = operator_kind(name) == kind and name != full[index]
            is_shallow = isinstance(end, NasBertConvLayer) and supernet.config.num_conv_layers == 1
            if is_slice or is_shallow or operator_kind(name) == _NORM:
                yield Variant(index, name, end)


@torch.no_grad()
def moments_of_blocks(
    supernet: SupernetPreTrainedModel, batches: Sequence[Batch], wanted: Mapping[int, Sequence[Variant]]
) -> Iterator[tuple[int, dict[str, Moments]]]:
    """Block by block the sums that its variants need, of as many inputs as the widest reads, and of convolutions.

    By the variants' name of a convolution; of all others under the empty name.
    """
    encoder, device = encoder_of(supernet), next(supernet.parameters()).device
    width: int = supernet.config.hidden_size
    with running(supernet):
        masks = [mask_of(batch, device) for batch in batches]
        embedded = [encoder.embed(**inputs_of(batch, device)) for batch in batches]
        states, padding = [one for one, _ in embedded], [both for _, both in embedded]
        del embedded
        for block, name in enumerate(supernet.largest_architecture[: max(wanted) + 1]):
            own = wanted.get(block, ())
            narrow = [one.name for one in own if not one.is_convolution and operator_kind(one.name) != _NORM]
            size = max((inner_width(supernet.config, one) for one in narrow), default=0)
            moments = {"": Moments(size, width)} if own else {}
            moments |= {one.name: Moments(width, width) for one in own if one.is_convolution}
            end = encoder.encoder.blocks[block].operators.output_of(name).dense if own else nn.Identity()
            for index, mask in enumerate(masks):
                given = states[index]
                with _calls_of(end) as calls:
                    states[index] = encoder.run_block(block, name, given, padding[index])
                if own:
                    inner, output = (torch.cat(parts, dim=-2)[mask] for parts in zip(*calls, strict=True))
                    moments[""].add(inner, output)
                for one in own:
                    if one.is_convolution:
                        windows = _windows(one.end.depthwise.weight)
                        moments[one.name].add(_averages(given, mask, windows)[mask], output)
            if own:
                yield block, moments


@contextmanager
def _calls_of(linear: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Within it, what goes into a linear map and what comes out, call by call (an ffn may run in chunks of tokens)."""
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = linear.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        yield calls
    finally:
        hook.remove()


def _windows(weight: torch.Tensor) -> torch.Tensor:
    """Windows of a depth-wise convolution, (W, 1, 1, K): bells around the middle, of many widths, that sum to one."""
    num_channels, size = weight.shape[0], weight.shape[-1]
    widths = 0.3 + size / 2 * torch.arange(num_channels).double().mul(_GOLDEN).frac()  # spread evenly, in no order
    places = torch.arange(size).double() - size // 2
    return torch.softmax(-((places / widths[:, None]) ** 2), -1)[:, None, None].to(weight)


def _averages(states: torch.Tensor, mask: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """What a depth-wise convolution makes of states (B, T, W): beyond the real tokens there are zeros."""
    tokens = states.masked_fill(~mask[..., None], 0.0).transpose(1, 2).unsqueeze(2)
    padding = (0, windows.shape[-1] // 2)
    return nn.functional.conv2d(tokens, windows, padding=padding, groups=len(windows)).squeeze(2).transpose(1, 2)


def fit_block(
    supernet: SupernetPreTrainedModel, moments: Mapping[str, Moments], variants: Sequence[Variant], ridge: float
) -> Fitted:
    """The weights of a block's variants, from the sums that `moments_of_blocks` gives, and what each misses."""
    fitted: dict[str, torch.Tensor] = {}
    errors: Errors = {}
    for variant in variants:
        own = moments[variant.name if variant.is_convolution else ""]
        if operator_kind(variant.name) == _NORM:
            fitted[f"{variant}/bias"] = (own.outputs / own.num_tokens).float()
            errors[str(variant)] = 1.0
            continue
        size = len(own.inputs) if variant.is_convolution else inner_width(supernet.config, variant.name)
        weight, bias, errors[str(variant)] = own.fit(size, ridge)
        if variant.is_convolution:
            # An activation follows. Far enough above zero it passes on what it is given; what is added to all channels
            # alike is taken off again by the LayerNorm after it.
            bias = bias + _LINEAR_FROM + 4 * (own.squares / own.num_tokens / len(bias)) ** 0.5
            windows = _windows(variant.end.depthwise.weight)
            fitted |= {f"{variant}/depthwise.weight": windows.cpu().contiguous()}
            fitted |= {f"{variant}/depthwise.bias": torch.zeros(len(windows))}
        fitted |= {f"{variant}/dense.weight": weight.float().contiguous(), f"{variant}/dense.bias": bias.float()}
    return fitted, errors


def variants_of_blocks(supernet: SupernetPreTrainedModel) -> dict[int, list[Variant]]:
    """The same by block, without blocks that have none."""
    found: dict[int, list[Variant]] = {}
    for variant in variants_of(supernet):
        found.setdefault(variant.block, []).append(variant)
    return found


def write_fitted(path: Path, asked: Mapping[str, Any], fitted: Fitted) -> None:
    """Keep fitted weights in a file, beside what they were asked for."""
    content = {"asked": json.dumps(asked), "errors": json.dumps(fitted[1])}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in fitted[0].items()}
    write_bytes(path, save(tensors, metadata=content))


def read_fitted(path: Path, asked: Mapping[str, Any]) -> Fitted | None:
    """What `write_fitted` kept; None where there is no file.

    Raises:
        ValueError: If the file is damaged, or of another call.
    """
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
