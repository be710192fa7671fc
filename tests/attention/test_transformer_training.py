"""The schedule and the smoothed loss of the Transformer, by hand and against torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers import assert_differs, assert_same
from papercode.attention.transformer_training import label_smoothing_loss, learning_rate

B, N, V = 2, 5, 7


def test_schedule_by_hand():
    """d = 64, warmup = 100: 1/8 · 1/10 at the peak; half of it at step 50, half of it again at step 400."""
    rates = [learning_rate(step, d_model=64, warmup=100) for step in (1, 50, 100, 400)]
    assert rates == pytest.approx([0.0125 / 100, 0.00625, 0.0125, 0.00625])


def test_peak_is_at_the_end_of_the_warmup():
    rates = [learning_rate(step) for step in range(1, 9001)]
    assert rates.index(max(rates)) + 1 == 4000
    assert max(rates) == pytest.approx((512 * 4000) ** -0.5)  # 7e-4


def test_it_rises_in_a_line_and_falls_with_the_root():
    assert learning_rate(3000) == pytest.approx(3 * learning_rate(1000))
    assert learning_rate(16000) == pytest.approx(learning_rate(4000) / 2)


def test_label_smoothing_by_hand():
    """Two tokens with p = 3/4 and 1/4, smoothing 0.2: the target is 0.9 and 0.1."""
    logits = torch.tensor([[math.log(3), 0.0]])
    by_hand = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert label_smoothing_loss(logits, torch.tensor([0]), smoothing=0.2).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35])
@pytest.mark.parametrize("padding", [None, 3])
def test_label_smoothing_equals_torch(smoothing, padding):
    logits, target = torch.randn(B, N, V, dtype=torch.float64), torch.tensor([[3, 1, 0, 6, 3], [5, 5, 2, 3, 4]])
    ours = label_smoothing_loss(logits, target, smoothing=smoothing, padding=padding)
    ignore = -100 if padding is None else padding

    def reference(smoothing):
        return F.cross_entropy(logits.mT, target, label_smoothing=smoothing, ignore_index=ignore)

    assert_same(ours, reference(smoothing))
    assert_differs(ours, reference(smoothing + 0.1))


def test_padding_does_not_count_and_sends_no_gradient():
    logits = torch.randn(B, N, V, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]])
    label_smoothing_loss(logits, target, padding=0).backward()
    assert (logits.grad[0, 3:] == 0).all()
    assert (logits.grad[0, :3] != 0).all()
    nothing = label_smoothing_loss(logits, torch.zeros(B, N, dtype=torch.long), padding=0)
    assert nothing.item() == 0


def test_it_is_least_at_the_smoothed_target_and_not_at_certainty():
    target = torch.tensor([2])
    smooth = torch.full((1, V), 0.1 / V)
    smooth[0, 2] += 0.9
    certain = torch.zeros(1, V)
    certain[0, 2] = 30.0
    entropy = -(smooth * smooth.log()).sum()
    assert_same(label_smoothing_loss(smooth.log(), target), entropy, 1e-6)
    assert label_smoothing_loss(certain, target) > entropy + 1


def test_gradients():
    logits, target = torch.randn(N, V, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 6, 2, 2])
    assert torch.autograd.gradcheck(lambda x: label_smoothing_loss(x, target, padding=1), (logits,))


def test_errors():
    with pytest.raises(ValueError, match="step=0 and warmup=4000 must be at least 1"):
        learning_rate(0)
    with pytest.raises(ValueError, match="warmup=0"):
        learning_rate(1, warmup=0)
    with pytest.raises(ValueError, match=r"smoothing=1.0 must be in \[0, 1\)"):
        label_smoothing_loss(torch.zeros(1, V), torch.tensor([0]), smoothing=1.0)
