"""Every training method runs by its name: on the quickstart's space, and on a base model made elastic."""

import pytest
from helpers import mostly_slow, run_recipe
from tiny.bases import documents, save_base
from transformers import BertForMaskedLM

from hf_nasbert.data import train_tokenizer
from hf_nasbert.extraction import load_supernet
from hf_nasbert.methods import METHODS
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.records import read


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


@pytest.mark.parametrize("method", mostly_slow(METHODS, 5))
def test_it_trains_the_space_of_the_quickstart(tmp_path, text, method):
    supernet, log = train(
        text, tmp_path / "run", method, preset="quickstart", hidden_size=32, tokenizer_name=text / "tokenizer"
    )
    assert supernet.space == SupernetConfig.preset("quickstart").space
    assert [line["step"] for line in log if line["event"] == "train"] == [1, 2, 3, 4]
    assert log[0]["arguments"]["method"] == method


@pytest.mark.parametrize("method", mostly_slow(METHODS, 5))
def test_it_trains_a_base_model_made_elastic(tmp_path, text, method):
    own = {} if METHODS[method].can_be_taught else {"teacher": "none"}
    supernet, log = train(text, tmp_path / "run", method, base_model=text / "base", **own)
    assert type(supernet).__name__ == "SupernetForMaskedLM"
    assert [line["step"] for line in log if line["event"] == "train"] == [1, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in log if line["event"] == "train"), "nothing was learnt"
    assert all(weight.isfinite().all() for weight in supernet.state_dict().values())


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.can_be_taught])
def test_a_teacher_beside_its_own_is_refused(tmp_path, text, method, capsys):
    with pytest.raises(SystemExit) as ended:
        train(text, tmp_path / "run", method, base_model=text / "base")
    assert f"method={method} has a teacher of its own, and here another one teaches" in str(ended.value)
    assert not list((tmp_path / "run").glob("**/*.safetensors"))
