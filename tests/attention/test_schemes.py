"""Positions, caches and backends go together: fed in pieces equals fed at once, for each scheme on each backend."""

from functools import partial

import pytest
import torch
from torch import nn

from helpers import assert_differs, randomise
from papercode.attention.alibi import ALiBi
from papercode.attention.backends import auto, sdpa
from papercode.attention.flash_attention import flash_attention, tiled_attention
from papercode.attention.flex import flex
from papercode.attention.grouped_query import GroupedQueryAttention
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.relative_position import RelativePosition
from papercode.attention.rope import Rotary
from papercode.attention.sinusoids import positions
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask
from papercode.attention.transformer_xl_relative import RelativePositions
from papercode.attention.windowed import windowed
from papercode.attention.wrapping import wrapped

B, N, D, H, W = 2, 8, 24, 4, 6  # W: width of a head
SCHEMES = {
    "sinusoids": lambda attend: attend,
    "rotary": lambda attend: Rotary(attend),
    "alibi": lambda attend: ALiBi(attend),
    "relative keys": lambda attend: RelativePosition(W, 3, values=False, attend=attend),
    "Transformer-XL": lambda attend: RelativePositions(D, H, W, attend=attend),
}
BACKENDS = {
    "attention": attention,
    "sdpa": sdpa,
    "tiled_attention": partial(tiled_attention, block=4),
    "flash_attention": flash_attention,
    "flex": flex,
    "windowed": windowed,
    "auto": auto,
}


def layers(scheme, attend, grouped):
    torch.manual_seed(0)
    make = partial(GroupedQueryAttention, n_groups=2) if grouped else MultiHeadAttention
    layer = randomise(make(D, H, attend=SCHEMES[scheme](attend)))
    return layer.float().eval()  # the kernels know no float64


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cached_equals_uncached(scheme, backend, grouped):
    mask = Band(4, 0) if backend == "windowed" else causal_mask
    x = torch.randn(B, N, D)
    if scheme == "sinusoids":
        x = x + positions(N, D).float()
    plain, layer = layers(scheme, attention, grouped), layers(scheme, BACKENDS[backend], grouped)
    rows = torch.tensor([1, 1])  # beam search drops and doubles hypotheses
    after = torch.cat([x[rows, :5], x[:, 5:]], 1)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected, expected_after = (plain(y, mask=mask) for y in (x, after))
        torch.testing.assert_close(layer(x, mask=mask), expected, rtol=1e-4, atol=1e-5)
        with wrapped(layer, KVCache) as caches:
            pieces = [layer(x[:, a:b], mask=mask) for a, b in [(0, 4), (4, 5)]]
            for cache in caches.values():
                assert cache.k.shape == (B, 2 if grouped else H, 5, W)
                cache.reorder(rows)
            pieces += [layer(x[:, i : i + 1], mask=mask) for i in range(5, N)]
    torch.testing.assert_close(torch.cat(pieces[:2], 1), expected[:, :5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(pieces[2:], 1), expected_after[:, 5:], rtol=1e-4, atol=1e-5)
    assert_differs(expected_after[:, 5:], expected[:, 5:])


def test_the_schemes_are_schemes():
    """Each tells positions apart: without one, attention to a set of keys does not know their order."""
    x = torch.randn(1, N, D)
    swapped = x[:, [1, 0, *range(2, N)]]
    with torch.no_grad():
        for scheme in set(SCHEMES) - {"sinusoids"}:
            layer = layers(scheme, attention, False)
            assert_differs(layer(swapped)[:, 2:], layer(x)[:, 2:])
        layer = layers("sinusoids", attention, False)
        torch.testing.assert_close(layer(swapped)[:, 2:], layer(x)[:, 2:], rtol=1e-4, atol=1e-5)
        assert isinstance(layer, nn.Module)
