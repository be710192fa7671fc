"""The gated recursive convolution: the equations with loops, by hand, padding, the ends of its gates."""

import math
from itertools import pairwise

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.gated_recursive import GatedRecursiveConv

B, S, E, D = 3, 5, 4, 7
F64 = torch.float64


def looped(net, x):
    """One phrase (s e), node by node."""
    (W_l, W_r), (G_l, G_r) = net.new.weight.split(D, 1), net.gates.weight.split(D, 1)
    level = [net.word.weight @ word for word in x]
    while len(level) > 1:
        above = []
        for left, right in pairwise(level):
            new = torch.tanh(W_l @ left + W_r @ right + net.new.bias)
            powers = [math.exp(v) for v in (G_l @ left + G_r @ right + net.gates.bias).tolist()]
            w_c, w_l, w_r = (power / sum(powers) for power in powers)
            above.append(w_c * new + w_l * left + w_r * right)
        level = above
    return level[0]


def test_equals_the_equations(parity):
    net, x, lengths = randomise(GatedRecursiveConv(E, D)), torch.randn(B, S, E, dtype=F64), torch.tensor([5, 1, 3])
    expected = torch.stack([looped(net, row[:n]) for row, n in zip(x, lengths)])
    parity("gated recursive convolution", "the equations, with loops", "three lengths", net(x, lengths), expected)
    assert_differs(net(x), expected)
    assert_differs(net(x.flip(1)), net(x))  # the order counts


def test_padding_does_not_leak():
    net, x, lengths = randomise(GatedRecursiveConv(E, D)), torch.randn(B, S, E, dtype=F64), torch.tensor([4, 1, 3])
    other = x.clone()
    other[0, 4:], other[1, 1:], other[2, 3:] = 9.0, 9.0, 9.0
    assert torch.equal(net(other, lengths), net(x, lengths))
    assert_same(net(x[:, :1]), net.word(x[:, 0]))  # one word: no level at all


@pytest.mark.parametrize(("which", "word"), [(1, 0), (2, -1)])
def test_gates_at_their_ends_copy_a_word(which, word):
    net, x = randomise(GatedRecursiveConv(E, D)), torch.randn(B, S, E, dtype=F64)
    net.gates.bias.data[which] = 1e4
    assert torch.equal(net(x), net.word(x)[:, word])


def test_weights_sum_to_one_and_gradients():
    net = randomise(GatedRecursiveConv(E, D))
    h, weights = net.level(torch.randn(B, S, D, dtype=F64))
    assert h.shape == (B, S - 1, D)
    assert_same(weights.sum(-1), torch.ones(B, S - 1, dtype=F64))
    assert torch.autograd.gradcheck(net, (torch.randn(2, 3, E, dtype=F64, requires_grad=True),))
    assert net.width == D


@pytest.mark.parametrize("lengths", [[0, 1, 2], [1, 2, 6]])
def test_lengths_that_do_not_fit(lengths):
    with pytest.raises(ValueError, match=r"must be 3 numbers from 1 to n=5"):
        GatedRecursiveConv(E, D)(torch.zeros(B, S, E), torch.tensor(lengths))
