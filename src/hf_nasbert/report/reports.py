"""Records to a page: of a search or of a compression, alone or beside another one."""

from collections.abc import Sequence

from hf_nasbert.records import Record
from hf_nasbert.report.findings import read_findings
from hf_nasbert.report.of_compression import Compressed, content_of_compression
from hf_nasbert.report.of_search import Searched, content_of_search
from hf_nasbert.report.page import render_page


def render_search_report(
    found: Sequence[Record],
    *,
    supernet: str,
    source: str = "the records",
    note: str | None = None,
    other: Searched | None = None,
) -> str:
    """The report on scored children as one HTML page.

    Args:
        found: The history of a search, or records of `score_children`.
        supernet: Folder of the super-net that they are of, for the commands; records hold but a digest of it.
        source: What messages call the records, such as the file's name.
        note: A sentence about the commands, such as that the super-net could not be looked at.
        other: Another search on the same dev batches, to hold beside it.

    Raises:
        ValueError: If the records cannot be understood (see `read_findings`), or the two do not compare.
    """
    one = Searched(read_findings(found, source), supernet, source)
    return render_page(content_of_search([one] if other is None else [one, other], note))


def render_compression_report(one: Compressed, other: Compressed | None = None) -> str:
    """The report on a compression, or on two of one base model, as one HTML page.

    Raises:
        ValueError: If a summary is no compression's, or the two do not compare.
    """
    return render_page(content_of_compression([one] if other is None else [one, other]))
