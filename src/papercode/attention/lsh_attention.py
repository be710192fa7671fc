r"""LSH attention [@kitaev2020reformer, section 2 and appendix A]: look only at keys that fall into one's own bucket.

Imports: the hash is the same paper's; `check`, `dense` and `as_band` are what every attend asks of its arguments
[@vaswani2017attention].

Symbols: b batch, h heads, n queries, m keys, d and e widths in a head, r rounds, w chunk length, c chunks, g queries
that share a window of keys. The paper's $l$ = n = m, its $m$ = w = chunk, $n_{rounds}$ = n_rounds, $s_i$ = rank,
$\mathcal{P}_i$ = keys in the bucket of i, $N_{i,j}$ = times.

Differences from the paper:
    * $N_{i,j}$ counts the rounds in which i really looks at j. The paper's counts all rounds with a common bucket, also
      those in which chunks keep the two apart; then the weights are not those of attention to the union.
    * The score of a position with itself is half the lowest float, not $-10^5$, which float16 does not have.
    * Padded positions have a bucket of their own, and the last chunk may be shorter than the others.
    * With n < m (a cache) the queries are the last n, and see what they would see in the text up to there.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check, dense
from papercode.attention.lsh_hash import bucket_factors, lsh_bucket, random_rotations
from papercode.attention.masks import Band, as_band

BLOCK = 2**18
"""So many scores are computed at a time: few enough to stay in the processor's cache."""


