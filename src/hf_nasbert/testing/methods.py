"""What any training method promises the loop that runs it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, cast

import safetensors.torch
import torch
from accelerate import Accelerator

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, Paper, TrainingMethod, Wants
from hf_nasbert.methods.base import misnamed
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.testing.promises import require, resume, through_json
from hf_nasbert.training.arguments import SupernetTrainingArguments
from hf_nasbert.training.checkpoints import apart
from hf_nasbert.training.step import Batch, TrainingStep

SPACES: Mapping[str, SearchSpace] = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), widths=(32, 64)),
}
"""A space of one width and one of several."""

_NUM_STEPS = 40
_NUM_ROWS, _LENGTH, _VOCAB_SIZE = 4, 12, 50


def check_method(name: str, space: SearchSpace | None = None, **settings: Any) -> None:
    """Hold a registered training method against all that training relies on, in a few steps of a tiny super-net.

    Args:
        name: Its name in `METHODS`.
        space: The space to try it in; by default each of `SPACES`.
        **settings: Settings of its own.

    Raises:
        AssertionError: With what the method does and should not.
    """
    kind = METHODS[name]
    _says_what_it_is(kind)
    for one in SPACES.values() if space is None else (space,):
        for check in (_follows_from_seed_and_state, _tells_its_sampler, _learns_from_a_batch):
            check(kind, _supernet(one), settings)


def _supernet(space: SearchSpace) -> SupernetForMaskedLM:
    """A super-net without dropout, in float64: what is added up in another order differs by a hair."""
    config = SupernetConfig(
        search_space=space,
        vocab_size=_VOCAB_SIZE,
        hidden_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = SupernetForMaskedLM(config)
    return cast(SupernetForMaskedLM, supernet.double().train())


def _make_method(
    kind: type[TrainingMethod],
    supernet: SupernetForMaskedLM,
    settings: Mapping[str, Any],
    saved: tuple[Any, bytes] | None = None,
) -> TrainingMethod:
    """A method for a run of `_NUM_STEPS` steps, as training makes it, at its start or as a checkpoint has it."""
    method = kind(
        supernet.space,
        kind.Settings(**settings),
        cost=partial(num_parameters, supernet.config),
        seed=0,
        max_steps=_NUM_STEPS,
    )
    tensors = {}
    if saved is not None:
        state, packed = saved
        resume(method, state, "the method")
        tensors = safetensors.torch.load(packed)
    method.begin(lambda: supernet, tensors)
    return method


def _saved(method: TrainingMethod) -> tuple[Any, bytes]:
    """What a checkpoint holds of a method: its state, and its tensors as a file."""
    tensors = method.tensors()
    are_tensors = isinstance(tensors, Mapping) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in tensors.items()
    )
    require(are_tensors, f"the tensors of the method are {tensors!r:.80}: expected a mapping from names to tensors")
    packed = safetensors.torch.save(apart(tensors))
    return through_json(method.state_dict(), "the method"), packed


def _says_what_it_is(kind: type[TrainingMethod]) -> None:
    require(bool(getattr(kind, "summary", "")), "the method has no summary for --help, tables and docs")
    is_paper = kind.paper is None or isinstance(kind.paper, Paper)
    require(is_paper, f"its paper is {kind.paper!r:.80}: cards cite a Paper, or None")
    is_look = isinstance(kind.look, tuple) and [type(part) for part in kind.look] == [str, str]
    require(is_look, f"its look is {kind.look!r:.80}: figures expect a colour and a marker")
    named = isinstance(kind.terms, tuple) and all(isinstance(term, str) for term in kind.terms)
    require(named, f"its terms are {kind.terms!r}, not a tuple of names")
    for setting in fields(kind.Settings):
        require(bool(setting.metadata.get("help")), f"the setting {setting.name} has no help")


def _follows_from_seed_and_state(
    kind: type[TrainingMethod], supernet: SupernetForMaskedLM, settings: Mapping[str, Any]
) -> None:
    one, straight = (_make_method(kind, supernet, settings) for _ in range(2))
    whole = _run(straight, supernet, range(1, _NUM_STEPS + 1))
    begun = _run(one, supernet, range(1, _NUM_STEPS - 9))
    require(begun == whole[: len(begun)], "two methods of one seed differ: a process would not do as the others do")
    other = _make_method(kind, supernet, settings, _saved(one))
    require(other.shown() == one.shown(), "a method that loaded a state shows another one")
    numbers = range(_NUM_STEPS - 9, _NUM_STEPS + 1)
    require(
        _run(other, supernet, numbers) == whole[len(begun) :],
        "a method that is resumed makes other steps than one that never stopped",
    )
    require(_run(one, supernet, numbers) == whole[len(begun) :], "saving a state changes the next steps")


def _run(method: TrainingMethod, supernet: SupernetForMaskedLM, numbers: Sequence[int]) -> list[Any]:
    """Some steps, as far as they are decided here: children, weights, what is computed, the event, what is shown.

    The scores that it is given fall with the step, so that whatever compares children has something to do.
    """
    found = []
    for number in numbers:
        children = _children(method)
        is_tuple = isinstance(children, tuple) and bool(children)
        require(is_tuple, f"step {number} is not a tuple of one or more children")
        require(
            all(type(child) is Architecture and child in method.space for child in children),
            f"step {number} trains a child that is not in the space",
        )
        require(
            method.passes_per_step >= 3 * len(children),
            f"a step is said to cost {method.passes_per_step} passes, but trains {len(children)} children: a forward "
            "and a backward pass of each are 3",
        )
        weights = [method.weight(place, children) for place in range(len(children))]
        finite = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights)
        require(finite, f"the children of step {number} weigh {weights}: expected finite numbers")
        wants = method.wants(number - 1)
        require(isinstance(wants, Wants), f"step {number} wants {wants!r}: expected a Wants")
        score = partial(_fall, 1000 - number)
        event = method.after_step(number, children, [1.0] * len(children), score, lambda: supernet)
        shown = method.shown()
        are_texts = isinstance(shown, Mapping) and all(isinstance(text, str) for text in shown.values())
        require(are_texts, f"step {number} shows {shown!r:.80}: expected a mapping from names to texts")
        fault = misnamed(method, shown, event)
        require(fault is None, f"step {number} {fault}")
        found.append((children, weights, wants, through_json(event, "the method's log"), shown))
    return found


def _children(method: TrainingMethod) -> tuple[Architecture, ...]:
    """The children of a step; where they are chosen by the batch, each child loses less there than those before."""
    return method.chosen_on(method.children(), lambda children: _fall(0, children, 1))


def _fall(first: int, children: Sequence[Architecture], num_dev_batches: int) -> list[float]:
    """Losses of children, each lower than the one before."""
    return [float(first - place) for place in range(len(children))]


def _tells_its_sampler(kind: type[TrainingMethod], supernet: SupernetForMaskedLM, settings: Mapping[str, Any]) -> None:
    method = _make_method(kind, supernet, settings)
    heard: list[Any] = []
    method.sampler.observe = lambda *what: heard.append(what)  # type: ignore[method-assign]
    children = _children(method)
    losses = [float(place) for place in range(len(children))]
    method.after_step(1, children, losses, partial(_fall, 1000), lambda: supernet)
    require(
        [(tuple(seen), list(their)) for seen, their in heard] == [(children, losses)],
        "after_step does not give children and losses to the sampler: call super().after_step, or sampler.observe",
    )


def _learns_from_a_batch(
    kind: type[TrainingMethod], supernet: SupernetForMaskedLM, settings: Mapping[str, Any]
) -> None:
    """The last steps of a run, where whatever begins late has begun: losses, their gradients, and what is resumed."""
    method, batch = _make_method(kind, supernet, settings), _batch()
    _chooses_rows(method)
    for step in range(_NUM_STEPS - 4, _NUM_STEPS):
        resumed, in_parts = (_make_method(kind, supernet, settings, _saved(method)) for _ in range(2))
        children = _children(method)
        gradient = _gradient(method, supernet, step, children, batch)
        _is_of_the_children(gradient, supernet, children)
        _children(resumed)
        require(
            _are_close(_gradient(resumed, supernet, step, children, batch), gradient, tolerance=0.0),
            "a method that is resumed teaches otherwise than one that never stopped: what loss reads belongs into "
            "state_dict, or into tensors",
        )
        _children(in_parts)
        require(
            _are_close(_gradient(in_parts, supernet, step, children, batch, num_parts=2), gradient, tolerance=1e-3),
            "a batch in two micro-batches gives another gradient than in one: losses and terms are shares of the "
            "step's means (StepContext.share, StepContext.counts)",
        )
        with torch.no_grad():
            for name, parameter in supernet.named_parameters():
                if name in gradient:
                    parameter.sub_(gradient[name], alpha=0.1)
        method.after_step(step + 1, children, [1.0] * len(children), partial(_fall, 1000 - step), lambda: supernet)


def _chooses_rows(method: TrainingMethod) -> None:
    one, other = (method.chosen_rows(_NUM_ROWS) for _ in range(2))
    if one is None:
        return
    is_mask = isinstance(one, torch.Tensor) and (one.dtype, tuple(one.shape)) == (torch.bool, (_NUM_ROWS,))
    require(is_mask, f"chosen_rows({_NUM_ROWS}) is {one!r:.80}: expected a mask of {_NUM_ROWS} booleans, or None")
    require(bool(one.any()), "chosen_rows chooses none")
    is_same = other is not None and torch.equal(one, other)
    require(is_same, "chosen_rows chooses other rows when it is asked again: processes would not choose alike")


def _gradient(
    method: TrainingMethod,
    supernet: SupernetForMaskedLM,
    step: int,
    children: Sequence[Architecture],
    batch: Batch,
    *,
    num_parts: int = 1,
) -> dict[str, torch.Tensor]:
    """What a training step makes of a batch, by the name of the parameter."""
    arguments = SupernetTrainingArguments(
        output_dir="", per_device_train_batch_size=_NUM_ROWS // num_parts, gradient_accumulation_steps=num_parts
    )
    training = TrainingStep(supernet, supernet, cast(Accelerator, _Alone()), arguments, method)
    try:
        with torch.random.fork_rng(devices=[]):
            losses = training.backward(step, children, batch, is_stopping=False)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        words = f"the loss of step {step + 1} cannot be learned from ({type(error).__name__}: {error})"
        raise AssertionError(words) from error
    odd = next((name for name, value in losses.terms.items() if not math.isfinite(value)), None)
    require(odd is None, f"the term {odd} of step {step + 1} is not finite")
    gradient = {name: one.grad for name, one in supernet.named_parameters() if one.grad is not None}
    supernet.zero_grad(set_to_none=True)
    return gradient


class _Alone:
    """The one process of a step, as `Accelerator` describes it; a real one would decide for all that runs here."""

    num_processes, process_index, is_main_process = 1, 0, True
    device = torch.device("cpu")

    def autocast(self) -> AbstractContextManager[None]:
        """Full precision."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]


