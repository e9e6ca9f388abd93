"""What the stages of a compression stand on: settings and what a SentenceTransformer says reach where they act."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tiny.bases import classifier_base, documents, save_base
from tiny.texts import tiny_tokenizer
from transformers import BertConfig, BertModel, ElectraConfig, ElectraForMultipleChoice, ElectraForPreTraining

from hf_nasbert.compression import CompressArguments, folders, materials, run, sentences
from hf_nasbert.compression.base_models import check_classifier, difference_from, load_base_model
from hf_nasbert.compression.choosing import MEASURED_AT_ONCE, Scored, Worth, corrected_by_clock, within_measured
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.proof import Row
from hf_nasbert.compression.replace_one import Replacement, places
from hf_nasbert.compression.run import Compression
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import Budget, Share
from hf_nasbert.elastic import base_models
from hf_nasbert.elastic.base_models import open_base_model
from hf_nasbert.modeling import NasBertModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules
from hf_nasbert.space import Architecture

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def made(base, work, modules=None, **settings):
    """Materials of a base model with other modules around it than its folder has."""
    asked = {
        "max_parameters": "0.5x",
        "max_seq_length": 16,
        "batch_size": 16,
        "num_sentences": 64,
        "latency_shape": "2x16",
    } | settings
    arguments = CompressArguments(base_model=str(base), output_dir=str(work / "small"), **asked)
    texts = Dataset.from_dict({"text": [f"A {text}" for text in documents(90)]})
    found = Materials(arguments, TextSource.of(texts), work / "work")
    if modules is not None:
        found.base = dataclasses.replace(found.base, modules=modules)
    return found


@pytest.mark.parametrize(("pooling", "wanted"), [("cls", "cls"), ("mean", "mean"), ("max", "mean")])
def test_children_are_compared_by_the_token_that_makes_the_base_models_vectors(base, tmp_path, pooling, wanted):
    found = made(base, tmp_path, SentenceModules((pooling,)))
    found.states = {"train": SimpleNamespace(mean=torch.zeros(32))}
    assert found.distance.pooling == wanted


def test_text_is_in_lower_case_where_the_base_model_makes_it_so(base, tmp_path):
    for is_lower in (True, False):
        texts = made(base, tmp_path, SentenceModules(do_lower_case=is_lower)).documents["text"][:]
        assert all(text.startswith("a " if is_lower else "A ") for text in texts)


@pytest.mark.parametrize(
    ("asked", "modules", "wanted"),
    [
        (16, SentenceModules(), 16),
        (16, SentenceModules(max_seq_length=9), 9),
        (None, SentenceModules(), 20),
        (None, SentenceModules(prompts={"q": "a film"}, default_prompt_name="q"), 22),
        (24, SentenceModules(prompts={"q": "a film"}, default_prompt_name="q"), 24),
    ],
)
def test_a_sentence_is_no_longer_than_the_base_model_reads(base, tmp_path, asked, modules, wanted):
    assert made(base, tmp_path, modules, max_seq_length=asked).max_length == wanted


@pytest.mark.parametrize(("inner_blocks", "weight"), [((1, 3), 10.0), ((), 0.0)])
def test_recovery_is_made_as_it_was_asked_for(base, tmp_path, monkeypatch, inner_blocks, weight):
    seen = []

    def recover(model, batches, targets, distance, settings, *, held_out, **_):
        seen.append(settings)
        assert (batches, targets.inner_blocks, held_out) == (["train"], inner_blocks, (["choosing"], ["states"]))

    monkeypatch.setattr(materials, "recover", recover)
    found = made(base, tmp_path, patience=3, recovery_steps=7, learning_rate=2e-3)
    found.bf16, found.distance = True, None
    found.text = SimpleNamespace(train=["train"], choosing=["choosing"], judging=None)
    found.states = {"train": SimpleNamespace(inner_blocks=inner_blocks), "choosing": ["states"]}
    found.start_of = lambda child: (None, "inherited")
    found.recover(("ffn",), 5)
    (own,) = seen
    assert (own.num_steps, own.learning_rate, own.patience, own.seed, own.bf16) == (7, 2e-3, 3, 5, True)
    assert (own.inner_weight, own.label_weight) == (weight, 0.0)


def test_children_are_scored_on_the_text_that_chooses(base, tmp_path):
    found = made(base, tmp_path)
    found.bf16, found.distance, found.supernet = False, None, None
    found.text = SimpleNamespace(train=None, choosing=["choosing"], judging=None)
    found.states = {"choosing": ["states"]}
    assert (found.scorer.batches, found.scorer.targets) == (["choosing"], ["states"])


def test_what_chooses_and_what_teaches_read_no_text_that_judges(base, tmp_path, monkeypatch):
    """Lone replacements, the weights that recovery begins with, the task's metric; and the fit of the variants."""
    found = made(base, tmp_path, scorer="supernet")
    one, other = (sentences.tokenised(documents(number), found.base.tokenizer, 16) for number in (4, 5))
    found.bf16, found.distance, found.supernet, found.trained = False, None, "refitted", ("trained", None)
    found.text = SimpleNamespace(train=[other, other], choosing=[one, one], judging=None)
    found.states = {"choosing": ["first", "second"]}
    for name, batch in (("_REPLACING_TOKENS", one), ("_CALIBRATION_TOKENS", other)):
        monkeypatch.setattr(materials, name, sentences.num_tokens([batch]))
    batches, targets = found.replacing
    assert ([id(batch) for batch in batches], targets) == ([id(one)], ["first"])
    assert [id(batch) for batch in found.calibration] == [id(other)]
    seen = []

    def score(model, batches, targets, *_, **__):
        seen.append((model, batches is found.text.choosing, targets))
        return SimpleNamespace(loss={"refitted": 2.0, "trained": 1.0}[model])

    monkeypatch.setattr(materials, "extract_child", lambda supernet, child: supernet)
    monkeypatch.setattr(materials, "score_model", score)
    assert found.start_of(FULL) == ("trained", "supernet")
    assert seen == [(name, True, ["first", "second"]) for name in ("refitted", "trained")]
    metric = SimpleNamespace(predictions=None, score=lambda predictions, labels: (predictions, labels))
    found.examples = SimpleNamespace(metric=metric)
    monkeypatch.setattr(materials, "predictions_of", lambda model, batches, _: id(batches))
    monkeypatch.setattr(materials, "labels_of", id)
    assert found.chosen_metric(None) == (id(found.text.choosing),) * 2