class LSHAttention(nn.Module):
    """An `attend` that hashes the keys, sorts them by bucket, and looks one chunk back (section 2, Figure 2).

    It is meant for keys that are normalised queries
    ([`SharedQKAttention`][papercode.attention.shared_qk.SharedQKAttention]): a query has the bucket of the key at its
    own position, and attends to that key only if it can attend to nothing else. Time and memory grow with
    n · rounds · chunk.

    Args:
        n_rounds: Independent hashes; a query sees the union of what they show.
        chunk: w, length of the pieces into which the sorted keys are cut; 128 is typical in section 5.
        n_buckets: How many, even; or even factors of it; `bucket_factors(m, chunk)` unless given.
        seed: Of the rotations, which are then the same in each call. None draws new ones from torch's generator.
        across_buckets: Whether keys of other buckets in the two chunks are seen, too (released models: yes).
        count_once: Whether a key that several rounds show counts once (released models: as often as it is shown).
        circular: Whether the first chunk of a round looks back at the last one of the round before, and that of the
            first round at the last (released models: yes). Only together with across_buckets and without count_once.

    Raises:
        ValueError: If n_rounds or chunk is less than 1, a number of buckets is odd or less than 2, or circular comes
            with settings that it does not go with.
    """

    def __init__(
        self,
        n_rounds: int = 8,
        chunk: int = 128,
        *,
        n_buckets: int | Sequence[int] | None = None,
        seed: int | None = None,
        across_buckets: bool = False,
        count_once: bool = True,
        circular: bool = False,
    ):
        super().__init__()
        if n_rounds < 1 or chunk < 1:
            raise ValueError(f"n_rounds={n_rounds} and chunk={chunk} must be at least 1")
        self.factors = (n_buckets,) if isinstance(n_buckets, int) else n_buckets
        if self.factors is not None:
            random_rotations(0, 0, 0, self.factors, seed=0)  # refuses odd numbers
        if circular and (count_once or not across_buckets):
            raise ValueError(
                f"circular=True needs across_buckets=True and count_once=False, got {across_buckets=}, {count_once=}"
            )
        self.n_rounds, self.chunk, self.seed = n_rounds, chunk, seed
        self.across_buckets, self.count_once, self.circular = across_buckets, count_once, circular

    def rotations(self, heads: int, d: int, length: int) -> list[Float[Tensor, "h r d _"]]:
        """The random matrices of one call; a subclass may have others."""
        factors = bucket_factors(length, self.chunk) if self.factors is None else self.factors
        return random_rotations(heads, self.n_rounds, d, factors, self.seed)

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
        """Arguments and errors are those of [`attention`][papercode.attention.transformer.attention].

        Raises:
            ValueError: Also if there are more queries than keys.
        """
        check(q, k, v, mask, bias, dropout)
        (b, h, n, d), m = q.shape, k.shape[2]
        if n > m:
            raise ValueError(f"q has n={n} positions, k only m={m}: a query has the bucket of the key at its position")
        if k.shape[1] < h:
            k, v = (x.repeat_interleave(h // k.shape[1], 1) for x in (k, v))
        q = q * (d**-0.5 if scale is None else scale)
        band = as_band(mask)
        matrix = dense(mask, q, k) if band is None else None
        keep = None
        if band is not None and band.keep is not None:
            keep = Band(keep=band.keep)(1, m, q.device).expand(b, 1, 1, m)[:, 0, 0]
        sort = _Sort(self, k.detach(), keep)
        outputs, totals = [], []
        for r in range(self.n_rounds):
            queries, keys = sort.windows(r, n)
            size = max(1, BLOCK // (queries[:, :, :1].numel() * keys.shape[-1]))
            looks = []
            for mine, theirs in zip(queries.split(size, 2), keys.split(size, 2)):
                i, j = mine[..., None], theirs[..., None, :].clamp(min=0)
                seen = sort.shows(r, i, j) & (theirs >= 0)[..., None, :]
                if matrix is not None:
                    seen = seen & _at(matrix, i - (m - n), j, (b, h, n, m))
                if keep is not None:
                    seen = seen & _take(keep[:, None].expand(b, h, m), j)
                if band is not None and band.left is not None:
                    seen = seen & (i - j <= band.left)
                if band is not None and band.right is not None:
                    seen = seen & (j - i <= band.right)
                scores = _take(q, mine - (m - n)) @ _take(k, j[..., 0, :]).mT
                if bias is not None:
                    scores = scores + _at(bias, i - (m - n), j, (b, h, n, m)).to(scores.dtype)
                times = sort.times(r, i, j) if self.count_once and self.n_rounds > 1 else None
                looks.append(_average(scores, i == j, ~seen, times, _take(v, j[..., 0, :]), dropout))
            y, z = (torch.cat(parts, 2) for parts in zip(*looks))
            outputs.append(sort.undo(r, y, n))
            totals.append(sort.undo(r, z, n))
        share = torch.stack(totals).softmax(0)
        return sum((y * s for y, s in zip(outputs[1:], share[1:])), outputs[0] * share[0])


def _average(
    scores: Tensor, itself: Tensor, hidden: Tensor, times: Tensor | None, v: Tensor, dropout: float
) -> tuple[Tensor, Tensor]:
    """Softmax of scores - log times (b h c g 2w), times v (b h c 2w e), and the logarithm of what it divided by."""
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(itself, lowest / 2)
    top = scores.detach().masked_fill(hidden, lowest).amax(-1, keepdim=True)
    weights = (scores - top).masked_fill(hidden, 0.0).exp().masked_fill(hidden, 0.0)  # exp is slow where it gives 0
    if times is not None:
        weights = weights / times
    total = weights.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)  # nothing seen: 0, not 0/0
    return nn.functional.dropout(weights, dropout) @ v / total, top + total.log()


class _Sort:
    """Who stands where once the keys are sorted by bucket and position, and whom the queries of a chunk look at."""

    def __init__(self, settings: LSHAttention, k: Tensor, keep: Bool[Tensor, "b m"] | None):
        (_, h, m, d), w = k.shape, settings.chunk
        rotations = [x.to(k) for x in settings.rotations(h, d, m)]
        bucket, buckets = lsh_bucket(k, rotations), math.prod(2 * x.shape[-1] for x in rotations)
        if keep is not None:
            bucket = bucket.masked_fill(~keep[:, None, None], buckets)
        order = bucket.argsort(dim=-1, stable=True)
        self.rank = order.argsort(-1)
        self.place = self.rank // w
        chunks = -(-m // w)
        own = nn.functional.pad(order, (0, chunks * w - m), value=-1).unflatten(-1, (chunks, w))  # -1: nobody
        before = own.roll(1, -2)
        first = before[..., 0, :]
        first.copy_(first.roll(1, 2) if settings.circular else torch.full_like(first, -1))
        self.table = torch.cat([before, own], -1)  # (b h r c 2w)
        # a query looks at keys whose code is its own (same chunk), or one less (the chunk before); in the order of the
        # sort, buckets and places only rise, so that another bucket is always two or more away
        code = self.place if settings.across_buckets else 2 * bucket + self.place
        self.code = code.to(torch.int16 if 2 * (2 * buckets + chunks) < 2**15 else torch.int32)
        self.circular = settings.circular
        self.w, self.m = w, m

    def windows(self, r: int, n: int) -> tuple[Tensor, Tensor]:
        """Positions of queries (b h c g) and of the keys that they look at (b h c 2w), -1 = nobody."""
        table = self.table[:, :, r]
        if n == self.m:
            return table[..., self.w :].clamp(min=0), table
        last = self.place[:, :, r, self.m - n :]
        positions = torch.arange(self.m - n, self.m, device=table.device)
        return positions.expand_as(last)[..., None], _take(table, last)

    def shows(self, r: int, i: Tensor, j: Tensor) -> Tensor:
        """Whether round r shows keys j (b h c 1 2w) to queries i (b h c g 1)."""
        if self.circular:  # what a chunk sees from the round before has other codes
            return torch.ones((), dtype=torch.bool, device=i.device)
        code = self.code[:, :, r]
        return (_take(code, i) - _take(code, j)) >> 1 == 0

    def times(self, r: int, i: Tensor, j: Tensor) -> Tensor:
        """In how many rounds the keys that round r shows are shown."""
        apart: Any = 0
        others = [x for x in range(self.code.shape[2]) if x != r]
        for code in (2 * self.code[:, :, x] for x in others):
            apart += (_take(code, i) - 1 - _take(code, j)).abs_().clamp_(max=2)  # 1 where it shows, else 2
        return 1 + 2 * len(others) - apart

    def undo(self, r: int, y: Tensor, n: int) -> Tensor:
        """From chunks (b h c g e) back to the order of the text (b h n e)."""
        y = y.flatten(2, 3)
        return _take(y, self.rank[:, :, r]) if n == self.m else y


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (b h m ...) at the places index (b h ...) of its third axis."""
    b, h, m = x.shape[:3]
    rows = torch.arange(b * h, device=x.device).view(b, h, *[1] * (index.ndim - 2)) * m + index
    return x.reshape(b * h * m, *x.shape[3:]).index_select(0, rows.flatten()).unflatten(0, index.shape)


def _at(x: Tensor, i: Tensor, j: Tensor, scores: tuple[int, int, int, int]) -> Tensor:
    """A mask or bias that broadcasts to the scores (b h n m), at queries i and keys j."""
    b, h = (torch.arange(size, device=x.device) for size in scores[:2])
    return x.expand(scores)[b[:, None, None, None, None], h[:, None, None, None], i, j]
