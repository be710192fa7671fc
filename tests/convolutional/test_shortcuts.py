import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.shortcuts import (
    Identity,
    NoShortcut,
    Projection,
    ZeroPadding,
    changes,
    no_shortcut,
    option_a,
    option_b,
    option_c,
)


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_by_hand():
    x, residual = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9]).view(1, 1, 3, 3), torch.full((1, 2, 2, 2), 10.0)
    joined = ZeroPadding(1, 2, 2)(x, residual)
    assert joined[0, 0].tolist() == [[11, 13], [17, 19]]  # every second place, the first one included
    assert joined[0, 1].tolist() == [[10, 10], [10, 10]]  # a channel that x does not have


def test_identity_adds():
    x, residual = images(2, 3, 5, 7), images(2, 3, 5, 7)
    assert torch.equal(Identity()(x, residual), x + residual)


def test_nothing_of_x_passes_a_plain_block():
    residual = images(2, 5, 3, 4)
    assert torch.equal(NoShortcut()(images(2, 3, 5, 7), residual), residual)


@pytest.mark.parametrize("side", [6, 7])
def test_zero_padding_is_a_projection_by_ones(side):
    x, residual = images(2, 3, side, side), images(2, 5, (side + 1) // 2, (side + 1) // 2)
    ones = torch.eye(5, 3, dtype=torch.float64)[:, :, None, None]
    expected = residual + nn.functional.conv2d(x, ones, stride=2)
    assert_same(ZeroPadding(3, 5, 2)(x, residual), expected)
    assert_differs(ZeroPadding(3, 5, 2)(x.roll(1, -1), residual), expected)


def test_zeros_stand_behind_the_channels():
    joined = ZeroPadding(3, 5)(torch.ones(1, 3, 2, 2), torch.zeros(1, 5, 2, 2))
    assert joined[0, :, 0, 0].tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("training", [True, False])
def test_projection_against_torch(parity, training):
    ours = randomise(Projection(3, 5, 2)).train(training)
    x, residual = images(2, 3, 7, 11), images(2, 5, 4, 6)
    conv, norm = nn.Conv2d(3, 5, 1, 2, bias=False).double(), nn.BatchNorm2d(5).double().train(training)
    with torch.no_grad():
        ours.norm.mean.normal_()
        ours.norm.variance.uniform_(0.5, 2)
    conv.load_state_dict(ours.conv.state_dict())
    names = {"gain": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    norm.load_state_dict({names[name]: value for name, value in ours.norm.state_dict().items()}, strict=False)
    expected = residual + norm(conv(x))
    mode = "training" if training else "evaluation"
    parity("ResNet, projection", "torch.nn.Conv2d, BatchNorm2d", f"stride 2, {mode}", ours(x, residual), expected)
    assert_differs(ours(x, residual), residual + conv(x))


def test_what_changes():
    assert not changes(3, 3, 1)
    assert changes(3, 5, 1)
    assert changes(3, 3, 2)


@pytest.mark.parametrize(
    ("option", "same", "changed"),
    [
        (option_a, Identity, ZeroPadding),
        (option_b, Identity, Projection),
        (option_c, Projection, Projection),
        (no_shortcut, NoShortcut, NoShortcut),
    ],
)
def test_options(option, same, changed):
    assert type(option(4, 4)) is type(option(4, 4, 1)) is same
    for sizes in ((4, 4, 2), (4, 6, 1), (4, 6, 2)):
        assert type(option(*sizes)) is changed


@pytest.mark.parametrize("option", [option_a, option_b, option_c, no_shortcut])
@pytest.mark.parametrize(("c_out", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_sizes_reach_the_shortcut(option, c_out, stride):
    x, residual = torch.randn(2, 3, 7, 5), torch.randn(2, c_out, -(-7 // stride), -(-5 // stride))
    assert option(3, c_out, stride)(x, residual).shape == residual.shape


def test_parameters():
    assert [sum(p.numel() for p in option(3, 5, 2).parameters()) for option in (option_a, option_b, option_c)] == [
        0,
        3 * 5 + 2 * 5,
        3 * 5 + 2 * 5,
    ]


def test_padding_takes_no_channels_away():
    with pytest.raises(ValueError, match="c_out=3 is less than c_in=5: padding cannot take channels away"):
        option_a(5, 3)
