"""Windowed attention against the plain equations under the same mask, block borders and memory included."""

import itertools
import math
import weakref
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import assert_differs, assert_same
from papercode.attention import windowed as module
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band
from papercode.attention.transformer import MultiHeadAttention, attention, causal_mask
from papercode.attention.windowed import BLOCK, windowed, windowed_log_sum

F64 = torch.float64
B, H, D, E = 2, 4, 3, 5


@pytest.fixture
def blocks_of_five(monkeypatch):
    """Blocks so small that short inputs have many borders."""
    monkeypatch.setattr(module, "BLOCK", 5)


def qkv(n, m, g=H, requires_grad=False, dtype=F64):
    shapes = (B, H, n, D), (B, g, m, D), (B, g, m, E)
    return [torch.randn(s, dtype=dtype, requires_grad=requires_grad) for s in shapes]


def same_forward_and_backward(n, m, g, mask, bias=None, tolerance=1e-7, **kwargs):
    inputs = qkv(n, m, g, requires_grad=True)
    if bias is not None:
        bias = torch.randn(bias, dtype=F64, requires_grad=True)
    y, expected = (f(*inputs, mask=mask, bias=bias, **kwargs) for f in (windowed, attention))
    dy = torch.randn_like(y)
    wrt = inputs if bias is None else [*inputs, bias]
    assert_same(y, expected, tolerance)
    for ours, reference in zip(*(torch.autograd.grad(x, wrt, dy) for x in (y, expected)), strict=True):
        assert_same(ours, reference, tolerance)


def test_by_hand():
    """Three keys with equal scores and the values 0, 3, 9; each query sees itself and one on either side."""
    q = k = torch.zeros(1, 1, 3, 1)
    v = torch.tensor([0.0, 3.0, 9.0]).view(1, 1, 3, 1)
    assert windowed(q, k, v, mask=Band(1, 1)).flatten().tolist() == [1.5, 4.0, 6.0]
    assert windowed(q, k, v, mask=Band(1, 0)).flatten().tolist() == [0.0, 1.5, 6.0]
    assert windowed(q, k, v, mask=Band(0, 0)).flatten().tolist() == [0.0, 3.0, 9.0]


@pytest.mark.usefixtures("blocks_of_five")
@pytest.mark.parametrize("n", [1, 4, 5, 6, 11, 17])
@pytest.mark.parametrize("m", [1, 5, 7, 17])
def test_equals_attention_at_every_border(n, m):
    """Fewer queries than keys (the last n of them), as many, and more."""
    for left, right, padded in itertools.product((0, 1, 3, 6, 40), (0, 2, 30), (False, True)):
        keep = torch.rand(B, m) < 0.6 if padded else None
        same_forward_and_backward(n, m, H, Band(left, right, keep))


@pytest.mark.usefixtures("blocks_of_five")
@pytest.mark.parametrize("g", [1, 2, 4])
@pytest.mark.parametrize(
    "bias", [None, (), (1, 1), (13, 1), (17,), (13, 17), (H, 1, 17), (B, 1, 13, 1), (B, H, 13, 17)]
)
def test_equals_attention_with_every_argument(g, bias):
    keep = torch.rand(B, 17) < 0.7
    same_forward_and_backward(13, 17, g, Band(3, 2, keep), bias, scale=0.7)
    same_forward_and_backward(13, 17, g, Band(3, 2, keep[:1]), bias)


def test_equals_attention_with_blocks_as_they_are():
    same_forward_and_backward(131, 131, 2, Band(17, 29), (H, 1, 131))
    same_forward_and_backward(64, 128, 2, Band(64, 0))


def test_controls():
    q, k, v = qkv(13, 17)
    y = windowed(q, k, v, mask=Band(3, 2))
    for other in (Band(4, 2), Band(3, 1), Band(2, 3), Band(3, 2, torch.rand(B, 17) < 0.7)):
        assert_differs(windowed(q, k, v, mask=other), y)
    assert_differs(windowed(q, k, v, mask=Band(3, 2), scale=1.0), y)
    assert_differs(windowed(q, k, v, mask=Band(3, 2), bias=torch.randn(17, dtype=F64)), y)
    assert_differs(windowed(q, k[:, [0, 0, 1, 1]], v, mask=Band(3, 2)), y)


