"""Highway layers against their equation with loops, at the ends of the gate, at the start, and deep."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.highway import ConvolutionalHighway, Highway, HighwayLayer

B, D = 3, 5


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def by_loops(layer, x, activation=lambda a: max(a, 0.0)):
    """Equation 3, one number after the other."""
    y = torch.zeros_like(x)
    for example in range(len(x)):
        for i in range(x.shape[1]):
            new = layer.transform.bias[i].item()
            gate = layer.gate.bias[i].item()
            for j in range(x.shape[1]):
                new += layer.transform.weight[i, j].item() * x[example, j].item()
                gate += layer.gate.weight[i, j].item() * x[example, j].item()
            t = 1 / (1 + math.exp(-gate))
            y[example, i] = activation(new) * t + x[example, i].item() * (1 - t)
    return y


@pytest.mark.parametrize(("module", "function"), [(None, lambda a: max(a, 0.0)), (nn.Tanh(), math.tanh)])
def test_equals_the_equation(module, function, parity):
    net, x = randomise(Highway(D, 3, activation=module)), double(B, D)
    expected = x
    for layer in net:
        expected = by_loops(layer, expected, function)
    configuration = f"3 layers, {'ReLU' if module is None else 'tanh'}"
    parity("Highway", "the equations, with loops", configuration, net(x), expected)
    assert_differs(net(x), by_loops(net[0], x, function))
    assert len(net) == 3


def test_convolutions_equal_the_equation(parity):
    """A convolution is a linear map of patches; H and T have each their own."""
    net, x = randomise(ConvolutionalHighway(D, 2)), double(2, D, 7, 3)
    expected = x
    for layer in net:
        patches = nn.functional.unfold(expected, 3, padding=1)  # (b, 9 c, places)
        maps = [
            (conv.weight.flatten(1) @ patches + conv.bias[:, None]).unflatten(2, (7, 3))
            for conv in (layer.transform, layer.gate)
        ]
        t = 1 / (1 + (-maps[1]).exp())
        expected = maps[0].clamp(min=0) * t + expected * (1 - t)
    parity("ConvolutionalHighway", "the equations, on patches", "2 layers of 3 × 3", net(x), expected)
    assert_differs(net(x), net[0](x))
    pointwise = randomise(ConvolutionalHighway(D, 2, kernel=1))
    twin = randomise(Highway(D, 2))
    for mine, other in zip(twin.parameters(), pointwise.parameters()):
        mine.data = other.data.view_as(mine)
    assert_same(pointwise(x)[1, :, 4, 2], twin(x[1, :, 4, 2][None])[0])


def test_by_hand():
    """x = 2, H = relu(3 · 2 - 1) = 5, T = sigmoid(log 3) = 3/4: 5 · 3/4 + 2 · 1/4 = 4.25."""
    layer = HighwayLayer(nn.Linear(1, 1), nn.Linear(1, 1)).double()
    with torch.no_grad():
        layer.transform.weight.fill_(3)
        layer.transform.bias.fill_(-1)
        layer.gate.weight.fill_(0)
        layer.gate.bias.fill_(math.log(3))
    x = torch.tensor([[2.0]]).double()
    assert_same(layer(x), torch.tensor([[4.25]]).double())
    assert_same(layer.opening(x), torch.tensor([[0.75]]).double())


@pytest.mark.parametrize("bias", [-1000.0, 1000.0])
def test_ends_of_the_gate(bias):
    """Equation 4 and 5: a closed layer is the identity, an open one a plain layer, and so are their Jacobians."""
    layer, x = randomise(HighwayLayer(nn.Linear(D, D), nn.Linear(D, D))), double(1, D)
    layer.gate.bias.data.fill_(bias)
    plain = nn.Sequential(layer.transform, nn.ReLU())
    expected = plain if bias > 0 else nn.Identity()
    assert_same(layer(x), expected(x))
    jacobians = [torch.autograd.functional.jacobian(f, x).view(D, D) for f in (layer, expected)]
    assert_same(*jacobians)
    assert_differs(layer(x), (nn.Identity() if bias > 0 else plain)(x))


def test_start():
    torch.manual_seed(0)
    layer = HighwayLayer(nn.Linear(1000, 1000), nn.Linear(1000, 1000), transform_bias=-3.0)
    for linear, bias in ((layer.transform, 0.0), (layer.gate, -3.0)):
        assert abs(linear.weight.var().item() * 500 - 1) < 0.01  # He: 2 / 1000
        assert torch.equal(linear.bias, torch.full((1000,), bias))
    assert not torch.equal(layer.transform.weight, layer.gate.weight)
    single = HighwayLayer(nn.Linear(3, 3), nn.Linear(3, 3))
    assert all(layer.gate.bias[0] == -2 for layer in [single, *Highway(3, 2), *ConvolutionalHighway(3, 2)])
    assert all(
        layer.gate.bias[0] == -5
        for layer in [*Highway(3, 2, transform_bias=-5), *ConvolutionalHighway(3, 2, transform_bias=-5)]
    )
    assert isinstance(ConvolutionalHighway(3, 1, activation=nn.Tanh())[0].activation, nn.Tanh)


def test_parameters_of_the_comparison():
    """50 highway units have about the parameters of 71 plain ones (section 3.1)."""
    layer = Highway(50, 1)
    assert sum(p.numel() for p in layer.parameters()) == 2 * (50 * 50 + 50) == 5100
    assert sum(p.numel() for p in nn.Linear(71, 71).parameters()) == 5112


def gradient_at_the_input(net, d):
    x = torch.randn(64, d, requires_grad=True)
    y = net(x)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    return (x.grad.norm() / weights.norm()).item(), (y - x).norm().item() / x.norm().item()


def test_a_new_deep_highway_passes_gradients():
    torch.manual_seed(0)
    plain = nn.Sequential(*(nn.Sequential(nn.Linear(50, 50), nn.Tanh()) for _ in range(50)))
    closed, _ = gradient_at_the_input(Highway(50, 50, transform_bias=-3), 50)
    carried = (1 - 1 / (1 + math.exp(3))) ** 50  # what the carry gates alone let through
    assert 0.7 < closed / carried < 1.4
    assert gradient_at_the_input(plain, 50)[0] < 1e-6


def test_the_more_closed_the_nearer_to_the_identity():
    torch.manual_seed(0)
    distances = [gradient_at_the_input(Highway(50, 10, transform_bias=bias), 50)[1] for bias in (-1.0, -3.0, -9.0)]
    assert distances[0] > 1.3 * distances[1] > 30 * distances[2] > 0


def test_gradients():
    net = randomise(Highway(D, 2, activation=nn.Tanh()))
    assert torch.autograd.gradcheck(net, (double(B, D).requires_grad_(),))


def test_errors():
    with pytest.raises(ValueError, match="transform makes 7 features of 5, but a highway layer keeps their number"):
        HighwayLayer(nn.Linear(5, 7), nn.Linear(5, 5))
    with pytest.raises(ValueError, match="gate makes 1 features of 5"):
        HighwayLayer(nn.Linear(5, 5), nn.Linear(5, 1))
    with pytest.raises(
        ValueError, match=r"transform makes \(2, 5, 4, 1\) of x, but a highway layer keeps \(2, 5, 6, 3\)"
    ):
        HighwayLayer(nn.Conv2d(5, 5, 3), nn.Conv2d(5, 5, 3, padding=1))(torch.zeros(2, 5, 6, 3))
    with pytest.raises(ValueError, match=r"gate makes \(2, 5, 4, 1\) of x"):
        HighwayLayer(nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 3))(torch.zeros(2, 5, 6, 3))
    with pytest.raises(ValueError, match="kernel=4 must be odd"):
        ConvolutionalHighway(5, 2, kernel=4)
