"""A file of scored children and a super-net's folder in, or a compression's summary, a page of HTML out."""

from pathlib import Path

from hf_nasbert import records
from hf_nasbert.foreign import read_object
from hf_nasbert.pipeline.arguments import SearchReportArguments
from hf_nasbert.pipeline.inputs import supernet_digest
from hf_nasbert.report import (
    Compressed,
    Searched,
    is_compression,
    read_findings,
    render_compression_report,
    render_search_report,
)
from hf_nasbert.writing import check_apart, check_writable, write_text


def report_search(arguments: SearchReportArguments) -> Path:
    """Write one HTML file with the figures of a search, or of a compression, alone or beside another one.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there are no records.
        ValueError: If the records are none of scored children, a super-net is missing or is not the one that was
            scored, the two do not compare, or the output is the file of the records.
        WriteError: If the file cannot be written.
    """
    check_writable(arguments.output)
    check_apart(records=arguments.records, other=arguments.other, output=arguments.output)
    places = [Path(place) for place in (arguments.records, arguments.other) if place is not None]
    kinds = {place.suffix == ".json" for place in places}
    if len(kinds) > 1:
        raise ValueError(
            f"other: {arguments.other} is of another kind than records: give two searches, or two summaries"
        )
    if kinds == {True}:
        names = _names(places)
        page = render_compression_report(*(_compressed(*one) for one in zip(places, names, strict=True)))
    else:
        page = _search_page(arguments, places)
    output = Path(arguments.output)
    write_text(output, page)
    return output


def _compressed(summary: Path, name: str) -> Compressed:
    found = read_object(summary, str(summary))
    if not is_compression(found):
        raise ValueError(f"{summary} is not the summary of a compression: name the summary.json that compress wrote")
    return Compressed(found, str(summary.parent), name)


def _records_of(place: Path, setting: str) -> list[records.Record]:
    try:
        found = records.read(place)
    except records.NoRecordsError:
        found = []
    if not found:
        raise ValueError(
            f"{place} holds no records: name a file that `hf-nasbert search` or `score` wrote (--{setting} "
            "found.jsonl), or the summary.json of `compress`"
        )
    return found


def _names(places: list[Path]) -> list[str]:
    """What tells two files apart: their folders' names, or the whole paths."""
    folders = [place.parent.name for place in places]
    return folders if len(set(folders)) == len(folders) and all(folders) else [str(place) for place in places]


def _search_page(arguments: SearchReportArguments, places: list[Path]) -> str:
    files = [_records_of(place, name) for place, name in zip(places, ("records", "other"), strict=False)]
    supernets = [arguments.supernet, arguments.other_supernet or arguments.supernet]
    if supernets[0] is None:
        raise ValueError(
            f"supernet: the commands of {places[0].name} need the folder of its super-net: give it (--supernet)"
        )
    notes, searched = [], []
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(place) for place in places]
    for found, supernet, name in zip(files, supernets, names, strict=False):
        assert supernet is not None
        findings = read_findings(found, name)
        expected = findings.settings.get("supernet")
        if not any(Path(supernet).glob("model*.safetensors")):
            notes.append(
                "The super-net was not at hand when this page was made: whether it is that of these scores is "
                "unchecked."
            )
        elif expected is not None and (digest := supernet_digest(supernet)) != expected:
            advice = "" if name == names[0] else ": name the second one's folder (--other_supernet)"
            raise ValueError(f"{supernet} is another super-net ({digest}) than was scored ({expected}){advice}")
        searched.append(Searched(findings, supernet, name))
    return render_search_report(
        files[0],
        supernet=searched[0].supernet,
        source=names[0],
        note=" ".join(dict.fromkeys(notes)) or None,
        other=searched[1] if len(searched) > 1 else None,
    )
