r"""BERT on a task [@devlin2019bert, section 4]: one new layer on top, and everything is trained.

Imports: `BERT`, and `new_layer` with fresh weights (same paper).

Symbols: b batch, n positions, c classes or choices, d width. The paper's $C$ = states[:, 0], $T_i$ = states[:, i],
$W$ = classifier.weight, $S$ and $E$ = the two rows of span.weight.

Differences from the paper:
    * The new layers have a bias, and what reads a whole text reads the pooler's output and not C itself, as in the
      authors' code.
    * Before the new layer there is dropout, but not before that of spans, as in the authors' code.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import BERT
from papercode.encoders.bert_pretraining import new_layer


class BERTForSentences(Pretrained, layout="bert"):
    """A class for a text, or for a pair of texts (Figure 4 a and b): the logits are those of `softmax(C Wᵀ)`.

    Args:
        encoder: With its pooler, as pre-trained.
        n_classes: At least 1.
        dropout: Before the new layer; the encoder's unless given.

    Raises:
        ValueError: If the encoder has no pooler, or n_classes is less than 1.
    """

    def __init__(self, encoder: BERT, n_classes: int, dropout: float | None = None):
        super().__init__()
        self.encoder, self.dropout = encoder, _dropout(encoder, dropout)
        self.classifier = new_layer(encoder, n_classes, pooled=True)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Logits; arguments as for [`BERT`][papercode.encoders.bert.BERT.forward]."""
        return self.classifier(self.dropout(self.encoder.pool(self.encoder(tokens, segments, keep))))


class BERTForMultipleChoice(Pretrained, layout="bert"):
    """Which of c continuations (section 4.4): each is read together with the text, and gets one number.

    Args:
        encoder: With its pooler, as pre-trained.
        dropout: Before the new layer; the encoder's unless given.

    Raises:
        ValueError: If the encoder has no pooler.
    """

    def __init__(self, encoder: BERT, dropout: float | None = None):
        super().__init__()
        self.encoder, self.dropout = encoder, _dropout(encoder, dropout)
        self.classifier = new_layer(encoder, 1, pooled=True)

    def forward(
        self,
        tokens: Int[Tensor, "b c n"],
        segments: Int[Tensor, "b c n"] | None = None,
        keep: Bool[Tensor, "b c n"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Logits of the choices, of which there may be any number."""
        given = [None if x is None else x.flatten(0, 1) for x in (tokens, segments, keep)]
        pooled = self.dropout(self.encoder.pool(self.encoder(*given)))
        return self.classifier(pooled).view(tokens.shape[:2])


class BERTForTokens(Pretrained, layout="bert"):
    """A class for each token (Figure 4 d): one layer, the same for all positions.

    Args:
        encoder: As pre-trained; a pooler is not used.
        n_classes: At least 1.
        dropout: Before the new layer; the encoder's unless given.

    Raises:
        ValueError: If n_classes is less than 1.
    """

    def __init__(self, encoder: BERT, n_classes: int, dropout: float | None = None):
        super().__init__()
        self.encoder, self.dropout, self.classifier = encoder, _dropout(encoder, dropout), new_layer(encoder, n_classes)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Logits; those at padding, [CLS] and [SEP] mean nothing, as those of a word's second piece do in the paper."""
        return self.classifier(self.dropout(self.encoder(tokens, segments, keep)))


class BERTForSpans(Pretrained, layout="bert"):
    """Where the answer to a question stands (Figure 4 c, section 4.2): two vectors, for its first and its last token.

    Args:
        encoder: As pre-trained; a pooler is not used.
    """

    def __init__(self, encoder: BERT):
        super().__init__()
        self.encoder, self.span = encoder, new_layer(encoder, 2)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        r"""The scores of each token as the first and as the last, $S \cdot T_i$ and $E \cdot T_i$."""
        first, last = self.span(self.encoder(tokens, segments, keep)).unbind(-1)
        return first, last

    def loss(
        self,
        tokens: Int[Tensor, "b n"],
        first: Int[Tensor, " b"],
        last: Int[Tensor, " b"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Minus the log-likelihoods of the right first and last positions, added; the softmax runs over the tokens."""
        scores = self(tokens, segments, keep)
        if keep is not None:
            scores = tuple(x.masked_fill(~keep, -torch.inf) for x in scores)
        return cross_entropy(scores[0], first) + cross_entropy(scores[1], last)


def best_span(
    first: Float[Tensor, "b n"],
    last: Float[Tensor, "b n"],
    allowed: Bool[Tensor, "b n"] | None = None,
    longest: int = 30,
) -> tuple[Int[Tensor, "b 2"], Float[Tensor, " b"]]:
    r"""The span with the largest $S \cdot T_i + E \cdot T_j$, where $i \le j$ (section 4.2).

    Args:
        first: The scores as first token.
        last: The scores as last token.
        allowed: Where an answer may stand: in the paragraph, not in the question or the padding.
        longest: The most tokens of an answer. The paper has no limit, the authors' code has 30.

    Returns:
        i and j, and their score; -inf where nothing is allowed.

    Raises:
        ValueError: If longest is less than 1.
    """
    if longest < 1:
        raise ValueError(f"longest={longest} must be at least 1")
    n = first.shape[1]
    if allowed is not None:
        first, last = (x.masked_fill(~allowed, -torch.inf) for x in (first, last))
    place = torch.arange(n, device=first.device)
    length = place - place[:, None] + 1
    sums = first[:, :, None] + last[:, None, :]
    score, index = sums.masked_fill((length < 1) | (length > longest), -torch.inf).flatten(1).max(1)
    return torch.stack([index // n, index % n], 1), score


def all_states(
    encoder: BERT,
    tokens: Int[Tensor, "b n"],
    segments: Int[Tensor, "b n"] | None = None,
    keep: Bool[Tensor, "b n"] | None = None,
) -> list[Float[Tensor, "b n d"]]:
    """The sum of embeddings, then the states after each layer; arguments as for the encoder."""
    mask = None if keep is None else keep[:, None, None, :]
    states = [encoder.embed(tokens, segments)]
    for layer in encoder.layers:
        states.append(layer(states[-1], mask=mask))
    return states


def features(states: Sequence[Float[Tensor, "b n d"]], layers: int = 4) -> Float[Tensor, "b n k"]:
    """BERT without fine-tuning (section 5.3): the last layers' states side by side, for a model of one's own to read.

    Args:
        states: All of them.
        layers: How many to take; 4 is the paper's best.

    Returns:
        Vectors of width k = layers · d.

    Raises:
        ValueError: If there are not so many.
    """
    if not 1 <= layers <= len(states):
        raise ValueError(f"layers={layers} must be at least 1 and at most {len(states)}")
    return torch.cat(list(states[-layers:]), -1)


def _dropout(encoder: BERT, p: float | None) -> nn.Dropout:
    return nn.Dropout(encoder.dropout.p if p is None else p)
