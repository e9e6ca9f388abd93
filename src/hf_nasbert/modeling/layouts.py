"""Weight layouts: which tensors the operators of a choice block are made of.

`SeparateWeights`, an operator's weights are its own, is what every super-net from scratch has unless it asks for
`EntangledWeights` or `ExpertWeights`. `NestedWeights` makes narrow operators of slices of wide ones, for super-nets
that are made of a base model; `EntangledWeights` does so for convolutions too. `ExpertWeights` mixes an operator's
weights by the child that it is of. Training, scoring, interference, sharding and extraction ask the layout, and no
module's name.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from .configuration_nasbert import NasBertShapeConfig
from .geometry_nasbert import inner_width, parse_operator
from .operators_nasbert import NasBertConvolution, NasBertNorm, NasBertSkip, build_operator


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
    def load_state_of(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Give one operator the weights that `state_of` told of another one of its shape; what it shares, it shares.

        Raises:
            RuntimeError: If the weights are not those of the operator, as `load_state_dict`.
        """

    @abc.abstractmethod
    def output_of(self, name: str) -> nn.Module | None:
        """What ends one operator, none of whose weights another operator has; `None` of a skip.

        Of attention and ffn their `NasBertOutput`, of a convolution its last layer: both have the linear map `dense`
        and `LayerNorm`. Of `norm` it is itself.
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

    def reads_child(self, name: str) -> bool:
        """Whether an operator's weights depend on the child that it is of.

        Then `forward` and `state_of` are given `child`, its operators' names; and children that differ anywhere have
        nothing in common from this block on.
        """
        return False

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

    def load_state_of(self, name, state):
        self[name].load_state_dict(state, strict=True)

    def output_of(self, name):
        return _end_of(self[name])

    def parameters_of(self, name):
        return list(self[name].parameters())

    def modules_of(self, name):
        return [self[name]]

    def units(self):
        return list(self.values())


def _end_of(operator: nn.Module) -> nn.Module | None:
    if isinstance(operator, NasBertSkip):
        return None
    if isinstance(operator, NasBertNorm):
        return operator
    return operator.layers[-1] if isinstance(operator, NasBertConvolution) else operator.get_submodule("output")


_INNER = {"attention": ("self.query", "self.key", "self.value"), "ffn": ("intermediate.dense",)}
"""The linear maps into an operator of heads or neurons: what their number cuts."""


class LinearChunk(nn.Linear):
    """Some rows of a linear map, which `forward` gives: whoever moves weights when a module runs, moves these too."""

    def forward(self):  # type: ignore[override]  # it has no input: its weights are what is asked for
        return self.weight, self.bias


class NestedLinear(nn.Module):
    """The first rows of a linear map that several operators share: some of its chunks, one behind the other.

    The chunks belong to the layout. All of them are one product, as in an operator of that size alone.
    """

    def __init__(self, chunks: Sequence[LinearChunk]):
        super().__init__()
        self.chunks = tuple(chunks)  # no submodules: each has one place, and one name in a file
        self.in_features = chunks[0].in_features
        self.out_features = sum(chunk.out_features for chunk in chunks)

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its weight (out_features, in_features) and its bias (out_features,)."""
        weights, biases = zip(*(chunk() for chunk in self.chunks), strict=True)
        return (weights[0], biases[0]) if len(weights) == 1 else (torch.cat(weights), torch.cat(biases))

    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weight and bias of every chunk: the inverse of `rows`."""
        sizes = [chunk.out_features for chunk in self.chunks]
        return list(zip(weight.split(sizes), bias.split(sizes), strict=True))

    def forward(self, hidden_states):
        return nn.functional.linear(hidden_states, *self.rows())


class KernelRing(nn.Conv2d):
    """The taps of a depth-wise kernel around a smaller one, which `forward` gives; the innermost has the bias."""

    def forward(self):  # type: ignore[override]  # as `LinearChunk`
        return self.weight, self.bias


class NestedDepthwise(nn.Module):
    """A depth-wise convolution whose kernel is the middle of a larger one: some of its rings, one around the other."""

    def __init__(self, chunks: Sequence[KernelRing]):
        super().__init__()
        self.chunks = tuple(chunks)  # as `NestedLinear`

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its weight (width, 1, 1, kernel size) and its bias (width,)."""
        weight, bias = self.chunks[0]()
        for chunk in self.chunks[1:]:
            left, right = chunk()[0].chunk(2, dim=-1)
            weight = torch.cat((left, weight, right), dim=-1)
        return weight, bias

    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of every ring: the inverse of `rows`."""
        found: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        for chunk in reversed(self.chunks[1:]):
            side = chunk.kernel_size[1] // 2
            found.append((torch.cat((weight[..., :side], weight[..., -side:]), dim=-1), None))
            weight = weight[..., side:-side]
        return [(weight, bias), *reversed(found)]

    def forward(self, tokens):
        weight, bias = self.rows()
        return nn.functional.conv2d(tokens, weight, bias, padding=(0, weight.shape[-1] // 2), groups=len(weight))


class NestedWeights(WeightLayout):
    """Attentions share heads and ffns share neurons: `attention6` has the first 6 of the heads of `attention`.

    Of operators of one kind and width, what reads the states (query, key, value; the widening map) is one matrix for
    all. It is kept in chunks between their sizes: a child trains those that it uses, and no others. What writes
    (`output_of`) is an operator's own, so that it makes the best of the heads or neurons that it has. All other
    operators have weights of their own.
    """

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__()
        self.candidates = tuple(candidates)
        self.operators = nn.ModuleDict({name: build_operator(config, name) for name in candidates})
        self.chunks = nn.ModuleDict()
        families: dict[tuple[str, int | None], list[str]] = {}
        for name in sorted(candidates, key=lambda name: inner_width(config, name)):
            kind, width = parse_operator(name).kind, parse_operator(name).width
            if kind in _INNER:
                families.setdefault((kind, width), []).append(name)
        for (kind, width), names in families.items():
            shared = nn.ModuleDict()
            for path in _INNER[kind]:
                parent, _, part = path.rpartition(".")
                ends = [inner_width(config, name) for name in names]
                num_inputs = cast(nn.Linear, self.operators[names[0]].get_submodule(path)).in_features
                sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
                chunks = [LinearChunk(num_inputs, size) for size in sizes]
                shared[part] = nn.ModuleList(chunks)
                for count, name in enumerate(names, 1):
                    setattr(self.operators[name].get_submodule(parent), part, NestedLinear(chunks[:count]))
            self.chunks[kind if width is None else f"{kind}@{width}"] = shared

    def forward(self, name, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        return self.operators[name](hidden_states, attention_mask, padding_mask, positions, **kwargs)

    def _shared_of(self, name: str) -> Iterator[tuple[str, NestedLinear | NestedDepthwise]]:
        """The shared maps of an operator under their names in it."""
        modules = self.operators[name].named_modules()
        return ((path, module) for path, module in modules if isinstance(module, NestedLinear | NestedDepthwise))

    def state_of(self, name):
        state = self.operators[name].state_dict()
        for path, module in self._shared_of(name):
            weight, bias = module.rows()
            state |= {f"{path}.weight": weight.detach(), f"{path}.bias": bias.detach()}
        return state

    def load_state_of(self, name, state):
        own = dict(state)
        for path, module in self._shared_of(name):
            parts = []
            for part, now in zip(("weight", "bias"), module.rows(), strict=True):
                given = own.pop(f"{path}.{part}", None)
                if given is None or given.shape != now.shape:
                    found = "missing" if given is None else tuple(given.shape)
                    raise RuntimeError(f"operator {name}: {path}.{part} is {found}, expected {tuple(now.shape)}")
                parts.append(given)
            with torch.no_grad():
                chunks: Sequence[nn.Linear | nn.Conv2d] = module.chunks
                for chunk, (weight, bias) in zip(chunks, module.split(*parts), strict=True):
                    chunk.weight.copy_(weight)
                    if bias is not None and chunk.bias is not None:
                        chunk.bias.copy_(bias)
        self.operators[name].load_state_dict(own, strict=True)

    def output_of(self, name):
        return _end_of(self.operators[name])

    def parameters_of(self, name):
        shared = (chunk for _, module in self._shared_of(name) for chunk in module.chunks)
        modules = [self.operators[name], *shared]
        return [parameter for module in modules for parameter in module.parameters()]

    def modules_of(self, name):
        return [self, self.operators[name]]

    def units(self):
        # What operators share is nobody's part: all of a block are gathered together.
        return [self]


class EntangledWeights(NestedWeights):
    """As `NestedWeights`, and convolutions share kernels: `conv3` has the middle of the taps of `conv7`.

    For super-nets from scratch: one super-kernel serves all sizes (Single-Path NAS: Stamoulis et al., 2019,
    https://arxiv.org/abs/1904.02877; entangled weights: AutoFormer, Chen et al., 2021,
    https://arxiv.org/abs/2107.00651 [public code]). Point-wise maps are an operator's own [ours].
    """

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__(config, candidates)
        families: dict[int | None, list[tuple[int, NasBertConvolution]]] = {}
        for name, operator in self.operators.items():
            if isinstance(operator, NasBertConvolution):
                size = int(parse_operator(name).kind.removeprefix("conv"))
                families.setdefault(parse_operator(name).width, []).append((size, operator))
        for width, family in families.items():
            family.sort(key=lambda one: one[0])
            layers = nn.ModuleList()
            for depth, widest in enumerate(family[-1][1].layers):
                of_widest = cast(nn.Conv2d, widest.get_submodule("depthwise"))
                rings = nn.ModuleList()
                for place, (size, operator) in enumerate(family):
                    num_taps = size - (family[place - 1][0] if place else 0)
                    channels = of_widest.out_channels
                    ring = KernelRing(channels, channels, (1, num_taps), groups=channels, bias=not place)
                    ring.initial_std = of_widest.initial_std  # all are taps of the widest kernel
                    rings.append(ring)
                    operator.layers[depth].depthwise = NestedDepthwise(list(rings))  # type: ignore[arg-type]
                layers.append(rings)
            self.chunks["conv" if width is None else f"conv@{width}"] = layers


_NUM_EXPERTS, _ROUTER_WIDTH = 2, 128
_MIXED = [f"{path}.{part}" for path in ("intermediate.dense", "output.dense") for part in ("weight", "bias")]


class ExpertWeights(WeightLayout):
    """Every ffn has several experts, whose two linear maps are mixed by the child's architecture.

    Mixture-of-Supernets (Jawahar et al., 2024, https://arxiv.org/abs/2306.04845), layer-wise form, written from a
    description (the authors' code is GPL). A router of each ffn, of two linear maps, reads all operators of the child
    as ones among zeros, and gives by a softmax the share of every expert. What is mixed are weights: a child runs, and
    keeps, one matrix. All other operators, and the normalisation of an ffn, have one set of weights.
    """

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__()
        self.candidates = tuple(candidates)
        self.operators = nn.ModuleDict({name: build_operator(config, name) for name in candidates})
        blocks: Sequence[Sequence[str]] = config.space.blocks  # a super-net's
        places = ((block, name) for block, names in enumerate(blocks) for name in names)
        self._places = {place: number for number, place in enumerate(places)}
        self.experts, self.routers = nn.ModuleDict(), nn.ModuleDict()
        for name in filter(self.reads_child, candidates):
            others = [build_operator(config, name) for _ in range(_NUM_EXPERTS - 1)]
            for other in others:
                del cast(nn.Module, other.output).LayerNorm
            self.experts[name] = nn.ModuleList(others)
            self.routers[name] = nn.Sequential(
                nn.Linear(len(self._places), _ROUTER_WIDTH), nn.ReLU(), nn.Linear(_ROUTER_WIDTH, _NUM_EXPERTS)
            )

    def reads_child(self, name):
        return parse_operator(name).kind == "ffn"

    def shares_of(self, name: str, child: Sequence[str]) -> torch.Tensor:
        """The share of every expert of an ffn in a child, (experts,)."""
        weight = next(self.routers[name].parameters())
        chosen = [self._places[place] for place in enumerate(child)]
        read = weight.new_zeros(len(self._places)).index_fill(0, torch.tensor(chosen, device=weight.device), 1.0)
        shares: torch.Tensor = self.routers[name](read).softmax(-1)
        return shares

    def _mixed(self, name: str, child: Sequence[str]) -> dict[str, torch.Tensor]:
        shares, experts = self.shares_of(name, child), (self.operators[name], *cast(nn.ModuleList, self.experts[name]))
        parts = list(zip(shares, experts, strict=True))
        return {path: torch.stack([share * one.get_parameter(path) for share, one in parts]).sum(0) for path in _MIXED}

    def forward(
        self, name, hidden_states, attention_mask=None, padding_mask=None, positions=None, child=None, **kwargs
    ):
        given = (hidden_states, attention_mask, padding_mask, positions)
        if not self.reads_child(name):
            return self.operators[name](*given, **kwargs)
        return functional_call(self.operators[name], self._mixed(name, child), given, kwargs)

    @torch.no_grad()
    def state_of(self, name, child=None):
        """As any layout; an ffn's without a child are those of the first expert."""
        state = self.operators[name].state_dict()
        return state if child is None or not self.reads_child(name) else state | self._mixed(name, child)

    def load_state_of(self, name, state):
        self.operators[name].load_state_dict(state, strict=True)
        for other in cast(nn.ModuleList, self.experts[name]) if name in self.experts else ():
            other.load_state_dict({path: state[path] for path in _MIXED}, strict=True)

    def output_of(self, name):
        return _end_of(self.operators[name])

    def parameters_of(self, name):
        modules = [self.operators[name]]
        if name in self.routers:
            modules += [self.experts[name], self.routers[name]]
        return [parameter for module in modules for parameter in module.parameters()]

    def modules_of(self, name):
        return [self, self.operators[name]]

    def units(self):
        return [self]


LAYOUTS: dict[str, type[WeightLayout]] = {
    "separate": SeparateWeights,
    "nested": NestedWeights,
    "entangled": EntangledWeights,
    "experts": ExpertWeights,
}
"""Layouts by the name that a super-net's config says."""
