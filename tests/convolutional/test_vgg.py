"""VGG against Table 1 built by hand, its counts, its receptive fields by gradients, and the dense evaluation."""

import re

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.vgg import (
    CONFIGURATIONS,
    VGG,
    Convolution,
    count_macs,
    gaussian_start,
    receptive_field,
    start_from,
)

# Table 1, column by column, once more: M is a max pooling, N a local response normalisation, 1: a kernel of 1 × 1
TABLE = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "A-LRN": "64 N M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "C": "64 64 M 128 128 M 256 256 1:256 M 512 512 1:512 M 512 512 1:512 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
SMALL = [[Convolution(5), Convolution(7, kernel=1)], [Convolution(11, normalise=True)]]


class ResponseNorm(nn.Module):
    """Krizhevsky et al. (2012), section 3.3, with loops: each channel over its two neighbours on either side."""

    def forward(self, x):
        sums = [x[:, max(0, i - 2) : i + 3].square().sum(1) for i in range(x.shape[1])]
        return x / (2 + 1e-4 * torch.stack(sums, 1)) ** 0.75


def reference(column, n_classes=1000, channels=3, side=7, width=4096):
    layers = []
    for word in column.split():
        if word == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        elif word == "N":
            layers.append(ResponseNorm())
        else:
            kernel, new = (1, int(word[2:])) if word.startswith("1:") else (3, int(word))
            layers += [nn.Conv2d(channels, new, kernel, stride=1, padding="same"), nn.ReLU()]
            channels = new
    layers += [nn.Flatten(), nn.Linear(channels * side * side, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_classes))


def copy_of(model, other):
    """`other` with the parameters of `model`, in their order."""
    ours, theirs = list(model.parameters()), list(other.parameters())
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for mine, its in zip(ours, theirs):
            its.data = mine.clone()
    return other


def images(*shape, scale=3.0):
    return scale * torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_equals_table_1(name, parity):
    """All six, for images of 32 × 32, with gradients."""
    torch.manual_seed(1)
    model = VGG(CONFIGURATIONS[name], 11, size=32, width=13).eval().double()
    for layer in model.layers():
        nn.init.kaiming_normal_(layer.weight)  # or nothing of the image would reach the logits of E
        layer.bias.data.normal_(std=0.1)
    twin = copy_of(model, reference(TABLE[name], 11, side=1, width=13))
    x = images(2, 3, 32, 32)
    ours, theirs = model(x), twin(x)
    results = [
        [y, *torch.autograd.grad(y.square().sum(), [*m.parameters()])] for y, m in ((ours, model), (theirs, twin))
    ]
    parity("VGG", "the equations, with torch layers", f"configuration {name}, 32 × 32 images, gradients", *results)
    assert_differs(ours, twin(x.flip(-1)))


def test_small_network_by_the_equations(parity):
    """Any channels and size; an odd side of 13 pools to 6, then to 3."""
    model = randomise(VGG(SMALL, 7, channels=2, size=13, width=17)).eval()
    twin = copy_of(model, reference("5 1:7 M 11 N M", 7, channels=2, side=3, width=17))
    x = images(3, 2, 13, 13)
    parity("VGG", "the equations, with torch layers", "small, with response normalisation", model(x), twin(x))
    assert_differs(model(x), copy_of(model, reference("5 1:7 M 11 M", 7, channels=2, side=3, width=17))(x), by=1e-4)


def test_depths_and_parameters_of_tables_1_and_2():
    def built(name):
        with torch.device("meta"):
            return VGG(CONFIGURATIONS[name])

    assert [len(built(name).layers()) for name in CONFIGURATIONS] == [11, 11, 13, 16, 16, 19]
    parameters = {name: sum(p.numel() for p in built(name).parameters()) for name in CONFIGURATIONS}
    assert {name: round(n / 1e6) for name, n in parameters.items()} == {
        "A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144,
    }  # fmt: skip
    assert (parameters["D"], parameters["E"]) == (138_357_544, 143_667_240)


def test_dropout_only_behind_the_two_hidden_layers_and_only_in_training():
    model, x = randomise(VGG(SMALL, 7, channels=2, size=13, width=17, dropout=0.5)), images(3, 2, 13, 13)
    assert_differs(model.train()(x), model(x))
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    model(x)
    assert seen == [(3, 17), (3, 17)]
    assert VGG(SMALL, 7, size=13, width=17).dropout.p == 0.5
    assert VGG(SMALL, 7, size=13, width=17, dropout=0.3).dropout.p == 0.3
    assert torch.equal(model.eval()(x), model(x))


