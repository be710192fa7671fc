r"""How good and how varied generated replies are, as papers on dialogue measure it.

Texts are sequences of words, cut by whoever calls; a string is a sequence of characters, which suits Chinese.

* `distinct` [@li2016diversity] and `entropy` [@zhang2018generating] look at the replies alone, all together.
* `nist` [@doddington2002automatic] compares them with references, and counts a rare n-gram for more than a common one.
* `embedding_average` and `greedy_matching` [@liu2016how] compare the vectors of the words of two texts.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

Text = Sequence[Hashable]


def ngrams(text: Text, n: int) -> Iterator[tuple[Hashable, ...]]:
    """All runs of n words, in order; none if the text is shorter.

    Raises:
        ValueError: If n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    return (tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def counted(texts: Sequence[Text], n: int) -> Counter:
    """How often each n-gram occurs in all texts together."""
    return Counter(gram for text in texts for gram in ngrams(text, n))


def matched(text: Text, references: Sequence[Text], n: int) -> Counter:
    """The n-grams of a text that are in its references, each as often at most as in the reference that has it most."""
    most: Counter = Counter()
    for reference in references:
        most |= counted([reference], n)
    return counted([text], n) & most


def distinct(texts: Sequence[Text], n: int) -> float:
    """Dist-n: different n-grams by all n-grams, over all texts together; 0 if there is none.

    It falls as the number of texts grows, since words return: compare equal amounts of text only.
    """
    counts = counted(texts, n)
    return len(counts) / counts.total() if counts else 0.0


def entropy(texts: Sequence[Text], n: int) -> float:
    r"""Ent-n: $-\sum_w p(w) \ln p(w)$ over the n-grams of all texts together, in nats; 0 if there is none.

    Unlike Dist-n it sees how evenly the n-grams are used.
    """
    counts = counted(texts, n)
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def nist(hypotheses: Sequence[Text], references: Sequence[Sequence[Text]], n: int = 5) -> float:
    r"""NIST: for each length up to n the information of the n-grams found, by the number of n-grams given, summed up.

    The information of $w_1 \dots w_n$ is $\log_2 \frac{c(w_1 \dots w_{n-1})}{c(w_1 \dots w_n)}$, with counts c in all
    references; for one word the upper count is that of all words. An n-gram is found at most as often as the reference
    that has it most. A corpus that is shorter than its references (their mean length) is worth less: half at 2/3.

    Args:
        hypotheses: One text for each prompt.
        references: For each prompt, one text or more that people wrote.
        n: Longest n-gram; NIST-4 has 4, the metric's own default is 5.

    Raises:
        ValueError: If there are no hypotheses, not as many as there are references, a prompt has no reference, or n is
            less than 1.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(f"hypotheses={len(hypotheses)} and references={len(references)}: one list of references each")
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    everything = [text for texts in references for text in texts]
    shorter = Counter({(): sum(map(len, everything))})
    score = 0.0
    for length in range(1, n + 1):
        counts = counted(everything, length)
        found, given = 0.0, 0
        for text, texts in zip(hypotheses, references):
            given += max(len(text) - length + 1, 0)
            both = matched(text, texts, length)
            found += sum(count * math.log2(shorter[gram[:-1]] / counts[gram]) for gram, count in both.items())
        score += found / given if given else 0.0
        shorter = counts
    wanted = sum(sum(map(len, texts)) / len(texts) for texts in references)
    return score * brevity(sum(map(len, hypotheses)), wanted)


def brevity(length: float, wanted: float) -> float:
    """NIST's factor for a corpus of `length` words where `wanted` were: 1 if long enough, 1/2 at two thirds."""
    if length >= wanted:
        return 1.0
    return 0.5 ** ((math.log(length / wanted) / math.log(1.5)) ** 2) if length else 0.0


def embedding_average(ours: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Cosine between the means of two texts' word vectors, one row a word."""
    return cosine_similarity(ours.mean(0), reference.mean(0), dim=0)


def greedy_matching(ours: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Every word is matched with the word of the other text that is nearest by cosine; the mean of both directions."""
    cosines = normalize(ours, dim=1) @ normalize(reference, dim=1).T
    return (cosines.max(1).values.mean() + cosines.max(0).values.mean()) / 2
