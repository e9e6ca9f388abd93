"""`hf-nasbert compress --train_file`: labelled examples of the task that the base model is fine-tuned on."""

import copy
import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny.bases import classifier_base, documents, label_by, save_base, write_csv
from tiny.compress import batches, elastic, full_child, targets
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

import hf_nasbert
from hf_nasbert import cli
from hf_nasbert.cards import check_card
from hf_nasbert.compression import CompressArguments, CompressDataArguments, run
from hf_nasbert.compression.choosing import Worth
from hf_nasbert.compression.examples import make_examples, places_of_labels
from hf_nasbert.compression.proof import Judged, Row, choose_given, compare, verdicts
from hf_nasbert.compression.recover import RecoverySettings, distil_supernet, recover
from hf_nasbert.compression.run import Compression
from hf_nasbert.compression.sentences import LABELS, as_batches
from hf_nasbert.compression.task_metric import Difference, TaskMetric
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.elastic.scores import Scorer, judge_children, predictions_of
from hf_nasbert.extraction import extract_child
from hf_nasbert.finetuning import LabelledTask, load_files

SETTINGS = {
    "recovery_steps": 8, "learning_rate": 1e-4, "batch_size": 16, "max_seq_length": 24, "latency_shape": "2x16",
    "num_rescored": 6, "max_parameters": "0.5x",
}  # fmt: skip
NAMES = ("bad", "good", "long")


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


def by_counting(config, children, batch_size, sequence_length):
    return [batch_size * (1.0 + sum(name != "skip" for name in child)) for child in children]


@pytest.fixture(autouse=True)
def quiet_clock(monkeypatch):
    monkeypatch.setattr(run, "measure_side_by_side", by_counting)
    monkeypatch.setattr(run, "does_bf16_pay", lambda device: False)


@pytest.fixture(scope="module")
def whole(base, files, tmp_path_factory):
    """One whole run by the command, and its output."""
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "measure_side_by_side", by_counting)
    patch.setattr(run, "does_bf16_pay", lambda device: False)
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
    assert result.rows[0].metrics == {"accuracy": pytest.approx(theirs)}
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert loaded.config.id2label == dict(enumerate(NAMES))
    ours = accuracy(loaded, tokenizer, files["test_file"])
    assert result.best.row.metrics == {"accuracy": pytest.approx(ours)}
    assert [row.how.split()[0] for row in result.rows[1:]] == ["searched", "layers", "every", "uniform"]
    assert all(row.metrics for row in result.rows)
    report, card = ((folder / name).read_text() for name in ("report.md", "README.md"))
    for text in (said, report, card):
        assert "accuracy" in text
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


