r"""How the deep LSTMs are trained, and what happens once they read their own words [@sutskever2014sequence].

In training the decoder is shown the true words so far (teacher forcing); when it translates, its own. `free_running`
is the second, or a mixture of both, and `exposure` measures what the difference does at each step. That a model meets
prefixes which it never saw in training was later named exposure bias [@ranzato2016sequence]; to show it its own words
more and more often while it learns is scheduled sampling [@bengio2015scheduled].

Symbols: b batch, s source tokens, t target tokens, v target vocabulary.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papercode.recurrent.seq2seq import Seq2Seq


def halved_rate(epoch: float) -> float:
    """The paper's learning rate (section 3.4): 0.7 for 5 epochs, then halved every half epoch.

    We halve for the first time at 5; training ends at 7.5.
    """
    return 0.7 * 0.5 ** max(0, int(2 * epoch) - 9)


def buckets(lengths: Sequence[int] | Sequence[tuple[int, int]], batch: int, *, seed: int = 0) -> list[list[int]]:
    """Batches of sentences of about the same length (section 3.4), in random order.

    Args:
        lengths: Of each sentence; pairs of lengths are sorted by the first, then the second.
        batch: Sentences in a batch; the last one may have fewer.
        seed: Of the order of sentences of the same length, and of the batches.

    Returns:
        The indices of the sentences of each batch.

    Raises:
        ValueError: If batch is less than 1.
    """
    if batch < 1:
        raise ValueError(f"batch={batch} must be at least 1")
    draw, order = random.Random(seed), list(range(len(lengths)))
    draw.shuffle(order)
    order.sort(key=lengths.__getitem__)
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    draw.shuffle(batches)
    return batches


def padded(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of all positions of these batches that is padding."""
    positions = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / positions


def free_running(
    model: Seq2Seq,
    source: Int[Tensor, "b s"],
    inputs: Int[Tensor, "b t"],
    *,
    own: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b t v"]:
    """Scores of the next token where the decoder is fed its own best guesses, each with a probability.

    Args:
        model: What translates.
        source: Tokens in their natural order, padded at the end.
        inputs: A start token and the words of the true translation; of those, only what replaces no guess is read.
        own: With this probability the model's guess is fed in, else the true word. 0 is teacher forcing; a schedule is
            what its caller makes of it from step to step.
        generator: Of the random numbers.

    Raises:
        ValueError: If own is not between 0 and 1.
    """
    if not 0 <= own <= 1:
        raise ValueError(f"own={own} must be between 0 and 1")
    guessed = torch.rand(inputs.shape, generator=generator, device=inputs.device) < own
    step, rows = model.steps(source), torch.arange(len(inputs), device=inputs.device)
    tokens, logits = inputs[:, :1], []
    for i in range(1, inputs.shape[1] + 1):
        logits.append(step(tokens, rows))
        if i < inputs.shape[1]:
            token = torch.where(guessed[:, i], logits[-1].argmax(-1), inputs[:, i])
            tokens = torch.cat([tokens, token[:, None]], 1)
    return torch.stack(logits, 1)


class Exposure(NamedTuple):
    """What reading its own words does to a model.

    Attributes:
        forced: (t), the share of right words at each step, after the true words so far.
        free: (t), the same after the model's own words so far.
        whole_forced: The share of translations without a mistake, after true words.
        whole_free: The same after its own words.
    """

    forced: Tensor
    free: Tensor
    whole_forced: float
    whole_free: float


@torch.no_grad()
def exposure(model: Seq2Seq, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Exposure:
    """Measures exposure bias: right words with teacher forcing and when running free.

    Args:
        model: What translates.
        source: Tokens in their natural order, padded at the end.
        target: Start token, words, end token, padding.
    """
    inputs, outputs = target[:, :-1], target[:, 1:]
    real = outputs != model.padding
    shares, wholes = [], []
    for logits in (model(source, inputs), free_running(model, source, inputs)):
        right = logits.argmax(-1) == outputs
        shares.append((right & real).sum(0) / real.sum(0))
        wholes.append((right | ~real).all(1).double().mean().item())
    return Exposure(shares[0], shares[1], *wholes)
