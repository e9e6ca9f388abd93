"""What of a folder goes to the Hub, and what does not."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from hub_helpers import ARCHITECTURE, MODEL, contents_of, files_of
from hub_server import TOKEN
from huggingface_hub import HfApi
from tiny.finetuning import save_models
from tiny.models import logits_of, padded_batch
from tiny.texts import WORDS, tiny_tokenizer

from hf_nasbert import cli
from hf_nasbert.cards import check_card, render_finetuned_card
from hf_nasbert.child_folders import save_child
from hf_nasbert.hub import PullArguments, PushArguments, gather, pull, push
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM
from hf_nasbert.modeling.families import to_bert
from hf_nasbert.native import CODE_FILES

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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

    def test_a_dry_run_says_what_would_change(self, hub, landed, send, made):
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
            send(child, trust_remote_code=True)
        assert secret not in str(raised.value)
        assert hub.requests == []

    def test_the_present_token_is_found_whatever_its_form(self, hub, send, child, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "api_org_ofAnOlderForm")
        (child / "scores.jsonl").write_text('{"command": "HF_TOKEN=api_org_ofAnOlderForm hf-nasbert push"}\n')
        with pytest.raises(ValueError, match=r"scores\.jsonl holds a token"):
            send(child)
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

    def test_a_child_without_a_card_gets_one(self, hub, send, made, child):
        """As `pretrain-child` leaves it."""
        (child / "README.md").unlink()
        send(child)
        card = files_of(hub)["README.md"].decode()
        check_card(card)
        for words in ("# child\n", f"`{ARCHITECTURE}`", 'model="user/child", trust_remote_code=True'):
            assert words in card
        assert not (child / "README.md").exists()
        hub.repos[MODEL].commit("main", files_of(hub) | {"README.md": b"by hand"})
        shutil.copyfile(made["retrained"] / "model.safetensors", child / "model.safetensors")
        send(child)
        assert files_of(hub)["README.md"] == b"by hand"
        send(made["child"])
        assert files_of(hub)["README.md"] != b"by hand"

    def test_a_plain_bert_without_a_card_gets_one_that_asks_for_no_trust(self, tmp_path):
        config = NasBertConfig(operators=["attention", "ffn"] * 2, vocab_size=len(WORDS), hidden_size=64)
        save_child(to_bert(NasBertForMaskedLM(config)), tiny_tokenizer(), tmp_path / "bert")
        card = gather(tmp_path / "bert", "user/bert").files["README.md"].decode()
        assert 'pipeline("fill-mask", model="user/bert")' in card
        assert "`attention-ffn-attention-ffn`" in card

    def test_a_head_of_another_task_goes_without_a_card_that_speaks_of_masked_tokens(self, child):
        (child / "README.md").unlink()
        config = json.loads((child / "config.json").read_text())
        (child / "config.json").write_text(json.dumps({**config, "architectures": ["NasBertForTokenClassification"]}))
        assert "README.md" not in gather(child, "user/child").files

    def test_a_fine_tuned_head_goes_with_its_card(self, hub, api, tmp_path, monkeypatch, capsys):
        """From the terminal: listed by a dry run, then pushed; nothing else of the run's folder goes."""
        monkeypatch.setattr("hf_nasbert.hub.pushing.default_api", lambda: api)
        save_models(tmp_path, " ".join(WORDS))
        rows = "\n".join(json.dumps({"tokens": ["the", "film"], "tags": [tag, "O"]}) for tag in ("B-X", "O"))
        for split in ("train", "validation"):
            (tmp_path / f"{split}.jsonl").write_text(rows)
        asked = f"--model {tmp_path}/child --train_file {tmp_path}/train.jsonl --validation_file"
        asked += f" {tmp_path}/validation.jsonl --max_steps 1 --max_seq_length 8 --output_dir {tmp_path}/out"
        assert cli.main(["finetune-tokens", *asked.split(), "--disable_tqdm", "--cache_dir", str(tmp_path)]) == 0
        (folder,) = (tmp_path / "out").glob("*/seed-0")
        capsys.readouterr()
        quoted = 'text = "the film"'
        mark = "  # quoted from the held-out texts"
        assert f"\n{quoted}{mark}\n" in (folder / "README.md").read_text()
        push_it = ["push", "--source", str(folder), "--repo_id", "user/child"]
        assert cli.main([*push_it, "--dry_run"]) == 0
        listed = capsys.readouterr().out
        assert re.search(r"^  new +README\.md +[\d.]+ kB$", listed, flags=re.MULTILINE)
        assert "left out run/" in listed
        assert (
            "the card's code example quotes your data; a plain sentence is published instead: add --quote_text"
            in listed
        )
        written = (folder / "README.md").read_bytes()
        (folder / "README.md").write_bytes(written.replace(b"\n", b"\r\n"))
        assert b"the film" not in gather(folder, "user/child").files["README.md"]
        (folder / "README.md").write_bytes(written.replace(quoted.encode(), b"text = 'the film'"))
        with pytest.raises(SystemExit, match="quotes your own text in a line that was changed by hand"):
            cli.main([*push_it, "--dry_run"])
        (folder / "README.md").write_bytes(written)
        assert cli.main([*push_it, "--dry_run", "--quote_text"]) == 0
        assert '\nthe card quotes your data: "the film"; leave out --quote_text' in capsys.readouterr().out
        assert hub.writes == []
        assert cli.main(push_it) == 0
        there = files_of(hub)
        here = contents_of(folder)
        assert there.keys() - {".gitattributes"} == {name for name in here if not name.startswith("run/")}
        card = there["README.md"].decode()
        plain = 'text = "Paris is the capital of France."'
        mine = here["README.md"].decode().replace("path/to/this/folder", "user/child")
        assert card == mine.replace(quoted + mark, plain)
        assert "the film" not in card + there["card.json"].decode()
        assert '"the film"' in here["card.json"].decode(), "what lies on this machine stays as it was"
        assert render_finetuned_card(json.loads(there["card.json"])).count(plain) == 1
        assert cli.main([*push_it, "--quote_text"]) == 0
        there = files_of(hub)
        assert there["README.md"].decode() == mine
        assert there["card.json"] == here["card.json"]
        assert 'pipeline("token-classification", model="user/child", trust_remote_code=True' in card
        assert check_card(card).pipeline_tag == "token-classification"

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
            "hf_nasbert.hub.contents.render_table_card", lambda name, truth, hub_id, **others: f"{name} {hub_id}"
        )

    @pytest.mark.parametrize("name", ["imdb", "minilm"])
    def test_a_table_is_a_dataset(self, name, hub, send, api, tmp_path):
        pushed = send(name, "user/table")
        repo = hub.repos["datasets/user/table"]
        assert repo.files.keys() == {".gitattributes", "README.md", f"table-{name}.jsonl.gz"}
        assert repo.files["README.md"] == f"{name} user/table".encode()
        assert f'load_dataset("user/table", revision="{pushed.commit}")' in str(pushed)
        pulled = pull(PullArguments("user/table", str(tmp_path / "back"), repo_type="dataset"), api=api)
        assert str(pulled).startswith(f"{tmp_path / 'back'}: table {name}, commit {pushed.commit}")
        here = {name: data for name, data in repo.files.items() if name != ".gitattributes"}
        assert contents_of(tmp_path / "back") == here

    def test_a_table_of_ones_own_has_no_facts_of_the_packages(self, monkeypatch, tmp_path):
        asked = []
        monkeypatch.setattr(
            "hf_nasbert.hub.contents.render_table_card", lambda *args, **how: asked.append(how) or "card"
        )
        table = tmp_path / "table-imdb.jsonl"  # the name alone makes it no table of the package
        rows = gzip.decompress(gather("imdb", "user/table").files["table-imdb.jsonl.gz"]).splitlines(keepends=True)
        table.write_bytes(b"".join(rows[:20]))
        gather(table, "user/table")
        table.with_suffix(".json").write_text('{"license": "mit"}')
        contents = gather(table, "user/table")
        assert contents.files.keys() == {"README.md", "table-imdb.jsonl.gz"}
        assert [how["is_packaged"] for how in asked] == [True, False, False]
        assert [how["facts"].license for how in asked] == ["apache-2.0", None, "mit"]

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
