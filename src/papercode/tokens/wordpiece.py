r"""WordPiece: a word becomes the longest pieces that a vocabulary has for it [@schuster2012japanese].

The paper grows an inventory of pieces from characters ([`train_wordpiece`][papercode.tokens.wordpiece_training] does
it); this module is what a finished vocabulary is used for, in the form in which BERT made it known [@devlin2019bert]:
from the left, the longest piece that fits, then the longest that fits the rest. A piece that continues a word is
written with ## before it.

Imports: what a word is comes from BERT's code (`BertText`, `joined`); the files of released vocabularies are read in
[`wordpiece_files`][papercode.tokens.wordpiece_files].

Differences from the paper:

- The paper marks where a text had spaces, at both ends of a piece. Here, as in BERT, a mark says where there was none,
  and spaces themselves are lost.
- A word that cannot be cut, and a word of more than 100 characters, is one unknown token, as in BERT. The paper's
  inventory holds all characters of its languages, so that nothing is unknown.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import index
from pathlib import Path
from typing import SupportsIndex

from papercode.tokens.bert_text import BertText, joined
from papercode.tokens.wordpiece_files import FRAMING, SPECIAL, read, write


class WordPiece:
    """A tokenizer with BERT's vocabulary, words and special tokens.

    What a word becomes is remembered, for the 100,000 words that came last or so.

    Args:
        vocabulary: All tokens; the place of a token is its id. Of a token that stands twice, the last place counts.
        split: Cuts a text into words; BertText(lowercase=False) for a cased vocabulary.
        special: Tokens that count as such where they are written in a text. By default those of BERT that the
            vocabulary has; give () for text from strangers, who may write [SEP].
        unknown: What a word becomes that cannot be cut.
        prefix: What a piece inside a word begins with.
        longest: A word of more characters is unknown.

    Raises:
        ValueError: If the vocabulary lacks the unknown token, or a special one that was asked for.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        split: Callable[[str], list[str]] = BertText(),  # noqa: B008 - frozen
        special: Sequence[str] | None = None,
        unknown: str = "[UNK]",
        prefix: str = "##",
        longest: int = 100,
    ):
        self.vocabulary, self.split = tuple(vocabulary), split
        self.ids = {token: number for number, token in enumerate(self.vocabulary)}
        self.special = tuple(token for token in SPECIAL if token in self.ids) if special is None else tuple(special)
        for name, token in (("unknown", unknown), *(("special", token) for token in self.special)):
            if token not in self.ids:
                raise ValueError(f"{name} names {token!r}, which is not among the {len(self.ids)} of vocabulary")
        self.unknown, self.prefix, self.longest = unknown, prefix, longest
        starts = {token: number for token, number in self.ids.items() if token}
        inside = {token.removeprefix(prefix): number for token, number in starts.items() if token.startswith(prefix)}
        # pieces at the start of a word and inside it, each with the length of the longest
        self._tables = [(table, max(map(len, table), default=0)) for table in (starts, inside)]
        self._known = _Cache(self.word)
        longest_first = sorted(map(re.escape, self.special), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(longest_first)})") if self.special else None

    def __len__(self) -> int:
        return len(self.vocabulary)

    def word(self, word: str) -> list[int]:
        """The ids of one word, which is taken as it is: neither cut at spaces nor lowered."""
        if len(word) > self.longest:
            return [self.ids[self.unknown]]
        found, start = [], 0
        (table, reach), inside = self._tables
        while start < len(word):
            for end in range(min(start + reach, len(word)), start, -1):
                piece = table.get(word[start:end])
                if piece is not None:
                    break
            else:
                return [self.ids[self.unknown]]
            found.append(piece)
            start, (table, reach) = end, inside
        return found

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without [CLS] and [SEP]: [`frame`][papercode.tokens.bert_inputs.frame] adds them."""
        found: list[int] = []
        # the odd parts are special tokens
        for number, part in enumerate(self._special.split(text) if self._special else [text]):
            if number % 2:
                found.append(self.ids[part])
            else:
                found.extend(chain.from_iterable(map(self._known.__getitem__, self.split(part))))
        return found

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text as strings."""
        return [self.vocabulary[number] for number in self.encode(text)]

    def decode(self, ids: Iterable[SupportsIndex], *, join: Callable[[list[str]], str] = joined) -> str:
        """A text of the same ids. Case, accents and spaces that encoding has lost do not come back.

        Args:
            ids: [CLS], [SEP] and [PAD] among them are left out; [UNK] and [MASK] are shown.
            join: Makes a text of words.

        Raises:
            ValueError: If an id is not in the vocabulary.
        """
        words: list[str] = []
        for number in map(index, ids):
            if not 0 <= number < len(self):
                raise ValueError(f"ids holds {number}, but the vocabulary has the ids 0 to {len(self) - 1}")
            token = self.vocabulary[number]
            if token in FRAMING:
                continue
            if words and token.startswith(self.prefix):
                words[-1] += token.removeprefix(self.prefix)
            else:
                words.append(token)
        return join(words)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, split: Callable[[str], list[str]] | None = None) -> "WordPiece":
        """The tokenizer of a released model, from tokenizer.json or else from vocab.txt.

        Args:
            folder: In the Hugging Face layout, or one of these two files; or a name on the hub, where huggingface_hub
                is installed.
            split: Instead of what the files say on case, accents and Chinese characters.

        Raises:
            FileNotFoundError: If there is neither file.
            ValueError: If a file asks for what is not handled here, named in the message.
        """
        return cls(**read(folder, split))

    def save(self, folder: str | Path) -> None:
        """Writes vocab.txt, and tokenizer_config.json for the transformers library.

        Raises:
            ValueError: If these files cannot say how this tokenizer works, or hold its tokens.
        """
        settings = {name: getattr(self, name) for name in ("split", "special", "unknown", "prefix", "longest")}
        write(folder, self.vocabulary, **settings)


class _Cache(dict[str, list[int]]):
    """What is known of words; forgets everything when it is full."""

    def __init__(self, find: Callable[[str], list[int]], full: int = 100_000):
        super().__init__()
        self.find, self.full = find, full

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= self.full:
            self.clear()
        self[word] = found = self.find(word)
        return found
