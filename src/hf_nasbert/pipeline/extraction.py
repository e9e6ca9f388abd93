"""A super-net's folder and an architecture in, a child's folder out: nothing is written before the proof holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_nasbert import records
from hf_nasbert.cards import ChildRecord, datasets_of, render_child_card, title_of
from hf_nasbert.child_folders import check_place, save_child
from hf_nasbert.costs import LatencyTable, bert_beside, cost_function, num_parameters
from hf_nasbert.data import DataArguments
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.trained_on import write_text_files, write_trained_on
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.elastic.base_models import TASKS
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.modeling.elastic import AUTO_CLASSES
from hf_nasbert.modeling.families import native_form, to_bert
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SUPERNET_FOLDER, read_sentence_modules
from hf_nasbert.pipeline.arguments import ExtractionArguments
from hf_nasbert.pipeline.inputs import supernet_digest
from hf_nasbert.pipeline.interference import describe_run
from hf_nasbert.pipeline.text_settings import find_tokenizer, say, text_files_of, trained_on, training_of
from hf_nasbert.processes import be_alone
from hf_nasbert.report import read_findings
from hf_nasbert.space import SKIP, Architecture, SearchSpace
from hf_nasbert.writing import scratch_folder


@dataclass(frozen=True)
class Extracted:
    """A child's folder, the largest difference of its logits from the super-net's, and why it is no stock BERT."""

    folder: Path
    architecture: Architecture
    num_parameters: int
    max_logit_difference: float
    why_not_native: str | None
    class_name: str = "BertForMaskedLM"

    def __str__(self) -> str:
        proof = f"logits equal the super-net's (largest difference {self.max_logit_difference:g})"
        form = (
            f"a plain {self.class_name}: loads anywhere without trust_remote_code"
            if self.why_not_native is None
            else f"loads with trust_remote_code=True, for {self.why_not_native}"
        )
        return f"{self.folder}: {self.architecture}, {self.num_parameters:,} parameters; {proof}; {form}"


def extract(arguments: ExtractionArguments) -> Extracted:
    """Load, extract, prove, write.

    Raises:
        FileNotFoundError: If super-net, tokenizer or card file are missing.
        FileExistsError: If `output_dir` holds something, and `overwrite` is not given or it is no model.
        ValueError: If the file of a search holds no such child, or is of another super-net; the architecture is not
            in the space, is no plain BERT though `native` is "always", the logits differ, or the log of the
            super-net's training is damaged.
        WriteError: If the folder cannot be written.
    """
    be_alone("extracting a child")
    facts = read_facts(arguments.card) if arguments.card else {}
    check_place(Path(arguments.output_dir).resolve(), arguments.overwrite)  # refused now, not after the proof
    architecture = chosen_child(arguments)
    supernet = load_supernet(arguments.supernet, None)
    known, (text, data) = trained_on(arguments.supernet), training_of(arguments.supernet)
    home = Path(find_tokenizer(arguments.supernet) or arguments.supernet)
    tokenizer_folder, modules = Path(arguments.tokenizer_name or home), home / SUPERNET_FOLDER
    if not (tokenizer_folder / "tokenizer_config.json").is_file():
        raise FileNotFoundError(f"{tokenizer_folder} holds no tokenizer: name its folder with --tokenizer_name")
    tokenizer = open_tokenizer(tokenizer_folder)
    size, num_embeddings = vocabulary_size(tokenizer), supernet.config.vocab_size
    # A base model may have more embeddings than its tokenizer has tokens.
    if size > num_embeddings or (size < num_embeddings and supernet.config.weight_layout != "nested"):
        raise ValueError(
            f"the tokenizer in {tokenizer_folder} has {size} tokens, the super-net "
            f"{supernet.config.vocab_size} embeddings: name the one it was trained with (--tokenizer_name)"
        )
    sequence_length = arguments.max_seq_length or known.get("max_seq_length", DataArguments.max_seq_length)
    say(
        f"the card gives the costs of {sequence_length} tokens"
        + ("" if arguments.max_seq_length else f", as {arguments.supernet} was trained on")
    )
    child = extract_child(supernet, architecture)
    model, why_not_native = _in_form(child, arguments.native)
    difference = prove_equal_logits(supernet, architecture, model, tolerance=arguments.tolerance)
    space = supernet.space
    stage_lengths = stage_lengths_of(space)
    with scratch_folder() as drawings:
        figures = []
        if find_spec("matplotlib") is not None:  # the extra "plots"
            from hf_nasbert.plots import plot_architecture, save_figure

            drawn = plot_architecture(architecture, stage_lengths=stage_lengths)
            figures = list(save_figure(drawn, drawings / "architecture"))
        record = ChildRecord.from_dict(
            {
                "name": title_of(child.num_parameters(), known),
                "architecture": str(architecture),
                "native": why_not_native is None,
                "mask_token": tokenizer.mask_token,
                "task": TASKS[type(child)],
                "auto_class": AUTO_CLASSES[type(child)].__name__,
                "class_name": type(model).__name__,
                "language": known.get("language"),
                "datasets": datasets_of(known),
                "model": {"hidden_size": supernet.config.hidden_size, "vocab_size": supernet.config.vocab_size},
                "stage_lengths": stage_lengths,
                **_costs(supernet, architecture, sequence_length, arguments.latency_table),
                "supernet": _described(arguments.supernet, text) | {"num_children": space.num_children},
                "max_logit_difference": difference,
                "figures": {"architecture": "architecture.png"} if figures else {},
                "versions": records.versions(),
                **facts,
            }
        )
        folder = save_child(
            model,
            tokenizer,
            arguments.output_dir,
            render_child_card(record),
            attachments=figures if not data else [*figures, write_trained_on(drawings, text, data)],
            sentence_modules=read_sentence_modules(modules) if modules.is_dir() else None,
            overwrite=arguments.overwrite,
        )
    write_text_files(folder, text_files_of(arguments.supernet))
    return Extracted(
        folder,
        architecture,
        int(record.cost["num_parameters"]),
        difference,
        why_not_native,
        type(model).__name__,
    )


def chosen_child(arguments: ExtractionArguments) -> Architecture:
    """The child that is named, or the one of that rank in the file of a search.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds fewer children, or is of another super-net.
    """
    if arguments.architecture is not None:
        return Architecture.parse(arguments.architecture)
    source = Path(str(arguments.search))
    findings = read_findings(records.read(source), source.name)
    expected, digest = findings.settings.get("supernet"), supernet_digest(arguments.supernet)
    if expected not in (None, digest):
        raise ValueError(
            f"{source} is of another super-net ({expected}) than {arguments.supernet} ({digest}): name the "
            "super-net that was searched"
        )
    ranking, rank = findings.ranking(), arguments.rank or 1
    if rank > len(ranking):
        raise ValueError(f"rank={rank}: {source} holds {len(ranking)} children with a finite loss")
    child = findings.children[ranking[rank - 1]]
    say(f"rank {rank} of {len(ranking):,} in {source}: {child.architecture}, loss {child.loss:.4f}")
    return child.architecture


def _in_form(child: NasBertPreTrainedModel, native: str) -> tuple[PreTrainedModel, str | None]:
    """The model to write, and why it is no stock BERT, if it is none."""
    if native == "never":
        return child, "its own class was asked for"
    return (to_bert(child), None) if native == "always" else native_form(child)


def _described(supernet: str, text: Mapping[str, Any]) -> dict[str, Any]:
    """How the super-net was trained, as far as its folder says it."""
    run = describe_run(supernet)
    said = {"method": run["method"], "num_steps": run["step"], "text": text.get("source"), "seed": run["seed"]}
    return {name: value for name, value in said.items() if value is not None}


def _costs(
    supernet: SupernetPreTrainedModel, architecture: Architecture, sequence_length: int, latency_table: str | None
) -> dict[str, Any]:
    """What the child costs, and the BERT beside it."""
    latency = None if latency_table is None else LatencyTable.read(latency_table)
    conditions = f"FLOPs and memory of one sequence of {sequence_length} tokens."
    return {
        "cost": cost_function(
            supernet.config,
            sequence_length=sequence_length,
            latency=latency,
            head_parameters=supernet.head_parameters,
        )(architecture),
        "bert_cost": cost_of_bert_beside(supernet.config, architecture, sequence_length, latency=latency)
        if supernet.head_parameters is None
        else {},  # it is counted with a masked-LM head
        "cost_conditions": conditions if latency is None else f"{conditions} Latency: {latency.described}.",
    }


def stage_lengths_of(space: SearchSpace) -> list[int] | None:
    """The blocks of each stage as cards and drawings want them: None where there is one stage."""
    lengths = [stage.stop - stage.start for stage in space.stage_slices]
    return lengths if len(lengths) > 1 else None


def cost_of_bert_beside(
    config: Any, architecture: Sequence[str], sequence_length: int = 128, latency: LatencyTable | None = None
) -> dict[str, Any]:
    """The costs of the BERT that a card holds a child against, and its name; nothing where the child is that BERT."""
    wanted = num_parameters(config, architecture)
    bert, cost = bert_beside(config, wanted, sequence_length=sequence_length, latency=latency)
    if cost["num_parameters"] == wanted and bert == tuple(name for name in architecture if name != SKIP):
        return {}
    num_layers = len(bert) // 2
    return {"name": f"BERT of the same width, {num_layers} layer{'s' if num_layers > 1 else ''}", **cost}


def read_facts(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"card {path}: no such file")
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or ten thousand brackets
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds no JSON object, but a {type(facts).__name__}")
    return facts
