"""A text that is cut into pieces, two of which are joined wherever they meet [@schuster2012japanese].

What is joined next is for a score to say ([`wordpiece_training`][papercode.tokens.wordpiece_training] has them); here
are the counts on which scores stand. Of all that the paper does to be fast this does two things: only pairs that meet
in the text are looked at, and a joint changes only the counts of the words in which it happens.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pairs(NamedTuple):
    """All pairs of neighbours in a text as it is cut so far, an entry for each.

    Attributes:
        together: How often the two can be joined.
        left: How often the first of them comes at all.
        right: How often the second comes at all.
        alike: Whether they are the same piece.
        total: Pieces of the text.
    """

    together: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    alike: NDArray[np.bool_]
    total: int


class Step(NamedTuple):
    """A new piece: what it is, what its score was, and how many pieces the text had before."""

    piece: str
    score: float
    total: int


def grow(
    words: Mapping[str, int],
    score: Callable[[Pairs], NDArray[Any]],
    prefix: str = "##",
) -> Iterator[Step]:
    """Joins the best pair of neighbours, again and again; of equal ones the pair that came up first.

    Args:
        words: With how often each comes.
        score: Of all pairs; the highest is joined.
        prefix: What a piece inside a word begins with.

    Yields:
        The pieces, until no word is left in parts.
    """
    text = _Text(words, prefix)
    while len(rows := text.alive()):
        pairs = text.pairs(rows)
        scores = score(pairs)
        best = int(scores.argmax())
        yield Step(text.join(int(rows[best])), float(scores[best]), pairs.total)


class _Text:
    """Words cut into pieces, and the counts that change when two pieces are joined everywhere."""

    def __init__(self, words: Mapping[str, int], prefix: str):
        self.prefix = prefix
        self.names: list[str] = []  # of pieces, and of those that a pair would make
        self.number: dict[str, int] = {}
        self.counts = _Column()  # of pieces
        self.rows: dict[tuple[int, int], int] = {}  # of pairs in the columns below
        self.left, self.right, self.whole, self.together = _Column(), _Column(), _Column(), _Column()
        self.places: list[dict[int, None]] = []  # of pairs: the words that hold them
        self.weights = list(words.values())
        self.words = [[self._piece(unit) for unit in characters(word, prefix)] for word in words]
        for place in range(len(self.words)):
            self._count(place, 1)

    def alive(self) -> NDArray[np.int64]:
        """The rows of pairs that still meet."""
        return np.flatnonzero(self.together.values)

    def pairs(self, rows: NDArray[np.int64]) -> Pairs:
        counts, left, right = self.counts.values, self.left.values[rows], self.right.values[rows]
        return Pairs(self.together.values[rows], counts[left], counts[right], left == right, int(counts.sum()))

    def join(self, row: int) -> str:
        """Joins a pair wherever it stands, and names the piece."""
        first, second, new = (int(column.values[row]) for column in (self.left, self.right, self.whole))
        for place in list(self.places[row]):
            self._count(place, -1)
            units, joined, i = self.words[place], [], 0
            while i < len(units):
                both = units[i : i + 2] == [first, second]
                joined.append(new if both else units[i])
                i += 2 if both else 1
            self.words[place] = joined
            self._count(place, 1)
        return self.names[new]

    def _count(self, place: int, sign: int) -> None:
        """Adds the pieces and pairs of a word to the counts, or takes them away."""
        units, weight = self.words[place], sign * self.weights[place]
        for unit in units:
            self.counts.values[unit] += weight
        before = None
        for pair in pairwise(units):
            if pair == before:
                before = None  # of three in a row only two can be joined
                continue
            before = pair
            row = self._row(pair)
            self.together.values[row] += weight
            if sign > 0:
                self.places[row][place] = None
            else:
                self.places[row].pop(place, None)

    def _row(self, pair: tuple[int, int]) -> int:
        row = self.rows.get(pair)
        if row is None:
            row = self.rows[pair] = len(self.places)
            self.places.append({})
            whole = self._piece(self.names[pair[0]] + self.names[pair[1]].removeprefix(self.prefix))
            for column, value in zip((self.left, self.right, self.whole, self.together), (*pair, whole, 0)):
                column.append(value)
        return row

    def _piece(self, name: str) -> int:
        if name not in self.number:
            self.number[name] = len(self.names)
            self.names.append(name)
            self.counts.append(0)
        return self.number[name]


class _Column:
    """Whole numbers in an array that grows."""

    def __init__(self) -> None:
        self.room, self.size = np.zeros(1024, np.int64), 0

    @property
    def values(self) -> NDArray[np.int64]:
        return self.room[: self.size]

    def append(self, value: int) -> None:
        if self.size == len(self.room):
            self.room = np.concatenate([self.room, np.zeros_like(self.room)])
        self.room[self.size] = value
        self.size += 1


def characters(word: str, prefix: str = "##") -> list[str]:
    """A word in its smallest pieces."""
    return [word[0], *(prefix + character for character in word[1:])]
