"""The Reformer against transformers, weights and gradients, and by what must not change."""

import copy
import math
import pickle

import pytest
import torch
from test_lsh_attention import RELEASED, SameRotations
from torch import nn
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import ReformerForMaskedLM, ReformerModelWithLMHead

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.kv_cache import KVCache
from papercode.attention.lsh_attention import LSHAttention
from papercode.attention.masks import Band
from papercode.attention.reformer import PreNormed, Reformer
from papercode.attention.shared_qk import shared_qk_attention
from papercode.attention.transformer import causal_mask
from papercode.attention.wrapping import wrapped

B, V, SHAPE, D_MODEL, HEADS, D_FF, LAYERS = 2, 29, (4, 7), 21, 3, 23, 3
N = math.prod(SHAPE)
F64 = torch.float64


def model(attend=None, **kwargs):
    attend = LSHAttention(2, 4, n_buckets=4, seed=3) if attend is None else attend
    settings = {"d_model": D_MODEL, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS, "widths": (10, 11), "chunk": 5}
    return randomise(Reformer(V, shape=SHAPE, dropout=0.0, attend=attend, **(settings | kwargs)))


def tokens(n=N):
    return torch.randint(V, (B, n))


def transformers_reformer(ours, causal=True, rounds=3):
    config = ReformerConfig(
        hidden_size=D_MODEL, num_attention_heads=HEADS, attention_head_size=D_MODEL // HEADS, num_hashes=rounds,
        num_buckets=[4, 2], lsh_attn_chunk_length=7, hash_seed=7, is_decoder=causal, attn_layers=["lsh"] * LAYERS,
        lsh_attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, axial_pos_shape=SHAPE,
        axial_pos_embds_dim=(10, 11), feed_forward_size=D_FF, vocab_size=V, max_position_embeddings=N,
        layer_norm_eps=1e-5, tie_word_embeddings=False, chunk_size_feed_forward=4,
    )  # fmt: skip
    theirs = (ReformerModelWithLMHead if causal else ReformerForMaskedLM)(config).double()
    core = theirs.reformer
    pairs = [(core.embeddings.word_embeddings.weight, ours.embedding.weight)]
    for i, (a, b) in enumerate(zip(core.embeddings.position_embeddings.weights, ours.positions.axes)):
        pairs.append((a, b.unsqueeze(1 - i)))
    for a, b in zip(core.encoder.layers, ours.layers.blocks):
        attention, network = b.f.sublayer, b.g.module.sublayer
        pairs += [(a.attention.self_attention.query_key.weight, attention.q.weight)]
        pairs += [(a.attention.self_attention.value.weight, attention.v.weight)]
        pairs += [(a.attention.output.dense.weight, attention.o.weight)]
        for norm, mine in ((a.attention.layer_norm, b.f.norm), (a.feed_forward.layer_norm, b.g.module.norm)):
            pairs += [(norm.weight, mine.gain), (norm.bias, mine.bias)]
        for dense, mine in ((a.feed_forward.dense, network.expand), (a.feed_forward.output, network.contract)):
            pairs += [(dense.dense.weight, mine.weight), (dense.dense.bias, mine.bias)]
    pairs += [(core.encoder.layer_norm.weight, ours.norm.gain), (core.encoder.layer_norm.bias, ours.norm.bias)]
    pairs += [(theirs.lm_head.decoder.weight, ours.head.weight), (theirs.lm_head.bias, ours.head.bias)]
    assert {id(a) for a, _ in pairs} == {id(p) for p in theirs.parameters()}
    with torch.no_grad():
        for a, b in pairs:
            a.copy_(b)
    return theirs, pairs


@pytest.mark.parametrize("causal", [True, False])
def test_logits_and_gradients_equal_transformers(causal, parity):
    ours = model(SameRotations(3, 7, n_buckets=(4, 2), **RELEASED))
    ours.head.bias.data.zero_()  # transformers 5 has a bias of the head and does not add it
    theirs, pairs = transformers_reformer(ours, causal)
    x = tokens()
    logits = ours(x, mask=causal_mask if causal else None)
    other = theirs.train()(x).logits
    configuration = f"logits of two layers, {'causal' if causal else 'both ways'}"
    parity("Reformer", f"transformers.{type(theirs).__name__}", configuration, logits, other)
    out = torch.randn_like(logits)
    (other * out).sum().backward()  # transformers' own reversible layers
    (logits * out).sum().backward()
    for i, (a, b) in enumerate(pairs[:-1]):
        assert_same(b.grad if i not in (1, 2) else b._base.grad.unsqueeze(2 - i), a.grad)
    paper = model(SameRotations(3, 7, n_buckets=(4, 2)))
    assert_differs(paper(x, mask=causal_mask if causal else None), other)


