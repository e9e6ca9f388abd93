"""Records: complete lines survive everything, half ones are named, and writers never mix."""

import errno
import fcntl
import gzip
import json
import logging
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_nasbert import records
from hf_nasbert.writing import WriteError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "runs.jsonl"


def test_what_goes_in_comes_back_in_order(path):
    wrote = [{"step": 1, "loss": 0.1 + 0.2}, {"text": "naïve \n ☃", "nested": {"list": [1, None, True]}}, {}]
    for record in wrote:
        records.append(path, record)
    assert records.read(path) == wrote
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("cut", [1, 2, 9, 17])
def test_a_half_written_last_line_is_reported_by_read_and_removed_by_append(path, caplog, cut):
    records.append(path, {"step": 1})
    records.append(path, {"step": 2, "loss": 2.5})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # With the line end alone lost, the record itself is whole.
    survivors = [{"step": 1}, {"step": 2, "loss": 2.5}] if cut == 1 else [{"step": 1}]
    with caplog.at_level(logging.WARNING):
        assert records.read(path) == survivors
    assert ("half-written" in caplog.text) == (cut > 1)
    assert path.read_bytes() == whole[:-cut]  # reading changes nothing
    records.append(path, {"step": 3})
    assert records.read(path) == [*survivors, {"step": 3}]


def test_a_torn_first_and_only_line_and_a_very_long_one(path):
    path.parent.mkdir()
    path.write_bytes(b'{"ste')
    assert records.read(path) == []
    long = {"text": "x" * 300_000}  # longer than the pieces in which the end is read
    records.append(path, long)
    records.append(path, {"step": 1})
    path.write_bytes(path.read_bytes() + json.dumps(long).encode()[:200_000])
    records.append(path, {"step": 2})
    assert records.read(path) == [long, {"step": 1}, {"step": 2}]


@pytest.mark.parametrize("content", [b"dear diary\n", b"half a line", b'{\n  "pretty": 1\n}\n', b"[1, 2]", b"\n"])
def test_a_file_of_something_else_is_never_changed(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"runs\.jsonl"):
        records.append(path, {"step": 1})
    assert path.read_bytes() == content


