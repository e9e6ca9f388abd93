"""The masked-LM loss of many children of one super-net, computing every shared prefix of operators once.

Children are leaves of a tree whose edges are operators. The tree is walked depth first with one hidden state per
depth, so memory does not grow with the number of children; the last blocks and the vocabulary projection run at
the labelled positions only. Nothing is approximated: every loss equals that of its child scored alone, to rounding.
Several processes share the work and get the bits that one alone would. Only `LikelyWords`, for those who ask for it,
estimates: it orders many children for a fraction of the head's time, so that the best of them can be scored exactly.
"""

import logging
import math
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm import tqdm

from hf_nasbert.elastic.encoders import running
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.modeling.geometry_nasbert import TOKENWISE_KINDS, last_mixing_block
from hf_nasbert.space import SKIP, Architecture, num_shared_operators, operator_kind

logger = logging.getLogger(__name__)

Batch = Mapping[str, torch.Tensor]

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_IGNORED = -100  # the label of positions where nothing is to be predicted
# Positions whose logits are held at once: few enough for a CPU's cache, many enough for an accelerator's cores.
_ROWS_ON_CPU = 256
_ROWS_ELSEWHERE = 4096
_LOG2_E = math.log2(math.e)
LIKELY_SHARE = 1 / 16
"""The share of the vocabulary whose words `LikelyWords` takes exactly."""
_NUM_REFERENCES = 8  # children that say which words are likely


@dataclass(frozen=True)
class ScoringReport:
    """Losses in the order asked for, and what they took.

    `num_operator_calls` counts operators other than skip, in all processes; `num_naive_operator_calls` is what scoring
    each distinct child alone would have needed. `batch_losses` are the losses of each child batch by batch, of those
    batches that have labels: what says how sure a difference is. Empty where they are not known.
    """

    losses: list[float]
    num_distinct: int
    num_batches: int
    num_labels: int
    seconds: float
    num_operator_calls: int
    num_naive_operator_calls: int
    batch_losses: list[list[float]] = field(default_factory=list)

    @property
    def children_per_second(self) -> float:
        """Distinct children scored per second, on all batches."""
        return self.num_distinct / self.seconds

    @property
    def share_saved(self) -> float:
        """The share of operator calls that common prefixes saved."""
        return 1 - self.num_operator_calls / self.num_naive_operator_calls

    def __add__(self, other: Self) -> Self:
        """Both, of different children on the same batches, as one."""
        return replace(
            self,
            losses=self.losses + other.losses,
            num_distinct=self.num_distinct + other.num_distinct,
            seconds=self.seconds + other.seconds,
            num_operator_calls=self.num_operator_calls + other.num_operator_calls,
            num_naive_operator_calls=self.num_naive_operator_calls + other.num_naive_operator_calls,
            batch_losses=self.batch_losses + other.batch_losses,
        )

    def __str__(self) -> str:
        return (
            f"{self.num_distinct:,} children on {self.num_batches} batches in {self.seconds:.1f} s: "
            f"{self.children_per_second:.1f} children/s, {self.share_saved:.1%} of the operator calls saved"
        )


def score_architectures(
    supernet: SupernetForMaskedLM, architectures: Sequence[Sequence[str]], batches: Iterable[Batch], **options: Any
) -> list[float]:
    """The losses alone that `score_with_report` finds, which says what the options are."""
    return score_with_report(supernet, architectures, batches, **options).losses


