r"""ALiBi, attention with linear biases [@press2022train]: far keys are penalised in proportion to their distance.

Imports: `attention`, to whose scores the penalty is added, and `check` of its arguments [@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d width of a head. The paper's
slope $m$ of a head is an entry of [`slopes`][papercode.attention.alibi.slopes].

Differences from the paper:
    * It is defined for keys that are not later than the query. Later ones, where a mask lets them be seen, are
      penalised by their distance like earlier ones.
    * Queries are the last n of the m positions; the paper has n = m.
    * Numbers of heads that are no power of two follow the authors' released code; the paper has only powers of two.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.arguments import check
from papercode.attention.transformer import attention


def slopes(n_heads: int) -> Float[Tensor, " h"]:
    r"""$2^{-8/h}, 2^{-16/h}, \dots, 2^{-8}$ for h heads (section 3), in float64.

    If h is no power of two: the slopes of the largest power p below it, then the 1st, 3rd, 5th … of 2p heads.

    Raises:
        ValueError: If n_heads is less than 1.
    """
    if n_heads < 1:
        raise ValueError(f"n_heads={n_heads} must be at least 1")
    power = 1 << (n_heads.bit_length() - 1)
    first = torch.arange(1, power + 1, dtype=torch.float64) * 8 / power
    more = (2 * torch.arange(n_heads - power, dtype=torch.float64) + 1) * 4 / power
    return 2.0 ** -torch.cat([first, more])


def alibi_bias(
    n_heads: int | Float[Tensor, " h"],
    n: int,
    m: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, "1 h n m"]:
    """Minus slope times distance, for n queries that are the last of m positions: what `bias=` wants.

    Args:
        n_heads: h, or the slopes themselves, one a head.
        n: Number of queries.
        m: Number of keys; n unless given.
        dtype: Of the result. Distances and products are computed in float32 at least, and rounded once.
        device: Of the result.

    Raises:
        ValueError: If n_heads is less than 1.
    """
    m = n if m is None else m
    exact = torch.promote_types(dtype, torch.float32)
    slope = n_heads if isinstance(n_heads, Tensor) else slopes(n_heads)
    steps = (torch.arange(m - n, m, device=device)[:, None] - torch.arange(m, device=device)).abs()
    return (slope.to(device, exact)[:, None, None] * -steps)[None].to(dtype)


class ALiBi(nn.Module):
    """An `attend` that adds the penalties to the scores of another `attend`; a bias that is given is added, too.

    It has nothing to learn and remembers nothing. With a [`KVCache`][papercode.attention.kv_cache.KVCache] around it
    nothing has to be said; with the cache inside, `ALiBi(KVCache(attention))`, each call needs `start`.

    Args:
        attend: What is done with q, k, v and the bias.
        slopes: One a head of q, such as a shard of a larger model's; the paper's unless given. An `nn.Parameter` is
            trained with the model.

    Raises:
        ValueError: If slopes are not a vector.
    """

    def __init__(self, attend: Callable[..., Tensor] = attention, slopes: Tensor | None = None):
        super().__init__()
        if slopes is not None and slopes.ndim != 1:
            raise ValueError(f"slopes must be a vector, one a head, got shape {tuple(slopes.shape)}")
        self.attend, self.slopes = attend, slopes

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g m d"],
        v: Float[Tensor, "b g m e"],
        *,
        bias: Tensor | None = None,
        start: int = 0,
        **kwargs,
    ) -> Float[Tensor, "b h n f"]:
        """Other kwargs (mask, scale, …) go to the inner attend.

        Args:
            q: Queries.
            k: Keys.
            v: Values.
            bias: Added to the scores as well; broadcasts to (b h n start+m).
            start: Number of earlier keys that the inner attend remembers.

        Raises:
            ValueError: If there are not as many slopes as q has heads, or start is negative.
        """
        check(q, k, v)
        h, n, m = q.shape[1], q.shape[2], start + k.shape[2]
        if start < 0:
            raise ValueError(f"start={start} must be at least 0: it counts earlier keys")
        if self.slopes is not None and len(self.slopes) != h:
            raise ValueError(f"there are {len(self.slopes)} slopes, but q has {h} heads")
        penalty = alibi_bias(h if self.slopes is None else self.slopes, n, m, dtype=q.dtype, device=q.device)
        return self.attend(q, k, v, bias=penalty if bias is None else penalty + bias, **kwargs)
