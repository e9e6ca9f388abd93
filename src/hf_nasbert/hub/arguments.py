"""What a user may say to push and pull: two dataclasses, and what the name of a repository is."""

import re
from dataclasses import dataclass, field
from typing import Literal

from hf_nasbert.paths import expand_paths

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")


@dataclass
class PushArguments:
    """What to push, where to, and how. The token is the one of `hf auth login`, or of HF_TOKEN.

    Raises:
        ValueError: If the repository's name is none, or branch and pull request do not go together.
    """

    source: str = field(
        metadata={
            "help": "Folder of a child or super-net; file or name of a table. The card of NAME.jsonl also says what "
            "NAME.json beside it does: license, language, text, children, curve."
        }
    )
    repo_id: str = field(metadata={"help": "Repository on the Hub, such as user/my-child; made if it is missing."})
    private: bool = field(default=False, metadata={"help": "Only you see it; refused where it is public already."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to push to, made if it is missing; by default main."}
    )
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request against main instead."})
    message: str | None = field(default=None, metadata={"help": "Message of the commit."})
    attachments: list[str] = field(
        default_factory=list, metadata={"help": "Figures and records (jsonl, jsonl.gz) to put beside it."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace another model that the repository holds."})
    dry_run: bool = field(default=False, metadata={"help": "Only list what would be pushed."})
    trust_remote_code: bool = field(
        default=False,
        metadata={
            "help": "Run, and publish, code of the folder that is not hf_nasbert's own: whoever wrote it may then "
            "do whatever you may."
        },
    )

    def __post_init__(self) -> None:
        expand_paths(self)
        check_repo_id(self.repo_id)
        if self.create_pr and self.revision not in (None, "main"):
            raise ValueError(f"a pull request is opened against main, not {self.revision!r}: leave out one of the two")
        if self.revision is not None and _COMMIT_HASH.fullmatch(self.revision):
            raise ValueError(f"revision={self.revision} is a commit, and commits do not change: name a branch")


@dataclass
class PullArguments:
    """What to pull, and where to.

    Raises:
        ValueError: If the repository's name is none.
    """

    repo_id: str = field(metadata={"help": "Repository on the Hub, such as user/my-child."})
    output_dir: str = field(metadata={"help": "Folder to write to."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit; by default main."})
    repo_type: Literal["model", "dataset"] = field(
        default="model", metadata={"help": "model (a child or super-net) or dataset (a table)."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace a model that lies in output_dir."})

    def __post_init__(self) -> None:
        expand_paths(self)
        check_repo_id(self.repo_id)


def check_repo_id(repo_id: str) -> None:
    """Refuse what is no name of a repository."""
    if not _REPO_ID.fullmatch(repo_id) or len(repo_id) > 96 or "--" in repo_id or ".." in repo_id:
        raise ValueError(
            f"repo_id={repo_id!r} is no name of a repository: expected user/name, of letters, digits, -_."
        )
