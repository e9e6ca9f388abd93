"""The content of a page about compressions: the table of the proof as points, one compression or two side by side."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from hf_nasbert.paths import repository_name, telling_name
from hf_nasbert.report.content import (
    FORMATS,
    Commands,
    Content,
    Cost,
    Format,
    Mark,
    Measure,
    Section,
    Series,
)

_LETTERS = ("A", "B")
_COSTS = ("num_encoder_parameters", "num_parameters", "latency_batch_ms", "latency_one_ms", "file_bytes")
_BASE = "base model"


class Compressed(NamedTuple):
    """One compression, as `CompressResult.to_dict` says it.

    Args:
        summary: Rows, verdicts, runtimes, the batch that was timed, models, stages.
        folder: Where its models lie, for the commands.
        name: What it is called.
    """

    summary: Mapping[str, Any]
    folder: str
    name: str


def is_compression(found: Any) -> bool:
    """Whether a JSON file holds what a compression says of itself."""
    return isinstance(found, Mapping) and {"rows", "verdicts", "latency_shape"} <= found.keys()


def content_of_compression(compressed: Sequence[Compressed], note: str | None = None) -> Content:
    """What a page shows of one compression, or of two of one base model.

    Args:
        compressed: One, or two.
        note: A sentence about the commands.

    Raises:
        ValueError: If a summary has no base model or nothing that is given out, or two are of different base models.
    """
    rows: list[Mapping[str, Any]] = []
    of_series: list[list[int]] = []
    for number, one in enumerate(compressed):
        own = _rows(one)
        if number == 0:
            rows.append(own[0])
        else:
            _check_alike(rows[0], own[0], compressed)
        of_series.append(list(range(len(rows), len(rows) + len(own) - 1)))
        rows += own[1:]
    series = [
        Series(name=one.name if len(compressed) > 1 else "", ranking=(ranked := _ranking(rows, places)), winner=next(
            place for place in ranked if rows[place]["is_given"]
        ))
        for one, places in zip(compressed, of_series, strict=True)
    ]  # fmt: skip
    measures = _measures(rows, series[0].winner)
    marks = [Mark(0, "base", _BASE)]
    for number, places in enumerate(of_series):
        letter = f" ({_LETTERS[number]})" if len(of_series) > 1 else ""
        for place in places:
            kind = "given" if rows[place]["is_given"] else "hand" if rows[place]["how"] != "searched" else "found"
            marks.append(Mark(place, kind, _name(rows[place], rows) + letter, number))
    costs = _costs(rows, compressed[0].summary["latency_shape"])
    return Content(
        title="A smaller encoder" if len(compressed) == 1 else "Two smaller encoders",
        noun=("model", "models"),
        lead=" ".join(
            _lead(rows, place, one.name, measures[0], costs)
            for one in series
            for place in sorted(place for place in one.ranking if rows[place]["is_given"])
        ),
        doubts=tuple(
            line for number in range(len(series)) for line in _sure(rows, series, measures[0], marks, number)
        ),
        facts=tuple(fact for one in compressed for fact in _facts(one, len(compressed) > 1)),
        architectures=tuple(row["architecture"] for row in rows),
        measures=measures,
        costs=tuple(costs),
        series=tuple(series),
        marks=tuple(marks),
        notes={
            place: "; ".join([_name(row, rows), *([] if row["is_within"] else ["above the budget"])])
            for place, row in enumerate(rows)
        },
        commands=Commands("publish it", of=_commands(compressed, rows, of_series)),
        sections=tuple(section for one in compressed for section in _sections(one, len(compressed) > 1)),
        note=note,
    )


def _costs(rows: Sequence[Mapping[str, Any]], shape: Sequence[int]) -> list[Cost]:
    """The costs that are known of all."""
    size, length = shape
    formats = {
        "latency_batch_ms": Format(f"latency of {size}x{length} tokens", 1, 1, " ms"),
        "latency_one_ms": Format(f"latency of 1x{length} tokens", 1, 2, " ms"),
    }
    found = []
    for key in _COSTS:
        values = tuple(row.get(key) for row in rows)
        if all(value is not None for value in values):
            found.append(Cost(key, formats.get(key) or FORMATS[key], values))
    return found


def _rows(one: Compressed) -> list[Mapping[str, Any]]:
    rows = one.summary["rows"]
    if not (isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows)):
        raise ValueError(f"{one.name}: its rows are no table of models")
    missing = [
        key for key in ("budget", "how", "architecture", "judged", "is_given", "is_within") if key not in rows[0]
    ]
    if missing:
        raise ValueError(f"{one.name}: a row has no {missing[0]}: it is not the summary of a compression")
    if rows[0]["budget"] is not None or not any(row["is_given"] for row in rows):
        raise ValueError(f"{one.name}: the table begins with no base model, or has no model that was saved")
    return rows


def _check_alike(base: Mapping[str, Any], other: Mapping[str, Any], compressed: Sequence[Compressed]) -> None:
    for key in ("architecture", "num_parameters", "num_encoder_parameters"):
        if base[key] != other[key]:
            raise ValueError(
                f"{compressed[1].name} is of another base model than {compressed[0].name} ({key} differs): they do "
                "not compare"
            )
    for name in _quality_names([base, other]):
        one, two = (_mean(row, name) for row in (base, other))
        if one is not None and two is not None and abs(one - two) > 1e-3:
            raise ValueError(
                f"{compressed[1].name} was judged on other text than {compressed[0].name} (the base model has "
                f"{two:.4f} in {name}, and {one:.4f} there): they do not compare"
            )


def _samples(row: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """One of the numbers of every seed; none where it was not measured."""
    found = [one.get(name) if name in one else (one.get("metrics") or {}).get(name) for one in row["judged"]]
    return tuple(float(value) for value in found if value is not None)


def _mean(row: Mapping[str, Any], name: str) -> float | None:
    values = _samples(row, name)
    return statistics.fmean(values) if values else None


def _quality_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What models are judged by, the first of which a reader asks for: the task, pairs of sentences, distance."""
    metrics = dict.fromkeys(name for row in rows for one in row["judged"] for name in one.get("metrics") or {})
    names = [*metrics, "spearman", "agreement", "cosine", "loss"]
    return [name for name in names if any(_samples(row, name) for row in rows)]


