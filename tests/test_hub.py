"""Push and pull over real HTTP: one commit or none, nothing that does not belong, no token anywhere."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi
from modelling_helpers import WORDS, logits_of, padded_batch, randomise_, tiny_supernet, tiny_tokenizer
from safetensors.torch import load_file, save_file

import hf_nasbert
from hf_nasbert.cards import render_child_card
from hf_nasbert.extraction import CODE_FILES, extract_child, save_child, to_bert
from hf_nasbert.hub import PullArguments, PushArguments, check_leaves_home, gather, pull, push
from hf_nasbert.modeling import NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.ranking import load_table
from hf_nasbert.space import SearchSpace

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub, an empty cache, no waiting, and no proof in another process: slow tests prove."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", lambda files: 0.0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url)


@pytest.fixture
def send(api):
    """Push with these settings."""
    return lambda source, repo_id="user/child", **settings: push(
        PushArguments(str(source), repo_id, **settings), api=api
    )


def contents_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_child_is_one_commit(hub, send, made):
    pushed = send(made["child"])
    repo = hub.repos[MODEL]
    assert len(repo.commits) == 2  # the Hub's own first one, and ours
    assert pushed.commit == repo.branches["main"]
    there = {name: data for name, data in repo.files.items() if name != ".gitattributes"}
    here = contents_of(made["child"])
    here["README.md"] = here["README.md"].replace(b"path/to/this/folder", b"user/child")
    assert there == here
    assert {*CODE_FILES, "model.safetensors", "tokenizer.json", "architecture.png", "card.json"} <= there.keys()
    assert not repo.private
    assert f'AutoModelForMaskedLM.from_pretrained("user/child", revision="{pushed.commit}"' in str(pushed)


def files_of(hub: HubServer, name: str = MODEL) -> dict[str, bytes]:
    return dict(hub.repos[name].files)


class TestOneCommitOrNone:
    FAULTS = {  # what breaks, and how the command ends
        "the server fails for good": (
            {"pattern": r"POST .*/commit/", "times": 99, "status": 500},
            ConnectionError,
            "fails",
        ),
        "so does asking what is large": ({"pattern": "preupload", "times": 99, "status": 503}, ConnectionError, "503"),
        "an upload breaks for good": ({"pattern": "PUT /upload", "times": 99}, ConnectionError, "no connection"),
        "uploads fail for good": ({"pattern": "PUT /upload", "times": 99, "status": 500}, ConnectionError, "500"),
        "an upload is refused": (
            {"pattern": "PUT /upload", "times": 1, "status": 403},
            PermissionError,
            "token was refused",
        ),
        "the commit breaks for good": ({"pattern": r"POST .*/commit/", "times": 99}, ConnectionError, "no connection"),
        "the token lost its right": (
            {"pattern": r"POST .*/commit/", "times": 1, "status": 403},
            PermissionError,
            "refused",
        ),
        "too many requests": ({"pattern": r"POST .*/commit/", "times": 9, "status": 429}, ConnectionError, "patience"),
        "a card that is no card": ({"pattern": "validate-yaml", "times": 1, "status": 400}, ValueError, "metadata"),
        "no Hub at all": ({"pattern": "validate-yaml", "times": 1, "status": 502}, ConnectionError, "502|no way"),
    }

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
    def test_a_failed_push_changes_nothing_and_is_repeated(self, hub, send, made, fault, caplog):
        send(made["child"])
        before, commits = files_of(hub), len(hub.repos[MODEL].commits)
        plan, error, reason = fault
        hub.fail(**plan, message=f"you are {TOKEN}")
        with pytest.raises(error, match=reason) as raised:
            send(made["retrained"])
        assert "\n" not in str(raised.value)
        assert TOKEN not in "".join(traceback.format_exception(raised.value)) + caplog.text
        assert files_of(hub) == before
        assert len(hub.repos[MODEL].commits) == commits
        hub.faults.clear()
        send(made["retrained"])
        assert files_of(hub)["model.safetensors"] == (made["retrained"] / "model.safetensors").read_bytes()
        assert len(hub.repos[MODEL].commits) == commits + 1

    @pytest.mark.parametrize("pattern", ["preupload", "objects/batch", "PUT /upload", r"POST .*/commit/"])
    @pytest.mark.parametrize("status", [500, None], ids=["500", "dropped"])
    def test_what_passes_is_waited_for(self, hub, send, made, pattern, status):
        hub.fail(pattern, times=2, status=status)
        send(made["child"])
        assert not any(fault.times for fault in hub.faults)
        assert len(hub.repos[MODEL].commits) == 2
        assert len(files_of(hub)) == len(contents_of(made["child"])) + 1

    def test_a_commit_whose_answer_is_lost_is_not_made_twice(self, hub, send, made):
        hub.fail(r"POST .*/commit/", is_late=True)
        pushed = send(made["child"])
        assert pushed.commit == hub.repos[MODEL].branches["main"]
        assert len(hub.repos[MODEL].commits) == 2

    def test_what_has_arrived_is_not_sent_again(self, hub, send, made):
        hub.fail(r"POST .*/commit/", times=99, status=500)
        with pytest.raises(ConnectionError):
            send(made["child"])
        hub.faults.clear()
        sent = len(hub.asked("PUT"))
        assert sent
        send(made["child"])
        assert len(hub.asked("PUT")) == sent

    def test_the_same_again_is_no_commit(self, hub, send, made):
        send(made["child"])
        hub.requests.clear()
        assert "nothing was pushed" in str(send(made["child"]))
        assert hub.writes == []

    def test_a_repository_that_the_token_cannot_see(self, hub, send, made):
        hub.fail(r"GET /api/models/user/child", times=9, status=404, code="RepoNotFound")
        hub.fail(r"POST /api/repos/create", status=409, message="You already created this repo")
        with pytest.raises(FileExistsError, match="or is hidden from your token"):
            send(made["child"])

    def test_somebody_else_was_faster(self, hub, send, made):
        send(made["child"])

        def meddle():
            hub.repos[MODEL].commit("main", files_of(hub) | {"theirs.md": b"!"})

        hub.fail(r"POST .*/preupload", before=meddle)
        with pytest.raises(FileExistsError, match="changed by somebody else meanwhile"):
            send(made["retrained"])
        assert files_of(hub)["theirs.md"] == b"!"
        assert files_of(hub)["model.safetensors"] == (made["child"] / "model.safetensors").read_bytes()

    def test_a_repository_that_vanished(self, hub, send, made):
        send(made["child"])
        hub.fail(r"POST .*/preupload", before=lambda: hub.repos.pop(MODEL))
        with pytest.raises(FileNotFoundError, match="is not on http://127"):
            send(made["retrained"])
        assert hub.repos == {}

    def test_an_upload_that_fails_outside_of_http(self, hub, send, made, monkeypatch):
        """As the Xet client does, in which the real Hub's uploads go."""

        def fail(*_, **__):
            raise RuntimeError(f"Data processing error:\n{TOKEN}")

        monkeypatch.setattr("huggingface_hub._commit_api._upload_files", fail)
        with pytest.raises(
            ConnectionError, match=r"the transfer failed \(Data processing error: <token>\): run the same"
        ):
            send(made["child"])
        assert len(hub.repos[MODEL].commits) == 1

    def test_a_commit_that_is_not_whole_is_told(self, hub, send, made):
        send(made["child"])
        hub.repos[MODEL].gitignore = "safetensors"
        with pytest.raises(OSError, match=r"lacks model.safetensors.*gitignore"):
            send(made["retrained"])


