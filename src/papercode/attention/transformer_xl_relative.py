r"""Attention by content and by distance [@dai2019transformerxl, section 3.3 and appendix B].

Imports: everything between q, k, v and the output is an `attend` [@vaswani2017attention], and so is this one, around
another; `positions` are the waves of that paper, here of a distance; `as_band` tells whether keys lie ahead of a query.

Symbols: b batch, n queries, m keys, h heads, d width of a head. The paper's $R$ = waves, $W_{k,R}$ = r, its biases
$u, v$ = u, v. Query i stands at position m - n + i, so key j lies $m - n + i - j$ before it.

Differences from the paper:
    * The scores are divided by $\sqrt{d}$. The equations of section 3.3 have no scale; the released code has this one.
    * Distances may be negative, so that any mask will do. The paper, whose masks are causal, counts from 0.
    * Each head has its own u and v of width d. The paper writes out one head.
    * clamp: beyond it all distances count as one. The paper does not speak of it; its released evaluations use it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check
from papercode.attention.masks import as_band
from papercode.attention.sinusoids import positions
from papercode.attention.transformer import attention


def relative_shift(x: Float[Tensor, "*batch n t"], m: int) -> Float[Tensor, "*batch n m"]:
    """From scores by distance to scores by key, without a copy for each pair: row i moves left by n - 1 - i.

    Args:
        x: x[i, s] is the score of query i at distance m - 1 - s. Column 0 is the largest distance, that of the last
            query from the first key; column m - 1 is distance 0, and those behind it lie ahead.
        m: Number of keys.

    Returns:
        y[i, j] = x[i, n - 1 - i + j], the score at distance m - n + i - j. Where x ends before that column, what
        stands there means nothing and has to be masked.

    Raises:
        ValueError: If x has fewer than m columns.
    """
    n, t = x.shape[-2:]
    if t < m:
        raise ValueError(f"x has {t} distances, less than the m={m} keys: distances m - 1 to 0 are needed")
    if t == m:
        x, t = nn.functional.pad(x, (0, 1)), t + 1
    # read in rows one shorter than they are, the table slides by one column a row
    return x.flatten(-2)[..., n - 1 : n - 1 + n * (t - 1)].unflatten(-1, (n, t - 1))[..., :m]


class RelativePositions(nn.Module):
    r"""An `attend` that also scores how far away a key is, and hands the sum to another attend.

    The score of key $k_j$ for query $q_i$ at distance $\delta$ is, times the scale,

    $$\underbrace{q_i^\top k_j}_{a} + \underbrace{q_i^\top W_{k,R} R_\delta}_{b}
    + \underbrace{u^\top k_j}_{c} + \underbrace{v^\top W_{k,R} R_\delta}_{d} .$$

    a and c are the dot products of $q_i + u$ with the keys; b and d are those of $q_i + v$ with $W_{k,R} R$, computed
    once a distance, shifted, and passed on as `bias=`. So any attend will do that takes a bias.

    Args:
        d_model: Width of the waves R, even; the paper's is that of the model.
        n_heads: Heads of the queries.
        d_k: Width of queries and keys in a head.
        clamp: Distances beyond it count as this one; None = all are told apart.
        attend: Is given q + u, k, v, and the scores of the distances as bias.

    Raises:
        ValueError: If q has other heads or another width than u and v, or clamp is negative.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_k: int,
        *,
        clamp: int | None = None,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        if clamp is not None and clamp < 0:
            raise ValueError(f"clamp={clamp} must be at least 0, or None")
        self.clamp, self.attend = clamp, attend
        self.u, self.v = (nn.Parameter(0.02 * torch.randn(n_heads, d_k)) for _ in range(2))
        self.r = nn.Linear(d_model, n_heads * d_k, bias=False)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g m d"],
        v: Float[Tensor, "b g m e"],
        *,
        mask: Mask | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h n e"]:
        """As [`attention`][papercode.attention.transformer.attention]; a bias is added to that of the distances."""
        check(q, k, v, mask, bias, dropout)
        if (q.shape[1], q.shape[3]) != self.u.shape:
            raise ValueError(f"q has (heads, width) {(q.shape[1], q.shape[3])}, but u and v have {tuple(self.u.shape)}")
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        by_distance = (q + self.v[:, None]) @ self.keys(q, k, mask)
        scores = relative_shift(by_distance, k.shape[2]) * scale
        scores = scores if bias is None else scores + bias.to(scores.dtype)
        return self.attend(q + self.u[:, None], k, v, mask=mask, bias=scores, scale=scale, dropout=dropout)

    def keys(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g m d"], mask: Mask | None = None
    ) -> Float[Tensor, "h d t"]:
        r"""$W_{k,R} R_\delta$ for every distance that the mask leaves, the largest first: n + m - 1 columns, or m."""
        n, m, band = q.shape[2], k.shape[2], as_band(mask)
        ahead = n - 1 if band is None or band.right is None else min(n - 1, band.right)
        distances = torch.arange(m - 1, -ahead - 1, -1)
        if self.clamp is not None:
            distances = distances.clamp(-self.clamp, self.clamp)
        waves = positions(m + ahead, self.r.in_features, -ahead)[distances + ahead]  # in float64, on the CPU
        return self.r(waves.to(self.r.weight)).unflatten(-1, tuple(self.u.shape)).permute(1, 2, 0)
