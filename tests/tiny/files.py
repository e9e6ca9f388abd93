"""Rows in files of every kind, and what each command reads of them."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hf_nasbert.data import DataArguments, load_text
from hf_nasbert.finetuning.question_answering_data import load_squad_files
from hf_nasbert.finetuning.sequence_classification_data import load_files
from hf_nasbert.finetuning.token_classification_data import load_tagged_files

TEXT = [{"text": f"text number {number}", "label": "ab"[number % 2]} for number in range(4)]
TAGGED = [{"tokens": ["a", "b"], "tags": ["X", "O"]}, {"tokens": ["c"], "tags": ["O"]}]
ASKED = [
    {"id": str(n), "context": "in Rome", "question": "where?", "answers": {"text": ["Rome"], "answer_start": [3]}}
    for n in range(2)
]
NESTED = [{"title": "x", "paragraphs": [{"context": "in Rome", "qas": [
    {"id": str(n), "question": "where?", "answers": [{"text": "Rome", "answer_start": 3}]} for n in range(2)
]}]}]  # fmt: skip


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return path


def lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows: list) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def separated(rows: list, delimiter: str) -> str:
    return "".join(delimiter.join(map(str, row)) + "\n" for row in [rows[0].keys(), *(row.values() for row in rows)])


def words_of(file: object) -> list:
    words = load_tagged_files(str(file), str(file), tokens="tokens", tags="tags")
    return [
        {"tokens": row["tokens"], "tags": [words.label_names[tag] for tag in row["tags"]]}
        for row in words.splits["train"]
    ]


def questions_of(file: object) -> list:
    return list(load_squad_files(str(file), str(file)).splits["train"])


def texts_of(*files: object) -> list[str]:
    return load_text(DataArguments(train_files=[str(file) for file in files]))["text"][:]


def labels_of(file: object) -> list[tuple[str, str]]:
    task = load_files(str(file), str(file))
    return [(row["text"], task.label_names[row["label"]]) for row in task.train]


COMMANDS: dict[str, tuple[Callable, list, list]] = {
    "pretrain": (texts_of, TEXT, [row["text"] for row in TEXT]),
    "finetune": (labels_of, TEXT, [(row["text"], row["label"]) for row in TEXT]),
    "finetune-tokens": (words_of, TAGGED, TAGGED),
    "finetune-squad": (questions_of, ASKED, ASKED),
}
CONTAINERS: dict[str, Callable[[list], bytes | str]] = {
    "a.jsonl": lines,
    "a.JSONL": lines,
    "a.json": json.dumps,
    "bom.jsonl": lambda rows: "\ufeff" + lines(rows),
    "crlf.jsonl": lambda rows: lines(rows).replace("\n", "\r\n"),
    "indented.json": lambda rows: json.dumps(rows, indent=2),
    "data.json": lambda rows: json.dumps({"version": "1.1", "data": rows}, indent=2),
    "line.json": lambda rows: json.dumps({"version": "1.1", "data": rows}),
    "a.parquet": parquet,
    "A.Parquet": parquet,
    "a.jsonl.gz": lines,
    "a.json.GZ": lambda rows: json.dumps({"data": rows}, indent=1),
    "a.parquet.gz": parquet,
    "run[1]/a*b?.jsonl": lines,
}
FLAT = {
    "a.csv": lambda rows: separated(rows, ","),
    "a.tsv": lambda rows: separated(rows, "\t"),
    "a.TSV.gz": lambda rows: "\ufeff" + separated(rows, "\t"),
}
