r"""LoRA [@hu2022lora]: a frozen map plus a trainable product of two thin matrices, $W_0 + \frac{\alpha}{r} BA$.

Imports: nothing from other papers; LoRA wraps any module that maps (…, d_in) to (…, d_out). `low_rank_linear` and
`low_rank_add` are forward and backward of Eq. 3 in one piece (same paper).

Symbols: d_in, d_out widths of the map, r rank. The paper's $W_0 \in \mathbb{R}^{d \times k}$ = base with d = d_out and
k = d_in; $A$ (r d_in), $B$ (d_out r), $\alpha$ = alpha, $\Delta W$ = `LoRALinear.delta()`.

Differences from the paper:
    * The paper draws A from N(0, sigma^2) and gives no sigma: here 1 / sqrt(d_in), so that Ax has variance 1 if x has.
      (The authors' code and peft draw A from a uniform distribution instead.)
    * Dropout falls on the input of A. The paper gives rates (appendix D) but not the place.
    * A and B, and their gradients, are float32 even where the base is narrower. The products with them run in the
      dtype of the base's output.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from papercode.adaptation.lora_function import can_fuse, low_rank_add, low_rank_linear


class LoRALinear(nn.Module):
    r"""$h = W_0 x + \frac{\alpha}{r} BAx$ (section 4.1, Eq. 3), where base computes $W_0 x$, bias included.

    Freezes nothing: see [`freeze`][papercode.adaptation.lora_report.freeze]. Merged, it is as fast as base alone, and
    A and B get no gradient. `weight` and `bias` are what a plain map in its place would hold.

    Args:
        base: The map to adapt. It tells its widths as in_features and out_features (nn.Linear, quantised maps),
            or as nx and nf with a weight of (d_in, d_out) (GPT-2's Conv1D). Only merging needs a floating-point
            parameter `weight`.
        r: Rank.
        alpha: The update is scaled by alpha / r. The paper sets it to the first r tried and leaves it there.
        dropout: Probability with which an entry of the input of A is zeroed while training.

    Raises:
        TypeError: If base does not tell its widths.
        ValueError: If base is adapted already, r < 1, r > min(d_in, d_out) or alpha <= 0.
    """

    _names: tuple[tuple[str, str, bool], ...] = (("in_features", "out_features", False), ("nx", "nf", True))

    def __init__(self, base: nn.Module, r: int, alpha: float | int, *, dropout: float = 0.0):
        super().__init__()
        if isinstance(base, LoRALinear):
            raise ValueError(f"base is adapted already: {base.extra_repr()}")
        d_in, d_out, self.transposed = self._widths(base)
        if not 1 <= r <= min(d_in, d_out):
            raise ValueError(f"r={r} must be at least 1 and at most min(d_in={d_in}, d_out={d_out})")
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha={alpha} must be positive and finite")
        self.in_features, self.out_features = d_in, d_out
        self.r, self.alpha = r, float(alpha)
        self.base, self.dropout, self.merged = base, nn.Dropout(dropout), False
        tensors = [*base.parameters(), *base.buffers()]
        dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
        device = tensors[0].device if tensors else None
        self.A = nn.Parameter(torch.empty(r, d_in, dtype=dtype, device=device))
        self.B = nn.Parameter(torch.empty(d_out, r, dtype=dtype, device=device))
        self.reset_parameters()
        self.train(base.training)

    def reset_parameters(self) -> None:
        """A Gaussian, B zero: the adapted map starts as base, exactly."""
        nn.init.normal_(self.A, std=self.in_features**-0.5)
        nn.init.zeros_(self.B)

    def _widths(self, base: nn.Module) -> tuple[int, int, bool]:
        for d_in, d_out, transposed in self._names:
            if hasattr(base, d_in) and hasattr(base, d_out):
                return getattr(base, d_in), getattr(base, d_out), transposed
        names = " or ".join(f"{d_in} and {d_out}" for d_in, d_out, _ in self._names)
        raise TypeError(f"cannot adapt {type(base).__name__} with {type(self).__name__}: it has no {names}")

    def factors(self) -> tuple[Float[Tensor, "r d_in"], Float[Tensor, "d_out r"]]:
        """A and B as the two factors of the whole update; a subclass that stores them otherwise puts them together."""
        return self.A, self.B

    def delta(self) -> Float[Tensor, "d_out d_in"]:
        r"""$\Delta W = \frac{\alpha}{r} BA$."""
        A, B = self.factors()
        return self.alpha / self.r * (B @ A)

    def update(self, x: Float[Tensor, "*n d_in"]) -> Float[Tensor, "*n d_out"]:
        r"""$\Delta W x$ in two thin steps, without dropout."""
        A, B = self.factors()
        return linear(self.alpha / self.r * linear(x.to(A.dtype), A), B)

    def forward(self, x: Float[Tensor, "*n d_in"]) -> Float[Tensor, "*n d_out"]:
        """The adapted map."""
        if self.merged:
            return self.base(x)
        (A, B), scale, keep = self.factors(), self.alpha / self.r, None
        if self.dropout.training and (p := self.dropout.p):
            keep = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p)
            scale = scale / (1 - p) if p < 1 else 0.0
        if can_fuse(self.base):
            return low_rank_linear(x, self.base.weight, self.base.bias, A, B, scale, keep)
        return low_rank_add(self.base(x), x, A, B, scale, keep)

    def merge(self) -> None:
        """Adds the update to the base's weight, so that the adapter costs nothing; rounds to the weight's dtype.

        Raises:
            TypeError: If base holds no floating-point parameter `weight` of the right shape (int8 weights).
            ValueError: If it is merged, or if base does something else with its weight than multiply by it.
        """
        self._add(1)

    def unmerge(self) -> None:
        """Subtracts the update again: the base's weight comes back up to rounding, not bit by bit.

        Raises:
            ValueError: If it is not merged.
        """
        self._add(-1)

    def check(self, merged: bool) -> Tensor:
        """The weight that merging (or unmerging, if merged) would change, or the error that it would raise."""
        if self.merged != merged:
            raise ValueError(f"merged={self.merged}: {'there is nothing to unmerge' if merged else 'unmerge it first'}")
        weight = self.base._parameters.get("weight")
        shape = (self.in_features, self.out_features) if self.transposed else (self.out_features, self.in_features)
        if weight is None or not weight.is_floating_point() or weight.shape != shape:
            raise TypeError(
                f"cannot merge into {type(self.base).__name__}: it has no floating-point parameter `weight` "
                f"of shape {shape}; keep the adapter beside it"
            )
        return weight

    @torch.no_grad()
    def _add(self, sign: int) -> None:
        weight = self.check(merged=sign < 0)
        delta = self.delta().mT if self.transposed else self.delta()
        kept, probe = weight.clone(), self._probe(weight)
        expected = self.base(probe) + sign * self.update(probe)
        weight.copy_(weight + sign * delta)
        error, rounding = (self.base(probe) - expected).norm(), 8 * torch.finfo(weight.dtype).eps * kept.norm()
        if not weight.is_meta and error > 0.5 * self.update(probe).norm() + rounding * probe.numel() ** 0.5:
            weight.copy_(kept)
            raise ValueError(
                f"cannot merge into {type(self.base).__name__}: with the update in its weight its output is not the "
                "adapted one, so it does not simply multiply by `weight`; keep the adapter beside it"
            )
        self.merged = sign > 0

    def _probe(self, weight: Tensor) -> Tensor:
        return torch.linspace(-1, 1, self.in_features, dtype=weight.dtype, device=weight.device)[None]

    @property
    def weight(self) -> Tensor:
        """The weight in force, for code that reads weights instead of calling: W, plus the update unless merged."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        delta = self.delta().mT if self.transposed else self.delta()
        return weight if self.merged else (weight + delta).to(weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The base's bias, which LoRA leaves alone."""
        return self.base.bias  # type: ignore[return-value]

    def train(self, mode: bool = True) -> "LoRALinear":
        """Refuses to train while merged, when A and B would silently get no gradient."""
        if mode and self.merged:
            raise ValueError("merged=True: A and B would get no gradient; unmerge before train()")
        return super().train(mode)

    def get_extra_state(self) -> Tensor:
        """alpha and merged go with a full state dict: without them the same tensors are another function."""
        return torch.tensor([self.alpha, float(self.merged)], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over merged, and refuses another alpha."""
        if state[0].item() != self.alpha:
            raise ValueError(f"alpha={self.alpha:g} here, but alpha={state[0].item():g} in the state dict")
        self.merged = bool(state[1])

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"r={self.r}, alpha={self.alpha:g}, merged={self.merged}"
