r"""Grouped-query attention [@ainslie2023gqa]: a head of keys and values for each group of heads of queries.

Imports: `MultiHeadAttention` [@vaswani2017attention], of which two maps are replaced, as in multi-query attention
[@shazeer2019fast], which is the case of one group; and its `attention`.

Symbols: b batch, n queries, m keys. The paper's $H$ = n_heads, $G$ = n_groups, and r = H / G heads of queries in a
group; e is the width of a key or of a value in a head, c that of the input.

Differences from the paper:
    * Biases are pooled as the weights are. The paper's model, T5, has none.
    * What is converted is the caller's choice: all attentions of the module that is given. The paper converts those of
      the decoder only (section 2.2).
    * Heads that are grouped already may be grouped further.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.transformer import MultiHeadAttention, attention

Pool = Callable[[nn.Linear, int, int], nn.Linear]
"""Makes the map with one head a group from (the map with all heads, its heads, the groups)."""


class GroupedQueryAttention(MultiHeadAttention):
    r"""Multi-head attention in which r = H / G heads of queries in a row share a key and a value (section 2.2).

    With one group it is multi-query attention, with as many as heads it is multi-head attention.

    Args:
        d_model: Width of the input and of the output.
        n_heads: H, heads of the queries.
        n_groups: G, heads of keys and values.
        d_k: Width of queries and keys in a head; d_model / n_heads unless given.
        d_v: Width of values in a head; d_k unless given.
        bias: Whether the four maps add a bias.
        dropout: On the attention weights, while training.
        attend: What is done with q (b H n d_k), k (b G m d_k) and v (b G m d_v).

    Raises:
        ValueError: If n_groups is less than 1, n_heads is not a multiple of n_groups, or d_k is not given and d_model
            is not divisible by n_heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_groups: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        attend: Callable[..., Tensor] = attention,
    ):
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"n_heads={n_heads} is not a multiple of n_groups={n_groups}")
        super().__init__(d_model, n_heads, d_k=d_k, d_v=d_v, bias=bias, dropout=dropout, attend=attend)
        self.k = nn.Linear(d_model, n_groups * self.d_k, bias=bias)
        self.v = nn.Linear(d_model, n_groups * self.d_v, bias=bias)


def mean_pool(linear: nn.Linear, n_heads: int, n_groups: int) -> nn.Linear:
    """A head of a group is the mean of the heads it replaces: the paper's choice (section 2.1, Figure 1).

    Of all that could stand for the heads of a group, their mean has the smallest sum of squared differences to them.
    """
    return _pooled(linear, n_heads, n_groups, lambda heads: heads.mean(1))


def first_head(linear: nn.Linear, n_heads: int, n_groups: int) -> nn.Linear:
    """A head of a group is the first of the heads it replaces: "First" of the ablation (Figure 4)."""
    return _pooled(linear, n_heads, n_groups, lambda heads: heads[:, 0])


def random_heads(linear: nn.Linear, n_heads: int, n_groups: int) -> nn.Linear:
    """The heads of all groups are drawn anew, as torch draws a map: "Random" of the ablation (Figure 4)."""
    weight = linear.weight
    rows = linear.out_features // n_heads * n_groups
    return nn.Linear(linear.in_features, rows, linear.bias is not None, weight.device, weight.dtype)


def to_grouped_query(model: nn.Module, n_groups: int, *, pool: Pool = mean_pool) -> list[str]:
    """Gives every attention in model G heads of keys and values, made from those it has, in place (section 2).

    Only the maps k and v are replaced, by new ones: an optimizer made before does not know them. Queries, outputs,
    `attend` and all else stay what they are, and a layer then does what a `GroupedQueryAttention` does. Maps that
    attentions share stay shared. For the decoder alone, as in the paper, give the decoder.

    Args:
        model: A module with `MultiHeadAttention` in it, or one itself.
        n_groups: G; the heads of keys and values that a layer has must be a multiple of it.
        pool: What becomes of the heads of a group: `mean_pool`, `first_head`, `random_heads`, or another.

    Returns:
        The names of the attentions.

    Raises:
        TypeError: If a k or v is no nn.Linear: an adapter, for instance, has to be merged first.
        ValueError: If there is no attention, n_groups is less than 1, or the heads of one are no multiple of it.
            Nothing is changed then.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MultiHeadAttention)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no MultiHeadAttention")
    made: dict[nn.Module, nn.Linear] = {}
    for name, layer in layers.items():
        for which, width in (("k", layer.d_k), ("v", layer.d_v)):
            old, path = getattr(layer, which), f"{name}.{which}".lstrip(".")
            if not isinstance(old, nn.Linear):
                raise TypeError(f"{path} must be an nn.Linear to be pooled, got {type(old).__name__}")
            heads = old.out_features // width
            if n_groups < 1 or heads % n_groups:
                raise ValueError(f"{path} has {heads} heads, no multiple of n_groups={n_groups}")
            if old not in made:
                made[old] = pool(old, heads, n_groups).train(old.training)
                for new, parameter in zip(made[old].parameters(), old.parameters(), strict=True):
                    new.requires_grad_(parameter.requires_grad)
    for layer in layers.values():
        layer.k, layer.v = made[layer.k], made[layer.v]
    return list(layers)


def _pooled(linear: nn.Linear, n_heads: int, n_groups: int, pool: Callable[[Tensor], Tensor]) -> nn.Linear:
    def pooled(parameter: Tensor) -> Float[Tensor, "rows *c"]:
        return pool(parameter.unflatten(0, (n_groups, n_heads // n_groups, -1))).flatten(0, 1)

    weight, bias = pooled(linear.weight), None if linear.bias is None else pooled(linear.bias)
    new = torch.nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype
    )
    new.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return new
