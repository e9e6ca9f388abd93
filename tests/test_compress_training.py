"""Compressing an encoder: variants refitted in closed form, and the chosen child distilled."""

import copy
import dataclasses
import functools
import itertools
import math
import os
import signal

import pytest
import torch
from helpers import mostly_slow
from tiny.compress import batches, elastic, full_child, targets
from torch import nn

from hf_nasbert.compression.local import _Places, distil_blocks
from hf_nasbert.compression.recover import (
    Recovery,
    RecoverySettings,
    batch_of_step,
    distil_supernet,
    recover,
    time_steps,
)
from hf_nasbert.compression.replace_one import as_items, replace_one
from hf_nasbert.compression.sentences import load_sentences
from hf_nasbert.compression.states import target_of, teacher_states
from hf_nasbert.costs import cost_function
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import packaged_model, packaged_text
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.importance import importance, sort_by_importance
from hf_nasbert.elastic.refit import Moments, refit
from hf_nasbert.elastic.scores import Score, score_children
from hf_nasbert.extraction import extract_child
from hf_nasbert.modeling import NasBertModel
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.searching.knapsack import best_choices
from hf_nasbert.space import hamming
from hf_nasbert.stopping import STOP_SIGNALS

# Refitting


def test_moments_give_the_regression_that_least_squares_gives():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 9, generator=generator) @ torch.randn(9, 9, generator=generator) + 3
    outputs = inputs @ torch.randn(9, 4, generator=generator) + torch.randn(300, 4, generator=generator) - 1
    moments = Moments(6, 4)
    for rows in (slice(0, 100), slice(100, 300)):
        moments.add(inputs[rows], outputs[rows])
    for size in (2, 6):
        weight, bias, error = moments.fit(size, 0.0)
        ones = torch.cat([inputs[:, :size], torch.ones(300, 1)], 1).double()
        expected = torch.linalg.lstsq(ones, outputs.double()).solution
        assert torch.allclose(weight, expected[:-1].T, atol=1e-4)
        assert torch.allclose(bias, expected[-1], atol=1e-3)
        left = (ones @ expected - outputs).square().sum() / (outputs - outputs.mean(0)).square().sum()
        assert error == pytest.approx(float(left), rel=1e-3)
        assert moments.fit(size, 0.5)[0].norm() < weight.norm()


def test_inputs_that_never_change_teach_nothing_but_the_mean():
    for inputs in (torch.zeros(5, 3), torch.ones(1, 3)):
        outputs = torch.arange(2.0 * len(inputs)).view(-1, 2)
        moments = Moments(3, 2)
        moments.add(inputs, outputs)
        weight, bias, error = moments.fit(3, 1e-3)
        assert torch.allclose(weight, torch.zeros(2, 3, dtype=weight.dtype), atol=1e-9)
        assert torch.allclose(bias, outputs.double().mean(0))
        assert error == pytest.approx(float(len(inputs) > 1))


def test_refitted_variants_come_nearer_to_the_base_model_and_it_stays():
    own = batches(lengths=[(20, 19, 18, 20)] * 6)
    supernet = elastic(sorted_on=own)
    wanted = targets(full_child(), own)
    distance = Distance(torch.cat([target.states for target in wanted]).mean(0))
    before = replace_one(supernet, own[:2], wanted[:2], distance)
    full = [tensor.clone() for tensor in supernet.state_of(supernet.largest_architecture).values()]
    errors = refit(supernet, own)
    assert all(
        torch.equal(a, b) for a, b in zip(full, supernet.state_of(supernet.largest_architecture).values(), strict=True)
    )
    after = replace_one(supernet, own[:2], wanted[:2], distance)
    loss_of = {
        (one.first_block, *one.operators): (one.loss, other.loss) for one, other in zip(before, after, strict=True)
    }
    narrow = [key for key in loss_of if key[1][-1].isdigit()]
    assert len(narrow) == 3 * (1 + 6)
    assert sum(loss_of[key][1] for key in narrow) < 0.8 * sum(loss_of[key][0] for key in narrow)
    for block in (1, 3, 5):
        assert loss_of[block, "ffn32"][1] < loss_of[block, "ffn16"][1]
        assert 0 < errors[f"{block} ffn32"] < errors[f"{block} ffn16"] < 1
    assert all(loss_of[key][0] == pytest.approx(loss_of[key][1]) for key in loss_of if key[-1] == "skip")


