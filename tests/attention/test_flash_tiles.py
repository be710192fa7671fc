"""Which tiles there are, and what is in them."""

import itertools

import pytest
import torch

from helpers import assert_same
from papercode.attention.flash_tiles import Tiles, part
from papercode.attention.masks import Band
from papercode.attention.transformer import causal_mask


def tiles(n, m, mask=None, block=4, g=3, **settings):
    q, k = torch.randn(2, 3, n, 5, dtype=torch.float64), torch.randn(2, g, m, 5, dtype=torch.float64)
    values = {"bias": None, "scale": None, "dropout": 0.0} | settings
    return Tiles(q, k, mask, block=block, **values), q, k


@pytest.mark.parametrize(("n", "m"), [(11, 11), (5, 13), (13, 5)])
@pytest.mark.parametrize("mask", [None, causal_mask, Band(2, 0), Band(2, 3), Band(0, 0), Band(left=1)])
def test_every_visible_score_lies_in_one_tile_and_empty_ones_in_none(n, m, mask):
    cut, *_ = tiles(n, m, mask)
    seen = torch.ones(n, m, dtype=torch.bool) if mask is None else mask(n, m)
    count = torch.zeros(n, m, dtype=int)
    for rows in cut.rows():
        for columns in cut.columns(rows):
            count[rows, columns] += 1
            assert seen[rows, columns].any() or mask is not None
            assert columns.stop - columns.start <= 4
    assert count.max() == 1
    assert (count[seen] == 1).all()
    if mask is causal_mask and n == m:
        assert count.sum() == 4 * 4 + 4 * 8 + 3 * 11  # the third block of rows has three


@pytest.mark.parametrize("g", [3, 1])
def test_the_scores_of_a_tile(g):
    bias, keep = torch.randn(3, 1, 13, dtype=torch.float64), torch.rand(2, 13) > 0.3
    cut, q, k = tiles(11, 13, Band(4, 1, keep), g=g, bias=bias, scale=0.7)
    whole = 0.7 * q @ k.repeat_interleave(3 // g, 1).mT + bias
    whole = whole.masked_fill(~Band(4, 1, keep)(11, 13), -torch.inf)
    for rows in cut.rows():
        for columns in cut.columns(rows):
            s = cut.scores(cut.group(q, rows), k[:, :, columns], rows, columns)
            assert s.shape[1] == g
            assert_same(cut.ungroup(s, rows), whole[:, :, rows, columns])


def test_groups_lie_below_each_other():
    cut, q, _ = tiles(6, 6, g=1)
    grouped = cut.group(q, slice(1, 4))
    assert grouped.shape == (2, 1, 9, 5)
    assert_same(grouped[0, 0, 3:6], q[0, 1, 1:4])
    assert_same(cut.ungroup(grouped, slice(1, 4)), q[:, :, 1:4])


def test_half_precision_is_summed_in_single():
    q = torch.randn(1, 1, 3, 4, dtype=torch.bfloat16)
    cut = Tiles(q, q, None, None, None, 0.0, 2)
    assert cut.dtype == torch.float32
    assert cut.group(q, slice(0, 2)).dtype == torch.float32


def test_dropout_is_the_same_when_asked_again_and_differs_between_tiles():
    cut, *_ = tiles(8, 8, dropout=0.25)
    places = list(itertools.product([slice(0, 4), slice(4, 8)], repeat=2))
    s = torch.empty(2, 3, 4, 4)
    first = [cut.keep(s, *place) for place in places]
    for kept, place in zip(first, places):
        assert torch.equal(kept, cut.keep(s, *place))
        assert set(kept.unique().tolist()) <= {0.0, (torch.ones(()) / 0.75).item()}
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(first, 2))
    other, *_ = tiles(8, 8, dropout=0.25)
    assert not torch.equal(first[0], other.keep(s, *places[0]))
    assert tiles(8, 8)[0].keep(s, *places[0]) is None


@pytest.mark.parametrize("shape", [(7,), (5, 1), (3, 5, 7), (2, 1, 1, 7), (1,)])
def test_part_of_what_broadcasts(shape):
    x = torch.randn(shape)
    whole = x.expand(2, 3, 5, 7)[:, :, 1:3, 2:6]
    assert torch.equal(part(x, slice(1, 3), slice(2, 6)).expand_as(whole), whole)
