"""The filter against a set, and its rate of errors against the promise."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercode.decoders.overlap import BloomFilter, ngram_filter, ngrams, overlap


def test_ngrams_by_hand():
    assert ngrams("The cat's 3 hats,\n  the_END!", 3) == [
        "the cat s",
        "cat s 3",
        "s 3 hats",
        "3 hats the",
        "hats the end",
    ]
    assert ngrams("one two", 3) == []
    assert ngrams("one two three", 3) == ["one two three"]
    assert len(ngrams("a b c d e f g h i")) == 2
    assert ngrams("Éa 中文", 1) == ["éa", "中文"]


@given(st.sets(st.text(), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_what_was_added_is_always_found(items):
    bloom = BloomFilter(len(items))
    for item in items:
        bloom.add(item)
    assert all(item in bloom for item in items)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
def test_strangers_are_taken_for_members_as_often_as_promised(rate):
    bloom = BloomFilter(3000, rate)
    for i in range(3000):
        bloom.add(f"member {i}")
    wrong = sum(f"stranger {i}" in bloom for i in range(10_000)) / 10_000
    assert 0.7 * rate < wrong < 1.35 * rate


def test_size_for_the_papers_rate():
    """At 1e-8: 38.3 bits an item and 27 hashes."""
    bloom = BloomFilter(1000)
    assert (bloom.n_bits, bloom.n_hashes) == (38341, 27)
    assert "anything" not in bloom
    assert BloomFilter(10, 0.9).n_hashes == 1
    assert "anything" not in BloomFilter(10, 0.9)


@pytest.mark.parametrize("item", ["a", "b", "é", "中", "文", ""])
def test_the_places_of_an_item_differ(item):
    """16 bits and an odd step: none of the 11 comes twice, and strangers have others."""
    bloom = BloomFilter(1, 2**-11)
    bloom.add(item)
    assert (bloom.n_bits, bloom.n_hashes, sum(byte.bit_count() for byte in bloom._bits)) == (16, 11, 11)
    assert [other for other in ["a", "b", "é", "中", "文", ""] if other in bloom] == [item]


def test_overlap_is_that_of_sets():
    draw = random.Random(0)
    train, test = ([" ".join(draw.choices("abc", k=30)) for _ in range(20)] for _ in range(2))
    inside = {gram for text in train for gram in ngrams(text, 5)}
    grams = [gram for text in test for gram in ngrams(text, 5)]
    expected = sum(gram in inside for gram in grams) / len(grams)
    assert 0.3 < expected < 0.999
    bloom = ngram_filter(train, 5)
    assert overlap(test, bloom, 5) == pytest.approx(expected)
    assert overlap(train, bloom, 5) == 1
    assert overlap(["z " * 9], bloom, 5) == 0
    assert overlap([], bloom, 5) == 0
    assert overlap([train[0].upper().replace(" ", "-")], bloom, 5) == 1
    assert ngram_filter(train, 5).n_bits == BloomFilter(len(inside)).n_bits
    assert ngram_filter(train, 5, 0.5).n_bits == BloomFilter(len(inside), 0.5).n_bits
    assert overlap(train, ngram_filter(train)) == 1


def test_errors():
    with pytest.raises(ValueError, match=r"n_items=0 must be at least 1, false_positives=0\.1 between 0 and 1"):
        BloomFilter(0, 0.1)
    for rate in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"false_positives={rate} between"):
            BloomFilter(1, rate)
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        ngrams("a", 0)
    with pytest.raises(ValueError, match="texts have no run of n=8 words"):
        ngram_filter(["too short"])
