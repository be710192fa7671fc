r"""Rotary position embedding [@su2021roformer]: queries and keys are turned by an angle that grows with their position.

Imports: `attention`, which is given the turned queries and keys, `check` of its arguments, and `frequencies`, the
angles a position that the sinusoids have too [@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d width of a head, r how many
of its features are turned. The paper's $m$ and $n$ are positions of a query and of a key, its $\theta_i$ is
`frequencies(r)[i - 1]`, its $R^d_{\Theta,m}$ is [`rotate`][papercode.attention.rope.rotate].

Differences from the paper:
    * Other bases than 10000, and fewer turned features than d, can be asked for.
    * With `halves`, feature i is paired with i + r/2 and not with its neighbour: the same model with its features in
      another order, in which many checkpoints are stored.
    * Queries are the last n of the m positions unless something else is said; the paper has n = m.
    * Angles are computed in float64, and low precision is turned in float32 and rounded once.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.arguments import check
from papercode.attention.sinusoids import frequencies
from papercode.attention.transformer import attention

TABLE = 2**17
"""Turns of positions below this one are kept, those of later ones are computed when they are needed."""


def turns(
    positions: Tensor, r: int, base: float = 10000.0
) -> tuple[Float[Tensor, "*n half"], Float[Tensor, "*n half"]]:
    r"""$\cos(p\,\theta_i)$ and $\sin(p\,\theta_i)$ with $\theta_i = \mathrm{base}^{-2i/r}$, i = 0 … r/2 - 1 (Eq. 15).

    Args:
        positions: Any shape, whole or not, in units of one token.
        r: Number of features to turn, even.
        base: The slowest pair takes a little less than 2 pi base positions for a full turn.

    Returns:
        Both in float64, on the device of the positions.

    Raises:
        ValueError: If r is odd or base is not above 1.
    """
    if not base > 1:
        raise ValueError(f"base={base} must be more than 1: the frequencies are its powers from 0 down to almost -1")
    rates = frequencies(r) ** math.log(base, 10000)
    angles = positions.to(torch.float64)[..., None] * rates.to(positions.device)
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "*b d"], cos: Float[Tensor, "*n half"], sin: Float[Tensor, "*n half"], *, halves: bool = False
) -> Float[Tensor, "*b d"]:
    r"""Turns the first r features of x, taken in pairs: $(a, b)$ becomes $(a\cos - b\sin,\ b\cos + a\sin)$ (Eq. 34).

    Args:
        x: Queries or keys; features from r on, if there are any, stay as they are.
        cos: Of one angle a pair, (… r/2), from [`turns`][papercode.attention.rope.turns]; broadcasts to x.
        sin: Likewise.
        halves: Whether pair i is made of the features i and i + r/2. The paper's are 2i and 2i + 1.

    Raises:
        ValueError: If x has less than r features.
    """
    r = 2 * cos.shape[-1]
    if x.shape[-1] < r:
        raise ValueError(f"x has {x.shape[-1]} features, fewer than the r={r} that are to be turned")
    exact = torch.promote_types(x.dtype, torch.float32)
    cos, sin = cos.to(x.device, exact), sin.to(x.device, exact)
    shape, axis = ((2, r // 2), -2) if halves else ((r // 2, 2), -1)
    a, b = x[..., :r].unflatten(-1, shape).unbind(axis)
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], axis).flatten(-2).to(x.dtype)
    return turned if r == x.shape[-1] else torch.cat([turned, x[..., r:]], -1)


class Rotary(nn.Module):
    """An `attend` that turns q and k by their positions, and leaves the rest to another `attend`.

    It stands in self-attention only, where queries and keys are counted from the same first token. One object may
    serve all layers of a model; it keeps no parameters, only the table of its cosines and sines.

    With a [`KVCache`][papercode.attention.kv_cache.KVCache] around it, keys are stored as they were and turned in each
    step: nothing has to be said. With the cache inside, `Rotary(KVCache(attention))`, keys are turned once and stored
    turned; then each call needs `start`, the number of positions already in the cache.

    Args:
        attend: What is done with q and k when they are turned, and with v.
        base: Of the frequencies.
        width: r, how many features of a head are turned, even; all of them unless given.
        halves: How features are paired, see [`rotate`][papercode.attention.rope.rotate].

    Raises:
        ValueError: If width is odd or not positive, or base is not above 1.
    """

    def __init__(
        self,
        attend: Callable[..., Tensor] = attention,
        *,
        base: float = 10000.0,
        width: int | None = None,
        halves: bool = False,
    ):
        super().__init__()
        if width is not None and (width < 2 or width % 2):
            raise ValueError(f"width={width} must be even and at least 2: features are turned in pairs")
        if not base > 1:
            raise ValueError(f"base={base} must be more than 1")
        self.attend, self.base, self.width, self.halves = attend, base, width, halves
        self._tables: dict[tuple, tuple[Tensor, Tensor]] = {}

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g m d"],
        v: Float[Tensor, "b g m e"],
        *,
        start: int = 0,
        positions: Tensor | None = None,
        query_positions: Tensor | None = None,
        **kwargs,
    ) -> Float[Tensor, "b h n f"]:
        """Other kwargs (mask, bias, …) go to the inner attend.

        Args:
            q: Queries.
            k: Keys.
            v: Values; they are not turned.
            start: Position of the first key.
            positions: Of the keys, (m) or (b m), for rows that were padded or packed. They may be on the CPU.
            query_positions: Of the queries, (n) or (b n); the last n of the keys' unless given.

        Raises:
            ValueError: If the heads are narrower than `width`, or odd without it, or positions do not fit q and k.
        """
        check(q, k, v)
        n, m, d = q.shape[2], k.shape[2], q.shape[3]
        r = d if self.width is None else self.width
        if r > d or r % 2:
            raise ValueError(f"heads have width {d}: it must be even, or width={self.width} even and no more than it")
        if positions is None and query_positions is None:
            cos, sin = self._range(min(start, start + m - n), start + m, r, q)
            cos_q, sin_q = cos[len(cos) - n :], sin[len(sin) - n :]
            cos_k, sin_k = cos[len(cos) - m :], sin[len(sin) - m :]
        else:
            if start:
                raise ValueError(f"start={start} is for positions that are counted, not given: give one or the other")
            positions = torch.arange(m) if positions is None else positions
            cos_k, sin_k = self._given("positions", positions, k, r)
            if query_positions is None:
                if n > m:
                    raise ValueError(f"there are {n} queries and only {m} keys: query_positions must be given, too")
                query_positions = positions[..., m - n :]
            cos_q, sin_q = self._given("query_positions", query_positions, q, r)
        q, k = rotate(q, cos_q, sin_q, halves=self.halves), rotate(k, cos_k, sin_k, halves=self.halves)
        return self.attend(q, k, v, **kwargs)

    def _given(self, name: str, positions: Tensor, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        b, _, n, _ = x.shape
        if positions.shape not in ((n,), (1, n), (b, n)):
            wanted = f"({n}) or ({b} {n})"
            raise ValueError(f"{name} has shape {tuple(positions.shape)}, but must be {wanted}, one a position")
        cos, sin = turns(positions, r, self.base)
        return (cos, sin) if positions.ndim == 1 else (cos[:, None], sin[:, None])

    def _range(self, first: int, end: int, r: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Turns of the positions from `first` to before `end`, from a table that doubles when it is too short."""
        exact = torch.promote_types(x.dtype, torch.float32)
        if first < 0 or end > TABLE:
            cos, sin = turns(torch.arange(first, end), r, self.base)
            return cos.to(x.device, exact), sin.to(x.device, exact)
        key = (x.device, exact, r)
        if key not in self._tables or len(self._tables[key][0]) < end:
            with torch.inference_mode(False):  # made while generating, the table must still serve training
                cos, sin = turns(torch.arange(1 << (end - 1).bit_length()), r, self.base)
                self._tables[key] = cos.to(x.device, exact), sin.to(x.device, exact)
        cos, sin = self._tables[key]
        return cos[first:end], sin[first:end]
