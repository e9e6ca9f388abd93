"""`hf-nasbert compress --train_file`: the whole way with labelled examples, labels in training, refusals."""

import copy
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny.bases import classifier_base, documents, label_by, save_base, write_csv
from tiny.compress import batches, elastic, full_child, targets
from tiny.compressing import quiet_clock, stop_the_clock
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

import hf_nasbert
from hf_nasbert import cli
from hf_nasbert.cards import check_card
from hf_nasbert.compression import CompressArguments, CompressDataArguments
from hf_nasbert.compression.recover import RecoverySettings, distil_supernet, recover
from hf_nasbert.compression.run import Compression
from hf_nasbert.compression.sentences import LABELS
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.finetuning import load_files

SETTINGS = {
    "recovery_steps": 8, "learning_rate": 1e-4, "batch_size": 16, "max_seq_length": 24, "latency_shape": "2x16",
    "num_rescored": 6, "max_parameters": "0.5x",
}  # fmt: skip
NAMES = ("bad", "good", "long")
assert quiet_clock  # a fixture


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A classifier that calls texts by all its three labels."""
    folder = classifier_base(tmp_path_factory.mktemp("base"))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(documents(200, seed=8), padding=True, return_tensors="pt")).logits
        scale = logits.std(0).mean() / logits.std(0)
        model.classifier.weight *= scale[:, None]
        model.classifier.bias.copy_((model.classifier.bias - logits.mean(0)) * scale)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(base):
    return label_by(base, documents(360, seed=3))


@pytest.fixture(scope="module")
def files(rows, tmp_path_factory):
    """Files to train on, to validate and to test by."""
    folder = tmp_path_factory.mktemp("files")
    parts = {"train": rows[:200], "validation": rows[200:280], "test": rows[280:]}
    return {f"{part}_file": write_csv(folder / f"{part}.csv", ("text", "label"), own) for part, own in parts.items()}


@pytest.fixture(scope="module")
def whole(base, files, tmp_path_factory):
    """One whole run by the command, and its output."""
    patch = pytest.MonkeyPatch()
    stop_the_clock(patch)
    folder = tmp_path_factory.mktemp("small") / "small"
    flags = [word for name, value in (SETTINGS | files).items() for word in (f"--{name}", str(value))]
    said = []
    patch.setattr(cli, "say", said.append)
    assert cli.main(["compress", "--base_model", str(base), "--output_dir", str(folder), *flags]) == 0
    patch.undo()
    return folder, said[0], CompressDataArguments(**files)


def accuracy(model, tokenizer, file):
    """By transformers alone."""
    lines = [line.split(",") for line in Path(file).read_text().splitlines()[1:]]
    inputs = tokenizer([text for text, _ in lines], padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs).logits.argmax(-1).tolist()
    return float(
        np.mean([model.config.id2label[place] == label for place, (_, label) in zip(found, lines, strict=True)])
    )


# The whole way


def test_the_table_tells_the_accuracy_that_the_models_have_on_the_test_file(base, files, whole):
    folder, said, data = whole
    result = hf_nasbert.compress(base, data, output_dir=folder, **SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(base)
    theirs = accuracy(AutoModelForSequenceClassification.from_pretrained(base), tokenizer, files["test_file"])
    assert 0.5 < theirs < 0.95
    assert result.rows[0].metrics["accuracy"] == pytest.approx(theirs)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert loaded.config.id2label == dict(enumerate(NAMES))
    ours = accuracy(loaded, tokenizer, files["test_file"])
    assert result.best.row.metrics["accuracy"] == pytest.approx(ours)
    assert [row.how.split()[0] for row in result.rows[1:]] == ["searched", "layers", "every", "uniform"]
    assert all(row.metrics for row in result.rows)
    report, card = ((folder / name).read_text() for name in ("report.md", "README.md"))
    for text in (said, report, card):
        assert "accuracy" in text
        assert "macro f1" in text
        assert f"{result.best.row.metrics['macro_f1']:.4f}" in text
        assert f"{theirs:.4f}" in text
        assert "standard error" in text
    results = {one.metric_type: one.metric_value for one in check_card(card).eval_results}
    assert results["accuracy"] == pytest.approx(ours, abs=1e-4)
    assert "ranked by" in card
    frame = result.to_pandas()
    assert list(frame["accuracy"]) == [pytest.approx(row.metrics["accuracy"]) for row in result.rows]
    assert frame["against_base"][1] == pytest.approx(result.rows[1].metrics["accuracy"] - theirs)
    assert '"predictions": [' not in (folder / "summary.json").read_text()


@pytest.mark.slow
def test_what_judges_chooses_nothing_and_is_no_part_of_training(base, files, whole, rows, tmp_path):
    """With other labels to judge by, the same child with the same weights is given; all that differs is the table."""
    folder, _, _ = whole
    turned = [(text, NAMES[(NAMES.index(label) + 1) % 3]) for text, label in rows[280:]]
    file = write_csv(tmp_path / "turned.csv", ("text", "label"), turned)
    data = CompressDataArguments(**files | {"test_file": file})
    result = hf_nasbert.compress(base, data, output_dir=tmp_path / "small", **SETTINGS)
    assert result.rows[0].metrics["accuracy"] < 0.5
    assert (tmp_path / "small" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_examples_that_have_changed_are_other_text(base, files, whole, tmp_path):
    folder, _, _ = whole
    again = {name: shutil.copy(file, tmp_path) for name, file in files.items()}
    assert hf_nasbert.compress(base, CompressDataArguments(**again), output_dir=folder, **SETTINGS).folder == folder
    for name in files:
        file = Path(shutil.copy(files[name], tmp_path))
        file.write_text(file.read_text() + "the film,good\n")
        with pytest.raises(ValueError, match=r"was made with other text \(text.digest was"):
            hf_nasbert.compress(base, CompressDataArguments(**again), output_dir=folder, **SETTINGS)
        shutil.copy(files[name], tmp_path)


@pytest.mark.slow
def test_labels_teach_what_the_base_model_does_not_know(base, files, whole, tmp_path):
    folder, _, data = whole
    result = hf_nasbert.compress(
        base, data, output_dir=tmp_path / "small", label_weight=0.0, handmade=False, **SETTINGS
    )
    assert (result.folder / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_trimmed_vocabulary_is_that_of_the_examples_to_train_on(files, tmp_path):
    """Judged on the examples by its own tokenizer, one of whose words stands in no example to train on."""
    base = classifier_base(tmp_path / "base", more=["oven"])
    test = tmp_path / "test.csv"
    test.write_text(Path(files["test_file"]).read_text().replace("film", "oven"))
    data = CompressDataArguments(**files | {"test_file": str(test)})
    settings = SETTINGS | {"trim_vocabulary": True, "handmade": False, "scorer": "additive", "heads": [2], "ffn": [64]}
    result = hf_nasbert.compress(base, data, output_dir=tmp_path / "small", **settings)
    _, untrimmed, trimmed = result.rows
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "small")
    assert len(tokenizer) == trimmed.trimmed.num_pieces < trimmed.trimmed.num_before
    assert "oven" not in tokenizer.get_vocab()
    assert trimmed.trimmed.cut_otherwise > 0.5
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small", trust_remote_code=True)
    found = accuracy(loaded, tokenizer, test)
    assert trimmed.metrics["accuracy"] == pytest.approx(found)
    assert trimmed.against_base is None
    assert untrimmed.against_base is not None
    assert f"by accuracy it has {found:.4f} with it, {untrimmed.score:.4f} with the whole one" in str(result)
    card = check_card((tmp_path / "small" / "README.md").read_text())
    assert {one.metric_type: one.metric_value for one in card.eval_results}["accuracy"] == pytest.approx(
        found, abs=1e-4
    )


@pytest.mark.slow
def test_where_what_judges_was_trained_on_a_line_says_so(base, files, tmp_path, capsys):
    data = CompressDataArguments(train_file=files["train_file"], validation_fraction=0.2)
    arguments = CompressArguments(base_model=str(base), output_dir=str(tmp_path), **SETTINGS)
    Compression(arguments, TextSource.of(data))._make_text()
    assert "A base model that was trained" in capsys.readouterr().out
    Compression(arguments, TextSource.of(CompressDataArguments(**files)))._make_text()
    assert "A base model that was trained" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_super_net_learns_the_task_and_pairs_of_numbers_are_judged_by_their_correlation(tmp_path):
    base = save_base(tmp_path / "base", BertForSequenceClassification, num_labels=1)
    rng, texts = random.Random(0), documents(240, seed=4)
    pairs = [(a, b, round(rng.uniform(0, 5), 2)) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    file = write_csv(tmp_path / "pairs.csv", ("sentence1", "sentence2", "label"), pairs)
    settings = SETTINGS | {"supernet_steps": 4, "label_weight": 0.01}
    result = hf_nasbert.compress(
        base, CompressDataArguments(train_file=file, validation_fraction=0.2), output_dir=tmp_path / "small",
        scorer="supernet", max_replace_one_loss=1e3, handmade=False, **settings,
    )  # fmt: skip
    assert list(result.rows[0].metrics) == ["pearson", "spearmanr"]
    chosen = next(stage for stage in result.stages if stage["stage"].startswith("search"))["content"]
    metrics = [one["metric"] for one in chosen["choices"]]
    assert metrics == sorted(metrics, reverse=True)
    assert len(set(metrics)) > 1


def test_files_without_one_for_validation_are_read(files):
    task = load_files(files["train_file"], None)
    assert (list(task.splits), task.validation) == (["train"], {})


# Labels in training


@pytest.fixture(scope="module")
def taught():
    """Batches whose labels are other than what a teacher calls them, and what it makes of them."""
    teacher = full_child(classifier=True)
    text = batches(((9, 8, 7, 6), (12, 11, 10), (8, 8, 8, 8)))
    theirs = targets(teacher, text)
    text = [batch | {LABELS: 1 - target.logits.argmax(-1)} for batch, target in zip(text, theirs, strict=True)]
    return text, theirs, Distance.of(teacher, torch.cat([one.states for one in theirs]).mean(0))


def label_loss(model, text, **options):
    losses = []
    for batch in text:
        encoder = encoder_of(model)
        states, masks = encoder.embed(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        with torch.no_grad():
            states = encoder.encoder(states, masks, **options)
            logits = model.classifier(
                states[batch["attention_mask"].bool()] if encoder.pooler is None else encoder.pooler(states)
            )
        losses.append(float(nn.functional.cross_entropy(logits, batch[LABELS])))
    return sum(losses) / len(losses)


def test_labels_with_a_weight_are_learned_in_recovery(taught):
    text, theirs, distance = taught
    after = {}
    for weight in (0.0, 5.0):
        child = full_child(classifier=True)
        nn.init.normal_(child.classifier.weight, generator=torch.Generator().manual_seed(1))
        recover(
            child, text, theirs, distance, RecoverySettings(num_steps=30, learning_rate=2e-3, label_weight=weight),
            held_out=(text, theirs),
        )  # fmt: skip
        after[weight] = label_loss(child, text)
    assert after[5.0] < 0.8 * after[0.0]


def test_labels_may_lead_away_from_the_base_model_but_not_from_both(taught):
    text, theirs, distance = taught
    settings = RecoverySettings(num_steps=8, learning_rate=5e-4, label_weight=50.0)
    done = recover(full_child(classifier=True), text, theirs, distance, settings, held_out=(text, theirs))
    assert done.after.loss > done.before.loss
    # Of a light weight, too: what is kept goes by the labels alone, and the distance rises by more than their share.
    settings = RecoverySettings(num_steps=8, learning_rate=2e-3, label_weight=0.1)
    child = full_child(classifier=True)
    before = label_loss(child, text)
    done = recover(child, text, theirs, distance, settings, held_out=(text, theirs))
    assert done.kept_step == 8
    assert label_loss(child, text) < before
    assert done.after.loss - done.before.loss > 0.1 * (before - label_loss(child, text))
    # It learns the opposite of the labels that it is judged by, and leaves the base model's answers for them.
    wrong = [batch | {LABELS: 1 - batch[LABELS]} for batch in text]
    settings = RecoverySettings(num_steps=8, learning_rate=2e-3, label_weight=50.0)
    done = recover(full_child(classifier=True), wrong, theirs, distance, settings, held_out=(text, theirs))
    assert done.kept_step == 0  # away from both: it is left as it began
    assert done.after == done.before


def test_labels_with_a_weight_must_be_there(taught):
    text, theirs, distance = taught
    bare = [{name: tensor for name, tensor in batch.items() if name != LABELS} for batch in text]
    with pytest.raises(ValueError, match="a weight of labels needs a classifier, and batches with labels"):
        recover(full_child(classifier=True), bare, theirs, distance, RecoverySettings(num_steps=1, label_weight=1.0))


@pytest.mark.slow
def test_the_full_child_of_a_super_net_learns_from_labels_and_the_others_from_the_base_model(taught):
    text, theirs, distance = taught
    space = elastic(classifier=True, heads=[1], ffn=[24]).space
    full = elastic(classifier=True, heads=[1], ffn=[24]).largest_architecture
    after = {}
    for weight in (0.0, 50.0):
        supernet = elastic(classifier=True, heads=[1], ffn=[24])
        settings = RecoverySettings(num_steps=12, learning_rate=1e-3, label_weight=weight)
        seen = []
        embed = encoder_of(supernet).encoder.forward

        def forward(*args, architecture=None, seen=seen, embed=embed, **options):
            seen.append(architecture)
            return embed(*args, architecture=architecture, **options)

        encoder_of(supernet).encoder.forward = forward
        distil_supernet(supernet, space, text, theirs, distance, settings, held_out=(text, theirs))
        del encoder_of(supernet).encoder.forward
        num_full = sum(one == full for one in seen)
        assert num_full >= 12 if weight else num_full < 5
        after[weight] = label_loss(supernet, text, architecture=full)
    assert after[50.0] < 0.8 * after[0.0]


def test_labels_are_part_of_what_a_checkpoint_is_of(taught, tmp_path):
    text, theirs, distance = taught
    settings = RecoverySettings(num_steps=2, save_steps=1, label_weight=1.0)
    child = full_child(classifier=True)
    recover(copy.deepcopy(child), text, theirs, distance, settings, output_dir=tmp_path)
    others = [batch | {LABELS: 1 - batch[LABELS]} for batch in text]
    with pytest.raises(ValueError, match="is of another recovery"):
        recover(copy.deepcopy(child), others, theirs, distance, settings, output_dir=tmp_path)


# Refusals


def refused(match, base, data, folder, **settings):
    with pytest.raises((ValueError, OSError), match=match) as caught:
        hf_nasbert.compress(base, data, output_dir=folder, **SETTINGS | settings)
    assert "\n" not in str(caught.value)
    assert not (folder / "stages.jsonl").exists()


def test_an_encoder_without_a_head_for_labels_is_refused_with_what_to_do(files, tmp_path):
    base = save_base(tmp_path / "base")
    data = CompressDataArguments(**files)
    refused(rf"predicts no label of a text .*hf-nasbert finetune --model {base}", base, data, tmp_path / "small")


def test_labels_and_columns_that_do_not_fit_are_refused_before_any_work(base, files, tmp_path):
    file = write_csv(tmp_path / "odd.csv", ("text", "stars"), [("good", 1), ("bad", 2)])
    refused("no label column 'label'", base, CompressDataArguments(train_file=file), tmp_path / "a")
    data = CompressDataArguments(train_file=file, label_column="stars")
    refused("odd: no example|are too few", base, data, tmp_path / "b")
    file = write_csv(tmp_path / "named.csv", ("text", "label"), [("good", "fine"), ("bad", "bad")])
    refused("the labels fine are none", base, CompressDataArguments(train_file=file), tmp_path / "c")
    refused("no-such", base, CompressDataArguments(train_file="no-such.csv"), tmp_path / "d")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_file": "a.csv", "train_files": ["a.txt"]}, "exactly one text source"),
        ({"train_files": ["a.txt"], "validation_file": "b.csv"}, "validation_file goes with train_file"),
        ({"packaged": "imdb", "test_file": "b.csv"}, "test_file goes with train_file"),
        ({}, "one of dataset_name, train_files, packaged, train_file, task"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CompressDataArguments(**settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("validation_fraction", math.nan),
        ("data_seed", -1),
        ("max_seq_length", 3),
        ("max_seq_length", 0),
    ],
)
def test_numbers_of_the_data_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        CompressDataArguments(packaged="imdb", **{name: value})


def test_a_weight_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"label_weight=-1\.0"):
        CompressArguments(base_model="x", output_dir="y", max_parameters="0.5x", label_weight=-1.0)


def test_every_source_of_labels_is_read_by_its_own_reader(files, monkeypatch):
    made = []
    for name in ("load_glue", "load_packaged", "load_files"):
        monkeypatch.setattr(
            f"hf_nasbert.compression.text_source.{name}",
            lambda *given, name=name, **options: made.append((name, given)),
        )
    for data in ({"task": "sst2"}, {"packaged": "rotten_tomatoes"}, files):
        source = TextSource.of(CompressDataArguments(**data))
        source.load_task("classification")
    assert made == [
        ("load_glue", ("sst2",)), ("load_packaged", ("rotten_tomatoes",)),
        ("load_files", (files["train_file"], files["validation_file"], files["test_file"])),
    ]  # fmt: skip
    assert TextSource.of(CompressDataArguments(packaged="imdb")).load_task is None
    told = json.dumps(dict(TextSource.of(CompressDataArguments(**files)).told))
    assert "train.csv" in told
    assert "/" not in told


def test_texts_of_examples_are_documents_for_whoever_asks(files):
    texts = TextSource.of(CompressDataArguments(**files)).load()["text"][:]
    assert len(texts) == len(set(texts)) >= 190
