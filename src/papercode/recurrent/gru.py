r"""The gated recurrent unit of the RNN encoder-decoder [@cho2014learning, section 2.3].

Imports: `Cell` is the one step of a recurrent network that every cell of this family is, `Recurrent` several layers
of them [@hochreiter1997long].

Symbols: b batch, i width of the inputs, d units, r reset gate, z update gate, $\tilde h$ candidate.

Differences from the paper:
    * There are biases, unless `bias=False`; the paper omits them from its equations "to make them uncluttered".
    * `ResetAfterGRUCell` is not that of section 2.3: it is what the first version of the preprint had, and what cuDNN,
      and so torch, computes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.layers import Recurrent
from papercode.recurrent.unroll import Cell, unroll


class GRUCell(Cell):
    r"""The paper's unit: the reset gate acts on the state, before the matrix product.

    $$r, z = \sigma(W x_t + U h_{t-1} + b), \quad \tilde h_t = \tanh(W_h x_t + U_h (r \odot h_{t-1}) + b_h), \quad
    h_t = z \odot h_{t-1} + (1 - z) \odot \tilde h_t$$

    The rows of the weights are in torch's order: r, z, candidate.

    Args:
        i: Width of the inputs.
        d: Number of units.
        bias: Whether there are biases.
    """

    def __init__(self, i: int, d: int, *, bias: bool = True):
        super().__init__()
        self.width = d
        self.input, self.hidden = nn.Linear(i, 3 * d, bias=bias), nn.Linear(d, 3 * d, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(d**-0.5), d**-0.5)

    def start(self, x: Float[Tensor, "b *rest"]) -> Float[Tensor, "b d"]:
        """Zeros."""
        return x.new_zeros(len(x), self.hidden.in_features)

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """W x + b for both gates and the candidate, (… 3d)."""
        return self.input(x)

    def step(self, projected: Float[Tensor, "b p"], h: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The next h."""
        d = h.shape[1]
        gates, candidate = self.hidden.weight.split([2 * d, d])
        r, z = torch.addmm(projected[:, : 2 * d], h, gates.T).sigmoid().chunk(2, -1)
        candidate = torch.addmm(projected[:, 2 * d :], r * h, candidate.T).tanh()
        return torch.lerp(candidate, h, z)


class ResetAfterGRUCell(GRUCell):
    r"""cuDNN's and torch's unit: the reset gate acts on the matrix product, bias included.

    $$\tilde h_t = \tanh(W_h x_t + b_h + r \odot (U_h h_{t-1} + c_h))$$

    One matrix product a step instead of two; the only bias that could not be merged into the input's is $c_h$.
    """

    kernel: Any = staticmethod(torch.gru)

    def __init__(self, i: int, d: int, *, bias: bool = True):
        super().__init__(i, d, bias=bias)
        self.reset_bias = nn.Parameter(torch.empty(d).uniform_(-(d**-0.5), d**-0.5)) if bias else None

    def step(self, projected: Float[Tensor, "b p"], h: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The next h."""
        return self.mixed(projected, h @ self.hidden.weight.T, h)

    def mixed(
        self, projected: Float[Tensor, "b p"], products: Float[Tensor, "b p"], h: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """The next h, of what the input and what the reset gate acts on contribute."""
        d = h.shape[1]
        r, z = (projected[:, : 2 * d] + products[:, : 2 * d]).sigmoid().chunk(2, -1)
        product = products[:, 2 * d :]
        product = product if self.reset_bias is None else product + self.reset_bias
        return torch.lerp(torch.addcmul(projected[:, 2 * d :], r, product).tanh(), h, z)

    def hidden_bias(self) -> Tensor | None:
        """The bias of the state's products in torch's layout, (3d); None without biases."""
        d = self.hidden.in_features
        return None if self.reset_bias is None else torch.cat([self.reset_bias.new_zeros(2 * d), self.reset_bias])


@torch.no_grad()
def from_torch(gru: nn.GRU, *, run: Callable = unroll) -> Recurrent:
    """A GRU of torch as layers of `ResetAfterGRUCell`: the same weights, copied.

    Torch has two biases for each product. Those of the gates are summed; those of the candidate stay apart, since the
    reset gate stands between them.

    Args:
        gru: Whatever its `batch_first`, ours reads (b n i).
        run: What runs the cells along the sequences: `unroll`, or `fused`.
    """
    make = partial(ResetAfterGRUCell, d=gru.hidden_size, bias=gru.bias)
    layers = Recurrent(
        make, gru.input_size, gru.num_layers, bidirectional=gru.bidirectional, dropout=gru.dropout, run=run
    )
    for cell, (of_x, of_h, *biases) in zip(layers.cells, gru.all_weights, strict=True):
        cell.to(of_x)
        cell.input.weight.copy_(of_x)
        cell.hidden.weight.copy_(of_h)
        if biases:
            gates = 2 * gru.hidden_size
            cell.input.bias.copy_(biases[0])
            cell.input.bias[:gates] += biases[1][:gates]
            cell.reset_bias.copy_(biases[1][gates:])
    return layers.train(gru.training)