@torch.inference_mode()
def score_with_report(
    supernet: SupernetForMaskedLM,
    architectures: Sequence[Sequence[str]],
    batches: Iterable[Batch],
    *,
    progress: bool = False,
    leaves_per_head: int = 8,
    processes: PartialState | None = None,
    head: "LikelyWords | None" = None,
) -> ScoringReport:
    """The proxy loss of every child: its mean masked-LM loss per labelled token over all batches, lower is better.

    Args:
        supernet: The weights that children inherit. Scored in evaluation mode; its own mode is restored afterwards.
        architectures: Any children, in any order; one that comes twice is scored once.
        batches: Batches as the model takes them, with `labels` (-100 where nothing is to be predicted). Every child
            sees them all.
        progress: Whether to show a bar with the time left, on the main process.
        leaves_per_head: How many children go through the head together.
        processes: Those among which the work is split; each has to call with the same arguments, and each gets all
            losses. None: this process scores alone, whatever others there are. On devices that compute the same
            bits twice the losses do not depend on the number of processes.
        head: What estimates losses, so that they order children and no more. None: losses are exact.

    Returns:
        One loss per architecture, in the order given, and what they took. A loss that is not finite is named in a
        warning of this module's logger and returned as it is.

    Raises:
        ValueError: If an architecture is not in the space, or there is no labelled token.
    """
    if not architectures:
        raise ValueError("no architecture to score")
    if leaves_per_head < 1:
        raise ValueError(f"leaves_per_head must be at least 1, not {leaves_per_head}")
    asked = [supernet.space.validate(architecture) for architecture in architectures]
    batches = list(batches)
    num_labels = sum(_count_labels(batch) for batch in batches)
    if num_labels == 0:
        raise ValueError(f"the {len(batches)} batches have no labelled token: give labels other than {_IGNORED}")
    # Sorted, children with a common prefix are neighbours. Mixing operators come first: the blocks before them are
    # then there, at all positions, for the children that would need them at some positions only. Children of another
    # copy have nothing in common but embeddings.
    tokenwise = {name: operator_kind(name) in TOKENWISE_KINDS for child in asked for name in child}
    encoder = supernet.nasbert.encoder
    distinct = sorted(
        set(asked), key=lambda child: (encoder.owner_of(child), [(tokenwise[name], name) for name in child])
    )
    num_processes = 1 if processes is None else processes.num_processes
    shares = _shares(distinct, len(batches), leaves_per_head, num_processes, encoder.num_shared)
    mine = shares[0 if processes is None else processes.process_index]
    is_shown = progress and (processes is None or processes.is_main_process)
    start = time.perf_counter()
    sums = torch.zeros(len(batches), len(distinct), dtype=torch.float64)
    num_calls = 0
    with (
        running(supernet),
        tqdm(total=sum(map(len, mine)), unit=" children x batches", disable=not is_shown, leave=False) as bar,
    ):
        losses_of = (head or _Head(supernet)).losses
        for batch, losses_of_batch, part in zip(batches, sums, mine, strict=True):
            if not part or not _count_labels(batch):
                continue
            walk = _Walk(supernet, batch)
            for first in range(part.start, part.stop, leaves_per_head):
                group = slice(first, min(first + leaves_per_head, part.stop))
                children = distinct[group]
                rows = torch.cat([walk.leaf(child) for child in children])
                losses = losses_of(rows, walk.labels.repeat(len(children)))
                losses_of_batch[group] = losses.view(len(children), -1).double().sum(1).cpu()
                bar.update(len(children))
            num_calls += walk.num_calls
    if processes is not None and processes.num_processes > 1:
        # Each number has one process that knows it; the others add zero.
        sums = reduce(sums.to(processes.device), "sum").cpu()
        num_calls = int(reduce(torch.tensor(num_calls, device=processes.device), "sum"))
    totals = torch.zeros(len(distinct), dtype=torch.float64)
    for losses_of_batch in sums:
        totals += losses_of_batch
    loss_of = dict(zip(distinct, (totals / num_labels).tolist(), strict=True))
    counts = torch.tensor([_count_labels(batch) for batch in batches], dtype=torch.float64)
    by_batch = (sums / counts[:, None])[counts > 0]
    batch_losses_of = dict(zip(distinct, by_batch.T.tolist(), strict=True))
    for child, loss in loss_of.items():
        if not math.isfinite(loss):
            logger.warning("the loss of %s is %s", child, loss)
    return ScoringReport(
        losses=[loss_of[child] for child in asked],
        num_distinct=len(distinct),
        num_batches=len(batches),
        num_labels=num_labels,
        seconds=time.perf_counter() - start,
        num_operator_calls=num_calls,
        num_naive_operator_calls=len(batches) * sum(name != SKIP for child in distinct for name in child),
        batch_losses=[batch_losses_of[child] for child in asked],
    )


def _count_labels(batch: Batch) -> int:
    for name in ("input_ids", "labels"):
        if name not in batch:
            raise ValueError(f"a batch has no {name}, only {sorted(batch)}: scoring needs masked-LM batches")
    return int((batch["labels"] != _IGNORED).sum())


