"""The `hf-nasbert` command: every subcommand turns its arguments into one library call."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from hf_nasbert.foreign import printable
from hf_nasbert.guides import GUIDES
from hf_nasbert.neighbours import Neighbours
from hf_nasbert.terminal import KEPT, say, user_mistakes


class Command(NamedTuple):
    """What a subcommand calls, the dataclasses that it calls it with (from YAML and flags), and what it says then."""

    help: str
    function: str
    arguments: tuple[str, ...]
    report: Callable[..., str]
    kept: str = KEPT
    """What Ctrl-C leaves, and how to go on."""
    look: str | None = None
    """What looks up the settings that are not given."""
    is_long: bool = False
    """Whether it may be given a time to stop after."""


_DATA = "hf_nasbert.data.DataArguments"
_TRAINED_ON = "hf_nasbert.pipeline.text_settings.settings_of_model"  # text, lengths, masking: as the model was trained
_TIME = "hf_nasbert.stopping.TimeArguments"
_LENGTH = "hf_nasbert.pipeline.text_settings.length_of_model"
_LOOKED_UP = "text settings that you leave out default to those in the model's folder"
_SUPERNET = ("hf_nasbert.training.SupernetArguments", _DATA, "hf_nasbert.training.SupernetTrainingArguments")

COMMANDS = {
    "run": Command(
        "from text alone to a small pretrained BERT: every stage, resumed where it stopped",
        "hf_nasbert.pipeline.run_pipeline",
        (*_SUPERNET, "hf_nasbert.pipeline.PipelineArguments"),
        lambda results, *_: find("hf_nasbert.pipeline.stages.as_table")(results),
        "the stages that are done are kept, and the others as far as they were saved: the same command goes on",
        is_long=True,
    ),
    "compress": Command(
        "make an encoder that you have smaller and faster, and measure what it lost",
        "hf_nasbert.compression.run_compression",
        ("hf_nasbert.compression.CompressDataArguments", "hf_nasbert.compression.CompressArguments"),
        lambda result, *_: find("hf_nasbert.compression.results.as_screen")(result),
        "the stages that are done are kept, and the others as far as they were saved: the same command goes on",
        is_long=True,
    ),
    "plan-compress": Command(
        "estimate the CPU-minutes and memory of a compress command, without running it",
        "hf_nasbert.compression.run_plan",
        ("hf_nasbert.compression.CompressDataArguments", "hf_nasbert.compression.CompressArguments"),
        lambda plan, *_: str(plan),
        "nothing was written: run the same command again",
    ),
    "plan": Command(
        "choose a search space and training steps for a budget, after a short measurement on this machine",
        "hf_nasbert.pipeline.plan_search",
        ("hf_nasbert.pipeline.PlanArguments",),
        lambda plan, *_: str(plan),
        "nothing was written: run the same command again",
    ),
    "pretrain": Command(
        "train a super-net",
        "hf_nasbert.training.pretrain_supernet",
        _SUPERNET,
        lambda output, *arguments: f"{arguments[-1].output_dir}: {output}",
        "the last checkpoint is kept: the same command with --resume_from_checkpoint latest goes on from it",
        is_long=True,
    ),
    "score": Command(
        "score children of a super-net on held-out text",
        "hf_nasbert.pipeline.score_children",
        ("hf_nasbert.pipeline.ScoreChildrenArguments", _DATA),
        lambda scored, *_: find("hf_nasbert.pipeline.scores.as_table")(scored),
        "what was scored is in the output file: the same command scores the others",
        _TRAINED_ON,
        is_long=True,
    ),
    "search": Command(
        "search a super-net for its best children under a budget",
        "hf_nasbert.pipeline.search_children",
        ("hf_nasbert.pipeline.SearchChildrenArguments", _DATA),
        lambda scored, *arguments: find("hf_nasbert.pipeline.scores.as_search_report")(scored, *arguments),
        "what was scored is in the output file: the same command goes on from it",
        _TRAINED_ON,
        is_long=True,
    ),
    "report": Command(
        "write an HTML page of a search or a compression, or of two side by side",
        "hf_nasbert.pipeline.report_search",
        ("hf_nasbert.pipeline.SearchReportArguments",),
        lambda page, *_: str(page),
        "nothing was written: run the same command again",
    ),
    "shrink-space": Command(
        "drop the operators that make scored children worse from a search space",
        "hf_nasbert.pipeline.shrink_space",
        ("hf_nasbert.pipeline.ShrinkSpaceArguments",),
        lambda shrunk, *_: str(shrunk),
        "nothing was written: run the same command again",
    ),
    "latency": Command(
        "time the operators on this machine: a latency table for searches",
        "hf_nasbert.pipeline.measure_latency",
        ("hf_nasbert.pipeline.LatencyArguments",),
        lambda measured, *_: find("hf_nasbert.pipeline.latency.as_text")(measured),
        "nothing was written: run the same command again",
    ),
    "extract": Command(
        "save a child as a model of its own, and check that its logits are equal",
        "hf_nasbert.pipeline.extract",
        ("hf_nasbert.pipeline.ExtractionArguments",),
        lambda extracted, *_: str(extracted),
        "nothing was written but what is whole: run the same command again",
    ),
    "export": Command(
        "export a child as ONNX, and check that its outputs are equal in onnxruntime",
        "hf_nasbert.export.export_child",
        ("hf_nasbert.export.ExportArguments",),
        lambda exported, *_: str(exported),
        "nothing was written but what is whole: run the same command again",
    ),
    "pretrain-child": Command(
        "continue a child's masked-LM pre-training",
        "hf_nasbert.finetuning.pretrain_child",
        ("hf_nasbert.finetuning.PretrainChildArguments", _DATA),
        lambda record, *_: f"dev loss {record['dev_loss_before']:.4f} -> {record['dev_loss_after']:.4f}",
        "the last checkpoint is kept: the same command goes on from it",
        _TRAINED_ON,
        is_long=True,
    ),
    "finetune": Command(
        "fine-tune a child, or any other model, on GLUE or labelled files",
        "hf_nasbert.pipeline.finetune_with_cards",
        ("hf_nasbert.finetuning.FinetuneArguments",),
        lambda result, *_: result.table(),
        "finished seeds and the last checkpoint are kept: the same command goes on from them",
        _LENGTH,
        is_long=True,
    ),
    "finetune-squad": Command(
        "fine-tune on questions about passages, SQuAD v1.1 or v2",
        "hf_nasbert.pipeline.finetune_with_cards",
        ("hf_nasbert.finetuning.FinetuneSquadArguments",),
        lambda result, *_: result.table(),
        "finished seeds and the last checkpoint are kept: the same command goes on from them",
        is_long=True,
    ),
    "finetune-tokens": Command(
        "fine-tune on tagged words: parts of speech, named entities",
        "hf_nasbert.pipeline.finetune_with_cards",
        ("hf_nasbert.finetuning.FinetuneTokensArguments",),
        lambda result, *_: result.table(),
        "finished seeds and the last checkpoint are kept: the same command goes on from them",
        _LENGTH,
        is_long=True,
    ),
    "train-children": Command(
        "train children alone, from scratch: the reference table for rank-children",
        "hf_nasbert.training.farm.train_children",
        ("hf_nasbert.training.arguments.FarmArguments", "hf_nasbert.training.arguments.StandaloneArguments", _DATA),
        lambda table, farm, *_: find("hf_nasbert.training.farm.as_text")(table, farm),
        "finished children are kept: the same command trains the others",
        is_long=True,
    ),
    "rank-children": Command(
        "compare super-nets' rankings of children with the same children trained alone",
        "hf_nasbert.pipeline.rank_children",
        ("hf_nasbert.pipeline.RankChildrenArguments", _DATA),
        lambda ranked, *_: ranked.as_markdown(),
        "super-nets that were scored are kept: the same command scores the others",
    ),
    "report-ranking": Command(
        "make tables and figures from the records of rank-children",
        "hf_nasbert.pipeline.report_ranking",
        ("hf_nasbert.pipeline.RankingReportArguments",),
        lambda ranked, *_: ranked.as_markdown(),
        "nothing was written but what is whole: run the same command again",
    ),
    "measure-interference": Command(
        "measure how similar a shared operator's gradients are under two children",
        "hf_nasbert.pipeline.measure_interference",
        ("hf_nasbert.pipeline.InterferenceArguments", _DATA),
        lambda measured, *_: find("hf_nasbert.pipeline.interference.as_text")(measured),
        "super-nets that were measured are kept: the same command measures the others",
    ),
    "report-interference": Command(
        "make tables and figures from the records of measure-interference",
        "hf_nasbert.pipeline.report_interference",
        ("hf_nasbert.pipeline.InterferenceReportArguments",),
        lambda tables, *_: tables,
        "nothing was written but what is whole: run the same command again",
    ),
    "push": Command(
        "publish a child, a super-net or a table on the Hub, as one commit",
        "hf_nasbert.hub.push",
        ("hf_nasbert.hub.PushArguments",),
        lambda pushed, *_: str(pushed),
        "a commit is on the Hub whole or not at all: look there, and run the same command again if it is not",
    ),
    "pull": Command(
        "download a child, a super-net or a table from the Hub into a folder",
        "hf_nasbert.hub.pull",
        ("hf_nasbert.hub.PullArguments",),
        lambda pulled, *_: str(pulled),
        "no half of a folder is left: run the same command again",
    ),
}


def find(name: str) -> Any:
    """The object of a dotted name; torch and transformers are loaded here at the earliest, never for `--help`."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(argv[0]) if argv else None
    if command is None:
        with user_mistakes("hf-nasbert"):
            return _without_command(argv)
    program = f"hf-nasbert {argv[0]}"
    sys.argv[0] = program  # what usage messages call the program
    with user_mistakes(program, kept=command.kept):  # from here on: the imports take seconds
        neighbours = Neighbours()
        parse = find("hf_nasbert.recipe_arguments.parse_recipe_arguments")
        look = None if command.look is None else find(command.look)
        description = f"{command.help}; {_LOOKED_UP}" if command.look == _TRAINED_ON else command.help
        kinds = [find(name) for name in (*command.arguments, *([_TIME] if command.is_long else []))]
        arguments = parse(kinds, argv[1:], description=description, look=look, guide=GUIDES[argv[0]])
        limit = None
        if command.is_long:
            *arguments, time = arguments
            limit = time.seconds
        with user_mistakes(program, arguments, command.kept), find("hf_nasbert.stopping.time_limit")(limit):
            function = find(command.function)
            _hide_foreign_bars()
            if command.is_long and (advice := neighbours.advice()):
                print(advice, file=sys.stderr)
            result = function(*arguments)
            say(command.report(result, *arguments))
            say(find("hf_nasbert.next_commands.ending_of")(argv[0], result, *arguments))
    return 0


