import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_fused import LoRAFusedLinear

D, PARTS, R, ALPHA = 11, (7, 3, 5), 2, 6.0  # q, k, v of grouped queries: three widths


def fused(base=None, adapted=(0, 2), **kwargs):
    layer = LoRAFusedLinear(base or nn.Linear(D, sum(PARTS)), R, ALPHA, parts=PARTS, adapted=adapted, **kwargs)
    return randomise(layer).eval()


def apart(layer):
    """q, k and v as maps of their own, those adapted that the fused one adapts."""
    W = layer.base.weight.mT if layer.transposed else layer.base.weight
    A, B = iter(layer.A.split(R)), iter(layer.B.split([PARTS[i] for i in layer.adapted]))
    maps = []
    for i, (weight, bias) in enumerate(zip(W.split(PARTS), layer.base.bias.split(PARTS), strict=True)):
        linear = nn.Linear(D, PARTS[i]).double()
        linear.weight.data, linear.bias.data = weight.detach().clone(), bias.detach().clone()
        if i in layer.adapted:
            linear = LoRALinear(linear, R, ALPHA)
            linear.A.data, linear.B.data = next(A).detach().clone(), next(B).detach().clone()
        maps.append(linear)
    return maps


@pytest.mark.parametrize("adapted", [(0, 2), (1,), (0, 1, 2)])
@pytest.mark.parametrize("base", [nn.Linear(D, sum(PARTS)), Conv1D(sum(PARTS), D)])
def test_equals_adapting_the_parts_apart(base, adapted):
    layer, x = fused(base, adapted), torch.randn(2, 3, D, dtype=torch.float64)
    maps = apart(layer)
    assert_same(layer(x), torch.cat([m(x) for m in maps], -1))
    for i, (part, plain) in enumerate(zip(layer(x).split(PARTS, -1), base(x).split(PARTS, -1), strict=True)):
        if i in adapted:
            assert_differs(part, plain)
        else:
            assert torch.equal(part, plain)
    layer(x).square().sum().backward()
    sum(m(x).square().sum() for m in maps).backward()
    assert_same(layer.A.grad, torch.cat([maps[i].A.grad for i in adapted]))
    assert_same(layer.B.grad, torch.cat([maps[i].B.grad for i in adapted]))


def test_one_pair_on_the_whole_map_is_something_else():
    layer = fused()
    q, k, v = layer.delta().split(PARTS)
    assert [torch.linalg.matrix_rank(m).item() for m in (q, k, v, layer.delta())] == [R, 0, R, 2 * R]
    plain = randomise(LoRALinear(nn.Linear(D, sum(PARTS)), R, ALPHA))
    assert torch.linalg.matrix_rank(plain.delta()) == R
    assert plain.delta().split(PARTS)[1].norm() > 0.1


def test_merged_equals_unmerged():
    layer, x = fused(Conv1D(sum(PARTS), D)), torch.randn(3, D, dtype=torch.float64)
    out, weight = layer(x), layer.base.weight.clone()
    layer.merge()
    assert_same(layer(x), out)
    assert_differs(layer.base.weight, weight)
    assert torch.equal(layer.base.weight[:, 7:10], weight[:, 7:10])
    layer.unmerge()
    assert_same(layer.base.weight, weight, 1e-12)


def test_start_is_exact_and_the_count_is_that_of_the_parts():
    base = nn.Linear(D, sum(PARTS))
    layer, x = LoRAFusedLinear(base, R, ALPHA, parts=PARTS, adapted=(0, 2)), torch.randn(3, D)
    assert torch.equal(layer(x), base(x))
    assert layer.A.numel() + layer.B.numel() == R * (D + 7) + R * (D + 5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"parts": (7, 3, 4)}, r"parts=\(7, 3, 4\) must be positive and add up to d_out=15"),
        ({"parts": (18, -3)}, r"parts=\(18, -3\) must be positive"),
        ({"adapted": ()}, r"adapted=\(\) must be ascending positions in parts=\(7, 3, 5\)"),
        ({"adapted": (2, 0)}, r"adapted=\(2, 0\) must be ascending"),
        ({"adapted": (0, 0)}, r"adapted=\(0, 0\) must be ascending"),
        ({"adapted": (3,)}, r"adapted=\(3,\) must be ascending positions"),
        ({"adapted": (1,), "r": 4}, r"r=4 is larger than an adapted part of parts=\(7, 3, 5\)"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LoRAFusedLinear(nn.Linear(D, 15), **{"r": 2, "alpha": 1.0, "parts": PARTS, "adapted": (0, 2)} | kwargs)
