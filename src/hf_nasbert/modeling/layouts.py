"""Weight layouts: which tensors the operators of a choice block are made of.

`SeparateWeights`, an operator's weights are its own, is what every super-net from scratch has unless it asks for
`EntangledWeights` or `ExpertWeights`. `NestedWeights` makes narrow operators of slices of wide ones, for super-nets
that are made of a base model; `EntangledWeights` does so for convolutions too. `ExpertWeights` mixes an operator's
weights by the child that it is of. Training, scoring, interference, sharding and extraction ask the layout, and no
module's name.
"""

import abc
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, cast

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


def _cells(shapes: Sequence[tuple[int, int]]) -> list[tuple[slice, slice]]:
    """Rows and columns of the pieces that matrices, all with one first corner, cut the largest one into.

    Each lies within one of them, and every matrix is made of those that lie within it.
    """
    rows, columns = (itertools.pairwise([0, *sorted(set(sizes))]) for sizes in zip(*shapes, strict=True))
    places = itertools.product(itertools.starmap(slice, rows), itertools.starmap(slice, columns))
    return [place for place in places if any(_is_within(place, shape) for shape in shapes)]


def _is_within(place: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    return all(part.stop <= size for part, size in zip(place, shape, strict=True))


def _joined(parts: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


class LinearChunk(nn.Linear):
    """A piece of a linear map, which `forward` gives: whoever moves weights when a module runs, moves these too.

    Args:
        place: Its rows and columns in the whole; those of the first columns have the bias.
    """

    def __init__(self, place: tuple[slice, slice]):
        rows, columns = place
        super().__init__(columns.stop - columns.start, rows.stop - rows.start, bias=not columns.start)
        self.place = place

    def forward(self):  # type: ignore[override]  # it has no input: its weights are what is asked for
        return self.weight, self.bias


class NestedLinear(nn.Module):
    """The first rows, and columns, of a linear map that several operators share: some of its chunks, put together.

    The chunks belong to the layout. All of them are one product, as in an operator of that size alone.
    """

    def __init__(self, chunks: Iterable[LinearChunk], shape: tuple[int, int]):
        super().__init__()
        # No submodules: each has one place, and one name in a file.
        self.chunks = tuple(chunk for chunk in chunks if _is_within(chunk.place, shape))
        self.out_features, self.in_features = shape

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its weight (out_features, in_features) and its bias (out_features,)."""
        weights: dict[int, list[torch.Tensor]] = {}
        biases = []
        for chunk in self.chunks:
            weight, bias = chunk()
            weights.setdefault(chunk.place[0].start, []).append(weight)
            biases += [] if bias is None else [bias]
        return _joined([_joined(parts, dim=1) for parts in weights.values()]), _joined(biases)

    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of every chunk: the inverse of `rows`."""
        places = [chunk.place for chunk in self.chunks]
        return [(weight[place], None if place[1].start else bias[place[0]]) for place in places]

    def forward(self, hidden_states):
        return nn.functional.linear(hidden_states, *self.rows())


class KernelRing(nn.Conv2d):
    """The taps of a depth-wise kernel around a smaller one, which `forward` gives; the innermost has the bias.

    Args:
        place: Its channels in the widest kernel, and the sizes of the smaller kernel and of this one.
    """

    def __init__(self, place: tuple[slice, slice]):
        channels, taps = place
        number = channels.stop - channels.start
        super().__init__(number, number, (1, taps.stop - taps.start), groups=number, bias=not taps.start)
        self.place = place

    def forward(self):  # type: ignore[override]  # as `LinearChunk`
        return self.weight, self.bias


class NestedDepthwise(nn.Module):
    """A depth-wise convolution whose kernel is the middle of a larger one, at the first channels: some rings."""

    def __init__(self, chunks: Iterable[KernelRing], shape: tuple[int, int]):
        super().__init__()
        self.chunks = tuple(chunk for chunk in chunks if _is_within(chunk.place, shape))  # as `NestedLinear`

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its weight (width, 1, 1, kernel size) and its bias (width,)."""
        weights: dict[int, torch.Tensor] = {}
        biases = []
        for chunk in self.chunks:
            (weight, bias), first = chunk(), chunk.place[0].start
            if bias is None:
                left, right = weight.chunk(2, dim=-1)
                weight = torch.cat((left, weights[first], right), dim=-1)
            else:
                biases.append(bias)
            weights[first] = weight
        return _joined(list(weights.values())), _joined(biases)

    def split(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of every ring: the inverse of `rows`."""
        found: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        for channels, taps in (chunk.place for chunk in self.chunks):
            side, outside = (taps.stop - taps.start) // 2, (weight.shape[-1] - taps.stop) // 2
            here = weight[channels, ..., outside : weight.shape[-1] - outside]
            if taps.start:
                found.append((torch.cat((here[..., :side], here[..., -side:]), dim=-1), None))
            else:
                found.append((here, bias[channels]))
        return found

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

    shares_widths: ClassVar[bool] = False
    """Whether operators of several widths, too, are slices of one."""

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__()
        self.candidates = tuple(candidates)
        self.operators = nn.ModuleDict({name: build_operator(config, name) for name in candidates})
        self.chunks = nn.ModuleDict()
        for key, names in self._families(config, {kind: kind for kind in _INNER}).items():
            shared = nn.ModuleDict()
            for path in _INNER[parse_operator(names[0]).kind]:
                parent, _, part = path.rpartition(".")
                maps = {name: cast(nn.Linear, self.operators[name].get_submodule(path)) for name in names}
                shapes = {name: (one.out_features, one.in_features) for name, one in maps.items()}
                chunks = nn.ModuleList(map(LinearChunk, _cells(list(shapes.values()))))
                shared[part] = chunks
                for name, shape in shapes.items():
                    nested = NestedLinear(cast(Iterable[LinearChunk], chunks), shape)
                    setattr(self.operators[name].get_submodule(parent), part, nested)
            self.chunks[key] = shared

    def _families(self, config: NasBertShapeConfig, shared: Mapping[str, str]) -> dict[str, list[str]]:
        """The operators that share weights, by the name of what they share, which `shared` has by their kind."""
        found: dict[tuple[str, int | None], list[str]] = {}
        for name in sorted(self.candidates, key=lambda name: inner_width(config, name)):
            kind, width = parse_operator(name).kind, parse_operator(name).width
            if kind in shared:
                found.setdefault((shared[kind], None if self.shares_widths else width), []).append(name)
        families = {}
        for (what, _), names in found.items():
            widths = {parse_operator(name).width for name in names}
            families[f"{what}@{widths.pop()}" if len(widths) == 1 and None not in widths else what] = names
        return families

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
    """As `NestedWeights`, and convolutions share kernels, and widths slices: `conv3` has the middle taps of `conv7`.

    For super-nets from scratch: one super-kernel serves all sizes (Single-Path NAS: Stamoulis et al., 2019,
    https://arxiv.org/abs/1904.02877), and the first rows and columns of one matrix, or the first channels of a kernel,
    all widths of a stage (entangled weights: AutoFormer, Chen et al., 2021, https://arxiv.org/abs/2107.00651 [public
    code]). What writes, the point-wise maps of a convolution, and a stage's projections stay an operator's, or a
    width's, own, where AutoFormer slices these too [ours].
    """

    shares_widths = True

    def __init__(self, config: NasBertShapeConfig, candidates: Sequence[str]):
        super().__init__(config, candidates)
        for key, names in self._families(config, dict.fromkeys(("conv3", "conv5", "conv7"), "conv")).items():
            family = {name: cast(NasBertConvolution, self.operators[name]) for name in names}
            layers = nn.ModuleList()
            for depth in range(config.num_conv_layers):
                of_name = {name: cast(nn.Conv2d, one.layers[depth].depthwise) for name, one in family.items()}
                shapes = {name: (one.out_channels, one.kernel_size[1]) for name, one in of_name.items()}
                rings = nn.ModuleList(map(KernelRing, _cells(list(shapes.values()))))
                of_widest = max(of_name.values(), key=lambda one: one.out_channels * one.kernel_size[1])
                for ring in rings:
                    ring.initial_std = of_widest.initial_std  # all are taps of the widest kernel
                layers.append(rings)
                for name, shape in shapes.items():
                    nested = NestedDepthwise(cast(Iterable[KernelRing], rings), shape)
                    family[name].layers[depth].depthwise = nested
            self.chunks[key] = layers


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
