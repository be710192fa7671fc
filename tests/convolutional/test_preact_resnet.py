from functools import partial

import pytest
import torch
from torch import nn
from transformers import BitConfig, BitForImageClassification
from transformers.models.bit.modeling_bit import BitGroupNormActivation, WeightStandardizedConv2d

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.preact_resnet import PreActResNet, basic_preact_resnet, preact_resnet, stem_3x3
from papercode.convolutional.preact_units import (
    FullPreActivation,
    NormAfterAddition,
    Original,
    ReLUBeforeAddition,
    ReLUOnlyPreActivation,
)
from papercode.convolutional.residual_blocks import bottleneck
from papercode.convolutional.resnet import cifar_resnet
from papercode.convolutional.shortcut_variants import ConstantScaling, ConvolutionShortcut, convolution_at_changes
from papercode.convolutional.shortcuts import option_a

NAMES = {"gain": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
ORDERS = [Original, NormAfterAddition, ReLUBeforeAddition, ReLUOnlyPreActivation, FullPreActivation]


def drawn(model):
    """Every parameter and every running statistic."""
    randomise(model)
    for norm in (module for module in model.modules() if isinstance(module, BatchNorm2d)):
        norm.mean.normal_()
        norm.variance.uniform_(0.5, 2)
    return model


def plain_layers(module):
    """BiT without what it adds to pre-activation: plain convolutions, and batch for group normalisation."""
    for name, child in module.named_children():
        if isinstance(child, WeightStandardizedConv2d):
            sizes = child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding
            setattr(module, name, nn.Conv2d(*sizes, bias=False))
        elif isinstance(child, BitGroupNormActivation):
            setattr(module, name, nn.Sequential(nn.BatchNorm2d(child.num_channels), nn.ReLU()))
        else:
            plain_layers(child)
    return module


def copy_norm(ours, theirs):
    state = {NAMES[name]: value for name, value in ours[0].state_dict().items()}
    theirs[0].load_state_dict(state, strict=False)


def bit(ours, **config):
    """transformers' pre-activation network with the weights and statistics of ours."""
    theirs = plain_layers(BitForImageClassification(BitConfig(num_groups=1, **config))).double()
    theirs.bit.embedder.convolution.load_state_dict(ours.stem[0][0].state_dict())
    for stage, other in zip(ours.stages, theirs.bit.encoder.stages, strict=True):
        for unit, layer in zip(stage, other.layers, strict=True):
            layer.conv1.load_state_dict(unit.residual[0].state_dict())
            layer.conv2.load_state_dict(unit.residual[3].state_dict())
            layer.conv3.load_state_dict(unit.residual[6].state_dict())
            copy_norm(unit.before, layer.norm1)
            copy_norm(unit.residual[1:], layer.norm2)
            copy_norm(unit.residual[4:], layer.norm3)
            if layer.downsample is not None:
                layer.downsample.conv.load_state_dict(unit.shortcut.conv.state_dict())
    copy_norm(ours.tail, theirs.bit.norm)
    theirs.classifier[1].load_state_dict(ours.classifier.state_dict())
    return theirs


def bit_stem(c_in, c_out):
    """7 × 7 convolution and pooling over zeros at the border, as BiT has it."""
    conv = nn.Conv2d(c_in, c_out, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("depths", [[1, 1], [2, 1, 3]])
def test_parity_with_bit(parity, depths, training):
    widths = [32, 64, 96][: len(depths)]
    ours = PreActResNet(
        depths,
        widths,
        shortcut=convolution_at_changes,
        convolutions=partial(bottleneck, stride_in_3x3=True),
        stem=bit_stem,
        c_stem=5,
        n_classes=7,
        n_channels=2,
    )
    drawn(ours).train(training)
    theirs = bit(ours, depths=depths, hidden_sizes=widths, embedding_size=5, num_channels=2, num_labels=7)
    x = torch.randn(3, 2, 61, 47, dtype=torch.float64)
    expected = theirs.train(training)(x).logits
    mode = "training" if training else "evaluation"
    reference = "transformers.BitForImageClassification, plain convolutions, batch norm"
    parity("PreAct ResNet", reference, f"depths {depths}, {mode}", ours(x), expected)
    with torch.no_grad():
        ours.tail[0].bias.add_(0.1)
    assert_differs(ours(x), expected)


def test_with_the_first_order_it_is_the_first_paper(parity):
    """Original units in the frame of this paper are the network of the other."""
    ours = drawn(basic_preact_resnet(14, Original, widths=(3, 5, 7), n_channels=2))
    other = cifar_resnet(14, widths=(3, 5, 7), n_channels=2)
    other.double()
    other.stem.conv.load_state_dict(ours.stem[0].state_dict())
    other.stem.norm.load_state_dict(ours.stem[1][0].state_dict())
    for unit, block in zip((u for stage in ours.stages for u in stage), (b for stage in other.stages for b in stage)):
        block.convs[0].load_state_dict(unit.residual[0].state_dict())
        block.norms[0].load_state_dict(unit.residual[1].state_dict())
        block.convs[1].load_state_dict(unit.residual[3].state_dict())
        block.norms[1].load_state_dict(unit.residual[4].state_dict())
    other.classifier.load_state_dict(ours.classifier.state_dict())
    x = torch.randn(3, 2, 9, 11, dtype=torch.float64)
    parity("PreAct ResNet, original order", "papercode.convolutional.resnet.ResNet", "14 layers", ours(x), other(x))


@pytest.mark.parametrize("unit", ORDERS)
def test_parameters_do_not_depend_on_the_order(unit):
    """Up to norms: those before the first unit, at the shortcuts, behind the last."""
    with torch.device("meta"):
        convs = [p.numel() for p in basic_preact_resnet(20, unit).parameters() if p.ndim == 4]
        assert sum(convs) == sum(p.numel() for p in cifar_resnet(20).parameters() if p.ndim == 4)


def test_parameters():
    with torch.device("meta"):
        for n_layers, total, without_norms in ((164, 1_703_258, 1_679_034), (1001, 10_327_706, 10_178_490)):
            model = preact_resnet(n_layers)
            norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
            count = sum(p.numel() for p in model.parameters())
            assert count == total
            assert count - sum(p.numel() for norm in norms for p in norm.parameters()) == without_norms
        basic = basic_preact_resnet(110)
    assert sum(p.numel() for p in basic.parameters()) == 1_727_962


@pytest.mark.parametrize(("build", "n_layers"), [(preact_resnet, 11), (preact_resnet, 20), (basic_preact_resnet, 8)])
def test_layers(build, n_layers):
    model = build(n_layers, shortcut=option_a)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) + 1 == n_layers
    widths = (64, 128, 256) if build is preact_resnet else (16, 32, 64)
    x = model.stem(torch.randn(1, 3, 32, 32))
    assert x.shape == (1, 16, 32, 32)
    for stage, width, side in zip(model.stages, widths, (32, 16, 8), strict=True):
        x = stage(x)
        assert x.shape == (1, width, side, side)


def test_the_first_unit_shares_its_activation():
    model = basic_preact_resnet(14)
    assert [[unit.shared for unit in stage] for stage in model.stages] == [[True, False]] * 3
    for unit in (Original, ReLUOnlyPreActivation):
        assert basic_preact_resnet(8, unit).stages[0][0].shared


def test_equation_4():
    """x_L = x_l + the sum of what the units between them add; forward, and for the gradient (Eq. 5)."""
    units = nn.Sequential(*(FullPreActivation(3, 3) for _ in range(5)))
    randomise(units).eval()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    total, y = torch.zeros_like(x), x
    for unit in units:
        total = total + unit.residual(unit.before(y))
        y = unit(y)
    assert_same(y, x + total)
    above = torch.randn_like(y)
    through_sums = torch.autograd.grad(total, x, above, retain_graph=True)[0]
    assert_same(torch.autograd.grad(y, x, above)[0], above + through_sums)
    assert_differs(through_sums, torch.zeros_like(x))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.1])
