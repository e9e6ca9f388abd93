"""Recovery: the chosen child alone, distilled from the base model's states; a killed run goes on to the same bits."""

import dataclasses
import json
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_nasbert import checkpoint_folders
from hf_nasbert.checkpoint_folders import DamagedCheckpointError
from hf_nasbert.compression.distance import Distance, Target
from hf_nasbert.compression.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.compression.kept import weights_digest
from hf_nasbert.compression.scores import Score, score_model
from hf_nasbert.compression.sentences import Batch, digest_of, num_tokens
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
    if not batches or len(batches) != len(targets):
        raise ValueError(f"{len(batches)} batches and {len(targets)} targets: expected as many, and one at least")
    frozen = [] if settings.train_embeddings else list(encoder_of(child).embeddings.parameters())
    trained = [parameter for parameter in child.parameters() if not any(parameter is one for one in frozen)]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    asked = {
        "child": weights_digest(child),
        "batches": digest_of(batches),
        "distance": distance.describe(),
        "settings": {name: value for name, value in dataclasses.asdict(settings).items() if name != "save_steps"},
    }
    run = _Run(child, optimizer, settings, asked, None if output_dir is None else Path(output_dir))
    before = None
    if held_out is not None:
        before = score_model(child, *held_out, distance, bf16=settings.bf16)
    run.resume()
    flags = [(parameter, parameter.requires_grad) for parameter in child.parameters()]
    child.requires_grad_(True)
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with (
            running(child, gradients=True),
            tqdm(
                total=settings.num_steps, initial=len(run.losses), unit=" steps", disable=not progress, leave=False
            ) as bar,
        ):
            for step in range(len(run.losses), settings.num_steps):
                index = _order(len(batches), settings.seed, step)
                loss = _distance_of(child, batches[index], targets[index], distance, settings)
                run.step(step, loss)
                bar.update()
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    used = [batches[_order(len(batches), settings.seed, step)] for step in range(settings.num_steps)]
    after = None
    if held_out is not None and before is not None:
        after = score_model(child, *held_out, distance, bf16=settings.bf16)
        if not after.loss < before.loss:
            raise ValueError(
                f"recovery made the child worse: its distance from the base model on held-out text was "
                f"{before.loss:.4f} and is {after.loss:.4f}: lower learning_rate={settings.learning_rate}, or give "
                "more steps"
            )
    return Recovery(run.losses, num_tokens(used), before, after)


def _order(num_batches: int, seed: int, step: int) -> int:
    """The batch of a step."""
    epoch, place = divmod(step, num_batches)
    order = list(range(num_batches))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order[place]


def _distance_of(
    child: PreTrainedModel, batch: Batch, target: Target, distance: Distance, settings: RecoverySettings
) -> torch.Tensor:
    device = next(child.parameters()).device
    encoder, mask = encoder_of(child), mask_of(batch, device)
    # Entered anew for every step: within one autocast weights are cast once, and those of the step before would stay.
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        with torch.set_grad_enabled(settings.train_embeddings):
            hidden_states, masks = encoder.embed(**inputs_of(batch, device))
        hidden_states = encoder.encoder(hidden_states, masks)
    logits = None if target.logits is None else logits_of(child, hidden_states.float(), mask)
    return distance.total(distance.parts(hidden_states, mask, target, logits))


class _Run:
    """A child, its optimizer, and how far it has come."""

    def __init__(
        self,
        child: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        settings: RecoverySettings,
        asked: dict[str, Any],
        folder: Path | None,
    ) -> None:
        self._child, self._optimizer, self._settings, self._folder = child, optimizer, settings, folder
        self._asked = json.loads(json.dumps(asked))
        self.losses: list[float] = []

    def step(self, step: int, loss: torch.Tensor) -> None:
        """One step down a loss."""
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"the loss of step {step} is {value}: lower learning_rate={self._settings.learning_rate}")
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate(step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm)
        self._optimizer.step()
        self.losses.append(value)
        is_last = step + 1 == self._settings.num_steps
        if self._folder is not None and (is_last or (step + 1) % self._settings.save_steps == 0):
            checkpoint_folders.write_checkpoint(
                self._folder, step + 1, self._write, limit=2, advice="call it again: it goes on from there"
            )

    def _write(self, folder: Path) -> None:
        save_model(self._child, folder)
        save_optimizer(self._optimizer, self._child, folder)
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
        load_model(self._child, folder)
        load_optimizer(self._optimizer, self._child, folder)
        self.losses = [float(loss) for loss in state["losses"]]
        logger.info("recovery goes on from step %d", len(self.losses))


def _check(folder: Path) -> None:
    checkpoint_folders.verify(folder, (MODEL, OPTIMIZER, _STATE))
    try:
        read_json(folder / _STATE)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged: {_STATE} ({error})") from None