def test_gradients_are_those_of_plain_autograd():
    ours, x = model(), tokens()
    wanted = list(ours.parameters())
    a = torch.autograd.grad(ours(x).square().mean(), wanted)
    ours.layers.forward = lambda x1, x2, **kwargs: ours.layers.run(x1, x2, 0, **kwargs)
    b = torch.autograd.grad(ours(x).square().mean(), wanted)
    for mine, plain in zip(a, b):
        assert_same(mine, plain)


def test_an_encoder_hides_padding():
    ours, x = model(), tokens()
    keep = torch.ones(B, N, dtype=torch.bool)
    keep[:, 20:] = False
    mask = Band(keep=keep)
    changed = torch.where(keep, x, (x + 1) % V)
    real = torch.arange(N) < 20
    assert not leaks(lambda x: ours.encode(x, mask).transpose(0, 1), x, changed, real)
    assert leaks(lambda x: ours.encode(x).transpose(0, 1), x, changed, real)
    assert_same(ours.encode(x, mask)[:, :20], ours.encode(x[:, :20]))
    assert_differs(ours(x, mask=None), ours(x))


def test_causal_where_nothing_is_cut_off():
    ours = model(LSHAttention(2, N, n_buckets=4, seed=3))
    x = tokens()
    changed = x.clone()
    changed[:, 15:] = (changed[:, 15:] + 1) % V
    assert_same(ours(x)[:, :15], ours(changed)[:, :15], 1e-12)
    assert_differs(ours(x)[:, 15:], ours(changed)[:, 15:])


def test_cached_equals_uncached():
    ours, x = model(LSHAttention(2, N, n_buckets=4, seed=3)), tokens()
    with torch.no_grad():
        whole = ours(x)
        with wrapped(ours, KVCache) as caches:
            steps = [ours(x[:, i : i + 1], start=i) for i in range(N)]
    assert len(caches) == LAYERS
    assert_same(torch.cat(steps, 1), whole)


def test_full_attention_in_its_place():
    x = tokens()
    everything = LSHAttention(60, N, n_buckets=2, seed=0)
    assert_same(model(shared_qk_attention)(x), model(everything)(x))
    assert_differs(model(shared_qk_attention)(x), model()(x))


def test_dropout_is_on_the_embedding_and_on_every_sublayer(monkeypatch):
    calls, plain = [], nn.functional.dropout

    def spy(x, p=0.5, training=True, inplace=False):
        if p:
            calls.append(x)
        return plain(x, p, training, inplace)

    monkeypatch.setattr(nn.functional, "dropout", spy)
    ours = Reformer(V, shape=SHAPE, d_model=D_MODEL, n_heads=HEADS, d_ff=D_FF, n_layers=2, dropout=0.25)
    with torch.no_grad():
        ours.train()(x := tokens())
    assert [tuple(call.shape) for call in calls] == [(B, N, D_MODEL)] * (1 + 2 * 2)
    assert torch.equal(calls[0], ours.embedding(x))  # before the positions are added


def test_prenormed():
    block = PreNormed(nn.Softmax(-1), nn.Flatten(1), dropout=0.0)
    x = torch.randn(2, 3, 4)
    flat = PreNormed(nn.Softmax(-1), nn.Identity())
    assert_same(flat(x), x.softmax(-1))
    assert isinstance(block.sublayer, nn.Flatten)


def test_full_size_on_the_meta_device():
    with torch.device("meta"):
        full = Reformer(256)
        assert full(torch.zeros(1, 128, dtype=torch.long)).shape == (1, 128, 256)
    d = 1024
    layer = 3 * d * d + 2 * d * 4096 + 4096 + d + 4 * d
    assert sum(p.numel() for p in full.parameters()) == 3 * layer + 256 * d + 256 * d + 4 * d + 2 * d * 256 + 256
    assert full.positions.shape == (256, 256)


def test_one_batch_can_be_overfitted():
    torch.manual_seed(0)
    ours = Reformer(V, shape=SHAPE, d_model=24, n_heads=2, d_ff=48, n_layers=2, dropout=0.0, attend=LSHAttention(2, 14))
    x = tokens()
    optimizer = torch.optim.Adam(ours.parameters(), 6e-3)
    for _ in range(80):
        loss = nn.functional.cross_entropy(ours(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_copies_and_pickles():
    ours, x = model(), tokens()
    expected = ours(x)
    assert torch.equal(copy.deepcopy(ours)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x), expected)


def test_errors():
    with pytest.raises(ValueError, match=r"widths=\(10, 10\) sum to 20, not to d_model=21"):
        model(widths=(10, 10))
    with pytest.raises(ValueError, match=r"positions 0 to 28 are not within the grid \(4, 7\)"):
        model()(tokens(N + 1))
