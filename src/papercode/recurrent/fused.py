"""Standard recurrent cells on torch's own kernels (cuDNN, oneDNN), equal to the plain loop [@hochreiter1997long].

Imports: `pack` and the meaning of a state come from the plain loop.

`fused` has the signature of [`unroll`][papercode.recurrent.unroll.unroll] and may be given wherever a `run` is asked
for. It knows no cell by name: a cell that a kernel computes carries it as `kernel`, with weights in `input` and
`hidden` in the kernel's order. A subclass whose step is another says `kernel = None`.

Symbols: b batch, n steps, i width of the inputs, d width of the state, r real steps in the batch.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence

from papercode.recurrent.unroll import Cell, State, check, each, pack, select


def weights(cell: Any) -> list[Tensor]:
    """What the kernel takes: weights of inputs and state and, if there are biases, those of both."""
    products = [cell.input.weight, cell.hidden.weight]
    if cell.input.bias is None:
        return products
    return [*products, cell.input.bias, cell.hidden_bias()]


def turned(lengths: Int[Tensor, " b"], n: int) -> Int[Tensor, "b n"]:
    """For each row the order of its steps from its last one back to its first; padding stays where it is."""
    steps = torch.arange(n, device=lengths.device)
    back = lengths[:, None] - 1 - steps
    return torch.where(back >= 0, back, steps)


def fused(
    cell: Cell,
    x: Float[Tensor, "b n i"],
    state: State | None = None,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "b n d"], State]:
    """What `unroll` computes, by torch's kernel of this cell.

    Args:
        cell: One that has a `kernel`: `LSTMCell`, `ResetAfterGRUCell`, `RNNCell`.
        x: The inputs.
        state: The state before the first step; the cell's `start` unless given.
        lengths: How many steps each row has. All n unless given.
        reverse: Run from each row's last step to its first.

    Returns:
        h at each step, zeros at the padding, and the last state of each row.

    Raises:
        TypeError: If torch has no kernel for the cell.
        ValueError: If n = 0, or x, the state or the lengths do not fit. (The kernels would read what is not theirs.)
    """
    kernel = getattr(cell, "kernel", None)
    if kernel is None:
        raise TypeError(f"cell={type(cell).__name__} has no kernel in torch; run it with unroll")
    check(x, lengths)
    own: Any = cell.start(x)
    state = own if state is None else each(_fitting, own, state)
    parameters = weights(cell)
    if x.shape[2] != (width := parameters[0].shape[1]):
        raise ValueError(f"x {tuple(x.shape)} must have the width of the cell's inputs, {width}")
    if reverse:
        order = turned(torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths, x.shape[1])
        x = x.gather(1, order[..., None].expand_as(x))
    common = (parameters, len(parameters) == 4, 1, 0.0, cell.training, False)  # layers, dropout, training, directions
    if lengths is None:
        h, *last = kernel(x, _layered(state), *common, True)
    else:
        packed: Any = pack(x, lengths)
        start = _layered(select(state, packed.sorted_indices))
        data, *last = kernel(packed.data, packed.batch_sizes, start, *common)
        h, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
        last = [tensor.index_select(1, packed.unsorted_indices) for tensor in last]
    if reverse:
        h = h.gather(1, order[..., None].expand_as(h))
    return h, last[0][0] if isinstance(own, Tensor) else type(own)(*(tensor[0] for tensor in last))


def _fitting(own: Tensor, given: Tensor) -> Tensor:
    if given.shape != own.shape:
        raise ValueError(f"state {tuple(given.shape)} must be {tuple(own.shape)}")
    return given


def _layered(state: State) -> State:
    """With the dimension of layers that the kernels have."""
    return each(lambda tensor: tensor[None].contiguous(), state)
