"""The whole way from text to a published child, as stages that are made once and picked up where they stopped.

One file, for every stage reads what the stages before it have made.
"""

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hf_nasbert import records
from hf_nasbert.cards import ChildRecord, render_child_card
from hf_nasbert.child_folders import move_into_place, save_child
from hf_nasbert.costs import Budget, LatencyTable, bert_beside, cost_function, num_parameters
from hf_nasbert.costs.feasibility import cheapest
from hf_nasbert.data import Corpus, DataArguments, load_corpus, load_tokenizer
from hf_nasbert.data.trained_on import TRAINED_ON
from hf_nasbert.data.vocabulary import padding_id, vocabulary_size
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.finetuning import FinetuneArguments, PretrainChildArguments, pretrain_child
from hf_nasbert.locking import locked
from hf_nasbert.measuring import Device, measure_latencies
from hf_nasbert.modeling import NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.configuration_nasbert import NasBertShapeConfig
from hf_nasbert.modeling.families import native_form
from hf_nasbert.pipeline import run_settings
from hf_nasbert.pipeline.arguments import PipelineArguments, SearchReportArguments
from hf_nasbert.pipeline.child_card import Made, describe_child, draw_figures, name_of_text
from hf_nasbert.pipeline.extraction import read_facts, stage_lengths_of
from hf_nasbert.pipeline.finetuned import finetune_with_cards, split_by
from hf_nasbert.pipeline.fresh_process import ask_in_fresh_process
from hf_nasbert.pipeline.report import report_search
from hf_nasbert.pipeline.scores import as_table, children_space, score_children, search_children
from hf_nasbert.pipeline.scoring_arguments import ScoreChildrenArguments, SearchChildrenArguments
from hf_nasbert.pipeline.side_by_side import side_by_side
from hf_nasbert.pipeline.stages import (
    Answers,
    Card,
    Content,
    Control,
    Extraction,
    Finetuning,
    Latencies,
    PackedText,
    Pretraining,
    Scores,
    StageResult,
    TrainedSupernet,
)
from hf_nasbert.pipeline.supernet_card import describe_supernet, write_supernet_card
from hf_nasbert.processes import be_alone
from hf_nasbert.scored import ScoredChild, scored_children
from hf_nasbert.searching import SearchTask
from hf_nasbert.space import Architecture, Candidates
from hf_nasbert.stopping import is_time_up, leave
from hf_nasbert.terminal import say
from hf_nasbert.training import (
    SupernetArguments,
    SupernetTrainingArguments,
    chosen_precision,
    pretrain_supernet,
    read_log,
    tune_allocator,
)
from hf_nasbert.writing import check_folder, whole_folder, write_text

_MASK = "[MASK]"  # how `mask_examples` are written, whatever the tokenizer's own mask is


def run_pipeline(
    supernet: SupernetArguments, data: DataArguments, training: SupernetTrainingArguments, arguments: PipelineArguments
) -> list[StageResult]:
    """Run all stages, or those that an earlier call has not finished; see `Pipeline`."""
    be_alone("the whole pipeline")
    return Pipeline(supernet, data, training, arguments).run()