def test_damage_before_the_end_is_an_error_that_names_the_line(path):
    path.parent.mkdir()
    path.write_bytes(b'{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        records.read(path)
    path.write_bytes(b'{"step": 1}\n[2]\n')
    with pytest.raises(ValueError, match="line 2"):
        records.read(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"runs\.jsonl"):
        records.read(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"loss": float("nan")}, r"record\['loss'\] is nan"),
        ({"curve": [1.0, float("-inf")]}, r"record\['curve'\]\[1\] is -inf"),
        ({"counts": {3: 1}}, "key 3"),
        ({"path": {1, 2}}, "type set"),
        ([1], "dict"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_place_and_nothing_is_written(path, record, message):
    with pytest.raises(ValueError, match=message):
        records.append(path, record)
    assert not path.exists()


def test_compressed_files_are_read_and_never_appended_to(path, tmp_path):
    records.append(path, {"step": 1})
    records.append(path, {"step": 2})
    packed = tmp_path / "runs.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert records.read(packed) == records.read(path)
    with pytest.raises(WriteError, match=r"runs\.jsonl\.gz \(it is compressed, .*: name a plain \.jsonl"):
        records.append(packed, {"step": 3})
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(ValueError, match="not a whole gzip"):
        records.read(packed)
    packed = tmp_path / "runs.jsonl.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    assert records.read(packed) == records.read(path)
    with pytest.raises(WriteError, match="it is compressed"):
        records.append(packed, {"step": 3})
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(ValueError, match="not a whole xz"):
        records.read(packed)


def test_every_record_is_synced_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    records.append(path, {"step": 1})
    assert synced[0] == len(b'{"step": 1}\n')


def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch):
    records.append(path, {"step": 1})
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
    with pytest.raises(OSError, match="disk full"):
        records.append(path, {"step": 2})
    assert path.read_bytes() == before

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        records.append(path, {"step": 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_on_the_file_system_one_warning_does(path, monkeypatch, caplog, number):
    def unknown(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with caplog.at_level(logging.WARNING):
        records.append(path, {"step": 1})
        records.append(path, {"step": 2})
    assert caplog.text.count("cannot be locked") == 1
    assert records.read(path) == [{"step": 1}, {"step": 2}]


def test_a_lock_that_fails_otherwise_is_an_error(path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"):
        records.append(path, {"step": 1})
    assert path.read_bytes() == b""


@pytest.mark.parametrize("before", [b"", b'{"step": 1}\n', b'{"step": 1}\n' + b"\n" * 20])
def test_a_torn_line_of_many_pieces_is_read_once(path, monkeypatch, before):
    """What is copied grows with the line, and not with its square."""
    monkeypatch.setattr(records, "_CHUNK", 16)
    path.parent.mkdir()
    torn = b'{"text": "' + b"x" * 16 * 40_000
    path.write_bytes(before + torn)
    began = time.process_time()
    records.append(path, {"step": 2})
    assert time.process_time() - began < 2  # joining to what was read took ten times as long
    assert path.read_bytes() == before + b'{"step": 2}\n'


@pytest.mark.parametrize("chunk", range(1, 30))
def test_pieces_of_any_length_find_the_last_line(path, monkeypatch, chunk):
    monkeypatch.setattr(records, "_CHUNK", chunk)
    path.parent.mkdir()
    for tail, kept in ((b"", b""), (b'{"b": 2}', b'{"b": 2}\n'), (b'{"b', b""), (b"\n\n", b"\n\n")):
        path.write_bytes(b'{"a": 1}\n' + tail)
        records.append(path, {"c": 3})
        assert path.read_bytes() == b'{"a": 1}\n' + kept + b'{"c": 3}\n'


WRITER = """
import sys
from hf_nasbert import records
for index in range(int(sys.argv[3])):
    text = sys.argv[2] * (1 + 997 * index % 5000)
    records.append(sys.argv[1], {"writer": sys.argv[2], "index": index, "text": text})
"""


def start_writer(path, name, num_records):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(num_records)])


def test_processes_that_append_at_once_lose_and_mix_nothing(path):
    writers = [start_writer(path, name, 60) for name in "abcd"]
    assert [writer.wait(30) for writer in writers] == [0] * 4
    found = records.read(path)
    for name in "abcd":
        mine = [record for record in found if record["writer"] == name]
        assert [record["index"] for record in mine] == list(range(60))
        assert all(set(record["text"]) == {name} for record in mine)
    assert len(found) == 240


BEGINNER = """
import sys, time
from hf_nasbert import records

def choose(found):
    time.sleep(0.2)  # whoever looks before another has written what it will write waits for it
    return [] if found else [{"head": sys.argv[2]}]

print(records.update(sys.argv[1], choose)[0]["head"])
"""


def test_of_processes_that_begin_a_file_together_one_does(path):
    started = [
        subprocess.Popen([sys.executable, "-c", BEGINNER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    heads = {process.communicate(timeout=30)[0].strip() for process in started}
    assert len(heads) == 1
    assert records.read(path) == [{"head": heads.pop()}]


def test_an_update_sees_all_and_adds_what_is_chosen(path):
    assert records.update(path, lambda found: [{"n": len(found)}]) == [{"n": 0}]
    assert records.update(path, lambda found: [{"n": len(found)}, {"n": "more"}]) == [
        {"n": 0},
        {"n": 1},
        {"n": "more"},
    ]
    with pytest.raises(ValueError, match="no"):
        records.update(path, lambda found: (_ for _ in ()).throw(ValueError("no")))
    with path.open("ab") as file:
        file.write(b'{"n": "to')
    assert records.update(path, lambda found: []) == records.read(path) == [{"n": 0}, {"n": 1}, {"n": "more"}]


def test_a_killed_writer_costs_at_most_the_record_in_hand(path):
    writer = start_writer(path, "k", 1_000_000)
    deadline = time.monotonic() + 20
    while not (path.exists() and path.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    records.append(path, {"index": -1})
    *killed, last = records.read(path)
    assert [record["index"] for record in killed] == list(range(len(killed)))
    assert len(killed) > 1
    assert last == {"index": -1}


def test_versions_name_what_decides_numbers_and_give_away_nothing(tmp_path):
    import platform

    found = records.versions()
    assert found["python"] == platform.python_version()
    assert {"torch", "transformers", "numpy", "cpu", "num_threads", "platform"} <= found.keys()
    text = json.dumps(found)
    for secret in (platform.node(), str(tmp_path), str(Path.cwd())):
        assert secret not in text
    records.append(tmp_path / "v.jsonl", found)


def test_versions_report_the_threads_of_a_loaded_torch(monkeypatch):
    class Torch:
        get_num_threads = staticmethod(lambda: 77)
        cuda = SimpleNamespace(is_initialized=lambda: False)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert records.versions()["num_threads"] == 77


@pytest.mark.parametrize(("num_allocations", "named"), [(3, {"gpu": "a GPU"}), (0, {})])
def test_versions_name_a_gpu_that_was_used(monkeypatch, num_allocations, named):
    """CUDA is initialised by whoever asks what there is, in runs on the CPU too."""

    class Torch:
        get_num_threads = staticmethod(lambda: 1)
        cuda = SimpleNamespace(
            is_initialized=lambda: True,
            memory_stats=lambda: {"allocation.all.allocated": num_allocations},
            get_device_name=lambda: "a GPU",
        )

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert {name: value for name, value in records.versions().items() if name == "gpu"} == named


def test_importing_and_asking_versions_load_neither_torch_nor_transformers():
    program = (
        "import sys; from hf_nasbert import records; records.versions(); "
        "raise SystemExit(bool({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
