"""ONNX: equal to the model for every operator, head, batch, length and padding; written whole or not at all."""

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import run_recipe
from tiny.models import KINDS, chain_config, chain_supernet_config, inputs_for, random_model, staged_config, tiny_batch
from tiny.texts import tiny_tokenizer
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

from hf_nasbert import cli
from hf_nasbert.child_folders import save_child
from hf_nasbert.export import INPUTS, ExportArguments, export_child, export_onnx
from hf_nasbert.export.onnx import _Graph
from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForSequenceClassification,
    NasBertModel,
    SupernetForMaskedLM,
)


def run(file, batch) -> dict[str, torch.Tensor]:
    """What onnxruntime makes of a batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == list(INPUTS)
    names = [node.name for node in session.get_outputs()]
    found = session.run(names, {name: batch[name].numpy() for name in INPUTS})
    return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}


def assert_same(file, model, lengths):
    for side in ("right", "left"):
        batch = inputs_for(type(model), tiny_batch(lengths, padding_side=side))
        batch.pop("position_ids", None)  # a graph counts positions from the left, as the model does by default
        with torch.no_grad():
            expected = dict(model(**batch))
        found = run(file, batch)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].shape == tensor.shape
            assert (found[name] - tensor).abs().max() <= 1e-4, (name, lengths, side)


@pytest.mark.slow
def test_every_operator_at_every_shape(tmp_path, capsys):
    """The recipe, on a masked-LM child of all kinds of operators."""
    child = random_model(NasBertForMaskedLM, chain_config(KINDS))
    save_child(child, tiny_tokenizer(), tmp_path / "child")
    run_recipe("export_onnx", "--model", tmp_path / "child", "--output_dir", tmp_path / "onnx")
    said = capsys.readouterr().out
    assert "input_ids, attention_mask, token_type_ids to logits, any batch and length; equal in onnxruntime" in said
    for lengths in ((12, 9, 5), (17, 3, 9, 16), (1,), (24, 1), (2,) * 9):
        assert_same(tmp_path / "onnx" / "model.onnx", child, lengths)
    assert AutoTokenizer.from_pretrained(tmp_path / "onnx").mask_token == "[MASK]"
    assert not list((tmp_path / "onnx").glob("*.safetensors"))
    # Sanity check: the comparison would see other weights.
    other = random_model(NasBertForMaskedLM, chain_config(KINDS), seed=1)
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "onnx" / "model.onnx", other, (12, 9))


@pytest.mark.slow
def test_the_command_loads_a_child_in_a_process_that_made_none(tmp_path):
    """Where nothing has registered the children's classes yet, transformers would ask for `trust_remote_code`."""
    child = random_model(NasBertForMaskedLM, chain_config(("conv3",)))
    save_child(child, tiny_tokenizer(), tmp_path / "child")
    folder = tmp_path / "the child's onnx"
    argv = ["export", "--model", str(tmp_path / "child"), "--output_dir", str(folder)]
    ran = subprocess.run([sys.executable, "-m", "hf_nasbert", *argv], capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (folder / "model.onnx").is_file()
    # The command that it ends with runs the file, as it was printed.
    python, *code = shlex.split(ran.stdout.rstrip().splitlines()[-1])
    assert python == "python"
    told = subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=250)
    num_tokens = len(tiny_tokenizer()("a text")["input_ids"])
    assert told.stdout == f"[(1, {num_tokens}, {child.config.vocab_size})]\n", told.stderr[-2000:]


@pytest.mark.slow
def test_a_classifier_of_several_widths_in_half_precision(tmp_path):
    """A fine-tuned head, a staged child with factorised embeddings, on a model that trains on afterwards."""
    model = random_model(NasBertForSequenceClassification, staged_config(num_labels=3)).to(torch.bfloat16).train()
    model.set_attn_implementation("eager")
    exported = export_onnx(model, tiny_tokenizer(), tmp_path / "onnx")
    assert exported.outputs == ("logits",)
    assert model.training
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    for lengths in ((12, 9, 5), (1,), (24, 3)):
        assert_same(exported.file, random_like(model), lengths)


def random_like(model):
    """The same weights in float32, in evaluation mode."""
    twin = type(model)(model.config).eval()
    twin.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    return twin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "outputs"),
    [(NasBertForMultipleChoice, ("logits",)), (NasBertModel, ("last_hidden_state", "pooler_output"))],
    ids=["choices", "encoder"],
)
def test_other_shapes_of_input_and_output(head, outputs, tmp_path):
    model = random_model(head, chain_config(("conv3", "attention")))
    exported = export_onnx(model, tiny_tokenizer(), tmp_path / "onnx")
    assert exported.outputs == outputs
    assert_same(exported.file, model, (12, 9, 5))
    assert_same(exported.file, model, (7,))


