r"""Disentangled attention without maps for positions [@he2021deberta, section 5.3]: words and distances share theirs.

With $W_{k,r} = W_{k,c}$ and $W_{q,r} = W_{q,c}$ it has as many weights as ordinary attention. The 1.5 billion model has
it, and so has DeBERTaV3.

Imports: `DisentangledAttention` (same paper); `attention` is what it does at the end [@vaswani2017attention].

Symbols: as for `deberta_attention`.

Differences from the paper:
    * All maps have a bias, keys too, as in the authors' code.
    * p2c looks up the distance from the query to the key, as in the authors' code.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.transformer import attention
from papercode.encoders.deberta_attention import DisentangledAttention


class SharedAttention(DisentangledAttention):
    """Disentangled attention in which distances go through the maps of the words, all of which have biases.

    Args:
        d_model: Width of the input, of the table and of the output.
        n_heads: h.
        c2p: Whether content looks at positions.
        p2c: Whether positions look at content; at the distance from query to key, as in the authors' code.
        dropout: On the weights and on the table, while training.
        attend: Is given q, k, v, and c2p + p2c as bias.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        c2p: bool = True,
        p2c: bool = True,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__(d_model, n_heads, c2p=False, p2c=False, same_distance=True, dropout=dropout, attend=attend)
        self.c2p, self.p2c = c2p, p2c
        self.k = nn.Linear(d_model, d_model)

    def position_keys(self, table: Float[Tensor, "r d_model"]) -> Float[Tensor, "h r d"]:
        """As if the distances were words."""
        return self.heads(self.k(table))

    def position_queries(self, table: Float[Tensor, "r d_model"]) -> Float[Tensor, "h r d"]:
        """As if the distances were words."""
        return self.heads(self.q(table))
