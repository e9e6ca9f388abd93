"""The whole way from an encoder and text to a smaller encoder and its proof, as stages that are made once.

Longer than other files: each stage is a few lines, and their order is what the file is about.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset

from hf_nasbert import modeling, records
from hf_nasbert.cards.fields import is_hub_id
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import difference_from, digest_of_base_model, hub_name, name_of
from hf_nasbert.compression.choosing import (
    LATENCY,
    Score,
    Scored,
    Worth,
    corrected_by_clock,
    ranked_choices,
    within_measured,
)
from hf_nasbert.compression.encoder_costs import EncoderCost, caps_of
from hf_nasbert.compression.folders import card_of, write_folders
from hf_nasbert.compression.handmade import (
    Handmade,
    best_layers,
    best_uniform,
    every_other_layer,
    most_layers,
    with_slack,
)
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.memory import forget_peak, peak_memory
from hf_nasbert.compression.onnx_files import OnnxFiles, Runtime
from hf_nasbert.compression.proof import (
    SEARCHED,
    SECONDS_TO_CORRECT,
    Judged,
    Row,
    choose_given,
    compare,
    digest_of_pairs,
    measure_side_by_side,
    read_pairs,
)
from hf_nasbert.compression.replace_one import Replacement, as_record, replace_one
from hf_nasbert.compression.results import Compressed, CompressResult, additivity_lines
from hf_nasbert.compression.sentences import PARTS, num_tokens, unknown_share
from hf_nasbert.compression.sizes import bytes_of_base_model, bytes_of_child
from hf_nasbert.compression.stages import (
    Additive,
    ByHand,
    Chosen,
    Costs,
    OnnxFile,
    Proof,
    Recovered,
    Replacements,
    Runtimes,
    Taught,
    Text,
    TrainedSupernet,
    Variants,
    Vocabulary,
    WarmedUp,
    Written,
)
from hf_nasbert.compression.task_metric import labels_of
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.compression.vocabulary import check_trimmable, trim_model
from hf_nasbert.costs import LatencyTable
from hf_nasbert.data import DataArguments, model_folder
from hf_nasbert.elastic.encoders import does_bf16_pay
from hf_nasbert.elastic.importance import importance
from hf_nasbert.elastic.scores import Scorer
from hf_nasbert.export.onnx import check_onnx
from hf_nasbert.extraction import extract_child
from hf_nasbert.finetuning import LabelledTask
from hf_nasbert.foreign import printable, read_object
from hf_nasbert.kept import first_difference, write_json
from hf_nasbert.locking import locked
from hf_nasbert.measuring import Device, measure_latencies
from hf_nasbert.modeling.elastic import elastic_supernet
from hf_nasbert.processes import be_alone, leave_world, on_main_process, share_out
from hf_nasbert.records import Content
from hf_nasbert.settings import check_names
from hf_nasbert.space import Architecture
from hf_nasbert.stopping import is_time_up, leave
from hf_nasbert.terminal import say
from hf_nasbert.writing import check_folder, write_text

_PROOF_BATCHES = 4  # that the base model and the child that it is are compared on
_INCIDENTAL = ("output_dir", "trust_remote_code", "onnx", "int8")
_STAGES = {
    "costs": "parameters, FLOPs and milliseconds of every block, on this machine",
    "text": "sentences to train on, for validation and for the test",
    "vocabulary": "the tokens of your text",
    "base model": "its outputs, which the smaller models learn from",
    "variants": "every smaller form of every block, fitted to the base model",
    "warm-up": "training of these variants",
    "lone replacements": "what the model loses if one block alone is replaced",
    "additivity": "whether these losses add up",
    "super-net": "all variants in one network, trained",
    "search": "the best combination within the budget",
    "by hand": "what people choose without a search, for comparison",
    "recovery": "distillation from the base model",
    "proof": "all models on the test set, and timed side by side",
    "folder": "the smaller models are saved",
    "onnx": "the ONNX file",
    "int8": "the int8 ONNX file",
    "runtimes": "ONNX files timed beside torch",
}
_LATENCY_VISITS, _LATENCY_CHILDREN, _LATENCY_ROUNDS = 16, 2, 1

_Made = TypeVar("_Made")


def run_compression(data: DataArguments, arguments: CompressArguments) -> CompressResult:
    """Run all stages, or those that an earlier call has not finished; see `Compression`."""
    result = Compression(arguments, TextSource.of(data)).run()
    leave_world()
    return result


def compress(
    base_model: str | Path,
    texts: Dataset | Iterable[str] | DataArguments | LabelledTask | str | Path,
    *,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> CompressResult:
    """Make an encoder smaller: search what can be cut out of it within a budget, distil that, and prove it.

    Args:
        base_model: Folder, or name on the Hub: BERT, RoBERTa, ELECTRA, DistilBERT, alone, with a head or as a
            SentenceTransformer. Nothing is written there.
        texts: Text like that which the smaller model will read: a data set with a column "text", texts, a file or
            folder of text, or what `DataArguments` say. Or labelled examples of the task that the base model is
            fine-tuned on: `CompressDataArguments(train_file="reviews.csv")`, or a `LabelledTask` of `finetuning`.
        output_dir: Folder of the smaller model; a call that was killed goes on there. By default a folder of temporary
            files that lives as long as the result.
        **settings: Fields of `CompressArguments`: a budget such as `max_latency="0.5x"`, and how to search.

    Returns:
        The smaller models and the table that compares them with the base model and with what people choose by hand.

    Raises:
        ValueError: If the model, the text or a setting cannot be used, or a stage's own check fails.
        OSError: If there is no such model or text, or the folder cannot be written.
        TypeError: If there is no such setting, or the base model is none that is named.
    """
    check_names("compress", CompressArguments, settings)
    name, scratch = name_of(base_model), None
    if output_dir is None:
        be_alone("making an encoder smaller in a folder of temporary files")
        scratch = tempfile.TemporaryDirectory(prefix="compressed-")
        output_dir = Path(scratch.name) / "model"
    arguments = CompressArguments(base_model=name, output_dir=str(output_dir), **settings)
    result = Compression(arguments, TextSource.of(texts), is_kept=scratch is None).run()
    return dataclasses.replace(result, _scratch=scratch)


class Compression:
    """Costs, text, base model, variants, lone replacements, search, what people choose by hand, recovery, proof.

    A finished stage leaves one record in `stages.jsonl` and is not repeated; within an unfinished one, what was
    written whole is taken up. What stages make lies in `work`, which is deleted at the end.

    Several processes do every stage together, or what it does once on the main one, and each recovers its share of the
    children. The folder is how they exchange what they made, so all of them see it.

    Args:
        arguments: What is asked.
        source: The text.
        is_kept: Whether the output folder is there for a later call.

    Raises:
        ValueError: If the output folder holds something else, was made with other settings, or lies in the base
            model's.
    """

    def __init__(self, arguments: CompressArguments, source: TextSource, *, is_kept: bool = True) -> None:
        self.arguments, self.source = arguments, source
        self.folder = Path(arguments.output_dir)
        self.materials = Materials(arguments, source, self.folder / "work", is_kept=is_kept)
        self._records: list[records.Record] = []
        self._is_changed = False

    def run(self) -> CompressResult:
        """Run what is not finished yet.

        Raises:
            ImportError: If ONNX files are asked for, and a package that makes them is missing.
            ValueError: If another process is at work in the folder, or a stage's own check fails.
        """
        if self.arguments.onnx:
            check_onnx()
        name = self.arguments.base_model_id
        if name is not None and not is_hub_id(name):  # reported now, not after the proof, when the card is written
            raise ValueError(
                f"base_model_id={printable(name, 100)!r} is not a name on the Hub, such as user/my-encoder"
            )
        with ExitStack() as stack:
            self._once(partial(self._enter, stack))
            return self._run()

    def _enter(self, stack: ExitStack) -> None:
        asked = {
            "settings": {
                name: value for name, value in dataclasses.asdict(self.arguments).items() if name not in _INCIDENTAL
            },
            "text": self.source.asked,
            "pairs": {"digest": digest_of_pairs(self.arguments.pairs_file)},
            "base model": {"digest": digest_of_base_model(self.arguments.base_model)},
        }
        self._claim(asked)
        stack.enter_context(locked(self.folder))
        self._hold_to(asked)

    def _once(self, work: Callable[[], _Made]) -> _Made:
        """What the main process makes, on all processes."""
        return on_main_process(self.materials.processes, work)

    def _say(self, text: str) -> None:
        if self.materials.processes.is_main_process:
            say(text)

    def _prepared(self, work: Callable[[], _Made]) -> _Made:
        """What the main process makes of what all have."""
        self.materials.prepare()
        return self._once(work)

    def _run(self) -> CompressResult:
        shared = self.materials
        stage = self._stage
        costs = stage("costs", Costs, self._make_costs)
        stage("text", Text, self._make_text)
        if self.arguments.trim_vocabulary:
            stage("vocabulary", Vocabulary, self._make_vocabulary)
        taught = stage("base model", Taught, self._make_taught)
        shared.bf16 = taught.bf16
        shared.variants = stage("variants", Variants, self._make_variants)
        if self.arguments.warmup_steps:
            stage("warm-up", WarmedUp, lambda: WarmedUp(shared.warmed_up[1]))
        found = stage("lone replacements", Replacements, self._make_replacements)
        shared.table = [Replacement(one["first_block"], tuple(one["operators"]), one["loss"]) for one in found.table]
        if self.arguments.additivity:
            additive = partial(shared.additive, self.arguments.additivity)
            for line in additivity_lines(stage("additivity", Additive, additive)):
                self._say(line)
        if costs.latency_table is not None:
            shared.latency_table = LatencyTable.from_record(costs.latency_table)
        if self.arguments.scorer == "supernet":
            stage("super-net", TrainedSupernet, partial(self._make_trained, costs.caps))
        chosen: dict[str, list[tuple[str, Architecture]]] = {}
        for budget in costs.caps:
            winner = stage(f"search {budget}", Chosen, partial(self._make_chosen, budget, costs.caps[budget])).winner
            chosen[budget] = [(SEARCHED, Architecture.parse(winner))]
        if self.arguments.handmade:
            by_hand = stage("by hand", ByHand, partial(self._make_by_hand, costs.caps))
            for line in by_hand.missing:
                self._say(line)
            for one in by_hand.children:
                chosen[one["budget"]].append((one["how"], Architecture.parse(one["architecture"])))
        children = dict.fromkeys(child for children in chosen.values() for _, child in children)
        searched = {child for children in chosen.values() for how, child in children if how == SEARCHED}
        jobs = [(child, seed) for child in children for seed in self.arguments.seeds]
        recovered = self._recover_all(jobs, searched)
        prove = partial(self._make_proof, costs, chosen, recovered)
        proof = stage("proof", Proof, partial(self._prepared, prove))
        rows = [Row.from_dict(row) for row in proof.rows]
        write = partial(write_folders, shared, self.folder, rows, recovered)
        written = stage("folder", Written, partial(self._prepared, write), self._are_there)
        result = self._result(rows, written)
        self._once(partial(self._report, result))  # also where an ONNX file is refused
        if self.arguments.onnx:
            runtimes = [
                row
                for model, one in zip(result.front, written.models, strict=True)
                for row in self._run_onnx(model, one["seed"], rows, recovered)
            ]
            result = dataclasses.replace(result, runtimes=tuple(runtimes), stages=tuple(self._records))
            self._once(partial(self._report, result))
        self._once(partial(shutil.rmtree, shared.work, ignore_errors=True))
        return result

    # What stages stand on; made when it is first needed, and again by a later call

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def _claim(self, asked: Mapping[str, Any]) -> None:
        """Write down in a new folder what it is made with."""
        base = Path(model_folder(self.arguments.base_model))
        if base.is_dir() and self.folder.resolve().is_relative_to(base.resolve()):
            raise ValueError(f"output_dir {self.folder} lies in the base model's folder, where nothing is written")
        if self._settings.exists() and read_object(self._settings).keys() >= {"settings", "text"}:
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"output_dir {self.folder} is not empty, and holds nothing of this command: name another")
        check_folder(self.folder)
        write_json(self._settings, asked)

    def _hold_to(self, asked: Mapping[str, Any]) -> None:
        """Refuse other settings than the folder was made with; where no stage is finished, nothing is lost by them."""
        said = {"base model": asked["base model"]} | read_object(self._settings)  # earlier versions did not say it
        difference = first_difference(said, json.loads(json.dumps(asked)))
        if difference is None:
            return
        if (self.folder / "stages.jsonl").exists():
            what = difference.partition(".digest was")[0]
            raise ValueError(
                f"{self.folder} was made with other {what if what in asked else 'settings'} ({difference}): choose "
                "another output_dir, or delete that folder to begin anew"
            )
        shutil.rmtree(self.materials.work, ignore_errors=True)
        write_json(self._settings, asked)

    def _stage(
        self,
        name: str,
        kind: type[Content],
        make: Callable[[], Content],
        is_there: Callable[[Content], bool] = lambda content: True,
        *,
        is_shared: bool = True,
    ) -> Content:
        """What a stage made, now or, where it `is_there` still, in an earlier call.

        All processes make it together, or where it is not shared, this one alone.
        """
        file = self.folder / "stages.jsonl"
        once: Callable[[Callable[[], Any]], Any] = self._once if is_shared else lambda work: work()
        record = once(partial(self._recorded, name, kind, is_there))
        if record is None:
            if is_shared and once(is_time_up):
                leave(f"stopped before {name}: the same command goes on from there")
            if self.materials.processes.is_main_process or not is_shared:
                say(f"== {_announced(name)}")
            start, cpu = time.perf_counter(), time.process_time()
            forget_peak()
            content = make()
            record = {
                "stage": name,
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_memory_mib": peak_memory(),
                "content": json.loads(json.dumps(dataclasses.asdict(content), allow_nan=False)),
                "versions": records.versions(),
            }
            record = once(partial(self._record, record))
            self._is_changed = True
        if is_shared:
            self._records.append(record)
        return records.read_content(kind, record, file)

    def _recorded(
        self, name: str, kind: type[Content], is_there: Callable[[Content], bool] = lambda content: True
    ) -> records.Record | None:
        file = self.folder / "stages.jsonl"
        earlier = {record["stage"]: record for record in records.read(file)} if file.exists() else {}
        if name in earlier and is_there(records.read_content(kind, earlier[name], file)):
            return earlier[name]
        return None

    def _record(self, record: records.Record) -> records.Record:
        records.append(self.folder / "stages.jsonl", record)
        return record

    def _recover_all(
        self, jobs: Sequence[tuple[Architecture, int]], searched: Set[Architecture]
    ) -> dict[tuple[Architecture, int], Recovered]:
        """Every child under every seed: each is distilled by one process."""
        stages = {
            (child, seed): (
                f"recovery {child} seed {seed}", Recovered,
                partial(self._make_recovered, child, seed, is_searched=child in searched),
            )
            for child, seed in jobs
        }  # fmt: skip
        to_do = self._once(lambda: [job for job in jobs if self._recorded(*stages[job][:2]) is None])
        if to_do:
            self.materials.prepare()
        share_out(self.materials.processes, [partial(self._stage, *stages[job], is_shared=False) for job in to_do])
        return {job: self._stage(*stages[job]) for job in jobs}

    def _are_there(self, written: Written) -> bool:
        return all((self.folder / one["folder"] / "config.json").is_file() for one in written.models)

    def _report(self, result: CompressResult) -> None:
        if self._is_changed:
            result.report(self.folder / "report.html")
            result.report(self.folder / "report.md")
            result.report(self.folder / "summary.json")

    # Stages

    def _make_costs(self) -> Costs:
        shared = self.materials
        arguments = self.arguments
        pairs = arguments.pairs_file
        if pairs is not None:  # refused now, not in an hour
            self._once(lambda: len(read_pairs(pairs, shared.work / "pairs")))
        if arguments.trim_vocabulary:
            check_trimmable(shared.base.tokenizer)
        self._once(lambda: shared.examples is None)  # the others read what is cached then
        _ = shared.examples
        supernet = elastic_supernet(shared.base.full_child, shared.space)
        wanted, table = arguments.wanted, None
        if any(budget.max_latency_ms is not None for budget in wanted.values()):
            _ = shared.text  # measuring takes a while: what is wrong with the text is reported before
            batch_size, length = arguments.shape
            device = Device(batch_size=batch_size, sequence_length=length, num_threads=torch.get_num_threads())
            table = self._once(
                lambda: measure_latencies(
                    supernet.config, device, num_visits=_LATENCY_VISITS, num_children=_LATENCY_CHILDREN,
                    num_rounds=_LATENCY_ROUNDS, progress=True,
                )[0]
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
        if shared.examples is not None and shared.examples.are_seen:
            self._say(
                "what chooses and what is the test are parts of train_file: of the rows that `hf-nasbert finetune` "
                "holds out of it by default. A base model that was trained otherwise may have seen them; then its own "
                "metric is too high and recovery improves little: give --validation_file and --test_file with "
                "examples that it has not seen"
            )
        name = self.source.tokenizer_name or shared.base.name
        self._once(lambda: unknown_share(shared.text.train, shared.base.tokenizer, name))
        return Text(
            {part: len(batches) for part, batches in parts.items()},
            {part: num_tokens(batches) for part, batches in parts.items()},
        )

    def _make_vocabulary(self) -> Vocabulary:
        self._once(lambda: len(self.materials.vocabulary.kept))  # the others read it
        found = self.materials.vocabulary
        num_before = len(self.materials.base.tokenizer)
        self._say(
            f"{len(found.kept):,} of {num_before:,} tokens are kept; {found.cut_otherwise:.1%} of held-out sentences "
            "are tokenised differently than before"
        )
        return Vocabulary(len(found.kept), num_before, found.cut_otherwise)

    def _make_taught(self) -> Taught:
        shared = self.materials
        base, batches = shared.base, shared.text.judging[:_PROOF_BATCHES]
        difference = self._once(lambda: difference_from(base, batches, self.arguments))
        bf16 = self.arguments.bf16 == "yes"
        if self.arguments.bf16 == "auto":
            bf16 = self._once(lambda: does_bf16_pay(base.full_child.device))
        return Taught(difference, sum(one.num_tokens for one in shared.states.values()), bf16)

    def _make_variants(self) -> Variants:
        shared = self.materials
        scores = importance(shared.base.full_child, shared.calibration, processes=shared.processes)
        supernet = shared.sorted(scores)
        variants = Variants(scores, shared.refit(supernet))
        shared.refitted = supernet
        return variants

    def _make_replacements(self) -> Replacements:
        shared = self.materials
        table = replace_one(
            shared.supernet, *shared.replacing, shared.distance, bf16=shared.bf16,
            kept=shared.work / "lone-replacements.json", progress=True, processes=shared.processes,
        )  # fmt: skip
        return Replacements(as_record(table))

    def _make_trained(self, caps: Mapping[str, Mapping[str, float]]) -> TrainedSupernet:
        shared = self.materials
        full = shared.supernet.largest_architecture
        for budget, own in caps.items():  # reported before the training, not after it
            try:
                ranked_choices(shared.to_choose_from, full, shared.cost, own, None, 1)
            except ValueError as error:
                raise ValueError(
                    f"{budget}: of the variants whose lone replacement costs at most max_replace_one_loss="
                    f"{self.arguments.max_replace_one_loss} no child can be made ({error}): raise it, or allow more"
                ) from None
        return shared.trained[1]

    def _make_chosen(self, budget: str, caps: Mapping[str, float]) -> Chosen:
        shared = self.materials
        arguments, full = self.arguments, shared.supernet.largest_architecture
        score = None if arguments.scorer == "additive" else self._score

        def rank(caps: Mapping[str, float], by: Score | None = score) -> list[Scored]:
            return ranked_choices(shared.to_choose_from, full, shared.cost, caps, by, arguments.num_rescored)

        if LATENCY in caps:
            batch_size, length = arguments.shape
            config = shared.supernet.config

            def measure(children: Sequence[Architecture], seconds: float | None = None) -> list[float]:
                return self._once(lambda: measure_side_by_side(config, children, batch_size, length, seconds))

            wanted, roughly = arguments.wanted[budget], partial(measure, seconds=SECONDS_TO_CORRECT)
            caps = corrected_by_clock(partial(rank, by=None), wanted, caps, full, roughly)
            ranked, winner, measured = within_measured(rank, wanted, caps, full, measure)
        else:
            ranked, measured = rank(caps), None
            winner = ranked[0]
        choices = [
            {"architecture": str(one.architecture), "sum": one.sum, **one.worth._asdict(), "costs": one.costs}
            for one in ranked
        ]
        return Chosen(arguments.scorer, choices, str(winner.architecture), measured)

    def _score(self, children: Sequence[Architecture]) -> list[Worth]:
        asked = hashlib.sha256("\n".join(map(str, children)).encode()).hexdigest()[:16]
        return self.materials.worths(children, f"search-{asked}")

    def _make_by_hand(self, caps: Mapping[str, Mapping[str, float]]) -> ByHand:
        shared = self.materials
        scorer = shared.scorer_of(shared.supernet)
        children: list[dict[str, Any]] = []
        missing: list[str] = []
        for budget, own in caps.items():
            slack = with_slack(own)
            ways: list[Callable[[], Handmade]] = [
                partial(self._layers_by_hand, best_layers, scorer, slack),
                partial(self._layers_by_hand, every_other_layer, scorer, slack),
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

    def _make_recovered(self, child: Architecture, seed: int, *, is_searched: bool) -> Recovered:
        shared = self.materials
        model, done = shared.recover(child, seed)
        assert done.before is not None
        assert done.after is not None
        if not done.has_fallen and is_searched:  # what somebody chooses by hand may be as bad as it is
            quarter = max(1, len(done.losses) // 4)
            first, last = (sum(own) / len(own) for own in (done.losses[:quarter], done.losses[-quarter:]))
            raise ValueError(
                f"recovery of {child}: the training loss did not fall ({first:.4f} in the first quarter of the steps, "
                f"{last:.4f} in the last): lower learning_rate={self.arguments.learning_rate}"
            )
        if done.kept_step == 0:
            by = "loss of the labels" if shared.label_weight else "distance from the base model"
            advice = (
                " (the base model may have learnt these rows by heart: give --validation_file with others)"
                if shared.examples is not None and shared.examples.are_seen
                else ""
            )
            say(
                f"{child}: distillation did not improve its {by} on the validation set: its weights stay as they "
                f"were{advice}"
            )
        judged = dataclasses.asdict(shared.judge(model))
        return Recovered(
            shared.start_of(child)[1], done.num_tokens, len(done.losses), done.kept_step, done.before.loss,
            done.after.loss, shared.chosen_metric(model), judged,
        )  # fmt: skip

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
        sizes: dict[Architecture, int | None] = {
            child: bytes_of_child(extract_child(shared.supernet, child)) for child in distinct[1:]
        }
        sizes[full] = bytes_of_base_model(shared.base.place, shared.base.revision)
        whole = shared.base.full_child.num_parameters()
        base = shared.cost(full)["num_parameters"]

        def row(
            budget: str | None, how: str, child: Architecture, judged: list[Judged], chosen_by: float | None = None,
            chosen_metric: float | None = None, is_as_it_began: bool = False,
        ) -> Row:  # fmt: skip
            own = int(shared.cost(child)["num_parameters"])
            is_within = budget is None or self._is_within(budget, costs, child, many[child], many[full])
            return Row(
                budget, how, str(child), own, int(whole - base + own), one[child], many[child], tuple(judged),
                is_within, chosen_by, chosen_metric=chosen_metric, file_bytes=sizes[child],
                is_as_it_began=is_as_it_began,
            )  # fmt: skip

        rows = [row(None, "base model", full, [shared.judge(shared.base.full_child)])]
        for budget, children in chosen.items():
            for how, child in children:
                own = [recovered[child, seed] for seed in self.arguments.seeds]
                chosen_by = sum(one.after for one in own) / len(own)
                metrics = [one.metric for one in own if one.metric is not None]
                chosen_metric = sum(metrics) / len(metrics) if metrics else None
                judged = [Judged.from_dict(one.judged) for one in own]
                is_as_it_began = all(one.kept_step == 0 for one in own)
                rows.append(row(budget, how, child, judged, chosen_by, chosen_metric, is_as_it_began))
        rows = choose_given(rows)
        if shared.examples is not None:
            rows = compare(rows, shared.examples.metric, labels_of(shared.text.judging))
        if self.arguments.trim_vocabulary:
            rows = [one for row in rows for one in ([row, self._trimmed(row)] if row.is_given else [row])]
            rows = [dataclasses.replace(row, is_given=row.is_given and row.trimmed is not None) for row in rows]
        return Proof([dataclasses.asdict(row) for row in rows])

    def _trimmed(self, row: Row) -> Row:
        """The row of the same child with a trimmed vocabulary."""
        shared, found = self.materials, self.materials.vocabulary
        judged, base = [], shared.base.full_child
        examples = shared.examples_to_judge(found.tokenizer)
        for seed in self.arguments.seeds:
            model = trim_model(shared.recover(Architecture.parse(row.architecture), seed)[0], found.kept)
            judged.append(
                shared.judge.with_tokenizer(
                    model, found.tokenizer, base, shared.judging, shared.max_length, examples
                )
            )  # fmt: skip
        return dataclasses.replace(
            row,
            num_parameters=model.num_parameters(),
            file_bytes=bytes_of_child(model),
            judged=tuple(judged),
            against_base=None,
            against_given=None,
            trimmed=Vocabulary(len(found.kept), len(shared.base.tokenizer), found.cut_otherwise),
        )

    def _is_within(self, budget: str, costs: Costs, child: Architecture, measured: float, base: float) -> bool:
        """Whether a child is within a budget, its latency as it is measured for the table."""
        found = self.materials.cost(child)
        if LATENCY in costs.caps[budget]:
            found |= {LATENCY: measured}
        asked = self.arguments.wanted[budget].of(costs.base_model | {LATENCY: base})
        return asked.admits(found)

    def _run_onnx(
        self,
        model: Compressed,
        seed: int,
        rows: Sequence[Row],
        recovered: Mapping[tuple[Architecture, int], Recovered],
    ) -> list[Runtime]:
        """The ONNX files of a smaller model, and what they are worth."""
        files, row = OnnxFiles(self.materials, model.folder, model.model), model.row

        def is_there(written: OnnxFile) -> bool:
            return (model.folder / written.file).is_file()

        def is_measured(measured: Runtimes) -> bool:  # as the files are that are there now
            return not self._is_changed and [one["how"] for one in measured.rows] == list(files.there)

        def measure() -> Runtimes:
            found = files.measure(str(row.budget))
            own = recovered[Architecture.parse(row.architecture), seed]
            is_native = not hasattr(modeling, model.class_name)
            card = card_of(self.materials, row, rows, own, seed, is_native=is_native, runtimes=found)
            write_text(model.folder / "README.md", card)
            return Runtimes([dataclasses.asdict(one) for one in found])

        self._stage(f"onnx {row.budget}", OnnxFile, partial(self._prepared, files.write), is_there)
        if self.arguments.int8:
            self._stage(f"int8 {row.budget}", OnnxFile, partial(self._prepared, files.write_int8), is_there)
        measured = self._stage(f"runtimes {row.budget}", Runtimes, partial(self._prepared, measure), is_measured)
        return [Runtime.from_dict(one) for one in measured.rows]

    def _result(self, rows: Sequence[Row], written: Written) -> CompressResult:
        given = {row.budget: row for row in rows if row.is_given}
        front = tuple(
            Compressed(self.folder / one["folder"], given[one["budget"]], one["class"]) for one in written.models
        )
        name = hub_name(self.arguments) or ""  # the path of a folder is nobody's business
        return CompressResult(
            self.folder, tuple(rows), front, self.arguments.shape, tuple(self._records), base_model=name
        )


def _announced(stage: str) -> str:
    """A stage's name with what it does."""
    words = next((words for begin, words in _STAGES.items() if stage.partition(" ")[0] == begin or stage == begin), "")
    return f"{stage}: {words}" if words else stage
