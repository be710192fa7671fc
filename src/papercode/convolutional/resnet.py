r"""Residual networks [@he2016deep]: each block learns what to add to its input.

Imports: `BatchNorm2d` [@ioffe2015batch] follows every convolution; blocks and shortcuts are the same paper's.
The design, 3 × 3 convolutions whose number doubles where the image halves, is that of VGG [@simonyan2015very].

Symbols: b images, c channels, h × w pixels, k classes. The paper's $\mathcal{F}$ = the convolutions of a block,
$\mathcal{H}$ = the whole block, n = blocks in a stage of the networks for CIFAR-10.

Differences from the paper:
    * Initial weights: those of convolutions are normal with variance 2 / fan-in, as it cites; the classifier starts as
      `nn.Linear` does, of which it says nothing.
    * The mean over positions takes images of any size.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from papercode.checkpoints.pretrained import Pretrained
from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.residual_blocks import BasicBlock, Block, BottleneckBlock, convolution, initialise
from papercode.convolutional.shortcuts import option_a, option_b

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks in each of the four stages, by the number of layers (Table 1)."""


class Stem(nn.Sequential):
    """7 × 7 convolution with stride 2, batch normalisation, ReLU, and the largest of 3 × 3 places at every second one.

    An image of 224 × 224 becomes 56 × 56 (Table 1, conv1 and the pooling of conv2_x).

    Args:
        c_in: Channels of the image.
        c_out: Channels that leave.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv, self.norm = convolution(c_in, c_out, 7, 2), BatchNorm2d(c_out)
        self.activation, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)


class SmallStem(nn.Sequential):
    """3 × 3 convolution, batch normalisation, ReLU: for images of 32 × 32 (section 4.2).

    Args:
        c_in: Channels of the image.
        c_out: Channels that leave.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv, self.norm, self.activation = convolution(c_in, c_out, 3), BatchNorm2d(c_out), nn.ReLU()


def stages(block: Block, c_in: int, depths: Sequence[int], widths: Sequence[int]) -> nn.Sequential:
    """Stages of blocks. The first block of each stage but the first halves the image.

    Args:
        block: Called as block(c_in, c_out, stride).
        c_in: Channels that come in.
        depths: Blocks in each stage.
        widths: Channels that leave each stage.

    Raises:
        ValueError: If there are not as many depths as widths, or a stage has no block.
    """
    if len(depths) != len(widths) or min(depths, default=0) < 1:
        raise ValueError(f"depths={tuple(depths)} and widths={tuple(widths)} must be as many, and depths at least 1")
    made = []
    for i, (depth, width) in enumerate(zip(depths, widths)):
        first = block(c_in, width, 1 if i == 0 else 2)
        made.append(nn.Sequential(first, *[block(width, width, 1) for _ in range(depth - 1)]))
        c_in = width
    return nn.Sequential(*made)


class ResNet(Pretrained, layout="resnet"):
    """Stem, stages of blocks, mean over all places, classifier (Table 1).

    Args:
        depths: Blocks in each stage.
        widths: Channels that leave each stage.
        block: Called as block(c_in, c_out, stride).
        stem: Called as stem(n_channels, c_stem).
        c_stem: Channels that leave the stem.
        n_classes: k.
        n_channels: Of the images.

    Raises:
        ValueError: If there are not as many depths as widths, or a stage has no block.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        block: Block = BasicBlock,
        *,
        stem: Callable[[int, int], nn.Module] = Stem,
        c_stem: int = 64,
        n_classes: int = 1000,
        n_channels: int = 3,
    ):
        super().__init__()
        self.stem = stem(n_channels, c_stem)
        self.stages = stages(block, c_stem, depths, widths)
        self.classifier = nn.Linear(widths[-1], n_classes)
        initialise(self)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """What the last stage hands over: one vector a place."""
        return self.stages(self.stem(images))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.classifier(self.features(images).mean((2, 3)))


def resnet(n_layers: int, *, shortcut: Block = option_b, n_classes: int = 1000, stride_in_3x3: bool = False) -> ResNet:
    """A network for ImageNet (Table 1).

    Args:
        n_layers: 18, 34, 50, 101 or 152.
        shortcut: Given to every block. The paper compares A, B and C at 34 layers and goes on with B.
        n_classes: k.
        stride_in_3x3: Of the bottlenecks.

    Raises:
        ValueError: If Table 1 has no such column.
    """
    if n_layers not in DEPTHS:
        raise ValueError(f"n_layers={n_layers} is not in Table 1, which has {', '.join(map(str, DEPTHS))}")
    if n_layers < 50:
        basic = partial(BasicBlock, shortcut=shortcut)
        return ResNet(DEPTHS[n_layers], (64, 128, 256, 512), basic, n_classes=n_classes)
    deep = partial(BottleneckBlock, shortcut=shortcut, stride_in_3x3=stride_in_3x3)
    return ResNet(DEPTHS[n_layers], (256, 512, 1024, 2048), deep, n_classes=n_classes)


def cifar_resnet(
    n_layers: int,
    *,
    shortcut: Block = option_a,
    widths: Sequence[int] = (16, 32, 64),
    n_classes: int = 10,
    n_channels: int = 3,
) -> ResNet:
    """A network of 6n + 2 layers for small images: a convolution, three stages of n blocks, a classifier (section 4.2).

    Args:
        n_layers: 20, 32, 44, 56, 110 or 1202 in the paper.
        shortcut: Given to every block; option A in the paper.
        widths: Channels in each stage, also of the first convolution.
        n_classes: k.
        n_channels: Of the images.

    Raises:
        ValueError: If n_layers is not 6n + 2 with an n of at least 1.
    """
    n, rest = divmod(n_layers - 2, 6)
    if rest or n < 1:
        raise ValueError(f"n_layers={n_layers} is not 6n + 2 with an n of at least 1")
    block, c_stem = partial(BasicBlock, shortcut=shortcut), widths[0]
    sizes = {"c_stem": c_stem, "n_classes": n_classes, "n_channels": n_channels}
    return ResNet([n] * 3, widths, block, stem=SmallStem, **sizes)
