"""Train one child alone, from scratch, by one fixed recipe: the ground truth for a super-net's ranking."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from hf_nasbert.costs import flops
from hf_nasbert.data import Corpus, MaskedBatches, fixed_masked_batches
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.data.vocabulary import padding_id, vocabulary_size
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig
from hf_nasbert.records import Record, versions
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.training.arguments import ChildRecipe, StandaloneArguments

Batch = dict[str, torch.Tensor]

_SIZES = ("hidden_size", "ffn_ratio", "attention_head_size", "num_conv_layers", "hidden_dropout_prob")


@dataclass(frozen=True)
class StandaloneTrainer:
    """Trains children of one space on one text by one recipe.

    The same architecture and seed give the same record on the same machine, to the bit on a CPU at one torch thread;
    the `timing` entry aside. The seed decides the initial weights, the order of the text and the masks, on a GPU the
    same ones as on a CPU; the dev set is the same for all.

    Args:
        arguments: Space, sizes and recipe.
        corpus: Packed text with its tokenizer.
        data_seed: Seed of the fixed dev set.
        source: The name of the text, for readers of the records.
        device: Where children are trained, `"cpu"` or `"cuda"`: one of the GPUs, of which every worker has its own as
            far as they go round.
    """

    arguments: StandaloneArguments
    corpus: Corpus
    data_seed: int = field(default=0, kw_only=True)
    source: str = field(default="", kw_only=True)
    device: str = field(default="cpu", kw_only=True)

    def __post_init__(self) -> None:
        _ = self.config  # what no child can be built by is refused here

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a worker without what it can compute itself."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the children."""
        return self.arguments.build_space()

    @cached_property
    def config(self) -> SupernetConfig:
        """The super-net's configuration whose children these are."""
        return SupernetConfig(
            search_space=self.space,
            vocab_size=vocabulary_size(self.corpus.tokenizer),
            pad_token_id=padding_id(self.corpus.tokenizer),
            max_position_embeddings=self.train_batches(0).sequence_length,
            attention_probs_dropout_prob=self.arguments.hidden_dropout_prob,
            **{name: getattr(self.arguments, name) for name in _SIZES},
        )

    @cached_property
    def dev_batches(self) -> list[Batch]:
        """The fixed dev set."""
        number, size = self.arguments.num_dev_batches, self.arguments.dev_batch_size
        return fixed_masked_batches(self.corpus.dev, self.corpus.tokenizer, number, size, self.data_seed)

    @cached_property
    def _placed_dev_batches(self) -> list[Batch]:
        return [_place(batch, torch.device(self.device)) for batch in self.dev_batches]

    def train_batches(self, seed: int) -> MaskedBatches:
        """The training batches of a seed."""
        return MaskedBatches(
            self.corpus.train, self.corpus.tokenizer, batch_size=self.arguments.train_batch_size, seed=seed
        )

    @cached_property
    def recipe(self) -> Record:
        """Everything but architecture and seed that a child's loss depends on, in plain JSON types."""
        data = self.train_batches(0).describe()
        dev = hashlib.sha256(b"".join(batch["input_ids"].numpy().tobytes() for batch in self.dev_batches))
        settings = asdict(self.arguments)
        for name in ("blocks", "eval_steps", "num_curve_batches"):  # the space says the one, the others change no loss
            del settings[name]
        return {
            "space": self.space.to_dict(),
            **settings,
            "source": self.source,
            "text": data["dataset"],
            "dev": dev.hexdigest()[:16],
            "tokenizer": tokenizer_digest(self.corpus.tokenizer)[:16],
            **{name: data[name] for name in ("vocab_size", "sequence_length", "mlm_probability", "whole_word_mask")},
        }

    @cached_property
    def recipe_hash(self) -> str:
        """A short name for the recipe: equal recipes have equal hashes."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:12]

    def train(
        self, architecture: Sequence[str], seed: int, on_step: Callable[[int], None] = lambda step: None
    ) -> Record:
        """Train a child and describe what came of it.

        Args:
            architecture: The child, a member of the space.
            seed: Seed of weights, text order and masks.
            on_step: Called before every step; an exception out of it ends the training.

        Returns:
            The child's record, plain JSON types.

        Raises:
            ValueError: If the architecture is not in the space, or the training diverged.
        """
        architecture = self.space.validate(architecture)
        arguments, config = self.arguments, self.config
        start, cpu_start = time.perf_counter(), time.process_time()
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device == "cuda" else []):
            torch.manual_seed(seed)
            # A captured graph has fixed shapes, and the number of labelled positions varies: the same loss either way.
            child_config = _child_config(config, architecture, sparse_prediction=self.device == "cpu")
            child = NasBertForMaskedLM(child_config).train().to(self.device)
            few = self._placed_dev_batches[: arguments.num_curve_batches]
            curve = fit(child, arguments, self.train_batches(seed), few, on_step=on_step)
            loss = dev_loss(child, self._placed_dev_batches)
        return {
            "architecture": str(architecture),
            "seed": seed,
            "dev_loss": loss,
            "curve": curve,
            "num_parameters": sum(parameter.numel() for parameter in child.parameters()),
            "flops": flops(config, architecture, sequence_length=config.max_position_embeddings),
            "recipe_hash": self.recipe_hash,
            "recipe": self.recipe,
            "versions": versions(),
            "timing": {
                "cpu_seconds": round(time.process_time() - cpu_start, 2),
                "seconds": round(time.perf_counter() - start, 2),
            },
        }


def fit(
    model: NasBertForMaskedLM,
    arguments: StandaloneArguments,
    batches: MaskedBatches,
    dev_batches: Iterable[Batch],
    *,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[list[float]]:
    """Run the recipe on a model; returns its learning curve, pairs of step and dev loss, the last step included.

    On a GPU a small child's step is hundreds of kernels that take longer to launch than to run, so the whole step is
    captured once as a CUDA graph and launched as one.

    Raises:
        ValueError: If the dev loss is not finite.
    """
    optimizer, device = make_optimizer(model, arguments), model.device

    def train_on(batch: Batch) -> None:
        # Packed text has no padding, so there is no attention mask to give.
        loss = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        descend(loss, model, optimizer, arguments.max_grad_norm)

    take_step = _captured(train_on, optimizer, _place(batches.batch(0), device)) if device.type == "cuda" else train_on
    curve = []
    for step in range(arguments.max_steps):
        on_step(step)
        set_learning_rate(optimizer, arguments.learning_rate_at(step))
        take_step(batches.batch(step))
        done = step + 1
        if done % arguments.eval_steps == 0 or done == arguments.max_steps:
            loss = dev_loss(model, dev_batches)
            if not math.isfinite(loss):
                raise ValueError(f"the dev loss is {loss} after {done} steps: lower the learning_rate")
            curve.append([done, loss])
    return curve


def make_optimizer(model: torch.nn.Module, arguments: StandaloneArguments | ChildRecipe) -> torch.optim.AdamW:
    """AdamW as in BERT: no decay of biases and normalisations. On a GPU its steps can be captured in a graph."""
    parameters = list(model.parameters())
    device = parameters[0].device
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": arguments.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    is_on_gpu = device.type == "cuda"
    return torch.optim.AdamW(
        groups,
        lr=torch.tensor(arguments.learning_rate, device=device) if is_on_gpu else arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        fused=True,
        capturable=is_on_gpu,
    )


def set_learning_rate(optimizer: torch.optim.AdamW, learning_rate: float) -> None:
    """Set the learning rate of the next step; in place where a captured graph reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def descend(loss: torch.Tensor, model: torch.nn.Module, optimizer: torch.optim.AdamW, max_grad_norm: float) -> None:
    """Move a model down the clipped gradient of a loss."""
    loss.backward()  # type: ignore[no-untyped-call]
    clip_grad_norm_([p for p in model.parameters() if p.grad is not None], max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _captured(
    train_on: Callable[[Batch], None], optimizer: torch.optim.AdamW, example: Batch
) -> Callable[[Batch], None]:
    """A training step as one CUDA graph, for batches of the example's shape; nothing is trained by capturing it."""
    set_learning_rate(optimizer, 0.0)  # moves no parameter, so that warming up leaves a trace in the moments only
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # whatever is made at a first call is made here
            train_on(example)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train_on(example)
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()

    def replay(batch: Batch) -> None:
        for name, place in example.items():
            place.copy_(batch[name], non_blocking=True)
        graph.replay()

    return replay


def _place(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.no_grad()
def dev_loss(model: torch.nn.Module, batches: Iterable[Batch]) -> float:
    """The mean masked-LM loss per labelled token over all batches."""
    was_training = model.training
    model.eval()
    total, num_labels = 0.0, 0
    for batch in batches:
        count = int((batch["labels"] != -100).sum())
        total += count * float(model(input_ids=batch["input_ids"], labels=batch["labels"]).loss)
        num_labels += count
    model.train(was_training)
    return total / num_labels


def _child_config(config: SupernetConfig, architecture: Architecture, *, sparse_prediction: bool) -> NasBertConfig:
    sizes = (*_SIZES, "vocab_size", "pad_token_id", "max_position_embeddings", "attention_probs_dropout_prob")
    return NasBertConfig(
        operators=list(architecture),
        sparse_prediction=sparse_prediction,
        **{name: getattr(config, name) for name in sizes},
    )
