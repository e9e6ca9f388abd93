"""Fine-tuning and continued pre-training: metrics by hand, data checks, exact resumption, equal treatment."""

import csv
import json
import math
import os
import random
import shutil
import signal
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from helpers import mostly_slow, run_recipe
from safetensors.torch import load_file, save_file
from tiny.finetuning import save_models
from tiny.processes import forked
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorWithPadding,
    DistilBertConfig,
    EvalPrediction,
    RobertaConfig,
    RobertaForMaskedLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from hf_nasbert import checkpoint_folders
from hf_nasbert.data import DataArguments, MaskedBatches, fixed_masked_batches, load_corpus, train_tokenizer
from hf_nasbert.finetuning import (
    GLUE_TASKS,
    FinetuneArguments,
    FinetuneResult,
    GlueMetric,
    PretrainChildArguments,
    dev_loss,
    finetune,
    glue,
    load_files,
    load_glue,
    load_packaged,
    pretrain_child,
    pretraining,
    runs,
    sequence_classification,
    sequence_classification_data,
)
from hf_nasbert.metrics import calibration_error
from hf_nasbert.modeling import NasBertConfig, SupernetConfig
from hf_nasbert.records import read as read_records
from hf_nasbert.stopping import StopRequest

pytestmark = pytest.mark.usefixtures("quiet_trainer")

RECIPES = Path(__file__).parents[1] / "recipes"
GOOD, BAD, NEUTRAL = ["good", "fine"], ["bad", "awful"], ["film", "story", "the", "a", "plot", "actor"]


class Kill(TrainerCallback):
    """The power fails during a step: what lies on the disk by then is all that is left."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Terminate(Kill):
    """The scheduler asks for the machine during a step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_step_end(self, args, state, control, **kwargs):
        assert state.global_step <= self.step


