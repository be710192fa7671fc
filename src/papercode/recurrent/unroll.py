r"""A recurrent cell, run along a sequence [@hochreiter1997long].

One callable is shared by the whole family: `cell(x, state) -> state`, one step for all rows of a batch. A state is a
tensor (b d), or a tuple of states; the first tensor in it is h, what the cell shows to the outside. A tuple may be
nested (the layers of a deep decoder) or named.

A [`Cell`][papercode.recurrent.unroll.Cell] also says which part of a step needs the input alone. `unroll` computes that
part for all steps at once: one large matrix product instead of n small ones is most of what a fused kernel gains.

Symbols: b batch, n steps, i width of the inputs, d width of the state.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from papercode.decoding import Step

State = Any
"""A tensor whose first dimension is the batch, or a tuple of states."""


class Cell(nn.Module):
    """One step of a recurrent network.

    Subclasses define `start`, `step`, and `project` where there is something to gain.

    Attributes:
        width: d of what the cell shows.
    """

    width: int

    def start(self, x: Float[Tensor, "b *rest"]) -> State:
        """The state before the first step, for inputs x: their rows, dtype and device."""
        raise NotImplementedError

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """The part of a step that needs the input alone; x itself unless overridden."""
        return x

    def step(self, projected: Float[Tensor, "b p"], state: State) -> State:
        """The rest of the step."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "b i"], state: State | None = None) -> State:
        """A whole step, from `start` where there is no state yet."""
        return self.step(self.project(x), self.start(x) if state is None else state)


def each(function: Callable[..., Tensor], *states: State) -> State:
    """The state made by a function of the tensors that stand at the same place in each of the states."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    parts = [each(function, *parts) for parts in zip(*states, strict=True)]
    return first._make(parts) if hasattr(first, "_make") else tuple(parts)


def select(state: State, rows: Int[Tensor, " r"] | slice) -> State:
    """These rows of a state: `select(state, parents)` is what a step of beam search needs."""
    return each(lambda tensor: tensor[rows], state)


def shown(state: State) -> Tensor:
    """h, the first tensor of a state."""
    return state if isinstance(state, Tensor) else shown(state[0])


def check(x: Float[Tensor, "b n i"], lengths: Tensor | None) -> None:
    """Whether there is something to run along.

    Raises:
        ValueError: If n = 0, there is not one length for each row, or one is not within 1 and n.
    """
    if not x.shape[1]:
        raise ValueError(f"x {tuple(x.shape)} has no steps")
    if lengths is not None and (lengths.shape != x.shape[:1] or not ((lengths >= 1) & (lengths <= x.shape[1])).all()):
        raise ValueError(f"lengths={lengths.tolist()} must be {len(x)} numbers from 1 to n={x.shape[1]}")


def pack(x: Float[Tensor, "b n i"], lengths: Int[Tensor, " b"]) -> PackedSequence:
    """The real steps only, longest row first: step t holds the rows that are longer than t."""
    return pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)


def _check_rows(x: Tensor, part: Tensor) -> Tensor:
    if len(part) != len(x):
        raise ValueError(f"state {tuple(part.shape)} must have a row for each of x {tuple(x.shape)}")
    return part


def _same(x: Tensor) -> Tensor:
    return x


def forwards(step: Callable, steps: Sequence[Tensor], state: State, emit: Callable) -> tuple[list, State]:
    """The loop: rows that have ended leave it. They stand last, since rows are sorted by length."""
    emitted, ended = [], []
    for x in steps:
        if len(x) < len(shown(state)):
            ended.append(select(state, slice(len(x), None)))
            state = select(state, slice(len(x)))
        state = step(x, state)
        emitted.append(emit(state))
    return emitted, each(lambda *parts: torch.cat(parts), state, *reversed(ended)) if ended else state


def backwards(step: Callable, steps: Sequence[Tensor], start: State, emit: Callable) -> tuple[list, State]:
    """The loop from the last step to the first: a row joins, with its start, where its own last step is."""
    emitted, state = [], select(start, slice(0))
    for x in reversed(steps):
        if len(x) > (rows := len(shown(state))):
            state = each(lambda a, b: torch.cat([a, b]), state, select(start, slice(rows, len(x))))
        state = step(x, state)
        emitted.append(emit(state))
    return emitted[::-1], state


def unroll(
    cell: Cell | Callable[[Tensor, State], State],
    x: Float[Tensor, "b n i"],
    state: State | None = None,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    reverse: bool = False,
    emit: Callable[[State], State] = shown,
) -> tuple[State, State]:
    """Runs a cell along the sequences.

    Args:
        cell: A `Cell`, or any callable `cell(x, state) -> state`.
        x: The inputs.
        state: The state before the first step; a `Cell`'s `start` unless given.
        lengths: How many steps each row has; the rest is padding, on which nothing is computed: the cell is called with
            fewer and fewer rows, in another order. All n unless given.
        reverse: Run from each row's last step to its first.
        emit: What to keep of the state of each step; h unless given.

    Returns:
        What was emitted at the n steps, a tensor (b n d) or a tuple of them, zeros at the padding; and each row's last
        state (`reverse`: that at its first step).

    Raises:
        ValueError: If n = 0, the lengths do not fit, or the state has not one row for each of x.
        TypeError: If there is no state and the cell is no `Cell`.
    """
    check(x, lengths)
    if state is not None:
        each(partial(_check_rows, x), state)
    elif isinstance(cell, Cell):
        state = cell.start(x)
    else:
        raise TypeError("state=None needs a Cell, whose start is known; for another callable give the state")
    project, step = (cell.project, cell.step) if isinstance(cell, Cell) else (_same, cell)
    if lengths is None:
        steps = project(x).unbind(1)
    else:
        packed: Any = pack(x, lengths)
        state = select(state, packed.sorted_indices)
        steps = project(packed.data).split(packed.batch_sizes.tolist())
    emitted, state = (backwards if reverse else forwards)(step, steps, state, emit)
    if lengths is None:
        return each(lambda *outputs: torch.stack(outputs, 1), *emitted), state

    def padded(*outputs: Tensor) -> Tensor:
        data = packed._replace(data=torch.cat(outputs))
        return pad_packed_sequence(data, batch_first=True, total_length=x.shape[1])[0]

    return each(padded, *emitted), select(state, packed.unsorted_indices)


def stepping(advance: Callable[[Tensor, State], tuple[Tensor, State]], state: State) -> Step:
    """A step for the searches of [`papercode.decoding`][papercode.decoding] that has a memory; for one search.

    It keeps the state of each prefix, and reads only the tokens that are new.

    Args:
        advance: Called as `advance(token, state)` with the next token of each row (r); gives the logits of the one
            after it (r v) and the new state.
        state: The state before the first token of the prompt.

    Raises:
        ValueError: By the step, if no token is new.
    """
    read = 0

    def step(tokens: Int[Tensor, "r n"], parents: Int[Tensor, " r"]) -> Float[Tensor, "r v"]:
        nonlocal state, read
        if tokens.shape[1] <= read:
            raise ValueError(f"tokens {tuple(tokens.shape)} hold nothing new: {read} of each row have been read")
        state = select(state, parents)
        for token in tokens[:, read:].unbind(1):
            logits, state = advance(token, state)
        read = tokens.shape[1]
        return logits

    return step
