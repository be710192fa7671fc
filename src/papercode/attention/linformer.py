r"""Linformer [@wang2020linformer]: n keys and values are mixed into k before anybody looks at them.

Imports: `attention` looks at the mixtures, `check` and `as_band` are what every attend asks of its arguments
[@vaswani2017attention].

Symbols: b batch, h heads of the queries, g heads of keys and values, n queries, m keys, d and e widths in a head. The
paper's $k$ = n_mixtures, its $n$, the length that a model is made for = n_max, $E_i$ and $F_i$ = E and F.

Differences from the paper:
    * An input shorter than n_max is treated as one filled up with zeros: the first m columns of E are used. The paper
      trains and tests at one length.
    * Keys that a mask leaves out are set to zero before they are mixed, and so are their values. Behind E no mask could
      reach them. The paper says nothing about padding.
    * A mask or bias that tells queries apart (causal, for instance) is refused: a mixture holds all positions at once.
    * E starts as N(0, 1/n_max), so that a mixture of unit vectors has about unit length. The paper does not say.
    * Max pooling, which section 4 mentions beside mean pooling and convolution, is left out: in a maximum the zeros of
      the padding would win against negative numbers.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.arguments import Mask, check
from papercode.attention.masks import as_band
from papercode.attention.transformer import attention


class SequenceProjection(nn.Module):
    """The matrix E: k mixtures of up to n_max positions, learned position by position (section 4).

    Args:
        n_max: Longest sequence.
        n_mixtures: k.
        n_heads: 1, and all heads share the matrix (the paper's headwise sharing), or the number of heads of the keys,
            and each has its own.

    Raises:
        ValueError: If a size is less than 1, or the input is longer than n_max or has another number of heads.
    """

    def __init__(self, n_max: int, n_mixtures: int, n_heads: int = 1):
        super().__init__()
        _positive(n_max=n_max, n_mixtures=n_mixtures, n_heads=n_heads)
        self.weight = nn.Parameter(torch.randn(n_heads, n_mixtures, n_max) * n_max**-0.5)

    def forward(self, x: Float[Tensor, "b g m d"]) -> Float[Tensor, "b g k d"]:
        """Mixes the m positions of each head."""
        _fits(x, self.weight.shape[2])
        if self.weight.shape[0] not in (1, x.shape[1]):
            raise ValueError(f"x has {x.shape[1]} heads, this projection was made for n_heads={self.weight.shape[0]}")
        return self.weight[:, :, : x.shape[2]] @ x


class MeanPooling(nn.Module):
    """A projection without parameters: k means over n_max / k neighbours each (section 4, general projections).

    Args:
        n_max: Longest sequence.
        n_mixtures: k.

    Raises:
        ValueError: If a size is less than 1, n_max is no multiple of n_mixtures, or the input is longer than n_max.
    """

    def __init__(self, n_max: int, n_mixtures: int):
        super().__init__()
        self.n_max, self.stride = n_max, _stride(n_max, n_mixtures)

    def forward(self, x: Float[Tensor, "b g m d"]) -> Float[Tensor, "b g k d"]:
        """Averages; positions that are not there count as zeros."""
        return _filled(x, self.n_max).unflatten(2, (-1, self.stride)).mean(3)


class StridedConvolution(nn.Module):
    """A projection that is a convolution, with kernel and stride n_max / k (section 4, general projections).

    Args:
        n_max: Longest sequence.
        n_mixtures: k.
        width: d, of the heads of whatever is projected; the kernel is shared by all heads.

    Raises:
        ValueError: If a size is less than 1, n_max is no multiple of n_mixtures, or the input is longer than n_max.
    """

    def __init__(self, n_max: int, n_mixtures: int, width: int):
        super().__init__()
        _positive(width=width)
        self.n_max, stride = n_max, _stride(n_max, n_mixtures)
        self.convolution = nn.Conv1d(width, width, stride, stride, bias=False)  # a bias would give padding a voice

    def forward(self, x: Float[Tensor, "b g m d"]) -> Float[Tensor, "b g k d"]:
        """Convolves along the positions; those that are not there count as zeros."""
        filled = _filled(x, self.n_max).flatten(0, 1).mT
        return self.convolution(filled).mT.unflatten(0, x.shape[:2])


class LinformerAttention(nn.Module):
    r"""An `attend`: $\mathrm{softmax}(q (E k)^\top / \sqrt d)\, F v$ (Eq. 7), in time and memory that grow with n · k.

    Parameters are shared by passing the same module. `LinformerAttention(E, F)` shares E among the heads,
    `LinformerAttention(E)` also between keys and values, and one E given to the attention of every layer is the
    paper's layerwise sharing.

    Args:
        E: Projects keys, (b g m d) -> (b g k d), without a bias: zeros must become zeros.
        F: Projects values; E unless given.
        attend: What is done with the queries and the mixtures.

    Raises:
        ValueError: If a mask or a bias tells queries apart, or a mask is for another number of keys.
    """

    def __init__(self, E: nn.Module, F: nn.Module | None = None, attend: Callable[..., Tensor] = attention):
        super().__init__()
        self.E, self.F, self.attend = E, E if F is None else F, attend

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g m d"],
        v: Float[Tensor, "b g m e"],
        *,
        mask: Mask | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h n e"]:
        """The mask may leave out keys for all queries alike, as padding does: (b 1 1 m), or a Band of keep alone."""
        check(q, k, v, mask, bias, dropout)
        if bias is not None:
            raise ValueError("bias is for pairs of a query and a key, but keys are mixed before any query sees them")
        keep = _kept_keys(mask, k.shape[2])
        if keep is not None:
            keep = keep[:, None, :, None]
            k, v = k.masked_fill(~keep, 0.0), v.masked_fill(~keep, 0.0)
        return self.attend(q, self.E(k), self.F(v), scale=scale, dropout=dropout)


def _kept_keys(mask: Mask | None, m: int) -> Tensor | None:
    band = as_band(mask)
    if band is None or band.left is not None or band.right is not None:
        what = f"mask of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"mask={mask}"
        raise ValueError(
            f"{what} may let one query see a key that it hides from another (as a causal mask does), but the keys are "
            "mixed before any query sees them; leave out keys for all queries alike, with a mask of shape (b 1 1 m)"
        )
    if band.keep is not None and band.keep.shape[1] != m:
        raise ValueError(f"keep is for {band.keep.shape[1]} keys, but there are {m}")
    return band.keep


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def _stride(n_max: int, n_mixtures: int) -> int:
    _positive(n_max=n_max, n_mixtures=n_mixtures)
    if n_max % n_mixtures:
        raise ValueError(f"n_max={n_max} is no multiple of n_mixtures={n_mixtures}")
    return n_max // n_mixtures


def _fits(x: Tensor, n_max: int) -> None:
    if x.shape[2] > n_max:
        raise ValueError(f"x has {x.shape[2]} positions, but this projection was made for n_max={n_max}")


def _filled(x: Tensor, n_max: int) -> Tensor:
    _fits(x, n_max)
    return nn.functional.pad(x, (0, 0, 0, n_max - x.shape[2]))
