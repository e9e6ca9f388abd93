"""Tables made from records, put into the places that Markdown pages mark for them."""

import re
from collections.abc import Mapping
from pathlib import Path

from hf_nasbert.writing import write_text

_MARKED = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def marked_tables(page: str) -> list[str]:
    """The names of the tables that a page marks a place for: `<!-- table: NAME -->`, then `<!-- end -->`."""
    return [match[2] for match in _MARKED.finditer(page)]


def fill_page(path: str | Path, tables: Mapping[str, str]) -> None:
    """Put tables into a page, each between `<!-- table: NAME -->` and `<!-- end -->`; all else stays as it is.

    Raises:
        FileNotFoundError: If there is no such page.
        ValueError: If the page marks no place for one of the tables.
        WriteError: If the page cannot be written; it is then as it was.
    """
    path = Path(path)
    page = path.read_text(encoding="utf-8")
    marked = marked_tables(page)
    for name in tables:
        if name not in marked:
            raise ValueError(f"{path} has no place for the table: expected <!-- table: {name} --> and <!-- end -->")

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}{tables[match[2]]}\n{match[3]}" if match[2] in tables else match[0]

    write_text(path, _MARKED.sub(filled, page))
