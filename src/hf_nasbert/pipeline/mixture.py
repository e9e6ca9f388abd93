"""A super-net in, architecture parameters out: a mixture of all operators of a block, its weights by gradient.

Operators that are slices of one matrix (layouts `nested` and `entangled`) are mixed in weight space and run once, as
in TangleNAS; all others by their outputs, as in DARTS.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.func import functional_call

from hf_nasbert.elastic.encoders import running
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.modeling.layouts import NestedWeights
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.operators_nasbert import build_operator
from hf_nasbert.space import SKIP, Candidates, operator_kind

Batch = Mapping[str, torch.Tensor]


class _Mixed(NamedTuple):
    """Operators of a block that run as one, their places in it, and where they share weights: whose they are."""

    places: list[int]
    operator: nn.Module | None
    states: list[dict[str, torch.Tensor]]


def check_same_weights(supernet: SupernetPreTrainedModel, what: str) -> None:
    """Refuse a super-net whose operators' weights depend on the whole child.

    Raises:
        ValueError: If they do; begins with `what` needs others.
    """
    encoder: Any = supernet.base_model.encoder
    reads = any(part.operators.reads_child(name) for part in encoder.blocks for name in part.operators.candidates)
    if reads or encoder.copies:
        raise ValueError(
            f"{what} needs operators whose weights are the same in every child: not so with copies of the super-net, "
            "or weight_layout=experts"
        )


class Mixture:
    """All children of a super-net at once: block by block the sum of its operators, by a softmax of parameters.

    The super-net stays as it is: only the architecture parameters learn, without dropout.

    Args:
        supernet: With a head that predicts words, and one set of weights for all children.
        space: The children, of one width.

    Raises:
        ValueError: If the super-net or the space is another one.
    """

    def __init__(self, supernet: SupernetPreTrainedModel, space: Candidates) -> None:
        encoder: Any = supernet.base_model.encoder
        blocks = encoder.blocks
        if not isinstance(supernet, SupernetForMaskedLM):
            raise ValueError("search=gradient_mixture needs a super-net with a head that predicts words")
        if any("@" in name for names in space.blocks for name in names):
            raise ValueError("search=gradient_mixture adds up operators of one width, and here stages have widths")
        check_same_weights(supernet, "search=gradient_mixture")
        self.supernet, self.space = supernet, space
        self.mixed = [self._parts(block.operators, names) for block, names in zip(blocks, space.blocks, strict=True)]

    def _parts(self, layout: Any, names: Sequence[str]) -> list[_Mixed]:
        families: dict[str, list[int]] = {}
        shared: Any = layout.chunks if isinstance(layout, NestedWeights) else {}
        for place, name in enumerate(names):
            kind = operator_kind(name).rstrip("357")
            families.setdefault(kind if kind in shared else name, []).append(place)
        found = []
        for places in families.values():
            states = [layout.state_of(names[place]) for place in places] if len(places) > 1 else []
            largest = max(places, key=lambda place: layout.size_of(names[place]))
            operator = build_operator(self.supernet.config, names[largest]).eval() if states else None
            found.append(_Mixed(places, None if operator is None else operator.to(self.supernet.device), states))
        return found

    @property
    def passes(self) -> float:
        """What a step takes, in forwards of one child over its batch, a backward counting two."""
        return 3.0 * sum(map(len, self.mixed)) / len(self.mixed)

    def loss(self, batch: Batch, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """The masked-LM loss of the mixture: `weights` has for every block those of its operators."""
        tensors = {name: tensor.to(self.supernet.device) for name, tensor in batch.items()}
        labels = tensors.pop("labels").flatten()
        positions = (labels != -100).nonzero().squeeze(-1)
        states, masks = self.supernet.nasbert.embed(**tensors)
        for block, (parts, of_block) in enumerate(zip(self.mixed, weights, strict=True)):
            total = torch.zeros_like(states)
            for part in parts:
                total = total + of_block[part.places].sum() * self._run(block, part, of_block, states, masks)
            states = total
        logits = self.supernet.lm_head(states.flatten(0, 1).index_select(0, positions))
        return nn.functional.cross_entropy(logits, labels[positions])

    def _run(self, block: int, part: _Mixed, of_block: torch.Tensor, states: torch.Tensor, masks: Any) -> torch.Tensor:
        name = self.space.blocks[block][part.places[0]]
        if name == SKIP:
            return states
        if part.operator is None:
            return self.supernet.nasbert.run_block(block, name, states, masks)
        shares = of_block[part.places] / of_block[part.places].sum().clamp_min(1e-30)
        mixed = {
            path: sum(share * _padded(state[path], whole) for share, state in zip(shares, part.states, strict=True))
            for path, whole in part.operator.state_dict().items()
        }
        given = (states, masks.attention, masks.padding)
        return cast(torch.Tensor, functional_call(part.operator, cast(dict[str, torch.Tensor], mixed), given))

    def learn(self, batches: Sequence[Batch], num_steps: int, rate: float) -> list[dict[str, float]]:
        """Let the parameters, at first all equal, fall in so many steps of Adam; what they are then, by operator."""
        alphas = [torch.zeros(len(names), device=self.supernet.device) for names in self.space.blocks]
        optimizer = torch.optim.Adam([alpha.requires_grad_() for alpha in alphas], lr=rate, betas=(0.5, 0.999))
        usable = [batch for batch in batches if bool((batch["labels"] != -100).any())]
        with running(self.supernet, gradients=True):
            for step in range(num_steps):
                loss = self.loss(usable[step % len(usable)], [alpha.softmax(-1) for alpha in alphas])
                for alpha, gradient in zip(alphas, torch.autograd.grad(loss, alphas), strict=True):
                    alpha.grad = gradient
                optimizer.step()
        numbers = [[round(value, 3) for value in alpha.tolist()] for alpha in alphas]  # the same on any machine
        return [dict(zip(names, of, strict=True)) for names, of in zip(self.space.blocks, numbers, strict=True)]


def _padded(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A slice in its place in the whole, zeros around it: the first rows and columns, the middle taps of a kernel."""
    padding = []
    for dim in reversed(range(tensor.dim())):
        outside = whole.shape[dim] - tensor.shape[dim]
        padding += [outside // 2, outside // 2] if tensor.dim() == 4 and dim == 3 else [0, outside]
    return nn.functional.pad(tensor, padding)
