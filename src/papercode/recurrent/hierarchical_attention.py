r"""Hierarchical attention networks: words make sentences, sentences make a document [@yang2016hierarchical].

Imports: the masked softmax and the weighted sum are those of the attention of translation [@bahdanau2015neural]; the
recurrent unit is the GRU [@cho2014learning], run in both directions along packed sequences [@hochreiter1997long].

Symbols: b documents, s sentences, n words of a sentence, k width of a word vector, d units of a direction, a width of
the hidden layer of an attention, c classes. The paper's $h_{it}$ = annotation of word t in sentence i, $u_{it}$ = its
hidden representation, $u_w$, $u_s$ = context vectors of words and of sentences, $\alpha$ = weights, $v$ = the document.

Differences from the paper:
    * Its GRU lets the reset gate act on the product with the state. So does `ResetAfterGRUCell`, which has one more
      bias inside the gate, as cuDNN does.
    * A document holds any number of sentences, of any length. Padding gets the weight 0; nothing is computed for it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.recurrent.bahdanau import soft_select
from papercode.recurrent.gru import ResetAfterGRUCell
from papercode.recurrent.layers import Recurrent
from papercode.recurrent.unroll import unroll

PADDING = 0
"""The token that fills up sentences and documents."""


class AttentionPool(nn.Module):
    r"""Many vectors to one (Eq. 5 to 7).

    $$u_t = \tanh(W h_t + b), \qquad \alpha = \mathrm{softmax}_t(u_t^\top u), \qquad s = \sum_t \alpha_t h_t$$

    It is additive attention whose query is nothing: the context vector u, the same for all inputs, asks "which is the
    informative one?".

    Args:
        d: Width of the vectors.
        a: Width of the hidden layer, and of u.
    """

    def __init__(self, d: int, a: int):
        super().__init__()
        self.hidden = nn.Linear(d, a)
        self.context = nn.Parameter(torch.empty(a).uniform_(-(a**-0.5), a**-0.5))

    def forward(
        self, h: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
        """The weighted sum, and the weights; zeros in a row that keeps nothing.

        Args:
            h: The vectors.
            keep: True at vectors, False at padding; all unless given.
        """
        return soft_select(torch.tanh(self.hidden(h)) @ self.context, h, keep)


class Reading(NamedTuple):
    """How documents were read.

    Attributes:
        logits: (b c), of the classes.
        sentences: (b s), the weights of the sentences; they add up to 1 in each document.
        words: (b s n), the weights of the words; they add up to 1 in each sentence.
    """

    logits: Tensor
    sentences: Tensor
    words: Tensor


class HAN(nn.Module):
    """The network: a bidirectional GRU and an attention over words, and the same once more over sentences.

    Args:
        embedding: Of the words, (v k); the paper's are 200 wide, from word2vec [@mikolov2013distributed].
        n_classes: c.
        d: Units of each direction.
        a: Width of both attentions' hidden layers.
        run: What runs a cell along the sequences: `unroll`, or `fused`.
    """

    def __init__(self, embedding: nn.Embedding, n_classes: int, *, d: int = 50, a: int = 100, run: Callable = unroll):
        super().__init__()

        def cell(i: int) -> ResetAfterGRUCell:
            return ResetAfterGRUCell(i, d)

        self.embedding = embedding
        self.words = Recurrent(cell, embedding.embedding_dim, bidirectional=True, run=run)
        self.word_attention = AttentionPool(2 * d, a)
        self.sentences = Recurrent(cell, 2 * d, bidirectional=True, run=run)
        self.sentence_attention = AttentionPool(2 * d, a)
        self.output = nn.Linear(2 * d, n_classes)

    def read(self, tokens: Int[Tensor, "b s n"]) -> Reading:
        """Classifies documents, and tells where it looked.

        Nothing is computed for padding. All sentences of all documents go through the words' layers as one batch.

        Args:
            tokens: Words, filled up behind with 0; so are the documents, with empty sentences.

        Raises:
            ValueError: If a document has no word, or padding stands before a word or a sentence.
        """
        real = tokens != PADDING
        lengths = real.sum(-1)
        filled = lengths > 0
        if not filled.any(1).all() or _holes(real) or _holes(filled):
            raise ValueError("tokens must hold a word in each document, and padding (0) stands behind all words")
        flat, keep = tokens[filled], real[filled]
        h, _ = self.words(self.embedding(flat), lengths=lengths[filled])
        vectors, weights = self.word_attention(h, keep)

        sentences = vectors.new_zeros(*tokens.shape[:2], vectors.shape[-1]).masked_scatter(filled[..., None], vectors)
        words = weights.new_zeros(tokens.shape).masked_scatter(filled[..., None], weights)
        h, _ = self.sentences(sentences, lengths=filled.sum(1))
        document, weights = self.sentence_attention(h, filled)
        return Reading(self.output(document), weights, words)

    def forward(self, tokens: Int[Tensor, "b s n"]) -> Float[Tensor, "b c"]:
        """Logits of the classes; see `read`."""
        return self.read(tokens).logits


def _holes(real: Bool[Tensor, "*rest n"]) -> bool:
    """Whether something stands behind padding."""
    return bool((real[..., 1:] & ~real[..., :-1]).any())


def pad_documents(documents: Sequence[Sequence[Sequence[int]]]) -> Int[Tensor, "b s n"]:
    """One tensor of documents, which are lists of sentences, which are lists of words.

    Raises:
        ValueError: If there is no document, a document has no sentence, or a sentence has no word or the word 0.
    """
    if not documents or not all(documents):
        raise ValueError("documents must be one or more, each with a sentence")
    if not all(sentence and PADDING not in sentence for document in documents for sentence in document):
        raise ValueError("each sentence needs a word, and 0 is the padding, not a word")
    s, n = max(map(len, documents)), max(len(sentence) for document in documents for sentence in document)
    tokens = torch.full((len(documents), s, n), PADDING)
    for row, document in enumerate(documents):
        for column, sentence in enumerate(document):
            tokens[row, column, : len(sentence)] = torch.tensor(sentence)
    return tokens


def word_importance(reading: Reading) -> Float[Tensor, "b s n"]:
    r"""$\sqrt{p_s} p_w$: how the paper shades a word (section 3.6), of its sentence's weight and its own.

    With the root, the words of a sentence that hardly counts can still be seen.
    """
    return reading.sentences.sqrt()[..., None] * reading.words
