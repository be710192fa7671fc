r"""Sliding-window attention that computes nothing outside the window [@beltagy2020longformer, section 3.1].

Imports: `Band` is a mask known by two numbers, `as_band` recognises one, `check` is what every attend asks of its
arguments, and `Mask` what may be given for one [@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d and e widths in a head. The
paper's $w$ = left + right: each query sees $w/2$ keys on either side and itself, which makes $w + 1$.

How: 64 queries in a row see at most 63 + w + 1 keys in a row. So the scores of a block are one dense product of which
hardly anything is thrown away, and only one block exists at a time. The backward pass computes the weights of each
block again instead of keeping them. Time is O(n w); memory beyond inputs, outputs and gradients is that of one block.

Differences from the paper:
    * The window need not be even or symmetric: left and right are given apart, and right=0 is the causal window.
    * The paper's vectorised code computes all overlapping blocks at once (section 3.2), here it is one after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papercode.attention.arguments import Mask, check
from papercode.attention.masks import Band, as_band

BLOCK = 64
"""Queries that are computed at a time. More of them throw more away, fewer make the products too small."""


def windowed(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """Equal to [`attention`][papercode.attention.transformer.attention] under the same mask, in time O(n w).

    Args:
        q: Queries, the last n of the m positions.
        k: Keys. With fewer heads than q, each serves h / g heads of q in a row; it is not copied for them.
        v: Values.
        mask: A `Band` with finite left and right; with `keep`, padding is hidden too.
        bias: Float, broadcast to (b h n m), added to the scores. Only the part inside the band is read.
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the mask is no band of finite width, or shapes, dtypes or devices do not go together.
        RuntimeError: When a second derivative is asked for.
    """
    return _attend(q, k, v, mask, bias, scale, dropout, with_log_sum=False)[0]


def windowed_log_sum(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b h n"]]:
    r"""[`windowed`][papercode.attention.windowed.windowed], and $\log \sum_j \exp(s_{ij})$ of each query's scores.

    With it, attention over two sets of keys can be put together to attention over their union. Arguments and errors are
    the same. A query without keys has the lowest float for its log-sum. In half precision the log-sum is float32.
    """
    return _attend(q, k, v, mask, bias, scale, dropout, with_log_sum=True)


def _attend(q, k, v, mask, bias, scale, dropout, with_log_sum) -> Any:
    check(q, k, v, mask, bias, dropout)
    band = _finite(mask)
    n, m = q.shape[2], k.shape[2]
    if band.keep is not None:
        check(q, k, v, band.keep[:, None, None, :])
    if bias is not None:
        bias = bias[(None,) * (4 - bias.ndim)]
    plan = _Plan(
        left=max(0, min(band.left, m - 1)),  # further than all keys is no further
        right=max(0, min(band.right, n - 1)),
        keep=band.keep,
        scale=q.shape[3] ** -0.5 if scale is None else scale,
        dropout=dropout,
        seed=int(torch.randint(2**62, (), device="cpu")) if dropout else 0,
        block=BLOCK,
        with_log_sum=with_log_sum,
    )
    y, log_sum = _Windowed.apply(q, k, v, bias, plan)
    if band.keep is not None or n > m:
        blind = ~_sees_any(n, m, plan, q.device)[:, None]
        y = y.masked_fill(blind[..., None], 0.0)
        if with_log_sum:
            log_sum = log_sum.masked_fill(blind, torch.finfo(log_sum.dtype).min)
    return y, log_sum


def _finite(mask: Mask | None) -> Band:
    band = as_band(mask)
    if band is None:
        kind = f"a tensor of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
        raise ValueError(f"mask must be a Band with finite left and right, got {kind}; `attention` takes any mask")
    for name, reach in (("left", band.left), ("right", band.right)):
        if reach is None:
            raise ValueError(
                f"mask has {name}={reach}, no limit, but a window must be finite on both sides: pass "
                f"Band(left, right), or use `attention`, which takes any mask"
            )
    return band


@dataclass(frozen=True)
class _Plan:
    """All that is no tensor to differentiate."""

    left: int
    right: int
    keep: Bool[Tensor, "b m"] | None
    scale: float
    dropout: float
    seed: int
    block: int
    with_log_sum: bool


def _sees_any(n: int, m: int, plan: _Plan, device: torch.device) -> Bool[Tensor, "b n"]:
    """Whether a query sees any key: kept keys before the end of its window, less those before its start."""
    at = torch.arange(m - n, m, device=device)
    keep = torch.ones(1, m, dtype=torch.bool, device=device) if plan.keep is None else plan.keep
    before = torch.nn.functional.pad(keep.cumsum(1), (1, 0))
    return before[:, (at + plan.right + 1).clamp(0, m)] > before[:, (at - plan.left).clamp(0, m)]


class _Blocks:
    """The blocks of one call: which queries, which keys, and their weights. Forward and backward share it."""

    def __init__(self, q: Tensor, k: Tensor, bias: Tensor | None, plan: _Plan):
        self.q, self.bias, self.plan = q, bias, plan
        self.b, self.h, self.n, self.d = q.shape
        self.k = k.flatten(0, 1)  # (b g) m d: copied at most once, if its strides want it
        self.shared = self.h // k.shape[1]  # heads of q that share one of k
        self.exact = torch.float32 if q.dtype in (torch.bfloat16, torch.float16) else q.dtype
        span = plan.left + plan.right
        seen = torch.ones(plan.block, plan.block + span, dtype=torch.bool, device=q.device).triu().tril(span)
        self.low = torch.finfo(q.dtype).min / 2  # as good as -inf, but a row without keys is no NaN
        self.hide = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, self.low)
        self.padding = None  # added, not filled in: four times as fast
        if plan.keep is not None:
            zero = torch.zeros((), dtype=self.exact, device=q.device)
            self.padding = torch.where(plan.keep, zero, self.low)[:, None, None]
        self.noise = torch.Generator(q.device).manual_seed(plan.seed) if plan.dropout else None

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        plan, m = self.plan, self.k.shape[1]
        for start in range(0, self.n, plan.block):
            stop = min(start + plan.block, self.n)
            first, last = m - self.n + start - plan.left, m - self.n + stop + plan.right
            if max(0, first) < min(m, last):
                yield slice(start, stop), slice(max(0, first), min(m, last))

    def stack(self, x: Float[Tensor, "b h i x"]) -> Float[Tensor, "bg ri x"]:
        """Below one another what of the heads shares a key, so that one product serves them all."""
        return x.reshape(len(self.k), self.shared * x.shape[2], x.shape[3])

    def scores(self, queries: slice, keys: slice) -> Float[Tensor, "b h i j"]:
        rows = queries.stop - queries.start
        first = self.k.shape[1] - self.n + queries.start - self.plan.left  # key of the first column of `hide`
        hide = self.hide[:rows, keys.start - first : keys.stop - first].expand(self.shared, rows, -1)
        scores = torch.baddbmm(
            hide.flatten(0, 1), self.stack(self.q[:, :, queries]), self.k[:, keys].mT, alpha=self.plan.scale
        )
        scores = scores.view(self.b, self.h, rows, scores.shape[2]).to(self.exact)
        if self.bias is not None:
            scores += _part(self.bias, queries, keys)
        if self.padding is not None:
            scores += self.padding[..., keys]
        return scores

    def dropped(self, weights: Tensor) -> Tensor:
        """With dropout, of the next block; the same forward and backward."""
        if self.noise is None:
            return weights
        kept = torch.empty_like(weights).bernoulli_(1 - self.plan.dropout, generator=self.noise)
        return kept.mul_(weights).div_(1 - self.plan.dropout)


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, plan: _Plan) -> Any:
        blocks, values = _Blocks(q, k, bias, plan), v.flatten(0, 1)
        y = v.new_empty(*q.shape[:3], v.shape[3])
        log_sum = q.new_empty(q.shape[:3], dtype=blocks.exact) if plan.with_log_sum else None
        for queries, keys in blocks:
            scores = blocks.scores(queries, keys)
            weights = scores.softmax(-1)
            if log_sum is not None:  # a weight is exp(score - log_sum), and the largest one is never rounded to zero
                log_sum[:, :, queries] = scores.amax(-1) - weights.amax(-1).log()
            found = blocks.stack(blocks.dropped(weights).to(v.dtype)) @ values[:, keys]
            y[:, :, queries] = found.view(*weights.shape[:3], v.shape[3])
        ctx.save_for_backward(q, k, v, bias, y)
        ctx.plan = plan
        return y, log_sum

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dlog_sum: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("windowed has no second derivatives (create_graph=True); use `attention` for them")
        q, k, v, bias, y = ctx.saved_tensors
        plan, blocks, values = ctx.plan, _Blocks(q, k, bias, ctx.plan), v.flatten(0, 1)
        exact = blocks.exact  # of the sums over blocks
        dq = torch.zeros_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=exact, device=q.device) for x in (blocks.k, values))
        dbias = torch.zeros(bias.shape, dtype=exact, device=q.device) if ctx.needs_input_grad[3] else None
        through = (dy.to(exact) * y).sum(-1, keepdim=True)  # what the softmax's gradient subtracts, for all keys alike
        if dlog_sum is not None:
            through -= dlog_sum[..., None]
        for queries, keys in blocks:
            weights = blocks.scores(queries, keys).softmax(-1)
            dropped, dfound = blocks.dropped(weights), blocks.stack(dy[:, :, queries])
            dv[:, keys] += blocks.stack(dropped.to(v.dtype)).mT @ dfound
            dweights = (dfound @ values[:, keys].mT).view(weights.shape).to(exact)
            dscores = dweights.mul_(dropped).addcmul_(weights, through[:, :, queries], value=-1)
            if dbias is not None:
                part = _part(dbias, queries, keys)
                part += dscores.sum_to_size(part.shape)
            ds = blocks.stack(dscores.to(q.dtype))
            dq[:, :, queries] = (ds @ blocks.k[:, keys]).view(*weights.shape[:3], q.shape[3]) * plan.scale
            dk[:, keys] += ds.mT @ blocks.stack(q[:, :, queries]) * plan.scale
        dk, dv = dk.view(k.shape).to(k.dtype), dv.view(v.shape).to(v.dtype)
        return dq, dk, dv, None if dbias is None else dbias.to(bias.dtype), None


def _part(bias: Tensor, queries: slice, keys: slice) -> Tensor:
    """What of a bias falls on a block; an axis of size 1 stands for all."""
    bias = bias if bias.shape[2] == 1 else bias[:, :, queries]
    return bias if bias.shape[3] == 1 else bias[:, :, :, keys]
