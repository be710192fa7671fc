"""Rounding to 8 and 4 bits, by hand and by its laws."""

import copy

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.encoder_decoders.glm130b import GLM130B
from papercode.encoder_decoders.glm130b_quantization import (
    QuantizedLinear,
    absmax_quantize,
    pack,
    quantize,
    stored_bytes,
    unpack,
)

OUT, IN = 7, 22


def test_by_hand():
    """The largest of a row becomes 7 (or -7), and 1.4 / 2 · 7 = 4.9 becomes 5."""
    weight = torch.tensor([[2.0, 1.4, -0.1], [-0.7, 0.35, 0.0], [0.0, 0.0, 0.0]])
    numbers, scale = absmax_quantize(weight, 4)
    assert numbers.tolist() == [[7, 5, 0], [-7, 4, 0], [0, 0, 0]]  # 3.5 goes to the even neighbour
    assert scale.flatten().tolist() == pytest.approx([2 / 7, 0.1, 1])
    assert absmax_quantize(weight)[0][0].tolist() == [127, 89, -6]
    assert numbers.dtype == torch.int8


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_weight_moves_by_more_than_half_a_step(bits):
    weight = torch.randn(OUT, IN, dtype=torch.float64) * torch.logspace(-3, 3, OUT, dtype=torch.float64)[:, None]
    numbers, scale = absmax_quantize(weight, bits)
    top = 2 ** (bits - 1) - 1
    assert ((numbers * scale - weight).abs() <= scale / 2 * (1 + 1e-12)).all()
    assert torch.equal(numbers.abs().amax(1), torch.full((OUT,), top, dtype=torch.int8))
    assert_same(scale[:, 0], weight.abs().amax(1) / top)
    assert torch.equal(absmax_quantize(-weight, bits)[0], -numbers)  # symmetric
    again, _ = absmax_quantize(numbers * scale, bits)
    assert torch.equal(again, numbers)


def test_rows_do_not_share_a_scale():
    weight = torch.ones(2, 3)
    weight[0, 0] = 1000.0
    numbers, scale = absmax_quantize(weight)
    assert (numbers[1] == 127).all()
    assert (numbers[0, 1:] == 0).all()  # an outlier costs its own row only
    assert scale.shape == (2, 1)


def test_packing_every_pair():
    numbers = torch.cartesian_prod(*[torch.arange(-8, 8, dtype=torch.int8)] * 2).view(16, 32)
    packed = pack(numbers)
    assert packed.shape == (16, 16)
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed), numbers)
    assert pack(torch.tensor([[1, -1]], dtype=torch.int8)).item() == 0x1F
    with pytest.raises(ValueError, match="a row has 3 numbers, and two go into a byte"):
        pack(numbers[:, :3])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer(bits, bias):
    linear = randomise(nn.Linear(IN, OUT, bias=bias))
    before, small, x = copy.deepcopy(linear.state_dict()), QuantizedLinear(linear, bits), torch.randn(3, 5, IN).double()
    numbers, scale = absmax_quantize(linear.weight.detach(), bits)
    expected = x @ (numbers * scale).T + (linear.bias.detach() if bias else 0)
    assert_same(small(x), expected)
    assert_differs(small(x), linear(x).detach(), by=1e-4)
    assert (small(x) - linear(x)).abs().max() < (0.03 if bits == 8 else 0.6)
    assert all(torch.equal(value, before[name]) for name, value in linear.state_dict().items())
    assert not list(small.parameters())
    loaded = QuantizedLinear(nn.Linear(IN, OUT, bias=bias).double(), bits)
    loaded.load_state_dict(small.state_dict())
    assert torch.equal(loaded(x), small(x))


def test_the_gradient_reaches_the_input():
    linear = randomise(nn.Linear(IN, OUT))
    x = torch.randn(3, IN, dtype=torch.float64, requires_grad=True)
    small = QuantizedLinear(linear, 4)
    small(x).sum().backward()
    assert_same(x.grad, small.weight.sum(0).expand(3, -1))


def test_a_whole_model():
    glm = randomise(GLM130B(23, d_model=16, n_heads=2, d_ff=22, n_layers=2), std=0.1).float().eval()
    tokens, positions = torch.randint(23, (2, 9)), torch.arange(9).expand(2, -1)
    with torch.no_grad():
        exact = glm(tokens, positions, 4)
        words, full = glm.words.weight.clone(), stored_bytes(glm)
        eight, four = (quantize(copy.deepcopy(glm), bits) for bits in (8, 4))
        errors = [(small(tokens, positions, 4) - exact).abs().mean().item() for small in (eight, four)]
    assert 0 < errors[0] < errors[1] / 4
    assert errors[1] < exact.abs().mean().item() / 4
    assert not [m for m in eight.modules() if type(m) is nn.Linear]
    assert sum(isinstance(m, QuantizedLinear) for m in four.modules()) == 2 * 7
    assert torch.equal(eight.words.weight, words)
    weights = 2 * (4 * 16 * 16 + 3 * 16 * 22)
    outputs = 2 * (4 * 16 + 2 * 22 + 16)
    assert full - stored_bytes(eight) == 3 * weights - 4 * outputs
    assert stored_bytes(eight) - stored_bytes(four) == weights // 2


def test_refused():
    for bits in (1, 9):
        with pytest.raises(ValueError, match=f"bits={bits} must be from 2 to 8"):
            absmax_quantize(torch.ones(2, 2), bits)
    with pytest.raises(ValueError, match="bits=5 must be 4 or 8"):
        QuantizedLinear(nn.Linear(2, 2), 5)


def test_it_shares_nothing_with_what_it_replaces():
    linear, x = randomise(nn.Linear(IN, OUT)), torch.randn(3, IN).double()
    small = QuantizedLinear(linear)
    before = small(x)
    nn.init.zeros_(linear.bias)
    nn.init.zeros_(linear.weight)
    assert torch.equal(small(x), before)