@pytest.mark.slow
def test_labels_teach_what_the_base_model_does_not_know(base, files, whole, tmp_path):
    folder, _, data = whole
    result = hf_nasbert.compress(
        base, data, output_dir=tmp_path / "small", label_weight=0.0, handmade=False, **SETTINGS
    )
    assert (result.folder / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_where_what_judges_was_trained_on_a_line_says_so(base, files, tmp_path, capsys):
    data = CompressDataArguments(train_file=files["train_file"], validation_fraction=0.2)
    arguments = CompressArguments(base_model=str(base), output_dir=str(tmp_path), **SETTINGS)
    Compression(arguments, TextSource.of(data))._make_text()
    assert "which the base model may have learned from" in capsys.readouterr().out
    Compression(arguments, TextSource.of(CompressDataArguments(**files)))._make_text()
    assert "which the base model may have learned from" not in capsys.readouterr().out


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


# Parts


def task_of(train, validation=None, test=None, names=NAMES, columns=("text",)):
    def made(rows):
        return None if rows is None else Dataset.from_dict(
            {name: list(values) for name, values in zip((*columns, "label"), zip(*rows, strict=True), strict=True)}
        )  # fmt: skip

    held = {} if validation is None else {"validation": made(validation)}
    return LabelledTask("reviews", tuple(columns), names, "sst2" if names else "stsb", made(train), held, made(test))


def config_of(names=NAMES, **fields):
    return BertConfig(id2label=dict(enumerate(names)), **fields)


ROWS = [(f"film {number}", number % 3) for number in range(60)]


def parts_of(task, **options):
    examples = make_examples(task, config_of(), **{"held_out": 0.1, "seed": 0} | options)
    return [
        list(zip(rows["text"], rows["label"], strict=True))
        for rows in (examples.train, examples.choosing, examples.judging)
    ]


def test_files_of_their_own_choose_and_judge():
    parts = parts_of(task_of(ROWS[:40], ROWS[40:50], ROWS[50:]))
    assert parts == [ROWS[:40], ROWS[40:50], ROWS[50:]]


def test_halves_of_a_validation_file_choose_and_judge():
    train, choosing, judging = parts_of(task_of(ROWS[:40], ROWS[40:]))
    assert train == ROWS[:40]
    assert sorted(choosing + judging) == sorted(ROWS[40:])
    assert len(choosing) == len(judging) == 10


def test_a_share_of_the_only_file_is_held_out_to_choose_and_another_to_judge():
    task = task_of(ROWS)
    train, choosing, judging = parts_of(task)
    assert sorted(train + choosing + judging) == sorted(ROWS)
    assert (len(choosing), len(judging)) == (5, 6)
    assert parts_of(task, seed=1)[2] != judging
    assert make_examples(task, config_of(), held_out=0.1, seed=0).are_seen
    assert not make_examples(task_of(ROWS[:50], ROWS[50:]), config_of(), held_out=0.1, seed=0).are_seen


def test_a_test_file_alone_judges_and_what_chooses_is_held_out():
    train, choosing, judging = parts_of(task_of(ROWS[:40], test=ROWS[40:]))
    assert judging == ROWS[40:]
    assert sorted(train + choosing) == sorted(ROWS[:40])


def test_a_text_is_in_one_part_only_case_and_spaces_aside():
    copies = [(f" FILM  {number}", 1) for number in (0, 1, 45, 55)]
    train, choosing, judging = parts_of(
        task_of([*ROWS[:40], *copies[2:]], [*ROWS[40:50], copies[0], copies[3]], ROWS[50:])
    )
    assert train == ROWS[1:40]
    assert choosing == [*ROWS[40:50], copies[0]]
    assert judging == ROWS[50:]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (task_of([("one", 0)] * 4), "4 example.s. with 1 different text.s. are too few to hold any out"),
        (task_of(ROWS[:2], ROWS[2:9], ROWS[:2]), "no example is left for train that is in no other part"),
    ],
)
def test_too_few_different_examples_are_refused(task, message):
    with pytest.raises(ValueError, match=message):
        parts_of(task)


def test_files_without_one_for_validation_are_read(files):
    task = load_files(files["train_file"], None)
    assert (list(task.splits), task.validation) == (["train"], {})


# Labels


@pytest.mark.parametrize(
    ("names", "model", "places"),
    [
        (("bad", "good"), ("good", "bad", "long"), (1, 0)),
        (("Bad", "GOOD"), ("bad", "good"), (0, 1)),
        (("0", "2"), ("bad", "good", "long"), (0, 2)),
        (("0", "1"), ("LABEL_0", "LABEL_1"), (0, 1)),
        (("1", "2", "5"), ("5", "4", "3", "2", "1"), (4, 3, 0)),
        (("no", "No"), ("No", "no", "yes"), (1, 0)),
    ],
)
def test_labels_are_the_models_own_by_name_or_by_number(names, model, places):
    assert places_of_labels(task_of(ROWS, names=names), config_of(model)) == places


