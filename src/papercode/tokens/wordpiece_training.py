r"""Growing a vocabulary of pieces from characters, always by the piece that helps most [@schuster2012japanese].

The paper's loop: begin with all characters; build a language model of the text as it is cut so far; of all pairs of
neighbours take the one that, joined into a new piece, raises the likelihood of the text most; again, until there are
enough pieces or the rise is too small.

With pieces that are drawn independently, the likeliest model gives each its share of the text, and the log-likelihood
of a text with N pieces, of which c(u) are u, is

$$ L = \sum_u c(u) \log \frac{c(u)}{N} = \sum_u f(c(u)) - f(N), \qquad f(x) = x \log x . $$

Joining a and b in all n places where they meet takes n from c(a), from c(b) and from N, and adds a piece that comes n
times. So what it gains is known without trying it ([`likelihood_gain`][papercode.tokens.wordpiece_training]).

Imports: BERT's words and special tokens (`BertText`, `SPECIAL`), since its vocabulary is what one trains today.

Differences from the paper:

- Its language model is not written down as a formula. Here it is the one above, a unigram model.
- Pieces do not cross the spaces between words, as in BERT, and those inside a word begin with ##.
- The characters at the beginning are those of the text, not those of the language.
- One piece is added at a time; the paper adds several that do not touch one another.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from papercode.tokens.bert_text import BertText
from papercode.tokens.wordpiece_files import SPECIAL
from papercode.tokens.wordpiece_growth import Pairs, characters, grow


def likelihood_gain(pairs: Pairs) -> NDArray[np.float64]:
    """By how much the log-likelihood of the text (in nats) rises when a pair is joined: the paper's steps 2 and 3."""
    n = pairs.together
    left = _xlogx(pairs.left - np.where(pairs.alike, 2 * n, n)) - _xlogx(pairs.left)
    right = np.where(pairs.alike, 0, _xlogx(pairs.right - n) - _xlogx(pairs.right))
    return _xlogx(n) + left + right - _xlogx(pairs.total - n) + _xlogx(np.array(pairs.total))


def association(pairs: Pairs) -> NDArray[np.float64]:
    """How often two come together, over the product of how often each comes: the score that courses give to WordPiece.

    It is what is left of the gain if one asks for the gain of a single joint, and not of all n. No paper has it.
    """
    return pairs.together / (pairs.left * pairs.right)


def train_wordpiece(
    texts: Iterable[str] | Mapping[str, int],
    size: int,
    *,
    split: Callable[[str], list[str]] = BertText(),  # noqa: B008 - frozen
    special: Sequence[str] = SPECIAL,
    score: Callable[[Pairs], NDArray[Any]] = likelihood_gain,
    threshold: float = 0.0,
    prefix: str = "##",
) -> list[str]:
    """A vocabulary: special tokens, characters, then pieces in the order in which they were found.

    With tqdm installed, long work shows a bar on a terminal.

    Args:
        texts: To learn from; or words, with how often each comes, which split does not see.
        size: Of the vocabulary. It stays smaller if threshold ends the growth.
        split: Cuts a text into words.
        special: Tokens at the beginning.
        score: By which the next piece is chosen.
        threshold: Growth ends at a score that is not above it.
        prefix: What a piece inside a word begins with.

    Raises:
        ValueError: If size has no room for the special tokens and the characters.
        TypeError: If texts is a single string.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several texts or a mapping of words to counts, got a string")
    words = dict(texts) if isinstance(texts, Mapping) else Counter(word for text in texts for word in split(text))
    for word, count in words.items():
        if not word or count < 1:
            raise ValueError(f"texts has the word {word!r} {count} times; it must have a character and come once")
    smallest = sorted({unit for word in words for unit in characters(word, prefix)})
    vocabulary = dict.fromkeys([*special, *smallest])
    if size < len(vocabulary):
        raise ValueError(
            f"size={size} must be at least {len(vocabulary)}, for {len(special)} special tokens and the characters"
        )
    with _bar(size - len(vocabulary)) as advance:
        for step in grow(words, score=score, prefix=prefix):
            if len(vocabulary) >= size or not step.score > threshold:
                break
            vocabulary[step.piece] = None
            advance()
    return list(vocabulary)


def _xlogx(x: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(x * np.log(np.maximum(x, 1)), np.float64)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], object]]:
    """What to call for each piece that is found."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda: None
        return
    with tqdm(total=total, desc="growing the vocabulary", unit="piece", leave=False, disable=None, delay=1) as bar:
        yield bar.update
