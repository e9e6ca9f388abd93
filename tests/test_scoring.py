"""Scoring: every loss is that of the child alone, and shared prefixes are really computed once."""

import logging
import random
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from helpers import mostly_slow
from tiny.models import BATCHES, tiny_supernet
from tiny.processes import launch
from tiny.searches import CHAIN, STAGED

from hf_nasbert import scoring
from hf_nasbert.modeling import SupernetModel
from hf_nasbert.scoring import LikelyWords, score_architectures, score_with_report
from hf_nasbert.space import SKIP, Architecture, SearchSpace, Stage

UNEVEN = SearchSpace(
    (
        Stage((("ffn", "conv3"), ("attention", "skip")), widths=(64, 96)),
        Stage((("attention", "ffn"), ("conv5", "skip"))),
    )
)
SPACES = {"chain": CHAIN, "staged": STAGED, "uneven": UNEVEN}


@torch.no_grad()
def alone(supernet, architecture, batches):
    """The definition: each batch's loss from the model, weighted by its labelled tokens."""
    counts = [int((batch["labels"] != -100).sum()) for batch in batches]
    losses = [supernet(**batch, architecture=architecture).loss.item() for batch in batches]
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


@pytest.mark.parametrize("name", mostly_slow(SPACES, 2))
def test_every_loss_is_that_of_the_child_alone(name):
    supernet = tiny_supernet(SPACES[name])
    children = list(SPACES[name].enumerate())
    random.Random(0).shuffle(children)
    children = children[:80]
    found = score_architectures(supernet, children, BATCHES)
    expected = [alone(supernet, child, BATCHES) for child in children]
    assert found == pytest.approx(expected, rel=1e-6)
    # The children must differ by far more than that, or the comparison shows nothing.
    assert max(expected) - min(expected) > 0.01
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize(
    "overrides",
    [{"embedding_size": 24}, {"tie_word_embeddings": False}, {"attn_implementation": "eager"}, {"hidden_act": "relu"}],
    ids=str,
)
def test_every_shape_of_model(overrides):
    supernet = tiny_supernet(CHAIN, **overrides)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(6)]
    assert score_architectures(supernet, children, BATCHES) == pytest.approx(
        [alone(supernet, child, BATCHES) for child in children], rel=1e-6
    )


@pytest.mark.parametrize("leaves_per_head", [1, 3, 1000])
@pytest.mark.parametrize("rows", [1, 7, 256])
def test_any_grouping_of_leaves_and_rows_gives_the_same(monkeypatch, leaves_per_head, rows):
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(10)]
    expected = score_architectures(supernet, children, BATCHES)
    monkeypatch.setattr(scoring, "_ROWS_ON_CPU", rows)
    found = score_architectures(supernet, children, BATCHES, leaves_per_head=leaves_per_head)
    assert found == pytest.approx(expected, rel=1e-6)


def test_order_and_duplicates_change_nothing_and_duplicates_cost_nothing():
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(5)]
    once = score_with_report(supernet, children, BATCHES)
    twice = score_with_report(supernet, [*reversed(children), *children, list(children[0])], BATCHES)
    assert twice.losses == [*reversed(once.losses), *once.losses, once.losses[0]]
    assert twice.num_operator_calls == once.num_operator_calls
    assert twice.num_distinct == once.num_distinct == len(set(children))


def test_common_prefixes_are_run_once():
    space = SearchSpace.chain(num_choice_blocks=4, operators=("ffn", "conv3", "conv5"))
    supernet = tiny_supernet(space)
    calls = []
    for index, block in enumerate(supernet.nasbert.encoder.blocks):
        for operator in block.operators.values():
            operator.register_forward_hook(lambda *_, index=index: calls.append(index))
    report = score_with_report(supernet, list(space.enumerate()), BATCHES[:2])
    assert [calls.count(index) for index in range(4)] == [2 * 3 ** (index + 1) for index in range(4)]
    assert report.num_operator_calls == len(calls) == 2 * (3 + 9 + 27 + 81)
    assert report.num_naive_operator_calls == 2 * 81 * 4
    assert report.share_saved == pytest.approx(1 - 120 / 324)
    assert report.children_per_second == pytest.approx(81 / report.seconds)
    assert (report.num_batches, report.num_labels) == (2, sum(int((b["labels"] != -100).sum()) for b in BATCHES[:2]))


