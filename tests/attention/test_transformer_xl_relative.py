"""Attention by content and distance: against XLNet's, in loops over the four terms, and by what must not change."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import XLNetConfig
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from helpers import assert_differs, assert_same, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.masks import Band
from papercode.attention.relative_position import RelativePosition
from papercode.attention.sinusoids import positions
from papercode.attention.transformer import MultiHeadAttention, PostNorm, attention, causal_mask
from papercode.attention.transformer_xl_relative import RelativePositions, relative_shift
from papercode.attention.wrapping import wrapped

B, H, N, M, D, E, D_MODEL = 2, 3, 5, 7, 11, 13, 22
F64 = torch.float64


def relative(n_heads=H, d_k=D, **kwargs):
    return randomise(RelativePositions(D_MODEL, n_heads, d_k, **kwargs))


def qkv(n=N, m=M, heads=H, groups=H):
    shapes = (B, heads, n, D), (B, groups, m, D), (B, groups, m, E)
    return [torch.randn(s, dtype=F64) for s in shapes]


def wave(distance):
    """R of one distance, from the sines and cosines that define it."""
    angles = [distance * 10000 ** (-2 * i / D_MODEL) for i in range(D_MODEL // 2)]
    return torch.tensor([f(a) for a in angles for f in (math.sin, math.cos)], dtype=F64)


def four_terms(module, q, k, scale=D**-0.5, clamp=None):
    """The scores of section 3.3 in loops, with R as it is defined."""
    n, m = q.shape[2], k.shape[2]
    scores = torch.zeros(B, H, n, m, dtype=F64)
    for b in range(B):
        for h in range(H):
            u, v, w = module.u[h], module.v[h], module.r.weight[h * D : (h + 1) * D]
            for i in range(n):
                for j in range(m):
                    distance = m - n + i - j
                    if clamp is not None:
                        distance = max(-clamp, min(clamp, distance))
                    key, place = k[b, h, j], w @ wave(distance)
                    scores[b, h, i, j] = (q[b, h, i] @ key + q[b, h, i] @ place + u @ key + v @ place) * scale
    return scores


# the shift


@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 7), (1, 7), (5, 5), (1, 1), (7, 3)])
@pytest.mark.parametrize("ahead", [True, False])
def test_the_shift_equals_loops(n, m, ahead):
    t = m + n - 1 if ahead else m
    x = torch.randn(B, H, n, t)
    y = relative_shift(x, m)
    assert y.shape == (B, H, n, m)
    for i in range(n):
        for j in range(m):
            distance = m - n + i - j
            if ahead or distance >= 0:
                assert torch.equal(y[..., i, j], x[..., i, m - 1 - distance])


def test_the_shift_by_hand():
    """Three keys, the last two of them queries: the row of query 0 moves left by one."""
    x = torch.tensor([[12.0, 11.0, 10.0], [22.0, 21.0, 20.0]])  # tens: query, units: distance
    assert relative_shift(x, 3).tril(1).tolist() == [[11.0, 10.0, 0.0], [22.0, 21.0, 20.0]]
    both_ways = torch.tensor([[12.0, 11.0, 10.0, -11.0], [22.0, 21.0, 20.0, -21.0]])
    assert relative_shift(both_ways, 3).tolist() == [[11.0, 10.0, -11.0], [22.0, 21.0, 20.0]]


def test_the_shift_needs_a_column_for_each_distance():
    with pytest.raises(ValueError, match="x has 4 distances, less than the m=5 keys"):
        relative_shift(torch.randn(3, 4), 5)


def test_gradients_of_the_shift():
    x = torch.randn(3, 5, dtype=F64, requires_grad=True)
    seen = torch.tril(torch.ones(3, 5, dtype=F64), 2)
    assert torch.autograd.gradcheck(lambda x: relative_shift(x, 5) * seen, x)


# the four terms


@pytest.mark.parametrize(("n", "m"), [(N, M), (M, M), (1, M), (M, N)])
@pytest.mark.parametrize("mask", [None, causal_mask, Band(2, 0), Band(2, 1), Band(0, None)], ids=str)
def test_equals_loops_over_the_four_terms(n, m, mask, parity):
    module, (q, k, v) = relative(), qkv(n, m)
    seen = torch.ones(n, m, dtype=torch.bool) if mask is None else mask(n, m)
    scores = four_terms(module, q, k)
    expected = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).nan_to_num()
    name = {None: "no mask", causal_mask: "causal"}.get(mask) or f"{mask.left} back, {mask.right} ahead"
    configuration = f"n={n}, m={m}, {name}"
    parity("Transformer-XL", "the equations, with loops", configuration, module(q, k, v, mask=mask), expected)
    assert_same(module(q, k, v, mask=seen), expected)


@pytest.mark.parametrize("term", ["u", "v", "r"])
def test_every_term_counts(term):
    module, (q, k, v) = relative(), qkv()
    before = module(q, k, v, mask=causal_mask)
    dict(module.named_parameters())["r.weight" if term == "r" else term].data.zero_()
    assert_differs(module(q, k, v, mask=causal_mask), before)


def test_without_u_v_and_r_it_is_plain_attention():
    module, (q, k, v) = relative(), qkv()
    for parameter in module.parameters():
        parameter.data.zero_()
    assert_same(module(q, k, v, mask=causal_mask), attention(q, k, v, mask=causal_mask))


def test_without_u_and_v_it_is_shaws_with_a_table_of_all_distances():
    """Shaw et al. have terms (a) and (b); their table would be W R."""
    module, (q, k, v) = relative(), qkv(M, M)
    shaw = RelativePosition(D, M - 1, n_heads=H, values=False).double()
    shaw.keys.data = module.keys(q, k).mT.detach()  # distances from M - 1 to 1 - M are j - i from 1 - M to M - 1
    assert_differs(module(q, k, v), shaw(q, k, v))
    module.u.data.zero_(), module.v.data.zero_()
    assert_same(module(q, k, v), shaw(q, k, v))
    assert_same(module(q, k, v, mask=causal_mask), shaw(q, k, v, mask=causal_mask))


def test_a_bias_of_another_float_type_does_not_change_the_type():
    module, (q, k, v) = relative().float(), (t.float() for t in qkv())
    seen = {}

    def spy(q, k, v, **kwargs):
        seen.update(kwargs)
        return attention(q, k, v, **kwargs)

    module.attend = spy
    assert module(q, k, v, bias=torch.randn(N, M, dtype=F64)).dtype == seen["bias"].dtype == torch.float32


def test_a_bias_and_a_scale_of_ones_own():
    module, (q, k, v), bias = relative(), qkv(), torch.randn(H, 1, M, dtype=F64)
    expected = (four_terms(module, q, k, scale=0.7) + bias).softmax(-1) @ v
    assert_same(module(q, k, v, scale=0.7, bias=bias), expected)
    assert_differs(module(q, k, v, scale=0.7), expected)
    assert_differs(module(q, k, v, bias=bias), expected)


def test_the_scores_are_scaled_by_the_root_of_the_width():
    """A difference from the paper."""
    module, (q, k, v) = relative(), qkv()
    assert_same(module(q, k, v), four_terms(module, q, k, scale=D**-0.5).softmax(-1) @ v)
    assert_differs(module(q, k, v), four_terms(module, q, k, scale=1.0).softmax(-1) @ v)


def test_each_head_has_its_own_biases():
    """A difference from the paper."""
    module = relative()
    assert module.u.shape == module.v.shape == (H, D)
    q, k, v = qkv()
    before = module(q, k, v)
    module.u.data[1] += 1
    module.v.data[1] -= 1
    after = module(q, k, v)
    assert_same(after[:, [0, 2]], before[:, [0, 2]])
    assert_differs(after[:, 1], before[:, 1])


@pytest.mark.parametrize("clamp", [0, 2, 100])
def test_beyond_the_clamp_all_distances_are_one(clamp):
    module, (q, k, v) = relative(clamp=clamp), qkv()
    expected = four_terms(module, q, k, clamp=clamp).softmax(-1) @ v
    assert_same(module(q, k, v), expected)
    causal = four_terms(module, q, k, clamp=clamp).masked_fill(~causal_mask(N, M), -torch.inf).softmax(-1) @ v
    assert_same(module(q, k, v, mask=causal_mask), causal)
    if clamp < M:
        module.clamp = None
        assert_differs(module(q, k, v), expected)


def test_only_the_distance_matters():
    """Moved as a whole, deeper into the past, a text looks the same: that is why states may be reused."""
    module = relative()
    q, k, v = qkv(n=3, m=9)
    window = Band(2, 0)
    late = module(q, k, v, mask=window)
    early = module(q, k[:, :, 4:], v[:, :, 4:], mask=window)
    assert_same(late, early)
    k.data[:, :, -2] += 1
    assert_differs(module(q, k, v, mask=window), early)


def test_grouped_heads():
    module, (q, k, v) = relative(n_heads=6), qkv(heads=6, groups=2)
    full = module(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1))
    assert_same(module(q, k, v), full)


# against XLNet, which has this attention; with and without memory, with and without a mask


@pytest.mark.parametrize("memory", [0, 7])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_xlnet(memory, causal, parity):
    heads, d_model = 2, 22
    config = XLNetConfig(d_model=d_model, n_head=heads, d_inner=17, dropout=0.0, layer_norm_eps=1e-5)
    theirs = randomise(XLNetRelativeAttention(config)).eval()
    ours, norm = from_xlnet(theirs, heads, d_model)
    h = torch.randn(N, B, d_model, dtype=F64)
    past = torch.randn(memory, B, d_model, dtype=F64) if memory else None
    total = N + memory
    angles = torch.arange(total, -N, -1.0, dtype=F64)[:, None] * 10000.0 ** (
        -torch.arange(0, d_model, 2, dtype=F64) / d_model
    )
    r = torch.cat([angles.sin(), angles.cos()], -1)[:, None].expand(-1, B, -1)
    hidden = (~causal_mask(N, total)).double()[:, :, None, None] if causal else None
    expected = theirs(h, None, hidden, None, r, None, mems=past)[0].transpose(0, 1)
    x = h.transpose(0, 1)
    extended = x if past is None else torch.cat([past, h]).transpose(0, 1)
    mask = causal_mask if causal else None
    y = norm(x, lambda x: ours(x, extended, mask=mask))
    configuration = f"memory of {memory}, {'causal' if causal else 'both ways'}"
    parity("Transformer-XL", "transformers' XLNetRelativeAttention", configuration, y, expected)
    assert_differs(norm(x, lambda x: ours(x, extended, mask=None if causal else causal_mask)), expected)
    ours.attend.u.data, ours.attend.v.data = ours.attend.v.data, ours.attend.u.data
    assert_differs(norm(x, lambda x: ours(x, extended, mask=mask)), expected)


def from_xlnet(theirs, heads, d_model):
    d_k = d_model // heads
    ours = MultiHeadAttention(d_model, heads, bias=False, attend=RelativePositions(d_model, heads, d_k)).double()
    for name in "qkv":
        getattr(ours, name).weight.data = getattr(theirs, name).flatten(1).T
    ours.o.weight.data = theirs.o.flatten(1)
    relative = ours.attend
    relative.u.data, relative.v.data = theirs.r_w_bias.data, theirs.r_r_bias.data
    halves = theirs.r.flatten(1).T  # XLNet has all sines before all cosines; here each sine is beside its cosine
    relative.r.weight.data = torch.stack(halves.chunk(2, -1), -1).flatten(1)
    norm = PostNorm(LayerNorm(d_model, eps=theirs.layer_norm.eps)).double()
    norm.norm.gain.data, norm.norm.bias.data = theirs.layer_norm.weight.data, theirs.layer_norm.bias.data
    return ours, norm


# as an attend among others


def test_keys_in_a_cache():
    layer = randomise(MultiHeadAttention(D_MODEL, 2, bias=False, attend=RelativePositions(D_MODEL, 2, 11)))
    x = torch.randn(B, M, D_MODEL, dtype=F64)
    whole = layer(x, mask=causal_mask)
    with wrapped(layer, KVCache):
        steps = [layer(piece, mask=causal_mask) for piece in x.split([1, 3, 2, 1], 1)]
    assert_same(torch.cat(steps, 1), whole)


def test_any_attend_that_takes_a_bias():
    def backend(q, k, v, *, mask, bias, scale, dropout):
        both = bias.masked_fill(~mask(q.shape[2], k.shape[2]), -torch.inf)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=both, scale=scale, dropout_p=dropout)

    q, k, v = qkv()
    assert_same(relative(attend=backend)(q, k, v, mask=causal_mask), relative()(q, k, v, mask=causal_mask))


def test_no_dropout_is_lost():
    seen = {}

    def spy(q, k, v, **kwargs):
        seen.update(kwargs)
        return attention(q, k, v, **{**kwargs, "dropout": 0.0})

    relative(attend=spy)(*qkv(), dropout=0.25)
    assert seen["dropout"] == 0.25


class Sizes(TorchDispatchMode):
    """Keeps the number of elements of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.made += [
            t.numel() for t in (result if isinstance(result, tuple | list) else [result]) if hasattr(t, "numel")
        ]
        return result


