"""Pairs of neighbours, and how they are joined; the scores have tests of their own."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from papercode.tokens.wordpiece_growth import Pairs, _Text, grow
from papercode.tokens.wordpiece_training import association, likelihood_gain


def test_three_in_a_row_are_joined_once():
    seen = []

    def score(pairs: Pairs):
        seen.append(pairs)
        return pairs.together

    pieces = [step.piece for step in grow({"aaaa": 1}, score)]
    assert pieces == ["aa", "##aa", "aaaa"]  # of equal ones the pair that came up first
    assert seen[0].together.tolist() == [1, 1]  # a with ##a; of three ##a only two can be joined
    assert seen[0].alike.tolist() == [False, True]
    assert (seen[0].left.tolist(), seen[0].right.tolist(), seen[0].total) == ([1, 3], [3, 3], 4)


def test_growth_ends_when_words_are_whole():
    *_, last = grow({"low": 5, "lower": 2, "banana": 4}, likelihood_gain)
    assert last.piece in {"low", "lower", "banana"}
    assert list(grow({"a": 3}, likelihood_gain)) == []


@given(st.dictionaries(st.text("ab", min_size=1, max_size=8), st.integers(1, 50), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_no_piece_is_found_twice(words):
    """Where ab and ##c meet, ##b and ##c met before, so abc has no second way to come about."""
    for score in (likelihood_gain, association, lambda pairs: -pairs.together):
        pieces = [step.piece for step in grow(words, score)]
        assert len(set(pieces)) == len(pieces)


def test_a_joint_visits_only_the_words_that_hold_the_pair():
    """Others would not change what comes out; they would cost time."""
    text = _Text({"aaab": 1, "ab": 2, "baab": 3}, "##")
    while len(rows := text.alive()):
        text.join(int(rows[0]))
        for pair, row in text.rows.items():
            assert set(text.places[row]) == {i for i, units in enumerate(text.words) if pair in pairwise(units)}


def test_more_pairs_than_there_was_room_for():
    words = [chr(first) + chr(second) for first in range(200, 240) for second in range(200, 240)]
    assert [step.piece for step in grow(dict.fromkeys(words, 1), lambda pairs: pairs.together)] == words


def test_pieces_come_one_at_a_time():
    assert [(step.piece, step.total) for step in grow({"abc": 2}, lambda pairs: pairs.left)] == [("ab", 6), ("abc", 4)]


@given(st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(1, 50), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_the_counts_are_those_of_the_pieces_that_are_left(words):
    """After each step the text has as many pieces fewer as the two could be joined."""
    totals, joints = [], []

    def score(pairs: Pairs):
        totals.append(pairs.total)
        joints.append(int(pairs.together[pairs.together.argmax()]))
        assert (pairs.together > 0).all()
        assert (pairs.together <= pairs.left).all()
        assert (pairs.together <= pairs.right).all()
        assert (2 * pairs.together <= pairs.left)[pairs.alike].all()
        return pairs.together

    steps = list(grow(words, score))
    totals.append(sum(words.values()))  # at the end every word is one piece
    assert [before - after for before, after in pairwise(totals)] == joints
    assert totals[0] == sum(len(word) * count for word, count in words.items())
    assert [step.total for step in steps] == totals[:-1]
