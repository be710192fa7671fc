from functools import partial

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.residual_blocks import (
    BasicBlock,
    BottleneckBlock,
    ResidualBlock,
    basic,
    bottleneck,
    convolution,
    initialise,
)
from papercode.convolutional.shortcuts import Identity, no_shortcut, option_a, option_b, option_c


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def step_by_step(block, x):
    """Eq. 1 with what Figures 2 and 5 put around it, in training."""

    def normalised(x, norm):
        return batch_norm(x, None, None, norm.gain, norm.bias, training=True)

    y = x
    for i, conv in enumerate(block.convs):
        y = normalised(conv2d(y, conv.weight, None, conv.stride, conv.weight.shape[-1] // 2), block.norms[i])
        if i < len(block.convs) - 1:
            y = y.clamp(min=0)
    return block.shortcut(x, y).clamp(min=0)


BLOCKS = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "bottleneck, stride in the 3 × 3": partial(BottleneckBlock, stride_in_3x3=True),
}


@pytest.mark.parametrize("shortcut", [option_a, option_b, option_c, no_shortcut])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(8, 8, 1), (8, 12, 2)])
def test_blocks_step_by_step(parity, name, shortcut, c_in, c_out, stride):
    block, x = randomise(BLOCKS[name](c_in, c_out, stride, shortcut=shortcut)), images(3, c_in, 7, 5)
    configuration = f"{name}, {shortcut.__name__}, {c_in} to {c_out} channels"
    parity("ResNet, one block", "the equations, step by step", configuration, block(x), step_by_step(block, x))
    assert block(x).shape == (3, c_out, -(-7 // stride), -(-5 // stride))
    assert_differs(block(x), block(x + 0.1 * images(*x.shape)))


def test_by_hand():
    """Layers that add nothing leave the ReLU of the input: residual learning makes the identity easy."""
    block, x = BasicBlock(3, 3), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        block.norms[-1].gain.zero_()
    assert torch.equal(block(x), x.relu())
    with torch.no_grad():
        block.norms[-1].bias.fill_(-1.0)
    assert torch.equal(block(x), (x - 1).relu())  # the residual may take away: no ReLU before the sum


def test_gradient_passes_a_block_that_does_nothing():
    block, x = BasicBlock(3, 3).eval(), torch.rand(2, 3, 4, 4) + 0.5
    with torch.no_grad():
        block.norms[-1].gain.zero_()
    x.requires_grad_()
    block(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_convolutions():
    assert [(conv.kernel_size[0], conv.stride[0], conv.in_channels, conv.out_channels) for conv in basic(5, 7, 2)] == [
        (3, 2, 5, 7),
        (3, 1, 7, 7),
    ]
    for placed, strides in ((False, [2, 1, 1]), (True, [1, 2, 1])):
        convs = bottleneck(5, 28, 2, stride_in_3x3=placed)
        assert [conv.kernel_size[0] for conv in convs] == [1, 3, 1]
        assert [conv.stride[0] for conv in convs] == strides
        assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(5, 7), (7, 7), (7, 28)]
    assert all(conv.bias is None for conv in (*basic(5, 7), *bottleneck(5, 28)))


def test_stride_placement_matters():
    first, second = BottleneckBlock(8, 8, 2), BottleneckBlock(8, 8, 2, stride_in_3x3=True)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert_differs(first(x), second(x))


def test_a_stride_in_the_first_convolution_never_looks_at_three_quarters_of_the_places():
    for block, seen in ((BottleneckBlock, 0.25), (partial(BottleneckBlock, stride_in_3x3=True), 1.0)):
        x = torch.randn(50, 8, 6, 6, requires_grad=True)
        block(8, 8, 2, shortcut=no_shortcut).eval()(x).sum().backward()
        assert (x.grad.abs().sum((0, 1)) > 0).double().mean() == seen


@pytest.mark.parametrize("size", [1, 3, 7])
def test_convolution_keeps_the_size(size):
    assert convolution(2, 3, size)(torch.randn(1, 2, 9, 11)).shape == (1, 3, 9, 11)


def test_residual_is_what_is_added():
    block, x = randomise(BasicBlock(3, 3)), images(2, 3, 5, 5)
    assert_same(block(x), (x + block.residual(x)).relu())
    assert (block.residual(x) < 0).any()


def test_a_block_of_one_convolution():
    block, x = ResidualBlock([convolution(3, 3, 3)], Identity()), torch.randn(2, 3, 5, 5)
    assert_same(block(x), step_by_step(block, x), 1e-5)


def test_initial_weights_keep_the_size_of_what_relu_leaves():
    conv = convolution(64, 32, 3)
    initialise(conv)
    assert abs(conv.weight.var().item() / (2 / (64 * 9)) - 1) < 0.05


@pytest.mark.parametrize("name", BLOCKS)
def test_the_shortcut_is_the_given_one(name):
    for shortcut in (option_a, option_b, option_c, no_shortcut):
        for sizes in ((8, 8, 1), (8, 12, 2)):
            assert type(BLOCKS[name](*sizes, shortcut=shortcut).shortcut) is type(shortcut(*sizes))
    assert type(BLOCKS[name](8, 12).shortcut) is type(option_b(8, 12))


def test_quarters():
    with pytest.raises(ValueError, match="c_out=6 is no multiple of 4"):
        BottleneckBlock(8, 6)
