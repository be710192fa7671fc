from functools import partial

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.residual_blocks import BasicBlock, BottleneckBlock
from papercode.convolutional.resnet import DEPTHS, ResNet, SmallStem, Stem, cifar_resnet, resnet, stages
from papercode.convolutional.shortcuts import Projection, no_shortcut, option_a, option_b, option_c
from papercode.convolutional.vgg import CONFIGURATIONS, VGG, count_macs

NAMES = {"gain": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def copy_norm(ours, theirs):
    theirs.load_state_dict({NAMES[name]: value for name, value in ours.state_dict().items()}, strict=False)


def copy_layer(conv, norm, theirs):
    theirs.convolution.load_state_dict(conv.state_dict())
    copy_norm(norm, theirs.normalization)


def reference(ours, **config):
    """transformers' network with the weights and statistics of ours."""
    theirs = ResNetForImageClassification(ResNetConfig(**config)).double()
    copy_layer(ours.stem.conv, ours.stem.norm, theirs.resnet.embedder.embedder)
    for stage, other in zip(ours.stages, theirs.resnet.encoder.stages, strict=True):
        for block, layer in zip(stage, other.layers, strict=True):
            for conv, norm, inner in zip(block.convs, block.norms, layer.layer, strict=True):
                copy_layer(conv, norm, inner)
            if isinstance(block.shortcut, Projection):
                copy_layer(block.shortcut.conv, block.shortcut.norm, layer.shortcut)
    theirs.classifier[1].load_state_dict(ours.classifier.state_dict())
    return theirs


def drawn(model):
    """Every parameter and every running statistic."""
    randomise(model)
    for norm in (module for module in model.modules() if isinstance(module, BatchNorm2d)):
        norm.mean.normal_()
        norm.variance.uniform_(0.5, 2)
    return model


def parameters(model):
    return sum(p.numel() for p in model.parameters())


CASES = {
    "basic": (BasicBlock, {"layer_type": "basic"}),
    "bottleneck, stride in the 1 × 1": (BottleneckBlock, {"downsample_in_bottleneck": True}),
    "bottleneck, stride in the 3 × 3": (partial(BottleneckBlock, stride_in_3x3=True), {}),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_parity_with_transformers(parity, name, training):
    block, config = CASES[name]
    depths, widths = [2, 1, 3], [12, 20, 28]
    ours = drawn(ResNet(depths, widths, block, c_stem=5, n_classes=7, n_channels=2)).train(training)
    theirs = reference(
        ours, depths=depths, hidden_sizes=widths, embedding_size=5, num_labels=7, num_channels=2, **config
    )
    x = torch.randn(3, 2, 61, 47, dtype=torch.float64)
    expected = theirs.train(training)(x).logits
    mode = "training" if training else "evaluation"
    reference_name = "transformers.ResNetForImageClassification"
    parity("ResNet", reference_name, f"{name}, {mode}", ours(x), expected)
    with torch.no_grad():
        ours.stages[1][0].shortcut.norm.bias.add_(0.1)
    assert_differs(ours(x), expected)


def test_gradients_and_the_other_stride(parity):
    ours = drawn(ResNet([1, 1], [12, 20], BottleneckBlock, c_stem=5, n_classes=7))
    config = {"depths": [1, 1], "hidden_sizes": [12, 20], "embedding_size": 5, "num_labels": 7}
    theirs, other = (reference(ours, downsample_in_bottleneck=first, **config) for first in (True, False))
    x = torch.randn(3, 3, 37, 41, dtype=torch.float64)
    parity("ResNet", "transformers.ResNetForImageClassification", "gradients", gradients(ours, x), gradients(theirs, x))
    assert_differs(ours(x), other(x).logits)


def gradients(model, x):
    logits = model(x)
    value = (logits if isinstance(logits, torch.Tensor) else logits.logits).square().sum()
    return torch.autograd.grad(value, [next(model.parameters())])[0]


@pytest.mark.parametrize(
    ("n_layers", "count"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962), (1202, 19_421_274)],
)
def test_parameters_of_table_6(n_layers, count):
    with torch.device("meta"):
        assert parameters(cifar_resnet(n_layers)) == count
        assert parameters(cifar_resnet(n_layers, shortcut=no_shortcut)) == count


@pytest.mark.parametrize(
    ("n_layers", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameters_for_imagenet(n_layers, count):
    with torch.device("meta"):
        assert parameters(resnet(n_layers)) == count


@pytest.mark.parametrize(("n_layers", "macs"), [(18, 1.814), (34, 3.664), (50, 3.858), (101, 7.570), (152, 11.282)])
def test_multiply_adds_of_table_1(n_layers, macs):
    with torch.device("meta"):
        assert round(count_macs(resnet(n_layers), (3, 224, 224)) / 1e9, 3) == macs


def test_multiply_adds_of_the_other_stride():
    with torch.device("meta"):
        assert round(count_macs(resnet(50, stride_in_3x3=True), (3, 224, 224)) / 1e9, 3) == 4.089


def test_34_layers_cost_less_than_a_fifth_of_vgg_19():
    with torch.device("meta"):
        ours, vgg = (count_macs(m, (3, 224, 224)) for m in (resnet(34, shortcut=option_a), VGG(CONFIGURATIONS["E"])))
    assert round(ours / 1e9, 1) == 3.6
    assert round(vgg / 1e9, 1) == 19.6
    assert round(ours / vgg, 3) == 0.186  # the paper's 18 % is the ratio of the rounded numbers
    assert round(3.6 / 19.6, 2) == 0.18


def test_plain_a_b_c():
    with torch.device("meta"):
        plain, a, b, c = (parameters(resnet(34, shortcut=s)) for s in (no_shortcut, option_a, option_b, option_c))
    assert plain == a < b < c


@pytest.mark.parametrize("n_layers", [8, 20])
def test_layers_of_cifar(n_layers):
    model = cifar_resnet(n_layers)
    convs = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convs) + 1 == n_layers  # the classifier is the last; option A has no convolutions
    sizes = [stage.shape[1:] for stage in outputs(model, torch.randn(1, 3, 32, 32))]
    assert sizes == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def outputs(model, x):
    """What the stem and the stages hand over."""
    made = [model.stem(x)]
    for stage in model.stages:
        made.append(stage(made[-1]))
    return made


@pytest.mark.parametrize("n_layers", DEPTHS)
def test_layers_and_sizes_for_imagenet(n_layers):
    with torch.device("meta"):
        model = resnet(n_layers)
        sizes = [tuple(stage.shape[1:]) for stage in outputs(model, torch.randn(1, 3, 224, 224))]
    blocks = [block for stage in model.stages for block in stage]
    assert sum(len(block.convs) for block in blocks) + 2 == n_layers
    widths = (64, 128, 256, 512) if n_layers < 50 else (256, 512, 1024, 2048)
    assert sizes == [(64, 56, 56)] + [(width, 56 >> i, 56 >> i) for i, width in enumerate(widths)]
    assert type(blocks[0]) is (BasicBlock if n_layers < 50 else BottleneckBlock)


def test_stem_looks_at_the_largest():
    stem = Stem(1, 1)
    assert [type(module).__name__ for module in stem] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert stem(torch.randn(2, 1, 224, 224)).shape == (2, 1, 56, 56)
    small = SmallStem(1, 2)(torch.randn(2, 1, 8, 8))
    assert small.shape == (2, 2, 8, 8)
    assert small.min() == 0


def test_arguments_reach_the_network():
    model = resnet(18, shortcut=option_c, n_classes=5)
    assert model.classifier.out_features == 5
    assert all(isinstance(block.shortcut, Projection) for stage in model.stages for block in stage)
    assert resnet(50, stride_in_3x3=True).stages[1][0].convs[1].stride == (2, 2)
    assert resnet(50).stages[1][0].convs[0].stride == (2, 2)
    with torch.device("meta"):
        deep, default = resnet(50, shortcut=option_c, n_classes=5), ResNet([1], [8])
    assert deep.classifier.out_features == 5
    assert all(isinstance(block.shortcut, Projection) for stage in deep.stages for block in stage)
    assert (default.stem.conv.in_channels, default.stem.conv.out_channels) == (3, 64)
    assert default.classifier.out_features == 1000
    assert type(default.stages[0][0]) is BasicBlock
    small = cifar_resnet(8, shortcut=option_b, widths=(3, 5, 7), n_classes=11, n_channels=1)
    assert small(torch.randn(2, 1, 8, 8)).shape == (2, 11)
    assert isinstance(small.stages[1][0].shortcut, Projection)


def test_any_size_of_image():
    model = cifar_resnet(8).eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == model(torch.randn(1, 3, 19, 40)).shape == (1, 10)


def test_classifier_sees_the_mean():
    model, x = cifar_resnet(8).double().eval(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert_same(model(x), model.classifier(model.features(x).mean((2, 3))))
    assert_same(model.features(x), outputs(model, x)[-1])


def test_weights_start_as_cited():
    torch.manual_seed(0)
    model = cifar_resnet(20)
    for conv in (module for module in model.modules() if isinstance(module, torch.nn.Conv2d)):
        fan_in = conv.in_channels * conv.kernel_size[0] ** 2
        assert abs(conv.weight.var().item() * fan_in / 2 - 1) < 0.25
        assert abs(conv.weight.mean().item()) < 4 * (2 / fan_in / conv.weight.numel()) ** 0.5
    bound = model.classifier.in_features**-0.5  # of nn.Linear
    assert 0.9 * bound < model.classifier.weight.abs().max() <= bound


def test_batch_can_be_learned_by_heart():
    model = cifar_resnet(8, widths=(4, 6, 8), n_channels=1)
    x, y = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"n_layers=20 is not in Table 1, which has 18, 34, 50, 101, 152"):
        resnet(20)
    for n_layers in (2, 21, 0):
        with pytest.raises(ValueError, match=rf"n_layers={n_layers} is not 6n \+ 2 with an n of at least 1"):
            cifar_resnet(n_layers)
    for depths, widths in (([1], [2, 4]), ([1, 0], [2, 4]), ([], [])):
        with pytest.raises(ValueError, match="must be as many, and depths at least 1"):
            stages(BasicBlock, 2, depths, widths)
