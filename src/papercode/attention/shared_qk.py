r"""Attention in which the key of a position is its query, brought to length one [@kitaev2020reformer, section 2].

Imports: `attention` and `MultiHeadAttention`, of which this is one without a map for keys [@vaswani2017attention].

Symbols: b batch, h heads, n queries, m keys, d width in a head. The paper's $q_j$, $k_j$ = a row of q, of k.

Differences from the paper:
    * The scores are $q_i^\top k_j$. Equation 1 would divide them by $\sqrt{d_k}$ once more; the later ones leave the
      root out "for clarity", the authors' code cancels it, and we follow the code. `scale` takes it back in.
    * $k = q / \sqrt{\|q\|^2 + d \varepsilon}$ as in the authors' code, so that a query of zeros has a key.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.transformer import MultiHeadAttention, attention


def self_last(mask: Bool[Tensor, "*batch n m"]) -> Bool[Tensor, "*batch n m"]:
    """The mask without each query's own key, except in the rows where nothing else is allowed.

    The n queries are the last n of the m positions.

    Raises:
        ValueError: If there are more queries than keys.
    """
    n, m = mask.shape[-2:]
    if n > m:
        raise ValueError(f"mask has n={n} queries, more than its m={m} keys: each query is one of the keys")
    itself = torch.eye(m, dtype=torch.bool, device=mask.device)[m - n :]
    others = mask & ~itself
    return others | (mask & itself & ~others.any(-1, keepdim=True))


def shared_qk_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    **kwargs,
) -> Float[Tensor, "b h n e"]:
    """Full attention in which a position looks at itself only if it can look at nothing else (section 2).

    A key that is one's own query always fits best; without this rule each position would mostly bring home itself.
    """
    check(q, k, v, mask, kwargs.get("bias"))
    given = dense(mask, q, k)
    if given is None:
        given = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    n, m = q.shape[2], k.shape[2]
    return attention(q, k, v, mask=self_last(given.expand(*given.shape[:-2], n, m)), **kwargs)


class SharedQKAttention(MultiHeadAttention):
    r"""Multi-head attention with three maps: q, v and o. Keys are normalised queries.

    Args:
        d_model: Width of the input and of the output.
        n_heads: h.
        d_k: Width of queries in a head; d_model / n_heads unless given.
        d_v: Width of values in a head; d_k unless given.
        bias: Whether the three maps add a bias.
        dropout: On the attention weights, while training.
        attend: [`LSHAttention`][papercode.attention.lsh_attention.LSHAttention] makes it the Reformer's.
        scale: Of the scores $q_i^\top k_j$, in which the length of $q_i$ is left as a temperature.
        eps: Added to the mean square of a query before its root is taken.

    Raises:
        ValueError: If d_k is not given and d_model is not divisible by n_heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = shared_qk_attention,
        scale: float = 1.0,
        eps: float = 1e-6,
    ):
        super().__init__(d_model, n_heads, d_k=d_k, d_v=d_v, bias=bias, dropout=dropout, attend=attend)
        del self.k
        self.scale, self.eps = scale, eps

    def forward(  # type: ignore[override]  # there is no other memory than x
        self, x: Float[Tensor, "b n d"], **kwargs
    ) -> Float[Tensor, "b n d"]:
        """Lets x attend to itself. kwargs (mask, bias, …) go to `attend`."""
        q = self.q(x).unflatten(-1, (-1, self.d_k)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (-1, self.d_v)).transpose(1, 2)
        k = q * (self.d_k * (q.square().mean(-1, keepdim=True) + self.eps)).rsqrt()
        dropout = self.dropout if self.training else 0.0
        y = self.attend(q, k, v, **{"scale": self.scale, "dropout": dropout, **kwargs})
        return self.o(y.transpose(1, 2).flatten(2))
