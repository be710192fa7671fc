r"""The tiles into which FlashAttention cuts the scores [@dao2022flashattention, section 3.1].

Imports: `Band` is a mask known by two numbers, `dense` makes one of any other kind [@vaswani2017attention].

Symbols: b batch, h heads of q, g of k and v, r = h / g, n queries, m keys, d width in a head. A tile has the scores of
a block of queries, the r heads that share a key below each other, against a block of keys: (b g r*rows columns).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from papercode.attention.arguments import Mask, dense
from papercode.attention.masks import Band, as_band


class Tiles:
    """The tiles of one attention: which there are, their scores, and what dropout leaves of them.

    Args:
        q: Queries (b h n d).
        k: Keys (b g m d).
        mask: As for attention.
        bias: Float, broadcast to (b h n m).
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.
        block: Rows and columns of a tile.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        mask: Mask | None,
        bias: Tensor | None,
        scale: float | None,
        dropout: float,
        block: int,
    ):
        self.n, self.m, self.r = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
        band = as_band(mask)
        self.seen = dense(mask, q, k) if band is None else None if band.keep is None else band.keep[:, None, None, :]
        self.band = Band() if band is None else Band(band.left, band.right).trimmed(self.n, self.m)
        self.scale = q.shape[3] ** -0.5 if scale is None else scale
        self.bias, self.dropout, self.block = bias, dropout, block
        self.seed = int(torch.randint(2**62, ())) if dropout else 0
        self.dtype = torch.promote_types(q.dtype, torch.float32)  # of the sums, whatever the inputs are

    def rows(self) -> Iterator[slice]:
        """The blocks of queries."""
        return (slice(i, min(i + self.block, self.n)) for i in range(0, self.n, self.block))

    def columns(self, rows: slice) -> Iterator[slice]:
        """The blocks of keys that these queries can see at all."""
        first, last = rows.start + self.m - self.n, rows.stop - 1 + self.m - self.n  # positions of the queries
        start = 0 if self.band.left is None else max(0, first - self.band.left)
        stop = self.m if self.band.right is None else min(self.m, last + self.band.right + 1)
        return (slice(j, min(j + self.block, stop)) for j in range(start, stop, self.block))

    def group(self, x: Tensor, rows: slice) -> Tensor:
        """Some rows of (b h n d), those of the heads that share a key below each other: (b g r*rows d)."""
        return x[:, :, rows].unflatten(1, (-1, self.r)).flatten(2, 3).to(self.dtype)

    def ungroup(self, x: Tensor, rows: slice) -> Tensor:
        """The way back: (b g r*rows d) to (b h rows d)."""
        return x.unflatten(2, (self.r, rows.stop - rows.start)).flatten(1, 2)

    def scores(self, q: Tensor, k: Tensor, rows: slice, columns: slice) -> Tensor:
        """A tile of the scores (b g r*rows columns), -inf where the mask says no."""
        s = (q * self.scale) @ k.mT.to(q.dtype)
        if self.bias is not None:
            s += self._tile(self.bias, rows, columns, s)
        if self.seen is not None:
            s.masked_fill_(~self._tile(self.seen, rows, columns, s), -torch.inf)
        ahead = columns.start - (rows.start + self.m - self.n)  # of the first key before the first query
        height, width = rows.stop - rows.start, columns.stop - columns.start
        left, right = self.band.left, self.band.right
        if (left is not None and ahead - (height - 1) < -left) or (right is not None and ahead + width - 1 > right):
            offsets = ahead + torch.arange(width, device=s.device) - torch.arange(height, device=s.device)[:, None]
            hidden = torch.zeros_like(offsets, dtype=torch.bool)
            if left is not None:
                hidden |= offsets < -left
            if right is not None:
                hidden |= offsets > right
            s.unflatten(2, (self.r, height)).masked_fill_(hidden, -torch.inf)
        return s

    def keep(self, s: Tensor, rows: slice, columns: slice) -> Tensor | None:
        """What dropout leaves of a tile, the same in the backward pass as in the forward one."""
        if not self.dropout:
            return None
        tile = rows.start * self.m + columns.start
        generator = torch.Generator(s.device).manual_seed((self.seed + tile) % 2**63)
        return torch.empty_like(s).bernoulli_(1 - self.dropout, generator=generator).div_(1 - self.dropout)

    def _tile(self, x: Tensor, rows: slice, columns: slice, s: Tensor) -> Tensor:
        """A tile of a mask or bias that broadcasts to (b h n m), in the shape of the tile of scores."""
        tile = part(x, rows, columns)
        tile = tile.expand(-1, s.shape[1] * self.r, rows.stop - rows.start, columns.stop - columns.start)
        return tile.unflatten(1, (-1, self.r)).flatten(2, 3)


def part(x: Tensor, rows: slice, columns: slice) -> Tensor:
    """Some rows and columns of what broadcasts to (b h n m)."""
    x = x.view(*[1] * (4 - x.ndim), *x.shape)
    return x[:, :, rows if x.shape[2] > 1 else slice(None), columns if x.shape[3] > 1 else slice(None)]
