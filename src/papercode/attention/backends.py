r"""PyTorch's fused attention as an `attend`, and the choice among all that there are.

Imports: `flash_attention` are our kernels [@dao2022flashattention], `windowed` computes the band alone
[@beltagy2020longformer]; `as_band`, `check` and `dense` are what every attend does with a mask [@vaswani2017attention].

Symbols: b batch, h heads of q, g of k and v, n queries, m keys, d and e widths in a head.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.flash_attention import flash_attention
from papercode.attention.masks import as_band
from papercode.attention.windowed import windowed


def sdpa(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """An `attend` that is PyTorch's `scaled_dot_product_attention`, which picks a kernel of its own.

    Differs from calling that directly: causal means that the queries are the last n of the m positions, also where
    n and m differ; a query without keys gets zeros on every device; a bias and a mask may be given together.

    Args:
        q: Queries.
        k: Keys; grouped heads are not copied.
        v: Values.
        mask: As for attention. Without one, or with causal_mask itself, the fastest kernels apply; any other mask
            is handed over as (b h n m), broadcast where it can be.
        bias: Float, broadcast to (b h n m).
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.

    Raises:
        TypeError: As for attention.
        ValueError: As for attention.
    """
    check(q, k, v, mask, bias, dropout)
    n, m = q.shape[2], k.shape[2]
    settings: dict[str, Any] = {"scale": scale, "dropout_p": dropout, "enable_gqa": k.shape[1] < q.shape[1]}
    band = as_band(mask)
    band = None if band is None else band.trimmed(n, m)
    if bias is None and band is not None and band.keep is None and band.left is None and m > 0:
        if band.right is None:
            return scaled_dot_product_attention(q, k, v, **settings)
        if band.right == 0 and n == m:
            return scaled_dot_product_attention(q, k, v, is_causal=True, **settings)
        if band.right == 0 and n < m and q.is_cuda:
            from torch.nn.attention.bias import causal_lower_right  # which imports Triton

            return scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(n, m), **settings)
    if band is not None and band.keep is not None and band.left is None and band.right is None:
        seen: Tensor | None = band.keep[:, None, None, :]  # padding alone need not be written out for every query
    else:
        seen = dense(mask, q, k)
    allowed, some = None, None
    if seen is not None:
        seen = _four(seen)
        some = seen.any(-1, keepdim=True)  # kernels differ in what they make of a query without keys:
        allowed = seen | ~some  # it may see all, and what it saw is taken away again
    if bias is not None:
        bias = _four(bias.to(q.dtype))
        allowed = bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)
    out = scaled_dot_product_attention(q, k, v, attn_mask=allowed, **settings)
    return out if some is None else out.masked_fill(~some, 0.0)


def auto(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """An `attend` that hands on to the one that [`choose`][papercode.attention.backends.choose] names.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: As for attention.
        bias: Float, broadcast to (b h n m).
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.

    Raises:
        TypeError: As for attention.
        ValueError: As for attention.
    """
    check(q, k, v, mask, bias, dropout)
    return choose(q, k, v, mask, bias)(q, k, v, mask=mask, bias=bias, scale=scale, dropout=dropout)


def choose(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None, bias: Tensor | None = None
) -> Callable[..., Tensor]:
    """The `attend` that `auto` takes for these arguments.

    On the CPU, a band that ends on both sides and is no wider than the text: `windowed`, but for a handful of queries.
    On CUDA, whatever PyTorch's kernels would have to be given in full (a window, padding together with a causal mask, a
    bias), in half precision: our kernels. All else: `sdpa`. No rule needs to know whether gradients are wanted.
    """
    n, m = q.shape[2], k.shape[2]
    band = as_band(mask)
    band = None if band is None else band.trimmed(n, m)
    if q.device.type == "cpu":
        ends = band is not None and band.left is not None and band.right is not None and band.left + band.right < m
        return windowed if ends and n >= 64 else sdpa
    takes = q.dtype in (torch.float16, torch.bfloat16) and max(q.shape[3], v.shape[3]) <= 256
    plain = bias is None and band is not None and band.keep is None and band.left is None and band.right in (None, 0)
    if q.is_cuda and takes and not plain and importlib.util.find_spec("triton") is not None:
        return flash_attention
    return sdpa


def _four(x: Tensor) -> Tensor:
    return x.view(*[1] * (4 - x.ndim), *x.shape)
