"""Data sets by name: of the Hub, or in a folder; whatever the datasets library raises is one error that names them."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from datasets.packaged_modules.json.json import Json
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_nasbert.data.files import check_file, kind_of
from hf_nasbert.data.formats import stream_rows
from hf_nasbert.foreign import printable

_LONGEST = 600
# Reads a data set of JSON into the cache; what is raised is raised again, and told, where it is read from there.
_READ = """
import json, signal, sys
import datasets
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
name, options = json.loads(sys.argv[1])
try:
    datasets.load_dataset_builder(name, **options).download_and_prepare()
except Exception:
    pass
"""


def load_splits(
    name: str, config: str | None = None, *, revision: str | None = None, cache_dir: str | None = None
) -> DatasetDict:
    """All splits of a data set of the Hub, of a folder of data files, or of a folder that `save_to_disk` wrote.

    Raises:
        FileNotFoundError: If there is no such data set, or it holds no data files.
        ConnectionError: If the Hub cannot be reached and the data set was not downloaded before.
        ValueError: If it has a loading script, or no such configuration; or if it is broken.
    """
    if _is_saved(Path(name)):
        found = _named(name, None, lambda: datasets.load_from_disk(name))
        return found if isinstance(found, DatasetDict) else DatasetDict({str(found.split or "train"): found})
    loaded = _named(name, config, lambda: _load(name, config, None, revision, cache_dir))
    return DatasetDict(loaded)


def load_split(
    name: str, config: str | None, split: str, *, revision: str | None = None, cache_dir: str | None = None
) -> Dataset:
    """One split of such a data set; of the Hub's also a slice, such as `train[:1%]`.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: As `load_splits`; and if there is no such split.
    """
    if _is_saved(Path(name)):
        splits = load_splits(name)
        if split not in splits:
            raise ValueError(f"the data set {name} has no split {split!r}, only {', '.join(splits)}")
        return splits[split]
    loaded: Dataset = _named(name, config, lambda: _load(name, config, split, revision, cache_dir))
    return loaded


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _load(name: str, config: str | None, split: str | None, revision: str | None, cache_dir: str | None) -> Any:
    """As `datasets.load_dataset`; JSON is read into the cache in a process of its own, which may die of it."""
    options = {"name": config, "revision": revision, "cache_dir": cache_dir or str(datasets.config.HF_DATASETS_CACHE)}
    builder = datasets.load_dataset_builder(name, **options)
    if isinstance(builder, Json) and not Path(builder.cache_dir).exists():
        program = [sys.executable, "-P", "-c", _READ, json.dumps([name, options])]
        if (status := subprocess.run(program, stdin=subprocess.DEVNULL, check=False).returncode) < 0:
            if Path(name).is_dir():
                _name_odd_line(Path(name))
            raise ValueError(
                f"reading its JSON files ended Python by signal {-status}, as a line `null` among them does, and want "
                "of memory: mend them, or convert them to Parquet"
            )
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _name_odd_line(folder: Path) -> None:
    """Find the line of a folder's JSON files that is no row.

    Raises:
        ValueError: If there is one.
    """
    for path in sorted(folder.rglob("*.[jJ][sS][oO][nN]*")):
        if path.is_file() and kind_of(path) in (".json", ".jsonl"):
            check_file(path, (".json", ".jsonl"), "data")
            for _ in stream_rows(path):
                pass


def _named(name: str, config: str | None, load: Callable[[], Any]) -> Any:
    """What the library loads. It raises errors of many kinds (YAML, JSON, pyarrow, the network), so all are caught."""
    what = f"the data set {name}" + (f" ({config})" if config else "")
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:
        said = _words_of(error)
        if "scripts are no longer supported" in said:
            raise ValueError(
                f"{what} has a loading script, which the datasets library no longer runs: convert it to data files "
                "(Parquet, or JSON lines), or give another data set"
            ) from error
        if _is_of_network(error):
            raise ConnectionError(
                f"{what} cannot be reached on the Hub, and was not downloaded before ({said}): check the network "
                "and HF_HUB_OFFLINE, or give a folder or files"
            ) from error
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{what} is not there ({said}): check its name, or give files") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise OSError(
                error.errno, f"{what} cannot be written to the cache ({said}): choose a cache_dir"
            ) from error
        raise ValueError(f"{what} does not load ({said})") from error


def _is_of_network(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is of the network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError | TimeoutError | OfflineModeIsEnabled):
            return True
        if type(seen).__module__.startswith("http") and "Status" not in type(seen).__name__:
            return True
        seen = seen.__cause__
    return False


def _words_of(error: BaseException) -> str:
    """What an error says in one line; of one that only wraps another, what that says."""
    if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST)
