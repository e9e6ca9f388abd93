"""`objectives`: every loss against its definition written as loops over single numbers."""

import math

import pytest
import torch

from hf_nasbert.objectives import alignment_loss, alpha_divergence_loss, distillation_loss, relation_loss

B, T, D = 3, 5, 4


def states(count, *, seed, width=D):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, T, width, generator=generator) for _ in range(count)]


@pytest.fixture
def padding_mask():
    return torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1]])


def by_loop(child, anchor, mask):
    """Mean over blocks of the mean over real tokens and hidden units of the squared difference."""
    blocks = []
    for one, other in zip(child, anchor, strict=True):
        terms = [
            float((one[b, t, d] - other[b, t, d]) ** 2)
            for b in range(B)
            for t in range(T)
            if mask is None or mask[b, t]
            for d in range(one.shape[-1])
        ]
        blocks.append(sum(terms) / len(terms))
    return sum(blocks) / len(blocks)


class TestAgainstTheDefinition:
    def test_without_padding(self):
        child, anchor = states(3, seed=0), states(3, seed=1)
        assert alignment_loss(child, anchor).item() == pytest.approx(by_loop(child, anchor, None), rel=1e-6)

    @pytest.mark.parametrize("shape", [(B, T), (B, T, 1)])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
    def test_padding_counts_for_nothing(self, padding_mask, shape, dtype):
        child, anchor = states(2, seed=0), states(2, seed=1)
        expected = by_loop(child, anchor, padding_mask)
        child[0][1, 3], anchor[1][2, 0] = float("inf"), float("nan")
        mask = padding_mask.reshape(shape).to(dtype)
        assert alignment_loss(child, anchor, mask).item() == pytest.approx(expected, rel=1e-6)

    def test_gradient_is_finite_where_padding_is_not(self, padding_mask):
        child = states(1, seed=0)[0]
        child[1, 3] = float("inf")
        child.requires_grad_()
        alignment_loss([child], states(1, seed=1), padding_mask).backward()
        assert child.grad.isfinite().all()
        assert (child.grad[padding_mask == 0] == 0).all()

    def test_normalized_states_have_mean_zero_and_variance_one(self):
        child, anchor = states(1, seed=0), states(1, seed=1)
        brought = [
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            for x in child + anchor
        ]
        expected = by_loop(brought[:1], brought[1:], None)
        assert alignment_loss(child, anchor, normalize=True).item() == pytest.approx(expected, rel=1e-5)
        assert alignment_loss(child, [5 * x + 1 for x in child], normalize=True).item() < 1e-4


class TestStatesAtPositionsOnly:
    positions = torch.tensor([1, 4, 7, 12])

    def rows(self, x):
        return x.flatten(0, 1)[self.positions]

    def test_both_restricted(self, padding_mask):
        child, anchor = states(2, seed=0), states(2, seed=1)
        expected = (
            by_loop(child[:1], anchor[:1], padding_mask) + by_rows(self.rows(child[1]), self.rows(anchor[1]))
        ) / 2
        found = alignment_loss([child[0], self.rows(child[1])], [anchor[0], self.rows(anchor[1])], padding_mask)
        assert found.item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("restricted", ["child", "anchor"])
    def test_one_restricted(self, restricted):
        child, anchor = states(1, seed=0), states(1, seed=1)
        expected = by_rows(self.rows(child[0]), self.rows(anchor[0]))
        given = {"child": child, "anchor": anchor}
        given[restricted] = [self.rows(x) for x in given[restricted]]
        found = alignment_loss(given["child"], given["anchor"], positions=self.positions)
        assert found.item() == pytest.approx(expected, rel=1e-6)
        with pytest.raises(ValueError, match="positions"):
            alignment_loss(given["child"], given["anchor"])


