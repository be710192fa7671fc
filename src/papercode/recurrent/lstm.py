r"""Long short-term memory [@hochreiter1997long], with the forget gate [@gers2000learning].

Imports: a cell and what runs it come from [`unroll`][papercode.recurrent.unroll.unroll], several layers from
[`Recurrent`][papercode.recurrent.layers.Recurrent].

Symbols: b batch, i width of the inputs, d cells, h what they show, c their memory.

Differences from the paper:
    * `LSTMCell` is what the name means today: it has the forget gate that came three years later, and tanh where the
      paper has logistic functions stretched to [-2, 2] and [-1, 1]. With the forget gate held open that is only another
      scale of weights and memory: [`LSTM1997Cell`][papercode.recurrent.lstm_1997.LSTM1997Cell] is the paper's.
    * Each cell has gates of its own, which nothing else reads; the paper's cells share theirs in blocks.
    * Gradients are not truncated.
    * The bias of the forget gate starts at 1 and those of the other gates at 0; with the forget gate came negative ones
      for the others.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.layers import Recurrent
from papercode.recurrent.unroll import Cell, unroll


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
        forget_bias: Where the bias of the forget gate starts; the other biases start at 0.
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


@torch.no_grad()
def from_torch(lstm: nn.LSTM, *, run: Callable = unroll) -> Recurrent:
    """An LSTM of torch as layers of ours: the same weights, copied, and their two biases summed.

    Args:
        lstm: Whatever its `batch_first`, ours reads (b n i).
        run: What runs the cells along the sequences: `unroll`, or `fused`.

    Raises:
        ValueError: If what the cells show is projected (`proj_size`).
    """
    if lstm.proj_size:
        raise ValueError(f"proj_size={lstm.proj_size} must be 0: LSTMCell does not project what it shows")
    make = partial(LSTMCell, d=lstm.hidden_size, bias=lstm.bias)
    layers = Recurrent(
        make, lstm.input_size, lstm.num_layers, bidirectional=lstm.bidirectional, dropout=lstm.dropout, run=run
    )
    for cell, (of_x, of_h, *biases) in zip(layers.cells, lstm.all_weights, strict=True):
        cell.to(of_x)
        cell.input.weight.copy_(of_x)
        cell.hidden.weight.copy_(of_h)
        if biases:
            cell.input.bias.copy_(sum(biases))
    return layers.train(lstm.training)
