"""The layer that some SentenceTransformers have after their pooling: kept as it is, byte by byte."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from hf_nasbert.foreign import ForeignFileError, printable

_ACTIVATIONS = {"Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"}
_VECTOR = "sentence_embedding"


@dataclass(frozen=True)
class Dense:
    """A linear layer and its activation, from vectors (B, in_features) to (B, out_features).

    Args:
        in_features: Width of what is pooled.
        out_features: Width of the vectors.
        bias: Whether the layer has one.
        activation_function: The activation's class in torch, with its module.
        weights: The bytes of its model.safetensors.
    """

    in_features: int
    out_features: int
    bias: bool
    activation_function: str
    weights: bytes

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: bytes | None, shown: str) -> "Dense":
        """The layer that a module's config.json and model.safetensors say.

        Args:
            config: The fields of its config.json.
            weights: The bytes of its model.safetensors; None where there is none.
            shown: What messages call the model.

        Raises:
            ValueError: If it is a layer of a kind that is not kept, or has no weights in that form.
            ForeignFileError: If the two do not fit.
        """
        if weights is None:
            raise ValueError(
                f"the Dense layer of {shown} has no model.safetensors: load and save the model anew with "
                "sentence_transformers"
            )
        wide, narrow = config.get("in_features"), config.get("out_features")
        activation, bias = config.get("activation_function"), config.get("bias", True)
        known = {
            f"torch.nn.modules.{'linear' if name == 'Identity' else 'activation'}.{name}" for name in _ACTIVATIONS
        }
        ends = {config.get(f"module_{end}_name") for end in ("input", "output")}
        if activation not in known or config.get("use_residual") or not ends <= {None, _VECTOR}:
            raise ValueError(
                f"the Dense layer of {shown} has the activation {printable(activation, 100)}, a residual, or other "
                f"input than the pooled vectors; expected a plain one, with {', '.join(sorted(_ACTIVATIONS))}"
            )
        if not (type(wide) is int and type(narrow) is int and min(wide, narrow) > 0 and isinstance(bias, bool)):
            raise ForeignFileError(f"the Dense layer of {shown} has in_features, out_features or bias that are none")
        found = cls(wide, narrow, bias, activation, weights)
        try:
            _ = found.layer
        except (RuntimeError, SafetensorError) as error:
            raise ForeignFileError(
                f"the Dense layer of {shown}: its model.safetensors and its config.json do not fit "
                f"({printable(' '.join(str(error).split()), 300)})"
            ) from error
        return found

    @cached_property
    def layer(self) -> nn.Module:
        """The layer, on the CPU; nothing trains it."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias)
        tensors = safetensors.torch.load(self.weights)
        linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
        activation: nn.Module = getattr(nn, self.activation_function.rpartition(".")[2])()
        return nn.Sequential(linear.requires_grad_(requires_grad=False), activation)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """What it makes of vectors (B, in_features), where they are."""
        found: torch.Tensor = self.layer.to(vectors.device)(vectors.float())
        return found.to(vectors.dtype)

    def config(self) -> dict[str, Any]:
        """The fields of its config.json."""
        names = ("in_features", "out_features", "bias", "activation_function")
        return {name: getattr(self, name) for name in names}
