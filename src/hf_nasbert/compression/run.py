"""The whole way from an encoder and text to a smaller encoder and its proof, as stages that are made once.

Longer than other files: all stages share what they stand on, each made when it is first needed.
"""

import copy
import dataclasses
import hashlib
import json
import math
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert import checkpoint_folders, records
from hf_nasbert.cards import CompressedRecord, render_compressed_card
from hf_nasbert.child_folders import fill_child_folder
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import BaseModel, difference_from, hub_name, load_base_model
from hf_nasbert.compression.choosing import LATENCY, Scored, ranked_choices, within_measured
from hf_nasbert.compression.distance import Distance, Pooling
from hf_nasbert.compression.encoder_costs import EncoderCost, caps_of
from hf_nasbert.compression.encoders import does_bf16_pay
from hf_nasbert.compression.handmade import (
    Handmade,
    best_layers,
    best_uniform,
    every_other_layer,
    most_layers,
)
from hf_nasbert.compression.importance import importance, sort_by_importance
from hf_nasbert.compression.proof import (
    SEARCHED,
    Judge,
    Judged,
    Row,
    choose_given,
    measure_side_by_side,
    read_pairs,
    table_cells,
    verdicts,
)
from hf_nasbert.compression.recover import Recovery, RecoverySettings, distil_supernet, recover
from hf_nasbert.compression.refit import refit
from hf_nasbert.compression.replace_one import Replacement, as_record, replace_one, screened
from hf_nasbert.compression.results import Compressed, CompressResult
from hf_nasbert.compression.scores import Scorer
from hf_nasbert.compression.sentences import PARTS, Batch, Sentences, load_sentences, num_tokens, unknown_share
from hf_nasbert.compression.stages import (
    ByHand,
    Chosen,
    Content,
    Costs,
    Proof,
    Recovered,
    Replacements,
    Taught,
    Text,
    TrainedSupernet,
    Variants,
    Written,
)
from hf_nasbert.compression.states import TeacherStates, teacher_states
from hf_nasbert.costs import LatencyTable
from hf_nasbert.data import DataArguments, load_text
from hf_nasbert.data.files import no_column
from hf_nasbert.extraction import extract_child
from hf_nasbert.foreign import read_object
from hf_nasbert.locking import locked
from hf_nasbert.measuring import Device, measure_latencies
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.families import native_form
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules
from hf_nasbert.processes import be_alone
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.terminal import say
from hf_nasbert.training.checkpoints import first_difference, write_json
from hf_nasbert.writing import check_folder

_NUM_CHOOSING, _NUM_JUDGING = 192, 512  # sentences
_CALIBRATION_TOKENS = 20_000
_PROOF_BATCHES = 4  # that the base model and the child that it is are compared on
_SLACK = 1.01  # a width made by hand hits no budget exactly: its biases and norms stay whole
_INCIDENTAL = ("output_dir", "trust_remote_code")
_LATENCY_VISITS, _LATENCY_CHILDREN, _LATENCY_ROUNDS = 16, 2, 1
_SAVE_STEPS = 100
_SUPERNET_SEED = 0


def run_compression(data: DataArguments, arguments: CompressArguments) -> CompressResult:
    """Run all stages, or those that an earlier call has not finished; see `Compression`."""
    return Compression(arguments, TextSource.of(data)).run()


