r"""GLM [@du2022glm]: one Transformer that reads a text with blanks both ways and writes what was in them one by one.

Imports: layers and embeddings are the Transformer's [@vaswani2017attention], `LayerNorm` [@ba2016layer]; `PreNorm` puts
the norm before the sublayer [@radford2019language]; sizes and initial weights are BERT's [@devlin2019bert].

Symbols: b batch, n positions, d width. Part A, the text with blanks, is the first `context` positions; part B, what was
in the blanks, follows. The paper's $x_{corrupt}$ is part A.

Differences from the paper:
    * The output layer is the table of words, with no map, norm or bias of its own beside it: the paper says "a single
      linear layer", its sizes and its code say that it is this one.
    * Initial weights, dropout, the final norm and its eps are not in the paper.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, attention
from papercode.decoders.gpt2 import PreNorm
from papercode.encoders.bert import initialise


class GLM(nn.Module):
    """The model; the defaults are GLM-Base, as large as BERT-Base (section 3.1).

    Against BERT's encoder (section 2.3): the norm stands before each sublayer and once more at the end, there are two
    positions a token and no segments, and the output is one linear layer.

    Args:
        n_tokens: Size of the vocabulary, special tokens included.
        n_positions: The longest part A, and the longest span with its start token.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks; 4 d_model unless given.
        n_layers: Blocks.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 30_522,
        *,
        n_positions: int = 512,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int | None = None,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-5,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        self.words = nn.Embedding(n_tokens, d_model)
        self.positions = nn.Embedding(n_positions + 1, d_model)
        self.inner = nn.Embedding(n_positions + 1, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(d_model, n_heads, dropout=dropout, attend=attend),
                FeedForward(d_model, 4 * d_model if d_ff is None else d_ff, nn.GELU()),
                lambda: PreNorm(LayerNorm(d_model, eps), dropout),
            )
            for _ in range(n_layers)
        )
        self.norm = LayerNorm(d_model, eps)
        self.apply(initialise)

    def embed(
        self, tokens: Int[Tensor, "b n"], positions: Int[Tensor, "b n"], inner: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        """Word and both positions, added, with dropout (section 2.3.1).

        Raises:
            ValueError: If a position is beyond n_positions.
        """
        for name, values, table in (("positions", positions, self.positions), ("inner", inner, self.inner)):
            if not values.is_meta and values.numel() and values.max() >= table.num_embeddings:
                raise ValueError(f"{name} reach {values.max()}, but n_positions={table.num_embeddings - 1}")
        return self.dropout(self.words(tokens) + self.positions(positions) + self.inner(inner))

    def encode(
        self,
        tokens: Int[Tensor, "b n"],
        positions: Int[Tensor, "b n"],
        inner: Int[Tensor, "b n"],
        context: Int[Tensor, " b"] | int,
    ) -> Float[Tensor, "b n d"]:
        """One vector a token: of part A aware of all of part A, of part B aware of part A and of what came before."""
        x, mask = self.embed(tokens, positions, inner), partial(glm_mask, context)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.norm(x)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        positions: Int[Tensor, "b n"],
        inner: Int[Tensor, "b n"],
        context: Int[Tensor, " b"] | int,
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the token after each token of part B; those of part A mean nothing and are trained by nothing.

        Args:
            tokens: Part A, then the spans of part B, each behind a start token; padding, if any, at the end. With a
                [`KVCache`][papercode.attention.kv_cache.KVCache], those whose keys are not in it yet.
            positions: Position 1: the place in part A; in part B that of the span's mask token.
            inner: Position 2: 0 in part A, then 1 for a start token, 2, 3, … for what follows.
            context: Length of part A, the same for all rows or one a row.
        """
        return nn.functional.linear(self.encode(tokens, positions, inner, context), self.words.weight)


def glm_mask(
    context: Int[Tensor, " b"] | int, n: int, m: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, "n m"] | Bool[Tensor, "b 1 n m"]:
    """True where a query may look: at all of part A, and in part B not beyond itself (Figure 2d).

    With context=0 it is the causal mask of GPT, with context=m all see all, as in BERT.

    Args:
        context: Length of part A; one number, or one a row.
        n: Queries, the last of the m positions.
        m: Keys; n unless given.
        device: Where to make it.
    """
    m = n if m is None else m
    key, query = torch.arange(m, device=device), torch.arange(m - n, m, device=device)[:, None]
    if isinstance(context, Tensor):
        context = context.to(key.device)[:, None, None, None]
    return (key < context) | (key <= query)
