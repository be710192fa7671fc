"""Layouts in which queries, keys and values are one matrix, head after head with its blocks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from papercode.checkpoints.config import Config
from papercode.checkpoints.files import resolve
from papercode.checkpoints.layout import Layout, Rule

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class HeadByHead(Rule):
    """One matrix for several of ours, side by side within each head.

    Args:
        n_heads: Number of heads.
    """

    n_heads: int = 1

    def filled(self, numbers: Any) -> "HeadByHead":
        """The same rule for one layer."""
        plain = super().filled(numbers)
        return HeadByHead(plain.theirs, plain.ours, n_heads=self.n_heads)

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Their tensor as ours; as it is, if it cannot be cut, so that its shape is complained of."""
        if tensor.ndim != 2 or tensor.shape[0] % (len(self.parts) * self.n_heads):
            return (tensor,) * len(self.parts)
        blocks = tensor.unflatten(0, (self.n_heads, len(self.parts), -1))
        return tuple(block.flatten(0, 1).contiguous() for block in blocks.unbind(1))

    def join(self, tensors: Any) -> Tensor:
        """Ours as theirs."""
        return torch.stack([tensor.unflatten(0, (self.n_heads, -1)) for tensor in tensors], 1).flatten(0, 2)


class HeadLayout(Layout):
    """A layout some of whose rules have to know the number of heads: num_attention_heads of its configuration."""

    def load(self, cls: type[M], folder: str | Path, dtype: torch.dtype | None = None) -> M:
        """As for a [`Layout`][papercode.checkpoints.layout.Layout]."""
        n_heads = Config.read(resolve(folder)).values.get("num_attention_heads", 1)
        return super(HeadLayout, self._for(n_heads)).load(cls, folder, dtype)

    def save(self, model: nn.Module, folder: str | Path) -> None:
        """As for a [`Layout`][papercode.checkpoints.layout.Layout]."""
        n_heads = self.configuration(model)["num_attention_heads"]
        super(HeadLayout, self._for(n_heads)).save(model, folder)

    def _for(self, n_heads: int) -> "HeadLayout":
        return replace(
            self, rules=[replace(r, n_heads=n_heads) if isinstance(r, HeadByHead) else r for r in self.rules]
        )