def by_rows(one, other):
    terms = [float((a - b) ** 2) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(terms) / len(terms)


def test_blocks_of_other_widths_are_left_out():
    wide_child, narrow_anchor = states(1, seed=0, width=8), states(1, seed=1)
    child, anchor = states(1, seed=2), states(1, seed=3)
    found = alignment_loss(wide_child + child, narrow_anchor + anchor)
    assert found.item() == pytest.approx(by_loop(child, anchor, None), rel=1e-6)
    assert alignment_loss(wide_child, narrow_anchor).item() == 0


def test_moves_the_child_and_not_the_anchor():
    child, anchor = (states(1, seed=seed)[0].requires_grad_() for seed in (0, 1))
    alignment_loss([child], [anchor]).backward()
    assert anchor.grad is None
    torch.testing.assert_close(child.grad, 2 * (child - anchor).detach() / child.numel())


def test_the_very_same_tensor_is_zero_and_counts_as_a_block():
    shared, child, anchor = states(1, seed=0)[0], states(1, seed=1)[0], states(1, seed=2)[0]
    expected = by_loop([shared, child], [shared.clone(), anchor], None)
    assert alignment_loss([shared, child], [shared, anchor]).item() == pytest.approx(expected, rel=1e-6)


def test_parts_with_the_counts_of_the_whole_add_up(padding_mask):
    child, anchor = states(1, seed=0)[0], states(1, seed=1)[0]
    positions = torch.tensor([0, 3, 6, 11])
    rows = child.flatten(0, 1)[positions], anchor.flatten(0, 1)[positions]
    whole = alignment_loss([child, rows[0]], [anchor, rows[1]], padding_mask)
    parts = [
        alignment_loss(
            [child[part], rows[0][kept]],
            [anchor[part], rows[1][kept]],
            padding_mask[part],
            num_tokens=int(padding_mask.sum()),
            num_positions=len(positions),
        )
        for part, kept in ((slice(0, 1), slice(0, 2)), (slice(1, 3), slice(2, 4)))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    # Sanity check: parts weighed as if each were a whole do not.
    naive = [alignment_loss([child[part]], [anchor[part]], padding_mask[part]) for part in (slice(0, 1), slice(1, 3))]
    assert sum(naive).item() / 2 != pytest.approx(alignment_loss([child], [anchor], padding_mask).item(), rel=1e-3)


def test_half_precision_is_summed_in_full():
    child, anchor = states(1, seed=0), states(1, seed=1)
    halves = [[x.to(torch.bfloat16) for x in side] for side in (child, anchor)]
    found = alignment_loss(*halves)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_loop(*([x.float() for x in side] for side in halves), None), rel=1e-6)


def test_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="2 block outputs, the anchor 3"):
        alignment_loss(states(2, seed=0), states(3, seed=0))


def softmax(numbers):
    exps = [math.exp(number) for number in numbers]
    return [one / sum(exps) for one in exps]


def divergence(teacher, student):
    """Kullback-Leibler divergence of two lists of probabilities."""
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True) if p > 0)


class TestDistillation:
    @pytest.mark.parametrize("temperature", [1.0, 2.5])
    def test_against_the_definition(self, temperature):
        student, teacher = (3 * rows[0][0] for rows in (states(1, seed=0), states(1, seed=1)))  # (T, D): T predictions
        expected = [
            divergence(*(softmax([float(logit) / temperature for logit in row]) for row in pair))
            for pair in zip(teacher, student, strict=True)
        ]
        found = distillation_loss(student, teacher, temperature=temperature).item()
        assert found == pytest.approx(temperature**2 * sum(expected) / T, rel=1e-4)

    def test_the_teacher_has_no_gradient_and_an_equal_student_no_loss(self):
        student, teacher = (rows[0][0].requires_grad_() for rows in (states(1, seed=0), states(1, seed=1)))
        distillation_loss(student, teacher).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None
        assert distillation_loss(teacher + 3.0, teacher).item() == pytest.approx(0.0, abs=1e-6)
        assert distillation_loss(student[:0], teacher[:0]).item() == 0.0

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match="shapes"):
            distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
        with pytest.raises(ValueError, match="temperature=0"):
            distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0)


def clipped_divergence(teacher, student, clip):
    """The alpha-divergence of -1 of two distributions, its weights clipped."""
    return sum(q * (min(q / p, clip) - 1) for p, q in zip(teacher, student, strict=True)) / 2


