r"""Reranking replies by how well they tell what they reply to, as DialoGPT does it [@zhang2020dialogpt, section 3.2].

Imports: `dialogue_batch`, `log_likelihoods` (same paper); `GPT`, the class of both models [@radford2018improving].

A reply that fits everything ("I don't know") is likely after any source S, and says nothing about it. The mutual
information of source and reply T prefers replies after which the source is likely. By Bayes' rule

$$\log \frac{p(S, T)}{p(S)\, p(T)} = \log p(S \mid T) - \log p(S),$$

and p(S) is the same for all replies. So a second model, the backward model, reads the reply and scores the source. The
idea is that of @li2016diversity, who mix both directions: $(1 - \lambda) \log p(T \mid S) + \lambda \log p(S \mid T)$.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from papercode.decoders.dialogpt import Turns, dialogue_batch, log_likelihoods
from papercode.decoders.gpt import GPT


def reversed_turns(turns: Turns) -> list[Sequence[int]]:
    """The dialogue from its last turn to its first: what a backward model is trained on, with the ordinary loss."""
    return list(turns[::-1])


@torch.no_grad()
def forward_scores(model: GPT, source: Turns, replies: Turns, end: int) -> Float[Tensor, " r"]:
    r"""$\log p(T \mid S)$ for each reply T to the turns S of source."""
    learn = [[False] * len(source) + [True]] * len(replies)
    batch = dialogue_batch([[*source, reply] for reply in replies], end, learn, _device(model))
    return log_likelihoods(model, batch).sum(1)


@torch.no_grad()
def backward_scores(model: GPT, source: Turns, replies: Turns, end: int) -> Float[Tensor, " r"]:
    r"""$\log p(S \mid T)$ for each reply T, from a model of reversed dialogues: all turns of S, the nearest first."""
    batch = dialogue_batch([reversed_turns([*source, reply]) for reply in replies], end, device=_device(model))
    return log_likelihoods(model, batch).sum(1)


def mutual_information(
    forward: Float[Tensor, " r"], backward: Float[Tensor, " r"], weight: float = 1.0
) -> Float[Tensor, " r"]:
    r"""$(1 - \lambda) \log p(T \mid S) + \lambda \log p(S \mid T)$.

    Args:
        forward: $\log p(T \mid S)$ of each reply.
        backward: $\log p(S \mid T)$ of each reply.
        weight: $\lambda$; DialoGPT has 1, the backward model alone.

    Raises:
        ValueError: If weight is not between 0 and 1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must be between 0 and 1")
    return (1 - weight) * forward + weight * backward


def rerank(backward: GPT, source: Turns, replies: Turns, end: int) -> list[Sequence[int]]:
    """The replies in the order of the backward model, best first; equal ones once.

    Args:
        backward: A model of reversed dialogues.
        source: The turns so far.
        replies: Candidates, in the paper drawn by top-k sampling from the forward model.
        end: The end-of-text token.

    Raises:
        ValueError: If there are no replies.
    """
    if not replies:
        raise ValueError("replies is empty: nothing to rank")
    different = list({tuple(reply): reply for reply in replies}.values())
    order = backward_scores(backward, source, different, end).argsort(descending=True, stable=True)
    return [different[i] for i in order.tolist()]


def _device(model: GPT) -> str:
    return str(model.words.weight.device)