class Log(TrainerCallback):
    """What a Trainer logged, how often it trained, and its weights at every evaluation."""

    def __init__(self) -> None:
        self.entries, self.num_trainings, self.weights = [], 0, {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.num_trainings += 1

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.entries.append(dict(logs))

    def values(self, name: str) -> list[float]:
        return [float(entry[name]) for entry in self.entries if name in entry]


def reviews(num: int, seed: int) -> list[tuple[str, str]]:
    """Texts whose label one word tells."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        label = rng.choice(["positive", "negative"])
        words = rng.choices(NEUTRAL, k=5)
        words.insert(rng.randrange(6), rng.choice(GOOD if label == "positive" else BAD))
        rows.append((" ".join(words), label))
    return rows


def write_csv(file: Path, rows, header=("text", "label")) -> str:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(file)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A tokenizer, a stock BERT, a child of ours, and labelled files."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("finetuning")
    save_models(home, " ".join(GOOD + BAD + NEUTRAL), 128)
    write_csv(home / "train.csv", reviews(64, seed=0))
    write_csv(home / "validation.csv", reviews(32, seed=1))
    write_csv(home / "test.csv", reviews(16, seed=2))
    (home / "corpus.txt").write_text("\n".join(" ".join(text for text, _ in reviews(4, seed)) for seed in range(80)))
    return home


@pytest.fixture
def arguments(home, tmp_path):
    """Make arguments of a run that learns the reviews within a second."""

    def make(**changes) -> FinetuneArguments:
        settings = {
            "model": str(home / "bert"),
            "output_dir": str(tmp_path / "out"),
            "train_file": str(home / "train.csv"),
            "validation_file": str(home / "validation.csv"),
            "max_seq_length": 16,
            "learning_rate": 1e-2,
            "num_train_epochs": 6,
            "batch_size": 8,
            "disable_tqdm": True,
            "cache_dir": str(home / "cache"),
        }
        if "packaged" in changes or "task" in changes:
            del settings["train_file"], settings["validation_file"]
        return FinetuneArguments(**settings | changes)

    return make


@pytest.fixture(scope="module")
def glue_copy(tmp_path_factory) -> Path:
    """A folder laid out as nyu-mll/glue is, two rows a split; `datasets` reads it as it reads the Hub."""
    folder = tmp_path_factory.mktemp("glue")
    names = {"mnli": ["entailment", "neutral", "contradiction"], "cola": ["unacceptable", "acceptable"]}
    configs = []
    for task, glue_task in GLUE_TASKS.items():
        tests = [split.replace("validation", "test") for split in glue_task.validation_splits]
        files = []
        for split in ("train", *glue_task.validation_splits, *tests):
            label = Value("float32") if task == "stsb" else ClassLabel(names=names.get(task, ["no", "yes"]))
            text = {column: Value("string") for column in glue_task.text_columns}
            rows = {column: [f"{column} {row}" for row in range(2)] for column in text}
            rows |= {"label": [-1, -1] if split in tests else [0, 1], "idx": [0, 1]}
            file = folder / task / f"{split}.parquet"
            file.parent.mkdir(exist_ok=True)
            Dataset.from_dict(rows, features=Features({**text, "label": label, "idx": Value("int32")})).to_parquet(
                file
            )
            files.append(f"  - split: {split}\n    path: {task}/{split}.parquet")
        configs.append("\n".join([f"- config_name: {task}", "  data_files:", *files]))
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(configs) + "\n---\n")
    return folder


class TestGlueMetric:
    """Against numbers worked out by hand, and against the libraries that `evaluate`'s own script calls."""

    def test_accuracy(self):
        for task in ("sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "hans"):
            assert GlueMetric(task).compute(predictions=[0, 1, 2, 1], references=[0, 1, 1, 1]) == {"accuracy": 0.75}

    @pytest.mark.parametrize("task", ["mrpc", "qqp"])
    def test_accuracy_and_f1(self, task):
        # 2 true positives, 1 false positive, 1 false negative: precision = recall = 2/3.
        found = GlueMetric(task).compute(predictions=[1, 1, 1, 0, 0], references=[1, 1, 0, 1, 0])
        assert found == {"accuracy": pytest.approx(3 / 5), "f1": pytest.approx(2 / 3)}

    def test_matthews(self):
        # TP 2, TN 1, FP 1, FN 1: (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2)
        found = GlueMetric("cola").compute(predictions=[1, 1, 1, 0, 0], references=[1, 1, 0, 1, 0])
        assert found == {"matthews_correlation": pytest.approx(1 / 6)}

    def test_correlations(self):
        # Deviations (-2, -1, 0, 3) and (-1.5, -.5, .5, 1.5): 8 / sqrt(14 * 5). Ranks agree but for a swap of the
        # middle two in the second case: 1 - 6 * 2 / (4 * 15).
        found = GlueMetric("stsb").compute(predictions=[0.0, 1.0, 2.0, 5.0], references=[1.0, 2.0, 3.0, 4.0])
        assert found == {"pearson": pytest.approx(8 / math.sqrt(70)), "spearmanr": pytest.approx(1.0)}
        found = GlueMetric("stsb").compute(predictions=[0.0, 2.0, 1.0, 5.0], references=[1.0, 2.0, 3.0, 4.0])
        assert found["spearmanr"] == pytest.approx(0.8)

    def test_equals_the_libraries_on_random_input(self):
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import f1_score, matthews_corrcoef

        generator = torch.Generator().manual_seed(0)
        predictions = torch.randint(2, (200,), generator=generator).numpy()
        references = torch.randint(2, (200,), generator=generator).numpy()
        pair = {"predictions": predictions, "references": references}
        assert GlueMetric("cola").compute(**pair)["matthews_correlation"] == matthews_corrcoef(references, predictions)
        assert GlueMetric("qqp").compute(**pair)["f1"] == f1_score(references, predictions)
        floats = torch.randn(2, 200, generator=generator).numpy()
        found = GlueMetric("stsb").compute(predictions=floats[0], references=floats[1])
        assert found["pearson"] == pytest.approx(pearsonr(*floats)[0])
        assert found["spearmanr"] == pytest.approx(spearmanr(*floats)[0])

    def test_constant_predictions_are_undefined_but_no_error(self):
        found = GlueMetric("stsb").compute(predictions=[1.0, 1.0, 1.0], references=[1.0, 2.0, 3.0])
        assert math.isnan(found["pearson"])
        assert math.isnan(found["spearmanr"])
        assert glue.glue_score(found) == 0.0
        assert GlueMetric("cola").compute(predictions=[1, 1], references=[1, 0]) == {"matthews_correlation": 0.0}

    def test_score_is_the_mean(self):
        assert glue.glue_score({"accuracy": 0.5, "f1": 1.0}) == 0.75
        assert glue.glue_score({"pearson": math.nan, "spearmanr": 0.5}) == 0.25

    def test_unknown_task(self):
        with pytest.raises(ValueError, match=r"'sst3'.*sst2"):
            GlueMetric("sst3")

    @pytest.mark.parametrize("task", ["cola", "mrpc", "qqp"])
    def test_a_missing_library_is_named_before_data_are_downloaded(self, task, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for ask in (GlueMetric, partial(load_glue, source="nobody/nothing")):
            with pytest.raises(ImportError, match=r'needs sklearn, .* pip install "hf_nasbert\[glue\]"$'):
                ask(task)
        assert GlueMetric("rte").config_name == "rte"  # as all others, it does not need it
        assert GlueMetric("stsb").config_name == "stsb"


class TestLabelledTasks:
    @pytest.mark.parametrize("task", GLUE_TASKS)
    def test_every_glue_task(self, task, glue_copy, tmp_path):
        found = load_glue(task, source=str(glue_copy), cache_dir=str(tmp_path))
        assert found.metric == task
        assert list(found.validation) == (
            ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
        )
        assert found.train[:]["label"] == [0, 1]
        assert found.train[1][found.text_columns[-1]] == f"{found.text_columns[-1]} 1"
        expected = {
            "stsb": (),
            "mnli": ("entailment", "neutral", "contradiction"),
            "cola": ("unacceptable", "acceptable"),
        }
        assert found.label_names == expected.get(task, ("no", "yes"))
        assert found.test is None, "GLUE's test labels are all -1"

    def test_unknown_glue_task(self):
        with pytest.raises(ValueError, match=r"'sst3'.*sst2"):
            load_glue("sst3")

    def test_classes_are_discovered(self, tmp_path):
        train = write_csv(tmp_path / "a.csv", [("x", "dog"), ("y", "cat"), ("z", "dog")])
        validation = write_csv(tmp_path / "b.csv", [("x", "dog")])
        task = load_files(train, validation, cache_dir=str(tmp_path))
        assert (task.name, task.text_columns, task.label_names, task.metric) == (
            "a",
            ("text",),
            ("cat", "dog"),
            "sst2",
        )
        assert task.train[:]["label"] == [1, 0, 1]
        assert task.validation["validation"][:]["label"] == [1]

    def test_whole_numbers_are_classes_unless_said_otherwise(self, tmp_path):
        files = [write_csv(tmp_path / f"{name}.csv", [("x", 3), ("y", 10), ("z", 3)]) for name in "ab"]
        task = load_files(*files, cache_dir=str(tmp_path))
        assert task.label_names == ("3", "10")
        assert task.train[:]["label"] == [0, 1, 0]
        task = load_files(*files, problem_type="regression", cache_dir=str(tmp_path))
        assert (task.label_names, task.metric, task.train[:]["label"]) == ((), "stsb", [3.0, 10.0, 3.0])

    def test_floats_are_regression(self, tmp_path):
        rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (0.5, 2.0)]
        for name in ("train.jsonl", "validation.jsonl"):
            (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        files = [str(tmp_path / name) for name in ("train.jsonl", "validation.jsonl")]
        task = load_files(*files, label_column="score", cache_dir=str(tmp_path))
        assert task.name == tmp_path.name, "a file called train says nothing"
        assert (task.text_columns, task.label_names, task.metric) == (("sentence1", "sentence2"), (), "stsb")
        assert task.train[:]["label"] == [0.5, 2.0]

    def test_text_columns_may_be_named(self, tmp_path):
        rows = [("1", "x", "y", "a"), ("2", "x", "y", "b")]
        files = [write_csv(tmp_path / f"{name}.csv", rows, ("id", "one", "two", "label")) for name in "ab"]
        task = load_files(*files, text_columns=["two", "id"], cache_dir=str(tmp_path))
        assert task.train[0] == {"two": "y", "id": "1", "label": 0}

    def test_tabs(self, tmp_path):
        for name in ("a.tsv", "b.tsv"):
            (tmp_path / name).write_text("text\tlabel\nx, y\tn\nz\tp\n")
        task = load_files(str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv"), cache_dir=str(tmp_path))
        assert task.train[0] == {"text": "x, y", "label": 0}

    def test_packaged_sets_keep_their_labelled_test_split(self, monkeypatch):
        features = Features({"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
        rows = Dataset.from_dict({"sentence": ["x", "y"], "label": [0, 1]}, features=features)
        splits = DatasetDict({"train": rows, "validation": rows, "test": rows})
        monkeypatch.setattr(
            sequence_classification_data, "load_labelled", lambda name: {"rotten_tomatoes": splits}[name]
        )
        task = load_packaged("rotten_tomatoes")
        assert (task.label_names, task.text_columns) == (("negative", "positive"), ("sentence",))
        assert task.test is not None
        assert len(task.test) == 2
        splits["test"] = Dataset.from_dict({"sentence": ["x", "y"], "label": [-1, -1]})
        assert load_packaged("rotten_tomatoes").test is None, "labels of -1 stand for unpublished ones"

    def test_the_digest_sees_every_text_and_label(self, tmp_path):
        rows = [("x", "n"), ("y", "p"), ("z", "p")]
        files = [write_csv(tmp_path / f"{name}.csv", rows) for name in "ab"]
        digests = {load_files(*files, cache_dir=str(tmp_path / "0")).digest() for _ in range(2)}
        assert len(digests) == 1
        for number, changed in enumerate([[*rows[:2], ("z", "n")], [*rows[:2], ("q", "p")], rows[:2]], start=1):
            write_csv(tmp_path / "b.csv", changed)
            digests.add(load_files(*files, cache_dir=str(tmp_path / str(number))).digest())
        assert len(digests) == 4

    @pytest.mark.parametrize(
        ("train", "validation", "message"),
        [
            ("text,label\nx,a\ny,b\n", "", "validation.csv is empty"),
            ("text,label\n", "text,label\nx,a\n", "train.csv holds no rows"),
            (
                "text,stars\nx,a\ny,b\n",
                "text,stars\nx,a\n",
                "train split has no label column 'label', only text, stars: say which one",
            ),
            ("text,label\nx,a\ny,b\n", "text,stars\nx,a\n", "the validation split has no label column 'label'"),
            ("text,label\nx,a\ny,b\n", "body,label\nx,a\n", "validation split has no text column 'text'"),
            (
                "text,label\nx,a\ny,b\n",
                "text,label\nx,c\n",
                "validation split has labels that training never sees: c;.* a, b",
            ),
            (
                "text,label\nx,1.5\ny,2.5\n",
                "text,label\nx,a\n",
                "row 0 of the validation split has label 'a'.*numbers",
            ),
            ("text,label\nx,a\ny,\n", "text,label\nx,a\n", "row 1 of the train split has no label"),
            ("text,label\nx,1.5\ny,\n", "text,label\nx,1.5\n", "row 1 of the train split has no label"),
            ("text,label\nx,a\n,b\n", "text,label\nx,a\n", "row 1 of the train split has no text in column 'text'"),
            ("text,label\nx,a\ny,a\n", "text,label\nx,a\n", "every training label is 'a'"),
            ("one,two,three,label\nx,y,z,a\n", "one,two,three,label\nx,y,z,a\n", "which of one, two, three, label"),
            ("number,label\n1,a\n2,b\n", "number,label\n1,a\n", "which of number, label"),
        ],
    )
    def test_what_does_not_fit_is_named(self, train, validation, message, tmp_path):
        for name, content in (("train", train), ("validation", validation)):
            (tmp_path / f"{name}.csv").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_files(str(tmp_path / "train.csv"), str(tmp_path / "validation.csv"), cache_dir=str(tmp_path))

    def test_missing_and_strange_files(self, home, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no labelled file .*nowhere\.csv"):
            load_files(str(home / "train.csv"), str(tmp_path / "nowhere.csv"), cache_dir=str(tmp_path))
        strange = tmp_path / "a.xlsx"
        strange.write_text("x")
        with pytest.raises(ValueError, match=r"a\.xlsx is of no known kind.*\.csv"):
            load_files(str(strange), str(home / "validation.csv"), cache_dir=str(tmp_path))
        broken = tmp_path / "a.json"
        broken.write_text("{")
        with pytest.raises(ValueError, match=r"a\.json, line 1: broken JSON"):
            load_files(str(broken), str(home / "validation.csv"), cache_dir=str(tmp_path))

    def test_a_column_is_not_both_text_and_label(self, home, tmp_path):
        files = [str(home / "train.csv"), str(home / "validation.csv")]
        with pytest.raises(ValueError, match="'label' cannot be both"):
            load_files(*files, text_columns=["text", "label"], cache_dir=str(tmp_path))
        with pytest.raises(ValueError, match="3 text columns"):
            load_files(*files, text_columns=["text"] * 3, cache_dir=str(tmp_path))


class TestFinetune:
    @pytest.mark.parametrize("model", mostly_slow(["child", "bert"], 2))
    def test_learns_records_and_saves(self, model, home, arguments, capsys):
        asked = arguments(model=str(home / model), test_file=str(home / "test.csv"))
        result = finetune(asked)
        assert f"0.00% of the tokens are unknown ([UNK]) to the tokenizer {home / model}" in capsys.readouterr().err
        (record,) = result.records
        assert record["metrics"]["validation"]["accuracy"] == 1.0
        assert record["metrics"]["test"]["accuracy"] == 1.0
        assert record["scores"][0][1] < 0.8, "the task is not learned from the start"
        assert record["num_samples"] == {"train": 64, "validation": 32, "test": 16}
        assert (record["num_steps"], record["seed"], record["task"]) == (48, 0, home.name)
        assert record["settings"]["learning_rate"] == 1e-2
        assert {"torch", "transformers"} <= set(record["versions"])
        assert read_records(asked.records_file) == result.records
        # The saved model is the recorded one, and says what its labels mean.
        folder = Path(asked.output_dir) / home.name / "seed-0"
        assert not list(folder.glob("run/checkpoint-*"))
        saved = AutoModelForSequenceClassification.from_pretrained(folder)
        assert saved.config.id2label == {0: "negative", 1: "positive"}
        inputs = AutoTokenizer.from_pretrained(folder)(
            ["good good good", "bad awful film"], padding=True, return_tensors="pt"
        )
        assert saved(**inputs).logits.argmax(-1).tolist() == [1, 0]
        assert saved.num_parameters() == record["num_parameters"]
        if model == "child":
            assert (folder / "modeling_nasbert.py").exists(), "a fine-tuned child travels with its code"

    def test_seeds_have_a_mean_and_a_spread_and_run_once(self, arguments):
        log = Log()
        short = {"max_steps": 6, "save_models": False}
        first = finetune(arguments(seeds=[0, 1], **short), callbacks=[log])
        assert log.num_trainings == 2
        losses = [record["metrics"]["validation"]["loss"] for record in first.records]
        assert losses[0] != losses[1]
        # A third seed joins: the first two are read from their records, in whatever order they are asked for.
        again = finetune(arguments(seeds=[2, 1, 0], **short), callbacks=[log])
        assert log.num_trainings == 3
        assert [record["seed"] for record in again.records] == [2, 1, 0]
        assert again.records[2] == first.records[0]
        losses = [record["metrics"]["validation"]["loss"] for record in again.records]
        spread = again.summary()["validation"]["loss"]
        mean = sum(losses) / 3
        assert spread.mean == pytest.approx(mean)
        assert spread.sd == pytest.approx(math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 2))
        assert spread.n == 3
        assert f"| validation | loss | {spread.mean:.4f} ± {spread.sd:.4f} | 3 |" in again.table()
        assert not (Path(arguments().output_dir) / again.task / "seed-0" / "config.json").exists(), "save_models=False"

    def test_a_model_that_was_not_kept_is_trained_again_when_it_is_wanted(self, arguments, tmp_path):
        first = finetune(arguments(max_steps=2, save_models=False)).records[0]
        assert not list(tmp_path.rglob("out/**/config.json"))
        assert finetune(arguments(max_steps=2, save_models=False)).records == [first]
        again = finetune(arguments(max_steps=2)).records[0]
        assert again["metrics"] == first["metrics"]
        assert list(tmp_path.rglob("out/**/model.safetensors"))
        log = Log()
        assert finetune(arguments(max_steps=2), callbacks=[log]).records == [again]
        assert log.num_trainings == 0

    def test_batches_of_like_length_are_the_default(self, home, arguments, tmp_path, monkeypatch):
        """Sentences of one to twelve words: in mixed batches of 8, half of what the model is given is padding."""
        rng = random.Random(0)
        rows = [(" ".join(rng.choices(NEUTRAL + GOOD, k=rng.randint(1, 12))), rng.choice("ab")) for _ in range(64)]
        file = write_csv(tmp_path / "texts.csv", rows)
        num_tokens = []
        collate = DataCollatorWithPadding.__call__

        def counted(collator, features):
            batch = collate(collator, features)
            num_tokens.append(batch["input_ids"].numel())
            return batch

        monkeypatch.setattr(DataCollatorWithPadding, "__call__", counted)
        totals = {}
        for name, changes in {"default": {}, "mixed": {"group_by_length": False}}.items():
            num_tokens.clear()
            settings = {"train_file": file, "validation_file": file, "max_seq_length": 64, "max_steps": 4}
            settings |= {"per_device_eval_batch_size": 8, **changes}
            finetune(arguments(output_dir=str(tmp_path / name), **settings))
            totals[name] = sum(num_tokens)
        assert totals["default"] < 0.8 * totals["mixed"]

    def test_a_seed_repeats_itself(self, arguments, tmp_path):
        runs_of = [finetune(arguments(max_steps=6, output_dir=str(tmp_path / name))).records[0] for name in "ab"]
        assert runs_of[0]["metrics"] == runs_of[1]["metrics"]

    def test_a_killed_run_continues_as_if_it_had_not_been_killed(self, arguments, tmp_path, monkeypatch):
        def plan():  # the best score comes first, and patience is at its end after three worse ones
            planned = iter([0.9, 0.5, 0.4, 0.3])
            monkeypatch.setattr(sequence_classification, "glue_score", lambda metrics: next(planned, 0.0))

        settings = {"eval_steps": 3, "max_steps": 15, "early_stopping_patience": 3, "logging_steps": 1}
        plan()
        straight = finetune(arguments(**settings, output_dir=str(tmp_path / "straight"))).records[0]
        plan()
        with pytest.raises(KeyboardInterrupt):
            finetune(arguments(**settings), callbacks=[Kill(8)])
        assert not arguments().records_file.exists()
        log = Log()
        resumed = finetune(arguments(**settings), callbacks=[log]).records[0]
        assert (straight["num_steps"], straight["best_step"]) == (12, 3)
        assert (straight["resumed_from"], resumed["resumed_from"]) == (None, "checkpoint-6")
        assert len(log.values("grad_norm")) == straight["num_steps"] - 6, "the first six steps are not repeated"
        for name in ("metrics", "scores", "losses", "num_steps", "best_step"):
            assert resumed[name] == straight[name], name

    @pytest.mark.parametrize(
        "scores", mostly_slow([[0.1, 0.9, 0.5, 0.4], [0.1, 0.2, 0.3, 0.9, 0.5]], 2), ids=["early", "last step"]
    )
    def test_a_run_that_is_killed_when_training_is_over_trains_no_step_more(
        self, scores, arguments, tmp_path, monkeypatch
    ):
        """Evaluated every 3 steps of an epoch's 8: it ends within one, by patience or by the number of steps."""

        class KillAtTheEnd(TrainerCallback):
            def on_save(self, args, state, control, **kwargs):
                if control.should_training_stop:
                    raise KeyboardInterrupt

        def plan():
            planned = iter(scores)
            monkeypatch.setattr(sequence_classification, "glue_score", lambda metrics: next(planned, 0.0))

        settings = {"eval_steps": 3, "max_steps": 15, "early_stopping_patience": 2, "logging_steps": 1}
        plan()
        straight = finetune(arguments(**settings, output_dir=str(tmp_path / "straight"))).records[0]
        plan()
        with pytest.raises(KeyboardInterrupt):
            finetune(arguments(**settings), callbacks=[KillAtTheEnd()])
        log = Log()
        resumed = finetune(arguments(**settings), callbacks=[log]).records[0]
        assert log.num_trainings == 0
        assert resumed["num_steps"] == 3 * len(scores)
        for name in ("metrics", "scores", "losses", "num_steps", "best_step"):
            assert resumed[name] == straight[name], name

    @pytest.mark.parametrize(
        ("step", "interval"),
        [
            pytest.param(12, {"eval_steps": 3}, id="within an epoch-steps"),
            pytest.param(8, {}, id="at its end-epochs", marks=pytest.mark.slow),
            pytest.param(20, {"eval_steps": 3}, id="at the very end-steps", marks=pytest.mark.slow),
            pytest.param(20, {}, id="at the very end-epochs", marks=pytest.mark.slow),
        ],
    )
    def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on(self, interval, step, arguments, tmp_path, capsys):
        """Epochs of 8 steps, the last one cut short."""
        settings = {**interval, "max_steps": 20, "early_stopping_patience": 9, "logging_steps": 1}
        straight = finetune(arguments(**settings, output_dir=str(tmp_path / "straight"))).records[0]
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            finetune(arguments(**settings), callbacks=[Terminate(step)])
        assert ended.value.code == 0
        assert f"stopped after step {step}, as asked; the same command goes on" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) == before
        assert not arguments().records_file.exists()
        resumed = finetune(arguments(**settings)).records[0]
        assert resumed["resumed_from"] == f"checkpoint-{step}"
        for name in ("metrics", "scores", "losses", "num_steps", "best_step"):
            assert resumed[name] == straight[name], name

    @pytest.mark.parametrize("is_other_asked", [True, False])
    def test_all_processes_end_the_same_step(self, is_other_asked, monkeypatch):
        monkeypatch.setattr(runs, "reduce", lambda asked: (asked + is_other_asked) / 2)  # a mean of two
        arguments = SimpleNamespace(world_size=2, device="cpu", save_strategy="steps")
        state, control = TrainerState(global_step=3, max_steps=9, epoch=0.5), TrainerControl()
        leaving = runs._LeaveBetweenSteps(StopRequest())
        leaving.on_step_end(arguments, state, control)
        assert control.should_save is is_other_asked
        with pytest.raises(SystemExit) if is_other_asked else nullcontext():
            leaving.on_save(arguments, state, control)

    def test_two_checkpoints_are_kept_and_the_best(self, arguments, monkeypatch):
        planned = iter([0.9, 0.5, 0.4, 0.3])
        monkeypatch.setattr(sequence_classification, "glue_score", lambda metrics: next(planned, 0.0))
        with pytest.raises(KeyboardInterrupt):
            finetune(arguments(eval_steps=2, max_steps=12, early_stopping_patience=9), callbacks=[Kill(9)])
        kept = checkpoint_folders.list_checkpoints(next(Path(arguments().output_dir).rglob("run")))
        assert [folder.name for folder in kept] == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]

    def test_early_stopping_keeps_the_best_weights(self, arguments, monkeypatch):
        planned = iter([0.1, 0.9, 0.5, 0.9, 0.3, 0.95])
        monkeypatch.setattr(sequence_classification, "glue_score", lambda metrics: next(planned, 0.0))
        log = Log()
        asked = arguments(eval_steps=1, max_steps=40, early_stopping_patience=3)
        record = finetune(asked, callbacks=[log]).records[0]
        assert record["scores"] == [[1, 0.1], [2, 0.9], [3, 0.5], [4, 0.9], [5, 0.3]]
        assert (record["best_step"], record["num_steps"], record["selected_on"]) == (2, 5, "validation")
        (saved,) = Path(asked.output_dir).rglob("model.safetensors")
        weights = load_file(saved)
        for step, is_best in ((2, True), (4, False), (5, False)):
            assert all(torch.equal(weights[name], log.weights[step][name]) for name in weights) is is_best

    def test_the_test_split_selects_nothing(self, home, arguments, tmp_path):
        flipped = [(text, "negative" if label == "positive" else "positive") for text, label in reviews(16, seed=2)]
        tests = [str(home / "test.csv"), write_csv(tmp_path / "flipped.csv", flipped)]
        both = [
            finetune(
                arguments(test_file=test, early_stopping_patience=1, max_steps=16, output_dir=str(tmp_path / name))
            ).records[0]
            for name, test in zip("ab", tests, strict=True)
        ]
        assert both[0]["scores"] == both[1]["scores"]
        assert both[0]["metrics"]["validation"] == both[1]["metrics"]["validation"]
        assert both[0]["metrics"]["test"]["accuracy"] == 1 - both[1]["metrics"]["test"]["accuracy"]

    def test_regression_on_pairs(self, home, arguments, tmp_path):
        rows = [(a, b, float(a == b)) for a in GOOD + BAD for b in GOOD + BAD]
        files = [write_csv(tmp_path / f"{name}.csv", rows, ("sentence1", "sentence2", "label")) for name in "ab"]
        shutil.copytree(home / "child", tmp_path / "classifier")
        config = NasBertConfig.from_pretrained(home / "child", problem_type="single_label_classification")
        config.save_pretrained(tmp_path / "classifier")
        model = str(tmp_path / "classifier")
        constant = write_csv(tmp_path / "c.csv", [("good", "bad", 1.5)] * 3, ("sentence1", "sentence2", "label"))
        asked = arguments(train_file=files[0], validation_file=files[1], test_file=constant, max_steps=4, model=model)
        asked.problem_type = "regression"  # all are whole numbers
        record = finetune(asked).records[0]
        assert {"pearson", "spearmanr", "score", "loss"} == set(record["metrics"]["validation"])
        assert (record["metrics"]["test"]["pearson"], record["metrics"]["test"]["score"]) == (None, 0.0)
        saved = AutoModelForSequenceClassification.from_pretrained(Path(asked.output_dir) / "a" / "seed-0")
        assert (saved.config.num_labels, saved.config.problem_type) == (1, "regression")

    def test_accumulated_parts_average(self, home, arguments, tmp_path):
        """Stock BERT swallows `num_items_in_batch`: Trainer alone would take four times the gradient."""
        config = BertConfig.from_pretrained(home / "bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
        shutil.copytree(home / "bert", tmp_path / "still")
        config.save_pretrained(tmp_path / "still")
        norms = []
        for parts in (1, 4):
            log = Log()
            asked = {
                "model": str(tmp_path / "still"),
                "gradient_accumulation_steps": parts,
                "output_dir": f"{tmp_path}/{parts}",
            }
            finetune(arguments(max_steps=2, logging_steps=1, **asked), callbacks=[log])
            norms.append(log.values("grad_norm"))
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)

    def test_dropout_overrides_reach_the_model(self, home, arguments):
        asked = arguments(hidden_dropout_prob=0.0, classifier_dropout=0.25)
        config = runs.load_config(asked, None, hidden_dropout_prob=0.0, classifier_dropout=0.25)
        model = runs.load_model(AutoModelForSequenceClassification, asked, None, config)
        assert model.dropout.p == 0.25
        assert model.bert.embeddings.dropout.p == 0.0
        finetune(arguments(hidden_dropout_prob=0.0, max_steps=1))
        (saved,) = Path(asked.output_dir).rglob("config.json")
        assert json.loads(saved.read_text())["hidden_dropout_prob"] == 0.0

    def test_a_field_that_the_model_lacks_is_refused(self, home, arguments, tmp_path):
        DistilBertConfig(vocab_size=64, dim=32, n_layers=1, n_heads=1).save_pretrained(tmp_path / "distil")
        AutoTokenizer.from_pretrained(home / "bert").save_pretrained(tmp_path / "distil")
        with pytest.raises(ValueError, match=r"hidden_dropout_prob=0\.1 cannot be set: the distilbert"):
            finetune(arguments(model=str(tmp_path / "distil"), hidden_dropout_prob=0.1))

    def test_from_scratch_has_the_same_shape_and_none_of_the_weights(self, home, arguments):
        config = runs.load_config(arguments(), None)
        stored = load_file(home / "bert" / "model.safetensors")
        name = "bert.embeddings.word_embeddings.weight"
        loaded = runs.load_model(AutoModelForSequenceClassification, arguments(), None, config).state_dict()
        scratch = runs.load_model(AutoModelForSequenceClassification, arguments(from_scratch=True), None, config)
        assert torch.equal(loaded[name], stored[name])
        assert not torch.allclose(scratch.state_dict()[name], stored[name])
        assert {key: value.shape for key, value in scratch.state_dict().items()} == {
            k: v.shape for k, v in loaded.items()
        }
        record = finetune(arguments(from_scratch=True, max_steps=2)).records[0]
        assert record["settings"]["from_scratch"] is True

    def test_a_head_of_another_task_is_replaced(self, home, tmp_path):
        arguments = FinetuneArguments(model=str(tmp_path), output_dir="-", task="rte")
        config = runs.load_config(arguments.__class__(model=str(home / "bert"), output_dir="-", task="rte"), None)
        config.num_labels = 3
        three = AutoModelForSequenceClassification.from_config(config)
        three.save_pretrained(tmp_path)
        config = runs.load_config(arguments, None)
        config.num_labels = 2
        two = runs.load_model(AutoModelForSequenceClassification, arguments, None, config)
        assert two.classifier.weight.shape[0] == 2
        assert torch.equal(two.bert.pooler.dense.weight, three.bert.pooler.dense.weight)

    @pytest.mark.parametrize("model", ["bert", "child"])
    def test_an_incomplete_model_is_refused(self, model, home, arguments, tmp_path):
        shutil.copytree(home / model, tmp_path / "torn")
        weights = load_file(tmp_path / "torn" / "model.safetensors")
        lost = next(name for name in weights if ".encoder." in name and name.endswith("weight"))
        save_file(
            {k: v for k, v in weights.items() if k != lost}, tmp_path / "torn" / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(ValueError, match=f"lacks 1 weights.*{lost}"):
            finetune(arguments(model=str(tmp_path / "torn")))

    def test_a_half_precision_folder_trains_in_full_precision(self, home, arguments, tmp_path):
        BertForMaskedLM.from_pretrained(home / "bert", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
        for asked in (arguments(model=str(tmp_path / "half"), from_scratch=scratch) for scratch in (False, True)):
            model = runs.load_model(AutoModelForSequenceClassification, asked, None, runs.load_config(asked, None))
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    def test_code_of_others_runs_only_if_trusted(self, home, arguments, tmp_path):
        foreign = tmp_path / "foreign"
        shutil.copytree(home / "child", foreign)
        for name in ("config.json", "configuration_nasbert.py"):  # a model type that nobody registered
            text = (foreign / name).read_text().replace('"model_type": "nasbert"', '"model_type": "foreign"')
            (foreign / name).write_text(text.replace('model_type = "nasbert"', 'model_type = "foreign"'))
        with pytest.raises(ValueError, match="pass trust_remote_code"):
            finetune(arguments(model=str(foreign)))
        asked = arguments(model=str(foreign), trust_remote_code=True, max_steps=1)
        record = finetune(asked).records[0]
        assert record["num_steps"] == 1
        folder = Path(asked.output_dir) / home.name / "seed-0"
        assert (folder / "modeling_nasbert.py").exists()
        assert json.loads((folder / "config.json").read_text())["model_type"] == "foreign"

    def test_a_hub_model_is_pinned_to_its_commit(self, home, arguments, tmp_path, monkeypatch):
        """From a cache laid out as the Hub's client leaves it."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "hub" / "models--user--bert"
        shutil.copytree(home / "bert", repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        (record,) = finetune(arguments(model="user/bert", max_steps=1)).records
        assert (record["model"], record["revision"]) == ("user/bert", commit)

    def test_a_tokenizer_that_is_too_large_is_refused(self, home, arguments, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(home / "bert")
        size = len(tokenizer)
        tokenizer.add_tokens(["blockbuster", "sequel"])
        tokenizer.save_pretrained(tmp_path / "large")
        with pytest.raises(ValueError, match=rf"large' has {size + 2} tokens.*bert' only {size}:"):
            finetune(arguments(tokenizer_name=str(tmp_path / "large")))

    def test_models_that_do_not_fit_are_refused(self, home, arguments, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no model 'no/such'"):
            finetune(arguments(model="no/such"))
        with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
            finetune(arguments(model=str(tmp_path)))
        with pytest.raises(ValueError, match=r"revision=v2 is of a model on the Hub, and .* is a folder"):
            finetune(arguments(revision="v2"))
        with pytest.raises(ValueError, match="max_seq_length=65 is more than the 64 positions"):
            finetune(arguments(max_seq_length=65))
        tokenizer = AutoTokenizer.from_pretrained(home / "bert")
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
        positions = {"max_position_embeddings": 18, "pad_token_id": 1}  # of which RoBERTa never uses the first two
        roberta = RobertaForMaskedLM(RobertaConfig(vocab_size=len(tokenizer), **sizes, **positions))
        for part in (roberta, tokenizer):
            part.save_pretrained(tmp_path / "roberta")
        with pytest.raises(ValueError, match="max_seq_length=17 is more than the 16 positions"):
            finetune(arguments(model=str(tmp_path / "roberta"), max_seq_length=17))
        SupernetConfig.preset("quickstart").save_pretrained(tmp_path / "supernet")
        with pytest.raises(ValueError, match="is a super-net; extract"):
            finetune(arguments(model=str(tmp_path / "supernet")))

    def test_another_run_or_model_is_never_overwritten(self, home, arguments, tmp_path):
        finetune(arguments(max_steps=1))
        with pytest.raises(ValueError, match=r"another learning_rate \(0\.01, now 0\.5\); choose another output_dir"):
            finetune(arguments(max_steps=1, learning_rate=0.5))
        with pytest.raises(ValueError, match="holds a run with another data"):
            finetune(arguments(max_steps=1, max_train_samples=60))
        tokenizer = train_tokenizer([" ".join(GOOD + BAD)] * 3, 64)
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        with pytest.raises(ValueError, match="holds a run with another tokenizer"):
            finetune(arguments(max_steps=1, tokenizer_name=str(tmp_path / "tokenizer")))
        # Nor is a result taken for that of a model that has changed under the same name.
        shutil.copytree(home / "bert", tmp_path / "model")
        finetune(arguments(max_steps=1, model=str(tmp_path / "model")))
        weights = load_file(tmp_path / "model" / "model.safetensors")
        save_file(
            {name: tensor + 1 for name, tensor in weights.items()},
            tmp_path / "model" / "model.safetensors",
            {"format": "pt"},
        )
        with pytest.raises(ValueError, match="holds a run with another model"):
            finetune(arguments(max_steps=1, model=str(tmp_path / "model")))
        foreign = tmp_path / "foreign" / home.name / "seed-0"
        foreign.mkdir(parents=True)
        (foreign / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="holds a model that this run did not make"):
            finetune(arguments(output_dir=str(tmp_path / "foreign")))
        assert (foreign / "config.json").read_text() == "{}"

    @pytest.mark.parametrize(
        ("refused", "message"),
        [
            ({"lr_scheduler_type": "linaer"}, "linaer is not a valid SchedulerType"),
            ({"lr_scheduler_type": "warmup_stable_decay"}, "warmup_stable_decay needs settings"),
            ({"lr_scheduler_type": "cosine_with_min_lr"}, "cosine_with_min_lr needs settings"),
            ({"bf16": True, "fp16": True}, "At most one of fp16 and bf16"),
        ],
    )
    def test_a_refused_setting_does_not_claim_the_folder(self, arguments, refused, message):
        with pytest.raises(ValueError, match=message):
            finetune(arguments(max_steps=1, **refused))
        assert len(finetune(arguments(max_steps=1)).records) == 1

    def test_a_refused_model_does_not_claim_the_folder(self, home, arguments, tmp_path):
        shutil.copytree(home / "child", tmp_path / "model")
        whole = load_file(tmp_path / "model" / "model.safetensors")
        lost = next(name for name in whole if name.startswith("nasbert."))
        rest = {name: tensor for name, tensor in whole.items() if name != lost}
        save_file(rest, tmp_path / "model" / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match="lacks 1 weights"):
            finetune(arguments(max_steps=1, model=str(tmp_path / "model")))
        save_file(whole, tmp_path / "model" / "model.safetensors", {"format": "pt"})
        assert len(finetune(arguments(max_steps=1, model=str(tmp_path / "model"))).records) == 1

    def test_samples_are_the_same_for_every_seed(self, arguments):
        tasks = [
            sequence_classification.load_task(arguments(max_train_samples=10, max_eval_samples=5, seeds=[seed]))
            for seed in (0, 1)
        ]
        assert tasks[0].train[:] == tasks[1].train[:]
        assert [len(rows) for rows in tasks[0].splits.values()] == [10, 5]
        assert tasks[0].train[:]["text"] != sequence_classification.load_task(arguments()).train[:10]["text"], (
            "a random part"
        )

    def test_of_one_file_a_part_is_held_out_and_no_text_is_on_both_sides(self, arguments, tmp_path, caplog):
        rows = [*reviews(40, seed=0), *reviews(40, seed=0)]  # every text twice
        write_csv(tmp_path / "mine.csv", rows)
        given = {"train_file": str(tmp_path / "mine.csv"), "validation_file": None, "validation_fraction": 0.25}
        tasks = [sequence_classification.load_task(arguments(**given, data_seed=seed)) for seed in (0, 0, 1)]
        assert "mine: no validation_file, so " in caplog.text
        train, held = (set(tasks[0].splits[name]["text"]) for name in ("train", "validation"))
        assert not train & held
        assert train | held == {text for text, _ in rows}
        assert len(held) == round(0.25 * len(train | held))
        assert tasks[0].digest() == tasks[1].digest() != tasks[2].digest()
        assert tasks[0].test is None

    def test_one_example_cannot_be_split(self, arguments, tmp_path):
        write_csv(tmp_path / "mine.csv", [("good film", "good"), ("good  Film", "bad")])
        with pytest.raises(ValueError, match=r"mine: 2 example.s. with 1 different text"):
            sequence_classification.load_task(arguments(train_file=str(tmp_path / "mine.csv"), validation_file=None))

    def test_predictions_that_are_not_finite_are_an_error(self, arguments):
        compute = sequence_classification.make_compute_metrics(sequence_classification.load_task(arguments()))
        logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).numpy()
        labels = torch.tensor([1, 1]).numpy()
        expected = {"accuracy": 0.5, "score": 0.5, "calibration_error": calibration_error(logits, labels)}
        assert compute(EvalPrediction(logits, labels)) == expected
        assert compute(EvalPrediction((logits, logits), labels)) == expected
        logits[0, 0] = math.nan
        with pytest.raises(ValueError, match="diverged; lower learning_rate"):
            compute(EvalPrediction(logits, labels))

    def test_a_model_that_predicts_one_class_is_named_with_what_to_change(self, home, arguments, caplog):
        said = "the model predicts negative for every example, though they have 2 labels: it has not learnt the task"
        train = write_csv(
            home / "one-sided.csv", [(text, "negative") for text, _ in reviews(31, seed=3)] + [("good", "positive")]
        )
        finetune(arguments(train_file=train, max_steps=4, output_dir=str(home / "one-sided")))
        assert f"one-sided, seed 0, validation split: {said}" in caplog.text
        assert "--num_train_epochs" in caplog.text
        caplog.clear()
        finetune(arguments(save_models=False))
        assert "for every example" not in caplog.text

    def test_undefined_metrics_do_not_count(self):
        records = [{"metrics": {"validation": {"pearson": value}}} for value in (0.5, None)]
        spread = FinetuneResult("stsb", "model", records).summary()["validation"]["pearson"]
        assert (spread.mean, spread.sd, spread.n) == (0.5, None, 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"task": "rte", "packaged": "stsb"}, "got task and packaged"),
            ({"train_file": None, "validation_file": None}, "got none"),
            ({"validation_fraction": 0.0}, "validation_fraction=0.0"),
            ({"task": "rte", "test_file": "x.csv"}, "go with train_file, not with task"),
            ({"seeds": []}, "one or more different numbers"),
            ({"seeds": [1, 1]}, "one or more different numbers"),
            ({"max_steps": 0}, "max_steps=0"),
            ({"batch_size": 0}, "batch_size=0"),
            ({"learning_rate": 0.0}, "learning_rate=0.0"),
            ({"batch_size": 8, "gradient_accumulation_steps": 3}, "cannot be cut"),
        ],
    )
    def test_settings_that_make_no_sense(self, arguments, changes, message):
        with pytest.raises(ValueError, match=message):
            arguments(**changes)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["stsb", "rotten_tomatoes"])
    def test_real_packaged_data(self, name, arguments):
        try:
            asked = arguments(packaged=name, max_train_samples=64, max_eval_samples=64, max_steps=2)
            record = finetune(asked).records[0]
        except FileNotFoundError as error:
            pytest.skip(str(error))
        assert set(record["metrics"]) == {"validation", "test"}


class TestPretrainChild:
    @pytest.fixture
    def make(self, home, tmp_path):
        def make(output: str = "child", **changes) -> tuple[PretrainChildArguments, DataArguments]:
            settings = {
                "model": str(home / "child"), "max_steps": 10, "save_steps": 4, "batch_size": 8, "learning_rate": 1e-2,
                "num_dev_batches": 2, "dev_batch_size": 4, "logging_steps": 1, "disable_tqdm": True,
            }  # fmt: skip
            text = {"max_seq_length": 16, "validation_fraction": 0.2, "cache_dir": str(home / "cache")}
            text |= {
                name: changes.pop(name)
                for name in list(changes)
                if hasattr(DataArguments, name) and name not in settings
            }
            data = DataArguments(train_files=[str(home / "corpus.txt")], **text)
            return PretrainChildArguments(**settings | {"output_dir": str(tmp_path / output)} | changes), data

        return make

    @pytest.mark.parametrize(
        ("refused", "message"),
        [({"lr_scheduler_type": "linaer"}, "linaer"), ({"bf16": True, "fp16": True}, "fp16 and bf16")],
    )
    def test_a_refused_setting_does_not_claim_the_folder(self, make, refused, message):
        with pytest.raises(ValueError, match=message):
            pretrain_child(*make(max_steps=1, **refused))
        assert pretrain_child(*make(max_steps=1))["num_steps"] == 1

    @pytest.mark.parametrize("model", mostly_slow(["child", "bert"], 2))
    def test_trains_and_saves_a_folder_of_its_own(self, model, home, make):
        asked, data = make(model=str(home / model))
        record = pretrain_child(asked, data)
        corpus = load_corpus(DataArguments(**vars(data) | {"tokenizer_name": str(home / model)}))
        dev = fixed_masked_batches(corpus.dev, corpus.tokenizer, 2, 4, 0)
        saved = AutoModelForMaskedLM.from_pretrained(asked.output_dir)
        for folder, name in ((home / model, "dev_loss_before"), (asked.output_dir, "dev_loss_after")):
            # All logits, then the labelled ones: independent of `dev_loss` and of sparse prediction.
            network = AutoModelForMaskedLM.from_pretrained(folder).eval()
            with torch.no_grad():
                logits = torch.cat([network(**{**batch, "labels": None}).logits.flatten(0, 1) for batch in dev])
            labels = torch.cat([batch["labels"].flatten() for batch in dev])
            assert record[name] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)
        assert record["dev_loss_after"] < record["dev_loss_before"] - 0.5
        assert record["num_tokens"] == 10 * 8 * 16
        assert len(AutoTokenizer.from_pretrained(asked.output_dir)) == saved.config.vocab_size
        assert not list(Path(asked.output_dir).rglob("checkpoint-*"))
        if model == "child":
            assert saved.config.sparse_prediction is False
            assert (Path(asked.output_dir) / "operators_nasbert.py").exists()
        log = Log()
        assert pretrain_child(asked, data, callbacks=[log]) == record
        assert log.num_trainings == 0
        data.data_seed = 1
        with pytest.raises(ValueError, match="holds a run with another batches"):
            pretrain_child(asked, data)

    @pytest.mark.parametrize("model", ["bert", "child"])
    def test_only_masked_positions_are_predicted(self, model, home, make, monkeypatch):
        rows = []
        linear = torch.nn.functional.linear
        vocab_size = AutoModelForMaskedLM.from_pretrained(home / model).config.vocab_size

        def spy(states, weight, bias=None):
            if len(weight) == vocab_size:
                rows.append(states.numel() // states.shape[-1])
            return linear(states, weight, bias)

        monkeypatch.setattr(torch.nn.functional, "linear", spy)
        pretrain_child(*make(max_steps=1, model=str(home / model)))
        assert len(rows) == 1 + 2 * 2  # a step of 8 x 16 tokens; twice two dev batches of 4 x 16
        assert max(rows) < 8 * 16 / 2

    def test_every_model_sees_the_supernets_batches(self, home, make, monkeypatch):
        seen = []
        batch = MaskedBatches.batch

        def spy(self, step, rows=slice(None)):
            seen.append((step, rows.start, rows.stop, batch(self, step, rows)["input_ids"]))
            return batch(self, step, rows)

        monkeypatch.setattr(MaskedBatches, "batch", spy)
        for name, model in (("a", "child"), ("b", "bert")):
            pretrain_child(*make(name, model=str(home / model), max_steps=3, gradient_accumulation_steps=2))
        first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
        assert [entry[:3] for entry in first] == [(step, row, row + 4) for step in range(3) for row in (0, 4)]
        assert [entry[:3] for entry in second] == [entry[:3] for entry in first]
        assert all(torch.equal(a[3], b[3]) for a, b in zip(first, second, strict=True))

    @pytest.mark.slow
    def test_a_killed_run_continues_as_if_it_had_not_been_killed(self, make):
        straight = pretrain_child(*make("straight"))
        with pytest.raises(KeyboardInterrupt):
            pretrain_child(*make("killed"), callbacks=[Kill(9)])
        resumed = pretrain_child(*make("killed"))
        assert resumed["resumed_from"] == "checkpoint-8"
        for name in ("dev_loss_before", "dev_loss_after", "losses", "num_steps"):
            assert resumed[name] == straight[name], name
        folders = [Path(make(name)[0].output_dir) for name in ("straight", "killed")]
        a, b = (load_file(folder / "model.safetensors") for folder in folders)
        assert all(torch.equal(a[name], b[name]) for name in a)

    @pytest.mark.slow
    def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on(self, make):
        straight = pretrain_child(*make("straight"))
        with pytest.raises(SystemExit):
            pretrain_child(*make("stopped"), callbacks=[Terminate(7)])
        resumed = pretrain_child(*make("stopped"))
        assert resumed["resumed_from"] == "checkpoint-7"
        for name in ("dev_loss_before", "dev_loss_after", "losses", "num_steps"):
            assert resumed[name] == straight[name], name

    @pytest.mark.slow
    def test_sigkill_at_the_first_sign_of_a_checkpoint(self, make, tmp_path):
        (asked, data), (killed, _) = make("straight", max_steps=40), make("killed", max_steps=40)
        straight = pretrain_child(asked, data)
        process = forked(pretrain_child, killed, data)
        while process.is_alive() and not list((tmp_path / "killed").glob("run/checkpoint-*")):
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        resumed = pretrain_child(killed, data)
        for name in ("dev_loss_before", "dev_loss_after", "num_steps"):
            assert resumed[name] == straight[name], name

    @pytest.mark.slow
    def test_from_scratch_needs_no_weights(self, home, make, tmp_path):
        config = BertConfig.from_pretrained(home / "bert")
        config.save_pretrained(tmp_path / "config")
        asked = {"model": str(tmp_path / "config"), "tokenizer_name": str(home / "child"), "from_scratch": True}
        record = pretrain_child(*make(max_steps=2, **asked))
        assert record["dev_loss_before"] == pytest.approx(math.log(config.vocab_size), abs=0.3)
        assert AutoModelForMaskedLM.from_pretrained(make()[0].output_dir).config.model_type == "bert"
        pretrain_child(*make("new", max_steps=1, model=str(home / "child"), from_scratch=True))
        assert NasBertConfig.from_pretrained(make("new")[0].output_dir).sparse_prediction is False
        # The seed decides the weights.
        other = pretrain_child(*make("other", max_steps=2, seed=1, **asked))
        assert other["dev_loss_before"] != record["dev_loss_before"]
        again = pretrain_child(*make("again", max_steps=2, **asked))
        assert again["dev_loss_after"] == record["dev_loss_after"]

    def test_dev_loss_counts_every_labelled_token_once(self, home, make):
        model = AutoModelForMaskedLM.from_pretrained(home / "child").train()
        labels = torch.tensor([[5, 6, 7, 8], [-100, -100, -100, 9]])
        batch = {"input_ids": labels.clamp(min=5), "attention_mask": torch.ones_like(labels), "labels": labels}
        rows = [{name: tensor[row : row + 1] for name, tensor in batch.items()} for row in range(2)]
        assert dev_loss(model, rows) == pytest.approx(dev_loss(model, [batch]), rel=1e-5)
        assert model.training

    def test_what_does_not_fit_is_refused(self, home, make, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(home / "child")
        tokenizer.add_tokens(["blockbuster"])
        tokenizer.save_pretrained(tmp_path / "large")
        with pytest.raises(ValueError, match=r"large' has .* tokens"):
            pretrain_child(*make(tokenizer_name=str(tmp_path / "large")))
        with pytest.raises(ValueError, match="more than the 64 positions"):
            pretrain_child(*make(max_seq_length=65))
        with pytest.raises(ValueError, match="max_steps=0"):
            make(max_steps=0)
        shutil.copytree(home / "child", tmp_path / "mine")
        before = (tmp_path / "mine" / "model.safetensors").read_bytes()
        with pytest.raises(ValueError, match="holds a model that this run did not make"):
            pretrain_child(*make("mine", model=str(tmp_path / "mine")))
        assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before


class TestRecipes:
    def run(self, recipe: str, argv: list[str]) -> None:
        run_recipe(recipe, *argv)

    def test_finetune_glue(self, home, tmp_path, capsys):
        config = tmp_path / "config.yaml"
        config.write_text(
            f"model: {home / 'child'}\ntrain_file: {home / 'train.csv'}\nvalidation_file: {home / 'validation.csv'}\n"
            f"output_dir: {tmp_path / 'out'}\nmax_steps: 100\nmax_seq_length: 16\nseeds: [0, 1]\ndisable_tqdm: true\n"
            f"cache_dir: {home / 'cache'}\n"
        )
        self.run("finetune_glue", ["--config", str(config), "--max_steps", "1"])
        assert "| validation | accuracy | 0." in capsys.readouterr().out
        assert [record["num_steps"] for record in read_records(tmp_path / "out" / "records.jsonl")] == [1, 1]
        with pytest.raises(SystemExit):
            self.run("finetune_glue", ["--config", str(config), "--task", "sst3"])
        assert "sst3" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            self.run("finetune_glue", ["--config", str(config), "--learnin_rate", "1"])
        assert "learning_rate" in capsys.readouterr().err

    def test_pretrain_child(self, home, tmp_path, capsys):
        argv = f"--model {home / 'child'} --train_files {home / 'corpus.txt'} --output_dir {tmp_path / 'out'}"
        argv += " --max_steps 1 --max_seq_length 16 --num_dev_batches 1 --dev_batch_size 2 --batch_size 2"
        argv += f" --cache_dir {home / 'cache'}"
        self.run("pretrain_child", [*argv.split(), "--validation_fraction", "0.2", "--disable_tqdm"])
        assert "dev loss" in capsys.readouterr().out
        assert (tmp_path / "out" / "model.safetensors").exists()


def test_rows_of_a_step_are_shared_in_order(home):
    data = DataArguments(
        train_files=[str(home / "corpus.txt")], tokenizer_name=str(home / "bert"), max_seq_length=16,
        validation_fraction=0.2, cache_dir=str(home / "cache"),
    )  # fmt: skip
    corpus = load_corpus(data)
    batches = MaskedBatches(corpus.train, corpus.tokenizer, batch_size=8, seed=0)
    examples = pretraining._MaskedExamples(batches, 5)
    assert len(examples) == 40
    rows = examples.__getitems__([20, 21, 22, 23])
    assert all(torch.equal(rows[name], batches.batch(2)[name][4:]) for name in rows)
