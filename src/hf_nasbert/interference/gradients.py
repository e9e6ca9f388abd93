"""Gradients of a super-net's operators under several children on one batch, and how similar they are.

Axes in comments: B batch, T tokens, W width of the states, N labelled positions, L choice blocks.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from hf_nasbert.elastic.encoders import running
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.records import Record
from hf_nasbert.space import SKIP, Architecture, SearchSpace, hamming, settings_of_blocks

Batch = Mapping[str, torch.Tensor]

_IGNORED = -100  # the label of positions where nothing is to be predicted


class OperatorGradients(NamedTuple):
    """What one child's forward and backward pass on one batch says about its operators.

    Args:
        loss: The masked-LM loss, in nats per labelled token.
        gradients: Per choice block the gradient of that loss by the parameters of the block's operator alone (not of
            the projections at a stage's border), flat; without elements for `skip`.
        states: The L + 1 states between the choice blocks, (B, T, W): `states[i]` goes into block i, `states[i + 1]`
            comes out. At all tokens, also after the last block that mixes tokens.
    """

    loss: float
    gradients: list[torch.Tensor]
    states: list[torch.Tensor]


def operator_gradients(supernet: SupernetForMaskedLM, batch: Batch, architecture: Sequence[str]) -> OperatorGradients:
    """The gradients of all operators of one child by its masked-LM loss on one batch, from one backward pass.

    Without dropout, in fp32. The super-net is left as found: modes, `.grad` and random state.

    Args:
        supernet: The shared weights, in fp32.
        batch: `input_ids`, `labels` (-100 where there is nothing to predict) and, if there is padding,
            `attention_mask`; (B, T).
        architecture: The child.

    Raises:
        ValueError: If the child is not in the space, the batch has no labelled token, or the super-net is not fp32.
    """
    child = supernet.space.validate(architecture)
    blocks = supernet.nasbert.encoder.blocks_of(child)
    owned = [block.operators.parameters_of(name) for block, name in zip(blocks, child, strict=True)]
    with running(supernet, gradients=True):
        loss, states = _forward(supernet, batch, child)
        flat = torch.autograd.grad(loss, [parameter for parameters in owned for parameter in parameters])
    remaining = iter(flat)
    gradients = [_flattened([next(remaining) for _ in parameters], like=loss) for parameters in owned]
    return OperatorGradients(loss.item(), gradients, [state.detach() for state in states])


def shared_gradients(
    supernet: SupernetForMaskedLM, batch: Batch, architecture: Sequence[str]
) -> dict[nn.Parameter, torch.Tensor]:
    """The gradient of every parameter that a child uses (its operators', the embeddings', the head's), by parameter.

    As `operator_gradients` otherwise.
    """
    child = supernet.space.validate(architecture)
    parameters = supernet.parameters_of(child)
    with running(supernet, gradients=True):
        loss, _ = _forward(supernet, batch, child)
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True))


def _forward(
    supernet: SupernetForMaskedLM, batch: Batch, child: Architecture
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The mean masked-LM loss over labelled tokens, and the states between the blocks.

    Every block runs at all tokens, where the model itself may stop at the labelled ones (`sparse_prediction`): the
    same loss, and states that two children have at the same tokens, whichever block is their last to mix them.
    """
    if supernet.dtype != torch.float32:
        raise ValueError(f"gradients are compared in float32, but the super-net is in {supernet.dtype}: call .float()")
    tensors = {name: tensor.to(supernet.device) for name, tensor in batch.items()}
    labels = tensors.pop("labels").flatten()  # (B * T,)
    positions = (labels != _IGNORED).nonzero().squeeze(-1)  # (N,)
    if not len(positions):
        raise ValueError(f"a batch has no labelled token: give labels other than {_IGNORED}")
    hidden_states, masks = supernet.nasbert.embed(**tensors)
    states = [hidden_states]
    for index, operator in enumerate(child):
        states.append(supernet.nasbert.run_block(index, operator, states[-1], masks, child=child))
    logits = supernet.lm_head(states[-1].flatten(0, 1).index_select(0, positions))  # (N, V)
    return nn.functional.cross_entropy(logits, labels[positions]), states


def _flattened(gradients: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients]) if gradients else like.new_empty(0)


