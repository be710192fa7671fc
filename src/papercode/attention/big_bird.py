r"""BigBird's attention [@zaheer2020big]: global, window and random blocks, in time and memory that grow with n.

Imports: `attention` is what is done with the keys that a block of queries sees; `check`, `as_band` and `Mask` are what
every attend asks of its arguments [@vaswani2017attention]. `BlockPattern` says who sees whom.

Symbols: b batch, h heads of the queries, g heads of keys and values, n positions, d and e widths in a head, N blocks of
B positions, c keys' blocks that a block of queries sees.

Differences from the paper:
    * A key that is global, near and random at once counts once, as in the matrix A of section 2. The authors' code
      counts it as often as it is listed.
    * Random blocks are drawn among all blocks. The authors' code draws among the first 1024 tokens (`upto`).
    * A length that is no multiple of the block leaves the last block short; the code of the authors wants a multiple.
    * All queries of a block see the same keys, as in the authors' code. So with a window of three blocks a query sees
      between one and two blocks to either side, and not the w/2 tokens of section 2.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check
from papercode.attention.big_bird_pattern import NONE, BlockPattern
from papercode.attention.masks import Band, as_band
from papercode.attention.transformer import attention


class BigBirdAttention(nn.Module):
    """An `attend` that computes what the pattern keeps, and nothing else: no tensor has n · n entries.

    Global positions attend to everything. The other blocks of queries are taken a few at a time, the blocks of keys
    that they see are gathered, and `attend` does the rest.

    Args:
        pattern: Who sees whom; the default is the paper's ITC.
        attend: What is done with blocks of queries and the keys that they see.
        at_once: Blocks of queries to gather keys for at the same time: more memory, fewer steps.

    Raises:
        ValueError: If at_once is less than 1, q and k are not as long as each other, a bias is given, or a mask is a
            tensor that tells queries apart; a [`Band`][papercode.attention.masks.Band] may, and so `causal_mask`.
    """

    def __init__(
        self, pattern: BlockPattern | None = None, attend: Callable[..., Tensor] = attention, at_once: int = 4
    ):
        super().__init__()
        if at_once < 1:
            raise ValueError(f"at_once={at_once} must be at least 1")
        self.pattern = BlockPattern() if pattern is None else pattern
        self.attend, self.at_once = attend, at_once
        self._drawn: dict[tuple, Tensor] = {}

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
        """The mask leaves out more than the pattern does: padding, as (b 1 1 n), or what a Band hides."""
        check(q, k, v, mask, bias, dropout)
        band, n, block, extra = _band(q, k, mask, bias), q.shape[2], self.pattern.block, self.pattern.extra
        n_blocks = self.pattern.n_blocks(n)
        low = self.pattern.first  # blocks low … high - 1 are not global
        high = max(low, n_blocks - self.pattern.last)
        begin, end = min(n, extra + low * block), min(n, extra + high * block)
        places = torch.arange(n, device=q.device)

        def everything(start: int, stop: int) -> Tensor:
            rows, seen = q[:, :, start:stop], _seen(band, places[start:stop, None], places[None])
            seen = seen if seen.ndim == 2 else seen[:, None]  # with keep there is a batch
            return self.attend(rows, k, v, mask=seen, scale=scale, dropout=dropout)

        found = [everything(0, begin)] if begin else []
        if high > low:
            found.append(self._middle(q, k, v, low, high, band, scale=scale, dropout=dropout)[:, :, : end - begin])
        if end < n or not found:
            found.append(everything(end, n))
        return torch.cat(found, 2)

    def _middle(self, q, k, v, low, high, band, **kwargs) -> Float[Tensor, "b h n e"]:
        """What blocks low … high - 1 of the queries find, a multiple of the block."""
        (b, h, n), block, extra = q.shape[:3], self.pattern.block, self.pattern.extra
        n_blocks = self.pattern.n_blocks(n)
        lists = self._lists(n_blocks, h, q.device)
        head = torch.arange(h, device=q.device) // (h // k.shape[1])  # whose keys a head of q looks at
        places = torch.arange(extra, extra + n_blocks * block, device=q.device).view(n_blocks, block)

        def blocks(x: Tensor) -> Tensor:
            return nn.functional.pad(x, (0, 0, 0, places.numel() + extra - n))[:, :, extra:].unflatten(2, places.shape)

        def gathered(x: Tensor, in_blocks: Tensor, listed: Tensor) -> Tensor:  # extra tokens, then the listed blocks
            always = x[:, head, None, :extra].expand(-1, -1, listed.shape[1], -1, -1)
            return torch.cat([always, in_blocks[:, head[:, None, None], listed].flatten(3, 4)], 3).flatten(1, 2)

        queries, keys, values, found = blocks(q), blocks(k), blocks(v), []
        for rows in torch.arange(low, high, device=q.device).split(self.at_once):
            listed = lists[:, rows]  # (h t c), t blocks of queries at once
            there = (listed != NONE).repeat_interleave(block, 2)
            listed = listed.clamp(min=0)
            at = places[listed].flatten(2)
            first = torch.arange(extra, device=q.device).expand(*at.shape[:2], -1)
            at, there = torch.cat([first, at], 2), torch.cat([torch.ones_like(first, dtype=torch.bool), there], 2)
            seen = _seen(band, places[rows, :, None], at.clamp(max=n - 1)[:, :, None]) & (there & (at < n))[:, :, None]
            y = self.attend(
                queries[:, :, rows].flatten(1, 2),
                gathered(k, keys, listed),
                gathered(v, values, listed),
                mask=seen.expand(b, h, len(rows), *seen.shape[-2:]).flatten(1, 2),
                **kwargs,
            )
            found.append(y.unflatten(1, (h, len(rows))))
        return torch.cat(found, 2).flatten(2, 3)

    def _lists(self, n_blocks: int, h: int, device: torch.device) -> Int[Tensor, "h N c"]:
        """The pattern for this length, drawn once."""
        key = (n_blocks, h, device)
        if key not in self._drawn:
            self._drawn = {key: self.pattern.key_blocks(n_blocks, h).to(device)}
        return self._drawn[key]


def _band(q: Tensor, k: Tensor, mask: Mask | None, bias: Tensor | None) -> Band:
    n = q.shape[2]
    if k.shape[2] != n:
        raise ValueError(f"q has {n} positions, but k has {k.shape[2]}: the pattern is for self-attention")
    if bias is not None:
        raise ValueError("bias has a number for each pair of positions, but the pattern computes only some of them")
    band = as_band(mask)
    if band is None:
        what = f"mask of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"mask={mask}"
        raise ValueError(
            f"{what} means n times n truth values, of which the pattern needs few; pass padding as (b 1 1 n), and a "
            "window or a causal mask as a Band"
        )
    if band.keep is not None and band.keep.shape[1] != n:
        raise ValueError(f"keep is for {band.keep.shape[1]} keys, but there are {n}")
    return band


def _seen(band: Band, i: Int[Tensor, "..."], j: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Whether a query at place i may see a key at place j; i and j broadcast, and with keep b comes first."""
    seen = torch.ones_like(j, dtype=torch.bool)
    if band.left is not None:
        seen = seen & (j - i >= -band.left)
    if band.right is not None:
        seen = seen & (j - i <= band.right)
    return seen if band.keep is None else seen & band.keep[:, j]
