"""What comes out of a compression: the smaller models, the table that proves them, as text, page and data frame."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_nasbert.cards.markdown import escape, table, text_cell
from hf_nasbert.compression.onnx_files import Runtime, runtime_cells
from hf_nasbert.compression.proof import Row, as_text, lines_as_text, table_cells, verdicts
from hf_nasbert.compression.stages import Additive
from hf_nasbert.configs import read_model_config
from hf_nasbert.hub.repository import how_to_load
from hf_nasbert.records import Record
from hf_nasbert.report import Compressed as CompressedSummary
from hf_nasbert.report import render_compression_report
from hf_nasbert.writing import write_text

_NESTED = ("judged", "against_base", "against_given")  # of a row: no values of a data frame's cells


@dataclass(frozen=True)
class Compressed:
    """A smaller model: the folder it lies in, and its line of the table.

    Args:
        folder: Loads by the Auto class of its task, and as a SentenceTransformer where the base model is one.
        row: What it costs and is worth.
        class_name: The class of transformers or of ours that it is.
    """

    folder: Path
    row: Row
    class_name: str

    def model(self) -> PreTrainedModel:
        """The model, loaded."""
        import transformers

        from hf_nasbert import modeling

        made: Any = getattr(modeling, self.class_name, None) or getattr(transformers, self.class_name)
        loaded: PreTrainedModel = made.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
        return loaded  # in evaluation mode, as everything that is loaded

    @property
    def snippet(self) -> str:
        """The lines of Python that load it from its folder, with nothing of ours installed."""
        config = read_model_config(self.folder / "config.json", f"{self.folder}/config.json")
        is_sentence_transformer = (self.folder / "modules.json").is_file()
        made = how_to_load("child", config, str(self.folder), is_sentence_transformer=is_sentence_transformer)
        library = "sentence_transformers" if is_sentence_transformer else "transformers"
        name = made.partition("(")[0].partition(".")[0]
        return f"from {library} import {name}\n\nmodel = {made}"


@dataclass(frozen=True)
class CompressResult:
    """All that a compression gives.

    Args:
        folder: The output folder.
        rows: The table: the base model first, then for every budget what was searched and what was chosen by hand.
        front: The smaller models, one for each budget, in the order of the budgets.
        shape: Sequences and tokens of the batch that was timed.
        stages: A record of every stage: seconds, CPU-seconds, peak memory, content.
        runtimes: Of the ONNX files: what each keeps of its model's answers, and its time beside torch's.
        base_model: What the base model was called.
    """

    folder: Path
    rows: tuple[Row, ...]
    front: tuple[Compressed, ...]
    shape: tuple[int, int]
    stages: tuple[Record, ...] = field(repr=False)
    runtimes: tuple[Runtime, ...] = ()
    base_model: str = ""
    _scratch: Any = field(default=None, repr=False)  # keeps a folder of temporary files as long as its result

    @property
    def best(self) -> Compressed:
        """The smaller model of the first budget."""
        return self.front[0]

    @property
    def verdicts(self) -> list[str]:
        """What the table says, in plain sentences."""
        return verdicts(self.rows)

    def __str__(self) -> str:
        said = as_text(self.rows, self.shape)
        return f"{said}\n\n{lines_as_text(self._runtimes)}" if self.runtimes else said

    @property
    def _runtimes(self) -> list[list[str]]:
        return runtime_cells(self.runtimes, self.shape)

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`, one line per model, means over seeds, metrics by their names."""
        import pandas  # type: ignore[import-untyped]

        names = ("loss", "cosine", "agreement", "spearman")
        plain = [{key: value for key, value in asdict(row).items() if key not in _NESTED} for row in self.rows]
        means: list[dict[str, Any]] = [
            {**{name: row.mean(name) for name in names}, **row.metrics} for row in self.rows
        ]
        for row, line in zip(self.rows, means, strict=True):
            for name in ("against_base", "against_given"):
                difference = getattr(row, name)
                if difference is not None:
                    line |= {name: difference.mean, f"{name}_standard_error": difference.standard_error}
        return pandas.DataFrame([one | other for one, other in zip(plain, means, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """The table and the stages as plain JSON."""
        return {
            "base_model": self.base_model,
            "rows": [asdict(row) for row in self.rows],
            "verdicts": [*self.verdicts, *self._told_of_sums],
            "table": list(table_cells(self.rows, self.shape)),
            "runtimes": [asdict(row) for row in self.runtimes],
            "onnx": self._runtimes if self.runtimes else [],
            "latency_shape": list(self.shape),
            "models": [
                {"budget": one.row.budget, "folder": one.folder.relative_to(self.folder).as_posix()}
                for one in self.front
            ],
            "stages": [
                {key: stage[key] for key in ("stage", "seconds", "cpu_seconds", "peak_memory_mib")}
                for stage in self.stages
            ],
        }

    def report(self, path: str | Path, other: "CompressResult | None" = None) -> Path:
        """Write the table and what it says, as a page of HTML or of Markdown by the end of the name, or as JSON.

        Args:
            path: The file.
            other: Another compression of the same base model, which a page of HTML holds beside it.

        Raises:
            ValueError: If the name ends in something else, another one is given for another kind of file, or the two
                do not compare.
            WriteError: If the file cannot be written.
        """
        path = Path(path)
        makers: dict[str, Callable[[], str]] = {
            ".html": partial(self._as_html, other),
            ".md": self.as_markdown,
            ".json": self._as_json,
        }
        if other is not None and path.suffix != ".html":
            raise ValueError(f"{path}: two compressions are held side by side on a page of HTML: name a file of .html")
        if path.suffix not in makers:
            raise ValueError(f"{path} ends in {path.suffix!r}; expected {', '.join(makers)}")
        write_text(path, makers[path.suffix]())
        return path

    def as_markdown(self) -> str:
        """The report as Markdown."""
        onnx = ["## ONNX", "", _as_markdown(self._runtimes), ""] if self.runtimes else []
        return f"# A smaller encoder\n\n{markdown_table(self.rows, self.shape)}\n\n" + "\n".join(
            [
                *(f"- {escape(line)}" for line in [*self.verdicts, *self._told_of_sums]),
                "",
                *onnx,
                "## Stages",
                "",
                _stages_table(self.stages),
                "",
            ]
        )

    @property
    def _told_of_sums(self) -> list[str]:
        found = [Additive(**stage["content"]) for stage in self.stages if stage["stage"] == "additivity"]
        return [line for one in found for line in additivity_lines(one)]

    def _as_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def _as_html(self, other: "CompressResult | None") -> str:
        both = [self] if other is None else [self, other]
        names = [one.folder.name for one in both]
        names = names if len(set(names)) == len(names) else [str(one.folder) for one in both]
        return render_compression_report(
            *(
                CompressedSummary(json.loads(one._as_json()), str(one.folder), name)
                for one, name in zip(both, names, strict=True)
            )
        )


def as_screen(result: CompressResult) -> str:
    """What a terminal shows at the end: the table, where everything lies, and how to load it."""
    places = [
        f"{one.row.budget}: the smaller model lies in {one.folder}, its card in {one.folder / 'README.md'}"
        for one in result.front
    ]
    files = ", ".join(str(result.folder / name) for name in ("report.html", "report.md", "summary.json"))
    told = [str(result), "", *places, f"the table and the stages: {files}", ""]
    return "\n".join([*told, "to load it:", "", result.best.snippet])


def additivity_lines(found: Additive) -> list[str]:
    """What is said of the sums of lone replacements, one line for each space."""
    return [
        f"Sums of lone replacements and the real distances of {len(one['sums'])} random children, {name} "
        f"({one['num_children']:,} children): tau {'-' if one['tau'] is None else format(one['tau'], '.3f')}, median "
        f"relative error {one['error']:.1%}, real distances {one['ratio']:.2f} times the sums (median)."
        for name, one in found.spaces.items()
    ]


def markdown_table(rows: Sequence[Row], shape: tuple[int, int]) -> str:
    """The table of the proof as Markdown."""
    return _as_markdown(list(table_cells(rows, shape)))


def _as_markdown(cells: Sequence[Sequence[str]]) -> str:
    head, *lines = cells
    return str(table([text_cell(one) for one in head], [[text_cell(one) for one in line] for line in lines]))


def _stages_table(stages: Sequence[Record]) -> str:
    head = ["stage", "seconds", "CPU-seconds", "most memory (MiB)"]
    names = ("seconds", "cpu_seconds", "peak_memory_mib")
    lines = [[escape(stage["stage"]), *(str(stage[name]) for name in names)] for stage in stages]
    return str(table(head, lines))
