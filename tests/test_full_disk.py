"""A full disk, in every command that writes: one line names the file, nothing is half written, and it goes on."""

import re
import resource
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny.commands import COMMANDS, assert_nothing_is_half_written, assert_same, contents, lay_out, prepare, stubs
from tiny.disks import mount, remount, unmount, with_mounts
from tiny.farm import JOBS, FakeTrainer

from hf_nasbert import records
from hf_nasbert.training.farm import run_farm

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    prepare(folder)
    return folder


@contextmanager
def no_file_longer_than(limit: int):
    """Real writes of any library fail at this byte; a terminal that is captured in a file would be such a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] if name in ("extract", "search by nsga2", "latency", "figures") else []
        )
        for name in COMMANDS
    ],
)
def test_a_command_that_cannot_write_says_what_and_goes_on(name, given, tmp_path, capsys):
    command, out = COMMANDS[name], tmp_path / "out"
    for folder in (out, tmp_path / "whole"):
        lay_out(folder)
    before = contents(out)
    with stubs():
        command(given, tmp_path / "whole")
        whole = contents(tmp_path / "whole")
        longest = max(len(content) for file, content in whole.items() if file not in before or content != before[file])
        for limit in (0, longest // 2):
            with no_file_longer_than(limit), pytest.raises(OSError, match=r"cannot write|^storage ") as raised:
                command(given, out)
            assert "\n" not in str(raised.value)
            assert re.search(rf"{out}/|/tmp", str(raised.value))
            assert_nothing_is_half_written(out, before, whole)
        command(given, out)
    assert_same(name, out, whole)


def fill_disks(given: Path, place: Path) -> int:
    """Run every command where there is too little room, and then enough of it; how many failed."""
    num_failed = 0
    for number, (name, command) in enumerate(COMMANDS.items()):
        whole, disk = place / f"whole-{number}", place / f"disk-{number}"
        lay_out(whole)
        before = contents(whole)
        with stubs():
            command(given, whole)
            needed = sum(-(-len(content) // 4096) for content in contents(whole).values())
            disk.mkdir()
            for share in (0.15, 0.5, 0.8, 0.97):
                mount(disk, size=str(max(int(share * needed), 2) * 4096))
                out = disk / "out"
                lay_out(out)
                said = None
                try:
                    command(given, out)
                except OSError as error:
                    said = str(error)
                if said is not None:
                    num_failed += 1
                    assert str(disk) in said, (name, said)
                    assert "\n" not in said, (name, said)
                    assert_nothing_is_half_written(out, before, contents(whole))
                remount(disk, "size=100m")
                command(given, out)
                assert_same(name, out, contents(whole))
                unmount(disk)
    return num_failed


@pytest.mark.slow
def test_disks_that_are_really_full(given, tmp_path):
    """File systems of 15, 50, 80 and 97 % of the room that each command needs, and then of enough."""
    num_failed = with_mounts(fill_disks, given, tmp_path, timeout=250)
    assert num_failed >= 2 * len(COMMANDS), "the disks were full"


@pytest.mark.slow
def test_a_farm_on_a_full_disk_ends_once_by_name_and_goes_on(tmp_path):
    """No worker after the other trains a child for nothing, and no traceback hides the line that says why."""
    table = tmp_path / "table.jsonl"
    (tmp_path / "run.py").write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(ROOT / "tests")!r}]
        from tiny.farm import JOBS, FakeTrainer
        from hf_nasbert.training.farm import run_farm
        from hf_nasbert.recipe_arguments import user_mistakes
        if __name__ == "__main__":
            with user_mistakes("farm"):
                print(len(run_farm(FakeTrainer(0), JOBS, {str(table)!r}, num_workers=2)))
        """)
    )

    def run(longest: int) -> subprocess.CompletedProcess:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))

        command = [sys.executable, tmp_path / "run.py"]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, preexec_fn=limit)

    full = run(400)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert re.search(rf"cannot write {table} \((File too large|.* of .* bytes were taken)", full.stderr)
    assert full.stderr.splitlines()[-1].startswith(f"farm: cannot write {table} (a worker could not")
    held = records.read(table)
    assert 0 < len(held) < 5
    assert len(run_farm(FakeTrainer(0), JOBS, table, num_workers=2)) == len(JOBS)
    assert records.read(table)[: len(held)] == held
