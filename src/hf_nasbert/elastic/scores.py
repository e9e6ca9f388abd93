"""How far children with inherited weights are from the base model, computing every shared prefix of operators once."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_nasbert.elastic.batches import Batch, digest_of
from hf_nasbert.elastic.distance import Distance, Parts, Target
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.kept import Kept, weights_digest
from hf_nasbert.space import Architecture

_NUM_PARTS = len(Parts._fields)


class Score(NamedTuple):
    """A child's distance from the base model, mean over batches: the weighted sum, and its parts (`Parts`)."""

    loss: float
    states: float
    vectors: float
    logits: float


def score_children(
    supernet: PreTrainedModel,
    architectures: Sequence[Sequence[str]],
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    *,
    bf16: bool = False,
    kept: str | Path | None = None,
    progress: bool = False,
    processes: PartialState | None = None,
) -> list[Score]:
    """Score children of a super-net by their distance from the base model, with the weights that they have there.

    Args, returned scores and errors as of `judge_children`.
    """
    return judge_children(
        supernet, architectures, batches, targets, distance, bf16=bf16, kept=kept, progress=progress,
        processes=processes,
    )[0]  # fmt: skip


Predict = Callable[[torch.Tensor], list[float]]
"""Makes predictions, one for each sequence, of logits (B, C)."""


def judge_children(
    supernet: PreTrainedModel,
    architectures: Sequence[Sequence[str]],
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    *,
    predict: Predict | None = None,
    bf16: bool = False,
    kept: str | Path | None = None,
    progress: bool = False,
    processes: PartialState | None = None,
) -> tuple[list[Score], list[list[float]]]:
    """Score children of a super-net, and say what they predict.

    Children are leaves of a tree whose edges are operators, walked depth first: what they have in common runs once.

    Args:
        supernet: With or without a head.
        architectures: Any children, in any order.
        batches: Batches to score on.
        targets: What the base model makes of each (`TeacherStates`).
        distance: What is measured.
        predict: Makes predictions of a classifier's logits; None asks for none.
        bf16: Whether to take products in bfloat16.
        kept: File of what is scored so far: a killed call goes on after the last whole batch.
        progress: Whether to show a bar, on the main process.
        processes: Those that share out the batches; each has to call with the same arguments and gets all scores,
            which do not depend on their number. With more than one nothing is kept.

    Returns:
        One score per architecture, in the order given, and its predictions for all batches' sequences, if asked for.

    Raises:
        ValueError: If an architecture is not in the space, there is no batch, or `kept` is of another call.
    """
    if not batches or len(batches) != len(targets):
        raise ValueError(f"{len(batches)} batches and {len(targets)} targets: expected as many, and one at least")
    space = encoder_of(supernet).encoder.space
    asked = [space.validate(architecture) for architecture in architectures]
    first = encoder_of(supernet).encoder.largest_architecture
    distinct = walking_order(set(asked), first)
    num_processes = 1 if processes is None else processes.num_processes
    asked_for: dict[str, Any] = {}
    if kept is not None and num_processes == 1:  # reading all weights would cost a search more than its scores
        asked_for = {
            "weights": weights_digest(supernet),
            "batches": digest_of(batches),
            "children": hashlib.sha256("\n".join(map(str, distinct)).encode()).hexdigest()[:16],
            "distance": distance.describe(),
            "mean": distance.mean_digest(),
            "bf16": bf16,
        } | ({} if predict is None else {"predictions": True})
    done = Kept(kept if num_processes == 1 else None, asked_for)
    mine = range(len(batches)) if processes is None else range(processes.process_index, len(batches), num_processes)
    starts = [0, *itertools.accumulate(len(batch["input_ids"]) for batch in batches)]
    found = torch.zeros(len(batches), len(distinct), _NUM_PARTS, dtype=torch.float64)
    predicted = torch.zeros(len(distinct), 0 if predict is None else starts[-1], dtype=torch.float64)
    is_shown = progress and (processes is None or processes.is_main_process)
    with (
        running(supernet, bf16=bf16),
        tqdm(total=len(mine) * len(distinct), unit=" children x batches", disable=not is_shown, leave=False) as bar,
    ):
        for number in mine:
            walk = _Walk(supernet, batches[number])

            def score(walk: _Walk = walk, target: Target = targets[number]) -> list[list[float]]:
                scored = []
                for child in distinct:
                    parts, logits = walk.parts(child, target, distance)
                    numbers = [float(part) for part in parts]
                    if not all(map(math.isfinite, numbers)):
                        raise ValueError(
                            f"the distance of the child {child} is {numbers}: weights or states are no numbers"
                        )
                    scored.append(numbers if predict is None or logits is None else [*numbers, *predict(logits)])
                    bar.update()
                return scored

            rows = torch.tensor(done.get(f"batch {number}", score), dtype=torch.float64)
            found[number] = rows[:, :_NUM_PARTS]
            if predict is not None:
                predicted[:, starts[number] : starts[number + 1]] = rows[:, _NUM_PARTS:]
    if processes is not None and num_processes > 1:  # each number has one process that knows it
        found = reduce(found.to(processes.device), "sum").cpu()
        if predict is not None:
            predicted = reduce(predicted.to(processes.device), "sum").cpu()
    parts = torch.stack(list(found)).sum(0) / len(batches)
    score_of = {
        child: Score(float(distance.total(Parts(*row))), *row.tolist())
        for child, row in zip(distinct, parts, strict=True)
    }
    predictions_of = dict(zip(distinct, predicted.tolist(), strict=True))
    return [score_of[child] for child in asked], [predictions_of[child] for child in asked]


