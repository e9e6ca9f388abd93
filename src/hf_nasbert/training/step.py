"""One optimizer step's gradient: the children's losses over all micro-batches and processes, weighed by tokens."""

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule

from hf_nasbert.data.batches import NothingToPredictError
from hf_nasbert.elastic.encoders import running
from hf_nasbert.methods import ChildRun, Counts, StepContext, TrainingMethod, Wants
from hf_nasbert.modeling.modeling_supernet import SupernetEncoder, SupernetPreTrainedModel
from hf_nasbert.processes import StepGroup
from hf_nasbert.space import Architecture
from hf_nasbert.training.arguments import SupernetTrainingArguments
from hf_nasbert.training.distillation import Distillation

Batch = dict[str, torch.Tensor]


class MicroBatch(NamedTuple):
    """The sequences of one forward pass, and how many of them the method chose, the first ones (`None`: all).

    Beside them the first one's number in the batch of all processes.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor
    num_chosen: int | None
    first_row: int


class StepLosses(NamedTuple):
    """The mean losses of a step over the whole batch, and the tokens that its children were trained on.

    Attributes:
        of_children: The masked-LM loss of each child.
        terms: The method's own terms by name, means over the children.
        num_tokens: Tokens, counted for every child.
        is_anyone_stopping: Whether any process was asked to stop.
        trained: The parameters that have a gradient, in the super-net's order.
    """

    of_children: list[float]
    terms: dict[str, float]
    num_tokens: int
    is_anyone_stopping: bool
    trained: list[nn.Parameter]

    @property
    def masked_lm(self) -> float:
        """The mean masked-LM loss of the children."""
        return sum(self.of_children) / len(self.of_children)


class TrainingStep:
    """Computes gradients that depend neither on the number of processes nor on that of micro-batches.

    All sums are divided by the token counts of the whole step. Every forward pass seeds dropout with (seed, step,
    micro-batch, child), so no state of a random generator outlives a step, and two processes with one micro-batch
    each draw the dropout of one process with two.

    Args:
        supernet: The super-net.
        model: The same, as Accelerate wrapped it.
        accelerator: The processes.
        arguments: Batch sizes and seed.
        method: What the children of a step learn.
        distillation: The base model and what they learn from it, of a super-net that was made of one.
    """

    def __init__(
        self,
        supernet: SupernetPreTrainedModel,
        model: nn.Module,
        accelerator: Accelerator,
        arguments: SupernetTrainingArguments,
        method: TrainingMethod,
        distillation: Distillation | None = None,
    ) -> None:
        self.distillation = distillation
        self.supernet, self.model, self.accelerator = supernet, model, accelerator
        self.arguments, self.method = arguments, method
        self.group = StepGroup(accelerator, arguments.step_timeout)
        self.is_sharded = isinstance(supernet, FSDPModule)
        self.parameters = list(supernet.parameters())  # walking the modules in every step would cost more than this
        num_rows = arguments.train_batch_size(accelerator.num_processes)
        num_own = num_rows // accelerator.num_processes
        self.rows = slice(accelerator.process_index * num_own, (accelerator.process_index + 1) * num_own)
        """This process' rows of the global batch."""
        chosen = method.chosen_rows(num_rows)
        self._chosen_rows = None if chosen is None else chosen[self.rows]

    def backward(self, step: int, children: Sequence[Architecture], batch: Batch, *, is_stopping: bool) -> StepLosses:
        """Make the gradient of all children on the whole batch, of which this process computes its rows.

        All children run on one micro-batch before the next one, so that a child can learn from what another one made
        of the same sequences. When all passes are done, the processes add up the gradients that there are. They need
        not ask each other which: all drew the same children, and so have gradients of the same parameters. Operators
        off the path, the greater part of a super-net, are neither searched for nor sent.

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
        losses = torch.zeros(len(children), 1 + len(self.method.terms), dtype=torch.float64)
        merge = self.method.merge(step)
        of_first: dict[nn.Parameter, torch.Tensor] = {}  # where gradients are merged
        for number, micro_batch in enumerate(micro_batches):
            micro_batch_number = self.accelerator.process_index * len(micro_batches) + number
            context = self._context(step, micro_batch, counts)
            peers: list[ChildRun] = []
            for child_number in range(len(children)):
                torch.manual_seed(_dropout_seed(self.arguments.seed, step, micro_batch_number, child_number))
                is_apart = merge is not None and child_number == 0
                with self._into(of_first) if is_apart else nullcontext():
                    losses[child_number] += self._run_child(children, child_number, peers, context)
        trained = with_gradient(self.parameters)
        if not self.is_sharded:  # fully_shard adds up within every backward pass
            self.group.add_up([*(p.grad for p in trained if p.grad is not None), *of_first.values()])
        if merge is not None:
            for parameter, gradient in of_first.items():
                parameter.grad = gradient if parameter.grad is None else merge(gradient, parameter.grad)
            trained = with_gradient(self.parameters)
        learning = self.method.learning(children, self.supernet)
        if learning is not None:
            _taken([parameter for parameter in trained if parameter not in learning])
            trained = with_gradient(trained)
        sums = self.group.sums(torch.cat([losses.flatten(), losses.new_tensor([is_stopping])]))
        of_children = sums[:-1].view_as(losses)
        means = (of_children.sum(0) / len(children)).tolist()
        return StepLosses(
            of_children[:, 0].tolist(),
            dict(zip(self.method.terms, means[1:], strict=True)),
            counts.tokens * len(children),
            bool(sums[-1]),
            trained,
        )

    @torch.no_grad()
    def losses(self, step: int, children: Sequence[Architecture], batch: Batch) -> list[float]:
        """The loss of each child on the whole batch, without dropout and without gradient; called as `backward` is."""
        counts = self._count(batch, children)
        losses = torch.zeros(len(children), dtype=torch.float64)
        with running(self.supernet):
            for micro_batch in self._split(batch):
                context = self._context(step, micro_batch, counts)
                for number, child in enumerate(children):
                    losses[number] += self._run(child, Wants(), context).loss.double().cpu()
        found: list[float] = self.group.sums(losses).tolist()
        return found

    @contextmanager
    def _into(self, gradients: dict[nn.Parameter, torch.Tensor]) -> Iterator[None]:
        """Add up the gradients made within in a place of their own, and not with those that the parameters have."""
        others = _taken(self.parameters)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        yield
        gradients.update(_taken(self.parameters))
        for parameter, gradient in others.items():
            parameter.grad = gradient

    def _context(self, step: int, micro_batch: MicroBatch, counts: Counts) -> StepContext:
        supernet: Any = self.supernet
        context = StepContext(
            supernet, step, *micro_batch[:4], counts, self.is_sharded, first_row=micro_batch.first_row
        )
        if self.distillation is None:
            return context
        context = context._replace(input_ids=self.distillation.read(context.input_ids, context.labels))
        lesson, is_taught = self.distillation.lesson(context.batch), self.distillation.is_used
        return context._replace(base_model=lesson, is_taught=is_taught)

    def _run(self, child: Architecture, wants: Wants, context: StepContext) -> ChildRun:
        """Forward of one child on one micro-batch."""
        with self.accelerator.autocast():
            own = self.method.run(child, context)
        if own is not None:
            return own
        if self.distillation is not None and self.distillation.is_used:
            with self.accelerator.autocast():
                run = self.distillation.run(child, context)
            return run if wants.hidden_states else run._replace(hidden_states=None)
        outputs = self.model(
            input_ids=context.input_ids,
            attention_mask=context.attention_mask,
            labels=context.labels,
            architecture=child,
            output_hidden_states=wants.hidden_states,
            num_items_in_batch=context.counts.labelled,
        )
        return ChildRun(child, outputs.loss, outputs.logits, outputs.hidden_states)

    def _run_child(
        self, children: Sequence[Architecture], number: int, peers: list[ChildRun], context: StepContext
    ) -> torch.Tensor:
        """Forward and backward of one child on one micro-batch; returns its losses, as shares of the step's."""
        wants = self.method.wants(context.step)
        run = self._run(children[number], wants, context)
        with self.accelerator.autocast():
            loss, terms = self.method.loss(run, peers, context)
        if len(terms) != len(self.method.terms):  # one number would be written over all columns
            raise ValueError(
                f"the loss of method {self.method.name} came with {len(terms)} terms: expected "
                f"{len(self.method.terms)}, one for each name in its terms"
            )
        weight = self.method.weight(number, children)
        if loss.requires_grad:  # a child of skips alone has nothing to train but embeddings, and these may stay
            # fully_shard averages over processes what has to be added up.
            self.accelerator.backward(loss * (weight * (self.accelerator.num_processes if self.is_sharded else 1)))
        if wants.peers:
            states = None if run.hidden_states is None else tuple(states.detach() for states in run.hidden_states)
            peers.append(ChildRun(run.architecture, run.loss.detach(), run.logits.detach(), states))
        return torch.stack([term.detach() for term in (run.loss, *terms)]).double().cpu()

    def _split(self, batch: Batch) -> Iterator[MicroBatch]:
        """This process' micro-batches, on its device."""
        size, device = self.arguments.per_device_train_batch_size, self.accelerator.device
        has_padding = not bool(batch["attention_mask"].all())
        for start in range(0, len(batch["input_ids"]), size):
            part = {key: value[start : start + size] for key, value in batch.items()}
            num_chosen = None
            if self._chosen_rows is not None:
                # The chosen rows come first: a slice costs less than a choice, block after block.
                is_chosen = self._chosen_rows[start : start + size]
                order, num_chosen = is_chosen.long().argsort(descending=True, stable=True), int(is_chosen.sum())
                part = {key: value[order] for key, value in part.items()}
            part = {key: value.to(device, non_blocking=True) for key, value in part.items()}
            # Without padding there is nothing to mask: operators and attention are told so by None.
            mask = part["attention_mask"] if has_padding else None
            yield MicroBatch(part["input_ids"], mask, part["labels"], num_chosen, self.rows.start + start)

    def _count(self, batch: Batch, children: Sequence[Architecture]) -> Counts:
        """The tokens of the whole step, counted over all processes, which tell each other whom they train."""
        labelled, tokens = batch["labels"] != -100, batch["attention_mask"].bool()
        rows = slice(None) if self._chosen_rows is None else self._chosen_rows
        masks = (labelled, tokens, labelled[rows], tokens[rows])
        name = _number_of(children)
        # Numbers x of mean m and of mean square m * m are all m.
        numbers = torch.tensor([name, name * name, *(mask.sum() for mask in masks)])
        first, second, *sums = self.group.sums(numbers).tolist()
        num_processes = self.accelerator.num_processes
        if (first, second) != (name * num_processes, name * name * num_processes):
            raise RuntimeError("the processes drew different children: their gradients cannot be added up")
        found = Counts(*sums)
        if not found.labelled:  # its loss would be 0 / 0, which looks like a divergence
            raise NothingToPredictError("the batch of this step")
        return found


