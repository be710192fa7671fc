"""Both ways to merge a word against the rule in plain words, and against `tokenizers`."""

import itertools
import random

import pytest
from bpe_texts import random_words
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from papercode.tokens.bpe_merging import SHORT, Merges, WordCache
from papercode.tokens.bpe_training import learn_merges

MERGES = learn_merges(random_words(300), 60)
PIECES = dict.fromkeys(["a", "b", "c", "d", *(left + right for left, right in MERGES)])
VOCABULARY = {piece: i for i, piece in enumerate(PIECES)}
NAMES = list(VOCABULARY)


def by_the_rule(word):
    """Join the pair that was learned first, the leftmost of them; begin anew."""
    pieces = list(word)
    while True:
        ranks = [MERGES.index(pair) if pair in MERGES else len(MERGES) for pair in itertools.pairwise(pieces)]
        if not ranks or min(ranks) == len(MERGES):
            return pieces
        i = ranks.index(min(ranks))
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


words = st.text("abcd", min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(words)
def test_search_and_heap_follow_the_rule(word):
    merges = Merges(MERGES, VOCABULARY)
    ids = [VOCABULARY[character] for character in word]
    expected = by_the_rule(word)
    assert [NAMES[i] for i in merges.by_search(ids)] == expected
    assert [NAMES[i] for i in merges.by_heap(ids)] == expected
    assert ids == [VOCABULARY[character] for character in word]  # left as it was


@settings(max_examples=100, deadline=None)
@given(words)
def test_a_list_of_merges_nobody_learned(word):
    """In any order, so that a later product may be part of an earlier merge."""
    shuffled = MERGES[:]
    random.Random(len(word)).shuffle(shuffled)
    reference = Tokenizer(models.BPE(vocab=VOCABULARY, merges=shuffled))
    merges = Merges(shuffled, VOCABULARY)
    ids = [VOCABULARY[character] for character in word]
    assert merges.by_search(ids) == merges.by_heap(ids) == reference.encode(word).ids


def test_the_order_of_the_merges_matters():
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}
    assert Merges([("a", "b"), ("b", "c")], vocabulary)([0, 1, 2]) == [3, 2]
    assert Merges([("b", "c"), ("a", "b")], vocabulary)([0, 1, 2]) == [0, 4]


def test_long_words_take_the_heap(monkeypatch):
    merges = Merges(MERGES, VOCABULARY)
    word = random.Random(0).choices(range(4), k=SHORT + 1)
    expected = merges.by_search(word)
    monkeypatch.setattr(Merges, "by_search", None)
    assert merges(word) == expected
    assert len(merges(random.Random(1).choices(range(4), k=100_000))) < 60_000  # and in no time
    with pytest.raises(TypeError):
        merges(word[1:])


def test_merges_and_vocabulary_must_fit():
    with pytest.raises(ValueError, match="merge 0, 'a' 'x': 'x' is not in the vocabulary"):
        Merges([("a", "x")], {"a": 0, "ax": 1})
    with pytest.raises(ValueError, match="merge 0, 'x' 'a': 'x' is not in the vocabulary"):
        Merges([("x", "a")], {"a": 0, "xa": 1})
    with pytest.raises(ValueError, match="merge 1, 'b' 'a': 'ba' is not in the vocabulary"):
        Merges([("a", "b"), ("b", "a")], {"a": 0, "b": 1, "ab": 2})
    with pytest.raises(ValueError, match="merge 1, 'a' 'b', is already merge 0"):
        Merges([("a", "b"), ("a", "b")], {"a": 0, "b": 1, "ab": 2})


def test_a_cache_asks_once_and_is_emptied_when_full():
    asked = []
    cache = WordCache(lambda word: asked.append(word) or [len(word)], size=2)
    assert [cache["a"], cache["bb"], cache["a"], cache["bb"]] == [[1], [2], [1], [2]]
    assert asked == ["a", "bb"]
    assert cache["ccc"] == [3]
    assert list(cache) == ["ccc"]
    long = "d" * (SHORT + 1)
    assert cache[long] == [SHORT + 1]
    assert list(cache) == ["ccc"]  # what is long is rare
