"""The whole way, tiny: real text in, a child out that loads elsewhere; stages are made once."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny.processes import run_without_our_package
from tiny.texts import TEXT, save_tokenizer_with_padding_at_one
from transformers import AutoModelForMaskedLM, BertTokenizer

from hf_nasbert import records
from hf_nasbert.cards import FOR_PUBLISHING, check_card, render_child_card, render_supernet_card
from hf_nasbert.costs import LatencyTable, num_parameters
from hf_nasbert.data import DataArguments, train_tokenizer
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline import Pipeline, PipelineArguments, SearchChildrenArguments, ask_in_fresh_process, whole
from hf_nasbert.pipeline.stages import as_table
from hf_nasbert.pipeline.whole import bert_of
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.scored import scored_children
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain

SENTENCES = [("the boats came home .", 1), ("the nets were torn .", 0), ("anna was glad .", 1), ("rain and fog .", 0)]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A pipeline shrunk to seconds; its labelled data are sentences of the same harbour."""
    from hf_nasbert.finetuning import load_files, sequence_classification

    rows = [{"sentence": text, "label": label} for text, label in SENTENCES * 8]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def load_packaged(name):
        return load_files(
            str(tmp_path / "train.jsonl"), str(tmp_path / "validation.jsonl"), cache_dir=str(tmp_path / "cache")
        )

    monkeypatch.setattr(sequence_classification, "load_packaged", load_packaged)

    def make_pipeline(*, of_space=None, of_data=None, of_training=None, **changes):
        space = SupernetArguments(
            **{
                "operators": ["attention", "ffn", "conv3"],
                "num_choice_blocks": 3,
                "hidden_size": 32,
                "max_position_embeddings": 32,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                **(of_space or {}),
            }
        )
        text = {"vocab_size": 300, "max_seq_length": 16, "validation_fraction": 0.3, "sample_by": "paragraph"}
        data = DataArguments(train_files=[str(TEXT)], **{**text, "language": "en", **(of_data or {})})
        training = SupernetTrainingArguments(
            **{
                "output_dir": "unused",
                "method": "magic_at",
                "method_settings": {"anchor_interval": 2},
                "max_steps": 6,
                "per_device_train_batch_size": 4,
                "num_eval_batches": 2,
                "num_eval_children": 2,
                "save_steps": 3,
                "logging_steps": 2,
                "report_to": "none",
                "disable_tqdm": True,
                **(of_training or {}),
            }
        )
        settings = {
            "output_dir": str(tmp_path / "run"),
            "num_evaluations": 27,
            "num_dev_batches": 1,
            "dev_batch_size": 4,
            "child_steps": 2,
            "child_batch_size": 4,
            "finetune_epochs": 1.0,
            "finetune_seeds": [0],
            "mask_examples": ["the boats [MASK] home"],
            "card": str(tmp_path / "facts.json"),
        }
        (tmp_path / "facts.json").write_text('{"license": "mit", "limits": ["For tests only."]}')
        return Pipeline(space, data, training, PipelineArguments(**{**settings, **changes}))

    return make_pipeline


@pytest.fixture
def fork(monkeypatch):
    """The child is asked in a fork, not in a process that has to import the libraries."""

    def in_forks():
        in_fork = vars(subprocess) | {"run": run_without_our_package}
        monkeypatch.setattr("hf_nasbert.hub.proof.subprocess", SimpleNamespace(**in_fork))

    return in_forks


