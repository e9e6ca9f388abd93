"""File systems of their own for tests: in a forked process, where they may be mounted without being root."""

import ctypes
import multiprocessing
import os
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of sched.h


def mount(disk: Path, **options: str) -> None:
    """A file system in memory at a folder; `options` are those of tmpfs."""
    words = ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    subprocess.run(["mount", "-t", "tmpfs", *words, "tmpfs", disk], check=True)


def remount(disk: Path, options: str) -> None:
    """Other options of a file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def unmount(disk: Path) -> None:
    """Take a file system away, whoever still looks at it."""
    subprocess.run(["umount", "--lazy", disk], check=True)


def with_mounts(function: Callable[..., Any], *arguments: Any, timeout: float = 250) -> Any:
    """What a function returns that mounts file systems; nobody else sees these. Skips where that is not allowed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_with_mounts, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        is_allowed, found = receiver.recv() if receiver.poll(timeout) else (True, AssertionError("it hangs"))
    finally:
        child.kill()
        child.join()
    if not is_allowed:
        pytest.skip("mounting needs user namespaces")
    if isinstance(found, AssertionError):
        raise found
    return found


def _with_mounts(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(_NEW_MOUNTS | _NEW_USER):
        sender.send((False, None))
        return
    Path("/proc/self/setgroups").write_text("deny")
    for file, number in (("uid_map", user), ("gid_map", group)):
        Path("/proc/self", file).write_text(f"0 {number} 1")
    try:
        found = function(*arguments)
    except BaseException:
        found = AssertionError(traceback.format_exc())
    sender.send((True, found))
