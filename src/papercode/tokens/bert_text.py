r"""What BERT makes of a text before any piece is looked up: clean words [@devlin2019bert].

WordPiece cuts words [@schuster2012japanese]; what a word is has to be said before. BERT says it in its code, not in
its paper: drop control characters, stand every Chinese character alone, take accents and case away (uncased models
only), cut at spaces, and make each mark of punctuation a word.

All of this is a rule for one character at a time, but for the decomposition of accented letters in the middle (NFD).
So a text passes through two tables, which learn a character when they first meet it.

Differences from the paper's code, the first three of them together with the `tokenizers` library:

- Case is lowered character by character. BERT lowers whole words, which makes of a capital sigma at the end ς, not σ.
- Accents are stripped before case is lowered, and not after. It makes no difference to any text.
- Private-use characters are dropped; BERT keeps them.
- Categories come from the Unicode of the Python that runs, as in BERT, while the library brings tables of its own. Of
  145,000 characters they disagree on some 500, all but four younger than Unicode 3.2. And the library has forgotten
  256 Chinese characters that BERT has, U+2B820 to U+2B91F.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""The blocks of Chinese characters that BERT's code names; kana and hangul are not among them."""

_TIGHT = re.compile(r" (?=[.,;:!?%)])|(?<=\() | (['’]) (?=(?:s|t|m|d|re|ve|ll)\b)", re.IGNORECASE)


def is_chinese(character: str) -> bool:
    """Whether it lies in one of the blocks [`CHINESE`][papercode.tokens.bert_text.CHINESE]."""
    return any(first <= ord(character) <= last for first, last in CHINESE)


def is_punctuation(character: str) -> bool:
    """Whether it is a mark by Unicode, or one of ASCII's other signs, such as $ and ^, which Unicode calls symbols."""
    kind = unicodedata.category(character)[0]
    return kind == "P" or (kind == "S" and character.isascii())


@dataclass(frozen=True)
class BertText:
    """Cuts a text into BERT's words. Call it.

    Args:
        lowercase: As the uncased models have it.
        strip_accents: Whether é becomes e; None: if lowercase.
        split_chinese: Whether each Chinese character is a word.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    split_chinese: bool = True

    def __call__(self, text: str) -> list[str]:
        """The words, without the spaces between them; each mark of punctuation is one."""
        strip = self.lowercase if self.strip_accents is None else self.strip_accents
        before, after = _tables(self.lowercase, strip, self.split_chinese)
        text = text.translate(before)
        if strip:
            text = unicodedata.normalize("NFD", text)
        return text.translate(after).split()


def joined(words: Sequence[str]) -> str:
    """A text that is cut into the same words, with spaces where English would have them.

    What stood there, words do not tell: "a.b", "a. b" and "a . b" are the same three. Only spaces beside punctuation
    and between Chinese characters are left out, which change nothing when the text is cut again.
    """
    spaced = "".join(
        word if i == 0 or (_one_chinese(word) and _one_chinese(words[i - 1])) else f" {word}"
        for i, word in enumerate(words)
    )
    return _TIGHT.sub(lambda found: found[1] or "", spaced)


def _one_chinese(word: str) -> bool:
    return len(word) == 1 and is_chinese(word)


class _Table(dict[int, str | None]):
    """For `str.translate`: what becomes of a character, by a rule that is asked once for each."""

    def __init__(self, rule: Callable[[str], str | None]):
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str | None:
        self[code] = found = self.rule(chr(code))
        return found


@cache
def _tables(lowercase: bool, strip: bool, split_chinese: bool) -> tuple[_Table, _Table]:
    """What becomes of a character before the decomposition, and after it; None: nothing."""

    def before(character: str) -> str | None:
        if character in "\t\n\r":
            return " "
        if character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):
            return None
        if split_chinese and is_chinese(character):
            return f" {character} "
        return " " if character.isspace() else character

    def after(character: str) -> str | None:
        if strip and unicodedata.category(character) == "Mn":
            return None
        if is_punctuation(character):
            return f" {character} "
        return character.lower() if lowercase else character

    return _Table(before), _Table(after)
