"""Span F1: seqeval in both of its modes on random tags, and by hand."""

import random
import warnings

import pytest

from papercode.evaluation.spans import bio_spans, conll_spans, iobes_spans, span_scores, span_scores_by_type

seqeval = pytest.importorskip("seqeval.metrics")
from seqeval.metrics.sequence_labeling import get_entities  # noqa: E402
from seqeval.scheme import IOB2, IOBES, Tokens  # noqa: E402

# how we read, which letters, and what seqeval wants to be told
MODES = {
    "default, BIO": (conll_spans, "BI", {}),
    "default, IOBES": (conll_spans, "BIES", {}),
    "strict, BIO": (bio_spans, "BI", {"mode": "strict", "scheme": IOB2}),
    "strict, IOBES": (iobes_spans, "BIES", {"mode": "strict", "scheme": IOBES}),
}


def tags(draw, letters, n, outside=0.3):
    """Anything, mostly malformed."""
    return [
        "O" if draw.random() < outside else f"{draw.choice(letters)}-{draw.choice(['X', 'Y', 'Z-1'])}" for _ in range(n)
    ]


def noisy(draw, row, letters):
    return [tag if draw.random() < 0.7 else tags(draw, letters, 1)[0] for tag in row]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_equals_seqeval(mode, seed):
    read, letters, options = MODES[mode]
    draw = random.Random(seed)
    true = [tags(draw, letters, draw.randint(1, 13)) for _ in range(11)]
    said = [noisy(draw, row, letters) for row in true]
    scores = span_scores(true, said, read)
    functions = seqeval.precision_score, seqeval.recall_score, seqeval.f1_score
    expected = [function(true, said, average="micro", **options) for function in functions]
    assert scores[:3] == pytest.approx(expected, abs=1e-12)
    assert 0 < scores.f1 < 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that were never said
        report = seqeval.classification_report(true, said, output_dict=True, **options)
    by_type = span_scores_by_type(true, said, read)
    assert list(by_type) == sorted(kind for kind in report if not kind.endswith("avg"))
    for kind, found in by_type.items():
        row = report[kind]
        assert found[:3] == pytest.approx((row["precision"], row["recall"], row["f1-score"]), abs=1e-12)
        assert found.true == row["support"]
    assert scores.right == sum(found.right for found in by_type.values())


@pytest.mark.parametrize("seed", range(6))
def test_spans_equal_those_of_seqeval(seed):
    draw = random.Random(seed)
    for letters, strict, scheme in (("BI", bio_spans, IOB2), ("BIES", iobes_spans, IOBES)):
        row = tags(draw, letters, 40, outside=draw.random() * 0.3)
        assert conll_spans(row) == [(kind, first, last + 1) for kind, first, last in get_entities(row)]
        assert strict(row) == [(e.tag, e.start, e.end) for e in Tokens(row, scheme).entities]
        assert strict(row) != conll_spans(row)


def test_by_hand():
    row = ["I-X", "I-X", "B-X", "I-Y", "O", "B-Y", "I-Y"]
    assert conll_spans(row) == [("X", 0, 2), ("X", 2, 3), ("Y", 3, 4), ("Y", 5, 7)]
    assert bio_spans(row) == [("X", 2, 3), ("Y", 5, 7)]
    row = ["B-X", "E-X", "E-X", "S-Y", "B-X", "I-X", "O", "B-Y", "I-Y", "E-Y"]
    assert conll_spans(row) == [("X", 0, 2), ("X", 2, 3), ("Y", 3, 4), ("X", 4, 6), ("Y", 7, 10)]
    assert iobes_spans(row) == [("X", 0, 2), ("Y", 3, 4), ("Y", 7, 10)]
    assert conll_spans([]) == bio_spans([]) == iobes_spans([]) == []


def test_scores_by_hand():
    true = [["B-X", "I-X", "O", "B-Y"], ["B-X", "O"]]
    said = [["B-X", "I-X", "O", "B-X"], ["B-X", "I-X"]]
    assert span_scores(true, said) == (1 / 3, 1 / 3, 1 / 3, 1, 3, 3)
    assert span_scores_by_type(true, said) == {"X": (1 / 3, 1 / 2, 0.4, 1, 3, 2), "Y": (0.0, 0.0, 0.0, 0, 0, 1)}
    assert span_scores(true, true) == (1.0, 1.0, 1.0, 3, 3, 3)
    # a span of another sentence is another span
    assert span_scores([["B-X"], ["O"]], [["O"], ["B-X"]]).right == 0
    # four words of six are right, one span of three is
    assert sum(a == b for one, two in zip(true, said) for a, b in zip(one, two)) == 4


@pytest.mark.parametrize(("true", "said"), [([["O"]], [["O"]]), ([["B-X"]], [["O"]]), ([["O"]], [["B-X"]]), ([], [])])
def test_nothing_to_find_and_nothing_found(true, said):
    assert span_scores(true, said)[:3] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("tag", ["X", "B", "B-", "-X", "", "b-X", "L-X", "o"])
@pytest.mark.parametrize("read", [conll_spans, bio_spans, iobes_spans])
def test_tags_that_are_none(read, tag):
    with pytest.raises(ValueError, match=f"tag='{tag}' must be O, or one of B, I, E, S, a dash and a type"):
        read(["O", tag])


def test_other_errors():
    with pytest.raises(ValueError, match="tag='E-X' is not BIO; read it with iobes_spans"):
        bio_spans(["B-X", "E-X"])
    for said in ([["O"]], [["O"], ["O", "O"]]):
        with pytest.raises(ValueError, match=f"said must have as many tags as true: {len(said)} and 2 sentences"):
            span_scores([["O"], ["O"]], said)
