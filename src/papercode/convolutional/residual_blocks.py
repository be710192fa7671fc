r"""The blocks of residual networks [@he2016deep].

Imports: `BatchNorm2d` [@ioffe2015batch] follows every convolution; the shortcuts are the same paper's section 3.3.

Symbols: b images, c and d channels in and out, h × w and p × q places before and after. The paper's
$\mathcal{F}$ = residual, $\mathcal{H}$ = the whole block.

Differences from the paper:
    * `stride_in_3x3=True` moves the stride of a bottleneck from the first 1 × 1 convolution to the 3 × 3, as most
      released weights have it.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.shortcuts import option_b

Block = Callable[[int, int, int], nn.Module]
"""Makes a block, or a shortcut, of c_in, c_out and stride."""


def convolution(c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Square, without bias (batch normalisation has one), padded so that stride 1 keeps the size of the image."""
    return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False)


def basic(c_in: int, c_out: int, stride: int = 1) -> list[nn.Conv2d]:
    """The two 3 × 3 convolutions of a basic block (Figure 5, left)."""
    return [convolution(c_in, c_out, 3, stride), convolution(c_out, c_out, 3)]


def bottleneck(c_in: int, c_out: int, stride: int = 1, *, stride_in_3x3: bool = False) -> list[nn.Conv2d]:
    """1 × 1 to a quarter of the channels, 3 × 3 among those, 1 × 1 to all of c_out (Figure 5, right).

    Args:
        c_in: Channels that come in.
        c_out: Channels that leave, a multiple of 4.
        stride: Of the block.
        stride_in_3x3: Whether the 3 × 3 convolution has it; in the paper it is the first.

    Raises:
        ValueError: If c_out is no multiple of 4.
    """
    if c_out % 4:
        raise ValueError(f"c_out={c_out} is no multiple of 4: a bottleneck has a quarter of its output's channels")
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    return [
        convolution(c_in, c_out // 4, 1, first),
        convolution(c_out // 4, c_out // 4, 3, second),
        convolution(c_out // 4, c_out, 1),
    ]


class ResidualBlock(nn.Module):
    r"""$\mathrm{ReLU}(\mathcal{F}(x) + x)$: the last convolution has no ReLU of its own before the sum (Eq. 1, Fig. 2).

    Args:
        convs: The convolutions of $\mathcal{F}$; each is followed by batch normalisation, all but the last by ReLU.
        shortcut: Called as shortcut(x, residual).
    """

    def __init__(self, convs: Sequence[nn.Conv2d], shortcut: nn.Module):
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(BatchNorm2d(conv.out_channels) for conv in convs)
        self.shortcut = shortcut

    def residual(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        r"""$\mathcal{F}(x)$."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(x if i == 0 else x.relu()))
        return x

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """Residual, shortcut, ReLU."""
        return self.shortcut(x, self.residual(x)).relu()


class BasicBlock(ResidualBlock):
    """Two 3 × 3 convolutions: the block of up to 34 layers, and of all networks for CIFAR-10.

    Args:
        c_in: Channels that come in.
        c_out: Channels that leave.
        stride: Of the first convolution and of the shortcut.
        shortcut: Option A, B or C, none, or another; called as shortcut(c_in, c_out, stride).
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, shortcut: Block = option_b):
        super().__init__(basic(c_in, c_out, stride), shortcut(c_in, c_out, stride))


class BottleneckBlock(ResidualBlock):
    """1 × 1, 3 × 3, 1 × 1: the block of 50 layers and more.

    Args:
        c_in: Channels that come in.
        c_out: Channels that leave, a multiple of 4.
        stride: Of the first convolution and of the shortcut.
        shortcut: As in [`BasicBlock`][papercode.convolutional.residual_blocks.BasicBlock].
        stride_in_3x3: Gives the stride to the second convolution instead.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int = 1, *, shortcut: Block = option_b, stride_in_3x3: bool = False
    ):
        convs = bottleneck(c_in, c_out, stride, stride_in_3x3=stride_in_3x3)
        super().__init__(convs, shortcut(c_in, c_out, stride))


def initialise(model: nn.Module) -> None:
    """Draws the weights of all convolutions in model from a normal distribution with variance 2 / fan-in."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
