"""A file of scored children and a super-net's folder in, a page of HTML out."""

from pathlib import Path

from hf_nasbert import records
from hf_nasbert.pipeline.arguments import SearchReportArguments
from hf_nasbert.pipeline.inputs import weights_digest
from hf_nasbert.report import read_findings, render_search_report
from hf_nasbert.writing import check_apart, check_writable, write_text


def report_search(arguments: SearchReportArguments) -> Path:
    """Write one HTML file with the figures of a search, and the command that extracts each child of its front.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there are no records.
        ValueError: If the records are none of scored children, the super-net has other weights than theirs had, or
            the output is the file of the records.
        WriteError: If the file cannot be written.
    """
    check_writable(arguments.output)
    check_apart(records=arguments.records, output=arguments.output)
    source = Path(arguments.records)
    found = records.read(source)
    expected = read_findings(found, source.name).settings.get("supernet")
    note = None
    if not any(Path(arguments.supernet).glob("model*.safetensors")):
        note = (
            "The super-net was not at hand when this page was made: whether it is that of these scores is unchecked."
        )
    elif expected is not None and (digest := weights_digest(arguments.supernet)) != expected:
        raise ValueError(f"{arguments.supernet} has other weights ({digest}) than were scored ({expected})")
    page = render_search_report(found, supernet=arguments.supernet, source=source.name, note=note)
    output = Path(arguments.output)
    write_text(output, page)
    return output
