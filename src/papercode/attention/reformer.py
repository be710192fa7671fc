r"""The Reformer [@kitaev2020reformer]: a Transformer whose cost does not grow with the square of the length, and whose
activations do not grow with its depth.

Imports: `SharedQKAttention`, `LSHAttention`, `ReversibleSequence`, `Chunked` and `AxialPositions` are this paper's
parts, a module each. `FeedForward` and `causal_mask` are the Transformer's [@vaswani2017attention], and its
`LayerNorm` comes from @ba2016layer.

Symbols: b batch, n positions, d width. The paper's $l$ = n, $n_l$ = n_layers, $n_h$ = n_heads, $n_{rounds}$ = rounds of
the attention.

Differences from the paper:
    * It says that the norms move into the residual functions and does not say how the two streams start and end. As in
      the authors' code both start as the embedding, and end side by side under one more norm.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask
from papercode.attention.axial_positions import AxialPositions
from papercode.attention.chunked import Chunked
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.lsh_attention import LSHAttention
from papercode.attention.reversible import ReversibleBlock, ReversibleSequence
from papercode.attention.shared_qk import SharedQKAttention
from papercode.attention.transformer import FeedForward, causal_mask


class PreNormed(nn.Module):
    """Dropout(Sublayer(LayerNorm(x))): what a reversible block adds (section 3).

    Args:
        norm: Comes first.
        sublayer: Called as sublayer(x, **kwargs).
        dropout: On its output.
    """

    def __init__(self, norm: nn.Module, sublayer: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.norm, self.sublayer, self.dropout = norm, sublayer, nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], **kwargs) -> Float[Tensor, "b n d"]:
        """kwargs (mask, …) go to the sublayer."""
        return self.dropout(self.sublayer(self.norm(x), **kwargs))


class Reformer(nn.Module):
    """Tokens to logits: a language model with the causal mask, an encoder with another one.

    The defaults are the models of section 5: 3 layers for texts of 65,536 tokens.

    Args:
        n_tokens: Size of the vocabulary.
        shape: Grid of the positions; its product is the greatest length.
        d_model: Width of each of the two streams.
        n_heads: h.
        d_ff: Width inside the feed-forward networks.
        n_layers: Blocks.
        dropout: On the embedding and on what each sublayer adds.
        d_k: Width of a head; d_model / n_heads unless given.
        widths: Of the axes of the positions, one an axis; equal parts of d_model unless given.
        chunk: Positions that a feed-forward network treats at a time.
        attend: Given to every attention; `LSHAttention()` unless given.

    Raises:
        ValueError: If widths do not sum to d_model.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        shape: Sequence[int] = (256, 256),
        d_model: int = 1024,
        n_heads: int = 8,
        d_ff: int = 4096,
        n_layers: int = 3,
        dropout: float = 0.1,
        d_k: int | None = None,
        widths: Sequence[int] | None = None,
        chunk: int = 1024,
        attend: Callable[..., Tensor] | None = None,
    ):
        super().__init__()
        axes = len(shape)
        widths = [(d_model + i) // axes for i in range(axes)] if widths is None else widths
        if sum(widths) != d_model:
            raise ValueError(f"widths={tuple(widths)} sum to {sum(widths)}, not to d_model={d_model}")
        attend = LSHAttention() if attend is None else attend

        def block() -> ReversibleBlock:
            attention = SharedQKAttention(d_model, n_heads, d_k=d_k, attend=attend)
            network = Chunked(PreNormed(LayerNorm(d_model), FeedForward(d_model, d_ff), dropout), chunk)
            return ReversibleBlock(PreNormed(LayerNorm(d_model), attention, dropout), network)

        self.embedding = nn.Embedding(n_tokens, d_model)
        self.positions = AxialPositions(shape, widths)
        self.dropout = nn.Dropout(dropout)
        self.layers = ReversibleSequence(block() for _ in range(n_layers))
        self.norm = LayerNorm(2 * d_model)
        self.head = nn.Linear(2 * d_model, n_tokens)

    def encode(
        self, tokens: Int[Tensor, "b n"], mask: Mask | None = None, start: int = 0
    ) -> Float[Tensor, "b n two_d"]:
        """Both streams side by side, normalised, for the tokens at positions `start` and on.

        A mask goes to every attention; `Band(keep=…)` hides padding.
        """
        x = self.dropout(self.embedding(tokens)) + self.positions(tokens.shape[1], start)
        return self.norm(torch.cat(self.layers(x, x, mask=mask), -1))

    def forward(
        self, tokens: Int[Tensor, "b n"], mask: Mask | None = causal_mask, start: int = 0
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the token after each token."""
        return self.head(self.encode(tokens, mask, start))
