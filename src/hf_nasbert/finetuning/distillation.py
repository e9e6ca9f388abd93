"""A frozen teacher beside masked-LM training: soft logits, hidden states or attention relations to learn from."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.finetuning import runs
from hf_nasbert.finetuning.arguments import Distillation, RunArguments
from hf_nasbert.finetuning.checkpoints import SealingTrainer
from hf_nasbert.finetuning.word_alignment import WordReader, average_words
from hf_nasbert.objectives import alignment_loss, distillation_loss, relation_loss
from hf_nasbert.teachers import EncoderTeacher, Taught, find_attention, read

_PROJECTION = "distillation_projection"


class Guide:
    """A teacher from elsewhere, and what a student learns from it.

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
        arguments: RunArguments,
        kind: Distillation,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float,
        num_heads: int,
    ) -> None:
        commit, self.identity = runs.identify_model(arguments)
        self.name, self.temperature, self.num_heads = arguments.model, temperature, num_heads
        options: dict[str, Any] = {"revision": commit, "trust_remote_code": arguments.trust_remote_code}
        self.teacher = EncoderTeacher(self.name, **options)
        self.model, has_head = self.teacher.model, self.teacher.has_head
        # A word given by itself is to be read as one after a space.
        self.tokenizer = open_tokenizer(self.name, add_prefix_space=True, **options)
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

    def losses(
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
        asked = {"hidden_states": self.kind == "hidden", "vectors": self.kind == "relations"}
        reading = None if self.words is None else self.words.read(inputs)
        teaching = self.teacher.teach(inputs if reading is None else reading.batch, **asked)
        learning = read(student, inputs, runner=model, **asked)
        learned, taught = self._compared(learning), self._compared(teaching)
        if reading is None:
            return learning.logits, self._loss(student, learned, taught, inputs.get("attention_mask"))
        learned = [average_words(vectors, reading.own) for vectors in learned]
        taught = [average_words(vectors, reading.other) for vectors in taught]
        return learning.logits, self._loss(student, learned, taught, reading.common)

    def _compared(self, found: Taught) -> list[torch.Tensor]:
        """What this kind compares: logits, the last states, or query, key and value of the last attention layer."""
        if self.kind == "logits":
            return [found.logits]
        if self.kind == "hidden":
            assert found.hidden_states is not None
            return [found.hidden_states[-1]]
        return list(found.vectors or ())

    def _loss(
        self,
        student: PreTrainedModel,
        learned: list[torch.Tensor],
        taught: list[torch.Tensor],
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The distillation term: the student's own against the teacher's, at real tokens or words."""
        if self.kind == "logits":
            num_tokens = vocabulary_size(self.tokenizer)  # after them stand embeddings that only fill the matrix up
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

    def __init__(self, *args: Any, guide: Guide, weight: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.guide, self.weight = guide, weight
        self._parts: list[torch.Tensor] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Both terms, of one pass of the student and one of the teacher over the same masked text."""
        assert not return_outputs
        labels = inputs["labels"].flatten()
        logits, distillation = self.guide.losses(model, self.accelerator.unwrap_model(model), inputs)
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
