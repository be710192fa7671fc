"""The LSTM cell by hand, in loops and against torch's; what its gates do at their ends; weights taken from torch."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.lstm import LSTMCell, LSTMState, from_torch
from papercode.recurrent.unroll import select, unroll

B, N, X, D = 2, 7, 3, 5
F64 = torch.float64


def double(*shape):
    return torch.randn(*shape, dtype=F64)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def a_state(b=B, d=D):
    return LSTMState(double(b, d), double(b, d))


def constant(biases, i=1, d=1):
    """A cell whose gates and candidate depend on nothing."""
    cell = LSTMCell(i, d).double()
    for weight in (cell.input.weight, cell.hidden.weight):
        nn.init.zeros_(weight)
    cell.input.bias.data.copy_(torch.tensor(biases, dtype=F64).repeat_interleave(d))
    return cell


def test_by_hand():
    """i = f = o = 1/2 and g = 0.8: c goes from 0.4 to 0.2 + 0.4, and half of its tanh is shown."""
    cell = constant([0, 0, math.atanh(0.8), 0])
    h, c = cell(double(1, 1), (double(1, 1), torch.tensor([[0.4]], dtype=F64)))
    assert c.item() == pytest.approx(0.6)
    assert h.item() == pytest.approx(math.tanh(0.6) / 2)


def test_the_equations_with_loops(parity):
    cell, x, (h, c) = randomise(LSTMCell(X, D)), double(B, X), a_state()
    W, U, bias = (p.detach() for p in (cell.input.weight, cell.hidden.weight, cell.input.bias))
    new_h, new_c = torch.zeros(B, D, dtype=F64), torch.zeros(B, D, dtype=F64)
    for b in range(B):
        net = [
            sum(W[row, j] * x[b, j] for j in range(X)) + sum(U[row, j] * h[b, j] for j in range(D)) + bias[row]
            for row in range(4 * D)
        ]
        i, f, g, o = (net[k * D : (k + 1) * D] for k in range(4))
        for d in range(D):
            new_c[b, d] = sigmoid(f[d]) * c[b, d] + sigmoid(i[d]) * math.tanh(g[d])
            new_h[b, d] = sigmoid(o[d]) * math.tanh(new_c[b, d])
    ours = cell(x, LSTMState(h, c))
    parity("LSTM cell", "the equations, with loops", "one step", ours, (new_h, new_c))
    assert_differs(ours.h, ours.c)


@pytest.mark.parametrize("bias", [True, False])
def test_equals_torchs_cell(parity, bias):
    theirs = randomise(nn.LSTMCell(X, D, bias=bias))
    cell = LSTMCell(X, D, bias=bias).double()
    with torch.no_grad():
        cell.input.weight.copy_(theirs.weight_ih)
        cell.hidden.weight.copy_(theirs.weight_hh)
        if bias:
            cell.input.bias.copy_(theirs.bias_ih + theirs.bias_hh)
    x, state = double(B, X), a_state()
    parity("LSTM cell", "torch.nn.LSTMCell", "biases" if bias else "no biases", cell(x, state), theirs(x, state))
    assert_differs(cell(x, state).h, theirs(x, (state.c, state.h))[0])
    assert_same(cell(x).c, theirs(x)[1])


def test_gradients():
    cell = randomise(LSTMCell(X, D))
    x, (h, c) = double(B, X), a_state()
    inputs = [tensor.requires_grad_() for tensor in (x, h, c)]
    assert torch.autograd.gradcheck(lambda x, h, c: cell(x, (h, c)), inputs)


def test_the_forget_gate_starts_open_and_the_others_in_the_middle():
    i, f, g, o = LSTMCell(X, D).input.bias.view(4, D)
    assert (f == 1).all()
    assert not torch.cat([i, g, o]).any()
    assert (LSTMCell(X, D, forget_bias=3).input.bias.view(4, D)[1] == 3).all()
    assert LSTMCell(X, D, bias=False).input.bias is None
    assert LSTMCell(X, D, bias=False).hidden_bias() is None


def test_weights_start_within_a_range_that_shrinks_with_the_width():
    cell = LSTMCell(31, 100)
    for weight in (cell.input.weight, cell.hidden.weight):
        assert 0.09 < weight.abs().max() <= 0.1


def test_open_forget_gates_and_closed_input_gates_keep_the_memory_exactly():
    cell = randomise(LSTMCell(X, D))
    cell.input.bias.data.view(4, D)[:2] = torch.tensor([[-1000.0], [1000.0]])
    state = a_state()
    _, last = unroll(cell, double(B, 100, X), state)
    assert torch.equal(last.c, state.c)
    cell.input.bias.data.view(4, D)[1] = -1000.0
    assert not unroll(cell, double(B, 1, X), state)[1].c.any()


def test_closed_output_gates_show_nothing():
    cell = randomise(LSTMCell(X, D))
    cell.input.bias.data.view(4, D)[3] = -1000.0
    outputs, last = unroll(cell, double(B, N, X), a_state())
    assert not outputs.any()
    assert last.c.all()


def test_the_memory_stays_below_what_the_forget_gate_allows():
    """|c| <= 1 / (1 - f), and a constant input reaches i g / (1 - f); without forgetting it grows with every step."""
    cell = constant([0.0, 2.0, 0.7, 0.0])
    _, (_, c) = unroll(cell, double(1, 300, 1))
    assert c.item() == pytest.approx(0.5 * math.tanh(0.7) / (1 - sigmoid(2)))
    _, (_, c) = unroll(constant([0.0, 1000.0, 0.7, 0.0]), double(1, 300, 1))
    assert c.item() == pytest.approx(300 * 0.5 * math.tanh(0.7))


def test_the_gradient_goes_back_through_the_gates_too():
    """The paper cuts it there; with the memory wiped in each step there is no other way."""
    cell, x = randomise(LSTMCell(X, D)), double(B, 2, X).requires_grad_()
    cell.input.bias.data.view(4, D)[1] = -1000.0
    outputs, _ = unroll(cell, x)
    outputs[:, 1].sum().backward()
    assert (x.grad[:, 0].abs() > 0).all()


def test_a_state_is_a_named_tuple_of_the_inputs_dtype_and_rows():
    start = LSTMCell(X, D).start(double(4, 6, X))
    assert isinstance(start, LSTMState)
    assert start.h.shape == start.c.shape == (4, D)
    assert start.h.dtype == F64
    assert isinstance(select(LSTMCell(X, D)(torch.randn(4, X)), torch.tensor([3, 3])), LSTMState)


# weights of torch


def torchs(**arguments):
    return randomise(nn.LSTM(X, D, batch_first=True, **arguments))


def test_from_torch_copies(parity):
    theirs = torchs(num_layers=2)
    ours, x = from_torch(theirs), double(B, N, X)
    parity("LSTM layers", "torch.nn.LSTM", "from_torch, 2 layers", ours(x)[0], theirs(x)[0])
    before = ours(x)[0]
    randomise(theirs, 1)
    assert_same(ours(x)[0], before)
    assert_differs(ours(x)[0], theirs(x)[0])


def test_from_torch_keeps_dtype_mode_and_dropout():
    theirs = nn.LSTM(X, D, 2, dropout=0.3, bias=False).eval()
    ours = from_torch(theirs, run=fused)
    assert not ours.training
    assert ours.dropout.p == 0.3
    assert ours.run is fused
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert {p.dtype for p in from_torch(theirs.double()).parameters()} == {F64}
    assert all(p.requires_grad and p.is_leaf for p in ours.parameters())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_from_torch_is_batch_first_whatever_torchs_is():
    theirs, x = randomise(nn.LSTM(X, D)), double(B, N, X)
    assert_same(from_torch(theirs)(x)[0], theirs(x.transpose(0, 1))[0].transpose(0, 1))


def test_from_torch_refuses_projections():
    with pytest.raises(ValueError, match=r"proj_size=2 must be 0: LSTMCell does not project what it shows"):
        from_torch(nn.LSTM(X, D, proj_size=2))


def test_copies_and_pickles():
    layers, x = from_torch(torchs(bidirectional=True)), double(B, N, X)
    assert_same(copy.deepcopy(layers)(x)[0], layers(x)[0])
    assert_same(pickle.loads(pickle.dumps(layers))(x)[0], layers(x)[0])
