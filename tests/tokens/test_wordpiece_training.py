"""The growth of a vocabulary against the equations, with loops."""

import contextlib
import math
import re
import sys
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from papercode.tokens.bert_text import BertText
from papercode.tokens.wordpiece import WordPiece
from papercode.tokens.wordpiece_files import SPECIAL
from papercode.tokens.wordpiece_growth import Step, characters, grow
from papercode.tokens.wordpiece_training import association, likelihood_gain, train_wordpiece

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "aaaa": 7, "aaa": 2, "banana": 4}


def log_likelihood(cuts):
    """Of a text, each piece by its share; cuts: (pieces of a word, how often)."""
    counts = Counter()
    for pieces, weight in cuts:
        counts.update({piece: weight * number for piece, number in Counter(pieces).items()})
    total = sum(counts.values())
    return sum(count * math.log(count / total) for count in counts.values())


def joined(pieces, first, second):
    out = []
    for piece in pieces:
        if out and out[-1] == first and piece == second and not isinstance(out[-1], New):
            out[-1] = New(first + second[2:])
        else:
            out.append(piece)
    return [str(piece) for piece in out]


class New(str):
    """A piece of this step, which is not joined again in it."""


def by_loops(words, steps):
    """(piece, gain) of each step: every pair is tried on the whole text."""
    cuts = [([word[0], *(f"##{c}" for c in word[1:])], weight) for word, weight in words.items()]
    for _ in range(steps):
        before = log_likelihood(cuts)
        pairs = dict.fromkeys(pair for pieces, _ in cuts for pair in pairwise(pieces))
        if not pairs:
            return
        tried = {pair: [(joined(pieces, *pair), weight) for pieces, weight in cuts] for pair in pairs}
        gains = {pair: log_likelihood(after) - before for pair, after in tried.items()}
        yield gains
        best = max(gains, key=gains.__getitem__)
        cuts = tried[best]


def check_against_loops(words, steps):
    found = list(islice(grow(words, likelihood_gain), steps))
    names = []
    for step, gains in zip(found, by_loops(words, steps)):
        best = max(gains.values())
        assert step.score == pytest.approx(best, abs=1e-7)
        chosen = {first + second[2:] for (first, second), gain in gains.items() if gain > best - 1e-7}
        assert step.piece in chosen
        names.append(step.piece)
        if len(chosen) > 1:
            break  # after a tie the two may go different ways
    return names


def test_gains_are_those_of_the_equations(parity):
    words = {word: weight * 10 + i for i, (word, weight) in enumerate(WORDS.items())}  # so that nothing is a tie
    gains = [max(gains.values()) for gains in by_loops(words, 12)]
    steps = list(islice(grow(words, likelihood_gain), 12))
    ours, theirs = (torch.tensor(x, dtype=torch.float64) for x in ([step.score for step in steps], gains))
    parity("WordPiece training", "the equations, with loops", "gain of 12 pieces", ours, theirs)
    other = [step.score for step in islice(grow(words, association), 12)]
    assert [step.piece for step in steps] != [step.piece for step in islice(grow(words, association), 12)]
    assert max(other) < 1 < min(gains)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=7), st.integers(1, 50), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_gains_on_random_words_with_runs_of_a_letter(words):
    check_against_loops(words, 6)


def test_one_step_by_hand():
    """ab twice and ac once: a 3, ##b 2, ##c 1. Joining a and ##b leaves ab 2, a 1, ##c 1."""
    before = 3 * math.log(3 / 6) + 2 * math.log(2 / 6) + math.log(1 / 6)
    after = 2 * math.log(2 / 4) + 2 * math.log(1 / 4)
    (step,) = islice(grow({"ab": 2, "ac": 1}, likelihood_gain), 1)
    assert step == Step("ab", pytest.approx(after - before), 6)
    (step,) = islice(grow({"ab": 2, "ac": 1}, association), 1)
    assert step == Step("ab", 1 / 3, 6)  # 2 / (3 · 2), and 1 / (3 · 1) for ac: the first of two equals


def test_counting_pairs_makes_the_vocabulary_of_the_library():
    """Its trainer of that name joins what is most frequent. Up to the first tie the choice is the same."""
    texts = ["the cat sat on the mat with the hat that the rat had", "a rat that sat on a hat is a flat rat there"]
    trainer = trainers.WordPieceTrainer(vocab_size=36, special_tokens=list(SPECIAL), show_progress=False)
    theirs = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer, theirs.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    theirs.train_from_iterator(texts, trainer)
    vocabulary = sorted(theirs.get_vocab(), key=theirs.token_to_id)
    ours = train_wordpiece(texts, 36, score=lambda pairs: pairs.together)
    # special tokens and characters; the library has d, e, l and n twice, though no word begins with them
    assert set(vocabulary[:30]) - set(ours[:26]) == {"d", "e", "l", "n"}
    assert ours[26:30] == vocabulary[30:34] == ["##at", "th", "the", "rat"]
    assert train_wordpiece(texts, 36)[26:30] == ["##at", "th", "the", "on"]


