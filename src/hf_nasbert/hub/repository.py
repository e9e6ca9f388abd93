"""A repository of the Hub as it is now: which files, which model, and whether a local file is the same."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from hf_nasbert import records
from hf_nasbert.configs import read_model_config
from hf_nasbert.hub.contents import (
    TABLE_FILE,
    Kind,
    identity_of_model,
    identity_of_table,
    kind_of,
    name_of_supernet,
    read_tokenizer,
    size_of,
)
from hf_nasbert.hub.private import Content
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class State:
    """What a repository holds at the head of a branch."""

    commit: str
    files: Mapping[str, RepoFile]
    is_private: bool
    has_branch: bool


def default_api(token: str | None = None) -> HfApi:
    """The Hub of HF_ENDPOINT, with this token, or that of HF_TOKEN or `hf auth login`."""
    return HfApi(token=token, library_name="hf_nasbert", library_version=metadata.version("hf_nasbert"))


def look(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> State | None:
    """The head of a branch, of `main` where the branch is missing; None where there is no such repository."""
    has_branch = True
    try:
        try:
            info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        except RevisionNotFoundError:
            if revision is None:
                raise
            has_branch = False
            info = api.repo_info(repo_id, repo_type=repo_type)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    commit = str(info.sha)
    if _COMMIT.fullmatch(commit) is None:
        raise ConnectionError(f"{api.endpoint} answers in no way that the Hub does: check HF_ENDPOINT")
    tree = api.list_repo_tree(repo_id, repo_type=repo_type, revision=commit, recursive=True)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return State(commit, files, bool(info.private), has_branch)


def identity_there(api: HfApi, repo_id: str, repo_type: str, state: State) -> dict[str, Any]:
    """Which model or table a repository holds.

    Raises:
        ValueError: If it holds none of ours.
    """
    tables = sorted(name for name in state.files if TABLE_FILE.fullmatch(name))
    if repo_type == "dataset" and not tables:
        raise ValueError(f"{repo_id} holds something that is no table of hf_nasbert")
    if repo_type == "model" and "config.json" not in state.files:
        raise ValueError(f"{repo_id} holds something that is no child and no super-net")
    with TemporaryDirectory() as scratch:

        def fetch(name: str) -> Path:
            return Path(
                api.hf_hub_download(repo_id, name, repo_type=repo_type, revision=state.commit, local_dir=scratch)
            )

        if repo_type == "dataset":
            return identity_of_table(records.read(fetch(tables[0])))
        config = read_model_config(fetch("config.json"), f"config.json of {repo_id}")
        kind_of(config, repo_id)
        if "tokenizer.json" not in state.files:
            return identity_of_model(config, None)
        return identity_of_model(config, read_tokenizer(fetch("tokenizer.json"), f"tokenizer.json of {repo_id}"))


def is_same(content: Content, there: RepoFile) -> bool:
    """Whether a file of the Hub has these bytes: by its git hash, or the SHA-256 of a large file."""
    if size_of(content) != there.size:
        return False
    digest = hashlib.sha256() if there.lfs else hashlib.sha1(b"blob %d\0" % there.size)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest() == (there.lfs.sha256 if there.lfs else there.blob_id)


def how_to_load(
    kind: Kind, identity: Mapping[str, Any], place: str, options: str = "", *, is_sentence_transformer: bool = False
) -> str:
    """The line of Python that loads it from a repository or a folder; of a class that is not ours, its encoder."""
    where = json.dumps(place, ensure_ascii=False)
    if kind == "table":
        return f"load_dataset({where}{options})"
    if kind == "super-net":
        return f"{name_of_supernet(identity)}.from_pretrained({where}{options})"
    trust = "" if identity["model_type"] == "bert" else ", trust_remote_code=True"
    if is_sentence_transformer:
        return f"SentenceTransformer({where}{options}{trust})"
    auto_classes = {entry.rpartition(".")[2]: auto_class for auto_class, entry in AUTO_MAP.items()}
    name = (identity.get("architectures") or [""])[0]
    auto_class = auto_classes.get(f"Nas{name}" if name.startswith("Bert") else name, "AutoModel")
    return f"{auto_class}.from_pretrained({where}{options}{trust})"
