"""Layers against torch's LSTM and GRU; dropout between them; a stack of cells against layers one after the other."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.fused import fused
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.gru import from_torch as gru_from_torch
from papercode.recurrent.layers import Recurrent, Stack
from papercode.recurrent.lstm import LSTMCell, LSTMState
from papercode.recurrent.lstm import from_torch as lstm_from_torch
from papercode.recurrent.unroll import Cell, each, select, shown, unroll

B, N, X, D = 5, 7, 3, 11
LENGTHS = torch.tensor([4, 6, 1, 6, 2])  # none is n
F64 = torch.float64
runs = pytest.mark.parametrize("run", [unroll, fused])


def double(*shape):
    return torch.randn(*shape, dtype=F64)


def tensors(state):
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in tensors(part)]


# against torch


KINDS = {"LSTM": (nn.LSTM, lstm_from_torch), "GRU, reset after the product": (nn.GRU, gru_from_torch)}
CONFIGURATIONS = {
    "1 layer": {},
    "3 layers": {"num_layers": 3},
    "3 layers, no biases": {"num_layers": 3, "bias": False},
    "bidirectional": {"bidirectional": True},
    "2 layers, bidirectional": {"num_layers": 2, "bidirectional": True},
}


def both_with_gradients(kind, arguments, run, lengths, given):
    """[outputs, last states, gradients by input, starts and parameters] of ours and of torch's."""
    make, taken = KINDS[kind]
    theirs = randomise(make(X, D, batch_first=True, **arguments))
    ours = taken(theirs, run=run)
    x, cells = double(B, N, X), len(ours.cells)
    h, c = double(cells, B, D), double(cells, B, D)
    of_outputs, of_last = double(B, N, ours.width), double(2, cells, B, D)
    results = []
    for mine in (True, False):
        x, h, c = (tensor.detach().clone().requires_grad_() for tensor in (x, h, c))
        sources = [x, h, c] if kind == "LSTM" else [x, h]
        if mine:
            states = list(map(LSTMState, h, c)) if kind == "LSTM" else list(h)
            outputs, last = ours(x, states if given else None, lengths=lengths)
            last = [torch.stack(part) for part in zip(*last)] if kind == "LSTM" else [torch.stack(last)]
        else:
            start = ((h, c) if kind == "LSTM" else h) if given else None
            inputs = x if lengths is None else pack_padded_sequence(x, lengths, True, enforce_sorted=False)
            outputs, last = theirs(inputs, start)
            if lengths is not None:
                outputs, _ = pad_packed_sequence(outputs, True, total_length=N)
            last = tensors(last)
        loss = (outputs * of_outputs).sum() + sum((part * weight).sum() for part, weight in zip(last, of_last))
        loss.backward()
        results.append([outputs, *last, *(source.grad for source in sources if given or source is x)])
    for cell, (of_x, of_h, *biases) in zip(ours.cells, theirs.all_weights, strict=True):
        results[0] += [cell.input.weight.grad, cell.hidden.weight.grad]
        results[1] += [of_x.grad, of_h.grad]
        if biases:
            results[0] += [cell.input.bias.grad]
            results[1] += [biases[0].grad]
            if kind != "LSTM":
                results[0] += [cell.reset_bias.grad]
                results[1] += [biases[1].grad[2 * D :]]
    return results


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "starts"])
@runs
def test_equals_torch(parity, kind, configuration, lengths, given, run):
    ours, theirs = both_with_gradients(kind, CONFIGURATIONS[configuration], run, lengths, given)
    what = configuration + ", variable lengths" * (lengths is not None) + ", given states" * given
    reference = f"torch.nn.{KINDS[kind][0].__name__}"
    parity(f"{kind}, by {run.__name__}", reference, f"{what}; gradients too", ours, theirs)


@runs
def test_the_controls_beside_it(run):
    theirs = randomise(nn.LSTM(X, D, 2, batch_first=True, bidirectional=True))
    ours, x, h, c = lstm_from_torch(theirs, run=run), double(B, N, X), double(4, B, D), double(4, B, D)
    right, _ = theirs(x, (h, c))
    states = list(map(LSTMState, h, c))
    assert_same(ours(x, states)[0], right)
    assert_differs(ours(x)[0], right)
    assert_differs(ours(x, states[::-1])[0], right)
    assert_differs(ours(x, [states[0], states[2], states[1], states[3]])[0], right)
    assert_differs(ours(x, states, lengths=LENGTHS)[0], right)
    swapped = copy.deepcopy(ours)
    swapped.cells[0], swapped.cells[1] = swapped.cells[1], swapped.cells[0]
    assert_differs(swapped(x, states)[0], right)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(B, 1, X), (1, N, X)])
