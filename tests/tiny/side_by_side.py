"""Work that tests do side by side, and a program that goes on with it until it is stopped."""

import os
import sys
import time
from pathlib import Path

import torch

from hf_nasbert.pipeline.side_by_side import side_by_side
from hf_nasbert.stopping import StopRequest, leave


def introduce(word: str) -> tuple[str, int, int]:
    """A word, this process, and its threads."""
    return f"{word}!", os.getpid(), torch.get_num_threads()


def fail(how: str) -> None:
    """End in some way."""
    match how:
        case "words":
            raise FileNotFoundError("there is no file of mine")
        case "unsendable":
            raise Unsendable(1, 2)
        case "killed":
            os.kill(os.getpid(), 9)
        case "never":
            time.sleep(600)


class Unsendable(ValueError):
    """An error that cannot be made again from what it holds."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def go_on(file: str) -> None:
    """Say that work has begun, and go on until asked to stop."""
    with StopRequest() as stop:
        Path(f"{file}.begun").touch()
        while not stop.is_set:
            time.sleep(0.05)
    Path(f"{file}.left").touch()
    leave("left in good order")


if __name__ == "__main__":
    torch.set_num_threads(2)
    side_by_side(go_on, [f"{sys.argv[1]}/{name}" for name in "ab"])
