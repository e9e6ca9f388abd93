"""What searches and rankings have trained: children of one super-net, on the farm's workers, each once and on file."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from hf_nasbert.data import Corpus, DataArguments, MaskedBatches, digest_of, load_corpus
from hf_nasbert.data.trained_on import MASKING
from hf_nasbert.elastic.distance import Target
from hf_nasbert.elastic.encoders import encoder_of, running
from hf_nasbert.elastic.scores import score_model
from hf_nasbert.extraction import extract_child, load_supernet, load_supernet_config
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.pipeline.largest_child import IGNORED, Batch, LargestChild, whole
from hf_nasbert.pipeline.text_settings import find_tokenizer
from hf_nasbert.records import Record, versions
from hf_nasbert.searching import OperatorRidge, Prices
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.teachers import mask_of, read_child
from hf_nasbert.training.arguments import AdaptationArguments, ChildRecipe
from hf_nasbert.training.farm import run_farm
from hf_nasbert.training.standalone import descend, make_optimizer, set_learning_rate

_MOST_KEPT = 128  # training batches whose targets are kept for the next child: those of an adaptation


@dataclass(frozen=True)
class ChildTrainer:
    """Trains children of one super-net alone, all on the same batches, and reports their dev loss.

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

    folder: str | Path
    digest: str
    recipe: ChildRecipe
    corpus: Corpus
    dev_batches: Sequence[Batch]
    masking: Mapping[str, Any]
    device: str = "cpu"

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a worker without what it loads itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def supernet(self) -> SupernetPreTrainedModel:
        """The super-net."""
        supernet = load_supernet(self.folder, None)
        torch.nn.Module.to(supernet.eval(), self.device)
        return supernet

    @cached_property
    def space(self) -> SearchSpace:
        """The space of all its children."""
        return load_supernet_config(self.folder).space

    @cached_property
    def batches(self) -> MaskedBatches:
        """The training batches, the same for all children."""
        size, seed = self.recipe.batch_size, self.recipe.seed
        return MaskedBatches(self.corpus.train, self.corpus.tokenizer, batch_size=size, seed=seed, **self.masking)

    @cached_property
    def described(self) -> Record:
        """Everything but the architecture that a child's loss depends on, in plain JSON types."""
        text = self.batches.describe()
        of_text = {name: text[name] for name in ("dataset", "sequence_length", *MASKING)}
        return {"supernet": self.digest, **asdict(self.recipe), **of_text, "dev": digest_of(self.dev_batches)}

    @property
    def recipe_hash(self) -> str:
        """A short name for the recipe: equal recipes have equal hashes."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:12]

    def train(
        self, architecture: Sequence[str], seed: int, on_step: Callable[[int], None] = lambda step: None
    ) -> Record:
        """Train a child and describe what came of it.

        Its `passes` are forwards over a training batch, of which a backward counts two; those of the teacher, one a
        step for the first child of each worker, come on top.

        Args:
            architecture: The child.
            seed: Of dropout, and of fresh weights where nothing is inherited.
            on_step: Called before every step; an exception out of it ends the training.

        Raises:
            ValueError: If the architecture is not in the space, or its dev loss is not finite.
        """
        start, cpu_start, recipe = time.perf_counter(), time.process_time(), self.recipe
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device == "cuda" else []):
            torch.manual_seed(seed)
            child = extract_child(self.supernet, architecture)
            if not recipe.is_inherited:
                child = type(child)(child.config)
                torch.nn.Module.to(child, self.device)
            child.config.sparse_prediction = isinstance(self.supernet, SupernetForMaskedLM)
            self._fit(child, on_step)
            loss = self._dev_loss(child)
        name = "-".join(architecture)
        if not math.isfinite(loss):
            raise ValueError(f"the dev loss of {name} is {loss}: lower the learning rate, {recipe.learning_rate}")
        seconds = {"cpu_seconds": time.process_time() - cpu_start, "seconds": time.perf_counter() - start}
        return {
            "architecture": name,
            "seed": seed,
            "dev_loss": loss,
            "passes": 3 * recipe.num_steps + _num_sequences(self.dev_batches) / recipe.batch_size,
            "num_parameters": sum(parameter.numel() for parameter in child.parameters()),
            "recipe_hash": self.recipe_hash,
            "recipe": self.described,
            "versions": versions(),
            "timing": {what: round(number, 2) for what, number in seconds.items()},
        }

    def _fit(self, child: NasBertPreTrainedModel, on_step: Callable[[int], None]) -> None:
        recipe = self.recipe
        optimizer = make_optimizer(child, recipe)
        if recipe.is_taught:
            encoder_of(child).embeddings.requires_grad_(False)
        child.train(not recipe.is_taught)
        for step in range(recipe.num_steps):
            on_step(step)
            set_learning_rate(optimizer, recipe.learning_rate_at(step))
            batch = {name: tensor.to(self.device) for name, tensor in self.batches.batch(step).items()}
            loss = self._lesson(child, step, whole(batch)) if recipe.is_taught else child(**batch).loss
            descend(loss, child, optimizer, recipe.max_grad_norm)

    def _lesson(self, child: NasBertPreTrainedModel, step: int, batch: Batch) -> torch.Tensor:
        """How far a child is from the teacher on a training batch."""
        target = self._taught.get(step) or self._largest.target(batch)
        if step < _MOST_KEPT:
            self._taught[step] = target
        made = read_child(child, batch, logits=target.logits is not None)
        assert made.hidden_states is not None
        states, logits = made.hidden_states[-1], None if target.logits is None else made.logits
        distance = self._largest.distance
        return distance.total(distance.parts(states, mask_of(batch, states), target, logits))

    def _dev_loss(self, child: NasBertPreTrainedModel) -> float:
        """The loss that the super-net's children are scored by."""
        if not isinstance(self.supernet, SupernetForMaskedLM):
            return score_model(child, self._largest.batches, self._largest.targets, self._largest.distance).loss
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


