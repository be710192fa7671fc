r"""Attention as a graph: how many layers it takes until a token has heard of another [@zaheer2020big, section 2].

Imports: nothing from an older paper's module.

Symbols: n positions; `sees`, the paper's matrix $A$ (n n), is True where query i attends to key j. What j knows
reaches i in one layer if i sees j, in two if i sees somebody who sees j.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def path_lengths(sees: Bool[Tensor, "n n"]) -> Int[Tensor, "n n"]:
    """The least number of layers after which i has heard of j, by breadth-first search; 0 for i = j, -1 for never."""
    edges, reached = sees.float().to_sparse(), torch.eye(len(sees), dtype=torch.bool, device=sees.device)
    lengths = torch.where(reached, 0, -1)
    frontier, step = reached, 0
    while frontier.any():
        step += 1
        frontier = (edges @ frontier.float() > 0) & ~reached
        lengths[frontier] = step
        reached = reached | frontier
    return lengths


def erdos_renyi(n: int, degree: float, seed: int = 0) -> Bool[Tensor, "n n"]:
    """Every position sees itself, and each other one with the probability degree / n, independently (section 2).

    Raises:
        ValueError: If degree is negative or more than n.
    """
    if not 0 <= degree <= n:
        raise ValueError(f"degree={degree} must be at least 0 and at most n={n}")
    drawn = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < degree / n
    return drawn | torch.eye(n, dtype=torch.bool)


def clustering(sees: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """How often two neighbours of a position are neighbours of each other, the mean over all positions.

    Directions and self-loops are left out, and positions with fewer than two neighbours.
    """
    near = (sees | sees.T).double().fill_diagonal_(0)
    degree = near.sum(1)
    triangles = (near @ near * near).sum(1)
    pairs = degree * (degree - 1)
    return (triangles[pairs > 0] / pairs[pairs > 0]).mean().float()
