"""Cards of fine-tuned models: every kept seed has one, its numbers are its record's, its snippet runs."""

import csv
import json
import random
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import mostly_slow, run_recipe
from safetensors.torch import load_file
from tiny.finetuning import save_models

from hf_nasbert.cards import FinetunedRecord, check_card, quoted_texts, render_finetuned_card
from hf_nasbert.data import PACKAGED_MODELS
from hf_nasbert.finetuning import FinetuneArguments, FinetuneSquadArguments, FinetuneTokensArguments
from hf_nasbert.pipeline import describe_finetuned, finetune_with_cards
from hf_nasbert.records import read as read_records

pytestmark = pytest.mark.usefixtures("quiet_trainer")

WORDS = ["ada", "went", "to", "london", "and", "saw", "it"]
SPLITS = {"train": 12, "validation": 8, "test": 4}
COMMIT = "c" * 40


def texts(num: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices(WORDS, k=6) for _ in range(num)]


def write_csv(file: Path, rows) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two models, and every task's files."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("cards")
    save_models(home, " ".join([*WORDS, "who"]))
    for seed, (split, num) in enumerate(SPLITS.items()):
        found = texts(num, seed)
        labels = [("no", "yes")[row % 2] for row in range(num)]
        write_csv(
            home / f"{split}.csv", [("text", "label"), *((" ".join(x), y) for x, y in zip(found, labels, strict=True))]
        )
        pairs = [(" ".join(words), " ".join(words[:2]), row / 3) for row, words in enumerate(found)]
        write_csv(home / f"pairs-{split}.csv", [("sentence1", "sentence2", "label"), *pairs])
        for name, tags in (("entities", {"ada": "B-PER", "london": "B-LOC"}), ("words", {"ada": "NN", "it": "PR"})):
            rows = [
                {"tokens": ["ada", *words], "tags": [tags.get(word, "O") for word in ("ada", *words)]}
                for words in found
            ]
            (home / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        asked = [
            {
                "context": " ".join(["ada", *words]),
                "qas": [
                    {
                        "id": f"{seed}-{row}",
                        "question": "who",
                        "is_impossible": row % 4 == 0,
                        "answers": [{"text": "ada", "answer_start": 0}] * (row % 4 > 0),
                    }
                ],
            }
            for row, words in enumerate(found)
        ]
        (home / f"questions-{split}.json").write_text(json.dumps({"data": [{"title": "x", "paragraphs": asked}]}))
    return home


TASKS = {  # prefix and ending of the files, the arguments' class, what else it is asked, the card's pipeline
    "sentences": ("", "csv", FinetuneArguments, {}, "text-classification"),
    "a regression on pairs": ("pairs-", "csv", FinetuneArguments, {}, "text-classification"),
    "entities": ("entities-", "jsonl", FinetuneTokensArguments, {}, "token-classification"),
    "other tags": ("words-", "jsonl", FinetuneTokensArguments, {}, "token-classification"),
    "questions": (
        "questions-",
        "json",
        FinetuneSquadArguments,
        {"max_question_length": 6, "doc_stride": 4},
        "question-answering",
    ),
}


@pytest.fixture
def arguments(home, tmp_path):
    def make(task: str = "sentences", **changes):
        prefix, ending, arguments, settings, _ = TASKS[task]
        files = {f"{split}_file": str(home / f"{prefix}{split}.{ending}") for split in SPLITS}
        return arguments(
            **{
                "model": str(home / "child"), "output_dir": str(tmp_path / "out"), "max_seq_length": 24,
                "max_steps": 2, "batch_size": 4, "learning_rate": 1e-2, "seeds": [0, 1], "disable_tqdm": True,
                "cache_dir": str(home / "cache"), **files, **settings, **changes,
            }
        )  # fmt: skip

    return make


def rows_of(card: str, first: str) -> dict[tuple[str, str], list[str]]:
    """Rows of the table whose fifth column has this head, by split and metric."""
    lines = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in card.splitlines()]
    start = next(place for place, cells in enumerate(lines) if first in cells)
    found = {}
    for cells in lines[start + 2 :]:
        if len(cells) < 5:
            break
        found[cells[1], cells[3]] = cells
    return found


