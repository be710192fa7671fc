"""The units of the comparison: torch's, the equations with loops, their sizes, and what of a gradient they carry."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.gated_units import PeepholeLSTMCell, RNNCell, carried, count, match_parameters
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.lstm import LSTMCell, LSTMState
from papercode.recurrent.unroll import unroll

B, N, W_IN, D = 3, 7, 5, 11
F64 = torch.float64


def inputs():
    return torch.randn(B, N, W_IN, dtype=F64), torch.randn(B, D, dtype=F64), torch.randn(B, D, dtype=F64)


def copied(cell, layer):
    """torch's layer with the weights of a cell."""
    layer = layer.double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(cell.input.weight)
        layer.weight_hh_l0.copy_(cell.hidden.weight)
        if layer.bias:
            layer.bias_ih_l0.copy_(cell.input.bias)
            layer.bias_hh_l0.copy_(cell.hidden_bias())
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_tanh_equals_torch(parity, bias):
    cell, (x, h, _) = randomise(RNNCell(W_IN, D, bias=bias)), inputs()
    theirs, last = copied(cell, nn.RNN(W_IN, D, bias=bias, batch_first=True))(x, h[None])
    parity("tanh RNN", "torch.nn.RNN", "biases" if bias else "no biases", [*unroll(cell, x, h)], [theirs, last[0]])
    assert_differs(unroll(cell, x)[0], theirs)
    lengths = torch.tensor([4, 7, 1])
    for reverse in (False, True):
        for one, other in zip(
            fused(cell, x, h, lengths=lengths, reverse=reverse), unroll(cell, x, h, lengths=lengths, reverse=reverse)
        ):
            assert_same(one, other)


def test_without_peepholes_it_is_torchs_lstm(parity):
    cell, (x, h, c) = randomise(PeepholeLSTMCell(W_IN, D)), inputs()
    lstm = copied(cell, nn.LSTM(W_IN, D, batch_first=True))
    theirs, (last_h, last_c) = lstm(x, (h[None], c[None]))
    assert_differs(unroll(cell, x, LSTMState(h, c))[0], theirs)
    cell.peepholes.data.zero_()
    ours, last = unroll(cell, x, LSTMState(h, c))
    parity("peephole LSTM", "torch.nn.LSTM", "peepholes of 0", [ours, *last], [theirs, last_h[0], last_c[0]])


def test_peepholes_equal_the_equations(parity):
    cell, (x, h, c) = randomise(PeepholeLSTMCell(W_IN, D)), inputs()
    W_i, W_f, W_c, W_o = cell.input.weight.chunk(4)
    U_i, U_f, U_c, U_o = cell.hidden.weight.chunk(4)
    b_i, b_f, b_c, b_o = cell.input.bias.chunk(4)
    V_i, V_f, V_o = (torch.diag(row) for row in cell.peepholes)
    expected = torch.empty(B, N, D, dtype=F64)
    memory = torch.empty(B, D, dtype=F64)
    for row in range(B):
        h_t, c_t = h[row], c[row]
        for t in range(N):
            x_t = x[row, t]
            f = torch.sigmoid(W_f @ x_t + U_f @ h_t + V_f @ c_t + b_f)
            i = torch.sigmoid(W_i @ x_t + U_i @ h_t + V_i @ c_t + b_i)
            c_t = f * c_t + i * torch.tanh(W_c @ x_t + U_c @ h_t + b_c)
            o = torch.sigmoid(W_o @ x_t + U_o @ h_t + V_o @ c_t + b_o)
            h_t = o * torch.tanh(c_t)
            expected[row, t] = h_t
        memory[row] = c_t
    ours, last = unroll(cell, x, LSTMState(h, c))
    parity("peephole LSTM", "the equations, with loops", "diagonal peepholes", [ours, last.c], [expected, memory])
    shuffled = cell.peepholes.data[[1, 2, 0]]
    cell.peepholes.data = shuffled
    assert_differs(unroll(cell, x, LSTMState(h, c))[0], expected)


def test_the_papers_gru_is_that_of_2014_with_signs_turned():
    """h = (1 - z) h + z h~: sigmoid(-a) = 1 - sigmoid(a)."""
    cell, (x, h, _) = randomise(GRUCell(W_IN, D)), inputs()
    expected = unroll(cell, x, h)[0]
    (W_r, W_z, W), (U_r, U_z, U) = cell.input.weight.chunk(3), cell.hidden.weight.chunk(3)
    b_r, b_z, b = cell.input.bias.chunk(3)
    state, shown = h, []
    for x_t in x.unbind(1):
        r = torch.sigmoid(x_t @ W_r.T + state @ U_r.T + b_r)
        z = torch.sigmoid(-(x_t @ W_z.T) - state @ U_z.T - b_z)
        state = (1 - z) * state + z * torch.tanh(x_t @ W.T + (r * state) @ U.T + b)
        shown.append(state)
    assert_same(torch.stack(shown, 1), expected)


