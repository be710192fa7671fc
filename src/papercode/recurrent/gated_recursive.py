r"""The gated recursive convolutional network, an encoder without a direction [@cho2014properties].

It stands beside the RNN encoder of [@cho2014learning], whose decoder reads its summary. Words are joined in pairs of
neighbours, level by level, until one vector is left. At each place three weights that sum to 1 decide whether the new
vector is made anew of both neighbours or is a copy of the left or of the right one. All levels share their weights.

Imports: what lengths may be [@hochreiter1997long]. It may stand where `LastState` does.

Symbols: b batch, s words, e width of word vectors, d width of a node.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.unroll import check


class GatedRecursiveConv(nn.Module):
    r"""Joins all words of a phrase into one vector.

    $$h_j = \omega_c \tilde h_j + \omega_l h^{t-1}_j + \omega_r h^{t-1}_{j+1}, \quad
    \tilde h_j = \tanh(W_l h^{t-1}_j + W_r h^{t-1}_{j+1}), \quad
    (\omega_c, \omega_l, \omega_r) = \mathrm{softmax}(G_l h^{t-1}_j + G_r h^{t-1}_{j+1})$$

    Args:
        e: Width of word vectors.
        d: Width of a node.

    Attributes:
        width: d.
    """

    def __init__(self, e: int, d: int):
        super().__init__()
        self.width = d
        self.word = nn.Linear(e, d, bias=False)
        self.new, self.gates = nn.Linear(2 * d, d), nn.Linear(2 * d, 3)

    def level(self, h: Float[Tensor, "b j d"]) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k 3"]]:
        """The j - 1 nodes above j nodes, and the weights of new, left and right."""
        left, right = h[:, :-1], h[:, 1:]
        both = torch.cat([left, right], -1)
        weights = self.gates(both).softmax(-1)
        choices = torch.stack([self.new(both).tanh(), left, right], -1)
        return (choices * weights[:, :, None]).sum(-1), weights

    def forward(self, x: Float[Tensor, "b s e"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b d"]:
        """The root of each phrase, which has `lengths` words, s unless given.

        Padding needs no mask: the first node of level n - 1 stands above the first n words alone.

        Raises:
            ValueError: If s = 0, there is not one length for each phrase, or one is not from 1 to s.
        """
        b, s = x.shape[:2]
        check(x, lengths)
        if lengths is None:
            lengths = torch.full((b,), s, device=x.device)
        h = self.word(x)
        roots = [h[:, 0]]
        for _ in range(int(lengths.max()) - 1):
            h, _ = self.level(h)
            roots.append(h[:, 0])
        return torch.stack(roots)[lengths - 1, torch.arange(b, device=x.device)]
