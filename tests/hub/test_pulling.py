"""Pulling over real HTTP: a folder that appears whole or not at all, and nothing dangerous in it."""

import pytest
from helpers import mostly_slow
from hub_helpers import MODEL, contents_of, files_of

from hf_nasbert import cli
from hf_nasbert.hub import PullArguments, pull

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


class TestPull:
    def test_back_as_it_was(self, hub, send, api, made, tmp_path):
        commit = send(made["child"]).commit
        pulled = pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        there = {name: data for name, data in files_of(hub).items() if name != ".gitattributes"}
        assert contents_of(tmp_path / "back") == there
        text = str(pulled)
        assert commit in text
        assert f'AutoModelForMaskedLM.from_pretrained("{tmp_path / "back"}", trust_remote_code=True)' in text
        assert "nothing was pushed" in str(send(tmp_path / "back"))

    @pytest.mark.parametrize(
        ("source", "kind", "following"),
        [("child", "child", "finetune"), ("supernet", "super-net", "search"), ("imdb", "table", None)],
    )
    def test_the_command_says_what_is_there_and_what_it_is_for(
        self, send, api, made, monkeypatch, tmp_path, capsys, source, kind, following
    ):
        send(made.get(source, source))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("hf_nasbert.hub.pulling.default_api", lambda *_: api)
        settings = ["--repo_type", "dataset"] if kind == "table" else []
        assert cli.main(["pull", "--repo_id", "user/child", "--output_dir", "back", *settings]) == 0
        told = capsys.readouterr().out
        assert f"made: the {kind}: back" in told
        assert following is None or f"hf-nasbert {following} " in told

    def test_a_pinned_revision(self, hub, send, api, made, tmp_path):
        first = send(made["child"]).commit
        send(made["retrained"])
        for revision, source in ((first, "child"), (None, "retrained")):
            folder = tmp_path / source
            pull(PullArguments("user/child", str(folder), revision=revision), api=api)
            assert (folder / "model.safetensors").read_bytes() == (made[source] / "model.safetensors").read_bytes()

    def test_nothing_dangerous_is_fetched(self, hub, landed, api, tmp_path):
        evil = [
            "../evil.json",
            "figures/../../evil.png",
            "pytorch_model.bin",
            "setup.py",
            "sub/config.json",
            "/evil.md",
        ]
        hub.repos[MODEL].commit("main", files_of(hub) | dict.fromkeys(evil, b"evil"))
        api.hf_hub_download("user/child", "setup.py")  # some other tool wanted it: it lies in the cache
        hub.requests.clear()
        pull(PullArguments("user/child", str(tmp_path / "a" / "back")), api=api)
        assert (tmp_path / "a" / "back").joinpath("config.json").is_file()
        assert hub.asked("evil|pytorch|setup|sub/") == []
        assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file() and path.read_bytes() == b"evil"]
        assert not list(tmp_path.glob("evil*"))

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"config.json": b'{"model_type": "gpt2"}'}, "model of type 'gpt2'; expected one of"),
            ({"config.json": b'{"model_type": "nasbert"}', "pytorch_model.bin": b"!"}, "no safetensors weights"),
            ({"README.md": b""}, "no child and no super-net"),
            ({"config.json": b"[" * 300_000}, "config.json of user/child is nested deeper than 100 levels"),
            ({"config.json": b'{"model_type": "bert", "model_type": "nasbert"}'}, "a key stands twice"),
        ],
    )
    def test_what_is_not_ours_is_refused(self, hub, api, tmp_path, files, reason):
        api.create_repo("user/child")
        hub.repos[MODEL].commit("main", files)
        with pytest.raises(ValueError, match=reason):
            pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        assert list(tmp_path.glob("*back*")) == []

    def test_a_taken_folder_is_left_alone(self, hub, send, api, made, child, tmp_path):
        send(made["retrained"])
        arguments = PullArguments("user/child", str(child))
        with pytest.raises(FileExistsError, match="not empty"):
            pull(arguments, api=api)
        assert contents_of(child) == contents_of(made["child"])
        pull(PullArguments("user/child", str(child), overwrite=True), api=api)
        assert (child / "model.safetensors").read_bytes() == (made["retrained"] / "model.safetensors").read_bytes()

    FAULTS = {
        "vanished": ({"pattern": "GET /api/models", "times": 9, "status": 404}, FileNotFoundError, "is not on"),
        "refused": ({"pattern": "GET /api/models", "times": 9, "status": 401}, PermissionError, "refused"),
        "500": ({"pattern": "GET /api/models", "times": 99, "status": 500}, ConnectionError, "fails on its side"),
        "500 later": ({"pattern": "resolve.*model.safetensors", "times": 99, "status": 500}, ConnectionError, "500"),
        "dropped": ({"pattern": "resolve", "times": 99}, ConnectionError, "no connection|cannot be reached"),
    }

    @pytest.mark.parametrize("fault", mostly_slow([(fault,) for fault in FAULTS.values()], 3), ids=FAULTS.keys())
    def test_a_failed_pull_leaves_nothing(self, hub, landed, api, tmp_path, fault):
        plan, error, reason = fault
        hub.fail(**plan)
        arguments = PullArguments("user/child", str(tmp_path / "back"))
        with pytest.raises(error, match=reason) as raised:
            pull(arguments, api=api)
        assert "\n" not in str(raised.value)
        assert list(tmp_path.glob("*back*")) == []
        hub.faults.clear()
        pull(arguments, api=api)
        assert (tmp_path / "back" / "model.safetensors").is_file()

    def test_a_repository_that_changes_meanwhile_is_not_half_of_each(self, hub, landed, api, tmp_path):

        def meddle():
            hub.repos[MODEL].commit("main", files_of(hub) | {"theirs.md": b"!"})

        hub.fail("resolve/.*/config.json", before=meddle)
        arguments = PullArguments("user/child", str(tmp_path / "back"))
        with pytest.raises(FileExistsError, match="changed while it was being pulled: run again"):
            pull(arguments, api=api)
        assert list(tmp_path.glob("*back*")) == []
        pull(arguments, api=api)
        assert (tmp_path / "back" / "config.json").is_file()

    def test_no_such_revision(self, landed, api, tmp_path):
        with pytest.raises(FileNotFoundError, match="no branch, tag or commit 'v9'"):
            pull(PullArguments("user/child", str(tmp_path / "back"), revision="v9"), api=api)

    def test_from_the_cache_without_a_hub(self, hub, landed, api, tmp_path):
        pull(PullArguments("user/child", str(tmp_path / "first")), api=api)
        hub.fail("GET", times=99)
        text = str(pull(PullArguments("user/child", str(tmp_path / "second")), api=api))
        assert "from the cache, since the Hub could not be reached" in text
        assert contents_of(tmp_path / "second") == contents_of(tmp_path / "first")
