"""Dilated windows against the plain equations under the mask that section 3.1 describes."""

from functools import partial

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.attention import windowed as windowed_module
from papercode.attention.dilated import DilatedBand, dilated
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention
from papercode.attention.windowed import windowed

F64 = torch.float64
B, D, E = 2, 3, 5
MASKS = {
    "every head its own": DilatedBand(2, 3, (1, 2, 3, 5)),
    "two heads dilated, causal": DilatedBand(4, 0, (1, 1, 3, 3)),
    "all alike": DilatedBand(1, 1, (4, 4, 4, 4)),
    "itself alone": DilatedBand(0, 0, (2, 1, 7, 1)),
    "further than the text": DilatedBand(9, 9, (2, 3, 50, 1)),
}


@pytest.fixture(autouse=True)
def blocks_of_three(monkeypatch):
    monkeypatch.setattr(windowed_module, "BLOCK", 3)


def qkv(n, m, g=4, requires_grad=False):
    shapes = (B, 4, n, D), (B, g, m, D), (B, g, m, E)
    return [torch.randn(s, dtype=F64, requires_grad=requires_grad) for s in shapes]


def test_by_hand():
    """Seven positions, two steps of 2 either way: the middle one sees 1, 3, 5 ... and the mean of what it sees."""
    q = k = torch.zeros(1, 1, 7, 1)
    v = torch.tensor([1.0, 10, 100, 1000, 10_000, 100_000, 1_000_000]).view(1, 1, 7, 1)
    y = dilated(q, k, v, mask=DilatedBand(1, 1, (2,)))
    assert (3 * y[0, 0, 3]).item() == pytest.approx(101_010)
    assert (2 * y[0, 0, 0]).item() == pytest.approx(101)


def test_the_offsets_are_multiples_of_the_dilation_and_include_zero():
    mask = DilatedBand(2, 2, (1, 3))(13, 13)
    assert (mask[0, 6].nonzero().flatten() - 6).tolist() == [-2, -1, 0, 1, 2]
    assert (mask[1, 6].nonzero().flatten() - 6).tolist() == [-6, -3, 0, 3, 6]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("n", "m"), [(17, 17), (5, 17), (1, 17), (9, 4), (1, 1)])
@pytest.mark.parametrize("g", [1, 2, 4])
def test_equals_attention_under_the_same_mask(mask, n, m, g):
    inputs = qkv(n, m, g, requires_grad=True)
    bias = torch.randn(4, 1, m, dtype=F64, requires_grad=True)
    keep = torch.rand(B, m) < 0.8
    for padding in (None, keep):
        mask = DilatedBand(mask.left, mask.right, mask.dilations, padding)
        y, expected = (f(*inputs, mask=mask, bias=bias, scale=0.7) for f in (dilated, attention))
        assert_same(y, expected)
        dy = torch.randn_like(y)
        grads = (torch.autograd.grad(x, (*inputs, bias), dy) for x in (y, expected))
        for ours, reference in zip(*grads, strict=True):
            assert_same(ours, reference)


def test_controls():
    inputs = qkv(17, 17)
    y = dilated(*inputs, mask=MASKS["every head its own"])
    assert_differs(dilated(*inputs, mask=DilatedBand(2, 3, (1, 2, 3, 4))), y)
    assert_differs(dilated(*inputs, mask=DilatedBand(2, 3, (2, 1, 3, 5))), y)
    assert_differs(dilated(*inputs, mask=DilatedBand(3, 2, (1, 2, 3, 5))), y)


def test_dilation_one_is_the_window():
    inputs = qkv(17, 17)
    assert_same(dilated(*inputs, mask=DilatedBand(2, 3, (1,) * 4)), windowed(*inputs, mask=Band(2, 3)))


def test_gradients():
    mask = DilatedBand(1, 1, (1, 2, 3, 3), torch.rand(B, 7) < 0.8)
    assert torch.autograd.gradcheck(partial(dilated, mask=mask), qkv(5, 7, 2, requires_grad=True))


def test_dropout_is_passed_on():
    q, k, v = qkv(17, 17)
    mask = MASKS["every head its own"]
    torch.manual_seed(0)
    dropped = dilated(q, k, torch.ones_like(v), mask=mask, dropout=0.5)
    assert_differs(dropped, torch.ones_like(dropped))
    assert (dropped == 0).any()


def test_serves_a_layer():
    layer = MultiHeadAttention(12, 4, attend=dilated).double()
    plain = MultiHeadAttention(12, 4).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(B, 19, 12, dtype=F64)
    mask = MASKS["two heads dilated, causal"]
    assert_same(layer(x, mask=mask), plain(x, mask=mask))


def test_with_one_dilation_everywhere_most_of_the_field_is_never_read():
    """Three layers of w = 4 and d = 5 span 3 · 4 · 5 + 1 positions, and reach 3 · 4 + 1 of them."""
    layers = [MultiHeadAttention(12, 4, attend=dilated).double() for _ in range(3)]

    def stack(x, dilations):
        for layer in layers:
            x = layer(x, mask=DilatedBand(2, 2, dilations))
        return x

    x = torch.randn(1, 71, 12, dtype=F64)
    changed = x.clone()
    changed[:, 35] += 1

    def reached(dilations):
        return (stack(x, dilations) - stack(changed, dilations)).abs().amax(-1)[0].nonzero().flatten().tolist()

    assert reached((5,) * 4) == list(range(5, 66, 5))
    sees = DilatedBand(2, 2, (5, 5, 1, 1))(71, 71).any(0).double()
    paths = torch.linalg.matrix_power(sees, 3)[35]  # how many there are through three layers
    assert reached((5, 5, 1, 1)) == paths.nonzero().flatten().tolist()
    assert len(reached((5, 5, 1, 1))) == 49


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 0, (1,)), ValueError, "left=-1 must be at least 0"),
        ((1, 1, (1, 0)), ValueError, r"dilations=\(1, 0\) must be one or more numbers of at least 1"),
        ((1, 1, ()), ValueError, r"dilations=\(\) must be one or more"),
        ((1, 1, (1,), torch.ones(2, 3)), TypeError, "keep must be a bool tensor"),
    ],
)
def test_bands_that_make_no_sense_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        DilatedBand(*arguments)


def test_wrong_masks_are_refused():
    with pytest.raises(TypeError, match="mask must be a DilatedBand, got Band; `windowed` takes a Band"):
        dilated.__wrapped__(*qkv(3, 3), mask=Band(1, 1))
    with pytest.raises(ValueError, match="mask has 2 dilations, but q has 4 heads"):
        dilated(*qkv(3, 3), mask=DilatedBand(1, 1, (1, 2)))
    with pytest.raises(ValueError, match=r"mask of shape \(2, 1, 1, 4\) does not broadcast"):
        dilated(*qkv(3, 3), mask=DilatedBand(1, 1, (1,) * 4, torch.ones(2, 4, dtype=torch.bool)))
