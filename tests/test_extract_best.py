"""`extract --search found.jsonl --best`: a child by its rank in the file that a search wrote."""

import pytest
from tiny.records import CHILDREN, history

from hf_nasbert import records
from hf_nasbert.pipeline import ExtractionArguments
from hf_nasbert.pipeline.extraction import chosen_child
from hf_nasbert.pipeline.inputs import supernet_digest

BEST_FIRST = [name for name, loss, *_ in sorted(CHILDREN, key=lambda child: child[1])]


@pytest.fixture
def found(tmp_path):
    """The file of a search of a super-net whose weights are no weights: only their digest counts here."""

    def make(**settings):
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        about = {"supernet": supernet_digest(tmp_path), **settings.pop("about", {})}
        records.extend(tmp_path / "found.jsonl", history(about=about, **settings))
        return {"supernet": str(tmp_path), "search": str(tmp_path / "found.jsonl"), "output_dir": "x"}

    return make


def test_best_is_the_first_rank_and_ranks_go_by_loss(found, capsys):
    given = found()
    assert str(chosen_child(ExtractionArguments(**given, best=True))) == BEST_FIRST[0]
    assert f"rank 1 of 5 in {given['search']}: {BEST_FIRST[0]}, loss 5.1250" in capsys.readouterr().err
    ranked = [str(chosen_child(ExtractionArguments(**given, rank=rank))) for rank in range(1, 6)]
    assert ranked == BEST_FIRST
    with pytest.raises(ValueError, match=r"rank=6: .*found\.jsonl holds 5 children"):
        chosen_child(ExtractionArguments(**given, rank=6))


def test_a_child_that_was_measured_above_the_cap_is_not_the_best(found):
    slow = {"record": "measured", "architecture": BEST_FIRST[0], "expected_latency_ms": 4.0, "latency_ms": 6.0}
    children = [(*child[:4],) for child in CHILDREN]
    given = found(children=children, budget={"latency_ms": 5.0})
    lines = records.read(given["search"])
    timed = [{**line, "cost": {**line["cost"], "latency_ms": 4.0}} if "cost" in line else line for line in lines]
    timed_file = given["search"].replace("found", "timed")
    records.extend(timed_file, [*timed, slow])
    assert str(chosen_child(ExtractionArguments(**given | {"search": timed_file}, best=True))) == BEST_FIRST[1]


def test_a_search_of_another_supernet_is_refused(found):
    with pytest.raises(ValueError, match=r"found\.jsonl is of another super-net \(abc\)"):
        chosen_child(ExtractionArguments(**found(about={"supernet": "abc"}), best=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "which child"),
        ({"best": True, "search": "a.jsonl", "rank": 2}, "which child"),
        ({"best": True, "search": "a.jsonl", "architecture": "ffn"}, "which child"),
        ({"best": True}, "search is the file"),
        ({"architecture": "ffn", "search": "a.jsonl"}, "search is the file"),
        ({"search": "a.jsonl", "rank": 0}, "rank=0: expected at least 1"),
    ],
)
def test_a_child_is_named_in_exactly_one_way(given, message):
    with pytest.raises(ValueError, match=message):
        ExtractionArguments(supernet="s", output_dir="o", **given)
