"""The whole way from an encoder and text to a smaller encoder and its proof, as stages that are made once."""

import dataclasses
import hashlib
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hf_nasbert import records
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import difference_from
from hf_nasbert.compression.choosing import LATENCY, Scored, ranked_choices, within_measured
from hf_nasbert.compression.encoder_costs import EncoderCost, caps_of
from hf_nasbert.compression.folders import write_folders
from hf_nasbert.compression.handmade import (
    Handmade,
    best_layers,
    best_uniform,
    every_other_layer,
    most_layers,
)
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.proof import (
    SEARCHED,
    Judged,
    Row,
    choose_given,
    measure_side_by_side,
    read_pairs,
)
from hf_nasbert.compression.replace_one import Replacement, as_record, replace_one
from hf_nasbert.compression.results import Compressed, CompressResult
from hf_nasbert.compression.sentences import PARTS, num_tokens, unknown_share
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
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import LatencyTable
from hf_nasbert.data import DataArguments, model_folder
from hf_nasbert.elastic.encoders import does_bf16_pay
from hf_nasbert.elastic.importance import importance
from hf_nasbert.elastic.scores import Scorer
from hf_nasbert.foreign import read_object
from hf_nasbert.kept import first_difference, write_json
from hf_nasbert.locking import locked
from hf_nasbert.measuring import Device, measure_latencies
from hf_nasbert.modeling.elastic import elastic_supernet
from hf_nasbert.processes import be_alone
from hf_nasbert.space import Architecture
from hf_nasbert.terminal import say
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
        self.materials = Materials(arguments, source, self.folder / "work")
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
        shared = self.materials
        stage = self._stage
        costs = stage("costs", Costs, self._make_costs)
        stage("text", Text, self._make_text)
        taught = stage("base model", Taught, self._make_taught)
        shared.bf16 = taught.bf16
        shared.variants = stage("variants", Variants, self._make_variants)
        found = stage("lone replacements", Replacements, self._make_replacements)
        shared.table = [Replacement(one["first_block"], tuple(one["operators"]), one["loss"]) for one in found.table]
        if costs.latency_table is not None:
            shared.latency_table = LatencyTable.from_record(costs.latency_table)
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
        written = stage("folder", Written, partial(write_folders, shared, self.folder, rows, recovered))
        result = self._result(rows, written)
        if self._is_changed:
            result.report(self.folder / "report.md")
            result.report(self.folder / "summary.json")
        shutil.rmtree(shared.work, ignore_errors=True)
        return result

    # What stages stand on; made when it is first needed, and again by a later call

    def _claim(self) -> None:
        """Write down what the folder is made with, or hold it to what it was made with before."""
        base = Path(model_folder(self.arguments.base_model))
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

    # Stages

    def _make_costs(self) -> Costs:
        shared = self.materials
        arguments = self.arguments
        if arguments.pairs_file is not None:  # refused now, not in an hour
            read_pairs(arguments.pairs_file, shared.work / "pairs")
        supernet = elastic_supernet(shared.base.full_child, shared.space)
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
        shared = self.materials
        parts = {part: getattr(shared.text, part) for part in PARTS}
        for part, batches in parts.items():
            if not batches:
                raise ValueError(f"no sentence is left for {part}: give more text")
        unknown_share(shared.text.train, shared.base.tokenizer, self.source.tokenizer_name or shared.base.name)
        return Text(
            {part: len(batches) for part, batches in parts.items()},
            {part: num_tokens(batches) for part, batches in parts.items()},
        )

    def _make_taught(self) -> Taught:
        shared = self.materials
        difference = difference_from(shared.base, shared.text.judging[:_PROOF_BATCHES], self.arguments)
        bf16 = (
            does_bf16_pay(shared.base.full_child.device)
            if self.arguments.bf16 == "auto"
            else self.arguments.bf16 == "yes"
        )
        return Taught(difference, sum(one.num_tokens for one in shared.states.values()), bf16)

    def _make_variants(self) -> Variants:
        shared = self.materials
        scores = importance(shared.base.full_child, shared.calibration)
        return Variants(scores, shared.refit(shared.sorted(scores)))

    def _make_replacements(self) -> Replacements:
        shared = self.materials
        table = replace_one(
            shared.supernet, shared.text.choosing, shared.states["choosing"], shared.distance, bf16=shared.bf16,
            kept=shared.work / "lone-replacements.json", progress=True,
        )  # fmt: skip
        return Replacements(as_record(table))

    def _make_trained(self) -> TrainedSupernet:
        return self.materials.trained[1]

    def _make_chosen(self, budget: str, caps: Mapping[str, float]) -> Chosen:
        shared = self.materials
        arguments, full = self.arguments, shared.supernet.largest_architecture
        score = None if arguments.scorer == "additive" else self._score

        def rank(caps: Mapping[str, float]) -> list[Scored]:
            return ranked_choices(shared.to_choose_from, full, shared.cost, caps, score, arguments.num_rescored)

        if LATENCY in caps:
            batch_size, length = arguments.shape
            measure = partial(
                measure_side_by_side, shared.supernet.config, batch_size=batch_size, sequence_length=length
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
        return self.materials.scorer(children, kept_as=f"search-{asked}")

    def _make_by_hand(self, caps: Mapping[str, Mapping[str, float]]) -> ByHand:
        shared = self.materials
        scorer = shared.scorer_of(shared.supernet)
        children: list[dict[str, Any]] = []
        missing: list[str] = []
        for budget, own in caps.items():
            slack = {name: _SLACK * cap for name, cap in own.items()}
            ways: list[Callable[[], Handmade]] = [
                partial(self._layers_by_hand, best_layers, scorer, own),
                partial(self._layers_by_hand, every_other_layer, scorer, own),
                partial(best_uniform, scorer, shared.cost, slack),
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
        shared = self.materials
        return way(scorer, most_layers(shared.supernet.largest_architecture, shared.cost, caps))

    def _make_recovered(self, child: Architecture, seed: int) -> Recovered:
        shared = self.materials
        model, done = shared.recover(child, seed)
        assert done.before is not None
        assert done.after is not None
        return Recovered(done.num_tokens, done.before.loss, done.after.loss, dataclasses.asdict(shared.judge(model)))

    def _make_proof(
        self,
        costs: Costs,
        chosen: Mapping[str, Sequence[tuple[str, Architecture]]],
        recovered: Mapping[tuple[Architecture, int], Recovered],
    ) -> Proof:
        shared = self.materials
        full = shared.supernet.largest_architecture
        distinct = list(dict.fromkeys([full, *(child for children in chosen.values() for _, child in children)]))
        batch_size, length = self.arguments.shape
        one, many = (
            dict(zip(distinct, measure_side_by_side(shared.supernet.config, distinct, size, length), strict=True))
            for size in (1, batch_size)
        )
        whole = shared.base.full_child.num_parameters()
        base = shared.cost(full)["num_parameters"]

        def row(
            budget: str | None, how: str, child: Architecture, judged: list[Judged], chosen_by: float | None
        ) -> Row:
            own = int(shared.cost(child)["num_parameters"])
            is_within = (
                budget is None or how == SEARCHED or self._is_within(budget, costs, child, many[child], many[full])
            )
            return Row(
                budget, how, str(child), own, int(whole - base + own), one[child], many[child], tuple(judged),
                is_within, chosen_by,
            )  # fmt: skip

        rows = [row(None, "base model", full, [shared.judge(shared.base.full_child)], None)]
        for budget, children in chosen.items():
            for how, child in children:
                own = [recovered[child, seed] for seed in self.arguments.seeds]
                chosen_by = sum(one.after for one in own) / len(own)
                rows.append(row(budget, how, child, [Judged(**one.judged) for one in own], chosen_by))
        return Proof([dataclasses.asdict(row) for row in choose_given(rows)])

    def _is_within(self, budget: str, costs: Costs, child: Architecture, measured: float, base: float) -> bool:
        """Whether a child made by hand is within a budget, its latency as it is measured."""
        found = self.materials.cost(child)
        if LATENCY in costs.caps[budget]:
            found |= {LATENCY: measured}
        asked = self.arguments.wanted[budget].of(costs.base_model | {LATENCY: base})
        return asked.admits(found)

    def _result(self, rows: Sequence[Row], written: Written) -> CompressResult:
        given = {row.budget: row for row in rows if row.is_given}
        front = tuple(
            Compressed(self.folder / one["folder"], given[one["budget"]], one["class"]) for one in written.models
        )
        return CompressResult(self.folder, tuple(rows), front, self.arguments.shape, tuple(self._records))


def _peak_memory() -> int:
    """The most memory that this process has taken so far, in MiB."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20
