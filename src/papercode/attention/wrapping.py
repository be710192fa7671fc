r"""Putting something around every attention of a model for a while, for instance to look at its weights.

Imports: `MultiHeadAttention` [@vaswani2017attention], whose `attend` is the place to do it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.transformer import MultiHeadAttention


class Watch(nn.Module):
    """An `attend` that also keeps its weights, one tensor (b h n m) a call, in the list `weights`.

    Attention is linear in the values. With the identity for values a query therefore brings home its weights.

    Args:
        attend: What is watched; its result is passed on unchanged.
    """

    def __init__(self, attend: Callable[..., Tensor]):
        super().__init__()
        self.attend = attend
        self.weights: list[Tensor] = []

    def forward(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m e"], **kwargs
    ) -> Float[Tensor, "b h n e"]:
        """Weights are kept without dropout and without gradient."""
        identity = torch.eye(v.shape[2], dtype=v.dtype, device=v.device).expand(*v.shape[:3], -1)
        with torch.no_grad():
            self.weights.append(self.attend(q, k, identity, **{**kwargs, "dropout": 0.0}))
        return self.attend(q, k, v, **kwargs)


@contextmanager
def wrapped(model: nn.Module, wrap: Callable[[Callable], Callable]) -> Iterator[dict]:
    """Within the context each `MultiHeadAttention` in model has `wrap(attend)` for its attend.

    Args:
        model: Where to look for attentions.
        wrap: Called once an attention, for instance [`Watch`][papercode.attention.wrapping.Watch].

    Yields:
        What `wrap` returned, by the name of the attention in the model.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MultiHeadAttention)}
    before = {name: layer.attend for name, layer in layers.items()}
    within = {name: wrap(attend) for name, attend in before.items()}
    _replace(layers, within)
    try:
        yield within
    finally:
        _replace(layers, before)


def _replace(layers: dict[str, MultiHeadAttention], attends: dict) -> None:
    for name, layer in layers.items():
        del layer.attend  # torch keeps modules and functions in two places, and would not put one over the other
        layer.attend = attends[name]