def test_a_norm_adds_the_mean_output_of_real_tokens():
    own = batches()
    supernet = elastic()
    block = supernet.encoder.blocks[0].operators
    outputs = []
    hook = block.output_of("attention").dense.register_forward_hook(lambda *given: outputs.append(given[2]))
    with torch.no_grad():
        for batch in own:
            supernet(**batch)
    hook.remove()
    refit(supernet, own)
    real = torch.cat([out[batch["attention_mask"].bool()] for out, batch in zip(outputs, own, strict=True)])
    assert torch.allclose(block.output_of("norm").bias, real.mean(0), atol=1e-6)


def test_a_refitted_convolution_makes_what_its_regression_promises():
    """Its activation is in its linear part, and the LayerNorm takes the shift off again."""
    own = batches(lengths=[(20, 19, 18, 20)] * 6)
    supernet = elastic(kernels=(3, 5))
    before = [tensor.clone() for tensor in supernet.state_of(("conv5", "ffn") * 3).values()]
    errors = refit(supernet, own)
    assert not all(map(torch.equal, before, supernet.state_of(("conv5", "ffn") * 3).values()))
    block = supernet.encoder.blocks[0].operators
    left = total = 0.0
    for batch in own:
        with torch.no_grad():
            states, masks = supernet.embed(**batch)
            mask = batch["attention_mask"].bool()
            wanted, found = (
                block(name, states, masks.attention, masks.padding)[mask] for name in ("attention", "conv5")
            )
            mean = block("norm", states, masks.attention, masks.padding)[mask]
        left, total = left + float((found - wanted).square().sum()), total + float((mean - wanted).square().sum())
    assert 0 < errors["0 conv5"] < 1
    assert left / total == pytest.approx(errors["0 conv5"], rel=0.35)  # of the sums before, and behind, a LayerNorm


def test_refitted_weights_are_taken_up_again(tmp_path, monkeypatch):
    own, file = batches(), tmp_path / "variants.safetensors"
    once, again = elastic(), elastic()
    errors = refit(once, own, kept=file)
    monkeypatch.setattr("hf_nasbert.elastic.refit.moments_of_blocks", None)
    assert refit(again, own, kept=file) == errors
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="variants of another model or text"):
        refit(elastic(seed=1), own, kept=file)


# Block-wise distillation


@pytest.mark.slow
def test_variants_distilled_alone_come_nearer_and_leave_what_is_shared(tmp_path, monkeypatch):
    own = batches(lengths=[(20, 19, 18, 20)] * 8)
    supernet = elastic(kernels=(3,))
    narrow = ("attention1", "ffn16") * 3
    full = [tensor.clone() for tensor in supernet.state_of(supernet.largest_architecture).values()]
    inner = supernet.encoder.blocks[0].operators.state_of("attention1")["self.query.weight"].clone()
    ends = [tensor.clone() for tensor in supernet.state_of(narrow).values()]
    untaught = distil_blocks(supernet, own, num_steps=7, learning_rate=1e-30)
    assert all(map(torch.equal, ends, supernet.state_of(narrow).values()))
    start = copy.deepcopy(supernet)
    errors = distil_blocks(supernet, own, num_steps=21, learning_rate=1e-2, kept_in=tmp_path)
    assert errors.keys() == untaught.keys()
    assert all(errors[name] <= untaught[name] for name in errors)
    assert sum(errors[name] < untaught[name] for name in errors) > len(errors) / 2
    assert all(map(torch.equal, full, supernet.state_of(supernet.largest_architecture).values()))
    assert torch.equal(inner, supernet.encoder.blocks[0].operators.state_of("attention1")["self.query.weight"])
    monkeypatch.setattr("hf_nasbert.compression.local._distil", None)
    assert distil_blocks(start, own, num_steps=21, learning_rate=1e-2, kept_in=tmp_path) == errors
    assert all(map(torch.equal, start.state_dict().values(), supernet.state_dict().values()))