class Pipeline:
    """Text, super-net, scores, winner, proof, pre-training, fine-tuning, card.

    A finished stage leaves one record in `stages.jsonl` and is not repeated. An unfinished one is begun again; the
    long ones (super-net, scores, pre-training, fine-tuning) continue from their own checkpoints and records.

    Args:
        supernet: The space and its sizes.
        data: The text.
        training: The super-net's training; its `output_dir` is replaced by a folder of the pipeline's.
        arguments: What it is made by.

    Raises:
        FileNotFoundError: If there is no file of the name `card`, or no folder of the tokenizer's name.
        ValueError: If the folder was made with other settings, naming the first that differs; the space is none, or
            has no positions for the text's sequences; the tokenizer has no mask; an example has not one mask; a card
            cannot say the language or what the file `card` holds. Before the super-net is trained also: if the budget
            cannot be met by any child, or by any that is a stock BERT where only such ones are asked for, or an
            example is longer than the positions.
    """

    def __init__(
        self,
        supernet: SupernetArguments,
        data: DataArguments,
        training: SupernetTrainingArguments,
        arguments: PipelineArguments,
    ) -> None:
        self.folder = Path(arguments.output_dir)
        self.supernet_arguments = supernet
        self.data = dataclasses.replace(data, cache_dir=data.cache_dir or str(self.folder / "text"))
        self.training = dataclasses.replace(
            training, output_dir=str(self.folder / "supernet"), resume_from_checkpoint="latest"
        )
        self.arguments = arguments
        self.facts = read_facts(arguments.card) if arguments.card else {}
        # Refused now, not in an hour.
        ChildRecord.from_dict({"name": "child", "architecture": "ffn", "language": data.language, **self.facts})
        longest = supernet.build_config().max_position_embeddings
        if data.max_seq_length > longest:
            raise ValueError(f"max_seq_length={data.max_seq_length} is more than the super-net's {longest} positions")
        if arguments.max_latency is not None and arguments.latency_batch[1] > longest:
            raise ValueError(
                f"latency_shape={arguments.latency_shape} has more tokens than the super-net's {longest} positions"
            )
        self._check_examples()
        self.results: list[StageResult] = []
        given = {"supernet": supernet, "data": data, "training": training, "pipeline": arguments}
        run_settings.claim(self.folder, given)
        self._corpus: Corpus | None = None

    def run(self) -> list[StageResult]:
        """Run what is not finished yet, and return all stages' results.

        Raises:
            ValueError: If another process is at work in the folder.
        """
        with locked(self.folder):
            return self._run()

    def _run(self) -> list[StageResult]:
        tune_allocator()
        stage = self._stage
        text = stage("text", "tokenizer and packed text", "tokenizer", PackedText, self._make_text)
        if self.arguments.max_latency is not None:
            stage("latency", "milliseconds of every operator here", "latency.jsonl", Latencies, self._make_latencies)
        made = f"super-net ({self.training.method})"
        supernet = stage("super-net", made, "supernet", TrainedSupernet, self._make_supernet)
        scores = stage("scores", "proxy loss and cost per child", "scores.jsonl", Scores, self._make_scores)
        make_extracted = partial(self._make_extracted, Architecture.parse(scores.winner))
        extracted = stage("extraction", "the winner, weights inherited", "extracted", Extraction, make_extracted)
        made = "the winner, trained on alone"
        pretrained = stage("pre-training", made, "pretrained", Pretraining, self._make_pretrained)
        made = "results of the child and of a baseline"
        finetuned = stage("fine-tuning", made, "finetuned", Finetuning, self._make_finetuned)
        if self.arguments.control:
            made = "a plain BERT as large, trained on as many tokens"
            stage("control", made, "control", Control, partial(self._make_control, supernet, pretrained))
        make_child = partial(self._make_child, Made(text, supernet, scores, extracted, pretrained, finetuned))
        stage("card", "the child: model, card, figures", "child", Card, make_child)
        stage("fresh process", "fill-mask without this package", "fill-mask.json", Answers, self._complete_masked)
        return self.results

    def _check_examples(self) -> None:
        """Refuse a sentence that cannot be completed, and a tokenizer that has no mask."""
        is_made = (self.folder / "tokenizer" / "tokenizer_config.json").exists()
        own = _MASK  # of a tokenizer that is still to be trained
        if is_made or self.data.tokenizer_name is not None:
            own = str(load_tokenizer(self._packed if is_made else self.data).mask_token)
        for text in self.arguments.mask_examples:
            count = text.replace(own, _MASK).count(_MASK)
            if count != 1:
                raise ValueError(f"mask_examples: {text!r} holds {_MASK} {count} times; expected once")

    def _examples(self) -> list[str]:
        """The sentences to complete, with the tokenizer's own mask."""
        tokenizer, longest = self.corpus.tokenizer, self._build_config().max_position_embeddings
        texts = [text.replace(_MASK, str(tokenizer.mask_token)) for text in self.arguments.mask_examples]
        for text in texts:
            if len(tokenizer(text)["input_ids"]) > longest:
                raise ValueError(f"mask_examples: {text[:40]!r}... is longer than the super-net's {longest} positions")
        return texts

    def _stage(self, name: str, made: str, where: str, kind: type[Content], make: Callable[[], Content]) -> Content:
        file = self.folder / "stages.jsonl"
        earlier = {record["stage"]: record for record in records.read(file)} if file.exists() else {}
        # What was made from an earlier state of an earlier stage is out of date.
        is_reused = name in earlier and (self.folder / where).exists() and all(r.is_reused for r in self.results)
        if is_reused:
            record = earlier[name]
            content = records.read_content(kind, record, file)
        else:
            if is_time_up():
                leave(f"stopped before {name}: the same command goes on from there")
            say(f"\n== {name}: {made}")
            check_folder(self.folder)
            start = time.perf_counter()
            content = make()
            record = {
                "stage": name,
                "seconds": round(time.perf_counter() - start, 1),
                "content": dataclasses.asdict(content),
                "versions": records.versions(),
            }
            records.append(file, record)
        where = str(self.folder / where)
        self.results.append(StageResult(name, made, where, record["seconds"], is_reused, content))
        return content

    @property
    def corpus(self) -> Corpus:
        """The packed text; after the first stage it comes from the disk."""
        if self._corpus is None:
            self._corpus = load_corpus(self._packed)
        return self._corpus

    @property
    def _packed(self) -> DataArguments:
        """The text, cut by the tokenizer of the first stage."""
        return dataclasses.replace(self.data, tokenizer_name=str(self.folder / "tokenizer"))

    def _make_text(self) -> PackedText:
        self._corpus = load_corpus(self.data)
        with whole_folder(self.folder / "tokenizer", move_into_place) as staging:
            self._corpus.tokenizer.save_pretrained(staging)
        text = PackedText(
            vocab_size=vocabulary_size(self._corpus.tokenizer),
            num_sequences=len(self._corpus.train),
            num_dev_sequences=len(self._corpus.dev),
            sequence_length=self.data.max_seq_length,
        )
        say(
            f"{text.num_sequences:,} sequences of {text.sequence_length} tokens to train on, "
            f"{text.num_dev_sequences:,} held out; vocabulary of {text.vocab_size:,}"
        )
        return text

    def _build_config(self) -> SupernetConfig:
        tokenizer = self.corpus.tokenizer
        return self.supernet_arguments.build_config(
            vocab_size=vocabulary_size(tokenizer), pad_token_id=padding_id(tokenizer)
        )

    def _make_latencies(self) -> Latencies:
        batch_size, length = self.arguments.latency_batch
        device = Device(batch_size=batch_size, sequence_length=length, num_threads=torch.get_num_threads())
        table, check = measure_latencies(self._build_config(), device, progress=True)
        records.extend(self._latency_file, [table, check])
        measured_on = LatencyTable.from_record(table).described
        say(f"operators timed on {measured_on}; sums are {check['mape_percent']:.1f} % off whole children (mean)")
        return Latencies(measured_on=measured_on, error_percent=check["mape_percent"])

    @property
    def _latency_file(self) -> Path:
        return self.folder / "latency.jsonl"

    def _make_supernet(self) -> TrainedSupernet:
        config, training = self._build_config(), self.training
        space = config.space
        self._budget(config)
        self._examples()
        say(
            f"{space.num_children:,} children over {space.num_choice_blocks} choice blocks; {training.max_steps} steps"
        )
        output = pretrain_supernet(self.supernet_arguments, self._packed, training)
        if not output.is_finished:
            leave(f"stopped at step {output.global_step}: the same command goes on from there")
        return TrainedSupernet(
            num_children=space.num_children,
            num_steps=output.global_step,
            num_tokens=output.global_step * training.train_batch_size(1) * self.data.max_seq_length,
        )

    def _budget(self, config: SupernetConfig) -> Budget:
        """The budget in numbers; by default the parameters of a BERT of the space's depth and width.

        Refused if no child meets it: before anything is trained or scored.
        """
        cost, bert = self._cost(config), bert_of(config)
        largest = cheapest(config.space, lambda child: -num_parameters(config, child))
        budget = self.arguments.budget.of(cost(largest))
        if not budget.caps and bert is not None:
            budget = Budget(max_parameters=num_parameters(config, bert))
        SearchTask(self._children(config), seed=0, cost=cost, budget=budget)
        return budget

    def _children(self, config: SupernetConfig) -> Candidates:
        return children_space(config, native_only=self.arguments.native_only)

    def _cost(self, config: NasBertShapeConfig) -> Callable[[Sequence[str]], dict[str, float]]:
        latency = None if self.arguments.max_latency is None else LatencyTable.read(self._latency_file)
        return cost_function(config, sequence_length=self.data.max_seq_length, latency=latency)

    def _make_scores(self) -> Scores:
        arguments, folder = self.arguments, self.folder
        scoring: dict[str, Any] = {
            "supernet": str(folder / "supernet"),
            "output": str(folder / "scores.jsonl"),
            "num_dev_batches": arguments.num_dev_batches,
            "dev_batch_size": arguments.dev_batch_size,
            "seed": self.training.seed,
            "native_only": arguments.native_only,
        }
        config = self._build_config()
        budget = self._budget(config)
        if arguments.max_latency is not None:
            scoring["latency_table"] = str(self._latency_file)
        is_small = self._children(config).num_children <= arguments.num_evaluations
        if is_small and arguments.max_latency is None:  # a search times its winner
            how = "every plain BERT" if arguments.native_only else "every child"
            scored = score_children(ScoreChildrenArguments(all_children=True, **scoring), self._packed)
        else:
            how = "evolution"
            scoring |= {
                "num_evaluations": arguments.num_evaluations,
                "max_parameters": budget.max_parameters,
                "max_flops": budget.max_flops,
                "max_latency": budget.max_latency_ms,
            }
            scored = search_children(SearchChildrenArguments(**scoring), self._packed)
        admitted = [child for child in scored if child.proxy_loss is not None and budget.admits(child.cost)]
        if not admitted:
            raise ValueError(f"none of {len(scored):,} scored children has a finite loss: the super-net diverged")
        winner = admitted[0]
        say(as_table(scored))
        report_search(
            SearchReportArguments(
                records=str(folder / "scores.jsonl"),
                output=str(folder / "report.html"),
                supernet=str(folder / "supernet"),
            )
        )
        say(f"best of {len(admitted):,} within the budget {budget.caps}: {winner.architecture}")
        return Scores(
            how=how,
            num_scored=len(scored),
            num_within_budget=len(admitted),
            caps=budget.caps,
            winner=str(winner.architecture),
            proxy_loss=winner.loss,
            latency_ms=winner.measured_latency_ms,
        )

    def _make_extracted(self, winner: Architecture) -> Extraction:
        supernet = load_supernet(self.folder / "supernet")
        child = extract_child(supernet, winner)
        difference = prove_equal_logits(supernet, winner, child)
        neighbour = random.Random(0).choice(supernet.space.neighbours(winner))
        other = largest_difference(supernet, neighbour, child)
        say(f"{winner}: logits differ from the super-net's by at most {difference:g} (its neighbour's by {other:.2g})")
        save_child(child, self.corpus.tokenizer, self.folder / "extracted", overwrite=True)
        return Extraction(max_logit_difference=difference)

    def _pretraining(
        self, model: Path, name: str, num_steps: int, *, from_scratch: bool = False
    ) -> PretrainChildArguments:
        return PretrainChildArguments(
            model=str(model),
            output_dir=str(self.folder / name),
            from_scratch=from_scratch,
            learning_rate=self.arguments.child_learning_rate,
            max_steps=num_steps,
            logging_steps=max(num_steps // 10, 1),
            batch_size=self.arguments.child_batch_size,
            num_dev_batches=self.arguments.num_dev_batches,
            dev_batch_size=self.arguments.dev_batch_size,
            seed=self.training.seed,
            **self._precision,
        )

    @property
    def _precision(self) -> dict[str, Any]:
        """The precision of the super-net's training, as the child's training and fine-tuning take it."""
        is_on_cpu = self.training.use_cpu or not torch.accelerator.is_available()
        precision = chosen_precision(self.training.mixed_precision, is_on_cpu=is_on_cpu)
        return {name: name == precision for name in ("bf16", "fp16")}

    def _make_pretrained(self) -> Pretraining:
        asked = self._pretraining(self.folder / "extracted", "pretrained", self.arguments.child_steps)
        record = pretrain_child(asked, self._packed)
        say(f"dev loss {record['dev_loss_before']:.4f} with inherited weights, {record['dev_loss_after']:.4f} after")
        return Pretraining(**{field.name: record[field.name] for field in dataclasses.fields(Pretraining)})

    def _make_finetuned(self) -> Finetuning:
        scratch_asked = self._finetuning("from-scratch", "pretrained", from_scratch=True)
        asked = [self._finetuning("child", "pretrained"), dataclasses.replace(scratch_asked, disable_tqdm=True)]
        child, scratch = side_by_side(finetune_with_cards, asked)
        say(f"child, pre-trained:\n{child.table()}\n\nthe same child from scratch:\n{scratch.table()}")
        return Finetuning(child=child.records, from_scratch=scratch.records)

    def _make_control(self, supernet: TrainedSupernet, pretrained: Pretraining) -> Control:
        """Train and fine-tune the BERT that one would have written without a search."""
        arguments, start = self.arguments, self.folder / "control-start"
        config = NasBertForMaskedLM.from_pretrained(self.folder / "extracted").config
        wanted = num_parameters(config, config.operators)
        bert, cost = bert_beside(config, wanted, sequence_length=self.data.max_seq_length)
        config.operators, config.stage_lengths = list(bert), None
        save_child(NasBertForMaskedLM(config), self.corpus.tokenizer, start, overwrite=True)
        num_tokens = supernet.num_tokens + pretrained.num_tokens
        num_steps = math.ceil(num_tokens / (arguments.child_batch_size * self.data.max_seq_length))
        record = pretrain_child(self._pretraining(start, "control", num_steps, from_scratch=True), self._packed)
        result = finetune_with_cards(self._finetuning("control", "control"))
        say(
            f"control: a BERT of {int(cost['num_parameters']):,} parameters (the child has {wanted:,}), "
            f"{num_tokens:,} tokens: dev loss {record['dev_loss_after']:.4f}; the child, from the super-net: "
            f"{pretrained.dev_loss_after:.4f}\n\n{result.table()}"
        )
        return Control(
            architecture=str(bert),
            num_parameters=int(cost["num_parameters"]),
            num_steps=record["num_steps"],
            num_tokens=record["num_tokens"],
            dev_loss=record["dev_loss_after"],
            finetuned=result.records,
        )

    def _finetuning(self, name: str, model: str, *, from_scratch: bool = False) -> FinetuneArguments:
        arguments = self.arguments
        data: dict[str, Any] = {"packaged": arguments.finetune_packaged}
        if arguments.train_file is not None:
            names = ("train_file", "validation_file", "test_file", "label_column", "text_columns")
            data = {name: getattr(arguments, name) for name in names}
        return FinetuneArguments(
            model=str(self.folder / model),
            output_dir=str(self.folder / "finetuned" / name),
            from_scratch=from_scratch,
            learning_rate=arguments.finetune_learning_rate,
            num_train_epochs=arguments.finetune_epochs,
            max_seq_length=min(64, self.data.max_seq_length),
            logging_steps=10_000,  # the evaluation of every epoch says enough
            hidden_dropout_prob=0.1,
            seeds=arguments.finetune_seeds,
            save_models=not from_scratch,
            **self._precision,
            **data,
        )

    def _make_child(self, made: Made) -> Card:
        child = NasBertForMaskedLM.from_pretrained(self.folder / "pretrained")
        model, why_not_native = native_form(child)
        say("the child is a plain BertForMaskedLM" if why_not_native is None else why_not_native)
        stage_lengths = stage_lengths_of(self._build_config().space)
        scored = scored_children(records.read(self.folder / "scores.jsonl"), "scores.jsonl")
        history = read_log(self.folder / "supernet")
        figures = draw_figures(made.scores, scored, stage_lengths, history, self.folder / "figures")
        record = describe_child(
            child.config,
            made,
            self.data,
            self.training,
            stage_lengths=stage_lengths,
            is_native=why_not_native is None,
            mask_token=str(self.corpus.tokenizer.mask_token),
            split_by=split_by(self._finetuning("child", "pretrained")),
            example=self._examples()[0],
            figures=figures,
        )
        record = ChildRecord.from_dict({**dataclasses.asdict(record), **self.facts})
        # The record travels with the child, so that the card can be rendered again from it.
        record_file = self.folder / "card.json"
        write_text(record_file, json.dumps(dataclasses.asdict(record), indent=2) + "\n")
        save_child(
            model,
            self.corpus.tokenizer,
            self.folder / "child",
            render_child_card(record),
            attachments=[record_file, *figures, *(self.folder / "pretrained").glob(TRAINED_ON)],
            overwrite=True,
        )
        self._write_supernet_card(made.supernet, scored, figures)
        return Card(figures=[figure.name for figure in figures])

    def _write_supernet_card(self, supernet: TrainedSupernet, scored: list[ScoredChild], figures: list[Path]) -> None:
        drawn = [figure for figure in figures if figure.suffix == ".png" and figure.stem != "architecture"]
        about = describe_supernet(
            self.folder / "supernet",
            scored,
            language=self.data.language,
            training={"num_tokens": supernet.num_tokens, "text": name_of_text(self.data)},
            figures={figure.stem: figure.name for figure in drawn},
        )
        write_supernet_card(self.folder / "supernet", about, drawn)

    def _complete_masked(self) -> Answers:
        answers = ask_in_fresh_process(self.folder / "child", self._examples())
        for text, predictions in answers.items():
            say(f"{text}  ->  " + ", ".join(f"{token} {score:.2f}" for token, score in predictions))
        file = self.folder / "fill-mask.json"
        write_text(file, json.dumps(answers, indent=2) + "\n")
        return Answers(answers=answers)


def bert_of(config: SupernetConfig) -> Architecture | None:
    """The child that is a BERT of the space's depth and width, attention and ffn in turn, if the space has one."""
    space = config.space
    bert = [("attention", "ffn")[block % 2] for block in range(space.num_choice_blocks)]
    return Architecture(bert) if bert in space else None


@torch.inference_mode()
def largest_difference(supernet: SupernetForMaskedLM, architecture: Architecture, child: NasBertForMaskedLM) -> float:
    """Largest difference of logits between a child and some architecture of the super-net, on arbitrary tokens."""
    input_ids = torch.arange(16).remainder(child.config.vocab_size)[None]
    expected = supernet.eval()(input_ids, architecture=architecture).logits
    return float((child.eval()(input_ids).logits - expected).abs().max())
