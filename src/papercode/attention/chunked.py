r"""A feed-forward network, some positions at a time [@kitaev2020reformer, section 3, "Chunking"].

Imports: nothing from an older paper's module.

Symbols: b batch, n positions, d width. The paper's $c$ = number of chunks, $d_{ff}$ = width inside the network.

Differences from the paper:
    * Where gradients are wanted, a chunk's inner activations are not kept but computed again when its gradient is due.
      The paper says that the backward pass is chunked, too, and not how. Were Eq. 10 all, the chunks' activations would
      be kept side by side, and add up to those of the whole.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Chunked(nn.Module):
    """Applies a module that treats each position by itself to `size` positions at a time (Eq. 10).

    Args:
        module: Maps (b, any number, d) to the same shape, such as a feed-forward network.
        size: Positions in a chunk; the last may have fewer.

    Raises:
        ValueError: If size is less than 1.
    """

    def __init__(self, module: nn.Module, size: int):
        super().__init__()
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.module, self.size = module, size

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
        """What `module(x)` would be."""
        if not torch.is_grad_enabled():
            return torch.cat([self.module(part) for part in x.split(self.size, 1)], 1)
        return torch.cat([checkpoint(self.module, part, use_reentrant=False) for part in x.split(self.size, 1)], 1)
