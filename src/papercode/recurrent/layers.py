"""Several recurrent layers: one above the other, in one direction or both [@hochreiter1997long].

Imports: a cell and the loop that runs it come from [`unroll`][papercode.recurrent.unroll.unroll].

Symbols: b batch, n steps, i width of the inputs, d width of a layer's state, s directions (1 or 2).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.unroll import Cell, State, shown, unroll


class Recurrent(nn.Module):
    """Recurrent layers, each of which reads all that the one below has shown.

    Args:
        make: Makes the cell of a layer and direction for a width of inputs: `lambda i: LSTMCell(i, 100)`.
        i: Width of the inputs.
        n_layers: How many layers.
        bidirectional: Each layer also runs from right to left; both directions are shown side by side.
        dropout: Between layers, on what a layer shows.
        run: What runs a cell along the sequences: `unroll`, or `fused`.

    Attributes:
        width: s·d of what the highest layer shows.

    Raises:
        ValueError: If n_layers is less than 1.
    """

    def __init__(
        self,
        make: Callable[[int], Cell],
        i: int,
        n_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        run: Callable[..., tuple[Tensor, State]] = unroll,
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} must be at least 1")
        self.directions, self.run = 1 + bidirectional, run
        self.cells: Any = nn.ModuleList()
        for _ in range(n_layers):
            cells = [make(i) for _ in range(self.directions)]
            self.cells.extend(cells)
            i = sum(cell.width for cell in cells)
        self.width = i
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b n i"],
        states: Sequence[State] | None = None,
        *,
        lengths: Int[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b n sd"], tuple[State, ...]]:
        """Runs all layers.

        Args:
            x: The inputs.
            states: One for each layer and direction, lowest layer first, left to right before right to left; the cells'
                `start` unless given.
            lengths: How many steps each row has; all n unless given.

        Returns:
            What the highest layer shows, zeros at the padding, and the last states, in the order of `states`.

        Raises:
            ValueError: If there is not one state for each cell.
        """
        if states is not None and len(states) != len(self.cells):
            raise ValueError(
                f"{len(states)} states for {len(self.cells)} cells: there is one for each layer and direction"
            )
        last = []
        for layer in range(0, len(self.cells), self.directions):
            shows = []
            for direction in range(self.directions):
                state = None if states is None else states[layer + direction]
                cell = self.cells[layer + direction]
                h, state = self.run(cell, x, state, lengths=lengths, reverse=bool(direction))
                shows.append(h)
                last.append(state)
            x = torch.cat(shows, -1)
            if layer + self.directions < len(self.cells):
                x = self.dropout(x)
        return x, tuple(last)


class Stack(Cell):
    """Several cells as one: in each step, each reads what the one below has just shown.

    Equal to the layers run one after the other, but it can be stepped: a decoder must finish a step in all its layers
    before it knows its next input. The state is the tuple of the cells' states, highest
    first, so that h is the highest's.

    Args:
        cells: Lowest first.
        dropout: Between cells, on what a cell shows.

    Raises:
        ValueError: If there is no cell.
    """

    def __init__(self, cells: Sequence[Cell], *, dropout: float = 0.0):
        super().__init__()
        if not cells:
            raise ValueError("cells is empty")
        self.cells: Any = nn.ModuleList(cells)
        self.width, self.dropout = cells[-1].width, nn.Dropout(dropout)

    def start(self, x: Float[Tensor, "b *rest"]) -> tuple[State, ...]:
        """The cells' own starts."""
        return tuple(cell.start(x) for cell in reversed(self.cells))

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """What the lowest cell needs of the input."""
        return self.cells[0].project(x)

    def step(self, projected: Float[Tensor, "b p"], state: tuple[State, ...]) -> tuple[State, ...]:
        """One step of all cells."""
        lowest, *others = self.cells
        states = [lowest.step(projected, state[-1])]
        for cell, old in zip(others, reversed(state[:-1]), strict=True):
            states.append(cell(self.dropout(shown(states[-1])), old))
        return tuple(reversed(states))
