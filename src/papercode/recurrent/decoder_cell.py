r"""The decoder's recurrent unit, which the summary of the source enters in every step [@cho2014learning].

Imports: the units are `GRUCell` and `ResetAfterGRUCell` of the same paper.

Symbols: b batch, i width of the inputs, d hidden units, m width of the summary c.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.recurrent.gru import GRUCell, ResetAfterGRUCell


class DecoderState(NamedTuple):
    """What a decoder hands to its next step.

    Attributes:
        h: (b d), the hidden state.
        c: (b m), the summary of the source, the same in all steps.
        fed: (b 3d), what c adds to the gates and to the candidate in each step, computed once.
    """

    h: Tensor
    c: Tensor
    fed: Tensor


class DecoderCell(GRUCell):
    r"""The unit of section 2.3, to which c is one more input in every step.

    $$r, z = \sigma(W y_{t-1} + U h_{t-1} + C c), \quad
    \tilde h_t = \tanh(W_h y_{t-1} + U_h (r \odot h_{t-1}) + C_h c), \quad h_0 = \tanh(V c)$$

    Args:
        i: Width of the inputs.
        d: Number of units.
        m: Width of the summary.
        bias: Whether there are biases.
    """

    def __init__(self, i: int, d: int, m: int, *, bias: bool = True):
        super().__init__(i, d, bias=bias)
        self.context, self.first = nn.Linear(m, 3 * d, bias=False), nn.Linear(m, d, bias=bias)

    def begin(self, c: Float[Tensor, "b m"]) -> DecoderState:
        """The state before the first word, h = tanh(V c)."""
        return DecoderState(self.first(c).tanh(), c, self.context(c))

    def start(self, x: Float[Tensor, "b *rest"]) -> DecoderState:  # type: ignore[override]
        """Raises TypeError: the first state depends on the source."""
        raise TypeError("a decoder's first state depends on the source: give begin(c) as state")

    def step(self, projected: Float[Tensor, "b p"], state: DecoderState) -> DecoderState:  # type: ignore[override]
        """The next state."""
        return state._replace(h=super().step(projected + state.fed, state.h))


class ResetAfterDecoderCell(DecoderCell, ResetAfterGRUCell):
    r"""The unit as appendix A.1.2 writes it: the reset gate acts on the products of state and summary.

    $$\tilde h_t = \tanh(W_h y_{t-1} + r \odot (U_h h_{t-1} + C_h c))$$

    For one source it is cuDNN's unit with the hidden bias C c.
    """

    kernel = None  # torch's has the same hidden bias for all rows

    def step(self, projected: Float[Tensor, "b p"], state: DecoderState) -> DecoderState:  # type: ignore[override]
        """The next state."""
        products = torch.addmm(state.fed, state.h, self.hidden.weight.T)
        return state._replace(h=self.mixed(projected, products, state.h))
