"""Released weights of residual networks [@he2016deep], as the transformers library stores them."""

from functools import partial
from typing import Any

from papercode.checkpoints.config import Config
from papercode.checkpoints.labels import labels, n_classes
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.convolutional.residual_blocks import BasicBlock, BottleneckBlock
from papercode.convolutional.resnet import ResNet, Stem
from papercode.convolutional.shortcuts import Identity, Projection

_STEM, _BLOCK, _OURS = "resnet.embedder.embedder.", "resnet.encoder.stages.*.layers.*.", "stages.*.*."
_NORM = {"weight": "gain", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
RULES = (
    Rule(_STEM + "convolution.weight", "stem.conv.weight"),
    *(Rule(f"{_STEM}normalization.{theirs}", f"stem.norm.{ours}") for theirs, ours in _NORM.items()),
    Rule(_BLOCK + "layer.*.convolution.weight", _OURS + "convs.*.weight"),
    *(Rule(f"{_BLOCK}layer.*.normalization.{theirs}", f"{_OURS}norms.*.{ours}") for theirs, ours in _NORM.items()),
    Rule(_BLOCK + "shortcut.convolution.weight", _OURS + "shortcut.conv.weight"),
    *(
        Rule(f"{_BLOCK}shortcut.normalization.{theirs}", f"{_OURS}shortcut.norm.{ours}")
        for theirs, ours in _NORM.items()
    ),
    *(Rule(f"classifier.1.{kind}", f"classifier.{kind}") for kind in ("weight", "bias")),
)


def arguments(config: Config) -> dict[str, Any]:
    """What a ResNet is made with."""
    config.expect(hidden_act="relu", downsample_in_first_stage=False, layer_type={"basic", "bottleneck"})
    config.ignore("stage_names", "out_features", "out_indices")  # which stages a detector would be given
    stride_in_3x3 = not config.take("downsample_in_bottleneck", False)
    deep = partial(BottleneckBlock, stride_in_3x3=stride_in_3x3)
    return {
        "depths": config.take("depths", [3, 4, 6, 3]),
        "widths": config.take("hidden_sizes", [256, 512, 1024, 2048]),
        "block": deep if config.take("layer_type", "bottleneck") == "bottleneck" else BasicBlock,
        "c_stem": config.take("embedding_size", 64),
        "n_classes": n_classes(config),
        "n_channels": config.take("num_channels", 3),
    }


def configuration(model: ResNet) -> dict[str, Any]:
    """The inverse.

    Raises:
        ValueError: If the layout has no words for the model: another stem, or other shortcuts than option B.
    """
    stem: Any = model.stem
    if not isinstance(stem, Stem):
        raise ValueError(f"stem={type(stem).__name__}: the layout knows the one for ImageNet only")
    stages: list[list[Any]] = [list(stage) for stage in model.stages]  # type: ignore[call-overload]
    for block in (block for stage in stages for block in stage):
        strided = any(conv.stride != (1, 1) for conv in block.convs)
        changed = strided or block.convs[0].in_channels != block.convs[-1].out_channels
        if type(block.shortcut) is not (Projection if changed else Identity):
            raise ValueError(f"shortcut={type(block.shortcut).__name__}: the layout knows option B only")
    deep = len(stages[0][0].convs) == 3
    return {
        "depths": [len(stage) for stage in stages],
        "hidden_sizes": [stage[-1].convs[-1].out_channels for stage in stages],
        "layer_type": "bottleneck" if deep else "basic",
        "downsample_in_bottleneck": deep and any(stage[0].convs[0].stride != (1, 1) for stage in stages),
        "downsample_in_first_stage": False,
        "embedding_size": stem.conv.out_channels,
        "num_channels": stem.conv.in_channels,
        "hidden_act": "relu",
    } | labels(model.classifier.out_features)


LAYOUT = Layout(
    "resnet",
    RULES,
    arguments,
    configuration,
    architectures={ResNet: Architecture("ResNetForImageClassification")},
    ignored=(r".*\.num_batches_tracked",),
)
