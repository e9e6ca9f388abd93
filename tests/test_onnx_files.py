"""`hf-nasbert compress --onnx --int8`: files that others find, a gate by real answers, a table of what is kept."""

import dataclasses
import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy
import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.backend.utils import backend_should_export
from tiny.bases import MODULES, classifier_base, documents, save_base
from tiny.compressing import pairs, quiet_clock
from tiny.models import chain_config, random_model
from tiny.texts import WORDS, tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel

import hf_nasbert
from hf_nasbert import cli
from hf_nasbert.child_folders import save_child
from hf_nasbert.compression import onnx_files
from hf_nasbert.compression.onnx_files import (
    INT8,
    INT8_FILE,
    ONNX,
    ONNX_FILE,
    TORCH,
    Answers,
    Kept,
    OnnxFiles,
    Runtime,
    check_int8,
    kept_of,
    runtime_cells,
    torch_run,
)
from hf_nasbert.hub.contents import MODEL_FILE, gather
from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForTokenClassification,
    NasBertModel,
)
from hf_nasbert.modeling.sentence_transformer import SentenceModules

HALF = {
    "max_parameters": "0.5x", "recovery_steps": 12, "learning_rate": 1e-4, "batch_size": 16, "num_sentences": 320,
    "max_seq_length": 16, "latency_shape": "2x16", "num_rescored": 6, "handmade": False,
}  # fmt: skip

assert pairs and quiet_clock  # fixtures  # noqa: PT018


@pytest.fixture(autouse=True)
def short_timing_runs(monkeypatch):
    monkeypatch.setattr(onnx_files, "_SECONDS_OF_A_TIMING_RUN", 0.1)


def files_of(model, folder):
    """The ONNX files of a model that lies in a folder, of a compression that is at this stage."""
    save_child(model, tiny_tokenizer(), folder)
    materials = SimpleNamespace(
        judging=documents(64), max_length=16, modules=SentenceModules(), work=folder / "work",
        arguments=SimpleNamespace(shape=(2, 16), pairs_file=None, batch_size=16, trust_remote_code=False),
    )  # fmt: skip
    return OnnxFiles(materials, folder, lambda: model)


def onnx_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "onnx").glob("*"))


# What is compared, without any file


def test_what_is_kept_of_vectors_labels_and_numbers():
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert kept_of(vectors, 3 * vectors) == Kept(cosine=pytest.approx(1), neighbours=1.0)
    turned = vectors[[0, 3, 2, 1]]  # the second and the last have changed places
    assert kept_of(vectors, turned).neighbours == 0.0
    assert kept_of(vectors, turned).cosine == pytest.approx((1 + 1 + 2 * 0.18 / 0.82) / 4)
    labels = torch.tensor([0, 1, 2, 2])
    assert kept_of(labels, torch.tensor([0, 1, 2, 0])) == Kept(agreement=0.75)
    numbers = torch.tensor([0.1, 0.2, 0.3])
    assert kept_of(numbers, torch.tensor([1.0, 3.0, 2.0])) == Kept(correlation=pytest.approx(0.5))


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (Kept(cosine=0.9799, neighbours=1.0), r"mean cosine of its sentence vectors .* is 0\.9799 .* 0\.98 is the"),
        (Kept(cosine=float("nan"), neighbours=1.0), "is nan"),
        (Kept(agreement=0.9499), r"share of its predictions .* is 0\.9499 .* 0\.95 is the least"),
        (Kept(correlation=-1.0), r"rank correlation of its predictions .* is -1\.0000"),
    ],
)
def test_int8_that_keeps_too_little_is_refused_in_one_line_that_says_what_was_measured(kept, told):
    with pytest.raises(ValueError, match=told) as caught:
        check_int8(kept)
    assert "\n" not in str(caught.value)
    check_int8(Kept(cosine=0.98, neighbours=0.0))
    check_int8(Kept(agreement=0.95))


def test_padding_is_no_prediction_and_heads_are_compared_by_what_they_predict():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": mask}
    wild = torch.tensor([[0.0, 1.0, 9.0], [3.0, 1.0, 2.0]])

    def asked(config=None, **outputs):
        found = Answers([batch], SentenceModules(), 0, SimpleNamespace(**config or {}))(lambda batch: outputs)
        return found.tolist()

    assert asked(start_logits=wild, end_logits=-wild) == [1, 0, 0, 1]
    assert asked(logits=torch.stack([wild, 1 - wild], dim=-1)) == [1, 0, 0, 0, 0]
    assert asked(logits=wild) == [2, 0]
    assert asked({"problem_type": "multi_label_classification"}, logits=wild - 1.5) == [0, 0, 1, 1, 0, 1]
    assert asked(logits=wild[:, :1]) == [0.0, 3.0]
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[1.0], [2.0], [3.0]]])
    assert asked(last_hidden_state=states) == [[2.0], [2.0]]


