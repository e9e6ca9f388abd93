"""A Hub on loopback, folders to push, and what a push of one leaves there."""

import copy
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_helpers import MODEL, OTHER, make_child
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi
from tiny.models import tiny_supernet
from tiny.texts import tiny_tokenizer

from hf_nasbert.hub import PushArguments, push


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    folders = {
        "child": make_child(root / "child"),
        "retrained": make_child(root / "retrained", seed=1),
        "other": make_child(root / "other", OTHER),
        "supernet": root / "supernet",
    }
    tiny_supernet("chain").save_pretrained(folders["supernet"])
    tiny_tokenizer().save_pretrained(folders["supernet"])
    return folders


@pytest.fixture
def child(made, tmp_path) -> Path:
    """A child's folder to spoil."""
    return Path(shutil.copytree(made["child"], tmp_path / "child"))


@contextmanager
def open_hub(monkeypatch, cache: Path) -> Iterator[HubServer]:
    """A Hub, an empty cache, next to no waiting, and no proof in another process: slow tests prove."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    # Who waits for a process without sleeping at all takes a core from it.
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", lambda files, **_: 0.0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub where nothing lies."""
    with open_hub(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture(scope="module")
def left_by_a_push(made, tmp_path_factory) -> HubServer:
    """A Hub that is closed again, to which a child was pushed; nothing but `landed` may ask for it."""
    with pytest.MonkeyPatch.context() as patch, open_hub(patch, tmp_path_factory.mktemp("cache")) as server:
        push(PushArguments(str(made["child"]), "user/child"), api=HfApi(endpoint=server.url))
    return server


@pytest.fixture
def landed(hub, left_by_a_push) -> str:
    """A child lies on the Hub as a push leaves it, which no request was needed for; its commit."""
    hub.repos, hub.large = copy.deepcopy((left_by_a_push.repos, left_by_a_push.large))
    return hub.repos[MODEL].branches["main"]


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url)


@pytest.fixture
def send(api):
    """Push with these settings."""
    return lambda source, repo_id="user/child", **settings: push(
        PushArguments(str(source), repo_id, **settings), api=api
    )
