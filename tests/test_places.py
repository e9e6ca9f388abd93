"""Places that cannot be written to, or that somebody prepared: refused before the work begins, and never through."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from tiny.commands import COMMANDS, lay_out, prepare, stubs
from tiny.disks import mount, remount, with_mounts
from tiny.farm import JOBS, FakeTrainer
from tiny.records import ABOUT, history
from tiny.scores import DATA, stub_files

from hf_nasbert import cli, records
from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline import (
    ExtractionArguments,
    LatencyArguments,
    ScoreChildrenArguments,
    SearchChildrenArguments,
    SearchReportArguments,
    extract,
    measure_latency,
    report_search,
    score_children,
    search_children,
)
from hf_nasbert.pipeline import scores as scores_room
from hf_nasbert.pipeline.interference import InterferenceArguments, measure_interference
from hf_nasbert.pipeline.ranking import RankChildrenArguments, rank_children
from hf_nasbert.training.farm import FarmArguments, run_farm, train_children
from hf_nasbert.training.standalone import StandaloneArguments
from hf_nasbert.writing import WriteError, check_folder, check_writable, write_text

# Every command with an output, called with a super-net that is not there: a bad output has to be told before that.
EARLY = {
    "score": lambda out: score_children(ScoreChildrenArguments(supernet="no", output=out, num_random=1), DATA),
    "search": lambda out: search_children(SearchChildrenArguments(supernet="no", output=out), DATA),
    "search --report": lambda out: search_children(
        SearchChildrenArguments(supernet="no", output=f"{out}.jsonl", report=out), DATA
    ),
    "report": lambda out: report_search(SearchReportArguments(records="no", output=out, supernet="no")),
    "latency": lambda out: measure_latency(LatencyArguments(supernet="no", output=out)),
    "ranking": lambda out: rank_children(RankChildrenArguments(table="no", scores=out, supernets=["no"]), DATA),
    "ranking --page": lambda out: rank_children(
        RankChildrenArguments(table="no", scores=f"{out}.jsonl", supernets=["no"], page=out), DATA
    ),
    "interference": lambda out: measure_interference(InterferenceArguments(supernets=["no"], output=out), DATA),
    "farm": lambda out: train_children(
        FarmArguments(table=out), StandaloneArguments(blocks=["ffn"]), DataArguments(train_files=["no"])
    ),
}
IN_FOLDERS = {
    "extract": lambda out: extract(ExtractionArguments(supernet="no", architecture="ffn", output_dir=out)),
    "export": lambda out: cli.find("hf_nasbert.export.export_child")(
        cli.find("hf_nasbert.export.ExportArguments")(model="no", output_dir=out)
    ),
    "ranking --figures": lambda out: rank_children(
        RankChildrenArguments(table="no", scores=f"{out}.jsonl", supernets=["no"], figures=out), DATA
    ),
}


def a_folder(place: Path) -> str:
    place.mkdir()
    return "it is a folder"


def a_pipe(place: Path) -> str:
    os.mkfifo(place)
    return "it is a device, a pipe or a socket"


def a_device(place: Path) -> str:
    try:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    return "it is a device, a pipe or a socket"


PLACES = {"folder": a_folder, "pipe": a_pipe, "device": a_device}


@pytest.mark.parametrize("command", EARLY)
@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_refused_at_once_and_left_alone(command, kind, tmp_path):
    place = tmp_path / "out.jsonl"
    words = PLACES[kind](place)
    before = place.lstat()
    with pytest.raises(WriteError, match=rf"cannot write .*out\.jsonl \({words}\): name a file$"):
        EARLY[command](str(place))
    assert place.lstat().st_mode == before.st_mode
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("command", [*EARLY, *IN_FOLDERS])
def test_a_file_where_a_folder_should_be_is_told_at_once(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=r"cannot write .*file.* \((.*file is no folder|Not a directory)\)"):
        (EARLY | IN_FOLDERS)[command](str(tmp_path / "file" / "deep" / "out.jsonl"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", [*EARLY, *IN_FOLDERS])
def test_a_name_that_is_too_long_is_told_at_once(command, tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .* \(File name too long\)"):
        (EARLY | IN_FOLDERS)[command](str(tmp_path / ("x" * 300 + ".jsonl")))


@pytest.mark.parametrize("command", [*EARLY, *IN_FOLDERS])
def test_a_place_that_is_fine_is_left_as_it_was(command, tmp_path):
    """The check makes no folder and leaves no file; the next mistake is told then."""
    with pytest.raises((OSError, ValueError)) as raised:
        (EARLY | IN_FOLDERS)[command](str(tmp_path / "new" / "out.jsonl"))
    assert not isinstance(raised.value, WriteError)
    assert list(tmp_path.iterdir()) == []


def test_dev_null_is_told_at_the_command_line():
    with pytest.raises(SystemExit, match=r"^hf-nasbert report: cannot write /dev/null \(it is a device"):
        cli.main(["report", "--records", "no", "--output", "/dev/null", "--supernet", "no"])
    assert Path("/dev/null").is_char_device()


def test_records_that_are_a_folder_are_told_as_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no records at .*: it is a folder"):
        records.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no records at .*x: there is no such file"):
        records.read(tmp_path / "x")


class TestLinks:
    @pytest.mark.parametrize("planted", ["page.html.part", ".page.html.part", ".page.html.PID.partial"])
    def test_a_planted_link_is_not_written_through(self, planted, tmp_path):
        planted = planted.replace("PID", str(os.getpid()))
        records.extend(tmp_path / "search.jsonl", history(about=ABOUT))
        (tmp_path / "precious.txt").write_text("mine")
        (tmp_path / planted).symlink_to(tmp_path / "precious.txt")
        page = tmp_path / "page.html"
        for _ in range(2):
            report_search(
                SearchReportArguments(records=str(tmp_path / "search.jsonl"), output=str(page), supernet="no")
            )
            assert (tmp_path / "precious.txt").read_text() == "mine"
            assert page.read_text().startswith("<!DOCTYPE html>")
            page.unlink()
            page.symlink_to(tmp_path / "precious.txt")  # the second time the output itself is one

    @pytest.mark.parametrize("name", ["page", "card", "figures", "farm", "report", "run"])
    def test_every_output_that_is_a_link_is_replaced(self, name, tmp_path):
        """Each file that a command writes whole, planted as a link to something precious."""
        prepare(tmp_path)
        (tmp_path / "precious").write_text("<!-- table: a -->\n<!-- end -->\n")
        with stubs():
            lay_out(tmp_path / "whole")
            before = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
            COMMANDS[name](tmp_path, tmp_path / "whole")
            lay_out(tmp_path / "out")
            written = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
            written = [path for path in written if before.get(path.name) != path.read_bytes()]
            assert written
            for path in written:
                link = tmp_path / "out" / path.relative_to(tmp_path / "whole")
                link.parent.mkdir(exist_ok=True)
                link.unlink(missing_ok=True)
                if path.name != "settings.json":  # that one is read first, and says whose the folder is
                    link.symlink_to(tmp_path / "precious")
            COMMANDS[name](tmp_path, tmp_path / "out")
        assert (tmp_path / "precious").read_text() == "<!-- table: a -->\n<!-- end -->\n"
        for path in written:
            assert not (tmp_path / "out" / path.relative_to(tmp_path / "whole")).is_symlink()

    def test_records_may_lie_on_another_disk(self, tmp_path):
        """Adding to a file keeps what is there, so a link is followed; but not into a file of something else."""
        (tmp_path / "disk").mkdir()
        link = tmp_path / "runs.jsonl"
        link.symlink_to(tmp_path / "disk" / "runs.jsonl")
        records.append(link, {"step": 1})
        records.append(link, {"step": 2})
        assert link.is_symlink()
        assert len(records.read(tmp_path / "disk" / "runs.jsonl")) == 2
        (tmp_path / "disk" / "runs.jsonl").write_text("precious")
        with pytest.raises(ValueError, match="which is no record: left as it was"):
            records.append(link, {"step": 3})
        assert link.read_text() == "precious"

    @pytest.mark.parametrize("kind", PLACES)
    def test_a_link_to_what_is_no_file_is_refused(self, kind, tmp_path):
        words = PLACES[kind](tmp_path / "it")
        (tmp_path / "runs.jsonl").symlink_to(tmp_path / "it")
        with pytest.raises(WriteError, match=rf"runs\.jsonl \({words}"):
            records.append(tmp_path / "runs.jsonl", {"step": 1})

    def test_a_planted_lock_of_the_farm_is_refused_before_any_child(self, tmp_path):
        (tmp_path / "table.jsonl.lock").symlink_to(tmp_path / "made")
        with pytest.raises(WriteError, match=r"table\.jsonl\.lock \(Too many levels of symbolic links\)"):
            run_farm(FakeTrainer(0), JOBS, tmp_path / "table.jsonl")
        assert not (tmp_path / "made").exists()


ONE_FILE = {
    "report": ("records and output", lambda: _report("a.jsonl")),
    "report, by a link": ("records and output", lambda: _report("link")),
    "search": ("output and report", lambda: _search(report="./a.jsonl")),
    "search with a journal": ("output and storage", lambda: _search(storage="a.jsonl")),
    "search with a database": ("output and storage", lambda: _search(storage="sqlite:///a.jsonl?timeout=5")),
    "search with a study of its own": ("report and storage", lambda: _search(report="a.jsonl.db")),
    "search with a table": ("output and latency_table", lambda: _search(latency_table="a.jsonl")),
    "ranking": ("table and scores", lambda: _rank(table="a.jsonl")),
    "ranking --page": ("scores and page", lambda: _rank(table="no", page="a.jsonl")),
}


def _report(output):
    report_search(SearchReportArguments(records="a.jsonl", output=output, supernet="no"))


def _search(**settings):
    search_children(SearchChildrenArguments(supernet="no", output="a.jsonl", search="nsga2", **settings), DATA)


def _rank(**settings):
    rank_children(RankChildrenArguments(scores="a.jsonl", supernets=["no"], **settings), DATA)


@pytest.mark.parametrize("name", ONE_FILE)
def test_an_output_that_is_another_file_of_the_command_is_refused(name, tmp_path, monkeypatch):
    """It would replace the scores of a search by their page, say."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"kind": "mine"}\n')
    Path("link").symlink_to("a.jsonl")
    words, command = ONE_FILE[name]
    with pytest.raises(ValueError, match=rf"^{words} are one file, .*: name another$"):
        command()
    assert Path("a.jsonl").read_text() == '{"kind": "mine"}\n'
    assert not Path("a.jsonl.db").exists()


