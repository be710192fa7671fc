r"""Shortcuts that do more than hand over [@he2016identity, section 3]: all of them made a deep network worse.

Imports: the identity, or zero padding where the shape changes, is what they vary [@he2016deep, option A].

All are made by `shortcut(c_in, c_out, stride)` and called as `shortcut(x, residual)`, and fit into every block.

Symbols: b images, c and d channels in and out, h × w and p × q places before and after. The paper's $x_l$ = x,
$\mathcal{F}$ = residual, $\lambda$ = factor, $g$ = gate, $b_g$ = bias.

Differences from the paper:
    * Where the shape of x changes, what is scaled, gated or dropped is x padded with zeros, and the gate is computed
      from x with the block's stride. The paper speaks of equal shapes only.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.convolutional.shortcuts import changes, option_a


class ConstantScaling(nn.Module):
    r"""$\lambda x + \mu \mathcal{F}$ (section 3.1). Halved on both sides, it is a gate that stands still at a half.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual.
        stride: Of the block.
        factor: Of x.
        residual_factor: Of the residual.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, factor: float = 0.5, residual_factor: float = 1.0):
        super().__init__()
        self.add, self.factor, self.residual_factor = option_a(c_in, c_out, stride), factor, residual_factor

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Scales both and adds."""
        return self.add(self.factor * x, self.residual_factor * residual)


class ShortcutGate(nn.Module):
    r"""$(1 - g(x))\, x + \mathcal{F}$, with the gate $g(x) = \sigma(W_g x + b_g)$ (shortcut-only gating, section 3.1).

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual, and of the gate.
        stride: Of the block.
        bias: $b_g$ at the beginning. Far below 0 the gate is shut and x passes as it is.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, bias: float = -6.0):
        super().__init__()
        self.add = option_a(c_in, c_out, stride)
        self.gate = nn.Conv2d(c_in, c_out, 1, stride)
        nn.init.constant_(self.gate.bias, bias)  # type: ignore[arg-type]

    def parts(
        self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]
    ) -> tuple[Float[Tensor, "b d p q"], Float[Tensor, "b d p q"]]:
        """The gate, and x in the residual's shape."""
        return self.gate(x).sigmoid(), self.add(x, torch.zeros_like(residual))

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Gates x and adds."""
        gate, carried = self.parts(x, residual)
        return (1 - gate) * carried + residual


class ExclusiveGate(ShortcutGate):
    r"""$(1 - g(x))\, x + g(x)\, \mathcal{F}$ (section 3.1), as in highway networks.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual, and of the gate.
        stride: Of the block.
        bias: $b_g$ at the beginning. Far below 0 x passes as it is, and of the residual hardly anything does.
    """

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Gates both and adds."""
        gate, carried = self.parts(x, residual)
        return (1 - gate) * carried + gate * residual


class ConvolutionShortcut(nn.Module):
    r"""$W x + \mathcal{F}$ with a 1 × 1 convolution W (section 3.1): a projection without batch normalisation.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual.
        stride: Of the convolution.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Adds."""
        return residual + self.conv(x)


class DropoutShortcut(nn.Module):
    r"""x with dropout, plus $\mathcal{F}$ (section 3.1): on average a scaling by a constant.

    Args:
        c_in: Channels of x.
        c_out: Channels of the residual.
        stride: Of the block.
        p: Probability with which a value of x is dropped.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1, *, p: float = 0.5):
        super().__init__()
        self.add, self.dropout = option_a(c_in, c_out, stride), nn.Dropout(p)

    def forward(self, x: Float[Tensor, "b c h w"], residual: Float[Tensor, "b d p q"]) -> Float[Tensor, "b d p q"]:
        """Drops and adds."""
        return self.add(self.dropout(x), residual)


def convolution_at_changes(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """A 1 × 1 convolution where the shape changes, the identity elsewhere, as in the deepest networks of the paper."""
    return ConvolutionShortcut(c_in, c_out, stride) if changes(c_in, c_out, stride) else option_a(c_in, c_out, stride)
