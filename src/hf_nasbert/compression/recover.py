"""Recovery: the chosen child alone, distilled from the base model's states; a killed run goes on, bit for bit.

One file, for a child and a super-net are distilled by the same steps, checkpoints and resumption.
"""

import dataclasses
import json
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_nasbert import checkpoint_folders
from hf_nasbert.checkpoint_folders import DamagedCheckpointError
from hf_nasbert.compression.sentences import LABELS, Batch, digest_of, num_tokens
from hf_nasbert.compression.states import TeacherStates
from hf_nasbert.elastic.distance import Distance, Parts, Target
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running, watched
from hf_nasbert.elastic.scores import Score, score_children, score_model
from hf_nasbert.kept import weights_digest
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.processes import StepGroup, on_main_process
from hf_nasbert.samplers import GradualSampler
from hf_nasbert.settings import check_fields, setting
from hf_nasbert.space import SKIP, Architecture, SearchSpace
from hf_nasbert.stopping import StopRequest, leave
from hf_nasbert.training.checkpoints import (
    MODEL,
    OPTIMIZER,
    first_difference,
    load_model,
    load_optimizer,
    read_json,
    save_model,
    save_optimizer,
    write_json,
)

logger = logging.getLogger(__name__)

_STATE, _BEST = "recovery.json", "best.safetensors"
_MOST_RISE = 1.5  # of the training loss from the first quarter of the steps to the last
_FEWEST_OF_A_TREND = 20  # steps
_LOWEST_RATE = 0.02  # of the learning rate, at the end
NUM_SCORED = 16
"""Children that say whether a super-net gained."""
_STEP_TIMEOUT = 1800.0  # seconds that processes wait for each other within a step


