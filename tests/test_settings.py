"""Settings are refused by what their fields declare."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from transformers import HfArgumentParser

from hf_nasbert.settings import Settings, check_names, check_range, setting


@dataclass
class Some(Settings):
    name: Literal["a", "b"] = setting("a", "A choice.")
    number: int | None = setting(None, "None, or a number.", at_least=2, at_most=5)
    share: float = setting(0.5, "A share.", above=0, below=1)
    words: list[str] = setting(list, "A list of its own.")
    output: str = setting("x", "A path.")


def test_every_object_has_a_list_of_its_own_and_paths_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other = Some(), Some(number=5, output="~/x")
    one.words.append("word")
    assert other.words == []
    assert other.output == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "c"}, "name='c': expected a or b"),
        ({"number": 1}, "number=1: expected at least 2"),
        ({"number": 6}, "number=6: expected at most 5"),
        ({"share": 0.0}, "share=0.0: expected above 0"),
        ({"share": 1.0}, "share=1.0: expected below 1"),
        ({"share": math.nan}, "share=nan: expected a finite number"),
    ],
)
def test_what_a_field_does_not_take_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Some(**given)


def test_a_number_without_bounds_is_finite():
    check_range("x", -1e300)
    with pytest.raises(ValueError, match="x=inf: expected a finite number"):
        check_range("x", math.inf)


def test_the_parser_of_transformers_takes_them_too():
    (made,) = HfArgumentParser(Some).parse_args_into_dataclasses(["--number", "3"])
    assert made == Some(number=3)


def test_a_keyword_that_is_no_setting_is_refused_with_the_closest_one():
    from hf_nasbert import compress, search

    with pytest.raises(
        TypeError, match=r"compress\(\) got an unexpected keyword argument 'max_latncy'.* 'max_latency'"
    ):
        compress("nowhere", ["a text"], max_latncy="0.5x")
    with pytest.raises(TypeError, match=r"search\(\) got an .*'num_evaluatons'; did you mean 'num_evaluations'\?"):
        search("nowhere", ["a text"], num_evaluatons=5)
    with pytest.raises(TypeError, match=r"some\(\) got .*'zzz': see the fields of Some"):
        check_names("some", Some, ["zzz"])
