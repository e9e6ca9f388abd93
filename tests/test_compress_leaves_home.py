"""What a compression writes leaves home: sizes, card, prompts, longest texts, and a base model left as it is."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from sentence_transformers import SentenceTransformer
from tiny.bases import classifier_base, documents, save_base
from tiny.compressing import pairs, quiet_clock
from transformers import BertForSequenceClassification, BertModel

import hf_nasbert
from hf_nasbert.cards import check_card, metadata_problems, quoted_texts
from hf_nasbert.metrics import spearman
from hf_nasbert.modeling.sentence_dense import Dense
from hf_nasbert.modeling.sentence_transformer import SentenceModules, read_sentence_modules

assert pairs and quiet_clock  # fixtures  # noqa: PT018

# Settings under which recovery gains on these models, of vectors and of a classifier.
GAINS = {
    "max_parameters": "0.5x",
    "recovery_steps": 12,
    "learning_rate": 1e-4,
    "num_rescored": 6,
    "scorer": "inherited",
}
CLASSIFIER_GAINS = GAINS | {"scorer": "additive", "heads": [2], "ffn": [64]}


SMALL = {"recovery_steps": 20, "learning_rate": 2e-4, "batch_size": 16, "num_sentences": 320, "max_seq_length": 16}
SMALL |= {"latency_shape": "2x16", "scorer": "additive", "handmade": False}


def compress(base, folder, **settings):
    quick = SMALL | {"max_parameters": "0.3x"}
    return hf_nasbert.compress(base, documents(), output_dir=folder, **quick | settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
def test_the_table_says_how_large_the_files_are(base, tmp_path):
    result = compress(base, tmp_path / "small", handmade=True)
    file = result.folder / "model.safetensors"
    assert result.best.row.file_bytes == file.stat().st_size
    assert result.rows[0].file_bytes == (base / "model.safetensors").stat().st_size
    assert all(row.file_bytes > 4 * row.num_parameters for row in result.rows)
    share = result.best.row.file_bytes / result.rows[0].file_bytes
    assert f"{share:.1%} of the file's bytes" in str(result)
    texts = [str(result), (result.folder / "report.md").read_text(), (result.folder / "README.md").read_text()]
    for text in texts:
        assert "MB on disk" in text
        assert f"{result.rows[0].file_bytes / 1e6:.1f}" in text


@pytest.mark.slow
def test_the_five_lines_of_the_readme_run_as_they_stand(base, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^## Five lines of Python\n+```python\n(.*?)```$", page, re.DOTALL | re.MULTILINE)
    assert len(lines.split("\n\n", 1)[1].splitlines()) + 1 == 5
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("\n".join(documents()))
    really = hf_nasbert.compress

    def small(base_model, texts, max_latency):
        assert max_latency == "0.5x"  # parameters here: the clock is no part of a test
        return really(base, texts, output_dir="small", max_parameters=max_latency, **SMALL)

    monkeypatch.setattr(hf_nasbert, "compress", small)
    names = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert "max_parameters=0.5x" in str(names["result"])
    assert "<html" in Path("small.html").read_text()
    assert names["model"].num_parameters() == names["result"].best.row.num_parameters


@pytest.mark.slow
def test_the_card_names_base_model_and_results_and_its_lines_run(base, tmp_path, pairs, monkeypatch):
    classifier = classifier_base(tmp_path / "classifier")
    monkeypatch.chdir(tmp_path)
    for name, model, settings in (
        ("vectors", base, GAINS | {"pairs_file": str(pairs), "base_model_id": "owner/large"}),
        ("classes", classifier, CLASSIFIER_GAINS | {"seeds": [0, 1]}),
        ("states", save_base(tmp_path / "plain", modules=None), GAINS | {"base_model_id": "owner/large"}),
    ):
        folder = tmp_path / name
        result = compress(model, folder, **settings)
        card = (folder / "README.md").read_text()
        assert metadata_problems(card) == []
        data = check_card(card)
        expected = ("owner/large", "finetune") if name != "classes" else (None, None)
        assert (data.base_model, data.get("base_model_relation")) == expected
        found = {one.metric_type: one.metric_value for one in data.eval_results or []}
        row = result.best.row
        if name == "vectors":
            assert found == {
                "cosine_with_base_model": pytest.approx(row.mean("cosine"), abs=1e-6),
                "spearman_cosine": pytest.approx(row.mean("spearman"), abs=1e-6),
            }
            assert {"sentence-transformers", "sentence-similarity", "feature-extraction"} <= set(data.tags)
            assert [one.dataset_name for one in data.eval_results] == ["given in Python", "pairs.tsv"]
        elif name == "classes":
            assert found == {"agreement_with_base_model": pytest.approx(row.mean("agreement"), abs=1e-6)}
            assert data.eval_results[0].metric_name.endswith("(mean of 2 seeds)")
        else:
            assert (found, data.library_name) == ({}, "transformers")
        (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        (quoted,) = quoted_texts(card)
        assert quoted in " ".join(" ".join(documents()).split()), "a text of the user's own"
        names = {}
        exec(snippet.replace("path/to/this/folder", str(folder)), names)
        kind = {"vectors": SentenceTransformer, "classes": "ForSequenceClassification", "states": "Model"}[name]
        assert isinstance(names["model"], kind) if name == "vectors" else type(names["model"]).__name__.endswith(kind)


@pytest.mark.slow
def test_a_default_prompt_stands_before_every_sentence_that_is_compared(tmp_path, pairs):
    """As the library itself encodes them, in a way of comparing that is not the usual one, some tokens not pooled."""
    modules = SentenceModules(
        ("lasttoken", "mean"), False, 16, prompts={"query": "a film", "other": "no"}, default_prompt_name="query",
        similarity="dot", include_prompt=False,
    )  # fmt: skip
    result = compress(
        save_base(tmp_path / "base", modules=modules), tmp_path / "small",
        pairs_file=str(pairs),
    )  # fmt: skip
    assert read_sentence_modules(tmp_path / "small") == modules
    firsts, seconds, scores = zip(*(line.split("\t") for line in pairs.read_text().splitlines()[1:]), strict=True)
    for folder, row in ((tmp_path / "base", result.rows[0]), (tmp_path / "small", result.best.row)):
        theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
        found = theirs.similarity_pairwise(theirs.encode(list(firsts)), theirs.encode(list(seconds))).tolist()
        assert row.judged[0].spearman == pytest.approx(spearman(found, [float(one) for one in scores]), abs=1e-6)


def test_the_longest_text_is_kept_where_the_tokenizer_says_it(tmp_path):
    """Version 6 of sentence-transformers writes it there alone."""
    theirs = SentenceTransformer(str(save_base(tmp_path / "first")), device="cpu")
    theirs.save(str(tmp_path / "base"), create_model_card=False)
    assert "max_seq_length" not in (tmp_path / "base" / "sentence_bert_config.json").read_text()
    compress(tmp_path / "base", tmp_path / "small")
    assert SentenceTransformer(str(tmp_path / "small"), trust_remote_code=True, device="cpu").max_seq_length == 20


@pytest.mark.slow
def test_an_old_sentence_transformer_is_found_in_its_subfolder_and_its_layer_is_kept(tmp_path, pairs):
    """As versions before 2 wrote it: encoder and tokenizer in 0_Transformer, and a Dense behind the pooling."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(32, 8)
    weights = {f"linear.{name}": tensor.detach() for name, tensor in linear.named_parameters()}
    dense = Dense(32, 8, bias=True, activation_function="torch.nn.modules.activation.Tanh", weights=save(weights))
    modules = SentenceModules(("mean",), True, 16, dense=dense)
    base = save_base(tmp_path / "base", modules=modules)
    (base / "0_Transformer").mkdir()
    for path in list(base.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(base / "0_Transformer" / path.name)
    entries = json.loads((base / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (base / "modules.json").write_text(json.dumps(entries))
    (base / "config.json").write_text('{"__version__": "0.3.6"}')
    result = compress(base, tmp_path / "small", pairs_file=str(pairs))
    assert read_sentence_modules(tmp_path / "small") == modules
    assert not (tmp_path / "small" / "0_Transformer").exists()
    assert result.rows[0].file_bytes == (base / "0_Transformer" / "model.safetensors").stat().st_size
    firsts, seconds, scores = zip(*(line.split("\t") for line in pairs.read_text().splitlines()[1:]), strict=True)
    for folder, row in ((base, result.rows[0]), (tmp_path / "small", result.best.row)):
        theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
        vectors = theirs.encode(list(firsts))
        assert vectors.shape[1] == 8
        found = theirs.similarity_pairwise(vectors, theirs.encode(list(seconds))).tolist()
        assert row.judged[0].spearman == pytest.approx(spearman(found, [float(one) for one in scores]), abs=1e-6)


def everything(folder):
    """Names, bytes and times of a folder's files and folders: a file that came and went changes a folder's time."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return [
        (str(path.relative_to(folder)), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    ]


@pytest.mark.slow
@pytest.mark.parametrize("head", [BertModel, BertForSequenceClassification])
def test_nothing_is_ever_written_into_the_base_models_folder(head, tmp_path, pairs):
    """A folder that nobody may write to, where that binds; by name from within it, too."""
    folder = save_base(tmp_path / "base", head)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)
    before = everything(folder)
    try:
        asked = GAINS | {
            "scorer": "supernet",
            "supernet_steps": 2,
            "max_replace_one_loss": 1e3,
            "pairs_file": str(pairs),
        }
        compress(folder, tmp_path / "small", handmade=True, **(asked if head is BertModel else CLASSIFIER_GAINS))
        assert everything(folder) == before
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
