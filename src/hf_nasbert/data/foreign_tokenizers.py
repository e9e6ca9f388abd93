"""The one door for tokenizers of others: their files are read, tried in a process of its own, and then loaded.

A tokenizer.json holds regular expressions and tables that a library in Rust works with: it may panic, or compute for
hours, which nothing in Python ends. So it is tried first in a process with limits of time and memory and with nothing
of the user's environment. Whatever is wrong is one `ForeignFileError` that names the folder or the file.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.utils.hub import cached_file, extract_commit_hash

from hf_nasbert.foreign import ForeignFileError, printable, read_object

_CONFIGS = ("tokenizer_config.json", "config.json")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
_FILES = (*_CONFIGS, *_VOCABULARIES, "special_tokens_map.json", "added_tokens.json")
_LARGEST_CONFIG = 1 << 24  # bytes
_LARGEST_ID = 1 << 24  # the largest vocabularies have some hundred thousand
_ROLES = ("unk", "bos", "eos", "sep", "pad", "cls", "mask")
_SHOWN = 300  # characters of somebody else's error
# Beside the start of Python: of processor time, so that it does not depend on what else the machine does.
_SECONDS, _SECONDS_PER_MEGABYTE = 3, 1
_BYTES, _BYTES_PER_BYTE = 4 << 30, 64
_PATIENCE_SECONDS = 600
_PROBES = (
    "The quick brown fox, aged 12.5 years, doesn't jump: naïve!", "ภาษาไทย 漢字かな हिन्दी עברית", "🙂 \t\n  .", "",
    # Runs of letters, digits, spaces and signs, and after them what an expression without end looks for in vain.
    "a" * 2000 + "! 0A", "0" * 2000 + "! aA", " " * 2000 + "!a0A", "ab " * 1000 + "!0A", "." * 2000 + "a0A",
)  # fmt: skip
_well: set[bytes] = set()  # digests of the files that were tried and did well: the same bytes do again
_TRIAL = """
import sys
_, packages, file, seconds, memory, *texts = sys.argv
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))  # at the second, killed without a name
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
except (ImportError, ValueError, OSError):
    pass
sys.path.append(packages)
try:
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(file)
    for text in texts:
        tokenizer.encode(text)
except BaseException as error:
    sys.exit("{}: {}".format(type(error).__name__, " ".join(str(error).split())[:1000]))
"""


def open_tokenizer(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False, **options: Any
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the Hub.

    Args:
        name: Folder, or name on the Hub.
        revision: Commit or tag on the Hub.
        trust_remote_code: Run the code that comes with it, where it is of no class of transformers.
        options: Further arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        FileNotFoundError: If the name is a path and nothing is there.
        OSError: If the Hub has no such tokenizer, or cannot be reached.
        ForeignFileError: If its files lack a piece or are not what they should be, take too long, or ask for code that
            `trust_remote_code` does not allow.
    """
    name = str(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if looks_like_path and not Path(name).exists():
        raise FileNotFoundError(f"there is no tokenizer folder {name}")
    if Path(name).is_file():
        raise ForeignFileError(f"the tokenizer {name} is a file: name the folder that holds it")
    try:
        files = _find(name, revision)
        commit = next((found for path in files.values() if (found := extract_commit_hash(str(path), None))), None)
        if files or Path(name).is_dir():
            _check_files(name, files, trust_remote_code=trust_remote_code)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=commit or revision, trust_remote_code=trust_remote_code, **options
        )
        _check(name, tokenizer)
        if Path(name).is_dir() and tokenizer.is_fast:
            _check_vocabulary(name, files, tokenizer)
    except ForeignFileError:
        raise
    except OSError as error:
        raise OSError(f"the tokenizer {name} cannot be loaded ({_one_line(error)})") from error
    except (
        BaseException
    ) as error:  # odd files lead transformers' code to any error, and Rust's panics are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ForeignFileError(
            f"the tokenizer {name} cannot be loaded ({type(error).__name__}: {_one_line(error)}): its files are "
            "damaged, or of a kind that transformers does not know"
        ) from error
    return tokenizer


@contextmanager
def naming_panics(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Name the tokenizer in an error of the tokenizers library over a text, such as a regular expression without end.

    Raises:
        ForeignFileError: In place of the library's bare `Exception` or panic.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ForeignFileError(
            f"the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} cannot cut this text "
            f"({_one_line(error)}): give another one (tokenizer_name)"
        ) from error


