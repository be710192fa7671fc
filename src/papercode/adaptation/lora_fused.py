r"""LoRA on a fused projection [@hu2022lora]: one module computes q, k and v side by side, some of them are adapted.

Imports: `LoRALinear` is the adapted map (same paper).

Symbols: p adapted parts; part i has an update $\frac{\alpha}{r} B_i A_i$ of its own, of rank r. Together they are one
pair of factors of rank pr: the $A_i$ below each other, the $B_i$ as blocks with zeros between. The parts must lie one
after the other in the output; a projection that interleaves heads is not one of those.

Differences from the paper:
    * It treats q, k and v as matrices of their own (section 4.2); the fused one is adapted so that the numbers agree
      with adapting them apart. One pair of factors on the fused matrix would do something else: share A among them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from papercode.adaptation.lora import LoRALinear


class LoRAFusedLinear(LoRALinear):
    """LoRA on some parts of the output of one map.

    Stores A as (p r, d_in) and B as (sum of the adapted widths, r).

    Args:
        base: The fused map.
        r: Rank of each part's update.
        alpha: Each update is scaled by alpha / r.
        parts: Widths of the parts, in the order of the output; with grouped queries k and v are narrower than q.
        adapted: Which parts are adapted: (0, 2) for the paper's q and v.
        dropout: On the input of A.

    Raises:
        TypeError: If base does not tell its widths.
        ValueError: As for LoRALinear, or if the widths do not add up to d_out, adapted is not a selection of them in
            ascending order, or r is larger than an adapted part is wide.
    """

    def __init__(
        self,
        base: nn.Module,
        r: int,
        alpha: float | int,
        *,
        parts: Sequence[int],
        adapted: Sequence[int],
        dropout: float = 0.0,
    ):
        super().__init__(base, r, alpha, dropout=dropout)
        self.parts, self.adapted = tuple(parts), tuple(adapted)
        if sum(self.parts) != self.out_features or min(self.parts) < 1:
            raise ValueError(f"parts={self.parts} must be positive and add up to d_out={self.out_features}")
        if not self.adapted or list(self.adapted) != sorted(set(self.adapted) & set(range(len(self.parts)))):
            raise ValueError(f"adapted={self.adapted} must be ascending positions in parts={self.parts}")
        wide = [self.parts[i] for i in self.adapted]
        if r > min(wide):
            raise ValueError(f"r={r} is larger than an adapted part of parts={self.parts} is wide")
        self.A = nn.Parameter(torch.empty(len(wide) * r, self.in_features, dtype=self.A.dtype, device=self.A.device))
        self.B = nn.Parameter(self.B.new_empty(sum(wide), r))
        self.reset_parameters()

    def factors(self) -> tuple[Float[Tensor, "pr d_in"], Float[Tensor, "d_out pr"]]:
        """A, and B with the block of each part in its rows and columns."""
        p, r = len(self.adapted), self.r
        blocks = iter(self.B.split([self.parts[i] for i in self.adapted]))
        rows = []
        for i, width in enumerate(self.parts):
            if i in self.adapted:
                before = self.adapted.index(i) * r
                rows.append(pad(next(blocks), (before, p * r - r - before)))
            else:
                rows.append(self.B.new_zeros(width, p * r))
        return self.A, torch.cat(rows)
