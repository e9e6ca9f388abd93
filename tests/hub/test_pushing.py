"""Pushing over real HTTP: one commit or none, nobody's model replaced unasked, no token anywhere."""

import json
import shutil
import traceback

import hf_xet
import huggingface_hub.constants
import pytest
from helpers import mostly_slow
from hub_helpers import ARCHITECTURE, MODEL, OTHER, contents_of, files_of
from hub_server import TOKEN
from huggingface_hub import HfApi, ModelCard

from hf_nasbert.hub import PushArguments, push
from hf_nasbert.native import CODE_FILES

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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

    @pytest.mark.parametrize("fault", mostly_slow([(fault,) for fault in FAULTS.values()], 4), ids=FAULTS.keys())
    def test_a_failed_push_changes_nothing_and_is_repeated(self, hub, landed, send, made, fault, caplog):
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

    @pytest.mark.parametrize(
        "pattern", mostly_slow(["preupload", "objects/batch", "PUT /upload", r"POST .*/commit/"], 4)
    )
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

    def test_the_same_again_is_no_commit(self, hub, landed, send, made):
        hub.requests.clear()
        assert "nothing was pushed" in str(send(made["child"]))
        assert hub.writes == []

    def test_a_repository_that_the_token_cannot_see(self, hub, send, made):
        hub.fail(r"GET /api/models/user/child", times=9, status=404, code="RepoNotFound")
        hub.fail(r"POST /api/repos/create", status=409, message="You already created this repo")
        with pytest.raises(FileExistsError, match="or is hidden from your token"):
            send(made["child"])

    def test_somebody_else_was_faster(self, hub, landed, send, made):

        def meddle():
            hub.repos[MODEL].commit("main", files_of(hub) | {"theirs.md": b"!"})

        hub.fail(r"POST .*/preupload", before=meddle)
        with pytest.raises(FileExistsError, match="changed by somebody else meanwhile"):
            send(made["retrained"])
        assert files_of(hub)["theirs.md"] == b"!"
        assert files_of(hub)["model.safetensors"] == (made["child"] / "model.safetensors").read_bytes()

    def test_a_repository_that_vanished(self, hub, landed, send, made):
        hub.fail(r"POST .*/preupload", before=lambda: hub.repos.pop(MODEL))
        with pytest.raises(FileNotFoundError, match="is not on http://127"):
            send(made["retrained"])
        assert hub.repos == {}

    @pytest.mark.parametrize("kind", [RuntimeError, hf_xet.XetAuthenticationError])
    def test_an_upload_that_fails_outside_of_http(self, hub, send, made, kind, monkeypatch):
        """As the Xet client does, in which the real Hub's uploads go."""

        def fail(*_, **__):
            raise kind(f"Data processing error:\n{TOKEN}")

        for module in ("_commit_api", "hf_api"):  # the older ones hold it by its name
            monkeypatch.setattr(f"huggingface_hub.{module}._upload_files", fail, raising=False)
        with pytest.raises(
            ConnectionError, match=r"the transfer failed \(Data processing error: <token>\): run the same"
        ):
            send(made["child"])
        assert len(hub.repos[MODEL].commits) == 1

    def test_a_commit_that_is_not_whole_is_told(self, hub, landed, send, made):
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

    def test_private_is_not_pushed_to_the_public(self, hub, landed, send, made):
        hub.requests.clear()
        with pytest.raises(ValueError, match="user/child is public"):
            send(made["retrained"], private=True)
        assert hub.writes == []

    def test_a_branch_is_made_where_it_is_missing(self, hub, landed, send, made):
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
    def test_it_is_not_overwritten(self, hub, landed, send, made):
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

    def test_the_same_trained_further_is_the_same_model(self, hub, landed, send, made, child):
        config = json.loads((made["retrained"] / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.3, "transformers_version": "9"}
        shutil.copyfile(made["retrained"] / "model.safetensors", child / "model.safetensors")
        (child / "config.json").write_text(json.dumps(config))
        send(child)
        assert files_of(hub)["model.safetensors"] == (made["retrained"] / "model.safetensors").read_bytes()

    def test_another_vocabulary_is_another_model(self, landed, send, child):
        words = json.loads((child / "tokenizer.json").read_text())
        vocabulary = words["model"]["vocab"]
        vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
        (child / "tokenizer.json").write_text(json.dumps(words))
        with pytest.raises(FileExistsError, match="vocabulary is"):
            send(child)

    def test_a_classifier_with_other_labels_is_another_model(self, hub, send, child):
        config = json.loads((child / "config.json").read_text())

        def send_with(labels):
            (child / "config.json").write_text(json.dumps({**config, "id2label": labels}))
            return send(child)

        send_with({"0": "bad", "1": "good"})
        with pytest.raises(FileExistsError, match="id2label is"):
            send_with({"0": "good", "1": "bad"})

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

    def test_shards_of_an_earlier_version_go(self, hub, landed, send, made):
        stale = {
            "model-00001-of-00002.safetensors": b"old",
            "model.safetensors.index.json": b"{}",
            "notes.md": b"mine",
        }
        hub.repos[MODEL].commit("main", files_of(hub) | stale)
        send(made["child"])
        assert files_of(hub).keys() & stale.keys() == {"notes.md"}


class TestWhatOnlyAnOwnerKnows:
    @pytest.fixture
    def without(self, made, tmp_path):
        """A child whose card says neither license nor language."""
        folder = shutil.copytree(made["child"], tmp_path / "without")
        card = (folder / "README.md").read_text()
        lines = [line for line in card.splitlines() if not line.startswith(("license:", "language:"))]
        (folder / "README.md").write_text("\n".join(lines) + "\n")
        return folder

    def test_a_card_without_it_is_told(self, hub, send, without):
        said = str(send(without, dry_run=True))
        assert "the card names no license: add --license apache-2.0, or what is true" in said
        assert "the card names no language: add --language en, or what is true" in said

    def test_it_is_written_into_the_card_that_is_sent(self, hub, send, without):
        before = (without / "README.md").read_text()
        said = str(send(without, license="mit", language="de"))
        assert "names no" not in said
        assert (without / "README.md").read_text() == before, "the folder is only read"
        sent = hub.repos[MODEL].files["README.md"].decode()
        data = ModelCard(sent).data
        assert (data.license, data.language) == ("mit", "de")
        plain = str(send(without, repo_id="user/plain"))
        assert "names no license" in plain
        other = hub.repos["models/user/plain"].files["README.md"].decode()
        assert ModelCard(sent).text.strip() == ModelCard(other).text.replace("user/plain", "user/child").strip()

    def test_what_the_hub_does_not_know_is_refused(self, send, without):
        with pytest.raises(ValueError, match=r"license is 'Apache 2\.0'.*did you mean apache-2\.0"):
            send(without, license="Apache 2.0", dry_run=True)
