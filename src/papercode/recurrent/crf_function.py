r"""The sum over all paths of a linear-chain CRF [@huang2015bidirectional], by a hand-written forward-backward pass.

Which is the denominator of a tagger's likelihood [@ma2016end, section 2.3].

Imports: nothing from other modules. `log_partition_by_logs` is the same in plain autograd.

A step of the forward algorithm in logs is a broadcast sum over k x k tags and a logsumexp. Here the passes run on
the weights themselves, $\alpha_t = (\alpha_{t-1} E) \odot e_t$ with $E = \exp(\text{transitions})$ and
$e_t = \exp(\text{emissions}_t)$, so that a step is one matrix product and one product of entries. Exponentials overflow
or vanish where scores are large. What keeps them in bounds:

* All is computed in float64, of the scores minus their largest: every $e_t$ and E then lies in $[e^{-R}, 1]$, where R
  sums the ranges of the scores.
* A path may change from any tag to any other within d steps (1 without forbidden transitions, 2 for BIO tags), so that
  of all tags that can be reached the weakest stays within $(k e^R)^{-d}$ of the strongest, however long the sequence.
* Each m steps the weights are divided by their sum. m is the largest with $(d + m)(R + \log k) \le 300$: no weight
  falls below $e^{-300}$, no product of two below $e^{-600}$, and float64 ends at $e^{-708}$.
* If no m is large enough (R is about 150), the sum is computed in logs.

Symbols: b batch, n steps, k tags, A, B: $\alpha_t$ and $\beta_t$ of all steps (n b k).

Differences from the paper:
    * None in what is computed.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BUDGET = 300.0
"""Weights stay above exp(-BUDGET)."""

LOWEST = -1e150
"""Stands for minus infinity where its derivative would be NaN."""


def log_partition(
    emissions: Float[Tensor, "b n k"],
    transitions: Float[Tensor, "k k"],
    start: Float[Tensor, " k"],
    end: Float[Tensor, " k"],
    lengths: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, " b"]:
    """The log of the sum, over all paths through the tags, of the exponential of their scores; float64.

    The gradient with respect to the emissions is the marginals; whoever differentiates it once more gets that by way of
    logs. Minus infinity forbids a transition, start or end.

    Args:
        emissions: Score of each tag at each step.
        transitions: Score of a tag (column) after another (row).
        start: Score of each tag at the first step.
        end: Score of each tag at the last step.
        lengths: How many steps each row has, from 1 to n; all n unless given. What stands at the padding has no
            influence.
    """
    ended = padding(emissions, lengths)
    x = emissions.double().transpose(0, 1)
    x = x if ended is None else x.masked_fill(ended, 0)
    m = steps_between(x.detach(), transitions.detach(), start.detach(), end.detach())
    if m < 1:
        return log_partition_by_logs(emissions, transitions, start, end, lengths)
    last = None if lengths is None else lengths - 1
    return _ForwardBackward.apply(x, transitions.double(), start.double(), end.double(), ended, last, m)


def padding(emissions: Float[Tensor, "b n k"], lengths: Tensor | None) -> Tensor | None:
    """True at the steps after a row's last one, (n b 1); None if all rows are full.

    Raises:
        ValueError: If there is no step, not one length for each row, or one is not within 1 and n.
    """
    b, n, _ = emissions.shape
    if not n:
        raise ValueError(f"emissions {tuple(emissions.shape)} has no steps")
    if lengths is None:
        return None
    if lengths.shape != (b,) or not ((lengths >= 1) & (lengths <= n)).all():
        raise ValueError(f"lengths={lengths.tolist()} must be {b} numbers from 1 to n={n}")
    return (torch.arange(n, device=lengths.device)[:, None] >= lengths)[..., None]


def steps_between(x: Tensor, *scores: Tensor) -> int:
    """m, for emissions (n b k), transitions, start and end; less than 1 if dividing at each step would be too late."""
    n, _, k = x.shape
    low, high = x.aminmax(dim=-1)
    R = (high - low).amax() + sum(s.max() - s.masked_fill(s == -math.inf, math.inf).min() for s in scores)
    if not R.isfinite():
        return 0
    room = BUDGET / (R.item() + math.log(k) + 1e-9)
    return int(min(room, 2 * n)) - mixing(scores[0] > -math.inf, n)


def mixing(allowed: Tensor, n: int) -> int:
    """d: the number of steps in which every tag can follow every other; n, which is always enough, if there is none."""
    if allowed.all():
        return 1
    step = allowed.double()
    reached, d = step, 1
    while d < n and not reached.all():
        reached, d = (reached @ step).clamp(max=1), d + 1
    return d


class _ForwardBackward(torch.autograd.Function):
    """x (n b k) in float64; `ended` (n b 1) and the number of the last step (b) where rows differ in length."""

    @staticmethod
    def forward(ctx: Any, x, transitions, start, end, ended, last, m):
        n, b, _ = x.shape
        tops = x.amax(-1, keepdim=True), transitions.max(), start.max(), end.max()
        e, E, first, final = (torch.exp(s - top) for s, top in zip((x, transitions, start, end), tops))
        if ended is not None:
            e.masked_fill_(ended, 0)
        A, logs = torch.empty_like(e), x.new_zeros(b)
        divisors = {}
        torch.mul(e[0], first, out=A[0])
        steps = A.unbind()
        for t, (before, now, weights) in enumerate(zip(steps, steps[1:], e.unbind()[1:]), 1):
            torch.mm(before, E, out=now).mul_(weights)
            if t % m == 0:
                divisors[t] = _divide(now)
                logs += divisors[t].log()[:, 0]
        sums = (A[-1] if last is None else A[last, torch.arange(b, device=x.device)]) @ final
        logs += sums.log() + tops[0].sum((0, 2)) + start.max() + end.max()
        ctx.m, ctx.divisors = m, divisors
        ctx.save_for_backward(A, e, E, final, last, x, transitions, start, end)
        return logs + tops[1] * (n - 1 if last is None else last)

    @staticmethod
    def backward(ctx: Any, g):
        A, e, E, final, last, x, transitions, start, end = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates this pass too
            lengths = None if last is None else last + 1
            total = log_partition_by_logs(x.transpose(0, 1), transitions, start, end, lengths)
            gradients = torch.autograd.grad(total, (x, transitions, start, end), g, create_graph=True)
            return *gradients, None, None, None
        n, b, _ = A.shape
        B = torch.zeros_like(A)  # the weights of all ends of a path; a row's last step brings its own
        B[-1 if last is None else (last, torch.arange(b, device=A.device))] = final
        W = torch.empty_like(A)  # the same with the step itself: e_t times B_t
        torch.mul(e[-1], B[-1], out=W[-1])
        weights, ends, both, transposed = e.unbind(), B.unbind(), W.unbind(), E.T
        for t in range(n - 2, -1, -1):
            ends[t].addmm_(both[t + 1], transposed)
            if t % ctx.m == 0:
                _divide(ends[t])
            torch.mul(weights[t], ends[t], out=both[t])
        marginals = A.mul(B)
        sums = marginals.sum(-1, keepdim=True)
        scale = g[:, None] / sums.masked_fill_(sums == 0, 1)
        marginals *= scale
        for t, divisor in ctx.divisors.items():
            scale[t] /= divisor
        W *= scale
        k = len(E)
        pairs = E * (A[:-1].reshape(-1, k).T @ W[1:].reshape(-1, k))
        at_end = marginals[-1] if last is None else marginals[last, torch.arange(b, device=A.device)]
        return marginals, pairs, marginals[0].sum(0), at_end.sum(0), None, None, None


def _divide(weights: Tensor) -> Tensor:
    """Divides the weights (b k) by their sum, in place; the sum (b 1), 1 where a row has ended."""
    sums = weights.sum(-1, keepdim=True)
    sums.masked_fill_(sums == 0, 1)
    weights /= sums
    return sums


def log_partition_by_logs(
    emissions: Float[Tensor, "b n k"],
    transitions: Float[Tensor, "*steps k k"],
    start: Float[Tensor, " k"],
    end: Float[Tensor, " k"],
    lengths: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, " b"]:
    """`log_partition` with a logsumexp at each step; float64, slower, for scores of any size.

    The transitions may differ from step to step: (b n-1 k k), the first from step 0 to step 1.
    """
    ended = padding(emissions, lengths)
    x = emissions.double().transpose(0, 1)
    if ended is not None:
        x = x.masked_fill(ended, 0)
        transitions = (
            transitions if transitions.ndim == 2 else transitions.masked_fill(ended[1:].transpose(0, 1)[..., None], 0)
        )
    x, transitions, start, end = (s.double().clamp(min=LOWEST) for s in (x, transitions, start, end))
    score = start + x[0]
    for t in range(1, len(x)):
        step = transitions if transitions.ndim == 2 else transitions[:, t - 1]
        following = torch.logsumexp(score[:, :, None] + step, 1) + x[t]
        score = following if ended is None else torch.where(ended[t], score, following)
    total = torch.logsumexp(score + end, 1)
    return torch.where(total > LOWEST / 2, total, -math.inf)
