r"""DeBERTa [@he2021deberta]: a BERT whose attention is told distances, and whose input is not told positions.

Imports: the layer is the Transformer's `EncoderLayer` [@vaswani2017attention], normalised by `LayerNorm`
[@ba2016layer]; `initialise` draws weights as BERT does [@devlin2019bert]; the attention and the table of distances are
this paper's. Its training is that of @liu2019roberta, with another decoder in front of the softmax.

Symbols: b batch, n positions, d width. The paper's $H$ = states, $k$ = k, $P$ = relative.

Differences from the paper:
    * Kinds of sentences (segments) have no vectors, as in the released models; the paper does not say.
    * Initial weights, eps = 1e-7 and dropout on the embeddings are from the authors' code.
"""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import EncoderLayer, FeedForward, PostNorm, attention
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import initialise
from papercode.encoders.deberta_attention import DisentangledAttention, RelativeTable


class DeBERTa(Pretrained, layout="deberta"):
    """The encoder; the defaults are the base model (appendix A).

    Args:
        n_tokens: Size of the vocabulary.
        k: Distances from which on all are one; the table has 2k rows. Ignored if relative is given.
        d_model: Width of the residual stream.
        n_heads: Of each attention.
        d_ff: Width inside the feed-forward networks.
        n_layers: Their number.
        dropout: On embeddings, attention weights, the table of distances and sublayer outputs.
        eps: Of the norms.
        make_attention: Called as make_attention(d_model, n_heads, dropout=, attend=), once a layer.
        relative: Makes a `Relative` of the number of positions; a `RelativeTable` unless given.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 50_265,
        *,
        k: int = 512,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-7,
        make_attention: Callable[..., nn.Module] = DisentangledAttention,
        relative: nn.Module | None = None,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__()
        self.words = nn.Embedding(n_tokens, d_model)
        self.norm, self.dropout = LayerNorm(d_model, eps), nn.Dropout(dropout)
        self.relative = RelativeTable(k, d_model) if relative is None else relative
        self.layers = nn.ModuleList(
            EncoderLayer(
                make_attention(d_model, n_heads, dropout=dropout, attend=attend),
                FeedForward(d_model, d_ff, nn.GELU()),
                lambda: PostNorm(LayerNorm(d_model, eps), dropout),
            )
            for _ in range(n_layers)
        )
        self.apply(initialise)

    def embed(self, vectors: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Word vectors, normalised, with dropout: no position is added to them."""
        return self.dropout(self.norm(vectors))

    def encode(
        self, vectors: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"] | None = None, n_layers: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """From word vectors to states.

        Args:
            vectors: What `words` gives, or something near it.
            keep: False at padding, which no token then looks at.
            n_layers: How many layers to go through; all unless given.
        """
        mask = None if keep is None else keep[:, None, None, :]
        x, relative = self.embed(vectors), self.relative(vectors.shape[1])
        for layer in self.layers[:n_layers]:
            x = layer(x, relative=relative, mask=mask)
        return x

    def forward(self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """One vector a token, each aware of all others and of how far they are.

        Args:
            tokens: The texts, of any length.
            keep: False at padding; what stands there in the result means nothing.
        """
        return self.encode(self.words(tokens), keep)


class DeBERTaForSentences(Pretrained, layout="deberta"):
    """A class for each text, read from its first token; a layer with GELU stands in front (in the authors' code).

    Args:
        encoder: Usually pre-trained.
        n_classes: Number of classes.
        dropout: On what the classifier reads; the encoder's unless given.

    Raises:
        ValueError: If n_classes is less than 1.
    """

    def __init__(self, encoder: DeBERTa, n_classes: int = 2, dropout: float | None = None):
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes} must be at least 1")
        d_model = encoder.words.embedding_dim
        self.encoder, self.pooler, self.activation = encoder, nn.Linear(d_model, d_model), nn.GELU()
        self.dropout = nn.Dropout(encoder.dropout.p if dropout is None else dropout)
        self.classifier = nn.Linear(d_model, n_classes)
        for layer in (self.pooler, self.classifier):
            initialise(layer)
            layer.to(encoder.words.weight)

    def classify(
        self, vectors: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n_classes"]:
        """Logits, from word vectors."""
        states = self.encoder.encode(vectors, keep)
        return self.classifier(self.dropout(self.activation(self.pooler(states[:, 0]))))

    def forward(
        self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n_classes"]:
        """Logits, from tokens."""
        return self.classify(self.encoder.words(tokens), keep)
