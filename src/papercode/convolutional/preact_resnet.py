r"""Pre-activation residual networks [@he2016identity]: nothing stands on the path from the first sum to the last.

Imports: the frame of stages is that of residual networks [@he2016deep]; units and shortcuts are this paper's.

Symbols: b images, c channels, h × w pixels, k classes. The paper's $x_l$ = what comes into unit l; n = units in
a stage.

Differences from the paper:
    * Initial weights of convolutions are normal with variance 2 / fan-in; the released code has 2 / fan-out.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from papercode.convolutional.preact_units import FullPreActivation, ResidualUnit
from papercode.convolutional.residual_blocks import Block, basic, bottleneck, convolution, initialise
from papercode.convolutional.resnet import stages
from papercode.convolutional.shortcut_variants import convolution_at_changes
from papercode.convolutional.shortcuts import option_a


def stem_3x3(c_in: int, c_out: int) -> nn.Conv2d:
    """The first convolution of a network for small images; normalisation and ReLU are the first unit's affair."""
    return convolution(c_in, c_out, 3)


class PreActResNet(nn.Module):
    """Convolution, stages of units, the last activation, mean over all places, classifier.

    Args:
        depths: Units in each stage.
        widths: Channels that leave each stage.
        unit: Which order of norm, ReLU and sum.
        shortcut: Given to every unit.
        convolutions: Given to every unit; `basic` or `bottleneck`.
        stem: Called as stem(n_channels, c_stem).
        c_stem: Channels that leave the stem.
        n_classes: k.
        n_channels: Of the images.

    Raises:
        ValueError: If there are not as many depths as widths, or a stage has no unit.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        unit: type[ResidualUnit] = FullPreActivation,
        *,
        shortcut: Block = option_a,
        convolutions: Callable[[int, int, int], Sequence[nn.Conv2d]] = basic,
        stem: Callable[[int, int], nn.Module] = stem_3x3,
        c_stem: int = 16,
        n_classes: int = 10,
        n_channels: int = 3,
    ):
        super().__init__()
        made = partial(unit, shortcut=shortcut, convolutions=convolutions)
        self.stem = nn.Sequential(stem(n_channels, c_stem), unit.head(c_stem))
        self.stages = stages(made, c_stem, depths, widths)
        self.stages[0][0].shared = True  # type: ignore[index]  # the first of all
        self.tail = unit.tail(widths[-1])
        self.classifier = nn.Linear(widths[-1], n_classes)
        initialise(self)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """What the last unit hands over, activated."""
        return self.tail(self.stages(self.stem(images)))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.classifier(self.features(images).mean((2, 3)))


def preact_resnet(
    n_layers: int,
    unit: type[ResidualUnit] = FullPreActivation,
    *,
    shortcut: Block = convolution_at_changes,
    n_classes: int = 10,
    n_channels: int = 3,
) -> PreActResNet:
    """A network of 9n + 2 layers for small images: three stages of n bottlenecks, 64, 128 and 256 channels wide.

    Args:
        n_layers: 164 or 1001 in the paper.
        unit: Which order of norm, ReLU and sum.
        shortcut: Given to every unit.
        n_classes: k.
        n_channels: Of the images.

    Raises:
        ValueError: If n_layers is not 9n + 2 with an n of at least 1.
    """
    return PreActResNet(
        [_units(n_layers, 9)] * 3,
        (64, 128, 256),
        unit,
        shortcut=shortcut,
        convolutions=bottleneck,
        n_classes=n_classes,
        n_channels=n_channels,
    )


def basic_preact_resnet(
    n_layers: int,
    unit: type[ResidualUnit] = FullPreActivation,
    *,
    shortcut: Block = option_a,
    widths: Sequence[int] = (16, 32, 64),
    n_classes: int = 10,
    n_channels: int = 3,
) -> PreActResNet:
    """A network of 6n + 2 layers for small images, of pairs of 3 × 3 convolutions.

    Args:
        n_layers: 110 in the paper.
        unit: Which order of norm, ReLU and sum.
        shortcut: Given to every unit.
        widths: Channels in each of the three stages, also of the first convolution.
        n_classes: k.
        n_channels: Of the images.

    Raises:
        ValueError: If n_layers is not 6n + 2 with an n of at least 1.
    """
    return PreActResNet(
        [_units(n_layers, 6)] * 3,
        widths,
        unit,
        shortcut=shortcut,
        c_stem=widths[0],
        n_classes=n_classes,
        n_channels=n_channels,
    )


def _units(n_layers: int, layers: int) -> int:
    n, rest = divmod(n_layers - 2, layers)
    if rest or n < 1:
        raise ValueError(f"n_layers={n_layers} is not {layers}n + 2 with an n of at least 1")
    return n