def test_the_table_has_a_column_for_what_was_measured_and_a_budget_where_there_are_several():
    row = Runtime("0.5x", ONNX, ONNX_FILE, 2_000_000, Kept(agreement=0.97), None, 1.234, 20.0)
    assert runtime_cells([row], (32, 128)) == [
        ["run by", "file", "MB", "predictions as torch", "ms 1x128", "ms 32x128"],
        ["onnxruntime", "onnx/model.onnx", "2.0", "0.9700", "1.23", "20.0"],
    ]
    assert runtime_cells([row, dataclasses.replace(row, budget="0.3x")], (32, 128))[0][0] == "budget"
    assert Runtime.from_dict(json.loads(json.dumps(dataclasses.asdict(row)))) == row


def test_a_missing_package_is_told_at_the_start_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    (tmp_path / "text.txt").write_text("A film.\n")
    argv = ["compress", "--base_model", str(tmp_path), "--train_files", str(tmp_path / "text.txt"), "--int8"]
    argv += ["--max_parameters", "0.5x", "--output_dir", str(tmp_path / "small")]
    with pytest.raises(SystemExit, match=r'hf-nasbert compress: .*onnxruntime.* pip install "hf_nasbert\[onnx\]"'):
        cli.main(argv)
    assert not (tmp_path / "small").exists()


def test_a_push_takes_the_files_along_and_a_new_model_in_the_folder_takes_them_away(tmp_path):
    model, tokenizer = random_model(NasBertForMaskedLM, chain_config(("ffn",))), tiny_tokenizer()
    folder = save_child(model, tokenizer, tmp_path / "model")
    (folder / "onnx").mkdir()
    for file in (ONNX_FILE, INT8_FILE, "onnx/model.onnx.data", "onnx/other.onnx"):
        (folder / file).write_bytes(b"a graph")
    found = gather(folder, "me/mine").files
    assert [name for name in found if name.startswith("onnx/")] == [ONNX_FILE, INT8_FILE]
    assert all(MODEL_FILE.fullmatch(file) for file in (ONNX_FILE, INT8_FILE))  # a push replaces those that are there
    save_child(model, tokenizer, folder, overwrite=True)
    assert not (folder / "onnx").exists()


# Real files


def spoil_int8_(model: BertModel) -> BertModel:
    """Give every layer a neuron and an attention output that are huge and that nothing reads.

    The model computes what it did; the one scale of what runs through a layer in int8 leaves nothing of the others.
    """
    with torch.no_grad():
        for layer in model.encoder.layer:
            for before, after in (
                (layer.attention.self.value, layer.attention.output.dense),
                (layer.intermediate.dense, layer.output.dense),
            ):
                before.bias[0] = 1e5
                after.weight[:, 0] = 0
    return model


def tiny_bert(head=BertModel, seed=0, **fields):
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24, **fields,
    )  # fmt: skip
    return random_model(head, config, seed)


def test_the_gate_stands_before_the_file_is_in_its_place(tmp_path, monkeypatch):
    """Without the exporter: what the file answers is another model's, then the model's own."""
    model, other = tiny_bert(), tiny_bert(seed=1)
    files = files_of(model, tmp_path / "model")
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / ONNX_FILE).write_bytes(b"a graph")
    monkeypatch.setattr(onnx_files, "quantise", lambda file, to: to.write_bytes(b"a graph in int8"))
    monkeypatch.setattr(onnx_files, "onnx_run", lambda file: torch_run(other))
    with pytest.raises(ValueError, match="int8 is too far from the model"):
        files.write_int8()
    assert onnx_of(tmp_path / "model") == [ONNX_FILE]
    monkeypatch.setattr(onnx_files, "onnx_run", lambda file: torch_run(model))
    assert files.write_int8().file == INT8_FILE
    assert onnx_of(tmp_path / "model") == [ONNX_FILE, INT8_FILE]


def test_every_file_is_timed_on_one_sequence_and_on_a_batch(tmp_path, monkeypatch):
    """Instead of its milliseconds each run gives its place and how many sequences it was given."""
    model = tiny_bert()
    files, run = files_of(model, tmp_path / "model"), torch_run(model)
    (tmp_path / "model" / "onnx").mkdir()
    for file in (ONNX_FILE, INT8_FILE):
        (tmp_path / "model" / file).write_bytes(b"a graph")
    monkeypatch.setattr(onnx_files, "onnx_run", lambda file: run)

    def by_turns(runs, clock):
        return [100.0 * place + len(next(iter(given().values()))) for place, given in enumerate(runs)]

    monkeypatch.setattr(onnx_files, "by_turns", by_turns)
    timed = {row.how: (row.latency_one_ms, row.latency_batch_ms) for row in files.measure("0.5x")}
    assert timed == {TORCH: (1.0, 2.0), ONNX: (101.0, 102.0), INT8: (201.0, 202.0)}


