r"""Disentangled attention [@he2021deberta, section 3.1]: what a word says and where it stands are two vectors.

The score of two words is a sum of three: what by what, what by where, where by what. "Where" is the distance alone, one
row of a table that all layers share.

Imports: `MultiHeadAttention` keeps q, k, v, o and its `attend`; c2c is done there, the rest is a bias to it
[@vaswani2017attention]. To look up one product for each distance, and not to write out a vector for each pair, is
known from @shaw2018self.

Symbols: b batch, h heads, n positions, d width of a head, r rows of the table, at most 2k. The paper's
$\delta(i, j)$ = rows[i, j], $P$ = table, $W_{k,r}$ = position_k, $W_{q,r}$ = position_q, $Q_c, K_c, V_c$ = q, k, v.

Differences from the paper:
    * Queries, values, the output and the positions' queries have a bias, keys do not, as in the authors' code. Eq. 4
      has no bias.
    * same_distance: in the authors' code, and so in every released model, p2c looks up $\delta(i, j)$. Eq. 4 and
      Algorithm 1 say $\delta(j, i)$, which is what is done unless told otherwise.
    * With a term left out, the scale counts those that are left, as in the authors' code; Eq. 4 knows three.
    * There is dropout on the table, in each layer by itself, as in the authors' code.
    * Rows of the table that a text is too short for are not looked at, as in the authors' code.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask
from papercode.attention.transformer import MultiHeadAttention, attention


class Relative(NamedTuple):
    """Where n positions stand to one another.

    Attributes:
        table: One vector for each distance (r d_model).
        rows: Which of them is for query i and key j (n n).
    """

    table: Tensor
    rows: Tensor


class Terms(NamedTuple):
    """The parts of the scores, before the scale; None where a part is left out.

    Attributes:
        c2c: Content to content (b h n n).
        c2p: Content to position, likewise.
        p2c: Position to content, likewise.
    """

    c2c: Tensor
    c2p: Tensor | None
    p2c: Tensor | None


def clipped(distance: Int[Tensor, "*n"], k: int) -> Int[Tensor, "*n"]:
    r"""$\delta$ of Eq. 3, a row between 0 and 2k - 1, of the distance i - j.

    It is not symmetric: -k and all below share row 0, k - 1 and all above share row 2k - 1.
    """
    return (distance + k).clamp(0, 2 * k - 1)


class RelativeTable(nn.Module):
    """P, the vectors of 2k distances, for all layers.

    Args:
        k: Distances of k and more, and of -k and less, are one.
        d_model: Width of the vectors.

    Raises:
        ValueError: If k is less than 1.
    """

    def __init__(self, k: int, d_model: int):
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        self.k, self.vectors = k, nn.Embedding(2 * k, d_model)

    def bucket(self, distance: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The row of a distance i - j; it never falls as the distance rises."""
        return clipped(distance, self.k)

    def table(self) -> Float[Tensor, "r d_model"]:
        """All rows."""
        return self.vectors.weight

    def forward(self, n: int) -> Relative:
        """What n positions need: the rows that occur, and which is whose."""
        place = torch.arange(n, device=self.vectors.weight.device)
        first, last = self.bucket(torch.tensor([1 - n, n - 1], device="cpu")).tolist()
        return Relative(self.table()[first : last + 1], self.bucket(place[:, None] - place) - first)


