r"""How many numbers attention moves between the large, slow memory and the small, fast one [@dao2022flashattention].

Imports: nothing from other papers.

The four algorithms of the paper run here on a memory that counts: plain attention and FlashAttention, forward and
backward (Algorithms 0, 1, 3 and 4), for one head, without mask and dropout. They compute what they should, and each
load and store is of just what the paper's line of pseudocode names.

Symbols: n sequence length (the paper's $N$), d width of a head, size = numbers that fit into the fast memory (its $M$).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Memory:
    """The slow memory: matrices by name, and how many numbers were read from it and written to it."""

    matrices: dict[str, Tensor] = field(default_factory=dict)
    loads: int = 0
    stores: int = 0

    @property
    def accesses(self) -> int:
        """Loads and stores together."""
        return self.loads + self.stores

    def load(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Some rows of a matrix, for a price."""
        part = self.matrices[name][rows]
        self.loads += part.numel()
        return part.clone()

    def store(self, name: str, value: Tensor, rows: slice = slice(None)) -> None:
        """Writes some rows of a matrix, for a price; the whole of it creates it."""
        if name not in self.matrices:
            self.matrices[name] = torch.empty_like(value)
        self.matrices[name][rows] = value
        self.stores += value.numel()


def blocks(n: int, d: int, size: int) -> tuple[list[slice], list[slice]]:
    r"""Blocks of rows (queries) and of columns (keys): $B_c = \lceil M / 4d \rceil$, $B_r = \min(B_c, d)$.

    Raises:
        ValueError: If size < d: not one row would fit.
    """
    if size < d:
        raise ValueError(f"size={size} must be at least d={d}")
    columns = min(-(-size // (4 * d)), n)
    rows = min(columns, d)
    return [slice(i, i + rows) for i in range(0, n, rows)], [slice(j, j + columns) for j in range(0, n, columns)]


def standard_forward(memory: Memory) -> None:
    """Algorithm 0: the scores S and the weights P of matrices Q, K, V are written out; the result is O."""
    q, k = memory.load("Q"), memory.load("K")
    memory.store("S", q @ k.T * q.shape[1] ** -0.5)
    memory.store("P", memory.load("S").softmax(-1))
    memory.store("O", memory.load("P") @ memory.load("V"))


def standard_backward(memory: Memory) -> None:
    """Algorithm 3: dQ, dK and dV, given dO and what the forward pass wrote."""
    memory.store("dV", memory.load("P").T @ memory.load("dO"))
    memory.store("dP", memory.load("dO") @ memory.load("V").T)
    p, dp = memory.load("P"), memory.load("dP")
    memory.store("dS", p * (dp - (p * dp).sum(1, keepdim=True)))
    scale = memory.matrices["Q"].shape[1] ** -0.5
    memory.store("dQ", memory.load("dS") @ memory.load("K") * scale)
    memory.store("dK", memory.load("dS").T @ memory.load("Q") * scale)


def flash_forward(memory: Memory, size: int) -> None:
    """Algorithm 1: a block of keys and values is held, all queries pass by; O, and m and l of each row, are updated."""
    n, d = memory.matrices["Q"].shape
    rows, columns = blocks(n, d, size)
    like = memory.matrices["V"]
    memory.store("O", torch.zeros_like(like))
    memory.store("l", like.new_zeros(n))
    memory.store("m", like.new_full((n,), -torch.inf))
    for j in columns:
        k, v = memory.load("K", j), memory.load("V", j)
        for i in rows:
            q, out, total, largest = (memory.load(name, i) for name in ("Q", "O", "l", "m"))
            s = q @ k.T * d**-0.5
            larger = torch.maximum(largest, s.amax(1))
            weights, shrink = (s - larger[:, None]).exp(), (largest - larger).exp()
            new = shrink * total + weights.sum(1)
            memory.store("O", ((total * shrink)[:, None] * out + weights @ v) / new[:, None], i)
            memory.store("l", new, i)
            memory.store("m", larger, i)


def flash_backward(memory: Memory, size: int) -> None:
    """Algorithm 4: the weights are computed again from Q, K, m and l; dQ is updated, dK and dV are written once."""
    n, d = memory.matrices["Q"].shape
    rows, columns = blocks(n, d, size)
    memory.store("dQ", torch.zeros_like(memory.matrices["Q"]))
    for name in ("dK", "dV"):
        memory.store(name, torch.zeros_like(memory.matrices[name[1]]))
    for j in columns:
        k, v = memory.load("K", j), memory.load("V", j)
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for i in rows:
            q, out, d_out, dq, total, largest = (memory.load(name, i) for name in ("Q", "O", "dO", "dQ", "l", "m"))
            weights = (q @ k.T * d**-0.5 - largest[:, None]).exp() / total[:, None]
            dv += weights.T @ d_out
            ds = weights * (d_out @ v.T - (d_out * out).sum(1, keepdim=True)) * d**-0.5
            memory.store("dQ", dq + ds @ k, i)
            dk += ds.T @ q
        memory.store("dK", dk, j)
        memory.store("dV", dv, j)


def with_inputs(n: int, d: int, dtype: torch.dtype = torch.float32) -> Memory:
    """A memory with random Q, K, V and dO (n d)."""
    return Memory({name: torch.randn(n, d, dtype=dtype) for name in ("Q", "K", "V", "dO")})


def expected_accesses(n: int, d: int, size: int) -> dict[str, int]:
    """The same counts as formulas.

    Returns:
        Numbers moved, by the name of the function above.
    """
    passes = len(blocks(n, d, size)[1])  # each block of keys is one pass over the queries
    return {
        "standard_forward": 4 * n * d + 4 * n * n,
        "standard_backward": 8 * n * d + 7 * n * n,
        "flash_forward": 3 * n * d + 2 * n + passes * (3 * n * d + 4 * n),
        "flash_backward": 7 * n * d + passes * (5 * n * d + 2 * n),
    }
