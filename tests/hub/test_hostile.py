"""Children that somebody else wrote: code that is not run unasked, files that are refused or do no harm."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from helpers import mostly_slow
from hub_helpers import MODEL, files_of
from hub_server import TOKEN

from hf_nasbert.hub import PullArguments, PushArguments, check_leaves_home, gather, pull
from hf_nasbert.hub import proof as proving
from hf_nasbert.hub.proof import run_without_package
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.native import CODE_FILES
from hf_nasbert.pipeline import ask_in_fresh_process

# huggingface_hub 2.4 hands files to httpx2 in a way that httpx2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def edit(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def assert_one_line(error: BaseException, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert CONTROLS.search(text) is None, text
    assert len(text) < 1500
    for word in words:
        assert word in text, text


class TestCodeOfOthers:
    """A child whose code writes a file, were it run."""

    @pytest.fixture(autouse=True)
    def for_real(self, hub, monkeypatch):
        monkeypatch.setattr("hf_nasbert.hub.pushing.check_leaves_home", check_leaves_home)

    @pytest.fixture
    def marker(self, tmp_path):
        yield tmp_path / "OWNED"
        assert not (tmp_path / "OWNED").exists(), "the code was run"

    def line(self, marker: Path) -> str:
        return f"open({str(marker)!r}, 'w').close()\n"

    def first_line(self, child, marker, name):
        (child / name).write_text(self.line(marker) + (child / name).read_text())

    def last_line(self, child, marker, name):
        (child / name).write_text((child / name).read_text() + "\n" + self.line(marker))

    def another_file_that_is_linked(self, child, marker, name):
        (child / "evil.jsonl").write_text(self.line(marker))
        (child / name).unlink()
        (child / name).symlink_to("evil.jsonl")

    def another_class_of_our_file(self, child, marker, name):
        edit(child / "config.json", auto_map={**AUTO_MAP, "AutoModelForMaskedLM": "modeling_nasbert.Evil"})

    def a_file_of_its_own(self, child, marker, name):
        (child / "evil.py").write_text(self.line(marker))
        edit(child / "config.json", auto_map={**AUTO_MAP, "AutoModelForMaskedLM": "evil.Model"})

    def another_auto_class(self, child, marker, name):
        (child / "evil.py").write_text(self.line(marker))
        edit(child / "config.json", auto_map={**AUTO_MAP, "AutoTokenizer": ["evil.Tokenizer", None]})

    def another_repository(self, child, marker, name):
        edit(child / "config.json", auto_map={"AutoModelForMaskedLM": "evil/child--evil.Model"})

    def another_folder(self, child, marker, name):
        elsewhere = child.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "evil.py").write_text(self.line(marker))
        edit(child / "tokenizer_config.json", auto_map={"AutoTokenizer": [f"{elsewhere}--evil.Tokenizer", None]})

    def a_tokenizer(self, child, marker, name):
        (child / "evil.py").write_text(self.line(marker))
        edit(child / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})

    def a_pipeline(self, child, marker, name):
        (child / "evil.py").write_text(self.line(marker))
        edit(child / "config.json", custom_pipelines={"fill-mask": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}})

    def a_stock_bert(self, child, marker, name):
        (child / name).write_text(self.line(marker))
        edit(child / "config.json", model_type="bert", architectures=["BertForMaskedLM"])

    def a_class_of_a_stock_bert(self, child, marker, name):
        (child / "evil.py").write_text(self.line(marker))
        edit(
            child / "config.json",
            model_type="bert",
            architectures=["BertForMaskedLM"],
            auto_map={"AutoModelForMaskedLM": "evil.BertForMaskedLM"},
        )

    FILES = ("first_line", "last_line", "another_file_that_is_linked", "a_stock_bert")
    FIELDS = {
        "another_class_of_our_file": "config.json",
        "a_file_of_its_own": "config.json",
        "another_auto_class": "config.json",
        "another_repository": "config.json",
        "another_folder": "tokenizer_config.json",
        "a_tokenizer": "tokenizer_config.json",
        "a_pipeline": "config.json",
        "a_class_of_a_stock_bert": "config.json",
    }

    @pytest.mark.parametrize("dry_run", [True, False])
    @pytest.mark.parametrize(("way", "name"), [(way, name) for way in FILES for name in CODE_FILES])
    def test_a_code_file_is_refused(self, hub, send, child, marker, way, name, dry_run):
        getattr(self, way)(child, marker, name)
        with pytest.raises(ValueError, match="code that is not hf_nasbert's") as raised:
            send(child, dry_run=dry_run)
        assert_one_line(raised.value, name, str(child), "--trust_remote_code")
        assert hub.repos == {}

    @pytest.mark.parametrize("dry_run", [True, False])
    @pytest.mark.parametrize(("way", "file"), FIELDS.items())
    def test_a_field_that_leads_to_code_is_refused(self, hub, send, child, marker, way, file, dry_run):
        getattr(self, way)(child, marker, CODE_FILES[0])
        with pytest.raises(ValueError, match="code that is not hf_nasbert's") as raised:
            send(child, dry_run=dry_run)
        assert_one_line(raised.value, f" {file}", str(child))
        assert hub.repos == {}

    def test_the_proof_refuses_by_itself(self, child, marker):
        files = dict(gather(child, "user/child").files)
        files["modeling_nasbert.py"] = self.line(marker).encode()
        with pytest.raises(ValueError, match=r"modeling_nasbert\.py\), so it is not run"):
            check_leaves_home(files)

    def test_so_does_the_last_stage_of_a_run(self, child, marker):
        self.first_line(child, marker, "modeling_nasbert.py")
        with pytest.raises(ValueError, match=r"modeling_nasbert\.py\), so it is not run"):
            ask_in_fresh_process(child, ["the [MASK]"])

    def test_a_kernel_of_the_hub_is_code(self, send, child):
        for value in ("evil/kernel", "evil/kernel@main:f", "paged|evil/kernel", {"": "evil/kernel"}, 5):
            edit(child / "config.json", attn_implementation=value)
            with pytest.raises(ValueError, match="attn_implementation is") as raised:
                send(child, dry_run=True)
            assert_one_line(raised.value, str(child))

    def test_other_line_ends_are_ours_and_go_as_we_keep_them(self, hub, made, child):
        for name in CODE_FILES:
            (child / name).write_bytes((child / name).read_bytes().replace(b"\n", b"\r\n"))
        files = gather(child, "user/child").files
        assert {name: files[name] for name in CODE_FILES} == {n: (made["child"] / n).read_bytes() for n in CODE_FILES}

    def test_what_is_not_pushed_is_not_compared(self, child):
        (child / "notes.py").write_text("# mine")
        (child / "sub").mkdir()
        (child / "sub" / "modeling_nasbert.py").write_text("# mine")
        assert {"notes.py", "sub/"} <= {*gather(child, "user/child").left_out}

    @pytest.mark.slow
    def test_where_it_is_trusted_it_is_run_and_handed_nothing(self, send, child, tmp_path, monkeypatch):
        home, seen = tmp_path / "home", tmp_path / "seen.json"
        for token in (home / "token", home / ".cache" / "huggingface" / "token", home / "hub" / "token"):
            token.parent.mkdir(parents=True, exist_ok=True)
            token.write_text("hf_ofTheFile")
        secrets = {name: f"secret of {name}" for name in (
            "WANDB_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HUGGING_FACE_HUB_TOKEN", "DATABASE_URL",
            "SSH_AUTH_SOCK", "PYTHONPATH", "PYTHONSTARTUP", "KAGGLE_KEY", "PWD", "MY_PATH",
        )}  # fmt: skip
        secrets |= {"HF_TOKEN": TOKEN, "HF_TOKEN_PATH": str(home / "token")}
        for name, value in {**secrets, "HOME": str(home), "HF_HOME": str(home / "hub")}.items():
            monkeypatch.setenv(name, value)
        opened = os.open(home / "token", os.O_RDONLY)
        os.set_inheritable(opened, True)
        program = f"""
