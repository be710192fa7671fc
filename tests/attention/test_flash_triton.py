"""The operators: registered so that PyTorch can trace, compile and differentiate them."""

import subprocess
import sys

import pytest
import torch

from helpers import assert_differs
from papercode.attention.flash_attention import flash_attention
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask

flash_triton = pytest.importorskip("papercode.attention.flash_triton", reason="Triton is not installed")
DEVICE = "cpu" if flash_triton.INTERPRETED else "cuda"


def tensors(n=19, m=37, g=1, d=16, e=24, **settings):
    shapes = [(2, 2, n, d), (2, g, m, d), (2, g, m, e)]
    return [torch.randn(shape, device=DEVICE, requires_grad=True, **settings) for shape in shapes]


def close(ours, reference):
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_the_registration_is_sound():
    """Schema, fake outputs, derivative and its tracing, by PyTorch's own examination."""
    q, k, v = tensors(3, 5)
    seen = torch.rand(2, 2, 3, 5, device=DEVICE) > 0.3
    bias, seed = torch.randn(2, 2, 3, 5, device=DEVICE, requires_grad=True), torch.tensor([3], device=DEVICE)
    result = torch.library.opcheck(flash_triton.flash_forward, (q, k, v, seen, bias, seed, 1, -1, 0.3, 0.25))
    assert set(result.values()) == {"SUCCESS"}


COMPILED = """
import sys
import torch
from functools import partial
from papercode.attention.flash_attention import flash_attention
from papercode.attention.transformer import attention, causal_mask

device = "cuda" if torch.cuda.is_available() else "cpu"
q, k, v = (torch.randn(2, g, m, 16, device=device, requires_grad=True) for g, m in [(2, 37), (1, 40), (1, 40)])
d_out = torch.randn(2, 2, 37, 16, device=device)
attend = torch.compile(partial(flash_attention, mask=causal_mask), fullgraph=True, backend=sys.argv[1])
found, expected = attend(q, k, v), attention(q, k, v, mask=causal_mask)
torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
found, expected = (torch.autograd.grad(x, (q, k, v), d_out) for x in (found, expected))
torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
print("equal")
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_it_compiles_into_one_graph(backend):
    """In a process of its own, since the checks of shapes in this one are nothing for a compiler."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED, backend], capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr[-2000:]


def test_strides_do_not_matter():
    """q, k and v as they come from a fused projection, values side by side with others, and a gradient to match."""
    x = torch.randn(2, 37, 3, 2, 16, device=DEVICE, requires_grad=True)

    def through(attend):
        q, k, v = (x[:, :, i].transpose(1, 2) for i in range(3))
        out = attend(q, k, v.mT.contiguous().mT, mask=causal_mask)
        return out, torch.autograd.grad(out.transpose(1, 2).mT.square().sum(), x)[0]

    for ours, reference in zip(through(flash_attention), through(attention)):
        close(ours, reference)


@pytest.mark.parametrize(("d", "e"), [(1, 3), (16, 16), (20, 40), (64, 33), (128, 16), (256, 256)])
def test_head_widths(d, e):
    q, k, v = tensors(21, 33, d=d, e=e)
    ours, reference = flash_attention(q, k, v, mask=causal_mask), attention(q, k, v, mask=causal_mask)
    d_out = torch.randn_like(reference)
    close(ours, reference)
    close(torch.autograd.grad(ours, (q, k, v), d_out), torch.autograd.grad(reference, (q, k, v), d_out))


def test_nothing_of_size_n_times_m_is_kept():
    saved = []

    def pack(x):
        saved.append(x.numel())
        return x

    n = 150
    q = torch.randn(1, 1, n, 16, device=DEVICE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        flash_attention(q, q, q, mask=Band(right=0, keep=torch.ones(1, n, dtype=torch.bool, device=DEVICE)))
    # the mask is an expanded view of n truth values
    assert sorted(saved) == [n, *[16 * n] * 4, n * n]
    assert max(size for size in saved if size != n * n) == 16 * n


def test_the_bias_gets_its_gradient_and_only_if_it_wants_one():
    q, k, v = tensors()
    for shape in [(37,), (2, 1, 1), (2, 1, 19, 37)]:
        bias = torch.randn(shape, device=DEVICE, requires_grad=True)
        ours, plain = (
            torch.autograd.grad(f(q, k, v, bias=bias).square().sum(), bias)[0] for f in (flash_attention, attention)
        )
        close(ours, plain)
    q.grad = None
    flash_attention(q, k, v, bias=torch.randn(37, device=DEVICE)).sum().backward()
    assert q.grad.abs().max() > 0


def test_in_a_layer_under_autocast():
    layer = MultiHeadAttention(32, 2, attend=flash_attention).to(DEVICE)
    x = torch.randn(2, 21, 32, device=DEVICE)
    plain = layer(x)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x, mask=causal_mask)
        layer.attend = attention
        torch.testing.assert_close(y, layer(x, mask=causal_mask), rtol=2e-2, atol=2e-2)
    assert y.dtype == torch.bfloat16
    assert_differs(y.float(), plain, by=0.05)


def test_dropout_follows_the_seed():
    q, k, v = tensors()
    torch.manual_seed(1)
    first = flash_attention(q, k, v, dropout=0.5)
    assert_differs(flash_attention(q, k, v, dropout=0.5), first)
    torch.manual_seed(1)
    assert torch.equal(flash_attention(q, k, v, dropout=0.5), first)


@pytest.mark.gpu
def test_memory_grows_linearly_on_cuda():
    def peak(attend, n):
        q, k, v = (torch.randn(1, 8, n, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(q, k, v, mask=causal_mask).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(flash_attention, 2048)  # tuning allocates
    assert peak(flash_attention, 8192) < 4.2 * peak(flash_attention, 2048)
    assert peak(attention, 8192) > 12 * peak(attention, 2048)
