"""How programs end: one line for a mistake, Ctrl-C, a closed pipe or want of memory; what is printed is safe."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_nasbert import cli, terminal
from hf_nasbert.recipe_arguments import user_mistakes
from hf_nasbert.stopping import TimeArguments
from hf_nasbert.terminal import say

ROOT = Path(__file__).parents[1]


@dataclass
class Settings:
    per_device_train_batch_size: int = 1
    dev_batch_size: int = 1
    max_seq_length: int = 1


def ended(error, settings=(), **options):
    """(status or message, what is said) of a program in which something is raised."""
    with pytest.raises(SystemExit) as raised, user_mistakes("program", settings, **options):
        raise error
    return raised.value.code


OUT_OF_MEMORY = [
    MemoryError(),
    MemoryError("Unable to allocate 7.45 GiB for an array"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                 "to allocate 8000000000000 bytes. Error code 12 (Cannot allocate memory)\nframes\nframes"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]  # fmt: skip


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:30])
def test_want_of_memory_is_one_line_that_names_the_flags(error):
    message = ended(error, [Settings()])
    assert message.startswith("program: there is not enough memory (")
    assert message.endswith(
        "lower --per_device_train_batch_size or --dev_batch_size or --max_seq_length, or free some"
    )
    assert "\n" not in message
    assert ended(error).endswith("ask for less at a time, or free some")


def test_real_allocations_that_fail_are_told_as_that():
    import numpy as np
    import torch

    for allocate in (lambda: torch.empty(10**15), lambda: np.empty(10**15), lambda: bytearray(10**15)):
        with pytest.raises(SystemExit, match="there is not enough memory"), user_mistakes("program"):
            allocate()


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), TypeError("x"), KeyError("x"), AssertionError()])
def test_faults_of_the_program_stay_tracebacks(error):
    with pytest.raises(type(error)), user_mistakes("program"):
        raise error


def test_a_mistake_is_one_printable_line():
    message = ended(ValueError("the label \x1b[2J\x1b]0;pwned\x07 of\n  row \u202e3\udcff"))
    assert message == r"program: the label \x1b[2J\x1b]0;pwned\x07 of row \u202e3\udcff"
    assert ended(ValueError()) == "program: ValueError"
    assert len(ended(ValueError("x" * 10**6))) < 5000


def test_ctrl_c_is_one_line_and_status_130(capsys):
    assert ended(KeyboardInterrupt(), kept="the half of it is kept") == 130
    assert capsys.readouterr().err == "\nprogram: interrupted; the half of it is kept\n"


def test_ctrl_c_that_tidying_up_has_turned_into_another_error_is_still_one(capsys):
    def tidy():
        try:
            raise KeyboardInterrupt
        finally:
            raise TimeoutError("a worker did not answer")

    with pytest.raises(SystemExit) as raised, user_mistakes("program"):
        tidy()
    assert raised.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_loggers_and_reports_are_printable_within_a_program_only(caplog, capsys):
    logger = logging.getLogger("hf_nasbert.some_room")
    with user_mistakes("program"):
        logger.warning("%s", "a\x1b[31mb")
        say("a\x1b[31mb\tc\n±→é")
    logger.warning("%s", "a\x1b[31mb")
    assert [record.getMessage() for record in caplog.records] == [r"a\x1b[31mb", "a\x1b[31mb"]
    assert capsys.readouterr().out == "a\\x1b[31mb\tc\n±→é\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
@pytest.mark.parametrize("where", ["imports", "parsing", "work", "report"])
def test_ctrl_c_anywhere_in_any_command(name, where, monkeypatch, capsys):
    command = cli.COMMANDS[name]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def find(asked):
        if where == "imports":
            interrupt()
        if asked.endswith("parse_recipe_arguments"):
            return interrupt if where == "parsing" else lambda *_, **__: [TimeArguments()]
        if asked.endswith("time_limit"):
            return nullcontext
        return interrupt if where == "work" else lambda *_: "done"

    monkeypatch.setattr(cli, "find", find)
    if where == "report":
        monkeypatch.setattr(cli, "say", interrupt)
        monkeypatch.setitem(cli.COMMANDS, name, command._replace(report=lambda *_: ""))
    with pytest.raises(SystemExit) as raised:
        cli.main([name])
    assert raised.value.code == 130
    assert capsys.readouterr().err == f"\nhf-nasbert {name}: interrupted; {command.kept}\n"


def run(program, *arguments, **options):
    # A shell's background jobs ignore Ctrl-C, and so would what the tests start from one.
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{program}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT, **options,
    )  # fmt: skip


CHATTER = """
from hf_nasbert.terminal import say, user_mistakes
with user_mistakes("program"):
    for number in range(1_000_000):
        print("line", number)
"""


@pytest.mark.parametrize(
    "program", [CHATTER, "import sys; from hf_nasbert.cli import main; print(flush=True); main(['--help'])"]
)
def test_a_pipe_that_closes_ends_the_program_in_silence(program):
    process = run(program)
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert (process.wait(20), process.stderr.read()) in ((141, ""), (0, ""))


FORKS = """
import multiprocessing, time
from hf_nasbert.terminal import user_mistakes
def work(_):
    time.sleep(60)
if __name__ == "__main__":
    with user_mistakes("program"), multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map_async(work, range(2))
        time.sleep(0.5)
        print(*(worker.pid for worker in pool._pool), flush=True)
        time.sleep(60)
"""


def test_children_end_with_the_program_and_say_nothing():
    process = run(FORKS, start_new_session=True)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, f"\nprogram: interrupted; {terminal.KEPT}\n")
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_letter_can_be_printed_in_any_locale(encoding):
    program = "from hf_nasbert.terminal import *\nwith user_mistakes('p'):\n  say('± → gr'), 1 / 0"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    process = run(program, env=environment)
    out, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "gr" in out
    assert said == "p: division by zero\n"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "src").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT / "src"))
)
def test_text_is_read_and_written_as_utf_8(file):
    """Else it is the locale's encoding that decides."""
    import ast

    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        of_text = name in ("read_text", "write_text", "TextIOWrapper", "NamedTemporaryFile")
        if name in ("open", "fdopen") and not (
            isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("os.open", "Image.open")
        ):
            modes = [item.value for item in [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
                     if isinstance(item, ast.Constant) and isinstance(item.value, str)]  # fmt: skip
            of_text = not any("b" in mode and len(mode) < 4 for mode in modes)
        where = f"{file.name}:{node.lineno}"
        of_writing = ast.unparse(node.func) == "write_text" or ast.unparse(node.func).startswith("writing.")
        if of_text and not of_writing and name != "NamedTemporaryFile":
            named = "encoding" in given or (name == "write_text" and len(node.args) > 1)
            assert named, f"{where} names no encoding"
        if name in ("run", "Popen", "check_output") and ("text" in given or "universal_newlines" in given):
            raise AssertionError(f"{where}: what a process says is text of the locale's encoding")
