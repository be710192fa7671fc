r"""What a layer costs and how far it sees [@vaswani2017attention, section 4 and Table 1].

Imports: nothing from an older paper's module.

Symbols: n sequence length, d width; the paper's $k$ = width of a convolution, $r$ = width of a neighbourhood.

Differences from the paper:
    * Operations are counted (a multiply-add is two), not only their order. So the four projections of attention, which
      Table 1 leaves out, have a row of their own.
    * Windows look back only, as in a decoder. One of the same width that looks both ways reaches half as far, and its
      path is twice as long.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor


def flops_per_layer(n: int, d: int, *, k: int = 3, r: int = 64) -> dict[str, int]:
    """Floating-point operations of one layer that maps n vectors of width d to as many, nonlinearities left out.

    Args:
        n: Sequence length.
        d: Width.
        k: Width of the convolution.
        r: Positions to which restricted attention looks.

    Returns:
        Operations by the name of the layer in Table 1, and those of attention's projections q, k, v and o.
    """
    return {
        "self-attention": 4 * n * n * d,  # scores and average
        "self-attention (restricted)": 4 * r * n * d,
        "projections q, k, v, o": 8 * n * d * d,
        "recurrent": 4 * n * d * d,  # W x + U h
        "convolutional": 2 * k * n * d * d,
        "convolutional (separable)": 2 * k * n * d + 2 * n * d * d,
    }


def window(n: int, width: int, dilation: int = 1) -> Bool[Tensor, "n n"]:
    """True where position i sees position j: itself and width - 1 earlier ones, `dilation` apart.

    Raises:
        ValueError: If width or dilation is less than 1.
    """
    if width < 1 or dilation < 1:
        raise ValueError(f"width={width} and dilation={dilation} must be at least 1")
    back = torch.arange(n)[:, None] - torch.arange(n)
    return (back >= 0) & (back < width * dilation) & (back % dilation == 0)


def path_length(layers: Iterable[Bool[Tensor, "n n"]]) -> int:
    """How many layers it takes until every position has seen every earlier one, in Table 1 the maximum path length.

    Args:
        layers: Who sees whom in the first layer, in the second, …; `itertools.repeat` for layers that are all alike.

    Raises:
        ValueError: If the layers end before that, or n of them are not enough: a path visits no position twice.
    """
    seen, count = None, 0
    for count, layer in enumerate(layers, 1):
        seen = layer if seen is None else layer.double() @ seen.double() > 0
        if (seen | torch.ones_like(seen).triu()).all():
            return count
        if count == len(seen):
            break
    raise ValueError(f"after {count} layers some position has not seen an earlier one")