@pytest.mark.slow
def test_from_text_to_a_child_that_loads_elsewhere(make, fork, tmp_path, capsys):
    pipeline = make()
    results = pipeline.run()
    folder = tmp_path / "run"
    assert [result.is_reused for result in results] == [False] * len(results)
    assert all(Path(result.where).exists() for result in results)
    table = as_table(results)
    for result in results:
        assert result.name in table

    # The winner is the best child within the budget, which is the parameter count of a BERT of that shape.
    scores = records.read(folder / "scores.jsonl")
    children = scored_children(scores, "scores.jsonl")
    assert len(children) == 27
    content = {result.name: result.content for result in results}
    cap = content["scores"].caps["num_parameters"]
    within = [child for child in children if child.cost["num_parameters"] <= cap]
    best = min(within, key=lambda child: child.loss)
    assert content["scores"].winner == str(best.architecture)
    assert len(within) == content["scores"].num_within_budget < 27
    assert content["extraction"].max_logit_difference <= 1e-6
    assert content["pre-training"].num_steps == 2

    # The card is what its record says, and the record lies beside it.
    child = folder / "child"
    assert (child / "README.md").read_text() == render_child_card(json.loads((child / "card.json").read_text()))
    assert str(best.architecture) in (child / "README.md").read_text()
    # And its numbers are those that the stages wrote down.
    card = json.loads((child / "card.json").read_text())
    searched = (card["search"]["proxy_loss"], card["search"]["num_scored"], card["search"]["at most num_parameters"])
    assert searched == (best.proxy_loss, 27, cap)
    assert card["search"]["children within the budget"] == content["scores"].num_within_budget
    assert card["cost"]["num_parameters"] == best.cost["num_parameters"]
    assert card["max_logit_difference"] == content["extraction"].max_logit_difference
    assert (card["supernet"]["num_steps"], card["supernet"]["num_children"]) == (6, 27)
    assert list(card["training"].values()) == [
        getattr(content["pre-training"], name)
        for name in ("num_steps", "num_tokens", "dev_loss_before", "dev_loss_after")
    ]
    finetuned = {
        values: records.read(folder / "finetuned" / name / "records.jsonl")
        for values, name in (("values", "child"), ("baseline_values", "from-scratch"))
    }
    assert {evaluation["split"] for evaluation in card["evaluations"]} == {"validation"}
    for evaluation in card["evaluations"]:
        for values, found in finetuned.items():
            measured = [record["metrics"][evaluation["split"]][evaluation["metric"]] for record in found]
            assert evaluation[values] == measured
    (head,) = (folder / "finetuned" / "child").glob("*/seed-0/README.md")
    assert check_card(head.read_text()).pipeline_tag == "text-classification"
    published = check_card((child / "README.md").read_text(), FOR_PUBLISHING)
    assert (published.license, published.language) == ("mit", "en")
    assert published.get("eval_results") is None, "these are results of fine-tuned copies"
    assert "- For tests only." in (child / "README.md").read_text()
    net = folder / "supernet"
    assert (net / "README.md").read_text() == render_supernet_card(json.loads((net / "card.json").read_text()))
    assert (
        f'extract_child(supernet, "{min(children, key=lambda child: child.loss).architecture}")'
        in (net / "README.md").read_text()
    )
    (predictions,) = content["fresh process"].answers.values()
    assert len(predictions) == 5

    # A second call makes nothing again; a stage that was lost is made again, and only that.
    before = (child / "model.safetensors").stat().st_mtime_ns
    assert all(result.is_reused for result in make().run())
    assert (child / "model.safetensors").stat().st_mtime_ns == before
    (folder / "fill-mask.json").unlink()
    fork()
    again = {result.name: result.is_reused for result in make().run()}
    assert again.pop("fresh process") is False
    assert all(again.values())

    # A child without its code does not load where we are not installed, and that is said, not hidden.
    (child / "modeling_nasbert.py").unlink()
    with pytest.raises(ValueError, match="does not load where hf_nasbert is not installed"):
        ask_in_fresh_process(child, ["the [MASK]"])


@pytest.mark.slow
def test_with_labels_of_ones_own_and_the_control(make, fork, tmp_path):
    fork()
    rows = [{"sentence": f"{text} {number}", "label": label} for number in range(6) for text, label in SENTENCES]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    results = make(train_file=str(tmp_path / "mine.jsonl"), control=True).run()
    content, folder = {result.name: result.content for result in results}, tmp_path / "run"
    assert [record["task"] for record in content["fine-tuning"].child] == ["mine"]
    assert content["fine-tuning"].child[0]["num_samples"] == {"train": 22, "validation": 2}
    card = json.loads((folder / "child" / "card.json").read_text())
    assert {evaluation["split_by"] for evaluation in card["evaluations"]} == {"hf_nasbert"}
    # The control is a plain BERT, and saw what super-net and child saw together.
    control = content["control"]
    assert set(control.architecture.split("-")) == {"attention", "ffn"}
    seen = content["super-net"].num_tokens + content["pre-training"].num_tokens
    assert 0 <= control.num_tokens - seen < 4 * 16
    assert [record["task"] for record in control.finetuned] == ["mine"]
    model = AutoModelForMaskedLM.from_pretrained(folder / "control")
    assert model.num_parameters() == control.num_parameters
    # The report is the scores' own, and what was scored is in it.
    winner = content["scores"].winner
    assert winner in (folder / "report.html").read_text()
    # A folder without a control gets one; with one it is not made again.
    assert all(result.is_reused for result in make(train_file=str(tmp_path / "mine.jsonl"), control=True).run())


