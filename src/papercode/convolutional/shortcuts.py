r"""What joins the input of a residual block to what its layers make of it [@he2016deep, section 3.3].

Imports: `BatchNorm2d` [@ioffe2015batch] follows the convolution of a projection.

A shortcut is made by `shortcut(c_in, c_out, stride)` and called as `shortcut(x, residual)`: x is what came into the
block, residual what its layers made of it, and the result is what leaves before the last ReLU.

Symbols: b images, c and d channels in and out, h × w and p × q places before and after. The paper's $x$ = x,
$\mathcal{F}(x)$ = residual, $W_s$ = the projection.

Differences from the paper:
    * The zeros of option A stand behind the channels of x, and its stride keeps every second place, the first one
      included. The paper says "zeros" and "stride of 2".
"""

from jaxtyping import Float
from torch import Tensor, nn

from papercode.convolutional.batch_norm import BatchNorm2d


class Identity(nn.Module):
    r"""$\mathcal{F}(x) + x$, where nothing changes size (Eq. 1)."""

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Adds."""
        return residual + x


class NoShortcut(nn.Module):
    r"""$\mathcal{F}(x)$ alone: the block of a plain network."""

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Lets x go."""
        return residual


class ZeroPadding(nn.Module):
    """x at every stride-th place, with zeros for the channels that it lacks.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual.
        stride: Distance of the places that are kept.

    Raises:
        ValueError: If c_out is less than c_in: zeros can only be added.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        if c_out < c_in:
            raise ValueError(f"c_out={c_out} is less than c_in={c_in}: padding cannot take channels away")
        self.missing, self.stride = c_out - c_in, stride

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Adds."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return residual + nn.functional.pad(kept, (0, 0, 0, 0, 0, self.missing))


class Projection(nn.Module):
    r"""$\mathcal{F}(x) + W_s x$ (Eq. 2): $W_s$ is a 1 × 1 convolution, followed by batch normalisation as all are.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual.
        stride: Of the convolution.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.norm = BatchNorm2d(c_out)

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Adds."""
        return residual + self.norm(self.conv(x))


def changes(c_in: int, c_out: int, stride: int) -> bool:
    """Whether what leaves a block has another shape than what comes in."""
    return c_in != c_out or stride != 1


def option_a(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """Zero padding where the shape changes, the identity elsewhere: no parameters at all."""
    return ZeroPadding(c_in, c_out, stride) if changes(c_in, c_out, stride) else Identity()


def option_b(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """A projection where the shape changes, the identity elsewhere."""
    return Projection(c_in, c_out, stride) if changes(c_in, c_out, stride) else Identity()


def option_c(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """A projection in every block."""
    return Projection(c_in, c_out, stride)


def no_shortcut(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """The plain counterpart."""
    return NoShortcut()
