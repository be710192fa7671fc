"""Released weights of residual networks, written and read by transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification

from helpers import assert_differs, assert_same, randomise
from papercode.checkpoints.resnet import LAYOUT
from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.resnet import ResNet, cifar_resnet, resnet
from papercode.convolutional.shortcuts import option_a, option_c

SIZES = {"embedding_size": 5, "hidden_sizes": [12, 20], "depths": [2, 1], "num_labels": 7, "num_channels": 2}
CASES = {
    "basic": {"layer_type": "basic"},
    "bottleneck, stride in the 1 × 1": {"downsample_in_bottleneck": True},
    "bottleneck, stride in the 3 × 3": {},
}


def written(folder, **config):
    """A small network of transformers with everything drawn, saved to a folder; in evaluation mode."""
    model = randomise(ResNetForImageClassification(ResNetConfig(**SIZES | config))).eval()
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.save_pretrained(folder)
    return model


def images():
    return torch.randn(3, 2, 37, 41, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_equal_outputs(parity, tmp_path, name):
    theirs, x = written(tmp_path, **CASES[name]), images()
    ours = ResNet.from_pretrained(tmp_path)
    assert not ours.training
    model = "ResNet, released weights"
    parity(model, "transformers.ResNetForImageClassification", name, ours(x), theirs(x).logits)
    with torch.no_grad():
        ours.stem.norm.variance.mul_(4)
    assert_differs(ours(x), theirs(x).logits)


@pytest.mark.parametrize("name", CASES)
def test_round_trip(tmp_path, name):
    theirs, x = written(tmp_path / "theirs", **CASES[name]), images()
    ours = ResNet.from_pretrained(tmp_path / "theirs")
    ours.to_transformers(tmp_path / "ours")
    again = ResNetForImageClassification.from_pretrained(tmp_path / "ours").double().eval()
    assert_same(again(x).logits, theirs(x).logits)
    assert_same(ResNet.from_pretrained(tmp_path / "ours")(x), ours(x), 0)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    batches = {key for key in before if key.endswith("num_batches_tracked")}  # which we do not count
    assert before.keys() - batches == after.keys()
    configs = [ResNetConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "ours")]
    written_by_us = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert all(configs[0][key] == configs[1][key] for key in written_by_us)


def test_a_stage_that_halves_without_widening(tmp_path):
    theirs, x = written(tmp_path / "theirs", hidden_sizes=[12, 12]), images()
    ResNet.from_pretrained(tmp_path / "theirs").to_transformers(tmp_path / "ours")
    assert_same(ResNet.from_pretrained(tmp_path / "ours")(x), theirs(x).logits)


@pytest.mark.parametrize("n_layers", [18, 50])
def test_the_networks_of_table_1_are_the_released_ones(n_layers):
    """Names and shapes of microsoft/resnet-18 and resnet-50, and what they are made with."""
    basic = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
    with torch.device("meta"):
        theirs = ResNetForImageClassification(ResNetConfig(num_labels=1000, **basic if n_layers == 18 else {}))
        ours = resnet(n_layers, stride_in_3x3=True)
    expected = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    found = LAYOUT.ours(theirs.state_dict(), "transformers", expected)
    assert {name: tensor.shape for name, tensor in found.items()} == expected


def test_attributes_that_are_not_handled(tmp_path):
    for values, message in (
        ({"hidden_act": "gelu"}, "hidden_act='gelu'; only 'relu' is supported"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage=True; only False is supported"),
        ({"layer_type": "basic", "width_factor": 2}, "attributes that are not handled: width_factor=2"),
    ):
        written(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        with pytest.raises(ValueError, match=message):
            ResNet.from_pretrained(tmp_path)


def test_misfits(tmp_path):
    written(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"depths": [2, 2]}))
    with pytest.raises(ValueError, match=r"missing: stages\.1\.1\.convs\.0\.weight"):
        ResNet.from_pretrained(tmp_path)


def test_the_last_norms_are_read(tmp_path):
    written(tmp_path)
    norms = [module for module in ResNet.from_pretrained(tmp_path).modules() if isinstance(module, BatchNorm2d)]
    assert len(norms) == 1 + 3 * 3 + 2
    for norm in norms:
        assert norm.mean.abs().max() > 0
        assert norm.variance.min() >= 0.5
        assert norm.gain.std() > 0


def test_what_the_layout_has_no_words_for(tmp_path):
    for model, message in (
        (cifar_resnet(8), "stem=SmallStem: the layout knows the one for ImageNet only"),
        (resnet(18, shortcut=option_a), "shortcut=ZeroPadding: the layout knows option B only"),
        (resnet(18, shortcut=option_c), "shortcut=Projection: the layout knows option B only"),
    ):
        with pytest.raises(ValueError, match=message):
            model.to_transformers(tmp_path)
    assert list(tmp_path.iterdir()) == []
