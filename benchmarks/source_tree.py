"""The tree of src/ in docs/code.md, a line per file: the first line of each, which says its job.

python benchmarks/source_tree.py             prints it
python benchmarks/source_tree.py --write     puts it into docs/code.md
"""

import argparse
import ast
from pathlib import Path

from hf_nasbert.cards import fill_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "hf_nasbert"


def job_of(file: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0].rstrip(".").replace("|", "\\|")


def tree() -> str:
    """The tree as a Markdown list; the file that opens a package speaks for the package."""
    lines = []
    for folder in [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))]:
        lines.append(f"- **`{folder.relative_to(PACKAGE.parent)}/`**: {job_of(folder / '__init__.py')}")
        files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
        lines += [f"  - `{file.name}`: {job_of(file)}" for file in files]
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        fill_page(ROOT / "docs" / "code.md", {"tree": tree()})
    else:
        print(tree())


if __name__ == "__main__":
    main()
