"""Compressing an encoder: text to batches, the base model's states, what matters, distance, scores, hand-made ones."""

import dataclasses
import itertools
import random
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from tiny.compress import BLOCKS, base_model, batches, elastic, full_child, plain_supernet, targets
from tiny.texts import tiny_tokenizer
from torch import nn
from transformers import BertForTokenClassification

from hf_nasbert.compression.choosing import Worth, ranked_choices
from hf_nasbert.compression.encoder_costs import EncoderCost
from hf_nasbert.compression.handmade import (
    best_layers,
    best_uniform,
    every_other_layer,
    most_layers,
    uniform_widths,
    with_layers,
    with_slack,
)
from hf_nasbert.compression.replace_one import (
    Replacement,
    additivity,
    as_items,
    places,
    replace_one,
    screened,
    sum_of,
)
from hf_nasbert.compression.results import additivity_lines
from hf_nasbert.compression.sentences import (
    as_batches,
    choose_sentences,
    choose_varied,
    cut_sentences,
    digest_of,
    load_sentences,
)
from hf_nasbert.compression.stages import Additive
from hf_nasbert.compression.states import target_of, teacher_states
from hf_nasbert.costs import cost_function
from hf_nasbert.elastic.distance import Distance, Target, divergence_of
from hf_nasbert.elastic.encoders import does_bf16_pay
from hf_nasbert.elastic.importance import importance, sort_by_importance
from hf_nasbert.elastic.scores import Scorer, score_children
from hf_nasbert.modeling.families import from_stock
from hf_nasbert.searching.knapsack import best_choices
from hf_nasbert.space import SKIP, Architecture, SearchSpace

# Text


def test_sentences_are_cut_in_any_script_and_short_ones_are_joined():
    assert list(cut_sentences("No. It was a long and cold winter. He left\nat the end of the spring")) == [
        "No. It was a long and cold winter.",
        "He left at the end of the spring",
    ]
    chinese = "我们昨天下午在图书馆里一起读了很多关于历史的书。他明天早上要坐第一班火车去北京看望他的父母。"
    assert len(list(cut_sentences(chinese))) == 2


def documents(num=60):
    words = ["film", "plot", "good", "bad", "long", "short", "very", "not"]
    rng = random.Random(0)
    make = lambda: " ".join(" ".join(rng.choices(words, k=rng.randint(5, 9))) + " ." for _ in range(5))  # noqa: E731
    return Dataset.from_dict({"text": [f"the {make()}" for _ in range(num)]})


def test_every_document_gives_a_sentence_before_one_gives_two():
    texts = documents(10)
    of_document = [set(cut_sentences(text)) for text in texts["text"]]
    chosen = choose_sentences(texts, 10, seed=3)
    assert sorted(sum(one in found for one in chosen) for found in of_document) == [1] * 10
    assert chosen == choose_sentences(texts, 10, seed=3) != choose_sentences(texts, 10, seed=4)
    assert len(choose_sentences(texts, 10_000, seed=3)) == len(set().union(*of_document))


def test_copies_and_empty_documents_take_no_ones_place():
    texts = Dataset.from_dict(
        {"text": ["", "the film was good ."] * 5 + [f"the film was good {n} ." for n in range(5)]}
    )
    assert len(choose_sentences(texts, 6, seed=0)) == 6


def test_sentences_that_fit_come_before_those_that_would_be_cut():
    words = "and then another word " * 20
    texts = Dataset.from_dict({"text": [f"The film {n} was good. The long film {n} {words}." for n in range(6)]})
    texts = concatenate_datasets(
        [texts, Dataset.from_dict({"text": [f"A longer film {n} {words}." for n in range(6)]})]
    )
    assert all(len(one) <= 40 for one in choose_sentences(texts, 6, seed=0, most_characters=40))
    more = choose_sentences(texts, 9, seed=0, most_characters=40)
    assert [len(one) <= 40 for one in more] == [True] * 6 + [False] * 3
    assert len(choose_sentences(texts, 100, seed=0, most_characters=40)) == 18


