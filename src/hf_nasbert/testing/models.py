"""What any model of this family promises, child or super-net, whatever its head: on a few tokens, in seconds."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_nasbert.modeling.geometry_nasbert import TOKENWISE_KINDS, operator_kind
from hf_nasbert.space import Architecture
from hf_nasbert.testing.promises import require

_LENGTHS = (12, 9, 5)
_GARBAGE = 3  # a token that stands at padding


def check_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """Hold a model class against what saving, loading, scoring and training rely on.

    Args:
        model_class: A class of a child or a super-net, with or without a head.
        config: A small config, of at least 12 positions and 8 tokens.

    Raises:
        AssertionError: With what the model does and should not.
    """
    for check in (
        _computes_what_it_did_when_it_is_loaded,
        _initialises_what_a_checkpoint_lacks,
        _never_sees_what_stands_at_padding,
        _says_the_same_twice,
        _takes_embedded_tokens,
        _keeps_its_weights_tied,
        _learns,
    ):
        check(model_class, config)


def _computes_what_it_did_when_it_is_loaded(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    model, inputs = _model(model_class, config), _inputs(model_class, config)
    with TemporaryDirectory() as name, torch.no_grad(), _poisoned_memory():
        folder = Path(name)
        model.save_pretrained(folder)
        loaded = _load(model_class, folder)
        found, wanted = _tensors(loaded), _tensors(model)
        require(found.keys() == wanted.keys(), "a loaded model has other tensors than the one that was saved")
        odd = next((key for key in wanted if not torch.equal(found[key], wanted[key])), None)
        require(odd is None, f"{odd} has other numbers after saving and loading")
        require(not loaded.training, "a loaded model is in training mode")
        # In memory of its own: a file's numbers may lie at odd addresses, where kernels sum in another order.
        same = torch.equal(copy.deepcopy(loaded)(**inputs)[0], model(**inputs)[0])
        require(same, "a loaded model computes something else than the one that was saved")
        weights = [file.name for file in folder.iterdir() if file.suffix not in (".py", ".json")]
        require(weights == ["model.safetensors"], f"the weights are saved as {weights}, not as safetensors alone")
        loaded.save_pretrained(folder / "again")
        same = (folder / "again" / weights[0]).read_bytes() == (folder / weights[0]).read_bytes()
        require(same, "a loaded model is saved as another file than the one it came from")


def _initialises_what_a_checkpoint_lacks(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """Loading is on the meta device: what `_init_weights` does not fill is memory that nobody wrote."""
    fresh = _model_of(model_class, config)
    with _poisoned_memory():
        empty: Any = model_class.from_pretrained(None, config=copy.deepcopy(config), state_dict={})
    for name, tensor in _tensors(empty).items():
        is_number = bool(tensor.isfinite().all()) if tensor.is_floating_point() else True
        require(is_number, f"nobody fills {name}, which a checkpoint may lack: see _init_weights")
    for name, buffer in dict(empty.named_buffers()).items():
        require(torch.equal(buffer, fresh.get_buffer(name)), f"a loaded model has another {name} than a new one")


def _never_sees_what_stands_at_padding(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    model, child = _model(model_class, config), _mixing_child(config)
    inputs = _inputs(model_class, config)
    mask = inputs["attention_mask"].bool()
    garbage = inputs | {"input_ids": torch.where(mask, inputs["input_ids"], _GARBAGE)}
    with torch.no_grad():
        clean, dirty = (model(**batch, **child)[0] for batch in (inputs, garbage))
    if clean.shape[: mask.dim()] == mask.shape:
        clean, dirty = clean[mask], dirty[mask]
    require(torch.equal(clean, dirty), "what stands at padding changes what is computed at tokens")


def _says_the_same_twice(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    with torch.no_grad():
        model, inputs = _model(model_class, config), _inputs(model_class, config)
        one, other = (model(**inputs)[0] for _ in range(2))
    require(torch.equal(one, other), "in evaluation mode the same input gives two outputs")


def _takes_embedded_tokens(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    model, inputs = _model(model_class, config), _inputs(model_class, config)
    with torch.no_grad():
        expected = model(**inputs)[0]
        embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
        same = torch.equal(model(**inputs, inputs_embeds=embedded)[0], expected)
    require(same, "embedded tokens (inputs_embeds) give something else than the tokens")


def _keeps_its_weights_tied(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """After building, copying, loading and resizing; where nothing is tied there is nothing to keep."""
    model = _model(model_class, config)
    if model.get_output_embeddings() is None or not config.tie_word_embeddings:
        return
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        resized = copy.deepcopy(model)
        resized.resize_token_embeddings(config.vocab_size + 3)
        models = {"built": model, "copied": copy.deepcopy(model), "loaded": _load(model_class, Path(folder))}
        for how, one in (models | {"resized": resized}).items():
            is_tied = one.get_output_embeddings().weight is one.get_input_embeddings().weight
            require(is_tied, f"a {how} model has two tensors of tied weights: see _tied_weights_keys")


def _learns(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """A small step against the gradient lowers what it is the gradient of."""
    model, inputs = _model(model_class, config), _inputs(model_class, config)

    def loss() -> torch.Tensor:
        value: torch.Tensor = model(**inputs)[0].square().mean()
        return value

    before = loss()
    before.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    require(bool(gradients), "no parameter has a gradient")
    odd = next((name for name, gradient in gradients.items() if not gradient.isfinite().all()), None)
    require(odd is None, f"the gradient of {odd} is not finite")
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    require(bool(loss() < before), "a small step against the gradient does not lower the loss")


def _model_of(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> Any:
    return model_class(copy.deepcopy(config))  # transformers writes into a config


def _model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> Any:
    """A model in evaluation mode, none of whose weights has its initial value: ones and zeros would hide mistakes."""
    model = _model_of(model_class, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = max(parameter[0].numel() if parameter.dim() > 1 else 4, 4)
            parameter.copy_(1 + 0.3 * noise if name.endswith("LayerNorm.weight") else noise / fan_in**0.5)
    return model.train(False)


def _inputs(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Three sequences with padding; as two choices of each, where a model is given choices."""
    shape = (len(_LENGTHS), max(_LENGTHS))
    mask = torch.arange(shape[1]) < torch.tensor(_LENGTHS)[:, None]
    tokens = torch.randint(5, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": torch.where(mask, tokens, 0), "attention_mask": mask.long()}
    if model_class.__name__.endswith("ForMultipleChoice"):
        return {name: torch.stack([tensor, tensor.flip(0)], dim=1) for name, tensor in batch.items()}
    return batch


def _mixing_child(config: PreTrainedConfig) -> dict[str, Any]:
    """Of a super-net, the child of the most kinds that mix tokens: where padding could be seen."""
    space = getattr(config, "space", None)
    if space is None:
        return {}

    def num_mixing(child: Architecture) -> int:
        return len({operator_kind(name) for name in child} - set(TOKENWISE_KINDS))

    return {"architecture": max(islice(space.enumerate(), 10_000), key=num_mixing)}


def _load(model_class: type[PreTrainedModel], folder: Path) -> Any:
    """Load, and insist that nothing was missing, left over or of another shape."""
    found: Any = model_class.from_pretrained(folder, output_loading_info=True)
    model, info = found
    problems = sorted(kind for kind, what in info.items() if what)
    require(not problems, f"a saved model does not fit its own class when it is loaded: {', '.join(problems)}")
    return model


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Within it, memory that nobody initialises is NaN, or the largest integer, and not zero by luck."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)
