r"""What BERT's pre-training is fed [@devlin2019bert, section 3.1 and appendix A]: hidden words, and pairs of texts.

Imports: `IGNORED`, the target of what is not asked for (same paper).

Symbols: b batch, n positions.

Differences from the paper:
    * Of n tokens that may be chosen, round(0.15 n) are, and at least one, as in the authors' code; the paper says 15 %.
    * A random word is any entry of the vocabulary, special tokens and the right word included, as in the authors' code.
    * The authors' code hides the words of a text once and writes it down (ten times over); here each call draws anew.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from papercode.encoders.bert_pretraining import IGNORED


def mask_tokens(
    tokens: Int[Tensor, "b n"],
    *,
    mask: int,
    n_tokens: int,
    special: Sequence[int],
    rate: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Hides words: of the chosen ones 80 % become [MASK], 10 % a random word, 10 % stay (section 3.1).

    Args:
        tokens: The texts.
        mask: The id of [MASK].
        n_tokens: Size of the vocabulary, from which random words are drawn.
        special: Ids that are never chosen: [PAD], [CLS], [SEP], [UNK] if you like.
        rate: The part of each text's other tokens that is chosen; at least one of them is.
        generator: For the draws, on the device of tokens.

    Returns:
        The texts with words hidden, and the targets: the word itself where it was chosen, IGNORED elsewhere.

    Raises:
        ValueError: If rate is not between 0 and 1, or mask is not in the vocabulary.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must be more than 0 and at most 1")
    if not 0 <= mask < n_tokens:
        raise ValueError(f"mask={mask} must be an id, at least 0 and less than n_tokens={n_tokens}")

    def draw() -> Tensor:
        return torch.rand(tokens.shape, generator=generator, device=tokens.device)

    may = ~torch.isin(tokens, torch.tensor(list(special), dtype=tokens.dtype, device=tokens.device))
    count = (rate * may.sum(1, keepdim=True)).round().clamp(min=1)
    rank = draw().masked_fill(~may, 2).argsort(1).argsort(1)  # a random order, those that may not be chosen last
    chosen = may & (rank < count)
    fate = draw()
    words = torch.randint(n_tokens, tokens.shape, generator=generator, device=tokens.device, dtype=tokens.dtype)
    hidden = torch.where(chosen & (fate < 0.8), mask, tokens)
    hidden = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), words, hidden)
    return hidden, torch.where(chosen, tokens, IGNORED)


class Pair(NamedTuple):
    """Two texts, and whether the second follows the first.

    Attributes:
        first: Ids of its tokens.
        second: Likewise.
        follows: False if the second comes from another document.
    """

    first: list[int]
    second: list[int]
    follows: bool


def build_nsp_pairs(
    documents: Sequence[Sequence[Sequence[int]]],
    max_length: int,
    *,
    short: float = 0.1,
    seed: int = 0,
) -> Iterator[Pair]:
    """Cuts documents into pairs of texts; of half of them the second text is from another document (appendix A.2).

    A text is a run of whole sentences. Sentences are gathered until a pair is full; a random number of them is the
    first text, and either the rest is the second, or sentences from a random place in another document are. In the
    latter case the rest has not been used, and the next pair begins with it. Of a single sentence, the last of its
    document, there is no rest: so a little less than half of the pairs follow.

    Args:
        documents: At least two; each has sentences, each sentence ids of tokens.
        max_length: Of a pair with [CLS] and two [SEP]. What is too long is cut, the longer text first, at a random end.
        short: The part of pairs that aims at a random smaller length, so that fine-tuning meets nothing new.
        seed: Of all draws.

    Raises:
        ValueError: If there are fewer than two documents, one of them or a sentence is empty, or max_length < 5.
    """
    if len(documents) < 2:
        raise ValueError(f"documents has length {len(documents)}, but a text from another document takes at least 2")
    if any(not document or not all(document) for document in documents):
        raise ValueError("documents holds an empty document or an empty sentence")
    if max_length < 5:
        raise ValueError(f"max_length={max_length} must be at least 5: [CLS], a token, [SEP], a token, [SEP]")
    room, rng = max_length - 3, random.Random(seed)
    for number, document in enumerate(documents):
        start = 0
        while start < len(document):
            aim = rng.randint(2, room) if rng.random() < short else room
            end = _reach(document, start, aim)
            middle = rng.randint(start + 1, max(start + 1, end - 1))
            first = _joined(document[start:middle])
            follows = middle < end and rng.random() < 0.5
            if follows:
                second, start = _joined(document[middle:end]), end
            else:
                other = documents[(number + rng.randrange(1, len(documents))) % len(documents)]
                begin = rng.randrange(len(other))
                second = _joined(other[begin : _reach(other, begin, aim - len(first))])
                start = middle
            yield Pair(*_cut(first, second, room, rng), follows)


def _reach(sentences: Sequence[Sequence[int]], start: int, aim: int) -> int:
    """Where to stop so that the sentences from `start` on have at least `aim` tokens, if there are as many."""
    total = 0
    for end in range(start, len(sentences)):
        total += len(sentences[end])
        if total >= aim:
            return end + 1
    return len(sentences)


def _joined(sentences: Sequence[Sequence[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _cut(first: list[int], second: list[int], room: int, rng: random.Random) -> tuple[list[int], list[int]]:
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        del longer[0 if rng.random() < 0.5 else -1]
    return first, second


def warm_up(peak: float, steps: int, total: int) -> Callable[[int], float]:
    """The learning rate of step 1, 2, …: rises to the peak in `steps` steps, then falls to 0 at `total` (appendix A.2).

    The paper has peak = 1e-4, steps = 10,000 and total = 1,000,000.

    Raises:
        ValueError: If not 0 < steps < total.
    """
    if not 0 < steps < total:
        raise ValueError(f"need 0 < steps={steps} < total={total}")

    def rate(step: int) -> float:
        return peak * min(step / steps, max(0.0, total - step) / (total - steps))

    return rate