def test_the_last_block_runs_at_the_labelled_positions_only():
    space = SearchSpace.chain(num_choice_blocks=3, operators=("attention", "ffn", "conv3"))
    supernet = tiny_supernet(space)
    shapes = set()
    for index, block in enumerate(supernet.nasbert.encoder.blocks):
        block.register_forward_hook(lambda module, inputs, output, index=index: shapes.add((index, output.shape)))
    score_architectures(supernet, list(space.enumerate()), BATCHES[:1])
    num_labels = int((BATCHES[0]["labels"] != -100).sum())
    assert shapes == {(0, (3, 12, 64)), (1, (3, 12, 64)), (2, (num_labels, 64))}


def test_a_child_that_ends_where_a_deeper_one_passed_runs_nothing_more():
    supernet = tiny_supernet(CHAIN)
    deep = Architecture(["ffn", "attention", "conv3", "ffn"])
    shallow = [Architecture([*deep[:depth], *[SKIP] * (4 - depth)]) for depth in (1, 2, 3)]
    children = [shallow[1], deep, shallow[2], shallow[0]]
    report = score_with_report(supernet, children, BATCHES)
    assert report.num_operator_calls == 4 * len(BATCHES)
    assert report.num_naive_operator_calls == (4 + 1 + 2 + 3) * len(BATCHES)
    assert report.losses == pytest.approx([alone(supernet, child, BATCHES) for child in children], rel=1e-6)


def test_hidden_states_held_at_once_do_not_grow_with_the_children(monkeypatch):
    held = []
    leaf = scoring._Walk.leaf

    def watched(walk, child):
        rows = leaf(walk, child)
        held.append(len(walk._states))
        return rows

    monkeypatch.setattr(scoring._Walk, "leaf", watched)
    score_architectures(tiny_supernet(CHAIN), list(CHAIN.enumerate()), BATCHES[:1])
    assert len(held) == CHAIN.num_children
    assert max(held) == 5  # the embeddings and one per block


@pytest.mark.parametrize("shift", [150.0, -150.0, -100.0])  # -100: the sum of exponentials is a denormal number
def test_logits_beyond_the_range_of_an_exponential_are_no_trouble(shift):
    supernet = tiny_supernet(CHAIN)
    with torch.no_grad():
        supernet.lm_head.bias += shift
    child = CHAIN.sample(random.Random(0))
    assert score_architectures(supernet, [child], BATCHES) == pytest.approx(
        [alone(supernet, child, BATCHES)], rel=1e-5
    )
    with torch.no_grad():
        supernet.lm_head.bias -= shift
        supernet.lm_head.LayerNorm.weight *= 200
    assert score_architectures(supernet, [child], BATCHES) == pytest.approx(
        [alone(supernet, child, BATCHES)], rel=1e-6
    )


def test_a_loss_that_is_not_finite_is_named_and_spoils_no_other(caplog):
    supernet = tiny_supernet(CHAIN)
    with torch.no_grad():
        supernet.nasbert.encoder.blocks[1].operators["conv3"].layers[0].dense.weight.fill_(float("nan"))
    good, bad = Architecture(["ffn", "ffn", "ffn", "skip"]), Architecture(["ffn", "conv3", "skip", "skip"])
    with caplog.at_level(logging.WARNING):
        losses = score_architectures(supernet, [bad, good], BATCHES)
    assert losses[0] != losses[0]
    assert losses[1] == pytest.approx(alone(supernet, good, BATCHES), rel=1e-6)
    assert str(bad) in caplog.text
    assert str(good) not in caplog.text


def test_scoring_leaves_the_supernet_as_it_was():
    supernet = tiny_supernet(CHAIN, hidden_dropout_prob=0.5)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(3)]
    expected = score_architectures(supernet, children, BATCHES)
    supernet.train()
    supernet.nasbert.embeddings.eval()  # a mode of its own, as of a frozen part
    modes = [module.training for module in supernet.modules()]
    weights = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    state = torch.get_rng_state()
    assert score_architectures(supernet, children, BATCHES) == expected
    assert [module.training for module in supernet.modules()] == modes
    with pytest.raises(ValueError, match="no input_ids"):
        score_architectures(supernet, children, [{"labels": BATCHES[0]["labels"]}])
    assert [module.training for module in supernet.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in supernet.state_dict().items())
    supernet(**BATCHES[0], architecture=children[0]).loss.backward()  # nothing of inference mode clings to it


