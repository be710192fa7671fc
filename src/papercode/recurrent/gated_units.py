r"""The units that were compared at equal size: tanh, LSTM with peepholes, GRU [@chung2014empirical, section 3].

Imports: `LSTMCell` and its state, which here gets peepholes, and `Cell` [@hochreiter1997long]. The GRU is
`papercode.recurrent.gru.GRUCell`, unchanged [@cho2014learning].

Symbols: b batch, i width of the inputs, d units, h what they show, c the LSTM's memory.

Differences from the paper:
    * There are biases, which the paper leaves out of its equations.
    * Its GRU has $z$ and $1 - z$ the other way round than [@cho2014learning], and than `GRUCell`: the same unit, with
      the signs of the update gate's weights turned.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.lstm import LSTMCell, LSTMState
from papercode.recurrent.unroll import Cell, each, shown


class RNNCell(Cell):
    r"""The traditional unit, $h_t = \tanh(W x_t + U h_{t-1} + b)$: it replaces its content in every step.

    Args:
        i: Width of the inputs.
        d: Number of units.
        bias: Whether there is a bias.
    """

    kernel = staticmethod(torch.rnn_tanh)

    def __init__(self, i: int, d: int, *, bias: bool = True):
        super().__init__()
        self.width = d
        self.input, self.hidden = nn.Linear(i, d, bias=bias), nn.Linear(d, d, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(d**-0.5), d**-0.5)

    def start(self, x: Float[Tensor, "b *rest"]) -> Float[Tensor, "b d"]:
        """Zeros."""
        return x.new_zeros(len(x), self.width)

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest d"]:
        """W x + b."""
        return self.input(x)

    def step(self, projected: Float[Tensor, "b d"], h: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The next h."""
        return torch.addmm(projected, h, self.hidden.weight.T).tanh()

    def hidden_bias(self) -> Tensor | None:
        """The second bias of torch's layout: zeros, since the first is enough; None without a bias."""
        return None if self.input.bias is None else torch.zeros_like(self.input.bias)


class PeepholeLSTMCell(LSTMCell):
    r"""An LSTM whose gates also see the memory, each unit's gates that of their own unit.

    $$i, f = \sigma(W x_t + U h_{t-1} + V \odot c_{t-1}), \quad c_t = f \odot c_{t-1} + i \odot g, \quad
    o = \sigma(W_o x_t + U_o h_{t-1} + V_o \odot c_t), \quad h_t = o \odot \tanh(c_t)$$

    The output gate sees the new memory, the others the old one. V is diagonal: a number for each unit.

    Args:
        i: Width of the inputs.
        d: Number of cells.
        bias: Whether the gates have biases.
        forget_bias: Where the bias of the forget gate starts.
    """

    kernel: Any = None  # torch's has no peepholes

    def __init__(self, i: int, d: int, *, bias: bool = True, forget_bias: float = 1.0):
        super().__init__(i, d, bias=bias, forget_bias=forget_bias)
        self.peepholes = nn.Parameter(torch.empty(3, d).uniform_(-(d**-0.5), d**-0.5))  # of i, f, o

    def step(self, projected: Float[Tensor, "b p"], state: tuple[Tensor, Tensor]) -> LSTMState:
        """The next (h, c)."""
        h, c = state
        i, f, g, o = torch.addmm(projected, h, self.hidden.weight.T).chunk(4, -1)
        of_i, of_f, of_o = self.peepholes
        i, f = torch.addcmul(i, of_i, c).sigmoid(), torch.addcmul(f, of_f, c).sigmoid()
        c = torch.addcmul(f * c, i, g.tanh())
        return LSTMState(torch.addcmul(o, of_o, c).sigmoid() * c.tanh(), c)


def count(make: Callable[[int], nn.Module], d: int) -> int:
    """Parameters of the module that `make` makes for a width d; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(d).parameters())


def match_parameters(make: Callable[[int], nn.Module], budget: int) -> int:
    """The width whose module comes closest to a number of parameters.

    Args:
        make: Makes a module for a width, with more parameters for a larger one: `lambda d: GRUCell(20, d)`.
        budget: How many parameters there may be.

    Raises:
        ValueError: If a module of width 1 has more than twice the budget.
    """
    if count(make, 1) > 2 * budget:
        raise ValueError(f"budget={budget} is too small: a module of width 1 has {count(make, 1)} parameters")
    high = 1
    while count(make, high) < budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(make, middle) < budget else (low, middle)
    return min((d for d in (low, high) if d), key=lambda d: abs(count(make, d) - budget))


def carried(cell: Cell, x: Float[Tensor, "b n i"], at: Collection[int]) -> Float[Tensor, " t"]:
    r"""How much of the gradient of $h_t$ reaches what stood before the first step, for each t in `at`.

    The mean over the batch of $\lVert g^\top \partial h_t / \partial s_0 \rVert$ for a random unit vector g, where
    $s_0$ is all of the first state: h, and for an LSTM also c.

    Args:
        cell: Any cell whose start is known.
        x: The inputs.
        at: Steps from 1 to n, in rising order.

    Raises:
        ValueError: If a step is not from 1 to n.
    """
    if not all(1 <= t <= x.shape[1] for t in at):
        raise ValueError(f"at={list(at)} must be steps from 1 to n={x.shape[1]}")
    state = each(lambda part: part.clone().requires_grad_(), cell.start(x))
    parts: Any = (state,) if isinstance(state, Tensor) else tuple(state)
    found = []
    for t, projected in enumerate(cell.project(x).unbind(1), 1):
        state = cell.step(projected, state)
        if t in at:
            h = shown(state)
            g = nn.functional.normalize(torch.randn_like(h), dim=1)
            gradients = torch.autograd.grad(h, parts, g, retain_graph=True)
            found.append(torch.cat(gradients, 1).norm(dim=1).mean())
    return torch.stack(found).detach()
