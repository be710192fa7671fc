r"""Is attention of low rank? What Linformer measures (section 3), and what its theorems promise [@wang2020linformer].

Imports: nothing from an older paper's module.

Symbols: n queries, m keys, d width of a head; the paper's $P$ (n m) = weights, the attention after its softmax, $k$ =
rank, $\varepsilon$ = eps.

Differences from the paper:
    * `promised_rank` computes with Theorem 1's own constant, 5 log(n) / (eps² - eps³), and with the factors that
      Theorem 2 writes before and inside its Θ, as if those were all of the constants.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spectrum_of_attention(weights: Float[Tensor, "*heads n m"]) -> Float[Tensor, "*heads r"]:
    """The share of the first 1, 2, … singular values in the sum of all of them, as in Figure 1 of the paper.

    Args:
        weights: Attention after its softmax; each head is decomposed by itself.

    Returns:
        Rising shares, the last of them 1; r is the smaller of n and m.
    """
    values = torch.linalg.svdvals(weights.double())
    return (values.cumsum(-1) / values.sum(-1, keepdim=True)).to(weights)


def best_of_rank(weights: Float[Tensor, "*heads n m"], rank: int) -> Float[Tensor, "*heads n m"]:
    """The nearest matrix of that rank: the largest singular values with their vectors (Eq. 6).

    Raises:
        ValueError: If rank is less than 1 or more than the smaller of n and m.
    """
    _within(rank, weights)
    u, values, v = torch.linalg.svd(weights, full_matrices=False)
    return u[..., :rank] * values[..., None, :rank] @ v[..., :rank, :]


def randomly_projected(
    weights: Float[Tensor, "*heads n m"], rank: int, generator: torch.Generator | None = None
) -> Float[Tensor, "*heads n m"]:
    r"""$P R^\top R$ with k × m numbers $R \sim N(0, 1/k)$, the matrix of low rank in the proof of Theorem 1 (Eq. 16).

    Raises:
        ValueError: If rank is less than 1 or more than the smaller of n and m.
    """
    _within(rank, weights)
    R = torch.randn(rank, weights.shape[-1], generator=generator, dtype=weights.dtype) / rank**0.5
    R = R.to(weights.device)
    return weights @ R.T @ R


def promised_rank(n: int, eps: float, d: int | None = None) -> float:
    """The k for which the theorems promise an error of at most eps; natural logarithms.

    Args:
        n: Length of the sequence.
        eps: Relative error.
        d: Width of a head. Without it Theorem 1, 5 log(n) / (eps² - eps³); with it the first branch of Theorem 2,
            9 d log(d) / eps², which does not depend on n.

    Raises:
        ValueError: If eps is not between 0 and 1, or n or d is less than 2.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps} must lie between 0 and 1")
    for name, size in (("n", n), ("d", 2 if d is None else d)):
        if size < 2:
            raise ValueError(f"{name}={size} must be at least 2")
    if d is None:
        return 5 * math.log(n) / (eps**2 - eps**3)
    return 9 * d * math.log(d) / eps**2


def _within(rank: int, weights: Tensor) -> None:
    limit = min(weights.shape[-2:])
    if not 1 <= rank <= limit:
        raise ValueError(f"rank={rank} must be at least 1 and at most {limit}, the smaller of n and m")
