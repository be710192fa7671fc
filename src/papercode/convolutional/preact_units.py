r"""Residual units that differ in where normalisation and activation stand [@he2016identity, section 4, Figure 4].

Imports: `BatchNorm2d` [@ioffe2015batch]; the convolutions of a block, and its shortcut, are older [@he2016deep].

Symbols: b images, c and d channels in and out, h × w and p × q places before and after. The paper's $h$ = shortcut,
$\mathcal{F}$ = residual (with what stands before it), $f$ = after.

Differences from the paper:
    * A unit that changes the shape of x takes its shortcut from behind the first activation, as the first unit of all
      does. The text says so of the first unit only (its appendix); the released code does both.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from papercode.convolutional.batch_norm import BatchNorm2d
from papercode.convolutional.residual_blocks import Block, basic
from papercode.convolutional.shortcuts import changes, option_a


class ResidualUnit(nn.Module):
    r"""$x_{l+1} = f(h(x_l) + \mathcal{F}(x_l))$ (Eqs. 1 and 2), without a word on what stands where.

    Args:
        c_in: Channels that come in.
        c_out: Channels that leave.
        stride: Of the unit.
        shortcut: Called as shortcut(c_in, c_out, stride) and then as shortcut(x, residual).
        convolutions: Called as convolutions(c_in, c_out, stride); `basic` or `bottleneck`.
    """

    before: nn.Module
    """What the residual begins with."""
    residual: nn.Module
    """From there to the sum."""
    after: nn.Module
    """From the sum on."""
    shared: bool
    """Whether the shortcut, too, begins behind `before`: where the shape changes, and in a network's first unit."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int = 1,
        *,
        shortcut: Block = option_a,
        convolutions: Callable[[int, int, int], Sequence[nn.Conv2d]] = basic,
    ):
        super().__init__()
        self.shortcut = shortcut(c_in, c_out, stride)
        self.shared = changes(c_in, c_out, stride)
        self.arrange(convolutions(c_in, c_out, stride))

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """Sets before, residual and after."""
        raise NotImplementedError(f"{type(self).__name__} does not say what stands where")

    @staticmethod
    def head(c: int) -> nn.Module:
        """What such a network needs between its first convolution and its first unit."""
        return norm_relu(c)

    @staticmethod
    def tail(c: int) -> nn.Module:
        """What it needs after its last unit."""
        return nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """Residual, shortcut, and what comes after."""
        activated = self.before(x)
        return self.after(self.shortcut(activated if self.shared else x, self.residual(activated)))


class Original(ResidualUnit):
    """Convolution, norm, ReLU, convolution, norm, sum, ReLU: the block of @he2016deep (Figure 4 a)."""

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """Nothing before, ReLU after."""
        self.before, self.residual, self.after = nn.Identity(), chain(convs, norm_last=True), nn.ReLU()


class NormAfterAddition(ResidualUnit):
    """Convolution, norm, ReLU, convolution, sum, norm, ReLU (Figure 4 b)."""

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """Nothing before, norm and ReLU after."""
        self.before, self.residual, self.after = nn.Identity(), chain(convs), norm_relu(convs[-1].out_channels)


class ReLUBeforeAddition(ResidualUnit):
    """Convolution, norm, ReLU, convolution, norm, ReLU, sum (Figure 4 c): the residual is never negative."""

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """Nothing before, nothing after."""
        self.before, self.after = nn.Identity(), nn.Identity()
        self.residual = nn.Sequential(chain(convs, norm_last=True), nn.ReLU())


class ReLUOnlyPreActivation(ResidualUnit):
    """ReLU, convolution, norm, ReLU, convolution, norm, sum (Figure 4 d)."""

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """ReLU before, nothing after."""
        self.before, self.residual, self.after = nn.ReLU(), chain(convs, norm_last=True), nn.Identity()

    @staticmethod
    def head(c: int) -> nn.Module:
        """A norm; the ReLU is the first unit's."""
        return BatchNorm2d(c)

    @staticmethod
    def tail(c: int) -> nn.Module:
        """The ReLU that no unit gives any more."""
        return nn.ReLU()


class FullPreActivation(ResidualUnit):
    """Norm, ReLU, convolution, norm, ReLU, convolution, sum (Figure 4 e): the unit that the paper proposes."""

    def arrange(self, convs: Sequence[nn.Conv2d]) -> None:
        """Norm and ReLU before, nothing after."""
        self.before, self.residual, self.after = norm_relu(convs[0].in_channels), chain(convs), nn.Identity()

    @staticmethod
    def head(c: int) -> nn.Module:
        """Nothing: the first unit begins with a norm."""
        return nn.Identity()

    @staticmethod
    def tail(c: int) -> nn.Module:
        """The activation of the sum, which nothing has activated yet."""
        return norm_relu(c)


def norm_relu(c: int) -> nn.Sequential:
    """Batch normalisation and ReLU."""
    return nn.Sequential(BatchNorm2d(c), nn.ReLU())


def chain(convs: Sequence[nn.Conv2d], norm_last: bool = False) -> nn.Sequential:
    """Convolutions with norm and ReLU between them.

    Args:
        convs: One or more.
        norm_last: Whether a norm follows the last one, too.
    """
    made: list[nn.Module] = [convs[0]]
    for conv in convs[1:]:
        made += [*norm_relu(conv.in_channels), conv]
    return nn.Sequential(*made, *([BatchNorm2d(convs[-1].out_channels)] if norm_last else []))
