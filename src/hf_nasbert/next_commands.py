"""What a command ends with: what it made and where, and the next command to copy."""

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hf_nasbert.compression.arguments import CompressDataArguments
from hf_nasbert.costs import num_parameters
from hf_nasbert.costs.feasibility import cheapest
from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.finetuning.arguments import FinetuneArguments
from hf_nasbert.paths import repository_name, telling_name
from hf_nasbert.pipeline.text_settings import text_files_of, trained_on
from hf_nasbert.recipe_arguments import command_of
from hf_nasbert.space import Architecture

LABELS, TEXT, SUPERNET, NAME = _PLACEHOLDERS = "YOUR_LABELS.csv", "YOUR_TEXT.txt", "YOUR_SUPERNET", "YOUR_NAME"
"""What stands in a command for something of the user's own that no command can know."""
_PROGRAM = "hf-nasbert"


class Ending(NamedTuple):
    """What was made, each with its place, and the commands that go on from there, each with what it is for."""

    made: tuple[tuple[str, str | Path], ...]
    following: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"made: {what}: {where}" for what, where in self.made]
        for purpose, command in self.following:
            own = next((f" (with your own in place of {one})" for one in _PLACEHOLDERS if one in command), "")
            lines += [f"next: {purpose}{own}:", f"  {command}"]
        return "\n".join(lines)


def command(name: str, *flags: str, **settings: object) -> str:
    """A command line of this package that a shell reads as it is meant; settings that are None are left out."""
    words = [_PROGRAM, name]
    for setting, value in settings.items():
        if value is not None:
            words += [f"--{setting}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join([*words, *flags])


def _beside(path: str | Path, suffix: str) -> str:
    """A place beside a folder or a file, by its name without its ending."""
    path = Path(path)
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".yaml")
    return str(path.with_name(f"{stem}-{suffix}"))


def after_run(results: Any, *arguments: Any) -> Ending:
    """After `run`: the child, and how it is published."""
    folder = Path(arguments[-1].output_dir)
    made = [("the child, with its card", folder / "child")]
    report = folder / "report.html"
    made += [("the report", report)] if report.is_file() else []
    return Ending(tuple(made), (_to_publish(folder / "child"),))


def after_compress(result: Any, *_: Any) -> Ending:
    """After `compress`: the smaller models, and how the best is published."""
    made = [(f"the smaller model, {one.row.budget}", one.folder) for one in result.front]
    made += [("the page, for a browser", result.folder / "report.html")]
    made += [("the table and the stages", result.folder / "report.md")]
    return Ending(tuple(made), (_to_publish(result.best.folder),))


def after_plan_compress(_: Any, *arguments: Any) -> Ending:
    """After `plan-compress`: the same settings, carried out."""
    return Ending((("a plan", "above; nothing was written"),), (("carry it out", _same("compress", *arguments)),))


def after_plan(plan: Any, arguments: Any) -> Ending:
    """After `plan`: what it plans, in its order."""
    folder = "planned"
    pretrain = command(
        "pretrain",
        operators=list(plan.config.space.blocks[0]),
        num_choice_blocks=plan.config.space.num_choice_blocks,
        hidden_size=plan.config.hidden_size,
        attention_head_size=plan.config.attention_head_size,
        max_position_embeddings=plan.config.max_position_embeddings,
        vocab_size=arguments.vocab_size,
        max_seq_length=arguments.max_seq_length,
        per_device_train_batch_size=arguments.per_device_train_batch_size,
        max_steps=plan.max_steps,
        train_files=arguments.train_files or [TEXT],
        output_dir=folder,
    )
    found, best = f"{folder}-search.jsonl", f"{folder}-search-best"
    size = arguments.per_device_train_batch_size
    search = command(
        "search", supernet=folder, num_evaluations=plan.num_evaluations, max_parameters=plan.cap, output=found
    )
    extract = command("extract", "--best", supernet=folder, search=found, output_dir=best)
    train = command(
        "pretrain-child", model=best, max_steps=plan.child_steps, batch_size=size, output_dir=f"{best}-trained"
    )
    following = (
        ("train the super-net", pretrain),
        ("search it for the best child", search),
        ("save that child as a model", extract),
        ("train it on alone", train),
    )
    return Ending((("a plan", "above; nothing was written"),), following)


