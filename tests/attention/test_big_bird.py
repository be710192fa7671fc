"""Gathered blocks against dense attention under the same mask, and against what must not change."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same
from papercode.attention.big_bird import BigBirdAttention
from papercode.attention.big_bird_pattern import BlockPattern, block_sparse_mask, random_blocks
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask

B, H, G, D, E, BLOCK = 2, 6, 3, 5, 7, 4  # heads of queries, of keys
F64 = torch.float64


def pattern(window=3, first=1, last=1, extra=0, n_random=2, seed=3):
    random = partial(random_blocks, n_random=n_random, seed=seed, window=window, first=first, last=last)
    return BlockPattern(BLOCK, window, first, last, extra, random)


def qkv(n, requires_grad=False):
    shapes = (B, H, n, D), (B, G, n, D), (B, G, n, E)
    return [torch.randn(s, dtype=F64, requires_grad=requires_grad) for s in shapes]


PATTERNS = {
    "itc": {},
    "etc": {"first": 0, "last": 0, "extra": 5, "n_random": 0},
    "both": {"first": 2, "last": 0, "extra": 3},
    "no globals": {"first": 0, "last": 0},
    "window of one": {"window": 1, "last": 2},
    "wide window": {"window": 7, "n_random": 1},
}
LENGTHS = [5, 12, 23, 41, 44]  # from fewer blocks than there are globals to many, multiples of the block and others


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("n", LENGTHS)
def test_equals_dense_attention_under_the_mask(name, n):
    chosen = pattern(**PATTERNS[name])
    mask, (q, k, v) = block_sparse_mask(chosen, n, H), qkv(n)
    expected = attention(q, k, v, mask=mask)
    assert_same(BigBirdAttention(chosen, at_once=3)(q, k, v), expected)
    if n > 23:
        assert_differs(attention(q, k, v), expected)
        others = torch.ones(H, 1, 1, dtype=torch.bool) & block_sparse_mask(pattern(**PATTERNS[name], seed=4), n, H)
        if not torch.equal(others, mask):
            assert_differs(attention(q, k, v, mask=others), expected)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    "more",
    [causal_mask, Band(9, 2), "padding", "padding band", "padding of one row for all"],
    ids=["causal", "band", "padding", "padding band", "one row"],
)
def test_masks_hold_besides_the_pattern(name, more):
    n, chosen = 41, pattern(**PATTERNS[name])
    keep = torch.arange(n) < torch.tensor([[n], [26]])
    mask = {
        "padding": keep[:, None, None],
        "padding band": Band(right=3, keep=keep),
        "padding of one row for all": keep[1:, None, None],
    }.get(more, more)
    both = mask if isinstance(mask, torch.Tensor) else mask(n, n, None)
    both = both & block_sparse_mask(chosen, n, H)
    q, k, v = qkv(n)
    ours = BigBirdAttention(chosen)(q, k, v, mask=mask)
    assert_same(ours, attention(q, k, v, mask=both))
    assert_differs(ours, BigBirdAttention(chosen)(q, k, v))


@pytest.mark.parametrize("name", ["itc", "both"])
def test_gradients_equal_those_of_dense_attention(name):
    n, chosen = 26, pattern(**PATTERNS[name])
    keep = (torch.arange(n) < torch.tensor([[n], [17]]))[:, None, None]
    inputs, others = qkv(n, requires_grad=True), qkv(n, requires_grad=True)
    for x, y in zip(inputs, others):
        y.data.copy_(x.data)
    weights = torch.randn(B, H, n, E, dtype=F64)
    BigBirdAttention(chosen)(*inputs, mask=keep).mul(weights).sum().backward()
    attention(*others, mask=keep & block_sparse_mask(chosen, n, H)).mul(weights).sum().backward()
    for x, y in zip(inputs, others):
        assert_same(x.grad, y.grad)
        assert_differs(x.grad, torch.zeros_like(x))


def test_padding_does_not_leak_however_large():
    n, (q, k, v) = 41, qkv(41)
    keep = torch.arange(n) < torch.tensor([[n], [26]])
    far_k, far_v = k.clone(), v.clone()
    far_k[1, :, 26:], far_v[1, :, 26:] = 1e9, -1e9
    layer = BigBirdAttention(pattern())
    assert torch.equal(layer(q, far_k, far_v, mask=keep[:, None, None]), layer(q, k, v, mask=keep[:, None, None]))


def test_a_query_without_keys_gets_zeros_and_sends_zeros_back():
    n, (q, k, v) = 26, qkv(26, requires_grad=True)
    keep = torch.arange(n) < torch.tensor([[n], [0]])
    y = BigBirdAttention(pattern())(q, k, v, mask=keep[:, None, None])
    y.square().sum().backward()
    assert (y[1] == 0).all()
    assert (y[0] != 0).all()
    assert all((x.grad[1] == 0).all() and x.grad.isfinite().all() for x in (q, k, v))


def test_a_key_that_is_drawn_twice_counts_once():
    q, k, v = qkv(41)

    def first_block(n_blocks, n_heads):
        return torch.zeros(n_heads, n_blocks, 3, dtype=torch.long)

    twice, never = (BlockPattern(BLOCK, random=random) for random in (first_block, None))
    assert_same(BigBirdAttention(twice)(q, k, v), BigBirdAttention(never)(q, k, v))


def test_a_window_of_blocks_sees_between_one_and_two_blocks_to_a_side():
    n = 41
    chosen = BlockPattern(BLOCK, first=0, last=0, random=None)
    seen = block_sparse_mask(chosen, n, 1)[0]
    reach = {(i - seen[i].nonzero().min()).item() for i in range(BLOCK, n)}
    assert reach == {4, 5, 6, 7}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_how_many_at_once_changes_nothing(at_once):
    q, k, v = qkv(41)
    assert_same(BigBirdAttention(pattern(), at_once=at_once)(q, k, v), BigBirdAttention(pattern())(q, k, v))


def test_scale_dropout_and_another_attend():
    (q, k, v), seen = qkv(41), []

    def watched(q, k, v, **kwargs):
        seen.append((q.shape[2], k.shape[2], kwargs["scale"], kwargs["dropout"]))
        return attention(q, k, v, **kwargs)

    layer = BigBirdAttention(pattern(), attend=watched)
    mask = block_sparse_mask(pattern(), 41, H)
    assert_same(layer(q, k, v, scale=0.7), attention(q, k, v, mask=mask, scale=0.7))
    assert_differs(layer(q, k, v), attention(q, k, v, mask=mask, scale=0.7))
    # 11 blocks: rows of the first, of nine in the middle, of the last, which holds one position; 7 blocks of keys
    assert seen[:5] == [(4, 41, 0.7, 0.0), (4, 28, 0.7, 0.0), (4, 28, 0.7, 0.0), (4, 28, 0.7, 0.0), (1, 41, 0.7, 0.0)]
    dropped = layer(q, k, v, dropout=0.5)
    assert {row[3] for row in seen[-5:]} == {0.5}
    assert_differs(dropped, layer(q, k, v))


def test_with_torchs_own_kernel():
    def fused(q, k, v, *, mask, scale, dropout):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout)

    q, k, v = qkv(41)
    assert_same(BigBirdAttention(pattern(), attend=fused)(q, k, v), BigBirdAttention(pattern())(q, k, v))


def test_the_pattern_stays_between_calls_and_modes():
    q, k, v = qkv(41)
    layer = BigBirdAttention(pattern())
    with torch.inference_mode():
        before = layer(q, k, v)
    q.requires_grad_()
    y = layer.eval()(q, k, v)
    y.sum().backward()
    assert_same(y.detach(), before)
    assert layer(*qkv(12)).shape == (B, H, 12, E)
    assert_same(layer.train()(q, k, v).detach(), before)
    for other in (pickle.loads(pickle.dumps(BigBirdAttention(pattern()))), copy.deepcopy(layer)):
        assert_same(other(q, k, v).detach(), before)


def test_in_multi_head_attention():
    x = torch.randn(B, 23, 12, dtype=F64)
    layer = MultiHeadAttention(12, 2, attend=BigBirdAttention(pattern())).double()
    dense = copy.deepcopy(layer)
    dense.attend = None
    del dense.attend
    dense.attend = attention
    keep = (torch.arange(23) < torch.tensor([[23], [9]]))[:, None, None]
    assert_same(layer(x, mask=keep), dense(x, mask=keep & block_sparse_mask(pattern(), 23, 2)))


def test_nothing_at_all():
    assert BigBirdAttention(pattern())(*qkv(0)).shape == (B, H, 0, E)


@pytest.mark.parametrize("backward", [False, True])
def test_no_tensor_has_n_times_n_entries(backward):
    """And work and the largest tensor grow linearly: counted."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.most = max(self.most, result.numel())
            return result

    def measured(n):
        chosen = BlockPattern(8)
        q, k, v = (torch.randn(1, 1, n, 4, requires_grad=backward) for _ in range(3))
        with Largest() as largest, FlopCounterMode(display=False) as counter:
            y = BigBirdAttention(chosen)(q, k, v)
            if backward:
                y.sum().backward()
        return largest.most, counter.get_total_flops()

    (small, work), (twice, more), (four, most) = (measured(n) for n in (512, 1024, 2048))
    assert four < 2048 * 2048 / 16
    assert twice <= 2 * small
    assert four <= 2 * twice
    assert most - more == 2 * (more - work)