@pytest.mark.slow
def test_a_model_whose_int8_is_really_bad_stops_and_leaves_no_such_file(tmp_path):
    files = files_of(spoil_int8_(tiny_bert()), tmp_path / "model")
    assert files.write().file == ONNX_FILE
    with pytest.raises(ValueError, match=r"int8 is too far from the model: the mean cosine .* is 0\.\d{4}") as caught:
        files.write_int8()
    assert float(str(caught.value).split(" is ")[2][:6]) < 0.9
    assert onnx_of(tmp_path / "model") == [ONNX_FILE]
    assert not list((tmp_path / "model").glob(".*"))
    # Sanity check: the same model is well where no neuron is huge.
    files = files_of(tiny_bert(), tmp_path / "well")
    files.write()
    files.write_int8()
    assert onnx_of(tmp_path / "well") == [ONNX_FILE, INT8_FILE]
    torch_row, onnx_row, int8_row = files.measure("0.5x")
    assert [row.how for row in (torch_row, onnx_row, int8_row)] == [TORCH, ONNX, INT8]
    assert onnx_row.kept.cosine == pytest.approx(1, abs=1e-5)
    assert 0.98 <= int8_row.kept.cosine < 0.99999
    assert int8_row.num_bytes < onnx_row.num_bytes
    assert int8_row.latency_batch_ms > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "measured"),
    [
        (lambda: random_model(NasBertModel, chain_config(("conv3", "attention", "ffn"))), "cosine"),
        (lambda: random_model(NasBertForTokenClassification, chain_config(("ffn",), num_labels=3)), "agreement"),
        (lambda: random_model(NasBertForQuestionAnswering, chain_config(("attention", "ffn40"))), "agreement"),
        (lambda: tiny_bert(BertForSequenceClassification, num_labels=1), "correlation"),
    ],
    ids=["encoder", "tokens", "questions", "regression"],
)
def test_every_head_of_either_kind_of_model(make, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "LEAST_AGREEMENT", 0.8)  # random heads decide by little
    files = files_of(make(), tmp_path / "model")
    files.write()
    files.write_int8()
    torch_row, onnx_row, int8_row = files.measure("0.5x")
    assert {name for name, value in vars(onnx_row.kept).items() if value is not None} - {"neighbours"} == {measured}
    assert getattr(torch_row.kept, measured) == pytest.approx(1)
    assert getattr(onnx_row.kept, measured) == pytest.approx(1, abs=1e-2)
    assert getattr(int8_row.kept, measured) >= 0.8


# One compression with all files, and what becomes of its folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("small") / "small"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Graphs that were exported, by what they were made of."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def export_once(exported, monkeypatch):
    """A child of the same bits as an earlier one is given that one's graph: an export takes four seconds."""
    export = onnx_files.write_graph

    def write(model, file, **options):
        bits = hashlib.sha256(model.config.to_json_string().encode())
        for name, tensor in model.state_dict().items():
            bits.update(name.encode() + tensor.numpy().tobytes())
        kept = exported / f"{bits.hexdigest()}.onnx"
        if not kept.exists():
            export(model, file, **options)
            shutil.copyfile(file, kept)
        shutil.copyfile(kept, file)

    monkeypatch.setattr(onnx_files, "write_graph", write)


@pytest.fixture
def result(base, folder, pairs, export_once):
    """Made by the first test that asks, read again by the others."""
    return hf_nasbert.compress(base, documents(), output_dir=folder, int8=True, pairs_file=str(pairs), **HALF)


@pytest.mark.slow
def test_the_files_lie_where_sentence_transformers_looks_and_give_its_vectors(result, folder):
    assert onnx_of(folder) == [ONNX_FILE, INT8_FILE]
    for asked, file in (({}, ONNX_FILE), ({"file_name": INT8_FILE}, INT8_FILE)):
        is_exported, found = backend_should_export(folder, True, dict(asked), "model.onnx", "*.onnx", "ONNX")
        assert not is_exported
        assert f"{found['subfolder']}/{found['file_name']}" == file
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    texts = documents(8, seed=5)
    batch = model.tokenizer(texts, padding=True, truncation=True, max_length=20, return_tensors="np")
    feeds = {"token_type_ids": numpy.zeros_like(batch["input_ids"]), **batch}
    expected = torch.from_numpy(model.encode(texts))
    for file, least in ((ONNX_FILE, 0.99999), (INT8_FILE, 0.97)):
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        states = torch.from_numpy(session.run(["last_hidden_state"], feeds)[0])
        vectors = MODULES.pool(states, torch.from_numpy(batch["attention_mask"]))
        assert float(torch.nn.functional.cosine_similarity(vectors, expected).min()) >= least


