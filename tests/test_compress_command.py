"""`hf-nasbert compress`: the whole way on tiny base models, kills, refusals, families, what leaves home."""

import dataclasses
import json
import math
import shlex
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from tiny.bases import MODULES, classifier_base, documents, save_base
from tiny.compressing import pairs, stop_the_clock
from tiny.models import chain_config, random_model
from tiny.texts import tiny_tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification, BertModel, GPT2Config, GPT2LMHeadModel

import hf_nasbert
from hf_nasbert import cli, stopping
from hf_nasbert.cards import check_card
from hf_nasbert.child_folders import save_child
from hf_nasbert.compression import (
    CompressArguments,
    CompressDataArguments,
    Compressed,
    materials,
    plan,
    run,
)
from hf_nasbert.compression.base_models import hub_name
from hf_nasbert.compression.encoder_costs import EncoderCost, caps_of
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.proof import Judged, Row, choose_given, read_pairs, verdicts
from hf_nasbert.compression.recover import Recovery
from hf_nasbert.compression.run import Compression, _announced
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import Budget
from hf_nasbert.data import load_labelled, model_folder, packaged_model
from hf_nasbert.elastic import refit
from hf_nasbert.elastic.base_models import open_base_model
from hf_nasbert.elastic.scores import Score
from hf_nasbert.hub import PushArguments
from hf_nasbert.hub.contents import gather
from hf_nasbert.modeling import NasBertForMaskedLM
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.sentence_transformer import read_sentence_modules
from hf_nasbert.recipe_arguments import parse_recipe_arguments

SETTINGS = {
    "recovery_steps": 12, "learning_rate": 1e-4, "batch_size": 16, "num_sentences": 320, "max_seq_length": 16,
    "latency_shape": "2x16", "num_rescored": 6,
}  # fmt: skip
HALF = {"max_parameters": "0.5x"}
assert pairs  # a fixture


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Latencies by counting, and no two that differ from run to run; little text to choose and to judge on."""
    with pytest.MonkeyPatch.context() as patch:
        stop_the_clock(patch)
        for name, number in (("_NUM_CHOOSING", 48), ("_NUM_JUDGING", 64), ("_CALIBRATION_TOKENS", 6000)):
            patch.setattr(materials, name, number)
        yield


def compress(base, folder, texts=None, **settings):
    return hf_nasbert.compress(base, texts or documents(), output_dir=folder, **SETTINGS | settings)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(base, pairs, tmp_path_factory):
    """One whole run, and the base model's folder before it."""
    before = content(base)
    result = compress(base, tmp_path_factory.mktemp("small") / "small", pairs_file=str(pairs), **HALF)
    return result, before


def test_the_smaller_model_is_within_its_budget_and_stands_beside_what_people_choose_by_hand(whole):
    result, _ = whole
    base, *others = result.rows
    assert (base.how, base.budget) == ("base model", None)
    assert [row.how.split()[0] for row in others] == ["searched", "layers", "every", "uniform"]
    assert all(row.num_encoder_parameters <= 0.5 * base.num_encoder_parameters for row in others if row.is_within)
    given = [row for row in others if row.is_given]
    assert given == [min((row for row in others if row.is_within), key=lambda row: row.chosen_by)]
    model = result.best.model()
    assert model.num_parameters() == given[0].num_parameters < base.num_parameters
    blocks = sum(parameter.numel() for parameter in model.encoder.parameters())
    assert blocks == given[0].num_encoder_parameters
    assert base.judged[0].loss < 1e-4 and base.judged[0].cosine == pytest.approx(1, abs=1e-4)  # noqa: PT018
    assert all(-1 <= one.spearman <= 1 for row in result.rows for one in row.judged)


def test_nothing_is_written_into_the_base_models_folder_and_no_work_is_left(base, whole):
    result, before = whole
    assert content(base) == before
    assert not (result.folder / "work").exists()
    assert not (result.folder / ".lock").exists()


