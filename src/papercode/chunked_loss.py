r"""The head of a language model and its loss, a few rows of logits at a time.

The logits of n tokens over a vocabulary of v words are by far the largest tensor of a small model: (512, 50257) in
float32 are 103 MB, as much again for their softmax, and again for their gradient. They need not exist at once. The loss
of a row depends on that row alone, and so does the gradient; so here the forward pass takes a few rows, computes their
logits, their part of the loss and at once their part of the gradient, and forgets the logits.

Symbols: n rows (all leading dimensions in one), d width, v size of the vocabulary. A row of logits z with target t has
the loss $\log \sum_j e^{z_j} - z_t$ and the gradient $G = \mathrm{softmax}(z) - 1_t$; that of hidden is $GW$, that of
the weight $G^\top x$, summed over rows. In float32, z, its softmax and G are one piece of memory, written over.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear


def chunked_cross_entropy(
    hidden: Float[Tensor, "*n d"],
    weight: Float[Tensor, "v d"],
    target: Int[Tensor, "*n"],
    *,
    bias: Float[Tensor, " v"] | None = None,
    ignore_index: int = -100,
    mean: bool = True,
    rows: int = 128,
) -> Float[Tensor, ""]:
    """`cross_entropy(linear(hidden, weight, bias), target)` without ever holding all logits.

    Costs no further product: of three (logits, gradient of hidden, gradient of weight) those run that are wanted. The
    gradients are ready after the forward pass.

    Args:
        hidden: What the head reads.
        weight: Of the head, one row a word; the table of embeddings where they are tied. Frozen or not.
        target: The word that is right.
        bias: Of the head.
        ignore_index: A target that does not count.
        mean: Whether to divide by the number of targets that count; the sum otherwise. The mean of none is NaN.
        rows: How many rows of logits exist at a time.

    Returns:
        The loss, in float32 where hidden is narrower.

    Raises:
        ValueError: If shapes or dtypes do not go together, or rows < 1.
        RuntimeError: If a target is no word (a GPU stops with an assertion of its own), or, in the backward pass, if a
            second derivative is asked for.
    """
    if hidden.shape[:-1] != target.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}, but hidden {tuple(hidden.shape)}: one target a row")
    if weight.ndim != 2 or hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, but hidden {tuple(hidden.shape)}: widths must agree")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}, but weight {tuple(weight.shape)}: one number a word")
    if rows < 1:
        raise ValueError(f"rows={rows} must be at least 1")
    wanted = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (hidden, weight, bias)]
    device = hidden.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return _Chunked.apply(hidden, weight, bias, target, ignore_index, mean, rows, *wanted)
    if hidden.dtype != weight.dtype:
        raise ValueError(f"weight is {weight.dtype}, but hidden {hidden.dtype}: they must agree")
    return _Chunked.apply(hidden, weight, bias, target, ignore_index, mean, rows, *wanted)


class _Chunked(torch.autograd.Function):
    """The gradients are computed for the sum and divided later: in float16, 1 / n first would lose the small ones."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, target, ignore_index, mean, rows, for_x, for_W, for_b):
        x, t = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1, 1)
        counts = t != ignore_index
        t = t.masked_fill(~counts, 0)
        wide = torch.promote_types(x.dtype, torch.float32)
        losses = torch.empty(t.shape, dtype=wide, device=x.device)
        dx = torch.empty_like(x) if for_x else None
        dW = torch.zeros_like(weight, dtype=wide) if for_W else None
        db = torch.zeros_like(bias, dtype=wide) if for_b else None
        for part in (slice(i, i + rows) for i in range(0, len(x), rows)):
            z = linear(x[part], weight, bias)
            top, right = z.amax(1, keepdim=True), z.gather(1, t[part])
            if z.dtype == wide:  # written over
                total = z.sub_(top).exp_().sum(1, keepdim=True)
                losses[part], G = total.log() + (top - right), z.div_(total)
            else:  # widened on the way; the largest softmax is 1 / total
                G = torch.softmax(z, 1, dtype=wide)
                losses[part] = top.to(wide) - right - G.amax(1, keepdim=True).log()
            G = G.scatter_(1, t[part], torch.expm1(-losses[part])).to(x.dtype)
            if for_x:
                dx[part] = (G @ weight).masked_fill_(~counts[part], 0)
            if for_W:
                seen = x[part] * counts[part]
                dW.addmm_(G.mT, seen) if dW.dtype == G.dtype else dW.add_(G.mT @ seen)
            if for_b:
                db += (G.mT @ counts[part].to(G.dtype)).squeeze(1)
        number = counts.sum() if mean else torch.ones_like(counts.sum())
        ctx.save_for_backward(number.clamp(min=1), None if dx is None else dx.view(hidden.shape), dW, db)
        return losses.masked_fill_(~counts, 0).sum() / number

    @staticmethod
    def backward(ctx, g):
        if torch.is_grad_enabled():
            raise RuntimeError("chunked_cross_entropy cannot be differentiated twice (create_graph=True)")
        number, *grads = ctx.saved_tensors
        return *(None if t is None else t * (g / number) for t in grads), *[None] * 7
