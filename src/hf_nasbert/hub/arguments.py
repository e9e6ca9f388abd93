"""What a user may say to push and pull: two dataclasses, and what the name of a repository is."""

import re
from dataclasses import dataclass, field
from typing import Literal

from hf_nasbert.settings import Settings, setting

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")


@dataclass
class PushArguments(Settings):
    """What to push, where to, and how. The token is the one of `hf auth login`, or of HF_TOKEN.

    Raises:
        ValueError: If the repository's name is none, or branch and pull request do not go together.
    """

    source: str = field(
        metadata={
            "help": "Folder of a child or super-net; file or name of a table. The card of NAME.jsonl also says what "
            "NAME.json beside it does: license, language, text, children, curve, drawn, num_dev_sequences, limits."
        }
    )
    repo_id: str = field(metadata={"help": "Repository on the Hub, such as user/my-child; made if it is missing."})
    private: bool = setting(False, "Only you see it; refused where it is public already.")
    revision: str | None = setting(None, "Branch to push to, made if it is missing; by default main.")
    create_pr: bool = setting(False, "Open a pull request against main instead.")
    message: str | None = setting(None, "Message of the commit.")
    license: str | None = setting(
        None, "License for the card, as the Hub writes it, such as apache-2.0. By default the card's own."
    )
    language: str | None = setting(None, "Language code for the card, such as en. By default the card's own.")
    quote_text: bool = setting(
        False,
        "Publish the text of yours that the card's code example quotes; by default a plain sentence takes its place.",
    )
    attachments: list[str] = setting(list, "Figures and records (jsonl, jsonl.gz) to put beside it.")
    overwrite: bool = setting(False, "Replace another model that the repository holds.")
    dry_run: bool = setting(False, "Only list what would be pushed.")
    trust_remote_code: bool = setting(
        False,
        "Run, and publish, code of the folder that is not hf_nasbert's own: whoever wrote it may then do whatever "
        "you may.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_repo_id(self.repo_id)
        if self.create_pr and self.revision not in (None, "main"):
            raise ValueError(f"a pull request is opened against main, not {self.revision!r}: leave out one of the two")
        if self.revision is not None and _COMMIT_HASH.fullmatch(self.revision):
            raise ValueError(f"revision={self.revision} is a commit, and commits do not change: name a branch")


@dataclass
class PullArguments(Settings):
    """What to pull, and where to.

    Raises:
        ValueError: If the repository's name is none.
    """

    repo_id: str = field(metadata={"help": "Repository on the Hub, such as user/my-child."})
    output_dir: str = field(metadata={"help": "Folder to write to."})
    revision: str | None = setting(None, "Branch, tag or commit; by default main.")
    repo_type: Literal["model", "dataset"] = setting("model", "model (a child or super-net) or dataset (a table).")
    overwrite: bool = setting(False, "Replace a model that lies in output_dir.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_repo_id(self.repo_id)


def check_repo_id(repo_id: str) -> None:
    """Refuse what is no name of a repository."""
    if not _REPO_ID.fullmatch(repo_id) or len(repo_id) > 96 or "--" in repo_id or ".." in repo_id:
        raise ValueError(
            f"repo_id={repo_id!r} is no name of a repository: expected user/name, of letters, digits, -_."
        )
