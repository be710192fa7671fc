"""Reversible layers: back to the input, gradients of plain autograd, and what is kept in between."""

import copy

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.lsh_attention import LSHAttention
from papercode.attention.masks import Band
from papercode.attention.reversible import ReversibleBlock, ReversibleSequence
from papercode.attention.shared_qk import SharedQKAttention
from papercode.attention.transformer import FeedForward, causal_mask

B, N, D = 2, 11, 6
F64 = torch.float64


class Attention(nn.Module):
    def __init__(self, dropout=0.0, **settings):
        super().__init__()
        self.norm, self.dropout = LayerNorm(D), nn.Dropout(dropout)
        self.attention = SharedQKAttention(D, 2, attend=LSHAttention(2, 4, n_buckets=4, **settings))

    def forward(self, x, **kwargs):
        return self.dropout(self.attention(self.norm(x), **kwargs))


def sequence(depth=3, dropout=0.0, **settings):
    return randomise(
        ReversibleSequence(
            ReversibleBlock(
                Attention(dropout, **settings), nn.Sequential(LayerNorm(D), FeedForward(D, 13), nn.Dropout(dropout))
            )
            for _ in range(depth)
        )
    )


def streams(requires_grad=True):
    return [torch.randn(B, N, D, dtype=F64, requires_grad=requires_grad) for _ in range(2)]


def test_by_hand():
    """F doubles, G adds one: (3, 5) -> (3 + 10, 5 + 14) = (13, 19)."""

    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    class Increment(nn.Module):
        def forward(self, x):
            return x + 1

    block = ReversibleBlock(Double(), Increment())
    y1, y2 = block(torch.tensor([3.0]), torch.tensor([5.0]))
    assert (y1.item(), y2.item()) == (13, 19)
    assert [x.item() for x in block.inverse(y1, y2)] == [3, 5]


def test_inverse_gives_the_input_back():
    block = sequence(1, seed=0).blocks[0]
    x1, x2 = streams()
    y = block(x1, x2, mask=causal_mask)
    for ours, given in zip(block.inverse(*y, mask=causal_mask), (x1, x2)):
        assert_same(ours, given, 1e-13)
    assert_differs(block.inverse(*y)[0], x1)  # without the mask it is another function


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("seed", [None, 0])
def test_the_whole_sequence_backwards_also_where_it_is_random(dropout, seed):
    ours, (x1, x2) = sequence(4, dropout, seed=seed).train(), streams()
    y1, y2 = ours.run(x1, x2, 42, mask=causal_mask)
    for back, given in zip(ours.inverse(y1, y2, 42, mask=causal_mask), (x1, x2)):
        assert_same(back, given, 1e-11)
    if dropout or seed is None:
        assert_differs(ours.inverse(y1, y2, 43, mask=causal_mask)[0], x1)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("mask", [None, causal_mask, Band(3, 0)], ids=repr)
def test_gradients_are_those_of_plain_autograd(monkeypatch, dropout, mask):
    ours = sequence(3, dropout).train()
    x1, x2 = streams()
    wanted, out = [x1, x2, *ours.parameters()], [torch.randn(B, N, D, dtype=F64) for _ in range(2)]

    def gradients(call):
        y = call()
        return torch.autograd.grad(sum((a * b).sum() for a, b in zip(y, out)), wanted)

    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor(42))
    mine = gradients(lambda: ours(x1, x2, mask=mask))
    plain = gradients(lambda: ours.run(x1, x2, 42, mask=mask))
    assert all((g != 0).any() for g in mine)
    for a, b in zip(mine, plain):
        assert_same(a, b)
    if dropout:
        other = gradients(lambda: ours.run(x1, x2, 43, mask=mask))
        assert_differs(mine[0], other[0])


