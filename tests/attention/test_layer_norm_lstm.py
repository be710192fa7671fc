"""Layer-normalised cells: their equations with loops, torch's LSTM without the norms, and what they are blind to."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.layer_norm_lstm import LayerNormLSTMCell, LayerNormRNNCell
from papercode.recurrent.unroll import each, shown, unroll

B, X, D, STEPS = 2, 3, 5, 4


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def normalised(z, norm):
    """LN(z; α, β) of the supplementary material on a list of numbers, with ε."""
    mean = sum(z) / len(z)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in z) / len(z) + norm.eps)
    return [(v - mean) / deviation * a + b for v, a, b in zip(z, norm.gain.tolist(), norm.bias.tolist())]


def product(W, x):
    return [sum(w * value for w, value in zip(row, x)) for row in W.tolist()]


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def step_by_loops(cell, x, h, c):
    of_h = normalised(product(cell.hidden.weight, h), cell.norm_hidden)
    of_x = normalised(product(cell.input.weight, x), cell.norm_input)
    f, i, o, g = torch.tensor([a + b + e for a, b, e in zip(of_h, of_x, cell.bias.tolist())]).view(4, D).tolist()
    c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(D)]
    memory = normalised(c, cell.norm_memory)
    return [sigmoid(o[k]) * math.tanh(memory[k]) for k in range(D)], c


def after(cell, xs, state=None):
    """The state after the steps, one by one."""
    for x in xs:
        state = cell(x, state)
    return state


@pytest.fixture
def cell():
    return randomise(LayerNormLSTMCell(X, D))


@pytest.mark.parametrize("start", ["zeros", "a state"])
def test_equals_the_equations(cell, start, parity):
    torch.set_default_dtype(torch.float64)  # for the lists
    xs, state = double(STEPS, B, X), None if start == "zeros" else (double(B, D), double(B, D))
    rows = []
    for example in range(B):
        h, c = ([0.0] * D, [0.0] * D) if state is None else (part[example].tolist() for part in state)
        for x in xs:
            h, c = step_by_loops(cell, x[example].tolist(), h, c)
        rows.append([h, c])
    expected = torch.tensor(rows).transpose(0, 1)
    ours = after(cell, xs, state)
    parity("LayerNormLSTMCell", "the equations, with loops", f"{STEPS} steps from {start}", ours, list(expected))
    assert_differs(after(cell, xs[:-1], state)[0], expected[0])


def test_without_its_norms_it_is_torchs_lstm(cell, parity):
    """Whose gates stand in the order i, f, g, o, and whose two biases are one."""
    for name in ("norm_hidden", "norm_input", "norm_memory"):
        assert_differs(
            cell(x := double(B, X), state := (double(B, D), double(B, D)))[0], without(cell, name)(x, state)[0]
        )
        cell = without(cell, name)
    theirs = nn.LSTMCell(X, D).double()
    order = [1, 0, 3, 2]  # f, i, o, g to i, f, g, o

    def reordered(tensor):
        return tensor.detach().unflatten(0, (4, D))[order].flatten(0, 1)

    theirs.load_state_dict(
        {
            "weight_hh": reordered(cell.hidden.weight),
            "weight_ih": reordered(cell.input.weight),
            "bias_hh": reordered(cell.bias),
            "bias_ih": torch.zeros(4 * D),
        }
    )
    xs, state = double(STEPS, B, X), (double(B, D), double(B, D))
    configuration = f"the norms replaced by nothing, {STEPS} steps"
    parity("LayerNormLSTMCell", "torch.nn.LSTMCell", configuration, after(cell, xs, state), after(theirs, xs, state))
    theirs.bias_ih.data += 0.1
    assert_differs(after(cell, xs, state)[0], after(theirs, xs, state)[0])


def without(cell, name):
    new = LayerNormLSTMCell(X, D).double()
    for other in ("norm_hidden", "norm_input", "norm_memory"):
        setattr(new, other, getattr(cell, other) if other != name else nn.Identity())
    new.hidden, new.input, new.bias = cell.hidden, cell.input, cell.bias
    return new


@pytest.mark.parametrize(("activation", "function"), [(None, math.tanh), (nn.ReLU(), lambda a: max(a, 0.0))])
def test_the_plain_cell_equals_equation_4(activation, function, parity):
    cell = randomise(LayerNormRNNCell(X, D, activation=activation))
    xs = double(STEPS, B, X)
    rows = []
    for example in range(B):
        h = [0.0] * D
        for x in xs:
            of_h, of_x = product(cell.hidden.weight, h), product(cell.input.weight, x[example].tolist())
            h = [function(a) for a in normalised([a + b for a, b in zip(of_h, of_x)], cell.norm)]
        rows.append(h)
    name = "tanh" if activation is None else "ReLU"
    ours, expected = after(cell, xs), torch.tensor(rows, dtype=torch.float64)
    parity("LayerNormRNNCell", "the equations, with loops", f"{STEPS} steps, {name}", ours, expected)
    assert_differs(after(cell, xs[1:]), expected)


def test_the_first_step_needs_an_epsilon(cell):
    """h = 0 makes all of LN's input zero, and its deviation."""
    x = double(B, X)
    assert all(part.isfinite().all() for part in cell(x))
    cell.norm_hidden.eps = 0.0
    assert cell(x)[0].isnan().all()