@runs
def test_dropout_is_torchs_too(parity, kind, shape, run):
    """With one row or one step both draw the same mask from the same seed."""
    make, taken = KINDS[kind]
    theirs = randomise(make(X, D, 3, batch_first=True, bidirectional=True, dropout=0.4))
    ours, x = taken(theirs, run=run), double(*shape)
    torch.manual_seed(1)
    right, _ = theirs(x)
    torch.manual_seed(1)
    mine, _ = ours(x)
    what = f"3 layers, bidirectional, dropout 0.4, {'one step' if shape[1] == 1 else 'one row'}"
    parity(f"{kind}, by {run.__name__}", f"torch.nn.{make.__name__}", what, mine, right)
    assert_differs(ours(x)[0], right)


# layers


class Sum(Cell):
    """Adds up what it sees, as often as it is wide."""

    def __init__(self, i, d=1):
        super().__init__()
        self.width = d

    def start(self, x):
        return x.new_zeros(len(x), self.width)

    def step(self, projected, state):
        return state + projected.sum(-1, keepdim=True)


def test_by_hand():
    """Both directions of running sums, then running sums of both."""
    x = torch.tensor([1.0, 2, 4])[None, :, None]
    outputs, last = Recurrent(Sum, 1, bidirectional=True)(x)
    assert outputs[0].tolist() == [[1, 7], [3, 6], [7, 4]]
    assert [state.item() for state in last] == [7, 7]
    outputs, last = Recurrent(Sum, 1, 2, bidirectional=True)(x)
    assert outputs[0].tolist() == [[8, 28], [17, 20], [28, 11]]
    assert [state.item() for state in last] == [7, 7, 28, 28]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_widths(bidirectional):
    asked = []

    def make(i):
        asked.append(i)
        return LSTMCell(i, D)

    layers = Recurrent(make, X, 3, bidirectional=bidirectional)
    directions = 1 + bidirectional
    assert asked == [width for width in (X, directions * D, directions * D) for _ in range(directions)]
    assert layers.width == directions * D
    outputs, last = layers(torch.randn(B, N, X))
    assert outputs.shape == (B, N, layers.width)
    assert len(last) == len(layers.cells) == 3 * directions


def test_directions_may_have_different_widths():
    cells = iter([LSTMCell(X, 2), LSTMCell(X, 3), LSTMCell(5, 7), LSTMCell(5, 11)])
    layers = Recurrent(lambda i: next(cells), X, 2, bidirectional=True)
    assert layers(torch.randn(B, N, X))[0].shape == (B, N, layers.width) == (B, N, 18)


def test_padding_does_not_leak_through_the_layers():
    layers, x = randomise(Recurrent(partial(LSTMCell, d=D), X, 2, bidirectional=True)), double(B, N, X)
    keep = torch.arange(N) < LENGTHS[:, None]
    other = torch.where(keep[..., None], x, torch.nan)
    assert torch.equal(layers(x, lengths=LENGTHS)[0], layers(other, lengths=LENGTHS)[0])
    assert not layers(x, lengths=LENGTHS)[0][~keep].any()
    assert_differs(layers(x)[0], layers(torch.where(keep[..., None], x, 0))[0])


@pytest.mark.parametrize("n_layers", [1, 3])
def test_dropout_lies_between_layers_and_only_in_training(n_layers):
    layers = randomise(Recurrent(partial(GRUCell, d=D), X, n_layers, dropout=0.5))
    x, h = double(B, N, X), None
    torch.manual_seed(1)
    mine, _ = layers(x)
    torch.manual_seed(1)
    h = x
    for depth, cell in enumerate(layers.cells):
        h, _ = unroll(cell, h)
        if depth + 1 < n_layers:
            h = nn.functional.dropout(h, 0.5)
    assert torch.equal(mine, h)
    layers.eval()
    assert torch.equal(layers(x)[0], layers(x)[0])
    if n_layers > 1:
        assert_differs(layers(x)[0], mine)


def test_everything_dropped_is_a_layer_without_input():
    layers, x = randomise(Recurrent(partial(LSTMCell, d=D), X, 2, dropout=1.0)), double(B, N, X)
    assert_same(layers(x)[0], unroll(layers.cells[1], torch.zeros(B, N, D, dtype=F64))[0])


@runs
def test_any_cell_can_be_run_that_the_run_knows(run):
    layers = Recurrent(partial(LSTMCell, d=D), X, 2, run=run)
    assert layers(torch.randn(B, N, X))[0].shape == (B, N, D)
    with pytest.raises(TypeError, match="cell=GRUCell has no kernel"):
        Recurrent(partial(GRUCell, d=D), X, run=fused)(torch.randn(B, N, X))


