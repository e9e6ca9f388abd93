"""A compression whose latencies are counted, not measured, and pairs of sentences to prove it by."""

import pytest

from hf_nasbert.compression import run

from .bases import documents


def by_counting(config, children, batch_size, sequence_length):
    """Milliseconds that are the same in every run."""
    return [batch_size * (1.0 + sum(name != "skip" for name in child)) for child in children]


def stop_the_clock(patch):
    """Nothing of a compression is timed; `patch` is a `pytest.MonkeyPatch`."""
    patch.setattr(run, "measure_side_by_side", by_counting)
    patch.setattr(run, "does_bf16_pay", lambda device: False)


@pytest.fixture(autouse=True)
def quiet_clock(monkeypatch):
    """Latencies by counting, in every test of a file that imports this."""
    stop_the_clock(monkeypatch)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of pairs of sentences and their scores."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    texts = documents(40, seed=9)
    rows = [f"{a}\t{b}\t{number % 6}" for number, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=True))]
    file.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    return file
