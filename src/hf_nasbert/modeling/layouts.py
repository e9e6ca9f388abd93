"""Weight layouts: which tensors the operators of a choice block are made of.

`SeparateWeights`, an operator's weights are its own, is what every super-net from scratch has. A layout may as well
make operators of slices of shared matrices (heads, inner widths, kernels), of experts, or of one of several copies:
training, scoring, interference, sharding and extraction ask it, and no module's name.
"""

import abc
from collections.abc import Sequence

import torch
from torch import nn

from .configuration_nasbert import NasBertShapeConfig
from .operators_nasbert import build_operator


class WeightLayout(nn.Module, abc.ABC):
    """The operators of one choice block, on whatever tensors they share.

    A tensor that an operator does not use must have no gradient (`grad is None`) after a step of a child with that
    operator: the optimizer passes over such tensors, and moves all of any other. So of a matrix that operators share
    in part, the parts are parameters of their own, put together in `forward`.

    A layout is made as `layout(config, candidates)`: the sizes of the super-net, and the operators' names.
    """

    candidates: tuple[str, ...]
    """The operators' names, in their order."""

    @abc.abstractmethod
    def forward(
        self, name: str, hidden_states: torch.Tensor, attention_mask=None, padding_mask=None, positions=None, **kwargs
    ) -> torch.Tensor:
        """Run one operator, on what all operators take (`operators_nasbert`)."""

    @abc.abstractmethod
    def state_of(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of one operator under the names, and in the shapes, that `build_operator` gives them.

        Views or copies, without a gradient: a child copies them.
        """

    @abc.abstractmethod
    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The parameters that one operator uses, each once."""

    @abc.abstractmethod
    def modules_of(self, name: str) -> list[nn.Module]:
        """The modules that run for one operator: those that are in training or evaluation mode."""

    @abc.abstractmethod
    def units(self) -> list[nn.Module]:
        """The modules that `forward` calls one by one: each is sharded and compiled by itself."""

    def size_of(self, name: str) -> int:
        """The number of weights of one operator in a child."""
        return sum(tensor.numel() for tensor in self.state_of(name).values())


class SeparateWeights(nn.ModuleDict, WeightLayout):
    """Every operator has weights of its own, shared by all children that choose it: a dictionary of operators."""

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__({name: build_operator(config, name) for name in candidates})
        self.candidates = tuple(candidates)

    def forward(self, name, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        return self[name](hidden_states, attention_mask, padding_mask, positions, **kwargs)

    def state_of(self, name):
        return self[name].state_dict()

    def parameters_of(self, name):
        return list(self[name].parameters())

    def modules_of(self, name):
        return [self[name]]

    def units(self):
        return list(self.values())


LAYOUTS: dict[str, type[WeightLayout]] = {"separate": SeparateWeights}
"""Layouts by the name that a super-net's config says."""
