r"""FlashAttention [@dao2022flashattention] in PyTorch: exact attention, a tile of the scores at a time.

Imports: `Tiles` cuts the scores up (same paper); `check` is what every attend asks of its arguments
[@vaswani2017attention].

Symbols: b batch, h heads of q, g of k and v, r = h / g, n queries, m keys, d and e widths in a head. The paper's
$N$ = n = m; $B_r$ and $B_c$ = block; $m$ = `OnlineSoftmax.max`, $\ell$ = `OnlineSoftmax.sum`.

Differences from the paper:
    * Queries are the outer loop, keys the inner one (Algorithm 1 has them the other way round), so that a tile of the
      output is written once.
    * Of the statistics only their sum $m + \log \ell$ is kept for the backward pass.
    * Tiles that the mask empties are skipped; those that it leaves whole are not masked.
    * One block size for rows and columns, whatever the memory: PyTorch does not show us the fast one.
"""

import os

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from papercode.attention.arguments import Mask, check
from papercode.attention.flash_tiles import Tiles, part


class OnlineSoftmax:
    r"""$\mathrm{softmax}(s)\,v$ for scores that arrive a block of columns at a time (section 3.1).

    Keeps, of each row, the largest score so far, the sum of the exponentials against it and the sum of the values
    weighted by them. A larger score later on makes all that was summed too large by one factor, which is taken back.

    Args:
        out: Zeros, (... n e): where the average comes to stand.
    """

    def __init__(self, out: Float[Tensor, "*b n e"]):
        self.out = out
        self.max = torch.full_like(out[..., :1], torch.finfo(out.dtype).min)  # not -inf: a row of -inf gives zeros
        self.sum = torch.zeros_like(self.max)

    def add(self, s: Float[Tensor, "*b n m"], v: Float[Tensor, "*b m e"], keep: Tensor | None = None) -> None:
        """Takes in m further columns of scores, which it overwrites, and their values.

        Args:
            s: Scores, -inf where nothing may be attended to.
            v: Values.
            keep: What dropout leaves of the weights: 0, or 1 / (1 - p).
        """
        largest = torch.maximum(self.max, s.amax(-1, keepdim=True))
        shrink, weights = (self.max - largest).exp_(), s.sub_(largest).exp_()
        self.max, self.sum = largest, self.sum.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        self.out.mul_(shrink).add_((weights if keep is None else weights.mul_(keep)) @ v)

    def result(self) -> tuple[Float[Tensor, "*b n e"], Float[Tensor, "*b n 1"]]:
        """The average, and the logarithm of the sum of all exponentials; 0 and inf for a row without keys."""
        empty = self.sum == 0
        lse = (self.max + self.sum.log()).masked_fill_(empty, torch.inf)
        return self.out.div_(self.sum.masked_fill(empty, 1.0)), lse


def tiled_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    block: int = 256,
) -> Float[Tensor, "b h n e"]:
    """An `attend` that never holds more than block times block scores a head, forward and backward (Algorithms 1, 4).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: As for attention; a Band, or causal_mask itself, lets it skip tiles.
        bias: Float, broadcast to (b h n m); gets a gradient if it wants one.
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.
        block: Rows and columns of a tile.

    Raises:
        TypeError: As for attention.
        ValueError: As for attention, or if block is less than 1.
    """
    check(q, k, v, mask, bias, dropout)
    if block < 1:
        raise ValueError(f"block={block} must be at least 1")
    return _Tiled.apply(q, k, v, bias, Tiles(q, k, mask, bias, scale, dropout, block))


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias, tiles):
        out = q.new_empty(*q.shape[:3], v.shape[3])
        lse = q.new_empty(*q.shape[:3], 1, dtype=tiles.dtype)
        for rows in tiles.rows():
            q_rows = tiles.group(q, rows)
            softmax = OnlineSoftmax(q_rows.new_zeros(*q_rows.shape[:3], v.shape[3]))
            for columns in tiles.columns(rows):
                s = tiles.scores(q_rows, k[:, :, columns], rows, columns)
                softmax.add(s, v[:, :, columns].to(s.dtype), tiles.keep(s, rows, columns))
            average, total = softmax.result()
            out[:, :, rows], lse[:, :, rows] = tiles.ungroup(average, rows), tiles.ungroup(total, rows)
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.tiles = tiles
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        (q, k, v, bias, out, lse), tiles = ctx.saved_tensors, ctx.tiles
        dq, dk, dv = (torch.zeros_like(x, dtype=tiles.dtype) for x in (q, k, v))
        d_bias = torch.zeros_like(bias, dtype=tiles.dtype) if bias is not None and ctx.needs_input_grad[3] else None
        delta = (d_out.to(tiles.dtype) * out).sum(-1, keepdim=True)  # what the softmax takes from each score's gradient
        for rows in tiles.rows():
            q_rows, d_rows = tiles.group(q, rows), tiles.group(d_out, rows)
            lse_rows, delta_rows = tiles.group(lse, rows), tiles.group(delta, rows)
            dq_rows = torch.zeros_like(q_rows)
            for columns in tiles.columns(rows):
                k_columns, v_columns = k[:, :, columns].to(tiles.dtype), v[:, :, columns].to(tiles.dtype)
                s = tiles.scores(q_rows, k_columns, rows, columns)
                weights, keep = s.sub_(lse_rows).exp_(), tiles.keep(s, rows, columns)
                ds = d_rows @ v_columns.mT
                if keep is None:
                    dv[:, :, columns] += weights.mT @ d_rows
                else:
                    dv[:, :, columns] += (weights * keep).mT @ d_rows
                    ds.mul_(keep)
                ds.sub_(delta_rows).mul_(weights)
                if d_bias is not None:
                    target = part(d_bias, rows, columns)
                    target += tiles.ungroup(ds, rows).sum_to_size(target.shape)
                dq_rows += ds @ k_columns
                dk[:, :, columns] += ds.mT @ q_rows
            dq[:, :, rows] = tiles.ungroup(dq_rows, rows)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return (dq * tiles.scale).to(q.dtype), (dk * tiles.scale).to(k.dtype), dv.to(v.dtype), d_bias, None


def flash_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """An `attend` that runs the paper's algorithm in our own Triton kernels, on an NVIDIA GPU.

    Takes float16, bfloat16 and float32, widths up to 256, any lengths. Scores are summed in float32.

    Args:
        q: Queries.
        k: Keys; grouped heads are not copied.
        v: Values.
        mask: As for attention; a Band, causal_mask itself and padding (b 1 1 m) are not written out.
        bias: Float, broadcast to (b h n m). If it wants a gradient, that is stored in full.
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.

    Raises:
        TypeError: As for attention, or for another dtype.
        ValueError: As for attention, or if d or e is above 256.
        RuntimeError: If q is not on a CUDA device, or Triton is not installed.
    """
    check(q, k, v, mask, bias, dropout)
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise TypeError(f"q is {q.dtype}, but the kernels take float16, bfloat16 and float32; {_ELSE}")
    for name, width in (("d", q.shape[3]), ("e", v.shape[3])):
        if not 1 <= width <= 256:
            raise ValueError(f"{name}={width}, but the kernels take head widths from 1 to 256; {_ELSE}")
    if q.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(f"q is on {q.device}, but the kernels need a CUDA device; {_ELSE}")
    try:
        from papercode.attention.flash_triton import flash  # here and not above: Triton is optional
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise RuntimeError(f"the kernels need Triton, which is not installed (pip install triton); {_ELSE}") from error
    return flash(q, k, v, mask=mask, bias=bias, scale=scale, dropout=dropout)


_ELSE = "use sdpa, tiled_attention or attention instead"