def test_gradcheck():
    parts = [nn.Sequential(nn.Linear(2, 2), nn.Tanh()) for _ in range(4)]
    ours = randomise(ReversibleSequence([ReversibleBlock(*parts[:2]), ReversibleBlock(*parts[2:])]))
    x1, x2 = (torch.randn(3, 2, dtype=F64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b, *_: ours(a, b), (x1, x2, *ours.parameters()))


def test_one_output_is_enough():
    ours, (x1, x2) = sequence(2, seed=0), streams()
    a = torch.autograd.grad(ours(x1, x2)[0].sum(), [x1, x2])
    b = torch.autograd.grad(ours.run(x1, x2, 0)[0].sum(), [x1, x2])
    for mine, plain in zip(a, b):
        assert_same(mine, plain)


def test_a_stream_may_be_used_twice():
    ours, (x1, _) = sequence(2, seed=0), streams()
    a = torch.autograd.grad(sum(ours(x1, x1)).sum(), x1)
    b = torch.autograd.grad(sum(ours.run(x1, x1, 0)).sum(), x1)
    assert_same(a[0], b[0])


def test_shared_and_frozen_parameters():
    ours = sequence(3, seed=0)
    ours.blocks[2] = ours.blocks[0]
    ours.blocks[1].g.requires_grad_(False)
    x1, x2 = streams()
    wanted = [p for p in ours.parameters() if p.requires_grad]
    a = torch.autograd.grad(sum(ours(x1, x2)).sum(), wanted)
    b = torch.autograd.grad(sum(ours.run(x1, x2, 0)).sum(), wanted)
    for mine, plain in zip(a, b):
        assert_same(mine, plain)
    loss = sum(ours(x1.detach(), x2.detach())).sum()  # inputs that want no gradient
    assert_same(torch.autograd.grad(loss, wanted)[0], a[0])


def test_the_generator_moves_on_by_one_draw_and_no_more():
    ours, (x1, x2) = sequence(3, 0.5).train(), streams()
    torch.manual_seed(1)
    torch.randint(2**62, ())
    expected = torch.rand(3)
    torch.manual_seed(1)
    y = ours(x1, x2)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    sum(y).sum().backward()
    assert torch.equal(torch.rand(3), expected)


def test_without_gradients_it_computes_the_same():
    ours, (x1, x2) = sequence(3, seed=0), streams()
    with torch.no_grad():
        without = ours(x1, x2)
    for a, b in zip(without, ours(x1, x2)):
        assert_same(a, b)
        assert b.requires_grad
        assert not a.requires_grad


def kept(call):
    """Bytes of the tensors that autograd keeps for the backward pass, each once."""
    storages = {}

    def pack(x):
        if not isinstance(x, nn.Parameter):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = call()
    del y
    return sum(storages.values())


def test_what_is_kept_does_not_depend_on_the_depth():
    x1, x2 = streams()
    models = {depth: sequence(depth, 0.1).train() for depth in (1, 2, 8)}
    reversible = {depth: kept(lambda m=m: m(x1, x2, mask=causal_mask)) for depth, m in models.items()}
    plain = {depth: kept(lambda m=m: m.run(x1, x2, 0, mask=causal_mask)) for depth, m in models.items()}
    assert set(reversible.values()) == {2 * B * N * D * 8}  # y1 and y2
    assert plain[8] > 6 * plain[1] > 6 * reversible[1]


def test_there_are_no_second_derivatives():
    ours, (x1, x2) = sequence(1, seed=0), streams()
    (g,) = torch.autograd.grad(sum(ours(x1, x2)).sum(), x1, create_graph=True)
    assert not g.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        g.sum().backward()


def test_autocast_is_repeated():
    ours = sequence(2, seed=0).float()
    x1, x2 = (x.detach().float().requires_grad_() for x in streams())

    def gradient(call):
        with torch.autocast("cpu", torch.bfloat16):
            y = sum(call()).sum()
        return torch.autograd.grad(y, ours.blocks[1].g[1].expand.weight)[0]

    assert_same(gradient(lambda: ours(x1, x2)), gradient(lambda: ours.run(x1, x2, 0)), 1e-3)


def test_copies():
    ours, (x1, x2) = sequence(2, seed=0), streams()
    for a, b in zip(copy.deepcopy(ours)(x1, x2), ours(x1, x2)):
        assert torch.equal(a, b)


def test_errors():
    ours, (x1, x2) = sequence(1), streams()
    with pytest.raises(ValueError, match="bias requires a gradient, but a reversible sequence gives none"):
        ours(x1, x2, bias=torch.zeros(N, N, dtype=F64, requires_grad=True))
