"""Linear attention with turned features, sum by sum as in Eq. 19; and the bound of section 3.4.3 against scores."""

import itertools
import math
from functools import partial

import pytest
import torch

import papercode.attention.rope_linear as rope_linear
from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.rope import rotate, turns
from papercode.attention.rope_linear import decay_bound, linear_rotary, positive
from papercode.attention.transformer import MultiHeadAttention, causal_mask
from papercode.attention.wrapping import wrapped

B, H, G, D, E = 2, 6, 3, 10, 11


def qkv(n, m):
    shapes = (B, H, n, D), (B, G, m, D), (B, G, m, E)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


def by_sums(q, k, v, mask, feature=positive, base=10000.0, below=lambda q, k, i, j: (q * k).sum(-1)):
    """Eq. 19 term by term: turned features above, plain ones below."""
    n, m = q.shape[2], k.shape[2]
    q, k = feature(q), feature(k)
    out = torch.zeros(B, H, n, E, dtype=torch.float64)
    for h, i in itertools.product(range(H), range(n)):
        total, norm = torch.zeros(B, E).double(), torch.zeros(B, 1).double()
        for j in range(m):
            turned_q = rotate(q[:, h, i], *turns(torch.tensor(m - n + i), D, base))
            turned_k = rotate(k[:, h // 2, j], *turns(torch.tensor(j), D, base))
            seen = mask[:, i, j, None]
            total += seen * (turned_q * turned_k).sum(-1, keepdim=True) * v[:, h // 2, j]
            norm += seen * below(q[:, h, i], k[:, h // 2, j], m - n + i, j)[:, None]
        out[:, h, i] = total / torch.where(norm == 0, 1, norm)
    return out


def test_by_hand():
    """One pair of features, elu(0) + 1 = 1 each. At distance 0 q k is 2; a token away it is 2 cos 1 above, 2 below."""
    q, v = torch.zeros(1, 1, 1, 2).double(), torch.tensor([[[[10.0], [20.0]]]]).double()
    k = torch.zeros(1, 1, 2, 2).double()
    expected = (2 * math.cos(1) * 10 + 2 * 20) / 4
    assert linear_rotary(q, k, v).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 5), (7, 7), (1, 5)])
@pytest.mark.parametrize("block", [2, 64])
def test_the_sums_of_eq_19(n, m, block, monkeypatch, parity):
    monkeypatch.setattr(rope_linear, "BLOCK", block)
    q, k, v = qkv(n, m)
    keep = torch.tensor([[True] * m, [False] + [True] * (m - 1)])
    mine, theirs = [], []
    for band in (Band(), Band(right=0), Band(keep=keep), Band(right=0, keep=keep)):
        mask = band(n, m).expand(B, 1, n, m)[:, 0]
        ours = linear_rotary(q, k, v, mask=band)
        mine.append(ours)
        theirs.append(by_sums(q, k, v, mask))
        other = Band() if band.right == 0 and n > 1 else Band(keep=~keep)
        assert_differs(ours, by_sums(q, k, v, other(n, m).expand(B, 1, n, m)[:, 0]))
    parity("linear RoPE", "the equations, with loops", f"n={n}, m={m}, blocks of {block}", mine, theirs)
    assert_same(linear_rotary(q, k, v, mask=causal_mask), linear_rotary(q, k, v, mask=Band(right=0)))
    assert_same(linear_rotary(q, k, v, mask=keep[:, None, None]), linear_rotary(q, k, v, mask=Band(keep=keep)))


def test_a_window_that_cuts_nothing_is_none():
    q, k, v = qkv(5, 7)
    assert_same(linear_rotary(q, k, v, mask=Band(6, 0)), linear_rotary(q, k, v, mask=causal_mask))
    assert_same(linear_rotary(q, k, v, mask=Band(9, 4)), linear_rotary(q, k, v))
    with pytest.raises(ValueError, match="must be None, causal or padding"):
        linear_rotary(q, k, v, mask=Band(5, 0))


def test_features_and_base_may_be_others():
    q, k, v = qkv(5, 5)
    mask = torch.ones(B, 5, 5, dtype=torch.bool)
    ours = linear_rotary(q, k, v, feature=torch.exp, base=7.0)
    assert_same(ours, by_sums(q, k, v, mask, torch.exp, 7.0))
    assert_differs(ours, by_sums(q, k, v, mask, torch.exp))
    assert_differs(ours, by_sums(q, k, v, mask, positive, 7.0))
    order = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])
    assert_same(linear_rotary(q[..., order], k[..., order], v, halves=True), linear_rotary(q, k, v))
    assert_differs(linear_rotary(q, k, v, halves=True), linear_rotary(q, k, v))


def test_features_are_positive():
    x = torch.tensor([-2.0, 0.0, 3.0]).double()
    assert_same(positive(x), torch.tensor([math.exp(-2.0), 1, 4.0], dtype=torch.float64))


def test_turned_features_must_not_stand_below():
    """Their sum can be near zero, or negative, and the output anything."""
    q, k, v = qkv(7, 7)
    mask = causal_mask(7).expand(B, 7, 7)

    def turned(q, k, i, j):
        return (rotate(q, *turns(torch.tensor(i), D)) * rotate(k, *turns(torch.tensor(j), D))).sum(-1)

    ours = linear_rotary(q, k, v, mask=causal_mask)
    assert_same(ours, by_sums(q, k, v, mask))
    assert_differs(ours, by_sums(q, k, v, mask, below=turned))
    weights = linear_rotary(q, k, torch.ones_like(v), mask=causal_mask)  # the price: weights that do not sum to one
    assert_same(weights[:, :, 0], torch.ones_like(weights[:, :, 0]))
    assert_differs(weights, torch.ones_like(weights), by=0.1)


