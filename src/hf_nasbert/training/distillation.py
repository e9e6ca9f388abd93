"""What a super-net's children learn from a teacher, not from masked words: one loss for all training methods."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import nn

from hf_nasbert.elastic.distance import Distance, Pooling, Target
from hf_nasbert.elastic.scores import score_children
from hf_nasbert.methods import ChildRun, StepContext
from hf_nasbert.modeling.geometry_nasbert import inner_width, operator_kind
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.modeling.operators_nasbert import NasBertSelfAttention
from hf_nasbert.objectives import relation_loss
from hf_nasbert.space import Architecture
from hf_nasbert.teachers import BaseModelTeacher, Lesson, Taught, mask_of, read_child
from hf_nasbert.training.arguments import SupernetTrainingArguments

Batch = Mapping[str, torch.Tensor]

_IGNORED = -100


class Distillation:
    """The loss of a child by a teacher: the base model, or the full child of the super-net as it is at that moment.

    The full child itself learns from the base model, whoever teaches the others. Without a head that is to predict
    masked words, children and teacher read the text as it is: what was masked is put back.

    Args:
        supernet: The super-net of the base model, not wrapped.
        base_model: The base model.
        arguments: Who teaches (`teacher`, none of which is "auto" any more), what, and by which weights.
        num_sequences: Sequences of a step, over all processes.
        pooling: How the vector of a sequence is made.

    Raises:
        ValueError: If the base model is not that of the super-net, or lacks what is to be learned.
    """

    def __init__(
        self,
        supernet: SupernetPreTrainedModel,
        base_model: BaseModelTeacher,
        arguments: SupernetTrainingArguments,
        *,
        num_sequences: int,
        pooling: Pooling = "mean",
    ) -> None:
        _check_fit(supernet, base_model)
        self.supernet, self.base_model, self.teacher = supernet, base_model, arguments.teacher
        self.num_sequences = num_sequences
        is_masked_lm = isinstance(supernet, SupernetForMaskedLM)
        self.weights = _weights_of(supernet, arguments)
        has_head = {"masked_lm": is_masked_lm, "logits": is_masked_lm or _classifies(supernet)}
        for term, has in has_head.items():
            if term in self.weights and not has:
                raise ValueError(
                    f"distillation={term}: the base model has no head for it ({type(base_model.model).__name__}); "
                    "distil states, vectors or relations"
                )
        self.is_masked = is_masked_lm and bool({"masked_lm", "logits"} & self.weights.keys())
        """Whether the text is read with its masks."""
        spread = base_model.spread
        config = base_model.model.config
        self.distance = Distance(
            spread.means[-1],
            pooling,
            self.weights.get("states", 0.0),
            self.weights.get("vectors", 0.0),
            self.weights.get("logits", 0.0),
            getattr(config, "problem_type", None) == "multi_label_classification",
            variance=spread.variances[-1],
        )
        self._num_heads = _common_heads(supernet, base_model) if "relations" in self.weights else 0
        self._targets: dict[int, Target] = {}

    @property
    def is_used(self) -> bool:
        """Whether a teacher teaches; the base model may be there as an anchor alone."""
        return self.teacher != "none"

    def describe(self) -> dict[str, Any]:
        """All that the children's losses depend on beside the super-net and the text, in plain JSON types."""
        found: dict[str, Any] = {"digest": self.base_model.digest, "teacher": self.teacher}
        if self.is_used:
            found |= {"weights": self.weights, "pooling": self.distance.pooling}
        return found

    @contextmanager
    def teaching(self) -> Iterator[None]:
        """Take dropout out of the super-net's training, and the embeddings, which its children share with all others.

        What is taught is exact: noise in it would only add variance. The base model goes where the super-net is.
        """
        nn.Module.to(self.base_model.model, self.supernet.device)
        if not self.is_used:
            yield
            return
        noisy = [one for one in self.supernet.modules() if isinstance(one, nn.Dropout | NasBertSelfAttention)]
        modes = [module.training for module in noisy]
        embeddings = cast(nn.Module, self.supernet.base_model.embeddings)
        frozen = [] if "masked_lm" in self.weights else list(embeddings.parameters())
        flags = [parameter.requires_grad for parameter in frozen]
        try:
            for module in noisy:
                module.training = False
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in zip(noisy, modes, strict=True):
                module.training = mode
            for parameter, flag in zip(frozen, flags, strict=True):
                parameter.requires_grad_(flag)

    def read(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The tokens that children and teacher see, (B, T)."""
        return input_ids if self.is_masked or not self.is_used else torch.where(labels == _IGNORED, input_ids, labels)

    def lesson(self, batch: Batch) -> "Lessons":
        """What the teachers make of a micro-batch."""
        return Lessons(self, batch)

    def run(self, child: Architecture, context: StepContext) -> ChildRun:
        """Run a child over a micro-batch; its loss is a share of the step's, as masked-LM losses are."""
        lessons = context.base_model
        assert isinstance(lessons, Lessons)
        own = read_child(self.supernet, lessons.batch, child, logits=self.needs_logits, vectors=bool(self._num_heads))
        if self.teacher == "full_child" and child == self.supernet.largest_architecture:
            lessons.heard(own)
        with torch.autocast(own.logits.device.type, enabled=False):
            loss = self._loss(own, lessons.of(child), lessons.batch, context)
        return ChildRun(child, loss, own.logits, own.hidden_states)

    @property
    def needs_logits(self) -> bool:
        """Whether heads run."""
        return bool({"logits", "masked_lm"} & self.weights.keys())

    def _loss(self, own: Taught, taught: Taught, batch: Batch, context: StepContext) -> torch.Tensor:
        assert own.hidden_states is not None
        assert taught.hidden_states is not None
        states, counts = own.hidden_states[-1], context.counts
        mask = mask_of(batch, states)
        share = int(mask.sum()) / max(counts.tokens, 1)
        logits = (own.logits, taught.logits) if "logits" in self.weights else (None, None)
        parts = self.distance.parts(states, mask, Target(taught.hidden_states[-1][mask], logits[1]), logits[0])
        of_sequences = len(mask) / self.num_sequences
        of_logits = of_sequences
        if self.is_masked:
            of_logits = len(own.logits) / max(counts.labelled, 1)
        elif logits[0] is not None and len(logits[0]) != len(mask):
            of_logits = share
        total = self.distance.total(
            parts._replace(
                states=parts.states * share, vectors=parts.vectors * of_sequences, logits=parts.logits * of_logits
            )
        )
        if "relations" in self.weights and own.vectors is not None and taught.vectors is not None:
            pairs = zip(own.vectors, taught.vectors, strict=True)
            relations = [relation_loss(one, other, mask, num_heads=self._num_heads) for one, other in pairs]
            total = total + self.weights["relations"] * share * torch.stack(relations).mean()
        if "masked_lm" in self.weights:
            labels = batch["labels"][batch["labels"] != _IGNORED]
            masked_lm = nn.functional.cross_entropy(own.logits.float(), labels, reduction="sum")
            total = total + self.weights["masked_lm"] * masked_lm / max(counts.labelled, 1)
        return total

    def score(
        self, children: Sequence[Architecture], batches: Sequence[Batch], processes: PartialState | None = None
    ) -> list[float]:
        """How far children are from the base model, by `Distance.of`, whatever is learned: so that all runs compare.

        Args:
            children: Children of the super-net.
            batches: The first ones of the dev batches, which are always the same.
            processes: Those that share the work.
        """
        distance = Distance.of(self.supernet, self.distance.mean, pooling=self.distance.pooling)
        whole = [
            {
                "input_ids": torch.where(batch["labels"] == _IGNORED, batch["input_ids"], batch["labels"]),
                "attention_mask": batch["attention_mask"],
            }
            for batch in batches
        ]
        for number, batch in enumerate(whole):
            if number not in self._targets:
                self._targets[number] = self._target(batch)
        targets = [self._targets[number] for number in range(len(whole))]
        scores = score_children(self.supernet, children, whole, targets, distance, processes=processes)
        return [score.loss for score in scores]

    def _target(self, batch: Batch) -> Target:
        taught = self.base_model.teach(batch, hidden_states=True)
        assert taught.hidden_states is not None
        logits = taught.logits if _classifies(self.supernet) else None
        return Target(taught.hidden_states[-1][mask_of(batch, taught.hidden_states[-1])], logits)


class Lessons(Lesson):
    """What the base model and the full child make of one micro-batch, each once, when it is first asked for."""

    def __init__(self, distillation: Distillation, batch: Batch) -> None:
        super().__init__(distillation.base_model, batch, vectors="relations" in distillation.weights)
        self._distillation = distillation
        self._full_child: Taught | None = None

    def of(self, child: Architecture) -> Taught:
        """What a child learns."""
        full = self._distillation.supernet.largest_architecture
        if self._distillation.teacher == "base_model" or child == full:
            return self.taught
        if self._full_child is None:
            with torch.no_grad():
                made = read_child(
                    self._distillation.supernet, self.batch, full,
                    logits=self._distillation.needs_logits, vectors=self._vectors,
                )  # fmt: skip
            self.heard(made)
        assert self._full_child is not None
        return self._full_child

    def heard(self, full_child: Taught) -> None:
        """Take what the full child made where it ran anyway; constants from here on."""
        states, vectors = (
            None if tensors is None else [tensor.detach() for tensor in tensors]
            for tensors in (full_child.hidden_states, full_child.vectors)
        )
        self._full_child = Taught(full_child.logits.detach(), states, vectors)


def _classifies(supernet: SupernetPreTrainedModel) -> bool:
    return isinstance(getattr(supernet, "classifier", None), nn.Module)


def _weights_of(supernet: SupernetPreTrainedModel, arguments: SupernetTrainingArguments) -> dict[str, float]:
    """The weight of everything that is learned: what was asked for, or that by which `compress` distils."""
    usual = Distance.of(supernet, torch.zeros(0))
    weights = {
        "states": usual.state_weight, "vectors": usual.vector_weight, "logits": usual.logit_weight or 1.0,
        "relations": 1.0, "masked_lm": 1.0,
    }  # fmt: skip
    if arguments.distillation is None:
        return {
            name: weight
            for name, weight in weights.items()
            if weight and (name in ("states", "vectors") or (name == "logits" and usual.logit_weight))
        }
    if arguments.distillation_weights is not None:
        return dict(zip(arguments.distillation, arguments.distillation_weights, strict=True))
    weights["vectors"] = weights["vectors"] or 5.0  # of a classifier too, where it is asked for
    return {name: weights[name] for name in arguments.distillation}


def _check_fit(supernet: SupernetPreTrainedModel, base_model: BaseModelTeacher) -> None:
    kinds = [operator_kind(name) for name in base_model.operators]
    largest = [operator_kind(name) for name in supernet.largest_architecture]
    widths = supernet.config.hidden_size, base_model.model.config.hidden_size
    if kinds != largest or widths[0] != widths[1]:
        raise ValueError(
            f"the base model has {len(kinds)} blocks of width {widths[1]} ({'-'.join(kinds)[:80]}), the largest child "
            f"of the super-net {len(largest)} of width {widths[0]} ({'-'.join(largest)[:80]}): it was made of another "
            "model"
        )


def _common_heads(supernet: SupernetPreTrainedModel, base_model: BaseModelTeacher) -> int:
    """Relation heads: as many as the base model has, or the most that divide every attention's width too."""
    configs: list[tuple[Any, Sequence[str]]] = [(base_model.model.config, base_model.operators)]
    configs += [(supernet.config, names) for names in supernet.space.blocks]
    widths = [
        inner_width(config, name) for config, names in configs for name in names if operator_kind(name) == "attention"
    ]
    if not any(operator_kind(name) == "attention" for name in base_model.operators):
        raise ValueError("distillation=relations: the base model has no attention")
    config = base_model.model.config
    return math.gcd(*widths, config.hidden_size // config.head_size(config.hidden_size))


def with_teacher(arguments: SupernetTrainingArguments, *, has_base_model: bool) -> SupernetTrainingArguments:
    """The arguments with the teacher that "auto" comes to: the base model where there is one.

    Raises:
        ValueError: If a base model is needed, and there is none.
    """
    if arguments.distillation is not None and not has_base_model:
        raise ValueError("distillation says what is learned from a teacher, and there is none: give base_model")
    if arguments.teacher == "auto":
        return dataclasses.replace(arguments, teacher="base_model" if has_base_model else "none")
    if arguments.teacher != "none" and not has_base_model:
        raise ValueError(
            f"teacher={arguments.teacher} teaches the super-net of a base model, and this one begins with random "
            "weights: give base_model, or leave teacher out"
        )
    return arguments
