"""What BERT is fed: one text or two, framed, truncated, and padded to a batch [@devlin2019bert, section 3].

    [CLS] the first text [SEP] the second text [SEP] [PAD] [PAD]
      0    0    0    0     0    1    1     1     1     0     0     segments

The pieces come from a [`WordPiece`][papercode.tokens.wordpiece.WordPiece] [@schuster2012japanese].
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from papercode.tokens.wordpiece import WordPiece

if TYPE_CHECKING:
    import torch


class Framed(NamedTuple):
    """One or two texts as one sequence.

    Attributes:
        ids: Of the tokens, [CLS] and [SEP] included.
        segments: 0 up to the first [SEP], 1 after it.
    """

    ids: list[int]
    segments: list[int]


class Batch(NamedTuple):
    """Sequences of one length.

    Attributes:
        ids: A row for each sequence, [PAD] at its end.
        segments: The same with 0 and 1; padding has 0.
        mask: The same with False where there is padding.
    """

    ids: list[list[int]]
    segments: list[list[int]]
    mask: list[list[bool]]

    def tensors(self) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Ids and segments (int64) and mask (bool), each b by n."""
        import torch

        ids, segments = (torch.tensor(rows, dtype=torch.long) for rows in (self.ids, self.segments))
        return ids, segments, torch.tensor(self.mask, dtype=torch.bool)


def truncated(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """The beginnings of two texts that together have at most `room` tokens.

    The longer one is cut to the length of the shorter; if that is not enough, both to half the room, where the longer
    one has the odd token (of two equally long ones the second). BERT's own script gives it to the first text.

    Raises:
        ValueError: If room is negative.
    """
    if room < 0:
        raise ValueError(f"room={room} must be at least 0")
    short, long = sorted((len(first), len(second)))
    if short + long > room:
        short = min(short, room // 2)
        long = room - short
    if len(first) > len(second):
        return first[:long], second[:short]
    return first[:short], second[:long]


def frame(tokenizer: WordPiece, text: str, pair: str | None = None, *, max_length: int | None = None) -> Framed:
    """A text, or two, between [CLS] and [SEP].

    Args:
        tokenizer: Whose vocabulary has [CLS] and [SEP].
        text: The first text.
        pair: The second one, if there is one.
        max_length: At most so many tokens, frame included; None: all.

    Raises:
        ValueError: If max_length leaves no room for the frame, or the vocabulary lacks a token of it.
    """
    first, second = tokenizer.encode(text), [] if pair is None else tokenizer.encode(pair)
    extra = 2 if pair is None else 3
    if max_length is not None:
        if max_length < extra:
            raise ValueError(f"max_length={max_length} must be at least {extra}, for [CLS] and [SEP]")
        first, second = truncated(first, second, max_length - extra)
    cls, sep = _id(tokenizer, "[CLS]"), _id(tokenizer, "[SEP]")
    first = [cls, *first, sep]
    if pair is not None:
        second = [*second, sep]
    return Framed(first + second, [0] * len(first) + [1] * len(second))


def batch(
    tokenizer: WordPiece,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
) -> Batch:
    """Texts, or pairs of texts, framed and padded to the longest of them.

    Args:
        tokenizer: Whose vocabulary has [CLS], [SEP] and [PAD].
        texts: At least one.
        pairs: As many second texts.
        max_length: Of a sequence, frame included.

    Raises:
        ValueError: If texts is empty, texts and pairs differ in number, or as in
            [`frame`][papercode.tokens.bert_inputs.frame].
        TypeError: If texts or pairs is a string.
    """
    for name, given in (("texts", texts), ("pairs", pairs)):
        if isinstance(given, str):
            raise TypeError(f"{name} must be a sequence of strings, got the string {given!r}")
    if not texts or (pairs is not None and len(pairs) != len(texts)):
        raise ValueError(f"texts has {len(texts)} and pairs {len(pairs or ())} entries; there must be as many, and one")
    seconds = [None] * len(texts) if pairs is None else pairs
    framed = [frame(tokenizer, text, second, max_length=max_length) for text, second in zip(texts, seconds)]
    width, padding = max(len(row.ids) for row in framed), _id(tokenizer, "[PAD]")
    missing = [width - len(row.ids) for row in framed]
    return Batch(
        [row.ids + [padding] * more for row, more in zip(framed, missing)],
        [row.segments + [0] * more for row, more in zip(framed, missing)],
        [[True] * len(row.ids) + [False] * more for row, more in zip(framed, missing)],
    )


def _id(tokenizer: WordPiece, token: str) -> int:
    if token not in tokenizer.ids:
        raise ValueError(f"tokenizer has no {token} in its vocabulary of {len(tokenizer)}")
    return tokenizer.ids[token]
