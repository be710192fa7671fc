"""Linear biases: the paper's slopes, the reference's, both forms of the bias, any attend, with caches and padding."""

import itertools
import math
import pickle

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.alibi import ALiBi, alibi_bias, slopes
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask
from papercode.attention.wrapping import wrapped

B, H, G, N, M, D, E = 2, 6, 3, 5, 7, 10, 11


def qkv(n=N, m=M):
    shapes = (B, H, n, D), (B, G, m, D), (B, G, m, E)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


def test_slopes_of_the_paper():
    assert slopes(8).tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert_same(slopes(16), torch.tensor([2 ** (-i / 2) for i in range(1, 17)], dtype=torch.float64), 1e-15)
    assert slopes(1).tolist() == [1 / 256]
    assert slopes(2).tolist() == [1 / 16, 1 / 256]


def test_slopes_between_powers_of_two():
    """Twelve heads: the eight of eight heads, then every other one of sixteen."""
    assert slopes(12)[:8].tolist() == slopes(8).tolist()
    assert_same(slopes(12)[8:], slopes(16)[0:8:2], 1e-15)
    assert slopes(3).tolist() == [1 / 16, 1 / 256, 1 / 4]


@pytest.mark.parametrize("n_heads", [*range(1, 21), 31, 32, 48, 71, 112])
def test_bloom_computes_the_same_slopes(n_heads, parity):
    reference = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float64)[:, 0, 1]  # slope times 1; float32 inside
    parity("ALiBi", "transformers' BLOOM", f"slopes in float32, n_heads={n_heads}", slopes(n_heads), reference, 1e-6)


@pytest.mark.parametrize(("n", "m"), [(N, M), (M, N), (1, M), (4, None)])
def test_the_bias_entry_by_entry(n, m):
    bias, last = alibi_bias(4, n, m, dtype=torch.float64), n if m is None else m
    assert bias.shape == (1, 4, n, last)
    for h, i, j in itertools.product(range(4), range(n), range(last)):
        assert bias[0, h, i, j].item() == -(2.0 ** (-2 * (h + 1))) * abs(last - n + i - j)


def test_by_hand():
    """One head, slope 1/256, two equal keys 256 tokens apart: the weights stand as e to 1."""
    q, k = torch.zeros(1, 1, 1, 1).double(), torch.zeros(1, 1, 257, 1).double()
    v = torch.zeros(1, 1, 257, 1).double()
    v[:, :, -1] = 1
    two = torch.zeros(257, dtype=torch.bool)
    two[[0, -1]] = True
    assert ALiBi()(q, k, v, mask=two).item() == pytest.approx(math.e / (math.e + 1), abs=1e-12)


def test_only_the_key_matters_to_a_softmax(parity):
    """Minus slope times (i - j) and plus slope times j differ by a constant of the row, so the reference adds a row."""
    q, k, v = qkv()
    row = build_alibi_tensor(torch.ones(1, M), H, torch.float64)[None]  # (1 h 1 m)
    assert row.shape == (1, H, 1, M)
    ours = ALiBi()(q, k, v, mask=causal_mask)
    theirs = attention(q, k, v, mask=causal_mask, bias=row)
    parity("ALiBi", "transformers' BLOOM", "its bias in float32, causal", ours, theirs, 1e-6)
    assert_differs(ours, attention(q, k, v, mask=causal_mask, bias=-row))
    assert_differs(ours, attention(q, k, v, mask=causal_mask))
    rows = slopes(H)[:, None, None] * torch.arange(M)
    assert_same(ours, attention(q, k, v, mask=causal_mask, bias=rows), 1e-12)
    assert_differs(ALiBi()(q, k, v), attention(q, k, v, bias=rows))  # later keys are farther away, not nearer