@pytest.mark.usefixtures("blocks_of_five")
def test_gradients():
    keep = torch.rand(B, 9) < 0.7
    bias = torch.randn(H, 1, 9, dtype=F64, requires_grad=True)

    def function(q, k, v, bias):
        return windowed_log_sum(q, k, v, mask=Band(2, 1, keep), bias=bias)

    q, k, v = qkv(7, 9, 2, requires_grad=True)
    assert torch.autograd.gradcheck(function, (q, k, v, bias))
    assert torch.autograd.gradcheck(partial(windowed, mask=Band(2, 1)), (q, k, v))


def test_second_derivatives_are_refused_aloud():
    q, k, v = qkv(7, 9, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"windowed has no second derivatives .*; use `attention` for them"):
        torch.autograd.grad(windowed(q, k, v, mask=Band(2, 1)).sum(), q, create_graph=True)


@pytest.mark.usefixtures("blocks_of_five")
def test_log_sums():
    q, k, v = qkv(13, 17, 2, requires_grad=True)
    band = Band(3, 2, torch.rand(B, 17) < 0.5)
    bias = torch.randn(H, 13, 17, dtype=F64)
    y, log_sum = windowed_log_sum(q, k, v, mask=band, bias=bias, scale=0.9)
    scores = q @ k.repeat_interleave(2, 1).mT * 0.9 + bias
    expected = scores.masked_fill(~band(13, 17), -torch.inf).logsumexp(-1)
    blind = expected.isinf()
    assert blind.any()
    assert_same(log_sum[~blind], expected[~blind])
    assert (log_sum[blind] == torch.finfo(F64).min).all()
    assert_same(y, windowed(q, k, v, mask=band, bias=bias, scale=0.9))
    assert (torch.autograd.grad(log_sum.clamp(min=-1e9).sum(), q)[0][blind] == 0).all()


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_query_without_keys_gets_zeros_and_sends_zeros_back(dtype):
    q, k, v = qkv(70, 70, dtype=dtype, requires_grad=True)
    keep = torch.ones(B, 70, dtype=torch.bool)
    keep[:, 1:8] = False  # query 4 sees 2 to 6
    with torch.autograd.detect_anomaly():
        y = windowed(q, k, v, mask=Band(2, 2, keep))
        y.square().sum().backward()
    assert (y[:, :, 4] == 0).all()
    assert (y[:, :, 2] != 0).all()
    assert (q.grad[:, :, 3:6] == 0).all()
    assert (q.grad[:, :, 9] != 0).any()
    assert all((x.grad[:, :, 1:8] == 0).all() for x in (k, v))
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0), (7, 2)])
def test_no_queries_no_keys_or_more_queries_than_keys(n, m):
    inputs = qkv(n, m, requires_grad=True)
    y = windowed(*inputs, mask=Band(1, 1))
    assert_same(y, attention(*inputs, mask=Band(1, 1)))
    assert (y[:, :, : max(0, n - m - 1)] == 0).all()
    y.sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


def test_no_batch():
    q, k, v = (x[:0] for x in qkv(5, 5))
    assert windowed(q, k, v, mask=Band(1, 1)).shape == (0, H, 5, E)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_no_further_off_than_the_plain_equations(dtype):
    exact = [x.to(dtype).double().requires_grad_() for x in qkv(150, 150, 2)]
    rough = [x.detach().to(dtype).requires_grad_() for x in exact]
    band, dy = Band(20, 30, torch.rand(B, 150) < 0.8), torch.randn(B, H, 150, E).to(dtype)

    def results(function, inputs, dy):
        y = function(*inputs, mask=band)
        assert y.dtype == inputs[0].dtype
        return [x.double() for x in (y, *torch.autograd.grad(y, inputs, dy))]

    expected = results(attention, exact, dy.double())
    ours, plain = (results(function, rough, dy) for function in (windowed, attention))
    for o, p, e in zip(ours, plain, expected, strict=True):
        assert (o - e).abs().max() <= 2 * (p - e).abs().max() + 4 * torch.finfo(dtype).eps


