"""A hook of mkdocs: links out of docs/ lead nowhere on the site, so they become the path that they name."""

import re
from typing import Any

_OUT = re.compile(r"\[([^\]]*)\]\((\.\./[^)]*)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace `[text](../path)` by the text and the path within the project."""
    depth = page.file.src_uri.count("/")

    def told(match: re.Match[str]) -> str:
        text, target = match.groups()
        ups = len(re.match(r"(?:\.\./)*", target)[0]) // 3  # type: ignore[index]
        if ups <= depth:  # still within docs/
            return match[0]
        path = target[3 * ups :]
        return text if path.rstrip("/").endswith(text.strip("`").rstrip("/")) else f"{text} (`{path}`)"

    return _OUT.sub(told, markdown)
