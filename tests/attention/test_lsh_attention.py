"""LSH attention against dense attention under the mask that loops give, and against transformers."""

import pytest
import torch
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from helpers import assert_differs, assert_same, leaks
from papercode.attention import lsh_attention
from papercode.attention.arguments import dense
from papercode.attention.kv_cache import KVCache
from papercode.attention.lsh_attention import LSHAttention
from papercode.attention.lsh_hash import lsh_bucket
from papercode.attention.masks import Band
from papercode.attention.shared_qk import SharedQKAttention, self_last
from papercode.attention.transformer import attention, causal_mask
from papercode.attention.wrapping import Watch

B, H, M, D, E = 2, 3, 23, 7, 11
F64 = torch.float64


def qkv(n=M, m=M, heads=H, requires_grad=False):
    every = torch.randn(B, heads, m, D, dtype=F64)
    k, v = torch.nn.functional.normalize(every, dim=-1), torch.randn(B, heads, m, E, dtype=F64)
    return [x.clone().requires_grad_(requires_grad) for x in (every[:, :, m - n :], k, v)]


def times_shown(attend, k, keep=None):
    """How often each key is shown to each query (b h m m), by loops over rounds and sorted places."""
    b, h, m, d = k.shape
    bucket = lsh_bucket(k.detach(), [r.to(k) for r in attend.rotations(h, d, m)])
    times = torch.zeros(b, h, m, m, dtype=F64)
    for x in range(b):
        for y in range(h):
            for r in range(attend.n_rounds):
                mine = bucket[x, y, r].tolist()
                if keep is not None:
                    mine = [number if keep[x, i] else 10**6 for i, number in enumerate(mine)]
                chunk, number = torch.zeros(m), torch.tensor(mine)
                for s, i in enumerate(sorted(range(m), key=lambda i: (mine[i], i))):
                    chunk[i] = s // attend.chunk
                back = chunk[:, None] - chunk
                same = (number[:, None] == number) | attend.across_buckets
                times[x, y] += same & ((back == 0) | (back == 1))
    return times


def oracle(attend, q, k, v, mask=None, bias=None, keep=None, **kwargs):
    n, m = q.shape[2], k.shape[2]
    times = times_shown(attend, k, keep)[:, :, m - n :]
    given = dense(mask, q, k)
    allowed = times > 0 if given is None else given & (times > 0)
    if not attend.count_once:
        bias = times.clamp(min=1).log() + (0 if bias is None else bias)
    return attention(q, k, v, mask=self_last(allowed), bias=bias, **kwargs)


