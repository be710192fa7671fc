r"""How many entities a tagger found, whole: precision, recall and F1 over spans.

A span counts if its type, first and last word are all right. While tags are well formed there is no question what their
spans are. A tagger that decides word by word also writes rows that are not, and there are two ways to read them:

* `conll_spans`, the way of the shared task's script [@tjongkimsang2003introduction]: every tag but O belongs to a span.
  A word goes on with the span before it if it has the same type, its letter is I or E, and the letter before it is B
  or I; else it begins a new one. So an I without a B is an entity.
* `bio_spans`, `iobes_spans`, the strict ones: only what is written as the scheme says is a span. An I without a B is
  nothing, and in IOBES neither is a B without its E.

On well-formed tags they agree. They are those of seqeval in its default and in its strict mode.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Span = tuple[str, int, int]
"""Type, first word, word after the last."""


class Scores(NamedTuple):
    """What came out, and what it was computed from.

    Attributes:
        precision: Of the spans that were said, the part that is right; 0 if none was.
        recall: Of the true spans, the part that was said; 0 if there is none.
        f1: The harmonic mean of both; 0 if both are.
        right: How many were said and true.
        said: How many were said.
        true: How many there are.
    """

    precision: float
    recall: float
    f1: float
    right: int
    said: int
    true: int


def _parts(tag: str) -> tuple[str, str]:
    """Letter and type."""
    if tag == "O":
        return "O", ""
    letter, dash, kind = tag.partition("-")
    if letter not in ("B", "I", "E", "S") or not dash or not kind:
        raise ValueError(f"tag={tag!r} must be O, or one of B, I, E, S, a dash and a type")
    return letter, kind


def conll_spans(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence, read generously: every tag but O belongs to one.

    Raises:
        ValueError: If a tag is none.
    """
    spans: list[Span] = []
    before = "O", ""
    for i, (letter, kind) in enumerate(map(_parts, tags)):
        if letter in "IE" and before[0] in ("B", "I") and before[1] == kind:
            spans[-1] = (kind, spans[-1][1], i + 1)
        elif letter != "O":
            spans.append((kind, i, i + 1))
        before = letter, kind
    return spans


def bio_spans(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence in BIO, read strictly: a B, and all I of its type that follow.

    Raises:
        ValueError: If a tag is none, or has a letter that BIO lacks.
    """
    spans: list[Span] = []
    inside = None
    for i, (letter, kind) in enumerate(map(_parts, tags)):
        if letter in "ES":
            raise ValueError(f"tag={tags[i]!r} is not BIO; read it with iobes_spans")
        if letter == "B":
            spans.append((kind, i, i + 1))
            inside = kind
        elif letter == "I" and inside == kind:
            spans[-1] = (kind, spans[-1][1], i + 1)
        else:
            inside = None
    return spans


def iobes_spans(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence in IOBES, read strictly: S, or B and E of one type with nothing but I of it between.

    Raises:
        ValueError: If a tag is none.
    """
    spans: list[Span] = []
    begun: tuple[str, int] | None = None
    for i, (letter, kind) in enumerate(map(_parts, tags)):
        if letter == "S":
            spans.append((kind, i, i + 1))
        if letter == "E" and begun and begun[0] == kind:
            spans.append((kind, begun[1], i + 1))
        if letter == "B":
            begun = kind, i
        elif letter != "I" or not begun or begun[0] != kind:
            begun = None
    return spans


def _scores(true: set, said: set) -> Scores:
    right = len(true & said)
    precision, recall = right / len(said) if said else 0.0, right / len(true) if true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return Scores(precision, recall, f1, right, len(said), len(true))


def span_scores(
    true: Iterable[Sequence[str]],
    said: Iterable[Sequence[str]],
    read: Callable[[Sequence[str]], list[Span]] = conll_spans,
) -> Scores:
    """Over all spans together (micro average), which is what F1 of names means in papers.

    Args:
        true: The tags of each sentence.
        said: What the tagger wrote.
        read: How tags become spans: `conll_spans`, `bio_spans`, `iobes_spans`.

    Raises:
        ValueError: If there are not as many tags as true ones, in all or in a sentence.
    """
    return _scores(*_both(true, said, read))


def span_scores_by_type(
    true: Iterable[Sequence[str]],
    said: Iterable[Sequence[str]],
    read: Callable[[Sequence[str]], list[Span]] = conll_spans,
) -> dict[str, Scores]:
    """For each type that is true or said somewhere, in the order of the alphabet.

    Args:
        true: The tags of each sentence.
        said: What the tagger wrote.
        read: How tags become spans: `conll_spans`, `bio_spans`, `iobes_spans`.

    Raises:
        ValueError: If there are not as many tags as true ones, in all or in a sentence.
    """
    one, other = _both(true, said, read)
    kinds = sorted({span[1] for span in one | other})
    return {kind: _scores(*({span for span in spans if span[1] == kind} for spans in (one, other))) for kind in kinds}


def _both(true: Iterable, said: Iterable, read: Callable) -> tuple[set, set]:
    """The spans of all sentences, each with its sentence's number."""
    true, said = list(true), list(said)
    if [len(tags) for tags in true] != [len(tags) for tags in said]:
        raise ValueError(f"said must have as many tags as true: {len(said)} and {len(true)} sentences")
    one, other = ({(i, *span) for i, tags in enumerate(rows) for span in read(tags)} for rows in (true, said))
    return one, other
