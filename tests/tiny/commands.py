"""What writes, each at its smallest: functions of a folder of inputs and of a folder for the outputs."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.export import INPUTS, export_onnx, onnx
from hf_nasbert.extraction import extract_child
from hf_nasbert.pipeline import (
    ExtractionArguments,
    LatencyArguments,
    ScoreChildrenArguments,
    SearchChildrenArguments,
    SearchReportArguments,
    extract,
    measure_latency,
    report_search,
    score_children,
    search_children,
)
from hf_nasbert.pipeline.supernet_card import describe_supernet, write_supernet_card
from hf_nasbert.pipeline.whole import Pipeline, PipelineArguments
from hf_nasbert.plots import plot_architecture, save_figure
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments
from hf_nasbert.training.farm import compress_table
from tiny.farm import SPACE as FARMED
from tiny.farm import record_of
from tiny.models import tiny_supernet
from tiny.records import ABOUT, history
from tiny.scores import DATA, stub_files
from tiny.texts import tiny_tokenizer

CHILD = ("attention", "conv3", "ffn", "attention", "ffn")
_SCORING = {"supernet": "x", "num_dev_batches": 1, "dev_batch_size": 2}


def prepare(given: Path) -> None:
    """The inputs of all commands."""
    supernet = tiny_supernet()
    supernet.save_pretrained(given / "supernet")
    tiny_tokenizer().save_pretrained(given / "supernet")
    records.extend(given / "search.jsonl", history(about={**ABOUT, "supernet": None}))
    (given / "front.png").write_bytes(bytes(10_000))


def lay_out(out: Path) -> None:
    """What commands read beside what they write: a page to fill, a table to compress."""
    out.mkdir(exist_ok=True)
    (out / "page.md").write_text("<!-- table: a -->\n<!-- end -->\n")
    records.extend(out / "table.jsonl", [record_of(child) for child in FARMED.enumerate()])


@contextmanager
def stubs() -> Iterator[None]:
    """Random text in place of files, and an exporter and a runtime without the packages of the extra."""
    graphs = []

    def write(graph, file):
        graphs.append(graph)
        file.write_bytes(bytes(50_000))

    class Session:
        def __init__(self, file, providers):
            pass

        def run(self, names, feeds):
            with torch.no_grad():
                return [tensor.numpy() for tensor in graphs[-1](*(torch.from_numpy(feeds[name]) for name in INPUTS))]

    with pytest.MonkeyPatch.context() as patched:
        stub_files(patched)
        patched.setattr(onnx._Graph, "write", write)
        patched.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
        patched.setattr(onnx, "check_extra", lambda *_: None)
        yield


def score(given: Path, out: Path) -> None:
    score_children(ScoreChildrenArguments(output=str(out / "scores.jsonl"), all_children=True, **_SCORING), DATA)


def _search(name: str, report: str | None = None) -> Callable[[Path, Path], None]:
    def search(given: Path, out: Path) -> None:
        page = None if report is None else str(out / report)
        arguments = SearchChildrenArguments(
            output=str(out / "search.jsonl"), search=name, num_evaluations=20, report=page, **_SCORING
        )
        search_children(arguments, DATA)

    return search


def report(given: Path, out: Path) -> None:
    arguments = SearchReportArguments(
        records=str(given / "search.jsonl"), output=str(out / "page.html"), supernet=str(given / "nowhere")
    )
    report_search(arguments)


def latency(given: Path, out: Path) -> None:
    measure_latency(
        LatencyArguments(
            supernet=str(given / "supernet"),
            output=str(out / "latency.jsonl"),
            batch_size=1,
            max_seq_length=8,
            num_visits=1,
            num_children=2,
            num_rounds=1,
        )
    )


def extract_one(given: Path, out: Path) -> None:
    extract(
        ExtractionArguments(
            supernet=str(given / "supernet"), architecture="-".join(CHILD), output_dir=str(out / "child")
        )
    )


def export_one(given: Path, out: Path) -> None:
    child = extract_child(tiny_supernet(), CHILD)
    export_onnx(child, tiny_tokenizer(), out / "onnx")


def figure(given: Path, out: Path) -> None:
    save_figure(plot_architecture(CHILD), out / "figures" / "architecture")


def page(given: Path, out: Path) -> None:
    fill_page(out / "page.md", {"a": "| row |\n" * 1000})


def card(given: Path, out: Path) -> None:
    about = describe_supernet(given / "supernet", figures={"front": "front.png"})
    write_supernet_card(out, about, [given / "front.png"])


def farmed_table(given: Path, out: Path) -> None:
    compress_table(out / "table.jsonl")


def run_settings(given: Path, out: Path) -> None:
    Pipeline(
        SupernetArguments(operators=["attention", "ffn"], num_choice_blocks=2, max_position_embeddings=16),
        dataclasses.replace(DATA, cache_dir=None),
        SupernetTrainingArguments(output_dir="ignored", max_steps=2),
        PipelineArguments(output_dir=str(out / "run")),
    )


COMMANDS = {
    "score": score,
    "search --report": _search("evolution", report="page.html"),
    "search by gbdt": _search("gbdt"),
    "search by nsga2": _search("nsga2"),
    "report": report,
    "latency": latency,
    "extract": extract_one,
    "export": export_one,
    "figures": figure,
    "page": page,
    "card": card,
    "farm": farmed_table,
    "run": run_settings,
}
# Two runs of these differ: in measured times, in the times in a study, in the path of the run.
DIFFERS = {"latency": ["latency.jsonl"], "search by nsga2": ["search.jsonl.db"], "run": ["run/settings.json"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_is_half_written(out: Path, before: dict[str, bytes], whole: dict[str, bytes]) -> None:
    for name, content in contents(out).items():
        if Path(name).name == ".lock":  # of a folder; what a dead process leaves is no obstacle
            continue
        assert name in whole, "what was begun is deleted"
        if name.endswith(".jsonl"):
            assert content == b"" or content.endswith(b"\n")
            records.read(out / name)
        elif not name.endswith(".db"):
            assert content in (whole[name], before.get(name))


def assert_same(name: str, out: Path, whole: dict[str, bytes]) -> None:
    found = contents(out)
    assert found.keys() == whole.keys()
    assert [file for file in found if found[file] != whole[file] and file not in DIFFERS.get(name, [])] == []
