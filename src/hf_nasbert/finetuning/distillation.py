"""A frozen teacher beside masked-LM training: soft logits, hidden states or attention relations to learn from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from hf_nasbert.finetuning import runs
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
    """

    def __init__(
        self, arguments: runs.RunArguments, kind: Distillation, *, temperature: float, num_heads: int
    ) -> None:
        commit, self.identity = runs.identify_model(arguments)
        self.name, self.temperature, self.num_heads = arguments.model, temperature, num_heads
        runs.load_config(arguments, commit)  # refuses a super-net
        options: dict[str, Any] = {"revision": commit, "trust_remote_code": arguments.trust_remote_code}
        try:
            self.model, report = AutoModelForMaskedLM.from_pretrained(
                self.name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except SafetensorError as error:
            raise ValueError(f"the weights of the teacher {self.name} are damaged ({error})") from error
        self.tokenizer = AutoTokenizer.from_pretrained(self.name, **options)
        body = f"{self.model.base_model_prefix}."
        absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        lost = sorted(name for name in absent if name.startswith(body) and ".pooler." not in name)
        if lost:
            raise ValueError(f"the teacher {self.name} lacks {len(lost)} weights, such as {lost[0]}: it is incomplete")
        has_head = all(name.startswith(body) for name in absent)
        self.kind = kind if kind != "auto" else "logits" if has_head else "hidden"
        if self.kind == "logits" and not has_head:
            raise ValueError(
                f"the teacher {self.name} has no masked-LM head, so it predicts no tokens: distil hidden or relations"
            )
        if self.kind == "relations":
            find_attention(self.model, f"the teacher {self.name}")
        self.model.eval().requires_grad_(False)

    def check(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
        """Refuse a student or a text that this teacher cannot read along with.

        Raises:
            ValueError: If the vocabularies differ, the sequences are too long, or the student has no attention whose
                relations could be compared.
        """
        if self.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"the teacher {self.name} reads other token ids than the student ({len(self.tokenizer)} tokens, the "
                f"text's tokenizer has {len(tokenizer)}): a teacher and its student must share one vocabulary; give "
                f"the child the teacher's when it is made (tokenizer_name={self.name})"
            )
        runs.check_length(max_seq_length, self.model.config, self.name)
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

    @torch.no_grad()
    def teach(self, batch: dict[str, torch.Tensor], positions: torch.Tensor) -> Any:
        """What the teacher makes of a batch, as `observe` says."""
        assert not self.model.training
        return self.observe(self.model, self.model, batch, positions)[1]

    def observe(
        self, model: nn.Module, inner: PreTrainedModel, batch: dict[str, torch.Tensor], positions: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
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
        return output.logits, output.logits if self.kind == "logits" else output.hidden_states[-1]

    def loss(self, student: PreTrainedModel, learned: Any, taught: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """The distillation term: the student's own against the teacher's."""
        if self.kind == "logits":
            num_tokens = len(self.tokenizer)  # behind them stand embeddings that only fill the matrix up
            return distillation_loss(learned[:, :num_tokens], taught[:, :num_tokens], temperature=self.temperature)
        if self.kind == "hidden":
            projected = getattr(student, _PROJECTION)(learned)
            return alignment_loss([projected], [taught], mask, normalize=True)
        terms = [
            relation_loss(own, other, mask, num_heads=self.num_heads)
            for own, other in zip(learned, taught, strict=True)
        ]
        return torch.stack(terms).mean()


class DistillationTrainer(Trainer):
    """`Trainer` whose loss is (1 - weight) times the masked-LM loss plus weight times the teacher's term."""

    def __init__(self, *args: Any, teacher: Teacher, weight: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.teacher, self.weight = teacher, weight
        self._parts: list[torch.Tensor] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Both terms, of one pass of the student and one of the teacher over the same masked text."""
        assert not return_outputs
        batch = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        labels = inputs["labels"].flatten()
        positions = (labels != -100).nonzero().squeeze(-1)
        student = self.accelerator.unwrap_model(model)
        taught = self.teacher.teach(batch, positions)
        logits, learned = self.teacher.observe(model, student, batch, positions)
        masked_lm = nn.functional.cross_entropy(logits.float(), labels[positions])
        distillation = self.teacher.loss(student, learned, taught, batch.get("attention_mask"))
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
