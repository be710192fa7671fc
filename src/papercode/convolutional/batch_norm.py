r"""Batch normalisation [@ioffe2015batch]: each feature is brought to mean 0 and variance 1 over the mini-batch.

Imports: nothing from an older paper.

Symbols: b examples in the mini-batch, d or c features (channels), n or h × w positions. The paper's $m$ = values of one
feature in the mini-batch: b, or b n, or b h w. Its $\gamma$ = gain, $\beta$ = bias, $\mathcal{B}$ = the mini-batch.

Differences from the paper:
    * The population's mean and variance are moving averages, kept up while training (section 3.1 mentions them).
      What Algorithm 2 writes, an average over batches after training, is `estimate_population`.
    * A mini-batch with one value for each feature is refused: its variance is 0, and $m / (m - 1)$ is 1/0.
"""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Convolution = TypeVar("Convolution", nn.Conv1d, nn.Conv2d)


class BatchNorm1d(nn.Module):
    r"""$\gamma (x - \mu) / \sqrt{\sigma^2 + \varepsilon} + \beta$ for each feature [@ioffe2015batch, Alg. 1 and 2].

    While training, $\mu$ and $\sigma^2$ are those of the mini-batch, and gradients flow through them. In evaluation
    they are the running estimates `mean` and `variance`, so that the layer is a fixed affine map.

    Args:
        d: Number of features.
        eps: Added to the variance.
        momentum: How far the running estimates move towards the mini-batch's in each training step.

    Raises:
        ValueError: If d is less than 1, momentum is not in [0, 1], the input has another shape than (b d) or (b d n),
            or there is a single value for each feature while training.
    """

    ndims: tuple[int, ...] = (2, 3)
    """How many axes the input may have."""

    mean: Tensor
    variance: Tensor

    def __init__(self, d: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        if d < 1:
            raise ValueError(f"d={d} must be at least 1")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum} must lie between 0 and 1")
        self.eps, self.momentum = eps, momentum
        self.gain = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d))
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("variance", torch.ones(d))

    def forward(self, x: Float[Tensor, "b d *positions"]) -> Float[Tensor, "b d *positions"]:
        """Normalises each feature; while training, over the mini-batch and all positions."""
        if x.ndim not in self.ndims or x.shape[1] != len(self.gain):
            ndims = " or ".join(map(str, self.ndims))
            raise ValueError(f"x has shape {tuple(x.shape)}, need {ndims} axes, the second d={len(self.gain)} long")
        column = (-1, *[1] * (x.ndim - 2))
        if not self.training:
            scale, shift = self.affine()
            return x * scale.view(column) + shift.view(column)
        m = x.numel() // x.shape[1]
        if m < 2:
            raise ValueError(f"x of shape {tuple(x.shape)} has {m} value for each feature; training needs at least 2")
        axes = [0, *range(2, x.ndim)]
        mean = x.mean(axes)
        x = x - mean.view(column)
        variance = x.square().mean(axes)
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * (m / (m - 1)), self.momentum)  # Algorithm 2, line 10: unbiased
        return x * (self.gain * (variance + self.eps).rsqrt()).view(column) + self.bias.view(column)

    def affine(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
        r"""What evaluation does: scale $\gamma / \sqrt{\sigma^2 + \varepsilon}$ and shift $\beta - \mu \cdot$ scale.

        Algorithm 2, line 11, with the running estimates.
        """
        scale = self.gain * (self.variance + self.eps).rsqrt()
        return scale, self.bias - self.mean * scale


class BatchNorm2d(BatchNorm1d):
    """Each channel of images (b c h w) over the mini-batch and all places: m = b h w (section 3.2).

    Args:
        d: c, number of channels.
        eps: Added to the variance.
        momentum: How far the running estimates move towards the mini-batch's in each training step.

    Raises:
        ValueError: As [`BatchNorm1d`][papercode.convolutional.batch_norm.BatchNorm1d], but for inputs (b c h w).
    """

    ndims = (4,)


@torch.no_grad()
def estimate_population(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets all running estimates in model to the plain average over batches (Algorithm 2, lines 7 to 10).

    The layers normalise with the statistics of each batch meanwhile, as they do in training.

    Args:
        model: Called as model(batch); each norm is put back into the mode it was in.
        batches: Inputs, all equally large.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm1d)]
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    try:
        for k, batch in enumerate(batches, 1):
            for norm in norms:
                norm.training, norm.momentum = True, 1 / k
            model(batch)
    finally:
        for norm, training, momentum in before:
            norm.training, norm.momentum = training, momentum


@torch.no_grad()
def fold_into_convolution(convolution: Convolution, norm: BatchNorm1d) -> Convolution:
    """One convolution that computes what `norm.eval()` makes of `convolution`'s output.

    The norm is an affine map of each channel then, and so its scale goes into the weights and its shift into the bias.

    Args:
        convolution: Stands directly before norm; with or without bias, strided, grouped, …; left as it is.
        norm: With the running estimates that evaluation uses.

    Raises:
        ValueError: If norm has another number of channels than convolution gives.
    """
    if convolution.out_channels != len(norm.gain):
        raise ValueError(f"convolution gives {convolution.out_channels} channels, norm was made for d={len(norm.gain)}")
    scale, shift = norm.affine()
    folded = copy.deepcopy(convolution)
    folded.weight.mul_(scale.view(-1, *[1] * (folded.weight.ndim - 1)))
    folded.bias = nn.Parameter(shift if convolution.bias is None else convolution.bias * scale + shift)
    return folded
