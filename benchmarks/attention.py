"""Times the attends of the package against PyTorch's own, forward and backward.

python benchmarks/attention.py                    on this machine's GPU if there is one, else on its CPU
python benchmarks/attention.py --only window      some of it
python benchmarks/attention.py --compiled 1       FlexAttention too, on the CPU (minutes of compiling)
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, run
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from papercode.attention.backends import auto, sdpa
from papercode.attention.flash_attention import flash_attention, tiled_attention
from papercode.attention.flex import flex
from papercode.attention.masks import Band
from papercode.attention.transformer import attention, causal_mask
from papercode.attention.windowed import windowed


def tensors(b: int, h: int, n: int, d: int, arguments: argparse.Namespace, dtype: torch.dtype, gradients: bool) -> list:
    generator = torch.Generator(arguments.device).manual_seed(0)
    make = partial(torch.randn, b, h, n, d, device=arguments.device, dtype=dtype, generator=generator)
    return [make().requires_grad_(gradients) for _ in range(3)] + [make()]


def with_backward(attend: Callable, q, k, v, d_out) -> Callable:
    return lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), d_out)


def backward_alone(attend: Callable, q, k, v, d_out) -> Callable:
    out = attend(q, k, v)
    return lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)


def on_cpu(arguments: argparse.Namespace) -> Iterator[Case]:
    n, w = arguments.length, 256
    shape, window = f"1 x 8 x {n} x 64", Band(w, w)
    q, k, v, d_out = tensors(1, 8, n, 64, arguments, torch.float32, False)
    causal = {
        "tiled_attention": partial(tiled_attention, mask=causal_mask),
        "torch SDPA": partial(scaled_dot_product_attention, is_causal=True),
        "attention (eager)": partial(attention, mask=causal_mask),
        "auto": partial(auto, mask=causal_mask),
    }
    band = {
        "windowed": partial(windowed, mask=window),
        "torch SDPA, full": scaled_dot_product_attention,
        "torch SDPA, dense mask": partial(scaled_dot_product_attention, attn_mask=window(n, n)),
        "auto": partial(auto, mask=window),
    }
    if arguments.compiled:
        causal["flex (compiled)"] = partial(flex, mask=causal_mask)
        band["flex (compiled)"] = partial(flex, mask=window)
    full = band.pop("torch SDPA, full")
    yield Case("causal", shape, {name: partial(f, q, k, v) for name, f in causal.items()}, inference=True)
    yield Case(f"window {w} + 1 + {w}", shape, {name: partial(f, q, k, v) for name, f in band.items()}, inference=True)
    # full attention is other work, so that there is nothing to agree on
    pair = {"windowed": partial(band["windowed"], q, k, v), "torch SDPA, full": partial(full, q, k, v)}
    yield Case(f"window {w} + 1 + {w}, or all", shape, pair, inference=True, tolerance=None)
    q, k, v, d_out = tensors(1, 8, n, 64, arguments, torch.float32, True)
    for what, providers in (("causal, with backward", causal), (f"window {w} + 1 + {w}, with backward", band)):
        works = {name: with_backward(f, q, k, v, d_out) for name, f in providers.items() if "flex" not in name}
        yield Case(what, shape, works)
    for left, right in ((63, 0), (255, 0), (767, 0), (128, 128), (511, 511)):  # where windowed pays: what auto goes by
        q, k, v, _ = tensors(1, 8, 1024, 64, arguments, torch.float32, False)
        settings = {"q": q, "k": k, "v": v, "mask": Band(left, right)}
        pair = {name: partial(f, **settings) for name, f in {"windowed": windowed, "sdpa": sdpa}.items()}
        yield Case(f"window {left} + 1 + {right}", "1 x 8 x 1024 x 64", pair, inference=True)


def on_cuda(arguments: argparse.Namespace) -> Iterator[Case]:
    """16k tokens of width 2048 throughout, bfloat16, as in the FlashAttention papers."""

    def torch_with(backend: SDPBackend, causal: bool) -> Callable:
        def attend(q, k, v):
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, is_causal=causal)

        return attend

    for d in (64, 128):
        for causal in (False, True):
            mask = causal_mask if causal else None
            for n in (1024, 2048, 4096, 8192, 16384):
                torch.compiler.reset()  # or after some shapes FlexAttention would no longer be compiled
                b, h = 16384 // n, 2048 // d
                flops = 4 * b * h * n * n * d / (2 if causal else 1)
                providers = {
                    "flash_attention": partial(flash_attention, mask=mask),
                    "auto": partial(auto, mask=mask),
                    "torch flash": torch_with(SDPBackend.FLASH_ATTENTION, causal),
                    "torch cuDNN": torch_with(SDPBackend.CUDNN_ATTENTION, causal),
                    "torch memory-efficient": torch_with(SDPBackend.EFFICIENT_ATTENTION, causal),
                    "flex (compiled)": partial(flex, mask=mask),
                }
                if n <= 4096:  # 16 GiB of scores
                    providers["attention (eager)"] = partial(attention, mask=mask)
                shape, kind = f"{b} x {h} x {n} x {d}", "causal" if causal else "full"
                q, k, v, d_out = tensors(b, h, n, d, arguments, torch.bfloat16, False)
                works = {name: partial(f, q, k, v) for name, f in providers.items()}
                yield Case(f"forward, {kind}", shape, works, "bfloat16", 2e-2, flops, inference=True)
                q, k, v, d_out = tensors(b, h, n, d, arguments, torch.bfloat16, True)
                works = {name: backward_alone(f, q, k, v, d_out) for name, f in providers.items()}
                yield Case(f"backward, {kind}", shape, works, "bfloat16", 4e-2, 2.5 * flops)
                del works, q, k, v, d_out
    window = Band(256, 256)
    for n in (4096, 16384):
        q, k, v, _ = tensors(16384 // n, 16, n, 128, arguments, torch.bfloat16, False)
        providers = {"flash_attention": flash_attention, "auto": auto, "windowed": windowed, "flex (compiled)": flex}
        works = {name: partial(f, q, k, v, mask=window) for name, f in providers.items()}
        yield Case("window 256 + 1 + 256", f"{16384 // n} x 16 x {n} x 128", works, "bfloat16", 2e-2, inference=True)


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    return on_cuda(arguments) if arguments.device == "cuda" else on_cpu(arguments)


if __name__ == "__main__":
    run(
        "attention", cases, __doc__,
        length=(4096, "queries and keys, on the CPU"),
        compiled=(0, "1 to time FlexAttention on the CPU too"),
    )  # fmt: skip
