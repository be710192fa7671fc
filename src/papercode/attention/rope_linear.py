r"""Rotary positions in linear attention, and the bound on how far they let one see [@su2021roformer].

Imports: `rotate` and `turns` are the same paper's section 3.2.2; `check` is what every attend asks of its arguments,
`as_band` tells which masks a running sum can respect [@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d and e widths of keys and
values in a head. The paper's $\varphi(x) = \phi(x) = \mathrm{elu}(x) + 1$ is
[`positive`][papercode.attention.rope_linear.positive].

Differences from the paper:
    * The causal form, of which it does not speak, goes through the keys in blocks and carries their sum along.
    * A query that sees no key gets zeros, where the equation has 0/0.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from papercode.attention.arguments import Mask, check
from papercode.attention.masks import as_band
from papercode.attention.rope import rotate, turns

BLOCK = 64
"""Queries and keys that the causal form takes at a time."""


def positive(x: Tensor) -> Tensor:
    r"""$\mathrm{elu}(x) + 1$, above zero everywhere, so that sums of products can be divided by (section 3.3)."""
    return torch.nn.functional.elu(x) + 1


def linear_rotary(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    feature: Callable[[Tensor], Tensor] = positive,
    base: float = 10000.0,
    halves: bool = False,
) -> Float[Tensor, "b h n e"]:
    r"""Attention without a softmax, in time that grows as n + m, with positions in the numerator (Eq. 19):

    $$ o_i = \frac{\sum_j (R_i\,\varphi(q_i))^\top (R_j\,\varphi(k_j))\, v_j}{\sum_j \varphi(q_i)^\top \varphi(k_j)} $$

    It has the signature of an `attend`, and can stand where one stands. The sum below is over features that are not
    turned, since turned ones may be negative and the sum zero. So the weights no longer sum to one.

    Args:
        q: Queries, the last n of the m positions.
        k: Keys.
        v: Values.
        mask: None, causal, padding of keys, or both: what [`Band`][papercode.attention.masks.Band] can say with
            left=None and right=None or 0.
        bias: Must be None: nothing n times m is ever written down.
        scale: Must be None, for numerator and denominator would share it.
        dropout: Must be 0, for the same reason as bias.
        feature: $\varphi$, applied to q and k before they are turned; nowhere negative.
        base: Of the frequencies.
        halves: How features are paired, see [`rotate`][papercode.attention.rope.rotate].

    Raises:
        TypeError: As `check` does.
        ValueError: As `check` does, and if bias, scale, dropout or the mask cannot be respected.
    """
    check(q, k, v, mask, dropout=dropout)
    band = as_band(mask)
    if band is not None:
        band = band.trimmed(q.shape[2], k.shape[2])
    if band is None or band.left is not None or band.right not in (None, 0):
        raise ValueError(f"mask={mask} must be None, causal or padding: linear attention sees all keys or all before")
    for name, given in (("bias", bias), ("scale", scale), ("dropout", dropout or None)):
        if given is not None:
            raise ValueError(f"{name}={given} has no meaning in linear attention, which has no scores")
    n, m = q.shape[2], k.shape[2]
    positions = torch.arange(min(0, m - n), m)
    cos, sin = turns(positions, q.shape[3], base)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    q, k = feature(q), feature(k)
    if band.keep is not None:
        k = k * band.keep[:, None, :, None]
    turned_q = rotate(q, cos[len(cos) - n :], sin[len(sin) - n :], halves=halves)
    turned_k = rotate(k, cos[len(cos) - m :], sin[len(sin) - m :], halves=halves)
    ones = torch.ones_like(v[..., :1])
    if band.right is None:
        above, below = turned_q @ (turned_k.mT @ v), q @ (k.mT @ ones)
    else:
        above, below = _causal(turned_q, turned_k, v), _causal(q, k, ones)
    return above / below.masked_fill(below == 0, 1)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(q k^T, lower triangle) v, block by block; what came before a block is one matrix (d e)."""
    n, m = q.shape[2], k.shape[2]
    q = torch.nn.functional.pad(q, (0, 0, m - n, 0))  # as many queries as keys; negative padding drops the first ones
    total, rows = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]), []
    for first in range(0, m, BLOCK):
        a, b, c = (x[:, :, first : first + BLOCK] for x in (q, k, v))
        rows.append((a @ b.mT).tril() @ c + a @ total)
        total = total + b.mT @ c
    out = torch.cat(rows, 2) if rows else v
    return torch.nn.functional.pad(out, (0, 0, n - m, 0))


def decay_bound(distances: Tensor, d: int, base: float = 10000.0) -> Float[Tensor, "*n"]:
    r"""Mean of $|S_1| \dots |S_{d/2}|$, $S_j = \sum_{i<j} e^{\mathrm{i} s \theta_i}$, for distances s (section 3.4.3).

    Times $\tfrac d2 \max_i |h_{i+1} - h_i|$ it bounds the score at that distance (Eq. 37). Here $h_i$ is pair i of the
    query, as a complex number, times the conjugate of pair i of the key, and $h_{d/2} = 0$.

    Raises:
        ValueError: If d is odd or base is not above 1.
    """
    cos, sin = turns(distances, d, base)
    return torch.complex(cos, sin).cumsum(-1).abs().mean(-1)