def compress(
    base_model: str | Path,
    texts: Dataset | Iterable[str] | DataArguments | str | Path,
    *,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> CompressResult:
    """Make an encoder smaller: search what can be cut out of it within a budget, distil that, and prove it.

    Args:
        base_model: Folder, or name on the Hub: BERT, RoBERTa, ELECTRA, DistilBERT, alone, with a head or as a
            SentenceTransformer. Nothing is written there.
        texts: Text like that which the smaller model will read: a data set with a column "text", texts, a file or
            folder of text, or what `DataArguments` say.
        output_dir: Folder of the smaller model; a call that was killed goes on there. By default a folder of temporary
            files that lives as long as the result.
        **settings: Fields of `CompressArguments`: a budget such as `max_latency="0.5x"`, and how to search.

    Returns:
        The smaller models and the table that holds them against the base model and against what people choose by hand.

    Raises:
        ValueError: If the model, the text or a setting cannot be used, or a stage's own check fails.
        OSError: If there is no such model or text, or the folder cannot be written.
        TypeError: If there is no such setting.
    """
    scratch = None
    if output_dir is None:
        scratch = tempfile.TemporaryDirectory(prefix="compressed-")
        output_dir = Path(scratch.name) / "model"
    arguments = CompressArguments(base_model=str(base_model), output_dir=str(output_dir), **settings)
    result = Compression(arguments, TextSource.of(texts)).run()
    return dataclasses.replace(result, _scratch=scratch)


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Where text comes from, and how it is held out.

    Args:
        load: Documents in a column "text".
        told: What a folder's settings say of it.
        held_out: Share of the documents to choose by, and to judge by.
        seed: Of that share.
        tokenizer_name: A tokenizer in place of the base model's own.
        tokenizer_revision: Its commit or tag.
    """

    load: Callable[[], Dataset]
    told: Mapping[str, Any]
    held_out: float = 0.05
    seed: int = 0
    tokenizer_name: str | None = None
    tokenizer_revision: str | None = None

    @classmethod
    def of(cls, texts: Dataset | Iterable[str] | DataArguments | str | Path) -> "TextSource":
        """The source of what a user gives as text.

        Raises:
            ValueError: If a data set has no column "text", or there is no text.
        """
        if isinstance(texts, str | Path):
            texts = DataArguments(train_files=[str(texts)])
        if isinstance(texts, DataArguments):
            return cls(
                partial(load_text, texts),
                texts.describe() | {"tokenizer_name": texts.tokenizer_name},
                texts.validation_fraction,
                texts.data_seed,
                texts.tokenizer_name,
                texts.tokenizer_revision,
            )
        if not isinstance(texts, Dataset):
            texts = Dataset.from_dict({"text": [text for text in texts if text and not text.isspace()]})
        if "text" not in texts.column_names:
            raise no_column("the data set", "text", texts.column_names)
        if len(texts) == 0:
            raise ValueError("there is no text: give documents like those that the smaller model will read")
        return cls(lambda: texts, {"source": "given in Python", "num_documents": len(texts)})


class Compression:
    """Costs, text, base model, variants, lone replacements, search, what people choose by hand, recovery, proof.

    A finished stage leaves one record in `stages.jsonl` and is not repeated; within an unfinished one, what was
    written whole is taken up. What stages make lies in `work`, which is deleted at the end.

    Args:
        arguments: What is asked.
        source: The text.

    Raises:
        ValueError: If the output folder holds something else, was made with other settings, or lies in the base
            model's.
    """

    def __init__(self, arguments: CompressArguments, source: TextSource) -> None:
        self.arguments, self.source = arguments, source
        self.folder = Path(arguments.output_dir)
        self.work = self.folder / "work"
        self._records: list[records.Record] = []
        self._is_changed = False

    def run(self) -> CompressResult:
        """Run what is not finished yet.

        Raises:
            ValueError: If another process is at work in the folder, or a stage's own check fails.
        """
        be_alone("making an encoder smaller")
        self._claim()
        with locked(self.folder):
            return self._run()

    def _run(self) -> CompressResult:
        stage = self._stage
        costs = stage("costs", Costs, self._make_costs)
        stage("text", Text, self._make_text)
        taught = stage("base model", Taught, self._make_taught)
        self._bf16 = taught.bf16
        self._variants = stage("variants", Variants, self._make_variants)
        found = stage("lone replacements", Replacements, self._make_replacements)
        self._table = [Replacement(one["first_block"], tuple(one["operators"]), one["loss"]) for one in found.table]
        if costs.latency_table is not None:
            self._latency = LatencyTable.from_record(costs.latency_table)
        if self.arguments.scorer == "supernet":
            stage("super-net", TrainedSupernet, self._make_trained)
        chosen: dict[str, list[tuple[str, Architecture]]] = {}
        for budget in costs.caps:
            winner = stage(f"search {budget}", Chosen, partial(self._make_chosen, budget, costs.caps[budget])).winner
            chosen[budget] = [(SEARCHED, Architecture.parse(winner))]
        if self.arguments.handmade:
            by_hand = stage("by hand", ByHand, partial(self._make_by_hand, costs.caps))
            for line in by_hand.missing:
                say(line)
            for one in by_hand.children:
                chosen[one["budget"]].append((one["how"], Architecture.parse(one["architecture"])))
        recovered: dict[tuple[Architecture, int], Recovered] = {}
        for child in dict.fromkeys(child for children in chosen.values() for _, child in children):
            for seed in self.arguments.seeds:
                recovered[child, seed] = stage(
                    f"recovery {child} seed {seed}", Recovered, partial(self._make_recovered, child, seed)
                )
        proof = stage("proof", Proof, partial(self._make_proof, costs, chosen, recovered))
        rows = [Row.from_dict(row) for row in proof.rows]
        written = stage("folder", Written, partial(self._make_folders, rows, recovered))
        result = self._result(rows, written)
        if self._is_changed:
            result.report(self.folder / "report.md")
            result.report(self.folder / "summary.json")
        shutil.rmtree(self.work, ignore_errors=True)
        return result

    # What stages stand on; made when it is first needed, and again by a later call

    def _claim(self) -> None:
        """Write down what the folder is made with, or hold it to what it was made with before."""
        base = Path(self.arguments.base_model)
        if base.is_dir() and self.folder.resolve().is_relative_to(base.resolve()):
            raise ValueError(f"output_dir {self.folder} lies in the base model's folder, where nothing is written")
        file = self.folder / "settings.json"
        asked = {
            "settings": {
                name: value for name, value in dataclasses.asdict(self.arguments).items() if name not in _INCIDENTAL
            },
            "text": dict(self.source.told),
        }
        if not file.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(
                    f"output_dir {self.folder} is not empty, and holds nothing of this command: name another"
                )
            check_folder(self.folder)
            write_json(file, asked)
            return
        difference = first_difference(read_object(file), json.loads(json.dumps(asked)))
        if difference is not None:
            raise ValueError(
                f"{self.folder} was made with other settings ({difference}): choose another output_dir, or delete "
                "that folder to begin anew"
            )

    def _stage(self, name: str, kind: type[Content], make: Callable[[], Content]) -> Content:
        file = self.folder / "stages.jsonl"
        earlier = {record["stage"]: record for record in records.read(file)} if file.exists() else {}
        if name in earlier and (kind is not Written or self._are_there(earlier[name])):
            self._records.append(earlier[name])
            return records.read_content(kind, earlier[name], file)
        say(f"== {name}")
        start, cpu = time.perf_counter(), time.process_time()
        content = make()
        record = {
            "stage": name,
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_memory_mib": _peak_memory(),
            "content": json.loads(json.dumps(dataclasses.asdict(content), allow_nan=False)),
            "versions": records.versions(),
        }
        records.append(file, record)
        self._records.append(record)
        self._is_changed = True
        return records.read_content(kind, record, file)

    def _are_there(self, record: records.Record) -> bool:
        return all((self.folder / one["folder"] / "config.json").is_file() for one in record["content"]["models"])

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
        supernet = self._sorted(self._variants.importance)
        self._refit(supernet)
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
        return EncoderCost.of(self.supernet, self.arguments.shape[1], getattr(self, "_latency", None))

    @cached_property
    def scorer(self) -> Scorer:
        """Scores children with inherited weights: those of the refitted super-net, or of the trained one."""
        supernet = self.supernet
        if self.arguments.scorer == "supernet":
            supernet = self._trained[0]
        return self._scorer(supernet)

    def _scorer(self, supernet: SupernetPreTrainedModel) -> Scorer:
        return Scorer(
            supernet, self.text.choosing, self.states["choosing"], self.distance, bf16=self._bf16,
            kept_in=self.work / "scores", progress=True,
        )  # fmt: skip

    def _sorted(self, scores: Sequence[Sequence[float]]) -> SupernetPreTrainedModel:
        full_child = copy.deepcopy(self.base.full_child)
        sort_by_importance(full_child, scores)
        return elastic_supernet(full_child, self.space)

    def _refit(self, supernet: SupernetPreTrainedModel) -> dict[str, float]:
        return refit(supernet, self.calibration, kept=self.work / "variants.safetensors")

    # Stages

    def _make_costs(self) -> Costs:
        arguments = self.arguments
        if arguments.pairs_file is not None:  # refused now, not in an hour
            read_pairs(arguments.pairs_file, self.work / "pairs")
        supernet = elastic_supernet(self.base.full_child, self.space)
        wanted, table = arguments.wanted, None
        if any(budget.max_latency_ms is not None for budget in wanted.values()):
            batch_size, length = arguments.shape
            device = Device(batch_size=batch_size, sequence_length=length, num_threads=torch.get_num_threads())
            table, _ = measure_latencies(
                supernet.config, device, num_visits=_LATENCY_VISITS, num_children=_LATENCY_CHILDREN,
                num_rounds=_LATENCY_ROUNDS, progress=True,
            )  # fmt: skip
        latency = None if table is None else LatencyTable.from_record(table)
        cost = EncoderCost.of(supernet, arguments.shape[1], latency)
        return Costs(cost(supernet.largest_architecture), caps_of(wanted, cost, supernet), table)

    def _make_text(self) -> Text:
        parts = {part: getattr(self.text, part) for part in PARTS}
        for part, batches in parts.items():
            if not batches:
                raise ValueError(f"no sentence is left for {part}: give more text")
        unknown_share(self.text.train, self.base.tokenizer, self.source.tokenizer_name or self.base.name)
        return Text(
            {part: len(batches) for part, batches in parts.items()},
            {part: num_tokens(batches) for part, batches in parts.items()},
        )

    def _make_taught(self) -> Taught:
        difference = difference_from(self.base, self.text.judging[:_PROOF_BATCHES], self.arguments)
        bf16 = (
            does_bf16_pay(self.base.full_child.device)
            if self.arguments.bf16 == "auto"
            else self.arguments.bf16 == "yes"
        )
        return Taught(difference, sum(one.num_tokens for one in self.states.values()), bf16)

    def _make_variants(self) -> Variants:
        scores = importance(self.base.full_child, self.calibration)
        return Variants(scores, self._refit(self._sorted(scores)))

    def _make_replacements(self) -> Replacements:
        table = replace_one(
            self.supernet, self.text.choosing, self.states["choosing"], self.distance, bf16=self._bf16,
            kept=self.work / "lone-replacements.json", progress=True,
        )  # fmt: skip
        return Replacements(as_record(table))

    @property
    def _screened(self) -> list[Replacement]:
        """The lone replacements to choose from: of a trained super-net those that it was trained with."""
        most = self.arguments.max_replace_one_loss if self.arguments.scorer == "supernet" else math.inf
        full = self.supernet.largest_architecture
        return [one for one in self._table if one.loss <= most or one.put_into(full) == full]

    @cached_property
    def _trained(self) -> tuple[SupernetPreTrainedModel, TrainedSupernet]:
        """The super-net of the screened space, distilled."""
        full = self.supernet.largest_architecture
        space = screened(self.space, self._table, full, self.arguments.max_replace_one_loss)
        supernet = copy.deepcopy(self.supernet)
        settings = RecoverySettings(
            num_steps=self.arguments.supernet_steps, learning_rate=self.arguments.learning_rate, bf16=self._bf16,
            seed=_SUPERNET_SEED, save_steps=_SAVE_STEPS,
        )  # fmt: skip
        done = distil_supernet(
            supernet, space, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), output_dir=self.work / "supernet", progress=True,
        )  # fmt: skip
        return supernet, TrainedSupernet(space.num_children, done.num_tokens, done.before, done.after)

    def _make_trained(self) -> TrainedSupernet:
        return self._trained[1]

    def _make_chosen(self, budget: str, caps: Mapping[str, float]) -> Chosen:
        arguments, full = self.arguments, self.supernet.largest_architecture
        score = None if arguments.scorer == "additive" else self._score

        def rank(caps: Mapping[str, float]) -> list[Scored]:
            return ranked_choices(self._screened, full, self.cost, caps, score, arguments.num_rescored)

        if LATENCY in caps:
            batch_size, length = arguments.shape
            measure = partial(
                measure_side_by_side, self.supernet.config, batch_size=batch_size, sequence_length=length
            )
            ranked, winner, measured = within_measured(rank, arguments.wanted[budget], caps, full, measure)
        else:
            ranked, measured = rank(caps), None
            winner = ranked[0]
        choices = [
            {"architecture": str(one.architecture), "sum": one.sum, "loss": one.loss, "costs": one.costs}
            for one in ranked
        ]
        return Chosen(arguments.scorer, choices, str(winner.architecture), measured)

    def _score(self, children: Sequence[Architecture]) -> list[float]:
        asked = hashlib.sha256("\n".join(map(str, children)).encode()).hexdigest()[:16]
        return self.scorer(children, kept_as=f"search-{asked}")

    def _make_by_hand(self, caps: Mapping[str, Mapping[str, float]]) -> ByHand:
        scorer = self._scorer(self.supernet)
        children: list[dict[str, Any]] = []
        missing: list[str] = []
        for budget, own in caps.items():
            slack = {name: _SLACK * cap for name, cap in own.items()}
            ways: list[Callable[[], Handmade]] = [
                partial(self._layers_by_hand, best_layers, scorer, own),
                partial(self._layers_by_hand, every_other_layer, scorer, own),
                partial(best_uniform, scorer, self.cost, slack),
            ]
            for way in ways:
                try:
                    found = way()
                except ValueError as error:
                    missing.append(f"{budget}: nothing to compare with: {error}")
                    continue
                children.append(
                    dataclasses.asdict(found) | {"budget": budget, "architecture": str(found.architecture)}
                )
        return ByHand(children, list(dict.fromkeys(missing)))

    def _layers_by_hand(
        self, way: Callable[[Scorer, int], Handmade], scorer: Scorer, caps: Mapping[str, float]
    ) -> Handmade:
        return way(scorer, most_layers(self.supernet.largest_architecture, self.cost, caps))

    def _recover(self, child: Architecture, seed: int) -> tuple[PreTrainedModel, Recovery]:
        """A child, distilled; one that was distilled before is read again."""
        model = extract_child(self.supernet, child)  # also where a trained super-net chose: all begin alike
        settings = RecoverySettings(
            num_steps=self.arguments.recovery_steps, learning_rate=self.arguments.learning_rate, bf16=self._bf16,
            seed=seed, save_steps=_SAVE_STEPS,
        )  # fmt: skip
        name = f"{hashlib.sha256(str(child).encode()).hexdigest()[:16]}-{seed}"
        done = recover(
            model, self.text.train, self.states["train"], self.distance, settings,
            held_out=(self.text.choosing, self.states["choosing"]), output_dir=self.work / "recovery" / name,
            progress=True,
        )  # fmt: skip
        return model, done

    def _make_recovered(self, child: Architecture, seed: int) -> Recovered:
        model, done = self._recover(child, seed)
        assert done.before is not None
        assert done.after is not None
        return Recovered(done.num_tokens, done.before.loss, done.after.loss, dataclasses.asdict(self.judge(model)))

    def _make_proof(
        self,
        costs: Costs,
        chosen: Mapping[str, Sequence[tuple[str, Architecture]]],
        recovered: Mapping[tuple[Architecture, int], Recovered],
    ) -> Proof:
        full = self.supernet.largest_architecture
        distinct = list(dict.fromkeys([full, *(child for children in chosen.values() for _, child in children)]))
        batch_size, length = self.arguments.shape
        one, many = (
            dict(zip(distinct, measure_side_by_side(self.supernet.config, distinct, size, length), strict=True))
            for size in (1, batch_size)
        )
        whole = self.base.full_child.num_parameters()
        base = self.cost(full)["num_parameters"]

        def row(
            budget: str | None, how: str, child: Architecture, judged: list[Judged], chosen_by: float | None
        ) -> Row:
            own = int(self.cost(child)["num_parameters"])
            is_within = (
                budget is None or how == SEARCHED or self._is_within(budget, costs, child, many[child], many[full])
            )
            return Row(
                budget, how, str(child), own, int(whole - base + own), one[child], many[child], tuple(judged),
                is_within, chosen_by,
            )  # fmt: skip

        rows = [row(None, "base model", full, [self.judge(self.base.full_child)], None)]
        for budget, children in chosen.items():
            for how, child in children:
                own = [recovered[child, seed] for seed in self.arguments.seeds]
                chosen_by = sum(one.after for one in own) / len(own)
                rows.append(row(budget, how, child, [Judged(**one.judged) for one in own], chosen_by))
        return Proof([dataclasses.asdict(row) for row in choose_given(rows)])

    def _is_within(self, budget: str, costs: Costs, child: Architecture, measured: float, base: float) -> bool:
        """Whether a child made by hand is within a budget, its latency as it is measured."""
        found = self.cost(child)
        if LATENCY in costs.caps[budget]:
            found |= {LATENCY: measured}
        asked = self.arguments.wanted[budget].of(costs.base_model | {LATENCY: base})
        return asked.admits(found)

    def _make_folders(self, rows: Sequence[Row], recovered: Mapping[tuple[Architecture, int], Recovered]) -> Written:
        models = []
        given = [row for row in rows if row.is_given]
        for row in given:
            child = Architecture.parse(row.architecture)
            seed = min(self.arguments.seeds, key=lambda seed: recovered[child, seed].after)
            model, done = self._recover(child, seed)
            nn.Module.to(model, "cpu")
            stock, reason = native_form(model)
            where = "." if len(given) == 1 else str(row.budget)
            card = render_compressed_card(self._describe(row, rows, done, seed, is_native=reason is None))
            write = partial(
                fill_child_folder, child=stock, tokenizer=self.base.tokenizer, card=card,
                sentence_modules=self.base.modules,
            )  # fmt: skip
            checkpoint_folders.replace_files(
                self.folder / where, write, what="the smaller model", checkpoints=self.work,
                advice="run the same command again",
            )  # fmt: skip
            size = sum(file.stat().st_size for file in (self.folder / where).glob("*.safetensors"))
            models.append(
                {"budget": row.budget, "folder": where, "class": type(stock).__name__, "bytes": size, "seed": seed}
            )
        return Written(models)

    def _describe(
        self, row: Row, rows: Sequence[Row], done: Recovery, seed: int, *, is_native: bool
    ) -> CompressedRecord:
        own = [one for one in rows if one.budget in (None, row.budget)]
        arguments = self.arguments
        return CompressedRecord(
            name=f"A smaller {(hub_name(arguments) or 'encoder').rpartition('/')[2]}",
            base_model=hub_name(arguments),
            architecture=row.architecture,
            how=row.how,
            is_searched=row.how == SEARCHED,
            budget=str(row.budget),
            hub_task=self.base.hub_task,
            auto_class=self.base.auto_class.__name__,
            proof=tuple(tuple(line) for line in table_cells(own, arguments.shape)),
            verdicts=tuple(verdicts(own)),
            native=is_native,
            is_sentence_transformer=self.base.modules is not None,
            training={
                "text": self.source.told["source"],
                "num_steps": arguments.recovery_steps,
                "num_tokens": done.num_tokens,
                "learning rate": arguments.learning_rate,
                "seed": seed,
                "chosen by": arguments.scorer,
                "latency measured on": f"{records.versions()['cpu']}, {torch.get_num_threads()} thread(s)",
            },
            versions=records.versions(),
        )

    def _result(self, rows: Sequence[Row], written: Written) -> CompressResult:
        given = {row.budget: row for row in rows if row.is_given}
        front = tuple(
            Compressed(self.folder / one["folder"], given[one["budget"]], one["class"]) for one in written.models
        )
        return CompressResult(self.folder, tuple(rows), front, self.arguments.shape, tuple(self._records))


def _lower_case(texts: list[str]) -> dict[str, list[str]]:
    return {"text": [text.lower() for text in texts]}


def _peak_memory() -> int:
    """The most memory that this process has taken so far, in MiB."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20