# the start


def test_glorot_start():
    model = VGG(SMALL, 7, size=16, width=1000)
    hidden = model.layers()[-2].weight  # 1000 to 1000: variance 2 / 2000
    assert abs(hidden.var().item() * 1000 - 1) < 0.01
    assert hidden.abs().max() <= (6 / 2000) ** 0.5
    assert not any(layer.bias.any() for layer in model.layers())


def test_gaussian_start():
    model = randomise(VGG(SMALL, 7, size=16, width=1000))
    gaussian_start(model)
    hidden = model.layers()[-2].weight
    assert abs(hidden.var().item() - 1e-2) < 1e-4
    assert hidden.abs().max() > 0.4  # no uniform distribution of this variance reaches 0.18
    assert not any(layer.bias.any() for layer in model.layers())
    gaussian_start(model, variance=1e-4)
    assert abs(hidden.var().item() - 1e-4) < 1e-6


def test_start_from_a_shallower_network():
    """The first four convolutions of A are 1_1, 2_1, 3_1 and 3_2; the second of E is 1_2, of another shape."""
    modules = VGG(CONFIGURATIONS["A"], size=32, width=3).named_modules()
    names = [name for name, _ in modules if "conv" in name][:4]
    assert names == ["features.conv1_1", "features.conv2_1", "features.conv3_1", "features.conv3_2"]
    shallow = randomise(VGG(CONFIGURATIONS["A"], 11, size=32, width=13), seed=1)
    model = randomise(VGG(CONFIGURATIONS["E"], 11, size=32, width=13), seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_from(model, shallow)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    layers = [*names, "classifier.0", "classifier.1", "classifier.2"]
    assert changed == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert all(torch.equal(model.state_dict()[name], shallow.state_dict()[name]) for name in changed)


def test_start_from_what_does_not_fit():
    model = VGG(SMALL, 7, size=16, width=17)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"classifier.0.weight is \(13, 176\) in shallow, \(17, 176\) in model"):
        start_from(model, VGG(SMALL, 7, size=16, width=13))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match=r"conv1_2.weight is \(7, 5, 1, 1\) in shallow, no such layer in model"):
        start_from(VGG([SMALL[0][:1], SMALL[1]], 7, size=16, width=17), model)


# dense evaluation


@pytest.fixture
def small():
    return randomise(VGG(SMALL, 7, channels=2, size=12, width=17)).eval()


def test_dense_equals_crops(small):
    """Each place of the map is the network on the crop there, wherever padding has no part in it."""
    one = images(1, 2, 12, 12)
    assert_same(small.dense(one)[:, :, 0, 0], small(one))
    x = images(3, 2, 20, 28)
    scores = small.dense(x)
    assert scores.shape == (3, 7, 3, 5)
    pooled = small.features(x)
    for u in range(3):
        for v in range(5):
            crop = pooled[:, :, u : u + 3, v : v + 3].flatten(1)
            hidden = small.classifier[1](small.classifier[0](crop).relu()).relu()
            assert_same(scores[:, :, u, v], small.classifier[2](hidden))
    assert_differs(scores[:, :, 1, 1], small(x[:, :, 4:16, 4:16]))  # a crop is padded with zeros, the image goes on


def test_posteriors(small):
    x = images(3, 2, 20, 28)
    small.classifier[2].weight.data *= 0.02
    maps = [small.dense(x), small.dense(x.flip(3))]
    expected = sum(scores.flatten(2).mean(2).softmax(1) for scores in maps) / 2
    assert_same(small.posteriors(x), expected)
    assert_same(small.posteriors(x), small.posteriors(x.flip(3)))  # blind to mirrors
    assert_differs(small.posteriors(x), small.posteriors(x.flip(2)))
    assert_same(small.posteriors(x).sum(1), torch.ones(3).double())


def test_dense_drops_as_forward_does():
    model, x = randomise(VGG(SMALL, 7, channels=2, size=12, width=17)), images(1, 2, 12, 12)
    assert_differs(model.dense(x), model.dense(x))
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    model.dense(x)
    assert seen == [(1, 17, 1, 1), (1, 17, 1, 1)]
    assert torch.equal(model.eval().dense(x), model.dense(x))


# counting