def after_pretrain(output: Any, supernet: Any, data: Any, training: Any) -> Ending:
    """After `pretrain`: a search, or the same command if it was asked to stop."""
    folder = training.output_dir
    if not output.is_finished:
        again = _same("pretrain", supernet, data, training, resume_from_checkpoint="latest")
        return Ending((("the last checkpoint", folder),), (("go on", again),))
    return Ending((("the super-net", folder),), (("search for its best child under a budget", _to_search(folder)),))


def after_search(scored: Any, arguments: Any, _: Any) -> Ending:
    """After `search` and `score`: the best child as a model."""
    made = [("the scored children", arguments.output)]
    report = getattr(arguments, "report", None)
    made += [("the page", report)] if report else []
    if not any(child.proxy_loss is not None for child in scored):
        return Ending(tuple(made))
    return Ending(tuple(made), (_to_extract(arguments.supernet, arguments.output),))


def after_report(page: Any, arguments: Any) -> Ending:
    """After `report`: the best child as a model."""
    is_search = arguments.supernet is not None  # of a compression, the page says itself where the models lie
    following = (_to_extract(arguments.supernet, arguments.records),) if is_search else ()
    return Ending((("the page, for a browser", page),), following)


def after_shrink_space(_: Any, arguments: Any) -> Ending:
    """After `shrink-space`: a super-net of the smaller space."""
    source = _source_of_model(arguments.supernet) or {"train_files": [TEXT]}
    pretrain = command("pretrain", config=arguments.output, output_dir=_beside(arguments.output, "supernet"), **source)
    return Ending((("the smaller space", arguments.output),), (("train a super-net of it", pretrain),))


def after_latency(_: Any, arguments: Any) -> Ending:
    """After `latency`: a search under a cap on latency."""
    search = command(
        "search",
        supernet=arguments.supernet,
        output=_beside(arguments.output, "search.jsonl"),
        latency_table=arguments.output,
        max_latency="0.7x",
    )
    return Ending(
        (("the table of latencies", arguments.output),), (("search for the best child under a cap", search),)
    )


def after_extract(extracted: Any, arguments: Any) -> Ending:
    """After `extract`: further pre-training of a masked-LM child; any other is published."""
    folder = arguments.output_dir
    if extracted.class_name.endswith("ForMaskedLM"):
        named = None if _source_of_model(folder) else [TEXT]
        train = command("pretrain-child", model=folder, output_dir=_beside(folder, "trained"), train_files=named)
        return Ending((("the child", folder),), (("train it on alone, which makes it better", train),))
    return Ending((("the child", folder),), (_to_publish(folder),))


def after_export(exported: Any, arguments: Any) -> Ending:
    """After `export`: the file run on a text."""
    return Ending((("the ONNX file", exported.file),), _to_run(exported.file))


def after_pretrain_child(_: Any, arguments: Any, __: Any) -> Ending:
    """After `pretrain-child`: fine-tuning."""
    folder = arguments.output_dir
    return Ending(
        (("the trained child", folder),),
        (("fine-tune a classifier on your texts, columns text and label", _to_finetune(folder)),),
    )


def after_finetune(result: Any, arguments: Any) -> Ending:
    """After fine-tuning: a stock classifier in half of its time, and the model of the first seed on the Hub."""
    from hf_nasbert.data.packaged import PREFIX

    if not arguments.save_models:
        return Ending((("the results", arguments.records_file),))
    folders = [arguments.model_folder(result.task, seed) for seed in arguments.seeds]
    made = tuple((f"the model of seed {seed}", one) for seed, one in zip(arguments.seeds, folders, strict=True))
    base = arguments.model if Path(arguments.model).is_dir() else arguments.model.removeprefix(PREFIX)
    name = f"{telling_name(base)}-{result.task}"
    following = (*_to_compress(folders[0], arguments), _to_publish(folders[0], name))
    return Ending((*made, ("the results", arguments.records_file)), following)


