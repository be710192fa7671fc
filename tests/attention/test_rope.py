"""Rotary positions: by hand, as the matrix of the paper, against four references, with caches, padding and packing."""

import copy
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, RoFormerConfig, RoFormerModel
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rotary
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_rotary
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotary

import papercode.attention.rope as rope
from helpers import assert_differs, assert_same, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.masks import Band
from papercode.attention.rope import Rotary, rotate, turns
from papercode.attention.sinusoids import frequencies
from papercode.attention.transformer import (
    EncoderLayer,
    FeedForward,
    MultiHeadAttention,
    PostNorm,
    attention,
    causal_mask,
)
from papercode.attention.wrapping import wrapped

B, H, G, N, M, D, E = 2, 6, 3, 5, 7, 10, 11


def qkv(n=N, m=M, d=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, H, n, d), (B, G, m, d), (B, G, m, E)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def at(*positions):
    return torch.tensor(positions)


def matrix(position, r, base=10000.0):
    """Eq. 15, entry by entry."""
    R = torch.zeros(r, r, dtype=torch.float64)
    for i in range(r // 2):
        angle = position * base ** (-2 * i / r)
        R[2 * i, 2 * i] = R[2 * i + 1, 2 * i + 1] = math.cos(angle)
        R[2 * i, 2 * i + 1], R[2 * i + 1, 2 * i] = -math.sin(angle), math.sin(angle)
    return R


def test_by_hand():
    """Two features turn by one radian a position: a quarter turn counterclockwise is position pi/2."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    quarter = rotate(x, *turns(torch.tensor([math.pi / 2], dtype=torch.float64), 2))
    assert_same(quarter, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), 1e-12)
    # four features: the second pair turns a hundredth of the first
    cos, sin = turns(at(3), 4)
    assert_same(cos[0], torch.tensor([math.cos(3), math.cos(0.03)], dtype=torch.float64), 1e-12)
    assert_same(sin[0], torch.tensor([math.sin(3), math.sin(0.03)], dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("base", [10000.0, 500000.0, 7.0])
def test_the_matrix_of_the_paper(base, parity):
    x = torch.randn(N, D, dtype=torch.float64)
    expected = torch.stack([matrix(p, D, base) @ x[p] for p in range(N)])
    ours = rotate(x, *turns(torch.arange(N), D, base))
    parity("RoPE", "the matrix of the paper", f"base {base:.0f}", ours, expected, 1e-12)
    assert_differs(rotate(x, *turns(torch.arange(N), D, 1.1 * base)), expected)


def test_frequencies_are_those_of_the_sinusoids():
    cos, sin = turns(at(1), D)
    assert_same(torch.atan2(sin, cos)[0], frequencies(D), 1e-15)


def test_halves_are_the_same_turn_of_features_in_another_order():
    x, angles = torch.randn(B, H, N, D, dtype=torch.float64), turns(torch.arange(N), D)
    order = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])  # first members of the pairs, then second ones
    assert_same(rotate(x[..., order], *angles, halves=True), rotate(x, *angles)[..., order])
    assert_differs(rotate(x, *angles, halves=True), rotate(x, *angles))


@pytest.mark.parametrize("halves", [False, True])
def test_scores_know_distances_only(halves):
    q, k = torch.randn(2, 1, D, dtype=torch.float64)

    def score(m, n):
        turned = (rotate(x, *turns(at(p), D), halves=halves) for x, p in ((q, m), (k, n)))
        return (next(turned) * next(turned)).sum()

    for m, n in [(0, 0), (9, 4), (4, 9), (3, 300)]:
        for shift in (1, 17, 100_000):
            assert_same(score(m + shift, n + shift), score(m, n), 1e-10)
    assert_differs(score(9, 4), score(10, 4))
    assert_differs(score(9, 4), score(4, 9))  # the sign of the distance is known


def test_lengths_stay_and_turns_add_up():
    x = torch.randn(N, D, dtype=torch.float64)
    there = rotate(x, *turns(torch.full((N,), 5), D))
    assert_same(there.norm(dim=-1), x.norm(dim=-1))
    assert_same(rotate(there, *turns(torch.full((N,), -5), D)), x)
    assert_same(rotate(there, *turns(torch.full((N,), 8), D)), rotate(x, *turns(torch.full((N,), 13), D)))
    assert torch.equal(rotate(x, *turns(torch.zeros(N), D)), x)


# against others' code


@pytest.fixture(scope="module")
def roformer():
    config = RoFormerConfig(
        vocab_size=29, embedding_size=14, hidden_size=14, num_hidden_layers=2, num_attention_heads=1,
        intermediate_size=19, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = randomise(RoFormerModel(config)).eval()
    table = model.encoder.embed_positions.weight  # computed in float64 by the reference, but then rounded to float32
    angles = np.arange(32)[:, None] / np.power(10000, 2 * np.arange(7) / 14)
    exact = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], 1))
    table.data = torch.as_tensor(table.data) * 0 + exact
    return model


def ours_from(model, attend):
    d = model.config.hidden_size

    def layer(theirs):
        ours = MultiHeadAttention(d, 1, attend=attend)
        self_attention, output = theirs.attention.self, theirs.attention.output
        ours.q, ours.k, ours.v, ours.o = self_attention.query, self_attention.key, self_attention.value, output.dense
        feed_forward = FeedForward(d, model.config.intermediate_size, torch.nn.GELU())
        feed_forward.expand, feed_forward.contract = theirs.intermediate.dense, theirs.output.dense
        norms = iter((output.LayerNorm, theirs.output.LayerNorm))

        def residual():
            norm, reference = LayerNorm(d, eps=model.config.layer_norm_eps), next(norms)
            norm.load_state_dict(dict(zip(norm.state_dict(), (reference.weight, reference.bias))))
            return PostNorm(norm)

        return EncoderLayer(ours, feed_forward, residual).double()

    return [layer(theirs) for theirs in model.encoder.layer]


def test_roformer(roformer, parity):
    tokens, keep = torch.randint(29, (B, 9)), torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    with torch.no_grad():
        reference = roformer(tokens, attention_mask=keep.long()).last_hidden_state

        def encode(attend):
            x = roformer.embeddings(tokens)
            for layer in ours_from(roformer, attend):
                x = layer(x, mask=Band(keep=keep))
            return x

        parity("RoPE", "transformers.RoFormerModel", "2 layers, padding", encode(Rotary())[keep], reference[keep])
        for wrong in (attention, Rotary(halves=True), Rotary(base=1000.0), Rotary(width=2)):
            assert_differs(encode(wrong)[keep], reference[keep])


def reference_angles(r, base=10000.0):
    return torch.from_numpy(np.arange(N)[None, :, None] / np.power(base, np.arange(0, r, 2) / r))  # (1 n r/2)


def test_llama(parity):
    x, y = torch.randn(2, B, H, N, D, dtype=torch.float64)
    angles = torch.cat([reference_angles(D, 500000.0)] * 2, -1)
    reference = llama_rotary(x, y, angles.cos(), angles.sin())
    ours = turns(torch.arange(N), D, 500000.0)
    turned = [rotate(z, *ours, halves=True) for z in (x, y)]
    parity("RoPE", "transformers' LLaMA", "halves, base 500000", turned, reference)
    for z, expected in zip((x, y), reference):
        assert_differs(rotate(z, *ours), expected)
    config = LlamaConfig(
        hidden_size=D * H, num_attention_heads=H, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    cos, sin = LlamaRotaryEmbedding(config)(x, torch.arange(N)[None])  # in float32 inside
    assert_same(torch.cat([ours[0]] * 2, -1)[None], cos, 1e-6)
    assert_same(torch.cat([ours[1]] * 2, -1)[None], sin, 1e-6)


@pytest.mark.parametrize("r", [2, 6, D])
def test_the_first_features_only(r, parity):
    """GPT-J turns neighbours, GPT-NeoX halves; both may leave features as they are."""
    x, y = torch.randn(2, B, H, N, D, dtype=torch.float64)
    angles, ours = reference_angles(r), turns(torch.arange(N), r)
    expected = gptj_rotary(x.transpose(1, 2)[..., :r], angles.sin(), angles.cos()).transpose(1, 2)
    parity("RoPE", "transformers' GPT-J", f"the first {r} features", rotate(x, *ours)[..., :r], expected)
    assert torch.equal(rotate(x, *ours)[..., r:], x[..., r:])
    twice = torch.cat([angles] * 2, -1)
    expected = neox_rotary(x, y, twice.cos(), twice.sin())[1]
    parity("RoPE", "transformers' GPT-NeoX", f"the first {r} features", rotate(y, *ours, halves=True), expected)
    assert_differs(rotate(y, *turns(torch.arange(N) + 1, r), halves=True), expected)


# the attend


@pytest.mark.parametrize("options", [{}, {"halves": True}, {"width": 4}, {"base": 50.0, "width": 6, "halves": True}])
def test_attend_is_attention_of_turned_queries_and_keys(options):
    q, k, v = qkv()
    r, base = options.get("width", D), options.get("base", 10000.0)
    turned = [
        rotate(x, *turns(torch.arange(M - x.shape[2], M), r, base), halves=options.get("halves", False)) for x in (q, k)
    ]
    bias = torch.randn(H, N, M, dtype=torch.float64)
    expected = attention(*turned, v, mask=causal_mask, bias=bias, scale=0.3)
    ours = Rotary(**options)(q, k, v, mask=causal_mask, bias=bias, scale=0.3)
    assert_same(ours, expected)
    for wrong in ({}, {"mask": causal_mask, "scale": 0.3}, {"mask": causal_mask, "bias": bias}):
        assert_differs(Rotary(**options)(q, k, v, **wrong), expected)
    assert_differs(attention(q, k, v, mask=causal_mask, bias=bias, scale=0.3), expected)


@pytest.mark.parametrize(("n", "m"), [(N, M), (M, N), (1, M), (4, 4)])
def test_queries_are_the_last_n_of_m(n, m):
    """More queries than keys stand before position 0, as in the mask."""
    q, k, v = qkv(n, m)
    scores = torch.empty(B, H, n, m, dtype=torch.float64)
    for h, i, j in itertools.product(range(H), range(n), range(m)):
        query, key = q[:, h, i] @ matrix(m - n + i, D).T, k[:, h // 2, j] @ matrix(j, D).T
        scores[:, h, i, j] = (query * key).sum(-1)
    weights = (scores * D**-0.5).softmax(-1)
    assert_same(Rotary()(q, k, v), weights @ v.repeat_interleave(2, 1))
    assert_same(Rotary()(q, k, v, start=0), Rotary()(q, k, v, start=1234))  # only distances count
    if n != m:
        aligned = Rotary()(q, k, v, query_positions=torch.arange(n))
        assert_differs(aligned, Rotary()(q, k, v))


def test_start_is_the_position_of_the_first_key():
    q, k, v = qkv()
    seen = {}

    def look(q, k, v):
        seen.update(q=q, k=k, v=v)
        return attention(q, k, v)

    Rotary(look)(q, k, v, start=11)
    assert_same(seen["k"], rotate(k, *turns(torch.arange(11, 11 + M), D)))
    assert_same(seen["q"], rotate(q, *turns(torch.arange(11 + M - N, 11 + M), D)))
    assert seen["v"] is v


def test_positions_given_a_row():
    """Padded in front, a row must be what it is alone; packed, the second text must start at 0 again."""
    q, k, v = qkv(M, M)
    positions = torch.stack([torch.arange(M), torch.arange(M) - 3])
    keep = torch.ones(B, M, dtype=torch.bool)
    keep[1, :3] = False
    ours = Rotary()(q, k, v, positions=positions, mask=Band(right=0, keep=keep))
    assert_same(ours[:1], Rotary()(q[:1], k[:1], v[:1], mask=causal_mask))
    assert_same(ours[1:, :, 3:], Rotary()(q[1:, :, 3:], k[1:, :, 3:], v[1:, :, 3:], mask=causal_mask))
    packed = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    text = torch.tensor([0] * 4 + [1] * 3)
    ours = Rotary()(q, k, v, positions=packed, mask=(text[:, None] == text) & causal_mask(M))
    second = slice(4, None)
    assert_same(ours[:, :, second], Rotary()(q[:, :, second], k[:, :, second], v[:, :, second], mask=causal_mask))
    assert_differs(Rotary()(q, k, v, positions=packed), Rotary()(q, k, v))


def test_positions_of_queries_and_keys():
    q, k, v = qkv()
    keys, queries = torch.randint(0, 90, (B, M)), torch.randint(0, 90, (B, N))
    expected = attention(
        torch.stack([rotate(q[b], *turns(queries[b], D)) for b in range(B)]),
        torch.stack([rotate(k[b], *turns(keys[b], D)) for b in range(B)]),
        v,
    )
    assert_same(Rotary()(q, k, v, positions=keys, query_positions=queries), expected)
    assert_same(Rotary()(q, k, v, positions=keys), Rotary()(q, k, v, positions=keys, query_positions=keys[:, M - N :]))
    assert_same(Rotary()(q, k, v, query_positions=torch.arange(M - N, M)), Rotary()(q, k, v))
    assert_differs(Rotary()(q, k, v, query_positions=queries), expected)
    part = Rotary(width=4, halves=True, base=50.0)
    assert_same(part(q, k, v, positions=torch.arange(M)), part(q, k, v))
    assert_same(part(q, k, v, positions=torch.arange(M)[None]), part(q, k, v))
    half = Rotary()(q, k, v, positions=torch.arange(M) / 2)  # what stands between two tokens has a position, too
    assert_differs(half, Rotary()(q, k, v))


@pytest.mark.parametrize(
    "pieces", [[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 3), (3, 4), (4, 5)], [(0, 2), (2, 5)]]
)
@pytest.mark.parametrize("options", [{}, {"halves": True, "width": 4}])
def test_cached_is_uncached_in_both_orders(pieces, options):
    layer, x = randomise(MultiHeadAttention(H * D, H)), torch.randn(B, N, H * D, dtype=torch.float64)
    layer.attend = Rotary(**options)
    whole = layer(x, mask=causal_mask)
    with torch.no_grad():
        with wrapped(layer, KVCache) as caches:  # around: keys are kept as they were
            around = [layer(x[:, a:b], mask=causal_mask) for a, b in pieces]
            assert_same(caches[""].k[:, :, 0], layer.k(x[:, 0]).unflatten(-1, (H, D)))
        assert_same(torch.cat(around, 1), whole)
        with wrapped(layer, lambda _: Rotary(KVCache(attention), **options)):  # inside: keys are kept turned
            inside = [layer(x[:, a:b], mask=causal_mask, start=a) for a, b in pieces]
        assert_same(torch.cat(inside, 1), whole)
        with wrapped(layer, lambda _: Rotary(KVCache(attention), **options)):
            forgotten = [layer(x[:, a:b], mask=causal_mask) for a, b in pieces]
        assert_differs(torch.cat(forgotten, 1), whole)


def test_cached_rows_of_different_lengths():
    """The prompts are padded in front; positions say so, in both orders."""
    layer, x = randomise(MultiHeadAttention(H * D, H)), torch.randn(B, N, H * D, dtype=torch.float64)
    positions = torch.stack([torch.arange(N), torch.arange(N) - 2])
    keep = positions >= 0
    layer.attend = Rotary()
    alone = [layer(x[b : b + 1, keep[b]], mask=causal_mask) for b in range(B)]
    for wrap, seen in (
        (lambda attend: KVCache(attend), lambda a, b: positions[:, :b]),
        (lambda _: Rotary(KVCache(attention)), lambda a, b: positions[:, a:b]),
    ):
        with torch.no_grad(), wrapped(layer, wrap):
            steps = [
                layer(x[:, a:b], mask=Band(right=0, keep=keep[:, :b]), positions=seen(a, b))
                for a, b in ((0, 3), (3, 4), (4, 5))
            ]
        whole = torch.cat(steps, 1)
        for b in range(B):
            assert_same(whole[b : b + 1, keep[b]], alone[b])


def test_gradients():
    q, k, v = (x[:1, :, :, :4].clone().requires_grad_() for x in qkv(3, 4))
    for attend in (Rotary(), Rotary(width=2, halves=True)):
        assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, mask=causal_mask), (q, k, v))  # noqa: B023


# precision and the table


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_late_positions_in_low_precision(dtype):
    """Turned vectors are off by no more than one rounding of what is stored."""
    x = torch.randn(1, 1, 3, 64).to(dtype)
    kept = {}
    Rotary(lambda q, k, v: kept.update(q=q) or v)(x, x, x, start=100_003)
    exact = rotate(x.double(), *turns(torch.arange(100_003, 100_006), 64))
    assert kept["q"].dtype == dtype
    error = (kept["q"].double() - exact).abs()
    if dtype == torch.float32:
        assert error.max() < torch.finfo(dtype).eps * exact.abs().max()
    else:  # rounded once, at the end: half of the last bit
        assert (error <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 1e-6).all()
    if dtype == torch.bfloat16:  # angles in bfloat16: position 100,003 itself is rounded to 99,840
        rough = torch.arange(100_003, 100_006).to(dtype)[:, None] * frequencies(64).to(dtype)
        assert_differs(rotate(x, rough.cos(), rough.sin()).double(), exact, by=1.0)


def test_angles_in_float32_are_off_at_late_positions():
    exact = turns(at(1_000_003), 64)[0]
    rough = (torch.tensor(1_000_003.0) * frequencies(64).float()).cos().double()
    assert_differs(rough[None], exact, by=1e-2)


def test_the_table_serves_any_order_of_lengths_and_dtypes(monkeypatch):
    attend = Rotary()
    for n, start, dtype in [
        (3, 0, torch.float64),
        (7, 0, torch.float64),
        (2, 90, torch.float64),
        (5, 3, torch.float32),
    ]:
        q, k, v = (x.to(dtype) for x in qkv(n, n))
        tolerance = 1e-7 if dtype == torch.float64 else 1e-5
        assert_same(attend(q, k, v, start=start), Rotary()(q, k, v, positions=torch.arange(n)), tolerance)
    assert {len(cos) for cos, _ in attend._tables.values()} == {128, 8}  # grown by doubling, one for each dtype
    narrow = tuple(x[..., :6] for x in qkv())  # heads of another width, in another layer
    assert_same(attend(*narrow), Rotary()(*narrow))
    assert not attend.state_dict()
    assert not [*attend.parameters(), *attend.buffers()]
    monkeypatch.setattr(rope, "TABLE", 16)
    q, k, v = qkv()
    late = Rotary(base=50.0)
    assert_same(late(q, k, v, start=15), Rotary(base=50.0)(q, k, v))
    assert not late._tables  # not kept


def test_generating_first_and_training_then():
    layer = MultiHeadAttention(H * D, H, attend=Rotary())
    x = torch.randn(B, N, H * D)
    with torch.inference_mode():
        generated = layer(x)
    trained = layer(x)
    trained.sum().backward()
    assert torch.equal(trained, generated)
    assert layer.q.weight.grad.abs().sum() > 0


def test_models_with_it_are_copied_saved_and_counted():
    layer = randomise(MultiHeadAttention(H * D, H, attend=Rotary(width=4)))
    x = torch.randn(B, N, H * D, dtype=torch.float64)
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    assert layer.to("meta")(x.to("meta")).shape == x.shape


COMPILED = """
import torch
from papercode.attention.rope import Rotary
torch.manual_seed(0)
plain, compiled = Rotary(), torch.compile(Rotary(), backend="eager", fullgraph=True)
for n, start in ((5, 0), (3, 0), (5, 0), (40, 0), (1, 40), (1, 41)):  # the table is made and outgrown in the graph
    q = torch.randn(2, 3, n, 8, dtype=torch.float64)
    torch.testing.assert_close(compiled(q, q, q, start=start), plain(q, q, q, start=start))
"""


@pytest.mark.slow
def test_compiled():
    """In another process, without the checks of shapes, which torch.compile cannot trace."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="d=7 must be even"):
        turns(at(1), 7)
    with pytest.raises(ValueError, match=r"base=1 must be more than 1"):
        turns(at(1), 4, 1)
    with pytest.raises(ValueError, match=r"base=0\.5 must be more than 1"):
        Rotary(base=0.5)
    for width in (3, 0, -2):
        with pytest.raises(ValueError, match=f"width={width} must be even and at least 2"):
            Rotary(width=width)
    with pytest.raises(ValueError, match="x has 10 features, fewer than the r=12"):
        rotate(q, *turns(torch.arange(N), 12))
    with pytest.raises(ValueError, match=r"heads have width 10: .* width=12 even and no more"):
        Rotary(width=12)(q, k, v)
    with pytest.raises(ValueError, match="heads have width 9: it must be even"):
        Rotary()(q[..., :9], k[..., :9], v)
    assert Rotary(width=8)(q[..., :9], k[..., :9], v).shape == (B, H, N, E)  # an odd head, an even part of it
    with pytest.raises(ValueError, match=r"positions has shape \(3,\), but must be \(7\) or \(2 7\)"):
        Rotary()(q, k, v, positions=torch.arange(3))
    with pytest.raises(ValueError, match=r"query_positions has shape \(3, 5\), but must be \(5\) or \(2 5\)"):
        Rotary()(q, k, v, query_positions=torch.zeros(3, N))
    with pytest.raises(ValueError, match="start=2 is for positions that are counted"):
        Rotary()(q, k, v, start=2, positions=torch.arange(M))
    with pytest.raises(ValueError, match="5 queries and only 3 keys: query_positions must be given"):
        Rotary()(q, k[:, :, :3], v[:, :, :3], positions=torch.arange(3))
    with pytest.raises(ValueError, match="no multiple of the 4 heads"):
        Rotary(lambda q, k, v, bias=None: q)(q, torch.randn(B, 4, M, D).double(), torch.randn(B, 4, M, E).double())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    q, k, v = (x.to(dtype) for x in qkv())
    for kwargs in ({}, {"start": 5000}, {"positions": torch.arange(M) + 9}):
        ours = Rotary()(q.cuda(), k.cuda(), v.cuda(), mask=causal_mask, **kwargs)
        expected = Rotary()(q.double(), k.double(), v.double(), mask=causal_mask, **kwargs)
        assert_same(ours.cpu().double(), expected, 1e-5 if dtype == torch.float32 else 3e-2)
        there = {name: x.cuda() if isinstance(x, torch.Tensor) else x for name, x in kwargs.items()}
        assert_same(Rotary()(q.cuda(), k.cuda(), v.cuda(), mask=causal_mask, **there), ours, 1e-5)