def _find(name: str, revision: str | None) -> dict[str, Path]:
    """The files of a tokenizer that are read here; those of the Hub are fetched."""
    if Path(name).is_dir():
        return {file: Path(name, file) for file in _FILES if Path(name, file).exists()}
    found = {
        file: cached_file(
            name,
            file,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for file in _FILES
    }
    return {file: Path(path) for file, path in found.items() if path is not None}


def _check_files(name: str, files: dict[str, Path], *, trust_remote_code: bool) -> None:
    """Refuse files that lack a piece, are no JSON of a reasonable size and depth, or ask for code."""
    if not set(files) & set(_CONFIGS):
        raise ForeignFileError(
            f"the tokenizer folder {name} has {_listed(files)}, and neither config.json nor tokenizer_config.json: "
            "nothing says which tokenizer it is"
        )
    contents: dict[str, Any] = {}
    for file, path in files.items():
        if file.endswith(".json"):
            is_table = file in (*_VOCABULARIES, "added_tokens.json")
            contents[file] = read_object(path) if is_table else read_object(path, largest=_LARGEST_CONFIG)
    config, place = contents.get("tokenizer_config.json", {}), files.get("tokenizer_config.json")
    kind = config.get("tokenizer_class")
    if kind is not None and not isinstance(kind, str):
        raise ForeignFileError(f"{place} holds a tokenizer_class that is no name: {printable(kind, 100)}")
    is_known = kind is not None and any(tokenizer_class_from_name(f"{kind}{suffix}") for suffix in ("", "Fast"))
    if "auto_map" in config and not is_known and not trust_remote_code:
        raise ForeignFileError(
            f"{place} asks for code of its own ({printable(config['auto_map'], 100)}), which is not run unless "
            "trust_remote_code says so: give another tokenizer, or read that code and trust it"
        )
    if kind is not None and not is_known and "auto_map" not in config:
        raise ForeignFileError(f"{place} names the class {printable(kind, 100)}, which transformers does not have")
    if "tokenizer.json" in files:
        _try(files["tokenizer.json"])


def _try(path: Path) -> None:
    """Load a tokenizer.json and cut text with it in a process that may take so much time and memory, and no more.

    This process tries the same content once.

    Raises:
        ForeignFileError: If it does not end well.
    """
    content = path.read_bytes()
    digest, size = blake2b(content).digest(), len(content)
    if digest in _well:
        return
    seconds = _SECONDS + _SECONDS_PER_MEGABYTE * (size >> 20)
    packages = Path(tokenizers.__file__).parents[1]
    limits = (packages, path.resolve(), seconds, _BYTES + _BYTES_PER_BYTE * size)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL, *map(str, limits), *_PROBES],
            env={"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ForeignFileError(f"{path} was not read after {_PATIENCE_SECONDS} s") from None
    if done.returncode == -signal.SIGXCPU:
        raise ForeignFileError(
            f"{path} takes more than {seconds} s of processor time to read or to cut a few thousand letters: one of "
            "its regular expressions may have no end"
        )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        raise ForeignFileError(f"{path} is no tokenizer that works ({printable(said, _SHOWN)})")
    _well.add(digest)


def _check(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose numbers do not fit each other, or that cannot cut text."""
    ids = tokenizer.get_vocab().values()
    if not ids or min(ids) < 0 or max(ids) > _LARGEST_ID:
        raise ForeignFileError(
            f"the tokenizer {name} has {len(ids)} tokens with ids up to {max(ids, default=None)}: expected one or "
            f"more, and ids from 0 to {_LARGEST_ID:,}"
        )
    for role in _ROLES:
        token, number = getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")
        if token is not None and (number is None or not 0 <= number <= max(ids)):
            raise ForeignFileError(
                f"the tokenizer {name} has the {role}_token {printable(token, 100)}, which is not in its vocabulary"
            )
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ForeignFileError(
            f"the tokenizer {name} has the model_max_length {printable(longest, 100)}: expected a positive number"
        )
    padded = {} if tokenizer.pad_token is None else {"padding": True}
    found = tokenizer(list(_PROBES), truncation=True, max_length=16, verbose=False, **padded)["input_ids"]
    found += tokenizer(list(_PROBES), add_special_tokens=False, verbose=False)["input_ids"]
    strange = [number for row in found for number in row if not 0 <= number <= max(ids)]
    if strange:
        raise ForeignFileError(
            f"the tokenizer {name} cuts text into the token {strange[0]}, which is beyond its vocabulary of ids up to "
            f"{max(ids)}"
        )


def _check_vocabulary(name: str, files: dict[str, Path], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that transformers made up because the folder holds none."""
    known = {*_VOCABULARIES, *type(tokenizer).vocab_files_names.values()}
    if not any(Path(name, file).exists() for file in known):
        raise ForeignFileError(
            f"the tokenizer folder {name} has {_listed(files)}, and no vocabulary ({', '.join(sorted(known))})"
        )


def _listed(files: dict[str, Path]) -> str:
    return ", ".join(files) or "no file of a tokenizer"


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), _SHOWN)