def after_train_children(_: Any, farm: Any, __: Any, data: Any) -> Ending:
    """After `train-children`: a super-net to rank against the table."""
    source = {name: getattr(data, name) for name in DataArguments.alternatives}
    scores = _beside(farm.table, "scores.jsonl")
    rank = command("rank-children", table=farm.table, supernets=SUPERNET, scores=scores, **source)
    return Ending((("the table", farm.table),), (("compare a super-net's ranking with it", rank),))


def after_rank_children(_: Any, arguments: Any, *__: Any) -> Ending:
    """After rankings: figures, if none were drawn."""
    made = [("the records", arguments.scores)]
    made += [(what, place) for what in ("page", "figures") if (place := getattr(arguments, what)) is not None]
    if arguments.figures is not None:
        return Ending(tuple(made))
    figures = _beside(arguments.scores, "figures")
    draw = command("report-ranking", table=arguments.table, scores=arguments.scores, figures=figures)
    return Ending(tuple(made), (("draw them as figures", draw),))


def after_measure_interference(_: Any, arguments: Any, __: Any) -> Ending:
    """After `measure-interference`: tables and figures."""
    figures = _beside(arguments.output, "figures")
    draw = command("report-interference", measured=arguments.output, figures=figures)
    return Ending((("the records", arguments.output),), (("make tables and figures", draw),))


def after_report_interference(_: Any, arguments: Any) -> Ending:
    """After `report-interference`: nothing follows, but figures if none were drawn."""
    made = [(what, place) for what in ("page", "figures") if (place := getattr(arguments, what)) is not None]
    made = made or [("tables", "above; nothing was written")]
    if arguments.figures is not None:
        return Ending(tuple(made))
    figures = _beside(arguments.measured, "figures")
    return Ending(
        tuple(made),
        (("draw them as figures", command("report-interference", measured=arguments.measured, figures=figures)),),
    )


def after_push(pushed: Any, arguments: Any) -> Ending:
    """After `push`: the push itself after a dry run, else the way back."""
    if pushed.is_dry_run:
        push = _same("push", arguments, dry_run=False)
        return Ending((("a list", "above; nothing was sent"),), (("publish it", push),))
    kind = {} if pushed.contents.repo_type == "model" else {"repo_type": pushed.contents.repo_type}
    folder = arguments.repo_id.rpartition("/")[2]
    pull = command("pull", repo_id=arguments.repo_id, output_dir=folder, **kind)
    return Ending((("the repository", arguments.repo_id),), (("fetch it elsewhere", pull),))


def after_pull(pulled: Any, arguments: Any) -> Ending:
    """After `pull`: what such a model, or table, is for."""
    folder = arguments.output_dir
    following: tuple[tuple[str, str], ...] = ()
    if pulled.kind == "child":
        following = (("fine-tune a classifier on your texts, columns text and label", _to_finetune(folder)),)
    elif pulled.kind == "super-net":
        following = (("search for its best child under a budget", _to_search(folder)),)
    return Ending(((f"the {pulled.kind}", folder),), following)


ENDINGS: dict[str, Callable[..., Ending]] = {
    "run": after_run,
    "compress": after_compress,
    "plan-compress": after_plan_compress,
    "plan": after_plan,
    "pretrain": after_pretrain,
    "score": after_search,
    "search": after_search,
    "report": after_report,
    "shrink-space": after_shrink_space,
    "latency": after_latency,
    "extract": after_extract,
    "export": after_export,
    "pretrain-child": after_pretrain_child,
    "finetune": after_finetune,
    "finetune-squad": after_finetune,
    "finetune-tokens": after_finetune,
    "train-children": after_train_children,
    "rank-children": after_rank_children,
    "report-ranking": after_rank_children,
    "measure-interference": after_measure_interference,
    "report-interference": after_report_interference,
    "push": after_push,
    "pull": after_pull,
}


def ending_of(name: str, result: Any, *arguments: Any) -> str:
    """The last lines of a command, of what it returned and what it was called with."""
    return f"\n{ENDINGS[name](result, *arguments)}"


def _to_search(folder: str | Path) -> str:
    named = None if _source_of_model(folder) else [TEXT]
    output = _beside(folder, "search.jsonl")
    return command("search", supernet=folder, output=output, max_parameters=_half_way(folder), train_files=named)


