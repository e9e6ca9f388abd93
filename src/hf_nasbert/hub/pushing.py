"""A push: one commit that lands whole or not at all."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from hf_nasbert.extraction import load_supernet
from hf_nasbert.foreign import printable
from hf_nasbert.hub.arguments import PushArguments
from hf_nasbert.hub.contents import MODEL_FILE, Contents, gather, size_of
from hf_nasbert.hub.errors import HTTP_ERROR, hub_errors, was_lost
from hf_nasbert.hub.proof import check_leaves_home
from hf_nasbert.hub.repository import State, default_api, how_to_load, identity_there, is_same, look
from hf_nasbert.processes import be_alone

_NUM_ATTEMPTS = 4
_NOBODYS = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICENSE(\.md|\.txt)?")  # what a fresh repository holds


@dataclass(frozen=True)
class Pushed:
    """What a push did, or in a dry run would do, file by file."""

    contents: Contents
    repo_id: str
    branch: str
    visibility: str
    changes: Mapping[str, str]
    """What becomes of every file: new, changed, same or deleted."""
    url: str
    commit: str | None
    is_dry_run: bool

    def __str__(self) -> str:
        sizes = {name: size_of(content) for name, content in self.contents.files.items()}
        width = max(map(len, self.changes))
        lines = [
            f"  {change.ljust(8)} {printable(name).ljust(width)} "
            f"{_human(sizes[name]) if name in sizes else ''}".rstrip()
            for name, change in self.changes.items()
        ]
        lines += [f"  left out {printable(name)}" for name in self.contents.left_out]
        what = f"{self.contents.kind} {self.contents.name}"
        where = f"{self.repo_id} ({self.contents.repo_type}, branch {self.branch}, {self.visibility})"
        how = how_to_load(
            self.contents.kind, self.contents.identity, self.repo_id, f', revision="{self.commit}"',
            is_sentence_transformer="modules.json" in self.contents.files,
        )  # fmt: skip
        sent = [sizes[name] for name, change in self.changes.items() if change in ("new", "changed")]
        if self.is_dry_run:
            end = f"{len(sent)} files to send, {_human(sum(sent))}; nothing was written"
        elif self.commit is None:
            end = f"{self.url} holds all of it already: nothing was pushed"
        else:
            end = f"{self.url}, one commit: {self.commit}\nto load it: {how}"
        asked = [
            f"the card names no {name}: add --{name} {'apache-2.0' if name == 'license' else 'en'}, or what is true"
            for name in self.contents.unsaid
        ]
        texts = ", ".join(f'"{printable(text, 200)}"' for text in self.contents.quoted)
        asked += [f"the card quotes your data: {texts}; leave out --quote_text to publish a plain sentence"] * bool(
            texts
        )
        if self.contents.num_unquoted:
            asked.append(
                "the card's code example quotes your data; a plain sentence is published instead: add --quote_text to "
                "publish your text"
            )
        begin = f"{'would push' if self.is_dry_run else 'push of'} {what} to {where}"
        return "\n".join([begin, *lines, *asked, end])


def push(arguments: PushArguments, *, api: HfApi | None = None) -> Pushed:
    """Push a child, a super-net or a table as one commit that lands whole or not at all.

    Before anything is sent, a child is loaded and compared in a process without this package, a super-net is loaded,
    and the repository is looked at: it must be new, empty, or hold the same model (what shapes the network and the
    vocabulary agree) or table (the recipe agrees). A card that is there stays where the source has none. Files of an
    earlier version of the model are removed by the same commit. The commit names the state that was looked at as its
    parent, so it fails where somebody else was faster. Pushing the same again changes nothing; after a failure, what
    had arrived is not sent again.

    Args:
        arguments: What, where, how.
        api: The Hub and the token; by default those of huggingface_hub (HF_ENDPOINT, HF_TOKEN, `hf auth login`).

    Raises:
        FileNotFoundError: If the source, or a repository for a pull request, is missing.
        FileExistsError: If the repository holds something else, or was changed meanwhile.
        ValueError: If what lies in the source cannot be published, such as code of somebody else without
            `trust_remote_code`; see `gather` and `check_leaves_home`.
        TimeoutError: If the proof takes too long on this machine.
        OSError: Whatever the network and the Hub refuse; see `hub_errors`.
    """
    be_alone("pushing")
    api = api or default_api()
    contents = gather(
        arguments.source, arguments.repo_id, arguments.attachments, license=arguments.license,
        language=arguments.language, trust_remote_code=arguments.trust_remote_code, quote_text=arguments.quote_text,
    )  # fmt: skip
    state, note = _look_first(api, arguments, contents)
    is_new = state is None and not note
    is_replaced = state is not None and _check_target(api, arguments, contents, state)
    if state is not None and "README.md" in state.files and not is_replaced and contents.has_bare_card:
        contents = replace(
            contents, files={name: contents.files[name] for name in contents.files if name != "README.md"}
        )
    if contents.kind == "child":
        check_leaves_home(contents.files, trust_remote_code=arguments.trust_remote_code)
    elif contents.kind == "super-net":
        load_supernet(arguments.source, None)
    changes = _changes(contents, state, is_replaced)
    commit = None
    is_noop = state is not None and state.has_branch and set(changes.values()) == {"same"}
    if not arguments.dry_run and not is_noop:
        with hub_errors(api, arguments.repo_id):
            state = state or _create(api, arguments, contents)
            if not state.has_branch:
                api.create_branch(
                    arguments.repo_id,
                    branch=str(arguments.revision),
                    revision=state.commit,
                    repo_type=contents.repo_type,
                    exist_ok=True,
                )
            commit = _commit(api, arguments, contents, changes, state)
    is_private = arguments.private if state is None else state.is_private
    return Pushed(
        contents,
        arguments.repo_id,
        "of a new pull request" if arguments.create_pr else arguments.revision or "main",
        ("private" if is_private else "public") + (", new" if is_new else note),
        changes,
        f"{api.endpoint}/{'datasets/' if contents.repo_type == 'dataset' else ''}{arguments.repo_id}",
        commit,
        arguments.dry_run,
    )


def _look_first(api: HfApi, arguments: PushArguments, contents: Contents) -> tuple[State | None, str]:
    """What the repository holds; a dry run goes on without a Hub, with a note."""
    note = ""
    try:
        with hub_errors(api, arguments.repo_id):
            state = look(api, arguments.repo_id, contents.repo_type, arguments.revision)
    except ConnectionError as error:
        if not arguments.dry_run:
            raise
        state, note = None, f", not compared with what is there: {error}"
    if state is None and arguments.create_pr and not note:
        raise FileNotFoundError(f"{arguments.repo_id} is not there (or not for your token) to open a pull request on")
    return state, note


def _check_target(api: HfApi, arguments: PushArguments, contents: Contents, state: State) -> bool:
    """Refuse what must not be, and say whether another model or table is to be replaced."""
    if arguments.private and not state.is_private:
        raise ValueError(
            f"{arguments.repo_id} is public, and private was asked for: make it private in its settings first"
        )
    if all(_NOBODYS.fullmatch(name) for name in state.files):
        return False
    try:
        with hub_errors(api, arguments.repo_id):
            there = identity_there(api, arguments.repo_id, contents.repo_type, state)
    except ValueError as error:
        difference = str(error)
    else:
        here = contents.identity
        differing = [name for name in (*here, *there) if there.get(name) != here.get(name)]
        if not differing:
            return False
        name = differing[0]
        difference = (
            f"{arguments.repo_id} holds another {contents.kind}: {name} is {_short(there.get(name))} there and "
            f"{_short(here.get(name))} here"
        )
    if not arguments.overwrite and state.has_branch:  # on a new branch nothing is lost
        raise FileExistsError(f"{difference}; name another repository or branch, or pass overwrite to replace it")
    return True


def _changes(contents: Contents, state: State | None, is_replaced: bool) -> dict[str, str]:
    """What the push makes of every file, by its path: new, changed, same or deleted."""
    there = {} if state is None else state.files
    changes = {
        name: "new" if name not in there else "same" if is_same(content, there[name]) else "changed"
        for name, content in contents.files.items()
    }
    for name in sorted(there.keys() - changes.keys()):
        if MODEL_FILE.fullmatch(name) or (is_replaced and (name == "README.md" or not _NOBODYS.fullmatch(name))):
            changes[name] = "deleted"
    return changes


def _create(api: HfApi, arguments: PushArguments, contents: Contents) -> State:
    api.create_repo(arguments.repo_id, repo_type=contents.repo_type, private=arguments.private or None)
    state = look(api, arguments.repo_id, contents.repo_type, arguments.revision)
    if state is None:
        raise FileNotFoundError(f"{arguments.repo_id} was made and is not there: run again")
    return state


def _commit(api: HfApi, arguments: PushArguments, contents: Contents, changes: Mapping[str, str], state: State) -> str:
    """Send everything as one commit on top of the state that was looked at; returns its hash.

    A commit whose answer is lost may have landed all the same: it is looked for before it is sent again.
    """
    repo_id, repo_type = arguments.repo_id, contents.repo_type
    deleted = [CommitOperationDelete(name) for name, change in changes.items() if change == "deleted"]
    added = [CommitOperationAdd(name, content) for name, content in contents.files.items()]
    message = arguments.message or f"{contents.kind} {contents.name}".capitalize()
    for attempt in range(_NUM_ATTEMPTS):
        try:
            done = api.create_commit(
                repo_id=repo_id,
                repo_type=repo_type,
                operations=[*added, *deleted],
                commit_message=message,
                revision=arguments.revision,
                create_pr=arguments.create_pr,
                parent_commit=state.commit,
            )
            break
        except HTTP_ERROR as error:
            # A pull request whose answer is lost cannot be found again: a second one is worse than an error.
            if arguments.create_pr or attempt == _NUM_ATTEMPTS - 1 or not was_lost(error) or not _of_commit(error):
                raise
            time.sleep(2**attempt)
            now = look(api, repo_id, repo_type, arguments.revision)
            if now is not None and now.commit != state.commit and _lacks(contents, changes, now) is None:
                return now.commit
    landed = look(api, repo_id, repo_type, done.pr_revision or done.oid)
    missing = "everything" if landed is None else _lacks(contents, changes, landed)
    if missing is not None:
        raise OSError(f"{done.commit_url} lacks {missing}: does a .gitignore of the repository exclude it?")
    return str(done.oid)


def _of_commit(error: Any) -> bool:
    """Whether it was the commit itself that failed: all requests before it are repeated by huggingface_hub."""
    request = error.response.request if hasattr(error, "response") else error.request
    return "/commit/" in str(request.url)


def _lacks(contents: Contents, changes: Mapping[str, str], state: State) -> str | None:
    """The first file that is not as it was pushed."""
    for name, content in contents.files.items():
        if name not in state.files or not is_same(content, state.files[name]):
            return name
    return next((name for name, change in changes.items() if change == "deleted" and name in state.files), None)


def _short(value: Any) -> str:
    text = printable("-".join(map(str, value)) if isinstance(value, list) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _human(num_bytes: int) -> str:
    """A size as people say it, in powers of 1000."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
