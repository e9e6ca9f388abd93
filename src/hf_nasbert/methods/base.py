"""What a training method is: which children a step trains, what each one learns, and what follows the step."""

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hf_nasbert.samplers import Sampler
from hf_nasbert.settings import Settings
from hf_nasbert.space import Architecture, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hf_nasbert.modeling.copies import Copies
    from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
    from hf_nasbert.teachers import Lesson

Score = Callable[[Sequence[Architecture], int], Sequence[float]]
"""Losses of children on the first so many dev batches, with the weights of this moment; the same on all processes."""

FindSplit = Callable[[int, int], tuple[int, tuple[tuple[str, ...], ...]]]
"""The block whose candidates' gradients differ most, and its two groups; measured in so many settings, of a seed."""

Cost = Callable[[Sequence[str]], float]
"""A child's number of parameters."""

BatchLosses = Callable[[Sequence[Architecture]], Sequence[float]]
"""Losses of children on the batch of the step that comes, without dropout; the same on all processes."""

Merge = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Makes one gradient of a tensor of that by the first child of a step and that by all others; neither is changed."""

Whole = Callable[[], "SupernetForMaskedLM"]
"""The super-net in one piece, on every process, with the weights of this moment: to be read, not to be changed.

Where it is trained in parts they are gathered for it, so all processes must call it alike. It costs nothing else.
"""


LOGGED = ("event", "step", "loss", "grad_norm", "learning_rate", "tokens_per_second", "architecture")
"""What every line of the log says already: no names for what a method adds to it (`terms`, `shown`)."""
EVENTS = ("start", "resume", "train", "eval", "skip", "divergence", "finish")
"""What training itself records in the log: no names for a method's events."""

_ABSENT = object()


class Paper(NamedTuple):
    """Where a method comes from."""

    reference: str
    url: str