def test_scaling_leaves_the_power_of_lambda(factor):
    """Where the residuals are silent the gradient is lambda^L exactly (Eq. 8, first term)."""
    shortcut = partial(ConstantScaling, factor=factor)
    units = nn.Sequential(*(FullPreActivation(3, 3, shortcut=shortcut) for _ in range(50))).double().eval()
    with torch.no_grad():
        for unit in units:
            unit.residual[-1].weight.zero_()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    units(x).sum().backward()
    assert_same(x.grad / factor**50, torch.ones_like(x))


@pytest.mark.parametrize("unit", ORDERS)
def test_batch_can_be_learned_by_heart(unit):
    model = basic_preact_resnet(8, unit, widths=(4, 6, 8), n_channels=1)
    x, y = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_arguments_reach_the_network():
    deep = preact_resnet(11, ReLUOnlyPreActivation, n_classes=5, n_channels=1)
    assert deep(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    units = [unit for stage in deep.stages for unit in stage]
    assert all(type(unit) is ReLUOnlyPreActivation for unit in units)
    assert all(type(unit.shortcut) is ConvolutionShortcut for unit in units)
    assert [conv.kernel_size[0] for conv in units[0].modules() if isinstance(conv, nn.Conv2d)] == [1, 1, 3, 1]
    small = basic_preact_resnet(8, Original, shortcut=ConstantScaling, widths=(3, 5, 7), n_classes=11, n_channels=2)
    assert small(torch.randn(2, 2, 8, 8)).shape == (2, 11)
    assert type(small.stages[0][0].shortcut) is ConstantScaling
    assert stem_3x3(2, 5).kernel_size == (3, 3)


def test_classifier_sees_the_mean():
    model, x = basic_preact_resnet(8).double().eval(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert_same(model(x), model.classifier(model.features(x).mean((2, 3))))
    assert_same(model.features(x), model.tail(model.stages(model.stem(x))))
    assert model.features(x).min() == 0


def test_weights_start_by_fan_in():
    for conv in (module for module in preact_resnet(11).modules() if isinstance(module, nn.Conv2d)):
        fan_in = conv.in_channels * conv.kernel_size[0] ** 2
        assert abs(conv.weight.var().item() * fan_in / 2 - 1) < 0.25


def test_wrong_arguments():
    for n_layers in (2, 111, 0):
        with pytest.raises(ValueError, match=rf"n_layers={n_layers} is not 9n \+ 2 with an n of at least 1"):
            preact_resnet(n_layers)
    with pytest.raises(ValueError, match=r"n_layers=163 is not 6n \+ 2 with an n of at least 1"):
        basic_preact_resnet(163)
    with pytest.raises(ValueError, match="must be as many, and depths at least 1"):
        PreActResNet([1], (2, 4))
