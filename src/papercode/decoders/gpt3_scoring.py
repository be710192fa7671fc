r"""Answering by comparing likelihoods, without training [@brown2020language].

Imports: nothing from an older paper's module; a model is any function from tokens to logits, such as
[`GPT`][papercode.decoders.gpt.GPT] and its descendants.

Symbols: b rows, n and t positions, v size of the vocabulary. The paper's *completion* is an option that may be chosen,
its *context* what stands before it, its *answer_context* the neutral text `"Answer: "`.

Differences from the paper:
    * None in the mathematics of section 2.4. It names no rule for equal scores: the first option wins.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""From tokens (b n) to logits (b n v) of the token after each, without looking ahead."""
Rule = Callable[[Model, Sequence[int], Sequence[Sequence[int]]], Tensor]
"""From a model, a context and r options to r scores: `by_sum`, `by_token`, or `by_prior` with its answer_context."""


def log_likelihoods(
    model: Model, context: Sequence[int], options: Sequence[Sequence[int]]
) -> list[Float[Tensor, " t"]]:
    r"""$\log p(\mathrm{option}_t \mid \mathrm{context}, \mathrm{option}_{<t})$ of each token of each option.

    All options go through the model as one batch, shorter ones filled up at the end, where nobody looks.

    Args:
        model: From tokens to logits.
        context: Tokens that stand before every option, at least one.
        options: Tokens, at least one each.

    Raises:
        ValueError: If the context, the list of options or an option is empty.
    """
    if not context:
        raise ValueError("context is empty: the first token of an option needs something to be predicted from")
    if not options or not all(options):
        raise ValueError(f"options={[list(option) for option in options]} must hold at least one token each")
    longest = max(map(len, options))
    rows = torch.tensor([[*context, *option, *[0] * (longest - len(option))] for option in options])
    with torch.no_grad():
        logits = model(rows[:, :-1])[:, len(context) - 1 :]
    log_p = logits.log_softmax(-1).gather(-1, rows[:, len(context) :].to(logits.device)[..., None])[..., 0]
    return [row[: len(option)] for row, option in zip(log_p, options)]


def by_sum(model: Model, context: Sequence[int], options: Sequence[Sequence[int]]) -> Float[Tensor, " r"]:
    r"""$\log p(\mathrm{option} \mid \mathrm{context})$: short options are favoured."""
    return torch.stack([row.sum() for row in log_likelihoods(model, context, options)])


def by_token(model: Model, context: Sequence[int], options: Sequence[Sequence[int]]) -> Float[Tensor, " r"]:
    """The mean over an option's tokens: for most tasks (section 2.4)."""
    return torch.stack([row.mean() for row in log_likelihoods(model, context, options)])


def by_prior(
    model: Model, context: Sequence[int], options: Sequence[Sequence[int]], *, answer_context: Sequence[int]
) -> Float[Tensor, " r"]:
    r"""$\log p(\mathrm{option} \mid \mathrm{context}) - \log p(\mathrm{option} \mid \mathrm{answer\_context})$.

    What an option gains from the context, whatever its length and however common its words: for ARC, OpenBookQA and
    RACE (section 2.4). Fix answer_context with `functools.partial`.
    """
    return by_sum(model, context, options) - by_sum(model, answer_context, options)


def evaluate(
    model: Model,
    tasks: Iterable[tuple[Sequence[int], Sequence[Sequence[int]], int]],
    rule: Rule = by_token,
) -> float:
    """The share of tasks in which the best option under `rule` is the right one.

    The model is only asked. Not one weight is changed, whatever the context says: that is the whole point.

    Args:
        model: From tokens to logits.
        tasks: Context, options, and the index of the right option. How many examples the context shows (none, one, a
            few) is all that distinguishes the settings.
        rule: How options are scored.

    Raises:
        ValueError: If there is no task, or the right index is not among the options.
    """
    right: list[bool] = []
    for context, options, answer in tasks:
        if not 0 <= answer < len(options):
            raise ValueError(f"answer={answer} is no index of {len(options)} options")
        right.append(int(rule(model, context, options).argmax()) == answer)
    if not right:
        raise ValueError("there are no tasks to evaluate")
    return sum(right) / len(right)
