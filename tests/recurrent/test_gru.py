"""The gated recurrent unit: torch's, the paper's with loops, by hand, at the ends of its gates."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.gru import GRUCell, ResetAfterGRUCell, from_torch
from papercode.recurrent.unroll import unroll

B, N, W_IN, D = 3, 7, 5, 11
F64 = torch.float64
CELLS = [GRUCell, ResetAfterGRUCell]


def inputs():
    return torch.randn(B, N, W_IN, dtype=F64), torch.randn(B, D, dtype=F64)


def torch_gru(cell):
    """torch's layer with the weights of a cell."""
    gru = nn.GRU(W_IN, D, bias=cell.input.bias is not None, batch_first=True).double()
    with torch.no_grad():
        gru.weight_ih_l0.copy_(cell.input.weight)
        gru.weight_hh_l0.copy_(cell.hidden.weight)
        if cell.input.bias is not None:
            gru.bias_ih_l0.copy_(cell.input.bias)
            gru.bias_hh_l0.copy_(cell.hidden_bias())
    return gru


def logistic(x):
    return 1 / (1 + math.exp(-x))


def looped(cell, x, h):
    """Equations 5 to 8, one number after the other; the rows of the weights are r, z, candidate."""
    W, U, b = cell.input.weight.tolist(), cell.hidden.weight.tolist(), cell.input.bias.tolist()

    def dot(row, vector):
        return math.fsum(a * v for a, v in zip(row, vector, strict=True))

    batch = []
    for row, state in zip(x.tolist(), h.tolist(), strict=True):
        shown = []
        for x_t in row:
            r = [logistic(dot(W[j], x_t) + dot(U[j], state) + b[j]) for j in range(D)]
            z = [logistic(dot(W[D + j], x_t) + dot(U[D + j], state) + b[D + j]) for j in range(D)]
            kept = [r[j] * state[j] for j in range(D)]
            new = [math.tanh(dot(W[2 * D + j], x_t) + dot(U[2 * D + j], kept) + b[2 * D + j]) for j in range(D)]
            state = [z[j] * state[j] + (1 - z[j]) * new[j] for j in range(D)]
            shown.append(state)
        batch.append(shown)
    return torch.tensor(batch, dtype=F64)


@pytest.mark.parametrize("bias", [True, False])
def test_reset_after_equals_torch(parity, bias):
    cell, (x, h) = randomise(ResetAfterGRUCell(W_IN, D, bias=bias)), inputs()
    theirs, last = torch_gru(cell)(x, h[None])
    configuration = "with a first state, with biases" if bias else "with a first state, no biases"
    parity("GRU", "torch.nn.GRU", configuration, [*unroll(cell, x, h)], [theirs, last[0]])
    assert_same(fused(cell, x, h)[0], theirs)
    other = GRUCell(W_IN, D, bias=bias).double()
    other.load_state_dict(cell.state_dict(), strict=False)
    assert_differs(unroll(other, x, h)[0], theirs)  # the reset gate at the paper's place
    assert_differs(unroll(cell, x)[0], theirs)


@pytest.mark.parametrize("bias", [True, False])
def test_packed_and_backwards_equals_torch(parity, bias):
    gru = randomise(nn.GRU(W_IN, D, 2, bias=bias, batch_first=True, bidirectional=True))
    layers, (x, _), lengths = from_torch(gru), inputs(), torch.tensor([4, 7, 1])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    theirs, last = gru(packed)
    theirs, _ = nn.utils.rnn.pad_packed_sequence(theirs, batch_first=True)
    ours, states = layers(x, lengths=lengths)
    configuration = f"two layers, both directions, padding, {'biases' if bias else 'no biases'}"
    parity("GRU", "torch.nn.GRU", configuration, [ours, *states], [theirs, *last])
    assert_differs(layers(x)[0], theirs)
    assert_same(from_torch(gru, run=fused)(x, lengths=lengths)[0], theirs)
    gru.eval()
    assert not from_torch(gru).training
    assert from_torch(nn.GRU(W_IN, D, 2, dropout=0.25)).dropout.p == 0.25
    assert from_torch(nn.GRU(W_IN, D).bfloat16()).cells[0].input.weight.dtype == torch.bfloat16
    assert layers.cells[0].input.weight.data_ptr() != gru.weight_ih_l0.data_ptr()


