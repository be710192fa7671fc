"""The decoder's unit: torch's GRU with a hidden bias of its own for each source, and the equations with loops."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.decoder_cell import DecoderCell, ResetAfterDecoderCell
from papercode.recurrent.fused import fused
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.unroll import select, unroll

B, T, W_IN, D, M = 3, 7, 5, 11, 13
F64 = torch.float64
CELLS = [DecoderCell, ResetAfterDecoderCell]


def inputs():
    return torch.randn(B, T, W_IN, dtype=F64), torch.randn(B, M, dtype=F64)


def test_for_one_source_the_appendix_is_torchs_unit_with_a_bias(parity):
    cell, (y, c) = randomise(ResetAfterDecoderCell(W_IN, D, M)), inputs()
    ours, _ = unroll(cell, y, cell.begin(c))
    gru = nn.GRU(W_IN, D, batch_first=True).double()
    rows = []
    with torch.no_grad():
        gru.weight_ih_l0.copy_(cell.input.weight)
        gru.weight_hh_l0.copy_(cell.hidden.weight)
        gru.bias_ih_l0.copy_(cell.input.bias)
        for row, summary in zip(y, c, strict=True):
            gru.bias_hh_l0.copy_(cell.context.weight @ summary + cell.hidden_bias())
            first = (cell.first.weight @ summary + cell.first.bias).tanh()
            rows.append(gru(row, first[None])[0])
    model = "decoder of the RNN encoder-decoder"
    parity(model, "torch.nn.GRU", "C c as hidden bias, source by source", ours, torch.stack(rows))
    assert_differs(unroll(cell, y, cell.begin(c.flip(0)))[0], torch.stack(rows))


def test_in_section_2_the_summary_is_one_more_input(parity):
    cell, (y, c) = randomise(DecoderCell(W_IN, D, M)), inputs()
    wide = GRUCell(W_IN + M, D).double()
    wide.input.weight.data = torch.cat([cell.input.weight, cell.context.weight], 1)
    wide.input.bias.data, wide.hidden.weight.data = cell.input.bias.data, cell.hidden.weight.data
    state = cell.begin(c)
    expected, last = unroll(wide, torch.cat([y, c[:, None].expand(B, T, M)], -1), state.h)
    ours, end = unroll(cell, y, state)
    assert_same(ours, expected)
    assert_same(end.h, last)
    assert torch.equal(end.c, c)
    after = ResetAfterDecoderCell(W_IN, D, M).double()
    after.load_state_dict(cell.state_dict(), strict=False)
    assert_differs(unroll(after, y, after.begin(c))[0], expected)


@pytest.mark.parametrize("make", CELLS)
def test_equals_the_equations(parity, make):
    cell, (y, c) = randomise(make(W_IN, D, M)), inputs()
    (W_r, W_z, W), (U_r, U_z, U) = cell.input.weight.chunk(3), cell.hidden.weight.chunk(3)
    (C_r, C_z, C), (b_r, b_z, b) = cell.context.weight.chunk(3), cell.input.bias.chunk(3)
    V, v = cell.first.weight, cell.first.bias
    expected = torch.empty(B, T, D, dtype=F64)
    for row in range(B):
        h = torch.tanh(V @ c[row] + v)
        for t in range(T):
            r = torch.sigmoid(W_r @ y[row, t] + U_r @ h + C_r @ c[row] + b_r)
            z = torch.sigmoid(W_z @ y[row, t] + U_z @ h + C_z @ c[row] + b_z)
            if make is ResetAfterDecoderCell:
                new = torch.tanh(W @ y[row, t] + b + r * (U @ h + C @ c[row] + cell.reset_bias))
            else:
                new = torch.tanh(W @ y[row, t] + b + U @ (r * h) + C @ c[row])
            h = z * h + (1 - z) * new
            expected[row, t] = h
    place = "reset gate as in the appendix" if make is ResetAfterDecoderCell else "reset gate as in section 2"
    model = "decoder of the RNN encoder-decoder"
    parity(model, "the equations, with loops", place, unroll(cell, y, cell.begin(c))[0], expected)
    still = cell.begin(c)._replace(fed=torch.zeros(B, 3 * D, dtype=F64))
    assert_differs(unroll(cell, y, still)[0], expected)  # c counts in every step, not in the first alone


@pytest.mark.parametrize("make", CELLS)
def test_a_selected_row_goes_on_as_it_would(make):
    cell, (y, c) = randomise(make(W_IN, D, M)), inputs()
    rows = torch.tensor([2, 2, 0, 1])
    state = cell.begin(c)
    before, after = cell(y[rows, 0], select(state, rows)), select(cell(y[:, 0], state), rows)
    for one, other in zip(before, after, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("make", CELLS)
def test_padding_and_gradients(make):
    cell, (y, c) = randomise(make(W_IN, D, M)), inputs()
    lengths = torch.tensor([4, 7, 1])
    ours, last = unroll(cell, y, cell.begin(c), lengths=lengths)
    for row, n in enumerate(lengths):
        alone, end = unroll(cell, y[row : row + 1, :n], cell.begin(c[row : row + 1]))
        assert_same(ours[row : row + 1, :n], alone)
        assert_same(last.h[row], end.h[0])
        assert (ours[row, n:] == 0).all()
    assert torch.autograd.gradcheck(
        lambda y, c: unroll(cell, y[:, :2], cell.begin(c))[0], (y.requires_grad_(), c.requires_grad_())
    )


@pytest.mark.parametrize("make", CELLS)
def test_errors(make):
    cell, (y, c) = make(W_IN, D, M).double(), inputs()
    with pytest.raises(TypeError, match=r"a decoder's first state depends on the source: give begin\(c\) as state"):
        unroll(cell, y)
    with pytest.raises(TypeError, match=f"cell={make.__name__} has no kernel in torch"):
        fused(cell, y, cell.begin(c))


def test_no_bias():
    for make in CELLS:
        assert not [name for name, _ in make(W_IN, D, M, bias=False).named_parameters() if "bias" in name]
