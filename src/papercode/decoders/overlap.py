r"""How much of a test set stands in the training set: a Bloom filter of 8-grams [@radford2019language, section 4].

A **Bloom filter** is a long row of bits. To add an item, k hash functions name k bits, which are set. An item is taken
to be in the filter if all its k bits are set: always so for what was added, seldom for anything else.

Imports: nothing from an older paper's module. The filter is Bloom's (1970).

Symbols: the paper bounds the rate of false positives by $10^{-8}$ = false_positives.

Differences from the paper:
    * It does not say how the filter is built. Here m bits and k hashes are the fewest bits that keep the rate.
"""

import math
import re
from collections.abc import Iterable
from hashlib import blake2b


class BloomFilter:
    """A set of strings that may err on the side of yes.

    Args:
        n_items: As many as will be added.
        false_positives: How probable it is, when all are in, that a stranger is taken for one.

    Raises:
        ValueError: If n_items is less than 1, or false_positives is not between 0 and 1.
    """

    def __init__(self, n_items: int, false_positives: float = 1e-8):
        if n_items < 1 or not 0 < false_positives < 1:
            raise ValueError(f"n_items={n_items} must be at least 1, false_positives={false_positives} between 0 and 1")
        self.n_bits = math.ceil(n_items * -math.log(false_positives) / math.log(2) ** 2)
        self.n_hashes = max(1, round(self.n_bits / n_items * math.log(2)))
        self._bits = bytearray(-(-self.n_bits // 8))

    def add(self, item: str) -> None:
        """From now on the item is in the filter."""
        for bit in self._places(item):
            self._bits[bit // 8] |= 1 << bit % 8

    def __contains__(self, item: str) -> bool:
        return all(self._bits[bit // 8] >> bit % 8 & 1 for bit in self._places(item))

    def _places(self, item: str) -> Iterable[int]:
        digest = blake2b(item.encode(), digest_size=16).digest()
        first, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1
        return ((first + i * step) % self.n_bits for i in range(self.n_hashes))


def ngrams(text: str, n: int = 8) -> list[str]:
    """All runs of n words; words are letters and digits in lower case, with one space between them.

    Raises:
        ValueError: If n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    words = re.findall(r"[^\W_]+", text.lower())
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]


def ngram_filter(texts: Iterable[str], n: int = 8, false_positives: float = 1e-8) -> BloomFilter:
    """A filter of all n-grams of a training set.

    Raises:
        ValueError: If no text has n words.
    """
    found = {gram for text in texts for gram in ngrams(text, n)}
    if not found:
        raise ValueError(f"texts have no run of n={n} words")
    grams = BloomFilter(len(found), false_positives)
    for gram in found:
        grams.add(gram)
    return grams


def overlap(texts: Iterable[str], grams: BloomFilter, n: int = 8) -> float:
    """The share of the n-grams of a test set that are in the filter of a training set; 0 if it has none.

    Args:
        texts: The test set.
        grams: From `ngram_filter`, with the same n.
        n: Words in a run.
    """
    hits = [gram in grams for text in texts for gram in ngrams(text, n)]
    return sum(hits) / max(1, len(hits))
