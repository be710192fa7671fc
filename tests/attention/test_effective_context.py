"""The relative effective context length by hand, in loops, and on models whose context is known."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.attention.effective_context import context_losses, effective_context, relative_gain

F64 = torch.float64


def test_gain_by_hand():
    """Baseline 2 and 4. Model 0 goes from 4 to 3 on the harder one; to get worse on the other costs nothing."""
    short = torch.tensor([[3.0, 4.0], [2.0, 5.0]])
    long = torch.tensor([[9.0, 3.0], [2.0, 4.5]])
    assert relative_gain(short, long, r=0.5).tolist() == pytest.approx([1 - math.exp(-1), 0])
    assert relative_gain(short, long, r=1.0).tolist() == pytest.approx([1 - math.exp(-0.5), 0])


@pytest.mark.parametrize("r", [0.1, 0.5, 1.0])
def test_gain_equals_loops_over_appendix_c(r):
    k, t = 3, 47
    short, long = torch.rand(2, k, t, dtype=F64)
    baseline = [min(short[i, p].item() for i in range(k)) for p in range(t)]
    hard = sorted(range(t), key=lambda p: -baseline[p])[: round(r * t)]

    def f(losses, i):
        return math.fsum(min(baseline[p], losses[i, p].item()) for p in hard) / len(hard)

    expected = [(math.exp(f(short, i)) - math.exp(f(long, i))) / math.exp(f(short, i)) for i in range(k)]
    assert_same(relative_gain(short, long, r), torch.tensor(expected, dtype=F64))
    assert_differs(relative_gain(long, short, r), torch.tensor(expected, dtype=F64))


def knows(reaches, t=100):
    """Models that get better with context up to a reach, and not beyond it."""

    def losses(context):
        return torch.tensor([5 - 0.05 * min(context, reach) for reach in reaches], dtype=F64)[:, None].expand(-1, t)

    return losses


def test_models_whose_context_is_known():
    assert effective_context(knows([20, 20]), step=10, longest=100) == [20, 20]
    assert effective_context(knows([40, 40]), step=10, longest=100) == [40, 40]
    assert effective_context(knows([40]), step=10, longest=30) == [30]
    assert effective_context(knows([0]), step=10, longest=100) == [10]


def test_models_share_one_baseline():
    """The weaker model still gains on itself up to 40, but never falls below what the stronger one does with less."""
    alone = effective_context(lambda c: knows([40])(c) + 1, step=10, longest=100)
    together = effective_context(lambda c: torch.cat([knows([20])(c), knows([40])(c) + 1]), step=10, longest=100)
    assert alone == [40]
    assert together == [20, 10]


def test_the_threshold():
    gain = 1 - math.exp(-0.5)  # of each step of 10
    assert effective_context(knows([40]), step=10, longest=100, threshold=gain + 1e-9) == [10]
    assert effective_context(knows([40]), step=10, longest=100, threshold=gain - 1e-9) == [40]


def test_a_model_that_stopped_stays_stopped():
    def losses(context):  # gains from 10 to 20 and from 30 to 40, but not in between
        return torch.full((1, 9), {10: 5.0, 20: 4.0, 30: 4.0, 40: 3.0}[context])

    assert effective_context(losses, step=10, longest=40) == [20]


def test_a_model_that_stopped_stays_stopped_while_others_go_on():
    def losses(context):  # the first gains from 10 to 20 and from 30 to 40, the second all the time
        return torch.tensor([{10: 5.0, 20: 4.0, 30: 4.0, 40: 1.0}[context], 5 - context / 20], dtype=F64)[:, None]

    assert effective_context(losses, step=10, longest=40) == [20, 40]


def test_only_the_hard_tokens_count():
    def losses(context):  # one token in ten is hard, and gets no better
        return torch.tensor([[9.0] + [5 - context / 20] * 9], dtype=F64)

    assert effective_context(losses, step=10, longest=40, r=0.1) == [10]
    assert effective_context(losses, step=10, longest=40, r=1.0) == [40]


def test_losses_see_the_context_and_no_more():
    text, windows = torch.arange(20) % 7, []

    def score(seen):
        windows.append(seen)
        return torch.arange(7.0).expand(len(seen), 7).log_softmax(-1)

    positions = torch.tensor([5, 19])
    losses = context_losses(score, text, positions, context=3)
    assert windows[0].tolist() == [[2, 3, 4], [16 % 7, 17 % 7, 18 % 7]]
    expected = -torch.arange(7.0).log_softmax(-1)
    assert losses.tolist() == pytest.approx([expected[5].item(), expected[19 % 7].item()])


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"r=0 must be in \(0, 1\]"):
        relative_gain(torch.ones(1, 2), torch.ones(1, 2), r=0)
    with pytest.raises(ValueError, match="step=0 must be at least 1 and at most longest=5"):
        effective_context(knows([1]), step=0, longest=5)
    with pytest.raises(ValueError, match="step=6 must be at least 1 and at most longest=5"):
        effective_context(knows([1]), step=6, longest=5)
    with pytest.raises(ValueError, match="position 2 has fewer than context=3 tokens before it"):
        context_losses(lambda x: x, torch.arange(9), torch.tensor([5, 2]), 3)
