r"""Reversible residual layers [@kitaev2020reformer, section 3]: the input of a layer is computed from its output.

Imports: nothing from an older paper's module. The idea comes from reversible networks for images.

Symbols: b batch, n positions, d width. The paper's $F$ = f (attention), $G$ = g (feed-forward), $X_1$ $X_2$ = x1 x2,
$Y_1$ $Y_2$ = y1 y2.

Differences from the paper:
    * Everything random in a layer (dropout, the rotations of LSH attention) is seeded, so that it can be repeated.
      The paper does not mention it; without it the inputs would not come back.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ReversibleBlock(nn.Module):
    r"""$y_1 = x_1 + F(x_2)$, $y_2 = x_2 + G(y_1)$ (Eq. 7 and 9), and back again.

    Args:
        f: Called as f(x, **kwargs).
        g: Called as g(x).
    """

    def __init__(self, f: nn.Module, g: nn.Module):
        super().__init__()
        self.f, self.g = f, g

    def forward(
        self, x1: Float[Tensor, "*batch d"], x2: Float[Tensor, "*batch d"], **kwargs
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """kwargs (mask, …) go to f."""
        y1 = x1 + self.f(x2, **kwargs)
        return y1, x2 + self.g(y1)

    def inverse(
        self, y1: Float[Tensor, "*batch d"], y2: Float[Tensor, "*batch d"], **kwargs
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        r"""$x_2 = y_2 - G(y_1)$, $x_1 = y_1 - F(x_2)$ (Eq. 8): what forward was given, up to rounding.

        If f or g is random, torch's generator must stand where it stood (`ReversibleSequence` sees to it).
        """
        x2 = y2 - self.g(y1)
        return y1 - self.f(x2, **kwargs), x2


class ReversibleSequence(nn.Module):
    """Blocks one after the other, of which autograd keeps the last outputs and nothing else.

    In the backward pass each block's inputs are computed from its outputs, and its f and g once more, with gradients.
    There are no second derivatives.

    Args:
        blocks: Applied in this order.
    """

    def __init__(self, blocks: Iterable[ReversibleBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x1: Float[Tensor, "*batch d"], x2: Float[Tensor, "*batch d"], **kwargs
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """kwargs (mask, …) go to the f of every block; no gradient flows into them.

        Raises:
            ValueError: If a tensor in kwargs asks for a gradient.
        """
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(f"{name} requires a gradient, but a reversible sequence gives none to its kwargs")
        parameters = [p for p in self.parameters() if p.requires_grad]
        seed = int(torch.randint(2**62, (), device="cpu"))
        if torch.is_grad_enabled():
            return _Reversible.apply(self, kwargs, seed, x1, x2, *parameters)
        return self.run(x1, x2, seed, **kwargs)

    def run(self, x1: Tensor, x2: Tensor, seed: int, **kwargs) -> tuple[Tensor, Tensor]:
        """Forward, in the ordinary way of autograd. `seed` fixes all that is random."""
        for i, block in self._numbered():
            with _seeded(seed + 2 * i, x1):
                y = block.f(x2, **kwargs)
            x1 = x1 + y
            with _seeded(seed + 2 * i + 1, x1):
                y = block.g(x1)
            x2 = x2 + y
        return x1, x2

    def inverse(self, y1: Tensor, y2: Tensor, seed: int, **kwargs) -> tuple[Tensor, Tensor]:
        """What `run` was given, from what it returned with the same seed."""
        for i, block in reversed(self._numbered()):
            with _seeded(seed + 2 * i + 1, y1):
                y2 = y2 - block.g(y1)
            with _seeded(seed + 2 * i, y1):
                y1 = y1 - block.f(y2, **kwargs)
        return y1, y2

    def _numbered(self) -> list[tuple[int, Any]]:
        return list(enumerate(self.blocks))


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sequence: ReversibleSequence, kwargs: dict, seed: int, x1: Tensor, x2: Tensor, *parameters):
        ctx.sequence, ctx.kwargs, ctx.seed, ctx.parameters = sequence, kwargs, seed, parameters
        ctx.autocast = _autocast(x1)
        y1, y2 = sequence.run(x1, x2, seed, **kwargs)
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g1: Tensor, g2: Tensor):
        y1, y2 = ctx.saved_tensors
        gradients: dict[Tensor, Tensor] = {}

        def undo(function: nn.Module, x: Tensor, y: Tensor, gradient: Tensor, seed: int, kwargs: dict):
            """y - function(x), and the gradient of x; those of the parameters are added up."""
            own = [p for p in function.parameters() if p.requires_grad]
            with torch.enable_grad(), _seeded(seed, x), ctx.autocast:
                x = x.detach().requires_grad_()
                z = function(x, **kwargs)
            at_x, *at_own = torch.autograd.grad(z, [x, *own], gradient.to(z.dtype), allow_unused=True)
            for p, new in zip(own, at_own):
                if new is not None:
                    gradients[p] = gradients[p] + new if p in gradients else new
            return y - z.detach(), torch.zeros_like(x) if at_x is None else at_x

        for i, block in reversed(ctx.sequence._numbered()):
            y2, more = undo(block.g, y1, y2, g2, ctx.seed + 2 * i + 1, {})
            g1 = g1 + more
            y1, more = undo(block.f, y2, y1, g1, ctx.seed + 2 * i, ctx.kwargs)
            g2 = g2 + more
        return None, None, None, g1, g2, *(gradients.get(p) for p in ctx.parameters)


@contextmanager
def _seeded(seed: int, x: Tensor) -> Iterator[None]:
    """torch's generators as they are after `manual_seed`; afterwards they stand where they stood."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        yield


def _autocast(x: Tensor) -> Any:
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind))
