r"""BLEU: how much of a translation can be found in what people wrote [@papineni2002bleu].

Texts are sequences of words, cut by whoever calls: the score depends on how [@post2018call]. It is a number between 0
and 1; papers print it times 100.

$$\text{BLEU} = \min(1, e^{1 - r/c}) \cdot \exp\Big(\sum_{n=1}^{N} \frac1N \log p_n\Big)$$

All is counted over the whole corpus before anything is divided: $p_n$ is the share of the translations' n-grams that
are found, c the number of their words, r that of the references nearest in length. So it is no mean over sentences.
"""

import math
from collections.abc import Sequence

from papercode.evaluation.dialogue import Text, counted, matched


def found(hypothesis: Text, references: Sequence[Text], n: int) -> tuple[int, int]:
    """How many n-grams of a text are in its references, and how many it has.

    A repeated n-gram is found as often as the reference that has it most (its count is clipped).
    """
    return matched(hypothesis, references, n).total(), counted([hypothesis], n).total()


def closest_length(length: int, references: Sequence[Text]) -> int:
    """The length of the reference that is nearest in length; of two as near, the shorter."""
    return min((abs(len(reference) - length), len(reference)) for reference in references)[1]


def brevity_penalty(length: int, wanted: int) -> float:
    """1 for a corpus of `length` words where `wanted` were, if it is long enough; else exp(1 - wanted / length)."""
    if length >= wanted:
        return 1.0
    return math.exp(1 - wanted / length) if length else 0.0


def bleu(hypotheses: Sequence[Text], references: Sequence[Sequence[Text]], n: int = 4) -> float:
    """BLEU of a corpus, not smoothed: 0 as soon as no n-gram of some length is found.

    Args:
        hypotheses: One text for each source.
        references: For each source, one text or more that people wrote.
        n: Longest n-gram, N in the formula.

    Raises:
        ValueError: If there are no hypotheses, not as many as there are references, a source has no reference, or n is
            less than 1.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(f"hypotheses={len(hypotheses)} and references={len(references)}: one list of references each")
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    logarithms = 0.0
    for k in range(1, n + 1):
        matches, given = map(sum, zip(*(found(*pair, k) for pair in zip(hypotheses, references))))
        if not matches:
            return 0.0
        logarithms += math.log(matches / given)
    wanted = sum(closest_length(len(text), texts) for text, texts in zip(hypotheses, references))
    return brevity_penalty(sum(map(len, hypotheses)), wanted) * math.exp(logarithms / n)
