r"""What every `attend` asks of its arguments, before any work is done [@vaswani2017attention].

Imports: nothing from an older paper's module.

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d and e widths in a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

Mask = Tensor | Callable[[int, int, torch.device], Tensor]
"""A bool tensor that broadcasts to (b h n m), True = may attend; or what makes one of n, m and the device, such as
[`causal_mask`][papercode.attention.transformer.causal_mask] itself: a backend that knows it need not build it."""


def check(q: Any, k: Any, v: Any, mask: Any = None, bias: Any = None, dropout: float = 0.0) -> None:
    """Refuses what no backend can answer, and what some backends would answer wrongly.

    Args:
        q: Queries (b h n d).
        k: Keys (b g m d); h is a multiple of g.
        v: Values (b g m e).
        mask: Bool, or a function that makes it.
        bias: Float, broadcast to (b h n m).
        dropout: Probability, in [0, 1).

    Raises:
        TypeError: If a tensor is none, or of the wrong kind (floats for a mask, integers for q).
        ValueError: If shapes, dtypes or devices do not go together, or dropout is no probability below 1.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floats, got {_kind(x)}")
        if x.ndim != 4:
            raise ValueError(f"{name} must be (batch, heads, positions, width), got shape {tuple(x.shape)}")
        if x.dtype != q.dtype:
            raise ValueError(f"q, k and v must share one dtype, got {name}.dtype={x.dtype} and q.dtype={q.dtype}")
        _same_device(name, x, q)
        if x.shape[0] != q.shape[0]:
            raise ValueError(f"{name} has batch {x.shape[0]}, but q has batch {q.shape[0]}")
    if k.shape[3] != q.shape[3]:
        raise ValueError(f"k has width {k.shape[3]}, but q has width {q.shape[3]}: their dot product is the score")
    if v.shape[1:3] != k.shape[1:3]:
        raise ValueError(f"v has (heads, positions) {tuple(v.shape[1:3])}, but k has {tuple(k.shape[1:3])}")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ValueError(f"q has {q.shape[1]} heads, no multiple of the {k.shape[1]} heads of k and v")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and less than 1")
    scores = (*q.shape[:3], k.shape[2])
    if isinstance(mask, Tensor):
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True = may attend), got {mask.dtype}; pass additive floats as bias=")
        _broadcasts("mask", mask, scores)
        _same_device("mask", mask, q)
    elif mask is not None and not callable(mask):
        raise TypeError(f"mask must be a bool tensor or a function that makes one, got {_kind(mask)}")
    if bias is not None:
        if not isinstance(bias, Tensor) or not bias.is_floating_point():
            raise TypeError(f"bias must be a tensor of floats, got {_kind(bias)}; pass a bool mask as mask=")
        _broadcasts("bias", bias, scores)
        _same_device("bias", bias, q)


def dense(mask: Mask | None, q: Tensor, k: Tensor) -> Bool[Tensor, "..."] | None:
    """The mask as a tensor, made for these queries and keys if it is a function.

    Raises:
        TypeError: If the function makes something else than a bool tensor.
        ValueError: If what it makes does not broadcast to (b h n m).
    """
    if mask is None or isinstance(mask, Tensor):
        return mask
    made = mask(q.shape[2], k.shape[2], q.device)
    check(q, k, k, made)
    return made


def _kind(x: object) -> str:
    return str(x.dtype) if isinstance(x, Tensor) else type(x).__name__


def _same_device(name: str, x: Tensor, q: Tensor) -> None:
    if x.device != q.device:
        raise ValueError(f"{name} is on {x.device}, but q is on {q.device}")


def _broadcasts(name: str, x: Tensor, scores: tuple[int, ...]) -> None:
    sizes = zip(reversed(x.shape), reversed(scores))
    if x.ndim > 4 or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(f"{name} of shape {tuple(x.shape)} does not broadcast to the scores, (b h n m) = {scores}")