MASKS = {
    "none": lambda n, m: None,
    "causal": lambda n, m: causal_mask,
    "window": lambda n, m: Band(5, 3),
    "tensor": lambda n, m: torch.rand(B, 1, n, m) < 0.6,
    "callable": lambda n, m: lambda n, m, device: torch.arange(n, device=device)[:, None] % 3 != torch.arange(m) % 3,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n", [M, 5], ids=["all", "the last five"])
@pytest.mark.parametrize("settings", [{}, {"across_buckets": True}, {"count_once": False}], ids=str)
def test_equals_dense_attention_under_the_mask(mask, n, settings):
    attend = LSHAttention(4, 3, n_buckets=(4, 2), seed=5, **settings)
    q, k, v = inputs = qkv(n, requires_grad=True)
    bias = torch.randn(1, H, n, M, dtype=F64, requires_grad=True)
    given = MASKS[mask](n, M)
    for scale in (None, 0.7):
        ours = attend(q, k, v, mask=given, bias=bias, scale=scale)
        theirs = oracle(attend, q, k, v, given, bias, scale=scale)
        assert_same(ours, theirs)
        out = torch.randn_like(ours)
        for mine, other in zip(*(torch.autograd.grad((y * out).sum(), [*inputs, bias]) for y in (ours, theirs))):
            assert_same(mine, other)
    assert_differs(ours, attention(q, k, v, mask=given, bias=bias, scale=0.7))
    assert_differs(ours, attend(q, k, v, mask=given, scale=0.7))


@pytest.mark.parametrize(
    "settings", [{"across_buckets": True}, {"count_once": False}, {"seed": 6}, {"chunk": 4}], ids=str
)
def test_each_setting_matters(settings):
    plain = {"n_rounds": 4, "chunk": 3, "n_buckets": (4, 2), "seed": 5}
    q, k, v = qkv()
    assert_differs(LSHAttention(**plain)(q, k, v), LSHAttention(**{**plain, **settings})(q, k, v))


def test_one_round_and_any_length():
    for m in (1, 2, 3, 4, 17):
        attend = LSHAttention(1, 4, n_buckets=4, seed=2)
        q, k, v = qkv(m, m)
        assert_same(attend(q, k, v, mask=causal_mask), oracle(attend, q, k, v, causal_mask))


def test_blocks_change_nothing(monkeypatch):
    attend, (q, k, v) = LSHAttention(3, 3, n_buckets=4, seed=2), qkv()
    whole = attend(q, k, v, mask=causal_mask)
    monkeypatch.setattr(lsh_attention, "BLOCK", 1)
    assert_same(attend(q, k, v, mask=causal_mask), whole)


def test_with_one_bucket_pair_and_one_chunk_rounds_find_everything():
    """Two buckets and a chunk that holds all: after enough rounds it is full attention without the diagonal."""
    q, k, v = qkv()
    enough = LSHAttention(40, M, n_buckets=2, seed=0)(q, k, v)
    assert_same(enough, attention(q, k, v, mask=~torch.eye(M, dtype=torch.bool)))
    assert_differs(enough, LSHAttention(1, M, n_buckets=2, seed=0)(q, k, v))


def test_counting_as_in_the_paper_would_not_be_attention_to_the_union():
    """The paper's N counts rounds with a common bucket, also where chunks keep the pair apart."""
    q, k, v = qkv()
    attend = LSHAttention(4, 2, n_buckets=2, seed=1)
    bucket = lsh_bucket(k, [r.to(k) for r in attend.rotations(H, D, M)])
    common = (bucket[..., None] == bucket[..., None, :]).double().sum(2)
    times = times_shown(attend, k)
    assert (common >= times).all()
    ratio = (times / common).clamp(min=1e-9).log()
    assert_same(attend(q, k, v), oracle(attend, q, k, v))
    assert_differs(attend(q, k, v), oracle(attend, q, k, v, bias=ratio))  # what dividing by the paper's N would give


def test_a_position_sees_itself_only_when_alone():
    q, k, v = qkv()
    weights = Watch(LSHAttention(2, 4, n_buckets=8, seed=3))
    weights(q, k, v, mask=causal_mask)
    (w,) = weights.weights
    own, others = w.diagonal(dim1=-2, dim2=-1), w.tril(-1).sum(-1)
    assert ((own == 0) | (own == 1)).all()
    assert ((own == 1) == (others == 0)).all()
    assert (own[:, :, 0] == 1).all()
    assert 0 < own.mean() < 1
    assert_same(w.sum(-1), torch.ones(B, H, M, dtype=F64))


def test_padding_has_a_bucket_of_its_own_and_gives_zeros():
    keep = torch.ones(B, M, dtype=torch.bool)
    keep[1, 13:] = False
    keep[0, 4] = False
    attend = LSHAttention(3, 4, n_buckets=4, seed=1)
    q, k, v = qkv(requires_grad=True)
    mask = Band(right=0, keep=keep)
    y = attend(q, k, v, mask=mask)
    assert_same(y, oracle(attend, q, k, v, mask, keep=keep))
    assert (y.transpose(1, 2)[~keep] == 0).all()
    y.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert (v.grad.transpose(1, 2)[~keep] == 0).all()
    alone = attend(*(x[1:, :, :13] for x in (q, k, v)), mask=causal_mask)
    assert_same(y[1:, :, :13], alone)  # as if the padding were not there
    one = keep[:1, None, None]  # a tensor of padding, the same for the batch
    assert_same(attend(q, k, v, mask=one), oracle(attend, q, k, v, one, keep=keep[:1].expand(B, M)))
    nothing = attend(q, k, v, mask=torch.zeros(M, M, dtype=torch.bool))
    assert (nothing == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    q, k, v = qkv()
    low = [x.to(dtype) for x in (q, k, v)]
    attend = LSHAttention(3, 4, n_buckets=4, seed=1)
    y = attend(*low, mask=causal_mask)
    assert y.dtype == dtype
    assert y.isfinite().all()
    exact = attend(*(x.double() for x in low), mask=causal_mask)
    close = (y.double() - exact).abs().amax(-1) < 0.05
    assert close.double().mean() > 0.8  # a rounded rotation may put a vector into another bucket


def test_grouped_heads():
    _, k, v = qkv(heads=2)
    many = torch.randn(B, 6, M, D, dtype=F64)
    attend = LSHAttention(3, 4, n_buckets=4, seed=1)
    full = [x.repeat_interleave(3, 1) for x in (k, v)]
    assert_same(attend(many, k, v), attend(many, *full))
    assert_differs(attend(many, k, v), attend(many, *(x.repeat(1, 3, 1, 1) for x in (k, v))))


def test_seeds():
    q, k, v = qkv()
    fixed = LSHAttention(2, 4, n_buckets=8, seed=3)
    assert torch.equal(fixed(q, k, v), fixed(q, k, v))
    free = LSHAttention(2, 4, n_buckets=8)
    torch.manual_seed(1)
    first, second = free(q, k, v), free(q, k, v)
    assert_differs(first, second)
    torch.manual_seed(1)
    assert torch.equal(free(q, k, v), first)


def test_dropout_is_on_the_weights():
    q, k, v = qkv()
    attend = LSHAttention(2, 4, n_buckets=4, seed=3)
    torch.manual_seed(0)
    mean = torch.stack([attend(q, k, v, dropout=0.5) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, attend(q, k, v), atol=0.25, rtol=0)
    assert_differs(attend(q, k, v, dropout=0.5), attend(q, k, v))


# what it computes


def test_work_grows_with_the_length_and_not_with_its_square():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(m, rounds):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            x = torch.zeros(1, 1, m, 16)
            LSHAttention(rounds, 8, n_buckets=4)(x, x, x, mask=causal_mask)
        return counter.get_total_flops()

    assert flops(4096, 2) == 4 * flops(1024, 2)
    assert flops(1024, 4) == 2 * flops(1024, 2)
    hashing, looking = 2 * 16 * 2, 2 * 2 * 16 * 16  # 2 axes; scores and average over 2 chunks of 8
    assert flops(1024, 1) == 1024 * (hashing + looking)


def test_nothing_of_size_n_times_m_is_made():
    largest = 0

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else [out]:
                if isinstance(x, torch.Tensor):
                    largest = max(largest, x.untyped_storage().nbytes() // x.element_size())
            return out

    m, rounds, chunk = 2048, 2, 8
    q = torch.randn(1, 1, m, 4)
    with Spy():
        LSHAttention(rounds, chunk, n_buckets=16, seed=0)(q, q, q, mask=causal_mask)
    assert largest <= max(m * rounds * 2 * chunk, m * rounds * 16)
    assert largest < m * m / 50


# causality


def test_later_tokens_never_lend_their_values():
    q, k, v = qkv()
    attend, before = LSHAttention(3, 3, n_buckets=4, seed=1), torch.arange(M) < 12
    changed = v.clone()
    changed[:, :, 12:] += 1
    assert not leaks(lambda v: attend(q, k, v, mask=causal_mask).permute(2, 0, 1, 3), v, changed, before)
    assert leaks(lambda v: attend(q, k, v, mask=causal_mask).permute(2, 0, 1, 3), v, changed, ~before)


def test_later_keys_move_the_chunks_of_earlier_ones():
    """In small chunks, what comes later decides whom an earlier position sees; in large ones it does not."""
    q, k, v = qkv()
    changed = k.clone()
    changed[:, :, 12:] = torch.nn.functional.normalize(torch.randn(B, H, M - 12, D, dtype=F64), dim=-1)
    before = torch.arange(M) < 12

    def leaking(chunk, **settings):
        attend = LSHAttention(2, chunk, n_buckets=4, seed=1, **settings)
        return leaks(lambda k: attend(q, k, v, mask=causal_mask).permute(2, 0, 1, 3), k, changed, before)

    assert leaking(3)
    assert leaking(3, across_buckets=True)
    assert leaking(8, across_buckets=True)
    exact = LSHAttention(2, M, n_buckets=4, seed=1)  # no bucket is larger than a chunk
    first, second = (exact(q, keys, v, mask=causal_mask)[:, :, :12] for keys in (k, changed))
    assert_same(first, second, 1e-12)


def test_cached_equals_uncached_where_no_bucket_is_larger_than_a_chunk():
    q, k, v = qkv()
    attend = LSHAttention(3, M, n_buckets=8, seed=1)
    whole, cache = attend(q, k, v, mask=causal_mask), KVCache(attend)
    steps = [cache(q[:, :, i : i + 1], k[:, :, i : i + 1], v[:, :, i : i + 1], mask=causal_mask) for i in range(M)]
    assert_same(torch.cat(steps, 2), whole)
    small = LSHAttention(3, 2, n_buckets=2, seed=1)
    cache = KVCache(small)
    steps = [cache(q[:, :, i : i + 1], k[:, :, i : i + 1], v[:, :, i : i + 1], mask=causal_mask) for i in range(M)]
    assert_differs(torch.cat(steps, 2), small(q, k, v, mask=causal_mask))


# transformers


class SameRotations(LSHAttention):
    """Draws its matrices as transformers does for hash_seed=7."""

    def rotations(self, heads, d, length):
        generator = torch.Generator().manual_seed(7)
        shape = heads, d, self.n_rounds, sum(self.factors) // 2
        drawn = torch.randn(shape, generator=generator, dtype=F64)
        return [part.transpose(1, 2) for part in drawn.split([f // 2 for f in self.factors], -1)]


RELEASED = {"across_buckets": True, "count_once": False, "circular": True}


def both(factors, causal, rounds=3, **settings):
    config = ReformerConfig(
        hidden_size=H * D, num_attention_heads=H, attention_head_size=D, num_hashes=rounds, num_buckets=list(factors),
        lsh_attn_chunk_length=5, hash_seed=7, is_decoder=causal, lsh_attention_probs_dropout_prob=0.0,
        attn_layers=["lsh"],
    )  # fmt: skip
    theirs = LSHSelfAttention(config).double().eval()
    ours = SharedQKAttention(H * D, H, attend=SameRotations(rounds, 5, n_buckets=factors, **(RELEASED | settings)))
    ours.q.weight, ours.v.weight, ours.o = theirs.query_key.weight, theirs.value.weight, torch.nn.Identity()
    torch.nn.init.normal_(ours.q.weight, std=0.5)
    torch.nn.init.normal_(ours.v.weight, std=0.5)
    return ours.double(), theirs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("factors", [(6,), (4, 2)])
def test_equals_transformers(causal, factors, parity):
    ours, theirs = both(factors, causal)
    x = torch.randn(B, 20, H * D, dtype=F64)
    band = Band(right=0 if causal else None)
    keep = torch.ones(B, 20, dtype=torch.bool)
    keep[1, 13:] = False
    padded = ours(x, mask=Band(right=band.right, keep=keep))
    mine = [ours(x, mask=band), padded]
    other = [theirs(x).hidden_states, theirs(x, attention_mask=keep).hidden_states]
    configuration = (
        f"{' · '.join(map(str, factors))} buckets, {'causal' if causal else 'both ways'}, with and without padding"
    )
    parity("LSHAttention", "transformers' LSHSelfAttention", configuration, mine, other)
    assert_differs(padded, ours(x, mask=band))


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_equal_transformers(causal):
    ours, theirs = both((4, 2), causal)
    x = torch.randn(B, 20, H * D, dtype=F64, requires_grad=True)
    out = torch.randn(B, 20, H * D, dtype=F64)
    wanted = [x, ours.q.weight, ours.v.weight]
    mine = torch.autograd.grad((ours(x, mask=Band(right=0 if causal else None)) * out).sum(), wanted)
    other = torch.autograd.grad((theirs(x).hidden_states * out).sum(), wanted)
    for a, b in zip(mine, other):
        assert_same(a, b)


@pytest.mark.parametrize(
    "paper",
    [{"circular": False, "across_buckets": False}, {"circular": False, "count_once": True}, {"circular": False}],
    ids=str,
)
def test_what_transformers_does_otherwise_shows(paper):
    ours, theirs = both((6,), False, **paper)
    x = torch.randn(B, 20, H * D, dtype=F64)
    assert_differs(ours(x), theirs(x).hidden_states)


def test_errors():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="n_rounds=0 and chunk=4 must be at least 1"):
        LSHAttention(0, 4)
    with pytest.raises(ValueError, match="n_rounds=1 and chunk=0"):
        LSHAttention(1, 0)
    with pytest.raises(ValueError, match=r"factors=\(4, 3\) must be even"):
        LSHAttention(n_buckets=(4, 3))
    for settings in ({}, {"across_buckets": True}, {"count_once": False}):
        with pytest.raises(ValueError, match="circular=True needs across_buckets=True and count_once=False"):
            LSHAttention(circular=True, **settings)
    with pytest.raises(ValueError, match="q has n=23 positions, k only m=22"):
        LSHAttention()(q, k[:, :, 1:], v[:, :, 1:])
    with pytest.raises(TypeError, match="mask must be bool"):
        LSHAttention()(q, k, v, mask=torch.zeros(M, M))
    with pytest.raises(ValueError, match=f"keep is for 22 keys, but there are m={M}"):
        LSHAttention()(q, k, v, mask=Band(keep=torch.ones(B, M - 1, dtype=torch.bool)))
