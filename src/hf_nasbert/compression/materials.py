"""What the stages of a compression stand on: model, text, states, super-net, scorers, each made when first needed."""

import copy
import hashlib
import math
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import load_base_model
from hf_nasbert.compression.encoder_costs import EncoderCost
from hf_nasbert.compression.proof import Judge, read_pairs
from hf_nasbert.compression.recover import Recovery, RecoverySettings, distil_supernet, recover
from hf_nasbert.compression.replace_one import Replacement, screened
from hf_nasbert.compression.sentences import PARTS, Batch, Sentences, load_sentences, num_tokens
from hf_nasbert.compression.stages import TrainedSupernet, Variants
from hf_nasbert.compression.states import TeacherStates, teacher_states
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import LatencyTable
from hf_nasbert.elastic.base_models import BaseModel
from hf_nasbert.elastic.distance import Distance, Pooling
from hf_nasbert.elastic.importance import sort_by_importance
from hf_nasbert.elastic.refit import refit
from hf_nasbert.elastic.scores import Scorer
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules
from hf_nasbert.space import Architecture, SearchSpace

_NUM_CHOOSING, _NUM_JUDGING = 192, 512  # sentences
_CALIBRATION_TOKENS = 20_000
_SAVE_STEPS = 100
_SUPERNET_SEED = 0


