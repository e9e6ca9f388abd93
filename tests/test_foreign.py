"""JSON of somebody else: a value, or one error that names the file; and text that is safe to print."""

import json

import pytest

from hf_nasbert.foreign import ForeignFileError, printable, read_json, read_object


def test_what_is_valid_is_read(tmp_path):
    value = {"a": [1, 2.5, None, {"b": "\u202e"}]}
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "x.json") == value
    assert read_object(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8 .* offset 0"),
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b"9" * 5000, "is not JSON"),
        (b"[" * 300_000, "nested deeper"),
        (b'{"a":' * 300_000, "nested deeper"),
        (b"[" * 101 + b"]" * 101, "nested deeper"),
        (b"[" + b"1," * 60 + b"1]", "has 123 bytes"),
    ],
)
def test_what_is_not_is_one_error_with_the_name(tmp_path, content, wrong):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    largest = 100 if b"1,1" in content else 1 << 22
    with pytest.raises(ForeignFileError, match=f"config.json.*{wrong}") as caught:
        read_json(path, largest=largest)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_brackets_in_strings_are_no_nesting():
    assert read_json(json.dumps(["[" * 500]).encode()) == ["[" * 500]


def test_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(ForeignFileError, match="is no regular file"):
        read_json(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.json"):
        read_json(tmp_path / "a.json")


def test_an_object_is_asked_for():
    with pytest.raises(ForeignFileError, match=r"config\.json holds a list, expected a JSON object"):
        read_object(b"[]", "config.json")


def test_what_is_printed_holds_no_control_sequence():
    assert printable("a\x1b[2J\x07\u202eb\ud800\r\x85") == r"a\x1b[2J\x07\u202eb\ud800\r\x85"
    assert printable("größe, 日本\tx\ny") == "größe, 日本\tx\ny"
    assert printable("x" * 50, longest=10) == "xxxxxxxxxx... (50 characters)"
