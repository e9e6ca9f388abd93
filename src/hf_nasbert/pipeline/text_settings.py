"""What a model's folder says of the text it was trained on: what commands take unless they are told otherwise."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_nasbert.data import DataArguments
from hf_nasbert.data.trained_on import MASKING, TRAINED_ON, read_text_files
from hf_nasbert.foreign import printable, read_object
from hf_nasbert.paths import expanded
from hf_nasbert.recipe_arguments import check_settings
from hf_nasbert.training import read_log
from hf_nasbert.training.journal import LOG

logger = logging.getLogger(__name__)

_TOKENIZER = "tokenizer_config.json"
_SOURCE = ("packaged", "dataset_name", "dataset_config", "dataset_revision", "language")
_SPLIT = ("dataset_split", "text_column", "sample_by", "validation_fraction", "data_seed")


def trained_on(folder: str | Path) -> dict[str, Any]:
    """The text settings that a super-net, or a child of one, was trained with: fields of `DataArguments`.

    What the folder does not say is missing: all of it where there is neither log nor `trained_on.json`, and the source
    where it is a file, whose place no log names. A model that takes fewer tokens than commands cut text into by
    default sets `max_seq_length` all the same.

    Args:
        folder: Of a run or of one of its checkpoints, or of an extracted child.

    Raises:
        ValueError: If the log or a file of the folder is damaged, or says what no text setting can be.
    """
    folder = Path(folder)
    text, data = training_of(folder)
    settings = {name: text[name] for name in (*_SOURCE, *_SPLIT) if name in text}
    settings |= {name: data[name] for name in MASKING if name in data}
    if "sequence_length" in data:
        settings["max_seq_length"] = data["sequence_length"]
    elif (folder / "config.json").is_file():
        longest = read_object(folder / "config.json").get("max_position_embeddings")
        if type(longest) is int and longest < DataArguments.max_seq_length:
            settings["max_seq_length"] = longest
    return check_settings(f"what {folder} was trained on", settings, [DataArguments])


def settings_of_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The text settings that were not given and that the folder of the super-net or child says, reported in one line.

    Of another text than the model's own only the length of sequences and the masking are taken.

    Args:
        given: Settings, among them the folder as `supernet` or `model`.

    Raises:
        FileNotFoundError: If there is no folder of that super-net, and no text is given.
        ValueError: See `trained_on`.
    """
    folder = given.get("supernet") or given.get("model")
    if not isinstance(folder, str):
        return {}
    folder = expanded(folder)
    if not Path(folder).is_dir():
        is_text_given = any(given.get(name) for name in DataArguments.alternatives)
        if given.get("supernet") and not is_text_given:  # or else the message would ask for a text
            raise FileNotFoundError(f"super-net {folder}: no such folder")
        return {}
    known = trained_on(folder)
    sources = {name: given[name] for name in DataArguments.alternatives if given.get(name)}
    if sources:
        is_same = len(sources) == 1 and DataArguments(**sources).source == training_of(folder)[0].get("source")
        dropped = DataArguments.alternatives if is_same else (*_SOURCE, *_SPLIT)
        known = {name: value for name, value in known.items() if name not in dropped}
    elif not any(name in known for name in DataArguments.alternatives):
        files = text_files_of(folder)
        known |= {} if files is None else {"train_files": files}
    taken = {name: value for name, value in known.items() if name not in given}
    words = [f"{name}={value}" for name, value in taken.items()]
    if not given.get("tokenizer_name") and find_tokenizer(folder) is not None:
        words.append("the tokenizer")
    if words and os.environ.get("RANK", "0") == "0":  # of several processes, one
        say(f"taken from {folder}: {', '.join(words)}")
    return taken


