r"""Highway networks [@srivastava2015highway]: each layer learns how much of its input to let through unchanged.

Imports: nothing from an older paper's module. The gate is that of the LSTM [@hochreiter1997long], turned from time
steps to layers.

Symbols: b batch, d width, c channels, h × w pixels. The paper's $H$ = activation(transform(x)), $T$ = sigmoid(gate(x)),
the transform gate, $C = 1 - T$, the carry gate, $b_T$ = the bias of `gate`.

Differences from the paper:
    * The default bias of the transform gates is -2 at every depth. The paper names no default: it tries values in a
      random search.
    * The output is computed as $x + T(x) (H(x) - x)$, the same sum in one operation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HighwayLayer(nn.Module):
    r"""$y = H(x) \cdot T(x) + x \cdot (1 - T(x))$, elementwise [@srivastava2015highway, Eq. 3].

    Weights start by He's rule, as in section 3.1, the bias of `transform` at 0, that of `gate` at transform_bias: a new
    layer lets most of its input through.

    Args:
        transform: A linear map or a convolution that keeps the shape of x.
        gate: Another of the same shape.
        transform_bias: $b_T$, where the gate's bias starts; negative closes it.
        activation: Of $H$; ReLU unless given.

    Raises:
        ValueError: If transform or gate changes the number of features, or the size of an image.
    """

    def __init__(
        self,
        transform: nn.Linear | nn.Conv2d,
        gate: nn.Linear | nn.Conv2d,
        *,
        transform_bias: float = -2.0,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        self.transform, self.gate = transform, gate
        self.activation = nn.ReLU() if activation is None else activation
        for name, layer, bias in (("transform", transform, 0.0), ("gate", gate, transform_bias)):
            to, of = layer.weight.shape[:2]
            if to != of:
                raise ValueError(f"{name} makes {to} features of {of}, but a highway layer keeps their number")
            nn.init.kaiming_normal_(layer.weight)
            nn.init.constant_(layer.get_parameter("bias"), bias)

    def opening(self, x: Float[Tensor, "b d *hw"]) -> Float[Tensor, "b d ..."]:
        """$T(x)$: 0 where the layer carries its input, 1 where it replaces it."""
        return torch.sigmoid(self.gate(x))

    def forward(self, x: Float[Tensor, "b d *hw"]) -> Float[Tensor, "b d *hw"]:
        """Mixes x and what the transform makes of it, as the gate says for each feature of each example."""
        new, opening = self.activation(self.transform(x)), self.opening(x)
        for name, y in (("transform", new), ("gate", opening)):
            if y.shape != x.shape:
                raise ValueError(f"{name} makes {tuple(y.shape)} of x, but a highway layer keeps {tuple(x.shape)}")
        return torch.lerp(x, new, opening)


class Highway(nn.Sequential):
    """A stack of fully connected highway layers on (b d).

    Args:
        d: Width of all layers.
        n_layers: How many.
        transform_bias: Where the gates' biases start.
        activation: Of all layers; ReLU unless given.
    """

    def __init__(self, d: int, n_layers: int, *, transform_bias: float = -2.0, activation: nn.Module | None = None):
        super().__init__(
            *(
                HighwayLayer(nn.Linear(d, d), nn.Linear(d, d), transform_bias=transform_bias, activation=activation)
                for _ in range(n_layers)
            )
        )


class ConvolutionalHighway(nn.Sequential):
    """A stack of convolutional highway layers on images (b c h w): weights shared by all places, in H and in T.

    Args:
        channels: c, of all layers.
        n_layers: How many.
        kernel: Side of the square that a convolution looks at, odd.
        transform_bias: Where the gates' biases start.
        activation: Of all layers; ReLU unless given.

    Raises:
        ValueError: If kernel is even: no padding on both sides would keep the image's size.
    """

    def __init__(
        self,
        channels: int,
        n_layers: int,
        *,
        kernel: int = 3,
        transform_bias: float = -2.0,
        activation: nn.Module | None = None,
    ):
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd")

        def convolution() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

        super().__init__(
            *(
                HighwayLayer(convolution(), convolution(), transform_bias=transform_bias, activation=activation)
                for _ in range(n_layers)
            )
        )
