"""`push_to_hub` of super-nets and children: what reaches the Hub is whole."""

import importlib
from typing import Any


def push_to_hub(self: Any, repo_id: str, **settings: Any) -> Any:
    """Push the model with its tokenizer, its card and, of a child, its code, as one commit: `hub.models.push_model`.

    In the copy of a child's code that travels, transformers' own method pushes configuration and weights.

    Args:
        self: A super-net or child.
        repo_id: Repository, such as user/my-child.
        **settings: `tokenizer`, where the model was not loaded from a folder that holds one; `token`,
            `commit_message`, `private`, `revision`, `create_pr`, `overwrite`.
    """
    # The only room that speaks to the Hub lies above this one: it is looked up when it is needed.
    return importlib.import_module("hf_nasbert.hub.models").push_model(self, repo_id, **settings)