class Materials:
    """What stages share; a later call of the same compression makes the same again, or reads it.

    Args:
        arguments: What is asked.
        source: The text.
        work: Folder of what is kept between calls.

    Attributes:
        variants: What the stage `variants` made; needed by the super-net.
        table: The lone replacements; needed by searches.
        bf16: Whether products are taken in bfloat16.
        latency_table: Latencies of operators here, where a latency is capped.
    """

    variants: Variants
    table: list[Replacement]
    bf16: bool
    latency_table: LatencyTable | None = None

    def __init__(self, arguments: CompressArguments, source: TextSource, work: Path) -> None:
        self.arguments, self.source, self.work = arguments, source, work

    @cached_property
    def base(self) -> BaseModel:
        """The base model."""
        found = load_base_model(self.arguments, self.source.tokenizer_name, self.source.tokenizer_revision)
        nn.Module.to(found.full_child, "cuda" if torch.cuda.is_available() else "cpu")
        return found

    @cached_property
    def modules(self) -> SentenceModules:
        """What makes vectors of sentences: the base model's own, or the mean of the tokens."""
        return self.base.modules or SentenceModules()

    @cached_property
    def max_length(self) -> int:
        """Tokens of a sentence, no more than the base model's SentenceTransformer takes."""
        return min(self.arguments.max_seq_length, self.modules.max_seq_length or sys.maxsize)

    @cached_property
    def space(self) -> SearchSpace:
        """What can be cut out of the base model."""
        asked = self.arguments
        return elastic_space(
            self.base.full_child, heads=asked.heads, ffn=asked.ffn, kernels=asked.kernels, skip=asked.skip
        )

    @cached_property
    def text(self) -> Sentences:
        """Sentences in batches."""
        documents = self.source.load()
        if self.modules.do_lower_case:
            documents = documents.map(_lower_case, batched=True, input_columns="text", desc="lower case")
        return load_sentences(
            documents, self.base.tokenizer, num_train=self.arguments.num_sentences, num_choosing=_NUM_CHOOSING,
            num_judging=_NUM_JUDGING, held_out=self.source.held_out, batch_size=self.arguments.batch_size,
            max_length=self.max_length, seed=self.source.seed, cache_dir=self.work / "text",
        )  # fmt: skip

    @cached_property
    def calibration(self) -> list[Batch]:
        """Batches that importance and variants are measured on."""
        found: list[Batch] = []
        for batch in self.text.train:
            if num_tokens(found) >= _CALIBRATION_TOKENS:
                break
            found.append(batch)
        return found

    @cached_property
    def states(self) -> dict[str, TeacherStates]:
        """What the base model makes of every part."""
        return {
            part: teacher_states(
                self.base.full_child, getattr(self.text, part), self.work / "states" / part, progress=True
            )
            for part in PARTS
        }

    @cached_property
    def distance(self) -> Distance:
        """How far a child is from the base model."""
        pooling: Pooling = "cls" if self.modules.pooling == ("cls",) else "mean"
        return Distance.of(self.base.full_child, self.states["train"].mean, pooling=pooling)

    @cached_property
    def supernet(self) -> SupernetPreTrainedModel:
        """The super-net of the base model, its heads and neurons sorted, its variants refitted."""
        supernet = self.sorted(self.variants.importance)
        self.refit(supernet)
        return supernet

    @cached_property
    def judge(self) -> Judge:
        """Judges models on text that chose nothing, and on the pairs."""
        pairs = self.arguments.pairs_file
        longest = self.base.full_child.config.max_position_embeddings
        return Judge(
            self.text.judging, self.states["judging"], self.distance, self.modules, self.base.tokenizer,
            None if pairs is None else read_pairs(pairs, self.work / "pairs"),
            min(longest, self.modules.max_seq_length or longest),
        )  # fmt: skip

    @cached_property
    def cost(self) -> EncoderCost:
        """Costs of children."""
        return EncoderCost.of(self.supernet, self.arguments.shape[1], self.latency_table)

    @cached_property
    def scorer(self) -> Scorer:
        """Scores children with inherited weights: those of the refitted super-net, or of the trained one."""
        supernet = self.supernet
        if self.arguments.scorer == "supernet":
            supernet = self.trained[0]
        return self.scorer_of(supernet)

    def scorer_of(self, supernet: SupernetPreTrainedModel) -> Scorer:
        """Scores children by a super-net's weights, on the text that chooses."""
        return Scorer(
            supernet, self.text.choosing, self.states["choosing"], self.distance, bf16=self.bf16,
            kept_in=self.work / "scores", progress=True,
        )  # fmt: skip

    def sorted(self, scores: Sequence[Sequence[float]]) -> SupernetPreTrainedModel:
        """The super-net of the base model with its heads and neurons in the order of their importance."""
        full_child = copy.deepcopy(self.base.full_child)
        sort_by_importance(full_child, scores)
        return elastic_supernet(full_child, self.space)

    def refit(self, supernet: SupernetPreTrainedModel) -> dict[str, float]:
        """Make the super-net's variants by least squares, or read those that were made; what each misses."""
        return refit(supernet, self.calibration, kept=self.work / "variants.safetensors")

    @property
    def to_choose_from(self) -> list[Replacement]:
        """The lone replacements to choose from: of a trained super-net those that it was trained with."""
        most = self.arguments.max_replace_one_loss if self.arguments.scorer == "supernet" else math.inf
        full = self.supernet.largest_architecture
        return [one for one in self.table if one.loss <= most or one.put_into(full) == full]

    @cached_property
    def trained(self) -> tuple[SupernetPreTrainedModel, TrainedSupernet]:
        """The super-net of the screened space, distilled."""
        full = self.supernet.largest_architecture
        space = screened(self.space, self.table, full, self.arguments.max_replace_one_loss)
        supernet = copy.deepcopy(self.supernet)
        settings = RecoverySettings(
            num_steps=self.arguments.supernet_steps, learning_rate=self.arguments.learning_rate, bf16=self.bf16,
            seed=_SUPERNET_SEED, save_steps=_SAVE_STEPS,
        )  # fmt: skip
        done = distil_supernet(
            supernet, space, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), output_dir=self.work / "supernet", progress=True,
        )  # fmt: skip
        return supernet, TrainedSupernet(space.num_children, done.num_tokens, done.before, done.after)

    def recover(self, child: Architecture, seed: int) -> tuple[PreTrainedModel, Recovery]:
        """A child, distilled; one that was distilled before is read again."""
        model = extract_child(self.supernet, child)  # also where a trained super-net chose: all begin alike
        settings = RecoverySettings(
            num_steps=self.arguments.recovery_steps, learning_rate=self.arguments.learning_rate, bf16=self.bf16,
            seed=seed, save_steps=_SAVE_STEPS,
        )  # fmt: skip
        name = f"{hashlib.sha256(str(child).encode()).hexdigest()[:16]}-{seed}"
        done = recover(
            model, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), output_dir=self.work / "recovery" / name,
            progress=True,
        )  # fmt: skip
        return model, done


def _lower_case(texts: list[str]) -> dict[str, list[str]]:
    return {"text": [text.lower() for text in texts]}