@dataclass(frozen=True)
class RecoverySettings:
    """How a child is distilled.

    Raises:
        ValueError: If a number lies outside of its range.
    """

    num_steps: int = setting(200, "Batches, one a step.", at_least=1)
    learning_rate: float = setting(5e-4, "The highest one.", above=0)
    warmup: float = setting(
        0.1, "Share of the steps in which it rises; after them it falls in a straight line.", at_least=0, at_most=1
    )
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", above=0)
    bf16: bool = setting(False, "Whether to take products in bfloat16.")
    inner_weight: float = setting(
        0.0, "Weight of the relative error after inner blocks, mean over those that the targets hold."
    )
    train_embeddings: bool = setting(
        False, "Whether the embeddings are trained as well; a child shares the base model's by default."
    )
    seed: int = setting(0, "Of the batches' order.", at_least=0)
    save_steps: int = setting(100, "Steps between two checkpoints.", at_least=1)
    patience: int = setting(
        0,
        "Looks at the held-out batches in a row that may bring nothing before recovery stops; 0 looks at the end "
        "alone and never stops before it.",
        at_least=0,
    )
    check_steps: int = setting(25, "Steps between two of these looks.", at_least=1)
    label_weight: float = setting(
        0.0,
        "Weight of the labels' cross-entropy (of numbers the squared error) beside the distance; 0 needs no labels.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rising = self.warmup * self.num_steps
        share = (step + 1) / rising if step < rising else max(_LOWEST_RATE, 1 - step / self.num_steps)
        return self.learning_rate * min(1.0, share)


@dataclass(frozen=True)
class Recovery:
    """What recovery did.

    Args:
        losses: The training loss of every step that was made.
        num_tokens: Real tokens trained on.
        before: The child's distance on the held-out batches before, where some were given.
        after: Likewise with the weights that it is left with.
        kept_step: The step after which it had these weights: the last one, an earlier one, or 0, where nothing that
            was looked at was better than its start.
        looks: What was looked at, by step: the distance, or where labels have a weight their loss.
    """

    losses: list[float]
    num_tokens: int
    before: Score | None
    after: Score | None
    kept_step: int
    looks: dict[int, float]

    @property
    def has_fallen(self) -> bool:
        """Whether training went as it should: no loss was infinite, and the last ones are not far above the first.

        By the means of the first and of the last quarter of the steps. A child with little to learn may rise a bit,
        since batches differ, but not by half. Of a few steps only the numbers say something: one batch is no trend.
        """
        if not self.losses or not all(map(math.isfinite, self.losses)):
            return False
        if len(self.losses) < _FEWEST_OF_A_TREND:
            return True
        quarter = max(1, len(self.losses) // 4)
        return sum(self.losses[-quarter:]) <= _MOST_RISE * sum(self.losses[:quarter])


class _Share(NamedTuple):
    """What one process computes of a step: sequences, and the share of each part of their distance in the batch's."""

    batch: Batch
    target: Target
    weights: Parts = Parts(*torch.ones(3))


def recover(
    child: PreTrainedModel,
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    settings: RecoverySettings,
    *,
    held_out: tuple[Sequence[Batch], Sequence[Target]] | None = None,
    output_dir: str | Path | None = None,
    progress: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
    can_leave: bool = True,
) -> Recovery:
    """Distil a child in place: AdamW on its distance from the base model, and on labels where they have a weight.

    Without dropout: what is taught is exact. The order of the batches is drawn anew for every round through them, and
    a step depends on its number alone. Where held-out batches are given, the child is left with the best weights that
    were looked at on them; its start is among these, so that recovery never makes it worse. Best is the least
    distance, or where labels have a weight the least loss of these: who learns the task may leave the base model.

    Args:
        child: Alone or with the base model's head.
        batches: To train on.
        targets: What the base model makes of each (`TeacherStates`).
        distance: What is minimised.
        settings: How.
        held_out: Batches and targets to choose by.
        output_dir: Folder of the checkpoints, from the newest of which a killed run goes on.
        progress: Whether to show a bar.
        on_step: Called with the number of every step, from 0, before it; an exception out of it ends the recovery.
        can_leave: Whether a signal or the end of its time ends the program after a step, what is done being saved.

    Raises:
        ValueError: If there is no batch, or one without labels where they have a weight; if a loss is not finite and
            there is nothing to choose by, patience has nothing to look at, or the checkpoints are of another run.
        OSError: If a checkpoint cannot be written.
    """
    _check_targets(batches, targets)
    if not any(True for _ in encoder_of(child).encoder.parameters()):
        raise ValueError("a child of which every block is left out has nothing to train: allow a larger budget")
    if settings.patience and held_out is None:
        raise ValueError(f"patience={settings.patience} needs held-out batches to look at")
    places = _places_of(child, targets, settings)
    inner = targets.inner_blocks if isinstance(targets, TeacherStates) and places else ()
    asked = _asked(child, batches, distance, settings) | {"inner_blocks": list(inner)}
    run = _Run(child, settings, asked, output_dir)

    def scored() -> Score:
        assert held_out is not None
        return score_model(child, *held_out, distance, bf16=settings.bf16)

    def look() -> float:
        assert held_out is not None
        return _label_loss_on(child, held_out[0], settings) if settings.label_weight else scored().loss

    def loss_of(step: int, share: _Share) -> torch.Tensor:
        on_step(step)
        return _loss_of(child, share, distance, settings, settings.label_weight, {}, places)

    before = None
    if held_out is not None:
        before = scored()
        run.keep_best(0, look() if settings.label_weight else before.loss)
    _fit(
        run, batches, targets, distance, loss_of, progress=progress, look=look if held_out else None,
        can_leave=can_leave,
    )  # fmt: skip
    after = None
    if held_out is not None:
        after = before if run.best_step == 0 else scored()
    return Recovery(
        run.losses, _tokens_used(batches, settings, len(run.losses)), before, after,
        len(run.losses) if held_out is None else run.best_step, run.looks,
    )  # fmt: skip


@dataclass(frozen=True)
class SupernetRecovery:
    """What the distillation of a super-net did.

    Args:
        losses: The training loss of every step, each of another child.
        num_tokens: Real tokens trained on.
        before: Mean distance of some random children on the held-out batches before.
        after: Likewise after the last step.
    """

    losses: list[float]
    num_tokens: int
    before: float
    after: float


def distil_supernet(
    supernet: SupernetPreTrainedModel,
    space: SearchSpace,
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    settings: RecoverySettings,
    *,
    held_out: tuple[Sequence[Batch], Sequence[Target]],
    method: str = "uniform",
    output_dir: str | Path | None = None,
    progress: bool = False,
    processes: PartialState | None = None,
    can_leave: bool = True,
) -> SupernetRecovery:
    """Distil the children of a super-net in place, one of a space in every step; arguments as of `recover`.

    Where labels have a weight, the full child learns from them in every step as well: the super-net is trained on the
    task while it is elastic (InstaTune), and all others learn from what the base model makes of it.

    Args:
        supernet: Of the space, or of a larger one.
        space: Whose children are trained: screened first, so that none is broken.
        batches: To train on.
        targets: What the base model makes of each.
        distance: What is minimised.
        settings: How.
        held_out: Batches and targets that some random children are scored on before and after.
        method: `uniform`, each step another random child; or `magic_t`, each step's child differs from the one before
            in one operator, so that children that share the others interfere less (`GradualSampler`).
        output_dir: Folder of the checkpoints.
        progress: Whether to show a bar.
        processes: Those that share out the sequences of every batch, and see one folder of checkpoints; each has to
            call with the same arguments and gets the same bits. Of another number of processes they differ by the
            rounding of sums that are cut elsewhere.
        can_leave: As of `recover`.

    Raises:
        ConnectionError: If another process died.
        ValueError: If there is no batch, a loss is not finite, these children end further from the base model than
            they began, in the mean, or the checkpoints are of another run.
        OSError: If a checkpoint cannot be written.
    """
    _check_targets(batches, targets)
    asked = _asked(supernet, batches, distance, settings) | {"space": space.to_dict(), "method": method}
    children = _children_of_steps(space, method, settings)
    run = _Run(supernet, settings, asked, output_dir, processes)
    rng = random.Random(f"{settings.seed} scored")
    scored = [space.sample(rng) for _ in range(NUM_SCORED)]

    def mean_loss() -> float:
        scores = score_children(supernet, scored, *held_out, distance, bf16=settings.bf16, processes=processes)
        return sum(score.loss for score in scores) / len(scores)

    def loss_of(step: int, share: _Share) -> torch.Tensor:
        loss = _loss_of(supernet, share, distance, settings, 0.0, {"architecture": children[step]})
        if settings.label_weight:
            full = {"architecture": encoder_of(supernet).encoder.largest_architecture}
            loss = loss + _loss_of(supernet, share, distance, settings, settings.label_weight, full)
        return loss

    before = mean_loss()
    _fit(run, batches, targets, distance, loss_of, progress=progress, can_leave=can_leave)
    after = mean_loss()
    if not after < before:
        raise ValueError(
            "training made the super-net's children worse: their mean distance from the base model on held-out text "
            f"was {before:.4f} and is {after:.4f}: lower learning_rate={settings.learning_rate}, or give more steps"
        )
    return SupernetRecovery(run.losses, _tokens_used(batches, settings, settings.num_steps), before, after)


def _children_of_steps(space: SearchSpace, method: str, settings: RecoverySettings) -> list[Architecture]:
    steps = range(settings.num_steps)
    if method == "uniform":
        return [space.sample(random.Random(f"{settings.seed} child {step}")) for step in steps]
    if method != "magic_t":
        raise ValueError(f"method={method!r} is none of uniform, magic_t")
    sampler = GradualSampler(space, seed=settings.seed)
    return [sampler.next_architecture() for _ in steps]


def _fit(
    run: "_Run",
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    loss_of: Callable[[int, _Share], torch.Tensor],
    *,
    progress: bool,
    look: Callable[[], float] | None = None,
    can_leave: bool = True,
) -> None:
    """All steps that are still to be done; `loss_of` a step's number and share is minimised.

    With `look` the model is left with the best weights that were looked at. Asked to stop, the program ends after a
    step, unless it cannot leave: then nobody goes on with these steps.
    """
    settings, model = run.settings, run.model
    run.resume()
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(True)
    for parameter in run.frozen:
        parameter.requires_grad_(False)
    try:
        with (
            running(model, gradients=True),
            tqdm(
                total=settings.num_steps, initial=len(run.losses), unit=" steps", disable=not progress, leave=False
            ) as bar,
            StopRequest() if can_leave and run.can_leave else nullcontext() as stop,
        ):
            while not run.is_over:
                step = len(run.losses)
                index = batch_of_step(len(batches), settings.seed, step)
                share = _Share(batches[index], targets[index])
                if run.processes is not None and run.group is not None:
                    share = _own_share(*share[:2], distance, run.processes)
                run.step(loss_of(step, share), can_stop=look is not None)
                if look is not None and run.is_looked_at:
                    run.keep_best(step + 1, look())
                run.save_where_due()
                bar.update()
                if stop is not None:
                    run.leave_where_asked(stop)
        if look is not None:
            run.restore_best()
    finally:
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


def time_steps(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    settings: RecoverySettings,
    options: Callable[[int], dict[str, Any]],
    output_dir: str | Path,
) -> list[float]:
    """CPU-seconds of each step of a training that nobody keeps, after the last one with its checkpoint.

    Args are those of `recover`; `options` of a step are given to the encoder: a super-net's `architecture`.
    """
    times: list[float] = []

    def loss_of(step: int, share: _Share) -> torch.Tensor:
        times.append(time.process_time())
        return _loss_of(model, share, distance, settings, settings.label_weight, options(step))

    _fit(_Run(model, settings, {}, output_dir), batches, targets, distance, loss_of, progress=False, can_leave=False)
    times.append(time.process_time())
    return [end - start for start, end in pairwise(times)]


def _asked(
    model: PreTrainedModel, batches: Sequence[Batch], distance: Distance, settings: RecoverySettings
) -> dict[str, Any]:
    return {
        "child": weights_digest(model),
        "batches": digest_of(batches),
        "distance": distance.describe(),
        "mean": distance.mean_digest(),
        "settings": {name: value for name, value in dataclasses.asdict(settings).items() if name != "save_steps"},
    }


def _check_targets(batches: Sequence[Batch], targets: Sequence[Target]) -> None:
    if not batches or len(batches) != len(targets):
        raise ValueError(f"{len(batches)} batches and {len(targets)} targets: expected as many, and one at least")


def _label_loss_on(child: PreTrainedModel, batches: Sequence[Batch], settings: RecoverySettings) -> float:
    """The mean loss of held-out labels, an example as much as any other."""
    with running(child):
        losses = [
            len(batch[LABELS]) * float(_label_loss(_run_child(child, batch, settings, {})[2], batch))
            for batch in batches
        ]
    return sum(losses) / sum(len(batch[LABELS]) for batch in batches)


def _tokens_used(batches: Sequence[Batch], settings: RecoverySettings, num_steps: int) -> int:
    return num_tokens([batches[batch_of_step(len(batches), settings.seed, step)] for step in range(num_steps)])


def batch_of_step(num_batches: int, seed: int, step: int) -> int:
    """The batch of a step."""
    epoch, place = divmod(step, num_batches)
    order = list(range(num_batches))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order[place]


def _own_share(batch: Batch, target: Target, distance: Distance, processes: PartialState) -> _Share:
    """This process' sequences of a batch."""
    mask = batch["attention_mask"].bool()
    index, count, number = processes.process_index, processes.num_processes, len(mask)
    first, end = number * index // count, number * (index + 1) // count
    if first == end:  # fewer sequences than processes: what is computed all the same has no weight
        return _Share(batch, target, Parts(*torch.zeros(3)))
    ends = [0, *mask.sum(1).cumsum(0).tolist()]
    start, stop = ends[first], ends[end]  # tokens
    states = target.states[start:stop]
    variances = [(one.float() - distance.mean.to(one.device)).square().sum() for one in (states, target.states)]
    sequences = torch.tensor((end - first) / number)
    logits, share = target.logits, sequences
    if logits is not None and len(logits) == number:  # one row a sequence
        logits = logits[first:end]
    elif logits is not None:
        logits, share = logits[start:stop], torch.tensor((stop - start) / ends[-1])
    rows = {name: tensor[first:end] for name, tensor in batch.items()}
    return _Share(rows, Target(states, logits), Parts((variances[0] / variances[1]).cpu(), sequences, share))


def _loss_of(
    child: PreTrainedModel,
    share: _Share,
    distance: Distance,
    settings: RecoverySettings,
    label_weight: float,
    options: Mapping[str, Any],
    places: Sequence["_Place"] = (),
) -> torch.Tensor:
    """The distance of a child, with the weighted losses of labels and inner states; `options` go to the encoder."""
    with watched([place.block for place in places]) as outputs:
        hidden_states, mask, logits = _run_child(child, share.batch, settings, options)
    parts = distance.parts(hidden_states, mask, share.target, None if share.target.logits is None else logits)
    weights = Parts(*(weight.to(hidden_states.device) for weight in share.weights))
    loss = distance.total(Parts(*(weight * part for weight, part in zip(weights, parts, strict=True))))
    if label_weight:  # a mean over sequences, as that of their vectors
        loss = loss + label_weight * weights.vectors * _label_loss(logits, share.batch)
    for place in places:  # of a whole batch: a recovery is of one process
        wanted = share.target.inner[place.number].to(hidden_states.device).float()
        error = (outputs[place.block].float()[mask] - wanted).square().sum()
        spread = (wanted - place.mean.to(wanted.device)).square().sum()
        loss = loss + settings.inner_weight / len(share.target.inner) * error / spread
    return loss


def _run_child(
    child: PreTrainedModel, batch: Batch, settings: RecoverySettings, options: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A child's last states (B, T, D), the mask of real tokens, and its logits, if it has a classifier."""
    device = next(child.parameters()).device
    encoder, mask = encoder_of(child), mask_of(batch, device)
    # Entered anew for every step: within one autocast weights are cast once, and those of the step before would stay.
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        with torch.set_grad_enabled(settings.train_embeddings and torch.is_grad_enabled()):
            hidden_states, masks = encoder.embed(**inputs_of(batch, device))
        hidden_states = encoder.encoder(hidden_states, masks, **options)
    return hidden_states, mask, logits_of(child, hidden_states.float(), mask)


class _Place(NamedTuple):
    """A child's block that stands where inner states of the base model are kept, their number, and their mean."""

    block: nn.Module
    number: int
    mean: torch.Tensor


def _places_of(child: PreTrainedModel, targets: Sequence[Target], settings: RecoverySettings) -> list[_Place]:
    """Where a child is held to inner states, if they have a weight.

    Where a block is skipped, the one before it stands for it; in front of the first one there is nothing to learn.
    """
    if not settings.inner_weight:
        return []
    if not isinstance(targets, TeacherStates) or not targets.inner_blocks:
        raise ValueError(f"inner_weight={settings.inner_weight} needs states of inner blocks as targets")
    real = [place for place, name in enumerate(child.config.operators) if name != SKIP]
    found = []
    for number, (place, mean) in enumerate(zip(targets.inner_blocks, targets.inner_means, strict=True)):
        before = sum(one <= place for one in real)
        if before:
            found.append(_Place(encoder_of(child).encoder.blocks[before - 1], number, mean))
    return found


def _label_loss(logits: torch.Tensor | None, batch: Batch) -> torch.Tensor:
    """Cross-entropy of classes, from logits (B, C); of numbers, from (B, 1), the squared error.

    Raises:
        ValueError: If there are no logits, or no labels.
    """
    if logits is None or LABELS not in batch:
        raise ValueError("a weight of labels needs a classifier, and batches with labels")
    labels = batch[LABELS].to(logits.device)
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits.flatten(), labels)
    return nn.functional.cross_entropy(logits, labels)


class _Run:
    """A child or super-net, its optimizer, and how far it has come."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: RecoverySettings,
        asked: dict[str, Any],
        folder: str | Path | None,
        processes: PartialState | None = None,
    ) -> None:
        self.model, self.settings, self.processes = model, settings, processes
        self.group = None
        if processes is not None and processes.num_processes > 1:
            self.group = StepGroup(processes, _STEP_TIMEOUT)
        self.frozen = [] if settings.train_embeddings else list(encoder_of(model).embeddings.parameters())
        trained = [parameter for parameter in model.parameters() if not any(parameter is one for one in self.frozen)]
        self._optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self._folder = None if folder is None else Path(folder)
        self._asked = json.loads(json.dumps(asked))
        self.losses: list[float] = []
        self.looks: dict[int, float] = {}
        self._best: dict[str, torch.Tensor] = {}

    @property
    def best_step(self) -> int:
        """The step after which the weights were best, of those that were looked at."""
        return min(self.looks, key=lambda step: (self.looks[step], step))

    @property
    def is_over(self) -> bool:
        """Whether all steps are made, one brought no number, or patience is at its end."""
        if len(self.losses) == self.settings.num_steps or not all(map(math.isfinite, self.losses[-1:])):
            return True
        later = [step for step in self.looks if step > self.best_step] if self.looks else []
        return 0 < self.settings.patience <= len(later)

    @property
    def is_looked_at(self) -> bool:
        """Whether the weights after the step that was made last are to be looked at."""
        step, settings = len(self.losses), self.settings
        is_due = settings.patience > 0 and step % settings.check_steps == 0
        return math.isfinite(self.losses[-1]) and (is_due or step == settings.num_steps)

    def keep_best(self, step: int, loss: float) -> None:
        """Note a look, and the weights where they are the best so far; a look that sees no number is the worst."""
        self.looks[step] = loss if math.isfinite(loss) else sys.float_info.max
        if self.best_step == step:
            self._best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def restore_best(self) -> None:
        """Give the model the best weights."""
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self._best[name])

    def step(self, loss: torch.Tensor, *, can_stop: bool) -> None:
        """One step down a loss, which is this process' share of it.

        One that is no number ends it all, or is an error where nothing better was kept.
        """
        step = len(self.losses)
        value = loss.item() if self.group is None else self.group.sums(loss.detach().double()).item()
        if not math.isfinite(value):
            if not can_stop:
                raise ValueError(
                    f"the loss of step {step} is {value}: lower learning_rate={self.settings.learning_rate}"
                )
            self.losses.append(math.inf)
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        if self.group is not None:  # all processes ran the same child: they have gradients of the same parameters
            self.group.add_up([parameter.grad for parameter in parameters if parameter.grad is not None])
        nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self._optimizer.step()
        self.losses.append(value)

    def save_where_due(self, *, is_leaving: bool = False) -> None:
        """Write a checkpoint after the last step, every so many before it, and to leave; one process does."""
        step = len(self.losses)
        is_main = self.processes is None or self.processes.is_main_process
        if not is_main or self._folder is None or not math.isfinite(self.losses[-1]):
            return
        is_due = step % self.settings.save_steps == 0
        if self.is_over or is_due != is_leaving:  # one that is due is there when the program leaves
            checkpoint_folders.write_checkpoint(
                self._folder, step, self._write, limit=2, advice="call it again: it goes on from there"
            )

    @property
    def can_leave(self) -> bool:
        """Whether the program may end after a step: what is done is kept, and no other process waits for this one."""
        is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
        return self._folder is not None and (is_alone or self.processes is not None)

    def leave_where_asked(self, stop: StopRequest) -> None:
        """End the program where any of the processes was asked to, or its time is up, what is done being saved.

        Raises:
            SystemExit: With status 0.
        """
        is_asked = torch.tensor(float(stop.is_set))
        if self.group is not None:
            is_asked = self.group.sums(is_asked)
        if is_asked:
            if not self.is_over:  # else all of it is saved
                self.save_where_due(is_leaving=True)
            leave(f"stopped after step {len(self.losses)} of a distillation: the same command goes on from there")

    def _write(self, folder: Path) -> None:
        save_model(self.model, folder)
        save_optimizer(self._optimizer, self.model, folder)
        if self._has_best_of_its_own:
            save_file({name: tensor.contiguous() for name, tensor in self._best.items()}, folder / _BEST)
        looks = {str(step): loss for step, loss in self.looks.items()}
        write_json(folder / _STATE, {"asked": self._asked, "losses": self.losses, "looks": looks})

    @property
    def _has_best_of_its_own(self) -> bool:
        """Whether the best weights are neither the start, which is given anew, nor those after the last step."""
        return bool(self.looks) and self.best_step not in (0, len(self.losses))

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        if self._folder is None:
            return
        folder = self._latest() if self.processes is None else on_main_process(self.processes, self._latest)
        if folder is None:
            return
        state = read_json(folder / _STATE)
        difference = first_difference(state.get("asked"), self._asked)
        if difference is not None:
            raise ValueError(f"{folder} is of another recovery ({difference}): name another folder, or delete it")
        load_model(self.model, folder)
        load_optimizer(self._optimizer, self.model, folder)
        self.losses = [float(loss) for loss in state["losses"]]
        self.looks |= {int(step): float(loss) for step, loss in state["looks"].items() if self.looks}
        if self.looks and self.best_step > 0:
            own = self.model.state_dict() if not self._has_best_of_its_own else load_file(folder / _BEST)
            self._best = {name: tensor.clone() for name, tensor in own.items()}
        logger.info("recovery goes on from step %d", len(self.losses))

    def _latest(self) -> Path | None:
        assert self._folder is not None
        checkpoint_folders.delete_leftovers(self._folder)
        return checkpoint_folders.find_latest(self._folder, _check)


def _check(folder: Path) -> None:
    checkpoint_folders.verify(folder, (MODEL, OPTIMIZER, _STATE))
    try:
        read_json(folder / _STATE)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {_STATE} ({error})") from None
