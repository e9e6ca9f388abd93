"""Code that stands in the docs, to be run by tests as it stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language):
    """The page's blocks of code in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", EXTENDING, flags=re.DOTALL)


def python_of(name):
    """The page's code that defines a class of that name."""
    (code,) = (block for block in blocks("python") if re.search(rf"^class {name}\b", block, flags=re.MULTILINE))
    return code
