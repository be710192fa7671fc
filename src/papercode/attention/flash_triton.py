r"""FlashAttention's kernels as operators of PyTorch [@dao2022flashattention].

Imports: the kernels (same paper); `as_band` knows a mask by two numbers, `dense` makes a tensor of any other
[@vaswani2017attention].

`papercode::flash_forward` and `papercode::flash_backward` are registered with a description of their outputs and with
each other as derivative, so that `torch.compile` takes them in without breaking its graph. Nothing of size n times m
is stored, unless a bias of that size wants its gradient.

Symbols: b batch, h heads of q, g of k and v, n queries, m keys, d and e widths in a head.
"""

import torch
import triton
from torch import Tensor

from papercode.attention import flash_kernels as kernels
from papercode.attention.arguments import Mask, dense
from papercode.attention.masks import as_band

INTERPRETED = triton.knobs.runtime.interpret
"""Whether the kernels run in Triton's interpreter, on the CPU (TRITON_INTERPRET=1)."""

# the last of each fits also where single precision and wide heads leave little room
_FORWARD = [(64, 64, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (128, 128, 8, 3), (32, 32, 4, 2)]
_BACKWARD = [(64, 64, 4, 2), (64, 128, 8, 2), (128, 64, 8, 2), (128, 128, 8, 2), (64, 64, 4, 3), (32, 32, 4, 1)]
_KEY = ["size", "d", "e", "r", "LEFT", "RIGHT", "SEEN", "BIAS", "DROPOUT"]


def _tuned(kernel, choices: list[tuple[int, int, int, int]]):
    """The kernel with the fastest of some block sizes (rows, columns, warps, stages) for each kind of call."""
    configs = [
        triton.Config({"BLOCK_M": rows, "BLOCK_N": columns}, num_warps=warps, num_stages=stages)
        for rows, columns, warps, stages in ([(32, 32, 4, 1)] if INTERPRETED else choices)
    ]
    return triton.autotune(configs, key=_KEY, do_bench=(lambda *_, **__: 0.0) if INTERPRETED else None)(kernel)


_forward = _tuned(kernels.forward, _FORWARD)
_backward_queries = _tuned(kernels.backward_queries, _BACKWARD)
_backward_keys = _tuned(kernels.backward_keys, _BACKWARD)


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention by the kernels, of arguments that were checked: see `flash_attention`, which calls it."""
    band = as_band(mask)
    if band is None:
        left, right, seen = -1, -1, dense(mask, q, k)
    else:
        seen = None if band.keep is None else band.keep[:, None, None, :]
        band = band.trimmed(q.shape[2], k.shape[2])
        left, right = -1 if band.left is None else band.left, -1 if band.right is None else band.right
    seed = torch.randint(2**31, (1,), device=q.device) if dropout else None
    scale = q.shape[3] ** -0.5 if scale is None else float(scale)
    shape = (*q.shape[:3], k.shape[2])
    seen, bias = (None if x is None else x.expand(shape) for x in (seen, bias))
    return flash_forward(q, k, v, seen, bias, seed, left, right, scale, float(dropout))[0]


@torch.library.custom_op("papercode::flash_forward", mutates_args=())
def flash_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    left: int,
    right: int,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The output (b h n e), contiguous, and the base-2 logarithm of the sums of exponentials (b h n).

    Args:
        q: Queries (b h n d).
        k: Keys (b g m d).
        v: Values (b g m e).
        seen: Bool (b h n m), True = may attend; expand it from any smaller shape.
        bias: Float (b h n m), likewise.
        seed: One integer, on the device; needed for dropout.
        left: Reach of the band to the left; -1 = no limit.
        right: Reach of the band to the right; -1 = no limit.
        scale: Of the scores.
        dropout: Probability with which a weight is set to zero.
    """
    call = _Call(q, k, v, seen, bias, seed, left, right, scale, dropout)
    out, lse = call.new_outputs()
    if out.numel():
        blocks = lambda meta: (triton.cdiv(call.n, meta["BLOCK_M"]) * call.b * call.h,)  # noqa: E731
        with torch.cuda.device_of(q):
            _forward[blocks](*call.tensors, out, lse, *call.strides, *call.numbers, **call.constants)
    return out.to(q.dtype), lse


@torch.library.custom_op("papercode::flash_backward", mutates_args=())
def flash_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    lse: Tensor,
    left: int,
    right: int,
    scale: float,
    dropout: float,
    wants_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v and, if wants_bias, of bias (b h n m); else the last is empty."""
    call = _Call(q, k, v, seen, bias, seed, left, right, scale, dropout)
    d_out, out = _rows_contiguous(call.cast(d_out)), call.cast(out).contiguous()
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in call.tensors[:3])
    # zeros, since tiles that the band excludes are never visited
    d_bias = torch.zeros(*(call.b, call.h, call.n, call.m) if wants_bias else (0,), dtype=lse.dtype, device=q.device)
    delta = torch.empty_like(lse)
    if not dq.numel() or not dk.numel():
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), d_bias
    rows = lambda meta: (triton.cdiv(call.n, meta["BLOCK_M"]) * call.b * call.h,)  # noqa: E731
    columns = lambda meta: (triton.cdiv(call.m, meta["BLOCK_N"]) * call.b * call.g,)  # noqa: E731
    inputs, strides = (*call.tensors, d_out, lse, delta), (*call.strides, *d_out.stride()[:3])
    with torch.cuda.device_of(q):
        kernels.backward_delta[(triton.cdiv(call.n, 64) * call.b * call.h,)](
            out,
            d_out,
            delta,
            *d_out.stride()[:3],
            call.h,
            call.n,
            call.e,
            BLOCK_E=call.constants["BLOCK_E"],
            BLOCK_M=64,
        )
        _backward_queries[rows](
            *inputs, dq, d_bias, *strides, *call.numbers, **call.constants, D_BIAS=wants_bias
        )  # fmt: skip
        _backward_keys[columns](*inputs, dk, dv, *strides, *call.numbers, **call.constants)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), d_bias


@flash_forward.register_fake
def _(q, k, v, seen, bias, seed, left, right, scale, dropout):
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)


@flash_backward.register_fake
def _(d_out, q, k, v, seen, bias, seed, out, lse, left, right, scale, dropout, wants_bias):
    d_bias = lse.new_empty(*q.shape[:3], k.shape[2]) if wants_bias else lse.new_empty(0)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), d_bias


def _keep_for_backward(ctx, inputs, output):
    q, k, v, seen, bias, seed, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, seen, bias, seed, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, d_out, _):
    *inputs, out, lse = ctx.saved_tensors
    wants_bias = ctx.needs_input_grad[4]
    dq, dk, dv, d_bias = flash_backward(d_out, *inputs, out, lse, *ctx.numbers, wants_bias)
    return dq, dk, dv, None, d_bias.to(inputs[4].dtype) if wants_bias else None, None, None, None, None, None


flash_forward.register_autograd(_backward, setup_context=_keep_for_backward)


def _rows_contiguous(x: Tensor) -> Tensor:
    """The kernels take any strides, but for the last dimension."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Call:
    """What all kernels are given, made from the arguments of one attention."""

    def __init__(self, q, k, v, seen, bias, seed, left, right, scale, dropout):
        (self.b, self.h, self.n, d), (self.g, self.m), self.e = q.shape, k.shape[1:3], v.shape[3]
        # the interpreter keeps bfloat16 as integers and computes with those
        self.dtype = torch.float32 if INTERPRETED and q.dtype == torch.bfloat16 else q.dtype
        q, k, v = (_rows_contiguous(self.cast(x)) for x in (q, k, v))
        bias = None if bias is None else self.cast(bias)
        masks = (q if seen is None else seen.view(torch.uint8), q if bias is None else bias)
        self.tensors = (q, k, v, *masks, q if seed is None else seed)
        self.strides = [s for x in (q, k, v) for s in x.stride()[:3]]
        self.strides += [s for x in (seen, bias) for s in ((0, 0, 0, 0) if x is None else x.stride())]
        size = triton.next_power_of_2(max(self.n, self.m))  # lengths of about the same size share their tuning
        self.numbers = (self.h, self.h // self.g, self.n, self.m, d, self.e, left, right, scale, dropout, size)
        self.constants = {
            "LEFT": left >= 0,
            "RIGHT": right >= 0,
            "SEEN": 0 if seen is None else 1 if seen.stride(2) == 0 else 2,
            "BIAS": bias is not None,
            "DROPOUT": dropout > 0,
            "BLOCK_D": max(16, triton.next_power_of_2(d)),
            "BLOCK_E": max(16, triton.next_power_of_2(self.e)),
        }

    def cast(self, x: Tensor) -> Tensor:
        """To what the kernels compute with, if it is half precision that they cannot."""
        return x.to(self.dtype) if x.dtype == torch.bfloat16 else x

    def new_outputs(self) -> tuple[Tensor, Tensor]:
        q = self.tensors[0]
        return q.new_empty(*q.shape[:3], self.e), torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