class TestWhoAndWhere:
    def test_a_refused_token(self, hub, made, monkeypatch, caplog):
        wrong = "hf_" + "w" * 40
        monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(PermissionError, match=r"the token was refused .*hf auth login") as raised:
            push(PushArguments(str(made["child"]), "user/child"), api=HfApi(endpoint=hub.url))
        assert wrong not in str(raised.value) + caplog.text
        assert hub.repos == {}

    def test_no_token(self, hub, made, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(PermissionError, match="log in with `hf auth login`"):
            push(PushArguments(str(made["child"]), "user/child"), api=HfApi(endpoint=hub.url))

    def test_offline(self, hub, send, made, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
            send(made["child"])
        assert hub.requests == []

    def test_nobody_listens(self, hub, made):
        api = HfApi(endpoint="http://127.0.0.1:9")
        with pytest.raises(ConnectionError, match=r"no connection to http://127\.0\.0\.1:9"):
            push(PushArguments(str(made["child"]), "user/child"), api=api)

    def test_private(self, hub, send, made):
        assert "private, new" in str(send(made["child"], private=True))
        assert hub.repos[MODEL].private
        send(made["retrained"])  # it stays so
        assert hub.repos[MODEL].private

    def test_private_is_not_pushed_to_the_public(self, hub, send, made):
        send(made["child"])
        hub.requests.clear()
        with pytest.raises(ValueError, match="user/child is public"):
            send(made["retrained"], private=True)
        assert hub.writes == []

    def test_a_branch_is_made_where_it_is_missing(self, hub, send, made):
        send(made["child"])
        main = files_of(hub)
        send(made["other"], revision="wide")
        repo = hub.repos[MODEL]
        assert repo.files == main
        wide = repo.commits[repo.branches["wide"]]
        assert wide["config.json"] == (made["other"] / "config.json").read_bytes()
        send(made["child"], revision="same")
        assert repo.commits[repo.branches["same"]] == main

    def test_a_pull_request(self, hub, send, made):
        with pytest.raises(FileNotFoundError, match="to open a pull request on"):
            send(made["child"], create_pr=True)
        send(made["child"])
        main = files_of(hub)
        pushed = send(made["retrained"], create_pr=True)
        repo = hub.repos[MODEL]
        assert repo.files == main
        assert repo.branches["refs/pr/1"] == pushed.commit
        hub.fail(r"POST .*/commit/", is_late=True)
        with pytest.raises(ConnectionError):  # who knows whether it was opened? never two of them
            send(made["retrained"], create_pr=True)
        assert "refs/pr/3" not in repo.branches

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"repo_id": "child"}, "expected user/name"),
            ({"repo_id": "user/../child"}, "expected user/name"),
            ({"repo_id": "user/child", "create_pr": True, "revision": "dev"}, "against main"),
            ({"repo_id": "user/child", "revision": "a" * 40}, "name a branch"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings, reason):
        with pytest.raises(ValueError, match=reason):
            PushArguments("child", **settings)