class TestRefusals:
    """Before the slow part: these take no exporter."""

    @pytest.fixture
    def quick(self, monkeypatch):
        """An exporter that writes an empty file, and a runtime that answers what the model says, plus `error`."""
        state = SimpleNamespace(error=0.0, graph=None)

        def write(graph, file):
            state.graph = graph
            file.write_bytes(b"")

        class Session:
            def __init__(self, file, providers):
                pass

            def run(self, names, feeds):
                with torch.no_grad():
                    found = state.graph(*(torch.from_numpy(feeds[name]) for name in INPUTS))
                return [(tensor + state.error).numpy() for tensor in found]

        monkeypatch.setattr(_Graph, "write", write)
        monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
        monkeypatch.setattr("hf_nasbert.export.onnx.check_extra", lambda *_: None)
        return state

    @pytest.fixture
    def child(self):
        return random_model(NasBertForMaskedLM, chain_config(("attention", "conv3")))

    def test_what_is_not_equal_is_not_written(self, quick, child, tmp_path):
        assert export_onnx(child, tiny_tokenizer(), tmp_path / "fine").max_difference == 0
        for error in (2e-4, float("nan")):
            quick.error = error
            with pytest.raises(ValueError, match=r"logits of the exported model differs .* nothing is written"):
                export_onnx(child, tiny_tokenizer(), tmp_path / "wrong")
        assert [path.name for path in tmp_path.iterdir()] == ["fine"]
        quick.error = 2e-4
        assert export_onnx(child, tiny_tokenizer(), tmp_path / "b" / "c", tolerance=float("inf")).file.is_file()

    def test_nothing_that_is_there_is_touched(self, quick, child, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        for folder in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
            with pytest.raises(FileExistsError, match="name a new folder"):
                export_onnx(child, tiny_tokenizer(), folder)
        (tmp_path / "empty").mkdir()
        assert export_onnx(child, tiny_tokenizer(), tmp_path / "empty").file.parent == (tmp_path / "empty").resolve()

    def test_a_super_net_is_no_child(self, quick, tmp_path):
        with pytest.raises(ValueError, match="extract one first"):
            export_onnx(SupernetForMaskedLM(chain_supernet_config()), tiny_tokenizer(), tmp_path / "x")

    def test_a_folder_is_loaded_as_the_class_it_was_saved_as(self, quick, tmp_path):
        bert = BertForTokenClassification(
            BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=1, num_labels=5)
        )
        save_child(bert, tiny_tokenizer(), tmp_path / "bert")
        export_child(ExportArguments(model=str(tmp_path / "bert"), output_dir=str(tmp_path / "a")))
        assert type(quick.graph.model) is BertForTokenClassification
        child = random_model(NasBertForSequenceClassification, chain_config(("ffn",), num_labels=4))
        save_child(child, tiny_tokenizer(), tmp_path / "child")
        export_child(ExportArguments(model=str(tmp_path / "child"), output_dir=str(tmp_path / "b")))
        assert type(quick.graph.model) is NasBertForSequenceClassification

    def test_a_head_that_was_never_trained_is_refused(self, quick, child, tmp_path):
        """transformers fills it with random numbers, and these would be exported, equal to themselves."""
        save_child(child, tiny_tokenizer(), tmp_path / "child")
        config = json.loads((tmp_path / "child" / "config.json").read_text())
        config["architectures"] = ["NasBertForTokenClassification"]
        (tmp_path / "child" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"lacks 2 weights of the NasBertForToken.*such as classifier\.bias"):
            export_child(ExportArguments(model=str(tmp_path / "child"), output_dir=str(tmp_path / "o")))
        assert not (tmp_path / "o").exists()

    def test_a_missing_extra_ends_the_command_in_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else name)
        argv = ["export", "--model", "x", "--output_dir", str(tmp_path / "o")]
        with pytest.raises(SystemExit, match=r'hf-nasbert export: .* pip install "hf_nasbert\[onnx\]"'):
            cli.main(argv)

    def test_a_missing_model_ends_the_command_in_one_line(self, quick, tmp_path):
        argv = ["export", "--model", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "o")]
        with pytest.raises(SystemExit, match=r"hf-nasbert export: .*nowhere"):
            cli.main(argv)
