"""Every training method runs by its name: on the quickstart's space, and on a base model made elastic."""

from itertools import product

import pytest
from helpers import mostly_slow, run_recipe
from tiny.bases import documents, save_base
from tiny.distilling import make_taught_trainer, supernet_and_teacher
from tiny.models import tiny_supernet
from torch import nn
from transformers import BertForMaskedLM, BertModel

from hf_nasbert.data import train_tokenizer
from hf_nasbert.extraction import load_supernet
from hf_nasbert.methods import METHODS, TrainingMethod
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.modeling.layout_names import LAYOUT_NAMES
from hf_nasbert.records import read
from hf_nasbert.training import SupernetTrainingArguments
from hf_nasbert.training.suitable import check_combination, make_method


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Documents, a tokenizer trained on them and a base model: what all methods here train on."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("\n".join(documents(200)) + "\n")
    train_tokenizer(documents(200), vocab_size=120).save_pretrained(folder / "tokenizer")
    save_base(folder / "base", BertForMaskedLM)
    return folder


def train(text, output_dir, method, **settings):
    """A few steps by the command; the super-net and the log's lines."""
    given = {
        "train_files": text / "text.txt", "cache_dir": text / "cache", "max_seq_length": 16, "output_dir": output_dir,
        "method": method, "max_steps": 4, "save_steps": 4, "logging_steps": 1, "per_device_train_batch_size": 4,
        "num_eval_batches": 2, "num_eval_children": 1, "use_cpu": "true", "disable_tqdm": "true", "report_to": "none",
        **settings,
    }  # fmt: skip
    run_recipe("pretrain_supernet", *(word for name, value in given.items() for word in (f"--{name}", value)))
    return load_supernet(output_dir, None), list(read(output_dir / "train_log.jsonl"))


@pytest.mark.parametrize("method", mostly_slow(METHODS, 10))
def test_it_trains_the_space_of_the_quickstart(tmp_path, text, method):
    supernet, log = train(
        text, tmp_path / "run", method, preset="quickstart", hidden_size=32, tokenizer_name=text / "tokenizer"
    )
    assert supernet.space == SupernetConfig.preset("quickstart").space
    assert [line["step"] for line in log if line["event"] == "train"] == [1, 2, 3, 4]
    assert log[0]["arguments"]["method"] == method


@pytest.mark.parametrize("method", mostly_slow(METHODS, 10))
def test_it_trains_a_base_model_made_elastic(tmp_path, text, method):
    own = {} if METHODS[method].can_be_taught else {"teacher": "none"}
    supernet, log = train(text, tmp_path / "run", method, base_model=text / "base", **own)
    assert type(supernet).__name__ == "SupernetForMaskedLM"
    assert [line["step"] for line in log if line["event"] == "train"] == [1, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in log if line["event"] == "train"), "nothing was learnt"
    assert all(weight.isfinite().all() for weight in supernet.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_base_model_without_its_teacher_learns_the_same_over_micro_batches(tmp_path, method):
    """Two steps from labels, each of one batch of four rows or of two micro-batches of two."""
    found = []
    for size in (4, 2):
        trainer = make_taught_trainer(
            tmp_path / str(size), head=BertForMaskedLM, method=method, teacher="none", max_steps=2, logging_steps=1,
            per_device_train_batch_size=size, gradient_accumulation_steps=4 // size,
            mixed_precision="no",
        )  # fmt: skip
        for module in trainer.supernet.modules():  # it draws by the micro-batch
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        trainer.train()
        log = [line for line in read(tmp_path / str(size) / "train_log.jsonl") if line["event"] == "train"]
        assert all(line["grad_norm"] > 0 for line in log), "nothing was learnt"
        found.append([(line["step"], line["architecture"], line["loss"], line["grad_norm"]) for line in log])
    (_, *whole), (_, *parts) = zip(*found[0], strict=True), zip(*found[1], strict=True)
    assert whole[0] == parts[0], "other children"
    assert [list(one) for one in parts[1:]] == [pytest.approx(one, rel=1e-3) for one in whole[1:]]


@pytest.fixture(scope="module")
def supernets():
    """Tiny super-nets by what they are made of, with their heads, and whether a base model is there."""
    found = {layout: (tiny_supernet("chain", weight_layout=layout), False) for layout in LAYOUT_NAMES}
    heads = {"base model": BertForMaskedLM, "base model without a head": BertModel}
    return found | {name: (supernet_and_teacher(head)[0], True) for name, head in heads.items()}


def overrides(method, hook):
    return getattr(METHODS[method], hook) is not getattr(TrainingMethod, hook)


@pytest.mark.parametrize("method", mostly_slow(METHODS, 3))
def test_every_combination_passes_or_is_refused_in_one_line_that_names_why(method, supernets, monkeypatch):
    """Method x layout or base model x teacher x precision x rate x launch, by the check before all training."""
    kind, num_refused = METHODS[method], 0
    for (name, (supernet, has_base)), launch in product(supernets.items(), ("ddp", "fsdp")):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", str(launch == "fsdp"))
        for teacher, precision, rate in product(
            ("none", "base_model", "full_child") if has_base else ("none",),
            ("no", "fp16"),
            ("linear", "constant_with_warmup"),
        ):
            arguments = SupernetTrainingArguments(
                output_dir="x", method=method, teacher=teacher, mixed_precision=precision, lr_scheduler_type=rate
            )
            reasons = {
                "no head that predicts masked words": name.endswith("without a head") and teacher == "none",
                "needs whole operators": launch == "fsdp" and not kind.can_be_sharded,
                "has a teacher of its own": teacher != "none" and not kind.can_be_taught,
                "decides how fast the learning rate falls": rate != "linear" and overrides(method, "decay_exponent"),
                "reads gradients": (launch == "fsdp" or precision == "fp16") and overrides(method, "read_gradients"),
                "is not sharded": launch == "fsdp" and has_base,
            }
            message = None
            try:
                check_combination(make_method(supernet, arguments), supernet, arguments, has_base_model=has_base)
            except ValueError as error:
                message = str(error)
            if not any(reasons.values()):
                assert message is None, (name, launch, arguments)
                continue
            num_refused += 1
            assert message is not None, (name, launch, arguments)
            assert any(words in message for words, is_so in reasons.items() if is_so), message
            assert "\n" not in message
            assert any(flag in message for flag in (f"method={method}", "teacher=", "base_model", "multi_gpu.yaml"))
    assert num_refused


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.can_be_taught])
def test_a_teacher_beside_its_own_is_refused(tmp_path, text, method, monkeypatch):
    monkeypatch.setattr("hf_nasbert.training.pretrain.refit", lambda *_: pytest.fail("refitted for nothing"))
    with pytest.raises(SystemExit) as ended:
        train(text, tmp_path / "run", method, base_model=text / "base", refit="true")
    assert f"method={method} has a teacher of its own, and here another one teaches" in str(ended.value)
    assert not list((tmp_path / "run").glob("**/*.safetensors"))
