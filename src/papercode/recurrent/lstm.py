r"""Long short-term memory [@hochreiter1997long], with the forget gate [@gers2000learning].

Symbols: b batch, i width of the inputs, d cells, h what they show, c their memory.

Differences from the paper:
    * `LSTMCell` is what the name means today: it has the forget gate that came three years later, and tanh where the
      paper has logistic functions stretched to [-2, 2] and [-1, 1].
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.unroll import Cell


class LSTMState(NamedTuple):
    """What an LSTM hands to its next step.

    Attributes:
        h: (b d), what the cells show to the outside.
        c: (b d), what they remember.
    """

    h: Tensor
    c: Tensor


class LSTMCell(Cell):
    r"""An LSTM cell with forget gate.

    $$i, f, o = \sigma(W x_t + U h_{t-1} + b), \quad g = \tanh(W_g x_t + U_g h_{t-1} + b_g), \quad
    c_t = f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh(c_t)$$

    The rows of the weights are in torch's order: i, f, g, o.

    Args:
        i: Width of the inputs.
        d: Number of cells.
        bias: Whether the gates have biases.
        forget_bias: Where the bias of the forget gate starts; the other biases start at 0 [@gers2000learning].
    """

    kernel = staticmethod(torch.lstm)

    def __init__(self, i: int, d: int, *, bias: bool = True, forget_bias: float = 1.0):
        super().__init__()
        self.width = d
        self.input, self.hidden = nn.Linear(i, 4 * d, bias=bias), nn.Linear(d, 4 * d, bias=False)
        for weight in (self.input.weight, self.hidden.weight):
            nn.init.uniform_(weight, -(d**-0.5), d**-0.5)
        if bias:
            nn.init.zeros_(self.input.bias)
            nn.init.constant_(self.input.bias.view(4, d)[1], forget_bias)

    def start(self, x: Float[Tensor, "b *rest"]) -> LSTMState:
        """Zeros."""
        zeros = x.new_zeros(len(x), self.hidden.in_features)
        return LSTMState(zeros, zeros)

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """W x + b for the four gates, (… 4d)."""
        return self.input(x)

    def step(self, projected: Float[Tensor, "b p"], state: tuple[Tensor, Tensor]) -> LSTMState:
        """The next (h, c)."""
        h, c = state
        i, f, g, o = torch.addmm(projected, h, self.hidden.weight.T).chunk(4, -1)
        c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
        return LSTMState(o.sigmoid() * c.tanh(), c)

    def hidden_bias(self) -> Tensor | None:
        """The second bias of torch's layout: zeros, since the first is enough; None without biases."""
        return None if self.input.bias is None else torch.zeros_like(self.input.bias)
