"""torch's kernels against the plain loop: the same outputs, states and gradients, whatever is asked."""

import pytest
import torch
from torch import Tensor

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused, turned, weights
from papercode.recurrent.gru import GRUCell, ResetAfterGRUCell
from papercode.recurrent.layers import Stack
from papercode.recurrent.lstm import LSTMCell, LSTMState
from papercode.recurrent.unroll import each, unroll

B, N, X, D = 5, 7, 3, 11
LENGTHS = torch.tensor([4, 6, 1, 6, 2])  # none is n
F64 = torch.float64
both = pytest.mark.parametrize("make", [LSTMCell, ResetAfterGRUCell])
directions = pytest.mark.parametrize("reverse", [False, True])
some_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS, torch.full((B,), N)], ids=["no", "some", "full"])


def double(*shape):
    return torch.randn(*shape, dtype=F64)


def tensors(state):
    return [state] if isinstance(state, Tensor) else list(state)


def everything(run, cell, x, state, **arguments):
    """Outputs, last state, and gradients of the input, the state and the parameters."""
    x = x.clone().requires_grad_()
    state = None if state is None else each(lambda tensor: tensor.clone().requires_grad_(), state)
    outputs, last = run(cell, x, state, **arguments)
    results = [outputs, *tensors(last)]
    sources = [x, *([] if state is None else tensors(state)), *cell.parameters()]
    weighted = sum((result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum() for result in results)
    return results + list(torch.autograd.grad(weighted, sources))


@both
@directions
@some_lengths
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_equals_the_plain_loop(make, reverse, lengths, bias, given):
    cell, x = randomise(make(X, D, bias=bias)), double(B, N, X)
    state = each(torch.randn_like, cell.start(x)) if given else None
    arguments = {"lengths": lengths, "reverse": reverse}
    for mine, other in zip(
        everything(fused, cell, x, state, **arguments), everything(unroll, cell, x, state, **arguments), strict=True
    ):
        assert_same(mine, other)


@both
def test_controls(make):
    cell, x = randomise(make(X, D)), double(B, N, X)
    state = each(torch.randn_like, cell.start(x))
    outputs = fused(cell, x)[0]
    assert_differs(outputs, unroll(cell, x, state)[0])
    assert_differs(outputs, unroll(cell, x, reverse=True)[0])
    assert_differs(outputs, unroll(cell, x, lengths=LENGTHS)[0])


def test_another_cells_kernel_is_not_it():
    """The paper's GRU has no kernel: that of the other placement of the reset gate gives other numbers."""
    cell = randomise(ResetAfterGRUCell(X, D))
    other, x = GRUCell(X, D).double(), double(B, N, X)
    other.load_state_dict(cell.state_dict(), strict=False)
    assert_differs(fused(cell, x)[0], unroll(other, x)[0])


@both
@directions
@some_lengths
def test_in_single_precision(make, reverse, lengths):
    """Where torch hands some of it on to oneDNN."""
    cell, x = randomise(make(X, D)).float(), torch.randn(B, N, X)
    assert_same(
        fused(cell, x, lengths=lengths, reverse=reverse)[0],
        unroll(cell, x, lengths=lengths, reverse=reverse)[0],
        tolerance=1e-5,
    )
    with torch.no_grad():
        assert_same(fused(cell.eval(), x)[0], unroll(cell, x)[0], tolerance=1e-5)


@both
@directions
def test_padding_is_never_touched(make, reverse):
    cell, x = randomise(make(X, D)), double(B, N, X)
    keep = torch.arange(N) < LENGTHS[:, None]
    expected, _ = fused(cell, x, lengths=LENGTHS, reverse=reverse)
    x[~keep] = torch.nan
    x.requires_grad_()
    outputs, last = fused(cell, x, lengths=LENGTHS, reverse=reverse)
    assert torch.equal(outputs, expected)
    (outputs.sum() + sum(tensor.sum() for tensor in tensors(last))).backward()
    assert not x.grad[~keep].any()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_a_state_may_be_any_pair_and_comes_back_named():
    cell, x, h, c = randomise(LSTMCell(X, D)), double(B, N, X), double(B, D), double(B, D)
    _, last = fused(cell, x, (h, c))
    assert isinstance(last, LSTMState)
    assert_same(last.c, fused(cell, x, LSTMState(h, c))[1].c)
    assert_differs(last.c, fused(cell, x, (c, h))[1].c)


def test_tensors_that_are_not_contiguous():
    cell = randomise(LSTMCell(X, D))
    x, h = double(X, N, B).permute(2, 1, 0), double(D, B).T
    assert_same(fused(cell, x, (h, h))[0], unroll(cell, x, (h, h))[0])


def test_turning_by_hand():
    assert turned(torch.tensor([3, 1, 4]), 4).tolist() == [[2, 1, 0, 3], [0, 1, 2, 3], [3, 2, 1, 0]]


def test_the_kernels_weights():
    cell = LSTMCell(X, D)
    assert [w.shape for w in weights(cell)] == [(4 * D, X), (4 * D, D), (4 * D,), (4 * D,)]
    assert not weights(cell)[3].any()
    assert len(weights(LSTMCell(X, D, bias=False))) == 2
    gru = randomise(ResetAfterGRUCell(X, D))
    assert not weights(gru)[3][: 2 * D].any()
    assert torch.equal(weights(gru)[3][2 * D :], gru.reset_bias)


# errors


@pytest.mark.parametrize("cell", [GRUCell(X, D), Stack([LSTMCell(X, D)])])
def test_without_a_kernel(cell):
    with pytest.raises(TypeError, match=rf"cell={type(cell).__name__} has no kernel in torch; run it with unroll"):
        fused(cell, torch.randn(B, N, X))


@both
@directions
@pytest.mark.parametrize("lengths", [[1, 2, 3, 4, 8], [1, 2, 3, 4, 0], [-1, 2, 3, 4, 5]])
def test_lengths_must_fit(make, lengths, reverse):
    with pytest.raises(ValueError, match=r"lengths=\[.*\] must be 5 numbers from 1 to n=7"):
        fused(make(X, D), torch.randn(B, N, X), lengths=torch.tensor(lengths), reverse=reverse)


def test_there_must_be_a_step():
    with pytest.raises(ValueError, match=r"x \(5, 0, 3\) has no steps"):
        fused(LSTMCell(X, D), torch.randn(B, 0, X))


@both
@pytest.mark.parametrize("shape", [(1, D), (B + 1, D), (B, D + 1)])
def test_what_the_kernels_do_not_check(make, shape):
    """They take a state of other rows or an x of another width, and read past its end."""
    cell = make(X, D)
    state = each(lambda own: torch.zeros(shape), cell.start(torch.zeros(1, X)))
    with pytest.raises(ValueError, match=rf"state \({shape[0]}, {shape[1]}\) must be \(5, 11\)"):
        fused(cell, torch.randn(B, N, X), state)
    with pytest.raises(ValueError, match=r"x \(5, 7, 2\) must have the width of the cell's inputs, 3"):
        fused(cell, torch.randn(B, N, 2))