def test_the_papers_unit_equals_loops(parity):
    cell, (x, h) = randomise(GRUCell(W_IN, D)), inputs()
    expected = looped(cell, x, h)
    parity("GRU, reset gate as in the paper", "the equations, with loops", "one layer", unroll(cell, x, h)[0], expected)
    other = ResetAfterGRUCell(W_IN, D).double()
    other.load_state_dict(cell.state_dict(), strict=False)
    other.reset_bias.data.zero_()
    assert_differs(unroll(other, x, h)[0], expected)


def test_by_hand():
    """x = 0, h = 1; r = z = 1/2, candidate tanh(2 · 1/2); the state is the mean of 1 and tanh(1)."""
    cell = GRUCell(1, 1).double()
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    cell.hidden.weight.data[2] = 2.0
    one = torch.ones(1, 1, dtype=F64)
    assert cell(torch.zeros(1, 1, dtype=F64), one).item() == pytest.approx((1 + math.tanh(1)) / 2, abs=1e-12)
    # z counts what is kept
    cell.input.bias.data[1] = math.log(3)
    assert cell(torch.zeros(1, 1, dtype=F64), one).item() == pytest.approx(3 / 4 + math.tanh(1) / 4, abs=1e-12)


def test_without_a_matrix_in_the_candidate_the_two_are_one():
    """With a diagonal U the reset gate commutes with it."""
    cells = [randomise(other(W_IN, D)) for other in CELLS]
    cells[1].load_state_dict(cells[0].state_dict(), strict=False)
    cells[1].reset_bias.data.zero_()
    x, h = inputs()
    assert_differs(unroll(cells[0], x, h)[0], unroll(cells[1], x, h)[0])
    for cell in cells:
        cell.hidden.weight.data[2 * D :] = torch.diag(torch.linspace(-1, 1, D))
    assert_same(unroll(cells[0], x, h)[0], unroll(cells[1], x, h)[0])


# the ends of the gates


def saturated(cell, r, z):
    """A cell whose gates stand at 0 or 1."""
    cell.input.bias.data[:D], cell.input.bias.data[D : 2 * D] = (2 * r - 1) * 1e4, (2 * z - 1) * 1e4
    return cell


@pytest.mark.parametrize("make", CELLS)
def test_a_closed_update_gate_copies_the_state_through_all_steps(make):
    cell, (x, h) = saturated(randomise(make(W_IN, D)), r=1, z=1), inputs()
    h.requires_grad_()
    _, last = unroll(cell, x, h)
    assert torch.equal(last, h)
    assert torch.equal(torch.autograd.grad(last.sum(), h)[0], torch.ones_like(h))


@pytest.mark.parametrize("make", CELLS)
def test_reset_alone_does_not_forget(make):
    cell, (x, h) = saturated(randomise(make(W_IN, D)), r=0, z=0), inputs()
    state = cell(x[:, 0], h)
    b, W = cell.input.bias[2 * D :], cell.input.weight[2 * D :]
    assert_same(state, (x[:, 0] @ W.T + b).tanh())  # r = 0 and z = 0: nothing of h is left
    cell.input.bias.data[D : 2 * D] = 0
    cell.input.weight.data[D : 2 * D] = 0
    cell.hidden.weight.data[D : 2 * D] = 0
    assert_same(cell(x[:, 0], h), (state + h) / 2)  # r = 0 and z = 1/2: half of it is


@pytest.mark.parametrize("make", CELLS)
def test_gradients(make):
    cell, (x, h) = randomise(make(W_IN, D)), inputs()
    assert torch.autograd.gradcheck(lambda x, h: unroll(cell, x[:, :3], h)[0], (x.requires_grad_(), h.requires_grad_()))


def test_three_quarters_of_an_lstm():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    lstm, gru = nn.LSTM(W_IN, D), nn.GRU(W_IN, D)
    assert 4 * count(gru) == 3 * count(lstm)
    assert count(GRUCell(W_IN, D)) == count(gru) - 3 * D  # torch keeps each bias twice
    assert count(ResetAfterGRUCell(W_IN, D)) == count(gru) - 2 * D


def test_the_start():
    for make in CELLS:
        for parameter in make(W_IN, 400).parameters():
            assert 0.9 / 20 < parameter.abs().max() <= 1 / 20
        assert make(W_IN, D).start(torch.zeros(B, W_IN, dtype=F64)).equal(torch.zeros(B, D, dtype=F64))
        assert all("bias" not in name for name, _ in make(W_IN, D, bias=False).named_parameters())


def test_the_papers_unit_has_no_kernel():
    with pytest.raises(TypeError, match="cell=GRUCell has no kernel in torch; run it with unroll"):
        fused(GRUCell(W_IN, D), torch.zeros(B, N, W_IN))
