"""`push_to_hub` of our models: what goes is the whole folder of a child or super-net, with tokenizer and card."""

import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_nasbert.child_folders import fill_child_folder
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.hub.arguments import PushArguments
from hf_nasbert.hub.pushing import Pushed, push
from hf_nasbert.hub.repository import default_api
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SUPERNET_FOLDER, read_sentence_modules
from hf_nasbert.writing import scratch_folder

_TOKENIZER = "tokenizer_config.json"


def push_model(
    model: NasBertPreTrainedModel,
    repo_id: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    **settings: Any,
) -> Pushed:
    """Push a child or super-net that is in memory, whole, as one commit.

    Args:
        model: The model.
        repo_id: Repository, such as user/my-child; made if it is missing.
        tokenizer: Its tokenizer; by default the one of the folder or repository that it was loaded or extracted from.
        token: A token of the Hub; by default that of `hf auth login` or HF_TOKEN.
        commit_message: Message of the commit.
        **settings: Other fields of `PushArguments`: `private`, `revision`, `create_pr`, `attachments`, `overwrite`.

    Raises:
        ValueError: If the tokenizer is not known, or the name is none of a repository; see `push` for the rest.
        FileExistsError: If the repository holds another model, and `overwrite` is not given.
        OSError: What the network and the Hub refuse.
        TypeError: If there is no such setting.
    """
    tokenizer = tokenizer or known_tokenizer(model)
    if tokenizer is None:
        raise ValueError(
            "the model does not know its tokenizer, without which nobody could use it: push_to_hub(..., tokenizer=...)"
        )
    with scratch_folder() as scratch:
        folder = scratch / "model"
        arguments = PushArguments(str(folder), repo_id, message=commit_message, **settings)
        if isinstance(model, SupernetPreTrainedModel):
            model.save_pretrained(folder)
            save_tokenizer(tokenizer, folder, model.config.max_position_embeddings)
            if (modules_there := _beside(model, SUPERNET_FOLDER)) is not None:
                shutil.copytree(modules_there, folder / SUPERNET_FOLDER)
        else:
            listed = _beside(model, "modules.json")
            modules = None if listed is None else read_sentence_modules(listed.parent)
            fill_child_folder(folder, model, tokenizer, sentence_modules=modules)
        return push(arguments, api=default_api(token))


def _beside(model: NasBertPreTrainedModel, name: str) -> Path | None:
    """What of that name lies in the folder that a model was loaded from, if anything does."""
    place = Path(model.name_or_path or "") / name
    return place if model.name_or_path and place.exists() else None


def known_tokenizer(model: NasBertPreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the folder or repository that a model was loaded from, or that its super-net was."""
    for place in (model.name_or_path, getattr(model, "extracted_from", "")):
        if place and (not Path(place).is_dir() or (Path(place) / _TOKENIZER).is_file()):
            try:
                return open_tokenizer(place)
            except (OSError, ValueError):
                continue
    return None
