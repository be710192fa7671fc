r"""Dilated windows: the same number of keys, d positions apart [@beltagy2020longformer, section 3.1].

Imports: `windowed` is the window without gaps (same paper), `Band` its mask, and `check` what every attend asks of its
arguments [@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d and e widths in a head; the
paper's dilation $d$ = dilation. A query at position i sees the positions i + j · dilation, for j from -left to right.

How: positions that see one another are equal modulo the dilation. So they are sorted into that many classes, and within
a class the window has no gaps.

Differences from the paper:
    * The paper needed a CUDA kernel of its own for dilation (section 3.2). Here it is ordinary windows in each class.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papercode.attention.arguments import check
from papercode.attention.masks import Band
from papercode.attention.windowed import windowed


@dataclass(frozen=True, eq=False)
class DilatedBand:
    """A mask: each query sees every dilation-th position, `left` of them before its own and `right` after it.

    Args:
        left: How many keys a query sees before its own position.
        right: How many after it.
        dilations: One for each head of the queries; 1 is a window without gaps.
        keep: False at keys that nobody may see (padding), (b m).

    Raises:
        TypeError: If keep is not a bool tensor.
        ValueError: If left or right is negative, a dilation is less than 1, or keep is not (b m).
    """

    left: int
    right: int
    dilations: tuple[int, ...]
    keep: Tensor | None = None

    def __post_init__(self):
        Band(self.left, self.right, self.keep)  # which knows what to refuse
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations={self.dilations} must be one or more numbers of at least 1")

    def __call__(
        self, n: int, m: int, device: torch.device | None = None
    ) -> Bool[Tensor, "h n m"] | Bool[Tensor, "b h n m"]:
        """The mask as a tensor, True = may attend; for backends that know nothing of dilation."""
        ahead = torch.arange(m, device=device) - torch.arange(m - n, m, device=device)[:, None]
        steps = torch.tensor(self.dilations, device=device)[:, None, None]
        seen = (ahead % steps == 0) & (ahead >= -self.left * steps) & (ahead <= self.right * steps)
        return seen if self.keep is None else seen & self.keep[:, None, None, :]


def dilated(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    *,
    mask: DilatedBand,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """Equal to [`attention`][papercode.attention.transformer.attention] under the same mask, in time O(n w).

    Args:
        q: Queries, the last n of the m positions.
        k: Keys. With fewer heads than q, each serves h / g heads of q in a row.
        v: Values.
        mask: A `DilatedBand` with a dilation for each head of q.
        bias: Float, broadcast to (b h n m), added to the scores.
        scale: Of the scores; 1 / sqrt(d) unless given.
        dropout: Probability with which a weight is set to zero.

    Raises:
        TypeError: If the mask is no `DilatedBand`, or another argument is of the wrong kind.
        ValueError: If the mask is for another number of heads, or shapes, dtypes or devices do not go together.
    """
    if not isinstance(mask, DilatedBand):
        raise TypeError(f"mask must be a DilatedBand, got {type(mask).__name__}; `windowed` takes a Band")
    check(q, k, v, None if mask.keep is None else mask.keep[:, None, None, :], bias, dropout)
    (h, n), (g, m) = q.shape[1:3], k.shape[1:3]
    if len(mask.dilations) != h:
        raise ValueError(f"mask has {len(mask.dilations)} dilations, but q has {h} heads")
    if bias is not None:
        bias = bias.expand(*q.shape[:3], m)
    y = v.new_zeros(*q.shape[:3], v.shape[3])
    for dilation in sorted(set(mask.dilations)):
        heads = [head for head in range(h) if mask.dilations[head] == dilation]
        shared = [head * g // h for head in heads]  # the head of k and v that serves each of them
        if len(heads) == h:
            heads, shared = slice(None), slice(None)  # type: ignore[assignment]
        for first in range(dilation):
            keys, queries = slice(first, None, dilation), slice((first - (m - n)) % dilation, None, dilation)
            y[:, heads, queries] = windowed(
                q[:, heads, queries],
                k[:, shared, keys],
                v[:, shared, keys],
                mask=Band(mask.left, mask.right, None if mask.keep is None else mask.keep[:, keys]),
                bias=None if bias is None else bias[:, heads, queries, keys],
                scale=scale,
                dropout=dropout,
            )
    return y
