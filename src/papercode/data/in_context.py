"""Tasks that can only be solved from the prompt: each row has a rule of its own, shown by examples."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor


def key_values(
    *, n_keys: int = 4, n_values: int = 4, shots: int = 7, n_tables: int | None = None, batch: int = 32, seed: int = 0
) -> Iterator[Int[Tensor, "b n"]]:
    """An endless stream of batches of prompts `key pair key pair … key pair`, the same for the same seed.

    Each row draws a table of its own that gives every key a value. A pair is one token that says both. Keys are drawn
    with replacement, so a key of which no pair has been seen costs log(n_values), and one that was costs nothing:
    see [`key_values_entropy`][papercode.data.in_context.key_values_entropy].

    Args:
        n_keys: Keys are the tokens 0 … n_keys - 1.
        n_values: Key k with value v is the token n_keys + k n_values + v.
        shots: Pairs before the last one, which is the query with its answer.
        n_tables: Rows share so many tables, drawn from the same seed; each has a new one unless given.
        batch: Rows.
        seed: Of tables and keys.

    Yields:
        2 (shots + 1) tokens a row: at even places the keys, at odd places the answers.

    Raises:
        ValueError: If n_keys, n_values, n_tables or batch is less than 1, or shots negative.
    """
    if min(n_keys, n_values, batch, 1 if n_tables is None else n_tables) < 1 or shots < 0:
        raise ValueError(f"need {n_keys=}, {n_values=}, {n_tables=}, {batch=} of at least 1, {shots=} of at least 0")
    draw = torch.Generator().manual_seed(seed)
    shared = None if n_tables is None else torch.randint(n_values, (n_tables, n_keys), generator=draw)
    while True:
        if shared is None:
            tables = torch.randint(n_values, (batch, n_keys), generator=draw)
        else:
            tables = shared[torch.randint(len(shared), (batch,), generator=draw)]
        keys = torch.randint(n_keys, (batch, shots + 1), generator=draw)
        yield torch.stack([keys, n_keys + keys * n_values + tables.gather(1, keys)], 2).flatten(1)


def key_values_entropy(shots: int, n_keys: int = 4, n_values: int = 4) -> float:
    """The least loss an answer can have after so many pairs, in nats: nobody can know a key not shown before."""
    return (1 - 1 / n_keys) ** shots * math.log(n_values)
