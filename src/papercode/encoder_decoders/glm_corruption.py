r"""Making blanks: what GLM is trained on [@du2022glm].

Imports: nothing from an older paper's module.

Symbols: n length of the text, m number of spans. The paper's $s_i$ are spans of the text, its $z$ is the order in
which they stand in part B.

Differences from the paper:
    * A span has at least one token: lengths of 0, of which a Poisson distribution with mean 3 has 5 %, are drawn again.
    * Short spans keep at least one token between them, so that two blanks never touch. Whole sentences may.
    * The long span of the document level stands at the end of the text; the paper does not say where.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

IGNORE = -100
"""The target where there is nothing to predict; `torch.nn.functional.cross_entropy` skips it."""

Span = tuple[int, int]
"""First position of a span, and the one behind its last."""


@dataclass(frozen=True)
class Blanks:
    """What goes into [`GLM`][papercode.encoder_decoders.glm.GLM] and what should come out, for one text or for b.

    Attributes:
        tokens: Part A, then part B, (n) or (b n).
        targets: What follows each token of part B; IGNORE in part A and at padding.
        positions: Position 1.
        inner: Position 2.
        context: Length of part A: a number, or (b).
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    inner: Tensor
    context: Tensor

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the model is called with: `model(*blanks.inputs())`."""
        return self.tokens, self.positions, self.inner, self.context


def assemble(part_a: Sequence[int], answers: Sequence[tuple[int, Sequence[int]]], *, start: int, end: int) -> Blanks:
    """Puts the answers to some blanks behind part A, with both positions (Figure 2).

    Args:
        part_a: The text with mask tokens.
        answers: For each blank the place of its mask token in part A, from 0, and its tokens; in the order in which
            they shall stand in part B.
        start: The token before an answer.
        end: The target after an answer.

    Raises:
        ValueError: If a place lies outside part A.
    """
    tokens, targets = list(part_a), [IGNORE] * len(part_a)
    positions, inner = list(range(1, len(part_a) + 1)), [0] * len(part_a)
    for place, answer in answers:
        if not 0 <= place < len(part_a):
            raise ValueError(f"place={place} lies outside part A, which has {len(part_a)} tokens")
        tokens += [start, *answer]
        targets += [*answer, end]
        positions += [place + 1] * (len(answer) + 1)
        inner += range(1, len(answer) + 2)
    return Blanks(*(torch.tensor(row) for row in (tokens, targets, positions, inner, len(part_a))))


def blank_out(
    tokens: Sequence[int],
    spans: Sequence[Span],
    *,
    mask: int,
    start: int,
    end: int,
    order: Sequence[int] | None = None,
) -> Blanks:
    """Replaces each span by one mask token, and puts the spans behind the text (section 2.1).

    Args:
        tokens: The text.
        spans: Not empty, not overlapping.
        mask: Stands for a span, whatever its length; the authors' code has one each for words, sentences and documents.
        start: The token before a span in part B.
        end: The target after a span.
        order: Of the spans in part B, a permutation of 0 … m - 1; as given unless told otherwise. The paper draws it.

    Raises:
        ValueError: If spans are empty, overlap or reach beyond the text, or order is no permutation.
    """
    order = range(len(spans)) if order is None else order
    if sorted(order) != list(range(len(spans))):
        raise ValueError(f"order={list(order)} is no permutation of {len(spans)} spans")
    part_a: list[int] = []
    places, last = {}, 0
    for first, behind in sorted(spans):
        if not last <= first < behind <= len(tokens):
            raise ValueError(f"span {(first, behind)} is empty, overlaps another or leaves the {len(tokens)} tokens")
        part_a += [*tokens[last:first], mask]
        places[first, behind] = len(part_a) - 1
        last = behind
    part_a += tokens[last:]
    answers = [(places[spans[i]], tokens[slice(*spans[i])]) for i in order]
    return assemble(part_a, answers, start=start, end=end)


def short_spans(n: int, draw: random.Random, *, ratio: float = 0.15, mean: float = 3.0) -> list[Span]:
    """Spans of Poisson lengths, drawn until at least `ratio` of n tokens are in them (section 2.1).

    Args:
        n: Length of the text.
        draw: Source of randomness.
        ratio: Share of the tokens.
        mean: Of the Poisson distribution.

    Raises:
        ValueError: If n is less than 1, ratio is not in (0, 1], mean is not above 0, or so many tokens do not fit with
            gaps between spans.
    """
    if n < 1 or not 0 < ratio <= 1:
        raise ValueError(f"need {n=} of at least 1 and {ratio=} above 0 and at most 1")
    if not mean > 0:
        raise ValueError(f"mean={mean} must be above 0: all spans would be empty")
    lengths: list[int] = []
    while sum(lengths) < ratio * n:
        room = n - sum(lengths) - len(lengths)
        if room < 1:
            raise ValueError(f"ratio={ratio} of n={n} tokens leaves no token between the spans")
        length = _poisson(mean, draw)
        if 0 < length <= room:
            lengths.append(length)
    free = n - sum(lengths)
    gaps = sorted(draw.sample(range(free + 1), len(lengths)))
    starts = [gap + sum(lengths[:i]) for i, gap in enumerate(gaps)]
    return [(first, first + length) for first, length in zip(starts, lengths)]


def sentence_spans(lengths: Sequence[int], draw: random.Random, *, ratio: float = 0.15) -> list[Span]:
    """Whole sentences, drawn until at least `ratio` of the tokens are in them (section 2.2, sentence level).

    Args:
        lengths: Tokens in each sentence of the text.
        draw: Source of randomness.
        ratio: Share of the tokens.

    Raises:
        ValueError: If a length is less than 1, there is none, or ratio is not in (0, 1].
    """
    if not lengths or min(lengths) < 1 or not 0 < ratio <= 1:
        raise ValueError(f"need lengths={list(lengths)} of at least 1 and {ratio=} above 0 and at most 1")
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    spans, drawn = [], 0
    for i in draw.sample(range(len(lengths)), len(lengths)):
        if drawn >= ratio * ends[-1]:
            break
        spans.append((ends[i] - lengths[i], ends[i]))
        drawn += lengths[i]
    return sorted(spans)


def document_span(n: int, draw: random.Random, *, least: float = 0.5) -> list[Span]:
    """One span at the end whose length is uniform between `least` n and n (section 2.2, document level).

    Raises:
        ValueError: If n is less than 1, or least is not in [0, 1].
    """
    if n < 1 or not 0 <= least <= 1:
        raise ValueError(f"need {n=} of at least 1 and {least=} from 0 to 1")
    return [(n - draw.randint(max(1, math.ceil(least * n)), n), n)]


def collate(blanks: Sequence[Blanks], pad: int = 0) -> Blanks:
    """One batch of texts of different lengths, filled up at the end, where no token before looks."""

    def filled(name: str, value: int) -> Int[Tensor, "b n"]:
        rows = [getattr(one, name) for one in blanks]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    context = torch.stack([one.context for one in blanks])
    return Blanks(filled("tokens", pad), filled("targets", IGNORE), filled("positions", 0), filled("inner", 0), context)


def _poisson(mean: float, draw: random.Random) -> int:
    """Knuth's way: how many uniform numbers can be multiplied before the product is below exp(-mean)."""
    count, product = 0, draw.random()
    while product > math.exp(-mean):
        count, product = count + 1, product * draw.random()
    return count
