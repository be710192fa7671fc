r"""Cutting text before any merge: special tokens first, then words, which are counted [@sennrich2016neural].

Imports: the standard library.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def count_words(
    texts: Iterable[str], words: Callable[[str], Sequence[str]], special: Sequence[str] = ()
) -> Counter[str]:
    """How often each word occurs in texts, in the order in which they come up.

    Raises:
        TypeError: If texts is one string.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several texts; put a single one into a list")
    pattern, counts = special_pattern(special), Counter[str]()
    for text in texts:
        for part in [text] if pattern is None else pattern.split(text)[::2]:
            counts.update(words(part))
    return counts


def special_pattern(special: Sequence[str]) -> re.Pattern[str] | None:
    """Splits a text at its special tokens: those stand at the odd places of what `split` returns.

    Raises:
        ValueError: If a token is empty or listed twice.
    """
    if "" in special or len(set(special)) < len(special):
        raise ValueError(f"special={list(special)} must be distinct tokens, none of them empty")
    if not special:
        return None
    return re.compile(f"({'|'.join(map(re.escape, sorted(special, key=len, reverse=True)))})")
