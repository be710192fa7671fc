r"""Applying merges to one word: again and again the pair that was learned first [@sennrich2016neural].

Imports: the standard library.

Symbols: a word is a list of n ids; a pair is two ids that stand side by side; the rank of a pair is its number in the
list of merges, 0 for the one that was learned first.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise, repeat

Pair = tuple[int, int]
NEVER = 1 << 62  # the rank of a pair that is no merge
SHORT = 100  # up to so many symbols a list that is searched is faster than a heap


class Merges:
    """A list of merges over the ids of a vocabulary, ready to be applied.

    Among the pairs of a word the one with the lowest rank is joined, the leftmost if there are several; then the next.

    Args:
        merges: Pairs of pieces, in the order in which they were learned.
        vocabulary: The id of every piece.

    Raises:
        ValueError: If a part or the product of a merge is not in the vocabulary, or a merge is listed twice.
    """

    def __init__(self, merges: Iterable[tuple[str, str]], vocabulary: Mapping[str, int]):
        self.rank: dict[Pair, int] = {}
        self.product: list[int] = []
        for number, (left, right) in enumerate(merges):
            for piece in (left, right, left + right):
                if piece not in vocabulary:
                    raise ValueError(f"merge {number}, {left!r} {right!r}: {piece!r} is not in the vocabulary")
            pair = vocabulary[left], vocabulary[right]
            if self.rank.setdefault(pair, number) != number:
                raise ValueError(f"merge {number}, {left!r} {right!r}, is already merge {self.rank[pair]}")
            self.product.append(vocabulary[left + right])

    def __call__(self, word: list[int]) -> list[int]:
        """The ids of the pieces into which the symbols of one word are merged."""
        return (self.by_search if len(word) <= SHORT else self.by_heap)(word)

    def by_search(self, word: list[int]) -> list[int]:
        """In time O(n²), with small constants: each step searches the list of ranks."""
        word, rank, product = word[:], self.rank.get, self.product
        ranks = list(map(rank, pairwise(word), repeat(NEVER)))
        while ranks and (best := min(ranks)) < NEVER:
            i = ranks.index(best)
            word[i] = product[best]
            del word[i + 1], ranks[i]
            if i:
                ranks[i - 1] = rank((word[i - 1], word[i]), NEVER)
            if i < len(ranks):
                ranks[i] = rank((word[i], word[i + 1]), NEVER)
        return word

    def by_heap(self, word: list[int]) -> list[int]:
        """In time O(n log n): the pairs wait in a heap, and each symbol knows its neighbours."""
        n, rank = len(word), self.rank.get
        symbols: list[int | None] = [*word, None]  # None: gone
        after, before = list(range(1, n + 2)), list(range(-1, n))
        ranks = list(map(rank, pairwise(word), repeat(NEVER)))
        heap = [(best, i) for i, best in enumerate(ranks) if best < NEVER]
        heapq.heapify(heap)
        while heap:
            best, i = heapq.heappop(heap)
            j = after[i]
            if rank((symbols[i], symbols[j]), NEVER) != best:  # type: ignore[arg-type]
                continue  # one of the two has been merged with another since
            symbols[i], symbols[j] = self.product[best], None
            after[i] = after[j]
            before[after[i]] = i
            for left in (before[i], i):
                if left >= 0:
                    found = rank((symbols[left], symbols[after[left]]), NEVER)  # type: ignore[arg-type]
                    if found < NEVER:
                        heapq.heappush(heap, (found, left))
        return [symbol for symbol in symbols if symbol is not None]


class WordCache(dict[str, list[int]]):
    """Remembers the ids of each word, as most words of a text have been seen before.

    Look a word up, `cache[word]`; one that is not there is encoded. A full cache is emptied.

    Args:
        encode: Gives the ids of a word.
        size: How many words are kept.
    """

    def __init__(self, encode: Callable[[str], list[int]], size: int = 1 << 17):
        super().__init__()
        self.encode, self.size = encode, size

    def __missing__(self, word: str) -> list[int]:
        ids = self.encode(word)
        if len(word) <= SHORT:
            if len(self) >= self.size:
                self.clear()
            self[word] = ids
        return ids
