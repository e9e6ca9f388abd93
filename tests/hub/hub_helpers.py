"""What the tests of the Hub share: names, a child's folder, what lies in a folder and in a repository."""

import json
from pathlib import Path

from hub_server import HubServer
from tiny.models import tiny_supernet
from tiny.texts import tiny_tokenizer

from hf_nasbert.cards import render_child_card
from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child

ARCHITECTURE = "conv5-attention-conv7-ffn-conv3"
OTHER = "ffn-attention-conv7-ffn-conv3"
MODEL = "models/user/child"


def make_child(folder: Path, architecture: str = ARCHITECTURE, seed: int = 0) -> Path:
    figure = folder.parent / "architecture.png"
    figure.write_bytes(b"\x89PNG a picture")
    facts = {"name": "tiny", "architecture": architecture}
    (folder.parent / "card.json").write_text(json.dumps(facts))
    return save_child(
        extract_child(tiny_supernet("chain", seed), architecture),
        tiny_tokenizer(),
        folder,
        render_child_card(facts),
        attachments=[figure, folder.parent / "card.json"],
    )


def contents_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def files_of(hub: HubServer, name: str = MODEL) -> dict[str, bytes]:
    return dict(hub.repos[name].files)
