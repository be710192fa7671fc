r"""BigBird, the encoder: BERT's stack over sparse attention [@zaheer2020big].

Imports: `EncoderLayer`, `MultiHeadAttention`, `FeedForward` and `PostNorm` are the Transformer's
[@vaswani2017attention], with learned positions and GELU; `LayerNorm` [@ba2016layer].

Symbols: b batch, n tokens, d width; $g$ of ETC = n_global.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.big_bird import BigBirdAttention
from papercode.attention.big_bird_pattern import BlockPattern, random_blocks
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, PostNorm


def internal(layer: int) -> BigBirdAttention:
    """The ITC of Table 8: blocks of 64, the first and the last are global, a window of 3, and 3 random blocks."""
    return BigBirdAttention(BlockPattern(random=partial(random_blocks, n_random=3, seed=layer)))


def extended(layer: int) -> BigBirdAttention:
    """The ETC of Table 8: blocks of 84, 256 global tokens before the sequence, a window of 3, and nothing random."""
    return BigBirdAttention(BlockPattern(84, first=0, last=0, extra=256, random=None))


class BigBird(nn.Module):
    """An encoder of documents; the defaults are the base model (Table 8).

    Args:
        n_tokens: Size of the vocabulary.
        d_model: Width.
        n_heads: h.
        d_ff: Width inside the feed-forward networks.
        n_layers: How many layers.
        n_positions: Longest input.
        n_segments: Kinds of segments an input may be made of.
        n_global: Learned tokens before every input, dropped at the end (ETC). They have no position and no segment.
        dropout: On sublayer outputs and embeddings.
        eps: Of the layer norms.
        attend: Called with the number of a layer, gives its attend; with n_global, one of as many extra tokens.
    """

    def __init__(
        self,
        n_tokens: int = 50_358,
        *,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        n_positions: int = 4096,
        n_segments: int = 2,
        n_global: int = 0,
        dropout: float = 0.1,
        eps: float = 1e-12,
        attend: Callable[[int], Callable[..., Tensor]] = internal,
    ):
        super().__init__()
        self.tokens = nn.Embedding(n_tokens, d_model)
        self.positions = nn.Embedding(n_positions, d_model)
        self.segments = nn.Embedding(n_segments, d_model)
        self.extra = nn.Parameter(torch.zeros(n_global, d_model))
        self.norm, self.dropout = LayerNorm(d_model, eps), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(d_model, n_heads, attend=attend(layer)),
                FeedForward(d_model, d_ff, nn.GELU("tanh")),
                lambda: PostNorm(LayerNorm(d_model, eps), dropout),
            )
            for layer in range(n_layers)
        )
        self.pooler = nn.Linear(d_model, d_model)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        keep: Bool[Tensor, "b n"] | None = None,
        segments: Int[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One vector a token; keep is True at tokens, False at padding; segments are 0 unless given.

        Raises:
            ValueError: If the input is longer than n_positions.
        """
        (b, n), g, n_positions = tokens.shape, len(self.extra), len(self.positions.weight)
        if n > n_positions:
            raise ValueError(f"tokens has {n} positions, but this model was made for n_positions={n_positions}")
        kinds = torch.zeros_like(tokens) if segments is None else segments
        x = self.tokens(tokens) + self.segments(kinds) + self.positions.weight[:n]
        x = self.dropout(self.norm(torch.cat([self.extra.expand(b, -1, -1), x], 1)))
        if keep is not None:
            keep = torch.cat([keep.new_ones(b, g), keep], 1)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask=keep)
        return x[:, g:]

    def pooled(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """The vector of the first token, through a linear map and tanh: for classification."""
        return self.pooler(x[:, 0]).tanh()