_WORDS = {
    "spearman": "Spearman correlation on the pairs",
    "agreement": "share of the base model's predictions",
    "cosine": "cosine with the base model's vectors",
    "loss": "distance from the base model",
}


def _measures(rows: Sequence[Mapping[str, Any]], given: int) -> tuple[Measure, ...]:
    made = []
    for name in _quality_names(rows):
        samples = [_samples(row, name) for row in rows]
        # The base model is judged once, for it was not trained: nothing of it is chance.
        samples = [own * 2 if row["budget"] is None else own for own, row in zip(samples, rows, strict=True)]
        known = _known(rows, given) if name in _ranking_metrics(rows) else {}
        made.append(
            Measure(
                name=_WORDS.get(name, name.replace("_", " ")),
                is_low_better=name == "loss",
                values=tuple(_mean(row, name) for row in rows),
                samples=() if known else tuple(samples),
                reference=given if known else None,
                known=known,
            )
        )
    return tuple(made)


def _ranking_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metric that the standard errors of the table are of, where it is one."""
    metrics = dict.fromkeys(name for row in rows for one in row["judged"] for name in one.get("metrics") or {})
    names = [name for name in metrics if name != "macro_f1"]
    return names if len(names) == 1 else []


def _known(rows: Sequence[Mapping[str, Any]], given: int) -> dict[int, float]:
    """Half the 95 % interval of differences from what is given out: by redrawing the examples that judge."""
    found = {}
    for place, row in enumerate(rows):
        difference = rows[given].get("against_base") if place == 0 else row.get("against_given")
        if difference is not None and (place == 0 or row["budget"] == rows[given]["budget"]):
            error = difference["standard_error"] if isinstance(difference, Mapping) else difference[1]
            found[place] = 1.96 * float(error)
    return found


def _ranking(rows: Sequence[Mapping[str, Any]], places: Sequence[int]) -> tuple[int, ...]:
    """By what chooses: what is given out first of equals, for a trimmed vocabulary changes no choice."""

    def worth(place: int) -> tuple[float, float, bool]:
        row = rows[place]
        return (-(row.get("chosen_metric") or 0.0), row.get("chosen_by") or 0.0, not row["is_given"])

    return tuple(sorted(places, key=worth))


def _name(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What a row is called, with its budget where there are several."""
    several = len({other["budget"] for other in rows if other["budget"] is not None}) > 1
    trimmed = ", trimmed vocabulary" if row.get("trimmed") else ""
    budget = f", {row['budget']}" if several and row["budget"] else ""
    return f"{row['how']}{trimmed}{budget}"


