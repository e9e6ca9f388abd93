"""What training minimises beside the masked-LM loss: tensors in, one scalar out."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

_SMALLEST_VARIANCE = 1e-5  # of a state's numbers over a sequence's tokens
_SMALLEST_HINGED = 1e-4  # VICReg's


def alignment_loss(
    child_states: Sequence[torch.Tensor],
    anchor_states: Sequence[torch.Tensor],
    padding_mask: torch.Tensor | None = None,
    *,
    positions: torch.Tensor | None = None,
    normalize: bool = False,
    scales: Sequence[float] | None = None,
    num_tokens: int | None = None,
    num_positions: int | None = None,
) -> torch.Tensor:
    """How far the outputs of a child's blocks lie from those of the anchor's: MAGIC-A's alignment term.

    The mean squared difference per real token and hidden unit of each block's output, averaged over blocks. One
    block's output is the next one's input, so this pulls the inputs and the outputs of shared operators to what they
    are under the anchor, which makes their gradients under different children similar (Xu et al., 2022,
    https://arxiv.org/abs/2108.12821). The paper's norm, its layers and whether it averages or sums could not be
    verified: these are ours.

    A block counts only where both states exist: at `positions` where either was computed only there (the last block
    of a child that is read at the labelled tokens), and not at all where the two differ in width (inside a stage of a
    space with several widths; the stage's end has the common one). Where both lists hold the very same tensor (a
    common prefix computed once) the difference is exactly zero, so is its gradient, and nothing is computed.

    Args:
        child_states: Output of every block of the child: (B, T, D), or (N, D) at the `positions` only.
        anchor_states: The anchor's outputs of the same batch.
        padding_mask: True (or 1) at real tokens, (B, T) or (B, T, 1); `None` where there is no padding.
        positions: Flat indices into (B * T) of the rows of all (N, D) states.
        normalize: Compare directions: every token's state is first brought to mean 0 and variance 1.
        scales: What the squared difference of each block is divided by, such as the variance of the anchor's states
            there: a relative error, which a network whose states all become equal cannot make small.
        num_tokens: Real tokens to divide by: those of the whole step where this batch is only a part of it, so that
            the parts add up to the whole. By default those of this batch.
        num_positions: Likewise for the states that exist at `positions` only.

    Returns:
        A scalar; zero where there is nothing to compare.

    Raises:
        ValueError: If the lists differ in length, or (N, D) states came without their positions.
    """
    if len(child_states) != len(anchor_states):
        raise ValueError(f"the child has {len(child_states)} block outputs, the anchor {len(anchor_states)}")
    total = child_states[0].new_zeros((), dtype=torch.float32)
    num_blocks = 0
    scales = [1.0] * len(child_states) if scales is None else scales
    for child, anchor, scale in zip(child_states, anchor_states, scales, strict=True):
        if child.shape[-1] != anchor.shape[-1]:
            continue
        num_blocks += 1
        if child is anchor:
            continue
        if child.dim() != anchor.dim():
            child, anchor = _rows(child, positions), _rows(anchor, positions)
        anchor = anchor.detach()
        if normalize:
            child, anchor = (nn.functional.layer_norm(states, states.shape[-1:]) for states in (child, anchor))
        difference = _mean_squared_difference(child, anchor, padding_mask, num_tokens, num_positions)
        total = total + (difference if scale == 1.0 else difference / scale)
    return total / max(num_blocks, 1)


def _rows(states: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """States at `positions` only: (N, D)."""
    if states.dim() == 2:
        return states
    if positions is None:
        raise ValueError("one of two block outputs exists at some positions only; pass these positions")
    return states.flatten(0, 1).index_select(0, positions)


def _mean_squared_difference(
    child: torch.Tensor,
    anchor: torch.Tensor,
    padding_mask: torch.Tensor | None,
    num_tokens: int | None,
    num_positions: int | None,
) -> torch.Tensor:
    """Squared difference per token and hidden unit of (B, T, D) states, or of (N, D) states, which hold no padding."""
    if child.dim() == 2:
        padding_mask, count = None, len(child) if num_positions is None else num_positions
    elif padding_mask is None:
        count = child.shape[0] * child.shape[1] if num_tokens is None else num_tokens
    else:
        count = int(padding_mask.sum()) if num_tokens is None else num_tokens
    padding = None if padding_mask is None else ~padding_mask.bool().reshape(*child.shape[:2], 1)
    total: torch.Tensor = _SquaredDifference.apply(child, anchor, padding)  # type: ignore[no-untyped-call]
    # Divide by the number of summed terms, not by a batch's size: short texts and small parts must not weigh less.
    return total / (max(count, 1) * child.shape[-1])


def at_all_tokens(states: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """States (N, D) of the tokens that `where` (B, T) says, back in their places: (B, T, D), zeros elsewhere.

    More states than such tokens may be given, those of later sequences; they are left out.
    """
    positions = where.flatten().nonzero().squeeze(-1)
    whole = states.new_zeros(where.numel(), states.shape[-1])
    return whole.index_copy(0, positions, states[: len(positions)]).view(*where.shape, -1)


def token_variances(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How much each number of (B, T, D) states differs between a sequence's tokens, those that `mask` (B, T) says.

    Returns:
        The unbiased variances, (B, D), in fp32 at least; 0 of sequences with fewer than two tokens.
    """
    mask = mask.bool()[..., None]
    states = states.to(torch.promote_types(states.dtype, torch.float32)).masked_fill(~mask, 0.0)
    counts = mask.sum(1)  # (B, 1)
    centred = (states - (states.sum(1) / counts.clamp(min=1))[:, None]).masked_fill(~mask, 0.0)
    return centred.square().sum(1) / (counts - 1).clamp(min=1)


def variance_hinge(states: torch.Tensor, mask: torch.Tensor, *, floor: float, num_tokens: int) -> torch.Tensor:
    """By how much the standard deviations over a sequence's tokens fall short of a floor: VICReg's variance term.

    A mean over numbers and over tokens: `num_tokens` are those of the whole step. It is nearly `floor` where all
    tokens have one state (Bardes et al., 2022, https://arxiv.org/abs/2105.04906; there over a batch).
    """
    deviations = (token_variances(states, mask) + _SMALLEST_HINGED).sqrt()
    counts = mask.sum(1)
    shortfall = (floor - deviations).clamp(min=0).mean(-1) * torch.where(counts > 1, counts, 0)
    return shortfall.sum() / max(num_tokens, 1)


def relative_error(states: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """The relative, centred error ||h - h*||^2 / ||h* - mean of h* over the sequence's tokens||^2, a mean over tokens.

    1 of states that are all the target's mean. It does not fall where states and target both shrink towards equal
    ones, as a squared distance does. Sequences of one token have no variance, and are not compared.

    Args:
        states: (B, T, D).
        target: (B, T, D); no gradient reaches it.
        mask: True at the tokens that count, (B, T).
        num_tokens: Tokens to divide by, those of the whole step.
    """
    scales = (token_variances(target.detach(), mask).mean(-1) + _SMALLEST_VARIANCE).rsqrt()
    scales = torch.where(mask.sum(1) > 1, scales, 0.0)[:, None, None]
    return alignment_loss([states * scales], [target * scales], mask, num_tokens=num_tokens)


class _SquaredDifference(torch.autograd.Function):
    """Sum of squared differences, in fp32, where `padding` is not true; the anchor is a constant.

    What autograd would make of `mse_loss` takes three passes over memory more, and these are all its cost.
    """

    @staticmethod
    def forward(ctx: Any, child: torch.Tensor, anchor: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        difference = child.float() - anchor.float()
        if padding is not None:
            # Filled and not multiplied: whatever stands at padding, 0 * inf would be nan.
            difference.masked_fill_(padding, 0.0)
        ctx.save_for_backward(difference)
        ctx.dtype = child.dtype
        flat = difference.flatten()
        return torch.dot(flat, flat)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (difference,) = ctx.saved_tensors
        return (difference * (2 * gradient)).to(ctx.dtype), None, None


def distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """How far a student's predictions lie from a teacher's soft ones (Hinton et al., 2015, section 2).

    The Kullback-Leibler divergence of the student's distribution from the teacher's, both softened by `temperature`,
    times its square, so that gradients keep their size whatever the temperature (https://arxiv.org/abs/1503.02531).
    No gradient reaches the teacher.

    Args:
        student_logits: (N, V), one row per prediction.
        teacher_logits: (N, V).
        temperature: Above 1 softens both distributions.

    Returns:
        The mean over the predictions, in nats; zero where there is none.

    Raises:
        ValueError: If the shapes differ, or the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0")
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature)
    total = nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return total * temperature**2 / max(len(student), 1)


def alpha_divergence_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, *, clip: float = 5.0
) -> torch.Tensor:
    """How far a student's predictions lie from a teacher's, by the larger of two alpha-divergences in each of them.

    With student q and teacher p, D(alpha) = sum of q (w - 1) / (alpha (alpha - 1)), where w = (p / q) ** alpha. At
    alpha = 1, in the limit, that is the divergence of `distillation_loss`, which punishes a student that misses what
    the teacher holds likely; alpha = -1 punishes one that holds likely what the teacher does not (AlphaNet: Wang et
    al., 2021, https://arxiv.org/abs/2102.07954). At -1 the weights w are clipped, in the value and in the gradient,
    which is that of the unclipped divergence with clipped weights: sum of q (w - 1 / 2) times the gradient of log q.
    No gradient reaches the teacher.

    Args:
        student_logits: (N, V), one row per prediction.
        teacher_logits: (N, V).
        clip: The largest weight w.

    Returns:
        The mean over the predictions; zero where there is none.

    Raises:
        ValueError: If the shapes differ.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits)
    missing = nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # (N,)
    constant = student.detach()
    probabilities = constant.exp()
    weights = (constant - teacher).clamp(max=math.log(clip)).exp()  # clipped before it could overflow
    slope = (probabilities * (weights - 0.5) * student).sum(-1)
    inventing = (probabilities * (weights - 1)).sum(-1) / 2 + (slope - slope.detach())
    return torch.maximum(missing, inventing).sum() / max(len(student), 1)


def _log_probabilities(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a student and of its teacher, which are constants."""
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"logits of shapes {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}")
    # Not below double where logits are: a divergence is a small difference of large log-probabilities.
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    student = (student_logits.to(dtype) / temperature).log_softmax(-1)
    return student, (teacher_logits.detach().to(dtype) / temperature).log_softmax(-1)


def relation_loss(
    student_vectors: torch.Tensor,
    teacher_vectors: torch.Tensor,
    padding_mask: torch.Tensor | None = None,
    *,
    num_heads: int,
) -> torch.Tensor:
    """How far a student's tokens relate to each other as a teacher's do (MiniLMv2: Wang et al., 2021, section 3.1).

    The vectors (queries, keys or values of an attention layer) are cut into relation heads, whatever heads the models
    have themselves; a token's relations are the softmax of its scaled dot products with all tokens of its sequence.
    The loss is the Kullback-Leibler divergence of the student's from the teacher's (https://arxiv.org/abs/2012.15828).
    Widths and numbers of layers may differ; no gradient reaches the teacher.

    Args:
        student_vectors: (B, T, D).
        teacher_vectors: (B, T, D'), of the same tokens.
        padding_mask: True (or 1) at real tokens, (B, T); `None` where there is no padding.
        num_heads: Relation heads.

    Returns:
        The mean over heads and real tokens, in nats.

    Raises:
        ValueError: If the tokens differ in number, or a width cannot be cut into so many heads.
    """
    if student_vectors.shape[:2] != teacher_vectors.shape[:2]:
        raise ValueError(
            f"vectors of {tuple(student_vectors.shape[:2])} and {tuple(teacher_vectors.shape[:2])} tokens"
        )
    student, teacher = (
        _log_relations(vectors, padding_mask, num_heads) for vectors in (student_vectors, teacher_vectors.detach())
    )
    per_token = nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # (B, H, T)
    if padding_mask is None:
        return per_token.mean()
    is_real = padding_mask.bool()[:, None].expand_as(per_token)
    return per_token.masked_fill(~is_real, 0.0).sum() / is_real.sum().clamp(min=1)


def _log_relations(vectors: torch.Tensor, padding_mask: torch.Tensor | None, num_heads: int) -> torch.Tensor:
    """Logarithm of every token's relations to all others, (B, H, T, T)."""
    width = vectors.shape[-1]
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"vectors of width {width} cannot be cut into {num_heads} relation heads")
    heads = vectors.float().reshape(*vectors.shape[:2], num_heads, -1).transpose(1, 2)  # (B, H, T, D / H)
    products: torch.Tensor = heads @ heads.transpose(-1, -2) / (width // num_heads) ** 0.5
    if padding_mask is not None:
        # Finite, so that padding adds 0 times a number to the divergence and not 0 times infinity.
        products = products.masked_fill(~padding_mask.bool()[:, None, None], torch.finfo(products.dtype).min / 2)
    return products.log_softmax(-1)
