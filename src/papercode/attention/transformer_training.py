r"""How the Transformer was trained [@vaswani2017attention, sections 5.3 and 5.4]: learning rate and smoothed labels.

Imports: nothing from an older paper's module. Label smoothing is by @szegedy2016rethinking (section 7).

Symbols: the paper's $lrate$ = learning_rate, $step\_num$ = step, $warmup\_steps$ = warmup, $\epsilon_{ls}$ = smoothing.

Differences from the paper:
    * It does not say over how many tokens the loss is averaged; here it is the mean over all that are not padding.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def learning_rate(step: int, d_model: int = 512, warmup: int = 4000) -> float:
    r"""$d_{model}^{-1/2} \min(step^{-1/2},\ step \cdot warmup^{-3/2})$ (Eq. 3): up in a line, then slowly down.

    Args:
        step: Number of the step, from 1.
        d_model: Width of the model: the wider, the smaller the rate.
        warmup: The step at which the rate is highest.

    Raises:
        ValueError: If step or warmup is less than 1; step 0 would be 0 ** -0.5.
    """
    if step < 1 or warmup < 1:
        raise ValueError(f"step={step} and warmup={warmup} must be at least 1")
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def label_smoothing_loss(
    logits: Float[Tensor, "*n v"], target: Int[Tensor, "*n"], *, smoothing: float = 0.1, padding: int | None = None
) -> Float[Tensor, ""]:
    r"""Cross-entropy with the target $1 - \epsilon$ on the true token plus $\epsilon / v$ on each of the v tokens.

    Args:
        logits: Scores of the v tokens.
        target: The true tokens.
        smoothing: $\epsilon$, 0.1 in section 5.4.
        padding: Positions whose target is this token do not count.

    Returns:
        The mean over the positions that count, in nats; 0 if none does.

    Raises:
        ValueError: If smoothing is not in [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must be in [0, 1)")
    log_p = logits.log_softmax(-1)
    loss = -(1 - smoothing) * log_p.gather(-1, target[..., None])[..., 0] - smoothing * log_p.mean(-1)
    counts = torch.ones_like(target, dtype=torch.bool) if padding is None else target != padding
    return loss.masked_fill(~counts, 0).sum() / counts.sum().clamp(min=1)
