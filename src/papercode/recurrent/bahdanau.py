r"""Attention: a decoder that looks back at the source before each word [@bahdanau2015neural].

The family's seam is a **score**: `score(query (b d), keys (b m e)) -> (b m)`, how well each key answers the query. The
softmax of the scores weighs the values ([`soft_select`][papercode.recurrent.bahdanau.soft_select]).

Symbols: b batch, m keys, d width of a query, e of a key, a width of the alignment model (the paper's $n'$).

Differences from the paper:
    * A row with nothing to attend to gives weights and context of zeros. The paper's softmax is undefined there.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


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
