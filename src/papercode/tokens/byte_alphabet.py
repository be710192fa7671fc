r"""The alphabet and the words of byte-level BPE [@wang2020neural; @radford2019language].

Imports: the standard library.

Both come from GPT-2's code: a printable character for each byte, so that pieces can be written into text files, and the
pattern that cuts a text into words before any merge.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space, since 2013


@cache
def byte_characters() -> tuple[str, ...]:
    """The character that stands for each byte.

    A byte whose character in Latin-1 can be seen on paper stands for itself. The other 68 get the characters from
    U+0100 on, in their order. So a space (byte 32) is written Ġ and a line break (byte 10) Ċ.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in visible else next(others)) for byte in range(256))


@cache
def _pattern() -> re.Pattern[str]:
    r"""GPT-2's pattern, with what Python's `re` has.

    The original says \p{L} for letters and \p{N} for numbers. Python's \w is letters, numbers and the underscore, and
    its \d only the decimal digits among the numbers (Nd). So the other numbers (Nl, such as Ⅷ, and No, such as ½) are
    listed, as the Unicode tables of this Python have them. They all lie in the first two planes.
    """
    numbers = _ranges(code for code in range(0x20000) if unicodedata.category(chr(code)) in ("Nl", "No"))
    return re.compile(
        "'(?:[sdmt]|ll|ve|re)"
        r"|(?> ?[A-Za-z]+)(?![^\x00-\x7f])"  # what the next line finds, but faster where all is ASCII
        rf"| ?[^\W\d_{numbers}]+"
        rf"| ?[\d{numbers}]+"
        rf"| ?(?:[^\w{SPACES}]|_)+"
        rf"|[{SPACES}]+(?![^{SPACES}])"
        rf"|[{SPACES}]+"
    )


def _ranges(codes: Iterable[int]) -> str:
    """Code points in ascending order, as they are written between the brackets of a pattern."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


def gpt2_words(text: str) -> list[str]:
    """Cuts a text as GPT-2 does; nothing is lost, the words joined are the text.

    A word is a run of letters, of numbers or of other marks, with the one space before it; 's, 're and their like are
    words of their own. Of several spaces the last goes with the word that follows.
    """
    return _pattern().findall(text)