@pytest.mark.parametrize(
    ("names", "config", "message"),
    [
        (("bad", "fine"), config_of(), "the labels fine are none of the base model's, which are bad, good, long: "),
        (("bad", "good"), config_of(("LABEL_0", "LABEL_1")), r"nobody has named .* \(0 to 1\)"),
        (("0", "3"), config_of(), "the labels 0, 3 are none of the base model's"),
        (("0", "1"), config_of(("1", "2")), "the labels 0 are none of the base model's, which are 1, 2"),
        (("bad", "Bad"), config_of(("bad", "good")), "two of the labels bad, Bad are one of the base model's"),
        (("bad", "good"), config_of(("LABEL_0",)), "the base model predicts a number, and the labels are classes"),
        ((), config_of(), "the base model predicts the classes bad, good, long, and the labels are numbers"),
        (NAMES, config_of(problem_type="multi_label_classification"), "several labels at once"),
    ],
)  # fmt: skip
def test_labels_that_are_none_of_the_models_are_refused_by_name(names, config, message):
    with pytest.raises(ValueError, match=message) as caught:
        places_of_labels(task_of(ROWS, names=names), config)
    assert "\n" not in str(caught.value)


def test_labels_are_numbered_as_the_model_numbers_them():
    examples = make_examples(
        task_of(ROWS[:20], ROWS[20:40], ROWS[40:]), config_of(("long", "good", "bad")), held_out=0.1, seed=0
    )
    assert examples.train["label"] == [2 - label for _, label in ROWS[:20]]


# Batches