class DisentangledAttention(MultiHeadAttention):
    r"""Eq. 4: $\tilde{A}_{ij} = Q^c_i K^c_j + Q^c_i K^r_{\delta(i,j)} + K^c_j Q^r_{\delta(j,i)}$, over $\sqrt{3d}$.

    No tensor has a width for each pair: products with the rows of the table are made first, (b h n r) numbers, and
    then picked, as in Algorithm 1.

    Args:
        d_model: Width of the input, of the table and of the output.
        n_heads: h.
        c2p: Whether content looks at positions.
        p2c: Whether positions look at content.
        same_distance: Whether p2c, too, is looked up at the distance from the query to the key.
        dropout: On the weights and on the table, while training.
        attend: Is given q, k, v, and c2p + p2c as bias.

    Raises:
        ValueError: If d_model is not divisible by n_heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        c2p: bool = True,
        p2c: bool = True,
        same_distance: bool = False,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = attention,
    ):
        super().__init__(d_model, n_heads, dropout=dropout, attend=attend)
        self.c2p, self.p2c, self.same_distance = c2p, p2c, same_distance
        self.k = nn.Linear(d_model, d_model, bias=False)
        self.position_k = nn.Linear(d_model, d_model, bias=False) if c2p else None
        self.position_q = nn.Linear(d_model, d_model) if p2c else None

    @property
    def scale(self) -> float:
        """Of the sum: 1 / sqrt(d times the number of terms)."""
        return ((1 + self.c2p + self.p2c) * self.d_k) ** -0.5

    def heads(self, x: Float[Tensor, "*b n hd"]) -> Float[Tensor, "*b h n d"]:
        """What a map gives, cut into heads."""
        return x.unflatten(-1, (-1, self.d_k)).transpose(-3, -2)

    def position_keys(self, table: Float[Tensor, "r d_model"]) -> Float[Tensor, "h r d"]:
        """$K^r$, what each distance offers."""
        assert self.position_k is not None
        return self.heads(self.position_k(table))

    def position_queries(self, table: Float[Tensor, "r d_model"]) -> Float[Tensor, "h r d"]:
        """$Q^r$, what each distance looks for."""
        assert self.position_q is not None
        return self.heads(self.position_q(table))

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b n d_model"],
        memory: Float[Tensor, "b n d_model"] | None = None,
        *,
        relative: Relative,
        mask: Mask | None = None,
    ) -> Float[Tensor, "b n d_model"]:
        """Lets x attend to memory, whose position j is as far away as its own position j; to itself if there is none.

        Raises:
            ValueError: If relative is for another number of positions.
        """
        q, k, v = self._content(x, memory)
        parts = [part for part in self._by_position(q, k, relative) if part is not None]
        bias = sum(parts[1:], parts[0]) * self.scale if parts else None
        dropout = self.dropout if self.training else 0.0
        y = self.attend(q, k, v, mask=mask, bias=bias, scale=self.scale, dropout=dropout)
        return self.o(y.transpose(1, 2).flatten(2))

    def terms(
        self, x: Float[Tensor, "b n d_model"], memory: Float[Tensor, "b n d_model"] | None = None, *, relative: Relative
    ) -> Terms:
        """The parts of the scores, to look at."""
        q, k, _ = self._content(x, memory)
        return Terms(q @ k.mT, *self._by_position(q, k, relative))

    def _content(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        memory = x if memory is None else memory
        return self.heads(self.q(x)), self.heads(self.k(memory)), self.heads(self.v(memory))

    def _by_position(self, q: Tensor, k: Tensor, relative: Relative) -> tuple[Tensor | None, Tensor | None]:
        table, rows = relative
        if rows.shape != (q.shape[2], k.shape[2]):
            raise ValueError(f"relative is for {tuple(rows.shape)} positions, but there are {(q.shape[2], k.shape[2])}")
        table = nn.functional.dropout(table, self.dropout, self.training)
        c2p = p2c = None
        if self.c2p:
            c2p = _pick(q @ self.position_keys(table).mT, rows)
        if self.p2c:  # for key j and query i the row of j - i, put at i, j
            p2c = _pick(k @ self.position_queries(table).mT, rows.mT if self.same_distance else rows).mT
        return c2p, p2c


def _pick(x: Float[Tensor, "b h n r"], rows: Int[Tensor, "n m"]) -> Float[Tensor, "b h n m"]:
    return x.gather(-1, rows.expand(*x.shape[:2], -1, -1))
