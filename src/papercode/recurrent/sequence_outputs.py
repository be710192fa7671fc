r"""What stands above the units, and how a sequence is scored: notes, and sound [@chung2014empirical, sections 2 and 4].

Imports: `Cell` and `unroll` [@hochreiter1997long].

Symbols: b batch, n steps, i width of a frame, d units, j width of what is predicted, k components of a mixture.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.unroll import Cell, State, unroll


class NextFrame(nn.Module):
    """Predicts each frame of a sequence of those before it; before the first one there is a frame of zeros.

    Args:
        cell: Reads the frames.
        output: Makes what it shows into a prediction: `nn.Linear` for notes, `GaussianMixture` for sound.
        run: What runs the cell: `unroll`, or `fused`.
    """

    def __init__(self, cell: Cell, output: nn.Module, run: Callable[..., tuple[Tensor, State]] = unroll):
        super().__init__()
        self.cell, self.output, self.run = cell, output, run

    def forward(self, frames: Float[Tensor, "b n i"], lengths: Int[Tensor, " b"] | None = None):
        """The prediction of each of the n frames."""
        before = nn.functional.pad(frames, (0, 0, 1, 0))[:, :-1]
        h, _ = self.run(self.cell, before, lengths=lengths)
        return self.output(h)


def notes_nll(logits: Float[Tensor, "b n i"], notes: Float[Tensor, "b n i"]) -> Float[Tensor, "b n"]:
    r"""$-\log p$ of each frame in nats: a logistic unit says of each note, on its own, whether it sounds.

    Args:
        logits: Before the logistic function.
        notes: 1 where a note sounds, else 0.
    """
    return nn.functional.binary_cross_entropy_with_logits(logits, notes, reduction="none").sum(-1)


def mean_nll(nll: Float[Tensor, "b n"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, ""]:
    """The mean over all real frames; all n of a row unless lengths are given."""
    if lengths is None:
        return nll.mean()
    keep = torch.arange(nll.shape[1], device=nll.device) < lengths[:, None]
    return nll.masked_fill(~keep, 0).sum() / keep.sum()


class Mixture(NamedTuple):
    """A mixture of Gaussians over vectors of j numbers that are independent within a component.

    Attributes:
        log_weights: (… k), of the components.
        mean: (… k j).
        scale: (… k j), standard deviations.
    """

    log_weights: Tensor
    mean: Tensor
    scale: Tensor


class GaussianMixture(nn.Module):
    """An output layer that predicts j numbers by a mixture of k Gaussians.

    Args:
        d: Width of the input.
        j: Numbers to predict together.
        k: Components; 20 in the paper.
        floor: The least standard deviation. Without one, a component that sits on a value that occurs again and again
            becomes narrower without end, and the likelihood grows without bound.
    """

    def __init__(self, d: int, j: int, k: int = 20, *, floor: float = 1e-3):
        super().__init__()
        self.j, self.k, self.floor = j, k, floor
        self.all = nn.Linear(d, k * (2 * j + 1))

    def forward(self, h: Float[Tensor, "*rest d"]) -> Mixture:
        """Weights, means and standard deviations."""
        weights, mean, scale = self.all(h).split([self.k, self.k * self.j, self.k * self.j], -1)
        shape = (self.k, self.j)
        return Mixture(
            weights.log_softmax(-1), mean.unflatten(-1, shape), self.floor + scale.unflatten(-1, shape).exp()
        )


def mixture_nll(mixture: Mixture, x: Float[Tensor, "*rest j"]) -> Float[Tensor, "*rest"]:
    r"""$-\log \sum_k \pi_k \prod_j N(x_j; \mu_{kj}, \sigma_{kj}^2)$ in nats."""
    distance = (x[..., None, :] - mixture.mean) / mixture.scale
    log_p = -0.5 * distance.square() - mixture.scale.log() - 0.5 * math.log(2 * math.pi)
    return -(mixture.log_weights + log_p.sum(-1)).logsumexp(-1)


def sample(mixture: Mixture, generator: torch.Generator | None = None) -> Float[Tensor, "*rest j"]:
    """A vector of each mixture: a component is drawn, and then a point of it."""
    weights = mixture.log_weights.exp()
    component = torch.multinomial(weights.flatten(0, -2), 1, generator=generator).view(*weights.shape[:-1], 1, 1)
    index = component.expand(*component.shape[:-1], mixture.mean.shape[-1])
    mean, scale = (part.gather(-2, index).squeeze(-2) for part in (mixture.mean, mixture.scale))
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + scale * noise


def windows(
    wave: Float[Tensor, "b samples"], past: int = 20, future: int = 10
) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b n f"]]:
    """Cuts sound into steps: the last `past` samples, and the `future` samples that follow and are to be predicted.

    Windows move on by `future` samples, so that each sample but the first `past` is predicted once. What does not fill
    a window at the end is left out.

    Raises:
        ValueError: If past or future is less than 1, or the sound too short for one window.
    """
    if past < 1 or future < 1 or wave.shape[1] < past + future:
        raise ValueError(f"past={past} and future={future} must be at least 1, together at most {wave.shape[1]}")
    cut = wave.unfold(1, past + future, future)
    return cut[..., :past], cut[..., past:]
