"""Relative positions against loops, three models of transformers, in their limits, and by what must not change."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import SeamlessM4Tv2Config, VitsConfig, Wav2Vec2BertConfig
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2ConformerSelfAttention
from transformers.models.vits.modeling_vits import VitsAttention
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

import papercode
from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.kv_cache import KVCache, cached_steps
from papercode.attention.masks import Band
from papercode.attention.relative_position import (
    RelativePosition,
    RelativeTransformer,
    clipped_distances,
    collect,
    skew,
    spread,
)
from papercode.attention.sinusoids import positions
from papercode.attention.transformer import MultiHeadAttention, Transformer, attention, causal_mask
from papercode.decoding import greedy_search

B, G, H, N, M, D, E, K = 2, 2, 6, 5, 7, 11, 13, 3  # batch, heads of keys and of queries, lengths, widths, clipping
F64 = torch.float64
CASES = {"n < m": (5, 7), "n = m": (7, 7), "n > m": (7, 5), "n = 1": (1, 7), "m = 1": (3, 1)}


def qkv(n=N, m=M, requires_grad=False):
    shapes = (B, H, n, D), (B, G, m, D), (B, G, m, E)
    return [torch.randn(s, dtype=F64, requires_grad=requires_grad) for s in shapes]


def relative(k=K, **settings):
    return randomise(RelativePosition(D, k, d_v=E, **settings))


def some_mask(n=N, m=M):
    mask = torch.rand(B, 1, n, m) < 0.6
    mask[..., 0] = True
    return mask


def plain(attend, q, k, v, mask=None, bias=0.0, scale=None):
    """Eq. 3 and 4 as they stand, with a vector for each pair: (h n m d)."""
    (h, n), m = q.shape[1:3], k.shape[2]
    k, v = (x.repeat_interleave(h // x.shape[1], 1) for x in (k, v))
    pair = [[max(-K, min(K, j - (m - n + i))) + K for j in range(m)] for i in range(n)]
    a_k, a_v = (
        table[:, pair] if table is not None else torch.zeros(1, 1, 1, 1) for table in (attend.keys, attend.values)
    )
    scores = (q[:, :, :, None] * (k[:, :, None] + a_k)).sum(-1) * (D**-0.5 if scale is None else scale) + bias
    weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    return (weights[..., None] * (v[:, :, None] + a_v)).sum(3)


# the equations


def test_by_hand():
    """Keys are 0; the next position is worth log 3 more: weights 1/4 and 3/4. It also hands over 100 more."""
    attend = RelativePosition(1, 1).double()
    attend.keys.data = torch.tensor([5, 0, math.log(3)], dtype=F64).view(1, 3, 1)
    attend.values.data = torch.tensor([7.0, 0, 100], dtype=F64).view(1, 3, 1)
    q, k, v = torch.ones(2), torch.zeros(2), torch.tensor([10.0, 20.0])
    y = attend(*(t.double().view(1, 1, 2, 1) for t in (q, k, v)))
    assert y[0, 0, 0].item() == pytest.approx(10 / 4 + (20 + 100) * 3 / 4)
    back = math.exp(5)  # the second looks back
    assert y[0, 0, 1].item() == pytest.approx(((10 + 7) * back + 20) / (back + 1))


def test_equals_loops_over_the_equations(parity):
    (q, k, v), mask, bias, attend = qkv(), some_mask(), torch.randn(1, H, N, M, dtype=F64), relative(n_heads=H)
    expected = torch.zeros(B, H, N, E, dtype=F64)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            for i in range(N):
                rows = [max(-K, min(K, j - (M - N + i))) + K for j in range(M)]
                a_k, a_v = attend.keys[h].detach(), attend.values[h].detach()
                scores = [math.fsum(q[b, h, i] * (k[b, g, j] + a_k[rows[j]])) * 0.4 for j in range(M)]
                scores = [s + bias[0, h, i, j].item() for j, s in enumerate(scores)]
                weights = [math.exp(s) if mask[b, 0, i, j] else 0.0 for j, s in enumerate(scores)]
                for j in range(M):
                    expected[b, h, i] += weights[j] / sum(weights) * (v[b, g, j] + a_v[rows[j]])
    y = attend(q, k, v, mask=mask, bias=bias, scale=0.4)
    parity("RelativePosition", "the equations, with loops", "mask, bias, scale", y, expected)


@pytest.mark.parametrize("heads", [1, H])
@pytest.mark.parametrize("tables", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("n", "m"), CASES.values(), ids=CASES.keys())
def test_equals_a_vector_for_each_pair(n, m, tables, heads):
    (q, k, v), mask, bias = qkv(n, m), some_mask(n, m), torch.randn(H, 1, m, dtype=F64)
    attend = relative(n_heads=heads, keys=tables[0], values=tables[1])
    assert [table is not None for table in (attend.keys, attend.values)] == list(tables)
    assert_same(attend(q, k, v), plain(attend, q, k, v))
    assert_same(attend(q, k, v, mask=mask, bias=bias, scale=0.7), plain(attend, q, k, v, mask, bias, 0.7))
    for name in ("keys", "values"):
        if getattr(attend, name) is not None and (m > 1 or name == "values"):
            other = copy.deepcopy(attend)
            getattr(other, name).data = getattr(other, name).flip(1) + 1
            assert_differs(other(q, k, v), attend(q, k, v))


def test_gradients():
    mask, attend = some_mask(), relative()
    mask[0, 0, 3] = False
    tables = attend.keys, attend.values

    def function(q, k, v, bias, keys, values):
        return torch.func.functional_call(
            attend, {"keys": keys, "values": values}, (q, k, v), {"mask": mask, "bias": bias}
        )

    bias = torch.randn(N, M, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (*qkv(requires_grad=True), bias, *tables))


def test_gradients_equal_those_of_a_vector_for_each_pair():
    (q, k, v), attend = qkv(requires_grad=True), relative(n_heads=H)
    inputs = (q, k, v, attend.keys, attend.values)
    up = torch.randn(B, H, N, E, dtype=F64)
    ours, theirs = (
        torch.autograd.grad((f(q, k, v) * up).sum(), inputs) for f in (attend, lambda *x: plain(attend, *x))
    )
    for mine, reference in zip(ours, theirs, strict=True):
        assert_same(mine, reference)


# transformers


@pytest.mark.parametrize("n", [5, 13])
def test_keys_equal_two_speech_encoders_of_transformers(n, parity):
    """Both have what they call relative_key, after this paper: distances clipped, keys only."""
    ours = randomise(MultiHeadAttention(22, 2, attend=RelativePosition(11, K, values=False)))
    sides = {"left_max_position_embeddings": K, "right_max_position_embeddings": K}
    wav2vec = Wav2Vec2BertSelfAttention(
        Wav2Vec2BertConfig(hidden_size=22, num_attention_heads=2, attn_implementation="eager", **sides)
    )
    seamless = SeamlessM4Tv2ConformerSelfAttention(
        SeamlessM4Tv2Config(hidden_size=22, speech_encoder_attention_heads=2, attn_implementation="eager", **sides)
    )
    x = torch.randn(B, n, 22, dtype=F64)
    for reference in (wav2vec, seamless):
        reference.double().eval()
        for name, theirs in (("q", "linear_q"), ("k", "linear_k"), ("v", "linear_v"), ("o", "linear_out")):
            getattr(reference, theirs).load_state_dict(getattr(ours, name).state_dict())
        reference.distance_embedding.weight.data = ours.attend.keys[0].data.clone()
        name = f"transformers' {type(reference).__name__.removesuffix('SelfAttention')}"
        parity("RelativePosition", name, f"keys, {n} tokens", ours(x), reference(x)[0])
        reference.distance_embedding.weight.data = ours.attend.keys[0].data.flip(0)
        assert_differs(ours(x), reference(x)[0])


@pytest.mark.parametrize("n", [3, 13])
def test_keys_and_values_equal_vits(n, parity):
    """Its window does not clip: nothing is added beyond. That is a table that is one longer and ends in zeros."""
    ours = randomise(MultiHeadAttention(22, 2, attend=RelativePosition(11, K)))
    for table in (ours.attend.keys, ours.attend.values):
        table.data[:, [0, -1]] = 0
    reference = VitsAttention(
        VitsConfig(hidden_size=22, num_attention_heads=2, window_size=K - 1, attention_dropout=0.0)
    )
    reference.double().eval()
    for name, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
        getattr(reference, theirs).load_state_dict(getattr(ours, name).state_dict())
    reference.emb_rel_k.data = ours.attend.keys.data[:, 1:-1].clone()
    reference.emb_rel_v.data = ours.attend.values.data[:, 1:-1].clone()
    x = torch.randn(B, n, 22, dtype=F64)
    keep = torch.arange(n) < n - 1
    shut = torch.zeros(B, 1, n, n, dtype=F64).masked_fill(~keep, -torch.inf)
    mine, theirs = [ours(x), ours(x, mask=keep)], [reference(x)[0], reference(x, attention_mask=shut)[0]]
    parity("RelativePosition", "transformers' VitsAttention", f"keys and values, {n} tokens", mine, theirs)
    reference.emb_rel_k.data, reference.emb_rel_v.data = reference.emb_rel_v.data, reference.emb_rel_k.data
    assert_differs(ours(x), reference(x)[0])


# limits


def test_without_vectors_it_is_plain_attention():
    (q, k, v), mask, attend = qkv(), some_mask(), relative()
    attend.keys.data.zero_()
    attend.values.data.zero_()
    assert_same(attend(q, k, v, mask=mask, scale=0.3), attention(q, k, v, mask=mask, scale=0.3))
    assert_differs(relative()(q, k, v), attention(q, k, v))


def test_with_one_distance_it_is_plain_attention_plus_a_constant():
    """k = 0: the same product is added to all scores of a query and drops out of the softmax; weights sum to one."""
    (q, k, v), attend = qkv(), relative(0)
    assert_same(attend(q, k, v), attention(q, k, v) + attend.values[0, 0])
    assert_differs(relative(1)(q, k, v), attention(q, k, v) + relative(1).values[0, 1])


def test_values_alone_are_averages_of_the_vectors():
    (q, k, v), attend = qkv(), relative(keys=False)
    seen = attention(q, k, torch.eye(M, dtype=F64).expand(B, G, M, M))
    rows = clipped_distances(N, M, K) + K
    assert_same(attend(q, k, v) - attention(q, k, v), torch.einsum("bhnm,nme->bhne", seen, attend.values[0][rows]))


# distances


def test_distances_are_counted_from_the_query_to_the_key():
    assert clipped_distances(2, 4, 1).tolist() == [[-1, -1, 0, 1], [-1, -1, -1, 0]]
    assert clipped_distances(3, 3, 9).tolist() == [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]


@pytest.mark.parametrize(("n", "m"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("k", [0, 1, K, 17])
def test_spread_and_collect_are_transposes(n, m, k):
    x, y = torch.randn(B, n, 2 * k + 1, dtype=F64), torch.randn(B, n, m, dtype=F64)
    clipped = clipped_distances(n, m, k)
    expected = torch.stack([x[:, i, clipped[i] + k] for i in range(n)], 1)
    sums = torch.zeros_like(x)
    for i in range(n):
        for j in range(m):
            sums[:, i, clipped[i, j] + k] += y[:, i, j]
    assert_same(spread(x, m), expected)
    assert_same(collect(y, k), sums)
    assert_same((spread(x, m) * y).sum(), (x * collect(y, k)).sum())


@pytest.mark.parametrize(("n", "m"), CASES.values(), ids=CASES.keys())
def test_skew_is_spread_where_nothing_is_clipped(n, m):
    x = torch.randn(B, H, n, n + m - 1, dtype=F64)
    y = skew(x)
    for i in range(n):
        for j in range(m):
            assert torch.equal(y[..., i, j], x[..., i, j - i + n - 1])
    k = max(n, m)  # a table with rows to spare on both sides
    wide = torch.randn(B, n, 2 * k + 1, dtype=F64)
    assert torch.equal(skew(wide[..., k - (m - 1) : k + n]), spread(wide, m))


def test_skew_moves_nothing():
    x = torch.arange(3 * 5).view(3, 5)
    y = skew(x)
    assert y.tolist() == [[2, 3, 4], [6, 7, 8], [10, 11, 12]]
    assert y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="x has w=2 distances, but n=3 queries have at least n"):
        skew(torch.zeros(3, 2))
    assert skew(torch.arange(9).view(3, 3)).tolist() == [[2], [4], [6]]  # w = n: a single key


# what must not change


def test_shifted_by_padding_nothing_changes():
    """Translation invariance: the same words later in the sequence; only what has absolute positions can tell."""
    ours = randomise(MultiHeadAttention(22, 2, attend=RelativePosition(11, K)))
    x, front, back = (torch.randn(B, n, 22, dtype=F64) for n in (N, 3, 2))
    keep = torch.tensor([False] * 3 + [True] * N + [False] * 2)
    shifted = torch.cat([front, x, back], 1)
    assert_same(ours(shifted, mask=keep)[:, 3:-2], ours(x))
    with_waves = ours(shifted + positions(N + 5, 22), mask=keep)[:, 3:-2]
    assert_differs(with_waves, ours(x + positions(N, 22)))


def test_beyond_k_all_distances_are_one():
    """Keys that are k or more away, on one side, may stand in any order; the output is the same."""
    ours = randomise(MultiHeadAttention(22, 2, attend=RelativePosition(11, K)))
    x, query = torch.randn(B, 17, 22, dtype=F64), 8
    far, near = list(range(query - K + 1)), list(range(query - K + 2))
    for together, same in ((far, True), (near, False)):
        order = together[::-1] + list(range(len(together), 17))
        compare = assert_same if same else assert_differs
        compare(ours(x[:, order])[:, query], ours(x)[:, query])
    ahead = list(range(query + K, 17))
    assert_same(ours(x[:, [*range(query + K), *ahead[::-1]]])[:, query], ours(x)[:, query])
    across = [16, *range(1, 16), 0]  # the two sides are not one
    assert_differs(ours(x[:, across])[:, query], ours(x)[:, query])


def test_masks_of_all_kinds_are_one():
    (q, k, v), attend = qkv(), relative()
    expected = attend(q, k, v, mask=causal_mask(N, M))
    assert torch.equal(attend(q, k, v, mask=causal_mask), expected)
    assert torch.equal(attend(q, k, v, mask=Band(right=0)), expected)
    assert_differs(attend(q, k, v), expected)
    keep = torch.tensor([[True] * M, [True] * 4 + [False] * 3])
    assert_same(attend(q, k, v, mask=Band(keep=keep))[1], attend(q, k, v, mask=keep[:, None, None])[1])


def test_nothing_leaks_from_masked_keys():
    (q, k, v), attend = qkv(7, 7), relative()
    changed, before = k.clone(), torch.arange(7) < 4
    changed[:, :, 4:] = 1e6

    def output(k):
        return attend(q, k, v, mask=causal_mask).transpose(0, 2)

    assert not leaks(output, k, changed, before)
    assert leaks(output, k, changed, ~before)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values", [True, False])
def test_a_query_without_keys_gets_zeros_and_sends_zeros_back(dtype, values):
    q, k, v = (t.detach().to(dtype).requires_grad_() for t in qkv())
    attend = relative(values=values).to(dtype)
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[2] = False
    with torch.autograd.detect_anomaly():  # it would raise at a NaN even if a later step hid it
        y = attend(q, k, v, mask=mask)
        y.square().sum().backward()
    assert (y[:, :, 2] == 0).all()
    assert (y[:, :, 1] != 0).all()
    assert (q.grad[:, :, 2] == 0).all()
    assert (q.grad[:, :, 1] != 0).any()
    assert all(t.grad.isfinite().all() for t in (q, k, v, *attend.parameters()))
    attend.zero_grad()
    nothing = attend(q, k, v, mask=torch.zeros(N, M, dtype=torch.bool))
    nothing.sum().backward()
    assert (nothing == 0).all()
    assert all((t.grad == 0).all() for t in attend.parameters())


def test_without_any_key_at_all():
    q, k, v = qkv(N, 0)
    assert (relative()(q, k, v) == 0).all()


def test_dropout_falls_on_the_weights_of_both_sums():
    """A weight that is dropped takes the value and its vector along: here they always cancel."""
    q, k, _ = qkv()
    attend = relative(keys=False)
    attend.values.data[:] = attend.values[:, :1]
    v = -attend.values[0, 0].expand(B, G, M, E)
    assert_same(attend(q, k, v, dropout=0.5), torch.zeros(B, H, N, E, dtype=F64))
    alone = attend(q, k, torch.zeros(B, G, M, E, dtype=F64), dropout=0.5) / attend.values[0, 0]
    assert_same(alone, alone[..., :1].expand_as(alone))
    assert_differs(alone, torch.ones_like(alone))
    assert relative(values=False)(q, k, v, dropout=0.5).std() > 0


# memory


class Largest(TorchDispatchMode):
    """The most numbers that any operation within it has put into one new tensor; a view is not new."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        if isinstance(y, torch.Tensor):
            self.numel = max(self.numel, min(y.numel(), y.untyped_storage().nbytes() // y.element_size()))
        return y


def test_no_tensor_holds_a_vector_for_each_pair():
    n, attend = 47, RelativePosition(D, K, d_v=E)
    shapes = (1, 2, n, D), (1, 2, n, D), (1, 2, n, E)
    q, k, v = (torch.randn(s, requires_grad=True) for s in shapes)
    with Largest() as largest:
        attend(q, k, v).sum().backward()
    assert largest.numel == 2 * n * n  # a number for each pair and head
    with Largest() as largest:
        plain(attend, q, k, v)
    assert largest.numel >= n * n * D


# the seam


def test_keys_alone_are_a_bias_to_any_attend():
    calls = []

    def spy(q, k, v, **kwargs):
        calls.append(kwargs)
        return attention(q, k, v, **kwargs)

    (q, k, v), mask, bias = qkv(), some_mask(), torch.randn(N, M, dtype=F64)
    attend = relative(values=False, attend=spy)
    y = attend(q, k, v, mask=mask, bias=bias, scale=0.7, dropout=0.0)
    assert_same(y, plain(attend, q, k, v, mask, bias, 0.7))
    assert calls[0]["mask"] is mask
    assert (calls[0]["scale"], calls[0]["dropout"]) == (0.7, 0.0)
    assert_same(calls[0]["bias"], spread(q @ attend.keys.mT, M) * 0.7 + bias)
    relative(keys=False, values=False, attend=spy)(q, k, v, bias=bias, dropout=0.3)
    assert calls[1]["bias"] is bias
    assert calls[1]["dropout"] == 0.3


@pytest.mark.parametrize("values", [True, False])
def test_cached_equals_uncached(values):
    attend = relative(values=values)
    q, k, v = qkv(7, 7)
    cache = KVCache(attend)
    pieces = [slice(0, 3), slice(3, 4), slice(4, 7)]
    steps = [cache(q[:, :, p], k[:, :, p], v[:, :, p], mask=Band(right=0)) for p in pieces]
    assert_same(torch.cat(steps, 2), attend(q, k, v, mask=causal_mask))


def test_errors():
    (q, k, v), ones = qkv(), torch.ones(N, M, dtype=F64)
    with pytest.raises(ValueError, match="max_distance=-1 must be at least 0"):
        RelativePosition(D, -1)
    with pytest.raises(ValueError, match="d_k=0 must be at least 1"):
        RelativePosition(0, K)
    with pytest.raises(ValueError, match="d_v=0 must be at least 1"):
        RelativePosition(D, K, d_v=0)
    with pytest.raises(ValueError, match="n_heads=0 must be at least 1"):
        RelativePosition(D, K, n_heads=0)
    with pytest.raises(ValueError, match="attend is given, but values=True needs its weights; pass values=False"):
        RelativePosition(D, K, attend=Watcher())
    with pytest.raises(ValueError, match="q has width 11, but the vectors added have width 5"):
        RelativePosition(5, K, d_v=E).double()(q, k, v)
    with pytest.raises(ValueError, match="v has width 13, but the vectors added have width 11"):
        RelativePosition(D, K).double()(q, k, v)
    with pytest.raises(ValueError, match="q has 6 heads, but there are tables for n_heads=2"):
        relative(n_heads=2)(q, k, v)
    with pytest.raises(TypeError, match="mask must be bool"):
        relative()(q, k, v, mask=ones)
    with pytest.raises(ValueError, match=r"bias of shape .* does not broadcast"):
        relative()(q, k, v, bias=ones[:, 1:])
    with pytest.raises(ValueError, match=r"dropout=1\.0 must be at least 0 and less than 1"):
        relative()(q, k, v, dropout=1.0)


class Watcher(nn.Module):
    def forward(self, q, k, v, **kwargs):
        return attention(q, k, v, **kwargs)


def test_tables_start_glorot_each_head_for_itself():
    attend = RelativePosition(64, 16, n_heads=8)
    assert attend.keys.shape == attend.values.shape == (8, 33, 64)
    bound = math.sqrt(6 / (33 + 64))
    for table in (*attend.keys, *attend.values):
        assert 0.99 * bound < table.abs().max() <= bound
    assert_differs(attend.keys[0], attend.keys[1])
    assert_differs(attend.keys, attend.values)


# the Transformer of section 4


SIZES = {"d_model": 14, "n_heads": 2, "d_ff": 19, "n_layers": 3, "dropout": 0.0}


def relative_transformer(**settings):
    return randomise(RelativeTransformer(23, max_distance=2, **SIZES | settings)).eval()


def batch():
    source, target = torch.randint(23, (2, 7)), torch.randint(23, (2, 5))
    return source, target, torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


def test_distances_are_in_the_self_attentions_and_nowhere_else():
    ours = relative_transformer(d_k=5, d_v=3)
    found = {n: m for n, m in ours.named_modules() if isinstance(m, RelativePosition)}
    stacks = [f"encoder.{i}.attention.attend" for i in range(3)] + [
        f"decoder.{i}.self_attention.attend" for i in range(3)
    ]
    assert sorted(found) == sorted(stacks)
    assert len({id(m.keys) for m in found.values()}) == 6  # a table of its own in every layer
    assert {m.keys.shape for m in found.values()} == {(2, 5, 5)}
    assert {m.values.shape for m in found.values()} == {(2, 5, 3)}
    assert all(layer.cross_attention.attend is attention for layer in ours.decoder)
    shared = relative_transformer(per_head=False, values=False)
    assert shared.encoder[0].attention.attend.keys.shape == (1, 5, 7)
    assert shared.encoder[0].attention.attend.values is None
    assert relative_transformer(keys=False).decoder[0].self_attention.attend.keys is None


def test_equals_the_transformer_where_distance_is_nothing():
    """Without vectors, and with the waves taken out of the older model, the two are one."""
    ours, (source, target, keep) = relative_transformer(), batch()
    old = randomise(Transformer(23, **SIZES)).eval()
    old.load_state_dict({n: p for n, p in ours.state_dict().items() if ".attend." not in n})
    assert_differs(ours(source, target, keep), old(source, target, keep))
    old.embed = lambda tokens, start=0: old.embedding(tokens) * math.sqrt(14)
    assert_differs(ours(source, target, keep), old(source, target, keep))
    for name, parameter in ours.named_parameters():
        if ".attend." in name:
            parameter.data.zero_()
    assert_same(ours(source, target, keep), old(source, target, keep))


def test_embeddings_have_dropout_and_no_position():
    ours = relative_transformer(dropout=0.5)
    tokens = torch.full((1, 1009), 3)
    x = ours.embed(tokens)
    assert_same(x, (ours.embedding.weight[3] * math.sqrt(14)).expand(1, 1009, 14))
    assert_same(ours.embed(tokens, 5), x)
    dropped = ours.train().embed(tokens)
    assert 0.4 < (dropped == 0).double().mean() < 0.6


def test_a_longer_prefix_of_padding_does_not_matter():
    """The whole encoder is invariant to a shift, which no encoder with positions in its embeddings is."""
    ours, (source, _, _) = relative_transformer(), batch()
    shifted = torch.cat([torch.zeros(2, 4, dtype=torch.long), source], 1)
    keep = (torch.arange(11) >= 4).expand(2, 11)
    assert_same(ours.encode(shifted, keep)[:, 4:], ours.encode(source))
    old = randomise(Transformer(23, **SIZES)).eval()
    assert_differs(old.encode(shifted, keep)[:, 4:], old.encode(source))


def test_cached_search_equals_plain_search():
    ours, (source, _, keep) = relative_transformer(), batch()
    prompt, memory = torch.ones(2, 1, dtype=torch.long), ours.encode(source, keep)
    scores = {"plain": [], "cached": []}

    def plain_step(tokens, parents):
        scores["plain"].append(ours.decode(tokens, memory, keep)[:, -1])
        return scores["plain"][-1]

    def spying(step):
        def cached_step(tokens, parents):
            scores["cached"].append(step(tokens, parents))
            return scores["cached"][-1]

        return cached_step

    with torch.no_grad(), cached_steps(ours, source, keep) as step:
        found = greedy_search(spying(step), prompt, end=22, max_new=9)
    assert torch.equal(found, greedy_search(plain_step, prompt, end=22, max_new=9))
    assert len(scores["plain"]) > 3
    for mine, reference in zip(scores["cached"], scores["plain"], strict=True):
        assert_same(mine, reference)


@pytest.mark.parametrize(
    ("settings", "tables"),
    [
        ({}, 12 * 2 * 8 * 33 * 64),
        ({"d_model": 1024, "n_heads": 16, "d_ff": 4096, "max_distance": 8, "per_head": False}, 12 * 2 * 17 * 64),
    ],
    ids=["base", "big"],
)
def test_full_size_on_the_meta_device(settings, tables):
    sizes = {name: value for name, value in settings.items() if name not in ("max_distance", "per_head")}
    with torch.device("meta"):
        ours, old = RelativeTransformer(32_768, **settings), Transformer(32_768, **{"d_ff": 1024, **sizes})
        tokens = torch.zeros(2, 17, dtype=torch.long)
        assert ours(tokens, tokens).shape == (2, 17, 32_768)
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, old)]
    assert counts[0] - counts[1] == tables