def test_errors():
    with pytest.raises(ValueError, match="n_layers=0 must be at least 1"):
        Recurrent(partial(LSTMCell, d=D), X, 0)
    layers, x = Recurrent(partial(GRUCell, d=D), X, 2, bidirectional=True), torch.randn(B, N, X)
    with pytest.raises(ValueError, match="3 states for 4 cells: there is one for each layer and direction"):
        layers(x, [torch.zeros(B, D)] * 3)
    with pytest.raises(ValueError, match="cells is empty"):
        Stack([])


# a stack of cells


def some_cells():
    return [randomise(cell) for cell in (LSTMCell(X, 2), GRUCell(2, 5), LSTMCell(5, D))]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_a_stack_is_its_cells_one_after_the_other(lengths, reverse):
    cells, x = some_cells(), double(B, N, X)
    stack = Stack(cells)
    start = each(torch.randn_like, stack.start(x))
    outputs, last = unroll(stack, x, start, lengths=lengths, reverse=reverse)
    h, states = x, []
    for cell, state in zip(cells, reversed(start), strict=True):
        h, state = unroll(cell, h, state, lengths=lengths, reverse=reverse)
        states.append(state)
    assert_same(outputs, h)
    for mine, other in zip(tensors(last), tensors(states[::-1]), strict=True):
        assert_same(mine, other)
    assert stack.width == D
    assert [type(state) for state in last] == [LSTMState, torch.Tensor, LSTMState]
    assert torch.equal(shown(last), last[0].h)
    assert_differs(outputs, unroll(stack, x, lengths=lengths, reverse=reverse)[0])


def test_gradients_of_a_stack_are_those_of_its_cells():
    cells, x = some_cells(), double(B, N, X)
    unroll(Stack(cells), x)[0].square().sum().backward()
    mine = [parameter.grad for cell in cells for parameter in cell.parameters()]
    for cell in cells:
        cell.zero_grad()
    h = x
    for cell in cells:
        h, _ = unroll(cell, h)
    h.square().sum().backward()
    for gradient, cell_gradient in zip(mine, (p.grad for cell in cells for p in cell.parameters()), strict=True):
        assert_same(gradient, cell_gradient)


def test_a_stack_takes_over_from_layers():
    """The last states of an encoder, turned over, start a decoder: lowest first there, highest first here."""
    encoder, x = randomise(Recurrent(partial(LSTMCell, d=D), X, 3)), double(B, N, X)
    _, last = encoder(x)
    stack = Stack(list(encoder.cells))
    more = double(B, 4, X)
    assert_same(unroll(stack, more, last[::-1])[0], encoder(more, last)[0])
    assert_differs(unroll(stack, more, last)[0], encoder(more, last)[0])


def test_a_stack_can_be_stepped_and_its_rows_chosen():
    stack, x = Stack(some_cells()), double(B, 2, X)
    parents = torch.tensor([3, 3, 0, 1, 4])
    state = stack(x[:, 0])
    state = stack(x[:, 1], select(state, parents))
    for row, parent in enumerate(parents):
        alone = stack(x[row : row + 1, 1], stack(x[parent : parent + 1, 0]))
        assert_same(shown(state)[row], shown(alone)[0])


def test_a_stack_projects_all_inputs_at_once():
    cells, calls = some_cells(), []
    cells[0].input.register_forward_hook(lambda module, arguments, output: calls.append(tuple(output.shape)))
    unroll(Stack(cells), double(B, N, X))
    assert calls == [(B, N, 8)]


def test_dropout_in_a_stack_lies_between_cells():
    cells, x = some_cells(), double(B, X)
    stack = Stack(cells, dropout=0.5)
    torch.manual_seed(1)
    mine = stack(x)
    torch.manual_seed(1)
    h, states = x, []
    for depth, cell in enumerate(cells):
        states.append(cell(h))
        h = shown(states[-1])
        if depth < 2:
            h = nn.functional.dropout(h, 0.5)
    for one, other in zip(tensors(mine), tensors(states[::-1]), strict=True):
        assert torch.equal(one, other)
    stack.eval()
    assert torch.equal(shown(stack(x)), shown(Stack(cells)(x)))


def test_a_stack_of_stacks():
    cells, x = some_cells(), double(B, N, X)
    nested = Stack([cells[0], Stack(cells[1:])])
    assert_same(unroll(nested, x)[0], unroll(Stack(cells), x)[0])