def length_of_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The longest input that a model has positions for, where that is less than tasks are cut to by default.

    Args:
        given: Settings, among them the folder as `model`; of a Hub name nothing is known before it is loaded.
    """
    folder = given.get("model")
    if "max_seq_length" in given or not isinstance(folder, str):
        return {}
    file = Path(expanded(folder)) / "config.json"
    config = read_object(file) if file.is_file() else {}
    longest = config.get("max_position_embeddings")
    counts_from_padding = "roberta" in str(config.get("model_type"))  # those positions are fewer than they say
    if counts_from_padding or type(longest) is not int or not 0 < longest < DataArguments.max_seq_length:
        return {}
    say(f"taken from {folder}: max_seq_length={longest}")
    return {"max_seq_length": longest}


def find_tokenizer(folder: str | Path) -> Path | None:
    """The folder of a super-net's own tokenizer: beside its weights, or beside its run's if it is a checkpoint."""
    return next((place for place in _places(folder) if (place / _TOKENIZER).is_file()), None)


def text_files_of(folder: str | Path) -> list[str] | None:
    """Where the files lie that a model was trained on, if they were on this machine and still are.

    Raises:
        ValueError: If the note beside the model is damaged.
    """
    noted = next((files for place in _places(folder) if (files := read_text_files(place))), None)
    return noted if noted and all(_is_there(file) for file in noted) else None


def _is_there(file: str) -> bool:
    return any(sign in file for sign in "*?") or Path(file).exists()  # a pattern says itself what is missing


def training_of(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's log, or the file that a child has in its place, says of the text and of the sequences cut from it.

    Raises:
        ValueError: If log or file are damaged.
    """
    record: Mapping[str, Any] = {}
    for place in _places(folder):
        if (place / TRAINED_ON).is_file():
            record = read_object(place / TRAINED_ON)
            break
        if (place / LOG).is_file():
            record = next((record for record in reversed(read_log(place)) if "data" in record), {})
            break
    text, data = (record.get(name, {}) for name in ("text", "data"))
    if not isinstance(text, Mapping) or not isinstance(data, Mapping):
        raise ValueError(f"{folder} does not say what it was trained on: its text or data are no names and values")
    if "sequence_length" in data and type(data["sequence_length"]) is not int:
        raise ValueError(f"{folder} was trained on sequences of {printable(data['sequence_length'], 40)} tokens?")
    return dict(text), dict(data)


def check_against_training(folder: str | Path, data: DataArguments) -> None:
    """Hold the text to what the super-net's folder says that it was trained on.

    Another text, other lengths of sequences, another masking and another tokenizer are warned of.

    Raises:
        ValueError: If another part of the same text was held out from the training, or the log is damaged.
    """
    (trained, said), asked = training_of(folder), data.describe_split()
    if trained.get("source") == asked["source"]:
        changed = [name for name in asked if trained.get(name) != asked[name]]
        if changed:
            raise ValueError(
                f"{folder} was trained on {asked['source']} with {changed[0]}={trained.get(changed[0])!r}, now it is "
                f"{asked[changed[0]]!r}: text that it was trained on would pass for held-out text; give the same "
                f"{changed[0]}"
            )
    elif "source" in trained:
        logger.warning("%s was trained on %s and is measured on %s", folder, trained["source"], asked["source"])
    length = said.get("sequence_length", data.max_seq_length)
    if data.max_seq_length > length:
        logger.warning(
            "%s was trained on sequences of %d tokens: with max_seq_length=%d it is scored at positions it never saw",
            folder,
            length,
            data.max_seq_length,
        )
    trained = {name: said[name] for name in MASKING if name in said}
    if data.max_seq_length < length:
        trained["max_seq_length"] = length
    for name, value in trained.items():
        if getattr(data, name) != value:
            logger.warning("%s was trained with %s=%s, now it is %s", folder, name, value, getattr(data, name))


def _places(folder: str | Path) -> list[Path]:
    """Where a model's tokenizer and log may lie: a checkpoint has neither, but its run does."""
    folder = Path(folder).resolve()
    return [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]


def say(text: str) -> None:
    """Tell the user, beside any bar."""
    tqdm.write(printable(text), file=sys.stderr)