def test_whole_examples_and_pairs_are_cut_by_tokens_alone_and_keep_their_labels(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    firsts = ["the film was good. it was very long. a plot.", "bad", "the plot was short"]
    seconds = ["was it bad", "the film was good", "not"]
    made = as_batches(firsts, tokenizer, batch_size=2, max_length=24, seconds=seconds, labels=[3, 1, 2])
    found = {
        tuple(ids[mask.bool()].tolist()): (types[mask.bool()].tolist(), int(label))
        for batch in made
        for ids, mask, types, label in zip(
            *(batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", LABELS)), strict=True
        )
    }
    for first, second, label in zip(firsts, seconds, (3, 1, 2), strict=True):
        whole = tokenizer(first, second)
        assert found[tuple(whole["input_ids"])] == (whole["token_type_ids"], label)
    numbers = as_batches(firsts, tokenizer, labels=[0.5, 1.0, 2.0])
    assert numbers[0][LABELS].dtype == torch.float32
    assert LABELS not in as_batches(firsts, tokenizer)[0]


def test_examples_that_are_cut_are_told(base, capsys):
    examples = make_examples(task_of(ROWS[:20], ROWS[20:40], ROWS[40:]), config_of(), held_out=0.1, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = examples.batches(tokenizer, sizes=(8, 99, 99), batch_size=4, max_length=4, seed=0)
    assert [sum(len(batch[LABELS]) for batch in part) for part in (text.train, text.choosing, text.judging)] == [
        8,
        20,
        20,
    ]
    assert "100.0% of the examples fill max_seq_length=4" in capsys.readouterr().out


# The metric


def test_the_standard_error_is_that_of_the_same_examples_for_both():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=800).astype(float)
    ours = np.where(rng.random(800) < 0.1, 1 - labels, labels)
    theirs = np.where(rng.random(800) < 0.05, 1 - ours, ours)
    metric = TaskMetric("sst2", ("no", "yes"), (0, 1), 2)
    found = metric.difference([ours.tolist()], [theirs.tolist()], labels.tolist())
    paired = (ours == labels).astype(float) - (theirs == labels)
    assert found.mean == pytest.approx(paired.mean())
    assert found.standard_error == pytest.approx(paired.std(ddof=1) / 800**0.5, rel=0.12)
    assert metric.difference([ours], [ours], labels) == (0, 0)
    seeds = metric.difference([ours.tolist(), theirs.tolist()], [theirs.tolist()], labels.tolist())
    assert seeds.mean == pytest.approx(found.mean / 2)


def test_metrics_are_in_the_datas_own_order_of_labels():
    """F1 is that of the data's second label, which the model numbers 0."""
    metric = TaskMetric("mrpc", ("different", "same"), (1, 0), 2)
    found = metric([0, 0, 1, 1, 1], [0, 1, 1, 1, 0])
    assert found == {"accuracy": 0.6, "f1": pytest.approx(0.5)}
    assert metric.score([0, 0, 1, 1, 1], [0, 1, 1, 1, 0]) == pytest.approx(0.55)
    with pytest.raises(ValueError, match="the metric of mrpc is of two labels; the data has 2, the base model 3"):
        TaskMetric("mrpc", ("different", "same"), (1, 0), 3)


def test_a_class_that_the_data_does_not_have_is_wrong():
    assert TaskMetric("sst2", ("no", "yes"), (0, 2), 3)([1, 0, 2], [0, 0, 2])["accuracy"] == pytest.approx(2 / 3)


def test_correlations_of_numbers_and_constants():
    metric = TaskMetric("stsb", (), (), 1)
    assert metric.predictions(torch.tensor([[0.25], [2.0]])) == [0.25, 2.0]
    assert metric([1.0, 2.0, 4.0], [0.0, 1.0, 9.0])["spearmanr"] == pytest.approx(1)
    assert metric([1.0, 1.0, 1.0], [0.0, 1.0, 9.0]) == {"pearson": 0.0, "spearmanr": 0.0}


# Ranking


def test_the_metric_ranks_and_the_distance_breaks_ties():
    worths = [Worth(0.3, 0.8), Worth(0.2, 0.8), Worth(0.1, 0.7), Worth(0.4, 0.9)]
    assert sorted(worths, key=lambda one: one.rank) == [worths[3], worths[1], worths[0], worths[2]]
    assert min([Worth(0.3), Worth(0.2)], key=lambda one: one.rank) == Worth(0.2)


def labelled(of_batches, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        batch | {LABELS: torch.randint(2, (len(batch["input_ids"]),), generator=generator)} for batch in of_batches
    ]


def test_children_predict_among_others_what_they_predict_alone(tmp_path):
    teacher = full_child(classifier=True)
    text = labelled(batches())
    theirs = targets(teacher, text)
    distance = Distance.of(teacher, torch.cat([one.states for one in theirs]).mean(0))
    supernet = elastic(classifier=True, heads=[1], ffn=[24])
    rng = random.Random(0)
    children = [supernet.space.sample(rng) for _ in range(5)]
    scorer = Scorer(supernet, text, theirs, distance, kept_in=tmp_path)

    def predict(logits):
        return (1000 * logits[:, 0]).round().tolist()

    found = scorer.with_predictions(children, predict, kept_as="all")
    assert [loss for loss, _ in found] == pytest.approx(scorer(children))
    for child, (_, predictions) in zip(children, found, strict=True):
        alone = predictions_of(extract_child(supernet, child), text, predict)
        assert predictions == pytest.approx(alone, abs=1)
    assert len({tuple(predictions) for _, predictions in found}) > 1
    assert scorer.with_predictions(children, pytest.fail, kept_as="all") == found  # taken up


def test_predictions_do_not_depend_on_who_makes_them(monkeypatch):
    """Processes share out the batches; what one of them did not predict is 0 there."""
    teacher = full_child(classifier=True)
    text = labelled(batches())
    theirs = targets(teacher, text)
    distance = Distance.of(teacher, torch.cat([one.states for one in theirs]).mean(0))
    supernet = elastic(classifier=True, heads=[1], ffn=[24])
    given = supernet, [supernet.largest_architecture, ("attention1", "ffn24") * 3], text, theirs, distance
    _, whole = judge_children(*given, predict=lambda logits: logits[:, 0].tolist())
    monkeypatch.setattr("hf_nasbert.elastic.scores.reduce", lambda found, _: found)
    parts = []
    for number in range(2):
        process = SimpleNamespace(num_processes=2, process_index=number, is_main_process=number == 0, device="cpu")
        parts.append(
            torch.tensor(judge_children(*given, predict=lambda logits: logits[:, 0].tolist(), processes=process)[1])
        )
    assert torch.equal(parts[0] + parts[1], torch.tensor(whole))
    assert parts[0].count_nonzero() < parts[0].numel()


def row(how, chosen_metric, chosen_by, predictions, budget="0.5x"):
    judged = Judged(chosen_by, 0.9, None, None, {"accuracy": 0.5}, predictions)
    return Row(budget, how, "ffn", 10, 20, 1.0, 2.0, (judged,), True, chosen_by, chosen_metric=chosen_metric)


def test_the_best_by_the_metric_is_given_and_differences_are_told_with_their_errors():
    right = tuple(float(number % 2) for number in range(40))
    wrong = (*right[:30], *(1 - one for one in right[30:]))
    metric = TaskMetric("sst2", ("no", "yes"), (0, 1), 2)
    given = [
        row("base model", None, None, right, None),
        row("searched", 0.9, 0.5, (*right[:39], 1 - right[39])),
        row("layers 0 1", 0.8, 0.1, wrong),
        row("uniform", 0.8, 0.4, (*right[:38], *(1 - one for one in right[38:]))),
    ]
    given = [
        replace(one, judged=(replace(one.judged[0], loss=0.1, metrics=metric(one.judged[0].predictions, right)),))
        for one in given
    ]
    rows = compare(choose_given(given), metric, right)
    assert [one.how for one in rows if one.is_given] == ["searched"]
    assert [one.how for one in choose_given([replace(one, chosen_metric=None) for one in given]) if one.is_given] == [
        "layers 0 1"
    ]
    assert rows[0].against_base is None
    assert rows[2].against_given.mean == pytest.approx(-9 / 40)
    assert all(one.judged[0].predictions is None for one in rows)
    assert [Row.from_dict(json.loads(json.dumps(asdict(one)))) for one in rows] == rows
    said = "\n".join(verdicts(rows))
    assert "by accuracy it keeps 97.5% of the base model's 1.0000: the difference is -0.0250 (standard error" in said
    assert "it is ahead of layers 0 1 by 0.2250 (standard error 0.0" in said
    assert "it is ahead of uniform by 0.0250" in said
    assert "which these examples are too few to be sure of" in said


@pytest.mark.parametrize("whole", [0.0, -0.25])
def test_of_a_metric_that_is_not_above_zero_there_is_no_share(whole):
    rows = [row("base model", None, None, (), None), row("searched", 0.1, 0.5, ())]
    scores = (whole, 0.5)
    rows = [
        replace(one, judged=(replace(one.judged[0], loss=0.1, metrics={"spearman": score}),))
        for one, score in zip(rows, scores, strict=True)
    ]
    rows[1] = replace(rows[1], is_given=True, against_base=Difference(0.5 - whole, 0.1))
    said = f"by spearman it has 0.5000 in place of the base model's {whole:.4f}: the difference is +{0.5 - whole:.4f}"
    assert said in "\n".join(verdicts(rows))


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
    right = [batch | {LABELS: 1 - batch[LABELS]} for batch in text]
    settings = RecoverySettings(num_steps=8, learning_rate=10.0, label_weight=0.5)
    done = recover(full_child(classifier=True), right, theirs, distance, settings, held_out=(text, theirs))
    assert done.kept_step == 0  # away from both: it is left as it began
    assert done.after == done.before


def test_labels_with_a_weight_must_be_there(taught):
    text, theirs, distance = taught
    bare = [{name: tensor for name, tensor in batch.items() if name != LABELS} for batch in text]
    with pytest.raises(ValueError, match="a weight of labels needs a classifier, and batches with labels"):
        recover(full_child(classifier=True), bare, theirs, distance, RecoverySettings(num_steps=1, label_weight=1.0))


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


def test_a_trimmed_vocabulary_is_refused_with_labels(base, files, tmp_path):
    data = CompressDataArguments(**files)
    refused("trim_vocabulary goes with text without labels", base, data, tmp_path / "small", trim_vocabulary=True)


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