def test_count_macs_by_hand():
    """3 × 3 × 2 × 5 weights for each of 4 × 6 places; groups; 17 × 19; no bias counts."""
    assert count_macs(nn.Conv2d(2, 5, 3, stride=2, padding=1), (2, 8, 12)) == 3 * 3 * 2 * 5 * 4 * 6
    assert count_macs(nn.Conv2d(6, 4, 3, groups=2, bias=False), (6, 5, 5)) == 3 * 3 * 3 * 4 * 9
    assert count_macs(nn.Linear(17, 19), (17,)) == 17 * 19


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_count_macs_of_table_1(name):
    """With loops over the table's words."""
    side, channels, macs = 224, 3, 0
    for word in TABLE[name].split():
        if word == "M":
            side //= 2
        elif word != "N":
            kernel, new = (1, int(word[2:])) if word.startswith("1:") else (3, int(word))
            macs += kernel**2 * channels * new * side**2
            channels = new
    macs += 512 * 49 * 4096 + 4096**2 + 4096 * 1000
    with torch.device("meta"):
        model = VGG(CONFIGURATIONS[name])
    assert count_macs(model, (3, 224, 224)) == macs
    assert name != "E" or round(macs / 1e8) == 196


def test_count_macs_leaves_the_model_as_it_was(capsys):
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_macs(model, (3,)) == 15
    assert capsys.readouterr().out == ""
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    with pytest.raises(RuntimeError):
        count_macs(model, (7,))
    assert [module.training for module in model] == [True, True, False]


# receptive fields


def support(layers, size):
    """Side of the square on which the gradient of one output pixel, in the middle, is not zero."""
    net = randomise(nn.Sequential(*layers))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.abs_()  # so that nothing cancels, and no ReLU is closed
    x = images(1, 1, size, size).abs().requires_grad_()
    y = net(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    sides = {(axis.max() - axis.min() + 1).item() for axis in (rows, columns)}
    return sides.pop() if len(sides) == 1 else sides


def conv(kernel, **kwargs):
    return nn.Conv2d(1, 1, kernel, **kwargs)


STACKS = {
    "two of 3": ([conv(3), conv(3)], 5),
    "three of 3": ([conv(3), nn.ReLU(), conv(3), nn.ReLU(), conv(3)], 7),
    "one of 7": ([conv(7)], 7),
    "strides": ([conv(3, stride=2), conv(1), conv(5, stride=3), conv(3)], 3 + 4 * 2 + 2 * 6),
    "dilation": ([conv(3, dilation=4), conv(3)], 11),
    "average pooling": ([conv(3), nn.AvgPool2d(2), conv(3)], 3 + 1 + 4),
    "nothing": ([nn.ReLU()], 1),
}


@pytest.mark.parametrize("name", STACKS)
def test_receptive_field_is_the_support_of_the_gradient(name):
    layers, side = STACKS[name]
    assert receptive_field(layers) == support(layers, 61) == side
    assert receptive_field(nn.Sequential(*layers)) == side


def test_the_longer_side_of_a_receptive_field_counts():
    assert receptive_field([conv((3, 5)), conv(3)]) == 7
    oblong = nn.Conv2d(1, 1, (3, 5), stride=(2, 1))
    assert receptive_field([oblong, conv((5, 3))]) == max(3 + 4 * 2, 5 + 2)


def test_receptive_fields_of_the_networks():
    """Once more with average pooling in place of max pooling, whose gradient reaches one pixel only."""
    fields = {}
    for name in ("A", "D", "E"):
        with torch.device("meta"):
            fields[name] = receptive_field(VGG(CONFIGURATIONS[name]).features)
    assert fields == {"A": 150, "D": 212, "E": 268}
    words = TABLE["A"].split()
    layers = [nn.AvgPool2d(2) if word == "M" else conv(3, padding="same") for word in words]
    assert support(layers, 480) == 150


def test_errors():
    with pytest.raises(ValueError, match=r"size=16 must be at least 2\^5, for 5 poolings halve it"):
        VGG(CONFIGURATIONS["A"], size=16)
    model = VGG(SMALL, 7, channels=2, size=12, width=17)
    for shape in ((1, 2, 12, 13), (1, 3, 12, 12)):
        told = f"x has images of shape {shape[1:]}, this VGG was made for (2, 12, 12)"
        with pytest.raises(ValueError, match=re.escape(told)):
            model(torch.zeros(shape))