@pytest.mark.slow
def test_under_a_cap_on_latency_operators_are_timed_and_the_winner_is(make, fork, tmp_path):
    fork()
    pipeline = make(max_latency=1000.0, latency_shape="2x16", num_evaluations=6)
    content = {result.name: result.content for result in pipeline.run()}
    assert list(content)[:3] == ["text", "latency", "super-net"]
    assert content["scores"].caps == {"latency_ms": 1000.0}, "no cap on parameters that nobody gave"
    assert 0 < content["scores"].latency_ms < 1000
    table = LatencyTable.read(tmp_path / "run" / "latency.jsonl", batch_size=2, sequence_length=16)
    assert table.described == content["latency"].measured_on
    card = (tmp_path / "run" / "child" / "README.md").read_text()
    assert "| at most latency (ms) | 1000 |" in card
    assert "| latency of this child, timed" in card
    assert all(result.is_reused for result in make(max_latency=1000.0, latency_shape="2x16", num_evaluations=6).run())


@pytest.mark.slow
def test_a_latency_that_no_child_keeps_is_refused_before_any_training(make, tmp_path):
    pipeline = make(max_latency=1e-4, latency_shape="1x8")
    with pytest.raises(ValueError, match=r"latency_ms may be at most 0.0001, but that of the smallest child"):
        pipeline.run()
    assert not (tmp_path / "run" / "supernet").exists()


def test_a_batch_of_latency_longer_than_the_positions_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match="latency_shape=1x64 has more tokens than the super-net's 32 positions"):
        make(max_latency=5.0, latency_shape="1x64")
    with pytest.raises(ValueError, match="latency_shape='64': expected sequences x tokens"):
        make(max_latency=5.0, latency_shape="64")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mixed_precision", "has_units", "wanted"),
    [("auto", True, "bf16"), ("auto", False, None), ("bf16", False, "bf16"), ("no", True, None)],
)
def test_the_child_is_trained_in_the_precision_of_the_supernet(make, monkeypatch, mixed_precision, has_units, wanted):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has_units)
    made = make(of_training={"mixed_precision": mixed_precision, "use_cpu": True})
    for asked in (made._pretraining(made.folder, "pretrained", 1), made._finetuning("child", "pretrained")):
        assert (asked.bf16, asked.fp16) == (wanted == "bf16", False)


def test_files_of_labels_go_together():
    with pytest.raises(ValueError, match="validation_file and test_file go with train_file"):
        PipelineArguments(output_dir="x", validation_file="y")


def test_a_folder_of_a_setting_under_its_old_name_goes_on(make, tmp_path):
    make()
    file = tmp_path / "run" / "settings.json"
    settings = json.loads(file.read_text())
    settings["pipeline"]["num_scored"] = settings["pipeline"].pop("num_evaluations")
    file.write_text(json.dumps(settings))
    make()
    with pytest.raises(ValueError, match=r"num_evaluations=27, now it is 5"):
        make(num_evaluations=5)


def test_the_padding_of_the_supernet_is_that_of_the_tokenizer(make, tmp_path, monkeypatch):
    """In what is counted and budgeted, and in what is trained."""
    pipeline = make(of_data={"tokenizer_name": save_tokenizer_with_padding_at_one(tmp_path / "tokenizer")})
    pipeline._make_text()
    assert pipeline._build_config().pad_token_id == 1
    trained = []
    monkeypatch.setattr(pretrain, "train_supernet", lambda supernet, *_, **__: trained.append(supernet))
    pretrain.pretrain_supernet(pipeline.supernet_arguments, pipeline._packed, pipeline.training)
    (supernet,) = trained
    assert supernet.config.pad_token_id == 1
    rows = supernet.get_input_embeddings().weight
    assert [bool(row.any()) for row in rows[:3]] == [True, False, True]


def test_a_folder_of_other_settings_is_refused(make):
    make()
    make()
    with pytest.raises(ValueError, match=r"num_evaluations=27, now it is 5"):
        make(num_evaluations=5)


def test_settings_that_decide_nothing_may_change(make, tmp_path):
    make()
    shown = {"disable_tqdm": False, "report_to": "tensorboard", "logging_steps": 1, "save_steps": 2}
    make(of_training=shown, of_data={"cache_dir": str(tmp_path / "cache"), "preprocessing_num_workers": 2})
    with pytest.raises(ValueError, match="training setting max_steps=6, now it is 7"):
        make(of_training={**shown, "max_steps": 7})


def test_a_cap_is_the_same_however_it_is_written(make):
    make(max_parameters="1.5M")
    make(max_parameters=1_500_000)
    with pytest.raises(ValueError, match="max_parameters="):
        make(max_parameters=1_500_001)


