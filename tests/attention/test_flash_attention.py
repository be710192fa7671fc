"""The softmax that sees its scores in pieces, the attention in tiles, and what the kernels' entrance refuses."""

import itertools
import math
import sys
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from helpers import assert_differs, assert_same
from papercode.attention.flash_attention import OnlineSoftmax, flash_attention, tiled_attention
from papercode.attention.masks import Band
from papercode.attention.transformer import attention, causal_mask

F64 = torch.float64


def test_online_softmax_by_hand():
    """Scores log 1, log 2, then log 5: weights 1/8, 2/8, 5/8 of the values 80, 8, 16 are 10 + 2 + 10."""
    softmax = OnlineSoftmax(torch.zeros(1, 1, dtype=F64))
    softmax.add(torch.tensor([[1.0, 2.0]], dtype=F64).log(), torch.tensor([[80.0], [8.0]], dtype=F64))
    assert_same(softmax.out / softmax.sum, torch.tensor([[32.0]], dtype=F64))  # (80 + 16) / 3
    softmax.add(torch.tensor([[5.0]], dtype=F64).log(), torch.tensor([[16.0]], dtype=F64))
    average, lse = softmax.result()
    assert_same(average, torch.tensor([[22.0]], dtype=F64))
    assert_same(lse, torch.tensor([[math.log(8)]], dtype=F64))


@pytest.mark.parametrize("sizes", [[11], [5, 6], [1] * 11, [10, 1], [3, 4, 4]])
def test_pieces_do_not_matter(sizes):
    s, v = 20 * torch.randn(2, 3, 11, dtype=F64), torch.randn(2, 11, 5, dtype=F64)
    softmax = OnlineSoftmax(torch.zeros(2, 3, 5, dtype=F64))
    for part, values in zip(s.split(sizes, 2), v.split(sizes, 1)):
        softmax.add(part.clone(), values)
    average, lse = softmax.result()
    assert_same(average, s.softmax(-1) @ v)
    assert_same(lse, s.logsumexp(-1, keepdim=True))


def test_large_scores_and_rows_without_any():
    softmax = OnlineSoftmax(torch.zeros(3, 1))
    nothing = -torch.inf
    softmax.add(torch.tensor([[1e4, 0.0], [nothing, nothing], [nothing, nothing]]), torch.tensor([[1.0], [2.0]]))
    softmax.add(torch.tensor([[2e4], [nothing], [-1e4]]), torch.tensor([[3.0]]))
    average, lse = softmax.result()
    assert average.flatten().tolist() == [3.0, 0.0, 3.0]
    assert lse.flatten().tolist() == [2e4, torch.inf, -1e4]


SHAPES = [(13, 17), (17, 13), (16, 16), (1, 9)]
MASKS = [None, causal_mask, Band(3, 2), Band(0, 0), torch.rand(2, 1, 1, 1) > 2]


@pytest.mark.parametrize("mask", MASKS, ids=["none", "causal", "band", "diagonal", "nothing"])
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_tiles_equal_the_equations(n, m, mask):
    for g, block, with_bias in itertools.product([3, 1], [1, 4, 8, 64], [False, True]):
        shapes = [(2, 3, n, 5), (2, g, m, 5), (2, g, m, 7), *([(3, 1, m)] if with_bias else [])]
        tensors = [torch.randn(shape, dtype=F64, requires_grad=True) for shape in shapes]
        settings = {"mask": mask, "bias": tensors[3] if with_bias else None, "scale": 0.7}
        ours = tiled_attention(*tensors[:3], block=block, **settings)
        plain = attention(*tensors[:3], **settings)
        d_out = torch.randn_like(plain)
        assert_same(ours, plain)
        for a, b in zip(torch.autograd.grad(ours, tensors, d_out), torch.autograd.grad(plain, tensors, d_out)):
            assert_same(a, b)


def test_a_single_tile_is_not_all():
    q, k, v = (torch.randn(1, 1, 8, 4, dtype=F64) for _ in range(3))
    assert_differs(tiled_attention(q, k[:, :, :4], v[:, :, :4]), attention(q, k, v))


def test_gradcheck_of_tiles():
    q, k, v = (torch.randn(1, 2, 5, 3, dtype=F64, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 5, 5, dtype=F64, requires_grad=True)
    mask = torch.rand(5, 5) > 0.3
    mask[1] = False
    for settings in ({"mask": causal_mask}, {"mask": mask, "scale": 0.3}):
        attend = partial(tiled_attention, block=2, **settings)
        assert torch.autograd.gradcheck(lambda q, k, v, bias: attend(q, k, v, bias=bias), (q, k, v, bias))  # noqa: B023


def test_empty_tiles_are_skipped():
    """With blocks of 8 the causal mask of 64 leaves 36 of 64 tiles, and a band of one block 15."""

    def flops(mask, block=8):
        q, k, v = (torch.randn(1, 1, 64, 4, requires_grad=True) for _ in range(3))
        with FlopCounterMode(display=False) as counter:
            tiled_attention(q, k, v, mask=mask, block=block).sum().backward()
        return counter.get_total_flops()

    assert flops(causal_mask) / flops(None) == 36 / 64
    assert flops(Band(8, 0)) / flops(None) == 15 / 64
    assert flops(None) == 7 * 2 * 64 * 64 * 4  # two products forward, five backward


class Largest(TorchDispatchMode):
    """The most bytes that any one tensor takes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


def test_memory_grows_linearly():
    def largest(attend, n):
        q, k, v = (torch.randn(1, 2, n, 8, requires_grad=True) for _ in range(3))
        with Largest() as seen:
            attend(q, k, v, mask=Band(right=0)).sum().backward()
        return seen.bytes

    tiled = partial(tiled_attention, block=32)
    assert largest(tiled, 1024) == 2 * largest(tiled, 512) == 1024 * 2 * 8 * 4  # no tensor is larger than q
    assert largest(attention, 1024) >= 1024 * 1024 * 2 * 4


def test_blocks_must_have_a_size():
    q = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match="block=0 must be at least 1"):
        tiled_attention(q, q, q, block=0)


# the entrance to the kernels


def test_what_the_kernels_do_not_take():
    q, wide = torch.randn(1, 1, 3, 16), torch.randn(1, 1, 3, 257)
    with pytest.raises(TypeError, match=r"q is torch.float64, but the kernels take float16, .*; use sdpa, tiled_atte"):
        flash_attention(q.double(), q.double(), q.double())
    with pytest.raises(ValueError, match="d=257, but the kernels take head widths from 1 to 256; use sdpa"):
        flash_attention(wide, wide, q)
    with pytest.raises(ValueError, match="e=257, but the kernels"):
        flash_attention(q, q, wide)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    q = torch.randn(1, 1, 3, 16)
    with pytest.raises(
        RuntimeError, match="q is on cpu, but the kernels need a CUDA device; use sdpa, tiled_attention or"
    ):
        flash_attention(q, q, q)


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name in [name for name in sys.modules if name.startswith("papercode.attention.flash_")]:
        if name.endswith(("_triton", "_kernels")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    q = torch.randn(1, 1, 3, 16)
    with pytest.raises(RuntimeError, match=r"need Triton, which is not installed \(pip install triton\); use sdpa"):
        flash_attention(q, q, q)
