r"""VGG [@simonyan2015very]: convolutions of 3 × 3, one upon the other, 11 to 19 layers deep.

Imports: nothing from an older paper of this collection. Max pooling, ReLU, dropout and local response normalisation
(configuration A-LRN) are AlexNet's.

Symbols: b images, c channels, h × w pixels. A stage is what stands between two poolings. The paper's $C$ = channels,
conv3-64 = `Convolution(64)`, conv1-256 = `Convolution(256, kernel=1)`.

Differences from the paper:
    * Weights start by Glorot's uniform rule, biases at 0: the way of section 3.1 that the authors found after
      they had submitted. Their first way is `gaussian_start` for A and `start_from` for the deeper ones.
    * A network can be built for other image sizes, channels and widths of the fully connected layers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Convolution:
    """One convolution with stride 1 that keeps the image's size, and its ReLU: conv⟨kernel⟩-⟨channels⟩ in Table 1.

    Attributes:
        channels: It gives.
        kernel: Side of the square it looks at, odd.
        normalise: Whether local response normalisation follows.
    """

    channels: int
    kernel: int = 3
    normalise: bool = False


def _stages(*depths: int) -> list[list[Convolution]]:
    """Stages of 64, 128, 256, 512, 512 channels."""
    return [[Convolution(c)] * depth for c, depth in zip((64, 128, 256, 512, 512), depths, strict=True)]


def _pointwise(stages: list[list[Convolution]]) -> list[list[Convolution]]:
    """The last convolution of the last three stages looks at single pixels."""
    return stages[:2] + [[*stage[:-1], Convolution(stage[-1].channels, kernel=1)] for stage in stages[2:]]


CONFIGURATIONS: dict[str, list[list[Convolution]]] = {
    "A": _stages(1, 1, 2, 2, 2),
    "A-LRN": [[Convolution(64, normalise=True)], *_stages(1, 1, 2, 2, 2)[1:]],
    "B": _stages(2, 2, 2, 2, 2),
    "C": _pointwise(_stages(2, 2, 3, 3, 3)),
    "D": _stages(2, 2, 3, 3, 3),
    "E": _stages(2, 2, 4, 4, 4),
}
"""Table 1: the stages of each network; D is VGG-16 and E is VGG-19."""


class VGG(nn.Module):
    """Stages of convolutions, each closed by a max pooling that halves the image, and three fully connected layers.

    Args:
        stages: The convolutions between the poolings, as in
            [`CONFIGURATIONS`][papercode.convolutional.vgg.CONFIGURATIONS].
        n_classes: How many logits come out.
        channels: Of the images.
        size: Height and width of the images.
        width: Of the two hidden fully connected layers.
        dropout: Behind these two (section 3.1).

    Raises:
        ValueError: If the poolings leave nothing of an image of this size, or the input has other channels or another
            size.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Convolution]],
        n_classes: int = 1000,
        *,
        channels: int = 3,
        size: int = 224,
        width: int = 4096,
        dropout: float = 0.5,
    ):
        super().__init__()
        side = size // 2 ** len(stages)
        if side < 1:
            raise ValueError(f"size={size} must be at least 2^{len(stages)}, for {len(stages)} poolings halve it")
        self.channels, self.size = channels, size
        self.features = nn.Sequential()
        for i, stage in enumerate(stages, 1):
            for j, (out, kernel, normalise) in enumerate(map(astuple, stage), 1):
                self.features.add_module(f"conv{i}_{j}", nn.Conv2d(channels, out, kernel, padding=kernel // 2))
                self.features.add_module(f"relu{i}_{j}", nn.ReLU())
                if normalise:  # torch divides alpha by the 5 channels that are summed
                    self.features.add_module(f"norm{i}_{j}", nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
                channels = out
            self.features.add_module(f"pool{i}", nn.MaxPool2d(2))
        self.classifier = nn.ModuleList(
            nn.Linear(*widths) for widths in ((channels * side**2, width), (width, width), (width, n_classes))
        )
        self.side, self.dropout = side, nn.Dropout(dropout)
        for layer in self.layers():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """All that has weights, from the image to the logits; their number is the depth that Table 1 counts."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n_classes"]:
        """Logits for images of the size that the network was made for."""
        if x.shape[1:] != (self.channels, self.size, self.size):
            made_for = (self.channels, self.size, self.size)
            raise ValueError(f"x has images of shape {tuple(x.shape[1:])}, this VGG was made for {made_for}")
        x = self.features(x).flatten(1)
        for layer in self.classifier[:-1]:
            x = self.dropout(layer(x).relu())
        return self.classifier[-1](x)

    def dense(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n_classes u v"]:
        """A map of logits for larger images: the fully connected layers slide over them as convolutions (section 3.2).

        The first becomes a convolution of side × side (7 × 7 for images of 224), the others of 1 × 1.
        """
        first, *others = self.layers()[-3:]
        x = F.conv2d(self.features(x), first.weight.unflatten(1, (-1, self.side, self.side)), first.bias)
        for layer in others:
            x = F.conv2d(self.dropout(x.relu()), layer.weight[:, :, None, None], layer.bias)
        return x

    def posteriors(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n_classes"]:
        """Probabilities as at test time: the map averaged over places, and those of the mirror image (section 3.2)."""
        views = [self.dense(view).mean((2, 3)).softmax(-1) for view in (x, x.flip(-1))]
        return (views[0] + views[1]) / 2


@torch.no_grad()
def gaussian_start(model: VGG, variance: float = 1e-2) -> None:
    """Draws all weights from a normal distribution and sets the biases to 0: how A starts (section 3.1)."""
    for layer in model.layers():
        layer.weight.normal_(std=variance**0.5)
        layer.get_parameter("bias").zero_()


def start_from(model: VGG, shallow: VGG) -> None:
    """Copies the first four convolutions and the fully connected layers of a trained A (section 3.1).

    The four are A's conv1_1, conv2_1, conv3_1 and conv3_2, and go to the layers of the same stage and place.

    Raises:
        ValueError: If model has no such layer, or one of another shape; nothing is copied then.
    """
    convolutions = [name for name, layer in shallow.features.named_children() if isinstance(layer, nn.Conv2d)]
    names = [f"features.{name}" for name in convolutions[:4]] + [f"classifier.{i}" for i in range(3)]
    new, old = model.state_dict(), shallow.state_dict()
    names = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    for name in names:
        if name not in new or new[name].shape != old[name].shape:
            shape = tuple(new[name].shape) if name in new else "no such layer"
            raise ValueError(f"{name} is {tuple(old[name].shape)} in shallow, {shape} in model")
    for name in names:
        new[name].copy_(old[name])


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of convolutions, linear layers and other matrix products for one input; nothing is computed.

    Args:
        model: Of any kind, on any device; called in evaluation with one tensor on torch's meta device.
        shape: Of one input, without the batch: (3, 224, 224).
    """
    from torch.utils.flop_counter import FlopCounterMode  # who counts nothing need not load it

    training = [module for module in model.modules() if module.training]
    tensors = {name: t.to("meta") for name, t in [*model.named_parameters(), *model.named_buffers()]}
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with counter, torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.empty(1, *shape, device="meta"),))
    finally:
        for module in training:
            module.training = True
    return counter.get_total_flops() // 2  # a multiply-add is two operations


def receptive_field(layers: Iterable[Any]) -> int:
    r"""Longer side of what one output pixel sees of the input: $r \leftarrow r + (k - 1)\,j$, $j \leftarrow js$.

    k is a layer's kernel, s its stride, and j the product of the strides so far. With no padding in the way, the input
    gradient of an output pixel is not zero on exactly this rectangle, for most layers a square.

    Args:
        layers: In order; those without a `kernel_size` (ReLU, …) see one pixel and change nothing.
    """
    sides, jumps = [1, 1], [1, 1]
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            sizes = layer.kernel_size, layer.stride, getattr(layer, "dilation", 1)
            for axis in (0, 1):
                kernel, stride, dilation = (size if isinstance(size, int) else size[axis] for size in sizes)
                sides[axis] += (kernel - 1) * dilation * jumps[axis]
                jumps[axis] *= stride
    return max(sides)