@pytest.mark.slow
def test_padding_changes_nothing():
    own = batches(lengths=[(9, 7, 7, 3), (12, 12, 5)] * 2)
    more = [{name: nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()} for batch in own]
    for fit in (refit, functools.partial(distil_blocks, num_steps=7, learning_rate=1e-30)):
        found, expected = (fit(elastic(kernels=(3,)), given) for given in (more, own))
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-5)  # sums of another order


@pytest.mark.slow
def test_a_variant_that_learns_harm_stays_as_it_was():
    supernet, own = elastic(), batches(lengths=[(20, 19, 18, 20)] * 4)
    refit(supernet, own)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    errors = distil_blocks(supernet, own, num_steps=7, learning_rate=100.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert errors == distil_blocks(supernet, own, num_steps=7, learning_rate=1e-30)


def test_what_decides_is_not_taught():
    places = _Places(None, 0, [torch.zeros(1)] * 18, [], [], [])
    assert places.checked == [0, 8, 16]
    order = list(places.order(31, 0))
    assert sorted(order[:30]) == sorted(2 * [number for number in range(18) if number % 8])
    assert order[:15] != order[15:30]
    assert len(order) == 31


# Recovery


@pytest.fixture(scope="module")
def chosen():
    own = batches(lengths=[(20, 19, 18, 20)] * 6)
    supernet = elastic(sorted_on=own)
    refit(supernet, own)
    wanted = targets(full_child(), own)
    child = ("attention1", "ffn32", "attention", "ffn16", "skip", "skip")
    return supernet, child, own, wanted, Distance(torch.cat([target.states for target in wanted]).mean(0))


@pytest.mark.parametrize("method", mostly_slow(["magic_t", "uniform"], 2))
def test_a_super_net_is_distilled_by_the_method_that_is_asked(chosen, method, tmp_path):
    _, _, own, wanted, distance = chosen
    supernet, seen = elastic(heads=[1], ffn=[24]), []
    space = elastic_space(full_child(), heads=[1], ffn=[24], skip=False)
    encoder, settings = supernet.encoder, RecoverySettings(num_steps=12, learning_rate=1e-3)

    def see(module, inputs, options):
        if torch.is_grad_enabled():
            seen.append(options["architecture"])

    with encoder.register_forward_pre_hook(see, with_kwargs=True):
        distil_supernet(
            supernet, space, own, wanted, distance, settings, held_out=(own, wanted), method=method,
            output_dir=tmp_path,
        )  # fmt: skip
    assert len(seen) == 12
    changes = [hamming(one, other) for one, other in itertools.pairwise(seen)]
    assert set(changes) == {1} if method == "magic_t" else max(changes) > 1
    other = "uniform" if method == "magic_t" else "magic_t"
    for name, message in ((other, "is of another recovery .*method"), ("fair", "method='fair' is none of uniform")):
        with pytest.raises(ValueError, match=message):
            distil_supernet(
                elastic(heads=[1], ffn=[24]), space, own, wanted, distance, settings,
                held_out=(own, wanted), method=name, output_dir=tmp_path,
            )  # fmt: skip


@pytest.mark.parametrize("after", [0.5, 0.6])
def test_a_super_net_whose_children_did_not_gain_is_refused(chosen, after, monkeypatch):
    supernet, _, own, wanted, distance = chosen
    means = iter([0.5, after])
    monkeypatch.setattr(
        "hf_nasbert.compression.recover.score_children",
        lambda supernet, children, *_, **__: [Score(next(means), 0, 0, 0)] * len(children),
    )
    with pytest.raises(ValueError, match=rf"children worse: .* was 0\.5000 and is {after:.4f}: lower learning_rate="):
        distil_supernet(
            copy.deepcopy(supernet), supernet.space, own, wanted, distance, RecoverySettings(num_steps=1),
            held_out=(own, wanted),
        )  # fmt: skip


SETTINGS = RecoverySettings(num_steps=16, learning_rate=2e-3, save_steps=4)


def test_recovery_brings_a_child_nearer_and_leaves_the_embeddings(chosen):
    supernet, architecture, own, wanted, distance = chosen
    child = extract_child(supernet, architecture)
    embeddings = [parameter.clone() for parameter in child.embeddings.parameters()]
    done = recover(child, own[:4], wanted[:4], distance, SETTINGS, held_out=(own[4:], wanted[4:]))
    assert len(done.losses) == 16
    assert done.num_tokens == 16 * 77
    assert done.after.loss < 0.9 * done.before.loss
    assert all(map(torch.equal, embeddings, child.embeddings.parameters()))
    assert all(parameter.requires_grad for parameter in child.parameters())
    recover(child, own, wanted, distance, dataclasses.replace(SETTINGS, train_embeddings=True, num_steps=2))
    assert not any(map(torch.equal, embeddings, child.embeddings.parameters()))


def test_the_rate_rises_and_falls_in_straight_lines():
    settings = dataclasses.replace(SETTINGS, num_steps=100, learning_rate=1.0, warmup=0.1)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:98] == pytest.approx([1 - 0.01 * step for step in range(10, 98)])
    assert rates[98:] == pytest.approx([0.02, 0.02])


