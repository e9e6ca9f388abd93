"""Recovery: the chosen child alone, distilled from the base model's states; a killed run goes on to the same bits."""

import dataclasses
import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_nasbert import checkpoint_folders
from hf_nasbert.checkpoint_folders import DamagedCheckpointError
from hf_nasbert.compression.sentences import Batch, digest_of, num_tokens
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.elastic.scores import Score, score_children, score_model
from hf_nasbert.kept import weights_digest
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.space import SearchSpace
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

_STATE = "recovery.json"
_LOWEST_RATE = 0.02  # of the learning rate, at the end
_NUM_SCORED = 16  # children that say whether a super-net gained


@dataclass(frozen=True)
class RecoverySettings:
    """How a child is distilled.

    Args:
        num_steps: Batches, one a step.
        learning_rate: The highest one.
        warmup: Share of the steps in which it rises; behind them it falls in a straight line.
        max_grad_norm: Gradients are clipped to this norm.
        bf16: Whether to take products in bfloat16.
        train_embeddings: Whether the embeddings are trained as well; a child shares the base model's by default.
        seed: Of the batches' order.
        save_steps: Steps between two checkpoints.

    Raises:
        ValueError: If a number lies outside of its range.
    """

    num_steps: int = 200
    learning_rate: float = 5e-4
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    bf16: bool = False
    train_embeddings: bool = False
    seed: int = 0
    save_steps: int = 100

    def __post_init__(self) -> None:
        for name, least in (("num_steps", 1), ("save_steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a positive number")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup={self.warmup} must lie in [0, 1]")

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rising = self.warmup * self.num_steps
        share = (step + 1) / rising if step < rising else max(_LOWEST_RATE, 1 - step / self.num_steps)
        return self.learning_rate * min(1.0, share)


@dataclass(frozen=True)
class Recovery:
    """What recovery did.

    Args:
        losses: The training loss of every step.
        num_tokens: Real tokens trained on.
        before: The child's distance on the held-out batches before, where some were given.
        after: Likewise behind the last step.
    """

    losses: list[float]
    num_tokens: int
    before: Score | None
    after: Score | None


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
) -> Recovery:
    """Distil a child in place: AdamW on its distance from the base model.

    Without dropout: what is taught is exact. The order of the batches is drawn anew for every round through them, and
    a step depends on its number alone.

    Args:
        child: Alone or with the base model's head.
        batches: To train on.
        targets: What the base model makes of each (`TeacherStates`).
        distance: What is minimised.
        settings: How.
        held_out: Batches and targets to choose by, on which the child is scored before and behind.
        output_dir: Folder of the checkpoints, from the newest of which a killed run goes on.
        progress: Whether to show a bar.

    Raises:
        ValueError: If there is no batch, the loss is not finite, the child ends further from the base model than it
            began (on `held_out`), or the checkpoints are of another run.
        OSError: If a checkpoint cannot be written.
    """
    _check_targets(batches, targets)
    run = _Run(child, settings, _asked(child, batches, distance, settings), output_dir)
    before = None
    if held_out is not None:
        before = score_model(child, *held_out, distance, bf16=settings.bf16)
    _fit(run, batches, targets, distance, lambda step: {}, progress=progress)
    after = None
    if held_out is not None and before is not None:
        after = score_model(child, *held_out, distance, bf16=settings.bf16)
        _check_gain("recovery made the child worse", before.loss, after.loss, settings)
    return Recovery(run.losses, _tokens_used(batches, settings), before, after)