def test_a_sentence_transformer_stays_one(whole):
    result, _ = whole
    assert read_sentence_modules(result.folder) == MODULES
    theirs = SentenceTransformer(str(result.folder), trust_remote_code=True, device="cpu")
    texts = documents(3, seed=5)
    batch = theirs.tokenizer(texts, padding=True, truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        states = result.best.model()(**batch).last_hidden_state
    expected = MODULES.pool(states, batch["attention_mask"])
    assert torch.allclose(theirs.encode(texts, convert_to_tensor=True), expected, atol=1e-5)


def test_the_report_and_the_card_say_the_table(whole, tmp_path):
    result, _ = whole
    card = (result.folder / "README.md").read_text()
    data = check_card(card)
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert str(result.folder.parent) not in card + (result.folder / "summary.json").read_text()
    report = (result.folder / "report.md").read_text()
    page = result.report(tmp_path / "small.html").read_text()
    for text in (card, report, page, str(result)):
        for row in result.rows:
            assert row.how in text
            assert f"{row.num_encoder_parameters:,}" in text
    summary = json.loads((result.folder / "summary.json").read_text())
    assert [row["how"] for row in summary["rows"]] == [row.how for row in result.rows]
    assert all(stage["cpu_seconds"] >= 0 and stage["peak_memory_mib"] > 0 for stage in summary["stages"])
    frame = result.to_pandas()
    assert list(frame["how"]) == [row.how for row in result.rows]
    assert frame["loss"][1] == pytest.approx(result.rows[1].judged[0].loss)
    with pytest.raises(ValueError, match=r"ends in '\.pdf'"):
        result.report(tmp_path / "small.pdf")


def test_a_finished_run_is_read_again_and_another_one_refused(base, whole, monkeypatch):
    result, _ = whole
    monkeypatch.setattr(materials, "load_base_model", None)
    settings = {"pairs_file": json.loads((result.folder / "settings.json").read_text())["settings"]["pairs_file"]}
    again = compress(base, result.folder, **settings, **HALF)
    assert again.rows == result.rows
    with pytest.raises(ValueError, match=r"other settings \(settings.max_parameters was 0\.5x, and is 0\.4x here\)"):
        compress(base, result.folder, **settings, max_parameters="0.4x")


def test_other_text_of_as_many_documents_is_refused_and_the_same_goes_on(base, whole):
    result, _ = whole
    pairs = json.loads((result.folder / "settings.json").read_text())["settings"]["pairs_file"]
    assert compress(base, result.folder, iter(documents()), pairs_file=pairs, **HALF).rows == result.rows
    assert (
        compress(base, result.folder, Dataset.from_dict({"text": documents()}), pairs_file=pairs, **HALF).rows
        == result.rows
    )
    with pytest.raises(ValueError, match=r"was made with other text \(text.digest was "):
        compress(base, result.folder, documents(seed=1), pairs_file=pairs, **HALF)


@pytest.mark.slow
def test_a_file_that_has_changed_is_other_text_half_way_and_at_the_end(base, tmp_path, monkeypatch):
    """By its content: a copy elsewhere goes on, the same name with other lines does not."""
    text, pairs = tmp_path / "a" / "text.txt", tmp_path / "pairs.csv"
    text.parent.mkdir()
    text.write_text("\n".join(documents()))
    pairs.write_text("sentence1,sentence2,score\nthe film,a film,1\nthe film,the plot,2\n")
    again = {"pairs_file": str(pairs), "handmade": False, **HALF}
    with monkeypatch.context() as patch:
        patch.setattr(Compression, "_make_proof", None)
        with pytest.raises(TypeError):
            compress(base, tmp_path / "small", str(text), **again)

    def refused_where_it_differs():
        (tmp_path / "text.txt").write_text("\n".join(documents(seed=1)))
        message = r"small was made with other text \(text.digest was \w+, and is \w+ here\): choose another output_dir"
        refused(message, lambda: compress(base, tmp_path / "small", str(tmp_path / "text.txt"), **again))
        (tmp_path / "text.txt").write_bytes(text.read_bytes())
        before = pairs.read_text()
        pairs.write_text(before + "the plot,a plot,3\n")
        message = r"made with other pairs \(pairs.digest was"
        refused(message, lambda: compress(base, tmp_path / "small", str(text), **again))
        pairs.write_text(before)

    refused_where_it_differs()
    result = compress(base, tmp_path / "small", str(tmp_path / "text.txt"), **again)
    refused_where_it_differs()
    assert compress(base, tmp_path / "small", str(text), **again).rows == result.rows


def test_another_base_model_in_the_same_folder_is_refused_half_way_and_at_the_end(tmp_path):
    """By its weights, config and tokenizer: what else lies beside them may change."""
    base, old = save_base(tmp_path / "base"), save_base(tmp_path / "old" / "0_Transformer", modules=None)
    MODULES.write(old.parent, 32)
    modules = json.loads((old.parent / "modules.json").read_text())
    modules[0]["path"] = old.name
    (old.parent / "modules.json").write_text(json.dumps(modules))
    source = TextSource.of(["some text"])
    for model, place in ((base, base), (old.parent, old)):
        folder = tmp_path / f"small-{model.name}"
        arguments = CompressArguments(base_model=str(model), output_dir=str(folder), **SETTINGS | HALF)

        def enter(arguments=arguments):
            with ExitStack() as stack:
                Compression(arguments, source)._enter(stack)

        enter()
        (folder / "stages.jsonl").touch()
        (place / "README.md").write_text("a card")
        enter()
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            before = (place / name).read_bytes()
            (place / name).write_bytes(before[:-1] + b" ")
            refused(r"was made with other base model \(base model\.digest was", enter)
            (place / name).write_bytes(before)
        enter()
        settings = json.loads((folder / "settings.json").read_text())
        del settings["base model"]  # as earlier versions wrote it
        (folder / "settings.json").write_text(json.dumps(settings))
        enter()


STAGES = ["text", "base model", "variants", "lone replacements", "search", "by hand", "recovery", "proof", "folder"]


@pytest.mark.slow
def test_a_run_that_is_killed_between_and_within_stages_goes_on_to_the_same_bits(base, whole, pairs, tmp_path):
    """Killed behind what a stage made and in front of its record, stage by stage: each call takes up what is there."""

    class Killed(BaseException):
        pass

    result, _ = whole
    folder, reached = tmp_path / "small", []
    for name in STAGES:
        with pytest.MonkeyPatch.context() as patch:
            made = Compression._stage

            def stage(self, stage, kind, make, *is_there, name=name, made=made, **options):
                if stage.startswith(name):
                    reached.append(stage)
                    make()
                    raise Killed
                return made(self, stage, kind, make, *is_there, **options)

            patch.setattr(Compression, "_stage", stage)
            with pytest.raises(Killed):
                compress(base, folder, pairs_file=str(pairs), **HALF)
    assert len(reached) == len(STAGES)
    again = compress(base, folder, pairs_file=str(pairs), **HALF)
    assert again.rows == result.rows
    assert weights(folder) == weights(result.folder)


@pytest.mark.slow
def test_a_run_whose_time_is_up_between_and_within_stages_goes_on_to_the_same_bits(
    base, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("\n".join(documents()))
    settings = SETTINGS | HALF | {"base_model": base, "train_files": "text.txt"}
    command = ["compress", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
    command += ["--no_handmade", "--output_dir"]
    assert cli.main([*command, "whole"]) == 0
    capsys.readouterr()
    for number, told in ((2, "stopped before base model"), (6, "stopped after step 3 of a distillation")):
        seen = iter(range(10**9))

        def is_up(number=number, seen=seen):  # at the so many-th look at the clock
            return stopping._deadline is not None and next(seen) >= number

        for module in (run, stopping):
            monkeypatch.setattr(module, "is_time_up", is_up)
        with pytest.raises(SystemExit) as left:
            cli.main([*command, "cut", "--max_time", "1h"])
        assert left.value.code == 0
        assert f"{told}: the same command goes on from there" in capsys.readouterr().err
        assert not Path("cut/model.safetensors").exists()
    assert cli.main([*command, "cut"]) == 0
    assert weights(Path("cut")) == weights(Path("whole"))


@pytest.mark.slow
def test_several_budgets_are_one_family_and_a_classifier_keeps_its_head(tmp_path):
    base = classifier_base(tmp_path / "base")
    result = compress(
        base,
        tmp_path / "family",
        budgets=["0.5x", "0.3x"],
        seeds=[0, 1],
        scorer="additive",
        heads=[2],
        ffn=[64],
    )
    assert [one.row.budget for one in result.front] == ["0.5x", "0.3x"]
    assert [one.folder.name for one in result.front] == ["0.5x", "0.3x"]
    sizes = [one.row.num_encoder_parameters / result.rows[0].num_encoder_parameters for one in result.front]
    assert sizes[0] <= 0.5
    assert sizes[1] <= 0.3
    assert all(len(row.judged) == 2 for row in result.rows[1:])
    assert all(0 <= one.agreement <= 1 for row in result.rows for one in row.judged)
    for one in result.front:
        loaded = AutoModelForSequenceClassification.from_pretrained(one.folder, trust_remote_code=True)
        assert loaded.config.id2label == {0: "bad", 1: "good", 2: "long"}
        assert check_card((one.folder / "README.md").read_text()).pipeline_tag == "text-classification"
    whole = AutoModelForSequenceClassification.from_pretrained(base)
    assert not torch.equal(whole.classifier.weight, torch.zeros_like(whole.classifier.weight))


@pytest.mark.slow
def test_what_is_chosen_by_hand_is_given_and_whole_layers_are_a_stock_bert(tmp_path, monkeypatch):
    def layers_are_better(rows):
        rows = [dataclasses.replace(row, chosen_by=0.0) if row.how.startswith("layers") else row for row in rows]
        return choose_given(rows)

    monkeypatch.setattr(run, "choose_given", layers_are_better)
    result = compress(save_base(tmp_path / "base", modules=None), tmp_path / "small", **HALF)
    assert result.best.row.how.startswith("layers")
    assert "a hand-made choice is better here" in str(result)
    loaded = AutoModel.from_pretrained(tmp_path / "small")
    assert type(loaded) is type(result.best.model()) is BertModel
    assert loaded.config.num_hidden_layers == 1
    card = (tmp_path / "small" / "README.md").read_text()
    assert "trust_remote_code" not in card
    assert "chosen by hand (layers" in card
    assert not list((tmp_path / "small").glob("*.py"))


def content_of(result, name):
    return next(stage for stage in result.stages if stage["stage"].startswith(name))["content"]


@pytest.mark.slow
def test_the_screened_super_net_chooses_and_recovery_begins_with_the_better_weights(base, tmp_path, monkeypatch):
    settings = {"scorer": "supernet", "supernet_steps": 6, "max_replace_one_loss": 1e3, "handmade": False, **HALF}
    result = compress(base, tmp_path / "small", **settings)
    trained, better = content_of(result, "super-net"), content_of(result, "recovery")
    assert trained["after"] < trained["before"]
    assert content_of(result, "search")["scorer"] == "supernet"
    score = materials.score_model

    def turned(*given, **options):
        found = score(*given, **options)
        return found._replace(loss=-found.loss)

    monkeypatch.setattr(materials, "score_model", turned)
    other = compress(base, tmp_path / "other", **settings)
    worse = content_of(other, "recovery")
    assert {better["start"], worse["start"]} == {"inherited", "supernet"}
    assert other.best.row.architecture == result.best.row.architecture
    assert better["before"] < worse["before"]


@pytest.mark.slow
def test_variants_are_warmed_up_where_it_is_asked_for_and_a_killed_run_goes_on(base, tmp_path, monkeypatch):
    settings = {"warmup_steps": 24, "heads": [1], "ffn": [16], "skip": False, "kernels": [3], "handmade": False}
    settings |= {"scorer": "additive", "max_parameters": "0.8x", "recovery_steps": 4}
    plain = compress(base, tmp_path / "plain", **settings | {"warmup_steps": 0})
    result = compress(base, tmp_path / "whole", **settings)
    before, after = (content_of(one, "lone")["table"] for one in (plain, result))
    assert before != after
    assert content_of(result, "warm-up")["errors"].keys() == content_of(result, "variants")["errors"].keys()
    assert {stage["stage"] for stage in result.stages} - {stage["stage"] for stage in plain.stages} == {"warm-up"}
    calls, write = [], refit.write_fitted

    def dying(path, *given):
        if path.parent.name == "warm-up":
            calls.append(path.name)
            if len(calls) == 3:
                raise KeyboardInterrupt
        write(path, *given)

    monkeypatch.setattr(refit, "write_fitted", dying)
    with pytest.raises(KeyboardInterrupt):
        compress(base, tmp_path / "small", **settings)
    assert compress(base, tmp_path / "small", **settings).rows == result.rows
    assert calls == [f"block-{block:03}.safetensors" for block in (0, 1, 2, 2, 3, 4, 5)]
    assert weights(tmp_path / "small") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_peak_of_memory_is_held_to_from_end_to_end(base, tmp_path):
    result = compress(base, tmp_path / "small", max_memory="0.7x", scorer="additive")
    costs = content_of(result, "costs")
    for name in ("search", "recovery"):
        assert content_of(result, name)
    peak = content_of(result, "search")["choices"][0]["costs"]["peak_activation_bytes"]
    assert peak <= 0.7 * costs["base_model"]["peak_activation_bytes"]
    assert {row.how.split()[0] for row in result.rows} >= {"base", "searched"}


def test_caps_that_no_child_meets_together_are_told_with_the_costs(base):
    """Before anything is trained; here FLOPs fall as parameters rise."""

    class Odd(EncoderCost):
        def __call__(self, architecture):
            costs = super().__call__(architecture)
            return costs | {"flops": 1e6 - costs["num_parameters"]}

    full_child = open_base_model(str(base)).full_child
    supernet = elastic_supernet(full_child, elastic_space(full_child))
    cost = Odd(EncoderCost.of(supernet, 16, None).whole, supernet.space.num_choice_blocks)
    own = cost(supernet.largest_architecture)
    half = own["num_parameters"] / 2
    both = Budget(max_parameters=int(half), max_flops=int(1e6 - half - 1000))
    for alone in (
        Budget(max_parameters=both.max_parameters),
        Budget(max_parameters=both.max_parameters + 2000, max_flops=both.max_flops),
    ):
        assert caps_of({"one": alone}, cost, supernet)["one"] == alone.caps
    refused(
        "no child of this base model is within the budget both: no choice is within all caps at once: .*smallest: ",
        lambda: caps_of({"both": both}, cost, supernet),
    )


def test_a_latency_is_measured_and_what_is_slower_passed_over(base, tmp_path, monkeypatch):
    seen = []

    def measured(config, children, batch_size, sequence_length, seconds=30.0):
        seen.append(list(children))
        return [1.0 + sum(name != "skip" for name in child) ** 1.5 for child in children]

    monkeypatch.setattr(run, "measure_side_by_side", measured)
    # Operators are really timed: on a busy machine the smallest child is foretold two thirds of so small a model.
    result = compress(base, tmp_path / "small", max_latency="0.8x", handmade=False)
    chosen = next(stage for stage in result.stages if stage["stage"].startswith("search"))["content"]
    assert chosen["measured_ms"][0] <= 0.8 * chosen["measured_ms"][1]
    assert seen[0][0] == seen[-1][0]  # the base model, every time
    table = next(stage for stage in result.stages if stage["stage"] == "costs")["content"]["latency_table"]
    assert table["setting"]["batch_size"] == 2


def row(how, chosen_by, loss, budget="0.5x", is_within=True):
    return Row(budget, how, "ffn", 10, 20, 1.0, 2.0, (Judged(loss, 0.9, None, None),), is_within, chosen_by)


def test_what_people_choose_by_hand_is_given_where_it_is_better():
    base = row("base model", None, 0.0, budget=None)
    rows = choose_given(
        [base, row("searched", 0.5, 0.6), row("layers 0 1", 0.4, 0.3), row("uniform", 0.1, 0.1, "0.5x", False)]
    )
    assert [one.how for one in rows if one.is_given] == ["layers 0 1"]
    said = "\n".join(verdicts(rows))
    assert "the child chosen by hand (layers 0 1) was saved" in said
    assert "a hand-made choice is better here" in said
    assert "uniform, which is above the budget, is closer to the base model (distance 0.1 against 0.3)" in said
    rows = choose_given([base, row("searched", 0.3, 0.4), row("layers 0 1", 0.4, 0.5)])
    assert [one.how for one in rows if one.is_given] == ["searched"]
    assert "closer to the base model than every other" in "\n".join(verdicts(rows))


def test_a_searched_child_that_is_above_the_budget_when_it_is_measured_again_says_so():
    base = row("base model", None, 0.0, budget=None)
    rows = choose_given([base, row("searched", 0.3, 0.3, is_within=False), row("layers 0", 0.4, 0.4)])
    assert [one.how for one in rows if one.is_given] == ["searched"]
    assert "timed again for this table, it is above the budget" in "\n".join(verdicts(rows))
    rows = choose_given([base, row("searched", 0.3, 0.3), row("layers 0", 0.4, 0.4)])
    assert "timed again" not in "\n".join(verdicts(rows))


@pytest.mark.slow
def test_the_table_holds_the_searched_child_to_its_latency_too(base, tmp_path, monkeypatch):
    calls = []

    def measured(config, children, batch_size, sequence_length, seconds=30.0):
        calls.append(batch_size)
        slow = 7.0 if len(calls) > 2 else 5.0  # of all but the base model, for the table
        return [10.0, *(slow for _ in children[1:])]

    monkeypatch.setattr(run, "measure_side_by_side", measured)
    result = compress(base, tmp_path / "small", max_latency="0.6x", handmade=False, scorer="additive")
    assert calls == [2, 2, 1, 2]
    assert (result.best.row.how, result.best.row.is_within) == ("searched", False)
    assert "searched (saved) (above the budget)" in str(result)


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (0.8, "50.0% of its correlation on the pairs"),
        (-0.06, "a correlation on the pairs of 0.4000 (the base model -0.0600)"),
        (0.0, "a correlation on the pairs of 0.4000 (the base model 0.0000)"),
    ],
)
def test_of_a_correlation_that_is_none_there_is_no_share(whole, said):
    rows = [row("base model", None, 0.0, budget=None), row("searched", 0.1, 0.1)]
    rows = [
        dataclasses.replace(one, judged=(dataclasses.replace(one.judged[0], spearman=value),))
        for one, value in zip(rows, (whole, 0.4), strict=True)
    ]
    (first, *_) = verdicts(choose_given(rows))
    assert said in first
    assert first.count("correlation") == 1


# Refusals, each in one line


def refused(match, call):
    with pytest.raises((ValueError, OSError), match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"one kind of budget is needed, got none: give caps \(--max_latency, --max.*\(--budgets 0\.75x ",
        ),
        ({"max_parameters": "1x"}, "max_parameters='1x': expected a share above 0x and below 1x, which is all of"),
        ({"max_parameters": "0.5x", "budgets": ["0.5x"]}, "one kind of budget is needed, got max_parameters, budgets"),
        ({"budgets": ["0.5x", "0.5x"]}, "0.5x twice"),
        ({"budgets": ["0.5x", "0.50x"]}, "0.50x twice"),
        ({"budgets": ["half"]}, r"^budgets='half': expected a number above 0 \(--budgets 15M\) or a share"),
        ({**HALF, "seeds": [1, 1]}, "seeds"),
        ({**HALF, "batch_size": 0}, "batch_size=0"),
        ({**HALF, "latency_shape": "32"}, "latency_shape='32'"),
        ({**HALF, "learning_rate": 0.0}, "learning_rate=0.0"),
        ({**HALF, "max_seq_length": 3}, "max_seq_length=3"),
        ({**HALF, "patience": -1}, "patience=-1: expected at least 0"),
        ({**HALF, "additivity": -1}, "additivity=-1: expected at least 0"),
        ({**HALF, "warmup_steps": -1}, "warmup_steps=-1: expected at least 0"),
        ({**HALF, "max_replace_one_loss": -1.0}, "max_replace_one_loss"),
        ({"max_latency": "nanx"}, "^max_latency='nanx': expected milliseconds"),
        (
            {"max_latency": "half"},
            r"^max_latency='half': expected milli.*12\.5ms\) or a share .*\(--max_latency 0\.5x\)",
        ),
        ({"max_latency": 0.0}, r"^max_latency='0\.0': expected milliseconds above 0"),
        ({"budgets": ["0.5x", "nanx"], "cost": "latency_ms"}, "^budgets='nanx': expected milliseconds"),
        ({**HALF, "cost": "flops"}, "^cost=flops changes nothing without budgets: give both, or leave cost out"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CompressArguments(base_model="x", output_dir="y", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_parameters": "100", "skip": False}, "no child of this base model .* at most 100, and the smallest"),
        ({"max_parameters": "1"}, r"at most 1, and the smallest there is has 96 \(the base model"),  # one norm
        ({"max_flops": "10", "skip": False}, "its flops may be at most 10, and the smallest there is"),
        ({"max_memory": "10", "skip": False}, "its peak_activation_bytes may be at most 10, and the sma"),
        ({"max_flops": "1T"}, r"the base model is within the budget max_flops=1T as it is \(flops"),
        ({"max_parameters": "5M"}, r"max_parameters=5M as it is \(num_parameters [0-9,]+ of at most 5,000,000\)"),
        ({**HALF, "heads": [5]}, "heads has 5: expected numbers from 1 to 2"),
        ({**HALF, "max_seq_length": 48}, "max_seq_length asks for 48 tokens, and the base model has 24 positions"),
        ({**HALF, "latency_shape": "2x128"}, "latency_shape asks for 128 tokens"),
        ({**HALF, "pairs_file": "no.csv"}, r"no\.csv"),
        ({**HALF, "kernels": [3, 4]}, "kernels has 4: expected 3, 5, 7"),
        ({**HALF, "base_model_id": "no name/of the/Hub"}, "^base_model_id=.* is not a name on the Hub, such as"),
        ({**HALF, "revision": "v2"}, "revision=v2 is of a model on the Hub, and .* is a folder"),
    ],
)  # fmt: skip
def test_budgets_and_sizes_that_do_not_fit_are_refused_before_any_work(base, settings, message, tmp_path):
    source = TextSource(lambda: pytest.fail("read"), {"source": "x"})
    arguments = CompressArguments(base_model=str(base), output_dir=str(tmp_path / "small"), **SETTINGS | settings)
    one = Compression(arguments, source)
    refused(message, one.run)


def test_a_child_with_convolutions_is_refused_before_any_work(tmp_path):
    """As by `plan-compress`: nothing is read, and no output of the base model is computed."""
    child = random_model(NasBertForMaskedLM, chain_config(("attention", "ffn", "conv3", "ffn")))
    save_child(child, tiny_tokenizer(), tmp_path / "child")
    source = TextSource(lambda: pytest.fail("read"), {"source": "x"})
    settings = SETTINGS | HALF | {"max_seq_length": 8, "latency_shape": "1x8"}
    arguments = CompressArguments(base_model=str(tmp_path / "child"), output_dir=str(tmp_path / "small"), **settings)
    message = r"^block 2 of the base model is a NasBertConv.*: only encoders of attention and ffn.*\(--base_model\)"
    refused(message, Compression(arguments, source).run)
    refused(message, lambda: plan._plan(arguments, source))
    assert not (tmp_path / "small" / "stages.jsonl").exists()


@pytest.mark.slow
def test_what_was_refused_before_any_work_keeps_no_folder_to_itself(base, tmp_path):
    folder = tmp_path / "small"
    refused("the smallest there is", lambda: compress(base, folder, max_parameters="1"))
    refused("no number 7 is told", lambda: compress(base, folder, pairs_file="no number 7 is told", **HALF))
    result = compress(base, folder, handmade=False, **HALF)
    assert result.best.row.budget == "max_parameters=0.5x"
    assert json.loads((folder / "settings.json").read_text())["settings"]["pairs_file"] is None
    refused("other settings", lambda: compress(base, folder, handmade=False, max_parameters="0.4x"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.txt", "text.txt is a file: expected a model's folder, or its name on the Hub"),
        ("a/b/nowhere", "there is no folder a/b/nowhere, and no model on the Hub can be called so"),
    ],
)
def test_a_base_model_that_is_no_folder_is_refused_without_asking_the_hub(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the film")
    monkeypatch.setattr("hf_nasbert.configs.cached_file", None)
    refused(message, lambda: compress(name, tmp_path / "small", **HALF))


@pytest.mark.slow
def test_a_screened_space_without_a_child_is_told_before_it_is_trained(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Materials, "trained", property(lambda _: pytest.fail("trained")))
    refused(
        "max_parameters=0.5x: of the variants whose lone replacement costs at most max_replace_one_loss=0.0 no child",
        lambda: compress(base, tmp_path / "small", scorer="supernet", max_replace_one_loss=0.0, **HALF),
    )


def test_a_model_in_place_of_its_name_is_refused():
    for call in (hf_nasbert.compress, plan.plan_compression):
        with pytest.raises(TypeError, match=r"^base_model is a Linear: expected the folder that it is saved in, or"):
            call(torch.nn.Linear(1, 1), ["a text"], **HALF)


def test_a_decoder_is_refused(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "base")
    refused("is a 'gpt2', a decoder", lambda: compress(tmp_path / "base", tmp_path / "small", **HALF))


def test_packaged_models_and_pairs_stand_where_folders_and_files_may(tmp_path):
    arguments = CompressArguments(
        base_model="packaged:all-MiniLM-L6-v2", pairs_file="packaged:stsb", output_dir=str(tmp_path / "small"), **HALF
    )
    assert hub_name(arguments) == "sentence-transformers/all-MiniLM-L6-v2"
    assert model_folder(arguments.base_model) == str(packaged_model("all-MiniLM-L6-v2"))
    pairs = read_pairs(arguments.pairs_file)
    assert pairs.column_names == ["sentence1", "sentence2", "score"]
    assert pairs["score"] == load_labelled("stsb")["test"]["label"]
    refused("no packaged model 'minilm'", lambda: compress("packaged:minilm", tmp_path / "small", **HALF))
    refused("packaged:rotten_tomatoes have no column 'sentence1'", lambda: read_pairs("packaged:rotten_tomatoes"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "is a 't5', an encoder with a decoder; supported are the encoders bert"),
        ({"model_type": "bert", "is_decoder": True}, "is a 'bert', a decoder: .*; supported are the encoders bert"),
        (
            {"model_type": "deberta-v2"},
            "'deberta-v2', whose layers are not known to be BERT's.* supported are the enc",
        ),
        (
            {"model_type": "mine"},
            "model type `mine` but Transformers does not recognize .* supported are the encoders",
        ),
        ({"hidden_size": 32}, "Should have a `model_type` key.* supported are the encoders bert"),
    ],
)
def test_what_is_no_encoder_of_a_known_kind_is_refused_with_a_word_on_what_is(base, config, message, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    source = TextSource(lambda: pytest.fail("read"), {"source": "x"})
    arguments = CompressArguments(base_model=str(folder), output_dir=str(tmp_path / "small"), **SETTINGS | HALF)
    refused(message, Compression(arguments, source).run)


def test_text_that_is_missing_is_told_before_anything_is_measured(base, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "measure_latencies", None)
    for name, content in (("none.txt", None), ("empty.txt", ""), ("blank.txt", "\n \n")):
        if content is not None:
            (tmp_path / name).write_text(content)
        refused(
            f"no text file .*{name}|text file .*{name} is empty|{name} holds no text",
            lambda name=name: compress(base, tmp_path / f"small-{name}", str(tmp_path / name), max_latency="0.5x"),
        )


def test_a_base_model_without_a_tokenizer_is_refused(tmp_path):
    base = save_base(tmp_path / "base", tokenizer=False)
    refused("has no tokenizer to cut text with", lambda: compress(base, tmp_path / "small", **HALF))


def test_a_base_model_with_code_of_its_own_is_refused(base, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for path in base.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    refused("trust_remote_code", lambda: compress(folder, tmp_path / "small", **HALF))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is no text"),
        (["the film was good.", 5], "given in Python: the column 'text' holds a int, not a string"),
        (Dataset.from_dict({"text": ["the film was good.", None]}), "'text' holds a NoneType, not a string"),
        (Dataset.from_dict({"text": [1, 2, 3]}), "'text' holds a int, not a string"),
        (Dataset.from_dict({"words": ["good"]}), "has no column 'text', only 'words'"),
        (["the film was good."], "three different ones are needed"),
        ([f"фильм был хорошим {'и' * number} длинным" for number in range(40)], "knows no word of the text"),
        (
            [f"фильм был {'и' * number}, the" for number in range(40)],
            "tokens are unknown .* cut it: give text in the base model's language$",
        ),
    ],
)
def test_text_that_says_nothing_is_refused(base, texts, message, tmp_path):
    refused(message, lambda: hf_nasbert.compress(base, texts, output_dir=tmp_path / "small", **SETTINGS | HALF))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence1,sentence2\na,b\nc,d\n", "no column 'score'"),
        ("sentence1,sentence2,score\na,b,high\nc,d,low\n", "column 'score' .* expected numbers"),
        ("sentence1,sentence2,score\na,b,1\nc,,2\n", "column 'sentence2' .* expected sentences"),
        ("sentence1,sentence2,score\na,b,1\nc,d,1\n", "all have one score"),
    ],
)
def test_pairs_that_prove_nothing_are_refused(base, text, message, tmp_path):
    (tmp_path / "pairs.csv").write_text(text)
    refused(message, lambda: compress(base, tmp_path / "small", pairs_file=str(tmp_path / "pairs.csv"), **HALF))


