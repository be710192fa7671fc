r"""RNNsearch, the first translation model with attention [@bahdanau2015neural].

Imports: the decoder's step and its score are the same paper's; the layers and the loop are those of all recurrent
networks [@hochreiter1997long]; `GRUCell` is the unit and `maxout` the output of the RNN encoder-decoder
[@cho2014learning].

Symbols: b batch, m source words, n target words, v target vocabulary. The paper's $m$ = d_embedding, $n$ = d,
$n'$ = d_score, $l$ = d_maxout, $s_i$ state after target word i, $h_j$ annotation of source word j, $c_i$ context.

Differences from the paper:
    * There are biases, one for each sum; appendix A omits them "to increase readability".
    * The output layer reads $s_{i-1}$, as the equation of appendix A.2.2 does; Eq. 4 has $s_i$.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.bahdanau import AdditiveScore, SearchCell, SearchState
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.layers import Recurrent
from papercode.recurrent.maxout import maxout
from papercode.recurrent.unroll import State, stepping, unroll


class DeepOutput(nn.Module):
    r"""Logits of the next word, through one layer of maxout units (appendix A.2.2).

    $$\tilde t_i = U_o s_{i-1} + V_o E y_{i-1} + C_o c_i, \quad t_{ij} = \max(\tilde t_{i,2j-1}, \tilde t_{i,2j}),
    \quad \mathrm{logits} = W_o t_i$$

    Args:
        d: Width of the state.
        i: Width of the previous word.
        e: Width of the context.
        d_maxout: Number of maxout units.
        n_tokens: Size of the vocabulary.
    """

    def __init__(self, d: int, i: int, e: int, d_maxout: int, n_tokens: int):
        super().__init__()
        self.state = nn.Linear(d, 2 * d_maxout)
        self.word = nn.Linear(i, 2 * d_maxout, bias=False)
        self.context = nn.Linear(e, 2 * d_maxout, bias=False)
        self.logits = nn.Linear(d_maxout, n_tokens)

    def forward(
        self, s: Float[Tensor, "*rest d"], x: Float[Tensor, "*rest i"], c: Float[Tensor, "*rest e"]
    ) -> Float[Tensor, "*rest v"]:
        """Previous state, previous word and context to logits."""
        t = self.state(s) + self.word(x) + self.context(c)
        return self.logits(maxout(t))


class RNNsearch(nn.Module):
    """A bidirectional encoder, and a decoder that looks back at all of it before each word.

    The defaults are the paper's sizes (appendix A.2.3).

    Args:
        n_source: Size of the source vocabulary.
        n_target: Size of the target vocabulary.
        d_embedding: Width of the word vectors on both sides.
        d: Hidden units, of each direction of the encoder and of the decoder.
        d_score: Hidden units of the alignment model.
        d_maxout: Maxout units of the output layer.
    """

    def __init__(
        self,
        n_source: int,
        n_target: int,
        *,
        d_embedding: int = 620,
        d: int = 1000,
        d_score: int = 1000,
        d_maxout: int = 500,
    ):
        super().__init__()
        self.source, self.target = nn.Embedding(n_source, d_embedding), nn.Embedding(n_target, d_embedding)
        self.encoder = Recurrent(lambda i: GRUCell(i, d), d_embedding, bidirectional=True)
        self.first = nn.Linear(d, d)
        self.decoder = SearchCell(d_embedding, d, 2 * d, AdditiveScore(d, 2 * d, d_score))
        self.output = DeepOutput(d, d_embedding, 2 * d, d_maxout, n_target)
        initialise(self)

    def encode(self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"] | None = None) -> SearchState:
        r"""Reads the source: the annotations, and $s_0 = \tanh(W_s \overleftarrow{h}_1)$.

        Args:
            source: The source words.
            lengths: How many each row has; the rest is padding. All m unless given.

        Returns:
            The state before the first target word.
        """
        annotations, (_, backward) = self.encoder(self.source(source), lengths=lengths)
        keep = None
        if lengths is not None:
            keep = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        return self.decoder.begin(torch.tanh(self.first(backward)), annotations, keep)

    def decode(
        self, target: Int[Tensor, "b n"], state: SearchState
    ) -> tuple[Float[Tensor, "b n v"], Float[Tensor, "b n m"]]:
        """Logits of the word after each target word, and where the model looked for it."""
        x = self.target(target)
        (s, contexts, weights), _ = unroll(self.decoder, x, state, emit=lambda new: new[:3])
        before = torch.cat([state.s[:, None], s[:, :-1]], 1)
        return self.output(before, x, contexts), weights

    def forward(
        self, source: Int[Tensor, "b m"], target: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n v"]:
        """Logits for all target positions, as in training: position i is fed the true word before it."""
        return self.decode(target, self.encode(source, lengths))[0]

    @torch.no_grad()
    def steps(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"] | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """A step for `greedy_search` and `beam_search` of papercode.decoding, which translates this source."""

        def advance(token: Tensor, before: State) -> tuple[Tensor, State]:
            x = self.target(token)
            state = self.decoder(x, before)
            return self.output(before.s, x, state.context), state

        return stepping(advance, self.encode(source, lengths))


@torch.no_grad()
def initialise(model: RNNsearch) -> None:
    r"""Draws the initial weights of appendix B.1.

    The recurrent matrices are orthogonal, $W_a$ and $U_a$ are $N(0, 0.001^2)$, $v_a$ and all biases are zero; the rest
    is $N(0, 0.01^2)$. So attention starts as the plain average of all annotations.
    """
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.01) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    for cell in (*model.encoder.cells, model.decoder.gru):
        for matrix in cell.hidden.weight.chunk(3):
            nn.init.orthogonal_(matrix)
    score: Any = model.decoder.score
    nn.init.normal_(score.query.weight, std=0.001)
    nn.init.normal_(score.key.weight, std=0.001)
    nn.init.zeros_(score.v.weight)
