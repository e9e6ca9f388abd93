"""What comes out of a compression: the smaller models, the table that proves them, as text, page and data frame."""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_nasbert.cards.markdown import escape, table, text_cell
from hf_nasbert.compression.proof import Row, as_text, table_cells, verdicts
from hf_nasbert.compression.stages import Additive
from hf_nasbert.records import Record
from hf_nasbert.writing import write_text


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


@dataclass(frozen=True)
class CompressResult:
    """All that a compression gives.

    Args:
        folder: The output folder.
        rows: The table: the base model first, then for every budget what was searched and what was chosen by hand.
        front: The smaller models, one for each budget, in the order of the budgets.
        shape: Sequences and tokens of the batch that was timed.
        stages: A record of every stage: seconds, CPU-seconds, peak memory, content.
    """

    folder: Path
    rows: tuple[Row, ...]
    front: tuple[Compressed, ...]
    shape: tuple[int, int]
    stages: tuple[Record, ...] = field(repr=False)
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
        return as_text(self.rows, self.shape)

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`, one line per model, means over seeds."""
        import pandas  # type: ignore[import-untyped]

        names = ("loss", "cosine", "agreement", "spearman")
        plain = [{key: value for key, value in asdict(row).items() if key != "judged"} for row in self.rows]
        means = [{name: row.mean(name) for name in names} for row in self.rows]
        return pandas.DataFrame([one | other for one, other in zip(plain, means, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """The table and the stages as plain JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "verdicts": self.verdicts,
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

    def report(self, path: str | Path) -> Path:
        """Write the table and what it says, as a page of HTML or of Markdown by the end of the name, or as JSON.

        Raises:
            ValueError: If the name ends in something else.
            WriteError: If the file cannot be written.
        """
        path = Path(path)
        makers = {".html": self._as_html, ".md": self.as_markdown, ".json": self._as_json}
        if path.suffix not in makers:
            raise ValueError(f"{path} ends in {path.suffix!r}; expected {', '.join(makers)}")
        write_text(path, makers[path.suffix]())
        return path

    def as_markdown(self) -> str:
        """The report as Markdown."""
        return f"# A smaller encoder\n\n{markdown_table(self.rows, self.shape)}\n\n" + "\n".join(
            [
                *(f"- {escape(line)}" for line in [*self.verdicts, *self._told_of_sums]),
                "",
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

    def _as_html(self) -> str:
        head, *lines = table_cells(self.rows, self.shape)
        rows = [_html_row("th", head), *(_html_row("td", line) for line in lines)]
        said = "".join(f"<li>{html.escape(line)}</li>" for line in [*self.verdicts, *self._told_of_sums])
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>A smaller encoder</title>\n'
            "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em}table{border-collapse:collapse}"
            "th,td{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}"
            "th:first-child,td:first-child{text-align:left}</style></head>\n"
            f"<body><h1>A smaller encoder</h1>\n<table>{''.join(rows)}</table>\n<ul>{said}</ul>\n</body></html>\n"
        )


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
    head, *lines = table_cells(rows, shape)
    return str(table([text_cell(one) for one in head], [[text_cell(one) for one in line] for line in lines]))


def _stages_table(stages: Sequence[Record]) -> str:
    head = ["stage", "seconds", "CPU-seconds", "most memory (MiB)"]
    names = ("seconds", "cpu_seconds", "peak_memory_mib")
    lines = [[escape(stage["stage"]), *(str(stage[name]) for name in names)] for stage in stages]
    return str(table(head, lines))


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>\n"
