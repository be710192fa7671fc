r"""RoBERTa [@liu2019roberta]: BERT's model, trained longer, on more text, by a better recipe.

Imports: the encoder `BERT`, its heads for hidden words and for tasks, and `new_layer` [@devlin2019bert]; `attention`
[@vaswani2017attention]. What it is trained with is in `roberta_data` and `roberta_training`.

Symbols: b batch, n positions, c classes, d width.

Differences from the paper:
    * Positions are counted over the tokens that are not padding, from row pad + 1 of their table on, as in the authors'
      code; the rows up to pad hold nothing but the vector of padding. The paper has BERT's positions.
    * There is one kind of segment, so that its vector is the same for all tokens; the paper has two where the second
      task needs them. eps = 1e-5 is the authors' code's.
    * A text's class is read by a layer with tanh of its own, with dropout on both sides, and not by the pooler.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.attention.transformer import attention
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import BERT
from papercode.encoders.bert_pretraining import BERTForMaskedLM, new_layer
from papercode.encoders.bert_tasks import BERTForMultipleChoice, BERTForSpans, BERTForTokens


class RoBERTa(BERT, layout="roberta"):
    """The encoder with its pooler; the defaults are the base model (section 5).

    Args:
        n_tokens: Size of the vocabulary.
        n_segments: Kinds of segments.
        n_positions: The longest text.
        pad: The id of padding.
        d_model: Width of the residual stream.
        n_heads: Of attention.
        d_ff: Width inside the feed-forward networks.
        n_layers: How many.
        dropout: On embeddings, attention weights and sublayer outputs.
        eps: Of the norms.
        pooler: Whether there is one; it is not trained before a task is.
        attend: Given to every attention.

    Raises:
        ValueError: If pad is no id of the vocabulary.
    """

    def __init__(
        self,
        n_tokens: int = 50_265,
        *,
        n_segments: int = 1,
        n_positions: int = 512,
        pad: int = 1,
        d_model: int = 768,
        n_heads: int = 12,
        d_ff: int = 3072,
        n_layers: int = 12,
        dropout: float = 0.1,
        eps: float = 1e-5,
        pooler: bool = True,
        attend: Callable[..., Tensor] = attention,
    ):
        if not 0 <= pad < n_tokens:
            raise ValueError(f"pad={pad} must be an id, at least 0 and less than n_tokens={n_tokens}")
        super().__init__(
            n_tokens, n_segments=n_segments, n_positions=n_positions + pad + 1, d_model=d_model, n_heads=n_heads,
            d_ff=d_ff, n_layers=n_layers, dropout=dropout, eps=eps, pooler=pooler, attend=attend,
        )  # fmt: skip
        self.n_positions, self.pad = n_positions, pad

    def places(self, tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """The row of the table of positions for each token: pad + 1, pad + 2, …; `pad` itself for padding."""
        real = tokens != self.pad
        return real.cumsum(1) * real + self.pad

    def embed(self, tokens: Int[Tensor, "b n"], segments: Int[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Word, position and segment, added, normalised, with dropout.

        Raises:
            ValueError: If the text is longer than n_positions.
        """
        if tokens.shape[1] > self.n_positions:
            raise ValueError(f"tokens have length {tokens.shape[1]}, but n_positions={self.n_positions}")
        segments = torch.zeros_like(tokens) if segments is None else segments
        total = self.words(tokens) + self.positions(self.places(tokens)) + self.segments(segments)
        return self.dropout(self.norm(total))


class RoBERTaForMaskedLM(BERTForMaskedLM, layout="roberta"):
    """Names hidden words, which is all that RoBERTa is trained on first.

    Args:
        encoder: A pooler is not used.
    """

    def __init__(self, encoder: RoBERTa):
        super().__init__(encoder)


class RoBERTaForSentences(Pretrained, layout="roberta"):
    """A class for a text or a pair (section 5.1): a layer with tanh on the first state, then a linear map.

    Args:
        encoder: As pre-trained; a pooler is not used.
        n_classes: At least 1.
        dropout: Before both layers; the encoder's unless given.

    Raises:
        ValueError: If n_classes is less than 1.
    """

    def __init__(self, encoder: RoBERTa, n_classes: int, dropout: float | None = None):
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
        return self.output(self.dropout(self.hidden(first).tanh()))


class RoBERTaForMultipleChoice(BERTForMultipleChoice, layout="roberta"):
    """Which of c continuations (section 5.3), as with BERT.

    Args:
        encoder: With its pooler.
        dropout: Before the new layer; the encoder's unless given.
    """

    def __init__(self, encoder: RoBERTa, dropout: float | None = None):
        super().__init__(encoder, dropout)


class RoBERTaForTokens(BERTForTokens, layout="roberta"):
    """A class for each token, as with BERT.

    Args:
        encoder: A pooler is not used.
        n_classes: At least 1.
        dropout: Before the new layer; the encoder's unless given.
    """

    def __init__(self, encoder: RoBERTa, n_classes: int, dropout: float | None = None):
        super().__init__(encoder, n_classes, dropout)


class RoBERTaForSpans(BERTForSpans, layout="roberta"):
    """Where the answer to a question stands (section 5.2), as with BERT.

    Args:
        encoder: A pooler is not used.
    """

    def __init__(self, encoder: RoBERTa):
        super().__init__(encoder)