class TestAnotherModel:
    def test_it_is_not_overwritten(self, hub, send, made):
        send(made["child"])
        before = files_of(hub)
        hub.requests.clear()
        with pytest.raises(
            FileExistsError, match=f"another child: operators is {ARCHITECTURE} there and {OTHER} here"
        ):
            send(made["other"])
        assert files_of(hub) == before
        assert hub.writes == []

    def test_but_it_is_when_asked(self, hub, send, made, child):
        (child / "front.png").write_bytes(b"its own picture")
        send(child)
        pushed = send(made["other"], overwrite=True)
        assert pushed.changes["front.png"] == "deleted"
        assert files_of(hub).keys() == contents_of(made["other"]).keys() | {".gitattributes"}

    def test_the_same_trained_further_is_the_same_model(self, hub, send, made, child):
        send(made["child"])
        config = json.loads((made["retrained"] / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.3, "transformers_version": "9"}
        shutil.copyfile(made["retrained"] / "model.safetensors", child / "model.safetensors")
        (child / "config.json").write_text(json.dumps(config))
        send(child)
        assert files_of(hub)["model.safetensors"] == (made["retrained"] / "model.safetensors").read_bytes()

    def test_another_vocabulary_is_another_model(self, hub, send, made, child):
        send(made["child"])
        words = json.loads((child / "tokenizer.json").read_text())
        vocabulary = words["model"]["vocab"]
        vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
        (child / "tokenizer.json").write_text(json.dumps(words))
        with pytest.raises(FileExistsError, match="vocabulary is"):
            send(child)

    @pytest.mark.parametrize(
        "there", [{"model.gguf": b"!"}, {"config.json": b'{"model_type": "gpt2"}'}, {"config.json": b"?"}]
    )
    def test_something_that_is_not_ours_is_not_overwritten(self, hub, api, send, made, there):
        api.create_repo("user/child")
        hub.repos[MODEL].commit("main", there)
        with pytest.raises(FileExistsError, match="pass overwrite"):
            send(made["child"])
        assert files_of(hub) == there

    def test_a_fresh_repository_with_a_card_is_nobodys(self, hub, api, send, made):
        api.create_repo("user/child")
        hub.repos[MODEL].commit("main", {".gitattributes": b"", "README.md": b"soon", "LICENSE": b"free"})
        send(made["child"])
        assert files_of(hub)["LICENSE"] == b"free"

    def test_shards_of_an_earlier_version_go(self, hub, send, made):
        send(made["child"])
        stale = {
            "model-00001-of-00002.safetensors": b"old",
            "model.safetensors.index.json": b"{}",
            "notes.md": b"mine",
        }
        hub.repos[MODEL].commit("main", files_of(hub) | stale)
        send(made["child"])
        assert files_of(hub).keys() & stale.keys() == {"notes.md"}


class TestWhatGoes:
    def test_a_dry_run_lists_and_writes_nothing(self, hub, send, made, child):
        (child / "training_args.bin").write_bytes(b"pickled")
        (child / "checkpoint-5").mkdir()
        text = str(send(child, dry_run=True, private=True, revision="dev"))
        assert hub.writes == []
        assert hub.repos == {}
        for name, data in contents_of(made["child"]).items():
            size = f"{len(data)} B" if len(data) < 1000 else f"{len(data) / 1000:.3g} kB"
            assert any(name in line and "new" in line for line in text.splitlines()), name
            assert name == "README.md" or any(name in line and line.endswith(size) for line in text.splitlines()), name
        for words in ("would push", "user/child (model, branch dev, private, new)", "left out training_args.bin"):
            assert words in text
        assert "left out checkpoint-5/" in text
        assert text.endswith("nothing was written")

    def test_a_dry_run_says_what_would_change(self, hub, send, made):
        send(made["child"])
        hub.requests.clear()
        changes = send(made["retrained"], dry_run=True).changes
        assert {name for name, change in changes.items() if change != "same"} == {"model.safetensors"}
        assert hub.writes == []

    def test_a_dry_run_needs_no_hub(self, hub, made):
        api = HfApi(endpoint="http://127.0.0.1:9")
        text = str(push(PushArguments(str(made["child"]), "user/child", dry_run=True), api=api))
        assert "not compared with what is there: no connection" in text
        assert "model.safetensors" in text

    def test_only_what_belongs_to_the_model_goes(self, hub, send, child):
        belongs = contents_of(child).keys() | {"figures/front.svg", "scores.jsonl"}
        (child / "scores.jsonl").write_text("{}")
        for stranger in (
            ".env", ".cache/x.json", "optimizer.pt", "trainer_state.json", "training_args.bin", "credentials.json",
            "checkpoint-5/model.safetensors", "notes.docx", "setup.py", "figures/a.py", "figures/front.svg",
            "model.safetensors.partial",
        ):  # fmt: skip
            (child / stranger).parent.mkdir(exist_ok=True)
            (child / stranger).write_bytes(b"?")
        send(child)
        assert files_of(hub).keys() == belongs | {".gitattributes"}

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "child.pkl", "weights.pth", "model.ckpt"])
    def test_pickles_are_refused(self, hub, send, child, name):
        (child / name).write_bytes(b"cos\nsystem")
        with pytest.raises(ValueError, match=rf"{name} may be a pickle.*safetensors"):
            send(child)
        assert hub.requests == []

    def test_links_out_of_the_folder_are_refused(self, hub, send, child, tmp_path):
        secret = tmp_path / "secret.jsonl"
        secret.write_text("{}")
        (child / "log.jsonl").symlink_to(secret)
        with pytest.raises(ValueError, match="link that leads out"):
            send(child)
        (child / "log.jsonl").unlink()
        (child / "log.jsonl").symlink_to(child / "card.json")
        send(child)
        assert "log.jsonl" in files_of(hub)

    @pytest.mark.parametrize("secret", [TOKEN, "hf_" + "x" * 34], ids=["this token", "another"])
    @pytest.mark.parametrize("name", ["README.md", "scores.jsonl", "run.jsonl.gz", "modeling_nasbert.py"])
    def test_a_file_with_a_token_is_refused(self, hub, send, child, name, secret):
        data = f'{{"token": "{secret}"}}\n'.encode()
        (child / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        with pytest.raises(ValueError, match=f"{name} holds a token") as raised:
            send(child)
        assert secret not in str(raised.value)
        assert hub.requests == []

    def test_attachments(self, hub, send, made, tmp_path):
        scores = tmp_path / "scores.jsonl"
        scores.write_text('{"proxy_loss": 1.0}\n')
        send(made["child"], attachments=[str(scores)])
        assert files_of(hub)["scores.jsonl"] == scores.read_bytes()
        (tmp_path / "card.json").write_text("{}")
        for wrong, reason in (
            ("missing.jsonl", "no such file"), ("card.json", "has that name"), ("x.bin", "expected a figure")
        ):  # fmt: skip
            if wrong == "x.bin":
                (tmp_path / wrong).write_text("")
            with pytest.raises((ValueError, FileNotFoundError), match=reason):
                gather(made["child"], "user/child", [tmp_path / wrong])

    @pytest.mark.parametrize(
        ("lacking", "reason"),
        [
            ("config.json", "no config.json"),
            ("model.safetensors", "no safetensors weights"),
            ("tokenizer_config.json", "no tokenizer"),
        ],
    )
    def test_half_a_model_is_refused(self, hub, send, child, lacking, reason):
        (child / lacking).unlink()
        with pytest.raises(ValueError, match=reason):
            send(child)
        assert hub.requests == []

    def test_other_models_are_refused(self, hub, send, child, tmp_path):
        (child / "config.json").write_text('{"model_type": "gpt2"}')
        with pytest.raises(ValueError, match="model of type 'gpt2'; expected one of 'nasbert'"):
            send(child)
        (child / "config.json").write_text("[]")
        with pytest.raises(ValueError, match="expected a JSON object"):
            send(child)
        with pytest.raises(FileNotFoundError, match=r"no such folder of a child or super-net, and no table .* imdb"):
            send(tmp_path / "nowhere")

    def test_code_and_classes_that_were_lost_come_back(self, hub, send, made, child):
        """https://github.com/huggingface/transformers/issues/29714: saved from remote code, they are gone."""
        config = json.loads((child / "config.json").read_text())
        whole = dict(config)
        config["auto_map"] = {"AutoModelForMaskedLM": "user/elsewhere--modeling_nasbert.NasBertForMaskedLM"}
        (child / "config.json").write_text(json.dumps(config))
        for name in CODE_FILES:
            (child / name).unlink()
        send(child)
        assert json.loads(files_of(hub)["config.json"]) == whole
        assert {name: files_of(hub)[name] for name in CODE_FILES} == {
            name: (made["child"] / name).read_bytes() for name in CODE_FILES
        }
        assert json.loads((child / "config.json").read_text()) == config  # the user's folder is not touched


class TestSupernetsAndTables:
    def test_a_super_net(self, hub, send, made, api, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the card's snippet saves a child
        pushed = send(made["supernet"], "user/supernet")
        assert "super-net of 3,125 children" in str(pushed)
        pull(PullArguments("user/supernet", str(tmp_path / "back")), api=api)
        there = contents_of(tmp_path / "back")
        card = there.pop("README.md").decode()
        assert there == contents_of(made["supernet"])
        assert "there are 3,125 of them" in card
        assert "| 0 to 4 | `attention`, `ffn`, `conv3`, `conv5`, `conv7` |" in card
        (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        names: dict[str, object] = {}
        exec(snippet.replace("user/supernet", str(tmp_path / "back")), names)
        assert logits_of(names["child"], padded_batch()).shape[-1] == len(WORDS)
        assert "nothing was pushed" in str(send(tmp_path / "back", "user/supernet"))

    def test_a_damaged_super_net_is_refused(self, hub, send, made, tmp_path):
        folder = Path(shutil.copytree(made["supernet"], tmp_path / "supernet"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "ffn_ratio": 2}))
        with pytest.raises(ValueError, match=r"do not belong to its config\.json"):
            send(folder, "user/supernet")
        assert hub.writes == []

    @pytest.fixture(autouse=True)
    def quick_card(self, monkeypatch):
        """Its intervals take seconds; the slow round trip renders it."""
        monkeypatch.setattr(
            "hf_nasbert.hub.contents.render_table_card", lambda name, truth, hub_id: f"{name} {hub_id}"
        )

    def test_a_table_is_a_dataset(self, hub, send, api, tmp_path):
        pushed = send("imdb", "user/table")
        repo = hub.repos["datasets/user/table"]
        assert repo.files.keys() == {".gitattributes", "README.md", "table-imdb.jsonl.gz"}
        assert repo.files["README.md"] == b"imdb user/table"
        assert f'load_dataset("user/table", revision="{pushed.commit}")' in str(pushed)
        pulled = pull(PullArguments("user/table", str(tmp_path / "back"), repo_type="dataset"), api=api)
        assert str(pulled).startswith(f"{tmp_path / 'back'}: table imdb, commit {pushed.commit}")
        here = {name: data for name, data in repo.files.items() if name != ".gitattributes"}
        assert contents_of(tmp_path / "back") == here

    def test_a_table_that_grew_is_the_same_one_of_another_recipe_is_not(self, hub, send, tmp_path):
        rows = gzip.decompress(gather("imdb", "user/table").files["table-imdb.jsonl.gz"]).splitlines(keepends=True)
        table = tmp_path / "table-mine.jsonl"
        table.write_bytes(b"".join(rows[:20]))
        send(table, "user/table")
        table.write_bytes(b"".join(rows[:30]))
        send(table, "user/table")
        there = gzip.decompress(files_of(hub, "datasets/user/table")["table-mine.jsonl.gz"])
        assert there == b"".join(rows[:30])
        assert "nothing was pushed" in str(send(table, "user/table"))
        table.write_bytes(b"".join(row.replace(b"53345370ac0c", b"000000000000") for row in rows[:30]))
        with pytest.raises(FileExistsError, match="another table: recipe_hash is 53345370ac0c there"):
            send(table, "user/table")


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

    def test_a_pinned_revision(self, hub, send, api, made, tmp_path):
        first = send(made["child"]).commit
        send(made["retrained"])
        for revision, source in ((first, "child"), (None, "retrained")):
            folder = tmp_path / source
            pull(PullArguments("user/child", str(folder), revision=revision), api=api)
            assert (folder / "model.safetensors").read_bytes() == (made[source] / "model.safetensors").read_bytes()

    def test_nothing_dangerous_is_fetched(self, hub, send, api, made, tmp_path):
        send(made["child"])
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
            ({"config.json": b'{"model_type": "gpt2"}'}, "none of hf_nasbert's"),
            ({"config.json": b'{"model_type": "nasbert"}', "pytorch_model.bin": b"!"}, "no safetensors weights"),
            ({"README.md": b""}, "no child and no super-net"),
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

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
    def test_a_failed_pull_leaves_nothing(self, hub, send, api, made, tmp_path, fault):
        send(made["child"])
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

    def test_no_such_revision(self, hub, send, api, made, tmp_path):
        send(made["child"])
        with pytest.raises(FileNotFoundError, match="no branch, tag or commit 'v9'"):
            pull(PullArguments("user/child", str(tmp_path / "back"), revision="v9"), api=api)

    def test_from_the_cache_without_a_hub(self, hub, send, api, made, tmp_path):
        send(made["child"])
        pull(PullArguments("user/child", str(tmp_path / "first")), api=api)
        hub.fail("GET", times=99)
        text = str(pull(PullArguments("user/child", str(tmp_path / "second")), api=api))
        assert "from the cache, since the Hub could not be reached" in text
        assert contents_of(tmp_path / "second") == contents_of(tmp_path / "first")


# Runs where nobody has this package, against the server of HF_ENDPOINT or, where that is gone, from the cache.
ABROAD = r"""
import importlib.abc, json, os, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nasbert":
            raise ImportError("there is no hf_nasbert here")

sys.meta_path.insert(0, Absent())
import torch, transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
stage, first, inputs, expected, finetuned = sys.argv[1:]
batch, expected = load_file(inputs), load_file(expected)
report = {}

def compare(name, tensor, key):
    report[name] = float((tensor - expected[key]).abs().max())

with torch.no_grad():
    if stage != "finetuned":
        model = AutoModelForMaskedLM.from_pretrained("user/child", trust_remote_code=True)
        compare("newest", model(**batch).logits, "retrained")
        pinned = AutoModelForMaskedLM.from_pretrained(
            "user/child", revision=first, code_revision=first, trust_remote_code=True
        )
        compare("pinned", pinned(**batch).logits, "child")
        compare("base", AutoModel.from_pretrained("user/child", trust_remote_code=True)(**batch)[0], "states")
        native = AutoModelForMaskedLM.from_pretrained("user/native")
        compare("native", native(**batch).logits, "native")
        tokenizer = AutoTokenizer.from_pretrained("user/child", trust_remote_code=True)
        report["tokens"] = tokenizer("the film was good")["input_ids"]
        report["class"] = type(model).__module__.split(".")[0]
    if stage != "online":
        classifier = AutoModelForSequenceClassification.from_pretrained("user/finetuned", trust_remote_code=True)
        compare("classifier", classifier(**batch).logits, "classifier")

if stage == "online":
    from datasets import load_dataset
    from safetensors.torch import load_file, save_file

    table = load_dataset("user/table", split="train")
    report["table"] = [len(table), table[0]["architecture"], table[0]["dev_loss"]]
    classifier = AutoModelForSequenceClassification.from_pretrained("user/child", trust_remote_code=True, num_labels=3)
    classifier(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    torch.optim.SGD(classifier.parameters(), lr=0.1).step()
    classifier.eval().save_pretrained(finetuned)
    tokenizer.save_pretrained(finetuned)
    with torch.no_grad():
        save_file({**expected, "classifier": classifier(**batch).logits}, sys.argv[4])
print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # five processes that load transformers, some of which prove in another one
def test_what_was_pushed_lives_where_nobody_has_this_package(hub, send, made, tmp_path, monkeypatch):
    """Push, load in a fresh process with an empty cache, fine-tune, push again, load again, and offline at the end."""
    native = "attention-ffn-attention-ffn-attention-ffn"
    config = SupernetConfig(
        search_space=SearchSpace.chain(6, ("attention", "ffn")), vocab_size=len(WORDS), hidden_size=64
    )
    bert = to_bert(extract_child(randomise_(SupernetForMaskedLM(config)), native))
    save_child(bert, tiny_tokenizer(), tmp_path / "native")
    batch = padded_batch()
    models = {name: NasBertForMaskedLM.from_pretrained(made[name]) for name in ("child", "retrained")}
    expected = {name: logits_of(model, batch) for name, model in models.items()} | {"native": logits_of(bert, batch)}
    with torch.no_grad():
        expected["states"] = models["retrained"].nasbert(**batch).last_hidden_state
    save_file(batch, tmp_path / "batch")
    save_file(expected, tmp_path / "expected")
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    environment = os.environ | settings | {"HF_HOME": str(tmp_path / "home")}
    outputs = []

    def run(*command: object, **changed: str) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment | changed,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        outputs.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def abroad(stage: str, **changed: str) -> dict:
        command = ("-I", "-c", ABROAD, stage, first, tmp_path / "batch", tmp_path / "expected", tmp_path / "finetuned")
        return json.loads(run(*command, **changed).splitlines()[-1])

    first = send(made["child"]).commit
    monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)
    outputs += [str(send(made["retrained"])), str(send(tmp_path / "native", "user/native"))]
    outputs += [str(send("imdb", "user/table"))]
    assert b'datasets.load_dataset("user/table")' in files_of(hub, "datasets/user/table")["README.md"]

    online = abroad("online")
    assert {name: online[name] for name in ("newest", "pinned", "base", "native")} == dict.fromkeys(
        ("newest", "pinned", "base", "native"), 0
    )
    assert online["class"] == "transformers_modules"
    assert online["tokens"] == tiny_tokenizer()("the film was good")["input_ids"]
    table = load_table("imdb")
    # datasets reads some JSON through pandas, which keeps ten digits after the point.
    loss = pytest.approx(table[0]["dev_loss"], abs=1e-9)
    assert online["table"] == [len(table), table[0]["architecture"], loss]

    command = ["push", "--source", tmp_path / "finetuned", "--repo_id", "user/finetuned", "--private"]
    here = {"PYTHONPATH": str(Path(hf_nasbert.__file__).parents[1])}
    program = "import sys; from hf_nasbert.cli import main; sys.exit(main(sys.argv[1:]))"
    text = run("-c", program, *command, **here)
    assert 'AutoModelForSequenceClassification.from_pretrained("user/finetuned"' in text
    there = files_of(hub, "models/user/finetuned")
    assert {*CODE_FILES} <= there.keys()
    assert json.loads(there["config.json"])["auto_map"] == AUTO_MAP
    hub.repos.pop(MODEL)
    assert abroad("finetuned") == {"classifier": 0}

    hub.shutdown()
    hub.server_close()
    offline = abroad("offline", HF_HUB_OFFLINE="1")
    assert all(offline[name] == 0 for name in ("newest", "pinned", "base", "native", "classifier"))
    for text in (*outputs, *map(str, hub.requests)):
        assert TOKEN not in text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    for repo in hub.repos.values():
        assert not any(TOKEN.encode() in data for data in repo.files.values())


class TestProof:
    """Of a child's folder, before it is pushed."""

    @pytest.fixture
    def here(self, monkeypatch):
        """In place of a fresh process, this one: quick, and enough for what does not depend on the package."""

        def load_here(command, **_):
            folder, auto_class, inputs, results = command[4:]
            model = getattr(transformers, auto_class).from_pretrained(folder).eval()
            with torch.no_grad():
                outputs = model(**load_file(inputs))
            save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, results)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr("hf_nasbert.hub.proof.subprocess.run", load_here)

    @pytest.mark.parametrize("name", [name for name in AUTO_MAP if name != "AutoConfig"])
    def test_every_head_is_loaded_by_its_own_name(self, here, made, child, name):
        model = randomise_(getattr(transformers, name).from_pretrained(made["child"]))
        model.save_pretrained(child)
        assert check_leaves_home(gather(child, "user/child").files) == 0

    @pytest.mark.parametrize("damage", ["missing", "unexpected", "other sizes"])
    def test_weights_that_do_not_belong_are_refused(self, here, child, damage):
        weights = load_file(child / "model.safetensors")
        name = "nasbert.encoder.blocks.1.operator.self.query.bias"
        if damage == "missing":
            del weights[name]
        elif damage == "unexpected":
            weights["spare"] = torch.zeros(3)
        else:
            weights[name] = torch.zeros(3)
        save_file(weights, child / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"the child's weights do not belong|the child does not load"):
            check_leaves_home(gather(child, "user/child").files)

    def test_a_class_that_nobody_knows_is_refused(self, child):
        config = json.loads((child / "config.json").read_text())
        (child / "config.json").write_text(json.dumps({**config, "architectures": ["NasBertForPoetry"]}))
        with pytest.raises(ValueError, match="names the class 'NasBertForPoetry'"):
            check_leaves_home(gather(child, "user/child").files)

    def test_numbers_that_are_none_are_refused(self, here, child):
        weights = load_file(child / "model.safetensors")
        weights["lm_head.bias"][3] = float("nan")
        save_file(weights, child / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="compute other logits"):
            check_leaves_home(gather(child, "user/child").files)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("file", "old", "new", "reason"),
        [
            ("modeling_nasbert.py", "import torch\n", "import torch, hf_nasbert\n", "not installed: .* hf_nasbert"),
            ("operators_nasbert.py", " + residual)", " + 1.001 * residual)", "compute other logits"),
        ],
    )  # fmt: skip
    def test_code_that_cannot_leave_home_is_not_pushed(self, hub, send, child, file, old, new, reason, monkeypatch):
        monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)
        code = (child / file).read_text()
        assert old in code
        (child / file).write_text(code.replace(old, new))
        with pytest.raises(ValueError, match=reason) as raised:
            send(child)
        assert "\n" not in str(raised.value)
        assert hub.writes == []