def test_start():
    torch.manual_seed(0)
    cell = LayerNormLSTMCell(30, 100)
    for norm in (cell.norm_hidden, cell.norm_input, cell.norm_memory):
        assert (norm.gain == 1).all()
        assert (norm.bias == 0).all()
    assert (cell.bias == 0).all()
    for weight in (cell.hidden.weight, cell.input.weight, LayerNormRNNCell(30, 100).hidden.weight):
        assert 0.099 < weight.max() <= 0.1
        assert -0.1 <= weight.min() < -0.099
    assert [tuple(p.shape) for p in (cell.hidden.weight, cell.input.weight)] == [(400, 100), (400, 30)]


def test_as_printed_the_gates_would_not_see_anything(cell):
    """Gains 0 and biases 1."""
    for norm in (cell.norm_hidden, cell.norm_input, cell.norm_memory):
        norm.gain.data.zero_()
        norm.bias.data.fill_(1)
    assert_same(cell(double(B, X))[0], cell(double(B, X))[0])


def test_blind_to_the_scale_of_either_matrix_and_of_the_input(cell):
    cell.norm_hidden.eps = cell.norm_input.eps = 1e-18
    x, state = double(B, X), (double(B, D), double(B, D))
    y = cell(x, state)
    for thing in (cell.hidden.weight, cell.input.weight, x):
        thing.data *= 7
        assert all(torch.allclose(*pair) for pair in zip(cell(x, state), y))
    assert_differs(cell(x, (state[0], 7 * state[1]))[0], y[0])
    # the plain cell has one norm for both, and so both matrices must be scaled together
    plain, h = randomise(LayerNormRNNCell(X, D)), double(B, D)
    plain.norm.eps = 1e-18
    y = plain(x, h)
    plain.hidden.weight.data *= 7
    assert_differs(plain(x, h), y)
    plain.input.weight.data *= 7
    assert_same(plain(x, h), y)


def test_the_memory_is_handed_on_unnormalised(cell):
    x, (h, c) = double(B, X), (double(B, D), double(B, D))
    cell.bias.data[:D] = 100.0  # remember everything
    cell.bias.data[D : 2 * D] = -100.0  # and take in nothing
    assert_same(cell(x, (h, c))[1], c)


def test_neither_the_batch_nor_the_mode_matters(cell):
    x, state = double(B, X), (double(B, D), double(B, D))
    alone = cell.eval()(x[1:], tuple(part[1:] for part in state))
    assert all(torch.allclose(a, b[1:]) for a, b in zip(alone, cell.train()(x, state)))


def test_gradients(cell):
    inputs = [double(B, width).requires_grad_() for width in (X, D, D)]
    assert torch.autograd.gradcheck(lambda x, h, c: cell(x, (h, c)), inputs)


def test_errors():
    x, h = torch.zeros(B, X), torch.zeros(B, D)
    with pytest.raises(ValueError, match="x is 4 wide, this cell was made for 3"):
        LayerNormLSTMCell(X, D)(torch.zeros(B, 4))
    with pytest.raises(ValueError, match="h is 7 wide, this cell was made for 5"):
        LayerNormRNNCell(X, D)(x, torch.zeros(B, 7))
    with pytest.raises(ValueError, match="c is 7 wide, this cell was made for 5"):
        LayerNormLSTMCell(X, D)(x, (h, torch.zeros(B, 7)))


@pytest.mark.parametrize("make", [LayerNormLSTMCell, LayerNormRNNCell])
def test_unrolled_it_is_the_steps_one_by_one(make):
    """The input's products, and their norm, for all steps at once."""
    cell, x = randomise(make(X, D)), double(B, STEPS, X)
    outputs, last = unroll(cell, x)
    expected = after(cell, x.unbind(1))
    each(assert_same, last, expected)
    assert_same(outputs[:, 1], shown(after(cell, x[:, :2].unbind(1))))
    assert_differs(outputs[:, 1], shown(expected))