def test_sentences_with_words_of_their_own_are_chosen_first():
    frequent = [f"the film was {word}" for word in ("good", "bad", "good good", "bad bad", "good bad", "bad good")]
    rare = ["the plot was long", "very short"]
    chosen = choose_varied([*frequent, *rare], tiny_tokenizer(), 4)
    assert set(rare) < set(chosen)
    assert len(set(chosen)) == 4
    assert chosen == choose_varied([*frequent, *rare], tiny_tokenizer(), 8)[:4]
    assert sorted(choose_varied([*frequent, *rare], tiny_tokenizer(), 100)) == sorted([*frequent, *rare])
    assert choose_varied([], tiny_tokenizer(), 3) == []
    pair = ["the film was", "the film was very short"]
    assert choose_varied(pair, tiny_tokenizer(), 1) == pair[1:]
    assert choose_varied(pair, tiny_tokenizer(), 1, max_length=5) == pair[:1]  # what is cut brings nothing


def test_sentences_that_train_are_the_varied_ones_of_those_that_fit(tmp_path):
    """Rare words are among what trains, and not only by chance; a long sentence comes in for none of its words."""
    rng = random.Random(1)
    usual = [f"{' '.join(rng.choices(['the', 'film', 'was', 'good', 'bad'], k=7))}." for _ in range(2000)]
    rare = [f"the film was a plot {' '.join(rng.choices(['long', 'short'], k=3))}." for _ in range(8)]
    long = [f"very short , and not a long plot {number} {'very ' * 30}." for number in range(20)]
    documents = [usual[k::200] + [rare[k // 25]] * (k % 25 == 0) for k in range(200)]
    texts = Dataset.from_dict({"text": [*map(" ".join, documents), *long]})
    tokenizer = tiny_tokenizer()
    found = load_sentences(texts, tokenizer, num_train=330, max_length=14, held_out=0.05, cache_dir=tmp_path)
    text = tokenizer.batch_decode([row for batch in found.train for row in batch["input_ids"]])
    assert len(text) == 330
    varied = sum("plot" in one for one in text)
    assert not any("and" in one for one in text)
    asked = {"num_train": 330, "max_length": 14, "held_out": 0.05, "cache_dir": tmp_path}
    drawn = load_sentences(texts, tokenizer, varied=False, **asked)
    rows = [row for batch in drawn.train for row in batch["input_ids"]]
    assert len(rows) == 330
    assert sum("plot" in one for one in tokenizer.batch_decode(rows)) <= 4 < 6 <= varied


def test_sentences_of_no_token_are_left_out():
    tokenizer = SimpleNamespace(pad_token_id=None, all_special_ids=[], name_or_path="x", is_fast=False)
    made = {"a": [5, 6], "b": [], "c": [7]}

    class Tokenizer(SimpleNamespace):
        def __call__(self, sentences, **_):
            return {"input_ids": [made[one] for one in sentences]}

    (batch,) = as_batches(["a", "b", "c"], Tokenizer(**vars(tokenizer)))
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_parts_share_no_document(tmp_path):
    found = load_sentences(
        documents(), tiny_tokenizer(), num_choosing=40, num_judging=50, held_out=0.2, batch_size=4, cache_dir=tmp_path
    )
    assert [sum(len(batch["input_ids"]) for batch in part) for part in (found.choosing, found.judging)] == [40, 50]
    rows = [
        {tuple(row[row != 0].tolist()) for batch in part for row in batch["input_ids"]}
        for part in (found.train, found.choosing, found.judging)
    ]
    assert all(rows)
    for one, other in itertools.combinations(rows, 2):
        assert not one & other


def test_too_few_documents_to_hold_any_out(tmp_path):
    with pytest.raises(ValueError, match="the text has 2 document"):
        load_sentences(documents(2), tiny_tokenizer(), cache_dir=tmp_path)


def test_batches_hold_sentences_of_like_length_with_padding_on_the_right():
    made = as_batches(["the film"] * 3 + ["the film was very good and not long"] * 3, tiny_tokenizer(), batch_size=3)
    assert sorted(batch["input_ids"].shape[1] for batch in made) == [4, 10]
    (uneven,) = as_batches(["good", "the film was good"], tiny_tokenizer(), batch_size=8, max_length=5)
    assert uneven["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert uneven["input_ids"][0, 3:].tolist() == [0, 0]


def test_text_of_no_known_word_is_refused():
    with pytest.raises(ValueError, match="knows no word"):
        as_batches(["слово", "дело"], tiny_tokenizer())


# The base model's states


def test_states_are_those_of_the_base_model_and_survive_a_kill(tmp_path, monkeypatch):
    stock, own = base_model(), batches() * 20
    teacher = full_child()
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == 35:
            raise KeyboardInterrupt
        return target_of(*arguments)

    monkeypatch.setattr("hf_nasbert.compression.states.target_of", counted)
    with pytest.raises(KeyboardInterrupt):
        teacher_states(teacher, own, tmp_path)
    found = teacher_states(teacher, own, tmp_path)
    assert len(calls) == 35 + 8  # the first 32 are taken up
    teacher_states(teacher, own, tmp_path)
    assert len(calls) == 43
    assert len(found) == 40
    every = []
    for batch, target in zip(own, found, strict=True):
        with torch.no_grad():
            expected = stock(**batch).last_hidden_state[batch["attention_mask"].bool()]
        assert target.states.dtype == torch.float16
        assert torch.allclose(target.states.float(), expected, atol=2e-3)
        assert target.logits is None
        every.append(expected)
    assert torch.allclose(found.mean, torch.cat(every).mean(0), atol=1e-5)
    assert found.num_tokens == len(torch.cat(every))


def test_states_of_another_model_are_not_taken_up(tmp_path):
    teacher_states(full_child(), batches(), tmp_path)
    with pytest.raises(ValueError, match="states of another model or text"):
        teacher_states(full_child(seed=1), batches(), tmp_path)
    with pytest.raises(ValueError, match="states of another model or text"):
        teacher_states(full_child(), batches(seed=1), tmp_path)


def test_a_damaged_shard_is_made_again(tmp_path, caplog):
    teacher, own = full_child(), batches()
    expected = [target.states.clone() for target in teacher_states(teacher, own, tmp_path)]
    (shard,) = tmp_path.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-7])
    assert all(map(torch.equal, (target.states for target in teacher_states(teacher, own, tmp_path)), expected))
    assert "is damaged" in caplog.text


def test_states_that_half_precision_cannot_hold_are_refused(tmp_path):
    teacher = full_child()
    with torch.no_grad():
        teacher.encoder.blocks[-1].operator.output.LayerNorm.bias[3] = 1e5
    with pytest.raises(ValueError, match="not finite in half precision"):
        teacher_states(teacher, batches(), tmp_path)


def test_a_base_model_teaches_without_dropout_and_keeps_its_modes():
    teacher, (batch, _) = full_child(), batches()
    expected = target_of(teacher, batch).states
    teacher.train()
    teacher.embeddings.eval()
    assert torch.equal(target_of(teacher, batch).states, expected)
    assert teacher.training
    assert teacher.encoder.training
    assert not teacher.embeddings.training


def test_segments_of_pairs_are_told():
    teacher, (batch, _) = full_child(), batches()
    pairs = {**batch, "token_type_ids": batch["attention_mask"].cumsum(1) // 4 % 2}
    with torch.no_grad():
        expected = teacher(**pairs).last_hidden_state[batch["attention_mask"].bool()]
    assert torch.allclose(target_of(teacher, pairs).states, expected, atol=1e-6)
    assert not torch.allclose(target_of(teacher, batch).states, expected, atol=1e-2)
    assert digest_of([pairs]) != digest_of([batch])


def in_turn(number, count=2):
    """One of several processes, which run one after the other here."""
    return SimpleNamespace(
        num_processes=count, process_index=number, is_main_process=number == 0, device="cpu",
        wait_for_everyone=lambda: None,
    )  # fmt: skip


def test_processes_share_out_the_shards(tmp_path, monkeypatch):
    teacher, own, calls = full_child(), batches() * 20, []
    monkeypatch.setattr("hf_nasbert.compression.states.target_of", lambda *given: calls.append(1) or target_of(*given))
    with monkeypatch.context() as patch:
        patch.setattr("hf_nasbert.compression.states.TeacherStates", lambda *given: None)
        for number, expected in ((0, 32), (1, 40)):
            teacher_states(teacher, own, tmp_path / "many", processes=in_turn(number))
            assert len(calls) == expected
    many, one = (teacher_states(teacher, own, tmp_path / name) for name in ("many", "one"))
    assert len(calls) == 80
    assert torch.equal(many.mean, one.mean)
    assert all(torch.equal(many[index].states, one[index].states) for index in range(40))


def test_a_classifier_teaches_logits(tmp_path):
    teacher, own = full_child(classifier=True), batches()
    found = teacher_states(teacher, own, tmp_path)
    for batch, target in zip(own, found, strict=True):
        with torch.no_grad():
            assert torch.allclose(target.logits, teacher(**batch).logits, atol=1e-6)


def test_a_classifier_of_tokens_teaches_those_that_are_real():
    stock, (batch, _) = base_model(BertForTokenClassification), batches()
    with torch.no_grad():
        expected = stock(**batch).logits[batch["attention_mask"].bool()]
    assert torch.allclose(target_of(from_stock(stock), batch).logits, expected, atol=1e-6)


def test_bf16_pays_where_it_is_faster(monkeypatch):
    """The clock says so: here it stands still for one of the two."""
    for fast in (torch.float32, torch.bfloat16):
        now = iter(range(1000))
        seen = []

        def linear(states, weight, fast=fast, now=now, seen=seen):
            seen.append(states.dtype)
            if states.dtype != fast:
                next(now)
            return states @ weight.T

        monkeypatch.setattr(nn.functional, "linear", linear)
        monkeypatch.setattr("hf_nasbert.elastic.encoders.time.perf_counter", lambda now=now: next(now))
        assert does_bf16_pay() == (fast == torch.bfloat16)
        assert set(seen) == {torch.float32, torch.bfloat16}


# Importance


def test_importance_is_the_variance_of_what_a_part_writes():
    child, own = full_child(), batches()
    scores = importance(child, own)
    assert [len(block) for block in scores] == [2, 64] * 3
    inputs = {index: [] for index in range(2)}
    hooks = [
        child.encoder.blocks[index].operator.output.dense.register_forward_pre_hook(
            lambda _, given, index=index: inputs[index].append(given[0])
        )
        for index in range(2)
    ]
    with torch.no_grad():
        for batch in own:
            child(**batch)
    for hook in hooks:
        hook.remove()
    for index, size in ((0, 16), (1, 1)):
        rows = torch.cat(
            [given[batch["attention_mask"].bool()] for given, batch in zip(inputs[index], own, strict=True)]
        )
        weight = child.encoder.blocks[index].operator.output.dense.weight.detach()
        for part in range(len(scores[index])):
            own_part = slice(part * size, (part + 1) * size)
            written = rows[:, own_part] @ weight[:, own_part].T
            expected = (written - written.mean(0)).square().sum(1).mean()
            assert scores[index][part] == pytest.approx(float(expected), rel=1e-4)


def test_padding_has_no_importance():
    child, own = full_child(), batches()
    more = [{name: nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()} for batch in own]
    for one, other in zip(importance(child, own), importance(child, more), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_an_ffn_in_chunks_is_measured_as_a_whole_one():
    child, own = full_child(), batches()
    whole = importance(child, own)
    for block in child.encoder.blocks[1::2]:
        block.operator.chunk_size = 4
    for one, other in zip(importance(child, own), whole, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_sorting_leaves_the_function_and_puts_the_best_first():
    child, own = full_child(), batches()
    with torch.no_grad():
        before = [child(**batch).last_hidden_state for batch in own]
    scores = importance(child, own)
    assert any(block != sorted(block, reverse=True) for block in scores)
    sort_by_importance(child, scores)
    with torch.no_grad():
        for batch, expected in zip(own, before, strict=True):
            assert torch.allclose(child(**batch).last_hidden_state, expected, atol=1e-5)
    again = importance(child, own)
    for one, other in zip(scores, again, strict=True):
        assert other == pytest.approx(sorted(one, reverse=True), rel=1e-4)
    with pytest.raises(ValueError, match="the model has"):
        sort_by_importance(child, scores[:-1])


# Distance


def test_distance_is_zero_for_the_base_model_and_one_for_the_mean():
    states, mask = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)
    mask[1, 2:] = False
    target = Target(states[mask])
    distance = Distance(target.states.mean(0))
    parts = distance.parts(states, mask, target)
    assert [float(part) for part in parts] == pytest.approx([0, 0, 0], abs=1e-6)
    parts = distance.parts(target.states.mean(0).expand(3, 5, 8), mask, target)
    assert float(parts.states) == pytest.approx(1)
    changed = states.clone()
    changed[1, 2:] = 1e6  # padding
    assert float(distance.total(distance.parts(changed, mask, target))) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="or neither"):
        distance.parts(states, mask, target, torch.zeros(3, 2))


def test_the_distance_fits_the_head():
    one = Distance.of(full_child(), torch.zeros(32), pooling="cls")
    assert (one.pooling, one.vector_weight, one.logit_weight) == ("cls", 5, 0)
    other = Distance.of(full_child(classifier=True), torch.zeros(32))
    assert (other.vector_weight, other.logit_weight, other.is_multi_label) == (0, 1, False)


def test_vectors_are_means_or_first_tokens_of_their_own_sequence():
    states, mask = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)
    mask[0, 4:] = mask[1, 2:] = False
    mean, first = (Distance(torch.zeros(8), pooling=how).pool(states[mask], mask) for how in ("mean", "cls"))
    assert torch.allclose(mean, torch.stack([states[row][mask[row]].mean(0) for row in range(3)]), atol=1e-6)
    assert torch.equal(first, states[:, 0])


def test_divergence_of_classes_labels_and_numbers():
    wanted = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
    assert float(divergence_of(wanted, wanted)) == pytest.approx(0, abs=1e-7)
    other = torch.zeros(2, 2)
    expected = nn.functional.kl_div(other.log_softmax(-1), wanted.softmax(-1), reduction="batchmean")
    assert float(divergence_of(other, wanted)) == pytest.approx(float(expected))
    p, q = wanted.sigmoid(), other.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(divergence_of(other, wanted, is_multi_label=True)) == pytest.approx(float(expected), rel=1e-5)
    assert float(divergence_of(torch.tensor([[1.0]]), torch.tensor([[3.0]]))) == 4


# Scores


@pytest.fixture(scope="module")
def scored():
    supernet, own = plain_supernet(), batches()
    teacher = from_supernet(supernet)
    wanted = targets(teacher, own)
    return supernet, own, wanted, Distance(torch.cat([target.states for target in wanted]).mean(0))


def from_supernet(supernet):
    from hf_nasbert.extraction import extract_child

    return extract_child(supernet, supernet.largest_architecture)


def alone(supernet, child, own, wanted, distance):
    losses = []
    for batch, target in zip(own, wanted, strict=True):
        with torch.no_grad():
            states = supernet.nasbert(**batch, architecture=child).last_hidden_state
        losses.append(float(distance.total(distance.parts(states, batch["attention_mask"].bool(), target))))
    return sum(losses) / len(losses)


def test_a_child_among_others_scores_what_it_scores_alone(scored):
    supernet, own, wanted, distance = scored
    rng = random.Random(0)
    children = [supernet.space.sample(rng) for _ in range(12)] + [supernet.largest_architecture]
    found = score_children(supernet, children, own, wanted, distance)
    for child, score in zip(children, found, strict=True):
        assert score.loss == pytest.approx(alone(supernet, child, own, wanted, distance), abs=1e-5)
        assert score.loss == pytest.approx(score.states + 5 * score.vectors)
    assert found[-1].loss == pytest.approx(0, abs=1e-5)


def test_processes_share_out_the_batches_and_change_no_bit(scored, monkeypatch):
    supernet, own, wanted, distance = scored
    own, wanted = [*own, own[0]], [*wanted, wanted[0]]
    children = [supernet.largest_architecture, ("attention1", "ffn24", "skip", "skip", "attention", "ffn")]
    expected = score_children(supernet, children, own, wanted, distance)
    sums = []
    monkeypatch.setattr("hf_nasbert.elastic.scores.reduce", lambda found, _: sums.append(found) or found)
    for number in range(2):
        score_children(supernet, children, own, wanted, distance, processes=in_turn(number))
    monkeypatch.setattr("hf_nasbert.elastic.scores.reduce", lambda found, _: sums[0] + sums[1])
    assert score_children(supernet, children, own, wanted, distance, processes=in_turn(0)) == expected


def test_a_distance_that_is_no_number_is_named(scored):
    supernet, own, wanted, distance = scored
    broken = [target._replace(states=target.states * float("nan")) for target in wanted]
    with pytest.raises(ValueError, match=r"the distance of the child .*attention.* is \[nan"):
        score_children(supernet, [supernet.largest_architecture], own, broken, distance)


def test_a_scorer_scores_on_as_many_batches_as_asked(scored):
    supernet, own, wanted, distance = scored
    scorer, children = Scorer(supernet, own, wanted, distance), [("attention1", "ffn") * 3]
    assert scorer(children) != scorer(children, 1)
    assert scorer(children, 1) == [score_children(supernet, children, own[:1], wanted[:1], distance)[0].loss]


def test_what_children_share_runs_once(scored, monkeypatch):
    supernet, own, wanted, distance = scored
    calls = []
    run_block = type(supernet.nasbert).run_block

    def counting(self, *given, **more):
        calls.append(given[:2])
        return run_block(self, *given, **more)

    monkeypatch.setattr(type(supernet.nasbert), "run_block", counting)
    replace_one(supernet, own[:1], wanted[:1], distance)
    # The full child's blocks once; a block replaced and those behind it, for 2 variants each; a layer skipped and
    # those behind it, without its first block, which was skipped alone as well.
    layers = 5 + 3 + 1
    assert len(calls) == 6 + 2 * (6 + 5 + 4 + 3 + 2 + 1) + layers


def test_a_killed_scoring_goes_on_to_the_same_numbers(scored, tmp_path, monkeypatch):
    supernet, own, wanted, distance = scored
    expected = replace_one(supernet, own, wanted, distance)
    calls = []
    parts = Distance.parts

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return parts(*arguments)

    monkeypatch.setattr(Distance, "parts", dying)
    with pytest.raises(KeyboardInterrupt):
        replace_one(supernet, own, wanted, distance, kept=tmp_path / "one.json")
    found = replace_one(supernet, own, wanted, distance, kept=tmp_path / "one.json")
    assert found == expected
    num_children = len(places(supernet.space, supernet.largest_architecture)) - 6 + 1  # what is its own is one child
    assert len(calls) == 30 + num_children  # only the second batch anew
    with pytest.raises(ValueError, match=r"one.json holds the results of another call \(batches was"):
        replace_one(supernet, batches(seed=5), wanted, distance, kept=tmp_path / "one.json")


def test_what_the_base_model_itself_is_off_by_is_no_replacements_fault(scored):
    supernet, own, wanted, distance = scored
    rounded = [target._replace(states=target.states + 0.1) for target in wanted]
    found = replace_one(supernet, own, rounded, distance)
    full = supernet.largest_architecture
    assert [one.loss for one in found if one.operators == (full[one.first_block],)] == [0.0] * 6


def test_whole_layers_are_one_replacement_and_sums_prefer_them(scored):
    supernet, own, wanted, distance = scored
    full = supernet.largest_architecture
    found = replace_one(supernet, own, wanted, distance)
    assert [one.first_block for one in found if len(one.operators) == 2] == [0, 2, 4]
    loss_of = {(one.first_block, one.operators): one.loss for one in found}
    assert all(loss_of[block, (name,)] == 0 for block, name in enumerate(full))
    child = ("skip", "skip", "attention1", "ffn", "attention", "skip")
    both = min(loss_of[0, ("skip", "skip")], loss_of[0, ("skip",)] + loss_of[1, ("skip",)])
    assert sum_of(found, child) == pytest.approx(both + loss_of[2, ("attention1",)] + loss_of[5, ("skip",)])


def test_the_knapsack_of_savings_counts_as_the_costs_do(scored):
    supernet, own, wanted, distance = scored
    full, cost = supernet.largest_architecture, cost_function(supernet.config)
    found = replace_one(supernet, own, wanted, distance)
    caps = {"num_parameters": 0.8 * cost(full)["num_parameters"], "flops": 0.9 * cost(full)["flops"]}
    items, fixed = as_items(found, full, cost, caps)
    for choice in best_choices(items, len(full), caps, fixed=fixed, num_choices=20):
        assert choice.costs == pytest.approx({name: cost(choice.architecture)[name] for name in choice.costs})
        assert choice.loss >= sum_of(found, choice.architecture) - 1e-9
    peak = {"peak_activation_bytes": 0.99 * cost(full)["peak_activation_bytes"]}
    items, _ = as_items(found, full, cost, peak)
    assert 0 < len(items) < len(found)
    for item in items:
        alone_there = [*("skip",) * item.first_block, *item.operators]
        alone_there += ["skip"] * (len(full) - len(alone_there))
        assert cost(alone_there)["peak_activation_bytes"] <= peak["peak_activation_bytes"]


def test_every_cap_of_a_budget_holds_for_what_the_search_chooses(scored):
    """Fewest parameters go with many FLOPs here, so that each cap alone lets through what the other forbids."""
    supernet, own, wanted, distance = scored
    full = supernet.largest_architecture
    plain = EncoderCost.of(supernet, 16, None)

    class Odd(EncoderCost):
        def __call__(self, architecture):
            costs = super().__call__(architecture)
            return costs | {"flops": 1e6 - costs["num_parameters"]}

    cost = Odd(plain.whole, plain.num_blocks)
    half = cost(full)["num_parameters"] / 2
    found = replace_one(supernet, own, wanted, distance)
    both = {"num_parameters": half, "flops": 1e6 - half / 2}
    for names in (("num_parameters", "flops"), ("flops", "num_parameters")):
        ranked = ranked_choices(found, full, cost, {name: both[name] for name in names}, None, 1)
        assert all(cost(one.architecture)[name] <= cap for one in ranked for name, cap in both.items())
    cheap = [dataclasses.replace(one, loss=plain(one.put_into(full))["num_parameters"]) for one in found]
    dear = [dataclasses.replace(one, loss=-one.loss) for one in cheap]
    for losses in (cheap, dear):
        ranked = ranked_choices(losses, full, cost, both, None, 1)
        assert half / 2 <= cost(ranked[0].architecture)["num_parameters"] <= half


def test_a_child_of_which_every_block_is_left_out_is_never_chosen(scored):
    supernet, own, wanted, distance = scored
    full = supernet.largest_architecture
    cost = EncoderCost.of(supernet, 16, None)
    found = replace_one(supernet, own, wanted, distance)
    skipped = Architecture((SKIP,) * len(full))
    cheap = [dataclasses.replace(one, loss=cost(one.put_into(full))["num_parameters"]) for one in found]
    caps = {"num_parameters": cost(full)["num_parameters"] / 2}

    def score(children):
        return [Worth(float(number)) for number, _ in enumerate(children)]

    ranked = ranked_choices(cheap, full, cost, caps, score, 4)
    assert len(ranked) == 3, "it has the best sum here"
    assert skipped not in [one.architecture for one in ranked]
    with pytest.raises(ValueError, match="every block is left out: allow a larger budget"):
        ranked_choices(found, full, cost, {"num_parameters": cost(skipped)["num_parameters"]}, None, 1)


def test_sums_are_held_against_the_real_distances_of_random_children(scored):
    supernet, own, wanted, distance = scored
    found = replace_one(supernet, own, wanted, distance)
    exact = additivity(supernet.space, found, lambda children: [sum_of(found, child) for child in children], 12)
    assert (exact.tau, exact.ratio, exact.error) == (pytest.approx(1.0), 1.0, 0.0)
    assert (exact.num_children, len(exact.sums)) == (supernet.space.num_children, 12)
    twice = additivity(supernet.space, found, lambda children: [2 * sum_of(found, child) for child in children], 12)
    assert (twice.ratio, twice.error) == (2.0, 0.5)
    real = additivity(supernet.space, found, Scorer(supernet, own, wanted, distance), 12)
    assert real.error > 0.01
    assert real.sums == exact.sums
    lines = additivity_lines(Additive({"whole space": dataclasses.asdict(twice)}))
    assert [line.partition("tau")[2] for line in lines] == [
        " 1.000, median relative error 50.0%, real distances 2.00 times the sums (median)."
    ]
    one = SearchSpace.of_blocks(["attention", "ffn"] * 3, skip="anywhere")
    assert additivity(one, found, lambda children: [0.0] * len(children), 3).tau is None


def test_screening_leaves_what_costs_little_and_the_base_model(scored):
    supernet, own, wanted, distance = scored
    full = supernet.largest_architecture
    found = replace_one(supernet, own, wanted, distance)
    most = sorted(one.loss for one in found)[len(found) // 2]
    space = screened(supernet.space, found, full, most)
    assert full in space
    assert 1 < space.num_children < supernet.space.num_children
    for one in found:
        if len(one.operators) == 1 and one.loss <= most:
            assert one.operators[0] in space.blocks[one.first_block]


def test_screening_keeps_exactly_what_is_cheap_and_skips_of_cheap_layers():
    space, full = SearchSpace.of_blocks(BLOCKS, skip="anywhere"), ("attention", "ffn") * 3
    losses = {(0, "attention1"): 0.3, (1, "skip"): 0.2, (2, "attention1"): 0.31, (4, "skip", "skip"): 0.1}
    found = [
        Replacement(first, operators, losses.get((first, *operators), 9.0)) for first, operators in places(space, full)
    ]
    assert screened(space, found, full, 0.3).blocks == (
        ("attention", "attention1"), ("ffn", "skip"), ("attention",), ("ffn",), ("attention", "skip"), ("ffn", "skip")
    )  # fmt: skip


# Hand-made children


def test_the_best_layers_are_the_best_of_all_subsets(scored):
    supernet, own, wanted, distance = scored
    full, cost = supernet.largest_architecture, cost_function(supernet.config)
    scorer = Scorer(supernet, own, wanted, distance)
    best = best_layers(scorer, 2)
    losses = {
        subset: alone(supernet, with_layers(full, subset), own, wanted, distance)
        for subset in itertools.combinations(range(3), 2)
    }
    subset = min(losses, key=losses.get)
    assert best.how == f"layers {subset[0]} {subset[1]}"
    assert best.architecture == with_layers(full, subset)
    assert best.loss == pytest.approx(losses[subset], abs=1e-5)
    assert best.num_scored == 3
    assert every_other_layer(scorer, 2).architecture == with_layers(full, (0, 1))
    caps = {"num_parameters": cost(with_layers(full, (0, 1)))["num_parameters"]}
    assert most_layers(full, cost, caps) == 2
    with pytest.raises(ValueError, match=r"whole layer is within a num_parameters of 1,000, a flops of 1\.4507$"):
        most_layers(full, cost, {"num_parameters": 1000, "flops": 1.450698000000028})


def test_what_is_made_by_hand_may_be_a_bit_above_a_cap():
    """Three layers of six take 51 percent of the time where one of embeddings takes two."""
    full = elastic().largest_architecture

    def cost(child):
        return {"latency_ms": 2.0 + 16 * sum(name != "skip" for name in child), "num_parameters": 100.0}

    assert most_layers(full, cost, with_slack({"latency_ms": 0.645 * cost(full)["latency_ms"]})) == 2
    assert with_slack({"num_parameters": 100.0, "latency_ms": 100.0}) == {"num_parameters": 101.0, "latency_ms": 105.0}


def test_many_layers_are_left_out_one_by_one(scored, monkeypatch):
    supernet, own, wanted, distance = scored
    monkeypatch.setattr("hf_nasbert.compression.handmade._MOST_SUBSETS", 1)
    scorer = Scorer(supernet, own, wanted, distance)
    beam = best_layers(scorer, 1)
    assert beam.num_scored == 3 + 3
    monkeypatch.setattr("hf_nasbert.compression.handmade._BEAM", 1)
    greedy, pair = best_layers(scorer, 1), best_layers(scorer, 2)
    assert greedy.num_scored == 3 + 2
    assert set(greedy.how.split()) < set(pair.how.split())
    monkeypatch.undo()
    assert beam.architecture == best_layers(scorer, 1).architecture  # a beam of 8 sees all of three layers


def test_uniform_widths_are_the_largest_that_fit(scored):
    supernet, own, wanted, distance = scored
    cost = cost_function(supernet.config)
    scorer = Scorer(supernet, own, wanted, distance)
    smaller = ("attention1", "ffn") * 3
    caps = {"num_parameters": cost(smaller)["num_parameters"]}
    found = best_uniform(scorer, cost, caps)
    fits = [pair for pair in itertools.product(("attention", "attention1"), ("ffn", "ffn24"))
            if cost(pair * 3)["num_parameters"] <= caps["num_parameters"]]  # fmt: skip
    assert tuple(found.architecture[:2]) in fits
    assert found.architecture == found.architecture[:2] * 3
    assert ("attention1", "ffn24") in fits
    assert ("attention1", "ffn24") * 3 not in uniform_widths(supernet.space, supernet.largest_architecture, cost, caps)
    assert found.architecture[:2] != ("attention1", "ffn24")  # it is smaller in both
    with pytest.raises(ValueError, match=r"no uniform width of the space is within a num_parameters of 10$"):
        best_uniform(scorer, cost, {"num_parameters": 10})


def test_the_uniform_width_is_the_nearest_to_the_base_model_of_those_that_fit(scored):
    supernet, own, wanted, distance = scored
    scorer = Scorer(supernet, own, wanted, distance)
    sizes = {"attention": 4, "attention1": 2, "ffn": 4, "ffn24": 2, "skip": 0}

    def cost(child):
        return {"num_parameters": sum(sizes[name] for name in child)}

    fits = [("attention", "ffn24") * 3, ("attention1", "ffn") * 3]
    losses = dict(zip(fits, scorer(fits), strict=True))
    found = best_uniform(scorer, cost, {"num_parameters": 18})
    assert found.num_scored == 2
    assert (found.architecture, found.loss) == min(losses.items(), key=lambda one: one[1])


def test_budgets_that_are_nearly_equal_are_scored_in_files_of_their_own(scored, tmp_path):
    supernet, own, wanted, distance = scored
    scorer = Scorer(supernet, own, wanted, distance, kept_in=tmp_path)
    milliseconds = {"attention": 2.0, "attention1": 0.6, "ffn": 0.3, "ffn24": 0.2}

    def cost(child):
        return {"num_parameters": sum(map(len, child)), "latency_ms": sum(milliseconds[name] for name in child)}

    for cap in (7.2, 6.7):  # to the millisecond they are the same
        assert best_uniform(scorer, cost, {"latency_ms": cap}).architecture in supernet.space
    assert len(list(tmp_path.iterdir())) == 2
