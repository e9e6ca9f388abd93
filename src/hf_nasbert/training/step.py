"""One optimizer step's gradient: the children's losses over all micro-batches and processes, weighed by tokens."""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule

from hf_nasbert.data.batches import NothingToPredictError
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM
from hf_nasbert.objectives import alignment_loss
from hf_nasbert.processes import StepGroup
from hf_nasbert.space import Architecture
from hf_nasbert.training.anchor import Anchor, aligned_states
from hf_nasbert.training.arguments import SupernetTrainingArguments

Batch = dict[str, torch.Tensor]


class MicroBatch(NamedTuple):
    """The sequences of one forward pass, and how many of them are aligned, the first ones (`None`: all)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor
    num_aligned: int | None


class StepLosses(NamedTuple):
    """The mean losses of a step's children over the whole batch, and the tokens they were trained on."""

    masked_lm: float
    alignment: float
    num_tokens: int
    is_anyone_stopping: bool


class TrainingStep:
    """Computes gradients that depend neither on the number of processes nor on that of micro-batches.

    All sums are divided by the token counts of the whole step. Every forward pass seeds dropout with (seed, step,
    micro-batch, child), so no state of a random generator outlives a step, and two processes with one micro-batch
    each draw the dropout of one process with two.

    Args:
        supernet: The super-net.
        model: The same, as Accelerate wrapped it.
        accelerator: The processes.
        arguments: Batch sizes, seed and alignment.
        anchor: The anchor, if the method has one.
    """

    def __init__(
        self,
        supernet: SupernetForMaskedLM,
        model: nn.Module,
        accelerator: Accelerator,
        arguments: SupernetTrainingArguments,
        anchor: Anchor | None,
    ) -> None:
        self.supernet, self.model, self.accelerator = supernet, model, accelerator
        self.arguments, self.anchor = arguments, anchor
        self.layers = arguments.aligned_blocks()
        self.group = StepGroup(accelerator, arguments.step_timeout)
        self.is_sharded = isinstance(supernet, FSDPModule)
        self.parameters = list(supernet.parameters())  # walking the modules in every step would cost more than this
        self.rows_per_process = arguments.train_batch_size(accelerator.num_processes) // accelerator.num_processes
        first = accelerator.process_index * self.rows_per_process
        self.rows = slice(first, first + self.rows_per_process)
        """This process' rows of the global batch."""
        num_rows = arguments.train_batch_size(accelerator.num_processes)
        aligned = None if anchor is None else spread_rows(num_rows, arguments.alignment_rows)
        self._aligned_rows = None if aligned is None else aligned[self.rows]

    def backward(self, step: int, children: Sequence[Architecture], batch: Batch, *, is_stopping: bool) -> StepLosses:
        """Make the gradient of all children on the whole batch, of which this process computes its rows.

        Gradients of several children are added up, as in FairNAS (https://arxiv.org/abs/1907.01845, algorithm 1).
        When all passes are done, the processes add up the gradients that there are. They need not ask each other
        which: all drew the same children, and so have gradients of the same parameters. Operators off the path, the
        greater part of a super-net, are neither searched for nor sent.

        Args:
            step: Number of the step, from 0.
            children: The children to train, the same on every process.
            batch: The rows of this process.
            is_stopping: Whether this process was asked to stop; all learn of it with the losses.

        Raises:
            RuntimeError: If the processes drew different children.
            ConnectionError: If a process died or did not come within `step_timeout` seconds.
        """
        micro_batches = list(self._split(batch))
        counts = self._count(batch, children)
        losses = torch.zeros(2, dtype=torch.float64)
        for child_number, child in enumerate(children):
            for number, micro_batch in enumerate(micro_batches):
                micro_batch_number = self.accelerator.process_index * len(micro_batches) + number
                torch.manual_seed(_dropout_seed(self.arguments.seed, step, micro_batch_number, child_number))
                losses += self._micro_step(step, child, micro_batch, counts)
        if not self.is_sharded:  # fully_shard adds up within every backward pass
            self.group.add_up([p.grad for p in self.parameters if p.grad is not None])
        sums = self.group.sums(torch.cat([losses, losses.new_tensor([is_stopping])])).tolist()
        return StepLosses(
            sums[0] / len(children), sums[1] / len(children), counts["tokens"] * len(children), bool(sums[2])
        )

    def _micro_step(
        self, step: int, child: Architecture, batch: MicroBatch, counts: Mapping[str, int]
    ) -> torch.Tensor:
        """Forward and backward of one child on one micro-batch; returns its two losses, as shares of the step's."""
        anchor = None if self.anchor is None else self.anchor.adopt_first(child)
        if step < self.arguments.alignment_start * self.arguments.max_steps:
            anchor = None
        outputs = self.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            architecture=child,
            output_hidden_states=anchor is not None,
            num_items_in_batch=counts["labelled"],
        )
        loss, alignment = outputs.loss, torch.zeros_like(outputs.loss)
        # Aligned to itself a child has loss zero.
        if anchor is not None and anchor != child:
            has_none = batch.num_aligned == 0
            if has_none and (self.is_sharded or not self.arguments.alignment_detach):
                # All have to do what one does: gather the anchor's operators, give zeros for all that is added up.
                batch = batch._replace(num_aligned=1)
            if batch.num_aligned != 0:
                with self.accelerator.autocast():
                    alignment = self._alignment(child, anchor, outputs.hidden_states, batch, counts) * (not has_none)
                loss = loss + self.arguments.alignment_weight * alignment
        # fully_shard averages over processes what has to be added up.
        self.accelerator.backward(loss * (self.accelerator.num_processes if self.is_sharded else 1))
        return torch.stack([outputs.loss.detach(), alignment.detach()]).double().cpu()

    def _alignment(
        self,
        child: Architecture,
        anchor: Architecture,
        hidden_states: Sequence[torch.Tensor],
        batch: MicroBatch,
        counts: Mapping[str, int],
    ) -> torch.Tensor:
        states = aligned_states(
            self.supernet,
            child,
            anchor,
            hidden_states,
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            num_rows=batch.num_aligned,
            layers=self.layers,
            detach=self.arguments.alignment_detach,
        )
        return alignment_loss(
            states.child,
            states.anchor,
            states.padding_mask,
            positions=states.positions,
            layers=self.layers,
            normalize=self.arguments.alignment_normalize,
            detach_anchor=self.arguments.alignment_detach,
            num_tokens=counts["aligned_tokens"],
            num_positions=counts["aligned_labelled"],
        )

    def _split(self, batch: Batch) -> Iterator[MicroBatch]:
        """This process' micro-batches, on its device."""
        size, device = self.arguments.per_device_train_batch_size, self.accelerator.device
        has_padding = not bool(batch["attention_mask"].all())
        for start in range(0, len(batch["input_ids"]), size):
            part = {key: value[start : start + size] for key, value in batch.items()}
            num_aligned = None
            if self._aligned_rows is not None:
                # Those to be aligned come first: a slice costs less than a choice, block after block.
                is_aligned = self._aligned_rows[start : start + size]
                order, num_aligned = is_aligned.long().argsort(descending=True, stable=True), int(is_aligned.sum())
                part = {key: value[order] for key, value in part.items()}
            part = {key: value.to(device, non_blocking=True) for key, value in part.items()}
            # Without padding there is nothing to mask: operators and attention are told so by None.
            mask = part["attention_mask"] if has_padding else None
            yield MicroBatch(part["input_ids"], mask, part["labels"], num_aligned)

    def _count(self, batch: Batch, children: Sequence[Architecture]) -> dict[str, int]:
        """What the losses of the whole step are divided by, counted over all processes; these tell who they train."""
        labelled, tokens = batch["labels"] != -100, batch["attention_mask"].bool()
        counts = {"labelled": labelled, "tokens": tokens, "aligned_labelled": labelled, "aligned_tokens": tokens}
        if self._aligned_rows is not None:
            rows = self._aligned_rows
            counts |= {"aligned_labelled": labelled[rows], "aligned_tokens": tokens[rows]}
        # Numbers x of mean m and of mean square m * m are all m.
        name = zlib.crc32(" ".join(map(str, children)).encode()) >> 8
        numbers = torch.tensor([name, name * name, *(mask.sum() for mask in counts.values())])
        first, second, *sums = self.group.sums(numbers).tolist()
        num_processes = self.accelerator.num_processes
        if (first, second) != (name * num_processes, name * name * num_processes):
            raise RuntimeError("the processes drew different children: their gradients cannot be added up")
        found = dict(zip(counts, sums, strict=True))
        if not found["labelled"]:  # its loss would be 0 / 0, which looks like a divergence
            raise NothingToPredictError("the batch of this step")
        return found


