"""Labelled examples for a compression: their parts, labels, batches, metric, and what ranks children by it."""

import json
import random
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import f1_score
from tiny.bases import classifier_base
from tiny.compress import batches, elastic, full_child, targets
from transformers import AutoTokenizer, BertConfig

from hf_nasbert.compression.choosing import Worth
from hf_nasbert.compression.examples import make_examples, places_of_labels
from hf_nasbert.compression.proof import Judged, Row, choose_given, compare, verdicts
from hf_nasbert.compression.sentences import LABELS, as_batches
from hf_nasbert.compression.task_metric import Difference, TaskMetric
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.scores import Scorer, judge_children, predictions_of
from hf_nasbert.extraction import extract_child
from hf_nasbert.finetuning import LabelledTask
from hf_nasbert.finetuning.splits import with_validation

NAMES = ("bad", "good", "long")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return classifier_base(tmp_path_factory.mktemp("base"))


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
    assert (len(choosing), len(judging)) == (6, 6)
    assert parts_of(task, seed=1)[2] != judging
    assert make_examples(task, config_of(), held_out=0.1, seed=0).are_seen
    assert not make_examples(task_of(ROWS[:50], ROWS[50:]), config_of(), held_out=0.1, seed=0).are_seen


@pytest.mark.parametrize("number", [60, 61, 66, 70])
def test_what_is_held_out_of_one_file_is_what_finetune_held_out_of_it(number):
    """On rows that a base model has learnt by heart, no recovered child looks better than its inherited weights."""
    rows = [(f"film {film}", film % 3) for film in range(number)]
    task = task_of(rows)
    for seed in (0, 1):
        splits = with_validation(task.name, task.splits, task.text_columns, share=0.1, seed=seed)
        _, choosing, judging = parts_of(task, held_out=0.05, seed=seed)
        assert sorted(text for text, _ in choosing + judging) == sorted(splits["validation"]["text"])
        assert abs(len(choosing) - len(judging)) <= 1


def test_the_two_shares_must_leave_something_to_train_on():
    with pytest.raises(ValueError, match=r"validation_fraction=0.5 is held out twice.*: give less than 0.5"):
        parts_of(task_of(ROWS), held_out=0.5)
    assert [len(part) for part in parts_of(task_of(ROWS[:3]))] == [1, 1, 1]


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
        (task_of(ROWS[:2]), "2 example.s. with 2 different text.s. are too few to hold any out"),
        (task_of(ROWS[:2], ROWS[2:9], ROWS[:2]), "no example is left for train that is in no other part"),
    ],
)
def test_too_few_different_examples_are_refused(task, message):
    with pytest.raises(ValueError, match=message):
        parts_of(task)


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


def test_macro_f1_stands_beside_accuracy_and_ranks_nothing():
    """As scikit-learn has it, of the classes that the labels have."""
    rng = np.random.default_rng(0)
    labels, ours = rng.integers(3, size=60).tolist(), rng.integers(4, size=60).tolist()
    metric = TaskMetric("sst2", NAMES, (2, 0, 1), 4)
    found = metric(ours, labels)
    expected = f1_score(labels, ours, labels=sorted(set(labels)), average="macro")
    accuracy = float(np.mean(np.array(labels) == ours))
    assert found == {"accuracy": pytest.approx(accuracy), "macro_f1": pytest.approx(expected)}
    assert metric.score(ours, labels) == pytest.approx(accuracy)
    judged = Judged(0.1, 0.9, None, None, found)
    assert Row("0.5x", "searched", "ffn", 10, 20, 1.0, 2.0, (judged,), True, 0.1).score == pytest.approx(accuracy)


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


def test_models_that_predict_one_class_are_named_with_what_to_change():
    """Of two even classes it has an accuracy of a half, and of a rare one nearly all."""
    right = tuple(float(number % 2) for number in range(40))
    metric, constant = TaskMetric("sst2", ("no", "yes"), (0, 1), 2), (1.0,) * 40
    assert not metric.is_one_class(right, right)
    assert not metric.is_one_class(constant, constant)  # which is right

    def said(base, child):
        rows = [row("base model", None, None, base, None), row("searched", 0.9, 0.5, child)]
        rows = [
            replace(one, judged=(replace(one.judged[0], loss=0.1, metrics=metric(one.judged[0].predictions, right)),))
            for one in rows
        ]
        return "\n".join(verdicts(compare(choose_given(rows), metric, right)))

    of_child, of_base = "0.5x: it predicts one class for every example", "The base model predicts one class for every"
    assert of_child in said(right, constant)
    assert "--recovery_steps" in said(right, constant)
    assert of_base not in said(right, constant)
    assert of_base in said(constant, constant)
    assert "hf-nasbert finetune --num_train_epochs" in said(constant, constant)
    assert of_child not in said(constant, constant)  # it cannot know better
    assert "one class" not in said(right, right)