class TestAlphaDivergence:
    def pairs(self, seed=0, scale=1, number=40):
        student, teacher = scale * torch.randn(2, number, D, generator=torch.Generator().manual_seed(seed)).double()
        distributions = [[softmax(row) for row in logits.tolist()] for logits in (teacher, student)]
        return student, teacher, list(zip(*distributions, strict=True))

    @pytest.mark.parametrize("clip", [5.0, 3.0])
    def test_the_larger_one_of_each_prediction_by_hand(self, clip):
        student, teacher, pairs = self.pairs()
        both = [(divergence(*pair), clipped_divergence(*pair, clip)) for pair in pairs]
        of_each, of_means = sum(map(max, both)) / len(both), max(map(sum, zip(*both, strict=True))) / len(both)
        assert of_each > 1.02 * of_means, "the example tells them apart"
        assert max(q / p for pair in pairs for p, q in zip(*pair, strict=True)) > 5, "and there is something to clip"
        assert alpha_divergence_loss(student, teacher, clip=clip).item() == pytest.approx(of_each, rel=1e-9)

    def test_two_numbers(self):
        """q = (0.9, 0.1), p = (0.1, 0.9): KL is 0.8 log 9; weights 9, clipped to 5, and 1/9: (3.6 - 8/90) / 2."""
        student, teacher = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
        missing, inventing = 0.8 * math.log(9), (0.9 * 4 - 0.1 * 8 / 9) / 2
        assert 1.7555 < inventing < 1.7556 < missing < 1.7578
        assert alpha_divergence_loss(student, teacher).item() == pytest.approx(missing, rel=1e-6)
        assert alpha_divergence_loss(student, teacher, clip=6).item() == pytest.approx(inventing + 0.45, rel=1e-6)

    def test_its_gradient_by_hand(self):
        """That of q (w - 1 / 2) log q with constant q and w, if that one is larger: q (w - sum of q w) by logit."""
        student, teacher, pairs = self.pairs()
        student.requires_grad_()
        alpha_divergence_loss(student, teacher).backward()
        for (p, q), found in zip(pairs, student.grad.tolist(), strict=True):
            if divergence(p, q) > clipped_divergence(p, q, 5):
                expected = [b - a for a, b in zip(p, q, strict=True)]
            else:
                w = [min(b / a, 5) for a, b in zip(p, q, strict=True)]
                mean = sum(a * b for a, b in zip(q, w, strict=True))
                expected = [a * (b - mean) for a, b in zip(q, w, strict=True)]
            assert found == pytest.approx([one / len(pairs) for one in expected], rel=1e-9, abs=1e-12)

    def test_without_clipping_the_gradient_is_that_of_the_value(self):
        student, teacher, _ = self.pairs(scale=0.3, number=4)
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda logits: alpha_divergence_loss(logits, teacher), student)

    @pytest.mark.parametrize("size", [30.0, 1e4, 6e4])
    def test_extreme_logits_have_finite_gradients(self, size):
        student = torch.tensor([[size, -size, 0.0], [-size, 0.0, size], [0.0, 0.0, 0.0]], requires_grad=True)
        loss = alpha_divergence_loss(student, -student.detach().roll(1, 0))
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()
        assert student.grad.abs().max() <= 5 / 3

    def test_the_teacher_has_no_gradient_and_an_equal_student_no_loss(self):
        student, teacher = (rows[0][0].requires_grad_() for rows in (states(1, seed=0), states(1, seed=1)))
        alpha_divergence_loss(student, teacher).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None
        assert alpha_divergence_loss(teacher + 3.0, teacher).item() == pytest.approx(0.0, abs=1e-6)
        assert alpha_divergence_loss(student[:0], teacher[:0]).item() == 0.0
        with pytest.raises(ValueError, match="shapes"):
            alpha_divergence_loss(torch.zeros(2, 3), torch.zeros(2, 4))


class TestRelations:
    @pytest.mark.parametrize("is_padded", [False, True])
    def test_against_the_definition(self, padding_mask, is_padded):
        student, teacher = 2 * states(1, seed=0)[0], 2 * states(1, seed=1, width=6)[0]
        real = padding_mask.bool() if is_padded else torch.ones(B, T, dtype=torch.bool)
        terms = []
        for b in range(B):
            tokens = [t for t in range(T) if real[b, t]]
            for head in range(2):
                for t in tokens:
                    rows = []
                    for vectors in (teacher, student):
                        size = vectors.shape[-1] // 2
                        own = slice(head * size, (head + 1) * size)
                        products = [float(vectors[b, t, own] @ vectors[b, u, own]) / math.sqrt(size) for u in tokens]
                        rows.append(softmax(products))
                    terms.append(divergence(*rows))
        if is_padded:
            student[1, 3], teacher[2, 0] = 1e4, -1e4  # whatever stands at padding
        mask = padding_mask if is_padded else None
        found = relation_loss(student, teacher, mask, num_heads=2).item()
        assert found == pytest.approx(sum(terms) / len(terms), rel=1e-4)

    def test_the_teacher_has_no_gradient_and_an_equal_student_no_loss(self):
        student, teacher = (rows[0].requires_grad_() for rows in (states(1, seed=0), states(1, seed=1)))
        relation_loss(student, teacher, num_heads=2).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None
        assert relation_loss(teacher, teacher, num_heads=2).item() == pytest.approx(0.0, abs=1e-6)

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match="width 4 cannot be cut into 3 relation heads"):
            relation_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 6), num_heads=3)
        with pytest.raises(ValueError, match="tokens"):
            relation_loss(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4), num_heads=2)


def test_a_small_divergence_of_double_logits_is_computed_in_double():
    """In float32 the rounding of log-probabilities is a thousandth of a divergence as small as this one."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    student = teacher + 0.01 * torch.randn(5, 20, generator=generator, dtype=torch.float64)
    p, q = (torch.softmax(logits, -1) for logits in (teacher, student))
    found = distillation_loss(student, teacher)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)