def test_errors():
    q, k, v = qkv(12)
    layer = BigBirdAttention(pattern())
    with pytest.raises(ValueError, match="at_once=0 must be at least 1"):
        BigBirdAttention(at_once=0)
    with pytest.raises(ValueError, match="q has 5 positions, but k has 12: the pattern is for self-attention"):
        layer(q[:, :, :5], k, v)
    cache = KVCache(layer)
    cache(q, k, v)
    with pytest.raises(ValueError, match="q has 1 positions, but k has 13"):
        cache(q[:, :, :1], k[:, :, :1], v[:, :, :1])
    with pytest.raises(ValueError, match="bias has a number for each pair of positions"):
        layer(q, k, v, bias=torch.zeros(12, 12, dtype=F64))
    with pytest.raises(ValueError, match=r"mask of shape \(12, 12\) means n times n truth values, .* as a Band"):
        layer(q, k, v, mask=torch.ones(12, 12, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask must be bool"):
        layer(q, k, v, mask=torch.ones(B, 1, 1, 12))
    with pytest.raises(ValueError, match="keep is for 11 keys, but there are 12"):
        layer(q, k, v, mask=Band(keep=torch.ones(B, 11, dtype=torch.bool)))
    with pytest.raises(ValueError, match="n=2 positions must be at least extra=5"):
        BigBirdAttention(pattern(extra=5))(*qkv(2))
