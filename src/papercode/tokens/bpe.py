r"""Byte pair encoding: words are spelled with pieces that were frequent in the training text [@sennrich2016neural].

Imports: the standard library.

Symbols: a piece is a string of characters, `</w>` marks the end of a word; a merge is a pair of pieces.

Differences from the paper:
    * Among equally frequent pairs the one whose pieces are older is merged first; the paper leaves it open
      ([`algorithm_1`][papercode.tokens.bpe_training.algorithm_1] does as its listing).
    * A character that was not in the training text becomes the unknown piece, if one is given, and is an error
      otherwise.
    * Special tokens, which no merge touches, and a memory for words are not in the paper.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path

from papercode.tokens.bpe_files import MERGES, VOCABULARY, checked_vocabulary, read_merges, read_vocabulary, write_files
from papercode.tokens.bpe_merging import Merges, WordCache
from papercode.tokens.bpe_text import count_words, special_pattern
from papercode.tokens.bpe_training import Merge, learn_merges


def end_apart(word: str, end: str) -> list[str]:
    """How the paper spells a word: its characters, and then the end of the word as a symbol of its own."""
    return [*word, end]


def end_attached(word: str, end: str) -> list[str]:
    """How GPT and later versions of the authors' program spell it: the last character carries the end."""
    return [*word[:-1], word[-1] + end]


