r"""Positions as waves [@vaswani2017attention, section 3.5]: a sine and a cosine at each of d/2 frequencies.

Imports: nothing from an older paper.

Symbols: the paper's $pos$ = position, $i$ = index of a frequency, $d_{model}$ = d.

Differences from the paper:
    * d must be even, because the features come in pairs of sine and cosine.
    * Computed in float64 and rounded once by whoever adds them: in float32 the angles themselves would be off.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def frequencies(d: int, device: torch.device | None = None) -> Float[Tensor, " half"]:
    r"""$\omega_i = 10000^{-2i/d}$ for i = 0 … d/2 - 1, in radians a position, float64.

    Raises:
        ValueError: If d is odd.
    """
    if d % 2:
        raise ValueError(f"d={d} must be even: features come in pairs of sine and cosine")
    return 10000.0 ** (-torch.arange(0, d, 2, device=device, dtype=torch.float64) / d)


def positions(n: int, d: int, start: int = 0, device: torch.device | None = None) -> Float[Tensor, "n d"]:
    r"""$PE_{pos,2i} = \sin(\omega_i\, pos)$, $PE_{pos,2i+1} = \cos(\omega_i\, pos)$, n positions from start, float64.

    Raises:
        ValueError: If d is odd.
    """
    pos = torch.arange(start, start + n, device=device, dtype=torch.float64)
    angles = pos[:, None] * frequencies(d, device)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
