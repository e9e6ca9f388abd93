"""The house: imports go down only, rooms of one floor do not know each other, travelling files carry only siblings."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_nasbert.native import CODE_FILES

PACKAGE = Path(__file__).parents[1] / "src" / "hf_nasbert"
FLOORS = [  # lowest first
    {
        "writing",
        "foreign",
        "paths",
        "geometry",
        "lazy",
        "tolerances",
        "yaml_files",
        "neighbours",
    },  # what every room may need
    {"terminal", "settings", "help_pages", "old_names"},
    {
        "guides",
        "space",
        "data",
        "metrics",
        "records",
        "recipe_arguments",
        "stopping",
        "locking",
        "checkpoint_folders",
        "kept",
    },
    {"configs"},
    {"modeling", "samplers", "objectives", "native", "scored"},
    {"costs"},  # what has no formula is built
    {"elastic"},
    # measuring runs models; what it finds is data, which costs reads
    {"scoring", "searching", "measuring", "processes", "teachers"},
    {"methods"},
    {"ranking", "interference"},
    {"training", "finetuning", "extraction", "child_folders", "export", "cards", "plots"},
    {"hub", "report"},
    {"pipeline", "compression"},
    # contracts of all that others may write, what users see of it in Python, and what follows on every command: hence
    # above all of it
    {"testing", "api", "next_commands"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TRAVELLERS = ["geometry_nasbert", "operators_nasbert", "configuration_nasbert", "modeling_nasbert"]
LIGHT = [
    "space", "native", "metrics", "records", "samplers", "costs", "searching", "cards", "report", "stopping", "cli",
    "scored", "writing", "foreign", "paths", "neighbours", "terminal", "locking", "checkpoint_folders",
    "recipe_arguments", "methods", "next_commands", "help_pages", "guides",
    # packages whose names load on first use, and what the command line knows of them
    "data.arguments", "training.arguments", "finetuning.arguments", "pipeline.arguments", "hub.arguments",
    "pipeline.scoring_arguments", "export.arguments", "pipeline.text_settings", "compression.arguments",
]  # fmt: skip


def imported_modules(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.module == "hf_nasbert":  # `from hf_nasbert import records` names a room too
                found |= {f"hf_nasbert.{alias.name}" for alias in node.names}
            else:
                found.add("." * node.level + (node.module or ""))
    return found


def room_of(file: Path) -> str:
    # It lies beside those it travels with and knows nothing: a room of its own, which spaces and cards read names by.
    if file.name == "geometry_nasbert.py":
        return "geometry"
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if room_of(file) != "__init__"]


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    here = room_of(file)
    assert here in FLOOR_OF, f"{here} stands on no floor"
    for module in imported_modules(file):
        assert not module.startswith(".."), "name the room: from hf_nasbert.<room> import name"
        if module.startswith("."):
            assert here == "modeling", "relative imports are for siblings in modeling/ only"
        elif module.split(".")[0] == "hf_nasbert":
            assert "." in module, "name the room: from hf_nasbert.<room> import name"
            there = "geometry" if module.endswith(".geometry_nasbert") else module.split(".")[1]
            assert there == here or FLOOR_OF[there] < FLOOR_OF[here], f"{here} must not import {there}"


@pytest.mark.parametrize("name", TRAVELLERS)
def test_travellers_carry_only_their_siblings(name):
    for module in imported_modules(PACKAGE / "modeling" / f"{name}.py"):
        if module.startswith("."):
            assert module.removeprefix(".") in TRAVELLERS, "only `from .sibling import name` is copied"
        else:
            allowed = {"torch", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
            assert module.split(".")[0] in allowed, f"a Hub user may not have {module}"


def test_the_travellers_are_listed_once():
    assert CODE_FILES == tuple(f"{name}.py" for name in TRAVELLERS)
    listing = [file for file in files() if all(f'"{name}"' in file.read_text() for name in CODE_FILES)]
    assert listing == [PACKAGE / "native.py"]


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_file_says_its_job_in_its_first_line(file):
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert docstring, f"{file.name} has no docstring"
    assert docstring.splitlines()[0].endswith((".", ":"))


HTTP = (
    r"\b(HfApi|create_commit|create_repo|upload_\w+|hf_hub_download|snapshot_download|httpx2?|urllib)\b"
    r"|(?<!def )\bpush_to_hub\("  # a method of that name asks the hub
)


def test_only_the_hub_speaks_http():
    """Data, models and metrics load through their libraries."""
    assert {room_of(file) for file in files() if re.search(HTTP, file.read_text())} == {"hub"}


def test_light_rooms_need_no_torch():
    program = "import sys\n" + "\n".join(f"import hf_nasbert.{room}" for room in LIGHT)
    program += "\nprint([name for name in ('torch', 'transformers', 'datasets', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ON_FIRST_USE = ["data", "training", "finetuning", "pipeline", "hub", "export", "compression"]


@pytest.mark.parametrize("name", ON_FIRST_USE)
def test_names_that_load_on_first_use_are_those_that_type_checkers_see(name):
    package = importlib.import_module(f"hf_nasbert.{name}")
    tree = ast.parse((PACKAGE / name / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and len(node.module.split(".")) > 2]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert all(getattr(package, name) is getattr(importlib.import_module(seen[name]), name) for name in seen)
    # A module that is imported becomes an attribute of its package, and would take the place of a name.
    assert not seen.keys() & {file.stem for file in (PACKAGE / name).iterdir()}
    assert set(package.__all__) == seen.keys() <= set(dir(package))


def test_a_name_that_a_package_lacks_is_no_attribute():
    with pytest.raises(AttributeError, match=r"'hf_nasbert\.pipeline' has no attribute 'serach_children'"):
        importlib.import_module("hf_nasbert.pipeline").serach_children  # noqa: B018


def test_what_users_run_needs_no_test_runner():
    assert not [file for file in files() if {"pytest", "unittest"} & imported_modules(file)]


def test_no_test_file_imports_another():
    """What two of them need stands in `tests/tiny`; a program in a string counts too."""
    tests = Path(__file__).parent
    pattern = re.compile(r"^\s*[\"']?(?:from|import) (?:tests\.)?test_\w+", re.MULTILINE)
    assert pattern.search("    from test_training import x")
    assert pattern.search('        "from test_farm import y\\n"')
    found = [str(file) for file in tests.rglob("*.py") if file != Path(__file__) and pattern.search(file.read_text())]
    assert found == []


def test_a_violation_is_noticed(tmp_path, monkeypatch):
    """Sanity check: the walker sees an upward import, inside a function too."""
    file = tmp_path / "space.py"
    file.write_text("def f():\n    from hf_nasbert.training import loop\n")
    assert imported_modules(file) == {"hf_nasbert.training"}
    assert FLOOR_OF["training"] > FLOOR_OF["space"]


def test_a_long_file_says_why_it_is_one():
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if len(text.splitlines()) > 450:
            doc = ast.get_docstring(ast.parse(text)) or ""
            assert len(doc.split("\n\n")) > 1, f"{file.name} has more than 450 lines: split it, or say why it is one"


def test_the_file_map_names_every_room_with_its_floor():
    page = (PACKAGE.parents[1] / "docs" / "code.md").read_text(encoding="utf-8")
    floors = {
        name: int(floor)
        for floor, names in re.findall(r"^\| (\d+) \| ([^|]*) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)", names)
    }
    rooms = {room: floor for room, floor in FLOOR_OF.items() if room not in ("geometry", "__main__")}
    assert floors == rooms
