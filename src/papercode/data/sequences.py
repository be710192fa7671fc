"""Pairs of sequences whose rule is known exactly: copy, reverse, or any function from list to list."""

import random
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

PAD, START, END = 0, 1, 2
FIRST = 3
"""The first token that is a symbol; those before it are padding, start and end."""


def copy(symbols: list[int]) -> list[int]:
    """The same again."""
    return symbols


def reverse(symbols: list[int]) -> list[int]:
    """Last symbol first."""
    return symbols[::-1]


def pad(rows: list[list[int]]) -> Int[Tensor, "b n"]:
    """One tensor of rows of different lengths, filled with PAD at the end."""
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def pairs(
    rule: Callable[[list[int]], list[int]],
    *,
    n_symbols: int = 10,
    shortest: int = 4,
    longest: int = 8,
    batch: int = 32,
    seed: int = 0,
) -> Iterator[tuple[Int[Tensor, "b s"], Int[Tensor, "b t"]]]:
    """An endless stream of batches (source, target), the same for the same seed.

    Args:
        rule: Makes the target's symbols of the source's.
        n_symbols: Symbols are FIRST … FIRST + n_symbols - 1, drawn uniformly.
        shortest: Fewest symbols in a source.
        longest: Most symbols in a source.
        batch: Pairs in a batch.
        seed: Of the random symbols and lengths.

    Yields:
        Sources, padded at the end, and targets between START and END, padded at the end.

    Raises:
        ValueError: If there is no symbol, or shortest is not between 1 and longest.
    """
    if n_symbols < 1 or not 1 <= shortest <= longest:
        raise ValueError(f"need n_symbols={n_symbols} >= 1 and 1 <= shortest={shortest} <= longest={longest}")
    draw = random.Random(seed)
    while True:
        sources = [
            [FIRST + draw.randrange(n_symbols) for _ in range(draw.randint(shortest, longest))] for _ in range(batch)
        ]
        yield pad(sources), pad([[START, *rule(source), END] for source in sources])