def _lead(rows: Sequence[Mapping[str, Any]], winner: int, name: str, measure: Measure, costs: Sequence[Cost]) -> str:
    """What a model that was saved is worth, in a sentence; it names the budget where there are several."""
    several = len({row["budget"] for row in rows if row["budget"] is not None and row["is_given"]}) > 1
    how = (
        "The searched model"
        if rows[winner]["how"] == "searched"
        else f"The model chosen by hand ({rows[winner]['how']})"
    )
    value, whole = measure.values[winner], measure.values[0]
    said = []
    if value is not None and whole is not None:
        half, source = _chance(measure, winner)
        if measure.is_low_better or whole <= 0:
            sure = "" if half is None else f" ± {half:.2g}"
            said.append(f"has a {measure.name} of {value:.4f}{sure}{f' ({source})' if source else ''}")
        else:
            sure = "" if half is None else f" ± {100 * half / whole:.1f}"
            said.append(
                f"keeps {100 * value / whole:.1f}{sure} % of the base model's {measure.name} ({value:.4f} of "
                f"{whole:.4f}{'; ' if source else ''}{source})"
            )
    share = {one.key: _share(one, winner) for one in costs}
    if speed := share.get("latency_batch_ms"):
        said.append(f"is {1 / speed:.2f} times as fast")
    if size := share.get("num_encoder_parameters"):
        said.append(f"has {100 * size:.1f} % of its encoder's parameters")
    about = ", ".join(filter(None, (name, str(rows[winner]["budget"]) if several else "")))
    begin = f"{about}: {how[0].lower()}{how[1:]}" if about else how
    return f"{begin} {', '.join(said[:-1])}{' and ' if len(said) > 1 else ''}{said[-1]}."


def _chance(measure: Measure, winner: int) -> tuple[float | None, str]:
    """Half the 95 % interval of a model's difference from the base model, and in words what it is over."""
    half, samples = measure.doubt(winner, 0), measure.samples[winner] if measure.samples else ()
    if half is not None:
        return half, f"95 % interval over {f'{len(samples)} seeds' if samples else 'the examples'}"
    return None, "one seed: chance is unknown" if len(samples) == 1 else ""


def _share(cost: Cost, place: int) -> float | None:
    """A model's cost in shares of the base model's."""
    own, whole = cost.values[place], cost.values[0]
    return own / whole if own is not None and whole else None


def _sure(
    rows: Sequence[Mapping[str, Any]], series: Sequence[Series], measure: Measure, marks: Sequence[Mark], number: int
) -> list[str]:
    """How the given model stands beside those chosen by hand, and how sure that is."""
    own = series[number]
    told, names = [], {mark.place: mark.name for mark in marks}
    others = [place for place in own.ranking if not rows[place]["is_given"] and _rivals(rows[place], rows[own.winner])]
    if len(series) > 1:
        if number == 0:
            subject, other = (f"the model of {one.name}" for one in series)
            told.append(_beside(measure, own.winner, series[1].winner, other, subject))
        others = []
    budgets = {row["budget"] for row in rows if row["budget"] is not None}
    it = "it" if len(budgets) == 1 else f"the model of {rows[own.winner]['budget']}"
    told += [_beside(measure, own.winner, place, names[place], it) for place in others]
    told = [line for line in told if line]
    if told and all(measure.doubt(own.winner, place) is None for place in (others or [series[-1].winner])):
        told.append(
            "Each model was trained with one seed, so the size of chance is unknown. Train with several to see it: "
            "--seeds 0 1 2."
        )
    return told