def _batch() -> Batch:
    """Sequences of unlike length, with unlike numbers of tokens to predict."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, _VOCAB_SIZE, (_NUM_ROWS, _LENGTH), generator=generator)
    place = torch.arange(_LENGTH)
    mask = place < torch.tensor([12, 9, 6, 3])[:, None]
    labelled = mask & (place % 3 < torch.tensor([2, 2, 1, 1])[:, None])
    return {
        "input_ids": torch.where(mask, input_ids, 0),
        "attention_mask": mask.long(),
        "labels": torch.where(labelled, input_ids, -100),
    }


def _is_of_the_children(
    gradient: Mapping[str, torch.Tensor], supernet: SupernetForMaskedLM, children: Sequence[Architecture]
) -> None:
    require(any(bool(one.any()) for one in gradient.values()), "the losses have no gradient")
    odd = next((name for name, one in gradient.items() if not one.isfinite().all()), None)
    require(odd is None, f"the gradient of {odd} is not finite")
    trained = {id(parameter) for child in children for parameter in supernet.parameters_of(child)}
    named = dict(supernet.named_parameters())
    stray = next((name for name in gradient if id(named[name]) not in trained), None)
    require(
        stray is None,
        f"{stray} has a gradient, and no child of the step has it: whatever teaches is a constant (torch.no_grad)",
    )


def _are_close(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], *, tolerance: float) -> bool:
    """Whether two gradients differ by no more than a share of the larger one's largest number."""
    largest = max(float(tensor.abs().max()) for tensor in other.values())
    return one.keys() == other.keys() and all(
        float((one[name] - tensor).abs().max()) <= tolerance * largest for name, tensor in other.items()
    )
