r"""Four scores and three ways to look: global and local attention [@luong2015effective].

Imports: what a `Score` is, what a decoder remembers of the source, and the masked softmax [@bahdanau2015neural].

A way to look is `attend(h, memory, t) -> (context, weights)`: h (b d) is the decoder's *current* state, t (b) the
number of its step, from 0. Its `score` is one of the four, or any other `Score`.

Symbols: b batch, m source words, d width of the decoder's state, e of the encoder's, a of the concat score's hidden
layer, w = 2D + 1 places of a window. The paper's $h_t$ = h, $\bar h_s$ = keys, $S$ = words of a row, $D$ = reach,
$p_t$ = centre. The paper counts positions from 1 and so does $p_t$; indices of tensors count from 0.

Differences from the paper:
    * `LocationScore` is normalised over the words that are there. Footnote 6 takes "the top part" of one softmax over
      all positions, which would not sum to 1.
    * A window with no word in it (local-m, long after the source has ended) gives a context of zeros. The paper does
      not say.
    * Where $p_t$ is no integer, a window has 2D places and not 2D + 1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.bahdanau import Memory, Score, masked_softmax, soft_select


class DotScore(Score):
    r"""$h_t^\top \bar h_s$; both have the same width."""

    def compare(self, query: Float[Tensor, "b d"], projected: Float[Tensor, "b m e"]) -> Float[Tensor, "b m"]:
        """The products.

        Raises:
            ValueError: If the widths differ.
        """
        if query.shape[1] != projected.shape[2]:
            raise ValueError(f"query has width {query.shape[1]} and keys {projected.shape[2]}: the dot needs one width")
        return (projected @ query[:, :, None]).squeeze(-1)


class GeneralScore(DotScore):
    r"""$h_t^\top W_a \bar h_s$.

    Args:
        d: Width of the query.
        e: Width of a key.
    """

    def __init__(self, d: int, e: int):
        super().__init__()
        self.key = nn.Linear(e, d, bias=False)

    def project(self, keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m d"]:
        r"""$W_a \bar h_s$: it does not depend on the query."""
        return self.key(keys)


class ConcatScore(Score):
    r"""$v_a^\top \tanh(W_a [h_t; \bar h_s])$: the additive score, with its two matrices side by side.

    Args:
        d: Width of the query.
        e: Width of a key.
        a: Width of the hidden layer.
    """

    def __init__(self, d: int, e: int, a: int):
        super().__init__()
        self.both, self.v = nn.Linear(d + e, a, bias=False), nn.Linear(a, 1, bias=False)
        self.d = d

    def project(self, keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m a"]:
        r"""The right part of $W_a$, times the keys."""
        return keys @ self.both.weight[:, self.d :].T

    def compare(self, query: Float[Tensor, "b d"], projected: Float[Tensor, "b m a"]) -> Float[Tensor, "b m"]:
        r"""Adds the left part of $W_a$, times the query."""
        return self.v(torch.tanh((query @ self.both.weight[:, : self.d].T)[:, None] + projected)).squeeze(-1)


class LocationScore(Score):
    r"""$W_a h_t$: one score for each position, whatever stands there (Eq. 8).

    Args:
        d: Width of the query.
        longest: How many positions there are; beside their words, those that come later get no weight (footnote 6). In
            a local window that holds later words alone, all weigh the same.
    """

    def __init__(self, d: int, longest: int):
        super().__init__()
        self.positions = nn.Linear(d, longest, bias=False)

    def project(self, keys: Float[Tensor, "b m e"]) -> Float[Tensor, "b m 1"]:
        """The number of each position, from 0."""
        return torch.arange(keys.shape[1], dtype=torch.float32, device=keys.device).expand(keys.shape[:2])[..., None]

    def compare(self, query: Float[Tensor, "b d"], projected: Float[Tensor, "b m 1"]) -> Float[Tensor, "b m"]:
        """The score of each of these positions."""
        scores, position = self.positions(query), projected.squeeze(-1).long()
        found = scores.gather(1, position.clamp(max=scores.shape[1] - 1))
        return found.masked_fill(position >= scores.shape[1], torch.finfo(scores.dtype).min)


class Global(nn.Module):
    """Looks at all of the source (section 3.1).

    Args:
        score: Compares the state with each word.
    """

    def __init__(self, score: Score):
        super().__init__()
        self.score = score

    def forward(
        self, h: Float[Tensor, "b d"], memory: Memory, t: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b m"]]:
        """The context and the weights."""
        return soft_select(self.score.compare(h, memory.projected), memory.keys, memory.keep)


class LocalM(Global):
    r"""Looks only near the word with the number of the step, $p_t = t$ (local-m, section 3.2).

    Only the words in the window $[p_t - D, p_t + D]$ are compared.

    Args:
        score: Compares the state with each word.
        reach: D, how far the window goes to either side.

    Raises:
        ValueError: If reach is negative.
    """

    def __init__(self, score: Score, reach: int = 10):
        super().__init__(score)
        if reach < 0:
            raise ValueError(f"reach={reach} must be at least 0")
        self.reach = reach

    def centre(self, h: Float[Tensor, "b d"], memory: Memory, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """$p_t$, counted from 1."""
        return (t + 1).to(h.dtype)

    def favour(self, distance: Float[Tensor, "b w"]) -> Float[Tensor, "b w"]:
        """What the weights are multiplied by, this far from the centre: 1."""
        return torch.ones_like(distance)

    def forward(
        self, h: Float[Tensor, "b d"], memory: Memory, t: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b m"]]:
        """The context, and the weights of all m words, zeros outside the window."""
        centre, m = self.centre(h, memory, t)[:, None], memory.keys.shape[1]
        first = torch.ceil(centre.detach() - self.reach)
        place = first + torch.arange(2 * self.reach + 1, device=h.device)  # counted from 1
        index = (place.long() - 1).clamp(0, m - 1)
        inside = (place >= 1) & (place <= m) & (place <= centre + self.reach) & memory.keep.gather(1, index)
        keys, projected = (x.gather(1, index[..., None].expand(-1, -1, x.shape[2])) for x in memory[:2])
        weights = masked_softmax(self.score.compare(h, projected), inside) * self.favour(place - centre)
        everywhere = weights.new_zeros(len(h), m).scatter_add(1, index, weights)
        return (weights[:, None] @ keys).squeeze(1), everywhere


class LocalP(LocalM):
    r"""Looks near a place that it predicts, $p_t = S \cdot \sigma(v_p^\top \tanh(W_p h_t))$ (local-p, Eq. 9 and 10).

    The weights are multiplied by $\exp(-(s - p_t)^2 / 2 \sigma^2)$, through which $W_p$ and $v_p$ learn.

    Args:
        score: Compares the state with each word.
        d: Width of the state.
        reach: D, how far the window goes to either side.
        sigma: Width of the Gaussian; D / 2 unless given. `math.inf` for none.

    Raises:
        ValueError: If reach is negative, or sigma not positive.
    """

    def __init__(self, score: Score, d: int, reach: int = 10, *, sigma: float | None = None):
        super().__init__(score, reach)
        self.sigma = reach / 2 if sigma is None else sigma
        if not self.sigma > 0:
            raise ValueError(f"sigma={self.sigma} must be positive (D / 2 with D = reach={reach} unless given)")
        self.hidden, self.v = nn.Linear(d, d, bias=False), nn.Linear(d, 1, bias=False)

    def centre(self, h: Float[Tensor, "b d"], memory: Memory, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """$p_t$, between 0 and the number of words."""
        return memory.keep.sum(1) * self.v(torch.tanh(self.hidden(h))).squeeze(-1).sigmoid()

    def favour(self, distance: Float[Tensor, "b w"]) -> Float[Tensor, "b w"]:
        """The Gaussian, 1 at the centre."""
        return torch.exp(-distance.square() / (2 * self.sigma**2))
