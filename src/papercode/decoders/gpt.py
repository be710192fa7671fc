r"""GPT [@radford2018improving]: a Transformer decoder alone, trained to continue text, then fine-tuned.

Imports: layers of the Transformer without attention to an encoder [@vaswani2017attention], `LayerNorm` [@ba2016layer].

Symbols: b batch, n positions, m positions so far, d width. The paper's $W_e$ = words.weight, $W_p$ = positions.weight.

Differences from the paper:
    * GELU is the tanh approximation, as in the authors' code; the paper names the function only.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask
from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import (
    EncoderLayer,
    FeedForward,
    MultiHeadAttention,
    PostNorm,
    attention,
    causal_mask,
)
from papercode.checkpoints.pretrained import Pretrained


class GPT(Pretrained, layout="gpt"):
    """The language model; the defaults are the paper's (section 4.1).

    A layer is the Transformer's encoder layer: what makes a decoder of it is the causal mask.

    Args:
        n_tokens: Size of the vocabulary.
        n_positions: The longest text.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks.
        n_layers: Blocks.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        residual: Makes the module around a sublayer out of a norm and a rate of dropout.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 40_478,
        *,
        n_positions: int = 512,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-5,
        residual: Callable[[nn.Module, float], nn.Module] = PostNorm,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        self.words = nn.Embedding(n_tokens, d_model)
        self.positions = nn.Embedding(n_positions, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(d_model, n_heads, dropout=dropout, attend=attend),
                FeedForward(d_model, d_ff, nn.GELU(approximate="tanh")),
                lambda: residual(LayerNorm(d_model, eps), dropout),
            )
            for _ in range(n_layers)
        )
        self.apply(initialise)

    def embed(self, tokens: Int[Tensor, "b n"], start: int | Int[Tensor, " b"] = 0) -> Float[Tensor, "b n d"]:
        """Word and position, added, with dropout (Eq. 2).

        Args:
            tokens: The text.
            start: Position of the first token; one a row if rows differ, below 0 where a row begins with padding.

        Raises:
            ValueError: If the text is longer than n_positions, or a start that is one for all rows is below 0.
        """
        if not isinstance(start, Tensor) and start < 0:
            raise ValueError(f"start={start} must be at least 0; give one a row where rows begin with padding")
        n_positions, n = self.positions.num_embeddings, tokens.shape[1]
        end = n + int(start.max() if isinstance(start, Tensor) else start)
        if end > n_positions:
            raise ValueError(f"tokens reach position {end}, but n_positions={n_positions}")
        if isinstance(start, Tensor):
            numbers = start[:, None] + torch.arange(n, device=tokens.device)
            return self.dropout(self.words(tokens) + self.positions(numbers.clamp(min=0)))
        return self.dropout(self.words(tokens) + self.positions.weight[start:end])

    def encode(
        self, tokens: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int | Int[Tensor, " b"] = 0
    ) -> Float[Tensor, "b n d"]:
        """One vector a token, each aware of those before it."""
        x = self.embed(tokens, start)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return x

    def logits(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b n_tokens"]:
        """Scores of the next token: the states times the table of words (Eq. 2)."""
        return nn.functional.linear(states, self.words.weight)

    def forward(
        self, tokens: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int | Int[Tensor, " b"] = 0
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the token after each token.

        Args:
            tokens: The text, or the part of it whose keys are not in a
                [`KVCache`][papercode.attention.kv_cache.KVCache] yet.
            mask: Given to every attention; `Band(right=0, keep=...)` hides padding.
            start: Position of the first token, or of each row's.
        """
        return self.logits(self.encode(tokens, mask, start))


def initialise(module: nn.Module) -> None:
    """N(0, 0.02²), biases zero (section 4.1), for `apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