def test_nothing_is_made_for_each_pair_but_scores():
    """Appendix B: W R is computed once a distance. A tensor (h n m d) or (n m d) would be far larger than any here."""
    n, m = 31, 47
    module, (q, k, v) = relative(), qkv(n, m)
    with Sizes() as sizes:
        module(q, k, v, mask=causal_mask)
    assert max(sizes.made) <= B * H * n * (m + 1)
    assert n * m * D > B * H * n * (m + 1)
    with Sizes() as sizes:
        module(q, k, v)
    assert max(sizes.made) <= B * H * n * (m + n)


def test_a_causal_mask_needs_no_distances_ahead():
    module, (q, k, _) = relative(), qkv()
    assert module.keys(q, k, causal_mask).shape == module.keys(q, k, Band(3, 0)).shape == (H, D, M)
    assert module.keys(q, k).shape == module.keys(q, k, torch.ones(N, M, dtype=torch.bool)).shape == (H, D, M + N - 1)
    assert module.keys(q, k, Band(right=2)).shape == (H, D, M + 2)
    ahead = module.keys(q, k)[0, :, M]  # the first column behind distance 0
    assert_same(ahead, module.r.weight[:D] @ positions(1, D_MODEL, -1)[0])
    assert_differs(ahead, module.r.weight[:D] @ positions(1, D_MODEL, 1)[0])


