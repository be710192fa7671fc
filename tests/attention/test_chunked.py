"""Some positions at a time: the same numbers, and less that is alive at once."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.chunked import Chunked
from papercode.attention.transformer import FeedForward

B, N, D, D_FF = 2, 11, 3, 17
F64 = torch.float64


@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_equals_the_whole_with_gradients(size):
    network = randomise(FeedForward(D, D_FF))
    chunked = Chunked(network, size)
    x = torch.randn(B, N, D, dtype=F64, requires_grad=True)
    out, wanted = torch.randn(B, N, D, dtype=F64), [x, *network.parameters()]
    assert_same(chunked(x), network(x))
    with torch.no_grad():
        assert_same(chunked(x), network(x))
    for mine, plain in zip(*(torch.autograd.grad((f(x) * out).sum(), wanted) for f in (chunked, network))):
        assert_same(mine, plain)


def test_only_what_treats_positions_by_themselves():
    mixing = nn.Softmax(1)
    x = torch.randn(B, N, D, dtype=F64)
    assert_differs(Chunked(mixing, 4)(x), mixing(x))


class Watched(nn.Module):
    """Passes on, and keeps count of how many positions of it autograd keeps at the same time."""

    def __init__(self):
        super().__init__()
        self.rows, self.alive, self.most = [], 0, 0

    def forward(self, x):
        self.rows.append(x.shape[1])
        return _Count.apply(x, self)


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, watched):
        ctx.watched, ctx.rows = watched, x.shape[1]
        if torch.is_grad_enabled() or x.requires_grad:
            watched.alive += ctx.rows
            watched.most = max(watched.most, watched.alive)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.watched.alive -= ctx.rows
        return gradient, None


def kept_widths(call):
    """Numbers that autograd keeps of each width after the forward pass."""
    widths = {}

    def pack(x):
        if not isinstance(x, nn.Parameter) and x.ndim == 3:
            widths[x.shape[-1]] = widths.get(x.shape[-1], 0) + x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        call()
    return widths


def test_wide_activations_are_not_kept():
    network, x = randomise(FeedForward(D, D_FF)), torch.randn(B, N, D, dtype=F64, requires_grad=True)
    assert kept_widths(lambda: network(x))[D_FF] >= B * N * D_FF
    assert kept_widths(lambda: torch.cat([network(part) for part in x.split(4, 1)], 1))[D_FF] >= B * N * D_FF  # Eq. 10
    assert D_FF not in kept_widths(lambda: Chunked(network, 4)(x))


def test_chunks_pass_one_by_one_forward_and_backward():
    network = randomise(FeedForward(D, D_FF))
    network.activation = watched = Watched()
    x = torch.randn(B, N, D, dtype=F64, requires_grad=True)
    with torch.no_grad():
        Chunked(network, 4)(x)
    assert watched.rows == [4, 4, 3]
    Chunked(network, 4)(x).sum().backward()
    assert watched.rows[3:] == [4, 4, 3, 3, 4, 4]  # again when the gradient is due, the last chunk first


def test_dropout_is_repeated():
    network = nn.Sequential(randomise(FeedForward(D, D_FF)), nn.Dropout(0.5))
    x = torch.randn(B, N, D, dtype=F64, requires_grad=True)
    y = Chunked(network, 4)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    dropped = (y == 0).all(-1)
    assert dropped.any()
    assert (gradient[dropped] == 0).all()
    assert (gradient[~dropped] != 0).any()


def test_errors():
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        Chunked(nn.ReLU(), 0)
