"""Shared queries and keys: by hand, against the plain equations, and what the released code makes of them."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.shared_qk import SharedQKAttention, self_last, shared_qk_attention
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask
from papercode.attention.wrapping import wrapped

B, H, N, D_MODEL, D = 2, 3, 7, 13, 5
F64 = torch.float64


def layer(**kwargs):
    return randomise(SharedQKAttention(D_MODEL, H, d_k=D, **kwargs), std=0.5)


def x():
    return torch.randn(B, N, D_MODEL, dtype=F64)


def test_self_last_by_hand():
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]]).bool()
    assert self_last(mask).long().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert self_last(torch.ones(2, 3).bool()).long().tolist() == [[1, 0, 1], [1, 1, 0]]  # the last two of three


def test_by_hand():
    """The second of three positions sees itself and the first, so the first alone; the first has only itself."""
    q = torch.tensor([[1.0, 0], [1, 1], [0, 2]])[None, None]
    v = torch.tensor([1.0, 10, 100])[None, None, :, None]
    k = torch.nn.functional.normalize(q, dim=-1)
    y = shared_qk_attention(q, k, v, mask=causal_mask, scale=1.0)[0, 0, :, 0]
    e = math.exp(2 / math.sqrt(2))  # the third scores the first with 0, the second with 2 / sqrt 2
    torch.testing.assert_close(y, torch.tensor([1, 1, (1 + 10 * e) / (1 + e)]))


@pytest.mark.parametrize("mask", [None, causal_mask, Band(2, 1), torch.rand(B, 1, N, N) < 0.5], ids=repr)
def test_equals_the_plain_equations(mask):
    q, v = torch.randn(B, H, N, D, dtype=F64), torch.randn(B, H, N, D, dtype=F64)
    k = q / q.norm(dim=-1, keepdim=True)
    given = torch.ones(N, N).bool() if mask is None else mask if isinstance(mask, torch.Tensor) else mask(N, N)
    others = given & ~torch.eye(N, dtype=torch.bool)
    alone = given & torch.eye(N, dtype=torch.bool) & ~others.any(-1, keepdim=True)
    y = shared_qk_attention(q, k, v, mask=mask)
    assert_same(y, attention(q, k, v, mask=others | alone))
    assert_differs(y, attention(q, k, v, mask=mask))


def test_keys_are_queries_of_length_one():
    ours, inputs = layer(), x()
    seen = []

    def spy(q, k, v, **kwargs):
        seen.append((q, k, v, kwargs))
        return attention(q, k, v, **kwargs)

    ours.attend = spy
    y = ours(inputs, mask=causal_mask)
    q, k, v, kwargs = seen[0]
    assert q.shape == k.shape == v.shape == (B, H, N, D)
    assert_same(k.norm(dim=-1), torch.ones(B, H, N, dtype=F64), 1e-5)
    assert_same(torch.cosine_similarity(q, k, -1), torch.ones(B, H, N, dtype=F64))
    assert kwargs == {"scale": 1.0, "dropout": 0.0, "mask": causal_mask}
    flat = (attention(q, k, v, scale=1.0, mask=causal_mask)).transpose(1, 2).flatten(2)
    assert_same(y, flat @ ours.o.weight.T)


def test_the_scale_can_be_divided_by_the_root():
    inputs = x()
    literal = layer(scale=D**-0.5)
    assert_differs(literal(inputs), layer()(inputs))
    assert_same(literal(inputs), layer()(inputs, scale=D**-0.5))


def test_a_query_of_zeros_has_a_key():
    ours = layer()
    inputs = torch.zeros(1, N, D_MODEL, dtype=F64, requires_grad=True)
    ours(inputs).sum().backward()
    assert inputs.grad.isfinite().all()


def test_three_maps_and_one_fewer_than_before():
    ours = SharedQKAttention(D_MODEL, H, d_k=D)
    assert {name for name, _ in ours.named_parameters()} == {"q.weight", "v.weight", "o.weight"}
    plain = MultiHeadAttention(D_MODEL, H, d_k=D, bias=False)
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, plain)]
    assert count[0] * 4 == count[1] * 3


def test_causal_and_cached():
    ours, inputs = layer(), x()
    changed = inputs.clone()
    changed[:, 4:] += 1
    before = torch.arange(N) < 4
    assert not leaks(lambda x: ours(x, mask=causal_mask).transpose(0, 1), inputs, changed, before)
    assert leaks(lambda x: ours(x).transpose(0, 1), inputs, changed, before)
    whole = ours(inputs, mask=causal_mask)
    with wrapped(ours, KVCache):
        steps = [ours(inputs[:, i : i + 1], mask=causal_mask) for i in range(N)]
    assert_same(torch.cat(steps, 1), whole)


def test_dropout_only_while_training():
    ours, inputs = layer(dropout=0.5), x()
    assert_differs(ours.train()(inputs), ours(inputs))
    assert torch.equal(ours.eval()(inputs), ours(inputs))


def test_errors():
    with pytest.raises(ValueError, match="mask has n=3 queries, more than its m=2 keys"):
        self_last(torch.ones(3, 2).bool())
    with pytest.raises(ValueError, match="d_model=13 is not divisible by n_heads=3"):
        SharedQKAttention(D_MODEL, H)
    q = torch.randn(1, 1, 2, 3)
    with pytest.raises(TypeError, match="mask must be bool"):
        shared_qk_attention(q, q, q, mask=torch.ones(2, 2))
