r"""Byte-level BPE: the merges start from the bytes of UTF-8, so that there is no unknown character [@wang2020neural].

Imports: the merging, learning and files of BPE [@sennrich2016neural].

The idea is older than the paper whose module this is: GPT-2 had it half a year before [@radford2019language, section
2.2], and the defaults here, the words and the printable bytes, are GPT-2's, as everybody uses them. From the paper is
the recovery of text from bytes that are none ([`utf8_recover`][papercode.tokens.utf8_recovery.utf8_recover]).

Symbols: a piece is a string of bytes, each written as the printable character that stands for it.

Differences from the paper:
    * Words are cut by GPT-2's pattern; give another function as `words=`.
    * All 256 bytes have ids, so that bytes that are not text can be encoded too.
    * `decode` puts U+FFFD where bytes are no text, as the reference does; the paper leaves them out.
    * The convolution or recurrence that the paper puts on the embeddings belongs to a model, not to a tokenizer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from os import PathLike
from pathlib import Path

from papercode.tokens.bpe_files import MERGES, VOCABULARY, checked_vocabulary, read_merges, read_vocabulary, write_files
from papercode.tokens.bpe_merging import Merges, WordCache
from papercode.tokens.bpe_text import count_words, special_pattern
from papercode.tokens.bpe_training import Merge, learn_merges
from papercode.tokens.byte_alphabet import byte_characters, gpt2_words
from papercode.tokens.tokenizer_json import TOKENIZER, read_tokenizer, write_tokenizer


class ByteLevelBPE:
    """A tokenizer that splits text into words and merges the bytes of each word into pieces.

    Args:
        merges: Pairs of pieces, in the order in which they were learned.
        vocabulary: The id of every piece. Without one: special tokens, the 256 bytes in the order of their printable
            characters, the products of the merges.
        words: The words of a text; joined they must be the text.
        special: Tokens that are never split, with ids of their own. Of two that begin at the same place the longer
            wins. None: those pieces of the vocabulary that are neither a byte nor the product of a merge, which no
            text could give otherwise.

    Raises:
        ValueError: If merges and vocabulary do not fit together, or a byte or a special token has no id.
    """

    def __init__(
        self,
        merges: Iterable[Merge],
        vocabulary: Mapping[str, int] | None = None,
        *,
        words: Callable[[str], Sequence[str]] = gpt2_words,
        special: Sequence[str] | None = None,
    ):
        self.merges = [(left, right) for left, right in merges]
        characters = byte_characters()
        made = dict.fromkeys([*sorted(characters), *(left + right for left, right in self.merges)])
        if vocabulary is None:
            vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*(special or ()), *made]))}
        self.vocabulary = checked_vocabulary(vocabulary, "vocabulary")
        if special is None:
            special = [piece for piece in self.vocabulary if piece not in made]
        for piece in (*characters, *special):
            if piece not in self.vocabulary:
                raise ValueError(f"{piece!r} is not in the vocabulary; all 256 bytes and all special tokens must be")
        self.words, self.special = words, tuple(special)
        self.pieces = {i: piece for piece, i in self.vocabulary.items()}
        self._bytes = {i: _as_bytes(piece, self.special) for i, piece in self.pieces.items()}
        self._byte_ids = [self.vocabulary[character] for character in characters]
        self._merge = Merges(self.merges, self.vocabulary)
        self._cache = WordCache(self._encode_word)
        self._special = special_pattern(self.special)

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        n_merges: int,
        *,
        words: Callable[[str], Sequence[str]] = gpt2_words,
        special: Sequence[str] = (),
    ) -> "ByteLevelBPE":
        """Learns merges from texts.

        Args:
            texts: What is read: lines, documents. (One text alone goes into a list.)
            n_merges: How many merges to learn, at most. The vocabulary is larger by 256 and the special tokens.
            words: The words of a text.
            special: Tokens that are never split; they are cut out of the texts before anything is counted.

        Raises:
            TypeError: If texts is one string.
        """
        counts = count_words(texts, words, special)
        written = Counter({printable(_utf8(word)): count for word, count in counts.items()})
        return cls(learn_merges(written, n_merges), words=words, special=special)

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike[str], *, words: Callable[[str], Sequence[str]] = gpt2_words
    ) -> "ByteLevelBPE":
        """Reads tokenizer.json, or vocab.json and merges.txt if there is none.

        Raises:
            FileNotFoundError: If there is neither.
            ValueError: If a file is damaged, its parts do not fit together, or tokenizer.json asks for something that
                is not implemented, which the message names.
        """
        folder = Path(folder)
        if (folder / TOKENIZER).is_file():
            vocabulary, merges, special = read_tokenizer(folder / TOKENIZER)
            return cls(merges, vocabulary, special=special, words=words)
        return cls(read_merges(folder / MERGES), read_vocabulary(folder / VOCABULARY), words=words)

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes vocab.json, merges.txt and tokenizer.json into a folder, which is made if need be."""
        write_files(Path(folder), self.vocabulary, self.merges)
        write_tokenizer(Path(folder) / TOKENIZER, self.vocabulary, self.merges, self.special)

    def encode(self, text: str) -> list[int]:
        """The ids of the pieces of a text.

        Raises:
            ValueError: If the text holds half a surrogate pair, which UTF-8 cannot.
        """
        if self._special is None:
            return self._encode_words(text)
        parts = self._special.split(text)
        ids = self._encode_words(parts[0])
        for token, between in zip(parts[1::2], parts[2::2]):
            ids.append(self.vocabulary[token])
            ids += self._encode_words(between)
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; [`decode_bytes`][papercode.tokens.byte_bpe.ByteLevelBPE.decode_bytes] gives them back.

        What is valid UTF-8 in them is encoded as text.
        """
        return self.encode(data.decode("utf-8", "surrogateescape"))

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, their bytes written as printable characters."""
        return [self.pieces[i] for i in self.encode(text)]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the pieces, joined.

        Raises:
            ValueError: If an id is not in the vocabulary.
        """
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except KeyError as error:
            raise ValueError(f"ids: {error.args[0]!r} is not in the vocabulary") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text. Where the bytes are not valid UTF-8, for instance a character cut in two, U+FFFD stands.

        Raises:
            ValueError: If an id is not in the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def _encode_words(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, self.words(text))))

    def _encode_word(self, word: str) -> list[int]:
        ids = self._byte_ids
        return self._merge([ids[byte] for byte in _utf8(word)])


def printable(data: bytes) -> str:
    """Bytes written as the characters that stand for them."""
    return "".join(map(byte_characters().__getitem__, data))


def from_printable(piece: str) -> bytes:
    """The bytes that a piece stands for.

    Raises:
        ValueError: If a character stands for no byte.
    """
    try:
        return bytes(map(_bytes_of_characters().__getitem__, piece))
    except KeyError as error:
        raise ValueError(f"piece {piece!r}: {error.args[0]!r} stands for no byte") from None


@cache
def _bytes_of_characters() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def _as_bytes(piece: str, special: Sequence[str]) -> bytes:
    return piece.encode() if piece in special else from_printable(piece)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[error.start]!r} is half a surrogate pair, which is no character of UTF-8") from error