def test_storages_that_are_no_file_of_the_command_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for storage in ("postgresql://u:p@host/a.jsonl", "sqlite:///b.db", str(tmp_path / "b.journal"), None):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            _search(storage=storage)


class TestReadOnly:
    def test_a_file_that_somebody_made_read_only_is_not_replaced(self, tmp_path, monkeypatch):
        """As root every file can be written, so the system's answer is given here."""
        path = tmp_path / "page.html"
        path.write_text("mine")
        access = os.access
        monkeypatch.setattr(os, "access", lambda place, mode, **more: access(place, mode, **more) and place != path)
        with pytest.raises(WriteError, match=r"page\.html \(it is read-only\)"):
            write_text(path, "new")
        for is_appended in (False, True):
            with pytest.raises(WriteError, match=r"page\.html \(it is read-only\)"):
                check_writable(path, is_appended=is_appended)
        assert path.read_text() == "mine"

    def test_a_complete_file_of_scores_is_read_where_nothing_can_be_written(self, tmp_path, monkeypatch):
        stub_files(monkeypatch)
        path = tmp_path / "scores.jsonl"
        settings = {"supernet": "x", "output": str(path), "num_dev_batches": 1, "dev_batch_size": 2}
        score, search = (
            lambda: score_children(ScoreChildrenArguments(all_children=True, **settings), DATA),
            lambda number: search_children(SearchChildrenArguments(num_evaluations=number, **settings), DATA),
        )
        scored = score()
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        assert score() == scored
        monkeypatch.undo()
        stub_files(monkeypatch)
        path.unlink()
        found = search(8)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        assert search(8) == found
        monkeypatch.setattr(scores_room, "score_with_report", None)  # no child is scored for nothing
        with pytest.raises(WriteError, match=r"scores\.jsonl \(it is read-only\)"):
            search(9)

    @pytest.mark.slow
    def test_a_disk_that_is_really_read_only(self, tmp_path):
        prepare(tmp_path)
        assert with_mounts(write_everything, tmp_path, tmp_path / "disk") == dict.fromkeys(COMMANDS, "named")