def test_every_round_goes_through_all_batches_in_an_order_of_its_own():
    rounds = [tuple(batch_of_step(8, 3, step) for step in range(start, start + 8)) for start in (0, 8, 16)]
    assert all(sorted(one) == list(range(8)) for one in rounds)
    assert len({*rounds, tuple(batch_of_step(8, 4, step) for step in range(8))}) == 4


def test_gradients_are_clipped_and_none_is_left(chosen):
    supernet, architecture, own, wanted, distance = chosen
    moved = []
    for norm in (1.0, 1e-11):  # far below what AdamW divides by
        child = extract_child(supernet, architecture)
        weight = child.encoder.blocks[0].operator.output.dense.weight.detach()  # as it moves
        before = weight.clone()
        recover(child, own, wanted, distance, dataclasses.replace(SETTINGS, num_steps=2, max_grad_norm=norm))
        moved.append(float((weight - before).abs().max()))
        assert all(parameter.grad is None for parameter in child.parameters())
    assert moved[1] < 0.01 * moved[0]


def test_recovery_in_bfloat16_learns_as_in_single_precision(chosen):
    supernet, architecture, own, wanted, distance = chosen
    single, half = (
        recover(extract_child(supernet, architecture), own, wanted, distance, dataclasses.replace(SETTINGS, bf16=bf16))
        for bf16 in (False, True)
    )
    assert single.losses != half.losses
    assert half.losses == pytest.approx(single.losses, rel=0.05)
    assert half.losses[-1] < 0.8 * half.losses[0]


def test_a_killed_recovery_goes_on_to_the_same_bits(chosen, tmp_path, monkeypatch):
    supernet, architecture, own, wanted, distance = chosen
    whole, killed = extract_child(supernet, architecture), extract_child(supernet, architecture)
    expected = recover(whole, own, wanted, distance, SETTINGS)
    parts, calls = Distance.parts, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return parts(*arguments)

    monkeypatch.setattr(Distance, "parts", dying)
    with pytest.raises(KeyboardInterrupt):
        recover(killed, own, wanted, distance, SETTINGS, output_dir=tmp_path)
    killed = extract_child(supernet, architecture)
    assert recover(killed, own, wanted, distance, SETTINGS, output_dir=tmp_path) == expected
    assert len(calls) == 11 + 8
    assert all(map(torch.equal, whole.state_dict().values(), killed.state_dict().values()))
    again = extract_child(supernet, architecture)
    with pytest.raises(ValueError, match=r"is of another recovery \(batches was"):
        recover(again, own[::-1], wanted[::-1], distance, SETTINGS, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"is of another recovery \(mean was"):
        recover(
            again, own, wanted, dataclasses.replace(distance, mean=distance.mean + 1), SETTINGS, output_dir=tmp_path
        )
    other = extract_child(supernet, architecture)
    with torch.no_grad():
        next(other.encoder.parameters()).add_(0.1)
    with pytest.raises(ValueError, match=r"is of another recovery \(child was"):
        recover(other, own, wanted, distance, SETTINGS, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"is of another recovery \(settings.seed was 0, and is 1 here\)"):
        recover(again, own, wanted, distance, dataclasses.replace(SETTINGS, seed=1), output_dir=tmp_path)