@pytest.mark.parametrize("task", mostly_slow(TASKS, 3))
def test_every_seed_has_a_card_whose_numbers_are_its_records(task, arguments, capsys):
    asked = arguments(task)
    result = finetune_with_cards(asked)
    assert len(result.records) == 2
    for record in read_records(asked.records_file):
        folder = asked.model_folder(result.task, record["seed"])
        card = (folder / "README.md").read_text()
        data = check_card(card)
        assert (data.library_name, data.pipeline_tag) == ("transformers", TASKS[task][4] or record["hub_task"])
        assert data.get("base_model") is data.get("datasets") is None, "a folder and files have no name on the Hub"
        expected = {
            (split, metric): value
            for split in ("validation", "test")
            for metric, value in record["metrics"][split].items()
            if metric not in ("loss", "score") and not metric.startswith("best_") and value is not None
        }
        assert {split for split, _ in expected} == {"validation", "test"}
        assert {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results} == {
            key: round(value, 6) for key, value in expected.items()
        }
        assert {one.task_type for one in data.eval_results} == {TASKS[task][4]}
        own, both = rows_of(card, "This model"), rows_of(card, "All seeds")
        for (split, metric), value in expected.items():
            cells = ["", split, str(record["num_samples"][split]), metric]
            assert own[split, metric][1:] == [*cells[1:], f"{value:.4f}", "1"]
            values = [one["metrics"][split][metric] for one in result.records]
            if None not in values:
                spread = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
                assert both[split, metric][1:] == [*cells[1:], spread, "2"]
        for words in (
            f"| parameters | {record['num_parameters']:,} |",
            "| optimizer steps | 2 |",
            "| training examples | 12 |",
            "| examples of a step | 4 |",
            "| learning rate | 0.01 |",
        ):
            assert words in card
        assert str(asked.output_dir) not in card + (folder / "card.json").read_text()
        assert asked.model not in card + (folder / "card.json").read_text()
        (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        capsys.readouterr()
        assert '"path/to/this/folder", trust_remote_code=True' in snippet
        if task != "questions":
            words = texts(1, seed=list(SPLITS).index("validation"))[0]
            words = ["ada", *words] if task in ("entities", "other tags") else words
            quoted = [" ".join(words), " ".join(words[:2])] if task == "a regression on pairs" else [" ".join(words)]
            # No pair's second text is a short sentence of three words: the first words of the first pair stand there.
            assert quoted_texts(card) == quoted, "the first held-out input, and no word of it is Paris"
        exec(snippet.replace("path/to/this/folder", str(folder)), {})
        assert capsys.readouterr().out
    assert ("text_pair" in snippet) == (task == "a regression on pairs")
    assert ("aggregation_strategy" in snippet) == (task == "entities")


def test_a_stock_bert_needs_no_code_and_no_paper_of_ours(home, arguments):
    asked = arguments(model=str(home / "bert"), seeds=[0], early_stopping_patience=1)
    result = finetune_with_cards(asked)
    card = (asked.model_folder(result.task, 0) / "README.md").read_text()
    assert "trust_remote_code" not in card
    assert "Citation" not in card
    assert check_card(card).tags == ["bert"]
    assert "The best weights were chosen on `validation`" in card
    assert "One seed was trained: it has no spread" in card
    assert "All seeds" not in card


def test_a_packaged_model_is_fine_tuned_by_its_name_and_is_the_cards_base_model(home, arguments, monkeypatch):
    packaged = SimpleNamespace(hub_id="someone/bert", paths=lambda: (home / "bert" / "config.json",))
    monkeypatch.setitem(PACKAGED_MODELS, "tiny", packaged)
    asked = arguments(model="packaged:tiny", seeds=[0], learning_rate=1e-9)
    result = finetune_with_cards(asked)
    folder = asked.model_folder(result.task, 0)
    weight = "bert.embeddings.word_embeddings.weight"
    ours, theirs = (load_file(place / "model.safetensors")[weight] for place in (folder, home / "bert"))
    assert torch.allclose(ours, theirs, atol=1e-6)
    card = (folder / "README.md").read_text()
    assert check_card(card).base_model == "someone/bert"
    assert str(home) not in card + json.dumps(result.records)
    with pytest.raises(ValueError, match="no packaged model 'other'"):
        finetune_with_cards(arguments(model="packaged:other"))


class TestWhoseCard:
    def test_ours_is_made_again_when_a_seed_is_added(self, arguments):
        finetune_with_cards(arguments(seeds=[0]))
        asked = arguments(seeds=[0, 1])
        task = finetune_with_cards(asked).task
        card = (asked.model_folder(task, 0) / "README.md").read_text()
        assert {cells[-1] for cells in rows_of(card, "All seeds").values()} == {"2"}
        finetune_with_cards(arguments(seeds=[0]))
        assert (asked.model_folder(task, 0) / "README.md").read_text() == card, (
            "a seed that was trained is not forgotten"
        )

    @pytest.mark.parametrize("change", mostly_slow(["mine", "{}\nA word of mine.\n"], 2), ids=["written", "edited"])
    def test_somebody_elses_stays(self, arguments, change):
        task = finetune_with_cards(arguments(seeds=[0])).task
        asked = arguments(seeds=[0, 1])
        card = asked.model_folder(task, 0) / "README.md"
        mine = change.format(card.read_text())
        card.write_text(mine)
        record = card.with_name("card.json").read_bytes()
        finetune_with_cards(asked)
        assert card.read_text() == mine
        assert card.with_name("card.json").read_bytes() == record
        assert (asked.model_folder(task, 1) / "README.md").exists()

    def test_a_model_of_before_gets_one(self, arguments):
        asked = arguments(seeds=[0])
        task = finetune_with_cards(asked).task
        card = asked.model_folder(task, 0) / "README.md"
        before = card.read_text()
        card.unlink()
        card.with_name("card.json").unlink()
        finetune_with_cards(asked)
        assert card.read_text() == before

    def test_no_model_no_card(self, arguments):
        asked = arguments(save_models=False)
        finetune_with_cards(asked)
        assert not [*Path(asked.output_dir).rglob("README.md")]


RECORD = {
    "task": "rte", "hub_task": "text-classification", "text_columns": ["sentence1", "sentence2"], "seed": 1,
    "model": "someone/child", "revision": COMMIT,
    "metrics": {"validation": {"accuracy": 0.625, "f1": None, "loss": 1.0, "score": 0.625}},
    "selected_on": None, "best_step": None, "num_steps": 7, "num_samples": {"train": 5, "validation": 8},
    "num_parameters": 1234, "versions": {"torch": "1"},
    "settings": {
        "from_scratch": False, "batch_size": 4, "learning_rate": 1e-3, "max_seq_length": 16,
        "early_stopping_patience": None,
    },
}  # fmt: skip
OTHER = {**RECORD, "seed": 0, "metrics": {"validation": {"accuracy": 0.5, "f1": 0.25, "loss": 1.0, "score": 0.375}}}


class TestNamesOnTheHub:
    def describe(self, home, record=RECORD) -> FinetunedRecord:
        return describe_finetuned(home / "child", record, [OTHER, record], ("nyu-mll/glue", "rte"))

    def test_they_are_metadata(self, home):
        card = render_finetuned_card(self.describe(home))
        data = check_card(card)
        assert (data.base_model, data.datasets) == ("someone/child", ["nyu-mll/glue"])
        (result,) = data.eval_results  # this seed has no F1
        assert (result.dataset_type, result.dataset_config, result.metric_value) == ("nyu-mll/glue", "rte", 0.625)
        assert "| `validation` | 8 | `f1` | 0.2500 | 1 |" in card
        assert COMMIT in card

    def test_what_was_drawn_anew_has_no_base(self, home):
        record = {**RECORD, "settings": {**RECORD["settings"], "from_scratch": True}}
        card = render_finetuned_card(self.describe(home, record))
        assert "base_model" not in card
        assert "from random weights" in card

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"hub_task": "fill-mask"}, "hub_task is 'fill-mask'"), ({"sead": 1}, r"unknown keys \['sead'\]")],
    )
    def test_other_records_are_refused(self, home, change, message):
        facts = {name: value for name, value in vars(self.describe(home)).items() if name != "evaluations"}
        assert render_finetuned_card(facts)
        with pytest.raises(ValueError, match=message):
            render_finetuned_card(facts | change)

    def test_a_value_of_no_seed_is_refused(self, home):
        facts = vars(self.describe(home)) | {
            "evaluations": [{"task": "x", "dataset": "x", "metric": "x", "values": [1]}]
        }
        with pytest.raises(ValueError, match="no seed is named"):
            render_finetuned_card(facts)


def test_recipes_and_commands_write_cards(home, arguments, tmp_path, capsys):
    from hf_nasbert.cli import COMMANDS

    for name in ("finetune", "finetune-squad", "finetune-tokens"):
        assert COMMANDS[name].function == "hf_nasbert.pipeline.finetune_with_cards"
    for recipe, task in (("glue", "sentences"), ("squad", "questions"), ("tokens", "entities")):
        asked = arguments(task, output_dir=str(tmp_path / recipe), seeds=[0], max_steps=1)
        names = ("model", "train_file", "validation_file", "output_dir", "max_steps", "max_seq_length", "cache_dir")
        names += ("max_question_length", "doc_stride") if recipe == "squad" else ()
        flags = [word for name in names for word in (f"--{name}", getattr(asked, name))]
        run_recipe(f"finetune_{recipe}", *flags, "--disable_tqdm")
        (card,) = (tmp_path / recipe).rglob("README.md")
        check_card(card.read_text())
