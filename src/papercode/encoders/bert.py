r"""BERT [@devlin2019bert]: a Transformer encoder that reads both ways.

Imports: `EncoderLayer` and its parts are the Transformer's encoder [@vaswani2017attention], `LayerNorm` [@ba2016layer].

Symbols: b batch, n positions, d width. The paper's L = n_layers, H = d_model, A = n_heads; it takes d_ff = 4H.

Differences from the paper:
    * Initial weights, dropout on the sum of embeddings, the norm behind it and its eps = 1e-12 are not in the paper;
      they are in the authors' code.
    * The pooler, a layer with tanh on the state of [CLS], is not in the paper either, but in every released model.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, PostNorm, attention
from papercode.checkpoints.pretrained import Pretrained


class BERT(Pretrained, layout="bert"):
    """The encoder with its pooler; the defaults are the base model (section 3).

    Released models that only read tokens have no pooler in their files, and `from_pretrained` then names what is
    missing: `BERTForMaskedLM.from_pretrained(folder).encoder` is such an encoder, without a pooler.

    Args:
        n_tokens: Size of the vocabulary.
        n_segments: Kinds of sentences, A and B.
        n_positions: The longest text.
        d_model: H, width of the residual stream.
        n_heads: A.
        d_ff: Width inside the feed-forward networks.
        n_layers: L.
        dropout: On embeddings, attention weights and sublayer outputs (appendix A.2).
        eps: Of the norms.
        pooler: Whether there is one.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 30_522,
        *,
        n_segments: int = 2,
        n_positions: int = 512,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-12,
        pooler: bool = True,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        self.d_model = d_model
        self.words = nn.Embedding(n_tokens, d_model)
        self.positions = nn.Embedding(n_positions, d_model)
        self.segments = nn.Embedding(n_segments, d_model)
        self.norm, self.dropout = LayerNorm(d_model, eps), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(d_model, n_heads, dropout=dropout, attend=attend),
                FeedForward(d_model, d_ff, nn.GELU()),
                lambda: PostNorm(LayerNorm(d_model, eps), dropout),
            )
            for _ in range(n_layers)
        )
        self.pooler = nn.Linear(d_model, d_model) if pooler else None
        self.apply(initialise)

    def embed(self, tokens: Int[Tensor, "b n"], segments: Int[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Word, position and segment, added, normalised, with dropout (Figure 2).

        Raises:
            ValueError: If the text is longer than n_positions.
        """
        n = tokens.shape[1]
        if n > len(self.positions.weight):
            raise ValueError(f"tokens have length {n}, but n_positions={len(self.positions.weight)}")
        segments = torch.zeros_like(tokens) if segments is None else segments
        return self.dropout(self.norm(self.words(tokens) + self.positions.weight[:n] + self.segments(segments)))

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One vector a token, each aware of all others.

        Args:
            tokens: The texts.
            segments: Which sentence a token is in; all in the first, 0, unless given.
            keep: False at padding, which no token then looks at; what stands there in the result means nothing.
        """
        mask = None if keep is None else keep[:, None, None, :]
        x = self.embed(tokens, segments)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return x

    def pool(self, states: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """One vector a text: the first token's state ([CLS]) through a layer with tanh.

        Raises:
            ValueError: If the encoder has no pooler.
        """
        if self.pooler is None:
            raise ValueError("this BERT was made with pooler=False: there is nothing to pool with")
        return self.pooler(states[:, 0]).tanh()


def initialise(module: nn.Module) -> None:
    """N(0, 0.02²), biases zero, for `apply`: as in the authors' code (which cuts the normal off at two deviations)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
