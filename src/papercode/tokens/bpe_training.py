r"""Learning merges: join the most frequent pair, count again, repeat [@sennrich2016neural, Algorithm 1].

Imports: the standard library.

Symbols: a word is a sequence of symbols, `("l", "o", "w", "</w>")`, with the number of times it occurs.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from papercode.tokens.bpe_merging import Pair

Merge = tuple[str, str]


def algorithm_1(words: Mapping[Any, int], n: int) -> list[Merge]:
    """The paper's Algorithm 1, step by step: all pairs of all words are counted anew for each merge.

    Among equally frequent pairs it takes the one that is met first when the words are read in their order. (The paper
    does not say which; its listing leaves it to Python's dict, which keeps that order since 2016.)

    Args:
        words: How often each word, a sequence of symbols, occurs.
        n: How many merges to learn; fewer if every word is one symbol before.

    Returns:
        The merges in the order in which they were learned.
    """
    spelled = [(list(word), count) for word, count in words.items()]
    merges: list[Merge] = []
    for _ in range(n):
        pairs: Counter[Merge] = Counter()
        for word, count in spelled:
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=pairs.__getitem__)
        merges.append(best)
        spelled = [(_joined(word, best, best[0] + best[1]), count) for word, count in spelled]
    return merges


def learn_merges(words: Mapping[Any, int], n: int, *, alphabet: Iterable[str] = (), min_count: int = 1) -> list[Merge]:
    """The same, fast: the counts are kept up to date, and the most frequent pair is on top of a heap.

    Symbols are numbered: the alphabet in the order of its code points, then the products of the merges as they come.
    Among equally frequent pairs the one with the lower numbers is taken, left before right.

    Args:
        words: How often each word, a sequence of symbols, occurs. A `str` is spelled with its characters.
        n: How many merges to learn; fewer if no pair is left that occurs `min_count` times.
        alphabet: Symbols that are numbered with those of the words.
        min_count: A pair must occur so often.

    Returns:
        The merges in the order in which they were learned.

    Raises:
        ValueError: If n is negative, min_count less than 1, or a word occurs a negative number of times.
    """
    if n < 0 or min_count < 1:
        raise ValueError(f"n={n} must be at least 0 and min_count={min_count} at least 1")
    names = sorted(set(alphabet).union(*words))
    number = {name: i for i, name in enumerate(names)}
    spelled = [[number[symbol] for symbol in word] for word in words]
    counts = list(words.values())
    if counts and min(counts) < 0:
        raise ValueError(f"words: {min(counts)} is no number of times that a word can occur")

    occurs: defaultdict[Pair, int] = defaultdict(int)
    where: defaultdict[Pair, list[int]] = defaultdict(list)  # the words that hold it, and some that no longer do
    for i, (word, count) in enumerate(zip(spelled, counts)):
        for pair in pairwise(word):
            occurs[pair] += count
            where[pair].append(i)
    heap = [(-count, pair) for pair, count in occurs.items()]
    heapq.heapify(heap)

    learned: dict[Pair, None] = {}
    with _progress(n) as bar:
        while heap and len(learned) < n:
            count, pair = heapq.heappop(heap)
            if -count != occurs[pair]:  # what it was when it was put there
                if occurs[pair] > 0:
                    heapq.heappush(heap, (-occurs[pair], pair))
                continue
            if -count < min_count:
                break
            learned[pair] = None  # a second time where a symbol is spelled like a product, and it has come back
            bar.update()
            name = names[pair[0]] + names[pair[1]]
            product = number.setdefault(name, len(names))
            if product == len(names):
                names.append(name)
            for new in _merge_in(where.pop(pair), pair, product, spelled, counts, occurs, where):
                heapq.heappush(heap, (-occurs[new], new))
            occurs[pair] = 0
    return [(names[left], names[right]) for left, right in learned]


def _merge_in(
    indices: Iterable[int],
    pair: Pair,
    product: int,
    spelled: list[list[int]],
    counts: list[int],
    occurs: defaultdict[Pair, int],
    where: defaultdict[Pair, list[int]],
) -> set[Pair]:
    """Merges a pair in the words that hold it, and brings counts and places up to date; gives the new pairs."""
    left, right = pair
    new = set()
    for index in indices:
        word, count = spelled[index], counts[index]
        i, end = 0, len(word) - 1
        while i < end:
            if word[i] != left or word[i + 1] != right:
                i += 1
                continue
            if i:
                before = word[i - 1]
                occurs[before, left] -= count
                fresh = before, product
                occurs[fresh] += count
                where[fresh].append(index)
                new.add(fresh)
            if i + 1 < end:
                after = word[i + 2]
                occurs[right, after] -= count
                fresh = product, after
                occurs[fresh] += count
                where[fresh].append(index)
                new.add(fresh)
            word[i : i + 2] = (product,)
            end -= 1
            i += 1
    return new


def _joined(word: Sequence[str], pair: Merge, product: str) -> list[str]:
    """The word with the pair joined wherever it stands, from left to right."""
    joined: list[str] = []
    i = 0
    while i < len(word):
        here = tuple(word[i : i + 2]) == pair
        joined.append(product if here else word[i])
        i += 2 if here else 1
    return joined


class _Silent:
    """A bar that shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self) -> None:
        pass


def _progress(total: int):
    with suppress(ImportError):
        from tqdm import tqdm

        return tqdm(total=total, desc="learning merges", unit="merge", leave=False, disable=None)
    return _Silent()
