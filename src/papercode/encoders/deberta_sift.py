r"""SiFT, fine-tuning against small changes of the word vectors [@he2021deberta, section 4].

Word vectors are normalised first, and the change is made to what is normalised: so its size does not depend on how
long the vectors of a model are, which grows with the model.

Imports: nothing from an older paper.

Symbols: b batch, n positions, d width.

Differences from the paper:
    * Normalised means mean 0 and variance 1, as in the authors' code. The paper has it "into stochastic vectors", whose
      entries would add up to 1.
    * The paper gives neither the size of the changes, nor the distance of predictions. Here they are what the
      authors' code has: a first change of deviation 0.01, one step up the gradient, whose largest entry at each
      position is 1e-4; and the symmetric Kullback-Leibler divergence.
    * The gradient of the loss reaches the word vectors through the changed text, too. In the authors' code it stops
      there, and one half of each divergence is taken for a constant.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, layer_norm, log_softmax


def normalised(vectors: Float[Tensor, "*b d"], eps: float = 1e-7) -> Float[Tensor, "*b d"]:
    """Each vector at mean 0 and variance 1. A norm that follows does not notice (but for eps)."""
    return layer_norm(vectors, vectors.shape[-1:], eps=eps)


def symmetric_kl(logits: Float[Tensor, "*b c"], others: Float[Tensor, "*b c"]) -> Float[Tensor, ""]:
    """KL(p || q) + KL(q || p) of the predictions, the mean over all of them."""
    p, q = (log_softmax(x.flatten(0, -2), -1) for x in (logits, others))
    return kl_div(p, q, log_target=True, reduction="batchmean") + kl_div(q, p, log_target=True, reduction="batchmean")


def worst_change(
    read: Callable[[Tensor], Tensor],
    vectors: Float[Tensor, "b n d"],
    *,
    start: float = 1e-2,
    step: float = 1e-4,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b n d"]:
    """A small change that moves the predictions more than others do.

    Args:
        read: From word vectors to logits.
        vectors: Normalised.
        start: Deviation of the random change to begin with, which is cut off at two of its own.
        step: How far the gradient is followed, at most, in each entry.
        generator: For the random change.

    Raises:
        ValueError: If start is not positive or step is negative: at no change at all the gradient is zero.
    """
    if start <= 0 or step < 0:
        raise ValueError(f"need start={start} > 0 and step={step} >= 0")
    vectors = vectors.detach()
    change = torch.empty_like(vectors).normal_(0, start, generator=generator).clamp_(-2 * start, 2 * start)
    change.requires_grad_()
    with torch.enable_grad():
        moved = symmetric_kl(read(vectors + change), read(vectors).detach())
        (slope,) = torch.autograd.grad(moved, change)
    return change.detach() + step * slope / (slope.abs().amax(-1, keepdim=True) + 1e-6)


def sift_loss(
    read: Callable[[Tensor], Tensor], vectors: Float[Tensor, "b n d"], **settings: Any
) -> tuple[Float[Tensor, "b c"], Float[Tensor, ""]]:
    """What to add to the loss of a task, times a weight.

    Args:
        read: From word vectors to logits, for instance the `classify` of a model.
        vectors: Of the words of the texts.
        settings: For [`worst_change`][papercode.encoders.deberta_sift.worst_change].

    Returns:
        The logits of the texts themselves, for the loss of the task; and how far a changed text is from them.
    """
    clean = normalised(vectors)
    change = worst_change(read, clean, **settings)
    logits = read(clean)
    return logits, symmetric_kl(read(clean + change), logits)
