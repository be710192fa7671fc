"""The counted algorithms compute attention and its gradients, and move as many numbers as one counts by hand."""

import pytest
import torch

from helpers import assert_same
from papercode.attention.flash_io import (
    Memory,
    blocks,
    expected_accesses,
    flash_backward,
    flash_forward,
    standard_backward,
    standard_forward,
    with_inputs,
)
from papercode.attention.transformer import attention

SIZES = [(64, 8, 256), (128, 16, 1024), (60, 4, 100), (50, 8, 37), (16, 4, 64)]


@pytest.mark.parametrize(("n", "d", "size"), SIZES)
def test_both_compute_attention_and_its_gradients(n, d, size):
    inputs = with_inputs(n, d, torch.float64)
    q, k, v = (inputs.matrices[name][None, None].requires_grad_() for name in "QKV")
    out = attention(q, k, v)
    expected = [out, *torch.autograd.grad(out, (q, k, v), inputs.matrices["dO"][None, None])]
    flash, standard = (Memory({name: x.detach().clone() for name, x in inputs.matrices.items()}) for _ in range(2))
    flash_forward(flash, size)
    flash_backward(flash, size)
    standard_forward(standard)
    standard_backward(standard)
    for name, reference in zip(["O", "dQ", "dK", "dV"], expected):
        assert_same(flash.matrices[name], reference[0, 0])
        assert_same(standard.matrices[name], reference[0, 0])


def test_accesses_by_hand():
    """n = 4, d = 2, size = 8: blocks of one key and one query, so four passes.

    Zeros and statistics 8 + 4 + 4; four times key and value 2 + 2; sixteen times in q, O, l, m = 6 and out O, l, m = 4.
    """
    memory = with_inputs(4, 2)
    flash_forward(memory, 8)
    assert (memory.loads, memory.stores) == (4 * 4 + 16 * 6, 16 + 16 * 4)
    assert memory.accesses == 192
    memory = with_inputs(4, 2)
    standard_forward(memory)  # in Q, K, V and twice 16; out twice 16 and O
    assert (memory.loads, memory.stores) == (24 + 32, 32 + 8)


@pytest.mark.parametrize(("n", "d", "size"), SIZES)
def test_counts_follow_the_formulas(n, d, size):
    expected = expected_accesses(n, d, size)
    for forward, backward, rest in (
        (standard_forward, standard_backward, ()),
        (flash_forward, flash_backward, (size,)),
    ):
        memory = with_inputs(n, d)
        forward(memory, *rest)
        assert memory.accesses == expected[forward.__name__]
        before = memory.accesses
        backward(memory, *rest)
        assert memory.accesses - before == expected[backward.__name__]


def test_blocks_of_the_paper():
    """M = 4 d c leaves c keys a block, and at most d queries."""
    rows, columns = blocks(64, 8, 256)
    assert [columns[0].stop, len(columns), rows[0].stop, len(rows)] == [8, 8, 8, 8]
    rows, columns = blocks(64, 8, 512)
    assert [columns[0].stop, rows[0].stop] == [16, 8]
    rows, columns = blocks(64, 8, 10**6)  # all keys fit at once
    assert [columns[0].stop, len(columns), rows[0].stop] == [64, 1, 8]
    with pytest.raises(ValueError, match="size=7 must be at least d=8"):
        blocks(64, 8, 7)
