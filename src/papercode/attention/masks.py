r"""Masks that are known by two numbers, so that nobody has to write down n times m of them [@vaswani2017attention].

Imports: `causal_mask` is the mask of the decoder, `Mask` is what may be given for one (same paper).

Symbols: n queries, m keys. The queries are the last n of the m positions, so query i stands at position m - n + i.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from papercode.attention.arguments import Mask
from papercode.attention.transformer import causal_mask


@dataclass(frozen=True, eq=False)
class Band:
    """A mask: each query sees the keys from `left` positions before its own to `right` positions after it.

    Give it as `mask=`. Backends that know bands never build the n times m truth values; to the others it is a function
    that does. `Band(right=0)` is causal, `Band(256, 256)` a sliding window, `Band(255, 0)` a causal one.

    Args:
        left: How far back a query sees; None = to the first key.
        right: How far ahead; None = to the last key.
        keep: False at keys that nobody may see (padding), (b m).

    Raises:
        TypeError: If keep is not a bool tensor.
        ValueError: If left or right is negative, or keep is not (b m).
    """

    left: int | None = None
    right: int | None = None
    keep: Tensor | None = None

    def __post_init__(self):
        for name, reach in (("left", self.left), ("right", self.right)):
            if reach is not None and reach < 0:
                raise ValueError(f"{name}={reach} must be at least 0, or None for no limit")
        if self.keep is not None:
            if not isinstance(self.keep, Tensor) or self.keep.dtype != torch.bool:
                kind = getattr(self.keep, "dtype", type(self.keep).__name__)
                raise TypeError(f"keep must be a bool tensor (True = may be seen), got {kind}")
            if self.keep.ndim != 2:
                raise ValueError(f"keep must be (batch, keys), got shape {tuple(self.keep.shape)}")

    def trimmed(self, n: int, m: int) -> "Band":
        """The same mask for n queries and m keys, with None for a reach that ends beyond the first or the last key."""
        left = None if self.left is None or self.left >= m - 1 else self.left
        right = None if self.right is None or self.right >= n - 1 else self.right
        return Band(left, right, self.keep)

    def __call__(
        self, n: int, m: int, device: torch.device | None = None
    ) -> Bool[Tensor, "n m"] | Bool[Tensor, "b 1 n m"]:
        """The mask as a tensor, True = may attend; (b 1 n m) with keep.

        Raises:
            ValueError: If keep is for another number of keys.
        """
        ahead = torch.arange(m, device=device) - torch.arange(m - n, m, device=device)[:, None]
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if self.left is not None:
            seen &= ahead >= -self.left
        if self.right is not None:
            seen &= ahead <= self.right
        if self.keep is None:
            return seen
        if self.keep.shape[1] != m:
            raise ValueError(f"keep is for {self.keep.shape[1]} keys, but there are m={m}")
        return seen & self.keep[:, None, None, :]


def as_band(mask: Mask | None) -> Band | None:
    """The mask as a band if it is known to be one, else None.

    No mask at all, a [`Band`][papercode.attention.masks.Band], `causal_mask` itself, and a tensor of shape (b 1 1 m),
    which is padding, are bands.
    """
    if mask is None:
        return Band()
    if isinstance(mask, Band):
        return mask
    if mask is causal_mask:
        return Band(right=0)
    if isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[1:3] == (1, 1) and mask.shape[3] > 1:
        return Band(keep=mask[:, 0, 0])
    return None
