r"""FlexAttention as an `attend`: PyTorch writes the kernel for the mask that it is given.

Imports: `as_band`, `check` and `dense` are what every attend does with a mask [@vaswani2017attention]. Fused attention
is @dao2022flashattention's idea, and the kernels that come out are of that kind.

Symbols: b batch, h heads of q, g of k and v, n queries, m keys, d and e widths in a head.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.masks import as_band


def flex(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """An `attend` that compiles a kernel for each kind of mask (on the CPU: and shape), which takes twenty seconds.

    Args:
        q: Queries.
        k: Keys; grouped heads are not copied.
        v: Values.
        mask: As for attention. Blocks that it empties are skipped; those of a Band are found once and kept.
        bias: Float, broadcast to (b h n m).
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Must be 0: FlexAttention has none.

    Raises:
        TypeError: As for attention.
        ValueError: As for attention; or for dropout; or for a gradient on the CPU, where FlexAttention has no backward.
    """
    check(q, k, v, mask, bias, dropout)
    if dropout:
        raise ValueError(f"dropout={dropout}, but FlexAttention has none: use sdpa or attention instead")
    wanted = any(x is not None and x.requires_grad for x in (q, k, v, bias))
    if q.device.type == "cpu" and wanted and torch.is_grad_enabled():
        raise ValueError("a gradient is wanted, but FlexAttention has none on the CPU: use sdpa or attention instead")
    if not torch.is_grad_enabled():
        q, k, v = q.detach(), k.detach(), v.detach()  # on the CPU, FlexAttention refuses tensors that could want one
        bias = None if bias is None else bias.detach()
    b, h, n, m = *q.shape[:3], k.shape[2]
    if 0 in (n, m, b):
        return q.new_zeros(b, h, n, v.shape[3])
    blocks: Any = None
    band = as_band(mask)
    if band is None or band.keep is not None:
        seen = dense(mask, q, k)
        assert seen is not None  # no mask at all is a band
        look_up = _four(seen, b, h, n, m)
        blocks = _blocks(lambda b, h, i, j: look_up[b, h, i, j], b, h, n, m, q.device)
    else:
        band = band.trimmed(n, m)
        blocks = (
            None if (band.left, band.right) == (None, None) else _band_blocks(band.left, band.right, n, m, q.device)
        )
    added = None if bias is None else _four(bias, b, h, n, m)
    add = None if added is None else lambda score, b, h, i, j: score + added[b, h, i, j]
    return _compiled(q.device.type)(q, k, v, score_mod=add, block_mask=blocks, scale=scale, enable_gqa=k.shape[1] < h)


@cache
def _compiled(device: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention  # here and not above: it imports Triton

    # on the CPU, the code that torch 2.13 writes for a mask in a tensor of any length is no valid C++
    return torch.compile(flex_attention, dynamic=False if device == "cpu" else None)


@lru_cache(64)
def _band_blocks(left: int | None, right: int | None, n: int, m: int, device: torch.device) -> Any:
    """Which blocks of a band hold anything; the band is the same for all rows of the batch and all heads."""
    back, ahead = n + m if left is None else left, n + m if right is None else right
    here = m - n
    return _blocks(lambda b, h, i, j: (j >= i + here - back) & (j <= i + here + ahead), None, None, n, m, device)


def _blocks(seen: Callable, b: int | None, h: int | None, n: int, m: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(seen, b, h, n, m, device=device)


def _four(x: Tensor, *shape: int) -> Tensor:
    return x.view(*[1] * (4 - x.ndim), *x.shape).expand(shape)