def _number_of(children: Sequence[Architecture]) -> int:
    """A number of 24 bits that tells a step's children from others."""
    return zlib.crc32(" ".join(map(str, children)).encode()) >> 8


def make_optimizer(supernet: SupernetPreTrainedModel, arguments: SupernetTrainingArguments) -> torch.optim.AdamW:
    """AdamW over all parameters; biases and normalisations do not decay.

    It passes over parameters without gradient (`None`, not zero: neither decay nor momentum moves them) and counts
    steps per parameter, so its bias correction is per operator.
    """
    parameters = list(supernet.parameters())
    decaying, others = _by_decay(parameters)
    groups = [
        {"params": decaying, "weight_decay": arguments.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def _by_decay(parameters: Sequence[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Those that decay, and the biases and normalisations, which do not."""
    return [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]


def with_gradient(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that have a gradient, in their order: of a large super-net's, those of a step's children."""
    return [parameter for parameter in parameters if parameter.grad is not None]


def _taken(parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, torch.Tensor]:
    """The gradients of parameters, which have none any more."""
    taken = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    for parameter in taken:
        parameter.grad = None
    return taken


@contextmanager
def narrowed(optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let an optimizer of `make_optimizer` look at some of its parameters only, as long as the block runs.

    AdamW, clipping and clearing skip what has no gradient, but look at every tensor to find out: at NAS-BERT's space
    at 6,316, of which a child has some 200. What they do to those is the same to the bit.

    Args:
        optimizer: The optimizer.
        trained: All its parameters that have a gradient, in their order.
    """
    groups = optimizer.param_groups
    whole = [group["params"] for group in groups]
    for group, params in zip(groups, _by_decay(trained), strict=True):
        group["params"] = params
    try:
        yield
    finally:
        for group, params in zip(groups, whole, strict=True):
            group["params"] = params


def compile_operators(supernet: SupernetPreTrainedModel, backend: str) -> None:
    """Compile every operator by itself: a graph of the whole path would be compiled anew for every new child."""
    # One graph per kind, width, mode and shape, and few classes that all these graphs count against.
    limits = torch._dynamo.config
    limit = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"  # before torch 2.7
    setattr(limits, limit, max(64, getattr(limits, limit)))
    encoder = cast(SupernetEncoder, supernet.base_model.encoder)
    for block in encoder.all_blocks:
        for operator in block.operators.units():
            operator.compile(backend=backend)


def _dropout_seed(seed: int, step: int, micro_batch: int, child: int) -> int:
    """A seed of its own for every forward pass; hashing keeps neighbouring ones unrelated."""
    return random.Random(f"dropout {seed} {step} {micro_batch} {child}").getrandbits(63)
