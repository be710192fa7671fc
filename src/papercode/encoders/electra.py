r"""ELECTRA [@clark2020electra]: an encoder that learns to tell which words of a text were replaced.

Imports: the encoder `BERT`, its heads for tokens and spans, `initialise` and `new_layer` [@devlin2019bert]; `LayerNorm`
[@ba2016layer]; `attention` [@vaswani2017attention]. How it is trained is in `electra_pretraining`.

Symbols: b batch, n positions, c classes, e width of embeddings, d width of states. The paper's $h_D(x)_t$ =
states[:, t].

Differences from the paper:
    * The map from e to d stands behind norm and dropout of the embeddings, as in the authors' code; the paper names it
      in a footnote.
    * A text's class is read by a layer with GELU of its own, with dropout on both sides, as in the authors' code.
"""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from papercode.attention.layer_norm import LayerNorm
from papercode.attention.transformer import attention
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import BERT, initialise
from papercode.encoders.bert_pretraining import new_layer
from papercode.encoders.bert_tasks import BERTForSpans, BERTForTokens


class ELECTRA(BERT, layout="electra"):
    """BERT's encoder without a pooler, its embeddings of a width of their own; the defaults are the small model.

    The generator is one, and so is the discriminator, which is what is kept (Table 6 has the sizes).

    Args:
        n_tokens: Size of the vocabulary.
        n_segments: Kinds of sentences.
        n_positions: The longest text.
        d_embedding: Width of the three tables. Where it is not d_model, a linear map leads from one to the other.
        d_model: Width of the residual stream.
        n_heads: Of attention.
        d_ff: Width inside the feed-forward networks.
        n_layers: How many.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        attend: Given to every attention.
    """

    def __init__(
        self,
        n_tokens: int = 30_522,
        *,
        n_segments: int = 2,
        n_positions: int = 512,
        d_embedding: int = 128,
        d_model: int = 256,
        n_heads: int = 4,
        d_ff: int = 1024,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-12,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__(
            n_tokens, n_segments=n_segments, n_positions=n_positions, d_model=d_model, n_heads=n_heads, d_ff=d_ff,
            n_layers=n_layers, dropout=dropout, eps=eps, pooler=False, attend=attend,
        )  # fmt: skip
        self.d_embedding = d_embedding
        self.project: nn.Linear | None = None
        if d_embedding != d_model:
            self.words = nn.Embedding(n_tokens, d_embedding)
            self.positions = nn.Embedding(n_positions, d_embedding)
            self.segments = nn.Embedding(n_segments, d_embedding)
            self.norm, self.project = LayerNorm(d_embedding, eps), nn.Linear(d_embedding, d_model)
            for module in (self.words, self.positions, self.segments, self.project):
                initialise(module)

    def embed(self, tokens: Int[Tensor, "b n"], segments: Int[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Word, position and segment, added, normalised, with dropout, then mapped to the width of the states."""
        x = super().embed(tokens, segments)
        return x if self.project is None else self.project(x)


class ELECTRAForSentences(Pretrained, layout="electra"):
    """A class for a text or a pair: a layer with GELU on the first state, then a linear map.

    Args:
        encoder: The discriminator's.
        n_classes: At least 1.
        dropout: Before both layers; the encoder's unless given.

    Raises:
        ValueError: If n_classes is less than 1.
    """

    def __init__(self, encoder: ELECTRA, n_classes: int, dropout: float | None = None):
        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(encoder.dropout.p if dropout is None else dropout)
        self.hidden, self.output = new_layer(encoder, encoder.d_model), new_layer(encoder, n_classes)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Logits; arguments as for [`BERT`][papercode.encoders.bert.BERT.forward]."""
        first = self.dropout(self.encoder(tokens, segments, keep)[:, 0])
        return self.output(self.dropout(gelu(self.hidden(first))))


class ELECTRAForTokens(BERTForTokens, layout="electra"):
    """A class for each token, as with BERT.

    Args:
        encoder: The discriminator's.
        n_classes: At least 1.
        dropout: Before the new layer; the encoder's unless given.
    """

    def __init__(self, encoder: ELECTRA, n_classes: int, dropout: float | None = None):
        super().__init__(encoder, n_classes, dropout)


class ELECTRAForSpans(BERTForSpans, layout="electra"):
    """Where the answer to a question stands, as with BERT.

    Args:
        encoder: The discriminator's.
    """

    def __init__(self, encoder: ELECTRA):
        super().__init__(encoder)