def test_batches_without_labels_count_for_nothing():
    supernet = tiny_supernet(CHAIN)
    child = CHAIN.sample(random.Random(0))
    empty = {**BATCHES[1], "labels": torch.full_like(BATCHES[1]["labels"], -100)}
    assert score_architectures(supernet, [child], [empty, BATCHES[0]]) == score_architectures(
        supernet, [child], iter([BATCHES[0]])
    )
    for batches in ([], [empty]):
        with pytest.raises(ValueError, match="no labelled token"):
            score_architectures(supernet, [child], batches)
    with pytest.raises(ValueError, match="no labels"):
        score_architectures(supernet, [child], [{"input_ids": BATCHES[0]["input_ids"]}])


def test_bad_requests_are_refused_by_name():
    supernet = tiny_supernet(CHAIN)
    with pytest.raises(ValueError, match="conv7"):
        score_architectures(supernet, [["ffn", "ffn", "ffn", "conv7"]], BATCHES)
    with pytest.raises(ValueError, match="no architecture"):
        score_architectures(supernet, [], BATCHES)
    with pytest.raises(ValueError, match="leaves_per_head"):
        score_architectures(supernet, [CHAIN.sample(random.Random(0))], BATCHES, leaves_per_head=0)


def test_progress_shows_the_children_left(capsys):
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(4)]
    score_architectures(supernet, children, BATCHES)
    assert capsys.readouterr().err == ""
    score_architectures(supernet, children, BATCHES, progress=True)
    assert f"/{len(set(children)) * len(BATCHES)}" in capsys.readouterr().err


def score_in_turns(monkeypatch, supernet, children, batches, num_processes, **options):
    """What each of several processes adds up, and how many children it scored on each batch: one after the other."""
    sums, calls = [], []

    def keep(tensor, reduction):
        assert reduction == "sum"
        (sums if tensor.dim() else calls).append(tensor.clone())
        return tensor

    monkeypatch.setattr(scoring, "reduce", keep)
    for process in range(num_processes):
        processes = SimpleNamespace(
            num_processes=num_processes, process_index=process, is_main_process=process == 0, device="cpu"
        )
        score_with_report(supernet, children, batches, processes=processes, **options)
    return torch.stack(sums), [int(number) for number in calls]


@pytest.mark.parametrize("name", SPACES)
def test_processes_share_the_work_and_change_no_bit(monkeypatch, name):
    supernet = tiny_supernet(SPACES[name])
    children = [SPACES[name].sample(random.Random(seed), "children") for seed in range(40)]
    batches = BATCHES[:2]
    alone_sums, alone_calls = score_in_turns(monkeypatch, supernet, children, batches, 2, leaves_per_head=10**6)
    assert (alone_sums.count_nonzero(dim=0) == 1).all()  # two batches, two processes, no border within a batch
    whole = score_with_report(supernet, children, batches, leaves_per_head=2)
    assert sum(alone_calls) == whole.num_operator_calls
    for num_processes in (2, 3, 5):
        sums, calls = score_in_turns(monkeypatch, supernet, children, batches, num_processes, leaves_per_head=2)
        assert (sums.count_nonzero(dim=0) == 1).all()  # each child on each batch: once
        per_process = sums.count_nonzero(dim=(1, 2))
        assert per_process.max() <= 1.5 * per_process.float().mean()
        losses = sum(sums.sum(0)) / whole.num_labels
        expected = sorted(dict.fromkeys(whole.losses))
        assert sorted(dict.fromkeys(losses.tolist())) == expected
        assert whole.num_operator_calls <= sum(calls) < whole.num_naive_operator_calls