def gradient_similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    """The cosine of the angle between two gradients of the same parameters, summed in float64.

    NaN where either is zero or not finite: it has no direction.
    """
    if a.shape != b.shape:
        raise ValueError(f"gradients of {tuple(a.shape)} and {tuple(b.shape)} parameters do not compare")
    first, second = a.detach().flatten().double(), b.detach().flatten().double()
    norms = float(first.norm()) * float(second.norm())
    if not (math.isfinite(norms) and norms > 0):
        return float("nan")
    return min(1.0, max(-1.0, float(first @ second) / norms))


def state_similarity(a: torch.Tensor, b: torch.Tensor, attention_mask: torch.Tensor | None = None) -> float:
    """How similar two children's states are: the cosine at every real token, averaged over tokens, in float64.

    Args:
        a: States (B, T, W) of one child.
        b: States of another child on the same batch, (B, T, W).
        attention_mask: 1 at real tokens, 0 at padding (B, T); without it all tokens are real.
    """
    cosines = nn.functional.cosine_similarity(a.detach().double(), b.detach().double(), dim=-1)  # (B, T)
    return float(cosines.mean() if attention_mask is None else cosines[attention_mask.to(a.device).bool()].mean())


def draw_pairs(
    space: SearchSpace, *, num_children: int, seed: int, max_distance: int | None = None
) -> list[tuple[Architecture, list[Architecture]]]:
    """Draw base children as uniform training does, and for each one other child at every distance from 1 on.

    The other child comes from `SearchSpace.mutate`: distance is the number of choice blocks in which the two differ,
    exactly, and both are valid children. Distances at which they share no operator with parameters are left out. The
    pairs depend on the arguments alone, so super-nets of one space are compared on the same ones.

    Returns:
        (base child, other children) per base child; another child's distance is `hamming` of the two.

    Raises:
        ValueError: If a number lies outside its range, or no two children of the space share an operator.
    """
    for name, value in {"num_children": num_children, "max_distance": max_distance}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    rng = random.Random(f"pairs of children {seed}")
    pairs = []
    for _ in range(num_children):
        base = space.sample(rng)
        most = min(space.max_changes(base), space.num_choice_blocks if max_distance is None else max_distance)
        others = [space.mutate(base, rng, num_changes=distance) for distance in range(1, most + 1)]
        pairs.append((base, [other for other in others if _shared_blocks(base, other)]))
    if not any(others for _, others in pairs):
        raise ValueError(
            "none of the children that were drawn shares an operator with another one: nothing to compare"
        )
    return pairs


def _shared_blocks(a: Architecture, b: Architecture) -> list[int]:
    """The blocks at which two children have the same operator, and one with parameters."""
    return [block for block, names in enumerate(zip(a, b, strict=True)) if names[0] == names[1] != SKIP]


def measure_pairs(
    supernet: SupernetForMaskedLM,
    batches: Sequence[Batch],
    *,
    num_children: int,
    seed: int,
    max_distance: int | None = None,
    progress: bool = False,
) -> list[Record]:
    """Compare the gradients of every operator that two children share, for pairs at every distance.

    Args:
        supernet: The shared weights; left as found.
        batches: Masked-LM batches; both children of a pair see the same ones.
        num_children: Base children; see `draw_pairs`.
        seed: Seed of the pairs.
        max_distance: Largest number of differing choice blocks; by default, as many as can differ.
        progress: Whether to show a bar with the time left.

    Returns:
        One row per batch, pair and shared operator: `child` (number of the base child), `architecture` and `other`,
        `distance` (choice blocks in which they differ), `block`, `operator`, `num_before` (differing blocks in front
        of it: 0 where both children's inputs are the same), `batch` (number), `gradient_similarity` (None where a
        gradient is zero or not finite), and `input_similarity` and `output_similarity` of the block's states.

    Raises:
        ValueError: As `draw_pairs` and `operator_gradients`; or if there is no batch.
    """
    if not batches:
        raise ValueError("no batch to measure gradients on")
    drawn = draw_pairs(supernet.space, num_children=num_children, seed=seed, max_distance=max_distance)
    owner_of = supernet.nasbert.encoder.owner_of  # children of two copies share no operator
    pairs = [(base, [other for other in others if owner_of(other) == owner_of(base)]) for base, others in drawn]
    rows: list[Record] = []
    total = len(batches) * sum(1 + len(others) for _, others in pairs if others)
    with tqdm(total=total, desc="pairs", unit=" passes", disable=not progress, leave=False) as bar:
        for number, (base, others) in enumerate(pairs):
            for batch_number, batch in enumerate(batches if others else ()):
                first = operator_gradients(supernet, batch, base)
                bar.update()
                for other in others:
                    second = operator_gradients(supernet, batch, other)
                    bar.update()
                    about = {
                        "child": number,
                        "architecture": str(base),
                        "other": str(other),
                        "distance": hamming(base, other),
                        "batch": batch_number,
                    }
                    compared = _compare(base, other, first, second, batch.get("attention_mask"))
                    rows += [{**about, **row} for row in compared]
    return rows


