r"""The memory cell as it was published, without a forget gate [@hochreiter1997long, section 4 and appendix A.1].

Imports: a cell and what runs it come from [`unroll`][papercode.recurrent.unroll.unroll].

Symbols: b batch, i width of the inputs, d cells, s cells in a block, k = d/s blocks, h what the cells show ($y^c$ in
the paper), c their memory ($s_c$), $y^{in}$ and $y^{out}$ the gates.

Differences from the paper:
    * An input acts within its step; the paper counts the way from any unit to the next, inputs too, as one step.
    * All units have biases, or none; in some of the paper's experiments only the gates have one.
    * Weights start within ±0.1, as in some of its experiments. The biases of all input gates start at one number, and
      those of all output gates; the paper gives each block its own, which can be written into `input.bias`.
    * The gradient is truncated only on demand, and then by autograd, backwards; the paper carries it forwards, from
      step to step. The results are equal.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.unroll import Cell


class LSTM1997State(NamedTuple):
    """What the hidden layer hands to its next step.

    Attributes:
        h: (b d), what the cells show to the outside.
        c: (b d), what they remember.
        gates: (b 2k), how far the blocks' input gates and then their output gates were open.
    """

    h: Tensor
    c: Tensor
    gates: Tensor


def stretched(x: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    r"""The logistic function, stretched from [0, 1] to ±bound; it is bound · tanh(x/2).

    The paper's g has bound 2: $g(x) = 4 \sigma(x) - 2$; its h has bound 1: $h(x) = 2 \sigma(x) - 1$.
    """
    return bound * (2 * x.sigmoid() - 1)


class LSTM1997Cell(Cell):
    r"""Blocks of memory cells, each block with one input gate and one output gate.

    $$y^{in}, y^{out} = \sigma(W x_t + U y_{t-1} + b), \quad
    c_t = c_{t-1} + y^{in} \odot g(W_c x_t + U_c y_{t-1} + b_c), \quad h_t = y^{out} \odot h(c_t)$$

    $y_{t-1}$ is $h_{t-1}$ and, with `feed_gates`, the gates of the last step. The rows of the weights are: input gates
    (k), output gates (k), cells (d, block after block).

    Args:
        i: Width of the inputs.
        d: Number of cells.
        block: s, how many cells share their gates.
        bias: Whether gates and cells have biases.
        input_bias: Where the bias of the input gates starts. Below 0, cells are slow to fill: the remedy for drift.
        output_bias: Where the bias of the output gates starts. Below 0, cells join in one after the other.
        feed_gates: The gates are read by the next step, as in the paper's fully connected hidden layers.
        truncated: Error leaves the layer through its inputs, but goes back in time through the memories alone.

    Raises:
        ValueError: If d is no multiple of block.
    """

    def __init__(
        self,
        i: int,
        d: int,
        *,
        block: int = 1,
        bias: bool = True,
        input_bias: float = 0.0,
        output_bias: float = 0.0,
        feed_gates: bool = False,
        truncated: bool = False,
    ):
        super().__init__()
        if block < 1 or d % block:
            raise ValueError(f"d={d} must be a multiple of block={block}")
        self.width, self.block, self.feed_gates, self.truncated = d, block, feed_gates, truncated
        self.gates = 2 * (k := d // block)
        self.input = nn.Linear(i, self.gates + d, bias=bias)
        self.hidden = nn.Linear(d + feed_gates * self.gates, self.gates + d, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        if bias:
            nn.init.constant_(self.input.bias[:k], input_bias)
            nn.init.constant_(self.input.bias[k : 2 * k], output_bias)

    def start(self, x: Float[Tensor, "b *rest"]) -> LSTM1997State:
        """Zeros."""
        zeros = x.new_zeros(len(x), self.width)
        return LSTM1997State(zeros, zeros, x.new_zeros(len(x), self.gates))

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """W x + b for gates and cells, (… 2k + d)."""
        return self.input(x)

    def step(self, projected: Float[Tensor, "b p"], state: tuple[Tensor, Tensor, Tensor]) -> LSTM1997State:
        """The next (h, c, gates)."""
        h, c, gates = state
        seen = torch.cat([h, gates], -1) if self.feed_gates else h
        if self.truncated:
            seen = seen.detach()
        gates, g = torch.addmm(projected, seen, self.hidden.weight.T).split([self.gates, self.width], -1)
        gates = gates.sigmoid()
        opened, shown = gates.repeat_interleave(self.block, -1).chunk(2, -1)
        c = torch.addcmul(c, opened, stretched(g, 2.0))
        return LSTM1997State(shown * stretched(c, 1.0), c, gates)
