"""A band is what the sentence that defines it says, entry by entry."""

import itertools

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.attention.masks import Band, as_band
from papercode.attention.transformer import attention, causal_mask


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 7), (7, 3), (1, 6), (4, 1)])
@pytest.mark.parametrize("reach", list(itertools.product([None, 0, 2], repeat=2)))
def test_a_band_by_definition(n, m, reach):
    left, right = reach
    mask = Band(left, right)(n, m)
    assert mask.shape == (n, m)
    for i, j in itertools.product(range(n), range(m)):
        here = m - n + i
        expected = (left is None or j >= here - left) and (right is None or j <= here + right)
        assert mask[i, j].item() is expected


def test_causal_is_a_band():
    for n, m in [(5, 5), (3, 7), (7, 3)]:
        assert torch.equal(Band(right=0)(n, m), causal_mask(n, m))


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 7), (7, 3), (1, 6), (4, 1)])
def test_a_trimmed_band_is_the_same_mask(n, m):
    for left, right in itertools.product([None, 0, 1, 2, 3, 4, 5, 6, 9], repeat=2):
        trimmed = Band(left, right).trimmed(n, m)
        assert torch.equal(trimmed(n, m), Band(left, right)(n, m))
        assert (trimmed.left, trimmed.right) != (m - 1, n - 1)
    assert Band(right=0).trimmed(1, m).right is None  # the newest query sees all keys
    keep = torch.ones(2, m, dtype=torch.bool)
    assert Band(m, n, keep).trimmed(n, m).keep is keep


def test_padding_is_kept_out():
    keep = torch.tensor([[True, True, False], [True, False, True]])
    mask = Band(right=0, keep=keep)(2, 3)
    assert mask.shape == (2, 1, 2, 3)
    assert mask[:, 0].tolist() == [[[True, True, False]] * 2, [[True, False, False], [True, False, True]]]


def test_attention_takes_a_band():
    q, k, v = (torch.randn(2, 3, 5, 7, dtype=torch.float64) for _ in range(3))
    band = Band(2, 1, torch.rand(2, 5) > 0.3)
    assert_same(attention(q, k, v, mask=band), attention(q, k, v, mask=band(5, 5)))
    assert_differs(attention(q, k, v, mask=band), attention(q, k, v, mask=Band(2, 1)))


def test_as_band():
    band = Band(1, 2)
    assert as_band(band) is band
    assert (as_band(None).left, as_band(None).right, as_band(None).keep) == (None, None, None)
    assert (as_band(causal_mask).left, as_band(causal_mask).right) == (None, 0)
    padding = torch.rand(2, 5) > 0.5
    assert torch.equal(as_band(padding[:, None, None, :]).keep, padding)
    assert as_band(torch.ones(5, 5, dtype=torch.bool)) is None
    assert as_band(torch.ones(2, 1, 5, 5, dtype=torch.bool)) is None
    assert as_band(torch.ones(2, 1, 1, 1, dtype=torch.bool)) is None  # broadcasts along the keys: no padding
    assert as_band(lambda n, m, device: torch.ones(n, m, dtype=torch.bool)) is None


def test_wrong_bands():
    with pytest.raises(ValueError, match="left=-1 must be at least 0, or None"):
        Band(-1)
    with pytest.raises(ValueError, match="right=-2 must be at least 0, or None"):
        Band(right=-2)
    with pytest.raises(ValueError, match="keep is for 3 keys, but there are m=4"):
        Band(keep=torch.ones(2, 3, dtype=torch.bool))(4, 4)
    with pytest.raises(ValueError, match=r"keep must be \(batch, keys\), got shape \(3,\)"):
        Band(keep=torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"keep must be a bool tensor .*got torch.float32"):
        Band(keep=torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"keep must be a bool tensor .*got list"):
        Band.__init__.__wrapped__(object.__new__(Band), keep=[[True]])