def asked_at(number, step):
    """A callback that sends this process a signal in front of a step."""
    return lambda seen: os.kill(os.getpid(), number) if seen == step else None


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_recovery_asked_to_stop_saves_its_step_and_goes_on_to_the_same_bits(chosen, tmp_path, capsys, number):
    supernet, architecture, own, wanted, distance = chosen
    whole, asked = extract_child(supernet, architecture), extract_child(supernet, architecture)
    expected = recover(whole, own, wanted, distance, SETTINGS)
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        recover(asked, own, wanted, distance, SETTINGS, output_dir=tmp_path, on_step=asked_at(number, 5))
    assert left.value.code == 0
    assert "stopped after step 6 of a distillation: the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(number) == handler
    steps, asked = [], extract_child(supernet, architecture)
    done = recover(asked, own, wanted, distance, SETTINGS, output_dir=tmp_path, on_step=steps.append)
    assert (steps[0], done) == (6, expected)
    assert all(map(torch.equal, whole.state_dict().values(), asked.state_dict().values()))


def test_a_recovery_asked_to_stop_in_its_last_step_ends_and_is_there_in_full(chosen, tmp_path):
    supernet, architecture, own, wanted, distance = chosen
    last = SETTINGS.num_steps - 1
    with pytest.raises(SystemExit) as left:
        recover(
            extract_child(supernet, architecture), own, wanted, distance, SETTINGS, output_dir=tmp_path,
            on_step=asked_at(signal.SIGTERM, last),
        )  # fmt: skip
    assert left.value.code == 0
    steps = []
    recover(
        extract_child(supernet, architecture), own, wanted, distance, SETTINGS, output_dir=tmp_path,
        on_step=steps.append,
    )  # fmt: skip
    assert steps == []


def test_a_recovery_that_could_not_go_on_leaves_signals_to_others(chosen, tmp_path, monkeypatch):
    """Without a folder nothing is kept, nobody keeps what is only timed, and other processes would wait: it ends."""
    supernet, architecture, own, wanted, distance = chosen
    seen = []
    kept = signal.signal(signal.SIGTERM, lambda *_: seen.append("heard"))
    try:
        asked = functools.partial(recover, on_step=asked_at(signal.SIGTERM, 2))
        asked(extract_child(supernet, architecture), own, wanted, distance, SETTINGS)
        settings, ask = dataclasses.replace(SETTINGS, num_steps=2, save_steps=2), asked_at(signal.SIGTERM, 0)
        child = extract_child(supernet, architecture)
        time_steps(child, own, wanted, distance, settings, lambda step: ask(step) or {}, tmp_path / "timed")
        monkeypatch.setenv("WORLD_SIZE", "2")
        asked(extract_child(supernet, architecture), own, wanted, distance, SETTINGS, output_dir=tmp_path)
        monkeypatch.delenv("WORLD_SIZE")
        place = tmp_path / "scratch"
        asked(
            extract_child(supernet, architecture), own, wanted, distance, SETTINGS, output_dir=place, can_leave=False
        )
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert seen == ["heard"] * 4


def test_a_child_of_no_block_is_refused(chosen):
    supernet, _, own, wanted, distance = chosen
    with pytest.raises(ValueError, match="nothing to train: allow a larger budget"):
        recover(extract_child(supernet, ("skip",) * 6), own, wanted, distance, SETTINGS)


def test_a_recovery_that_does_harm_leaves_the_start(chosen):
    supernet, _, own, wanted, distance = chosen
    settings = dataclasses.replace(SETTINGS, learning_rate=1.0)
    child = extract_child(supernet, supernet.largest_architecture)  # the base model: nothing is nearer to it
    start = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    done = recover(child, own, wanted, distance, settings, held_out=(own, wanted))
    assert done.kept_step == 0
    assert done.after == done.before
    assert sorted(done.looks) == [0, 16]
    assert done.looks[16] > done.looks[0]
    assert all(map(torch.equal, start.values(), child.state_dict().values()))