import json as _json, os as _os, pathlib as _pathlib
from huggingface_hub import get_token as _get_token
_open = [n for n in range(3, 256) if _os.path.exists(f"/proc/self/fd/{{n}}")]
_json.dump({{
    "environment": dict(_os.environ), "token": _get_token(), "work": _os.listdir(), "open": len(_open),
    "home": [str(p) for p in _pathlib.Path.home().rglob("*") if p.name.endswith("token")],
}}, open({str(seen)!r}, "w"))
"""
        path = child / "modeling_nasbert.py"
        path.write_text(path.read_text() + program)
        try:
            assert "nothing was written" in str(send(child, dry_run=True, trust_remote_code=True))
        finally:
            os.close(opened)
        found = json.loads(seen.read_text())
        given = found["environment"]
        assert not {*secrets} & {*given}
        assert not {*secrets.values(), str(home), str(home / "hub"), "hf_ofTheFile"} & {*given.values()}
        assert found["token"] is None
        assert found["home"] == []
        assert found["work"] == []


class TestTheProcess:
    """Where a child's code is tried; no torch here, for these are quick."""

    def test_too_slow_a_machine_is_one_line(self, monkeypatch):
        monkeypatch.setattr(proving, "_TIMEOUT", 0.3)
        with pytest.raises(TimeoutError, match=r"did not end within 0\.3 s on this machine: run it again") as raised:
            run_without_package("import time; time.sleep(60)", [])
        assert_one_line(raised.value)

    def test_it_is_six_hundred_seconds(self):
        assert proving._TIMEOUT == 600

    def test_one_that_is_killed_is_one_line(self):
        with pytest.raises(ValueError, match=r"signal 9 \(SIGKILL\), as machines do that have no memory") as raised:
            run_without_package("import os; os.kill(os.getpid(), 9)", [])
        assert_one_line(raised.value)

    @pytest.mark.parametrize(
        ("program", "said"),
        [
            ("raise ValueError('\\x1b[31mred\\u202e')", r"\x1b[31mred\u202e"),
            ("sys.stderr.buffer.write(b'\\xff\\x1b]0;pwned\\x07'); sys.exit(3)", r"\x1b]0;pwned\x07"),
            ("sys.exit(3)", "without a word"),
            ("print('x' * 10_000_000); sys.exit(1)", "xxx"),
            ("import hf_nasbert", "No module named 'hf_nasbert'"),
        ],
    )
    def test_what_it_says_is_escaped(self, program, said):
        with pytest.raises(ValueError, match="does not load where hf_nasbert is not installed") as raised:
            run_without_package(program, [])
        assert_one_line(raised.value, said)

    def test_it_is_handed_what_it_needs(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LC_MESSAGES", "C")
        monkeypatch.setenv("WANDB_API_KEY", "mine")
        program = "import json, os; json.dump([dict(os.environ), os.listdir()], open(sys.argv[1], 'w'))"
        run_without_package(program, [str(tmp_path / "found")])
        given, work = json.loads((tmp_path / "found").read_text())
        assert given["PATH"] == os.environ["PATH"]
        assert given["LC_MESSAGES"] == "C"
        assert given["HF_HUB_OFFLINE"] == "1"
        assert "WANDB_API_KEY" not in given
        assert given["HOME"] == given["HF_HOME"] == given["XDG_CACHE_HOME"] != os.environ.get("HOME")
        assert work == []


DEEP = b"[" * 300_000
ESCAPES = "\x1b[2J\x1b]0;pwned\x07"
CONFIGS = {  # of a child: fields, or the whole file
    "model type of another type": {"model_type": ["nasbert"]},
    "model type with escapes": {"model_type": ESCAPES},
    "no model type": {"model_type": None},
    "operators that are numbers": {"operators": [1, 2]},
    "operators with escapes": {"operators": [ESCAPES]},
    "operators that are a text": {"operators": "attention-ffn"},
    "operators that are an object": {"operators": {"attention": 1}},
    "a million operators": {"operators": ["ffn"] * 1_000_000},
    "no operators": {"operators": []},
    "architectures that are a number": {"architectures": 5},
    "architectures in lists": {"architectures": [["a"]]},
    "architectures with escapes": {"architectures": ["NasBertFor\x1b[31mX"]},
    "architectures that are code": {"architectures": ['NasBertModel"); import os; os.system("x'],},
    "architectures with a line end": {"architectures": ["NasBertModel\n"]},
    "wide letters": {"architectures": ["\uff2easBertModel"]},
    "an auto map that is a list": {"auto_map": ["x"]},
    "an auto map of numbers": {"auto_map": {"AutoModel": 3}},
    "an auto map with escapes": {"auto_map": {ESCAPES: "a.B"}},
    "a vocabulary of terabytes": {"vocab_size": 10**13},
    "states of terabytes": {"hidden_size": 10**6, "embedding_size": 10**6, "vocab_size": 10**8},
    "positions of terabytes": {"max_position_embeddings": 2**62},
    "a number beyond floats": {"hidden_size": 10**400},
    "a size that is a text": {"hidden_size": "64"},
    "a size that is true": {"vocab_size": True},
    "a size below nothing": {"vocab_size": -5},
    "a size of half": {"ffn_ratio": 0.5},
    "labels that are a list": {"id2label": [1]},
    "labels that are lists": {"id2label": {"0": ["x"]}},
    "a billion labels": {"num_labels": 10**9},
    "stages that are a text": {"stage_lengths": "12"},
    "brackets": DEEP,
    "braces": b'{"a":' * 300_000,
    "no JSON": b"\x80\x81",
    "a list": b"[]",
    "a key twice": b'{"model_type": "nasbert", "model_type": "bert"}',
    "a number of many digits": b'{"hidden_size": ' + b"9" * 10_000 + b"}",
    "nothing": b"",
}  # fmt: skip
TOKENIZERS = {
    "a model that is a text": b'{"model": "x"}',
    "a model that is a list": b'{"model": [1]}',
    "no model": b"{}",
    "a list": b"[]",
    "brackets": DEEP,
    "brackets inside": b'{"model": {"vocab": ' + DEEP + b"}}",
    "no JSON": b"\xff",
    "half a file": b'{"model": {"vocab": {"a": 1',
}


class TestFilesOfOthers:
    def configure(self, files: dict[str, bytes], changed) -> dict[str, bytes]:
        if isinstance(changed, dict):
            changed = json.dumps({**json.loads(files["config.json"]), **changed}).encode()
        return files | {"config.json": changed}

    @pytest.mark.parametrize("changed", mostly_slow(CONFIGS.values(), 4), ids=CONFIGS)
    def test_a_config_on_the_hub(self, hub, landed, api, tmp_path, changed):
        hub.repos[MODEL].commit("main", self.configure(files_of(hub), changed))
        with pytest.raises(ValueError, match=r"config\.json|holds a model of type") as raised:
            pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        assert_one_line(raised.value, "user/child")
        assert list(tmp_path.glob("*back*")) == []
        assert hub.asked("safetensors") == [], "refused before anything large is fetched"

    @pytest.mark.parametrize("changed", CONFIGS.values(), ids=CONFIGS)
    def test_a_config_in_a_folder(self, hub, send, child, changed):
        from hf_nasbert.export import ExportArguments, export_child
        from hf_nasbert.extraction import load_supernet
        from hf_nasbert.finetuning import PretrainChildArguments
        from hf_nasbert.finetuning.runs import load_config

        files = {"config.json": (child / "config.json").read_bytes()}
        (child / "config.json").write_bytes(self.configure(files, changed)["config.json"])
        arguments = PretrainChildArguments(model=str(child), output_dir=str(child.parent / "out"))
        for use in (
            lambda: send(child, dry_run=True),
            lambda: load_config(arguments, None),
            lambda: load_supernet(child),
            lambda: export_child(ExportArguments(model=str(child), output_dir=str(child.parent / "out"))),
        ):
            with pytest.raises(ValueError, match=re.escape(str(child))) as raised:
                use()
            assert_one_line(raised.value)
        assert not (child.parent / "out").exists()
        assert hub.writes == []

    @pytest.mark.parametrize("content", mostly_slow(TOKENIZERS.values(), 4), ids=TOKENIZERS)
    def test_a_tokenizer(self, hub, landed, api, send, child, tmp_path, content):
        hub.repos[MODEL].commit("main", files_of(hub) | {"tokenizer.json": content})
        with pytest.raises(ValueError, match=r"tokenizer\.json of user/child") as raised:
            pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        assert_one_line(raised.value)
        assert list(tmp_path.glob("*back*")) == []
        (child / "tokenizer.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json") as raised:
            send(child, dry_run=True)
        assert_one_line(raised.value, str(child))

    def test_from_the_cache_it_is_refused_too(self, hub, landed, api, tmp_path):
        """What another program fetched was looked at by nobody."""
        changed = self.configure(files_of(hub), {"operators": [ESCAPES]})
        hub.repos[MODEL].commit("main", changed)
        api.snapshot_download("user/child")
        hub.fail("GET", times=99)
        with pytest.raises(ValueError, match=r"user/child/config\.json") as raised:
            pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        assert_one_line(raised.value)
        assert list(tmp_path.glob("*back*")) == []

    def test_a_pull_says_that_there_is_code_of_others(self, hub, landed, api, tmp_path):
        said = str(pull(PullArguments("user/child", str(tmp_path / "ours")), api=api))
        assert "brings code" not in said
        hub.repos[MODEL].commit("main", files_of(hub) | {"modeling_nasbert.py": b"evil"})
        said = str(pull(PullArguments("user/child", str(tmp_path / "theirs")), api=api))
        assert "brings code that is not hf_nasbert's, to be read first: modeling_nasbert.py" in said

    def test_a_class_that_is_none_of_ours_is_no_line_to_copy(self, hub, landed, api, tmp_path):
        hub.repos[MODEL].commit("main", self.configure(files_of(hub), {"architectures": ["EvilForEverything"]}))
        said = str(pull(PullArguments("user/child", str(tmp_path / "back")), api=api))
        assert "Evil" not in said
        assert "to load it: AutoModel.from_pretrained(" in said

    def test_sizes_are_told(self, child, send):
        edit(child / "config.json", vocab_size=10**8, hidden_size=64_000, embedding_size=64_000)
        with pytest.raises(ValueError, match=r"some 7\.0e\+12 parameters .*vocab_size=100000000") as raised:
            send(child, dry_run=True)
        assert_one_line(raised.value, str(child))

    @pytest.mark.parametrize(
        "space",
        [
            None, [], {"stages": 5}, {"stages": []}, {"stages": [{"blocks": [[ESCAPES]], "widths": []}]},
            {"stages": [{"blocks": [["ffn", "attention"]] * 5000, "widths": []}]},
            {"stages": [{"blocks": [["ffn", "attention"]] * 500, "widths": list(range(64, 64_064, 32))}]},
        ],
    )  # fmt: skip
    def test_a_super_nets_space(self, made, send, tmp_path, space):
        from hf_nasbert.extraction import load_supernet

        folder = Path(shutil.copytree(made["supernet"], tmp_path / "supernet"))
        edit(folder / "config.json", search_space=space)
        for use in (lambda: send(folder, "user/supernet", dry_run=True), lambda: load_supernet(folder)):
            with pytest.raises(ValueError, match=r"config\.json") as raised:
                use()
            assert_one_line(raised.value, str(folder))

    def test_names_and_values_on_the_hub_are_escaped(self, hub, landed, send, made):
        names = {f"{ESCAPES}.md": b"", "\u202egnp.md": b""}
        hub.repos[MODEL].commit("main", self.configure(files_of(hub), {"hidden_act": ESCAPES}) | names)
        with pytest.raises(FileExistsError, match=r"hidden_act is \\x1b\[2J") as raised:
            send(made["child"], dry_run=True)
        assert_one_line(raised.value)
        said = str(send(made["child"], dry_run=True, overwrite=True))
        assert r"deleted  \x1b[2J\x1b]0;pwned\x07.md" in said
        assert CONTROLS.search(said) is None

    def test_what_a_server_says_is_escaped(self, hub, send, made):
        hub.fail("POST", times=99, status=403, message="\x1b[31mno\x9b")
        with pytest.raises(PermissionError, match="refused") as raised:
            send(made["child"])
        assert_one_line(raised.value)

    def test_answers_that_are_none(self, hub, landed, api, tmp_path):
        oid = hub.repos[MODEL].branches["main"]
        repo = hub.repos[MODEL]
        repo.commits["../../" + ESCAPES] = repo.commits[oid]
        repo.branches["main"] = "../../" + ESCAPES
        with pytest.raises(ConnectionError, match="answers in no way that the Hub does") as raised:
            pull(PullArguments("user/child", str(tmp_path / "back")), api=api)
        assert_one_line(raised.value)

    def test_a_pipe_is_no_file(self, send, child):
        (child / "README.md").unlink()
        os.mkfifo(child / "README.md")
        with pytest.raises(ValueError, match=r"README\.md is no regular file"):
            send(child, dry_run=True)

    def test_half_a_gzip_file(self, send, child):
        for content in (b"", b"no gzip", bytes.fromhex("1f8b08000000000000ff") + b"\x99" * 20):
            (child / "scores.jsonl.gz").write_bytes(content)
            if content:
                with pytest.raises(ValueError, match=r"scores\.jsonl\.gz is no whole gzip file"):
                    send(child, dry_run=True)


class TestCards:
    """What the Hub would refuse, told before anything is sent."""

    HEAD = {
        "license: Apache 2.0": "license is 'Apache 2.0'; expected .* did you mean apache-2.0",
        "license: GPLv3": "license is 'GPLv3'",
        "license: 5": "license is 5",
        "license: [mit, nonsense]": "license is",
        "license: {a: b}": "license is",
        "language: english": "language is 'english'; expected ISO 639",
        "language: [en, EN]": "language is",
        "language: en-US": "language is 'en-US'",
        "language: 5": "language is 5",
        "tags: not-a-list": "tags is 'not-a-list'; expected a list of texts",
        "tags: [a, 5]": "tags is",
        "tags: [[a]]": "tags is",
        "datasets: [null]": "datasets is",
        "datasets: a b": "datasets is",
        "metrics: accuracy": "metrics is",
        "base_model: 5": "base_model is",
        "pipeline_tag: Fill Mask": "pipeline_tag is 'Fill Mask'",
        "pipeline_tag: [fill-mask]": "pipeline_tag is",
        "library_name: [a]": "library_name is",
        "model-index: x": "model-index is 'x'",
        "model-index: [{name: x, results: [{task: 5}]}]": "model-index: ",
        "model-index: [{results: []}]": "model-index: ",
        "model-index: [{name: x, results: [{task: {type: t}, dataset: {name: d}, metrics: []}]}]": "model-index: ",
        "a: [": "metadata: no YAML",
        "a: &x [1]\nb: *x": "metadata: no YAML .*aliases",
        "- a": "metadata: a list; expected lines",
        "a: " + "[" * 5000: "metadata: no YAML",
        "license: mit\nlicense: mit": "metadata: no YAML .*twice",
    }  # fmt: skip

    @pytest.mark.parametrize(("head", "problem"), mostly_slow(HEAD.items(), 3), ids=[head[:30] for head in HEAD])
    def test_it_is_told(self, hub, send, child, head, problem):
        (child / "README.md").write_text(f"---\n{head}\n---\n# A card\n")
        for dry_run in (True, False):
            with pytest.raises(ValueError, match=rf"README\.md: {problem}") as raised:
                send(child, dry_run=dry_run)
            assert_one_line(raised.value, str(child), "the Hub would refuse the card")
        assert hub.requests == []

    def test_every_field_is_told(self, send, child):
        (child / "README.md").write_text("---\nlicense: Apache 2.0\nlanguage: english\ntags: not-a-list\n---\nx\n")
        with pytest.raises(ValueError, match=r"license is .*; language is .*; tags is "):
            send(child, dry_run=True)

    @pytest.mark.parametrize(
        "card",
        [
            "by hand", "", "---\n---\nx", "# A\n\n---\nlicense: Apache 2.0\n---\n", "\ufeff---\nlicense: mit\n---\nx",
            "---\r\nlicense: mit\r\nlanguage: no\r\n---\r\nx",  # Norwegian: YAML 1.1 would read false
            "---\nlicense: other\nlicense_name: mine\nlanguage: [en, deu, multilingual]\n---\nx",
            "---\nlicense: [mit, cc0-1.0]\nbase_model: a/b\ndatasets: imdb\ntags: []\nlanguage:\nat: 2020-01-01\n"
            "---\nx",
            "---\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {name: d, type: d}\n"
            "    metrics: [{type: m, value: 1}]\n---\nx",
        ],
    )  # fmt: skip
    def test_what_is_fine_is_let_through(self, send, child, card):
        (child / "README.md").write_text(card, newline="")
        assert send(child, dry_run=True).changes["README.md"] == "new"

    def test_a_card_that_is_no_text(self, send, child):
        (child / "README.md").write_bytes(b"\xff\xfe")
        with pytest.raises(ValueError, match=r"README\.md is not UTF-8"):
            send(child, dry_run=True)


def test_push_asks_for_trust_and_is_not_given_it():
    assert PushArguments("x", "user/child").trust_remote_code is False
