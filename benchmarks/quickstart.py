"""README's table, picture and output of `make quickstart`, made from the record of one run.

    python benchmarks/quickstart.py record runs/quickstart    keeps a finished run as the record
    python benchmarks/quickstart.py page                      fills README's table and output, and draws its picture

The record (benchmarks/records/quickstart-compress.jsonl.gz) holds the stages of the run, without the importances of
heads and neurons, which no page tells.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hf_nasbert import records
from hf_nasbert.cards import fill_page
from hf_nasbert.compression.proof import SEARCHED, Row, verdicts
from hf_nasbert.compression.results import markdown_table
from hf_nasbert.plots.style import INK, QUIET_COLOUR, WINNER_COLOUR, figure_style, new_figure, save_figure
from hf_nasbert.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "records" / "quickstart-compress.jsonl.gz"
PICTURE = ROOT / "docs" / "figures" / "quickstart"
_LABEL = 0.005  # height of a label, in correlation
SHAPE = (32, 128)  # sequences and tokens of the batch that the budget is about


def keep(folder: Path) -> None:
    """Keep the stages of a finished run."""
    lines = []
    for record in records.read(folder / "stages.jsonl"):
        if record["stage"] == "variants":
            record["content"]["importance"] = []
        lines.append(json.dumps(record) + "\n")
    write_bytes(RECORD, gzip.compress("".join(lines).encode(), mtime=0))


def rows_of_record() -> list[Row]:
    """The rows of the table."""
    (proof,) = (record for record in records.read(RECORD) if record["stage"] == "proof")
    return [Row.from_dict(row) for row in proof["content"]["rows"]]


def output(rows: list[Row]) -> str:
    """What the command says below its table, as code."""
    return "\n".join(["```", *verdicts(rows), "```"])


def draw(rows: list[Row]) -> "Figure":
    """Quality against milliseconds: what was searched, and what people choose by hand."""
    with figure_style():
        figure = new_figure(6.4, 2.6)
        axes = figure.subplots()
        for row in rows:
            (quality,) = row.values("spearman")
            colour = INK if row.budget is None else WINNER_COLOUR if row.how == SEARCHED else QUIET_COLOUR
            axes.plot(row.latency_batch_ms, quality, "o", color=colour, markersize=8, markeredgecolor="white")
            by_hand = [one for one in rows if one.budget is not None and one.how != SEARCHED]
            is_free = not any(
                one.latency_batch_ms > row.latency_batch_ms and abs(one.values("spearman")[0] - quality) < _LABEL
                for one in by_hand
            )
            place, side = ((8, -3), "left") if row in by_hand and is_free else ((-8, -3), "right")
            axes.annotate(
                row.how, (row.latency_batch_ms, quality), place, textcoords="offset points", fontsize=9, ha=side
            )
        base = rows[0]
        axes.axhline(base.values("spearman")[0], color=INK, linewidth=0.6, linestyle=":")
        axes.axvline(base.latency_batch_ms / 2, color=INK, linewidth=0.6, linestyle=":")
        axes.annotate(
            "half of its time", (base.latency_batch_ms / 2, 0.5), (4, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
        axes.set_xlim(0, base.latency_batch_ms * 1.05)
        axes.margins(y=0.12)
        axes.set_xlabel("milliseconds of a batch of 32 x 128 tokens")
        axes.set_ylabel("Spearman, STS-B test")
    return figure


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("folder", type=Path)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "record":
        keep(arguments.folder)
    else:
        rows = rows_of_record()
        fill_page(ROOT / "README.md", {"quickstart": markdown_table(rows, SHAPE), "quickstart output": output(rows)})
        for file in save_figure(draw(rows), PICTURE):
            if file.suffix == ".svg":
                file.unlink()


if __name__ == "__main__":
    main()
