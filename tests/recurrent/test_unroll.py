"""The loop under all cells: by hand, step by step, padded, backwards, with states of any shape."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.layers import Stack
from papercode.recurrent.lstm import LSTMCell, LSTMState
from papercode.recurrent.unroll import Cell, check, each, pack, select, shown, stepping, unroll

B, N, X, D = 5, 7, 3, 11
LENGTHS = torch.tensor([4, 7, 1, 6, 4])
F64 = torch.float64


def double(*shape):
    return torch.randn(*shape, dtype=F64)


def deep():
    return Stack([LSTMCell(X, 2), GRUCell(2, D)])


def a_cell(make):
    return randomise(make())


cells = pytest.mark.parametrize(
    "make", [lambda: LSTMCell(X, D), lambda: GRUCell(X, D), deep], ids=["lstm", "gru", "deep"]
)
directions = pytest.mark.parametrize("reverse", [False, True])


def add(x, total):
    return total + x


def column(*values):
    return torch.tensor(values, dtype=F64)[None, :, None]


def leaves(state):
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in leaves(part)]


# the loop


def test_by_hand():
    start = torch.zeros(1, 1, dtype=F64)
    outputs, last = unroll(add, column(1, 2, 4), start)
    assert outputs.flatten().tolist() == [1, 3, 7]
    assert last.item() == 7
    outputs, last = unroll(add, column(1, 2, 4), start + 10, reverse=True)
    assert outputs.flatten().tolist() == [17, 16, 14]
    assert last.item() == 17


@cells
def test_is_the_cell_called_step_by_step(make):
    cell, x = a_cell(make), double(B, N, X)
    state, expected = cell.start(x), []
    for t in range(N):
        state = cell(x[:, t], state)
        expected.append(shown(state))
    outputs, last = unroll(cell, x)
    assert_same(outputs, torch.stack(expected, 1))
    for mine, other in zip(leaves(last), leaves(state), strict=True):
        assert_same(mine, other)
    assert_differs(outputs, unroll(cell, x.flip(1))[0])


@cells
def test_a_first_step_without_a_state_is_one_from_the_start(make):
    cell, x = a_cell(make), double(B, X)
    for mine, other in zip(leaves(cell(x)), leaves(cell(x, cell.start(x))), strict=True):
        assert torch.equal(mine, other)


@cells
def test_backwards_is_forwards_on_the_reversed_sequence(make):
    cell, x = a_cell(make), double(B, N, X)
    start = each(torch.randn_like, cell.start(x))
    outputs, last = unroll(cell, x, start, reverse=True)
    flipped, other = unroll(cell, x.flip(1), start)
    assert_same(outputs, flipped.flip(1))
    assert_same(shown(last), shown(other))
    assert_differs(outputs, unroll(cell, x, start)[0])


@cells
def test_may_be_interrupted(make):
    cell, x = a_cell(make), double(B, N, X)
    whole, last = unroll(cell, x)
    first, state = unroll(cell, x[:, :3])
    second, again = unroll(cell, x[:, 3:], state)
    assert_same(torch.cat([first, second], 1), whole)
    assert_same(shown(again), shown(last))


def test_what_needs_the_input_alone_is_computed_once():
    cell, calls = a_cell(lambda: LSTMCell(X, D)), []
    cell.input.register_forward_hook(lambda module, arguments, output: calls.append(output.shape))
    unroll(cell, double(B, N, X))
    assert calls == [(B, N, 4 * D)]
    unroll(cell, double(B, N, X), lengths=LENGTHS)
    assert calls[1:] == [(LENGTHS.sum(), 4 * D)]


def test_a_cell_that_projects_nothing_gets_the_input():
    class Sum(Cell):
        width = X

        def start(self, x):
            return x.new_zeros(len(x), X)

        def step(self, projected, state):
            return projected + state

    x = double(B, N, X)
    assert_same(unroll(Sum(), x)[0], x.cumsum(1))


def test_an_unfinished_cell_says_so():
    with pytest.raises(NotImplementedError):
        Cell().start(double(B, X))
    with pytest.raises(NotImplementedError):
        Cell().step(double(B, X), double(B, D))


# lengths


@cells
@directions
def test_each_row_is_what_it_is_alone(make, reverse):
    cell, x = a_cell(make), double(B, N, X)
    start = each(torch.randn_like, cell.start(x))
    outputs, last = unroll(cell, x, start, lengths=LENGTHS, reverse=reverse)
    for row, n in enumerate(LENGTHS.tolist()):
        this = slice(row, row + 1)
        alone, state = unroll(cell, x[this, :n], select(start, this), reverse=reverse)
        assert_same(outputs[this, :n], alone)
        assert not outputs[row, n:].any()
        for mine, other in zip(leaves(select(last, this)), leaves(state), strict=True):
            assert_same(mine, other)
    assert_differs(outputs, unroll(cell, x, start, reverse=reverse)[0])


@cells
@directions
def test_padding_is_never_touched(make, reverse):
    """Not even as 0 times it: NaN there reaches neither an output nor a gradient."""
    cell, x = a_cell(make), double(B, N, X)
    keep = torch.arange(N) < LENGTHS[:, None]
    expected, _ = unroll(cell, x, lengths=LENGTHS, reverse=reverse)
    x[~keep] = torch.nan
    x.requires_grad_()
    outputs, last = unroll(cell, x, lengths=LENGTHS, reverse=reverse)
    assert torch.equal(outputs, expected)
    (outputs.sum() + sum(leaf.sum() for leaf in leaves(last))).backward()
    assert not x.grad[~keep].any()
    assert x.grad[keep].all()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


@directions
def test_only_real_steps_are_computed(reverse):
    seen = []

    def counting(x, state):
        seen.append(len(x))
        return state + x

    unroll(counting, double(B, N, X), double(B, X), lengths=LENGTHS, reverse=reverse)
    assert seen == ([5, 4, 4, 4, 2, 2, 1][::-1] if reverse else [5, 4, 4, 4, 2, 2, 1])
    assert sum(seen) == LENGTHS.sum()


@directions
def test_full_lengths_change_nothing(reverse):
    cell, x = a_cell(lambda: LSTMCell(X, D)), double(B, N, X)
    for mine, other in zip(
        leaves(unroll(cell, x, lengths=torch.full((B,), N), reverse=reverse)),
        leaves(unroll(cell, x, reverse=reverse)),
        strict=True,
    ):
        assert_same(mine, other)


@directions
def test_the_order_of_the_rows_does_not_matter(reverse):
    cell, x, order = a_cell(lambda: LSTMCell(X, D)), double(B, N, X), torch.tensor([3, 0, 4, 2, 1])
    outputs, last = unroll(cell, x, lengths=LENGTHS, reverse=reverse)
    permuted, other = unroll(cell, x[order], lengths=LENGTHS[order], reverse=reverse)
    assert_same(permuted, outputs[order])
    assert_same(other.c, last.c[order])


@directions
def test_gradients_with_lengths(reverse):
    cell = a_cell(lambda: LSTMCell(2, 3))
    state = (double(2, 3).requires_grad_(), double(2, 3).requires_grad_())

    def run(x, h, c, *_):
        outputs, last = unroll(cell, x, LSTMState(h, c), lengths=torch.tensor([2, 4]), reverse=reverse)
        return outputs, *last

    assert torch.autograd.gradcheck(run, (double(2, 4, 2).requires_grad_(), *state, *cell.parameters()))


def test_rows_shorter_than_all_steps():
    """No row reaches n: the outputs have n steps all the same."""
    outputs, _ = unroll(add, double(2, N, X), double(2, X), lengths=torch.tensor([2, 3]))
    assert outputs.shape == (2, N, X)
    assert not outputs[:, 3:].any()


def test_lengths_may_be_of_any_integer_type():
    x, state = double(B, N, X), double(B, X)
    for dtype in (torch.int32, torch.int8):
        assert torch.equal(
            unroll(add, x, state, lengths=LENGTHS.to(dtype))[0], unroll(add, x, state, lengths=LENGTHS)[0]
        )


def test_pack_sorts_the_rows_and_drops_the_padding():
    packed = pack(torch.tensor([[1.0, 2, 0], [4, 5, 6]])[..., None], torch.tensor([2, 3]))
    assert packed.data.flatten().tolist() == [4, 1, 5, 2, 6]
    assert packed.batch_sizes.tolist() == [2, 2, 1]


# states


class Named(NamedTuple):
    h: Tensor
    deep: tuple


def nested(b=B):
    return Named(double(b, X), (LSTMState(double(b, 2), double(b, 3)), (double(b, 4),)))


def growing(x, state):
    h, (inner, (last,)) = state
    return Named(h + x, (LSTMState(inner.h + 1, inner.c * 2), (last - 1,)))


def same_shape(a, b):
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        return a.shape == b.shape
    return len(a) == len(b) and all(same_shape(x, y) for x, y in zip(a, b))


@directions
def test_states_may_be_nested_and_named(reverse):
    x, start = double(B, N, X), nested()
    outputs, last = unroll(growing, x, start, lengths=LENGTHS, reverse=reverse)
    assert same_shape(last, start)
    n = LENGTHS[:, None]
    assert_same(last.deep[0].h, start.deep[0].h + n)
    assert_same(last.deep[0].c, start.deep[0].c * 2**n)
    assert_same(last.deep[1][0], start.deep[1][0] - n)
    keep = torch.arange(N) < n
    assert_same(last.h, start.h + (x * keep[..., None]).sum(1))
    assert outputs.shape == x.shape


def whole(state):
    return state


@directions
def test_emit_says_what_is_kept_of_each_step(reverse):
    x, start = double(B, N, X), nested()
    kept, last = unroll(growing, x, start, lengths=LENGTHS, reverse=reverse, emit=whole)
    assert type(kept) is Named
    assert type(kept.deep[0]) is LSTMState
    assert kept.deep[1][0].shape == (B, N, 4)
    final = 0 if reverse else LENGTHS - 1
    for mine, other in zip(leaves(kept), leaves(last), strict=True):
        assert_same(mine[torch.arange(B), final], other)
        assert not mine[2, 1:].any()
    plain, _ = unroll(growing, x, start, reverse=reverse, emit=lambda state: state.deep[0].h)
    steps = torch.arange(N, 0, -1) if reverse else torch.arange(1, N + 1)
    assert_same(plain, start.deep[0].h[:, None] + steps[:, None])


def test_what_is_shown_is_the_first_tensor():
    state = nested()
    assert shown(state) is state.h
    assert shown(((state, state.h),)) is state.h
    assert shown(state.h) is state.h


def test_each_goes_through_states_of_the_same_shape():
    a, b = nested(), nested()
    both = each(torch.add, a, b)
    assert same_shape(both, a)
    assert torch.equal(both.deep[0].c, a.deep[0].c + b.deep[0].c)
    assert torch.equal(both.deep[1][0], a.deep[1][0] + b.deep[1][0])
    with pytest.raises(ValueError, match="shorter"):
        each(torch.add, (a.h, a.h), (a.h,))


def test_select_takes_rows_wherever_they_are():
    state, parents = nested(), torch.tensor([4, 4, 0])
    chosen = select(state, parents)
    assert type(chosen) is Named
    assert type(chosen.deep[0]) is LSTMState
    for mine, other in zip(leaves(chosen), leaves(state), strict=True):
        assert torch.equal(mine, other[[4, 4, 0]])
    assert shown(select(state, slice(2))).shape == (2, X)


# errors


@pytest.mark.parametrize("lengths", [[1, 2, 3, 4, 8], [1, 2, 3, 4, 0], [-1, 2, 3, 4, 5]])
@directions
def test_lengths_must_fit(lengths, reverse):
    with pytest.raises(ValueError, match=r"lengths=\[.*\] must be 5 numbers from 1 to n=7"):
        unroll(add, double(B, N, X), double(B, X), lengths=torch.tensor(lengths), reverse=reverse)


def test_there_is_a_length_for_each_row():
    for lengths in (LENGTHS[:4], LENGTHS[:, None]):
        with pytest.raises(ValueError, match=r"lengths=\[.*\] must be 5 numbers from 1 to n=7"):
            check(double(B, N, X), lengths)


def test_there_must_be_a_step():
    with pytest.raises(ValueError, match=r"x \(5, 0, 3\) has no steps"):
        unroll(add, double(B, 0, X), double(B, X))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_state_has_the_rows_of_the_input(rows, lengths):
    """More of them would be dropped in silence, one would be stretched."""
    with pytest.raises(ValueError, match=rf"state \({rows}, 3\) must have a row for each of x \(5, 7, 3\)"):
        unroll(add, double(B, N, X), (double(B, X), double(rows, 3)), lengths=lengths)


def test_another_callable_needs_a_state():
    with pytest.raises(TypeError, match="state=None needs a Cell, whose start is known"):
        unroll(add, double(B, N, X))


def test_stepping_reads_what_is_new_and_follows_the_parents():
    """A decoder that adds up tokens: its logits are the sum so far, plus 0 or 1."""

    def advance(token, total):
        total = total + token[:, None].double()
        return total + torch.tensor([0.0, 1.0], dtype=torch.float64), total

    def start():
        return torch.tensor([[100.0], [200.0]], dtype=torch.float64)

    step = stepping(advance, start())
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert step(prompt, torch.arange(2)).tolist() == [[106, 107], [215, 216]]
    parents = torch.tensor([1, 1, 0])
    longer = torch.cat([prompt[parents], torch.tensor([[7], [8], [9]])], 1)
    assert step(longer, parents).tolist() == [[222, 223], [223, 224], [115, 116]]
    one_by_one = stepping(advance, start())
    for n in (1, 2, 3):
        found = one_by_one(prompt[:, :n], torch.arange(2))
    assert found.tolist() == [[106, 107], [215, 216]]
    with pytest.raises(ValueError, match=r"tokens \(2, 3\) hold nothing new: 3 of each row have been read"):
        one_by_one(prompt, torch.arange(2))