@dataclass(kw_only=True)
class MethodSettings(Settings):
    """Settings of a method, each with a `help` in its metadata; a method without any uses this class itself."""

    retired: ClassVar[Mapping[str, Any]] = {}
    """Settings that earlier versions had, each with the value that did what is done now."""

    @classmethod
    def as_now(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that an earlier version wrote, to be compared with those of this one.

        A setting that it did not have yet did what the default does now. One that is retired is left out where that
        changes nothing.
        """
        kept = {name: value for name, value in settings.items() if cls.retired.get(name, _ABSENT) != value}
        return {**kept, **{name: value for name, value in asdict(cls()).items() if name not in kept}}


class Wants(NamedTuple):
    """What a step has to compute beside the children's losses.

    Attributes:
        hidden_states: The output of every choice block.
        peers: What the children that ran before on the same micro-batch gave, as constants: logits, and the hidden
            states if those are wanted too.
    """

    hidden_states: bool = False
    peers: bool = False


class Counts(NamedTuple):
    """Tokens of a whole step, over all micro-batches and processes: what sums are divided by.

    Attributes:
        labelled: Tokens to predict.
        tokens: Real tokens.
        chosen_labelled: Tokens to predict in the rows that the method chose.
        chosen_tokens: Real tokens in them.
    """

    labelled: int
    tokens: int
    chosen_labelled: int
    chosen_tokens: int


class ChildRun(NamedTuple):
    """One child's pass over one micro-batch.

    Attributes:
        architecture: The child.
        loss: Its masked-LM loss as a share of the step's: a scalar whose sum over micro-batches and processes is the
            mean over all tokens to predict. Where a teacher teaches, its loss by that teacher.
        logits: (N, V) at the N tokens to predict of the micro-batch, or (B, T, V). Where a teacher teaches, what the
            head makes if that is learned, and else (0, 0).
        hidden_states: The first block's input and every block's output, (B, T, D) or (N, D), if they were wanted.
    """

    architecture: Architecture
    loss: "torch.Tensor"
    logits: "torch.Tensor"
    hidden_states: "Sequence[torch.Tensor] | None" = None


class StepContext(NamedTuple):
    """What a loss may need to know about its step.

    Attributes:
        supernet: The super-net, not wrapped.
        step: Number of the step, from 0.
        input_ids: Tokens of the micro-batch, (B, T).
        attention_mask: Its mask, (B, T); `None` where there is no padding.
        labels: Its labels, (B, T).
        num_chosen: How many of its rows the method chose, which are the first ones; `None`: all.
        counts: Tokens of the whole step.
        is_sharded: Whether every process holds a part of each operator, so that all must run the same operators.
        base_model: What the base model makes of the micro-batch; `None` of a super-net of random weights.
        is_taught: Whether the children learn from a teacher, and not from labels.
        first_row: The number of the micro-batch's first row in the step's batch of all processes.
    """

    supernet: "SupernetForMaskedLM"
    step: int
    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor | None"
    labels: "torch.Tensor"
    num_chosen: int | None
    counts: Counts
    is_sharded: bool
    base_model: "Lesson | None" = None
    is_taught: bool = False
    first_row: int = 0

    @property
    def batch(self) -> "dict[str, torch.Tensor]":
        """The micro-batch as a teacher reads it (`teachers.Teacher.teach`)."""
        batch = {"input_ids": self.input_ids, "labels": self.labels}
        return batch if self.attention_mask is None else batch | {"attention_mask": self.attention_mask}

    def at_labels(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Logits at the N tokens to predict, (N, V), of those or of all tokens, (B, T, V)."""
        return logits if logits.dim() == 2 else logits[self.labels != -100]

    def share(self, mean: "torch.Tensor", number: int) -> "torch.Tensor":
        """A mean over the micro-batch's `number` of tokens to predict, as a share of the step's."""
        return mean * number / max(self.counts.labelled, 1)


class RunKind(NamedTuple):
    """What a method may refuse in a run; the first two as in `StepContext`, the last one the learning rate's."""

    is_sharded: bool
    is_taught: bool
    has_base_model: bool
    is_fp16: bool
    is_constant: bool


class TrainingMethod:
    """One way to train a super-net; the whole of it is one file of this package.

    The loop makes one object per run, asks it for every step's children, for the loss of each of them and for what
    follows the step, and saves its state with the run's. All processes hold the same object and call it alike, so
    whatever it decides must follow from its arguments and its state.

    A method overrides the hooks in which it differs from plain training; with own tensors, `begin` and `tensors`.

    Args:
        space: The space of the children.
        settings: An instance of the class' `Settings`.
        cost: A child's number of parameters, for methods that ask for small or large ones.
        seed: Seed of the sampler.
        max_steps: Steps of the whole run.

    Raises:
        ValueError: If the settings are of another method, or do not fit the space.
    """

    name: ClassVar[str]
    """The name in `--method`, records, tables and figures."""
    summary: ClassVar[str]
    """The idea in a few words, for `--help`, tables and docs."""
    paper: ClassVar[Paper | None] = None
    source: ClassVar[str] = ""
    """What of it was read, and under which licence: a phrase for docs/methods.md."""
    unverified: ClassVar[str] = ""
    """What of it could not be checked and is ours until someone does: a phrase for docs/methods.md."""
    look: ClassVar[tuple[str, str]] = ("#CC79A7", "P")
    """Colour and marker in every figure."""
    sampler_class: ClassVar[type[Sampler]]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    settings: Any
    can_be_taught: ClassVar[bool] = True
    """Whether it works where a teacher teaches: not where its own teacher is the whole idea."""
    can_be_sharded: ClassVar[bool] = True
    """Whether it works where every process holds a part of each operator (FSDP)."""
    terms: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that `loss` returns beside the loss; the log has their means."""

    def __init__(self, space: SearchSpace, settings: Any, *, cost: Cost, seed: int, max_steps: int) -> None:
        if type(settings) is not self.Settings:
            raise ValueError(
                f"the settings of method {self.name} are a {self.Settings.__name__}, got {type(settings).__name__}"
            )
        self.space, self.settings, self.cost, self.max_steps = space, settings, cost, max_steps
        self.sampler = self.make_sampler(seed)
        self._prepare()

    def _prepare(self) -> None:
        """Make the method's own state, in the constructor, after the sampler.

        Raises:
            ValueError: If the settings do not fit the space.
        """

    def make_sampler(self, seed: int) -> Sampler:
        """The sampler, with whatever of the settings is its own."""
        return self.sampler_class(self.space, seed=seed)

    @property
    def passes_per_step(self) -> float:
        """What a step costs, in forward passes of one child over its batch, a backward pass counting two."""
        return 3.0

    @property
    def num_dev_batches(self) -> int:
        """Dev batches that `after_step` scores children on."""
        return 0

    def copies(self, *, is_training: bool) -> "Copies | None":
        """Which copies of the choice blocks serve which children from here on; `None`: the super-net stays as it is.

        Asked before the first step, before every step, whose children these copies then train (`is_training`), and
        after it, for whoever scores, saves or extracts children.
        """
        return None

    def before_step(self, step: int, find_split: FindSplit) -> bool:
        """Decide what the copies of a step, from 0, depend on, before they are asked for.

        Returns:
            Whether all copies are to begin anew as the first one is, with its moments.
        """
        return False

    def children(self) -> tuple[Architecture, ...]:
        """The children that the next step trains, on the same batch.

        Raises:
            ValueError: If the sampler gives no tuple of children of the space.
        """
        drawn = self.sampler.next_step()
        if not isinstance(drawn, tuple) or isinstance(drawn, Architecture) or not drawn:
            raise ValueError(
                f"the {self.sampler.name} sampler gave {str(drawn)[:80]!r} for a step: expected a tuple of one or "
                "more children"
            )
        return tuple(self.space.validate(child) for child in drawn)

    def chosen_on(self, children: tuple[Architecture, ...], losses_of: BatchLosses) -> tuple[Architecture, ...]:
        """Choose the step's children by the batch, after `children`, which gave these.

        All processes must call `losses_of` alike.
        """
        return children

    def check_run(self, run: RunKind) -> None:
        """Refuse a run that the method is not made for, with a ValueError, before anything is trained.

        What follows from what a method overrides is refused here, for all of them: one's own calls this beside.
        """
        if run.is_sharded and not self.can_be_sharded:
            raise ValueError(f"method={self.name} needs whole operators: launch with DDP (multi_gpu.yaml)")
        if run.is_taught and not self.can_be_taught:
            raise ValueError(
                f"method={self.name} has a teacher of its own, and here another one teaches: give teacher=none, to a "
                "super-net with a head that predicts words"
            )
        if run.is_constant and self._overrides("decay_exponent"):
            raise ValueError(
                f"method={self.name} decides how fast the learning rate falls, and with lr_scheduler_type="
                "constant_with_warmup it does not fall: choose linear or cosine"
            )
        if (run.is_sharded or run.is_fp16) and self._overrides("read_gradients"):
            raise ValueError(
                f"method={self.name} reads gradients, which FSDP cuts into parts and fp16 scales: launch with "
                "DDP (multi_gpu.yaml), and train in bf16 or without mixed_precision"
            )

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(TrainingMethod, name)

    def weight(self, number: int, children: Sequence[Architecture]) -> float:
        """What the loss of a step's child is multiplied by; gradients of the children are added up.

        As in FairNAS (Chu et al., 2021, https://arxiv.org/abs/1907.01845, algorithm 1) each counts once.
        """
        return 1.0

    def merge(self, step: int) -> Merge | None:
        """How the gradients of the first child and of all others become one, tensor by tensor; `None`: their sum.

        Both are those of the whole batch. Tensors that only one of them has are left as they are.
        """
        return None

    def learning(
        self, children: Sequence[Architecture], supernet: "SupernetPreTrainedModel"
    ) -> "Collection[nn.Parameter] | None":
        """Which parameters a step trains, of those that its children use; `None`: all. The others lose their gradient.

        Args:
            children: The children.
            supernet: The super-net, to be read.
        """
        return None

    def decay_exponent(self, children: Sequence[Architecture]) -> float:
        """To which power a step takes the decay of the learning rate after the warm-up: 0 holds the highest rate."""
        return 1.0

    def read_gradients(
        self, children: Sequence[Architecture], terms: Mapping[str, float], supernet: "SupernetPreTrainedModel"
    ) -> None:
        """Look at a step's gradients, all processes' together, before they are clipped.

        FSDP cuts them into parts and fp16 scales them: a method that overrides this is refused with both.

        Args:
            children: The children.
            terms: The step's means of `terms`.
            supernet: The super-net, its parameters with their `grad`: to be read, not to be changed.
        """

    def wants(self, step: int) -> Wants:
        """What a step computes beside the losses."""
        return Wants()

    def chosen_rows(self, num_rows: int) -> "torch.Tensor | None":
        """Which rows of a step's batch, of all processes, `loss` uses for its own terms: (num_rows,), or all."""
        return None

    def run(self, child: Architecture, context: StepContext) -> ChildRun | None:
        """A child's pass over one micro-batch, if it is not the usual one from tokens to predictions (`None`)."""
        return None

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """What one child learns from one micro-batch.

        Args:
            run: Its pass.
            peers: The passes of the step's children before it over the same micro-batch, their tensors constants,
                if they were wanted.
            context: The step.

        Returns:
            The scalar to be minimised, and one scalar for each of `terms`: all as shares of the step's mean.
        """
        return run.loss, ()

    def begin(self, supernet: Whole, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Get ready for the first step that this process makes, after `load_state_dict` where a run goes on.

        Args:
            supernet: The super-net.
            tensors: What `tensors` gave when the checkpoint was saved, on the CPU, to be copied; empty where a run
                starts.

        Raises:
            ValueError: If the tensors are of another super-net.
        """

    def tensors(self) -> "Mapping[str, torch.Tensor]":
        """The tensors without which a run could not go on as if never stopped: a checkpoint holds them all.

        The main process alone is asked, so no other one may be waited for. What shares memory is written twice.
        """
        return {}

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Learn from a step that was made.

        Args:
            step: Steps made so far, this one included.
            children: The children that it trained.
            losses: The masked-LM loss of each over the whole batch.
            score: Scores children on dev batches; all processes must call it alike.
            supernet: The super-net, with the step made.

        Returns:
            A record for the log, plain JSON with a key "event" that is not in `EVENTS`, or `None`. The log adds the
            step.
        """
        self.sampler.observe(children, losses)
        return None

    def shown(self) -> dict[str, str]:
        """What the progress bar and every line of the log say of the method's state, by a name not in `LOGGED`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if never stopped, in plain JSON types."""
        return {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ValueError: If the state is of another method, space or options.
        """
        self.sampler.load_state_dict(state["sampler"])


def misnamed(method: TrainingMethod, shown: Mapping[str, Any], event: Mapping[str, Any] | None) -> str | None:
    """What the log could not tell from its own of what a method adds to it, in words, or `None`."""
    taken = next((name for name in shown if name in (*LOGGED, *method.terms)), None)
    if taken is not None:
        return f"shows {taken}, which every line of the log says already: choose another name"
    if event is None:
        return None
    name = event.get("event")
    if not isinstance(name, str) or name in EVENTS:
        return f"records the event {reprlib.repr(name)}: expected a key 'event' with a name of its own"
    return None


def names_of_settings(method: type[TrainingMethod]) -> tuple[str, ...]:
    """The names of a method's settings."""
    return tuple(field.name for field in fields(method.Settings))