def test_losses_that_rise_or_are_no_numbers_have_not_fallen():
    def made(losses):
        return Recovery(losses, 0, None, None, len(losses), {})

    quarters = [*[4.0] * 5, *[9.0] * 5, *[3.0] * 5]
    assert not made([*quarters, *[6.1] * 5]).has_fallen
    assert made([*quarters, 4.3, *[5.4] * 4]).has_fallen  # by other batches
    assert made([4.0, 6.1]).has_fallen  # one batch beside another is no trend
    assert not made([4.0, math.inf]).has_fallen
    assert not made([]).has_fallen


def test_a_loss_that_is_no_number_leaves_the_start_or_is_refused(chosen, tmp_path, monkeypatch):
    supernet, architecture, own, wanted, distance = chosen
    total, calls = Distance.total, []

    def breaking(*arguments):
        calls.append(1)
        return total(*arguments) * (math.nan if len(calls) == 8 else 1.0)

    monkeypatch.setattr(Distance, "total", breaking)
    with pytest.raises(ValueError, match=r"the loss of step 7 is nan: lower learning_rate=0.002"):
        recover(extract_child(supernet, architecture), own, wanted, distance, SETTINGS)
    calls[:] = [1]  # the look at the start
    child = extract_child(supernet, architecture)
    start = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    done = recover(child, own, wanted, distance, SETTINGS, held_out=(own, wanted), output_dir=tmp_path)
    assert len(done.losses) == 6
    assert not done.has_fallen
    assert done.kept_step == 0
    assert all(map(torch.equal, start.values(), child.state_dict().values()))


def test_patience_keeps_the_best_weights_also_through_a_kill(chosen, tmp_path, monkeypatch):
    supernet, architecture, own, wanted, distance = chosen
    settings = dataclasses.replace(SETTINGS, num_steps=40, patience=2, check_steps=2, save_steps=3)
    seen = []
    # Looks get better up to step 6, then worse: patience ends behind step 10.
    worth = {0: 9.0, 2: 8.0, 4: 7.0, 6: 5.0, 8: 6.0, 10: 5.5}

    def looked(model, *_, **__):
        weight = model.encoder.blocks[0].operator.output.dense.weight.detach().clone()
        if not any(torch.equal(weight, one) for one in seen):
            seen.append(weight)
        place = next(index for index, one in enumerate(seen) if torch.equal(weight, one))
        return Score(worth[2 * place], 0.0, 0.0, 0.0)

    monkeypatch.setattr("hf_nasbert.compression.recover.score_model", looked)
    whole = extract_child(supernet, architecture)
    expected = recover(whole, own, wanted, distance, settings, held_out=(own, wanted))
    assert expected.looks == worth
    assert (expected.kept_step, len(expected.losses), expected.after.loss) == (6, 10, 5.0)
    assert expected.num_tokens == 10 * 77
    assert torch.equal(whole.encoder.blocks[0].operator.output.dense.weight, seen[3])
    parts, calls = Distance.parts, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return parts(*arguments)

    monkeypatch.setattr(Distance, "parts", dying)
    with pytest.raises(KeyboardInterrupt):
        recover(
            extract_child(supernet, architecture), own, wanted, distance, settings,
            held_out=(own, wanted), output_dir=tmp_path,
        )  # fmt: skip
    for number_of_steps in (1, 0):  # the step from the checkpoint behind step 9; then all is read
        calls.clear()
        killed = extract_child(supernet, architecture)
        done = recover(killed, own, wanted, distance, settings, held_out=(own, wanted), output_dir=tmp_path)
        assert done == expected
        assert len(calls) == number_of_steps
        assert all(map(torch.equal, whole.state_dict().values(), killed.state_dict().values()))
    with pytest.raises(ValueError, match="patience=2 needs held-out batches"):
        recover(whole, own, wanted, distance, settings)