@pytest.mark.slow
def test_terminal_report_card_and_summary_say_the_same(result, folder):
    assert [row.how for row in result.runtimes] == [TORCH, ONNX, INT8]
    torch_row, onnx_row, int8_row = result.runtimes
    assert onnx_row.spearman == pytest.approx(torch_row.spearman, abs=0.02)
    assert torch_row.spearman == pytest.approx(result.best.row.judged[0].spearman, abs=1e-6)
    told = [f"{int8_row.kept.cosine:.4f}", f"{int8_row.spearman:.4f}", INT8_FILE, "nearest sentence kept"]
    page = result.report(folder.parent / "small.html").read_text()
    for text in (str(result), page, (folder / "report.md").read_text(), (folder / "README.md").read_text()):
        assert all(one in text.replace("\\_", "_") for one in told)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["runtimes"] == json.loads(json.dumps([dataclasses.asdict(row) for row in result.runtimes]))
    stages = [stage["stage"].split()[0] for stage in result.stages]
    assert stages[-4:] == ["folder", "onnx", "int8", "runtimes"]
    assert (folder / "README.md").read_text().count('backend="onnx"') == 1


@pytest.mark.slow
def test_a_finished_run_is_read_again_and_a_deleted_file_made_again(result, base, folder, pairs, monkeypatch):
    again = {"output_dir": folder, "pairs_file": str(pairs), **HALF}
    before = {file: (folder / file).read_bytes() for file in (ONNX_FILE, INT8_FILE)}
    with monkeypatch.context() as patch:
        patch.setattr(OnnxFiles, "measure", None)
        assert hf_nasbert.compress(base, documents(), int8=True, **again).runtimes == result.runtimes
        assert hf_nasbert.compress(base, documents(), **again).runtimes == ()
    (folder / INT8_FILE).unlink()
    result = hf_nasbert.compress(base, documents(), int8=True, **again)
    assert [row.how for row in result.runtimes] == [TORCH, ONNX, INT8]
    assert {file: (folder / file).read_bytes() for file in before} == before


@pytest.mark.slow
def test_a_refused_int8_leaves_a_finished_compression(base, tmp_path, monkeypatch, export_once):
    again = {"output_dir": tmp_path / "small", **HALF}
    with monkeypatch.context() as patch:
        patch.setattr(onnx_files, "LEAST_COSINE", 1.1)
        with pytest.raises(ValueError, match=r"int8 is too far .* 1\.1 is the least"):
            hf_nasbert.compress(base, documents(), int8=True, **again)
    assert onnx_of(tmp_path / "small") == [ONNX_FILE]
    assert (tmp_path / "small" / "report.md").is_file()
    result = hf_nasbert.compress(base, documents(), onnx=True, **again)
    assert [row.how for row in result.runtimes] == [TORCH, ONNX]
    assert not (tmp_path / "small" / "work").exists()
    result = hf_nasbert.compress(base, documents(), int8=True, **again)
    assert [row.how for row in result.runtimes] == [TORCH, ONNX, INT8]


@pytest.mark.slow
def test_a_kill_in_any_stage_leaves_nothing_half_written(base, tmp_path, monkeypatch, export_once):
    class Killed(BaseException):
        pass

    again = {"output_dir": tmp_path / "small", "int8": True, **HALF}
    for stage in ("write_graph", "quantise", "check_int8", "by_turns"):
        made = getattr(onnx_files, stage)

        def kill(*arguments, made=made, stage=stage, **options):
            if stage in ("write_graph", "quantise"):  # what was written is not in its place yet
                made(*arguments, **options)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(onnx_files, stage, kill)
            with pytest.raises(Killed):
                hf_nasbert.compress(base, documents(), **again)
        there = {"write_graph": [], "by_turns": [ONNX_FILE, INT8_FILE]}.get(stage, [ONNX_FILE])
        assert onnx_of(tmp_path / "small") == there
    result = hf_nasbert.compress(base, documents(), **again)
    assert [row.how for row in result.runtimes] == [TORCH, ONNX, INT8]


@pytest.mark.slow
def test_a_family_has_files_of_its_own_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "LEAST_AGREEMENT", 0.5)
    settings = {name: value for name, value in HALF.items() if name != "max_parameters"}
    result = hf_nasbert.compress(
        classifier_base(tmp_path / "base"), documents(), output_dir=tmp_path / "family", budgets=["0.5x", "0.3x"],
        int8=True, **settings,
    )  # fmt: skip
    assert [row.budget for row in result.runtimes] == ["0.5x"] * 3 + ["0.3x"] * 3
    for one in result.front:
        assert onnx_of(one.folder) == [ONNX_FILE, INT8_FILE]
        card = (one.folder / "README.md").read_text()
        assert INT8_FILE in card.replace("\\_", "_")
        assert "backend=" not in card
