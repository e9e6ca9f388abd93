"""Copies of a super-net's blocks while it is trained: laid out as the method says, begun anew, split by gradients."""

from collections.abc import Sequence
from statistics import fmean
from typing import cast

import torch

from hf_nasbert.interference import best_split, measure_blocks
from hf_nasbert.interference.gradients import Batch
from hf_nasbert.methods import TrainingMethod
from hf_nasbert.methods.rows import operators_of
from hf_nasbert.modeling.modeling_supernet import SupernetEncoder, SupernetForMaskedLM, SupernetPreTrainedModel


def lay_out(supernet: SupernetPreTrainedModel, method: TrainingMethod, *, is_training: bool = False) -> None:
    """Let those copies serve children that a method says, if it says any."""
    copies = method.copies(is_training=is_training)
    if copies is not None:
        cast(SupernetEncoder, supernet.base_model.encoder).set_copies(copies)


@torch.no_grad()
def begin_anew(supernet: SupernetPreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Make all copies what the first one is, with its moments."""
    encoder = cast(SupernetEncoder, supernet.base_model.encoder)
    for blocks in encoder.copies:
        for first, other in zip(encoder.blocks, blocks, strict=True):
            for ours, theirs in zip(first.parameters(), other.parameters(), strict=True):
                theirs.copy_(ours)
                optimizer.state.pop(theirs, None)
                if ours in optimizer.state:
                    state = optimizer.state[ours].items()
                    optimizer.state[theirs] = {
                        name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state
                    }


def find_split(
    supernet: SupernetForMaskedLM, batches: Sequence[Batch], num_settings: int, seed: int
) -> tuple[int, tuple[tuple[str, ...], ...]]:
    """The block whose candidates' gradients differ most, and its two groups: those that GM-NAS would split.

    Raises:
        ValueError: If no block has candidates that could all be compared.
    """
    found: dict[int, dict[tuple[str, str], list[float]]] = {}
    for row in measure_blocks(supernet, batches, num_settings=num_settings, seed=seed):
        if row["gradient_similarity"] is not None:
            of_pair = found.setdefault(row["block"], {}).setdefault((row["first"], row["second"]), [])
            of_pair.append(row["gradient_similarity"])
    best = None
    for block in sorted(found):
        means = {pair: fmean(values) for pair, values in found[block].items()}
        split = best_split(operators_of(supernet.space, block), means)
        if split is not None and (best is None or split.score > best[1].score):
            best = block, split
    if best is None:
        raise ValueError("the gradients of no block's candidates could all be compared: raise split_settings")
    return best[0], best[1].groups
