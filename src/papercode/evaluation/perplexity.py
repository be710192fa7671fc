r"""Perplexity: among how many equally likely tokens a model seems to choose, $e^{-\frac1n \sum_i \ln p(x_i)}$.

It is the exponential of the mean of all tokens, not a mean of the sentences' perplexities. Log-probabilities are
natural ones (nats). Models whose tokens differ can be compared only per unit that they share, such as words.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def log_probabilities(
    logits: Float[Tensor, "*n v"], targets: Int[Tensor, "*n"], *, keep: Bool[Tensor, "*n"] | None = None
) -> Float[Tensor, "*n"]:
    """ln p of each target.

    Args:
        logits: Scores of all v tokens.
        targets: The tokens that came. At the padding they may be any number.
        keep: True = a token, False = padding, whose log-probability is 0. All are tokens unless given.
    """
    if keep is not None:
        targets = targets.where(keep, 0)
    log_p = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return log_p if keep is None else log_p.where(keep, 0)


def perplexity(
    log_p: Float[Tensor, "*n"], *, keep: Bool[Tensor, "*n"] | None = None, units: int | None = None
) -> float:
    """Perplexity of all tokens together; of several batches, joined by whoever calls.

    Args:
        log_p: ln p of each token.
        keep: True = a token, False = padding, which does not count. All are tokens unless given.
        units: Divide by this number, of words for instance, in place of the number of tokens.

    Raises:
        ValueError: If there is no token, or units is less than 1.
    """
    log_p = log_p.flatten() if keep is None else log_p[keep]
    if not len(log_p) or (units is not None and units < 1):
        raise ValueError(f"tokens={len(log_p)} and units={units} must be at least 1")
    return torch.exp(-log_p.double().sum() / (units or len(log_p))).item()