def test_one_batch_can_be_overfitted():
    torch.manual_seed(0)
    ours, (source, target, keep) = RelativeTransformer(23, max_distance=2, **SIZES), batch()
    optimizer = torch.optim.Adam(ours.parameters(), 3e-3)
    before = {n: p.clone() for n, p in ours.named_parameters() if ".attend." in n}
    for _ in range(150):
        loss = nn.functional.cross_entropy(ours(source, target[:, :-1], keep).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert all((p - before[n]).abs().max() > 1e-3 for n, p in ours.named_parameters() if n in before)


def test_copies_and_pickles():
    ours, inputs = relative_transformer(), batch()
    expected = ours(*inputs)
    assert torch.equal(copy.deepcopy(ours)(*inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(*inputs), expected)
    fresh = RelativeTransformer(23, max_distance=2, **SIZES).double().eval()
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh(*inputs), expected)


def test_autocast():
    ours, inputs = relative_transformer().float(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        low = ours(*inputs)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), ours(*inputs), rtol=0.05, atol=0.1)


def test_compiles_without_a_graph_break():
    """In a process of its own, where no shapes are enforced: torch cannot trace those checks."""
    code = """if True:
        import torch
        from papercode.attention.relative_position import RelativeTransformer
        model = RelativeTransformer(23, max_distance=2, d_model=14, n_heads=2, d_ff=19, n_layers=2).eval()
        inputs = torch.randint(23, (2, 7)), torch.randint(23, (2, 5)), torch.rand(2, 7) < 0.7
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
        print("same")
    """
    source = str(Path(papercode.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True)
    assert done.stdout == b"same\n", done.stderr.decode()
