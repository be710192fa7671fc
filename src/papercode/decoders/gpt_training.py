r"""How GPT was trained [@radford2018improving, sections 3.1 and 4.1]: the loss, two schedules, and what decays.

Imports: nothing from an older paper's module. The cosine is that of SGDR (Loshchilov and Hutter 2017).

Symbols: b batch, n positions, v tokens. The paper's $L_1$ = minus `language_loss` times the number of predicted tokens.

Differences from the paper:
    * The loss is a mean over the predicted tokens, the paper's $L_1$ a sum over the corpus, to be maximised.
    * Step 1 has a rate above 0: the line starts at step 0, which no step is.
"""

import math

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def language_loss(
    logits: Float[Tensor, "*b n v"], tokens: Int[Tensor, "*b n"], keep: Bool[Tensor, "*b n"] | None = None
) -> Float[Tensor, ""]:
    """Mean of -log P(token | those before it) over all tokens but the first of each text (Eq. 1).

    Args:
        logits: Of the token after each token.
        tokens: The text that the logits were computed from.
        keep: False at padding, which is not predicted.

    Returns:
        In nats; 0 if there is nothing to predict.
    """
    wanted = tokens[..., 1:] if keep is None else tokens[..., 1:].masked_fill(~keep[..., 1:], -100)
    total = nn.functional.cross_entropy(logits[..., :-1, :].flatten(0, -2), wanted.flatten(), reduction="sum")
    return total / (wanted != -100).sum().clamp(min=1)


def cosine_rate(step: int, steps: int, *, peak: float = 2.5e-4, warmup: int = 2000) -> float:
    """Learning rate of pre-training: up in a line over `warmup` steps, then down to 0 along half a cosine.

    Args:
        step: From 1.
        steps: In all; the rate of the last is 0.
        peak: The highest rate.
        warmup: The step that has it.

    Raises:
        ValueError: If step is not between 1 and steps, or warmup is not between 0 and steps.
    """
    _check(step, steps, warmup)
    if step <= warmup:
        return peak * step / warmup
    return peak / 2 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def linear_rate(step: int, steps: int, *, peak: float = 6.25e-5, warmup: float = 0.002) -> float:
    """Learning rate of fine-tuning: up in a line, then down to 0 in a line.

    Args:
        step: From 1.
        steps: In all; the rate of the last is 0.
        peak: The highest rate.
        warmup: The share of all steps that go up; 0.2 % in the paper, so one step of 500.

    Raises:
        ValueError: If step is not between 1 and steps, or warmup is not between 0 and 1.
    """
    up = warmup * steps
    _check(step, steps, up)
    return peak * step / up if step <= up else peak * (steps - step) / (steps - up)


def decayed_groups(model: nn.Module, decay: float = 0.01) -> list[dict]:
    """Parameters for AdamW: weight decay on all but biases and gains.

    Args:
        model: Whatever has one axis is a bias or a gain.
        decay: On the rest.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _check(step: int, steps: int, warmup: float) -> None:
    if not 1 <= step <= steps:
        raise ValueError(f"step={step} must be between 1 and steps={steps}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"warmup ends at step {warmup}, which is not between 0 and steps={steps}")