@dataclass(frozen=True)
class SupernetRecovery:
    """What the distillation of a super-net did.

    Args:
        losses: The training loss of every step, each of another child.
        num_tokens: Real tokens trained on.
        before: Mean distance of some random children on the held-out batches before.
        after: Likewise behind the last step.
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
    output_dir: str | Path | None = None,
    progress: bool = False,
) -> SupernetRecovery:
    """Distil the children of a super-net in place, a random one of a space in every step; arguments as of `recover`.

    Args:
        supernet: Of the space, or of a larger one.
        space: Whose children are trained: screened first, so that none is broken.
        batches: To train on.
        targets: What the base model makes of each.
        distance: What is minimised.
        settings: How.
        held_out: Batches and targets that some random children are scored on before and behind.
        output_dir: Folder of the checkpoints.
        progress: Whether to show a bar.

    Raises:
        ValueError: As `recover`; of the mean of these children.
        OSError: If a checkpoint cannot be written.
    """
    _check_targets(batches, targets)
    asked = _asked(supernet, batches, distance, settings) | {"space": space.to_dict()}
    run = _Run(supernet, settings, asked, output_dir)
    rng = random.Random(f"{settings.seed} scored")
    scored = [space.sample(rng) for _ in range(_NUM_SCORED)]

    def mean_loss() -> float:
        scores = score_children(supernet, scored, *held_out, distance, bf16=settings.bf16)
        return sum(score.loss for score in scores) / len(scores)

    before = mean_loss()
    _fit(
        run, batches, targets, distance,
        lambda step: {"architecture": space.sample(random.Random(f"{settings.seed} child {step}"))},
        progress=progress,
    )  # fmt: skip
    after = mean_loss()
    _check_gain("training made the super-net's children worse", before, after, settings)
    return SupernetRecovery(run.losses, _tokens_used(batches, settings), before, after)


def _fit(
    run: "_Run",
    batches: Sequence[Batch],
    targets: Sequence[Target],
    distance: Distance,
    options: Callable[[int], dict[str, Any]],
    *,
    progress: bool,
) -> None:
    """All steps that are still to be done; `options` of a step are given to the encoder."""
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
        ):
            for step in range(len(run.losses), settings.num_steps):
                index = _order(len(batches), settings.seed, step)
                loss = _distance_of(model, batches[index], targets[index], distance, settings, options(step))
                run.step(step, loss)
                bar.update()
    finally:
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


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


def _check_gain(what: str, before: float, after: float, settings: RecoverySettings) -> None:
    if not after < before:
        raise ValueError(
            f"{what}: its distance from the base model on held-out text was "
            f"{before:.4f} and is {after:.4f}: lower learning_rate={settings.learning_rate}, or give "
            "more steps"
        )


def _tokens_used(batches: Sequence[Batch], settings: RecoverySettings) -> int:
    return num_tokens([batches[_order(len(batches), settings.seed, step)] for step in range(settings.num_steps)])


def _order(num_batches: int, seed: int, step: int) -> int:
    """The batch of a step."""
    epoch, place = divmod(step, num_batches)
    order = list(range(num_batches))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order[place]


def _distance_of(
    child: PreTrainedModel,
    batch: Batch,
    target: Target,
    distance: Distance,
    settings: RecoverySettings,
    options: Mapping[str, Any],
) -> torch.Tensor:
    device = next(child.parameters()).device
    encoder, mask = encoder_of(child), mask_of(batch, device)
    # Entered anew for every step: within one autocast weights are cast once, and those of the step before would stay.
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        with torch.set_grad_enabled(settings.train_embeddings):
            hidden_states, masks = encoder.embed(**inputs_of(batch, device))
        hidden_states = encoder.encoder(hidden_states, masks, **options)
    logits = None if target.logits is None else logits_of(child, hidden_states.float(), mask)
    return distance.total(distance.parts(hidden_states, mask, target, logits))


class _Run:
    """A child or super-net, its optimizer, and how far it has come."""

    def __init__(
        self, model: PreTrainedModel, settings: RecoverySettings, asked: dict[str, Any], folder: str | Path | None
    ) -> None:
        self.model, self.settings = model, settings
        self.frozen = [] if settings.train_embeddings else list(encoder_of(model).embeddings.parameters())
        trained = [parameter for parameter in model.parameters() if not any(parameter is one for one in self.frozen)]
        self._optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self._folder = None if folder is None else Path(folder)
        self._asked = json.loads(json.dumps(asked))
        self.losses: list[float] = []

    def step(self, step: int, loss: torch.Tensor) -> None:
        """One step down a loss."""
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"the loss of step {step} is {value}: lower learning_rate={self.settings.learning_rate}")
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self._optimizer.step()
        self.losses.append(value)
        is_last = step + 1 == self.settings.num_steps
        if self._folder is not None and (is_last or (step + 1) % self.settings.save_steps == 0):
            checkpoint_folders.write_checkpoint(
                self._folder, step + 1, self._write, limit=2, advice="call it again: it goes on from there"
            )

    def _write(self, folder: Path) -> None:
        save_model(self.model, folder)
        save_optimizer(self._optimizer, self.model, folder)
        write_json(folder / _STATE, {"asked": self._asked, "losses": self.losses})

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        if self._folder is None:
            return
        checkpoint_folders.delete_leftovers(self._folder)
        folder = checkpoint_folders.find_latest(self._folder, _check)
        if folder is None:
            return
        state = read_json(folder / _STATE)
        difference = first_difference(state.get("asked"), self._asked)
        if difference is not None:
            raise ValueError(f"{folder} is of another recovery ({difference}): name another folder, or delete it")
        load_model(self.model, folder)
        load_optimizer(self._optimizer, self.model, folder)
        self.losses = [float(loss) for loss in state["losses"]]
        logger.info("recovery goes on from step %d", len(self.losses))


def _check(folder: Path) -> None:
    checkpoint_folders.verify(folder, (MODEL, OPTIMIZER, _STATE))
    try:
        read_json(folder / _STATE)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {_STATE} ({error})") from None