def test_places_where_something_would_be_lost_are_refused(base, tmp_path):
    (tmp_path / "link").symlink_to(base)
    for model, folder in ((base, base), (base, tmp_path / "link"), (tmp_path / "link", base)):
        inside = folder / "small"
        refused("lies in the base model's folder", lambda model=model, to=inside: compress(model, to, **HALF))
    (tmp_path / "link").unlink()
    (tmp_path / "thesis.tex").write_text("mine")
    refused("is not empty, and holds nothing of this command", lambda: compress(base, tmp_path, **HALF))
    other = tmp_path / "other"  # a folder of `hf-nasbert run` has settings too
    (other / "work").mkdir(parents=True)
    (other / "settings.json").write_text(json.dumps({"supernet": {}, "data": {}}))
    (other / "work" / "thesis.tex").write_text("mine")
    before = content(other)
    refused("is not empty, and holds nothing of this command", lambda: compress(base, other, **HALF))
    assert content(other) == before


def test_a_gate_stops_what_is_not_the_base_model(base, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_nasbert.compression.base_models.TOLERANCE", -1.0)
    refused("gives other outputs than itself", lambda: compress(base, tmp_path / "small", **HALF))


@pytest.mark.slow
def test_a_gate_stops_a_searched_child_whose_loss_did_not_fall(base, tmp_path, monkeypatch):
    def risen(materials, child, seed):
        return None, Recovery([0.5] * 10 + [0.9] * 10, 0, Score(2.0, 0, 0, 0), Score(1.0, 0, 0, 0), 20, {})

    monkeypatch.setattr(Materials, "recover", risen)
    refused(
        r"recovery of .*: the training loss did not fall \(0\.5000 in the first .* 0\.9000 .*lower learning_rate",
        lambda: compress(base, tmp_path / "small", **HALF),
    )


@pytest.mark.slow
def test_what_brought_nothing_is_left_as_it_began_and_what_is_made_by_hand_stops_nothing(
    base, tmp_path, capsys, monkeypatch
):
    recover, losses = Materials.recover, []

    def risen(materials, child, seed):
        model, done = recover(materials, child, seed)
        losses.append(done.losses)
        return model, done if len(losses) == 1 else dataclasses.replace(done, losses=[1.0, math.inf])

    monkeypatch.setattr(Materials, "recover", risen)
    compress(base, tmp_path / "small", learning_rate=1e-30, patience=1, additivity=3, **HALF)
    told = capsys.readouterr().out
    assert told.count("its weights stay as they were") == len(losses) - 1 >= 2  # the last is written
    report, card = ((tmp_path / "small" / name).read_text() for name in ("report.md", "README.md"))
    for text in (report, card):
        assert "distillation did not improve it on the validation set, so its weights are those before" in text
    for space in ("whole", "screened"):
        line = f"the real distances of 3 random children, {space} space"
        assert line in told
        assert line in report
    stages = [json.loads(line) for line in (tmp_path / "small" / "stages.jsonl").read_text().splitlines()]
    made = [stage["content"] for stage in stages if stage["stage"].startswith("recovery")]
    assert [(one["kept_step"], one["after"]) for one in made] == [(0, one["before"]) for one in made]
    assert made[0]["num_steps"] == 12


def test_the_command_calls_it_with_text_from_files(base, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(documents()))
    flags = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    monkeypatch.chdir(tmp_path)
    status = cli.main(
        ["compress", "--base_model", str(base), "--train_files", "text.txt", "--output_dir", "small",
         "--max_parameters", "0.5x", "--no_handmade", *flags]
    )  # fmt: skip
    assert status == 0
    told = capsys.readouterr().out
    assert "the searched child was saved" in told
    assert Path("small/model.safetensors").is_file()
    assert "max_parameters=0.5x: the smaller model lies in small, its card in small/README.md\n" in told
    assert "the table and the stages: small/report.html, small/report.md, small/summary.json\n" in told
    snippet, ending = told.partition("to load it:\n\n")[2].split("\n\nmade: ", 1)
    push = ending.splitlines()[-1].strip()
    names: dict[str, object] = {}
    exec(snippet, names)
    assert isinstance(names["model"], SentenceTransformer)
    asked = parse_recipe_arguments([PushArguments], shlex.split(push)[2:])[0].source
    assert gather(asked, "me/small").name == "-".join(names["model"][0].auto_model.config.operators)


@pytest.mark.slow
def test_a_family_says_where_every_model_lies_and_a_classifier_its_class(tmp_path, capsys, monkeypatch):
    base = classifier_base(tmp_path / "base")
    (tmp_path / "text.txt").write_text("\n".join(documents()))
    flags = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    monkeypatch.chdir(tmp_path)
    argv = ["compress", "--base_model", str(base), "--train_files", "text.txt", "--output_dir", "a family"]
    argv += ["--budgets", "0.5x", "0.3x", "--scorer", "additive", "--heads", "2", "--ffn", "64", "--no_handmade"]
    assert cli.main([*argv, *flags]) == 0
    told = capsys.readouterr().out
    for budget in ("0.5x", "0.3x"):
        assert (
            f"{budget}: the smaller model lies in a family/{budget}, its card in a family/{budget}/README.md" in told
        )
    snippet = told.partition("to load it:\n\n")[2].partition("\n\nmade: ")[0]
    assert snippet.startswith("from transformers import AutoModelForSequenceClassification\n")
    assert '"a family/0.5x"' in snippet
    assert "made: the page, for a browser: a family/report.html\n" in told
    assert "  hf-nasbert push --source 'a family/0.5x' --repo_id YOUR_NAME/a-family-0.5x --private --dry_run\n" in told


DEAD = ["vocab_size", "do_lower_case", "strip_accents", "mlm_probability", "whole_word_mask", "language"]


@pytest.mark.parametrize("command", ["compress", "plan-compress"])
def test_settings_that_do_nothing_here_are_none(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    told = capsys.readouterr().out
    assert "--tokenizer_name" in told
    for name in [*DEAD, "preprocessing_num_workers"]:
        assert f"--{name}" not in told
    with pytest.raises(SystemExit):
        cli.main([command, "--vocab_size", "9", "--base_model", "x", "--output_dir", "y", "--train_files", "z"])
    assert "--vocab_size" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(TypeError, match="mlm_probability"):
        CompressDataArguments(train_files=["x"], mlm_probability=0.2)


def test_a_plan_says_the_command_that_it_is_of(tmp_path, capsys, monkeypatch):
    made = plan.Plan((plan.Forecast("costs", 60.0, 100),), 0.1)
    monkeypatch.setattr(plan, "_plan", lambda arguments, source: made)
    (tmp_path / "my text.txt").write_text("the film")
    argv = ["--base_model", "base", "--train_files", str(tmp_path / "my text.txt"), "--output_dir", "small"]
    argv += ["--budgets", "0.5x", "0.3x", "--no_handmade", "--int8", "--seeds", "1", "2", "--learning_rate", "1e-3"]
    assert cli.main(["plan-compress", *argv]) == 0
    _, _, command = capsys.readouterr().out.partition("next: carry it out:\n")
    program, name, *again = shlex.split(command)
    assert (program, name) == ("hf-nasbert", "compress")
    kinds = [CompressDataArguments, CompressArguments]
    assert parse_recipe_arguments(kinds, again) == parse_recipe_arguments(kinds, argv)
    assert "--batch_size" not in again


@pytest.mark.slow
def test_without_a_folder_the_result_keeps_one_as_long_as_it_lives(base):
    result = compress(base, None, handmade=False, **HALF)
    folder = result.folder
    assert isinstance(result.best, Compressed)
    assert (folder / "model.safetensors").is_file()
    assert dataclasses.replace(result, _scratch=None)._scratch is None
    result._scratch.cleanup()
    assert not folder.exists()


def test_a_name_on_the_hub_that_a_package_has_too_is_pointed_to_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=r"Without a network: --base_model packaged:all-MiniLM-L6-v2$"):
        open_base_model("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(OSError, match=r"nobody/nothing") as refused:
        open_base_model("nobody/nothing")
    assert "packaged:" not in str(refused.value)


@pytest.mark.parametrize("stage", ["costs", "search 0.5x", "recovery attention-ffn seed 0", "base model", "onnx 0.5x"])
def test_a_stage_says_what_it_does(stage):
    assert _announced(stage).startswith(f"{stage}: ")


@pytest.mark.parametrize("cap", ["12.5", "12.5ms", " 12.5 ms "])
def test_milliseconds_may_be_written_as_such(cap):
    asked = CompressArguments(base_model="x", output_dir="y", max_latency=cap)
    assert [budget.max_latency_ms for budget in asked.wanted.values()] == [12.5]