def test_only_distances_count():
    q, k, v = qkv(5, 5)
    late = torch.zeros(B, G, 9, D).double(), torch.zeros(B, G, 9, E).double()
    keep = torch.arange(14) >= 9
    shifted = linear_rotary(
        q, torch.cat([late[0], k], 2), torch.cat([late[1], v], 2), mask=Band(right=0, keep=keep.expand(B, 14))
    )
    assert_same(shifted, linear_rotary(q, k, v, mask=causal_mask))


def test_rows_without_keys_are_zero():
    q, k, v = (x.requires_grad_() for x in qkv(5, 3))
    out = linear_rotary(q, k, v, mask=causal_mask)
    assert torch.equal(out[:, :, :2], torch.zeros_like(out[:, :, :2]))  # these stand before the first key
    out.sum().backward()
    assert torch.equal(q.grad[:, :, :2], torch.zeros_like(q.grad[:, :, :2]))
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    nothing = linear_rotary(q, k[:, :, :0], v[:, :, :0], mask=causal_mask)
    assert torch.equal(nothing, torch.zeros_like(nothing))
    nobody = linear_rotary(q, k, v, mask=Band(keep=torch.zeros(B, 3, dtype=torch.bool)))
    assert torch.equal(nobody, torch.zeros_like(nobody))


def test_causal(monkeypatch):
    monkeypatch.setattr(rope_linear, "BLOCK", 3)
    layer, x = randomise(MultiHeadAttention(H * D, H, attend=linear_rotary)), torch.randn(B, 7, H * D).double()
    changed = x.clone()
    changed[:, 4] += 1
    early = torch.arange(7).expand(B, 7) < 4
    assert not leaks(lambda x: layer(x, mask=causal_mask), x, changed, early)
    assert leaks(layer, x, changed, early)
    whole = layer(x, mask=causal_mask)
    with torch.no_grad(), wrapped(layer, KVCache):
        steps = [layer(x[:, a:b], mask=causal_mask) for a, b in ((0, 3), (3, 4), (4, 7))]
    assert_same(torch.cat(steps, 1), whole)


def test_gradients(monkeypatch):
    monkeypatch.setattr(rope_linear, "BLOCK", 2)
    q, k, v = (x[:1, ..., :4].clone().requires_grad_() for x in qkv(3, 5))
    for mask in (None, causal_mask):
        assert torch.autograd.gradcheck(partial(linear_rotary, mask=mask), (q, k, v))


def test_errors():
    q, k, v = qkv(5, 7)
    for mask in (Band(left=2), Band(right=1), torch.ones(5, 7, dtype=torch.bool)):
        with pytest.raises(ValueError, match="must be None, causal or padding"):
            linear_rotary(q, k, v, mask=mask)
    for name, value in (("bias", torch.zeros(1)), ("scale", 2.0), ("dropout", 0.5)):
        with pytest.raises(ValueError, match=f"{name}=.* has no meaning in linear attention"):
            linear_rotary(q, k, v, **{name: value})
    with pytest.raises(ValueError, match="d=9 must be even"):
        linear_rotary(q[..., :9], k[..., :9], v)
    with pytest.raises(ValueError, match="no multiple of the 4 heads"):
        linear_rotary(q, torch.randn(B, 4, 7, D).double(), torch.randn(B, 4, 7, E).double())


# the bound


def test_bound_by_hand_and_by_sums():
    assert decay_bound(torch.tensor([0]), 64).item() == 16.5  # |S_j| = j, the mean of 1 to 32
    distances = torch.tensor([0, 1, 10, 77])
    expected = []
    for s in distances.tolist():
        terms = [complex(math.cos(s * t), math.sin(s * t)) for t in (10000 ** (-2 * i / D) for i in range(D // 2))]
        expected.append(sum(abs(sum(terms[: j + 1])) for j in range(D // 2)) / (D // 2))
    assert_same(decay_bound(distances, D), torch.tensor(expected, dtype=torch.float64), 1e-12)
    assert_differs(decay_bound(distances, D, 100.0), decay_bound(distances, D))


def test_scores_stay_within_the_bound():
    """|q R_s k| <= max |h_{i+1} - h_i| * sum |S_j| for any q and k, at any distance; half of it does not hold."""
    distances = torch.arange(300)
    bound, widest = decay_bound(distances, D) * D / 2, 0.0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        q, k = torch.randn(2, D, generator=generator, dtype=torch.float64)
        if seed == 0:
            q, k = torch.ones(2, D, dtype=torch.float64)
        pairs = (torch.view_as_complex(x.view(-1, 2)) for x in (q, k))
        h = next(pairs) * next(pairs).conj()
        steps = torch.diff(torch.cat([h, torch.zeros(1, dtype=h.dtype)])).abs().max()
        scores = (rotate(q.expand(300, D), *turns(distances, D)) * k).sum(-1).abs()
        assert (scores <= steps * bound + 1e-9).all()
        widest = max(widest, (scores / (steps * bound)).max().item())
    assert widest > 0.3


def test_the_bound_falls_but_not_always():
    curve = decay_bound(torch.arange(257), 64)
    assert curve[0] > 2 * curve[100:].max() - 1e-9
    assert curve[50] < curve[100]
    assert (curve.diff() > 0).any()
