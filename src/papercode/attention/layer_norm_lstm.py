r"""Recurrent cells with layer normalisation [@ba2016layer, section 3.1 and supplementary material].

Imports: `LayerNorm` is the same paper's. `Cell`, one step of a recurrent network that `unroll` runs along a sequence,
and the LSTM's state come from the LSTM [@hochreiter1997long]. The equations are written out anew: norms stand amid
them.

Symbols: b batch, i input width, d width of the hidden state. The paper's $f, i, o, g$ = forget, input, output gate and
candidate before their nonlinearities, $\alpha$ = gain and $\beta$ = bias of a norm, $W_h$ = hidden, $W_x$ = input.

Differences from the paper:
    * Gains start at 1 and biases at 0. The supplementary material says it the other way round, in the same sentence in
      which it swaps the names of $\alpha$ and $\beta$; as printed, every gate would start as a constant.
    * $\varepsilon$ stands under the root (see `LayerNorm`). As printed, the first step is 0/0, for $h_0 = 0$.
    * Weights start uniformly in $\pm 1/\sqrt{d}$, as torch's LSTM; the paper's differ from task to task.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.recurrent.lstm import LSTMState
from papercode.recurrent.unroll import Cell


def _linear(i: int, o: int, d: int) -> nn.Linear:
    linear = nn.Linear(i, o, bias=False)
    nn.init.uniform_(linear.weight, -(d**-0.5), d**-0.5)
    return linear


def _check(width: int, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.shape[-1] != width:
            raise ValueError(f"{name} is {tensor.shape[-1]} wide, this cell was made for {width}")


class LayerNormRNNCell(Cell):
    r"""$h_t = f(\mathrm{LN}(W_h h_{t-1} + W_x x_t))$: one norm over the sum [@ba2016layer, Eq. 4].

    Args:
        i: Width of the inputs.
        d: Width of the hidden state.
        activation: f; tanh unless given.

    Raises:
        ValueError: If x or h has another width.
    """

    def __init__(self, i: int, d: int, *, activation: nn.Module | None = None):
        super().__init__()
        self.width = d
        self.hidden, self.input = _linear(d, d, d), _linear(i, d, d)
        self.norm = LayerNorm(d)
        self.activation = nn.Tanh() if activation is None else activation

    def start(self, x: Float[Tensor, "b *rest"]) -> Float[Tensor, "b d"]:
        """Zeros."""
        return x.new_zeros(len(x), self.width)

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """$W_x x$, (… d)."""
        _check(self.input.in_features, x=x)
        return self.input(x)

    def step(self, projected: Float[Tensor, "b p"], h: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The next hidden state."""
        _check(self.width, h=h)
        return self.activation(self.norm(self.hidden(h) + projected))


class LayerNormLSTMCell(Cell):
    r"""An LSTM cell with three norms, on what comes from the state, from the input, and from the memory.

    $$(\mathbf{f}, \mathbf{i}, \mathbf{o}, \mathbf{g}) = \mathrm{LN}_1(W_h h_{t-1}) + \mathrm{LN}_2(W_x x_t) + b, \quad
    c_t = \sigma(\mathbf{f}) c_{t-1} + \sigma(\mathbf{i}) \tanh(\mathbf{g}), \quad
    h_t = \sigma(\mathbf{o}) \tanh(\mathrm{LN}_3(c_t))$$

    The first two norms run over all 4d numbers, the four gates together. $c_t$ itself is handed on as it is.

    Args:
        i: Width of the inputs.
        d: Width of the state.

    Raises:
        ValueError: If x, h or c has another width.
    """

    def __init__(self, i: int, d: int):
        super().__init__()
        self.width = d
        self.hidden, self.input = _linear(d, 4 * d, d), _linear(i, 4 * d, d)
        self.bias = nn.Parameter(torch.zeros(4 * d))
        self.norm_hidden, self.norm_input, self.norm_memory = LayerNorm(4 * d), LayerNorm(4 * d), LayerNorm(d)

    def start(self, x: Float[Tensor, "b *rest"]) -> LSTMState:
        """Zeros."""
        zeros = x.new_zeros(len(x), self.width)
        return LSTMState(zeros, zeros)

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        r"""$\mathrm{LN}_2(W_x x) + b$, (… 4d)."""
        _check(self.input.in_features, x=x)
        return self.norm_input(self.input(x)) + self.bias

    def step(self, projected: Float[Tensor, "b p"], state: tuple[Tensor, Tensor]) -> LSTMState:
        """The next (h, c)."""
        h, c = state
        _check(self.width, h=h, c=c)
        f, i, o, g = (self.norm_hidden(self.hidden(h)) + projected).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return LSTMState(o.sigmoid() * self.norm_memory(c).tanh(), c)
