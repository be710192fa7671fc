r"""The forward and backward pass of an adapted map in one piece [@hu2022lora]: fewer copies to keep, fewer to make.

Imports: nothing from other modules. `LoRALinear` calls it; written with autograd alone it would be
`base(x) + scale * dropout(x) @ A.mT @ B.mT`, which is what the tests hold it to.

Symbols: n positions, all leading dimensions in one; $P = xA^\top$ (n r), the small projection; $g$ (n d_out), the
gradient of the output. With $s = \alpha / r$ and dropped inputs $\tilde x$:
$\;dB = s\, g^\top P$, $\;h = s\, gB$, $\;dA = h^\top \tilde x$, $\;dx = hA + gW_0$ (hA masked like $\tilde x$).

What is kept for the backward pass: x, P, the mask of the dropout as one byte a number, and no copy of x, dropped or
cast to another dtype. What is added in place: the update into the output of the frozen map, and $gW_0$ into $hA$; only
ever into a tensor that was made here.

Differences from the paper:
    * None in what is computed. The thin products run in the dtype of the base's output, as they would under autocast.
"""

from typing import Any, TypeGuard

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

_PLAIN = nn.Parameter, Tensor


def can_fuse(base: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling base is no more than a product with a frozen weight, so that nobody misses the call.

    Not so for another class than nn.Linear, with hooks, with a weight of a class of its own (quantised, distributed),
    with a `forward` that was put on the instance, or where the weight or bias is to get a gradient.
    """
    if type(base) is not nn.Linear or "forward" in vars(base) or nn.modules.module._has_any_global_hook():
        return False
    if base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks:
        return False
    weight, bias = base._parameters.get("weight"), base.bias
    if type(weight) not in _PLAIN or type(bias) not in (*_PLAIN, type(None)):
        return False
    return not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (weight, bias))


def low_rank_linear(
    x: Float[Tensor, "*n d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None,
    A: Float[Tensor, "r d_in"],
    B: Float[Tensor, "d_out r"],
    scale: float,
    keep: Bool[Tensor, "*n d_in"] | None = None,
) -> Float[Tensor, "*n d_out"]:
    r"""$W_0 x + b + \mathrm{scale} \cdot B A \tilde x$ with frozen $W_0$ and b, which get no gradient.

    Args:
        x: Input.
        weight: $W_0$.
        bias: b.
        A: Down-projection.
        B: Up-projection.
        scale: Of the update; with dropout times 1 / (1 - p).
        keep: False where dropout zeroes an entry of the update's input.
    """
    return _run(x, None, weight, bias, A, B, scale, keep)


def low_rank_add(
    y: Float[Tensor, "*n d_out"],
    x: Float[Tensor, "*n d_in"],
    A: Float[Tensor, "r d_in"],
    B: Float[Tensor, "d_out r"],
    scale: float,
    keep: Bool[Tensor, "*n d_in"] | None = None,
) -> Float[Tensor, "*n d_out"]:
    r"""$y + \mathrm{scale} \cdot B A \tilde x$, where y comes from whatever map; a new tensor, y stays as it is.

    Args:
        y: Output of the map.
        x: Its input.
        A: Down-projection.
        B: Up-projection.
        scale: Of the update; with dropout times 1 / (1 - p).
        keep: False where dropout zeroes an entry of the update's input.
    """
    return _run(x, y, None, None, A, B, scale, keep)


def _run(x, y, weight, bias, A, B, scale, keep):
    if not torch._C._are_functorch_transforms_active():
        return _Adapted.apply(x, y, weight, bias, A, B, scale, keep)
    out = linear(x, weight, bias) if y is None else y  # inside torch.func: it writes the backward passes itself
    return out + scale * linear(_project(x, A, keep, out.dtype), B.to(out.dtype)).view(out.shape)


class _Adapted(torch.autograd.Function):
    """Takes either y or the weight."""

    @staticmethod
    def forward(ctx: Any, x, y, weight, bias, A, B, scale, keep):
        out = linear(x, weight, bias) if y is None else y.clone(memory_format=torch.contiguous_format)
        P = _project(x, A, keep, out.dtype)
        out.view(-1, out.shape[-1]).addmm_(P, B.to(out.dtype).mT, alpha=scale)
        ctx.scale = scale
        ctx.save_for_backward(x, weight, A, B, keep, P)
        return out

    @staticmethod
    def backward(ctx: Any, g):
        x, weight, A, B, keep, P = ctx.saved_tensors
        for_x, for_y, _, _, for_A, for_B, _, _ = ctx.needs_input_grad
        again = torch.is_grad_enabled()  # somebody differentiates this pass too: P is a function of x and A
        dtype, rows, dx, dA, dB = g.dtype, g.reshape(-1, g.shape[-1]), None, None, None
        if for_B:
            P = _project(x, A, keep, dtype) if again else P
            dB = ctx.scale * (rows.mT @ P).to(B.dtype)
        if for_A or for_x:
            h = (rows @ (ctx.scale * B).to(dtype)).to(dtype)
        if for_A:
            dA = (h.mT @ _input(x, keep, dtype)).to(A.dtype)
        if for_x:
            dx = (h @ A.to(dtype)).to(dtype)
            dx = dx if keep is None else dx.mul_(keep.reshape(dx.shape))
            dx = (dx if weight is None else dx.addmm_(rows, weight.to(dtype))).view(x.shape)
        return dx, g if for_y else None, None, None, dA, dB, None, None


def _input(x: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    x = x.to(dtype)
    return (x if keep is None else x * keep).reshape(-1, x.shape[-1])


def _project(x: Tensor, A: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    return linear(_input(x, keep, dtype), A.to(dtype)).to(dtype)