def _half_way(folder: str | Path) -> str | None:
    """A cap on parameters half way between the smallest and the largest child: a share of the largest's."""
    from hf_nasbert.extraction import load_supernet_config

    config = load_supernet_config(folder)

    def cost(child: Architecture) -> int:
        return num_parameters(config, child)

    largest = cost(cheapest(config.space, lambda child: -cost(child)))
    factor = math.ceil(50 * (1 + cost(cheapest(config.space, cost)) / largest)) / 100
    return f"{factor:g}x" if factor < 1 else None


def _source_of_model(folder: str | Path) -> dict[str, Any]:
    """The text that a model was trained on, if a command would find it by its folder."""
    known = trained_on(folder)
    found = {name: known[name] for name in DataArguments.alternatives if name in known}
    files = text_files_of(folder)
    return found or ({} if files is None else {"train_files": files})


def _to_extract(supernet: str, records: str) -> tuple[str, str]:
    folder = _beside(records, "best")
    extract = command("extract", "--best", supernet=supernet, search=records, output_dir=folder)
    return "save its best child as a model of its own", extract


def _to_run(file: Path) -> tuple[tuple[str, str], ...]:
    """Python that runs an ONNX file on a text and prints the shapes it gives; none without a tokenizer.json."""
    from hf_nasbert.configs import read_model_config

    tokenizer = file.with_name("tokenizer.json")
    if not tokenizer.is_file():
        return ()
    names = read_model_config(file.with_name("config.json"), str(file.parent)).get("architectures") or [""]
    shape = "[[ids]]" if names[0].endswith("MultipleChoice") else "[ids]"
    words, place = (json.dumps(str(path), ensure_ascii=False) for path in (tokenizer, file))
    code = (
        f'import numpy, onnxruntime, tokenizers; text = tokenizers.Tokenizer.from_file({words}).encode("a text"); '
        'inputs = {"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}; '
        f"print([found.shape for found in onnxruntime.InferenceSession({place}).run(None, "
        f"{{name: numpy.array({shape}) for name, ids in inputs.items()}})])"
    )
    return (("run it on a text, without this package", shlex.join(["python", "-c", code])),)


def _to_finetune(folder: str | Path) -> str:
    return command("finetune", model=folder, train_file=LABELS, output_dir=_beside(folder, "finetuned"))


def _to_compress(folder: str | Path, arguments: Any) -> tuple[tuple[str, str], ...]:
    """A stock classifier in half of its time, by the same examples; none of a child, and of other tasks."""
    from hf_nasbert.configs import read_model_config
    from hf_nasbert.modeling.families import FAMILIES

    if not isinstance(arguments, FinetuneArguments) or arguments.dataset_name:
        return ()
    if read_model_config(Path(folder) / "config.json", f"{folder}/config.json").get("model_type") not in FAMILIES:
        return ()
    names = (
        "task", "packaged", "train_file", "validation_file", "test_file", "label_column", "text_columns",
        "max_seq_length",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names}
    examples = {name: one for name, one in given.items() if one != getattr(FinetuneArguments, name)}  # equal defaults
    if arguments.is_held_out:  # compress has to hold out of these rows, which the model was not trained on
        share = arguments.validation_fraction / (1 if arguments.test_file else 2)
        examples["validation_fraction"] = share if share < CompressDataArguments.validation_fraction else None
        examples["data_seed"] = arguments.data_seed or None
    output = f"{Path(arguments.output_dir)}-half"
    compress = command("compress", base_model=folder, **examples, max_latency="0.5x", output_dir=output)
    return (("make it twice as fast", compress),)


def _to_publish(folder: str | Path, name: str | None = None) -> tuple[str, str]:
    name = name or telling_name(folder)
    repo_id = f"{NAME}/{repository_name(name)}"
    push = command("push", "--private", "--dry_run", source=folder, repo_id=repo_id)
    return "list what a push to the Hub would send", push


def _same(name: str, *arguments: Any, **changed: object) -> str:
    """The command of these settings, but for some."""
    return command_of(
        f"{_PROGRAM} {name}",
        *(replace(one, **{key: value for key, value in changed.items() if hasattr(one, key)}) for one in arguments),
    )
