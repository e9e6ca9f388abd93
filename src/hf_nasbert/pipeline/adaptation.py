"""Children of a super-net trained alone from the weights they inherit, for few steps or to the end, by the farm."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hf_nasbert.data import Corpus, MaskedBatches, digest_of
from hf_nasbert.elastic.distance import Target
from hf_nasbert.elastic.encoders import encoder_of, running
from hf_nasbert.elastic.scores import score_model
from hf_nasbert.extraction import extract_child, load_supernet
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.pipeline.largest_child import IGNORED, LargestChild, whole
from hf_nasbert.records import Record, versions
from hf_nasbert.space import SearchSpace
from hf_nasbert.teachers import mask_of, read_child
from hf_nasbert.training.arguments import ChildRecipe
from hf_nasbert.training.standalone import descend, make_optimizer, set_learning_rate

Batch = Mapping[str, torch.Tensor]

_MOST_KEPT = 128  # training batches whose targets are kept for the next child: those of an adaptation


class AdaptationTrainer:
    """Trains children of one super-net alone, all on the same batches, and tells their dev loss.

    Where the super-net predicts masked words its children learn from the words; in that of a base model they learn, as
    in `compress`, from the states of the largest child, which is the base model (`recipe.is_taught`), with the
    embeddings that all share left alone and without dropout. The same child and recipe give the same record on the
    same machine, the `timing` aside.

    Args:
        folder: The super-net's.
        digest: What its weights are known by.
        recipe: How children are trained.
        corpus: Packed text with its tokenizer.
        dev_batches: What children are judged on, as the super-net's scores are.
        masking: `mlm_probability` and `whole_word_mask`.
        device: `"cpu"` or `"cuda"`.
    """

    def __init__(
        self,
        folder: str | Path,
        digest: str,
        recipe: ChildRecipe,
        corpus: Corpus,
        dev_batches: Sequence[Batch],
        *,
        masking: Mapping[str, Any],
        device: str = "cpu",
    ) -> None:
        self.folder, self.digest, self.recipe, self.corpus = Path(folder), digest, recipe, corpus
        self.dev_batches, self.masking, self.device = list(dev_batches), dict(masking), device

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker without the super-net, which it loads itself."""
        given = (self.folder, self.digest, self.recipe, self.corpus, self.dev_batches, self.masking, self.device)
        return _make_trainer, given

    @cached_property
    def supernet(self) -> SupernetPreTrainedModel:
        """The super-net."""
        supernet = load_supernet(self.folder, None)
        supernet.eval()
        torch.nn.Module.to(supernet, self.device)
        return supernet

    @property
    def space(self) -> SearchSpace:
        """The space of all its children."""
        return self.supernet.space

    @cached_property
    def batches(self) -> MaskedBatches:
        """The training batches, the same for all children."""
        return MaskedBatches(
            self.corpus.train, self.corpus.tokenizer, batch_size=self.recipe.batch_size, seed=self.recipe.seed,
            **self.masking,
        )  # fmt: skip

    @cached_property
    def described(self) -> Record:
        """Everything but the architecture that a child's loss depends on, in plain JSON types."""
        text = self.batches.describe()
        names = ("dataset", "sequence_length", "mlm_probability", "whole_word_mask")
        return {
            "supernet": self.digest, **asdict(self.recipe), **{name: text[name] for name in names},
            "dev": digest_of(self.dev_batches),
        }  # fmt: skip

    @property
    def recipe_hash(self) -> str:
        """A short name for the recipe: equal recipes have equal hashes."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def passes(self) -> float:
        """What a child takes: forwards over a training batch, of which a backward counts two.

        The teacher's own come on top: one a step for the first child of each worker, as for all behind step 128.
        """
        num_judged = sum(len(batch["input_ids"]) for batch in self.dev_batches)
        return 3 * self.recipe.num_steps + num_judged / self.recipe.batch_size

    def train(
        self, architecture: Sequence[str], seed: int, on_step: Callable[[int], None] = lambda step: None
    ) -> Record:
        """Train a child and describe what came of it.

        Args:
            architecture: The child.
            seed: Of dropout, and of fresh weights where nothing is inherited.
            on_step: Called before every step; an exception out of it ends the training.

        Raises:
            ValueError: If the architecture is not in the space, or its dev loss is not finite.
        """
        start, cpu_start = time.perf_counter(), time.process_time()
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device == "cuda" else []):
            torch.manual_seed(seed)
            child = self._child(architecture)
            self._fit(child, on_step)
            loss = self._dev_loss(child)
        if not math.isfinite(loss):
            rate = self.recipe.learning_rate
            raise ValueError(f"the dev loss of {'-'.join(architecture)} is {loss}: lower the learning rate, {rate}")
        return {
            "architecture": "-".join(architecture),
            "seed": seed,
            "dev_loss": loss,
            "passes": self.passes,
            "num_parameters": sum(parameter.numel() for parameter in child.parameters()),
            "recipe_hash": self.recipe_hash,
            "recipe": self.described,
            "versions": versions(),
            "timing": {
                "cpu_seconds": round(time.process_time() - cpu_start, 2),
                "seconds": round(time.perf_counter() - start, 2),
            },
        }

    def _child(self, architecture: Sequence[str]) -> NasBertPreTrainedModel:
        child = extract_child(self.supernet, architecture)
        if not self.recipe.is_inherited:
            child = type(child)(child.config)
            torch.nn.Module.to(child, self.device)
        if isinstance(self.supernet, SupernetForMaskedLM):
            child.config.sparse_prediction = True
        return child

    def _fit(self, child: NasBertPreTrainedModel, on_step: Callable[[int], None]) -> None:
        optimizer = make_optimizer(child, self.recipe)
        if self.recipe.is_taught:
            encoder_of(child).embeddings.requires_grad_(False)
        child.train(not self.recipe.is_taught)
        for step in range(self.recipe.num_steps):
            on_step(step)
            set_learning_rate(optimizer, self.recipe.learning_rate_at(step))
            loss = self._lesson(child, step) if self.recipe.is_taught else child(**self._placed(step)).loss
            descend(loss, child, optimizer, self.recipe.max_grad_norm)

    def _placed(self, step: int) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in self.batches.batch(step).items()}

    def _lesson(self, child: NasBertPreTrainedModel, step: int) -> torch.Tensor:
        """How far a child is from the teacher on a training batch."""
        batch = whole(self._placed(step))
        target = self._taught.get(step) or self._largest.target(batch)
        if step < _MOST_KEPT:
            self._taught[step] = target
        made = read_child(child, batch, logits=target.logits is not None)
        assert made.hidden_states is not None
        states = made.hidden_states[-1]
        logits = None if target.logits is None else made.logits
        distance = self._largest.distance
        return distance.total(distance.parts(states, mask_of(batch, states), target, logits))

    def _dev_loss(self, child: NasBertPreTrainedModel) -> float:
        """The loss that the super-net's children are scored by."""
        if not isinstance(self.supernet, SupernetForMaskedLM):
            largest = self._largest
            return score_model(child, largest.batches, largest.targets, largest.distance).loss
        total, num_labels = 0.0, 0
        with running(child):
            for batch in self.dev_batches:
                count = int((batch["labels"] != IGNORED).sum())
                placed = {name: tensor.to(self.device) for name, tensor in batch.items()}
                total += count * float(child(**placed).loss) if count else 0.0
                num_labels += count
        return total / num_labels

    @cached_property
    def _largest(self) -> LargestChild:
        return LargestChild(self.supernet, self.dev_batches)

    @cached_property
    def _taught(self) -> dict[int, Target]:
        """What the largest child makes of the first training batches, by step."""
        return {}


def _make_trainer(
    folder: Path,
    digest: str,
    recipe: ChildRecipe,
    corpus: Corpus,
    dev_batches: Sequence[Batch],
    masking: Mapping[str, Any],
    device: str,
) -> AdaptationTrainer:
    return AdaptationTrainer(folder, digest, recipe, corpus, dev_batches, masking=masking, device=device)
