"""Data sets by name: of the Hub, or in a folder; whatever the datasets library raises is one error that names them."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_nasbert.data.files import check_file, kind_of, stream_rows
from hf_nasbert.foreign import printable

_LONGEST = 600


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
    _check_folder(Path(name))
    loaded = _named(name, config, lambda: datasets.load_dataset(name, config, revision=revision, cache_dir=cache_dir))
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
    _check_folder(Path(name))
    loaded: Dataset = _named(
        name,
        config,
        lambda: datasets.load_dataset(name, config, split=split, revision=revision, cache_dir=cache_dir),
    )
    return loaded


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _check_folder(folder: Path) -> None:
    """Read the JSON files of a local folder here first: a line `null` crashes pyarrow's reader, and Python with it."""
    if not folder.is_dir():
        return
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
                f"{what} cannot be reached on the Hub, and was not downloaded before ({said}): look after the network "
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
