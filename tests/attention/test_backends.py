"""Every `attend` means the same: held to the equations in float64, by what they themselves lose in the same dtype."""

from functools import partial

import pytest
import torch
from torch import nn

from helpers import assert_differs
from papercode.attention.backends import auto, choose, sdpa
from papercode.attention.flash_attention import flash_attention, tiled_attention
from papercode.attention.flex import flex
from papercode.attention.masks import Band, as_band
from papercode.attention.transformer import attention, causal_mask
from papercode.attention.windowed import windowed

BACKENDS = {
    "attention": attention,
    "sdpa": sdpa,
    "flex": flex,
    "flash_attention": flash_attention,
    "tiled_attention": partial(tiled_attention, block=16),
    "windowed": windowed,
    "auto": auto,
}


def keep(b, m):
    return (torch.arange(m) < torch.tensor([m, m // 2, 0])[:b, None]) | (torch.arange(m) == m - 1) * (b > 5)


def scattered(n, m):
    mask = torch.rand(2, 1, n, m) > 0.4
    mask[:, :, n // 2] = False
    return mask


# shape (b h g n m d e), mask, whether there is a bias
CASES = {
    "plain": ((2, 3, 3, 37, 41, 16, 16), lambda n, m: None, False),
    "wide and odd": ((1, 2, 1, 33, 35, 67, 19), lambda n, m: None, True),
    "causal": ((2, 2, 2, 39, 39, 24, 24), lambda n, m: causal_mask, False),
    "causal, more keys": ((1, 4, 2, 19, 70, 16, 16), lambda n, m: causal_mask, True),
    "causal, more queries": ((1, 2, 2, 41, 17, 16, 16), lambda n, m: causal_mask, False),
    "one query": ((2, 4, 1, 1, 45, 16, 16), lambda n, m: causal_mask, False),
    "padding": ((3, 2, 2, 35, 37, 16, 24), lambda n, m: keep(3, m)[:, None, None, :], False),
    "causal and padding": ((3, 2, 1, 37, 37, 16, 16), lambda n, m: Band(right=0, keep=keep(3, m)), True),
    "any mask": ((2, 2, 2, 34, 36, 16, 16), scattered, False),
    "any mask, with bias": ((2, 2, 1, 34, 36, 16, 16), scattered, True),
    "a mask of two dimensions": ((2, 2, 2, 9, 11, 16, 16), lambda n, m: torch.rand(n, m) > 0.5, False),
    "window": ((1, 2, 2, 83, 83, 16, 16), lambda n, m: Band(5, 3), False),
    "one ahead, at the edge of a block": ((1, 1, 1, 96, 96, 16, 16), lambda n, m: Band(9, 1), False),
    "window, padding": ((3, 4, 2, 70, 77, 16, 16), lambda n, m: Band(33, 2, keep(3, m)), True),
    "causal window": ((2, 2, 1, 67, 67, 24, 24), lambda n, m: Band(40, 0), False),
}


def inputs(case, dtype, device="cpu"):
    (b, h, g, n, m, d, e), mask, with_bias = CASES[case]
    shapes = [(b, h, n, d), (b, g, m, d), (b, g, m, e), (b, h, n, e), (1, h, n, m)]
    torch.manual_seed(1)
    mask = mask(n, m)
    q, k, v, d_out, bias = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
    if isinstance(mask, torch.Tensor):
        mask = mask.to(device)
    if isinstance(mask, Band) and mask.keep is not None:
        mask = Band(mask.left, mask.right, mask.keep.to(device))
    return [q, k, v, *([bias] if with_bias else [])], mask, d_out


def run(attend, tensors, mask, d_out, gradients=True, dtype=None, **settings):
    """The output and the gradients of q, k, v and the bias."""
    tensors = [x.detach().to(dtype or x.dtype).requires_grad_(gradients) for x in tensors]
    bias = tensors[3] if len(tensors) > 3 else None
    with torch.set_grad_enabled(gradients):
        out = attend(*tensors[:3], mask=mask, bias=bias, **settings)
    assert out.dtype == tensors[0].dtype
    if not gradients:
        return [out]
    return [out.detach(), *torch.autograd.grad(out, tensors, d_out.to(out.dtype))]


def assert_within_budget(found, oracle, rounded, dtype):
    """No further from the oracle than three times what the plain equations lose in this dtype, or than its last bit."""
    for ours, exact, plain in zip(found, oracle, rounded):
        budget = 3 * (plain.double() - exact).abs().max() + 2 * torch.finfo(dtype).eps * exact.abs().max()
        error = (ours.double() - exact).abs().max()
        assert error <= budget, f"error {error:.1e}, budget {budget:.1e}"


def hold(name, case, dtype, device):
    """Holds a backend to the oracle; whether it takes the case at all."""
    tensors, mask, d_out = inputs(case, dtype, device)
    band = as_band(mask)
    if name == "windowed" and (band is None or None in (band.left, band.right)):
        with pytest.raises(ValueError, match="mask"):
            windowed(*tensors[:3], mask=mask)
        return
    gradients = not (name == "flex" and device == "cpu")
    settings = {"scale": 0.37} if case == "plain" else {}
    found = run(BACKENDS[name], tensors, mask, d_out, gradients, **settings)
    oracle = run(attention, tensors, mask, d_out, gradients, torch.float64, **settings)
    rounded = run(attention, tensors, mask, d_out, gradients, **settings)
    assert_within_budget(found, oracle, rounded, dtype)
    if mask is not None:  # zeros, and zero gradients
        seen = mask if isinstance(mask, torch.Tensor) else mask(d_out.shape[2], tensors[1].shape[2], d_out.device)
        none = ~seen.any(-1).expand(*d_out.shape[:3])
        assert all((x[none] == 0).all() for x in found[:2])


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BACKENDS)
def test_all_backends_mean_the_same(name, case, dtype):
    with torch.compiler.set_stance("force_eager"):  # what FlexAttention compiles to is another test
        hold(name, case, dtype, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKENDS)
def test_all_backends_mean_the_same_on_cuda(name, dtype):
    for case in CASES:
        hold(name, case, dtype, "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_budget_can_be_exceeded(dtype):
    tensors, mask, d_out = inputs("causal and padding", dtype)
    oracle, rounded = run(attention, tensors, mask, d_out, dtype=torch.float64), run(attention, tensors, mask, d_out)
    wrong = [
        run(attention, tensors, mask, d_out, scale=0.26),  # 1 / sqrt(16) = 0.25
        run(attention, tensors, causal_mask, d_out),
        run(attention, tensors[:3], mask, d_out),
    ]
    for found in wrong:
        with pytest.raises(AssertionError, match="budget"):
            assert_within_budget(found, oracle, rounded, dtype)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", sorted(set(BACKENDS) - {"flex"}))
def test_dropout_falls_on_the_weights(name, device):
    """Whatever the random numbers are: each weight is gone or divided by 1 - p, and the gradient sees the same ones."""
    b, h, m, d, e, p = 2, 2, 45, 16, 24, 0.3
    q, k, v = (torch.randn(b, h, m, x, device=device, requires_grad=True) for x in (d, d, e))
    mask, eye = Band(9, 2), torch.eye(m, device=device).expand(b, h, m, m)
    seen = mask(m, m, q.device)
    attend = partial(BACKENDS[name], q, k, mask=mask, dropout=p)
    torch.manual_seed(3)
    dropped = attend(eye).detach()
    torch.manual_seed(3)
    out = attend(v)
    assert_differs(attend(v), out)  # other numbers in the next call
    weights = attention(q, k, eye, mask=mask)
    kept = dropped != 0
    assert (dropped[kept] - weights[kept] / (1 - p)).abs().max() < 1e-5
    assert abs(kept[:, :, seen].double().mean() - (1 - p)) < 0.05  # of about 2,000
    assert len({tuple(row) for row in kept[:, :, seen].flatten(0, 1).tolist()}) == b * h  # not the same in all heads
    expected = (weights * kept / (1 - p)) @ v
    d_out = torch.randn_like(out)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(out, (q, k, v), d_out)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (q, k, v), d_out), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_wrong_arguments_are_refused_before_anything_is_computed(name):
    attend, q = BACKENDS[name], torch.randn(1, 4, 6, 16)
    k = torch.randn(1, 3, 6, 16)
    with pytest.raises(ValueError, match="q has 4 heads, no multiple of the 3 heads of k and v"):
        attend(q, k, k, mask=Band(1, 1))
    with pytest.raises(TypeError, match=r"mask must be bool .*got torch.float32; pass additive floats as bias="):
        attend(q, q, q, mask=torch.zeros(6, 6))
    with pytest.raises(ValueError, match=r"bias of shape \(5, 6\) does not broadcast"):
        attend(q, q, q, mask=Band(1, 1), bias=torch.zeros(5, 6))
    with pytest.raises(ValueError, match=r"share one dtype, got k.dtype=torch.float16 and q.dtype=torch.float32"):
        attend(q, q.half(), q, mask=Band(1, 1))
    with pytest.raises(ValueError, match=r"dropout=-0.5"):
        attend(q, q, q, mask=Band(1, 1), dropout=-0.5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0)])
def test_nothing_to_do(name, n, m):
    q, k, v = torch.randn(2, 2, n, 16), torch.randn(2, 2, m, 16), torch.randn(2, 2, m, 24)
    mask = Band(3, 3) if name == "windowed" else None
    with torch.compiler.set_stance("force_eager"):
        out = BACKENDS[name](q, k, v, mask=mask)
    assert out.shape == (2, 2, n, 24)
    assert (out == 0).all()


# what auto chooses


def of(n, m=None, d=64, dtype=torch.float32):
    return torch.empty(1, 2, n, d, dtype=dtype), torch.empty(1, 2, m or n, d, dtype=dtype)


def test_choice_on_the_cpu():
    q, k = of(4096)
    assert choose(q, k, k) is sdpa
    assert choose(q, k, k, causal_mask) is sdpa
    assert choose(q, k, k, torch.ones(4096, 1, dtype=torch.bool)) is sdpa
    assert choose(q, k, k, Band(255, 0)) is windowed
    assert choose(q, k, k, Band(256, 256)) is windowed
    assert choose(q, k, k, Band(2048, 2047)) is windowed
    assert choose(q, k, k, Band(2048, 2048)) is sdpa
    assert choose(q, k, k, Band(9999, 0)) is sdpa  # causal, in fact
    q, k = of(63, 600)
    assert choose(q, k, k, Band(10, 10)) is sdpa


class OnCuda(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda, device = True, torch.device("cuda")


def test_choice_on_cuda():
    q, k = (x.as_subclass(OnCuda) for x in of(64, dtype=torch.bfloat16))
    bias, keep = torch.zeros(64, 64), torch.ones(1, 64, dtype=torch.bool)
    assert choose(q, k, k) is sdpa
    assert choose(q, k, k, causal_mask) is sdpa
    assert choose(q, k, k, Band(8, 0)) is flash_attention
    assert choose(q, k, k, Band(right=0, keep=keep)) is flash_attention
    assert choose(q, k, k, None, bias) is flash_attention
    q, k = (x.as_subclass(OnCuda) for x in of(64))
    assert choose(q, k, k, Band(8, 0)) is sdpa  # float32
    q, k = (x.as_subclass(OnCuda) for x in of(64, d=512, dtype=torch.bfloat16))
    assert choose(q, k, k, Band(8, 0)) is sdpa


def test_auto_does_as_chosen(monkeypatch):
    import papercode.attention.backends as backends

    asked = []
    monkeypatch.setattr(backends, "windowed", lambda *args, **kwargs: asked.append((args, kwargs)))
    q, k = of(64)
    mask = Band(2, 0)
    auto.__wrapped__(q, k, k, mask=mask, scale=2.0, dropout=0.1)
    ((args, kwargs),) = asked
    assert args == (q, k, k)
    assert kwargs == {"mask": mask, "bias": None, "scale": 2.0, "dropout": 0.1}


# torch's kernel, where it is asked for in a way of its own


def test_sdpa_asks_for_the_fast_kernels(monkeypatch):
    """A mask tensor keeps torch from its fastest kernels, so none is made where none is needed."""
    import papercode.attention.backends as backends

    asked, real = [], nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, is_causal=False, **settings):
        asked.append((None if attn_mask is None else tuple(attn_mask.shape), is_causal))
        return real(*args, attn_mask=attn_mask, is_causal=is_causal, **settings)

    monkeypatch.setattr(backends, "scaled_dot_product_attention", spy)
    q, k = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 7, 8)
    padding = torch.ones(2, 7, dtype=torch.bool)
    sdpa(q, k, k)
    sdpa(k, k, k, mask=causal_mask)
    sdpa(q[:, :, :1], k, k, mask=causal_mask)  # the newest query sees all
    sdpa(q, k, k, mask=Band(keep=padding))
    sdpa(q, k, k, mask=Band(right=0, keep=padding))
    assert asked == [(None, False), (None, True), (None, False), ((2, 1, 1, 7), False), ((2, 1, 5, 7), False)]