def make_optimizer(supernet: SupernetForMaskedLM, arguments: SupernetTrainingArguments) -> torch.optim.AdamW:
    """AdamW over all parameters; biases and normalisations do not decay.

    It passes over parameters without gradient (`None`, not zero: neither decay nor momentum moves them) and counts
    steps per parameter, so its bias correction is per operator.
    """
    parameters = list(supernet.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": arguments.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def compile_operators(supernet: SupernetForMaskedLM, backend: str) -> None:
    """Compile every operator by itself: a graph of the whole path would be compiled anew for every new child."""
    # One graph per kind, width, mode and shape, and few classes that all these graphs count against.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in supernet.nasbert.encoder.blocks:
        for operator in block.operators.units():
            operator.compile(backend=backend)


def spread_rows(num_rows: int, share: float) -> torch.Tensor | None:
    """Mark a share of a step's rows, evenly spread and at least one; `None` if that is all of them.

    The data is shuffled, so fixed places are a fair sample, and the same rows whatever the number of processes.
    """
    if share == 1:
        return None
    upto = torch.arange(num_rows + 1, dtype=torch.float64).mul(share).ceil()
    return upto.diff() > 0


def _dropout_seed(seed: int, step: int, micro_batch: int, child: int) -> int:
    """A seed of its own for every forward pass; hashing keeps neighbouring ones unrelated."""
    return random.Random(f"dropout {seed} {step} {micro_batch} {child}").getrandbits(63)
