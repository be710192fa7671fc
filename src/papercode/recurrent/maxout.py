"""The maxout unit of the deep output layer [@cho2014learning, section 4.1; @goodfellow2013maxout]."""

from jaxtyping import Float
from torch import Tensor


def maxout(x: Float[Tensor, "*rest n"], pool: int = 2) -> Float[Tensor, "*rest k"]:
    """The largest of each group of `pool` neighbours: n numbers become k = n/pool.

    Args:
        x: What a linear layer makes; the groups lie side by side, as in $s_i = max(s'_{2i-1}, s'_{2i})$
            [@cho2014learning, appendix A.1.2].
        pool: Numbers in a group.

    Raises:
        ValueError: If pool is less than 1 or does not divide n.
    """
    if pool < 1 or x.shape[-1] % pool:
        raise ValueError(f"pool={pool} must be at least 1 and divide the width {x.shape[-1]}")
    return x.unflatten(-1, (-1, pool)).amax(-1)