@dataclass(frozen=True)
class ChildTrainings:
    """Trainings of children of one super-net, each in a file of records beside the output.

    A killed run goes on with the same call: what is on file is not trained again.

    Args:
        arguments: How children are adapted, and by how many workers.
        supernet: The super-net.
        folder: Its folder.
        digest: What its weights are known by.
        data: The text, of which its own tokenizer cuts the part that is not held out.
        dev_batches: What children are judged on.
        output: The file whose name those of the records begin with.
        child_steps: Steps of a training to the end: with fresh weights where children learn from words, else with
            those they inherit.
        child_learning_rate: Its highest learning rate; None takes the usual one.
    """

    arguments: AdaptationArguments
    supernet: SupernetPreTrainedModel
    folder: str
    digest: str
    data: DataArguments
    dev_batches: Sequence[Batch]
    output: str
    child_steps: int = 0
    child_learning_rate: float | None = None

    @property
    def prices(self) -> Prices:
        """What scoring, adapting and training a child take, in passes."""
        judged = _num_sequences(self.dev_batches) / self.arguments.adapt_batch_size
        return Prices(score=judged, step=3.0, judge=judged, training=3.0 * self.child_steps + judged)

    def recipe(self, num_steps: int) -> ChildRecipe:
        """How children are adapted for so many steps: in the super-net of a base model that model teaches them."""
        is_taught = (
            not isinstance(self.supernet, SupernetForMaskedLM) or self.supernet.config.weight_layout == "nested"
        )
        rate, size = self.arguments.adapt_learning_rate, self.arguments.adapt_batch_size
        rate = rate or (5e-4 if is_taught else 3e-3)
        return ChildRecipe(num_steps=num_steps, learning_rate=rate, batch_size=size, is_taught=is_taught)

    def adapt(self, children: Sequence[Architecture], num_steps: int) -> list[float]:
        """The dev losses of children after so many steps from inherited weights."""
        return self._losses(children, self.recipe(num_steps), f"adapted-{num_steps}")

    def train(self, children: Sequence[Architecture]) -> list[float]:
        """The dev losses of children trained to the end."""
        recipe, warmup = self.recipe(self.child_steps), max(1, self.child_steps // 10)
        rate = self.child_learning_rate or (5e-4 if recipe.is_taught else 2e-3)
        recipe = replace(recipe, learning_rate=rate, falls=True, is_inherited=recipe.is_taught, warmup_steps=warmup)
        return self._losses(children, recipe, f"alone-{self.child_steps}")

    def fit(self, model: OperatorRidge, children: Sequence[Architecture]) -> OperatorRidge:
        """Adapt some children, and have a model predict by them how all others would do."""
        return model.fit(children, self.adapt(children, self.arguments.adapt_steps))

    def _losses(self, children: Sequence[Architecture], recipe: ChildRecipe, name: str) -> list[float]:
        tokenizer = str(self.data.tokenizer_name or find_tokenizer(self.folder))
        dev_batches = [{key: tensor.cpu() for key, tensor in batch.items()} for batch in self.dev_batches]
        corpus = load_corpus(replace(self.data, tokenizer_name=tokenizer))
        masking = {setting: getattr(self.data, setting) for setting in MASKING}
        device = PartialState().device.type
        trainer = ChildTrainer(self.folder, self.digest, recipe, corpus, dev_batches, masking, device)
        path = Path(f"{self.output.removesuffix('.jsonl')}.{name}.jsonl")
        jobs = [(child, 0) for child in children]
        table = run_farm(trainer, jobs, path, num_workers=self.arguments.num_workers, progress=True)
        loss_of = {job.architecture: record["dev_loss"] for job, record in table.items()}
        return [loss_of[child] for child in children]


def _num_sequences(batches: Sequence[Batch]) -> int:
    return sum(len(batch["input_ids"]) for batch in batches)
