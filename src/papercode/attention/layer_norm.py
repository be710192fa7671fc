r"""Layer normalisation [@ba2016layer]: the features of one example are brought to mean 0 and variance 1.

Imports: nothing from an older paper.

Symbols: the paper's $a$ (summed inputs) = x, $H$ = d, $\mu$ and $\sigma$ = mean and standard deviation over the d
features of **one** vector, $g$ = gain, $b$ = bias.

Differences from the paper:
    * $\sigma^2 + \varepsilon$ stands under the root, so that a constant vector gives zeros and not NaN. The equations
      of section 3 have no $\varepsilon$.
    * The variance divides by d, as in Eq. 3; `torch.Tensor.std` divides by d - 1 unless told otherwise.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    r"""$g \odot (x - \mu) / \sqrt{\sigma^2 + \varepsilon} + b$ over the last axis [@ba2016layer, Eq. 3 and 4].

    Nothing is shared between examples or positions, so there are no running statistics, and training and evaluation
    compute the same.

    Args:
        d: Width of the vectors to normalise.
        eps: Added to the variance.

    Raises:
        ValueError: If d is less than 1, or the input's last axis is not d wide.
    """

    def __init__(self, d: int, eps: float = 1e-5):
        super().__init__()
        if d < 1:
            raise ValueError(f"d={d} must be at least 1")
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Normalises each vector of x by itself."""
        self._check(x)
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return self.gain * (x - mean) * (variance + self.eps).rsqrt() + self.bias

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != len(self.gain):
            raise ValueError(f"x is {x.shape[-1]} wide, this LayerNorm was made for d={len(self.gain)}")


class FusedLayerNorm(LayerNorm):
    """The same map in one pass over memory, by PyTorch's kernel; the plain one makes a tensor for each operation."""

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Normalises each vector of x by itself."""
        self._check(x)
        return nn.functional.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)


def fuse_norms(model: nn.Module) -> nn.Module:
    """Puts a FusedLayerNorm with the same parameters in place of each LayerNorm of a model, and returns the model."""
    plain = [module for module in model.modules() if type(module) is LayerNorm]
    fused: dict[nn.Module, nn.Module] = {norm: _fused(norm) for norm in plain}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in fused and name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, fused[module])
    return fused.get(model, model)


def _fused(norm: LayerNorm) -> FusedLayerNorm:
    with torch.device("meta"):
        fused = FusedLayerNorm(len(norm.gain), norm.eps)
    fused.gain, fused.bias = norm.gain, norm.bias
    return fused.train(norm.training)