class BPE:
    """A tokenizer that splits text into words and merges the characters of each word into pieces.

    Args:
        merges: Pairs of pieces, in the order in which they were learned.
        vocabulary: The id of every piece. Without one: special tokens, the unknown piece, the symbols of the merges in
            the order of their code points, the products of the merges.
        end: What marks the end of a word.
        spell: The symbols of a word, from the word and `end`.
        words: The words of a text.
        unknown: The piece that stands for a character that is not in the vocabulary.
        special: Tokens that are never split, with ids of their own. Of two that begin at the same place the longer
            wins.

    Raises:
        ValueError: If merges and vocabulary do not fit together, special or unknown are not in the vocabulary, or end
            is empty.
    """

    def __init__(
        self,
        merges: Iterable[Merge],
        vocabulary: Mapping[str, int] | None = None,
        *,
        end: str = "</w>",
        spell: Callable[[str, str], Sequence[str]] = end_apart,
        words: Callable[[str], Sequence[str]] = str.split,
        unknown: str | None = None,
        special: Sequence[str] = (),
    ):
        self.merges = [(left, right) for left, right in merges]
        reserved = [*special] if unknown is None else [*special, unknown]
        if not end:
            raise ValueError("end must not be empty: without a mark no text can be put together again")
        if vocabulary is None:
            vocabulary = _numbered(self.merges, (), reserved)
        self.vocabulary = checked_vocabulary(vocabulary, "vocabulary")
        for token in reserved:
            if token not in self.vocabulary:
                raise ValueError(f"{token!r} is not in the vocabulary")
        self.end, self.spell, self.words, self.unknown, self.special = end, spell, words, unknown, tuple(special)
        self.pieces = {i: piece for piece, i in self.vocabulary.items()}
        self._merge = Merges(self.merges, self.vocabulary)
        self._allowed: Container[str] | None = None  # all
        self._parts: dict[str, Merge] = {}
        self._cache = WordCache(self._encode_word)
        self._special = special_pattern(special)

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        n_merges: int,
        *,
        end: str = "</w>",
        spell: Callable[[str, str], Sequence[str]] = end_apart,
        words: Callable[[str], Sequence[str]] = str.split,
        unknown: str | None = None,
        special: Sequence[str] = (),
    ) -> "BPE":
        """Learns merges from texts. With the texts of two languages this is the paper's joint BPE.

        Args:
            texts: What is read: lines, documents. (One text alone goes into a list.)
            n_merges: How many merges to learn, at most.
            end: What marks the end of a word.
            spell: The symbols of a word.
            words: The words of a text.
            unknown: The piece for characters that are not in the texts.
            special: Tokens that are never split; they are cut out of the texts before anything is counted.

        Raises:
            TypeError: If texts is one string.
        """
        counts = count_words(texts, words, special)
        spelled = {tuple(spell(word, end)): count for word, count in counts.items()}
        merges = learn_merges(spelled, n_merges)
        vocabulary = _numbered(merges, chain(*spelled), [*special] if unknown is None else [*special, unknown])
        return cls(merges, vocabulary, end=end, spell=spell, words=words, unknown=unknown, special=special)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        *,
        end: str = "</w>",
        spell: Callable[[str, str], Sequence[str]] = end_attached,
        words: Callable[[str], Sequence[str]] = str.split,
        unknown: str | None = "<unk>",
        special: Sequence[str] = (),
    ) -> "BPE":
        """Reads vocab.json and merges.txt, which do not say how text is cut into words: that is `words`.

        Raises:
            FileNotFoundError: If one of the two is not in the folder.
            ValueError: If a file is damaged, or the two do not fit together.
        """
        vocabulary = read_vocabulary(Path(folder) / VOCABULARY)
        merges = read_merges(Path(folder) / MERGES)
        return cls(merges, vocabulary, end=end, spell=spell, words=words, unknown=unknown, special=special)

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes vocab.json and merges.txt into a folder, which is made if need be."""
        write_files(Path(folder), self.vocabulary, self.merges)

    def encode(self, text: str) -> list[int]:
        """The ids of the pieces of a text.

        Raises:
            ValueError: If a character is not in the vocabulary and there is no unknown piece.
        """
        if self._special is None:
            return self._encode_words(text)
        parts = self._special.split(text)
        ids = self._encode_words(parts[0])
        for token, between in zip(parts[1::2], parts[2::2]):
            ids.append(self.vocabulary[token])
            ids += self._encode_words(between)
        return ids

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text."""
        return [self.pieces[i] for i in self.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text, with a space after every word and every special token but the last.

        Raises:
            ValueError: If an id is not in the vocabulary.
        """
        text = ""
        for i in ids:
            if i not in self.pieces:
                raise ValueError(f"ids: {i} is not in the vocabulary")
            piece = self.pieces[i]
            text += piece + " " if piece in self.special else piece.replace(self.end, " ")
        return text.removesuffix(" ")

    def restricted(self, allowed: Container[str]) -> "BPE":
        """The same tokenizer, but a piece that is not allowed is split back into the two it was merged from, and so on.

        For joint BPE: allowed are the pieces that were seen often enough in the training text of one language
        ([`frequent`][papercode.tokens.bpe.frequent]), so that none comes up of which its model has seen nothing.
        """
        copy = BPE(
            self.merges,
            self.vocabulary,
            end=self.end,
            spell=self.spell,
            words=self.words,
            unknown=self.unknown,
            special=self.special,
        )
        copy._allowed = allowed
        copy._parts = {left + right: (left, right) for left, right in reversed(self.merges)}
        return copy

    def _encode_words(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, self.words(text))))

    def _encode_word(self, word: str) -> list[int]:
        ids = self._merge([self._id(symbol) for symbol in self.spell(word, self.end)])
        if self._allowed is None:
            return ids
        return [self.vocabulary[part] for i in ids for part in self._split_back(self.pieces[i])]

    def _id(self, symbol: str) -> int:
        i = self.vocabulary.get(symbol)
        if i is not None:
            return i
        if self.unknown is None:
            raise ValueError(f"{symbol!r} is not in the vocabulary, and there is no unknown piece")
        return self.vocabulary[self.unknown]

    def _split_back(self, piece: str) -> list[str]:
        if piece in self._allowed or piece not in self._parts:  # type: ignore[operator]
            return [piece]
        left, right = self._parts[piece]
        return self._split_back(left) + self._split_back(right)


def frequent(tokenizer: BPE, texts: Iterable[str], threshold: int) -> set[str]:
    """The pieces that occur at least `threshold` times when texts are encoded: the vocabulary of one language."""
    counts = Counter(piece for text in texts for piece in tokenizer.tokenize(text))
    return {piece for piece, count in counts.items() if count >= threshold}


def _numbered(merges: Sequence[Merge], symbols: Iterable[str], reserved: Sequence[str]) -> dict[str, int]:
    """Ids from 0: what is reserved, the symbols in the order of their code points, the products of the merges."""
    products = [left + right for left, right in merges]
    basic = set(symbols).union(*merges).difference(products)
    return {piece: i for i, piece in enumerate(dict.fromkeys([*reserved, *sorted(basic), *products]))}