def test_gradients():
    module = relative()
    inputs = [t.requires_grad_() for t in qkv(3, 4)]
    assert torch.autograd.gradcheck(lambda *t: module(*t, mask=causal_mask), inputs)
    module(*qkv(), mask=causal_mask).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_the_biases_start_small():
    module = RelativePositions(D_MODEL, 53, 59)
    for bias in (module.u, module.v):
        assert bias.std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(module.u, module.v)


def test_copies_and_pickles():
    module, (q, k, v) = relative(clamp=3), qkv()
    expected = module(q, k, v)
    assert torch.equal(copy.deepcopy(module)(q, k, v), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(q, k, v), expected)


def test_wrong_arguments():
    q, k, v = qkv()
    with pytest.raises(ValueError, match=r"q has \(heads, width\) \(3, 11\), but u and v have \(4, 11\)"):
        relative(n_heads=4)(q, k, v)
    with pytest.raises(ValueError, match=r"clamp=-1 must be at least 0, or None"):
        relative(clamp=-1)
    with pytest.raises(TypeError, match="mask must be bool"):
        relative()(q, k, v, mask=torch.zeros(N, M))
    with pytest.raises(ValueError, match=r"bias of shape \(2, 7\) does not broadcast to the scores"):
        relative()(q, k, v, bias=torch.zeros(2, M))
    with pytest.raises(ValueError, match="d=7 must be even"):
        RelativePositions(7, 1, 7)(*(torch.randn(1, 1, 3, 7) for _ in range(3)))