def _hide_foreign_bars() -> None:
    """Keep transformers from drawing bars of loading and saving weights, seconds each; downloads keep theirs."""
    if "transformers" in sys.modules:
        was_hidden = find("huggingface_hub.utils.are_progress_bars_disabled")()
        find("transformers.utils.logging.disable_progress_bar")()  # those of downloads too
        if not was_hidden:
            find("huggingface_hub.utils.enable_progress_bars")()


def _without_command(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"hf_nasbert {metadata.version('hf_nasbert')}")
        return 0
    close = difflib.get_close_matches(argv[0].replace("_", "-"), COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else "hf-nasbert --help lists them all"
    print(f"hf-nasbert: there is no command {printable(repr(argv[0]), 80)}; {hint}", file=sys.stderr)
    return 2


def usage() -> str:
    """The text of `--help`."""
    width = max(len(name) for name in COMMANDS)
    commands = "\n".join(f"  {name.ljust(width)}  {command.help}" for name, command in COMMANDS.items())
    return (
        "usage: hf-nasbert COMMAND [--config NAME|FILE.yaml] [--setting VALUE ...]\n\n"
        f"Make an encoder smaller and faster, and see what it lost.\n\n{commands}\n\n"
        "Start with compress. hf-nasbert COMMAND --help shows an example and a command's usual settings, --help all "
        "every\nsetting, --help NAME one of them."
    )
