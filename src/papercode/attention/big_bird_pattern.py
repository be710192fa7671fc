r"""Which blocks of keys each block of queries sees: BigBird's pattern, as data [@zaheer2020big].

Imports: nothing from an older paper's module.

Symbols: n positions, N = blocks of the sequence, B = positions in a block (the paper's $b$), h heads, c blocks of keys
that a block of queries sees. The paper's $g$, $w$, $r$, numbers of tokens, are here numbers of blocks: first + last,
window, n_random.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NONE = -1
"""Stands in a list of blocks where there is none."""


def random_blocks(
    n_blocks: int,
    n_heads: int,
    n_random: int,
    *,
    seed: int = 0,
    window: int = 3,
    first: int = 1,
    last: int = 1,
    upto: int | None = None,
) -> Int[Tensor, "h N r"]:
    """For every head and block of queries, blocks that are neither global nor in the window, drawn without repetition.

    In time and memory that grow with the result: the i-th block that may be drawn is computed, not looked up.

    Args:
        n_blocks: N, blocks of the sequence.
        n_heads: h; each draws for itself.
        n_random: r, blocks to draw. Where fewer may be drawn, all of them are, and the rest is `NONE`.
        seed: Of the draw; a layer each its own.
        window: Blocks around the diagonal that the window covers already, odd.
        first: Global blocks at the start.
        last: Global blocks at the end.
        upto: Draw among the first `upto` blocks only. The authors' code does so, with 1024 tokens.
    """
    draw = torch.Generator().manual_seed(seed)
    stop = n_blocks - last if upto is None else min(upto, n_blocks - last)
    rows = torch.arange(n_blocks)
    low = (rows - window // 2).clamp(first, max(first, stop))  # the window, as far as one could draw it
    high = (rows + window // 2 + 1).clamp(first, max(first, stop))
    free = (stop - first - (high - low)).clamp(min=0).expand(n_heads, n_blocks)
    chosen = torch.full((n_heads, n_blocks, n_random), NONE)
    for s in range(n_random):  # Floyd: each draw is among one more; what is taken becomes the last
        limit = free - n_random + s
        pick = (torch.rand(n_heads, n_blocks, generator=draw, dtype=torch.float64) * (limit + 1)).long()
        pick = torch.where((chosen == pick[..., None]).any(-1), limit, pick)
        chosen[..., s] = torch.where(limit >= 0, pick, NONE)
    blocks = chosen + first
    blocks += (blocks >= low[:, None]) * (high - low)[:, None]
    return torch.where(chosen == NONE, NONE, blocks)


THREE = partial(random_blocks, n_random=3)
"""The paper's three random blocks, with the first seed."""


@dataclass(frozen=True)
class BlockPattern:
    """BigBird's pattern: every block of queries sees global blocks, a window of blocks, and random blocks.

    Global blocks see everything, and everything sees them. They are the first and last blocks of the sequence (the
    paper's ITC), or `extra` tokens that stand before it (ETC), or both.

    Args:
        block: B, positions in a block.
        window: Blocks around its own that a block of queries sees, itself included; odd.
        first: Blocks at the start that are global.
        last: Blocks at the end that are global.
        extra: Tokens before the sequence that are global, of any number; the sequence begins after them.
        random: Called as random(n_blocks, n_heads), gives the random blocks (h N r), `NONE` where there is none;
            for instance [`random_blocks`][papercode.attention.big_bird_pattern.random_blocks] with a seed; or None.

    Raises:
        ValueError: If block is less than 1, window is even or less than 1, or a number of globals is negative.
    """

    block: int = 64
    window: int = 3
    first: int = 1
    last: int = 1
    extra: int = 0
    random: Callable[[int, int], Tensor] | None = THREE

    def __post_init__(self):
        if self.block < 1:
            raise ValueError(f"block={self.block} must be at least 1")
        if self.window < 1 or not self.window % 2:
            raise ValueError(f"window={self.window} must be odd and at least 1: a block and as many on either side")
        for name in ("first", "last", "extra"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")

    def n_blocks(self, n: int) -> int:
        """N, of n positions: extra tokens are in no block, and the last block may be short.

        Raises:
            ValueError: If there are not even as many positions as extra tokens.
        """
        if n < self.extra:
            raise ValueError(
                f"n={n} positions must be at least extra={self.extra}, the global tokens before the sequence"
            )
        return -(-(n - self.extra) // self.block)

    def is_global(self, n_blocks: int) -> Bool[Tensor, " N"]:
        """True at blocks that see everything."""
        rows = torch.arange(n_blocks)
        return (rows < self.first) | (rows >= n_blocks - self.last)

    def key_blocks(self, n_blocks: int, n_heads: int) -> Int[Tensor, "h N c"]:
        """The blocks of keys that each block of queries sees, every one named once, `NONE` where there is none.

        For global blocks of queries, which see all, the list says nothing.

        Raises:
            ValueError: If `random` gives another shape than (n_heads, n_blocks, r), or a block that is not there.
        """
        rows = torch.arange(n_blocks)[:, None]
        ends = torch.arange(n_blocks)[self.is_global(n_blocks)]
        near = rows + torch.arange(-(self.window // 2), self.window // 2 + 1)
        near = torch.where((near >= 0) & (near < n_blocks), near, NONE)
        lists = [x.expand(n_heads, n_blocks, -1) for x in (ends, near)]
        if self.random is not None:
            lists.append(self._drawn(n_blocks, n_heads))
        blocks = torch.cat(lists, -1)
        repeated = (blocks[..., :, None] == blocks[..., None, :]).tril(-1).any(-1)
        return torch.where(repeated, NONE, blocks)

    def _drawn(self, n_blocks: int, n_heads: int) -> Tensor:
        drawn = self.random(n_blocks, n_heads)  # type: ignore[misc]
        if drawn.ndim != 3 or drawn.shape[:2] != (n_heads, n_blocks):
            wanted = f"(n_heads={n_heads}, n_blocks={n_blocks}, r)"
            raise ValueError(f"random gave blocks of shape {tuple(drawn.shape)}, but the pattern needs {wanted}")
        if drawn.numel() and not NONE <= drawn.min() <= drawn.max() < n_blocks:
            lowest, highest = drawn.min().item(), drawn.max().item()
            raise ValueError(f"random gave blocks from {lowest} to {highest}, but there are n_blocks={n_blocks}")
        return drawn


def block_sparse_mask(pattern: BlockPattern, n: int, n_heads: int) -> Bool[Tensor, "h n n"]:
    """The pattern as a dense mask, True = may attend: what `attention` needs to compute the same (the oracle).

    Args:
        pattern: Who sees whom.
        n: Positions, extra tokens included.
        n_heads: h.
    """
    n_blocks = pattern.n_blocks(n)
    lists, everything = pattern.key_blocks(n_blocks, n_heads), pattern.is_global(n_blocks)
    sees = torch.zeros(n_heads, n_blocks, n_blocks + 1, dtype=torch.bool)
    sees.scatter_(2, torch.where(lists == NONE, n_blocks, lists), True)
    sees = sees[..., :-1] | everything[:, None]
    inner = sees.repeat_interleave(pattern.block, 1).repeat_interleave(pattern.block, 2)
    mask = torch.ones(n_heads, n, n, dtype=torch.bool)
    mask[:, pattern.extra :, pattern.extra :] = inner[:, : n - pattern.extra, : n - pattern.extra]
    return mask
