from functools import partial

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.residual_blocks import BasicBlock
from papercode.convolutional.shortcut_variants import (
    ConstantScaling,
    ConvolutionShortcut,
    DropoutShortcut,
    ExclusiveGate,
    ShortcutGate,
    convolution_at_changes,
)
from papercode.convolutional.shortcuts import Identity, option_a

SIZES = [(3, 3, 1), (3, 5, 1), (3, 5, 2)]


def inputs(c_in, c_out, stride):
    x = torch.randn(2, c_in, 7, 5, dtype=torch.float64)
    return x, torch.randn(2, c_out, -(-7 // stride), -(-5 // stride), dtype=torch.float64)


def padded(x, c_out, stride):
    """x in the shape of the residual, with loops."""
    made = torch.zeros(len(x), c_out, -(-x.shape[2] // stride), -(-x.shape[3] // stride), dtype=x.dtype)
    for i in range(x.shape[1]):
        for row in range(made.shape[2]):
            for column in range(made.shape[3]):
                made[:, i, row, column] = x[:, i, row * stride, column * stride]
    return made


def per_place(x, weight, bias, stride):
    """A 1 × 1 convolution with loops over places: a linear map of the channels."""
    made = torch.empty(len(x), len(weight), -(-x.shape[2] // stride), -(-x.shape[3] // stride), dtype=x.dtype)
    for row in range(made.shape[2]):
        for column in range(made.shape[3]):
            made[:, :, row, column] = x[:, :, row * stride, column * stride] @ weight[:, :, 0, 0].T + bias
    return made


def gate_of(shortcut, x, stride):
    return 1 / (1 + (-per_place(x, shortcut.gate.weight, shortcut.gate.bias, stride)).exp())


LOOPS = "the equations, with loops"


@pytest.mark.parametrize("sizes", SIZES)
def test_constant_scaling(parity, sizes):
    x, residual = inputs(*sizes)
    expected = 0.7 * padded(x, *sizes[1:]) + 0.4 * residual
    shortcut = ConstantScaling(*sizes, factor=0.7, residual_factor=0.4)
    parity("PreAct ResNet, constant scaling", LOOPS, f"{sizes}", shortcut(x, residual), expected)
    assert_differs(ConstantScaling(*sizes, factor=0.4, residual_factor=0.7)(x, residual), expected)
    assert_same(ConstantScaling(*sizes)(x, residual), 0.5 * padded(x, *sizes[1:]) + residual)


@pytest.mark.parametrize("sizes", SIZES)
def test_shortcut_gate(parity, sizes):
    (x, residual), shortcut = inputs(*sizes), randomise(ShortcutGate(*sizes))
    gate = gate_of(shortcut, x, sizes[2])
    expected = (1 - gate) * padded(x, *sizes[1:]) + residual
    parity("PreAct ResNet, shortcut-only gating", LOOPS, f"{sizes}", shortcut(x, residual), expected)
    assert_differs(shortcut(x, residual), gate * padded(x, *sizes[1:]) + residual)


@pytest.mark.parametrize("sizes", SIZES)
def test_exclusive_gate(parity, sizes):
    (x, residual), shortcut = inputs(*sizes), randomise(ExclusiveGate(*sizes))
    gate = gate_of(shortcut, x, sizes[2])
    expected = (1 - gate) * padded(x, *sizes[1:]) + gate * residual
    parity("PreAct ResNet, exclusive gating", LOOPS, f"{sizes}", shortcut(x, residual), expected)
    assert_differs(shortcut(x, residual), (1 - gate) * padded(x, *sizes[1:]) + residual)


@pytest.mark.parametrize("sizes", SIZES)
def test_convolution_shortcut(parity, sizes):
    (x, residual), shortcut = inputs(*sizes), randomise(ConvolutionShortcut(*sizes))
    expected = per_place(x, shortcut.conv.weight, 0, sizes[2]) + residual
    parity("PreAct ResNet, 1 × 1 convolution", LOOPS, f"{sizes}", shortcut(x, residual), expected)
    assert_differs(shortcut(x, residual), expected - residual)


@pytest.mark.parametrize("gate", [ShortcutGate, ExclusiveGate])
def test_gates_begin_shut(gate):
    shortcut, (x, residual) = gate(3, 3).double(), inputs(3, 3, 1)
    assert torch.equal(shortcut.gate.bias, torch.full((3,), -6.0, dtype=torch.float64))
    with torch.no_grad():
        shortcut.gate.weight.zero_()
    opened = 1 / (1 + torch.e**6)
    assert_same(shortcut(x, residual), (1 - opened) * x + (opened if gate is ExclusiveGate else 1) * residual)
    assert torch.equal(gate(3, 3, bias=-2.0).gate.bias, torch.full((3,), -2.0))


def test_dropout_by_hand():
    shortcut, residual = DropoutShortcut(2, 2, p=0.25), torch.zeros(100, 2, 20, 20)
    x = 3 * torch.ones(100, 2, 20, 20)
    joined = shortcut(x, residual)
    assert set(joined.unique().tolist()) == {0.0, 4.0}
    assert abs((joined == 0).float().mean().item() - 0.25) < 0.01
    assert torch.equal(shortcut.eval()(x, residual + 3), x + 3)  # the residual is never dropped


def test_dropout_leaves_the_residual():
    joined = DropoutShortcut(2, 5, 2)(torch.zeros(4, 2, 6, 6), torch.ones(4, 5, 3, 3))
    assert torch.equal(joined, torch.ones(4, 5, 3, 3))
    halved = DropoutShortcut(2, 2)(torch.ones(50, 2, 20, 20), torch.zeros(50, 2, 20, 20))
    assert abs((halved == 0).float().mean().item() - 0.5) < 0.01


def test_limits_are_the_identity():
    (x, residual), identity = inputs(3, 5, 2), option_a(3, 5, 2)
    shut = ShortcutGate(3, 5, 2, bias=-60.0).double()
    for shortcut in (ConstantScaling(3, 5, 2, factor=1.0), DropoutShortcut(3, 5, 2, p=0.0), shut):
        assert_same(shortcut(x, residual), identity(x, residual))
    assert_same(ExclusiveGate(3, 5, 2, bias=-60.0).double()(x, residual), identity(x, 0 * residual))


def test_convolution_at_changes():
    assert type(convolution_at_changes(4, 4)) is Identity
    for sizes in ((4, 6), (4, 4, 2)):
        assert type(convolution_at_changes(*sizes)) is ConvolutionShortcut


@pytest.mark.parametrize(
    "shortcut",
    [
        ConstantScaling,
        ShortcutGate,
        ExclusiveGate,
        ConvolutionShortcut,
        DropoutShortcut,
        convolution_at_changes,
        partial(ConstantScaling, factor=0.5, residual_factor=0.5),
    ],
)
def test_all_fit_into_the_blocks_of_the_first_paper(shortcut):
    for c_out, stride in ((3, 1), (5, 2)):
        assert BasicBlock(3, c_out, stride, shortcut=shortcut)(torch.randn(2, 3, 8, 8)).shape[:2] == (2, c_out)
