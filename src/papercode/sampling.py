r"""Drawing the next token instead of taking the best, and filters of the logits that it is drawn from.

A **filter** is `filter(logits, tokens) -> logits`. logits (r v) score the next token, tokens (r n) are the rows so far,
prompt included. What may not be drawn gets -inf. Filters are applied in the order in which they are given, so that
`[Temperature(0.7), TopP(0.9)]` is another distribution than `[TopP(0.9), Temperature(0.7)]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papercode.decoding import Step

Filter = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def sample(
    step: Step,
    prompt: Int[Tensor, "b n"],
    *,
    end: int,
    max_new: int,
    filters: Sequence[Filter] = (),
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b total"]:
    """Draws the next token from the softmax of the filtered logits, again and again.

    Args:
        step: See the head of [`papercode.decoding`][papercode.decoding].
        prompt: What every sequence begins with.
        end: The token that ends a sequence.
        max_new: At most so many tokens are added.
        filters: See the head of this module; none = the model's own distribution.
        generator: Of the random numbers; PyTorch's own unless given.

    Returns:
        Prompt and continuation; after its end a row is filled with `end`.

    Raises:
        ValueError: If max_new is less than 1, or the filters leave a row nothing to draw.
    """
    if max_new < 1:
        raise ValueError(f"max_new={max_new} must be at least 1")
    tokens, rows = prompt, torch.arange(len(prompt), device=prompt.device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for _ in range(max_new):
        logits = step(tokens, rows)
        for apply in filters:
            logits = apply(logits, tokens)
        if (logits == -torch.inf).all(-1).any():
            raise ValueError(f"filters={list(filters)} leave a row nothing to draw")
        token = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].masked_fill(ended, end)
        tokens = torch.cat([tokens, token[:, None]], 1)
        ended = ended | (token == end)
        if ended.all():
            break
    return tokens


@dataclass(frozen=True)
class Temperature:
    """Divides the logits: below 1 the likely gets likelier, above 1 everything gets more alike.

    Args:
        value: Near 0 the best token is taken, as in greedy search.

    Raises:
        ValueError: If value is not above 0.
    """

    value: float

    def __post_init__(self):
        if not self.value > 0:
            raise ValueError(f"value={self.value} must be above 0; greedy_search is the limit at 0")

    def __call__(self, logits: Float[Tensor, "r v"], tokens: Int[Tensor, "r n"]) -> Float[Tensor, "r v"]:
        """A filter."""
        return logits / self.value


@dataclass(frozen=True)
class TopK:
    """Keeps the k best tokens, and those that tie with the last of them.

    Args:
        k: More than there are tokens keeps all.

    Raises:
        ValueError: If k is less than 1.
    """

    k: int

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"k={self.k} must be at least 1")

    def __call__(self, logits: Float[Tensor, "r v"], tokens: Int[Tensor, "r n"]) -> Float[Tensor, "r v"]:
        """A filter."""
        last = logits.topk(min(self.k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < last, -torch.inf)


@dataclass(frozen=True)
class TopP:
    """Keeps the nucleus: the smallest set of best tokens whose probabilities sum to p or more; one token at least.

    Args:
        p: 1 keeps all.

    Raises:
        ValueError: If p is not above 0 and at most 1.
    """

    p: float

    def __post_init__(self):
        if not 0 < self.p <= 1:
            raise ValueError(f"p={self.p} must be above 0 and at most 1")

    def __call__(self, logits: Float[Tensor, "r v"], tokens: Int[Tensor, "r n"]) -> Float[Tensor, "r v"]:
        """A filter."""
        if self.p == 1:
            return logits
        ordered, index = logits.sort(-1)  # from the worst: their sums are small, so that no digit is lost
        drop = ordered.softmax(-1).cumsum(-1) <= 1 - self.p
        drop[:, -1] = False
        return logits.masked_fill(drop.scatter(-1, index, drop), -torch.inf)


@dataclass(frozen=True)
class RepetitionPenalty:
    r"""Makes what stands in the row already less likely: its logits are divided by theta, or multiplied if negative.

    It comes from CTRL (Keskar et al. 2019), whose formula divides only. That would make a token with a negative logit
    more likely. Logits have no natural zero, so the strength depends on where the model happens to put them.

    Args:
        theta: 1 = no penalty.

    Raises:
        ValueError: If theta is not above 0.
    """

    theta: float

    def __post_init__(self):
        if not self.theta > 0:
            raise ValueError(f"theta={self.theta} must be above 0")

    def __call__(self, logits: Float[Tensor, "r v"], tokens: Int[Tensor, "r n"]) -> Float[Tensor, "r v"]:
        """A filter."""
        score = logits.gather(-1, tokens)
        return logits.scatter(-1, tokens, torch.where(score < 0, score * self.theta, score / self.theta))
