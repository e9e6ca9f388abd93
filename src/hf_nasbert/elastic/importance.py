"""Which heads and neurons matter: by what they write into the stream on real text; sorted, the first are the best."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.elastic.batches import Batch
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, mask_of, running
from hf_nasbert.modeling.operators_nasbert import NasBertAttention, NasBertFeedForward


@torch.no_grad()
def importance(
    full_child: PreTrainedModel, batches: Sequence[Batch], *, processes: PartialState | None = None
) -> list[list[float]]:
    """What every head and every neuron of a model writes into its block's output, by variance over real tokens.

    Of a head with output a and output weights W, mean ||W (a - mean of a)||^2 over tokens; of a neuron the same, which
    is its variance times the squared length of its column of W. A constant is no importance: the bias has it.

    Args:
        full_child: The base model as a child, of attention and ffn blocks.
        batches: Some thousand real tokens.
        processes: Those that share out the batches; each has to call with the same arguments and gets all
            importances, which do not depend on their number.

    Returns:
        For every block, the importance of its heads or of its neurons.

    Raises:
        ValueError: If a block is another operator, or there is no batch.
    """
    if not batches:
        raise ValueError("importance is measured on text, and there is no batch")
    operators = operators_of(full_child)
    moments = [_Spread(operator) for operator in operators]
    hooks = [
        operator.output.dense.register_forward_pre_hook(moment)
        for operator, moment in zip(operators, moments, strict=True)
    ]
    try:
        with running(full_child):
            encoder, device = encoder_of(full_child), next(full_child.parameters()).device
            index, count = (0, 1) if processes is None else (processes.process_index, processes.num_processes)
            # One batch of every process at a time, added up in the batches' order: the bits of one process.
            for first in range(0, len(batches), count):
                for batch in batches[first + index : first + index + 1]:
                    mask = mask_of(batch, device)
                    for moment in moments:
                        moment.mask, moment.first = mask, 0
                    hidden_states, masks = encoder.embed(**inputs_of(batch, device))
                    encoder.encoder(hidden_states, masks)
                for moment in moments:
                    own = moment.of_batch[None]
                    moment.add(own if count == 1 else gather(own))
    finally:
        for hook in hooks:
            hook.remove()
    return [moment.importance().tolist() for moment in moments]


@torch.no_grad()
def sort_by_importance(full_child: PreTrainedModel, scores: Sequence[Sequence[float]]) -> None:
    """Order the heads and neurons of every block by their importance, the largest first, in place.

    The model computes what it computed: only the order of summands changes. So the first heads and neurons of an
    operator are the best slice of it.

    Args:
        full_child: The model that was measured.
        scores: As `importance` gives them.

    Raises:
        ValueError: If the scores are those of another model.
    """
    operators = operators_of(full_child)
    found, expected = [len(block) for block in scores], [_num_parts(operator) for operator in operators]
    if found != expected:
        raise ValueError(f"importances of {found} heads and neurons, but the model has {expected}")
    for operator, block in zip(operators, scores, strict=True):
        order = torch.tensor(block, dtype=torch.float64).argsort(descending=True, stable=True)
        dense = operator.output.dense
        size = dense.in_features // len(block)
        rows = (order[:, None] * size + torch.arange(size)).flatten().to(dense.weight.device)
        for linear in _inner(operator):
            linear.weight.copy_(linear.weight[rows])
            linear.bias.copy_(linear.bias[rows])
        dense.weight.copy_(dense.weight[:, rows])


class _Spread:
    """Sums over tokens of what goes into an output projection: of every part (a head, a neuron) its second moments."""

    def __init__(self, operator: Any) -> None:
        self.mask: torch.Tensor | None = None
        self.first = 0  # token of the batch: an ffn may run in chunks of tokens
        self._weight = operator.output.dense.weight
        self._num_parts = _num_parts(operator)
        self._size = self._weight.shape[1] // self._num_parts
        num_sums = 1 + self._num_parts * self._size * (1 + self._size)
        self._total = self._weight.new_zeros(num_sums, dtype=torch.float64)
        self.of_batch = torch.zeros_like(self._total)

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert self.mask is not None
        end = self.first + inputs[0].shape[1]
        states, self.first = inputs[0][self.mask[:, self.first : end]], end
        rows = states.view(len(states), self._num_parts, -1)  # (N, P, F)
        count, sums, products = self._parts(self.of_batch)
        count += len(rows)
        sums += rows.double().sum(0)
        products += torch.einsum("npf,npg->pfg", rows, rows).double()

    def add(self, of_batches: torch.Tensor) -> None:
        """Add up the sums of some batches, (B, S), in their order; those of the next batch begin at zero."""
        for sums in of_batches:
            self._total += sums
        self.of_batch.zero_()

    def importance(self) -> torch.Tensor:
        """The variance of what each part writes, (P,)."""
        count, sums, products = self._parts(self._total)
        mean = sums / count
        covariance = products / count - mean[:, :, None] * mean[:, None, :]
        weight = self._weight.double().view(len(self._weight), self._num_parts, -1)  # (D, P, F)
        return torch.einsum("dpf,pfg,dpg->p", weight, covariance, weight)

    def _parts(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (1,), sums (P, F) and products (P, F, F) as views into one row."""
        parts, size = self._num_parts, self._size
        return row[:1], row[1 : 1 + parts * size].view(parts, size), row[1 + parts * size :].view(parts, size, size)


def operators_of(model: PreTrainedModel) -> list[Any]:
    """The operators of a model whose heads and neurons can be weighed, block by block.

    Raises:
        ValueError: If one is neither attention nor ffn.
    """
    operators = [block.operator for block in encoder_of(model).encoder.blocks]
    for index, operator in enumerate(operators):
        if not isinstance(operator, NasBertAttention | NasBertFeedForward):
            raise ValueError(
                f"block {index} of the base model is a {type(operator).__name__}: only encoders of attention and ffn, "
                "such as a BERT, can be made smaller; name another one (--base_model)"
            )
    return operators


def _num_parts(operator: Any) -> int:
    """How many heads or neurons an operator has."""
    width: int = operator.output.dense.in_features
    return width // operator.self.head_size if isinstance(operator, NasBertAttention) else width


def _inner(operator: Any) -> list[nn.Linear]:
    """The linear maps whose outputs are the heads or neurons."""
    if isinstance(operator, NasBertAttention):
        return [operator.self.query, operator.self.key, operator.self.value]
    return [operator.intermediate.dense]