def _compare(
    base: Architecture,
    other: Architecture,
    first: OperatorGradients,
    second: OperatorGradients,
    attention_mask: torch.Tensor | None,
) -> Iterator[Record]:
    for block in _shared_blocks(base, other):
        similarities = {
            "gradient_similarity": gradient_similarity(first.gradients[block], second.gradients[block]),
            "input_similarity": state_similarity(first.states[block], second.states[block], attention_mask),
            "output_similarity": state_similarity(first.states[block + 1], second.states[block + 1], attention_mask),
        }
        yield {
            "block": block,
            "operator": base[block],
            "num_before": hamming(base[:block], other[:block]),
            **{name: value if math.isfinite(value) else None for name, value in similarities.items()},
        }


def measure_blocks(
    supernet: SupernetForMaskedLM,
    batches: Sequence[Batch],
    *,
    num_settings: int,
    seed: int,
    progress: bool = False,
) -> list[Record]:
    """Compare what the candidates of one choice block do to all other weights: which blocks should be split?

    The measurement of GM-NAS (Hu et al., 2022, "Generalizing Few-Shot NAS with Gradient Matching",
    https://arxiv.org/abs/2203.15207; its public code): a random setting of the other blocks, one batch, and for every
    candidate the gradient of all *shared* parameters outside the block, those that both children use: the other
    blocks' operators, embeddings and head.

    Args:
        supernet: The shared weights; left as found.
        batches: Masked-LM batches; setting i uses batch i modulo their number.
        num_settings: Random children. In each, every block in turn holds all it may hold, the others staying as they
            are; so candidates that are never alternatives of each other (two widths of a stage) are not compared.
        seed: Seed of the settings.
        progress: Whether to show a bar with the time left.

    Returns:
        One row per setting, block and pair of candidates: `setting`, `architecture`, `batch`, `block`, `first`,
        `second` (operators, in the order of candidates), `gradient_similarity` (None where a gradient is zero or not
        finite).

    Raises:
        ValueError: As `operator_gradients`; or if there is no batch, no setting, or no block with two candidates.
    """
    if not batches:
        raise ValueError("no batch to measure gradients on")
    if num_settings < 1:
        raise ValueError(f"num_settings={num_settings} must be at least 1")
    space, settings = supernet.space, settings_of_blocks(supernet.space, num_settings, seed)
    total = sum(1 + sum(len(names) - 1 for names in choices) for _, choices in settings)
    if total == num_settings:
        raise ValueError("no choice block of the children that were drawn may hold another operator")
    rows: list[Record] = []
    with tqdm(total=total, desc="choice blocks", unit=" passes", disable=not progress, leave=False) as bar:
        for number, (child, choices) in enumerate(settings):
            batch = batches[number % len(batches)]
            about = {"setting": number, "architecture": str(child), "batch": number % len(batches)}
            own = shared_gradients(supernet, batch, child)
            bar.update()
            for block, names in enumerate(choices):
                gradients = {child[block]: own}
                for name in names - {child[block]}:
                    setting = (*child[:block], name, *child[block + 1 :])
                    gradients[name] = shared_gradients(supernet, batch, setting)
                    bar.update()
                copies = (supernet.nasbert.encoder.blocks, *supernet.nasbert.encoder.copies)
                inside = {parameter for blocks in copies for parameter in blocks[block].parameters()}
                for first, second in combinations([name for name in space.blocks[block] if name in names], 2):
                    value = _outside_similarity(gradients[first], gradients[second], inside)
                    row = {"block": block, "first": first, "second": second}
                    rows.append({**about, **row, "gradient_similarity": value if math.isfinite(value) else None})
    return rows


def _outside_similarity(
    first: Mapping[nn.Parameter, torch.Tensor],
    second: Mapping[nn.Parameter, torch.Tensor],
    inside: set[nn.Parameter],
) -> float:
    """The similarity of two children's gradients on the parameters that both use and that are not `inside`."""
    shared = [parameter for parameter in first if parameter in second and parameter not in inside]
    sides = (torch.cat([gradients[parameter].flatten() for parameter in shared]) for gradients in (first, second))
    return gradient_similarity(*sides)
