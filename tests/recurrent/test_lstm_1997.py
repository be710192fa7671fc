"""The cell of 1997: by hand, in loops, against torch's LSTM with open forget gates; the carousel; truncation."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.lstm_1997 import LSTM1997Cell, LSTM1997State, stretched
from papercode.recurrent.unroll import unroll

B, N, X, D, S = 2, 7, 3, 10, 5  # batch, steps, width of inputs, cells, cells in a block
F64 = torch.float64


def double(*shape):
    return torch.randn(*shape, dtype=F64)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_the_squashing_functions():
    x = torch.linspace(-30, 30, 61, dtype=F64)
    g, h = stretched(x, 2.0), stretched(x, 1.0)
    assert_same(g, 4 / (1 + torch.exp(-x)) - 2)
    assert_same(h, 2 / (1 + torch.exp(-x)) - 1)
    assert_same(g, 2 * torch.tanh(x / 2))
    assert g.abs().max() <= 2
    assert h.abs().max() <= 1


def constant(biases, **arguments):
    """One cell whose gates and input depend on nothing."""
    cell = LSTM1997Cell(1, 1, **arguments).double()
    for weight in (cell.input.weight, cell.hidden.weight):
        nn.init.zeros_(weight)
    cell.input.bias.data.copy_(torch.tensor(biases, dtype=F64))
    return cell


def test_by_hand():
    """Gates 1/2 and 3/4, g(log 3) = 1: c goes from 2 to 2.5."""
    cell = constant([0, math.log(3), math.log(3)])
    h, c, gates = cell(double(1, 1), (double(1, 1), torch.tensor([[2.0]], dtype=F64), double(1, 2)))
    assert c.item() == pytest.approx(2.5)
    assert h.item() == pytest.approx(0.75 * (2 * sigmoid(2.5) - 1))
    assert gates.tolist() == [pytest.approx([0.5, 0.75])]


def test_on_a_constant_input_the_memory_grows_by_the_same_in_every_step():
    _, (_, c, _) = unroll(constant([0, 0, math.log(3)]), double(1, 1000, 1))
    assert c.item() == pytest.approx(500)


@pytest.mark.parametrize("feed_gates", [False, True])
def test_the_equations_with_loops(parity, feed_gates):
    cell = randomise(LSTM1997Cell(X, D, block=S, feed_gates=feed_gates))
    k = D // S
    x, state = double(B, X), LSTM1997State(double(B, D), double(B, D), torch.rand(B, 2 * k, dtype=F64))
    W, U, bias = (p.detach() for p in (cell.input.weight, cell.hidden.weight, cell.input.bias))
    new = LSTM1997State(*(torch.zeros_like(part) for part in state))
    for b in range(B):
        seen = [*state.h[b], *state.gates[b]] if feed_gates else [*state.h[b]]

        def net(row, seen=seen, b=b):
            of_x = sum(W[row, j] * x[b, j] for j in range(X))
            return of_x + sum(U[row, j] * y for j, y in enumerate(seen)) + bias[row]

        for block in range(k):
            new.gates[b, block], new.gates[b, k + block] = sigmoid(net(block)), sigmoid(net(k + block))
            for d in range(block * S, (block + 1) * S):
                g = 4 * sigmoid(net(2 * k + d)) - 2
                new.c[b, d] = state.c[b, d] + new.gates[b, block] * g
                new.h[b, d] = new.gates[b, k + block] * (2 * sigmoid(new.c[b, d]) - 1)
    what = "blocks of 5, gates fed back" if feed_gates else "blocks of 5"
    parity("LSTM of 1997", "the equations, with loops", what, cell(x, state), new)
    assert_differs(cell(x, state).h, cell(x, state._replace(c=state.h)).h)


def with_open_forget_gates(cell):
    """torch's LSTM: forget gates at 1, gates repeated for each cell of a block, and the candidates' rows halved."""
    k = D // cell.block
    lstm = nn.LSTM(X, D, batch_first=True).double()

    def rows(tensor):
        y_in, y_out, g = tensor.detach().split([k, k, D])
        y_in, y_out = (gate.repeat_interleave(cell.block, 0) for gate in (y_in, y_out))
        return torch.cat([y_in, torch.zeros_like(g), g / 2, y_out])

    bias = rows(cell.input.bias)
    bias.view(4, D)[1] = 1000.0
    for theirs, ours in zip(lstm.all_weights[0], (rows(cell.input.weight), rows(cell.hidden.weight), bias, 0 * bias)):
        theirs.data.copy_(ours)
    return lstm


@pytest.mark.parametrize("block", [1, S])
def test_is_torchs_lstm_with_open_forget_gates_on_another_scale(parity, block):
    cell, x = randomise(LSTM1997Cell(X, D, block=block)), double(B, N, X)
    start = LSTM1997State(double(B, D), double(B, D), torch.zeros(B, 2 * D // block, dtype=F64))
    ours, last = unroll(cell, x, start)
    lstm = with_open_forget_gates(cell)
    theirs, (_, c) = lstm(x, (start.h[None], start.c[None] / 2))
    what = "forget gates open" if block == 1 else f"forget gates open, blocks of {block}"
    parity("LSTM of 1997", "torch.nn.LSTM", what, (ours, last.c), (theirs, 2 * c[0]))
    lstm.bias_ih_l0.data.view(4, D)[1] = 1.0
    assert_differs(ours, lstm(x, (start.h[None], start.c[None] / 2))[0])


def test_with_the_forget_gate_of_2000_open_it_is_the_modern_cell():
    old, new = randomise(LSTM1997Cell(X, D)), LSTMCell(X, D, forget_bias=1000.0).double()
    with torch.no_grad():
        for mine, its in zip(new.parameters(), old.parameters(), strict=True):
            y_in, y_out, g = its.split(D)
            mine.copy_(torch.cat([y_in, mine[D : 2 * D], g / 2, y_out]))
    x = double(B, N, X)
    assert_same(unroll(new, x)[0], unroll(old, x)[0])


# error


def carousel(cell, n=100):
    """The derivative of the memory after n steps with respect to that at the start."""
    x, (h, c, gates) = double(1, n, X), cell.start(double(1, X))

    def run(c):
        return unroll(cell, x, LSTM1997State(h, c, gates))[1].c

    return torch.autograd.functional.jacobian(run, c)[0, :, 0]


def test_the_truncated_error_of_a_memory_is_constant():
    truncated, whole = (randomise(LSTM1997Cell(X, D, truncated=cut)) for cut in (True, False))
    assert torch.equal(carousel(truncated), torch.eye(D, dtype=F64))
    assert_differs(carousel(whole), torch.eye(D, dtype=F64))


def test_truncation_changes_no_output():
    truncated, whole = (randomise(LSTM1997Cell(X, D, truncated=cut)) for cut in (True, False))
    x = double(B, N, X)
    assert torch.equal(unroll(truncated, x)[0], unroll(whole, x)[0])


def test_truncated_error_still_leaves_through_the_inputs_of_its_step():
    cell, x = randomise(LSTM1997Cell(X, D, truncated=True)), double(B, 1, X).requires_grad_()
    unroll(cell, x)[0].sum().backward()
    assert (x.grad.abs() > 0).all()


def carried_forwards(cell, x, errors):
    """Appendix A.1: for each memory the derivatives by the weights of its input gate and its own, step by step.

    Gradients of the sum of errors * h for (k, k, d) rows and columns (inputs, h of the last step, 1).
    """
    k, s = D // cell.block, cell.block
    W = torch.cat([cell.input.weight, cell.hidden.weight, cell.input.bias[:, None]], 1)
    gradient = torch.zeros_like(W)
    for row, error in zip(x, errors):
        h, c = torch.zeros(D, dtype=F64), torch.zeros(D, dtype=F64)
        by_gate = torch.zeros(D, W.shape[1], dtype=F64)
        by_cell = torch.zeros(D, W.shape[1], dtype=F64)
        for x_t, e in zip(row, error):
            z = torch.cat([x_t, h, torch.ones(1, dtype=F64)])
            net = W @ z
            for v in range(D):
                j = v // s
                y_in, y_out, g = net[j].sigmoid(), net[k + j].sigmoid(), net[2 * k + v].sigmoid()
                by_gate[v] += y_in * (1 - y_in) * (4 * g - 2) * z
                by_cell[v] += y_in * 4 * g * (1 - g) * z
                c[v] += y_in * (4 * g - 2)
                squashed = c[v].sigmoid()
                h[v] = y_out * (2 * squashed - 1)
                slope = 2 * squashed * (1 - squashed)
                gradient[j] += e[v] * y_out * slope * by_gate[v]
                gradient[2 * k + v] += e[v] * y_out * slope * by_cell[v]
                gradient[k + j] += e[v] * (2 * squashed - 1) * y_out * (1 - y_out) * z
    return gradient


def gradient_of(cell, x, errors):
    cell.zero_grad()
    (unroll(cell, x)[0] * errors).sum().backward()
    return torch.cat([cell.input.weight.grad, cell.hidden.weight.grad, cell.input.bias.grad[:, None]], 1)


@torch.no_grad()
def reference(cell, x, errors):
    return carried_forwards(cell, x, errors)


def test_the_truncated_gradient_is_what_the_paper_carries_forwards(parity):
    truncated, whole = (randomise(LSTM1997Cell(X, D, block=S, truncated=cut)) for cut in (True, False))
    x, errors = double(B, N, X), double(B, N, D)
    forwards = reference(truncated, x, errors)
    ours = gradient_of(truncated, x, errors)
    parity("LSTM of 1997", "the equations, with loops", "truncated gradient, carried forwards", ours, forwards)
    assert_differs(gradient_of(whole, x, errors), forwards)


@pytest.mark.parametrize("feed_gates", [False, True])
def test_gradients(feed_gates):
    cell = randomise(LSTM1997Cell(2, 4, block=2, feed_gates=feed_gates))
    state = [double(B, 4), double(B, 4), double(B, 4)]
    inputs = [tensor.requires_grad_() for tensor in (double(B, 2), *state)]
    assert torch.autograd.gradcheck(lambda x, *state: cell(x, state), inputs)


def test_gates_that_are_fed_back_are_cut_as_well():
    cell = randomise(LSTM1997Cell(X, D, block=S, feed_gates=True, truncated=True))
    assert torch.equal(carousel(cell), torch.eye(D, dtype=F64))
    state = [double(B, D), double(B, D), double(B, 2 * D // S)]
    h, c, gates = (part.requires_grad_() for part in state)
    unroll(cell, double(B, N, X), LSTM1997State(h, c, gates))[0].sum().backward()
    assert c.grad.all()
    assert h.grad is None
    assert gates.grad is None


# start


def test_the_starts():
    cell = LSTM1997Cell(X, D, block=S, input_bias=-3.0, output_bias=-1.0)
    bias = cell.input.bias
    assert bias[:2].tolist() == [-3, -3]
    assert bias[2:4].tolist() == [-1, -1]
    for tensor in (bias[4:], cell.input.weight, cell.hidden.weight):
        assert 0.05 < tensor.abs().max() <= 0.1
    assert LSTM1997Cell(X, D, bias=False).input.bias is None


def test_an_input_acts_within_its_step():
    cell, x = randomise(LSTM1997Cell(X, D)), double(B, 1, X)
    assert_differs(unroll(cell, x)[0], unroll(cell, x + 1)[0])


def test_blocks_have_fewer_weights():
    def numel(**arguments):
        return sum(p.numel() for p in LSTM1997Cell(X, D, **arguments).parameters())

    assert numel() == 3 * D * (X + D + 1)
    assert numel(block=S) == (D + 2 * D // S) * (X + D + 1)
    assert numel(block=S, feed_gates=True) == (D + 2 * D // S) * (X + D + 2 * D // S + 1)
    assert numel(bias=False) == 3 * D * (X + D)


def test_layers_and_lengths_work_as_for_every_cell():
    cell, x = randomise(LSTM1997Cell(X, D, block=S, feed_gates=True)), double(3, N, X)
    outputs, last = unroll(cell, x, lengths=torch.tensor([4, 7, 1]))
    for row, n in enumerate([4, 7, 1]):
        alone, state = unroll(cell, x[row : row + 1, :n])
        assert_same(outputs[row, :n], alone[0])
        assert_same(last.gates[row], state.gates[0])
    assert isinstance(last, LSTM1997State)


@pytest.mark.parametrize("block", [0, 3, -2])
def test_blocks_must_fit(block):
    with pytest.raises(ValueError, match=rf"d=10 must be a multiple of block={block}"):
        LSTM1997Cell(X, D, block=block)


def test_torch_has_no_kernel_for_it():
    with pytest.raises(TypeError, match="cell=LSTM1997Cell has no kernel in torch"):
        fused(LSTM1997Cell(X, D), torch.randn(B, N, X))