def _rivals(row: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a row is another child for the same budget, and not the same one with its whole vocabulary."""
    return bool(row["budget"] == given["budget"] and row["how"] != given["how"])


def _beside(measure: Measure, winner: int, other: int, name: str, subject: str = "it") -> str:
    ahead, doubt = measure.ahead(winner, other), measure.doubt(winner, other)
    if ahead is None:
        return ""
    begin = f"By {measure.name} {subject} is"
    if not ahead:
        return f"{begin} level with {name}."
    told = f"{begin} {'ahead of' if ahead > 0 else 'behind'} {name} by {abs(ahead):.2g}"
    if doubt is None:
        return f"{told}."
    sure = "more than chance" if abs(ahead) > doubt else "which may be chance"
    return f"{told} ± {doubt:.2g} (95 %), {sure}."


def _facts(one: Compressed, is_named: bool) -> list[tuple[str, str]]:
    summary = one.summary
    budgets = dict.fromkeys(row["budget"] for row in summary["rows"] if row["budget"] is not None)
    found = [("budget", "; ".join(budgets))]
    if summary.get("base_model"):
        found.insert(0, (_BASE, str(summary["base_model"])))
    seeds = {len(row["judged"]) for row in summary["rows"] if row["budget"] is not None}
    found.append(("seeds of each model", " to ".join(str(number) for number in sorted(seeds))))
    seconds = sum(stage["seconds"] for stage in summary.get("stages", []))
    if seconds:
        found.append(("time it took", f"{seconds / 60:,.1f} minutes"))
    return [(f"{one.name}: {name}" if is_named else name, value) for name, value in found]


def _commands(
    compressed: Sequence[Compressed], rows: Sequence[Mapping[str, Any]], of_series: Sequence[Sequence[int]]
) -> dict[int, str]:
    """The command that publishes what is given out: the others are not written."""
    found = {}
    for one, places in zip(compressed, of_series, strict=True):
        folders = {model["budget"]: model["folder"] for model in one.summary["models"]}
        for place in places:
            if rows[place]["is_given"] and rows[place]["budget"] in folders:
                folder = str(PurePath(one.folder) / folders[rows[place]["budget"]])
                repo_id = f"YOUR_NAME/{repository_name(telling_name(folder))}"
                found[place] = f"hf-nasbert push --source {shlex.quote(folder)} --repo_id {repo_id}"
    return found


def _sections(one: Compressed, is_named: bool) -> list[Section]:
    summary, begin = one.summary, f"{one.name}: " if is_named else ""
    sections = [
        Section(title=f"{begin}{'what' if begin else 'What'} the table says", lines=tuple(summary["verdicts"]))
    ]
    if summary.get("table"):
        tables = (tuple(tuple(line) for line in summary["table"]),)
        sections.append(Section(title=f"{begin}{'the' if begin else 'The'} whole table", tables=tables))
    if summary.get("onnx"):
        sections.append(Section(title=f"{begin}ONNX", tables=(tuple(tuple(line) for line in summary["onnx"]),)))
    if summary.get("stages"):
        names = ("stage", "seconds", "cpu_seconds", "peak_memory_mib")
        lines = [tuple(str(stage[name]) for name in names) for stage in summary["stages"]]
        head = ("stage", "seconds", "CPU-seconds", "most memory (MiB)")
        sections.append(Section(title=f"{begin}{'stages' if begin else 'Stages'}", tables=((head, *lines),)))
    return sections
