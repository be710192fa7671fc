r"""Phrase pairs scored by p(target | source), one more feature for a translation system [@cho2014learning, section 3].

Imports: the log-probability of a word is that of the metrics. Any model with `encode` and `decode` of the RNN
encoder-decoder will do.

Symbols: b batch, t words of a target, m width of the summary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from papercode.evaluation.perplexity import log_probabilities

Phrase = tuple[int, ...]
"""The words of a phrase, without start and end."""


def log_probability(
    model: Any, c: Float[Tensor, "b m"], target: Int[Tensor, "b t"], lengths: Int[Tensor, " b"] | None = None
) -> Float[Tensor, " b"]:
    """log p(target | c), the sum over its words.

    Args:
        model: Has `decode(c, target) -> logits`.
        c: Summaries of the sources.
        target: Start symbol, words, end symbol, then padding.
        lengths: How many of these count, start and end included; t unless given.
    """
    keep = None if lengths is None else torch.arange(1, target.shape[1], device=target.device) < lengths[:, None]
    return log_probabilities(model.decode(c, target[:, :-1]), target[:, 1:], keep=keep).sum(1)


@torch.no_grad()
def scores(model: Any, pairs: Sequence[tuple[Phrase, Phrase]], *, start: int, end: int, batch: int = 64) -> list[float]:
    """log p(target | source) of each pair, in the order given.

    A source that occurs in many pairs is encoded once, and pairs of similar length go through the model together.

    Args:
        model: An `RNNEncoderDecoder`.
        pairs: (source, target).
        start: Set before each target.
        end: Set behind each source and each target.
        batch: Phrases at a time.

    Raises:
        ValueError: If batch is less than 1.
    """
    if batch < 1:
        raise ValueError(f"batch={batch} must be at least 1")
    device = next(model.parameters()).device

    def padded(phrases: Sequence[Phrase]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(phrase, device=device) for phrase in phrases]
        return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows], device=device)

    def batches(items: list) -> list[list]:
        return [items[i : i + batch] for i in range(0, len(items), batch)]

    summary: dict[Phrase, Tensor] = {}
    for group in batches(sorted({source for source, _ in pairs}, key=len)):
        summary |= dict(zip(group, model.encode(*padded([(*source, end) for source in group])), strict=True))
    found = [0.0] * len(pairs)
    for group in batches(sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))):
        c = torch.stack([summary[pairs[i][0]] for i in group])
        target, lengths = padded([(start, *pairs[i][1], end) for i in group])
        for i, score in zip(group, log_probability(model, c, target, lengths).tolist(), strict=True):
            found[i] = score
    return found


def log_linear(features: Mapping[Phrase, Sequence[float]], weights: Sequence[float]) -> dict[Phrase, float]:
    r"""$\log p(f | e) = \sum_n w_n f_n(f, e) - \log Z(e)$ for all candidates f of one e [@cho2014learning, Eq. 9].

    Args:
        features: Of each candidate.
        weights: One for each feature.

    Raises:
        ValueError: If a candidate has another number of features than there are weights.
    """
    for phrase, values in features.items():
        if len(values) != len(weights):
            raise ValueError(f"{phrase} has {len(values)} features, but there are {len(weights)} weights")
    totals = torch.tensor([list(values) for values in features.values()], dtype=torch.float64) @ torch.tensor(
        list(weights), dtype=torch.float64
    )
    return dict(zip(features, totals.log_softmax(0).tolist(), strict=True))