def test_a_classifier_recovers_its_predictions():
    own = batches(lengths=[(20, 19, 18, 20)] * 4)
    supernet, teacher = elastic(classifier=True, sorted_on=own), full_child(classifier=True)
    wanted = targets(teacher, own)
    distance = Distance.of_classifier(torch.cat([target.states for target in wanted]).mean(0))
    child = extract_child(supernet, ("attention1", "ffn32", "attention1", "ffn32", "attention", "ffn"))
    found = replace_one(supernet, own, wanted, distance)
    assert min(one.loss for one in found if one.operators[0] == "attention1") > 0
    done = recover(child, own, wanted, distance, SETTINGS, held_out=(own, wanted))
    assert done.after.logits < done.before.logits


@pytest.mark.parametrize(("name", "value"), [("num_steps", 0), ("learning_rate", -1.0), ("warmup", 2.0), ("seed", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        dataclasses.replace(SETTINGS, **{name: value})


# A real encoder


@pytest.mark.slow
def test_half_of_minilm_without_training(tmp_path):
    """The pilot's findings: the last attention needs its heads, no other does; a search beats one width throughout."""
    name = str(packaged_model("all-MiniLM-L6-v2"))
    texts = packaged_text("boolq-wikipedia").select(range(1000))
    text = load_sentences(
        texts, open_tokenizer(name), num_train=320, num_choosing=32, num_judging=32, cache_dir=tmp_path
    )
    child = load_full_child(name, NasBertModel)
    wanted = teacher_states(child, text.choosing, tmp_path / "states")
    before = target_of(child, text.choosing[0]).states
    sort_by_importance(child, importance(child, text.train))
    assert (target_of(child, text.choosing[0]).states - before).abs().max() < 1e-5
    supernet = elastic_supernet(child, elastic_space(child, skip=False))
    refit(supernet, text.train)
    distance = Distance(wanted.mean)
    table = replace_one(supernet, text.choosing, wanted, distance)
    loss_of = {(one.first_block, one.operators[0]): one.loss for one in table if len(one.operators) == 1}
    heads = [loss_of[block, "attention6"] for block in range(0, 12, 2)]
    assert heads[-1] > 4 * max(heads[:-1])
    assert max(loss_of[block, "ffn768"] for block in range(1, 12, 2)) < 0.3
    full, cost = supernet.largest_architecture, cost_function(supernet.config)
    uniform = ("attention6", "ffn768") * 6
    caps = {"num_parameters": cost(uniform)["num_parameters"]}
    items, fixed = as_items(table, full, cost, caps)
    (chosen,) = best_choices(items, 12, caps, fixed=fixed)
    assert chosen.architecture[-2] == "attention"
    searched, by_hand = score_children(supernet, [chosen.architecture, uniform], text.choosing, wanted, distance)
    assert searched.loss < 0.9 * by_hand.loss


def test_recovery_holds_a_child_to_the_base_models_inner_states(chosen, tmp_path):
    supernet, _, own, _, distance = chosen
    wanted = teacher_states(full_child(), own, tmp_path, inner_blocks=(1, 3))
    mask = own[2]["attention_mask"].bool()
    states = full_child().encoder.blocks[0](*_embedded(own[2]))
    states = full_child().encoder.blocks[1](states, *_embedded(own[2])[1:])
    assert torch.allclose(wanted[2].inner[0].float(), states[mask], atol=2e-3)
    assert torch.allclose(
        wanted.inner_means[0], torch.cat([one.inner[0] for one in wanted]).float().mean(0), atol=2e-3
    )
    architecture = ("attention1", "ffn32", "skip", "skip", "attention", "ffn16")
    misses = []
    for weight in (0.0, 20.0):
        child = extract_child(supernet, architecture)
        recover(child, own, wanted, distance, dataclasses.replace(SETTINGS, inner_weight=weight))
        states = child.encoder.blocks[1](child.encoder.blocks[0](*_embedded(own[2])), *_embedded(own[2])[1:])
        misses.append(sum(float((states[mask].detach() - one.float()).square().sum()) for one in wanted[2].inner))
    assert misses[1] < 0.9 * misses[0]
    with pytest.raises(ValueError, match=r"inner_weight=20\.0 needs states of inner blocks"):
        recover(child, own, list(wanted), distance, dataclasses.replace(SETTINGS, inner_weight=20.0))


def _embedded(batch):
    states, masks = full_child().embed(batch["input_ids"], batch["attention_mask"])
    return states, masks.attention, masks.padding