def test_a_border_lies_only_where_a_new_walk_does_the_same(monkeypatch):
    """Of all borders between heads' groups those are allowed behind which every later child keeps its bits.

    Whatever kernels do: here what runs at the labelled positions only differs from what runs at all of them.
    """
    run_block = SupernetModel.run_block

    def marked(model, block, operator, states, masks, positions=None, child=None):
        after = run_block(model, block, operator, states, masks, positions, child)
        return after + 1e-3 if operator != SKIP and (positions is not None or states.dim() == 2) else after

    monkeypatch.setattr(SupernetModel, "run_block", marked)
    space = SearchSpace((Stage((("ffn", "conv3"), ("conv3", "skip"))), Stage((("attention", "ffn"), ("ffn", "skip")))))
    supernet = tiny_supernet(space)
    children = list(space.enumerate())
    rank = {"attention": 0, "conv3": 1, "ffn": 2, "skip": 3}
    children.sort(key=lambda child: [rank[name] for name in child])
    shares = scoring._shares(children, 1, 1, len(children))
    starts = sorted({part.start for (part,) in shares if part})
    assert 3 < len(starts) < len(children)
    walk = scoring._Walk(supernet, BATCHES[0])
    with torch.inference_mode():
        expected = [walk.leaf(child).clone() for child in children]
        for start in starts:
            fresh = scoring._Walk(supernet, BATCHES[0])
            for child, rows in zip(children[start:], expected[start:], strict=True):
                assert torch.equal(fresh.leaf(child), rows)
        alone = [scoring._Walk(supernet, BATCHES[0]).leaf(child) for child in children]
    assert not all(map(torch.equal, alone, expected)), "the mark is seen where a deeper child went before"


def test_a_walk_takes_children_in_any_order():
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed), "children") for seed in range(40)]
    # Where the first one reads labelled positions only, the second one still mixes tokens.
    children += map(Architecture, (["attention", "ffn", "ffn", "ffn"], ["attention", "ffn", "attention", "ffn"]))
    with torch.inference_mode():
        walk = scoring._Walk(supernet, BATCHES[0])
        for child in children:
            alone = scoring._Walk(supernet, BATCHES[0]).leaf(child)
            assert torch.allclose(walk.leaf(child), alone, atol=1e-5)


def test_shares_cover_every_pair_once_in_order():
    children = sorted(CHAIN.enumerate())
    for num_batches, num_processes in [(1, 1), (1, 4), (3, 2), (2, 7), (5, 3)]:
        shares = scoring._shares(children, num_batches, 2, num_processes)
        pairs = [(batch, index) for share in shares for batch, part in enumerate(share) for index in part]
        assert pairs == [(batch, index) for batch in range(num_batches) for index in range(len(children))]


def test_a_process_alone_scores_everything_and_asks_no_other(monkeypatch):
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(6)]
    monkeypatch.setattr(scoring, "reduce", None)
    one = SimpleNamespace(num_processes=1, process_index=0, is_main_process=True, device="cpu")
    assert score_architectures(supernet, children, BATCHES, processes=one) == score_architectures(
        supernet, children, BATCHES
    )


def test_only_the_main_process_shows_progress(monkeypatch, capsys):
    monkeypatch.setattr(scoring, "reduce", lambda tensor, _: tensor)
    supernet = tiny_supernet(CHAIN)
    children = [CHAIN.sample(random.Random(seed)) for seed in range(4)]
    for process in (0, 1):
        processes = SimpleNamespace(num_processes=2, process_index=process, is_main_process=process == 0, device="cpu")
        score_architectures(supernet, children, BATCHES[:2], progress=True, processes=processes)
        assert ("children" in capsys.readouterr().err) is (process == 0)


def test_the_report_in_words():
    report = scoring.ScoringReport([1.0], 1000, 4, 99, 12.5, 30, 120)
    assert str(report) == "1,000 children on 4 batches in 12.5 s: 80.0 children/s, 75.0% of the operator calls saved"
    both = report + scoring.ScoringReport([2.0, 3.0], 500, 4, 99, 2.5, 20, 80)
    assert both == scoring.ScoringReport([1.0, 2.0, 3.0], 1500, 4, 99, 15.0, 50, 200)


