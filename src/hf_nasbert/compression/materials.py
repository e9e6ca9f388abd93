"""What the stages of a compression stand on: model, text, states, super-net, scorers, each made when first needed."""

import copy
import dataclasses
import hashlib
import math
import sys
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import check_classifier, load_base_model
from hf_nasbert.compression.choosing import Worth
from hf_nasbert.compression.encoder_costs import EncoderCost
from hf_nasbert.compression.examples import Examples, make_examples
from hf_nasbert.compression.local import distil_blocks
from hf_nasbert.compression.proof import Judge, read_pairs
from hf_nasbert.compression.recover import Recovery, RecoverySettings, distil_supernet, recover
from hf_nasbert.compression.replace_one import Replacement, additivity, screened
from hf_nasbert.compression.sentences import (
    PARTS,
    Batch,
    Sentences,
    choose_sentences,
    load_sentences,
    most_characters_of,
    num_tokens,
    split_parts,
)
from hf_nasbert.compression.stages import Additive, TrainedSupernet, Variants
from hf_nasbert.compression.states import TeacherStates, teacher_states
from hf_nasbert.compression.task_metric import labels_of
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.compression.vocabulary import (
    TrimmedVocabulary,
    choose_pieces,
    count_pieces,
    cut_otherwise,
    ids_of_config,
    trim_tokenizer,
)
from hf_nasbert.costs import LatencyTable
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.elastic.base_models import BaseModel
from hf_nasbert.elastic.distance import Distance, Pooling, Target
from hf_nasbert.elastic.importance import sort_by_importance
from hf_nasbert.elastic.refit import refit
from hf_nasbert.elastic.scores import Scorer, predictions_of, score_model
from hf_nasbert.extraction import extract_child
from hf_nasbert.kept import Kept
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules
from hf_nasbert.processes import join
from hf_nasbert.space import Architecture, SearchSpace

_NUM_CHOOSING, _NUM_JUDGING = 192, 512  # sentences
_NUM_EXAMPLES = (512, 4096)  # to choose by, which a search reads for every child, and to judge by
_SENTENCE, _EXAMPLE = 20, 128  # tokens
_CALIBRATION_TOKENS = 20_000
_REPLACING_TOKENS = 1500  # a variant's lone loss is known to some percent by them
SAVE_STEPS = 100
"""Steps of a training between two checkpoints."""
_INNER_LAYERS, _INNER_WEIGHT = 5, 10.0  # of the base model that recovery holds a child to, spread evenly
_SUPERNET_SEED = 0


