r"""Axial positions, from the code that was released with the paper [@kitaev2020reformer].

The positions are laid out as a page of rows and columns. A row has a vector, a column has one, and a position is the
two side by side: for 65,536 positions 256 + 256 vectors of half the width instead of 65,536 of full width.

Imports: nothing from an older paper's module.

Symbols: n positions, d width; axes of sizes $n_1, n_2, …$ and widths $d_1, d_2, …$, the last axis running fastest.

Differences from the paper:
    * The paper does not describe them; the authors' code has them, for any number of axes.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AxialPositions(nn.Module):
    """Learned vectors for the positions of a grid.

    Args:
        shape: Sizes of the axes; their product is the number of positions.
        widths: Widths of the axes' vectors; their sum is d.

    Raises:
        ValueError: If shape and widths differ in length, or hold numbers less than 1.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int]):
        super().__init__()
        if not shape or len(shape) != len(widths) or min(*shape, *widths) < 1:
            raise ValueError(f"shape={tuple(shape)} and widths={tuple(widths)} must be equally many, each at least 1")
        self.shape = tuple(shape)
        self.axes = nn.ParameterList(nn.Parameter(torch.randn(n, d)) for n, d in zip(shape, widths))

    def forward(self, n: int, start: int = 0) -> Float[Tensor, "n d"]:
        """The vectors of n positions from `start`.

        Raises:
            ValueError: If they reach beyond the grid.
        """
        if start < 0 or start + n > math.prod(self.shape):
            raise ValueError(f"positions {start} to {start + n - 1} are not within the grid {self.shape}")
        position, parts = torch.arange(start, start + n, device=self.axes[0].device), []
        for size, vectors in reversed(list(zip(self.shape, self.axes))):
            parts.append(vectors[position % size])
            position = position // size
        return torch.cat(parts[::-1], -1)
