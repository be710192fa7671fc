r"""Do two runs of LoRA learn the same directions? The measure of section 7.2 [@hu2022lora].

Symbols: A and B are here two matrices A of two runs, (r d) and (s d): not the factors of one update. $U_A^i$ (d i) =
the i right singular vectors of A with the largest singular values.

Differences from the paper:
    * Appendix G states $\phi = \frac1p (1 - d^2)$ with the projection metric d; it must be $\frac1p (p - d^2)$, which
      is what its definition of $\phi$ gives (p = min(i, j)).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def similarity_grid(A: Float[Tensor, "r d"], B: Float[Tensor, "s d"]) -> Float[Tensor, "r s"]:
    r"""$\phi(A, B, i, j)$ for all i and j at once: entry (i - 1, j - 1). What Figures 3 and 4 draw.

    Args:
        A: The down-projection of one run; r at most d.
        B: That of another run on the same map; s at most d.
    """
    squares = (_directions(A) @ _directions(B).mT).square()
    i = torch.arange(1, len(A) + 1, device=A.device)[:, None]
    j = torch.arange(1, len(B) + 1, device=A.device)
    return squares.cumsum(0).cumsum(1) / torch.minimum(i, j)


def subspace_similarity(A: Float[Tensor, "r d"], B: Float[Tensor, "s d"], i: int, j: int) -> float:
    r"""$\phi(A, B, i, j) = \|U_A^{i\top} U_B^j\|_F^2 / \min(i, j)$ (Eq. 4): 1 one span holds the other, 0 orthogonal.

    Args:
        A: The down-projection of one run.
        B: That of another run on the same map.
        i: How many top directions of A.
        j: How many top directions of B.

    Raises:
        ValueError: If i is not in 1 … r, or j not in 1 … s.
    """
    for name, index, matrix in (("i", i, A), ("j", j, B)):
        if not 1 <= index <= min(matrix.shape):
            raise ValueError(f"{name}={index} must be at least 1 and at most min{tuple(matrix.shape)}")
    return similarity_grid(A, B)[i - 1, j - 1].item()


def _directions(A: Tensor) -> Tensor:
    return torch.linalg.svd(A, full_matrices=False).Vh