def test_padding_in_front_changes_nothing(parity):
    q, k, v = qkv(M, M)
    keep = torch.ones(B, M, dtype=torch.bool)
    keep[1, :3] = False
    ours = ALiBi()(q, k, v, mask=Band(right=0, keep=keep))
    assert_same(ours[:1], ALiBi()(q[:1], k[:1], v[:1], mask=causal_mask))
    assert_same(ours[1:, :, 3:], ALiBi()(q[1:, :, 3:], k[1:, :, 3:], v[1:, :, 3:], mask=causal_mask))
    reference = build_alibi_tensor(keep.long(), H, torch.float64).view(B, H, 1, M)
    theirs = attention(q, k, v, mask=Band(right=0, keep=keep), bias=reference)
    parity("ALiBi", "transformers' BLOOM", "its bias in float32, padding in front", ours, theirs, 1e-6)


def test_everything_else_is_passed_on():
    q, k, v = qkv()
    bias = torch.randn(H, N, M, dtype=torch.float64)
    ours = ALiBi()(q, k, v, mask=causal_mask, bias=bias, scale=0.3)
    total = bias + alibi_bias(H, N, M, dtype=torch.float64)
    assert_same(ours, attention(q, k, v, mask=causal_mask, bias=total, scale=0.3))
    for wrong in ({}, {"mask": causal_mask, "scale": 0.3}, {"mask": causal_mask, "bias": bias}):
        assert_differs(ALiBi()(q, k, v, **wrong), ours)


def test_the_bias_has_the_type_of_the_queries():
    q, k, v = qkv()

    def look(q, k, v, bias):
        assert bias.dtype == q.dtype
        return attention(q, k, v, bias=bias)

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert ALiBi(look)(q.to(dtype), k.to(dtype), v.to(dtype)).dtype == dtype


def test_penalties_are_not_scaled():
    """The root of d divides q k alone (section 3): with wide heads the penalty would all but vanish otherwise."""
    q, k, v = qkv()
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k.repeat_interleave(2, 1)) / math.sqrt(D)
    weights = (scores + alibi_bias(H, N, M, dtype=torch.float64)).softmax(-1)
    assert_same(ALiBi()(q, k, v), weights @ v.repeat_interleave(2, 1))


@pytest.mark.parametrize(
    "pieces", [[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 3), (3, 4), (4, 5)], [(0, 2), (2, 5)]]
)
def test_cached_is_uncached_in_both_orders(pieces):
    layer, x = randomise(MultiHeadAttention(H * D, H)), torch.randn(B, N, H * D, dtype=torch.float64)
    with wrapped(layer, ALiBi):
        whole = layer(x, mask=causal_mask)
        with torch.no_grad(), wrapped(layer, KVCache):
            around = [layer(x[:, a:b], mask=causal_mask) for a, b in pieces]
    assert_same(torch.cat(around, 1), whole)
    with torch.no_grad(), wrapped(layer, lambda attend: ALiBi(KVCache(attend))):
        inside = [layer(x[:, a:b], mask=causal_mask, start=a) for a, b in pieces]
    assert_same(torch.cat(inside, 1), whole)
    assert_differs(layer(x, mask=causal_mask), whole)
    with torch.no_grad(), wrapped(layer, lambda attend: ALiBi(KVCache(attend))):
        layer(x[:, :2], mask=causal_mask)
        with pytest.raises(ValueError, match=r"bias of shape .* does not broadcast"):  # start forgotten
            layer(x[:, 2:], mask=causal_mask)


def test_a_single_forgotten_start_is_wrong():
    """With one new token the bias is (h 1 1), which broadcasts; nothing can see that start is missing."""
    layer, x = randomise(MultiHeadAttention(H * D, H)), torch.randn(B, N, H * D, dtype=torch.float64)
    with torch.no_grad(), wrapped(layer, lambda attend: ALiBi(KVCache(attend))):
        forgotten = [layer(x[:, i : i + 1], mask=causal_mask) for i in range(N)]
    assert_same(torch.cat(forgotten, 1), layer(x, mask=causal_mask))  # no penalty at all


