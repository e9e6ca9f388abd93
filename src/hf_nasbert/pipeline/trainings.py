"""What searches and rankings have trained: children of one super-net, on the farm's workers, each once and on file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.data.trained_on import MASKING
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.pipeline.adaptation import AdaptationTrainer
from hf_nasbert.pipeline.text_settings import find_tokenizer
from hf_nasbert.search import AdditiveModel, Predict, Prices
from hf_nasbert.space import Architecture, Candidates
from hf_nasbert.training.arguments import AdaptationArguments, ChildRecipe
from hf_nasbert.training.farm import run_farm

_RATES = {"labels": 3e-3, "largest_child": 5e-4}
_WHOLE_RATES = {"labels": 2e-3, "largest_child": 5e-4}


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
    dev_batches: Sequence[Mapping[str, torch.Tensor]]
    output: str
    child_steps: int = 0
    child_learning_rate: float | None = None

    @property
    def teacher(self) -> str:
        """Whom children learn from: `labels` or `largest_child`.

        Raises:
            ValueError: If they are to learn from words that no head predicts.
        """
        has_words, asked = isinstance(self.supernet, SupernetForMaskedLM), self.arguments.adapt_teacher
        if asked == "labels" and not has_words:
            raise ValueError(f"adapt_teacher=labels: {self.folder} predicts no words; its largest child can teach")
        if asked == "auto":
            return "labels" if has_words and self.supernet.config.weight_layout != "nested" else "largest_child"
        return asked

    @property
    def prices(self) -> Prices:
        """What scoring, adapting and training a child take, in passes."""
        judged = sum(len(batch["input_ids"]) for batch in self.dev_batches) / self.arguments.adapt_batch_size
        return Prices(score=judged, step=3.0, judge=judged, training=3.0 * self.child_steps + judged)

    def adapt(self, children: Sequence[Architecture], num_steps: int) -> list[float]:
        """The dev losses of children after so many steps from inherited weights."""
        rate = self.arguments.adapt_learning_rate or _RATES[self.teacher]
        return self._losses(children, self._recipe(num_steps, rate), f"adapted-{num_steps}")

    def train(self, children: Sequence[Architecture]) -> list[float]:
        """The dev losses of children trained to the end."""
        rate = self.child_learning_rate or _WHOLE_RATES[self.teacher]
        recipe = replace(
            self._recipe(self.child_steps, rate), falls=True, is_inherited=self.teacher != "labels",
            warmup_steps=max(1, self.child_steps // 10),
        )  # fmt: skip
        return self._losses(children, recipe, f"alone-{self.child_steps}")

    def fit(self, children: Sequence[Architecture], space: Candidates) -> Predict:
        """Adapt some children; what foretells by them how all others would do."""
        losses = self.adapt(children, self.arguments.adapt_steps)
        return AdditiveModel(space.blocks).fit(children, losses).predict

    def describe(self) -> dict[str, Any]:
        """What adapted losses depend on beside the super-net and the text, in plain JSON types."""
        given = self.arguments
        return {
            "learning_rate": given.adapt_learning_rate or _RATES[self.teacher],
            "batch_size": given.adapt_batch_size, "teacher": self.teacher,
        }  # fmt: skip

    def _recipe(self, num_steps: int, learning_rate: float) -> ChildRecipe:
        return ChildRecipe(
            num_steps=num_steps,
            learning_rate=learning_rate,
            batch_size=self.arguments.adapt_batch_size,
            is_taught=self.teacher == "largest_child",
        )

    def _losses(self, children: Sequence[Architecture], recipe: ChildRecipe, name: str) -> list[float]:
        tokenizer = self.data.tokenizer_name or find_tokenizer(self.folder)
        trainer = AdaptationTrainer(
            self.folder,
            self.digest,
            recipe,
            load_corpus(replace(self.data, tokenizer_name=str(tokenizer))),
            [{key: tensor.cpu() for key, tensor in batch.items()} for batch in self.dev_batches],
            masking={setting: getattr(self.data, setting) for setting in MASKING},
            device=PartialState().device.type,
        )
        path = Path(f"{self.output.removesuffix('.jsonl')}.{name}.jsonl")
        table = run_farm(
            trainer, [(child, 0) for child in children], path, num_workers=self.arguments.num_workers, progress=True
        )
        loss_of = {job.architecture: record["dev_loss"] for job, record in table.items()}
        return [loss_of[child] for child in children]
