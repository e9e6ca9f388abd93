"""A pull: a folder that appears whole or not at all, without pickles."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_nasbert import records
from hf_nasbert.child_folders import check_place, move_into_place
from hf_nasbert.hub.arguments import PullArguments
from hf_nasbert.hub.contents import (
    Kind,
    check_modules,
    describe,
    foreign_code,
    identity_of_model,
    identity_of_table,
    is_ours,
    name_of_model,
    name_of_table,
    read_tokenizer,
)
from hf_nasbert.hub.errors import HTTP_ERROR, hub_errors, was_lost
from hf_nasbert.hub.repository import default_api, how_to_load, identity_there, look
from hf_nasbert.writing import whole_folder

_PATTERNS = [f"*.{ending}" for ending in "safetensors onnx json md txt py png svg jpg jsonl jsonl.gz".split()]


@dataclass(frozen=True)
class Pulled:
    """The folder that a pull wrote, what it holds, and of which commit."""

    folder: Path
    kind: Kind
    name: str
    identity: Mapping[str, Any]
    commit: str
    is_from_cache: bool
    foreign_code: tuple[str, ...] = ()
    """What in it is code, or leads to code, that is not this package's."""
    is_sentence_transformer: bool = False

    def __str__(self) -> str:
        origin = " from the cache, since the Hub could not be reached" if self.is_from_cache else ""
        how = how_to_load(
            self.kind, self.identity, str(self.folder), is_sentence_transformer=self.is_sentence_transformer
        )
        said = f"{self.folder}: {self.kind} {self.name}, commit {self.commit}{origin}\n"
        if self.foreign_code:
            said += f"it brings code that is not hf_nasbert's, to be read first: {', '.join(self.foreign_code)}\n"
        return f"{said}to load it: {how}"


def pull(arguments: PullArguments, *, api: HfApi | None = None) -> Pulled:
    """Write a child, super-net or table of the Hub to a folder, which appears whole or not at all.

    Only what a push would send is fetched: safetensors, ONNX, JSON, text, figures and the code files, never pickles.
    Without network, what an earlier pull or `from_pretrained` left in the cache is used.

    Args:
        arguments: What, and where to.
        api: The Hub and the token; by default those of huggingface_hub.

    Raises:
        FileExistsError: If the folder holds something, and `overwrite` is not given or it is none of ours.
        ValueError: If the repository holds neither child, super-net nor table, only pickled weights, a config.json
            or tokenizer.json that is damaged, or half a SentenceTransformer; then nothing is written.
        OSError: Whatever the network and the Hub refuse; see `hub_errors`.
        WriteError: If the folder cannot be written; a model that is there stays as it was.
    """
    api = api or default_api()
    folder = Path(arguments.output_dir).resolve()
    is_table = arguments.repo_type == "dataset"
    check_place(folder, arguments.overwrite, "table-*.jsonl.gz" if is_table else "config.json")
    with hub_errors(api, arguments.repo_id):
        snapshot, is_from_cache = _fetch(api, arguments)
    with whole_folder(folder, move_into_place) as staging:
        for path in sorted(snapshot.rglob("*")):
            name = path.relative_to(snapshot).as_posix()
            if path.is_file() and is_ours(name):
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, staging / name)
        kind: Kind
        foreign: list[str] = []
        vectors = False
        if is_table:
            file = next(staging.glob("table-*.jsonl.gz"), None)
            if file is None:
                raise ValueError(
                    f"{arguments.repo_id} is not wholly in the cache: run again when the Hub can be reached"
                )
            kind, name, identity = "table", name_of_table(file), identity_of_table(records.read(file))
        else:
            kind, config = describe(staging, arguments.repo_id)
            name = name_of_model(config)
            words = staging / "tokenizer.json"
            tokenizer = read_tokenizer(words, f"{arguments.repo_id}/tokenizer.json") if words.exists() else None
            identity = identity_of_model(config, tokenizer)
            files = {path.relative_to(staging).as_posix(): path for path in staging.rglob("*") if path.is_file()}
            check_modules(files, arguments.repo_id)
            foreign = foreign_code(files, arguments.repo_id)
            vectors = "modules.json" in files
        pulled = Pulled(folder, kind, name, identity, snapshot.name, is_from_cache, tuple(foreign), vectors)
    return pulled


def _fetch(api: HfApi, arguments: PullArguments) -> tuple[Path, bool]:
    """The folder of a snapshot in the cache, and whether it is what an earlier call left there."""
    repo_id, repo_type, revision = arguments.repo_id, arguments.repo_type, arguments.revision
    try:
        state = look(api, repo_id, repo_type, revision)
    except (HTTP_ERROR, OfflineModeIsEnabled) as error:
        if not was_lost(error):
            raise
        try:
            snapshot = api.snapshot_download(
                repo_id, repo_type=repo_type, revision=revision, allow_patterns=_PATTERNS, local_files_only=True
            )
        except OSError:
            raise error from None
        return Path(snapshot), True
    if state is None:
        raise FileNotFoundError(
            f"{repo_id} is not on {api.endpoint}, or your token may not see it: check name and repo_type ({repo_type})"
        )
    if not state.has_branch:
        raise FileNotFoundError(f"{repo_id} has no branch, tag or commit {revision!r}")
    identity_there(api, repo_id, repo_type, state)  # refused before anything large is fetched
    wanted = [name for name in state.files if is_ours(name)]
    if repo_type == "model" and not any(name.endswith(".safetensors") and "/" not in name for name in wanted):
        raise ValueError(f"{repo_id} holds no safetensors weights, and pickled ones are not fetched")
    # By the name of its branch, so that the cache knows it by that name where there is no network.
    snapshot = api.snapshot_download(repo_id, repo_type=repo_type, revision=revision, allow_patterns=wanted)
    if Path(snapshot).name != state.commit:
        raise FileExistsError(f"{repo_id} was changed while it was being pulled: run again")
    return Path(snapshot), False