def test_later_keys_are_penalised_by_distance_too():
    layer, x = randomise(MultiHeadAttention(H * D, H)), torch.randn(B, N, H * D, dtype=torch.float64)
    with wrapped(layer, ALiBi):
        assert_same(layer(x.flip(1)), layer(x).flip(1))  # read backwards, the distances are the same
        assert_differs(layer(x[:, torch.tensor([1, 0, 2, 3, 4])]), layer(x)[:, torch.tensor([1, 0, 2, 3, 4])])
        changed = x.clone()
        changed[:, 3] += 1
        early = torch.arange(N).expand(B, N) < 3
        assert not leaks(lambda x: layer(x, mask=causal_mask), x, changed, early)
        assert leaks(layer, x, changed, early)


def test_own_slopes_and_trained_ones():
    q, k, v = qkv()
    assert_same(ALiBi(slopes=slopes(H))(q, k, v), ALiBi()(q, k, v))
    shard = ALiBi(slopes=slopes(12)[H:])  # the second half of a model with twelve heads
    assert_same(shard(q, k, v), attention(q, k, v, bias=alibi_bias(12, N, M, dtype=torch.float64)[:, H:]))
    trained = ALiBi(slopes=torch.nn.Parameter(slopes(H)))
    assert [name for name, _ in trained.named_parameters()] == ["slopes"]
    assert torch.autograd.gradcheck(
        lambda s: attention(q, k, v, bias=alibi_bias(s, N, M, dtype=s.dtype)), trained.slopes
    )
    trained(q, k, v).sum().backward()
    assert trained.slopes.grad.abs().min() > 0


def test_gradients():
    q, k, v = (x[:1, ..., :3].clone().requires_grad_() for x in qkv(3, 4))
    assert torch.autograd.gradcheck(lambda q, k, v: ALiBi()(q, k, v, mask=causal_mask), (q, k, v))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_neighbours_apart(dtype):
    """Rounded once, the penalty is off by its last bit; the row of slope times j forgets which key is the nearest."""
    exact, ours = alibi_bias(12, 1, 3000, dtype=torch.float64), alibi_bias(12, 1, 3000, dtype=dtype)
    assert ours.dtype == dtype
    assert ((ours.double() - exact).abs() <= 0.501 * torch.finfo(dtype).eps * exact.abs()).all()  # rounded once
    assert len(ours[0, 0, 0, -9:].unique()) == 9
    row = (slopes(8)[:, None] * torch.arange(3000)).to(dtype)
    assert len(row[0, -9:].unique()) < 9


def test_it_has_no_state():
    attend = ALiBi()
    assert not attend.state_dict()
    q, k, v = qkv()
    assert torch.equal(pickle.loads(pickle.dumps(attend))(q, k, v), attend(q, k, v))
    assert attend(*(x.to("meta") for x in (q, k, v))).shape == (B, H, N, E)


def test_errors():
    q, k, v = qkv()
    for n_heads in (0, -3):
        with pytest.raises(ValueError, match=f"n_heads={n_heads} must be at least 1"):
            slopes(n_heads)
    with pytest.raises(ValueError, match="there are 4 slopes, but q has 6 heads"):
        ALiBi(slopes=slopes(4))(q, k, v)
    with pytest.raises(ValueError, match=r"slopes must be a vector, one a head, got shape \(6, 1, 1\)"):
        ALiBi(slopes=slopes(H).view(H, 1, 1))
    with pytest.raises(ValueError, match="start=-1 must be at least 0"):
        ALiBi()(q, k, v, start=-1)
    with pytest.raises(ValueError, match="no multiple of the 4 heads"):
        ALiBi(lambda q, k, v, bias=None: q)(q, torch.randn(B, 4, M, D).double(), torch.randn(B, 4, M, E).double())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    q, k, v = (x.to(dtype) for x in qkv())
    for attend in (ALiBi(), ALiBi(slopes=slopes(H))):
        ours = attend(q.cuda(), k.cuda(), v.cuda(), mask=causal_mask)
        expected = attend(q.double(), k.double(), v.double(), mask=causal_mask)
        assert_same(ours.cpu().double(), expected, 1e-5 if dtype == torch.float32 else 3e-2)
