r"""Relative effective context length: how much of the past a model makes use of [@dai2019transformerxl, appendix C].

Imports: nothing from an older paper's module. The idea of an effective context is by @khandelwal2018sharp.

Symbols: k models, t tokens. The paper's $l_i(c, t)$ = losses[i, t] with context c, $c'$ = long, $b(c, t)$ = baseline,
$\mathcal{T}$ = hard, $r$ = r, $g_i(c, c')$ = relative_gain, $\Delta$ = step.

Differences from the paper:
    * Step 2 of its algorithm ends with "go to step 1", which would start all over; it is taken to mean step 2.
    * It names no first c; here it is the step, and no context longer than `longest` is tried.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def context_losses(
    score: Callable[[Tensor], Tensor], text: Int[Tensor, " n"], positions: Int[Tensor, " t"], context: int
) -> Float[Tensor, " t"]:
    r"""$-\log P(x_t \mid x_{t-1}, \dots, x_{t-c})$ for each position t: what the model says who is shown c tokens.

    Args:
        score: From windows (t c) to log-probabilities (t v) of the token after each.
        text: The corpus.
        positions: Which tokens to predict.
        context: c.

    Raises:
        ValueError: If a position has less than `context` tokens before it.
    """
    if positions.min() < context:
        raise ValueError(f"position {positions.min()} has fewer than context={context} tokens before it")
    windows = text[positions[:, None] + torch.arange(-context, 0, device=text.device)]
    return -score(windows).gather(-1, text[positions][:, None])[:, 0]


def relative_gain(short: Float[Tensor, "k t"], long: Float[Tensor, "k t"], r: float = 0.1) -> Float[Tensor, " k"]:
    r"""$g_i(c, c') = 1 - \exp(f_i(c, c')) / \exp(f_i(c, c))$: by what part the longer context lowers the perplexity.

    All models have the same baseline, on each token the lowest of their losses with the short context. Only what lies
    below it counts, and only on the hardest tokens, those of the highest baseline.

    Args:
        short: Losses of k models on t tokens with the short context c.
        long: With the longer one, c'.
        r: Part of the tokens that counts, the hardest.

    Raises:
        ValueError: If r is not in (0, 1].
    """
    if not 0 < r <= 1:
        raise ValueError(f"r={r} must be in (0, 1]")
    baseline = short.min(0).values
    hard = baseline.topk(max(1, round(r * len(baseline)))).indices
    relative = torch.minimum(baseline, long)[:, hard].mean(1)  # f_i(c, c'); f_i(c, c) is the mean of the baseline
    return 1 - (relative - baseline[hard].mean()).exp()


def effective_context(
    losses: Callable[[int], Float[Tensor, "k t"]],
    *,
    step: int,
    longest: int,
    r: float = 0.1,
    threshold: float = 0.01,
) -> list[int]:
    """For each model the context from which `step` more tokens bring a relative gain of less than the threshold.

    Args:
        losses: Those of all k models with the context it is called with, for instance from `context_losses`.
        step: How much longer the longer context is, and the first context tried.
        longest: No longer context is asked for; a model that still gains there has this as its length.
        r: Part of the tokens that counts, the hardest.
        threshold: Smallest gain that counts, 1 % in the paper.

    Raises:
        ValueError: If step is less than 1, or longest less than step.
    """
    if not 1 <= step <= longest:
        raise ValueError(f"step={step} must be at least 1 and at most longest={longest}")
    context, short = step, losses(step)
    lengths, gaining = [step] * len(short), [True] * len(short)
    while any(gaining) and context + step <= longest:
        context, long = context + step, losses(context + step)
        gains = relative_gain(short, long, r)
        gaining = [still and gain >= threshold for still, gain in zip(gaining, gains.tolist())]
        lengths = [context if still else length for still, length in zip(gaining, lengths)]
        short = long
    return lengths
