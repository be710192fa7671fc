"""Sentences of opinions: the rule that makes the label, and vectors that lie in clusters."""

import pytest
import torch

from papercode.data.sentiment import Sentiment

LANGUAGE = Sentiment(n_polar=3, n_negators=2, n_neutral=5)


def kind(token):
    return next(name for name, words in LANGUAGE.kinds.items() if token in words)


def test_kinds_share_out_the_vocabulary():
    assert LANGUAGE.kinds == {
        "positive": range(1, 4),
        "negative": range(4, 7),
        "negator": range(7, 9),
        "neutral": range(9, 14),
    }
    assert LANGUAGE.size == 14


def test_the_label_follows_from_one_opinion():
    tokens, labels = LANGUAGE.sample(300, shortest=2, longest=6, negated=0.5)
    seen = set()
    for row, label in zip(tokens.tolist(), labels.tolist()):
        kinds = [kind(token) for token in row if token]
        assert 2 <= len(kinds) <= 6
        assert row == [token for token in row if token] + [0] * (tokens.shape[1] - len(kinds))
        (place,) = (i for i, name in enumerate(kinds) if name in ("positive", "negative"))
        turned = place > 0 and kinds[place - 1] == "negator"
        assert kinds.count("negator") == turned
        assert label == ((kinds[place] == "positive") != turned)
        seen.add((kinds[place], turned))
    assert len(seen) == 4
    assert {(tokens != 0).sum(1).min().item(), (tokens != 0).sum(1).max().item()} == {2, 6}


def test_the_share_of_negated_opinions():
    for negated, expected in ((0.0, 0), (1.0, 100)):
        tokens, _ = LANGUAGE.sample(100, negated=negated)
        assert torch.isin(tokens, torch.tensor(LANGUAGE.kinds["negator"])).sum() == expected


def test_the_seed_decides():
    first, again, other = (LANGUAGE.sample(20, seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])


def test_vectors_lie_in_clusters():
    vectors = Sentiment().vectors(200, noise=0.5, seed=3)
    assert (vectors[0] == 0).all()
    for words in Sentiment().kinds.values():
        if len(words) > 10:
            assert vectors[words.start : words.stop].std(0).mean() == pytest.approx(0.5, abs=0.05)
    kinds = Sentiment().kinds
    centres = [vectors[kinds[name].start : kinds[name].stop].mean(0) for name in ("positive", "negative")]
    assert (centres[0] - centres[1]).pow(2).mean() == pytest.approx(2, abs=0.6)
    assert torch.equal(vectors, Sentiment().vectors(200, seed=3))
    assert not torch.equal(vectors, Sentiment().vectors(200, seed=4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Sentiment(n_polar=0), "n_polar=0.*needs words of each kind"),
        (lambda: LANGUAGE.sample(1, shortest=1), "2 <= shortest=1 <= longest=15"),
        (lambda: LANGUAGE.sample(1, shortest=9, longest=8), "shortest=9 <= longest=8"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_documents_have_one_sentence_that_decides():
    documents, labels, places = LANGUAGE.documents(200, sentences=3, shortest=2, longest=5)
    opinions = {"positive": 1, "negative": 0}
    for document, label, place in zip(documents, labels.tolist(), places.tolist()):
        kinds = [[kind(token) for token in sentence] for sentence in document]
        assert all(2 <= len(sentence) <= 5 for sentence in document)
        (opinion,) = (name for name in kinds[place] if name != "neutral")
        assert opinions[opinion] == label
        assert all(name == "neutral" for i, names in enumerate(kinds) if i != place for name in names)
    assert {len(document) for document in documents} == {1, 2, 3}
    assert set(places.tolist()) == {0, 1, 2}
    assert LANGUAGE.documents(5, seed=1)[0] == LANGUAGE.documents(5, seed=1)[0] != LANGUAGE.documents(5, seed=2)[0]
    with pytest.raises(ValueError, match="sentences=0 must be at least 1"):
        LANGUAGE.documents(1, sentences=0)