def _shares(
    children: Sequence[Architecture],
    num_batches: int,
    leaves_per_head: int,
    num_processes: int,
    num_shared: Callable[[Architecture, Architecture], int] = num_shared_operators,
) -> list[list[range]]:
    """For every process and batch the sorted children that it scores: like shares of (batch, child), in that order.

    A share begins where a head's group of children begins, and only at a child that shares no more with the one
    before it than what both run at all positions. There a walk that begins anew does what one that comes along does:
    what a child is computed from, to the bit, depends on no border.
    """
    starts = [
        index
        for index in range(0, len(children), leaves_per_head)
        if index == 0 or num_shared(children[index - 1], children[index]) <= last_mixing_block(children[index])
    ]
    total = num_batches * len(children)
    borders = []
    for process in range(num_processes):
        batch, index = divmod(total * process // num_processes, len(children))
        borders.append((batch, starts[bisect_right(starts, index) - 1]))
    borders.append((num_batches, 0))
    return [
        [
            range(
                0 if number > first[0] else first[1] if number == first[0] else len(children),
                len(children) if number < end[0] else end[1] if number == end[0] else 0,
            )
            for number in range(num_batches)
        ]
        for first, end in pairwise(borders)
    ]


class _Walk:
    """The walk over the tree of children on one batch: remembers what lies along the path to the child scored last."""

    def __init__(self, supernet: SupernetForMaskedLM, batch: Batch) -> None:
        batch = {name: tensor.to(supernet.device) for name, tensor in batch.items()}
        labels = batch["labels"].flatten()
        self.positions = (labels != _IGNORED).nonzero().squeeze(-1)  # (N,)
        self.labels = labels[self.positions]
        self.num_calls = 0
        self._model = supernet.nasbert
        embedded, self._masks = self._model.embed(**{name: batch[name] for name in _INPUTS if name in batch})
        self._child: Architecture | None = None  # the last one
        # After so many of its blocks: at all positions, (B, T, W), up to `_num_whole`, then at the labelled ones,
        # (N, W), which is all that the last mixing block's output is needed at.
        self._states: list[torch.Tensor] = [embedded]
        self._num_whole = 0

    def leaf(self, child: Architecture) -> torch.Tensor:
        """What the head sees of a child at the labelled positions, (N, D)."""
        last = last_mixing_block(child)
        depth = 0 if self._child is None else self._model.encoder.num_shared(self._child, child)
        if depth <= last:  # what mixes is still to come, and needs all positions
            depth = min(depth, self._num_whole)
        self._child = child
        del self._states[depth + 1 :]
        self._num_whole = min(self._num_whole, depth)
        for block in range(depth, len(child)):
            states = self._states[block]
            if block > last and block == self._num_whole:
                states = states.flatten(0, 1)[self.positions]
            self._states.append(self._run(block, child, states, self.positions if block == last else None))
            if block < last:
                self._num_whole = block + 1
        return self._states[len(child)]

    def _run(
        self, block: int, child: Architecture, states: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.num_calls += child[block] != SKIP
        after: torch.Tensor = self._model.run_block(block, child[block], states, self._masks, positions, child)
        return after


class _Head:
    """The masked-LM head and its cross-entropy, which is most of the time once prefixes are shared.

    The projection writes into one buffer that stays in the cache, and the exponentials overwrite it. Words are its
    rows: the product is faster so. Exponentials are powers of two, in half the time of those of e; the states are
    multiplied by log2(e) before. The bias is left out of the product (it would cost a pass of its own over all logits)
    and enters as `sum(exp(x) * exp(bias))`. Only where that leaves the range of fp32 is the largest logit subtracted
    first, as a softmax does.
    """

    def __init__(self, supernet: SupernetForMaskedLM) -> None:
        self._head = supernet.lm_head
        self._weight = self._head.decoder.weight.float()  # (V, D)
        self._bias = self._head.decoder.bias.float()
        self._exp_bias = self._bias.exp()
        self._num_rows = _ROWS_ON_CPU if self._weight.device.type == "cpu" else _ROWS_ELSEWHERE
        self._buffer = self._weight.new_empty(self._num_rows * len(self._weight))

    def states(self, rows: torch.Tensor) -> torch.Tensor:
        """What the projection sees of every row (N, D)."""
        head = self._head
        states: torch.Tensor = head.LayerNorm(head.activation(head.dense(rows))).float()
        return states

    def losses(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The cross-entropy at every row (N, D)."""
        states = self.states(rows)
        parts = zip(torch.split(states, self._num_rows), torch.split(labels, self._num_rows), strict=True)
        return torch.cat([self._cross_entropy(states, labels) for states, labels in parts])

    def mean_probabilities(self, rows: torch.Tensor) -> torch.Tensor:
        """How likely each word is, on average over rows (N, D): (V,)."""
        parts = torch.split(self.states(rows), self._num_rows)
        sums = [torch.addmm(self._bias, states, self._weight.T).softmax(1).sum(0) for states in parts]
        return torch.stack(sums).sum(0) / len(rows)

    def _cross_entropy(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._buffer[: len(self._weight) * len(states)].view(len(self._weight), len(states))
        torch.mm(self._weight, (states * _LOG2_E).T, out=logits)
        label_logits = logits.gather(0, labels[None]).squeeze(0) / _LOG2_E + self._bias[labels]
        normaliser = self._exp_bias @ logits.exp2_()
        losses: torch.Tensor = normaliser.log() - label_logits
        # Written so that NaN is out of range too.
        if not bool(((normaliser > 1e-30) & (normaliser < 1e38)).all()):
            logits = torch.addmm(self._bias, states, self._weight.T)
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return losses


class LikelyWords:
    """The masked-LM head with the likely words alone, and a normal distribution in place of the others' logits.

    The normaliser of a softmax is a sum over the vocabulary. Words that some reference child finds likely make most of
    it, and enter exactly. Of the others only mean and covariance of their embeddings are kept, weighed by their
    biases: were their logits normal, their part would be `mass * exp(mean + variance / 2)`. The label's own logit is
    exact.

    Args:
        supernet: The super-net whose children are to be ordered.
        batches: The batches that they are to be ordered on.
        share: The share of the vocabulary that enters exactly. It never is all of it.

    The references are drawn from the super-net's space, the same ones each time: the same super-net, batches and share
    make the same estimates, to the bit, on devices that compute the same bits twice.

    Raises:
        ValueError: If the share is not above 0 and below 1, or there is no labelled token.
    """

    @torch.inference_mode()
    def __init__(
        self, supernet: SupernetForMaskedLM, batches: Sequence[Batch], *, share: float = LIKELY_SHARE
    ) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share={share}: expected a share of the words above 0 and below 1")
        batches = [batch for batch in batches if _count_labels(batch)]
        if not batches:
            raise ValueError(f"no batch has a labelled token: give labels other than {_IGNORED}")
        rng = random.Random(0)
        references = [supernet.space.sample(rng) for _ in range(_NUM_REFERENCES)]
        with running(supernet):
            self._head = _Head(supernet)
            walks = [_Walk(supernet, batch) for batch in batches]
            rows = [torch.cat([walk.leaf(child) for walk in walks]) for child in references]
            found = torch.stack([self._head.mean_probabilities(part) for part in rows])
            likely = found.nan_to_num(0).amax(0)  # a reference whose weights diverged says nothing
        weight, bias = self._head._weight, self._head._bias
        words = likely.topk(max(1, int(len(weight) * share))).indices
        is_other = torch.ones_like(bias, dtype=torch.bool)
        is_other[words] = False
        self._weight, self._bias = weight[words].contiguous(), bias[words]
        self._exp_bias = self._bias.exp()
        others, log_mass = weight[is_other], torch.logsumexp(bias[is_other], 0)
        shares = (bias[is_other] - log_mass).exp()
        self._log_mass, self._mean = log_mass, shares @ others
        centred = others - self._mean
        self._covariance = (centred * shares[:, None]).T @ centred

    def losses(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The cross-entropy at every row (N, D), estimated."""
        states = self._head.states(rows)
        normaliser = self._exp_bias @ torch.mm(self._weight, (states * _LOG2_E).T).exp2_()
        if bool(((normaliser > 1e-30) & (normaliser < 1e38)).all()):
            likely = normaliser.log()
        else:
            likely = torch.logsumexp(torch.addmm(self._bias, states, self._weight.T), 1)
        variance = ((states @ self._covariance) * states).sum(1)
        others = self._log_mass + states @ self._mean + variance / 2
        weight, bias = self._head._weight, self._head._bias
        losses: torch.Tensor = torch.logaddexp(likely, others) - ((states * weight[labels]).sum(1) + bias[labels])
        return losses
