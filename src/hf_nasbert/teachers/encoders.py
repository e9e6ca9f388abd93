"""Masked-LM models from elsewhere as teachers: predictions, states or attention vectors of any encoder."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from hf_nasbert.configs import load_config, loading_errors
from hf_nasbert.teachers.base import Taught, labelled_positions

_VECTORS = ("query", "key", "value")


class EncoderTeacher:
    """A masked-LM model that is never trained.

    Attributes:
        has_head: Whether its folder brought the head that predicts tokens.

    Args:
        name: Folder, or name on the Hub.
        revision: Commit of a Hub model.
        trust_remote_code: Whether to run code that comes with it.

    Raises:
        ValueError: If it is a super-net, or its weights are damaged or incomplete.
    """

    def __init__(self, name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
        self.name = name
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        if load_config(name, **options).model_type == "nasbert_supernet":
            raise ValueError(f"{name} is a super-net; extract one of its children first (extract_child)")
        with loading_errors(name):
            self.model, report = AutoModelForMaskedLM.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        body = f"{self.model.base_model_prefix}."
        absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
        lost = sorted(key for key in absent if key.startswith(body) and ".pooler." not in key)
        if lost:
            raise ValueError(f"the teacher {name} lacks {len(lost)} weights, such as {lost[0]}: it is incomplete")
        self.has_head = all(key.startswith(body) for key in absent)
        self.model.eval().requires_grad_(False)

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """Read a batch; see `Teacher.teach`."""
        assert not self.model.training
        with torch.no_grad():
            return read(self.model, batch, hidden_states=hidden_states, vectors=vectors)


def read(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    *,
    hidden_states: bool = False,
    vectors: bool = False,
    runner: nn.Module | None = None,
    **options: Any,
) -> Taught:
    """Run a masked-LM model over a batch: logits at the tokens to predict, and what else is asked for.

    Args:
        model: The model.
        batch: As `Teacher.teach` takes it.
        hidden_states: Whether to give the states.
        vectors: Whether to give queries, keys and values of the last attention layer.
        runner: What runs the model (DDP), if not the model itself.
        **options: What else its forward takes, such as a child's `architecture`.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    asked = {"output_hidden_states": True} if hidden_states else {}
    with ExitStack() as stack:
        found = stack.enter_context(vectors_of(find_attention(model, "the model"))) if vectors else None
        stack.enter_context(predicting_at(model, labelled_positions(batch)))
        output = (model if runner is None else runner)(**inputs, **asked, **options)
    return Taught(
        output.logits,
        output.hidden_states if hidden_states else None,
        None if found is None else [found[name] for name in _VECTORS],
    )


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