def walking_order(children: Iterable[Architecture], full: Architecture) -> list[Architecture]:
    """Children so that those with a common prefix are neighbours, the full child's operators first.

    Then all its states are there for whatever replaces one of them.
    """
    return sorted(children, key=lambda child: [(name != own, name) for name, own in zip(child, full, strict=True)])


@dataclass(frozen=True)
class Scorer:
    """Scores children of one super-net on the same batches, as searches ask it (`hf_nasbert.searching.Score`).

    Args are those of `score_children`; `kept_in` is the folder of files of what is scored so far.
    """

    supernet: PreTrainedModel
    batches: Sequence[Batch]
    targets: Sequence[Target]
    distance: Distance
    bf16: bool = False
    kept_in: str | Path | None = None
    progress: bool = False
    processes: PartialState | None = None

    def __call__(
        self, architectures: Sequence[Sequence[str]], num_batches: int | None = None, *, kept_as: str | None = None
    ) -> list[float]:
        """The losses of children on the first `num_batches`, by default on all; kept where they are given a name."""
        number = len(self.batches) if num_batches is None else num_batches
        targets = [self.targets[index] for index in range(number)]
        scores = score_children(
            self.supernet, architectures, self.batches[:number], targets, self.distance,
            bf16=self.bf16, kept=self._file(kept_as), progress=self.progress, processes=self.processes,
        )  # fmt: skip
        return [score.loss for score in scores]

    def with_predictions(
        self, architectures: Sequence[Sequence[str]], predict: Predict, *, kept_as: str | None = None
    ) -> list[tuple[float, list[float]]]:
        """The loss and the predictions of children on all batches; kept where they are given a name."""
        scores, predictions = judge_children(
            self.supernet, architectures, self.batches, self.targets, self.distance, predict=predict,
            bf16=self.bf16, kept=self._file(kept_as), progress=self.progress, processes=self.processes,
        )  # fmt: skip
        return [(score.loss, own) for score, own in zip(scores, predictions, strict=True)]

    def _file(self, kept_as: str | None) -> Path | None:
        return None if self.kept_in is None or kept_as is None else Path(self.kept_in) / f"{kept_as}.json"


def score_model(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    *,
    bf16: bool = False,
) -> Score:
    """The distance of one model of its own, a child or the base model, mean over batches."""
    encoder, device = encoder_of(model), next(model.parameters()).device
    found = []
    with running(model, bf16=bf16):
        for batch, target in zip(batches, targets, strict=True):
            mask = mask_of(batch, device)
            hidden_states, masks = encoder.embed(**inputs_of(batch, device))
            found.append(_parts(model, encoder.encoder(hidden_states, masks), mask, target, distance)[0])
    parts = torch.tensor([[float(part) for part in row] for row in found], dtype=torch.float64).mean(0)
    return Score(float(distance.total(Parts(*parts))), *parts.tolist())


def predictions_of(model: PreTrainedModel, batches: Sequence[Batch], predict: Predict) -> list[float]:
    """What a classifier of its own predicts for all batches' sequences, in their order."""
    encoder, device = encoder_of(model), next(model.parameters()).device
    found: list[float] = []
    with running(model):
        for batch in batches:
            hidden_states, masks = encoder.embed(**inputs_of(batch, device))
            logits = logits_of(model, encoder.encoder(hidden_states, masks), mask_of(batch, device))
            found += [] if logits is None else predict(logits)
    return found


def _parts(
    model: PreTrainedModel, hidden_states: torch.Tensor, mask: torch.Tensor, target: Target, distance: Distance
) -> tuple[Parts, torch.Tensor | None]:
    """The parts of a model's distance, and its logits, where the base model has some."""
    with torch.autocast(hidden_states.device.type, enabled=False):
        logits = None if target.logits is None else logits_of(model, hidden_states.float(), mask)
        return distance.parts(hidden_states, mask, target, logits), logits


class _Walk:
    """The walk over the tree of children on one batch: the states along the path to the child scored last."""

    def __init__(self, supernet: PreTrainedModel, batch: Batch) -> None:
        device = next(supernet.parameters()).device
        self._supernet, self._encoder = supernet, encoder_of(supernet)
        self._mask = mask_of(batch, device)
        embedded, self._masks = self._encoder.embed(**inputs_of(batch, device))
        self._states: list[torch.Tensor] = [embedded]
        self._child: Architecture | None = None  # the last one

    def parts(self, child: Architecture, target: Target, distance: Distance) -> tuple[Parts, torch.Tensor | None]:
        """The parts of a child's distance, and its logits."""
        depth = 0 if self._child is None else self._encoder.encoder.num_shared(self._child, child)
        self._child = child
        del self._states[depth + 1 :]
        for block in range(depth, len(child)):
            self._states.append(
                self._encoder.run_block(block, child[block], self._states[-1], self._masks, child=child)
            )
        return _parts(self._supernet, self._states[-1], self._mask, target, distance)