class TestFolders:
    def test_a_folder_that_is_missing_is_made_and_one_deleted_underneath_too(self, tmp_path):
        records.append(tmp_path / "a" / "b.jsonl", {"step": 1})
        shutil.rmtree(tmp_path / "a")
        records.append(tmp_path / "a" / "b.jsonl", {"step": 2})
        assert records.read(tmp_path / "a" / "b.jsonl") == [{"step": 2}]

    def test_a_check_is_of_the_nearest_folder_that_is_there(self, tmp_path, monkeypatch):
        check_folder(tmp_path / "a" / "b" / "c")
        monkeypatch.chdir(tmp_path)
        check_folder("a/b")
        check_writable("c.txt")
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr("hf_nasbert.writing._create", _refuse)
        for check in (check_folder, check_writable):
            with pytest.raises(WriteError, match=r"cannot write a/b/c \(Read-only file system\)"):
                check("a/b/c")


def write_everything(given: Path, disk: Path) -> dict[str, str]:
    """What every command says of a file system that is read-only."""
    disk.mkdir()
    mount(disk)
    lay_out(disk / "out")
    remount(disk, "ro")
    said = {}
    for name, command in COMMANDS.items():
        with stubs():
            try:
                command(given, disk / "out")
                said[name] = "written"
            except OSError as error:
                is_named = str(disk) in str(error) and ("ead-only" in str(error) or "read-only" in str(error))
                said[name] = "named" if is_named else str(error)
    return said


def _refuse(path: Path) -> int:
    raise OSError(30, "Read-only file system", str(path))