def test_the_first_heads_and_neurons_of_the_super_net_are_those_that_matter_most(base, tmp_path):
    found = made(base, tmp_path)
    blocks = found.base.full_child.encoder.blocks
    before = [block.operator.output.dense.weight.clone() for block in blocks]
    scores = [list(range(64 if number % 2 else 2)) for number in range(6)]  # the last ones
    supernet = found.sorted(scores)
    for block, own, part in zip(supernet.encoder.blocks, before, scores, strict=True):
        full = supernet.largest_architecture[len(part) == 64]
        first = block.operators.output_of(full).dense.weight[:, : 32 // len(part) or 1]
        assert torch.equal(first, own[:, -first.shape[1] :])
    assert all(torch.equal(block.operator.output.dense.weight, own) for block, own in zip(blocks, before, strict=True))


def test_a_super_net_is_trained_on_the_screened_space_alone(base, tmp_path, monkeypatch):
    seen = []

    def distil(supernet, space, batches, targets, *_, held_out, **__):
        seen.append(space)
        assert (batches, targets, held_out) == (["train"], ["taught"], (["choosing"], ["states"]))
        return SimpleNamespace(num_tokens=1, before=2.0, after=1.0)

    monkeypatch.setattr(materials, "distil_supernet", distil)
    found = made(base, tmp_path, max_replace_one_loss=0.3, heads=[1], ffn=[16], scorer="supernet")
    found.bf16, found.distance = False, None
    found.text = SimpleNamespace(train=["train"], choosing=["choosing"], judging=None)
    found.states = {"train": ["taught"], "choosing": ["states"]}
    found.supernet = found.sorted([[1.0] * (64 if number % 2 else 2) for number in range(6)])
    full = found.supernet.largest_architecture
    found.table = [Replacement(*one, 0.0 if one[1] == (full[one[0]],) else 9.0) for one in places(found.space, full)]
    found.table = [one if one.operators != ("ffn16",) else dataclasses.replace(one, loss=0.3) for one in found.table]
    _, told = found.distilled("uniform", 0)
    (space,) = seen
    assert space.blocks == ((full[0],), (full[1], "ffn16")) * 3
    assert told.num_children == 8


def test_a_trimmed_vocabulary_is_that_of_the_documents_to_train_on(base, tmp_path, monkeypatch):
    seen, count = [], materials.count_pieces

    def counted(documents, *given, **options):
        seen.extend(documents["text"])
        return count(documents, *given, **options)

    monkeypatch.setattr(materials, "count_pieces", counted)
    found = made(base, tmp_path, trim_vocabulary=True)
    assert found.vocabulary.kept
    train, *held_out = sentences.split_parts(found.documents, cache_dir=tmp_path / "parts")
    assert sorted(seen) == sorted(train["text"])
    assert not set(seen) & {text for part in held_out for text in part["text"]}


def test_a_trimmed_vocabulary_is_judged_on_the_sentences_of_the_other_rows(base, tmp_path, monkeypatch):
    monkeypatch.setattr(materials, "_NUM_JUDGING", 8)  # fewer than there are
    found = made(base, tmp_path)
    long = [f"{text[:-1]} and {' '.join(documents(4, seed=number))}" for number, text in enumerate(documents(300))]
    texts = [one for pair in zip(long, documents(300, seed=1), strict=True) for one in pair]
    found.source = TextSource.of(Dataset.from_dict({"text": texts}))
    tokenizer = found.base.tokenizer
    cut = tokenizer(found.judging, truncation=True, max_length=found.max_length)["input_ids"]
    read = [
        row[:length].tolist()
        for batch in found.text.judging
        for row, length in zip(batch["input_ids"], batch["attention_mask"].sum(1), strict=True)
    ]
    assert sorted(read) == sorted(cut)


def test_what_is_made_by_hand_keeps_to_the_caps_of_its_own_budget(monkeypatch):
    seen = []

    def way(name):
        def made(*given):
            seen.append((name, given[-1]))
            raise ValueError("none")

        return made

    monkeypatch.setattr(run, "best_uniform", way("uniform"))
    monkeypatch.setattr(run, "most_layers", way("layers"))
    whole = SimpleNamespace(largest_architecture=("attention", "ffn"))
    one = SimpleNamespace(materials=SimpleNamespace(supernet=whole, scorer_of=lambda supernet: None, cost=None))
    one._layers_by_hand = partial(Compression._layers_by_hand, one)
    caps = {"0.5x": {"num_parameters": 100.0}, "0.25x": {"num_parameters": 50.0}}
    made_by_hand = Compression._make_by_hand(one, caps)
    slack = [{"num_parameters": pytest.approx(number)} for number in (101.0, 50.5)]
    assert seen == [(name, own) for own in slack for name in ("layers", "layers", "uniform")]
    assert made_by_hand.missing == [f"{budget}: nothing to compare with: none" for budget in caps]


@pytest.mark.parametrize(("metrics", "wanted"), [((None, None, None), 1), ((0.7, 0.6, 0.7), 2)])
def test_of_several_seeds_the_best_on_the_text_that_chooses_is_written(metrics, wanted, tmp_path, monkeypatch):
    """By the distance, or where a metric ranks, by that, ties broken by the distance: as children are."""
    monkeypatch.setattr(folders, "native_form", lambda model: (model, None))
    monkeypatch.setattr(folders, "card_of", lambda *_, **__: "")
    monkeypatch.setattr(folders.checkpoint_folders, "replace_files", lambda *_, **__: None)
    asked = []

    def recover(child, seed):
        asked.append(seed)
        return torch.nn.Linear(1, 1), None

    found = SimpleNamespace(
        arguments=SimpleNamespace(seeds=[3, 1, 2]), recover=recover, work=tmp_path,
        base=SimpleNamespace(tokenizer=None, modules=None),
    )  # fmt: skip
    row = Row("0.5x", "searched", "attention-ffn", 1, 2, 1.0, 1.0, (), True, 0.3, is_given=True)
    recovered = {
        (Architecture.parse("attention-ffn"), seed): SimpleNamespace(after=after, metric=metric)
        for seed, after, metric in zip((3, 1, 2), (0.5, 0.2, 0.4), metrics, strict=True)
    }
    written = folders.write_folders(found, tmp_path, [row], recovered)
    assert (asked, written.models[0]["seed"]) == ([wanted], wanted)


@pytest.mark.parametrize(
    ("head", "config"),
    [(ElectraForPreTraining, ElectraConfig), (ElectraForMultipleChoice, ElectraConfig)],
)
def test_a_head_that_no_child_has_leaves_the_encoder_alone(tmp_path, head, config):
    """An ELECTRA as it is published tells real words from replaced ones: it has nothing that predicts masked ones."""
    head(config(vocab_size=60, embedding_size=16, **TINY)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = open_base_model(str(tmp_path))
    assert (type(found.full_child), found.hub_task) == (NasBertModel, "feature-extraction")


@pytest.mark.parametrize("head", ["BertForMaskedLM", "BertForSequenceClassification", "BertForQuestionAnswering"])
def test_a_base_model_whose_head_is_not_in_its_weights_is_refused(tmp_path, head):
    """Else what is made of it would have one that was drawn at random."""
    BertModel(BertConfig(vocab_size=60, **TINY)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": [head]}))
    with pytest.raises(ValueError, match=r"lacks \d+ weights of its head, such as ") as raised:
        open_base_model(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_pairs_are_read_before_any_text(base, tmp_path):
    """What is wrong with them is told at once, not behind an hour of work."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2\na cat,a dog\n")
    source = TextSource(lambda: pytest.fail("read"), {"source": "x"})
    arguments = CompressArguments(
        base_model=str(base), output_dir=str(tmp_path / "small"), max_parameters="0.5x", max_seq_length=16,
        latency_shape="2x16", pairs_file=str(pairs),
    )  # fmt: skip
    with pytest.raises(ValueError, match="no column 'score'"):
        Compression(arguments, source).run()


def test_a_sentence_fits_with_the_prompt_in_front_of_it(monkeypatch):
    seen = []

    def choose(documents, number, seed, *, most_characters):
        seen.append(most_characters)
        return ["a film"]

    monkeypatch.setattr(sentences, "choose_sentences", choose)
    texts = Dataset.from_dict({"text": documents(60)})
    sentences.load_sentences(texts, tiny_tokenizer(), max_length=10, prompt="a good film: ")
    assert seen == [40 - len("a good film: ")] * 3


FULL, *OTHERS = (Architecture.parse(name) for name in ("attention-ffn", "ffn-ffn", "skip-ffn"))


def test_a_latency_in_milliseconds_is_held_to_by_the_clock():
    ranked = [Scored(child, 0.1, Worth(0.1), {}) for child in OTHERS]
    found = within_measured(
        lambda caps: ranked, Budget(max_latency_ms=5.0), {"latency_ms": 5.0}, FULL, lambda children: [10.0, 6.0, 4.0]
    )
    assert (found[1], found[2]) == (ranked[1], [4.0, 10.0])


@pytest.mark.parametrize(
    ("limit", "measured", "factor"),
    [
        (Share(0.5), [10.0, 4.0, 3.0], 0.97 * 5.0 / 3.5), (7.0, [10.0, 4.0, 3.0], 0.97 * 7.0 / 3.5),
        (Share(0.5), [20.0, 9.0, 15.0], 1.0),
    ],
)  # fmt: skip
def test_the_cap_rises_where_the_clock_finds_children_faster(limit, measured, factor):
    """To three per cent below what is allowed, for children scatter; where they are slower it stays."""
    asked, caps = [], {"latency_ms": 4.0, "num_parameters": 7.0}

    def best_sums(caps):
        asked.append(dict(caps))
        return [Scored(child, 0.1, Worth(0.1), {}) for child in OTHERS]

    found = corrected_by_clock(best_sums, Budget(max_latency_ms=limit), caps, FULL, lambda children: measured)
    assert found == {"latency_ms": pytest.approx(4.0 * factor), "num_parameters": 7.0}
    assert asked == [caps] == [{"latency_ms": 4.0, "num_parameters": 7.0}]


def test_where_all_are_too_slow_by_the_clock_the_cap_falls_by_as_much():
    asked, times = [], iter([[10.0, 10.0, 8.0], [10.0, 6.0, 5.05], [10.0, 9.0, 5.0]])

    def rank(caps):
        asked.append(caps["latency_ms"])
        return [Scored(child, 0.1, Worth(0.1), {}) for child in OTHERS]

    def measure(children):
        assert list(children) == [FULL, *OTHERS]
        return next(times)

    caps = {"latency_ms": 4.0}
    found = within_measured(rank, Budget(max_latency_ms=Share(0.5)), caps, FULL, measure)
    assert asked == pytest.approx([4.0, 4.0 * 5 / 8, 4.0 * 5 / 8 * 0.99])
    assert (found[1].architecture, found[2]) == (OTHERS[1], [5.0, 10.0])
    assert caps == {"latency_ms": 4.0}
    with pytest.raises(ValueError, match=r"no child is measured at 5 ms or less .* \(the best: 6 ms\)"):
        within_measured(rank, Budget(max_latency_ms=5.0), caps, FULL, lambda children: [10.0, 6.0, 7.0])


def test_a_timing_run_is_of_a_few_children_beside_the_base_model():
    """The best ones by their rank: others, though they were fast enough, are neither run nor taken."""
    ranked = [Scored(OTHERS[0], float(number), Worth(float(number)), {}) for number in range(MEASURED_AT_ONCE + 2)]
    asked = []

    def measure(children):
        asked.append(len(children))
        slow = [9.0 / len(asked)] * min(MEASURED_AT_ONCE, len(children) - 1)
        return [10.0, *slow, *[1.0] * (len(children) - 1 - len(slow))]

    budget, caps = Budget(max_latency_ms=Share(0.5)), {"latency_ms": 4.0}
    assert corrected_by_clock(lambda caps: ranked, budget, caps, FULL, measure) == caps
    assert asked == [1 + MEASURED_AT_ONCE]
    asked.clear()
    found = within_measured(lambda caps: ranked, budget, caps, FULL, measure)
    assert (found[1], found[2]) == (ranked[0], [4.5, 10.0])
    assert asked == [1 + MEASURED_AT_ONCE] * 2


def test_a_full_child_whose_head_says_something_else_is_not_compressed(tmp_path):
    folder = classifier_base(tmp_path / "base")
    arguments = CompressArguments(
        base_model=str(folder), output_dir=str(tmp_path / "small"), max_parameters="0.5x", latency_shape="2x16"
    )
    found = load_base_model(arguments, None, None)
    batches = [sentences.tokenised(documents(4), found.tokenizer, 16)]
    assert difference_from(found, batches, arguments) < 1e-6
    with torch.no_grad():
        found.full_child.classifier.bias += 0.1
    with pytest.raises(ValueError, match="gives other outputs than itself"):
        difference_from(found, batches, arguments)


def test_a_tokenizer_is_loaded_by_its_own_name_and_revision(base, monkeypatch):
    """That of `tokenizer_name` by `tokenizer_revision`, the base model's by its; code runs where it is trusted."""
    asked, tokenizer = [], open_base_model(str(base)).tokenizer
    child = open_base_model(str(base)).full_child

    def opened(name, **options):
        asked.append((str(name), options))
        return tokenizer

    for name, found in (
        ("open_tokenizer", opened),
        ("check_model", lambda model, revision: None),
        ("encoder_place", lambda model, *, revision: (model, revision)),
        ("load_config", lambda model, **options: child.config),
        ("read_sentence_modules", lambda model, *, revision: None),
        ("load_full_child", lambda model, kind, **options: child),
    ):
        monkeypatch.setattr(base_models, name, found)
    of_base = {"max_parameters": "0.5x", "base_model": "owner/model", "output_dir": "x", "revision": "v2"}
    of_base["latency_shape"] = "1x8"
    for trusted in (False, True):
        arguments = CompressArguments(**of_base, trust_remote_code=trusted)
        load_base_model(arguments, None, None)
        load_base_model(arguments, "owner/pieces", None)
        load_base_model(arguments, "owner/pieces", "v3")
        assert asked == [
            ("owner/model", {"revision": "v2", "trust_remote_code": trusted}),
            ("owner/pieces", {"revision": None, "trust_remote_code": trusted}),
            ("owner/pieces", {"revision": "v3", "trust_remote_code": trusted}),
        ]
        asked.clear()


@pytest.mark.slow
def test_messages_name_a_packaged_model_as_the_user_did(monkeypatch):
    name = "packaged:all-MiniLM-L6-v2"
    base = open_base_model(name)
    assert Path(base.place).is_dir()
    assert (base.name, base.tokenizer.name_or_path, base.revision) == (name, name, None)
    arguments = CompressArguments(base_model=name, output_dir="x", max_parameters="0.5x")
    batch = sentences.tokenised(["a film"], base.tokenizer, 8)
    monkeypatch.setattr("hf_nasbert.compression.base_models.TOLERANCE", -1.0)
    for call in (
        lambda: check_classifier(base),
        lambda: difference_from(base, [batch], arguments),
    ):
        with pytest.raises(ValueError, match=name) as caught:
            call()
        assert str(base.place) not in str(caught.value)


def test_a_model_that_cannot_be_fetched_is_named_in_one_line(monkeypatch):
    def unreachable(*given, **options):
        raise OSError("no route\nto the host")

    monkeypatch.setattr("hf_nasbert.modeling.sentence_transformer.cached_file", unreachable)
    with pytest.raises(OSError, match=r"^the model owner/model cannot be loaded: .*no route") as caught:
        open_base_model("owner/model")
    assert "\n" not in str(caught.value)
