"""A child's folder: written whole or not at all, with all that it needs to leave home."""

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.data.vocabulary import save_tokenizer, vocabulary_size
from hf_nasbert.modeling import NasBertConfig, modeling_nasbert
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.modeling.sentence_transformer import MODULE_FILES, MODULE_FOLDER, SentenceModules
from hf_nasbert.native import CODE_FILES
from hf_nasbert.writing import check_whole_folder, whole_folder

# What belongs to a saved model and is replaced together with it; anything else in its folder is somebody's.
_MODEL_FILE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|vocab\.txt|README\.md"
    rf"|{'|'.join(map(re.escape, MODULE_FILES))}|{MODULE_FOLDER}|onnx"
    r"|(model|pytorch_model).*\.(safetensors|bin|json)|(geometry|operators|configuration|modeling)_nasbert\.py"
)


def save_child(
    child: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    card: str | None = None,
    *,
    attachments: Sequence[str | Path] = (),
    sentence_modules: SentenceModules | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a child's folder: config, safetensors, tokenizer, its code files, the card and files of yours.

    The folder appears whole or not at all. With its code beside it, it loads where this package is not installed:
    `AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)`, and so with every other head.

    Args:
        child: A child with any head, or a stock model from `to_bert`, which needs no code files. `native_form` turns
            a child into one where it can.
        tokenizer: The tokenizer the child was trained with.
        folder: Where to write; its parents are made.
        card: Text of README.md (`cards.render_child_card`).
        attachments: Files to copy beside it: figures, records.
        sentence_modules: What makes a SentenceTransformer of it, which loads by that library too.
        overwrite: Replace a model that is there. Files in that folder that are none of a model stay in it.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder holds something, and `overwrite` is not given or what it holds is no model.
        ValueError: If the tokenizer has tokens that the child has no embedding for.
        WriteError: If the folder cannot be written; a model that is there stays as it was.
    """
    folder = Path(folder).resolve()  # a link to a folder stays a link
    _check_vocabulary(child, tokenizer)
    files = [Path(path) for path in attachments]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"no such file to put beside the child: {path}")
        if _MODEL_FILE.fullmatch(path.name) or [other.name for other in files].count(path.name) > 1:
            raise ValueError(f"cannot put {path} beside the child: another file there has that name")
    check_place(folder, overwrite)
    with whole_folder(folder, move_into_place) as staging:
        fill_child_folder(staging, child, tokenizer, card, sentence_modules=sentence_modules)
        for path in files:
            shutil.copyfile(path, staging / path.name)
    return folder


def fill_child_folder(
    staging: Path,
    child: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: str | None = None,
    *,
    sentence_modules: SentenceModules | None = None,
) -> None:
    """Write a child's files into a folder that the caller then puts into its place; arguments are `save_child`'s.

    Raises:
        ValueError: If the tokenizer has tokens that the child has no embedding for.
    """
    _check_vocabulary(child, tokenizer)
    child.save_pretrained(staging)
    save_tokenizer(tokenizer, staging, child.config.max_position_embeddings)
    if card is not None:
        (staging / "README.md").write_text(card, encoding="utf-8")
    if sentence_modules is not None:
        sentence_modules.write(staging, child.config.hidden_size)
    if child.config.model_type == NasBertConfig.model_type:
        _pack_code(staging)


def _check_vocabulary(child: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if (size := vocabulary_size(tokenizer)) > child.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} tokens, the child {child.config.vocab_size} embeddings: "
            "save it with the tokenizer it was trained with"
        )


def check_place(folder: Path, overwrite: bool, sign: str = "config.json") -> None:
    """Refuse a place where something would be lost, before anything is written.

    Args:
        folder: Where to write.
        overwrite: Whether what is there may be replaced.
        sign: Name or pattern of the file without which it is none of ours, and is never replaced.

    Raises:
        FileExistsError: If the place is taken.
        WriteError: If nothing can be written there.
    """
    check_whole_folder(folder)  # the folder is made beside its place, then renamed
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder to write to")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} is not empty: name another folder, or pass overwrite to replace the model in it"
        )
    if not any(folder.glob(sign)):
        raise FileExistsError(f"{folder} holds no model (no {sign}): it is left as it is; name another folder")


def _pack_code(folder: Path) -> None:
    """Put the code files and the names of all heads into a child's folder, whatever class was saved.

    transformers copies the code of registered classes only, and a child that was itself loaded from the Hub keeps
    pointing there for all heads but its own.
    """
    package = Path(modeling_nasbert.__file__).parent
    for name in CODE_FILES:
        shutil.copyfile(package / name, folder / name)
    file = folder / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), "auto_map": AUTO_MAP}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def move_into_place(staging: Path, folder: Path) -> None:
    """Rename the finished folder to its name. Of a model that is there, the other files of its folder are kept."""
    if not folder.exists() or not any(folder.iterdir()):
        staging.replace(folder)
        return
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.replaced")  # a name that nobody can foresee
    folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    for path in old.iterdir():
        if not _MODEL_FILE.fullmatch(path.name) and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)
