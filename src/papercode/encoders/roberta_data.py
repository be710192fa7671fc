r"""What RoBERTa compares in its data [@liu2019roberta, sections 4.1 and 4.2]: when words are hidden, what an input is.

Imports: `Pair` and, for the reader, `build_nsp_pairs`, which is the first of the four formats [@devlin2019bert].

Symbols: b batch, n positions.

Differences from the paper:
    * A sentence that alone is too long is cut into inputs of full length; the paper says nothing of such sentences.
    * Sentences are taken in their order from the beginning to the end of the corpus; the paper samples where to begin.
    * The copies of static masking are used in turn, one an epoch; in BERT's files they are shuffled together.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle

from jaxtyping import Int
from torch import Tensor

from papercode.encoders.bert_data import Pair

Hidden = tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]
"""Texts with words hidden, and the targets."""


def static_masking(tokens: Int[Tensor, "b n"], hide: Callable[[Tensor], Hidden], copies: int = 10) -> Iterator[Hidden]:
    """Epoch after epoch, with words that were hidden once (section 4.1): the copies in turn, for ever.

    Args:
        tokens: All texts.
        hide: [`mask_tokens`][papercode.encoders.bert_data.mask_tokens] with its arguments. Called `copies` times.
        copies: How often the data is duplicated; each with other words hidden.

    Raises:
        ValueError: If there is not one copy.
    """
    if copies < 1:
        raise ValueError(f"copies={copies} must be at least 1")
    return cycle([hide(tokens) for _ in range(copies)])


def dynamic_masking(tokens: Int[Tensor, "b n"], hide: Callable[[Tensor], Hidden]) -> Iterator[Hidden]:
    """Epoch after epoch, with words hidden anew each time (section 4.1), for ever.

    Args:
        tokens: All texts.
        hide: As for static masking. Called once an epoch.
    """
    while True:
        yield hide(tokens)


def sentence_pairs(documents: Sequence[Sequence[Sequence[int]]], max_length: int, *, seed: int = 0) -> Iterator[Pair]:
    """SENTENCE-PAIR+NSP: two single sentences, of which the second follows, or is from another document, half and half.

    A last sentence is followed by none, and always gets a stranger.

    Args:
        documents: At least two; each has sentences, each sentence ids of tokens.
        max_length: Of a pair with its frame of three; the longer sentence is cut at its end.
        seed: Of all draws.

    Raises:
        ValueError: If there are fewer than two documents, one of them or a sentence is empty, or max_length < 5.
    """
    if len(documents) < 2:
        raise ValueError(f"documents has length {len(documents)}, but a sentence from another takes at least 2")
    _check(documents, max_length, 5)
    rng = random.Random(seed)
    for number, document in enumerate(documents):
        i = 0
        while i < len(document):
            follows = i + 1 < len(document) and rng.random() < 0.5
            other = documents[(number + rng.randrange(1, len(documents))) % len(documents)]
            first, second = list(document[i]), list(document[i + 1] if follows else rng.choice(other))
            while len(first) + len(second) > max_length - 3:
                (first if len(first) > len(second) else second).pop()
            yield Pair(first, second, follows)
            i += 2 if follows else 1


def full_sentences(
    documents: Sequence[Sequence[Sequence[int]]], max_length: int, separator: int
) -> Iterator[list[int]]:
    """FULL-SENTENCES: as many whole sentences as fit, across the borders of documents, at which a separator stands.

    Args:
        documents: Each has sentences, each sentence ids of tokens.
        max_length: Of an input with its frame of two.
        separator: Put between the sentences of two documents.

    Raises:
        ValueError: If a document or a sentence is empty, or max_length < 3.
    """
    _check(documents, max_length, 3)
    room, row = max_length - 2, list[int]()
    for document in documents:
        between = [separator] if row else []
        for sentence in document:
            if row and len(row) + len(between) + len(sentence) > room:
                yield row
                row, between = [], []
            row += [*between, *sentence]
            between = []
            while len(row) > room:  # one sentence alone
                yield row[:room]
                row = row[room:]
    if row:
        yield row


def doc_sentences(documents: Sequence[Sequence[Sequence[int]]], max_length: int) -> Iterator[list[int]]:
    """DOC-SENTENCES: as many whole sentences as fit, of one document; the last input of each may be short.

    Args:
        documents: Each has sentences, each sentence ids of tokens.
        max_length: Of an input with its frame of two.

    Raises:
        ValueError: If a document or a sentence is empty, or max_length < 3.
    """
    for document in documents:
        yield from full_sentences([document], max_length, 0)


def batches_of(inputs: Iterable[Sequence[int]], n_tokens: int) -> Iterator[list[Sequence[int]]]:
    """Batches with about as many tokens each, and so of more inputs where inputs are short (section 4.2).

    Args:
        inputs: Of any lengths, in their order.
        n_tokens: At most so many tokens, unless one input alone has more.

    Raises:
        ValueError: If n_tokens is less than 1.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens={n_tokens} must be at least 1")
    batch, total = list[Sequence[int]](), 0
    for row in inputs:
        if batch and total + len(row) > n_tokens:
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += len(row)
    if batch:
        yield batch


def _check(documents: Sequence[Sequence[Sequence[int]]], max_length: int, least: int) -> None:
    if any(not document or not all(document) for document in documents):
        raise ValueError("documents holds an empty document or an empty sentence")
    if max_length < least:
        raise ValueError(f"max_length={max_length} must be at least {least}: the frame, and a token of each text")
