"""LoRA on a table of embeddings [@hu2022lora], which is a linear map of one-hot vectors.

Imports: `LoRALinear` is the adapted map (same paper).

Symbols: as there, with d_in the size of the vocabulary and d_out the width of an embedding.

Differences from the paper:
    * It adapts attention only (section 4.2) and says nothing of embeddings. Here its rule is kept: A Gaussian, B zero;
      with sigma 1, as a one-hot vector has length 1. (The authors' code and peft start with A zero and B Gaussian.)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from papercode.adaptation.lora import LoRALinear


class LoRAEmbedding(LoRALinear):
    """LoRA on a table of embeddings, a linear map of one-hot vectors: column i of A belongs to token i.

    A padding token keeps its row: column padding_idx of A is zero and gets no gradient.

    Args:
        base: nn.Embedding.
        r: Rank.
        alpha: The update is scaled by alpha / r.
        dropout: Probability with which a token's update is left out while training: dropout of its one-hot vector.

    Raises:
        ValueError: As for LoRALinear, or if base renormalises its rows (max_norm).
    """

    _names = (("num_embeddings", "embedding_dim", True),)

    def __init__(self, base: nn.Module, r: int, alpha: float | int, *, dropout: float = 0.0):
        super().__init__(base, r, alpha, dropout=dropout)
        if base.max_norm is not None:
            raise ValueError(f"max_norm={base.max_norm} rescales rows of the table in each call: nothing can be added")

    @property
    def padding_idx(self) -> int | None:
        """The token whose row is left alone."""
        return self.base.padding_idx  # type: ignore[return-value]

    def reset_parameters(self) -> None:
        """A Gaussian, but zero for the padding token; B zero."""
        nn.init.normal_(self.A)
        nn.init.zeros_(self.B)
        if self.padding_idx is not None:
            nn.init.zeros_(self.A.data[:, self.padding_idx])

    def update(self, x: Int[Tensor, "*n"]) -> Float[Tensor, "*n d_out"]:
        """The update's rows of these tokens."""
        A, B = self.factors()
        return linear(self.alpha / self.r * embedding(x, A.mT, padding_idx=self.padding_idx), B)

    def forward(self, x: Int[Tensor, "*n"]) -> Float[Tensor, "*n d_out"]:
        """The adapted rows of these tokens."""
        y = self.base(x)
        keep = self.dropout(torch.ones(x.shape, dtype=self.A.dtype, device=x.device))
        return y if self.merged else y + (keep[..., None] * self.update(x)).to(y.dtype)

    def _probe(self, weight: Tensor) -> Tensor:
        return torch.arange(min(self.in_features, 64), device=weight.device)
