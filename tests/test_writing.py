"""Files and folders are whole or not there, never through a link, never over a device; a failed write names them."""

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_nasbert import writing
from hf_nasbert.writing import WriteError, scratch_file, whole_file, whole_folder, write_bytes, write_text


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


class TestWholeFile:
    def test_a_file_appears_whole(self, tmp_path):
        write_text(tmp_path / "new" / "a.txt", "größe\n")
        assert (tmp_path / "new" / "a.txt").read_bytes() == "größe\n".encode()
        assert contents(tmp_path / "new") == ["a.txt"]

    def test_a_block_that_raises_leaves_what_was_there(self, tmp_path):
        (tmp_path / "a").write_text("before")

        def write_half():
            with whole_file(tmp_path / "a") as file:
                file.write(b"half")
                raise KeyError

        with pytest.raises(KeyError):
            write_half()
        assert (tmp_path / "a").read_text() == "before"
        assert contents(tmp_path) == ["a"]

    def test_it_is_flushed_before_it_has_its_name(self, tmp_path, monkeypatch):
        seen = []
        fsync = os.fsync
        monkeypatch.setattr(writing.os, "fsync", lambda fd: (seen.append((tmp_path / "a").exists()), fsync(fd))[1])
        write_bytes(tmp_path / "a", b"x")
        assert seen == [False, True], "the content before the name, the name after"

    def test_a_link_is_replaced_and_never_followed(self, tmp_path):
        (tmp_path / "precious").write_text("mine")
        (tmp_path / "a").symlink_to(tmp_path / "precious")
        write_text(tmp_path / "a", "new")
        assert (tmp_path / "precious").read_text() == "mine"
        assert (tmp_path / "a").read_text() == "new"
        assert not (tmp_path / "a").is_symlink()

    def test_a_planted_name_is_not_met(self, tmp_path):
        """Two writes use two names, so none can be foreseen."""
        names = []
        for _ in range(2):
            with whole_file(tmp_path / "a") as file:
                names += [name for name in contents(tmp_path) if name != "a"]
                file.write(b"x")
        assert len(set(names)) == 2

    @pytest.mark.parametrize("kind", ["folder", "pipe"])
    def test_what_is_no_file_is_left_alone(self, tmp_path, kind):
        place = tmp_path / "a"
        place.mkdir() if kind == "folder" else os.mkfifo(place)
        with pytest.raises(
            WriteError, match=rf"cannot write .*a \(it is a {'folder' if kind == 'folder' else 'device'}"
        ):
            write_text(place, "x")
        assert place.is_dir() if kind == "folder" else place.is_fifo()
        assert contents(tmp_path) == ["a"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
    def test_a_device_stays_a_device(self, tmp_path):
        try:
            os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("this root may not make devices")
        with pytest.raises(WriteError, match=r"null \(it is a device"):
            write_text(tmp_path / "null", "x")
        assert (tmp_path / "null").is_char_device()

    def test_the_mode_is_kept_or_follows_the_umask(self, tmp_path):
        write_text(tmp_path / "new", "x")
        (tmp_path / "plain").touch()
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
        (tmp_path / "new").chmod(0o600)
        write_text(tmp_path / "new", "y")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600

    def test_a_full_disk_is_named_with_the_file(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(writing.os, "fsync", full)
        with pytest.raises(WriteError, match=r"cannot write .*/a \(No space left on device\): make room") as caught:
            write_text(tmp_path / "a", "x")
        assert caught.value.errno == errno.ENOSPC
        assert contents(tmp_path) == []

    def test_what_goes_wrong_in_reading_keeps_its_own_words(self, tmp_path):
        with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a") as file:
            file.write(Path(tmp_path / "missing").read_bytes())

    def test_what_a_killed_process_left_is_swept_up(self, tmp_path):
        old, young = tmp_path / ".hf_nasbert-a.unfinished", tmp_path / ".hf_nasbert-b.unfinished"
        old.mkdir()
        young.write_bytes(b"half")
        other = tmp_path / "mine.unfinished"
        other.touch()
        for path in (old, other):
            os.utime(path, (time.time() - 2 * 86_400,) * 2)
        write_text(tmp_path / "c", "whole")
        assert contents(tmp_path) == [young.name, "c", other.name]

    def test_a_killed_process_holds_no_lock_so_its_file_goes_soon(self, tmp_path):
        """One that is being written stays, however long nothing was added to it; the file of a killed one goes."""
        program = (
            "import sys, time; from hf_nasbert.writing import whole_file\n"
            "with whole_file(sys.argv[1]) as file:\n"
            "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(60)\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "a")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        (left,) = tmp_path.iterdir()
        os.utime(left, (time.time() - 3600,) * 2)
        write_text(tmp_path / "b", "whole")
        assert contents(tmp_path) == [left.name, "b"]
        process.kill()
        process.wait()
        process.stdout.close()
        os.utime(left, (time.time() - 60,) * 2)
        write_text(tmp_path / "b", "whole")
        assert contents(tmp_path) == [left.name, "b"], "it may have been made a moment ago, and not be locked yet"
        os.utime(left, (time.time() - 3600,) * 2)
        write_text(tmp_path / "b", "whole")
        assert contents(tmp_path) == ["b"]


class TestScratchFile:
    def test_it_is_read_back_and_leaves_nothing(self, tmp_path):
        with scratch_file(tmp_path) as file:
            file.write(b"x")
            file.seek(0)
            assert file.read() == b"x"
        assert contents(tmp_path) == []

    def test_a_failed_write_names_the_folder(self, tmp_path):
        with pytest.raises(WriteError, match=r"cannot write .* \(No space left"), scratch_file(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(WriteError, match="missing"), scratch_file(tmp_path / "missing"):
            pass


class TestWholeFolder:
    def test_a_folder_appears_whole(self, tmp_path):
        with whole_folder(tmp_path / "deep" / "model") as staging:
            (staging / "figures").mkdir()
            (staging / "figures" / "a").write_text("x")
            assert not (tmp_path / "deep" / "model").exists()
        assert contents(tmp_path / "deep") == ["model"]
        assert (tmp_path / "deep" / "model" / "figures" / "a").read_text() == "x"

    def test_a_block_that_raises_leaves_nothing(self, tmp_path):
        def write_half():
            with whole_folder(tmp_path / "model") as staging:
                (staging / "a").write_text("x")
                raise KeyError

        with pytest.raises(KeyError):
            write_half()
        assert contents(tmp_path) == []

    def test_a_place_that_is_taken_is_named(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "other").touch()
        with pytest.raises(OSError, match="model"), whole_folder(tmp_path / "model") as staging:
            (staging / "a").write_text("x")
        assert contents(tmp_path / "model") == ["other"]
        assert contents(tmp_path) == ["model"]

    def test_every_file_is_flushed(self, tmp_path, monkeypatch):
        flushed = []
        fsync = os.fsync
        monkeypatch.setattr(
            writing.os,
            "fsync",
            lambda fd: (flushed.append(Path(f"/proc/self/fd/{fd}").readlink().name), fsync(fd))[1],
        )
        with whole_folder(tmp_path / "model") as staging:
            (staging / "a").touch()
            (staging / "b").touch()
        assert {"a", "b", tmp_path.name} <= set(flushed)