def score_together():
    """What one of several processes does."""
    state = PartialState(cpu=True)
    children = [STAGED.sample(random.Random(seed), "children") for seed in range(60)]
    supernet = tiny_supernet(STAGED)
    shared = score_with_report(supernet, children, BATCHES, processes=state)
    alone = score_with_report(supernet, children, BATCHES)
    return state.num_processes, shared, alone


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_real_processes_get_the_bits_of_one(num_processes, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for seen in launch(score_together, num_processes):
        assert not isinstance(seen, str), seen
        number, shared, alone = seen
        assert number == num_processes
        assert shared.losses == alone.losses
        assert alone.num_operator_calls <= shared.num_operator_calls < 1.2 * alone.num_operator_calls


def peaked_supernet():
    """400 words, some far more frequent than others, as biases of trained models say it."""
    supernet = tiny_supernet(CHAIN, vocab_size=400)
    torch.manual_seed(3)
    with torch.no_grad():
        supernet.lm_head.decoder.weight.mul_(0.3)
        supernet.lm_head.bias.normal_(0, 2)
    return supernet


class TestLikelyWords:
    def test_a_sixteenth_of_the_words_and_a_normal_rest_come_close_to_the_loss(self, monkeypatch):
        """By 0.0013; unlikely words in place of the likely ones: 0.0045; without variance: 0.03; without rest: 0.4."""
        supernet = peaked_supernet()
        children = [CHAIN.sample(random.Random(seed)) for seed in range(30)]
        exact = score_architectures(supernet, children, BATCHES[:1])
        head = LikelyWords(supernet, BATCHES[:1])
        assert len(head._weight) == 25
        monkeypatch.setattr(scoring._Head, "_cross_entropy", lambda *_: pytest.fail("the whole vocabulary"))
        about = score_architectures(supernet, children, BATCHES[:1], head=head)
        assert about == pytest.approx(exact, abs=0.0025)
        assert max(exact) - min(exact) > 0.1
        assert about != exact

    def test_it_is_the_same_each_time_and_in_every_process(self, monkeypatch):
        supernet = peaked_supernet()
        children = [CHAIN.sample(random.Random(seed), "children") for seed in range(20)]
        head, again = (LikelyWords(supernet, BATCHES[:2]) for _ in range(2))
        whole = score_with_report(supernet, children, BATCHES[:2], head=head, leaves_per_head=2)
        sums, _ = score_in_turns(monkeypatch, supernet, children, BATCHES[:2], 2, leaves_per_head=2, head=again)
        losses = sum(sums.sum(0)) / whole.num_labels
        assert sorted(losses.tolist()) == sorted(dict.fromkeys(whole.losses))

    def test_a_reference_that_diverged_says_nothing_of_words(self):
        supernet = peaked_supernet()
        sound = LikelyWords(supernet, BATCHES[:1])
        with torch.no_grad():
            supernet.nasbert.encoder.blocks[1].operators["conv3"].layers[0].dense.weight.fill_(float("nan"))
        head = LikelyWords(supernet, BATCHES[:1])
        assert len(set(head._bias.tolist()) & set(sound._bias.tolist())) >= 20  # of 25
        good, bad = Architecture(["ffn", "ffn", "ffn", "skip"]), Architecture(["ffn", "conv3", "skip", "skip"])
        found = score_architectures(supernet, [good, bad], BATCHES[:1], head=head)
        assert found[0] == pytest.approx(alone(supernet, good, BATCHES[:1]), abs=0.0025)
        assert found[1] != found[1]

    @pytest.mark.parametrize("shift", [150.0, -150.0])
    def test_logits_beyond_the_range_of_an_exponential_are_no_trouble(self, shift):
        supernet, children = peaked_supernet(), [CHAIN.sample(random.Random(seed)) for seed in range(3)]
        expected = score_architectures(supernet, children, BATCHES[:1], head=LikelyWords(supernet, BATCHES[:1]))
        with torch.no_grad():
            supernet.lm_head.bias += shift
        shifted = score_architectures(supernet, children, BATCHES[:1], head=LikelyWords(supernet, BATCHES[:1]))
        assert shifted == pytest.approx(expected, abs=1e-4)

    def test_what_it_cannot_be_made_of_is_refused(self):
        supernet = tiny_supernet(CHAIN)
        for share in (0.0, 1.0):
            with pytest.raises(ValueError, match="share="):
                LikelyWords(supernet, BATCHES, share=share)
        with pytest.raises(ValueError, match="labelled token"):
            LikelyWords(supernet, [])