class Materials:
    """What stages share; a later call of the same compression makes the same again, or reads it.

    Args:
        arguments: What is asked.
        source: The text.
        work: Folder of what is kept between calls; all processes see it.
        is_kept: Whether a later call finds that folder: else nothing could go on there, and a signal just ends all.

    All processes have to ask for the same in the same order, but for `recover` and `judge` after `prepare`.

    Attributes:
        processes: Those that share the work.
        variants: What the stage `variants` made; needed by the super-net.
        table: The lone replacements; needed by searches.
        bf16: Whether products are taken in bfloat16.
        latency_table: Latencies of operators here, where a latency is capped.
    """

    variants: Variants
    table: list[Replacement]
    bf16: bool
    latency_table: LatencyTable | None = None

    def __init__(self, arguments: CompressArguments, source: TextSource, work: Path, *, is_kept: bool = True) -> None:
        self.arguments, self.source, self.work, self.is_kept = arguments, source, work, is_kept
        self.processes = join(use_cpu=not torch.cuda.is_available())
        self._starts: dict[Architecture, str] = {}

    def prepare(self) -> None:
        """Make what recovery stands on: then every process may do its own part."""
        names = ["supernet", "text", "states", "distance", "judge", "cost"]
        for name in [*names, "trained"] if self.arguments.scorer == "supernet" else names:
            getattr(self, name)

    @cached_property
    def base(self) -> BaseModel:
        """The base model."""
        found = load_base_model(self.arguments, self.source.tokenizer_name, self.source.tokenizer_revision)
        nn.Module.to(found.full_child, self.processes.device)
        return found

    @cached_property
    def modules(self) -> SentenceModules:
        """What makes vectors of sentences: the base model's own, or the mean of the tokens."""
        return self.base.modules or SentenceModules()

    @cached_property
    def max_length(self) -> int:
        """Tokens of a sentence with its prompt, no more than the base model's SentenceTransformer takes."""
        longest = self.base.full_child.config.max_position_embeddings
        asked = self.arguments.max_seq_length or (_EXAMPLE if self.source.load_task else _SENTENCE)
        prompt = self.base.tokenizer(self.modules.default_prompt, add_special_tokens=False)["input_ids"]
        return min(asked + len(prompt), longest, self.modules.max_seq_length or sys.maxsize)

    @cached_property
    def space(self) -> SearchSpace:
        """What can be cut out of the base model."""
        asked = self.arguments
        return elastic_space(
            self.base.full_child, heads=asked.heads, ffn=asked.ffn, kernels=asked.kernels, skip=asked.skip
        )

    @cached_property
    def examples(self) -> Examples | None:
        """Labelled examples; None of text without labels.

        Raises:
            ValueError: If the base model predicts nothing that labels could be of, or others.
        """
        if self.source.load_task is None:
            return None
        model = check_classifier(self.base)
        task = self.source.load_task("regression" if model.config.num_labels == 1 else "classification")
        return make_examples(task, model.config, held_out=self.source.held_out, seed=self.source.seed)

    @cached_property
    def documents(self) -> Dataset:
        """The text."""
        documents = self.source.load()
        if self.modules.do_lower_case:
            documents = documents.map(_lower_case, batched=True, input_columns="text", desc="lower case")
        return documents

    @cached_property
    def text(self) -> Sentences:
        """Sentences, or labelled examples, in batches."""
        with self.processes.main_process_first():
            return self._text()

    def _text(self) -> Sentences:
        if self.examples is not None:
            return self.examples.batches(
                self.base.tokenizer, sizes=(self.arguments.num_sentences, *_NUM_EXAMPLES),
                batch_size=self.arguments.batch_size, max_length=self.max_length, seed=self.source.seed,
            )  # fmt: skip
        return load_sentences(
            self.documents, self.base.tokenizer, num_train=self.arguments.num_sentences, num_choosing=_NUM_CHOOSING,
            num_judging=_NUM_JUDGING, held_out=self.source.held_out, batch_size=self.arguments.batch_size,
            max_length=self.max_length, seed=self.source.seed, prompt=self.modules.default_prompt,
            varied=self.arguments.varied_sentences, cache_dir=self.work / "text",
        )  # fmt: skip

    @cached_property
    def vocabulary(self) -> TrimmedVocabulary:
        """The pieces that the text to train on needs, and the tokenizer of these."""
        base, asked = self.base, self.arguments
        needed = {"min_piece_count": asked.min_piece_count, "num_before": vocabulary_size(base.tokenizer)}

        def choose() -> list[int]:
            counts = count_pieces(self._parts[0], base.tokenizer, progress=True)
            prompts = [piece for text in self.modules.prompts.values() for piece in base.tokenizer(text)["input_ids"]]
            also = [*ids_of_config(base.full_child.config), *prompts]
            return choose_pieces(base.tokenizer, counts, min_count=asked.min_piece_count, also=also)

        kept = Kept(self.work / "vocabulary.json", needed).get("pieces", choose)
        trimmed = trim_tokenizer(base.tokenizer, kept, trust_remote_code=asked.trust_remote_code)
        of_any_length = choose_sentences(self._parts[2], _NUM_JUDGING, self.source.seed)
        return TrimmedVocabulary(trimmed, kept, cut_otherwise(of_any_length, base.tokenizer, trimmed, kept))

    @cached_property
    def judging(self) -> list[str]:
        """The sentences that the text to judge by was made of; of labelled examples some of theirs."""
        most = None if self.examples else most_characters_of(self.max_length, self.modules.default_prompt)
        return choose_sentences(self._parts[2], _NUM_JUDGING, self.source.seed, most_characters=most)

    def examples_to_judge(self, tokenizer: PreTrainedTokenizerBase) -> list[Batch] | None:
        """The labelled examples that judge, as another tokenizer cuts them; None of text without labels."""
        if self.examples is None:
            return None
        return self.examples.part(
            "judging", tokenizer, size=_NUM_EXAMPLES[1], batch_size=self.arguments.batch_size,
            max_length=self.max_length, seed=self.source.seed,
        )  # fmt: skip

    @cached_property
    def _parts(self) -> tuple[Dataset, ...]:
        """Documents to train on, to choose by and to judge by; of labelled examples their texts."""
        if self.examples is not None:
            return self.examples.documents
        return split_parts(self.documents, self.source.held_out, self.source.seed, cache_dir=self.work / "text")

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
        """What the base model makes of every part; of an encoder without a classifier also after inner layers."""
        num_layers = self.space.num_choice_blocks // 2
        behind = {num_layers * number // (_INNER_LAYERS + 1) for number in range(1, _INNER_LAYERS + 1)} - {0}
        inner = [] if hasattr(self.base.full_child, "classifier") else [2 * layers - 1 for layers in sorted(behind)]
        return {
            part: teacher_states(
                self.base.full_child, getattr(self.text, part), self.work / "states" / part,
                inner_blocks=inner if part == "train" else (), progress=True, processes=self.processes,
            )
            for part in PARTS
        }  # fmt: skip

    @cached_property
    def distance(self) -> Distance:
        """How far a child is from the base model."""
        pooling: Pooling = "cls" if self.modules.pooling == ("cls",) else "mean"
        return Distance.of(self.base.full_child, self.states["train"].mean, pooling=pooling)

    @cached_property
    def refitted(self) -> SupernetPreTrainedModel:
        """The super-net of the base model, its heads and neurons sorted, its variants refitted."""
        supernet = self.sorted(self.variants.importance)
        self.refit(supernet)
        return supernet

    @cached_property
    def warmed_up(self) -> tuple[SupernetPreTrainedModel, dict[str, float]]:
        """The same, its variants trained block by block; what each misses."""
        supernet, steps = self.refitted, self.arguments.warmup_steps
        errors = distil_blocks(
            supernet, self.calibration, num_steps=steps, kept_in=self.work / "warm-up", processes=self.processes
        )
        return supernet, errors

    @cached_property
    def supernet(self) -> SupernetPreTrainedModel:
        """The super-net that children are cut from."""
        return self.warmed_up[0] if self.arguments.warmup_steps else self.refitted

    @cached_property
    def judge(self) -> Judge:
        """Judges models on text that chose nothing, and on the pairs."""
        pairs = self.arguments.pairs_file
        longest = self.base.full_child.config.max_position_embeddings
        return Judge(
            self.text.judging, self.states["judging"], self.distance, self.modules, self.base.tokenizer,
            None if pairs is None else read_pairs(pairs, self.work / "pairs"),
            min(longest, self.modules.max_seq_length or longest),
            None if self.examples is None else self.examples.metric, self.base.full_child,
        )  # fmt: skip

    @property
    def label_weight(self) -> float:
        """Weight of the labels' loss; 0 without labels."""
        return 0.0 if self.examples is None else self.arguments.label_weight

    def chosen_metric(self, model: PreTrainedModel) -> float | None:
        """The task's metric of a model on the examples that choose; None where it ranks nothing."""
        if self.examples is None or self.arguments.rank_by == "distance":
            return None
        return self.examples.metric.score(
            predictions_of(model, self.text.choosing, self.examples.metric.predictions), labels_of(self.text.choosing)
        )

    def worths(self, children: Sequence[Architecture], kept_as: str) -> list[Worth]:
        """What children are worth with inherited weights, on the text that chooses."""
        if self.examples is None or self.arguments.rank_by == "distance":
            return [Worth(loss) for loss in self.scorer(children, kept_as=kept_as)]
        metric, labels = self.examples.metric, labels_of(self.text.choosing)
        found = self.scorer.with_predictions(children, metric.predictions, kept_as=kept_as)
        return [Worth(loss, metric.score(predictions, labels)) for loss, predictions in found]

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
            kept_in=self.work / "scores", progress=True, processes=self.processes,
        )  # fmt: skip

    def sorted(self, scores: Sequence[Sequence[float]]) -> SupernetPreTrainedModel:
        """The super-net of the base model with its heads and neurons in the order of their importance."""
        full_child = copy.deepcopy(self.base.full_child)
        sort_by_importance(full_child, scores)
        return elastic_supernet(full_child, self.space)

    def refit(self, supernet: SupernetPreTrainedModel) -> dict[str, float]:
        """Make the super-net's variants by least squares, or read those that were made; what each misses."""
        return refit(supernet, self.calibration, kept=self.work / "variants", processes=self.processes)

    @property
    def replacing(self) -> tuple[list[Batch], list[Target]]:
        """The batches that lone replacements are scored on, and what the base model makes of them."""
        batches = self.batches_of_replacements
        return batches, [self.states["choosing"][index] for index in range(len(batches))]

    @cached_property
    def batches_of_replacements(self) -> list[Batch]:
        """The part of the text that chooses on which lone replacements are scored."""
        found: list[Batch] = []
        for batch in self.text.choosing:
            if num_tokens(found) >= _REPLACING_TOKENS:
                break
            found.append(batch)
        return found

    @property
    def screened_space(self) -> SearchSpace:
        """The space without the variants whose lone replacement costs too much."""
        full = self.supernet.largest_architecture
        return screened(self.space, self.table, full, self.arguments.max_replace_one_loss)

    @property
    def to_choose_from(self) -> list[Replacement]:
        """The lone replacements to choose from: of a trained super-net those that it was trained with."""
        most = self.arguments.max_replace_one_loss if self.arguments.scorer == "supernet" else math.inf
        full = self.supernet.largest_architecture
        return [one for one in self.table if one.loss <= most or one.put_into(full) == full]

    @cached_property
    def trained(self) -> tuple[SupernetPreTrainedModel, TrainedSupernet]:
        """The super-net of the screened space, distilled."""
        return self.distilled(self.arguments.supernet_method, _SUPERNET_SEED, self.work / "supernet")

    def distilled(
        self, method: str, seed: int, folder: Path | None = None
    ) -> tuple[SupernetPreTrainedModel, TrainedSupernet]:
        """A super-net of the screened space, distilled by a method; checkpoints lie in a folder where one is given."""
        space = self.screened_space
        supernet = copy.deepcopy(self.supernet)
        settings = RecoverySettings(
            num_steps=self.arguments.supernet_steps, learning_rate=self.arguments.learning_rate, bf16=self.bf16,
            seed=seed, save_steps=SAVE_STEPS, label_weight=self.label_weight,
        )  # fmt: skip
        done = distil_supernet(
            supernet, space, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), method=method, output_dir=folder,
            progress=self.processes.is_main_process, processes=self.processes, can_leave=self.is_kept,
        )  # fmt: skip
        return supernet, TrainedSupernet(space.num_children, done.num_tokens, done.before, done.after)

    def additive(self, num_drawn: int) -> Additive:
        """How far sums of lone replacements are from the real distances of random children, of either space."""
        batches, targets = self.replacing
        scorer = dataclasses.replace(self.scorer_of(self.supernet), batches=batches, targets=targets)
        spaces = {"whole space": self.space, "screened space": self.screened_space}
        found = {}
        for name, space in spaces.items():
            score = partial(scorer, kept_as=f"additivity-{name.split()[0]}")
            found[name] = dataclasses.asdict(additivity(space, self.table, score, num_drawn))
        return Additive(found)

    def start_of(self, child: Architecture) -> tuple[PreTrainedModel, str]:
        """A child as recovery begins with it, and whose weights these are.

        The base model's, or where a super-net was trained, its, if they are nearer to the base model on the text that
        chooses.
        """
        starts = {"inherited": self.supernet}
        if self.arguments.scorer == "supernet":
            starts["supernet"] = self.trained[0]
        if child not in self._starts:
            losses = {} if len(starts) == 1 else {
                name: score_model(
                    extract_child(one, child), self.text.choosing, self.states["choosing"], self.distance,
                    bf16=self.bf16,
                ).loss
                for name, one in starts.items()
            }  # fmt: skip
            self._starts[child] = min(losses, key=lambda name: losses[name], default="inherited")
        name = self._starts[child]
        return extract_child(starts[name], child), name

    def recover(self, child: Architecture, seed: int) -> tuple[PreTrainedModel, Recovery]:
        """A child, distilled; one that was distilled before is read again."""
        model, _ = self.start_of(child)
        settings = RecoverySettings(
            num_steps=self.arguments.recovery_steps, learning_rate=self.arguments.learning_rate, bf16=self.bf16,
            seed=seed, save_steps=SAVE_STEPS, patience=self.arguments.patience, label_weight=self.label_weight,
            inner_weight=_INNER_WEIGHT if self.states["train"].inner_blocks else 0.0,
        )  # fmt: skip
        name = f"{hashlib.sha256(str(child).encode()).hexdigest()[:16]}-{seed}"
        done = recover(
            model, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), output_dir=self.work / "recovery" / name,
            progress=self.processes.is_main_process, can_leave=self.is_kept,
        )  # fmt: skip
        return model, done


def _lower_case(texts: list[str]) -> dict[str, list[str]]:
    return {"text": [text.lower() for text in texts]}
