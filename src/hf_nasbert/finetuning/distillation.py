"""A frozen teacher beside masked-LM training: soft logits, hidden states or attention relations to learn from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.configs import loading_errors
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.finetuning import runs
from hf_nasbert.finetuning.checkpoints import SealingTrainer
from hf_nasbert.finetuning.words import WordReader, average_words
from hf_nasbert.objectives import alignment_loss, distillation_loss, relation_loss

Distillation = Literal["auto", "logits", "hidden", "relations"]
_PROJECTION = "distillation_projection"
_VECTORS = ("query", "key", "value")


class Teacher:
    """A masked-LM model that is never trained, and what a student learns from it.

    Attributes:
        identity: A digest of the teacher's weights, or its commit.
        kind: "logits": its predictions at the masked positions (`distillation_loss`). "hidden": the direction of its
            last states at every token, reached from the student's by a linear map that is learned along and thrown
            away (as TinyBERT's: Jiao et al., 2020, https://arxiv.org/abs/1909.10351; the normalisation is ours).
            "relations": the relations of queries, keys and values of its last attention layer, for those of the
            student's last one (MiniLMv2, `relation_loss`).
        words: How it reads along where its vocabulary is not the student's: "hidden" and "relations" are then those of
            whole words. `None` where both share one.

    Args:
        arguments: Where the teacher lies.
        kind: What to learn. "auto" takes logits where the teacher has a masked-LM head and the student's vocabulary,
            hidden otherwise.
        tokenizer: The student's.
        temperature: Of logits.
        num_heads: Of relations.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If its weights are damaged or incomplete, or it cannot give what is to be learned.
    """

    def __init__(
        self,
        arguments: runs.RunArguments,
        kind: Distillation,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float,
        num_heads: int,
    ) -> None:
        commit, self.identity = runs.identify_model(arguments)
        self.name, self.temperature, self.num_heads = arguments.model, temperature, num_heads
        runs.load_config(arguments, commit)  # refuses a super-net
        options: dict[str, Any] = {"revision": commit, "trust_remote_code": arguments.trust_remote_code}
        with loading_errors(self.name):
            self.model, report = AutoModelForMaskedLM.from_pretrained(
                self.name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        # A word given by itself is to be read as one behind a space.
        self.tokenizer = open_tokenizer(self.name, add_prefix_space=True, **options)
        body = f"{self.model.base_model_prefix}."
        absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        lost = sorted(name for name in absent if name.startswith(body) and ".pooler." not in name)
        if lost:
            raise ValueError(f"the teacher {self.name} lacks {len(lost)} weights, such as {lost[0]}: it is incomplete")
        has_head = all(name.startswith(body) for name in absent)
        is_foreign = self.tokenizer.get_vocab() != tokenizer.get_vocab()
        self.kind = kind if kind != "auto" else "logits" if has_head and not is_foreign else "hidden"
        if self.kind == "logits" and not has_head:
            raise ValueError(
                f"the teacher {self.name} has no masked-LM head, so it predicts no tokens: distil hidden or relations"
            )
        if self.kind == "logits" and is_foreign:
            sizes = [vocabulary_size(one) for one in (self.tokenizer, tokenizer)]
            raise ValueError(
                f"the teacher {self.name} predicts other token ids than the student ({sizes[0]} tokens, the text's "
                f"tokenizer has {sizes[1]}): logits need one vocabulary; distil hidden or relations, or give the "
                f"child the teacher's when it is made (tokenizer_name={self.name})"
            )
        if self.kind == "relations":
            find_attention(self.model, f"the teacher {self.name}")
        self.words = WordReader(tokenizer, self.model, self.tokenizer) if is_foreign else None
        self.model.eval().requires_grad_(False)

    def check(self, student: PreTrainedModel, max_seq_length: int) -> None:
        """Refuse a student or a text that this teacher cannot read along with.

        Raises:
            ValueError: If the sequences are too long, or the student has no attention whose relations could be
                compared.
        """
        if self.words is None:
            runs.check_length(max_seq_length, self.model, self.name)
        if self.kind == "relations":
            pairs = (("the student", student), (f"the teacher {self.name}", self.model))
            for whose, model in pairs:
                width = find_attention(model, whose).query.out_features
                if width % self.num_heads:
                    raise ValueError(
                        f"num_relation_heads={self.num_heads} does not divide the {width} of {whose}'s attention"
                    )

    def prepare(self, student: PreTrainedModel) -> None:
        """Give the student the linear map that it needs beside its own weights while it is trained."""
        self.model.to(student.device)
        if self.kind == "hidden":
            projection = nn.Linear(student.config.hidden_size, self.model.config.hidden_size)
            student.add_module(_PROJECTION, projection.to(student.device))

    def leave(self, student: PreTrainedModel) -> None:
        """Take that map away again."""
        if self.kind == "hidden":
            delattr(student, _PROJECTION)

    def guide(
        self, model: nn.Module, student: PreTrainedModel, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run both over the same masked text.

        Args:
            model: What runs the student (DDP), or the student.
            student: The student.
            inputs: A batch with its labels.

        Returns:
            The student's logits at the labelled tokens, (N, V), and the distillation term.
        """
        assert not self.model.training
        batch = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        positions = (inputs["labels"].flatten() != -100).nonzero().squeeze(-1)
        reading = None if self.words is None else self.words.read(inputs)
        with torch.no_grad():
            if reading is None:
                _, taught = self._observe(self.model, self.model, batch, positions)
            else:
                _, taught = self._observe(self.model, self.model, reading.batch, positions[:0])  # no logits of it
        logits, learned = self._observe(model, student, batch, positions)
        if reading is None:
            return logits, self._loss(student, learned, taught, batch.get("attention_mask"))
        learned = [average_words(vectors, reading.own) for vectors in learned]
        taught = [average_words(vectors, reading.other) for vectors in taught]
        return logits, self._loss(student, learned, taught, reading.common)

    def _observe(
        self, model: nn.Module, inner: PreTrainedModel, batch: dict[str, torch.Tensor], positions: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run a model over a batch: its logits at flat positions, (N, V), and what this kind compares.

        That is these logits, the last states (B, T, D), or query, key and value of the last attention layer, each
        (B, T, D). `inner` is the model itself where `model` is what runs it (DDP).
        """
        if self.kind == "relations":
            with predicting_at(inner, positions), vectors_of(find_attention(inner, "the model")) as vectors:
                logits = model(**batch).logits
            return logits, [vectors[name] for name in _VECTORS]
        with predicting_at(inner, positions):
            output = model(**batch, output_hidden_states=self.kind == "hidden")
        return output.logits, [output.logits if self.kind == "logits" else output.hidden_states[-1]]

    def _loss(
        self,
        student: PreTrainedModel,
        learned: list[torch.Tensor],
        taught: list[torch.Tensor],
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The distillation term: the student's own against the teacher's, at real tokens or words."""
        if self.kind == "logits":
            num_tokens = vocabulary_size(self.tokenizer)  # behind them stand embeddings that only fill the matrix up
            own, other = (logits[:, :num_tokens] for logits in learned + taught)
            return distillation_loss(own, other, temperature=self.temperature)
        if self.kind == "hidden":
            return alignment_loss([getattr(student, _PROJECTION)(learned[0])], taught, mask, normalize=True)
        terms = [
            relation_loss(own, other, mask, num_heads=self.num_heads)
            for own, other in zip(learned, taught, strict=True)
        ]
        return torch.stack(terms).mean()


class DistillationTrainer(SealingTrainer):
    """A trainer whose loss is (1 - weight) times the masked-LM loss plus weight times the teacher's term."""

    def __init__(self, *args: Any, teacher: Teacher, weight: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.teacher, self.weight = teacher, weight
        self._parts: list[torch.Tensor] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Both terms, of one pass of the student and one of the teacher over the same masked text."""
        assert not return_outputs
        labels = inputs["labels"].flatten()
        logits, distillation = self.teacher.guide(model, self.accelerator.unwrap_model(model), inputs)
        masked_lm = nn.functional.cross_entropy(logits.float(), labels[labels != -100])
        self._parts.append(torch.stack([masked_lm, distillation]).detach())
        return (1 - self.weight) * masked_lm + self.weight * distillation

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log both terms beside their sum."""
        if "loss" in logs and self._parts:
            masked_lm, distillation = torch.stack(self._parts).mean(0).tolist()
            logs = {**logs, "masked_lm_loss": masked_lm, "distillation_loss": distillation}
            self._parts.clear()
        super().log(logs, *args, **options)


@contextmanager
def predicting_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """Within it, a masked-LM model computes its vocabulary logits at some flat positions of (B * T) only: (N, V)."""
    decoder = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if decoder is None:
        raise ValueError(
            f"{type(model).__name__} names no output embeddings: it cannot be a teacher or a student here"
        )
    hook = decoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1).index_select(0, positions),))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def vectors_of(attention: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Within it, collects an attention layer's queries, keys and values, each (B, T, D)."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(attention, name).register_forward_hook(
            lambda _, inputs, output, name=name: found.update({name: output})
        )
        for name in _VECTORS
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def find_attention(model: nn.Module, whose: str) -> Any:
    """The last attention layer: the last module with linear maps `query`, `key` and `value`.

    Raises:
        ValueError: If there is none.
    """
    layers = [m for m in model.modules() if all(isinstance(getattr(m, name, None), nn.Linear) for name in _VECTORS)]
    if not layers:
        raise ValueError(
            f"{whose} ({type(model).__name__}) has no attention with query, key and value: distil logits or hidden"
        )
    return layers[-1]
