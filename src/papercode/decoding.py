r"""From next-token scores to sequences: greedy and beam search over any model that can be called as a step.

A **step** is `step(tokens, parents) -> logits`. tokens (r n) holds the r prefixes so far, prompt included; parents (r)
says which row of the previous call each of them continues (in the first call: itself); logits (r v) scores the next
token. A model without memory reads tokens and ignores parents. A recurrent one keeps its state, replaces it by
`state[parents]` and reads `tokens[:, -1]`. A Transformer does the same with its cache
([`cached_steps`][papercode.attention.kv_cache.cached_steps]).

All sentences and all hypotheses go through the model as one batch.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]


def length_penalty(length: int, alpha: float = 0.6) -> float:
    r"""$((5 + |Y|) / (5 + 1))^\alpha$ [@wu2016google, section 7]: a log-probability is divided by it.

    A log-probability only falls as a sequence grows, so that the plain sum (alpha = 0) prefers short sequences.
    The Transformer was decoded with alpha = 0.6 [@vaswani2017attention, section 6.1].
    """
    return ((5 + length) / 6) ** alpha


@torch.no_grad()
def greedy_search(step: Step, prompt: Int[Tensor, "b n"], *, end: int, max_new: int) -> Int[Tensor, "b total"]:
    """Takes the best next token, again and again.

    Args:
        step: See the head of this module.
        prompt: What every sequence begins with, for instance one start token each.
        end: The token that ends a sequence.
        max_new: At most so many tokens are added.

    Returns:
        Prompt and continuation; after its end a row is filled with `end`.

    Raises:
        ValueError: If max_new is less than 1.
    """
    if max_new < 1:
        raise ValueError(f"max_new={max_new} must be at least 1")
    tokens, rows = prompt, torch.arange(len(prompt), device=prompt.device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for _ in range(max_new):
        token = step(tokens, rows).argmax(-1).masked_fill(ended, end)
        tokens = torch.cat([tokens, token[:, None]], 1)
        ended = ended | (token == end)
        if ended.all():
            break
    return tokens


@torch.no_grad()
def beam_search(
    step: Step,
    prompt: Int[Tensor, "b n"],
    *,
    end: int,
    max_new: int,
    beam: int = 4,
    penalty: Callable[[int], float] = length_penalty,
) -> tuple[Int[Tensor, "b beam total"], Float[Tensor, "b beam"]]:
    """Keeps the `beam` most probable prefixes of a sentence, and sets aside those that end.

    A prefix that ends is set aside if it is among the `beam` best of its step. A sentence is done once `beam`
    hypotheses are set aside; at max_new the prefixes still alive are set aside as they are. So beam=1 is greedy search,
    and a beam as wide as there are sequences finds the best of all.

    Args:
        step: See the head of this module.
        prompt: What every sequence begins with, for instance one start token each.
        end: The token that ends a sequence.
        max_new: At most so many tokens are added.
        beam: How many prefixes live, and how many hypotheses are returned.
        penalty: A finished hypothesis of so many new tokens (`end` included) has its log-probability divided by this.

    Returns:
        Hypotheses with their prompt, filled with `end`, and their scores, best first. Score -inf: no such hypothesis.

    Raises:
        ValueError: If beam or max_new is less than 1.
    """
    if beam < 1 or max_new < 1:
        raise ValueError(f"beam={beam} and max_new={max_new} must be at least 1")
    b, n = prompt.shape
    sentence = torch.arange(b, device=prompt.device)[:, None]
    tokens, rows = prompt[:, None], sentence.flatten()  # the living: (b live n)
    scores = torch.zeros(b, 1, device=prompt.device)
    done = prompt.new_full((b, beam, n + max_new), end)  # those set aside
    done_scores = scores.new_full((b, beam), -torch.inf)
    for length in range(1, max_new + 1):
        live = tokens.shape[1]
        log_p = step(tokens.flatten(0, 1), rows).log_softmax(-1).unflatten(0, (b, live))
        candidates = (scores[..., None] + log_p).flatten(1)  # (b live·v)
        # one candidate of each prefix ends, so among 2·beam there are beam that live on
        scores, index = candidates.topk(min(2 * beam, candidates.shape[1]))
        parent, token = index // log_p.shape[-1], index % log_p.shape[-1]
        tokens = torch.cat([tokens[sentence, parent], token[..., None]], -1)

        ends = token == end
        aside = (ends | (length == max_new)) & (done_scores[:, -1:] == -torch.inf)
        aside[:, beam:] = False
        grown = torch.nn.functional.pad(tokens, (0, done.shape[-1] - tokens.shape[-1]), value=end)
        pool = torch.cat([done_scores, scores.masked_fill(~aside, -torch.inf) / penalty(length)], 1)
        done_scores, best = pool.topk(beam)
        done = torch.cat([done, grown], 1)[sentence, best]
        if (done_scores[:, -1] > -torch.inf).all():
            break

        scores, best = scores.masked_fill(ends, -torch.inf).topk(min(beam, scores.shape[1]))
        tokens, rows = tokens[sentence, best], (sentence * live + parent[sentence, best]).flatten()
    return done[..., : n + length], done_scores
