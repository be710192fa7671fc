r"""Attention: a decoder that looks back at the source before each word [@bahdanau2015neural].

The family's seam is a **score**: `score(query (b d), keys (b m e)) -> (b m)`, how well each key answers the query. The
softmax of the scores weighs the values ([`soft_select`][papercode.recurrent.bahdanau.soft_select]). The model of the
paper is [`RNNsearch`][papercode.recurrent.rnnsearch.RNNsearch].

Imports: a `Cell` is one step of a recurrent network [@hochreiter1997long]; the decoder's is a `GRUCell`, whose input
gains a term [@cho2014learning].

Symbols: b batch, m keys, i width of the inputs, d width of a query or state, e of a key, a width of the alignment model
(the paper's $n'$).

Differences from the paper:
    * A row with nothing to attend to gives weights and context of zeros. The paper's softmax is undefined there.
    * The update gate of `GRUCell` says how much to keep, as in its own paper; this paper's says how much to take. The
      two are one model, with $W_z$, $U_z$, $C_z$ and $b_z$ negated.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from papercode.recurrent.gru import GRUCell
from papercode.recurrent.unroll import Cell


class Score(nn.Module):
    """How well keys answer a query: `score(query, keys) -> (b m)`.

    A `Score` also says which part of its work needs the keys alone. A decoder asks once per step, of the same keys: it
    projects them once and then compares. Subclasses define `compare`, and `project` where there is something to gain.
    """

    def project(self, keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m a"]:
        """The part that needs the keys alone; the keys themselves unless overridden."""
        return keys

    def compare(self, query: Float[Tensor, "b d"], projected: Float[Tensor, "b m a"]) -> Float[Tensor, "b m"]:
        """The rest."""
        raise NotImplementedError

    def forward(self, query: Float[Tensor, "b d"], keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m"]:
        """The whole score."""
        return self.compare(query, self.project(keys))


class AdditiveScore(Score):
    r"""$v_a^\top \tanh(W_a q + U_a k + b)$, a network with one hidden layer (appendix A.1.2).

    Args:
        d: Width of the query.
        e: Width of a key.
        a: Width of the hidden layer.
        bias: Whether there is b.
    """

    def __init__(self, d: int, e: int, a: int, *, bias: bool = True):
        super().__init__()
        self.query = nn.Linear(d, a, bias=False)
        self.key = nn.Linear(e, a, bias=bias)
        self.v = nn.Linear(a, 1, bias=False)

    def project(self, keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m a"]:
        r"""$U_a k + b$: it does not depend on the query."""
        return self.key(keys)

    def compare(self, query: Float[Tensor, "b d"], projected: Float[Tensor, "b m a"]) -> Float[Tensor, "b m"]:
        """The score of each projected key."""
        return self.v(torch.tanh(self.query(query)[:, None] + projected)).squeeze(-1)


def masked_softmax(
    scores: Float[Tensor, "*rest m"], keep: Bool[Tensor, "*rest m"] | None = None
) -> Float[Tensor, "*rest m"]:
    """Softmax over the scores to keep (True); the others get 0, and so does all of a row that keeps none."""
    if keep is None:
        return scores.softmax(-1)
    # the lowest float and not -inf: a row without keys stays finite, forward and backward, and is set to zero
    return scores.masked_fill(~keep, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~keep, 0.0)


def soft_select(
    scores: Float[Tensor, "b m"], values: Float[Tensor, "b m e"], keep: Bool[Tensor, "b m"] | None = None
) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b m"]]:
    r"""The context $c = \sum_j \alpha_j v_j$ with $\alpha$ the softmax of the scores (Eq. 5 and 6).

    Args:
        scores: Of the keys, one for each value.
        values: What is averaged.
        keep: True at values that may be attended to, False at padding; all unless given.

    Returns:
        The context, and the weights; zeros, with gradients of zero, in a row that keeps nothing.
    """
    weights = masked_softmax(scores, keep)
    return (weights[:, None] @ values).squeeze(1), weights


class Memory(NamedTuple):
    """What a decoder looks back at, the same in all its steps.

    Attributes:
        keys: (b m e), what is averaged: the annotations of the source.
        projected: (b m a), what the score needs of them.
        keep: (b m), True at those that may be attended to.
    """

    keys: Tensor
    projected: Tensor
    keep: Tensor


class SearchState(NamedTuple):
    r"""What an attending decoder hands to its next step. The memory goes with it, so that rows stay together.

    Attributes:
        s: (b d), the state.
        context: (b e), what the step that led here saw of the source, $c_i$.
        weights: (b m), where it looked, $\alpha_i$.
        memory: What there is to see.
    """

    s: Tensor
    context: Tensor
    weights: Tensor
    memory: Memory


class SearchCell(Cell):
    r"""A decoder's step: look at the source with the previous state, then move on (appendix A.2.2).

    $$c_i = \sum_j \alpha_{ij} h_j, \quad \alpha_i = \mathrm{softmax}_j\, a(s_{i-1}, h_j), \quad
    s_i = \mathrm{GRU}(s_{i-1}, [y_{i-1}, c_i])$$

    Args:
        i: Width of the inputs, the embedded previous words.
        d: Width of the state.
        e: Width of the keys.
        score: Asks with the state (b d), which keys (b m e) fit; an `AdditiveScore` in the paper.
    """

    def __init__(self, i: int, d: int, e: int, score: Score):
        super().__init__()
        self.width, self.score = d, score
        self.gru = GRUCell(i, d)
        self.context = nn.Linear(e, 3 * d, bias=False)

    def begin(
        self, s: Float[Tensor, "b d"], keys: Float[Tensor, "b m e"], keep: Bool[Tensor, "b m"] | None = None
    ) -> SearchState:
        """The state before the first step: nothing seen yet, but the keys projected once for all steps."""
        keep = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device) if keep is None else keep
        memory = Memory(keys, self.score.project(keys), keep)
        return SearchState(s, keys.new_zeros(len(keys), keys.shape[2]), keys.new_zeros(keys.shape[:2]), memory)

    def start(self, x: Float[Tensor, "b *rest"]) -> SearchState:
        """There is none without a source.

        Raises:
            TypeError: Always.
        """
        raise TypeError("SearchCell needs a state: begin(s, keys, keep) makes the first")

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """What the gates and the candidate need of the previous word."""
        return self.gru.project(x)

    def step(self, projected: Float[Tensor, "b p"], state: SearchState) -> SearchState:
        """One word further."""
        memory = state.memory
        scores = self.score.compare(state.s, memory.projected)
        context, weights = soft_select(scores, memory.keys, memory.keep)
        s = self.gru.step(projected + self.context(context), state.s)
        return SearchState(s, context, weights, memory)