def test_a_latency_is_the_same_however_it_is_written(make):
    make(max_latency=12.5, latency_shape="1x16")  # as earlier versions wrote it down
    make(max_latency="12.5ms", latency_shape="1x16")
    make(max_latency="12.5", latency_shape="1x16")
    with pytest.raises(ValueError, match=r"max_latency=12\.5, now it is '0.5x'"):
        make(max_latency="0.5x", latency_shape="1x16")


def test_shares_are_of_the_largest_child_as_a_search_takes_them(make, monkeypatch):
    pipeline = make(max_parameters="0.9x", max_flops="0.8x", max_latency="0.7x", latency_shape="2x16")
    monkeypatch.setattr(whole.LatencyTable, "read", lambda file: None)
    monkeypatch.setattr(whole, "cost_function", lambda config, **_: lambda child: costs_of(config, child))

    def costs_of(config, child):
        count = num_parameters(config, child)
        return {"num_parameters": count, "flops": 2 * count, "latency_ms": count / 1000}

    config = pipeline.supernet_arguments.build_config(vocab_size=60)
    largest = SupernetForMaskedLM(config).largest_architecture
    arguments = SearchChildrenArguments(
        supernet="x", output="y", max_parameters="0.9x", max_flops="0.8x", max_latency="0.7x", latency_table="z"
    )
    assert pipeline._budget(config) == arguments.budget().of(costs_of(config, largest))


def test_a_folder_of_an_earlier_version_goes_on_where_it_did_what_the_default_does(make, tmp_path):
    make()
    file = tmp_path / "run" / "settings.json"
    earlier = json.loads(file.read_text())
    for group, name in (("pipeline", "native_only"), ("training", "alignment_start"), ("data", "language")):
        del earlier[group][name]
    del earlier["supernet"]["widths"]
    earlier["training"] |= RETIRED
    file.write_text(json.dumps(earlier))
    make()
    with pytest.raises(ValueError, match="pipeline setting native_only=False, now it is True"):
        make(native_only=True)


RETIRED = {"alignment_layers": "all", "alignment_normalize": False, "alignment_detach": True}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"anchor_interval": 7}, "training setting anchor_interval=7, now it is 2"),
        ({"alignment_normalize": True}, "training setting alignment_normalize=True, now it is None"),
        (
            {"method": "uniform", "alignment_normalize": True},
            "training setting method='uniform', now it is 'magic_at'",
        ),
    ],
)
def test_a_folder_of_an_earlier_version_that_trained_otherwise_is_refused(make, tmp_path, change, words):
    """Versions before methods had settings of their own wrote those of all methods, whichever was chosen."""
    make()
    file = tmp_path / "run" / "settings.json"
    earlier = json.loads(file.read_text())
    earlier["training"] |= {**RETIRED, **change}
    file.write_text(json.dumps(earlier))
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_settings_of_other_methods_decided_nothing(make, tmp_path):
    make(of_training={"method": "uniform", "method_settings": None})
    file = tmp_path / "run" / "settings.json"
    earlier = json.loads(file.read_text())
    assert "anchor" not in earlier["training"]
    earlier["training"] |= {**RETIRED, "alignment_normalize": True, "anchor_interval": 7}
    file.write_text(json.dumps(earlier))
    make(of_training={"method": "uniform", "method_settings": None})


@pytest.fixture
def foreign_tokenizer(tmp_path):
    """A folder of a tokenizer whose mask is <mask>, as RoBERTa's."""
    vocabulary = train_tokenizer([TEXT.read_text()], 300).get_vocab()
    names = {"[MASK]": "<mask>", "[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[UNK]": "<unk>"}
    BertTokenizer(
        vocab={names.get(word, word): number for word, number in vocabulary.items()},
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
    ).save_pretrained(tmp_path / "foreign")  # fmt: skip
    return str(tmp_path / "foreign")


