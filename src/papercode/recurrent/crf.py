r"""Conditional random fields over the tags of a sentence [@huang2015bidirectional].

Imports: the score of one path, of the best path, and the sum over all, from the module of
[`Potentials`][papercode.recurrent.crf_paths.Potentials].

A path $y_1 \dots y_n$ through the tags has the score $\sum_t (A_{y_{t-1} y_t} + f_{t, y_t})$, where f are the scores
that a network gives (emissions) and A the transitions. Its probability is the exponential of the score, divided by the
sum of those of all paths [@lafferty2001conditional].

Symbols: b batch, n steps, k tags, s scores that a network must give at each step.

Differences from the paper:
    * There are scores for the first and for the last tag of a sentence; the paper has transitions only.
    * Transitions may be forbidden: their score is minus infinity, in training as in decoding.
    * `PairCRF` is the more general one of a later paper [@ma2016end].
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.recurrent.crf_paths import Potentials, path_score, total, viterbi


class Allowed(NamedTuple):
    """Which paths through the tags there are.

    Attributes:
        transitions: (k k), whether a tag (column) may follow another (row).
        start: (k), whether a path may begin with a tag.
        end: (k), whether it may end with it.
    """

    transitions: Bool[Tensor, "k k"]
    start: Bool[Tensor, " k"]
    end: Bool[Tensor, " k"]


class CRF(nn.Module):
    """A distribution over paths; subclasses say in `potentials` what the scores of a network mean.

    Args:
        n_tags: k.
        allowed: What paths there are; all unless given.

    Attributes:
        n_scores: s, how many scores it asks for at each step.

    Raises:
        ValueError: If `allowed` is not about k tags.
    """

    n_scores: int

    def __init__(self, n_tags: int, *, allowed: Allowed | None = None):
        super().__init__()
        if n_tags < 1:
            raise ValueError(f"n_tags={n_tags} must be at least 1")
        if allowed is not None and [x.shape for x in allowed] != [(n_tags, n_tags), (n_tags,), (n_tags,)]:
            raise ValueError(f"allowed has the shapes {[tuple(x.shape) for x in allowed]}, but n_tags={n_tags}")
        self.n_tags = n_tags
        self.no_transitions: Tensor | None
        self.no_start: Tensor | None
        self.no_end: Tensor | None
        for name, which in zip(Allowed._fields, allowed or [None] * 3):
            self.register_buffer(f"no_{name}", None if which is None else ~which, persistent=False)

    def potentials(self, scores: Float[Tensor, "b n s"]) -> Potentials:
        """What the scores of a network mean, without what is forbidden."""
        raise NotImplementedError

    def constrained(self, scores: Float[Tensor, "b n s"]) -> Potentials:
        """The potentials, minus infinity where something is forbidden.

        Raises:
            ValueError: If there are not s scores at each step.
        """
        if scores.shape[-1] != self.n_scores:
            raise ValueError(f"scores {tuple(scores.shape)} must have n_scores={self.n_scores} at each step")
        emissions, *others = self.potentials(scores)
        masks = self.no_transitions, self.no_start, self.no_end
        return Potentials(
            emissions, *(x if no is None else x.masked_fill(no, -math.inf) for x, no in zip(others, masks))
        )

    def log_partition(
        self, scores: Float[Tensor, "b n s"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b"]:
        """log Z, the log of the sum of the exponentials of the scores of all paths."""
        return total(self.constrained(scores), lengths).to(_precise(scores))

    def score(
        self, scores: Float[Tensor, "b n s"], tags: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b"]:
        """The score of one path a row; minus infinity if it is forbidden."""
        return path_score(self.constrained(scores), tags, lengths).to(_precise(scores))

    def forward(
        self, scores: Float[Tensor, "b n s"], tags: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b"]:
        """The loss of each row: minus the log-likelihood of its path, summed over its steps.

        Args:
            scores: What the network says.
            tags: The true path; what stands at the padding has no influence.
            lengths: How many steps each row has, from 1 to n; all n unless given.

        Raises:
            ValueError: If shapes do not fit, or a length is not within 1 and n.
        """
        potentials = self.constrained(scores)
        return (total(potentials, lengths) - path_score(potentials, tags, lengths)).to(_precise(scores))

    @torch.no_grad()
    def decode(
        self, scores: Float[Tensor, "b n s"], lengths: Int[Tensor, " b"] | None = None
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, " b"]]:
        """The best path of each row, 0 at the padding, and its score (Viterbi's algorithm)."""
        return viterbi(self.constrained(scores), lengths)

    def marginals(
        self, scores: Float[Tensor, "b n s"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n k"]:
        """The probability of each tag at each step, summed over all paths; 0 at the padding.

        The largest of each step need not make a path that is allowed, and are seldom the best path.
        """
        with torch.inference_mode(False), torch.enable_grad():
            potentials = self.constrained(scores.detach().clone())
            emissions = potentials.emissions.detach().requires_grad_()
            (found,) = torch.autograd.grad(total(potentials._replace(emissions=emissions), lengths).sum(), emissions)
        return found


def _precise(scores: Tensor) -> torch.dtype:
    """Sums over a sentence are float32 at least, whatever the network's scores are."""
    return torch.promote_types(scores.dtype, torch.float32)


class LinearChainCRF(CRF):
    """One score for each tag at each step, and a matrix of transitions that is the same everywhere.

    Args:
        n_tags: k.
        allowed: What paths there are; all unless given.
    """

    def __init__(self, n_tags: int, *, allowed: Allowed | None = None):
        super().__init__(n_tags, allowed=allowed)
        self.n_scores = n_tags
        self.transitions = nn.Parameter(torch.empty(n_tags, n_tags).uniform_(-0.1, 0.1))
        self.start = nn.Parameter(torch.empty(n_tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(n_tags).uniform_(-0.1, 0.1))

    def potentials(self, scores: Float[Tensor, "b n s"]) -> Potentials:
        """The scores are the emissions."""
        return Potentials(scores, self.transitions, self.start, self.end)


class PairCRF(CRF):
    r"""A score for each pair of tags at each step [@ma2016end]: transitions that depend on the words.

    The paper's $\psi_t(y', y, z) = \exp(W_{y'y}^\top z_t + b_{y'y})$, where y' comes before y, is this layer after a
    linear map from $z_t$ to its scores. At the first step y' is a tag of its own, the start. Its sum over
    all paths is computed in logs: there is no one matrix for all steps.

    Args:
        n_tags: k.
        allowed: What paths there are; all unless given.
    """

    def __init__(self, n_tags: int, *, allowed: Allowed | None = None):
        super().__init__(n_tags, allowed=allowed)
        self.n_scores = (n_tags + 1) * n_tags

    def potentials(self, scores: Float[Tensor, "b n s"]) -> Potentials:
        """Scores are k rows, one for each tag that may come before, and one row for the start."""
        pairs = scores.unflatten(-1, (self.n_tags + 1, self.n_tags))
        first = pairs[:, :1, -1]
        emissions = torch.cat([first, torch.zeros_like(pairs[:, 1:, -1])], 1)
        nothing = scores.new_zeros(self.n_tags)
        return Potentials(emissions, pairs[:, 1:, :-1], nothing, nothing)
