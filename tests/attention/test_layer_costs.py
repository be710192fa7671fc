"""Table 1: operations against torch's own count, path lengths against the formulas."""

import math
from itertools import count, repeat

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papercode.attention.layer_costs import flops_per_layer, path_length, window
from papercode.attention.transformer import MultiHeadAttention, attention

N, D, K = 11, 14, 3


def counted(function, *inputs):
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


def test_attention_equals_torchs_count():
    flops = flops_per_layer(N, D)
    assert counted(attention, *torch.randn(3, 1, 2, N, D // 2)) == flops["self-attention"]
    layer = MultiHeadAttention(D, 2)
    assert counted(layer, torch.randn(1, N, D)) == flops["self-attention"] + flops["projections q, k, v, o"]


def test_convolutions_equal_torchs_count():
    flops, x = flops_per_layer(N, D, k=K), torch.randn(1, D, N)
    plain = nn.Conv1d(D, D, K, padding="same")
    separable = nn.Sequential(nn.Conv1d(D, D, K, padding="same", groups=D), nn.Conv1d(D, D, 1))
    assert counted(plain, x) == flops["convolutional"]
    assert counted(separable, x) == flops["convolutional (separable)"]


def test_recurrence_is_two_matrices_a_step():
    w, u, x, state = torch.randn(D, D), torch.randn(D, D), torch.randn(N, D), torch.zeros(1, D)

    def unroll(state):
        for step in x:
            state = torch.tanh(step[None] @ w + state @ u)

    assert counted(unroll, state) == flops_per_layer(N, D)["recurrent"]


def test_restricted_attention_is_full_attention_at_r_equal_n():
    assert flops_per_layer(N, D, r=N)["self-attention (restricted)"] == flops_per_layer(N, D)["self-attention"]
    assert (
        flops_per_layer(2 * N, D)["self-attention (restricted)"]
        == 2 * flops_per_layer(N, D)["self-attention (restricted)"]
    )


def test_window_by_hand():
    assert window(4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert window(4, 2, dilation=2).int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize("n", [2, 3, 9, 10, 28, 31])
def test_path_lengths_are_those_of_table_1(n):
    assert path_length(repeat(window(n, n))) == 1  # self-attention
    assert path_length(repeat(window(n, 2))) == n - 1  # recurrent: a step sees the one before
    assert path_length(repeat(window(n, K))) == math.ceil((n - 1) / (K - 1))  # restricted, or contiguous convolution
    dilated = path_length(window(n, K, K**layer) for layer in count())
    assert dilated == next(layers for layers in count(1) if K**layers >= n)  # log_k n, rounded up


def test_to_see_oneself_is_not_asked_for():
    assert path_length([torch.ones(7, 7, dtype=torch.bool).tril(-1)]) == 1
    with pytest.raises(ValueError, match="after 1 layers"):  # but the one before is
        path_length([torch.ones(7, 7, dtype=torch.bool).tril(-2)])


def test_a_window_that_looks_both_ways_has_twice_the_path():
    near = (torch.arange(7)[:, None] - torch.arange(7)).abs() <= 1
    assert path_length(repeat(near)) == 2 * path_length(repeat(window(7, 3))) == 6


def test_errors():
    with pytest.raises(ValueError, match="width=0 and dilation=1 must be at least 1"):
        window(3, 0)
    with pytest.raises(ValueError, match="after 2 layers some position has not seen an earlier one"):
        path_length([window(9, 2)] * 2)
    with pytest.raises(ValueError, match="after 9 layers some position has not seen an earlier one"):
        path_length(repeat(window(9, 1)))
    with pytest.raises(ValueError, match="after 0 layers"):
        path_length([])