def test_tanh_by_hand():
    cell = RNNCell(1, 1).double()
    cell.input.weight.data.fill_(2)
    cell.input.bias.data.fill_(0.5)
    cell.hidden.weight.data.fill_(-1)
    h, _ = unroll(cell, torch.tensor([[[0.25], [0.0]]], dtype=F64))
    first = torch.tensor(1.0, dtype=F64).tanh()
    assert_same(h[0, :, 0], torch.stack([first, (0.5 - first).tanh()]))


@pytest.mark.parametrize("make", [RNNCell, PeepholeLSTMCell])
def test_gradients(make):
    cell, (x, *_) = randomise(make(W_IN, D)), inputs()
    assert torch.autograd.gradcheck(lambda x: unroll(cell, x[:, :3])[0], (x.requires_grad_(),))


def test_peepholes_have_no_kernel():
    with pytest.raises(TypeError, match="cell=PeepholeLSTMCell has no kernel in torch"):
        fused(PeepholeLSTMCell(W_IN, D), torch.zeros(B, N, W_IN))


def test_the_start():
    cell = PeepholeLSTMCell(W_IN, 400, forget_bias=2.5)
    assert (cell.input.bias.view(4, 400)[1] == 2.5).all()
    assert 0.9 / 20 < cell.peepholes.abs().max() <= 1 / 20
    for parameter in RNNCell(W_IN, 400).parameters():
        assert 0.9 / 20 < parameter.abs().max() <= 1 / 20
    assert RNNCell(W_IN, D, bias=False).hidden_bias() is None


# sizes


def test_sizes_of_table_1():
    """Speech: 20 inputs. The paper rounds to 169.1, 168.9 and 168.4 thousand."""
    sizes = {195: PeepholeLSTMCell, 227: GRUCell, 400: RNNCell}
    found = {d: count(lambda d, make=make: make(20, d), d) for d, make in sizes.items()}
    assert found == {195: 169_065, 227: 168_888, 400: 168_400}
    assert count(lambda d: LSTMCell(20, d), 195) == 169_065 - 3 * 195


@pytest.mark.parametrize(("make", "d"), [(PeepholeLSTMCell, 195), (GRUCell, 227), (RNNCell, 400)])
def test_the_widths_of_table_1_are_the_best_within_a_budget(make, d):
    assert match_parameters(lambda d: make(20, d), count(lambda d: make(20, d), d)) == d


def test_match_parameters_is_the_closest():
    def make(d):
        return nn.Linear(d, 3, bias=False)

    assert [match_parameters(make, budget) for budget in (2, 3, 4, 5, 6, 7, 100)] == [1, 1, 1, 2, 2, 2, 33]
    for budget in (50, 333, 1000):
        d = match_parameters(lambda d: GRUCell(5, d), budget)
        off = [abs(count(lambda d: GRUCell(5, d), other) - budget) for other in range(1, 40)]
        assert off[d - 1] == min(off)
    with pytest.raises(ValueError, match="budget=1 is too small: a module of width 1 has 3 parameters"):
        match_parameters(make, 1)


# what is carried


def test_carried_equals_jacobians():
    cell, x = randomise(RNNCell(W_IN, 1)), torch.randn(1, N, W_IN, dtype=F64)  # one unit: g is 1 or -1
    found = carried(cell, x, range(1, N + 1))
    product, h = 1.0, torch.zeros(1, 1, dtype=F64)
    for t in range(N):
        h = cell(x[:, t], h)
        product *= abs((1 - h.item() ** 2) * cell.hidden.weight.item())
        assert found[t].item() == pytest.approx(product, rel=1e-9)


def test_carried_counts_the_memory():
    """Gates at 1, nothing new: h is tanh(c), and c is what it was."""
    cell, x = randomise(PeepholeLSTMCell(W_IN, D)), torch.zeros(B, 30, W_IN, dtype=F64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.input.bias[D : 2 * D], cell.input.bias[3 * D :], cell.input.bias[:D] = 1e4, 1e4, -1e4
    assert_same(carried(cell, x, [1, 30]), torch.ones(2, dtype=F64))


@pytest.mark.parametrize("seed", range(3))
def test_gates_carry_a_gradient_if_they_stand_open(seed):
    torch.manual_seed(seed)
    x = torch.randn(4, 100, 20)
    budget = count(lambda d: RNNCell(20, d), 60)
    width = {make: match_parameters(lambda d, make=make: make(20, d), budget) for make in (GRUCell, PeepholeLSTMCell)}
    gru = GRUCell(20, width[GRUCell])
    assert carried(RNNCell(20, 60), x, [100]) < 1e-10
    assert carried(gru, x, [100]) < 1e-10  # a gate that stands half open is no better
    gru.input.bias.data[width[GRUCell] : 2 * width[GRUCell]] += 5
    assert carried(gru, x, [100]) > 0.2
    assert carried(PeepholeLSTMCell(20, width[PeepholeLSTMCell], forget_bias=5.0), x, [100]) > 0.2


@pytest.mark.parametrize("t", [0, 8])
def test_steps_that_are_not_there(t):
    with pytest.raises(ValueError, match=rf"at=\[2, {t}\] must be steps from 1 to n=7"):
        carried(RNNCell(W_IN, D), torch.zeros(B, N, W_IN), [2, t])