def test_gradients_are_summed_over_blocks_in_float32():
    """All look at one key. In bfloat16 a sum that has reached 256 would take no further one."""
    n = 40 * BLOCK
    q, k, v = (torch.zeros(1, 1, n, 1, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    dy = torch.zeros(1, 1, n, 1, dtype=torch.bfloat16)
    dy[:, :, ::BLOCK], dy[:, :, 0] = 1.0, 256.0
    y = windowed(q, k, v, mask=Band(n, n, torch.arange(n)[None] == 0))
    assert torch.autograd.grad(y, v, dy)[0].flatten()[0].item() == 256 + 39 + 1  # to the next even number


def test_a_padded_key_does_not_leak_however_large():
    q, k, v = qkv(11, 11)
    band = Band(3, 3, torch.arange(11).expand(B, -1) < 7)
    far = k.clone()
    far[:, :, 7:] = 1e9
    assert torch.equal(windowed(q, far, v, mask=band), windowed(q, k, v, mask=band))


def test_what_lies_outside_the_band_is_never_read():
    """Not even a NaN there is noticed; in the dense product it would be."""
    q, k, v = qkv(200, 200)
    y = windowed(q, k, v, mask=Band(9, 9))
    bias = torch.zeros(200, 200, dtype=F64)
    bias[:64, 73:] = torch.nan
    assert torch.equal(windowed(q, k, v, mask=Band(9, 9), bias=bias), y)
    k[:, :, 73:] = torch.nan
    assert torch.equal(windowed(q, k, v, mask=Band(9, 9))[:, :, :64], y[:, :, :64])


def test_strides_do_not_matter():
    """q, k and v as a projection leaves them, and with a batch that is expanded."""
    q, k, v = (torch.randn(B, 70, H, x, dtype=F64).transpose(1, 2) for x in (D, D, E))
    expected = attention(q, k, v, mask=Band(5, 5))
    assert_same(windowed(q, k, v, mask=Band(5, 5)), expected)
    assert_same(windowed(q, k[:1].expand_as(k), v, mask=Band(5, 5))[:1], expected[:1])


# dropout


@pytest.mark.usefixtures("blocks_of_five")
def test_dropout_falls_on_the_weights():
    q, k, _ = qkv(12, 12)
    identity = torch.eye(12, dtype=F64).expand(B, H, 12, 12)
    weights = windowed(q, k, identity, mask=Band(3, 3))
    dropped = windowed(q, k, identity, mask=Band(3, 3), dropout=0.25)
    assert_same(torch.where(dropped == 0, 0.0, weights / 0.75), dropped)
    zeros = (dropped == 0)[weights > 0].double().mean().item()
    assert zeros == pytest.approx(0.25, abs=0.1)
    assert_differs(windowed(q, k, identity, mask=Band(3, 3), dropout=0.25), dropped)
    torch.manual_seed(1)
    first = windowed(q, k, identity, mask=Band(3, 3), dropout=0.25)
    torch.manual_seed(1)
    assert torch.equal(windowed(q, k, identity, mask=Band(3, 3), dropout=0.25), first)
    _, log_sum = windowed_log_sum(q, k, identity, mask=Band(3, 3), dropout=0.25)
    assert_same(log_sum, windowed_log_sum(q, k, identity, mask=Band(3, 3))[1])  # of what was before dropout


@pytest.mark.usefixtures("blocks_of_five")
def test_backward_drops_what_forward_dropped():
    def function(q, k, v):
        torch.manual_seed(3)
        return windowed(q, k, v, mask=Band(2, 3), dropout=0.4)

    assert torch.autograd.gradcheck(function, qkv(11, 12, 2, requires_grad=True))


# time and memory


class Peak(TorchDispatchMode):
    """Bytes that operations allocate while it is on: the largest result, and the most alive at a time."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.largest, self.seen = 0, 0, 0, weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for x in args:
            if isinstance(x, torch.Tensor):
                self.seen.setdefault(x.untyped_storage())  # it was there before; a view of it is nothing new
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage() not in self.seen:
                storage = x.untyped_storage()
                self.seen.setdefault(storage)
                self.alive += storage.nbytes()
                self.largest, self.most = max(self.largest, storage.nbytes()), max(self.most, self.alive)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return out

    def _freed(self, size):
        self.alive -= size


def peak(function, n, backward, **kwargs):
    inputs = [torch.randn(1, 2, n, 8, requires_grad=backward) for _ in range(3)]
    with Peak() as counter:
        y = function(*inputs, mask=Band(16, 16), **kwargs)
        if backward:
            y.sum().backward()
    return counter


@pytest.mark.parametrize("backward", [False, True])
def test_memory_is_linear_in_the_length(backward):
    short, long = (peak(windowed, n, backward).most for n in (512, 2048))
    assert long < 4.2 * short
    dense = [peak(attention, n, backward).most for n in (512, 2048)]
    assert dense[1] > 15 * dense[0]  # the control: 16 times as much for 4 times the length


def test_beyond_inputs_and_output_there_is_one_block():
    scores = 2 * 64 * (64 + 32) * 4  # heads, queries, keys, bytes
    for n in (512, 2048):
        output = 2 * n * 8 * 4
        assert peak(windowed, n, backward=False).most <= output + 5 * scores
        assert peak(windowed, n, backward=False).largest == max(output, scores)


def test_a_bias_that_is_not_trained_gets_no_gradient_in_memory():
    bias = torch.randn(1024, 1024)
    q, k, v = (torch.randn(1, 2, 1024, 8, requires_grad=True) for _ in range(3))
    for wanted in (False, True):
        y = windowed(q, k, v, mask=Band(16, 16), bias=bias.requires_grad_(wanted))
        with Peak() as counter:
            y.sum().backward()
        assert (counter.largest >= bias.numel() * 4) == wanted


def test_keys_and_values_are_not_copied_for_the_heads_that_share_them():
    q, k, v = torch.randn(1, 16, 1024, 8), torch.randn(1, 2, 1024, 8), torch.randn(1, 2, 1024, 8)
    with Peak() as counter:
        windowed(q, k, v, mask=Band(4, 4))
    assert counter.largest == q.numel() * 4


def test_products_are_linear_in_the_length():
    """Multiplications that torch counts: those of the band, and at most a block more for each query."""
    from torch.utils.flop_counter import FlopCounterMode

    def flops(n, width):
        q = torch.randn(1, 1, n, 8)
        with FlopCounterMode(display=False) as counter:
            windowed(q, q, q, mask=Band(width, width))
        return counter.get_total_flops()

    assert flops(8192, 32) < 2.05 * flops(4096, 32)
    assert flops(4096, 256) <= 4 * 8 * 4096 * (2 * 256 + 64)


# as an attend


def test_serves_a_layer_and_a_cache():
    layer = MultiHeadAttention(12, H, attend=windowed).double()
    plain = MultiHeadAttention(12, H).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(B, 130, 12, dtype=F64)
    expected = plain(x, mask=Band(7, 0))
    assert_same(layer(x, mask=Band(7, 0)), expected)
    cached = MultiHeadAttention(12, H, attend=KVCache(windowed)).double()
    cached.load_state_dict(layer.state_dict())
    steps = [cached(part, mask=Band(7, 0)) for part in x.split([70, 59, 1], 1)]
    assert_same(torch.cat(steps, 1), expected)


# errors


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, r"mask has left=None, no limit, .* finite on both sides: pass Band\(left, right\), or use `attention`"),
        (causal_mask, "mask has left=None, no limit"),
        (Band(left=3), "mask has right=None, no limit"),
        (
            torch.ones(5, 5, dtype=torch.bool),
            r"mask must be a Band .*, got a tensor of shape \(5, 5\); `attention` takes",
        ),
        (lambda n, m, device: None, r"mask must be a Band with finite left and right, got <function"),
        (Band(1, 1, torch.ones(B, 4, dtype=torch.bool)), r"mask of shape \(2, 1, 1, 4\) does not broadcast"),
        (Band(1, 1, torch.ones(3, 5, dtype=torch.bool)), r"mask of shape \(3, 1, 1, 5\) does not broadcast"),
    ],
)
def test_masks_that_are_no_window_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        windowed(*qkv(5, 5), mask=mask)


def test_other_arguments_are_checked_as_everywhere():
    q, k, v = qkv(5, 5)
    with pytest.raises(TypeError, match="mask must be bool"):
        windowed(q, k, v, mask=torch.zeros(5, 5))
    with pytest.raises(ValueError, match=r"dropout=1.5 must be"):
        windowed(q, k, v, mask=Band(1, 1), dropout=1.5)
    with pytest.raises(ValueError, match="q has 4 heads, no multiple of the 3"):
        windowed(q, k[:, :3], v[:, :3], mask=Band(1, 1))


def test_far_windows_cost_no_more_than_all_keys():
    q, k, v = qkv(70, 70)
    with Peak() as counter:
        y = windowed(q, k, v, mask=Band(10**9, 10**9))
    assert counter.largest <= 8 * B * H * 64 * (64 + 70 + 70)
    assert_same(y, attention(q, k, v))
    assert math.isfinite(y.sum())