def test_a_vocabulary_by_hand():
    assert train_wordpiece({"ab": 2, "ac": 1}, 9) == [*SPECIAL, "##b", "##c", "a", "ab"]
    assert train_wordpiece(["AB ab", "ac"], 9) == [*SPECIAL, "##b", "##c", "a", "ab"]
    assert train_wordpiece(["AB ab", "ac"], 99, split=BertText(False))[5:9] == ["##B", "##b", "##c", "A"]
    assert train_wordpiece(["x y"], 3, special=["[UNK]"]) == ["[UNK]", "x", "y"]
    assert train_wordpiece({"ab": 1}, 9, special=(), prefix="@") == ["@b", "a", "ab"]
    assert train_wordpiece({"abc": 1, "dbc": 1}, 5, special=(), prefix="@") == ["@b", "@c", "a", "d", "@bc"]
    assert characters("abc", "@") == ["a", "@b", "@c"]
    assert characters("abc") == ["a", "##b", "##c"]


def test_pieces_do_not_cross_spaces():
    assert train_wordpiece(["ab ab ab"], 9, special=()) == ["##b", "a", "ab"]


def test_threshold_ends_the_growth():
    scores = [step.score for step in grow(WORDS, likelihood_gain)]
    room = 1000
    full = train_wordpiece(WORDS, room, special=(), threshold=-math.inf)
    short = train_wordpiece(WORDS, room, special=(), threshold=40.0)
    assert full[: len(short)] == short
    number = next(i for i, score in enumerate(scores) if score <= 40)
    assert len(short) == len({c for word in WORDS for c in characters(word)}) + number < len(full)


def test_a_score_must_be_above_the_threshold_which_is_0():
    def grown(value, **threshold):
        found = train_wordpiece({"ab": 1}, 9, special=(), score=lambda pairs: value * pairs.together, **threshold)
        return found == ["##b", "a", "ab"]

    assert [grown(value) for value in (0.5, 0, -1)] == [True, False, False]
    assert [grown(value, threshold=7) for value in (8, 7)] == [True, False]


def test_a_bar_shows_the_pieces_that_are_found(monkeypatch):
    """On a terminal only (disable=None), and only if it takes its time."""
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, **settings):
            super().__init__(self)
            self.settings, self.updates = settings, 0
            bars.append(self)

        def update(self):
            self.updates += 1

    monkeypatch.setattr("tqdm.tqdm", Bar)
    assert train_wordpiece({"ab": 2, "ac": 1}, 12, special=["x"])[4:] == ["ab", "ac"]
    (bar,) = bars
    assert bar.updates == 2
    assert bar.settings.items() >= {"total": 12 - 4, "leave": False, "disable": None, "delay": 1}.items()


def test_it_works_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert train_wordpiece({"ab": 2}, 9, special=()) == ["##b", "a", "ab"]


def test_what_was_trained_can_cut_its_text():
    texts = ["the newest and the lowest of the wide rivers", "low, lower, lowest; new, newer, newest!"]
    tokenizer = WordPiece(train_wordpiece(texts, 60))
    for text in texts:
        assert "[UNK]" not in tokenizer.tokenize(text)
    small = WordPiece(train_wordpiece(texts, 45))
    assert sum(len(tokenizer.encode(text)) for text in texts) < sum(len(small.encode(text)) for text in texts)


def test_the_order_of_texts_does_not_matter_but_for_ties():
    words = {word: weight * 10 + i for i, (word, weight) in enumerate(WORDS.items())}
    turned = dict(reversed(words.items()))
    assert train_wordpiece(words, 35) == train_wordpiece(turned, 35)


@pytest.mark.parametrize(
    ("texts", "size", "error", "message"),
    [
        ("abc", 99, TypeError, "texts must be several texts or a mapping of words to counts, got a string"),
        (["ab"], 6, ValueError, "size=6 must be at least 7, for 5 special tokens and the characters"),
        ({"ab": 0}, 9, ValueError, "texts has the word 'ab' 0 times; it must have a character and come once"),
        ({"": 2}, 9, ValueError, "texts has the word '' 2 times; it must have a character and come once"),
    ],
)
def test_errors(texts, size, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        train_wordpiece(texts, size)
