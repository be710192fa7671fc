"""Buckets of distances, shared maps and the encoder; against transformers in tests/checkpoints."""

import math

import pytest
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.layer_norm import LayerNorm
from papercode.encoders.deberta_attention import clipped
from papercode.encoders.deberta_v3 import (
    DeBERTaV3,
    DeBERTaV3ForMaskedLM,
    DeBERTaV3ForSentences,
    LogTable,
    log_buckets,
)

V, K, FAR, D, HEADS, D_FF, LAYERS, B, N = 23, 4, 11, 14, 7, 19, 2, 3, 13
SIZES = {"k": K, "max_distance": FAR, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def made(**changes):
    return randomise(DeBERTaV3(V, **SIZES | changes)).eval()


def texts(b=B, n=N):
    return torch.randint(V, (b, n))


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_buckets_by_hand():
    """k = 4, so 2 is the last distance of its own; from 2 to 8 is one factor of 4 in one step."""
    found = log_buckets(torch.arange(-10, 11), 4, 9)
    assert found.tolist() == [-4, -4, -3, -3, -3, -3, -3, -3, -2, -1, 0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4]
    assert clipped(found, 4).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize(("k", "far"), [(256, 512), (32, 128), (6, 31), (7, 31), (64, 512), (8, 16), (2, 5)])
def test_buckets_are_those_of_the_released_code(k, far):
    """For every distance, though it computes in float32; bucket after bucket, never back."""
    distances = torch.arange(-2 * far, 2 * far + 1)
    found = log_buckets(distances, k, far)
    assert torch.equal(found, make_log_bucket_position(distances, k, far).long())
    assert torch.equal(found, -found.flip(0))
    assert (found.diff() >= 0).all()
    near = distances.abs() <= k // 2
    assert torch.equal(found[near], distances[near])
    for distance in range(k // 2 + 1, 2 * far):
        c = k // 2
        wanted = math.ceil(math.log(distance / c) / math.log((far - 1) / c) * (c - 1) - 1e-9) + c
        assert found[distances == distance].item() == wanted
    if k % 2 == 0:
        assert found[distances == far - 1].item() == k - 1


def test_the_released_sizes_use_all_their_rows_but_one():
    """512 positions, 256 buckets on each side: -255 to 255, so row 0 is never read."""
    rows = LogTable(256, 512, 3).bucket(torch.arange(-511, 512))
    assert (rows.min().item(), rows.max().item(), len(rows.unique())) == (1, 511, 511)


def test_the_table():
    table = randomise(LogTable(K, FAR, D))
    rows, norm = table.vectors.weight, table.norm
    centred = rows - rows.mean(-1, keepdim=True)
    wanted = norm.gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-7).sqrt() + norm.bias
    assert_same(table.table(), wanted)
    for n in (1, 2, 5, 13, 29):
        place = torch.arange(n)
        index = clipped(log_buckets(place[:, None] - place, K, FAR), K)
        found = table(n)
        assert_same(found.table[found.rows], wanted[index])
        assert found.rows.min() == 0
        assert found.rows.max() == len(found.table) - 1
    plain = randomise(LogTable(K, FAR, D, None))
    assert plain.norm is None
    assert torch.equal(plain.table(), plain.vectors.weight)
    one_by_one = LogTable(5, 0, D)
    assert one_by_one.bucket(torch.arange(-7, 8)).tolist() == clipped(torch.arange(-7, 8), 5).tolist()


def test_a_text_may_stand_anywhere():
    model, x = made(), texts(1, 6)
    padded = texts(1, 11)
    padded[:, 3:9] = x
    keep = ((torch.arange(11) >= 3) & (torch.arange(11) < 9))[None]
    assert_same(model(padded, keep)[:, 3:9], model(x), 1e-12)
    assert_differs(model(padded)[:, 3:9], model(x))


def test_padding_does_not_leak():
    model, x = made(), texts()
    keep = torch.arange(N) < torch.tensor([N, 5, 1])[:, None]
    other = torch.where(keep, x, (x + 1) % V)
    assert not leaks(lambda x: model(x, keep), x, other, keep)
    assert leaks(model, x, other, keep)


def test_within_a_bucket_the_distance_does_not_matter():
    """One layer, k = 4: distances 3 to 8 are one bucket, 9 and more another."""
    model, x = made(n_layers=1, max_distance=9), texts(1)
    inside = torch.tensor([0, 1, 2, 8, 7, 6, 5, 4, 3, *range(9, 13)])
    assert_same(model(x[:, inside])[:, 0], model(x)[:, 0], 1e-12)
    assert_differs(model(x[:, torch.tensor([0, 2, 1, *range(3, 13)])])[:, 0], model(x)[:, 0])


def test_defaults_and_published_sizes():
    with torch.device("meta"):
        base, large = DeBERTaV3(), DeBERTaV3(d_model=1024, n_heads=16, d_ff=4096, n_layers=24)
        small, xsmall = DeBERTaV3(n_layers=6), DeBERTaV3(d_model=384, n_heads=6, d_ff=1536)
    assert count(base.words) == 98_380_800
    backbones = [count(model) - count(model.words) for model in (base, large, small, xsmall)]
    assert backbones == [85_450_752, 302_837_760, 42_923_520, 21_491_712]
    assert (base.relative.k, base.relative.max_distance, base.relative.vectors.num_embeddings) == (256, 512, 512)
    norms = [module for module in base.modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 26
    assert {norm.eps for norm in norms} == {1e-7}
    assert base.dropout.p == base.layers[0].attention.dropout == 0.1
    assert made(norm_table=False).relative.norm is None


def test_heads():
    model, x = randomise(DeBERTaV3ForSentences(DeBERTaV3(V, **SIZES), 5, 0.5)).eval(), texts()
    assert model(x).shape == (B, 5)
    assert model.dropout.p == 0.5
    lm = DeBERTaV3ForMaskedLM(DeBERTaV3(V, **SIZES), 31)
    assert (lm.decoder.passes, lm.decoder.add_states, lm.decoder.positions.num_embeddings) == (2, True, 31)
    assert lm(x).shape == (B, N, V)


def test_errors():
    with pytest.raises(ValueError, match=r"need k=1 >= 2 and max_distance=9 > k // 2 \+ 1"):
        LogTable(1, 9, D)
    with pytest.raises(ValueError, match=r"need k=8 >= 2 and max_distance=5 > k // 2 \+ 1"):
        log_buckets(torch.arange(3), 8, 5)
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        LogTable(0, 9, D)