@pytest.mark.slow
def test_another_mask_another_language_and_stages_arrive_in_cards_and_figures(make, fork, tmp_path, foreign_tokenizer):
    fork()
    staged = {"num_choice_blocks": 4, "num_stages": 2, "widths": [16, 32], "attention_head_size": 16}
    pipeline = make(
        of_space={**staged, "operators": ["attention", "ffn"]},
        of_data={"tokenizer_name": foreign_tokenizer, "language": None},
        of_training={"method": "uniform", "method_settings": None},
        card=None,
    )
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        plots = pytest.importorskip("hf_nasbert.plots")
        draw = plots.plot_architecture
        patch.setattr(plots, "plot_architecture", lambda *args, **how: drawn.append(how) or draw(*args, **how))
        results = {result.name: result.content for result in pipeline.run()}
    assert drawn == [{"stage_lengths": [2, 2]}]
    assert list(results["fresh process"].answers) == ["the boats <mask> home"]
    for folder in ("child", "supernet"):
        card = (tmp_path / "run" / folder / "README.md").read_text()
        assert check_card(card).get("language") is None
        assert "English" not in card
    record = json.loads((tmp_path / "run" / "child" / "card.json").read_text())
    assert (record["mask_token"], record["stage_lengths"]) == ("<mask>", [2, 2])
    assert 'fill_mask("the boats <mask> home")' in (tmp_path / "run" / "child" / "README.md").read_text()


def test_the_quickstart_says_its_language():
    types = [SupernetArguments, DataArguments, SupernetTrainingArguments]
    assert parse_recipe_arguments(types, ["--config", "quickstart-scratch"])[1].language == "en"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_examples": ["no gap"]}, r"'no gap' holds \[MASK\] 0 times"),
        ({"mask_examples": ["the [MASK] [MASK]"]}, r"holds \[MASK\] 2 times"),
        ({"mask_examples": ["the <mask>"]}, r"'the <mask>' holds \[MASK\] 0 times"),
        ({"of_data": {"language": "some English"}}, "'some English' is not a license or language code"),
        ({"of_data": {"max_seq_length": 64}}, "max_seq_length=64 is more than the super-net's 32 positions"),
        ({"of_space": {"hidden_act": "gelly"}}, "gelly"),
        ({"of_data": {"tokenizer_name": "./nowhere/"}}, "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(make, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make(**changes)
    assert not (tmp_path / "run").exists()


def test_examples_may_be_written_with_either_mask(make, foreign_tokenizer):
    make(of_data={"tokenizer_name": foreign_tokenizer}, mask_examples=["the <mask>", "a [MASK]"])
    with pytest.raises(ValueError, match="2 times"):
        make(of_data={"tokenizer_name": foreign_tokenizer}, mask_examples=["the <mask> [MASK]"])


def test_an_example_longer_than_the_positions_is_refused_before_any_training(make, tmp_path):
    pipeline = make(mask_examples=["the [MASK]" + " boats" * 40])
    with pytest.raises(ValueError, match=r"mask_examples: .* is longer than the super-net's 32 positions"):
        pipeline.run()
    assert not (tmp_path / "run" / "supernet").exists()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"licence": "mit"}', ValueError, r"unknown keys \['licence'\]"),
        ('{"license": "my own"}', ValueError, "'my own' is not a license"),
        ("{", ValueError, "is not JSON"),
        (None, FileNotFoundError, "other.json"),
    ],
)
def test_what_a_card_cannot_say_is_refused_before_anything_is_made(make, tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "other.json").write_text(content)
    with pytest.raises(error, match=message):
        make(card=str(tmp_path / "other.json"))
    assert not (tmp_path / "run").exists()


def test_an_impossible_budget_is_refused_before_any_scoring(make):
    pipeline = make(max_parameters="1K")
    config = SupernetConfig(search_space=SearchSpace.chain(3, ("ffn", "attention")), hidden_size=32, vocab_size=100)
    with pytest.raises(
        ValueError, match=r"num_parameters may be at most 1,000, but that of the smallest child, attention-"
    ):
        pipeline._budget(config)


def test_stock_berts_only_are_looked_for_before_any_training(make):
    pipeline = make(native_only=True)
    space = SearchSpace.chain(3, ("ffn", "attention", "conv3"))
    with pytest.raises(ValueError, match="no child of this space is a plain BERT"):
        pipeline._budget(SupernetConfig(search_space=space, hidden_size=32, vocab_size=100))
    space = SearchSpace.chain(4, ("ffn", "attention", "conv3", "skip"))
    config = SupernetConfig(search_space=space, hidden_size=32, vocab_size=100)
    assert pipeline._children(config).num_children == 2
    pipeline._budget(config)


def test_the_default_budget_is_a_bert_of_the_same_shape(make):
    space = SearchSpace.chain(4, ("attention", "ffn", "conv3"))
    config = SupernetConfig(search_space=space, hidden_size=32, vocab_size=100)
    assert str(bert_of(config)) == "attention-ffn-attention-ffn"
    budget = make()._budget(config)
    assert set(budget.caps) == {"num_parameters"}
    assert bert_of(SupernetConfig(search_space=SearchSpace.chain(2, ("ffn", "conv3")), hidden_size=32)) is None
